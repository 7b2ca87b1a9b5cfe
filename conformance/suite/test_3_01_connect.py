"""3.1 CONNECT: the connection request, sessions, wills, keep alive, ClientIds."""

import contextlib
import secrets
import time
from collections.abc import Callable, Collection

import pytest

from .. import capabilities, expect, packets
from ..clients import Client
from ..marks import needs, verifies, waits
from ..packets import Acknowledgement, Connack, Publish, Will
from ..raw import NoAnswer, Raw
from ..trial import CLIENT_ID_CHARACTERS, Trial
from ..verdicts import Failure, Inconclusive, NotApplicable
from . import flows

every_qos = pytest.mark.parametrize("qos", [0, 1, 2])
both_sessions = pytest.mark.parametrize("clean", [True, False], ids=["clean", "persistent"])

#: Ways in which a connection ends other than by DISCONNECT, as the client's doing.
ABRUPT: dict[str, Callable[[Raw], None]] = {"fin": Raw.close, "rst": Raw.reset}
every_abrupt_end = pytest.mark.parametrize("end", ABRUPT.values(), ids=ABRUPT)

#: All ways.
ENDS: dict[str, Callable[[Raw], None]] = {"disconnect": Raw.disconnect, **ABRUPT}
every_end = pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)


def absent(trial: Trial, *filters: str, qos: int = 1) -> str:
    """Leaves a session with these subscriptions on the broker, its client away: the ClientId."""
    client = trial.client("absent", clean=False)
    for topic_filter in filters:
        capabilities.require_granted(client.name, qos, client.subscribe(topic_filter, qos))
    client.disconnect()
    return client.client_id


# 3.1 The first packet, and only the first


FIRST: dict[str, bytes] = {
    "reserved type 0": packets.frame(0, 0),
    "connack": packets.connack(),
    "publish qos 0": packets.publish("too/early", b"x"),
    "publish qos 1": packets.publish("too/early", b"x", qos=1, packet_id=1),
    "publish qos 2": packets.publish("too/early", b"x", qos=2, packet_id=1),
    "puback": packets.puback(1),
    "pubrec": packets.pubrec(1),
    "pubrel": packets.pubrel(1),
    "pubcomp": packets.pubcomp(1),
    "subscribe": packets.subscribe(1, ("too/early", 0)),
    "suback": packets.suback(1, 0),
    "unsubscribe": packets.unsubscribe(1, "too/early"),
    "unsuback": packets.unsuback(1),
    "pingreq": packets.pingreq(),
    "pingresp": packets.pingresp(),
    "disconnect": packets.disconnect(),
    "reserved type 15": packets.frame(15, 0),
    # Read as MQTT, this is a PUBACK of 71 bytes: shorter, and a broker may wait for the rest of it.
    "http": b"GET / HTTP/1.1\r\nHost: broker\r\nUser-Agent: conformance\r\nAccept: text/html, text/plain\r\n\r\n",
}


@verifies("MQTT-3.1.0-1", "MQTT-4.8.0-1")
@pytest.mark.parametrize("first", FIRST.values(), ids=FIRST)
def test_first_packet_is_not_connect(trial: Trial, first: bytes) -> None:
    """A client that does not begin with CONNECT is disconnected."""
    raw = trial.raw()
    raw.send(first)
    flows.ends_unconnected(trial, raw, "a first packet that is not CONNECT")


@verifies("MQTT-3.1.0-1")
@every_qos
def test_publish_before_connect_is_not_delivered(trial: Trial, qos: int) -> None:
    """What a client publishes before its CONNECT reaches nobody."""
    topic = trial.topic()
    subscriber = trial.subscriber(topic, trial.highest_qos)
    raw = trial.raw()
    raw.send(
        packets.publish(topic, b"too early", qos=qos, packet_id=1 if qos else None),
        trial.connect_packet(trial.client_id()),
    )
    flows.ends_unconnected(trial, raw, "a first packet that is not CONNECT")
    control = trial.client("control")
    expect.silence(subscriber, control, topic, trial.highest_qos, about="a PUBLISH that came before the CONNECT")


@verifies("MQTT-3.1.0-2", "MQTT-4.8.0-1")
@both_sessions
@pytest.mark.parametrize("same_id", [True, False], ids=["same id", "other id"])
def test_second_connect(trial: Trial, same_id: bool, clean: bool) -> None:
    """A second CONNECT on a connection gets the client disconnected."""
    raw = trial.raw()
    client_id = trial.client_id()
    raw.connect(client_id, clean=clean)
    raw.send(trial.connect_packet(client_id if same_id else trial.client_id(), clean=clean))
    expect.closed(raw, after="a second CONNECT")


@verifies("MQTT-3.1.0-2")
def test_second_connect_in_one_segment(trial: Trial) -> None:
    """Two CONNECTs that arrive together get the client disconnected."""
    raw = trial.raw()
    connect = trial.connect_packet(trial.client_id())
    raw.send(connect + connect)
    expect.closed(raw, after="a second CONNECT")


@verifies("MQTT-3.1.0-2")
def test_second_connect_after_traffic(trial: Trial) -> None:
    """A second CONNECT gets the client disconnected, however long it has been a good client."""
    raw = trial.connected()
    topic = trial.topic()
    raw.subscribe(topic)
    raw.publish(topic, b"mine", 1)
    raw.ping()
    raw.send(trial.connect_packet(trial.client_id()))
    expect.closed(raw, after="a second CONNECT")


# 3.1.2.1 Protocol Name


NAMES: dict[str, bytes] = {
    "empty": b"",
    "lower case": b"mqtt",
    "other letter": b"MQTX",
    "cut short": b"MQT",
    "longer": b"MQTTX",
    "followed by NUL": b"MQTT\0",
    "byte-order mark": b"\xef\xbb\xbfMQTT",
    "very long": b"MQTT" * 1000,
    "MQIsdp": b"MQIsdp",
}


@verifies("MQTT-3.1.2-1")
@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_wrong_protocol_name(trial: Trial, name: bytes) -> None:
    """Under an unknown protocol name a client is not served as one of MQTT 3.1.1."""
    raw = trial.raw()
    raw.send(trial.connect_packet(trial.client_id(), name=name))
    try:
        expect.not_accepted(raw)
    except Failure as failure:
        if name == b"MQIsdp" and trial.has("level-3") and not raw.closed:
            trial.warn("MQIsdp, the name that belongs to MQTT 3.1, is accepted with the level of MQTT 3.1.1")
        elif raw.received_anything:
            raise
        else:  # a broker may go on with the packet by some other specification, which may well be to wait
            trial.note(f"the client is neither answered nor disconnected: {failure.actual}")


# 3.1.2.2 Protocol Level


@verifies("MQTT-3.1.2-2")
@pytest.mark.parametrize("level", [0, 1, 2, 6, 9, 64, 127, 255])
def test_unsupported_level(trial: Trial, level: int) -> None:
    """A protocol level that the broker does not support is answered with return code 1, and the connection closed."""
    raw = trial.raw()
    raw.send(trial.connect_packet(trial.client_id(), level=level))
    if level > 5 and trial.has("level-5"):
        packet = raw.next()
        expect.that(packet.kind == packets.CONNACK, "CONNACK", str(packet))
        if packet.body[1:2] == b"\x84":
            trial.warn(f"level {level} is refused in the way of MQTT 5.0, with code 0x84 instead of 1")
            expect.closed(raw, after="the refusal")
            return
        expect.that(packet.body == b"\0\1" and not packet.problem, "CONNACK with code 1", str(packet))
        expect.closed(raw, after="the refusal")
        return
    expect.refused(raw, 1)


# 3.1.2.3 Connect Flags


@verifies("MQTT-3.1.2-3")
@pytest.mark.parametrize("fields", ["none", "will", "credentials"])
@both_sessions
def test_reserved_connect_flag(trial: Trial, clean: bool, fields: str) -> None:
    """A CONNECT with the reserved flag set gets the client disconnected."""
    raw = trial.raw()
    client_id = trial.client_id()
    if fields == "credentials" and raw.endpoint.username is None:
        raw.send(packets.connect(client_id, clean=clean, username="user", password="password", toggle=1))
    else:
        will = Will(trial.topic(), b"will") if fields == "will" else None
        raw.send(trial.connect_packet(client_id, clean=clean, will=will, toggle=1))
    if expect.not_accepted(raw):
        trial.warn("a malformed CONNECT is answered with a CONNACK; it should be dropped without one")


# 3.1.2.4 Clean Session


@verifies("MQTT-3.1.2-4", "MQTT-3.1.4-3")
@every_end
def test_subscription_survives(trial: Trial, end: Callable[[Raw], None]) -> None:
    """With CleanSession = 0, a subscription is there again after the client has been away, however it left."""
    client_id, topic = trial.client_id(), trial.topic()
    first = trial.raw("first")
    first.connect(client_id, clean=False)
    first.subscribe(topic, 1)
    end(first)
    again = trial.raw("again")
    again.connect(client_id, clean=False)
    trial.client("publisher").publish(topic, b"after the return", 1)
    expect.message(again, topic=topic, payload=b"after the return")


