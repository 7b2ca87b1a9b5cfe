"""The broker's own time: what a step of the system's clock, a stop and a wrong start do to it."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.clock import FAR, GRACE, MAX_PAUSES, STEP, Clock
from broker.core.ports import ClockRecord

HOUR, DAY, YEAR = 3600.0, 86400.0, 365 * 86400.0
#: When a run begins, in true time.
START = 1_700_000_000.0


class Run:
    """One run of the broker: the true time passes, and the system's clock is `wrong` by some seconds."""

    def __init__(self, began: float, wrong: float, before: Run | None = None, *, newest: float | None = None) -> None:
        self._began = began
        self.time = began
        self.wrong = wrong
        self.clock = Clock(0.0, began + wrong)
        self.clock.resume(before.clock.record(before.now) if before is not None else None, newest)

    @property
    def now(self) -> float:
        """The monotonic clock: another one in each run."""
        return self.time - self._began

    def wait(self, seconds: float) -> Run:
        self.time += seconds
        return self

    def set(self, wrong: float) -> float:
        """Somebody sets the system's clock. What `look` sees of it."""
        self.wrong = wrong
        return self.look()

    def look(self) -> float:
        return self.clock.look(self.now, self.time + self.wrong)

    def date(self) -> float:
        return self.clock.date(self.now)

    def elapsed(self, date: float) -> float:
        return self.clock.elapsed(date, self.now)

    def remaining(self, date: float, period: float) -> float:
        return self.clock.remaining(date, period, self.now)

    def next(self, pause: float, wrong: float = 0.0) -> Run:
        """The next run, after so long."""
        return Run(self.time + pause, wrong, self)


def close(seconds: float) -> object:
    return pytest.approx(seconds, abs=0.01)


# --- one run -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [YEAR, -YEAR, -START, HOUR, -2.0])
def test_setting_the_clock_moves_nothing_and_is_seen(wrong: float) -> None:
    run = Run(START, 0.0)
    date = run.date()
    run.wait(100.0)
    assert run.set(wrong) == close(wrong)
    assert run.elapsed(date) == close(100.0)
    assert run.wait(50.0).look() == 0.0
    assert run.set(0.0) == close(-wrong)
    assert (run.elapsed(date), run.remaining(date, 200.0)) == (close(150.0), close(50.0))


def test_a_clock_that_is_slowed_down_or_hurried_is_not_set() -> None:
    run = Run(START, 0.0)
    assert [run.wait(10.0).set(STEP * 0.9 * i) for i in range(10)] == [0.0] * 10


def test_a_machine_that_slept_has_not_kept_anybody_out() -> None:
    """CLOCK_MONOTONIC stands still; the system's clock goes on."""
    clock = Clock(50.0, START)
    date = clock.date(50.0)
    assert clock.look(60.0, START + 8 * HOUR + 10.0) == close(8 * HOUR)
    assert clock.elapsed(date, 60.0) == close(10.0)


# --- from run to run ---------------------------------------------------------------------------------------------


def test_the_time_between_runs_counts() -> None:
    first = Run(START, 0.0).wait(10.0)
    date = first.date()
    second = first.wait(5.0).next(DAY)
    assert second.wait(20.0).elapsed(date) == close(DAY + 25.0)
    mine = second.date()
    third = second.wait(1.0).next(HOUR)
    assert (third.elapsed(date), third.elapsed(mine)) == (close(DAY + HOUR + 26.0), close(HOUR + 1.0))


def test_what_began_in_the_last_moment_of_a_run_and_in_the_first_of_the_next() -> None:
    first = Run(START, 0.0)
    last = first.date()
    second = first.next(DAY)
    assert (second.elapsed(last), second.elapsed(second.date())) == (close(DAY), 0.0)


def test_a_run_that_was_killed_went_on_after_it_was_recorded() -> None:
    """Its last date tells how long, at least."""
    first = Run(START, 0.0).wait(10.0)
    record = first.clock.record(first.now)
    newest = first.wait(500.0).date()
    second = Clock(0.0, START + 510.0 + DAY)
    second.resume(record, newest)
    assert second.elapsed(newest, 0.0) == close(DAY)
    assert second.elapsed(newest, 7.0) == close(DAY + 7.0)


def test_a_store_without_a_record_has_dates_by_the_system_s_clock() -> None:
    """As version 1 wrote them."""
    clock = Clock(3.0, START)
    clock.resume(None, START - HOUR)
    assert [clock.elapsed(START - ago, 3.0) for ago in (HOUR, 2 * HOUR)] == [close(HOUR), close(2 * HOUR)]


# --- a clock that is wrong at the start --------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [-START, -YEAR])
def test_a_start_with_an_early_clock_that_is_put_right_later(wrong: float) -> None:
    """The time that is left is carried over: it does not jump when the clock does."""
    first = Run(START, 0.0)
    date = first.date()
    second = first.wait(10.0).next(HOUR, wrong)
    assert second.wait(30.0).elapsed(date) == close(40.0)
    assert second.set(0.0) == close(-wrong)
    assert second.elapsed(date) == close(40.0)
    assert second.next(DAY).elapsed(date) == close(DAY + 40.0)


