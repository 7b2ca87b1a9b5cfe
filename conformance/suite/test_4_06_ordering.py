"""4.6 Message ordering. That acknowledgements are in order binds clients; a broker is bound in what it sends."""

from collections.abc import Callable, Sequence

import pytest

from .. import expect, packets
from ..expect import Receiver
from ..marks import needs, verifies
from ..packets import Acknowledgement, Publish
from ..raw import Raw
from ..trial import Trial
from ..verdicts import Failure, Inconclusive
from . import flows

every_qos = pytest.mark.parametrize("qos", [0, 1, 2])
qos_1_and_2 = pytest.mark.parametrize("qos", [1, 2])
every_end = pytest.mark.parametrize("end", flows.ENDS.values(), ids=flows.ENDS)

#: Messages under way at a time.
COUNT = 8

#: Messages of a stream.
STREAM = 60


def payloads(count: int, name: str = "message") -> list[bytes]:
    return [f"{name} {number:03}".encode() for number in range(count)]


def in_order(receiver: Receiver, expected: Sequence[bytes]) -> None:
    """These messages come in this order. A copy of one that came before is no matter of order."""
    found = list(dict.fromkeys(message.payload for message in all_of(receiver, expected)))
    expect.equal(found, list(expected), "the messages in their order")


def all_of(receiver: Receiver, expected: Sequence[bytes]) -> list[Publish]:
    """All that comes up to the last of these messages. Inconclusive if one is missing: that is no matter of order."""
    try:
        return expect.messages(receiver, expected)
    except Failure as failure:
        raise Inconclusive(f"the order cannot be judged, because not all messages came: {failure.actual}") from None


def under_way(trial: Trial, topic: str, qos: int) -> tuple[Raw, str, list[int]]:
    """A client, its ClientId, and the identifiers of messages that have come to it in this order."""
    raw, client_id = flows.session(trial, topic, qos)
    publisher = trial.client("publisher")
    for payload in payloads(COUNT):
        publisher.publish(topic, payload, qos)
    return raw, client_id, [flows.received(raw, payload, qos).packet_id or 0 for payload in payloads(COUNT)]


# What is sent again


@verifies("MQTT-4.6.0-1", "MQTT-4.6.0-6")
@qos_1_and_2
@every_end
def test_messages_are_sent_again_in_order(trial: Trial, end: Callable[[Raw], None], qos: int) -> None:
    """Messages that are sent again come in the order in which they were sent first."""
    trial.require(f"qos-{qos}")
    raw, client_id, identifiers = under_way(trial, trial.topic(), qos)
    end(raw)
    again = flows.resumed(trial, client_id)
    found = [getattr(again.take(packets.PUBLISH), "packet_id", 0) for _ in identifiers]
    expect.equal(found, identifiers, "the identifiers of what is sent again")


@verifies("MQTT-4.6.0-1", "MQTT-4.6.0-6")
@qos_1_and_2
def test_messages_are_sent_again_before_new_ones(trial: Trial, qos: int) -> None:
    """Messages that are sent again keep their order, beside that of what was published in the absence."""
    trial.require(f"qos-{qos}")
    topic = trial.topic()
    raw, client_id, _ = under_way(trial, topic, qos)
    raw.disconnect()
    publisher = trial.client("later")
    for payload in payloads(COUNT, "new"):
        publisher.publish(topic, payload, qos)
    old, new = payloads(COUNT), payloads(COUNT, "new")
    messages = all_of(flows.resumed(trial, client_id), old + new)
    found = list(dict.fromkeys(message.payload for message in messages))
    expect.equal([payload for payload in found if payload in old], old, "what is sent again, in its order")
    expect.equal([payload for payload in found if payload in new], new, "what is sent for the first time, in its order")
    if found != old + new:
        trial.warn("messages that are sent again come behind others that were published later")


@verifies("MQTT-4.6.0-1", "MQTT-4.6.0-6")
@qos_1_and_2
def test_the_rest_is_sent_again_in_order(trial: Trial, qos: int) -> None:
    """When the first of several messages were acknowledged, the rest is sent again in order."""
    trial.require(f"qos-{qos}")
    raw, client_id, identifiers = under_way(trial, trial.topic(), qos)
    for packet_id in identifiers[:3]:
        flows.acknowledge(raw, packet_id, qos)
    raw.ping()
    raw.reset()
    in_order(flows.resumed(trial, client_id), payloads(COUNT)[3:])


# PUBREL


def released(raw: Raw) -> list[int]:
    packets_found = [raw.take(packets.PUBREL) for _ in range(COUNT)]
    return [packet.packet_id for packet in packets_found if isinstance(packet, Acknowledgement)]


@verifies("MQTT-4.6.0-4", "MQTT-4.6.0-6")
@needs("qos-2")
@pytest.mark.parametrize("together", [True, False], ids=["one segment", "one by one"])
def test_pubrels_are_in_order(trial: Trial, together: bool) -> None:
    """PUBRELs come in the order of the PUBRECs that they answer."""
    raw, _, identifiers = under_way(trial, trial.topic(), 2)
    answers = [packets.pubrec(packet_id) for packet_id in identifiers]
    if together:
        raw.send(*answers)
    else:
        for answer in answers:
            raw.send(answer)
    expect.equal(released(raw), identifiers, "the identifiers of the PUBRELs")


