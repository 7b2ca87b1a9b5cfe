"""Bytes that clients have sent, and of which nothing could be done yet: packets that are not whole, or wait.

Owns: who holds how much of that, and who is closed when it is too much in all. Must not know: what is in packets, how
connections are closed.

It is not the largest holder that is closed, but who has announced the largest packet: of many clients that send at the
same pace, that is the one who will need most. Places come first (see core.ports.Gatekeeper.origin), so that one cannot
push out another by many connections with a little each.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

from ..wire.codes import ReasonCode
from .looking_back import Sender
from .memory import RELIEF, Part


class Incoming:
    """All of it, by connection."""

    def __init__(self, part: Part, soon: Callable[[Callable[[], None]], None]) -> None:
        self._part = part
        self._soon = soon
        self._held: dict[Sender, int] = {}
        self.over = False  #: is there too much?

    def change(self, sender: Sender, change: int) -> None:
        """It holds so many bytes more, or less."""
        part = self._part
        part.size += change
        held = self._held.get(sender, 0) + change
        if held:
            self._held[sender] = held
        else:
            self._held.pop(sender, None)
        if change > 0 and not self.over and part.size > part.limit:
            self.over = True
            self._soon(self.relieve)

    def relieve(self) -> None:
        """If there is too much, close connections until there is room again."""
        part = self._part
        if not self.over:
            return
        self.over = False
        if part.full():
            self._close_largest(part.limit - part.limit // RELIEF)

    def shed(self) -> bool:
        """The system gives no more memory, whatever the limit is: free some. False if nothing is held here."""
        size = self._part.size
        self._close_largest(size - size // RELIEF)
        return self._part.size < size

    def _close_largest(self, enough: int) -> None:
        """Close connections until so many bytes are left."""
        part = self._part
        places: dict[str, list[tuple[int, int, Sender]]] = {}
        for number, sender in enumerate(self._held):
            places.setdefault(sender.origin, []).append((-sender.wanted, number, sender))
        totals = [(sum(wanted for wanted, _, _ in senders), place) for place, senders in places.items()]
        heapq.heapify(totals)
        for senders in places.values():
            heapq.heapify(senders)
        while totals and part.size > enough:
            total, place = heapq.heappop(totals)
            wanted, _, sender = heapq.heappop(places[place])
            if places[place]:
                heapq.heappush(totals, (total - wanted, place))
            why = "too much memory is held by packets that are not whole, and its is the largest"
            sender.close(why, reason=ReasonCode.QUOTA_EXCEEDED)
