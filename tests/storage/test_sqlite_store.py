"""What only the store on disk has: its files and their permissions, its lock, its rows, and whom it refuses to open."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from broker.core.ports import StoreError
from broker.storage import bodies
from broker.storage.packing import LARGE, LARGE_KEPT, SEGMENT_COUNT, SEGMENT_SIZE
from broker.storage.place import FILE_NAME
from broker.storage.schema import APPLICATION_ID, VERSION
from broker.storage.sqlite import (
    DataError,
    SqliteStore,
)
from broker.wire.message import Message
from tests.storage.store_tools import (
    ALL,
    NO_LIMIT,
    Kept,
    as_queued,
    batch,
    changes,
    delivery,
    fetch_all,
    held,
    kept_sessions,
    numbered,
    opened,
    queued,
    retained,
    session,
)

ROOT = Path(__file__).parents[2]

NOBODY = 65_534

#: A program that opens the store in argv[1], commits a session and ten messages, says so and waits.
HOLDER = """
import sys
from broker.storage.sqlite import DataError
from tests.storage.store_tools import batch, changes, numbered, opened, session
from pathlib import Path
try:
    store = opened(Path(sys.argv[1]))
except DataError as error:
    sys.exit(str(error))
store.commit(batch(sessions=[session(1)], queues=[changes(1, numbered(range(10)))]))
print("committed", flush=True)
sys.stdin.read()
"""


def refusal(directory: Path) -> str:
    """Why it cannot be opened: one line."""
    with pytest.raises(DataError) as caught:
        SqliteStore(str(directory))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def count(store: SqliteStore, table: str) -> int:
    (found,) = store._db.execute(f"SELECT count(*) FROM {table}").fetchone()
    assert isinstance(found, int)
    return found


def filled(directory: Path) -> Path:
    """A store that was closed well; the path of its file."""
    store = opened(directory)
    store.commit(batch(sessions=[session(1)], queues=[changes(1, numbered(range(3000), 100))]))
    store.close()
    return directory / FILE_NAME


@contextlib.contextmanager
def unprivileged(*owned: Path) -> Iterator[None]:
    """Without the power of root over permissions, and as the owner of these."""
    if os.geteuid() != 0:
        yield
        return
    for path in owned:
        os.chown(path, NOBODY, NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


# --- files ---


def test_a_commit_that_returned_survives_a_crash_of_the_system(tmp_path: Path) -> None:
    """Nothing here can cut the power: what is tested is that the settings are those that SQLite asks for."""
    store = opened(tmp_path)
    pragmas = {
        name: store._db.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("journal_mode", "synchronous", "locking_mode", "application_id", "user_version")
    }
    store.close()
    full = 2
    assert pragmas == {
        "journal_mode": "wal",
        "synchronous": full,
        "locking_mode": "exclusive",
        "application_id": APPLICATION_ID,
        "user_version": VERSION,
    }


def test_the_settings_hold_for_a_file_that_is_opened_again(tmp_path: Path) -> None:
    filled(tmp_path)
    test_a_commit_that_returned_survives_a_crash_of_the_system(tmp_path)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_directory_file_and_log_are_for_their_owner_only(fast_path: Path, umask: int) -> None:
    directory = fast_path / "new" / "data"
    before = os.umask(umask)
    try:
        store = opened(directory)
        store.commit(batch(sessions=[session(1)]))
        modes = {path.name: mode(path) for path in directory.iterdir()}
        store.close()
    finally:
        os.umask(before)
    assert (mode(directory), modes) == (0o700, {FILE_NAME: 0o600, f"{FILE_NAME}-wal": 0o600})


def test_a_file_that_others_could_read_is_closed_to_them(fast_path: Path) -> None:
    path = filled(fast_path)
    path.chmod(0o666)
    fast_path.chmod(0o755)
    store = opened(fast_path)
    store.commit(batch(sessions=[session(2)]))
    modes = {path.name: mode(path) for path in fast_path.iterdir()}
    store.close()
    assert modes == {FILE_NAME: 0o600, f"{FILE_NAME}-wal": 0o600}
    assert mode(fast_path) == 0o755, "a directory that was there is its owner's to judge"


def test_close_leaves_one_file(fast_path: Path) -> None:
    filled(fast_path)
    assert [path.name for path in fast_path.iterdir()] == [FILE_NAME]


def test_an_empty_file_becomes_a_store(fast_path: Path) -> None:
    """What a broker leaves that was killed at its very first moment."""
    (fast_path / FILE_NAME).touch()
    filled(fast_path)
    store = opened(fast_path)
    assert len(fetch_all(store, 1)) == 3000
    store.close()


# --- rows ---


def test_a_queue_is_kept_in_few_rows(fast_path: Path) -> None:
    store = opened(fast_path)
    store.commit(batch(sessions=[session(1)], queues=[changes(1, numbered(range(2 * SEGMENT_COUNT + 1)))]))
    assert (count(store, "segment"), count(store, "gone"), count(store, "body")) == (3, 0, 0)
    store.commit(batch(queues=[changes(1, settled=range(SEGMENT_COUNT + 1))]))
    assert (count(store, "segment"), count(store, "gone")) == (2, 1)
    store.commit(batch(queues=[changes(1, settled=range(SEGMENT_COUNT + 1, 2 * SEGMENT_COUNT + 1))]))
    assert (count(store, "segment"), count(store, "gone")) == (0, 0)
    size = LARGE - 1 + len(b"t")
    most = -(-SEGMENT_SIZE // size)  # in one row: the last of them goes beyond the limit
    added = {seq: delivery(b"t", b"x" * (LARGE - 1)) for seq in range(3 * most)}
    store.commit(batch(queues=[changes(1, added)]))
    assert count(store, "segment") == 3
    store.close()


def test_a_large_payload_is_kept_once_and_goes_with_the_last_queue_that_holds_it(fast_path: Path) -> None:
    store = opened(fast_path)
    big, _ = delivery(b"big", b"x" * LARGE, 2)
    other, _ = delivery(b"other", b"y" * LARGE, 2)
    queues = [changes(id, {0: (big, 1), 1: (other, 2), 2: delivery(b"small")}) for id in (1, 2, 3)]
    store.commit(batch(sessions=[session(id) for id in (1, 2, 3)], queues=queues[:2]))
    store.commit(batch(queues=queues[2:]))
    bodies = [count(store, "body")]
    for change in (
        batch(queues=[changes(1, settled=[0])]),
        batch(forgotten=[2]),
        batch(queues=[changes(3, settled=[0])]),  # the last that had `big`
        batch(queues=[changes(1, settled=[1]), changes(3, settled=[1])]),
    ):
        store.commit(change)
        bodies.append(count(store, "body"))
    assert bodies == [2, 2, 2, 1, 0]
    store.close()


def stored_bytes(store: SqliteStore) -> int:
    found = store._db.execute(
        "SELECT (SELECT total(length(payload)) FROM body) + (SELECT total(length(data)) FROM segment)"
    ).fetchone()
    return int(found[0])


def test_what_many_queues_get_is_stored_once(fast_path: Path) -> None:
    """All of it, or a half of what one gets, beside what is theirs alone."""
    common = {seq: delivery(b"small", b"x" * 15) for seq in range(3000)}
    once = sum(message.size + 11 for message, _ in common.values())
    store = opened(fast_path)
    empty = store.size
    ids = range(1, 101)
    store.commit(batch(sessions=[session(id) for id in ids], queues=[changes(id, common) for id in ids]))
    assert stored_bytes(store) < once * 1.1
    assert count(store, "segment") < 5 * len(ids)
    assert store.size - empty < once * 2
    store.commit(batch(queues=[changes(id, settled=common) for id in ids]))
    assert (count(store, "segment"), count(store, "body")) == (0, 0)
    halves = {
        id: {seq + 3000: common[seq] if id == 1 or (seq + id) % 4 < 2 else delivery(b"own", b"") for seq in range(3000)}
        for id in ids
    }
    store.commit(batch(queues=[changes(id, added) for id, added in halves.items()]))
    own = 1500 * 14
    assert stored_bytes(store) < once + (own + 750 * 11) * len(ids) * 1.1
    store.close()


def test_who_gets_little_of_what_others_get_does_not_keep_it_all(fast_path: Path) -> None:
    common = numbered(range(2000), 30)
    store = opened(fast_path)
    store.commit(
        batch(
            sessions=[session(id) for id in (1, 2, 3)],
            queues=[changes(1, common), changes(2, common), changes(3, {0: common[100], 1: common[1900]})],
        )
    )
    assert count(store, "body") > 0
    store.commit(batch(queues=[changes(1, settled=common), changes(2, settled=common)]))
    assert count(store, "body") == 0
    assert fetch_all(store, 3) == as_queued({0: common[100], 1: common[1900]})
    store.close()


def test_what_several_queues_share_is_shared_in_memory_when_it_is_read(fast_path: Path) -> None:
    common = {**numbered(range(2000), 30), 2000: delivery(b"big", b"x" * LARGE)}
    ids = range(1, 11)
    store = opened(fast_path)
    store.commit(batch(sessions=[session(id) for id in ids], queues=[changes(id, common) for id in ids]))
    store.close()
    store = opened(fast_path)
    read = [store.fetch(id, 0, ALL, NO_LIMIT) for id in ids]
    assert [queued(messages) for messages in read] == [as_queued(common)] * len(ids)
    assert len({id(message.payload) for messages in read for _, message, _ in messages}) == len(common)
    store.close()


def test_a_message_without_properties_is_stored_as_by_every_version(fast_path: Path) -> None:
    """Eleven bytes, topic, payload; and with properties, those and their length, and eight bytes for a date."""
    store = opened(fast_path)
    plain = {0: delivery(b"t", b"x", 1), 1: delivery(b"t", b"y", 2)}
    special = {0: delivery(b"t", b"x", kept=b"\x01\x01"), 1: delivery(b"t", b"y", kept=b"\x01\x01", expires=1.5)}
    store.commit(batch(sessions=[session(1), session(2)], queues=[changes(1, plain), changes(2, special)]))
    packed = [data for (data,) in store._db.execute("SELECT data FROM segment ORDER BY session")]
    assert packed[0] == bytes.fromhex("0000000001010001000000747801000000020100010000007479")
    assert packed[1] == bytes.fromhex(
        "00000000 21 0100 01000000 74 78 02000000 010101000000 61 0100 01000000 74 79 02000000 0101 000000000000f83f"
    )
    store.close()


def test_a_large_payload_is_kept_once_for_copies_with_other_properties(fast_path: Path) -> None:
    """And long properties of a message that many get are kept once, too."""
    payload, long = b"x" * LARGE, b"p" * LARGE_KEPT
    store = opened(fast_path)
    copies = [Message(b"t", payload, 1, False, None, b"\x0b%c" % id) for id in range(1, 21)]
    whole = Message(b"t", payload, 1, False, None, long)
    queues = [changes(id, {0: (copy, 1), 1: (whole, 1)}) for id, copy in enumerate(copies, 1)]
    store.commit(batch(sessions=[session(id) for id in range(1, 21)], queues=queues))
    assert count(store, "body") == 2
    assert stored_bytes(store) < 2 * LARGE + LARGE_KEPT + 40 * 20
    store.commit(batch(forgotten=range(1, 21)))
    assert count(store, "body") == 0
    store.close()


def test_long_properties_are_shared_in_memory_when_they_are_read(fast_path: Path) -> None:
    big = Message(b"t", b"x" * LARGE, 1, False, None, b"p" * LARGE_KEPT)
    ids = range(1, 11)
    store = opened(fast_path)
    store.commit(batch(sessions=[session(id) for id in ids], queues=[changes(id, {0: (big, 1)}) for id in ids]))
    read = [message for each in ids for _, message, _ in store.fetch(each, 0, ALL, NO_LIMIT)]
    assert {(message.payload, message.kept) for message in read} == {(big.payload, big.kept)}
    assert len({id(message.payload) for message in read}) == len({id(message.kept) for message in read}) == 1
    store.close()


def test_what_is_kept_of_what_was_read_is_little(fast_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "MOST", 3 * LARGE)
    store = opened(fast_path)
    added = {seq: delivery(b"big", b"%02d" % seq * (LARGE // 2)) for seq in range(20)}
    store.commit(batch(sessions=[session(1), session(2)], queues=[changes(id, added) for id in (1, 2)]))
    for _ in range(2):
        for id in (1, 2):
            assert fetch_all(store, id) == as_queued(added)
            assert len(store._bodies._kept) == 3
    store.tidy()
    assert len(store._bodies._kept) == 0
    store.close()


def test_a_retained_payload_is_kept_once_however_often_it_is_queued(fast_path: Path) -> None:
    store = opened(fast_path)
    messages = [delivery(b"r/%d" % i, b"x" * 10_000, 1, retain=True) for i in range(20)]
    store.commit(batch(sessions=[session(1), session(2)]))
    for start in range(0, 200, 20):
        added = dict(enumerate(messages, start))
        store.commit(batch(queues=[changes(1 + start // 20 % 2, added)]))
    assert (count(store, "segment"), count(store, "body")) == (200, 20)
    assert stored_bytes(store) < 20 * 10_000 + 200 * 20
    store.commit(batch(forgotten=[1, 2]))
    assert count(store, "body") == 0
    store.close()


def test_an_author_of_retained_messages_stands_once_and_goes_with_the_last_of_them(fast_path: Path) -> None:
    store = opened(fast_path)
    long = "c" * 65_000
    topics = [b"r/%d" % i for i in range(500)]
    store.commit(batch(retained={topic: retained(topic, b"x", 1, "u", long) for topic in topics}))
    assert count(store, "author") == 1
    assert store.size < 600_000
    records = store.load().retained
    assert {id(record.client_id) for record in records} == {id(records[0].client_id)}
    store.commit(batch(retained={topics[0]: retained(topics[0], b"y", 1, None, "other")}))
    assert count(store, "author") == 2
    store.commit(batch(retained={topic: retained(topic, b"y", 1, None, "other") for topic in topics[1:]}))
    assert count(store, "author") == 1
    store.commit(batch(retained=dict.fromkeys(topics)))
    assert count(store, "author") == 0
    store.close()


def test_one_identifier_more_is_little_to_write(fast_path: Path) -> None:
    store = opened(fast_path)
    store.commit(batch(sessions=[session(1)], received={1: held(*range(1, 65_501))}))
    before = store._db.total_changes
    store.commit(batch(received={1: {100: 0xFFFF_FFFE}}))
    assert 0 < store._db.total_changes - before <= 2
    store.close()


def test_nothing_is_left_of_what_is_settled_or_forgotten(fast_path: Path) -> None:
    store = opened(fast_path)
    queues = [changes(id, {**numbered(range(5)), 5: delivery(b"big", b"x" * LARGE)}, released=(1,)) for id in (1, 2)]
    store.commit(
        batch(sessions=[session(1), session(2)], subscriptions={(1, b"x"): 1}, received={1: held(1)}, queues=queues)
    )
    store.commit(batch(queues=[changes(1, settled=[2]), changes(2, settled=[3])]))
    store.commit(
        batch(
            forgotten=[1],
            subscriptions={(1, b"y"): 1},
            received={1: held(2)},
            queues=[changes(2, settled=[0, 1, 2, 4, 5]), changes(1, numbered([6]))],
        )
    )
    tables = ("session", "subscription", "received", "segment", "gone", "body", "retained", "author")
    assert {table: count(store, table) for table in tables} == {**dict.fromkeys(tables, 0), "session": 1}
    store.close()


def test_two_thousand_sessions_load_fast(fast_path: Path) -> None:
    store = opened(fast_path)
    ids = range(1, 2001)
    store.commit(
        batch(
            sessions=[session(id) for id in ids],
            subscriptions={(id, b"%d/%d" % (id, i)): 1 for id in ids for i in range(5)},
            received=dict.fromkeys(ids, held(1, 2, 3)),
            queues=[changes(id, numbered(range(10))) for id in ids],
        )
    )
    store.close()
    start = time.perf_counter()
    store = SqliteStore(str(fast_path))
    snapshot = store.load()
    seconds = time.perf_counter() - start
    store.close()
    print(f"2000 sessions with 10 messages and 5 subscriptions each were loaded in {seconds * 1000:.0f} ms")
    assert len(snapshot.sessions) == 2000
    assert sum(len(found.subscriptions) + found.next_seq for found in snapshot.sessions) == 2000 * 15
    assert seconds < 2.0  # 0.05 to 0.08 s where it was written


# --- other brokers ---


@pytest.fixture
def holder(fast_path: Path) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Starts another process that opens the store in `fast_path`."""
    started: list[subprocess.Popen[str]] = []

    def start() -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(fast_path)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def test_a_store_that_another_process_has_open_is_refused(
    fast_path: Path, holder: Callable[[], subprocess.Popen[str]]
) -> None:
    assert said(holder()) == "committed\n"
    path = fast_path / FILE_NAME
    assert (
        refusal(fast_path)
        == f"{path} is in use by another broker; stop that one, or choose another directory with --data"
    )
    _, error = holder().communicate()
    assert error == refusal(fast_path) + "\n"