@verifies("MQTT-4.6.0-4", "MQTT-4.6.0-6")
@needs("qos-2")
@every_end
def test_pubrels_are_sent_again_in_order(trial: Trial, end: Callable[[Raw], None]) -> None:
    """PUBRELs that are sent again come in the order of their PUBRECs, too."""
    raw, client_id, identifiers = under_way(trial, trial.topic(), 2)
    raw.send(*(packets.pubrec(packet_id) for packet_id in identifiers))
    for _ in identifiers:
        raw.take(packets.PUBREL)
    end(raw)
    expect.equal(released(flows.resumed(trial, client_id)), identifiers, "the identifiers of the PUBRELs")


# From publisher to subscriber


@verifies("MQTT-4.6.0-5", "MQTT-4.6.0-6")
@every_qos
@pytest.mark.parametrize("name", ["topic", "a/b/c/d", "/", "sensor 1/t°"])
def test_topics_are_ordered(trial: Trial, name: str, qos: int) -> None:
    """Whatever its name, a topic keeps the order of its messages, unless the broker was told otherwise."""
    topic = trial.topic(name)
    subscriber = trial.subscriber(topic, qos)
    publisher = trial.client("publisher")
    for payload in payloads(STREAM // 2):
        publisher.publish(topic, payload, qos)
    in_order(subscriber, payloads(STREAM // 2))


@verifies("MQTT-4.6.0-6")
@pytest.mark.parametrize("published", [0, 1, 2])
@pytest.mark.parametrize("subscribed", [0, 1, 2])
def test_stream_is_in_order(trial: Trial, subscribed: int, published: int) -> None:
    """Messages that a client publishes without waiting come to a subscriber in that order, whatever the QoS."""
    topic = trial.topic()
    raw = trial.connected("subscriber")
    raw.subscribe(topic, subscribed)
    publisher = trial.connected("publisher")
    stream(publisher, topic, published)
    in_order(raw, payloads(STREAM))


def stream(publisher: Raw, topic: str, qos: int) -> None:
    """Publishes `STREAM` messages in a few segments, with the packets of all handshakes in order."""
    for start in range(0, STREAM, 15):
        chunk = [(number + 1, payload) for number, payload in enumerate(payloads(STREAM))][start : start + 15]
        publisher.send(
            *(packets.publish(topic, payload, qos=qos, packet_id=number if qos else None) for number, payload in chunk)
        )
        for number, _ in chunk:
            if qos == 1:
                publisher.take(packets.PUBACK)
            elif qos == 2:
                publisher.take(packets.PUBREC)
                publisher.send(packets.pubrel(number))
        for _ in chunk:
            if qos == 2:
                publisher.take(packets.PUBCOMP)


@verifies("MQTT-4.6.0-6")
@qos_1_and_2
def test_stream_waits_in_order(trial: Trial, qos: int) -> None:
    """Messages that were published while a client was away come in order when it returns."""
    trial.require(f"qos-{qos}")
    topic = trial.topic()
    raw, client_id = flows.session(trial, topic, qos)
    raw.disconnect()
    stream(trial.connected("publisher"), topic, qos)
    in_order(flows.resumed(trial, client_id), payloads(STREAM))


@verifies("MQTT-4.6.0-6")
@needs("wildcards")
@qos_1_and_2
def test_stream_through_a_wildcard_is_in_order(trial: Trial, qos: int) -> None:
    """Messages of one topic come in order through a subscription with a wildcard, too."""
    trial.require(f"qos-{qos}")
    raw = trial.connected("subscriber")
    flows.subscribed(raw, trial.topic("#"), qos)
    stream(trial.connected("publisher"), trial.topic("a/b"), qos)
    in_order(raw, payloads(STREAM))


@verifies("MQTT-4.6.0-6")
@qos_1_and_2
def test_streams_of_several_publishers(trial: Trial, qos: int) -> None:
    """Of messages from several clients to one topic, those of each client come in order."""
    trial.require(f"qos-{qos}")
    topic = trial.topic()
    subscriber = trial.subscriber(topic, qos)
    names = ["red", "green", "blue"]
    publishers = {name: trial.client(name) for name in names}
    for number in range(15):
        for name in names:
            publishers[name].publish(topic, payloads(15, name)[number], qos)
    expected = {name: payloads(15, name) for name in names}
    found = all_of(subscriber, [payload for each in expected.values() for payload in each])
    for name in names:
        own = dict.fromkeys(message.payload for message in found if message.payload in expected[name])
        expect.equal(list(own), expected[name], f"the messages of {name} in their order")


@verifies("MQTT-4.6.0-6")
@needs("qos-2")
def test_mixed_qos_is_in_order(trial: Trial) -> None:
    """Of messages with different QoS to one topic, those of each QoS are sent in order."""
    topic = trial.topic()
    raw = trial.connected("subscriber")
    flows.subscribed(raw, topic, 2)
    publisher = trial.client("publisher")
    for number, payload in enumerate(payloads(30)):
        publisher.publish(topic, payload, number % 3)
    found = all_of(raw, payloads(30))
    for qos in range(3):  # as they are delivered: that it is the right one is another rule
        own = list(dict.fromkeys(message.payload for message in found if message.qos == qos))
        expect.equal(own, sorted(own), f"the messages that are delivered with QoS {qos}, in their order")
