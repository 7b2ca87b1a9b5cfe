"""Message Expiry Interval: what is told of it, what is not delivered any more, and what goes on all the same."""

from __future__ import annotations

import pytest

from broker.core import perishing
from tests.core.harness import World, brackets
from tests.core.harness5 import dial5, join5, properties
from tests.vectors import number, packet, string
from tests.vectors5 import connect5, section


@pytest.fixture
def world() -> World:
    return World()


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_message_that_did_not_wait_has_its_whole_interval(world: World, qos: int) -> None:
    """[MQTT5-3.3.2-6]"""
    plain = join5(world, "plain").ask(("t", qos))
    stored = join5(world, "stored", clean=False).ask(("t", qos))
    special = join5(world, "special", alias_maximum=5, largest=1000).ask(("t", qos))
    old = world.join("old")
    old.subscribe(("t", qos)).take()
    join5(world, "writer").publish5("t", "x", qos, expiry=60, user=[("a", "b")])
    for client in (plain, stored, special):
        [one] = client.messages()
        assert (one.payload, one.properties) == ("x", {"expiry": 60, "user": [("a", "b")]})
    assert [one[2] for one in old.take()] == ["x"]


@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize(("wait", "left"), [(0.4, 60), (1.0, 59), (1.5, 59), (59.5, 1)])
def test_what_has_waited_is_told_so(world: World, qos: int, wait: float, left: int) -> None:
    """Trap 14 [MQTT5-3.3.2-6]. To the second: what is left is never told too small."""
    join5(world, "c", clean=False).ask(("t", qos)).bye(session_expiry=3600)
    join5(world, "writer").publish5("t", "x", qos, expiry=60)
    world.advance(wait)
    [one] = join5(world, "c", clean=False).messages()
    assert one.properties == {"expiry": left}


@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize("version", [4, 5])
def test_what_has_expired_is_never_delivered(world: World, qos: int, version: int) -> None:
    """Trap 15 [MQTT5-3.3.2-5], also to a client that cannot know of it."""
    if version == 5:
        join5(world, "c", clean=False).ask(("t", qos)).bye()
    else:
        old = world.join("c", clean=False)
        old.subscribe(("t", qos)).disconnect()
    writer = join5(world, "writer")
    writer.publish5("t", "short", qos, 1, expiry=10).publish5("t", "long", qos, 2, expiry=100).publish5(
        "t", "ever", qos, 3
    )
    world.advance(11)
    if version == 5:
        assert join5(world, "c", clean=False).got() == ["long", "ever"]
    else:
        again = world.join("c", clean=False)
        first = again.take()
        assert [one[2] for one in first] == ["long", "ever"]
        for one in first:
            again.puback(one[4]) if qos == 1 else again.pubrec(one[4]).pubcomp(one[4])
    queue = world.session("c").queue
    assert queue is not None
    assert (queue.count, queue.size) == (0, 0)
    brackets(world)


@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize("qos", [1, 2])
def test_what_expires_behind_a_full_window_is_not_delivered(world: World, qos: int, clean: bool) -> None:
    world.limits.max_inflight = 1
    reader = join5(world, "c", clean=clean).ask(("t", qos))
    writer = join5(world, "writer")
    for index, expiry in enumerate((5, 5, 50, 5), 1):
        writer.publish5("t", str(index), qos, index, expiry=expiry)
    world.advance(6)
    assert reader.got() == ["1", "3"]
    brackets(world)


def test_a_full_queue_makes_room_by_what_has_expired(world: World) -> None:
    world.limits.max_inflight = 1
    world.limits.max_memory_queue = 10
    reader = join5(world, "c").ask(("t", 1))
    writer = world.join("writer")
    other = join5(world, "other")
    for index in range(40):
        other.publish5("t", f"old{index}", 1, index + 1, expiry=5)
    world.advance(40)
    for index in range(3):
        writer.publish("t", f"new{index}", 1, index + 1)
    assert reader.got() == ["old0", "new0", "new1", "new2"]


@pytest.mark.parametrize("qos", [1, 2])
def test_what_has_begun_goes_on_though_it_has_expired(world: World, qos: int) -> None:
    """Trap 16 [MQTT5-4.3.3-7] [MQTT5-4.4.0-1]."""
    reader = join5(world, "c", clean=False).ask(("t", qos))
    join5(world, "writer").publish5("t", "x", qos, expiry=5)
    first = reader.answer()
    reader.drop()
    world.advance(10)
    again = join5(world, "c", clean=False)
    second = again.answer()
    assert (second.payload, second.packet_id, second.flags) == ("x", first.packet_id, "dup")
    assert second.properties == {"expiry": 0}


def test_a_release_goes_on_though_its_message_has_expired(world: World) -> None:
    """Trap 16 [MQTT5-4.3.3-13]."""
    reader = join5(world, "c", clean=False).ask(("t", 2))
    join5(world, "writer").publish5("t", "x", 2, expiry=5)
    packet_id = reader.answer().packet_id
    world.advance(10)
    reader.pubrec(packet_id)
    assert reader.answer().name == "PUBREL"
    reader.drop()
    world.advance(10)
    again = join5(world, "c", clean=False)
    assert [(one.name, one.packet_id) for one in again.get()] == [("PUBREL", packet_id)]
    again.send(packet(0x70, number(packet_id)))
    assert world.session("c").queue.count == 0  # type: ignore[union-attr]


