"""3.3 PUBLISH: DUP, QoS, RETAIN, topic names, the response, overlapping subscriptions."""

from collections.abc import Callable

import pytest

from .. import expect, packets
from ..clients import Client
from ..marks import needs, verifies
from ..packets import ILL_FORMED_UTF8, Publish
from ..raw import Closed, NoAnswer, Raw
from ..trial import Trial
from ..verdicts import Failure, Inconclusive
from . import flows

every_qos = pytest.mark.parametrize("qos", [0, 1, 2])
qos_1_and_2 = pytest.mark.parametrize("qos", [1, 2])
published_1_and_2 = pytest.mark.parametrize("published", [1, 2])
every_subscription = pytest.mark.parametrize("subscribed", [0, 1, 2])
every_end = pytest.mark.parametrize("end", flows.ENDS.values(), ids=flows.ENDS)


def publish_by_bytes(raw: Raw, packet: bytes) -> None:
    """Sends a PUBLISH with QoS 0, or with 1 or 2 and the identifier 1, and does the rest of its handshake."""
    raw.send(packet)
    (message,) = packets.decode_all(packet)
    assert isinstance(message, Publish)
    if message.qos == 1:
        raw.take(packets.PUBACK)
    elif message.qos == 2:
        raw.take(packets.PUBREC)
        raw.send(packets.pubrel(1))
        raw.take(packets.PUBCOMP)
    else:
        raw.ping()


# 3.3.1.1 DUP


@verifies("MQTT-3.3.1-1")
@qos_1_and_2
@every_end
def test_redelivery_has_dup(trial: Trial, end: Callable[[Raw], None], qos: int) -> None:
    """A message that is sent again when a session is resumed has DUP = 1, each time."""
    trial.require(f"qos-{qos}")
    topic = trial.topic()
    raw, client_id = flows.session(trial, topic, qos)
    trial.client("publisher").publish(topic, b"message", qos)
    flows.received(raw, b"message", qos)
    end(raw)
    for name in ("second", "third"):
        again = flows.resumed(trial, client_id, name)
        packet = flows.received(again, b"message", qos)
        expect.that(packet.dup, "PUBLISH with DUP when it is sent again", str(packet))
        end(again)


@verifies("MQTT-3.3.1-2")
@pytest.mark.parametrize(("published", "subscribed"), [(0, 0), (0, 2), (1, 0), (2, 0)])
@pytest.mark.parametrize("dup", [False, True], ids=["first", "dup"])
def test_qos_0_has_no_dup(trial: Trial, dup: bool, published: int, subscribed: int) -> None:
    """What is delivered with QoS 0 has DUP = 0, whatever the publisher has sent."""
    raw, topic = trial.connected("subscriber"), trial.topic()
    raw.subscribe(topic, subscribed)
    publisher = trial.connected("publisher")
    packet = packets.publish(topic, b"message", qos=published, packet_id=1 if published else None, dup=dup)
    if published or not dup:
        publish_by_bytes(publisher, packet)
    else:
        publisher.send(packet)
        try:
            publisher.ping()
        except Closed:
            trial.note("a PUBLISH with QoS 0 and DUP = 1 gets the client disconnected")
            return
        trial.note("a PUBLISH with QoS 0 and DUP = 1 does not end the connection")
    found = raw.next_message()  # whether it comes at all, and with which QoS, are other rules
    if found.qos:
        raise Inconclusive(f"the message was delivered with QoS {found.qos}")
    expect.that(not found.dup, "PUBLISH without DUP, as its QoS is 0", str(found))


@verifies("MQTT-3.3.1-3")
@pytest.mark.parametrize(("published", "subscribed"), [(1, 1), (1, 2), (2, 1), (2, 2)])
def test_dup_is_not_propagated(trial: Trial, published: int, subscribed: int) -> None:
    """A message that its publisher sends with DUP = 1 is delivered with DUP = 0: it is new to the subscriber."""
    topic = trial.topic()
    subscriber = trial.connected("subscriber")
    flows.subscribed(subscriber, topic, subscribed)
    publisher = trial.connected("publisher")
    publish_by_bytes(publisher, packets.publish(topic, b"message", qos=published, packet_id=1, dup=True))
    expect.message(subscriber, payload=b"message", dup=False)


