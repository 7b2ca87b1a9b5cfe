"""3.8 SUBSCRIBE: requests for subscriptions, and what follows from them."""

from collections.abc import Callable, Sequence

import pytest

from .. import expect, packets
from ..clients import Client
from ..marks import needs, verifies
from ..packets import Publish, Suback
from ..raw import Closed, Raw
from ..trial import Trial
from ..verdicts import Failure, Inconclusive, NotApplicable

every_qos = pytest.mark.parametrize("qos", [0, 1, 2])


def granted(trial: Trial, raw: Raw, *filters: tuple[str, int]) -> None:
    """One SUBSCRIBE to all of these filters. Ends the test unless each is granted as it was requested."""
    packet_id = raw.new_packet_id()
    raw.send(packets.subscribe(packet_id, *filters))
    answer = raw.take(packets.SUBACK)
    if not isinstance(answer, Suback) or answer.codes != tuple(qos for _, qos in filters):
        raise Inconclusive(f"a SUBSCRIBE to {len(filters)} filters was answered with {answer}")


def one_message(found: list[Publish], qos: int, expected: str) -> Publish:
    """The only message of those that came before the control. With QoS 0 none need come."""
    if not found and qos == 0:
        raise Inconclusive("a message was not delivered, which may happen with QoS 0")
    expect.that(len(found) == 1, expected, f"{len(found)} came: {', '.join(map(str, found)) or 'none'}")
    return found[0]


def granted_last(client: Client, trial: Trial, topic: str, qos: int) -> None:
    """The client gets a message of QoS 2 once, with the QoS that it was granted last."""
    publisher = trial.client("publisher")
    publisher.publish(topic, b"once", 2)
    found = expect.until_control(client, publisher, topic, 2)
    expected = f"one message of QoS {qos}, as it was granted last"
    expect.that(one_message(found, qos, expected).qos == qos, expected, ", ".join(map(str, found)))


# 3.8.1 Fixed header


@verifies("MQTT-3.8.1-1")
@pytest.mark.parametrize("flags", [flags for flags in range(16) if flags != 0b0010], ids="{:04b}".format)
def test_header_flags(trial: Trial, flags: int) -> None:
    """A SUBSCRIBE whose header flags are not 0010 gets the client disconnected."""
    raw = trial.connected()
    raw.send(packets.subscribe(1, (trial.topic(), 0), flags=flags))
    expect.closed(raw, after="a SUBSCRIBE with wrong header flags")


# 3.8.3 Payload


@verifies("MQTT-3.8.3-2")
@pytest.mark.parametrize("name", ["+", "#", "a/+/c", "a/#", "+/b/#"])
def test_wildcards_work_or_are_refused(trial: Trial, name: str) -> None:
    """A filter with wildcards is refused, unless the broker sends the messages that it matches."""
    raw = trial.connected()
    raw.send(packets.subscribe(1, (trial.topic(name), 1)))
    try:
        answer = raw.take(packets.SUBACK)
    except Closed:
        return
    if isinstance(answer, Suback) and answer.codes == (packets.SUBSCRIBE_FAILURE,):
        return
    matched = trial.topic(name.replace("+", "a" if name[0] == "+" else "b").replace("#", "c/d"))
    trial.client("publisher").publish(matched, b"matched", 1)
    expect.message(raw, topic=matched, payload=b"matched")


@verifies("3.8.3/wildcards")
@pytest.mark.parametrize("name", ["+", "#", "a/+/c", "a/#", "+/b/#"])
def test_wildcards_are_granted(trial: Trial, name: str) -> None:
    """Filters with wildcards are granted."""
    raw = trial.connected()
    raw.send(packets.subscribe(1, (trial.topic(name), 0)))
    try:
        answer = raw.take(packets.SUBACK)
    except Closed:
        trial.warn("a filter with wildcards ends the connection: the broker seems not to support them")
        return
    if not isinstance(answer, Suback) or answer.codes != (0,):
        trial.warn(f"a filter with wildcards is answered with {answer}: the broker seems not to support them")


