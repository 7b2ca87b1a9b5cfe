"""The store on disk: one SQLite file, written by group commits.

Owns: the file, its schema and versions, the lock against a second broker. Must not know: who asks, or on which thread
(one at a time).

A queue is not kept as a row for each message, which would cost more than delivering it. What one commit adds to one
queue is a segment: one row with the messages packed one behind the other. A segment goes when all of its messages are
settled; until then `gone` tells which are. Large payloads stand alone in `body`, once for all queues that hold them.

Settings: WAL with synchronous=FULL, so that a commit that has returned survives a crash of the system; an exclusive
lock, so that a second broker on the same data fails at once.
"""

import contextlib
import os
import sqlite3
import sys
from array import array
from collections.abc import Iterable, Iterator
from struct import Struct
from typing import Any

from ..core.ports import (
    Batch,
    ClockRecord,
    QueueChanges,
    QueuedMessage,
    RetainedRecord,
    SessionRecord,
    SessionSnapshot,
    Snapshot,
    StoreError,
)
from ..os_reasons import is_read_only
from ..wire.message import Message
from ..wire.topics import is_valid_filter, is_valid_topic
from . import soundness
from .place import close_to_others, prepare, why_unusable
from .schema import APPLICATION_ID, VERSION, create, migrate
from .space import give_back

#: Payloads of this size are kept once for all queues, not in each.
LARGE = 16_384
#: Messages, bytes and places in one segment at the most: so much is read again when it was half sent.
SEGMENT_COUNT = 1_000
SEGMENT_SIZE = 1 << 18
SEGMENT_SPAN = 1 << 16

# One message in a segment: place relative to the segment's first, flags (QoS, 4 = retain), length of topic, of payload.
_RECORD = Struct("<IBHI")
_RECORD_SIZE = _RECORD.size
_RETAIN = 4


class DataError(Exception):
    """The data directory cannot be used. str() is one line that says what to do; nothing in it was changed."""


class _Damage(Exception):
    """The file holds what this broker never wrote, and SQLite cannot know. str() says what."""


# What a file can do to us. (In a damaged one, SQLite may quote in a message what is not UTF-8.)
_FAULTS = (sqlite3.Error, _Damage, UnicodeDecodeError)


