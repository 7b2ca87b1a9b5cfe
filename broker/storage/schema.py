"""The tables of the store on disk, and how those of an older version become them.

Owns: the schema, its version, the steps from one version to the next. Must not know: what the rows mean.
"""

import sqlite3
from collections.abc import Callable, Iterator
from struct import iter_unpack

#: "SMQ1": tells our files from other SQLite files.
APPLICATION_ID = 0x534D5131
VERSION = 5

_SCHEMA = """
CREATE TABLE session (
    id INTEGER PRIMARY KEY,
    client_id TEXT NOT NULL,
    username TEXT,
    disconnected_at REAL,           -- a date of core/clock.py; NULL: connected
    sent_to INTEGER,                -- NULL: not known
    released BLOB NOT NULL DEFAULT x'',  -- places, 64 bits each (all such lists are little-endian)
    listener TEXT,                       -- NULL: not known
    origin TEXT NOT NULL DEFAULT '',     -- the address that it was made from
    expiry REAL,                         -- seconds, or infinity; NULL: as the options say
    version INTEGER NOT NULL DEFAULT 4,  -- of the protocol
    kind INTEGER NOT NULL DEFAULT 0,     -- 0: a client's, 1: a shared group's
    UNIQUE (client_id, kind)
);
CREATE TABLE subscription (
    session INTEGER NOT NULL, filter BLOB NOT NULL,
    options INTEGER NOT NULL,       -- and the Subscription Identifier above them (see core/subscription.py)
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
    payload BLOB NOT NULL           -- of one message, and its properties if they are long; or packed messages
);
CREATE TRIGGER segment_done AFTER DELETE ON segment BEGIN
    DELETE FROM gone WHERE segment = old.id;
    DELETE FROM body WHERE id = old.body AND NOT EXISTS (SELECT 1 FROM segment WHERE body = old.body);
END;
"""

_AUTHOR = """
CREATE TABLE author (               -- of retained messages; goes with the last of them
    id INTEGER PRIMARY KEY, username TEXT, client_id TEXT NOT NULL, listener TEXT
);
CREATE INDEX author_name ON author (client_id);
"""

_RETAINED = """
CREATE TABLE retained (
    topic BLOB PRIMARY KEY, payload BLOB NOT NULL, qos INTEGER NOT NULL, author INTEGER NOT NULL,
    kept BLOB,                      -- properties; NULL: none
    expires REAL                    -- a date; NULL: never
);
"""

_RETAINED_ENDS = """
CREATE INDEX retained_author ON retained (author);
CREATE TRIGGER retained_removed AFTER DELETE ON retained BEGIN
    DELETE FROM author WHERE id = old.author AND NOT EXISTS (SELECT 1 FROM retained WHERE author = old.author);
END;
CREATE TRIGGER retained_replaced AFTER UPDATE OF author ON retained WHEN old.author != new.author BEGIN
    DELETE FROM author WHERE id = old.author AND NOT EXISTS (SELECT 1 FROM retained WHERE author = old.author);
END;
"""

_CLOCK = """
CREATE TABLE clock (                -- at most one row (see core/clock.py)
    id INTEGER PRIMARY KEY CHECK (id = 1),
    at REAL NOT NULL,
    wall REAL NOT NULL,
    pauses BLOB NOT NULL            -- pairs of numbers, 64 bits each
);
"""


def _spread_identifiers(db: sqlite3.Connection) -> None:
    """From a list for each session to rows that can be written one by one."""
    rows = []
    for session, packed in db.execute("SELECT id, received FROM session").fetchall():
        if not isinstance(packed, bytes) or len(packed) % 2:
            raise sqlite3.DatabaseError("malformed list of identifiers")
        masks: dict[int, int] = {}
        for (packet_id,) in iter_unpack("<H", packed):
            masks[packet_id >> 5] = masks.get(packet_id >> 5, 0) | 1 << (packet_id & 31)
        rows += [(session, bucket, mask) for bucket, mask in masks.items()]
    db.executemany("INSERT INTO received (session, bucket, mask) VALUES (?, ?, ?)", rows)


_WILL = """
CREATE TABLE will (
    id INTEGER PRIMARY KEY,
    client_id TEXT NOT NULL,
    username TEXT,
    listener TEXT,
    topic BLOB NOT NULL,
    payload BLOB NOT NULL,
    qos INTEGER NOT NULL,
    retain INTEGER NOT NULL,
    kept BLOB NOT NULL,
    message_expiry INTEGER,         -- seconds; NULL: for ever
    delay INTEGER NOT NULL,         -- seconds
    due REAL                        -- a date; NULL: its client is connected
);
"""


