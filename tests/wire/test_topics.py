"""Topic Names and Topic Filters, against the specification's examples and against oracles that share no code."""

import re
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.wire import topics
from broker.wire.topics import (
    MAX_BYTES,
    filter_fault,
    is_valid_filter,
    is_valid_topic,
    matches,
    split_filter,
)
from tests.topic_oracle import UNIVERSE, filters, oracle

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


@settings(deadline=None)
@given(filters(), st.sampled_from(UNIVERSE))
def test_matches_agrees_with_a_regular_expression(topic_filter: str, topic: str) -> None:
    expected = oracle(topic_filter).fullmatch(topic) is not None
    assert matches(topic_filter.encode(), topic.encode()) is expected
    spelt = b"/".join(split_filter(topic_filter.encode()))
    assert matches(spelt, topic.encode()) is expected


@settings(deadline=None)
@given(st.text("ab/+#$\0 \n\u00e9\ud800", max_size=8))
def test_validity_agrees_with_regular_expressions(text: str) -> None:
    encoded = text.encode("utf-8", "surrogatepass")
    level = "[^/+#\0\ud800]*"
    a_filter = re.fullmatch(rf"(?=.)(?:(?:{level}|\+)/)*(?:{level}|\+|\#)", text, re.DOTALL) is not None
    a_topic = re.fullmatch(rf"(?=.){level}(?:/{level})*", text, re.DOTALL) is not None
    assert (is_valid_filter(encoded), is_valid_topic(encoded)) == (a_filter, a_topic)


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


# --- Shared Subscriptions ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("topic_filter", "expected"),
    [
        (b"$share/g/a", (b"g", b"a")),
        (b"$share/g/a/+/#", (b"g", b"a/+/#")),
        (b"$share/g//", (b"g", b"/")),
        (b"$share/$g/$SYS/#", (b"$g", b"$SYS/#")),
        (b"$share/g/$share/h/a", (b"g", b"$share/h/a")),
        (b"$share", None),
        (b"$share/", None),
        (b"$share/g", None),
        (b"$share/g/", None),
        (b"$share//a", None),
        (b"$share/+/a", None),
        (b"$share/#/a", None),
        (b"$shared/g/a", None),
        (b"share/g/a", None),
    ],
)
def test_a_shared_subscription_names_a_group_and_a_filter(
    topic_filter: bytes, expected: tuple[bytes, bytes] | None
) -> None:
    """[MQTT-4.8.2-1] [MQTT-4.8.2-2]"""
    assert topics.split_share(topic_filter) == expected