@verifies("MQTT-3.1.2-4")
def test_several_subscriptions_survive(trial: Trial) -> None:
    """With CleanSession = 0, each of several subscriptions is kept, with the QoS that it was granted."""
    client_id = trial.client_id()
    client = trial.client("first", client_id=client_id, clean=False)
    granted = {trial.topic(f"qos-{qos}"): client.subscribe(trial.topic(f"qos-{qos}"), qos) for qos in (0, 1, 2)}
    client.disconnect()
    again = trial.client("again", client_id=client_id, clean=False)
    publisher = trial.client("publisher")
    for topic, qos in granted.items():
        publisher.publish(topic, b"message", 2)
        expect.message(again, topic=topic, payload=b"message", qos=qos)


@verifies("MQTT-3.1.2-4")
def test_removed_subscription_stays_removed(trial: Trial) -> None:
    """With CleanSession = 0, a filter that was unsubscribed is not there again when the session is resumed."""
    client_id, kept, removed = trial.client_id(), trial.topic("kept"), trial.topic("removed")
    client = trial.client("first", client_id=client_id, clean=False)
    client.subscribe(kept, 1)
    client.subscribe(removed, 1)
    client.unsubscribe(removed)
    client.disconnect()
    again = trial.client("again", client_id=client_id, clean=False)
    publisher = trial.client("publisher")
    publisher.publish(removed, b"not wanted", 1)
    expect.silence(again, publisher, kept, 1, about="a message for the filter that was removed")


@verifies("MQTT-3.1.2-4")
def test_session_is_created(trial: Trial) -> None:
    """With CleanSession = 0 and nothing stored, a new session begins, and works."""
    raw = trial.raw()
    raw.send(trial.connect_packet(trial.client_id(), clean=False))
    expect.connack(raw)
    topic = trial.topic()
    raw.subscribe(topic, 1)
    raw.publish(topic, b"mine", 1)
    expect.message(raw, topic=topic, payload=b"mine")


@verifies("MQTT-3.1.2-4")
@needs("qos-2")
@every_end
def test_incoming_qos_2_survives(trial: Trial, end: Callable[[Raw], None]) -> None:
    """With CleanSession = 0, a QoS 2 message that was half received is not delivered twice after the return."""
    client_id, topic = trial.client_id(), trial.topic()
    subscriber = trial.subscriber(topic, 2)
    first = trial.raw("first")
    first.connect(client_id, clean=False)
    first.send(packets.publish(topic, b"once", qos=2, packet_id=77))
    first.take(packets.PUBREC)
    end(first)
    again = trial.raw("again")
    again.connect(client_id, clean=False)
    again.send(packets.publish(topic, b"once", qos=2, packet_id=77, dup=True))
    again.take(packets.PUBREC)
    again.send(packets.pubrel(77))
    again.take(packets.PUBCOMP)
    found = expect.until_control(subscriber, trial.client("control"), topic, 2)
    expect.equal([publish.payload for publish in found], [b"once"], "what the subscriber receives")


@verifies("MQTT-3.1.2-5")
@pytest.mark.parametrize("published", [1, 2])
@pytest.mark.parametrize("subscribed", [1, 2])
def test_messages_wait(trial: Trial, subscribed: int, published: int) -> None:
    """QoS 1 and 2 messages for a client that is away are stored, and delivered when it returns."""
    trial.require(f"qos-{subscribed}")
    topic = trial.topic()
    client_id = absent(trial, topic, qos=subscribed)
    payloads = [f"message {number}".encode() for number in range(10)]
    publisher = trial.client("publisher")
    for payload in payloads:
        publisher.publish(topic, payload, published)
    again = trial.raw("again")
    again.connect(client_id, clean=False)
    all_sent(again, payloads)


def all_sent(raw: Raw, payloads: Collection[bytes]) -> None:
    """Messages with all of these payloads are sent. What the broker makes of the answers is judged elsewhere."""
    missing = set(payloads)
    while missing:
        try:
            packet = raw.next()
        except NoAnswer as error:
            lacking = ", ".join(map(packets.shown_payload, sorted(missing)))
            raise Failure(f"{len(payloads)} messages are sent", f"these were not: {lacking}: {error}") from None
        if isinstance(packet, Publish):
            missing.discard(packet.payload)
            if packet.packet_id:
                raw.send(packets.puback(packet.packet_id) if packet.qos == 1 else packets.pubrec(packet.packet_id))
        elif isinstance(packet, Acknowledgement) and packet.kind == packets.PUBREL:
            raw.send(packets.pubcomp(packet.packet_id))


@verifies("MQTT-3.1.2-5")
@every_abrupt_end
def test_messages_wait_after_an_abrupt_end(trial: Trial, end: Callable[[Raw], None]) -> None:
    """QoS 1 messages are stored for a client that left without DISCONNECT, too."""
    client_id, topic = trial.client_id(), trial.topic()
    first = trial.raw("first")
    first.connect(client_id, clean=False)
    first.subscribe(topic, 1)
    end(first)
    trial.client("publisher").publish(topic, b"meanwhile", 1)
    again = trial.client("again", client_id=client_id, clean=False)
    expect.message(again, topic=topic, payload=b"meanwhile")


@verifies("MQTT-3.1.2-5")
@needs("wildcards")
def test_messages_wait_for_wildcards(trial: Trial) -> None:
    """Messages are stored for any subscription that the client had, those with wildcards among them."""
    client_id = absent(trial, trial.topic("plus/+/end"), trial.topic("hash/#"), trial.topic("literal"))
    topics = [trial.topic(name) for name in ("plus/x/end", "hash", "hash/x", "hash/x/y", "literal")]
    publisher = trial.client("publisher")
    for topic in topics:
        publisher.publish(topic, topic.encode(), 1)
    again = trial.client("again", client_id=client_id, clean=False)
    found = expect.messages(again, [topic.encode() for topic in topics])
    expect.equal(sorted({publish.topic for publish in found}), sorted(topics), "the topics of the stored messages")


@verifies("MQTT-3.1.2-5")
def test_messages_wait_for_each_client(trial: Trial) -> None:
    """Every one of several absent clients gets its own copy of a stored message."""
    topic = trial.topic()
    client_ids = [absent(trial, topic) for _ in range(3)]
    trial.client("publisher").publish(topic, b"for all", 1)
    for client_id in client_ids:
        again = trial.client("again", client_id=client_id, clean=False)
        expect.message(again, topic=topic, payload=b"for all")


@verifies("MQTT-3.1.2-5")
def test_will_waits(trial: Trial) -> None:
    """A will that is published while a subscriber is away is stored for it as any message is."""
    topic = trial.topic()
    client_id = absent(trial, topic)
    dying = trial.raw("dying")
    dying.connect(trial.client_id(), will=Will(topic, b"gone", 1))
    watcher = trial.subscriber(topic, 1)
    dying.close()
    require_qos_1(watcher.next_message())
    again = trial.client("again", client_id=client_id, clean=False)
    expect.message(again, topic=topic, payload=b"gone")


def require_qos_1(publish: Publish) -> None:
    """A will with less than its QoS need not wait for anybody, and is judged by another test."""
    if publish.qos != 1:
        raise Inconclusive(f"the will was delivered with QoS {publish.qos} instead of 1")


@verifies("MQTT-3.1.2-6", "MQTT-3.1.4-3")
def test_clean_session_discards_subscriptions(trial: Trial) -> None:
    """CleanSession = 1 ends the stored session: its subscriptions are gone, now and later."""
    old, control = trial.topic("old"), trial.topic("control")
    client_id = absent(trial, old)
    publisher = trial.client("publisher")
    for name, clean in (("clean", True), ("later", False)):
        client = flows.back(trial, client_id, clean, name)
        client.subscribe(control, 1)
        publisher.publish(old, b"for the old subscription", 1)
        expect.silence(client, publisher, control, 1, about="a message for the discarded subscription")
        client.disconnect()


@verifies("MQTT-3.1.2-6", "MQTT-3.1.4-3")
def test_clean_session_discards_messages(trial: Trial) -> None:
    """CleanSession = 1 ends the stored session: the messages that waited in it are not delivered, now or later."""
    topic = trial.topic()
    client_id = absent(trial, topic)
    publisher = trial.client("publisher")
    publisher.publish(topic, b"waiting", 1)
    for name, clean in (("clean", True), ("later", False)):
        client = flows.back(trial, client_id, clean, name)
        client.subscribe(topic, 1)
        expect.silence(client, publisher, topic, 1, about="a message that waited in the discarded session")
        client.disconnect()


