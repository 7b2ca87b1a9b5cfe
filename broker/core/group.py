"""A shared subscription: a group of clients, one of which gets each message (MQTT 5.0, section 4.8.2).

Owns: the members, and which of them gets a message. Must not know: how clients subscribe and leave (shares), how
messages wait (group_queue).

A member that has no room is taken out of those that are `ready`, and its queue tells when it has; one that is away
comes back with its client. So nobody is looked at in vain twice, however many members there are.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from zlib import crc32

from ..wire.encoder import remaining_length
from ..wire.message import Message
from . import strategies
from .by_options import copy_for, send_at_most_once
from .group_queue import GroupQueue
from .looking_back import GROUP, Client, Holder, Outgoing, Sink
from .message_expiry import is_over
from .ports import Rights
from .queue import Shared
from .route import identifying
from .router import ASKED
from .session import Session
from .subscription import NO_LOCAL, QOS, RETAIN_AS_PUBLISHED

#: Members that are looked at for one that has the right to receive a message.
LOOKS = 100
#: Messages that are drawn from the queue at a time.
SLICE = 100

#: What becomes of a message with a member.
TAKES, HAS_NO_ROOM, MAY_NOT = range(3)


class Member:
    """A client's part in a group."""

    __slots__ = ("at", "group", "options", "present", "session")

    def __init__(self, group: Group, session: Session, options: int) -> None:
        self.group = group
        self.session = session
        self.options = options  #: see broker.core.subscription
        self.at = -1  #: its place among those that are ready; -1: it is not
        self.present = False  #: does it stand among those that are connected?

    @property
    def queued(self) -> int:
        queue = self.session.queue
        return queue.pending if queue is not None else 0

    def has_room(self) -> None:
        """See looking_back.Asking."""
        self.group.enter(self)

    def judge(self, message: Message, qos: int, author: Holder | None) -> int:
        """Would it get this message, at this QoS at the most, at once?"""
        session = self.session
        connection = session.connection
        if connection is None:
            return HAS_NO_ROOM
        qos = min(qos, self.options & QOS)
        if qos == 0:
            if session.sink is not connection.out:
                return HAS_NO_ROOM  # it reads too slowly
        elif session.queue is None or not session.queue.ready(qos):
            return HAS_NO_ROOM
        if self.options & NO_LOCAL and session is author:
            return MAY_NOT
        return TAKES if self.may_have(message) else MAY_NOT

    def may_have(self, message: Message) -> bool:
        """Could it get this message, if it is there and has room?"""
        session = self.session
        connection = session.connection
        if connection is not None and connection.largest:
            qos = min(message.qos, self.options & QOS)
            if _packet_size(message, qos, self.options) > connection.largest:
                return False  # [MQTT5-3.1.2-24]
        return session.rights is None or session.rights.may_receive(message.topic)


