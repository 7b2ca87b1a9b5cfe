"""The bytes of what the broker sends in MQTT 5.0, against bytes written down from the specification."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.wire import encoder5
from broker.wire.codes import MAX_REMAINING_LENGTH, MQTT_5, ReasonCode
from broker.wire.decoder import Decoder
from tests.vectors import length, string
from tests.vectors5 import publish5, section, user

STRING = b"\x1f\x00\x02no"


@pytest.mark.parametrize(
    ("reason", "present", "properties", "expected"),
    [
        (0, False, b"", "2003000000"),
        (0, True, b"", "2003010000"),
        (0x87, False, b"", "2003008700"),
        (0x87, True, b"", "2003008700"),  # [MQTT-3.2.2-6]
        (0, True, b"\x21\0\x0a", "200601000321000a"),
        (0x8C, False, STRING, "200800" + "8c051f00026e6f"),
    ],
)
def test_connack(reason: int, present: bool, properties: bytes, expected: str) -> None:
    assert encoder5.connack(reason, present, properties).hex() == expected


@pytest.mark.parametrize("first", [0x40, 0x50, 0x62, 0x70])
def test_acknowledgements_are_as_short_as_can_be(first: int) -> None:
    head = f"{first:02x}"
    assert encoder5.ack(first, 258).hex() == head + "020102"
    assert encoder5.ack(first, 258, 0x92).hex() == head + "03010292"
    assert encoder5.ack(first, 258, 0x92, STRING).hex() == head + "09010292" + "051f00026e6f"
    assert encoder5.ack(first, 258, 0, STRING).hex() == head + "09010200" + "051f00026e6f"


def test_answers_to_requests_have_a_reason_for_each_filter_in_their_order() -> None:
    """[MQTT-3.9.3-1] [MQTT-3.11.3-1]"""
    assert encoder5.suback(9, [2, 0x87, 0]).hex() == "900600090002" + "8700"
    assert encoder5.unsuback(9, [0, 0x11]).hex() == "b0050009000011"
    assert encoder5.suback(9, [1], STRING).hex() == "90090009" + "051f00026e6f" + "01"
    assert encoder5.unsuback(9, [0] * 200) == b"\xb0\xcb\x01\x00\x09\x00" + bytes(200)


def test_disconnect_and_auth() -> None:
    assert encoder5.disconnect().hex() == "e000"
    assert encoder5.disconnect(0x8E).hex() == "e0018e"
    assert encoder5.disconnect(0x8B, STRING).hex() == "e007" + "8b051f00026e6f"
    assert encoder5.disconnect(0, STRING).hex() == "e007" + "00051f00026e6f"
    assert encoder5.auth(0x18, b"\x15\0\x01m").hex() == "f006" + "18041500016d"
    assert encoder5.auth(0, b"").hex() == "f0020000"


def test_the_codes() -> None:
    assert len(ReasonCode) == 43
    assert (ReasonCode.SESSION_TAKEN_OVER, ReasonCode.WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED) == (0x8E, 0xA2)


@settings(deadline=None, derandomize=True)
@given(st.text("aé/", min_size=1, max_size=200).map(str.encode), st.binary(max_size=200), st.binary(max_size=200),
       st.integers(0, 2), st.integers(1, 65_535), st.booleans())  # fmt: skip
def test_a_publish_head_is_a_publish_without_what_follows(
    topic: bytes, payload: bytes, name: bytes, qos: int, packet_id: int, retain: bool
) -> None:
    properties = user(b"n" * len(name), b"v")
    tail = section(properties)
    whole = publish5(topic, payload, properties, qos=qos, packet_id=packet_id, retain=retain)
    head = encoder5.publish_head(0x30 | qos << 1 | retain, topic, len(tail), len(payload))
    assert head + (packet_id.to_bytes(2, "big") if qos else b"") + tail + payload == whole
    decoder = Decoder(MAX_REMAINING_LENGTH, MQTT_5)
    decoder.feed(whole)
    [(first, got_topic, frame, payload_at, got_id, told)] = decoder.decode(2)
    assert (first, got_topic, frame, frame[payload_at:], got_id, told.kept) == (
        whole[0], topic, whole, payload, packet_id if qos else 0, properties,
    )  # fmt: skip


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16_383, 16_384])
def test_a_section_has_its_length_in_front(size: int) -> None:
    assert encoder5.section(b"x" * size) == length(size) + b"x" * size


def test_the_longest_topic() -> None:
    topic = b"t" * 65_535
    assert encoder5.publish_head(0x32, topic, 1, 1) == b"\x32" + length(65_535 + 6) + string(topic)
