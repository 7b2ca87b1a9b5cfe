"""3.4 PUBACK: its form. What it does is judged in 4.3.2."""

import pytest

from .. import expect, packets
from ..marks import verifies
from ..trial import Trial
from . import flows


@verifies("3.4.1/length")
def test_puback_length(trial: Trial) -> None:
    """PUBACK consists of its Packet Identifier, and nothing else."""
    packet = flows.answer(trial.connected(), trial.topic(), packets.PUBACK)
    expect.that(not packet.problem, "PUBACK with 2 bytes behind its fixed header", str(packet))


@verifies("3.4.1/length", "MQTT-4.8.0-1")
@pytest.mark.parametrize("size", [0, 1])
def test_puback_cut_short(trial: Trial, size: int) -> None:
    """A PUBACK without a whole Packet Identifier gets the client disconnected."""
    raw = trial.connected()
    packet_id = flows.under_way(raw, trial.topic(), 1)
    raw.send(packets.frame(packets.PUBACK, 0, packet_id.to_bytes(2, "big")[:size]))
    expect.closed(raw, after=f"a PUBACK of {size} bytes")
