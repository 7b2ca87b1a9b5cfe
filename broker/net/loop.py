"""The event loop: waits for sockets, deadlines and posted calls, and gives each its turn.

Owns: the wake-up, the order of things within a turn. Must not know: MQTT, or what its callbacks do.

A turn: wait; every ready socket, as far as there is time; what other threads posted; those who go on where they had to
stop, as far as there is time; what is due; `before_sleep` (where the program sends what it has produced). `post` is the
one door for other threads.
"""

import contextlib
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from .fairness import Fairness
from .polling import READ, Ready, best, capacity
from .unsent import Backlog

#: Ready sockets that are always served within one turn; and seconds of a turn for more than that.
FEW = 32
SERVING = 0.007

#: Bytes that the C library keeps for the next block to be read. At first it gets blocks of 128 KiB and more from the
#: system, and gives each back at once, which costs more than all the copying; but it learns from one that is freed.
KEPT = 4 << 20


#: Sockets that are ready at the same time: where there are more, each should take little.
CROWD = 64

#: Seconds after which a turn is late: from then on, those who could take much should take little.
LATE = 0.005
#: Seconds of a turn for those who go on where they had to stop; one of them goes on in any case.
ROUND = 0.004


#: Seconds that it waits at the most: some systems refuse to wait for weeks.
LONGEST = 3600.0


class Deadlines(Protocol):
    """What is due when (broker.core.timers)."""

    now: float

    def next_due(self) -> float | None: ...
    def run(self, now: float) -> None: ...


