"""What is published to be retained: whether there is room for it, and what the store must know.

Owns: the limits of retained messages. Must not know: how they are kept in memory (retained), who gets them.
"""

from __future__ import annotations

from ..wire.message import Message
from .authors import NOBODY, Author
from .complaints import Complaints
from .journal import Journal
from .limits import Limits
from .memory import Memory
from .ports import RetainedRecord
from .retained import MESSAGE, Retained
from .session import Session
from .stats import Stats


class Retaining:
    def __init__(
        self,
        retained: Retained,
        limits: Limits,
        memory: Memory,
        journal: Journal,
        complaints: Complaints,
        stats: Stats,
    ) -> None:
        self._retained = retained
        self._limits = limits
        self._memory = memory
        self._journal = journal
        self._complaints = complaints
        self._stats = stats

    def retain(self, message: Message, author: Session | None) -> bool:
        """Keep the message for later subscribers [MQTT-3.3.1-5]. True if the store has to know."""
        retained = self._retained
        topic, payload = message.topic, message.payload
        if author is not None and not self._limits.retain_available:
            event = "nothing is retained here (retain_available): this message is delivered, but not kept"
            self._complaints.warning(event, "", author.client_id, client=author.client_id, topic=topic)
            return False
        # The broker's own topics are made anew after a start, also by the bridges that tell their state.
        stored = author is not None and not topic.startswith(b"$SYS/")
        if not payload:
            if retained.remove(topic) and stored:  # [MQTT-3.3.1-10] [MQTT-3.3.1-11]
                self._journal.retain(topic, None)
            return stored  # where there is none, its removal may still wait to be stored
        old = retained.get(topic)
        by = Author(author.proven_name, author.client_id, author.listener) if author is not None else NOBODY
        if author is not None and self._full(message, old, by):
            if old is None:
                return False
            retained.remove(topic)  # an old value would be wrong from now on
            if stored:
                self._journal.retain(topic, None)
            return stored
        kept = Message(topic, payload, message.qos, True, None, message.kept, message.expires)
        record = retained.set(RetainedRecord(kept, *by))
        if stored:
            self._journal.retain(topic, record)
        return stored

    def _full(self, message: Message, old: RetainedRecord | None, by: Author) -> bool:
        """Is there no room for this message in place of the old one? Counted and told."""
        retained = self._retained
        limits = self._limits
        added = message.size - (old.message.size if old is not None else 0) + retained.authors.cost(by)
        memory = self._memory.retained
        memory.size = retained.held
        full = (
            (old is None and retained.count >= limits.max_retained)
            or retained.memory + added > limits.max_retained_bytes
            or memory.full(added + (MESSAGE if old is None else 0))
        )
        if full:
            self._stats.dropped += 1
            self._complaints.warning(
                "no room for more retained messages: this one is delivered, but not kept",
                "",
                topic=message.topic,
                retained=retained.count,
                bytes=retained.size,
            )
        return full
