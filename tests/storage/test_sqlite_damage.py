"""A damaged file is told as one, in one line, and never by a traceback; what is still whole is given back as it was.

What cannot be seen: payloads carry no checksum, so that a bit that flips in one is delivered as it now is.
"""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from broker.core.clock import Clock
from broker.core.exchange import Exchange
from broker.core.journal import Journal
from broker.core.limits import Limits
from broker.core.ports import StoreError
from broker.core.timers import Timers
from broker.storage.packing import LARGE
from broker.storage.place import FILE_NAME
from broker.storage.sqlite import DataError, SqliteStore
from tests.storage.store_tools import (
    ALL,
    NO_LIMIT,
    Lane,
    Lines,
    batch,
    changes,
    delivery,
    held,
    numbered,
    opened,
    retained,
    session,
    will,
)

PAGE = 4096


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A file of which every table has several pages."""
    directory = tmp_path_factory.mktemp("whole")
    store = opened(directory)
    ids = range(1, 41)
    store.commit(
        batch(
            sessions=[session(id, f"client-{id}-" + "x" * 100, username="user") for id in ids],
            subscriptions={(id, b"filter/%d/%d/#" % (id, i)): i % 3 for id in ids for i in range(10)},
            received={id: held(*range(1, 50)) for id in ids},
            queues=[changes(id, numbered(range(50), 20), released=(1, 2)) for id in ids],
            retained={b"retained/%d" % i: retained(b"retained/%d" % i, b"payload" * 9, 1, "u", "c") for i in range(99)},
            wills={i: will("c", b"will/%d" % i, b"gone" * 20, kept=b"\x01\x01") for i in range(1, 99)},
        )
    )
    store.commit(batch(queues=[changes(id, settled=range(1, 30)) for id in ids]))
    store.commit(batch(queues=[changes(id, {50: delivery(b"big", b"y" * LARGE)}) for id in (1, 2)]))
    shared = numbered(range(51, 80), 30)
    store.commit(batch(queues=[changes(id, shared) for id in ids]))
    store.close()
    data = (directory / FILE_NAME).read_bytes()
    assert len(data) > 50 * PAGE
    return data


def put(directory: Path, data: bytes) -> Path:
    path = directory / FILE_NAME
    path.write_bytes(data)
    return path


def start(directory: Path) -> str | None:
    """Open the store as a broker does, and read all of it. Returns why that is refused, or None.

    Anything but a DataError or a StoreError goes through, and fails the test.
    """
    try:
        store = SqliteStore(str(directory))
    except DataError as error:
        return str(error)
    try:
        snapshot = store.load()
        timers, log, lane = Timers(), Lines(), Lane()
        exchange = Exchange(
            Journal(store, lane, timers, log), timers, Limits(), log, lane, Clock(0.0, 0.0), lambda: "x"
        )
        exchange.restore(snapshot, lambda session: None)
        for found in snapshot.sessions:
            store.fetch(found.record.id, 0, ALL, NO_LIMIT)
        store.commit(batch(sessions=[session(1_000_000)]))
    except StoreError as error:
        return str(error)
    finally:
        store.close()
    return None


def quick_check(path: Path) -> bool:
    """Does SQLite itself, asked by another program, find nothing wrong?"""
    db = sqlite3.connect(path)
    try:
        return [row[0] for row in db.execute("PRAGMA quick_check")] == ["ok"]
    except sqlite3.DatabaseError:
        return False
    finally:
        db.close()


def is_one_line_with_advice(why: str, path: Path) -> bool:
    return why.startswith(str(path)) and "\n" not in why and "; " in why


def test_a_whole_file_is_accepted(fast_path: Path, whole: bytes) -> None:
    put(fast_path, whole)
    assert start(fast_path) is None


@pytest.mark.parametrize(
    "data",
    [b"mine", b"text\n" * 10_000, b"\0" * 100_000, b"SQLite format 3\0", b"SQLite format 3\0" + b"\xff" * 5000],
    ids=["short", "text", "zeros", "magic", "magic-and-more"],
)
def test_garbage_is_refused_and_stays_as_it_is(fast_path: Path, data: bytes) -> None:
    path = put(fast_path, data)
    why = start(fast_path)
    assert why is not None
    assert is_one_line_with_advice(why, path), why
    assert "is damaged" in why or "is not a file of this broker" in why
    assert path.read_bytes() == data


@pytest.mark.parametrize("cut", [2, 100, PAGE, 10 * PAGE, -PAGE, -5 * PAGE])
def test_a_truncated_file_is_refused_and_stays_as_it_is(fast_path: Path, whole: bytes, cut: int) -> None:
    """Bytes that remain, or that are missing at the end."""
    path = put(fast_path, whole[:cut])
    why = start(fast_path)
    assert why is not None
    assert is_one_line_with_advice(why, path), why
    assert "is damaged" in why
    assert path.read_bytes() == whole[:cut]


def flip_one_byte(data: bytearray, chance: random.Random) -> None:
    at = chance.randrange(len(data))
    data[at] ^= chance.randrange(1, 256)


def flip_in_the_head_of_a_page(data: bytearray, chance: random.Random) -> None:
    at = chance.randrange(len(data) // PAGE) * PAGE + chance.randrange(60)
    data[at] ^= chance.randrange(1, 256)


def zero_a_page(data: bytearray, chance: random.Random) -> None:
    at = chance.randrange(len(data) // PAGE) * PAGE
    data[at : at + PAGE] = bytes(PAGE)


def swap_two_pages(data: bytearray, chance: random.Random) -> None:
    a, b = (chance.randrange(len(data) // PAGE) * PAGE for _ in range(2))
    data[a : a + PAGE], data[b : b + PAGE] = data[b : b + PAGE], data[a : a + PAGE]


@pytest.mark.parametrize("damage", [flip_one_byte, flip_in_the_head_of_a_page, zero_a_page, swap_two_pages])
def test_whatever_is_damaged_is_told_in_one_line(
    fast_path: Path, whole: bytes, damage: Callable[[bytearray, random.Random], None]
) -> None:
    chance = random.Random(damage.__name__)
    refused = 0
    for _ in range(100):
        data = bytearray(whole)
        damage(data, chance)
        path = put(fast_path, bytes(data))
        shutil.copy(path, fast_path / "copy")
        why = start(fast_path)
        if why is not None:
            refused += 1
            assert is_one_line_with_advice(why, path), why
        else:
            assert quick_check(fast_path / "copy"), "SQLite would have seen it"
        path.unlink()
    print(f"{damage.__name__}: {refused} of 100 refused")
    assert refused > 0


# --- what SQLite cannot see: values that are not ours ---

CHANGES = [
    "UPDATE session SET released = x'010203'",
    "UPDATE session SET client_id = x'ff' || id",  # not UTF-8
    "UPDATE session SET client_id = CAST(x'ff' AS TEXT) || id",
    "UPDATE received SET mask = 'text'",
    "UPDATE received SET mask = 0",
    "UPDATE received SET mask = 1 << 32",
    "UPDATE received SET bucket = bucket + 2048",
    "UPDATE received SET bucket = bucket - 2048",
    "UPDATE session SET username = x'ffff'",
    "UPDATE subscription SET filter = CAST(filter AS TEXT)",
    "UPDATE subscription SET options = 'one'",
    "UPDATE retained SET topic = CAST(topic AS TEXT)",
    "UPDATE retained SET payload = 1",
    "UPDATE retained SET author = 'text'",
    "UPDATE retained SET author = author + 1",
    "UPDATE author SET client_id = x'ff'",
    "UPDATE author SET username = x'ffff'",
    "DELETE FROM author",
    "UPDATE segment SET data = x'0102'",  # less than the head of a message
    "UPDATE segment SET data = substr(data, 1, length(data) - 3)",  # the last one is cut off
    "UPDATE segment SET data = CAST(data AS TEXT)",
    "UPDATE segment SET data = 5",
    "UPDATE segment SET first = 'first' || id",
    "UPDATE segment SET data = x'' WHERE body IS NULL",
    "UPDATE segment SET data = x'0000000000000000000000'",  # a message of QoS 0
    "DELETE FROM body",
    "UPDATE body SET payload = 'text'",
    "UPDATE body SET payload = x''",
    "UPDATE body SET payload = substr(payload, 1, 40)",  # in the middle of a block
    "UPDATE body SET payload = substr(payload, 7)",
    "UPDATE segment SET body = NULL",
    "UPDATE segment SET data = substr(data, 1, 7) WHERE body IS NOT NULL",
    "UPDATE session SET expiry = -1.0",
    "UPDATE session SET expiry = 4294967296.0",
    "UPDATE session SET expiry = 'never'",
    "UPDATE session SET version = 6",
    "UPDATE session SET kind = 2",
    "UPDATE session SET kind = 1",  # no name of a group
    "UPDATE session SET kind = 1, client_id = '$share/a+/f' || id",
    "UPDATE session SET kind = 1, client_id = '$share//f' || id",
    "UPDATE session SET kind = 1, client_id = '$share/g/#/' || id",
    "UPDATE session SET kind = 1, client_id = '$share/' || id",
    "UPDATE subscription SET options = 1 << 36",
    "UPDATE subscription SET options = options | 48",
    "UPDATE subscription SET options = options | 64",
    "UPDATE retained SET kept = x''",
    "UPDATE retained SET kept = 'text'",
    "UPDATE retained SET kept = x'ff'",
    "UPDATE retained SET kept = x'0102'",  # no Payload Format Indicator
    "UPDATE retained SET kept = x'0200000001'",  # that is not kept here
    "UPDATE retained SET expires = 9e999",
    "UPDATE will SET topic = x'2b'",
    "UPDATE will SET payload = zeroblob(65536)",
    "UPDATE will SET qos = 3",
    "UPDATE will SET retain = 2",
    "UPDATE will SET kept = 'text'",
    "UPDATE will SET kept = x'0300'",
    "UPDATE will SET kept = x'230001'",
    "UPDATE will SET delay = -1",
    "UPDATE will SET message_expiry = 1 << 32",
    "UPDATE will SET due = -9e999",
    "UPDATE will SET id = -id",
    "DROP TABLE will",
    # Of one message: properties without a length, longer than what is there, and behind no payload; no date, and none.
    "UPDATE segment SET data = x'0000000021010001000000747802'",
    "UPDATE segment SET data = x'000000002101000100000074780200000001'",
    "UPDATE segment SET data = x'00000000210100010000007478ffffffff01'",
    "UPDATE segment SET data = x'000000008101000000000074ffffff7f'",
    "UPDATE segment SET data = x'0000000041010001000000747800000000000000'",
    "UPDATE segment SET data = x'00000000410100010000007478000000000000f87f'",
    "UPDATE segment SET data = x'00000000410100010000007478000000000000f0ff'",
    "UPDATE segment SET data = x'00000000410100010000007478ffffffffffffef7f'",
    "UPDATE gone SET places = x'010203'",
    "UPDATE gone SET places = 'text'",
    "DROP TABLE gone",
    "DROP TABLE retained",
    "ALTER TABLE session RENAME COLUMN sent_to TO other",
]


@pytest.mark.parametrize("change", CHANGES)
def test_values_that_this_broker_never_wrote_are_told_as_damage(fast_path: Path, whole: bytes, change: str) -> None:
    path = put(fast_path, whole)
    db = sqlite3.connect(path)
    db.execute(change)
    db.commit()
    db.close()
    why = start(fast_path)
    assert why is not None
    assert is_one_line_with_advice(why, path), why
    assert "is damaged" in why


@pytest.mark.parametrize(
    "change",
    ["subscription SET filter = CAST(x'2b' || filter AS BLOB)", "will SET topic = x'2b'", "segment SET data = x'00'"],
)
def test_a_store_that_was_damaged_is_free_once_it_is_closed(fast_path: Path, whole: bytes, change: str) -> None:
    """Though somebody still has the error."""
    path = put(fast_path, whole)
    db = sqlite3.connect(path)
    db.execute(f"UPDATE {change}")
    db.commit()
    db.close()
    store = SqliteStore(str(fast_path))
    errors = []
    try:
        store.load()
        store.fetch(5, 0, ALL, NO_LIMIT)
    except StoreError as error:
        errors.append(error)
    store.close()
    assert len(errors) == 1
    SqliteStore(str(fast_path)).close()


def test_a_damaged_log_gives_back_what_stands_before_the_damage(fast_path: Path) -> None:
    """Frames of the log have checksums: SQLite takes it for shorter than it is. No commit is given back in part."""
    directory = fast_path / "data"
    store = opened(directory)
    for seq in range(20):
        store.commit(batch(sessions=[session(1)], queues=[changes(1, numbered([seq]), settled=range(seq - 3))]))
    log = (directory / f"{FILE_NAME}-wal").read_bytes()
    file = (directory / FILE_NAME).read_bytes()
    store.close()
    chance = random.Random(1)
    seen = set()
    for _ in range(60):
        copy = fast_path / "copy"
        copy.mkdir()
        put(copy, file)
        damaged = bytearray(log)
        damaged[chance.randrange(32, len(log))] ^= 0xFF
        (copy / f"{FILE_NAME}-wal").write_bytes(damaged)
        store = opened(copy)
        found = [seq for seq, _, _ in store.fetch(1, 0, ALL, NO_LIMIT)]
        newest = found[-1] if found else -1
        assert found == ([*range(max(0, newest - 3), newest + 1)] if found else [])
        seen.add(newest)
        store.close()
        shutil.rmtree(copy)
    assert len(seen) > 5
