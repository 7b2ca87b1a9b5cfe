"""Bad input over a real socket, and clients that take without end: each harms nobody but itself.

The same loads with larger numbers are in tests/stress. Figures are printed (pytest -rP shows them)."""

from __future__ import annotations

import contextlib
import random

import pytest

from tests import vectors
from tests.broker_process import BrokerProcess, StartBroker
from tests.end_to_end import loads
from tests.raw_client import Address, RawClient, connack, connect, publish, subscribe

MALFORMED = [vector for vector in vectors.MALFORMED if not vector.asks_for_5]
KINDS = {kind: [vector for vector in MALFORMED if vector.data[0] >> 4 == kind] for kind in range(16)}


@pytest.mark.parametrize("kind", [kind for kind, rows in KINDS.items() if rows])
def test_every_malformed_packet_closes_its_connection_and_no_other(kind: int, shared_broker: BrokerProcess) -> None:
    address = shared_broker.address
    wrong: list[str] = []
    with RawClient.connected(address, "bystander") as bystander:
        bystander.subscribe(("bystander", 0))
        for vector in KINDS[kind]:
            before, accepted = vectors.over_socket(vector, b"vector %d" % kind)
            with RawClient(address) as client:
                if before:
                    client.send(before)
                    client.expect(accepted)
                with contextlib.suppress(ConnectionError):
                    client.send(vector.data)
                try:
                    came = client.closed(timeout=5.0)
                except TimeoutError:
                    wrong.append(f"{vector.name}: not closed")
                    continue
            owed = b"" if vector.code is None else connack(vector.code)
            if came != owed:
                wrong.append(f"{vector.name}: {came!r} came, not {owed!r}")
        bystander.send(publish("bystander", b"unharmed"))
        bystander.expect(publish("bystander", b"unharmed"))
        bystander.ping()
    assert wrong == []


def test_rubbish_of_any_kind_is_closed_or_waited_for(address: Address) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    noise = random.Random(seed)
    with RawClient.connected(address, "bystander") as bystander:
        for i in range(300):
            with RawClient(address) as client:
                before = connect(f"noisy{i % 3}", clean=bool(i % 2)) if i % 4 else b""
                data = noise.randbytes(noise.randrange(1, 300))
                with contextlib.suppress(ConnectionError):
                    client.send(before + data)
        bystander.ping()


def test_broken_copies_of_good_packets_harm_nobody(address: Address) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    noise = random.Random(seed)
    good = [
        publish("t/1", b"payload", 1, packet_id=2),
        publish("t/2", b"payload", 2, packet_id=3),
        subscribe(("t/#", 2), ("+/x", 1)),
        b"\x62\x02\0\3" + b"\x50\x02\0\1" + b"\x70\x02\0\1",
    ]
    with RawClient.connected(address, "bystander") as bystander:
        for i in range(300):
            data = bytearray(connect(f"broken{i % 3}", clean=bool(i % 2)) + b"".join(good))
            for _ in range(noise.randrange(1, 4)):
                data[noise.randrange(len(data))] = noise.randrange(256)
            with RawClient(address) as client, contextlib.suppress(ConnectionError):
                client.send(bytes(data))
        bystander.ping()


# --- too many, too slow, too much ---


def test_a_thousand_silent_connections(start_broker: StartBroker) -> None:
    loads.silent_crowd(start_broker("connect_timeout = 60\n"), 1000)


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_client_that_never_reads(qos: int, start_broker: StartBroker) -> None:
    loads.deaf_reader(start_broker(), qos, count=20_000 if qos == 0 else 5_000, size=1000)


def test_a_client_that_publishes_faster_than_anyone_reads(start_broker: StartBroker) -> None:
    loads.flood(start_broker(), readers=4, count=30_000, size=1000)


def test_many_different_topics(start_broker: StartBroker) -> None:
    loads.many_topics(start_broker(), count=50_000, length=30)


def test_many_long_topics(start_broker: StartBroker) -> None:
    loads.many_topics(start_broker(), count=2_000, length=60_000)


def test_as_many_subscriptions_as_one_may_have(start_broker: StartBroker) -> None:
    loads.many_subscriptions(start_broker(), count=10_000, length=100)


def test_clients_that_come_and_go(start_broker: StartBroker) -> None:
    loads.reconnecting(start_broker(), count=1000)


def test_a_client_that_never_reads_the_retained_messages_it_asked_for(start_broker: StartBroker) -> None:
    loads.retained_for_the_deaf(start_broker(), count=300, size=100_000)
