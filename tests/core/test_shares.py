"""Shared subscriptions: one of a group gets each message, whoever is away, slow, or leaves."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from broker.core.limits import Limits
from broker.core.ports import Store
from broker.storage.memory import MemoryStore
from broker.storage.sqlite import SqliteStore
from tests.core.harness import Client, Forbidden, World, brackets, published


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return MemoryStore() if request.param == "memory" else SqliteStore(str(tmp_path))


def members(world: World, *names: str, qos: int = 1, clean: bool = True, group: str = "$share/g/t/#") -> list[Client]:
    found = [world.join(name, clean=clean) for name in names]
    for client in found:
        client.subscribe((group, qos))
        assert client.take() == [("SUBACK", 1, [qos])]
    return found


def publisher(world: World, qos: int, *payloads: str, topic: str = "t/x", name: str = "pub") -> None:
    client = world.join(name)
    for number, payload in enumerate(payloads, 1):
        client.publish(topic, payload, qos, number)
        if qos == 2:
            client.pubrel(number)
    client.disconnect()


def answers(client: Client) -> list[str]:
    """Acknowledge what has arrived, and give its payloads."""
    got = [packet for packet in client.take() if packet[0] == "PUBLISH"]
    for _, _, _, qos, packet_id, _ in got:
        if qos == 1:
            client.puback(packet_id)
        elif qos == 2:
            client.pubrec(packet_id)
            client.pubcomp(packet_id)
    client.unread([packet for packet in client.take() if packet[0] == "PUBLISH"])
    return [packet[2] for packet in got]


# --- one of them gets each message ---


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("clean", [True, False])
def test_each_message_goes_to_one_member_in_turn(world: World, qos: int, clean: bool) -> None:
    """MQTT 5.0, section 4.8.2."""
    clients = members(world, "a", "b", "c", qos=qos, clean=clean)
    publisher(world, qos, *"123456")
    assert [answers(client) for client in clients] == [["1", "4"], ["2", "5"], ["3", "6"]]
    brackets(world)


def test_the_name_and_the_filter_make_a_group() -> None:
    world = World()
    [one] = members(world, "a", group="$share/g/t/#")
    [two] = members(world, "b", group="$share/h/t/#")
    [three] = members(world, "c", group="$share/g/t/x")
    publisher(world, 0, "1", "2")
    assert [client.payloads() for client in (one, two, three)] == [["1", "2"]] * 3
    assert len(world.exchange.shares) == 3


def test_each_member_gets_the_qos_that_it_was_granted(world: World) -> None:
    [zero] = members(world, "a", qos=0)
    [one] = members(world, "b", qos=1)
    [two] = members(world, "c", qos=2)
    publisher(world, 2, "1", "2", "3")
    assert zero.take() == [published("t/x", "1", 0)]
    assert one.take() == [published("t/x", "2", 1, 1)]
    assert two.take() == [published("t/x", "3", 2, 1)]


def test_a_shared_and_a_plain_filter_of_a_session_give_two_copies(world: World) -> None:
    """Trap 23 of test_traps_5."""
    [client] = members(world, "a")
    client.subscribe(("t/#", 1), packet_id=2)
    client.take()
    publisher(world, 1, "1")
    assert answers(client) == ["1", "1"]


def test_nothing_retained_comes_for_a_shared_subscription(world: World) -> None:
    """Trap 22 of test_traps_5."""
    world.join("pub").publish("t/x", "old", retain=True)
    [client] = members(world, "a", qos=0)
    client.subscribe(("$share/h/t/x", 0), packet_id=2)
    assert client.take() == [("SUBACK", 2, [0])]
    world.join("pub").publish("t/x", "new", retain=True)
    assert client.take() == [published("t/x", "new")] * 2


@pytest.mark.parametrize("queue", ["$queue/t/x", "$share/$queue/t/x"])
def test_a_queue_is_a_group_without_a_name(world: World, queue: str) -> None:
    """As in EMQX."""
    one, two = world.join("a"), world.join("b")
    one.subscribe(("$queue/t/x", 0)).take()
    two.subscribe((queue, 0)).take()
    publisher(world, 0, "1", "2")
    assert [one.payloads(), two.payloads()] == [["1"], ["2"]]
    one.subscribe(("$share/$queue/t/x", 0), packet_id=2)
    assert one.take() == [("SUBACK", 2, [0x80])]


@pytest.mark.parametrize("wrong", ["$share/", "$share/g", "$share/g/", "$share//t", "$queue/"])
def test_a_group_must_be_well_made(world: World, wrong: str) -> None:
    """[MQTT5-4.8.2-1] [MQTT5-4.8.2-2]"""
    client = world.join("a")
    client.subscribe((wrong, 1))
    assert client.take() == [("SUBACK", 1, [0x80])]
    assert "subscription refused: a shared subscription is $share/NAME/FILTER" in world.log.events("warning", "info")


@pytest.mark.parametrize("wrong", ["$share/+/t", "$share/a#b/t", "$share/g/a#"])
def test_wildcards_in_a_name(world: World, wrong: str) -> None:
    client = world.join("a")
    client.subscribe((wrong, 1))
    assert client.closed or client.take() == [("SUBACK", 1, [0x80])]


# --- who is away or slow ---


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_member_that_is_away_is_passed_over(world: World, qos: int) -> None:
    """Trap 21 of test_traps_5."""
    one, two = members(world, "a", "b", qos=qos, clean=False)
    one.disconnect()
    publisher(world, qos, "1", "2")
    assert answers(two) == ["1", "2"]


@pytest.mark.parametrize("qos", [1, 2])
def test_while_nobody_is_there_messages_wait_in_the_group(store: Store, qos: int) -> None:
    """Trap 21 of test_traps_5: whoever comes first gets them, after a restart too."""
    world = World(store)
    for client in members(world, "a", "b", qos=qos, clean=False):
        client.disconnect()
    publisher(world, qos, "1", "2")
    world = world.crash()
    publisher(world, qos, "3")
    assert answers(world.join("b", clean=False)) == ["1", "2", "3"]
    assert answers(world.join("a", clean=False)) == []
    world = world.crash()
    assert answers(world.join("a", clean=False)) == []
    brackets(world)


def test_messages_of_qos_0_do_not_wait(world: World) -> None:
    [client] = members(world, "a", qos=1, clean=False)
    client.disconnect()
    publisher(world, 0, "1")
    assert answers(world.join("a", clean=False)) == []


def test_a_member_whose_window_is_full_is_passed_over() -> None:
    world = World(limits=Limits(max_inflight=2))
    one, two = members(world, "a", "b")
    publisher(world, 1, *"12345678")
    assert Counter(one.payloads() + two.payloads()) == Counter("1234")
    two.puback(1, 2)
    assert two.payloads() == ["5", "6"]
    one.puback(1)
    assert one.payloads() == ["7"]
    brackets(world)


@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize("qos", [0, 1])
def test_a_member_that_reads_too_slowly_is_passed_over(world: World, qos: int, clean: bool) -> None:
    one, two = members(world, "a", "b", qos=qos, clean=clean)
    one.get_stuck()
    publisher(world, qos, "1", "2")
    assert answers(two) == ["1", "2"]
    one.get_going()
    publisher(world, qos, "3", "4")
    assert sorted(answers(one) + answers(two)) == ["3", "4"]
    brackets(world)


@pytest.mark.parametrize("clean", [True, False])
def test_where_all_are_busy_with_their_own_messages(clean: bool) -> None:
    """Room that a message gives which is none of the group's is noticed too."""
    world = World(limits=Limits(max_inflight=1))
    [client] = members(world, "a", clean=clean)
    client.subscribe(("own", 1), packet_id=2).take()
    publisher(world, 1, "0", topic="own")
    publisher(world, 1, "1", "2")
    assert answers(client) == ["0"]
    assert answers(client) == ["1"]
    assert answers(client) == ["2"]
    assert world.exchange.memory.queues.size == 0
    brackets(world)


