"""Where a listener listens: the addresses that a name or an address means.

Owns: resolving them. Must not know: sockets, other listeners.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import Any, NamedTuple

from ..addresses import literal
from ..os_reasons import reason


class ListenError(Exception):
    """The address cannot be listened on. str() is one line that says what to do."""


class Endpoint(NamedTuple):
    """One address to listen on."""

    family: int
    address: Any  #: as the system takes it, with the port
    named: bool = False  #: does it come from a name? Then this machine need not have it, if it has another of them
    alone: bool = False  #: IPv6 only: others listen in IPv4

    @property
    def host(self) -> str:
        return str(self.address[0])

    @property
    def port(self) -> int:
        return int(self.address[1])

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def resolve(bind: str, port: int) -> list[Endpoint]:
    """All addresses that `bind` means, those in IPv4 first, each once. Raises ListenError."""
    where = f"[{bind}]:{port}" if ":" in bind else f"{bind}:{port}"
    own = literal(bind)
    try:
        found = socket.getaddrinfo(
            str(own) if own is not None else bind, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (OSError, UnicodeError) as error:  # UnicodeError: a part of the name is empty or too long
        raise ListenError(f"cannot listen on {where}: no such address ({reason(error)})") from None
    families = (socket.AF_INET, socket.AF_INET6)
    endpoints = [Endpoint(family, address, own is None) for family, _, _, _, address in found if family in families]
    if not endpoints:
        raise ListenError(f"cannot listen on {where}: it has no address in IPv4 or IPv6")
    if bind.lower() == "localhost":
        # What is open on it counts as open to this machine alone.
        for endpoint in endpoints:
            if not ipaddress.ip_address(endpoint.host).is_loopback:
                raise ListenError(
                    f"cannot listen on {where}: it is {endpoint.host} here, which others may reach; correct the hosts "
                    "file, or give the address with --bind"
                )
    return sorted(dict.fromkeys(endpoints), key=lambda endpoint: endpoint.family != socket.AF_INET)