@verifies("MQTT-3.1.2-6")
@pytest.mark.parametrize("qos", [1, 2])
def test_clean_session_discards_what_is_under_way(trial: Trial, qos: int) -> None:
    """CleanSession = 1 ends the stored session: what was sent in it and not acknowledged is not sent again."""
    client_id, topic = trial.client_id(), trial.topic()
    first = trial.raw("first")
    first.connect(client_id, clean=False)
    first.subscribe(topic, qos)
    publisher = trial.client("publisher")
    publisher.publish(topic, b"under way", qos)
    first.take(packets.PUBLISH)
    first.reset()
    second = trial.raw("second")
    second.connect(client_id)
    second.subscribe(topic, qos)
    expect.silence(second, publisher, topic, qos, about="a message of the discarded session")


@verifies("MQTT-3.1.2-6")
def test_clean_session_discards_incoming_qos_2(trial: Trial) -> None:
    """CleanSession = 1 ends the stored session: a Packet Identifier half received in it means a new message now."""
    client_id, topic = trial.client_id(), trial.topic()
    subscriber = trial.subscriber(topic, 1)
    first = trial.raw("first")
    first.connect(client_id, clean=False)
    first.send(packets.publish(topic, b"old", qos=2, packet_id=5))
    first.take(packets.PUBREC)
    first.disconnect()
    second = trial.raw("second")
    second.connect(client_id)
    second.send(packets.publish(topic, b"new", qos=2, packet_id=5))
    second.take(packets.PUBREC)
    second.send(packets.pubrel(5))
    second.take(packets.PUBCOMP)
    found = expect.until_control(subscriber, trial.client("control"), topic, 1)
    expect.that(
        b"new" in [publish.payload for publish in found],
        'the subscriber receives "new", which was published in the new session',
        f"it receives {[publish.payload for publish in found]!r}",
    )


@verifies("MQTT-3.1.2-6")
@every_end
@both_sessions
def test_clean_session_ends_with_its_connection(trial: Trial, clean: bool, end: Callable[[Raw], None]) -> None:
    """Nothing of a session with CleanSession = 1 is there in a later one."""
    client_id, old, control = trial.client_id(), trial.topic("old"), trial.topic("control")
    first = trial.raw("first")
    first.connect(client_id)
    first.subscribe(old, 1)
    end(first)
    publisher = trial.client("publisher")
    second = trial.raw("second")
    second.connect(client_id, clean=clean)
    second.subscribe(control, 1)
    publisher.publish(old, b"for the old session", 1)
    expect.silence(second, publisher, control, 1, about="a message for a subscription of the earlier session")


RETAINING_ENDS: dict[str, Callable[[Client], None]] = {"disconnect": Client.disconnect, "drop": Client.drop}


@verifies("MQTT-3.1.2-7")
@needs("retained")
@both_sessions
@pytest.mark.parametrize("end", RETAINING_ENDS.values(), ids=RETAINING_ENDS)
def test_retained_message_outlives_its_publisher(trial: Trial, end: Callable[[Client], None], clean: bool) -> None:
    """The end of a session leaves the retained messages that its client has published."""
    topic = trial.topic()
    publisher = trial.client("publisher", clean=clean)
    publisher.publish(topic, b"kept", 1, retain=True)
    end(publisher)
    if not clean:
        trial.client("end of the session", client_id=publisher.client_id).disconnect()
    expect.message(trial.subscriber(topic, 1), topic=topic, payload=b"kept", retain=True)


@verifies("MQTT-3.1.2-7")
@needs("retained")
def test_retained_message_outlives_a_takeover(trial: Trial) -> None:
    """A session that another login with CleanSession = 1 ends leaves its client's retained messages."""
    topic = trial.topic()
    publisher = trial.client("publisher", clean=False)
    publisher.publish(topic, b"kept", 1, retain=True)
    trial.client("second login", client_id=publisher.client_id).disconnect()
    expect.message(trial.subscriber(topic, 1), topic=topic, payload=b"kept", retain=True)


# 3.1.2.5 Will


def by_second_connect(trial: Trial, raw: Raw, client_id: str) -> None:
    raw.send(trial.connect_packet(client_id))
    raw.wait_closed()


def by_malformed_packet(trial: Trial, raw: Raw, client_id: str) -> None:
    raw.send(packets.frame(packets.SUBSCRIBE, 0, b"\0\1\0\1x\0"))
    raw.wait_closed()


def by_takeover(trial: Trial, raw: Raw, client_id: str) -> None:
    trial.raw("second login").connect(client_id)
    raw.wait_closed()


def by_half_close(trial: Trial, raw: Raw, client_id: str) -> None:
    raw.finish_sending()


def by_fin(trial: Trial, raw: Raw, client_id: str) -> None:
    raw.close()


def by_rst(trial: Trial, raw: Raw, client_id: str) -> None:
    raw.reset()


def by_fin_within_a_packet(trial: Trial, raw: Raw, client_id: str) -> None:
    raw.send(packets.publish(trial.topic("unfinished"), b"x" * 100)[:50])
    raw.close()


DEATHS = {
    "fin": by_fin,
    "rst": by_rst,
    "half close": by_half_close,
    "fin within a packet": by_fin_within_a_packet,
    "malformed packet": by_malformed_packet,
    "second connect": by_second_connect,
    "takeover": by_takeover,
}
every_death = pytest.mark.parametrize("death", DEATHS.values(), ids=DEATHS)


@verifies("MQTT-3.1.2-8")
@both_sessions
@every_death
def test_will_is_published(trial: Trial, death: Callable[[Trial, Raw, str], None], clean: bool) -> None:
    """A will is published when the connection ends in any way but by DISCONNECT."""
    client_id, topic = trial.client_id(), trial.topic()
    watcher = trial.subscriber(topic, 1, name="watcher")
    dying = trial.raw("dying")
    dying.connect(client_id, clean=clean, will=Will(topic, b"gone", 1))
    death(trial, dying, client_id)
    expect.message(watcher, topic=topic, payload=b"gone")


@verifies("3.1.2.5/prompt-will")
@every_abrupt_end
def test_will_is_prompt(trial: Trial, end: Callable[[Raw], None]) -> None:
    """A will is published promptly when its connection has ended. "Promptly" has no number: half the patience is."""
    topic = trial.topic()
    watcher = trial.subscriber(topic, 1, name="watcher")
    dying = trial.raw("dying")
    dying.connect(trial.client_id(), will=Will(topic, b"gone", 1))
    began = time.monotonic()
    end(dying)
    watcher.next_message()
    seconds = time.monotonic() - began
    trial.note(f"the will came {seconds:.3f} s after the end of its connection")
    if seconds > trial.patience / 2:
        trial.warn(f"the will came only {seconds:.1f} s after the end of its connection")


@verifies("MQTT-3.1.2-8")
@waits(6)
def test_will_is_published_at_keep_alive_timeout(trial: Trial) -> None:
    """A client that falls silent is treated as if the network had failed: its will is published."""
    topic = trial.topic()
    watcher = trial.subscriber(topic, 1, name="watcher")
    silent = trial.raw("silent")
    silent.connect(trial.client_id(), keep_alive=1, will=Will(topic, b"gone", 1))
    silent.wait_closed(latest(trial, 1))
    expect.message(watcher, topic=topic, payload=b"gone")


@verifies("3.1.2.6/will-qos")
@pytest.mark.parametrize("subscribed", [0, 1, 2])
@every_qos
def test_will_has_its_qos(trial: Trial, qos: int, subscribed: int) -> None:
    """A will is published with its own QoS, and reaches a subscriber with what was granted at most."""
    topic = trial.topic()
    watcher = trial.subscriber(topic, subscribed, name="watcher")
    dying = trial.raw("dying")
    dying.connect(trial.client_id(), will=Will(topic, b"gone", qos))
    dying.close()
    expect.equal(watcher.next_message().qos, min(qos, subscribed), "the QoS of the will, as it was delivered")


WILL_PAYLOADS = {"empty": b"", "every byte": bytes(range(256)), "65535 bytes": b"w" * 65535}


@verifies("MQTT-3.1.2-8")
@pytest.mark.parametrize("payload", WILL_PAYLOADS.values(), ids=WILL_PAYLOADS)
def test_will_payload(trial: Trial, payload: bytes) -> None:
    """A will's message is any 0 to 65535 bytes, and is delivered as it is, without its length."""
    topic = trial.topic()
    watcher = trial.subscriber(topic, 1, name="watcher")
    dying = trial.raw("dying")
    dying.connect(trial.client_id(), will=Will(topic, payload, 1))
    dying.close()
    publish = expect.message(watcher, topic=topic)
    expect.that(publish.payload == payload, f"a will of {len(payload)} bytes, unchanged", str(publish))


