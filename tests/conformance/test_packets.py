"""The suite's own codec, against bytes that were written down from the specification's tables."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conformance import packets
from conformance.packets import Decoder, Packet, Will

ENCODED: dict[str, tuple[bytes, str]] = {
    "connect": (packets.connect("a"), "10 0d 00 04 4d 51 54 54 04 02 00 3c 00 01 61"),
    "connect, empty id": (packets.connect("", clean=False, keep_alive=0), "10 0c 00 04 4d 51 54 54 04 00 00 00 00 00"),
    "connect, all fields": (
        packets.connect("a", will=Will("t", b"w", 2, True), username="u", password="p"),
        "10 19 00 04 4d 51 54 54 04 f6 00 3c 00 01 61 00 01 74 00 01 77 00 01 75 00 01 70",
    ),
    "connect, wrong flags": (packets.connect("a", flags=3), "10 0d 00 04 4d 51 54 54 04 03 00 3c 00 01 61"),
    "connect, no id": (packets.connect(None), "10 0a 00 04 4d 51 54 54 04 02 00 3c"),
    "connect, header flags": (packets.connect("", header_flags=1), "11 0c 00 04 4d 51 54 54 04 02 00 3c 00 00"),
    "connack": (packets.connack(5, session_present=True), "20 02 01 05"),
    "publish": (packets.publish("a/b", b"hi"), "30 07 00 03 61 2f 62 68 69"),
    "publish, QoS 1": (packets.publish("a", b"", qos=1, packet_id=258), "32 05 00 01 61 01 02"),
    "publish, all flags": (packets.publish("a", qos=2, packet_id=1, dup=True, retain=True), "3d 05 00 01 61 00 01"),
    "publish, QoS 0 with identifier": (packets.publish("a", b"", packet_id=1), "30 05 00 01 61 00 01"),
    "puback": (packets.puback(258), "40 02 01 02"),
    "pubrec": (packets.pubrec(1), "50 02 00 01"),
    "pubrel": (packets.pubrel(1), "62 02 00 01"),
    "pubrel, wrong flags": (packets.pubrel(1, flags=0), "60 02 00 01"),
    "pubcomp": (packets.pubcomp(1), "70 02 00 01"),
    "subscribe": (packets.subscribe(10, ("a/b", 1), ("c/d", 2)), "82 0e 00 0a 00 03 61 2f 62 01 00 03 63 2f 64 02"),
    "subscribe, no filter": (packets.subscribe(1), "82 02 00 01"),
    "suback": (packets.suback(10, 0, 2, 128), "90 05 00 0a 00 02 80"),
    "unsubscribe": (packets.unsubscribe(10, "a/b", "c"), "a2 0a 00 0a 00 03 61 2f 62 00 01 63"),
    "unsuback": (packets.unsuback(10), "b0 02 00 0a"),
    "pingreq": (packets.pingreq(), "c0 00"),
    "pingresp": (packets.pingresp(), "d0 00"),
    "disconnect": (packets.disconnect(), "e0 00"),
    "disconnect, wrong flags": (packets.disconnect(flags=1), "e1 00"),
    "false length": (packets.frame(packets.PINGREQ, 0, b"ab", length=5), "c0 05 61 62"),
    "ill-formed string": (packets.publish(b"\xff"), "30 03 00 01 ff"),
    "lone surrogate": (packets.publish("\ud800"), "30 05 00 03 ed a0 80"),
}


@pytest.mark.parametrize(("encoded", "expected"), ENCODED.values(), ids=ENCODED)
def test_encode(encoded: bytes, expected: str) -> None:
    assert encoded.hex(" ") == expected


#: The boundaries of table 2.4, and the examples of section 2.2.3.
LENGTHS = {
    0: "00",
    64: "40",
    127: "7f",
    128: "80 01",
    321: "c1 02",
    16_383: "ff 7f",
    16_384: "80 80 01",
    2_097_151: "ff ff 7f",
    2_097_152: "80 80 80 01",
    268_435_455: "ff ff ff 7f",
}


@pytest.mark.parametrize(("length", "expected"), LENGTHS.items())
def test_remaining_length(length: int, expected: str) -> None:
    assert packets.remaining_length(length).hex(" ") == expected


def test_padded_remaining_length() -> None:
    assert packets.remaining_length(1, width=4).hex(" ") == "81 80 80 00"


SHOWN: dict[str, str] = {
    "10 0d 00 04 4d 51 54 54 04 02 00 3c 00 01 61": 'CONNECT ClientId="a" CleanSession=1 KeepAlive=60',
    "10 10 00 06 4d 51 49 73 64 70 03 00 00 0a 00 02 61 62": (
        'CONNECT "MQIsdp" level 3 ClientId="ab" CleanSession=0 KeepAlive=10'
    ),
    "10 19 00 04 4d 51 54 54 04 f6 00 3c 00 01 61 00 01 74 00 01 77 00 01 75 00 01 70": (
        'CONNECT ClientId="a" CleanSession=1 KeepAlive=60 will="t" QoS 2 RETAIN "w" user="u" password of 1 byte'
    ),
    "10 0a 00 04 4d 51 54 54 04 02 00 3c": (
        'CONNECT ClientId="" CleanSession=1 KeepAlive=60 (malformed: the ClientId is cut short)'
    ),
    "20 02 01 00": "CONNACK code 0 (accepted) SessionPresent=1",
    "20 02 80 06": "CONNACK code 6 (reserved) SessionPresent=0 reserved bits 10000000",
    "20 01 00": "CONNACK code 0 (accepted) SessionPresent=0 (malformed: the return code is cut short)",
    "20 03 00 05 00": "CONNACK code 5 (not authorized) SessionPresent=0 (malformed: 1 byte too many)",
    "21 02 00 00": "CONNACK code 0 (accepted) SessionPresent=0 with header flags 0001",
    "3b 07 00 01 61 01 02 68 69": 'PUBLISH "a" QoS 1 id=258 DUP RETAIN "hi"',
    "30 04 00 01 0a 68": 'PUBLISH "\\n" QoS 0 "h"',
    "30 03 00 01 61": 'PUBLISH "a" QoS 0 empty',
    "30 03 00 01 ff": 'PUBLISH "\\xff" QoS 0 empty',
    "36 05 00 01 61 00 01": 'PUBLISH "a" QoS 3 id=1 empty (malformed: QoS 3)',
    "32 03 00 01 61": 'PUBLISH "a" QoS 1 id=0 empty (malformed: the Packet Identifier is cut short)',
    "40 02 01 02": "PUBACK id=258",
    "60 02 00 01": "PUBREL id=1 with header flags 0000",
    "82 09 00 0a 00 01 61 01 00 00 02": 'SUBSCRIBE id=10 "a" QoS 1, "" QoS 2',
    "82 02 00 0a": "SUBSCRIBE id=10 no filter",
    "90 05 00 0a 00 02 80": "SUBACK id=10 codes [0, 2, 0x80]",
    "a2 05 00 0a 00 01 61": 'UNSUBSCRIBE id=10 "a"',
    "b0 03 00 0a 00": "UNSUBACK id=10 (malformed: 1 byte too many)",
    "c0 00": "PINGREQ",
    "d0 01 00": "PINGRESP 1 byte (malformed: 1 byte too many)",
    "e1 00": "DISCONNECT with header flags 0001",
    "00 00": "reserved type 0 (malformed: no such packet type)",
    "f0 01 61": "reserved type 15 1 byte (malformed: no such packet type)",
}


def shown(data: bytes) -> list[str]:
    return [str(packet) for packet in packets.decode_all(data)]


@pytest.mark.parametrize(("wire", "expected"), SHOWN.items(), ids=range(len(SHOWN)))
def test_decode(wire: str, expected: str) -> None:
    assert shown(bytes.fromhex(wire)) == [expected]


def test_decoded_packet_knows_its_bytes() -> None:
    data = bytes.fromhex("c0 80 00 c0 00")
    assert [packet.wire.hex(" ") for packet in packets.decode_all(data)] == ["c0 80 00", "c0 00"]


def test_topic_keeps_its_bytes() -> None:
    (packet,) = packets.decode_all(packets.publish(b"\xff\xc3\xbc"))
    assert isinstance(packet, packets.Publish)
    assert packets.encoded_topic(packet.topic) == b"\xff\xc3\xbc"


def test_remaining_length_of_five_bytes_breaks_the_stream() -> None:
    decoder = Decoder()
    assert [str(packet) for packet in decoder.feed(b"\xc0\x00\x30\xff\xff\xff\xff\x01")] == ["PINGREQ"]
    assert decoder.broken == "the Remaining Length has more than four bytes"
    assert decoder.feed(b"\xc0\x00") == []


def test_incomplete_packet_waits() -> None:
    decoder = Decoder()
    assert decoder.feed(b"\x40\x02\x00") == []
    assert decoder.pending == b"\x40\x02\x00"
    assert [str(packet) for packet in decoder.feed(b"\x07")] == ["PUBACK id=7"]
    assert decoder.pending == b""


STREAM = b"".join(encoded for name, (encoded, _) in ENCODED.items() if name != "false length")


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_decoding_does_not_depend_on_the_pieces(cuts: list[int]) -> None:
    decoder = Decoder()
    found: list[Packet] = []
    borders = [0, *sorted(cuts), len(STREAM)]
    for start, end in pairwise(borders):
        found += decoder.feed(STREAM[start:end])
    assert [str(packet) for packet in found] == shown(STREAM)


@given(st.integers(0, 15), st.integers(0, 15), st.binary(max_size=40))
def test_decoding_never_refuses(kind: int, flags: int, body: bytes) -> None:
    (packet,) = packets.decode_all(packets.frame(kind, flags, body))
    assert (packet.kind, packet.flags, packet.body) == (kind, flags, body)
    assert str(packet).startswith(packets.NAMES[kind])


@pytest.mark.parametrize("bad", packets.ILL_FORMED_UTF8.values(), ids=packets.ILL_FORMED_UTF8)
def test_ill_formed_strings_are_ill_formed(bad: bytes) -> None:
    with pytest.raises(UnicodeDecodeError):
        bad.decode()
