"""Acknowledged means stored: the broker is killed with SIGKILL at random moments, and nothing it took over is lost.

Three rounds by default; SELECTMQ_CRASH_ROUNDS=50 for more (`tox -e crash`), SELECTMQ_CRASH_SEED to choose the chances
as they were before (the times of a real process stay its own). Figures are printed: use `pytest -s`.

A process that is killed leaves what it has written to the system. A power failure does not, and is out of reach here:
that commits wait for the disk is SQLite's `synchronous=FULL`, whose setting tests/storage looks at.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.core.ports import Batch, SessionRecord
from broker.storage.sqlite import SqliteStore
from tests.broker_process import BrokerProcess, environment
from tests.end_to_end.crash_harness import (
    WAYS_TO_LEAVE,
    Collector,
    FleetingPublisher,
    Keeper,
    Publisher,
    Subscriber,
    Violation,
    Wiper,
    World,
)
from tests.end_to_end.crash_wills import Mortal
from tests.raw_client import (
    PINGREQ,
    PINGRESP,
    Address,
    RawClient,
    parse_publish,
    puback,
    pubcomp,
    publish,
    pubrec,
    pubrel,
)
from tests.small_disk import limit_file_size

ROUNDS = int(os.environ.get("SELECTMQ_CRASH_ROUNDS", "3"))
SEED = int(os.environ.get("SELECTMQ_CRASH_SEED", random.randrange(1 << 32)))

CONFIG = "sys_interval = 0\n"


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[BrokerProcess]:
    process = BrokerProcess(tmp_path, CONFIG, data=tmp_path / "data")
    yield process
    process.stop()


@pytest.fixture
def world(broker: BrokerProcess) -> Iterator[World]:
    made = World(SEED, broker.address)
    yield made
    made.close()


def test_what_was_acknowledged_is_delivered_and_qos_2_exactly_once(broker: BrokerProcess, world: World) -> None:
    print(f"\nSELECTMQ_CRASH_SEED={SEED}")
    populate(world)
    try:
        for number in range(ROUNDS):
            live(world, broker)
            end(world, broker)
            start(world, broker)
            world.figures.rounds += 1
            if (number + 1) % 10 == 0:
                print(world.figures)
        drain(world)
        broker.restart()
        world.hear_out()
        world.address = broker.address
        come_back_to_nothing(world)
    except Violation as violation:
        pytest.fail(f"{violation}\nSELECTMQ_CRASH_SEED={SEED}, {world.figures}")
    print(world.figures)


def populate(world: World) -> None:
    """Everybody is there once, and those who will be away leave."""
    for window in (1, 20, 150):
        Publisher(world, f"publisher-{window}", window=window)
    FleetingPublisher(world, "fleeting", window=10)
    Keeper(world, "keeper", window=5, topics=10)
    Keeper(world, "careful-keeper", window=1, topics=4)
    Collector(world, "collector", 40)
    Wiper(world, "wiper")
    for number in range(3):
        Mortal(world, f"mortal-{number}", clean=number > 0)
    for qos in (1, 2):
        for presence in ("absent", "present", "visits"):
            Subscriber(world, f"{presence}-{qos}", qos, presence)
        Subscriber(world, f"lazy-{qos}", qos, "present", lazy=True)
    subscribers = world.of_kind(Subscriber)
    for subscriber in subscribers:
        subscriber.connect()
    world.until(lambda: all(subscriber.subscribed for subscriber in subscribers), "everybody has subscribed")
    for subscriber in subscribers:
        if subscriber.presence == "absent":
            subscriber.leave(world.chance.choice(WAYS_TO_LEAVE))


def live(world: World, broker: BrokerProcess) -> None:
    """Publish until the broker is killed: at once when a certain packet comes, or after a random time."""
    chance = world.chance
    world.strike_at_a_random_moment(broker.process.kill)
    latest = time.monotonic() + chance.uniform(0.05, 0.6)
    while world.strike is not None and time.monotonic() < latest:
        for client in world.clients:
            if isinstance(client, Subscriber) and client.presence == "absent":
                continue
            if client.link is None:
                if not isinstance(client, Subscriber) or client.presence == "present" or chance.random() < 0.2:
                    client.connect()
            elif isinstance(client, Subscriber) and client.presence == "visits":
                if chance.random() < 0.03:
                    client.leave(chance.choice(WAYS_TO_LEAVE))
            elif isinstance(client, Publisher) and chance.random() < 0.002:
                client.leave(chance.choice(WAYS_TO_LEAVE))
        world.step()


def end(world: World, broker: BrokerProcess) -> None:
    """Mostly by SIGKILL. What was on its way to the clients still reaches most of them."""
    if world.strike is not None and world.chance.random() < 0.2:
        world.strike = None
        world.ending = True
        broker.signal(signal.SIGTERM)
        world.hear_out()
        assert broker.wait() == 0
        world.ending = False
        return
    world.strike = None
    world.figures.kills += 1
    broker.process.kill()
    world.hear_out()
    broker.kill()
    assert [line for line in broker.lines if '"event": "bug' in line] == []


def start(world: World, broker: BrokerProcess) -> None:
    """Start again, now and then after attempts that are killed at a random moment of the start."""
    while world.chance.random() < 0.2:
        attempt = subprocess.Popen(
            [sys.executable, "-m", "broker", "-c", str(broker.config)],
            stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment(),
        )  # fmt: skip
        try:
            attempt.wait(world.chance.uniform(0.0, 0.5))
        except subprocess.TimeoutExpired:
            attempt.kill()
        attempt.wait()
        world.figures.kills += 1
    broker.start()
    world.address = broker.address
    found = retained(broker.address)
    for keeper in world.of_kind(Keeper):
        keeper.check_retained(found)
    assert found == {}
    for collector in world.of_kind(Collector):
        check_subscriptions(world, collector)


def retained(address: Address) -> dict[str, bytes]:
    """The retained messages of the keeper."""
    found: dict[str, bytes] = {}
    with RawClient.connected(address) as client:
        client.subscribe(("retained/#", 1)).send(PINGREQ)
        while (packet := client.next()) != PINGRESP:
            message = parse_publish(packet)
            found[message.topic] = message.payload
    return found


def drain(world: World) -> None:
    """Publishers finish what they have begun, and everybody gets what there is for them."""
    publishers = world.of_kind(Publisher)
    subscribers = world.of_kind(Subscriber)
    for publisher in publishers:
        publisher.stopped = True
    for mortal in world.of_kind(Mortal):
        mortal.stopped = True
        mortal.leave("close")
    for client in world.clients:
        if not isinstance(client, (Mortal, Wiper)):
            client.connect()
    world.until(lambda: all(p.accepted and not p.outstanding for p in publishers), "everything is acknowledged")
    world.until(lambda: not any(subscriber.missing() for subscriber in subscribers), "everything was delivered")
    deliver_a_last_one(world, "last")
    for subscriber in subscribers:
        assert subscriber.missing() == []
    for sent in world.sent.values():
        assert sent.acknowledged or sent.topic.startswith(("crash/fleeting/", "crash/mortal-"))
    assert sum(mortal.left for mortal in world.of_kind(Mortal)) > ROUNDS


def deliver_a_last_one(world: World, name: str) -> None:
    """When all have it, nothing that was queued before is left."""
    last = Publisher(world, name, window=1)
    last.connect()
    world.until(lambda: last.accepted, "the last publisher is connected")
    world.step()
    last.stopped = True
    subscribers = world.of_kind(Subscriber)
    keys = [key for key in world.sent if key.publisher == name]
    world.until(lambda: not last.outstanding and len(keys) == 1, "the last message is acknowledged")
    world.until(
        lambda: all(subscriber.delivered[key] and subscriber.idle for key in keys for subscriber in subscribers),
        "all subscribers have the last message",
    )


def check_subscriptions(world: World, collector: Collector) -> None:
    """Publish to every topic that the collector may have subscribed to."""
    collector.stopped = True
    collector.connect()
    world.until(lambda: collector.accepted, "the collector is back")
    probe = b"%d" % world.figures.rounds
    with RawClient.connected(world.address, "prober") as prober:
        ids = range(1, len(collector.possible) + 1)
        topics = zip(ids, collector.possible, strict=True)
        prober.send(b"".join(publish(topic, probe, 2, packet_id=packet_id) for packet_id, topic in topics))
        prober.expect(*map(pubrec, ids))
        prober.send(b"".join(map(pubrel, ids)))
        prober.expect(*map(pubcomp, ids))
    pongs = collector.pongs
    collector.send(PINGREQ)
    world.until(lambda: collector.pongs > pongs, "the collector has all that there is for it")
    world.figures.subscriptions += collector.check_collected(probe)
    collector.stopped = False


def come_back_to_nothing(world: World) -> None:
    """What was acknowledged to the broker is stored as well, once it has ended in order: nothing comes again."""
    subscribers = world.of_kind(Subscriber)
    before = [subscriber.delivered.total() for subscriber in subscribers]
    for subscriber in subscribers:
        subscriber.connect()
    world.until(lambda: all(subscriber.accepted for subscriber in subscribers), "all are back")
    deliver_a_last_one(world, "after-all")
    assert [subscriber.delivered.total() - count for subscriber, count in zip(subscribers, before, strict=True)] == [
        1 for _ in subscribers
    ]


def test_all_that_was_in_flight_comes_again_with_dup_and_its_old_identifier(broker: BrokerProcess) -> None:
    """[MQTT-3.3.1-1] [MQTT-4.4.0-1]: also what does not fit into one load from the store."""
    payload = b"." * 30_000
    subscriber = RawClient.connected(broker.address, "sub", clean=False).subscribe(("t", 1))
    with RawClient.connected(broker.address, "pub") as publisher:
        ids = range(1, 101)
        publisher.send(b"".join(publish("t", b"%d " % i + payload, 1, packet_id=i) for i in ids))
        first = [subscriber.message() for _ in ids]
        publisher.expect(*map(puback, ids))
    broker.kill()
    subscriber.close()
    broker.start()
    with RawClient.connected(broker.address, "sub", clean=False, present=True) as subscriber:
        again = [subscriber.message() for _ in ids]
    assert [(m.dup, m.packet_id, m.payload) for m in again] == [(True, m.packet_id, m.payload) for m in first]


def test_what_was_sent_behind_acknowledgements_that_were_lost_comes_again_with_dup(
    broker: BrokerProcess, tmp_path: Path
) -> None:
    """[MQTT-3.3.1-1]: the store cannot know how far the broker had come, if the last PUBACKs were not stored."""
    subscriber = RawClient.connected(broker.address, "sub", clean=False).subscribe(("t", 1))
    with RawClient.connected(broker.address, "pub") as publisher:
        ids = range(1, 151)
        publisher.send(b"".join(publish("t", b"%d" % i, 1, packet_id=i) for i in ids))
        publisher.expect(*map(puback, ids))
    limit_file_size(broker.pid, 0)
    came = [subscriber.message() for _ in range(100)]
    subscriber.send(b"".join(puback(message.packet_id) for message in came))
    came += [subscriber.message() for _ in range(50)]
    broker.kill()
    subscriber.close()
    broker.start()
    with RawClient.connected(broker.address, "sub", clean=False, present=True) as subscriber:
        again = [subscriber.message() for _ in range(100)]
        subscriber.send(b"".join(puback(message.packet_id) for message in again))
        again += [subscriber.message() for _ in range(50)]
    assert [(m.dup, m.packet_id, m.payload) for m in again] == [(True, m.packet_id, m.payload) for m in came]


def test_places_that_are_given_again_after_a_restart_are_not_taken_for_old_ones(
    broker: BrokerProcess, tmp_path: Path
) -> None:
    """A session that was sent more messages than there are identifiers, and has acknowledged them all."""
    broker.stop()
    store = SqliteStore(str(tmp_path / "data"))
    store.load()
    record = SessionRecord(1, "sub", None, 1.0, 70_000)
    store.commit(Batch([], {1: record}, {(1, b"t"): 2}, {}, [], {}))
    store.close()
    broker.start()
    with RawClient.connected(broker.address, "pub") as publisher:
        publisher.send(publish("t", b"hello", 2))
        publisher.expect(pubrec(1))
    broker.restart()
    with RawClient.connected(broker.address, "sub", clean=False, present=True) as subscriber:
        message = subscriber.message()
        assert (message.payload, message.dup) == (b"hello", False)
        subscriber.send(pubrec(message.packet_id))
        subscriber.expect(pubrel(message.packet_id))
        subscriber.send(pubcomp(message.packet_id))
        subscriber.disconnect()
    broker.restart()
    with RawClient.connected(broker.address, "sub", clean=False, present=True) as subscriber:
        subscriber.subscribe(("control", 2))
        subscriber.send(publish("control", b"", 1))
        subscriber.expect(publish("control", b"", 1, packet_id=1), puback(1))


def test_what_came_after_a_crash_is_not_marked_whatever_follows(broker: BrokerProcess) -> None:
    """[MQTT-3.3.1-1]: DUP is for what may have been sent before."""
    subscriber = RawClient.connected(broker.address, "sub", clean=False).subscribe(("t", 1))
    broker.kill()
    subscriber.close()
    broker.start()
    with RawClient.connected(broker.address, "pub") as publisher:
        publisher.send(publish("t", b"new", 1))
        publisher.expect(puback(1))
    broker.kill()
    broker.start()
    with RawClient.connected(broker.address, "sub", clean=False, present=True) as subscriber:
        message = subscriber.message()
    assert (message.payload, message.dup) == (b"new", False)


def test_a_client_that_was_there_at_a_crash_has_been_away_since_the_next_start(
    broker: BrokerProcess, tmp_path: Path
) -> None:
    """Were that not stored, each start would begin anew to count its absence, and it might never expire."""
    subscriber = RawClient.connected(broker.address, "sub", clean=False)
    broker.kill()
    subscriber.close()
    dates = []
    for _ in range(2):
        broker.start()
        broker.stop()
        store = SqliteStore(str(tmp_path / "data"))
        (found,) = store.load().sessions
        store.close()
        dates.append(found.record.disconnected_at)
    assert dates[0] is not None
    assert dates == [dates[0]] * 2
    broker.start()
