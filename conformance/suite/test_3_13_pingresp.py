"""3.13 PINGRESP: its form."""

import pytest

from .. import expect, packets
from ..marks import verifies
from ..trial import Trial

some_times = pytest.mark.parametrize("times", [1, 100])


@verifies("3.13.1/length")
@some_times
def test_pingresp_length(trial: Trial, times: int) -> None:
    """A PINGRESP is nothing but its fixed header."""
    raw = trial.connected()
    raw.send(packets.pingreq() * times)
    for _ in range(times):
        packet = raw.take(packets.PINGRESP)
        expect.that(not packet.body, "PINGRESP with nothing behind its fixed header", str(packet))


@verifies("MQTT-2.2.2-1")
@some_times
def test_pingresp_header_flags(trial: Trial, times: int) -> None:
    """The four flags of a PINGRESP's fixed header are zero."""
    raw = trial.connected()
    raw.send(packets.pingreq() * times)
    for _ in range(times):
        packet = raw.take(packets.PINGRESP)
        expect.that(packet.flags_valid, "PINGRESP with its header flags zero", str(packet))
