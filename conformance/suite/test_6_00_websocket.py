"""6 WebSocket: binary frames, packets across frames, the subprotocol."""

from collections.abc import Sequence

import pytest
from websockets.frames import Opcode

from .. import expect, packets
from ..marks import needs, verifies
from ..packets import Will
from ..raw import Raw
from ..streams import selected
from ..trial import Trial
from ..verdicts import Inconclusive

WHERE = "websocket"


def send_text(raw: Raw, data: bytes) -> None:
    """One text frame. `data` must be ASCII, or WebSocket itself would forbid it."""
    assert data.isascii()
    raw.send_frame(data, Opcode.TEXT)


def send_in_fragments(raw: Raw, data: bytes, size: int, *, ping: bool) -> None:
    """One binary message in frames of `size` bytes each; with `ping`, pings of WebSocket's own are between them."""
    for start in range(0, len(data), size):
        last = start + size >= len(data)
        raw.send_frame(data[start : start + size], Opcode.CONT if start else Opcode.BINARY, fin=last)
        if ping and not last:
            raw.send_frame(b"still there?", Opcode.PING)


# 6.0.0-1 Binary frames, and nothing else


@verifies("MQTT-6.0.0-1")
@needs("websocket")
def test_broker_sends_binary_frames(trial: Trial) -> None:
    """Whatever the broker sends comes in binary frames."""
    topic = trial.topic()
    raw = trial.connected(endpoint=WHERE)
    raw.subscribe(topic)
    raw.publish(topic, b"plain text", 1)
    expect.message(raw, topic=topic, payload=b"plain text")
    raw.unsubscribe(topic)
    raw.ping()
    wrong = [opcode.name for opcode in raw.websocket.opcodes if opcode is Opcode.TEXT]
    expect.that(not wrong, "binary frames", f"{len(wrong)} of {len(raw.websocket.opcodes)} frames are text frames")


TEXTS = {
    "words": b"hello",
    "nothing": b"",
    "publish": packets.publish("a/topic", b"in a text frame"),
    "part of a packet": packets.publish("a/topic", b"in a text frame")[:5],
}


@verifies("MQTT-6.0.0-1")
@needs("websocket")
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_text_frame_closes(trial: Trial, text: bytes) -> None:
    """A text frame from a connected client makes the broker close the connection."""
    raw = trial.connected(endpoint=WHERE)
    send_text(raw, text)
    expect.closed(raw, after="a text frame")


@verifies("MQTT-6.0.0-1")
@needs("websocket")
def test_connect_in_a_text_frame_closes(trial: Trial) -> None:
    """A CONNECT in a text frame makes the broker close the connection."""
    raw = trial.raw(endpoint=WHERE)
    send_text(raw, packets.connect(trial.client_id()))  # without credentials: flags for them are no ASCII
    expect.closed(raw, after="a CONNECT in a text frame")


@verifies("MQTT-6.0.0-1")
@needs("websocket")
def test_text_frame_in_fragments_closes(trial: Trial) -> None:
    """A text message in several frames makes the broker close the connection."""
    raw = trial.connected(endpoint=WHERE)
    raw.send_frame(b"hello ", Opcode.TEXT, fin=False)
    raw.send_frame(b"world", Opcode.CONT)
    expect.closed(raw, after="a text message")


# 6.0.0-2 Packets and frames have nothing to do with each other


@verifies("MQTT-6.0.0-2")
@needs("websocket")
def test_packet_over_many_frames(trial: Trial) -> None:
    """A CONNECT of which every byte comes in a frame of its own is accepted, and what follows so is served."""
    topic = trial.topic()
    raw = trial.raw(endpoint=WHERE)
    for byte in trial.connect_packet(trial.client_id(), endpoint=WHERE, will=Will(topic, b"will")):
        raw.send(bytes([byte]))
    expect.connack(raw)
    for byte in packets.subscribe(1, (topic, 0)):
        raw.send(bytes([byte]))
    expect.packet(raw, packets.SUBACK, packet_id=1, codes=(0,))


@verifies("MQTT-6.0.0-2")
@needs("websocket")
@pytest.mark.parametrize("cut", [1, 2, 3, 10])
def test_packet_over_two_frames(trial: Trial, cut: int) -> None:
    """A PUBLISH that is cut in two, wherever, is delivered whole."""
    topic = trial.topic()
    subscriber = trial.subscriber(topic, name="subscriber", endpoint=WHERE)
    raw = trial.connected("publisher", WHERE)
    data = packets.publish(topic, b"in two frames", qos=1, packet_id=1)
    raw.send(data[:cut])
    raw.send(data[cut:])
    expect.packet(raw, packets.PUBACK, packet_id=1)
    expect.message(subscriber, topic=topic, payload=b"in two frames")


