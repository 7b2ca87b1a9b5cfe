"""By which rule a shared subscription chooses among its members.

Owns: the names of the rules, and whom each prefers. Must not know: whether a member has room for a message, what
happens to one that nobody takes.

A rule says whom it would have; if that member is away or has no room, it is passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

ROUND_ROBIN, STICKY, HASH_TOPIC, HASH_PUBLISHER, LEAST_QUEUED = STRATEGIES = (
    "round-robin", "sticky", "hash-topic", "hash-publisher", "least-queued",
)  # fmt: skip

#: Members that are looked at for the one with the fewest messages.
COMPARED = 16


class Member(Protocol):
    @property
    def queued(self) -> int:
        """Messages that it has not acknowledged."""


M = TypeVar("M", bound=Member)


def least_queued(ready: Sequence[M], at: int, accepts: Callable[[M], bool]) -> M | None:
    """The one with the fewest messages, of some that are ready, from this place on."""
    count = len(ready)
    best: M | None = None
    for step in range(min(COMPARED, count)):
        member = ready[(at + step) % count]
        if (best is None or member.queued < best.queued) and accepts(member):
            best = member
    return best
