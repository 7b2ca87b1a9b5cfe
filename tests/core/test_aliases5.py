"""Topic Aliases: those that a client sets, and those that it is sent."""

from __future__ import annotations

import pytest

from broker.core.aliases import MOST, Outward
from tests.core.harness import Forbidden, World, brackets
from tests.core.harness5 import Client5, join5


@pytest.fixture
def world() -> World:
    world = World()
    world.limits.max_topic_alias = 10
    return world


def ended(client: Client5, reason: int) -> bool:
    """Was it told this reason, and closed?"""
    return client.closed and [(one.name, one.reason) for one in client.get()] == [("DISCONNECT", reason)]


# --- set by a client ---------------------------------------------------------------------------------------------


def test_an_alias_stands_for_its_topic_until_it_is_set_anew(world: World) -> None:
    """[MQTT5-3.3.2-12]"""
    reader = join5(world, "reader").ask(("#", 0))
    writer = join5(world, "writer")
    writer.publish5("a/b", "1", alias=10).publish5("", "2", alias=10).publish5("c", "3", alias=1)
    writer.publish5("", "4", alias=10).publish5("d", "5", alias=10).publish5("", "6", alias=10).publish5(
        "", "7", alias=1
    )
    got = [(one.topic, one.payload, one.properties) for one in reader.messages()]
    topics = ["a/b", "a/b", "c", "a/b", "d", "d", "c"]
    assert got == [(topic, str(at), {}) for at, topic in enumerate(topics, 1)]  # [MQTT5-3.3.2-11]
    brackets(world)


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_an_alias_works_at_each_qos_and_never_reaches_a_subscriber(world: World, qos: int) -> None:
    """[MQTT5-3.1.2-26] [MQTT5-3.1.2-27] [MQTT5-3.3.2-11]"""
    reader = join5(world, "reader").ask(("a", 2))
    writer = join5(world, "writer")
    for index, topic in enumerate(("a", "", ""), 1):
        writer.publish5(topic, str(index), qos, index, alias=3, user=[("k", "v")])
    got = [(one.topic, one.payload, one.properties) for one in reader.messages()]
    assert got == [("a", str(index), {"user": [("k", "v")]}) for index in (1, 2, 3)]


def test_aliases_end_with_the_connection(world: World) -> None:
    """Trap 1 [MQTT5-3.3.2-7]."""
    first = join5(world, "c", clean=False)
    first.publish5("a", "x", alias=1).drop()
    again = join5(world, "c", clean=False)
    again.publish5("", "y", alias=1)
    assert ended(again, 0x82)


@pytest.mark.parametrize(("alias", "topic", "reason"), [(0, "a", 0x94), (11, "a", 0x94), (11, "", 0x94), (1, "", 0x82)])
def test_an_alias_that_is_none_ends_the_connection(world: World, alias: int, topic: str, reason: int) -> None:
    """Trap 3 [MQTT5-3.3.2-8] [MQTT5-3.3.2-9]."""
    other = join5(world, "other")
    other.publish5("a", "x", alias=1)
    client = join5(world, "c")
    client.publish5(topic, "x", alias=alias)
    assert ended(client, reason)
    assert not other.closed
    other.publish5("", "x", alias=1)
    assert not other.closed


def test_where_none_are_taken_each_is_above_the_maximum(world: World) -> None:
    world.limits.max_topic_alias = 0
    client = join5(world, "c")
    client.publish5("a", "x", alias=1)
    assert ended(client, 0x94)


def test_an_alias_is_set_though_its_message_may_not_be_published(world: World) -> None:
    world.gatekeeper.granted["u"] = Forbidden(publish=[b"secret"])
    reader = join5(world, "reader").ask(("#", 0))
    client = join5(world, "c", username="u")
    client.publish5("secret", "x", 1, 1, alias=1)
    assert client.answer().reason == 0x87
    client.publish5("", "y", 1, 2, alias=1)
    assert client.answer().reason == 0x87
    assert reader.got() == []


def test_a_topic_with_a_wildcard_is_not_remembered(world: World) -> None:
    client = join5(world, "c")
    client.publish5("a/#", "x", alias=1)
    assert ended(client, 0x90)


def test_aliases_count_as_memory_and_are_given_back(world: World) -> None:
    before = world.exchange.memory.clients.size
    client = join5(world, "c")
    there = world.exchange.memory.clients.size
    topic = "a/" + "x" * 1000
    client.publish5(topic, alias=1)
    assert world.exchange.memory.clients.size > there + 1000
    grown = world.exchange.memory.clients.size
    client.publish5(topic, alias=1).publish5("", alias=1)
    assert world.exchange.memory.clients.size == grown
    client.publish5("b", alias=1)
    assert world.exchange.memory.clients.size < grown - 900
    client.bye()
    assert world.exchange.memory.clients.size == before


