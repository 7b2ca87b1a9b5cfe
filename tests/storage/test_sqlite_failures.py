"""A store that fails: a commit is all or nothing, the store goes on working, and the same batch can be tried again."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from broker.core.clock import Clock
from broker.core.exchange import Exchange
from broker.core.journal import RETRY, Journal
from broker.core.limits import Limits
from broker.core.ports import Batch, StoreError
from broker.core.stored_queue import StoredQueue
from broker.core.timers import Timers
from broker.storage.packing import LARGE
from broker.storage.place import FILE_NAME
from broker.storage.sqlite import DataError, SqliteStore
from broker.wire.message import Message
from tests.small_disk import can_mount, file_size_limit, fill, small_disk
from tests.storage.store_tools import (
    FaultyConnection,
    Kept,
    KeptRetained,
    Lane,
    Lines,
    Queued,
    batch,
    changes,
    delivery,
    fetch_all,
    held,
    kept_retained,
    kept_sessions,
    numbered,
    opened,
    retained,
    session,
    will,
)


class View(NamedTuple):
    """All that a store holds."""

    sessions: dict[int, Kept]
    queues: dict[int, list[Queued]]
    retained: dict[bytes, KeptRetained]
    wills: dict[int, object]


def view(store: SqliteStore) -> View:
    snapshot = store.load()
    queues = {id: queue for id in range(1, 6) if (queue := fetch_all(store, id))}
    return View(kept_sessions(snapshot), queues, kept_retained(snapshot), dict(snapshot.wills))


def before() -> Batch:
    big, _ = delivery(b"big", b"x" * LARGE, 2)
    return batch(
        sessions=[session(1), session(2), session(3)],
        subscriptions={(id, topic): 1 for id in (1, 2, 3) for topic in (b"a", b"b/#")},
        received={1: held(1, 2), 2: held(3)},
        queues=[changes(id, {**numbered(range(5)), 5: (big, 2)}, released=(0,)) for id in (1, 2, 3)],
        retained={b"old": retained(b"old", b"1", kept=b"\x01\x01"), b"gone": retained(b"gone", b"2")},
        wills={1: will("client-1"), 2: will("client-2"), 3: will("client-3")},
    )


def after() -> Batch:
    """Touches every table, and every way to change it."""
    big, _ = delivery(b"new", b"y" * LARGE, 2, kept=b"p" * LARGE, expires=7.5)
    copy, _ = delivery(b"new", big.payload, 2, kept=b"\x0b\x01")
    return batch(
        forgotten=[3],
        sessions=[session(1, sent_to=5), session(4), session(5, "client-3", expiry=9.5, version=5)],
        subscriptions={(1, b"a"): 2, (2, b"a"): None, (4, b"c"): 1, (3, b"x"): 1},
        received={1: held(), 2: held(9, 8), 4: held(7)},
        queues=[
            changes(1, {6: (big, 1), **numbered([7])}, settled=[0, 1, 2, 3, 4, 5], released=()),
            changes(2, {6: (big, 2), 7: (copy, 1)}, settled=[4, 2]),
            changes(4, numbered([0, 1]), released=(0,)),
        ],
        retained={b"old": retained(b"old", b"3"), b"gone": None, b"new": retained(b"new", b"4", expires=8.5)},
        wills={1: None, 2: will("client-2", due=6.5), 4: will("client-4", kept=b"\x01\x01")},
    )


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every store that is opened has a FaultyConnection."""
    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=FaultyConnection))


@pytest.fixture
def made(fast_path: Path) -> Path:
    """The directory of a closed store that holds `before`."""
    directory = fast_path / "made"
    store = opened(directory)
    store.commit(before())
    store.close()
    return directory


@pytest.fixture
def expected(made: Path) -> tuple[View, View]:
    """What is there before and after a commit of `after`."""
    copy = shutil.copytree(made, made.with_name("expected"))
    store = opened(copy)
    first = view(store)
    store.commit(after())
    second = view(store)
    store.close()
    assert first != second
    return first, second


def failure(act: Callable[..., object], *arguments: object) -> str | None:
    """Why it failed; None if it did not."""
    try:
        act(*arguments)
    except (StoreError, DataError) as error:
        return str(error)
    return None


def connection(store: SqliteStore) -> FaultyConnection:
    db: Any = store._db
    assert isinstance(db, FaultyConnection)
    return db


# --- a statement fails ---