@verifies("MQTT-3.1.2-8")
def test_will_to_its_own_session(trial: Trial) -> None:
    """A will reaches the session of the very client that died, if that has a subscription for it."""
    client_id, topic = trial.client_id(), trial.topic()
    dying = trial.raw("dying")
    dying.connect(client_id, clean=False, will=Will(topic, b"my own", 1))
    dying.subscribe(topic, 1)
    watcher = trial.subscriber(topic, 1, name="watcher")
    dying.close()
    require_qos_1(watcher.next_message())
    publisher = trial.client("publisher")
    publisher.publish(topic, b"another", 1)
    again = trial.client("again", client_id=client_id, clean=False)
    waiting = [publish.payload for publish in expect.until_control(again, publisher, topic, 1)]
    if b"another" not in waiting:
        raise Inconclusive("not even an ordinary message waits in the session of an absent client")
    expect.that(b"my own" in waiting, "the will waits in the session of the client that died", f"only {waiting!r} does")


@verifies("MQTT-3.1.2-8")
def test_each_connection_has_its_own_will(trial: Trial) -> None:
    """The will that is published is that of the connection that ended, not an earlier one of the same client."""
    client_id, topic = trial.client_id(), trial.topic()
    watcher = trial.subscriber(topic, 1, name="watcher")
    for payload in (b"first", b"second", b"third"):
        dying = trial.raw("dying")
        dying.connect(client_id, clean=False, will=Will(topic, payload, 1))
        dying.close()
        expect.message(watcher, topic=topic, payload=payload)


@verifies("MQTT-3.1.2-10", "MQTT-3.1.2-12")
@both_sessions
@every_abrupt_end
def test_published_will_is_forgotten(trial: Trial, end: Callable[[Raw], None], clean: bool) -> None:
    """A will that was published is not published again when a later connection without a will breaks off."""
    client_id, topic = trial.client_id(), trial.topic()
    watcher = trial.subscriber(topic, 1, name="watcher")
    first = trial.raw("first")
    first.connect(client_id, clean=clean, will=Will(topic, b"gone", 1))
    end(first)
    watcher.next_message()
    second = trial.raw("second")
    second.connect(client_id, clean=clean)
    end(second)
    seen_ended(trial, client_id)
    expect.silence(watcher, trial.client("control"), topic, 1, about="a will that was published before")


@verifies("MQTT-3.1.2-10", "MQTT-3.1.2-12")
@both_sessions
@every_abrupt_end
def test_disconnect_makes_the_will_forgotten(trial: Trial, end: Callable[[Raw], None], clean: bool) -> None:
    """After DISCONNECT a will is forgotten: neither then nor by a later connection is it published."""
    client_id, topic = trial.client_id(), trial.topic()
    watcher = trial.subscriber(topic, 1, name="watcher")
    first = trial.raw("first")
    first.connect(client_id, clean=clean, will=Will(topic, b"not to be seen", 1))
    first.disconnect()
    second = trial.raw("second")
    second.connect(client_id, clean=clean)
    end(second)
    seen_ended(trial, client_id)
    expect.silence(watcher, trial.client("control"), topic, 1, about="a will that DISCONNECT has removed")


@verifies("MQTT-3.1.2-10")
@needs("retained")
def test_retained_will_is_forgotten(trial: Trial) -> None:
    """A retained will is published once: what was retained in its place later stays."""
    client_id, topic = trial.client_id(), trial.topic()
    watcher = trial.subscriber(topic, 1, name="watcher")
    first = trial.raw("first")
    first.connect(client_id, clean=False, will=Will(topic, b"gone", 1, retain=True))
    first.close()
    watcher.next_message()
    trial.client("publisher").publish(topic, b"back", 1, retain=True)
    second = trial.raw("second")
    second.connect(client_id, clean=False)
    second.close()
    seen_ended(trial, client_id)
    expect.message(trial.subscriber(topic, 1, name="later"), topic=topic, payload=b"back", retain=True)


@verifies("MQTT-3.1.2-12")
@every_death
def test_no_will(trial: Trial, death: Callable[[Trial, Raw, str], None]) -> None:
    """Without a will nothing is published when the connection ends, in whatever way."""
    client_id = trial.client_id()
    watcher = trial.subscriber(trial.topic("#"), 1, name="watcher")
    raw = trial.raw("without a will")
    raw.connect(client_id)
    death(trial, raw, client_id)
    if not raw.closed:
        raw.wait_closed()
    seen_ended(trial, client_id)
    about = "a message at the end of a connection without a will"
    expect.silence(watcher, trial.client("control"), trial.topic("control"), 1, about=about)


def seen_ended(trial: Trial, client_id: str) -> None:
    """Makes sure that the broker has dealt with the end of that client's connection: another login must end it."""
    trial.client("afterwards", client_id=client_id).disconnect()


@verifies("MQTT-3.1.2-16")
@every_qos
@needs("retained")
def test_will_without_retain(trial: Trial, qos: int) -> None:
    """A will without the retain flag is no retained message, and replaces none."""
    fresh, taken = trial.topic("fresh"), trial.topic("taken")
    publisher = trial.client("publisher")
    publisher.publish(taken, b"kept", 1, retain=True)
    for topic in (fresh, taken):
        watcher = trial.client("watcher")
        dying = trial.raw("dying")
        dying.connect(trial.client_id(), will=Will(topic, b"gone", qos))
        watcher.subscribe(topic, 1)
        if topic == taken:
            watcher.next_message()
        dying.close()
        watcher.next_message()
    later = trial.client("later")
    later.subscribe(taken, 1)
    expect.message(later, topic=taken, payload=b"kept", retain=True)
    later.subscribe(fresh, 1)
    about = "a will without the retain flag, for a later subscriber"
    expect.silence(later, publisher, fresh, 1, about=about, besides=of_topic(taken))


@verifies("MQTT-3.1.2-17")
@every_qos
@needs("retained")
def test_will_with_retain(trial: Trial, qos: int) -> None:
    """A will with the retain flag becomes the topic's retained message, in place of another."""
    trial.client("publisher").publish(trial.topic("taken"), b"replaced", 1, retain=True)
    for name in ("fresh", "taken"):
        topic, payload = trial.topic(name), f"gone from {name}".encode()
        watcher = trial.client("watcher")
        watcher.subscribe(topic, 1)
        if name == "taken":
            watcher.next_message()
        dying = trial.raw("dying")
        dying.connect(trial.client_id(), will=Will(topic, payload, qos, retain=True))
        dying.close()
        watcher.next_message()
        later = trial.subscriber(topic, 1, name="later")
        found = expect.messages(later, [payload])
        expect.that(b"replaced" not in [one.payload for one in found], "only the will", ", ".join(map(str, found)))
        expect.that(found[-1].retain, "the will with RETAIN", str(found[-1]))


@verifies("MQTT-3.1.2-17")
@needs("retained")
def test_empty_will_with_retain(trial: Trial) -> None:
    """An empty will with the retain flag removes the topic's retained message, as any such message does."""
    topic = trial.topic()
    publisher = trial.client("publisher")
    publisher.publish(topic, b"to be removed", 1, retain=True)
    watcher = trial.subscriber(topic, 1, name="watcher")
    watcher.next_message()
    dying = trial.raw("dying")
    dying.connect(trial.client_id(), will=Will(topic, b"", 1, retain=True))
    dying.close()
    watcher.next_message()
    later = trial.subscriber(topic, 1, name="later")
    expect.silence(later, publisher, topic, 1, about="the retained message that the empty will has removed")


# A CONNECT that contradicts itself (3.1.2.5 to 3.1.2.9, 3.1.3)


def u16(value: int) -> bytes:
    return value.to_bytes(2, "big")


WILL_FIELDS_MISSING = {
    "both": b"",
    "message": packets.string("a/topic"),
    "topic cut short": u16(10) + b"topic",
    "message cut short": packets.string("a/topic") + u16(10) + b"gone",
}


@verifies("MQTT-3.1.2-9", "MQTT-3.1.4-1")
@pytest.mark.parametrize("present", WILL_FIELDS_MISSING.values(), ids=WILL_FIELDS_MISSING)
def test_will_fields_missing(trial: Trial, present: bytes) -> None:
    """The will flag without will topic and will message is no valid CONNECT."""
    raw = trial.raw()
    raw.send(packets.connect(trial.client_id(), flags=0b110, extra=present))
    expect.dropped(raw, after="a CONNECT whose will fields are missing")


@verifies("MQTT-3.1.2-11", "MQTT-3.1.4-1")
def test_will_fields_without_flag(trial: Trial) -> None:
    """Will fields without the will flag are no valid CONNECT."""
    raw = trial.raw()
    fields = packets.string(trial.topic()) + packets.string(b"will")
    raw.send(trial.connect_packet(trial.client_id(), extra=fields))
    expect.dropped(raw, after="a CONNECT with will fields but no will flag")


@verifies("MQTT-3.1.2-11", "MQTT-3.1.2-13", "MQTT-3.1.4-1")
@pytest.mark.parametrize("qos", [1, 2, 3])
def test_will_qos_without_flag(trial: Trial, qos: int) -> None:
    """A will QoS without the will flag is no valid CONNECT."""
    raw = trial.raw()
    raw.send(trial.connect_packet(trial.client_id(), toggle=qos << 3))
    expect.dropped(raw, after=f"a CONNECT with will QoS {qos} but no will flag")


