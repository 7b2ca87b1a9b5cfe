"""Clients that do anything in any order, and a broker that crashes: what was acknowledged arrives.

A few clients connect, some with a will, subscribe, publish, acknowledge or do not, and leave or break off; the store is
slow now and then, or fails; the broker dies at any moment and begins again with what was stored. A plain model says
which sessions, subscriptions and retained messages there are, who may get a message, and which messages are promised to
whom. The clients keep their own state as MQTT asks of them, and watch for what must never happen.

The normal suite takes a few thousand steps, always the same ones; SELECTMQ_MODEL_STEPS=100000 (`tox -e model`) takes so
many new ones.
"""

from __future__ import annotations

import copy
import os
import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from typing import TypeAlias

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from broker.core.journal import RETRY
from broker.core.limits import Limits
from broker.core.ports import Batch, QueuedMessage, StoreError
from broker.core.queue import Queue
from broker.storage.memory import MemoryStore
from broker.storage.sqlite import SqliteStore
from tests.core.harness import Client, Sent, World, brackets
from tests.vectors import PUBACK, PUBCOMP, PUBREC, PUBREL, number, packet, publish, subscribe, unsubscribe

WINDOW = 3
#: Which one of those that can.
WHICH = st.integers(0, 5)
SELDOM = st.sampled_from((False, False, False, True))
TOPICS = st.sampled_from(("t/1", "t/2", "u"))
FILTERS = st.sampled_from(("t/1", "t/+", "t/#", "+/1", "+", "#", "u", "u/#"))
QOS = st.integers(0, 2)


#: Topic, payload, QoS, and whether it is to be retained.
Will: TypeAlias = tuple[str, str, int, bool]
WILLS = st.one_of(st.none(), st.tuples(TOPICS, QOS, SELDOM))


def matches(topic_filter: str, topic: str) -> bool:
    """Does the filter match? As the specification tells it (section 4.7.1), level by level."""
    wanted, levels = topic_filter.split("/"), topic.split("/")
    if wanted[0] == "#":
        return True
    if not levels or not topic:
        return False
    if wanted[0] not in ("+", levels[0]):
        return False
    if len(wanted) == 1:
        return len(levels) == 1
    if len(levels) == 1:
        return wanted[1:] == ["#"]
    return matches("/".join(wanted[1:]), "/".join(levels[1:]))


def pick(peers: list[Peer], which: int) -> Peer:
    return peers[which % len(peers)]


@dataclass
class Model:
    """What the broker has to know. A crash takes it back to what was stored."""

    sessions: dict[str, int] = field(default_factory=dict)  #: Client Identifier -> which one it is; negative: clean
    subscriptions: dict[tuple[str, str], int] = field(default_factory=dict)
    retained: dict[str, tuple[str, int]] = field(default_factory=dict)  #: topic -> payload, QoS

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
            if qos and granted and self.sessions[name] > 0 and matches(topic_filter, topic)
        }

    def audience(self, topic: str) -> set[str]:
        """Who may get it at all."""
        return {name for name, topic_filter in self.subscriptions if matches(topic_filter, topic)}


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
        self.retained_seen: Counter[str] = (
            Counter()
        )  #: what came at QoS 0 because it was retained, since it was emptied
        self.will: Will | None = None
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
        self.will = None
        self.accepted = False
        self.todo.clear()
        self.unanswered.clear()
        if self.clean:
            self.begin_anew()


class Breakable:
    """Makes a store fail while it is `broken`."""

    broken = False

    def commit(self, batch: Batch) -> None:
        self._try()
        super().commit(batch)  # type: ignore[misc]  # a store's

    def fetch(self, session: int, start: int, count: int, size: int) -> list[QueuedMessage]:
        self._try()
        return super().fetch(session, start, count, size)  # type: ignore[misc,no-any-return]

    def _try(self) -> None:
        if self.broken:
            raise StoreError("broken by the test")


class BreakableMemoryStore(Breakable, MemoryStore): ...


