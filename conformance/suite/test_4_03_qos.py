"""4.3 Quality of Service levels and protocol flows: the broker as receiver and as sender."""

from collections.abc import Callable

import pytest

from .. import expect, packets
from ..marks import needs, verifies
from ..packets import Publish
from ..raw import Raw
from ..trial import Trial
from ..verdicts import Failure
from . import flows

every_subscription = pytest.mark.parametrize("subscribed", [0, 1, 2])
both_sessions = pytest.mark.parametrize("clean", [True, False], ids=["clean", "persistent"])
either_dup = pytest.mark.parametrize("dup", [False, True], ids=["first", "dup"])
every_end = pytest.mark.parametrize("end", flows.ENDS.values(), ids=flows.ENDS)

#: How a connection ends without a successor.
SIMPLE_ENDS: dict[str, Callable[[Raw], None]] = {"fin": Raw.close, "rst": Raw.reset}
every_simple_end = pytest.mark.parametrize("end", SIMPLE_ENDS.values(), ids=SIMPLE_ENDS)


def nothing_of(raw: Raw, kind: int, payload: bytes | None = None) -> None:
    """A PINGREQ is answered, and no packet of that type (and with that payload) has come before that."""
    raw.ping()
    found = [
        packet
        for packet in raw.unread
        if packet.kind == kind and (payload is None or (isinstance(packet, Publish) and packet.payload == payload))
    ]
    expect.that(not found, f"no {packets.NAMES[kind]}", ", ".join(map(str, found)))


def delivered_once(trial: Trial, subscriber: Raw, topic: str, qos: int, payload: bytes) -> None:
    """The message comes, and no second copy of it."""
    expect.message(subscriber, payload=payload)
    about = "a second copy of a message"
    control = trial.client("control")
    expect.silence(subscriber, control, topic, qos, about=about, besides=lambda message: message.payload != payload)


# 4.3.1 QoS 0


@verifies("MQTT-4.3.1-1")
@pytest.mark.parametrize(("published", "subscribed"), [(0, 0), (0, 1), (0, 2), (1, 0), (2, 0)])
def test_qos_0_is_sent(trial: Trial, published: int, subscribed: int) -> None:
    """A message whose publisher or subscriber has QoS 0 is sent with QoS 0 and DUP = 0."""
    raw, topic = trial.connected("subscriber"), trial.topic()
    raw.subscribe(topic, subscribed)
    trial.client("publisher").publish(topic, b"message", published)
    expect.message(raw, payload=b"message", qos=0, dup=False)


@verifies("4.3.1/once")
@pytest.mark.parametrize("published", [0, 1, 2])
def test_qos_0_is_sent_once(trial: Trial, published: int) -> None:
    """A message with QoS 0 arrives once or not at all, and is not sent again."""
    topic = trial.topic()
    raw = trial.raw("subscriber")
    client_id = trial.client_id()
    raw.connect(client_id, clean=False)
    raw.subscribe(topic, 0)
    publisher = trial.client("publisher")
    publisher.publish(topic, b"message", published)
    raw.take(packets.PUBLISH)
    raw.reset()
    again = flows.resumed(trial, client_id)
    expect.silence(again, publisher, topic, 0, about="a message with QoS 0 that was delivered before")


def new_messages_are_sent(trial: Trial, clean: bool, qos: int) -> None:
    raw, topic = trial.raw("subscriber"), trial.topic()
    raw.connect(trial.client_id(), clean=clean)
    flows.subscribed(raw, topic, qos)
    publisher = trial.client("publisher")
    used: list[int] = []
    for number in range(5):
        publisher.publish(topic, f"message {number}".encode(), qos)
        packet = expect.packet(raw, packets.PUBLISH, qos=qos, dup=False)
        assert isinstance(packet, Publish)
        assert packet.packet_id is not None
        expect.that(packet.packet_id not in used, f"an identifier that is not in use: {used} are", str(packet))
        used.append(packet.packet_id)


# 4.3.2 QoS 1: the broker as sender


