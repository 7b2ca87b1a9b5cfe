"""X-Forwarded-For: what a proxy for HTTP (nginx, for one) says about where a WebSocket's client comes from.

Owns: reading the header, and how far to believe it. Must not know: HTTP, WebSocket, what a listener allows.

Each proxy on the way adds the address of whoever has connected to it, so that the last ones are those of our own
proxies and the first ones are what the client itself may have made up. Believed is what our proxies have added, and
nothing before it.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

from .proxy import Trusted, plain

_WITH_PORT = re.compile(r"([0-9.]+|\[[^\[\]]*\]):[0-9]{1,5}", re.ASCII)


def client_of(values: Iterable[str], trusted: Trusted) -> str | None:
    """The client's address: the last one that is not of a trusted proxy, or the first one if all are. `values`: of the
    headers that one of the trusted sent, in their order. None: they tell none, so it is that proxy itself."""
    found = None
    for word in reversed(",".join(values).split(",")):
        word = word.strip()
        if not word:
            continue  # an empty element of a list means nothing [RFC 9110, 5.6.1]
        host = _read(word)
        if host is None:
            break  # "unknown", a made-up name, or nonsense: all before it is of no worth
        found = host
        if host not in trusted:
            break
    return found


def _read(word: str) -> str | None:
    """An address of a header, some proxies add the port to it; None if it is none."""
    if with_port := _WITH_PORT.fullmatch(word):
        word = with_port[1]
    if word.startswith("[") and word.endswith("]"):
        word = word[1:-1]
    if "%" in word:  # an interface of another machine
        return None
    try:
        return plain(ipaddress.ip_address(word))
    except ValueError:
        return None
