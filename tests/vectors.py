"""One table of what may stand on the wire: bytes, and what a broker has to make of them.

Owns: every form of every packet of MQTT 3.1.1 and 3.1 that a client may send, and every way found so far to get one
wrong. It is data only, made with an encoder of its own that shares nothing with the broker's.

`VECTORS` is all of it, `VALID` what a broker takes, `MALFORMED` what ends the connection, without an answer but for
those with a `code`. `over_socket` tells what has to be sent first for a vector to arrive in the state it is meant for.
"""

from typing import Any, NamedTuple

MQTT_3_1 = 3
MQTT_3_1_1 = 4


class Vector(NamedTuple):
    """Bytes that a client sends over a connection of this version (a CONNECT: as the first it sends)."""

    name: str
    data: bytes
    version: int
    #: What the decoder makes of them (the shapes: broker.wire.packets); None: it raises ProtocolError at the first
    #: packet. An empty tuple: what has come is no whole packet yet.
    packets: tuple[tuple[Any, ...], ...] | None
    #: The return code of the CONNACK that is owed before the connection ends; None: it ends without a word.
    code: int | None = None
    #: Whether a broker must end the connection upon it, other than by DISCONNECT. The decoder lets through what is
    #: found out only when a topic is looked up, and what the order of packets forbids.
    malformed: bool = False

    @property
    def is_connect(self) -> bool:
        return self.data[:1] != b"" and self.data[0] >> 4 == 1

    @property
    def asks_for_5(self) -> bool:
        """Is it a CONNECT of MQTT 5.0? A broker that does not take that says so in its words."""
        return b"\0\4MQTT\5" in self.data[:12]


# --- an encoder for tests ----------------------------------------------------------------------------------------


def length(value: int) -> bytes:
    """A Remaining Length, as short as possible (section 2.2.3)."""
    out = []
    while True:
        value, digit = divmod(value, 128)
        out.append(digit | (128 if value else 0))
        if not value:
            return bytes(out)


def packet(first: int, body: bytes = b"") -> bytes:
    return bytes((first,)) + length(len(body)) + body


def string(text: bytes) -> bytes:
    return bytes((len(text) >> 8, len(text) & 255)) + text


def number(value: int) -> bytes:
    return bytes((value >> 8, value & 255))


def connect(
    client_id: bytes = b"c",
    *,
    flags: int = 0x02,
    keep_alive: int = 60,
    name: bytes = b"MQTT",
    level: int = MQTT_3_1_1,
    rest: bytes = b"",
) -> bytes:
    """A CONNECT; `rest` is what stands behind the Client Identifier."""
    return packet(0x10, string(name) + bytes((level, flags)) + number(keep_alive) + string(client_id) + rest)


def connect_3_1(client_id: bytes = b"c", *, flags: int = 0x02, keep_alive: int = 60, rest: bytes = b"") -> bytes:
    return connect(client_id, flags=flags, keep_alive=keep_alive, name=b"MQIsdp", level=MQTT_3_1, rest=rest)


def publish(
    topic: bytes, payload: bytes = b"", *, qos: int = 0, packet_id: int = 0, dup: bool = False, retain: bool = False
) -> bytes:
    first = 0x30 | dup << 3 | qos << 1 | retain
    return packet(first, string(topic) + (number(packet_id) if qos else b"") + payload)


def subscribe(packet_id: int, *wanted: tuple[bytes, int]) -> bytes:
    body = b"".join(string(topic_filter) + bytes((qos,)) for topic_filter, qos in wanted)
    return packet(0x82, number(packet_id) + body)


def unsubscribe(packet_id: int, *filters: bytes) -> bytes:
    return packet(0xA2, number(packet_id) + b"".join(map(string, filters)))


PUBACK, PUBREC, PUBREL, PUBCOMP = 0x40, 0x50, 0x62, 0x70
PINGREQ = b"\xc0\x00"
DISCONNECT = b"\xe0\x00"


# --- texts -------------------------------------------------------------------------------------------------------

