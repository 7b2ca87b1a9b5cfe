"""The messages of one session that wait in memory.

Owns: their order, and that what they hold is counted (core.memory): a message that waits in many queues counts once,
its place in each of them. Must not know: why they wait.
"""

from __future__ import annotations

from collections import deque

from ..wire.message import Message
from .memory import Part
from .ports import QueuedMessage

#: Bytes that a place takes, and a message beside its topic and payload: measured in CPython 3.11.
PLACE = 100
MESSAGE = 300


def hold(part: Part, message: Message) -> None:
    """The message has one more place."""
    part.size += PLACE if message.holders else PLACE + MESSAGE + message.size
    message.holders += 1


def let_go(part: Part, message: Message) -> None:
    """It has one less."""
    message.holders -= 1
    part.size -= PLACE if message.holders else PLACE + MESSAGE + message.size


class Waiting(deque[QueuedMessage]):
    """Use `put`, `put_back`, `take` and `clear`, and nothing else that changes a deque."""

    __slots__ = ("_part",)

    def __init__(self, part: Part) -> None:
        super().__init__()
        self._part = part

    def put(self, queued: QueuedMessage) -> None:
        self.append(queued)
        hold(self._part, queued[1])

    def put_back(self, queued: QueuedMessage) -> None:
        """In front of all others."""
        self.appendleft(queued)
        hold(self._part, queued[1])

    def take(self) -> QueuedMessage:
        queued = self.popleft()
        let_go(self._part, queued[1])
        return queued

    def clear(self) -> None:
        while self:
            self.take()