class SqliteStore:
    """Implements core.ports.Store on the file selectmq.db in a directory."""

    def __init__(self, directory: str) -> None:
        """Open or make the store. Raises DataError."""
        try:
            self.path = prepare(directory)
        except OSError as error:
            why = why_unusable(error)
            raise DataError(
                f"data directory {directory} cannot be used: {why}, or choose another with --data"
            ) from None
        self._queued: dict[int, int] = {}  # session -> bytes ever queued
        self._next_body = 1
        self.size = 0
        try:
            # One thread at a time uses it, but not always the same one.
            self._db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=0)
        except sqlite3.Error as error:
            raise DataError(self._explain(error)) from None
        try:
            self._open()
        except _FAULTS as error:
            self._db.close()
            raise DataError(self._explain(error)) from None
        except DataError:
            self._db.close()
            raise

    def _open(self) -> None:
        db = self._db
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        if not os.path.getsize(self.path):
            db.execute("PRAGMA auto_vacuum = INCREMENTAL")  # later it would need a VACUUM
        db.execute("BEGIN EXCLUSIVE")  # takes the lock, which stays until the end
        # Whose file it is comes first: the journal mode is written into it.
        (version,) = db.execute("PRAGMA user_version").fetchone()
        (application,) = db.execute("PRAGMA application_id").fetchone()
        (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if application != APPLICATION_ID and (tables or version or application):
            raise DataError(f"{self.path} is not a file of this broker; choose another directory with --data")
        if version > VERSION:
            raise DataError(
                f"{self.path} was written by a newer version of this broker (format {version}, this one knows "
                f"{VERSION}); upgrade, or choose another directory with --data"
            )
        db.execute("COMMIT")
        close_to_others(self.path)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute(f"PRAGMA journal_size_limit = {16 << 20}")
        if not tables:
            create(db)
        problems = [row[0] for row in db.execute("PRAGMA quick_check(1)")]
        if problems != ["ok"]:
            raise DataError(self._damaged(problems[0]))
        self._measure()
        if tables:
            migrate(db, version)

    def _measure(self) -> None:
        """What is in use, as the file's header says."""
        (size,), (pages,), (free,) = (
            self._db.execute(f"PRAGMA {what}").fetchone() for what in ("page_size", "page_count", "freelist_count")
        )
        self.size = size * (pages - free)

    # --- core.ports.Store ---

    def load(self) -> Snapshot:
        try:
            return self._load()
        except _FAULTS as error:
            raise StoreError(self._explain(error)) from None

    def _load(self) -> Snapshot:
        db = self._db
        fault = soundness.fault(db)
        if fault:
            raise _Damage(fault)
        (body,) = db.execute("SELECT max(id) FROM body").fetchone()
        # Never again one that a message still knows as its own, though its row may be gone.
        self._next_body = max(self._next_body, (body or 0) + 1)
        subscriptions: dict[int, dict[bytes, int]] = {}
        for row in db.execute("SELECT session, filter, options FROM subscription"):
            session, topic_filter, options = _typed(row, int, bytes, int)
            if not is_valid_filter(topic_filter):
                raise _Damage("a Topic Filter is not valid")
            subscriptions.setdefault(session, {})[topic_filter] = options
        sessions = []
        for row in db.execute(
            "SELECT id, client_id, username, disconnected_at, sent_to, listener, origin, received, released"
            " FROM session"
        ).fetchall():
            *record, received, released = _typed(
                row, int, str, str | None, float | None, int | None, str | None, str, bytes, bytes
            )
            id = record[0]
            first = db.execute(
                "SELECT first, start FROM segment WHERE session = ? ORDER BY first LIMIT 1", (id,)
            ).fetchone()
            last = db.execute(
                "SELECT last, start + size FROM segment WHERE session = ? ORDER BY first DESC LIMIT 1", (id,)
            ).fetchone()
            first_seq, start = _typed(first or (0, 0), int, int)
            last_seq, end = _typed(last or (-1, 0), int, int)
            self._queued[id] = end
            sessions.append(
                SessionSnapshot(
                    SessionRecord(*record),
                    subscriptions.get(id, {}),
                    tuple(_unpack("H", received)),
                    tuple(_within("Q", released)),
                    first_seq,
                    last_seq + 1,
                    end - start,
                )
            )
        retained = [
            RetainedRecord(Message(topic, payload, qos, retain=True), *author)
            for topic, payload, qos, *author in (
                _typed(row, bytes, bytes, int, str | None, str, str | None)
                for row in db.execute("SELECT topic, payload, qos, username, client_id, listener FROM retained")
            )
        ]
        if not all(is_valid_topic(record.message.topic) for record in retained):
            raise _Damage("a Topic Name is not valid")
        return Snapshot(sessions, retained, self._load_clock())

    def _load_clock(self) -> ClockRecord | None:
        row = self._db.execute("SELECT at, wall, pauses FROM clock").fetchone()
        if row is None:
            return None
        at, wall, packed = _typed(row, float, float, bytes)
        numbers = _within("d", packed, soundness.LONGEST)
        return ClockRecord(at, wall, tuple(zip(numbers[::2], numbers[1::2], strict=False)))

    def commit(self, batch: Batch) -> None:
        db = self._db
        queued: dict[int, int] = {}
        try:
            db.execute("BEGIN IMMEDIATE")
            for table, column in (("session", "id"), ("subscription", "session"), ("segment", "session")):
                db.executemany(f"DELETE FROM {table} WHERE {column} = ?", [(id,) for id in batch.forgotten])
            gone = set(batch.forgotten)
            self._write_sessions(batch, gone)
            for changes in batch.queues:
                if changes.session not in gone:
                    self._write_queue(changes, queued)
            self._write_retained(batch)
            if batch.clock is not None:
                at, wall, pauses = batch.clock
                packed = _pack("d", [number for pause in pauses for number in pause])
                db.execute(
                    "INSERT OR REPLACE INTO clock (id, at, wall, pauses) VALUES (1, ?, ?, ?)", (at, wall, packed)
                )
            self._measure()
            db.execute("COMMIT")  # nothing may fail behind it
        except BaseException as error:
            with contextlib.suppress(sqlite3.Error):
                db.execute("ROLLBACK")
            if isinstance(error, _FAULTS):
                raise StoreError(self._explain(error)) from None
            raise
        self._queued.update(queued)
        for id in batch.forgotten:
            self._queued.pop(id, None)

    def fetch(self, session: int, start: int, count: int, size: int) -> list[QueuedMessage]:
        found: list[QueuedMessage] = []
        try:
            rows = self._db.execute(
                "SELECT first, last, data, gone.places, body, body.payload FROM segment"
                " LEFT JOIN gone ON gone.segment = segment.id LEFT JOIN body ON body.id = segment.body"
                " WHERE session = :session AND first >= coalesce("
                "   (SELECT max(first) FROM segment WHERE session = :session AND first <= :start), 0)"
                " ORDER BY first",
                {"session": session, "start": start},
            )
            for row in rows:
                first, last, data, places, id, body = _typed(
                    row, int, int, bytes, bytes | None, int | None, bytes | None
                )
                if id is not None and body is None:
                    raise _Damage("a payload is missing")
                settled = set(_unpack("I", places)) if places else ()
                for offset, qos, message in _messages(data, body):
                    if first + offset > last:
                        raise _Damage("a message has the place of another")
                    if first + offset < start or offset in settled:
                        continue
                    if found and (len(found) >= count or size <= 0):
                        rows.close()
                        return found
                    found.append((first + offset, message, qos))
                    size -= message.size
        except _FAULTS as error:
            raise StoreError(self._explain(error)) from None
        return found

    def tidy(self) -> bool:
        try:
            return give_back(self._db, self.path)
        except sqlite3.Error as error:
            raise StoreError(self._explain(error)) from None

    def close(self) -> None:
        """Leave one whole file behind, without a log beside it."""
        with contextlib.suppress(sqlite3.Error):
            self._db.execute("PRAGMA optimize")
        with contextlib.suppress(sqlite3.Error):
            self._db.close()

    # --- writing ---

    def _write_sessions(self, batch: Batch, gone: set[int]) -> None:
        db = self._db
        db.executemany(
            "INSERT INTO session (id, client_id, username, disconnected_at, sent_to, listener, origin)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (id) DO UPDATE SET username = excluded.username, disconnected_at = excluded.disconnected_at,"
            " sent_to = excluded.sent_to, listener = excluded.listener",
            [record for id, record in batch.sessions.items() if id not in gone],
        )
        db.executemany(
            "UPDATE session SET received = ? WHERE id = ?",
            [(_pack("H", held), id) for id, held in batch.received.items()],
        )
        removed = []
        granted = []
        for (session, topic_filter), options in batch.subscriptions.items():
            if options is None:
                removed.append((session, topic_filter))
            elif session not in gone:
                granted.append((session, topic_filter, options))
        db.executemany("DELETE FROM subscription WHERE session = ? AND filter = ?", removed)
        db.executemany("INSERT OR REPLACE INTO subscription (session, filter, options) VALUES (?, ?, ?)", granted)

    def _write_retained(self, batch: Batch) -> None:
        kept = []
        removed = []
        for topic, record in batch.retained.items():
            if record is None:
                removed.append((topic,))
            else:
                message, *author = record
                kept.append((topic, message.payload, message.qos, *author))
        self._db.executemany("DELETE FROM retained WHERE topic = ?", removed)
        self._db.executemany(
            "INSERT OR REPLACE INTO retained (topic, payload, qos, username, client_id, listener)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            kept,
        )

    def _write_queue(self, changes: QueueChanges, queued: dict[int, int]) -> None:
        session = changes.session
        if changes.added:
            start = self._queued.get(session, 0)
            for first, last, count, size, data, body in self._segments(changes):
                self._db.execute(
                    "INSERT INTO segment (session, first, last, count, start, size, data, body)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    (session, first, last, count, start, size, data, body),
                )
                start += size
            queued[session] = start
        if changes.settled:
            self._settle(session, sorted(changes.settled))
        if changes.released is not None:
            self._db.execute("UPDATE session SET released = ? WHERE id = ?", (_pack("Q", changes.released), session))

    def _segments(self, changes: QueueChanges) -> Iterator[tuple[int, int, int, int, bytes, int | None]]:
        """What was added, packed: (first, last, count, size, data, body) of each segment."""
        pack = _RECORD.pack
        parts: list[bytes] = []
        first = last = count = size = 0
        for seq, (message, qos) in changes.added.items():
            topic = message.topic
            payload = message.payload
            flags = qos | _RETAIN if message.retain else qos
            large = len(payload) >= LARGE
            if count and (large or count >= SEGMENT_COUNT or size >= SEGMENT_SIZE or seq - first >= SEGMENT_SPAN):
                yield first, last, count, size, b"".join(parts), None
                parts = []
                count = size = 0
            if large:
                data = pack(0, flags, len(topic), 0) + topic
                yield seq, seq, 1, message.size, data, self._keep_body(message)
                continue
            if not count:
                first = seq
            parts += (pack(seq - first, flags, len(topic), len(payload)), topic, payload)
            last = seq
            count += 1
            size += message.size
        if count:
            yield first, last, count, size, b"".join(parts), None

    def _keep_body(self, message: Message) -> int:
        """Write the payload, unless another queue has it already."""
        if not message.body_id:
            message.body_id = self._next_body
            self._next_body += 1
        self._db.execute("INSERT OR IGNORE INTO body (id, payload) VALUES (?, ?)", (message.body_id, message.payload))
        return message.body_id

    def _settle(self, session: int, places: list[int]) -> None:
        """Remove these messages: whole segments where that is possible, else by noting it."""
        db = self._db
        segments = db.execute(
            "SELECT id, first, last, count, places FROM segment LEFT JOIN gone ON gone.segment = id"
            " WHERE session = :session AND first <= :last AND first >= coalesce("
            "   (SELECT max(first) FROM segment WHERE session = :session AND first <= :first), 0) ORDER BY first",
            {"session": session, "first": places[0], "last": places[-1]},
        ).fetchall()
        done = []
        at = 0
        for id, first, last, count, noted in segments:
            while at < len(places) and places[at] < first:
                at += 1
            begin = at
            while at < len(places) and places[at] <= last:
                at += 1
            if begin == at:
                continue
            gone = [*_unpack("I", noted or b""), *(seq - first for seq in places[begin:at])]
            if len(gone) >= count:
                done.append((id,))
            else:
                db.execute("INSERT OR REPLACE INTO gone (segment, places) VALUES (?, ?)", (id, _pack("I", gone)))
        db.executemany("DELETE FROM segment WHERE id = ?", done)

    # --- errors ---

    def _explain(self, error: Exception) -> str:
        text = str(error)
        if isinstance(error, _Damage):
            return self._damaged(text)
        if "locked" in text:
            return f"{self.path} is in use by another broker; stop that one, or choose another directory with --data"
        if "full" in text:
            return f"{self.path}: the disk is full; make room"
        if any(sign in text for sign in ("malformed", "not a database", "no such", "decode")):
            return self._damaged(text)
        if ("unable to open" in text or "readonly" in text) and is_read_only(os.path.dirname(self.path)):
            return f"{self.path} cannot be written: the file system is read-only; choose another directory with --data"
        if "unable to open" in text or "readonly" in text:
            return f"{self.path} cannot be written ({text}); check its owner and permissions"
        return f"{self.path}: {text}"

    def _damaged(self, what: str) -> str:
        what = what.splitlines()[-1]  # quick_check begins with the name of the database
        return f"{self.path} is damaged ({what}); put back a copy of it, or move it away to start with nothing stored"


def _typed(row: tuple[Any, ...], *kinds: Any) -> tuple[Any, ...]:
    """The row, if its values have these types: SQLite does not insist on them. Raises _Damage."""
    for value, kind in zip(row, kinds, strict=True):
        if not isinstance(value, kind):
            raise _Damage("a value has a wrong type")
    return row


def _pack(kind: str, numbers: Iterable[float]) -> bytes:
    """A list of numbers, little-endian, so that the file can move to another machine."""
    packed = array(kind, numbers)
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()


def _unpack(kind: str, data: bytes) -> "array[Any]":
    try:
        numbers = array(kind, data)
    except (TypeError, ValueError):
        raise _Damage("a list of numbers is not one") from None
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


def _within(kind: str, data: bytes, most: float = soundness.MOST) -> "array[Any]":
    """The list of numbers, if each has a size that this broker writes."""
    numbers = _unpack(kind, data)
    if not all(-most <= number <= most for number in numbers):
        raise _Damage("a list has a number out of range")
    return numbers


def _messages(data: bytes, body: bytes | None) -> Iterator[tuple[int, int, Message]]:
    """The messages of a segment: (place relative to its first, QoS, message)."""
    unpack = _RECORD.unpack_from
    head = _RECORD.size
    end = len(data)
    pos = 0
    while True:
        if pos + head > end:
            raise _Damage("a message is cut off")
        offset, flags, topic_size, payload_size = unpack(data, pos)
        topic_at = pos + head
        payload_at = topic_at + topic_size
        pos = payload_at + payload_size
        qos = flags & 3
        if pos > end or not 0 < qos < 3:
            raise _Damage("a message is cut off")
        payload = body if body is not None else data[payload_at:pos]
        yield offset, qos, Message(data[topic_at:payload_at], payload, qos, bool(flags & _RETAIN))
        if pos == end:
            return
