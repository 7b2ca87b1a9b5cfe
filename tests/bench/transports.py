"""The ways to a broker: TCP, TLS, WebSocket; and a connection while it is set up, when it may block.

Owns: connecting, the handshakes, the bytes that stand around a packet on the wire, where a packet ends.
Must not know: what packets mean, the workloads, which broker it talks to.
"""

from __future__ import annotations

import base64
import secrets
import socket
import ssl
from dataclasses import dataclass
from enum import Enum

from packets import V311, Accepted, Mqtt, read_variable

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
    mqtt: Mqtt = V311


class Unframer:
    """What WebSocket frames of a server carry, however it cuts packets into frames."""

    def __init__(self) -> None:
        self._raw = b""

    def feed(self, data: bytes) -> bytes:
        """The content of all frames that are whole now. Raises GeneratorError: no data came, but a close, a ping."""
        raw, at, parts = self._raw + data, 0, []
        while len(raw) >= at + 2:
            if raw[at] & 0x0F > 2 or raw[at + 1] & 0x80:
                raise GeneratorError(f"a frame that a broker should not send now: {raw[at : at + 16].hex(' ')} ...")
            start, size = at + 2, raw[at + 1]
            if size > 125:
                start += 2 if size == 126 else 8
                size = int.from_bytes(raw[at + 2 : start], "big")
            if len(raw) < start or len(raw) < start + size:
                break
            parts.append(raw[start : start + size])
            at = start + size
        self._raw = raw[at:]
        return b"".join(parts)


class Client:
    """A connected socket, which blocks for at most `STALLED_AFTER`, and how packets stand on it.

    A WebSocket must be opened before packets are sent: many side by side, as some brokers take their time over each.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        """Raises GeneratorError: there is no connection, or its handshake fails."""
        self.endpoint = endpoint
        self.transport = endpoint.transport
        self.accepted = Accepted()  # until a CONNACK says more
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

    def receive(self, least: int) -> bytes:
        """The next packet, which has at least `least` bytes, two or more. Nothing behind it is read."""
        if self.transport is Transport.WEBSOCKET:
            return self._receive_framed()
        whole = self.receive_exactly(least)
        while all(digit & 0x80 for digit in whole[1:5]):
            whole += self.receive_exactly(1)
        size, start = read_variable(whole, 1)
        return whole + self.receive_exactly(start + size - len(whole))

    def _receive_framed(self) -> bytes:
        """The content of the next frame: during the set-up, brokers have one packet to send at a time."""
        raw = self.receive_exactly(2)
        size = raw[1]
        if size > 125:
            raw += self.receive_exactly(2 if size == 126 else 8)
            size = int.from_bytes(raw[2:], "big")
        return Unframer().feed(raw + self.receive_exactly(size))

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
