"""The rows of wills that are not published yet.

Owns: how they are written and read. Must not know: transactions, and other tables.
"""

import sqlite3
from collections.abc import Mapping

from ..core.ports import WillRecord
from ..wire.topics import is_valid_topic
from .values import Damage, sound_properties, typed

_COLUMNS = "client_id, username, listener, topic, payload, qos, retain, kept, message_expiry, delay, due"
_KINDS = (str, str | None, str | None, bytes, bytes, int, int, bytes, int | None, int, float | None)


def load(db: sqlite3.Connection) -> dict[int, WillRecord]:
    wills = {}
    for row in db.execute(f"SELECT id, {_COLUMNS} FROM will"):
        id, *values = typed(row, int, *_KINDS)
        will = WillRecord(*values)
        if not is_valid_topic(will.topic):
            raise Damage("a Topic Name is not valid")
        sound_properties(will.kept)
        wills[id] = will._replace(retain=bool(will.retain))
    return wills


def write(db: sqlite3.Connection, changed: Mapping[int, WillRecord | None]) -> None:
    db.executemany("DELETE FROM will WHERE id = ?", [(id,) for id, will in changed.items() if will is None])
    db.executemany(
        f"INSERT OR REPLACE INTO will (id, {_COLUMNS}) VALUES (?{', ?' * len(_KINDS)})",
        [(id, *will) for id, will in changed.items() if will is not None],
    )
