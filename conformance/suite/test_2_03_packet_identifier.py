"""2.3 Packet Identifier: which packets have one, and which it is."""

from collections.abc import Callable

import pytest

from .. import expect, packets
from ..marks import needs, verifies
from ..packets import Publish
from ..raw import Raw
from ..trial import Trial
from . import flows

#: Messages that a broker must be willing to have under way to one client for these tests.
WINDOW = 8

every_identifier = pytest.mark.parametrize("packet_id", [1, 255, 256, 65535])


# MQTT-2.3.1-1: never zero


ZERO: dict[str, Callable[[str], bytes]] = {
    "publish qos 1": lambda topic: packets.publish(topic, b"x", qos=1, packet_id=0),
    "publish qos 2": lambda topic: packets.publish(topic, b"x", qos=2, packet_id=0),
    "subscribe": lambda topic: packets.subscribe(0, (topic, 0)),
    "unsubscribe": lambda topic: packets.unsubscribe(0, topic),
}


@verifies("MQTT-2.3.1-1", "MQTT-4.8.0-1")
@pytest.mark.parametrize("packet", ZERO.values(), ids=ZERO)
def test_identifier_zero(trial: Trial, packet: Callable[[str], bytes]) -> None:
    """A client that sends a packet with Packet Identifier 0 is disconnected."""
    raw = trial.connected()
    raw.send(packet(trial.topic()))
    expect.closed(raw, after="Packet Identifier 0")


@verifies("MQTT-2.3.1-1")
@pytest.mark.parametrize("qos", [1, 2])
def test_identifier_of_the_broker_is_not_zero(trial: Trial, qos: int) -> None:
    """The Packet Identifier of what a broker publishes with QoS 1 or 2 is not 0."""
    trial.require(f"qos-{qos}")
    raw, topic = trial.connected("subscriber"), trial.topic()
    flows.subscribed(raw, topic, qos)
    publisher = trial.client("publisher")
    for number in range(3):
        publisher.publish(topic, f"message {number}".encode(), qos)
        packet = raw.next_message()
        expect.that(packet.packet_id != 0, "PUBLISH with a Packet Identifier that is not 0", str(packet))


# MQTT-2.3.1-4: what a broker publishes


def unused(raw: Raw, used: set[int]) -> int:
    """The Packet Identifier of the next PUBLISH that comes: none of those that are in use."""
    packet = raw.take(packets.PUBLISH)
    assert isinstance(packet, Publish)
    assert packet.packet_id is not None
    expect.that(packet.packet_id not in used, f"PUBLISH with an identifier other than {sorted(used)}", str(packet))
    return packet.packet_id


@verifies("MQTT-2.3.1-4")
@pytest.mark.parametrize("qos", [(1,), (2,), (1, 2)], ids=["qos 1", "qos 2", "both"])
def test_identifiers_under_way_differ(trial: Trial, qos: tuple[int, ...]) -> None:
    """Messages that a client has not acknowledged have Packet Identifiers of their own, whatever their QoS."""
    trial.require(f"qos-{max(qos)}")
    raw, topic = trial.connected("subscriber"), trial.topic()
    flows.subscribed(raw, topic, max(qos))
    publisher = trial.client("publisher")
    for number in range(WINDOW):
        publisher.publish(topic, f"message {number}".encode(), qos[number % len(qos)])
    used: set[int] = set()
    for _ in range(WINDOW):
        used.add(unused(raw, used))


@verifies("MQTT-2.3.1-4")
@needs("qos-2")
def test_identifier_is_used_until_pubcomp(trial: Trial) -> None:
    """The Packet Identifier of a message with QoS 2 is not given to another before PUBCOMP, released or not."""
    raw, topic = trial.connected("subscriber"), trial.topic()
    flows.subscribed(raw, topic, 2)
    publisher = trial.client("publisher")
    used: set[int] = set()
    for number in range(4):
        publisher.publish(topic, f"message {number}".encode(), 2)
        packet_id = unused(raw, used)
        used.add(packet_id)
        raw.send(packets.pubrec(packet_id))
        raw.take(packets.PUBREL)


@verifies("MQTT-2.3.1-4")
@pytest.mark.parametrize("qos", [1, 2])
def test_identifier_is_used_in_the_next_connection(trial: Trial, qos: int) -> None:
    """The Packet Identifier of an unacknowledged message is not given to another when the session is resumed."""
    trial.require(f"qos-{qos}")
    topic = trial.topic()
    raw, client_id = flows.session(trial, topic, qos)
    publisher = trial.client("publisher")
    publisher.publish(topic, b"old", qos)
    flows.received(raw, b"old", qos)
    raw.reset()
    again = flows.resumed(trial, client_id)
    used = {flows.received(again, b"old", qos).packet_id or 0}
    for number in range(3):
        publisher.publish(topic, f"new {number}".encode(), qos)
        used.add(unused(again, used))


# MQTT-2.3.1-5: none with QoS 0


@verifies("MQTT-2.3.1-5")
@pytest.mark.parametrize(("published", "subscribed"), [(0, 0), (0, 2), (1, 0), (2, 0)])
def test_qos_0_has_no_identifier(trial: Trial, published: int, subscribed: int) -> None:
    """What is delivered with QoS 0 has no Packet Identifier: the payload follows the topic."""
    raw, topic = trial.connected("subscriber"), trial.topic()
    raw.subscribe(topic, subscribed)
    trial.client("publisher").publish(topic, b"\x12\x34payload", published)
    expect.message(raw, payload=b"\x12\x34payload", topic=topic)