@verifies("MQTT-3.8.3-3", "MQTT-4.8.0-1")
@pytest.mark.parametrize("packet_id", [1, 65535])
def test_no_filter(trial: Trial, packet_id: int) -> None:
    """A SUBSCRIBE without a filter gets the client disconnected."""
    raw = trial.connected()
    raw.send(packets.subscribe(packet_id))
    expect.closed(raw, after="a SUBSCRIBE without a filter")


INCOMPLETE: dict[str, Callable[[str], bytes]] = {
    "nothing": lambda topic: b"",
    "half a packet id": lambda topic: b"\0",
    "half a length": lambda topic: b"\0\1\0",
    "length without a filter": lambda topic: b"\0\1\0\5",
    "filter cut short": lambda topic: b"\0\1" + packets.string(topic)[:-1],
    "filter without a QoS": lambda topic: b"\0\1" + packets.string(topic),
    "second filter cut short": lambda topic: b"\0\1" + packets.string(topic) + b"\0" + packets.string(topic)[:-1],
    "second filter without a QoS": lambda topic: b"\0\1" + packets.string(topic) + b"\0" + packets.string(topic),
    "one byte behind": lambda topic: b"\0\1" + packets.string(topic) + b"\0\0",
}


@verifies("MQTT-4.8.0-1")
@pytest.mark.parametrize("body", INCOMPLETE.values(), ids=INCOMPLETE)
def test_incomplete_subscribe(trial: Trial, body: Callable[[str], bytes]) -> None:
    """A SUBSCRIBE that ends within a field gets the client disconnected."""
    raw = trial.connected()
    raw.send(packets.frame(packets.SUBSCRIBE, 0b0010, body(trial.topic())))
    expect.closed(raw, after="a SUBSCRIBE that ends within a field")


REQUESTED = [3, *(1 << bit | qos for bit in range(2, 8) for qos in range(4)), 0xFC, 0xFF]


@verifies("MQTT-3.8.3-4")
@pytest.mark.parametrize("requested", REQUESTED, ids="{:#04x}".format)
def test_requested_qos(trial: Trial, requested: int) -> None:
    """A requested QoS of 3, or a reserved bit beside the QoS, gets the client disconnected."""
    raw = trial.connected()
    raw.send(packets.subscribe(1, (trial.topic(), requested)))
    expect.closed(raw, after=f"a requested QoS of {requested:#04x}")


@verifies("MQTT-3.8.3-4")
@pytest.mark.parametrize("place", [0, 1, 2], ids=["first", "second", "third"])
@pytest.mark.parametrize("requested", [3, 0x04, 0x81], ids="{:#04x}".format)
def test_requested_qos_of_several(trial: Trial, requested: int, place: int) -> None:
    """A wrong requested QoS in any place of a SUBSCRIBE gets the client disconnected."""
    raw = trial.connected()
    filters = [(trial.topic(f"{number}"), requested if number == place else number % 3) for number in range(3)]
    raw.send(packets.subscribe(1, *filters))
    expect.closed(raw, after=f"a requested QoS of {requested:#04x}")


# 3.8.4 Response: SUBACK


#: Filters that are right, of every kind.
FILTERS = {
    "levels": "a/b/c",
    "plus": "+/a/+",
    "hash": "a/#",
    "empty levels": "//a//",
    "spaces": " a / b ",
    "two-byte characters": "ä/ß",
    "three-byte characters": "日本/\ud7ff/\ue000/\ufffd",
    "four-byte characters": "\U00010000/\U0001f600/\U0010fffd",
    "unusual characters": "$/*/>/\\/%2F/~/..",
    "long": "a" * 1000,
    "many levels": "/".join("abcdefghijklmnopqrst"),
}


