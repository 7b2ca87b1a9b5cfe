"""Whether the rows of a store are such as this broker writes, asked before anything is made of them.

Owns: what each column may hold. Must not know: how rows are written and read.

SQLite knows whether its file is whole, but not what the values mean. One that is out of range (a disk has flipped a
bit, somebody has edited the file) may be read without harm, and much later make each commit fail: for all sessions, and
again after every start. So the store is refused at the start, which names the table and the column.
"""

import sqlite3

from ..core.ports import BUCKET_SIZE, BUCKETS

#: No place, key or count of bytes comes near it, so that what is added to one is no overflow.
MOST = 1 << 60
#: No date and no duration of core/clock.py, in seconds, comes near it.
LONGEST = 1e12
#: Messages, and places from the first to the last, in a segment: more than any version of this broker writes.
MOST_IN_SEGMENT = 1 << 17


def _whole(column: str, least: int = 0, most: int = MOST) -> str:
    return f"typeof({column}) = 'integer' AND {column} BETWEEN {least} AND {most}"


def _real(column: str, least: float = -LONGEST) -> str:
    return f"typeof({column}) = 'real' AND {column} BETWEEN {least} AND {LONGEST}"


def _text(column: str, most: int = 65_535) -> str:
    return f"typeof({column}) = 'text' AND length({column}) <= {most}"


def _seconds(column: str) -> str:
    return _whole(column, 0, 0xFFFFFFFF)


def _bytes(column: str, least: int = 0, most: int = MOST, unit: int = 1) -> str:
    """`unit`: bytes of each number in a list."""
    return (
        f"typeof({column}) = 'blob' AND length({column}) BETWEEN {least} AND {most} AND length({column}) % {unit} = 0"
    )


def _one_of(column: str, table: str) -> str:
    return f"{column} IN (SELECT id FROM {table})"  # else it would be that of a row to come


def _or_null(column: str, condition: str) -> str:
    return f"{column} IS NULL OR {condition}"


#: By table, what each column must be. Topics and filters are looked at by who reads them.
_RULES = {
    "session": {
        "id": _whole("id", 1),
        "client_id": _text("client_id"),
        "username": _or_null("username", _text("username")),
        "disconnected_at": _or_null("disconnected_at", _real("disconnected_at")),
        "sent_to": _or_null("sent_to", _whole("sent_to")),
        "released": _bytes("released", most=8 * 65_535, unit=8),
        "listener": _or_null("listener", _text("listener")),
        "origin": _text("origin"),
        "expiry": _or_null("expiry", "typeof(expiry) = 'real' AND (expiry BETWEEN 0 AND 0xFFFFFFFF OR expiry = 9e999)"),
        "version": _whole("version", 3, 5),
        "kind": _whole("kind", 0, 1),
    },
    "subscription": {
        "session": _one_of("session", "session"),
        "filter": _bytes("filter", 1, 65_535),
        # A Subscription Identifier of 28 bits, Retain Handling, flags, QoS.
        "options": _whole("options", 0, (1 << 36) - 1)
        + " AND options & 3 != 3 AND options & 0x30 != 0x30 AND options & 0xC0 = 0",
    },
    "received": {
        "session": _one_of("session", "session"),
        "bucket": _whole("bucket", 0, BUCKETS - 1),
        "mask": _whole("mask", 1, (1 << BUCKET_SIZE) - 1),
    },
    "segment": {
        "session": _one_of("session", "session"),
        "first": _whole("first"),
        "last": f"{_whole('last')} AND last BETWEEN first AND first + {MOST_IN_SEGMENT}",
        "count": _whole("count", 1, MOST_IN_SEGMENT) + " AND count <= last - first + 1",
        "start": _whole("start"),
        "size": _whole("size"),
        "data": _bytes("data", 1),
        "body": _or_null("body", _whole("body", 1)),
    },
    "gone": {"segment": _one_of("segment", "segment"), "places": _bytes("places", 4, 4 * MOST_IN_SEGMENT, unit=4)},
    "body": {"id": _whole("id", 1), "payload": _bytes("payload")},
    "author": {
        "id": _whole("id", 1),
        "username": _or_null("username", _text("username")),
        "client_id": _text("client_id"),
        "listener": _or_null("listener", _text("listener")),
    },
    "retained": {
        "topic": _bytes("topic", 1, 65_535),
        "payload": _bytes("payload"),
        "qos": _whole("qos", 0, 2),
        "author": _one_of("author", "author"),
        "kept": _or_null("kept", _bytes("kept", 1)),
        "expires": _or_null("expires", _real("expires")),
    },
    "will": {
        "id": _whole("id", 1),
        "client_id": _text("client_id"),
        "username": _or_null("username", _text("username")),
        "listener": _or_null("listener", _text("listener")),
        "topic": _bytes("topic", 1, 65_535),
        "payload": _bytes("payload", 0, 65_535),
        "qos": _whole("qos", 0, 2),
        "retain": _whole("retain", 0, 1),
        "kept": _bytes("kept"),
        "message_expiry": _or_null("message_expiry", _seconds("message_expiry")),
        "delay": _seconds("delay"),
        "due": _or_null("due", _real("due")),
    },
    "clock": {"at": _real("at"), "wall": _real("wall"), "pauses": _bytes("pauses", unit=16)},
}


def fault(db: sqlite3.Connection) -> str:
    """The first value that is wrong, "" if there is none."""
    for table, columns in _RULES.items():
        wrong = " ".join(f"WHEN NOT ({rule}) THEN '{column}'" for column, rule in columns.items())
        found = db.execute(f"SELECT * FROM (SELECT CASE {wrong} END AS wrong FROM {table}) WHERE wrong IS NOT NULL")
        row = found.fetchone()
        if row is not None:
            return f"in a row of the table {table}, {row[0]} is none that this broker writes"
    return ""