class Loop:
    """One thread's event loop. All but `post` and `stop` is for that thread only."""

    def __init__(
        self,
        deadlines: Deadlines,
        failed: Callable[[BaseException], None],
        selector: selectors.BaseSelector | None = None,
    ) -> None:
        """`failed` hears of exceptions that callbacks let through: bugs. The loop goes on. `selector`: closed by
        `close`; None: the best that this system has."""
        self._selector = best() if selector is None else selector
        self._deadlines = deadlines
        self._failed = failed
        self._posted: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._lock = threading.Lock()
        self._wakened = False
        # A socket pair, as Windows can wait for nothing else.
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._wake_reader.setblocking(False)
        self._wake_writer.setblocking(False)
        self._selector.register(self._wake_reader, READ, self)
        self._soon: list[Callable[[], None]] = []
        self._round: deque[Callable[[], None]] = deque()
        self._sockets: Fairness[Ready] = Fairness(SERVING)
        self._newcomers: set[Ready] = set()  # nothing was heard of them yet
        self._stopping = False
        self.crowded = False  #: are so many sockets ready in this turn that each should take little?
        #: Hears how many sockets are ready in this turn, where they are many, and in the first turn with few again.
        self.crowd: Callable[[int], None] = lambda ready: None
        self.backlog = Backlog()  #: what all its sockets have not taken yet
        self.bytes_sent = 0  #: by all its sockets: counted once a system call
        #: Called at the end of each turn. True: it has more to do, so the next turn shall begin at once.
        self.before_sleep: Callable[[], bool | None] = lambda: None
        #: The system gives no more memory: frees some, or returns False.
        self.no_memory: Callable[[], bool] = lambda: False

    # --- sockets ---

    @property
    def capacity(self) -> int | None:
        """How many sockets it can wait for at the same time; None: any number."""
        return capacity(self._selector)

    def register(self, sock: socket.socket, events: int, handler: Ready) -> None:
        self._selector.register(sock, events, handler)
        self._newcomers.add(handler)

    def modify(self, sock: socket.socket, events: int, handler: Ready) -> None:
        self._selector.modify(sock, events, handler)

    def unregister(self, sock: socket.socket) -> None:
        self._newcomers.discard(self._selector.unregister(sock).data)

    # --- calls ---

    def soon(self, function: Callable[[], None]) -> None:
        """Call `function` in the next turn."""
        self._soon.append(function)

    def in_turn(self, function: Callable[[], None]) -> None:
        """Call `function` when all who have waited longer had their turn: it goes on with long work, and may ask again.

        All of them together get ROUND seconds of a turn, so however many there are, others are served in time."""
        self._round.append(function)

    @property
    def late(self) -> bool:
        """Does this turn take long already?"""
        return time.monotonic() - self._deadlines.now > LATE

    @property
    def heard_until(self) -> float:
        """What came before this time was heard: later, somebody may have sent something that waits for its turn."""
        left = self._sockets.left
        return next(iter(left.values())) if left else self._deadlines.now

    def post(self, function: Callable[..., None], *args: Any) -> None:
        """Call `function(*args)` on the loop's thread. From any thread."""
        with self._lock:
            self._posted.append((function, args))
            wake = not self._wakened
            self._wakened = True
        if wake:
            self.wake()

    def wake(self) -> None:
        """End the wait. Safe in a signal handler."""
        with contextlib.suppress(OSError):  # full: it is awake anyway; closed: it is over
            self._wake_writer.send(b"\0")

    @property
    def wake_descriptor(self) -> int:
        """For signal.set_wakeup_fd."""
        return self._wake_writer.fileno()

    def stop(self) -> None:
        """End `run` after the present turn. From any thread."""
        self._stopping = True
        self.wake()

    # --- the turns ---

    def run(self) -> None:
        """Run turns until `stop`."""
        bytes(KEPT)
        wait = self._selector.select
        deadlines = self._deadlines
        monotonic = time.monotonic
        more: bool | None = False
        many = False
        while not self._stopping:
            if more or self._soon or self._posted or self._round or self._sockets.left:
                timeout: float | None = 0.0
            else:
                due = deadlines.next_due()
                timeout = None if due is None else min(max(0.0, due - monotonic()), LONGEST)
            ready = wait(timeout)
            now = deadlines.now = monotonic()
            self.crowded = len(ready) > CROWD
            if len(ready) > FEW:
                many = True
                self.crowd(len(ready))
                self._serve_many(ready, now)
            else:
                if many:
                    many = False
                    self.crowd(len(ready))
                self._sockets.rest(now)
                if self._newcomers:
                    self._newcomers.difference_update([key.data for key, _ in ready])
                for key, events in ready:
                    try:
                        key.data.ready(events, now)
                    except Exception as error:
                        self._failed(error)
            if self._posted:
                self._run_posted()
            if self._soon:
                soon, self._soon = self._soon, []
                for function in soon:
                    self._call(function)
            if self._round:
                self._go_round()
            due = deadlines.next_due()
            if due is not None and due <= now:
                self._call(deadlines.run, now)
            more = self._call(self.before_sleep)

    def _serve_many(self, ready: list[tuple[selectors.SelectorKey, int]], now: float) -> None:
        """Hear as many of them as there is time for in this turn: the system tells of the others again."""
        events: dict[Ready, int] = {key.data: event for key, event in ready}
        if len(events) < len(ready):  # kqueue tells READ and WRITE one by one
            for key, event in ready:
                events[key.data] |= event
        if events.pop(self, 0):
            self.ready(READ, now)

        def serve(handler: Ready) -> None:
            self._newcomers.discard(handler)
            try:
                handler.ready(events[handler], now)
            except Exception as error:
                self._failed(error)

        # Newcomers in the order in which they came: of two CONNECTs of a client, the later one is the one that counts.
        self._sockets.serve(events, serve, now, self._newcomers)

    def _go_round(self) -> None:
        """Let those go on who wait for their turn, each once at the most, until the time is up."""
        waiting = self._round
        end = time.monotonic() + ROUND
        for _ in range(len(waiting)):
            self._call(waiting.popleft())
            if time.monotonic() >= end:
                return

    def _run_posted(self) -> None:
        with self._lock:
            posted = list(self._posted)
            self._posted.clear()
            self._wakened = False
        for function, args in posted:
            self._call(function, *args)

    def _call(self, function: Callable[..., bool | None], *args: Any) -> bool | None:
        try:
            return function(*args)
        except Exception as error:
            self._failed(error)
            return None

    def ready(self, events: int, now: float) -> None:
        """It was woken."""
        with contextlib.suppress(BlockingIOError):
            while self._wake_reader.recv(4096):
                pass

    def close(self) -> None:
        """Free the descriptors. What is still registered is its owner's to close."""
        self._selector.close()
        self._wake_reader.close()
        self._wake_writer.close()
