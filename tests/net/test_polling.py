"""Waiting for sockets: Epoll is what Python calls a selector, and tells all that are ready at once."""

from __future__ import annotations

import os
import resource
import select
import selectors
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest

from broker.net.polling import READ, WRITE, Epoll, best, capacity

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    here, there = socket.socketpair()
    with here, there:
        yield here, there


# --- all at once ---


def test_all_that_are_ready_are_told_at_once_however_many() -> None:
    """Deadlines come behind them in a turn: a client that has something to say must be heard before it is called
    silent."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], 2000), before[1]))
    try:
        with ExitStack() as stack:
            waiting = stack.enter_context(closing(best()))
            names: list[int] = []
            for _ in range(750):
                for sock in socket.socketpair():
                    names.append(len(names))
                    waiting.register(stack.enter_context(sock), WRITE, names[-1])
            told = waiting.select(1.0)
            assert {key.data for key, events in told if events == WRITE} == set(names)
            assert waiting.select(0.0) != []
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_there_may_be_nobody_to_wait_for() -> None:
    with closing(best()) as waiting:
        assert waiting.select(0.0) == []


# --- the choice ---


def test_on_linux_the_best_is_ours() -> None:
    with closing(best()) as selector:
        assert isinstance(selector, Epoll)
        assert isinstance(selector, selectors.EpollSelector)
        assert capacity(selector) is None


def test_elsewhere_it_is_what_python_takes_for_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selectors, "DefaultSelector", selectors.SelectSelector)
    with closing(best()) as selector:
        assert type(selector) is selectors.SelectSelector
        assert capacity(selector) == 500


# --- a selector as Python describes it: what EpollSelector does, ours does ---


@pytest.fixture(params=[Epoll, selectors.EpollSelector])
def selector(request: pytest.FixtureRequest) -> Iterator[selectors.BaseSelector]:
    with request.param() as selector:
        yield selector


def test_what_is_registered_is_known_by_its_object_and_by_its_descriptor(
    selector: selectors.BaseSelector, pair: Pair
) -> None:
    here, there = pair
    key = selector.register(here, READ, "here")
    assert key == selectors.SelectorKey(here, here.fileno(), READ, "here")
    assert selector.register(there.fileno(), WRITE) == (there.fileno(), there.fileno(), WRITE, None)
    assert (selector.get_key(here), selector.get_key(here.fileno())) == (key, key)
    known = selector.get_map()
    assert (len(known), known[here], set(known)) == (2, key, {here.fileno(), there.fileno()})
    assert here in known
    assert selector.unregister(here) == key
    assert (len(known), here in known) == (1, False)


def test_events_are_told_as_they_were_asked_for(selector: selectors.BaseSelector, pair: Pair) -> None:
    here, there = pair
    selector.register(here, READ, 1)
    assert selector.select(0) == []
    there.send(b"x")
    assert selector.select(None) == [(selector.get_key(here), READ)]
    assert selector.modify(here, READ | WRITE, 2).data == 2
    assert selector.select(0) == [((here, here.fileno(), READ | WRITE, 2), READ | WRITE)]
    selector.modify(here, WRITE, 3)
    assert selector.select(-1) == [((here, here.fileno(), WRITE, 3), WRITE)]
    selector.modify(here, READ, 4)
    there.close()
    assert selector.select(0) == [((here, here.fileno(), READ, 4), READ)]  # the end, though it can be written, too
    selector.unregister(here)
    assert selector.select(0) == []


def test_an_error_is_told_as_what_was_asked_for(selector: selectors.BaseSelector) -> None:
    reader, writer = os.pipe()
    selector.register(writer, WRITE)
    selector.register(reader, READ)
    os.close(writer)
    selector.unregister(writer)
    assert selector.select(0) == [(selector.get_key(reader), READ)]
    selector.unregister(reader)
    os.close(reader)


def test_a_wait_ends_with_its_time(selector: selectors.BaseSelector, pair: Pair) -> None:
    selector.register(pair[0], READ)
    assert selector.select(0.01) == []


def test_what_is_wrong_is_refused(selector: selectors.BaseSelector, pair: Pair) -> None:
    here, there = pair
    selector.register(here, READ)
    with pytest.raises(KeyError):
        selector.register(here, READ)
    for unknown in (there, 10_000):
        with pytest.raises(KeyError):
            selector.modify(unknown, READ)
        with pytest.raises(KeyError):
            selector.unregister(unknown)
        with pytest.raises(KeyError):
            selector.get_key(unknown)
    for events in (0, 4, READ | 8):
        with pytest.raises(ValueError, match=r"(?i)events"):
            selector.register(there, events)
    there.close()
    with pytest.raises(ValueError):  # noqa: PT011  # that is what Python has for a closed socket
        selector.register(there, READ)
    assert list(selector.get_map()) == [here.fileno()]


def test_one_that_was_closed_before_can_still_be_unregistered(selector: selectors.BaseSelector, pair: Pair) -> None:
    here, _ = pair
    key = selector.register(here, READ)
    here.close()
    assert selector.unregister(here) == key
    assert len(selector.get_map()) == 0


def test_its_descriptor_is_epoll_s_and_closing_it_ends_all(pair: Pair) -> None:
    selector = Epoll()
    selector.register(pair[0], READ)
    pair[1].send(b"x")
    with select.epoll() as outer:
        outer.register(selector.fileno(), select.EPOLLIN)
        assert outer.poll(1.0) == [(selector.fileno(), select.EPOLLIN)]
    selector.close()
    assert selector.get_map() is None
    with pytest.raises(RuntimeError):
        selector.get_key(pair[0])
    with pytest.raises(ValueError):  # noqa: PT011  # as EpollSelector does
        selector.select(0)
