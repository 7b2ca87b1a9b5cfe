"""What the rarer packets mean, as typed records; and the shape of every packet the decoder yields.

Owns: the parsing of CONNECT, SUBSCRIBE and UNSUBSCRIBE bodies. Must not know: how packets are cut out of a
stream (decoder), what they do (core).

A packet is a tuple that begins with the first byte of its fixed header (type and flags). There is no object per
PUBLISH, because creating one costs more than all the rest of its decoding:

    PUBLISH                        (first, topic, frame, payload_at, packet_id)     packet_id is 0 at QoS 0
    PUBACK PUBREC PUBREL PUBCOMP   (first, packet_id)
    SUBSCRIBE                      (first, packet_id, [(filter, qos), ...])         a long one: Subscriptions
    UNSUBSCRIBE                    (first, packet_id, [filter, ...])                a long one: Unsubscriptions
    CONNECT                        (first, Connect)
    PINGREQ DISCONNECT             (first,)

`frame` is the whole packet as it came, and `frame[payload_at:]` its payload: at QoS 0 the frame goes out again
as it is. A topic is bytes; whether it is a valid Topic Name is checked by whoever looks it up first.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple, TypeAlias

from . import topics
from .codes import MQTT_3_1, MQTT_3_1_1, ProtocolError, ReturnCode

Packet: TypeAlias = tuple[Any, ...]

#: Topic Filters in one packet.
MAX_FILTERS = 65_536
#: Bytes of Topic Filters in one packet that are read at once. Of more, reading is a part of the work on them.
LONG = 256

_LEVELS = {b"MQTT": MQTT_3_1_1, b"MQIsdp": MQTT_3_1}


class Will(NamedTuple):
    """The will of a CONNECT (MQTT 3.1.1, section 3.1.2.5)."""

    topic: bytes
    payload: bytes
    qos: int
    retain: bool


class Connect(NamedTuple):
    """A CONNECT that keeps to the format. `keep_alive` is in seconds, 0 for none; `bridge`: it is another broker, which
    Mosquitto says by the highest bit of the protocol level."""

    version: int
    client_id: str
    clean_session: bool
    keep_alive: int
    will: Will | None
    username: str | None
    password: bytes | None
    bridge: bool = False


def parse_connect(data: bytes, pos: int, end: int) -> Connect:
    """Read the CONNECT whose variable header starts at `pos`.

    Raises ProtocolError with UNACCEPTABLE_PROTOCOL_VERSION for an unknown level, and without a code for all that
    breaks the format (MQTT 3.1.1, section 3.1).
    """
    name, pos = _field(data, pos, end, "protocol name")
    level = _LEVELS.get(name)
    if level is None:
        raise ProtocolError("CONNECT with an unknown protocol name")  # [MQTT-3.1.2-1]
    if pos >= end:
        raise ProtocolError("CONNECT ends before the protocol level")
    bridge = bool(data[pos] & 0x80)
    if data[pos] & 0x7F != level:
        # Nothing behind the level is read: a later version may lay it out differently.
        found = f"protocol level {data[pos]}" + (" (MQTT 5.0)" if data[pos] == 5 else "")
        raise ProtocolError(
            f"CONNECT with {found}; supported are 4 (MQTT 3.1.1) and 3 (MQTT 3.1)",
            ReturnCode.UNACCEPTABLE_PROTOCOL_VERSION,
        )  # [MQTT-3.1.2-2]
    if end - pos < 4:
        raise ProtocolError("CONNECT ends before the keep alive")
    flags = data[pos + 1]
    keep_alive = (data[pos + 2] << 8) | data[pos + 3]
    pos += 4

    lenient = level == MQTT_3_1
    if lenient:
        # It says that bit 0 is not used, and that without a will the will's QoS and retain are disregarded.
        flags &= 0xFE if flags & 0x04 else 0xC6
    if flags & 0x01:
        raise ProtocolError("CONNECT with the reserved flag set")  # [MQTT-3.1.2-3]
    will_qos = (flags >> 3) & 3
    if not flags & 0x04 and flags & 0x38:
        raise ProtocolError("CONNECT with a will QoS or will retain, but no will flag")  # [MQTT-3.1.2-11]
    if will_qos == 3:
        raise ProtocolError("CONNECT with will QoS 3")  # [MQTT-3.1.2-14]
    if flags & 0x40 and not flags & 0x80:
        raise ProtocolError("CONNECT with a password, but no user name")  # [MQTT-3.1.2-22]

    client_id, pos = _text(data, pos, end, "Client Identifier")  # [MQTT-3.1.3-3] [MQTT-3.1.3-4]
    will = None
    if flags & 0x04:
        will_topic, pos = _field(data, pos, end, "will topic")  # [MQTT-3.1.2-9]
        check_topic_name(will_topic)  # [MQTT-3.1.3-10]
        will_payload, pos = _field(data, pos, end, "will message")
        will = Will(will_topic, will_payload, will_qos, bool(flags & 0x20))
    username = password = None
    # An MQTT 3.1 client may set these two flags and leave the fields away: its remaining length takes precedence.
    if flags & 0x80 and not (lenient and pos == end):
        username, pos = _text(data, pos, end, "user name")  # [MQTT-3.1.2-19] [MQTT-3.1.3-11]
    if flags & 0x40 and not (lenient and pos == end):
        password, pos = _field(data, pos, end, "password")  # [MQTT-3.1.2-21]
    if pos != end:
        raise ProtocolError("CONNECT with bytes after its last field")  # [MQTT-3.1.2-18] [MQTT-3.1.2-20]
    return Connect(level, client_id, bool(flags & 0x02), keep_alive, will, username, password, bridge)


class Filters:
    """The payload of a SUBSCRIBE or an UNSUBSCRIBE: iterating reads it, and raises ProtocolError where it is malformed.

    It may be as large as a packet can be, so whoever reads it decides when to pause.
    """

    __slots__ = ("_data", "_end", "_pos")

    name = "UNSUBSCRIBE"

    def __init__(self, data: bytes, pos: int, end: int) -> None:
        self._data = data
        self._pos = pos
        self._end = end

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and isinstance(other, Filters) and self._bytes == other._bytes

    def __hash__(self) -> int:
        return hash(self._bytes)

    @property
    def _bytes(self) -> bytes:
        return self._data[self._pos : self._end]

    def _filters(self, behind: int) -> Iterator[tuple[bytes, int]]:
        """Each Topic Filter, with where it ends; `behind`: bytes that follow each."""
        data, pos, end = self._data, self._pos, self._end
        if pos == end:
            raise ProtocolError(f"{self.name} without a Topic Filter")  # [MQTT-3.8.3-3] [MQTT-3.10.3-2]
        count = 0
        while pos < end:
            topic_filter, pos = _field(data, pos, end, "Topic Filter")
            _check_filter(topic_filter)
            count += 1
            if count > MAX_FILTERS:
                raise ProtocolError(f"{self.name} with more than {MAX_FILTERS} Topic Filters")
            yield topic_filter, pos
            pos += behind


class Unsubscriptions(Filters):
    """Topic Filters in order."""

    __slots__ = ()

    def __iter__(self) -> Iterator[bytes]:
        for topic_filter, _ in self._filters(0):
            yield topic_filter


class Subscriptions(Filters):
    """Topic Filters with the QoS that each asks for, in order."""

    __slots__ = ()

    name = "SUBSCRIBE"

    def __iter__(self) -> Iterator[tuple[bytes, int]]:
        for topic_filter, pos in self._filters(1):
            if pos >= self._end:
                raise ProtocolError("SUBSCRIBE ends before the QoS of a Topic Filter")
            qos = self._data[pos]
            if qos > 2:
                raise ProtocolError("SUBSCRIBE with a QoS above 2 or reserved bits set")  # [MQTT-3.8.3-4]
            yield topic_filter, qos


def parse_subscribe(data: bytes, pos: int, end: int) -> list[tuple[bytes, int]] | Subscriptions:
    """The payload of a SUBSCRIBE. Raises ProtocolError if it is malformed; a long one does when it is read."""
    if end - pos > LONG:
        return Subscriptions(data[pos:end], 0, end - pos)
    return list(Subscriptions(data, pos, end))


def parse_unsubscribe(data: bytes, pos: int, end: int) -> list[bytes] | Unsubscriptions:
    """The payload of an UNSUBSCRIBE, likewise."""
    if end - pos > LONG:
        return Unsubscriptions(data[pos:end], 0, end - pos)
    return list(Unsubscriptions(data, pos, end))


def check_topic_name(topic: bytes) -> None:
    """Raise ProtocolError unless `topic` is a Topic Name that may be published to."""
    if not topics.is_valid_topic(topic):
        # [MQTT-3.3.2-1] [MQTT-3.3.2-2] [MQTT-4.7.1-1] [MQTT-4.7.3-1] [MQTT-4.7.3-2]
        raise ProtocolError("a Topic Name that is empty, not UTF-8, or holds a wildcard or NUL")


def _check_filter(topic_filter: bytes) -> None:
    if not topics.is_valid_filter(topic_filter):
        # [MQTT-3.8.3-1] [MQTT-3.10.3-1] [MQTT-4.7.1-2] [MQTT-4.7.1-3] [MQTT-4.7.3-1] [MQTT-4.7.3-2]
        raise ProtocolError("a Topic Filter that is empty, not UTF-8, holds NUL or a misplaced wildcard")


def _field(data: bytes, pos: int, end: int, name: str) -> tuple[bytes, int]:
    """The length-prefixed bytes at `pos`, and where the next field begins."""
    start = pos + 2
    if start > end:
        raise ProtocolError(f"the packet ends before its {name}")
    stop = start + ((data[pos] << 8) | data[pos + 1])
    if stop > end:
        raise ProtocolError(f"the packet ends inside its {name}")
    return data[start:stop], stop


def _text(data: bytes, pos: int, end: int, name: str) -> tuple[str, int]:
    raw, pos = _field(data, pos, end, name)
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise ProtocolError(f"the {name} is not valid UTF-8") from None  # [MQTT-1.5.3-1]
    if "\0" in text:
        raise ProtocolError(f"the {name} holds NUL")  # [MQTT-1.5.3-2]
    return text, pos
