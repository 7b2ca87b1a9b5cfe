"""Flow control, packet sizes and acknowledgements of MQTT 5.0."""

from __future__ import annotations

import pytest

from tests.core.harness import Forbidden, World, brackets
from tests.core.harness5 import Client5, Packet5, join5
from tests.vectors import number, packet
from tests.vectors5 import ack5


@pytest.fixture
def world() -> World:
    return World()


def closed_with(client: Client5, reason: int) -> bool:
    last = client.get()[-1]
    return client.closed and (last.name, last.reason) == ("DISCONNECT", reason)


# --- what the broker has in flight -------------------------------------------------------------------------------


@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize("qos", [1, 2])
def test_no_more_is_in_flight_than_the_client_takes(world: World, qos: int, clean: bool) -> None:
    """[MQTT5-3.3.4-9] [MQTT5-4.9.0-2]; QoS 0 stands outside of it [MQTT5-4.9.0-1]."""
    reader = join5(world, "c", clean=clean, receive_maximum=2).ask(("t", qos), ("zero", 0))
    writer = world.join("writer")
    for index in range(5):
        writer.publish("t", str(index), qos, index + 1)
    writer.publish("zero", "z")
    first = reader.get()
    assert sorted(one.payload for one in first) == ["0", "1", "z"]
    [one, two] = [one for one in first if one.qos]
    if qos == 1:
        reader.puback(one.packet_id)
    else:
        reader.pubrec(one.packet_id)
        assert [each.name for each in reader.get()] == ["PUBREL"]  # it holds its place until PUBCOMP
        reader.pubcomp(one.packet_id)
    assert [each.payload for each in reader.get()] == ["2"]
    reader.pubrec(two.packet_id).pubcomp(two.packet_id) if qos == 2 else reader.puback(two.packet_id)
    packets = [one for one in reader.get() if one.name == "PUBLISH"]
    assert [each.payload for each in packets] == ["3"]
    brackets(world)


def test_the_quota_is_the_connections(world: World) -> None:
    """Trap 26 [MQTT5-4.9.0-1]: what was in flight counts anew, and another client has a quota of its own."""
    reader = join5(world, "c", clean=False, receive_maximum=2).ask(("t", 1))
    other = join5(world, "other", receive_maximum=4).ask(("t", 1))
    writer = world.join("writer")
    for index in range(6):
        writer.publish("t", str(index), 1, index + 1)
    assert (len(reader.get()), len(other.get())) == (2, 4)
    reader.drop()
    again = join5(world, "c", clean=False, receive_maximum=3)
    assert [(one.payload, one.flags) for one in again.get()] == [("0", "dup"), ("1", "dup"), ("2", "")]


@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize("reason", [0x80, 0x83, 0x87, 0x97])
def test_an_error_of_pubrec_ends_the_exchange(world: World, reason: int, clean: bool) -> None:
    """Trap 24 [MQTT5-4.3.3-4] [MQTT5-4.4.0-2]: no PUBREL, identifier and quota are free, it is not sent again."""
    reader = join5(world, "c", clean=clean, receive_maximum=1).ask(("t", 2))
    writer = world.join("writer")
    writer.publish("t", "1", 2, 1).publish("t", "2", 2, 2)
    one = reader.answer()
    reader.send(ack5(0x50, one.packet_id, reason))
    two = reader.answer()
    assert (two.name, two.payload) == ("PUBLISH", "2")
    reader.send(ack5(0x50, two.packet_id, reason))
    assert reader.get() == []
    queue = world.session("c").queue
    assert queue is not None
    assert (queue.count, queue.size) == (0, 0)
    if not clean:
        reader.drop()
        assert join5(world, "c", clean=False).get() == []
        assert world.crash().session("c").queue.count == 0  # type: ignore[union-attr]
    brackets(world)


def test_an_error_of_puback_settles_the_message(world: World) -> None:
    reader = join5(world, "c", clean=False, receive_maximum=1).ask(("t", 1))
    world.join("writer").publish("t", "1", 1, 1).publish("t", "2", 1, 2)
    reader.send(ack5(0x40, reader.answer().packet_id, 0x97))
    assert reader.answer().payload == "2"


# --- what a client has in flight ---------------------------------------------------------------------------------


