"""Addresses of clients: how they are written, and what counts as one place.

Owns: that one place is a host in IPv4 and a network of 64 bits in IPv6, wherever something is shared out by address.
Must not know: what is shared out.
"""

from ipaddress import IPv4Address, IPv6Address, ip_address


def origin_of(peer: str) -> str:
    """The place of a client. `peer` is an address, with or without a port ("192.0.2.1:1000", "[2001:db8::1]:1000",
    "2001:db8::1"), or who is at a Unix socket ("unix:uid-1000:pid-4711": the place is the user)."""
    if peer.startswith("unix:"):
        return ":".join(peer.split(":")[:2])
    if peer.startswith("["):
        host = peer[1:].partition("]")[0]
    else:
        host = peer.partition(":")[0] if peer.count(":") == 1 else peer
    if ":" not in host:
        return host
    try:
        address = IPv6Address(host)
    except ValueError:
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return address.packed[:8].hex(":", 2)


def plain(host: str) -> str:
    """One spelling for an address: who comes over IPv4 to a listener for IPv6 is one of IPv4."""
    return host[7:] if host.startswith("::ffff:") and "." in host else host


def literal(host: str) -> IPv4Address | IPv6Address | None:
    """The IP address that is written there, in IPv4 if it is one of IPv4 within IPv6; None: it is a name."""
    try:
        address = ip_address(host)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return address if mapped is None else mapped


def collide(one: str, other: str) -> bool:
    """Would these two IP addresses not fit on one port? All of IPv6 fits beside any of IPv4: it is IPv6 alone then."""
    first, second = literal(one), literal(other)
    if first is None or second is None or first.version != second.version:
        return False
    return first == second or first.is_unspecified or second.is_unspecified
