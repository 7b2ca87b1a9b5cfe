"""The expectations: what they accept, and the words with which they fail."""

from collections import deque
from collections.abc import Callable

import pytest

from conformance import expect, packets
from conformance.packets import Publish
from conformance.raw import Raw, Silence
from conformance.transcript import Transcript
from conformance.verdicts import Failure, Inconclusive
from tests.conformance.scripted_server import DEADLINE, Script, answer, answer_and_close, serving


def judged(script: Script, judge: Callable[[Raw], object], patience: float = DEADLINE) -> object:
    """What the expectation returns, or the words of its failure."""
    with serving(script) as endpoint:
        raw = Raw(endpoint, "client", Transcript(), patience)
        raw.send(packets.pingreq())
        try:
            return judge(raw)
        except Failure as failure:
            return (failure.expected, failure.actual)
        finally:
            raw.close()


ACCEPTED = "CONNACK code 0 (accepted) SessionPresent=0"


def test_connack() -> None:
    assert str(judged(answer(packets.connack()), expect.connack)) == ACCEPTED


def test_connack_may_come_later() -> None:
    assert str(judged(answer(packets.pingresp(), packets.connack()), expect.connack)) == ACCEPTED


def test_connack_with_another_code() -> None:
    found = judged(answer(packets.connack(5)), lambda raw: expect.connack(raw, (2, 4)))
    assert found == (
        "CONNACK with code 2 (identifier rejected) or 4 (bad user name or password)",
        "CONNACK code 5 (not authorized) SessionPresent=0",
    )


def test_connack_with_a_session() -> None:
    found = judged(
        answer(packets.connack(session_present=True)), lambda raw: expect.connack(raw, session_present=False)
    )
    assert found == (
        "CONNACK with code 0 (accepted) and SessionPresent=0",
        "CONNACK code 0 (accepted) SessionPresent=1",
    )


def test_no_connack() -> None:
    assert judged(answer(packets.pingresp()), expect.connack, 0.05) == (
        "CONNACK with code 0 (accepted)",
        "none came in 0.05 s, and the connection is open; the broker sent PINGRESP",
    )


def test_refused() -> None:
    found = judged(answer_and_close(packets.connack(2)), lambda raw: expect.refused(raw, 2))
    assert str(found) == "CONNACK code 2 (identifier rejected) SessionPresent=0"


def test_refused_but_open() -> None:
    found = judged(answer(packets.connack(2)), lambda raw: expect.refused(raw, 2), 0.05)
    assert isinstance(found, tuple)
    assert found[0] == "the broker closes the connection after the refusal"
    assert found[1].startswith("the connection is open 0.")


NOT_ACCEPTED = "the broker closes the connection without accepting it"


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (answer_and_close(b""), "None"),
        (answer_and_close(packets.connack(1)), "CONNACK code 1 (unacceptable protocol version) SessionPresent=0"),
        (answer_and_close(packets.connack()), str((NOT_ACCEPTED, ACCEPTED))),
    ],
    ids=["closed", "refused", "accepted"],
)
def test_not_accepted(script: Script, expected: str) -> None:
    assert str(judged(script, expect.not_accepted)) == expected


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (answer_and_close(b""), "None"),
        (answer_and_close(packets.connack(2)), "CONNACK code 2 (identifier rejected) SessionPresent=0"),
        (answer(packets.connack()), ACCEPTED),
        (
            answer_and_close(packets.connack(5)),
            "('CONNACK with code 0 or 2', 'CONNACK code 5 (not authorized) SessionPresent=0')",
        ),
    ],
    ids=["closed", "refused", "accepted", "other code"],
)
def test_accepted_or_refused(script: Script, expected: str) -> None:
    assert str(judged(script, lambda raw: expect.accepted_or_refused(raw, 2))) == expected


def test_dropped() -> None:
    seconds = judged(answer_and_close(b""), expect.dropped)
    assert isinstance(seconds, float)
    assert 0 <= seconds < DEADLINE


def test_closed_with_words() -> None:
    assert judged(answer_and_close(packets.connack(2)), expect.dropped) == (
        "the broker closes the connection after that and sends nothing before",
        "CONNACK code 2 (identifier rejected) SessionPresent=0",
    )
    assert isinstance(judged(answer_and_close(packets.connack(2)), expect.closed), float)


