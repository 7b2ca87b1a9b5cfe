"""1.5.3 UTF-8 encoded strings: in topic names and Topic Filters. Those of CONNECT are in 3.1."""

from collections.abc import Callable

import pytest

from .. import expect, packets
from ..marks import needs, verifies
from ..packets import Connack, Will
from ..trial import Trial
from ..verdicts import NotApplicable

Make = Callable[[str, bytes], bytes]

TOPIC_NAMES: dict[str, Make] = {
    "topic name of QoS 0": lambda good, bad: packets.publish(bad, b"x"),
    "topic name of QoS 1": lambda good, bad: packets.publish(bad, b"x", qos=1, packet_id=1),
    "topic name of QoS 2": lambda good, bad: packets.publish(bad, b"x", qos=2, packet_id=1),
}
SUBSCRIBED: dict[str, Make] = {
    "subscribed filter": lambda good, bad: packets.subscribe(1, (bad, 0)),
    "second subscribed filter": lambda good, bad: packets.subscribe(1, (good, 1), (bad, 1)),
}
UNSUBSCRIBED: dict[str, Make] = {
    "unsubscribed filter": lambda good, bad: packets.unsubscribe(1, bad),
    "second unsubscribed filter": lambda good, bad: packets.unsubscribe(1, good, bad),
}
#: Packets with a string that is right and one that is not.
every_field = pytest.mark.parametrize(
    "make",
    [
        *(pytest.param(make, id=name) for name, make in TOPIC_NAMES.items()),
        *(pytest.param(make, id=name, marks=verifies("MQTT-3.8.3-1")) for name, make in SUBSCRIBED.items()),
        *(pytest.param(make, id=name, marks=verifies("MQTT-3.10.3-1")) for name, make in UNSUBSCRIBED.items()),
    ],
)


@verifies("MQTT-1.5.3-1")
@every_field
@pytest.mark.parametrize("bad", packets.ILL_FORMED_UTF8.values(), ids=packets.ILL_FORMED_UTF8)
def test_ill_formed_string(trial: Trial, make: Make, bad: bytes) -> None:
    """A string that is no UTF-8, encoded surrogates included, gets the client disconnected."""
    raw = trial.connected()
    raw.send(make(trial.topic("good"), trial.topic("bad").encode() + bad))
    expect.closed(raw, after="a string that is no UTF-8")


NULS: dict[str, Callable[[bytes], bytes]] = {
    "alone": lambda topic: b"\0",
    "first": lambda topic: b"\0" + topic,
    "within": lambda topic: topic + b"a\0b",
    "last": lambda topic: topic + b"\0",
    "a level": lambda topic: topic + b"/\0/a",
}


@verifies("MQTT-1.5.3-2", "MQTT-4.7.3-2")
@every_field
@pytest.mark.parametrize("bad", NULS.values(), ids=NULS)
def test_nul_in_a_string(trial: Trial, make: Make, bad: Callable[[bytes], bytes]) -> None:
    """A string with the character U+0000 in it gets the client disconnected."""
    raw = trial.connected()
    raw.send(make(trial.topic("good"), bad(trial.topic().encode())))
    expect.closed(raw, after="a string with U+0000")


@verifies("MQTT-1.5.3-1")
@needs("wildcards")
@pytest.mark.parametrize("bad", packets.ILL_FORMED_UTF8.values(), ids=packets.ILL_FORMED_UTF8)
def test_ill_formed_topic_name_reaches_nobody(trial: Trial, bad: bytes) -> None:
    """A broker sends no string that is no UTF-8, even if a client has sent it one."""
    watcher = trial.connected("watcher")
    watcher.subscribe(trial.topic("#"), 1)
    raw = trial.connected()
    raw.send(packets.publish(trial.topic("a/").encode() + bad, b"x", qos=1, packet_id=1))
    raw.wait_closed()
    about = "a message whose topic name is no UTF-8"
    expect.silence(watcher, trial.client("control"), trial.topic("control"), 1, about=about)


# The byte-order mark, which is none within a string

MARKED: dict[str, Callable[[str], str]] = {
    "first": lambda topic: f"\ufeff{topic}",
    "within": lambda topic: f"{topic}/a\ufeffb",
    "a level": lambda topic: f"{topic}/\ufeff/a",
    "last": lambda topic: f"{topic}/a\ufeff",
}
every_mark = pytest.mark.parametrize("marked", MARKED.values(), ids=MARKED)


