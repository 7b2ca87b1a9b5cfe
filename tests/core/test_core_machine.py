"""Clients that do anything in any order, and a broker that crashes: what was acknowledged arrives.

A few clients connect, subscribe, publish, acknowledge or do not, and leave; the store is slow now and then; the broker
dies at any moment and begins again with what was stored. A plain model says which sessions and subscriptions there are
and which messages are promised to whom. The clients keep their own state as MQTT asks of them, and watch for what must
never happen.
"""

from __future__ import annotations

import copy
import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from broker.core.limits import Limits
from broker.core.ports import Store
from broker.storage.memory import MemoryStore
from broker.storage.sqlite import SqliteStore
from broker.wire.topics import matches
from tests.core.harness import Client, Sent, World, brackets
from tests.vectors import PUBACK, PUBCOMP, PUBREC, PUBREL, number, packet, publish, subscribe, unsubscribe

WINDOW = 3
#: Which one of those that can.
WHICH = st.integers(0, 5)
SELDOM = st.sampled_from((False, False, False, True))
TOPICS = st.sampled_from(("t/1", "t/2", "u"))
FILTERS = st.sampled_from(("t/1", "t/+", "#", "u"))
QOS = st.integers(0, 2)


def pick(peers: list[Peer], which: int) -> Peer:
    return peers[which % len(peers)]


@dataclass
class Model:
    """What the broker has to know. A crash takes it back to what was stored."""

    sessions: dict[str, int] = field(default_factory=dict)  #: Client Identifier -> which one it is; negative: clean
    subscriptions: dict[tuple[str, str], int] = field(default_factory=dict)
    retained: dict[str, str] = field(default_factory=dict)

    def forget(self, name: str) -> None:
        self.sessions.pop(name, None)
        self.subscriptions = {key: qos for key, qos in self.subscriptions.items() if key[0] != name}

    def crash(self) -> None:
        for name in [name for name, serial in self.sessions.items() if serial < 0]:
            self.forget(name)

    def targets(self, topic: str, qos: int) -> set[tuple[str, int]]:
        """The persistent sessions whose queues get it."""
        return {
            (name, self.sessions[name])
            for (name, topic_filter), granted in self.subscriptions.items()
            if qos and granted and self.sessions[name] > 0 and matches(topic_filter.encode(), topic.encode())
        }


@dataclass
class Outgoing:
    """A message that its publisher has not finished with."""

    packet_id: int
    topic: str
    payload: str
    qos: int
    retain: bool
    released: bool = False


