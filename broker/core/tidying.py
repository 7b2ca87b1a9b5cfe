"""Lets the store give back disk space while there is nothing else to do.

Owns: when it is asked to. Must not know: what the store does then.
"""

from __future__ import annotations

from .journal import Journal
from .ports import Lane, Log, Store
from .timers import Timers

#: Seconds between two looks whether there is something to give back, and between two steps of it.
LOOK = 10.0
PAUSE = 0.05
#: Seconds after which it is tried again when it has failed.
RETRY = 600.0


class Tidying:
    """Uses the store's lane between commits, a step at a time: a commit waits for one step at the most."""

    def __init__(self, store: Store, journal: Journal, lane: Lane, timers: Timers, log: Log) -> None:
        self._store = store
        self._journal = journal
        self._lane = lane
        self._timers = timers
        self._log = log
        self._seen = -1  # commits when there was nothing to do
        self._failed = False
        timers.after(LOOK, self._look)

    def _look(self, now: float) -> float | None:
        if self._journal.commits == self._seen or self._journal.failed:
            return now + LOOK
        if not self._journal.idle:
            return now + PAUSE
        self._lane.submit(self._store.tidy, self._done)
        return None

    def _done(self, more: object, error: Exception | None) -> None:
        wait = PAUSE if more else LOOK
        if error is not None:
            wait = RETRY
            if not self._failed:
                self._log.warning("the store could not give back disk space", reason=str(error))
        elif not more:
            self._seen = self._journal.commits
        self._failed = error is not None
        self._timers.after(wait, self._look)
