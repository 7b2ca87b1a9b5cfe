"""Lines of an ACL file that are for nobody, on any of the listeners that it is for.

Owns: that look. Must not know: how findings are told, and what a listener is besides who may connect to it.
"""

from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

from ..auth import acl
from ..auth.errors import FileError, nearest, shown
from .findings import Finding, error, warning


class Clients(NamedTuple):
    """Who may connect to a listener."""

    address: str
    anonymous: bool
    passwords: str | None  #: the password file
    users: Collection[str] | None  #: who is in it; None: it could not be read, or there is none
    certificates: bool  #: do certificates say who is who?
    known: bool  #: False: the configuration leaves it open, because something in it is wrong

    @property
    def checked(self) -> bool:
        """Is a user name more than what a client says?"""
        return self.certificates or self.passwords is not None


def look(path: str, listeners: Sequence[Clients]) -> Iterator[Finding]:
    """`listeners`: those that have this file."""
    try:
        lines = acl.read_lines(path)
    except FileError as fault:
        yield from (error(str(one)) for one in fault.all)
        return
    if not all(clients.known for clients in listeners):
        return
    told: set[str | None] = set()
    for line in lines:
        where = f"{path}:{line.number}"
        if line.keyword == "pattern":
            if "%c" not in line.topic_filter and "%u" not in line.topic_filter:
                yield warning(f"{where}: this pattern has neither %c nor %u, so it gives every client the same rights")
        elif line.user in told:
            continue  # what is wrong is with the user, not with the line
        else:
            told.add(line.user)
        faults = [_fault(line, clients) for clients in listeners]
        if all(faults):
            yield warning(f"{where}: {faults[0]}")


def _fault(line: acl.Line, clients: Clients) -> str:
    """Why no client of this listener gets anything from the line; "" if one may."""
    unchecked = "without passwords or certificate_user, no user name is checked, and every client is anonymous"
    if line.keyword == "pattern":
        return f"%u matches nobody: {unchecked}" if "%u" in line.topic_filter and not clients.checked else ""
    if line.user is None:
        if clients.anonymous:
            return ""
        return (
            f"this line, above the first 'user', is for anonymous clients, which may not connect to {clients.address}"
        )
    if not clients.checked:
        return f"nobody gets the rights of user {shown(line.user)}: {unchecked}"
    if clients.users is None or clients.certificates or line.user in clients.users:
        return ""
    return not_there(line.user, clients)


def not_there(user: str, clients: Clients) -> str:
    return f"user {shown(user)} is not in the password file {clients.passwords}{nearest(user, clients.users or ())}"