@verifies("MQTT-4.3.2-1")
@both_sessions
def test_qos_1_is_sent(trial: Trial, clean: bool) -> None:
    """Each new message with QoS 1 is sent with QoS 1, DUP = 0 and an identifier that is not in use."""
    new_messages_are_sent(trial, clean, 1)


@verifies("MQTT-4.3.2-1")
@every_end
def test_qos_1_is_unacknowledged_until_puback(trial: Trial, end: Callable[[Raw], None]) -> None:
    """A message with QoS 1 is done when PUBACK has come, not before: it is sent again to a client without that."""
    topic = trial.topic()
    raw, client_id = flows.session(trial, topic, 1)
    trial.client("publisher").publish(topic, b"message", 1)
    packet_id = flows.received(raw, b"message", 1).packet_id
    end(raw)
    again = flows.resumed(trial, client_id)
    expect.packet(again, packets.PUBLISH, payload=b"message", packet_id=packet_id, qos=1)


@verifies("4.3.2/done")
@every_end
def test_qos_1_is_done_after_puback(trial: Trial, end: Callable[[Raw], None]) -> None:
    """A message with QoS 1 for which PUBACK has come is not sent again."""
    topic = trial.topic()
    raw, client_id = flows.session(trial, topic, 1)
    publisher = trial.client("publisher")
    publisher.publish(topic, b"message", 1)
    raw.next_message()
    raw.ping()
    end(raw)
    again = flows.resumed(trial, client_id)
    expect.silence(again, publisher, topic, 1, about="a message that was acknowledged")


# 4.3.2 QoS 1: the broker as receiver


@verifies("MQTT-4.3.2-2")
@either_dup
@both_sessions
def test_qos_1_is_accepted(trial: Trial, clean: bool, dup: bool) -> None:
    """A PUBLISH with QoS 1 is answered with PUBACK under its identifier, and delivered."""
    topic = trial.topic()
    subscriber = trial.subscriber(topic, 1)
    raw = trial.raw()
    raw.connect(trial.client_id(), clean=clean)
    raw.send(packets.publish(topic, b"message", qos=1, packet_id=321, dup=dup))
    expect.packet(raw, packets.PUBACK, packet_id=321)
    expect.message(subscriber, payload=b"message")


@verifies("MQTT-4.3.2-2")
@either_dup
@every_subscription
def test_qos_1_identifier_is_new_after_puback(trial: Trial, subscribed: int, dup: bool) -> None:
    """After PUBACK, a PUBLISH under the same identifier is a new message, whatever its DUP flag says."""
    topic = trial.topic()
    subscriber = trial.subscriber(topic, subscribed)
    raw = trial.connected()
    for payload in (b"first", b"second"):
        raw.send(packets.publish(topic, payload, qos=1, packet_id=5, dup=dup and payload == b"second"))
        expect.packet(raw, packets.PUBACK, packet_id=5)
    expect.messages(subscriber, [b"first", b"second"])


@verifies("MQTT-4.3.2-2")
def test_qos_1_same_message_again(trial: Trial) -> None:
    """After PUBACK, the same message under the same identifier with DUP = 1 is delivered again."""
    topic = trial.topic()
    subscriber = trial.subscriber(topic, 1)
    raw = trial.connected()
    for dup in (False, True):
        raw.send(packets.publish(topic, b"message", qos=1, packet_id=5, dup=dup))
        expect.packet(raw, packets.PUBACK, packet_id=5)
        expect.message(subscriber, payload=b"message")


@verifies("MQTT-4.3.2-2")
@every_simple_end
def test_qos_1_is_accepted_after_the_return(trial: Trial, end: Callable[[Raw], None]) -> None:
    """A client that has not seen PUBACK and sends its message again in its next connection gets it."""
    topic, client_id = trial.topic(), trial.client_id()
    subscriber = trial.subscriber(topic, 1)
    first = trial.raw("first")
    first.connect(client_id, clean=False)
    first.send(packets.publish(topic, b"message", qos=1, packet_id=5))
    end(first)
    again = trial.raw("again")
    again.connect(client_id, clean=False)
    again.send(packets.publish(topic, b"message", qos=1, packet_id=5, dup=True))
    expect.packet(again, packets.PUBACK, packet_id=5)
    expect.message(subscriber, payload=b"message")


