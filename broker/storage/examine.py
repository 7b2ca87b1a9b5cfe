"""Whether a store could be opened in a directory, found out without changing anything there or disturbing its owner.

Owns: that look from outside. Must not know: what is in the file; a copy of it is opened by the store itself.
"""

import os
import shutil
import struct
import sys
import tempfile
from typing import NamedTuple

from ..core.ports import StoreError
from ..os_reasons import no_access, reason
from .place import FILE_NAME, look, why_unusable
from .sqlite import DataError, SqliteStore

#: Of a larger file no copy is made, to open that.
LARGEST_COPY = 256 << 20

# Linux's struct flock: type, whence, start, length, process; and where SQLite locks a file (its os.h).
_FLOCK = struct.Struct("@hhqqi4x")
_PENDING_BYTE, _LOCKED_BYTES = 0x40000000, 512


class Examined(NamedTuple):
    fault: str  #: why a store could not be opened, "" if it could
    holder: int  #: the process that has it open, 0 if none is known
    unread: bool = False  #: the file is too large to look into


def examine(directory: str) -> Examined:
    """What would come of SqliteStore(directory)."""
    path = os.path.join(directory, FILE_NAME)
    try:
        if not os.path.lexists(directory):
            _can_be_made(directory)
            return Examined("", 0)
        _can_be_used(directory, path)
        if not os.path.exists(path):
            return Examined("", 0)
        holder = _holder(path)
        if holder:
            return Examined(f"{path} is in use by a broker that runs (process {holder})", holder)
        if sum(os.path.getsize(file) for file in _files(path)) > LARGEST_COPY:
            return Examined("", 0, unread=True)
        return Examined(_open_copy(path), 0)
    except OSError as error:
        why = f"data directory {directory} cannot be used: {why_unusable(error)} (--data names another)"
        return Examined(why, 0)


def _can_be_made(directory: str) -> None:
    """Raises OSError if a directory cannot be made."""
    above = os.path.dirname(directory)
    while not os.path.lexists(above):
        above = os.path.dirname(above)
    if not os.path.isdir(above):
        raise NotADirectoryError(20, above)
    if not os.access(above, os.W_OK | os.X_OK):
        raise no_access(above)
    if len(os.fsencode(os.path.basename(directory))) > 255:
        os.stat(directory)  # tells that the name is too long


def _can_be_used(directory: str, path: str) -> None:
    if not os.path.isdir(directory):
        raise NotADirectoryError(20, directory)
    if not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
        raise no_access(directory)
    if os.path.lexists(path):
        look(path)


def _files(path: str) -> list[str]:
    return [file for file in (path, f"{path}-wal") if os.path.exists(file)]


def _holder(path: str) -> int:
    """The process that has locked the file; 0 for none. Asks without locking anything: an owner that starts at this
    moment must not be told that the file is in use. Elsewhere than on Linux, the start tells."""
    if sys.platform != "linux":
        return 0
    import fcntl

    with open(path, "rb") as file:
        question = _FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, _PENDING_BYTE, _LOCKED_BYTES, 0)
        kind, _, _, _, process = _FLOCK.unpack(fcntl.fcntl(file, fcntl.F_GETLK, question))
    return 0 if kind == fcntl.F_UNLCK else max(process, 1)


def _open_copy(path: str) -> str:
    """Why the file cannot be opened, "" if it can."""
    with tempfile.TemporaryDirectory(prefix="selectmq-check-") as directory:
        try:
            for file in _files(path):
                shutil.copyfile(file, os.path.join(directory, os.path.basename(file)))
        except OSError as error:
            return f"{path} was not looked into: no copy of it could be made ({reason(error)})"
        try:
            store = SqliteStore(directory)
            try:
                store.load()
            finally:
                store.close()
        except (DataError, StoreError) as error:
            return str(error).replace(directory, os.path.dirname(path))
    return ""