#: Sequences that are not UTF-8, each for a reason of its own [MQTT-1.5.3-1].
NOT_UTF_8 = {
    "continuation byte alone": b"\x80",
    "last continuation byte alone": b"\xbf",
    "start without continuation": b"\xc3",
    "start with a letter behind": b"\xc3(",
    "two of three bytes": b"\xe2\x82",
    "three of four bytes": b"\xf0\x9f\x98",
    "three bytes broken by a letter": b"\xe2(\xac",
    "overlong NUL": b"\xc0\x80",
    "overlong slash": b"\xc0\xaf",
    "overlong in two bytes, last": b"\xc1\xbf",
    "overlong in three bytes, first": b"\xe0\x80\x80",
    "overlong in three bytes, last": b"\xe0\x9f\xbf",
    "overlong in four bytes, first": b"\xf0\x80\x80\x80",
    "overlong in four bytes, last": b"\xf0\x8f\xbf\xbf",
    "U+D800": b"\xed\xa0\x80",
    "U+DBFF": b"\xed\xaf\xbf",
    "U+DC00": b"\xed\xb0\x80",
    "U+DFFF": b"\xed\xbf\xbf",
    "a pair of surrogates": b"\xed\xa0\xbd\xed\xb8\x80",
    "U+110000": b"\xf4\x90\x80\x80",
    "above U+110000": b"\xf5\x80\x80\x80",
    "a start of five bytes": b"\xf8\x88\x80\x80\x80",
    "a start of six bytes": b"\xfc\x84\x80\x80\x80\x80",
    "FE": b"\xfe",
    "FF": b"\xff",
    "UTF-16": b"\xff\xfea\x00",
}

#: Texts at the edges of what is allowed; nothing of them may be changed [MQTT-1.5.3-3] [MQTT-4.7.3-4].
UTF_8 = {
    "one letter": b"a",
    "two bytes": "é".encode(),
    "a letter and its accent apart": b"e\xcc\x81",
    "three bytes": "€".encode(),
    "four bytes": "😀".encode(),
    "U+0001": b"\x01",
    "U+001F": b"\x1f",
    "U+007F": b"\x7f",
    "U+0080": b"\xc2\x80",
    "U+009F": b"\xc2\x9f",
    "U+07FF": b"\xdf\xbf",
    "U+0800": b"\xe0\xa0\x80",
    "U+D7FF": b"\xed\x9f\xbf",
    "U+E000": b"\xee\x80\x80",
    "U+FDD0, no character": b"\xef\xb7\x90",
    "U+FFFF, no character": b"\xef\xbf\xbf",
    "U+10000": b"\xf0\x90\x80\x80",
    "U+10FFFF": b"\xf4\x8f\xbf\xbf",
    "byte-order mark in front": b"\xef\xbb\xbfa",
    "byte-order mark alone": b"\xef\xbb\xbf",
    "byte-order mark within": b"a\xef\xbb\xbfb",
    "spaces": b" a b ",
    "line ends": b"a\r\nb",
    "65535 bytes": b"a" * 65_535,
}

#: NUL, in every place [MQTT-1.5.3-2].
WITH_NUL = {"NUL": b"\0", "NUL in front": b"\0a", "NUL within": b"a\0b", "NUL at the end": b"a\0"}

_BAD_FILTERS = {
    "empty filter": b"",  # [MQTT-4.7.3-1]
    "# behind a name": b"sport#",  # [MQTT-4.7.1-2]
    "# before a name": b"#sport",
    "# before a level": b"#/sport",
    "# within": b"sport/#/ranking",
    "##": b"##",
    "#/": b"#/",
    "#/#": b"#/#",
    "+#": b"+#",
    "#+": b"#+",
    "+ behind a name": b"sport+",  # [MQTT-4.7.1-3]
    "+ before a name": b"+sport",
    "+ within a level": b"a/b+c/d",
    "++": b"a/++",
}

_GOOD_FILTERS = {
    "#": b"#",
    "+": b"+",
    "/": b"/",
    "//": b"//",
    "/#": b"/#",
    "+/#": b"+/#",
    "+/+": b"+/+",
    "a/+/b/#": b"a/+/b/#",
    "$SYS/#": b"$SYS/#",
    "$": b"$",
    "$share/g/a": b"$share/g/a",  # an ordinary name in MQTT 3.1.1: it is no matter of bytes that it is refused
}

_BAD_TOPICS = {
    "empty topic": b"",  # [MQTT-4.7.3-1]
    "#": b"#",  # [MQTT-3.3.2-2] [MQTT-4.7.1-1]
    "+": b"+",
    "a/#": b"a/#",
    "a/+/b": b"a/+/b",
    "# within a name": b"a#b",
    "+ within a name": b"a+b",
}


# --- the table ---------------------------------------------------------------------------------------------------


def _good(name: str, data: bytes, *packets: tuple[Any, ...], version: int = MQTT_3_1_1) -> Vector:
    return Vector(name, data, version, packets)


def _bad(name: str, data: bytes, code: int | None = None, *, version: int = MQTT_3_1_1) -> Vector:
    return Vector(name, data, version, None, code, True)


def _later(name: str, data: bytes, *packets: tuple[Any, ...], version: int = MQTT_3_1_1) -> Vector:
    """The decoder takes it, the broker does not."""
    return Vector(name, data, version, packets, None, True)


