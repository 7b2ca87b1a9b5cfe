"""An MQTT client of raw bytes, for tests that must say exactly what goes over the wire, malformed or not.

Owns: a blocking socket with a deadline, the few packets a test sends, and the cutting of what comes back into packets.
Must not know: broker. It has its own encoder, so that one misreading does not pass both.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

PINGREQ, PINGRESP, DISCONNECT = b"\xc0\x00", b"\xd0\x00", b"\xe0\x00"

#: Seconds after which a test gives up waiting: far more than a healthy broker needs on a slow machine.
DEADLINE = 15.0

Address = tuple[str, int]


class Closed(Exception):
    """The broker has closed the connection (by FIN or by RST)."""


class Will(NamedTuple):
    topic: str
    payload: bytes = b"will"
    qos: int = 0
    retain: bool = False


class Publish(NamedTuple):
    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    dup: bool = False
    packet_id: int = 0


def packet(first: int, body: bytes) -> bytes:
    """A packet with this first byte."""
    length = bytearray()
    left = len(body)
    while True:
        length.append(left % 128 | (128 if left > 127 else 0))
        left //= 128
        if not left:
            return bytes((first,)) + bytes(length) + body


def text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("!H", len(data)) + data


def connect(
    client_id: str = "",
    *,
    clean: bool = True,
    keep_alive: int = 0,
    username: str | None = None,
    password: bytes | None = None,
    will: Will | None = None,
    name: bytes = b"MQTT",
    level: int = 4,
    flags: int = 0,
) -> bytes:
    """CONNECT; `flags` are set in addition to those that the fields ask for."""
    body = text(client_id)
    flags |= 2 if clean else 0
    if will is not None:
        flags |= 4 | will.qos << 3 | (32 if will.retain else 0)
        body += text(will.topic) + text(will.payload)
    if username is not None:
        flags |= 128
        body += text(username)
    if password is not None:
        flags |= 64
        body += text(password)
    return packet(0x10, text(name) + struct.pack("!BBH", level, flags, keep_alive) + body)


def publish(
    topic: str | bytes,
    payload: bytes = b"",
    qos: int = 0,
    *,
    packet_id: int = 1,
    retain: bool = False,
    dup: bool = False,
) -> bytes:
    middle = struct.pack("!H", packet_id) if qos else b""
    return packet(0x30 | dup << 3 | qos << 1 | retain, text(topic) + middle + payload)


def subscribe(*wanted: tuple[str, int], packet_id: int = 1) -> bytes:
    filters = b"".join(text(topic_filter) + bytes((qos,)) for topic_filter, qos in wanted)
    return packet(0x82, struct.pack("!H", packet_id) + filters)


def unsubscribe(*filters: str, packet_id: int = 1) -> bytes:
    return packet(0xA2, struct.pack("!H", packet_id) + b"".join(map(text, filters)))


def puback(packet_id: int) -> bytes:
    return struct.pack("!BBH", 0x40, 2, packet_id)


def pubrec(packet_id: int) -> bytes:
    return struct.pack("!BBH", 0x50, 2, packet_id)


def pubrel(packet_id: int) -> bytes:
    return struct.pack("!BBH", 0x62, 2, packet_id)


def pubcomp(packet_id: int) -> bytes:
    return struct.pack("!BBH", 0x70, 2, packet_id)


def connack(code: int = 0, present: bool = False) -> bytes:
    return bytes((0x20, 2, present, code))


def suback(*codes: int, packet_id: int = 1) -> bytes:
    return packet(0x90, struct.pack("!H", packet_id) + bytes(codes))


def parse_publish(data: bytes) -> Publish:
    """A whole PUBLISH as it came."""
    first = data[0]
    assert first >> 4 == 3, f"PUBLISH expected, got {data[:60]!r}"
    pos = 2
    while data[pos - 1] & 128:
        pos += 1
    (size,) = struct.unpack_from("!H", data, pos)
    topic = data[pos + 2 : pos + 2 + size].decode()
    pos += 2 + size
    qos = first >> 1 & 3
    packet_id = 0
    if qos:
        (packet_id,) = struct.unpack_from("!H", data, pos)
        pos += 2
    return Publish(topic, data[pos:], qos, bool(first & 1), bool(first & 8), packet_id)


class RawClient:
    """A connection to a broker."""

    def __init__(
        self,
        address: Address | Path,
        *,
        receive_buffer: int | None = None,
        source: str = "",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`address` may be the path of a Unix socket. `receive_buffer`: bytes that the system takes in for a client
        that does not read; `source`: the address to come from."""
        internet = socket.AF_INET6 if ":" in str(address[0] if isinstance(address, tuple) else "") else socket.AF_INET
        self.socket = socket.socket(socket.AF_UNIX if isinstance(address, Path) else internet)
        if source:
            self.socket.bind((source, 0))
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(DEADLINE)
        if isinstance(address, Path):
            self.socket.connect(str(address))
        else:
            self.socket.connect(address)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is not None:
            name = "localhost" if isinstance(address, Path) else address[0]
            self.socket = tls.wrap_socket(self.socket, server_hostname=name)
        self._data = b""

    @classmethod
    def connected(
        cls,
        address: Address | Path,
        client_id: str = "",
        *,
        present: bool = False,
        receive_buffer: int | None = None,
        clean: bool = True,
        keep_alive: int = 0,
        username: str | None = None,
        password: bytes | None = None,
        will: Will | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> Self:
        """A client that has its CONNACK with code 0, and with Session Present as given."""
        client = cls(address, receive_buffer=receive_buffer, tls=tls)
        client.send(
            connect(client_id, clean=clean, keep_alive=keep_alive, username=username, password=password, will=will)
        )
        client.expect(connack(0, present))
        return client

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def next(self, timeout: float = DEADLINE) -> bytes:
        """The next whole packet. Raises Closed, or TimeoutError."""
        self.socket.settimeout(timeout)
        while True:
            size = self._whole()
            if size:
                found, self._data = self._data[:size], self._data[size:]
                return found
            try:
                data = self.socket.recv(1 << 18)
            except ConnectionError as error:
                raise Closed(f"after {self._data[:60]!r}: {error}") from None
            if not data:
                raise Closed(f"after {self._data[:60]!r}")
            self._data += data

    def _whole(self) -> int:
        """The size of the first packet that has come, 0 if it is not whole."""
        data = self._data
        length = 0
        for i, byte in enumerate(data[1:5]):
            length |= (byte & 127) << 7 * i
            if byte < 128:
                return 2 + i + length if len(data) >= 2 + i + length else 0
        return 0

    def expect(self, *packets: bytes) -> None:
        """These are the next packets."""
        for wanted in packets:
            came = self.next()
            assert came == wanted, f"{came[:80]!r} came, not {wanted[:80]!r}"

    def message(self, timeout: float = DEADLINE) -> Publish:
        """The next packet, a PUBLISH."""
        return parse_publish(self.next(timeout))

    def subscribe(self, *wanted: tuple[str, int]) -> RawClient:
        """Subscribe, and wait for the SUBACK that grants all of it."""
        self.send(subscribe(*wanted))
        self.expect(suback(*(qos for _, qos in wanted)))
        return self

    def ping(self) -> None:
        """The connection works, and nothing else was on its way to this client."""
        self.send(PINGREQ)
        self.expect(PINGRESP)

    def closed(self, timeout: float = DEADLINE) -> bytes:
        """Wait until the broker closes; returns what came before."""
        came, self._data = self._data, b""
        self.socket.settimeout(timeout)
        with contextlib.suppress(ConnectionError):
            while data := self.socket.recv(1 << 16):
                came += data
        self.close()
        return came

    def disconnect(self) -> None:
        """Say DISCONNECT, and wait for the broker to close."""
        with contextlib.suppress(ConnectionError):
            self.send(DISCONNECT)
        self.closed()

    def reset(self) -> None:
        """End the connection by a RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
