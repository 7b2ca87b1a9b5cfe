"""How connections of MQTT 5.0 end: what the client says last, and what it is told; and the acknowledgements of QoS 2
that tell of something wrong."""

from __future__ import annotations

import pytest

from broker.wire.codes import ReasonCode
from tests.core.harness import World, brackets, published
from tests.core.harness5 import Client5, dial5, join5, properties
from tests.vectors import PINGREQ, number, packet, publish, string
from tests.vectors5 import ack5, connect5, disconnect5, four, section


@pytest.fixture
def world() -> World:
    return World()


def with_will(world: World, client_id: bytes = b"c", expiry: int = 0) -> Client5:
    client = dial5(world)
    said = properties(session_expiry=expiry) if expiry else ()
    will = section() + string(b"will") + string(b"gone")
    client.send(connect5(client_id, *said, flags=0x06, keep_alive=10, will=will))
    assert client.answer().reason == 0
    return client


# --- what the client says ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "wills"),
    [
        (b"\xe0\0", 0),  # trap 39
        (b"\xe0\1\0", 0),
        (disconnect5(0), 0),
        (b"\xe0\1\4", 1),  # trap 12
        (disconnect5(4), 1),
        (disconnect5(0x80), 1),
        (disconnect5(0x93), 1),
        (b"\xe0\1\x05", 1),  # no reason code of a DISCONNECT
    ],
)
def test_what_becomes_of_the_will(world: World, data: bytes, wills: int) -> None:
    """Traps 12 and 39 [MQTT5-3.14.4-3] [MQTT5-3.1.2-10]: only a normal DISCONNECT takes it back."""
    reader = world.join("reader")
    reader.subscribe(("will", 0)).take()
    client = with_will(world)
    client.send(data + PINGREQ)
    assert (reader.take(), client.closed) == ([published("will", "gone")] * wills, True)
    assert "PINGRESP" not in [one.name for one in client.get()]
    brackets(world)


@pytest.mark.parametrize(("said", "lasts"), [(None, 60.0), (5, 5.0), (0, None), (0xFFFFFFFF, float("inf"))])
def test_an_expiry_in_disconnect(world: World, said: int | None, lasts: float | None) -> None:
    """Trap 8: what is left out is not 0 (3.14.2.2.2)."""
    client = join5(world, "c", session_expiry=60)
    client.bye(0, **({} if said is None else {"session_expiry": said}))
    assert client.get() == []
    assert ("c" in world.exchange.sessions) == (lasts is not None)
    if lasts is not None:
        assert world.session("c").expiry == lasts


def test_an_expiry_in_disconnect_is_cut_as_one_in_connect(world: World) -> None:
    world.limits.max_session_expiry = 30.0
    join5(world, "c", session_expiry=10).bye(0, session_expiry=100)
    assert world.session("c").expiry == 30.0


def test_an_expiry_after_none_is_an_error(world: World) -> None:
    """Trap 8: and the will goes out (3.14.2.2.2) [MQTT5-4.13.1-1]."""
    reader = world.join("reader")
    reader.subscribe(("will", 0)).take()
    client = with_will(world)
    client.send(disconnect5(0, b"\x11" + four(10)))
    assert client.answer()[:2] == ("DISCONNECT", ReasonCode.PROTOCOL_ERROR)
    assert (reader.payloads(), client.closed) == (["gone"], True)
    other = with_will(world)
    other.send(disconnect5(0, b"\x11" + four(0)))
    assert (other.get(), other.closed, reader.take()) == ([], True, [])


# --- what the client is told -------------------------------------------------------------------------------------


def test_a_keep_alive_that_is_over(world: World) -> None:
    """[MQTT5-3.1.2-22]"""
    client = with_will(world)
    world.advance(15.1)
    answer = client.answer()
    assert (answer.name, answer.reason) == ("DISCONNECT", ReasonCode.KEEP_ALIVE_TIMEOUT)
    assert "silent" in answer.properties["reason_string"]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (connect5(b"c"), 0x82),  # [MQTT5-3.1.0-2]
        (b"\x36\5\0\1t\0\0", 0x81),  # QoS 3
        (publish(b"a/#") + b"", 0x81),  # no properties
        (b"\x30\4\0\1#\0", 0x90),
        (b"\x90\3\0\1\0", 0x82),  # SUBACK of a client
        (packet(0x82, number(1) + b"\0" + string(b"a/#/b") + b"\0"), 0x8F),
        (b"\x30\xff\xff\xff\x7f", 0x95),
        (b"\x30\7\0\0\3\x23\0\1x", 0x94),  # an alias, where none may be used
    ],
)
def test_what_is_wrong_is_told(world: World, data: bytes, reason: int) -> None:
    """Trap 31 [MQTT5-4.13.1-1]"""
    client = join5(world, "c")
    client.send(data)
    answer = client.answer()
    assert (answer.name, answer.reason, client.closed) == ("DISCONNECT", reason, True)
    assert answer.properties["reason_string"].startswith("protocol error: ")
    brackets(world)


