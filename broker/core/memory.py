"""What is held in memory for clients, in parts, and how much each part may hold.

Owns: the shares of `max_memory`, and what is told when one is used up. Must not know: who holds what, or how it is
freed.

A part counts what it holds in its own way, where it is added and removed; nothing is ever added up by looking at all.
The shares add up to the whole, so a part that is full takes nothing from the others: whoever floods one of them does
not keep clients from what they need of another.
"""

from __future__ import annotations

from .limits import Limits
from .ports import Log

#: The share of each part, in eighths.
SHARES = {"incoming": 1, "unsent": 2, "queues": 2, "subscriptions": 1, "retained": 1, "clients": 1}
WHOLE = 8
#: Of a share, what must be free again before the next time it is full is told.
RELIEF = 8

#: Bytes that a session takes, and a connection, beside the texts that they hold: measured in CPython 3.11.
SESSION = 700
CONNECTION = 2_300

_TOLD = {
    "incoming": "too much memory in packets that are not whole: connections that hold the most are closed",
    "unsent": "too much memory in what clients do not read: connections that read least are closed",
    "queues": "too much memory in waiting messages: those for clients with CleanSession = 1 are dropped",
    "subscriptions": "too much memory in subscriptions: further ones are refused",
    "retained": "too much memory in retained messages: further ones are delivered, but not kept",
    "clients": "too much memory in sessions and connections: further clients are refused",
}


class Part:
    """One part. `size` may be changed by whoever holds what it counts."""

    __slots__ = ("_full", "_log", "limit", "name", "refused", "size")

    def __init__(self, name: str, log: Log) -> None:
        self.name = name
        self._log = log
        self.size = 0  #: bytes
        self.limit = 0
        self.refused = 0  #: how often there was no room
        self._full = False

    def full(self, more: int = 0) -> bool:
        """Is there no room for so many bytes more? Counted and told, so ask where something follows from it."""
        if self.size + more > self.limit:
            self.refused += 1
            if not self._full:
                self._full = True
                self._log.warning(_TOLD[self.name], bytes=self.size, limit=self.limit, option="max_memory")
            return True
        if self._full and self.size <= self.limit - self.limit // RELIEF:
            self._full = False
        return False


class Memory:
    """All parts."""

    def __init__(self, limits: Limits, log: Log) -> None:
        self._limits = limits
        self.parts = {name: Part(name, log) for name in SHARES}
        self.incoming = self.parts["incoming"]  #: packets that are not whole, or not decoded
        self.unsent = self.parts["unsent"]  #: what clients have not taken yet
        self.queues = self.parts["queues"]  #: messages that wait in memory
        self.subscriptions = self.parts["subscriptions"]
        self.retained = self.parts["retained"]
        self.clients = self.parts["clients"]  #: sessions and connections
        self.limits_changed()

    def limits_changed(self) -> None:
        """The limits are other ones."""
        for name, part in self.parts.items():
            part.limit = self._limits.max_memory * SHARES[name] // WHOLE

    @property
    def most_in_queue(self) -> int:
        """Bytes that may wait in one queue."""
        return max(1 << 20, self.queues.limit // 4)

    @property
    def size(self) -> int:
        return sum(part.size for part in self.parts.values())
