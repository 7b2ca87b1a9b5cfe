"""MQTT 3.1 and 3.1.1 packets as bytes and as meaning: the suite's own codec.

Owns: an encoder that can write anything, malformed packets included, and a decoder that never refuses: what does not
fit is kept, with `problem` saying why. Must not know: sockets, time, tests.

Encoding: one function per packet, `connect(...)`, `publish(...)`, ...; each returns bytes. Wherever a string is
written, `bytes` are accepted too and written as they are, so that ill-formed UTF-8 can be sent. `frame` writes a packet
of any type with any body and, if wanted, a false length.

Decoding: `Decoder.feed(data)` returns the packets that are complete, as objects of the classes below; `str(packet)` is
the line that a timeline shows.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

CONNECT = 1
CONNACK = 2
PUBLISH = 3
PUBACK = 4
PUBREC = 5
PUBREL = 6
PUBCOMP = 7
SUBSCRIBE = 8
SUBACK = 9
UNSUBSCRIBE = 10
UNSUBACK = 11
PINGREQ = 12
PINGRESP = 13
DISCONNECT = 14

NAMES = (
    "reserved type 0", "CONNECT", "CONNACK", "PUBLISH", "PUBACK", "PUBREC", "PUBREL", "PUBCOMP",
    "SUBSCRIBE", "SUBACK", "UNSUBSCRIBE", "UNSUBACK", "PINGREQ", "PINGRESP", "DISCONNECT", "reserved type 15",
)  # fmt: skip

#: The fixed header's flags that a sender must set, by packet type; PUBLISH has flags of its own [MQTT-2.2.2-1].
FLAGS = {kind: 0b0010 if kind in (PUBREL, SUBSCRIBE, UNSUBSCRIBE) else 0 for kind in range(16) if kind != PUBLISH}

RETURN_CODES = {
    0: "accepted",
    1: "unacceptable protocol version",
    2: "identifier rejected",
    3: "server unavailable",
    4: "bad user name or password",
    5: "not authorized",
}

#: The longest Remaining Length (table 2.4).
MAX_LENGTH = 268_435_455

#: SUBACK's return code for a refused subscription.
SUBSCRIBE_FAILURE = 0x80

#: Bytes that are no UTF-8 (RFC 3629, section 3), by what is wrong with them [MQTT-1.5.3-1].
ILL_FORMED_UTF8 = {
    "lone continuation byte": b"ab\x80",
    "two-byte form of a slash": b"ab\xc0\xafcd",
    "two-byte form of NUL": b"ab\xc0\x80cd",
    "character cut short": b"ab\xe2\x82",
    "surrogate": b"ab\xed\xa0\x80cd",
    "surrogate pair": b"ab\xed\xa0\xbd\xed\xb8\x80cd",
    "above U+10FFFF": b"ab\xf4\x90\x80\x80cd",
    "byte that never occurs": b"ab\xffcd",
}

Text = str | bytes


# Encoding


@dataclass(frozen=True, slots=True)
class Will:
    """The will of a CONNECT packet."""

    topic: Text
    payload: bytes
    qos: int = 0
    retain: bool = False


def encoded(value: Text) -> bytes:
    """The bytes of a string: UTF-8 for `str`, lone surrogates included; `bytes` as they are."""
    return value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value


def string(value: Text) -> bytes:
    """A string with its two-byte length before it (section 1.5.3); also right for binary fields."""
    data = encoded(value)
    return len(data).to_bytes(2, "big") + data


def remaining_length(value: int, *, width: int = 0) -> bytes:
    """The Remaining Length field (section 2.2.3). `width` pads it with empty digits up to that size."""
    digits: list[int] = []
    while True:
        value, digit = divmod(value, 128)
        more = value > 0 or len(digits) + 1 < width
        digits.append(digit | 0x80 if more else digit)
        if not more:
            return bytes(digits)


def frame(kind: int, flags: int, body: bytes = b"", *, length: int | None = None) -> bytes:
    """A packet of any type, flags and body. `length` is written as the Remaining Length instead of the body's size."""
    return bytes([kind << 4 | flags]) + remaining_length(len(body) if length is None else length) + body


