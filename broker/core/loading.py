"""A queue that is in the store, of which memory holds a window: the half that deals with the store.

Owns: what is loaded from the store, and what the store is told. Must not know: how messages come in and go out
(stored_queue).

While the client is there, memory holds a window:

    settled | in flight | waiting, in memory | in the store only | next_seq
                        ^_sent_to            ^_loaded

While it is away, nothing is in memory but what the store does not have yet.
"""

from __future__ import annotations

from .lending import AWAITS_PUBCOMP, IDENTIFIERS
from .ports import Delivery, QueueChanges, QueuedMessage, SessionSnapshot
from .queue import AWAY, Queue, Shared
from .session import Session
from .waiting import Waiting


class Loading(Queue):
    """The lower half of a StoredQueue. It has attributes of its own:

    `session_id`: its session's key in the store. `size` is that of all its messages, here.
    """

    __slots__ = (
        "_added", "_count", "_early", "_fetching", "_journal", "_loaded", "_other_ids", "_quotas", "_refill_below",
        "_released", "_released_changed", "_repeat_to", "_sent_to", "_settled", "_stored_to", "_taken_to", "session_id",
    )  # fmt: skip

    def __init__(self, shared: Shared, session: Session) -> None:
        super().__init__(shared, session)
        self._journal = shared.journal
        self._quotas = shared.quotas
        self.session_id = session.store_id
        self._count = 0
        self._loaded = AWAY  # every place below is in memory, in flight or settled
        self._sent_to = 0  # behind the newest place that this process has sent
        self._repeat_to = 0  # places below may have been sent over an earlier connection: DUP
        self._fetching = False
        self._refill_below = shared.limits.max_memory_queue // 2  # so few waiting in memory: load more
        # Places that wait for PUBCOMP, in the order of their PUBRECs [MQTT-4.6.0-4].
        self._released: dict[int, None] = {}
        # Packet Identifiers of places whose own one was in flight.
        self._other_ids: dict[int, int] = {}
        # Places that were settled before they came into memory.
        self._early: set[int] = set()
        # What the journal has not taken yet:
        self._added: dict[int, Delivery] = {}
        self._settled: list[int] = []
        self._released_changed = False
        self._taken_to = 0
        self._stored_to = 0  # every place below is in the store, or settled

    @property
    def count(self) -> int:
        """Messages in the queue. After a start it may be a little more than there are."""
        return self._count

    def restore(self, stored: SessionSnapshot, sent_to: int | None) -> None:
        """Take over what the store knows of this queue after a start."""
        self.next_seq = self._stored_to = stored.next_seq
        self._count = stored.next_seq - stored.first_seq
        self.size = stored.queued_bytes
        self._sent_to = stored.first_seq
        # After a crash (None) any of them may have been sent: not a window only, but one behind what the client had
        # acknowledged, which may not have been stored. The newest places may be settled and forgotten: then they are
        # given again.
        self._repeat_to = self.next_seq if sent_to is None else min(sent_to, self.next_seq)
        self._released = dict.fromkeys(stored.released)

    def _id_of(self, seq: int) -> int:
        """The Packet Identifier of a place."""
        return self._other_ids.get(seq) or seq % IDENTIFIERS + 1

    def _fetch(self, start: int) -> None:
        limits = self._limits
        self._fetching = True
        # The first load should reach all that was in flight, as the client may acknowledge any of it.
        self._journal.fetch(self, start, max(limits.max_memory_queue, limits.max_inflight))

    def fetched(self, messages: list[QueuedMessage], upto: int) -> None:
        """The next messages have come from the store, which knew all places below `upto`. None: there were no more."""
        if not self._fetching:
            return  # the client left meanwhile
        self._fetching = False
        waiting = self._waiting
        if waiting is None:
            waiting = self._waiting = Waiting(self._shared.memory.queues)
        first_load = self._loaded == AWAY
        self._loaded = messages[-1][0] + 1 if messages else upto
        released = self._released
        if first_load:
            self._open = not self._congested
        for queued in messages:
            seq, message, _ = queued
            if seq in released:  # on its way already
                self._inflight[self._id_of(seq)] = (message.size, AWAITS_PUBCOMP, seq)
            elif seq in self._early:
                self._early.remove(seq)
                self.size -= message.size
            else:
                waiting.put(queued)
        if self._loaded == upto:
            # What has come since then is still at hand: go on from memory as far as it reaches.
            limit = self._limits.max_memory_queue
            while self._loaded < self.next_seq and len(waiting) < limit:
                message, qos = self._added[self._loaded]
                waiting.put((self._loaded, message, qos))
                self._loaded += 1
            if self._loaded == self.next_seq:
                # All is in memory: what was an estimate after a start can be told exactly.
                self._count = len(self._inflight) + len(waiting) - len(self.lent or ())
                self.size = sum(size for size, _, _ in self._inflight.values())
                self.size += sum(message.size for _, message, _ in waiting)
        # Large messages are loaded a few at a time: half of them shall be gone before more come.
        self._refill_below = min(len(waiting), self._limits.max_memory_queue) // 2
        self.pump()

    @property
    def fetching(self) -> bool:
        """Does it wait for messages from the store?"""
        return self._fetching

    @property
    def client_id(self) -> str:
        return self._session.client_id

    @property
    def changed(self) -> bool:
        return bool(self._added or self._settled or self._released_changed)

    def take_changes(self) -> QueueChanges:
        """Hand over what changed since the last time."""
        released = tuple(self._released) if self._released_changed else None
        changes = QueueChanges(self.session_id, self._added, self._settled, released)
        self._added = {}
        self._settled = []
        self._released_changed = False
        self._taken_to = self.next_seq
        return changes

    def stored(self) -> None:
        """What was handed over is stored."""
        self._stored_to = self._taken_to
        if self._waiting:
            self._pump_soon()
