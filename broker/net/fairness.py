"""Who is served first when there are more than a turn has time for.

Owns: the order, and the time. Must not know: who they are, or what serving them is.

Whoever has wanted little of late comes first, and does not wait for a crowd that wants much. Those who have wanted
much, and those for whom there was no time, follow in the order in which they came, and have at least half of the time,
so that nobody waits for ever.

The time is that of the processor: on a busy machine, a turn shall do as much as on a quiet one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container
from time import monotonic, thread_time
from typing import Generic, TypeVar

T = TypeVar("T")

#: Seconds above which it is much, and seconds for which it is held against them.
MUCH = 0.0001
MEMORY = 2.0
#: Seconds that it takes to ask for one who is ready, served or not: a turn must do more than that.
EACH = 0.000004


class Fairness(Generic[T]):
    """Serves those who are ready, as far as the time reaches: `seconds`, and EACH for each of them. In each turn, all
    that are ready have to be given, also those who are `left` from the turn before."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._greedy: dict[T, float] = {}  # who has wanted much, and until when that counts
        self.left: dict[T, float] = {}  #: who waits, and since when, in order

    def rest(self, now: float) -> None:
        """There is time for all who are ready."""
        if self.left:
            self.left = {}
        if self._greedy and now > next(reversed(self._greedy.values())):
            self._greedy = {}

    def serve(self, ready: Collection[T], serve: Callable[[T], None], now: float, in_order: Container[T] = ()) -> None:
        """Serve as many of them as there is time for. `now`: what those who have to wait wait from. `in_order`: those
        of whom nobody may overtake another who came before."""
        left, greedy = self.left, self._greedy
        if greedy and now > next(iter(greedy.values())):
            greedy = self._greedy = {one: until for one, until in greedy.items() if until >= now}
        if left or greedy or in_order:
            modest = [one for one in ready if one not in left and one not in greedy and one not in in_order]
            others = [one for one in left if one in ready]
            others += [one for one in ready if one not in left and (one in greedy or one in in_order)]
        else:
            modest, others = list(ready), []
        much: list[T] = []
        seconds = self._seconds + EACH * len(ready)
        watch = _Watch(seconds / 2 if others else seconds)
        first = _serve(modest, serve, watch, much)
        watch.more(seconds)
        second = _serve(others, serve, watch, much)
        if second == len(others) and first < len(modest) and not watch.over(monotonic()):
            first += _serve(modest[first:], serve, watch, much)
        waiting = (*others[second:], *modest[first:])
        self.left = {one: left.get(one, now) for one in waiting}
        for one in much:
            greedy.pop(one, None)
            greedy[one] = now + MEMORY


class _Watch:
    """Says when the time is over. The clock on the wall is asked, as that costs little, and the processor's only when
    that says so."""

    def __init__(self, seconds: float) -> None:
        self._begin = thread_time()
        self._seconds = seconds
        self.end = monotonic() + seconds

    def more(self, seconds: float) -> None:
        """There is so much time in all, from the beginning on."""
        self.end += seconds - self._seconds
        self._seconds = seconds

    def over(self, now: float) -> bool:
        if now < self.end:
            return False
        left = self._seconds - (thread_time() - self._begin)
        self.end = now + left
        return left <= 0


def _serve(those: list[T], serve: Callable[[T], None], watch: _Watch, much: list[T]) -> int:
    """Serve them until the time is over, but one in any case. How many they were. Who wanted much is put in `much`."""
    before = monotonic()
    for number, one in enumerate(those, 1):
        serve(one)
        now = monotonic()
        if now - before > MUCH:
            much.append(one)
        before = now
        if now >= watch.end and watch.over(now):
            return number
    return len(those)
