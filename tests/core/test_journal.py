"""The group commit: nothing is acknowledged before it is stored, in order, whatever fails meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from broker.core.identifiers import Identifiers, Unreleased
from broker.core.journal import MAX_FETCHES, MAX_GATHERED, PATIENCE, RETRY, Journal
from broker.core.limits import Limits
from broker.core.memory import Memory
from broker.core.ports import Batch, QueuedMessage, RetainedRecord, SessionRecord, StoreError
from broker.core.session import Discard, Session
from broker.core.timers import Timers
from broker.storage.memory import MemoryStore
from broker.wire.message import Message
from tests.core.harness import FakeLane, FakeLog, World, brackets, published
from tests.storage.store_tools import held, will
from tests.vectors import PUBACK, number, packet
from tests.vectors import publish as publish_packet


class Store(MemoryStore):
    """Keeps what it was asked, and fails as often as `failures` says."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[Batch] = []
        self.fetches: list[int] = []
        self.failures: list[Exception] = []
        self.fetch_failures: list[Exception] = []

    def commit(self, batch: Batch) -> None:
        if self.failures:
            raise self.failures.pop(0)
        self.batches.append(batch)
        super().commit(batch)

    def fetch(self, session: int, start: int, count: int, size: int) -> list[QueuedMessage]:
        if self.fetch_failures:
            raise self.fetch_failures.pop(0)
        self.fetches.append(session)
        return super().fetch(session, start, count, size)


class Bench:
    """A journal by itself."""

    def __init__(self) -> None:
        self.store = Store()
        self.lane = FakeLane()
        self.timers = Timers()
        self.log = FakeLog()
        self.journal = Journal(self.store, self.lane, self.timers, self.log)
        self.called: list[Any] = []

    def session(self, number: int) -> None:
        """Something to store."""
        self.journal.save_session(SessionRecord(number, f"c{number}", None, None, None))

    def wait(self, name: Any) -> None:
        self.journal.when_stored(self.called.append, name)

    def again(self, now: float) -> None:
        """Do what is due."""
        self.timers.run(now)
        self.journal.end_of_turn()
        while self.lane.jobs:
            self.finish()

    def finish(self) -> None:
        """Let the commit under way end, and the turn in which that is told."""
        self.lane.step()
        self.journal.end_of_turn()


@pytest.fixture
def bench() -> Bench:
    return Bench()


# --- when it is stored -------------------------------------------------------------------------------------------


def test_without_changes_nothing_is_stored_and_who_waits_is_called_at_the_end_of_the_turn(bench: Bench) -> None:
    bench.wait("a")
    bench.wait("b")
    assert (bench.called, bench.journal.idle) == ([], False)
    bench.journal.end_of_turn()
    assert (bench.called, bench.lane.jobs, bench.journal.idle) == (["a", "b"], [], True)


def test_who_waits_is_called_when_the_store_has_it_and_not_before(bench: Bench) -> None:
    bench.wait("before")
    bench.session(1)
    bench.wait("after")
    bench.journal.end_of_turn()
    assert (bench.called, len(bench.lane.jobs), bench.journal.idle) == ([], 1, False)
    bench.journal.end_of_turn()
    assert (bench.called, len(bench.lane.jobs)) == ([], 1)
    bench.finish()
    assert (bench.called, bench.journal.idle, bench.journal.commits) == (["before", "after"], True, 1)
    assert [batch.sessions for batch in bench.store.batches] == [{1: SessionRecord(1, "c1", None, None, None)}]


def test_what_comes_while_a_commit_runs_is_one_commit_after_it(bench: Bench) -> None:
    bench.session(1)
    bench.wait("first")
    bench.journal.end_of_turn()
    for i in range(2, 10):
        bench.session(i)
        bench.wait(i)
        bench.journal.end_of_turn()
    assert len(bench.lane.jobs) == 1
    bench.finish()
    assert (bench.called, len(bench.lane.jobs)) == (["first"], 1)
    bench.finish()
    assert bench.called == ["first", *range(2, 10)]
    assert [sorted(batch.sessions) for batch in bench.store.batches] == [[1], list(range(2, 10))]


