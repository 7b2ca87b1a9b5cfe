"""Sessions that have ended, and whose subscriptions still have to be taken out of the router.

Owns: doing that over several turns: a client may have ten thousand of them, and a thousand such clients may leave at
once. Must not know: why a session ended.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from ..wire.message import Message
from .memory import Memory
from .ports import Scheduler
from .queue import Queue, Shared
from .router import Router
from .session import Session
from .shares import Shares
from .subscription import SHARED
from .turn import Turn

#: So many subscriptions are removed at once.
FEW = 100
#: Units of work that it takes to remove one.
REMOVING = 3


class _Nowhere(Queue):
    """The queue of a session that has ended: nobody waits for what is put into it."""

    __slots__ = ()

    def deliver(self, message: Message, qos: int) -> None: ...


class Endings:
    """Takes the subscriptions of sessions out of the router."""

    def __init__(
        self, router: Router, shares: Shares, turn: Turn, memory: Memory, queues: Shared, scheduler: Scheduler
    ) -> None:
        self._router = router
        self._shares = shares
        self._turn = turn
        self._memory = memory.subscriptions
        self._queues = queues
        self._scheduler = scheduler
        self._waiting: deque[tuple[Session, Iterator[bytes]]] = deque()

    def remove(self, session: Session) -> None:
        """Remove all subscriptions of a session that has ended: at once if they are few."""
        filters = session.subscriptions or {}
        session.subscriptions = None
        self._turn.account.spent += REMOVING * min(len(filters), FEW)
        if len(filters) <= FEW and not self._waiting:
            for topic_filter in filters:
                self._remove(session, topic_filter)
            self._ended(session)
            return
        if session.queue is not None:
            session.queue = _Nowhere(self._queues, session)
        if not self._waiting:
            self._scheduler.in_turn(self._go_on)
        self._waiting.append((session, iter(filters)))

    def _go_on(self) -> None:
        self._turn.begin()
        while self._waiting:
            session, filters = self._waiting[0]
            for topic_filter in filters:
                self._remove(session, topic_filter)
                self._turn.account.spent += REMOVING
                if self._turn.over:
                    self._scheduler.in_turn(self._go_on)
                    return
            self._ended(session)
            self._waiting.popleft()

    def _remove(self, session: Session, topic_filter: bytes) -> None:
        if topic_filter.startswith(SHARED):
            self._shares.leave(session, topic_filter)
        else:
            self._router.unsubscribe(session, topic_filter)

    def _ended(self, session: Session) -> None:
        self._memory.size -= session.subscribed
        session.queue = None  # the two know each other, and what goes in a cycle may stay in memory
