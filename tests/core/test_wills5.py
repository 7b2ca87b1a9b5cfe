"""Wills are stored, may be delayed, and are published once, whatever becomes of the client, the session, the broker."""

from __future__ import annotations

import pytest

from broker.core import account
from broker.core.clock import GRACE
from broker.core.journal import MAX_GATHERED
from broker.core.limits import Limits
from broker.core.ports import WillRecord
from broker.storage.memory import MemoryStore
from broker.wire.message import Message
from tests import vectors
from tests.core.five import NEVER, NORMAL, WITH_WILL, Client5, dial5, join5, will5
from tests.core.harness import Client, Forbidden, World, brackets, published
from tests.core.test_core_machine import BreakableMemoryStore

WILL = ("will/c", "gone", 1, False)
GONE = published("will/c", "gone", 1, 1)


@pytest.fixture
def world() -> World:
    return World().restore().settle()


def watch(world: World, *filters: str) -> Client:
    """Somebody who waits for wills, also while the broker is away."""
    client = world.join("watcher", clean=False)
    client.subscribe(*((one, 2) for one in filters or ("will/#",))).take()
    return client


def seen(world: World) -> list[str]:
    """What the watcher has got, once it is back."""
    client = world.join("watcher", clean=False)
    packets = client.take()
    client.puback(*(one[4] for one in packets if one[3] == 1))
    return [one[2] for one in packets]


def wills(world: World) -> list[WillRecord]:
    return list(world.store.load().wills.values())


def waiting(world: World) -> list[Message]:
    """What is queued for the watcher."""
    session = world.session("watcher").store_id
    return [message for _, message, _ in world.store.fetch(session, 0, 100, 1 << 20)]


# --- stored ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clean", [True, False])
def test_a_client_is_told_that_it_may_come_in_when_its_will_is_stored(world: World, clean: bool) -> None:
    """[MQTT-3.1.2-8] [MQTT5-3.1.2-7]"""
    world.lane.held = True
    old = world.dial().connect("c", clean=clean, will=WILL)
    new = dial5(world, "d", will=will5())
    without = world.dial().connect("e")
    assert (old.take(), new.present, without.take()) == ([], None, [("CONNACK", 0, 0)])
    world.lane.held = False
    world.settle()
    assert (old.take(), new.present) == ([("CONNACK", 0, 0)], False)
    assert [will.client_id for will in wills(world)] == ["c", "d"]


def test_the_wills_of_those_who_were_connected_are_published_at_the_restart(world: World) -> None:
    """[MQTT5-3.1.2-8] And once: the next restart publishes none."""
    watch(world).drop()
    world.join("c", will=("will/clean", "clean", 1, False))
    world.join("d", clean=False, will=("will/stored", "stored", 2, True))
    join5(world, "e", will=will5("will/five", "five", delay=1000))
    join5(world, "f", expiry=50, will=will5("will/lasting", "lasting"))
    world = world.crash()
    assert seen(world) == ["clean", "stored", "five", "lasting"]
    event = "wills are published of clients that were there when the broker ended"
    assert world.log.fields(event) == [{"count": 4}]
    assert [record.message.payload for record in world.store.load().retained] == [b"stored"]
    again = world.crash()
    assert (wills(world), wills(again), waiting(again)[:1]) == ([], [], waiting(world)[:1])
    assert again.exchange.stats.denied == 0
    brackets(again)


@pytest.mark.parametrize("clean", [True, False])
def test_a_will_that_was_forgotten_is_not_stored_either(world: World, clean: bool) -> None:
    """[MQTT-3.14.4-3] [MQTT5-3.14.4-3]"""
    watch(world).drop()
    world.join("c", clean=clean, will=WILL).disconnect()
    join5(world, "d", expiry=0 if clean else 50, will=will5()).leave(NORMAL)
    assert wills(world) == []
    assert seen(world.crash()) == []


@pytest.mark.parametrize("stored", [True, False])
def test_what_follows_from_a_will_is_stored_in_the_commit_that_forgets_it(world: World, stored: bool) -> None:
    """So it is neither lost nor doubled, wherever the broker is killed. [MQTT-3.1.2-10] [MQTT5-3.1.2-10]"""
    watch(world).drop()
    client = world.join("c", will=("will/c", "gone", 2, True))
    world.lane.held = True
    client.drop()
    if stored:
        world.lane.step()
    assert (len(wills(world)), len(waiting(world)), len(world.store.load().retained)) == (
        (0, 1, 1) if stored else (1, 0, 0)
    )
    again = world.crash()
    assert [message.payload for message in waiting(again)] == [b"gone"]
    assert len(again.store.load().retained) == 1
    assert wills(again) == []


