"""4.4 Message delivery retry: what is sent again when a session is resumed."""

from collections.abc import Callable

import pytest

from .. import expect, packets
from ..marks import needs, verifies
from ..packets import Packet, Publish
from ..raw import NoAnswer, Raw
from ..trial import Trial
from ..verdicts import Failure
from . import flows

qos_1_and_2 = pytest.mark.parametrize("qos", [1, 2])
every_end = pytest.mark.parametrize("end", flows.ENDS.values(), ids=flows.ENDS)

#: Messages that are under way at a time: as few as a broker may allow without being odd.
COUNT = 5


def under_way(trial: Trial, raw: Raw, topic: str, qos: int) -> dict[int, bytes]:
    """Messages that have come to the client, which has acknowledged none: payloads by Packet Identifier."""
    publisher = trial.client("publisher")
    found: dict[int, bytes] = {}
    for number in range(COUNT):
        payload = f"message {number}".encode()
        publisher.publish(topic, payload, qos)
        found[flows.received(raw, payload, qos).packet_id or 0] = payload
    return found


def sent_again(raw: Raw, kind: int, count: int) -> list[Packet]:
    """That many packets of that type, which must come."""
    found: list[Packet] = []
    while len(found) < count:
        try:
            found.append(raw.take(kind))
        except NoAnswer as error:
            name = packets.NAMES[kind]
            raise Failure(f"{count} {name} packets are sent again", f"{len(found)} came: {error}") from None
    return found


@verifies("MQTT-4.4.0-1")
@qos_1_and_2
@every_end
def test_publish_is_sent_again(trial: Trial, end: Callable[[Raw], None], qos: int) -> None:
    """Messages that were not acknowledged are sent again as they were, under their identifiers."""
    trial.require(f"qos-{qos}")
    topic = trial.topic()
    raw, client_id = flows.session(trial, topic, qos)
    expected = under_way(trial, raw, topic, qos)
    end(raw)
    again = flows.resumed(trial, client_id)
    found: dict[int, bytes] = {}
    for packet in sent_again(again, packets.PUBLISH, COUNT):
        assert isinstance(packet, Publish)
        right = packet.qos == qos and packet.topic == topic  # DUP is a rule of its own [MQTT-3.3.1-1]
        expect.that(right, f"PUBLISH with QoS {qos} to {topic}", str(packet))
        found[packet.packet_id or 0] = packet.payload
    expect.equal(found, expected, "the messages by Packet Identifier")


@verifies("MQTT-4.4.0-1")
@needs("qos-2")
@every_end
def test_pubrel_is_sent_again(trial: Trial, end: Callable[[Raw], None]) -> None:
    """PUBRELs that were not answered are sent again, under their identifiers."""
    topic = trial.topic()
    raw, client_id = flows.session(trial, topic, 2)
    expected = under_way(trial, raw, topic, 2)
    for packet_id in expected:
        raw.send(packets.pubrec(packet_id))
        raw.take(packets.PUBREL)
    end(raw)
    again = flows.resumed(trial, client_id)
    found = {getattr(packet, "packet_id", 0) for packet in sent_again(again, packets.PUBREL, COUNT)}
    expect.equal(sorted(found), sorted(expected), "the identifiers of the PUBRELs")


@verifies("MQTT-4.4.0-1")
@qos_1_and_2
def test_only_what_is_not_acknowledged_is_sent_again(trial: Trial, qos: int) -> None:
    """What was acknowledged before the connection ended is not sent again, and all the rest is."""
    trial.require(f"qos-{qos}")
    topic = trial.topic()
    raw, client_id = flows.session(trial, topic, qos)
    identifiers = list(under_way(trial, raw, topic, qos))
    for packet_id in identifiers[:2]:
        flows.acknowledge(raw, packet_id, qos)
    raw.ping()
    raw.reset()
    again = flows.resumed(trial, client_id)
    found = [getattr(packet, "packet_id", 0) for packet in sent_again(again, packets.PUBLISH, COUNT - 2)]
    again.ping()
    found += [packet.packet_id or 0 for packet in again.unread if isinstance(packet, Publish)]
    expect.equal(sorted(found), sorted(identifiers[2:]), "the identifiers that are sent again")


@verifies("MQTT-4.4.0-1")
@needs("qos-2")
def test_each_stage_is_sent_again(trial: Trial) -> None:
    """Of messages with QoS 1 and 2, each is taken up where it was: PUBLISH before PUBREC, PUBREL after it."""
    topic = trial.topic()
    raw, client_id = flows.session(trial, topic, 2)
    publisher = trial.client("publisher")
    identifiers: dict[bytes, int] = {}
    for payload, qos in ((b"qos 1", 1), (b"released", 2), (b"not released", 2)):
        publisher.publish(topic, payload, qos)
        identifiers[payload] = flows.received(raw, payload, qos).packet_id or 0
    raw.send(packets.pubrec(identifiers[b"released"]))
    raw.take(packets.PUBREL)
    raw.reset()
    again = flows.resumed(trial, client_id)
    (release,) = sent_again(again, packets.PUBREL, 1)
    messages = [packet for packet in sent_again(again, packets.PUBLISH, 2) if isinstance(packet, Publish)]
    found = {packet.payload: packet.packet_id for packet in messages}
    found[b"released"] = getattr(release, "packet_id", 0)
    expect.equal(found, identifiers, "what is sent again, with its identifier")


@verifies("MQTT-4.4.0-1")
@qos_1_and_2
def test_sent_again_every_time(trial: Trial, qos: int) -> None:
    """A message that is never acknowledged is sent again in each connection of its session, under its identifier."""
    trial.require(f"qos-{qos}")
    topic = trial.topic()
    raw, client_id = flows.session(trial, topic, qos)
    packet_id = flows.under_way(raw, topic, qos)
    for number in range(3):
        raw.reset()
        raw = flows.resumed(trial, client_id, f"connection {number + 2}")
        expect.packet(raw, packets.PUBLISH, payload=b"message", packet_id=packet_id)


@verifies("MQTT-4.4.0-1")
@qos_1_and_2
def test_what_is_sent_again_can_be_acknowledged(trial: Trial, qos: int) -> None:
    """A message that was sent again is done when it is acknowledged, and is not sent a third time."""
    trial.require(f"qos-{qos}")
    topic = trial.topic()
    raw, client_id = flows.session(trial, topic, qos)
    publisher = trial.client("publisher")
    publisher.publish(topic, b"message", qos)
    flows.received(raw, b"message", qos)
    raw.reset()
    second = flows.resumed(trial, client_id, "second")
    expect.message(second, payload=b"message")
    second.ping()
    second.reset()
    third = flows.resumed(trial, client_id, "third")
    expect.silence(third, publisher, topic, qos, about="a message that was acknowledged when it was sent again")


@verifies("MQTT-4.4.0-1")
@needs("qos-1")
def test_well_behaved_client_loses_nothing(trial: Trial) -> None:
    """A paho-mqtt client whose connection breaks gets every message after its return, those of its absence too."""
    # With QoS 1, because paho-mqtt answers PUBREC by itself, and its successor would know nothing of that.
    topic = trial.topic()
    client = trial.client("subscriber", clean=False)
    client.subscribe(topic, 1)
    publisher = trial.client("publisher")
    publisher.publish(topic, b"before", 1)
    client.next_message()
    publisher.publish(topic, b"under way", 1)
    client.drop()
    publisher.publish(topic, b"meanwhile", 1)
    again = trial.client("again", client_id=client.client_id, clean=False)
    expect.messages(again, [b"under way", b"meanwhile"])
