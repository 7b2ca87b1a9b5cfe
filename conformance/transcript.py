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
        self._events: list[Event] = []
        self._lock = threading.Lock()

    def add(self, who: str, direction: str, text: str, data: bytes = b"") -> None:
        """Records what happens now. `data` are the bytes, `text` is what they mean."""
        at = time.monotonic() - self.began
        with self._lock:
            self._events.append(Event(round(at, 6), who, direction, text, data[:KEPT_BYTES].hex(" "), len(data)))

    def events(self) -> list[Event]:
        with self._lock:
            return list(self._events)