@verifies("MQTT-3.8.4-1")
@pytest.mark.parametrize("name", FILTERS.values(), ids=FILTERS)
@every_qos
def test_subscribe_is_answered(trial: Trial, name: str, qos: int) -> None:
    """A SUBSCRIBE is answered with a SUBACK."""
    raw = trial.connected()
    raw.send(packets.subscribe(1, (trial.topic(name), qos)))
    expect.packet(raw, packets.SUBACK)


@verifies("MQTT-3.8.4-1")
@pytest.mark.parametrize("topic_filter", ["/", "//", "+", "+/+", "/+", "/#", "$SYS/#", "$SYS/+", "$", "$x/y"])
def test_subscribe_to_the_top_is_answered(trial: Trial, topic_filter: str) -> None:
    """A SUBSCRIBE to a filter from the top of the topics is answered with a SUBACK."""
    raw = trial.connected()
    raw.send(packets.subscribe(1, (topic_filter, 0)))
    expect.packet(raw, packets.SUBACK)


@verifies("MQTT-3.8.4-1", "MQTT-3.8.4-2", "MQTT-2.3.1-7")
@pytest.mark.parametrize("known", [False, True], ids=["different filters", "same filter"])
def test_every_subscribe_is_answered(trial: Trial, known: bool) -> None:
    """Each of many SUBSCRIBEs that come together is answered with a SUBACK of its own."""
    raw = trial.connected()
    packet_ids = list(range(1, 101))
    raw.send(*(packets.subscribe(number, (trial.topic("x" if known else f"{number}"), 0)) for number in packet_ids))
    answered = sorted(getattr(expect.packet(raw, packets.SUBACK), "packet_id", 0) for _ in packet_ids)
    expect.equal(answered, packet_ids, "the Packet Identifiers of the SUBACKs")


@verifies("MQTT-3.8.4-2", "MQTT-2.3.1-7")
@pytest.mark.parametrize("packet_id", [1, 2, 127, 128, 255, 256, 257, 32767, 32768, 65534, 65535])
def test_suback_packet_id(trial: Trial, packet_id: int) -> None:
    """A SUBACK has the Packet Identifier of its SUBSCRIBE."""
    raw = trial.connected()
    raw.send(packets.subscribe(packet_id, (trial.topic(), 0)))
    expect.packet(raw, packets.SUBACK, packet_id=packet_id)


@verifies("MQTT-3.8.4-2", "MQTT-2.3.1-7")
@needs("qos-1")
@pytest.mark.parametrize("qos", [1, 2])
def test_suback_packet_id_beside_a_message(trial: Trial, qos: int) -> None:
    """A SUBSCRIBE may have the Packet Identifier that the broker uses for a message under way to the client."""
    raw, topic = trial.connected(), trial.topic()
    raw.subscribe(topic, qos)
    trial.client("publisher").publish(topic, b"under way", qos)
    message = raw.take(packets.PUBLISH)
    packet_id = getattr(message, "packet_id", None) or 1
    raw.send(packets.subscribe(packet_id, (trial.topic("other"), qos)))
    expect.packet(raw, packets.SUBACK, packet_id=packet_id)


# 3.8.4 Response: a subscription that is replaced


@verifies("MQTT-3.8.4-3")
@pytest.mark.parametrize("first", [0, 1, 2])
@pytest.mark.parametrize("second", [0, 1, 2])
def test_subscription_is_replaced(trial: Trial, first: int, second: int) -> None:
    """A SUBSCRIBE to the same filter replaces the subscription: one message, with the QoS that was granted last."""
    topic = trial.topic()
    client = trial.client("subscriber")
    client.subscribe(topic, first)
    last = client.subscribe(topic, second)
    granted_last(client, trial, topic, last)


