"""Sessions of MQTT 5.0 last as long as their clients want and the broker grants, over restarts and other versions."""

from __future__ import annotations

import pytest

from broker.core.clock import GRACE
from broker.core.limits import Limits
from broker.wire.packets import Connect
from tests.core.five import NEVER, NORMAL, WITH_WILL, dial5, join5, will5
from tests.core.harness import World, brackets, published

DAY, YEAR = 86400.0, 365 * 86400.0


@pytest.fixture
def world() -> World:
    return World(limits=Limits(session_expiry=100.0)).restore().settle()


def stopped(world: World, seconds: float) -> World:
    """The broker ends, and stands up again after a while."""
    world.exchange.expiry.stop()
    world.settle()
    later = world.epoch + world.now + seconds
    return World(world.store, world.limits, now=5.0, epoch=later - 5.0).restore().settle()


def sessions(world: World) -> list[str]:
    return sorted(world.exchange.sessions)


def stored(world: World) -> list[str]:
    return sorted(one.record.client_id for one in world.store.load().sessions)


# --- how long ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clean", [True, False])
def test_without_an_expiry_a_session_ends_with_its_connection(world: World, clean: bool) -> None:
    """[MQTT5-3.1.2-23] [MQTT5-4.1.0-2] It was never stored, and the next one finds none."""
    client = join5(world, clean=clean, present=False)
    client.ask(("t", 1))
    assert stored(world) == []
    client.drop()
    assert sessions(world) == []
    join5(world, clean=False, present=False).drop()
    brackets(world)


def test_it_ends_by_a_takeover_too_and_is_not_resumed(world: World) -> None:
    """[MQTT5-4.1.0-2] [MQTT5-3.1.2-6]"""
    first = join5(world, clean=False)
    first.ask(("t", 1))
    second = join5(world, clean=False, expiry=50, present=False)
    assert (first.closed, world.session("c").subscriptions) == (True, None)
    second.drop()
    third = join5(world, clean=False, present=True)  # expiry 0: it ends with this connection
    assert not third.closed
    join5(world, clean=False, expiry=50, present=False)
    brackets(world)


@pytest.mark.parametrize("clean", [True, False])
def test_with_an_expiry_it_outlives_its_connection_and_ends_in_time(world: World, clean: bool) -> None:
    """[MQTT5-3.1.2-23] [MQTT5-3.1.2-5] whatever Clean Start was."""
    client = join5(world, clean=clean, expiry=50, present=False)
    client.ask(("t", 1))
    client.drop()
    assert (sessions(world.advance(49.9)), stored(world)) == (["c"], ["c"])
    assert (sessions(world.advance(0.2)), stored(world)) == ([], [])
    assert world.log.fields("session expired") == [{"client": "c"}]
    brackets(world)


def test_a_session_that_goes_on_keeps_what_it_has_and_the_expiry_is_the_new_one(world: World) -> None:
    join5(world, expiry=50).ask(("t", 1)).drop()
    join5(world, clean=False, expiry=500, present=True).drop()
    assert sessions(world.advance(499.0)) == ["c"]
    join5(world, clean=False, expiry=5, present=True).drop()
    assert sessions(world.advance(4.9)) == ["c"]
    assert sessions(world.advance(0.2)) == []


def test_a_stored_session_that_is_resumed_without_an_expiry_ends_with_that_connection(world: World) -> None:
    join5(world, expiry=50).drop()
    join5(world, clean=False, present=True).drop()
    assert (sessions(world), stored(world)) == ([], [])


def test_clean_start_throws_the_old_session_away(world: World) -> None:
    """[MQTT5-3.1.2-4]"""
    join5(world, expiry=50).ask(("t", 1)).drop()
    join5(world, clean=True, expiry=50, present=False)
    assert world.session("c").subscriptions is None


def test_0xffffffff_never_ends_unless_there_is_a_limit(world: World) -> None:
    join5(world, expiry=NEVER).drop()
    world.advance(10 * YEAR)
    assert (sessions(world), world.exchange.expiry._heap) == (["c"], [])


@pytest.mark.parametrize("wanted", [61, NEVER])
def test_the_limit_caps_what_a_client_gets(world: World, wanted: int) -> None:
    """As the CONNACK tells it."""
    world.limits.max_session_expiry = 60.0
    client = join5(world, expiry=wanted)
    assert client.connack is not None
    assert client.connack.properties["session_expiry"] == 60
    client.drop()
    assert sessions(world.advance(59.9)) == ["c"]
    assert sessions(world.advance(0.2)) == []


