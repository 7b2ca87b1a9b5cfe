"""Threads for what blocks: a pool for anything, and a lane that keeps the order.

Owns: the threads. Must not know: what they compute. Jobs get immutable inputs; results come back to the loop's thread.

They are daemons, and no ThreadPoolExecutor: that ends its threads before `atexit`, which is too early for a broker
that a program has left running, and that must store what it has promised.
"""

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from .loop import Loop

Job = Callable[[], object]
Done = Callable[[Any, Exception | None], None]


class Workers:
    """`count` threads that run jobs, started when they are first needed. With `count` = 1 it is a lane: jobs run one
    after the other, in the order submitted. For the loop's thread."""

    def __init__(self, loop: Loop, count: int, name: str) -> None:
        self._loop = loop
        self._count = count
        self._name = name
        self._jobs: SimpleQueue[tuple[Job, Done] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._unfinished = 0

    def submit(self, job: Job, done: Done) -> None:
        """Run `job`; then call `done(result, None)`, or `done(None, error)`, on the loop's thread."""
        if self._unfinished >= len(self._threads) < self._count:
            try:
                self.start()
            except RuntimeError as error:  # the system has no more threads, or Python is about to end
                if not self._threads:
                    self._loop.post(done, None, error)
                    return
        self._unfinished += 1
        self._jobs.put((job, done))

    def start(self) -> None:
        """Start one more of the threads. Raises RuntimeError if there can be none."""
        thread = threading.Thread(target=self._work, name=f"{self._name}_{len(self._threads)}", daemon=True)
        thread.start()
        self._threads.append(thread)

    def close(self) -> None:
        """Finish what was submitted, and end the threads."""
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    def _work(self) -> None:
        while (submitted := self._jobs.get()) is not None:
            job, done = submitted
            result: object = None
            error: Exception | None = None
            try:
                result = job()
            except Exception as raised:
                error = raised
            except BaseException as raised:  # it must not end the thread, and so the lane
                error = RuntimeError(f"a job ended by {raised!r}")
            self._loop.post(self._finished, done, result, error)
            del job, done, submitted, result, error  # or it would keep the last ones until the next

    def _finished(self, done: Done, result: object, error: Exception | None) -> None:
        self._unfinished -= 1
        done(result, error)