def _both(vectors: list[Vector]) -> list[Vector]:
    """The same for MQTT 3.1."""
    return vectors + [row._replace(name=f"3.1: {row.name}", version=MQTT_3_1) for row in vectors]


def _published(data: bytes, topic: bytes, payload: bytes, packet_id: int = 0) -> tuple[Any, ...]:
    return data[0], topic, data, len(data) - len(payload), packet_id


_Will = tuple[bytes, bytes, int, bool]

#: What a CONNECT says in MQTT 5.0 only, as it is meant where it is left out.
_MQTT_5_LEFT_OUT = (65_535, 0, 0, 0, False, True, None, b"", ())


def _connected(
    client_id: str = "c",
    *,
    clean: bool = True,
    keep_alive: int = 60,
    will: _Will | None = None,
    username: str | None = None,
    password: bytes | None = None,
    version: int = MQTT_3_1_1,
    bridge: bool = False,
) -> tuple[int, tuple[Any, ...]]:
    told = None if will is None else (*will, 0, None, b"")
    return 0x10, (version, client_id, clean, keep_alive, told, username, password, bridge, *_MQTT_5_LEFT_OUT)


def _connects() -> list[Vector]:
    rows = [
        _good("CONNECT", connect(), _connected()),
        _good("CONNECT: CleanSession 0", connect(flags=0), _connected(clean=False)),
        _good("CONNECT: keep alive 0", connect(keep_alive=0), _connected(keep_alive=0)),
        _good("CONNECT: keep alive 65535", connect(keep_alive=65_535), _connected(keep_alive=65_535)),
        _good("CONNECT: keep alive, order of its bytes", connect(keep_alive=0x0102), _connected(keep_alive=258)),
        # Whether an empty one is accepted is not the codec's affair [MQTT-3.1.3-6].
        _good("CONNECT: empty Client Identifier", connect(b""), _connected("")),
        _good("CONNECT: 23 bytes of Client Identifier", connect(b"0aZ" * 7 + b"zz"), _connected("0aZ" * 7 + "zz")),
        _good("CONNECT: wildcards in the Client Identifier", connect(b"a/+/#"), _connected("a/+/#")),
        # 3.1.2.1, 3.1.2.2
        _bad("CONNECT: level 0", connect(level=0), 1),
        _bad("CONNECT: MQTT with the level of 3.1", connect(level=3), 1),
        _bad("CONNECT: level 5", connect(level=5), 1),
        _bad("CONNECT: level 6", connect(level=6), 1),
        _bad("CONNECT: level 255", connect(level=255), 1),
        _good("CONNECT: the level of a Mosquitto bridge", connect(level=0x84), _connected(bridge=True)),
        _bad("CONNECT: level 5 of a Mosquitto bridge", connect(level=0x85), 1),
        _bad("CONNECT: MQTT with the level of 3.1 of a Mosquitto bridge", connect(level=0x83), 1),
        _bad("CONNECT: MQIsdp with the level of 3.1.1", connect(name=b"MQIsdp", level=4), 1),
        # Nothing behind an unknown level is looked at: MQTT 5.0 lays it out differently [MQTT-3.1.2-2].
        _bad("CONNECT: MQTT 5.0", packet(0x10, string(b"MQTT") + b"\x05\x02\x00\x3c\x05\x11\0\0\0\x0a\0\0"), 1),
        _bad("CONNECT: nothing behind an unknown level", packet(0x10, string(b"MQTT") + b"\x07"), 1),
        _bad("CONNECT: reserved flag at an unknown level", connect(level=5, flags=1), 1),
    ]
    for name in (b"", b"M", b"mqtt", b"Mqtt", b"MQT", b"MQTTT", b"MQTT ", b"MQTT\0", b"mqisdp", b"MQISDP", b"HTTP"):
        rows.append(_bad(f"CONNECT: protocol name {name!r}", connect(name=name)))  # [MQTT-3.1.2-1]
    rows.append(_bad("CONNECT: protocol name that is not UTF-8", connect(name=b"MQ\xff\xff")))
    rows.append(_bad("CONNECT: protocol name of 65535 bytes", connect(name=b"M" * 65_535)))

    # Every value of the connect flags, with the fields that it calls for (section 3.1.2.3 to 3.1.2.9).
    fields = string(b"w/t"), string(b"w\0\xff"), string(b"u"), string(b"p\0\xff")
    for make, version in ((connect, MQTT_3_1_1), (connect_3_1, MQTT_3_1)):
        for flags in range(256):
            rest = b""
            if flags & 0x04:
                rest += fields[0] + fields[1]
            if flags & 0x80:
                rest += fields[2]
            if flags & 0x40:
                rest += fields[3]
            data = make(flags=flags, rest=rest)
            label = f"CONNECT: flags {flags:08b}" if version == MQTT_3_1_1 else f"3.1: CONNECT: flags {flags:08b}"
            # MQTT 3.1 does not use the first, and disregards the second without a will.
            reserved = flags & 0x01 and version == MQTT_3_1_1  # [MQTT-3.1.2-3]
            # [MQTT-3.1.2-11] [MQTT-3.1.2-13] [MQTT-3.1.2-15]
            orphans = not flags & 0x04 and flags & 0x38 and version == MQTT_3_1_1
            qos_3 = flags & 0x18 == 0x18 and (flags & 0x04 or version == MQTT_3_1_1)  # [MQTT-3.1.2-14]
            nameless = flags & 0xC0 == 0x40  # [MQTT-3.1.2-22]
            if reserved or orphans or qos_3 or nameless:
                rows.append(_bad(label, data, version=version))
                continue
            will = (b"w/t", b"w\0\xff", flags >> 3 & 3, bool(flags & 0x20)) if flags & 0x04 else None
            meaning = _connected(
                clean=bool(flags & 0x02),
                will=will,
                username="u" if flags & 0x80 else None,
                password=b"p\0\xff" if flags & 0x40 else None,
                version=version,
            )
            rows.append(_good(label, data, meaning, version=version))

    # Fields that lack, fields that nobody announced, fields that are cut.
    full = connect(flags=0xC6, rest=b"".join(fields))
    body = full[2:]
    for size in range(len(body)):
        rows.append(_bad(f"CONNECT: with all fields, cut to {size} bytes", packet(0x10, body[:size])))
    rows.append(_bad("CONNECT: a byte too much", packet(0x10, body + b"\0")))
    rows.append(_bad("CONNECT: a field too much", packet(0x10, body + string(b"x"))))
    rows += [
        _bad("CONNECT: user name without its flag", connect(rest=string(b"u"))),  # [MQTT-3.1.2-18]
        _bad("CONNECT: password without its flag", connect(flags=0x82, rest=fields[2] + fields[3])),  # [MQTT-3.1.2-20]
        _bad("CONNECT: will without its flag", connect(rest=fields[0] + fields[1])),  # [MQTT-3.1.2-11]
        _bad("CONNECT: will flag without will", connect(flags=0x06)),  # [MQTT-3.1.2-9]
        _bad("CONNECT: will flag without will message", connect(flags=0x06, rest=fields[0])),
        _bad("CONNECT: user name flag without user name", connect(flags=0x82)),  # [MQTT-3.1.2-19]
        _bad("CONNECT: password flag without password", connect(flags=0xC2, rest=fields[2])),  # [MQTT-3.1.2-21]
        _bad("CONNECT: no Client Identifier", packet(0x10, string(b"MQTT") + b"\x04\x02\0\x3c")),  # [MQTT-3.1.3-3]
        _bad("CONNECT: nothing", packet(0x10)),
        _good(
            "CONNECT: empty user name and password",
            connect(flags=0xC2, rest=string(b"") * 2),
            _connected(username="", password=b""),
        ),
        _good(
            "CONNECT: empty will message",
            connect(flags=0x06, rest=fields[0] + string(b"")),
            _connected(will=(b"w/t", b"", 0, False)),
        ),
        _bad("CONNECT: empty will topic", connect(flags=0x06, rest=string(b"") + fields[1])),
        _bad("CONNECT: Client Identifier longer than the packet", packet(0x10, body[:10] + b"\xff\xffc")),
        _bad("CONNECT: user name longer than the packet", connect(flags=0x82, rest=b"\0\x02u")),
        _good(
            "CONNECT: the largest there is",
            connect(b"c" * 65_535, flags=0xC6, rest=string(b"f" * 65_535) * 4),
            _connected(
                "c" * 65_535,
                will=(b"f" * 65_535, b"f" * 65_535, 0, False),
                username="f" * 65_535,
                password=b"f" * 65_535,
            ),
        ),
    ]

    # MQTT 3.1: these two flags may be set with the fields left away.
    old = [
        _good("CONNECT", connect_3_1(), _connected(version=3)),
        _good("CONNECT: user name flag without user name", connect_3_1(flags=0x82), _connected(version=3)),
        _good("CONNECT: both flags without the fields", connect_3_1(flags=0xC2), _connected(version=3)),
        _good(
            "CONNECT: password flag without password",
            connect_3_1(flags=0xC2, rest=string(b"u")),
            _connected(username="u", version=3),
        ),
        _good(
            "CONNECT: both flags without the fields, behind a will",
            connect_3_1(flags=0xC6, rest=fields[0] + fields[1]),
            _connected(will=(b"w/t", b"w\0\xff", 0, False), version=3),
        ),
        _good("CONNECT: 24 bytes of Client Identifier", connect_3_1(b"a" * 24), _connected("a" * 24, version=3)),
        _good("CONNECT: empty Client Identifier", connect_3_1(b""), _connected("", version=3)),
        _bad("CONNECT: half a user name", connect_3_1(flags=0x82, rest=b"\0\x02u")),
        _bad("CONNECT: half a length of a user name", connect_3_1(flags=0x82, rest=b"\0")),
        _bad("CONNECT: password without user name flag", connect_3_1(flags=0x42, rest=string(b"p"))),
        _bad("CONNECT: a field too much", connect_3_1(rest=string(b"u"))),
        _bad("CONNECT: level 2", connect(name=b"MQIsdp", level=2), 1),
        _good(
            "CONNECT: the level of a Mosquitto bridge",
            connect(name=b"MQIsdp", level=0x83),
            _connected(version=3, bridge=True),
        ),
        _bad("CONNECT: the level of a Mosquitto bridge of 3.1.1", connect(name=b"MQIsdp", level=0x84), 1),
    ]
    rows += [row._replace(name=f"3.1: {row.name}", version=MQTT_3_1) for row in old]

    # Texts in each of its fields.
    for label, text in UTF_8.items():
        decoded = text.decode()
        rows.append(_good(f"CONNECT: Client Identifier: {label}", connect(text), _connected(decoded)))
        rows.append(
            _good(
                f"CONNECT: user name: {label}",
                connect(flags=0x82, rest=string(text)),
                _connected(username=decoded),
            )
        )
        rows.append(
            _good(
                f"CONNECT: will topic: {label}",
                connect(flags=0x06, rest=string(text) + string(b"")),
                _connected(will=(text, b"", 0, False)),
            )
        )
    for label, text in (NOT_UTF_8 | WITH_NUL).items():
        # [MQTT-3.1.3-4] [MQTT-3.1.3-11] [MQTT-3.1.3-10]
        rows.append(_bad(f"CONNECT: Client Identifier: {label}", connect(text)))
        rows.append(_bad(f"CONNECT: user name: {label}", connect(flags=0x82, rest=string(text))))
        rows.append(_bad(f"CONNECT: will topic: {label}", connect(flags=0x06, rest=string(text) + string(b""))))
        # The will message and the password are bytes.
        rows.append(
            _good(
                f"CONNECT: will message: {label}",
                connect(flags=0x06, rest=string(b"t") + string(text)),
                _connected(will=(b"t", text, 0, False)),
            )
        )
        rows.append(
            _good(
                f"CONNECT: password: {label}",
                connect(flags=0xC2, rest=string(b"u") + string(text)),
                _connected(username="u", password=text),
            )
        )
    for label, text in _BAD_TOPICS.items():
        rows.append(_bad(f"CONNECT: will topic: {label}", connect(flags=0x06, rest=string(text) + string(b""))))
    return rows