@verifies("MQTT-3.8.4-3")
@needs("wildcards")
@pytest.mark.parametrize("name", ["+", "#", "+/#"])
def test_subscription_with_wildcards_is_replaced(trial: Trial, name: str) -> None:
    """A SUBSCRIBE to the same filter replaces a subscription with wildcards, however often it comes."""
    client = trial.client("subscriber")
    for qos in (2, 1, 2, 0, 2):
        client.subscribe(trial.topic(name), qos)
    publisher = trial.client("publisher")
    publisher.publish(trial.topic("a"), b"once", 2)
    found = expect.until_control(client, publisher, trial.topic("b"), 2)
    one_message(found, 2, "one message, although the filter was subscribed to five times")


@verifies("MQTT-3.8.4-3")
@pytest.mark.parametrize(("first", "second"), [(0, 2), (1, 0), (1, 2), (2, 1)])
def test_resumed_subscription_is_replaced(trial: Trial, first: int, second: int) -> None:
    """A SUBSCRIBE to the same filter replaces a subscription that a resumed session has brought with it."""
    client_id, topic = trial.client_id(), trial.topic()
    client = trial.client("before", client_id=client_id, clean=False)
    client.subscribe(topic, first)
    client.disconnect()
    again = trial.client("again", client_id=client_id, clean=False)
    last = again.subscribe(topic, second)
    granted_last(again, trial, topic, last)


@verifies("MQTT-3.8.4-3")
@needs("retained")
@pytest.mark.parametrize("first", [0, 1, 2])
@pytest.mark.parametrize("second", [1, 2])
def test_retained_message_is_sent_again(trial: Trial, first: int, second: int) -> None:
    """A SUBSCRIBE to the same filter brings the retained message again."""
    topic = trial.topic()
    trial.client("publisher").publish(topic, b"kept", 1, retain=True)
    client = trial.client("subscriber")
    client.subscribe(topic, first)
    client.next_message()
    for _ in range(3):
        client.subscribe(topic, second)
        expect.message(client, topic=topic, payload=b"kept")


@verifies("MQTT-3.8.4-3")
@needs("retained", "wildcards")
def test_retained_messages_are_sent_again(trial: Trial) -> None:
    """A SUBSCRIBE to the same filter with wildcards brings every retained message that it matches again."""
    payloads = [f"kept {number}".encode() for number in range(5)]
    publisher = trial.client("publisher")
    for payload in payloads:
        publisher.publish(trial.topic(payload.decode()), payload, 1, retain=True)
    client = trial.client("subscriber")
    client.subscribe(trial.topic("#"), 1)
    for _ in payloads:
        client.next_message()
    client.subscribe(trial.topic("#"), 1)
    expect.messages(client, payloads)


@verifies("MQTT-3.8.4-3")
@needs("retained")
def test_latest_retained_message_is_sent_again(trial: Trial) -> None:
    """A SUBSCRIBE to the same filter brings the retained message that there is by now."""
    topic = trial.topic()
    publisher = trial.client("publisher")
    publisher.publish(topic, b"old", 1, retain=True)
    client = trial.client("subscriber")
    client.subscribe(topic, 1)
    client.next_message()
    publisher.publish(topic, b"new", 1, retain=True)
    client.next_message()
    client.subscribe(topic, 1)
    expect.message(client, topic=topic, payload=b"new")


@verifies("MQTT-3.8.4-3")
@needs("retained")
def test_retained_message_is_sent_to_a_resumed_session(trial: Trial) -> None:
    """A SUBSCRIBE to a filter that the resumed session has already brings the retained message."""
    client_id, topic = trial.client_id(), trial.topic()
    before = trial.client("before", client_id=client_id, clean=False)
    before.subscribe(topic, 0)
    before.disconnect()
    trial.client("publisher").publish(topic, b"kept", 0, retain=True)
    trial.subscriber(topic, 1, name="witness").next_message()
    again = trial.client("again", client_id=client_id, clean=False)
    again.subscribe(topic, 0)
    expect.message(again, topic=topic, payload=b"kept")