def test_what_was_granted_holds_when_the_limits_are_changed(world: World) -> None:
    join5(world, "five", expiry=1000).drop()
    world.join("three", clean=False).drop()
    world.limits.session_expiry = world.limits.max_session_expiry = 10.0
    world.exchange.limits_changed()
    assert sessions(world.advance(10.1)) == ["five"]
    assert sessions(world.advance(989.0)) == ["five"]
    assert sessions(world.advance(1.0)) == []


# --- DISCONNECT --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", [NORMAL, WITH_WILL])
@pytest.mark.parametrize(("expiry", "lasts"), [(None, 50.0), (20, 20.0), (80, 80.0), (500, 90.0), (NEVER, 90.0)])
def test_disconnect_may_change_the_expiry_and_nothing_said_is_not_0(
    world: World, reason: int, expiry: int | None, lasts: float
) -> None:
    """MQTT 5.0, 3.14.2.2.2"""
    world.limits.max_session_expiry = 90.0
    join5(world, expiry=50).leave(reason, expiry)
    again = world.crash()
    assert (sessions(world.advance(lasts - 0.1)), sessions(again.advance(lasts - 0.1))) == (["c"], ["c"])
    assert (sessions(world.advance(0.2)), sessions(again.advance(0.2))) == ([], [])


def test_disconnect_with_0_ends_the_session(world: World) -> None:
    join5(world, expiry=50).leave(NORMAL, 0)
    assert (sessions(world), stored(world)) == ([], [])


def test_disconnect_with_an_expiry_after_none_is_an_error_and_the_will_goes_out(world: World) -> None:
    """MQTT 5.0, 3.14.2.2.2: it is no valid DISCONNECT."""
    watcher = world.join("watcher")
    watcher.subscribe(("will/c", 0)).take()
    client = join5(world, clean=False, expiry=0, will=will5(qos=0))
    client.leave(NORMAL, 50)
    assert (client.answer().reason, watcher.payloads(), sessions(world)) == (0x82, ["gone"], ["watcher"])


def test_who_wants_it_shorter_than_before_does_not_wait_for_the_old_time(world: World) -> None:
    join5(world, expiry=1000).drop()
    join5(world, clean=False, expiry=1000).leave(NORMAL, 10)
    assert sessions(world.advance(10.1)) == []


def test_who_comes_and_goes_with_ever_shorter_times_leaves_no_trail(world: World) -> None:
    expiry = world.exchange.expiry
    for left in range(1000, 500, -1):
        join5(world, clean=False, expiry=left).drop()
    assert len(expiry._heap) < 100
    assert list(expiry._entered) == [world.session("c")]
    assert sessions(world.advance(501.1)) == []
    brackets(world)


# --- restarts ----------------------------------------------------------------------------------------------------


def test_an_expiry_goes_on_over_a_restart(world: World) -> None:
    join5(world, expiry=10 * int(DAY)).drop()
    again = stopped(world.advance(DAY), 4 * DAY)
    assert sessions(again.advance(5 * DAY - 1.0)) == ["c"]
    assert sessions(again.advance(2.0)) == []


def test_after_a_long_stop_a_client_has_time_to_come_back(world: World) -> None:
    join5(world, "long", expiry=10 * int(DAY)).drop()
    join5(world, "short", expiry=60).drop()
    again = stopped(world, 20 * DAY)
    assert sessions(again.advance(59.0)) == ["long", "short"]
    assert sessions(again.advance(2.0)) == ["long"]
    assert sessions(again.advance(GRACE - 62.0)) == ["long"]
    assert sessions(again.advance(2.0)) == []


def test_a_client_that_was_connected_has_its_whole_time_from_the_restart(world: World) -> None:
    join5(world, expiry=50)
    again = world.advance(1000.0).crash()
    assert sessions(again.advance(49.9)) == ["c"]
    assert sessions(again.advance(0.2)) == []


def test_a_session_that_ends_with_its_connection_ends_with_the_broker(world: World) -> None:
    """[MQTT5-4.1.0-2] Though it is in the store, as it was a longer one before."""
    join5(world, expiry=50).ask(("t", 1)).drop()
    join5(world, clean=False, present=True)
    again = world.crash()
    assert (sessions(again), stored(again), again.exchange.router.count) == ([], [], 0)
    brackets(again)


