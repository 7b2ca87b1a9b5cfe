"""2.2 Fixed header: packet types, flags, Remaining Length."""

import pytest

from .. import expect, packets
from ..marks import verifies
from ..packets import NAMES
from ..raw import Closed, NoAnswer, Raw
from ..trial import Trial
from ..verdicts import Failure
from . import flows


def by_name(*kinds: int) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("kind", kinds, ids=[NAMES[kind].lower() for kind in kinds])


# 2.2.1 MQTT Control Packet type


@verifies("2.2.1/reserved-types", "MQTT-4.8.0-1")
@pytest.mark.parametrize("flags", [0b0000, 0b0010])
@pytest.mark.parametrize("kind", [0, 15])
def test_reserved_type(trial: Trial, kind: int, flags: int) -> None:
    """A packet of a reserved type gets the client disconnected."""
    raw = trial.connected()
    raw.send(packets.frame(kind, flags))
    expect.closed(raw, after=f"a packet of type {kind}")


# 2.2.2 Flags


@verifies("MQTT-2.2.2-1")
@by_name(
    packets.PUBACK,
    packets.PUBREC,
    packets.PUBREL,
    packets.PUBCOMP,
    packets.SUBACK,
    packets.UNSUBACK,
    packets.PINGRESP,
)
def test_header_flags_of_the_broker(trial: Trial, kind: int) -> None:
    """The reserved flags of each packet that a broker sends are those of its type."""
    packet = flows.answer(trial.connected(), trial.topic(), kind)
    expect.that(packet.flags_valid, f"{NAMES[kind]} with header flags {packets.FLAGS[kind]:04b}", str(packet))


def send_with_flags(trial: Trial, kind: int, flags: int) -> Raw:
    """A connection on which that packet was sent when it was called for, and is right but for its flags."""
    topic = trial.topic()
    raw = trial.raw() if kind == packets.CONNECT else trial.connected()
    if kind == packets.CONNECT:
        raw.send(trial.connect_packet(trial.client_id(), header_flags=flags))
    elif kind == packets.PUBACK:
        raw.send(packets.acknowledgement(kind, flows.under_way(raw, topic, 1), flags=flags))
    elif kind == packets.PUBREC:
        raw.send(packets.acknowledgement(kind, flows.under_way(raw, topic, 2), flags=flags))
    elif kind == packets.PUBCOMP:
        raw.send(packets.acknowledgement(kind, flows.released(raw, topic), flags=flags))
    elif kind == packets.PUBREL:
        raw.send(packets.publish(topic, b"message", qos=2, packet_id=1))
        raw.take(packets.PUBREC)
        raw.send(packets.pubrel(1, flags=flags))
    elif kind == packets.SUBSCRIBE:
        raw.send(packets.subscribe(1, (topic, 0), flags=flags))
    elif kind == packets.UNSUBSCRIBE:
        raw.subscribe(topic)
        raw.send(packets.unsubscribe(2, topic, flags=flags))
    else:
        raw.send(packets.frame(kind, flags))
    return raw


@verifies("MQTT-2.2.2-2")
@by_name(
    packets.CONNECT,
    packets.PUBACK,
    packets.PUBREC,
    packets.PUBREL,
    packets.PUBCOMP,
    packets.SUBSCRIBE,
    packets.UNSUBSCRIBE,
    packets.PINGREQ,
    packets.DISCONNECT,
)
def test_wrong_header_flags(trial: Trial, kind: int) -> None:
    """A packet whose reserved flags are not those of its type gets the client disconnected."""
    for flags in range(16):
        if flags != packets.FLAGS[kind]:
            raw = send_with_flags(trial, kind, flags)
            if kind == packets.CONNECT:
                expect.not_accepted(raw)
            else:
                expect.closed(raw, after=f"{NAMES[kind]} with header flags {flags:04b}")


# 2.2.3 Remaining Length

#: The shortest and the longest packets whose Remaining Length takes one, two, three and four bytes.
LENGTHS = [127, 128, 129, 255, 256, 16_383, 16_384, 16_385, 2_097_151, 2_097_152]