def test_who_waits_for_nothing_of_its_own_waits_for_what_was_before_it(bench: Bench) -> None:
    """Calls come in the order asked for, so one that has nothing to store keeps its place."""
    bench.session(1)
    bench.journal.end_of_turn()
    bench.wait("has nothing to store")
    bench.journal.end_of_turn()
    assert bench.called == []
    bench.finish()
    assert bench.called == ["has nothing to store"]


def test_a_batch_holds_final_states(bench: Bench) -> None:
    journal = bench.journal
    for name in ("old", "new"):
        journal.save_session(SessionRecord(1, name, None, None, None))
        journal.retain(b"t", RetainedRecord(Message(b"t", name.encode(), 0, True), None, name))
    journal.subscription(1, b"kept", 0)
    journal.subscription(1, b"kept", 2)
    journal.subscription(1, b"gone", 1)
    journal.subscription(1, b"gone", None)
    journal.retain(b"removed", RetainedRecord(Message(b"removed", b"x", 0, True), None, ""))
    journal.retain(b"removed", None)
    session = Session("new", 1, Discard())
    session.received = Identifiers(Unreleased(Memory(Limits(), FakeLog()).clients), held(300))
    session.received.add(5)
    journal.received(session)
    session.received.add(7)
    journal.received(session)
    journal.end_of_turn()
    [(job, _)] = bench.lane.jobs
    session.received.add(9)  # of the next batch
    job()
    [batch] = bench.store.batches
    assert [record.client_id for record in batch.sessions.values()] == ["new"]
    assert batch.subscriptions == {(1, b"kept"): 2, (1, b"gone"): None}
    assert batch.received == {1: held(5, 7)}
    assert {topic: record and record.client_id for topic, record in batch.retained.items()} == {
        b"t": "new",
        b"removed": None,
    }


def test_wills_are_stored_in_their_last_state(bench: Bench) -> None:
    first, second = will("c1"), will("c2")
    for id, one in ((1, first), (2, first), (3, second)):
        bench.journal.save_will(id, one)
    bench.journal.forget_will(2)
    bench.journal.save_will(3, second._replace(due=5.5))
    bench.wait("stored")
    bench.journal.end_of_turn()
    assert bench.called == []
    bench.finish()
    assert (bench.called, dict(bench.store.load().wills)) == (["stored"], {1: first, 3: second._replace(due=5.5)})
    bench.journal.forget_will(3)
    bench.journal.end_of_turn()
    bench.finish()
    assert dict(bench.store.load().wills) == {1: first}


def test_a_will_that_could_not_be_stored_is_stored_once_the_store_works(bench: Bench) -> None:
    bench.store.failures = [StoreError("the disk is full")]
    bench.journal.save_will(1, will())
    bench.wait("stored")
    bench.journal.end_of_turn()
    bench.finish()
    assert bench.called == []
    bench.again(RETRY)
    assert (bench.called, dict(bench.store.load().wills)) == (["stored"], {1: will()})


