"""Cuts a stream of bytes into packets.

Owns: the fixed header and packet boundaries of MQTT 3.1.1 and 3.1, and which version is read. Must not know: what a
packet does, or whether this is the moment for it; how MQTT 5.0 is read (decoder5); how bytes are kept (stream).

Rule of the house: the stream may arrive in any pieces, and gives the same packets, or the same one ProtocolError behind
the same packets.
"""

from __future__ import annotations

from struct import Struct

from .codes import (
    AUTH,
    CONNECT,
    DISCONNECT,
    MQTT_3_1,
    MQTT_5,
    PACKET_NAMES,
    PINGREQ,
    PUBACK,
    PUBCOMP,
    PUBLISH,
    SUBSCRIBE,
    UNSUBSCRIBE,
    ProtocolError,
)
from .decoder5 import Version5
from .encoder import remaining_length
from .fields import packet_identifier
from .packets import Packet, parse_connect, parse_subscribe, parse_unsubscribe
from .stream import Stream

# The first bytes that a client may send, PUBLISH aside [MQTT-2.2.2-1]. PUBREL, SUBSCRIBE and UNSUBSCRIBE carry the
# flags 0010 [MQTT-3.6.1-1] [MQTT-3.8.1-1] [MQTT-3.10.1-1], the others 0000.
_FIRST_BYTES = frozenset({0x10, 0x40, 0x50, 0x62, 0x70, 0x82, 0xA2, 0xC0, 0xE0})
# MQTT 3.1 uses none of those flags where 3.1.1 asks for 0000, and on the other three QoS alone, which is 1: what else
# is set there means nothing (DUP: it is sent again).
_FIRST_BYTES_3_1 = frozenset(
    [first | flags for first in (0x40, 0x50, 0x70, 0xC0, 0xE0) for flags in range(16)]
    + [first | flags for first in (0x62, 0x82, 0xA2) for flags in (0, 1, 8, 9)]
)
# What a CONNECT may begin with, until it says whether it is of MQTT 3.1. One of these is the beginning of TLS.
_CONNECTS = frozenset(range(0x10, 0x20)) - {0x16}

# The beginning of most packets: first byte, a Remaining Length of one byte, then a topic's length or a Packet
# Identifier.
_HEAD = Struct(">BBH").unpack_from
_PACKET_ID = Struct(">H").unpack_from


class Decoder(Version5):
    """Turns what one client sends into packets (their shapes: broker.wire.packets)."""

    __slots__ = ()

    def become(self, other: Decoder) -> Decoder:
        """Let `other` go on where this one stands."""
        for name in Stream.__slots__:
            setattr(other, name, getattr(self, name))
        return other

    def decode(self, limit: int) -> list[Packet]:
        """The next packets that are whole, `limit` of them at most; an empty list when more bytes are needed.

        Raises ProtocolError where the next packet is malformed, and again at every later call.
        """
        if self.error is not None:
            raise self.error
        if self.version == MQTT_5:
            return self._decode_5(limit)
        packets: list[Packet] = []
        data, pos = self._data, self._pos
        size = len(data)
        append = packets.append
        try:
            for _ in range(limit):
                if pos + 2 > size:
                    break
                # Written out here is what a broker does all day: short PUBLISHes, and acknowledgements. Whatever is odd
                # about one of them is left to the general way below.
                if pos + 4 <= size:
                    first, length, number = _HEAD(data, pos)
                    end = pos + 2 + length
                    if length < 128 and end <= size:
                        if first == 0x30:
                            payload_at = 4 + number
                            if 2 + length >= payload_at:
                                append((0x30, data[pos + 4 : pos + payload_at], data[pos:end], payload_at, 0))
                                pos = end
                                continue
                        elif length == 2:
                            if number and (first == 0x40 or first == 0x50 or first == 0x62 or first == 0x70):
                                append((first, number))
                                pos = end
                                continue
                        elif first == 0x32 or first == 0x34:
                            payload_at = 6 + number
                            if 2 + length >= payload_at:
                                (packet_id,) = _PACKET_ID(data, pos + 4 + number)
                                if packet_id:
                                    topic = data[pos + 4 : pos + 4 + number]
                                    append((first, topic, data[pos:end], payload_at, packet_id))
                                    pos = end
                                    continue
                next_pos = self._decode_any(packets, data, pos)
                if next_pos is None:
                    return packets
                if next_pos == pos:
                    break
                pos = next_pos
        except ProtocolError as error:
            return self._fail(error, data, pos, packets)
        self._keep(data, pos, len(packets) < limit)
        return packets

    def _decode_any(self, packets: list[Packet], data: bytes, pos: int) -> int | None:
        """Decode the packet at `pos`, whatever it is. Returns where the next one begins: `pos` if its header is not
        whole, and None if the rest of it is waited for."""
        size = len(data)
        first = data[pos]
        length = data[pos + 1]
        body = pos + 2
        if length > 127:
            length &= 127
            shift = 7
            while body < size:
                byte = data[body]
                body += 1
                length |= (byte & 127) << shift
                if byte < 128:
                    break
                shift += 7
                if shift > 21:
                    raise ProtocolError("a Remaining Length of more than four bytes")
            else:
                return pos
        end = body + length
        if end - pos > self.max_size:
            raise self._too_large(end - pos)
        kind = first >> 4
        if kind == PUBLISH:
            if first & 6 == 0:
                if first & 8:
                    raise ProtocolError("PUBLISH with DUP at QoS 0")  # [MQTT-3.3.1-2]
            elif first & 6 == 6:
                raise ProtocolError("PUBLISH with QoS 3")  # [MQTT-3.3.1-4]
        elif first not in (_FIRST_BYTES if self.version != MQTT_3_1 else _FIRST_BYTES_3_1) and first not in _CONNECTS:
            raise _bad_first_byte(first)
        elif PUBACK <= kind <= PUBCOMP and length != 2:
            raise ProtocolError(f"{PACKET_NAMES[kind]} with Remaining Length {length}")
        if end > size:
            self._await(data, pos, end)
            return None
        if kind == PUBLISH:
            packets.append(_publish(first, data, pos, body, end))
        elif PUBACK <= kind <= PUBCOMP:
            packets.append((first, packet_identifier(kind, data, body)))
        else:
            packets.append(_parse_rare(kind, first, data, body, end, self.versions))
        return end


