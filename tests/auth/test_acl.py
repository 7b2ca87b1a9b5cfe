"""The ACL file, against a list of what it says, a brute-force search, and mosquitto itself."""

import queue
import re
import sys
from collections.abc import Callable, Iterable
from functools import cache
from itertools import product
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from paho.mqtt.client import Client as PahoClient
from paho.mqtt.client import MQTTv5
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.subscribeoptions import SubscribeOptions

from broker.auth import acl, rules
from broker.auth.acl import Acl, FileError, Rights
from broker.wire import topics
from tests.end_to_end.paho_client import let_go


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "acl")


def read(path: str, text: str) -> Acl:
    Path(path).write_bytes(text.encode())
    return Acl.read(path)


def allowed(rights: Rights, names: str) -> str:
    """For each topic of a list: its name with `w` where it may be published, and `r` where it may be received."""
    return " ".join(
        f"{name}:{'w' * rights.may_publish(name.encode())}{'r' * rights.may_receive(name.encode())}"
        for name in names.split()
    )


def subscribable(rights: Rights, filters: str) -> list[str]:
    return [f for f in filters.split() if rights.may_subscribe(f.encode())]


# --- what the lines mean -----------------------------------------------------------------------------------------


def test_topic_lines_before_a_user_line_are_for_anonymous_clients_only(path: str) -> None:
    file = read(path, "topic read news\nuser bob\ntopic write in\ntopic both\n")
    assert {who: allowed(file.rights(who, "c"), "news in both") for who in (None, "bob", "eve", "")} == {
        None: "news:r in: both:",
        "bob": "news: in:w both:wr",
        "eve": "news: in: both:",
        "": "news: in: both:",
    }


def test_access_words(path: str) -> None:
    file = read(path, "topic read r\ntopic write w\ntopic readwrite rw\ntopic d\ntopic deny d\ntopic none\n")
    assert allowed(file.rights(None, "c"), "r w rw d none x") == "r:r w:w rw:wr d: none:wr x:"


@pytest.mark.parametrize("text", ["", "# nothing\n\n", "user bob\n", "user eve\ntopic #\n"])
def test_without_a_rule_nothing_is_allowed(path: str, text: str) -> None:
    rights = read(path, text).rights("bob", "c")
    assert (allowed(rights, "a $SYS/x"), rights.may_subscribe(b"#")) == ("a: $SYS/x:", False)


def test_blanks_comments_and_line_ends_do_not_count(path: str) -> None:
    text = "# c\r\n\n  # c\n  topic   write   a  \r\n user  bob  x \n\ttopic  read \u00e9  c d \t\r\n"
    file = read(path, text)
    bob = file.rights("bob  x", "c")
    assert allowed(file.rights(None, "c"), "a") == "a:w"
    assert [bob.may_receive(t.encode()) for t in ("\u00e9  c d", "\u00e9 c d", "\u00e9")] == [True, False, False]


def test_a_user_may_have_several_sections(path: str) -> None:
    file = read(path, "user bob\ntopic a\nuser al\ntopic b\nuser bob\ntopic c\n")
    assert allowed(file.rights("bob", "x"), "a b c") == "a:wr b: c:wr"


def test_wildcards_and_dollar(path: str) -> None:
    file = read(path, "topic #\nuser bob\ntopic read $SYS/#\ntopic a/+/c/#\nuser al\ntopic +/x\n")
    names = "a a/b a/b/c a/b/c/d $SYS $SYS/x $other/x"
    assert allowed(file.rights(None, "c"), names) == "a:wr a/b:wr a/b/c:wr a/b/c/d:wr $SYS: $SYS/x: $other/x:"
    assert allowed(file.rights("bob", "c"), names) == "a: a/b: a/b/c:wr a/b/c/d:wr $SYS:r $SYS/x:r $other/x:"
    assert allowed(file.rights("al", "c"), names + " b/x /x") == (
        "a: a/b: a/b/c: a/b/c/d: $SYS: $SYS/x: $other/x: b/x:wr /x:wr"
    )


@pytest.mark.parametrize("first", ["topic deny a/b\n", "topic a/#\n", "pattern deny a/p\n"])
def test_deny_wins_in_any_order(path: str, first: str) -> None:
    lines = ["topic deny a/b\n", "topic a/#\n", "pattern deny a/p\n"]
    lines.remove(first)
    file = read(path, "user bob\n" + first + "".join(lines) + "topic read a/b\npattern read a/b\n")
    assert allowed(file.rights("bob", "c"), "a a/b a/b/c a/p") == "a:wr a/b: a/b/c:wr a/p:"


