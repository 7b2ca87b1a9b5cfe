"""Sessions of absent clients end when their time has come, a few at a time, whatever happens to the system's clock."""

from __future__ import annotations

import pytest

from broker.core.clock import GRACE
from broker.core.expiry import RECORD, SLICE
from broker.core.limits import Limits
from tests.core.harness import World, brackets

DAY, YEAR = 86400.0, 365 * 86400.0


@pytest.fixture
def world() -> World:
    return World(limits=Limits(session_expiry=100.0)).restore().settle()


def away(world: World, *names: str) -> None:
    for name in names:
        world.join(name, clean=False).disconnect()


def look(world: World) -> World:
    """The server looks at the system's clock every ten seconds."""
    world.exchange.expiry.look(world.now, world.epoch + world.now)
    return world.settle()


def stopped(world: World, seconds: float, *, wrong: float = 0.0) -> World:
    """The broker ends, and stands up again after a while, when the system's clock is wrong by so much."""
    world.exchange.expiry.stop()
    world.settle()
    later = world.epoch + world.now + seconds + wrong
    return World(world.store, world.limits, now=5.0, epoch=later - 5.0).restore().settle()


def test_a_session_ends_when_its_time_has_come_and_no_later(world: World) -> None:
    away(world, "c")
    assert list(world.advance(99.9).exchange.sessions) == ["c"]
    assert list(world.advance(0.2).exchange.sessions) == []
    assert world.store.load().sessions == []
    assert world.log.fields("session expired") == [{"client": "c"}]
    brackets(world)


def test_a_client_that_was_here_meanwhile_begins_anew(world: World) -> None:
    away(world, "c")
    world.advance(90.0)
    away(world, "c")
    assert list(world.advance(90.0).exchange.sessions) == ["c"]
    assert list(world.advance(10.1).exchange.sessions) == []
    brackets(world)


def test_a_client_that_is_here_when_its_time_would_have_come_stays(world: World) -> None:
    away(world, "c")
    here = world.join("c", clean=False)
    assert list(world.advance(150.0).exchange.sessions) == ["c"]
    here.drop()
    assert list(world.advance(99.0).exchange.sessions) == ["c"]
    assert list(world.advance(1.1).exchange.sessions) == []


def test_who_comes_and_goes_leaves_no_trail(world: World) -> None:
    expiry = world.exchange.expiry
    for _ in range(300):
        away(world, "same")
    assert len(expiry._heap) == 1
    for _ in range(300):
        away(world, "new")
        world.join("new").disconnect()  # ends the session
    assert len(expiry._heap) < 100
    assert len(expiry._entered) == 1
    assert list(world.advance(100.1).exchange.sessions) == []


@pytest.mark.parametrize("step", [YEAR, -YEAR, 1000.0, -1000.0, 2.0])
def test_a_step_of_the_system_s_clock_ends_nothing_and_keeps_nothing(world: World, step: float) -> None:
    away(world, "c")
    world.advance(50.0)
    world.epoch += step
    look(world)
    assert list(world.advance(49.9).exchange.sessions) == ["c"]
    world.epoch -= step
    look(world)
    assert list(world.advance(0.2).exchange.sessions) == []
    event = "the system's clock was set: what lasts for a time goes on as before"
    assert world.log.fields(event) == [{"seconds": round(step)}, {"seconds": -round(step)}]


def test_a_step_is_recorded_at_once(world: World) -> None:
    """Or a crash soon after would take it for time that has passed."""
    away(world, "c")
    world.advance(50.0)
    world.epoch += YEAR
    look(world)
    again = World(world.store, world.limits, now=world.now + 10.0, epoch=world.epoch).restore().settle()
    assert list(again.advance(39.9).exchange.sessions) == ["c"]
    assert list(again.advance(70.0).exchange.sessions) == []


def test_the_time_in_which_the_broker_was_stopped_counts() -> None:
    world = World(limits=Limits(session_expiry=10 * DAY)).restore().settle()
    away(world, "c")
    again = stopped(world.advance(DAY), 4 * DAY)
    assert list(again.advance(5 * DAY - 1.0).exchange.sessions) == ["c"]
    assert list(again.advance(2.0).exchange.sessions) == []


