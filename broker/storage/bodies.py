"""What was read last of what several queues share, so that clients that come back together share it in memory, too.

Owns: how much of it is kept. Must not know: where it comes from.
"""

from collections import OrderedDict

from ..wire.message import Message

#: Bytes that are kept; the messages unpacked from small ones take several times that.
MOST = 2 << 20


class Body:
    """A payload with the properties behind it; or a block of messages, and those of them that were unpacked: by where
    they begin, with their ends."""

    __slots__ = ("apart", "data", "unpacked")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.apart: tuple[bytes, bytes] | None = None  #: the two, once they are asked for
        self.unpacked: dict[int, tuple[Message, int]] = {}


class Bodies:
    """By their keys in the store, which are given once."""

    def __init__(self) -> None:
        self._kept: OrderedDict[int, Body] = OrderedDict()
        self._size = 0

    def get(self, id: int) -> Body | None:
        body = self._kept.get(id)
        if body is not None:
            self._kept.move_to_end(id)
        return body

    def keep(self, id: int, data: bytes) -> Body:
        body = self._kept[id] = Body(data)
        self._size += len(data)
        while self._size > MOST:
            _, oldest = self._kept.popitem(last=False)
            self._size -= len(oldest.data)
        return body

    def clear(self) -> None:
        self._kept.clear()
        self._size = 0
