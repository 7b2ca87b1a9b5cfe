"""The tables of the store on disk, and how those of an older version become them.

Owns: the schema, its version, the steps from one version to the next. Must not know: what the rows mean.
"""

import sqlite3
from collections.abc import Iterator

#: "SMQ1": tells our files from other SQLite files.
APPLICATION_ID = 0x534D5131
VERSION = 3

_SCHEMA = """
CREATE TABLE session (
    id INTEGER PRIMARY KEY,
    client_id TEXT NOT NULL UNIQUE,
    username TEXT,
    disconnected_at REAL,           -- a date of core/clock.py; NULL: connected
    sent_to INTEGER,                -- NULL: not known
    received BLOB NOT NULL DEFAULT x'',  -- Packet Identifiers, 16 bits each (all such lists are little-endian)
    released BLOB NOT NULL DEFAULT x'',  -- places, 64 bits each
    listener TEXT,                       -- NULL: not known
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
"""

#: By version: what makes the next one of it.
MIGRATIONS = {
    # Where clients come in is known, and what else a subscription asks for.
    1: """
ALTER TABLE session ADD COLUMN listener TEXT;
ALTER TABLE retained ADD COLUMN listener TEXT;
ALTER TABLE subscription RENAME COLUMN qos TO options;
""",
    # The time goes by a clock of the broker's own, and sessions are counted by the place that they come from.
    2: """
ALTER TABLE session ADD COLUMN origin TEXT NOT NULL DEFAULT '';
CREATE TABLE clock (id INTEGER PRIMARY KEY CHECK (id = 1), at REAL NOT NULL, wall REAL NOT NULL, pauses BLOB NOT NULL);
""",
}


def create(db: sqlite3.Connection) -> None:
    """Make the tables in an empty file."""
    db.execute("BEGIN")
    for statement in _statements(_SCHEMA):
        db.execute(statement)
    db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    db.execute(f"PRAGMA user_version = {VERSION}")
    db.execute("COMMIT")


def migrate(db: sqlite3.Connection, version: int) -> None:
    """Bring a file of an older version up to date, all of it or nothing."""
    if version == VERSION:
        return
    db.execute("BEGIN")
    for older in range(version, VERSION):
        for statement in _statements(MIGRATIONS[older]):
            db.execute(statement)
    db.execute(f"PRAGMA user_version = {VERSION}")
    db.execute("COMMIT")


def _statements(script: str) -> Iterator[str]:
    """The statements of a script, one by one: executescript would commit before it begins."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
