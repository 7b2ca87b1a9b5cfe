"""A client of MQTT 5.0 of raw bytes, for tests that must say exactly what goes over the wire, malformed or not.

Owns: 5.0's packets and properties, to and fro. Must not know: broker. It has its own encoder, so that one misreading
does not pass both.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from enum import IntEnum
from pathlib import Path
from typing import Any, NamedTuple, Self

from tests.raw_client import DEADLINE, Address, RawClient, packet, text

CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP = 2, 3, 4, 5, 6, 7
SUBACK, UNSUBACK, PINGRESP, DISCONNECT, AUTH = 9, 11, 13, 14, 15

#: A Session Expiry Interval that never ends.
NEVER = 0xFFFFFFFF

#: Bits of a subscription's options, beside its QoS.
NO_LOCAL, AS_PUBLISHED, ONLY_IF_NEW, NOT_AT_ALL = 4, 8, 0x10, 0x20


class P(IntEnum):
    """Identifiers of properties."""

    PAYLOAD_FORMAT = 1
    MESSAGE_EXPIRY = 2
    CONTENT_TYPE = 3
    RESPONSE_TOPIC = 8
    CORRELATION_DATA = 9
    SUBSCRIPTION_ID = 11
    SESSION_EXPIRY = 17
    ASSIGNED_CLIENT_ID = 18
    SERVER_KEEP_ALIVE = 19
    AUTH_METHOD = 21
    AUTH_DATA = 22
    PROBLEM_INFORMATION = 23
    WILL_DELAY = 24
    RESPONSE_INFORMATION_ASKED = 25
    RESPONSE_INFORMATION = 26
    SERVER_REFERENCE = 28
    REASON_STRING = 31
    RECEIVE_MAXIMUM = 33
    ALIAS_MAXIMUM = 34
    ALIAS = 35
    MAXIMUM_QOS = 36
    RETAIN_AVAILABLE = 37
    USER = 38
    MAXIMUM_PACKET_SIZE = 39
    WILDCARD_AVAILABLE = 40
    SUBSCRIPTION_IDS_AVAILABLE = 41
    SHARED_AVAILABLE = 42


#: By identifier: bytes of an integer; 0: a Variable Byte Integer; -1: a text; -2: binary data; -3: a pair of texts.
_KINDS = {
    **dict.fromkeys((P.PAYLOAD_FORMAT, P.PROBLEM_INFORMATION, P.RESPONSE_INFORMATION_ASKED, P.MAXIMUM_QOS), 1),
    **dict.fromkeys((P.RETAIN_AVAILABLE, P.WILDCARD_AVAILABLE, P.SUBSCRIPTION_IDS_AVAILABLE, P.SHARED_AVAILABLE), 1),
    **dict.fromkeys((P.SERVER_KEEP_ALIVE, P.RECEIVE_MAXIMUM, P.ALIAS_MAXIMUM, P.ALIAS), 2),
    **dict.fromkeys((P.MESSAGE_EXPIRY, P.SESSION_EXPIRY, P.WILL_DELAY, P.MAXIMUM_PACKET_SIZE), 4),
    P.SUBSCRIPTION_ID: 0,
    **dict.fromkeys((P.CONTENT_TYPE, P.RESPONSE_TOPIC, P.ASSIGNED_CLIENT_ID, P.AUTH_METHOD), -1),
    **dict.fromkeys((P.RESPONSE_INFORMATION, P.SERVER_REFERENCE, P.REASON_STRING), -1),
    **dict.fromkeys((P.CORRELATION_DATA, P.AUTH_DATA), -2),
    P.USER: -3,
}

#: Values by identifier; a list for one that comes more than once. Bytes: the section as it stands, without its length.
Properties = Mapping[P, Any] | bytes


class Will5(NamedTuple):
    topic: str
    payload: bytes = b"will"
    qos: int = 0
    retain: bool = False
    properties: Properties = b""


class Came(NamedTuple):
    """A packet of the broker's. What its type does not have is empty."""

    type: int
    reason: int = 0  #: of SUBACK and UNSUBACK: the first one
    packet_id: int = 0
    properties: dict[P, Any] = {}  # noqa: RUF012  #: User Property and Subscription Identifier are lists
    reasons: tuple[int, ...] = ()
    present: bool = False
    topic: str = ""
    payload: bytes = b""
    qos: int = 0
    retain: bool = False
    dup: bool = False
    size: int = 0  #: bytes of it all


# --- to the broker ---


def variable(number: int) -> bytes:
    """A Variable Byte Integer."""
    digits = bytearray()
    while True:
        number, digit = divmod(number, 128)
        digits.append(digit | 0x80 if number else digit)
        if not number:
            return bytes(digits)


def one_property(name: int, value: Any) -> bytes:
    """A property, once."""
    kind = _KINDS[P(name)]
    if kind > 0:
        return bytes((name,)) + int(value).to_bytes(kind, "big")
    if kind == 0:
        return bytes((name,)) + variable(value)
    return bytes((name,)) + (text(value[0]) + text(value[1]) if kind == -3 else text(value))