@verifies("MQTT-3.1.2-11", "MQTT-3.1.2-15", "MQTT-3.1.4-1")
def test_will_retain_without_flag(trial: Trial) -> None:
    """The will retain flag without the will flag is no valid CONNECT."""
    raw = trial.raw()
    raw.send(trial.connect_packet(trial.client_id(), toggle=0b100000))
    expect.dropped(raw, after="a CONNECT with the will retain flag but no will flag")


@verifies("MQTT-3.1.2-14", "MQTT-3.1.4-1")
@pytest.mark.parametrize("retain", [False, True], ids=["normal", "retained"])
def test_will_qos_3(trial: Trial, retain: bool) -> None:
    """A will QoS of 3 is no valid CONNECT."""
    raw = trial.raw()
    raw.send(trial.connect_packet(trial.client_id(), will=Will(trial.topic(), b"will", 3, retain)))
    expect.dropped(raw, after="a CONNECT with will QoS 3")


@verifies("MQTT-3.1.2-18", "MQTT-3.1.4-1")
def test_username_without_flag(trial: Trial) -> None:
    """A user name field without its flag is no valid CONNECT."""
    raw = trial.raw()
    raw.send(packets.connect(trial.client_id(), extra=packets.string("user")))
    expect.dropped(raw, after="a CONNECT with a user name but no user name flag")


USERNAME_MISSING = {"absent": b"", "cut short": u16(10) + b"user", "half a length": b"\0"}


@verifies("MQTT-3.1.2-19", "MQTT-3.1.4-1")
@pytest.mark.parametrize("present", USERNAME_MISSING.values(), ids=USERNAME_MISSING)
def test_username_missing(trial: Trial, present: bytes) -> None:
    """The user name flag without a user name is no valid CONNECT."""
    raw = trial.raw()
    raw.send(packets.connect(trial.client_id(), flags=0x82, extra=present))
    expect.dropped(raw, after="a CONNECT whose user name is missing")


@verifies("MQTT-3.1.2-20", "MQTT-3.1.4-1")
def test_password_without_flag(trial: Trial) -> None:
    """A password field without its flag is no valid CONNECT."""
    raw = trial.raw()
    raw.send(packets.connect(trial.client_id(), username="user", extra=packets.string("password")))
    expect.dropped(raw, after="a CONNECT with a password but no password flag")


PASSWORD_MISSING = {"absent": b"", "cut short": u16(10) + b"pass", "half a length": b"\0"}


@verifies("MQTT-3.1.2-21", "MQTT-3.1.4-1")
@pytest.mark.parametrize("present", PASSWORD_MISSING.values(), ids=PASSWORD_MISSING)
def test_password_missing(trial: Trial, present: bytes) -> None:
    """The password flag without a password is no valid CONNECT."""
    raw = trial.raw()
    raw.send(packets.connect(trial.client_id(), flags=0xC2, username="user", extra=present))
    expect.dropped(raw, after="a CONNECT whose password is missing")


@verifies("MQTT-3.1.2-22", "MQTT-3.1.4-1")
def test_password_without_username(trial: Trial) -> None:
    """A password without a user name is no valid CONNECT."""
    raw = trial.raw()
    raw.send(packets.connect(trial.client_id(), password="password"))
    expect.dropped(raw, after="a CONNECT with a password but no user name")


@verifies("MQTT-3.1.4-4")
@needs("authenticated")
def test_username_and_password(trial: Trial) -> None:
    """A user name and a password that the broker knows are accepted, with a will before them in the payload too."""
    for will in (None, Will(trial.topic(), b"will", 1)):
        raw = trial.raw(endpoint="authenticated")
        where = raw.endpoint
        raw.send(packets.connect(trial.client_id(), will=will, username=where.username, password=where.password))
        expect.connack(raw)


# 3.1.2.10 Keep Alive


def latest(trial: Trial, keep_alive: int) -> float:
    """How long, in seconds, a keep alive timeout is waited for before it is called a FAIL. The specification says when
    a broker must act but not how fast, and some look at their clients only every few seconds."""
    return 1.5 * keep_alive + 2 * trial.patience


def judge_timeout(trial: Trial, raw: Raw, keep_alive: int, since: float) -> None:
    """The broker closes for want of a packet: no earlier than is right, and not too late. Both are a WARN."""
    expect.closed(raw, after=f"{1.5 * keep_alive:g} s without a packet", within=latest(trial, keep_alive))
    seconds = raw.closed_at - since
    times = f"{seconds / keep_alive:.2f} times the keep alive of {keep_alive} s"
    trial.note(f"cut off after {times}")
    if seconds < keep_alive:
        trial.warn(f"cut off after only {times}: permitted, but few brokers do it")
    elif seconds > 1.5 * keep_alive + trial.patience:
        trial.warn(f"cut off only after {times}: 1.5 times is the rule")


@verifies("MQTT-3.1.2-24")
@waits(6)
@both_sessions
@pytest.mark.parametrize("keep_alive", [1, 2, 3])
def test_silent_client_is_cut_off(trial: Trial, keep_alive: int, clean: bool) -> None:
    """A client from which nothing comes for one and a half times its keep alive is cut off."""
    raw = trial.raw()
    raw.connect(trial.client_id(), clean=clean, keep_alive=keep_alive)
    judge_timeout(trial, raw, keep_alive, raw.last_sent_at)


@verifies("MQTT-3.1.2-24")
@waits(8)
def test_client_that_falls_silent_is_cut_off(trial: Trial) -> None:
    """The time runs from the client's last packet, not from its CONNECT."""
    raw = trial.raw()
    raw.connect(trial.client_id(), keep_alive=2)
    keep_busy(trial, raw, 2, 3.0, packets.pingreq())
    judge_timeout(trial, raw, 2, raw.last_sent_at)


@verifies("MQTT-3.1.2-24")
@waits(6)
def test_receiving_does_not_keep_a_client(trial: Trial) -> None:
    """Only what the client sends counts: one that merely receives messages is cut off."""
    topic = trial.topic()
    raw = trial.raw("listener")
    raw.connect(trial.client_id(), keep_alive=1)
    raw.subscribe(topic, 0)
    since = raw.last_sent_at
    publisher = trial.client("publisher")
    deadline = since + latest(trial, 1)
    while not raw.closed and time.monotonic() < deadline:
        publisher.publish(topic, b"tick", 0)
        with contextlib.suppress(Inconclusive):
            raw.wait_closed(0.25)
    expect.that(bool(raw.closed), "a client that only receives is cut off", f"it is not, {deadline - since:g} s later")
    judge_timeout(trial, raw, 1, since)


@verifies("MQTT-3.1.2-24")
@waits(7)
def test_half_a_packet_does_not_keep_a_client(trial: Trial) -> None:
    """Only whole packets count: a client that sends one byte now and then is cut off, if the broker is strict."""
    raw = trial.raw()
    raw.connect(trial.client_id(), keep_alive=1)
    since = raw.last_sent_at
    # A short packet: while a long one is under way, a broker may well have patience with a slow network.
    endless = packets.publish(trial.topic(), b"x" * 200)
    deadline = since + 1.5 + trial.patience
    for byte in endless:
        raw.send(bytes([byte]))
        with contextlib.suppress(Inconclusive):
            raw.wait_closed(0.3)
        if raw.closed or time.monotonic() > deadline:
            break
    if raw.closed:
        trial.note(f"cut off after {raw.closed_at - since:.2f} times the keep alive of 1 s")
    else:
        trial.warn(f"a client that sends a byte now and then, but no packet, is still there after {deadline - since} s")


BUSY: dict[str, Callable[[str], bytes]] = {
    "pingreq": lambda topic: packets.pingreq(),
    "publish qos 0": lambda topic: packets.publish(topic, b"busy"),
    "publish qos 1": lambda topic: packets.publish(topic, b"busy", qos=1, packet_id=1),
    "subscribe": lambda topic: packets.subscribe(1, (topic, 0)),
    "unsubscribe": lambda topic: packets.unsubscribe(1, topic),
}


@verifies("MQTT-3.1.2-24")
@waits(7)
@pytest.mark.parametrize("packet", BUSY.values(), ids=BUSY)
def test_any_packet_keeps_a_client(trial: Trial, packet: Callable[[str], bytes]) -> None:
    """A client that sends any packet in time is not cut off, and needs no PINGREQ."""
    raw = trial.raw()
    raw.connect(trial.client_id(), keep_alive=2)
    keep_busy(trial, raw, 2, 7.0, packet(trial.topic()))
    if raw.closed:
        trial.warn("a client that sends packets within its keep alive is cut off: permitted, but few brokers do it")
    else:
        expect.alive(raw, after="packets sent within the keep alive")


