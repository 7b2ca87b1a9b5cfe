"""Subscription Identifiers, No Local, Retain As Published, and retained messages with them."""

from __future__ import annotations

import pytest

from broker.core.subscription import identifiers, together
from tests.core.harness import World, brackets
from tests.core.harness5 import join5

NO_LOCAL, AS_PUBLISHED = 4, 8
LARGEST = 268_435_455


@pytest.fixture
def world() -> World:
    return World()


# --- identifiers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_one_copy_names_all_subscriptions_of_its_receiver_that_match(world: World, qos: int) -> None:
    """Trap 17 [MQTT5-3.3.4-3] [MQTT5-3.3.4-4]."""
    reader = join5(world, "reader")
    reader.ask(("a/+", 0), identifier=1).ask(("a/#", qos), identifier=LARGEST).ask(("a/b", 0)).ask(
        ("#", 0), identifier=300
    )
    reader.ask(("other", 0), identifier=5)
    twin = join5(world, "twin").ask(("a/b", qos), identifier=300)
    none = join5(world, "none").ask(("a/b", qos))
    old = world.join("old")
    old.subscribe(("a/b", qos)).take()
    join5(world, "writer").publish5("a/b", "x", qos, user=[("k", "v")])
    [one] = reader.messages()
    assert (sorted(one.properties["identifier"]), one.qos) == ([1, 300, LARGEST], qos)
    assert one.properties["user"] == [("k", "v")]
    assert [one.properties for one in twin.messages()] == [{"identifier": [300], "user": [("k", "v")]}]
    assert [one.properties for one in none.messages()] == [{"user": [("k", "v")]}]
    assert [one[2] for one in old.take()] == ["x"]
    brackets(world)


def test_two_subscriptions_with_the_same_identifier_are_named_twice(world: World) -> None:
    """MQTT 5.0, 3.3.2.3.8."""
    reader = join5(world, "reader").ask(("a", 0), identifier=7).ask(("+", 0), identifier=7)
    join5(world, "writer").publish5("a", "x")
    assert reader.messages()[0].properties == {"identifier": [7, 7]}


@pytest.mark.parametrize(
    "numbers", [[1], [LARGEST, LARGEST], [1, 127, 128, 16_384], [2**27, 1, 2**27 + 1], list(range(1, 60))]
)
def test_identifiers_add_up_in_one_number(numbers: list[int]) -> None:
    options = 0
    for each in numbers:
        options = together(options, 1 | each << 8)
    assert (identifiers(options), options & 255) == (numbers, 1)


def test_subscribing_again_replaces_the_identifier_or_removes_it(world: World) -> None:
    """Trap 18 [MQTT5-3.8.4-3]."""
    reader = join5(world, "reader").ask(("a", 0), identifier=1)
    writer = join5(world, "writer").publish5("a", "1")
    reader.ask(("a", 0), identifier=2)
    writer.publish5("a", "2")
    reader.ask(("a", 0))
    writer.publish5("a", "3")
    assert [one.properties for one in reader.messages()] == [{"identifier": [1]}, {"identifier": [2]}, {}]


@pytest.mark.parametrize("qos", [1, 2])
def test_offline_and_retained_messages_have_their_identifiers(world: World, qos: int) -> None:
    """Trap 18 [MQTT5-3.3.4-3], over a restart too."""
    writer = join5(world, "writer").publish5("r", "kept", qos, retain=True, user=[("k", "v")])
    reader = join5(world, "reader", clean=False).ask(("r", qos), identifier=9).ask(("a", qos), identifier=10)
    [one] = reader.messages()
    assert (one.flags, one.properties) == ("retain", {"identifier": [9], "user": [("k", "v")]})
    reader.bye()
    writer.publish5("a", "1", qos, 2)
    writer.publish5("a", "2", qos, 3)
    world = world.crash()
    reader = join5(world, "reader", clean=False)
    join5(world, "writer").publish5("a", "3", qos, 4)
    got = [(one.payload, one.properties) for one in reader.messages()]
    assert got == [(text, {"identifier": [10]}) for text in ("1", "2", "3")]


def test_a_client_that_names_a_subscription_is_closed(world: World) -> None:
    """Trap 19 [MQTT5-3.3.4-6]."""
    reader = join5(world, "reader").ask(("a", 0))
    writer = join5(world, "writer").publish5("a", "x", identifier=1)
    assert [(one.name, one.reason) for one in writer.get()] == [("DISCONNECT", 0x82)]
    assert writer.closed
    assert reader.got() == []


# --- No Local and Retain As Published ----------------------------------------------------------------------------


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_no_local(world: World, qos: int) -> None:
    """[MQTT5-3.8.3-3]: not to itself, over another connection neither."""
    client = join5(world, "c", clean=False).ask(("a", qos | NO_LOCAL))
    other = join5(world, "other").ask(("a", qos | NO_LOCAL))
    client.publish5("a", "mine", qos)
    other.publish5("a", "other's", qos)
    assert [one.payload for one in client.messages()] == ["other's"]
    assert other.got() == ["mine"]
    client.publish5("a", "kept", 1, 2, retain=True).messages()
    client.bye()
    client = join5(world, "c", clean=False)
    assert client.ask(("a", qos | NO_LOCAL)).got() == []
    assert client.ask(("a", qos)).got() == ["kept"]


def test_one_filter_without_no_local_is_enough(world: World) -> None:
    client = join5(world, "c").ask(("a", NO_LOCAL)).ask(("+", 0))
    client.publish5("a", "x")
    assert client.got() == ["x"]


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("retain", [False, True])
def test_retain_as_published(world: World, qos: int, retain: bool) -> None:
    """[MQTT5-3.3.1-12] [MQTT5-3.3.1-13]"""
    kept = join5(world, "kept").ask(("a", qos | AS_PUBLISHED))
    cleared = join5(world, "cleared").ask(("a", qos))
    join5(world, "writer").publish5("a", "x", qos, retain=retain)
    assert [one.flags for one in kept.messages()] == ["retain" if retain else ""]
    assert [one.flags for one in cleared.messages()] == [""]


@pytest.mark.parametrize("options", [0, AS_PUBLISHED, 1, 1 | AS_PUBLISHED])
def test_what_is_retained_comes_with_retain_1_whatever_the_option_says(world: World, options: int) -> None:
    """Trap 37 (MQTT 5.0, 3.3.1.3)."""
    world.join("writer").publish("a", "x", 1, retain=True)
    assert [one.flags for one in join5(world, "reader").ask(("a", options)).messages()] == ["retain"]


def test_a_session_that_is_resumed_gets_no_retained_messages(world: World) -> None:
    """Trap 36 [MQTT5-3.3.1-9]."""
    join5(world, "writer").publish5("a", "x", 1, retain=True)
    reader = join5(world, "reader", clean=False).ask(("a", 1))
    assert reader.got() == ["x"]
    reader.bye()
    reader = join5(world, "reader", clean=False)
    assert reader.got() == []
    assert reader.ask(("a", 1)).got() == ["x"]
