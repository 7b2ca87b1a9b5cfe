"""Situations that several chapters begin with: a message that the broker waits to see acknowledged, an answer of it.

Owns: the way there. Must not know: what is judged then; like the helpers of `raw.Raw`, what goes wrong here makes a
test INCONCLUSIVE. One end, too: `ends_unconnected` does judge.
"""

import time
from collections.abc import Callable

from .. import capabilities, expect, packets
from ..packets import Packet, Publish
from ..raw import Closed, Raw
from ..trial import Trial
from ..verdicts import Inconclusive

#: How a client's connection ends so that its session may be resumed: by "takeover", its successor ends it.
ENDS: dict[str, Callable[[Raw], None]] = {
    "disconnect": Raw.disconnect,
    "fin": Raw.close,
    "rst": Raw.reset,
    "takeover": lambda raw: None,
}


def subscribed(raw: Raw, topic_filter: str, qos: int) -> None:
    """A subscription that was granted with that QoS."""
    capabilities.require_granted(raw.name, qos, raw.subscribe(topic_filter, qos))


def received(raw: Raw, payload: bytes, qos: int) -> Publish:
    """The PUBLISH with that payload, not acknowledged; it must come with that QoS, and with a Packet Identifier."""
    packet = raw.take(packets.PUBLISH, lambda packet: isinstance(packet, Publish) and packet.payload == payload)
    assert isinstance(packet, Publish)
    if packet.qos != qos or not packet.packet_id:
        raise Inconclusive(f"{raw.name} was sent {packet} instead of one with QoS {qos}")
    return packet


def under_way(raw: Raw, topic: str, qos: int, payload: bytes = b"message") -> int:
    """A client's own message back to itself, with that QoS, not acknowledged: its Packet Identifier."""
    subscribed(raw, topic, qos)
    raw.publish(topic, payload, qos)
    packet_id = received(raw, payload, qos).packet_id
    assert packet_id is not None
    return packet_id


def acknowledge(raw: Raw, packet_id: int, qos: int) -> None:
    """A message with QoS 1 or 2 is acknowledged to the end."""
    if qos == 1:
        raw.send(packets.puback(packet_id))
        return
    raw.send(packets.pubrec(packet_id))
    raw.take(packets.PUBREL)
    raw.send(packets.pubcomp(packet_id))


def released(raw: Raw, topic: str) -> int:
    """A client's own message back to itself with QoS 2, for which PUBREL has come: its Packet Identifier."""
    packet_id = under_way(raw, topic, 2)
    raw.send(packets.pubrec(packet_id))
    raw.take(packets.PUBREL)
    return packet_id


def ends_unconnected(trial: Trial, raw: Raw, after: str) -> None:
    """A connection without a valid CONNECT ends. A broker may come to that by waiting in vain for a CONNECT: how long
    it waits has no number, so it gets more time, and a warning."""
    seconds = expect.closed(raw, after=after, within=2 * trial.patience)
    if seconds > trial.patience / 2:
        trial.warn(f"the client is disconnected only {seconds:.1f} s after {after}, like one that sends nothing")


def session(trial: Trial, topic_filter: str, qos: int, name: str = "first") -> tuple[Raw, str]:
    """A connection with CleanSession = 0 and one subscription, and its ClientId."""
    client_id = trial.client_id()
    raw = trial.raw(name)
    raw.connect(client_id, clean=False)
    subscribed(raw, topic_filter, qos)
    return raw, client_id


def resumed(trial: Trial, client_id: str, name: str = "again") -> Raw:
    """A connection that goes on with that session."""
    raw = trial.raw(name)
    if not raw.connect(client_id, clean=False).session_present:
        raise Inconclusive("the session was not kept")
    return raw


def back(trial: Trial, client_id: str, clean: bool, name: str) -> Raw:
    """A connection under a ClientId whose last one has just ended. Some brokers take a moment until they accept it."""
    deadline = time.monotonic() + trial.patience
    while True:
        raw = trial.raw(name)
        try:
            raw.connect(client_id, clean=clean)
            return raw
        except Closed:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def answer(raw: Raw, topic: str, kind: int) -> Packet:
    """A packet of that type that the broker sends when it is called for, whatever its form."""
    if kind == packets.PUBACK:
        raw.send(packets.publish(topic, b"message", qos=1, packet_id=1))
    elif kind in (packets.PUBREC, packets.PUBCOMP):
        raw.send(packets.publish(topic, b"message", qos=2, packet_id=1))
        if kind == packets.PUBCOMP:
            raw.take(packets.PUBREC)
            raw.send(packets.pubrel(1))
    elif kind == packets.PUBREL:
        raw.send(packets.pubrec(under_way(raw, topic, 2)))
    elif kind == packets.SUBACK:
        raw.send(packets.subscribe(1, (topic, 0)))
    elif kind == packets.UNSUBACK:
        raw.send(packets.unsubscribe(1, topic))
    else:
        raw.send(packets.pingreq())
    return raw.take(kind)
