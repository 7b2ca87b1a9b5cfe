"""What parts of the core look like to those below them, which must not import them.

Owns: the Protocols through which the core looks back. Must not know: who implements them.

    Client, Publisher, Sender            connection.Connection
    Authenticating                       authentication.Authentication
    Outgoing, Filling, Thirsty, Stored   queue.Queue, stored_queue.StoredQueue
    Holder                               session.Session: whoever can hold a subscription
    Group                                group.Group: of several clients, one of which gets each message
    Lender, Asking                       group.Group, group.Member
    Counted                              session.Session, group.Group
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Protocol

from ..wire.codes import ReasonCode
from ..wire.message import Message
from .ports import QueueChanges, QueuedMessage, Rights

#: How a holder gets its messages: as anybody who speaks MQTT 3.1.1, or 5.0; in a way of its own; or it hands them on.
THREE, FIVE, SPECIAL, GROUP = range(4)


class Sink(Protocol):
    """Takes the frames of QoS 0: a connection's out list, or a Discard while there is none that takes more."""

    def append(self, frame: bytes, /) -> None: ...


class Publisher(Hashable, Protocol):
    """A connection that can be held back (pressure)."""

    def hold_back(self) -> None: ...
    def let_go(self) -> None: ...

    @property
    def longest_hold(self) -> float:
        """Seconds that it can be held at a time without being taken for dead, or taking the broker for dead."""


class Sender(Hashable, Protocol):
    """A connection that sends what cannot be used yet (incoming)."""

    @property
    def origin(self) -> str: ...
    @property
    def wanted(self) -> int:
        """Bytes that it will hold, by what it has announced."""

    def close(self, why: str, *, reason: ReasonCode | None = None) -> None: ...


class Client(Publisher, Protocol):
    """A client that is connected."""

    out: list[bytes]  #: what is to be sent to it
    congested: bool  #: is more unsent than the limit?
    taken_at: float  #: when it took something of what was unsent
    rights: Rights | None
    size: int  #: bytes that it takes, as core.memory counts
    # Of MQTT 5.0; with a client of MQTT 3.1.1, these say that it takes anything, but no aliases.
    receive_maximum: int  #: messages of QoS 1 and 2 that it takes in flight
    largest: int  #: bytes of the largest packet that it takes; 0: any
    alias_maximum: int  #: Topic Aliases that it takes
    problem_information: bool  #: does it want Reason Strings?
    receive_limit: int  #: messages of QoS 1 and 2 that the broker takes from it in flight
    alias_limit: int  #: Topic Aliases that the broker takes from it
    outward: Outward | None  #: how messages are laid out for it; None: as for all

    @property
    def version(self) -> int:
        """The protocol level that it speaks."""

    @property
    def peer(self) -> str: ...
    @property
    def listener(self) -> str: ...
    @property
    def origin(self) -> str: ...
    def proven_name(self, username: str | None) -> str | None:
        """The user name, if it was checked."""

    def current_rights(self) -> Rights | None:
        """What it may do by the listener's present policy."""

    def acknowledge(self, acknowledgement: bytes, durable: bool) -> None:
        """Send this; if it is `durable`, once all that happened up to now is stored."""

    def flush(self) -> None: ...
    def close(self, why: str, normal: bool = False, gently: bool = True, reason: ReasonCode | None = None) -> None:
        """End it. A client of MQTT 5.0 is told the `reason`, if there is one, before."""


class Outward(Protocol):
    """How messages are laid out for one client that takes no packet of any size, or Topic Aliases."""

    def frame(self, message: Message, left: int | None) -> bytes | None:
        """The whole PUBLISH at QoS 0; None: it is too large for the client."""

    def pieces(
        self, message: Message, qos: int, packet_id: int, left: int | None, again: bool
    ) -> tuple[bytes, ...] | None:
        """The PUBLISH at QoS 1 or 2, likewise. What is made here is sent, and in this order."""