def _publishes() -> list[Vector]:
    rows = []
    for qos, packet_id in ((0, 0), (1, 1), (1, 65_535), (2, 0x0102)):
        for retain in (False, True):
            for dup in (False, True) if qos else (False,):
                for payload in (b"", b"\0", b"hello"):
                    data = publish(b"a/b", payload, qos=qos, packet_id=packet_id, dup=dup, retain=retain)
                    label = f"PUBLISH: QoS {qos}, id {packet_id}, dup {dup:d}, retain {retain:d}, {len(payload)} bytes"
                    rows.append(_good(label, data, _published(data, b"a/b", payload, packet_id)))
    rows += [
        _bad("PUBLISH: DUP at QoS 0", publish(b"a", dup=True)),  # [MQTT-3.3.1-2]
        _bad("PUBLISH: DUP and RETAIN at QoS 0", publish(b"a", dup=True, retain=True)),
    ]
    for first in (0x36, 0x37, 0x3E, 0x3F):
        rows.append(_bad(f"PUBLISH: QoS 3, first byte {first:#x}", packet(first, b"\0\x01a\0\x01")))  # [MQTT-3.3.1-4]
    for qos in (1, 2):
        rows += [
            _bad(f"PUBLISH: QoS {qos}, id 0", publish(b"a", b"x", qos=qos)),  # [MQTT-2.3.1-1]
            _bad(f"PUBLISH: QoS {qos}, no id", packet(0x30 | qos << 1, string(b"a"))),
            _bad(f"PUBLISH: QoS {qos}, half an id", packet(0x30 | qos << 1, string(b"a") + b"\x01")),
            _bad(f"PUBLISH: QoS {qos}, cut within the topic", packet(0x30 | qos << 1, b"\0\x05abc")),
            _bad(f"PUBLISH: QoS {qos}, empty", packet(0x30 | qos << 1)),
            _bad(f"PUBLISH: QoS {qos}, half a length", packet(0x30 | qos << 1, b"\0")),
        ]
    rows += [
        _bad("PUBLISH: empty", packet(0x30)),
        _bad("PUBLISH: half a length", packet(0x30, b"\0")),
        _bad("PUBLISH: cut within the topic", packet(0x30, b"\0\x05abc")),
        _bad("PUBLISH: topic longer than the packet by one", packet(0x30, b"\0\x04abc")),
        _bad("PUBLISH: a topic of 65535 bytes that is not there", packet(0x30, b"\xff\xff")),
        # What follows belongs to the next packet, however well it would fit.
        _bad("PUBLISH: the topic would go on in the next packet", packet(0x30, b"\0\x04a") + PINGREQ),
    ]
    for label, text in (UTF_8 | {"/": b"/", "//": b"//", "a//b": b"a//b", "$": b"$", "$x": b"$x"}).items():
        data = publish(text, b"x")
        rows.append(_good(f"PUBLISH: topic: {label}", data, _published(data, text, b"x")))
    for label, text in (NOT_UTF_8 | WITH_NUL | _BAD_TOPICS).items():
        # The decoder leaves the topic to who looks it up: one that is known is valid.
        data = publish(text, b"x")
        rows.append(_later(f"PUBLISH: topic: {label}", data, _published(data, text, b"x")))
        data = publish(text, b"x", qos=1, packet_id=7)
        rows.append(_later(f"PUBLISH: QoS 1, topic: {label}", data, _published(data, text, b"x", 7)))
    return _both(rows)


