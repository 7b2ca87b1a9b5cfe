"""3.6 PUBREL: its form. What it does is judged in 4.3.3."""

import pytest

from .. import expect, packets
from ..marks import needs, verifies
from ..raw import Raw
from ..trial import Trial
from . import flows

WRONG_FLAGS = [flags for flags in range(16) if flags != packets.FLAGS[packets.PUBREL]]


def half_published(trial: Trial) -> Raw:
    """A client whose message, with QoS 2 and the identifier 1, waits for PUBREL."""
    raw = trial.connected()
    raw.send(packets.publish(trial.topic(), b"message", qos=2, packet_id=1))
    raw.take(packets.PUBREC)
    return raw


@verifies("MQTT-3.6.1-1")
@needs("qos-2")
@pytest.mark.parametrize("clean", [True, False], ids=["first", "sent again"])
def test_pubrel_flags_of_the_broker(trial: Trial, clean: bool) -> None:
    """A PUBREL that a broker sends, for the first time or again, has the header flags 0010."""
    topic = trial.topic()
    if clean:
        packet = flows.answer(trial.connected(), topic, packets.PUBREL)
    else:
        raw, client_id = flows.session(trial, topic, 2)
        flows.released(raw, topic)
        raw.reset()
        packet = flows.resumed(trial, client_id).take(packets.PUBREL)
    expect.that(packet.flags_valid, "PUBREL with header flags 0010", str(packet))


@verifies("MQTT-3.6.1-1")
@pytest.mark.parametrize("flags", WRONG_FLAGS, ids=[f"{flags:04b}" for flags in WRONG_FLAGS])
def test_wrong_pubrel_flags(trial: Trial, flags: int) -> None:
    """A PUBREL with header flags other than 0010 gets the client disconnected."""
    raw = half_published(trial)
    raw.send(packets.pubrel(1, flags=flags))
    expect.closed(raw, after=f"PUBREL with header flags {flags:04b}")


@verifies("3.6.1/length")
@needs("qos-2")
def test_pubrel_length(trial: Trial) -> None:
    """PUBREL consists of its Packet Identifier, and nothing else."""
    packet = flows.answer(trial.connected(), trial.topic(), packets.PUBREL)
    expect.that(not packet.problem, "PUBREL with 2 bytes behind its fixed header", str(packet))


@verifies("3.6.1/length", "MQTT-4.8.0-1")
@pytest.mark.parametrize("size", [0, 1])
def test_pubrel_cut_short(trial: Trial, size: int) -> None:
    """A PUBREL without a whole Packet Identifier gets the client disconnected."""
    raw = half_published(trial)
    raw.send(packets.frame(packets.PUBREL, 0b0010, b"\0\1"[:size]))
    expect.closed(raw, after=f"a PUBREL of {size} bytes")