def test_where_there_is_no_memory_for_aliases_their_client_is_closed(world: World) -> None:
    client = join5(world, "c")
    world.exchange.memory.clients.limit = world.exchange.memory.clients.size + 500
    client.publish5("a/" + "x" * 1000, alias=1)
    assert ended(client, 0x97)


# --- sent to a client --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_client_that_takes_aliases_gets_them(world: World, qos: int) -> None:
    """The first message tells the topic and its alias; the next ones need no topic."""
    reader = join5(world, "reader", alias_maximum=2).ask(("#", qos))
    writer = join5(world, "writer")
    for index, topic in enumerate(("long/topic/1", "long/topic/1", "long/topic/2", "long/topic/1", "long/topic/2")):
        writer.publish5(topic, "x", qos, index + 1)
    got = [(one.topic, one.properties) for one in reader.messages()]
    assert got == [
        ("long/topic/1", {"alias": 1}),
        ("", {"alias": 1}),
        ("long/topic/2", {"alias": 2}),
        ("", {"alias": 1}),
        ("", {"alias": 2}),
    ]
    brackets(world)


def test_no_client_gets_an_alias_above_its_maximum(world: World) -> None:
    """Trap 2 [MQTT5-3.1.2-26] [MQTT5-3.1.2-27]."""
    none = join5(world, "none").ask(("#", 0))
    some = join5(world, "some", alias_maximum=3).ask(("#", 0))
    writer = world.join("writer")
    for index in range(40):
        writer.publish(f"topic/{index % 7}", str(index))
    assert [one.properties for one in none.messages()] == [{}] * 40
    known: dict[int, str] = {}
    for index, one in enumerate(some.messages()):
        alias = one.properties.get("alias", 0)
        assert alias <= 3
        if alias and one.topic:
            known[alias] = one.topic
        assert (one.topic or known[alias]) == f"topic/{index % 7}"


def test_what_does_not_go_out_sets_no_alias(world: World) -> None:
    """Trap 4 [MQTT5-4.4.0-1]: not while the client reads too slowly, and not if the packet is too large."""
    reader = join5(world, "reader", alias_maximum=2, largest=100).ask(("#", 0))
    writer = join5(world, "writer")
    writer.publish5("long/topic", "x" * 90)
    reader.get_stuck()
    writer.publish5("long/topic", "lost")
    reader.get_going()
    writer.publish5("long/topic", "there")
    writer.publish5("long/topic", "too")
    got = [(one.topic, one.payload, one.properties) for one in reader.messages()]
    assert got == [("long/topic", "there", {"alias": 1}), ("", "too", {"alias": 1})]


@pytest.mark.parametrize("qos", [1, 2])
def test_what_is_sent_again_carries_its_topic(world: World, qos: int) -> None:
    """Trap 4: the aliases of the connection on which it was sent first are gone."""
    reader = join5(world, "reader", clean=False, alias_maximum=5).ask(("long/#", qos))
    writer = join5(world, "writer")
    writer.publish5("long/topic", "1", qos, 1).publish5("long/topic", "2", qos, 2)
    first = reader.get()
    assert [(one.topic, one.flags) for one in first] == [("long/topic", ""), ("", "")]
    reader.drop()
    for maximum, expected in ((5, [{"alias": 1}, {"alias": 1}]), (0, [{}, {}])):
        again = join5(world, "reader", clean=False, alias_maximum=maximum)
        got = again.get()
        assert [(one.packet_id, one.flags, one.properties) for one in got] == [
            (one.packet_id, "dup", told) for one, told in zip(first, expected, strict=True)
        ]
        assert got[0].topic == "long/topic"
        again.drop()


def test_aliases_go_to_the_topics_that_are_used_most() -> None:
    aliases = Outward(4)
    told = 0
    for index in range(20_000):
        often = index % 2 == 0
        topic = b"often/%d" % (index // 2 % 2) if often else b"seldom/%d" % index
        if aliases.known(topic):
            told += often
        elif alias := aliases.free(topic):
            aliases.set(alias, topic)
    assert told > 0.99 * 10_000


def test_aliases_for_a_client_are_bounded() -> None:
    aliases = Outward(65_535)
    for index in range(10_000):
        topic = b"topic/%d" % index
        alias = aliases.free(topic)
        assert 0 <= alias <= MOST
        if alias:
            aliases.set(alias, topic)
        assert len(aliases._alias) <= MOST


def test_a_topic_that_is_as_short_as_an_alias_gets_none() -> None:
    assert Outward(5).free(b"a/b") == 0