def test_patterns_are_for_everybody(path: str) -> None:
    file = read(path, "user bob\npattern write all\npattern %u/%c\npattern read id-%c/x\ntopic lit/%c\n")
    assert {who: allowed(file.rights(who, "c1"), "all bob/c1 eve/c1 /c1 id-c1/x lit/%c lit/c1") for who in
            (None, "bob", "eve")} == {
        None: "all:w bob/c1: eve/c1: /c1: id-c1/x:r lit/%c: lit/c1:",
        "bob": "all:w bob/c1:wr eve/c1: /c1: id-c1/x:r lit/%c:wr lit/c1:",
        "eve": "all:w bob/c1: eve/c1:wr /c1: id-c1/x:r lit/%c: lit/c1:",
    }  # fmt: skip


def test_names_are_put_in_once(path: str) -> None:
    file = read(path, "pattern u/%u\npattern c/%c\n")
    assert allowed(file.rights("%c", "%u"), "u/%c u/%u c/%u c/%c") == "u/%c:wr u/%u: c/%u:wr c/%c:"


# --- names that would widen a pattern ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["+", "#", "a/b", "/", "a+", "#a", "+/#", ""])
@pytest.mark.parametrize("placeholder", ["%u", "%c"])
def test_a_name_that_would_widen_a_pattern_gets_nothing_from_it(path: str, placeholder: str, name: str) -> None:
    file = read(path, f"pattern x/{placeholder}\npattern {placeholder}/#\npattern y/{placeholder}-z\npattern all\n")
    who = (name, "c") if placeholder == "%u" else ("bob", name)
    rights = file.rights(*who)
    assert allowed(rights, "x/a x/a/b x/ a/x b/x /x y/a-z y/-z y/a/b-z all") == (
        "x/a: x/a/b: x/: a/x: b/x: /x: y/a-z: y/-z: y/a/b-z: all:wr"
    )
    assert subscribable(rights, "# x/# x/+ +/+ +/+/# y/+ all") == ["#", "all"]


def test_only_the_pattern_that_the_name_is_put_into_is_lost(path: str) -> None:
    file = read(path, "pattern u/%u\npattern c/%c\npattern both/%u/%c\n")
    assert allowed(file.rights("bob", "a/b"), "u/bob c/a/b both/bob/a/b") == "u/bob:wr c/a/b: both/bob/a/b:"


def test_no_name_makes_a_pattern_reach_dollar_topics(path: str) -> None:
    file = read(path, "pattern %c/#\npattern x/%c\npattern $SYS/%c/x\n")
    rights = file.rights(None, "$SYS")
    assert allowed(rights, "$SYS/x $SYS x/$SYS $SYS/$SYS/x") == "$SYS/x: $SYS: x/$SYS:wr $SYS/$SYS/x:wr"


def test_an_anonymous_client_gets_nothing_from_a_user_name(path: str) -> None:
    file = read(path, "topic #\npattern %u/#\npattern deny %u/secret\npattern deny +/%u\n")
    assert allowed(file.rights(None, "c"), "a/secret /secret a/ $a/x") == "a/secret:wr /secret:wr a/:wr $a/x:"


@pytest.mark.parametrize(
    ("client_id", "expected"),
    [
        ("me", "d/me/x: d/you/x:wr d/m/e/x:wr d//x:wr d/me/y:wr id-me:"),
        ("m/e", "d/me/x:wr d/you/x:wr d/m/e/x: d//x:wr d/me/y:wr id-me:wr"),
        ("", "d/me/x:wr d/you/x:wr d/m/e/x:wr d//x: d/me/y:wr id-me:wr"),
        ("+", "d/me/x: d/you/x: d/m/e/x:wr d//x: d/me/y:wr id-me:"),
        ("m#e", "d/me/x: d/you/x: d/m/e/x:wr d//x: d/me/y:wr id-me:"),
    ],
)
def test_no_name_escapes_a_denial(path: str, client_id: str, expected: str) -> None:
    file = read(path, "topic #\npattern deny d/%c/x\npattern deny id-%c\n")
    assert allowed(file.rights(None, client_id), "d/me/x d/you/x d/m/e/x d//x d/me/y id-me") == expected


def test_a_dollar_name_does_not_escape_a_denial(path: str) -> None:
    file = read(path, "topic $a/#\npattern deny %c/#\n")
    assert (allowed(file.rights(None, "$a"), "$a/x"), allowed(file.rights(None, "b"), "$a/x")) == ("$a/x:", "$a/x:wr")


