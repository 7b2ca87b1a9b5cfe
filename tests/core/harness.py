"""A broker's core without sockets, threads and clocks: a real Exchange with a real store, and clients that speak bytes.

Owns: the fakes of core.ports (Transport, Lane, Log, Scheduler, Gatekeeper, Rights), the order of a turn as the server
drives it, and a reader for what the broker sends that shares nothing with the broker's codec.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable
from typing import Any

from broker.core import admission
from broker.core.clock import Clock
from broker.core.connection import Connection
from broker.core.exchange import Exchange
from broker.core.intake import CLOSED
from broker.core.journal import Journal
from broker.core.limits import Limits
from broker.core.ports import Dialogue, GiveUp, Outcome, RetainedRecord, Rights, Store, Verdict
from broker.core.session import Session
from broker.core.timers import Timers
from broker.storage.memory import MemoryStore
from broker.wire.codes import VERSIONS, ReturnCode
from broker.wire.packets import Connect
from tests import vectors

_NAMES = {
    2: "CONNACK", 4: "PUBACK", 5: "PUBREC", 6: "PUBREL", 7: "PUBCOMP", 9: "SUBACK", 11: "UNSUBACK", 13: "PINGRESP",
}  # fmt: skip

#: Seconds that pass of themselves while the broker comes to rest: less than any limit in these tests.
MOMENT = 0.01

#: A packet that the broker sent: its name and what it says. PUBLISH: ("PUBLISH", topic, payload, qos, packet_id, flags)
#: with the flags "", "dup", "retain" or "dup retain", and 0 as the packet_id at QoS 0.
Sent = tuple[Any, ...]


def read_packets(data: bytes) -> list[Sent]:
    """What stands in a block of whole packets."""
    packets: list[Sent] = []
    pos = 0
    while pos < len(data):
        first = data[pos]
        pos += 1
        size = shift = 0
        while True:
            byte = data[pos]
            pos += 1
            size |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        body = data[pos : pos + size]
        assert len(body) == size, "the broker sent a packet that is not whole"
        pos += size
        packets.append(_meaning(first, body))
    return packets


def _meaning(first: int, body: bytes) -> Sent:
    kind = first >> 4
    if kind == 3:
        qos = first >> 1 & 3
        end = 2 + int.from_bytes(body[:2], "big")
        packet_id = 0
        payload_at = end
        if qos:
            packet_id = int.from_bytes(body[end : end + 2], "big")
            payload_at += 2
        flags = " ".join(name for name, bit in (("dup", 8), ("retain", 1)) if first & bit)
        return "PUBLISH", body[2:end].decode(), body[payload_at:].decode(), qos, packet_id, flags
    assert first & 15 == (2 if kind == 6 else 0), f"the broker sent the header flags {first & 15:04b}"
    name = _NAMES[kind]
    if kind == 2:
        return name, *body
    if kind == 13:
        assert body == b""
        return (name,)
    packet_id = int.from_bytes(body[:2], "big")
    if kind == 9:
        return name, packet_id, list(body[2:])
    assert len(body) == 2
    return name, packet_id


class FakeTransport:
    """Implements core.ports.Transport: what is flushed is at the client, unless `stuck` says that it takes nothing."""

    def __init__(self) -> None:
        self.out: list[bytes] = []
        self.peer = "192.0.2.1:1000"
        self.identity: str | None = None
        self.taken = bytearray()
        self.unsent = bytearray()
        self.stuck = False
        self.closed = 0
        self.reading = True
        self.congest: Callable[[int], None] = lambda waiting: None

    def flush(self) -> None:
        assert not (self.closed and self.out), "something was produced for a client that is gone"
        produced = b"".join(self.out)
        self.out.clear()
        if self.stuck:
            self.unsent += produced
            if produced:
                self.congest(len(self.unsent))
        else:
            self.taken += produced

    def close(self, gently: bool = True) -> None:
        if not self.closed:
            self.flush()
        self.out.clear()
        self.closed += 1

    def pause_reading(self) -> None:
        assert self.reading
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.reading
        self.reading = True


class FakeLog:
    """Implements core.ports.Log: keeps (level, event, fields)."""

    debugging = False

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, object]]] = []

    def debug(self, event: str, **fields: object) -> None:
        self.lines.append(("debug", event, fields))

    def info(self, event: str, **fields: object) -> None:
        self.lines.append(("info", event, fields))

    def warning(self, event: str, **fields: object) -> None:
        self.lines.append(("warning", event, fields))

    def error(self, event: str, **fields: object) -> None:
        self.lines.append(("error", event, fields))

    def exception(self, event: str, error: BaseException, **fields: object) -> None:
        self.lines.append(("exception", event, {"error": error, **fields}))

    def events(self, *levels: str) -> list[str]:
        return [event for level, event, _ in self.lines if level in levels]

    def fields(self, event: str) -> list[dict[str, object]]:
        return [fields for _, line, fields in self.lines if line == event]


class FakeLane:
    """Implements core.ports.Lane: a job runs when `step` is called; `held` keeps `World.settle` from calling it."""

    def __init__(self) -> None:
        self.jobs: list[tuple[Callable[[], object], Callable[[object, Exception | None], None]]] = []
        self.held = False
        self.submitted = 0

    def submit(self, job: Callable[[], object], done: Callable[[object, Exception | None], None]) -> None:
        self.submitted += 1
        self.jobs.append((job, done))

    def step(self) -> None:
        """Run the oldest job and report it."""
        job, done = self.jobs.pop(0)
        try:
            result = job()
        except Exception as error:
            done(None, error)
        else:
            done(result, None)


REFUSAL = "the gatekeeper of a test says so"


class FakeGatekeeper:
    """Implements core.ports.Gatekeeper: `code` is the answer; with `slow`, it comes when `decide` is called."""

    def __init__(self) -> None:
        self.listener = "127.0.0.1:1883"
        self.max_keepalive = 0.0
        self.code = ReturnCode.ACCEPTED
        self.slow = False
        self.asked: list[Connect] = []
        self.allow_user_change = False
        self.pending: list[Callable[[ReturnCode], None]] = []
        self.given_up: list[Connect] = []
        self.granted: dict[str | None, Rights] = {}  #: by user name
        self.outcomes: list[Outcome] = []  #: of dialogues, in their order
        self.told: list[tuple[str | None, str | None, bytes]] = []  #: who said what in dialogues
        self.steps: list[Callable[[], None]] = []
        self.given_up_steps: list[bytes] = []

    def admit(
        self, connect: Connect, peer: str, decided: Callable[[Verdict], None], proved: bool = False
    ) -> Verdict | GiveUp:
        self.asked.append(connect)
        if not self.slow:
            return Verdict(self.code, REFUSAL)
        self.pending.append(lambda code: decided(Verdict(code, REFUSAL)))
        return lambda: self.given_up.append(connect)

    @property
    def methods(self) -> Collection[str]:
        return ("SCRAM-SHA-256",)

    def begin(self, method: str, client_id: str | None, username: str | None, peer: str) -> Dialogue | None:
        return FakeDialogue(self, (client_id, username)) if method in self.methods else None

    @property
    def proves_names(self) -> bool:
        return True

    def proven_name(self, username: str | None) -> str | None:
        return username

    def may_take_over(self, owner: str, username: str | None) -> bool:
        return username == owner or (self.allow_user_change and username is not None)

    def origin(self, peer: str) -> str:
        return peer.rpartition(":")[0]

    def rights(self, username: str | None, client_id: str) -> Rights | None:
        return self.granted.get(username)

    def may_publish(self, record: RetainedRecord) -> bool:
        """For Feeding.may_publish."""
        rights = self.rights(record.username, record.client_id)
        return rights is None or rights.may_publish(record.message.topic)


class FakeDialogue:
    """Implements core.ports.Dialogue: the next of the gatekeeper's `outcomes` comes; with `slow`, when the next of its
    `steps` is called."""

    def __init__(self, keeper: FakeGatekeeper, who: tuple[str | None, str | None]) -> None:
        self.keeper = keeper
        self.who = who  #: the Client Identifier and the user name that it was begun with

    def step(self, data: bytes, decided: Callable[[Outcome], None]) -> Outcome | GiveUp:
        self.keeper.told.append((*self.who, data))
        outcome = self.keeper.outcomes.pop(0)
        if not self.keeper.slow:
            return outcome
        self.keeper.steps.append(lambda: decided(outcome))
        return lambda: self.keeper.given_up_steps.append(data)


class FakePlace:
    """Implements core.ports.Place: on a listener with so many places."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.taken = False

    def heard(self) -> bool:
        return self.world.room > 0

    def take(self) -> bool:
        if self.world.room <= 0:
            return False
        self.world.room -= 1
        self.taken = True
        return True

    def leave(self) -> None:
        self.world.room += self.taken
        self.taken = False