# 4.3.3 QoS 2: the broker as sender


@verifies("MQTT-4.3.3-1")
@needs("qos-2")
@both_sessions
def test_qos_2_is_sent(trial: Trial, clean: bool) -> None:
    """Each new message with QoS 2 is sent with QoS 2, DUP = 0 and an identifier that is not in use."""
    new_messages_are_sent(trial, clean, 2)


@verifies("MQTT-4.3.3-1")
@needs("qos-2")
@both_sessions
def test_pubrec_is_answered_with_pubrel(trial: Trial, clean: bool) -> None:
    """PUBREC is answered with PUBREL under the identifier of the message."""
    raw, topic = trial.raw("subscriber"), trial.topic()
    raw.connect(trial.client_id(), clean=clean)
    packet_id = flows.under_way(raw, topic, 2)
    raw.send(packets.pubrec(packet_id))
    expect.packet(raw, packets.PUBREL, packet_id=packet_id)


@verifies("MQTT-4.3.3-1")
@needs("qos-2")
def test_each_pubrec_is_answered(trial: Trial) -> None:
    """Each of several messages under way is released by the PUBREC with its identifier."""
    raw, topic = trial.connected("subscriber"), trial.topic()
    flows.subscribed(raw, topic, 2)
    publisher = trial.client("publisher")
    identifiers: list[int] = []
    for number in range(5):
        payload = f"message {number}".encode()
        publisher.publish(topic, payload, 2)
        identifiers.append(flows.received(raw, payload, 2).packet_id or 0)
    for packet_id in identifiers:
        raw.send(packets.pubrec(packet_id))
        expect.packet(raw, packets.PUBREL, packet_id=packet_id)


@verifies("MQTT-4.3.3-1")
@needs("qos-2")
@every_end
def test_qos_2_is_unacknowledged_until_pubrec(trial: Trial, end: Callable[[Raw], None]) -> None:
    """A message with QoS 2 for which no PUBREC has come is sent again when the session is resumed."""
    topic = trial.topic()
    raw, client_id = flows.session(trial, topic, 2)
    packet_id = flows.under_way(raw, topic, 2)
    end(raw)
    again = flows.resumed(trial, client_id)
    expect.packet(again, packets.PUBLISH, payload=b"message", packet_id=packet_id, qos=2)


@verifies("MQTT-4.3.3-1")
@needs("qos-2")
@every_end
def test_pubrel_is_unacknowledged_until_pubcomp(trial: Trial, end: Callable[[Raw], None]) -> None:
    """A PUBREL for which no PUBCOMP has come is sent again when the session is resumed; the PUBLISH is not."""
    topic = trial.topic()
    raw, client_id = flows.session(trial, topic, 2)
    packet_id = flows.released(raw, topic)
    end(raw)
    again = flows.resumed(trial, client_id)
    expect.packet(again, packets.PUBREL, packet_id=packet_id)
    nothing_of(again, packets.PUBLISH, b"message")


@verifies("4.3.3/done")
@needs("qos-2")
@every_end
def test_qos_2_is_done_after_pubcomp(trial: Trial, end: Callable[[Raw], None]) -> None:
    """A message with QoS 2 for which PUBCOMP has come is not sent again, nor is its PUBREL."""
    topic = trial.topic()
    raw, client_id = flows.session(trial, topic, 2)
    publisher = trial.client("publisher")
    publisher.publish(topic, b"message", 2)
    raw.next_message()
    raw.ping()
    end(raw)
    again = flows.resumed(trial, client_id)
    nothing_of(again, packets.PUBREL)
    expect.silence(again, publisher, topic, 2, about="a message that was received completely")


# 4.3.3 QoS 2: the broker as receiver