@pytest.mark.usefixtures("faulty")
def test_a_commit_that_fails_at_any_statement_is_undone_and_can_be_tried_again(
    made: Path, expected: tuple[View, View]
) -> None:
    old, new = expected
    failed = 0
    while True:
        copy = shutil.copytree(made, made.with_name(f"copy{failed}"))
        store = opened(copy)
        connection(store).countdown = failed + 1
        wanted = after()
        why = failure(store.commit, wanted)
        if why is None:
            connection(store).countdown = None
            assert view(store) == new
            store.close()
            break
        assert why == f"{copy / FILE_NAME}: disk I/O error"
        failed += 1
        assert not store._db.in_transaction
        assert view(store) == old
        store.commit(batch())
        store.commit(wanted)
        assert view(store) == new
        store.close()
        store = opened(copy)
        assert view(store) == new
        store.close()
    assert failed > 20, "every statement of the batch had its turn"


def test_a_commit_that_fails_at_any_instruction_is_undone(made: Path, expected: tuple[View, View]) -> None:
    """Statements are interrupted in their middle; some of these interruptions make SQLite undo everything itself."""
    old, new = expected
    store = opened(made)
    failed = 0
    stride = 13
    wanted = after()

    def trace(statement: str) -> None:
        if statement == "COMMIT":  # which this, and nothing else, can interrupt behind its end
            store._db.set_progress_handler(None, 1)

    store._db.set_trace_callback(trace)
    while True:
        left = 1 + failed * stride

        def stop() -> bool:
            nonlocal left
            left -= 1
            return left == 0

        store._db.set_progress_handler(stop, 1)
        why = failure(store.commit, wanted)
        store._db.set_progress_handler(None, 1)
        if why is None:
            break
        assert why == f"{store.path}: interrupted"
        failed += 1
        assert not store._db.in_transaction
        assert view(store) == old
    assert view(store) == new
    store.close()
    assert failed > 20


@pytest.mark.usefixtures("faulty")
def test_a_load_or_fetch_that_fails_can_be_tried_again(made: Path) -> None:
    store = opened(made)
    reads: list[Callable[[], object]] = [store.load, lambda: store.fetch(1, 0, 10, 1000)]
    for read in reads:
        connection(store).countdown = 1
        with pytest.raises(StoreError, match="disk I/O error"):
            read()
        read()
    store.close()


@pytest.mark.usefixtures("faulty")
def test_what_cannot_be_written_at_all_leaves_the_store_in_order(made: Path, expected: tuple[View, View]) -> None:
    """Not an error of the disk but a bug of ours: half a surrogate pair is no text."""
    old, new = expected
    store = opened(made)
    with pytest.raises(UnicodeEncodeError):
        store.commit(batch(sessions=[session(9, "fine"), session(10, "\ud800")]))
    assert not store._db.in_transaction
    assert view(store) == old
    store.commit(after())
    assert view(store) == new
    store.close()


@pytest.mark.usefixtures("faulty")
def test_a_store_that_fails_can_be_closed(made: Path) -> None:
    store = opened(made)
    connection(store).countdown = 1
    store.close()
    opened(made).close()


@pytest.mark.parametrize("exists", [True, False])
def test_an_opening_that_fails_at_any_statement_can_be_tried_again(
    made: Path, monkeypatch: pytest.MonkeyPatch, exists: bool
) -> None:
    connect = sqlite3.connect
    failed = 0
    while True:
        directory = made.with_name(f"copy{failed}")
        if exists:
            shutil.copytree(made, directory)
        faulty = type("Faulty", (FaultyConnection,), {"countdown": failed + 1})
        monkeypatch.setattr(sqlite3, "connect", partial(connect, factory=faulty))
        why = failure(lambda directory: SqliteStore(str(directory)).close(), directory)
        monkeypatch.setattr(sqlite3, "connect", connect)
        if why is None:
            break
        assert why == f"{directory / FILE_NAME}: disk I/O error"
        failed += 1
        store = opened(directory)
        assert list(kept_sessions(store.load())) == ([1, 2, 3] if exists else [])
        store.commit(batch(sessions=[session(9)]))
        store.close()
    assert failed > (8 if exists else 15)


# --- a write fails ---


def one(seq: int) -> Batch:
    """Makes the session, and queues one message."""
    return batch(sessions=[session(1)], queues=[changes(1, numbered([seq], LARGE - 100))])


def commits_until_failure(store: SqliteStore) -> tuple[int, str]:
    """The first place that could not be committed, and why not."""
    for seq in range(1000):
        why = failure(store.commit, one(seq))
        if why is not None:
            return seq, why
    raise AssertionError("no commit failed")


