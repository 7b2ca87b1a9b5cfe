"""3.2 CONNACK: the first answer, Session Present, return codes."""

import time
from collections.abc import Callable

import pytest

from .. import expect, packets
from ..marks import alone, needs, verifies
from ..packets import Connack
from ..raw import Closed, NoAnswer, Raw
from ..trial import Trial
from ..verdicts import Inconclusive, NotApplicable

both_sessions = pytest.mark.parametrize("clean", [True, False], ids=["clean", "persistent"])

ENDS: dict[str, Callable[[Raw], None]] = {"disconnect": Raw.disconnect, "fin": Raw.close, "rst": Raw.reset}
every_end = pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)

#: Why a broker refuses a CONNECT, and the return codes that fit.
CODES = {
    "unknown level": (1,),
    "empty id": (2,),
    "over the limit": (3,),
    "wrong password": (4, 5),
    "unknown user": (4, 5),
    "no credentials": (4, 5),
    "no password": (4, 5),
}
over_the_limit = pytest.param("over the limit", marks=[alone, needs("limited")])
bad_credentials = [
    pytest.param(why, marks=needs("authenticated"))
    for why in ("wrong password", "unknown user", "no credentials", "no password")
]
every_refusal = pytest.mark.parametrize("why", ["unknown level", "empty id", over_the_limit, *bad_credentials])
#: Those that can be brought about for a ClientId of our choice.
every_refusal_by_id = pytest.mark.parametrize("why", ["unknown level", over_the_limit, *bad_credentials])

ENDPOINTS = {"unknown level": "main", "empty id": "main", "over the limit": "limited"}


def endpoint_for(why: str) -> str:
    return ENDPOINTS.get(why, "authenticated")


def send_refusable(trial: Trial, why: str, client_id: str) -> Raw:
    """A connection on which a CONNECT with CleanSession = 0 was sent that the broker has that reason to refuse."""
    if why == "over the limit":
        fill(trial)
    raw = trial.raw("refused", endpoint=endpoint_for(why))
    username: str | None = raw.endpoint.username
    password: str | None = raw.endpoint.password
    level = 4
    if why == "unknown level":
        level = 64
    elif why == "empty id":
        client_id = ""
    elif why == "wrong password":
        password = "wrong password"
    elif why == "unknown user":
        username = trial.client_id()
    elif why == "no password":
        password = None
    elif why == "no credentials":
        username = password = None
    raw.send(packets.connect(client_id, clean=False, level=level, username=username, password=password))
    return raw


def fill(trial: Trial) -> None:
    """Connects clients to the endpoint `limited` until it takes no more. Some brokers take a few more than they should,
    and a place that was just left may take a moment to be free. A broker that is ours begins anew before, because some
    count wrong after the first refusal."""
    limit = trial.endpoint("limited").limit
    assert limit is not None
    if trial.broker.private:
        trial.broker.restart()
    deadline = time.monotonic() + trial.patience
    connected = 0
    while connected < 2 * limit + 8:
        try:
            trial.connected("filler", "limited")
            connected += 1
        except NoAnswer:
            if connected >= limit or time.monotonic() > deadline:
                return
            time.sleep(0.05)
    raise Inconclusive(f"the endpoint `limited` takes {connected} clients, although the profile says {limit}")


def refusal(raw: Raw, why: str) -> Connack:
    """The CONNACK that refuses. Ends the test where there is none to be judged."""
    try:
        packet = raw.next()
    except Closed:
        raise NotApplicable(f"{why}: the broker closes without a CONNACK, so there is none to be judged") from None
    if not isinstance(packet, Connack):
        raise Inconclusive(f"{why}: the broker answers with {packet}")
    if packet.code == 0:
        raise Inconclusive(f"{why}: the broker accepts, which it should not by its profile or by another rule")
    return packet


# 3.2 The first packet


@verifies("MQTT-3.2.0-1")
@both_sessions
def test_connack_is_first(trial: Trial, clean: bool) -> None:
    """The first packet that a broker sends is a CONNACK."""
    raw = trial.raw()
    raw.send(trial.connect_packet(trial.client_id(), clean=clean))
    expect.equal(raw.next().name, "CONNACK", "the first packet")


@verifies("MQTT-3.2.0-1")
def test_connack_is_before_other_answers(trial: Trial) -> None:
    """Answers to what a client sends right behind its CONNECT come after the CONNACK."""
    raw = trial.raw()
    raw.send(
        trial.connect_packet(trial.client_id()),
        packets.pingreq(),
        packets.subscribe(1, (trial.topic(), 0)),
        packets.publish(trial.topic(), b"early", qos=1, packet_id=2),
    )
    expect.equal(raw.next().name, "CONNACK", "the first packet")


@verifies("MQTT-3.2.0-1")
@pytest.mark.parametrize("qos", [1, 2])
def test_connack_is_before_stored_messages(trial: Trial, qos: int) -> None:
    """Messages that wait in a session come after the CONNACK."""
    client_id, topic = trial.client_id(), trial.topic()
    first = trial.raw("first")
    first.connect(client_id, clean=False)
    first.subscribe(topic, qos)
    first.disconnect()
    publisher = trial.client("publisher")
    for number in range(5):
        publisher.publish(topic, f"waiting {number}".encode(), qos)
    again = trial.raw("again")
    again.send(trial.connect_packet(client_id, clean=False))
    expect.equal(again.next().name, "CONNACK", "the first packet")