def test_alive() -> None:
    assert judged(answer(packets.pingresp()), expect.alive) is None


def test_not_alive() -> None:
    assert judged(answer_and_close(b""), expect.alive) == (
        "the connection stays open after that",
        "client: the broker closed the connection (FIN)",
    )


def test_packet() -> None:
    script = answer(packets.publish("a", b"x"), packets.suback(7, 1))
    assert str(judged(script, lambda raw: expect.packet(raw, packets.SUBACK, packet_id=7, codes=(1,)))) == (
        "SUBACK id=7 codes [1]"
    )


def test_other_packet() -> None:
    found = judged(answer(packets.suback(7, 2)), lambda raw: expect.packet(raw, packets.SUBACK, codes=(1,)))
    assert found == ("SUBACK codes=(1,)", "SUBACK id=7 codes [2]")


def test_malformed_packet() -> None:
    malformed = packets.frame(packets.PUBACK, 0, b"\0\7\0")
    assert judged(answer(malformed), lambda raw: expect.packet(raw, packets.PUBACK, packet_id=7)) == (
        "PUBACK packet_id=7",
        "PUBACK id=7 (malformed: 1 byte too many)",
    )


def test_no_packet() -> None:
    assert judged(answer_and_close(packets.pingresp()), lambda raw: expect.packet(raw, packets.PUBACK)) == (
        "PUBACK",
        "client: the broker closed the connection (FIN); the broker sent PINGRESP",
    )


class Mailbox:
    """A receiver and a publisher in one: what is published comes back, behind what was put in before."""

    name = "mailbox"
    patience = 0.0

    def __init__(self, *payloads: bytes, deaf: bool = False) -> None:
        self.messages = deque(payloads)
        self.deaf = deaf

    def publish(self, topic: object, payload: bytes, qos: int = 0, *, retain: bool = False) -> None:
        if not self.deaf:
            self.messages.append(payload)

    def next_message(self, within: float | None = None) -> Publish:
        if not self.messages:
            raise Silence("nothing more")
        return Publish(packets.PUBLISH, 0, b"", topic="a", payload=self.messages.popleft())


def test_message() -> None:
    assert expect.message(Mailbox(b"x"), payload=b"x", qos=0).topic == "a"
    with pytest.raises(Failure) as caught:
        expect.message(Mailbox(b"x"), payload=b"y")
    assert str(caught.value) == ('expected mailbox receives PUBLISH payload=b\'y\'; actually PUBLISH "a" QoS 0 "x"')


def test_messages_in_any_order() -> None:
    found = expect.messages(Mailbox(b"b", b"other", b"a", b"later"), [b"a", b"b"])
    assert [publish.payload for publish in found] == [b"b", b"other", b"a"]
    with pytest.raises(Failure) as caught:
        expect.messages(Mailbox(b"b"), [b"a", b"b"])
    assert caught.value.actual == '1 came, but not "a": nothing more'
    with pytest.raises(Failure) as caught:
        expect.messages(Mailbox(b"0"), [str(number).encode() for number in range(9)])
    assert caught.value.actual == '1 came, but not "1", "2", "3", "4", "5" and 3 more: nothing more'


def test_silence() -> None:
    box = Mailbox()
    assert expect.silence(box, box, "a", about="anything") == []


def test_broken_silence() -> None:
    box = Mailbox(b"x")
    with pytest.raises(Failure) as caught:
        expect.silence(box, box, "a", about="a ghost")
    assert caught.value.expected == "mailbox receives no message: a ghost"
    assert caught.value.actual == 'PUBLISH "a" QoS 0 "x"'


def test_silence_besides() -> None:
    box = Mailbox(b"x")
    found = expect.silence(box, box, "a", about="a ghost", besides=lambda publish: publish.payload == b"x")
    assert [publish.payload for publish in found] == [b"x"]


def test_silence_without_control_proves_nothing() -> None:
    box = Mailbox(deaf=True)
    with pytest.raises(Inconclusive, match="silence could not be proved"):
        expect.silence(box, box, "a", about="a ghost")


def test_equal_and_that() -> None:
    expect.equal(1, 1, "the number")
    expect.that(True, "", "")
    with pytest.raises(Failure) as caught:
        expect.equal(1, 2, "the number")
    assert (caught.value.expected, caught.value.actual) == ("the number: 2", "1")