def keep_busy(trial: Trial, raw: Raw, keep_alive: int, seconds: float, packet: bytes) -> None:
    """Sends a packet every half keep alive, for so many seconds or until the broker closes. Inconclusive if this
    machine was too slow to keep to the time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not raw.closed:
        before = raw.last_sent_at
        with contextlib.suppress(Inconclusive):
            raw.wait_closed(keep_alive / 2)
        raw.send(packet)
        if raw.last_sent_at - before > keep_alive:
            raise Inconclusive("this machine is too busy: the test itself could not keep to the keep alive")


@verifies("3.1.2.10/keep-alive-zero")
@waits(6)
@pytest.mark.parametrize("keep_alive", [0, 65535])
def test_quiet_client_stays(trial: Trial, keep_alive: int) -> None:
    """With keep alive 0, or with the longest, a quiet client is there when one with keep alive 1 has been cut off."""
    if keep_alive == 0:
        trial.require("keep-alive-0")
    quiet = trial.raw("quiet")
    quiet.connect(trial.client_id(), keep_alive=keep_alive)
    short = trial.raw("short")
    short.connect(trial.client_id(), keep_alive=1)
    with contextlib.suppress(Inconclusive):
        short.wait_closed(latest(trial, 1))
    try:
        quiet.ping()
    except Inconclusive:
        trial.warn(f"a client with keep alive {keep_alive} was cut off: permitted, but few brokers do it")


# 3.1.3.1 ClientId


def of_topic(topic: str) -> Callable[[Publish], bool]:
    return lambda publish: publish.topic == topic


@verifies("MQTT-3.1.3-2")
def test_sessions_belong_to_their_client_ids(trial: Trial) -> None:
    """A session is found by its ClientId: others, however similar, have nothing of it."""
    base = trial.client_id(18)
    similar = [base + "a", base + "A", base + "ab", base, base + "b", "a" + base]
    publisher = trial.client("publisher")
    for number, client_id in enumerate(similar):
        client = trial.client(f"client {number}", client_id=client_id, clean=False)
        client.subscribe(trial.topic(str(number)), 1)
        client.disconnect()
    for number in range(len(similar)):
        publisher.publish(trial.topic(str(number)), str(number).encode(), 1)
    for number, client_id in enumerate(similar):
        client = trial.client(f"client {number} again", client_id=client_id, clean=False)
        own = trial.topic(str(number))
        about = "a message for the session of another ClientId"
        expect.silence(client, publisher, own, 1, about=about, besides=of_topic(own))


@verifies("MQTT-3.1.3-2")
def test_long_client_ids_are_told_apart(trial: Trial) -> None:
    """ClientIds that differ only beyond 23 bytes are different, if a broker takes such long ones at all."""
    base = trial.client_id(40)
    raws = []
    for last in "ab":
        raw = trial.raw(last)
        raw.send(trial.connect_packet(base + last))
        answer = raw.take(packets.CONNACK)
        if not isinstance(answer, Connack) or answer.code:
            raise NotApplicable(f"a ClientId of 41 bytes is refused, which is permitted: {answer}")
        raws.append(raw)
    expect.alive(raws[0], after="the login of a client whose ClientId differs in its last byte")


@verifies("MQTT-3.1.3-3", "MQTT-3.1.4-1")
@both_sessions
def test_client_id_missing(trial: Trial, clean: bool) -> None:
    """A CONNECT without a ClientId field is no valid CONNECT."""
    raw = trial.raw()
    raw.send(packets.connect(None, clean=clean))
    expect.dropped(raw, after="a CONNECT without a ClientId")


CLIENT_ID_CUT = {"half a length": b"\0", "no bytes": u16(10), "too few bytes": u16(10) + b"abc"}


@verifies("MQTT-3.1.3-3", "MQTT-3.1.4-1")
@pytest.mark.parametrize("present", CLIENT_ID_CUT.values(), ids=CLIENT_ID_CUT)
def test_client_id_cut_short(trial: Trial, present: bytes) -> None:
    """A CONNECT that ends within its ClientId is no valid CONNECT."""
    raw = trial.raw()
    raw.send(packets.connect(None, extra=present))
    expect.dropped(raw, after="a CONNECT that ends within its ClientId")


every_ill_formed_string = pytest.mark.parametrize(
    "bad", [*packets.ILL_FORMED_UTF8.values(), b"ab\0cd"], ids=[*packets.ILL_FORMED_UTF8, "NUL"]
)


def reject_string(trial: Trial, connect: bytes) -> None:
    """A CONNECT with an ill-formed string is not accepted. A refusal before the close is worth a warning."""
    raw = trial.raw()
    raw.send(connect)
    answer = expect.not_accepted(raw)
    if answer:
        trial.warn(f"an ill-formed string is answered with {answer}; the connection should just be closed")


@verifies("MQTT-3.1.3-4")
@every_ill_formed_string
def test_client_id_ill_formed(trial: Trial, bad: bytes) -> None:
    """A ClientId that is no UTF-8, or has a NUL in it, gets the client disconnected."""
    reject_string(trial, trial.connect_packet(trial.client_id(8).encode() + bad))


@verifies("MQTT-3.1.3-10")
@every_ill_formed_string
def test_will_topic_ill_formed(trial: Trial, bad: bytes) -> None:
    """A will topic that is no UTF-8, or has a NUL in it, gets the client disconnected."""
    topic = trial.topic().encode() + bad
    reject_string(trial, trial.connect_packet(trial.client_id(), will=Will(topic, b"will")))


@verifies("MQTT-3.1.3-11")
@every_ill_formed_string
def test_username_ill_formed(trial: Trial, bad: bytes) -> None:
    """A user name that is no UTF-8, or has a NUL in it, gets the client disconnected."""
    reject_string(trial, packets.connect(trial.client_id(), username=b"user" + bad, password="password"))


@verifies("MQTT-3.1.3-5", "MQTT-3.1.4-4")
def test_client_id_lengths(trial: Trial) -> None:
    """ClientIds of 1 to 23 letters and digits are accepted, whatever their length."""
    shortest = 1 if trial.broker.private or trial.broker.main.loopback else 8
    if shortest > 1:
        trial.note(f"ClientIds below {shortest} bytes were left out: another client of this broker might have one")
    for length in range(shortest, 24):
        raw = trial.raw(f"{length} bytes")
        raw.send(trial.connect_packet(trial.client_id(length)))
        expect.connack(raw)
        raw.disconnect()


@verifies("MQTT-3.1.3-5")
def test_client_id_characters(trial: Trial) -> None:
    """Every letter and digit is accepted in a ClientId."""
    characters = list(CLIENT_ID_CHARACTERS)
    secrets.SystemRandom().shuffle(characters)
    for start in range(0, len(characters), 23):
        raw = trial.raw()
        raw.send(trial.connect_packet("".join(characters[start : start + 23])))
        expect.connack(raw)
        raw.disconnect()


@verifies("MQTT-3.1.3-6")
@needs("empty-client-id")
def test_empty_client_ids_are_unique(trial: Trial) -> None:
    """Clients with an empty ClientId each get an identity of their own, so they do not evict each other."""
    raws = []
    for _ in range(5):
        raw = trial.raw()
        raw.send(trial.connect_packet(""))
        expect.connack(raw)
        raws.append(raw)
    for raw in raws:
        expect.alive(raw, after="the login of others with an empty ClientId")


@verifies("MQTT-3.1.3-6")
@needs("empty-client-id")
def test_empty_client_id_has_its_own_state(trial: Trial) -> None:
    """A client with an empty ClientId is served as any other, and has nothing of another such client's session."""
    topic, control = trial.topic(), trial.topic("control")
    first = trial.raw("first")
    first.connect("")
    first.subscribe(topic, 1)
    second = trial.raw("second")
    second.connect("")
    second.subscribe(control, 1)
    publisher = trial.client("publisher")
    publisher.publish(topic, b"for the first", 1)
    expect.message(first, topic=topic, payload=b"for the first")
    expect.silence(second, publisher, control, 1, about="a message for the other client with an empty ClientId")


@verifies("MQTT-3.1.3-7", "MQTT-3.1.3-8", "MQTT-3.1.3-9")
@pytest.mark.parametrize("keep_alive", [0, 60])
def test_empty_client_id_without_clean_session(trial: Trial, keep_alive: int) -> None:
    """An empty ClientId with CleanSession = 0 is refused with code 2, and the connection closed."""
    raw = trial.raw()
    raw.send(trial.connect_packet("", clean=False, keep_alive=keep_alive))
    expect.refused(raw, 2)


@verifies("MQTT-3.1.2-12")
def test_will_of_a_refused_client(trial: Trial) -> None:
    """The will of a CONNECT that is refused is not published: there was no connection for it."""
    topic = trial.topic()
    watcher = trial.subscriber(topic, 1, name="watcher")
    raw = trial.raw()
    raw.send(trial.connect_packet("", clean=False, will=Will(topic, b"not to be seen", 1)))
    raw.wait_closed()
    expect.silence(watcher, trial.client("control"), topic, 1, about="the will of a CONNECT that was refused")