def test_a_commit_that_fails_at_any_write_is_undone_and_can_be_tried_again(
    made: Path, expected: tuple[View, View]
) -> None:
    """Real writes to the log: it may grow by so many bytes only."""
    old, new = expected
    store = opened(made)
    failed = 0
    wanted = after()
    while True:
        with file_size_limit(failed * 1500):
            why = failure(store.commit, wanted)
        if why is None:
            break
        assert why == f"{store.path}: disk I/O error"
        failed += 1
        assert view(store) == old
    assert view(store) == new
    store.close()
    store = opened(made)
    assert view(store) == new
    store.close()
    assert failed > 10


def test_an_opening_that_fails_at_any_write_can_be_tried_again(fast_path: Path) -> None:
    failed = 0
    while True:
        directory = fast_path / str(failed)
        with file_size_limit(failed * 1500):
            why = failure(lambda directory: SqliteStore(str(directory)).close(), directory)
        if why is None:
            break
        assert "\n" not in why
        failed += 1
        store = opened(directory)
        store.commit(before())
        assert len(store.load().sessions) == 3
        store.close()
    assert failed > 10


def test_a_log_that_cannot_be_moved_into_the_file_is_kept(fast_path: Path) -> None:
    """The file may not grow: commits go on as long as the log can, then they fail; nothing is lost."""
    store = opened(fast_path)
    store._db.execute("PRAGMA wal_autocheckpoint = 4")
    with file_size_limit(200_000):
        seq, why = commits_until_failure(store)
    assert why == f"{store.path}: disk I/O error"
    assert seq > 10
    assert [message.seq for message in fetch_all(store, 1)] == list(range(seq))
    store.commit(one(seq))
    store.close()
    store = opened(fast_path)
    assert [message.seq for message in fetch_all(store, 1)] == list(range(seq + 1))
    store.close()


# --- the disk is full ---


def page_limit(fast_path: Path) -> Iterator[tuple[SqliteStore, Callable[[], object]]]:
    store = opened(fast_path / "data")
    (pages,) = store._db.execute("PRAGMA page_count").fetchone()
    store._db.execute(f"PRAGMA max_page_count = {pages + 50}")
    yield store, lambda: store._db.execute("PRAGMA max_page_count = 1000000")


def full_disk(fast_path: Path) -> Iterator[tuple[SqliteStore, Callable[[], object]]]:
    with small_disk(1 << 20) as directory:
        store = opened(directory / "data")
        filler = fill(directory)
        yield store, filler.unlink
        store.close()


@pytest.fixture(params=[page_limit, full_disk] if can_mount() else [page_limit])
def nearly_full(request: pytest.FixtureRequest, fast_path: Path) -> Iterator[tuple[SqliteStore, Callable[[], object]]]:
    """A store that has little room left, and what makes more."""
    yield from request.param(fast_path)


def test_a_full_disk_is_told_and_all_goes_on_once_there_is_room(
    nearly_full: tuple[SqliteStore, Callable[[], object]],
) -> None:
    store, make_room = nearly_full
    seq, why = commits_until_failure(store)
    assert why == f"{store.path}: the disk is full; make room"
    stored = [message.seq for message in fetch_all(store, 1)]
    for _ in range(3):
        with pytest.raises(StoreError, match="the disk is full"):
            store.commit(one(seq))
    assert [message.seq for message in fetch_all(store, 1)] == stored
    make_room()
    store.commit(one(seq))
    assert [message.seq for message in fetch_all(store, 1)] == [*stored, seq]
    store.close()


# --- with the journal ---


@pytest.mark.usefixtures("faulty")
def test_a_batch_is_not_written_again_because_a_load_behind_it_failed(made: Path) -> None:
    """What a session adds has its place once: a second time would fail for ever."""
    store = opened(made)
    lane, timers, log = Lane(), Timers(), Lines()
    journal = Journal(store, lane, timers, log)
    exchange = Exchange(journal, timers, Limits(), log, lane, Clock(0.0, 0.0), lambda: "x")
    exchange.restore(store.load(), lambda session: None)
    queue = exchange.sessions["client-1"].queue
    assert isinstance(queue, StoredQueue)
    answers: list[str] = []
    queue.deliver(Message(b"t", b"x", 1), 1)
    journal.when_stored(answers.append, "stored")
    journal.fetch(queue, 0, 10)
    connection(store).fails_at = "SELECT first, data"
    timers.now = 1.0  # whatever is waited for has come
    journal.end_of_turn()
    lane.run()
    assert (answers, journal.failed) == (["stored"], False)
    timers.run(1.0 + RETRY)
    journal.end_of_turn()
    lane.run()
    assert [message.payload for message in fetch_all(store, 1)][-1:] == [b"x"]
    store.close()
