"""A listening TCP or Unix socket: accepts connections, and keeps accepting when there are too many.

Owns: the listening socket, what happens when descriptors run out. Must not know: MQTT, what becomes of a connection.
"""

import contextlib
import errno
import functools
import os
import socket
from collections.abc import Callable, Sequence

from ..addresses import plain
from ..os_reasons import reason
from . import unix_socket
from .endpoints import Endpoint, ListenError
from .loop import Loop
from .polling import READ

#: Connections accepted per turn, so that a rush of them does not hold up those who are there.
BATCH = 32
#: Seconds without accepting after descriptors ran out.
PAUSE = 0.5

#: How often a port is sought that is free on all addresses of a name.
ATTEMPTS = 20

_NO_DESCRIPTORS = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
#: An address that another machine has, or a family that is switched off.
NOT_HERE = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}


class _ListeningSocket(socket.socket):
    """`accept` asks for these two each time, and making the enums anew costs as much as a system call."""

    @functools.cached_property
    def family(self) -> socket.AddressFamily:
        return super().family

    @functools.cached_property
    def type(self) -> socket.SocketKind:
        return super().type


def listen_on(endpoints: Sequence[Endpoint]) -> list[socket.socket]:
    """Listening TCP sockets on all of these; port 0 becomes a free one, the same for all.

    What comes from a name and this machine does not have is left out, if there is another. Raises ListenError.
    """
    for attempt in range(ATTEMPTS):
        sockets: list[socket.socket] = []
        missing: list[ListenError] = []
        try:
            for endpoint in endpoints:
                port = sockets[0].getsockname()[1] if sockets else endpoint.port
                try:
                    sockets.append(_listen(endpoint, port))
                except OSError as error:
                    told = ListenError(f"cannot listen on {endpoint}: {advice(error)}")
                    if not endpoint.named or error.errno not in NOT_HERE:
                        raise told from error
                    missing.append(told)
            if not sockets:
                raise missing[0]
        except ListenError as error:
            for sock in sockets:
                sock.close()
            # The port that was free for the first address is taken on another one.
            again = sockets and not endpoints[0].port and getattr(error.__cause__, "errno", 0) == errno.EADDRINUSE
            if not again or attempt + 1 == ATTEMPTS:
                raise error from None
        else:
            return sockets
    raise AssertionError  # the last attempt returns or raises


def _listen(endpoint: Endpoint, port: int) -> socket.socket:
    sock = bound(endpoint, port)
    try:
        sock.listen(4096)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


def bound(endpoint: Endpoint, port: int) -> socket.socket:
    """A socket that has this address, and does not listen yet. Raises OSError."""
    sock = _ListeningSocket(endpoint.family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":
            # Only there does it mean: though old connections linger. On Windows it would steal the port.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if endpoint.family == socket.AF_INET6:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, endpoint.alone)
        _tune(sock)  # where connections inherit it, that is once for all of them
        host, _, *rest = endpoint.address
        sock.bind((host, port, *rest))
    except OSError:
        sock.close()
        raise
    return sock


def advice(error: OSError) -> str:
    """Why an address cannot be listened on, and what to do."""
    if error.errno == errno.EADDRINUSE:
        return "the port is in use; stop the program that uses it, or choose another with --port"
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
        starved: Callable[[str], bool],
        later: Callable[[float, Callable[[], None]], None],
    ) -> None:
        """`accepted` gets each new socket with what others there may share (the peer's address, or its user), and with
        what is the peer's alone (with its port, or its process); `starved` hears that descriptors ran out, and
        tells whether there are some again; `later(seconds, function)` calls back."""
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
                if self._starved(f"no more connections for now: {reason(error)}"):
                    continue
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
