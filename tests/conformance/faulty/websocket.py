"""The broker's WebSocket listener: looks like a socket, and carries its bytes in frames (section 6).

Owns: the handshake and the frames, with their faults. Must not know: MQTT, but for how long a packet is.
"""

import socket
from collections.abc import Callable, Sequence

from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from conformance import packets

#: How long the broker waits for a WebSocket handshake, in seconds.
HANDSHAKE_SECONDS = 10.0


class Refused(Exception):
    """The client's handshake or frame is not taken: its connection ends."""


class WebSocket:
    """Looks like a socket, and carries its bytes in WebSocket frames. `has` knows the broker's faults."""

    def __init__(self, sock: socket.socket, has: Callable[[str], bool]) -> None:
        self._sock = sock
        self._has = has
        # `websockets` makes a method of the function that it is given.
        self._protocol = ServerProtocol(select_subprotocol=lambda protocol, offered: self._select(offered))
        while self._protocol.state is State.CONNECTING and not self._protocol.handshake_exc:
            data = sock.recv(65536)
            if not data:
                raise Refused("no handshake")
            self._protocol.receive_data(data)
            for event in self._protocol.events_received():
                if isinstance(event, Request):
                    self._protocol.send_response(self._protocol.accept(event))
            self._flush()
        if self._protocol.state is not State.OPEN:
            raise Refused("the handshake was refused")

    def _select(self, offered: Sequence[Subprotocol]) -> Subprotocol | None:
        if self._has("any subprotocol is selected") and "mqtt" not in offered:
            return offered[0]
        if self._has("the first subprotocol is selected"):
            return offered[0]
        return Subprotocol("mqtt") if "mqtt" in offered and not self._has("no subprotocol is selected") else None

    def recv(self, size: int) -> bytes:
        while True:
            data = self._sock.recv(size)
            if not data:
                return b""
            self._protocol.receive_data(data)
            events = self._protocol.events_received()
            self._flush()
            if self._protocol.state is not State.OPEN:
                return b""
            found = b"".join(self._payload(event) for event in events if isinstance(event, Frame))
            if found:
                return found

    def _payload(self, frame: Frame) -> bytes:
        data = bytes(frame.data)
        if frame.opcode is Opcode.TEXT and self._has("text frames are ignored"):
            return b""
        if frame.opcode is Opcode.TEXT and not self._has("text frames are taken"):
            self._protocol.fail(1003)
            self._flush()
            raise Refused("a text frame")
        if frame.opcode is Opcode.CONT and self._has("fragments are lost"):
            return b""
        if frame.opcode not in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            return b""
        if self._has("a frame is a packet"):
            return data[: packet_size(data)] if packet_size(data) <= len(data) else b""
        if self._has("a frame begins with a packet") and not packets.decode_all(data):
            return b""
        return data[:120] if self._has("frames are cut after 120 bytes") else data

    def sendall(self, data: bytes) -> None:
        if self._has("text frames are sent") and data.isascii():
            self._protocol.send_text(data)
        else:
            self._protocol.send_binary(data)
        self._flush()

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self._sock.sendall(data)

    def settimeout(self, seconds: float | None) -> None:
        self._sock.settimeout(seconds)

    def shutdown(self, how: int) -> None:
        self._sock.shutdown(how)

    def close(self) -> None:
        self._sock.close()


def packet_size(data: bytes) -> int:
    """How long the packet is that these bytes begin with; more than there are if they are too few to say."""
    length = 0
    for position, byte in enumerate(data[1:5]):
        length |= (byte & 127) << 7 * position
        if byte < 128:
            return 2 + position + length
    return len(data) + 1
