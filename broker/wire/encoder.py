"""Builds what the broker sends.

Owns: the bytes of every packet that goes to a client. Must not know: to whom they go, or when.
"""

from struct import Struct

from .codes import ReturnCode

PINGRESP = b"\xd0\x00"

_SHORT_HEAD = Struct(">BBH").pack


def connack(code: ReturnCode, session_present: bool) -> bytes:
    """CONNACK. A refusal never says that a session is present [MQTT-3.2.2-4]."""
    return bytes((0x20, 2, session_present and code == ReturnCode.ACCEPTED, code))


def puback(packet_id: int) -> bytes:
    return b"\x40\x02" + packet_id.to_bytes(2, "big")  # [MQTT-2.3.1-6]


def pubrec(packet_id: int) -> bytes:
    return b"\x50\x02" + packet_id.to_bytes(2, "big")


def pubrel(packet_id: int) -> bytes:
    return b"\x62\x02" + packet_id.to_bytes(2, "big")  # [MQTT-3.6.1-1]


def pubcomp(packet_id: int) -> bytes:
    return b"\x70\x02" + packet_id.to_bytes(2, "big")


def suback(packet_id: int, codes: list[int]) -> bytes:
    """SUBACK with one return code per Topic Filter, in the order asked [MQTT-3.8.4-5] [MQTT-3.9.3-1]."""
    body = packet_id.to_bytes(2, "big") + bytes(codes)
    return b"\x90" + remaining_length(len(body)) + body


def unsuback(packet_id: int) -> bytes:
    return b"\xb0\x02" + packet_id.to_bytes(2, "big")


def remaining_length(value: int) -> bytes:
    """The Remaining Length field (MQTT 3.1.1, section 2.2.3), in as few bytes as possible."""
    if value < 128:
        return value.to_bytes(1, "big")
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def publish_head(first: int, topic: bytes, payload_size: int) -> bytes:
    """A PUBLISH up to where the Packet Identifier stands (QoS 1 and 2) or the payload begins (QoS 0)."""
    topic_size = len(topic)
    size = topic_size + payload_size + (4 if first & 6 else 2)
    if size < 128:
        return _SHORT_HEAD(first, size, topic_size) + topic
    return b"%c%b%b%b" % (first, remaining_length(size), topic_size.to_bytes(2, "big"), topic)


def packet_size(data: bytes) -> int:
    """How long the packet is that begins with these bytes, its fixed header at least."""
    size = data[1]
    if size < 128:
        return size + 2
    size &= 127
    position = 2
    while True:
        byte = data[position]
        size |= (byte & 127) << 7 * (position - 1)
        position += 1
        if byte < 128:
            return position + size
