"""Deadlines: when what is called, and that cancelling costs no memory."""

import gc
import weakref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.core.timers import Callback, Timer, Timers


def test_what_is_due_is_called_in_the_order_of_deadlines() -> None:
    timers = Timers()
    called: list[tuple[str, float]] = []
    for due, name in ((3.0, "c"), (1.0, "a"), (2.0, "b"), (9.0, "late")):
        timers.at(due, lambda now, name=name: called.append((name, now)))  # type: ignore[misc]
    assert timers.next_due() == 1.0
    timers.run(3.0)
    assert called == [("a", 3.0), ("b", 3.0), ("c", 3.0)]
    assert (timers.next_due(), len(timers)) == (9.0, 1)


def test_equal_deadlines_are_called_in_the_order_in_which_they_were_set() -> None:
    timers = Timers()
    called: list[int] = []
    for i in range(20):
        timers.at(1.0, lambda now, i=i: called.append(i))  # type: ignore[misc]
    timers.run(1.0)
    assert called == list(range(20))


def test_nothing_is_called_early() -> None:
    timers = Timers()
    timers.at(1.0, lambda now: pytest.fail("too early"))
    timers.run(0.999)
    assert len(timers) == 1


def test_after_counts_from_the_time_of_the_turn() -> None:
    timers = Timers()
    timers.now = 100.0
    timers.after(5.0, lambda now: None)
    assert timers.next_due() == 105.0
    timers.run(105.0)
    assert (timers.now, timers.next_due()) == (105.0, None)


def test_who_returns_a_time_is_called_again_then() -> None:
    timers = Timers()
    called: list[float] = []

    def tick(now: float) -> float | None:
        called.append(now)
        return now + 10.0 if len(called) < 3 else None

    timers.at(1.0, tick)
    for now in (0.0, 1.0, 10.9, 11.0, 21.5, 100.0):
        timers.run(now)
    assert (called, timers.next_due(), len(timers)) == ([1.0, 11.0, 21.5], None, 0)


def test_a_cancelled_timer_is_not_called_and_may_be_cancelled_again() -> None:
    timers = Timers()
    timer = timers.at(1.0, lambda now: pytest.fail("it was cancelled"))
    timers.at(1.0, lambda now: None)
    timer.cancel()
    timer.cancel()
    assert len(timers) == 1
    timers.run(1.0)
    assert (len(timers), timers.next_due()) == (0, None)


def test_a_timer_may_be_cancelled_by_another_that_is_due_at_the_same_time() -> None:
    timers = Timers()
    second = timers.at(2.0, lambda now: pytest.fail("it was cancelled"))
    timers.at(1.0, lambda now: second.cancel())
    timers.run(5.0)
    assert len(timers) == 0


def test_a_timer_may_cancel_itself_while_it_is_called() -> None:
    timers = Timers()
    timer = timers.at(1.0, lambda now: timer.cancel())
    timers.run(1.0)
    timer.cancel()
    assert (len(timers), timers.next_due()) == (0, None)


def test_a_repeated_timer_can_be_cancelled() -> None:
    timers = Timers()
    called: list[float] = []

    def tick(now: float) -> float:
        called.append(now)
        return now + 1.0

    timer = timers.at(1.0, tick)
    timers.run(1.0)
    timer.cancel()
    timers.run(9.0)
    assert called == [1.0]


def test_what_is_set_while_others_are_called_is_called_too_if_it_is_due() -> None:
    timers = Timers()
    called: list[str] = []

    def first(now: float) -> None:
        timers.at(now, lambda now: called.append("second"))
        timers.after(1.0, lambda now: called.append("third"))

    timers.at(1.0, first)
    timers.run(1.5)
    assert (called, timers.next_due()) == (["second"], 2.5)


def test_an_exception_loses_no_other_timer() -> None:
    timers = Timers()
    called: list[str] = []

    def bad(now: float) -> None:
        raise ValueError("a bug")

    timers.at(1.0, bad)
    timers.at(1.0, lambda now: called.append("good"))
    with pytest.raises(ValueError, match="a bug"):
        timers.run(1.0)
    timers.run(1.0)
    assert (called, len(timers)) == (["good"], 0)


def test_cancelling_frees_what_the_callback_holds_at_once() -> None:
    class Held:
        pass

    timers = Timers()
    held = Held()
    gone = weakref.ref(held)
    timer = timers.at(1_000.0, lambda now, held=held: None)  # type: ignore[misc]
    del held
    timer.cancel()
    gc.collect()
    assert gone() is None


def test_cancelled_timers_do_not_pile_up() -> None:
    """A client that comes and goes sets a deadline far away each time."""
    timers = Timers()
    kept = timers.at(5_000.0, lambda now: None)
    for i in range(10_000):
        timers.at(4_000.0 + i, lambda now: None).cancel()
    assert len(timers) == 1
    assert len(timers._heap) < 200
    assert kept.callback is not None


def test_many_are_cancelled_while_timers_are_called() -> None:
    timers = Timers()
    called: list[float] = []
    others = [timers.at(2.0 + i % 7, lambda now: pytest.fail("it was cancelled")) for i in range(500)]

    def cancel_all(now: float) -> None:
        for other in others:
            other.cancel()

    timers.at(1.0, cancel_all)
    timers.at(1.5, called.append)
    timers.at(8.5, called.append)
    timers.run(10.0)
    assert (called, len(timers), timers.next_due()) == ([10.0, 10.0], 0, None)


@settings(deadline=None, max_examples=100, derandomize=True)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("at"), st.integers(0, 30), st.integers(0, 4)),
            st.tuples(st.just("cancel"), st.integers(0, 40), st.just(0)),
            st.tuples(st.just("run"), st.integers(0, 10), st.just(0)),
        ),
        max_size=150,
    )
)
def test_it_behaves_as_a_list_that_is_searched_each_time(steps: list[tuple[str, int, int]]) -> None:
    """`at` sets one that comes again `again` times after 3 seconds each."""
    timers = Timers()
    made: list[Timer] = []
    expected: dict[int, tuple[float, int]] = {}  # name -> due, how often it comes again
    log: list[tuple[float, int]] = []
    now = 0.0

    def callback(name: int, again: int) -> Callback:
        left = [again]

        def call(now: float) -> float | None:
            log.append((now, name))
            left[0] -= 1
            return now + 3.0 if left[0] >= 0 else None

        return call

    for what, number, again in steps:
        if what == "at":
            name = len(made)
            made.append(timers.at(now + number, callback(name, again)))
            expected[name] = (now + number, again)
        elif what == "cancel" and made:
            made[number % len(made)].cancel()
            expected.pop(number % len(made), None)
        elif what == "run":
            now += number
            log.clear()
            timers.run(now)
            due = {name for name, (when, _) in expected.items() if when <= now}
            assert sorted(log) == sorted((now, name) for name in due)
            for name in due:
                _, more = expected.pop(name)
                if more:
                    expected[name] = (now + 3.0, more - 1)
        assert len(timers) == len(expected)
        due_at = timers.next_due()
        if expected:
            assert due_at is not None
            assert due_at <= min(when for when, _ in expected.values())
