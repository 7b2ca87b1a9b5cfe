"""Sessions that have ended, and whose subscriptions still have to be taken out of the router.

Owns: doing that over several turns: a client may have ten thousand of them, and a thousand such clients may leave at
once. Must not know: why a session ended.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..wire.message import Message
from .queue import Queue
from .session import Session

if TYPE_CHECKING:
    from .exchange import Exchange

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

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._waiting: deque[tuple[Session, Iterator[bytes]]] = deque()

    def remove(self, session: Session) -> None:
        """Remove all subscriptions of a session that has ended: at once if they are few."""
        filters = session.subscriptions or {}
        session.subscriptions = None
        exchange = self._exchange
        exchange.account.spent += REMOVING * min(len(filters), FEW)
        if len(filters) <= FEW and not self._waiting:
            for topic_filter in filters:
                exchange.router.unsubscribe(session, topic_filter)
            self._ended(session)
            return
        if session.queue is not None:
            session.queue = _Nowhere(exchange, session)
        if not self._waiting:
            exchange.scheduler.in_turn(self._go_on)
        self._waiting.append((session, iter(filters)))

    def _go_on(self) -> None:
        exchange = self._exchange
        exchange.begin()
        while self._waiting:
            session, filters = self._waiting[0]
            for topic_filter in filters:
                exchange.router.unsubscribe(session, topic_filter)
                exchange.account.spent += REMOVING
                if exchange.over:
                    exchange.scheduler.in_turn(self._go_on)
                    return
            self._ended(session)
            self._waiting.popleft()

    def _ended(self, session: Session) -> None:
        self._exchange.memory.subscriptions.size -= session.subscribed
        session.queue = None  # the two know each other, and what goes in a cycle may stay in memory
