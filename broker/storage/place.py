"""The file of a store and its directory: whether they can be used, and for whom.

Owns: making them, their permissions. Must not know: what is in the file.

Whose the file is shows only when SQLite has read it. Until then nothing about it is changed.
"""

import contextlib
import errno
import os
import stat

from ..os_reasons import no_access, reason

FILE_NAME = "selectmq.db"


class _Unusable(OSError):
    """str() says why."""


def prepare(directory: str) -> str:
    """Make the directory, and in it a file for its owner alone, if they are not there. Returns the file's path. Raises
    OSError."""
    path = os.path.join(directory, FILE_NAME)
    os.makedirs(directory, mode=0o700, exist_ok=True)
    try:
        # SQLite gives its log the permissions of this file.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o600))
    except FileExistsError:
        look(path)
    return path


def look(path: str) -> None:
    """Raises OSError if there is something that is no file of ours to use. It is not opened: to close it would end the
    lock of a store that this process has open (POSIX, fcntl)."""
    mode = os.lstat(path).st_mode
    if stat.S_ISLNK(mode):
        # It may lead to a file that was never meant, and the log would stand beside that one.
        raise _Unusable(f"{FILE_NAME} in it is a symbolic link; name the directory in which the file is")
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(mode):
        raise _Unusable(f"{FILE_NAME} in it is no regular file; remove it")
    if not os.access(path, os.R_OK | os.W_OK, effective_ids=os.access in os.supports_effective_ids):
        raise no_access(path)


def close_to_others(path: str) -> None:
    """The file is ours: nobody else shall read what is in it, or in its log."""
    if os.name != "posix":
        return
    for name in (path, f"{path}-wal"):
        with contextlib.suppress(OSError):
            mode = os.lstat(name).st_mode
            if stat.S_ISREG(mode) and stat.S_IMODE(mode) & 0o077:
                os.chmod(name, 0o600)


def why_unusable(error: OSError) -> str:
    if isinstance(error, _Unusable):
        return str(error)
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        return "it is not a directory"
    if error.errno in (errno.EACCES, errno.EPERM):
        return "permission denied; check its owner and permissions"
    if error.errno == errno.EISDIR:
        return f"{FILE_NAME} in it is a directory"
    return reason(error)
