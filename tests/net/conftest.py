"""A real event loop in a thread of its own, with each kind of poller: Linux has epoll, Windows `select` only."""

import selectors
from collections.abc import Iterator

import pytest

from tests.net.running_loop import RunningLoop

SELECTORS = [
    pytest.param(selectors.DefaultSelector, id="default-selector"),
    pytest.param(selectors.SelectSelector, id="select"),
]


@pytest.fixture(params=SELECTORS)
def running(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningLoop]:
    """A loop at work. What its callbacks let through must have been taken out of `failures`."""
    monkeypatch.setattr(selectors, "DefaultSelector", request.param)
    running = RunningLoop()
    yield running
    running.stop()
    assert running.failures == []
