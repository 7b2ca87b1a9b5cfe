"""The data types of which packets are made (MQTT 5.0, section 1.5).

Owns: how fields are read, and which are malformed. Must not know: the packets that they stand in.

Each reader takes the bytes, where the field begins, where the packet ends, and what the field is called; it gives the
value and where the next field begins.
"""

from .codes import PACKET_NAMES, ProtocolError, ReasonCode


def field(data: bytes, pos: int, end: int, name: str) -> tuple[bytes, int]:
    """Bytes with their length in two bytes in front: Binary Data, or a string that is not checked."""
    start = pos + 2
    if start > end:
        raise ProtocolError(f"the packet ends before its {name}")
    stop = start + ((data[pos] << 8) | data[pos + 1])
    if stop > end:
        raise ProtocolError(f"the packet ends inside its {name}")
    return data[start:stop], stop


def text(data: bytes, pos: int, end: int, name: str) -> tuple[str, int]:
    """A UTF-8 Encoded String."""
    raw, pos = checked_text(data, pos, end, name)
    return raw.decode(), pos


def checked_text(data: bytes, pos: int, end: int, name: str) -> tuple[bytes, int]:
    """A UTF-8 Encoded String whose bytes are wanted, not its characters."""
    raw, pos = field(data, pos, end, name)
    if not raw.isascii():
        try:
            raw.decode()
        except UnicodeDecodeError:
            raise ProtocolError(f"the {name} is not valid UTF-8") from None  # [MQTT-1.5.3-1] [MQTT5-1.5.4-1]
    if 0 in raw:
        raise ProtocolError(f"the {name} holds NUL")  # [MQTT-1.5.3-2] [MQTT5-1.5.4-2]
    return raw, pos


def variable(data: bytes, pos: int, end: int, name: str) -> tuple[int, int]:
    """A Variable Byte Integer (MQTT 5.0, section 1.5.5)."""
    value = shift = 0
    while True:
        if pos >= end:
            raise ProtocolError(f"the packet ends inside its {name}")
        byte = data[pos]
        pos += 1
        value |= (byte & 127) << shift
        if byte < 128:
            if byte == 0 and shift:
                raise ProtocolError(f"the {name} is longer than need be")  # [MQTT5-1.5.5-1]
            return value, pos
        shift += 7
        if shift > 21:
            raise ProtocolError(f"a {name} of more than four bytes")


def packet_identifier(kind: int, data: bytes, pos: int) -> int:
    """The Packet Identifier in the two bytes at `pos`, which are there, of a packet of this type."""
    packet_id = (data[pos] << 8) | data[pos + 1]
    if packet_id == 0:
        # [MQTT-2.3.1-1] [MQTT5-2.2.1-3]
        raise ProtocolError(f"{PACKET_NAMES[kind]} with Packet Identifier 0", reason=ReasonCode.PROTOCOL_ERROR)
    return packet_id