@verifies("MQTT-2.3.1-5")
@pytest.mark.parametrize("payload", [b"", b"\0", b"\0\0", b"\0\1", b"\0\1rest"], ids=["0", "1", "2 zero", "2", "more"])
def test_qos_0_is_read_without_identifier(trial: Trial, payload: bytes) -> None:
    """The first bytes of the payload of a message with QoS 0 are not taken for a Packet Identifier."""
    topic = trial.topic()
    subscriber = trial.subscriber(topic, 0)
    trial.client("publisher").publish(topic, payload, 0)
    expect.message(subscriber, payload=payload)


# MQTT-2.3.1-6: acknowledgements


@verifies("MQTT-2.3.1-6")
@every_identifier
def test_puback_identifier(trial: Trial, packet_id: int) -> None:
    """PUBACK has the Packet Identifier of its PUBLISH."""
    raw = trial.connected()
    raw.send(packets.publish(trial.topic(), b"message", qos=1, packet_id=packet_id))
    expect.packet(raw, packets.PUBACK, packet_id=packet_id)


@verifies("MQTT-2.3.1-6")
@every_identifier
def test_pubrec_identifier(trial: Trial, packet_id: int) -> None:
    """PUBREC has the Packet Identifier of its PUBLISH."""
    raw = trial.connected()
    raw.send(packets.publish(trial.topic(), b"message", qos=2, packet_id=packet_id))
    answer = raw.take(packets.PUBREC)
    expect.that(getattr(answer, "packet_id", None) == packet_id, f"PUBREC packet_id={packet_id}", str(answer))


@verifies("MQTT-2.3.1-6")
@needs("qos-2")
def test_pubrel_identifier(trial: Trial) -> None:
    """PUBREL has the Packet Identifier of its PUBLISH."""
    raw, topic = trial.connected(), trial.topic()
    flows.subscribed(raw, topic, 2)
    publisher = trial.client("publisher")
    for number in range(3):
        payload = f"message {number}".encode()
        publisher.publish(topic, payload, 2)
        packet_id = flows.received(raw, payload, 2).packet_id
        assert packet_id is not None
        raw.send(packets.pubrec(packet_id))
        expect.packet(raw, packets.PUBREL, packet_id=packet_id)
        raw.send(packets.pubcomp(packet_id))


@verifies("MQTT-2.3.1-6")
@pytest.mark.parametrize(("qos", "kind"), [(1, packets.PUBACK), (2, packets.PUBREC)], ids=["qos 1", "qos 2"])
def test_identifiers_in_any_order(trial: Trial, qos: int, kind: int) -> None:
    """Each of several messages that come together is acknowledged under its identifier, however they are chosen."""
    raw, topic = trial.connected(), trial.topic()
    chosen = [500, 3, 65535, 1, 40000, 2]
    raw.send(*(packets.publish(topic, b"message", qos=qos, packet_id=packet_id) for packet_id in chosen))
    found = sorted(getattr(raw.take(kind), "packet_id", 0) for _ in chosen)
    expect.equal(found, sorted(chosen), "the identifiers that are acknowledged")


# MQTT-2.3.1-7: SUBACK and UNSUBACK


@verifies("MQTT-2.3.1-7")
@every_identifier
def test_suback_identifier(trial: Trial, packet_id: int) -> None:
    """SUBACK has the Packet Identifier of its SUBSCRIBE."""
    raw = trial.connected()
    raw.send(packets.subscribe(packet_id, (trial.topic(), 0)))
    expect.packet(raw, packets.SUBACK, packet_id=packet_id)


@verifies("MQTT-2.3.1-7")
@pytest.mark.parametrize("subscribed", [True, False], ids=["subscribed", "not subscribed"])
@every_identifier
def test_unsuback_identifier(trial: Trial, packet_id: int, subscribed: bool) -> None:
    """UNSUBACK has the Packet Identifier of its UNSUBSCRIBE, whether or not there was such a subscription."""
    raw, topic = trial.connected(), trial.topic()
    if subscribed:
        raw.subscribe(topic)
    raw.send(packets.unsubscribe(packet_id, topic))
    expect.packet(raw, packets.UNSUBACK, packet_id=packet_id)


# 2.3.1 Each side chooses for itself


@verifies("2.3.1/independent")
@pytest.mark.parametrize("outgoing", [1, 2])
@pytest.mark.parametrize("incoming", [1, 2])
def test_same_identifier_in_both_directions(trial: Trial, incoming: int, outgoing: int) -> None:
    """A client may publish under an identifier that the broker is using, too: both messages are dealt with."""
    trial.require(f"qos-{outgoing}")
    raw, topic = trial.connected("subscriber"), trial.topic()
    flows.subscribed(raw, topic, outgoing)
    trial.client("publisher").publish(topic, b"from the broker", outgoing)
    packet_id = flows.received(raw, b"from the broker", outgoing).packet_id
    assert packet_id is not None
    other = trial.topic("other")
    watcher = trial.subscriber(other, incoming, name="watcher")
    raw.send(packets.publish(other, b"from the client", qos=incoming, packet_id=packet_id))
    if incoming == 1:
        expect.packet(raw, packets.PUBACK, packet_id=packet_id)
    else:
        expect.packet(raw, packets.PUBREC, packet_id=packet_id)
        raw.send(packets.pubrel(packet_id))
        expect.packet(raw, packets.PUBCOMP, packet_id=packet_id)
    expect.message(watcher, payload=b"from the client")
    if outgoing == 2:
        raw.send(packets.pubrec(packet_id))
        expect.packet(raw, packets.PUBREL, packet_id=packet_id)
        raw.send(packets.pubcomp(packet_id))
    else:
        raw.send(packets.puback(packet_id))
    expect.alive(raw)
