"""How much memory there is for this process.

Owns: where a system says so. Must not know: what it is used for.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

#: What is supposed where the system does not tell.
UNKNOWN = 1 << 30

#: Version 1 of cgroups says so if there is no limit, and version 2 "max".
_NO_LIMIT = 1 << 60


def memory(root: str = "/") -> int:
    """Bytes of memory that this process may use: the machine's, or less if its cgroup or a resource limit (ulimit -v)
    says so."""
    found = [size for size in (_physical(), _cgroup(Path(root)), _address_space()) if size]
    return min(found, default=UNKNOWN)


def _physical() -> int | None:
    if sys.platform == "win32":
        return _windows()
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return None


def _windows() -> int | None:
    class Status(ctypes.Structure):
        _fields_ = (
            ("length", ctypes.c_ulong),
            ("load", ctypes.c_ulong),
            *((name, ctypes.c_ulonglong) for name in ("total", "free", "pages", "free_pages", "all", "rest", "more")),
        )

    status = Status(length=ctypes.sizeof(Status))
    kernel = getattr(ctypes, "windll").kernel32  # noqa: B009  # mypy on other systems knows no windll
    return int(status.total) if kernel.GlobalMemoryStatusEx(ctypes.byref(status)) else None


def _cgroup(root: Path) -> int | None:
    """The least limit of the cgroup and of those that it stands in."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except (OSError, ValueError):
        return None
    found = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            top, name = root / "sys/fs/cgroup", "memory.max"
        elif "memory" in controllers.split(","):
            top, name = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes"
        else:
            continue
        # In a container, its own cgroup is often mounted as the first, and the path is that outside of it.
        own = top / path.strip("/")
        for folder in (own, *own.parents):
            limit = _number(folder / name)
            if limit is not None and limit < _NO_LIMIT:
                found.append(limit)
            if folder == top:
                break
    return min(found, default=None)


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # there is none; "max"
        return None


def _address_space() -> int | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit
