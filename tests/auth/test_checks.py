"""Whose password is checked next."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from broker.auth.checks import MAX_WAITING, Checks, origin_of

HERE, THERE, ELSEWHERE = "192.0.2.1:1000", "192.0.2.2:1000", "192.0.2.3:1000"


class Desk:
    """Checks whose jobs end when the test says so."""

    def __init__(self, at_once: int) -> None:
        self.checks = Checks(self._submit, at_once)
        self.running: list[tuple[Callable[[], Any], Callable[[Any, Exception | None], None]]] = []
        self.begun: list[str] = []
        self.answered: list[str] = []

    def _submit(self, job: Callable[[], Any], done: Callable[[Any, Exception | None], None]) -> None:
        self.begun.append(job())
        self.running.append((job, done))

    def ask(self, name: str, peer: str) -> bool:
        def done(result: Any, error: Exception | None) -> None:
            if error is not None:
                raise error
            self.answered.append(result)

        return self.checks.submit(lambda: name, done, peer)

    def end(self, error: Exception | None = None) -> None:
        """The oldest job ends."""
        job, done = self.running.pop(0)
        done(None if error else job(), error)

    def end_all(self) -> Desk:
        while self.running:
            self.end()
        return self


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


def test_too_many_of_an_address_are_refused_and_others_are_not() -> None:
    desk = Desk(1)
    assert all(desk.ask(f"here{n}", HERE) for n in range(MAX_WAITING + 1))  # the first one runs
    assert not desk.ask("one too many", HERE)
    assert desk.ask("there", THERE)
    desk.end()
    assert desk.ask("in its place", HERE)
    assert not desk.ask("one too many", HERE)
    assert "one too many" not in desk.end_all().begun


def test_nothing_is_kept_of_who_was_here() -> None:
    desk = Desk(2)
    for n in range(100):
        desk.ask("x", f"192.0.2.{n}:1000")
    desk.end_all()
    assert (desk.checks._waiting, desk.checks._running) == ({}, {})


def test_a_check_that_fails_in_an_unexpected_way_stops_no_other() -> None:
    desk = Desk(1)
    desk.ask("first", HERE)
    desk.ask("second", HERE)
    with pytest.raises(RuntimeError):
        desk.end(RuntimeError())
    assert desk.end_all().answered == ["second"]


@pytest.mark.parametrize(
    ("peer", "origin"),
    [
        ("192.0.2.1:1000", "192.0.2.1"),
        ("[2001:db8:1:2::3]:1000", "2001:0db8:0001:0002"),
        ("[2001:db8:1:2:ffff::]:2000", "2001:0db8:0001:0002"),
        ("[fe80::1%eth0]:1000", "fe80:0000:0000:0000"),
        ("[::ffff:192.0.2.1]:1000", "192.0.2.1"),
        ("[what is this]:1000", "[what is this]"),
        ("/run/broker.sock", ""),
    ],
)
def test_an_origin(peer: str, origin: str) -> None:
    assert origin_of(peer) == origin
