"""Cuts a stream of MQTT 5.0 into packets.

Owns: the fixed header, packet boundaries, and the bodies that only MQTT 5.0 has. Must not know: what a packet does, or
whether this is the moment for it.
"""

from __future__ import annotations

from struct import Struct
from typing import Any

from . import properties
from .codes import (
    AUTH,
    CONNECT,
    DISCONNECT,
    PACKET_NAMES,
    PINGREQ,
    PUBACK,
    PUBCOMP,
    PUBLISH,
    PUBREC,
    PUBREL,
    SUBSCRIBE,
    UNSUBSCRIBE,
    ProtocolError,
    ReasonCode,
)
from .fields import packet_identifier, variable
from .packets import Packet, parse_connect, parse_subscribe_5, parse_unsubscribe
from .properties import known, published
from .stream import Stream

# The first bytes that a client may send, PUBLISH aside [MQTT5-2.1.3-1] [MQTT5-3.6.1-1] [MQTT5-3.8.1-1]
# [MQTT5-3.10.1-1] [MQTT5-3.14.1-1] [MQTT5-3.15.1-1].
_FIRST_BYTES = frozenset({0x10, 0x40, 0x50, 0x62, 0x70, 0x82, 0xA2, 0xC0, 0xE0, 0xF0})

# The reason codes that a client may give (tables 3-4 to 3-7, 3-10, 3-11).
_OF_PUBLISHES = frozenset({0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99})  # [MQTT5-3.4.2-1] [MQTT5-3.5.2-1]
_OF_RELEASES = frozenset({0x00, 0x92})  # [MQTT5-3.6.2-1] [MQTT5-3.7.2-1]
_REASONS = {
    PUBACK: _OF_PUBLISHES,
    PUBREC: _OF_PUBLISHES,
    PUBREL: _OF_RELEASES,
    PUBCOMP: _OF_RELEASES,
    # [MQTT5-3.14.2-1]
    DISCONNECT: frozenset(
        {0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8C, *range(0x8D, 0x91), *range(0x93, 0xA3)}
    ),
    AUTH: frozenset({0x18, 0x19}),  # [MQTT5-3.15.2-1] [MQTT5-4.12.0-3]
}

#: Bytes of properties that are read in a microsecond: many short ones take longest.
PROPERTIES = 12
#: Microseconds after which others shall have their turn.
MUCH = 500

_HEAD = Struct(">BBH").unpack_from
_PACKET_ID = Struct(">H").unpack_from


class Version5(Stream):
    """What reads MQTT 5.0 from a stream."""

    __slots__ = ()

    def _decode_5(self, limit: int) -> list[Packet]:
        """The next packets that are whole, as Decoder.decode gives them."""
        packets: list[Packet] = []
        data, pos, size, self.effort = self._data, self._pos, len(self._data), 0
        append = packets.append
        try:
            for _ in range(limit):
                if pos + 2 > size:
                    break
                # Written out here is what a broker does all day: short PUBLISHes without properties or with some that
                # came before, and acknowledgements. Whatever is odd about one of them is left to the general way.
                if pos + 4 <= size:
                    first, length, number = _HEAD(data, pos)
                    end = pos + 2 + length
                    if length < 128 and end <= size:
                        if first == 0x30:
                            at = pos + 4 + number
                            if at < end:
                                section = data[at]
                                if not section:
                                    if number:
                                        append((0x30, data[pos + 4 : at], data[pos:end], 5 + number, 0, None))
                                        pos = end
                                        continue
                                elif section < 128 and at + section < end:
                                    key = data[at + 1 : at + 1 + section]
                                    found = known.get(key) or published(key)
                                    if number or found.alias:
                                        payload_at = 5 + number + section
                                        append((0x30, data[pos + 4 : at], data[pos:end], payload_at, 0, found))
                                        pos = end
                                        continue
                        elif length == 2:
                            if number and (first == 0x40 or first == 0x50 or first == 0x62 or first == 0x70):
                                append((first, number, 0))
                                pos = end
                                continue
                        elif first == 0x32 or first == 0x34:
                            at = pos + 6 + number
                            if at < end:
                                (packet_id,) = _PACKET_ID(data, at - 2)
                                section = data[at]
                                payload_at = at + 1 + section
                                if packet_id and section < 128 and payload_at <= end:
                                    told = published(data[at + 1 : payload_at]) if section else None
                                    if number or (told and told.alias):
                                        topic = data[pos + 4 : at - 2]
                                        append((first, topic, data[pos:end], payload_at - pos, packet_id, told))
                                        pos = end
                                        continue
                next_pos = self._decode_any_5(packets, data, pos)
                if next_pos is None:
                    return packets
                enough = next_pos == pos or self.effort > MUCH
                pos = next_pos
                if enough:
                    break
        except ProtocolError as error:
            return self._fail(error, data, pos, packets)
        self._keep(data, pos, len(packets) < limit and not self.effort)
        return packets

    def _decode_any_5(self, packets: list[Packet], data: bytes, pos: int) -> int | None:
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
                    if not byte:
                        raise ProtocolError("a Remaining Length that is longer than need be")  # [MQTT5-1.5.5-1]
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
                    raise ProtocolError("PUBLISH with DUP at QoS 0")  # [MQTT5-3.3.1-2]
            elif first & 6 == 6:
                raise ProtocolError("PUBLISH with QoS 3")  # [MQTT5-3.3.1-4]
        elif first not in _FIRST_BYTES:
            raise _bad_first_byte(first)
        if end > size:
            self._await(data, pos, end)
            return None
        if kind == PUBLISH:
            packet = _publish(first, data, pos, body, end)
            packets.append(packet)
            if packet[5] is not None:
                self.effort += len(packet[5].kept) // PROPERTIES
        elif kind == CONNECT:
            packets.append((first, parse_connect(data, body, end, self.versions)))
        else:
            packets.append(_READERS[kind](first, data, body, end))
        return end