# --- who goes ---


@pytest.mark.parametrize("clean", [True, False])
def test_what_a_member_has_not_acknowledged_goes_to_another(store: Store, clean: bool) -> None:
    """Section 4.8.2: as soon as its connection ends."""
    world = World(store)
    one, two = members(world, "a", "b", clean=clean)
    publisher(world, 1, "1", "2", "3", "4")
    assert (one.payloads(), answers(two)) == (["1", "3"], ["2", "4"])
    one.puback(1)
    one.drop()
    assert answers(two) == ["3"]
    if not clean:
        assert answers(world.join("a", clean=False)) == []
    brackets(world)


def test_it_waits_for_another_if_there_is_none(store: Store) -> None:
    world = World(store)
    one, two = members(world, "a", "b", clean=False)
    two.disconnect()
    publisher(world, 1, "1", "2", "3")
    assert one.payloads() == ["1", "2", "3"]
    one.drop()
    two = world.join("b", clean=False)
    assert two.payloads() == ["1", "2", "3"]
    world = world.crash()
    assert world.join("a", clean=False).payloads() == ["1", "2", "3"]
    brackets(world)


def test_qos_2_that_was_sent_goes_to_nobody_else(store: Store) -> None:
    """[MQTT5-4.8.2-4] [MQTT5-4.8.2-5]"""
    world = World(store)
    one, two = members(world, "a", "b", qos=2, clean=False)
    publisher(world, 2, "1", "2")
    assert one.take() == [published("t/x", "1", 2, 1)]
    one.drop()
    assert answers(two) == ["2"]
    one = world.join("a", clean=False)
    assert one.take() == [published("t/x", "1", 2, 1, "dup")]
    one.pubrec(1)
    one.drop()
    one = world.join("a", clean=False)
    assert one.take() == [("PUBREL", 1)]
    world.join("a", clean=True)
    assert answers(two) == []


