"""3.12 PINGREQ: a sign of life, and the request for one."""

import pytest

from .. import expect, packets
from ..marks import needs, verifies
from ..packets import Will
from ..trial import Trial


@verifies("MQTT-3.12.4-1")
@pytest.mark.parametrize("clean", [True, False], ids=["clean", "persistent"])
@pytest.mark.parametrize("keep_alive", [0, 60, 65535])
def test_ping_is_answered(trial: Trial, keep_alive: int, clean: bool) -> None:
    """A PINGREQ gets a PINGRESP, whatever the keep alive of the client is."""
    if keep_alive == 0:
        trial.require("keep-alive-0")
    raw = trial.raw()
    raw.connect(trial.client_id(), clean=clean, keep_alive=keep_alive, will=Will(trial.topic(), b"will"))
    raw.send(packets.pingreq())
    expect.packet(raw, packets.PINGRESP)


@verifies("MQTT-3.12.4-1")
@pytest.mark.parametrize("times", [2, 10, 1000])
def test_every_ping_is_answered(trial: Trial, times: int) -> None:
    """Each of many PINGREQs that come together gets a PINGRESP."""
    raw = trial.connected()
    raw.send(packets.pingreq() * times)
    for _ in range(times):
        expect.packet(raw, packets.PINGRESP)


@verifies("MQTT-3.12.4-1")
def test_ping_one_after_the_other(trial: Trial) -> None:
    """A PINGREQ gets a PINGRESP each time."""
    raw = trial.connected()
    for _ in range(20):
        raw.send(packets.pingreq())
        expect.packet(raw, packets.PINGRESP)


@verifies("MQTT-3.12.4-1")
def test_ping_in_two_parts(trial: Trial) -> None:
    """A PINGREQ that comes in two parts gets a PINGRESP."""
    raw = trial.connected()
    raw.send(packets.publish(trial.topic(), b"x") + packets.pingreq()[:1])
    raw.send(packets.pingreq()[1:])
    expect.packet(raw, packets.PINGRESP)


@verifies("MQTT-3.12.4-1")
@needs("qos-1")
@pytest.mark.parametrize("qos", [1, 2])
def test_ping_while_messages_are_under_way(trial: Trial, qos: int) -> None:
    """A PINGREQ gets a PINGRESP while there are messages that the client has not acknowledged."""
    raw, topic = trial.connected(), trial.topic()
    raw.subscribe(topic, qos)
    publisher = trial.client("publisher")
    for number in range(50):
        publisher.publish(topic, f"{number}".encode(), qos)
    raw.take(packets.PUBLISH)
    raw.send(packets.publish(topic, b"mine", qos=qos, packet_id=1), packets.pingreq())
    expect.packet(raw, packets.PINGRESP)