UNUSUAL: dict[str, Callable[[], str]] = {
    "24 bytes": lambda: Trial.client_id(24),
    "100 bytes": lambda: Trial.client_id(100),
    "1000 bytes": lambda: Trial.client_id(1000),
    "hyphen": lambda: Trial.client_id(10) + "-",
    "slash": lambda: Trial.client_id(10) + "/x",
    "space": lambda: Trial.client_id(10) + " x",
    "umlaut": lambda: Trial.client_id(10) + "ü",
    "four-byte character": lambda: Trial.client_id(10) + "\U0001f41f",
}


@verifies("MQTT-3.1.3-9")
@pytest.mark.parametrize("unusual", UNUSUAL.values(), ids=UNUSUAL)
def test_unusual_client_id(trial: Trial, unusual: Callable[[], str]) -> None:
    """A ClientId that a broker need not accept is accepted, or refused with code 2 and the connection closed."""
    raw = trial.raw()
    raw.send(trial.connect_packet(unusual()))
    if expect.connack(raw, (0, 2)).code:
        trial.note("it is refused")
        expect.closed(raw, after="the refusal")


@verifies("MQTT-3.1.3-9")
def test_longest_client_id(trial: Trial) -> None:
    """A ClientId of 65535 bytes is accepted or refused with code 2; a limit on packets may also end the connection."""
    raw = trial.raw()
    raw.send(trial.connect_packet(trial.client_id(16) + "x" * 65519))
    if expect.accepted_or_refused(raw, 2) is None:
        trial.warn("a CONNECT with a ClientId of 65535 bytes is dropped without a CONNACK")


@verifies("MQTT-3.1.3-9")
@needs("identifiers")
def test_refused_client_id(trial: Trial) -> None:
    """A ClientId that the configuration does not allow is refused with code 2, and the connection closed."""
    raw = trial.raw(endpoint="identifiers")
    where = raw.endpoint
    assert where.refused_client_id is not None
    raw.send(packets.connect(where.refused_client_id, username=where.username, password=where.password))
    expect.refused(raw, 2)


# 3.1.3.2 Will Topic


WILL_TOPICS = {"plus": "a/+/b", "hash": "a/#", "plus alone": "+", "hash alone": "#"}


@verifies("MQTT-4.7.1-1")
@pytest.mark.parametrize("topic", WILL_TOPICS.values(), ids=WILL_TOPICS)
def test_will_topic_with_wildcards(trial: Trial, topic: str) -> None:
    """A will topic is a topic name: one with wildcards is not accepted."""
    raw = trial.raw()
    raw.send(trial.connect_packet(trial.client_id(), will=Will(topic, b"will")))
    answer = expect.not_accepted(raw)
    if answer:
        trial.warn(f"a will topic with wildcards is answered with {answer}; the connection should just be closed")


@verifies("MQTT-4.7.3-1")
def test_will_topic_empty(trial: Trial) -> None:
    """A will topic is a topic name: an empty one is not accepted."""
    raw = trial.raw()
    raw.send(trial.connect_packet(trial.client_id(), will=Will("", b"will")))
    answer = expect.not_accepted(raw)
    if answer:
        trial.warn(f"an empty will topic is answered with {answer}; the connection should just be closed")


# 3.1.4 Response


MALFORMED: dict[str, Callable[[Trial], bytes]] = {
    "header flags 1": lambda trial: trial.connect_packet(trial.client_id(), header_flags=1),
    "header flags 2": lambda trial: trial.connect_packet(trial.client_id(), header_flags=2),
    "header flags 8": lambda trial: trial.connect_packet(trial.client_id(), header_flags=8),
    "reserved flag": lambda trial: trial.connect_packet(trial.client_id(), toggle=1),
    "no connect flags": lambda trial: packets.frame(packets.CONNECT, 0, packets.string("MQTT") + b"\4"),
    "no keep alive": lambda trial: packets.frame(packets.CONNECT, 0, packets.string("MQTT") + b"\4\2"),
    "half a keep alive": lambda trial: packets.frame(packets.CONNECT, 0, packets.string("MQTT") + b"\4\2\0"),
    "one byte too many": lambda trial: trial.connect_packet(trial.client_id(), extra=b"\0"),
    "many bytes too many": lambda trial: trial.connect_packet(trial.client_id(), extra=bytes(1000)),
    "will message too long": lambda trial: packets.connect(
        trial.client_id(), flags=0b110, extra=packets.string("topic") + u16(65535) + b"x"
    ),
    "bytes after the password": lambda trial: packets.connect(
        trial.client_id(),
        username=trial.broker.main.username or "user",
        password=trial.broker.main.password or "password",
        extra=b"\0",
    ),
}


@verifies("MQTT-3.1.4-1")
@pytest.mark.parametrize("malformed", MALFORMED.values(), ids=MALFORMED)
def test_malformed_connect(trial: Trial, malformed: Callable[[Trial], bytes]) -> None:
    """A CONNECT that is not as it must be ends the connection, without a CONNACK."""
    raw = trial.raw()
    raw.send(malformed(trial))
    expect.dropped(raw, after="a malformed CONNECT")


#: Of these a broker cannot know that they are meant as MQTT 3.1.1.
BEFORE_THE_LEVEL = {
    "empty": packets.frame(packets.CONNECT, 0),
    "one byte": packets.frame(packets.CONNECT, 0, b"\0"),
    "half a name": packets.frame(packets.CONNECT, 0, u16(4) + b"MQ"),
    "only a name": packets.frame(packets.CONNECT, 0, packets.string("MQTT")),
    "length of five bytes": b"\x10\xff\xff\xff\xff\x7f",
}


@verifies("MQTT-3.1.4-1", "MQTT-4.8.0-1")
@pytest.mark.parametrize("malformed", BEFORE_THE_LEVEL.values(), ids=BEFORE_THE_LEVEL)
def test_connect_that_ends_too_early(trial: Trial, malformed: bytes) -> None:
    """A CONNECT that ends before its protocol level ends the connection."""
    raw = trial.raw()
    raw.send(malformed)
    flows.ends_unconnected(trial, raw, "a CONNECT that ends before its protocol level")
    for answer in raw.unread:
        expect.that(getattr(answer, "code", 1) != 0, "the broker does not accept it", str(answer))
        trial.warn(f"a CONNECT without a protocol level is answered with {answer}; it should be dropped")


@verifies("MQTT-3.1.4-1")
def test_malformed_connect_disturbs_nobody(trial: Trial) -> None:
    """A malformed CONNECT under the ClientId of a live client does not end that client's connection."""
    live = trial.raw("live")
    client_id = trial.client_id()
    live.connect(client_id)
    raw = trial.raw("malformed")
    raw.send(trial.connect_packet(client_id, will=Will(trial.topic(), b"will", 3)))
    expect.dropped(raw, after="a malformed CONNECT")
    try:
        live.ping()
    except Inconclusive:
        trial.warn("a CONNECT that was dropped as malformed has ended the connection of a live client")


@verifies("MQTT-3.1.4-2")
@pytest.mark.parametrize("second_clean", [True, False], ids=["then clean", "then persistent"])
@pytest.mark.parametrize("first_clean", [True, False], ids=["clean", "persistent"])
def test_second_login_evicts_the_first(trial: Trial, first_clean: bool, second_clean: bool) -> None:
    """A login under the ClientId of a live client ends the connection of that client, and is served in its place."""
    client_id = trial.client_id()
    first = trial.raw("first")
    first.connect(client_id, clean=first_clean)
    second = trial.raw("second")
    second.send(trial.connect_packet(client_id, clean=second_clean))
    expect.closed(first, after="another login under its ClientId")
    second.take(packets.CONNACK)
    expect.alive(second, after="the end of the first connection")


@verifies("MQTT-3.1.4-2")
def test_many_logins_leave_the_last(trial: Trial) -> None:
    """Of many logins under one ClientId exactly the last one stays."""
    client_id = trial.client_id()
    raws = []
    for number in range(8):
        raw = trial.raw(f"login {number}")
        raw.connect(client_id)
        raws.append(raw)
    for raw in raws[:-1]:
        expect.closed(raw, after="another login under its ClientId")
    expect.alive(raws[-1], after="the end of the others")


@verifies("MQTT-3.1.4-2")
def test_eviction_spares_other_clients(trial: Trial) -> None:
    """A login evicts no client but the one with the same ClientId."""
    base = trial.client_id(18)
    others = []
    for similar in (base + "a", base + "A", base, base + "ab"):
        raw = trial.raw(f"client {similar[-2:]}")
        raw.connect(similar)
        others.append(raw)
    trial.raw("again").connect(base + "a")
    expect.closed(others[0], after="another login under its ClientId")
    for raw in others[1:]:
        expect.alive(raw, after="the login of a client with a similar ClientId")


