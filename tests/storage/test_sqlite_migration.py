"""A file that an older version wrote is brought up to date when it is opened, all of it or nothing."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from broker.core.ports import OF_A_GROUP, ClockRecord
from broker.storage.place import FILE_NAME
from broker.storage.schema import APPLICATION_ID, MIGRATIONS, VERSION
from broker.storage.sqlite import DataError, SqliteStore
from tests.storage.store_tools import (
    FaultyConnection,
    Kept,
    KeptRetained,
    Queued,
    batch,
    changes,
    delivery,
    fetch_all,
    held,
    kept_retained,
    kept_sessions,
    opened,
    retained,
    session,
    will,
)

#: The schema of each older version, as that version made it, and a little of everything in it.
OLDER = {
    1: """
CREATE TABLE session (
    id INTEGER PRIMARY KEY,
    client_id TEXT NOT NULL UNIQUE,
    username TEXT,
    disconnected_at REAL,           -- seconds since the epoch; NULL: connected
    sent_to INTEGER,                -- NULL: not known
    received BLOB NOT NULL DEFAULT x'',  -- Packet Identifiers, 16 bits each (all such lists are little-endian)
    released BLOB NOT NULL DEFAULT x''   -- places, 64 bits each
);
CREATE TABLE subscription (
    session INTEGER NOT NULL, filter BLOB NOT NULL, qos INTEGER NOT NULL,
    PRIMARY KEY (session, filter)
) WITHOUT ROWID;
CREATE TABLE segment (
    id INTEGER PRIMARY KEY,
    session INTEGER NOT NULL,
    first INTEGER NOT NULL,         -- places of its first and last message
    last INTEGER NOT NULL,
    count INTEGER NOT NULL,
    start INTEGER NOT NULL,         -- bytes queued in this session before it, ever
    size INTEGER NOT NULL,          -- bytes of its messages
    data BLOB NOT NULL,             -- packed messages
    body INTEGER                    -- where the payload of its only message is, if it is large
);
CREATE UNIQUE INDEX segment_place ON segment (session, first);
CREATE INDEX segment_body ON segment (body) WHERE body IS NOT NULL;
CREATE TABLE gone (segment INTEGER PRIMARY KEY, places BLOB NOT NULL);  -- relative to the first, 32 bits each
CREATE TABLE body (id INTEGER PRIMARY KEY, payload BLOB NOT NULL);
CREATE TRIGGER segment_done AFTER DELETE ON segment BEGIN
    DELETE FROM gone WHERE segment = old.id;
    DELETE FROM body WHERE id = old.body AND NOT EXISTS (SELECT 1 FROM segment WHERE body = old.body);
END;
CREATE TABLE retained (
    topic BLOB PRIMARY KEY, payload BLOB NOT NULL, qos INTEGER NOT NULL, username TEXT, client_id TEXT NOT NULL
);
INSERT INTO session VALUES (3, 'c', 'u', 1.5, 1, x'0700', x'0000000000000000');
INSERT INTO subscription VALUES (3, CAST('a/#' AS BLOB), 2), (3, CAST('b' AS BLOB), 0);
INSERT INTO segment VALUES (1, 3, 0, 1, 2, 0, 4, x'0000000001010001000000747801000000020100010000007479', NULL);
INSERT INTO retained VALUES (CAST('r' AS BLOB), x'00FF', 1, 'u', 'c');
PRAGMA user_version = 1;
""",
    2: """
CREATE TABLE session (
    id INTEGER PRIMARY KEY,
    client_id TEXT NOT NULL UNIQUE,
    username TEXT,
    disconnected_at REAL,           -- seconds since the epoch; NULL: connected
    sent_to INTEGER,                -- NULL: not known
    received BLOB NOT NULL DEFAULT x'',  -- Packet Identifiers, 16 bits each (all such lists are little-endian)
    released BLOB NOT NULL DEFAULT x'',  -- places, 64 bits each
    listener TEXT                   -- NULL: not known
);
CREATE TABLE subscription (
    session INTEGER NOT NULL, filter BLOB NOT NULL, options INTEGER NOT NULL,
    PRIMARY KEY (session, filter)
) WITHOUT ROWID;
CREATE TABLE segment (
    id INTEGER PRIMARY KEY,
    session INTEGER NOT NULL,
    first INTEGER NOT NULL,         -- places of its first and last message
    last INTEGER NOT NULL,
    count INTEGER NOT NULL,
    start INTEGER NOT NULL,         -- bytes queued in this session before it, ever
    size INTEGER NOT NULL,          -- bytes of its messages
    data BLOB NOT NULL,             -- packed messages
    body INTEGER                    -- where the payload of its only message is, if it is large
);
CREATE UNIQUE INDEX segment_place ON segment (session, first);
CREATE INDEX segment_body ON segment (body) WHERE body IS NOT NULL;
CREATE TABLE gone (segment INTEGER PRIMARY KEY, places BLOB NOT NULL);  -- relative to the first, 32 bits each
CREATE TABLE body (id INTEGER PRIMARY KEY, payload BLOB NOT NULL);
CREATE TRIGGER segment_done AFTER DELETE ON segment BEGIN
    DELETE FROM gone WHERE segment = old.id;
    DELETE FROM body WHERE id = old.body AND NOT EXISTS (SELECT 1 FROM segment WHERE body = old.body);
