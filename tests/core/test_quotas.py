"""What all persistent sessions together may hold, and how much of it each."""

from __future__ import annotations

import pytest

from broker.core.limits import Limits
from tests.core.harness import World, brackets

FULL = "the store is full: messages for absent clients are dropped, and no new session is made"


def refused(world: World, client_id: str, *, clean: bool = False, username: str | None = None, host: str = "") -> str:
    """Why a CONNECT is refused with code 3; "" if it is accepted."""
    client = world.dial()
    if host:
        client.transport.peer = f"{host}:1000"
    client.connect(client_id, clean=clean, username=username)
    [answer] = client.take(1)
    if answer[2] == 0:
        client.disconnect()
        return ""
    assert (answer, client.closed) == (("CONNACK", 0, 3), True)
    reason = world.log.fields("client refused")[-1]["reason"]
    assert isinstance(reason, str)
    return reason


# --- how many ----------------------------------------------------------------------------------------------------


def test_no_more_sessions_than_the_limit() -> None:
    world = World(limits=Limits(max_sessions=2))
    why = "there are as many sessions as max_sessions allows"
    assert [refused(world, name) for name in ("a", "b", "c")] == ["", "", why]
    assert refused(world, "c", clean=True) == ""  # it would leave nothing
    assert refused(world, "a") == ""  # it has one
    assert (refused(world, "a", clean=True), refused(world, "c")) == ("", "")  # it had one
    assert refused(world, "a") == why
    brackets(world)


def test_a_clean_session_that_is_there_is_no_place_for_one_that_stays() -> None:
    world = World(limits=Limits(max_sessions=1))
    world.join("other", clean=False)
    clean = world.join("c")
    assert refused(world, "c") == "there are as many sessions as max_sessions allows"
    assert not clean.closed


def test_a_session_that_has_expired_makes_room() -> None:
    world = World(limits=Limits(max_sessions=1, session_expiry=10.0))
    assert [refused(world, "a"), refused(world, "b") != ""] == ["", True]
    world.advance(11.0)
    assert refused(world, "b") == ""


def test_a_user_has_a_share() -> None:
    world = World(limits=Limits(max_sessions=10, max_sessions_per_user=2))
    why = "this user has as many sessions as max_sessions_per_user allows"
    assert [refused(world, f"a{i}", username="ann") for i in range(3)] == ["", "", why]
    assert [refused(world, f"b{i}", username="bob") for i in range(3)] == ["", "", why]
    assert [refused(world, f"n{i}") for i in range(3)] == [""] * 3  # nobody's name was checked
    world.gatekeeper.allow_user_change = True
    assert refused(world, "a0", username="bob") == ""  # it is bob's from now on, and has been there
    assert refused(world, "a2", username="ann") == ""
    assert refused(world, "b2", username="bob") == why
    brackets(world)


def test_an_address_has_a_share() -> None:
    world = World(limits=Limits(max_sessions=10, max_sessions_per_address=2))
    why = "this address has as many sessions as max_sessions_per_address allows"
    assert [refused(world, f"a{i}", host="192.0.2.1") for i in range(3)] == ["", "", why]
    assert [refused(world, f"b{i}", host="192.0.2.2") for i in range(3)] == ["", "", why]
    assert refused(world, "a0", host="192.0.2.3") == ""  # it stays where it was made
    assert refused(world, "a2", host="192.0.2.1") == why
    assert refused(world, "a0", host="192.0.2.3", clean=True) == ""
    assert refused(world, "a2", host="192.0.2.1") == ""
    brackets(world)


def test_after_a_restart_the_counts_are_the_same() -> None:
    world = World(limits=Limits(max_sessions=4, max_sessions_per_user=2, max_sessions_per_address=2))
    for i in range(2):
        refused(world, f"a{i}", username="ann", host="192.0.2.1")
    world = world.crash()
    assert "max_sessions_per_user" in refused(world, "x", username="ann", host="192.0.2.2")
    assert "max_sessions_per_address" in refused(world, "x", username="bob", host="192.0.2.1")
    assert refused(world, "x", username="bob", host="192.0.2.2") == ""
    assert refused(world, "y", host="192.0.2.3") == ""
    assert "max_sessions " in refused(world, "z")


# --- how much ----------------------------------------------------------------------------------------------------


def fill(world: World, count: int, size: int = 1_000) -> None:
    publisher = world.join("pub")
    for i in range(count):
        publisher.publish("t", f"{i}".ljust(size), 1, 1)
    publisher.disconnect()


def waiting(world: World, client_id: str) -> int:
    queue = world.session(client_id).queue
    assert queue is not None
    return queue.count


def subscriber(world: World, client_id: str) -> None:
    client = world.join(client_id, clean=False)
    client.subscribe(("t", 1)).take()
    client.disconnect()


def test_when_the_store_is_full_messages_for_the_absent_are_dropped_and_told() -> None:
    world = World(limits=Limits(max_store=100_000))
    subscriber(world, "a")
    fill(world, 200)
    assert 40 <= waiting(world, "a") <= 90
    assert world.exchange.stats.dropped == 200 - waiting(world, "a")
    # One session has all of the room, which the messages do not quite fill: so it is not full by itself.
    world.limits.max_store = 50_000
    world.exchange.limits_changed()
    assert len(world.log.fields(FULL)) == 1
    before = waiting(world, "a")
    fill(world, 5, 1)
    assert waiting(world, "a") == before
    assert refused(world, "new") == "the store is full (max_store)"
    assert refused(world, "a") == ""
    assert refused(world, "new", clean=True) == ""


def test_when_it_has_been_read_there_is_room_again() -> None:
    world = World(limits=Limits(max_store=20_000, max_inflight=1_000))
    subscriber(world, "a")
    fill(world, 10)
    world.limits.max_store = 10_000
    world.exchange.limits_changed()
    client = world.join("a", clean=False)
    client.puback(*(packet[4] for packet in client.take()))
    client.disconnect()
    assert waiting(world, "a") == 0
    assert world.log.events("warning", "error") == [FULL, "the store has room again"]
    fill(world, 3)
    assert waiting(world, "a") == 3
    assert refused(world, "new") == ""


def test_who_hoards_leaves_room_for_those_who_do_not() -> None:
    """Above half, each has the same part."""
    world = World(limits=Limits(max_store=100_000))
    subscriber(world, "hoards")
    fill(world, 45)
    for i in range(9):
        subscriber(world, f"s{i}")
    fill(world, 2)  # for all ten
    hoarded = waiting(world, "hoards")
    assert [waiting(world, f"s{i}") for i in range(9)] == [2] * 9
    fill(world, 50)
    assert waiting(world, "hoards") == hoarded
    assert {waiting(world, f"s{i}") for i in range(9)} == {9}  # of 10,000 bytes


def test_a_message_that_waits_in_many_sessions_is_counted_once_and_each_place_in_a_queue(world: World) -> None:
    for i in range(5):
        subscriber(world, f"s{i}")
    before = world.journal.stored
    fill(world, 1, 10_000)
    assert 10_000 < world.journal.stored - before < 12_000
    world.join("s0").disconnect()  # ends it
    assert 10_000 < world.journal.stored - before < 11_500
    for i in range(1, 5):
        world.join(f"s{i}").disconnect()
    assert world.journal.stored == before


@pytest.fixture
def world() -> World:
    return World()
