"""4.8 Handling errors: a violation ends the connection on which it came, and no other."""

import pytest

from .. import expect, packets
from ..marks import verifies
from ..raw import Silence
from ..trial import Trial

#: What no client may send, whatever it has sent before.
NEVER: dict[str, bytes] = {
    "reserved type 0": packets.frame(0, 0),
    "reserved type 0 with a body": packets.frame(0, 0, b"abc"),
    "reserved type 15": packets.frame(15, 0),
    "reserved type 15 with a body": packets.frame(15, 0, b"abc"),
    "connack": packets.connack(),
    "suback": packets.suback(1, 0),
    "unsuback": packets.unsuback(1),
    "pingresp": packets.pingresp(),
}

#: Packets that lack a part, although they are as long as they say.
CUT_SHORT: dict[str, bytes] = {
    "publish without a topic": packets.frame(packets.PUBLISH, 0),
    "publish with half a length": packets.frame(packets.PUBLISH, 0, b"\0"),
    "publish with half a topic": packets.frame(packets.PUBLISH, 0, b"\0\5abc"),
    "publish without a packet id": packets.frame(packets.PUBLISH, 0b0010, b"\0\1a"),
    "publish with half a packet id": packets.frame(packets.PUBLISH, 0b0100, b"\0\1a\0"),
    "puback without a packet id": packets.frame(packets.PUBACK, 0),
    "puback with half a packet id": packets.frame(packets.PUBACK, 0, b"\0"),
    "pubrec without a packet id": packets.frame(packets.PUBREC, 0),
    "pubrel without a packet id": packets.frame(packets.PUBREL, 0b0010),
    "pubrel with half a packet id": packets.frame(packets.PUBREL, 0b0010, b"\0"),
    "pubcomp without a packet id": packets.frame(packets.PUBCOMP, 0),
}

#: A Remaining Length that goes on after its fourth byte (section 2.2.3).
TOO_LONG: dict[str, bytes] = {
    "length of five bytes": b"\x30\xff\xff\xff\xff\x7f",
    "length of five bytes, all zero": b"\x30\x80\x80\x80\x80\x00",
    "length of six bytes": b"\xc0\x80\x80\x80\x80\x80\x00",
}

VIOLATIONS = NEVER | CUT_SHORT | TOO_LONG
every_violation = pytest.mark.parametrize("violation", VIOLATIONS.values(), ids=VIOLATIONS)


@verifies("MQTT-4.8.0-1")
@every_violation
def test_violation_ends_the_connection(trial: Trial, violation: bytes) -> None:
    """A client that sends what it must not is disconnected."""
    raw = trial.connected()
    raw.send(violation)
    expect.closed(raw, after="a protocol violation")


@verifies("MQTT-4.8.0-1")
@pytest.mark.parametrize("violation", ["reserved type 15", "connack", "publish with half a topic"])
def test_violation_of_a_busy_client(trial: Trial, violation: str) -> None:
    """A client that sends what it must not is disconnected, however well it has behaved before."""
    raw, topic = trial.raw(), trial.topic()
    raw.connect(trial.client_id(), clean=False)
    raw.subscribe(topic, 1)
    raw.publish(topic, b"mine", 1)
    raw.next_message()
    raw.ping()
    raw.send(packets.pingreq(), VIOLATIONS[violation])
    expect.closed(raw, after="a protocol violation")


@verifies("MQTT-4.8.0-1")
@pytest.mark.parametrize(
    "violation", ["reserved type 15", "suback", "publish with half a topic", "length of six bytes"]
)
def test_violation_disturbs_nobody(trial: Trial, violation: str) -> None:
    """A violation ends the connection on which it came, and no other."""
    others = [trial.connected("other") for _ in range(3)]
    raw = trial.connected("violating")
    raw.send(VIOLATIONS[violation])
    expect.closed(raw, after="a protocol violation")
    for other in others:
        expect.alive(other, after="another client's protocol violation")


#: Packets with more behind them than they have fields.
SURPLUS: dict[str, bytes] = {
    "pingreq": packets.frame(packets.PINGREQ, 0, b"\0"),
    "puback": packets.frame(packets.PUBACK, 0, b"\0\1\0"),
    "pubrec": packets.frame(packets.PUBREC, 0, b"\0\1\0"),
    "pubrel": packets.frame(packets.PUBREL, 0b0010, b"\0\1\0\0"),
    "pubcomp": packets.frame(packets.PUBCOMP, 0, b"\0\1\0"),
}


@verifies("MQTT-4.8.0-1")
@pytest.mark.parametrize("surplus", SURPLUS.values(), ids=SURPLUS)
def test_surplus_bytes(trial: Trial, surplus: bytes) -> None:
    """A client that sends a packet with more bytes than it has fields is disconnected, if the broker is strict."""
    raw = trial.connected()
    raw.send(surplus, packets.pingreq())
    try:
        raw.wait_closed()
    except Silence:
        trial.warn("a packet with more bytes than it has fields is taken; it should end the connection")
