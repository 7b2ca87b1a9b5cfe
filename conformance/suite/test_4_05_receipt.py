"""4.5 Message receipt: an accepted message goes to everybody who has subscribed to it."""

import pytest

from .. import expect, packets
from ..marks import needs, verifies
from ..packets import Acknowledgement, Will
from ..trial import Trial

every_qos = pytest.mark.parametrize("qos", [1, 2])


@verifies("MQTT-4.5.0-1")
@every_qos
def test_every_subscriber_gets_it(trial: Trial, qos: int) -> None:
    """A message is delivered to each of many clients that have subscribed to its topic."""
    topic = trial.topic()
    subscribers = [trial.connected("subscriber") for _ in range(8)]
    for subscriber in subscribers:
        subscriber.subscribe(topic, qos)
    publisher = trial.client("publisher")
    for number in range(3):
        publisher.publish(topic, f"{number}".encode(), qos)
    for subscriber in subscribers:
        expect.messages(subscriber, [b"0", b"1", b"2"])


@verifies("MQTT-4.5.0-1")
@every_qos
@needs("wildcards")
def test_every_matching_filter_counts(trial: Trial, qos: int) -> None:
    """A message is delivered to each client that has a filter which matches its topic, of whatever kind."""
    topic = trial.topic("a/b/c")
    names = ["a/b/c", "+/b/c", "a/+/c", "a/b/+", "+/+/+", "#", "a/#", "a/b/#", "a/b/c/#", "+/b/#"]
    subscribers = [trial.connected(f"subscriber to {name}") for name in names]
    for subscriber, name in zip(subscribers, names, strict=True):
        subscriber.subscribe(trial.topic(name), qos)
    trial.client("publisher").publish(topic, b"for all", qos)
    for subscriber in subscribers:
        expect.message(subscriber, topic=topic, payload=b"for all")


@verifies("MQTT-4.5.0-1")
@every_qos
def test_present_and_absent_subscribers(trial: Trial, qos: int) -> None:
    """A message is delivered to clients that are there, and enters the sessions of those that are away."""
    trial.require(f"qos-{qos}")
    topic = trial.topic()
    absent = [trial.client("absent", clean=False) for _ in range(3)]
    for client in absent:
        client.subscribe(topic, qos)
        client.disconnect()
    present = [trial.subscriber(topic, qos, name="present") for _ in range(3)]
    trial.client("publisher").publish(topic, b"for all", qos)
    again = [trial.client("again", client_id=client.client_id, clean=False) for client in absent]
    for subscriber in (*present, *again):
        expect.message(subscriber, topic=topic, payload=b"for all")


@verifies("MQTT-4.5.0-1")
@every_qos
def test_publisher_is_a_subscriber_too(trial: Trial, qos: int) -> None:
    """A client that has subscribed to what it publishes gets its own messages."""
    topic = trial.topic()
    client = trial.subscriber(topic, qos)
    client.publish(topic, b"mine", qos)
    expect.message(client, topic=topic, payload=b"mine")


@verifies("MQTT-4.5.0-1")
@every_qos
def test_publisher_that_leaves_at_once(trial: Trial, qos: int) -> None:
    """A message whose publisher has left right after it was accepted is delivered."""
    trial.require(f"qos-{qos}")
    topic = trial.topic()
    absent = trial.client("absent", clean=False)
    absent.subscribe(topic, qos)
    absent.disconnect()
    present = trial.subscriber(topic, qos, name="present")
    publisher = trial.connected("publisher")
    publisher.publish(topic, b"last words", qos)
    publisher.reset()
    expect.message(present, topic=topic, payload=b"last words")
    again = trial.client("again", client_id=absent.client_id, clean=False)
    expect.message(again, topic=topic, payload=b"last words")


@verifies("MQTT-4.5.0-1")
@every_qos
@pytest.mark.parametrize("count", [100, 500])
def test_every_message_counts(trial: Trial, count: int, qos: int) -> None:
    """Each of many messages that come together is delivered once it is accepted."""
    topic = trial.topic()
    subscriber, publisher = trial.connected("subscriber"), trial.connected("publisher")
    subscriber.subscribe(topic, 1)
    payloads = [f"message {number}".encode() for number in range(1, count + 1)]
    publisher.send(
        *(packets.publish(topic, payload, qos=qos, packet_id=number) for number, payload in enumerate(payloads, 1))
    )
    for _ in payloads:
        answer = publisher.take(packets.PUBACK if qos == 1 else packets.PUBREC)
        if qos == 2:
            assert isinstance(answer, Acknowledgement)
            publisher.send(packets.pubrel(answer.packet_id))
    for _ in payloads * (qos - 1):
        publisher.take(packets.PUBCOMP)
    expect.messages(subscriber, payloads)


PAYLOADS = {"empty": b"", "every byte": bytes(range(256)), "64 KiB": b"x" * 65536, "1 MiB": b"x" * 1048576}


@verifies("MQTT-4.5.0-1")
@every_qos
@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS)
def test_any_payload_counts(trial: Trial, payload: bytes, qos: int) -> None:
    """An accepted message is delivered whatever its payload is, and unchanged."""
    topic = trial.topic()
    subscriber = trial.subscriber(topic, qos)
    trial.client("publisher").publish(topic, payload, qos)
    publish = expect.message(subscriber, topic=topic)
    expect.that(publish.payload == payload, f"a payload of {len(payload)} bytes, unchanged", str(publish))


@verifies("MQTT-4.5.0-1")
@needs("retained")
def test_others_get_nothing(trial: Trial) -> None:
    """A message is for those who have subscribed: other clients are not sent it, not even if it is retained."""
    topic, control = trial.topic(), trial.topic("control")
    publisher = trial.client("publisher")
    publisher.publish(topic, b"kept", 1, retain=True)
    trial.subscriber(topic, 1).next_message()
    other = trial.subscriber(control, 1, name="other")
    publisher.publish(topic, b"kept", 1, retain=True)
    if any(message.topic == topic for message in expect.until_control(other, publisher, control, 1)):
        trial.warn("a client is sent a message for which it has no subscription, because another client has one")


@verifies("MQTT-4.5.0-1")
def test_wills_count(trial: Trial) -> None:
    """A will is a message as any other: it is delivered to each of several subscribers."""
    topic = trial.topic()
    watchers = [trial.subscriber(topic, 1, name="watcher") for _ in range(3)]
    dying = trial.raw("dying")
    dying.connect(trial.client_id(), will=Will(topic, b"gone", 1))
    dying.close()
    for watcher in watchers:
        expect.message(watcher, topic=topic, payload=b"gone")
