"""Threads for what blocks: a pool for anything, and a lane that keeps the order.

Owns: the threads. Must not know: what they compute. Jobs get immutable inputs; results come back to the loop's thread.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from .loop import Loop

Done = Callable[[Any, Exception | None], None]


class Workers:
    """`count` threads that run jobs, started when they are first needed. With `count` = 1 it is a lane: jobs run one
    after the other, in the order submitted."""

    def __init__(self, loop: Loop, count: int, name: str) -> None:
        self._loop = loop
        self._pool = ThreadPoolExecutor(count, thread_name_prefix=name)

    def submit(self, job: Callable[[], object], done: Done) -> None:
        """Run `job`; then call `done(result, None)`, or `done(None, error)`, on the loop's thread."""

        def finished(future: "Future[object]") -> None:
            error = future.exception()
            if error is not None and not isinstance(error, Exception):
                raise error
            self._loop.post(done, None if error is not None else future.result(), error)

        self._pool.submit(job).add_done_callback(finished)

    def close(self) -> None:
        """Finish what was submitted, and end the threads."""
        self._pool.shutdown(wait=True)
