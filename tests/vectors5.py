"""The table of tests.vectors, for MQTT 5.0: bytes that a client may send, and what a broker has to make of them.

Owns: every form of every packet, each property in each place, and the ways to get one wrong, with the reason code that
MQTT 5.0 asks for. It is data only, made with an encoder of its own that shares nothing with the broker's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from tests.vectors import (
    NOT_UTF_8,
    PINGREQ,
    PUBACK,
    PUBCOMP,
    PUBREC,
    PUBREL,
    UTF_8,
    WITH_NUL,
    length,
    number,
    packet,
    string,
)

MALFORMED, PROTOCOL, ALIAS, FILTER, TOPIC, QUOTA = 0x81, 0x82, 0x94, 0x8F, 0x90, 0x97


class Vector5(NamedTuple):
    """Bytes that a client of MQTT 5.0 sends (a CONNECT: as the first it sends)."""

    name: str
    data: bytes
    #: What the decoder makes of them (the shapes: broker.wire.packets); None: it raises ProtocolError at the first one.
    packets: tuple[tuple[Any, ...], ...] | None
    reason: int | None = None  #: of the error

    @property
    def is_connect(self) -> bool:
        return self.data[:1] != b"" and self.data[0] >> 4 == 1


# --- an encoder for tests ----------------------------------------------------------------------------------------


def four(value: int) -> bytes:
    return value.to_bytes(4, "big")


def section(*properties: bytes) -> bytes:
    """Properties with their length in front."""
    joined = b"".join(properties)
    return length(len(joined)) + joined


def user(name: bytes, value: bytes) -> bytes:
    return b"\x26" + string(name) + string(value)


def connect5(
    client_id: bytes = b"c",
    *properties: bytes,
    flags: int = 0x02,
    keep_alive: int = 60,
    will: bytes = b"",
    rest: bytes = b"",
) -> bytes:
    """`will`: its properties with their length, its topic and its message; `rest`: what stands behind that."""
    head = string(b"MQTT") + bytes((5, flags)) + number(keep_alive)
    return packet(0x10, head + section(*properties) + string(client_id) + will + rest)


def publish5(
    topic: bytes,
    payload: bytes = b"",
    *properties: bytes,
    qos: int = 0,
    packet_id: int = 0,
    dup: bool = False,
    retain: bool = False,
) -> bytes:
    middle = number(packet_id) if qos else b""
    return packet(0x30 | dup << 3 | qos << 1 | retain, string(topic) + middle + section(*properties) + payload)


def ack5(first: int, packet_id: int, reason: int, *properties: bytes) -> bytes:
    return packet(first, number(packet_id) + bytes((reason,)) + section(*properties))


def subscribe5(packet_id: int, *wanted: tuple[bytes, int], properties: bytes = b"\0") -> bytes:
    body = b"".join(string(topic_filter) + bytes((options,)) for topic_filter, options in wanted)
    return packet(0x82, number(packet_id) + properties + body)


def unsubscribe5(packet_id: int, *filters: bytes, properties: bytes = b"\0") -> bytes:
    return packet(0xA2, number(packet_id) + properties + b"".join(map(string, filters)))


def disconnect5(reason: int, *properties: bytes) -> bytes:
    return packet(0xE0, bytes((reason,)) + section(*properties))


def auth5(reason: int, *properties: bytes) -> bytes:
    return packet(0xF0, bytes((reason,)) + section(*properties))


METHOD = b"\x15" + string(b"SCRAM-SHA-256")

# --- properties --------------------------------------------------------------------------------------------------

#: A right value of each.
VALUES = {
    0x01: b"\x01",
    0x02: four(60),
    0x03: string(b"text/plain"),
    0x08: string(b"a/b"),
    0x09: string(b"\0\xff"),
    0x0B: b"\xff\xff\xff\x7f",
    0x11: four(10),
    0x12: string(b"id"),
    0x13: number(30),
    0x15: string(b"SCRAM-SHA-256"),
    0x16: string(b"\0\xff"),
    0x17: b"\0",
    0x18: four(5),
    0x19: b"\x01",
    0x1A: string(b"info"),
    0x1C: string(b"other"),
    0x1F: string(b"because"),
    0x21: number(1),
    0x22: number(0),
    0x23: number(1),
    0x24: b"\x01",
    0x25: b"\0",
    0x26: string(b"name") + string(b"value"),
    0x27: four(1),
    0x28: b"\0",
    0x29: b"\0",
    0x2A: b"\0",
}

#: Where a client may send it (MQTT 5.0, table 2-4).
_ACKS = ("PUBACK", "PUBREC", "PUBREL", "PUBCOMP")
PLACES = {
    0x01: ("PUBLISH", "will"),
    0x02: ("PUBLISH", "will"),
    0x03: ("PUBLISH", "will"),
    0x08: ("PUBLISH", "will"),
    0x09: ("PUBLISH", "will"),
    0x0B: ("SUBSCRIBE",),
    0x11: ("CONNECT", "DISCONNECT"),
    0x15: ("CONNECT", "AUTH"),
    0x16: ("CONNECT", "AUTH"),
    0x17: ("CONNECT",),
    0x18: ("will",),
    0x19: ("CONNECT",),
    0x1C: ("DISCONNECT",),
    0x1F: (*_ACKS, "DISCONNECT", "AUTH"),
    0x21: ("CONNECT",),
    0x22: ("CONNECT",),
    0x23: ("PUBLISH",),
    0x26: ("CONNECT", "will", "PUBLISH", *_ACKS, "SUBSCRIBE", "UNSUBSCRIBE", "DISCONNECT", "AUTH"),
    0x27: ("CONNECT",),
}

#: A packet that is right but for these properties, which come with their length.
IN_PLACE: dict[str, Callable[[bytes], bytes]] = {
    "CONNECT": lambda given: packet(0x10, string(b"MQTT") + b"\x05\x02\0\x3c" + given + string(b"c")),
    "will": lambda given: connect5(flags=0x06, will=given + string(b"w") + string(b"gone")),
    "PUBLISH": lambda given: packet(0x30, string(b"t") + given + b"x"),
    "PUBACK": lambda given: packet(PUBACK, number(1) + b"\0" + given),
    "PUBREC": lambda given: packet(PUBREC, number(1) + b"\0" + given),
    "PUBREL": lambda given: packet(PUBREL, number(1) + b"\0" + given),
    "PUBCOMP": lambda given: packet(PUBCOMP, number(1) + b"\0" + given),
    "SUBSCRIBE": lambda given: subscribe5(1, (b"a", 0), properties=given),
    "UNSUBSCRIBE": lambda given: unsubscribe5(1, b"a", properties=given),
    "DISCONNECT": lambda given: packet(0xE0, b"\0" + given),
    "AUTH": lambda given: packet(0xF0, b"\x18" + given),
}
#: Without these it is wrong whatever else is in it.
NEEDED = {"AUTH": METHOD}


def with_property(place: str, *properties: bytes) -> bytes:
    return IN_PLACE[place](section(NEEDED.get(place, b""), *properties))


def _good(name: str, data: bytes, *packets: tuple[Any, ...]) -> Vector5:
    return Vector5(name, data, packets)


def _bad(name: str, data: bytes, reason: int = MALFORMED) -> Vector5:
    return Vector5(name, data, None, reason)


def _wrong_properties() -> list[Vector5]:
    rows = []
    for place in IN_PLACE:
        for identifier, value in VALUES.items():
            label = f"{place}: property {identifier:#04x}"
            one = bytes((identifier,)) + value
            if identifier == 0x0B and place == "PUBLISH":
                rows.append(_bad(label, with_property(place, one), PROTOCOL))  # [MQTT-3.3.4-6]
                continue
            if place not in PLACES.get(identifier, ()):
                rows.append(_bad(label, with_property(place, one)))
                continue
            if identifier != 0x26:
                twice = with_property(place, one, user(b"a", b"b"), one)
                rows.append(_bad(f"{label} twice", twice, PROTOCOL))
            for size in range(len(value)):
                cut = bytes((identifier,)) + value[:size]
                if identifier == 0x0B and not size:
                    continue
                rows.append(_bad(f"{label} cut to {size} bytes", with_property(place, cut)))
            if identifier in (0x01, 0x17, 0x19):
                for wrong in (b"\x02", b"\x80", b"\xff"):
                    bad = bytes((identifier,)) + wrong
                    rows.append(_bad(f"{label} of {wrong.hex()}", with_property(place, bad), PROTOCOL))
            if identifier in (0x0B, 0x21, 0x23, 0x27):
                zero = bytes((identifier,)) + bytes(1 if identifier == 0x0B else len(value))
                reason = ALIAS if identifier == 0x23 else PROTOCOL  # [MQTT-3.3.2-8]
                rows.append(_bad(f"{label} of 0", with_property(place, zero), reason))
            if identifier in (0x03, 0x08, 0x15, 0x1C, 0x1F, 0x26):
                for problem, text in (NOT_UTF_8 | WITH_NUL).items():
                    # [MQTT-1.5.4-1] [MQTT-1.5.4-2] [MQTT-1.5.7-1]
                    for made in (user(text, b"v"), user(b"n", text)) if identifier == 0x26 else (string(text),):
                        bad = made if identifier == 0x26 else bytes((identifier,)) + made
                        rows.append(_bad(f"{label}: {problem}", with_property(place, bad)))
            if identifier == 0x08:
                for topic in (b"", b"#", b"a/#", b"a+", b"+/b"):
                    # [MQTT-3.3.2-14] [MQTT-4.7.3-1]
                    rows.append(_bad(f"{label}: {topic!r}", with_property(place, b"\x08" + string(topic)), PROTOCOL))
        for identifier in (0x00, 0x04, 0x0A, 0x10, 0x14, 0x1B, 0x2B, 0x7F, 0x80, 0xFF):
            rows.append(
                _bad(f"{place}: unknown property {identifier:#04x}", with_property(place, bytes((identifier,))))
            )
        # The identifier is a Variable Byte Integer, but each is of one byte [MQTT-1.5.5-1].
        rows.append(_bad(f"{place}: property 0x26 in two bytes", with_property(place, b"\xa6\0" + user(b"", b"")[1:])))
        plain = IN_PLACE[place]
        for label, given in {
            "nothing": b"",
            "80": b"\x80",
            "longer than the packet": b"\x7f",
            "8000": b"\x80\x00",
            "808000": b"\x80\x80\x00",
            "of five bytes": b"\x80\x80\x80\x80\x01",
            "268435455": b"\xff\xff\xff\x7f",
        }.items():
            if label == "nothing" and place in ("PUBLISH", *_ACKS, "DISCONNECT"):
                continue  # it is the short form, or the payload is taken for it
            reason = PROTOCOL if place == "AUTH" and label == "nothing" else MALFORMED
            rows.append(_bad(f"{place}: Property Length: {label}", plain(given), reason))
        if place in (*_ACKS, "DISCONNECT", "AUTH"):
            tail = section(NEEDED.get(place, b"")) + b"\0"
            rows.append(_bad(f"{place}: a byte behind the properties", plain(tail)))
        most, more = user(b"", b"") * 4096, user(b"", b"") * 4097
        rows.append(_bad(f"{place}: 4097 User Properties", with_property(place, more), QUOTA))
        if place not in ("CONNECT", "PUBLISH"):
            rows.append(Vector5(f"{place}: 4096 User Properties", with_property(place, most), _MEANT[place]))
    return rows


def connected5(client_id: str = "c", **told: Any) -> tuple[int, tuple[Any, ...]]:
    """A CONNECT as the decoder gives it."""
    said = {
        "clean": True, "keep_alive": 60, "will": None, "username": None, "password": None, "receive_maximum": 65_535,
        "session_expiry": 0, "max_packet_size": 0, "topic_alias_maximum": 0, "request_response": False,
        "request_problem": True, "auth_method": None, "auth_data": b"", "user_properties": (),
    }  # fmt: skip
    said |= told
    clean, keep_alive, will, username, password, *others = said.values()
    return 0x10, (5, client_id, clean, keep_alive, will, username, password, False, *others)


#: What is made of the packets of `IN_PLACE`, with properties that nobody keeps.
_MEANT: dict[str, tuple[tuple[Any, ...], ...]] = {
    "will": (connected5(will=(b"w", b"gone", 0, False, 0, None, user(b"", b"") * 4096)),),
    "PUBACK": ((PUBACK, 1, 0),),
    "PUBREC": ((PUBREC, 1, 0),),
    "PUBREL": ((PUBREL, 1, 0),),
    "PUBCOMP": ((PUBCOMP, 1, 0),),
    "SUBSCRIBE": ((0x82, 1, [(b"a", 0)], 0),),
    "UNSUBSCRIBE": ((0xA2, 1, [b"a"]),),
    "DISCONNECT": ((0xE0, 0, None),),
    "AUTH": ((0xF0, 0x18, "SCRAM-SHA-256", b""),),
}


def _connects() -> list[Vector5]:
    will = string(b"w/t") + string(b"w\0\xff")
    rows = [
        _good("CONNECT", connect5(), connected5()),
        _good("CONNECT: Clean Start 0", connect5(flags=0), connected5(clean=False)),
        # [MQTT-3.1.3-6]: with Clean Start 0, too
        _good("CONNECT: empty Client Identifier", connect5(b"", flags=0), connected5("", clean=False)),
        _good(
            "CONNECT: every property",
            connect5(
                b"c",
                b"\x11" + four(0xFFFFFFFF),
                b"\x21\0\x0a",
                b"\x27" + four(1000),
                b"\x22\0\x05",
                b"\x19\x01",
                b"\x17\0",
                user(b"a", b"1"),
                METHOD,
                b"\x16" + string(b"\0data"),
                user(b"a", b""),
            ),
            connected5(
                receive_maximum=10,
                session_expiry=0xFFFFFFFF,
                max_packet_size=1000,
                topic_alias_maximum=5,
                request_response=True,
                request_problem=False,
                auth_method="SCRAM-SHA-256",
                auth_data=b"\0data",
                user_properties=((b"a", b"1"), (b"a", b"")),
            ),
        ),
        _good("CONNECT: an empty method", connect5(b"c", b"\x15\0\0"), connected5(auth_method="")),
        _bad("CONNECT: data without a method", connect5(b"c", b"\x16" + string(b"x")), PROTOCOL),
        _good(
            "CONNECT: a will with every property",
            connect5(
                flags=0x36,
                will=section(
                    b"\x26" + string(b"z") + string(b"1"),
                    b"\x18" + four(7),
                    b"\x02" + four(9),
                    b"\x01\x01",
                    b"\x03" + string(b"text"),
                    b"\x08" + string(b"r"),
                    b"\x09" + string(b"\0"),
                    user(b"a", b"2"),
                )
                + will,
            ),
            connected5(
                will=(
                    b"w/t",
                    b"w\0\xff",
                    2,
                    True,
                    7,
                    9,
                    user(b"z", b"1")
                    + user(b"a", b"2")
                    + b"\x01\x01"
                    + b"\x03"
                    + string(b"text")
                    + b"\x08"
                    + string(b"r")
                    + b"\x09"
                    + string(b"\0"),
                )
            ),
        ),
        _good(
            "CONNECT: a will, a user name and a password",
            connect5(flags=0xC6, will=b"\0" + will, rest=string(b"u") + string(b"p\0\xff")),
            connected5(will=(b"w/t", b"w\0\xff", 0, False, 0, None, b""), username="u", password=b"p\0\xff"),
        ),
        # MQTT 3.1.1 forbids it (3.1.2.9).
        _good("CONNECT: a password alone", connect5(flags=0x42, rest=string(b"p")), connected5(password=b"p")),
        _bad("CONNECT: the reserved flag", connect5(flags=0x03)),  # [MQTT-3.1.2-3]
        _bad("CONNECT: will QoS 3", connect5(flags=0x1E, will=b"\0" + will)),  # [MQTT-3.1.2-12]
        _bad("CONNECT: will QoS without a will", connect5(flags=0x0A)),  # [MQTT-3.1.2-11]
        _bad("CONNECT: will retain without a will", connect5(flags=0x22)),  # [MQTT-3.1.2-13]
        _bad("CONNECT: a will without properties", connect5(flags=0x06, will=will)),  # [MQTT-3.1.2-9]
        _bad("CONNECT: a will without topic", connect5(flags=0x06, will=b"\0")),
        _bad("CONNECT: a will that is not announced", connect5(rest=b"\0" + will)),
        _bad("CONNECT: a user name that is not announced", connect5(rest=string(b"u"))),  # [MQTT-3.1.2-16]
        _bad("CONNECT: no user name", connect5(flags=0x82)),  # [MQTT-3.1.2-17]
        _bad("CONNECT: no password", connect5(flags=0x42)),  # [MQTT-3.1.2-19]
        _bad("CONNECT: a password that is not announced", connect5(flags=0x82, rest=string(b"u") * 2)),
        _bad("CONNECT: an empty will topic", connect5(flags=0x06, will=b"\0" + string(b"") * 2), TOPIC),
        _bad("CONNECT: a wildcard in the will topic", connect5(flags=0x06, will=b"\0" + string(b"a/#") * 2), TOPIC),
        _bad("CONNECT: header flags", b"\x11" + connect5()[1:]),  # [MQTT-2.1.3-1]
    ]
    for identifier in range(256):
        if identifier not in VALUES:
            continue
        value = VALUES[identifier]
        if "will" in PLACES.get(identifier, ()) and identifier not in (0x02, 0x18):
            one = bytes((identifier,)) + value
            rows.append(
                _good(
                    f"CONNECT: will with property {identifier:#04x}",
                    connect5(flags=0x06, will=section(one) + string(b"w") + string(b"")),
                    connected5(will=(b"w", b"", 0, False, 0, None, one)),
                )
            )
    body = connect5(flags=0xC6, will=b"\0" + will, rest=string(b"u") + string(b"p"))[2:]
    rows += [_bad(f"CONNECT: cut to {size} bytes", packet(0x10, body[:size])) for size in range(7, len(body))]
    rows.append(_bad("CONNECT: a byte too much", packet(0x10, body + b"\0")))
    for label, text in UTF_8.items():
        rows.append(_good(f"CONNECT: Client Identifier: {label}", connect5(text), connected5(text.decode())))
    for label, text in (NOT_UTF_8 | WITH_NUL).items():
        rows += [
            _bad(f"CONNECT: Client Identifier: {label}", connect5(text)),  # [MQTT-3.1.3-4]
            _bad(f"CONNECT: user name: {label}", connect5(flags=0x82, rest=string(text))),  # [MQTT-3.1.3-12]
            _bad(f"CONNECT: will topic: {label}", connect5(flags=0x06, will=b"\0" + string(text) + string(b""))),
        ]
    return rows


def _published(data: bytes, topic: bytes, payload: bytes, packet_id: int, told: Any) -> tuple[Any, ...]:
    return data[0], topic, data, len(data) - len(payload), packet_id, told


def _publishes() -> list[Vector5]:
    rows = []
    same_name = user(b"a", b"2") + user(b"a", b"1")
    kept = b"\x01\x01\x03" + string(b"text") + b"\x08" + string(b"r/t") + b"\x09" + string(b"\0\xff") + user(b"a", b"b")
    sections: dict[str, tuple[bytes, Any]] = {
        "no properties": (b"", None),
        "properties": (kept, (0, None, kept, True)),
        "an expiry": (b"\x02" + four(60), (0, 60, b"", False)),
        "an expiry of 0": (b"\x02" + four(0), (0, 0, b"", False)),
        "an alias": (b"\x23\0\x07", (7, None, b"", False)),
        "an expiry first": (b"\x02" + four(60) + kept, (0, 60, kept, False)),
        "an expiry within": (
            kept + b"\x02\xff\xff\xff\xff" + user(b"a", b"c"),
            (0, 0xFFFFFFFF, kept + user(b"a", b"c"), False),
        ),
        "an alias and an expiry": (
            user(b"1", b"") + b"\x23\xff\xff" + user(b"2", b"") + b"\x02" + four(1) + user(b"3", b""),
            (65_535, 1, user(b"1", b"") + user(b"2", b"") + user(b"3", b""), False),
        ),
        "the same name twice": (same_name, (0, None, same_name, True)),
        "120 bytes": (user(b"n" * 50, b"v" * 65), (0, None, user(b"n" * 50, b"v" * 65), True)),
        "300 bytes": (user(b"n" * 5, b"v" * 290), (0, None, user(b"n" * 5, b"v" * 290), True)),
        "100,000 bytes": (user(b"n" * 50_000, b"v" * 50_000), (0, None, user(b"n" * 50_000, b"v" * 50_000), True)),
    }  # fmt: skip
    for label, (given, told) in sections.items():
        for qos, packet_id in ((0, 0), (1, 1), (2, 0x0102)):
            for payload in (b"", b"\0", b"hello" * 30):
                for dup, retain in ((False, False), (bool(qos), True)):
                    data = publish5(b"a/b", payload, given, qos=qos, packet_id=packet_id, dup=dup, retain=retain)
                    name = f"PUBLISH: {label}, QoS {qos}, retain {retain:d}, {len(payload)} bytes"
                    rows.append(_good(name, data, _published(data, b"a/b", payload, packet_id, told)))
    for qos in (0, 1, 2):
        data = publish5(b"", b"x", b"\x23\0\x07", qos=qos, packet_id=9)
        told = (7, None, b"", False)
        rows.append(
            _good(f"PUBLISH: QoS {qos}, an alias alone", data, _published(data, b"", b"x", 9 if qos else 0, told))
        )
        first = 0x30 | qos << 1
        middle = number(9) if qos else b""
        rows += [
            _bad(f"PUBLISH: QoS {qos}, neither topic nor alias", publish5(b"", b"x", qos=qos, packet_id=9), PROTOCOL),
            _bad(
                f"PUBLISH: QoS {qos}, no topic, but properties",
                publish5(b"", b"x", user(b"a", b"b"), qos=qos, packet_id=9),
                PROTOCOL,
            ),
            _bad(f"PUBLISH: QoS {qos}, empty", packet(first)),
            _bad(f"PUBLISH: QoS {qos}, half a length", packet(first, b"\0")),
            _bad(f"PUBLISH: QoS {qos}, no Property Length", packet(first, string(b"t") + middle)),
            _bad(f"PUBLISH: QoS {qos}, cut within the topic", packet(first, b"\0\x05abc")),
            _bad(f"PUBLISH: QoS {qos}, a topic that is not there", packet(first, b"\xff\xff")),
            _bad(f"PUBLISH: QoS {qos}, long properties", packet(first, string(b"t") + middle + b"\2\1")),
            _bad(
                f"PUBLISH: QoS {qos}, they would go on in the next packet",
                packet(first, string(b"t") + middle + b"\2\1") + PINGREQ,
            ),
        ]  # fmt: skip
        if qos:
            rows.append(_bad(f"PUBLISH: QoS {qos}, id 0", publish5(b"t", b"x", qos=qos), PROTOCOL))  # [MQTT-2.2.1-3]
            rows.append(_bad(f"PUBLISH: QoS {qos}, no id", packet(first, string(b"t"))))
            rows.append(_bad(f"PUBLISH: QoS {qos}, half an id", packet(first, string(b"t") + b"\1")))
    rows += [
        _bad("PUBLISH: DUP at QoS 0", publish5(b"a", dup=True)),  # [MQTT-3.3.1-2]
        *(_bad(f"PUBLISH: QoS 3, {first:#x}", packet(first, b"\0\1a\0\1\0")) for first in (0x36, 0x37, 0x3E, 0x3F)),
    ]
    return rows


def _acknowledgements() -> list[Vector5]:
    rows = []
    of_publish, of_release = (0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99), (0x00, 0x92)
    for name, first, reasons in (
        ("PUBACK", PUBACK, of_publish),
        ("PUBREC", PUBREC, of_publish),
        ("PUBREL", PUBREL, of_release),
        ("PUBCOMP", PUBCOMP, of_release),
    ):
        for packet_id in (1, 0x0102, 65_535):
            rows.append(_good(f"{name}: id {packet_id}", packet(first, number(packet_id)), (first, packet_id, 0)))
        for reason in range(256):
            three = packet(first, number(7) + bytes((reason,)))
            if reason in reasons:
                rows += [
                    _good(f"{name}: reason {reason:#04x} in 3 bytes", three, (first, 7, reason)),
                    _good(f"{name}: reason {reason:#04x} in 4", ack5(first, 7, reason), (first, 7, reason)),
                ]
            else:  # [MQTT-3.4.2-1] [MQTT-3.5.2-1] [MQTT-3.6.2-1] [MQTT-3.7.2-1]
                rows.append(_bad(f"{name}: reason {reason:#04x}", three, PROTOCOL))
        said = ack5(first, 7, reasons[-1], b"\x1f" + string(b"x" * 200), user(b"a", b"b"), user(b"a", b"b"))
        rows += [
            _good(f"{name}: a Reason String", said, (first, 7, reasons[-1])),
            _bad(f"{name}: id 0", packet(first, number(0)), PROTOCOL),
            _bad(f"{name}: empty", packet(first)),
            _bad(f"{name}: half an id", packet(first, b"\1")),
        ]
    return rows


def _subscriptions() -> list[Vector5]:
    rows = []
    for options in range(256):
        data = subscribe5(1, (b"a", 0), (b"b/#", options))
        name = f"SUBSCRIBE: options {options:08b}"
        if options & 0xC0:
            rows.append(_bad(name, data))  # [MQTT-3.8.3-5]
        elif options & 3 == 3 or options & 0x30 == 0x30:
            rows.append(_bad(name, data, PROTOCOL))
        else:
            rows.append(_good(name, data, (0x82, 1, [(b"a", 0), (b"b/#", options)], 0)))
    for identifier, written in ((1, b"\1"), (127, b"\x7f"), (128, b"\x80\1"), (268_435_455, b"\xff\xff\xff\x7f")):
        data = subscribe5(2, (b"a", 1), properties=section(user(b"n", b"v"), b"\x0b" + written))
        rows.append(_good(f"SUBSCRIBE: identifier {identifier}", data, (0x82, 2, [(b"a", 1)], identifier)))
    for written in (b"\x80\x00", b"\x81\x00", b"\xff\xff\xff\xff\x7f", b"\x80\x80\x80\x80\x01"):
        # [MQTT-1.5.5-1]
        rows.append(
            _bad(
                f"SUBSCRIBE: identifier {written.hex()}",
                subscribe5(2, (b"a", 1), properties=section(b"\x0b" + written)),
            )
        )
    rows += [
        _good("SUBSCRIBE: a share", subscribe5(1, (b"$share/g/a/#", 0x29)), (0x82, 1, [(b"$share/g/a/#", 0x29)], 0)),
        _bad("SUBSCRIBE: a share with No Local", subscribe5(1, (b"$share/g/a", 0x04)), PROTOCOL),  # [MQTT-3.8.3-4]
        _good("SUBSCRIBE: $share", subscribe5(1, (b"$share", 4)), (0x82, 1, [(b"$share", 4)], 0)),
        _good("SUBSCRIBE: $shared/g/a", subscribe5(1, (b"$shared/g/a", 4)), (0x82, 1, [(b"$shared/g/a", 4)], 0)),
        _bad("SUBSCRIBE: id 0", subscribe5(0, (b"a", 0)), PROTOCOL),
        _bad("SUBSCRIBE: no filter", subscribe5(1), PROTOCOL),  # [MQTT-3.8.3-2]
        _bad("SUBSCRIBE: empty", packet(0x82)),
        _bad("SUBSCRIBE: half an id", packet(0x82, b"\1")),
        _bad("SUBSCRIBE: no options", packet(0x82, number(1) + b"\0" + string(b"a"))),
        _bad("SUBSCRIBE: filter longer than the packet", packet(0x82, number(1) + b"\0\0\x05ab\0")),
        _good("UNSUBSCRIBE", unsubscribe5(1, b"a"), (0xA2, 1, [b"a"])),
        _good("UNSUBSCRIBE: two", unsubscribe5(1, b"a", b"$share/g/#"), (0xA2, 1, [b"a", b"$share/g/#"])),
        _bad("UNSUBSCRIBE: id 0", unsubscribe5(0, b"a"), PROTOCOL),
        _bad("UNSUBSCRIBE: no filter", unsubscribe5(1), PROTOCOL),  # [MQTT-3.10.3-2]
        _bad("UNSUBSCRIBE: a byte too much", packet(0xA2, number(1) + b"\0" + string(b"a") + b"\0")),
    ]  # fmt: skip
    for wrong in (b"$share/", b"$share/g", b"$share/g/", b"$share//a", b"$share/+/a", b"$share/#"):
        # [MQTT-4.8.2-1] [MQTT-4.8.2-2]
        rows.append(_bad(f"SUBSCRIBE: {wrong!r}", subscribe5(1, (wrong, 0)), FILTER))
    for wrong in (b"", b"a#", b"#/a", b"a/#/b", b"a+", b"+a/b", b"$share/g/a#", b"$share/g+/a"):
        rows.append(_bad(f"SUBSCRIBE: filter {wrong!r}", subscribe5(1, (wrong, 0)), FILTER))
        rows.append(_bad(f"UNSUBSCRIBE: filter {wrong!r}", unsubscribe5(1, wrong), FILTER))
    for label, text in (NOT_UTF_8 | WITH_NUL).items():
        rows.append(_bad(f"SUBSCRIBE: filter: {label}", subscribe5(1, (text, 0))))  # [MQTT-3.8.3-1]
        rows.append(_bad(f"UNSUBSCRIBE: filter: {label}", unsubscribe5(1, text)))  # [MQTT-3.10.3-1]
    return rows


def _small() -> list[Vector5]:
    disconnects = {
        0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8C, 0x8D, 0x8E, 0x8F, 0x90, 0x93, 0x94, 0x95, 0x96,
        0x97, 0x98, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9E, 0x9F, 0xA0, 0xA1, 0xA2,
    }  # fmt: skip
    rows = [
        _good("PINGREQ", PINGREQ, (0xC0,)),
        _bad("PINGREQ: with a payload", packet(0xC0, b"\0")),
        _good("DISCONNECT: 0 bytes", packet(0xE0), (0xE0, 0, None)),
        _good("DISCONNECT: an expiry", disconnect5(0, b"\x11" + four(0)), (0xE0, 0, 0)),
        _good(
            "DISCONNECT: everything",
            disconnect5(4, b"\x11" + four(0xFFFFFFFF), b"\x1f" + string(b"x"), user(b"a", b"b")),
            (0xE0, 4, 0xFFFFFFFF),
        ),
        _good("AUTH", auth5(0x18, METHOD, b"\x16" + string(b"\0x")), (0xF0, 0x18, "SCRAM-SHA-256", b"\0x")),
        _good("AUTH: no data", auth5(0x19, METHOD), (0xF0, 0x19, "SCRAM-SHA-256", b"")),
        _bad("AUTH: empty", packet(0xF0), PROTOCOL),
        _bad("AUTH: a reason alone", packet(0xF0, b"\x18"), PROTOCOL),
        _bad("AUTH: no method", auth5(0x18), PROTOCOL),
        _bad("AUTH: data without a method", auth5(0x18, b"\x16" + string(b"x")), PROTOCOL),
    ]
    for reason in range(256):
        data = packet(0xE0, bytes((reason,)))
        if reason in disconnects:
            rows.append(_good(f"DISCONNECT: reason {reason:#04x}", data, (0xE0, reason, None)))
            rows.append(_good(f"DISCONNECT: reason {reason:#04x}, long", disconnect5(reason), (0xE0, reason, None)))
        else:
            rows.append(_bad(f"DISCONNECT: reason {reason:#04x}", data, PROTOCOL))  # [MQTT-3.14.2-1]
        if reason not in (0x18, 0x19):
            rows.append(_bad(f"AUTH: reason {reason:#04x}", auth5(reason, METHOD), PROTOCOL))  # [MQTT-3.15.2-1]
    right = {1: 0, 4: 0, 5: 0, 6: 2, 7: 0, 8: 2, 10: 2, 12: 0, 14: 0, 15: 0}
    for kind in range(16):
        for flags in range(16):
            if kind not in (1, 3) and right.get(kind) != flags:
                reason = PROTOCOL if kind in (2, 9, 11, 13) else MALFORMED  # [MQTT-2.1.3-1]
                rows.append(_bad(f"packet {kind}: flags {flags:04b}", packet(kind << 4 | flags, b"\0\1\0"), reason))
    for size in (4, 127, 128, 16_383, 16_384, 2_097_152):
        payload = b"x" * (size - 4)
        data = packet(0x30, string(b"t") + b"\0" + payload)
        rows.append(_good(f"Remaining Length {size}", data, _published(data, b"t", payload, 0, None)))
    for written in (b"\x80\x00", b"\x86\x00", b"\x86\x80\x00", b"\x86\x80\x80\x00"):
        rows.append(_bad(f"Remaining Length {written.hex()}", b"\x30" + written + b"\0\1t\0xy"))  # [MQTT-1.5.5-1]
    rows.append(_bad("Remaining Length of five bytes", b"\x30\x80\x80\x80\x80\x01"))
    rows += [
        _good("nothing", b""),
        _good("half a header", b"\xf0"),
        _good("half a packet", auth5(0x18, METHOD)[:-1]),
        _good("two packets", PINGREQ + packet(PUBACK, number(1)), (0xC0,), (0x40, 1, 0)),
    ]
    return rows


VECTORS5: tuple[Vector5, ...] = tuple(
    _wrong_properties() + _connects() + _publishes() + _acknowledgements() + _subscriptions() + _small()
)
