"""Random dialogues of clients of both versions, which come and go, acknowledge late, and take no packet of any size:
every message that fits comes to everybody, in order, once at QoS 2, and within what each takes."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tests.core.harness import Client, World, brackets
from tests.core.harness5 import Client5, join5
from tests.vectors import number, packet

LARGEST = 120
SHORT, LONG = 20, 200


class Reader:
    """A client that keeps its side of QoS 1 and 2 over its connections."""

    def __init__(self, world: World, name: str, qos: int, rng: random.Random) -> None:
        self.world, self.name, self.qos, self.rng = world, name, qos, rng
        self.identifier = rng.choice([0, 7])
        self.client: Client | None = None
        self.got: list[str] = []
        self.held: set[int] = set()  # Packet Identifiers of QoS 2 messages that were not released
        self.flying: set[int] = set()  # those that this connection has in flight
        self.answers: list[bytes] = []
        self.come()

    def come(self) -> None:
        rng = self.rng
        self.answers, self.flying, self.aliases = [], set(), dict[int, str]()
        self.most, self.largest, self.maximum = 65_535, 0, 0
        if rng.random() < 0.3:
            self.client = self.world.join(self.name, clean=False)
            if not self.world.session(self.name).subscriptions:
                self.client.subscribe(("t/#", self.qos)).take()
            return
        self.most = rng.choice([1, 2, 50])
        self.largest, self.maximum = rng.choice([0, LARGEST]), rng.choice([0, 2, 10])
        told: dict[str, Any] = {"receive_maximum": self.most}
        if self.largest:
            told["largest"] = self.largest
        if self.maximum:
            told["alias_maximum"] = self.maximum
        client = join5(self.world, self.name, clean=False, **told)
        if not self.world.session(self.name).subscriptions:
            client.ask(("t/#", self.qos), identifier=self.identifier)
        self.client = client

    def go(self) -> None:
        assert self.client is not None
        self.read()
        self.client.drop()
        self.client = None

    def read(self) -> None:
        client = self.client
        if isinstance(client, Client5):
            for one in client.get():
                assert not self.largest or one.size <= self.largest
                if one.name == "PUBLISH":
                    alias = one.properties.get("alias", 0)
                    assert alias <= self.maximum
                    if alias and one.topic:
                        self.aliases[alias] = one.topic
                    self.take(one.topic or self.aliases[alias], one.payload, one.qos, one.packet_id)
                else:
                    assert one.name == "PUBREL"
                    self.released(one.packet_id)
        elif client is not None:
            for two in client.take():
                if two[0] == "PUBLISH":
                    self.take(two[1], two[2], two[3], two[4])
                else:
                    assert two[0] == "PUBREL"
                    self.released(two[1])

    def take(self, topic: str, payload: str, qos: int, packet_id: int) -> None:
        assert payload.startswith(topic)
        if qos:
            self.flying.add(packet_id)
            assert len(self.flying) <= self.most
        if qos == 2:
            if packet_id in self.held:
                return self.answers.append(packet(0x50, number(packet_id)))
            self.held.add(packet_id)
        self.got.append(payload)
        if qos:
            self.answers.append(packet(0x40 if qos == 1 else 0x50, number(packet_id)))

    def released(self, packet_id: int) -> None:
        self.held.discard(packet_id)
        self.answers.append(packet(0x70, number(packet_id)))

    def answer(self, count: int) -> None:
        if self.client is None:
            return
        now, self.answers = self.answers[:count], self.answers[count:]
        for each in now:
            if each[0] != 0x50:
                self.flying.discard(int.from_bytes(each[2:4], "big"))
        if now:
            self.client.send(*now)
        self.read()

    def finish(self) -> None:
        if self.client is None:
            self.come()
        self.read()
        while self.answers:
            self.answer(5)


def publish(writer: Client, rng: random.Random, index: int) -> tuple[str, int]:
    topic = f"t/{rng.randrange(6)}"
    payload = f"{topic} {index} " + "x" * (rng.choice([SHORT, LONG]))
    qos, packet_id = rng.randrange(3), index % 60_000 + 1
    if isinstance(writer, Client5):
        told: dict[str, Any] = {"user": [("k", "v")]} if rng.random() < 0.5 else {}
        if rng.random() < 0.3:
            told["expiry"] = 100_000
        writer.publish5(topic, payload, qos, packet_id, **told)
    else:
        writer.publish(topic, payload, qos, packet_id)
    if qos == 2:
        writer.pubrel(packet_id)
    return payload, qos


@pytest.mark.parametrize("seed", range(25))
def test_what_fits_comes_to_everybody_in_order(seed: int) -> None:
    rng = random.Random(seed)
    world = World()
    world.limits.max_inflight = rng.choice([1, 3, 20])
    world.limits.max_memory_queue = rng.choice([4, 1000])
    readers = [Reader(world, f"c{at}", 1 + at % 2, rng) for at in range(4)]
    writers = [world.join("w4"), join5(world, "w5")]
    sent: list[tuple[str, int]] = []
    for index in range(120):
        act = rng.random()
        reader = rng.choice(readers)
        if act < 0.5:
            payload, qos = publish(rng.choice(writers), rng, index)
            if qos:
                sent.append((payload, qos))
        elif act < 0.85:
            reader.answer(rng.randrange(1, 6))
        elif reader.client is None:
            reader.come()
        else:
            reader.go()
        for each in readers:
            each.read()
    for reader in readers:
        reader.finish()
        short = [one for one, _ in sent if len(one) < LONG]
        got = [one for one in reader.got if one in short]
        once = [one for one, qos in sent if min(qos, reader.qos) == 2]
        assert {one: got.count(one) for one in once if one in short} == dict.fromkeys(set(once) & set(short), 1)
        assert list(dict.fromkeys(got)) == short
        queue = world.session(reader.name).queue
        assert queue is not None
        assert (queue.count, queue.size) == (0, 0)
    brackets(world)
