"""An event loop in a thread, for tests: what is not for other threads is called through `call`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from selectors import BaseSelector
from typing import TypeVar

from broker.core.timers import Timers
from broker.net.loop import Loop

DEADLINE = 10.0

T = TypeVar("T")


class CountingLoop(Loop):
    """Counts how often it was woken."""

    wakes = 0

    def wake(self) -> None:
        self.wakes += 1
        super().wake()


class RunningLoop:
    """Loop, timers, thread, and the exceptions that callbacks let through."""

    def __init__(self, selector: BaseSelector | None = None, *, start: bool = True) -> None:
        self.failures: list[BaseException] = []
        self.timers = Timers()
        self.loop = CountingLoop(self.timers, self.failures.append, selector)
        self.turns = 0
        self.loop.before_sleep = self._count
        self.thread = threading.Thread(target=self.loop.run, name="loop under test")
        if start:
            self.thread.start()

    def _count(self) -> None:
        self.turns += 1

    def call(self, function: Callable[[], T]) -> T:
        """Run it on the loop's thread; its result or exception."""
        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(function())
            except BaseException as error:
                future.set_exception(error)

        self.loop.post(run)
        return future.result(DEADLINE)

    def next_turn(self) -> None:
        """Wait until a turn that begins after now is over."""
        self.call(lambda: None)
        self.call(lambda: None)

    def stop(self) -> None:
        self.loop.stop()
        if self.thread.ident is not None:
            self.thread.join(DEADLINE)
            assert not self.thread.is_alive()
        self.loop.close()


def eventually_set(event: threading.Event) -> None:
    assert event.wait(DEADLINE)