def test_one_for_ever_and_one_by_the_option_are_told_apart_after_a_restart(world: World) -> None:
    join5(world, "ever", expiry=NEVER).drop()
    world.join("three", clean=False).drop()
    again = world.crash()
    assert sessions(again.advance(100.1)) == ["ever"]
    assert sessions(again.advance(YEAR)) == ["ever"]


# --- other versions ----------------------------------------------------------------------------------------------


def test_a_session_that_changes_its_version_keeps_messages_and_qos_2(world: World) -> None:
    """And whose expiry holds is said by its last client."""
    join5(world, expiry=50).ask(("t", 2)).drop()
    publisher = world.join("pub")
    publisher.publish("t", "one", 2, 1).publish("t", "two", 1, 2).disconnect()
    old = world.join("c", clean=False, expect=("CONNACK", 1, 0))
    assert old.take() == [published("t", "one", 2, 1), published("t", "two", 1, 2)]
    old.publish("u", "mine", 2, 7).pubrec(1)
    assert old.take() == [("PUBREC", 7), ("PUBREL", 1)]
    assert (world.session("c").version, world.session("c").expiry) == (4, None)
    old.drop()
    assert sessions(world.advance(60.0)) == ["c"]  # session_expiry: 100 s
    world = world.crash()
    witness = world.join("witness")
    witness.subscribe(("u", 2)).take()
    new = join5(world, clean=False, expiry=50, present=True)
    session = world.session("c")
    assert (session.version, session.subscriptions) == (5, {b"t": 2})
    released, two = new.get()
    assert (released.name, released.packet_id) == ("PUBREL", 1)
    assert (two.name, two.topic, two.payload, two.qos, two.flags) == ("PUBLISH", "t", "two", 1, "dup")
    new.publish5("u", "mine", 2, 7, dup=True)  # known already: not delivered again
    assert (new.answer().name, witness.take()) == ("PUBREC", [])
    new.drop()
    record = world.store.load().sessions[0].record
    assert (record.version, record.expiry) == (5, 50.0)
    assert sessions(world.advance(50.1)) == ["witness"]


def test_a_clean_session_of_3_1_1_is_followed_by_a_new_one(world: World) -> None:
    world.join("c").subscribe(("t", 1))
    join5(world, clean=False, expiry=50, present=False)
    assert world.session("c").subscriptions is None
    world.join("c", clean=True)
    assert (world.session("c").store_id, stored(world)) == (0, [])


def test_another_version_makes_routes_anew(world: World) -> None:
    join5(world, expiry=50).ask(("t", 1))
    route = world.exchange.router.route(b"t")
    join5(world, clean=False, expiry=50)
    assert world.exchange.router.known(b"t") is route
    world.join("c", clean=False)
    assert world.exchange.router.known(b"t") is None


# --- room --------------------------------------------------------------------------------------------------------


def test_what_is_stored_counts_as_a_session_whatever_clean_start_was() -> None:
    world = World(limits=Limits(max_sessions=1))
    join5(world, "first", expiry=50)
    for clean in (True, False):
        for expiry, room in ((0, True), (50, False)):
            second = dial5(world, "second", clean=clean, expiry=expiry)
            assert second.answer().reason == (0x00 if room else 0x97)
            second.drop()
            join5(world, "first", clean=clean, expiry=50).drop()
            assert world.exchange.quotas.sessions == 1


def test_who_would_have_a_stored_session_is_known_beforehand(world: World) -> None:
    """While the store does not work, such a client is refused."""
    stores = world.exchange.sessions.stores

    def stored_or_not() -> list[bool]:
        asked = [(clean, expiry) for clean in (True, False) for expiry in (0, 50)]
        return [stores(Connect(5, "c", clean, 0, None, None, None, session_expiry=expiry)) for clean, expiry in asked]

    assert stored_or_not() == [False, True, False, True]
    join5(world, expiry=50)
    assert stored_or_not() == [False, True, True, True]
    join5(world, clean=False, expiry=0)  # that one will have ended
    assert stored_or_not() == [False, True, False, True]


def test_the_connack_waits_for_the_store_where_the_session_is_stored(world: World) -> None:
    world.lane.held = True
    short = dial5(world, "short", clean=False)
    long = dial5(world, "long", clean=True, expiry=50)
    assert (short.present, long.present) == (False, None)
    world.lane.held = False
    world.settle()
    assert long.present is False
