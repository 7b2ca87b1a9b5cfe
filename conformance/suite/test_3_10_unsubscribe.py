"""3.10 UNSUBSCRIBE: the end of subscriptions."""

from collections.abc import Callable

import pytest

from .. import expect, packets
from ..marks import needs, verifies
from ..packets import Publish
from ..raw import Raw
from ..trial import Trial
from ..verdicts import Inconclusive

both_sessions = pytest.mark.parametrize("clean", [True, False], ids=["clean", "persistent"])


# 3.10.1 Fixed header


@verifies("MQTT-3.10.1-1")
@pytest.mark.parametrize("flags", [flags for flags in range(16) if flags != 0b0010], ids="{:04b}".format)
def test_header_flags(trial: Trial, flags: int) -> None:
    """An UNSUBSCRIBE whose header flags are not 0010 gets the client disconnected."""
    raw = trial.connected()
    raw.send(packets.unsubscribe(1, trial.topic(), flags=flags))
    expect.closed(raw, after="an UNSUBSCRIBE with wrong header flags")


# 3.10.3 Payload


@verifies("MQTT-3.10.3-2", "MQTT-4.8.0-1")
@pytest.mark.parametrize("packet_id", [1, 65535])
def test_no_filter(trial: Trial, packet_id: int) -> None:
    """An UNSUBSCRIBE without a filter gets the client disconnected."""
    raw = trial.connected()
    raw.send(packets.unsubscribe(packet_id))
    expect.closed(raw, after="an UNSUBSCRIBE without a filter")


INCOMPLETE: dict[str, Callable[[str], bytes]] = {
    "nothing": lambda topic: b"",
    "half a packet id": lambda topic: b"\0",
    "half a length": lambda topic: b"\0\1\0",
    "length without a filter": lambda topic: b"\0\1\0\5",
    "filter cut short": lambda topic: b"\0\1" + packets.string(topic)[:-1],
    "second filter cut short": lambda topic: b"\0\1" + packets.string(topic) + packets.string(topic)[:-1],
    "one byte behind": lambda topic: b"\0\1" + packets.string(topic) + b"\0",
}


@verifies("MQTT-4.8.0-1")
@pytest.mark.parametrize("body", INCOMPLETE.values(), ids=INCOMPLETE)
def test_incomplete_unsubscribe(trial: Trial, body: Callable[[str], bytes]) -> None:
    """An UNSUBSCRIBE that ends within a field gets the client disconnected."""
    raw = trial.connected()
    raw.send(packets.frame(packets.UNSUBSCRIBE, 0b0010, body(trial.topic())))
    expect.closed(raw, after="an UNSUBSCRIBE that ends within a field")


# 3.10.4 Response: what is removed


#: A subscribed filter, a topic that it matches, and filters that are not the same.
NOT_THE_SAME = {
    "literal": ("a/b", "a/b", ["a/+", "+/b", "a/#", "#", "+/+", "a", "a/b/", "/a/b", "A/B", "a/B", "a/b/#", "a/b "]),
    "plus": ("a/+", "a/b", ["a/b", "a/#", "+/+", "#", "a/", "a", "A/+", "a/+/", "+"]),
    "hash": ("a/#", "a/b", ["a/b", "a/+", "#", "a", "A/#", "a/+/#", "+/#", "a//#"]),
    "Unicode": ("caf\u00e9", "caf\u00e9", ["cafe\u0301", "cafe", "CAF\u00c9", "caf\u00e9 ", "caf\u00e9/"]),
}


@verifies("MQTT-3.10.4-1")
@needs("wildcards")
@pytest.mark.parametrize(("subscribed", "name", "others"), NOT_THE_SAME.values(), ids=NOT_THE_SAME)
def test_other_filters_remove_nothing(trial: Trial, subscribed: str, name: str, others: list[str]) -> None:
    """A subscription stays when filters are unsubscribed that are not the same character by character."""
    subscriber = trial.subscriber(trial.topic(subscribed), 1)
    publisher = trial.client("publisher")
    for other in others:
        subscriber.unsubscribe(trial.topic(other))
        publisher.publish(trial.topic(name), other.encode(), 1)
        expect.message(subscriber, topic=trial.topic(name), payload=other.encode())


