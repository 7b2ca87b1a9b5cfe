"""The store on disk: one SQLite file, written by group commits.

Owns: the file, its schema and versions, the lock against a second broker. Must not know: who asks, or on which thread
(one at a time).

A queue is not kept as a row for each message, which would cost more than delivering it. What one commit adds to one
queue is a segment: one row with the messages packed one behind the other (see packing). A segment goes when all of its
messages are settled; until then `gone` tells which are. What several queues hold stands in `body`, once for all, and
goes with the last segment that refers to it.

Settings: WAL with synchronous=FULL, so that a commit that has returned survives a crash of the system; an exclusive
lock, so that a second broker on the same data fails at once.
"""

import contextlib
import os
import sqlite3
import traceback

from ..core.ports import (
    OF_A_GROUP,
    Batch,
    ClockRecord,
    QueueChanges,
    QueuedMessage,
    SessionRecord,
    SessionSnapshot,
    Snapshot,
    StoreError,
)
from ..os_reasons import is_read_only
from ..wire.message import Message
from ..wire.topics import is_valid_filter
from . import retained, soundness, wills
from .bodies import Bodies, Body
from .layout import Malformed
from .packing import Block, Packer, Segment, body_of
from .place import close_to_others, prepare, why_unusable
from .schema import APPLICATION_ID, VERSION, create, migrate
from .space import give_back
from .unpacking import unpack
from .values import Damage, pack_numbers, typed, unpack_numbers, within


class DataError(Exception):
    """The data directory cannot be used. str() is one line that says what to do; nothing in it was changed."""


#: Where something of a session stands.
_OF_A_SESSION = (("session", "id"), ("subscription", "session"), ("segment", "session"), ("received", "session"))

# What a file can do to us. (In a damaged one, SQLite may quote in a message what is not UTF-8.)
_FAULTS = (sqlite3.Error, Damage, Malformed, UnicodeDecodeError)


# Of the fields of a SessionRecord.
_SESSION_KINDS = (int, str, str | None, float | None, int | None, str | None, str, float | None, int, int)


