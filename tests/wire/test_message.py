"""A message's layouts: which bytes go out, and that each is built once."""

import pytest

from broker.wire.message import Message
from tests.vectors import publish
from tests.vectors5 import four, publish5, section, user


@pytest.mark.parametrize("retain", [False, True])
@pytest.mark.parametrize("published", [0, 1, 2])
def test_layouts(published: int, retain: bool) -> None:
    """Each QoS at which it goes out has its own, whatever it was published with; DUP is 0 [MQTT-3.3.1-3]."""
    message = Message(b"a/b", b"payload", published, retain)
    assert message.frame() == publish(b"a/b", b"payload", retain=retain)
    for qos in (1, 2):
        assert message.head(qos) + b"\x01\x02" + message.payload == publish(
            b"a/b", b"payload", qos=qos, packet_id=258, retain=retain
        )
        assert message.repeated_head(qos) + b"\x01\x02" + message.payload == publish(
            b"a/b", b"payload", qos=qos, packet_id=258, retain=retain, dup=True
        )  # [MQTT-3.3.1-1]


def test_each_layout_is_built_once() -> None:
    message = Message(b"a/b", b"payload", 2)
    assert message.frame() is message.frame()
    assert message.head(1) is message.head(1)
    assert message.head(2) is message.head(2)


def test_a_repeated_head_leaves_the_first_as_it_was() -> None:
    message = Message(b"t", b"x", 1)
    before = message.head(1)
    assert (message.repeated_head(1)[0], message.head(1), before[0]) == (0x3A, before, 0x32)


def test_a_head_that_is_known_is_taken() -> None:
    whole = publish(b"t", b"xyz", qos=1, packet_id=7)
    message = Message(b"t", b"xyz", 1, False, whole[:-5])
    assert message.head(1) + b"\0\x09xyz" == publish(b"t", b"xyz", qos=1, packet_id=9)
    assert message.frame() == publish(b"t", b"xyz")
    assert message.head(2) == publish(b"t", b"xyz", qos=2, packet_id=7)[:-5]


def test_the_size_counts_topic_and_payload() -> None:
    assert [Message(b"topic", payload, 1).size for payload in (b"", b"xyz")] == [5, 8]


def test_an_empty_payload() -> None:
    message = Message(b"t", b"", 1)
    assert (message.frame(), message.head(1)) == (b"\x30\x03\x00\x01t", b"\x32\x05\x00\x01t")


# --- MQTT 5.0 ----------------------------------------------------------------------------------------------------

KEPT = b"\x01\x01" + user(b"a", b"b")


@pytest.mark.parametrize("left", [None, 0, 60, 0xFFFFFFFF])
@pytest.mark.parametrize("kept", [b"", KEPT, user(b"n" * 100, b"v" * 100)])
@pytest.mark.parametrize("retain", [False, True])
def test_layouts_of_5_0(left: int | None, kept: bytes, retain: bool) -> None:
    """What is left of its life stands first [MQTT-3.3.2-6]."""
    message = Message(b"a/b", b"payload", 1, retain, None, kept, None if left is None else 1.0)
    properties = (b"" if left is None else b"\x02" + four(left)) + kept
    assert message.tail5(left) == section(properties)
    assert message.frame5(left) == publish5(b"a/b", b"payload", properties, retain=retain)
    for qos in (1, 2):
        for dup, head in ((False, message.head5(qos, left)), (True, message.repeated_head5(qos, left))):
            assert head + b"\x01\x02" + message.tail5(left) + message.payload == publish5(
                b"a/b", b"payload", properties, qos=qos, packet_id=258, retain=retain, dup=dup
            )


def test_layouts_of_both_versions_do_not_mix() -> None:
    message = Message(b"t", b"x", 2, kept=KEPT)
    for _ in range(2):
        assert (message.frame(), message.frame5(None)) == (publish(b"t", b"x"), publish5(b"t", b"x", KEPT))
        assert message.head(2) + b"\0\1x" == publish(b"t", b"x", qos=2, packet_id=1)
        assert message.head5(2, None) + b"\0\1" + section(KEPT) + b"x" == publish5(b"t", b"x", KEPT, qos=2, packet_id=1)


def test_each_layout_of_5_0_is_built_once_for_a_second() -> None:
    message = Message(b"a/b", b"payload", 2, kept=KEPT, expires=1.0)
    assert message.frame5(9) is message.frame5(9)
    assert message.tail5(9) is message.tail5(9)
    head = message.head5(1, 9)
    assert message.frame5(8) == publish5(b"a/b", b"payload", b"\x02" + four(8) + KEPT)
    assert message.tail5(8) == section(b"\x02" + four(8) + KEPT)
    assert message.head5(1, 8) is head  # only four bytes vary, and they are not in it
    assert message.frame5(9) == publish5(b"a/b", b"payload", b"\x02" + four(9) + KEPT)


def test_a_message_without_properties_needs_no_layouts_kept_for_qos_0_tails() -> None:
    assert Message(b"t", b"", 1).tail5(None) == b"\0"


def test_the_size_counts_the_properties() -> None:
    assert Message(b"topic", b"xyz", 1, kept=KEPT).size == 8 + len(KEPT)
