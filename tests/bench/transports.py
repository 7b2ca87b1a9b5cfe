"""The ways to a broker: TCP, TLS, WebSocket; and a connection while it is set up, when it may block.

Owns: connecting, the handshakes, the bytes that stand around a packet on the wire.
Must not know: which packets there are, the workloads, which broker it talks to.
"""

from __future__ import annotations

import base64
import secrets
import socket
import ssl
from dataclasses import dataclass
from enum import Enum

#: One for all frames, so that they can be made before the start. (Not zero, which some brokers would not unmask.)
MASK = b"\x5a\xc3\x17\x8e"
STALLED_AFTER = 20.0  # seconds without a byte from the broker; the bench sets it from --patience


class GeneratorError(Exception):
    """The broker did not do what the workload needs; str() is one line that says what."""


class Transport(Enum):
    TCP = "tcp"
    TLS = "tls"
    WEBSOCKET = "websocket"

    def framed(self, packet: bytes) -> bytes:
        """A packet as the client sends it: over a WebSocket in a masked frame of its own, as client libraries do it."""
        return packet if self is not Transport.WEBSOCKET else _frame_header(len(packet), 0x80) + MASK + masked(packet)

    def mask_at(self, offset: int) -> int:
        """What eight bytes of a packet, from `offset` on, are XORed with."""
        return 0 if self is not Transport.WEBSOCKET else int.from_bytes(masked(bytes(offset + 8))[offset:], "big")

    def around_received(self, size: int) -> bytes:
        """What stands before a packet of `size` bytes from the broker, if it sends each in a frame of its own."""
        return b"" if self is not Transport.WEBSOCKET else _frame_header(size, 0)


def masked(data: bytes) -> bytes:
    """RFC 6455, 5.3."""
    key = (MASK * (len(data) // 4 + 1))[: len(data)]
    return (int.from_bytes(data, "big") ^ int.from_bytes(key, "big")).to_bytes(len(data), "big")


def _frame_header(size: int, mask: int) -> bytes:
    if size < 126:
        return bytes((0x82, mask | size))
    if size < 65536:
        return bytes((0x82, mask | 126)) + size.to_bytes(2, "big")
    return bytes((0x82, mask | 127)) + size.to_bytes(8, "big")


@dataclass(frozen=True)
class Endpoint:
    host: str
    port: int
    transport: Transport = Transport.TCP


class Client:
    """A connected socket, which blocks for at most `STALLED_AFTER`, and how packets stand on it.

    A WebSocket must be opened before packets are sent: many side by side, as some brokers take their time over each.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        """Raises GeneratorError: there is no connection, or its handshake fails."""
        self.transport = endpoint.transport
        self.sock = socket.socket(socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET)
        self.sock.settimeout(STALLED_AFTER)
        try:
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.sock.connect((endpoint.host, endpoint.port))
            if self.transport is Transport.TLS:
                self.sock = _TLS.wrap_socket(self.sock)
            elif self.transport is Transport.WEBSOCKET:
                self._ask_for_websocket(endpoint)
        except OSError as error:
            self.sock.close()
            raise GeneratorError(f"cannot connect to {endpoint.host}:{endpoint.port}: {error}") from None

    def _ask_for_websocket(self, endpoint: Endpoint) -> None:
        key = base64.b64encode(secrets.token_bytes(16)).decode()
        self.sock.sendall(
            f"GET /mqtt HTTP/1.1\r\nHost: {endpoint.host}:{endpoint.port}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Protocol: mqtt\r\n\r\n".encode()
        )

    def open(self) -> None:
        """Wait until packets may be sent. Raises GeneratorError: the broker speaks no WebSocket here."""
        if self.transport is not Transport.WEBSOCKET:
            return
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            answer += self.receive_exactly(1)
        if not answer.startswith(b"HTTP/1.1 101 "):
            raise GeneratorError(f"no WebSocket here: {answer.splitlines()[0].decode()}")

    def send(self, packet: bytes) -> None:
        self.sock.sendall(self.transport.framed(packet))

    def receive(self, size: int, already: bytes = b"") -> bytes:
        """The next packet, which has `size` bytes. already: what was read before."""
        header = self.transport.around_received(size)
        whole = already + self.receive_exactly(len(header) + size - len(already))
        if not whole.startswith(header):
            raise GeneratorError(f"{whole.hex()} instead of a frame with a packet of {size} bytes")
        return whole[len(header) :]

    def receive_exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            try:
                part = self.sock.recv(size - len(data))
            except TimeoutError:
                waited = f"{STALLED_AFTER:g} s"
                raise GeneratorError(f"no answer from the broker within {waited} during the set-up") from None
            if not part:
                raise GeneratorError("the broker closed a connection during the set-up")
            data += part
        return data

    def close(self) -> None:
        self.sock.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _client_context() -> ssl.SSLContext:
    """Whom the certificate names is not what is measured."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


_TLS = _client_context()
