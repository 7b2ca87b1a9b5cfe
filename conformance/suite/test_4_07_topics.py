"""4.7 Topic Names and Topic Filters: wildcards, topics that begin with a dollar sign, matching."""

import contextlib
from collections.abc import Callable

import pytest

from .. import expect, packets
from ..marks import alone, needs, verifies
from ..packets import Suback
from ..raw import Closed, NoAnswer, Raw
from ..trial import Trial
from ..verdicts import Failure

every_qos = pytest.mark.parametrize("qos", [0, 1, 2])


# 4.7.1 Topic Names have no wildcards


WITH_WILDCARDS = {
    "plus": "a/+/b",
    "hash": "a/#",
    "plus last": "a/+",
    "plus in a level": "a/b+c",
    "hash in a level": "a/b#c",
    "hash first": "#/a",
}


@verifies("MQTT-4.7.1-1", "MQTT-3.3.2-2")
@every_qos
@pytest.mark.parametrize("name", WITH_WILDCARDS.values(), ids=WITH_WILDCARDS)
def test_topic_name_with_wildcards(trial: Trial, name: str, qos: int) -> None:
    """A PUBLISH whose topic name has a wildcard in it gets the client disconnected."""
    raw = trial.connected()
    raw.send(packets.publish(trial.topic(name), b"x", qos=qos, packet_id=1 if qos else None))
    expect.closed(raw, after="a topic name with a wildcard in it")


@verifies("MQTT-4.7.1-1", "MQTT-3.3.2-2")
@needs("wildcards")
@pytest.mark.parametrize("name", WITH_WILDCARDS.values(), ids=WITH_WILDCARDS)
def test_topic_name_with_wildcards_reaches_nobody(trial: Trial, name: str) -> None:
    """A broker sends no message to a topic name with a wildcard in it, even if a client has published one."""
    watcher = trial.connected("watcher")
    watcher.subscribe(trial.topic("#"), 1)
    raw = trial.connected()
    raw.send(packets.publish(trial.topic(name), b"x", qos=1, packet_id=1), packets.pingreq())
    with contextlib.suppress(Closed):
        raw.take(packets.PINGRESP)
    about = "a message to a topic name with a wildcard in it"
    expect.silence(watcher, trial.client("control"), trial.topic("control"), 1, about=about)


# 4.7.1.2, 4.7.1.3 Filters that are wrong


def judge_refusal(trial: Trial, raw: Raw, what: str) -> None:
    """A SUBSCRIBE that was just sent does not bring a subscription: the connection ends, or the SUBACK says so."""
    expected = f"{what} ends the connection, or is refused in the SUBACK"
    try:
        answer = raw.take(packets.SUBACK)
    except Closed:
        return
    except NoAnswer as error:
        raise Failure(expected, str(error)) from None
    refused = isinstance(answer, Suback) and answer.codes[-1:] == (packets.SUBSCRIBE_FAILURE,)
    expect.that(refused, expected, str(answer))
    trial.note(f"{what} is refused in the SUBACK, and the connection stays")


WRONG_HASH = ["a#", "#a", "a/b#", "a/#b", "#/a", "a/#/b", "##", "a/##", "#/#", "+#", "a/+#", "a/#/"]
WRONG_PLUS = ["a+", "+a", "a/b+", "a/+b", "a/b+/c", "++", "a/++", "a+/#", "+a/b", "a/b+c/d"]
every_wrong_filter = pytest.mark.parametrize(
    "name",
    [
        *(pytest.param(name, marks=verifies("MQTT-4.7.1-2")) for name in WRONG_HASH),
        *(pytest.param(name, marks=verifies("MQTT-4.7.1-3")) for name in WRONG_PLUS),
    ],
)


@every_wrong_filter
def test_wrong_filter(trial: Trial, name: str) -> None:
    """A filter in which a wildcard stands where it must not is not subscribed to."""
    raw = trial.connected()
    raw.send(packets.subscribe(1, (trial.topic(name), 0)))
    judge_refusal(trial, raw, "a filter with a wildcard in a wrong place")


@every_wrong_filter
def test_wrong_filter_from_the_top(trial: Trial, name: str) -> None:
    """A filter that is nothing but wrong wildcards and their level is not subscribed to."""
    raw = trial.connected()
    raw.send(packets.subscribe(1, (name, 0)))
    judge_refusal(trial, raw, "a filter with a wildcard in a wrong place")


@every_wrong_filter
def test_wrong_filter_behind_a_right_one(trial: Trial, name: str) -> None:
    """A filter in which a wildcard stands where it must not is not subscribed to, behind a right one either."""
    raw = trial.connected()
    raw.send(packets.subscribe(1, (trial.topic("right"), 0), (trial.topic(name), 1)))
    judge_refusal(trial, raw, "a filter with a wildcard in a wrong place")