@verifies("MQTT-3.8.4-3")
@pytest.mark.parametrize("qos", [1, 2])
def test_flow_is_not_interrupted(trial: Trial, qos: int) -> None:
    """No message is lost while its subscription is replaced, again and again."""
    trial.require(f"qos-{qos}")
    topic = trial.topic()
    subscriber, publisher = trial.connected("subscriber"), trial.connected("publisher")
    subscriber.subscribe(topic, qos)
    payloads = [f"message {number}".encode() for number in range(100)]
    for number, payload in enumerate(payloads, 1):
        if number % 5 == 3:
            subscriber.send(packets.subscribe(1000 + number, (topic, qos)))
        publisher.send(packets.publish(topic, payload, qos=1, packet_id=number))
        if number % 5 == 0:
            subscriber.take(packets.SUBACK)  # or all of them might be read before the first message
    expect.messages(subscriber, payloads)


# 3.8.4 Response: several filters


@verifies("MQTT-3.8.4-4", "MQTT-3.8.4-5")
@every_qos
@pytest.mark.parametrize("count", [2, 10, 100])
def test_one_suback_for_several_filters(trial: Trial, count: int, qos: int) -> None:
    """A SUBSCRIBE with several filters is answered with one SUBACK, with a return code for each."""
    raw = trial.connected()
    raw.send(packets.subscribe(7, *((trial.topic(f"{number}"), qos) for number in range(count))), packets.pingreq())
    answer = expect.packet(raw, packets.SUBACK)
    assert isinstance(answer, Suback)
    expect.equal(len(answer.codes), count, "the number of return codes")
    raw.take(packets.PINGRESP)
    others = [packet for packet in raw.unread if packet.kind == packets.SUBACK]
    expect.that(not others, "one SUBACK", f"another came: {', '.join(map(str, others))}")


@verifies("MQTT-3.8.4-4")
@needs("qos-1")
@pytest.mark.parametrize("count", [2, 10, 100])
def test_several_filters_are_subscribed(trial: Trial, count: int) -> None:
    """Each filter of a SUBSCRIBE becomes a subscription."""
    raw = trial.connected()
    topics = [trial.topic(f"{number}") for number in range(count)]
    granted(trial, raw, *((topic, 1) for topic in topics))
    publisher = trial.client("publisher")
    for topic in topics:
        publisher.publish(topic, topic.encode(), 1)
    expect.messages(raw, [topic.encode() for topic in topics])


@verifies("MQTT-3.8.4-4")
@needs("qos-2")
def test_several_filters_have_their_own_qos(trial: Trial) -> None:
    """Each filter of a SUBSCRIBE gets the QoS that goes with it."""
    raw = trial.connected()
    filters = [(trial.topic(f"{number}"), number % 3) for number in range(6)]
    granted(trial, raw, *filters)
    publisher = trial.client("publisher")
    for topic, qos in filters:
        publisher.publish(topic, b"message", 2)
        message = raw.next_message()
        expect.equal((message.topic, message.qos), (topic, qos), "topic and QoS of the message")


@verifies("MQTT-3.8.4-4")
@needs("qos-2")
@pytest.mark.parametrize("wanted", [(0, 2), (2, 0), (1, 2), (2, 1), (0, 1, 2), (2, 1, 0)], ids=str)
def test_equal_filters_in_one_subscribe(trial: Trial, wanted: Sequence[int]) -> None:
    """Of equal filters in one SUBSCRIBE the last one counts, as if they had come one after the other."""
    publisher = trial.client("publisher")
    raw, topic = trial.connected(), trial.topic()
    granted(trial, raw, *((topic, qos) for qos in wanted))
    publisher.publish(topic, b"once", 2)
    found = expect.until_control(raw, publisher, topic, 2)
    expected = f"one message of QoS {wanted[-1]}, as it was granted last"
    try:
        expect.that(one_message(found, wanted[-1], expected).qos == wanted[-1], expected, ", ".join(map(str, found)))
    except Failure:
        raw, topic = trial.connected("one by one"), trial.topic("one by one")
        for qos in wanted:
            granted(trial, raw, (topic, qos))
        publisher.publish(topic, b"once", 2)
        in_turn = expect.until_control(raw, publisher, topic, 2)
        if [message.qos for message in in_turn] == [message.qos for message in found]:
            raise Inconclusive("that is wrong, but the same is done with one SUBSCRIBE after the other") from None
        raise