class Forbidden:
    """Implements core.ports.Rights: everything is allowed but for these topics and filters."""

    def __init__(
        self, publish: Iterable[bytes] = (), receive: Iterable[bytes] = (), subscribe: Iterable[bytes] = ()
    ) -> None:
        self.publish = set(publish)
        self.receive = set(receive)
        self.subscribe = set(subscribe)
        self.effort = 0

    def may_publish(self, topic: bytes) -> bool:
        return topic not in self.publish

    def may_surely_publish(self, topic: bytes) -> bool:
        return self.may_publish(topic)

    def may_receive(self, topic: bytes) -> bool:
        return topic not in self.receive

    def may_subscribe(self, topic_filter: bytes) -> bool:
        return topic_filter not in self.subscribe


class World:
    """A core at work: whatever happens to it is followed by the turns that it causes, and by no others."""

    def __init__(
        self,
        store: Store | None = None,
        limits: Limits | None = None,
        *,
        now: float = 1_000.0,
        epoch: float = 1_700_000_000.0,
    ) -> None:
        self.store: Store = store if store is not None else MemoryStore()
        self.limits = limits if limits is not None else Limits()
        self.log = FakeLog()
        self.lane = FakeLane()
        self.timers = Timers()
        self.now = self.timers.now = now
        self.room = 1_000_000  #: for clients
        self.epoch = epoch  #: the system's clock is this much ahead of `now`
        self.versions = VERSIONS  #: of MQTT, that clients may speak
        self.gatekeeper = FakeGatekeeper()
        self._soon: list[Callable[[], None]] = []
        self._texts = itertools.count(1)
        self.turns = 0
        self.journal = Journal(self.store, self.lane, self.timers, self.log)
        clock = Clock(now, self.epoch + now)
        self.exchange = Exchange(self.journal, self.timers, self.limits, self.log, self, clock, self.unguessable)
        self.exchange.feeding.may_publish = self.gatekeeper.may_publish
        self.clients: list[Client] = []

    def unguessable(self) -> str:
        return str(next(self._texts))

    def restore(self) -> World:
        """Begin with what the store holds, as at a start."""
        self.exchange.restore(
            self.store.load(), lambda session: self.gatekeeper.rights(session.proven_name, session.client_id)
        )
        return self

    def crash(self) -> World:
        """What stands up again after this one was killed: the same store, and nothing else."""
        again = World(self.store, self.limits, now=self.now, epoch=self.epoch)
        again.gatekeeper.granted = self.gatekeeper.granted
        return again.restore().settle()

    # --- core.ports.Scheduler ---

    def soon(self, function: Callable[[], None]) -> None:
        self._soon.append(function)

    def in_turn(self, function: Callable[[], None]) -> None:
        self._soon.append(function)

    @property
    def heard_until(self) -> float:
        return self.timers.now

    # --- the turns, in the order of net.loop and server ---

    def turn(self) -> None:
        """One turn of the loop, for what has happened."""
        self.turns += 1
        soon, self._soon = self._soon, []
        for function in soon:
            function()
        exchange = self.exchange
        turn = exchange.turn
        turn.pump()
        exchange.journal.end_of_turn()
        turn.pump()
        while turn.dirty:
            dirty, turn.dirty = turn.dirty, set()
            for connection in dirty:
                connection.flush()
        exchange.end_of_turn()

    def settle(self, turns: int = 100_000) -> World:
        """Run the turns that are due, until the loop would sleep with nothing to wait for but clients and clocks."""
        self.turn()
        while turns:
            turns -= 1
            if self.lane.jobs and not self.lane.held:
                self.lane.step()
            elif not self._soon and not self._wake_by_clock(self.now + MOMENT):
                return self
            self.turn()
        raise AssertionError("it does not come to rest")

    def _wake_by_clock(self, end: float) -> bool:
        due = self.timers.next_due()
        if due is None or due > end:
            return False
        self.now = max(self.now, due)
        self.timers.run(self.now)
        return True

    def advance(self, seconds: float) -> World:
        """Let time pass, in steps from deadline to deadline."""
        end = self.now + seconds
        while self._wake_by_clock(end):
            self.settle()
        self.now = self.timers.now = max(end, self.now)
        return self

    # --- clients ---

    def dial(self, *, connect_timeout: float = 10.0, max_packet_size: int = 1 << 20) -> Client:
        """A network connection on which nothing was said yet."""
        return Client(self, connect_timeout, max_packet_size)

    def join(self, client_id: str = "c", *, clean: bool = True, expect: Sent | None = None, **options: Any) -> Client:
        """A client whose CONNECT was accepted; the answer is taken."""
        client = self.dial()
        client.connect(client_id, clean=clean, **options)
        [answer] = client.take(1)
        assert answer[0] == "CONNACK"
        assert answer[2] == 0
        assert expect is None or answer == expect
        return client

    def session(self, client_id: str) -> Session:
        return self.exchange.sessions[client_id]


