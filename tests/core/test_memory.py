"""What is held is counted as what it costs, each kind has its share, and after all have left nothing is counted."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import pytest

from broker.core.limits import Limits
from broker.core.memory import SHARES, WHOLE
from broker.core.router import Router, weight
from broker.core.session import Discard, Session
from tests import vectors
from tests.core.harness import World

KIB = 1 << 10


def world_with(part: str, share: int) -> World:
    """A world in which this part may hold so many bytes."""
    return World(limits=Limits(max_memory=share * WHOLE // SHARES[part]))


def test_the_shares_are_the_whole() -> None:
    assert sum(SHARES.values()) == WHOLE


@pytest.mark.parametrize(
    "name",
    [
        lambda number: f"1/{number}/" + "/".join("abcdefghijkl") + "/+",
        lambda number: f"1/{number}/" + "/".join(["a"] * 196) + "/+",
        lambda number: f"sensors/{number}/#",
        lambda number: f"+/{number}",
        lambda number: f"{number}/+",
        lambda number: f"sensors/{number}/temperature",
        lambda number: f"sensors/{number}" + "x" * 1000,
        lambda number: f"sensors/{number}" + "x" * 1000 + "/+",
    ],
)
def test_a_subscription_counts_as_what_it_takes(name: Callable[[int], str]) -> None:
    filters = [name(number).encode() for number in range(1000)]
    router = Router(Limits())
    session = Session("c", 0, Discard())
    held: dict[bytes, int] = {}
    tracemalloc.start()
    try:
        for topic_filter in filters:
            own = bytes(bytearray(topic_filter))  # as it comes from the network
            held[own] = 0
            router.subscribe(session, own, 0)
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    counted = sum(map(weight, filters))
    assert 0.8 < counted / taken < 2.5


def test_subscriptions_above_their_share_are_refused_whoever_asks() -> None:
    world = world_with("subscriptions", 64 * KIB)
    part = world.exchange.memory.subscriptions
    codes: list[int] = []
    clients = [world.join(f"c{number}") for number in range(10)]
    for number, client in enumerate(clients):
        [answer] = client.subscribe(*((f"{number}/{n}/a/b/c/+", 0) for n in range(10))).take()
        codes += answer[2]
        assert part.size <= part.limit
    assert (codes[0], codes[-1], 0 < part.refused == codes.count(0x80)) == (0, 0x80, True)
    told = "too much memory in subscriptions: further ones are refused"
    assert world.log.events("warning").count(told) == 1
    [answer] = clients[0].subscribe(("0/0/a/b/c/+", 0)).take()  # what it has already
    assert answer[2] == [0]
    clients[0].unsubscribe(*(f"0/{n}/a/b/c/+" for n in range(10))).take()
    [answer] = clients[9].subscribe(("new", 0)).take()
    assert answer[2] == [0]
    for client in clients:
        client.disconnect()
    assert part.size == 0


def test_clients_above_their_share_get_return_code_3_and_those_who_are_there_stay() -> None:
    world = world_with("clients", 64 * KIB)
    clients = []
    for number in range(100):
        client = world.dial().connect(f"c{number}", will=("will", "x" * 1000, 0, False))
        clients.append(client)
        if client.take() == [("CONNACK", 0, 3)]:
            break
    assert 5 < len(clients) < 20
    assert world.log.fields("client refused")[0]["reason"] == "there is no memory for more clients (max_memory)"
    assert clients[0].ping().take() == [("PINGRESP",)]
    clients[0].disconnect()
    assert world.dial().connect("late").take() == [("CONNACK", 0, 0)]
    for client in clients[1:]:
        client.disconnect()
    world.session("late").connection.close("")  # type: ignore[union-attr]
    assert world.exchange.memory.clients.size == 0


def test_retained_messages_above_their_share_are_delivered_and_not_kept() -> None:
    world = world_with("retained", 64 * KIB)
    client = world.join("c")
    client.subscribe(("r/#", 0)).take()
    for number in range(200):
        client.send(b"\x31" + bytes([7 + len(str(number))]) + vectors.string(f"r/{number}".encode()) + b"xxx"[: 5 - 2])
    assert len(client.take()) == 200
    assert 50 < world.exchange.retained.count < 200
    assert world.exchange.retained.held <= 64 * KIB + 500


def test_a_message_that_waits_for_many_counts_once() -> None:
    world = World(limits=Limits(max_inflight=1))
    readers = [world.join(f"r{number}") for number in range(10)]
    for reader in readers:
        reader.subscribe(("t", 1)).take()
    publisher = world.join("p")
    publisher.publish("t", "first", 1, 1)
    publisher.publish("t", "x" * 100_000, 1, 2)
    part = world.exchange.memory.queues
    assert 100_000 < part.size < 110_000
    for reader in readers[:9]:
        reader.drop()
    assert part.size > 100_000
    readers[9].puback(1)
    assert part.size == 0


def test_waiting_messages_of_persistent_sessions_are_counted_while_they_are_in_memory() -> None:
    world = World(limits=Limits(max_inflight=1))
    reader = world.join("r", clean=False)
    reader.subscribe(("t", 1)).take()
    publisher = world.join("p")
    for number in range(1, 11):
        publisher.publish("t", "x" * 1000, 1, number)
    part = world.exchange.memory.queues
    assert 9_000 < part.size < 20_000
    reader.drop()
    assert part.size == 0
    world.join("r", clean=False)
    assert part.size > 9_000
    world.join("r", clean=True)
    assert part.size == 0
