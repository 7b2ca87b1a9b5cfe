"""Holds publishers back while a queue in memory fills up, so that its client can catch up before messages are dropped.

Owns: which queues fill up, which publishers wait for which of them, and for how long. Must not know: what is in queues,
how a connection pauses.

Nobody waits for ever, or one slow reader would stop all who publish:

- a queue whose client takes nothing for STALLED seconds holds nobody back until it takes something again;
- a publisher waits STRETCH seconds at a time at the most, then its next packets are looked at;
- and in all CREDIT seconds, which it earns anew at a tenth of the time that goes by. Who has none left is not held
  back, whoever reads slowly: this is the most that any number of slow readers can cost a publisher.
"""

from __future__ import annotations

from .looking_back import Filling, Publisher
from .timers import Timers

STALLED = 3.0
STRETCH = 5.0
CREDIT = 30.0
EARNED = 0.1
#: Seconds between two looks at those who wait.
LOOK = 0.25


class _Watched:
    __slots__ = ("progress", "since")

    def __init__(self, progress: object, since: float) -> None:
        self.progress = progress
        self.since = since


class Pressure:
    def __init__(self, timers: Timers) -> None:
        self._timers = timers
        self.queue: Filling | None = None  #: one that the messages of whom is served now fill up
        self._filling: dict[Filling, _Watched] = {}
        self._held: dict[Publisher, tuple[Filling, float]] = {}  # for which queue, since when
        self._credit: dict[Publisher, tuple[float, float]] = {}  # seconds left, as of when
        self._looks = False

    @property
    def held(self) -> int:
        """Publishers that wait."""
        return len(self._held)

    def fills_up(self, queue: Filling) -> bool:
        """A message for this queue had to wait behind many. Will who published it be held back?"""
        now = self._timers.now
        watched = self._filling.get(queue)
        if watched is None:
            watched = self._filling[queue] = _Watched(queue.progress, now)
            if not self._looks:
                self._looks = True
                self._timers.at(now + LOOK, self._look)
            owner = queue.owner
            if owner in self._held:
                self._release(owner)  # what it sends are acknowledgements, too: it could not catch up otherwise
        if self._stalled(queue, watched, now):
            return False
        self.queue = queue
        return True

    def _stalled(self, queue: Filling, watched: _Watched, now: float) -> bool:
        progress = queue.progress
        if progress != watched.progress:
            watched.progress = progress
            watched.since = now
        return now - watched.since >= STALLED

    def hold(self, publisher: Publisher) -> None:
        """What `publisher` has sent has filled `queue` up: hold it back."""
        queue, self.queue = self.queue, None
        if queue is None or queue not in self._filling or publisher in self._held:
            return
        if any(other.owner is publisher for other in self._filling):
            return  # it has to acknowledge what it is sent
        now = self._timers.now
        left, since = self._credit.get(publisher, (CREDIT, now))
        left = min(CREDIT, left + EARNED * (now - since))
        self._credit[publisher] = left, now
        if left >= LOOK:
            self._held[publisher] = queue, now
            publisher.hold_back()

    def _release(self, publisher: Publisher) -> None:
        _, since = self._held.pop(publisher)
        now = self._timers.now
        self._credit[publisher] = self._credit[publisher][0] - (now - since), now
        publisher.let_go()

    def caught_up(self, queue: Filling) -> None:
        """The queue has room again, or is gone."""
        if self._filling.pop(queue, None) is not None:
            for publisher in [one for one, (held_by, _) in self._held.items() if held_by is queue]:
                self._release(publisher)

    def forget(self, publisher: Publisher) -> None:
        """It is gone."""
        self._held.pop(publisher, None)
        self._credit.pop(publisher, None)

    def _look(self, now: float) -> float | None:
        stalled = {queue for queue, watched in self._filling.items() if self._stalled(queue, watched, now)}
        for publisher, (queue, since) in list(self._held.items()):
            longest = min(STRETCH, publisher.longest_hold, self._credit[publisher][0])
            if queue in stalled or now - since >= longest:
                self._release(publisher)
        if not self._filling:
            self._looks = False
            return None
        return now + LOOK
