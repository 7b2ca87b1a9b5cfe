"""The messages of a shared subscription that no member has taken, or not acknowledged yet.

Owns: their places, which of them wait and which are in flight, what of it is in memory and what only in the store. Must
not know: the members, and who gets what.

A group in which somebody has a persistent session has its queue in the store, as such a session has; that of others is
in memory. While no member is there, nothing of a stored one is in memory but what the store does not have yet.
"""

from __future__ import annotations

from collections.abc import Callable

from ..wire.message import Message
from .looking_back import Publisher
from .ports import Delivery, QueueChanges, QueuedMessage, SessionSnapshot
from .queue import AWAY, DELIVERY, MAX_MEMORY, Shared, has_caught_up, may_wait
from .waiting import Waiting, hold, let_go


class GroupQueue:
    """It stands in the journal as the queue of a session does (looking_back.Stored)."""

    __slots__ = (
        "_added", "_dropped", "_early", "_fetching", "_flying", "_loaded", "_pump", "_settled", "_shared", "_stale",
        "client_id", "count", "fills_up", "next_seq", "session_id", "size", "waiting",
    )  # fmt: skip

    def __init__(self, shared: Shared, name: str, pump: Callable[[], None]) -> None:
        """`pump` is called when messages have come from the store."""
        self._shared = shared
        self._pump = pump
        self.client_id = name  #: for the log
        self.session_id = 0  #: its key in the store; 0: it is in memory
        self.next_seq = 0  #: the next place
        self.count = 0  #: messages that wait or are in flight; after a start it may be a little more than there are
        self.size = 0  #: bytes of them
        self.waiting = Waiting(shared.memory.queues)
        self._flying: dict[int, tuple[Message, int]] = {}  # in flight, by place
        self._loaded = 0  # every place below is in memory, or settled
        self._fetching = False
        self._stale = False  # is what was asked for of no use any more?
        self._early: set[int] = set()  # settled since a fetch was asked for, whose answer may still hold them
        self._dropped = 0  # messages that did not fit, since it was last told
        self.fills_up = False  #: does it hold publishers back?
        # What the journal has not taken yet:
        self._added: dict[int, Delivery] = {}
        self._settled: list[int] = []

    # --- into the store ---

    def store_as(self, session_id: int) -> None:
        """From now on it is stored."""
        self.session_id = session_id
        for seq, message, qos in self.waiting:
            self._added[seq] = message, qos
        for seq, delivery in self._flying.items():
            self._added[seq] = delivery
        self._added = dict(sorted(self._added.items()))
        if self._added:
            self._shared.journal.touched.add(self)

    def restore(self, stored: SessionSnapshot) -> None:
        """Take over what the store knows of it after a start."""
        self.session_id = stored.record.id
        self.next_seq = stored.next_seq
        self.count = stored.next_seq - stored.first_seq
        self.size = stored.queued_bytes
        self._loaded = AWAY

    # --- messages come in ---

    @property
    def idle(self) -> bool:
        """Does nothing wait that should go out before what comes now?"""
        return not self.waiting and self._loaded == self.next_seq

    def has_place(self, message: Message) -> bool:
        """May it be put into the queue? If not, that is counted and told."""
        if self.session_id:
            shared = self._shared
            full = self.count >= shared.limits.max_queued_messages
            if not full and self.size + message.size <= shared.quotas.queue_bytes:
                return True
        elif may_wait(self._shared, self, message.size, self.waiting, True):
            return True
        self._drop()
        return False

    def _drop(self) -> None:
        self._shared.stats.dropped += 1
        if not self._dropped:
            self._shared.complaints.warning(
                "queue full: messages for this shared subscription are dropped",
                "",
                self.client_id,
                group=self.client_id,
                queued=self.count,
                bytes=self.size,
            )
        self._dropped += 1

    def put(self, message: Message, qos: int) -> None:
        """It waits."""
        limits = self._shared.limits
        seq = self._place(message, qos)
        waiting = self.waiting
        if self._loaded != seq:
            return  # it has its turn after what is in the store already
        if self.session_id and waiting:
            full = self.size >= MAX_MEMORY or self._shared.memory.queues.full(message.size)
            if full or len(waiting) >= limits.max_memory_queue:
                return
        waiting.put((seq, message, qos))
        self._loaded = seq + 1

    def send(self, message: Message, qos: int) -> int:
        """It goes to a member at once, and waits for its acknowledgement: its place. Only if the queue is `idle`."""
        seq = self._place(message, qos)
        self._loaded = seq + 1
        self._fly(seq, message, qos)
        if self.session_id:
            self._shared.journal.hopeful = True
        return seq

    def _place(self, message: Message, qos: int) -> int:
        seq = self.next_seq
        self.next_seq = seq + 1
        self.count += 1
        self.size += message.size
        if self.session_id:
            shared = self._shared
            turn = shared.turn
            delivery = turn.delivery
            if delivery[0] is not message or delivery[1] != qos:
                delivery = turn.delivery = message, qos  # one for all queues
            self._added[seq] = delivery
            shared.journal.touched.add(self)
            shared.journal.gathered += message.size + DELIVERY
        return seq

    # --- messages go out ---

    def take(self) -> int:
        """The first that waits is in flight from now on: its place."""
        seq, message, qos = self.waiting.take()
        self._fly(seq, message, qos)
        return seq

    def _fly(self, seq: int, message: Message, qos: int) -> None:
        # What is in flight is counted as what waits is.
        self._flying[seq] = message, qos
        hold(self._shared.memory.queues, message)

    def _land(self, seq: int) -> tuple[Message, int]:
        message, qos = self._flying.pop(seq)
        let_go(self._shared.memory.queues, message)
        return message, qos

    def done(self, seq: int) -> None:
        """The message in flight from this place is settled."""
        message, _ = self._land(seq)
        self.count -= 1
        self.size -= message.size
        if self._fetching:
            self._early.add(seq)
        if self.session_id and self._added.pop(seq, None) is None:
            self._settled.append(seq)
            self._shared.journal.touched.add(self)
        if self.fills_up:
            self._catch_up()
        if self._dropped and self.idle:
            name = self.client_id
            self._shared.complaints.warning("queue empty again", "", name, group=name, dropped=self._dropped)
            self._dropped = 0

    def back(self, seq: int) -> None:
        """The message in flight from this place waits again: before all others."""
        message, qos = self._land(seq)
        if self._loaded != AWAY:  # else it is among what comes from the store
            self.waiting.put_back((seq, message, qos))

    def _catch_up(self) -> None:
        if has_caught_up(self._shared.limits, self.size, self.waiting):
            self.fills_up = False
            self._shared.pressure.caught_up(self)

    # --- members come and go ---

    def load(self) -> None:
        """A member is there, or little is left in memory."""
        if self._loaded == self.next_seq or self._fetching:
            return
        if not self.count:
            self._loaded = self.next_seq
            return
        limits = self._shared.limits
        if self._loaded == AWAY or len(self.waiting) <= limits.max_memory_queue // 2:
            self._fetching = True
            self._shared.journal.fetch(self, max(0, self._loaded), limits.max_memory_queue)

    def unload(self) -> None:
        """No member is there: keep nothing in memory that is in the store."""
        if not self.session_id or self._loaded == AWAY:
            return
        self._stale = self._fetching
        self.waiting.clear()
        self._loaded = AWAY

    def discard(self) -> None:
        """The group has ended."""
        self.waiting.clear()
        for seq in list(self._flying):
            self._land(seq)
        self._fetching = False
        shared = self._shared
        shared.pressure.caught_up(self)
        if self.session_id:
            shared.journal.forget_fetch(self)
            shared.journal.touched.discard(self)
            shared.journal.forget_session(self.session_id)

    # --- looking_back.Filling ---

    @property
    def progress(self) -> object:
        return self.next_seq - self.count

    @property
    def owner(self) -> Publisher | None:
        return None

    # --- looking_back.Stored ---

    @property
    def changed(self) -> bool:
        return bool(self._added or self._settled)

    @property
    def fetching(self) -> bool:
        return self._fetching

    def take_changes(self) -> QueueChanges:
        changes = QueueChanges(self.session_id, self._added, self._settled, None)
        self._added = {}
        self._settled = []
        return changes

    def stored(self) -> None: ...

    def fetched(self, messages: list[QueuedMessage], upto: int) -> None:
        self._fetching = False
        if self._stale:
            # All members have left since it was asked for. Is there one again?
            self._stale = False
            self._early.clear()
            self._pump()
            return
        self._loaded = messages[-1][0] + 1 if messages else upto
        waiting = self.waiting
        for queued in messages:
            if queued[0] not in self._flying and queued[0] not in self._early:
                waiting.put(queued)
        self._early.clear()
        if self._loaded == upto:
            # What has come since then is still at hand: go on from memory as far as it reaches.
            limit = self._shared.limits.max_memory_queue
            while self._loaded < self.next_seq and len(waiting) < limit:
                delivery = self._added.get(self._loaded)
                if delivery is not None:
                    waiting.put((self._loaded, *delivery))
                self._loaded += 1
            if self._loaded == self.next_seq:
                # All is in memory: what was an estimate after a start can be told exactly.
                self.count = len(self._flying) + len(waiting)
                self.size = sum(message.size for message, _ in self._flying.values())
                self.size += sum(message.size for _, message, _ in waiting)
        self._pump()