@verifies("MQTT-3.3.1-3")
@qos_1_and_2
@pytest.mark.parametrize("dup", [False, True], ids=["first", "dup"])
def test_first_delivery_after_absence_has_no_dup(trial: Trial, dup: bool, qos: int) -> None:
    """A message that waited for an absent client has DUP = 0 when it is sent for the first time."""
    trial.require(f"qos-{qos}")
    topic = trial.topic()
    raw, client_id = flows.session(trial, topic, qos)
    raw.disconnect()
    publisher = trial.connected("publisher")
    publish_by_bytes(publisher, packets.publish(topic, b"message", qos=qos, packet_id=1, dup=dup))
    packet = flows.received(flows.resumed(trial, client_id), b"message", qos)
    expect.that(not packet.dup, "PUBLISH without DUP when it is sent for the first time", str(packet))


@verifies("MQTT-3.3.1-3")
@needs("retained")
@qos_1_and_2
def test_dup_of_a_retained_message(trial: Trial, qos: int) -> None:
    """A retained message that was published with DUP = 1 is delivered with DUP = 0."""
    topic = trial.topic()
    publisher = trial.connected("publisher")
    publish_by_bytes(publisher, packets.publish(topic, b"kept", qos=qos, packet_id=1, retain=True, dup=True))
    expect.message(trial.subscriber(topic, qos), payload=b"kept", dup=False)


# 3.3.1.2 QoS


@verifies("MQTT-3.3.1-4")
@pytest.mark.parametrize("retain", [False, True], ids=["plain", "retain"])
@pytest.mark.parametrize("dup", [False, True], ids=["first", "dup"])
def test_qos_3(trial: Trial, dup: bool, retain: bool) -> None:
    """A PUBLISH with QoS 3 gets the client disconnected."""
    raw = trial.connected()
    raw.send(packets.publish(trial.topic(), b"message", qos=3, packet_id=1, dup=dup, retain=retain))
    expect.closed(raw, after="a PUBLISH with QoS 3")


# 3.3.1.3 RETAIN: what is stored


@verifies("MQTT-3.3.1-5")
@published_1_and_2
@every_subscription
def test_retained_message_is_stored(trial: Trial, subscribed: int, published: int) -> None:
    """A message with RETAIN is stored with its QoS for those who subscribe later."""
    topic = trial.topic()
    publisher = trial.client("publisher")
    publisher.publish(topic, b"kept", published, retain=True)
    publisher.disconnect()
    subscriber = trial.subscriber(topic, subscribed)
    expect.message(subscriber, topic=topic, payload=b"kept", qos=min(published, subscribed))


@verifies("MQTT-3.3.1-5")
@qos_1_and_2
def test_retained_message_is_for_everyone(trial: Trial, qos: int) -> None:
    """A retained message is there for each of several later subscribers, and stays there."""
    topic = trial.topic()
    trial.client("publisher").publish(topic, b"kept", qos, retain=True)
    for _ in range(3):
        expect.message(trial.subscriber(topic, qos), payload=b"kept")