def connect(
    client_id: Text | None = "",
    *,
    clean: bool = True,
    keep_alive: int = 60,
    will: Will | None = None,
    username: Text | None = None,
    password: Text | None = None,
    level: int = 4,
    name: Text = "MQTT",
    flags: int | None = None,
    toggle: int = 0,
    header_flags: int = 0,
    extra: bytes = b"",
) -> bytes:
    """CONNECT. `flags` replaces the Connect Flags that the fields call for, `toggle` turns some of them over;
    `client_id=None` leaves that field out; `extra` is appended to the payload."""
    if flags is None:
        flags = clean << 1
        if will is not None:
            flags |= 0b100 | will.qos << 3 | will.retain << 5
        flags |= (password is not None) << 6 | (username is not None) << 7
    body = string(name) + bytes([level, flags ^ toggle]) + keep_alive.to_bytes(2, "big")
    if client_id is not None:
        body += string(client_id)
    if will is not None:
        body += string(will.topic) + string(will.payload)
    if username is not None:
        body += string(username)
    if password is not None:
        body += string(password)
    return frame(CONNECT, header_flags, body + extra)


def connack(code: int = 0, *, session_present: bool = False, acknowledge_flags: int | None = None) -> bytes:
    """CONNACK. No client sends it; the suite does, to see what a broker makes of it."""
    return frame(CONNACK, 0, bytes([session_present if acknowledge_flags is None else acknowledge_flags, code]))


def publish(
    topic: Text,
    payload: bytes = b"",
    *,
    qos: int = 0,
    packet_id: int | None = None,
    retain: bool = False,
    dup: bool = False,
) -> bytes:
    """PUBLISH. The Packet Identifier is written if one is given, whatever the QoS is."""
    body = string(topic) + (b"" if packet_id is None else packet_id.to_bytes(2, "big")) + payload
    return frame(PUBLISH, dup << 3 | qos << 1 | retain, body)


def acknowledgement(kind: int, packet_id: int, *, flags: int | None = None) -> bytes:
    """A packet that is nothing but a Packet Identifier: PUBACK, PUBREC, PUBREL, PUBCOMP, UNSUBACK."""
    return frame(kind, FLAGS[kind] if flags is None else flags, packet_id.to_bytes(2, "big"))


def puback(packet_id: int) -> bytes:
    return acknowledgement(PUBACK, packet_id)


def pubrec(packet_id: int) -> bytes:
    return acknowledgement(PUBREC, packet_id)


def pubrel(packet_id: int, *, flags: int = 0b0010) -> bytes:
    return acknowledgement(PUBREL, packet_id, flags=flags)


def pubcomp(packet_id: int) -> bytes:
    return acknowledgement(PUBCOMP, packet_id)


def subscribe(packet_id: int, *filters: tuple[Text, int], flags: int = 0b0010) -> bytes:
    """SUBSCRIBE with pairs of Topic Filter and requested QoS; the QoS is the whole byte that it stands in."""
    body = packet_id.to_bytes(2, "big") + b"".join(string(topic_filter) + bytes([qos]) for topic_filter, qos in filters)
    return frame(SUBSCRIBE, flags, body)


def suback(packet_id: int, *codes: int) -> bytes:
    return frame(SUBACK, 0, packet_id.to_bytes(2, "big") + bytes(codes))


def unsubscribe(packet_id: int, *filters: Text, flags: int = 0b0010) -> bytes:
    return frame(UNSUBSCRIBE, flags, packet_id.to_bytes(2, "big") + b"".join(map(string, filters)))


def unsuback(packet_id: int) -> bytes:
    return acknowledgement(UNSUBACK, packet_id)


def pingreq(*, flags: int = 0) -> bytes:
    return frame(PINGREQ, flags)


def pingresp() -> bytes:
    return frame(PINGRESP, 0)