def test_kill_9_loses_nothing_that_was_committed(fast_path: Path, holder: Callable[[], subprocess.Popen[str]]) -> None:
    process = holder()
    assert said(process) == "committed\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert (fast_path / f"{FILE_NAME}-wal").stat().st_size > 0, "it is all in the log"
    store = opened(fast_path)
    assert kept_sessions(store.load()) == {1: Kept(session(1), {}, held(), ())}
    assert [message.seq for message in fetch_all(store, 1)] == list(range(10))
    store.close()


def test_a_second_store_in_the_same_process_is_refused_and_the_first_keeps_its_lock(
    fast_path: Path, holder: Callable[[], subprocess.Popen[str]]
) -> None:
    """Closing any descriptor of a file gives up all of a process's POSIX locks on it."""
    store = opened(fast_path)
    assert "is in use by another broker" in refusal(fast_path)
    _, error = holder().communicate()
    assert "is in use by another broker" in error
    store.commit(batch(sessions=[session(1)]))
    store.close()


def test_a_store_can_be_opened_once_the_other_has_closed_it(fast_path: Path) -> None:
    filled(fast_path)
    store = opened(fast_path)
    assert "is in use by another broker" in refusal(fast_path)
    store.close()
    opened(fast_path).close()


# --- what is no directory, or no file ---


