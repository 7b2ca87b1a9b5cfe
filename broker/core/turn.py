"""One turn of the loop: who has something to send, and what was done in it.

Owns: the counters of a turn, and the lists of whom it leaves something to do for at its end. Must not know: how any of
it is done.

Connections append to their out lists and stand in `dirty`; whoever drives the turn sends what they hold, and then calls
`Exchange.end_of_turn`.
"""

from __future__ import annotations

from ..wire.message import Message
from .account import DELIVERIES, TURN, Account
from .looking_back import Client, Thirsty
from .ports import Delivery
from .route import Route
from .session import Discard
from .stats import Stats


class Turn:
    """It is read and written by every packet: what is counted stands here, flat."""

    __slots__ = (
        "account", "acknowledged", "acknowledgements", "away", "delivery", "dirty", "number", "queued", "sent",
        "thirsty",
    )  # fmt: skip

    def __init__(self) -> None:
        self.account = Account()
        self.number = 0
        self.dirty: set[Client] = set()
        self.sent = 0  #: publishes handed to out lists in this turn
        self.queued = 0  #: publishes handed to queues in this turn
        self.acknowledged = 0  #: acknowledgements sent in this turn
        self.acknowledgements = 0  #: acknowledgements received in this turn
        self.delivery: Delivery = Message(b"", b"", 0), 0  #: what was handed to a persistent session last
        self.thirsty: list[Thirsty] = []  #: queues that may send more, once this turn's packets are all seen
        self.away = Discard()  #: takes the QoS 0 messages of sessions without a connection

    def mark(self, route: Route) -> None:
        """Note that the connections of a route have something to send: once a turn is enough."""
        if route.marked != self.number:
            route.marked = self.number
            for target in route.targets:
                if target.connection is not None:
                    self.dirty.add(target.connection)

    @property
    def _delivered(self) -> int:
        """What was delivered in this turn, in units of work."""
        return self.sent // DELIVERIES + self.queued

    def begin(self) -> None:
        """Somebody is served: their share of the turn begins (see account)."""
        self.account.begin(self._delivered)

    @property
    def crowded(self) -> bool:
        """Has so much been done in this turn that what can wait should?"""
        return self.account.spent + self._delivered >= TURN

    @property
    def over(self) -> bool:
        """Has who is served used up their share?"""
        return self.account.spent + self._delivered >= self.account.until

    def pump(self) -> None:
        """Let the queues send for which something has changed in this turn."""
        while self.thirsty:
            thirsty, self.thirsty = self.thirsty, []
            for queue in thirsty:
                queue.pump()

    def end(self, stats: Stats) -> None:
        """Count, and start the next turn."""
        if self.sent or self.queued or self.acknowledged or self.acknowledgements:
            stats.publish_sent += self.sent - self.away.count
            stats.other_sent += self.acknowledged
            stats.other_received += self.acknowledgements
            self.away.count = self.sent = self.queued = self.acknowledged = self.acknowledgements = 0
        self.account.end_of_turn()
        self.number += 1