# 4.7.1 What filters match. T stands for the test's own topic.


#: Filters, the topics that each matches, and some that it does not.
MULTI_LEVEL = {
    "T/#": (["T", "T/", "T/a", "T/a/b", "T//", "T/a/b/c/d/e/f/g", "T/$a"], ["Ta", "/T", "T a", "a/T"]),
    "T/a/#": (["T/a", "T/a/", "T/a/b", "T/a/b/c"], ["T", "T/", "T/ab", "T/b/a", "T/A/b"]),
    "T//#": (["T/", "T//", "T//a", "T//a/b"], ["T", "T/a", "T/a/"]),
    "/T/#": (["/T", "/T/", "/T/a/b"], ["T", "T/a", "//T"]),
}
SINGLE_LEVEL = {
    "T/+": (["T/a", "T/", "T/ab c", "T/$a"], ["T", "T/a/b", "T/a/", "T//", "Ta"]),
    "T/+/b": (["T/a/b", "T//b", "T/$/b"], ["T/b", "T/a/c", "T/a/a/b", "T/a/b/", "T/a/b/c"]),
    "T/+/+": (["T/a/b", "T//", "T/a/", "T//b"], ["T", "T/a", "T/a/b/c", "T///"]),
    "T/a/+/c/+/e": (["T/a/b/c/d/e", "T/a//c//e"], ["T/a/b/c/d", "T/a/b/b/d/e", "T/a/b/c/d/e/f"]),
    "+/T": (["a/T", "/T", "ab c/T"], ["T", "a/b/T", "a/T/", "a/T/b"]),
    "/+/T": (["/a/T", "//T"], ["a/T", "/T", "/a/b/T"]),
    "+/+/T": (["a/b/T", "//T", "a//T"], ["a/T", "a/b/c/T"]),
    "T/" + "/".join("+" * 30): (
        ["T/" + "/".join("a" * 30), "T" + "/" * 30],
        ["T/" + "/".join("a" * 29), "T" + "/" * 31],
    ),
}
BOTH = {
    "T/+/#": (["T/a", "T/", "T/a/b", "T//b/c"], ["T", "Ta/b"]),
    "T/+/b/#": (["T/a/b", "T/a/b/c", "T//b/"], ["T/a", "T/a/c", "T/a/a/b"]),
    "+/T/#": (["a/T", "/T", "a/T/b/c", "/T/"], ["T", "T/a", "a/b/T"]),
    "+/+/T/+/#": (["a/b/T/c", "//T/", "a/b/T/c/d/e"], ["a/b/T", "a/T/c/d"]),
}
every_filter = pytest.mark.parametrize(
    ("topic_filter", "matching", "others"),
    [
        *(pytest.param(name, *cases, marks=verifies("4.7.1.2/multi-level")) for name, cases in MULTI_LEVEL.items()),
        *(pytest.param(name, *cases, marks=verifies("4.7.1.3/single-level")) for name, cases in SINGLE_LEVEL.items()),
        *(
            pytest.param(name, *cases, marks=verifies("4.7.1.2/multi-level", "4.7.1.3/single-level"))
            for name, cases in BOTH.items()
        ),
    ],
)


def judge_matching(trial: Trial, topic_filter: str, matching: list[str], others: list[str]) -> None:
    """Of the messages to all of these topics, a subscriber gets those that match and no others."""
    subscriber = trial.subscriber(topic_filter, 1)
    publisher = trial.client("publisher")
    for topic in (*others, *matching):
        publisher.publish(topic, topic.encode(), 1)
    came = expect.messages(subscriber, [topic.encode() for topic in matching])
    came += expect.until_control(subscriber, publisher, matching[0], 1)
    found = {publish.topic for publish in came}
    missing = [topic for topic in matching if topic not in found]
    expected = f"the filter {topic_filter!r} matches {', '.join(map(repr, matching))}"
    expect.that(not missing, expected, f"no message came with the topic names {', '.join(map(repr, missing))}")
    surplus = [topic for topic in others if topic in found]
    expected = f"the filter {topic_filter!r} does not match {', '.join(map(repr, others))}"
    expect.that(not surplus, expected, f"messages came from {', '.join(map(repr, surplus))}")


@needs("wildcards")
@every_filter
def test_matching(trial: Trial, topic_filter: str, matching: list[str], others: list[str]) -> None:
    """A filter with wildcards matches the topics that it should, and no others."""
    own = trial.client_id()

    def of_this_test(name: str) -> str:
        return name.replace("T", own)

    judge_matching(trial, of_this_test(topic_filter), [*map(of_this_test, matching)], [*map(of_this_test, others)])


