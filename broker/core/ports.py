"""What the outside implements for the core: Protocols, and the plain records that cross the border.

Owns: the contracts. Must not know: any implementation.
"""

from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple, Protocol, TypeAlias

from ..wire.codes import ReturnCode
from ..wire.message import Message
from ..wire.packets import Connect


class Transport(Protocol):
    """The bytes of one client. All of it is called on the loop's thread only.

    `out` collects what is to be sent: the core appends, the transport takes it at the end of the turn.
    """

    out: list[bytes]
    peer: str  #: address and port, for the log

    @property
    def identity(self) -> str | None:
        """The user name that the other end has proved to have ("" is none); None: it is CONNECT that says it."""

    def flush(self) -> None:
        """Send what is in `out`, as far as the client takes it without delay; keep the rest for later."""

    def close(self, gently: bool = True) -> None:
        """Send what is in `out` as far as the client takes it without delay, then close: `gently` if the client
        should get what was sent. May be called twice."""

    def pause_reading(self) -> None:
        """Read nothing until `resume_reading`: the client's data stays in the network."""

    def resume_reading(self) -> None: ...


class Rights(Protocol):
    """What one client may do (implemented in broker.auth.acl). Topics and filters are valid."""

    def may_publish(self, topic: bytes) -> bool: ...
    def may_surely_publish(self, topic: bytes) -> bool:
        """Is that known already, so that asking costs nothing? False: ask `may_publish`."""

    def may_receive(self, topic: bytes) -> bool: ...
    def may_subscribe(self, topic_filter: bytes) -> bool: ...

    @property
    def effort(self) -> int:
        """Branches that were looked at for its answers up to now: by the difference, a question tells what it cost."""


#: How the Client Identifiers begin that the broker gives to clients without one.
GIVEN_CLIENT_ID = "auto-"


class Place(Protocol):
    """A connection's place on its listener."""

    def heard(self) -> bool:
        """Its CONNECT has come. Is there room for one more client?"""

    def take(self) -> bool:
        """It is a client from now on. False: others have taken the room meanwhile."""

    def leave(self) -> None:
        """It is closed."""


class Verdict(NamedTuple):
    """The answer to a CONNECT."""

    code: ReturnCode
    why: str = ""  #: the reason of a refusal, for the log


#: Tells who decides that nobody wants to know any more.
GiveUp: TypeAlias = Callable[[], None]


class Challenge(NamedTuple):
    """An authentication goes on: the client is to answer this."""

    data: bytes


class Proved(NamedTuple):
    """The client is this user, and may connect."""

    username: str
    data: bytes  #: the client is told it with the success


class Failed(NamedTuple):
    """The client may not connect, or may not stay."""

    code: ReturnCode
    why: str  #: for the log alone: it tells known users from unknown ones
    username: str | None = None  #: who the client said to be, if it came so far


#: What becomes of an authentication by what the client sent.
Outcome: TypeAlias = Challenge | Proved | Failed


class Dialogue(Protocol):
    """One authentication by AUTH packets (MQTT 5.0, section 4.12): of a client that connects, or of one that is in.

    It holds nothing that must be given back: it may be dropped between two steps.
    """

    def step(self, data: bytes, decided: Callable[[Outcome], None]) -> Outcome | GiveUp:
        """Go on by the Authentication Data of a CONNECT or AUTH, b"" if there is none. What is returned is as in
        `Gatekeeper.admit`. Only after a Challenge there is a next step."""


