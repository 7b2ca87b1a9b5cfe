"""Topic Names and Topic Filters, against the specification's examples and against oracles that share no code."""

import re
import sys
from collections.abc import Callable
from functools import cache
from itertools import product
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.wire import topics
from broker.wire.topics import (
    MAX_BYTES,
    filter_fault,
    intersect,
    is_covered,
    is_valid_filter,
    is_valid_topic,
    levels_match,
    matches,
    split_filter,
)

# --- the specification's examples --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("topic_filter", "topic", "expected"),
    [
        # section 4.7.1.2
        ("sport/tennis/player1/#", "sport/tennis/player1", True),
        ("sport/tennis/player1/#", "sport/tennis/player1/ranking", True),
        ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", True),
        ("sport/tennis/player1/#", "sport/tennis/player10", False),
        ("sport/#", "sport", True),
        ("#", "sport", True),
        ("#", "/", True),
        # section 4.7.1.3
        ("sport/tennis/+", "sport/tennis/player1", True),
        ("sport/tennis/+", "sport/tennis/player2", True),
        ("sport/tennis/+", "sport/tennis/player1/ranking", False),
        ("sport/+", "sport", False),
        ("sport/+", "sport/", True),
        ("+/tennis/#", "sport/tennis", True),
        ("+/tennis/#", "sport/tennis/player1/ranking", True),
        ("+/tennis/#", "sport/golf/player1", False),
        ("sport/+/player1", "sport/tennis/player1", True),
        ("sport/+/player1", "sport/tennis/indoor/player1", False),
        ("+/+", "/finance", True),
        ("/+", "/finance", True),
        ("+", "/finance", False),
        # section 4.7.2
        ("#", "$SYS/monitor/Clients", False),
        ("+/monitor/Clients", "$SYS/monitor/Clients", False),
        ("+", "$SYS", False),
        ("+/#", "$SYS/monitor", False),
        ("$SYS/#", "$SYS/monitor/Clients", True),
        ("$SYS/#", "$SYS", True),
        ("$SYS/monitor/+", "$SYS/monitor/Clients", True),
        ("sport/+", "sport/$price", True),
        ("sport/#", "sport/$price", True),
        # section 4.7.3
        ("accounts", "ACCOUNTS", False),
        ("accounts", "Accounts", False),
        ("Accounts payable", "Accounts payable", True),
        ("/finance", "finance", False),
        ("finance", "finance/", False),
        ("a//b", "a/b", False),
        ("a//b", "a//b", True),
        ("a/+/b", "a//b", True),
        # two spellings of one letter stay two [MQTT-4.7.3-4]
        ("caf\u00e9", "cafe\u0301", False),
        ("\ufeffa", "a", False),
    ],
)
def test_matches_what_the_specification_says(topic_filter: str, topic: str, expected: bool) -> None:
    assert matches(topic_filter.encode(), topic.encode()) is expected


@pytest.mark.parametrize(
    ("topic_filter", "fault"),
    [
        (b"#", None),
        (b"+", None),
        (b"/", None),
        (b"+/#", None),
        (b"/#", None),
        (b"+/tennis/#", None),
        (b"sport/+/player1", None),
        (b"sport/tennis/#", None),
        (b"a b/\xc3\xa9", None),
        (b"\xef\xbb\xbf", None),
        (b"", "it is empty"),
        (b"sport/tennis#", "'#' must stand alone, as the last level"),
        (b"sport/tennis/#/ranking", "'#' must stand alone, as the last level"),
        (b"##", "'#' must stand alone, as the last level"),
        (b"#/#", "'#' must stand alone, as the last level"),
        (b"#/", "'#' must stand alone, as the last level"),
        (b"+#", "'#' must stand alone, as the last level"),
        (b"sport+", "'+' must stand alone in its level"),
        (b"+sport/#", "'+' must stand alone in its level"),
        (b"a/++", "'+' must stand alone in its level"),
        (b"a\0b", "it contains a NUL character"),
        (b"a/\xff", "it is not valid UTF-8"),
        (b"\xed\xa0\x80", "it is not valid UTF-8"),  # a surrogate
        (b"\xc0\x80", "it is not valid UTF-8"),  # NUL in two bytes
        (b"a" * (MAX_BYTES + 1), "it is longer than 65535 bytes"),
        (b"a" * MAX_BYTES, None),
    ],
)
def test_filters(topic_filter: bytes, fault: str | None) -> None:
    assert (filter_fault(topic_filter), is_valid_filter(topic_filter)) == (fault, fault is None)


@pytest.mark.parametrize(
    ("topic", "valid"),
    [
        (b"a", True),
        (b"/", True),
        (b"a b//$\xc3\xa9", True),
        (b"$SYS/x", True),
        (b"\xef\xbb\xbfa", True),
        (b"a" * MAX_BYTES, True),
        (b"a" * (MAX_BYTES + 1), False),
        (b"", False),
        (b"a/+", False),
        (b"a+", False),
        (b"#", False),
        (b"a\0", False),
        (b"\xff", False),
        (b"\xed\xbf\xbf", False),
    ],
)
def test_topics(topic: bytes, valid: bool) -> None:
    assert is_valid_topic(topic) is valid


# --- oracles -----------------------------------------------------------------------------------------------------

