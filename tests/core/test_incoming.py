"""Packets that are not whole, or wait: all of them together have a limit."""

from __future__ import annotations

from collections.abc import Callable

from broker.core.incoming import Incoming
from broker.core.limits import Limits
from broker.core.memory import SHARES, WHOLE, Memory
from broker.wire.codes import ReasonCode
from tests.core.harness import Client, FakeLog, World

MIB = 1 << 20


def header(size: int) -> bytes:
    """The beginning of a PUBLISH of QoS 0 with so many bytes behind its fixed header."""
    length = bytes([size & 127 | 128, size >> 7 & 127 | 128, size >> 14 & 127 | 128, size >> 21])
    return b"\x30" + length + b"\0\1t"


def joined(world: World, client_id: str) -> Client:
    """One that may send large packets."""
    client = world.dial(max_packet_size=16 * MIB).connect(client_id)
    client.take()
    return client


def small_world(share: int) -> World:
    return World(limits=Limits(max_memory=share * WHOLE // SHARES["incoming"]))


def test_who_announces_most_is_closed_and_an_honest_client_is_not() -> None:
    """60 packets of 16 MiB that come piece by piece, and one of 1 MiB whose client is slow."""
    world = small_world(8 * MIB)
    honest = joined(world, "honest")
    honest.subscribe(("t", 0)).take()
    honest.feed(header(MIB))
    attackers = [joined(world, f"attacker-{number}") for number in range(60)]
    for attacker in attackers:
        attacker.feed(header(16 * MIB - 10))
    part = world.exchange.memory.incoming
    sent = 3
    for _ in range(16):
        for attacker in attackers:
            if not attacker.closed:
                attacker.feed(b"x" * 65_536)
        honest.feed(b"x" * min(65_536, MIB - sent))
        sent += min(65_536, MIB - sent)
        assert part.size <= part.limit
    honest.send(b"x" * (MIB - sent))
    assert honest.payloads() == ["x" * (MIB - 3)]
    assert 40 < sum(attacker.closed for attacker in attackers) < 60
    assert (
        world.log.events("warning").count(
            "too much memory in packets that are not whole: connections that hold the most are closed"
        )
        == 1
    )
    for attacker in attackers:
        if not attacker.closed:
            attacker.drop()
    assert part.size == 0


class Holding:
    def __init__(self, incoming: Incoming, origin: str, wanted: int, held: int) -> None:
        self._incoming = incoming
        self.origin = origin
        self.wanted = wanted
        self.held = held
        self.closed = False
        incoming.change(self, held)

    def close(self, why: str, *, reason: ReasonCode | None = None) -> None:
        self.closed = True
        self._incoming.change(self, -self.held)


def test_many_small_packets_from_one_place_do_not_push_out_a_large_one_from_another() -> None:
    calls: list[Callable[[], None]] = []
    part = Memory(Limits(max_memory=8 * MIB), FakeLog()).incoming
    incoming = Incoming(part, calls.append)
    honest = Holding(incoming, "honest", MIB, 900_000)
    attackers = [Holding(incoming, "evil", 10_000, 9_000) for _ in range(20)]
    assert calls == [incoming.relieve]
    incoming.relieve()
    assert (honest.closed, sum(one.closed for one in attackers)) == (True, 0)  # 200 KB are less than 1 MiB
    honest = Holding(incoming, "honest", 100_000, 90_000)
    attackers += [Holding(incoming, "evil", 10_000, 9_000) for _ in range(100)]
    incoming.relieve()
    assert (honest.closed, sum(one.closed for one in attackers) > 10) == (False, True)


def test_what_waits_undecoded_is_counted_as_long_as_it_does() -> None:
    """Behind a CONNECT whose password is being checked, or while a client is not read from."""
    world = small_world(8 * MIB)
    client: Client = world.join("c")
    client.get_stuck()
    client.connection.quiesce()
    part = world.exchange.memory.incoming
    client.feed(b"\xc0\0" * 10_000)
    assert part.size == 20_000
    client.drop()
    assert part.size == 0


def test_a_few_bytes_do_not_keep_the_block_in_which_they_came() -> None:
    world = small_world(8 * MIB)
    client = world.join("c")
    client.send(b"\xc0\0" * 30_000 + b"\x30")
    assert client.connection._decoder.block == 1
