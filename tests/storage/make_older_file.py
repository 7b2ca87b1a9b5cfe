"""`python -m tests.storage.make_older_file SOURCES FILE`: the data file of a broker, for tests of those to come.

Starts the broker whose sources are in that directory, lets clients store a little of everything, stops it, and packs
its file with gzip into FILE. Before the format of the store changes, run it with the sources of the last version.
"""

from __future__ import annotations

import gzip
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.raw_client import (
    DEADLINE,
    Address,
    RawClient,
    puback,
    pubcomp,
    publish,
    pubrec,
    pubrel,
)

#: The file in a data directory.
NAME = "selectmq.db"
ADDRESS = ("127.0.0.1", 18_839)
#: Payloads, by topic: of what two clients have waiting, and of what is retained.
WAITING = {**{f"both/{i}": b"%d" % i * (i + 1) for i in range(8)}, "both/large": b"L" * 20_000}
RETAINED = {"r/plain": b"\x00\xff", "r/\u20ac": b"euro", "r/large": b"R" * 2_000}
#: The Packet Identifier of a message of QoS 2 that its author has not released.
UNRELEASED = 300


def qos_of(place: int) -> int:
    """Of what waits, in its order from 1 on."""
    return 2 if place % 3 == 0 else 1


def main(sources: Path, file: Path) -> None:
    with tempfile.TemporaryDirectory() as directory:
        broker = subprocess.Popen(
            [sys.executable, "-m", "broker", "-p", str(ADDRESS[1]), "--data", directory],
            cwd=sources,
            env={**os.environ, "PYTHONPATH": str(sources)},
        )
        try:
            wait(ADDRESS)
            store(ADDRESS)
            broker.send_signal(signal.SIGTERM)
            assert broker.wait() == 0
        finally:
            broker.kill()
        file.write_bytes(gzip.compress((Path(directory) / NAME).read_bytes(), mtime=0))


def wait(address: Address) -> None:
    """Until it serves."""
    latest = time.monotonic() + DEADLINE
    while True:
        try:
            RawClient.connected(address).close()
        except ConnectionRefusedError:
            assert time.monotonic() < latest
            time.sleep(0.05)
        else:
            return


def store(address: Address) -> None:
    for name in ("both-1", "both-2"):
        RawClient.connected(address, name, clean=False).subscribe(("both/#", 2), ("other/+", 0)).disconnect()
    half = RawClient.connected(address, "half", clean=False).subscribe(("half/#", 2))
    author = RawClient.connected(address, "author", clean=False)
    places = list(enumerate(WAITING.items(), 1))
    author.send(b"".join(publish(*message, qos_of(place), packet_id=place) for place, message in places))
    answers = {author.next() for _ in places}
    assert answers == {(puback if qos_of(place) == 1 else pubrec)(place) for place, _ in places}
    ids = [place for place, _ in places if qos_of(place) == 2]
    author.send(b"".join(map(pubrel, ids)))
    author.expect(*map(pubcomp, ids))
    for topic, payload in RETAINED.items():
        author.send(publish(topic, payload, 1, packet_id=1, retain=True))
        author.expect(puback(1))
    author.send(publish("half/1", b"released", 2, packet_id=UNRELEASED))
    author.expect(pubrec(UNRELEASED))
    author.send(publish("half/2", b"not acknowledged", 1, packet_id=1))
    author.expect(puback(1))
    first, second = half.message(), half.message()
    assert (first.qos, second.qos) == (2, 1)
    half.send(pubrec(first.packet_id))
    half.expect(pubrel(first.packet_id))  # and no PUBCOMP
    settle_some(address)
    author.disconnect()
    half.disconnect()


def settle_some(address: Address) -> None:
    """The second client acknowledges the messages of QoS 1 among the first five that it gets."""
    second = RawClient.connected(address, "both-2", clean=False, present=True)
    for _ in range(5):
        message = second.message()
        if message.qos == 1:
            second.send(puback(message.packet_id))
    second.disconnect()


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]))
