"""A store that forgets everything when the process ends: for tests, and for `--memory`.

Owns: the queues of sessions that are away. Must not know: who asks, or on which thread.
"""

from collections.abc import Mapping

from ..core.ports import (
    Batch,
    ClockRecord,
    Delivery,
    QueuedMessage,
    RetainedRecord,
    SessionRecord,
    SessionSnapshot,
    Snapshot,
    WillRecord,
)
from ..wire.message import Message

#: Bytes of memory that a message or a will takes besides its own.
PLACE = 200


class MemoryStore:
    """Implements core.ports.Store in dicts."""

    def __init__(self) -> None:
        self._sessions: dict[int, SessionRecord] = {}
        self._subscriptions: dict[int, dict[bytes, int]] = {}
        self._received: dict[int, dict[int, int]] = {}
        self._released: dict[int, tuple[int, ...]] = {}
        self._queues: dict[int, dict[int, Delivery]] = {}
        self._retained: dict[bytes, RetainedRecord] = {}
        self._clock: ClockRecord | None = None
        self._wills: dict[int, WillRecord] = {}
        self._held: dict[Message, int] = {}  # in how many queues
        self.size = 0

    def load(self) -> Snapshot:
        sessions = [self._snapshot(record) for record in self._sessions.values()]
        return Snapshot(sessions, list(self._retained.values()), self._clock, dict(self._wills))

    def _snapshot(self, record: SessionRecord) -> SessionSnapshot:
        queue = self._queues.get(record.id) or {}
        return SessionSnapshot(
            record,
            dict(self._subscriptions.get(record.id, {})),
            dict(self._received.get(record.id, {})),
            self._released.get(record.id, ()),
            min(queue, default=0),
            max(queue, default=-1) + 1,
            sum(message.size for message, _ in queue.values()),
        )

    def commit(self, batch: Batch) -> None:
        self._sessions.update(batch.sessions)
        for (session, topic_filter), options in batch.subscriptions.items():
            held = self._subscriptions.setdefault(session, {})
            if options is None:
                held.pop(topic_filter, None)
            else:
                held[topic_filter] = options
        for session, masks in batch.received.items():
            kept = self._received.setdefault(session, {})
            for bucket, mask in masks.items():
                if mask:
                    kept[bucket] = mask
                else:
                    kept.pop(bucket, None)
        for changes in batch.queues:
            queue = self._queues.setdefault(changes.session, {})
            for seq, delivery in changes.added.items():
                queue[seq] = delivery
                self._hold(delivery[0])
            for seq in changes.settled:
                if seq in queue:
                    self._let_go(queue.pop(seq)[0])
            if changes.released is not None:
                self._released[changes.session] = changes.released
        for topic, record in batch.retained.items():
            old = self._retained.pop(topic, None)
            if old is not None:
                self._let_go(old.message)
            if record is not None:
                self._retained[topic] = record
                self._hold(record.message)
        self._clock = batch.clock or self._clock
        self._change_wills(batch.wills)
        for session in batch.forgotten:
            for message, _ in self._queues.get(session, {}).values():
                self._let_go(message)
            for table in (self._sessions, self._subscriptions, self._received, self._released, self._queues):
                table.pop(session, None)

    def _change_wills(self, wills: Mapping[int, WillRecord | None]) -> None:
        for id, will in wills.items():
            old = self._wills.pop(id, None)
            if old is not None:
                self.size -= _size(old)
            if will is not None:
                self._wills[id] = will
                self.size += _size(will)

    def _hold(self, message: Message) -> None:
        held = self._held.get(message, 0)
        self._held[message] = held + 1
        self.size += PLACE if held else PLACE + message.size

    def _let_go(self, message: Message) -> None:
        held = self._held[message] - 1
        self.size -= PLACE
        if held:
            self._held[message] = held
        else:
            del self._held[message]
            self.size -= message.size

    def fetch(self, session: int, start: int, count: int, size: int) -> list[QueuedMessage]:
        queue = self._queues.get(session) or {}
        found: list[QueuedMessage] = []
        # Places are added in their order, so that they stand in it.
        for seq, (message, qos) in queue.items():
            if seq < start:
                continue
            if found and (len(found) >= count or size <= 0):
                break
            found.append((seq, message, qos))
            size -= message.size
        return found

    def tidy(self) -> bool:
        return False

    def close(self) -> None:
        """Nothing to free."""


def _size(will: WillRecord) -> int:
    return PLACE + len(will.topic) + len(will.payload) + len(will.kept)