#: A filter to unsubscribe, one to keep, a topic that only the first matches, and one of the second.
OVERLAPPING = {
    "plus beside literal": ("a/+", "a/b", "a/x", "a/b"),
    "hash beside plus": ("a/#", "a/+", "a/x/y", "a/x"),
    "plus beside hash": ("+/+", "a/#", "b/x", "a/x"),
    "hash beside hash": ("#", "a/#", "b/x", "a/x"),
    "literal beside its sibling": ("a/b", "a/B", "a/b", "a/B"),
}


@verifies("MQTT-3.10.4-1", "MQTT-3.10.4-2")
@needs("wildcards")
@pytest.mark.parametrize(("removed", "kept", "only", "both"), OVERLAPPING.values(), ids=OVERLAPPING)
def test_only_the_same_filter_is_removed(trial: Trial, removed: str, kept: str, only: str, both: str) -> None:
    """Of two filters that overlap, the one that is unsubscribed is removed, and the other stays."""
    subscriber = trial.client("subscriber")
    for name in (removed, kept):
        subscriber.subscribe(trial.topic(name), 1)
    subscriber.unsubscribe(trial.topic(removed))
    publisher = trial.client("publisher")
    publisher.publish(trial.topic(both), b"for the other filter", 1)
    expect.message(subscriber, topic=trial.topic(both), payload=b"for the other filter")
    publisher.publish(trial.topic(only), b"not wanted", 1)
    about = "a message for the filter that was unsubscribed"
    expect.silence(subscriber, publisher, trial.topic(both), 1, about=about)


@verifies("MQTT-3.10.4-1")
def test_other_clients_keep_their_subscriptions(trial: Trial) -> None:
    """An UNSUBSCRIBE concerns the subscriptions of its own client only."""
    topic = trial.topic()
    other = trial.subscriber(topic, 1, name="other")
    subscriber = trial.subscriber(topic, 1)
    subscriber.unsubscribe(topic)
    trial.client("publisher").publish(topic, b"for the other", 1)
    expect.message(other, topic=topic, payload=b"for the other")


@verifies("MQTT-3.10.4-2")
@both_sessions
@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("published", [0, 1, 2])
def test_nothing_more_comes(trial: Trial, published: int, qos: int, clean: bool) -> None:
    """After UNSUBACK no message is delivered that is published now."""
    topic, control = trial.topic(), trial.topic("control")
    subscriber = trial.client("subscriber", clean=clean)
    publisher = trial.client("publisher")
    subscriber.subscribe(control, qos)
    subscriber.subscribe(topic, qos)
    publisher.publish(topic, b"wanted", published)
    subscriber.next_message()
    subscriber.unsubscribe(topic)
    publisher.publish(topic, b"not wanted", published)
    about = "a message for a filter that was unsubscribed"
    expect.silence(subscriber, publisher, control, published, about=about)


@verifies("MQTT-3.10.4-2")
@pytest.mark.parametrize("qos", [1, 2])
def test_nothing_waits(trial: Trial, qos: int) -> None:
    """After UNSUBACK nothing is stored for a filter while its client is away."""
    trial.require(f"qos-{qos}")
    topic, control = trial.topic(), trial.topic("control")
    subscriber = trial.client("subscriber", clean=False)
    subscriber.subscribe(control, qos)
    subscriber.subscribe(topic, qos)
    subscriber.unsubscribe(topic)
    subscriber.disconnect()
    publisher = trial.client("publisher")
    publisher.publish(topic, b"not wanted", qos)
    again = trial.client("again", client_id=subscriber.client_id, clean=False)
    expect.silence(again, publisher, control, qos, about="a message for a filter that was unsubscribed")