def test_qos_2_that_was_not_sent_yet_goes_to_another(store: Store) -> None:
    """It waits until it is stored; if its member leaves before, nothing was begun with it."""
    world = World(store)
    one, two = members(world, "a", "b", qos=2, clean=False)
    world.lane.held = True
    world.join("pub").publish("t/x", "1", 2, 1)
    assert (one.take(), two.take()) == ([], [])
    one.drop()
    world.lane.held = False
    world.settle()
    assert answers(two) == ["1"]
    one = world.join("a", clean=False)
    assert answers(one) == []
    world = world.crash()
    assert answers(world.join("a", clean=False)) + answers(world.join("b", clean=False)) == []
    brackets(world)


def test_who_unsubscribes_may_finish_what_was_sent_to_it(world: World) -> None:
    """[MQTT5-3.10.4-3]; whoever has not, gives it back with its connection."""
    one, two = members(world, "a", "b")
    publisher(world, 1, "1", "2", "3")
    assert (one.payloads(), answers(two)) == (["1", "3"], ["2"])
    one.unsubscribe("$share/g/t/#", packet_id=3)
    assert one.take() == [("UNSUBACK", 3)]
    one.puback(1)
    publisher(world, 1, "4")
    assert answers(two) == ["4"]
    one.drop()
    assert answers(two) == ["3"]
    brackets(world)


def test_the_group_ends_with_its_last_subscription(store: Store) -> None:
    world = World(store)
    before = world.exchange.memory.size
    quotas = world.exchange.quotas
    one, two = members(world, "a", "b", clean=False)
    assert quotas.sessions == 3
    publisher(world, 1, "1", "2", "3")
    one.unsubscribe("$share/g/t/#")
    two.disconnect()
    assert len(world.exchange.shares) == 1
    publisher(world, 1, "4")
    world.join("b", clean=True)
    world.join("a", clean=True)
    assert (len(world.exchange.shares), quotas.sessions, world.exchange.router.count) == (0, 0, 0)
    for client in world.clients:
        client.drop()
    assert world.exchange.memory.size == before
    assert world.settle().store.load().sessions == []
    assert world.crash().store.load().sessions == []


def test_a_group_of_clean_sessions_alone_is_in_memory(store: Store) -> None:
    world = World(store)
    [client] = members(world, "a")
    publisher(world, 1, "1")
    assert world.store.load().sessions == []
    client.drop()
    assert len(world.exchange.shares) == 0
    assert world.exchange.memory.queues.size == 0


def test_it_is_stored_from_its_first_persistent_member_on(store: Store) -> None:
    world = World(store, Limits(max_inflight=2))
    [one] = members(world, "a")
    publisher(world, 1, *"12345")
    two = world.join("b", clean=False)
    two.subscribe(("$share/g/t/#", 1))
    assert (one.payloads(), [packet[2] for packet in two.take()[:2]]) == (["1", "2"], ["3", "4"])
    world = world.crash()
    two = world.join("b", clean=False)
    assert answers(two) == ["1", "2"]
    assert answers(two) == ["3", "4"]
    assert answers(two) == ["5"]
    brackets(world)