def _acknowledgements() -> list[Vector]:
    rows = []
    for name, first in (("PUBACK", PUBACK), ("PUBREC", PUBREC), ("PUBREL", PUBREL), ("PUBCOMP", PUBCOMP)):
        for packet_id in (1, 0x0102, 65_535):
            rows.append(_good(f"{name}: id {packet_id}", packet(first, number(packet_id)), (first, packet_id)))
        rows += [
            _bad(f"{name}: id 0", packet(first, number(0))),
            _bad(f"{name}: empty", packet(first)),
            _bad(f"{name}: half an id", packet(first, b"\x01")),
            _bad(f"{name}: a byte too much", packet(first, b"\0\x01\0")),
            _bad(f"{name}: two ids", packet(first, b"\0\x01\0\x02")),
        ]
    return _both(rows)


def _subscriptions() -> list[Vector]:
    rows = [
        _good("SUBSCRIBE: QoS 0", subscribe(1, (b"a", 0)), (0x82, 1, [(b"a", 0)])),
        _good("SUBSCRIBE: QoS 1", subscribe(0x0102, (b"a", 1)), (0x82, 258, [(b"a", 1)])),
        _good("SUBSCRIBE: QoS 2", subscribe(65_535, (b"a", 2)), (0x82, 65_535, [(b"a", 2)])),
        _good(
            "SUBSCRIBE: several filters, one of them twice",
            subscribe(9, (b"a", 2), (b"b/#", 0), (b"a", 1)),
            (0x82, 9, [(b"a", 2), (b"b/#", 0), (b"a", 1)]),
        ),
        _good(
            "SUBSCRIBE: a thousand filters",
            subscribe(9, *[(b"f%d" % i, i % 3) for i in range(1_000)]),
            (0x82, 9, [(b"f%d" % i, i % 3) for i in range(1_000)]),
        ),
        _good("UNSUBSCRIBE", unsubscribe(1, b"a"), (0xA2, 1, [b"a"])),
        _good(
            "UNSUBSCRIBE: several filters", unsubscribe(65_535, b"a", b"#", b"a"), (0xA2, 65_535, [b"a", b"#", b"a"])
        ),
        _bad("SUBSCRIBE: id 0", subscribe(0, (b"a", 0))),  # [MQTT-2.3.1-1]
        _bad("SUBSCRIBE: no filter", subscribe(1)),  # [MQTT-3.8.3-3]
        _bad("SUBSCRIBE: empty", packet(0x82)),
        _bad("SUBSCRIBE: half an id", packet(0x82, b"\x01")),
        _bad("SUBSCRIBE: no QoS", packet(0x82, number(1) + string(b"a"))),
        _bad("SUBSCRIBE: no QoS for the second", packet(0x82, number(1) + string(b"a") + b"\0" + string(b"b"))),
        _bad("SUBSCRIBE: half a length", packet(0x82, number(1) + b"\0")),
        _bad("SUBSCRIBE: filter longer than the packet", packet(0x82, number(1) + b"\0\x05ab\0")),
        _bad("SUBSCRIBE: a byte too much", packet(0x82, number(1) + string(b"a") + b"\0\0")),
        _bad("UNSUBSCRIBE: id 0", unsubscribe(0, b"a")),
        _bad("UNSUBSCRIBE: no filter", unsubscribe(1)),  # [MQTT-3.10.3-2]
        _bad("UNSUBSCRIBE: empty", packet(0xA2)),
        _bad("UNSUBSCRIBE: half an id", packet(0xA2, b"\x01")),
        _bad("UNSUBSCRIBE: half a length", packet(0xA2, number(1) + b"\0")),
        _bad("UNSUBSCRIBE: filter longer than the packet", packet(0xA2, number(1) + b"\0\x02a")),
        _bad("UNSUBSCRIBE: a byte too much", packet(0xA2, number(1) + string(b"a") + b"\0")),
    ]
    for qos in (3, 4, 0x40, 0x80, 0x81, 0x82, 0xFF):
        rows.append(_bad(f"SUBSCRIBE: QoS byte {qos:#04x}", subscribe(1, (b"a", qos))))  # [MQTT-3.8.3-4]
        rows.append(_bad(f"SUBSCRIBE: QoS byte {qos:#04x} of the second", subscribe(1, (b"a", 0), (b"b", qos))))
    for label, text in (UTF_8 | _GOOD_FILTERS).items():
        rows.append(_good(f"SUBSCRIBE: filter: {label}", subscribe(1, (text, 1)), (0x82, 1, [(text, 1)])))
        rows.append(_good(f"UNSUBSCRIBE: filter: {label}", unsubscribe(1, text), (0xA2, 1, [text])))
    for label, text in (NOT_UTF_8 | WITH_NUL | _BAD_FILTERS).items():
        rows.append(_bad(f"SUBSCRIBE: filter: {label}", subscribe(1, (text, 1))))  # [MQTT-3.8.3-1]
        rows.append(_bad(f"SUBSCRIBE: second filter: {label}", subscribe(1, (b"a", 0), (text, 1))))
        rows.append(_bad(f"UNSUBSCRIBE: filter: {label}", unsubscribe(1, text)))  # [MQTT-3.10.3-1]
    return _both(rows)


