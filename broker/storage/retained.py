"""The rows of retained messages and of their authors.

Owns: how they are written and read. Must not know: transactions, and other tables.
"""

import sqlite3
from collections.abc import Mapping

from ..core.ports import RetainedRecord
from ..wire.message import Message
from ..wire.topics import is_valid_topic
from .values import Damage, sound_properties, typed


def load(db: sqlite3.Connection) -> list[RetainedRecord]:
    authors: dict[int, tuple[str | None, str, str | None]] = {}
    for row in db.execute("SELECT id, username, client_id, listener FROM author"):
        id, username, client_id, listener = typed(row, int, str | None, str, str | None)
        authors[id] = username, client_id, listener
    retained = []
    for row in db.execute("SELECT topic, payload, qos, author, kept, expires FROM retained"):
        topic, payload, qos, id, kept, expires = typed(row, bytes, bytes, int, int, bytes | None, float | None)
        if not is_valid_topic(topic):
            raise Damage("a Topic Name is not valid")
        message = Message(topic, payload, qos, True, None, sound_properties(kept) if kept else b"", expires)
        retained.append(RetainedRecord(message, *authors[id]))
    return retained


def write(db: sqlite3.Connection, changed: Mapping[bytes, RetainedRecord | None]) -> None:
    db.executemany(
        "DELETE FROM retained WHERE topic = ?", [(topic,) for topic, record in changed.items() if record is None]
    )
    author: tuple[str | None, str, str | None] | None = None
    id = 0
    for topic, record in changed.items():
        if record is None:
            continue
        message = record.message
        if author != record[1:]:
            # Not before the message above is written: an author goes with the last message that was theirs.
            author = record.username, record.client_id, record.listener
            id = _author(db, author)
        db.execute(
            "INSERT INTO retained (topic, payload, qos, author, kept, expires) VALUES (?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (topic) DO UPDATE SET payload = excluded.payload, qos = excluded.qos,"
            " author = excluded.author, kept = excluded.kept, expires = excluded.expires",
            (topic, message.payload, message.qos, id, message.kept or None, message.expires),
        )


def _author(db: sqlite3.Connection, author: tuple[str | None, str, str | None]) -> int:
    """Their key."""
    found = db.execute(
        "SELECT id FROM author WHERE username IS ? AND client_id = ? AND listener IS ?", author
    ).fetchone()
    if found is None:
        added = db.execute("INSERT INTO author (username, client_id, listener) VALUES (?, ?, ?)", author)
        return added.lastrowid or 0
    (id,) = typed(found, int)
    return int(id)