def test_a_group_that_nobody_persistent_is_in_is_gone_after_a_restart(store: Store) -> None:
    world = World(store)
    members(world, "a")
    [two] = members(world, "b", clean=False)
    two.unsubscribe("$share/g/t/#")
    publisher(world, 1, "1")
    world = world.crash()
    assert len(world.exchange.shares) == 0
    assert [one.record.client_id for one in world.settle().store.load().sessions] == ["b"]


# --- rights ---


def test_rights_are_asked_for_by_the_filter_behind_the_name(world: World) -> None:
    world.gatekeeper.granted["u"] = Forbidden(subscribe=[b"secret/#"])
    client = world.join("a", username="u")
    client.subscribe(("$share/g/secret/#", 1), ("$queue/secret/#", 1), ("$share/g/t/#", 1))
    assert client.take() == [("SUBACK", 1, [0x80, 0x80, 1])]


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_member_gets_only_what_it_may_receive(world: World, qos: int) -> None:
    world.gatekeeper.granted["u"] = Forbidden(receive=[b"t/secret"])
    one = world.join("a", username="u")
    one.subscribe(("$share/g/t/#", qos)).take()
    [two] = members(world, "b", qos=qos)
    for _ in range(4):
        publisher(world, qos, "secret", topic="t/secret")
    assert one.take() == []
    assert answers(two) == ["secret"] * 4
    publisher(world, qos, "1", "2")
    assert answers(one) == ["1"] or answers(one) == ["2"]


def test_what_waits_is_judged_when_it_is_handed_out(world: World) -> None:
    world.gatekeeper.granted["u"] = Forbidden(receive=[b"t/secret"])
    one = world.join("a", username="u", clean=False)
    one.subscribe(("$share/g/t/#", 1)).take()
    [two] = members(world, "b", clean=False)
    one.disconnect()
    two.disconnect()
    publisher(world, 1, "secret", topic="t/secret")
    publisher(world, 1, "1")
    one = world.join("a", username="u", clean=False)
    assert one.take() == []  # the other one may have the first
    two = world.join("b", clean=False)
    assert sorted(answers(one) + answers(two)) == ["1", "secret"]


def test_a_right_that_comes_back_lets_what_waits_go_on(world: World) -> None:
    rights = world.gatekeeper.granted["u"] = Forbidden(receive=[b"t/secret"])
    one = world.join("a", username="u")
    one.subscribe(("$share/g/t/#", 1)).take()
    [two] = members(world, "b", clean=False)
    two.disconnect()
    publisher(world, 1, "secret", topic="t/secret")
    assert one.take() == []
    rights.receive.clear()
    for _ in world.exchange.sessions.rights_changed(lambda session: session.rights):
        pass
    world.settle()
    assert answers(one) == ["secret"]


def test_what_no_member_may_receive_is_dropped(world: World) -> None:
    world.gatekeeper.granted["u"] = Forbidden(receive=[b"t/secret"])
    one = world.join("a", username="u", clean=False)
    one.subscribe(("$share/g/t/#", 1)).take()
    publisher(world, 1, "secret", topic="t/secret")
    publisher(world, 1, "1")
    assert answers(one) == ["1"]
    one.disconnect()
    publisher(world, 1, "secret", topic="t/secret")
    publisher(world, 1, "2")
    assert answers(world.join("a", username="u", clean=False)) == ["2"]


# --- strategies ---


def spread(world: World, strategy: str, topics: list[str], names: list[str]) -> dict[str, list[str]]:
    """Who gets what: topic and publisher of each message."""
    world.limits.shared_strategy = strategy
    clients = dict(zip("abc", members(world, "a", "b", "c"), strict=True))
    for name in names:
        for topic in topics:
            publisher(world, 1, f"{name} {topic}", topic=topic, name=name)
    return {name: answers(client) for name, client in clients.items()}


def test_sticky_is_the_same_one_as_long_as_it_is_there(world: World) -> None:
    world.limits.shared_strategy = "sticky"
    one, two, three = members(world, "a", "b", "c")
    publisher(world, 1, "1", "2", "3")
    assert answers(one) == ["1", "2", "3"]
    one.drop()
    publisher(world, 1, "4", "5")
    assert sorted([answers(two), answers(three)]) == [[], ["4", "5"]]


