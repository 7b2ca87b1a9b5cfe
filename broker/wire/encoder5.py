"""Builds what the broker sends in MQTT 5.0, where it differs from MQTT 3.1.1.

Owns: the bytes of these packets. Must not know: to whom they go, or when; what of them a client has no room for.

`properties` is a section without its Property Length, as broker.wire.properties.encode makes it. Reason codes are
those of broker.wire.codes.ReasonCode.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct

from .codes import AUTH, CONNACK, DISCONNECT, SUBACK, UNSUBACK
from .encoder import remaining_length

_SHORT_HEAD = Struct(">BBH").pack


def connack(reason: int, present: bool, properties: bytes = b"") -> bytes:
    """CONNACK. Only a success says that a session is present [MQTT5-3.2.2-6]."""
    return _packet(CONNACK << 4, bytes((present and not reason, reason)) + section(properties))  # [MQTT5-3.2.2-1]


def ack(first: int, packet_id: int, reason: int = 0, properties: bytes = b"") -> bytes:
    """PUBACK, PUBREC, PUBREL or PUBCOMP, by its first byte, as short as it can be [MQTT5-2.2.1-5]."""
    body = packet_id.to_bytes(2, "big")
    if properties:
        return _packet(first, body + reason.to_bytes(1, "big") + section(properties))
    if reason:
        return b"%c\x03%b%c" % (first, body, reason)
    return b"%c\x02%b" % (first, body)


def suback(packet_id: int, reasons: Sequence[int], properties: bytes = b"") -> bytes:
    """SUBACK with one reason code per Topic Filter, in the order asked [MQTT5-3.8.4-6] [MQTT5-3.9.3-1]."""
    return _packet(SUBACK << 4, packet_id.to_bytes(2, "big") + section(properties) + bytes(reasons))


def unsuback(packet_id: int, reasons: Sequence[int], properties: bytes = b"") -> bytes:
    """UNSUBACK, likewise [MQTT5-3.11.3-1]."""
    return _packet(UNSUBACK << 4, packet_id.to_bytes(2, "big") + section(properties) + bytes(reasons))


def disconnect(reason: int = 0, properties: bytes = b"") -> bytes:
    return _packet(DISCONNECT << 4, _outcome(reason, properties))


def auth(reason: int, properties: bytes) -> bytes:
    """AUTH, whose properties hold the Authentication Method [MQTT5-4.12.0-5]."""
    return _packet(AUTH << 4, reason.to_bytes(1, "big") + section(properties))


def publish_head(first: int, topic: bytes, section_size: int, payload_size: int) -> bytes:
    """A PUBLISH up to where the Packet Identifier stands (QoS 1 and 2) or the properties begin (QoS 0).
    `section_size` is that of the properties with the Property Length in front."""
    topic_size = len(topic)
    size = topic_size + section_size + payload_size + (4 if first & 6 else 2)
    if size < 128:
        return _SHORT_HEAD(first, size, topic_size) + topic
    return b"%c%b%b%b" % (first, remaining_length(size), topic_size.to_bytes(2, "big"), topic)


def section(properties: bytes) -> bytes:
    """Properties with the Property Length in front [MQTT5-2.2.2-1]."""
    return remaining_length(len(properties)) + properties


def _outcome(reason: int, properties: bytes) -> bytes:
    if properties:
        return reason.to_bytes(1, "big") + section(properties)
    return reason.to_bytes(1, "big") if reason else b""


def _packet(first: int, body: bytes) -> bytes:
    return b"%c%b%b" % (first, remaining_length(len(body)), body)