END;
CREATE TABLE retained (
    topic BLOB PRIMARY KEY, payload BLOB NOT NULL, qos INTEGER NOT NULL, username TEXT, client_id TEXT NOT NULL,
    listener TEXT
);
INSERT INTO session VALUES (3, 'c', 'u', 1.5, 1, x'0700', x'0000000000000000', NULL);
INSERT INTO subscription VALUES (3, CAST('a/#' AS BLOB), 2), (3, CAST('b' AS BLOB), 0);
INSERT INTO segment VALUES (1, 3, 0, 1, 2, 0, 4, x'0000000001010001000000747801000000020100010000007479', NULL);
INSERT INTO retained VALUES (CAST('r' AS BLOB), x'00FF', 1, 'u', 'c', NULL);
PRAGMA user_version = 2;
""",
    3: """
CREATE TABLE session (
    id INTEGER PRIMARY KEY,
    client_id TEXT NOT NULL UNIQUE,
    username TEXT,
    disconnected_at REAL,           -- seconds since the epoch; NULL: connected
    sent_to INTEGER,                -- NULL: not known
    received BLOB NOT NULL DEFAULT x'',  -- Packet Identifiers, 16 bits each (all such lists are little-endian)
    released BLOB NOT NULL DEFAULT x'',  -- places, 64 bits each
    listener TEXT,                  -- NULL: not known
    origin TEXT NOT NULL DEFAULT ''      -- the address that it was made from
);
CREATE TABLE subscription (
    session INTEGER NOT NULL, filter BLOB NOT NULL, options INTEGER NOT NULL,
    PRIMARY KEY (session, filter)
) WITHOUT ROWID;
CREATE TABLE segment (
    id INTEGER PRIMARY KEY,
    session INTEGER NOT NULL,
    first INTEGER NOT NULL,         -- places of its first and last message
    last INTEGER NOT NULL,
    count INTEGER NOT NULL,
    start INTEGER NOT NULL,         -- bytes queued in this session before it, ever
    size INTEGER NOT NULL,          -- bytes of its messages
    data BLOB NOT NULL,             -- packed messages
    body INTEGER                    -- where the payload of its only message is, if it is large
);
CREATE UNIQUE INDEX segment_place ON segment (session, first);
CREATE INDEX segment_body ON segment (body) WHERE body IS NOT NULL;
CREATE TABLE gone (segment INTEGER PRIMARY KEY, places BLOB NOT NULL);  -- relative to the first, 32 bits each
CREATE TABLE body (id INTEGER PRIMARY KEY, payload BLOB NOT NULL);
CREATE TRIGGER segment_done AFTER DELETE ON segment BEGIN
    DELETE FROM gone WHERE segment = old.id;
    DELETE FROM body WHERE id = old.body AND NOT EXISTS (SELECT 1 FROM segment WHERE body = old.body);
END;
CREATE TABLE retained (
    topic BLOB PRIMARY KEY, payload BLOB NOT NULL, qos INTEGER NOT NULL, username TEXT, client_id TEXT NOT NULL,
    listener TEXT
);
CREATE TABLE clock (                -- at most one row (see core/clock.py)
    id INTEGER PRIMARY KEY CHECK (id = 1),
    at REAL NOT NULL,
    wall REAL NOT NULL,
    pauses BLOB NOT NULL            -- pairs of numbers, 64 bits each
);
INSERT INTO session VALUES (3, 'c', 'u', 1.5, 1, x'0700', x'0000000000000000', NULL, '');
INSERT INTO subscription VALUES (3, CAST('a/#' AS BLOB), 2), (3, CAST('b' AS BLOB), 0);
INSERT INTO segment VALUES (1, 3, 0, 1, 2, 0, 4, x'0000000001010001000000747801000000020100010000007479', NULL);
INSERT INTO retained VALUES (CAST('r' AS BLOB), x'00FF', 1, 'u', 'c', NULL);
PRAGMA user_version = 3;
""",
    4: """
