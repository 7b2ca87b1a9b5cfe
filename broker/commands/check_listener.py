"""What is wrong with one listener: its address, its certificates, its users.

Owns: those looks. Must not know: other listeners, and how findings are told.
"""

import contextlib
import ssl
from collections.abc import Collection, Iterator
from datetime import UTC, datetime, timedelta

from ..auth.errors import FileError, nearest
from ..auth.passwords import Passwords
from ..config.options import ListenerConfig
from ..entrance import StartError, load_websocket
from ..net import probe, tls
from ..net.certificates import TlsError, complete_chain, files, read_authorities
from ..net.validity import validities
from .check_acl import Clients, not_there
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
    if listener.passwords is not None and "passwords" not in unsure:
        try:
            users = Passwords.read(listener.passwords).users
        except FileError as fault:
            yield from (error(str(one)) for one in fault.all)
        else:
            yield from _password_file(listener, users)
    yield from _named_users(listener, clients(listener, unsure))


def clients(listener: ListenerConfig, unsure: frozenset[str]) -> Clients:
    """Who may connect."""
    users = None
    if listener.passwords is not None:
        with contextlib.suppress(FileError):  # `look` tells it
            users = Passwords.read(listener.passwords).users
    return Clients(
        listener.address,
        listener.allow_anonymous,
        listener.passwords,
        users,
        listener.certificate_user is not None,
        not unsure & {"passwords", "certificate_user", "client_ca", "allow_anonymous", "bind", "unix"},
    )


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
    """Each file by itself, so that a fault of one does not hide those of the others."""
    if listener.certificate is None or unsure & {"certificate", "key"}:
        return
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context = tls.read_tls(listener.certificate, listener.key).context
    except TlsError as fault:
        yield error(f"{fault.path}: {fault.why}")
    else:
        yield from _valid(listener.certificate, "clients refuse it")
    try:
        if listener.certificate_chain is not None and "certificate_chain" not in unsure:
            complete_chain(context, listener.certificate_chain)
    except TlsError as fault:
        yield error(f"{fault.path}: {fault.why}")
    try:
        if listener.client_ca is None or unsure & {"client_ca", "client_crl"}:
            return
        read_authorities(context, listener.client_ca, listener.client_crl)
        authorities = files(listener.client_ca)
    except TlsError as fault:
        yield error(f"{fault.path}: {fault.why}")
        return
    for path in authorities:
        yield from _valid(path, "no client certificate that it issued is accepted")
    if listener.client_crl is not None:
        yield from _valid(listener.client_crl, "no client's certificate is accepted until there is a new one")


def _valid(path: str, consequence: str) -> Iterator[Finding]:
    """The first thing that is wrong with the times in a file."""
    now = datetime.now(UTC)
    with open(path, "rb") as file:
        found = list(validities(file.read(1 << 24)))
    for begin, end in found:
        if end <= now:
            yield warning(f"{path}: it expired on {end:%Y-%m-%d %H:%M} UTC: {consequence}")
        elif begin > now:
            yield warning(f"{path}: it is not valid before {begin:%Y-%m-%d %H:%M} UTC: {consequence}")
        elif end - now < SOON:
            yield warning(f"{path}: it expires on {end:%Y-%m-%d %H:%M} UTC: from then on {consequence}")
        else:
            continue
        return


def _password_file(listener: ListenerConfig, users: Collection[str]) -> Iterator[Finding]:
    assert listener.passwords is not None
    if not users and not listener.allow_anonymous:
        yield warning(f"{listener.passwords}: it contains no user, so nobody can connect to {listener.address}")


def _named_users(listener: ListenerConfig, clients: Clients) -> Iterator[Finding]:
    """Users that an option names, and the password file does not know."""
    users = clients.users
    if users is None or clients.certificates:
        return  # certificates may name any
    for user in listener.client_ids:
        if user not in users and user != "*":
            yield warning(f"client_ids: {not_there(user, clients)}")
    for user in listener.deny_users:
        if user not in users and nearest(user, users):  # to deny somebody who is not there is no mistake
            yield warning(f"deny_users: {not_there(user, clients)}")
