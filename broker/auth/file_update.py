"""A new content for a file that others read, change and have put where it is: all of it or none.

Owns: how that is written, under which lock, and what of the old file stays (its owner, mode, attributes, a link that
leads to it). Must not know: what is in it.

Mostly, a new file takes the place of the old one. That is not possible where the file is a mount of its own (containers
do so), where the directory may not be written but the file may, or where the new one could not have the owner of the
old one: then the old file itself is written. The new content stands beside it as long as that takes, if it can.
"""

import contextlib
import errno
import os
import stat
import sys
import tempfile
from collections.abc import Iterator

from .. import os_reasons
from .errors import FileError

if sys.platform != "win32":
    import fcntl


class _NotReplaceable(Exception):
    """The old file must be written itself."""


@contextlib.contextmanager
def changing(path: str) -> Iterator[str]:
    """The real path of a file that is about to be changed: a link stays a link, and what it leads to is changed.

    Where the system can lock, no other process changes it meanwhile. Turns OSError into FileError.
    """
    try:
        real_path = os.path.realpath(path)
        directory = os.path.dirname(real_path)
        if not os.path.isdir(directory):
            raise FileError(path, None, f"there is no directory {directory!r}: create it, or correct its name")
        if os.path.isdir(real_path):
            raise FileError(path, None, "this is a directory: name a file")
        if os.path.lexists(real_path) and not os.path.isfile(real_path):
            # /dev/null, a pipe: a file in its place would be a surprise for everybody else.
            raise FileError(path, None, "this is no ordinary file: name one that is, or a new one")
        with _locked(directory), _locked(real_path):
            yield real_path
            _to_disk(directory)  # the new name survives a crash, too
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise FileError(path, None, f"it cannot be written: {os_reasons.reason(error)}") from None


def write(path: str, data: bytes) -> None:
    """Make this the content of the file. Raises FileError, OSError."""
    new = None
    try:
        new = _beside(path, data)
        _replace(path, new)
        new = None
    except _NotReplaceable as why:
        _write_itself(path, data, why)
    finally:
        if new is not None:
            with contextlib.suppress(OSError):
                os.unlink(new)


def _beside(path: str, data: bytes) -> str:
    """A new file in the same directory, for its owner only (0600), that is on the disk."""
    try:
        handle, name = tempfile.mkstemp(dir=os.path.dirname(path), prefix=f".{os.path.basename(path)}.")
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS) and os.path.exists(path):
            raise _NotReplaceable(os_reasons.reason(error)) from None
        raise
    try:
        with open(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(handle)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
    return name


def _replace(path: str, new: str) -> None:
    """Put the file `new` into the place of the old one, as which it then looks."""
    if os.path.exists(path):
        _make_alike(path, new)
    try:
        os.replace(new, path)
    except OSError as error:
        if error.errno in (errno.EBUSY, errno.EXDEV):  # what is mounted cannot be replaced
            raise _NotReplaceable(os_reasons.reason(error)) from None
        raise


def _make_alike(path: str, new: str) -> None:
    old, made = os.stat(path), os.stat(new)
    if (old.st_uid, old.st_gid) != (made.st_uid, made.st_gid) and sys.platform != "win32":
        try:
            os.chown(new, old.st_uid, old.st_gid)
        except PermissionError:
            owner = f"user {old.st_uid} and group {old.st_gid}"
            raise _NotReplaceable(f"it belongs to {owner}, which it would not after this") from None
    os.chmod(new, stat.S_IMODE(old.st_mode))
    if sys.platform == "linux":  # access control lists, and the labels of SELinux
        with contextlib.suppress(OSError):
            for name in os.listxattr(path):
                with contextlib.suppress(OSError):
                    os.setxattr(new, name, os.getxattr(path, name))


def _write_itself(path: str, data: bytes, why: _NotReplaceable) -> None:
    """Write into the file that is there. If that fails, what was in it is put back."""
    try:
        file = open(path, "r+b", buffering=0)  # noqa: SIM115
    except PermissionError:
        raise FileError(path, None, f"{why}: run this as the user whom the file belongs to, or as root") from None
    with file:
        old = file.read()
        try:
            _put(file.fileno(), data)
        except OSError:
            _put(file.fileno(), old)
            raise


def _put(handle: int, data: bytes) -> None:
    """Longer first, shorter last: so it never lacks what both have in common."""
    os.lseek(handle, 0, os.SEEK_SET)
    left = memoryview(data)
    while left:
        left = left[os.write(handle, left) :]
    os.ftruncate(handle, len(data))
    os.fsync(handle)


@contextlib.contextmanager
def _locked(path: str) -> Iterator[None]:
    """Hold the lock of a file or directory, where that is possible.

    A file that is replaced takes its lock with it, so its directory is locked; one that is written itself may be seen
    in several directories, so the file is, too.
    """
    while True:
        handle = _lock(path)
        if handle is None:
            yield
            return
        try:
            if not os.path.exists(path) or not os.path.samestat(os.fstat(handle), os.stat(path)):
                continue  # replaced while we waited: what we hold is the lock of a file that is gone
            yield
            return
        finally:
            os.close(handle)


def _lock(path: str) -> int | None:
    if sys.platform == "win32":
        return None
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:  # not there yet, or not for us to read: then there is nothing to lock
        return None
    with contextlib.suppress(OSError):  # a file system without locks
        fcntl.flock(handle, fcntl.LOCK_EX)
    return handle


def _to_disk(directory: str) -> None:
    with contextlib.suppress(OSError):
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
