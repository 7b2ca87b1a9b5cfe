"""What counts as one place."""

from __future__ import annotations

import pytest

from broker.addresses import origin_of


@pytest.mark.parametrize(
    ("peer", "origin"),
    [
        ("192.0.2.1:1000", "192.0.2.1"),
        ("192.0.2.1", "192.0.2.1"),
        ("[2001:db8:1:2::3]:1000", "2001:0db8:0001:0002"),
        ("[2001:db8:1:2:ffff::]:2000", "2001:0db8:0001:0002"),
        ("[2001:db8:1:2:ffff::]", "2001:0db8:0001:0002"),
        ("2001:db8:1:2:ffff::", "2001:0db8:0001:0002"),
        ("::1", "0000:0000:0000:0000"),
        ("[fe80::1%eth0]:1000", "fe80:0000:0000:0000"),
        ("[::ffff:192.0.2.1]:1000", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("[what: is this]:1000", "what: is this"),
        ("unix:uid-1000", "unix:uid-1000"),
        ("unix:uid-1000:pid-4711", "unix:uid-1000"),
        ("unix:?", "unix:?"),
        ("", ""),
    ],
)
def test_an_origin(peer: str, origin: str) -> None:
    assert origin_of(peer) == origin
