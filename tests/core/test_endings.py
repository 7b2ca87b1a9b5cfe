"""Sessions with many subscriptions that end: over several turns, and as if they had none from the beginning."""

from __future__ import annotations

import pytest

from broker.core import account
from broker.core.endings import FEW
from tests.core.harness import Client, World, brackets, published
from tests.vectors import PINGREQ


@pytest.fixture
def world() -> World:
    return World()


def holder(world: World, client_id: str, count: int, *, clean: bool = True) -> Client:
    client = world.join(client_id, clean=clean)
    client.subscribe(*((f"{client_id}/{number}/+", number % 3) for number in range(count)), ("t/+", 1))
    world.settle()
    client.take()
    return client


@pytest.mark.parametrize("clean", [True, False])
def test_others_have_their_turn_while_thousands_are_removed(world: World, clean: bool) -> None:
    holders = [holder(world, f"h{number}", 3_000, clean=clean) for number in range(3)]
    other = world.join("other")
    other.subscribe(("t/+", 1)).take()
    if not clean:
        for each in holders:
            each.drop()
    for number, each in enumerate(holders):
        if clean:
            each.connection.lost("gone")
        else:
            world.exchange.sessions.discard(world.session(f"h{number}"))
    assert world.exchange.account.spent < account.TURN
    left = world.exchange.router.count
    assert left > 1
    other.feed(PINGREQ)
    world.turn()
    assert other.take() == [("PINGRESP",)]
    assert 1 < world.exchange.router.count < left
    # Who has ended gets nothing more, and nobody waits for it.
    publisher = world.join("pub")
    publisher.publish("t/x", "new", qos=1, packet_id=3)
    world.settle()
    assert other.take() == [published("t/x", "new", 1, 1)]
    assert publisher.take() == [("PUBACK", 3)]
    assert world.exchange.router.count == 1
    brackets(world)


def test_few_are_removed_at_once(world: World) -> None:
    client = holder(world, "c", FEW - 1)
    client.drop()
    assert world.exchange.router.count == 0


def test_the_name_of_who_has_ended_is_free_at_once(world: World) -> None:
    holder(world, "c", 3_000).drop()
    again = world.join("c")
    again.subscribe(("c/7/+", 0)).take()
    world.settle()
    world.join("pub").publish("c/7/x", "hello")
    assert again.take() == [published("c/7/x", "hello")]
    assert world.exchange.router.count == 1
    brackets(world)
