"""Why the system refused something, in words: the same ones wherever the broker says so.

Owns: those words. Must not know: what was tried, and what else could be done; that stands beside them in a message.
"""

import errno
import os

# The system's own words are those of its programmers ("Device or resource busy"), differ from system to system, or, as
# Python groups them, hide what to do: a read-only file system is no matter of permissions.
_WORDS = {
    "ENOENT": "there is no such file or directory",
    "ENOTDIR": "something on the way there is a file, not a directory",
    "EISDIR": "it is a directory",
    "EEXIST": "it exists already",
    "ENOTEMPTY": "the directory is not empty",
    "EACCES": "permission denied",
    "EPERM": "the system does not permit it",
    "EROFS": "the file system is read-only",
    "ENOSPC": "the disk is full",
    "EDQUOT": "the disk quota of this user is used up",
    "EFBIG": "the file would be larger than this user or the file system allows",
    "ELOOP": "symbolic links lead in a circle",
    "ENAMETOOLONG": "the name is too long",
    "EMFILE": "this process has too many files open; raise the limit (ulimit -n)",
    "ENFILE": "the system has too many files open",
    "ENOMEM": "there is not enough memory",
    "EIO": "the disk failed (input/output error)",
    "EBUSY": "it is in use by the system, as a mounted file is",
    "ETXTBSY": "it is a program that runs",
    "ESTALE": "the network file system has lost it; mount it again",
    "ENXIO": "there is no such device",
    "ENODEV": "there is no such device",
    "ENOTCONN": "the file system is not connected",
    "EADDRINUSE": "the address is in use",
    "EADDRNOTAVAIL": "this machine has no such address",
}
_BY_NUMBER = {getattr(errno, name): words for name, words in _WORDS.items() if hasattr(errno, name)}


def reason(error: Exception) -> str:
    """Why the system refused: without number and path, which the message around it has."""
    if isinstance(error, OSError) and error.errno is not None:
        return _BY_NUMBER.get(error.errno) or error.strerror or str(error)
    return str(error)


def reading(error: Exception) -> str:
    """Why a file that was named to be read was not, and what to do."""
    if isinstance(error, FileNotFoundError):
        return "there is no such file: create it, or correct its name"
    if isinstance(error, IsADirectoryError):
        return "this is a directory: name a file"
    if isinstance(error, PermissionError):
        return "it may not be read: give the user that runs this process read permission"
    return f"it cannot be read: {reason(error)}"


def no_access(path: str) -> OSError:
    """The error for what `os.access` has answered no to: it does not tell which one writing would give."""
    number = errno.EROFS if is_read_only(path) else errno.EACCES
    return OSError(number, os.strerror(number), path)


def is_read_only(path: str) -> bool:
    """Whether this is on a file system that nobody can write to."""
    try:
        return bool(os.statvfs(path).f_flag & os.ST_RDONLY)
    except (AttributeError, OSError, ValueError):  # Windows has no statvfs
        return False