CREATE TABLE session (
    id INTEGER PRIMARY KEY,
    client_id TEXT NOT NULL UNIQUE,
    username TEXT,
    disconnected_at REAL,           -- a date of core/clock.py; NULL: connected
    sent_to INTEGER,                -- NULL: not known
    released BLOB NOT NULL DEFAULT x'',  -- places, 64 bits each (all such lists are little-endian)
    listener TEXT,                       -- NULL: not known
    origin TEXT NOT NULL DEFAULT ''      -- the address that it was made from
);
CREATE TABLE subscription (
    session INTEGER NOT NULL, filter BLOB NOT NULL, options INTEGER NOT NULL,
    PRIMARY KEY (session, filter)
) WITHOUT ROWID;
CREATE TABLE received (             -- Packet Identifiers, 32 in a row: bit n of the mask is 32 * bucket + n
    session INTEGER NOT NULL, bucket INTEGER NOT NULL, mask INTEGER NOT NULL,
    PRIMARY KEY (session, bucket)
) WITHOUT ROWID;
CREATE TABLE segment (
    id INTEGER PRIMARY KEY,
    session INTEGER NOT NULL,
    first INTEGER NOT NULL,         -- places of its first and last message
    last INTEGER NOT NULL,
    count INTEGER NOT NULL,
    start INTEGER NOT NULL,         -- bytes queued in this session before it, ever
    size INTEGER NOT NULL,          -- bytes of its messages
    data BLOB NOT NULL,             -- packed messages (see packing)
    body INTEGER                    -- what they refer to
);
CREATE UNIQUE INDEX segment_place ON segment (session, first);
CREATE INDEX segment_body ON segment (body) WHERE body IS NOT NULL;
CREATE TABLE gone (segment INTEGER PRIMARY KEY, places BLOB NOT NULL);  -- relative to the first, 32 bits each
CREATE TABLE body (                 -- what several segments may refer to
    id INTEGER PRIMARY KEY,
    payload BLOB NOT NULL           -- of one message, or messages packed one behind the other
);
CREATE TRIGGER segment_done AFTER DELETE ON segment BEGIN
    DELETE FROM gone WHERE segment = old.id;
    DELETE FROM body WHERE id = old.body AND NOT EXISTS (SELECT 1 FROM segment WHERE body = old.body);
END;
CREATE TABLE author (               -- of retained messages; goes with the last of them
    id INTEGER PRIMARY KEY, username TEXT, client_id TEXT NOT NULL, listener TEXT
);
CREATE INDEX author_name ON author (client_id);
CREATE TABLE retained (topic BLOB PRIMARY KEY, payload BLOB NOT NULL, qos INTEGER NOT NULL, author INTEGER NOT NULL);
CREATE INDEX retained_author ON retained (author);
CREATE TRIGGER retained_removed AFTER DELETE ON retained BEGIN
    DELETE FROM author WHERE id = old.author AND NOT EXISTS (SELECT 1 FROM retained WHERE author = old.author);
END;
CREATE TRIGGER retained_replaced AFTER UPDATE OF author ON retained WHEN old.author != new.author BEGIN
    DELETE FROM author WHERE id = old.author AND NOT EXISTS (SELECT 1 FROM retained WHERE author = old.author);