def _small() -> list[Vector]:
    return _both(
        [
            _good("PINGREQ", PINGREQ, (0xC0,)),
            _good("DISCONNECT", DISCONNECT, (0xE0,)),
            _bad("PINGREQ: with a payload", packet(0xC0, b"\0")),
            _bad("DISCONNECT: with a payload", packet(0xE0, b"\0")),
            _good("two packets", PINGREQ + packet(PUBACK, number(1)), (0xC0,), (0x40, 1)),
            _good("nothing", b""),
            _good("half a header", b"\xc0"),
            _good("half a packet", packet(PUBACK, number(1))[:3]),
        ]
    )


def _first_bytes() -> list[Vector]:
    """Each of the 256 first bytes that no client may send [MQTT-2.2.2-1] [MQTT-2.2.2-2] [MQTT-3.14.1-1]."""
    names = (
        "packet 0", "CONNECT", "CONNACK", "PUBLISH", "PUBACK", "PUBREC", "PUBREL", "PUBCOMP", "SUBSCRIBE", "SUBACK",
        "UNSUBSCRIBE", "UNSUBACK", "PINGREQ", "PINGRESP", "DISCONNECT", "packet 15",
    )  # fmt: skip
    bodies = {
        1: connect()[2:],
        8: subscribe(1, (b"a", 0))[2:],
        9: b"\0\x01\0",
        10: unsubscribe(1, b"a")[2:],
        12: b"",
        13: b"",
        14: b"",
    }
    right = {1: 0, 4: 0, 5: 0, 6: 2, 7: 0, 8: 2, 10: 2, 12: 0, 14: 0}
    rows = []
    for version in (MQTT_3_1_1, MQTT_3_1):
        label = "3.1: " if version == MQTT_3_1 else ""
        for kind in range(16):
            if kind == 3:
                continue
            for flags in range(16):
                if right.get(kind) == flags:
                    continue
                first = kind << 4 | flags
                data = packet(first, bodies.get(kind, b"\0\x01"))
                name = f"{label}{names[kind]}: flags {flags:04b}"
                # MQTT 3.1 uses none of the flags on these, and on PUBREL, SUBSCRIBE and UNSUBSCRIBE only QoS 1.
                unused = kind in (4, 5, 7, 12, 14) or (kind in (6, 8, 10) and flags & 0b0110 == 0b0010)
                if version == MQTT_3_1 and unused:
                    fields = {8: (1, [(b"a", 0)]), 10: (1, [b"a"]), 12: (), 14: ()}.get(kind, (1,))
                    rows.append(_good(name, data, (first, *fields), version=version))
                else:
                    rows.append(_bad(name, data, version=version))
    for flags in range(1, 16):
        data = packet(0x10 | flags, connect_3_1()[2:])
        name = f"CONNECT of 3.1: header flags {flags:04b}"
        # 0x16 is the first byte of TLS, and told as such.
        rows.append(_bad(name, data) if flags == 6 else _good(name, data, (0x10 | flags, _connected(version=3)[1])))
    return rows