class Group:
    """It stands in the router where a session would (looking_back.Group)."""

    def __init__(
        self, shared: Shared, later: Callable[[Callable[[], None]], None], name: str, topic_filter: bytes
    ) -> None:
        """`later` calls what it is given when others had their turn."""
        self._shared = shared
        self._turn = shared.turn
        self._later = later
        self.layout = GROUP
        self.store_id = 0
        # What a session has, and a group has not.
        self.version = 0
        self.rights: Rights | None = None
        self.sink: Sink = shared.turn.away
        self.queue: Outgoing | None = None
        self.connection: Client | None = None
        self.name = name  #: `$share/NAME/FILTER`
        self.topic_filter = topic_filter  #: FILTER
        self.proven_name: str | None = None  #: for whom it counts, if it is stored: who made it so
        self.origin = ""
        self.strategy = strategies.ROUND_ROBIN
        self.waits = GroupQueue(shared, name, self.pump_soon)
        self.members: dict[Session, Member] = {}
        self.granted = [0, 0, 0]  #: how many members by QoS
        self.ended = False
        self._ready: list[Member] = []
        self._next = 0  # whose turn it is among them
        self._present: list[Member] = []  # those that are connected, and some that have left
        self._sticky: Member | None = None
        self._pumped = False

    def store_as(self, id: int) -> None:
        """From now on it is stored under this key."""
        self.store_id = id
        self.waits.store_as(id)

    @property
    def options(self) -> int:
        """What it asks for in the router: the highest QoS of a member."""
        return 2 if self.granted[2] else 1 if self.granted[1] else 0

    # --- members ---

    def enter(self, member: Member) -> None:
        """It is there, and has room."""
        if self.members.get(member.session) is not member or member.session.connection is None:
            return
        if not member.present:
            member.present = True
            self._present.append(member)
        if member.at < 0:
            member.at = len(self._ready)
            self._ready.append(member)
        self.waits.load()
        if self.waits.waiting:
            self.pump_soon()

    def leave(self, member: Member) -> None:
        """It is none any more, or its client is away."""
        self._not_ready(member)
        if member.present:
            member.present = False
            self._present.remove(member)
        if self._sticky is member:
            self._sticky = None
        if not self._present:
            self.waits.unload()

    def _not_ready(self, member: Member) -> None:
        """The last takes its place."""
        at = member.at
        if at < 0:
            return
        member.at = -1
        last = self._ready.pop()
        if last is not member:
            self._ready[at] = last
            last.at = at

    def _set_aside(self, member: Member) -> None:
        """It has no room at the moment."""
        self._not_ready(member)
        session = member.session
        if session.connection is not None and session.queue is not None:
            session.queue.ask(member)

    # --- looking_back.Lender ---

    def settled(self, place: int) -> None:
        if not self.ended:
            self.waits.done(place)

    def back(self, place: int) -> None:
        """Its client is gone: another one gets it."""
        if not self.ended:
            self.waits.back(place)
            self.pump_soon()

    def again(self, message: Message, qos: int) -> None:
        """Its client is gone before it was sent to it."""
        if not self.ended:
            self.waits.put(message, qos)
            self.pump_soon()

    # --- a message comes ---

    def share(self, message: Message, options: int, author: Holder | None, retain: bool) -> None:
        """Deliver it to one of the members, or keep it until one is there."""
        if retain:
            message = copy_for(message, True, b"")
        qos = min(message.qos, options & QOS)
        waits = self.waits
        if qos == 0 or waits.idle:
            member = self._choose(message, qos, author)
            if member is not None:
                if min(qos, member.options & QOS) != 1:
                    self._give(member, message, qos)
                elif not waits.session_id or waits.has_place(message):
                    place = waits.send(message, qos)
                    member.session.queue.lend(_as_asked(message, member.options), self, place)  # type: ignore[union-attr]
                    self._turn.queued += 1
                return
            if qos == 0 or not self._somebody_may(message, author):
                self._shared.stats.dropped += bool(self._present)
                return
        if waits.has_place(message):
            waits.put(message, qos)
            self._turn.queued += 1
            if self._ready:
                self.pump_soon()

    def _give(self, member: Member, message: Message, qos: int) -> None:
        """It is the member's from now on, at QoS 2 or 0."""
        session = member.session
        asked = _as_asked(message, member.options)
        if min(qos, member.options & QOS):
            session.queue.entrust(asked, self, message)  # type: ignore[union-attr]  # it was ready
            self._turn.queued += 1
        else:
            send_at_most_once(self._turn, self._shared.now(), asked, session)

    # --- who gets it ---

    def _choose(self, message: Message, qos: int, author: Holder | None) -> Member | None:
        """The member that gets it, None if there is none that could have it now."""
        member = self._preferred(message, qos, author)
        if member is not None:
            return member
        ready = self._ready
        looks = 0
        while ready and looks < min(LOOKS, len(ready)):
            at = self._next % len(ready)
            member = ready[at]
            verdict = member.judge(message, qos, author)
            if verdict == HAS_NO_ROOM:
                self._set_aside(member)
                continue
            self._next = at + 1
            if verdict == TAKES:
                if self._sticky is None:
                    self._sticky = member
                return member
            looks += 1
            self._turn.account.spent += ASKED
        return self._anybody(message, author) if qos == 0 else None

    def _preferred(self, message: Message, qos: int, author: Holder | None) -> Member | None:
        """Whom the strategy would have, if that one takes it."""
        strategy = self.strategy
        if strategy == strategies.ROUND_ROBIN:
            return None
        if strategy == strategies.LEAST_QUEUED:
            self._next += 1

            def accepts(member: Member) -> bool:
                return member.judge(message, qos, author) == TAKES

            return strategies.least_queued(self._ready, self._next, accepts)
        if strategy == strategies.STICKY:
            member = self._sticky
        else:
            by_topic = strategy == strategies.HASH_TOPIC
            key = message.topic if by_topic else getattr(author, "client_id", "").encode()
            member = self._hashed(crc32(key))  # Python's own hash is another one after each start
        if member is None or member.judge(message, qos, author) != TAKES:
            return None
        return member

    def _hashed(self, number: int) -> Member | None:
        """The same member for the same number, as long as the same ones are there."""
        present = self._present
        return present[number % len(present)] if present else None

    def _anybody(self, message: Message, author: Holder | None) -> Member | None:
        """A message of QoS 0 needs no room in an in-flight window."""
        for member in islice(self._present, LOOKS):
            if member.judge(message, 0, author) == TAKES:
                return member
        return None

    def _somebody_may(self, message: Message, author: Holder | None) -> bool:
        """Is there a member that gets it once it is there or has room?"""
        for member in islice(self.members.values(), LOOKS):
            if member.may_have(message) and not (member.options & NO_LOCAL and member.session is author):
                return True
            self._turn.account.spent += ASKED
        return len(self.members) > LOOKS

    # --- messages that wait ---

    def pump_soon(self) -> None:
        """Look at what waits, at the end of this turn."""
        if not self._pumped and not self.ended:
            self._pumped = True
            self._turn.thirsty.append(self)

    def pump(self) -> None:
        """See looking_back.Thirsty: hand out what waits, as far as members take it."""
        self._pumped = False
        if self.ended or not self._present:
            return
        waits = self.waits
        waiting = waits.waiting
        for _ in range(SLICE):
            if not waiting or not self._ready:
                break
            _, message, qos = waiting[0]
            if message.expires is not None and is_over(message, self._shared.now()):
                waits.done(waits.take())  # [MQTT5-3.3.2-5]
                continue
            member = self._choose(message, qos, None)
            if member is None:
                if self._somebody_may(message, None):
                    break
                waits.done(waits.take())
                self._shared.stats.dropped += 1
                continue
            place = waits.take()
            if min(qos, member.options & QOS) == 1:
                member.session.queue.lend(_as_asked(message, member.options), self, place)  # type: ignore[union-attr]
            else:
                self._give(member, message, qos)
                waits.done(place)
        else:
            self._later(self.pump_soon)
        waits.load()

    def end(self) -> None:
        """Its last member has left."""
        self.ended = True
        self.waits.discard()


def _as_asked(message: Message, options: int) -> Message:
    """The message as a subscription with these options gets it."""
    retain = message.retain and bool(options & RETAIN_AS_PUBLISHED)
    named = identifying(options)
    if retain == message.retain and not named:
        return message
    return copy_for(message, retain, named)


def _packet_size(message: Message, qos: int, options: int) -> int:
    """Bytes of the PUBLISH that a member gets."""
    properties = len(message.kept) + len(identifying(options))
    if message.expires is not None:
        properties += 5
    size = 2 + len(message.topic) + (2 if qos else 0) + len(remaining_length(properties)) + properties
    size += len(message.payload)
    return 1 + len(remaining_length(size)) + size