@pytest.mark.parametrize("strategy", ["hash-topic", "hash-publisher"])
def test_the_same_key_goes_to_the_same_member(world: World, strategy: str) -> None:
    """Trap 41 of test_traps_5."""
    found = spread(world, strategy, [f"t/{n}" for n in range(12)], [f"p{n}" for n in range(12)])
    part = ("hash-publisher", "hash-topic").index(strategy)
    keys = {name: {payload.split()[part] for payload in payloads} for name, payloads in found.items()}
    assert sum(map(len, keys.values())) == 12
    assert len(set().union(*keys.values())) == 12
    assert sum(map(len, found.values())) == 144
    assert sum(1 for some in keys.values() if some) > 1


def test_least_queued_is_the_one_with_the_fewest(world: World) -> None:
    world.limits.shared_strategy = "least-queued"
    one, two = members(world, "a", "b")
    publisher(world, 1, *"123456")
    first, second = one.payloads(), two.payloads()
    assert (len(first), len(second)) == (3, 3)
    one.puback(1, 2, 3)
    publisher(world, 1, *"789")
    assert (len(one.payloads()), two.payloads()) == (3, [])


def test_a_group_may_have_a_strategy_of_its_own(world: World) -> None:
    world.limits.shared_strategies = {"s": "sticky"}
    one, two = members(world, "a", "b", group="$share/s/t/#", qos=0)
    three, four = members(world, "c", "d", qos=0)
    publisher(world, 0, "1", "2")
    assert [client.payloads() for client in (one, two, three, four)] == [["1", "2"], [], ["1"], ["2"]]
    world.limits.shared_strategies = {"g": "sticky"}
    world.exchange.limits_changed()
    publisher(world, 0, "3", "4")
    assert sorted(client.payloads() for client in (one, two)) == [["3"], ["4"]]
    assert sorted(client.payloads() for client in (three, four)) == [[], ["3", "4"]]


# --- limits ---


def test_the_queue_of_a_group_has_the_limits_of_a_session() -> None:
    world = World(limits=Limits(max_queued_messages=3))
    [client] = members(world, "a", clean=False)
    client.disconnect()
    publisher(world, 1, *"12345")
    assert world.exchange.stats.dropped == 2
    assert answers(world.join("a", clean=False)) == ["1", "2", "3"]
    assert world.log.events("warning") == [
        "queue full: messages for this shared subscription are dropped",
        "queue empty again",
    ]


def test_a_long_queue_is_drawn_from_the_store_in_parts(store: Store) -> None:
    world = World(store, Limits(max_memory_queue=10, max_inflight=7))
    one, two = members(world, "a", "b", clean=False)
    one.disconnect()
    two.disconnect()
    payloads = [str(number) for number in range(200)]
    publisher(world, 1, *payloads)
    assert world.exchange.memory.queues.size == 0
    one, two = (world.join(name, clean=False) for name in "ab")
    got: list[str] = []
    for _ in range(100):
        got += answers(one) + answers(two)
    assert sorted(got, key=int) == payloads
    assert world.exchange.memory.queues.size == 0
    publisher(world, 1, "more")
    assert answers(one) + answers(two) == ["more"]
    brackets(world)


def test_a_group_counts_as_a_session() -> None:
    world = World(limits=Limits(max_sessions=1))
    client = world.join("a", clean=False)
    client.subscribe(("$share/g/t", 1), ("t", 1))
    assert client.take() == [("SUBACK", 1, [0x80, 1])]
    clean = world.join("b")
    clean.subscribe(("$share/g/t", 1))
    assert clean.take() == [("SUBACK", 1, [1])]


def test_a_thousand_groups_and_a_thousand_members(world: World) -> None:
    """No message looks at those who are away or full."""
    clients = members(world, *(f"c{number}" for number in range(1_000)), qos=1, clean=False)
    for client in clients[:-1]:
        client.disconnect()
    busy = clients[-1]
    for number in range(1_000):
        busy.subscribe((f"$share/n{number}/u", 0), packet_id=2)
    busy.take()
    spent: list[int] = []
    for number in range(3):
        before = world.exchange.account.spent
        world.join(f"p{number}").publish("t/x", "x", 1, 1)
        spent.append(world.exchange.account.spent - before)
    assert answers(busy) == ["x", "x", "x"]
    world.join("p").publish("u", "y", 0)
    assert busy.payloads() == ["y"] * 1_000
    busy.disconnect()
    busy = world.join("c999", clean=False)
    world.join("p").publish("u", "z", 0)
    assert busy.payloads() == ["z"] * 1_000
    brackets(world)
