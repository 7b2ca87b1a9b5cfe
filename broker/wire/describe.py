"""What a packet says, as an event and its fields, for people who look for a mistake.

Owns: which of a packet's contents are shown. Must not know: who asks. Payloads and passwords are never shown.
"""

import contextlib
import itertools
from collections.abc import Iterable, Iterator

from .codes import (
    CONNACK,
    CONNECT,
    MQTT_3_1,
    PACKET_NAMES,
    PUBLISH,
    SUBACK,
    SUBSCRIBE,
    UNSUBSCRIBE,
    ProtocolError,
)
from .encoder import packet_size
from .packets import Connect, Packet

Fields = dict[str, object]

#: Topic Filters, or return codes, that are shown of one packet.
MAX_SHOWN = 20


def describe_received(packet: Packet) -> tuple[str, Fields]:
    """A packet as the decoder yields it."""
    first = packet[0]
    kind = first >> 4
    event = f"received {PACKET_NAMES[kind]}"
    if kind == PUBLISH:
        _, topic, frame, payload_at, packet_id = packet
        return event, _publish(first, topic, packet_id, len(frame) - payload_at)
    if kind == CONNECT:
        return event, _connect(packet[1])
    if kind == SUBSCRIBE:
        filters = (b"%b:%d" % wanted for wanted in packet[2])
        return event, {"packet_id": packet[1], "filters": _list(filters)}
    if kind == UNSUBSCRIBE:
        return event, {"packet_id": packet[1], "filters": _list(packet[2])}
    return event, {"packet_id": packet[1]} if len(packet) > 1 else {}


def describe_sent(data: bytes) -> Iterator[tuple[str, Fields]]:
    """The packets that the broker sends with these bytes; all of them are whole."""
    position = 0
    while position < len(data):
        size = packet_size(data[position : position + 5])
        yield _sent(data, position, position + size)
        position += size


def _sent(data: bytes, start: int, end: int) -> tuple[str, Fields]:
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
        return event, _publish(first, data[body + 2 : topic_end], packet_id, end - payload_at)
    if kind == CONNACK:
        return event, {"code": data[body + 1], "session_present": bool(data[body] & 1)}
    if body == end:
        return event, {}
    fields: Fields = {"packet_id": int.from_bytes(data[body : body + 2], "big")}
    if kind == SUBACK:
        fields["codes"] = _list(b"%d" % code for code in data[body + 2 : end])
    return event, fields


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


def _connect(connect: Connect) -> Fields:
    fields: Fields = {
        "client": connect.client_id,
        "version": "3.1" if connect.version == MQTT_3_1 else "3.1.1",
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
    return fields


def _list(all_of_them: Iterable[bytes]) -> bytes:
    """The first of them. A long list is read only as far as that; if it is malformed, that is found later."""
    shown: list[bytes] = []
    with contextlib.suppress(ProtocolError):
        shown.extend(itertools.islice(all_of_them, MAX_SHOWN + 1))
    return b", ".join([*shown[:MAX_SHOWN], *([b"..."] if len(shown) > MAX_SHOWN else [])])