def accepted(raw: Raw, topic: str, payload: bytes, packet_id: int) -> None:
    """A PUBLISH with QoS 2 for which some PUBREC has come: `test_qos_2_is_accepted` judges a broker that takes none."""
    raw.send(packets.publish(topic, payload, qos=2, packet_id=packet_id))
    raw.take(packets.PUBREC)


def complete(raw: Raw, packet_id: int) -> None:
    raw.send(packets.pubrel(packet_id))
    raw.take(packets.PUBCOMP)


@verifies("MQTT-4.3.3-2")
@either_dup
@both_sessions
def test_qos_2_is_accepted(trial: Trial, clean: bool, dup: bool) -> None:
    """A PUBLISH with QoS 2 is answered with PUBREC, PUBREL with PUBCOMP, under its identifier; then it is delivered."""
    topic = trial.topic()
    subscriber = trial.subscriber(topic, 1)
    raw = trial.raw()
    raw.connect(trial.client_id(), clean=clean)
    raw.send(packets.publish(topic, b"message", qos=2, packet_id=321, dup=dup))
    expect.packet(raw, packets.PUBREC, packet_id=321)
    raw.send(packets.pubrel(321))
    expect.packet(raw, packets.PUBCOMP, packet_id=321)
    expect.message(subscriber, payload=b"message")


@verifies("MQTT-4.3.3-2")
@pytest.mark.parametrize("copies", [1, 2, 5])
@every_subscription
def test_qos_2_duplicates_are_suppressed(trial: Trial, subscribed: int, copies: int) -> None:
    """Before PUBREL, a PUBLISH under the same identifier is answered with PUBREC, and not delivered again."""
    topic = trial.topic()
    subscriber = trial.connected("subscriber")
    flows.subscribed(subscriber, topic, subscribed)
    raw = trial.connected("publisher")
    accepted(raw, topic, b"message", 5)
    for number in range(copies):
        raw.send(packets.publish(topic, b"message", qos=2, packet_id=5, dup=True))
        try:
            expect.packet(raw, packets.PUBREC, packet_id=5)
        except Failure:
            # Nobody need send a message three times on one connection, and a broker may end any that it finds odd.
            if number < 1 or not raw.closed:
                raise
            trial.warn(f"a PUBLISH that comes {number + 2} times gets the client disconnected")
            found = expect.until_control(subscriber, trial.client("control"), topic, subscribed)
            expect.that(len(found) < 2, "one copy of the message at most, as it was not released", f"{len(found)} came")
            return
    complete(raw, 5)
    delivered_once(trial, subscriber, topic, subscribed, b"message")


def returned_after_pubrec(
    trial: Trial, topic: str, end: Callable[[Raw], None], *, completed: bool = False
) -> tuple[Raw, Raw]:
    """A subscriber, and a client that is there again after it had PUBREC, or also PUBCOMP, for identifier 5."""
    client_id = trial.client_id()
    subscriber = trial.connected("subscriber")
    flows.subscribed(subscriber, topic, 1)
    first = trial.raw("first")
    first.connect(client_id, clean=False)
    first.send(packets.publish(topic, b"message", qos=2, packet_id=5))
    first.take(packets.PUBREC)
    if completed:
        complete(first, 5)
    end(first)
    return subscriber, flows.resumed(trial, client_id)


@verifies("MQTT-4.3.3-2")
@every_end
def test_qos_2_duplicate_after_the_return(trial: Trial, end: Callable[[Raw], None]) -> None:
    """Before PUBREL, a message that is sent again in the client's next connection is not delivered again."""
    topic = trial.topic()
    subscriber, again = returned_after_pubrec(trial, topic, end)
    again.send(packets.publish(topic, b"message", qos=2, packet_id=5, dup=True))
    expect.packet(again, packets.PUBREC, packet_id=5)
    again.send(packets.pubrel(5))
    expect.packet(again, packets.PUBCOMP, packet_id=5)
    delivered_once(trial, subscriber, topic, 1, b"message")