@verifies("MQTT-3.1.4-3", "MQTT-3.1.2-4")
def test_takeover_resumes_the_session(trial: Trial) -> None:
    """A second login with CleanSession = 0 takes over the session of the live client that it evicts."""
    client_id, topic = trial.client_id(), trial.topic()
    first = trial.raw("first")
    first.connect(client_id, clean=False)
    first.subscribe(topic, 1)
    second = trial.client("second", client_id=client_id, clean=False)
    trial.client("publisher").publish(topic, b"for the session", 1)
    expect.message(second, topic=topic, payload=b"for the session")


@verifies("MQTT-3.1.4-3", "MQTT-3.1.2-6")
def test_takeover_discards_the_session(trial: Trial) -> None:
    """A second login with CleanSession = 1 discards the session of the live client that it evicts."""
    client_id, topic, control = trial.client_id(), trial.topic(), trial.topic("control")
    first = trial.raw("first")
    first.connect(client_id, clean=False)
    first.subscribe(topic, 1)
    second = trial.client("second", client_id=client_id)
    second.subscribe(control, 1)
    publisher = trial.client("publisher")
    publisher.publish(topic, b"for the old session", 1)
    expect.silence(second, publisher, control, 1, about="a message for the discarded session")


@verifies("MQTT-3.1.4-4")
@both_sessions
@pytest.mark.parametrize("retain", [False, True], ids=["normal", "retained"])
@every_qos
def test_connect_with_a_will_is_accepted(trial: Trial, qos: int, retain: bool, clean: bool) -> None:
    """A valid CONNECT with a will of any QoS, retained or not, is acknowledged with return code 0."""
    raw = trial.raw()
    raw.send(trial.connect_packet(trial.client_id(), clean=clean, will=Will(trial.topic(), b"will", qos, retain)))
    expect.connack(raw)
    raw.disconnect()


@verifies("MQTT-3.1.4-4")
@pytest.mark.parametrize("keep_alive", [1, 10, 255, 256, 32767, 32768, 65535])
def test_connect_with_any_keep_alive_is_accepted(trial: Trial, keep_alive: int) -> None:
    """A valid CONNECT with any keep alive above zero is acknowledged with return code 0."""
    raw = trial.raw()
    raw.send(trial.connect_packet(trial.client_id(), keep_alive=keep_alive))
    expect.connack(raw)
    expect.alive(raw, after="the CONNACK")


@verifies("MQTT-3.1.4-4")
def test_connect_byte_by_byte(trial: Trial) -> None:
    """A CONNECT that arrives in pieces is acknowledged as one that arrives whole."""
    raw, other = trial.raw(), trial.connected("other")
    for byte in trial.connect_packet(trial.client_id(), will=Will(trial.topic(), b"will", 1)):
        raw.send(bytes([byte]))
        other.ping()  # so that the broker has read the byte by itself
    expect.connack(raw)
    raw.disconnect()


@verifies("3.1.4/early-packets")
def test_packets_right_behind_connect(trial: Trial) -> None:
    """A client need not wait for the CONNACK: what it sends right behind its CONNECT is served after it."""
    raw, topic = trial.raw(), trial.topic()
    raw.send(
        trial.connect_packet(trial.client_id()),
        packets.subscribe(1, (topic, 1)),
        packets.publish(topic, b"early", qos=1, packet_id=2),
        packets.pingreq(),
    )
    raw.take(packets.CONNACK)
    expect.packet(raw, packets.SUBACK, packet_id=1)
    expect.message(raw, topic=topic, payload=b"early")
    expect.packet(raw, packets.PUBACK, packet_id=2)
    expect.packet(raw, packets.PINGRESP)


REFUSALS: dict[str, Callable[[Trial], bytes]] = {
    "unknown level": lambda trial: trial.connect_packet(trial.client_id(), level=64),
    "empty id without clean session": lambda trial: trial.connect_packet("", clean=False),
    "malformed": lambda trial: trial.connect_packet(trial.client_id(), toggle=1),
}


def require_rejected(raw: Raw) -> None:
    """Waits for the end of a connection whose CONNECT must be rejected. Other tests judge that it is."""
    raw.wait_closed()
    if any(isinstance(packet, Connack) and packet.code == 0 for packet in raw.unread):
        raise Inconclusive("the CONNECT was accepted, although it must be rejected")


@verifies("MQTT-3.1.4-5")
@every_qos
@pytest.mark.parametrize("refused", REFUSALS.values(), ids=REFUSALS)
def test_publish_behind_a_refused_connect(trial: Trial, refused: Callable[[Trial], bytes], qos: int) -> None:
    """What a client has published behind a CONNECT that is rejected reaches nobody."""
    topic = trial.topic()
    watcher = trial.subscriber(topic, trial.highest_qos, name="watcher")
    raw = trial.raw()
    publish = packets.publish(topic, b"not to be seen", qos=qos, packet_id=1 if qos else None)
    raw.send(refused(trial), publish, packets.pubrel(1) if qos == 2 else b"")
    require_rejected(raw)
    about = "a message behind a CONNECT that was rejected"
    expect.silence(watcher, trial.client("control"), topic, trial.highest_qos, about=about)


@verifies("MQTT-3.1.4-5")
@needs("retained")
@pytest.mark.parametrize("refused", REFUSALS.values(), ids=REFUSALS)
def test_retained_publish_behind_a_refused_connect(trial: Trial, refused: Callable[[Trial], bytes]) -> None:
    """What a client has published behind a CONNECT that is rejected is not retained."""
    topic = trial.topic()
    raw = trial.raw()
    raw.send(refused(trial), packets.publish(topic, b"not to be kept", qos=1, packet_id=1, retain=True))
    require_rejected(raw)
    later = trial.subscriber(topic, 1, name="later")
    expect.silence(later, trial.client("control"), topic, 1, about="a retained message behind a rejected CONNECT")


@verifies("MQTT-3.1.4-5")
@pytest.mark.parametrize("refused", REFUSALS.values(), ids=REFUSALS)
def test_requests_behind_a_refused_connect(trial: Trial, refused: Callable[[Trial], bytes]) -> None:
    """Requests behind a CONNECT that is rejected are not answered."""
    raw = trial.raw()
    raw.send(refused(trial), packets.subscribe(1, (trial.topic(), 1)), packets.unsubscribe(2, trial.topic()))
    raw.send(packets.pingreq())
    require_rejected(raw)
    answers = [packet for packet in raw.unread if packet.kind != packets.CONNACK]
    expect.that(not answers, "no answer behind a rejected CONNECT", ", ".join(map(str, answers)))


@verifies("MQTT-3.1.4-5")
@needs("authenticated")
@every_qos
def test_publish_behind_a_wrong_password(trial: Trial, qos: int) -> None:
    """What a client has published behind a CONNECT whose password is wrong reaches nobody."""
    topic = trial.topic()
    watcher = trial.subscriber(topic, trial.highest_qos, name="watcher", endpoint="authenticated")
    raw = trial.raw(endpoint="authenticated")
    raw.send(
        packets.connect(trial.client_id(), username=raw.endpoint.username, password="wrong password"),
        packets.publish(topic, b"not to be seen", qos=qos, packet_id=1 if qos else None),
    )
    require_rejected(raw)
    control = trial.client("control", "authenticated")
    about = "a message behind a CONNECT whose password is wrong"
    expect.silence(watcher, control, topic, trial.highest_qos, about=about)


@verifies("3.1.4/refused-closes")
@needs("authenticated")
@pytest.mark.parametrize("credentials", ["wrong password", "unknown user", "none", "no password"])
def test_refused_client_is_disconnected(trial: Trial, credentials: str) -> None:
    """A client that fails authentication gets its connection closed."""
    raw = trial.raw(endpoint="authenticated")
    username: str | None = raw.endpoint.username
    password: str | None = raw.endpoint.password
    if credentials == "wrong password":
        password = "wrong password"
    elif credentials == "unknown user":
        username = trial.client_id()
    elif credentials == "no password":
        password = None
    else:
        username = password = None
    raw.send(packets.connect(trial.client_id(), username=username, password=password))
    expect.not_accepted(raw)


@verifies("3.1.4/evict-after-checks")
@needs("authenticated")
@both_sessions
def test_failed_login_evicts_nobody(trial: Trial, clean: bool) -> None:
    """A login that fails authentication does not end the connection of the live client whose ClientId it names."""
    client_id = trial.client_id()
    live = trial.raw("live", endpoint="authenticated")
    live.connect(client_id, clean=clean)
    intruder = trial.raw("intruder", endpoint="authenticated")
    intruder.send(
        packets.connect(client_id, clean=clean, username=intruder.endpoint.username, password="wrong password")
    )
    require_rejected(intruder)
    try:
        live.ping()
    except Inconclusive:
        trial.warn("anybody who knows the ClientId of a live client can end its connection, without a password")
