"""The heart of the broker: all that the core is made of, put together.

Owns: which part gets which others, and how they begin, end a turn and take other limits. Must not know: connections,
bytes of packets, sockets, what kind of store there is.
"""

from __future__ import annotations

from collections.abc import Callable

from .clock import Clock
from .complaints import Complaints
from .denials import Denials
from .endings import Endings
from .expiry import Expiry
from .feeding import Feeding
from .incoming import Incoming
from .journal import Journal
from .limits import Limits
from .memory import Memory
from .perishing import Perishing
from .ports import OF_A_GROUP, Log, Rights, Scheduler, Snapshot
from .pressure import Pressure
from .publishing import Publishing
from .queue import Shared
from .quotas import Quotas
from .retained import Retained
from .retaining import Retaining
from .router import Router
from .session import Session
from .sessions import Sessions
from .shares import Shares
from .stats import Stats
from .subscriptions import Subscriptions
from .timers import Timers
from .turn import Turn
from .wills import Wills


class Exchange:
    """Where messages change hands. Everything runs on the loop's thread."""

    def __init__(
        self,
        journal: Journal,
        timers: Timers,
        limits: Limits,
        log: Log,
        scheduler: Scheduler,
        clock: Clock,
        unguessable: Callable[[], str],
    ) -> None:
        """`clock` dates what outlives the process; `unguessable` gives a short text, each time another one."""
        self.journal = journal
        self.timers = timers
        self.limits = limits
        self.log = log
        self.scheduler = scheduler
        self.closing = False  #: shutting down: no new clients
        self._weighed = -1  # what was stored when it was looked at last
        # What is counted and told.
        self.stats = Stats()
        self.complaints = Complaints(log, timers)
        self.denials = Denials(self.complaints, self.stats)
        self.turn = Turn()
        self.account = self.turn.account
        # What is limited.
        self.quotas = Quotas(limits, log)
        self.memory = Memory(limits, log)
        self.pressure = Pressure(timers)
        self.incoming = Incoming(self.memory.incoming, scheduler.soon)
        # Messages.
        self.router = Router(limits, self.account)
        self.retained = Retained(self.account)
        self.expiry = Expiry(clock, timers, limits, journal, scheduler, log)
        self.feeding = Feeding(self.retained, self.turn, journal, self.pressure, scheduler, self.expiry.lasting)
        self.perishing = Perishing(self.retained, journal, timers, self.expiry.lasting)
        retaining = Retaining(self.retained, limits, self.memory, journal, self.complaints, self.stats)
        self.publishing = Publishing(self.router, self.turn, retaining, self.expiry.lasting)
        self.publish = self.publishing.publish
        # Sessions.
        queues = Shared(
            self.turn, limits, journal, self.quotas, self.memory, self.pressure, self.feeding, self.complaints,
            self.stats, self.expiry.lasting,
        )  # fmt: skip
        self.shares = Shares(self.router, queues, limits, self.turn, scheduler)
        self.subscriptions = Subscriptions(
            self.router, self.shares, self.retained, self.feeding, queues, journal, limits, self.memory, self.turn,
            self.denials,
        )  # fmt: skip
        self.wills = Wills(
            self.publishing, self.router, self.turn, self.pressure, self.denials, scheduler, journal, self.expiry,
            timers, self.memory, log, lambda record: self.feeding.may_publish(record),
        )  # fmt: skip
        endings = Endings(self.router, self.shares, self.turn, self.memory, queues, scheduler)
        self.sessions = Sessions(
            self.subscriptions, self.shares, endings, self.wills, self.expiry, self.feeding, self.router, journal,
            self.quotas, self.memory, self.stats, self.turn, unguessable,
        )  # fmt: skip

    def restore(self, snapshot: Snapshot, rights: Callable[[Session], Rights | None]) -> None:
        """Begin with what the store holds. `rights` of a session that is away."""
        dates = [stored.record.disconnected_at for stored in snapshot.sessions]
        dates += [will.due - will.delay for will in snapshot.wills.values() if will.due is not None]
        self.expiry.start(snapshot.clock, [date for date in dates if date is not None])
        groups = [stored for stored in snapshot.sessions if stored.record.kind == OF_A_GROUP]
        self.shares.restore(groups)
        self.sessions.restore(snapshot.sessions, rights)
        self.shares.restored()
        for retained in snapshot.retained:
            self.retained.set(retained)
        self.wills.restore(snapshot.wills, self.sessions)

    def limits_changed(self) -> None:
        """The limits are other ones: what goes by them beforehand does so by these."""
        self.expiry.limits_changed(list(self.sessions.values()))
        self.shares.limits_changed()
        self.quotas.weigh(self.journal.stored)
        self.memory.limits_changed()

    def end_of_turn(self) -> None:
        """All that was produced in this turn is sent."""
        self.feeding.end_of_turn()
        if self.journal.stored != self._weighed:
            self._weighed = self.journal.stored
            self.quotas.weigh(self._weighed)
        self.turn.end(self.stats)
