"""Deadlines of the connections and of the broker, in one heap.

Owns: when what is due. Must not know: the clock, or what the callbacks do.

A heap is touched lazily: keep-alive is checked when its old deadline comes up, and only then is the new one put in, so
that a packet costs no heap operation.
"""

import heapq
from collections.abc import Callable

#: Gets the time; returns when it wants to be called again, or None. (Who cancels its own timer returns None.)
Callback = Callable[[float], float | None]


class Timer:
    """One entry. `cancel` is cheap; the entry's callback is freed at once."""

    __slots__ = ("_timers", "callback", "due")

    def __init__(self, timers: "Timers", due: float, callback: Callback) -> None:
        self._timers = timers
        self.due = due
        self.callback: Callback | None = callback

    def cancel(self) -> None:
        if self.callback is not None:
            self.callback = None
            self._timers._cancelled()


class Timers:
    """A heap of deadlines. Times are seconds of any one monotonic clock."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._count = 0
        self._dead = 0
        self.now = 0.0  #: the time of this turn, set by the loop once a turn

    def __len__(self) -> int:
        return len(self._heap) - self._dead

    def at(self, due: float, callback: Callback) -> Timer:
        """Call `callback` once `due` has come, and again whenever it returns a later time."""
        timer = Timer(self, due, callback)
        self._push(due, timer)
        return timer

    def after(self, delay: float, callback: Callback) -> Timer:
        """Call `callback` in `delay` seconds."""
        return self.at(self.now + delay, callback)

    def next_due(self) -> float | None:
        """The earliest deadline (it may be one that was cancelled: waking up for nothing is harmless)."""
        return self._heap[0][0] if self._heap else None

    def run(self, now: float) -> None:
        """Call all that is due."""
        self.now = now
        heap = self._heap
        while heap and heap[0][0] <= now:
            _, _, timer = heapq.heappop(heap)
            callback = timer.callback
            if callback is None:
                self._dead -= 1
                continue
            timer.callback = None  # so that cancelling it now costs nothing
            again = callback(now)
            if again is not None:
                timer.callback = callback
                timer.due = again
                self._push(again, timer)

    def _push(self, due: float, timer: Timer) -> None:
        self._count += 1  # breaks ties, so that callbacks are never compared
        heapq.heappush(self._heap, (due, self._count, timer))

    def _cancelled(self) -> None:
        self._dead += 1
        if self._dead > 64 and self._dead * 2 > len(self._heap):
            # In place: `run` holds on to the list while callbacks cancel.
            self._heap[:] = [entry for entry in self._heap if entry[2].callback is not None]
            heapq.heapify(self._heap)
            self._dead = 0