def test_who_has_more_in_flight_than_it_may_is_closed(world: World) -> None:
    """Trap 25 [MQTT5-3.3.4-7]: DISCONNECT 0x93, never a PUBREC 0x93."""
    world.limits.receive_maximum = 2
    client = join5(world, "c")
    for index in (1, 2):
        client.publish5("t", "x", 2, index)
    assert [one.name for one in client.get()] == ["PUBREC", "PUBREC"]
    client.publish5("t", "again", 2, 1, dup=True)
    assert client.answer().name == "PUBREC"
    client.publish5("t", "zero")  # [MQTT5-4.9.0-1]
    assert not client.closed
    client.publish5("t", "x", 2, 3)
    assert closed_with(client, 0x93)


def test_what_is_answered_frees_its_place(world: World) -> None:
    """[MQTT5-4.9.0-1]: PUBACK, PUBCOMP, and a PUBREC that says no."""
    world.limits.receive_maximum = 2
    world.gatekeeper.granted["u"] = Forbidden(publish=[b"secret"])
    keeper = join5(world, "keeper", clean=False).ask(("t", 2))
    client = join5(world, "c", clean=False, username="u")
    for index in range(1, 30):
        client.publish5("t", "x", 1, index).publish5("secret", "x", 2, index + 100)
        client.publish5("t", "x", 2, index + 200).pubrel(index + 200)
    answers = client.get()
    assert [one.name for one in answers] == ["PUBACK", "PUBREC", "PUBREC", "PUBCOMP"] * 29
    assert [one.reason for one in answers[:4]] == [0, 0x87, 0, 0]
    assert len(keeper.messages()) == 58
    brackets(world)


def test_what_waits_for_the_store_is_in_flight(world: World) -> None:
    world.limits.receive_maximum = 2
    join5(world, "keeper", clean=False).ask(("t", 1)).bye()
    client = join5(world, "c")
    world.lane.held = True
    client.publish5("t", "x", 1, 1).publish5("t", "x", 1, 2)
    assert client.get() == []
    world.lane.held = False
    world.settle()
    assert [one.name for one in client.get()] == ["PUBACK", "PUBACK"]
    world.lane.held = True
    for index in (3, 4):
        client.publish5("t", "x", 1, index)
    assert not client.closed
    client.publish5("t", "x", 1, 5)
    assert closed_with(client, 0x93)


# --- what a client may publish -----------------------------------------------------------------------------------


@pytest.mark.parametrize("problem", [0, 1])
@pytest.mark.parametrize("qos", [1, 2])
def test_the_publisher_is_told_what_became_of_it(world: World, qos: int, problem: int) -> None:
    """Nobody subscribes: 0x10; but absent sessions do. Not allowed: 0x87 [MQTT5-3.4.2-1] [MQTT5-3.5.2-1]."""
    world.gatekeeper.granted["u"] = Forbidden(publish=[b"secret"])
    join5(world, "away", clean=False).ask(("for/away", 1)).bye()
    client = join5(world, "c", username="u", problem=problem)
    for index, (topic, reason) in enumerate((("nobody", 0x10), ("for/away", 0), ("secret", 0x87), ("$SYS/x", 0x87)), 1):
        client.publish5(topic, "x", qos, index)
        answer = client.answer()
        assert (answer.name, answer.packet_id, answer.reason) == (("PUBACK", "PUBREC")[qos - 1], index, reason)
        told = ["reason_string"] if reason == 0x87 and problem else []
        assert list(answer.properties) == told  # trap 30 [MQTT5-3.1.2-29]
    brackets(world)


def test_what_is_not_allowed_holds_no_identifier(world: World) -> None:
    world.gatekeeper.granted["u"] = Forbidden(publish=[b"secret"])
    reader = join5(world, "reader").ask(("#", 2))
    client = join5(world, "c", username="u").publish5("secret", "x", 2, 7)
    assert client.answer().reason == 0x87
    client.publish5("open", "y", 2, 7)
    assert client.answer().reason == 0
    assert reader.got() == ["y"]


@pytest.mark.parametrize(("most", "qos", "reason"), [(0, 1, 0x9B), (0, 2, 0x9B), (1, 2, 0x9B), (1, 1, 0), (0, 0, 0)])
def test_a_qos_that_is_not_offered_ends_the_connection(world: World, most: int, qos: int, reason: int) -> None:
    """[MQTT5-3.2.2-11]"""
    world.limits.max_qos = most
    reader = join5(world, "reader").ask(("t", most))
    client = join5(world, "c").publish5("t", "x", qos)
    if reason:
        assert closed_with(client, reason)
        assert reader.got() == []
    else:
        assert reader.got() == ["x"]


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_where_nothing_is_retained_asking_for_it_ends_the_connection(world: World, qos: int) -> None:
    """[MQTT5-3.2.2-14]"""
    world.limits.retain_available = False
    client = join5(world, "c").publish5("t", "x", qos, retain=True)
    assert closed_with(client, 0x9A)
    assert world.exchange.retained.count == 0