# --- subscriptions -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "granted"),
    [
        ("topic read a/b\n", "a/b # +/b a/+ a/# +/+ +/#"),
        ("topic write a/b\n", ""),
        ("topic #\ntopic deny a/#\n", "b # + +/b +/+ +/#"),
        ("topic a/b\ntopic deny a/b\n", ""),
        ("topic a/b\ntopic deny a/+\n", ""),
        ("topic a/+\ntopic deny a/b\n", "# a/+ a/# +/+ +/#"),
        ("topic #\ntopic deny +\ntopic deny +/+/#\n", ""),
        ("topic #\ntopic deny +\ntopic deny +/+\n", "# a/# +/#"),
        ("topic $SYS/#\n", "$SYS $SYS/# $SYS/+"),
        ("topic #\ntopic $SYS/a\n", "a/b b # + +/b a/+ a/# +/+ +/# $SYS/# $SYS/+"),
        ("topic a/+/c/#\n", "# a/# +/#"),
    ],
)
def test_a_subscription_is_refused_when_nothing_of_it_could_be_received(path: str, text: str, granted: str) -> None:
    rights = read(path, text).rights(None, "c")
    assert subscribable(rights, "a/b b # + +/b a/+ a/# +/+ +/# $SYS $SYS/# $SYS/+") == granted.split()


NAMES = ("", "a", "$s", "c1", "z")  # "z" stands for all the names that no rule spells
UNIVERSE = [t for depth in range(1, 5) for t in map("/".join, product(NAMES, repeat=depth)) if t]


@cache
def oracle(topic_filter: str) -> frozenset[str]:
    """The topics of UNIVERSE that the filter matches, from the prose of MQTT 3.1.1, section 4.7."""
    if topic_filter == "#":
        pattern = ".*"
    else:
        parent, tail = (topic_filter[:-2], "(?:/.*)?") if topic_filter.endswith("/#") else (topic_filter, "")
        pattern = re.escape(parent).replace(r"\+", "[^/]*") + tail
    return frozenset(filter(re.compile(("(?!\\$)" if topic_filter[0] in "+#" else "") + pattern).fullmatch, UNIVERSE))


def filters(names: Iterable[str], depth: int) -> st.SearchStrategy[str]:
    heads = st.lists(st.sampled_from((*names, "+", "+")), max_size=depth - 1)
    tails = st.sampled_from((*names, "+", "#", "#"))
    return st.builds(lambda head, tail: "/".join((*head, tail)), heads, tails).filter(bool)