@verifies("MQTT-6.0.0-2")
@needs("websocket")
def test_packets_in_one_frame(trial: Trial) -> None:
    """A frame with CONNECT, SUBSCRIBE, PUBLISH and PINGREQ is served as if each had come alone."""
    topic = trial.topic()
    raw = trial.raw(endpoint=WHERE)
    raw.send(
        trial.connect_packet(trial.client_id(), endpoint=WHERE),
        packets.subscribe(1, (topic, 0)),
        packets.publish(topic, b"in one frame", qos=1, packet_id=2),
        packets.pingreq(),
    )
    expect.connack(raw)
    expect.packet(raw, packets.SUBACK, packet_id=1, codes=(0,))
    expect.packet(raw, packets.PUBACK, packet_id=2)
    expect.packet(raw, packets.PINGRESP)
    expect.message(raw, topic=topic, payload=b"in one frame")


@verifies("MQTT-6.0.0-2")
@needs("websocket")
def test_frame_ends_within_the_next_packet(trial: Trial) -> None:
    """A frame with a packet and the beginning of the next, which the next frame ends, is served."""
    raw = trial.raw(endpoint=WHERE)
    subscribe = packets.subscribe(1, (trial.topic(), 0))
    raw.send(trial.connect_packet(trial.client_id(), endpoint=WHERE), subscribe[:4])
    raw.send(subscribe[4:], packets.pingreq())
    expect.connack(raw)
    expect.packet(raw, packets.SUBACK, packet_id=1, codes=(0,))
    expect.packet(raw, packets.PINGRESP)


@verifies("MQTT-6.0.0-2")
@needs("websocket")
@pytest.mark.parametrize("ping", [False, True], ids=["alone", "with pings between"])
def test_message_in_fragments(trial: Trial, ping: bool) -> None:
    """A message that comes in several fragments is read to its end."""
    raw = trial.connected(endpoint=WHERE)
    send_in_fragments(raw, packets.subscribe(1, (trial.topic(), 0)) + packets.pingreq(), 3, ping=ping)
    expect.packet(raw, packets.SUBACK, packet_id=1, codes=(0,))
    expect.packet(raw, packets.PINGRESP)


@verifies("MQTT-6.0.0-2")
@needs("websocket")
@pytest.mark.parametrize("size", [125, 126, 65535, 65536, 200_000])
def test_frames_of_any_size(trial: Trial, size: int) -> None:
    """A PUBLISH in a frame of that size comes through whole, whichever form the length of the frame has."""
    topic = trial.topic()
    raw = trial.connected(endpoint=WHERE)
    raw.subscribe(topic)
    payload = bytes(number % 251 for number in range(size))
    while len(packets.publish(topic, payload, qos=1, packet_id=9)) > size:
        payload = payload[1:]
    raw.send(packets.publish(topic, payload, qos=1, packet_id=9))
    expect.packet(raw, packets.PUBACK, packet_id=9)
    found = expect.message(raw, topic=topic)
    expect.that(found.payload == payload, f"the payload of {len(payload)} bytes", f"{found} with other bytes")


# 6.0.0-4 The subprotocol

OFFERS = {
    "mqtt": ("mqtt",),
    "mqtt last": ("conformance.example", "mqtt"),
    "mqtt first": ("mqtt", "conformance.example"),
}


def selection(trial: Trial, offered: Sequence[str]) -> str | None:
    """The subprotocol that the broker selects of these."""
    where = trial.endpoint(WHERE)
    try:
        return selected(where.connect(trial.patience), where.url, trial.patience, offered)
    except OSError as error:
        raise Inconclusive(f"the WebSocket handshake was not answered: {error}") from None


@verifies("MQTT-6.0.0-4")
@needs("websocket")
@pytest.mark.parametrize("offered", OFFERS.values(), ids=OFFERS)
def test_selects_mqtt(trial: Trial, offered: Sequence[str]) -> None:
    """Of what a client offers, the broker selects the subprotocol mqtt."""
    expect.equal(selection(trial, offered), "mqtt", f"the subprotocol that is selected of {', '.join(offered)}")


@verifies("MQTT-6.0.0-4")
@needs("websocket")
def test_selects_nothing_else(trial: Trial) -> None:
    """Of a client that breaks the rule and does not offer mqtt, the broker selects no other subprotocol."""
    found = selection(trial, ("conformance.example",))
    if found == "mqtt":  # against RFC 6455, not against MQTT
        trial.warn("the broker selects mqtt although the client does not offer it, which WebSocket clients must refuse")
        return
    expect.that(found is None, "no subprotocol, or a refusal", f"{found!r} was selected")