def section(properties: Properties = b"") -> bytes:
    """Properties with their length in front."""
    if not isinstance(properties, bytes):
        properties = b"".join(
            one_property(name, each)
            for name, value in properties.items()
            for each in (value if isinstance(value, list) else [value])
        )
    return variable(len(properties)) + properties


def connect(
    client_id: str = "",
    properties: Properties = b"",
    *,
    clean: bool = True,
    keep_alive: int = 0,
    username: str | None = None,
    password: bytes | None = None,
    will: Will5 | None = None,
    flags: int = 0,
) -> bytes:
    """CONNECT; `flags` are set in addition to those that the fields ask for."""
    body = section(properties) + text(client_id)
    flags |= 2 if clean else 0
    if will is not None:
        flags |= 4 | will.qos << 3 | (32 if will.retain else 0)
        body += section(will.properties) + text(will.topic) + text(will.payload)
    if username is not None:
        flags |= 128
        body += text(username)
    if password is not None:
        flags |= 64
        body += text(password)
    return packet(0x10, text(b"MQTT") + struct.pack("!BBH", 5, flags, keep_alive) + body)


def publish(
    topic: str | bytes,
    payload: bytes = b"",
    qos: int = 0,
    properties: Properties = b"",
    *,
    packet_id: int = 1,
    retain: bool = False,
    dup: bool = False,
) -> bytes:
    middle = struct.pack("!H", packet_id) if qos else b""
    return packet(0x30 | dup << 3 | qos << 1 | retain, text(topic) + middle + section(properties) + payload)


def subscribe(*wanted: tuple[str, int], packet_id: int = 1, properties: Properties = b"") -> bytes:
    """The number beside a filter is its options: a QoS, and NO_LOCAL and so on."""
    filters = b"".join(text(topic_filter) + bytes((options,)) for topic_filter, options in wanted)
    return packet(0x82, struct.pack("!H", packet_id) + section(properties) + filters)


def unsubscribe(*filters: str, packet_id: int = 1) -> bytes:
    return packet(0xA2, struct.pack("!H", packet_id) + section() + b"".join(map(text, filters)))


def ack(type_: int, packet_id: int, reason: int | None = None, properties: Properties | None = None) -> bytes:
    """PUBACK, PUBREC, PUBREL or PUBCOMP, as long as what is given."""
    body = struct.pack("!H", packet_id) + (b"" if reason is None else bytes((reason,)))
    body += b"" if properties is None else section(properties)
    return packet(type_ << 4 | (2 if type_ == PUBREL else 0), body)


def disconnect(reason: int | None = None, properties: Properties | None = None) -> bytes:
    body = (b"" if reason is None else bytes((reason,))) + (b"" if properties is None else section(properties))
    return packet(0xE0, body)


def auth(reason: int, properties: Properties) -> bytes:
    return packet(0xF0, bytes((reason,)) + section(properties))


# --- from the broker ---


