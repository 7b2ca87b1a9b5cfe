"""What is wrong with one listener: its address, its files, and what they say of each other.

Owns: those looks. Must not know: other listeners, and how findings are told.
"""

import os
import ssl
import stat
from collections.abc import Collection, Iterable, Iterator
from datetime import UTC, datetime, timedelta

from ..auth import acl
from ..auth.errors import FileError, nearest, shown
from ..auth.passwords import Passwords
from ..config.options import ListenerConfig
from ..entrance import StartError, load_websocket
from ..net import probe, tls
from ..net.certificates import TlsError, read_authorities
from ..net.validity import validities
from .findings import Finding, error, warning

#: A certificate that ends earlier than this is told.
SOON = timedelta(days=14)


def look(listener: ListenerConfig, unsure: frozenset[str], *, runs: bool) -> Iterator[Finding]:
    """`unsure`: options whose value is not known; `runs`: a broker of this configuration is at work."""
    if not unsure & {"bind", "port", "unix"}:
        yield from _address(listener, runs)
    if listener.websocket and "websocket" not in unsure:
        try:
            load_websocket(listener)
        except StartError as fault:
            yield error(str(fault))
    yield from _tls(listener, unsure)
    users: Collection[str] | None = None
    if listener.passwords is not None and "passwords" not in unsure:
        try:
            users = Passwords.read(listener.passwords).users
        except FileError as fault:
            yield from (error(str(one)) for one in fault.all)
        else:
            yield from _password_file(listener, users)
    if listener.acl is not None and "acl" not in unsure:
        try:
            lines = acl.read_lines(listener.acl)
        except FileError as fault:
            yield from (error(str(one)) for one in fault.all)
        else:
            known = not unsure & {"passwords", "certificate_user", "client_ca", "allow_anonymous"}
            yield from _acl(listener, lines, users) if known else ()
    if users is not None and "certificate_user" not in unsure:
        yield from _named_users(listener, users)


def _address(listener: ListenerConfig, runs: bool) -> Iterator[Finding]:
    if listener.unix is not None:
        fault = probe.unix(listener.unix)
    else:
        fault = probe.tcp(listener.bind, listener.port) if listener.port else None
    if fault is None:
        return
    if fault.in_use and runs:
        yield warning(f"{listener.address} is in use, as is the data directory: most likely by the same broker")
    else:
        yield error(fault.why)


def _tls(listener: ListenerConfig, unsure: frozenset[str]) -> Iterator[Finding]:
    if listener.certificate is None or unsure & {"certificate", "key"}:
        return
    try:
        context = tls.read_tls(listener.certificate, listener.key).context
    except TlsError as fault:
        yield error(f"{fault.path}: {fault.why}")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    else:
        yield from _valid(listener.certificate, "clients refuse it")
        yield from _secret(listener.key or listener.certificate, "the private key")
    if listener.client_ca is None or unsure & {"client_ca", "client_crl"}:
        return
    try:
        read_authorities(context, listener.client_ca, listener.client_crl)
    except TlsError as fault:
        yield error(f"{fault.path}: {fault.why}")
        return
    yield from _valid(listener.client_ca, "no client's certificate of it is accepted")
    if listener.client_crl is not None:
        yield from _valid(listener.client_crl, "no client's certificate is accepted until there is a new one")


def _valid(path: str, consequence: str) -> Iterator[Finding]:
    """The first thing that is wrong with the times in a file."""
    now = datetime.now(UTC)
    with open(path, "rb") as file:
        found = list(validities(file.read(1 << 24)))
    for begin, end in found:
        if end <= now:
            yield warning(f"{path}: it has expired on {end:%Y-%m-%d %H:%M} UTC: {consequence}")
        elif begin > now:
            yield warning(f"{path}: it is not valid before {begin:%Y-%m-%d %H:%M} UTC: {consequence}")
        elif end - now < SOON:
            yield warning(f"{path}: it expires on {end:%Y-%m-%d %H:%M} UTC: from then on {consequence}")
        else:
            continue
        return


def _secret(path: str, what: str) -> Iterator[Finding]:
    if os.name == "posix" and os.stat(path).st_mode & stat.S_IROTH:
        yield warning(f"{path}: every user of this machine can read {what}: take that away (chmod o-r)")


def _password_file(listener: ListenerConfig, users: Collection[str]) -> Iterator[Finding]:
    assert listener.passwords is not None
    yield from _secret(listener.passwords, "the hashes of all passwords")
    if not users and not listener.allow_anonymous:
        yield warning(f"{listener.passwords}: it holds no user, so nobody can connect to {listener.address}")


def _acl(listener: ListenerConfig, lines: Iterable[acl.Line], users: Collection[str] | None) -> Iterator[Finding]:
    """Lines that are for nobody: `users` are those of the password file."""
    checked = listener.passwords is not None or listener.certificate_user is not None
    asked: set[str | None] = set()
    for line in lines:
        where = f"{listener.acl}:{line.number}"
        if line.keyword == "pattern":
            if "%c" not in line.topic_filter and "%u" not in line.topic_filter:
                yield warning(f"{where}: there is neither %c nor %u in this pattern, so it is for every client alike")
            elif "%u" in line.topic_filter and not checked:
                yield warning(f"{where}: {_UNCHECKED.format('%u is nobody')}")
        elif line.user is None and not listener.allow_anonymous and checked:
            if None not in asked:
                what = "this line, above the first 'user', is for anonymous clients, which may not connect"
                yield warning(f"{where}: {what} to {listener.address}")
        elif line.user is not None and line.user not in asked:
            yield from _acl_user(listener, line.user, where, users, checked)
        if line.keyword != "pattern":
            asked.add(line.user)


_UNCHECKED = "{}: without passwords and certificate_user no user name is checked, and who says one is anonymous"


def _acl_user(
    listener: ListenerConfig, user: str, where: str, users: Collection[str] | None, checked: bool
) -> Iterator[Finding]:
    if not checked:
        yield warning(f"{where}: {_UNCHECKED.format(f'the rights of user {shown(user)} are for nobody')}")
    elif users is not None and listener.certificate_user is None and user not in users:
        yield warning(f"{where}: {_not_there(listener, user, users)}")


def _named_users(listener: ListenerConfig, users: Collection[str]) -> Iterator[Finding]:
    if listener.certificate_user is not None:
        return  # certificates may name any
    for option, names in (("deny_users", listener.deny_users), ("client_ids", listener.client_ids)):
        for user in names:
            if user not in users and user != "*":
                yield warning(f"{option}: {_not_there(listener, user, users)}")


def _not_there(listener: ListenerConfig, user: str, users: Collection[str]) -> str:
    return f"user {shown(user)} is not in the password file {listener.passwords}{nearest(user, users)}"
