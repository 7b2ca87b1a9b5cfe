"""What went over the wire in one test, in the order in which it happened, for people to read.

Owns: `Event`, `Transcript`. Must not know: sockets, tests, reports.
"""

import threading
import time
from dataclasses import dataclass

SENT = "->"
RECEIVED = "<-"
HAPPENED = "--"

#: How many bytes of an event are kept; its `size` is always the whole.
KEPT_BYTES = 96


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened. `at` is in seconds since the test began; `who` is the client's name in the test."""

    at: float
    who: str
    direction: str
    text: str
    data: str = ""  # hexadecimal, as far as it was kept
    size: int = 0


class Transcript:
    """The events of all clients of one test. Safe to use from several threads."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        # Most are never read: what they become for people is made when they are.
        self._kept: list[tuple[float, str, str, str, bytes, int]] = []
        self._lock = threading.Lock()

    def add(self, who: str, direction: str, text: str, data: bytes = b"") -> None:
        """Records what happens now. `data` are the bytes, `text` is what they mean."""
        with self._lock:
            at = time.monotonic() - self.began
            self._kept.append((at, who, direction, text, data[:KEPT_BYTES], len(data)))

    def events(self) -> list[Event]:
        with self._lock:
            kept = list(self._kept)
        return [
            Event(round(at, 6), who, direction, text, data.hex(" "), size)
            for at, who, direction, text, data, size in kept
        ]
