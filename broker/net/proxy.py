"""The PROXY protocol, versions 1 and 2: what a proxy (HAProxy, for one) says in front of a client's bytes, so that we
know where the client comes from. (https://www.haproxy.org/download/2.6/doc/proxy-protocol.txt)

Owns: the header, whom to believe it, and the time until it is there. Must not know: MQTT, TLS, what a listener allows.

    Transport --receive(header)--> Introduction --introduced--> the owner puts the next client on the transport

An Introduction is the transport's first client. It takes the header off, and with it itself: what follows goes straight
to the next one, and costs what it costs without a proxy.
"""

from __future__ import annotations

import ipaddress
import re
import struct
from collections.abc import Callable, Iterable
from typing import NamedTuple

from .transport import Below

#: The longest header of version 1, its end of line included.
MAX_V1 = 107
#: What may follow the first 16 bytes of version 2: addresses, and what else a proxy tells (a client's certificate).
MAX_V2 = 16_384

_V1 = b"PROXY "
_V2 = b"\r\n\r\n\0\r\nQUIT\n"
_V2_HEAD = struct.Struct("!12sBBH")
_V2_ADDRESSES = {0x11: struct.Struct("!4s4sHH"), 0x21: struct.Struct("!16s16sHH")}  # TCP over IPv4 and IPv6
_V2_UNIX = 0x31
_V2_UNIX_SIZE = 216
_PORT = re.compile("0|[1-9][0-9]{0,4}")


class ProxyError(Exception):
    """What came is no header. str() says why."""


class Source(NamedTuple):
    """Where a client comes from."""

    host: str
    port: int


class Header(NamedTuple):
    """A whole header."""

    size: int  #: in bytes
    source: Source | None  #: None: the connection is the proxy's own (LOCAL), or it does not know whose (UNKNOWN)


def parse(data: bytes) -> Header | None:
    """The header that `data` begins with; None while it is not whole. Raises ProxyError as soon as it can be none."""
    if data.startswith(_V2):
        return _parse_v2(data)
    if data.startswith(_V1):
        return _parse_v1(data)
    if _V1.startswith(data) or _V2.startswith(data):
        return None
    raise ProxyError("no header of the PROXY protocol came first; does the proxy send one (send-proxy-v2)?")


def _parse_v1(data: bytes) -> Header | None:
    end = data.find(b"\r\n", 0, MAX_V1)
    if end < 0:
        if len(data) >= MAX_V1:
            raise ProxyError(f"a header of version 1 with more than {MAX_V1} bytes")
        return None
    line = data[len(_V1) : end]
    if line == b"UNKNOWN" or line.startswith(b"UNKNOWN "):
        return Header(end + 2, None)  # the rest of the line means nothing
    try:
        family, *words = line.decode("ascii").split(" ")
    except UnicodeDecodeError:
        raise ProxyError("a header of version 1 that is not ASCII") from None
    if family not in ("TCP4", "TCP6"):
        raise ProxyError("a header of version 1 with neither TCP4, TCP6 nor UNKNOWN")
    if len(words) != 4:
        raise ProxyError(f"a header of version 1 with {len(words)} words after {family}, not 4")
    parse_address = ipaddress.IPv4Address if family == "TCP4" else ipaddress.IPv6Address
    try:
        source, _ = [parse_address(word) for word in words[:2]]
    except ValueError:
        raise ProxyError(f"a header of version 1 with an address that is none of {family}") from None
    if any(not _PORT.fullmatch(word) or int(word) > 65_535 for word in words[2:]) or "%" in words[0] + words[1]:
        raise ProxyError("a header of version 1 with a port or an address that is none")
    return Header(end + 2, Source(plain(source), int(words[2])))


