"""The properties of MQTT 5.0: one table, from which reading and writing follow.

Owns: which property may stand where, of what type it is, and its values (MQTT 5.0, section 2.2.2). Must not know: what
a property leads to.

A section of properties is what stands behind its Property Length. Reading one takes time linear in its bytes, whatever
is in it, and keeps at most MAX_USER_PROPERTIES pairs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from .codes import (
    AUTH,
    CONNACK,
    CONNECT,
    DISCONNECT,
    PACKET_NAMES,
    PUBACK,
    PUBCOMP,
    PUBLISH,
    PUBREC,
    PUBREL,
    SUBACK,
    SUBSCRIBE,
    UNSUBACK,
    UNSUBSCRIBE,
    ProtocolError,
    ReasonCode,
)
from .encoder import remaining_length
from .fields import checked_text, field, text, variable

PAYLOAD_FORMAT_INDICATOR = 0x01
MESSAGE_EXPIRY_INTERVAL = 0x02
CONTENT_TYPE = 0x03
RESPONSE_TOPIC = 0x08
CORRELATION_DATA = 0x09
SUBSCRIPTION_IDENTIFIER = 0x0B
SESSION_EXPIRY_INTERVAL = 0x11
ASSIGNED_CLIENT_IDENTIFIER = 0x12
SERVER_KEEP_ALIVE = 0x13
AUTHENTICATION_METHOD = 0x15
AUTHENTICATION_DATA = 0x16
REQUEST_PROBLEM_INFORMATION = 0x17
WILL_DELAY_INTERVAL = 0x18
REQUEST_RESPONSE_INFORMATION = 0x19
RESPONSE_INFORMATION = 0x1A
SERVER_REFERENCE = 0x1C
REASON_STRING = 0x1F
RECEIVE_MAXIMUM = 0x21
TOPIC_ALIAS_MAXIMUM = 0x22
TOPIC_ALIAS = 0x23
MAXIMUM_QOS = 0x24
RETAIN_AVAILABLE = 0x25
USER_PROPERTY = 0x26
MAXIMUM_PACKET_SIZE = 0x27
WILDCARD_SUBSCRIPTION_AVAILABLE = 0x28
SUBSCRIPTION_IDENTIFIER_AVAILABLE = 0x29
SHARED_SUBSCRIPTION_AVAILABLE = 0x2A

#: Where the Will Properties of a CONNECT stand, beside the packet types: 0 is none.
WILL = 0

#: User Properties of one packet. Each of a few bytes becomes objects, and all of a packet are read in one step.
MAX_USER_PROPERTIES = 4096

# The data types (MQTT 5.0, section 2.2.2.2).
_BYTE, _TWO, _FOUR, _VARIABLE, _TEXT, _BINARY, _PAIR = range(7)
_SIZES = {_BYTE: 1, _TWO: 2, _FOUR: 4}

_ANSWERS = (PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK, UNSUBACK)
_MESSAGES = (PUBLISH, WILL)


class Property(NamedTuple):
    """A row of the table."""

    name: str
    kind: int
    packets: frozenset[int]  #: where it may stand
    repeats: frozenset[int] = frozenset()  #: where it may stand more than once
    least: int = 0  #: the smallest value of a number


def _row(name: str, kind: int, *packets: int, repeats: Iterable[int] = (), least: int = 0) -> Property:
    return Property(name, kind, frozenset(packets), frozenset(repeats), least)


_ALL = (
    CONNECT, CONNACK, PUBLISH, WILL, *_ANSWERS, SUBSCRIBE, UNSUBSCRIBE, DISCONNECT, AUTH,
)  # fmt: skip

#: By its identifier (MQTT 5.0, table 2-4).
PROPERTIES = {
    PAYLOAD_FORMAT_INDICATOR: _row("Payload Format Indicator", _BYTE, *_MESSAGES),
    MESSAGE_EXPIRY_INTERVAL: _row("Message Expiry Interval", _FOUR, *_MESSAGES),
    CONTENT_TYPE: _row("Content Type", _TEXT, *_MESSAGES),
    RESPONSE_TOPIC: _row("Response Topic", _TEXT, *_MESSAGES),
    CORRELATION_DATA: _row("Correlation Data", _BINARY, *_MESSAGES),
    SUBSCRIPTION_IDENTIFIER: _row(
        "Subscription Identifier", _VARIABLE, PUBLISH, SUBSCRIBE, repeats=(PUBLISH,), least=1
    ),
    SESSION_EXPIRY_INTERVAL: _row("Session Expiry Interval", _FOUR, CONNECT, CONNACK, DISCONNECT),
    ASSIGNED_CLIENT_IDENTIFIER: _row("Assigned Client Identifier", _TEXT, CONNACK),
    SERVER_KEEP_ALIVE: _row("Server Keep Alive", _TWO, CONNACK),
    AUTHENTICATION_METHOD: _row("Authentication Method", _TEXT, CONNECT, CONNACK, AUTH),
    AUTHENTICATION_DATA: _row("Authentication Data", _BINARY, CONNECT, CONNACK, AUTH),
    REQUEST_PROBLEM_INFORMATION: _row("Request Problem Information", _BYTE, CONNECT),
    WILL_DELAY_INTERVAL: _row("Will Delay Interval", _FOUR, WILL),
    REQUEST_RESPONSE_INFORMATION: _row("Request Response Information", _BYTE, CONNECT),
    RESPONSE_INFORMATION: _row("Response Information", _TEXT, CONNACK),
    SERVER_REFERENCE: _row("Server Reference", _TEXT, CONNACK, DISCONNECT),
    REASON_STRING: _row("Reason String", _TEXT, CONNACK, *_ANSWERS, DISCONNECT, AUTH),
    RECEIVE_MAXIMUM: _row("Receive Maximum", _TWO, CONNECT, CONNACK, least=1),
    TOPIC_ALIAS_MAXIMUM: _row("Topic Alias Maximum", _TWO, CONNECT, CONNACK),
    TOPIC_ALIAS: _row("Topic Alias", _TWO, PUBLISH, least=1),
    MAXIMUM_QOS: _row("Maximum QoS", _BYTE, CONNACK),
    RETAIN_AVAILABLE: _row("Retain Available", _BYTE, CONNACK),
    USER_PROPERTY: _row("User Property", _PAIR, *_ALL, repeats=_ALL),
    MAXIMUM_PACKET_SIZE: _row("Maximum Packet Size", _FOUR, CONNECT, CONNACK, least=1),
    WILDCARD_SUBSCRIPTION_AVAILABLE: _row("Wildcard Subscription Available", _BYTE, CONNACK),
    SUBSCRIPTION_IDENTIFIER_AVAILABLE: _row("Subscription Identifier Available", _BYTE, CONNACK),
    SHARED_SUBSCRIPTION_AVAILABLE: _row("Shared Subscription Available", _BYTE, CONNACK),
}

#: Those that belong to a message, and go with it to whoever receives it.
KEPT = frozenset(
    {PAYLOAD_FORMAT_INDICATOR, CONTENT_TYPE, RESPONSE_TOPIC, CORRELATION_DATA, USER_PROPERTY}
)  # [MQTT5-3.3.2-4] [MQTT5-3.3.2-15] [MQTT5-3.3.2-16] [MQTT5-3.3.2-17] [MQTT5-3.3.2-20]


def parse(data: bytes, pos: int, end: int, packet: int) -> tuple[dict[int, Any], int]:
    """The properties whose Property Length stands at `pos`, in a packet of this type (or `WILL`); and what is behind.

    By identifier: numbers as int, texts as str, Binary Data as bytes; of what may stand there more than once a list,
    for the User Property of pairs of bytes. Raises ProtocolError where they are malformed, or against the protocol.
    """
    section, pos = _section(data, pos, end)
    values: dict[int, Any] = {}
    at, end = 0, len(section)
    while at < end:
        identifier = section[at]
        known = PROPERTIES.get(identifier)
        if known is None:
            raise _unknown(identifier, packet)
        if packet not in known.packets:
            raise ProtocolError(f"{_place(packet)} with a {known.name}")  # 2.2.2.2
        value, at = _value(section, at + 1, end, known)
        if packet in known.repeats:
            several = values.setdefault(identifier, [])
            several.append(value)
            if len(several) > MAX_USER_PROPERTIES:
                raise _too_many(packet)
            continue
        if identifier in values:
            raise _twice(packet, known.name)
        values[identifier] = value
    return values, pos


def encode(values: Mapping[int, Any]) -> bytes:
    """A section, without its Property Length, in the order of `values`; they are as `parse` gives them (a text may be
    given as bytes too)."""
    out = []
    for identifier, value in values.items():
        kind = PROPERTIES[identifier].kind
        for one in value if isinstance(value, list | tuple) else (value,):
            out.append(identifier.to_bytes(1, "big"))
            if kind in _SIZES:
                out.append(int(one).to_bytes(_SIZES[kind], "big"))
            elif kind == _VARIABLE:
                out.append(remaining_length(one))
            else:
                out += map(_counted, one if kind == _PAIR else (one,))
    return b"".join(out)


def kept(values: Mapping[int, Any]) -> bytes:
    """The section with what of `values` belongs to the message [MQTT5-3.1.3-10]."""
    return encode({identifier: value for identifier, value in values.items() if identifier in KEPT})


def _counted(string: str | bytes) -> bytes:
    raw = string.encode() if isinstance(string, str) else string
    return len(raw).to_bytes(2, "big") + raw


def _section(data: bytes, pos: int, end: int) -> tuple[bytes, int]:
    size, pos = variable(data, pos, end, "Property Length")
    stop = pos + size
    if stop > end:
        raise ProtocolError("the packet ends inside its properties")
    return data[pos:stop], stop


def _value(section: bytes, at: int, end: int, known: Property) -> tuple[Any, int]:
    kind = known.kind
    if kind == _PAIR:
        name, at = checked_text(section, at, end, known.name)
        value, at = checked_text(section, at, end, known.name)  # [MQTT5-1.5.7-1]
        return (name, value), at
    if kind == _TEXT:
        # [MQTT5-3.3.2-13] [MQTT5-3.3.2-19]
        string, at = text(section, at, end, known.name)
        if known is PROPERTIES[RESPONSE_TOPIC]:
            _check_response_topic(string.encode())
        return string, at
    if kind == _BINARY:
        return field(section, at, end, known.name)
    if kind == _VARIABLE:
        number, at = variable(section, at, end, known.name)
    else:
        stop = at + _SIZES[kind]
        if stop > end:
            raise ProtocolError(f"the packet ends inside its {known.name}")
        number, at = int.from_bytes(section[at:stop], "big"), stop
    if number < known.least or (kind == _BYTE and number > 1):
        raise _out_of_range(known, number)
    return number, at


# --- of a PUBLISH, what the broker does all day ------------------------------------------------------------------


class Published(NamedTuple):
    """The properties of a PUBLISH from a client.

    `kept` is the section without what is the connection's (Topic Alias) or changes while the message waits (Message
    Expiry Interval); everything else is as it came, in its order [MQTT5-3.3.2-18]. `forwardable`: it is all there was.
    """

    alias: int  #: 0: none
    expiry: int | None  #: seconds
    kept: bytes
    forwardable: bool


# What a client's PUBLISH may hold.
_OF_PUBLISH = {
    identifier: row
    for identifier, row in PROPERTIES.items()
    if PUBLISH in row.packets and identifier != SUBSCRIPTION_IDENTIFIER
}

#: Bytes of a section that may be remembered, and how many are: clients send the same ones again and again.
MAX_KNOWN_SIZE = 256
MAX_KNOWN = 1024

#: Sections of PUBLISH that were checked. One that is not right is never here. Look up in it, but use `published`.
known: dict[bytes, Published] = {}


def published(section: bytes) -> Published:
    """What is in the section of a PUBLISH that a client sent."""
    if len(section) > MAX_KNOWN_SIZE:
        return _parse_publish(section)
    found = known.get(section)
    if found is None:
        found = _parse_publish(section)
        if len(known) >= MAX_KNOWN:
            known.clear()
        known[section] = found
    return found


def _parse_publish(section: bytes) -> Published:
    alias = at = pairs = behind = seen = 0
    expiry: int | None = None
    pieces: list[bytes] = []
    end = len(section)
    while at < end:
        start = at
        identifier = section[at]
        if identifier == USER_PROPERTY:
            at = _text_end(section, _text_end(section, at + 1, end, "User Property"), end, "User Property")
            pairs += 1
            if pairs > MAX_USER_PROPERTIES:
                raise _too_many(PUBLISH)
            continue
        row = _OF_PUBLISH.get(identifier)
        if row is None:
            raise _wrong_in_publish(identifier)
        if seen >> identifier & 1:
            raise _twice(PUBLISH, row.name)
        seen |= 1 << identifier
        if identifier == CONTENT_TYPE:
            at = _text_end(section, at + 1, end, row.name)  # [MQTT5-3.3.2-19]
            continue
        value, at = _value(section, at + 1, end, row)
        if identifier == TOPIC_ALIAS:
            alias = value
        elif identifier == MESSAGE_EXPIRY_INTERVAL:
            expiry = value
        else:
            continue
        pieces.append(section[behind:start])
        behind = at
    if not pieces:
        return Published(0, None, section, True)
    pieces.append(section[behind:])
    return Published(alias, expiry, b"".join(pieces), False)


def _text_end(section: bytes, at: int, end: int, name: str) -> int:
    """Where the UTF-8 Encoded String ends that begins at `at`. What is wrong with one is left to `checked_text`."""
    start = at + 2
    if start <= end:
        stop = start + (section[at] << 8 | section[at + 1])
        string = section[start:stop]
        if stop <= end and string.isascii() and 0 not in string:
            return stop
    _, stop = checked_text(section, at, end, name)  # [MQTT5-1.5.7-1]
    return stop


# --- what is wrong -----------------------------------------------------------------------------------------------


def _place(packet: int) -> str:
    return "a will" if packet == WILL else PACKET_NAMES[packet]


def _unknown(identifier: int, packet: int) -> ProtocolError:
    return ProtocolError(f"{_place(packet)} with an unknown property {identifier:#04x}")  # 2.2.2.2


def _wrong_in_publish(identifier: int) -> ProtocolError:
    row = PROPERTIES.get(identifier)
    if row is None:
        return _unknown(identifier, PUBLISH)
    if identifier == SUBSCRIPTION_IDENTIFIER:
        # [MQTT5-3.3.4-6]
        return ProtocolError("PUBLISH of a client with a Subscription Identifier", reason=ReasonCode.PROTOCOL_ERROR)
    return ProtocolError(f"PUBLISH with a {row.name}")  # 2.2.2.2


def _twice(packet: int, name: str) -> ProtocolError:
    return ProtocolError(f"{_place(packet)} with more than one {name}", reason=ReasonCode.PROTOCOL_ERROR)


def _too_many(packet: int) -> ProtocolError:
    return ProtocolError(
        f"{_place(packet)} with more than {MAX_USER_PROPERTIES} User Properties", reason=ReasonCode.QUOTA_EXCEEDED
    )


def _out_of_range(known: Property, number: int) -> ProtocolError:
    """Each of these is stated: a Protocol Error, but for the alias [MQTT5-3.3.2-8]."""
    alias = known is PROPERTIES[TOPIC_ALIAS]
    reason = ReasonCode.TOPIC_ALIAS_INVALID if alias else ReasonCode.PROTOCOL_ERROR
    return ProtocolError(f"a {known.name} of {number}", reason=reason)


def _check_response_topic(topic: bytes) -> None:
    if not topic or b"+" in topic or b"#" in topic:
        # [MQTT5-3.3.2-14] [MQTT5-4.7.3-1]
        raise ProtocolError("a Response Topic that is empty or holds a wildcard", reason=ReasonCode.PROTOCOL_ERROR)
