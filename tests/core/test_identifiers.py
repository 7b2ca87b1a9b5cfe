"""The Packet Identifiers that a client has not released, against a set, and what the store is told of them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from broker.core.identifiers import BUCKET, FEW, MOST, Identifiers, Unreleased
from broker.core.limits import Limits
from broker.core.memory import Memory
from broker.core.ports import BUCKETS
from tests.core.harness import FakeLog, World

ALL = [1, 2, 31, 32, 33, 63, 64, 65_504, 65_534, 65_535]
ONE = st.sampled_from(ALL)


def unreleased() -> Unreleased:
    return Unreleased(Memory(Limits(), FakeLog()).clients)


@given(st.lists(st.one_of(ONE, st.none())))
def test_it_holds_what_a_set_would_hold(steps: list[int | None]) -> None:
    """Each step enters an identifier or removes it; None: the store takes the changes."""
    held = Identifiers(unreleased())
    model: set[int] = set()
    stored: dict[int, int] = {}
    for packet_id in [*steps, None]:
        if packet_id is None:
            stored.update(held.take_changes())
            stored = {bucket: mask for bucket, mask in stored.items() if mask}
            assert held.take_changes() == {}
            assert Identifiers(unreleased(), stored).count == len(model)
        elif packet_id in held:
            held.remove(packet_id)
            model.remove(packet_id)
        else:
            held.add(packet_id)
            model.add(packet_id)
        assert held.count == len(model)
    assert {n for n in ALL if n in held} == model
    assert {n for n in ALL if n in Identifiers(unreleased(), stored)} == model


def test_all_identifiers_take_little_memory_and_one_of_them_little_to_store() -> None:
    all = unreleased()
    held = Identifiers(all)
    for packet_id in range(1, 65_536):
        held.add(packet_id)
    assert len(held.take_changes()) == BUCKETS
    assert all.size == BUCKET * BUCKETS < 300_000
    held.remove(777)
    held.add(777)
    held.remove(778)
    assert list(held.take_changes()) == [778 // 32]


def test_what_one_client_holds_is_stored_as_it_changes() -> None:
    world = World(limits=Limits())
    client = world.join("pub", clean=False)
    for packet_id in (1, 40, 41):
        client.publish("t", "x", 2, packet_id)
    client.pubrel(1).pubrel(40)
    client.take()
    world.settle()
    [stored] = world.store.load().sessions
    assert stored.received == {1: 1 << 9}


def test_they_count_as_what_clients_take() -> None:
    world = World()
    client = world.join("pub")
    clients = world.exchange.memory.clients
    before = clients.size
    for bucket in range(3):
        client.publish("t", "x", 2, 32 * bucket + 1)
    assert clients.size == before + 3 * BUCKET
    client.pubrel(1)
    assert clients.size == before + 2 * BUCKET
    session = world.session("pub")
    client.drop()
    assert (session.received and session.received.count, clients.size < before) == (0, True)


def test_all_sessions_together_hold_so_much_and_who_holds_little_may_go_on() -> None:
    world = World()
    many = world.join("many", clean=False)
    few = world.join("few")
    for bucket in range(FEW):
        many.publish("t", "", 2, bucket * 32 + 1)
    world.exchange.sessions.unreleased.size += MOST  # others
    many.publish("t", "", 2, 2).pubrel(1)  # in a bucket that it has
    few.publish("t", "", 2, FEW * 32 + 1)
    assert (many.closed, few.closed) == (False, False)
    many.publish("t", "", 2, FEW * 32 + 1)
    assert (many.closed, few.closed) == (True, False)
    assert world.log.fields("client disconnected")[-1]["reason"] == (
        "it holds too many Packet Identifiers of QoS 2 messages that it has not released"
    )


def test_what_a_session_held_is_free_when_it_ends() -> None:
    world = World()
    world.join("clean").publish("t", "", 2, 1).publish("t", "", 2, 33).pubrel(1).drop()
    world.join("kept", clean=False).publish("t", "", 2, 1).publish("t", "", 2, 33).drop()
    assert world.exchange.sessions.unreleased.size == 2 * BUCKET
    world.join("kept")
    assert world.exchange.sessions.unreleased.size == 0
