"""The system gives no more memory (ulimit -v): it ends who asked for it, and nobody else."""

from __future__ import annotations

import contextlib
import resource
from pathlib import Path

import pytest

from tests.broker_process import BrokerProcess, StartBroker
from tests.raw_client import RawClient, puback, publish

MIB = 1 << 20

pytestmark = pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="only Linux limits another process")


def limit(broker: BrokerProcess, more: int) -> None:
    """The process may map so many bytes more than it has."""
    pages = int(Path(f"/proc/{broker.pid}/statm").read_text().split()[0])
    size = pages * resource.getpagesize() + more
    resource.prlimit(broker.pid, resource.RLIMIT_AS, (size, size))


def exhaust(broker: BrokerProcess, count: int) -> list[RawClient]:
    """Clients that send as much of a packet as the broker takes."""
    clients = []
    part = publish("x", b"y" * (15 * MIB))[:-1]
    for _ in range(count):
        client = RawClient.connected(broker.address)
        client.socket.settimeout(5)
        with contextlib.suppress(OSError):
            client.socket.sendall(part)
        clients.append(client)
    return clients


@pytest.mark.parametrize("durable", [False, True])
def test_others_are_served_and_memory_comes_back(start_broker: StartBroker, tmp_path: Path, durable: bool) -> None:
    broker = start_broker('max_memory = "8 GiB"\n', data=tmp_path / "data" if durable else None)
    with RawClient.connected(broker.address, "innocent", clean=False) as innocent:
        innocent.subscribe(("t", 1))
        limit(broker, 100 * MIB)
        clients = exhaust(broker, 12)
        for number in range(1, 101):
            innocent.send(publish("t", b"x" * 1000, 1, packet_id=number))
            assert {innocent.next()[0] for _ in range(2)} == {0x32, 0x40}
            innocent.send(puback(number))
        for client in clients:
            client.close()
        # All that they held is free again: a large packet goes through.
        with RawClient.connected(broker.address, "after") as after:
            after.subscribe(("large", 0))
            after.send(publish("large", b"z" * (10 * MIB)))
            assert len(after.message().payload) == 10 * MIB
        innocent.ping()
    assert [line for line in broker.lines if "raceback" in line] == []
    assert len(broker.lines) < 100
