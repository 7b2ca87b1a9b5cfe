"""A reload: the configuration and the files that it names are read again, and what they say is taken over.

Owns: that files are read on a worker's thread, as a large one takes its time; that what is asked for meanwhile becomes
one more reload, however often it is asked for; that taking it over is spread over several turns. Must not know: what
is taken over, or how (server).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

Read = TypeVar("Read")


class Reload(Generic[Read]):
    """One reload at a time. For the loop's thread."""

    def __init__(
        self,
        submit: Callable[[Callable[[], Read], Callable[[Read, Exception | None], None]], None],
        read: Callable[[], Read],
        take_over: Callable[[Read], Iterator[None]],
        failed: Callable[[Exception], None],
        in_turn: Callable[[Callable[[], None]], None],
    ) -> None:
        """`submit` runs `read` elsewhere; `take_over` gets what it gave, and yields where others should have their
        turn; `failed` gets what it raised."""
        self._submit = submit
        self._read = read
        self._take_over = take_over
        self._failed = failed
        self._in_turn = in_turn
        self._under_way = False
        self._again = False

    def request(self) -> None:
        """Begin, or begin again when the present one is done."""
        if self._under_way:
            self._again = True
            return
        self._under_way = True
        self._submit(self._read, self._done)

    def _done(self, read: Read, error: Exception | None) -> None:
        try:
            if error is None:
                self._go_on(self._take_over(read))
            else:
                self._failed(error)
                self._finished()
        except BaseException:
            self._finished()  # or nobody could reload any more
            raise

    def _go_on(self, steps: Iterator[None]) -> None:
        for _ in steps:
            self._in_turn(lambda: self._resume(steps))
            return
        self._finished()

    def _resume(self, steps: Iterator[None]) -> None:
        try:
            self._go_on(steps)
        except BaseException:
            self._finished()
            raise

    def _finished(self) -> None:
        self._under_way = False
        if self._again:
            self._again = False
            self.request()