def _parse_v2(data: bytes) -> Header | None:
    # Each byte is judged once it is there, so that it does not matter in which pieces they come.
    if len(data) > 12 and data[12] not in (0x20, 0x21):
        version, command = divmod(data[12], 16)
        raise ProxyError(f"a header of version {version} with command {command}: 2 with 0 or 1 is known")
    if len(data) < _V2_HEAD.size:
        return None
    _, command, family, size = _V2_HEAD.unpack_from(data)
    if size > MAX_V2:
        raise ProxyError(f"a header of version 2 with {size} bytes, over the limit of {MAX_V2}")
    end = _V2_HEAD.size + size
    local = command == 0x20 or family == 0  # for LOCAL the rest means nothing
    addresses = _V2_ADDRESSES.get(family)
    if not local:
        if addresses is None and family != _V2_UNIX:
            raise ProxyError(f"a header of version 2 with family and protocol 0x{family:02x}: only streams are known")
        if size < (_V2_UNIX_SIZE if addresses is None else addresses.size):
            raise ProxyError("a header of version 2 that is too short for its addresses")
    if len(data) < end:
        return None
    if local or addresses is None:  # who has come to the proxy over a Unix socket is there where it is
        return Header(end, None)
    source, _, port, _ = addresses.unpack_from(data, _V2_HEAD.size)
    return Header(end, Source(plain(ipaddress.ip_address(source)), port))


def plain(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """One spelling for an address, so that a client has one name and not two."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(address if mapped is None else mapped)


def _is_own(source: Source, peer: str) -> bool:
    """Does the proxy name itself? `peer`: its address and port."""
    host, _, port = peer.rpartition(":")
    try:
        return (plain(ipaddress.ip_address(host.strip("[]"))), int(port)) == source
    except ValueError:
        return False


class Trusted:
    """Those whose headers are believed: IP addresses and networks, and "unix" for all that reach a Unix socket."""

    def __init__(self, networks: Iterable[str]) -> None:
        known = set(networks)
        self._unix = "unix" in known
        self._networks = [ipaddress.ip_network(network) for network in known - {"unix"}]

    def __contains__(self, host: str) -> bool:
        if host.startswith("unix"):
            return self._unix
        try:
            address = ipaddress.ip_address(plain(ipaddress.ip_address(host)))
        except ValueError:
            return False
        return any(address in network for network in self._networks)


class Introduction:
    """The beginning of a connection from a proxy."""

    __slots__ = ("_data", "_failed", "_introduced", "_quiet", "_transport")

    def __init__(
        self,
        transport: Below,
        introduced: Callable[[Source | None], None],
        failed: Callable[[str | None], None],
    ) -> None:
        """One of the two is called, unless the transport is closed before: `introduced` with where the client comes
        from (None: it is the proxy itself), to put the next client on the transport, at once or later, and to call
        `hand_over` then, or to close it; `failed` with the reason, when all is closed. It is None for a proxy that only
        looked whether somebody listens."""
        self._transport = transport
        self._introduced = introduced
        self._failed = failed
        self._data = b""
        self._quiet = True  # nothing came, or no more than a whole header of the proxy's own: it may only have looked
        transport.client = self

    def receive(self, data: bytes, now: float) -> None:
        self._data += data
        try:
            header = parse(self._data)
        except ProxyError as error:
            self.abort(str(error))
            return
        self._quiet = False
        if header is None:
            return
        source, rest = header.source, self._data[header.size :]
        if source is not None and _is_own(source, self._transport.peer):
            source = None  # how HAProxy looks whether somebody listens, in version 1
        if source is None and not rest:
            self._quiet = True
            return
        self._data = rest
        self._introduced(source)

    def hand_over(self, now: float) -> None:
        """Give the next client what came behind the header."""
        client, rest = self._transport.client, self._data
        self._data = b""
        if rest and client is not None:
            client.receive(rest, now)

    def lost(self, why: str) -> None:
        self._failed(None if self._quiet else "the proxy left before its header was whole")

    def expire(self) -> None:
        """It takes too long: end it."""
        self.abort(
            "nothing came within connect_timeout"
            if self._quiet
            else "its header was not complete within connect_timeout"
        )

    def abort(self, why: str) -> None:
        """End it."""
        self._transport.close(gently=False)
        self._failed(why)

    # Nothing is sent before the header is there.

    def congest(self, waiting: int) -> None: ...
    def relieve(self) -> None: ...
    def progress(self, now: float) -> None: ...