def test_after_a_long_stop_clients_have_time_to_come_back() -> None:
    world = World(limits=Limits(session_expiry=10 * DAY)).restore().settle()
    away(world, "c")
    again = stopped(world, 20 * DAY)
    assert list(again.advance(GRACE - 1.0).exchange.sessions) == ["c"]
    assert list(again.advance(2.0).exchange.sessions) == []


@pytest.mark.parametrize("wrong", [YEAR, -YEAR, -1_700_000_000.0])
def test_a_start_with_a_wrong_clock_that_is_put_right_ends_nothing(wrong: float) -> None:
    world = World(limits=Limits(session_expiry=10 * DAY)).restore().settle()
    away(world, "c")
    again = stopped(world.advance(DAY), 60.0, wrong=wrong).advance(600.0)
    away(again, "d")
    again.epoch -= wrong
    look(again)
    assert sorted(again.advance(9 * DAY - 700.0).exchange.sessions) == ["c", "d"]
    assert sorted(again.advance(100.0).exchange.sessions) == ["d"]
    assert sorted(again.advance(DAY - 100.0).exchange.sessions) == ["d"]
    assert sorted(again.advance(700.0).exchange.sessions) == []


def test_many_that_are_due_at_once_end_in_slices() -> None:
    """So that others have their turn in between, and that the store is not asked for all at once."""
    world = World(limits=Limits(session_expiry=100.0)).restore().settle()
    away(world, *(f"c{i}" for i in range(3 * SLICE)))
    world.lane.held = True
    world.advance(150.0)
    assert len(world.exchange.sessions) == 2 * SLICE
    world.lane.step()
    world.turn()
    assert len(world.exchange.sessions) == SLICE
    world.lane.held = False
    world.settle()
    assert (world.exchange.sessions, world.exchange.stats.expired) == ({}, 3 * SLICE)
    assert [fields["count"] for fields in world.log.fields("sessions expired")] == [SLICE] * 3
    brackets(world)


def test_one_with_many_subscriptions_counts_as_many(world: World) -> None:
    many = world.join("many", clean=False)
    many.subscribe(*((f"t/{i}", 0) for i in range(SLICE))).disconnect()
    away(world, "next")
    world.lane.held = True
    world.advance(150.0)
    assert list(world.exchange.sessions) == ["next"]
    world.lane.held = False
    assert world.settle().exchange.sessions == {}


def test_many_that_came_back_meanwhile_hold_nothing_up() -> None:
    world = World(limits=Limits(session_expiry=100.0)).restore().settle()
    names = [f"c{i}" for i in range(2 * SLICE)]
    away(world, *names)
    world.advance(50.0)
    away(world, *names)
    world.advance(50.1)
    assert len(world.exchange.sessions) == 2 * SLICE
    assert world.advance(50.0).exchange.sessions == {}


def test_another_limit_holds_at_once_for_those_who_are_away(world: World) -> None:
    away(world, "c")
    world.advance(50.0)
    for expiry, left in ((0.0, ["c"]), (1000.0, ["c"]), (60.0, ["c"])):
        world.limits.session_expiry = expiry
        world.exchange.limits_changed()
        world.settle()
        assert list(world.exchange.sessions) == left
    assert list(world.advance(9.9).exchange.sessions) == ["c"]
    assert list(world.advance(0.2).exchange.sessions) == []


def test_without_a_limit_nothing_is_noted() -> None:
    world = World().restore().settle()
    away(world, "c")
    world.advance(YEAR)
    assert (list(world.exchange.sessions), world.exchange.expiry._heap) == (["c"], [])


def test_the_clock_is_recorded_now_and_then(world: World) -> None:
    commits = world.journal.commits
    for _ in range(31):
        look(world.advance(RECORD / 10))
    assert world.journal.commits == commits + 3
    clock = world.store.load().clock
    assert clock is not None
    assert clock.wall == pytest.approx(world.epoch + world.now, abs=RECORD / 5)
