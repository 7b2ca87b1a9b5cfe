"""One client's socket: reading blocks of bytes, sending what has been produced.

Owns: the socket, what is unsent, when to wait for it to become writable. Must not know: MQTT.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from typing import Protocol

from ..os_reasons import reason
from .loop import Loop
from .polling import READ, WRITE
from .unsent import LARGE, Unsent

#: Bytes read at a time; and from a client that fills that, as large packets are copied less often then.
BLOCK = 65_536
BIG_BLOCK = 262_144
#: The same in a crowd: what all of them send at once must not add up to a long turn.
SMALL_BLOCK = 8_192
#: Buffers that one system call takes (IOV_MAX is 1024 on Linux and macOS).
VECTOR = 512

_HAS_SENDMSG = hasattr(socket.socket, "sendmsg")  # Windows has none


class Client(Protocol):
    """Who is at the other end of a transport (broker.core.connection)."""

    def receive(self, data: bytes, now: float) -> None: ...

    def congest(self, waiting: int) -> None:
        """More waits than the limit. Told again whenever something is added."""

    def relieve(self) -> None:
        """No more waits than half the limit. Told again whenever something is sent."""

    def progress(self, now: float) -> None:
        """Some of what was unsent is sent."""

    def lost(self, why: str) -> None: ...


class Below(Protocol):
    """What a layer (tls, ws) stands on: a transport, or another layer."""

    client: Client | None
    out: list[bytes]
    peer: str
    max_unsent: int  #: bytes that may wait before the client is told to hold back

    @property
    def identity(self) -> str | None: ...
    @property
    def unsent(self) -> int: ...
    def flush(self) -> None: ...
    def close(self, gently: bool = True) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...


class Transport:
    """A TCP connection without blocking. `out` is filled by the client's side; `flush` sends it."""

    __slots__ = (
        "_block", "_closed", "_events", "_loop", "_on_close", "_sock", "_unsent", "client", "max_unsent", "out", "peer",
    )  # fmt: skip

    #: Who the other end has proved to be: nothing is proved without TLS (broker.net.tls).
    identity: str | None = None

    def __init__(
        self, loop: Loop, sock: socket.socket, peer: str, max_unsent: int, on_close: Callable[[Transport], None]
    ) -> None:
        """`max_unsent`: bytes that may wait before the client is told to hold back (Unsent.waiting)."""
        self._loop = loop
        self._sock = sock
        self.max_unsent = max_unsent
        self._on_close = on_close
        self._block = BLOCK
        self._closed = False
        self._events = READ
        self._unsent: Unsent | None = None  # what the system did not take yet
        self.client: Client | None = None
        self.out: list[bytes] = []
        self.peer = peer
        loop.register(sock, READ, self)

    # --- the loop calls ---

    def ready(self, events: int, now: float) -> None:
        client = self.client
        if client is None:
            return
        try:
            if events & WRITE and self._unsent is not None and self._send_unsent():
                client.progress(now)
            if events & READ and self._events & READ:
                try:
                    data = self._sock.recv(SMALL_BLOCK if self._loop.crowded else self._block)
                except (BlockingIOError, InterruptedError):
                    return
                except OSError as error:
                    self._lose(f"network error: {reason(error)}")
                    return
                except MemoryError:
                    if self._loop.no_memory():  # what should be read is still there
                        return
                    raise
                if data:
                    self._block = BIG_BLOCK if len(data) >= BLOCK else BLOCK
                    client.receive(data, now)
                else:
                    self._lose("closed by the client without DISCONNECT")
        except MemoryError:
            self._lose("no memory is left for what this client sends")
            self._loop.no_memory()
        except Exception:
            # A bug, in whatever layer: it ends this connection, which would bring it about again.
            self._lose("a bug in the broker")
            raise

    def flush(self) -> None:
        """Send what is in `out`, as far as the system takes it."""
        out = self.out
        if not out or self._closed:
            return
        if self._unsent is not None:
            self._unsent.add(out)
            out.clear()
            self._check_congestion(self._unsent)
            return
        try:
            if len(out) == 1:
                data = out[0]
                size = len(data)
                sent = self._sock.send(data)
            elif _HAS_SENDMSG and len(out[-1]) >= LARGE and len(out) <= VECTOR:
                size = sum(map(len, out))
                sent = self._sock.sendmsg(out)
            else:
                data = b"".join(out)
                size = len(data)
                sent = self._sock.send(data)
        except (BlockingIOError, InterruptedError):
            size = sum(map(len, out))
            sent = 0
        except OSError as error:
            out.clear()
            self._lose_soon(f"network error: {reason(error)}")
            return
        self._loop.bytes_sent += sent
        if sent < size:
            self._unsent = Unsent(self.max_unsent, self._loop.backlog)
            self._unsent.add(out)
            self._unsent.take(sent)
            self._watch(self._events | WRITE)
            self._check_congestion(self._unsent)
        out.clear()

    def _send_unsent(self) -> bool:
        """Send more of what is unsent. False if nothing was sent, or the connection was lost."""
        unsent = self._unsent
        assert unsent is not None
        try:
            sent = self._sock.sendmsg(unsent.first(VECTOR)) if _HAS_SENDMSG else self._sock.send(unsent.first(1)[0])
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            self._lose(f"network error: {reason(error)}")
            return False
        self._loop.bytes_sent += sent
        unsent.take(sent)
        if not unsent.size:
            unsent.drop()
            self._unsent = None
            self._watch(self._events & ~WRITE)
        if unsent.waiting <= self.max_unsent // 2:
            assert self.client is not None
            self.client.relieve()
        return sent > 0

    def _check_congestion(self, unsent: Unsent) -> None:
        waiting = unsent.waiting
        if waiting > min(self.max_unsent, self._loop.backlog.part) and self.client is not None:
            self.client.congest(waiting)

    # --- the client's side calls ---

    @property
    def unsent(self) -> int:
        """Bytes that the system has not taken yet."""
        return 0 if self._unsent is None else self._unsent.size

    def pause_reading(self) -> None:
        self._watch(self._events & ~READ)

    def resume_reading(self) -> None:
        self._watch(self._events | READ)

    def close(self, gently: bool = True) -> None:
        """Send what the system takes at once, and close. `gently`: so that it really arrives."""
        if self._closed:
            return
        if self._unsent is None and self.out:
            with contextlib.suppress(OSError):
                self._loop.bytes_sent += self._sock.send(b"".join(self.out))
        self._closed = True
        self.out.clear()
        if self._unsent is not None:
            self._unsent.drop()
            self._unsent = None
        if self._events:
            self._loop.unregister(self._sock)
            self._events = 0
        with contextlib.suppress(OSError):
            # Always: a process that was forked from this one has a copy of the socket, for which close() would wait.
            self._sock.shutdown(socket.SHUT_WR if gently else socket.SHUT_RDWR)
            # Closing with unread data would reset the connection, and the client might lose what was sent just now.
            if gently and len(self._sock.recv(BLOCK)) == BLOCK:
                self._sock.recv(BLOCK)
        self._sock.close()
        self.client = None
        self._on_close(self)

    # --- the rest ---

    def _watch(self, events: int) -> None:
        if events == self._events or self._closed:
            return
        if not self._events:
            self._loop.register(self._sock, events, self)
        elif not events:
            self._loop.unregister(self._sock)
        else:
            self._loop.modify(self._sock, events, self)
        self._events = events

    def _lose(self, why: str) -> None:
        client = self.client
        try:
            if client is not None:
                client.lost(why)
        finally:
            self.close(gently=False)

    def _lose_soon(self, why: str) -> None:
        """As `flush` runs while others wait for theirs, the consequences of a loss have to wait for the next turn."""
        self._watch(0)
        self._loop.in_turn(lambda: self._lose(why))