@verifies("4.7.1.2/multi-level")
@alone
@needs("wildcards")
def test_hash_alone(trial: Trial) -> None:
    """The filter that is nothing but a hash sign matches every topic."""
    own = trial.client_id()
    subscriber = trial.subscriber("#", 1)
    publisher = trial.client("publisher")
    topics = [own, f"/{own}", f"{own}/", f"{own}/a/b/c", f"//{own}", f"a/{own}"]
    for topic in topics:
        publisher.publish(topic, topic.encode(), 1)
    expect.messages(subscriber, [topic.encode() for topic in topics])


@verifies("4.7.1.3/single-level")
@alone
@needs("wildcards")
@pytest.mark.parametrize(
    ("topic_filter", "levels"), [("+", 1), ("+/+", 2), ("+/+/+", 3), ("/+", -1)], ids=["one", "two", "three", "slash"]
)
def test_plus_alone(trial: Trial, topic_filter: str, levels: int) -> None:
    """A filter that is nothing but plus signs matches every topic with that many levels."""
    own = trial.client_id()
    cases = {1: [own], 2: [f"{own}/a", f"/{own}", f"{own}/"], 3: [f"{own}/a/b", f"//{own}"], 4: [f"{own}/a/b/c"]}
    matching = [f"/{own}"] if levels == -1 else cases[levels]
    others = [topic for topics in cases.values() for topic in topics if topic not in matching]
    judge_matching(trial, topic_filter, matching, others)


# 4.7.2 Topics that begin with a dollar sign


def sys_topic(trial: Trial) -> str:
    """A topic on which the broker has published something about itself."""
    raw = trial.connected("$SYS")
    raw.subscribe("$SYS/#")
    return raw.next_message().topic


SYS_FILTERS: dict[str, Callable[[str], str]] = {
    "#": lambda topic: "#",
    "+/#": lambda topic: "+/#",
    "+ for $SYS": lambda topic: "+" + topic[4:],
    "+/+ and so on": lambda topic: "/".join("+" * len(topic.split("/"))),
    "+/second level/#": lambda topic: f"+/{topic.split('/')[1]}/#",
}


@verifies("MQTT-4.7.2-1")
@alone
@needs("sys-topics", "wildcards")
@pytest.mark.parametrize("filter_of", SYS_FILTERS.values(), ids=SYS_FILTERS)
def test_wildcards_do_not_match_sys(trial: Trial, filter_of: Callable[[str], str]) -> None:
    """A filter that begins with a wildcard does not match topics that begin with $SYS."""
    topic = sys_topic(trial)
    raw = trial.connected("subscriber")
    raw.subscribe(filter_of(topic), 1)
    raw.subscribe(trial.topic(), 1)
    about = "a message from a topic that begins with a dollar sign"
    expect.silence(
        raw,
        trial.client("control"),
        trial.topic(),
        1,
        about=about,
        besides=lambda publish: not publish.topic.startswith("$"),
    )


@verifies("MQTT-4.7.2-1")
@alone
@needs("wildcards")
@pytest.mark.parametrize("topic_filter", ["#", "+/#", "+/{own}", "+/+", "+/{own}/#"])
def test_wildcards_do_not_match_dollar_topics(trial: Trial, topic_filter: str) -> None:
    """A filter that begins with a wildcard does not match a topic that a client publishes to with a dollar sign."""
    own = trial.client_id()
    raw = trial.connected("subscriber")
    raw.subscribe(topic_filter.format(own=own), 1)
    raw.subscribe(trial.topic(), 1)
    publisher = trial.connected("publisher")
    publisher.send(
        *(
            packets.publish(f"{first}/{own}", b"not wanted", qos=1, packet_id=number)
            for number, first in enumerate(("$", "$a", "$SYS"), 1)
        ),
        packets.pingreq(),
    )
    try:
        publisher.take(packets.PINGRESP)
    except Closed:
        trial.note("the broker disconnects a client that publishes to such topics")
    expect.silence(
        raw,
        trial.client("control"),
        trial.topic(),
        1,
        about="a message from a topic that begins with a dollar sign",
        besides=lambda publish: not publish.topic.startswith("$"),
    )