def _read_variable(data: bytes, pos: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[pos]
        value |= (byte & 127) << shift
        pos, shift = pos + 1, shift + 7
        if byte < 128:
            return value, pos


def _read_binary(data: bytes, pos: int) -> tuple[bytes, int]:
    (size,) = struct.unpack_from("!H", data, pos)
    return data[pos + 2 : pos + 2 + size], pos + 2 + size


def _read_value(kind: int, data: bytes, pos: int) -> tuple[Any, int]:
    if kind > 0:
        return int.from_bytes(data[pos : pos + kind], "big"), pos + kind
    if kind == 0:
        return _read_variable(data, pos)
    value, pos = _read_binary(data, pos)
    if kind == -2:
        return value, pos
    if kind == -1:
        return value.decode(), pos
    second, pos = _read_binary(data, pos)
    return (value.decode(), second.decode()), pos


def read_section(data: bytes, pos: int) -> tuple[dict[P, Any], int]:
    """The properties, and where they end. Only what may come twice does."""
    size, pos = _read_variable(data, pos)
    end = pos + size
    assert end <= len(data), f"properties longer than their packet: {data[:60]!r}"
    found: dict[P, Any] = {}
    while pos < end:
        name = P(data[pos])
        value, pos = _read_value(_KINDS[name], data, pos + 1)
        if name in (P.USER, P.SUBSCRIPTION_ID):
            found.setdefault(name, []).append(value)
        else:
            assert name not in found, f"{name.name} twice: {data[:60]!r}"
            found[name] = value
    assert pos == end, f"the last property is longer than the section: {data[:60]!r}"
    return found, end


def parse(data: bytes) -> Came:
    """A whole packet as it came."""
    first = data[0]
    type_, flags = first >> 4, first & 15
    _, at = _read_variable(data, 1)
    body = data[at:]
    if type_ == PUBLISH:
        return _parse_publish(flags, body, len(data))
    assert flags == (2 if type_ == PUBREL else 0), f"wrong flags: {data[:60]!r}"
    if type_ == PINGRESP:
        assert body == b""
        return Came(type_, size=len(data))
    if type_ == CONNACK:
        assert body[0] < 2
        properties, end = read_section(body, 2)
        assert end == len(body)
        return Came(type_, body[1], properties=properties, present=bool(body[0]), size=len(data))
    if type_ in (SUBACK, UNSUBACK):
        properties, end = read_section(body, 2)
        return Came(
            type_, body[end], int.from_bytes(body[:2], "big"), properties, tuple(body[end:]), size=len(data)
        )  # fmt: skip
    assert type_ in (PUBACK, PUBREC, PUBREL, PUBCOMP, DISCONNECT, AUTH), f"not for a client: {data[:60]!r}"
    packet_id = 0
    if type_ < DISCONNECT:
        packet_id, body = int.from_bytes(body[:2], "big"), body[2:]
    properties, end = read_section(body, 1) if len(body) > 1 else ({}, len(body))
    assert end == len(body)
    return Came(type_, body[0] if body else 0, packet_id, properties, size=len(data))


def _parse_publish(flags: int, body: bytes, size: int) -> Came:
    topic, pos = _read_binary(body, 0)
    qos = flags >> 1 & 3
    packet_id = 0
    if qos:
        packet_id, pos = int.from_bytes(body[pos : pos + 2], "big"), pos + 2
    properties, pos = read_section(body, pos)
    return Came(
        PUBLISH, 0, packet_id, properties, (), False, topic.decode(), body[pos:],
        qos, bool(flags & 1), bool(flags & 8), size,
    )  # fmt: skip


class Client5(RawClient):
    """A connection to a broker, in MQTT 5.0."""

    connack: Came  #: of one that was made by `open`

    @classmethod
    def open(
        cls,
        address: Address | Path,
        client_id: str = "",
        properties: Properties = b"",
        *,
        clean: bool = True,
        present: bool = False,
        keep_alive: int = 0,
        username: str | None = None,
        password: bytes | None = None,
        will: Will5 | None = None,
    ) -> Self:
        """A client that has its CONNACK with code 0, and with Session Present as given."""
        client = cls(address)
        client.send(
            connect(
                client_id, properties, clean=clean, keep_alive=keep_alive,
                username=username, password=password, will=will,
            )
        )  # fmt: skip
        client.connack = client.want(CONNACK)
        assert client.connack.present == present, client.connack
        return client

    def came(self, timeout: float = DEADLINE) -> Came:
        """The next packet. Raises Closed, or TimeoutError."""
        return parse(self.next(timeout))

    def want(self, type_: int, reason: int = 0, timeout: float = DEADLINE) -> Came:
        """The next packet, which is one of this type with this reason code."""
        came = self.came(timeout)
        assert (came.type, came.reason) == (type_, reason), f"{came}: not type {type_}, reason {reason:#x}"
        return came

    def get(self, timeout: float = DEADLINE) -> Came:
        """The next packet, a PUBLISH. It is not acknowledged."""
        return self.want(PUBLISH, timeout=timeout)

    def take(self, timeout: float = DEADLINE) -> Came:
        """The next packet, a PUBLISH, acknowledged to its end."""
        came = self.get(timeout)
        if came.qos == 1:
            self.send(ack(PUBACK, came.packet_id))
        elif came.qos == 2:
            self.send(ack(PUBREC, came.packet_id))
            assert self.want(PUBREL).packet_id == came.packet_id
            self.send(ack(PUBCOMP, came.packet_id))
        return came

    def ask(self, *wanted: tuple[str, int], properties: Properties = b"") -> Came:
        """Subscribe; the SUBACK, which grants each. (What is retained comes behind it.)"""
        self.send(subscribe(*wanted, properties=properties))
        came = self.came()
        assert (came.type, came.reasons) == (SUBACK, tuple(options & 3 for _, options in wanted)), came
        return came

    def give(
        self,
        topic: str,
        payload: bytes = b"",
        qos: int = 1,
        properties: Properties = b"",
        *,
        retain: bool = False,
        packet_id: int = 1,
    ) -> int:
        """Publish, and wait until it is acknowledged to its end; the reason code of PUBACK or PUBREC."""
        self.send(publish(topic, payload, qos, properties, retain=retain, packet_id=packet_id))
        if not qos:
            return 0
        came = self.came()
        assert (came.type, came.packet_id) == (PUBACK if qos == 1 else PUBREC, packet_id), came
        if qos == 2 and came.reason < 0x80:
            self.send(ack(PUBREL, packet_id))
            self.want(PUBCOMP)
        return came.reason

    def told(self, timeout: float = DEADLINE) -> Came:
        """The broker ends the connection: its last word, a DISCONNECT (or CONNACK), behind which nothing comes."""
        came = self.came(timeout)
        assert came.type in (DISCONNECT, CONNACK), came
        assert self.closed(timeout) == b""
        return came