class Client:
    """The other end of a connection."""

    def __init__(self, world: World, connect_timeout: float, max_packet_size: int) -> None:
        self.world = world
        self.transport = FakeTransport()
        self.connection = Connection(
            world.exchange,
            world.gatekeeper,
            self.transport,
            world.now,
            connect_timeout,
            max_packet_size,
            FakePlace(world),
            admission.FIRST,
            world.versions,
        )
        self.transport.congest = self.connection.congest
        self._seen: list[Sent] = []
        world.clients.append(self)

    # --- what the client does; the turns that follow are run ---

    def feed(self, *data: bytes) -> Client:
        """Bytes arrive; no turn ends."""
        for piece in data:
            self.world.timers.now = self.world.now
            self.connection.receive(piece, self.world.now)
        return self

    def send(self, *data: bytes) -> Client:
        """Bytes arrive in one block, and the broker does what follows from it."""
        self.feed(b"".join(data))
        self.world.settle()
        return self

    def connect(
        self,
        client_id: str = "c",
        *,
        clean: bool = True,
        keep_alive: int = 0,
        will: tuple[str, str, int, bool] | None = None,
        username: str | None = None,
        version: int = 4,
        bridge: bool = False,
        behind: bytes = b"",
    ) -> Client:
        """Send a CONNECT, and what stands `behind` it in the same block. `bridge`: the client says that it is one."""
        flags = 0x02 if clean else 0
        rest = b""
        if will is not None:
            topic, payload, qos, retain = will
            flags |= 0x04 | qos << 3 | retain << 5
            rest += vectors.string(topic.encode()) + vectors.string(payload.encode())
        if username is not None:
            flags |= 0x80
            rest += vectors.string(username.encode())
        name = b"MQTT" if version == 4 else b"MQIsdp"
        level = version | (0x80 if bridge else 0)
        identifier = client_id.encode()
        first = vectors.connect(identifier, flags=flags, keep_alive=keep_alive, name=name, level=level, rest=rest)
        return self.send(first + behind)

    def subscribe(self, *wanted: tuple[str, int], packet_id: int = 1) -> Client:
        return self.send(vectors.subscribe(packet_id, *((name.encode(), qos) for name, qos in wanted)))

    def unsubscribe(self, *filters: str, packet_id: int = 1) -> Client:
        return self.send(vectors.unsubscribe(packet_id, *(name.encode() for name in filters)))

    def publish(
        self,
        topic: str,
        payload: str = "",
        qos: int = 0,
        packet_id: int = 1,
        *,
        retain: bool = False,
        dup: bool = False,
    ) -> Client:
        return self.send(
            vectors.publish(topic.encode(), payload.encode(), qos=qos, packet_id=packet_id, retain=retain, dup=dup)
        )

    def puback(self, *packet_ids: int) -> Client:
        return self._acknowledge(vectors.PUBACK, packet_ids)

    def pubrec(self, *packet_ids: int) -> Client:
        return self._acknowledge(vectors.PUBREC, packet_ids)

    def pubrel(self, *packet_ids: int) -> Client:
        return self._acknowledge(vectors.PUBREL, packet_ids)

    def pubcomp(self, *packet_ids: int) -> Client:
        return self._acknowledge(vectors.PUBCOMP, packet_ids)

    def _acknowledge(self, first: int, packet_ids: tuple[int, ...]) -> Client:
        return self.send(*(vectors.packet(first, vectors.number(packet_id)) for packet_id in packet_ids))

    def ping(self) -> Client:
        return self.send(vectors.PINGREQ)

    def disconnect(self) -> Client:
        return self.send(vectors.DISCONNECT)

    def drop(self) -> Client:
        """The network connection breaks."""
        self.connection.lost("closed by the client without DISCONNECT")
        self.transport.close()
        self.world.settle()
        return self

    def get_stuck(self) -> Client:
        """The client takes nothing more, and so much is unsent that the transport says so."""
        self.transport.stuck = True
        self.connection.congest(len(self.transport.unsent))
        return self

    def get_going(self) -> Client:
        """The client takes all that was unsent."""
        self.transport.stuck = False
        self.transport.taken += self.transport.unsent
        self.transport.unsent.clear()
        self.connection.relieve()
        self.world.settle()
        return self

    # --- what the client gets ---

    def is_read(self) -> bool:
        """Does the broker take what the client sends?"""
        return self.transport.reading

    @property
    def closed(self) -> bool:
        """Is the network connection closed by the broker?"""
        assert (self.connection.state == CLOSED) == (self.transport.closed > 0)
        return self.transport.closed > 0

    def take(self, count: int | None = None) -> list[Sent]:
        """What has arrived since the last time: all of it, or the first `count` packets."""
        self._seen += read_packets(bytes(self.transport.taken))
        self.transport.taken.clear()
        count = len(self._seen) if count is None else count
        taken, self._seen = self._seen[:count], self._seen[count:]
        return taken

    def unread(self, packets: list[Sent]) -> None:
        """Put back what was taken."""
        self._seen[:0] = packets

    def payloads(self) -> list[str]:
        """The payloads of what has arrived since the last time, which must be PUBLISHes only."""
        packets = self.take()
        assert {one[0] for one in packets} <= {"PUBLISH"}, packets
        return [one[2] for one in packets]


def published(topic: str, payload: str = "", qos: int = 0, packet_id: int = 0, flags: str = "") -> Sent:
    """A PUBLISH as `Client.take` gives it."""
    return "PUBLISH", topic, payload, qos, packet_id, flags


def brackets(world: World) -> None:
    """What must hold of any core at rest: nobody waits, and no bug was met."""
    assert world.exchange.stats.bugs == 0, world.log.lines[-3:]
    assert world.log.events("exception") == []
    assert world.exchange.turn.dirty == set()
    assert world.exchange.turn.thirsty == []
    if not world.lane.held and not world.journal.failed:
        assert world.journal.idle
