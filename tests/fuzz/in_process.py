"""A dialogue played on the broker's core, with a clock, a store and sockets that are ours (tests.core.harness).

Owns: the play, and what must hold during it and when all have gone. Must not know: where the dialogue comes from.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator

from broker.core.connection import Connection
from broker.core.intake import CONNECTED
from broker.core.limits import Limits
from broker.core.ports import OF_A_CLIENT, Batch, Challenge, Failed, Outcome, Proved, QueuedMessage, StoreError
from broker.core.session import Session
from broker.core.subscription import shared
from broker.storage.memory import MemoryStore
from broker.wire.codes import ReturnCode
from tests.core.harness import Client, Forbidden, World, brackets
from tests.fuzz import dialogue
from tests.fuzz.dialogue import SECONDS, SLOTS, Step
from tests.raw_client_5 import P, parse
from tests.vectors import PUBACK, PUBCOMP, PUBREC, connect, length, number, packet, publish, string
from tests.vectors5 import METHOD, auth5

seeds = dialogue.seeds

#: Dialogues between two looks for objects that nobody should hold any more (it takes longer than a dialogue).
RARELY = 200
WITNESS = "the witness, whom no dialogue knows"
HERS = b"the witness's own topic"

#: Of the steps of AUTH, in their order.
OUTCOMES: tuple[Outcome, ...] = (
    Challenge(b"more"), Proved("u", b"proof"), Challenge(b""), Failed(ReturnCode.BAD_USER_NAME_OR_PASSWORD, "no"),
    Proved("u", b""), Challenge(b"more"), Challenge(b"still more"), Proved("u2", b""),
)  # fmt: skip

_played = 0


class BreakableStore(MemoryStore):
    """Fails while it is `broken`."""

    broken = False

    def commit(self, batch: Batch) -> None:
        self._try()
        super().commit(batch)

    def fetch(self, session: int, start: int, count: int, size: int) -> list[QueuedMessage]:
        self._try()
        return super().fetch(session, start, count, size)

    def _try(self) -> None:
        if self.broken:
            raise StoreError("broken by the dialogue")


def check(data: bytes) -> None:
    """Raise if the broker does what it must not."""
    global _played
    play = Play()
    for step in dialogue.steps(data):
        play.step(step)
    play.end()
    _played += 1
    if _played % RARELY == 1:
        del play
        _nobody_is_kept()


class Reader:
    """Cuts what the broker sent into packets, and holds it to what a client may rely on."""

    def __init__(self) -> None:
        self.first: bytes | None = None
        self.five = False
        self.over = False  #: DISCONNECT has come
        self.aliases: dict[int, str] = {}

    def packets(self, client: Client) -> Iterator[bytes]:
        data = bytes(client.transport.taken)
        client.transport.taken.clear()
        pos = 0
        while pos < len(data):
            size, at = _size(data, pos)
            whole = data[pos : at + size]
            assert len(whole) == at + size - pos, "a packet that is not whole"
            assert whole[1 : at - pos] == length(size), "a length in too many bytes"
            if self.first is None:
                self._begins(whole)
            elif self.five:
                self._follows_5(whole, client)
            else:
                assert whole[0] >> 4 in (3, 4, 5, 6, 7, 9, 11, 13), f"{whole[:9]!r}"
                assert self.first[3] == 0, "something behind a refusal"
            pos += len(whole)
            yield whole

    def _begins(self, whole: bytes) -> None:
        if whole[0] == 0xF0:  # the client authenticates itself
            assert parse(whole).reason == 0x18
            return
        self.first = whole
        assert whole[0] == 0x20, f"{whole[:9]!r} is the first packet"
        self.five = whole[1] != 2
        if self.five:
            came = parse(whole)
            assert came.reason == 0 or (came.reason >= 0x80 and not came.present), whole
        else:
            assert whole[2:] in (b"\0\0", b"\1\0") or (whole[2] == 0 and 0 < whole[3] < 6), whole

    def _follows_5(self, whole: bytes, client: Client) -> None:
        assert self.first is not None
        assert self.first[3] == 0, "something behind a refusal"
        assert not self.over, f"{whole[:9]!r} behind DISCONNECT"
        came = parse(whole)
        connection = client.connection
        assert not connection.largest or came.size <= connection.largest, f"{whole!r} is too large"
        self.over = came.type == 14
        if came.type != 3:
            return
        alias = came.properties.get(P.ALIAS, 0)
        assert 0 <= alias <= connection.alias_maximum
        assert came.topic or alias in self.aliases, "an alias that was never set"
        if alias and came.topic:
            self.aliases[alias] = came.topic


def _size(data: bytes, pos: int) -> tuple[int, int]:
    size = shift = 0
    for at in range(pos + 1, pos + 5):
        size |= (data[at] & 127) << shift
        shift += 7
        if data[at] < 128:
            return size, at + 1
    raise AssertionError("a length without an end")


class Play:
    """One dialogue, with somebody who keeps to the rules meanwhile."""

    def __init__(self) -> None:
        self.store = BreakableStore()
        limits = Limits(
            max_topic_levels=6, max_subscriptions=6, max_inflight=3, max_queued_messages=30, max_queued_bytes=20_000,
            max_memory_queue=5, max_retained=4, max_retained_bytes=6_000, session_expiry=60.0, max_session_expiry=60.0,
            max_topic_alias=3, receive_maximum=6, response_information="answers/%c",
        )  # fmt: skip
        self.world = World(self.store, limits)
        self.clients: list[Client | None] = [None] * SLOTS
        self.readers = [Reader() for _ in range(SLOTS)]
        self.owed: list[list[bytes]] = [[] for _ in range(SLOTS)]
        self.authentications = 0
        self._witness()

    def _witness(self) -> None:
        self.witness = self.world.dial()
        self.witness_reader = Reader()
        self.witness.connect(WITNESS).send(bytes((0x82, 5 + len(HERS))) + number(1) + number(len(HERS)) + HERS + b"\1")
        assert len(list(self.witness_reader.packets(self.witness))) == 2, self.world.log.lines[-3:]

    # --- the steps ---

    def step(self, step: Step) -> None:
        world = self.world
        if step.act == "send":
            client = self.clients[step.slot]
            if client is None or client.closed:
                client = self._dial(step.slot)
            self._prepare_outcomes()
            client.feed(step.data)
        elif step.act == "answer":
            self._answer(step)
        elif step.act in ("drop", "redial"):
            self._drop(step.slot)
        elif step.act == "wait":
            world.advance(SECONDS[step.number])
        elif step.act in ("stuck", "going"):
            self._stick(step.slot, step.act == "stuck")
        elif step.act in ("hold", "let go"):
            world.lane.held = step.act == "hold"
        elif step.act in ("break", "mend"):
            self.store.broken = step.act == "break"
        elif step.act == "crash":
            self._crash(step)
        elif step.act == "slow doorman":
            world.gatekeeper.slow = not world.gatekeeper.slow
        elif step.act == "decide":
            if world.gatekeeper.steps:
                world.gatekeeper.steps.pop(0)()
            elif world.gatekeeper.pending:
                world.gatekeeper.pending.pop(0)(ReturnCode(step.number % 6 if step.number % 4 == 3 else 0))
        elif step.act == "rights":
            forbidden = Forbidden({b"a/b"}, {b"b"}, {b"#"})
            world.gatekeeper.granted = {"u": forbidden} if step.number & 1 else {}
            list(
                world.exchange.sessions.rights_changed(
                    lambda session: world.gatekeeper.rights(session.username, session.client_id)
                )
            )
        else:
            assert step.act == "expire"
            world.advance(61.0)
        if step.rests:
            self._rest()

    def _prepare_outcomes(self) -> None:
        """Of the next steps of AUTH: which ones, is the dialogue's choice by how much it has said before."""
        outcomes = self.world.gatekeeper.outcomes
        while len(outcomes) < 10:
            self.authentications += 1
            outcomes.append(OUTCOMES[self.authentications % len(OUTCOMES)])

    def _dial(self, slot: int) -> Client:
        client = self.clients[slot] = self.world.dial(max_packet_size=8_000)
        self.readers[slot] = Reader()
        self.owed[slot] = []
        return client

    def _answer(self, step: Step) -> None:
        client = self.clients[step.slot]
        count = 1 + step.number % 9
        answers, self.owed[step.slot] = self.owed[step.slot][:count], self.owed[step.slot][count:]
        if client is not None and not client.closed:
            client.feed(b"".join(answers))

    def _drop(self, slot: int) -> None:
        client, self.clients[slot] = self.clients[slot], None
        if client is not None and not client.closed:
            client.connection.lost("closed by the client without DISCONNECT")
            client.transport.close()

    def _stick(self, slot: int, stuck: bool) -> None:
        client = self.clients[slot]
        if client is None or client.closed or client.transport.stuck == stuck:
            return
        if not stuck:
            client.get_going()
        elif client.connection.state == CONNECTED:  # before, nothing was sent that could get stuck
            client.get_stuck()

    def _crash(self, step: Step) -> None:
        if step.number % 4 or self.store.broken:
            return
        self._no_bugs()
        self.clients = [None] * SLOTS
        slow, granted = self.world.gatekeeper.slow, self.world.gatekeeper.granted
        self.world = World(self.store, self.world.limits, now=self.world.now)
        self.world.gatekeeper.granted = granted
        self.world.restore().settle()
        self._witness()
        self.world.gatekeeper.slow = slow

    # --- what must hold ---

    def _rest(self) -> None:
        self.world.settle()
        for slot, client in enumerate(self.clients):
            if client is None:
                continue
            for one in self.readers[slot].packets(client):
                answer = _answer_to(one)
                if answer:
                    self.owed[slot].append(answer)
            if client.closed:
                self.clients[slot] = None
        list(self.witness_reader.packets(self.witness))
        self._no_bugs()

    def _no_bugs(self) -> None:
        lines = self.world.log.lines
        assert self.world.exchange.stats.bugs == 0, lines[-3:]
        assert not [line for line in lines if line[0] == "exception" or line[1].startswith("bug")], lines[-3:]
        assert not self.witness.closed, lines[-3:]

    def end(self) -> None:
        """All troubles cease, others are still served, all leave, and nothing is left of them."""
        world = self.world
        self.store.broken = world.lane.held = world.gatekeeper.slow = False
        world.gatekeeper.code = ReturnCode.ACCEPTED
        while world.gatekeeper.pending or world.gatekeeper.steps:
            if world.gatekeeper.steps:
                self._prepare_outcomes()
                world.gatekeeper.steps.pop(0)()
            else:
                world.gatekeeper.pending.pop(0)(ReturnCode.ACCEPTED)
        for slot in range(SLOTS):
            self._stick(slot, False)
        world.settle().advance(2.5)
        self._rest()
        brackets(world)
        assert not world.journal.failed
        self._witness_is_served()
        for slot in range(SLOTS):
            self._drop(slot)
        self.witness.drop()
        world.clients.clear()
        world.settle().advance(1_000.0)
        self._no_connections()
        self._nothing_of_anybody()

    def _witness_is_served(self) -> None:
        for qos in (0, 1):
            payload = b"to herself at %d" % qos
            self.witness.send(publish(HERS, payload, qos=qos, packet_id=qos))
            came = list(self.witness_reader.packets(self.witness))
            [message] = [one for one in came if one[0] >> 4 == 3 and payload in one]
            if qos:
                assert packet(PUBACK, number(1)) in came
                self.witness.send(_answer_to(message))

    def _no_connections(self) -> None:
        exchange = self.world.exchange
        brackets(self.world)
        assert exchange.sessions.connected == 0
        # Messages may expire in some years.
        assert len(self.world.timers) <= min(1, len(exchange.perishing)), "timers are left"
        for session in exchange.sessions.values():
            assert session.connection is None
            assert session.store_id, "a session that should have ended with its connection"
        subscribed = [one for session in exchange.sessions.values() for one in session.subscriptions or ()]
        groups = {one for one in map(shared_name, subscribed) if one}
        plain = [one for one in subscribed if shared_name(one) is None]
        assert (exchange.router.count, len(exchange.shares)) == (len(plain) + len(groups), len(groups))
        stored = self.store.load().sessions
        assert {one.record.client_id for one in stored if one.record.kind == OF_A_CLIENT} == set(exchange.sessions)
        assert len(stored) == len(exchange.sessions) + len(groups)
        assert exchange.wills._wills == {}, "a will was forgotten"

    def _nothing_of_anybody(self) -> None:
        world = self.world
        exchange = world.exchange
        for client_id in list(exchange.sessions):
            client = world.dial()
            # With a user name, as some of these sessions are a user's.
            client.send(connect(client_id.encode(), flags=0x82, rest=string(b"cleaner")))
            assert bytes(client.transport.taken) == b"\x20\x02\0\0", world.log.lines[-3:]
            client.drop()
        kept = [record.message.topic for record in self.store.load().retained]
        assert exchange.retained.count == len(kept), "the store retains other messages"
        assert [topic for topic in kept if exchange.retained.get(topic) is None] == []
        cleaner = world.dial().connect("cleaner")
        for topic in kept:
            cleaner.send(publish(topic, retain=True))
        cleaner.drop()
        world.clients.clear()
        world.advance(10.0)
        assert exchange.sessions == {}
        assert len(exchange.shares) == 0
        # That of retained messages is counted when it is asked for.
        sizes = {name: part.size for name, part in exchange.memory.parts.items() if part.size and name != "retained"}
        assert sizes == {}, "memory is counted that nobody has"
        assert (exchange.retained.count, exchange.retained.size, exchange.retained._tree) == (0, 0, {})
        router = exchange.router
        assert (router.count, router._exact) == (0, {})
        assert (router._tree.root.children, router._tree.root.here, router._tree.root.rest) == ({}, None, None)
        left = {name: value for name, value in vars(self.store).items() if value and name != "_clock"}
        assert left == {}, "something is left in the store"
        journal = world.journal
        assert (journal.touched, journal._fetches, journal._paused, exchange.feeding._hungry) == (set(), {}, [], set())
        assert len(world.timers) <= min(1, len(exchange.perishing))
        brackets(world)


def _answer_to(one: bytes) -> bytes:
    """What a client that keeps to the rules answers."""
    kind = one[0] >> 4
    if kind == 3 and one[0] & 6:
        at = 1 + len(length(_size(one, 0)[0]))
        at += 2 + int.from_bytes(one[at : at + 2], "big")
        return packet(PUBACK if one[0] & 6 == 2 else PUBREC, one[at : at + 2])
    if kind == 5:
        return packet(0x62, one[2:4])
    if kind == 6:
        return packet(PUBCOMP, one[2:4])
    return auth5(0x18, METHOD) if kind == 15 else b""


def shared_name(topic_filter: bytes) -> bytes | None:
    """Of the group that this filter is for; None: it is for none."""
    found = shared(topic_filter)
    return None if found is None else found[0]


def _nobody_is_kept() -> None:
    gc.collect()
    kept = [one for one in gc.get_objects() if isinstance(one, Connection | Session)]
    assert kept == [], f"{len(kept)} connections and sessions are held by somebody, of this dialogue or one before"
