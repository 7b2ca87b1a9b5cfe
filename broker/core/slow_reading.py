"""Reading the keys of a large dict over many turns, while keys come and go.

Owns: how far each reader is, and keys that were removed while somebody reads. Must not know: what the dicts hold.

A copy of the keys for each reader would cost as much as all of them, and a reader may never come to the end. So a
reader only knows a position, and a handful of keys. Positions must not shift under it: while a dict is read, a key that
is removed stays with the value None. It goes when nobody reads any more, or when there are too many of them; then each
reader is told its new position.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from itertools import islice
from typing import Any, TypeVar

#: Keys that a reader holds at the least; and of a large dict one part in so many, as it is counted through for each.
CHUNK = 512
PARTS = 64

_Key = TypeVar("_Key", bound=Hashable)


class _Reader:
    """Somebody who reads a dict."""

    __slots__ = ("position",)

    def __init__(self) -> None:
        self.position = 0


class _Read:
    """A dict that is being read. `emptied` is called when it is empty at the end of that."""

    __slots__ = ("emptied", "readers", "removed", "what")

    def __init__(self, what: dict[Any, Any], emptied: Callable[[], None]) -> None:
        self.what = what
        self.emptied = emptied
        self.readers: set[_Reader] = set()
        self.removed = 0  # at the most so many of its values are None

    def clean(self) -> None:
        """Remove what should be gone, and keep each reader where it is."""
        what = self.what
        ends = sorted(self.readers, key=lambda reader: reader.position)
        kept = at = 0
        gone = []
        for place, (key, value) in enumerate(what.items()):
            while at < len(ends) and ends[at].position <= place:
                ends[at].position = kept
                at += 1
            if value is None:
                gone.append(key)
            else:
                kept += 1
        for reader in ends[at:]:
            reader.position = kept
        for key in gone:
            del what[key]
        self.removed = 0
        if not what:
            self.emptied()


class SlowReading:
    """All dicts that are being read. Their values must be true, but for None: that is a key that was removed."""

    def __init__(self, chunk: int = CHUNK) -> None:
        """`chunk`: keys up to which a dict is small, and read at once."""
        self._chunk = chunk
        self._reads: dict[int, _Read] = {}  # by identity: dicts cannot be keys

    def keys(self, what: dict[_Key, Any], emptied: Callable[[], None]) -> Iterator[_Key]:
        """The keys in their order. A key that comes meanwhile is among them or not; each comes once at the most."""
        if len(what) <= self._chunk:
            yield from list(what)
            return
        read = self._reads.get(id(what))
        if read is None:
            read = self._reads[id(what)] = _Read(what, emptied)
        reader = _Reader()
        read.readers.add(reader)
        try:
            while True:
                size = max(self._chunk, len(what) // PARTS)
                chunk = list(islice(what, reader.position, reader.position + size))
                if not chunk:
                    return
                reader.position += len(chunk)
                yield from chunk
        finally:
            read.readers.discard(reader)
            if not read.readers:
                self._reads.pop(id(what), None)
                if read.removed:
                    read.clean()

    def remove(self, what: dict[_Key, Any], key: _Key) -> bool:
        """Remove a key that is there. False: it will only go when nobody reads any more."""
        read = self._reads.get(id(what))
        if read is None:
            del what[key]
            return True
        what[key] = None
        read.removed += 1
        if read.removed > len(what) // 2 + self._chunk:
            read.clean()
        return False