def test_a_session_and_its_will_are_gone_in_one_commit(world: World) -> None:
    watch(world).drop()
    join5(world, expiry=50, will=will5(delay=1000)).drop()
    world.lane.held = True
    world.advance(50.1)
    assert ([will.client_id for will in wills(world)], len(world.store.load().sessions)) == (["c"], 2)
    world.lane.step()
    assert (wills(world), len(world.store.load().sessions), len(waiting(world))) == ([], 1, 1)


def test_wills_for_the_brokers_own_topics_are_not_stored(world: World) -> None:
    """What a bridge tells of itself is made anew after a start."""
    world.lane.held = True
    client = world.dial().connect("b", bridge=True, will=("$SYS/broker/connection/b/state", "0", 1, True))
    assert client.take() == [("CONNACK", 0, 0)]
    world.lane.held = False
    watcher = watch(world, "$SYS/#")
    client.drop()
    assert watcher.payloads() == ["0"]
    assert wills(world) == []


def test_while_the_store_fails_a_client_with_a_will_may_come_in() -> None:
    store = BreakableMemoryStore()
    world = World(store).restore().settle()
    watcher = world.join("watcher")
    watcher.subscribe(("will/#", 1)).take()
    store.broken = True
    world.dial().connect("x", clean=False)  # it finds out
    assert world.journal.failed
    world.join("c", will=WILL).drop()
    assert watcher.take() == [GONE]
    world.join("d", will=WILL)
    store.broken = False
    world.advance(5.0)
    assert [will.client_id for will in wills(world)] == ["d"]
    brackets(world)


# --- delays ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("delay", "expiry", "after"),
    [(0, 0, 0), (0, 50, 0), (20, 50, 20), (50, 20, 20), (20, NEVER, 20), (20, 0, 0), (NEVER, 20, 20)],
)
@pytest.mark.parametrize("crash", [False, True])
def test_a_will_is_published_after_its_delay_or_at_the_end_of_the_session(
    world: World, delay: int, expiry: int, after: int, crash: bool
) -> None:
    """[MQTT5-3.1.2-8], whichever comes first; if the broker was killed, counted from its restart."""
    watch(world).drop()
    client = join5(world, expiry=expiry, will=will5(delay=delay))
    world.advance(100.0)
    if crash:
        world = world.crash()
    else:
        client.drop()
    if after:
        world.advance(after - 0.1)
        assert waiting(world) == []
        [will] = wills(world)
        assert (will.due is not None, will.delay) == (True, after)
        world.advance(0.2)
    assert seen(world) == ["gone"]
    world.advance(1000.0)
    assert (seen(world), wills(world)) == ([], [])
    brackets(world)


def test_disconnect_with_will_publishes_it_by_the_expiry_that_it_says(world: World) -> None:
    """[MQTT5-3.14.4-3] A client can have itself told that its session has ended, so."""
    watcher = watch(world)
    join5(world, expiry=50, will=will5()).leave(WITH_WILL)
    assert watcher.take() == [GONE]
    join5(world, "d", expiry=50, will=will5("will/d", delay=1000)).leave(WITH_WILL, 10)
    world.advance(9.9)
    assert watcher.take() == []
    world.advance(0.2)
    assert len(watcher.take()) == 1
    join5(world, "e", expiry=50, will=will5("will/e", delay=1000)).leave(WITH_WILL, 0)
    assert len(watcher.take()) == 1


@pytest.mark.parametrize("away", [True, False])
@pytest.mark.parametrize(
    ("clean", "delay", "expiry", "told"),
    [
        (False, 20, 50, False),
        (False, 0, 50, True),
        (False, 20, 0, True),
        (True, 20, 50, True),
        (True, 0, 50, True),
        (True, 20, 0, True),
    ],
)
@pytest.mark.parametrize("version", [4, 5])
def test_who_is_back_in_time_holds_its_will_back(
    world: World, clean: bool, delay: int, expiry: int, told: bool, away: bool, version: int
) -> None:
    """[MQTT5-3.1.3-9] Only with Clean Start 0, a delay, and a session that goes on; by a takeover or not."""
    watcher = watch(world)
    first = join5(world, expiry=expiry, will=will5(delay=delay))
    if away:
        first.drop()
        world.advance(19.0)
    if version == 5:
        second: Client = join5(world, clean=clean, expiry=50)
    else:
        second = world.join("c", clean=clean)
    assert watcher.take() == ([GONE] if told else [])
    assert wills(world) == []
    second.drop()
    world.advance(1000.0)
    assert watcher.take() == []
    brackets(world)


def test_the_next_connection_has_its_own_will(world: World) -> None:
    watcher = watch(world)
    join5(world, expiry=50, will=will5(payload="first", delay=20)).drop()
    second = join5(world, clean=False, expiry=50, will=will5(payload="second", delay=10), present=True)
    second.drop()
    world.advance(9.9)
    assert watcher.take() == []
    world.advance(100.0)
    assert watcher.payloads() == ["second"]