def test_a_start_with_a_late_clock_that_is_put_right_later() -> None:
    first = Run(START, 0.0)
    date = first.date()
    second = first.wait(10.0).next(HOUR, YEAR)
    own = second.date()
    assert second.wait(30.0).elapsed(date) == close(YEAR + HOUR + 40.0)
    assert second.remaining(date, 30 * DAY) == close(GRACE - 30.0)
    assert second.set(0.0) == close(-YEAR)
    for run in (second, second.next(0.0)):
        assert run.elapsed(date) == close(HOUR + 40.0)
        assert run.elapsed(own) == close(30.0)
        assert run.remaining(date, 30 * DAY) == close(30 * DAY - HOUR - 40.0)


def test_a_late_clock_that_is_put_right_only_between_two_later_runs() -> None:
    first = Run(START, 0.0)
    date = first.date()
    second = first.wait(10.0).next(HOUR, YEAR).wait(10.0)
    third = second.next(DAY, 0.0)
    # That it was stopped for a day is not known: between the two, the system's clock went back by a year less a day.
    assert third.elapsed(date) == close(HOUR + DAY + 20.0)
    assert third.wait(5.0).elapsed(date) == close(HOUR + DAY + 25.0)


def test_a_clock_that_goes_to_and_fro_changes_nothing_in_the_end() -> None:
    first = Run(START, 0.0)
    date = first.date()
    second = first.next(DAY).wait(1.0)
    second.set(-HOUR)
    assert second.elapsed(date) == close(DAY + 1.0 - HOUR)  # it may have been late when it began
    second.set(HOUR)
    assert second.elapsed(date) == close(DAY + 1.0)


@pytest.mark.parametrize(("period", "least"), [(60.0, 60.0), (DAY, GRACE)])
def test_what_is_older_than_the_run_has_a_time_of_grace(period: float, least: float) -> None:
    first = Run(START, 0.0)
    date = first.date()
    second = first.next(YEAR)
    assert second.remaining(date, period) == close(least)
    assert second.wait(least / 2).remaining(date, period) == close(least / 2)
    assert second.wait(least).remaining(date, period) < 0
    assert second.remaining(second.date(), period) == close(period)


def test_grace_makes_nothing_shorter() -> None:
    first = Run(START, 0.0)
    date = first.date()
    assert first.next(HOUR).remaining(date, 30 * DAY) == close(30 * DAY - HOUR)


# --- bounds ------------------------------------------------------------------------------------------------------


def test_a_broker_that_is_started_often_forgets_no_pause() -> None:
    run = Run(START, 0.0)
    date = run.date()
    for _ in range(3 * MAX_PAUSES):
        run = run.next(100.0).wait(1.0)
    assert len(run.clock.record(run.now).pauses) == MAX_PAUSES
    assert run.elapsed(date) == pytest.approx(3 * MAX_PAUSES * 101.0, abs=1.0)


@pytest.mark.parametrize("odd", [FAR * 10, -FAR * 10, float("inf"), float("-inf"), float("nan")])
@pytest.mark.parametrize("field", ["at", "wall"])
def test_a_record_that_cannot_be_is_no_record(odd: float, field: str) -> None:
    clock = Clock(0.0, START)
    clock.resume(ClockRecord(odd, START, ()) if field == "at" else ClockRecord(START, odd, ()), None)
    assert clock.date(5.0) == START + 5.0


class Event(NamedTuple):
    kind: str
    seconds: float


events = st.lists(
    st.builds(
        Event,
        st.sampled_from(["wait", "set", "restart", "kill"]),
        st.floats(-2 * YEAR, 2 * YEAR, allow_nan=False),
    ),
    max_size=12,
)


@given(events)
def test_nothing_is_ever_older_than_it_can_be(story: list[Event]) -> None:
    """Whatever happens to the system's clock. What a run has dated itself, it knows the age of; and what is older gets
    no older while the run lasts than by the time that passes."""
    run = Run(START, 0.0)
    dates: list[float] = []
    own: list[tuple[float, float]] = []
    oldest: list[float] = []
    for kind, seconds in story:
        own.append((run.time, run.date()))
        dates.append(run.date())
        oldest.append(0.0)
        if kind == "set":
            run.set(seconds)
        elif kind == "wait":
            run.wait(abs(seconds)).look()
            oldest = [age + abs(seconds) for age in oldest]
        else:
            run = run.next(abs(seconds), run.wrong if kind == "restart" else seconds)
            own = []
            oldest = [run.elapsed(date) for date in dates]
        ages = [run.elapsed(date) for date in dates]
        assert all(-0.01 <= age <= most + 0.01 for age, most in zip(ages, oldest, strict=True))
        assert all(run.elapsed(date) == close(run.time - then) for then, date in own)