class Lender(Protocol):
    """A group, whose message is in flight to one of its members."""

    def settled(self, place: int) -> None:
        """It was acknowledged."""

    def back(self, place: int) -> None:
        """Its client is gone, and has not acknowledged it."""

    def again(self, message: Message, qos: int) -> None:
        """Its client is gone, and has not been sent it."""


class Asking(Protocol):
    """Waits for room with a client."""

    def has_room(self) -> None: ...


class Authenticating(Protocol):
    """The AUTH packets of one client (authentication)."""

    @property
    def asks(self) -> bool:
        """Has the client been asked something, and not answered?"""

    @property
    def method(self) -> str: ...


class Outgoing(Protocol):
    """The way out of messages at QoS 1 and 2."""

    size: int  #: bytes of what waits

    @property
    def count(self) -> int: ...
    @property
    def sent_to(self) -> int: ...
    @property
    def has_room(self) -> bool: ...
    def deliver(self, message: Message, qos: int) -> None: ...
    def attach(self) -> None: ...
    def detach(self) -> None: ...
    def congest(self) -> None: ...
    def relieve(self) -> None: ...
    def discard(self) -> None: ...
    def ready(self, qos: int) -> bool:
        """Would a message of a group at this QoS go out at once?"""

    @property
    def pending(self) -> int:
        """Messages in flight, or in memory to be sent."""

    def lend(self, message: Message, lender: Lender, place: int) -> None:
        """Send a message at QoS 1 that stays its lender's until it is acknowledged. Only if it is `ready`."""

    def entrust(self, message: Message, lender: Lender, original: Message) -> None:
        """Send a message at QoS 2, which is the client's when it is sent. `original`: as the group has it."""

    def give_back(self) -> list[tuple[Lender, int]]:
        """The client is gone: what is lent to it."""

    def ask(self, asking: Asking) -> None:
        """Tell this one, once, when it is ready for messages of groups."""

    def puback(self, packet_id: int) -> None: ...
    def pubrec(self, packet_id: int) -> None: ...
    def pubcomp(self, packet_id: int) -> None: ...
    def refused(self, packet_id: int) -> None: ...
    def has_sent(self, packet_id: int) -> bool: ...


class Holder(Hashable, Protocol):
    """Who gets what its subscriptions match."""

    store_id: int  #: 0: it is not stored
    version: int  #: the protocol level of its client, now or last
    layout: int  #: THREE, FIVE, SPECIAL or GROUP
    rights: Rights | None
    sink: Sink  #: where frames of QoS 0 go
    queue: Outgoing | None  #: its way out at QoS 1 and 2: there is one if it was granted more than QoS 0
    connection: Client | None


class Group(Holder, Protocol):
    """A holder whose layout is GROUP: it hands each message on to one of its members."""

    def share(self, message: Message, options: int, author: Holder | None, retain: bool) -> None:
        """Deliver this message to one of them. `retain`: was it published to be retained?"""


class Counted(Protocol):
    """A session, or a group, that is stored (quotas)."""

    proven_name: str | None  #: whose it is, if that was checked
    origin: str  #: the place that it was made from


class Filling(Hashable, Protocol):
    """A queue in memory that fills up (pressure)."""

    @property
    def progress(self) -> object:
        """Another value whenever its client has taken something."""

    @property
    def owner(self) -> Publisher | None:
        """Its client."""


class Thirsty(Protocol):
    """A queue that may send more."""

    def pump(self) -> None: ...


class Stored(Hashable, Protocol):
    """A queue that is in the store."""

    session_id: int
    next_seq: int

    @property
    def client_id(self) -> str: ...
    @property
    def changed(self) -> bool: ...
    @property
    def fetching(self) -> bool:
        """Does it wait for messages from the store?"""

    def take_changes(self) -> QueueChanges: ...
    def stored(self) -> None:
        """What was taken is stored."""

    def fetched(self, messages: list[QueuedMessage], upto: int) -> None:
        """The next messages have come from the store, which knew all places below `upto`."""