class Gatekeeper(Protocol):
    """Decides about a CONNECT: one for each listener."""

    listener: str  #: its name, under which what is stored knows it after a restart, too

    @property
    def max_keepalive(self) -> float:
        """The longest keep alive in seconds: one of 0, or a longer one, counts as this. 0: there is no such limit."""

    def admit(
        self, connect: Connect, peer: str, decided: Callable[[Verdict], None], proved: bool = False
    ) -> Verdict | GiveUp:
        """The answer, if it can be told without delay; else `decided` is called later on the loop, unless what is
        returned is called before. `peer`: see Transport. `proved`: the transport vouches for the user name."""

    @property
    def methods(self) -> Collection[str]:
        """The Authentication Methods by which a client can log in."""

    def begin(self, method: str, client_id: str | None, username: str | None, peer: str) -> Dialogue | None:
        """An authentication; None: this is none of `methods` [MQTT5-4.12.0-1]. What succeeds stands for `admit`.

        `client_id`: that of the CONNECT; None: the client is in, and authenticates itself again. `username`: whom it
        has to be, by what its CONNECT or its certificate says, or as whom it is in; None: that is not said yet."""

    @property
    def proves_names(self) -> bool:
        """Is a user name checked here?"""

    def proven_name(self, username: str | None) -> str | None:
        """The user name, if it was checked: only then it gives rights."""

    def may_take_over(self, owner: str, username: str | None) -> bool:
        """May who says to be `username` have the session of the user `owner`?"""

    def origin(self, peer: str) -> str:
        """The place that a client comes from, if it is one of many from which clients come; "" for this machine."""

    def rights(self, username: str | None, client_id: str) -> Rights | None:
        """What this client may do; None where there is no access control list, and everything is allowed."""


class Scheduler(Protocol):
    """The loop, as far as the core needs it."""

    def soon(self, function: Callable[[], None]) -> None:
        """Call `function` in the next turn, after other clients had theirs."""

    def in_turn(self, function: Callable[[], None]) -> None:
        """Call `function` when all who have waited longer had their turn: it goes on with work that is long."""

    @property
    def heard_until(self) -> float:
        """What clients had sent by this time was received: later, something may be waiting for its turn."""


class Log(Protocol):
    """Where the core tells what happened. `event` is a constant text; what varies are the fields."""

    @property
    def debugging(self) -> bool:
        """Does anybody hear `debug`?"""

    def debug(self, event: str, **fields: object) -> None: ...
    def info(self, event: str, **fields: object) -> None: ...
    def warning(self, event: str, **fields: object) -> None: ...
    def error(self, event: str, **fields: object) -> None: ...
    def exception(self, event: str, error: BaseException, **fields: object) -> None:
        """With the traceback: for bugs."""


# --- the store ---------------------------------------------------------------------------------------------------

#: A message and the QoS at which a certain client gets it.
Delivery: TypeAlias = tuple[Message, int]

#: Sets of Packet Identifiers are kept as bits, so many in a bucket: identifier n is bit n % BUCKET_SIZE of bucket
#: n // BUCKET_SIZE. A bucket without any is not there, or 0 where changes are told.
BUCKET_SIZE = 32
BUCKETS = 0x10000 // BUCKET_SIZE


#: Kinds of sessions: a client's, and one that a group of clients shares.
OF_A_CLIENT, OF_A_GROUP = 0, 1


class SessionRecord(NamedTuple):
    """A persistent session without its subscriptions and messages."""

    id: int  #: never used again for another session
    client_id: str  #: of a group, its whole filter: `$share/name/filter`
    username: str | None  #: whose it is, and whose rights hold for what is queued; None too if nobody had checked it
    disconnected_at: float | None  #: a date of core.clock; None while it is connected
    sent_to: int | None  #: the first place in the queue that was never sent; None if that is not known
    listener: str | None = None  #: where its client came in last; None if an older version wrote it
    origin: str = ""  #: the place that it was made from (see Gatekeeper.origin)
    expiry: float | None = None  #: seconds that it lasts without its client, inf: for ever; None: as the options say
    version: int = 4  #: of the protocol that its client spoke last
    kind: int = OF_A_CLIENT


class SessionSnapshot(NamedTuple):
    """A persistent session as the store knows it at the start."""

    record: SessionRecord
    subscriptions: dict[bytes, int]  #: Topic Filter -> options (see broker.core.subscription)
    received: dict[int, int]  #: Packet Identifiers of QoS 2 messages that the client has not released, by bucket
    released: tuple[int, ...]  #: places of messages that wait for PUBCOMP, in the order of their PUBRECs [MQTT-4.6.0-4]
    first_seq: int  #: place of the first message queued; equal to next_seq if there is none
    next_seq: int  #: place that the next message gets
    queued_bytes: int  #: size of what is queued; it may be a little more than is really there


