"""Clients that are brokers: no message comes back to where it came from, the RETAIN flag goes along, and a bridge may
tell its state."""

from __future__ import annotations

import pytest

from broker.core.bridges import state_topic
from broker.core.limits import Limits
from tests.core.harness import Client, Forbidden, Sent, World, brackets

STATE = "$SYS/broker/connection/bridge/state"


@pytest.fixture
def world() -> World:
    return World()


def join(world: World, *wanted: tuple[str, int], version: int = 4, clean: bool = True) -> Client:
    client = world.join("bridge", bridge=True, version=version, clean=clean)
    if wanted:
        client.subscribe(*wanted)
        assert client.take() == [("SUBACK", 1, [qos for _, qos in wanted])]  # what it gets besides is not told
    return client


def acknowledged(client: Client) -> list[Sent]:
    """The messages that the client has got, each of them answered to its end."""
    found = []
    while packets := client.take():
        for one in packets:
            if one[0] == "PUBLISH":
                found.append(one)
                if one[3] == 1:
                    client.puback(one[4])
                elif one[3] == 2:
                    client.pubrec(one[4])
            elif one[0] == "PUBREL":
                client.pubcomp(one[1])
    return found


def meant(client: Client) -> list[tuple[str, str, int, str]]:
    """Topic, payload, QoS and flags of what came."""
    return [(topic, payload, qos, flags) for _, topic, payload, qos, _, flags in acknowledged(client)]


# --- no message comes back ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("version", "wanted"), [(4, ["#"]), (3, ["t"]), (4, ["+", "t", "t/#"])])
@pytest.mark.parametrize("granted", [0, 1, 2])
@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("retain", [False, True])
def test_what_a_bridge_has_sent_goes_to_all_but_itself(
    world: World, version: int, wanted: list[str], granted: int, qos: int, retain: bool
) -> None:
    bridge = join(world, *((name, granted) for name in wanted), version=version)
    other = world.join("other")
    other.subscribe(("#", 2)).take()
    bridge.publish("t", "from the bridge", qos, 1, retain=retain)
    if qos == 2:
        bridge.pubrel(1)
    assert meant(bridge) == []
    assert meant(other) == [("t", "from the bridge", qos, "")]
    other.publish("t", "to the bridge", qos, 1, retain=retain)
    assert meant(bridge) == [("t", "to the bridge", min(qos, granted), "retain" if retain else "")]
    brackets(world)


def test_another_bridge_gets_it(world: World) -> None:
    bridge = join(world, ("#", 1))
    second = world.join("second", bridge=True)
    second.subscribe(("#", 1)).take()
    bridge.publish("t", "x", 1, 1, retain=True)
    assert (meant(bridge), meant(second)) == ([], [("t", "x", 1, "retain")])


def test_a_client_that_is_no_bridge_gets_its_own_messages_as_ever(world: World) -> None:
    join(world, ("#", 1))
    client = world.join("c")
    client.subscribe(("t", 1)).take()
    client.publish("t", "x", 1, 1, retain=True)
    assert meant(client) == [("t", "x", 1, "")]


def test_a_topic_without_a_bridge_goes_the_quick_way(world: World) -> None:
    join(world, ("bridged/#", 1))
    world.join("c").subscribe(("#", 1))
    router = world.exchange.router
    assert (router.route(b"t").plain, router.route(b"bridged/t").plain) == (True, False)
    world.clients[0].unsubscribe("bridged/#")
    assert router.route(b"bridged/t").plain


def test_its_will_does_not_come_back_when_it_is_back(world: World) -> None:
    bridge = world.join("bridge", bridge=True, clean=False, will=("t", "gone", 1, False))
    bridge.subscribe(("#", 1)).take()
    world.join("other").subscribe(("#", 1)).take()
    bridge.drop()
    world.settle()
    back = world.join("bridge", bridge=True, clean=False, expect=("CONNACK", 1, 0))
    assert (meant(back), meant(world.clients[1])) == ([], [("t", "gone", 1, "")])


# --- retained messages -------------------------------------------------------------------------------------------


def test_a_new_subscription_gets_what_others_have_retained(world: World) -> None:
    """What it has sent itself may be older than what it now has."""
    bridge = join(world)
    bridge.publish("mine", "x", 1, 1, retain=True)
    world.join("other").publish("other's", "y", 1, 1, retain=True)
    bridge.subscribe(("#", 1))
    assert meant(bridge) == [("other's", "y", 1, "retain")]


def test_a_retained_message_that_is_removed_is_removed_there_too(world: World) -> None:
    bridge = join(world, ("#", 1))
    other = world.join("other")
    other.publish("t", "x", 1, 1, retain=True).publish("t", "", 1, 2, retain=True)
    assert meant(bridge) == [("t", "x", 1, "retain"), ("t", "", 1, "retain")]