class SqliteStore:
    """Implements core.ports.Store on the file selectmq.db in a directory."""

    def __init__(self, directory: str) -> None:
        """Open or make the store. Raises DataError."""
        try:
            self.path = prepare(directory)
        except OSError as error:
            why = why_unusable(error)
            raise DataError(f"data directory {directory} cannot be used: {why} (--data names another)") from None
        self._queued: dict[int, int] = {}  # session -> bytes ever queued
        self._next_body = 1
        self._bodies = Bodies()
        self._payloads: dict[int, int] = {}  # of this commit: which objects stand in which body
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
            traceback.clear_frames(error.__traceback__)  # a cursor that is open would keep the file locked
            raise StoreError(self._explain(error)) from None

    def _load(self) -> Snapshot:
        db = self._db
        fault = soundness.fault(db)
        if fault:
            raise Damage(fault)
        (body,) = db.execute("SELECT max(id) FROM body").fetchone()
        # Never again one that a message still knows as its own, though its row may be gone.
        self._next_body = max(self._next_body, (body or 0) + 1)
        subscriptions: dict[int, dict[bytes, int]] = {}
        for row in db.execute("SELECT session, filter, options FROM subscription"):
            session, topic_filter, options = typed(row, int, bytes, int)
            if not is_valid_filter(topic_filter):
                raise Damage("a Topic Filter is not valid")
            subscriptions.setdefault(session, {})[topic_filter] = options
        received: dict[int, dict[int, int]] = {}
        for row in db.execute("SELECT session, bucket, mask FROM received"):
            session, bucket, mask = typed(row, int, int, int)
            received.setdefault(session, {})[bucket] = mask
        sessions = []
        for row in db.execute(f"SELECT {', '.join(SessionRecord._fields)}, released FROM session").fetchall():
            *values, released = typed(row, *_SESSION_KINDS, bytes)
            record = SessionRecord(*values)
            id = record.id
            if record.kind == OF_A_GROUP and not _is_group(record.client_id):
                raise Damage("the name of a shared group is not valid")
            first = db.execute(
                "SELECT first, start FROM segment WHERE session = ? ORDER BY first LIMIT 1", (id,)
            ).fetchone()
            last = db.execute(
                "SELECT last, start + size FROM segment WHERE session = ? ORDER BY first DESC LIMIT 1", (id,)
            ).fetchone()
            first_seq, start = typed(first or (0, 0), int, int)
            last_seq, end = typed(last or (-1, 0), int, int)
            self._queued[id] = end
            sessions.append(
                SessionSnapshot(
                    record,
                    subscriptions.get(id, {}),
                    received.get(id, {}),
                    tuple(within("Q", released)),
                    first_seq,
                    last_seq + 1,
                    end - start,
                )
            )
        return Snapshot(sessions, retained.load(db), self._load_clock(), wills.load(db))

    def _load_clock(self) -> ClockRecord | None:
        row = self._db.execute("SELECT at, wall, pauses FROM clock").fetchone()
        if row is None:
            return None
        at, wall, packed = typed(row, float, float, bytes)
        numbers = within("d", packed, soundness.LONGEST)
        return ClockRecord(at, wall, tuple(zip(numbers[::2], numbers[1::2], strict=False)))

    def commit(self, batch: Batch) -> None:
        db = self._db
        queued: dict[int, int] = {}
        try:
            db.execute("BEGIN IMMEDIATE")
            for table, column in _OF_A_SESSION:
                db.executemany(f"DELETE FROM {table} WHERE {column} = ?", [(id,) for id in batch.forgotten])
            gone = set(batch.forgotten)
            self._write_sessions(batch, gone)
            self._write_queues([changes for changes in batch.queues if changes.session not in gone], queued)
            retained.write(db, batch.retained)
            if batch.wills:
                wills.write(db, batch.wills)
            if batch.clock is not None:
                at, wall, pauses = batch.clock
                packed = pack_numbers("d", [number for pause in pauses for number in pause])
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
                "SELECT first, last, data, gone.places, body FROM segment LEFT JOIN gone ON gone.segment = segment.id"
                " WHERE session = :session AND first >= coalesce("
                "   (SELECT max(first) FROM segment WHERE session = :session AND first <= :start), 0)"
                " ORDER BY first",
                {"session": session, "start": start},
            )
            with contextlib.closing(rows):  # one that is open would keep the file locked
                for row in rows:
                    first, last, data, places, id = typed(row, int, int, bytes, bytes | None, int | None)
                    body = None if id is None else self._bodies.get(id) or self._read_body(id)
                    settled = set(unpack_numbers("I", places)) if places else ()
                    for offset, qos, message in unpack(data, body):
                        if first + offset > last:
                            raise Damage("a message has the place of another")
                        if first + offset < start or offset in settled:
                            continue
                        if found and (len(found) >= count or size <= 0):
                            return found
                        found.append((first + offset, message, qos))
                        size -= message.size
        except _FAULTS as error:
            raise StoreError(self._explain(error)) from None
        return found

    def _read_body(self, id: int) -> Body:
        row = self._db.execute("SELECT payload FROM body WHERE id = ?", (id,)).fetchone()
        if row is None:
            raise Damage("a payload is missing")
        (data,) = typed(row, bytes)
        return self._bodies.keep(id, data)

    def tidy(self) -> bool:
        self._bodies.clear()
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
            f"INSERT INTO session ({', '.join(SessionRecord._fields)}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (id) DO UPDATE SET username = excluded.username, disconnected_at = excluded.disconnected_at,"
            " sent_to = excluded.sent_to, listener = excluded.listener, expiry = excluded.expiry,"
            " version = excluded.version",
            [record for id, record in batch.sessions.items() if id not in gone],
        )
        held, released = [], []
        for session, masks in batch.received.items():
            for bucket, mask in masks.items():
                if not mask:
                    released.append((session, bucket))
                elif session not in gone:
                    held.append((session, bucket, mask))
        db.executemany("DELETE FROM received WHERE session = ? AND bucket = ?", released)
        db.executemany("INSERT OR REPLACE INTO received (session, bucket, mask) VALUES (?, ?, ?)", held)
        removed = []
        granted = []
        for (session, topic_filter), options in batch.subscriptions.items():
            if options is None:
                removed.append((session, topic_filter))
            elif session not in gone:
                granted.append((session, topic_filter, options))
        db.executemany("DELETE FROM subscription WHERE session = ? AND filter = ?", removed)
        db.executemany("INSERT OR REPLACE INTO subscription (session, filter, options) VALUES (?, ?, ?)", granted)

    def _write_queues(self, queues: list[QueueChanges], queued: dict[int, int]) -> None:
        self._payloads.clear()
        packer = Packer([changes.added for changes in queues if changes.added])
        # What is settled goes last: what it was the last to refer to may be referred to again.
        for changes in queues:
            if changes.added:
                start = self._queued.get(changes.session, 0)
                for segment in packer.segments(changes.added):
                    self._write_segment(changes.session, segment, start)
                    start += segment.size
                queued[changes.session] = start
        for changes in queues:
            session = changes.session
            if changes.settled:
                self._settle(session, sorted(changes.settled))
            if changes.released is not None:
                released = pack_numbers("Q", changes.released)
                self._db.execute("UPDATE session SET released = ? WHERE id = ?", (released, session))

    def _write_segment(self, session: int, segment: Segment, start: int) -> None:
        first, last, count, size, data, body = segment
        if body is None:
            id = None
        elif isinstance(body, Block):
            id = self._keep_block(body)
        else:
            id = self._keep_payload(body)
        self._db.execute(
            "INSERT INTO segment (session, first, last, count, start, size, data, body)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (session, first, last, count, start, size, data, id),
        )

    def _keep_block(self, block: Block) -> int:
        """Write it, if no other queue of this commit has referred to it."""
        if not block.id:
            block.id = self._next_body
            self._next_body += 1
            self._db.execute("INSERT INTO body (id, payload) VALUES (?, ?)", (block.id, b"".join(block.parts)))
            block.parts = []
        return block.id

    def _keep_payload(self, message: Message) -> int:
        """Write the payload, unless another queue has it already."""
        body = body_of(message)
        if not message.body_id:
            # That of a copy with other properties, which goes to somebody else?
            message.body_id = self._payloads.get(id(body)) or self._next_body
            self._next_body = max(self._next_body, message.body_id + 1)
        if body is message.payload:
            self._payloads[id(body)] = message.body_id
        self._db.execute("INSERT OR IGNORE INTO body (id, payload) VALUES (?, ?)", (message.body_id, body))
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
            gone = [*unpack_numbers("I", noted or b""), *(seq - first for seq in places[begin:at])]
            if len(gone) >= count:
                done.append((id,))
            else:
                db.execute("INSERT OR REPLACE INTO gone (segment, places) VALUES (?, ?)", (id, pack_numbers("I", gone)))
        db.executemany("DELETE FROM segment WHERE id = ?", done)

    # --- errors ---

    def _explain(self, error: Exception) -> str:
        text = str(error)
        if isinstance(error, (Damage, Malformed)):
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


def _is_group(name: str) -> bool:
    """Is it the whole filter of a shared subscription? [MQTT5-4.8.2-1]"""
    share, _, rest = name.partition("/")
    group, _, topic_filter = rest.partition("/")
    valid = is_valid_filter(name.encode()) and topic_filter != ""
    return share == "$share" and group != "" and not set(group) & set("+#") and valid