#: Longer packets are refused by some brokers, for want of memory.
USUAL_LENGTH = 20_000


@verifies("2.2.3/length")
@pytest.mark.parametrize("length", LENGTHS)
def test_length(trial: Trial, length: int) -> None:
    """A PUBLISH is read and delivered as it is, however many bytes its Remaining Length takes."""
    topic = trial.topic()
    subscriber = trial.connected("subscriber")
    flows.subscribed(subscriber, topic, 1)
    publisher = trial.connected("publisher")
    head = len(packets.string(topic)) + 2
    payload = (b"0123456789abcdef" * (length // 16 + 1))[: length - head]
    publisher.send(packets.publish(topic, payload, qos=1, packet_id=1))
    try:
        publisher.take(packets.PUBACK)
    except Closed as error:
        if length < USUAL_LENGTH:
            raise Failure("PUBACK", str(error)) from None
        trial.warn(f"a PUBLISH with a Remaining Length of {length} bytes is refused, and the connection closed")
        return
    except NoAnswer as error:
        raise Failure("PUBACK", str(error)) from None
    try:
        message = subscriber.next_message()
    except NoAnswer as error:
        raise Failure(f"a message of {packets.size(payload)}", str(error)) from None
    same = message.topic == topic and message.payload == payload
    expect.that(same, f"the message of {packets.size(payload)}, unchanged", str(message))


@verifies("2.2.3/length")
def test_length_in_pieces(trial: Trial) -> None:
    """A packet is read, too, when each byte of its header, and its body in parts, come in segments of their own."""
    raw, topic = trial.connected(), trial.topic()
    packet = packets.publish(topic, b"x" * 20_000, qos=1, packet_id=9)
    for at in range(6):
        raw.send(packet[at : at + 1])
    raw.send(packet[6:8000])
    raw.send(packet[8000:])
    expect.packet(raw, packets.PUBACK, packet_id=9)


@verifies("2.2.3/length")
def test_many_packets_in_one_segment(trial: Trial) -> None:
    """Each of many packets that come in one segment is read."""
    raw, topic = trial.connected(), trial.topic()
    raw.send(*(packets.publish(topic, b"x" * size, qos=1, packet_id=size) for size in range(1, 200)))
    for size in range(1, 200):
        expect.packet(raw, packets.PUBACK, packet_id=size)


@verifies("2.2.3/length")
@pytest.mark.parametrize("width", [2, 3, 4])
def test_padded_length(trial: Trial, width: int) -> None:
    """A Remaining Length in more bytes than it needs is read, or the connection closed; the text allows both."""
    raw = trial.connected()
    raw.send(bytes([packets.PINGREQ << 4]) + packets.remaining_length(0, width=width))
    try:
        raw.take(packets.PINGRESP)
        trial.note(f"a length of 0 in {width} bytes is read")
    except Closed:
        trial.note(f"a length of 0 in {width} bytes gets the client disconnected")
    except NoAnswer as error:
        raise Failure("PINGRESP, or the end of the connection", str(error)) from None


FIVE_BYTES: dict[str, bytes] = {
    "publish": b"\x30\x80\x80\x80\x80\x01",
    "pingreq": b"\xc0\x80\x80\x80\x80\x00",
    "all ones": b"\x30\xff\xff\xff\xff\xff",
}


@verifies("2.2.3/four-bytes", "MQTT-4.8.0-1")
@pytest.mark.parametrize("packet", FIVE_BYTES.values(), ids=FIVE_BYTES)
def test_five_length_bytes(trial: Trial, packet: bytes) -> None:
    """A Remaining Length of more than four bytes gets the client disconnected."""
    raw = trial.connected()
    raw.send(packet)
    expect.closed(raw, after="a Remaining Length of five bytes")


@verifies("2.2.3/four-bytes", "MQTT-4.8.0-1")
def test_five_length_bytes_in_connect(trial: Trial) -> None:
    """A first packet whose Remaining Length has more than four bytes gets the client disconnected."""
    raw = trial.raw()
    raw.send(b"\x10\x80\x80\x80\x80\x01")
    flows.ends_unconnected(trial, raw, "a Remaining Length of five bytes")