@verifies("MQTT-3.8.4-4")
@needs("retained", "qos-1")
def test_retained_messages_for_several_filters(trial: Trial) -> None:
    """Each filter of a SUBSCRIBE brings the retained messages that it matches."""
    topics = [trial.topic(f"{number}") for number in range(5)]
    publisher = trial.client("publisher")
    for topic in topics:
        publisher.publish(topic, topic.encode(), 1, retain=True)
    raw = trial.connected()
    granted(trial, raw, *((topic, 1) for topic in topics))
    expect.messages(raw, [topic.encode() for topic in topics])


# 3.8.4 Response: the return codes, and the QoS of what is sent


@verifies("MQTT-3.8.4-5")
@pytest.mark.parametrize("count", [2, 10])
def test_return_code_for_each_of_equal_filters(trial: Trial, count: int) -> None:
    """A SUBACK has a return code for each filter, those included that the SUBSCRIBE names more than once."""
    raw, topic = trial.connected(), trial.topic()
    raw.send(packets.subscribe(1, *((topic, number % 2) for number in range(count))))
    answer = raw.take(packets.SUBACK)
    assert isinstance(answer, Suback)
    expect.equal(len(answer.codes), count, "the number of return codes for equal filters")


@verifies("MQTT-3.8.4-5")
@every_qos
@needs("wildcards")
@pytest.mark.parametrize("name", ["a", "+", "#"], ids=["literal", "plus", "hash"])
def test_return_code(trial: Trial, name: str, qos: int) -> None:
    """A SUBACK has a return code for the filter: the QoS that was granted, which is not above the requested one."""
    raw = trial.connected()
    raw.send(packets.subscribe(1, (trial.topic(name), qos)))
    answer = expect.packet(raw, packets.SUBACK)
    assert isinstance(answer, Suback)
    allowed = [*range(qos + 1), packets.SUBSCRIBE_FAILURE]
    expected = f"SUBACK with one return code, of {', '.join(map(hex, allowed))}"
    expect.that(len(answer.codes) == 1 and answer.codes[0] in allowed, expected, str(answer))
    if answer.codes != (qos,):
        trial.note(f"QoS {qos} was requested: {answer}")


def forbidden_filter(trial: Trial) -> str:
    found = trial.endpoint("acl").subscribe_forbidden
    if found is None:
        raise Inconclusive("the profile would need subscribe_forbidden under [endpoints.acl]")
    return found


@verifies("MQTT-3.8.4-5")
@needs("acl")
@every_qos
def test_return_code_of_a_forbidden_filter(trial: Trial, qos: int) -> None:
    """A subscription that the client may not have is shown as failed."""
    raw = trial.connected(endpoint="acl")
    raw.send(packets.subscribe(1, (forbidden_filter(trial), qos)))
    try:
        answer = expect.packet(raw, packets.SUBACK)
    except Failure:
        if not raw.closed:
            raise
        trial.warn("the connection is closed; a SUBACK with 0x80 would say that the subscription failed")
        return
    assert isinstance(answer, Suback)
    expect.equal(len(answer.codes), 1, "the number of return codes")
    if answer.codes[0] == packets.SUBSCRIBE_FAILURE:
        return
    expect.that(answer.codes[0] <= qos, f"SUBACK with QoS {qos} at most, or 0x80", str(answer))
    trial.warn(f"{answer}: the subscription counts as granted, although it brings nothing by the profile")


