"""A broker whose disk is full acknowledges nothing that is not stored, says so once, and goes on when there is room.

And one whose data cannot be used at all does not start, and says why in one line.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from broker.storage.place import FILE_NAME
from broker.storage.schema import VERSION
from broker.storage.sqlite import SqliteStore
from tests.broker_process import BrokerProcess, StartBroker, environment, run_command_line
from tests.raw_client import (
    PINGREQ,
    PINGRESP,
    Publish,
    RawClient,
    connack,
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
from tests.small_disk import can_mount, fill, limit_file_size, small_disk

FAILED = "the store failed: nothing that depends on it is acknowledged until it works again"
WORKS = "the store works again: what had to wait is stored and acknowledged"


class Disk(NamedTuple):
    """Where a broker has its data, and how to leave it no room, and to make room again."""

    directory: Path
    fill: Callable[[BrokerProcess], object]
    make_room: Callable[[BrokerProcess], object]
    reason: str  #: what SQLite says


@contextlib.contextmanager
def limited(tmp_path: Path) -> Iterator[Disk]:
    """Files may not grow."""
    directory = tmp_path / "data"

    def fill_up(broker: BrokerProcess) -> None:
        limit_file_size(broker.pid, max(path.stat().st_size for path in directory.iterdir()))

    yield Disk(directory, fill_up, lambda broker: limit_file_size(broker.pid, None), "disk I/O error")


@contextlib.contextmanager
def mounted(tmp_path: Path) -> Iterator[Disk]:
    """A file system without a free byte."""
    with small_disk(8 << 20) as root:
        filler = root / "filler"
        yield Disk(
            root / "data", lambda broker: fill(root), lambda broker: filler.unlink(), "the disk is full; make room"
        )


@pytest.fixture(params=[limited, mounted] if can_mount() else [limited])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    with request.param(tmp_path) as made:
        yield made


@pytest.fixture
def broker(disk: Disk, tmp_path: Path) -> Iterator[BrokerProcess]:
    process = BrokerProcess(tmp_path, data=disk.directory)
    yield process
    process.stop()


class Stream:
    """A publisher at QoS 1 that publishes until the store fails, for an absent client."""

    def __init__(self, broker: BrokerProcess) -> None:
        RawClient.connected(broker.address, "absent", clean=False).subscribe(("t", 1)).disconnect()
        self.client = RawClient.connected(broker.address, "publisher")
        self.sent = 0
        self.acknowledged = 0

    def publish(self, count: int) -> None:
        for _ in range(count):
            self.sent += 1
            self.client.send(publish("t", b"%d " % self.sent + b"." * 1000, 1, packet_id=self.sent))

    def expect_acknowledgements(self, count: int) -> None:
        for _ in range(count):
            self.acknowledged += 1
            self.client.expect(puback(self.acknowledged))

    def until_failure(self, broker: BrokerProcess) -> None:
        """Publish until the broker has told that its store failed."""
        while not broker.events(FAILED):
            self.publish(5)
            self._take_acknowledgements()
        self.publish(5)
        self._take_acknowledgements()  # those of before
        self.client.ping()

    def _take_acknowledgements(self) -> None:
        """All that the broker has sent up to now."""
        self.client.send(PINGREQ)
        while (packet := self.client.next()) != PINGRESP:
            self.acknowledged += 1
            assert packet == puback(self.acknowledged)

    def numbers(self) -> range:
        """Of the messages that were sent."""
        return range(1, self.sent + 1)


def number(message: Publish) -> int:
    return int(message.payload.split()[0])


def works(broker: BrokerProcess, client_id: str) -> None:
    """A clean session of its own does all it wants."""
    with RawClient.connected(broker.address, client_id) as client:
        client.subscribe((client_id, 2))
        client.send(publish(client_id, b"0", 0))
        client.expect(publish(client_id, b"0", 0))
        client.send(publish(client_id, b"1", 1))
        client.expect(publish(client_id, b"1", 1, packet_id=1), puback(1))
        client.send(puback(1) + publish(client_id, b"2", 2))
        client.expect(publish(client_id, b"2", 2, packet_id=2), pubrec(1))
        client.send(pubrec(2) + pubrel(1))
        client.expect(pubrel(2), pubcomp(1))
        client.send(pubcomp(2))
        client.ping()


def test_a_full_disk_stops_acknowledgements_until_there_is_room(broker: BrokerProcess, disk: Disk) -> None:
    stream = Stream(broker)
    holder = RawClient.connected(broker.address, "holder", clean=False)
    removers = [RawClient.connected(broker.address, f"remover-{i}") for i in range(2)]
    removers[0].send(publish("retained", b"x", 1, retain=True))
    removers[0].expect(puback(1))
    stream.publish(50)
    stream.expect_acknowledgements(50)
    disk.fill(broker)
    stream.until_failure(broker)
    assert stream.acknowledged < stream.sent
    failed = time.monotonic()
    # What a persistent session asks for is not promised either; nor is there a new one.
    holder.send(subscribe(("x", 1)))
    holder.ping()
    # Nor is it that a retained message is gone: also to whom finds it gone already.
    for remover in removers:
        remover.send(publish("retained", b"", 1, retain=True))
        remover.ping()
    for client_id in ("absent", "new"):
        with RawClient(broker.address) as client:
            client.send(connect(client_id, clean=False))
            assert client.closed() == connack(3)
    # Clean sessions go on, for longer than the broker takes to try again.
    turns = 0
    while time.monotonic() < failed + 2.5:
        works(broker, f"clean-{turns}")
        turns += 1
        stream.client.ping()
        holder.ping()
    assert turns > 5
    assert broker.events(WORKS) == []

    disk.make_room(broker)
    stream.expect_acknowledgements(stream.sent - stream.acknowledged)
    holder.expect(suback(1))
    for remover in removers:
        remover.expect(puback(1))
    stream.publish(10)
    stream.expect_acknowledgements(10)
    with RawClient.connected(broker.address, "absent", clean=False, present=True) as absent:
        came = []
        for _ in stream.numbers():  # on a slow machine there are more of them than fit into the in-flight window
            came.append(absent.message())
            absent.send(puback(came[-1].packet_id))
        absent.ping()
    assert [(number(message), message.dup) for message in came] == [(n, False) for n in stream.numbers()]
    assert [(event["level"], event["reason"]) for event in broker.events(FAILED)] == [
        ("error", f"{disk.directory / FILE_NAME}: {disk.reason}")
    ]
    assert [event["level"] for event in broker.events(WORKS)] == ["warning"]
    for client in (stream.client, holder, *removers):
        client.close()


def test_what_was_acknowledged_before_the_disk_was_full_survives_kill_9(broker: BrokerProcess, disk: Disk) -> None:
    stream = Stream(broker)
    stream.publish(50)
    stream.expect_acknowledgements(50)
    disk.fill(broker)
    stream.until_failure(broker)
    broker.kill()
    stream.client.close()
    if "disk is full" in disk.reason:
        disk.make_room(broker)
    broker.start()
    with RawClient.connected(broker.address, "absent", clean=False, present=True) as absent:
        absent.send(subscribe(("control", 1)) + publish("control", b"", 1))
        came = []
        controlled = False
        while not controlled:
            packet = absent.next()
            if packet[0] >> 4 == 3:
                message = parse_publish(packet)
                absent.send(puback(message.packet_id))
                controlled = message.topic == "control"
                if not controlled:
                    came.append(number(message))
    assert came == list(range(1, len(came) + 1))
    assert 50 <= stream.acknowledged <= len(came) <= stream.sent


# --- data that cannot be used ---


def use(directory: Path) -> None:
    store = SqliteStore(str(directory))
    store.load()
    store.close()


def other_file(directory: Path) -> None:
    directory.write_text("mine")


def closed_to_everybody(directory: Path) -> None:
    directory.mkdir(mode=0)


def unreadable(directory: Path) -> None:
    use(directory)
    (directory / FILE_NAME).chmod(0)


def newer(directory: Path) -> None:
    use(directory)
    with contextlib.closing(sqlite3.connect(directory / FILE_NAME)) as db:
        db.execute("PRAGMA user_version = 7")


def foreign(directory: Path) -> None:
    directory.mkdir()
    with contextlib.closing(sqlite3.connect(directory / FILE_NAME)) as db:
        db.execute("CREATE TABLE mine (x)")


def garbage(directory: Path) -> None:
    directory.mkdir()
    (directory / FILE_NAME).write_text("mine\n" * 1000)


def truncated(directory: Path) -> None:
    use(directory)
    os.truncate(directory / FILE_NAME, 5000)


def damaged(directory: Path) -> None:
    use(directory)
    with (directory / FILE_NAME).open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 4096)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (other_file, "cannot be used: it is not a directory"),
        (closed_to_everybody, "permission denied; check its owner and permissions"),
        (unreadable, "permission denied; check its owner and permissions"),
        (newer, f"was written by a newer version of this broker (format 7, this one knows {VERSION}); upgrade"),
        (foreign, "is not a file of this broker; choose another directory with --data"),
        (garbage, "is damaged (file is not a database); put back a copy of it"),
        (truncated, "is damaged (database disk image is malformed); put back a copy of it"),
        (damaged, "is damaged ("),
    ],
)
def test_data_that_cannot_be_used_stops_the_start_with_one_line(
    tmp_path: Path, make: Callable[[Path], None], why: str
) -> None:
    directory = tmp_path / "data"
    make(directory)
    found = subprocess.run(
        [sys.executable, "-m", "broker", "--data", str(directory), "-p", "0"],
        capture_output=True, text=True, timeout=60, env=environment(), preexec_fn=without_power_over_permissions,
    )  # fmt: skip
    directory.chmod(0o700)
    assert (found.returncode, found.stdout, found.stderr.count("\n")) == (2, "", 1), found.stderr
    assert found.stderr.startswith("python3 -m broker: ")
    assert str(directory) in found.stderr
    assert why in found.stderr


def without_power_over_permissions() -> None:
    """Root reads and writes what it is not permitted to, until a program is started without these capabilities."""
    drop_from_bounding_set = 24  # prctl(2)
    for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH: capabilities(7)
        ctypes.CDLL(None).prctl(drop_from_bounding_set, capability, 0, 0, 0)


def test_data_that_another_broker_uses_stops_the_start_with_one_line(start_broker: StartBroker, tmp_path: Path) -> None:
    broker = start_broker(data=tmp_path / "data")
    found = run_command_line("--data", str(tmp_path / "data"), "-p", "0")
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr == (
        f"python3 -m broker: {tmp_path / 'data' / FILE_NAME} is in use by another broker; stop that one, "
        "or choose another directory with --data\n"
    )
    RawClient.connected(broker.address, "still", clean=False).disconnect()