def disconnect(*, flags: int = 0) -> bytes:
    return frame(DISCONNECT, flags)


# Decoding


@dataclass(slots=True)
class Packet:
    """A packet as it came. `body` is what follows the fixed header, `wire` is all of its bytes; `problem` says what is
    malformed, and is empty if nothing is. Flags that are not those of table 2.2 are no `problem`: see `flags_valid`."""

    kind: int
    flags: int
    body: bytes
    problem: str = ""
    wire: bytes = field(default=b"", kw_only=True, repr=False, compare=False)

    @property
    def name(self) -> str:
        return NAMES[self.kind]

    @property
    def flags_valid(self) -> bool:
        """Whether the fixed header's flags are those that the type calls for [MQTT-2.2.2-1]."""
        return self.kind == PUBLISH or self.flags == FLAGS[self.kind]

    def details(self) -> str:
        return size(self.body) if self.body else ""

    def __str__(self) -> str:
        line = f"{self.name} {self.details()}".rstrip()
        if not self.flags_valid:
            line += f" with header flags {self.flags:04b}"
        if self.problem:
            line += f" (malformed: {self.problem})"
        return line


@dataclass(slots=True)
class Connect(Packet):
    protocol_name: bytes = b""
    level: int = 0
    connect_flags: int = 0
    keep_alive: int = 0
    client_id: bytes = b""
    will: Will | None = None
    username: bytes | None = None
    password: bytes | None = None

    @property
    def clean(self) -> bool:
        return bool(self.connect_flags & 0b10)

    def details(self) -> str:
        parts = [f"ClientId={quoted(self.client_id)} CleanSession={self.clean:d} KeepAlive={self.keep_alive}"]
        if self.protocol_name != b"MQTT" or self.level != 4:
            parts.insert(0, f"{quoted(self.protocol_name)} level {self.level}")
        if self.will:
            marks = f"QoS {self.will.qos}" + " RETAIN" * self.will.retain
            parts.append(f"will={quoted(encoded(self.will.topic))} {marks} {shown_payload(self.will.payload)}")
        if self.username is not None:
            parts.append(f"user={quoted(self.username)}")
        if self.password is not None:
            parts.append(f"password of {size(self.password)}")
        return " ".join(parts)


@dataclass(slots=True)
class Connack(Packet):
    acknowledge_flags: int = 0
    code: int = 0

    @property
    def session_present(self) -> bool:
        return bool(self.acknowledge_flags & 1)

    def details(self) -> str:
        known = RETURN_CODES.get(self.code, "reserved")
        reserved = self.acknowledge_flags & 0xFE
        odd = f" reserved bits {reserved:08b}" if reserved else ""
        return f"code {self.code} ({known}) SessionPresent={self.session_present:d}{odd}"


@dataclass(slots=True)
class Publish(Packet):
    topic: str = ""
    packet_id: int | None = None
    payload: bytes = b""

    @property
    def dup(self) -> bool:
        return bool(self.flags & 0b1000)

    @property
    def qos(self) -> int:
        return self.flags >> 1 & 0b11

    @property
    def retain(self) -> bool:
        return bool(self.flags & 1)

    def details(self) -> str:
        identifier = "" if self.packet_id is None else f" id={self.packet_id}"
        marks = " DUP" * self.dup + " RETAIN" * self.retain
        return f"{quoted(encoded_topic(self.topic))} QoS {self.qos}{identifier}{marks} {shown_payload(self.payload)}"


@dataclass(slots=True)
class Acknowledgement(Packet):
    """PUBACK, PUBREC, PUBREL, PUBCOMP or UNSUBACK: told apart by `kind`."""

    packet_id: int = 0

    def details(self) -> str:
        return f"id={self.packet_id}"


@dataclass(slots=True)
class Subscribe(Packet):
    packet_id: int = 0
    filters: Sequence[tuple[bytes, int]] = ()

    def details(self) -> str:
        wanted = ", ".join(f"{quoted(topic_filter)} QoS {qos}" for topic_filter, qos in self.filters)
        return f"id={self.packet_id} {wanted or 'no filter'}"


