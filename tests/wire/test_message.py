"""A message's layouts: which bytes go out, and that each is built once."""

import pytest

from broker.wire.message import Message
from tests.vectors import publish


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
