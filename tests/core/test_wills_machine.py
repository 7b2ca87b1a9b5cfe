"""Clients of both versions that come and go in any order while time passes and the broker is killed: what becomes of
their sessions and wills is what a plain model says.

The normal suite takes a few thousand steps, always the same ones; SELECTMQ_MODEL_STEPS=100000 (`tox -e model`) takes so
many new ones.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from broker.core.limits import Limits
from tests.core.five import NEVER, NORMAL, WITH_WILL, Client5, dial5, will5
from tests.core.harness import Client, World, brackets
from tests.core.test_core_machine import steps
from tests.vectors import PUBACK, number, packet

NAMES = ("ann", "bob", "eve")
#: Session expiry of clients of MQTT 3.1.1, and the most that those of 5.0 get.
OPTION, CAP = 40.0, 60.0
WHO = st.sampled_from(NAMES)
EXPIRIES = st.sampled_from((0, 10, 30, NEVER))
DELAYS = st.sampled_from((None, 0, 5, 20, NEVER))
#: Of no two sums of these is the difference a number of whole seconds.
WAITS = st.sampled_from((1.3713, 7.1131, 31.7717))


@dataclass
class Life:
    """What the broker has to know of one client."""

    expiry: float  #: seconds that the session lasts without its client
    will: str | None  #: its payload
    delay: float = 0.0
    ends: float | None = None  #: when the session ends; None: its client is there
    due: float | None = None  #: when the will is published; None: not yet known


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.world = World(limits=Limits(session_expiry=OPTION, max_session_expiry=CAP)).restore().settle()
        self.lives: dict[str, Life] = {}
        self.clients: dict[str, Client] = {}
        self.expected: Counter[str] = Counter()
        self.seen: Counter[str] = Counter()
        self.count = 0
        self.watcher = self.world.join("watcher", clean=False)
        self.watcher.subscribe(("will/#", 1)).take()

    # --- the model ---

    def publish(self, life: Life) -> None:
        if life.will is not None:
            self.expected[life.will] += 1
            life.will = None

    def gone(self, name: str) -> None:
        """Its client has gone."""
        life = self.lives[name]
        self.clients.pop(name)
        now = self.world.now
        life.ends = now + life.expiry
        life.delay = min(life.delay, life.expiry)
        life.due = now + life.delay
        self.pass_time()

    def end(self, name: str) -> None:
        self.publish(self.lives.pop(name))

    def pass_time(self) -> None:
        now = self.world.now + 1e-6
        for name, life in list(self.lives.items()):
            if life.due is not None and life.due <= now:
                self.publish(life)
            if life.ends is not None and life.ends <= now:
                self.end(name)

    # --- what happens ---

    @rule(name=WHO, five=st.booleans(), clean=st.booleans(), expiry=EXPIRIES, delay=DELAYS)
    def come(self, name: str, five: bool, clean: bool, expiry: int, delay: int | None) -> None:
        self.count += 1
        payload = f"{name} {self.count}"
        if name in self.clients:
            self.gone(name)  # it is taken over
        if clean and name in self.lives:
            self.end(name)
        present = name in self.lives
        if five:
            lasts = min(CAP, float(expiry))
            will = None if delay is None else will5("will/x", payload, delay=delay)
            client: Client = dial5(self.world, name, clean=clean, expiry=expiry, will=will)
            assert isinstance(client, Client5)
            assert client.present == present
        else:
            lasts = 0.0 if clean else OPTION
            client = self.world.dial()
            client.connect(name, clean=clean, will=None if delay is None else ("will/x", payload, 1, False))
            assert client.take(1) == [("CONNACK", int(present), 0)]
        self.clients[name] = client
        left = None if delay is None else payload
        self.lives[name] = Life(lasts, left, float(delay or 0) if five else 0.0)

    @precondition(lambda self: self.clients)
    @rule(which=st.integers(0, 2), how=st.sampled_from((NORMAL, WITH_WILL, None)), change=st.none() | EXPIRIES)
    def leave(self, which: int, how: int | None, change: int | None) -> None:
        name = sorted(self.clients)[which % len(self.clients)]
        client, life = self.clients[name], self.lives[name]
        if how is None:
            client.drop()
        elif not isinstance(client, Client5):
            client.disconnect()
            life.will = None
        else:
            if change and not life.expiry:
                change = None  # it would be an error
            client.leave(how, change)
            if change is not None:
                life.expiry = min(CAP, float(change))
            if how == NORMAL:
                life.will = None
        self.gone(name)

    @rule(seconds=WAITS)
    def wait(self, seconds: float) -> None:
        self.world.advance(seconds)
        self.pass_time()

    @rule(really=st.sampled_from((False, False, True)))
    def crash(self, really: bool) -> None:
        """What was away has its whole time again: the times are shorter than the grace after a start."""
        if not really:
            return
        self.look()
        for name in list(self.clients):
            self.lives[name].ends = self.lives[name].due = 0.0
            self.lives[name].delay = min(self.lives[name].delay, self.lives[name].expiry)
        self.clients.clear()
        for life in self.lives.values():
            life.ends = self.world.now + life.expiry
            life.due = self.world.now + life.delay
        self.pass_time()
        self.world = self.world.crash()
        self.watcher = self.world.join("watcher", clean=False, expect=("CONNACK", 1, 0))

    # --- what must hold ---

    def look(self) -> None:
        for one in self.watcher.take():
            if one[0] == "PUBLISH":
                self.seen[one[2]] += 1
                self.watcher.send(packet(PUBACK, number(one[4])))

    @invariant()
    def wills_are_published_when_they_are_due_and_once(self) -> None:
        self.look()
        assert self.seen == self.expected

    @invariant()
    def sessions_and_wills_are_those_of_the_model(self) -> None:
        exchange = self.world.exchange
        assert set(exchange.sessions) == {*self.lives, "watcher"}
        snapshot = self.world.store.load()
        stored = {one.record.client_id for one in snapshot.sessions}
        assert {name for name, life in self.lives.items() if life.expiry} <= stored <= {*self.lives, "watcher"}
        waiting = sorted(life.will for life in self.lives.values() if life.will is not None)
        assert sorted(will.payload.decode() for will in snapshot.wills.values()) == waiting
        brackets(self.world)

    def teardown(self) -> None:
        for client in self.clients.values():
            client.drop()
        self.watcher.disconnect()
        self.world.advance(10 * CAP)
        exchange = self.world.exchange
        assert (len(exchange.sessions), exchange.memory.clients.size, exchange.wills._held) == (0, 0, 0)
        brackets(self.world)


TestWills = Machine.TestCase
TestWills.settings = steps(60, 0.2)
