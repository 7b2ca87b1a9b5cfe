"""A real event loop in a thread of its own: with the best selector, and with `select`, as Windows has nothing else. The
loop's own tests run with all of SELECTORS."""

import selectors
from collections.abc import Iterator

import pytest

from broker.net import polling
from tests.net.running_loop import RunningLoop


class OneByOne(selectors.PollSelector):
    """Tells READ and WRITE of a socket apart, as `selectors.KqueueSelector` does."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        told = super().select(timeout)
        return [(key, event) for key, events in told for event in (polling.READ, polling.WRITE) if events & event]


SELECTORS = [
    pytest.param(polling.Epoll, id="ours"),
    pytest.param(selectors.EpollSelector, id="epoll"),
    pytest.param(selectors.PollSelector, id="poll"),
    pytest.param(selectors.SelectSelector, id="select"),
    pytest.param(selectors.DefaultSelector, id="default"),
    pytest.param(OneByOne, id="kqueue-like"),
]


@pytest.fixture(params=[polling.best, selectors.SelectSelector], ids=["best", "select"])
def running(request: pytest.FixtureRequest) -> Iterator[RunningLoop]:
    """A loop at work. What its callbacks let through must have been taken out of `failures`."""
    running = RunningLoop(request.param())
    yield running
    running.stop()
    assert running.failures == []
