"""Who is served first, and that nobody waits for ever: with a clock that goes when a test says so."""

from __future__ import annotations

import pytest

from broker.net import fairness
from broker.net.fairness import MEMORY, MUCH, Fairness


class Clock:
    """Of the wall and of the processor: on a busy machine, the latter is behind."""

    def __init__(self) -> None:
        self.now = 0.0
        self.worked = 0.0

    def work(self, seconds: float) -> None:
        self.now += seconds
        self.worked += seconds


class Bench:
    def __init__(self, clock: Clock, seconds: float = 0.01) -> None:
        self.clock = clock
        self.fair: Fairness[str] = Fairness(seconds)
        self.costs: dict[str, float] = {}

    def turn(self, *ready: str) -> list[str]:
        served: list[str] = []

        def serve(one: str) -> None:
            served.append(one)
            self.clock.work(self.costs.get(one, MUCH / 2))

        self.fair.serve(ready, serve, self.clock.now)
        return served


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(fairness, "EACH", 0.0)
    monkeypatch.setattr(fairness, "monotonic", lambda: clock.now)
    monkeypatch.setattr(fairness, "thread_time", lambda: clock.worked)
    return clock


def crowd(size: int) -> list[str]:
    return [f"crowd-{number}" for number in range(size)]


def test_all_are_served_at_once_where_there_is_time(clock: Clock) -> None:
    bench = Bench(clock)
    assert bench.turn("a", "b", "c") == ["a", "b", "c"]
    assert bench.fair.left == {}


def test_who_is_left_is_served_in_the_next_turns_each_once_and_in_order(clock: Clock) -> None:
    bench = Bench(clock)
    ready = crowd(100)
    bench.costs = dict.fromkeys(ready, 0.001)
    served: list[str] = []
    turns = 0
    while len(served) < 100:
        served += bench.turn(*(one for one in ready if one not in served))
        turns += 1
    assert served == ready
    assert 9 <= turns <= 12
    assert bench.fair.left == {}


def test_who_wants_little_does_not_wait_for_a_crowd_that_wants_much(clock: Clock) -> None:
    bench = Bench(clock)
    ready = crowd(100)
    bench.costs = dict.fromkeys(ready, 0.001)
    bench.turn(*ready)
    for _ in range(50):  # the crowd is ready again as soon as it was served
        assert bench.turn(*ready, "modest")[0] == "modest"


def test_a_crowd_of_the_greedy_is_served_in_turn(clock: Clock) -> None:
    bench = Bench(clock)
    ready = crowd(30)
    bench.costs = dict.fromkeys(ready, 0.001)
    counts = dict.fromkeys(ready, 0)
    for _ in range(60):
        for one in bench.turn(*ready):
            counts[one] += 1
    assert max(counts.values()) - min(counts.values()) <= 1


def test_those_who_come_again_and_again_leave_half_of_the_time_to_those_who_wait(clock: Clock) -> None:
    bench = Bench(clock, seconds=0.01)
    bench.costs = dict.fromkeys(crowd(1000), 0.00008)  # not more than that: they are modest, but many
    first = bench.turn(*crowd(1000))
    waiting = [one for one in crowd(1000) if one not in first]
    second = bench.turn(*crowd(1000))
    assert len(second) == pytest.approx(125, abs=3)
    assert len([one for one in second if one in waiting]) == pytest.approx(62, abs=3)


def test_one_is_served_in_any_case(clock: Clock) -> None:
    bench = Bench(clock)
    bench.costs = {"long": 1.0, "longer": 2.0}
    assert bench.turn("long", "longer") == ["long"]
    assert bench.turn("long", "longer") == ["longer"]


def test_what_was_wanted_long_ago_does_not_count(clock: Clock) -> None:
    bench = Bench(clock)
    bench.costs = {"once": 0.001}
    bench.turn("once")
    assert bench.turn("once", "other") == ["other", "once"]
    clock.now += MEMORY + 1.1
    assert bench.turn("once", "other") == ["once", "other"]


def test_a_rest_makes_a_clean_slate(clock: Clock) -> None:
    bench = Bench(clock)
    bench.costs = {"once": 0.01}
    bench.turn("once", "left")
    assert list(bench.fair.left) == ["left"]
    bench.fair.rest(clock.now)
    assert bench.fair.left == {}
    bench.costs = {"once": 0.001}
    assert bench.turn("once", "other") == ["other", "once"]
    clock.now += MEMORY + 1.1
    bench.fair.rest(clock.now)
    assert bench.turn("once", "other") == ["once", "other"]


def test_on_a_busy_machine_a_turn_does_as_much_as_on_a_quiet_one(clock: Clock) -> None:
    bench = Bench(clock)
    ready = crowd(10)

    def serve(one: str) -> None:
        served.append(one)
        clock.work(0.0005)
        clock.now += 0.1  # others have the processor

    served: list[str] = []
    bench.fair.serve(ready, serve, clock.now)
    assert served == ready


def test_newcomers_are_served_in_the_order_in_which_they_came(clock: Clock) -> None:
    bench = Bench(clock)
    newcomers = crowd(40)
    bench.costs = dict.fromkeys(newcomers, 0.001)
    served: list[str] = []

    def serve(one: str) -> None:
        served.append(one)
        clock.work(0.001)

    for number in range(10, 50, 10):  # they come ten by ten, and there is time for ten
        ready = [one for one in newcomers[:number] if one not in served]
        bench.fair.serve(["known", *ready], serve, clock.now, newcomers)
    while len(served) < 44:
        bench.fair.serve([one for one in newcomers if one not in served], serve, clock.now, newcomers)
    assert [one for one in served if one != "known"] == newcomers
    assert served.count("known") == 4


def test_it_tells_since_when_they_wait(clock: Clock) -> None:
    bench = Bench(clock)
    bench.costs = {"a": 1.0}
    bench.turn("a", "b")
    assert bench.fair.left == {"b": 0.0}
