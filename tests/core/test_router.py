"""Who gets a message, against a search through all filters."""

from __future__ import annotations

import gc
import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.core import router as router_module
from broker.core.account import BRANCHES, Account
from broker.core.filter_tree import Node
from broker.core.limits import Limits
from broker.core.looking_back import Holder
from broker.core.route import Route
from broker.core.router import LONGEST_REMEMBERED, MAX_ROUTES, Router
from broker.core.session import Discard, Session
from broker.wire.codes import ProtocolError
from tests.core.harness import Forbidden


def make_session(name: str = "c", store_id: int = 0) -> Session:
    return Session(name, store_id, Discard())


def name_of(holder: Holder) -> str:
    assert isinstance(holder, Session)
    return holder.client_id


def granted(route: Route) -> dict[str, int]:
    """Who gets it at which QoS; that it says so in one way only is checked."""
    by_qos = {0: route.granted0, 1: route.granted1, 2: route.granted2}
    found = {name_of(target): qos for qos, targets in by_qos.items() for target in targets}
    assert route.size == len(route.targets) == len(found) == sum(map(len, by_qos.values()))
    assert set(map(name_of, route.targets)) == set(found)
    return found


def ask(router: Router, topic: bytes) -> dict[str, int]:
    """As the exchange asks: the route that is remembered, or a new one."""
    return granted(router.known(topic) or router.route(topic))


def nodes(router: Router) -> list[Node]:
    found = [router._tree.root]
    for node in found:
        found += node.children.values()
    return found


def slow_match(topic_filter: str, topic: str) -> bool:
    """Section 4.7, word by word."""
    if topic.startswith("$") and topic_filter[0] in "+#":
        return False  # [MQTT-4.7.2-1]
    wanted, levels = topic_filter.split("/"), topic.split("/")
    while wanted and levels:
        if wanted[0] == "#":
            return True
        if wanted[0] not in ("+", levels[0]):
            return False
        del wanted[0], levels[0]
    return not levels and wanted in ([], ["#"])


NAMES = ("", "a", "b", "$x")
TOPICS = st.lists(st.sampled_from(NAMES), min_size=1, max_size=4).map("/".join).filter(bool)
FILTERS = st.builds(
    lambda levels, tail: "/".join([*levels, *tail]),
    st.lists(st.sampled_from((*NAMES, "+", "+")), max_size=3),
    st.sampled_from(([], ["#"], ["a"])),
).filter(bool)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("subscribe"), st.integers(0, 3), FILTERS, st.integers(0, 2)),
        st.tuples(st.just("unsubscribe"), st.integers(0, 3), FILTERS, st.just(0)),
        st.tuples(st.just("match"), st.just(0), TOPICS, st.just(0)),
    ),
    min_size=5,
    max_size=60,
)


@settings(deadline=None, max_examples=100, derandomize=True)
@given(STEPS)
def test_a_route_is_what_a_search_through_all_filters_finds(steps: list[tuple[str, int, str, int]]) -> None:
    router = Router(Limits())
    sessions = [make_session(str(i), store_id=i % 2) for i in range(4)]
    held: dict[tuple[int, str], int] = {}
    asked: set[str] = set()
    for what, number, text, qos in steps:
        if what == "subscribe":
            new = router.subscribe(sessions[number], text.encode(), qos)
            assert new is ((number, text) not in held)
            held[number, text] = qos
        elif what == "unsubscribe":
            removed = router.unsubscribe(sessions[number], text.encode())
            assert removed is (held.pop((number, text), None) is not None)
        else:
            asked.add(text)
        assert router.count == len(held)
        for topic in asked:  # again and again, so that what is remembered must be forgotten in time
            expected: dict[str, int] = {}
            for (owner, topic_filter), has in held.items():
                if slow_match(topic_filter, topic):
                    expected[str(owner)] = max(has, expected.get(str(owner), 0))  # [MQTT-3.3.5-1]
            assert ask(router, topic.encode()) == expected
            route = router.known(topic.encode())
            assert route is not None
            assert route.durable == any(has and int(owner) % 2 for owner, has in expected.items())
    for owner, topic_filter in list(held):
        assert router.unsubscribe(sessions[owner], topic_filter.encode())
    assert_empty(router)


def assert_empty(router: Router) -> None:
    """Nothing is left of what has gone."""
    assert (router.count, router._exact, len(nodes(router))) == (0, {}, 1)
    assert (router._tree.root.here, router._tree.root.rest) == (None, None)