def test_who_is_back_after_the_delay_finds_its_will_published(world: World) -> None:
    watcher = watch(world)
    join5(world, expiry=50, will=will5(delay=20)).drop()
    world.advance(20.1)
    join5(world, clean=False, expiry=50, present=True).drop()
    assert watcher.take() == [GONE]


def stopped(world: World, seconds: float) -> World:
    world.exchange.wills.close_down(False)
    for client in world.clients:
        client.connection.close("the broker is shutting down")
    world.exchange.expiry.stop()
    world.settle()
    again = World(world.store, world.limits, now=5.0, epoch=world.epoch + world.now + seconds - 5.0)
    return again.restore().settle()


def test_a_delay_goes_on_over_a_restart(world: World) -> None:
    watch(world).drop()
    join5(world, expiry=100_000, will=will5(delay=10_000)).drop()
    again = stopped(world.advance(1_000.0), 2_000.0)
    again.advance(6_999.0)
    assert waiting(again) == []
    assert seen(again.advance(2.0)) == ["gone"]


@pytest.mark.parametrize(("delay", "wait"), [(60, 60.0), (10_000, GRACE)])
def test_after_a_long_stop_a_client_has_time_to_come_back(world: World, delay: int, wait: float) -> None:
    watch(world).drop()
    for name in ("c", "d"):
        join5(world, name, expiry=NEVER, will=will5(payload=name, delay=delay)).drop()
    again = stopped(world, 1_000_000.0)
    join5(again, "d", clean=False, present=True)
    again.advance(wait - 1.0)
    assert waiting(again) == []
    assert seen(again.advance(2.0)) == ["c"]


def test_at_the_end_of_the_broker_what_is_delayed_waits_for_the_next_start(world: World) -> None:
    """MQTT 5.0, 3.1.2.5. What is due is published while those are there who should get it."""
    watcher = watch(world)
    join5(world, "now", expiry=50, will=will5(payload="now"))
    join5(world, "ends", will=will5(payload="ends", delay=20))
    join5(world, "later", expiry=50, will=will5(payload="later", delay=20))
    join5(world, "away", expiry=50, will=will5(payload="away", delay=20)).drop()
    world.exchange.wills.close_down(False)
    world.settle()
    assert [one[2] for one in watcher.take()] == ["now", "ends"]
    watcher.puback(1, 2)
    again = stopped(world, 1.0)
    assert sorted(seen(again.advance(19.0))) == []
    assert sorted(seen(again.advance(2.0))) == ["away", "later"]


def test_where_nothing_is_stored_all_wills_are_published_at_the_end(world: World) -> None:
    watcher = watch(world)
    join5(world, "c", expiry=50, will=will5(payload="connected", delay=20))
    join5(world, "d", expiry=50, will=will5(payload="away", delay=20)).drop()
    world.exchange.wills.close_down(True)
    world.settle()
    assert sorted(watcher.payloads()) == ["away", "connected"]


# --- what is published -------------------------------------------------------------------------------------------

#: Content Type, and User Properties in an order.
KEPT = b"\x03\0\x04text" + b"\x26\0\x01b\0\x011" + b"\x26\0\x01a\0\x012"


@pytest.mark.parametrize("crash", [False, True])
def test_its_properties_go_with_it_but_not_the_delay_and_it_expires_from_then_on(world: World, crash: bool) -> None:
    """[MQTT5-3.1.3-10]; MQTT 5.0, 3.1.3.2.4: the lifetime begins with the publication."""
    watch(world).drop()
    client = join5(world, expiry=50, will=will5(delay=20, expiry=30, kept=KEPT))
    if crash:
        world = world.advance(7.0).crash()
    else:
        client.drop()
    world.advance(20.1)
    [message] = waiting(world)
    assert message.kept == KEPT
    assert message.expires == pytest.approx(world.exchange.expiry.lasting() + 30.0, abs=0.2)


@pytest.mark.parametrize("crash", [False, True])
@pytest.mark.parametrize("delay", [0, 20])
def test_rights_are_those_of_its_author_when_it_is_published(world: World, crash: bool, delay: int) -> None:
    watch(world).drop()
    for name in ("may", "may not"):
        world.gatekeeper.granted[name] = Forbidden(publish=[b"will/c"] if name == "may" else [])
    left = [
        join5(world, name, expiry=50, username=name, will=will5(payload=name, delay=delay))
        for name in ("may", "may not")
    ]
    world.gatekeeper.granted["may"], world.gatekeeper.granted["may not"] = (
        world.gatekeeper.granted["may not"],
        world.gatekeeper.granted["may"],
    )
    if crash:
        world = world.crash()
    else:
        for client in left:
            client.drop()
    world.advance(delay + 1.0)
    assert world.exchange.stats.denied == 1
    assert world.log.fields("will refused: not authorised")[0]["client"] == "may not"
    assert (seen(world), wills(world)) == (["may"], [])


