"""The CONNECT packet of each version, as a record.

Owns: the parsing of its body. Must not know: who may connect, and what becomes of it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from . import properties
from .codes import (
    CONNECT,
    MQTT_3_1,
    MQTT_3_1_1,
    MQTT_5,
    VERSION_NAMES,
    VERSIONS,
    ProtocolError,
    ReasonCode,
    ReturnCode,
)
from .fields import field, text
from .topics import check_topic_name

_LEVELS = {b"MQTT": (MQTT_3_1_1, MQTT_5), b"MQIsdp": (MQTT_3_1,)}


class Will(NamedTuple):
    """The will of a CONNECT (MQTT 3.1.1, section 3.1.2.5; MQTT 5.0, sections 3.1.2.5 and 3.1.3.2)."""

    topic: bytes
    payload: bytes
    qos: int
    retain: bool
    delay: int = 0  #: seconds
    expiry: int | None = None  #: seconds
    kept: bytes = b""  #: the properties that go with the message, encoded (broker.wire.properties)


class Connect(NamedTuple):
    """A CONNECT that keeps to the format. `keep_alive` is in seconds, 0 for none; `bridge`: it is another broker, which
    Mosquitto says by the highest bit of the protocol level. What comes behind that is said in MQTT 5.0 only."""

    version: int
    client_id: str
    clean_session: bool  #: Clean Start in MQTT 5.0
    keep_alive: int
    will: Will | None
    username: str | None
    password: bytes | None
    bridge: bool = False
    receive_maximum: int = 65_535
    session_expiry: int = 0  #: seconds; 0xFFFFFFFF: it never expires
    max_packet_size: int = 0  #: 0: none was said
    topic_alias_maximum: int = 0
    request_response: bool = False
    request_problem: bool = True
    auth_method: str | None = None
    auth_data: bytes = b""
    user_properties: tuple[tuple[bytes, bytes], ...] = ()


def parse_connect(data: bytes, pos: int, end: int, versions: frozenset[int] = VERSIONS) -> Connect:
    """Read the CONNECT whose variable header starts at `pos`; `versions` are those that are spoken.

    Raises ProtocolError with UNACCEPTABLE_PROTOCOL_VERSION for any other level, and without a code for all that
    breaks the format.
    """
    name, pos = field(data, pos, end, "protocol name")
    levels = _LEVELS.get(name)
    if levels is None:
        # [MQTT-3.1.2-1] [MQTT5-3.1.2-1]
        raise ProtocolError("CONNECT with an unknown protocol name", reason=ReasonCode.UNSUPPORTED_PROTOCOL_VERSION)
    if pos >= end:
        raise ProtocolError("CONNECT ends before the protocol level")
    level = data[pos]
    if level == MQTT_5 and level in levels and level in versions:
        try:
            return _parse_5(data, pos + 1, end)
        except ProtocolError as error:
            error.level = MQTT_5
            raise
    bridge = bool(level & 0x80)
    version = level & 0x7F
    if version == MQTT_5 or version not in levels or version not in versions:
        # Nothing behind the level is read: a later version may lay it out differently.
        raise _unspoken(level, versions)  # [MQTT-3.1.2-2] [MQTT5-3.1.2-2]
    return _parse_3(data, pos + 1, end, version, bridge)


def _unspoken(level: int, versions: frozenset[int]) -> ProtocolError:
    found = f"protocol level {level}" + (f" (MQTT {VERSION_NAMES[level]})" if level in VERSION_NAMES else "")
    spoken = [f"{one} (MQTT {VERSION_NAMES[one]})" for one in sorted(versions, reverse=True)]
    known = ", ".join(spoken[:-1]) + (" and " if len(spoken) > 1 else "") + spoken[-1]
    error = ProtocolError(
        f"CONNECT with {found}; supported {'are' if len(spoken) > 1 else 'is'} {known}",
        ReturnCode.UNACCEPTABLE_PROTOCOL_VERSION,
        ReasonCode.UNSUPPORTED_PROTOCOL_VERSION,
    )
    error.level = level
    return error


def _flags(data: bytes, pos: int, end: int, lenient: bool = False) -> tuple[int, int, int]:
    """The connect flags, the keep alive, and where the next field begins."""
    if end - pos < 3:
        raise ProtocolError("CONNECT ends before the keep alive")
    flags = data[pos]
    if lenient:
        # It says that bit 0 is not used, and that without a will the will's QoS and retain are disregarded.
        flags &= 0xFE if flags & 0x04 else 0xC6
    if flags & 0x01:
        raise ProtocolError("CONNECT with the reserved flag set")  # [MQTT-3.1.2-3] [MQTT5-3.1.2-3]
    if not flags & 0x04 and flags & 0x38:
        # [MQTT-3.1.2-11] [MQTT5-3.1.2-11] [MQTT5-3.1.2-13]
        raise ProtocolError("CONNECT with a will QoS or will retain, but no will flag")
    if flags & 0x18 == 0x18:
        raise ProtocolError("CONNECT with will QoS 3")  # [MQTT-3.1.2-14] [MQTT5-3.1.2-12]
    return flags, (data[pos + 1] << 8) | data[pos + 2], pos + 3


def _parse_3(data: bytes, pos: int, end: int, version: int, bridge: bool) -> Connect:
    """What follows the level in MQTT 3.1.1 (section 3.1) and 3.1."""
    lenient = version == MQTT_3_1
    flags, keep_alive, pos = _flags(data, pos, end, lenient)
    if flags & 0x40 and not flags & 0x80:
        raise ProtocolError("CONNECT with a password, but no user name")  # [MQTT-3.1.2-22]
    client_id, pos = text(data, pos, end, "Client Identifier")  # [MQTT-3.1.3-3] [MQTT-3.1.3-4]
    will = None
    if flags & 0x04:
        will_topic, will_payload, pos = _will(data, pos, end)
        will = Will(will_topic, will_payload, flags >> 3 & 3, bool(flags & 0x20))
    username = password = None
    # An MQTT 3.1 client may set these two flags and leave the fields away: its remaining length takes precedence.
    if flags & 0x80 and not (lenient and pos == end):
        username, pos = text(data, pos, end, "user name")  # [MQTT-3.1.2-19] [MQTT-3.1.3-11]
    if flags & 0x40 and not (lenient and pos == end):
        password, pos = field(data, pos, end, "password")  # [MQTT-3.1.2-21]
    if pos != end:
        raise ProtocolError("CONNECT with bytes after its last field")  # [MQTT-3.1.2-18] [MQTT-3.1.2-20]
    return Connect(version, client_id, bool(flags & 0x02), keep_alive, will, username, password, bridge)


def _parse_5(data: bytes, pos: int, end: int) -> Connect:
    """What follows the level in MQTT 5.0 (section 3.1)."""
    flags, keep_alive, pos = _flags(data, pos, end)
    said, pos = properties.parse(data, pos, end, CONNECT)
    # [MQTT5-3.1.3-1] [MQTT5-3.1.3-3] [MQTT5-3.1.3-4]
    client_id, pos = text(data, pos, end, "Client Identifier")
    will = None
    if flags & 0x04:
        # [MQTT5-3.1.2-9]
        of_will, pos = properties.parse(data, pos, end, properties.WILL)
        will_topic, will_payload, pos = _will(data, pos, end)
        will = Will(
            will_topic,
            will_payload,
            flags >> 3 & 3,
            bool(flags & 0x20),
            of_will.get(properties.WILL_DELAY_INTERVAL, 0),
            of_will.get(properties.MESSAGE_EXPIRY_INTERVAL),
            properties.kept(of_will),
        )
    username = password = None
    if flags & 0x80:
        username, pos = text(data, pos, end, "user name")  # [MQTT5-3.1.2-17] [MQTT5-3.1.3-12]
    if flags & 0x40:  # with a user name or without
        password, pos = field(data, pos, end, "password")  # [MQTT5-3.1.2-19]
    if pos != end:
        raise ProtocolError("CONNECT with bytes after its last field")  # [MQTT5-3.1.2-16] [MQTT5-3.1.2-18]
    clean = bool(flags & 0x02)
    return Connect(MQTT_5, client_id, clean, keep_alive, will, username, password, False, *_said(said))


def _said(said: dict[int, Any]) -> tuple[Any, ...]:
    """The properties of a CONNECT as the record has them, what is left out as it is meant."""
    method = said.get(properties.AUTHENTICATION_METHOD)
    if method is None and properties.AUTHENTICATION_DATA in said:
        raise ProtocolError(
            "CONNECT with Authentication Data, but no Authentication Method", reason=ReasonCode.PROTOCOL_ERROR
        )  # 3.1.2.11.10
    return (
        said.get(properties.RECEIVE_MAXIMUM, 65_535),
        said.get(properties.SESSION_EXPIRY_INTERVAL, 0),
        said.get(properties.MAXIMUM_PACKET_SIZE, 0),
        said.get(properties.TOPIC_ALIAS_MAXIMUM, 0),
        bool(said.get(properties.REQUEST_RESPONSE_INFORMATION, 0)),
        bool(said.get(properties.REQUEST_PROBLEM_INFORMATION, 1)),
        method,
        said.get(properties.AUTHENTICATION_DATA, b""),
        tuple(said.get(properties.USER_PROPERTY, ())),
    )


def _will(data: bytes, pos: int, end: int) -> tuple[bytes, bytes, int]:
    """A will's topic and payload, and where the next field begins."""
    topic, pos = field(data, pos, end, "will topic")  # [MQTT-3.1.2-9]
    check_topic_name(topic)  # [MQTT-3.1.3-10] [MQTT5-3.1.3-11]
    payload, pos = field(data, pos, end, "will message")
    return topic, payload, pos
