"""The stores agree: the same random batches give the same contents, in memory and on disk, whatever happens between.

What happens between: the file is closed and opened, the process dies without closing it, a commit fails at a random
statement and is tried again.
"""

from __future__ import annotations

import contextlib
import math
import shutil
import sqlite3
import tempfile
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from broker.core.ports import Batch, Delivery, QueueChanges, RetainedRecord, SessionRecord, StoreError
from broker.storage import packing, place
from broker.storage.memory import MemoryStore
from broker.storage.sqlite import SqliteStore
from broker.wire.message import Message
from tests.raw_client import text
from tests.storage.store_tools import (
    FaultyConnection,
    batch,
    changes,
    fetch_all,
    kept_retained,
    kept_sessions,
    numbers,
    queued,
    retained,
    session,
    will,
)

#: Small, so that a few messages make several segments, and a few bytes a large payload.
SMALL = {
    "LARGE": 40, "LARGE_RETAINED": 30, "SEGMENT_COUNT": 5, "SEGMENT_SIZE": 100, "SEGMENT_SPAN": 8, "BLOCK_SIZE": 60,
    "BLOCK_SHARE": 3, "FEW": 2, "SMALL": 10, "LARGE_KEPT": 9,
}  # fmt: skip

CLIENT_IDS = ["a", "b", "\u20ac", "A"]
TOPICS = [b"t", b"t/t", b"\xe2\x82\xac"]

few = partial(st.lists, max_size=2)
payloads = st.one_of(st.binary(max_size=8), st.sampled_from([30, 39, 40, 41, 120]).map(lambda size: b"x" * size))
usernames = st.sampled_from([None, "", "u"])
qos = st.sampled_from([1, 2])
properties = st.sampled_from([b"", b"", b"", b"\x01\x01", *(b"\x03" + text("t" * size) for size in (6, 30))])
dates = st.sampled_from([None, None, 0.0, 1.5])
masks = st.dictionaries(st.integers(0, 3), st.sampled_from([0, 1, (1 << 32) - 1]), max_size=2)


wills = st.builds(
    will, st.sampled_from(CLIENT_IDS), st.sampled_from(TOPICS), payloads, kept=properties, due=dates, qos=qos
)


class Queue:
    """What a session's queue holds, as the core would know it."""

    def __init__(self) -> None:
        self.next = 0
        self.unsettled: set[int] = set()


