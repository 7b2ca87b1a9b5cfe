"""What other users of this machine could do to the files and directories that a configuration names.

Owns: who counts as another, and what is said. Must not know: what is in the files.

Nothing here stops a start: with whom to share is for the owner to judge. It is told at the start, and by `check`.
"""

import contextlib
import os
import stat
from collections.abc import Iterator

from .config.options import Config, ListenerConfig
from .storage.place import FILE_NAME


def remarks(config: Config) -> Iterator[str]:
    """One line for each file that others can read or change though it decides who may do what, or is a secret."""
    if config.data is not None:
        yield from _directory(config.data, "everything that is stored")
        path = os.path.join(config.data, FILE_NAME)
        found = _look(path)
        if found is not None:
            yield from _owner(path, found, "everything that is stored")
    for listener in config.listeners:
        yield from _of_listener(listener)


def _of_listener(listener: ListenerConfig) -> Iterator[str]:
    if listener.passwords is not None:
        yield from _file(listener.passwords, "the hashes of all passwords", secret=True)
    if listener.certificate is not None:
        yield from _file(listener.key or listener.certificate, "the private key", secret=True)
    if listener.acl is not None:
        yield from _file(listener.acl, "who may publish and subscribe to what")
    if listener.client_ca is not None:
        yield from _file(listener.client_ca, "whose certificates are accepted")
    if listener.unix is not None:
        yield from _directory(os.path.dirname(listener.unix), "the Unix socket", sticky=True)


def _file(path: str, what: str, *, secret: bool = False) -> Iterator[str]:
    found = _look(path)
    if found is None:
        return
    yield from _owner(path, found, what)
    who = _writers(found)
    if who:
        yield f"{path}: {who} can change {what}: take that away (chmod go-w)"
    elif secret and found.st_mode & stat.S_IROTH:
        yield f"{path}: every user of this machine can read {what}: take that away (chmod o-r)"


def _directory(path: str, what: str, *, sticky: bool = False) -> Iterator[str]:
    """`sticky`: is it enough that nobody can remove what is another's?"""
    found = _look(path)
    if found is None or (sticky and found.st_mode & stat.S_ISVTX):
        return
    yield from _owner(path, found, what)
    who = _writers(found)
    if who:
        yield f"{path}: {who} can write to this directory, and so replace {what}: take that away (chmod go-w)"


def _look(path: str) -> os.stat_result | None:
    """None: it is not there, or what its numbers mean is not known here."""
    if os.name == "posix":
        with contextlib.suppress(OSError):
            return os.stat(path)
    return None


def _owner(path: str, found: os.stat_result, what: str) -> Iterator[str]:
    if found.st_uid not in (0, os.geteuid()):
        yield f"{path}: it belongs to another user (uid {found.st_uid}), who can change {what}"


def _writers(found: os.stat_result) -> str:
    """Who else can write there; "" if nobody can."""
    if found.st_mode & stat.S_IWOTH:
        return "every user of this machine"
    # A user's own group has nobody else in it.
    if found.st_mode & stat.S_IWGRP and found.st_gid not in (0, os.getegid()):
        return f"another group (gid {found.st_gid})"
    return ""
