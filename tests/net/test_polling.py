"""Waiting for sockets: all that are ready are told at once."""

from __future__ import annotations

import resource
import socket
from contextlib import ExitStack, closing

from broker.net.polling import WRITE, poller


class Handler:
    def ready(self, events: int, now: float) -> None: ...


def test_all_that_are_ready_are_told_at_once_however_many() -> None:
    """Deadlines come behind them in a turn: a client that has something to say must be heard before it is called
    silent."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], 2000), before[1]))
    try:
        with ExitStack() as stack:
            waiting = stack.enter_context(closing(poller()))
            handlers = []
            for _ in range(750):
                for sock in socket.socketpair():
                    handlers.append(Handler())
                    waiting.register(stack.enter_context(sock), WRITE, handlers[-1])
            told = waiting.wait(1.0)
            assert {handler for handler, events in told if events == WRITE} == set(handlers)
            assert waiting.wait(0.0) != []
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_there_may_be_nobody_to_wait_for() -> None:
    with closing(poller()) as waiting:
        assert waiting.wait(0.0) == []
