"""Which web pages may connect."""

from __future__ import annotations

import pytest
from websockets.datastructures import Headers

from broker.config.kinds import Origins
from broker.net.origins import refusal

APP = ("https://app.example",)


def asked(origin: str | None, host: str | None) -> dict[str, str]:
    headers = {}
    if origin is not None:
        headers["Origin"] = origin
    if host is not None:
        headers["Host"] = host
    return headers


@pytest.mark.parametrize(
    ("origin", "host", "origins", "secure", "allowed"),
    [
        (None, "broker.example:8083", (), False, True),
        # A name, with a certificate: of who served the page, or of this listener.
        ("https://broker.example", "broker.example:8083", (), False, True),
        ("https://broker.example:444", "BROKER.example:8083", (), False, True),
        ("HTTPS://Broker.Example", "broker.example", (), False, True),
        ("http://broker.example", "broker.example:8084", (), True, True),
        # A name without one may have been led here.
        ("http://broker.example", "broker.example:8083", (), False, False),
        ("http://evil.example", "evil.example:8083", (), False, False),
        ("chrome-extension://evil", "evil", (), False, False),
        ("http://evil.example", "evil.example", ("http://evil.example:80",), False, False),
        ("http://broker.example", "broker.example", ("http://broker.example",), False, True),
        # Addresses, and this machine's name, lead nowhere else.
        ("http://192.0.2.7:8000", "192.0.2.7:8083", (), False, True),
        ("http://[2001:db8::1]", "[2001:db8::1]:8083", (), False, True),
        ("http://localhost:8000", "localhost:8083", (), False, True),
        ("http://app.localhost:8000", "app.localhost:8083", (), False, True),
        ("http://127.0.0.1:8000", "127.0.0.1:8083", (), False, True),
        ("http://[::1]:8000", "[::1]:8083", (), False, True),
        ("http://localhost.evil.example", "localhost.evil.example", (), False, False),
        ("http://127.0.0.1.evil.example", "127.0.0.1.evil.example", (), False, False),
        ("http://evillocalhost", "evillocalhost", (), False, False),
        # Another host.
        ("http://localhost:8000", "127.0.0.1:8083", (), False, False),
        ("https://evil.example", "broker.example:8083", (), True, False),
        ("https://broker.example.evil.example", "broker.example:8083", (), True, False),
        ("https://evil.example", "localhost", (), True, False),
        ("https://evil.example", "127.0.0.1", (), True, False),
        ("https://broker.example", None, (), True, False),
        ("https://broker.example", "", (), True, False),
        ("https://broker.example", "[", (), True, False),
        # What is listed.
        ("https://app.example", "broker.example", APP, False, True),
        ("https://APP.example", "broker.example", APP, False, True),
        ("http://app.example", "broker.example", APP, False, False),
        ("https://app.example:444", "broker.example", APP, False, False),
        ("https://evil.example", "broker.example", ("*",), False, True),
        ("null", "broker.example", (), True, False),
        ("null", "broker.example", ("null",), False, True),
        # No origins.
        ("file://", "", (), True, False),
        ("", "", (), True, False),
        ("https://", "", (), True, False),
        ("http://[", "broker.example", (), True, False),
        ("https://broker.example/", "broker.example", (), True, False),
        ("https://ann@broker.example", "broker.example", (), True, False),
        ("https://evil.example broker.example", "broker.example", (), True, False),
        ("https://br\udcf6ker.example", "br\udcf6ker.example", (), True, False),
    ],
)
def test_which_pages_may_connect(
    origin: str | None, host: str | None, origins: tuple[str, ...], secure: bool, allowed: bool
) -> None:
    assert (refusal(asked(origin, host), origins, secure) == "") is allowed


def test_more_than_one_is_none() -> None:
    for name in ("Origin", "Host"):
        headers = Headers(asked("https://broker.example", "broker.example"))
        headers[name] = "broker.example"
        assert refusal(headers, (), True) == "the request has more than one Origin or Host"


@pytest.mark.parametrize("origin", ["http://evil.example:8000", "http://[2001:db8::1]", "null", "https://a_b.example"])
def test_a_refusal_says_what_to_add(origin: str) -> None:
    why = refusal(asked(origin, "broker.example"), (), False)
    added = f'add it: websocket_origins = ["{origin}"]'
    assert added in why
    assert refusal(asked(origin, "broker.example"), Origins().read([origin]), False) == ""


def test_a_refusal_tells_a_name_that_may_be_ours_from_another() -> None:
    assert "DNS rebinding" in refusal(asked("http://broker.example", "broker.example"), (), False)
    assert "DNS rebinding" not in refusal(asked("http://broker.example", "other.example"), (), False)
    assert refusal(asked("https://x\n\udcff" + "y" * 300, "x"), (), True) == (
        "web pages of 'https://x\\n\\udcff" + "y" * 89 + "' may not connect"
    )
