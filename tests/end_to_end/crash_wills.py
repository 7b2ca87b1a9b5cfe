"""A client that leaves a will each time it comes, for the test that kills the broker again and again.

Owns: what the broker promises of a will: published once, if its client had a CONNACK and has not said goodbye. Must not
know: broker.
"""

from __future__ import annotations

from tests.end_to_end.crash_harness import SIZES, WAYS_TO_LEAVE, Client, Key, Sent, World
from tests.raw_client import Will, connect

#: A will that was sent at QoS 1 when the broker was killed is published anew, as often as that happens.
OFTEN = 1_000_000


class Mortal(Client):
    """Comes and goes, with another will each time."""

    def __init__(self, world: World, client_id: str, *, clean: bool) -> None:
        super().__init__(world, client_id)
        self.clean = clean
        self.stopped = False
        self.left = 0  #: wills that the broker owes to the others
        self._number = 0
        self._key = Key(client_id, 0)
        self._owed = False  # has the broker promised to publish the one of this connection?

    def greeting(self) -> bytes:
        chance = self.world.chance
        self._key = Key(self.client_id, self._number)
        self._number += 1
        payload = b"%s %d " % (self.client_id.encode(), self._key.number) + b"." * chance.choice(SIZES)
        sent = Sent(f"crash/{self.client_id}/0", payload, chance.choice((1, 2)), False, times=OFTEN)
        self.world.sent[self._key] = sent
        return connect(self.client_id, clean=self.clean, will=Will(sent.topic, payload, sent.qos, False))

    def on_accepted(self, present: bool) -> None:
        self._owed = True  # [MQTT-3.1.2-8]

    def leave(self, how: str) -> None:
        if how == "DISCONNECT":
            self._owed = False  # [MQTT-3.14.4-3]: if it arrives
        super().leave(how)

    def on_lost(self) -> None:
        if self._owed:
            self._owed = False
            self.left += 1
            self.world.sent[self._key].acknowledged = True

    def work(self) -> None:
        if self.accepted and not self.stopped and self.world.chance.random() < 0.02:
            self.leave(self.world.chance.choice(WAYS_TO_LEAVE))
