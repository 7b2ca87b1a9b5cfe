"""Whose password is checked next."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from broker.auth.checks import ANSWERS, OVERHEAD, Checks, Question

HERE, THERE, ELSEWHERE = "192.0.2.1:1000", "192.0.2.2:1000", "192.0.2.3:1000"


class Desk:
    """Checks whose jobs end, and whose turns pass, when the test says so."""

    def __init__(self, at_once: int, memory: int = 16 << 20) -> None:
        self.later: list[Callable[[], None]] = []
        self.checks = Checks(self._submit, at_once, self.later.append, memory)
        self.running: list[tuple[Callable[[], Any], Callable[[Any, Exception | None], None]]] = []
        self.begun: list[str] = []
        self.answered: list[str] = []

    def _submit(self, job: Callable[[], Any], done: Callable[[Any, Exception | None], None]) -> None:
        self.begun.append(job())
        self.running.append((job, done))

    def ask(self, name: str, peer: str, size: int = 0) -> Question | None:
        def done(result: Any, error: Exception | None) -> None:
            if error is not None:
                raise error
            self.answered.append(result)

        return self.checks.submit(name, lambda: name, done, peer, size)

    def end(self, error: Exception | None = None) -> None:
        """The oldest job ends."""
        job, done = self.running.pop(0)
        done(None if error else job(), error)

    def end_all(self) -> Desk:
        while self.running:
            self.end()
        while self.later:
            self.later.pop()()
        return self

    @property
    def is_empty(self) -> bool:
        checks = self.checks
        return not (checks._waiting or checks._running or checks._threads or checks._held or checks._answers)


def test_one_address_has_half_of_the_threads() -> None:
    desk = Desk(4)
    for n in range(5):
        desk.ask(f"here{n}", HERE)
    assert desk.begun == ["here0", "here1"]
    for n in range(3):
        desk.ask(f"there{n}", THERE)
    assert desk.begun == ["here0", "here1", "there0", "there1"]
    desk.ask("elsewhere", ELSEWHERE)
    assert len(desk.running) == 4


def test_addresses_take_turns() -> None:
    desk = Desk(1)
    for n in range(5):
        desk.ask(f"here{n}", HERE)
    desk.ask("there0", THERE)
    desk.ask("elsewhere0", ELSEWHERE)
    desk.ask("there1", THERE)
    assert desk.end_all().begun == [
        "here0", "here1", "there0", "elsewhere0", "here2", "there1", "here3", "here4",
    ]  # fmt: skip
    assert desk.begun == desk.answered


def test_an_address_may_hold_what_is_still_free_for_others() -> None:
    desk = Desk(1, memory=24 * OVERHEAD)
    assert [bool(desk.ask(f"here{n}", HERE)) for n in range(13)] == [True] * 12 + [False]
    assert [bool(desk.ask(f"there{n}", THERE)) for n in range(7)] == [True] * 6 + [False]
    assert desk.ask("elsewhere", ELSEWHERE)
    desk.end_all()
    assert not desk.ask("more than all", HERE, size=24 * OVERHEAD)
    assert desk.ask("after all", HERE)
    desk.end_all()
    assert (desk.is_empty, desk.checks._free) == (True, 24 * OVERHEAD)


def test_what_counts_is_what_is_held() -> None:
    desk = Desk(1, memory=24 * OVERHEAD)
    assert desk.ask("large", HERE, size=9 * OVERHEAD)
    assert not desk.ask("another", HERE, size=9 * OVERHEAD)
    assert desk.ask("small", HERE)


def test_who_asks_the_same_shares_one_check() -> None:
    desk = Desk(2)
    for _ in range(600):
        desk.ask("the same", HERE)
    desk.ask("the same", THERE)  # while it is under way
    assert desk.begun == ["the same"]
    desk.end_all()
    assert (desk.answered, desk.begun, desk.is_empty) == (["the same"] * 601, ["the same"], True)


def test_answers_are_given_a_few_a_turn() -> None:
    desk = Desk(2)
    for _ in range(2 * ANSWERS + 1):
        desk.ask("a", HERE)
    desk.ask("b", HERE)
    desk.end()
    assert len(desk.answered) == ANSWERS
    desk.end()  # b: it has its turn behind them
    assert (len(desk.answered), len(desk.later)) == (ANSWERS, 1)
    desk.later.pop()()
    assert (len(desk.answered), len(desk.later)) == (2 * ANSWERS, 1)
    desk.later.pop()()
    assert desk.answered == ["a"] * (2 * ANSWERS + 1) + ["b"]
    assert desk.later == []


def test_what_waits_in_two_places_is_computed_once_though_each_has_its_turn() -> None:
    desk = Desk(2)
    desk.ask("first", HERE)
    desk.ask("other", THERE)
    desk.ask("the same", HERE)
    desk.ask("the same", THERE)
    desk.ask("last", THERE)
    assert desk.end_all().begun == ["first", "other", "the same", "last"]
    assert sorted(desk.answered) == ["first", "last", "other", "the same", "the same"]


def test_who_leaves_is_asked_for_no_more() -> None:
    desk = Desk(1)
    desk.ask("first", HERE)
    questions = [desk.ask(name, peer) for name, peer in (("a", HERE), ("a", HERE), ("b", THERE))]
    for question in questions:
        assert question is not None
        question.cancel()
        question.cancel()
    assert list(desk.checks._waiting) == []
    assert desk.end_all().answered == ["first"]
    assert desk.begun == ["first"]
    assert desk.is_empty


def test_who_leaves_while_it_is_computed_or_answered_is_not_answered() -> None:
    desk = Desk(1)
    staying = [desk.ask("a", HERE) for _ in range(ANSWERS)]
    leaving = [desk.ask("a", HERE) for _ in range(2)]
    for question in leaving[:1]:
        assert question is not None
        question.cancel()
    desk.end()
    for question in leaving[1:]:
        assert question is not None
        question.cancel()
    desk.end_all()
    assert (len(desk.answered), desk.is_empty) == (len(staying), True)


def test_one_of_those_who_ask_the_same_leaves_and_the_others_are_answered() -> None:
    desk = Desk(1)
    desk.ask("first", HERE)
    one, _ = desk.ask("a", HERE), desk.ask("a", HERE)
    assert one is not None
    one.cancel()
    assert desk.end_all().answered == ["first", "a"]


def test_nothing_is_kept_of_who_was_here() -> None:
    desk = Desk(2)
    for n in range(100):
        desk.ask(f"x{n}", f"192.0.2.{n}:1000")
    assert desk.end_all().is_empty


def test_a_check_that_fails_in_an_unexpected_way_stops_no_other() -> None:
    desk = Desk(1)
    desk.ask("first", HERE)
    desk.ask("second", HERE)
    with pytest.raises(RuntimeError):
        desk.end(RuntimeError())
    assert desk.end_all().answered == ["second"]