@verifies("MQTT-4.3.3-2")
@every_end
def test_pubrel_after_the_return(trial: Trial, end: Callable[[Raw], None]) -> None:
    """PUBREL completes a message in the client's next connection, too: it is delivered, once."""
    topic = trial.topic()
    subscriber, again = returned_after_pubrec(trial, topic, end)
    again.send(packets.pubrel(5))
    expect.packet(again, packets.PUBCOMP, packet_id=5)
    delivered_once(trial, subscriber, topic, 1, b"message")


@verifies("MQTT-4.3.3-2")
@every_end
def test_pubrel_again_after_the_return(trial: Trial, end: Callable[[Raw], None]) -> None:
    """A PUBREL that is sent again because its PUBCOMP was lost is answered with PUBCOMP."""
    topic = trial.topic()
    subscriber, again = returned_after_pubrec(trial, topic, end, completed=True)
    again.send(packets.pubrel(5))
    expect.packet(again, packets.PUBCOMP, packet_id=5)
    delivered_once(trial, subscriber, topic, 1, b"message")


@verifies("MQTT-4.3.3-2")
@either_dup
@every_subscription
def test_qos_2_identifier_is_new_after_pubcomp(trial: Trial, subscribed: int, dup: bool) -> None:
    """After PUBCOMP, a PUBLISH under the same identifier is a new message, whatever its DUP flag says."""
    topic = trial.topic()
    subscriber = trial.subscriber(topic, subscribed)
    raw = trial.connected()
    accepted(raw, topic, b"first", 5)
    complete(raw, 5)
    raw.send(packets.publish(topic, b"second", qos=2, packet_id=5, dup=dup))
    expect.packet(raw, packets.PUBREC, packet_id=5)
    complete(raw, 5)
    expect.messages(subscriber, [b"first", b"second"])


@verifies("MQTT-4.3.3-2")
def test_qos_2_messages_at_a_time(trial: Trial) -> None:
    """Several messages with QoS 2 that are under way at a time are each completed, and delivered once."""
    topic = trial.topic()
    subscriber = trial.connected("subscriber")
    flows.subscribed(subscriber, topic, 1)
    raw = trial.connected("publisher")
    identifiers = [7, 3, 65535, 256, 1]
    accepted(raw, topic, b"%d" % identifiers[0], identifiers[0])
    for packet_id in identifiers[1:]:
        raw.send(packets.publish(topic, b"%d" % packet_id, qos=2, packet_id=packet_id))
        expect.packet(raw, packets.PUBREC, packet_id=packet_id)
    for packet_id in identifiers:
        raw.send(packets.publish(topic, b"%d" % packet_id, qos=2, packet_id=packet_id, dup=True))
        expect.packet(raw, packets.PUBREC, packet_id=packet_id)
    for packet_id in identifiers:
        raw.send(packets.pubrel(packet_id))
        expect.packet(raw, packets.PUBCOMP, packet_id=packet_id)
    payloads = [b"%d" % packet_id for packet_id in identifiers]
    found = expect.messages(subscriber, payloads)
    found += expect.until_control(subscriber, trial.client("control"), topic, 1)
    expect.equal(sorted(message.payload for message in found), sorted(payloads), "what the subscriber receives")


# 4.3 From one end to the other


@verifies("4.3/end-to-end")
@pytest.mark.parametrize("published", [1, 2])
@pytest.mark.parametrize("subscribed", [1, 2])
def test_well_behaved_clients(trial: Trial, subscribed: int, published: int) -> None:
    """Between clients that keep to the protocol every message arrives, with QoS 2 at both ends exactly once."""
    trial.require(f"qos-{subscribed}")
    topic = trial.topic()
    subscriber = trial.subscriber(topic, subscribed)
    publisher = trial.client("publisher")
    payloads = [f"message {number}".encode() for number in range(20)]
    for payload in payloads:
        publisher.publish(topic, payload, published)
    found = [message.payload for message in expect.messages(subscriber, payloads)]
    if subscribed == published == 2:
        found += [message.payload for message in expect.until_control(subscriber, publisher, topic, 2)]
        expect.equal(sorted(found), sorted(payloads), "what the subscriber receives")