@verifies("MQTT-3.10.4-2")
@needs("retained")
def test_subscription_can_be_made_again(trial: Trial) -> None:
    """A filter may be subscribed to and unsubscribed again and again; each state holds until the next."""
    topic, control = trial.topic(), trial.topic("control")
    subscriber = trial.subscriber(control, 1)
    publisher = trial.client("publisher")
    for _ in range(3):
        subscriber.subscribe(topic, 1)
        publisher.publish(topic, b"wanted", 1)
        subscriber.next_message()
        subscriber.unsubscribe(topic)
        publisher.publish(topic, b"not wanted", 1)
        about = "a message for a filter that was unsubscribed"
        expect.silence(subscriber, publisher, control, 1, about=about)


# 3.10.4 Response: what is under way


def under_way(trial: Trial, client_id: str, topic: str, qos: int) -> tuple[Raw, int]:
    """A persistent client that was sent a message and has not acknowledged it: the client, the Packet Identifier."""
    trial.require(f"qos-{qos}")
    raw = trial.raw("subscriber")
    raw.connect(client_id, clean=False)
    raw.subscribe(topic, qos)
    trial.client("publisher").publish(topic, b"under way", qos)
    message = raw.take(packets.PUBLISH)
    assert isinstance(message, Publish)
    if message.qos != qos or message.packet_id is None:
        raise Inconclusive(f"a message of QoS {qos} came as {message}")
    return raw, message.packet_id


@verifies("MQTT-3.10.4-3")
def test_qos_2_delivery_is_finished(trial: Trial) -> None:
    """A QoS 2 message that was sent before UNSUBSCRIBE goes through the rest of its handshake after it."""
    topic = trial.topic()
    raw, packet_id = under_way(trial, trial.client_id(), topic, 2)
    raw.unsubscribe(topic)
    raw.send(packets.pubrec(packet_id))
    expect.packet(raw, packets.PUBREL, packet_id=packet_id)
    raw.send(packets.pubcomp(packet_id))
    raw.ping()


@verifies("MQTT-3.10.4-3")
@pytest.mark.parametrize("qos", [1, 2])
def test_delivery_is_finished_later(trial: Trial, qos: int) -> None:
    """A message that was sent before UNSUBSCRIBE and not acknowledged is sent again when the client returns."""
    client_id, topic = trial.client_id(), trial.topic()
    raw, packet_id = under_way(trial, client_id, topic, qos)
    raw.unsubscribe(topic)
    raw.close()
    again = trial.raw("again")
    again.connect(client_id, clean=False)
    expect.packet(again, packets.PUBLISH, packet_id=packet_id, payload=b"under way")


@verifies("MQTT-3.10.4-3")
@pytest.mark.parametrize("unsubscribed", ["before PUBREC", "after PUBREL"])
def test_release_is_finished_later(trial: Trial, unsubscribed: str) -> None:
    """A QoS 2 message that was released and not completed is released again, although the filter is unsubscribed."""
    client_id, topic = trial.client_id(), trial.topic()
    raw, packet_id = under_way(trial, client_id, topic, 2)
    if unsubscribed == "before PUBREC":
        raw.unsubscribe(topic)
    raw.send(packets.pubrec(packet_id))
    raw.take(packets.PUBREL)
    if unsubscribed == "after PUBREL":
        raw.unsubscribe(topic)
    raw.close()
    again = trial.raw("again")
    again.connect(client_id, clean=False)
    expect.packet(again, packets.PUBREL, packet_id=packet_id)


# 3.10.4 Response: UNSUBACK


@verifies("MQTT-3.10.4-4", "MQTT-2.3.1-7")
@pytest.mark.parametrize("packet_id", [1, 2, 127, 128, 255, 256, 257, 32767, 32768, 65534, 65535])
def test_unsuback_packet_id(trial: Trial, packet_id: int) -> None:
    """An UNSUBSCRIBE is answered with an UNSUBACK of its Packet Identifier."""
    raw, topic = trial.connected(), trial.topic()
    raw.subscribe(topic)
    raw.send(packets.unsubscribe(packet_id, topic))
    expect.packet(raw, packets.UNSUBACK, packet_id=packet_id)