def test_empty_branches_are_removed_and_others_stay() -> None:
    router = Router(Limits())
    one, two = make_session("one"), make_session("two")
    filters = [b"a/+/c/d", b"a/+/c", b"a/+/#", b"+/b", b"#", b"+/+/+/#", b"plain/topic"]
    for topic_filter in filters:
        router.subscribe(one, topic_filter, 1)
        router.subscribe(two, topic_filter, 0)
    before = len(nodes(router))
    for topic_filter in filters:
        assert router.unsubscribe(one, topic_filter)
    assert (len(nodes(router)), router.count) == (before, len(filters))
    assert router.unsubscribe(two, b"a/+/c/d")
    assert len(nodes(router)) == before - 1
    assert ask(router, b"a/x/c") == {"two": 0}
    for topic_filter in filters[1:]:
        assert router.unsubscribe(two, topic_filter)
    assert_empty(router)


def test_a_filter_is_removed_only_by_its_very_text() -> None:
    """[MQTT-3.10.4-1]"""
    router = Router(Limits())
    session = make_session()
    router.subscribe(session, b"a/+", 1)
    router.subscribe(session, b"a/b", 1)
    router.subscribe(session, b"a/#", 1)
    for other in (b"a/x", b"+/b", b"#", b"a", b"a/+/#", b"a/b/c", b"A/b", b"+/+"):
        assert router.unsubscribe(session, other) is False
    assert router.unsubscribe(make_session("other"), b"a/+") is False
    assert router.count == 3


def test_a_second_subscription_with_the_same_filter_takes_the_place_of_the_first() -> None:
    """[MQTT-3.8.4-3]"""
    router = Router(Limits())
    session = make_session()
    for topic_filter in (b"a/b", b"a/+"):
        assert [router.subscribe(session, topic_filter, qos) for qos in (2, 1, 0)] == [True, False, False]
        assert ask(router, b"a/b") == {"c": 0}
    assert router.count == 2


def test_who_subscribed_twice_gets_one_message_at_the_highest_qos() -> None:
    """[MQTT-3.3.5-1]"""
    router = Router(Limits())
    session = make_session()
    for topic_filter, qos in ((b"a/b", 0), (b"a/+", 2), (b"#", 1)):
        router.subscribe(session, topic_filter, qos)
    assert ask(router, b"a/b") == {"c": 2}


@pytest.mark.parametrize("topic", [b"$x", b"$x/a", b"$x/a/b", b"$SYS/broker/uptime"])
def test_a_wildcard_in_front_has_no_part_in_topics_with_a_dollar(topic: bytes) -> None:
    """[MQTT-4.7.2-1]"""
    router = Router(Limits())
    session = make_session()
    for topic_filter in (b"#", b"+", b"+/#", b"+/a", b"+/a/b", b"+/+", b"+/+/+", b"/#"):
        router.subscribe(session, topic_filter, 0)
    assert ask(router, topic) == {}
    router.subscribe(session, topic.split(b"/")[0] + b"/#", 1)
    assert ask(router, topic) == {"c": 1}


def test_a_dollar_further_back_is_a_letter_as_any_other() -> None:
    router = Router(Limits())
    router.subscribe(make_session(), b"a/+", 0)
    assert ask(router, b"a/$x") == {"c": 0}


# --- what is remembered ------------------------------------------------------------------------------------------


def test_a_route_is_remembered_until_a_subscription_that_may_matter_changes() -> None:
    router = Router(Limits())
    one, two = make_session("one"), make_session("two")
    router.subscribe(one, b"a/b", 0)
    first = router.route(b"a/b")
    router.route(b"x")
    assert router.known(b"a/b") is first
    router.subscribe(two, b"other", 0)
    assert router.known(b"a/b") is first
    router.subscribe(two, b"a/b", 1)
    assert router.known(b"a/b") is None
    assert router.known(b"x") is not None
    assert ask(router, b"a/b") == {"one": 0, "two": 1}
    router.unsubscribe(two, b"a/b")
    assert ask(router, b"a/b") == {"one": 0}
    router.subscribe(two, b"a/#", 2)
    assert ask(router, b"a/b") == {"one": 0, "two": 2}
    router.unsubscribe(two, b"a/#")
    assert ask(router, b"a/b") == {"one": 0}
    router.unsubscribe(one, b"a/b")
    assert ask(router, b"a/b") == {}


