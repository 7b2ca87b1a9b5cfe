"""SUBSCRIBE and UNSUBSCRIBE of MQTT 5.0: options, reason codes, retained messages; and its clients in groups."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from broker.core.limits import Limits
from broker.core.ports import Store
from broker.storage.memory import MemoryStore
from broker.storage.sqlite import SqliteStore
from tests.core.harness import Forbidden, World, brackets
from tests.core.harness5 import Client5, join5, properties
from tests.vectors import length, number, packet
from tests.vectors5 import ack5, subscribe5, unsubscribe5

NO_LOCAL, AS_PUBLISHED, IF_NEW, NEVER = 0x04, 0x08, 0x10, 0x20


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return MemoryStore() if request.param == "memory" else SqliteStore(str(tmp_path))


def reasons(client: Client5, *wanted: tuple[str, int], identifier: int = 0) -> tuple[int, ...]:
    section = b"".join(properties(identifier=identifier)) if identifier else b""
    asked = ((name.encode(), options) for name, options in wanted)
    client.send(subscribe5(7, *asked, properties=length(len(section)) + section))
    [answer] = [one for one in client.get() if one.name == "SUBACK"]
    assert answer.packet_id == 7
    return answer.reasons


def retained(world: World, **topics: str) -> None:
    for topic, payload in topics.items():
        world.join("retainer").publish(topic, payload, retain=True)


def members(world: World, *names: str, options: int = 1, clean: bool = True, **values: Any) -> list[Client5]:
    return [
        join5(world, name, clean=clean, **values).ask(("$share/g/t/#", options), identifier=number)
        for number, name in enumerate(names, 1)
    ]


def publish(world: World, *payloads: str, qos: int = 1, topic: str = "t/x", **values: Any) -> None:
    client = join5(world, "pub")
    for packet_id, payload in enumerate(payloads, 1):
        client.publish5(topic, payload, qos, packet_id, **values)
        if qos == 2:
            client.pubrel(packet_id)
    client.get()
    client.bye()


# --- reason codes ---


def test_each_filter_has_its_reason_code() -> None:
    """[MQTT5-3.8.4-6] [MQTT5-3.9.3-1]"""
    world = World(limits=Limits(max_topic_length=20, max_subscriptions=4))
    world.gatekeeper.granted["u"] = Forbidden(subscribe=[b"secret"])
    client = join5(world, username="u")
    wanted = ("a", 0), ("b", 1), ("c", 2), ("secret", 1), ("x" * 21, 1), ("d", 0), ("e", 0), ("a", 2)
    assert reasons(client, *wanted) == (0, 1, 2, 0x87, 0x8F, 0, 0x97, 2)


def test_what_is_not_available_has_a_reason_code_of_its_own() -> None:
    world = World(limits=Limits(wildcard_available=False, shared_available=False))
    client = join5(world)
    assert reasons(client, ("a/#", 1), ("+", 1), ("$share/g/a", 1), ("$queue/a", 1), ("a", 1)) == (
        0xA2, 0xA2, 0x9E, 0x9E, 1,
    )  # fmt: skip


def test_above_max_qos_less_is_granted() -> None:
    """[MQTT5-3.2.2-9] [MQTT5-3.2.2-10]"""
    world = World(limits=Limits(max_qos=1))
    assert reasons(join5(world), ("a", 2), ("b", 0)) == (1, 0)


def test_unsubscribe_says_whether_there_was_a_subscription(world: World) -> None:
    """[MQTT5-3.10.4-4] [MQTT5-3.11.3-1]"""
    client = join5(world).ask(("a", 0), ("$share/g/t", 1))
    client.send(unsubscribe5(3, b"a", b"b", b"a", b"$share/g/t", b"$share/g/t", b"$share/g"))
    answer = client.answer()
    assert (answer.name, answer.packet_id, answer.reasons) == ("UNSUBACK", 3, (0, 0x11, 0x11, 0, 0x11, 0x11))
    assert len(world.exchange.shares) == 0


def test_options_outlive_the_broker(store: Store) -> None:
    world = World(store)
    join5(world, clean=False).ask(("t", 1 | NO_LOCAL | AS_PUBLISHED | IF_NEW), ("u", 2), identifier=9)
    world = world.crash()
    client = join5(world, clean=False)
    client.publish5("t", "own", 1)
    assert client.got() == []
    world.join("p").publish("t", "x", 1, 1, retain=True)
    [message] = client.messages()
    assert (message.payload, message.flags, message.properties) == ("x", "retain", {"identifier": [9]})


# --- retained messages ---


def test_retain_handling_0_sends_again_on_subscribe_again(world: World) -> None:
    """Trap 36 of test_traps_5 [MQTT5-3.3.1-9]"""
    retained(world, a="old")
    client = join5(world)
    for _ in range(2):
        client.ask(("a", 0))
        assert client.got() == ["old"]


def test_retain_handling_1_sends_only_if_it_is_new(world: World) -> None:
    """Trap 36 of test_traps_5 [MQTT5-3.3.1-10]"""
    retained(world, a="old")
    client = join5(world)
    client.ask(("a", IF_NEW))
    assert client.got() == ["old"]
    client.ask(("a", IF_NEW))
    assert client.got() == []
    client.forget("a").ask(("a", IF_NEW))
    assert client.got() == ["old"]


def test_retain_handling_1_knows_a_subscription_of_before(store: Store) -> None:
    """Trap 36 of test_traps_5: nothing on a mere resume, and it is not new then."""
    world = World(store)
    retained(world, a="old")
    join5(world, clean=False).ask(("a", IF_NEW)).bye()
    world = world.crash()
    client = join5(world, clean=False)
    assert client.got() == []
    client.ask(("a", IF_NEW))
    assert client.got() == []
    client.ask(("a", 0))
    assert client.got() == ["old"]


def test_retain_handling_2_sends_nothing(world: World) -> None:
    """Trap 36 of test_traps_5 [MQTT5-3.3.1-11]"""
    retained(world, a="old", b="other")
    client = join5(world)
    client.ask(("a", NEVER), ("b", 0))
    assert client.got() == ["other"]


@pytest.mark.parametrize("options", [0, AS_PUBLISHED])
def test_retained_at_subscribe_has_retain_1(world: World, options: int) -> None:
    """Trap 37 of test_traps_5, whatever Retain As Published says."""
    retained(world, a="old")
    client = join5(world).ask(("a", options))
    [message] = client.messages()
    assert (message.payload, message.flags) == ("old", "retain")
    retained(world, a="new")
    [message] = client.messages()
    assert (message.payload, message.flags) == ("new", "retain" if options else "")


def test_a_new_identifier_replaces_the_old_one(world: World) -> None:
    """Trap 18 of test_traps_5 [MQTT5-3.3.4-3]"""
    client = join5(world)
    for identifier, told in ((5, {"identifier": [5]}), (268_435_455, {"identifier": [268_435_455]}), (0, {})):
        client.ask(("a", 1), identifier=identifier)
        publish(world, "x", topic="a")
        [message] = client.messages()
        assert message.properties == told


def test_identifiers_of_all_that_match_stand_in_one_copy(world: World) -> None:
    """Trap 17 of test_traps_5 [MQTT5-3.3.4-4]"""
    client = join5(world).ask(("a", 1), identifier=1).ask(("#", 0), identifier=2).ask(("+", 1))
    other = join5(world, "other").ask(("a", 0), identifier=3)
    publish(world, "x", topic="a")
    [message] = client.messages()
    assert (sorted(message.properties["identifier"]), message.qos) == ([1, 2], 1)
    [message] = other.messages()
    assert message.properties == {"identifier": [3]}


def test_a_publish_with_an_identifier_is_an_error(world: World) -> None:
    """Trap 19 of test_traps_5 [MQTT5-3.3.4-6]"""
    client = join5(world)
    client.publish5("a", "x", identifier=1)
    assert (client.closed, client.get()[-1].reason) == (True, 0x82)


# --- shared ---


def test_no_local_and_shared_exclude_each_other(world: World) -> None:
    """Trap 20 of test_traps_5 [MQTT5-3.8.3-4]"""
    client = join5(world)
    client.send(subscribe5(1, (b"a", 1), (b"$share/g/t", 1 | NO_LOCAL)))
    assert (client.closed, client.get()[-1].reason) == (True, 0x82)
    assert world.exchange.router.count == 0


def test_a_member_gets_its_own_identifiers_only(world: World) -> None:
    """Trap 18 of test_traps_5 [MQTT5-3.3.4-3], also for what has waited."""
    one, two = members(world, "a", "b", clean=False)
    publish(world, "1", "2")
    found = [client.messages() for client in (one, two)]
    assert [[message.properties for message in some] for some in found] == [
        [{"identifier": [1]}], [{"identifier": [2]}],
    ]  # fmt: skip
    one.bye()
    two.bye()
    publish(world, "3", user=[("k", "v")], expiry=60)
    [message] = join5(world, "b", clean=False).messages()
    assert message.properties == {"expiry": 60, "identifier": [2], "user": [("k", "v")]}


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_retain_as_published_holds_for_each_member(world: World, qos: int) -> None:
    [one] = members(world, "a", options=qos | AS_PUBLISHED)
    [two] = members(world, "b", options=qos)
    publish(world, "1", "2", qos=qos, retain=True)
    assert [[m.flags for m in client.messages()] for client in (one, two)] == [["retain"], [""]]


def test_versions_meet_in_a_group(world: World) -> None:
    [five] = members(world, "a")
    four = world.join("b")
    four.subscribe(("$share/g/t/#", 1)).take()
    publish(world, "1", "2", content_type="text")
    [message] = five.messages()
    assert (message.payload, message.properties) == ("1", {"content_type": "text", "identifier": [1]})
    assert four.payloads() == ["2"]
    four.puback(1)
    world.join("p").publish("t/x", "3", 1, 1)
    assert five.got() == ["3"]
    brackets(world)


@pytest.mark.parametrize("qos", [1, 2])
def test_what_a_member_refuses_is_dropped(world: World, qos: int) -> None:
    """Trap 24 of test_traps_5 [MQTT5-4.8.2-6]: nobody else gets it, and there is room again."""
    one, two = members(world, "a", "b", options=qos, receive_maximum=1)
    publish(world, "1", "2", "3", qos=qos)
    for client, payload in ((one, "1"), (two, "2")):
        message = client.answer()
        assert (message.payload, message.qos) == (payload, qos)
        client.send(ack5((0, 0x40, 0x50)[qos], message.packet_id, 0x80))
    assert sorted(one.got() + two.got()) == ["3"]
    publish(world, "4", "5", qos=qos)
    assert sorted(one.got() + two.got()) == ["4", "5"]
    brackets(world)


def test_a_member_gets_no_more_than_its_receive_maximum(world: World) -> None:
    """[MQTT5-3.3.4-9]"""
    one, two = members(world, "a", "b", receive_maximum=2)
    publish(world, *"123456")
    first, second = one.get(), two.get()
    assert (len(first), len(second)) == (2, 2)
    one.send(packet(0x40, number(first[0].packet_id)))
    assert len(one.get()) == 1


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_what_is_too_large_for_a_member_goes_to_another(world: World, qos: int) -> None:
    """Section 3.1.2.11.4"""
    [small] = members(world, "a", options=qos, largest=60)
    [large] = members(world, "b", options=qos)
    publish(world, "x" * 60, "y" * 60, qos=qos)
    assert (small.got(), large.got()) == ([], ["x" * 60, "y" * 60])
    large.drop()
    publish(world, "z" * 60, "4", qos=qos)
    assert small.got() == ["4"]


@pytest.mark.parametrize("more", [0, 1])
def test_the_largest_that_a_member_takes(world: World, more: int) -> None:
    """[MQTT5-3.1.2-24]: to the byte."""
    [client] = members(world, "a")
    publish(world, "x" * 40)
    size = client.answer().size
    world = World()
    [client] = members(world, "a", largest=size)
    publish(world, "x" * (40 + more))
    assert client.got() == ["x" * 40] * (1 - more)


def test_what_has_waited_in_a_group_tells_how_long_it_may_go_on(store: Store) -> None:
    """Traps 14 and 15 of test_traps_5 [MQTT5-3.3.2-5] [MQTT5-3.3.2-6]"""
    world = World(store)
    [client] = members(world, "a", clean=False)
    client.bye()
    publish(world, "short", expiry=5)
    publish(world, "long", expiry=100)
    world.advance(10)
    [message] = join5(world, "a", clean=False).messages()
    assert (message.payload, message.properties["expiry"]) == ("long", 90)
    brackets(world)


def test_aliases_in_a_group(world: World) -> None:
    """Traps 1, 2 and 4 of test_traps_5: each member has those of its own connection."""
    one, two = members(world, "a", "b", alias_maximum=5)
    topic = "t/with/a/long/name"
    publish(world, *"12345678", topic=topic)
    for client, payloads in ((one, "1357"), (two, "2468")):
        found = client.messages()
        assert [message.payload for message in found] == list(payloads)
        set_at = next(place for place, message in enumerate(found) if "alias" in message.properties)
        assert (found[set_at].topic, found[set_at].properties["alias"]) == (topic, 1)
        assert {(message.topic, message.properties["alias"]) for message in found[set_at + 1 :]} == {("", 1)}


def test_0x10_only_if_there_is_nobody(world: World) -> None:
    """Trap 29 of test_traps_5: a group of absent members is somebody."""
    publisher = join5(world, "pub")
    publisher.publish5("t/x", "1", 1)
    assert publisher.answer().reason == 0x10
    [client] = members(world, "a", clean=False)
    client.bye()
    for qos, name in ((1, "PUBACK"), (2, "PUBREC")):
        publisher.publish5("t/x", "2", qos, qos)
        answer = publisher.answer()
        assert (answer.name, answer.reason) == (name, 0)
    world.join("a", clean=True)
    publisher.publish5("t/x", "3", 1, 3)
    assert publisher.answer().reason == 0x10


def test_a_session_that_changes_its_version_stays_in_its_group(store: Store) -> None:
    """Trap 38 of test_traps_5"""
    world = World(store)
    [client] = members(world, "a", clean=False)
    publish(world, "1", content_type="text")
    client.drop()
    four = world.join("a", clean=False)
    assert four.payloads() == ["1"]
    four.disconnect()
    [message] = join5(world, "a", clean=False).messages()
    assert (message.payload, message.properties) == ("1", {"content_type": "text", "identifier": [1]})
    brackets(world)