@pytest.mark.parametrize("crashed", [False, True])
@pytest.mark.parametrize("large", [False, True])
def test_it_is_as_before_for_a_bridge_that_was_away(crashed: bool, large: bool) -> None:
    world = World()
    payload = "x" * (20_000 if large else 1)
    join(world, ("#", 2), clean=False).drop()
    ordinary = world.join("ordinary", clean=False)
    ordinary.subscribe(("#", 2)).take()
    ordinary.drop()
    other = world.join("other")
    other.publish("t", payload, 1, 1, retain=True).publish("t", payload, 1, 2).publish("t", payload, 0)
    if crashed:
        world = world.crash()
    bridge = world.join("bridge", bridge=True, clean=False, expect=("CONNACK", 1, 0))
    world.settle()
    assert meant(bridge) == [("t", payload, 1, "retain"), ("t", payload, 1, "")]
    bridge.publish("t", "own", 1, 1)
    assert meant(bridge) == []
    assert meant(world.join("ordinary", clean=False)) == [("t", payload, 1, "")] * 2 + [("t", "own", 1, "")]


def test_options_go_with_the_subscription(world: World) -> None:
    """Who comes back as an ordinary client, and subscribes anew, is one."""
    join(world, ("a", 1), ("b", 1), clean=False).drop()
    client = world.join("bridge", clean=False)
    client.subscribe(("b", 1))
    client.take()
    client.publish("a", "", 1, 1).publish("b", "", 1, 2)
    assert meant(client) == [("b", "", 1, "")]


# --- its state ---------------------------------------------------------------------------------------------------


def test_a_bridge_tells_its_state(world: World) -> None:
    watcher = world.join("watcher")
    watcher.subscribe(("$SYS/#", 1)).take()
    bridge = world.join("bridge", bridge=True, will=(STATE, "0", 1, True))
    bridge.publish(STATE, "1", 1, 1, retain=True)
    assert bridge.take() == [("PUBACK", 1)]
    assert meant(watcher) == [(STATE, "1", 1, "")]
    late = world.join("late")
    late.subscribe((STATE, 1)).take(1)
    assert meant(late) == [(STATE, "1", 1, "retain")]
    bridge.drop()
    world.settle()
    assert meant(watcher) == [(STATE, "0", 1, "")]
    assert world.exchange.stats.denied == 0


@pytest.mark.parametrize(
    ("bridge", "topic"),
    [
        (False, STATE),
        (True, "$SYS/broker/connection/other/state"),
        (True, "$SYS/broker/connection/bridge/state/x"),
        (True, "$SYS/broker/connection/bridge"),
        (True, "$SYS/broker/version"),
        (True, "$SYS"),
    ],
)
@pytest.mark.parametrize("by_will", [False, True])
def test_nobody_tells_anything_else_under_sys(world: World, bridge: bool, topic: str, by_will: bool) -> None:
    watcher = world.join("watcher")
    watcher.subscribe(("$SYS/#", 1)).take()
    client = world.join("bridge", bridge=bridge, will=(topic, "x", 1, True) if by_will else None)
    if not by_will:
        client.publish(topic, "x", 1, 1, retain=True).publish(topic, "x", 0, retain=True)
        assert client.take() == [("PUBACK", 1)]
    client.drop()
    world.settle()
    assert (meant(watcher), world.exchange.retained.count) == ([], 0)
    assert world.exchange.stats.denied == (1 if by_will else 2)


def test_its_state_needs_the_right_as_any_other_topic(world: World) -> None:
    world.gatekeeper.granted["u"] = Forbidden(publish=[STATE.encode()])
    bridge = world.join("bridge", bridge=True, username="u", will=(STATE, "0", 0, True))
    bridge.publish(STATE, "1", 1, 1, retain=True)
    bridge.drop()
    assert (world.exchange.retained.count, world.exchange.stats.denied) == (0, 2)


def test_its_state_is_not_stored(world: World) -> None:
    """After a start nobody would correct it, but a bridge that is back tells it anew."""
    bridge = world.join("bridge", bridge=True)
    bridge.publish(STATE, "1", 1, 1, retain=True).publish("t", "x", 1, 2, retain=True)
    assert [record.message.topic for record in world.store.load().retained] == [b"t"]
    bridge.publish(STATE, "", 1, 3, retain=True)
    assert world.exchange.retained.get(state_topic("bridge")) is None


def test_its_state_counts_as_a_retained_message() -> None:
    world = World(limits=Limits(max_retained=1))
    world.join("bridge", bridge=True).publish(STATE, "1", 1, 1, retain=True)
    second = world.join("second", bridge=True)
    second.publish(state_topic("second").decode(), "1", 1, 1, retain=True)
    assert second.take() == [("PUBACK", 1)]
    assert (world.exchange.retained.count, world.exchange.stats.dropped) == (1, 1)


def test_a_bridge_is_told_as_one(world: World) -> None:
    join(world)
    assert world.log.fields("client connected")[0]["version"] == "3.1.1, bridge"