def test_no_more_routes_are_remembered_than_the_limit() -> None:
    router = Router(Limits())
    router.subscribe(make_session(), b"#", 0)
    for i in range(MAX_ROUTES + 10):
        assert ask(router, b"t/%d" % i) == {"c": 0}
    assert 0 < len(router._routes) <= MAX_ROUTES + router.count
    assert ask(router, b"t/0") == {"c": 0}


def test_as_many_more_routes_are_remembered_as_there_are_subscriptions() -> None:
    """Who publishes to each of many subscriptions in turn finds them all again."""
    router = Router(Limits())
    count = MAX_ROUTES + 10
    for i in range(count):
        router.subscribe(make_session(str(i % 3)), b"t/%d" % i, 0)
    for i in range(count):
        router.route(b"t/%d" % i)
    assert count == len(router._routes)


def test_topics_with_the_same_sessions_have_one_route() -> None:
    router = Router(Limits())
    one, other = make_session("1"), make_session("2")
    router.subscribe(one, b"one/#", 0)
    router.subscribe(other, b"other/#", 1)
    router.subscribe(one, b"other/low", 0)
    assert router.route(b"one/a") is router.route(b"one/b")
    assert router.route(b"one/a") is not router.route(b"other/a")
    assert router.route(b"other/low") is not router.route(b"other/a")
    router.subscribe(one, b"other/a", 2)
    assert [ask(router, topic) for topic in (b"one/a", b"other/a", b"other/b")] == [
        {"1": 0}, {"1": 2, "2": 1}, {"2": 1},
    ]  # fmt: skip


def test_what_nobody_is_routed_to_any_more_is_not_held() -> None:
    """Clients that come, subscribe to a topic of their own, and go."""
    router = Router(Limits())
    for i in range(100):
        session = make_session(str(i))
        router.subscribe(session, b"t/%d" % i, 0)
        router.route(b"t/%d" % i)
        router.unsubscribe(session, b"t/%d" % i)
    assert (len(router._routes), len(router._shared)) == (0, 0)


