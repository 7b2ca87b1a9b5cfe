"""What must be stored, and who waits for it: the group commit.

Owns: the changes of this turn that the store must have, and the acknowledgements that promise them. Must not know: how
the store keeps them, or what an acknowledgement looks like.

While one batch is being committed on the store's lane, the next gathers. It gathers final states, not events: what
was queued and acknowledged within one gathering is never written, because its promise is met already.

When a commit fails, the batch is kept and tried again; until it succeeds, nobody who waits is answered.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

from .looking_back import Stored
from .ports import (
    Batch,
    ClockRecord,
    Lane,
    Log,
    QueuedMessage,
    RetainedRecord,
    SessionRecord,
    Store,
    StoreError,
    WillRecord,
)
from .session import Session
from .timers import Timers

#: Bytes that may gather before whoever adds to them is made to wait.
MAX_GATHERED = 8 << 20
#: Bytes of memory that a record takes besides its texts; and one that is but a number.
RECORD = 400
_SMALL = 100
#: Seconds that a batch waits when clients have been sent its messages and may acknowledge them before they are written.
PATIENCE = 0.001
#: Seconds between two attempts of a commit that failed.
RETRY = 1.0
#: Sessions whose messages are loaded within one job, so that acknowledgements do not wait for long.
MAX_FETCHES = 32
#: Bytes of messages loaded for a session at a time.
FETCH_SIZE = 1 << 20


class Journal:
    """Gathers changes, hands them to the store, and lets go of who waits.

    `touched` holds the queues that have changes of their own (they keep them, as that is cheaper per message).
    """

    def __init__(self, store: Store, lane: Lane, timers: Timers, log: Log) -> None:
        self._store = store
        self._lane = lane
        self._timers = timers
        self._log = log
        self.touched: set[Stored] = set()
        self.gathered = 0  #: bytes of memory that it takes, roughly
        self.hopeful = False  #: may some of it be acknowledged soon, and need no writing then?
        self._due: float | None = None  # when it is written at the latest all the same
        self.failed = False  #: did the last commit fail?
        self.commits = 0
        self.stored = store.size  #: bytes that the store holds
        self._waiting: list[Any] = []  # what to call, with what, and so on: a pair for each would be far more objects
        self._clear()
        self._fetches: dict[Stored, tuple[int, int]] = {}
        self._unreadable: dict[Stored, tuple[int, int]] = {}  # fetches that failed, to be tried again
        self._told: set[int] = set()  # sessions of which the log says that their messages cannot be read
        self._busy: list[Any] | None = None  # who waits for the commit under way
        self._paused: list[Callable[[], None]] = []

    def _clear(self) -> None:
        self._forgotten: list[int] = []
        self._sessions: dict[int, SessionRecord] = {}
        self._subscriptions: dict[tuple[int, bytes], int | None] = {}
        self._received: set[Session] = set()
        self._retained: dict[bytes, RetainedRecord | None] = {}
        self._clock: ClockRecord | None = None
        self._wills: dict[int, WillRecord | None] = {}

    # --- what must be stored ---

    def save_session(self, record: SessionRecord) -> None:
        self._sessions[record.id] = record
        self.gathered += RECORD

    def forget_session(self, session: int) -> None:
        """Remove all that is stored of a session."""
        self._forgotten.append(session)
        self.gathered += _SMALL
        self._sessions.pop(session, None)

    def subscription(self, session: int, topic_filter: bytes, options: int | None) -> None:
        """Entered with these options, or removed (None)."""
        self._subscriptions[session, topic_filter] = options
        self.gathered += RECORD + len(topic_filter)

    def received(self, session: Session) -> None:
        """The identifiers of QoS 2 messages that the session holds have changed."""
        self._received.add(session)
        self.gathered += _SMALL

    def retain(self, topic: bytes, record: RetainedRecord | None) -> None:
        self._retained[topic] = record
        self.gathered += RECORD + (len(topic) if record is None else record.message.size)

    def save_will(self, id: int, record: WillRecord) -> None:
        """`id`: one that no other will has or had."""
        self._wills[id] = record
        self.gathered += RECORD + len(record.topic) + len(record.payload) + len(record.kept)

    def forget_will(self, id: int) -> None:
        """It has been published, or will not be: where a message follows from it, that is stored in the same commit."""
        self._wills[id] = None
        self.gathered += _SMALL

    def save_clock(self, record: ClockRecord) -> None:
        """Before any date that is not of the run before."""
        self._clock = record

    # --- who waits ---

    def when_stored(self, act: Callable[[Any], None], argument: Any) -> None:
        """Call `act(argument)` when all that was told up to now is stored. Calls come in the order asked for."""
        self._waiting += act, argument

    def fetch(self, queue: Stored, start: int, count: int) -> None:
        """Load messages of a queue from place `start` on, and hand them to `queue.fetched`."""
        self._fetches[queue] = start, count

    def forget_fetch(self, queue: Stored) -> None:
        """The client has left: when it is back, it begins with what it has not acknowledged."""
        self._fetches.pop(queue, None)
        self._unreadable.pop(queue, None)

    @property
    def full(self) -> bool:
        """Has so much gathered that whoever adds to it should wait?"""
        return self.gathered > MAX_GATHERED

    def when_room(self, act: Callable[[], None]) -> None:
        """Call `act` when what has gathered is on its way to the store."""
        self._paused.append(act)

    @property
    def idle(self) -> bool:
        """Is everything stored, and nobody waits?"""
        return self._busy is None and not self._pending

    # --- the commit ---

    def end_of_turn(self) -> None:
        """Start a commit if there is something to store and none is under way."""
        if self._busy is not None or not self._pending:
            return
        queues = [queue for queue in self.touched if queue.changed]
        nothing = not (queues or self._fetches or self._has_records)
        if self.hopeful and not nothing and self._wait():
            return
        waiting = self._waiting
        self._waiting = []
        self.touched = set()
        self.gathered = 0
        self.hopeful = False
        self._due = None
        if nothing:
            # Every promise was met before it had to be written.
            _call_all(waiting)
            self._resume()
            return
        batch = Batch(
            self._forgotten,
            self._sessions,
            self._subscriptions,
            {
                session.store_id: session.received.take_changes()
                for session in self._received
                if session.received is not None
            },
            [queue.take_changes() for queue in queues],
            self._retained,
            self._clock,
            self._wills,
        )
        wanted = list(itertools.islice(self._fetches, MAX_FETCHES))
        fetches = [(queue, *self._fetches.pop(queue), queue.next_seq) for queue in wanted]
        self._clear()
        self._busy = waiting
        self._submit(batch, queues, fetches)
        self._resume()

    def _wait(self) -> bool:
        """Give the clients a moment to acknowledge what they were sent? Once, and not when much has gathered."""
        now = self._timers.now
        if self._due is None:
            self._due = now + PATIENCE
            self._timers.at(self._due, lambda now: None)  # ends the loop's sleep
        return now < self._due and not self.full

    def _resume(self) -> None:
        paused, self._paused = self._paused, []
        for resume in paused:
            resume()

    @property
    def _pending(self) -> bool:
        return bool(self._waiting or self.touched or self._fetches or self._has_records)

    @property
    def _has_records(self) -> bool:
        return bool(
            self._received
            or self._retained
            or self._sessions
            or self._subscriptions
            or self._forgotten
            or self._clock is not None
            or self._wills
        )

    def _submit(self, batch: Batch, queues: list[Stored], fetches: list[tuple[Stored, int, int, int]]) -> None:
        wanted = [(queue.session_id, start, count) for queue, start, count, _ in fetches]
        job = _Job(self._store, batch, wanted, self.stored)
        self._lane.submit(job.run, partial(self._done, job, queues, fetches))

    def _done(
        self,
        job: _Job,
        queues: list[Stored],
        fetches: list[tuple[Stored, int, int, int]],
        result: object,
        error: Exception | None,
    ) -> None:
        if error is not None:
            if not isinstance(error, StoreError) and not self.failed:
                self._log.error("bug: the store failed in an unexpected way", error=repr(error))
            if not self.failed:
                self._log.error(
                    "the store failed: nothing that depends on it is acknowledged until it works again",
                    reason=str(error),
                )
            self.failed = True

            def retry(now: float) -> None:
                # Before anything that has gathered since.
                self._lane.submit(job.run, partial(self._done, job, queues, fetches))

            self._timers.after(RETRY, retry)
            return
        if self.failed:
            self.failed = False
            self._log.warning("the store works again: what had to wait is stored and acknowledged")
        self.commits += 1
        self.stored = job.size
        self._finish(queues, fetches, result)

    def _finish(self, queues: list[Stored], fetches: list[tuple[Stored, int, int, int]], result: Any) -> None:
        waiting = self._busy
        self._busy = None
        for queue in queues:
            queue.stored()
        _call_all(waiting or [])
        for (queue, start, count, upto), messages in zip(fetches, result, strict=True):
            if not isinstance(messages, StoreError):
                self._told.discard(queue.session_id)
                queue.fetched(messages, upto)
            elif queue.fetching:
                self._try_again(queue, start, count, messages)

    def _try_again(self, queue: Stored, start: int, count: int, error: StoreError) -> None:
        if queue.session_id not in self._told:
            self._told.add(queue.session_id)
            self._log.error(
                "stored messages cannot be read: their client gets no more until they can",
                client=queue.client_id,
                reason=str(error),
            )
        self._unreadable[queue] = start, count

        def again(now: float) -> None:
            place = self._unreadable.pop(queue, None)
            if place is not None:
                self._fetches[queue] = place

        self._timers.after(RETRY, again)


class _Job:
    """What the store's lane does for one commit."""

    def __init__(self, store: Store, batch: Batch, wanted: list[tuple[int, int, int]], size: int) -> None:
        self._store = store
        self._batch = batch
        self._wanted = wanted
        self._stored = not any(batch)
        self.size = size  #: bytes that the store holds afterwards

    def run(self) -> list[list[QueuedMessage] | StoreError]:
        if not self._stored:
            self._store.commit(self._batch)
            self._stored = True  # whatever becomes of the rest: it must not be written twice
            self.size = self._store.size
        return [self._fetch(*place) for place in self._wanted]

    def _fetch(self, session: int, start: int, count: int) -> list[QueuedMessage] | StoreError:
        try:
            return self._store.fetch(session, start, count, FETCH_SIZE)
        except StoreError as error:
            # What was committed is stored all the same, and the other queues can be read. A new error: with its frames,
            # the one that was raised would keep alive what was open, and a store that is closed would not be free.
            return StoreError(str(error))


def _call_all(waiting: list[Any]) -> None:
    each = iter(waiting)
    for act, argument in zip(each, each, strict=True):
        act(argument)