@verifies("MQTT-3.8.4-5", "MQTT-3.8.4-4", "MQTT-3.9.3-1")
@needs("acl", "qos-1")
@pytest.mark.parametrize("place", [0, 1, 2], ids=["first", "second", "third"])
def test_forbidden_filter_among_others(trial: Trial, place: int) -> None:
    """One filter of several that is refused has the failure in its place, and the others work."""
    raw = trial.connected(endpoint="acl")
    topics = [trial.topic("a"), trial.topic("b")]
    filters = [(topic, 1) for topic in topics]
    filters.insert(place, (forbidden_filter(trial), 1))
    raw.send(packets.subscribe(1, *filters))
    answer = raw.take(packets.SUBACK)
    if isinstance(answer, Suback) and answer.codes == (1, 1, 1):
        raise NotApplicable(f"the broker refuses no subscription on its endpoint `acl`: {answer}")
    codes = [1, 1]
    codes.insert(place, packets.SUBSCRIBE_FAILURE)
    expect.that(isinstance(answer, Suback) and answer.codes == tuple(codes), f"SUBACK with {codes}", str(answer))
    publisher = trial.client("publisher", "acl")
    for topic in topics:
        publisher.publish(topic, topic.encode(), 1)
    expect.messages(raw, [topic.encode() for topic in topics])


def literal(topic: str) -> str:
    return topic


def plus(topic: str) -> str:
    return topic.rpartition("/")[0] + "/+"


@verifies("MQTT-3.8.4-6")
@every_qos
@pytest.mark.parametrize("requested", [0, 1, 2])
@pytest.mark.parametrize("filter_of", [literal, pytest.param(plus, marks=needs("wildcards"))])
def test_message_qos(trial: Trial, filter_of: Callable[[str], str], requested: int, qos: int) -> None:
    """A message is delivered with the lower one of its own QoS and the granted QoS."""
    topic = trial.topic()
    client = trial.client("subscriber")
    most = client.subscribe(filter_of(topic), requested)
    trial.client("publisher").publish(topic, b"message", qos)
    expect.equal(client.next_message().qos, min(qos, most), f"the QoS of a message of QoS {qos}, QoS {most} granted")


@verifies("MQTT-3.8.4-6")
@needs("retained")
@every_qos
@pytest.mark.parametrize("requested", [0, 1, 2])
def test_retained_message_qos(trial: Trial, requested: int, qos: int) -> None:
    """A retained message is sent with the lower one of its own QoS and the granted QoS."""
    topic = trial.topic()
    publisher = trial.connected("publisher")
    publisher.publish(topic, b"kept", qos, retain=True)
    publisher.ping()
    client = trial.client("subscriber")
    most = client.subscribe(topic, requested)
    # The control has the highest QoS, or paho-mqtt would be told of it before the end of a handshake for QoS 2.
    found = [message.qos for message in expect.until_control(client, publisher, topic, trial.highest_qos)]
    if not found:
        raise Inconclusive("the retained message has not come")
    # Some brokers send it at QoS 0 before it was subscribed to, too.
    expect.equal(max(found), min(qos, most), f"the QoS of a message of QoS {qos}, QoS {most} granted")


@verifies("MQTT-3.8.4-6")
@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize("requested", [1, 2])
def test_stored_message_qos(trial: Trial, requested: int, qos: int) -> None:
    """A message that has waited for its client is sent with the lower one of its own QoS and the granted QoS."""
    topic = trial.topic()
    client_id = trial.client_id()
    before = trial.raw("before")
    before.connect(client_id, clean=False)
    most = before.subscribe(topic, requested)
    before.disconnect()  # the broker has seen it when this returns
    trial.client("publisher").publish(topic, b"message", qos)
    again: Client = trial.client("again", client_id=client_id, clean=False)
    expect.equal(again.next_message().qos, min(qos, most), f"the QoS of a message of QoS {qos}, QoS {most} granted")