@verifies("MQTT-3.10.4-4", "MQTT-2.3.1-7")
def test_every_unsubscribe_is_answered(trial: Trial) -> None:
    """Each of many UNSUBSCRIBEs that come together is answered with an UNSUBACK of its own."""
    raw = trial.connected()
    packet_ids = list(range(1, 101))
    raw.send(packets.subscribe(500, *((trial.topic(f"{number}"), 0) for number in packet_ids)))
    raw.take(packets.SUBACK)
    raw.send(*(packets.unsubscribe(number, trial.topic(f"{number}")) for number in packet_ids))
    answered = sorted(getattr(expect.packet(raw, packets.UNSUBACK), "packet_id", 0) for _ in packet_ids)
    expect.equal(answered, packet_ids, "the Packet Identifiers of the UNSUBACKs")


@verifies("MQTT-3.10.4-5")
@pytest.mark.parametrize("name", ["never", "+", "#", "+/a/#", "/", " a b "])
@both_sessions
def test_unsuback_without_a_subscription(trial: Trial, clean: bool, name: str) -> None:
    """An UNSUBSCRIBE is answered with an UNSUBACK even if the client has no such subscription."""
    raw = trial.raw()
    raw.connect(trial.client_id(), clean=clean)
    raw.subscribe(trial.topic("another"))
    raw.send(packets.unsubscribe(9, trial.topic(name)))
    expect.packet(raw, packets.UNSUBACK, packet_id=9)


@verifies("MQTT-3.10.4-5")
@pytest.mark.parametrize("topic_filter", ["#", "+", "/", "$SYS/#", "$SYS/broker/version"])
def test_unsuback_without_a_subscription_at_the_top(trial: Trial, topic_filter: str) -> None:
    """An UNSUBSCRIBE of a filter from the top of the topics that was never subscribed to is answered."""
    raw = trial.connected()
    raw.send(packets.unsubscribe(9, topic_filter))
    expect.packet(raw, packets.UNSUBACK, packet_id=9)


@verifies("MQTT-3.10.4-5")
def test_unsuback_when_it_was_removed_before(trial: Trial) -> None:
    """A second UNSUBSCRIBE of the same filter is answered as well."""
    raw, topic = trial.connected(), trial.topic()
    raw.subscribe(topic)
    raw.unsubscribe(topic)
    raw.send(packets.unsubscribe(9, topic))
    expect.packet(raw, packets.UNSUBACK, packet_id=9)


@verifies("MQTT-3.10.4-6")
@pytest.mark.parametrize("count", [2, 10, 100])
@pytest.mark.parametrize("known", ["all", "none", "some"])
def test_one_unsuback_for_several_filters(trial: Trial, known: str, count: int) -> None:
    """An UNSUBSCRIBE with several filters is answered with one UNSUBACK."""
    raw = trial.connected()
    for number in range(0, count, 3):
        if known == "all" or (known == "some" and number % 2):
            raw.subscribe(trial.topic(f"{number}"))
    packet_id = raw.new_packet_id()
    raw.send(packets.unsubscribe(packet_id, *(trial.topic(f"{number}") for number in range(count))), packets.pingreq())
    expect.packet(raw, packets.UNSUBACK, packet_id=packet_id)
    raw.take(packets.PINGRESP)
    others = [packet for packet in raw.unread if packet.kind == packets.UNSUBACK]
    expect.that(not others, "one UNSUBACK", f"another came: {', '.join(map(str, others))}")


@verifies("MQTT-3.10.4-6")
@pytest.mark.parametrize("count", [2, 10, 50])
def test_several_filters_are_removed(trial: Trial, count: int) -> None:
    """Each filter of an UNSUBSCRIBE is removed, whatever else it names."""
    control = trial.topic("control")
    raw = trial.connected("subscriber")
    raw.subscribe(control, 1)
    topics = [trial.topic(f"{number}") for number in range(count)]
    raw.send(packets.subscribe(1000, *((topic, 1) for topic in topics)))
    raw.take(packets.SUBACK)
    raw.send(packets.unsubscribe(1001, trial.topic("unknown"), topics[0], *topics))
    raw.take(packets.UNSUBACK)
    publisher = trial.client("publisher")
    for topic in topics:
        publisher.publish(topic, b"not wanted", 1)
    expect.silence(raw, publisher, control, 1, about="a message for one of the filters that were unsubscribed")