LINES = st.lists(
    st.tuples(
        st.sampled_from(("topic", "pattern")),
        st.sampled_from(("read", "write", "readwrite", "deny", "deny")),
        filters(("", "a", "$s", "%c"), 3),
    ),
    max_size=6,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(LINES, st.lists(filters(("", "a", "$s", "c1"), 3), min_size=1, max_size=5))
def test_rights_agree_with_a_search_through_all_topics(
    path: str, lines: list[tuple[str, str, str]], wanted: list[str]
) -> None:
    lines = [(keyword, access, f if keyword == "pattern" else f.replace("%c", "a")) for keyword, access, f in lines]
    rights = read(path, "".join(" ".join(line) + "\n" for line in lines)).rights(None, "c1")
    filled = [(access, f.replace("%c", "c1")) for _, access, f in lines]
    nothing: frozenset[str] = frozenset()
    denied = nothing.union(*(oracle(f) for access, f in filled if access == "deny"))
    readable = nothing.union(*(oracle(f) for access, f in filled if access.startswith("read"))) - denied
    writable = nothing.union(*(oracle(f) for access, f in filled if access.endswith("write"))) - denied
    for _ in ("first asked", "remembered"):
        assert {t for t in UNIVERSE if rights.may_receive(t.encode())} == readable
        assert {t for t in UNIVERSE if rights.may_publish(t.encode())} == writable
    assert [rights.may_subscribe(f.encode()) for f in wanted] == [bool(oracle(f) & readable) for f in wanted]


# --- what is kept ------------------------------------------------------------------------------------------------


def test_clients_share_what_no_client_identifier_makes_their_own(path: str) -> None:
    file = read(path, "user bob\ntopic #\npattern x/%u\n")
    assert file.rights("bob", "c1") is file.rights("bob", "c2")
    assert file.rights("bob", "c1") is not file.rights("eve", "c1")
    unnamed = read(path, "user bob\ntopic #\n")
    assert unnamed.rights("eve", "c1") is unnamed.rights("mallory", "c2")
    assert unnamed.rights("eve", "c1") is not unnamed.rights(None, "c1")


def test_what_is_remembered_is_bounded(path: str) -> None:
    file = read(path, "topic a/#\npattern x/%u\npattern y/%c/#\n")
    for i in range(acl.READY_USERS + 10):
        file.rights(f"user{i}", "c")
    rights = file.rights(None, "c")
    long = b"a/" + b"x" * acl.LONGEST_REMEMBERED
    for i in range(1000):
        assert rights.may_publish(b"a/%d" % i) is True
        assert rights.may_receive(long + b"%d" % i) is True
    shared = rights._shared
    assert shared is not None
    assert len(file._ready) == acl.READY_USERS
    assert 0 < len(shared._answers) <= acl.SHARED_ANSWERS
    assert 0 < len(rights._answers) <= acl.OWN_ANSWERS
    assert max(map(len, rights._answers)) <= acl.LONGEST_REMEMBERED


# --- errors ------------------------------------------------------------------------------------------------------

KEYWORDS = "a line begins with topic, pattern or user and a space, or with #"
ACCESSES = "access is read, write, readwrite or deny; for a filter with a space:"


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("tpoic a", f"unknown keyword 'tpoic'; did you mean 'topic'? {KEYWORDS}"),
        ("TOPIC a", f"unknown keyword 'TOPIC'; {KEYWORDS}"),
        ("acl a", f"unknown keyword 'acl'; {KEYWORDS}"),
        ("topic\ta", f"unknown keyword 'topic\\ta'; did you mean 'topic'? {KEYWORDS}"),
        ("topic raed a", f"unknown access 'raed'; did you mean 'read'? {ACCESSES} topic readwrite raed a"),
        ("topic a b", f"unknown access 'a'; {ACCESSES} topic readwrite a b"),
        ("pattern rw %c", f"unknown access 'rw'; {ACCESSES} pattern readwrite rw %c"),
        ("topic", "topic without a filter: write topic [read|write|readwrite|deny] <filter>"),
        ("pattern  ", "pattern without a filter: write pattern [read|write|readwrite|deny] <filter>"),
        (
            "topic deny",
            "topic without a filter: write topic [read|write|readwrite|deny] <filter>; "
            "for the filter 'deny' itself: topic readwrite deny",
        ),
        ("topic a/#/b", "'a/#/b' is not a valid filter: '#' must stand alone, as the last level"),
        ("topic deny a+", "'a+' is not a valid filter: '+' must stand alone in its level"),
        ("pattern a/%c#", "'a/%c#' is not a valid filter: '#' must stand alone, as the last level"),
        ("pattern a/%c+", "'a/%c+' is not a valid filter: '+' must stand alone in its level"),
        ("topic a\0b", "'a\\x00b' is not a valid filter: it contains a NUL character"),
        ("topic read a\tb", "the filter 'a\\tb' contains a control character: put spaces for tabs"),
        ("user", "user without a name: write user <name>"),
        ("user \t ", "user without a name: write user <name>"),
        ("user a\x01", "the user name 'a\\x01' contains a control character: leave it out"),
    ],
)
def test_a_bad_line_is_an_error_that_says_where_and_what_to_do(path: str, line: str, why: str) -> None:
    with pytest.raises(FileError) as caught:
        read(path, f"# one\ntopic a\n{line}\ntopic b\n")
    assert (caught.value.path, caught.value.line, caught.value.why) == (path, 3, why)
    assert str(caught.value) == f"{path}:3: {why}"


def test_a_filter_may_be_called_like_an_access(path: str) -> None:
    assert allowed(read(path, "topic readwrite deny\n").rights(None, "c"), "deny read") == "deny:wr read:"


def test_a_missing_file_is_an_error(path: str) -> None:
    with pytest.raises(FileError) as caught:
        Acl.read(path)
    assert str(caught.value) == f"{path}: there is no such file: create it, or correct its name"


# --- cost --------------------------------------------------------------------------------------------------------


def steps(function: Callable[..., object], *arguments: object) -> int:
    """How many lines of the three modules a call runs: the same on every machine."""
    count = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        count += event == "line" and frame.f_code.co_filename in (acl.__file__, rules.__file__, topics.__file__)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function(*arguments)
    finally:
        sys.settrace(before)
    return count


def test_answers_take_linear_time(path: str) -> None:
    def asked(n: int) -> list[int]:
        file = read(path, f"topic {'+/' * n}#\ntopic deny {'+/' * n}a\npattern deny x/%c/y\npattern deny #\n")
        rights = file.rights(None, "a/" * n)
        return [
            steps(rights.may_receive, b"a/" * n + b"b"),
            steps(rights.may_publish, b"x/" * n + b"y"),
            steps(rights.may_subscribe, b"+/" * n + b"#"),
            steps(rights.may_subscribe, b"x/#"),
            steps(file.rights, None, "b/" * n),
        ]

    for short, long in zip(asked(200), asked(400), strict=True):
        assert 0 < short <= long <= 2 * short


