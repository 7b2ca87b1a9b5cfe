"""Wills: what is published when a client has gone, and has not said that it should not be.

Owns: the wills that are not published yet, what the store must know of them, and when each is published. Must not
know: why a client has gone, what a session is made of.

A will is stored before its client is told that it may come in, and forgotten in the same commit that stores what
follows from it. So a broker that was killed publishes it at its next start: it finds the wills of those who were
connected, and those that were delayed and whose time goes on.

    kept --gone--> delayed --its time has come, or the session has ended--> due --in its turn--> published
         \\--DISCONNECT, or the client is back in time--> forgotten
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Mapping

from ..wire.codes import ProtocolError
from ..wire.message import Message
from ..wire.packets import Will
from . import bridges
from .denials import Denials
from .expiry import Expiry
from .journal import Journal
from .memory import Memory
from .message_expiry import EXACT
from .ports import Log, RetainedRecord, Scheduler, WillRecord
from .pressure import Pressure
from .publishing import Publishing
from .route import Route
from .router import Router
from .session import Session
from .timers import Timer, Timers
from .turn import Turn

#: Bytes that a delayed will takes beside its topic, payload and properties: measured in CPython 3.11.
WILL = 900
#: Of what clients may take in memory, the part that may be wills: those of who is away must not keep others out.
SHARE = 2
#: Units of work that it takes to publish one, beside what it leads to.
PUBLISHING = 10


class _Kept:
    """A will that is not published yet."""

    __slots__ = ("id", "peer", "record", "session", "stored", "timer")

    def __init__(self, id: int, record: WillRecord, session: Session, peer: str, stored: bool) -> None:
        self.id = id
        self.record = record
        self.session = session  #: whose it is, or what is left of it
        self.peer = peer  #: where its client was
        self.stored = stored
        self.timer: Timer | None = None  #: of its delay

    @property
    def size(self) -> int:
        return size(self.record)

    def detach(self) -> None:
        """Its session knows it no more, and it does not wait for its delay."""
        if self.session.will == self.id:
            self.session.will = 0
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


def size(will: Will | WillRecord) -> int:
    """Bytes of memory that it takes."""
    return WILL + len(will.topic) + len(will.payload) + len(will.kept)


class Wills:
    """`Session.will` is the id of the one that is published when its client has gone, or soon after."""

    def __init__(
        self,
        publishing: Publishing,
        router: Router,
        turn: Turn,
        pressure: Pressure,
        denials: Denials,
        scheduler: Scheduler,
        journal: Journal,
        expiry: Expiry,
        timers: Timers,
        memory: Memory,
        log: Log,
        may_publish: Callable[[RetainedRecord], bool],
    ) -> None:
        """`may_publish`: may its author publish this, by the rules that hold now?"""
        self._publishing = publishing
        self._router = router
        self._turn = turn
        self._pressure = pressure
        self._denials = denials
        self._scheduler = scheduler
        self._journal = journal
        self._expiry = expiry
        self._timers = timers
        self._memory = memory.clients
        self._may_publish = may_publish
        self._log = log
        self._held = 0  # bytes of all of them
        self._ids = itertools.count(1)
        self._wills: dict[int, _Kept] = {}
        self._due: deque[_Kept] = deque()

    # --- a client comes and goes ---

    def full(self, will: Will) -> bool:
        """Is there no room for one more?"""
        return self._held + size(will) > self._memory.limit // SHARE

    def keep(self, session: Session, left: Will, peer: str) -> bool:
        """The client at `peer` has left this will. True if the store must have it before the client may go on."""
        record = WillRecord(
            session.client_id, session.proven_name, session.listener, left.topic, left.payload, left.qos, left.retain,
            left.kept, left.expiry, left.delay,
        )  # fmt: skip
        # What a bridge tells under $SYS is made anew after a start; others publish nothing there.
        stored = not left.topic.startswith(b"$SYS/")
        session.will = next(self._ids)
        self._enter(session.will, record, session, peer, stored)
        if stored:
            self._journal.save_will(session.will, record)  # [MQTT-3.1.2-8] [MQTT5-3.1.2-7]
        return stored

    def forget(self, session: Session) -> None:
        """It is not to be published: the client has said so, or is back before its delay was over."""
        will = self._wills.get(session.will)
        if will is not None:
            self._remove(will)

    def gone(self, session: Session, lasts: float) -> None:
        """The client has gone, and its session ends in so many seconds; 0: it has ended."""
        will = self._wills.get(session.will)
        if will is None:
            return
        wait = _wait(will, lasts)
        if wait:
            self._delay(will, wait)
        else:
            self._let_go(will)

    def close_down(self, forget: bool) -> None:
        """All connections are about to be closed: publish what is due with that, while those are there who should get
        it. `forget`: all sessions end with the broker, as nothing is stored."""
        for will in list(self._wills.values()):
            session = will.session
            waits = session.will == will.id and (will.timer or _wait(will, self._expiry.period(session)))
            if forget or not waits:
                self._publish(will)
        self._due.clear()

    def restore(self, wills: Mapping[int, WillRecord], sessions: Mapping[str, Session]) -> None:
        """Begin with what the store holds. Those who were connected have gone now."""
        last = {record.client_id: id for id, record in sorted(wills.items())}
        for id, record in sorted(wills.items()):
            # An older one of the same client waited for its turn.
            session = sessions.get(record.client_id) if last[record.client_id] == id else None
            will = self._enter(id, record, session or self._author(record), "", True)
            if session is None:
                self._due.append(will)
                continue
            session.will = id
            if record.due is None:
                wait = _wait(will, self._expiry.period(session))
                if wait:
                    self._delay(will, wait)
                    continue
            elif self._left(will) > EXACT:
                self._set_timer(will, self._left(will))
                continue
            self._due.append(will)
        self._ids = itertools.count(max(wills, default=0) + 1)
        if self._due:
            self._log.info("wills are published of clients that were there when the broker ended", count=len(self._due))
            self._later()

    # --- delays ---

    def _delay(self, will: _Kept, wait: int) -> None:
        record = will.record = will.record._replace(delay=wait, due=self._expiry.now() + wait)
        if will.stored:
            self._journal.save_will(will.id, record)
        self._set_timer(will, wait)

    def _set_timer(self, will: _Kept, wait: float) -> None:
        def look(now: float) -> float | None:
            left = self._left(will)
            if left > EXACT:
                return now + left  # the clock was put right
            will.timer = None
            self._let_go(will)
            return None

        will.timer = self._timers.after(wait, look)

    def _left(self, will: _Kept) -> float:
        """Seconds until it is due. After a start, there is time for the client to come back."""
        record = will.record
        assert record.due is not None
        return min(record.delay, self._expiry.remaining(record.due - record.delay, record.delay))

    # --- the end ---

    def _let_go(self, will: _Kept) -> None:
        """It is due [MQTT-3.1.2-8] [MQTT5-3.1.2-8]: publish it, or where many are, in its turn."""
        will.detach()  # from now on nothing keeps it back
        if self._due or self._turn.crowded or self._journal.full:
            if not self._due:
                self._later()
            self._due.append(will)
        else:
            self._publish(will)

    def _later(self) -> None:
        if self._journal.full:
            self._journal.when_room(self._later)
        else:
            self._scheduler.in_turn(self._go_on)

    def _go_on(self) -> None:
        self._turn.begin()
        while self._due and not (self._turn.over or self._journal.full):
            self._publish(self._due.popleft())
        if self._due:
            self._later()

    def _publish(self, will: _Kept) -> None:
        self._remove(will)  # with all that follows from it, in one commit [MQTT-3.1.2-10] [MQTT5-3.1.2-10]
        self._turn.account.spent += PUBLISHING
        record, session = will.record, will.session
        topic = record.topic
        try:
            route = self._router.known(topic) or self._router.route(topic)
        except ProtocolError as error:  # a limit was lowered since it was accepted
            self._denials.refused(f"will refused: {error.why}", will.peer, session, topic)
            return
        if (session.proven_name, session.listener) != (record.username, record.listener):
            session = self._author(record)  # it is somebody else's now
        if not self._allowed(record, session, route):
            self._denials.denied("will refused: not authorised", will.peer, session, topic)
            return
        expires = None if record.message_expiry is None else self._expiry.lasting() + record.message_expiry
        self._publishing.publish(
            topic, record.payload, record.qos, record.retain, session, record.kept, expires
        )  # [MQTT5-3.1.3-10]
        self._pressure.queue = None  # nobody is there who could be held back

    def _allowed(self, record: WillRecord, session: Session, route: Route) -> bool:
        if route.reserved:
            return bridges.may_publish(session, record.topic, route)
        asked = RetainedRecord(
            Message(record.topic, b"", record.qos), record.username, record.client_id, record.listener
        )
        return self._may_publish(asked)

    # --- what there is ---

    def _author(self, record: WillRecord) -> Session:
        """Stands for a client of which nothing else is known any more."""
        session = Session(record.client_id, 0, self._turn.away)
        session.username = session.proven_name = record.username
        session.listener = record.listener
        return session

    def _enter(self, id: int, record: WillRecord, session: Session, peer: str, stored: bool) -> _Kept:
        will = self._wills[id] = _Kept(id, record, session, peer, stored)
        self._memory.size += will.size
        self._held += will.size
        return will

    def _remove(self, will: _Kept) -> None:
        del self._wills[will.id]
        self._memory.size -= will.size
        self._held -= will.size
        will.detach()
        if will.stored:
            self._journal.forget_will(will.id)


def _wait(will: _Kept, lasts: float) -> int:
    """Seconds that it is delayed when its client has gone, whose session lasts for so long."""
    return int(min(will.record.delay, lasts))
