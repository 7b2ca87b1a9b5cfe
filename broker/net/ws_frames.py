"""The frames that a client sends over a WebSocket: the common one is cut here, all others by the core of `websockets`.

Owns: where frames begin and end, and who cuts them. Must not know: whom their payload is for, what to do in the end.

Common is a frame that is binary, final, masked, not too large, and here as a whole. The core has its own place in the
stream, so it must get each of the other frames from its first byte to its last: the common ones between two of those
pass it by. While a message is in fragments, and after an error or a close, everything is the core's.
"""

from __future__ import annotations

from websockets.frames import CloseCode, Frame, Opcode
from websockets.server import ServerProtocol

try:
    from websockets.speedups import apply_mask
except ImportError:  # its wheel has none for this system
    from websockets.utils import apply_mask

#: Bytes after which what has been cut is passed on: who gets it may want nothing more then.
PIECE = 8_192
#: A frame of which only a part has come is kept here, as long as it has no more bytes than that.
SMALL = 2_048
ENDLESS = 1 << 62
#: How a common frame begins: FIN, and the opcode of a binary frame.
_BINARY = 0x82
_OPCODES = frozenset(Opcode)


class Frames:
    """What comes from one client, in frames. `core` has shaken hands, and gets no bytes from anybody else."""

    __slots__ = ("_core", "_fragmented", "_rest", "left", "limit")

    def __init__(self, core: ServerProtocol, limit: int) -> None:
        """`limit`: bytes of a frame's payload, as the core has it, too."""
        self._core = core
        self.limit = limit
        self._rest = b""  # the beginning of a frame that nobody has looked at yet
        self.left = 0  #: bytes that the core lacks of a frame; without end, if it is at its own
        self._fragmented = False  # is a message under way?

    @property
    def held(self) -> int:
        """Bytes that have come of a frame that is not whole."""
        return len(self._rest) + len(self._core.reader.buffer)

    def behind_rest(self, data: bytes) -> bytes:
        """What has come now, behind what could not be taken before."""
        if self._rest:
            data, self._rest = self._rest + data, b""
        return data

    def take(self, data: bytes, position: int, most: int) -> tuple[list[bytes], int, int]:
        """Cut frames from `position` on: `most` of them at the most, and not many more bytes than PIECE.

        Returns their payloads, where the next one begins, and how many there were, ping and the like among them. (None,
        and the end of `data`: the next one is not whole.)
        """
        if self.left:
            return self._by_core(data, position)
        if not self._fragmented:
            payloads = []
            size = len(data)
            start = position
            stop = position + PIECE
            limit = self.limit
            while start + 6 <= size and data[start] == _BINARY:
                length = data[start + 1] - 128
                begin = start + 6
                if length < 0:
                    break  # it is not masked
                if length > 125:
                    begin += 2 if length == 126 else 8
                    length = int.from_bytes(data[start + 2 : begin - 4], "big")
                end = begin + length
                if end > size or length > limit:
                    break
                payloads.append(apply_mask(data[begin:end], data[begin - 4 : begin]))
                start = end
                if start >= stop or len(payloads) >= most:
                    break
            if payloads:
                return payloads, start, len(payloads)
        return self._begin(data, position)

    def _begin(self, data: bytes, position: int) -> tuple[list[bytes], int, int]:
        """A frame begins at `position` that is not common, or not whole."""
        size = len(data)
        end = _end(data, position)
        hopeless = size - position >= 2 and (data[position] & 15 not in _OPCODES or data[position + 1] < 128)
        small = min(SMALL, self.limit)
        if not hopeless and (end is None or (end > size and data[position] == _BINARY and end - position <= small)):
            self._rest = data[position:]
            return [], size, 0
        self.left = (size if end is None else end) - position
        return self._by_core(data, position)

    def _by_core(self, data: bytes, position: int) -> tuple[list[bytes], int, int]:
        """Give the core what is left of its frame, or as much of it as has come."""
        core = self._core
        end = min(len(data), position + self.left)
        core.receive_data(data[position:end])
        self.left -= end - position
        payloads = []
        events = core.events_received()
        for event in events:
            assert isinstance(event, Frame)
            if event.opcode is Opcode.BINARY or event.opcode is Opcode.CONT:
                payloads.append(bytes(event.data))
                self._fragmented = not event.fin
            elif event.opcode is Opcode.TEXT:
                core.fail(CloseCode.UNSUPPORTED_DATA, "only binary frames are taken")  # [MQTT-6.0.0-1]
        if core.eof_sent:
            self.left = ENDLESS  # it forgets whatever comes now
        return payloads, end, len(events)

    def forget(self) -> None:
        """It is over. The core leads back to itself, and holds what came last: that would stay for long."""
        self._rest = b""
        core = self._core
        core.reader.buffer.clear()
        core.parser.close()
        for error in (core.parser_exc, core.handshake_exc):
            if error is not None:
                error.__traceback__ = None


def _end(data: bytes, position: int) -> int | None:
    """Where the frame ends that begins at `position`; None: what has come of it does not tell."""
    begin = position + 2
    if begin > len(data):
        return None
    length = data[position + 1] & 127
    if length > 125:
        width = 2 if length == 126 else 8
        if begin + width > len(data):
            return None
        length = int.from_bytes(data[begin : begin + width], "big")
        begin += width
    return begin + 4 + length