class Peer:
    """A client that keeps to the rules, with the state that it has to keep."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.client: Client | None = None
        self.clean = True
        self.accepted = False
        self.expect_present = 0
        self.todo: list[bytes] = []  #: what it will answer, when it comes to it
        self.held: set[int] = set()  #: identifiers of QoS 2 that it has and that were not released
        self.unanswered: dict[int, str] = {}  #: what came at QoS 1 or 2 over this connection -> payload
        self.outgoing: dict[int, Outgoing] = {}
        self.seen: Counter[tuple[str, int]] = Counter()  #: payload and QoS, since it last began anew
        self.ever_seen: set[str] = set()
        self.first_seen: list[tuple[str, int]] = []  #: (publisher/topic/QoS, number) in the order of first arrival

    @property
    def ready(self) -> bool:
        return self.client is not None and self.accepted

    def begin_anew(self) -> None:
        self.held.clear()
        self.outgoing.clear()
        self.seen.clear()
        self.first_seen.clear()

    def gone(self) -> None:
        """The connection has ended."""
        self.client = None
        self.accepted = False
        self.todo.clear()
        self.unanswered.clear()
        if self.clean:
            self.begin_anew()


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.store = self.make_store()
        self.world = World(self.store, Limits(max_inflight=WINDOW, max_memory_queue=4))
        self.peers = {name: Peer(name) for name in ("ann", "bob", "eve")}
        self.model = Model()
        self.stored = copy.deepcopy(self.model)  # what the store has while it is slow
        self.promised: dict[str, set[str]] = {name: set() for name in self.peers}
        self.targets: dict[str, set[tuple[str, int]]] = {}  # payload -> whose it will be when it is acknowledged
        self.made = 0  # sessions
        self.count = 0
        self.next_id = 0
        self.retained_payloads: set[str] = set()
        # Who wanted to begin anew while the store was slow: after a crash the old session may be there again, with
        # messages of which its client knows nothing any more.
        self.maybe_revived: set[str] = set()
        self.forgot = False  # did a crash take what was not stored yet?

    def make_store(self) -> Store:
        return MemoryStore()

    def reopen(self) -> Store:
        return self.store

    # --- what clients do ---

    @initialize(grants=st.tuples(QOS, QOS, QOS))
    def everybody_is_there(self, grants: tuple[int, int, int]) -> None:
        for (name, peer), qos in zip(self.peers.items(), grants, strict=True):
            self.connect(name, False)
            self.subscribe_as(peer, "t/+", qos)

    def ready(self) -> list[Peer]:
        return [peer for peer in self.peers.values() if peer.ready]

    def away(self) -> list[Peer]:
        return [peer for peer in self.peers.values() if peer.client is None]

    @precondition(lambda self: self.away())
    @rule(which=WHICH, clean=SELDOM)
    def come(self, which: int, clean: bool) -> None:
        self.connect(pick(self.away(), which).name, clean)

    @rule(which=WHICH, clean=SELDOM)
    def come_again(self, which: int, clean: bool) -> None:
        """Though it may be there: over another connection, which takes over."""
        self.connect(pick(list(self.peers.values()), which).name, clean)

    def connect(self, name: str, clean: bool) -> None:
        peer = self.peers[name]
        peer.gone()
        known = self.model.sessions.get(name)
        kept = known is not None and known > 0
        peer.expect_present = int(kept and not clean)
        if kept and clean and self.world.lane.held:
            self.maybe_revived.add(name)
        if clean or not kept:
            self.model.forget(name)
            self.promised[name].clear()
            peer.begin_anew()
            self.made += 1
            self.model.sessions[name] = -self.made if clean else self.made
        peer.clean = clean
        peer.client = self.world.dial()
        peer.client.connect(name, clean=clean)
        self.absorb()

    @precondition(lambda self: len(self.away()) < 3)
    @rule(which=WHICH, polite=st.booleans())
    def leave(self, which: int, polite: bool) -> None:
        peer = pick([peer for peer in self.peers.values() if peer.client is not None], which)
        assert peer.client is not None
        if polite and peer.accepted:
            peer.client.disconnect()
        else:
            peer.client.drop()
        if peer.clean:
            self.model.forget(peer.name)
            self.promised[peer.name].clear()
        peer.gone()
        self.absorb()

    @precondition(lambda self: self.ready())
    @rule(which=WHICH, topic_filter=FILTERS, qos=QOS)
    def subscribe(self, which: int, topic_filter: str, qos: int) -> None:
        self.subscribe_as(pick(self.ready(), which), topic_filter, qos)

    def subscribe_as(self, peer: Peer, topic_filter: str, qos: int) -> None:
        self.model.subscriptions[peer.name, topic_filter] = qos
        self.send(peer, subscribe(self.new_id(), (topic_filter.encode(), qos)))

    @precondition(lambda self: self.ready())
    @rule(which=WHICH, topic_filter=FILTERS)
    def unsubscribe(self, which: int, topic_filter: str) -> None:
        peer = pick(self.ready(), which)
        self.model.subscriptions.pop((peer.name, topic_filter), None)
        self.send(peer, unsubscribe(self.new_id(), topic_filter.encode()))

    @precondition(lambda self: self.ready())
    @rule(which=WHICH, topic=TOPICS, qos=QOS, retain=SELDOM, count=st.integers(1, 6))
    def publish(self, which: int, topic: str, qos: int, retain: bool, count: int) -> None:
        peer = pick(self.ready(), which)
        data = b""
        for _ in range(count):
            self.count += 1
            payload = f"{peer.name}/{topic}/{qos} {self.count}"
            packet_id = self.new_id()
            if qos:
                peer.outgoing[packet_id] = Outgoing(packet_id, topic, payload, qos, retain)
            self.note(topic, payload, qos, retain)
            data += publish(topic.encode(), payload.encode(), qos=qos, packet_id=packet_id, retain=retain)
        self.send(peer, data)

    def owing(self) -> list[Peer]:
        return [peer for peer in self.ready() if peer.todo]

    @precondition(lambda self: self.owing())
    @rule(which=WHICH, count=st.integers(1, 5), at=st.integers(0, 3))
    def answer(self, which: int, count: int, at: int) -> None:
        """Some of the acknowledgements that it owes, perhaps not the oldest first."""
        peer = pick(self.owing(), which)
        at = min(at, len(peer.todo) - 1)
        answers = peer.todo[at : at + count]
        del peer.todo[at : at + count]
        self.reply(peer, answers)

    @precondition(lambda self: self.owing())
    @rule(which=WHICH)
    def answer_all(self, which: int) -> None:
        peer = pick(self.owing(), which)
        answers, peer.todo = peer.todo, []
        self.reply(peer, answers)

    # --- what happens to the broker ---

    @precondition(lambda self: not self.world.lane.held)
    @rule()
    def the_store_becomes_slow(self) -> None:
        self.world.settle()
        self.stored = copy.deepcopy(self.model)
        self.world.lane.held = True

    @precondition(lambda self: self.world.lane.held)
    @rule()
    def the_store_catches_up(self) -> None:
        self.world.lane.held = False
        self.world.settle()
        self.absorb()

    @rule(really=SELDOM)
    def crash(self, really: bool) -> None:
        if not really:
            return
        for peer in self.peers.values():
            peer.gone()
        if self.world.lane.held:
            self.model = copy.deepcopy(self.stored)
            self.forgot = True
        self.model.crash()
        self.store = self.reopen()
        limits = self.world.limits
        self.world = World(self.store, limits).restore().settle()

    # --- what the clients see ---

    def new_id(self) -> int:
        self.next_id = self.next_id % 65_535 + 1
        return self.next_id

    def note(self, topic: str, payload: str, qos: int, retain: bool) -> None:
        """The broker takes this message (again, if it forgot it)."""
        self.targets[payload] = self.model.targets(topic, qos)
        if retain:
            self.model.retained[topic] = payload
            self.retained_payloads.add(payload)

    def send(self, peer: Peer, data: bytes) -> None:
        assert peer.client is not None
        peer.client.send(data)
        assert not peer.client.closed, self.world.log.lines[-1]
        self.absorb()

    def reply(self, peer: Peer, answers: list[bytes]) -> None:
        for one in answers:
            if one[0] in (PUBACK, PUBCOMP):
                del peer.unanswered[int.from_bytes(one[2:], "big")]
        self.send(peer, b"".join(answers))

    def absorb(self) -> None:
        again = True
        while again:
            again = False
            for peer in self.peers.values():
                if peer.client is not None:
                    for one in peer.client.take():
                        again = True
                        self.receive(peer, one)

    def receive(self, peer: Peer, one: Sent) -> None:
        assert peer.client is not None
        kind = one[0]
        if kind == "CONNACK":
            assert not peer.accepted
            assert one == ("CONNACK", peer.expect_present, 0)
            peer.accepted = True
            resent = b""
            for out in peer.outgoing.values():
                if out.released:
                    resent += packet(PUBREL, number(out.packet_id))
                else:
                    if not self.world_knows(peer, out):
                        self.note(out.topic, out.payload, out.qos, out.retain)
                    resent += publish(
                        out.topic.encode(), out.payload.encode(), qos=out.qos, packet_id=out.packet_id,
                        retain=out.retain, dup=True,
                    )  # fmt: skip
            if resent:
                peer.client.send(resent)
            return
        assert peer.accepted, "CONNACK comes first"
        if kind == "PUBLISH":
            self.deliver(peer, one)
        elif kind == "PUBREL":
            peer.unanswered.setdefault(one[1], "released over an earlier connection")
            peer.held.discard(one[1])
            peer.todo.append(packet(PUBCOMP, number(one[1])))
        elif kind == "PUBACK":
            self.acknowledged(peer.outgoing.pop(one[1]))
        elif kind == "PUBREC":
            mine = peer.outgoing.get(one[1])
            if mine is not None and not mine.released:
                mine.released = True
                self.acknowledged(mine)
                peer.todo.append(packet(PUBREL, number(one[1])))
        elif kind == "PUBCOMP":
            peer.outgoing.pop(one[1], None)
        else:
            assert kind in ("SUBACK", "UNSUBACK")

    def world_knows(self, peer: Peer, out: Outgoing) -> bool:
        """Has the broker this message of QoS 2 already, so that it is not delivered again?"""
        session = self.world.session(peer.name)
        return out.qos == 2 and session.received is not None and out.packet_id in session.received

    def acknowledged(self, out: Outgoing) -> None:
        """From now on the message is the broker's to deliver, whatever happens."""
        for name, serial in self.targets[out.payload]:
            if self.model.sessions.get(name) == serial:
                self.promised[name].add(out.payload)

    def deliver(self, peer: Peer, one: Sent) -> None:
        _, topic, payload, qos, packet_id, flags = one
        published_by, count = payload.split(" ")
        assert published_by.split("/", 1)[1] == f"{topic}/{published_by[-1]}"
        if "retain" in flags:
            assert payload in self.retained_payloads
        if qos:
            other = peer.unanswered.get(packet_id)
            assert other in (None, payload), "an identifier in use was given to another message"  # [MQTT-2.3.1-4]
            peer.unanswered[packet_id] = payload
        assert ("dup" in flags) <= (qos > 0)
        if qos == 1:
            peer.todo.append(packet(PUBACK, number(packet_id)))
        elif qos == 2:
            peer.todo.append(packet(PUBREC, number(packet_id)))
            if packet_id in peer.held:
                return
            peer.held.add(packet_id)
        if "retain" in flags:
            return
        peer.seen[payload, qos] += 1
        peer.ever_seen.add(payload)
        # Once is promised where both ways are at QoS 2, or at QoS 0. What was published at QoS 2 comes twice at QoS 0
        # only where the broker has forgotten that it sent it.
        ways = int(published_by[-1]), qos
        if ways in ((0, 0), (2, 2)) or (ways == (2, 0) and not self.forgot):
            assert peer.seen[payload, qos] == 1, "delivered twice"
        if peer.seen[payload, qos] == 1:
            peer.first_seen.append((f"{published_by} at {qos}", int(count)))

    # --- what must hold all the time ---

    @invariant()
    def the_broker_is_well(self) -> None:
        brackets(self.world)
        for peer in self.peers.values():
            if peer.client is not None:
                assert not peer.client.closed

    @invariant()
    def sessions_and_subscriptions_are_those_of_the_model(self) -> None:
        exchange = self.world.exchange
        assert set(exchange.sessions) == set(self.model.sessions)
        held = {
            (name, topic_filter.decode()): qos
            for name, session in exchange.sessions.items()
            for topic_filter, qos in (session.subscriptions or {}).items()
        }
        assert held == self.model.subscriptions
        assert exchange.router.count == len(held)

    @invariant()
    def retained_messages_are_those_of_the_model(self) -> None:
        kept = {
            one.message.topic.decode(): one.message.payload.decode()
            for one in self.world.exchange.retained.matching(b"#")
            if one is not None
        }
        assert kept == self.model.retained

    @invariant()
    def the_window_is_kept(self) -> None:
        for session in self.world.exchange.sessions.values():
            if session.queue is not None:
                assert len(session.queue._inflight) <= WINDOW

    @invariant()
    def order_is_kept(self) -> None:
        """Per publisher, topic and QoS, first arrivals are in order [MQTT-4.6.0-6]."""
        for peer in self.peers.values():
            last: dict[str, int] = {}
            for source, count in peer.first_seen:
                assert last.get(source, 0) < count
                last[source] = count

    def teardown(self) -> None:
        """In the end everybody comes back, reads and answers: then all that was promised has arrived, and nothing is
        left."""
        if self.world.lane.held:
            self.the_store_catches_up()
        for name, which in list(self.model.sessions.items()):
            if which > 0:
                self.connect(name, False)
        while any(peer.todo for peer in self.peers.values()):
            for peer in self.peers.values():
                if peer.todo:
                    answers, peer.todo = peer.todo, []
                    self.reply(peer, answers)
        for name, peer in self.peers.items():
            assert self.promised[name] <= peer.ever_seen
            assert (peer.outgoing, peer.held) == ({}, set())
        for session in self.world.exchange.sessions.values():
            if session.queue is not None:
                assert (session.queue.count, session.queue.size) == (0, 0)
            assert not session.received or session.client_id in self.maybe_revived
        brackets(self.world)


class SqliteMachine(Machine):
    """The same with the real store, which is opened again after each crash."""

    def make_store(self) -> Store:
        self.directory = tempfile.mkdtemp(prefix="selectmq-test-")
        return SqliteStore(self.directory)

    def reopen(self) -> Store:
        self.store.close()
        return SqliteStore(self.directory)

    def teardown(self) -> None:
        try:
            super().teardown()
        finally:
            self.store.close()
            shutil.rmtree(self.directory)


TestWithMemoryStore = Machine.TestCase
TestWithMemoryStore.settings = settings(max_examples=100, stateful_step_count=50, deadline=None, derandomize=True)
TestWithSqliteStore = SqliteMachine.TestCase
TestWithSqliteStore.settings = settings(max_examples=20, stateful_step_count=50, deadline=None, derandomize=True)