@verifies("4.7.1.3/single-level")
@needs("sys-topics", "wildcards")
def test_sys_is_matched_by_name(trial: Trial) -> None:
    """A filter that names the first level of a topic with a dollar sign may have wildcards behind it."""
    topic = sys_topic(trial)
    levels = topic.split("/")
    raw = trial.connected("subscriber")
    raw.subscribe(f"{'/'.join(levels[:-1])}/+", 0)
    found = expect.message(raw)
    expected = f"a message from a topic below {'/'.join(levels[:-1])}"
    expect.that(found.topic.startswith("/".join(levels[:-1])), expected, str(found))


@verifies("4.7.2/exchange")
@pytest.mark.parametrize("first", ["$", "$a", "$SYS"])
def test_dollar_topics_are_not_for_clients(trial: Trial, first: str) -> None:
    """Clients cannot exchange messages through topics that begin with a dollar sign."""
    topic = f"{first}/{trial.client_id()}"
    raw = trial.connected("subscriber")
    raw.subscribe(trial.topic(), 1)
    packet_id = raw.new_packet_id()
    raw.send(packets.subscribe(packet_id, (topic, 1)))
    try:
        raw.take(packets.SUBACK)
        publisher = trial.connected("publisher")
        publisher.publish(topic, b"through", 1)
        found = expect.until_control(raw, publisher, trial.topic(), 1)
    except Closed:
        return
    if topic in [publish.topic for publish in found]:
        trial.warn(f"clients can exchange messages through {first}/...; they should use no such topics")


# 4.7.3 Topic semantics


@verifies("MQTT-4.7.3-1")
@every_qos
def test_empty_topic_name(trial: Trial, qos: int) -> None:
    """A PUBLISH whose topic name is empty gets the client disconnected."""
    raw = trial.connected()
    raw.send(packets.publish("", b"x", qos=qos, packet_id=1 if qos else None))
    expect.closed(raw, after="an empty topic name")


@verifies("MQTT-4.7.3-1")
@every_qos
def test_empty_filter(trial: Trial, qos: int) -> None:
    """An empty filter is not subscribed to."""
    raw = trial.connected()
    raw.send(packets.subscribe(1, ("", qos)))
    judge_refusal(trial, raw, "an empty filter")


@verifies("MQTT-4.7.3-1")
def test_empty_filter_behind_a_right_one(trial: Trial) -> None:
    """An empty filter is not subscribed to, behind a right one either."""
    raw = trial.connected()
    raw.send(packets.subscribe(1, (trial.topic(), 1), ("", 1)))
    judge_refusal(trial, raw, "an empty filter")


@verifies("MQTT-4.7.3-1")
def test_empty_filter_in_unsubscribe(trial: Trial) -> None:
    """An UNSUBSCRIBE of an empty filter gets the client disconnected."""
    raw = trial.connected()
    raw.send(packets.unsubscribe(1, ""))
    try:
        answer = raw.take(packets.UNSUBACK)
    except Closed:
        return
    except NoAnswer as error:
        raise Failure("an empty filter ends the connection", str(error)) from None
    trial.warn(f"an empty filter in UNSUBSCRIBE is answered with {answer}; it should end the connection")


#: Topics that some system might take for one and the same, or for a pattern.
ALIKE = {
    "plain": "topic/name",
    "upper case": "TOPIC/NAME",
    "title case": "Topic/Name",
    "trailing slash": "topic/name/",
    "double slash": "topic//name",
    "space before": "topic/ name",
    "space after": "topic/name ",
    "space instead": "topic name",
    "dot instead": "topic.name",
    "dot segment": "topic/./name",
    "parent segment": "topic/a/../name",
    "backslash": "topic\\name",
    "percent": "topic%2Fname",
    "star": "topic/*",
    "greater": "topic/>",
    "question mark": "topic/nam?",
    "full width": "topic/\uff4e\uff41\uff4d\uff45",
    "long s": "topic/name\u017f",
    "composed": "topic/n\u00e4me",
    "decomposed": "topic/na\u0308me",
    "ligature": "topic/\ufb01le",
    "no ligature": "topic/file",
    "dotless i": "topic/f\u0131le",
    "zero width": "topic/na\u200bme",
    "soft hyphen": "topic/na\u00adme",
    "no-break space": "topic\u00a0name",
    "four bytes": "topic/\U0001f600",
    "angstrom": "topic/\u212b",
    "a with ring": "topic/\u00c5",
}


@verifies("MQTT-4.7.3-4")
@pytest.mark.parametrize("which", ALIKE)
def test_topics_are_told_apart(trial: Trial, which: str) -> None:
    """A filter matches the topic of the same characters, and none that only looks like it."""
    matching = [trial.topic(ALIKE[which])]
    others = [trial.topic(name) for name in ALIKE.values() if name != ALIKE[which]]
    judge_matching(trial, matching[0], matching, others)


