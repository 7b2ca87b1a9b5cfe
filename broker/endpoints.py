"""Where all listeners listen: which addresses each one has, and that no two of them want the same.

Owns: how listeners go together on the addresses of this machine. Must not know: sockets.

`::` is all of IPv6 and all of IPv4, unless another listener is for an IPv4 address on the same port: then it is IPv6
alone. That follows from the configuration, and not from who comes first or how the system is set up.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import combinations

from .addresses import collide, literal
from .config.options import ListenerConfig
from .net.endpoints import Endpoint, ListenError, resolve


def lay_out(listeners: Sequence[ListenerConfig]) -> list[list[Endpoint]]:
    """The endpoints of each listener; none for a Unix socket. Names are resolved now. Raises ListenError."""
    found = [[] if one.unix is not None else resolve(one.bind, one.port) for one in listeners]
    for (one, mine), (other, its) in combinations(zip(listeners, found, strict=True), 2):
        if one.unix is not None and other.unix is not None:
            if _file(one.unix) == _file(other.unix):
                raise ListenError(_told(one, other, f"unix:{one.unix} and unix:{other.unix} are one file", "path"))
        elif one.port == other.port != 0:
            for endpoint in its:
                if any(collide(endpoint.host, taken.host) for taken in mine):
                    raise ListenError(_told(one, other, f"both would listen on {endpoint}", "port"))
    ipv4 = {endpoint.port for endpoints in found for endpoint in endpoints if ":" not in endpoint.host}
    return [[_alone(endpoint, ipv4) for endpoint in endpoints] for endpoints in found]


def _alone(endpoint: Endpoint, ipv4: set[int]) -> Endpoint:
    address = literal(endpoint.host)
    wild = address is not None and address.version == 6 and address.is_unspecified
    return endpoint._replace(alone=not wild or (endpoint.port != 0 and endpoint.port in ipv4))


def _told(one: ListenerConfig, other: ListenerConfig, why: str, what: str) -> str:
    return (
        f"{other.where}: the listener on {other.address} collides with that on {one.address} of {one.where}: {why};"
        f" give one of them another {what}"
    )


def _file(path: str) -> tuple[object, str]:
    """What tells whether two paths are those of one socket, though a link may lead to it."""
    directory, name = os.path.split(path)
    try:
        found = os.stat(directory)
    except OSError:
        return os.path.realpath(directory), name
    return (found.st_dev, found.st_ino), name
