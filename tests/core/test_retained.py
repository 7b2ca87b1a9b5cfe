"""Retained messages by topic, against a dict that is searched through; and while others change them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.core.authors import AUTHOR
from broker.core.ports import RetainedRecord
from broker.core.retained import BRANCH, LOOK, Retained
from broker.wire.message import Message
from broker.wire.topics import matches


def record(topic: str, payload: str = "x") -> RetainedRecord:
    return RetainedRecord(Message(topic.encode(), payload.encode(), 1, retain=True), None, "author")


def filled(*topics: str) -> Retained:
    retained = Retained()
    for topic in topics:
        retained.set(record(topic))
    return retained


def found(records: Iterator[RetainedRecord | None]) -> list[str]:
    return [one.message.topic.decode() for one in records if one is not None]


NAMES = ("", "a", "b", "$x")
TOPICS = st.lists(st.sampled_from(NAMES), min_size=1, max_size=4).map("/".join).filter(bool)
FILTERS = st.builds(
    lambda levels, tail: "/".join([*levels, *tail]),
    st.lists(st.sampled_from((*NAMES, "+", "+")), max_size=3),
    st.sampled_from(([], ["#"], ["a"])),
).filter(bool)
CHANGES = st.lists(st.tuples(st.sampled_from(("set", "set", "remove")), TOPICS, st.integers(0, 9)), max_size=40)


def apply(retained: Retained, model: dict[str, RetainedRecord], change: tuple[str, str, int]) -> None:
    what, topic, size = change
    if what == "set":
        model[topic] = retained.set(record(topic, "x" * size))
    else:
        assert retained.remove(topic.encode()) is (model.pop(topic, None) is not None)
    assert retained.get(topic.encode()) is model.get(topic)


def branches(tree: dict[bytes, Any]) -> int:
    """How many there are below this one."""
    return sum(1 + branches(below) for below in tree.values() if isinstance(below, dict))


@settings(deadline=None, max_examples=100, derandomize=True)
@given(CHANGES, st.lists(FILTERS, min_size=1, max_size=5), st.lists(TOPICS, max_size=5))
def test_it_holds_what_a_dict_would_hold(
    changes: list[tuple[str, str, int]], filters: list[str], asked: list[str]
) -> None:
    retained = Retained()
    model: dict[str, RetainedRecord] = {}
    for change in changes:
        apply(retained, model, change)
        assert retained.count == len(model)
        assert retained.size == sum(one.message.size for one in model.values())
        assert retained.memory == retained.size + BRANCH * branches(retained._tree) + retained.authors.size
    for topic_filter in filters:
        expected = [topic for topic in model if matches(topic_filter.encode(), topic.encode())]
        assert sorted(found(retained.matching(topic_filter.encode()))) == sorted(expected)
    for topic in asked:
        assert retained.get(topic.encode()) is model.get(topic)
    for topic in list(model):
        apply(retained, model, ("remove", topic, 0))
    assert (retained.count, retained.memory, retained._tree) == (0, 0, {})


@settings(deadline=None, max_examples=100, derandomize=True)
@given(CHANGES, FILTERS, st.lists(st.tuples(st.integers(0, 3), CHANGES), max_size=8))
def test_a_slow_reader_sees_what_is_there_when_it_comes_by(
    before: list[tuple[str, str, int]], topic_filter: str, rounds: list[tuple[int, list[tuple[str, str, int]]]]
) -> None:
    """Whatever happens meanwhile: nothing that is gone or replaced, nothing that does not match, nothing twice, and
    all that was there the whole time."""
    retained = Retained()
    model: dict[str, RetainedRecord] = {}
    for change in before:
        apply(retained, model, change)
    stayed = {topic for topic in model if matches(topic_filter.encode(), topic.encode())}
    reader = retained.matching(topic_filter.encode())
    seen: list[str] = []

    def read(count: int) -> None:
        for _ in range(count):
            one = next((one for one in reader if one is not None), None)
            if one is None:
                return
            topic = one.message.topic.decode()
            assert model.get(topic) is one
            assert matches(topic_filter.encode(), topic.encode())
            seen.append(topic)

    for count, changes in rounds:
        read(count)
        for change in changes:
            apply(retained, model, change)
            if change[0] == "remove":
                stayed.discard(change[1])
    read(1_000)
    assert stayed <= set(seen)
    # Only what was removed and set again behind the reader's back could come twice, and it does not.
    assert sorted(seen) == sorted(set(seen))


def test_a_newer_message_takes_the_place_of_the_older() -> None:
    """[MQTT-3.3.1-7]"""
    retained = Retained()
    retained.set(record("a/b", "old and long"))
    newer = record("a/b", "new")
    retained.set(newer)
    assert (retained.get(b"a/b"), retained.count, retained.size) == (newer, 1, 6)


@pytest.mark.parametrize("absent", [b"a", b"a/b/c", b"a/c", b"b", b"a/b/", b"/a/b", b""])
def test_what_is_not_there(absent: bytes) -> None:
    retained = filled("a/b")
    assert (retained.get(absent), retained.remove(absent), retained.count) == (None, False, 1)


def test_a_topic_and_others_below_it() -> None:
    retained = filled("a", "a/b", "a/b/c")
    assert found(retained.matching(b"a")) == ["a"]
    assert found(retained.matching(b"a/b")) == ["a/b"]
    assert sorted(found(retained.matching(b"a/#"))) == ["a", "a/b", "a/b/c"]
    assert sorted(found(retained.matching(b"a/b/#"))) == ["a/b", "a/b/c"]
    assert found(retained.matching(b"a/+")) == ["a/b"]
    assert retained.remove(b"a/b")
    assert sorted(found(retained.matching(b"#"))) == ["a", "a/b/c"]
    assert retained.remove(b"a")
    assert found(retained.matching(b"a/#")) == ["a/b/c"]


@pytest.mark.parametrize(
    ("topic_filter", "expected"),
    [
        (b"#", ["/", "a", "a/$x"]),  # [MQTT-4.7.2-1]
        (b"+", ["a"]),
        (b"+/#", ["/", "a", "a/$x"]),
        (b"+/+", ["/", "a/$x"]),
        (b"$SYS/#", ["$SYS", "$SYS/up"]),
        (b"$SYS/+", ["$SYS/up"]),
        (b"a/+", ["a/$x"]),
        (b"/#", ["/"]),
        (b"/", ["/"]),
        (b"/+", ["/"]),
    ],
)
def test_dollars_and_empty_levels(topic_filter: bytes, expected: list[str]) -> None:
    retained = filled("$SYS", "$SYS/up", "a", "a/$x", "/")
    assert sorted(found(retained.matching(topic_filter))) == expected


@pytest.mark.parametrize("topic_filter", [b"#", b"/" * 5_000 + b"#", b"/" * 10_000])
def test_deep_topics(topic_filter: bytes) -> None:
    """Deeper than Python likes to recurse: max_topic_levels can be raised so far."""
    deep = "/" * 10_000
    retained = filled(deep, "a")
    assert deep in found(retained.matching(topic_filter))
    assert retained.remove(deep.encode())
    assert found(retained.matching(b"#")) == ["a"]


@pytest.mark.parametrize("topic_filter", [b"t/+/y", b"t/+/x", b"#", b"+/+/+"])
def test_a_reader_may_pause_though_nothing_matches(topic_filter: bytes) -> None:
    """Else one subscription to nothing would hold up all others for as long as the search takes."""
    retained = filled(*(f"t/{i}/x" for i in range(LOOK * 3)))
    since = longest = 0
    for one in retained.matching(topic_filter):
        since = since + 1 if one is not None else 0
        longest = max(longest, since)
    pauses = [one for one in retained.matching(topic_filter) if one is None]
    assert (3 <= len(pauses) <= 12, longest < LOOK) == (True, True)


def test_nothing_is_looked_at_before_it_is_asked_for() -> None:
    """A large set costs the turn in which its first slice is sent no more than that slice."""
    retained = Retained()
    for i in range(1_000):
        retained.set(record(f"t/{i}"))
    reader = retained.matching(b"t/+")
    assert found(iter([next(reader), next(reader)])) == ["t/0", "t/1"]
    for i in range(2, 1_000):
        retained.remove(b"t/%d" % i)
    assert found(reader) == []


def test_a_large_branch_may_change_while_it_is_read() -> None:
    """What stays comes once, what is removed is gone, and a branch that becomes empty is forgotten with its reader."""
    retained = filled(*(f"t/{i}" for i in range(2_000)))
    reader = retained.matching(b"t/+")
    first = list(islice((one for one in reader if one is not None), 10))
    for i in range(0, 2_000, 2):
        assert retained.remove(b"t/%d" % i)
    retained.set(record("t/4"))
    rest = {one.message.topic for one in reader if one is not None}
    assert {b"t/%d" % i for i in range(11, 2_000, 2)} <= rest
    assert not {one.message.topic for one in first} & rest
    assert (retained.count, len(found(retained.matching(b"#")))) == (1_001, 1_001)
    reader = retained.matching(b"#")
    assert next(reader) is not None
    for topic in found(retained.matching(b"#")):
        assert retained.remove(topic.encode())
    del reader
    assert (retained.count, retained.size, retained.memory, retained._tree) == (0, 0, 0, {})


# --- authors -----------------------------------------------------------------------------------------------------


def by(author: str, topic: str) -> RetainedRecord:
    return RetainedRecord(Message(topic.encode(), b"x", 1, retain=True), None, author)


def test_an_author_stands_once_however_often_they_connect() -> None:
    """Each connection brings its Client Identifier anew."""
    retained = Retained()
    for n in range(100):
        retained.set(by("".join(["long"] * 10_000), f"{n}"))
    assert {id(record.client_id) for record in retained.matching(b"#") if record} == {
        id(record.client_id) for record in [retained.get(b"0")] if record
    }
    assert retained.authors.size == AUTHOR + 40_000
    assert retained.memory == retained.size + retained.authors.size


def test_an_author_goes_with_the_last_of_their_messages() -> None:
    retained = Retained()
    retained.set(by("a", "1"))
    retained.set(by("a", "1"))
    retained.set(by("a", "2"))
    retained.set(by("b", "2"))
    assert retained.authors.size == 2 * (AUTHOR + 1)
    retained.set(by("b", "1"))
    assert retained.authors.size == AUTHOR + 1
    retained.remove(b"1")
    retained.remove(b"2")
    assert (retained.authors.size, retained.memory) == (0, 0)
