"""Complaints: each thing once a minute, the rest counted and the count told, whatever a client thinks up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.complaints import (
    COMINGS_PER_SECOND,
    LINES_PER_SECOND,
    MAX_REMEMBERED,
    MAX_VALUE,
    MORE,
    OVERFLOW,
    SILENCE,
    TOO_BUSY,
    TOO_MANY,
    Complaints,
)
from broker.core.timers import Timers
from tests.core.harness import FakeLog

PEER = "192.0.2.1:1000"


class Bench:
    def __init__(self) -> None:
        self.log = FakeLog()
        self.timers = Timers()
        self.timers.now = 1_000.0
        self.complaints = Complaints(self.log, self.timers)

    def tell(self, peer: str = PEER, cause: object = "why", event: str = "event") -> None:
        self.complaints.warning(event, peer, cause, reason=cause)

    def later(self, seconds: float) -> None:
        self.timers.now += seconds

    def taken(self) -> list[tuple[str, str, dict[str, object]]]:
        lines, self.log.lines = self.log.lines, []
        return lines


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_the_same_is_told_once_in_a_minute_and_the_rest_counted(bench: Bench) -> None:
    for port in range(1000, 1100):  # another port is not another place
        bench.tell(f"192.0.2.1:{port}")
    assert bench.taken() == [("warning", "event", {"reason": "why"})]
    bench.later(SILENCE)
    bench.complaints.sweep(bench.timers.now)
    assert bench.taken() == [("warning", MORE, {"what": "event", "reason": "why", "times": 99})]


def test_the_count_is_told_before_the_next_line_if_that_comes_first(bench: Bench) -> None:
    for _ in range(3):
        bench.tell()
    bench.later(SILENCE)
    bench.tell()
    bench.tell()
    assert [(event, fields.get("times")) for _, event, fields in bench.taken()] == [
        ("event", None), (MORE, 2), ("event", None),
    ]  # fmt: skip


def test_nothing_is_told_of_what_came_once(bench: Bench) -> None:
    bench.tell()
    bench.later(SILENCE)
    bench.complaints.sweep(bench.timers.now)
    assert bench.log.events("warning") == ["event"]


def test_another_cause_event_or_place_within_the_minute_is_told(bench: Bench) -> None:
    bench.tell()
    bench.tell(cause="another")
    bench.tell(event="another event")
    bench.tell("192.0.2.2:1000")
    bench.tell("[2001:db8::1]:1000")
    assert len(bench.taken()) == 5


def test_the_minute_begins_with_the_line_and_not_with_the_last_one_left_out(bench: Bench) -> None:
    for _ in range(240):
        bench.tell()
        bench.later(1.0)
    bench.complaints.finish()
    lines = bench.taken()
    assert [event for _, event, _ in lines] == ["event", MORE] * 4
    assert [fields["times"] for _, event, fields in lines if event == MORE] == [59] * 4


def test_one_address_gets_so_many_lines_a_second_whatever_it_thinks_up(bench: Bench) -> None:
    for cause in range(1000):
        bench.tell(cause=cause)
    bench.tell("192.0.2.2:1")  # another address is told as ever
    assert len(bench.taken()) == LINES_PER_SECOND + 1
    bench.later(1.0)
    bench.tell(cause="new")
    assert bench.taken() == [("warning", "event", {"reason": "new"})]
    bench.complaints.finish()
    assert bench.taken() == [
        ("warning", TOO_MANY, {"address": "192.0.2.1", "times": 1000 - LINES_PER_SECOND}),
    ]  # fmt: skip


def test_what_belongs_to_no_place_has_the_same_limit(bench: Bench) -> None:
    """Else whoever makes it happen could fill the log, and leave no room for what others are told of."""
    for cause in range(1000):
        bench.tell("", cause=cause)
    bench.tell()
    assert len(bench.taken()) == LINES_PER_SECOND + 1
    bench.complaints.finish()
    assert bench.taken() == [("warning", OVERFLOW, {"times": 1000 - LINES_PER_SECOND})]


def test_clients_that_come_and_go_are_told_each_but_only_so_often_a_second(bench: Bench) -> None:
    coming = bench.complaints.coming
    for _ in range(2):  # no minute of silence
        for number in range(1000):
            coming("client connected", PEER, client=number)
        coming("client connected", "192.0.2.2:1", client="another")
        bench.tell()
        bench.later(1.0)
    lines = bench.taken()
    assert [fields["client"] for _, event, fields in lines if event == "client connected"] == [
        *range(COMINGS_PER_SECOND), "another",
    ] * 2  # fmt: skip
    assert len(lines) == 2 * COMINGS_PER_SECOND + 3
    bench.complaints.finish()
    assert bench.taken() == [
        ("info", TOO_BUSY, {"address": "192.0.2.1", "times": 2 * (1000 - COMINGS_PER_SECOND)}),
        ("warning", MORE, {"what": "event", "reason": "why", "times": 1}),
    ]


def test_what_is_remembered_has_a_limit(bench: Bench) -> None:
    for number in range(MAX_REMEMBERED + 7):
        bench.tell(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}:1")
    assert len(bench.taken()) == MAX_REMEMBERED
    bench.complaints.sweep(bench.timers.now)
    assert bench.taken() == [("warning", OVERFLOW, {"times": 7})]
    bench.later(SILENCE)
    bench.tell("192.0.2.9:1")
    assert bench.taken() == [("warning", "event", {"reason": "why"})]


def test_long_values_are_told_whole_and_remembered_cut(bench: Bench) -> None:
    for _ in range(2):
        bench.complaints.info("event", PEER, b"x" * 65_535, topic=b"x" * 65_535)
    bench.complaints.finish()
    told, more = bench.taken()
    assert told[2] == {"topic": b"x" * 65_535}
    assert more == ("info", MORE, {"what": "event", "topic": b"x" * MAX_VALUE, "times": 1})


@pytest.mark.parametrize("level", ["info", "warning", "error"])
def test_the_count_has_the_level_of_what_it_counts(level: str, bench: Bench) -> None:
    for _ in range(2):
        getattr(bench.complaints, level)("event", PEER)
    bench.complaints.finish()
    assert [line[:2] for line in bench.taken()] == [(level, "event"), (level, MORE)]


def broken(number: int) -> ValueError:
    try:
        if number % 2:
            raise ValueError(f"odd {number}")
        raise ValueError(f"even {number}")
    except ValueError as error:
        return error


def test_a_bug_is_told_once_for_each_line_that_raises_it(bench: Bench) -> None:
    """A client that has found one could fill the log with tracebacks."""
    for number in range(10):
        bench.complaints.bug("bug", broken(number), "", client="c")
    assert [(level, repr(fields["error"])) for level, _, fields in bench.taken()] == [
        ("exception", "ValueError('even 0')"), ("exception", "ValueError('odd 1')"),
    ]  # fmt: skip
    bench.complaints.finish()
    assert bench.taken() == [("error", MORE, {"what": "bug", "client": "c", "times": 4})] * 2


def test_an_error_that_was_never_raised_can_be_told(bench: Bench) -> None:
    bench.complaints.bug("bug", ValueError("x"), PEER)
    assert len(bench.taken()) == 1


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.sampled_from([0.0, 0.1, 1.0, 30.0])), max_size=200))
def test_every_complaint_is_told_or_counted(steps: list[tuple[int, int, float]]) -> None:
    bench = Bench()
    for address, cause, pause in steps:
        bench.tell(f"10.0.0.{address}:1", cause)
        bench.later(pause)
        bench.complaints.sweep(bench.timers.now)
    bench.complaints.finish()
    told = sum(1 if event == "event" else int(str(fields["times"])) for _, event, fields in bench.taken())
    assert told == len(steps)