def _lengths() -> list[Vector]:
    rows = []
    for size in (3, 127, 128, 129, 16_383, 16_384, 16_385, 2_097_151, 2_097_152):
        payload = b"x" * (size - 3)
        data = packet(0x30, string(b"t") + payload)
        rows.append(_good(f"Remaining Length {size}", data, _published(data, b"t", payload)))
        if size < 20_000:
            rows.append(
                _good(
                    f"Remaining Length {size}, and a packet behind it",
                    data + PINGREQ,
                    _published(data, b"t", payload),
                    (0xC0,),
                )
            )
            rows.append(_good(f"Remaining Length {size}, cut by one", data[:-1]))
    # The largest that can be said, and what is announced without being there.
    rows += [
        _good("Remaining Length 268435455, no data", b"\x30\xff\xff\xff\x7f"),
        _good("Remaining Length 268435455, some data", b"\x30\xff\xff\xff\x7f\x00\x01t"),
        _good("Remaining Length of four bytes, cut", b"\x30\xff\xff\xff"),
        _good("Remaining Length of three bytes, cut", b"\x30\xff\xff"),
        _good("Remaining Length of two bytes, cut", b"\x30\x80"),
    ]
    # A fifth byte; it is known once the fourth says that there is one.
    for tail in (b"", b"\x00", b"\x01", b"\x7f", b"\x80", b"\xff" * 8):
        rows.append(_bad(f"Remaining Length of five bytes: {tail.hex() or 'cut'}", b"\x30\x80\x80\x80\x80" + tail))
        rows.append(_bad(f"Remaining Length of five bytes: FF, {tail.hex() or 'cut'}", b"\x30\xff\xff\xff\xff" + tail))
    rows.append(_bad("PINGREQ with a Remaining Length of five bytes", b"\xc0\x80\x80\x80\x80\x00"))
    # Longer than need be: no rule of MQTT 3.1.1 forbids it. What is passed on is put right.
    right = b"\x30\x05\x00\x01tpq"
    for written in (b"\x85\x00", b"\x85\x80\x00", b"\x85\x80\x80\x00"):
        wrong = b"\x30" + written + right[2:]
        rows.append(_good(f"Remaining Length {written.hex()} for 5", wrong, (0x30, b"t", right, 5, 0)))
    right = b"\x33\x07\x00\x01t\x00\x09pq"
    rows.append(
        _good("Remaining Length 8700 for 7, QoS 1", b"\x33\x87\x00" + right[2:], (0x33, b"t", right, 7, 9)),
    )
    long = publish(b"t", b"x" * 300)
    rows.append(
        _good(
            "Remaining Length in four bytes for two",
            b"\x30\xaf\x82\x80\x00" + long[3:],
            (0x30, b"t", long, 6, 0),
        )
    )
    rows += [
        _good("PINGREQ with Remaining Length 8000", b"\xc0\x80\x00", (0xC0,)),
        _good("PINGREQ with Remaining Length 80808000", b"\xc0\x80\x80\x80\x00", (0xC0,)),
        _good("PUBACK with Remaining Length 8200", b"\x40\x82\x00\x00\x05", (0x40, 5)),
        _good(
            "SUBSCRIBE with Remaining Length 8600",
            b"\x82\x86\x00" + subscribe(3, (b"a", 1))[2:],
            (0x82, 3, [(b"a", 1)]),
        ),
        _good("CONNECT with Remaining Length 8d00", b"\x10\x8d\x00" + connect()[2:], _connected()),
        _bad("PINGREQ with Remaining Length 8100", b"\xc0\x81\x00\x00"),
    ]
    return rows


VECTORS: tuple[Vector, ...] = tuple(
    _connects() + _publishes() + _acknowledgements() + _subscriptions() + _small() + _first_bytes() + _lengths()
)
VALID = tuple(row for row in VECTORS if not row.malformed)
MALFORMED = tuple(row for row in VECTORS if row.malformed)


def over_socket(vector: Vector, client_id: bytes = b"vector") -> tuple[bytes, bytes]:
    """What to send before a vector (empty if it is a CONNECT, and so the first), and the CONNACK to wait for then."""
    if vector.is_connect:
        return b"", b""
    make = connect_3_1 if vector.version == MQTT_3_1 else connect
    return make(client_id, keep_alive=0), b"\x20\x02\x00\x00"
