"""The packets that the generator sends and reads, in MQTT 3.1.1 and 5.0.

Owns: the bytes of each packet, and where in an answer stands what the generator wants to know.
Must not know: sockets, how many packets there are, what is measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

CONNECT, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP = 0x10, 0x20, 0x30, 0x40, 0x50, 0x62, 0x70
SUBSCRIBE, SUBACK = 0x82, 0x90
PINGREQ, PINGRESP, DISCONNECT = b"\xc0\x00", b"\xd0\x00", b"\xe0\x00"

# Identifiers of properties.
CONTENT_TYPE, RESPONSE_TOPIC, CORRELATION_DATA, SESSION_EXPIRY = 0x03, 0x08, 0x09, 0x11
RECEIVE_MAXIMUM, TOPIC_ALIAS_MAXIMUM, TOPIC_ALIAS, USER_PROPERTY = 0x21, 0x22, 0x23, 0x26

KEEP_ALIVE = 120  # seconds
SESSION_SECONDS = 3600  # for how long a persistent Session stays


def text(value: str) -> bytes:
    return binary(value.encode())


def binary(value: bytes) -> bytes:
    return len(value).to_bytes(2, "big") + value


def variable(number: int) -> bytes:
    """A Variable Byte Integer."""
    digits = bytearray()
    while True:
        number, digit = divmod(number, 128)
        digits.append(digit | 0x80 if number else digit)
        if not number:
            return bytes(digits)


def read_variable(data: bytes, at: int) -> tuple[int, int]:
    """The number, and where it ends."""
    number = shift = 0
    while True:
        digit = data[at]
        number |= (digit & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if digit < 0x80:
            return number, at


def packet(first_byte: int, body: bytes) -> bytes:
    return bytes((first_byte,)) + variable(len(body)) + body


@dataclass(frozen=True)
class Mqtt:
    """A version of MQTT, and whether what is published has properties."""

    name: str
    level: int
    properties: str = ""  # none, or "constant", or "varied": each message its own

    def section(self, properties: bytes = b"") -> bytes:
        """Properties with their length in front; in 3.1.1 there is no such thing."""
        return b"" if self.level < 5 else variable(len(properties)) + properties

    def connect(self, client_id: str, clean: bool = True) -> bytes:
        expiry = b"" if clean else bytes((SESSION_EXPIRY,)) + SESSION_SECONDS.to_bytes(4, "big")
        head = text("MQTT") + bytes((self.level, 0x02 if clean else 0x00)) + KEEP_ALIVE.to_bytes(2, "big")
        return packet(CONNECT, head + self.section(expiry) + text(client_id))

    def subscribe(self, packet_id: int, filters: Sequence[str], qos: int) -> bytes:
        wanted = b"".join(text(topic_filter) + bytes((qos,)) for topic_filter in filters)
        return packet(SUBSCRIBE, packet_id.to_bytes(2, "big") + self.section() + wanted)

    def publish(self, topic: str, payload: bytes, qos: int, packet_id: int, properties: bytes = b"") -> bytes:
        identifier = packet_id.to_bytes(2, "big") if qos else b""
        return packet(PUBLISH | qos << 1, text(topic) + identifier + self.section(properties) + payload)

    def user_properties(self, number: int) -> bytes:
        """Those of the message with this number, all of one size: a user property and a content type, or nothing."""
        if not self.properties:
            return b""
        value = f"{number % 10**6 if self.properties == 'varied' else 0:06d}"
        return bytes((CONTENT_TYPE,)) + text("application/json") + bytes((USER_PROPERTY,)) + text("trace") + text(value)


V311 = Mqtt("3.1.1", 4)
V5 = Mqtt("5.0", 5)


V5_PROPERTIES = Mqtt("5.0 with properties", 5, "constant")
V5_VARIED = Mqtt("5.0 with varied properties", 5, "varied")


# Reading.


@dataclass(frozen=True)
class Accepted:
    """What a CONNACK grants."""

    receive_maximum: int = 65535
    topic_alias_maximum: int = 0


def read_connack(mqtt: Mqtt, answer: bytes) -> Accepted | None:
    """None: refused, or not of this version."""
    if mqtt.level < 5:
        return Accepted() if answer[:2] == b"\x20\x02" and answer[3] == 0 else None
    if answer[0] != CONNACK or len(answer) < 5 or answer[3] != 0:
        return None
    found = find_properties(answer, 4)
    number = {identifier: int.from_bytes(answer[start:end], "big") for identifier, (start, end) in found.items()}
    return Accepted(number.get(RECEIVE_MAXIMUM, 65535), number.get(TOPIC_ALIAS_MAXIMUM, 0))


OTHER_VERSION = 0x84  # Unsupported Protocol Version


def refusal(answer: bytes) -> int:
    """The reason code of the answer to a CONNECT in 5.0; one of another version has none, and counts as refused."""
    return answer[3] if answer[0] == CONNACK and len(answer) >= 5 else OTHER_VERSION


def read_suback(answer: bytes, count: int) -> bytes:
    """The granted QoS or the refusal of each of `count` filters; empty when this is no SUBACK."""
    return answer[-count:] if answer[0] == SUBACK else b""


_ONE_BYTE = {0x01, 0x17, 0x19, 0x24, 0x25, 0x28, 0x29, 0x2A}
_TWO_BYTES = {0x13, 0x21, 0x22, 0x23}
_FOUR_BYTES = {0x02, 0x11, 0x18, 0x27}


def find_properties(data: bytes, at: int) -> dict[int, tuple[int, int]]:
    """Where the value of each property begins and ends, in the section whose length stands at `at`."""
    found = {}
    length, at = read_variable(data, at)
    section_end = at + length
    while at < section_end:
        identifier, start = data[at], at + 1
        if identifier in _ONE_BYTE:
            at = start + 1
        elif identifier in _TWO_BYTES:
            at = start + 2
        elif identifier in _FOUR_BYTES:
            at = start + 4
        elif identifier == 0x0B:
            _, at = read_variable(data, start)
        else:
            start += 2
            at = start + int.from_bytes(data[start - 2 : start], "big")
            if identifier == USER_PROPERTY:
                at += 2 + int.from_bytes(data[at : at + 2], "big")
        found[identifier] = start, at
    return found