class RetainedRecord(NamedTuple):
    """A retained message, and who published it."""

    message: Message  #: its `retain` is True; with its properties, and the date at which it expires
    username: str | None  #: None too if nobody had checked it
    client_id: str  #: empty if it is the broker's own
    listener: str | None = None  #: where they came in, whose rules they must keep to; None as in SessionRecord


class WillRecord(NamedTuple):
    """A Will Message that is not published yet, and who left it."""

    client_id: str
    username: str | None  #: as in RetainedRecord
    listener: str | None
    topic: bytes
    payload: bytes
    qos: int
    retain: bool
    kept: bytes = b""  #: its properties (see wire.message)
    message_expiry: int | None = None  #: seconds that it may be delivered once it is published; None: for ever
    delay: int = 0  #: seconds that it waits when its client is gone
    due: float | None = None  #: the date at which it is published; None: its client is connected


class ClockRecord(NamedTuple):
    """What one run of the broker tells the next of the time (see core.clock)."""

    at: float  #: the broker's own time when this was recorded
    wall: float  #: what the system's clock said then, in seconds since the epoch
    pauses: tuple[tuple[float, float], ...]  #: when the broker was stopped, in its own time, and for how many seconds


class Snapshot(NamedTuple):
    sessions: list[SessionSnapshot]
    retained: list[RetainedRecord]
    clock: ClockRecord | None = None
    wills: Mapping[int, WillRecord] = {}  #: by their ids


#: A message in a session's queue: its place, from which the Packet Identifier follows; the message; the QoS for this
# client.
QueuedMessage: TypeAlias = tuple[int, Message, int]


class QueueChanges(NamedTuple):
    """What happened to one session's queue."""

    session: int
    added: dict[int, Delivery]  #: by place, in their order
    settled: list[int]  #: places that the client has acknowledged, in no order
    released: tuple[int, ...] | None  #: all that now wait for PUBCOMP (see SessionSnapshot); None: as before


class Batch(NamedTuple):
    """All that one commit writes. It holds final states, so the order in which they are written does not matter."""

    forgotten: list[int]  #: ids of sessions of which nothing is to remain, whatever else the batch says of them
    sessions: dict[int, SessionRecord]
    subscriptions: dict[tuple[int, bytes], int | None]  #: (session, Topic Filter) -> options, None: removed
    received: dict[int, dict[int, int]]  #: session -> buckets that have changed -> what is in them now
    queues: list[QueueChanges]
    retained: dict[bytes, RetainedRecord | None]  #: None: removed
    clock: ClockRecord | None = None  #: None: as before
    #: By an id of its own, never used again for another one; None: removed. Whoever forgets a session says so of its
    #: will, too, if it is not to be published.
    wills: Mapping[int, WillRecord | None] = {}


class StoreError(Exception):
    """The store could not do it; nothing of the batch is stored. str() says why, in one line."""


class Store(Protocol):
    """Keeps persistent sessions, retained messages and wills. Blocks; used by one thread at a time."""

    @property
    def size(self) -> int:
        """Bytes that all of it takes, as of the last load or commit; what is free for the next does not count."""

    def load(self) -> Snapshot:
        """Everything but the queues' messages. Raises StoreError."""

    def commit(self, batch: Batch) -> None:
        """Store all of it or nothing, and return when it is safe. Raises StoreError."""

    def fetch(self, session: int, start: int, count: int, size: int) -> list[QueuedMessage]:
        """The session's messages from place `start` on, in order: `count` or `size` bytes of them, whichever is less,
        but at least one if there is one. Raises StoreError."""

    def tidy(self) -> bool:
        """Give back some of what is free, in little time. Is there more to do? Raises StoreError."""

    def close(self) -> None: ...


class Lane(Protocol):
    """Runs jobs for the store one after the other, in order, outside the loop's thread."""

    def submit(self, job: Callable[[], object], done: Callable[[object, Exception | None], None]) -> None:
        """Run `job`; then call `done` with its result, or with what it raised, on the loop's thread."""
