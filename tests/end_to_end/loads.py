"""Clients that a broker has to survive, in any number: the same code for the normal suite and for `tests/stress`.

Owns: what each bad client does, and what is measured meanwhile. Must not know: how a broker works.
"""

from __future__ import annotations

import contextlib
import resource
import socket
import threading
import time
from collections.abc import Iterator

from tests.broker_process import BrokerProcess
from tests.raw_client import (
    DEADLINE,
    PINGREQ,
    PINGRESP,
    RawClient,
    connect,
    parse_publish,
    puback,
    pubcomp,
    publish,
    pubrec,
    pubrel,
    suback,
    subscribe,
)

MIB = 1 << 20


class Witness:
    """A well-behaved client that publishes and receives all the time, and notes how long that takes."""

    def __init__(self, broker: BrokerProcess) -> None:
        self._client = RawClient.connected(broker.address, "witness").subscribe(("witness", 1))
        self._over = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self.times: list[float] = []

    def _run(self) -> None:
        try:
            while not self._over.is_set():
                start = time.monotonic()
                self._client.send(publish("witness", b"x", 1, packet_id=7))
                came = {self._client.next()[0] for _ in range(2)}
                assert came == {0x32, 0x40}
                self._client.send(puback(len(self.times) % 65_535 + 1))
                self.times.append(time.monotonic() - start)
        except BaseException as error:
            self._failure = error

    def __enter__(self) -> Witness:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()
        self._client.close()
        if self._failure is not None:
            raise self._failure

    def report(self) -> str:
        times = sorted(self.times)
        middle, slowest = times[len(times) // 2] * 1e3, times[-1] * 1e3
        return f"{len(times)} round trips of another client, half within {middle:.1f} ms, the slowest {slowest:.0f} ms"


@contextlib.contextmanager
def descriptors(count: int) -> Iterator[None]:
    """Room for so many connections in this process."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(before[0], count + 500)
    assert before[1] == resource.RLIM_INFINITY or wanted <= before[1], f"this needs {wanted} descriptors: ulimit -n"
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def silent_crowd(broker: BrokerProcess, count: int) -> None:
    """So many clients that never say a whole CONNECT, half of them nothing at all, while others are served."""
    half = connect("somebody who never finishes")[:-5]
    before = broker.rss()
    crowd: list[socket.socket] = []
    with descriptors(count), Witness(broker) as witness:
        for i in range(count):
            sock = socket.create_connection(broker.address, DEADLINE)
            crowd.append(sock)
            if i % 2:
                sock.sendall(half)
        with RawClient.connected(broker.address, "late") as late:  # accepted behind all of them
            late.ping()
        grown = broker.rss() - before
        for sock in crowd:
            sock.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                assert sock.recv(1) is None, "closed"
        for sock in crowd:
            sock.close()
    print(f"{count} silent connections: {grown / MIB:.1f} MiB, {grown / count / 1024:.2f} KiB each; {witness.report()}")
    assert grown < count * 8192 + 4 * MIB
    assert max(witness.times) < 5.0


def deaf_reader(broker: BrokerProcess, qos: int, count: int, size: int) -> None:
    """A client subscribes, and never reads what is published: memory stays bounded, and others are served."""
    deaf = RawClient.connected(broker.address, "deaf", receive_buffer=4096).subscribe(("load", qos))
    before = broker.rss()
    with Witness(broker) as witness, RawClient.connected(broker.address, "author") as author:
        publish_acknowledged(author, qos, count, size)
        grown = broker.rss() - before
        assert deaf_gets_what_is_its_due(deaf, qos) > 0
    deaf.close()
    print(
        f"{count} messages of {size} bytes at QoS {qos} for a client that does not read: {grown / MIB:.1f} MiB;"
        f" {witness.report()}"
    )
    assert grown < 24 * MIB
    assert max(witness.times) < 5.0


def publish_acknowledged(author: RawClient, qos: int, count: int, size: int) -> None:
    payload = b"x" * size
    for start in range(0, count, 100):
        ids = range(1, min(100, count - start) + 1)
        author.send(b"".join(publish("load", payload, qos, packet_id=i) for i in ids))
        if qos == 1:
            author.expect(*(puback(i) for i in ids))
        elif qos == 2:
            author.expect(*(pubrec(i) for i in ids))
            author.send(b"".join(map(pubrel, ids)))
            author.expect(*(pubcomp(i) for i in ids))
        else:
            author.ping()


def deaf_gets_what_is_its_due(deaf: RawClient, qos: int) -> int:
    """It begins to read after all: how many messages there are until it has caught up."""
    deaf.send(PINGREQ)
    count = 0
    while (data := deaf.next()) != PINGRESP:
        message = parse_publish(data)
        assert (message.topic, message.qos) == ("load", qos)
        count += 1
    return count


def flood(broker: BrokerProcess, readers: int, count: int, size: int) -> None:
    """A client publishes as fast as it can, faster than any of its readers reads."""
    before = broker.rss()
    slow = [
        RawClient.connected(broker.address, f"slow{i}", receive_buffer=4096).subscribe(("flood", i % 2))
        for i in range(readers)
    ]
    block = publish("flood", b"x" * size) * 50
    with Witness(broker) as witness, RawClient.connected(broker.address, "author") as author:
        start = time.monotonic()
        peak = 0
        for i in range(0, count, 50):
            author.send(block)
            if i % 500 == 0:
                peak = max(peak, broker.rss())
        author.ping()
        took = time.monotonic() - start
        grown = max(peak, broker.rss()) - before
    for client in slow:
        client.close()
    print(
        f"{count} messages of {size} bytes at {count / took:.0f} a second to {readers} readers that do not read:"
        f" {grown / MIB:.1f} MiB; {witness.report()}"
    )
    # Each holds what is unsent (max_unsent, 1 MiB), and what one turn adds to it.
    assert grown < readers * 3 * MIB + 16 * MIB
    assert max(witness.times) < 5.0


def many_topics(broker: BrokerProcess, count: int, length: int) -> None:
    """Each message to a topic of its own: nothing that the broker remembers of topics may grow without end."""
    with (
        RawClient.connected(broker.address, "author") as author,
        RawClient.connected(broker.address, "reader") as reader,
    ):
        reader.subscribe(("topics/+/none", 0))
        pad = "x" * max(0, length - 20)
        author.send(b"".join(publish(f"warm/{i}", b"x") for i in range(1000)))
        author.ping()
        before = broker.rss()
        with Witness(broker) as witness:
            peak = 0
            step = max(1, min(1000, MIB // length))
            for first in range(0, count, step):
                author.send(b"".join(publish(f"topics/{i:010d}/{pad}", b"x") for i in range(first, first + step)))
                if first // step % 10 == 0:
                    author.ping()
                    peak = max(peak, broker.rss())
            author.ping()
        grown = max(peak, broker.rss()) - before
        reader.ping()
    print(f"{count} topics of {length} bytes: {grown / MIB:.1f} MiB; {witness.report()}")
    assert grown < 24 * MIB
    assert max(witness.times) < 5.0


def many_subscriptions(broker: BrokerProcess, count: int, length: int) -> None:
    """A client subscribes to as much as it may, and leaves: all of it is free again."""
    pad = "x" * max(0, length - 20)
    before = broker.rss()
    for _ in range(3):
        with RawClient.connected(broker.address, "greedy") as greedy:
            for first in range(0, count, 500):
                wanted = [(f"s/{i:010d}/{pad}/+", i % 3) for i in range(first, min(first + 500, count))]
                greedy.send(subscribe(*wanted))
                assert greedy.next()[0] == 0x90
            full = broker.rss() - before
        broker.wait_for("client disconnected", client="greedy")
    print(f"{count} subscriptions of {length} bytes: {full / MIB:.1f} MiB")
    assert full < count * (length + 1500) + 16 * MIB


def reconnecting(broker: BrokerProcess, count: int) -> None:
    """Clients that come and go by a RST leave nothing behind."""
    for i in range(count // 10):
        RawClient.connected(broker.address, f"warm{i}").reset()
    before = broker.rss()
    with Witness(broker) as witness:
        for i in range(count):
            client = RawClient.connected(broker.address, f"c{i}")
            client.send(b"".join((publish("r", b"x" * 100), PINGREQ)))
            client.reset()
    grown = broker.rss() - before
    print(f"{count} clients that came and were gone: {grown / MIB:.1f} MiB; {witness.report()}")
    assert grown < 8 * MIB


def retained_for_the_deaf(broker: BrokerProcess, count: int, size: int) -> None:
    """Many large retained messages are sent to who asks for them no faster than they are read."""
    with RawClient.connected(broker.address, "author") as author:
        for i in range(count):
            author.send(publish(f"large/{i}", b"%04d" % i + b"x" * size, retain=True))
        author.ping()
    before = broker.rss()
    deaf = [RawClient.connected(broker.address, f"deaf{i}", receive_buffer=4096) for i in range(3)]
    with Witness(broker) as witness:
        for client in deaf:
            client.send(subscribe(("large/#", 0)))
            client.expect(suback(0))
        for _ in range(20):
            with RawClient.connected(broker.address, "passer-by") as passer_by:
                passer_by.ping()
        grown = broker.rss() - before
        # Who begins to read after all gets every one of them, once.
        came = {deaf[0].message().payload[:4] for _ in range(count)}
        assert len(came) == count
        deaf[0].ping()
    for client in deaf:
        client.close()
    print(
        f"{count} retained messages of {size} bytes for 3 clients that do not read: {grown / MIB:.1f} MiB;"
        f" {witness.report()}"
    )
    assert grown < 40 * MIB  # all of them for each would be 86 MiB
    assert max(witness.times) < 5.0