END;
CREATE TABLE clock (                -- at most one row (see core/clock.py)
    id INTEGER PRIMARY KEY CHECK (id = 1),
    at REAL NOT NULL,
    wall REAL NOT NULL,
    pauses BLOB NOT NULL            -- pairs of numbers, 64 bits each
);
INSERT INTO session VALUES (3, 'c', 'u', 1.5, 1, x'0000000000000000', NULL, '');
INSERT INTO subscription VALUES (3, CAST('a/#' AS BLOB), 2), (3, CAST('b' AS BLOB), 0);
INSERT INTO received VALUES (3, 0, 128);
INSERT INTO segment VALUES (1, 3, 0, 1, 2, 0, 4, x'0000000001010001000000747801000000020100010000007479', NULL);
INSERT INTO author VALUES (1, 'u', 'c', NULL);
INSERT INTO retained VALUES (CAST('r' AS BLOB), x'00FF', 1, 1);
PRAGMA user_version = 4;
""",
}

#: Those of the schema, and none that SQLite keeps for itself.
TABLES = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name"

EACH = pytest.mark.parametrize("version", OLDER)


def written_by(version: int, directory: Path) -> Path:
    """The data directory of an older broker."""
    directory.mkdir()
    db = sqlite3.connect(directory / FILE_NAME)
    db.executescript(f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA journal_mode = WAL; {OLDER[version]}")
    db.close()
    return directory


def check(store: SqliteStore) -> None:
    """All is there that the older version had stored."""
    snapshot = store.load()
    record = session(3, "c", username="u", disconnected_at=1.5, sent_to=1)
    assert kept_sessions(snapshot) == {3: Kept(record, {b"a/#": 2, b"b": 0}, held(7), (0,))}
    assert kept_retained(snapshot) == {b"r": KeptRetained(b"\0\xff", 1, True, "u", "c", None)}
    assert fetch_all(store, 3) == [Queued(0, 1, b"t", b"x", False), Queued(1, 2, b"t", b"y", False)]


def schema(path: Path) -> list[tuple[object, ...]]:
    db = sqlite3.connect(path)
    tables = [name for (name,) in db.execute(TABLES)]
    columns = [(table, *row) for table in tables for row in db.execute(f"PRAGMA table_info({table})")]
    others = db.execute("SELECT type, name, tbl_name FROM sqlite_master WHERE type != 'table' ORDER BY name").fetchall()
    settings = [*db.execute("PRAGMA user_version"), *db.execute("PRAGMA application_id")]
    db.close()
    return [*columns, *others, *settings]


def test_there_is_an_example_of_each_older_version() -> None:
    assert sorted(OLDER) == list(range(1, VERSION)) == sorted(MIGRATIONS)


@EACH
def test_what_an_older_version_stored_is_there_and_can_be_changed(fast_path: Path, version: int) -> None:
    directory = written_by(version, fast_path / "data")
    store = opened(directory)
    check(store)
    assert store.load().clock is None
    newer = session(3, "c", username="u", listener="[::1]:1883", expiry=60.0, version=5)
    other = session(4, "d", origin="192.0.2.1")
    group = session(5, "$share/c/a/#", kind=OF_A_GROUP)
    left = will("c", b"w", b"x", kept=b"\x01\x01", due=7.5)
    clock = ClockRecord(2.5, 1.7e9, ((1.5, 60.0),))
    store.commit(
        batch(
            sessions=[newer, other, group],
            clock=clock,
            subscriptions={(3, b"b"): 1 | 12 | 77 << 8},
            queues=[changes(3, {2: delivery(b"t", b"z", kept=b"\x01\x01", expires=9.5)})],
            retained={b"r": retained(b"r", b"new", 0, None, "d", "unix:/s", kept=b"\x01\x00", expires=8.5)},
            wills={1: left},
        )
    )
    store.close()
    store = opened(directory)
    assert kept_sessions(store.load()) == {
        3: Kept(newer, {b"a/#": 2, b"b": 13 | 77 << 8}, held(7), (0,)),
        4: Kept(other, {}, held(), ()),
        5: Kept(group, {}, held(), ()),
    }
    assert store.load().clock == clock
    assert kept_retained(store.load()) == {b"r": KeptRetained(b"new", 0, True, None, "d", "unix:/s", b"\x01\x00", 8.5)}
    assert fetch_all(store, 3)[2:] == [Queued(2, 1, b"t", b"z", False, b"\x01\x01", 9.5)]
    assert store.load().wills == {1: left}
    store.close()


@EACH
def test_an_older_file_becomes_like_a_new_one(fast_path: Path, version: int) -> None:
    directory = written_by(version, fast_path / "old")
    opened(directory).close()
    opened(fast_path / "new").close()
    assert schema(directory / FILE_NAME) == schema(fast_path / "new" / FILE_NAME)


@EACH
def test_an_update_that_fails_at_any_statement_changes_nothing_and_can_be_tried_again(
    fast_path: Path, monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    older = written_by(version, fast_path / "old")
    before = schema(older / FILE_NAME)
    connect: Callable[..., sqlite3.Connection] = sqlite3.connect
    failed = 0
    while True:
        directory = Path(shutil.copytree(older, fast_path / f"copy{failed}"))
        faulty = type("Faulty", (FaultyConnection,), {"countdown": failed + 1})
        monkeypatch.setattr(sqlite3, "connect", partial(connect, factory=faulty))
        why = ""
        try:
            SqliteStore(str(directory)).close()
        except DataError as error:
            why = str(error)
        monkeypatch.setattr(sqlite3, "connect", connect)
        if not why:
            break
        assert why == f"{directory / FILE_NAME}: disk I/O error"
        failed += 1
        assert schema(directory / FILE_NAME) == before
        store = opened(directory)
        check(store)
        store.close()
    assert failed > 12