def test_a_response_topic_with_a_wildcard_ends_the_connection(world: World) -> None:
    """[MQTT5-3.3.2-14]"""
    client = join5(world, "c").publish5("t", "x", response_topic="a/#")
    assert closed_with(client, 0x82)


# --- what is too large -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_packet_that_is_too_large_is_dropped_and_the_queue_goes_on(world: World, qos: int, clean: bool) -> None:
    """Trap 27 [MQTT5-3.1.2-24] [MQTT5-3.1.2-25]: the fixed header counts."""
    largest = 60
    reader = join5(world, "c", clean=clean, largest=largest, receive_maximum=1).ask(("t", qos))
    writer = world.join("writer")
    overhead = 2 + 2 + 1 + (2 if qos else 0) + 1
    for index, size in enumerate((largest - overhead, largest - overhead + 1, 500, 1), 1):
        writer.publish("t", "x" * size, qos, index)
    got = reader.messages()
    assert [one.size for one in got] == [largest, overhead + 1]
    queue = world.session("c").queue
    assert queue is None or (queue.count, queue.size) == (0, 0)
    assert world.exchange.stats.dropped == 2
    assert len([event for event in world.log.events("warning") if "larger than" in event]) == 1
    brackets(world)


@pytest.mark.parametrize("qos", [1, 2])
def test_what_is_too_large_for_the_next_connection_is_settled(world: World, qos: int) -> None:
    reader = join5(world, "c", clean=False).ask(("t", qos))
    writer = world.join("writer")
    writer.publish("t", "x" * 100, qos, 1)
    reader.drop()
    writer.publish("t", "y" * 100, qos, 2).publish("t", "z", qos, 3)
    again = join5(world, "c", clean=False, largest=50)
    got = []
    while packets := again.get():
        for one in packets:
            assert one.size <= 50
            if one.name == "PUBLISH":
                got.append(one.payload)
                again.pubrec(one.packet_id) if qos == 2 else again.puback(one.packet_id)
            elif one.name == "PUBREL":
                again.pubcomp(one.packet_id)
    assert got == ["z"]
    queue = world.session("c").queue
    assert queue is not None
    assert (queue.count, queue.size) == (0, 0)
    brackets(world)


def test_properties_count_for_the_size(world: World) -> None:
    reader = join5(world, "c", largest=60).ask(("t", 0), ("r", 0), identifier=100_000)
    writer = join5(world, "writer")
    writer.publish5("t", "x", user=[("k", "v" * 60)]).publish5("t", "y", user=[("k", "v")])
    writer.publish5("r", "x" * 60, retain=True)
    assert reader.got() == ["y"]
    assert reader.ask(("r", 0)).got() == []


# --- short forms -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["two", "three", "four"])
def test_acknowledgements_may_be_short(world: World, form: str) -> None:
    """Trap 39 [MQTT5-2.2.1-5]: 2, 3 or more bytes."""

    def ack(first: int, packet_id: int) -> bytes:
        rest = {"two": b"", "three": b"\0", "four": b"\0\0"}[form]
        return packet(first, number(packet_id) + rest)

    reader = join5(world, "c", clean=False).ask(("t", 2))
    writer = world.join("writer")
    writer.publish("t", "1", 1, 1).publish("t", "2", 2, 2)
    one, two = reader.get()
    reader.send(ack(0x40, one.packet_id), ack(0x50, two.packet_id))
    assert reader.answer() == Packet5("PUBREL", 0, two.packet_id, {}, size=4)
    reader.send(ack(0x70, two.packet_id))
    assert world.session("c").queue.count == 0  # type: ignore[union-attr]
    client = join5(world, "writer5").publish5("t", "3", 2, 9)
    assert client.answer().size == 4
    client.send(ack(0x62, 9))
    assert client.answer() == Packet5("PUBCOMP", 0, 9, {}, size=4)


@pytest.mark.parametrize("data", [b"\xe0\x00", b"\xe0\x01\x00", b"\xe0\x02\x00\x00"])
def test_a_disconnect_may_be_short(world: World, data: bytes) -> None:
    """Trap 39."""
    client = join5(world, "c")
    client.send(data)
    assert client.closed
    assert world.exchange.stats.protocol_errors == 0
