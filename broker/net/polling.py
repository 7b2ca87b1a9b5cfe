"""Waiting for many sockets: any of Python's `selectors`, and for Linux one that does the same for less.

Owns: the choice of the selector, and Epoll. Must not know: what is done with an event.

`selectors.EpollSelector` computes in Python for each event what one look into a table says, and more for each socket.
"""

from __future__ import annotations

import contextlib
import select
import selectors
import sys
from collections.abc import Iterator, Mapping
from selectors import SelectorKey
from typing import Any, Protocol

READ = selectors.EVENT_READ
WRITE = selectors.EVENT_WRITE

#: Where there is only `select`, it fails with more than 512 sockets: those of clients, and a few of our own.
SELECT_CAPACITY = 500


class Ready(Protocol):
    """What is registered for a socket."""

    def ready(self, events: int, now: float) -> None:
        """The socket can be read (READ) or written (WRITE), or both; an error counts as both."""


class HasDescriptor(Protocol):
    def fileno(self) -> int: ...


Pollable = int | HasDescriptor


def capacity(selector: selectors.BaseSelector) -> int | None:
    """How many sockets of clients it can wait for at the same time; None: any number."""
    return SELECT_CAPACITY if isinstance(selector, selectors.SelectSelector) else None


def best() -> selectors.BaseSelector:
    """The best that this system has."""
    if sys.platform == "linux" and issubclass(selectors.DefaultSelector, selectors.EpollSelector):
        return Epoll()
    return selectors.DefaultSelector()


if sys.platform == "linux":
    _FLAGS = {READ: select.EPOLLIN, WRITE: select.EPOLLOUT, READ | WRITE: select.EPOLLIN | select.EPOLLOUT}
    # As `selectors` has it: all but "can be written" means that a read will tell, and the other way round.
    _EVENTS = [
        (READ if flags & ~select.EPOLLOUT else 0) | (WRITE if flags & ~select.EPOLLIN else 0)
        for flags in range((select.EPOLLIN | select.EPOLLOUT | select.EPOLLPRI | select.EPOLLERR | select.EPOLLHUP) + 1)
    ]
    _READABLE = select.EPOLLIN
    _make = tuple.__new__  # SelectorKey(...) without its cost

    class Epoll(selectors.EpollSelector):
        """Linux's epoll, level-triggered. What is registered stands in a list, by its descriptor."""

        _selector: select.epoll  # made by the base, which also closes it

        def __init__(self) -> None:
            super().__init__()
            self._keys: list[Any] = []  # of SelectorKey or None
            self._count = 0
            self._map: Any = _Registered(self)  # None once it is closed, as with all others

        def register(self, fileobj: Pollable, events: int, data: Any = None) -> SelectorKey:
            flags = _FLAGS.get(events) or _wrong(events)
            descriptor = fileobj if isinstance(fileobj, int) else fileobj.fileno()
            keys = self._keys
            if not 0 <= descriptor < len(keys):
                self._grow(fileobj, descriptor)
            elif keys[descriptor] is not None:
                raise KeyError(f"{fileobj!r} (descriptor {descriptor}) is already registered")
            self._selector.register(descriptor, flags)
            key: SelectorKey = _make(SelectorKey, (fileobj, descriptor, events, data))
            keys[descriptor] = key
            self._count += 1
            return key

        def modify(self, fileobj: Pollable, events: int, data: Any = None) -> SelectorKey:
            flags = _FLAGS.get(events) or _wrong(events)
            before = self._find(fileobj)
            descriptor = before.fd
            if events != before.events:
                self._selector.modify(descriptor, flags)
            key: SelectorKey = _make(SelectorKey, (before.fileobj, descriptor, events, data))
            self._keys[descriptor] = key
            return key

        def unregister(self, fileobj: Pollable) -> SelectorKey:
            key = self._find(fileobj)
            self._keys[key.fd] = None
            self._count -= 1
            with contextlib.suppress(OSError):  # it was closed before
                self._selector.unregister(key.fd)
            return key

        def select(self, timeout: float | None = None) -> list[tuple[SelectorKey, int]]:
            if timeout is not None and timeout < 0:
                timeout = 0  # for epoll, that would be without end
            keys = self._keys
            # All that are ready, and not the usual 1023: who is not heard in this turn may be called silent in it.
            return [
                (keys[number], READ if flags == _READABLE else _EVENTS[flags] & keys[number].events)
                for number, flags in self._selector.poll(timeout, self._count or 1)
            ]

        def get_map(self) -> Mapping[Pollable, SelectorKey]:
            registered: Mapping[Pollable, SelectorKey] = self._map
            return registered

        def close(self) -> None:
            super().close()
            self._keys.clear()
            self._count = 0
            self._map = None

        def _grow(self, fileobj: Pollable, descriptor: int) -> None:
            if descriptor < 0:
                raise ValueError(f"{fileobj!r} has no descriptor: it is closed")
            self._keys += [None] * (descriptor + 1 - len(self._keys))

        def _find(self, fileobj: Pollable) -> SelectorKey:
            """Also when it is closed, and has no descriptor any more. Raises KeyError."""
            descriptor = fileobj if isinstance(fileobj, int) else fileobj.fileno()
            keys = self._keys
            key: SelectorKey | None = keys[descriptor] if 0 <= descriptor < len(keys) else None
            if key is None:
                key = next((each for each in keys if each is not None and each.fileobj is fileobj), None)
            if key is None:
                raise KeyError(f"{fileobj!r} is not registered")
            return key

    class _Registered(Mapping[Pollable, SelectorKey]):
        """What `get_map` gives."""

        def __init__(self, selector: Epoll) -> None:
            self._selector = selector

        def __len__(self) -> int:
            return self._selector._count

        def __getitem__(self, fileobj: Pollable) -> SelectorKey:
            return self._selector._find(fileobj)

        def __iter__(self) -> Iterator[int]:
            return (key.fd for key in self._selector._keys if key is not None)

    def _wrong(events: int) -> int:
        raise ValueError(f"events must be READ, WRITE or both, not {events!r}")
