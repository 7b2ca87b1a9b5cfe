"""What the persistent sessions may hold, all of them together, and how much of it each.

Owns: how many there are, by user and by the place they come from, and what one queue may take of a store that fills up.
Must not know: what a session is made of, what is stored.
"""

from __future__ import annotations

from .limits import Limits
from .looking_back import Counted
from .ports import Log

#: Parts of `max_store` that must be free again before the next time it is full is told.
RELIEF = 0.9


class Quotas:
    def __init__(self, limits: Limits, log: Log) -> None:
        self._limits = limits
        self._log = log
        self.sessions = 0
        self._by_user: dict[str, int] = {}
        self._by_origin: dict[str, int] = {}
        self._full = False
        self.queue_bytes = limits.max_queued_bytes  #: what may wait in one session

    # --- sessions ---

    def refusal(self, username: str | None, origin: str) -> str:
        """Why there is no room for one more session, "" if there is. `username`: if it was checked; `origin`: "" where
        many from one place are nothing special."""
        limits = self._limits
        if self.sessions >= limits.max_sessions:
            return "there are as many sessions as max_sessions allows"
        most = limits.max_sessions_per_user
        if most and username is not None and self._by_user.get(username, 0) >= most:
            return "this user has as many sessions as max_sessions_per_user allows"
        most = limits.max_sessions_per_address
        if most and origin and self._by_origin.get(origin, 0) >= most:
            return "this address has as many sessions as max_sessions_per_address allows"
        return "the store is full (max_store)" if self._full else ""

    def enter(self, session: Counted) -> None:
        """There is this session."""
        self.sessions += 1
        self._count(session, 1)

    def leave(self, session: Counted) -> None:
        """It has ended."""
        self.sessions -= 1
        self._count(session, -1)

    def rename(self, session: Counted, name: str | None) -> None:
        """It is another user's from now on."""
        if session.proven_name != name:
            self._count(session, -1)
            session.proven_name = name
            self._count(session, 1)

    def _count(self, session: Counted, change: int) -> None:
        for counts, key in ((self._by_user, session.proven_name), (self._by_origin, session.origin)):
            if key:
                left = counts.get(key, 0) + change
                if left:
                    counts[key] = left
                else:
                    del counts[key]

    # --- the store ---

    def weigh(self, stored: int) -> None:
        """So many bytes are stored: how many may wait in each session?

        One may take what it is allowed, until half of the room is taken; from then on each has the same part of all,
        so that who hoards leaves room for those who do not.
        """
        limits = self._limits
        room = limits.max_store
        if stored >= room:
            self.queue_bytes = -1
        elif stored * 2 <= room:
            self.queue_bytes = limits.max_queued_bytes
        else:
            self.queue_bytes = min(limits.max_queued_bytes, room // max(1, self.sessions))
        if stored >= room and not self._full:
            self._full = True
            self._log.error(
                "the store is full: messages for absent clients are dropped, and no new session is made",
                bytes=stored,
                max_store=room,
            )
        elif self._full and stored < room * RELIEF:
            self._full = False
            self._log.warning("the store has room again", bytes=stored)
