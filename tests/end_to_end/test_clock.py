"""A whole broker whose system's clock is set while it runs, or is wrong when it starts: what waits is still there."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker import server
from broker.config import loading
from broker.logs import EventLog
from broker.server import Server
from tests.broker_process import eventually
from tests.raw_client import RawClient, parse_publish, puback, publish

YEAR = 365 * 86400.0


class SystemClock:
    """The system's clock: the true one, and what somebody has added to it."""

    def __init__(self, added: float = 0.0) -> None:
        self.added = added

    def __call__(self) -> float:
        return time.time() + self.added


@contextlib.contextmanager
def running(data: Path, clock: SystemClock, expiry: str) -> Iterator[tuple[str, int]]:
    """The address of a broker that goes by this clock."""
    options = loading.from_keywords({"data": str(data), "port": 0, "session_expiry": expiry})
    broker = Server(loading.load(None, options), EventLog(), wall=clock)
    thread = threading.Thread(target=broker.run)
    thread.start()
    try:
        yield broker.addresses[0]
    finally:
        broker.request("stop")
        thread.join()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "CLOCK_CHECK", 0.01)


def leave_a_message(address: tuple[str, int]) -> None:
    with RawClient.connected(address, "sub", clean=False) as sub:
        sub.subscribe(("t", 1))
        sub.disconnect()
    with RawClient.connected(address, "pub") as pub:
        pub.send(publish("t", b"waiting", 1))
        assert pub.next() == puback(1)


def is_there(address: tuple[str, int]) -> None:
    with RawClient.connected(address, "sub", clean=False, present=True) as sub:
        assert parse_publish(sub.next())[:2] == ("t", b"waiting")


def test_a_clock_that_is_set_by_years_while_the_broker_runs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "selectmq")
    clock = SystemClock()
    with running(tmp_path, clock, "1h") as address:
        leave_a_message(address)
        for step in (YEAR, -2 * YEAR):
            seen = len(told(caplog))
            clock.added += step
            eventually(lambda seen=seen: len(told(caplog)) > seen, "somebody saw the clock being set")  # type: ignore[misc]
        is_there(address)
    with running(tmp_path, clock, "1h") as address:
        is_there(address)
    assert [line for line in caplog.messages if "expired" in line] == []


@pytest.mark.parametrize("wrong", [YEAR, -YEAR, -1_700_000_000.0])
def test_a_start_with_a_wrong_clock_that_is_put_right(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, wrong: float
) -> None:
    caplog.set_level(logging.INFO, "selectmq")
    with running(tmp_path, SystemClock(), "1h") as address:
        leave_a_message(address)
    clock = SystemClock(wrong)
    with running(tmp_path, clock, "1h") as address:
        clock.added = 0.0
        eventually(lambda: told(caplog) != [], "somebody saw the clock being set")
        is_there(address)
    with running(tmp_path, clock, "1h") as address:
        is_there(address)
    assert [line for line in caplog.messages if "expired" in line] == []


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [line for line in caplog.messages if "the system's clock was set" in line]
