"""What a packet says, as an event and its fields, for people who look for a mistake.

Owns: which of a packet's contents are shown. Must not know: who asks. Payloads and passwords are never shown.
"""

import contextlib
import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from . import properties
from .codes import (
    AUTH,
    CONNACK,
    CONNECT,
    DISCONNECT,
    MQTT_3_1_1,
    MQTT_5,
    PACKET_NAMES,
    PINGRESP,
    PUBACK,
    PUBLISH,
    SUBACK,
    SUBSCRIBE,
    UNSUBACK,
    UNSUBSCRIBE,
    VERSION_NAMES,
    ProtocolError,
)
from .connect import Connect
from .encoder import packet_size
from .encoder5 import section
from .filters import MAXIMUM_QOS, NO_LOCAL, RETAIN_AS_PUBLISHED, RETAIN_HANDLING
from .packets import Packet
from .properties import Published

Fields = dict[str, object]

# What a CONNECT of MQTT 5.0 says besides, as it stands there.
_CONNECT_5 = (
    "receive_maximum", "session_expiry", "max_packet_size", "topic_alias_maximum", "request_response",
    "request_problem", "auth_method",
)  # fmt: skip

#: Topic Filters, or return codes, that are shown of one packet.
MAX_SHOWN = 20


def describe_received(packet: Packet) -> tuple[str, Fields]:
    """A packet as the decoder yields it."""
    first = packet[0]
    kind = first >> 4
    event = f"received {PACKET_NAMES[kind]}"
    if kind == PUBLISH:
        _, topic, frame, payload_at, packet_id, *published = packet
        fields = _publish(first, topic, packet_id, len(frame) - payload_at)
        if published and published[0] is not None:
            fields.update(_published(published[0]))
        return event, fields
    if kind == CONNECT:
        return event, _connect(packet[1])
    if kind == SUBSCRIBE:
        filters = (b"%b:%d%b" % (wanted, options & MAXIMUM_QOS, _options(options)) for wanted, options in packet[2])
        identifier = {"subscription_identifier": packet[3]} if packet[3:] and packet[3] else {}
        return event, {"packet_id": packet[1], **identifier, "filters": _list(filters)}
    if kind == UNSUBSCRIBE:
        return event, {"packet_id": packet[1], "filters": _list(packet[2])}
    if kind == DISCONNECT:
        return event, _leave_out(reason=_reason(packet[1]), session_expiry=packet[2]) if len(packet) > 1 else {}
    if kind == AUTH:
        _, reason, method, data = packet
        return event, {"reason": _reason(reason), "method": method, "data_size": len(data)}
    if len(packet) == 3:
        return event, {"packet_id": packet[1], "reason": _reason(packet[2])}
    return event, {"packet_id": packet[1]} if len(packet) > 1 else {}


def describe_sent(data: bytes, version: int = MQTT_3_1_1) -> Iterator[tuple[str, Fields]]:
    """The packets that the broker sends with these bytes; all of them are whole."""
    position = 0
    while position < len(data):
        size = packet_size(data[position : position + 5])
        yield _sent(data, position, position + size, version)
        position += size


def _sent(data: bytes, start: int, end: int, version: int) -> tuple[str, Fields]:
    first = data[start]
    kind = first >> 4
    event = f"sent {PACKET_NAMES[kind]}"
    body = start + 2
    while data[body - 1] & 128:
        body += 1
    if kind == PUBLISH:
        payload_at = topic_end = body + 2 + int.from_bytes(data[body : body + 2], "big")
        packet_id = 0
        if first & 6:
            payload_at += 2
            packet_id = int.from_bytes(data[topic_end:payload_at], "big")
        said: dict[int, Any] = {}
        if version == MQTT_5:
            said, payload_at = properties.parse(data, payload_at, end, PUBLISH)
        return event, _publish(first, data[body + 2 : topic_end], packet_id, end - payload_at) | _properties(said)
    if version == MQTT_5:
        return event, _sent_5(kind, data, body, end)
    if kind == CONNACK:
        return event, {"code": data[body + 1], "session_present": bool(data[body] & 1)}
    if body == end:
        return event, {}
    fields: Fields = {"packet_id": int.from_bytes(data[body : body + 2], "big")}
    if kind == SUBACK:
        fields["codes"] = _list(b"%d" % code for code in data[body + 2 : end])
    return event, fields


