"""One client's socket: reading blocks of bytes, sending what has been produced.

Owns: the socket, what is unsent, when to wait for it to become writable. Must not know: MQTT.
"""

from __future__ import annotations

import contextlib
import socket
from collections import deque
from collections.abc import Callable
from typing import Protocol

from .loop import Loop
from .polling import READ, WRITE

#: Bytes read at a time; and from a client that fills that, as large packets are copied less often then.
BLOCK = 65_536
BIG_BLOCK = 262_144
#: Frames of this size are not copied together before they are sent.
LARGE = 8_192
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
        "_block", "_closed", "_events", "_large", "_loop", "_max_unsent", "_on_close", "_sock", "_taken", "_unsent",
        "_unsent_size", "client", "out", "peer",
    )  # fmt: skip

    #: Who the other end has proved to be: nothing is proved without TLS (broker.net.tls).
    identity: str | None = None

    def __init__(
        self, loop: Loop, sock: socket.socket, peer: str, max_unsent: int, on_close: Callable[[Transport], None]
    ) -> None:
        """`max_unsent`: bytes that may wait before the client is told to hold back. One large frame does not count: the
        one under way, or the next. So a frame alone is never too much, however large it is."""
        self._loop = loop
        self._sock = sock
        self._max_unsent = max_unsent
        self._on_close = on_close
        self._block = BLOCK
        self._closed = False
        self._events = READ
        self._unsent: list[bytes | memoryview] | None = None  # what the system did not take yet
        self._unsent_size = 0
        # Where large frames lie among what is unsent: begin and end of each, as `_taken` counts.
        self._large: deque[tuple[int, int]] | None = None
        self._taken = 0  # bytes that the system has taken since something was unsent
        self.client: Client | None = None
        self.out: list[bytes] = []
        self.peer = peer
        loop.register(sock, READ, self)

    # --- the loop calls ---

    def ready(self, events: int, now: float) -> None:
        client = self.client
        if client is None:
            return
        if events & WRITE and self._unsent is not None:
            before = self._unsent_size
            if self._send_unsent() and self._unsent_size < before:
                client.progress(now)
        if events & READ and self._events & READ:
            try:
                data = self._sock.recv(self._block)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self._lose(f"network error: {error.strerror or error}")
                return
            if data:
                self._block = BIG_BLOCK if len(data) >= BLOCK else BLOCK
                client.receive(data, now)
            else:
                self._lose("closed by the client without DISCONNECT")

    def flush(self) -> None:
        """Send what is in `out`, as far as the system takes it."""
        out = self.out
        if not out or self._closed:
            return
        if self._unsent is not None:
            self._note_large(self._taken + self._unsent_size)
            data = b"".join(out)
            out.clear()
            self._unsent.append(data)
            self._unsent_size += len(data)
            self._check_congestion()
            return
        try:
            if len(out) == 1:
                data = out[0]
                size = len(data)
                sent = self._sock.send(data)
            elif _HAS_SENDMSG and len(out[-1]) >= LARGE and len(out) <= VECTOR:
                size = sum(map(len, out))
                sent = self._sock.sendmsg(out)
                if sent < size:
                    data = b"".join(out)
            else:
                data = b"".join(out)
                size = len(data)
                sent = self._sock.send(data)
        except (BlockingIOError, InterruptedError):
            data = b"".join(out)
            size = len(data)
            sent = 0
        except OSError as error:
            out.clear()
            self._lose_soon(f"network error: {error.strerror or error}")
            return
        self._loop.bytes_sent += sent
        if sent < size:
            self._note_large(0)
            self._taken = sent
            out.clear()
            self._unsent = [memoryview(data)[sent:]]
            self._unsent_size = size - sent
            self._watch(self._events | WRITE)
            self._check_congestion()
        else:
            out.clear()

    def _send_unsent(self) -> bool:
        """Send more of what is unsent. False if the connection was lost."""
        unsent = self._unsent
        assert unsent is not None
        try:
            sent = self._sock.sendmsg(unsent[:VECTOR]) if _HAS_SENDMSG else self._sock.send(unsent[0])
        except (BlockingIOError, InterruptedError):
            return True
        except OSError as error:
            self._lose(f"network error: {error.strerror or error}")
            return False
        self._loop.bytes_sent += sent
        self._unsent_size -= sent
        self._taken += sent
        done = 0
        for buffer in unsent:
            if sent < len(buffer):
                break
            sent -= len(buffer)
            done += 1
        del unsent[:done]
        if unsent:
            if sent:
                unsent[0] = memoryview(unsent[0])[sent:]
        else:
            self._unsent = None
            self._large = None
            self._watch(self._events & ~WRITE)
        if self._waiting() <= self._max_unsent // 2:
            assert self.client is not None
            self.client.relieve()
        return True

    # --- how much waits ---

    def _note_large(self, begin: int) -> None:
        """Note where the large frames in `out` come to lie, when its first byte lies at `begin`."""
        least = min(LARGE, self._max_unsent)
        for frame in self.out:
            end = begin + len(frame)
            if end - begin >= least:
                if self._large is None:
                    self._large = deque()
                self._large.append((begin, end))
            begin = end

    def _waiting(self) -> int:
        """Bytes that are unsent, but for what is left of the first large frame."""
        large = self._large
        while large:
            begin, end = large[0]
            if end > self._taken:
                return self._unsent_size - (end - max(begin, self._taken))
            large.popleft()
        return self._unsent_size

    def _check_congestion(self) -> None:
        waiting = self._waiting()
        if waiting > self._max_unsent and self.client is not None:
            self.client.congest(waiting)

    # --- the client's side calls ---

    @property
    def unsent(self) -> int:
        """Bytes that the system has not taken yet."""
        return self._unsent_size

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
        self._unsent = self._large = None
        self._unsent_size = 0
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
        if client is not None:
            client.lost(why)
        self.close(gently=False)

    def _lose_soon(self, why: str) -> None:
        """As `flush` runs while others wait for theirs, the consequences of a loss have to wait for the next turn."""
        self._watch(0)
        self._loop.soon(lambda: self._lose(why))
