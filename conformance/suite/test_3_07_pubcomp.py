"""3.7 PUBCOMP: its form. What it does is judged in 4.3.3."""

import pytest

from .. import expect, packets
from ..marks import needs, verifies
from ..trial import Trial
from . import flows


@verifies("3.7.1/length")
def test_pubcomp_length(trial: Trial) -> None:
    """PUBCOMP consists of its Packet Identifier, and nothing else."""
    packet = flows.answer(trial.connected(), trial.topic(), packets.PUBCOMP)
    expect.that(not packet.problem, "PUBCOMP with 2 bytes behind its fixed header", str(packet))


@verifies("3.7.1/length", "MQTT-4.8.0-1")
@needs("qos-2")
@pytest.mark.parametrize("size", [0, 1])
def test_pubcomp_cut_short(trial: Trial, size: int) -> None:
    """A PUBCOMP without a whole Packet Identifier gets the client disconnected."""
    raw = trial.connected()
    packet_id = flows.released(raw, trial.topic())
    raw.send(packets.frame(packets.PUBCOMP, 0, packet_id.to_bytes(2, "big")[:size]))
    expect.closed(raw, after=f"a PUBCOMP of {size} bytes")


@verifies("3.7.2/identifier")
@pytest.mark.parametrize("packet_id", [1, 255, 256, 65535])
def test_pubcomp_identifier(trial: Trial, packet_id: int) -> None:
    """PUBCOMP has the Packet Identifier of its PUBREL."""
    raw = trial.connected()
    raw.send(packets.publish(trial.topic(), b"message", qos=2, packet_id=packet_id))
    raw.take(packets.PUBREC)
    raw.send(packets.pubrel(packet_id))
    expect.packet(raw, packets.PUBCOMP, packet_id=packet_id)
