"""3.9 SUBACK: the return codes, and its form."""

import random

import pytest

from .. import expect, packets
from ..marks import needs, verifies
from ..packets import Suback
from ..trial import Trial

CODES = (0, 1, 2, packets.SUBSCRIBE_FAILURE)


@verifies("MQTT-3.9.3-1")
@needs("qos-1", "qos-2")
@pytest.mark.parametrize("order", [(2, 1, 0), (0, 1, 2), (1, 0, 2), (0, 2), (2, 0, 0, 1, 2, 1)], ids=str)
def test_order_of_return_codes(trial: Trial, order: tuple[int, ...]) -> None:
    """Return codes stand in the order of the filters."""
    raw = trial.connected()
    raw.send(packets.subscribe(1, *((trial.topic(f"{number}"), qos) for number, qos in enumerate(order))))
    expect.packet(raw, packets.SUBACK, codes=order)


@verifies("MQTT-3.9.3-1")
@needs("qos-1", "qos-2")
def test_order_of_many_return_codes(trial: Trial) -> None:
    """Return codes stand in the order of the filters, however many there are, whether they are new or known."""
    order = tuple(random.Random(3).choices((0, 1, 2), k=200))
    names = [trial.topic(f"{number % 150}") for number in range(200)]
    raw = trial.connected()
    raw.subscribe(names[7], 1)
    raw.send(packets.subscribe(1000, *zip(names, order, strict=True)))
    answer = raw.take(packets.SUBACK)
    assert isinstance(answer, Suback)
    expected = "the return codes of 200 filters, of which 50 are there twice, in their order"
    wrong = next((place for place, pair in enumerate(zip(order, answer.codes, strict=False)) if len({*pair}) > 1), None)
    found = f"{len(answer.codes)} return codes" + f", wrong from number {wrong} on" * (wrong is not None)
    expect.that(answer.codes == order, expected, found)


#: Filters that a broker may have its own mind about.
SPECIAL = ["$SYS/#", "$SYS/broker/version", "$share/group/topic", "$queue/topic", "$", "/", "+/+/+"]


@verifies("MQTT-3.9.3-2")
@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("topic_filter", ["", *SPECIAL], ids=lambda name: name or "ordinary")
def test_return_codes_are_listed(trial: Trial, topic_filter: str, qos: int) -> None:
    """A return code is 0, 1, 2 or 0x80."""
    raw = trial.connected()
    raw.send(packets.subscribe(1, (topic_filter or trial.topic(), qos)))
    answer = raw.take(packets.SUBACK)
    assert isinstance(answer, Suback)
    expect.that(set(answer.codes) <= set(CODES), "SUBACK with codes of 0, 1, 2 and 0x80", str(answer))


@verifies("MQTT-3.9.3-2")
@needs("acl")
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_return_code_of_a_refusal_is_listed(trial: Trial, qos: int) -> None:
    """The return code for a filter that the client may not have is 0x80, or the QoS that was granted all the same."""
    raw = trial.connected(endpoint="acl")
    raw.send(packets.subscribe(1, (raw.endpoint.subscribe_forbidden or "#", qos)))
    answer = raw.take(packets.SUBACK)
    assert isinstance(answer, Suback)
    expect.that(set(answer.codes) <= set(CODES), "SUBACK with codes of 0, 1, 2 and 0x80", str(answer))


@verifies("MQTT-2.2.2-1")
@pytest.mark.parametrize("count", [1, 100])
def test_suback_header_flags(trial: Trial, count: int) -> None:
    """The four flags of a SUBACK's fixed header are zero."""
    raw = trial.connected()
    raw.send(packets.subscribe(1, *((trial.topic(f"{number}"), number % 3) for number in range(count))))
    answer = raw.take(packets.SUBACK)
    expect.that(answer.flags_valid, "SUBACK with its header flags zero", str(answer))
