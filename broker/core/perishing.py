"""Retained messages that expire.

Owns: which are due, and how many are removed at a time. Must not know: how they are kept, or how they came to be.

All in one heap. What is retained anew for the topic leaves its older entry behind, which is dropped when it is due, or
when there are too many of them.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

from .journal import Journal
from .message_expiry import EXACT, is_over
from .ports import RetainedRecord
from .retained import Retained
from .timers import Timer, Timers

#: Messages that are removed at a time; others have their turn in between.
SLICE = 256
#: Seconds until the next are looked at.
PAUSE = 0.001
#: Seconds after which a date is looked at again, as a timer's clock and that of the dates may go different ways.
LOOK = 3600.0


class Perishing:
    def __init__(self, retained: Retained, journal: Journal, timers: Timers, now: Callable[[], float]) -> None:
        """`now` gives the date."""
        self._retained = retained
        self._journal = journal
        self._timers = timers
        self._now = now
        self._heap: list[tuple[float, bytes]] = []
        self._timer: Timer | None = None
        retained.enter_perishable = self.enter

    def __len__(self) -> int:
        return len(self._heap)

    def enter(self, record: RetainedRecord) -> None:
        """This one is kept from now on, and expires."""
        expires = record.message.expires
        assert expires is not None
        heapq.heappush(self._heap, (expires, record.message.topic))
        if len(self._heap) > 2 * self._retained.count + 64:
            self._tidy()
        self._set_timer()

    def _tidy(self) -> None:
        """Drop the entries of messages that were replaced or removed."""
        self._heap = list({entry for entry in self._heap if self._found(*entry) is not None})
        heapq.heapify(self._heap)

    def _found(self, expires: float, topic: bytes) -> RetainedRecord | None:
        """The message of this entry, if it is still there."""
        record = self._retained.get(topic)
        return record if record is not None and record.message.expires == expires else None

    def _set_timer(self) -> None:
        if not self._heap:
            return
        due = self._timers.now + min(LOOK, max(0.0, self._heap[0][0] - self._now()))
        if self._timer is not None:
            if self._timer.due <= due:
                return
            self._timer.cancel()
        self._timer = self._timers.at(due, self._sweep)

    def _sweep(self, now: float) -> None:
        self._timer = None
        date = self._now()
        room = SLICE
        while self._heap and self._heap[0][0] - date <= EXACT and room:
            room -= 1
            record = self._found(*heapq.heappop(self._heap))
            if record is None or not is_over(record.message, date):
                continue
            topic = record.message.topic
            self._retained.remove(topic)
            self._journal.retain(topic, None)
        if not room:
            self._timer = self._timers.after(PAUSE, self._sweep)
        else:
            self._set_timer()