@dataclass(slots=True)
class Suback(Packet):
    packet_id: int = 0
    codes: tuple[int, ...] = ()

    def details(self) -> str:
        codes = ", ".join(f"{code:#x}" if code > 2 else str(code) for code in self.codes)
        return f"id={self.packet_id} codes [{codes}]"


@dataclass(slots=True)
class Unsubscribe(Packet):
    packet_id: int = 0
    filters: Sequence[bytes] = ()

    def details(self) -> str:
        return f"id={self.packet_id} {', '.join(map(quoted, self.filters)) or 'no filter'}"


@dataclass(slots=True)
class Empty(Packet):
    """PINGREQ, PINGRESP or DISCONNECT: told apart by `kind`."""


def size(data: bytes) -> str:
    return f"{len(data)} byte{'s' * (len(data) != 1)}"


def quoted(data: bytes, limit: int = 60) -> str:
    """A string of the wire for people: in quotes, unprintable characters escaped, long ones cut."""
    # More bytes than these can only be cut off, and large payloads are shown often.
    shown = data[: 4 * limit + 4].decode("utf-8", "backslashreplace")
    shown = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in shown)
    return f'"{shown}"' if len(shown) <= limit else f'"{shown[:limit]}"... ({size(data)})'


def shown_payload(data: bytes) -> str:
    return "empty" if not data else quoted(data, 40)


def encoded_topic(topic: str) -> bytes:
    """The bytes that a received topic was decoded from."""
    return topic.encode("utf-8", "surrogateescape")


