"""3.5 PUBREC: its form. What it does is judged in 4.3.3."""

import pytest

from .. import expect, packets
from ..marks import needs, verifies
from ..trial import Trial
from . import flows


@verifies("3.5.1/length")
def test_pubrec_length(trial: Trial) -> None:
    """PUBREC consists of its Packet Identifier, and nothing else."""
    packet = flows.answer(trial.connected(), trial.topic(), packets.PUBREC)
    expect.that(not packet.problem, "PUBREC with 2 bytes behind its fixed header", str(packet))


@verifies("3.5.1/length", "MQTT-4.8.0-1")
@needs("qos-2")
@pytest.mark.parametrize("size", [0, 1])
def test_pubrec_cut_short(trial: Trial, size: int) -> None:
    """A PUBREC without a whole Packet Identifier gets the client disconnected."""
    raw = trial.connected()
    packet_id = flows.under_way(raw, trial.topic(), 2)
    raw.send(packets.frame(packets.PUBREC, 0, packet_id.to_bytes(2, "big")[:size]))
    expect.closed(raw, after=f"a PUBREC of {size} bytes")
