"""Waiting for many sockets: what Python's `selectors` gives, and on Linux the same without its cost.

Owns: the choice of the system call, and who is registered for which socket. Must not know: what is done with an event.

On Linux, `selectors.EpollSelector` would do the same. But for each event it computes in Python what one look into a
table says, and for each registration it makes a record that nobody here reads.
"""

from __future__ import annotations

import select
import selectors
import socket
import sys
from typing import Protocol

READ = selectors.EVENT_READ
WRITE = selectors.EVENT_WRITE

#: Where there is only `select`, it fails with more than 512 sockets: those of clients, and a few of our own.
SELECT_CAPACITY = 500


class Ready(Protocol):
    """What is registered for a socket."""

    def ready(self, events: int, now: float) -> None:
        """The socket can be read (READ) or written (WRITE), or both; an error counts as both, asked for or not."""


class Poller(Protocol):
    """Knows for each socket what it is waited for, and who hears of it."""

    #: How many sockets it can wait for at the same time; None: any number.
    capacity: int | None

    def register(self, sock: socket.socket, events: int, handler: Ready | None) -> None: ...
    def modify(self, sock: socket.socket, events: int, handler: Ready | None) -> None: ...
    def unregister(self, sock: socket.socket) -> None:
        """Before the socket is closed."""

    def wait(self, timeout: float | None) -> list[tuple[Ready | None, int]]:
        """Handlers and events of the sockets that are ready. `timeout`: in seconds; None: for as long as it takes."""

    def close(self) -> None: ...


class Portable:
    """Whatever `selectors` takes for the best on this system."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self.capacity = SELECT_CAPACITY if isinstance(self._selector, selectors.SelectSelector) else None

    def register(self, sock: socket.socket, events: int, handler: Ready | None) -> None:
        self._selector.register(sock, events, handler)

    def modify(self, sock: socket.socket, events: int, handler: Ready | None) -> None:
        self._selector.modify(sock, events, handler)

    def unregister(self, sock: socket.socket) -> None:
        self._selector.unregister(sock)

    def wait(self, timeout: float | None) -> list[tuple[Ready | None, int]]:
        return [(key.data, events) for key, events in self._selector.select(timeout)]

    def close(self) -> None:
        self._selector.close()


if sys.platform == "linux":
    _FLAGS = (0, select.EPOLLIN, select.EPOLLOUT, select.EPOLLIN | select.EPOLLOUT)  # by READ (1) and WRITE (2)
    # As `selectors` has it: all but "can be written" means that a read will tell, and the other way round.
    _EVENTS = [
        (READ if flags & ~select.EPOLLOUT else 0) | (WRITE if flags & ~select.EPOLLIN else 0)
        for flags in range((select.EPOLLIN | select.EPOLLOUT | select.EPOLLPRI | select.EPOLLERR | select.EPOLLHUP) + 1)
    ]

    class Epoll:
        """Linux's epoll, level-triggered."""

        capacity: int | None = None

        def __init__(self) -> None:
            self._epoll = select.epoll()
            self._handlers: dict[int, Ready | None] = {}

        def register(self, sock: socket.socket, events: int, handler: Ready | None) -> None:
            descriptor = sock.fileno()
            self._epoll.register(descriptor, _FLAGS[events])
            self._handlers[descriptor] = handler

        def modify(self, sock: socket.socket, events: int, handler: Ready | None) -> None:
            descriptor = sock.fileno()
            self._epoll.modify(descriptor, _FLAGS[events])
            self._handlers[descriptor] = handler

        def unregister(self, sock: socket.socket) -> None:
            descriptor = sock.fileno()
            del self._handlers[descriptor]
            self._epoll.unregister(descriptor)

        def wait(self, timeout: float | None) -> list[tuple[Ready | None, int]]:
            handlers = self._handlers
            # All that are ready, and not the usual 1023: who is not heard in this turn may be called silent in it.
            ready = self._epoll.poll(timeout, len(handlers) or 1)
            return [(handlers[descriptor], _EVENTS[flags]) for descriptor, flags in ready]

        def close(self) -> None:
            self._epoll.close()


def poller() -> Poller:
    """The best that this system has."""
    if sys.platform == "linux" and issubclass(selectors.DefaultSelector, selectors.EpollSelector):
        return Epoll()
    return Portable()
