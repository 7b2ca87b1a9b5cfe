"""What clients wanted and may not, counted and told.

Owns: the lines of the log about it. Must not know: why it may not be.
"""

from __future__ import annotations

from .complaints import Complaints
from .session import Session
from .stats import Stats


class Denials:
    def __init__(self, complaints: Complaints, stats: Stats) -> None:
        self._complaints = complaints
        self._stats = stats

    def denied(self, event: str, peer: str, session: Session, topic: bytes) -> None:
        """The client at `peer` wanted what it may not."""
        self._stats.denied += 1
        client_id = session.client_id
        self._complaints.info(event, peer, client_id, topic, client=client_id, user=session.username, topic=topic)

    def refused(self, event: str, peer: str, session: Session, topic: bytes) -> None:
        """The client at `peer` wanted what is beyond a limit."""
        self._stats.denied += 1
        client_id = session.client_id
        self._complaints.warning(event, peer, client_id, client=client_id, user=session.username, topic=topic)