def test_a_directory_that_is_a_file_is_refused(fast_path: Path) -> None:
    file = fast_path / "file"
    file.write_text("mine")
    for directory in (file, file / "below"):
        assert refusal(directory) == (
            f"data directory {directory} cannot be used: it is not a directory (--data names another)"
        )
    assert file.read_text() == "mine"


def test_a_file_that_is_a_directory_is_refused(fast_path: Path) -> None:
    (fast_path / FILE_NAME).mkdir()
    assert refusal(fast_path) == (
        f"data directory {fast_path} cannot be used: {FILE_NAME} in it is a directory (--data names another)"
    )


@pytest.mark.parametrize("there", [False, True])
def test_a_link_is_refused_and_what_it_leads_to_stays_as_it_is(fast_path: Path, there: bool) -> None:
    target = fast_path / "target"
    if there:
        target.write_bytes(filled(fast_path / "other").read_bytes())
        target.chmod(0o644)
    (fast_path / FILE_NAME).symlink_to(target)
    assert refusal(fast_path) == (
        f"data directory {fast_path} cannot be used: {FILE_NAME} in it is a symbolic link; name the directory in which"
        " the file is (--data names another)"
    )
    assert not there or mode(target) == 0o644
    assert target.exists() is there


def test_what_is_no_file_is_refused(fast_path: Path) -> None:
    """Who opens a pipe waits for its other end."""
    os.mkfifo(fast_path / FILE_NAME)
    assert f"{FILE_NAME} in it is no regular file; remove it" in refusal(fast_path)