EARLY = {
    "pingreq": packets.pingreq(),
    "subscribe": packets.subscribe(1, ("too/early", 0)),
    "unsubscribe": packets.unsubscribe(1, "too/early"),
    "publish qos 1": packets.publish("too/early", b"x", qos=1, packet_id=1),
    "publish qos 2": packets.publish("too/early", b"x", qos=2, packet_id=1),
    "pubrel": packets.pubrel(1),
}


@verifies("MQTT-3.2.0-1")
@pytest.mark.parametrize("early", EARLY.values(), ids=EARLY)
def test_nothing_is_answered_before_connack(trial: Trial, early: bytes) -> None:
    """A packet that comes without a CONNECT before it is not answered."""
    raw = trial.raw()
    raw.send(early)
    raw.wait_closed(2 * trial.patience)
    first = raw.unread[:1]
    expect.that(not first or first[0].kind == packets.CONNACK, "no packet before a CONNACK", ", ".join(map(str, first)))


# 3.2.1, 3.2.2.1, 3.2.2.3 The form of a CONNACK


def some_connack(trial: Trial, kind: str) -> Connack:
    """The CONNACK of that kind, however malformed it is."""
    client_id = trial.client_id()
    if kind not in ("accepted", "resumed"):
        return refusal(send_refusable(trial, kind, client_id), kind)
    if kind == "resumed":
        first = trial.raw("first")
        first.connect(client_id, clean=False)
        first.disconnect()
    raw = trial.raw()
    raw.send(trial.connect_packet(client_id, clean=kind == "accepted"))
    packet = raw.take(packets.CONNACK)
    assert isinstance(packet, Connack)
    return packet


every_kind = pytest.mark.parametrize(
    "kind", ["accepted", "resumed", "unknown level", "empty id", over_the_limit, *bad_credentials]
)


@verifies("3.2.1/length")
@every_kind
def test_connack_length(trial: Trial, kind: str) -> None:
    """A CONNACK consists of its acknowledge flags and its return code, and nothing else."""
    packet = some_connack(trial, kind)
    expect.that(len(packet.body) == 2, "CONNACK with 2 bytes behind its fixed header", str(packet))


@verifies("3.2.2.1/reserved-bits")
@every_kind
def test_connack_reserved_bits(trial: Trial, kind: str) -> None:
    """The seven reserved bits of a CONNACK's acknowledge flags are zero."""
    packet = some_connack(trial, kind)
    expect.that(packet.acknowledge_flags & 0xFE == 0, "CONNACK with its reserved bits zero", str(packet))


@verifies("MQTT-2.2.2-1")
@every_kind
def test_connack_header_flags(trial: Trial, kind: str) -> None:
    """The four flags of a CONNACK's fixed header are zero."""
    packet = some_connack(trial, kind)
    expect.that(packet.flags_valid, "CONNACK with its header flags zero", str(packet))


@verifies("3.2.2.3/reserved-codes")
@every_refusal
def test_connack_code_is_listed(trial: Trial, why: str) -> None:
    """A CONNACK's return code is one of the six that are listed."""
    packet = refusal(send_refusable(trial, why, trial.client_id()), why)
    expect.that(packet.code in packets.RETURN_CODES, "CONNACK with a return code from 0 to 5", str(packet))


# 3.2.2.2 Session Present


def check_session_present(trial: Trial, client_id: str, clean: bool, expected: bool, name: str = "client") -> Raw:
    """Connects, and judges nothing but the Session Present flag."""
    raw = trial.raw(name)
    packet = raw.connect(client_id, clean=clean)
    expect.that(packet.session_present == expected, f"CONNACK with SessionPresent={expected:d}", str(packet))
    return raw


@verifies("MQTT-3.2.2-1")
def test_clean_session_of_a_new_client(trial: Trial) -> None:
    """With CleanSession = 1, a client that was never there is told of no session."""
    check_session_present(trial, trial.client_id(), clean=True, expected=False)


@verifies("MQTT-3.2.2-1")
@every_end
def test_clean_session_over_a_stored_one(trial: Trial, end: Callable[[Raw], None]) -> None:
    """With CleanSession = 1, a client that has a stored session is told of none: it is discarded."""
    client_id = trial.client_id()
    first = trial.raw("first")
    first.connect(client_id, clean=False)
    first.subscribe(trial.topic(), 1)
    end(first)
    check_session_present(trial, client_id, clean=True, expected=False, name="again")


@verifies("MQTT-3.2.2-1")
@both_sessions
def test_clean_session_over_a_live_one(trial: Trial, clean: bool) -> None:
    """With CleanSession = 1, a client that takes over from a live one is told of no session."""
    client_id = trial.client_id()
    trial.raw("first").connect(client_id, clean=clean)
    check_session_present(trial, client_id, clean=True, expected=False, name="second")