def _publish(first: int, data: bytes, pos: int, body: int, end: int) -> Packet:
    """The PUBLISH from `pos` to `end`, whose variable header starts at `body`."""
    if end - body < 2:
        raise ProtocolError("PUBLISH ends before its Topic Name")
    topic_at = body + 2
    at = topic_end = topic_at + ((data[body] << 8) | data[body + 1])
    packet_id = 0
    if first & 6:
        at += 2
    if at >= end:
        raise ProtocolError("PUBLISH ends before its Property Length")
    if first & 6:
        packet_id = packet_identifier(PUBLISH, data, topic_end)
    found = None
    payload_at = at + 1
    if data[at]:
        length, at = variable(data, at, end, "Property Length")
        payload_at = at + length
        if payload_at > end:
            raise ProtocolError("PUBLISH ends inside its properties")
        found = published(data[at:payload_at])
    if topic_end == topic_at and (found is None or not found.alias):
        raise ProtocolError("PUBLISH with neither a topic nor a Topic Alias", reason=ReasonCode.PROTOCOL_ERROR)  # 3.3.2
    return first, data[topic_at:topic_end], data[pos:end], payload_at - pos, packet_id, found


def _acknowledgement(first: int, data: bytes, body: int, end: int) -> Packet:
    """PUBACK, PUBREC, PUBREL or PUBCOMP: success if it says no more than that."""
    kind = first >> 4
    if end - body < 2:
        raise ProtocolError(f"{PACKET_NAMES[kind]} ends before its Packet Identifier")
    packet_id = packet_identifier(kind, data, body)
    reason, _ = _outcome(kind, data, body + 2, end)
    return first, packet_id, reason


def _outcome(kind: int, data: bytes, pos: int, end: int) -> tuple[int, dict[int, Any]]:
    """The reason code and the properties with which a packet ends. What is left out is 0, and none."""
    if pos == end:
        return 0, {}
    reason = data[pos]
    if reason not in _REASONS[kind]:
        raise ProtocolError(
            f"{PACKET_NAMES[kind]} with reason code {reason:#04x}", reason=ReasonCode.PROTOCOL_ERROR
        )  # (the labels are at _REASONS)
    if pos + 1 == end:
        return reason, {}
    said, pos = properties.parse(data, pos + 1, end, kind)
    if pos != end:
        raise ProtocolError(f"{PACKET_NAMES[kind]} with bytes after its properties")
    return reason, said


def _subscribe(first: int, data: bytes, body: int, end: int) -> Packet:
    packet_id, said, pos = _request(SUBSCRIBE, data, body, end)
    identifier = said.get(properties.SUBSCRIPTION_IDENTIFIER, 0)
    return first, packet_id, parse_subscribe_5(data, pos, end), identifier


def _unsubscribe(first: int, data: bytes, body: int, end: int) -> Packet:
    packet_id, _, pos = _request(UNSUBSCRIBE, data, body, end)
    return first, packet_id, parse_unsubscribe(data, pos, end)


def _request(kind: int, data: bytes, body: int, end: int) -> tuple[int, dict[int, Any], int]:
    """A Packet Identifier, properties, and where the payload begins."""
    if end - body < 2:
        raise ProtocolError(f"{PACKET_NAMES[kind]} ends before its Packet Identifier")
    packet_id = packet_identifier(kind, data, body)
    said, pos = properties.parse(data, body + 2, end, kind)
    return packet_id, said, pos


def _pingreq(first: int, data: bytes, body: int, end: int) -> Packet:
    if body != end:
        raise ProtocolError("PINGREQ with a payload")
    return (first,)


def _disconnect(first: int, data: bytes, body: int, end: int) -> Packet:
    reason, said = _outcome(DISCONNECT, data, body, end)
    return first, reason, said.get(properties.SESSION_EXPIRY_INTERVAL)


def _auth(first: int, data: bytes, body: int, end: int) -> Packet:
    if body == end:
        raise ProtocolError("AUTH with reason code 0x00", reason=ReasonCode.PROTOCOL_ERROR)  # [MQTT5-4.12.0-3]
    reason, said = _outcome(AUTH, data, body, end)
    method = said.get(properties.AUTHENTICATION_METHOD)
    if method is None:
        # 3.15.2.2.2 [MQTT5-4.12.0-5]
        raise ProtocolError("AUTH without an Authentication Method", reason=ReasonCode.PROTOCOL_ERROR)
    return first, reason, method, said.get(properties.AUTHENTICATION_DATA, b"")


_READERS = {
    **dict.fromkeys((PUBACK, PUBREC, PUBREL, PUBCOMP), _acknowledgement),
    SUBSCRIBE: _subscribe,
    UNSUBSCRIBE: _unsubscribe,
    PINGREQ: _pingreq,
    DISCONNECT: _disconnect,
    AUTH: _auth,
}


def _bad_first_byte(first: int) -> ProtocolError:
    kind = first >> 4
    name = PACKET_NAMES[kind]
    if kind == 0:
        return ProtocolError(name)  # 2.1.2
    if any(right >> 4 == kind for right in _FIRST_BYTES):
        return ProtocolError(f"{name} with header flags {first & 15:04b}")  # [MQTT5-2.1.3-1]
    return ProtocolError(f"{name} sent by a client", reason=ReasonCode.PROTOCOL_ERROR)
