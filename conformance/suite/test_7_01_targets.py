"""7.1 Conformance targets: a transport that is an ordered, lossless stream of bytes."""

import pytest

from .. import expect, packets
from ..marks import needs, verifies
from ..packets import Publish
from ..trial import Trial

BIG = bytes(range(256)) * 4096


@verifies("MQTT-7.1.1-1")
def test_ordinary_client_is_served(trial: Trial) -> None:
    """An ordinary client can connect, subscribe and publish."""
    topic = trial.topic()
    client = trial.subscriber(topic)
    client.publish(topic, b"there and back", 1)
    expect.message(client, topic=topic, payload=b"there and back")


@verifies("MQTT-7.1.1-1")
@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 4096], ids="{} bytes each".format)
def test_packets_in_pieces(trial: Trial, size: int) -> None:
    """What a client sends is a stream: it may be cut anywhere, and means the same."""
    raw, topic = trial.raw(), trial.topic()
    username, password = raw.endpoint.username, raw.endpoint.password
    stream = (
        packets.connect(trial.client_id(), username=username, password=password)
        + packets.subscribe(1, (topic, 0))
        + packets.publish(topic, b"in pieces" * 20, qos=1, packet_id=2)
        + packets.pingreq()
    )
    for start in range(0, len(stream), size):
        raw.send(stream[start : start + size])
    expect.connack(raw)
    expect.packet(raw, packets.SUBACK, packet_id=1)
    expect.packet(raw, packets.PUBACK, packet_id=2)
    expect.packet(raw, packets.PUBLISH, topic=topic, payload=b"in pieces" * 20)
    expect.packet(raw, packets.PINGRESP)


@verifies("MQTT-7.1.1-1")
def test_many_packets_in_one_piece(trial: Trial) -> None:
    """What a client sends is a stream: many packets may come at once."""
    raw, topic = trial.connected(), trial.topic()
    raw.subscribe(topic, 0)
    raw.send(*(packets.publish(topic, f"{number}".encode(), qos=1, packet_id=number) for number in range(1, 501)))
    answered = sorted(getattr(expect.packet(raw, packets.PUBACK), "packet_id", 0) for _ in range(500))
    expect.equal(answered, list(range(1, 501)), "the Packet Identifiers of the PUBACKs")


@verifies("MQTT-7.1.1-1")
def test_large_message(trial: Trial) -> None:
    """Nothing of a large message is lost or out of order on its way there and back."""
    raw, topic = trial.connected(), trial.topic()
    raw.subscribe(topic, 1)
    raw.send(packets.publish(topic, BIG, qos=1, packet_id=5))
    message = expect.packet(raw, packets.PUBLISH)
    expect.that(isinstance(message, Publish) and message.payload == BIG, "1 MiB, unchanged", str(message))


@verifies("MQTT-7.1.1-1")
@needs("tls")
def test_large_message_over_tls(trial: Trial) -> None:
    """Over TLS, too, nothing of a large message is lost or out of order."""
    raw, topic = trial.connected(endpoint="tls"), trial.topic()
    raw.subscribe(topic, 1)
    raw.send(packets.publish(topic, BIG, qos=1, packet_id=5))
    message = expect.packet(raw, packets.PUBLISH)
    expect.that(isinstance(message, Publish) and message.payload == BIG, "1 MiB, unchanged", str(message))
