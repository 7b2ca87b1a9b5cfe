"""When the persistent sessions of absent clients end.

Owns: how long each lasts, the clock by which they are dated, the order in which they are due, and how many end at a
time. Must not know: what a session is made of, or how it ends.

All in one heap, with one entry for each session that counts. It is not moved when the client comes back, but looked at
again when it is due: a client that comes and goes costs nothing here, unless it wants a shorter time than before.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import TypeAlias

from ..wire.codes import MQTT_5
from ..wire.packets import Connect
from .clock import FAR, Clock
from .journal import Journal
from .limits import Limits
from .message_expiry import EXACT
from .ports import ClockRecord, Log, Scheduler
from .session import Session
from .timers import Timer, Timers

#: Sessions and subscriptions that end at a time. The next have their turn when the store is done with these: others
#: wait for it, too.
SLICE = 256
#: Seconds between two records of the clock that nothing else asks for.
RECORD = 3600.0
FOR_EVER = float("inf")


_Entry: TypeAlias = tuple[float, int, Session]


class Expiry:
    """The sessions that are away, and until when they are kept."""

    def __init__(
        self,
        clock: Clock,
        timers: Timers,
        limits: Limits,
        journal: Journal,
        scheduler: Scheduler,
        log: Log,
    ) -> None:
        #: Ends a session for good.
        self.end: Callable[[Session], None]
        self._clock = clock
        self._timers = timers
        self._limits = limits
        self._journal = journal
        self._scheduler = scheduler
        self._log = log
        self._heap: list[_Entry] = []
        self._entered: dict[Session, _Entry] = {}  # the one of each that counts
        self._count = 0
        self._timer: Timer | None = None
        self._working = False
        self._record_due = 0.0
        self._period = limits.session_expiry

    # --- the clock ---

    def start(self, record: ClockRecord | None, dates: list[float]) -> None:
        """Go on from the run that has left this record, and these dates."""
        self._clock.resume(record, max((date for date in dates if date < FAR), default=None))
        self._record_clock(self._timers.now)

    def look(self, now: float, wall: float) -> None:
        """See whether somebody has set the system's clock: every few seconds. The two are read together."""
        step = self._clock.look(now, wall)
        if step:
            self._log.warning(
                "the system's clock was set: what lasts for a time goes on as before", seconds=round(step)
            )
        if step or now >= self._record_due:
            self._record_clock(now)

    def stop(self) -> None:
        """The broker ends: what it says last of the time is nearest to the truth."""
        self._record_clock(self._timers.now)

    def _record_clock(self, now: float) -> None:
        self._journal.save_clock(self._clock.record(now))
        self._record_due = now + RECORD

    # --- sessions ---

    def now(self) -> float:
        """The date of what happens now."""
        return self._clock.date(self._timers.now)

    def remaining(self, date: float, period: float) -> float:
        """Seconds until what began then and lasts for `period` is over; 0 or less if it is."""
        return self._clock.remaining(date, period, self._timers.now)

    def granted(self, connect: Connect) -> float | None:
        """How long the session is kept that this CONNECT asks for, as in Session.expiry."""
        if connect.version == MQTT_5:
            return self._limits.granted_expiry(connect.session_expiry)
        return 0.0 if connect.clean_session else None

    def period(self, session: Session) -> float:
        """Seconds that the session lasts without its client."""
        if session.expiry is not None:
            return session.expiry
        return self._limits.session_expiry or FOR_EVER

    def lasting(self) -> float:
        """The date by which messages expire: it counts the time in which the broker was stopped."""
        return self._clock.lasting(self._timers.now)

    def left(self, session: Session) -> None:
        """The client of a persistent session is away since `disconnected_at`."""
        period = self.period(session)
        if period == FOR_EVER:
            return  # if it has an entry, that leads to nothing
        due = self._timers.now + max(0.0, self._remaining(session, period))
        entry = self._entered.get(session)
        if entry is None or due < entry[0]:
            self._enter(session, due)
            self._set_timer()

    def forget(self, session: Session) -> None:
        """The session has ended."""
        if self._entered.pop(session, None) is not None:
            self._tidy()

    def _tidy(self) -> None:
        """Entries that do not count must not add up."""
        if len(self._heap) > 2 * len(self._entered) + 64:
            self._heap = [entry for entry in self._heap if self._entered.get(entry[2]) is entry]
            heapq.heapify(self._heap)

    def limits_changed(self, sessions: list[Session]) -> None:
        """`Limits.session_expiry` may be another one; these sessions are all that there are."""
        if self._period == self._limits.session_expiry:
            return
        self._period = self._limits.session_expiry
        self._heap.clear()
        self._entered.clear()
        for session in sessions:
            if session.disconnected_at is not None:
                self.left(session)
        self._set_timer()

    def _remaining(self, session: Session, period: float) -> float:
        assert session.disconnected_at is not None
        return self._clock.remaining(session.disconnected_at, period, self._timers.now)

    def _enter(self, session: Session, due: float) -> None:
        self._count += 1
        entry = self._entered[session] = due, self._count, session
        heapq.heappush(self._heap, entry)
        self._tidy()

    def _set_timer(self) -> None:
        if not self._heap or self._working:
            return
        due = self._heap[0][0]
        if self._timer is not None:
            if self._timer.callback is not None and self._timer.due <= due:
                return
            self._timer.cancel()
        self._timer = self._timers.at(due, self._due)

    def _due(self, now: float) -> None:
        self._timer = None
        self._work()

    def _work(self, stored: None = None) -> None:
        """End those whose time has come: a slice of them, and then what the store has to do."""
        self._working = False
        now = self._timers.now
        room = SLICE
        ended = []
        while self._heap and self._heap[0][0] <= now and room > 0:
            entry = heapq.heappop(self._heap)
            session = entry[2]
            room -= 1
            if self._entered.get(session) is not entry:
                continue
            del self._entered[session]
            period = self.period(session)
            if session.disconnected_at is None or period == FOR_EVER:
                continue
            left = self._remaining(session, period)
            if left > EXACT:
                self._enter(session, now + left)  # it was here meanwhile, or the clock was put right
                continue
            ended.append(session.client_id)
            room -= len(session.subscriptions or ())
            self.end(session)
        self._working = True
        if ended:
            self._tell(ended)
            self._journal.when_stored(self._work, None)
        elif room <= 0:
            self._scheduler.soon(self._work)
        else:
            self._working = False
            self._set_timer()

    def _tell(self, ended: list[str]) -> None:
        if len(ended) == 1:
            self._log.info("session expired", client=ended[0])
        else:
            self._log.info("sessions expired", count=len(ended), first=ended[0], last=ended[-1])
