"""Which web pages may connect over WebSocket.

Owns: that rule, and what is said to who is refused. Must not know: sockets, HTTP, MQTT.

Without it, any page that somebody looks at could speak to brokers that only their machine or network reaches: a browser
lets a page connect to wherever it likes, and tells in the request's Origin which page it is.

A page of the host that it connects to may, whatever the port; but only where the host's name cannot have been led here
by another's DNS (rebinding: evil.example is a web server at first, and an instant later 127.0.0.1). That is so

- if the browser was shown a certificate for the name: by who served the page (https), or by this listener;
- if the host is no name but an IP address;
- if it is localhost, which browsers ask nobody about.
"""

import ipaddress
import re
from collections.abc import Mapping
from urllib.parse import urlsplit

#: An origin as it may stand in websocket_origins.
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://([a-z0-9._-]{1,253}|\[[0-9a-f:.]{2,45}\])(:[0-9]{1,5})?|null")


def refusal(headers: Mapping[str, str], origins: tuple[str, ...], secure: bool) -> str:
    """Why the page may not connect that sent a request with these headers; "" if it may. Programs that are no browsers
    send no Origin, and may.

    `origins`: those that are listed; `secure`: has this listener shown its certificate?"""
    try:
        origin = headers.get("Origin")
        host = headers.get("Host", "")
    except LookupError:  # websockets' MultipleValuesError
        return "the request has more than one Origin or Host"
    if origin is None or "*" in origins:
        return ""
    origin = origin.lower()
    if origin in origins:
        return ""
    if not _ORIGIN.fullmatch(origin):
        return f"web pages of {origin[:100]!r} may not connect"
    if not _is_of(origin, host):
        return f'web pages of {origin} may not connect; if they should, add it: websocket_origins = ["{origin}"]'
    if secure or origin.startswith("https://") or _cannot_be_led(origin):
        return ""
    return (
        f"web pages of {origin} may not connect, as another name may have been led here (DNS rebinding); "
        f'if this name is yours, add it: websocket_origins = ["{origin}"]'
    )


def _host(netloc: str) -> str | None:
    try:
        return urlsplit(netloc).hostname
    except ValueError:
        return None


def _is_of(origin: str, host: str) -> bool:
    """Is it the origin of a page of this host?"""
    page = _host(origin)
    return page is not None and page == _host(f"//{host}")


def _cannot_be_led(origin: str) -> bool:
    host = _host(origin) or ""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    return True
