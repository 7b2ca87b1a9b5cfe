"""The filters of an ACL as a tree: against oracles, against the same filters one by one, and what it costs."""

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.auth import rules
from broker.auth.rules import READ, WRITE, Names, Tree, is_covered
from broker.wire import topics
from broker.wire.topics import is_valid_filter, split_filter
from tests.topic_oracle import UNIVERSE, filters, matched

NOBODY = Names(None, "")


def tree(*plain: str, denying: bool = False) -> Tree:
    made = Tree(denying=denying)
    for each in plain:
        made.add(each, READ, pattern=False)
    return made


def common(wanted: str, granted: str) -> list[str]:
    """What two filters have in common, as filters."""
    found = tree(granted).common(split_filter(wanted.encode()), READ, NOBODY)
    return [b"/".join(each).decode() for each in found]


def covered(topic_filter: str, by: list[str]) -> bool:
    return is_covered(split_filter(topic_filter.encode()), [tree(*by, denying=True)], NOBODY)


@settings(deadline=None)
@given(st.lists(filters(), max_size=5), st.sampled_from(UNIVERSE))
def test_the_bits_are_those_of_all_filters_that_match(some: list[str], topic: str) -> None:
    made = Tree(denying=False)
    for number, each in enumerate(some):
        made.add(each, 1 << number, pattern=False)
    expected = sum({1 << number for number, each in enumerate(some) if topic in matched(each)})
    assert made.bits(tuple(topic.encode().split(b"/")), NOBODY) == expected


@settings(deadline=None)
@given(filters(), filters())
def test_common_is_the_set_of_topics_that_both_match(one: str, other: str) -> None:
    found = common(one, other)
    assert all(is_valid_filter(each.encode()) for each in found)
    assert frozenset().union(*map(matched, found)) == matched(one) & matched(other)


@settings(deadline=None)
@given(filters(), st.lists(filters(), max_size=4))
def test_is_covered_is_inclusion_in_the_union(topic_filter: str, by: list[str]) -> None:
    assert covered(topic_filter, by) is (matched(topic_filter) <= frozenset().union(*map(matched, by)))


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("/#", "+", None),  # only the empty topic would match both, and there is none
        ("a/#", "a", "a"),
        ("a/+/c", "+/b/+", "a/b/c"),
        ("a/#", "+/b/#", "a/b/#"),
        ("#", "$SYS/#", None),
        ("+/x", "$s/x", None),
        ("$s/#", "$s/+", "$s/+"),
        ("a/b", "a/c", None),
        ("a", "a/b", None),
        ("a/+", "a", None),
    ],
)
def test_intersections(one: str, other: str, expected: str | None) -> None:
    for a, b in ((one, other), (other, one)):
        assert common(a, b) == ([] if expected is None else [expected])


@pytest.mark.parametrize(
    ("topic_filter", "by", "expected"),
    [
        ("#", ["+/#"], True),
        ("+/#", ["#"], True),
        ("/#", ["/+/#"], True),
        ("a/#", ["a/+/#"], False),  # the parent level is left
        ("a/#", ["a", "a/+/#"], True),
        ("a/#", ["a", "a/+", "a/+/+/#"], True),
        ("a/#", ["a", "a/+/+/#"], False),
        ("a/+", ["a/x", "a/y"], False),
        ("a/x", ["a/+"], True),
        ("$s/#", ["#"], False),
        ("#", ["#", "$s/#"], True),
        ("+", [], False),
    ],
)
def test_coverings(topic_filter: str, by: list[str], expected: bool) -> None:
    assert covered(topic_filter, by) is expected


# --- patterns: each client by itself -----------------------------------------------------------------------------