def test_a_will_stays_its_authors_whoever_has_the_session_meanwhile(world: World) -> None:
    """Else what one user has left would be judged by another's rights."""
    world.gatekeeper.allow_user_change = True
    world.gatekeeper.granted["first"] = Forbidden(publish=[b"secret"])
    client = world.join("c", clean=False, username="first", will=("secret", "x", 1, True))
    other = world.join("d", clean=False, username="first", will=("will/d", "x", 1, True))
    world.exchange.account.spent = account.TURN  # many go at once: they have their turn later
    client.connection.lost("gone")
    other.connection.lost("gone")
    for name in ("c", "d"):
        Client(world, 10.0, 1 << 20).connect(name, clean=False, username="second")
    assert world.exchange.stats.denied == 1
    [record] = world.store.load().retained
    assert (record.message.topic, record.username, record.client_id) == (b"will/d", "first", "d")


def test_one_beyond_a_limit_that_was_lowered_is_refused_and_gone(world: World) -> None:
    watch(world).drop()
    world.join("c", will=("will/a/b/c", "x", 1, False))
    world.limits.max_topic_levels = 2
    world = world.crash()
    assert (seen(world), wills(world), world.exchange.stats.denied) == ([], [], 1)
    brackets(world)


# --- many --------------------------------------------------------------------------------------------------------

MANY = 3_000


def test_thousands_at_a_restart_have_their_turns() -> None:
    store = MemoryStore()
    world = World(store).restore().settle()
    for number in range(MANY):
        world.dial().connect(f"c{number}", will=(f"will/{number}/x", "gone", 1, True))
    again = World(store, world.limits, now=world.now, epoch=world.epoch).restore()
    other = again.dial().feed(vectors.connect(b"other"), vectors.PINGREQ)
    left = []
    for _ in range(3):
        again.turn()
        left.append(len(again.exchange.wills._due))
    assert MANY > left[0] > left[1] > left[2] > 0
    assert other.take() == [("CONNACK", 0, 0), ("PINGRESP",)]
    again.settle()
    assert (wills(again), len(store.load().retained)) == ([], MANY)
    brackets(again)


def test_thousands_whose_delays_end_together_have_their_turns(world: World) -> None:
    for number in range(MANY):
        join5(world, f"c{number}", expiry=50, will=will5(f"will/{number}/x", retain=True, delay=20)).drop()
    world.now += 20.1
    world.timers.run(world.now)
    assert world.exchange.account.spent < 2 * account.TURN
    assert len(world.exchange.wills._due) > 0
    world.settle()
    assert (wills(world), world.exchange.retained.count) == ([], MANY)


def test_they_wait_while_the_store_has_too_much_to_do(world: World) -> None:
    watch(world).drop()
    left: list[Client5] = [join5(world, f"c{number}", will=will5(payload=str(number))) for number in range(3)]
    world.journal.gathered = 2 * MAX_GATHERED
    for client in left:
        client.connection.lost("gone")
    assert len(world.exchange.wills._due) == 3
    world.settle()
    assert seen(world) == ["0", "1", "2"]


def test_they_are_counted_as_long_as_they_are_there(world: World) -> None:
    part = world.exchange.memory.clients
    before = part.size
    large = "x" * 50_000
    join5(world, "c", expiry=50, will=will5(payload=large, delay=20, kept=KEPT)).drop()
    world.join("d", will=("will/d", large, 1, False))
    assert part.size > before + 100_000
    again = world.crash()
    assert again.exchange.memory.clients.size > 50_000
    again.advance(100.0)
    assert again.exchange.memory.clients.size == 0
    world.advance(100.0)
    world.clients[-1].drop()
    assert part.size == before


def test_wills_of_who_is_away_do_not_keep_others_out() -> None:
    world = World(limits=Limits(max_memory=8 << 20))
    room = world.exchange.memory.clients.limit
    for number in range(40):
        client = world.dial()
        client.connect(f"c{number}", will=("will/x", "x" * 60_000, 1, False))
        if client.closed:
            break
        join5(world, f"away {number}", expiry=NEVER, will=will5(payload="x" * 60_000, delay=NEVER)).drop()
    assert client.take() == [("CONNACK", 0, 3)]
    assert world.log.fields("client refused")[0]["reason"] == "there is no memory for more wills (max_memory)"
    assert room // 3 < world.exchange.memory.clients.size < room * 2 // 3
    world.join("other", clean=False)
    for session in list(world.exchange.sessions.values()):
        world.exchange.sessions.discard(session)
    world.settle()
    assert (world.exchange.wills._held, wills(world)) == (0, [])
