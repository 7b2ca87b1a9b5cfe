"""Properties as sections: read, written, and the two ways in which a PUBLISH's are read agree. (Which are wrong, and
how: tests.vectors5.)"""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.wire import properties
from broker.wire.codes import AUTH, CONNACK, CONNECT, DISCONNECT, PUBACK, PUBLISH, SUBSCRIBE, ProtocolError
from broker.wire.properties import MAX_USER_PROPERTIES, PROPERTIES, WILL, Published, encode, kept, parse, published
from tests.vectors import string
from tests.vectors5 import VALUES, four, section, user

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30)
BINARY = st.binary(max_size=30)
BY_NAME = {
    "Byte": st.integers(0, 1),
    "Two": st.integers(1, 65_535),
    "Four": st.integers(1, 0xFFFFFFFF),
    "Variable": st.integers(1, 268_435_455),
}


def strategy(identifier: int) -> st.SearchStrategy[Any]:
    size = len(VALUES[identifier])
    if identifier == 0x0B:
        return BY_NAME["Variable"]
    if identifier == 0x26:
        pair = st.tuples(TEXT.map(str.encode), TEXT.map(str.encode))
        return st.lists(pair, min_size=1, max_size=5)
    if identifier in (0x09, 0x16):
        return BINARY
    if identifier == 0x08:
        return TEXT.filter(lambda text: text and "+" not in text and "#" not in text)
    if identifier in (0x03, 0x12, 0x15, 0x1A, 0x1C, 0x1F):
        return TEXT
    return BY_NAME[{1: "Byte", 2: "Two", 4: "Four"}[size]]


@st.composite
def sections(draw: st.DrawFn, packet: int) -> dict[int, Any]:
    """Some of what may stand in a packet of this type, in any order."""
    allowed = [identifier for identifier, row in PROPERTIES.items() if packet in row.packets]
    chosen = draw(st.lists(st.sampled_from(allowed), unique=True))
    values = {identifier: draw(strategy(identifier)) for identifier in chosen}
    if packet == PUBLISH and 0x0B in values:
        values[0x0B] = [values[0x0B]]
    return values


PACKETS = st.sampled_from([CONNECT, CONNACK, PUBLISH, WILL, PUBACK, SUBSCRIBE, DISCONNECT, AUTH])


@settings(deadline=None, max_examples=150, derandomize=True)
@given(st.data())
def test_what_is_written_is_read_again(data: st.DataObject) -> None:
    packet = data.draw(PACKETS)
    values = data.draw(sections(packet))
    written = section(encode(values))
    before, behind = data.draw(BINARY), data.draw(BINARY)
    read, at = parse(before + written + behind, len(before), len(before + written), packet)
    assert (read, at) == (values, len(before + written))


@pytest.mark.parametrize("identifier", sorted(VALUES))
def test_the_bytes_of_each(identifier: int) -> None:
    raw = bytes((identifier,)) + VALUES[identifier]
    packet = min(PROPERTIES[identifier].packets)
    values, _ = parse(section(raw), 0, 1 + len(raw), packet)
    assert (list(values), encode(values)) == ([identifier], raw)


def test_all_are_in_the_table() -> None:
    assert (sorted(PROPERTIES), len({row.name for row in PROPERTIES.values()})) == (sorted(VALUES), 27)


def test_a_text_may_be_given_as_bytes_and_a_pair_as_texts() -> None:
    values = {0x1F: b"why", 0x26: [("a", "b"), (b"c", b"d")], 0x0B: [1, 200]}
    assert encode(values) == b"\x1f" + string(b"why") + user(b"a", b"b") + user(b"c", b"d") + b"\x0b\x01\x0b\xc8\x01"


def test_what_is_kept_of_a_will() -> None:
    values = {0x18: 1, 0x02: 2, 0x26: [(b"a", b"b")], 0x01: 0, 0x09: b"\0", 0x03: "t", 0x08: "r"}
    assert kept(values) == user(b"a", b"b") + b"\1\0" + b"\x09" + string(b"\0") + b"\3" + string(b"t") + b"\x08\0\1r"


# --- PUBLISH -----------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=150, derandomize=True)
@given(sections(PUBLISH))
def test_what_belongs_to_the_message_is_kept_in_its_order(values: dict[int, Any]) -> None:
    values.pop(0x0B, None)
    told = published(encode(values))
    others = {identifier: value for identifier, value in values.items() if identifier not in (0x02, 0x23)}
    assert told == Published(
        values.get(0x23, 0), values.get(0x02), encode(others), not (0x02 in values or 0x23 in values)
    )


ANY = st.lists(
    st.one_of(
        st.sampled_from([bytes((identifier,)) + value for identifier, value in VALUES.items()]),
        st.binary(max_size=4),
        st.just(user(b"a", b"\xff")),
        st.just(b"\x23\0\0"),
        st.just(b"\x03\0\2\0a"),
    ),
    max_size=5,
).map(b"".join)


@settings(deadline=None, max_examples=400, derandomize=True)
@given(ANY)
def test_both_readers_of_a_publish_agree(raw: bytes) -> None:
    properties.known.clear()
    first: object
    try:
        values, _ = parse(section(raw), 0, len(section(raw)), PUBLISH)
        first = 0x82 if 0x0B in values else (values.get(0x23, 0), values.get(0x02))
    except ProtocolError as error:
        first = error.reason
    second: object
    try:
        told = published(raw)
        second = told.alias, told.expiry
    except ProtocolError as error:
        second = error.reason
    # With several mistakes, each may find another one.
    both_wrong = isinstance(first, int) and isinstance(second, int)
    assert both_wrong or first == second


# --- cost --------------------------------------------------------------------------------------------------------


def test_no_more_user_properties_than_the_limit() -> None:
    most = user(b"", b"") * MAX_USER_PROPERTIES
    values, _ = parse(section(most), 0, len(section(most)), CONNECT)
    assert (len(values[0x26]), published(most).kept) == (MAX_USER_PROPERTIES, most)


def seconds(raw: bytes) -> float:
    best = 1e9
    for _ in range(3):
        began = time.process_time()
        published(raw)
        best = min(best, time.process_time() - began)
    return best


@pytest.mark.parametrize(
    "pair",
    [user(b"", b""), user(b"n" * 1_000, "é".encode() * 500), user(b"same", b"same")],
    ids=["empty", "long", "the same"],
)
def test_the_time_grows_with_the_bytes(pair: bytes) -> None:
    """Not with their square: eight times as much is not thirty times as dear."""
    quick, slow = seconds(pair * 500), seconds(pair * 4_000)
    assert slow < 30 * quick + 0.01


def test_sixteen_mebibytes_are_a_short_step() -> None:
    pair = user(b"n" * 65_535, b"v" * 65_535)
    raw = b"\x02" + four(1) + pair * ((1 << 24) // len(pair))
    assert seconds(raw) < 1