def test_all_of_a_will_counts_for_what_has_gathered(bench: Bench) -> None:
    large = will("c", b"t", b"x", kept=b"p" * (MAX_GATHERED // 2))
    bench.journal.save_will(1, large)
    assert not bench.journal.full
    bench.journal.save_will(2, large)
    assert bench.journal.full


def test_nothing_remains_of_a_session_that_is_forgotten(bench: Bench) -> None:
    bench.session(1)
    bench.session(2)
    bench.journal.subscription(1, b"t", 1)
    bench.journal.forget_session(1)
    bench.journal.end_of_turn()
    bench.finish()
    assert [one.record.id for one in bench.store.load().sessions] == [2]


def test_a_caller_may_ask_for_more(bench: Bench) -> None:
    """As accepting a client does, whose next packets are then looked at."""

    def act(name: str) -> None:
        bench.called.append(name)
        bench.session(2)
        bench.wait("more")

    bench.session(1)
    bench.journal.when_stored(act, "first")
    bench.journal.end_of_turn()
    bench.finish()
    assert (bench.called, len(bench.lane.jobs)) == (["first"], 1)
    bench.finish()
    assert (bench.called, bench.journal.idle) == (["first", "more"], True)


# --- a moment for quick clients ----------------------------------------------------------------------------------


def test_a_batch_whose_messages_clients_have_waits_a_moment_for_their_acknowledgements(bench: Bench) -> None:
    bench.session(1)
    bench.wait("a")
    bench.journal.hopeful = True
    bench.journal.end_of_turn()
    assert (bench.lane.jobs, bench.timers.next_due()) == ([], PATIENCE)
    bench.timers.run(PATIENCE / 2)
    bench.journal.end_of_turn()
    assert bench.lane.jobs == []
    bench.timers.run(PATIENCE)
    bench.journal.end_of_turn()
    assert len(bench.lane.jobs) == 1
    bench.finish()
    assert bench.called == ["a"]


def test_it_waits_no_longer_when_more_comes(bench: Bench) -> None:
    bench.session(1)
    bench.journal.hopeful = True
    bench.journal.end_of_turn()
    for i in range(3):
        bench.timers.now = PATIENCE * (i + 1) / 3
        bench.session(i + 2)
        bench.journal.hopeful = True
        bench.journal.end_of_turn()
    assert len(bench.lane.jobs) == 1


def test_it_does_not_wait_when_much_has_gathered(bench: Bench) -> None:
    bench.session(1)
    bench.journal.hopeful = True
    bench.journal.gathered = MAX_GATHERED + 1
    bench.journal.end_of_turn()
    assert len(bench.lane.jobs) == 1


# --- failures ----------------------------------------------------------------------------------------------------


def test_a_commit_that_failed_is_tried_again_and_nobody_is_called_before(bench: Bench) -> None:
    bench.store.failures = [StoreError("the disk is full"), StoreError("the disk is full")]
    bench.session(1)
    bench.wait("first")
    bench.journal.end_of_turn()
    bench.finish()
    assert (bench.called, bench.journal.failed, bench.journal.idle, bench.lane.jobs) == ([], True, False, [])
    bench.session(2)
    bench.wait("second")
    bench.journal.end_of_turn()
    bench.timers.run(RETRY * 0.9)
    assert bench.lane.jobs == []
    bench.timers.run(RETRY)
    bench.finish()
    bench.timers.run(RETRY * 2)
    bench.finish()
    assert (bench.called, bench.journal.failed) == (["first"], False)
    bench.finish()
    assert (bench.called, bench.journal.idle, bench.journal.commits) == (["first", "second"], True, 2)
    assert [sorted(batch.sessions) for batch in bench.store.batches] == [[1], [2]]
    assert bench.log.events("error", "warning") == [
        "the store failed: nothing that depends on it is acknowledged until it works again",
        "the store works again: what had to wait is stored and acknowledged",
    ]
    assert bench.log.lines[0][2] == {"reason": "the disk is full"}


def test_an_unexpected_failure_is_told_as_a_bug_and_tried_again_too(bench: Bench) -> None:
    bench.store.failures = [ValueError("oops")]
    bench.session(1)
    bench.wait("a")
    bench.journal.end_of_turn()
    bench.finish()
    assert bench.log.fields("bug: the store failed in an unexpected way") == [{"error": "ValueError('oops')"}]
    bench.timers.run(RETRY)
    bench.finish()
    assert (bench.called, bench.journal.failed) == (["a"], False)


class FakeQueue:
    """What the journal needs of a StoredQueue."""

    def __init__(self, session_id: int) -> None:
        self.session_id = session_id
        self.client_id = f"c{session_id}"
        self.fetching = True
        self.next_seq = 7
        self.got: list[tuple[list[QueuedMessage], int]] = []

    def fetched(self, messages: list[QueuedMessage], upto: int) -> None:
        self.got.append((messages, upto))


def test_a_queue_that_cannot_be_read_holds_up_nobody_else(bench: Bench) -> None:
    """What was committed with it is stored and acknowledged; the load is tried again, and told once."""
    queue, other = FakeQueue(1), FakeQueue(2)
    bench.store.fetch_failures = [StoreError("cannot read")]
    bench.session(1)
    bench.wait("a")
    bench.journal.fetch(queue, 0, 10)  # type: ignore[arg-type]
    bench.journal.fetch(other, 0, 10)  # type: ignore[arg-type]
    bench.journal.end_of_turn()
    bench.finish()
    assert (bench.called, bench.journal.failed, queue.got, other.got) == (["a"], False, [], [([], 7)])
    bench.store.fetch_failures = [StoreError("cannot read")]
    bench.again(RETRY)
    assert queue.got == []
    bench.again(2 * RETRY)
    assert queue.got == [([], 7)]
    assert len(bench.store.batches) == 1
    assert sum("cannot be read" in event for _, event, _ in bench.log.lines) == 1


def test_the_load_of_a_client_that_has_left_is_not_tried_again(bench: Bench) -> None:
    queue = FakeQueue(1)
    bench.store.fetch_failures = [StoreError("cannot read")]
    bench.journal.fetch(queue, 0, 10)  # type: ignore[arg-type]
    bench.journal.end_of_turn()
    bench.finish()
    bench.journal.forget_fetch(queue)  # type: ignore[arg-type]
    bench.again(RETRY)
    assert (queue.got, bench.journal.idle) == ([], True)


# --- loading -----------------------------------------------------------------------------------------------------


def test_a_load_sees_what_was_committed_with_it(bench: Bench) -> None:
    world = World(bench.store)
    world.join("sub", clean=False).subscribe(("t", 1)).drop()
    world.lane.held = True
    world.join("pub").publish("t", "m", 1, 1)
    client = world.dial().connect("sub", clean=False)
    world.lane.held = False
    world.settle()
    assert client.take() == [("CONNACK", 1, 0), published("t", "m", 1, 1)]


def test_acknowledgements_do_not_wait_for_many_loads(bench: Bench) -> None:
    queues = [FakeQueue(i) for i in range(MAX_FETCHES * 2 + 5)]
    for queue in queues:
        bench.journal.fetch(queue, 0, 10)  # type: ignore[arg-type]
    bench.journal.end_of_turn()
    sizes = []
    while bench.lane.jobs:
        before = len(bench.store.fetches)
        bench.finish()
        sizes.append(len(bench.store.fetches) - before)
    assert sizes == [MAX_FETCHES, MAX_FETCHES, 5]
    assert bench.store.fetches == list(range(len(queues)))
    assert [queue.got for queue in queues] == [[([], 7)]] * len(queues)


def test_a_load_that_nobody_wants_any_more_is_not_done(bench: Bench) -> None:
    one, two = FakeQueue(1), FakeQueue(2)
    for queue in (one, two):
        bench.journal.fetch(queue, 0, 10)  # type: ignore[arg-type]
    bench.journal.forget_fetch(one)  # type: ignore[arg-type]
    bench.journal.end_of_turn()
    bench.finish()
    assert (bench.store.fetches, one.got, bench.journal.idle) == ([2], [], True)


# --- room --------------------------------------------------------------------------------------------------------


def test_who_waits_for_room_is_called_when_what_gathered_is_on_its_way(bench: Bench) -> None:
    calls: list[str] = []
    record = RetainedRecord(Message(b"t", b"x" * (MAX_GATHERED + 1), 0, True), None, "")
    bench.journal.retain(b"t", record)
    assert bench.journal.full
    bench.journal.when_room(lambda: calls.append("room"))
    bench.journal.end_of_turn()
    assert (calls, bench.journal.full) == (["room"], False)
    bench.journal.retain(b"t", record)
    bench.journal.when_room(lambda: calls.append("more room"))
    bench.journal.end_of_turn()
    assert (calls, bench.journal.full) == (["room"], True)  # the first is still being written
    bench.finish()
    assert (calls, bench.journal.full) == (["room", "more room"], False)


# --- acknowledgements over the wire ------------------------------------------------------------------------------


def retained(topic: str, packet_id: int, qos: int = 1) -> bytes:
    """A PUBLISH that must be stored."""
    return publish_packet(topic.encode(), b"x", qos=qos, packet_id=packet_id, retain=True)


@pytest.mark.parametrize(
    ("prepare", "packet_bytes", "acknowledged"),
    [
        (None, retained("r", 7), ("PUBACK", 7)),
        (None, retained("r", 7, 2), ("PUBREC", 7)),
        ("subscriber", publish_packet(b"t", b"x", qos=1, packet_id=7), ("PUBACK", 7)),
        ("subscriber", publish_packet(b"t", b"x", qos=2, packet_id=7), ("PUBREC", 7)),
    ],
)
def test_nothing_is_acknowledged_before_it_is_stored(
    prepare: str | None, packet_bytes: bytes, acknowledged: tuple[str, int]
) -> None:
    world = World()
    if prepare:
        world.join("sub", clean=False).subscribe(("t", 2)).drop()
    client = world.join("pub")
    world.lane.held = True
    client.send(packet_bytes)
    assert client.take() == []
    world.lane.held = False
    world.settle()
    assert client.take() == [acknowledged]
    brackets(world)


@pytest.mark.parametrize(
    ("act", "answer"),
    [
        (lambda client: client.subscribe(("t", 1), packet_id=5), ("SUBACK", 5, [1])),
        (lambda client: client.unsubscribe("t", packet_id=5), ("UNSUBACK", 5)),
        (lambda client: client.publish("nobody", "x", 2, 5), ("PUBREC", 5)),
    ],
)
def test_a_persistent_session_is_answered_when_the_store_has_it_and_a_clean_one_at_once(
    act: Callable[[Any], Any], answer: tuple[Any, ...]
) -> None:
    for clean in (True, False):
        world = World()
        client = world.join("c", clean=clean)
        client.subscribe(("t", 0), packet_id=1).take()
        world.lane.held = True
        act(client)
        assert client.take() == ([answer] if clean else [])
        world.lane.held = False
        world.settle()
        assert client.take() == ([] if clean else [answer])
        brackets(world)


def test_pubcomp_to_a_persistent_session_waits_until_its_identifier_is_forgotten_in_the_store() -> None:
    """[MQTT-4.3.3-2]: else, after a crash, the next message with this identifier would be taken for this one."""
    world = World()
    client = world.join("pub", clean=False)
    client.publish("t", "x", 2, 5).take()
    world.lane.held = True
    client.pubrel(5)
    assert client.take() == []
    world.lane.held = False
    world.settle()
    assert client.take() == [("PUBCOMP", 5)]
    assert [one.received for one in world.store.load().sessions] == [{}]


def test_acknowledgements_keep_their_order_whether_they_wait_for_the_store_or_not() -> None:
    """[MQTT-4.6.0-2] [MQTT-4.6.0-3], which bind clients, and do no harm to a broker."""
    world = World()
    world.join("sub", clean=False).subscribe(("stored", 2)).drop()
    client = world.join("pub")
    client.feed(publish_packet(b"plain", b"x", qos=1, packet_id=1))
    client.feed(publish_packet(b"stored", b"x", qos=1, packet_id=2))
    client.feed(publish_packet(b"plain", b"x", qos=1, packet_id=3))
    client.feed(publish_packet(b"plain", b"x", qos=2, packet_id=4))
    client.feed(publish_packet(b"stored", b"x", qos=2, packet_id=5))
    client.feed(packet(0x62, number(4)))
    world.settle()
    assert client.take() == [
        ("PUBACK", 1),
        ("PUBACK", 2),
        ("PUBACK", 3),
        ("PUBREC", 4),
        ("PUBREC", 5),
        ("PUBCOMP", 4),
    ]


def test_while_the_store_fails_what_needs_no_store_goes_on() -> None:
    store = Store()
    world = World(store)
    world.join("sub", clean=False).subscribe(("t", 1)).drop()
    listener = world.join("listener")
    listener.subscribe(("#", 1)).take()
    store.failures = [StoreError("the disk is full")] * 3
    client = world.join("pub")
    client.publish("t", "needs it", 1, 1)
    client.publish("other", "does not", 0)
    assert client.take() == []
    assert listener.payloads() == ["needs it", "does not"]
    listener.puback(1)
    assert world.journal.failed
    refused = world.dial().connect("new", clean=False)
    assert (refused.take(), refused.closed) == ([("CONNACK", 0, 3)], True)
    world.join("clean one").publish("other", "hello", 1, 1)
    assert listener.payloads() == ["hello"]
    world.advance(RETRY * 5)
    assert (client.take(), world.journal.failed) == ([("PUBACK", 1)], False)
    assert world.join("sub", clean=False).payloads() == ["needs it"]


def test_what_gathers_is_counted_as_what_it_takes_in_memory() -> None:
    """Messages without a payload to many who are away: a publisher waits before they are a burden."""
    world = World()
    for n in range(300):
        world.join(f"sub-{n}", clean=False).subscribe(("t", 1)).drop()
    world.lane.held = True
    client = world.join("pub")
    for n in range(300):
        client.publish("t", "", 1, n + 1)
    assert not client.is_read()
    queue = world.session("sub-0").queue
    assert queue is not None
    # What is being written, and what has gathered since.
    assert queue.count * 300 * 200 < 2 * MAX_GATHERED + 300 * 1000
    world.lane.held = False
    world.settle()
    assert len(client.take()) == 300


@pytest.mark.parametrize("what", ["subscribe", "retain", "retain and remove", "renew"])
def test_whatever_is_to_be_stored_makes_its_client_wait(what: str) -> None:
    """Also what no subscriber gets, and what is not acknowledged."""
    world = World()
    client = world.join("c", clean=False)
    world.settle()
    world.lane.held = True
    sent = 0
    while client.is_read() and sent < 100_000:
        sent += 1
        topic = f"{sent}/" + "x" * 1000
        if what == "subscribe":
            client.subscribe((topic, 1))
        elif what == "renew":
            client.publish("t", "", 2, 1).pubrel(1)
        else:
            client.publish(topic, "x", retain=True)
            if what == "retain and remove":
                client.publish(topic, "", retain=True)
    assert not client.is_read()
    assert world.journal.gathered < 1.1 * MAX_GATHERED


def test_a_publisher_waits_when_the_store_is_slower_than_it() -> None:
    world = World()
    world.join("sub", clean=False).subscribe(("t", 1)).drop()
    client = world.dial(max_packet_size=MAX_GATHERED * 2).connect("pub")
    client.take()
    world.lane.held = True
    half = MAX_GATHERED // 2
    for n in range(5):
        client.feed(publish_packet(b"t", b"x" * half, qos=1, packet_id=n + 1))
        world.turn()
    assert not client.is_read()
    assert world.journal.gathered < MAX_GATHERED + 2 * half
    queue = world.session("sub").queue
    assert queue is not None
    assert queue.count < 5
    world.lane.held = False
    world.settle()
    assert (client.is_read(), client.take()) == (True, [("PUBACK", n + 1) for n in range(5)])
    assert queue.count == 5
    brackets(world)


def test_a_client_whose_acknowledgements_wait_sends_so_many_more_and_no_more() -> None:
    """What it sent behind them stays with it, and order is kept."""
    world = World()
    world.join("sub", clean=False).subscribe(("t", 1)).drop()
    client = world.join("pub")
    world.lane.held = True
    packets = [publish_packet(b"t", b"", qos=1, packet_id=n % 65_535 + 1) for n in range(12_000)]
    for at in range(0, len(packets), 500):
        client.feed(b"".join(packets[at : at + 500]))
    world.turn()
    assert not client.is_read()
    assert client.connection.held < 10_600
    world.lane.held = False
    world.settle()
    assert client.is_read()
    assert [one[1] for one in client.take()] == [n + 1 for n in range(12_000)]
    queue = world.session("sub").queue
    assert queue is not None
    assert queue.count == 12_000
    brackets(world)


def test_who_left_meanwhile_gets_nothing() -> None:
    world = World()
    client = world.join("pub")
    world.lane.held = True
    client.send(retained("r", 1))
    client.drop()
    world.lane.held = False
    world.settle()
    assert (client.take(), client.transport.out) == ([], [])
    brackets(world)


def test_the_acknowledgement_of_a_quick_client_ends_the_wait_for_the_store() -> None:
    """Its message was never written, so its publisher need not wait either."""
    store = Store()
    world = World(store)
    subscriber = world.join("sub", clean=False)
    subscriber.subscribe(("t", 1)).take()
    publisher = world.join("pub")
    before = len(store.batches)
    publisher.feed(publish_packet(b"t", b"x", qos=1, packet_id=9))
    world.turn()
    [one] = subscriber.take()
    subscriber.feed(packet(PUBACK, number(one[4])))
    world.turn()
    assert (publisher.take(), len(store.batches)) == ([("PUBACK", 9)], before)
    brackets(world.settle())
