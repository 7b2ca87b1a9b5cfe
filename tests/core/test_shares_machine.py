"""A shared subscription under random use: clients come, go, acknowledge or not, the broker is killed; nothing is lost.

One member has a persistent session, so the group lasts. What was acknowledged to its publisher at QoS 1 must reach some
member; at QoS 2 none may be sent to two sessions, and one that is sent must have reached one unless its session ended.
"""

from __future__ import annotations

import os
from collections import defaultdict
from random import Random

import pytest

from broker.core.limits import Limits
from broker.storage.memory import MemoryStore
from tests.core.harness import Client, World, brackets

GROUP = "$share/g/t/#"
NAMES = "abcz"
STRATEGIES = ("round-robin", "sticky", "hash-topic", "hash-publisher", "least-queued")
#: More of it: SHARES_RUNS=5000.
RUNS = int(os.environ.get("SHARES_RUNS", "120"))


class Machine:
    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        limits = Limits(
            max_inflight=self.random.choice((1, 2, 5)),
            max_memory_queue=self.random.choice((2, 5, 100)),
            shared_strategy=self.random.choice(STRATEGIES),
        )
        self.world = World(MemoryStore(), limits)
        self.clients: dict[str, Client | None] = dict.fromkeys(NAMES)
        self.generation: dict[str, int] = dict.fromkeys(NAMES, 0)  # of its session
        self.open: dict[str, list[tuple[int, int]]] = defaultdict(list)  # what it has to acknowledge: QoS, identifier
        self.publishers: list[tuple[Client, str, int]] = []
        self.owed: dict[str, int] = {}  # acknowledged messages: their QoS
        self.reached: dict[str, set[tuple[str, int]]] = defaultdict(set)  # the sessions that each was sent to
        self.begun: dict[str, set[tuple[str, int]]] = defaultdict(set)  # the same at QoS 2
        self.clean: set[tuple[str, int]] = set()  # sessions that end with their connection
        #: Those there were when the broker was killed: that a message is settled may not have been stored. Then it goes
        #: to another one, as nothing may be lost.
        self.killed: set[tuple[str, int]] = set()
        self.count = 0
        client = self.come("z")
        client.subscribe((GROUP, 2))
        self.read("z")

    def come(self, name: str) -> Client:
        clean = name == "a" or (name != "z" and self.random.random() < 0.1)
        client = self.world.dial()
        client.connect(name, clean=clean)
        self.clients[name] = client
        self.open[name].clear()
        if clean:
            self.generation[name] += 1
            self.clean.add((name, self.generation[name]))
        self.read(name)
        return client

    def read(self, name: str) -> None:
        client = self.clients[name]
        assert client is not None
        for packet in client.take():
            if packet[0] == "PUBLISH":
                _, _, payload, qos, packet_id, _ = packet
                self.reached[payload].add((name, self.generation[name]))
                if qos == 2:
                    self.begun[payload].add((name, self.generation[name]))
                if qos:
                    self.open[name].append((qos, packet_id))
            elif packet[0] == "PUBREL":
                self.open[name].append((3, packet[1]))

    def answer(self, name: str) -> None:
        client = self.clients[name]
        assert client is not None
        kind, packet_id = self.open[name].pop(0)
        (client.puback, client.pubrec, client.pubcomp)[kind - 1](packet_id)
        self.read_all()

    def read_all(self) -> None:
        for name, client in self.clients.items():
            if client is not None:
                self.read(name)
        waiting = []
        for client, payload, qos in self.publishers:
            if any(packet[0] in ("PUBACK", "PUBREC") for packet in client.take()):
                self.owed[payload] = qos
            else:
                waiting.append((client, payload, qos))
        self.publishers = waiting

    def step(self) -> None:
        random = self.random
        name = random.choice(NAMES)
        client = self.clients[name]
        dice = random.random()
        if dice < 0.35:
            self.count += 1
            qos = random.choice((1, 1, 2))
            publisher = self.world.join(f"p{self.count}")
            publisher.publish(f"t/{random.randrange(3)}", str(self.count), qos, 1)
            self.publishers.append((publisher, str(self.count), qos))
        elif client is None:
            self.come(name)
        elif dice < 0.65:
            if self.open[name] and not client.transport.stuck:
                self.answer(name)
        elif dice < 0.75:
            (client.drop if random.random() < 0.5 else client.disconnect)()
            self.clients[name] = None
        elif dice < 0.85 and name != "z":
            client.subscribe((GROUP, random.randrange(3)))
        elif dice < 0.88 and name != "z":
            client.unsubscribe(GROUP)
        elif dice < 0.93:
            client.get_going() if client.transport.stuck else client.get_stuck()
        elif dice < 0.97:
            self.world.lane.held = not self.world.lane.held
            self.world.settle()
        elif dice < 0.98:
            self.read_all()
            self.killed |= self.clean
            self.world = self.world.crash()
            self.clients = dict.fromkeys(NAMES)
            self.publishers.clear()
            self.generation["a"] += 1
        self.read_all()

    def finish(self) -> None:
        """All come back, and take everything."""
        self.world.lane.held = False
        self.world.settle()
        for name, client in self.clients.items():
            if client is None:
                self.come(name)
            elif client.transport.stuck:
                client.get_going()
        self.read_all()
        for _ in range(10_000):
            busy = [name for name in NAMES if self.open[name]]
            if not busy:
                break
            self.answer(busy[0])
        lost = {payload for payload, qos in self.owed.items() if not self.reached[payload]}
        assert {payload for payload in lost if self.owed[payload] == 1} == set()
        assert self.world.exchange.memory.queues.size == 0
        [group] = self.world.exchange.shares._groups.values()
        assert (group.waits.count, group.waits.size, group.waits._flying) == (0, 0, {})
        assert lost == set()
        twice = [payload for payload, sessions in self.begun.items() if len(sessions - self.killed) > 1]
        assert twice == []  # [MQTT5-4.8.2-5]
        brackets(self.world)


@pytest.mark.parametrize("seed", range(RUNS))
def test_nothing_is_lost_in_a_group(seed: int) -> None:
    machine = Machine(seed)
    for _ in range(80):
        machine.step()
    machine.finish()
