"""What one side has produced, and the other has not taken yet: in order, and large frames by reference.

Owns: the buffers that wait, and how much of them counts. Must not know: who takes them.

A large frame that goes to many stands in memory once, however many of them do not read. Small ones are copied together,
as each would cost more than its bytes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from itertools import groupby, islice

#: Frames of this size are not copied together.
LARGE = 8_192
#: Bytes that are handed to the system at once.
AT_ONCE = 1 << 19

Buffer = bytes | memoryview


class Backlog:
    """All that waits, whoever it is for: a large frame that waits for many counts once, as it is there once."""

    def __init__(self) -> None:
        self.size = 0  #: bytes
        self.limit = 1 << 60  #: bytes that all of it should not exceed
        self.holders = 0  #: for how many something waits
        self._shared: dict[int, int] = {}  # by the identity of a large frame: for how many it waits

    @property
    def part(self) -> int:
        """Bytes that may wait for one: from half of the limit on, no more than for each other."""
        return self.limit if self.size * 2 <= self.limit else self.limit // max(1, self.holders)

    def hold(self, buffers: Iterable[Buffer]) -> None:
        for buffer in buffers:
            size = len(buffer)
            if size >= LARGE:
                count = self._shared[id(buffer)] = self._shared.get(id(buffer), 0) + 1
                if count > 1:
                    continue
            self.size += size

    def release(self, buffer: Buffer) -> None:
        whole = buffer.obj if isinstance(buffer, memoryview) else buffer
        assert isinstance(whole, bytes)
        size = len(whole)
        if size >= LARGE:
            count = self._shared.pop(id(whole)) - 1
            if count:
                self._shared[id(whole)] = count
                return
        self.size -= size


class Unsent:
    """Frames that wait. `size`: bytes of all of them."""

    __slots__ = ("_backlog", "_buffers", "_large", "_least", "_taken", "size")

    def __init__(self, limit: int, backlog: Backlog) -> None:
        """`limit`: bytes that may wait. A frame of that size, too, is a large one. Call `drop` in the end."""
        self._backlog = backlog
        backlog.holders += 1
        self._least = min(LARGE, limit)
        self._buffers: deque[Buffer] = deque()
        # Where large frames lie: begin and end of each, as `_taken` counts.
        self._large: deque[tuple[int, int]] = deque()
        self._taken = 0  # bytes that were taken up to now
        self.size = 0

    def add(self, frames: Sequence[bytes]) -> None:
        """Frames that wait behind all others."""
        end = self._taken + self.size
        for frame in frames:
            begin, end = end, end + len(frame)
            if end - begin >= self._least:
                self._large.append((begin, end))
        self.size = end - self._taken
        buffers = together(frames)
        self._backlog.hold(buffers)
        self._buffers += buffers

    def drop(self) -> None:
        """Nobody wants it any more."""
        for buffer in self._buffers:
            self._backlog.release(buffer)
        self._buffers.clear()
        self._backlog.holders -= 1

    def take(self, size: int) -> None:
        """The first bytes are taken."""
        self.size -= size
        self._taken += size
        buffers = self._buffers
        while size:
            first = buffers.popleft()
            if len(first) > size:
                buffers.appendleft(memoryview(first)[size:])
                return
            size -= len(first)
            self._backlog.release(first)

    def first(self, count: int) -> list[Buffer]:
        """So many buffers, at the most, of those that are next; not many more bytes than the system takes in a
        millisecond, as others wait meanwhile."""
        room = AT_ONCE
        buffers: list[Buffer] = []
        for buffer in islice(self._buffers, count):
            if len(buffer) > room:
                return buffers or [memoryview(buffer)[:AT_ONCE]]
            room -= len(buffer)
            buffers.append(buffer)
        return buffers

    @property
    def waiting(self) -> int:
        """How much waits behind the frame under way: all bytes, but for what is left of the first large frame. So one
        frame alone is never too much, however large it is."""
        large = self._large
        while large:
            begin, end = large[0]
            if end > self._taken:
                return self.size - (end - max(begin, self._taken))
            large.popleft()
        return self.size


def together(frames: Sequence[bytes]) -> list[Buffer]:
    """The frames in their order: large ones as they are, those between them copied together."""
    if max(map(len, frames)) < LARGE:
        return [b"".join(frames)]
    buffers: list[Buffer] = []
    for large, run in groupby(filter(None, frames), lambda frame: len(frame) >= LARGE):
        if large:
            buffers += run
        else:
            buffers.append(b"".join(run))
    return buffers