def test_an_interval_of_zero_is_for_those_who_are_there(world: World) -> None:
    here = join5(world, "here").ask(("t", 1))
    join5(world, "away", clean=False).ask(("t", 1)).bye()
    join5(world, "writer").publish5("t", "x", 1, expiry=0)
    [one] = here.messages()
    assert one.properties == {"expiry": 0}
    world.advance(0.1)
    assert join5(world, "away", clean=False).got() == []


@pytest.mark.parametrize("qos", [1, 2])
def test_messages_expire_over_a_restart(world: World, qos: int) -> None:
    join5(world, "c", clean=False).ask(("t", qos)).bye()
    writer = join5(world, "writer")
    writer.publish5("t", "short", qos, 1, expiry=10).publish5("t", "long", qos, 2, expiry=100, content_type="a/b")
    world.settle().advance(5)
    again = world.crash()
    again.advance(6)
    [one] = join5(again, "c", clean=False).messages()
    assert (one.payload, one.properties["content_type"]) == ("long", "a/b")
    assert 88 <= one.properties["expiry"] <= 90


# --- retained ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_retained_message_is_told_how_long_it_lasts(world: World, qos: int) -> None:
    """Trap 14 [MQTT5-3.3.2-6], trap 37: with RETAIN 1."""
    join5(world, "writer").publish5("t", "x", qos, retain=True, expiry=60, content_type="a/b")
    world.advance(20)
    [one] = join5(world, "c").ask(("t", 2)).messages()
    assert (one.payload, one.qos, one.flags) == ("x", qos, "retain")
    assert one.properties == {"expiry": 40, "content_type": "a/b"}
    world.advance(20)
    [one] = join5(world, "d", alias_maximum=9).ask(("t", 2)).messages()
    assert one.properties == {"expiry": 20, "content_type": "a/b"}


@pytest.mark.parametrize("version", [4, 5])
def test_an_expired_retained_message_is_gone(world: World, version: int) -> None:
    """Trap 15: swept, from memory and from the store, while others stay."""
    writer = join5(world, "writer")
    writer.publish5("short/1", "x", 1, retain=True, expiry=10)
    writer.publish5("long/1", "y", 1, 2, retain=True, expiry=100)
    writer.publish5("ever", "z", 1, 3, retain=True)
    world.advance(11)
    retained = world.exchange.retained
    assert retained.count == 2
    assert sorted(one.message.topic for one in world.store.load().retained) == [b"ever", b"long/1"]
    if version == 5:
        got = join5(world, "c").ask(("#", 0)).got()
    else:
        client = world.join("c")
        client.subscribe(("#", 0))
        got = [one[2] for one in client.take()[1:]]
    assert sorted(got) == ["y", "z"]
    brackets(world)


def test_a_message_retained_anew_lasts_as_the_new_one_says(world: World) -> None:
    writer = join5(world, "writer")
    writer.publish5("t", "1", 1, retain=True, expiry=10).publish5("t", "2", 1, 2, retain=True, expiry=30)
    world.advance(20)
    assert join5(world, "c").ask(("t", 0)).got() == ["2"]
    writer.publish5("t", "3", 1, 3, retain=True)
    world.advance(100)
    assert join5(world, "d").ask(("t", 0)).got() == ["3"]


def test_many_that_expire_at_once_are_removed_in_slices(world: World) -> None:
    writer = join5(world, "writer")
    for index in range(1000):
        writer.publish5(f"t/{index}", "x", retain=True, expiry=10)
    assert world.exchange.retained.count == 1000
    world.now += 11
    world.timers.run(world.now)
    assert world.exchange.retained.count == 1000 - perishing.SLICE
    world.settle().advance(1)
    assert world.exchange.retained.count == 0
    assert len(world.exchange.perishing) == 0


def test_a_topic_retained_again_and_again_leaves_little_behind(world: World) -> None:
    writer = join5(world, "writer")
    for index in range(1000):
        writer.publish5("t", str(index), retain=True, expiry=1000)
    assert len(world.exchange.perishing) <= 2 + 64 + 1


def test_what_has_expired_while_the_broker_was_down_is_gone_at_once(world: World) -> None:
    writer = join5(world, "writer")
    writer.publish5("t", "x", 1, retain=True, expiry=10).publish5("u", "y", 1, 2, retain=True, expiry=1000)
    world.advance(5)
    again = world.crash()
    again.advance(6)
    assert again.exchange.retained.count == 1
    assert join5(again, "c").ask(("#", 0)).got() == ["y"]


def test_the_message_of_a_will_lasts_from_when_it_is_published(world: World) -> None:
    """After a stop of the broker, too."""
    join5(world, "reader", clean=False).ask(("t", 1)).bye(session_expiry=36_000)
    world.advance(5)
    world = world.crash()
    world.advance(3600)
    world = world.crash()
    client = dial5(world)
    told = section(*properties(expiry=60))
    client.send(connect5(b"c", flags=0x0E, keep_alive=0, will=told + string(b"t") + string(b"gone")))
    client.drop()
    world.advance(20)
    [one] = join5(world, "reader", clean=False).messages()
    assert (one.payload, one.properties) == ("gone", {"expiry": 40})