class _Reader:
    """Takes fields off a body. What is missing is given as empty, and remembered as the problem."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.at = 0
        self.problem = ""

    def take(self, size: int, what: str) -> bytes:
        data = self.body[self.at : self.at + size]
        if len(data) < size and not self.problem:
            self.problem = f"{what} is cut short"
        self.at += len(data)
        return data

    def number(self, size: int, what: str) -> int:
        return int.from_bytes(self.take(size, what), "big")

    def text(self, what: str) -> bytes:
        return self.take(self.number(2, what), what)

    def rest(self) -> bytes:
        return self.take(len(self.body) - self.at, "")

    @property
    def more(self) -> bool:
        return self.at < len(self.body) and not self.problem

    def finished(self) -> str:
        """The problem, when nothing more should come."""
        if not self.problem and self.at < len(self.body):
            self.problem = f"{size(self.body[self.at :])} too many"
        return self.problem


def decode(kind: int, flags: int, body: bytes) -> Packet:
    """The packet that a fixed header and a body make. Never raises: see `Packet.problem`."""
    return _DECODERS.get(kind, _decode_unknown)(kind, flags, body)


def _decode_unknown(kind: int, flags: int, body: bytes) -> Packet:
    return Packet(kind, flags, body, "no such packet type")


def _decode_connect(kind: int, flags: int, body: bytes) -> Packet:
    reader = _Reader(body)
    name = reader.text("the protocol name")
    level = reader.number(1, "the protocol level")
    connect_flags = reader.number(1, "the connect flags")
    packet = Connect(kind, flags, body, "", name, level, connect_flags, reader.number(2, "the keep alive"))
    if level > 4:
        packet.problem = "the rest is not MQTT 3.1.1"
        return packet
    packet.client_id = reader.text("the ClientId")
    if connect_flags & 0b100:
        topic = reader.text("the will topic")
        message = reader.text("the will message")
        packet.will = Will(topic, message, connect_flags >> 3 & 0b11, bool(connect_flags & 0x20))
    if connect_flags & 0x80:
        packet.username = reader.text("the user name")
    if connect_flags & 0x40:
        packet.password = reader.text("the password")
    packet.problem = reader.finished()
    return packet


def _decode_connack(kind: int, flags: int, body: bytes) -> Packet:
    reader = _Reader(body)
    acknowledge_flags = reader.number(1, "the acknowledge flags")
    code = reader.number(1, "the return code")
    return Connack(kind, flags, body, reader.finished(), acknowledge_flags, code)


def _decode_publish(kind: int, flags: int, body: bytes) -> Packet:
    reader = _Reader(body)
    topic = reader.text("the topic").decode("utf-8", "surrogateescape")
    packet_id = reader.number(2, "the Packet Identifier") if flags & 0b110 else None
    message = reader.rest()
    problem = reader.finished() or ("QoS 3" if flags & 0b110 == 0b110 else "")
    return Publish(kind, flags, body, problem, topic, packet_id, message)


def _decode_acknowledgement(kind: int, flags: int, body: bytes) -> Packet:
    reader = _Reader(body)
    packet_id = reader.number(2, "the Packet Identifier")
    return Acknowledgement(kind, flags, body, reader.finished(), packet_id)


def _decode_subscribe(kind: int, flags: int, body: bytes) -> Packet:
    reader = _Reader(body)
    packet_id = reader.number(2, "the Packet Identifier")
    filters = []
    while reader.more:
        filters.append((reader.text("a filter"), reader.number(1, "a requested QoS")))
    return Subscribe(kind, flags, body, reader.finished(), packet_id, filters)


def _decode_suback(kind: int, flags: int, body: bytes) -> Packet:
    reader = _Reader(body)
    packet_id = reader.number(2, "the Packet Identifier")
    return Suback(kind, flags, body, reader.problem, packet_id, tuple(reader.rest()))


def _decode_unsubscribe(kind: int, flags: int, body: bytes) -> Packet:
    reader = _Reader(body)
    packet_id = reader.number(2, "the Packet Identifier")
    filters = []
    while reader.more:
        filters.append(reader.text("a filter"))
    return Unsubscribe(kind, flags, body, reader.finished(), packet_id, filters)


def _decode_empty(kind: int, flags: int, body: bytes) -> Packet:
    return Empty(kind, flags, body, f"{size(body)} too many" if body else "")


_DECODERS: dict[int, Callable[[int, int, bytes], Packet]] = {
    CONNECT: _decode_connect,
    CONNACK: _decode_connack,
    PUBLISH: _decode_publish,
    **dict.fromkeys((PUBACK, PUBREC, PUBREL, PUBCOMP, UNSUBACK), _decode_acknowledgement),
    SUBSCRIBE: _decode_subscribe,
    SUBACK: _decode_suback,
    UNSUBSCRIBE: _decode_unsubscribe,
    **dict.fromkeys((PINGREQ, PINGRESP, DISCONNECT), _decode_empty),
}


class Decoder:
    """Cuts a stream of bytes into packets. `broken` says why nothing after this point can be read, and is empty
    while all is well."""

    def __init__(self) -> None:
        self.broken = ""
        self._buffer = bytearray()

    @property
    def pending(self) -> bytes:
        """The bytes of a packet that is not complete."""
        return bytes(self._buffer)

    def feed(self, data: bytes) -> list[Packet]:
        """Takes the next bytes, returns the packets that they complete."""
        self._buffer += data
        found: list[Packet] = []
        while not self.broken and (packet := self._next()):
            found.append(packet)
        return found

    def _next(self) -> Packet | None:
        length = 0
        for position, byte in enumerate(self._buffer[1:5]):
            length |= (byte & 0x7F) << 7 * position
            if not byte & 0x80:
                start = position + 2
                break
        else:
            if len(self._buffer) >= 5:
                self.broken = "the Remaining Length has more than four bytes"
            return None
        end = start + length
        if len(self._buffer) < end:
            return None
        wire = bytes(self._buffer[:end])
        del self._buffer[:end]
        packet = decode(wire[0] >> 4, wire[0] & 0x0F, wire[start:])
        packet.wire = wire
        return packet


def decode_all(data: bytes) -> Iterable[Packet]:
    """The complete packets in `data`; what is left over at its end is dropped."""
    return Decoder().feed(data)
