"""X-Forwarded-For: whom it names, and that nobody makes up an address."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.net.forwarded import client_of
from broker.net.proxy import Trusted

OURS = Trusted(["10.0.0.0/8", "2001:db8:ffff::/48", "unix"])


@pytest.mark.parametrize(
    ("values", "client"),
    [
        ([], None),
        ([""], None),
        ([" , ,"], None),
        (["203.0.113.7"], "203.0.113.7"),
        # What stands before is the client's own, or that of proxies that are not ours.
        (["198.51.100.1, 203.0.113.7"], "203.0.113.7"),
        (["10.0.0.1, 203.0.113.7"], "203.0.113.7"),
        (["203.0.113.7, 10.0.0.1, 10.0.0.2"], "203.0.113.7"),
        (["198.51.100.1", "203.0.113.7, 10.0.0.1", "10.0.0.2"], "203.0.113.7"),
        (["198.51.100.1", "203.0.113.7"], "203.0.113.7"),
        (["203.0.113.7, 2001:db8:ffff::1"], "203.0.113.7"),
        (["10.0.0.1, 10.0.0.2"], "10.0.0.1"),
        (["203.0.113.7,,  10.0.0.1 ,"], "203.0.113.7"),
        # With ports, in IPv6, in other spellings.
        (["203.0.113.7:4711"], "203.0.113.7"),
        (["[2001:db8::7]:4711"], "2001:db8::7"),
        (["[2001:db8::7]"], "2001:db8::7"),
        (["2001:DB8:0::7"], "2001:db8::7"),
        (["::ffff:203.0.113.7"], "203.0.113.7"),
        (["203.0.113.7, ::ffff:10.0.0.1"], "203.0.113.7"),
        # Nonsense: what is behind it still counts.
        (["unknown"], None),
        (["203.0.113.7, unknown"], None),
        (["203.0.113.7, unknown, 10.0.0.1"], "10.0.0.1"),
        (["203.0.113.7, _hidden, 10.0.0.1"], "10.0.0.1"),
        (["unknown, 203.0.113.7"], "203.0.113.7"),
        (["203.0.113.7:port"], None),
        (["203.0.113.7:123456"], None),
        (["203.0.113"], None),
        (["fe80::1%eth0"], None),
        (["[203.0.113.7"], None),
        (["unix:uid-0"], None),
        (["unix"], None),
        (["\udcff\x00é"], None),
        (["1" * 30_000], None),
        (["," * 30_000], None),
        (["٢٠٣.0.113.7"], None),
    ],
)
def test_whom_the_header_names(values: list[str], client: str | None) -> None:
    assert client_of(values, OURS) == client


@given(st.lists(st.text(max_size=40) | st.from_regex(r"[0-9a-f.:\[\], ]{0,40}", fullmatch=True), max_size=4))
def test_whatever_a_client_sends_our_proxy_s_word_about_it_counts(made_up: list[str]) -> None:
    assert client_of([*made_up, "203.0.113.7"], OURS) == "203.0.113.7"
    assert client_of([", ".join([*made_up, "203.0.113.7, 10.0.0.9"])], OURS) == "203.0.113.7"
    client_of(made_up, OURS)  # and nothing is too strange
