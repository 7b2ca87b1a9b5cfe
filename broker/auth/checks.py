"""Whose password is checked next: nobody keeps a whole broker from letting others in.

Owns: who waits for a check, by the address they come from. Must not know: passwords, connections, threads.

A check costs a worker thread a tenth of a second or more, and whoever reaches the broker can ask for one. So addresses
take turns, each has half of the threads at the most, and a limited number of its clients wait; more are told to come
back later. Nothing is made slower by failures: who shares an address with a guesser would pay for that, and what a
guess costs is decided by the number of iterations in the password file.
"""

from collections import deque
from collections.abc import Callable
from ipaddress import IPv6Address
from typing import Any

Job = Callable[[], Any]
Done = Callable[[Any, Exception | None], None]

#: Clients of an address that wait for a check. Each keeps its CONNECT in memory.
MAX_WAITING = 256


class Checks:
    """Lets checks run elsewhere, a few at a time. For the loop's thread."""

    def __init__(self, submit: Callable[[Job, Done], None], at_once: int) -> None:
        """`submit` runs a job elsewhere and calls back with its result or its exception; `at_once` of them run."""
        self._submit = submit
        self._at_once = at_once
        self._share = max(1, at_once // 2)
        self._waiting: dict[
            str, deque[tuple[Job, Done]]
        ] = {}  # by origin, in the order of their turns; no queue is empty
        self._running: dict[str, int] = {}  # by origin; none is 0

    def submit(self, job: Job, done: Done, peer: str) -> bool:
        """Run `job` when it is the turn of who asks for it, `peer` (its address and port). False: too many wait."""
        origin = origin_of(peer)
        queue = self._waiting.setdefault(origin, deque())
        if len(queue) >= MAX_WAITING:
            return False
        queue.append((job, done))
        self._start()
        return True

    def _start(self) -> None:
        """Run what may run now."""
        while sum(self._running.values()) < self._at_once:
            origin = next((one for one in self._waiting if self._running.get(one, 0) < self._share), None)
            if origin is None:
                return
            queue = self._waiting.pop(origin)
            self._run(origin, *queue.popleft())
            if queue:
                self._waiting[origin] = queue  # behind all others

    def _run(self, origin: str, job: Job, done: Done) -> None:
        self._running[origin] = self._running.get(origin, 0) + 1

        def finished(result: Any, error: Exception | None) -> None:
            self._running[origin] -= 1
            if not self._running[origin]:
                del self._running[origin]
            self._start()
            done(result, error)

        self._submit(job, finished)


def origin_of(peer: str) -> str:
    """What is one place, though it may have many addresses: a host in IPv4, a network of 64 bits in IPv6."""
    host = peer.rpartition(":")[0]
    if not host.startswith("["):
        return host
    try:
        address = IPv6Address(host[1:-1])
    except ValueError:
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return address.packed[:8].hex(":", 2)