def test_no_more_sessions_stand_in_what_is_remembered_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many who subscribe to all, and one who publishes to many topics."""
    monkeypatch.setattr(router_module, "MAX_TARGETS", 1_000)
    router = Router(Limits())
    for i in range(100):
        router.subscribe(make_session(str(i)), b"#", 0)
    for i in range(50):
        assert len(ask(router, b"t/%d" % i)) == 100
        assert sum(route.size for route in router._routes.values()) <= 1_000
    assert len(router._routes) > 5


def test_long_topics_are_not_remembered_but_served() -> None:
    """Else a client that publishes to ever new ones would fill the memory."""
    router = Router(Limits())
    router.subscribe(make_session(), b"#", 0)
    longest = b"t" * LONGEST_REMEMBERED
    assert (ask(router, longest), router.known(longest) is not None) == ({"c": 0}, True)
    for i in range(3):
        assert ask(router, longest + b"%d" % i) == {"c": 0}
    assert len(router._routes) == 1


def test_a_session_is_not_kept_alive_by_its_routes() -> None:
    router = Router(Limits())
    session = make_session("gone for good")
    for topic_filter in (b"a/b", b"a/+"):
        router.subscribe(session, topic_filter, 1)
        router.route(b"a/b")
        router.unsubscribe(session, topic_filter)
    assert [holder for holder in gc.get_referrers(session) if isinstance(holder, list | dict)
            and holder is not globals()] == []  # fmt: skip


# --- rights and limits -------------------------------------------------------------------------------------------


def test_who_may_not_receive_a_topic_is_not_in_its_route() -> None:
    router = Router(Limits())
    one, two = make_session("one"), make_session("two")
    one.rights = Forbidden(receive=[b"a/secret"])
    for session in (one, two):
        router.subscribe(session, b"a/#", 1)
        router.subscribe(session, b"a/secret", 2)
    assert ask(router, b"a/secret") == {"two": 2}
    assert ask(router, b"a/open") == {"one": 1, "two": 1}
    one.rights = Forbidden(receive=[b"a/open"])
    router.forget_routes()
    assert ask(router, b"a/secret") == {"one": 2, "two": 2}
    assert ask(router, b"a/open") == {"two": 1}


def test_a_route_says_whether_its_topic_is_the_broker_s_own() -> None:
    router = Router(Limits())
    reserved = {
        topic: router.route(topic).reserved
        for topic in (
            b"$SYS",
            b"$SYS/",
            b"$SYS/broker/uptime",
            b"$SYSTEM/x",
            b"$sys/x",
            b"$S",
            b"$",
            b"SYS/x",
            b"a/$SYS",
        )
    }
    assert [topic for topic, yes in reserved.items() if yes] == [b"$SYS", b"$SYS/", b"$SYS/broker/uptime"]


@pytest.mark.parametrize("topic", [b"", b"a/+", b"#", b"a\0b", b"\xff", b"a/\xed\xa0\x80"])
def test_a_topic_that_nobody_can_publish_to_has_no_route(topic: bytes) -> None:
    router = Router(Limits())
    router.subscribe(make_session(), b"#", 0)
    with pytest.raises(ProtocolError, match="a Topic Name that is empty, not UTF-8, or holds a wildcard or NUL"):
        router.route(topic)
    assert router.known(topic) is None


@pytest.mark.parametrize(
    ("topic", "why"),
    [
        (b"a/b/c", None),
        (b"a/b/c/d", "a Topic Name of more than 3 levels (max_topic_levels)"),
        (b"///", "a Topic Name of more than 3 levels (max_topic_levels)"),
        (b"x" * 10, None),
        (b"x" * 11, "a Topic Name of 11 bytes, over the limit of 10 (max_topic_length)"),
    ],
)
def test_limits_of_topics(topic: bytes, why: str | None) -> None:
    router = Router(Limits(max_topic_levels=3, max_topic_length=10))
    if why is None:
        assert granted(router.route(topic)) == {}
    else:
        with pytest.raises(ProtocolError) as error:
            router.route(topic)
        assert (error.value.why, error.value.code) == (why, None)


def test_a_match_does_not_look_at_filters_that_the_topic_cannot_reach() -> None:
    """The cost of a new topic is that of its own branches, and not that of all subscriptions."""
    touched: list[bytes] = []

    class Watched(dict[bytes, Any]):
        def get(self, key: bytes, default: Any = None) -> Any:
            touched.append(key)
            return super().get(key, default)

    def cost(others: int) -> int:
        router = Router(Limits())
        router.subscribe(make_session(), b"a/+/c", 0)
        for i in range(others):
            router.subscribe(make_session(), b"x%d/+/c" % i, 0)
            router.subscribe(make_session(), b"a/y%d/+" % i, 0)
        for node in nodes(router):
            node.children = Watched(node.children)
        touched.clear()
        assert ask(router, b"a/b/c") == {"c": 0}
        return len(touched)

    assert cost(0) == cost(500) > 0


def test_a_match_that_takes_long_is_done_in_steps() -> None:
    """4,096 filters that all match: the same sessions come out, whatever happens between two steps."""
    account = Account()
    router = Router(Limits(), account)
    sessions = [Session(f"c{number}", 0, Discard()) for number in range(3)]
    filters = ["/".join((*levels, "#")).encode() for levels in itertools.product("a+", repeat=12)]
    for number, topic_filter in enumerate(filters):
        router.subscribe(sessions[number % 3], topic_filter, number % 2)
    assert router.wildcards == len(filters)
    topic = b"/".join([b"a"] * 12 + [b"x"])
    steps = sum(1 for _ in router.route_in_steps(topic))
    assert steps >= 3
    spent = account.spent
    assert spent >= 2 * len(filters) // BRANCHES
    route = router.route(topic)
    assert account.spent - spent < 50  # nothing is looked for again
    assert set(route.targets) == set(sessions)

    # Who unsubscribes meanwhile gets nothing any more; the search begins again, and in the end is not needed.
    for changing in (1, 10):
        router.forget_routes()
        for number, _ in enumerate(router.route_in_steps(topic)):
            if number < changing:
                for one in range(3):
                    router.unsubscribe(sessions[2], filters[2 + 3 * (number * 3 + one)])
        for topic_filter in filters:
            router.unsubscribe(sessions[2], topic_filter)
        assert set(router.route(topic).targets) == set(sessions[:2])
        for number, topic_filter in enumerate(filters[2::3]):
            router.subscribe(sessions[2], topic_filter, number % 2)
    assert router.wildcards == router.count == len(filters)