def _publish(first: int, data: bytes, pos: int, body: int, end: int) -> Packet:
    """The PUBLISH from `pos` to `end`, whose variable header starts at `body`."""
    if end - body < 2:
        raise ProtocolError("PUBLISH ends before its Topic Name")
    topic_at = body + 2
    topic_end = payload_at = topic_at + ((data[body] << 8) | data[body + 1])
    packet_id = 0
    if first & 6:
        payload_at += 2
    if payload_at > end:
        raise ProtocolError("PUBLISH ends before its payload begins")
    if first & 6:
        packet_id = packet_identifier(PUBLISH, data, topic_end)
    frame = data[pos:end]
    if body - pos > 2 and data[body - 1] == 0:
        # A Remaining Length longer than need be. The frame may go out again, so it is put right here.
        frame = data[pos : pos + 1] + remaining_length(end - body) + data[body:end]
    return first, data[topic_at:topic_end], frame, len(frame) - (end - payload_at), packet_id


def _parse_rare(kind: int, first: int, data: bytes, body: int, end: int, versions: frozenset[int]) -> Packet:
    if kind == CONNECT:
        connect = parse_connect(data, body, end, versions)
        if first not in _FIRST_BYTES and connect.version != MQTT_3_1:
            error = _bad_first_byte(first)
            error.level = MQTT_5 if connect.version == MQTT_5 else 0
            raise error
        return first, connect
    if kind in (PINGREQ, DISCONNECT):
        if body != end:
            raise ProtocolError(f"{PACKET_NAMES[kind]} with a payload")
        return (first,)
    if end - body < 2:
        raise ProtocolError(f"{PACKET_NAMES[kind]} ends before its Packet Identifier")
    packet_id = packet_identifier(kind, data, body)
    if kind == SUBSCRIBE:
        return first, packet_id, parse_subscribe(data, body + 2, end)
    assert kind == UNSUBSCRIBE
    return first, packet_id, parse_unsubscribe(data, body + 2, end)


def _bad_first_byte(first: int) -> ProtocolError:
    kind = first >> 4
    name = PACKET_NAMES[kind]
    if kind == AUTH:
        return ProtocolError(f"{name}, which only MQTT 5.0 has")  # [MQTT-2.2.2-2]
    if any(known >> 4 == kind for known in _FIRST_BYTES):
        return ProtocolError(f"{name} with header flags {first & 15:04b}")  # [MQTT-2.2.2-2] [MQTT-3.14.1-1]
    return ProtocolError(f"{name} sent by a client")
