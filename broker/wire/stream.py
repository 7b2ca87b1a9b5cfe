"""A stream of bytes, as far as it has come.

Owns: what has arrived and is not decoded yet. Must not know: where packets end (decoder).

Nothing is allocated because a header announces it: memory grows only with what arrived. A piece is never copied
together with more than some kilobytes that came before it, but for once when the packet is whole: what a packet costs
grows with its pieces, not with their square.
"""

from __future__ import annotations

from typing import Protocol

from .codes import MQTT_3_1_1, VERSIONS, ProtocolError, ReasonCode
from .packets import Packet

# Bytes that may be copied again at the next read; more than that is collected, and joined once.
_SMALL = 4096


class Holder(Protocol):
    """Whose packets they are."""

    def hold(self, change: int) -> None:
        """So many bytes more are held of a packet that is not whole, or less."""


class Stream:
    """What one client sends.

    `max_size` is the largest whole packet, header included, in bytes, 129 at least (shorter ones are not measured);
    `version` the protocol level spoken. Both may be changed at any time, and hold from the next packet on. `versions`
    are those that a CONNECT may ask for.
    """

    __slots__ = (
        "_chunks", "_data", "_held", "_holder", "_missing", "_pos", "effort", "error", "max_size", "offending",
        "version", "versions",
    )  # fmt: skip

    def __init__(
        self,
        max_size: int,
        version: int = MQTT_3_1_1,
        holder: Holder | None = None,
        versions: frozenset[int] = VERSIONS,
    ) -> None:
        """`holder` hears what is held of large packets; small ones are not worth the telling."""
        self._holder = holder
        self._held = 0  # what it knows of
        self.max_size = max_size
        self.version = version
        self.versions = versions
        self._data = b""
        self._pos = 0
        self._chunks: list[bytes] | None = None  # what has come of a packet that spans many reads
        self._missing = 0  # how many bytes it lacks
        self.error: ProtocolError | None = None
        #: About how many microseconds the last packets took to read beyond others. If any, there may be more that are
        #: whole: they are asked for again.
        self.effort = 0
        self.offending = b""  #: how the packet begins that is malformed

    @property
    def buffered(self) -> int:
        """Bytes that have arrived and are not decoded yet."""
        size = len(self._data) - self._pos
        if self._chunks is not None:
            size += sum(map(len, self._chunks))
        return size

    @property
    def block(self) -> int:
        """Bytes of what came last, decoded or not, that are still in memory."""
        return len(self._data)

    @property
    def announced(self) -> int:
        """How large the packet will be of which a part is held; 0 if there is none, or a small one."""
        return 0 if self._chunks is None else self._held + self._missing

    def drop(self) -> None:
        """Forget all that has come: nobody wants it any more."""
        self._data, self._pos, self._chunks = b"", 0, None
        self._hold(-self._held)
        self._holder = None

    def _hold(self, change: int) -> None:
        self._held += change
        if change and self._holder is not None:
            self._holder.hold(change)

    def feed(self, data: bytes) -> None:
        """Take what has just arrived."""
        chunks = self._chunks
        if chunks is not None:
            if len(chunks[-1]) + len(data) < _SMALL:
                chunks[-1] += data  # a packet that trickles in shall not cost an object per byte
            else:
                chunks.append(data)
            self._missing -= len(data)
            if self._missing > 0:
                self._hold(len(data))
                return  # the packet is not whole yet: joining now would copy its beginning once per read
            data = b"".join(chunks)
            self._chunks = None
            self._hold(-self._held)
        elif self._pos < len(self._data):
            data = self._data[self._pos :] + data
        self._data = data
        self._pos = 0

    def _keep(self, data: bytes, pos: int, drained: bool) -> None:
        """Everything before `pos` is decoded; `drained`: and what follows is no whole packet."""
        if drained or pos == len(data):
            self._data = data[pos:]  # a few bytes of the next packet shall not keep the whole block
            self._pos = 0
        else:
            self._pos = pos

    def _await(self, data: bytes, pos: int, end: int) -> None:
        """The packet at `pos` is not whole: keep what there is of it until `end` has arrived."""
        size = len(data)
        if size - pos < _SMALL:
            self._data, self._pos = data[pos:], 0
        else:
            self._chunks = [data[pos:]]
            self._missing = end - size
            self._data, self._pos = b"", 0
            self._hold(size - pos)

    def _too_large(self, size: int) -> ProtocolError:
        return ProtocolError(
            f"a packet of {size} bytes, over the limit of {self.max_size} (max_packet_size)",
            reason=ReasonCode.PACKET_TOO_LARGE,
        )  # [MQTT5-3.2.2-15]

    def _fail(self, error: ProtocolError, data: bytes, pos: int, packets: list[Packet]) -> list[Packet]:
        """The packet at `pos` is malformed. Gives the ones before it, and if there are none raises the error."""
        self.error = error
        self.offending = data[pos : pos + 32]
        self._data, self._pos, self._chunks = b"", 0, None
        if not packets:
            raise error
        return packets