#: By version: what makes the next one of it, step by step.
MIGRATIONS: dict[int, tuple[str | Callable[[sqlite3.Connection], None], ...]] = {
    # Where clients come in is known, and what else a subscription asks for.
    1: (
        """
ALTER TABLE session ADD COLUMN listener TEXT;
ALTER TABLE retained ADD COLUMN listener TEXT;
ALTER TABLE subscription RENAME COLUMN qos TO options;
""",
    ),
    # The time goes by a clock of the broker's own, and sessions are counted by the place that they come from.
    2: (
        """
ALTER TABLE session ADD COLUMN origin TEXT NOT NULL DEFAULT '';
CREATE TABLE clock (id INTEGER PRIMARY KEY CHECK (id = 1), at REAL NOT NULL, wall REAL NOT NULL, pauses BLOB NOT NULL);
""",
    ),
    # Identifiers that a session holds are stored one by one, authors of retained messages once. (What segments refer to
    # may be a block of messages; those of before never do.)
    3: (
        """
CREATE TABLE received (
    session INTEGER NOT NULL, bucket INTEGER NOT NULL, mask INTEGER NOT NULL,
    PRIMARY KEY (session, bucket)
) WITHOUT ROWID;
""",
        _spread_identifiers,
        """
ALTER TABLE session RENAME TO session_before;
CREATE TABLE session (
    id INTEGER PRIMARY KEY,
    client_id TEXT NOT NULL UNIQUE,
    username TEXT,
    disconnected_at REAL,
    sent_to INTEGER,
    released BLOB NOT NULL DEFAULT x'',
    listener TEXT,
    origin TEXT NOT NULL DEFAULT ''
);
INSERT INTO session (id, client_id, username, disconnected_at, sent_to, released, listener, origin)
    SELECT id, client_id, username, disconnected_at, sent_to, released, listener, origin FROM session_before;
DROP TABLE session_before;
ALTER TABLE retained RENAME TO retained_before;
""",
        _AUTHOR,
        "CREATE TABLE retained"
        " (topic BLOB PRIMARY KEY, payload BLOB NOT NULL, qos INTEGER NOT NULL, author INTEGER NOT NULL);",
        _RETAINED_ENDS,
        """
INSERT INTO author (username, client_id, listener) SELECT DISTINCT username, client_id, listener FROM retained_before;
INSERT INTO retained (topic, payload, qos, author) SELECT topic, payload, qos, (
    SELECT id FROM author
    WHERE username IS before.username AND client_id = before.client_id AND listener IS before.listener
) FROM retained_before AS before;
DROP TABLE retained_before;
""",
    ),
    # What MQTT 5.0 adds, and wills. (Messages in queues have it in flags that no record of before has. A client may be
    # called like a group.)
    4: (
        """
ALTER TABLE session RENAME TO session_before;
CREATE TABLE session (
    id INTEGER PRIMARY KEY,
    client_id TEXT NOT NULL,
    username TEXT,
    disconnected_at REAL,
    sent_to INTEGER,
    released BLOB NOT NULL DEFAULT x'',
    listener TEXT,
    origin TEXT NOT NULL DEFAULT '',
    expiry REAL,
    version INTEGER NOT NULL DEFAULT 4,
    kind INTEGER NOT NULL DEFAULT 0,
    UNIQUE (client_id, kind)
);
INSERT INTO session (id, client_id, username, disconnected_at, sent_to, released, listener, origin)
    SELECT id, client_id, username, disconnected_at, sent_to, released, listener, origin FROM session_before;
DROP TABLE session_before;
ALTER TABLE retained ADD COLUMN kept BLOB;
ALTER TABLE retained ADD COLUMN expires REAL;
""",
        _WILL,
    ),
}


def create(db: sqlite3.Connection) -> None:
    """Make the tables in an empty file."""
    db.execute("BEGIN")
    for statement in _statements(_SCHEMA + _AUTHOR + _RETAINED + _RETAINED_ENDS + _CLOCK + _WILL):
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
        for step in MIGRATIONS[older]:
            if callable(step):
                step(db)
                continue
            for statement in _statements(step):
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