@verifies("MQTT-4.7.3-4")
@pytest.mark.parametrize("form", ["{}", "/{}", "{}/", "//{}", "{}//", "/{}/", " {}", "{} "])
def test_slashes_and_spaces_at_the_ends(trial: Trial, form: str) -> None:
    """A slash or a space at the beginning or the end of a topic makes another topic."""
    own = trial.client_id()
    forms = ["{}", "/{}", "{}/", "//{}", "{}//", "/{}/", " {}", "{} "]
    others = [other.format(own) for other in forms if other != form]
    judge_matching(trial, form.format(own), [form.format(own)], others)


@verifies("MQTT-4.7.3-4")
@needs("wildcards")
def test_topic_names_are_delivered_unchanged(trial: Trial) -> None:
    """A topic name is delivered with the very characters with which it was published."""
    topics = [trial.topic(name) for name in ALIKE.values()]
    judge_matching(trial, trial.topic("#"), topics, [])


#: What a broker may disconnect a client for, and must not change otherwise (section 1.5.3).
DISCOURAGED = ["\x01", "\x1f", "\t", "\n", "\r", "\x7f", "\x80", "\x9f", "\ufdd0", "\ufffe", "\uffff", "\U0001ffff"]


@verifies("MQTT-4.7.3-4")
@pytest.mark.parametrize("character", DISCOURAGED, ids=lambda text: f"U+{ord(text[0]):04X}")
def test_discouraged_characters(trial: Trial, character: str) -> None:
    """A topic name with a control character or a non-character is delivered unchanged, unless it is refused."""
    topic = trial.topic(f"a{character}b")
    raw, publisher = trial.connected("subscriber"), trial.connected("publisher")
    raw.send(packets.subscribe(1, (topic, 1)))
    try:
        answer = raw.take(packets.SUBACK)
        raw.ping()  # a broker may close one packet later
        publisher.publish(topic, b"odd", 1)
    except Closed:
        trial.note("the broker disconnects a client that sends this character, as it may")
        return
    if isinstance(answer, Suback) and packets.SUBSCRIBE_FAILURE in answer.codes:
        trial.note("the broker refuses a subscription with this character")
        return
    expect.message(raw, topic=topic, payload=b"odd")


@verifies("4.7.3/slash")
@every_qos
def test_filter_of_one_slash(trial: Trial, qos: int) -> None:
    """The filter that is nothing but a slash is valid."""
    raw = trial.connected()
    raw.send(packets.subscribe(1, ("/", qos)))
    answer = expect.packet(raw, packets.SUBACK)
    refused = isinstance(answer, Suback) and packets.SUBSCRIBE_FAILURE in answer.codes
    expect.that(not refused, "SUBACK that grants the filter '/'", str(answer))


def through(trial: Trial, topic: str) -> str:
    """Subscribes to a topic and publishes to it: why that does not work; empty if it does."""
    raw, publisher = trial.connected("subscriber"), trial.connected("publisher")
    raw.send(packets.subscribe(1, (topic, 1)))
    try:
        answer = raw.take(packets.SUBACK)
        if not isinstance(answer, Suback) or answer.codes != (1,):
            return f"the SUBSCRIBE was answered with {answer}"
        publisher.publish(topic, b"through", 1)
        message = raw.next_message()
    except NoAnswer as error:
        return str(error)
    return "" if message.topic == topic else f"{message} came"


@verifies("4.7.3/length")
@pytest.mark.parametrize("size", [256, 4096, 32768, pytest.param(65535, marks=alone)])  # which some brokers die of
@pytest.mark.parametrize("character", ["a", "\u00e4", "\U0001f600"], ids=["1 byte", "2 bytes", "4 bytes"])
def test_long_topics(trial: Trial, character: str, size: int) -> None:
    """Topic names and filters may have up to 65535 bytes."""
    topic = trial.topic()
    room = size - len(topic)
    wide = len(character.encode())
    topic += "x" * (room % wide) + character * (room // wide)
    why = through(trial, topic)
    if why:
        trial.warn(f"a topic of {size} bytes does not work: {why}")


@verifies("4.7.3/levels")
@pytest.mark.parametrize("levels", [50, 150, 250, 1000, pytest.param(30000, marks=alone)])  # that may stop all others
@pytest.mark.parametrize("level", ["", "a"], ids=["empty", "letters"])
def test_many_levels(trial: Trial, level: str, levels: int) -> None:
    """Topic names and filters may have any number of levels that their length has room for."""
    topic = "/".join([trial.topic(), *[level] * (levels - 2)])
    why = through(trial, topic)
    if why:
        trial.warn(f"a topic of {levels} levels does not work: {why}")
