"""3.11 UNSUBACK: its form."""

import pytest

from .. import expect, packets
from ..marks import verifies
from ..packets import Packet
from ..trial import Trial

every_case = pytest.mark.parametrize("count", [0, 1, 100], ids=["unknown filter", "one filter", "many filters"])


def unsuback(trial: Trial, count: int) -> Packet:
    """The UNSUBACK for that many filters that were subscribed to, however malformed it is."""
    raw = trial.connected()
    for number in range(0, count, 10):
        raw.subscribe(trial.topic(f"{number}"))
    packet_id = raw.new_packet_id()
    raw.send(packets.unsubscribe(packet_id, *(trial.topic(f"{number}") for number in range(count or 1))))
    return raw.take(packets.UNSUBACK)


@verifies("3.11.1/length")
@every_case
def test_unsuback_length(trial: Trial, count: int) -> None:
    """An UNSUBACK consists of its Packet Identifier, and nothing else."""
    packet = unsuback(trial, count)
    expect.that(len(packet.body) == 2, "UNSUBACK with 2 bytes behind its fixed header", str(packet))


@verifies("MQTT-2.2.2-1")
@every_case
def test_unsuback_header_flags(trial: Trial, count: int) -> None:
    """The four flags of an UNSUBACK's fixed header are zero."""
    packet = unsuback(trial, count)
    expect.that(packet.flags_valid, "UNSUBACK with its header flags zero", str(packet))
