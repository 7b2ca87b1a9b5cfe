"""The bytes of what the broker sends, against bytes written down from the specification."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.wire import encoder
from broker.wire.codes import MAX_REMAINING_LENGTH, ReturnCode
from broker.wire.decoder import Decoder
from tests.vectors import length, publish


@pytest.mark.parametrize(
    ("code", "present", "expected"),
    [
        (0, False, "20020000"),
        (0, True, "20020100"),
        (1, False, "20020001"),
        (2, False, "20020002"),
        (3, False, "20020003"),
        (4, False, "20020004"),
        (5, False, "20020005"),
        # A refusal never says that a session is present [MQTT-3.2.2-4].
        (1, True, "20020001"),
        (5, True, "20020005"),
    ],
)
def test_connack(code: int, present: bool, expected: str) -> None:
    assert encoder.connack(ReturnCode(code), present).hex() == expected


@pytest.mark.parametrize(
    ("packet_id", "expected"), [(1, "0001"), (255, "00ff"), (256, "0100"), (258, "0102"), (65_535, "ffff")]
)
def test_acknowledgements_carry_the_identifier(packet_id: int, expected: str) -> None:
    """[MQTT-2.3.1-6] [MQTT-2.3.1-7] [MQTT-3.6.1-1]"""
    made = [
        make(packet_id).hex()
        for make in (encoder.puback, encoder.pubrec, encoder.pubrel, encoder.pubcomp, encoder.unsuback)
    ]
    assert made == [f"{first}02{expected}" for first in ("40", "50", "62", "70", "b0")]


def test_suback_has_one_code_per_filter_in_their_order() -> None:
    """[MQTT-3.8.4-5] [MQTT-3.9.3-1] [MQTT-3.9.3-2]"""
    assert encoder.suback(0x0102, [0]).hex() == "9003010200"
    assert encoder.suback(9, [2, 0x80, 1, 0]).hex() == "9006000902800100"
    assert encoder.suback(9, [1] * 126) == b"\x90\x80\x01\x00\x09" + b"\1" * 126
    assert encoder.suback(9, [1] * 20_000) == b"\x90\xa2\x9c\x01\x00\x09" + b"\1" * 20_000


def test_pingresp() -> None:
    assert encoder.PINGRESP.hex() == "d000"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        # table 2.4
        (0, "00"),
        (127, "7f"),
        (128, "8001"),
        (16_383, "ff7f"),
        (16_384, "808001"),
        (2_097_151, "ffff7f"),
        (2_097_152, "80808001"),
        (268_435_455, "ffffff7f"),
        (321, "c102"),  # the example of section 2.2.3
    ],
)
def test_remaining_length(value: int, expected: str) -> None:
    assert encoder.remaining_length(value).hex() == expected


@settings(deadline=None, derandomize=True)
@given(st.integers(0, MAX_REMAINING_LENGTH))
def test_remaining_length_agrees_with_the_table_s_encoder(value: int) -> None:
    assert encoder.remaining_length(value) == length(value)


@settings(deadline=None, derandomize=True)
@given(st.binary(max_size=300), st.binary(max_size=300), st.integers(0, 2), st.integers(1, 65_535), st.booleans())
def test_a_publish_head_is_a_publish_without_identifier_and_payload(
    topic: bytes, payload: bytes, qos: int, packet_id: int, retain: bool
) -> None:
    whole = publish(topic, payload, qos=qos, packet_id=packet_id, retain=retain)
    head = encoder.publish_head(0x30 | qos << 1 | retain, topic, len(payload))
    assert head + (packet_id.to_bytes(2, "big") if qos else b"") + payload == whole
    decoder = Decoder(MAX_REMAINING_LENGTH)
    decoder.feed(whole)
    [(first, got_topic, frame, payload_at, got_id)] = decoder.decode(2)
    assert (first, got_topic, frame, frame[payload_at:], got_id) == (
        whole[0], topic, whole, payload, packet_id if qos else 0,
    )  # fmt: skip


def test_the_longest_topic() -> None:
    topic = b"t" * 65_535
    assert encoder.publish_head(0x32, topic, 1) == b"\x32" + length(2 + 65_535 + 2 + 1) + b"\xff\xff" + topic


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152, 268_435_455])
def test_packet_size_by_its_first_bytes(size: int) -> None:
    head = b"\x30" + encoder.remaining_length(size)
    assert encoder.packet_size(head + b"\xff" * min(size, 5)) == len(head) + size