def test_a_file_that_is_not_ours_keeps_its_permissions(fast_path: Path) -> None:
    path = fast_path / FILE_NAME
    db = sqlite3.connect(path)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("CREATE TABLE theirs (x)")
    db.close()
    path.chmod(0o664)
    before = path.read_bytes()
    assert "is not a file of this broker" in refusal(fast_path)
    assert (mode(path), path.read_bytes(), os.listdir(fast_path)) == (0o664, before, [FILE_NAME])


@pytest.mark.parametrize("bits", [0o000, 0o500])
def test_a_directory_that_may_not_be_written_is_refused(fast_path: Path, bits: int) -> None:
    directory = fast_path / "data"
    directory.mkdir()
    directory.chmod(bits)
    with unprivileged(fast_path, directory):
        assert refusal(directory) == (
            f"data directory {directory} cannot be used: permission denied; check its owner and permissions "
            "(--data names another)"
        )
    directory.chmod(0o700)


@pytest.mark.parametrize("bits", [0o000, 0o400])
def test_a_file_that_may_not_be_written_is_refused(fast_path: Path, bits: int) -> None:
    path = filled(fast_path)
    before = path.read_bytes()
    path.chmod(bits)
    with unprivileged(fast_path, path):
        assert refusal(fast_path) == (
            f"data directory {fast_path} cannot be used: permission denied; check its owner and permissions "
            "(--data names another)"
        )
    assert path.read_bytes() == before