@verifies("MQTT-3.3.1-5")
@pytest.mark.parametrize("size", [1, 20_000])
def test_retained_payload(trial: Trial, size: int) -> None:
    """A retained message is stored as it is, whatever its bytes."""
    topic = trial.topic()
    payload = bytes(range(256)) * (size // 256) or b"\0"
    trial.client("publisher").publish(topic, payload, 1, retain=True)
    subscriber = trial.subscriber(topic, 1)
    message = expect.message(subscriber, topic=topic)
    expect.that(message.payload == payload, f"{packets.size(payload)}, unchanged", packets.size(message.payload))


@verifies("3.3.1.3/qos-0-retained")
@every_subscription
def test_retained_message_with_qos_0(trial: Trial, subscribed: int) -> None:
    """A message with RETAIN and QoS 0 should be stored, too."""
    topic = trial.topic()
    publisher = trial.connected("publisher")
    publisher.publish(topic, b"kept", 0, retain=True)
    publisher.ping()
    subscriber = trial.subscriber(topic, subscribed)
    if not expect.until_control(subscriber, publisher, topic, 1):
        trial.warn("a message with RETAIN and QoS 0 is not stored")


@verifies("MQTT-3.3.1-6")
@published_1_and_2
@every_subscription
def test_last_retained_message_is_sent(trial: Trial, subscribed: int, published: int) -> None:
    """A new subscription gets the last of several retained messages, and only that."""
    topic = trial.topic()
    publisher = trial.client("publisher")
    for payload in (b"first", b"second", b"last"):
        publisher.publish(topic, payload, published, retain=True)
    subscriber = trial.subscriber(topic, subscribed)
    expect.message(subscriber, payload=b"last")
    expect.silence(subscriber, publisher, topic, subscribed, about="a retained message that was replaced")


@verifies("MQTT-3.3.1-6")
@needs("wildcards")
@pytest.mark.parametrize("topic_filter", ["#", "+/b", "deep/+/+/e", "deep/#", "deep/c/d/e"])
def test_retained_messages_of_all_topics(trial: Trial, topic_filter: str) -> None:
    """A new subscription gets the retained message of each topic that matches its filter, and no other."""
    matching = {
        "#": ["a/b", "c/b", "deep", "deep/c/d/e", "deep/x"],
        "+/b": ["a/b", "c/b"],
        "deep/+/+/e": ["deep/c/d/e"],
        "deep/#": ["deep", "deep/c/d/e", "deep/x"],
        "deep/c/d/e": ["deep/c/d/e"],
    }
    publisher = trial.client("publisher")
    for name in matching["#"]:
        publisher.publish(trial.topic(name), name.encode(), 1, retain=True)
    subscriber = trial.subscriber(trial.topic(topic_filter), 1)
    wanted = [name.encode() for name in matching[topic_filter]]
    found = expect.messages(subscriber, wanted)
    control = trial.topic(matching[topic_filter][0])
    found += expect.until_control(subscriber, publisher, control, 1)
    expect.equal(sorted(message.payload for message in found), sorted(wanted), "the retained messages")


@verifies("MQTT-3.3.1-6")
def test_retained_messages_of_several_filters(trial: Trial) -> None:
    """Each filter of one SUBSCRIBE gets its retained message."""
    publisher = trial.client("publisher")
    names = ["one", "two", "three"]
    for name in names:
        publisher.publish(trial.topic(name), name.encode(), 1, retain=True)
    raw = trial.connected("subscriber")
    raw.send(packets.subscribe(1, *((trial.topic(name), 1) for name in names)))
    raw.take(packets.SUBACK)
    expect.messages(raw, [name.encode() for name in names])


@verifies("MQTT-3.3.1-6")
def test_retained_message_after_unsubscribing(trial: Trial) -> None:
    """A filter that is subscribed again after UNSUBSCRIBE is a new subscription, and gets its retained message."""
    topic = trial.topic()
    trial.client("publisher").publish(topic, b"kept", 1, retain=True)
    subscriber = trial.client("subscriber")
    for _ in range(2):
        subscriber.subscribe(topic, 1)
        expect.message(subscriber, payload=b"kept")
        subscriber.unsubscribe(topic)


def not_retained(trial: Trial, publisher: Raw, topic: str, qos: int, payload: bytes, about: str) -> None:
    """A new subscriber does not get that message. Nothing says when a broker has stored what takes its place, PINGRESP
    neither: the last of ten subscribers counts."""
    for last in [*[False] * 9, True]:
        subscriber = trial.connected("subscriber")
        flows.subscribed(subscriber, topic, qos)
        found = expect.until_control(subscriber, publisher, topic, 1)
        kept = [str(message) for message in found if message.payload == payload]
        if not kept:
            return
        expect.that(not last, f"a new subscriber receives no message: {about}", ", ".join(kept))


@verifies("MQTT-3.3.1-7")
@pytest.mark.parametrize("before", [0, 1, 2])
@every_subscription
def test_qos_0_discards_what_was_retained(trial: Trial, subscribed: int, before: int) -> None:
    """A message with RETAIN and QoS 0 takes the place of the one that was retained: that is not delivered any more."""
    topic = trial.topic()
    publisher = trial.connected("publisher")
    publisher.publish(topic, b"old", before, retain=True)
    publisher.publish(topic, b"new", 0, retain=True)
    publisher.ping()
    not_retained(trial, publisher, topic, subscribed, b"old", "a retained message that was replaced with QoS 0")


@verifies("MQTT-3.3.1-7")
def test_qos_0_discards_what_came_right_before(trial: Trial) -> None:
    """The same, if both come in one segment."""
    topic = trial.topic()
    publisher = trial.connected("publisher")
    publisher.send(
        packets.publish(topic, b"old", qos=1, packet_id=1, retain=True), packets.publish(topic, b"new", retain=True)
    )
    publisher.ping()
    not_retained(trial, publisher, topic, 1, b"old", "a retained message that was replaced with QoS 0")


# 3.3.1.3 RETAIN: the flag of what is delivered


@verifies("MQTT-3.3.1-8")
@published_1_and_2
@every_subscription
def test_retain_for_a_new_subscription(trial: Trial, subscribed: int, published: int) -> None:
    """A message that is sent because of a new subscription has RETAIN = 1."""
    topic = trial.topic()
    trial.client("publisher").publish(topic, b"kept", published, retain=True)
    expect.message(subscribed_client(trial, topic, subscribed), payload=b"kept", retain=True)


@verifies("MQTT-3.3.1-8")
@needs("wildcards")
def test_retain_for_a_wildcard(trial: Trial) -> None:
    """Messages that are sent because of a new subscription with a wildcard have RETAIN = 1, each of them."""
    publisher = trial.client("publisher")
    for name in ("a", "b"):
        publisher.publish(trial.topic(name), name.encode(), 1, retain=True)
    client = subscribed_client(trial, trial.topic("#"), 1)
    for message in [client.next_message() for _ in "ab"]:  # that they come at all is another rule
        expect.that(message.retain, "PUBLISH with RETAIN", str(message))


@verifies("MQTT-3.3.1-9")
@pytest.mark.parametrize("published", [0, 1, 2])
@every_subscription
def test_no_retain_for_an_old_subscription(trial: Trial, subscribed: int, published: int) -> None:
    """A message that is sent because of a subscription that is there has RETAIN = 0, whatever the publisher set."""
    topic = trial.topic()
    subscriber = subscribed_client(trial, topic, subscribed)
    trial.client("publisher").publish(topic, b"kept", published, retain=True)
    expect.message(subscriber, payload=b"kept", retain=False)


@verifies("MQTT-3.3.1-9")
@qos_1_and_2
def test_no_retain_after_absence(trial: Trial, qos: int) -> None:
    """A message with RETAIN that waited for an absent client has RETAIN = 0: the subscription was there."""
    trial.require(f"qos-{qos}")
    topic = trial.topic()
    client = trial.client("subscriber", clean=False)
    client.subscribe(topic, qos)
    client.disconnect()
    trial.client("publisher").publish(topic, b"kept", qos, retain=True)
    again = trial.client("again", client_id=client.client_id, clean=False)
    expect.message(again, payload=b"kept", retain=False)


@verifies("MQTT-3.3.1-9")
def test_no_retain_for_the_publisher_itself(trial: Trial) -> None:
    """A client that publishes with RETAIN to its own subscription gets the message with RETAIN = 0."""
    topic = trial.topic()
    client = subscribed_client(trial, topic, 1)
    client.publish(topic, b"kept", 1, retain=True)
    expect.message(client, payload=b"kept", retain=False)


def subscribed_client(trial: Trial, topic_filter: str, qos: int) -> Client:
    """A client with one subscription, whatever QoS is granted."""
    client = trial.client("subscriber")
    client.subscribe(topic_filter, qos)
    return client


# 3.3.1.3 RETAIN: how a retained message is removed, and how it is not


@verifies("MQTT-3.3.1-10")
@every_qos
def test_empty_message_removes(trial: Trial, qos: int) -> None:
    """An empty message with RETAIN removes what is retained for its topic: later subscribers get nothing."""
    topic = trial.topic()
    publisher = trial.connected("publisher")
    publisher.publish(topic, b"kept", 1, retain=True)
    publisher.publish(topic, b"", qos, retain=True)
    publisher.ping()
    not_retained(trial, publisher, topic, 1, b"kept", "a retained message that was removed")


def of_topics(topics: list[str]) -> Callable[[Publish], bool]:
    return lambda publish: publish.topic in topics


@verifies("MQTT-3.3.1-10")
def test_empty_message_removes_what_came_right_before(trial: Trial) -> None:
    """The same, if the message and the empty one come in one segment."""
    topic = trial.topic()
    publisher = trial.connected("publisher")
    publisher.send(
        packets.publish(topic, b"kept", qos=1, packet_id=1, retain=True), packets.publish(topic, retain=True)
    )
    publisher.ping()
    not_retained(trial, publisher, topic, 1, b"kept", "a retained message that was removed")


@verifies("MQTT-3.3.1-10")
@needs("retained")
def test_empty_message_removes_one_topic(trial: Trial) -> None:
    """An empty message with RETAIN removes what is retained for its own topic, and nothing else."""
    publisher = trial.client("publisher")
    names = ["a", "a/b", "a/b/c", "A/b"]
    for name in names:
        publisher.publish(trial.topic(name), name.encode(), 1, retain=True)
    publisher.publish(trial.topic("a/b"), b"", 1, retain=True)
    for name in names:
        subscriber = subscribed_client(trial, trial.topic(name), 1)
        if name == "a/b":
            about, others = (
                "a retained message that was removed",
                [trial.topic(other) for other in names if other != name],
            )
            besides = of_topics(others)
            expect.silence(subscriber, publisher, trial.topic(name), 1, about=about, besides=besides)
        else:
            expect.messages(subscriber, [name.encode()])


@verifies("MQTT-3.3.1-10")
@every_qos
def test_empty_message_is_delivered(trial: Trial, qos: int) -> None:
    """An empty message with RETAIN is delivered to those who are subscribed as any other, with RETAIN = 0."""
    topic = trial.topic()
    subscriber = subscribed_client(trial, topic, qos)
    publisher = trial.client("publisher")
    publisher.publish(topic, b"", qos, retain=True)
    expect.message(subscriber, topic=topic, payload=b"", retain=False)


@verifies("MQTT-3.3.1-11")
@every_qos
@pytest.mark.parametrize("before", ["nothing", "a message", "twice"])
def test_empty_message_is_not_stored(trial: Trial, before: str, qos: int) -> None:
    """An empty message with RETAIN is not itself retained."""
    topic = trial.topic()
    publisher = trial.connected("publisher")
    if before == "a message":
        publisher.publish(topic, b"kept", 1, retain=True)
    if before == "twice":
        publisher.publish(topic, b"", qos, retain=True)
    publisher.publish(topic, b"", qos, retain=True)
    publisher.ping()
    subscriber = subscribed_client(trial, topic, 1)
    about = "an empty retained message"
    expect.silence(subscriber, publisher, topic, 1, about=about, besides=lambda message: message.payload == b"kept")


@verifies("MQTT-3.3.1-12")
@every_qos
def test_message_without_retain_is_not_stored(trial: Trial, qos: int) -> None:
    """A message without RETAIN is not there for those who subscribe later."""
    topic = trial.topic()
    publisher = trial.connected("publisher")
    publisher.publish(topic, b"not kept", qos)
    publisher.ping()
    subscriber = subscribed_client(trial, topic, 1)
    expect.silence(subscriber, publisher, topic, 1, about="a message that was published without RETAIN")


@verifies("MQTT-3.3.1-12")
@needs("retained")
@every_qos
@pytest.mark.parametrize("payload", [b"not kept", b""], ids=["message", "empty"])
def test_message_without_retain_changes_nothing(trial: Trial, payload: bytes, qos: int) -> None:
    """A message without RETAIN, empty or not, neither replaces nor removes the retained one."""
    topic = trial.topic()
    publisher = trial.connected("publisher")
    publisher.publish(topic, b"kept", 1, retain=True)
    publisher.publish(topic, payload, qos)
    publisher.ping()
    expect.message(subscribed_client(trial, topic, 1), payload=b"kept")


# 3.3.2.1 Topic Name

MALFORMED: dict[str, bytes] = {
    "nothing at all": b"",
    "half a length": b"\0",
    "longer than the packet": b"\0\x10too short",
    "much longer": b"\xff\xfftoo short",
    **{name: packets.string(b"topic/" + text) for name, text in ILL_FORMED_UTF8.items()},
    "NUL": packets.string(b"topic/\0/x"),
}


@verifies("MQTT-3.3.2-1", "MQTT-4.8.0-1")
@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
def test_malformed_topic(trial: Trial, body: bytes) -> None:
    """A PUBLISH that does not begin with a well-formed topic gets the client disconnected."""
    raw = trial.connected()
    raw.send(packets.frame(packets.PUBLISH, 0, body))
    expect.closed(raw, after="a PUBLISH without a well-formed topic")


@verifies("MQTT-3.3.2-1")
@qos_1_and_2
def test_packet_ends_behind_the_topic(trial: Trial, qos: int) -> None:
    """A PUBLISH with QoS 1 or 2 that ends before its Packet Identifier gets the client disconnected."""
    for rest in (b"", b"\1"):
        raw = trial.connected()
        raw.send(packets.frame(packets.PUBLISH, qos << 1, packets.string(trial.topic()) + rest))
        expect.closed(raw, after="a PUBLISH that ends before its Packet Identifier")


TOPICS = {
    "two bytes": "é/ü",
    "three bytes": "主题/数据",
    "four bytes": "😀/🚀",
    "byte-order mark": "\ufeffx",
    "spaces": " a b ",
    "signs": "!\"$%&'()*,-.:;<=>?@[]^_`{|}~",
    "empty levels": "a//b/",
    "combining": "e\u0301",
}


@verifies("MQTT-3.3.2-1")
@pytest.mark.parametrize("name", TOPICS.values(), ids=TOPICS)
def test_topic_is_a_string(trial: Trial, name: str) -> None:
    """A topic of any characters is accepted, and delivered as the same bytes."""
    topic = trial.topic(name)
    raw = trial.connected("subscriber")
    raw.subscribe(topic, 1)
    publisher = trial.connected("publisher")
    publisher.send(packets.publish(topic, b"message", qos=1, packet_id=1))
    expect.packet(publisher, packets.PUBACK)
    expect.message(raw, payload=b"message", topic=topic)


WILDCARDS = ["#", "+", "a/#", "a/+/b", "a+", "+b", "a#", "#/b"]


@verifies("MQTT-3.3.2-2", "MQTT-4.8.0-1")
@every_qos
@pytest.mark.parametrize("name", WILDCARDS)
def test_wildcard_in_a_topic(trial: Trial, name: str, qos: int) -> None:
    """A PUBLISH whose topic has a wildcard in it gets the client disconnected."""
    raw = trial.connected()
    raw.send(packets.publish(trial.topic(name), b"message", qos=qos, packet_id=1 if qos else None))
    expect.closed(raw, after="a topic with a wildcard")


@verifies("MQTT-3.3.2-2")
@needs("wildcards")
@every_qos
def test_wildcard_in_a_topic_reaches_nobody(trial: Trial, qos: int) -> None:
    """A PUBLISH whose topic has a wildcard in it is not delivered."""
    subscriber = subscribed_client(trial, trial.topic("#"), 2)
    raw = trial.connected()
    raw.send(packets.publish(trial.topic("a/+/b"), b"message", qos=qos, packet_id=1 if qos else None))
    expect.closed(raw, after="a topic with a wildcard")
    control = trial.client("control")
    expect.silence(subscriber, control, trial.topic("control"), 1, about="a message whose topic has a wildcard")


FILTERS: dict[str, tuple[str, list[str]]] = {
    "exact": ("a/b", ["a/b"]),
    "plus": ("a/+", ["a/b", "a/c", "a/"]),
    "plus inside": ("a/+/c", ["a/b/c", "a//c"]),
    "hash": ("a/#", ["a", "a/b", "a/b/c"]),
}


@verifies("MQTT-3.3.2-3")
@every_qos
@pytest.mark.parametrize("name", FILTERS)
def test_topic_matches_the_filter(trial: Trial, name: str, qos: int) -> None:
    """What is delivered has a topic that matches the subscription."""
    if name != "exact":
        trial.require("wildcards")
    topic_filter, names = FILTERS[name]
    subscriber = subscribed_client(trial, trial.topic(topic_filter), qos)
    publisher = trial.client("publisher")
    for topic in names:
        publisher.publish(trial.topic(topic), topic.encode(), qos)
        message = expect.message(subscriber, payload=topic.encode())
        fits = fits_filter(message.topic, trial.topic(topic_filter))
        expect.that(fits, f"PUBLISH with a topic that matches {trial.topic(topic_filter)}", str(message))
        if message.topic != trial.topic(topic):
            trial.warn(f"the broker changes the topic {topic} into {message.topic}, as it may")


def fits_filter(topic: str, topic_filter: str) -> bool:
    """Whether a topic matches one of `FILTERS` (section 4.7)."""
    wanted, given = topic_filter.split("/"), topic.split("/")
    if wanted[-1] == "#":
        wanted.pop()
        given = given[: len(wanted)]
    return len(wanted) == len(given) and all(pair[0] in ("+", pair[1]) for pair in zip(wanted, given, strict=True))


# 3.3.4 Response

RESPONSES: dict[str, Callable[[str, int], bytes]] = {
    "plain": lambda topic, qos: packets.publish(topic, b"message", qos=qos, packet_id=7 if qos else None),
    "empty": lambda topic, qos: packets.publish(topic, b"", qos=qos, packet_id=7 if qos else None),
    "retain": lambda topic, qos: packets.publish(topic, b"m", qos=qos, packet_id=7 if qos else None, retain=True),
    "dup": lambda topic, qos: packets.publish(topic, b"m", qos=qos, packet_id=7 if qos else None, dup=qos > 0),
}
every_packet = pytest.mark.parametrize("packet", RESPONSES.values(), ids=RESPONSES)


@verifies("MQTT-3.3.4-1")
@every_packet
@pytest.mark.parametrize("watched", [False, True], ids=["no subscriber", "subscriber"])
def test_qos_1_is_answered_with_puback(trial: Trial, watched: bool, packet: Callable[[str, int], bytes]) -> None:
    """A PUBLISH with QoS 1 is answered with PUBACK, whatever else is in it and whoever gets it."""
    topic = trial.topic()
    if watched:
        subscribed_client(trial, topic, 1)
    raw = trial.connected()
    raw.send(packet(topic, 1))
    expect.packet(raw, packets.PUBACK, packet_id=7)
    no_other_answer(raw, packets.PUBREC)


@verifies("MQTT-3.3.4-1")
@every_packet
@pytest.mark.parametrize("watched", [False, True], ids=["no subscriber", "subscriber"])
def test_qos_2_is_answered_with_pubrec(trial: Trial, watched: bool, packet: Callable[[str, int], bytes]) -> None:
    """A PUBLISH with QoS 2 is answered with PUBREC, whatever else is in it and whoever gets it."""
    topic = trial.topic()
    if watched:
        subscribed_client(trial, topic, 2)
    raw = trial.connected()
    raw.send(packet(topic, 2))
    expect.packet(raw, packets.PUBREC, packet_id=7)
    no_other_answer(raw, packets.PUBACK)


@verifies("MQTT-3.3.4-1")
@every_packet
def test_qos_0_is_not_answered(trial: Trial, packet: Callable[[str, int], bytes]) -> None:
    """A PUBLISH with QoS 0 is not answered."""
    raw = trial.connected()
    raw.send(packet(trial.topic(), 0))
    no_other_answer(raw, packets.PUBACK, packets.PUBREC)


def no_other_answer(raw: Raw, *kinds: int) -> None:
    """A PINGREQ is answered, and nothing of these kinds comes before that."""
    raw.ping()
    found = [str(packet) for packet in raw.unread if packet.kind in kinds]
    expect.that(not found, f"no {' or '.join(packets.NAMES[kind] for kind in kinds)}", ", ".join(found))


# 3.3.5 Actions

OVERLAPS: dict[str, list[tuple[str, int]]] = {
    "exact and hash": [("a/b", 0), ("a/#", 2)],
    "hash and exact": [("a/#", 0), ("a/b", 2)],
    "hash and plus": [("#", 1), ("a/+", 0)],
    "plus and hash": [("a/+", 2), ("#", 0)],
    "low in the middle": [("a/b", 1), ("a/+", 0), ("a/#", 2)],
    "high in the middle": [("+/b", 0), ("a/#", 2), ("a/b", 1)],
    "high first": [("a/b", 2), ("a/+", 1), ("#", 0)],
}


@verifies("MQTT-3.3.5-1")
@needs("wildcards", "qos-2")
@published_1_and_2
@pytest.mark.parametrize("together", [True, False], ids=["one subscribe", "several"])
@pytest.mark.parametrize("filters", OVERLAPS.values(), ids=OVERLAPS)
def test_overlapping_subscriptions(
    trial: Trial, filters: list[tuple[str, int]], together: bool, published: int
) -> None:
    """Of several subscriptions that match a message, the highest QoS holds: one copy at least comes with it."""
    raw = trial.connected("subscriber")
    if together:
        raw.send(packets.subscribe(1, *((trial.topic(name), qos) for name, qos in filters)))
        raw.take(packets.SUBACK)
    else:
        for name, qos in filters:
            flows.subscribed(raw, trial.topic(name), qos)
    trial.client("publisher").publish(trial.topic("a/b"), b"message", published)
    wanted = min(published, max(qos for _, qos in filters))
    try:
        # More than was published breaks another rule.
        raw.take(packets.PUBLISH, lambda packet: isinstance(packet, Publish) and packet.qos >= wanted)
    except NoAnswer as error:
        seen = ", ".join(str(packet) for packet in raw.unread if packet.kind == packets.PUBLISH)
        raise Failure(f"a copy of the message with QoS {wanted}", f"{seen or 'no copy'}: {error}") from None


@verifies("MQTT-3.3.5-2")
@needs("acl")
@qos_1_and_2
@pytest.mark.parametrize("dup", [False, True], ids=["first", "dup"])
def test_forbidden_publish(trial: Trial, dup: bool, qos: int) -> None:
    """A PUBLISH that the client may not do is acknowledged as any other, or the connection closed."""
    raw = trial.connected(endpoint="acl")
    topic = raw.endpoint.publish_forbidden
    if topic is None:
        raise Inconclusive("the profile's endpoint `acl` would need publish_forbidden")
    kinds = [packets.PUBACK] if qos == 1 else [packets.PUBREC, packets.PUBCOMP]
    for kind in kinds:
        if kind == packets.PUBCOMP:
            raw.send(packets.pubrel(1))
        else:
            raw.send(packets.publish(topic, b"forbidden", qos=qos, packet_id=1, dup=dup))
        try:
            raw.take(kind, lambda packet: getattr(packet, "packet_id", 0) == 1)
        except Closed:
            trial.note("the connection is closed")
            return
        except NoAnswer as error:
            raise Failure(f"{packets.NAMES[kind]}, or the end of the connection", str(error)) from None
    trial.note("the message is acknowledged")


@verifies("MQTT-3.3.5-2")
@needs("acl")
def test_forbidden_publish_by_a_good_client(trial: Trial) -> None:
    """A client whose PUBLISH is forbidden can go on, unless the connection is closed."""
    raw = trial.connected(endpoint="acl")
    topic = raw.endpoint.publish_forbidden
    if topic is None:
        raise Inconclusive("the profile's endpoint `acl` would need publish_forbidden")
    allowed = trial.topic()
    raw.send(
        packets.publish(topic, b"forbidden", qos=1, packet_id=1),
        packets.publish(allowed, b"allowed", qos=1, packet_id=2),
    )
    try:
        for _ in range(2):
            raw.take(packets.PUBACK)
    except Closed:
        trial.note("the connection is closed")
    except NoAnswer as error:
        raise Failure("PUBACK for both messages, or the end of the connection", str(error)) from None
