"""A listening TCP or Unix socket: accepts connections, and keeps accepting when there are too many.

Owns: the listening socket, what happens when descriptors run out. Must not know: MQTT, what becomes of a connection.
"""

import contextlib
import errno
import functools
import os
import socket
from collections.abc import Callable

from ..addresses import plain
from ..os_reasons import reason
from . import unix_socket
from .loop import Loop
from .polling import READ

#: Connections accepted per turn, so that a rush of them does not hold up those who are there.
BATCH = 64
#: Seconds without accepting after descriptors ran out.
PAUSE = 0.5

_NO_DESCRIPTORS = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class ListenError(Exception):
    """The address cannot be listened on. str() is one line that says what to do."""


class _ListeningSocket(socket.socket):
    """`accept` asks for these two each time, and making the enums anew costs as much as a system call."""

    @functools.cached_property
    def family(self) -> socket.AddressFamily:
        return super().family

    @functools.cached_property
    def type(self) -> socket.SocketKind:
        return super().type


def listen(bind: str, port: int) -> socket.socket:
    """A listening TCP socket. `bind` is an address or a host name, `port` 0 for any free one.

    Raises ListenError.
    """
    where = f"[{bind}]:{port}" if ":" in bind else f"{bind}:{port}"
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            bind or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError) as error:  # UnicodeError: a part of the name is empty or too long
        raise ListenError(f"cannot listen on {where}: no such address ({reason(error)})") from None
    sock = _ListeningSocket(family, kind, protocol)
    try:
        if os.name == "posix":
            # Only there does it mean: though old connections linger. On Windows it would steal the port.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if bind == "::" else 1)
        _tune(sock)  # where connections inherit it, that is once for all of them
        sock.bind(address)
        sock.listen(4096)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise ListenError(f"cannot listen on {where}: {advice(error)}") from None
    return sock


def advice(error: OSError) -> str:
    """Why an address cannot be listened on, and what to do."""
    if error.errno == errno.EADDRINUSE:
        return "the port is taken; stop the program that holds it, or choose another with --port"
    if error.errno in (errno.EACCES, errno.EPERM):
        return "permission denied; ports below 1024 need privileges, choose another with --port"
    if error.errno == errno.EADDRNOTAVAIL:
        return "this machine has no such address; choose another with --bind"
    return reason(error)


def listen_unix(path: str, mode: int) -> socket.socket:
    """A listening Unix socket with these permissions; one that nobody listens on any more is replaced.

    Raises ListenError.
    """
    try:
        return unix_socket.listen(path, mode, _ListeningSocket)
    except unix_socket.Impossible as error:
        raise ListenError(f"cannot listen on unix:{path}: {error}") from None


def peer_name(host: str, port: int) -> str:
    """Address and port of a client, as the log has them."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _tune(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


def _is_tuned(sock: socket.socket) -> bool:
    no_delay = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    return bool(no_delay and sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))


class Listener:
    """Accepts what comes in on a listening socket."""

    def __init__(
        self,
        loop: Loop,
        sock: socket.socket,
        accepted: Callable[[socket.socket, str, str], None],
        starved: Callable[[str], None],
        later: Callable[[float, Callable[[], None]], None],
    ) -> None:
        """`accepted` gets each new socket with what others there may share (the peer's address, or its user), and with
        what is the peer's alone (with its port, or its process); `starved` hears that descriptors ran out;
        `later(seconds, function)` calls back."""
        self._loop = loop
        self._sock = sock
        self._file = unix_socket.File.of(sock)
        self._accepted = accepted
        self._starved = starved
        self._later = later
        self._watched = True
        self._closed = False
        # Do connections have the options of the listening socket? A Unix socket needs none.
        self._inherited = None if self._file is None else True
        loop.register(sock, READ, self)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port that it listens on; of a Unix socket its path, and 0."""
        if self._file is not None:
            return self._file.path, 0
        name = self._sock.getsockname()
        return name[0], name[1]

    def __str__(self) -> str:
        """As ListenerConfig.address, with the port that was free."""
        host, port = self.address
        return f"unix:{host}" if self._file is not None else peer_name(host, port)

    def ready(self, events: int, now: float) -> None:
        for _ in range(BATCH):
            try:
                sock, address = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _NO_DESCRIPTORS:
                    self._starved(f"cannot accept a connection: {reason(error)}")
                    return
                self._starved(f"no more connections for now: {reason(error)}")
                self._loop.unregister(self._sock)
                self._watched = False
                self._later(PAUSE, self._resume)
                return
            sock.setblocking(False)
            if not self._inherited:
                if self._inherited is None:
                    self._inherited = _is_tuned(sock)
                _tune(sock)
            if self._file is not None:
                host, peer = unix_socket.peer_of(sock)
            else:
                host = plain(address[0])
                peer = peer_name(host, address[1])
            self._accepted(sock, host, peer)

    def _resume(self) -> None:
        if not self._closed:
            self._loop.register(self._sock, READ, self)
            self._watched = True

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._watched:
            self._loop.unregister(self._sock)
        if self._file is not None:
            self._file.remove()  # before another may find it without anybody who listens
        # A process that was forked from this one has a copy, which close() would leave listening. macOS objects.
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()
