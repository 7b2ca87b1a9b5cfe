"""What the store's tests share: builders for batches, stores that can be reopened, views that can be compared."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from broker.core.ports import (
    BUCKET_SIZE,
    OF_A_CLIENT,
    Batch,
    ClockRecord,
    Delivery,
    QueueChanges,
    QueuedMessage,
    RetainedRecord,
    SessionRecord,
    Snapshot,
    Store,
    WillRecord,
)
from broker.storage.memory import MemoryStore
from broker.storage.sqlite import SqliteStore
from broker.wire.message import Message

#: More than any test's queue holds.
ALL = 1_000_000
NO_LIMIT = 1 << 40


# --- builders ---


def batch(
    *,
    forgotten: Iterable[int] = (),
    sessions: Iterable[SessionRecord] = (),
    subscriptions: Mapping[tuple[int, bytes], int | None] | None = None,
    received: Mapping[int, Mapping[int, int]] | None = None,
    queues: Iterable[QueueChanges] = (),
    retained: Mapping[bytes, RetainedRecord | None] | None = None,
    clock: ClockRecord | None = None,
    wills: Mapping[int, WillRecord | None] | None = None,
) -> Batch:
    return Batch(
        list(forgotten),
        {record.id: record for record in sessions},
        dict(subscriptions or {}),
        {id: dict(masks) for id, masks in (received or {}).items()},
        list(queues),
        dict(retained or {}),
        clock,
        dict(wills or {}),
    )


def session(
    id: int,
    client_id: str | None = None,
    *,
    username: str | None = None,
    disconnected_at: float | None = None,
    sent_to: int | None = None,
    listener: str | None = None,
    origin: str = "",
    expiry: float | None = None,
    version: int = 4,
    kind: int = OF_A_CLIENT,
) -> SessionRecord:
    name = f"client-{id}" if client_id is None else client_id
    return SessionRecord(id, name, username, disconnected_at, sent_to, listener, origin, expiry, version, kind)


def held(*identifiers: int) -> dict[int, int]:
    """The buckets of these Packet Identifiers."""
    masks: dict[int, int] = {}
    for identifier in identifiers:
        masks[identifier // BUCKET_SIZE] = masks.get(identifier // BUCKET_SIZE, 0) | 1 << identifier % BUCKET_SIZE
    return masks


def changes(
    session: int,
    added: Mapping[int, Delivery] | None = None,
    settled: Iterable[int] = (),
    released: tuple[int, ...] | None = None,
) -> QueueChanges:
    return QueueChanges(session, dict(added or {}), list(settled), released)


def delivery(
    topic: bytes = b"t",
    payload: bytes = b"",
    qos: int = 1,
    *,
    retain: bool = False,
    kept: bytes = b"",
    expires: float | None = None,
) -> Delivery:
    return Message(topic, payload, qos, retain, None, kept, expires), qos


def numbered(places: Iterable[int], size: int = 8) -> dict[int, Delivery]:
    """A message for each place; its payload says which, QoS 1 and 2 take turns."""
    return {seq: delivery(b"t/%d" % seq, b"%d" % seq + b"." * size, 1 + seq % 2) for seq in places}


def retained(
    topic: bytes,
    payload: bytes,
    qos: int = 0,
    username: str | None = None,
    client_id: str = "",
    listener: str | None = None,
    *,
    kept: bytes = b"",
    expires: float | None = None,
) -> RetainedRecord:
    return RetainedRecord(Message(topic, payload, qos, True, None, kept, expires), username, client_id, listener)


def will(client_id: str = "c", topic: bytes = b"will", payload: bytes = b"gone", **others: Any) -> WillRecord:
    fields = {"username": None, "listener": None, "qos": 1, "retain": False, **others}
    return WillRecord(client_id=client_id, topic=topic, payload=payload, **fields)


# --- views: plain values, so that they compare and print well ---


class Queued(NamedTuple):
    """A QueuedMessage. (Not the QoS at which it was published: nothing needs that of a queued message.)"""

    seq: int
    qos: int
    topic: bytes
    payload: bytes
    retain: bool
    kept: bytes = b""
    expires: float | None = None


def queued(messages: Iterable[QueuedMessage]) -> list[Queued]:
    return [
        Queued(seq, qos, message.topic, message.payload, message.retain, message.kept, message.expires)
        for seq, message, qos in messages
    ]


def as_queued(added: Mapping[int, Delivery]) -> list[Queued]:
    """What `fetch` is to give back for this."""
    return queued((seq, message, qos) for seq, (message, qos) in added.items())


def fetch_all(store: Store, session: int) -> list[Queued]:
    return queued(store.fetch(session, 0, ALL, NO_LIMIT))


class Kept(NamedTuple):
    """A SessionSnapshot without its numbers of the queue."""

    record: SessionRecord
    subscriptions: dict[bytes, int]
    received: dict[int, int]
    released: tuple[int, ...]


class KeptRetained(NamedTuple):
    payload: bytes
    qos: int
    retain: bool
    username: str | None
    client_id: str
    listener: str | None = None
    kept: bytes = b""
    expires: float | None = None


def kept_sessions(snapshot: Snapshot) -> dict[int, Kept]:
    found = {
        stored.record.id: Kept(stored.record, stored.subscriptions, stored.received, stored.released)
        for stored in snapshot.sessions
    }
    assert len(found) == len(snapshot.sessions)
    return found


def kept_retained(snapshot: Snapshot) -> dict[bytes, KeptRetained]:
    found = {
        message.topic: KeptRetained(
            message.payload, message.qos, message.retain, username, client_id, listener, message.kept, message.expires
        )
        for message, username, client_id, listener in snapshot.retained
    }
    assert len(found) == len(snapshot.retained)
    return found


class Numbers(NamedTuple):
    """What a snapshot says of one queue."""

    first_seq: int
    next_seq: int
    queued_bytes: int


def numbers(store: Store, session: int) -> Numbers:
    (found,) = (stored for stored in store.load().sessions if stored.record.id == session)
    return Numbers(found.first_seq, found.next_seq, found.queued_bytes)


# --- stores under test ---


class Box(Protocol):
    """A store in which a test writes and reads."""

    @property
    def store(self) -> Store:
        """To write to."""

    def reread(self) -> Store:
        """The store to read from: whatever was written through `store` is to be there."""

    def close(self) -> None: ...


class MemoryBox:
    def __init__(self) -> None:
        self.store = MemoryStore()

    def reread(self) -> Store:
        return self.store

    def close(self) -> None:
        self.store.close()


class SqliteBox:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.store = opened(directory)

    def reread(self) -> Store:
        return self.store

    def close(self) -> None:
        self.store.close()


class ReopenedSqliteBox(SqliteBox):
    """Everything that is read has gone through the file."""

    def reread(self) -> Store:
        self.store.close()
        self.store = opened(self.directory)
        return self.store


def opened(directory: Path) -> SqliteStore:
    store = SqliteStore(str(directory))
    store.load()
    return store


# --- faults ---


class FaultyConnection(sqlite3.Connection):
    """A connection on which one statement fails: the n-th from now on, or the next that begins with a certain text."""

    countdown: int | None = None
    fails_at: str | None = None

    def _try(self, statement: str) -> None:
        if self.countdown is not None:
            self.countdown -= 1
        if self.countdown == 0 or (self.fails_at is not None and statement.startswith(self.fails_at)):
            self.countdown = self.fails_at = None
            raise sqlite3.OperationalError("disk I/O error")

    def execute(self, *arguments: Any) -> sqlite3.Cursor:
        self._try(arguments[0])
        return super().execute(*arguments)

    def executemany(self, *arguments: Any) -> sqlite3.Cursor:
        self._try(arguments[0])
        return super().executemany(*arguments)


# --- a core without sockets and threads ---


class Lines:
    """Implements core.ports.Log."""

    debugging = False

    def __init__(self) -> None:
        self.lines: list[str] = []

    def debug(self, event: str, **fields: object) -> None:
        self.lines.append(event)

    info = warning = error = debug

    def exception(self, event: str, error: BaseException, **fields: object) -> None:
        raise error


class Lane:
    """Implements core.ports.Lane and Scheduler: jobs are done at once, their results come when `run` is called."""

    def __init__(self) -> None:
        self._results: list[Callable[[], None]] = []

    def submit(self, job: Callable[[], object], done: Callable[[object, Exception | None], None]) -> None:
        result, failure = None, None
        try:
            result = job()
        except Exception as error:
            failure = error
        self._results.append(lambda: done(result, failure))

    def soon(self, function: Callable[[], None]) -> None:
        self._results.append(function)

    def in_turn(self, function: Callable[[], None]) -> None:
        self._results.append(function)

    @property
    def heard_until(self) -> float:
        return float("inf")

    def run(self) -> None:
        while self._results:
            self._results.pop(0)()