class BreakableSqliteStore(Breakable, SqliteStore): ...


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
        self.audience: dict[str, set[str]] = {}  # payload -> the names of who may get it
        self.unstored: list[str] = []  # payloads of wills that nobody knows to be stored
        self.stored_wills: list[Will] = []  # of those who were connected when the store became slow
        self.made = 0  # sessions
        self.count = 0
        self.next_id = 0
        self.retained_payloads: set[str] = set()
        # Who wanted to begin anew while the store was slow: after a crash the old session may be there again, with
        # messages of which its client knows nothing any more.
        self.maybe_revived: set[str] = set()
        self.forgot = False  # did a crash take what was not stored yet?

    def make_store(self) -> BreakableMemoryStore | BreakableSqliteStore:
        return BreakableMemoryStore()

    def reopen(self) -> BreakableMemoryStore | BreakableSqliteStore:
        return self.store

    # --- what clients do ---

    @initialize(grants=st.tuples(QOS, QOS, QOS))
    def everybody_is_there(self, grants: tuple[int, int, int]) -> None:
        for (name, peer), qos in zip(self.peers.items(), grants, strict=True):
            self.connect(name, False, None)
            self.subscribe_as(peer, "t/+", qos)

    def ready(self) -> list[Peer]:
        return [peer for peer in self.peers.values() if peer.ready]

    def away(self) -> list[Peer]:
        return [peer for peer in self.peers.values() if peer.client is None]

    @precondition(lambda self: self.away())
    @rule(which=WHICH, clean=SELDOM, will=WILLS)
    def come(self, which: int, clean: bool, will: tuple[str, int, bool] | None) -> None:
        self.connect(pick(self.away(), which).name, clean, will)

    @rule(which=WHICH, clean=SELDOM, will=WILLS)
    def come_again(self, which: int, clean: bool, will: tuple[str, int, bool] | None) -> None:
        """Though it may be there: over another connection, which takes over."""
        self.connect(pick(list(self.peers.values()), which).name, clean, will)

    def connect(self, name: str, clean: bool, will: tuple[str, int, bool] | None) -> None:
        peer = self.peers[name]
        if self.world.journal.failed and not clean:
            # It is told to try later, and whoever is there with this name stays.
            refused = self.world.dial().connect(name, clean=False)
            assert (refused.take(), refused.closed) == ([("CONNACK", 0, 3)], True)
            return
        last_will = peer.will
        if last_will is not None:
            self.note(*last_will)  # a takeover is no DISCONNECT
        peer.gone()
        known = self.model.sessions.get(name)
        kept = known is not None and known > 0
        peer.expect_present = int(kept and not clean)
        if kept and clean and self.slow:
            self.maybe_revived.add(name)
        if clean or not kept:
            self.model.forget(name)
            self.promised[name].clear()
            peer.begin_anew()
            self.made += 1
            self.model.sessions[name] = -self.made if clean else self.made
        peer.clean = clean
        if will is not None:
            topic, qos, retain = will
            self.count += 1
            peer.will = topic, f"{name}'s will/{topic}/{qos} {self.count}", qos, retain
        peer.client = self.world.dial()
        peer.client.connect(name, clean=clean, will=peer.will)
        self.absorb()
        if last_will is not None:
            self.left_behind(last_will[1])

    @precondition(lambda self: len(self.away()) < 3)
    @rule(which=WHICH, polite=st.booleans())
    def leave(self, which: int, polite: bool) -> None:
        self.leave_as(pick([peer for peer in self.peers.values() if peer.client is not None], which), polite)

    def leave_as(self, peer: Peer, polite: bool) -> None:
        assert peer.client is not None
        will = None if polite and peer.accepted else peer.will
        client = peer.client
        if peer.clean:
            self.model.forget(peer.name)
            self.promised[peer.name].clear()
        if will is not None:
            self.note(*will)
        if polite and peer.accepted:
            client.disconnect()
        else:
            client.drop()
        peer.gone()
        self.absorb()
        if will is not None:
            self.left_behind(will[1])

    def left_behind(self, payload: str) -> None:
        """Nobody is told that a will is stored: it is, where the store works."""
        self.unstored.append(payload)
        if not self.slow:
            self.all_is_stored()

    def all_is_stored(self) -> None:
        for payload in self.unstored:
            self.promise(payload)
        self.unstored.clear()

    @precondition(lambda self: self.ready())
    @rule(which=WHICH, topic_filter=FILTERS, qos=QOS)
    def subscribe(self, which: int, topic_filter: str, qos: int) -> None:
        self.subscribe_as(pick(self.ready(), which), topic_filter, qos)

    def subscribe_as(self, peer: Peer, topic_filter: str, qos: int) -> None:
        self.model.subscriptions[peer.name, topic_filter] = qos
        busy = self.slow or self.world.session(peer.name).feeding
        peer.retained_seen.clear()
        self.send(peer, subscribe(self.new_id(), (topic_filter.encode(), qos)))
        if busy:
            return
        at_once = set()
        for topic, (payload, retained_qos) in self.model.retained.items():
            if matches(topic_filter, topic):
                if min(qos, retained_qos) == 0:
                    at_once.add(payload)
                elif self.model.sessions[peer.name] > 0:
                    self.promised[peer.name].add(payload)
        if self.world.session(peer.name).feeding:  # what comes at QoS 0 waits behind what does not fit into the window
            assert peer.retained_seen <= Counter(at_once)
        else:
            assert peer.retained_seen == Counter(at_once)

    @precondition(lambda self: self.ready())
    @rule(which=WHICH, topic_filter=FILTERS)
    def unsubscribe(self, which: int, topic_filter: str) -> None:
        peer = pick(self.ready(), which)
        self.model.subscriptions.pop((peer.name, topic_filter), None)
        self.send(peer, unsubscribe(self.new_id(), topic_filter.encode()))

    @precondition(lambda self: self.ready())
    @rule(which=WHICH, topic=TOPICS, qos=QOS, retain=SELDOM, count=st.integers(1, 6), lost=SELDOM)
    def publish(self, which: int, topic: str, qos: int, retain: bool, count: int, lost: bool) -> None:
        """`lost`: the connection breaks before the client has read an answer."""
        peer = pick(self.ready(), which)
        assert peer.client is not None
        data = b""
        for _ in range(count):
            self.count += 1
            payload = f"{peer.name}/{topic}/{qos} {self.count}"
            packet_id = self.new_id()
            if qos:
                peer.outgoing[packet_id] = Outgoing(packet_id, topic, payload, qos, retain)
            self.note(topic, payload, qos, retain)
            data += publish(topic.encode(), payload.encode(), qos=qos, packet_id=packet_id, retain=retain)
        if lost:
            peer.client.send(data).take()
            self.leave_as(peer, polite=False)
        else:
            self.send(peer, data)
        if qos == 0:
            for name in self.audience[payload]:
                assert not self.peers[name].ready or payload in self.peers[name].ever_seen, f"{name} did not get it"

    @precondition(lambda self: self.ready() and self.model.retained)
    @rule(which=WHICH, topic=TOPICS, qos=QOS)
    def clear(self, which: int, topic: str, qos: int) -> None:
        """An empty message to be retained: none is any more."""
        peer = pick(self.ready(), which)
        packet_id = self.new_id()
        if qos:
            peer.outgoing[packet_id] = Outgoing(packet_id, topic, "", qos, True)
        self.note(topic, "", qos, True)
        self.send(peer, publish(topic.encode(), qos=qos, packet_id=packet_id, retain=True))

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

    @property
    def slow(self) -> bool:
        """Is nothing stored at the moment?"""
        return self.world.lane.held or self.store.broken

    @precondition(lambda self: not self.slow)
    @rule(fails=st.booleans())
    def the_store_stops(self, fails: bool) -> None:
        self.world.settle()
        self.stored = copy.deepcopy(self.model)
        self.stored_wills = self.wills()
        self.world.lane.held = not fails
        self.store.broken = fails

    @precondition(lambda self: self.slow)
    @rule()
    def the_store_catches_up(self) -> None:
        self.world.lane.held = self.store.broken = False
        self.world.settle().advance(2 * RETRY)
        self.absorb()
        assert not self.world.journal.failed
        self.all_is_stored()

    @precondition(lambda self: self.store.broken)
    @rule()
    def the_store_fails_again(self) -> None:
        self.world.advance(2 * RETRY)
        self.absorb()

    @rule(really=SELDOM)
    def crash(self, really: bool) -> None:
        if not really:
            return
        wills = self.wills()
        for peer in self.peers.values():
            peer.gone()
        if self.slow:
            self.model = copy.deepcopy(self.stored)
            wills = self.stored_wills
            self.forgot = True
        self.unstored.clear()
        self.store.broken = False
        self.model.crash()
        self.store = self.reopen()
        limits = self.world.limits
        for will in wills:
            self.note(*will)  # those who were connected are gone
            self.promise(will[1])
        self.world = World(self.store, limits).restore().settle()

    def wills(self) -> list[Will]:
        """Of those who are connected, the oldest first."""
        left = [peer.will for peer in self.peers.values() if peer.will is not None]
        return sorted(left, key=lambda will: int(will[1].rpartition(" ")[2]))

    # --- what the clients see ---

    def new_id(self) -> int:
        self.next_id = self.next_id % 65_535 + 1
        return self.next_id

    def note(self, topic: str, payload: str, qos: int, retain: bool) -> None:
        """The broker takes this message (again, if it forgot it)."""
        if not payload:
            self.model.retained.pop(topic, None)
            return
        self.targets[payload] = self.model.targets(topic, qos)
        self.audience[payload] = self.audience.get(payload, set()) | self.model.audience(topic)
        if retain:
            self.model.retained[topic] = payload, qos
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
        if out.payload:
            self.promise(out.payload)

    def promise(self, payload: str) -> None:
        for name, serial in self.targets[payload]:
            if self.model.sessions.get(name) == serial:
                self.promised[name].add(payload)

    def deliver(self, peer: Peer, one: Sent) -> None:
        _, topic, payload, qos, packet_id, flags = one
        published_by, _, count = payload.rpartition(" ")
        assert not payload or published_by.split("/", 1)[1] == f"{topic}/{published_by[-1]}"
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
        if not payload:
            assert "retain" not in flags
            return
        peer.ever_seen.add(payload)
        if "retain" in flags:
            if qos == 0:
                peer.retained_seen[payload] += 1
            return
        assert peer.name in self.audience[payload], "delivered to who did not ask for it"
        peer.seen[payload, qos] += 1
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
            one.message.topic.decode(): (one.message.payload.decode(), one.message.qos)
            for one in self.world.exchange.retained.matching(b"#")
            if one is not None
        }
        assert kept == self.model.retained

    @invariant()
    def the_window_is_kept(self) -> None:
        for session in self.world.exchange.sessions.values():
            if isinstance(session.queue, Queue):
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
        if self.slow:
            self.the_store_catches_up()
        for name, which in list(self.model.sessions.items()):
            if which > 0:
                self.connect(name, False, None)
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
            assert session.received is None or not session.received.count or session.client_id in self.maybe_revived
        brackets(self.world)


class SqliteMachine(Machine):
    """The same with the real store, which is opened again after each crash."""

    def make_store(self) -> BreakableSqliteStore:
        self.directory = tempfile.mkdtemp(prefix="selectmq-test-")
        return BreakableSqliteStore(self.directory)

    def reopen(self) -> BreakableSqliteStore:
        self.store.close()
        return BreakableSqliteStore(self.directory)

    def teardown(self) -> None:
        try:
            super().teardown()
        finally:
            self.store.close()
            shutil.rmtree(self.directory)


#: Steps in all, four of five with the store in memory; 0: a few, always the same.
STEPS = int(os.environ.get("SELECTMQ_MODEL_STEPS", "0"))


def steps(some: int, share: float) -> settings:
    examples = int(STEPS * share) // 50 + 1 if STEPS else some
    return settings(max_examples=examples, stateful_step_count=50, deadline=None, derandomize=not STEPS, database=None)


TestWithMemoryStore = Machine.TestCase
TestWithMemoryStore.settings = steps(100, 0.8)
TestWithSqliteStore = SqliteMachine.TestCase
TestWithSqliteStore.settings = steps(20, 0.2)
