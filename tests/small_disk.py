"""Disks that are full when a test wants it.

Owns: the ways to make one: a small file system where this process may mount one, and a limit on the size of files,
which works everywhere on Linux. Must not know: what is written there.
"""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def small_disk(size: int) -> Iterator[Path]:
    """A file system of `size` bytes, as root. Raises CalledProcessError where that is not possible."""
    with tempfile.TemporaryDirectory() as directory:
        options = f"size={size},mode=700"
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", directory], check=True, stderr=subprocess.DEVNULL
        )
        try:
            yield Path(directory)
        finally:
            # Lazily, should a test have left a process there: what has it open ends with it.
            subprocess.run(["umount", "-l", directory], check=True)


def can_mount() -> bool:
    """May this process mount a file system?"""
    if os.geteuid() != 0:
        return False
    with contextlib.suppress(OSError, subprocess.CalledProcessError), small_disk(1 << 16):
        return True
    return False


def fill(directory: Path) -> Path:
    """Leave no byte free on the disk; the file to remove to make room."""
    path = directory / "filler"
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0" * 4096)
    return path


@contextlib.contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """No file that this process writes may grow beyond `size` bytes; the error is EFBIG, as Python ignores SIGXFSZ."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def limit_file_size(process: int, size: int | None) -> None:
    """The same for another process, by its id, until it is lifted by None."""
    _, hard = resource.prlimit(process, resource.RLIMIT_FSIZE)
    resource.prlimit(process, resource.RLIMIT_FSIZE, (hard if size is None else size, hard))
