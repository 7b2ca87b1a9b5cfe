"""The bytes under MQTT, both ways: over TCP, TLS or WebSocket (sections 4.2 and 6).

Owns: `Stream`, a connection that carries bytes, `WebSocketStream`, the same within WebSocket frames, and the WebSocket
handshake. Must not know: MQTT, tests, what an endpoint is for.
"""

import contextlib
import socket
import ssl
import struct
from collections.abc import Sequence

from websockets.client import ClientProtocol
from websockets.exceptions import WebSocketException
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import Event, State
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

RECEIVE_SIZE = 65536

#: The subprotocol that a client of MQTT offers [MQTT-6.0.0-3].
SUBPROTOCOL = "mqtt"


class Stream:
    """A connection over TCP or TLS. Methods raise OSError, TimeoutError among them."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection

    def send(self, data: bytes, timeout: float) -> None:
        """Sends all of it. Over WebSocket, in one binary frame."""
        self._socket.settimeout(timeout)
        self._socket.sendall(data)

    def receive(self, timeout: float) -> bytes:
        """The next bytes that come; none if the broker has closed."""
        self._socket.settimeout(timeout)
        try:
            return self._socket.recv(RECEIVE_SIZE)
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
            return b""

    def finish_sending(self) -> None:
        """Sends FIN, and can still receive."""
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._socket, socket.SHUT_WR)  # also under TLS, which would forget its keys else

    def reset(self) -> None:
        """Ends the connection with RST."""
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def abort(self) -> None:
        """Makes another thread's wait on this connection end at once."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._socket.close()


class WebSocketStream(Stream):
    """A connection whose bytes travel in WebSocket frames. The handshake is made here; OSError if it fails.

    `response` is the broker's answer to the handshake. `opcodes` are those of the data frames that have come. A frame
    of the wrong kind is read like any other: that is for a test to judge.
    """

    def __init__(
        self, connection: socket.socket, uri: str, timeout: float, subprotocols: Sequence[str] = (SUBPROTOCOL,)
    ) -> None:
        super().__init__(connection)
        self.opcodes: list[Opcode] = []
        self._protocol, self.response, self._events = _shake_hands(connection, uri, timeout, subprotocols)
        if self._protocol.handshake_exc:
            connection.close()
            raise OSError(f"the WebSocket handshake failed: {self._protocol.handshake_exc}")
        with contextlib.suppress(OSError):
            self._flush(timeout)  # the answers to a ping and to a close that came with the handshake
        self._ended = self._protocol.state is not State.OPEN

    def send(self, data: bytes, timeout: float) -> None:
        self.send_frame(data, timeout)

    def send_frame(self, data: bytes, timeout: float, opcode: Opcode = Opcode.BINARY, *, fin: bool = True) -> None:
        """One frame. `fin` is whether it ends its message; else frames of the opcode CONT go on with it."""
        try:
            match opcode:
                case Opcode.BINARY:
                    self._protocol.send_binary(data, fin)
                case Opcode.TEXT:
                    self._protocol.send_text(data, fin)
                case Opcode.CONT:
                    self._protocol.send_continuation(data, fin)
                case _:
                    self._protocol.send_ping(data)
        except WebSocketException as error:
            raise OSError(f"the WebSocket is closed: {error}") from None
        self._flush(timeout)

    def receive(self, timeout: float) -> bytes:
        early = self._frames()
        if early:
            return early
        while not self._ended:
            data = super().receive(timeout)
            if data:
                self._protocol.receive_data(data)
            else:
                self._protocol.receive_eof()
            self._events += self._protocol.events_received()
            with contextlib.suppress(OSError):
                self._flush(timeout)  # the answers to a ping and to a close
            found = self._frames()
            # A frame that closes the WebSocket ends the Network Connection, however long TCP may stay.
            self._ended = not data or self._protocol.state is not State.OPEN
            if found:
                return found
        return b""

    def _frames(self) -> bytes:
        """What the data frames carried that have come. A frame may have come with the handshake."""
        events, self._events = self._events, []
        payloads = []
        for event in events:
            if isinstance(event, Frame) and event.opcode in (Opcode.BINARY, Opcode.TEXT, Opcode.CONT):
                self.opcodes.append(event.opcode)
                payloads.append(bytes(event.data))
        return b"".join(payloads)

    def _flush(self, timeout: float) -> None:
        self._socket.settimeout(timeout)
        for data in self._protocol.data_to_send():
            if data:
                self._socket.sendall(data)


def _shake_hands(
    connection: socket.socket, uri: str, timeout: float, subprotocols: Sequence[str]
) -> tuple[ClientProtocol, Response, list[Event]]:
    """Sends the handshake and reads the answer, a refusal perhaps, and what came with it. OSError if none comes."""
    protocol = ClientProtocol(parse_uri(uri), subprotocols=[Subprotocol(name) for name in subprotocols], max_size=None)
    protocol.send_request(protocol.connect())
    try:
        connection.settimeout(timeout)
        connection.sendall(b"".join(protocol.data_to_send()))
        while True:
            data = connection.recv(RECEIVE_SIZE)
            if data:
                protocol.receive_data(data)
            else:
                protocol.receive_eof()
            events = protocol.events_received()
            if events and isinstance(events[0], Response):
                return protocol, events[0], events[1:]
            if protocol.handshake_exc or not data:
                raise OSError(f"the answer to the WebSocket handshake is not HTTP: {protocol.handshake_exc}")
    except BaseException:
        connection.close()
        raise


def selected(connection: socket.socket, uri: str, timeout: float, offered: Sequence[str]) -> str | None:
    """The subprotocol that the broker selects when a client offers these; None if it selects none, or refuses.

    OSError if there is no answer.
    """
    with contextlib.closing(connection):
        _, response, _ = _shake_hands(connection, uri, timeout, offered)
    names = response.headers.get_all("Sec-WebSocket-Protocol")
    return ", ".join(names) if names and response.status_code == 101 else None