def spelt_out(pattern: str, denying: bool, username: str | None, client_id: str) -> list[str]:
    """The filters that a pattern is for a client, written down."""
    if username is None and "%u" in pattern:
        return []
    used = [name for placeholder, name in (("%u", username), ("%c", client_id)) if placeholder in pattern]
    marked = pattern.replace("%u", "\0").replace("%c", client_id).replace("\0", username or "")
    if not denying:
        widens = any(not name or set("+#/") & set(name) for name in used)
        return [] if widens or not marked or (marked.startswith("$") and not pattern.startswith("$")) else [marked]
    levels = []
    for level in pattern.split("/"):
        filled = level.replace("%u", "\0").replace("%c", client_id).replace("\0", username or "")
        levels.append("+" if filled != level and set("+#") & set(filled) else filled)
    # A name that is a wildcard is denied all names, those that begin with `$` included: in UNIVERSE that is "$s".
    firsts = ["+", "$s"] if levels[0] == "+" and not pattern.startswith("+") else levels[:1]
    return list(filter(None, ("/".join([first, *levels[1:]]) for first in firsts)))


CLIENT_IDS = st.sampled_from(["a", "", "$s", "a/a", "/", "+", "a#", "z"])


@settings(deadline=None, max_examples=300)
@given(
    st.lists(filters(("", "a", "%c", "%u", "$%c"), 3), min_size=1, max_size=4),
    st.booleans(),
    st.sampled_from([None, "a", "z", "a/a", "", "+"]),
    CLIENT_IDS,
    st.lists(filters(), max_size=3),
)
def test_a_pattern_is_for_each_client_what_it_would_be_if_it_were_spelt_out(
    patterns: list[str], denying: bool, username: str | None, client_id: str, wanted: list[str]
) -> None:
    names = Names(username, client_id)
    made, plain = Tree(denying=denying), Tree(denying=denying)
    for pattern in patterns:
        made.add(pattern, READ, pattern=True)
        for filled in spelt_out(pattern, denying, username, client_id):
            plain.add(filled, READ, pattern=False)
    for topic in UNIVERSE:
        levels = tuple(topic.encode().split(b"/"))
        assert (topic, made.bits(levels, names)) == (topic, plain.bits(levels, names))
    for each in wanted:
        split = split_filter(each.encode())
        assert is_covered(split, [made], names) is is_covered(split, [plain], names)
        if not denying:
            found, expected = (set(one.common(split, READ, names)) for one in (made, plain))
            assert found == expected


# --- cost --------------------------------------------------------------------------------------------------------


def steps(function: Callable[..., object], *arguments: object) -> int:
    """How many lines of the modules a call runs: the same on every machine."""
    count = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        count += event == "line" and frame.f_code.co_filename in (rules.__file__, topics.__file__)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function(*arguments)
    finally:
        sys.settrace(before)
    return count


def test_a_decision_costs_the_same_however_many_filters_there_are() -> None:
    def asked(count: int) -> list[int]:
        made = Tree(denying=False)
        for number in range(count):
            made.add(f"site/{number}/+/state", READ, pattern=False)
            made.add(f"site/{number}/%c/set", WRITE, pattern=True)
        names = Names("bob", "device")
        return [
            steps(made.bits, (b"site", b"7", b"device", b"set"), names),
            steps(made.bits, (b"site", b"7", b"other", b"unknown"), names),
            steps(list, made.common((b"site", b"7", b"+", b"state"), READ, names)),
            steps(is_covered, (b"site", b"7", b"x", b"#"), [made], names),
        ]

    assert asked(20) == asked(20_000)


@pytest.mark.parametrize("tail", ["#", "+", "b"])
def test_relations_take_linear_time(tail: str) -> None:
    def related(n: int) -> int:
        wanted = split_filter(b"a/+/" * (n // 2) + b"#")
        deep = [tree("+/" * (2 * n) + "#"), tree("+/" * (2 * n) + "+"), tree("+/" * n + tail)]
        granted = tree("+/" * n + tail)
        return steps(list, granted.common(wanted, READ, NOBODY)) + steps(is_covered, (b"+", b"#"), deep, NOBODY)

    short, long = related(200), related(400)
    assert 200 <= short <= long <= 2 * short