class StoresAgree(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.ends = contextlib.ExitStack()
        self.ends.enter_context(mock.patch.dict(vars(packing), SMALL))
        connect = partial(sqlite3.connect, factory=FaultyConnection)
        self.ends.enter_context(mock.patch.object(sqlite3, "connect", connect))
        memory = Path("/dev/shm")
        base = self.ends.enter_context(tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None))
        self.directory = Path(base) / "0"
        self.memory = MemoryStore()
        self.sqlite = self.opened()
        self.ids: dict[str, int] = {}  # of the sessions there are
        self.queues: dict[int, Queue] = {}
        self.newest = 0
        self.shared = self.new_shared()

    def opened(self) -> SqliteStore:
        store = SqliteStore(str(self.directory))
        store.load()
        return store

    def teardown(self) -> None:
        self.sqlite.close()
        self.ends.close()

    # --- rules ---

    @initialize()
    def begin(self) -> None:
        self.commit_both(batch(sessions=[self.new_session("a")]), None)

    @rule(data=st.data(), fail_at=st.one_of(st.none(), st.none(), st.integers(1, 25)))
    def commit(self, data: st.DataObject, fail_at: int | None) -> None:
        self.commit_both(self.drawn(data), fail_at)

    @rule(
        data=st.data(),
        count=st.one_of(st.just(1), st.integers(1, 12)),
        size=st.one_of(st.just(0), st.integers(0, 400)),
    )
    def fetch(self, data: st.DataObject, count: int, size: int) -> None:
        id = data.draw(st.integers(1, self.newest))
        start = data.draw(st.integers(0, self.queues[id].next + 1 if id in self.queues else 3))
        assert queued(self.sqlite.fetch(id, start, count, size)) == queued(self.memory.fetch(id, start, count, size))

    @rule()
    def reopen(self) -> None:
        self.sqlite.close()
        assert [path.name for path in self.directory.iterdir()] == [place.FILE_NAME]
        self.sqlite = self.opened()
        self.go_on_from_the_file()

    @rule()
    def die(self) -> None:
        """Go on with copies of the files as they are, its log beside it."""
        copy = self.directory.with_name(str(int(self.directory.name) + 1))
        shutil.copytree(self.directory, copy)
        self.sqlite.close()
        shutil.rmtree(self.directory)
        self.directory = copy
        self.sqlite = self.opened()
        self.go_on_from_the_file()

    # --- how ---

    def new_session(self, client_id: str) -> SessionRecord:
        self.newest += 1
        self.ids[client_id] = self.newest
        self.queues[self.newest] = Queue()
        return SessionRecord(self.newest, client_id, None, None, 0)

    def new_shared(self) -> list[Message]:
        """The same object goes into several queues, at any time while the broker runs, as a retained message does."""
        kept = (b"", b"p", b"p" * 9)
        return [Message(b"shared", b"%d" % i * 50, 2, True, None, kept[i]) for i in range(3)]

    def go_on_from_the_file(self) -> None:
        """After a start, the core has its places from the store, and no message of before."""
        self.shared = self.new_shared()
        for id, queue in self.queues.items():
            queue.next = numbers(self.sqlite, id).next_seq
            assert queue.next > max(queue.unsettled, default=-1)
        self.compare()

    def commit_both(self, wanted: Batch, fail_at: int | None) -> None:
        db: Any = self.sqlite._db
        assert isinstance(db, FaultyConnection)
        db.countdown = fail_at
        try:
            self.sqlite.commit(wanted)
        except StoreError:
            self.compare()  # nothing of it is there
            self.sqlite.commit(wanted)
        db.countdown = None
        self.memory.commit(wanted)
        self.compare()

    def compare(self) -> None:
        ours, theirs = self.sqlite.load(), self.memory.load()
        assert kept_sessions(ours) == kept_sessions(theirs)
        assert kept_retained(ours) == kept_retained(theirs)
        assert ours.wills == theirs.wills
        for id in range(1, self.newest + 2):
            assert fetch_all(self.sqlite, id) == fetch_all(self.memory, id)
        on_disk = {found.record.id: found for found in ours.sessions}
        for exact in theirs.sessions:
            found = on_disk[exact.record.id]
            if exact.next_seq:
                assert found.first_seq <= exact.first_seq
                assert found.next_seq >= exact.next_seq
                assert found.queued_bytes >= exact.queued_bytes
            else:
                assert found.first_seq == found.next_seq
                assert found.queued_bytes == 0
        self.check_rows()

    def check_rows(self) -> None:
        """No row without an owner, and no body twice."""
        db = self.sqlite._db
        assert db.execute("SELECT id FROM segment WHERE session NOT IN (SELECT id FROM session)").fetchall() == []
        assert (
            db.execute("SELECT filter FROM subscription WHERE session NOT IN (SELECT id FROM session)").fetchall() == []
        )
        assert db.execute("SELECT segment FROM gone WHERE segment NOT IN (SELECT id FROM segment)").fetchall() == []
        bodies = {id for (id,) in db.execute("SELECT id FROM body")}
        assert bodies == {id for (id,) in db.execute("SELECT body FROM segment WHERE body IS NOT NULL")}

    # --- drawing a batch that the core might make ---

    def drawn(self, data: st.DataObject) -> Batch:
        draw = data.draw
        known = sorted(self.ids.values())
        forgotten = draw(few(st.sampled_from(known))) if known and draw(st.integers(0, 3)) == 0 else []
        client_ids = {id: client_id for client_id, id in self.ids.items()}
        for id in set(forgotten):
            del self.ids[client_ids[id]]
            del self.queues[id]
        sessions = []
        for id in draw(few(st.sampled_from(known), unique=True)) if known else ():
            disconnected_at, sent_to = draw(st.sampled_from([(None, None), (1.5, 7), (0.0, 0)]))
            expiry, version = draw(st.sampled_from([(None, 4), (0.5, 5), (math.inf, 5)]))
            sessions.append(
                session(
                    id,
                    client_ids[id],
                    username=draw(usernames),
                    disconnected_at=disconnected_at,
                    sent_to=sent_to,
                    expiry=expiry,
                    version=version,
                )
            )
        for client_id in draw(few(st.sampled_from(CLIENT_IDS), unique=True)):
            if client_id not in self.ids:
                sessions.append(self.new_session(client_id))
        ids = sorted({*known, *self.ids.values()})  # the forgotten ones too: the batch may still speak of them
        if not ids:
            return batch(forgotten=forgotten)
        some = st.sampled_from(ids)
        # What several queues get.
        common = [self.drawn_message(data) for _ in range(draw(st.sampled_from([0, 0, 6])))]
        return batch(
            forgotten=forgotten,
            sessions=sessions,
            subscriptions=draw(
                st.dictionaries(
                    st.tuples(some, st.sampled_from(TOPICS)), st.sampled_from([None, 0, 1, 2 | 7 << 8]), max_size=3
                )
            ),
            received=draw(st.dictionaries(some, masks, max_size=2)),
            queues=[self.drawn_changes(data, id, common) for id in draw(st.lists(some, max_size=3, unique=True))],
            retained={topic: self.drawn_retained(data, topic) for topic in draw(few(st.sampled_from(TOPICS)))},
            wills=draw(st.dictionaries(st.integers(1, 3), st.none() | wills, max_size=2)),
        )

    def drawn_message(self, data: st.DataObject) -> Message:
        topic, payload, retain = data.draw(st.sampled_from(TOPICS)), data.draw(payloads), data.draw(st.booleans())
        if data.draw(st.integers(0, 3)) == 0 and self.shared:  # a copy of another one
            payload = data.draw(st.sampled_from(self.shared)).payload
        return Message(topic, payload, 2, retain, None, data.draw(properties), data.draw(dates))

    def drawn_changes(self, data: st.DataObject, id: int, common: list[Message]) -> QueueChanges:
        draw = data.draw
        queue = self.queues.get(id, Queue())
        added: dict[int, Delivery] = {}
        for gap in draw(st.lists(st.sampled_from([0, 0, 0, 0, 1, 9]), max_size=7)):
            seq = queue.next + gap
            if draw(st.integers(0, 4)) and common:
                message = common[len(added) % len(common)]
            elif draw(st.integers(0, 4)) == 0:
                message = draw(st.sampled_from(self.shared))
            else:
                message = self.drawn_message(data)
            added[seq] = (message, draw(qos))
            queue.next = seq + 1
            queue.unsettled.add(seq)
        settled: list[int] = []
        if queue.unsettled:
            if draw(st.integers(0, 5)) == 0:
                settled = sorted(queue.unsettled, reverse=True)
            else:
                settled = draw(st.lists(st.sampled_from(sorted(queue.unsettled)), unique=True, max_size=8))
            queue.unsettled.difference_update(settled)
        released = draw(st.one_of(st.none(), few(st.integers(0, 1 << 40), unique=True).map(tuple)))
        return changes(id, added, settled, released)

    def drawn_retained(self, data: st.DataObject, topic: bytes) -> RetainedRecord | None:
        if data.draw(st.integers(0, 3)) == 0:
            return None
        return retained(
            topic,
            data.draw(payloads),
            data.draw(qos),
            data.draw(usernames),
            data.draw(st.text(max_size=3)),
            kept=data.draw(properties),
            expires=data.draw(dates),
        )


TestStoresAgree = pytest.mark.filterwarnings("default")(StoresAgree.TestCase)
StoresAgree.TestCase.settings = settings(
    max_examples=40, stateful_step_count=20, deadline=None, derandomize=True, report_multiple_bugs=False
)
