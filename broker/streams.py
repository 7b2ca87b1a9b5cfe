"""Standard input, output and error of this program, which may be closed, full, or without a reader.

Owns: that to write there is never what ends the program. Must not know: what is written.
"""

import contextlib
import errno
import io
import os
import sys
from typing import TextIO


def open_missing() -> None:
    """Open the null device where one of the three is closed (`2>&-`, pythonw): else the next file or socket would get
    its number, and what is printed with it."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            with contextlib.suppress(OSError):
                os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            stream = open(os.devnull, mode, encoding="utf-8")  # noqa: SIM115  # as long as the program runs
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)


class Tolerant(io.RawIOBase):
    """Writes to a descriptor, and does not fail. `failure` is what stands in the way, if that is not only that nobody
    reads any more (as behind `| head`)."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self.failure: OSError | None = None

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def write(self, data: bytes, /) -> int:  # type: ignore[override]  # any buffer
        left = memoryview(data)
        try:
            while left:
                left = left[os.write(self._descriptor, left) :]
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EIO):
                self.failure = error
        return len(data)


def tolerate(stream: TextIO) -> tuple[TextIO, Tolerant]:
    """A stream in its place that does not fail, and what it stands on. (A console of Windows has a way of its own to
    write, and is always there.)"""
    with contextlib.suppress(OSError, ValueError):
        stream.flush()
    raw = Tolerant(stream.fileno())
    if sys.platform == "win32" and raw.isatty():
        return stream, raw
    text = io.TextIOWrapper(raw, stream.encoding, "backslashreplace", write_through=True)  # type: ignore[type-var]
    return text, raw