def test_words_only_for_who_wants_them_and_where_they_fit(world: World) -> None:
    """Trap 30 [MQTT5-3.1.2-29] [MQTT5-3.14.2-3] [MQTT5-3.1.2-24]"""
    sizes = []
    for client in (join5(world, "c"), join5(world, "d", problem=0), join5(world, "e", largest=12)):
        client.send(connect5())
        answer = client.answer()
        assert answer.reason == ReasonCode.PROTOCOL_ERROR
        sizes.append(answer.size)
    assert sizes[0] > 12
    assert sizes[1:] == [3, 3]


def test_a_client_of_mqtt_3_1_1_is_told_nothing(world: World) -> None:
    client = world.join("c")
    client.send(b"\x36\5\0\1t\0\0")
    assert (client.take(), client.closed) == ([], True)


# --- QoS 2, and what may be wrong with it ------------------------------------------------------------------------


def receiver(world: World, clean: bool) -> Client5:
    """A client with a message of QoS 2 on its way; and another one that waits, as but one may be in flight."""
    client = join5(world, "c", clean=clean, receive_maximum=1)
    client.ask(("t", 2))
    author = world.join("author")
    author.publish("t", "1", 2, 1).pubrel(1)
    author.publish("t", "2", 2, 2).pubrel(2)
    return client


@pytest.mark.parametrize("clean", [True, False])
def test_a_pubrec_that_refuses(world: World, clean: bool) -> None:
    """Trap 24: no PUBREL, the identifier is free, and the next has its turn [MQTT5-4.3.3-4] [MQTT5-4.4.0-2]."""
    client = receiver(world, clean)
    first = client.answer()
    assert first.payload == "1"
    client.send(ack5(0x50, first.packet_id, 0x97))
    second = client.answer()
    assert (second.name, second.payload) == ("PUBLISH", "2")
    client.send(packet(0x50, number(second.packet_id)))
    assert client.answer()[:3] == ("PUBREL", 0, second.packet_id)
    client.send(packet(0x70, number(second.packet_id)))
    assert (client.get(), world.session("c").queue.count) == ([], 0)  # type: ignore[union-attr]
    brackets(world)
    if not clean:
        again = world.crash()
        assert again.session("c").queue is None or again.session("c").queue.count == 0  # type: ignore[union-attr]


def test_a_pubrec_that_refuses_what_it_had_taken(world: World) -> None:
    client = receiver(world, True)
    first = client.answer()
    client.send(packet(0x50, number(first.packet_id)))
    client.get()
    client.send(ack5(0x50, first.packet_id, 0x80))
    assert (client.answer()[:2], client.closed) == (("DISCONNECT", ReasonCode.PROTOCOL_ERROR), True)


def test_acknowledgements_of_what_was_never_sent(world: World) -> None:
    """3.6.2.1, 3.7.2.1: it is told, and does no harm."""
    client = join5(world, "c")
    for data, answer in (
        (packet(0x50, number(9)), ("PUBREL", 0x92, 9)),
        (packet(0x62, number(9)), ("PUBCOMP", 0x92, 9)),
        (ack5(0x62, 9, 0x92), ("PUBCOMP", 0x92, 9)),
    ):
        client.send(data)
        assert client.answer()[:3] == answer
    client.send(ack5(0x50, 9, 0x80), packet(0x40, number(9)), packet(0x70, number(9)), ack5(0x70, 9, 0x92))
    assert (client.get(), client.closed) == ([], False)
    brackets(world)


@pytest.mark.parametrize("clean", [True, False])
def test_pubrel_of_what_was_sent(world: World, clean: bool) -> None:
    """Once: then it is not known any more [MQTT5-4.3.3-11]."""
    client = join5(world, "c", clean=clean)
    client.publish5("t", "x", 2, 7)
    assert client.answer()[:1] == ("PUBREC",)
    client.pubrel(7)
    assert client.answer()[:3] == ("PUBCOMP", 0, 7)
    client.pubrel(7)
    assert client.answer()[:3] == ("PUBCOMP", 0x92, 7)