def test_a_file_in_a_directory_that_may_not_be_written_is_refused(fast_path: Path) -> None:
    """There is no place for the log."""
    directory = fast_path / "data"
    path = filled(directory)
    directory.chmod(0o500)
    with unprivileged(fast_path, directory, path):
        assert refusal(directory).startswith(f"{path} cannot be written (")
    directory.chmod(0o700)


# --- what is no store of ours ---


def test_a_database_of_another_program_is_refused_and_stays_as_it_is(fast_path: Path) -> None:
    path = fast_path / FILE_NAME
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE mine (x)")
    other.execute("INSERT INTO mine VALUES (1)")
    other.commit()
    other.close()
    before = path.read_bytes()
    assert refusal(fast_path) == (f"{path} is not a file of this broker; choose another directory with --data")
    assert path.read_bytes() == before
    assert [path.name for path in fast_path.iterdir()] == [FILE_NAME]


@pytest.mark.parametrize("pragma", ["application_id = 7", "user_version = 7"])
def test_a_database_that_another_program_has_marked_is_refused(fast_path: Path, pragma: str) -> None:
    path = fast_path / FILE_NAME
    other = sqlite3.connect(path)
    other.execute(f"PRAGMA {pragma}")
    other.close()
    before = path.read_bytes()
    assert "is not a file of this broker" in refusal(fast_path)
    assert path.read_bytes() == before


def test_a_newer_format_is_refused_and_stays_as_it_is(fast_path: Path) -> None:
    path = filled(fast_path)
    newer = sqlite3.connect(path)
    newer.execute("PRAGMA user_version = 99")
    newer.execute("PRAGMA journal_mode = DELETE")
    newer.close()
    before = path.read_bytes()
    assert refusal(fast_path) == (
        f"{path} was written by a newer version of this broker (format 99, this one knows {VERSION}); upgrade, "
        "or choose another directory with --data"
    )
    assert path.read_bytes() == before


def test_a_damaged_clock_is_told(fast_path: Path) -> None:
    store = opened(fast_path)
    store._db.execute("INSERT INTO clock VALUES (1, 'noon', 0.0, x'')")
    with pytest.raises(StoreError, match="is damaged"):
        store.load()
    store.close()