# --- with mosquitto ----------------------------------------------------------------------------------------------

COMMON = """
# TOPICS, below, asks for nothing that is among the differences which acl.py lists.
topic readwrite anon/#
topic write anon2/+/x
topic read $open/#
user bob
topic readwrite b/#
topic deny b/no/#
topic read b/no/but
topic read r/+/x
topic write w
topic readwrite with space/x  y
topic readwrite $x/bob
topic readwrite lit/%u
user al
topic #
topic deny al/secret
topic read +/al/+
pattern readwrite p/%u/%c
pattern write mid-%u/x
pattern deny p/%u/no
pattern read p/%u/#
pattern read end
user all
topic readwrite #
topic readwrite $x/#
topic readwrite $open/#
"""
CLIENTS = ((None, "c1"), ("bob", "c2"), ("al", "c3"), ("eve", "c4"))
#: With "_" for a space.
NAMED = """
    anon anon/ anon/1 anon2/a/x anon2/x anon2/a/b/x b b/1 b/no b/no/but b/nox r/1/x r//x r/x r/1/x/2 w w/ / // a
    al/secret al/secret/1 x/al/y /al/ p/bob/c2 p/al/c3 p/eve/c4 p/bob/c3 p/eve/no p/eve/1 p//c1 p/eve mid-bob/x mid-/x
    mid-eve/x lit/%u lit/bob $x/bob $x/al $open $open/1 $open/1/2 with_space/x__y with_space/x_y
"""
TOPICS = [name.replace("_", " ") for name in NAMED.split()]


class Client:
    """A client of MQTT 5.0, because there a PUBACK says whether the message was refused."""

    def __init__(self, socket: str, username: str | None, client_id: str) -> None:
        self._events: queue.Queue[tuple[str, Any]] = queue.Queue()
        api = CallbackAPIVersion.VERSION2
        self._client = PahoClient(api, client_id=client_id, protocol=MQTTv5, transport="unix")
        self._client.username_pw_set(username)
        self._client.on_connect = lambda *a: self._events.put(("connect", a[3]))
        self._client.on_subscribe = lambda *a: self._events.put(("subscribe", a[3]))
        self._client.on_publish = lambda *a: self._events.put(("publish", a[3]))
        self._client.on_message = lambda *a: self._events.put(("message", a[2].topic))
        self._client.connect(socket, 1)
        self._client.loop_start()
        assert not self.next("connect").is_failure

    def next(self, kind: str) -> Any:
        while True:
            event, value = self._events.get(timeout=20)
            if event == kind:
                return value

    def published(self, names: Iterable[str]) -> set[str]:
        """Publish to each topic; those that the broker did not refuse."""
        done = set()
        for name in names:
            self._client.publish(name, b"x", qos=1)
            if not self.next("publish").is_failure:
                done.add(name)
        return done

    def subscribe(self, topic_filters: Iterable[str]) -> None:
        self._client.subscribe([(f, SubscribeOptions(qos=1)) for f in topic_filters])
        self.next("subscribe")

    def received(self, last: str) -> set[str]:
        """The topics of all messages before one of the topic `last`."""
        return set(iter(lambda: self.next("message"), last))

    def close(self) -> None:
        self._client.disconnect()
        let_go(self._client)


def test_mosquitto_answers_the_same(path: str, start_mosquitto: Callable[[str], str]) -> None:
    file = read(path, COMMON)
    socket = start_mosquitto(f"allow_anonymous true\nacl_file {path}")
    everything = Client(socket, "all", "all")
    clients = [Client(socket, *who) for who in CLIENTS]
    try:
        for who, client in zip(CLIENTS, clients, strict=True):
            ours = {name for name in TOPICS if file.rights(*who).may_publish(name.encode())}
            assert (who, client.published(TOPICS)) == (who, ours)
        for client in clients:
            client.subscribe(("#", "$x/#", "$open/#"))
        assert everything.published(TOPICS) == set(TOPICS)
        everything.published(["end"])
        for who, client in zip(CLIENTS, clients, strict=True):
            ours = {name for name in TOPICS if file.rights(*who).may_receive(name.encode())}
            assert (who, client.received("end")) == (who, ours)
    finally:
        for client in (everything, *clients):
            client.close()
