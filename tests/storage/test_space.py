"""What a backlog took on the disk comes back when it is drained, and nothing is lost on the way."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from broker.core.ports import StoreError
from broker.storage import space
from broker.storage.place import FILE_NAME
from broker.storage.sqlite import SqliteStore
from tests.broker_process import environment
from tests.storage.store_tools import (
    FaultyConnection,
    as_queued,
    batch,
    changes,
    fetch_all,
    held,
    kept_retained,
    numbered,
    opened,
    retained,
    session,
)
from tests.storage.test_sqlite_migration import written_by

ROOT = Path(__file__).parents[2]

#: What a test leaves in its store: places of messages.
LEFT = range(4_000, 4_010)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space, "SPARE", 64 << 10)


def drained(directory: Path) -> SqliteStore:
    """A store that held some megabytes, of which ten messages and a retained one are left."""
    store = opened(directory)
    for start in range(0, 4_000, 500):
        store.commit(batch(sessions=[session(1)], queues=[changes(1, numbered(range(start, start + 500), 1_000))]))
    store.commit(batch(queues=[changes(1, numbered(LEFT))], retained={b"r": retained(b"r", b"x")}))
    store.commit(batch(queues=[changes(1, {}, range(4_000))]))
    return store


def assert_whole(store: SqliteStore) -> None:
    assert fetch_all(store, 1) == as_queued(numbered(LEFT))
    assert list(kept_retained(store.load())) == [b"r"]
    assert store._db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def mode(store: SqliteStore) -> int:
    (found,) = store._db.execute("PRAGMA auto_vacuum").fetchone()
    assert isinstance(found, int)
    return found


def tidied(store: SqliteStore) -> int:
    """How many steps it took."""
    steps = 1
    while store.tidy():
        steps += 1
    return steps


def test_a_drained_backlog_gives_its_space_back_in_steps(fast_path: Path) -> None:
    store = drained(fast_path)
    path = fast_path / FILE_NAME
    before = path.stat().st_size
    size = store.size
    assert tidied(store) > before / 4096 / space.STEP
    assert before > 3 << 20
    assert path.stat().st_size < 256 << 10
    assert store.size == pytest.approx(size, abs=32 << 10)  # it never counted what was free
    assert_whole(store)
    assert tidied(store) == 1
    store.close()
    store = opened(fast_path)
    assert_whole(store)
    store.close()


def test_what_many_shared_gives_its_space_back_when_the_last_has_it(fast_path: Path) -> None:
    store = opened(fast_path)
    ids = range(1, 41)
    for start in range(0, 2_000, 500):
        common = numbered(range(start, start + 500), 1_000)
        store.commit(
            batch(
                sessions=[session(id) for id in ids],
                received={id: held(*range(start + 1, start + 500)) for id in ids},
                queues=[changes(id, common) for id in ids],
                retained={b"%d" % seq: retained(b"%d" % seq, b"x", 1, None, "c" * 65_000) for seq in common},
            )
        )
    path = fast_path / FILE_NAME
    full = store.size
    assert 2_000_000 < full < 3_000_000
    for id in ids[:-1]:
        store.commit(batch(queues=[changes(id, settled=range(2_000))]))
    assert store.size > full - 200_000, "one still waits for them"
    store.commit(batch(forgotten=ids, retained={b"%d" % seq: None for seq in range(2_000)}))
    assert store.size < 200_000
    assert tidied(store) > 1
    assert path.stat().st_size < 300_000
    store.close()


def test_the_size_is_that_of_what_is_there(fast_path: Path) -> None:
    store = opened(fast_path)
    empty = store.size
    store.commit(batch(sessions=[session(1)], queues=[changes(1, numbered(range(1_000), 1_000))]))
    assert store.size == pytest.approx(empty + 1_000_000, rel=0.1)
    store.close()
    store = opened(fast_path)
    assert store.size == pytest.approx(empty + 1_000_000, rel=0.1)
    store.commit(batch(forgotten=[1]))
    assert store.size == pytest.approx(empty, abs=32 << 10)
    store.close()


def test_a_little_that_is_free_is_kept_for_what_comes_next(fast_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space, "SPARE", 16 << 20)
    store = drained(fast_path)
    before = (fast_path / FILE_NAME).stat().st_size
    assert tidied(store) == 1
    assert (fast_path / FILE_NAME).stat().st_size == before
    store.close()


def test_a_file_that_is_used_for_the_most_part_stays_as_it_is(fast_path: Path) -> None:
    store = opened(fast_path)
    store.commit(batch(sessions=[session(1)], queues=[changes(1, numbered(range(3_000), 1_000))]))
    store.commit(batch(queues=[changes(1, {}, range(500))]))
    assert tidied(store) == 1
    store.close()


def test_a_file_of_an_older_version_is_rewritten_once_it_is_mostly_free(fast_path: Path) -> None:
    written_by(1, fast_path / "data")
    store = drained(fast_path / "data")
    path = fast_path / "data" / FILE_NAME
    assert (mode(store), path.stat().st_size > 3 << 20) == (0, True)
    tidied(store)
    assert (mode(store), path.stat().st_size < 256 << 10) == (space.INCREMENTAL, True)
    assert_whole(store)
    store.close()
    store = opened(fast_path / "data")
    assert mode(store) == space.INCREMENTAL
    assert_whole(store)
    store.close()


@pytest.mark.parametrize("why", ["much is in use", "the disk is full"])
def test_a_file_that_cannot_be_rewritten_now_stays_as_it_is(
    fast_path: Path, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    written_by(1, fast_path / "data")
    store = drained(fast_path / "data")
    if why == "much is in use":
        monkeypatch.setattr(space, "MOST", 1_000)
    else:
        monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 0))
    assert (store.tidy(), mode(store)) == (False, 0)
    assert_whole(store)
    store.close()


@pytest.mark.parametrize("version", [1, 2])
def test_a_step_that_fails_loses_nothing(fast_path: Path, monkeypatch: pytest.MonkeyPatch, version: int) -> None:
    if version == 1:
        written_by(1, fast_path / "data")
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *a, **o: connect(*a, factory=FaultyConnection, **o))
    store = drained(fast_path / "data")
    db = store._db
    assert isinstance(db, FaultyConnection)
    db.fails_at = "VACUUM" if version == 1 else "PRAGMA freelist_count"
    with pytest.raises(StoreError, match="disk I/O error"):
        store.tidy()
    assert_whole(store)
    tidied(store)
    assert_whole(store)
    store.close()


#: Fills, drains and tidies the store in argv[1] without end, and says when it begins to tidy.
TIDYING = """
import sys
from pathlib import Path
from broker.storage import space
from tests.storage.store_tools import batch, changes, numbered, opened
space.SPARE = 64 << 10
space.STEP = 8
store = opened(Path(sys.argv[1]))
start = 10_000
while True:
    for _ in range(4):
        store.commit(batch(queues=[changes(1, numbered(range(start, start + 250), 1_000))]))
        store.commit(batch(queues=[changes(1, {}, range(start, start + 250))]))
        start += 250
    print("tidying", flush=True)
    while store.tidy():
        pass
"""


@pytest.mark.parametrize("version", [1, 2])
def test_a_broker_that_is_killed_while_it_tidies_loses_nothing(fast_path: Path, version: int) -> None:
    if version == 1:
        written_by(1, fast_path / "data")
    drained(fast_path / "data").close()
    chance = random.Random(version)
    for _ in range(8):
        child = subprocess.Popen(
            [sys.executable, "-c", TIDYING, str(fast_path / "data")],
            cwd=ROOT, env=environment(), stdout=subprocess.PIPE,
        )  # fmt: skip
        assert child.stdout is not None
        assert child.stdout.readline() == b"tidying\n"
        time.sleep(chance.random() * 0.02)  # anywhere in it
        os.kill(child.pid, signal.SIGKILL)
        child.communicate()
        store = opened(fast_path / "data")
        store.commit(batch(queues=[changes(1, {}, range(10_000, 20_000))]))
        assert_whole(store)
        store.close()
