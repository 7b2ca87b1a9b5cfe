"""Writes the log in a thread of its own, so that nobody who logs waits for who reads.

Owns: the queue in between, what is dropped when it is full, and that this is told. Must not know: which events there
are, how a line looks.

A pipe that nobody reads, or a terminal that is halted, stops who writes to it. Here that is one thread. What comes
meanwhile waits, up to a limit; what comes then is dropped, and counted. The number of lines dropped stands in the log
where they would.
"""

import contextlib
import logging
import os
import select
import threading
from collections.abc import Callable
from typing import TextIO

#: Lines that may wait, and their size.
MAX_LINES = 10_000
MAX_SIZE = 4 << 20
#: Bytes written at a time.
PIECE = 65_536
#: Seconds that the end of the program may wait for who reads.
LAST = 2.0


class LogThread(logging.Handler):
    """A handler that only puts lines into the queue."""

    def __init__(self, write: Callable[[str], None], warning: Callable[..., logging.LogRecord]) -> None:
        """`write` may take any time, and raise OSError or ValueError where it cannot; `warning` makes a record of an
        event and its fields."""
        super().__init__()
        self._write = write
        self._warning = warning
        self._changed = threading.Condition()
        self._lines: list[str] = []
        self._size = 0
        self._dropped = 0  # since the last of the lines
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="selectmq-log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = "" if self._is_full else self.format(record) + "\n"  # what is dropped should cost little
        except Exception:
            self.handleError(record)
            return
        with self._changed:
            if not line or self._is_full:
                self._dropped += 1
                return
            self._lines.append(line)
            self._size += len(line)
            if len(self._lines) == 1:
                self._changed.notify()

    @property
    def _is_full(self) -> bool:
        return len(self._lines) >= MAX_LINES or self._size >= MAX_SIZE or self._ended

    def close(self) -> None:
        """Write what waits, as far as somebody takes it soon."""
        with self._changed:
            before, self._ended = self._ended, True
            self._changed.notify()
        if not before:
            self._thread.join(LAST)
        super().close()

    def _run(self) -> None:
        unwritten = 0
        while True:
            with self._changed:
                while not self._lines and not self._dropped:
                    if self._ended:
                        return
                    self._changed.wait()
                lines, self._lines, self._size = self._lines, [], 0
                dropped, self._dropped = self._dropped, 0
            text = "".join(lines)
            if unwritten:
                text = self._note("lines of the log could not be written", unwritten) + text
            if dropped:
                text += self._note("lines of the log were dropped: nobody reads it fast enough", dropped)
            try:
                self._write(text)
            except (OSError, ValueError):  # a pipe without a reader, a full disk, a stream that was closed
                unwritten += len(lines) + dropped
            else:
                unwritten = 0

    def _note(self, event: str, lines: int) -> str:
        return self.format(self._warning(event, lines=lines)) + "\n"


def writer(stream: TextIO | None) -> Callable[[str], None]:
    """A function that writes to this stream, whether it waits for its reader or not."""
    if stream is None:
        return lambda text: None
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError, AttributeError):  # a stream in memory

        def write(text: str) -> None:
            stream.write(text)
            stream.flush()

        return write
    encoding = getattr(stream, "encoding", None) or "utf-8"

    def write_all(text: str) -> None:
        # Not through the stream: its lock would be held while this waits, and whoever wants it at the end of the
        # program would wait too.
        data = memoryview(text.encode(encoding, "backslashreplace"))
        while data:
            try:
                data = data[os.write(descriptor, data[:PIECE]) :]
            except BlockingIOError:  # whoever started us has set it so
                with contextlib.suppress(ValueError):
                    select.select((), (descriptor,), (), 1.0)

    return write_all
