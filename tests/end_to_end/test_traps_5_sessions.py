"""What brokers of MQTT 5.0 get wrong, as a client sees it: sessions, their expiry, takeovers and wills.

The numbers are those of one list for all four files test_traps_5_*.py, so that a report can name them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import raw_client
from tests.broker_process import StartBroker
from tests.raw_client import Address, RawClient
from tests.raw_client_5 import (
    DISCONNECT,
    NEVER,
    PUBACK,
    PUBCOMP,
    PUBREC,
    PUBREL,
    Client5,
    P,
    Properties,
    Will5,
    ack,
    connect,
    disconnect,
    publish,
)

TAKEN_OVER, PROTOCOL_ERROR, WITH_WILL = 0x8E, 0x82, 0x04

STAYS: Properties = {P.SESSION_EXPIRY: 100}


def lasting(seconds: int) -> Properties:
    return {P.SESSION_EXPIRY: seconds} if seconds else b""


def delayed(seconds: int) -> Properties:
    return {P.WILL_DELAY: seconds} if seconds else b""


def is_there(address: Address, client_id: str) -> bool:
    """Is the session there? It is resumed without a subscription being made, and stays for a while."""
    with Client5(address) as client:
        client.send(connect(client_id, STAYS, clean=False))
        return client.came().present


@pytest.fixture
def heir(address: Address) -> Iterator[Client5]:
    """Reads every will."""
    with Client5.open(address) as heir:
        heir.ask(("will/#", 1))
        yield heir


def no_will(heir: Client5, seconds: float = 0.0) -> None:
    """None has come, and none does for so long."""
    heir.ping()
    if seconds:
        with pytest.raises(TimeoutError):
            heir.next(seconds)


# --- how long a session is ---


@pytest.mark.parametrize("clean", [False, True])
def test_05_a_session_without_expiry_ends_with_its_connection(clean: bool, address: Address) -> None:
    # [MQTT5-3.1.2-23] [MQTT5-4.1.0-2]
    for properties in (b"", {P.SESSION_EXPIRY: 0}):
        with Client5.open(address, "t05", properties, clean=clean) as client:
            client.ask(("t05", 1))
            client.disconnect()
        with Client5.open(address, "t05", clean=False) as client:
            client.give("t05")
            client.ping()


def test_05_a_session_without_expiry_is_not_taken_over(address: Address) -> None:
    # [MQTT5-4.1.0-2]
    with Client5.open(address, "t05 taken", clean=False) as old:
        old.ask(("t05/taken", 1))
        with Client5.open(address, "t05 taken", STAYS, clean=False, present=False) as new:
            assert old.told()[:2] == (DISCONNECT, TAKEN_OVER)
            new.give("t05/taken")
            new.ping()


def test_05_the_expiry_is_that_of_the_last_connection(address: Address) -> None:
    with Client5.open(address, "t05 last", STAYS) as client:
        client.disconnect()
    Client5.open(address, "t05 last", clean=False, present=True).disconnect()
    assert not is_there(address, "t05 last")


def test_05_a_session_ends_after_its_expiry_and_not_before(address: Address) -> None:
    # [MQTT5-3.1.2-23] [MQTT5-4.1.0-2]
    for seconds in (1, 5, NEVER):
        Client5.open(address, f"t05 {seconds}", lasting(seconds)).disconnect()
    time.sleep(2.5)
    assert [is_there(address, f"t05 {seconds}") for seconds in (1, 5, NEVER)] == [False, True, True]
    # It counts from the end of the connection, which had nothing to do with the first one.
    with Client5.open(address, "t05 5", lasting(1), clean=False, present=True):
        time.sleep(1.5)
    assert is_there(address, "t05 5")


@pytest.mark.parametrize("asked", [3601, NEVER])
def test_06_an_expiry_that_is_cut_is_told(asked: int, start_broker: StartBroker) -> None:
    broker = start_broker('max_session_expiry = "1h"\n')
    with Client5.open(broker.address, "t06", lasting(asked)) as client:
        assert client.connack.properties[P.SESSION_EXPIRY] == 3600
    with Client5.open(broker.address, "t06", lasting(3599)) as client:
        assert client.connack.properties.get(P.SESSION_EXPIRY, 3599) == 3599
    with Client5.open(broker.address, "t06") as client:
        assert client.connack.properties.get(P.SESSION_EXPIRY, 0) == 0


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_07_expiry_of_sessions_goes_on_over_a_restart(how: str, start_broker: StartBroker, tmp_path: Path) -> None:
    # [MQTT5-3.1.2-23] [MQTT5-4.1.0-2]
    broker = start_broker(data=tmp_path / "data")
    connected = Client5.open(broker.address, "connected", lasting(2))
    for seconds in (2, 100, NEVER):
        Client5.open(broker.address, f"{seconds}", lasting(seconds)).disconnect()
    getattr(broker, how)()
    connected.close()
    broker.start()
    assert is_there(broker.address, "2")
    Client5.open(broker.address, "2", lasting(2), clean=False, present=True).disconnect()
    broker.stop()
    time.sleep(0.5)
    broker.start()
    # Nobody knows whether the clock was right meanwhile: a session may have its interval once more, and no longer.
    time.sleep(2.5)
    assert [is_there(broker.address, name) for name in ("2", "connected", "100", f"{NEVER}")] == [
        False, False, True, True,
    ]  # fmt: skip


def test_07_what_belongs_to_a_session_is_there_after_kill_9(start_broker: StartBroker, tmp_path: Path) -> None:
    broker = start_broker(data=tmp_path / "data")
    with Client5.open(broker.address, "t07", {**STAYS, P.RECEIVE_MAXIMUM: 1}) as client:  # type: ignore[dict-item]
        client.ask(("t07/#", 2), properties={P.SUBSCRIPTION_ID: 3})
        with Client5.open(broker.address) as author:
            for number in range(3):
                assert author.give(f"t07/{number}", b"x", 1 + number % 2, {P.USER: [("number", f"{number}")]}) == 0
        first = client.get()
        broker.kill()
    broker.start()
    with Client5.open(broker.address, "t07", STAYS, clean=False, present=True) as client:
        for number in range(3):
            came = client.get()
            assert (came.topic, came.qos) == (f"t07/{number}", 1 + number % 2)
            # After a crash nobody knows how far the others had got.
            assert number or came.dup
            assert came.properties == {P.USER: [("number", f"{number}")], P.SUBSCRIPTION_ID: [3]}
            assert number or came.packet_id == first.packet_id
            client.send(ack(PUBREC if came.qos == 2 else PUBACK, came.packet_id))
        assert client.want(PUBREL).packet_id > 0


def test_08_disconnect_without_an_expiry_leaves_it(address: Address) -> None:
    with Client5.open(address, "t08", STAYS) as client:
        client.send(disconnect(0, {}))
        assert client.closed() == b""
    assert is_there(address, "t08")
    with Client5.open(address, "t08", STAYS, clean=False, present=True) as client:
        client.send(disconnect(0, {P.SESSION_EXPIRY: 0}))
        assert client.closed() == b""
    assert not is_there(address, "t08")
    with Client5.open(address, "t08 long", lasting(1)) as client:
        client.send(disconnect(0, {P.SESSION_EXPIRY: 100}))
        assert client.closed() == b""
    time.sleep(2.2)
    assert is_there(address, "t08 long")


def test_08_disconnect_makes_no_lasting_session_of_one_that_was_none(heir: Client5, address: Address) -> None:
    with Client5.open(address, "t08 none", will=Will5("will/08", qos=1)) as client:
        client.send(disconnect(0, {P.SESSION_EXPIRY: 10}))
        assert client.told()[:2] == (DISCONNECT, PROTOCOL_ERROR)
    assert heir.take().topic == "will/08"
    assert not is_there(address, "t08 none")


# --- when a will goes out ---


@pytest.mark.parametrize(
    ("delay", "expiry", "after"),
    [(0, 100, 0), (100, 0, 0), (2, 100, 2), (100, 2, 2), (2, 2, 2), (2, NEVER, 2)],
)
def test_09_a_will_goes_out_after_its_delay_or_with_its_session(
    delay: int, expiry: int, after: int, heir: Client5, address: Address
) -> None:
    # [MQTT5-3.1.2-8]
    topic = f"will/09/{delay}/{expiry}"
    Client5.open(address, topic, lasting(expiry), will=Will5(topic, b"gone", 1, False, delayed(delay))).close()
    since = time.monotonic()
    came = heir.take()
    took = time.monotonic() - since
    assert (came.topic, came.payload, came.qos) == (topic, b"gone", 1)
    assert after - 0.1 <= took < after + 2.5, f"it took {took:.1f} s"
    no_will(heir)


def test_09_a_will_goes_out_when_its_session_is_ended_by_a_clean_start(heir: Client5, address: Address) -> None:
    # [MQTT5-3.1.2-8]
    Client5.open(address, "t09 clean", STAYS, will=Will5("will/09", qos=1, properties=delayed(100))).close()
    no_will(heir, 0.5)
    Client5.open(address, "t09 clean").disconnect()
    assert heir.take().topic == "will/09"


def test_09_a_client_that_comes_back_in_time_has_no_will(heir: Client5, address: Address) -> None:
    # [MQTT5-3.1.3-9]
    Client5.open(address, "t09 back", STAYS, will=Will5("will/09", qos=1, properties=delayed(1))).close()
    with Client5.open(address, "t09 back", STAYS, clean=False, present=True) as client:
        no_will(heir, 2.5)
        client.disconnect()
    no_will(heir)


@pytest.mark.parametrize(
    ("clean", "delay", "expiry", "goes"),
    [
        (False, 100, 100, False),
        (False, 0, 100, True),
        (False, 100, 0, True),
        (True, 100, 100, True),
        (True, 0, 0, True),
    ],
)
def test_10_when_a_takeover_holds_a_will_back(
    clean: bool, delay: int, expiry: int, goes: bool, heir: Client5, address: Address
) -> None:
    # [MQTT5-3.1.3-9]
    name = f"t10 {clean} {delay} {expiry}"
    old = Client5.open(address, name, lasting(expiry), will=Will5("will/10", qos=1, properties=delayed(delay)))
    with Client5.open(address, name, STAYS, clean=clean, present=not clean and expiry > 0) as new:
        assert old.told()[:2] == (DISCONNECT, TAKEN_OVER)
        if goes:
            assert heir.take().topic == "will/10"
        no_will(heir, 0.5)
        new.disconnect()
    no_will(heir)


def test_11_the_delay_of_a_will_is_not_forwarded_and_its_other_properties_are(heir: Client5, address: Address) -> None:
    # [MQTT5-3.1.3-10]
    properties = {
        P.PAYLOAD_FORMAT: 1,
        P.CONTENT_TYPE: "text",
        P.RESPONSE_TOPIC: "answers",
        P.CORRELATION_DATA: b"\0\1",
        P.USER: [("b", "1"), ("a", "2"), ("b", "3")],
    }
    for more in ({P.WILL_DELAY: 1}, {}):
        will = Will5("will/11", b"x", 1, False, {**more, P.MESSAGE_EXPIRY: 50, **properties})
        Client5.open(address, "t11", STAYS, will=will).close()
        came = heir.take()
        # The time that it waited for its publication is none that it waited as a message.
        assert came.properties.pop(P.MESSAGE_EXPIRY) in (49, 50)
        assert came.properties == properties


def test_12_disconnect_with_will(heir: Client5, address: Address) -> None:
    # [MQTT5-3.14.4-3]
    for reason, comes in ((0, False), (None, False), (WITH_WILL, True), (0x80, True)):
        with Client5.open(address, "t12", will=Will5("will/12", qos=1)) as client:
            client.send(disconnect(reason))
            assert client.closed() == b""
        if comes:
            assert heir.take().topic == "will/12"
        no_will(heir)
    with Client5.open(address, "t12", STAYS, will=Will5("will/12", qos=1, properties=delayed(1))) as client:
        client.send(disconnect(WITH_WILL))
        assert client.closed() == b""
    no_will(heir, 0.5)
    assert heir.take().topic == "will/12"


def test_a_will_is_published_for_who_was_there_when_the_broker_was_killed(
    start_broker: StartBroker, tmp_path: Path
) -> None:
    # [MQTT5-3.1.2-8]; 3.1.2.5 lets a broker that failed publish it at its restart.
    broker = start_broker(data=tmp_path / "data")
    with Client5.open(broker.address, "heir", STAYS) as heir:
        heir.ask(("will/#", 1))
        heir.disconnect()
    gone = Will5("will/delayed", b"x", 1, False, {P.WILL_DELAY: 2, P.CONTENT_TYPE: "a"})
    Client5.open(broker.address, "gone", STAYS, will=gone).close()
    connected = [
        Client5.open(broker.address, "plain", will=Will5("will/plain", b"x", 1)),
        Client5.open(broker.address, "back", STAYS, will=Will5("will/back", b"x", 1, False, delayed(100))),
        RawClient.connected(broker.address, "old", will=raw_client.Will("will/3.1.1", b"x", 1)),
    ]
    broker.kill()
    for each in connected:
        each.close()
    broker.start()
    with Client5.open(broker.address, "back", STAYS, clean=False, present=True) as back:
        back.disconnect()
    with Client5.open(broker.address, "heir", STAYS, clean=False, present=True) as heir:
        came = [heir.take() for _ in range(3)]
        assert {each.topic for each in came[:2]} == {"will/plain", "will/3.1.1"}
        assert (came[2].topic, came[2].properties) == ("will/delayed", {P.CONTENT_TYPE: "a"})
        no_will(heir, 0.5)


# --- takeover ---


def test_13_the_older_connection_is_told_that_it_was_taken_over(address: Address) -> None:
    # [MQTT5-3.1.4-3]
    with Client5.open(address, "t13", STAYS) as old, Client5.open(address, "t13", clean=False, present=True) as new:
        assert old.told()[:2] == (DISCONNECT, TAKEN_OVER)
        new.ping()
        # By a client of 3.1.1 too, which is not told itself.
        with RawClient.connected(address, "t13") as older, Client5.open(address, "t13") as newest:
            assert new.told()[:2] == (DISCONNECT, TAKEN_OVER)
            assert older.closed() == b""
            newest.ping()


# --- sessions that change their version ---

PROPERTIES = {P.CONTENT_TYPE: "kept", P.USER: [("a", "1"), ("a", "2")], P.RESPONSE_TOPIC: "answer"}


def test_38_a_session_of_311_goes_on_in_5(address: Address) -> None:
    with RawClient.connected(address, "t38 up", clean=False) as client:
        client.subscribe(("t38/up", 2))
        client.disconnect()
    with Client5.open(address) as author:
        for qos in (1, 2):
            assert author.give("t38/up", b"waits", qos, PROPERTIES) == 0
        with Client5.open(address, "t38 up", STAYS, clean=False, present=True) as client:
            for qos in (1, 2):
                came = client.take()
                assert (came.payload, came.qos, came.properties) == (b"waits", qos, PROPERTIES)
            author.give("t38/up", b"live", 1, PROPERTIES)
            assert client.take().properties == PROPERTIES


def test_38_a_session_of_5_goes_on_in_311(address: Address) -> None:
    with Client5.open(address, "t38 down", STAYS) as client:
        client.ask(("t38/down", 2), properties={P.SUBSCRIPTION_ID: 5})
        client.disconnect()
    with Client5.open(address) as author:
        for qos in (1, 1):
            assert author.give("t38/down", b"waits", qos, PROPERTIES) == 0
        with RawClient.connected(address, "t38 down", clean=False, present=True) as old:
            first, second = old.message(), old.message()
            assert [first[:3], second[:3]] == [("t38/down", b"waits", 1)] * 2
            old.send(raw_client.puback(first.packet_id))
            author.give("t38/down", b"live", 0, PROPERTIES)
            assert old.message()[:3] == ("t38/down", b"live", 0)
        # What was not acknowledged has its properties still.
        with Client5.open(address, "t38 down", clean=False, present=True) as client:
            came = client.take()
            assert (came.payload, came.dup, came.packet_id) == (b"waits", True, second.packet_id)
            assert came.properties == {**PROPERTIES, P.SUBSCRIPTION_ID: [5]}


def test_38_exchanges_of_qos_2_go_on_in_the_other_version(address: Address) -> None:
    # [MQTT5-4.3.3-10] [MQTT5-4.4.0-1]
    with Client5.open(address) as author:
        with Client5.open(address, "t38 two", STAYS) as client:
            client.ask(("t38/two", 2))
            client.send(publish("t38/other", b"x", 2, packet_id=70))
            assert client.came().type == PUBREC
            for payload in (b"received", b"sent"):
                author.give("t38/two", payload, 2, PROPERTIES)
            received, sent = client.get(), client.get()
            client.send(ack(PUBREC, received.packet_id))
            client.want(PUBREL)
        with RawClient.connected(address, "t38 two", clean=False, present=True) as old:
            came = [old.next(), old.next()]
            assert raw_client.pubrel(received.packet_id) in came
            assert raw_client.publish("t38/two", b"sent", 2, packet_id=sent.packet_id, dup=True) in came
            old.send(raw_client.pubcomp(received.packet_id))
            old.subscribe(("t38/other", 0))
            old.send(raw_client.publish("t38/other", b"x", 2, packet_id=70, dup=True))
            old.expect(raw_client.pubrec(70))  # and no second delivery
        with Client5.open(address, "t38 two", clean=False, present=True) as client:
            assert client.take()[6:8] == ("t38/two", b"sent")
            client.send(ack(PUBREL, 70))
            client.want(PUBCOMP)
            client.ping()


def test_38_a_publisher_of_one_version_and_a_subscriber_of_the_other(address: Address) -> None:
    with RawClient.connected(address) as old, Client5.open(address) as new:
        old.subscribe(("t38/to old", 2))
        new.ask(("t38/to new", 2))
        for qos in (0, 1):
            new.give("t38/to old", b"x", qos, PROPERTIES)
            assert old.message()[:3] == ("t38/to old", b"x", qos)
            old.send(raw_client.publish("t38/to new", b"y", qos, packet_id=9))
            came = new.get()
            assert (came.topic, came.payload, came.qos, came.properties) == ("t38/to new", b"y", qos, {})
            if qos:
                old.expect(raw_client.puback(9))
                new.send(ack(PUBACK, came.packet_id))
