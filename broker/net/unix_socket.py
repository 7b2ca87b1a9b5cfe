"""Unix sockets: the file that clients find one by, and who they are.

Owns: making and removing that file. Must not know: MQTT, what becomes of a connection.

The file outlives a process that is killed. So one that is found is tried: if somebody listens, it stays; if nobody
does, it is replaced. Two that start at the same time must not take each other's for a dead one's: who looks, makes or
removes holds a lock on the directory meanwhile, which leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import struct
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

from ..os_reasons import reason

#: Seconds to wait for the lock: others hold it for a moment.
PATIENCE = 5.0

# Python on Windows has none of it, and on macOS no SO_PEERCRED.
_FAMILY: int | None = getattr(socket, "AF_UNIX", None)
_PEER_CREDENTIALS: int | None = getattr(socket, "SO_PEERCRED", None)
_CREDENTIALS = struct.Struct("3i")  # process, user, group


class Impossible(Exception):
    """It cannot be listened on. str() says what to do."""


class File(NamedTuple):
    """The file of a listening Unix socket."""

    path: str
    identity: tuple[int, int]

    @classmethod
    def of(cls, sock: socket.socket) -> File | None:
        """None: it is no Unix socket."""
        if _FAMILY is None or sock.family != _FAMILY:
            return None
        path = sock.getsockname()
        return cls(path, _identity(os.lstat(path)))

    def remove(self) -> None:
        """Remove it, unless another has taken its place."""
        with contextlib.suppress(OSError, Impossible), _locked(self.path):
            if _identity(os.lstat(self.path)) == self.identity:
                os.unlink(self.path)


def listen(path: str, mode: int, kind: type[socket.socket] = socket.socket) -> socket.socket:
    """A listening socket of class `kind`. Raises Impossible."""
    if _FAMILY is None:
        raise Impossible("Python has no Unix sockets on this system; use bind and port instead")
    sock = kind(_FAMILY, socket.SOCK_STREAM)
    try:
        with _locked(path):
            _make_room(path, _FAMILY)
            sock.bind(path)
            try:
                os.chmod(path, mode)  # nobody can have connected: only from the next line on it is possible
                sock.listen(4096)
            except OSError:
                os.unlink(path)
                raise
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise Impossible(advice(error, path)) from None
    except Impossible:
        sock.close()
        raise
    return sock


def peer_of(sock: socket.socket) -> tuple[str, str]:
    """Who has connected, by user, and by user and process: "unix:uid-1000", "unix:uid-1000:pid-4711"."""
    if _PEER_CREDENTIALS is None:
        return "unix", "unix:?"
    try:
        process, user, _ = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, _PEER_CREDENTIALS, _CREDENTIALS.size))
    except OSError:
        return "unix", "unix:?"
    host = f"unix:uid-{user}"
    return host, f"{host}:pid-{process}"


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def _make_room(path: str, family: int) -> None:
    """Remove a socket on which nobody listens. Raises Impossible, OSError."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise Impossible("there is a file that is no socket; remove it, or choose another path with --unix")
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # a queue that is full is an answer, too
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EPERM):
                raise
    raise Impossible("it is in use; stop the program that listens there, or choose another path with --unix")


@contextlib.contextmanager
def _locked(path: str) -> Iterator[None]:
    """Alone among those who do the same in this directory, where it may be locked."""
    if sys.platform == "win32":
        yield
        return
    import fcntl

    try:
        directory = os.open(os.path.dirname(path) or ".", os.O_RDONLY)
    except PermissionError:  # it may be entered, and not read
        yield
        return
    try:
        end = time.monotonic() + PATIENCE
        while True:
            try:
                fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= end:
                    raise Impossible("another program has locked the directory; choose another with --unix") from None
                time.sleep(0.01)
            except OSError:
                break  # not on every file system
        yield
    finally:
        os.close(directory)


def advice(error: OSError, path: str) -> str:
    directory = os.path.dirname(path)
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return f"there is no directory {directory}; create it, or choose another path with --unix"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"permission denied; this user must be allowed to write to {directory}, and to a socket that is there"
    if error.errno is None:  # Python itself: "AF_UNIX path too long"
        return f"{error}; choose a shorter one with --unix"
    return f"{reason(error)}; choose another path with --unix"