@verifies("MQTT-3.2.2-2")
@pytest.mark.parametrize("subscribed", [False, True], ids=["empty", "subscribed"])
@every_end
def test_stored_session_is_present(trial: Trial, end: Callable[[Raw], None], subscribed: bool) -> None:
    """With CleanSession = 0, a stored session is reported, even if nothing is in it, however the client left."""
    client_id = trial.client_id()
    first = trial.raw("first")
    first.connect(client_id, clean=False)
    if subscribed:
        first.subscribe(trial.topic(), 1)
    end(first)
    check_session_present(trial, client_id, clean=False, expected=True, name="again")


@verifies("MQTT-3.2.2-2")
def test_stored_session_is_present_every_time(trial: Trial) -> None:
    """A stored session is reported as often as its client returns."""
    client_id = trial.client_id()
    first = trial.raw("first")
    first.connect(client_id, clean=False)
    first.disconnect()
    for _ in range(3):
        check_session_present(trial, client_id, clean=False, expected=True, name="again").disconnect()


@verifies("MQTT-3.2.2-2")
def test_live_session_is_present(trial: Trial) -> None:
    """A client that takes over the session of a live one, both with CleanSession = 0, is told of it."""
    client_id = trial.client_id()
    trial.raw("first").connect(client_id, clean=False)
    check_session_present(trial, client_id, clean=False, expected=True, name="second")


@verifies("MQTT-3.2.2-3")
def test_new_session_is_not_present(trial: Trial) -> None:
    """With CleanSession = 0, a client that was never there is told of no session."""
    check_session_present(trial, trial.client_id(), clean=False, expected=False)


@verifies("MQTT-3.2.2-3")
@every_end
def test_clean_session_leaves_nothing(trial: Trial, end: Callable[[Raw], None]) -> None:
    """With CleanSession = 0, a client that was there only with CleanSession = 1 is told of no session."""
    client_id = trial.client_id()
    first = trial.raw("first")
    first.connect(client_id)
    first.subscribe(trial.topic(), 1)
    end(first)
    check_session_present(trial, client_id, clean=False, expected=False, name="again")


@verifies("MQTT-3.2.2-3")
@every_end
def test_discarded_session_is_not_present(trial: Trial, end: Callable[[Raw], None]) -> None:
    """With CleanSession = 0, a client whose session was discarded by CleanSession = 1 is told of none."""
    client_id = trial.client_id()
    first = trial.raw("first")
    first.connect(client_id, clean=False)
    first.disconnect()
    second = trial.raw("discarding")
    second.connect(client_id)
    end(second)
    check_session_present(trial, client_id, clean=False, expected=False, name="again")


@verifies("MQTT-3.2.2-3")
def test_live_clean_session_is_not_present(trial: Trial) -> None:
    """A client with CleanSession = 0 that takes over from a live one with CleanSession = 1 is told of no session."""
    client_id = trial.client_id()
    trial.raw("first").connect(client_id)
    check_session_present(trial, client_id, clean=False, expected=False, name="second")


@verifies("MQTT-3.2.2-4")
@every_refusal
def test_refusal_reports_no_session(trial: Trial, why: str) -> None:
    """A CONNACK that refuses has SessionPresent = 0."""
    packet = refusal(send_refusable(trial, why, trial.client_id()), why)
    expect.that(not packet.session_present, "a refusal with SessionPresent=0", str(packet))


@verifies("MQTT-3.2.2-4")
@every_refusal_by_id
def test_refusal_reports_no_stored_session(trial: Trial, why: str) -> None:
    """A CONNACK that refuses has SessionPresent = 0, even if there is a session under that ClientId."""
    client_id = trial.client_id()
    owner = trial.raw("owner", endpoint=endpoint_for(why))
    owner.connect(client_id, clean=False)
    owner.disconnect()
    packet = refusal(send_refusable(trial, why, client_id), why)
    expect.that(not packet.session_present, "a refusal with SessionPresent=0", str(packet))


# 3.2.2.3 Connect Return code


@verifies("MQTT-3.2.2-5")
@every_refusal
def test_refusal_is_followed_by_the_end(trial: Trial, why: str) -> None:
    """After a CONNACK that refuses, the broker closes the connection."""
    raw = send_refusable(trial, why, trial.client_id())
    refusal(raw, why)
    expect.closed(raw, after="the refusal")


@verifies("3.2.2.3/refusal-code")
@pytest.mark.parametrize("why", [over_the_limit, *bad_credentials])
def test_refusal_has_a_fitting_code(trial: Trial, why: str) -> None:
    """A CONNECT that a broker cannot or may not serve is answered with the return code that says so."""
    raw = send_refusable(trial, why, trial.client_id())
    fitting = CODES[why]
    try:
        code = refusal(raw, why).code
    except NotApplicable:
        shown = " or ".join(map(str, fitting))
        trial.warn(f"{why}: the connection is closed without a CONNACK; code {shown} would say why")
        return
    trial.note(f"{why}: code {code}")
    if code not in fitting:
        trial.warn(f"{why}: refused with code {code}; {' or '.join(map(str, fitting))} would fit")