#: "z" stands for all the names that no filter spells.
NAMES = ("", "a", "$s", "z")
#: Every topic of up to four levels: the filters below have at most three, and one level more tells them all apart.
UNIVERSE = [t for depth in range(1, 5) for t in map("/".join, product(NAMES, repeat=depth)) if t]


@cache
def oracle(topic_filter: str) -> re.Pattern[str]:
    """The filter as a regular expression, from the prose of section 4.7."""
    if topic_filter == "#":
        pattern = ".*"
    else:
        parent, tail = (topic_filter[:-2], "(?:/.*)?") if topic_filter.endswith("/#") else (topic_filter, "")
        pattern = re.escape(parent).replace(r"\+", "[^/]*") + tail
    return re.compile(("(?!\\$)" if topic_filter[0] in "+#" else "") + pattern, re.DOTALL)


@cache
def matched(topic_filter: str) -> frozenset[str]:
    return frozenset(filter(oracle(topic_filter).fullmatch, UNIVERSE))


def filters(names: tuple[str, ...] = NAMES[:-1], depth: int = 3) -> st.SearchStrategy[str]:
    heads = st.lists(st.sampled_from((*names, "+", "+")), max_size=depth - 1)
    tails = st.sampled_from((*names, "+", "#", "#"))
    return st.builds(lambda head, tail: "/".join((*head, tail)), heads, tails).filter(bool)


@settings(deadline=None)
@given(filters(), st.sampled_from(UNIVERSE))
def test_matches_agrees_with_a_regular_expression(topic_filter: str, topic: str) -> None:
    expected = oracle(topic_filter).fullmatch(topic) is not None
    assert matches(topic_filter.encode(), topic.encode()) is expected
    assert levels_match(split_filter(topic_filter.encode()), tuple(topic.encode().split(b"/"))) is expected


@settings(deadline=None)
@given(st.text("ab/+#$\0 \n\u00e9\ud800", max_size=8))
def test_validity_agrees_with_regular_expressions(text: str) -> None:
    encoded = text.encode("utf-8", "surrogatepass")
    level = "[^/+#\0\ud800]*"
    a_filter = re.fullmatch(rf"(?=.)(?:(?:{level}|\+)/)*(?:{level}|\+|\#)", text, re.DOTALL) is not None
    a_topic = re.fullmatch(rf"(?=.){level}(?:/{level})*", text, re.DOTALL) is not None
    assert (is_valid_filter(encoded), is_valid_topic(encoded)) == (a_filter, a_topic)


@settings(deadline=None)
@given(filters(), filters())
def test_intersect_is_the_set_of_topics_that_both_match(one: str, other: str) -> None:
    common = intersect(split_filter(one.encode()), split_filter(other.encode()))
    if common is not None:
        assert is_valid_filter(b"/".join(common))
    in_common = frozenset() if common is None else matched(b"/".join(common).decode())
    assert in_common == matched(one) & matched(other)


@settings(deadline=None)
@given(filters(), st.lists(filters(), max_size=4))
def test_is_covered_is_inclusion_in_the_union(topic_filter: str, by: list[str]) -> None:
    covered = is_covered(split_filter(topic_filter.encode()), [split_filter(other.encode()) for other in by])
    assert covered is (matched(topic_filter) <= frozenset().union(*map(matched, by)))


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
        common = intersect(split_filter(a.encode()), split_filter(b.encode()))
        assert (common and b"/".join(common).decode()) == expected


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
    assert is_covered(split_filter(topic_filter.encode()), [split_filter(f.encode()) for f in by]) is expected


# --- cost --------------------------------------------------------------------------------------------------------


def steps(function: Callable[..., object], *arguments: object) -> int:
    """How many lines of the module a call runs: the same on every machine."""
    count = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        count += event == "line" and frame.f_code.co_filename == topics.__file__
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function(*arguments)
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize(
    ("topic_filter", "topic"),
    [
        (lambda n: b"+/" * n + b"b", lambda n: b"a/" * n + b"a"),
        (lambda n: b"+/" * n + b"#", lambda n: b"a/" * n + b"a"),
        (lambda n: b"a/" * n + b"#", lambda n: b"a/" * (n - 1) + b"a"),
        (lambda n: b"/" * n + b"#", lambda n: b"/" * n),
        (lambda n: b"+/a/" * (n // 2) + b"#", lambda n: b"a/" * n + b"b"),
    ],
)
def test_matching_takes_linear_time(topic_filter: Callable[[int], bytes], topic: Callable[[int], bytes]) -> None:
    short, long = (steps(matches, topic_filter(n), topic(n)) for n in (200, 400))
    assert 200 <= short <= long <= 2 * short


@pytest.mark.parametrize("tail", [b"#", b"+", b"b"])
def test_relations_take_linear_time(tail: bytes) -> None:
    def related(n: int) -> int:
        one, other = split_filter(b"+/" * n + tail), split_filter(b"a/+/" * (n // 2) + b"#")
        deep = [split_filter(b"+/" * (2 * n) + b"#"), split_filter(b"+/" * (2 * n) + b"+"), one]
        return steps(intersect, one, other) + steps(is_covered, split_filter(b"+/#"), deep)

    short, long = related(200), related(400)
    assert 200 <= short <= long <= 2 * short
