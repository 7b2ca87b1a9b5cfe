"""The packets of a dialogue, for connections that speak MQTT 5.0.

Owns: which properties, reasons and options a fuzzer's bytes choose. Must not know: the broker, or what a dialogue is.

Where a choice is wrong (an alias that is not known, an identifier in a PUBLISH), that is as wanted: but most are right,
so that dialogues go on.
"""

from __future__ import annotations

from typing import Protocol, TypeVar

from tests.vectors import PINGREQ, PUBACK, PUBCOMP, PUBREC, PUBREL, length, number, string
from tests.vectors5 import (
    METHOD,
    ack5,
    auth5,
    connect5,
    disconnect5,
    four,
    publish5,
    section,
    subscribe5,
    unsubscribe5,
    user,
)

T = TypeVar("T")


#: Seconds: of sessions, messages and delays.
SECONDS = (0, 1, 5, 20, 100, 0xFFFFFFFF)
#: Filters that are for groups, beside those of MQTT 3.1.1.
SHARED = (b"$share/g/a/#", b"$share/g/#", b"$share/h/a/b", b"$queue/a", b"$share/g/+", b"$share/h/a/b")

PUBLISHED = (
    b"", b"", b"", b"\x23" + number(1), b"\x23" + number(2), b"\x02" + four(1), b"\x02" + four(20), b"\x02" + four(0),
    b"\x01\x01" + b"\x03" + string(b"text/plain"), user(b"n", b"v"), user(b"n", b"v") * 9 + b"\x02" + four(5),
    b"\x08" + string(b"a/b") + b"\x09" + string(b"\0\xff"), b"\x23" + number(9), b"\x0b\x01", b"\x08" + string(b"#"),
    b"\x03" + string(b"t" * 130) + b"\x23" + number(1),
)  # fmt: skip
CONNECTED = (
    b"", b"", b"\x11" + four(20), b"\x11" + four(5) + b"\x21" + number(1), b"\x11" + four(100) + b"\x22" + number(2),
    b"\x27" + four(60) + b"\x11" + four(30), b"\x11" + four(0xFFFFFFFF) + b"\x21" + number(2), b"\x27" + four(20),
    b"\x22" + number(65_535) + b"\x17\0", METHOD + b"\x16" + string(b"data"), b"\x11" + four(1) + b"\x19\x01",
    b"\x15" + string(b"other"), user(b"n", b"v") * 3, b"\x27" + four(2), b"\x11" + four(20) + METHOD,
    b"\x22" + number(1) + b"\x27" + four(40) + b"\x21" + number(1) + b"\x11" + four(9),
)  # fmt: skip
IDENTIFIERS = (b"", b"", b"\x0b\x01", b"\x0b\x7f", b"\x0b\xff\xff\xff\x7f", user(b"n", b"v"))
ACK_REASONS = (None, None, None, 0, 0x10, 0x80, 0x92, 0x97)
FAREWELLS = (None, 0, 4, 0, 4, 0x82, 0x01)
AUTHENTICATIONS = (0x18, 0x18, 0x19, 0x00, 0x19)


class Reader(Protocol):
    def byte(self) -> int: ...
    def pick(self, choices: tuple[T, ...]) -> T: ...


def said(
    act: str, reader: Reader, topics: tuple[bytes, ...], filters: tuple[bytes, ...], payloads: tuple[bytes, ...]
) -> bytes | None:
    """The packet of this act; None: MQTT 5.0 has none of its own."""
    if act == "publish":
        topic = reader.pick(topics)
        bits = reader.byte()
        qos = min(bits & 3, 2)
        properties = reader.pick(PUBLISHED)
        if bits & 0x40 and properties[:1] == b"\x23":
            topic = b""
        return publish5(
            topic, payloads[(bits >> 4) % len(payloads)], properties, qos=qos, dup=bool(qos and bits & 4),
            retain=bool(bits & 8), packet_id=1 + reader.byte() % 8 if qos else 0,
        )  # fmt: skip
    if act == "subscribe":
        count = 1 + reader.byte() % 3
        wanted = [(reader.pick(filters + SHARED), _options(reader.byte())) for _ in range(count)]
        return subscribe5(1 + reader.byte(), *wanted, properties=section(reader.pick(IDENTIFIERS)))
    if act == "unsubscribe":
        return unsubscribe5(1 + reader.byte(), reader.pick(filters + SHARED))
    if act == "acknowledge":
        first, packet_id, reason = reader.pick((PUBACK, PUBREC, PUBREL, PUBCOMP)), 1 + reader.byte() % 12, None
        reason = reader.pick(ACK_REASONS)
        if reason is None:
            return bytes((first, 2)) + number(packet_id)
        if first in (PUBREL, PUBCOMP):
            reason = min(reason, 0x92) if reason >= 0x92 else 0
        elif reason == 0x92:
            reason = 0x87
        return ack5(first, packet_id, reason, b"\x1f" + string(b"why") if packet_id & 1 else b"")
    if act == "ping":
        return PINGREQ
    if act == "disconnect":
        reason = reader.pick(FAREWELLS)
        expiry = reader.pick(SECONDS)
        if reason is None:
            return b"\xe0\x00"
        return disconnect5(reason, b"\x11" + four(expiry) if expiry else b"")
    if act == "authenticate":
        return auth5(reader.pick(AUTHENTICATIONS), METHOD, b"\x16" + string(b"more"))
    return None


def _options(byte: int) -> int:
    """QoS, No Local, Retain As Published, Retain Handling; now and then what is reserved."""
    options = byte & 0x3F
    if options & 3 == 3:
        options &= ~1
    if options & 0x30 == 0x30:
        options &= ~0x10
    return options | (0x40 if byte >= 0xFC else 0)


def greeting(name: bytes, clean: bool, choice: int) -> bytes:
    """The CONNECT of who has not said one of its own."""
    return connect5(name, CONNECTED[(0, 2, 4, 6)[choice % 4]], flags=2 if clean else 0, keep_alive=10)


def will(reader: Reader, topic: bytes, payload: bytes) -> bytes:
    """The fields of a will in a CONNECT."""
    delay = reader.pick(SECONDS)
    properties = (b"\x18" + four(delay) if delay else b"") + reader.pick((b"", b"\x02" + four(5), user(b"n", b"v")))
    return length(len(properties)) + properties + string(topic) + string(payload)