def without_mark(topic: str) -> str:
    return topic.replace("\ufeff", "")


@verifies("MQTT-1.5.3-3")
@every_mark
def test_feff_is_kept(trial: Trial, marked: Callable[[str], str]) -> None:
    """A topic name with U+FEFF in it is matched by the same filter, and is delivered unchanged."""
    topic = marked(trial.topic())
    subscriber = trial.subscriber(topic, 1)
    trial.client("publisher").publish(topic, b"marked", 1)
    expect.message(subscriber, topic=topic, payload=b"marked")


@verifies("MQTT-1.5.3-3")
@every_mark
def test_feff_in_a_filter_is_matched(trial: Trial, marked: Callable[[str], str]) -> None:
    """A filter with U+FEFF in it does not match the topic name that lacks it."""
    topic = marked(trial.topic())
    subscriber = trial.subscriber(topic, 1)
    publisher = trial.client("publisher")
    publisher.publish(without_mark(topic), b"without U+FEFF", 1)
    expect.silence(subscriber, publisher, topic, 1, about="a message to the topic name without U+FEFF")


@verifies("MQTT-1.5.3-3")
@every_mark
def test_feff_in_a_topic_name_is_matched(trial: Trial, marked: Callable[[str], str]) -> None:
    """A topic name with U+FEFF in it is not matched by the filter that lacks it."""
    topic = marked(trial.topic())
    subscriber = trial.subscriber(without_mark(topic), 1)
    publisher = trial.client("publisher")
    publisher.publish(topic, b"with U+FEFF", 1)
    expect.silence(subscriber, publisher, without_mark(topic), 1, about="a message to the topic name with U+FEFF")


@verifies("MQTT-1.5.3-3")
@needs("wildcards")
@pytest.mark.parametrize("name", ["\ufeffa", "a\ufeff", "\ufeff"], ids=["first", "last", "alone"])
def test_feff_in_a_level(trial: Trial, name: str) -> None:
    """A topic name that a wildcard matches is delivered with U+FEFF where it was published with it."""
    subscriber = trial.subscriber(trial.topic("+"), 1)
    trial.client("publisher").publish(trial.topic(name), b"marked", 1)
    expect.message(subscriber, topic=trial.topic(name), payload=b"marked")


@verifies("MQTT-1.5.3-3")
@every_mark
def test_feff_in_an_unsubscribed_filter(trial: Trial, marked: Callable[[str], str]) -> None:
    """A subscription to a filter with U+FEFF stays when the filter that lacks it is unsubscribed."""
    topic = marked(trial.topic())
    subscriber = trial.subscriber(topic, 1)
    subscriber.unsubscribe(without_mark(topic))
    trial.client("publisher").publish(topic, b"marked", 1)
    expect.message(subscriber, topic=topic, payload=b"marked")


@verifies("MQTT-1.5.3-3")
@every_mark
def test_feff_in_a_will_topic(trial: Trial, marked: Callable[[str], str]) -> None:
    """A will is published to its topic with U+FEFF."""
    topic = marked(trial.topic())
    watcher = trial.subscriber(topic, 1, name="watcher")
    dying = trial.raw("dying")
    dying.connect(trial.client_id(), will=Will(topic, b"gone", 1))
    dying.close()
    expect.message(watcher, topic=topic, payload=b"gone")


@verifies("MQTT-1.5.3-3")
def test_feff_in_a_client_id(trial: Trial) -> None:
    """A ClientId that begins with U+FEFF is another than the one that lacks it: both may be connected."""
    client_id = trial.client_id()
    plain = trial.raw("plain")
    plain.connect(client_id)
    marked = trial.raw("marked")
    username, password = marked.endpoint.username, marked.endpoint.password
    marked.send(packets.connect(f"\ufeff{client_id}", username=username, password=password))
    answer = marked.take(packets.CONNACK)
    if isinstance(answer, Connack) and answer.code == 2:
        raise NotApplicable(f"the broker takes no ClientId with U+FEFF, which it need not: {answer}")
    marked.ping()
    expect.alive(plain, after="the login of a client whose ClientId has U+FEFF before the same characters")