def _sent_5(kind: int, data: bytes, body: int, end: int) -> Fields:
    """Any packet but PUBLISH."""
    if kind == CONNACK:
        said, _ = properties.parse(data, body + 2, end, kind)
        return {"reason": _reason(data[body + 1]), "session_present": bool(data[body] & 1), **_properties(said)}
    fields: Fields = {}
    if PUBACK <= kind <= UNSUBACK:
        fields["packet_id"] = int.from_bytes(data[body : body + 2], "big")
        body += 2
    if kind in (SUBACK, UNSUBACK):
        said, body = properties.parse(data, body, end, kind)
        return {**fields, "reasons": _list(b"%d" % reason for reason in data[body:end]), **_properties(said)}
    if kind == PINGRESP:
        return fields
    fields["reason"] = _reason(data[body] if body < end else 0)
    if body + 1 < end:
        said, _ = properties.parse(data, body + 1, end, kind)
        fields.update(_properties(said))
    return fields


def _publish(first: int, topic: bytes, packet_id: int, size: int) -> Fields:
    qos = first >> 1 & 3
    fields: Fields = {"packet_id": packet_id} if qos else {}
    fields.update(topic=topic, qos=qos)
    if first & 8:
        fields["dup"] = True
    if first & 1:
        fields["retain"] = True
    fields["payload_size"] = size
    return fields


def _published(published: Published) -> Fields:
    """The properties of a PUBLISH as they are kept, in the terms of those that are sent."""
    whole = section(published.kept)
    said, _ = properties.parse(whole, 0, len(whole), PUBLISH)
    return _leave_out(topic_alias=published.alias or None, message_expiry_interval=published.expiry) | _properties(said)


def _properties(said: Mapping[int, Any]) -> Fields:
    """Properties by their names. Of what may be secret, or long, only the size, or how many there are."""
    fields: Fields = {}
    for identifier, value in said.items():
        name = properties.PROPERTIES[identifier].name.lower().replace(" ", "_")
        if identifier == properties.USER_PROPERTY:
            fields["user_properties"] = len(value)
        elif identifier in (properties.CORRELATION_DATA, properties.AUTHENTICATION_DATA):
            fields[f"{name}_size"] = len(value)
        elif isinstance(value, list):
            fields[name] = _list(b"%d" % one for one in value)
        else:
            fields[name] = value
    return fields


def _options(options: int) -> bytes:
    """The Subscription Options besides QoS, as far as they are not the usual ones."""
    return b"%b%b%b" % (
        b" no-local" if options & NO_LOCAL else b"",
        b" retain-as-published" if options & RETAIN_AS_PUBLISHED else b"",
        b" retain-handling=%d" % (options >> 4) if options & RETAIN_HANDLING else b"",
    )


def _reason(code: int) -> str:
    return f"{code:#04x}"


def _leave_out(**fields: object) -> Fields:
    """Those that are not None."""
    return {name: value for name, value in fields.items() if value is not None}


def _connect(connect: Connect) -> Fields:
    fields: Fields = {
        "client": connect.client_id,
        "version": VERSION_NAMES[connect.version],
        "clean": connect.clean_session,
        "keep_alive": connect.keep_alive,
    }
    if connect.bridge:
        fields["bridge"] = True
    if connect.username is not None:
        fields["user"] = connect.username
    if connect.password is not None:
        fields["password"] = "given"
    will = connect.will
    if will is not None:
        fields.update(
            will_topic=will.topic, will_qos=will.qos, will_retain=will.retain, will_payload_size=len(will.payload)
        )
    if connect.version == MQTT_5:
        fields.update(_connect_5(connect))
    return fields


def _connect_5(connect: Connect) -> Fields:
    """What it says besides, as far as that is not the usual thing."""
    will = connect.will
    usual = Connect(MQTT_5, "", False, 0, None, None, None)
    fields: Fields = {}
    if will is not None:
        fields.update(_leave_out(will_delay=will.delay or None, will_expiry=will.expiry))
    for name in _CONNECT_5:
        if getattr(connect, name) != getattr(usual, name):
            fields[name] = getattr(connect, name)
    if connect.user_properties:
        fields["user_properties"] = len(connect.user_properties)
    return fields


def _list(all_of_them: Iterable[bytes]) -> bytes:
    """The first of them. A long list is read only as far as that; if it is malformed, that is found later."""
    shown: list[bytes] = []
    with contextlib.suppress(ProtocolError):
        shown.extend(itertools.islice(all_of_them, MAX_SHOWN + 1))
    return b", ".join([*shown[:MAX_SHOWN], *([b"..."] if len(shown) > MAX_SHOWN else [])])
