"""What brokers of MQTT 5.0 get wrong, as a client sees it: CONNECT, CONNACK, flow control, sizes, errors, AUTH.

The numbers are those of one list for all four files test_traps_5_*.py, so that a report can name them.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from broker.auth.passwords import set_password
from tests import raw_auth
from tests.broker_process import BrokerProcess, StartBroker
from tests.raw_auth import AGAIN, CONTINUE
from tests.raw_client import Address, packet, text
from tests.raw_client_5 import (
    CONNACK,
    DISCONNECT,
    PUBACK,
    PUBCOMP,
    PUBREC,
    PUBREL,
    SUBACK,
    UNSUBACK,
    Client5,
    P,
    Properties,
    Will5,
    ack,
    connect,
    disconnect,
    one_property,
    publish,
    section,
    subscribe,
    unsubscribe,
)
from tests.scram_client import ScramClient

MALFORMED, PROTOCOL_ERROR, BAD_PASSWORD, NOT_AUTHORIZED = 0x81, 0x82, 0x86, 0x87
KEEP_ALIVE, TOO_MANY, TOO_LARGE = 0x8D, 0x93, 0x95

STAYS: Properties = {P.SESSION_EXPIRY: 100}

# --- flow control ---


@pytest.mark.parametrize("qos", [1, 2])
def test_24_an_error_ends_a_delivery_and_frees_its_place(qos: int, address: Address) -> None:
    # [MQTT5-4.3.3-4] [MQTT5-4.4.0-2]
    topic, properties = f"t24/{qos}", {P.RECEIVE_MAXIMUM: 1, P.SESSION_EXPIRY: 100}
    with Client5.open(address) as author:
        with Client5.open(address, topic, properties) as client:
            client.ask((topic, qos))
            for number in range(3):
                author.give(topic, b"%d" % number, qos)
            for number in range(2):
                came = client.get()
                assert (came.payload, came.dup) == (b"%d" % number, False)
                client.send(ack(PUBACK if qos == 1 else PUBREC, came.packet_id, 0x97))
            assert client.get().payload == b"2"  # and no PUBREL before it
        with Client5.open(address, topic, properties, clean=False, present=True) as client:
            assert client.take().payload == b"2"
            client.ping()


def test_25_above_the_receive_maximum_is_a_disconnect(start_broker: StartBroker) -> None:
    # [MQTT5-3.3.4-7]
    broker = start_broker("receive_maximum = 20\n")
    with Client5.open(broker.address) as client:
        maximum = client.connack.properties[P.RECEIVE_MAXIMUM]
        assert maximum == 20
        client.send(b"".join(publish("t25", b"x", 2, packet_id=n) for n in range(1, maximum + 2)))
        came = [client.came()]
        while came[-1].type == PUBREC:
            assert came[-1].reason < 0x80
            came.append(client.came())
        assert came[-1][:2] == (DISCONNECT, TOO_MANY)
        assert client.closed() == b""


def test_26_the_quota_is_that_of_a_connection_and_qos_0_is_outside_of_it(start_broker: StartBroker) -> None:
    # [MQTT5-4.9.0-1] [MQTT5-4.9.0-3]
    address = start_broker("receive_maximum = 20\n").address
    with Client5.open(address, "t26", STAYS) as client:
        maximum = client.connack.properties[P.RECEIVE_MAXIMUM]
        for start in (1, maximum + 1):
            client.send(b"".join(publish("t26", b"x", 2, packet_id=start + n) for n in range(maximum)))
            came = [client.came() for _ in range(maximum)]
            assert all(each.type == PUBREC and each.reason < 0x80 for each in came)
            assert {each.packet_id for each in came} == set(range(start, start + maximum))
            client.send(publish("t26", b"x", 0) * 3)
            client.send(subscribe(("t26/other", 0)))
            assert client.came().type == SUBACK
            if start == 1:
                client.close()
                client = Client5.open(address, "t26", STAYS, clean=False, present=True)
        # With each PUBCOMP there is a place again.
        client.send(ack(PUBREL, start))
        assert client.want(PUBCOMP).packet_id == start
        client.send(publish("t26", b"x", 2, packet_id=start))
        assert client.came().type == PUBREC
        client.close()


def test_26_what_a_client_takes_is_asked_for_by_each_connection(address: Address) -> None:
    # [MQTT5-4.9.0-1] [MQTT5-4.9.0-2] [MQTT5-3.3.4-9] [MQTT5-3.3.4-10]
    with Client5.open(address) as author:
        for maximum in (1, 3, 2):
            properties = {P.RECEIVE_MAXIMUM: maximum, P.SESSION_EXPIRY: 100}
            with Client5.open(address, "t26 takes", properties, clean=False, present=maximum != 1) as client:
                client.ask(("t26/takes", 1)) if maximum == 1 else None
                if maximum == 1:
                    for number in range(6):
                        author.give("t26/takes", b"%d" % number)
                assert [client.get().payload for _ in range(maximum)] == [b"%d" % n for n in range(maximum)]
                client.ping()
                author.give("t26/takes", b"at once", 0)
                assert client.get().payload == b"at once"
        with Client5.open(address, "t26 takes", STAYS, clean=False, present=True) as client:
            assert [client.take().payload for _ in range(6)] == [b"%d" % n for n in range(6)]
            client.ping()


# --- sizes ---


def exactly(topic: str, size: int, qos: int) -> bytes:
    """The payload of a PUBLISH without properties that has so many bytes, fixed header included (below 130)."""
    return b"x" * (size - 2 - 2 - len(topic) - (2 if qos else 0) - 1)


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("waits", [False, True], ids=["live", "waits"])
def test_27_the_maximum_packet_size_counts_all_of_the_packet(waits: bool, qos: int, address: Address) -> None:
    # [MQTT5-3.1.2-24] [MQTT5-3.1.2-25]
    if waits and not qos:
        return
    topic = f"t27/{waits}/{qos}"
    properties = {P.MAXIMUM_PACKET_SIZE: 100, P.SESSION_EXPIRY: 100, P.RECEIVE_MAXIMUM: 1}
    client = Client5.open(address, topic, properties)
    client.ask((topic, 2))
    if waits:
        client.disconnect()
    with Client5.open(address) as author:
        for size in (101, 100, 110, 50_000, 99):
            payload = exactly(topic, size, qos) if size < 130 else b"x" * size
            assert author.give(topic, payload, qos) == 0
        author.give(topic, b"short", qos, {P.USER: [("name", "x" * 100)]})
        author.give(topic, b"last", qos)
    if waits:
        client = Client5.open(address, topic, properties, clean=False, present=True)
    assert [client.take().size for _ in range(2)] == [100, 99]
    assert client.take().payload == b"last"
    client.ping()
    client.disconnect()
    with Client5.open(address, topic, STAYS, clean=False, present=True) as client:
        client.ping()  # what was too large has been settled


def test_27_acknowledgements_shed_their_strings(start_broker: StartBroker, tmp_path: Path) -> None:
    # [MQTT5-3.1.2-24] [MQTT5-3.4.2-2] [MQTT5-3.9.2-1] [MQTT5-3.14.2-3]
    (tmp_path / "acl").write_text("topic readwrite mine/#\n")
    broker = start_broker(f'acl = "{tmp_path}/acl"\n')
    for size in (200, 24):
        with Client5.open(broker.address, "t27", {P.MAXIMUM_PACKET_SIZE: 200}) as client:
            # With room, there are strings; that is what makes the other case one.
            pass
        with Client5(broker.address) as client:
            client.send(connect("t27 acks", {P.MAXIMUM_PACKET_SIZE: size, P.SESSION_EXPIRY: 0}))
            came = client.came()
            if size == 24 and came.type == DISCONNECT:
                continue
            assert (came.type, came.reason) == (CONNACK, 0)
            client.send(publish("theirs/x", b"x", 1) + publish("theirs/x", b"x", 2, packet_id=2))
            client.send(subscribe(("theirs/x", 1)) + unsubscribe("theirs/x") + publish("", b"x"))
            came_all = [client.came() for _ in range(5)]
            assert [each.type for each in came_all] == [PUBACK, PUBREC, SUBACK, UNSUBACK, DISCONNECT]
            assert all(each.size <= size for each in came_all), came_all
            assert any(P.REASON_STRING in each.properties for each in came_all) == (size == 200)
            assert client.closed() == b""


def test_27_what_a_client_may_send_is_told(start_broker: StartBroker) -> None:
    # [MQTT5-3.2.2-15]
    broker = start_broker("max_packet_size = 2048\n")
    with Client5.open(broker.address) as client:
        assert client.connack.properties[P.MAXIMUM_PACKET_SIZE] == 2048
        client.give("t27", b"x" * (2048 - 3 - 2 - 3 - 2 - 1))
        client.send(publish("t27", b"x" * (2048 - 3 - 2 - 3 - 2), 1))
        assert client.told()[:2] == (DISCONNECT, TOO_LARGE)


# --- CONNECT and CONNACK ---


def test_28_an_empty_client_identifier_gets_one(address: Address) -> None:
    # [MQTT5-3.1.3-6] [MQTT5-3.1.3-7] [MQTT5-3.2.2-16]
    names = []
    for clean in (True, False):
        with Client5.open(address, "", STAYS, clean=clean) as client:
            names.append(client.connack.properties[P.ASSIGNED_CLIENT_ID])
            client.ask(("t28", 1))
            client.disconnect()
    assert len({*names, ""}) == 3
    for name in names:
        with Client5.open(address, name, clean=False, present=True) as client:
            assert P.ASSIGNED_CLIENT_ID not in client.connack.properties


def test_34_a_maximum_qos_of_2_is_left_out(address: Address) -> None:
    with Client5.open(address) as client:
        assert P.MAXIMUM_QOS not in client.connack.properties


@pytest.mark.parametrize("most", [0, 1])
def test_34_a_lower_one_is_told(most: int, start_broker: StartBroker) -> None:
    # [MQTT5-3.2.2-9] [MQTT5-3.2.2-10] [MQTT5-3.2.2-11] [MQTT5-3.2.2-12]
    broker = start_broker(f"max_qos = {most}\n")
    with Client5.open(broker.address) as client:
        assert client.connack.properties[P.MAXIMUM_QOS] == most
        client.send(subscribe(("t34", 2)))
        assert client.came().reason in range(most, 3)
        client.send(publish("t34", b"x", most + 1))
        assert client.told()[:2] == (DISCONNECT, 0x9B)
    with Client5(broker.address) as client:
        client.send(connect("t34", will=Will5("t34", qos=most + 1)))
        assert client.told()[:2] == (CONNACK, 0x9B)


def test_35_the_keep_alive_of_the_client_holds_where_no_other_is_told(address: Address) -> None:
    # [MQTT5-3.2.2-22] [MQTT5-3.1.2-22]
    with Client5.open(address, "t35", keep_alive=1) as client:
        assert client.connack.properties.get(P.SERVER_KEEP_ALIVE, 1) == 1
        since = time.monotonic()
        assert client.told()[:2] == (DISCONNECT, KEEP_ALIVE)
        assert 1.0 < time.monotonic() - since < 4


def test_35_the_keep_alive_of_the_broker_is_told(start_broker: StartBroker) -> None:
    # [MQTT5-3.2.2-21]
    broker = start_broker("max_keepalive = 30\n")
    for asked, told in ((0, 30), (31, 30), (60_000, 30)):
        with Client5.open(broker.address, keep_alive=asked) as client:
            assert client.connack.properties[P.SERVER_KEEP_ALIVE] == told
    with Client5.open(broker.address, keep_alive=29) as client:
        assert client.connack.properties.get(P.SERVER_KEEP_ALIVE, 29) == 29


def test_40_a_password_without_a_user_name_is_legal(address: Address) -> None:
    with Client5.open(address, "t40", password=b"secret") as client:
        client.ping()


# --- reason strings ---


@pytest.mark.parametrize("asked", [0, 1])
def test_30_no_strings_for_who_wants_none(asked: int, start_broker: StartBroker, tmp_path: Path) -> None:
    # [MQTT5-3.1.2-29]
    (tmp_path / "acl").write_text("topic readwrite mine/#\n")
    broker = start_broker(f'acl = "{tmp_path}/acl"\n')
    with Client5.open(broker.address, "t30", {P.PROBLEM_INFORMATION: asked}) as client:
        client.send(publish("theirs/x", b"x", 1) + publish("theirs/x", b"x", 2, packet_id=2))
        client.send(subscribe(("theirs/x", 1)) + unsubscribe("theirs/x") + publish("mine/x", b"x", 2, packet_id=3))
        client.send(ack(PUBREL, 3) + ack(PUBREL, 9))
        came = [client.came() for _ in range(7)]
        assert [each.type for each in came] == [PUBACK, PUBREC, SUBACK, UNSUBACK, PUBREC, PUBCOMP, PUBCOMP]
        assert [each.reason for each in came] == [0x87, 0x87, 0x87, 0x11, 0x10, 0, 0x92]
        assert any(P.REASON_STRING in each.properties for each in came) == bool(asked)
        if not asked:
            assert [each.properties for each in came] == [{}] * 7


# --- what is malformed ---

ERRORS = (MALFORMED, PROTOCOL_ERROR)

BAD_CONNECTS = {
    "expiry twice": one_property(P.SESSION_EXPIRY, 1) * 2,
    "receive maximum of 0": one_property(P.RECEIVE_MAXIMUM, 0),
    "packet size of 0": one_property(P.MAXIMUM_PACKET_SIZE, 0),
    "request problem information of 2": one_property(P.PROBLEM_INFORMATION, 2),
    "request response information of 2": one_property(P.RESPONSE_INFORMATION_ASKED, 2),
    "a property of PUBLISH": one_property(P.CONTENT_TYPE, "x"),
    "a property of CONNACK": one_property(P.ASSIGNED_CLIENT_ID, "x"),
    "a will's": one_property(P.WILL_DELAY, 1),
    "data without a method": one_property(P.AUTH_DATA, b"x"),
    "an unknown one": b"\x7f\0",
    "half a property": one_property(P.SESSION_EXPIRY, 1)[:-1],
    "a text that is not UTF-8": b"\x26" + text(b"\xff") + text("x"),
    "a text with NUL": b"\x26" + text("a\0b") + text("x"),
    "an identifier of two bytes": b"\x91\x00\0\0\0\1",
}


@pytest.mark.parametrize("properties", BAD_CONNECTS.values(), ids=BAD_CONNECTS)
def test_31_properties_of_connect_that_are_errors(properties: bytes, address: Address) -> None:
    # [MQTT5-2.2.2-2]
    with Client5(address) as client:
        client.send(connect("t31", properties))
        came = client.told()
        assert came.type == CONNACK
        assert came.reason in ERRORS


BAD_PACKETS = {
    "PUBLISH: content type twice": publish("t31", b"", 1, one_property(P.CONTENT_TYPE, "a") * 2),
    "PUBLISH: alias twice": publish("t31", b"", 1, one_property(P.ALIAS, 1) * 2),
    "PUBLISH: a property of CONNECT": publish("t31", b"", 1, one_property(P.SESSION_EXPIRY, 1)),
    "PUBLISH: a format of 2": publish("t31", b"", 1, one_property(P.PAYLOAD_FORMAT, 2)),
    "PUBLISH: longer than the packet": packet(0x30, text("t31") + b"\x7f"),
    "PUBLISH: a length of five bytes": packet(0x30, text("t31") + b"\xff\xff\xff\xff\x01"),
    "PUBLISH: QoS 3": packet(0x36, text("t31") + b"\0\1\0"),
    "PUBLISH: no topic and no alias": publish("", b"x", 1),
    "SUBSCRIBE: identifier twice": subscribe(("t31", 0), properties=one_property(P.SUBSCRIPTION_ID, 1) * 2),
    "SUBSCRIBE: a property of PUBLISH": subscribe(("t31", 0), properties=one_property(P.ALIAS, 1)),
    "SUBSCRIBE: QoS 3": subscribe(("t31", 3)),
    "SUBSCRIBE: Retain Handling 3": subscribe(("t31", 0x30)),
    "SUBSCRIBE: reserved bits": subscribe(("t31", 0x40)),
    "SUBSCRIBE: no filters": packet(0x82, b"\0\1\0"),
    "SUBSCRIBE: wrong flags": b"\x80" + subscribe(("t31", 0))[1:],
    "UNSUBSCRIBE: no filters": packet(0xA2, b"\0\1\0"),
    "PUBACK: a property of PUBLISH": ack(PUBACK, 1, 0, one_property(P.ALIAS, 1)),
    "PUBACK: reason string twice": ack(PUBACK, 1, 0, one_property(P.REASON_STRING, "a") * 2),
    "PUBREL: wrong flags": b"\x60\x02\0\1",
    "DISCONNECT: a property of PUBLISH": disconnect(0, one_property(P.CONTENT_TYPE, "x")),
    "DISCONNECT: wrong flags": b"\xe1\0",
    "AUTH: without a method": packet(0xF0, b"\x18\0"),
    "AUTH: where there was none": packet(0xF0, b"\x19" + section({P.AUTH_METHOD: "x"})),
    "CONNECT: a second one": connect("t31"),
    "a CONNACK": b"\x20\x03\0\0\0",
    "a reserved type": b"\x00\x00",
}


@pytest.mark.parametrize("data", BAD_PACKETS.values(), ids=BAD_PACKETS)
def test_31_packets_that_are_errors(data: bytes, address: Address) -> None:
    # [MQTT5-2.2.2-2] [MQTT5-4.13.1-1]
    with Client5.open(address) as bystander, Client5.open(address) as client:
        client.send(data)
        came = client.told()
        assert came.type == DISCONNECT
        assert came.reason in ERRORS
        bystander.ping()


# --- short forms ---


@pytest.mark.parametrize(
    ("reason", "properties"),
    [(None, None), (0, None), (0, {}), (0, {P.REASON_STRING: "why", P.USER: [("a", "b")] * 2})],
)
def test_39_acknowledgements_of_any_length(reason: int | None, properties: Properties | None, address: Address) -> None:
    with Client5.open(address) as author, Client5.open(address, "", {P.RECEIVE_MAXIMUM: 1}) as client:
        client.ask(("t39", 2))
        for qos in (1, 2, 1, 2):
            author.send(publish("t39", b"x", qos))
            assert author.came()[:3] == (PUBACK if qos == 1 else PUBREC, 0, 1)
            if qos == 2:
                author.send(ack(PUBREL, 1, reason, properties))
                assert author.want(PUBCOMP).packet_id == 1
            came = client.get()
            assert came.qos == qos
            if qos == 1:
                client.send(ack(PUBACK, came.packet_id, reason, properties))
            else:
                client.send(ack(PUBREC, came.packet_id, reason, properties))
                client.want(PUBREL)
                client.send(ack(PUBCOMP, came.packet_id, reason, properties))
        client.ping()


@pytest.mark.parametrize("data", [b"\xe0\0", b"\xe0\1\0", b"\xe0\2\0\0", disconnect(0, {P.REASON_STRING: "bye"})])
def test_39_disconnects_of_any_length(data: bytes, address: Address) -> None:
    # [MQTT5-3.14.4-3]
    with Client5.open(address) as heir:
        heir.ask(("t39/will", 0))
        with Client5.open(address, will=Will5("t39/will")) as client:
            client.send(data)
            assert client.closed() == b""
        heir.ping()


# --- AUTH ---


@pytest.fixture
def scram_broker(start_broker: StartBroker, tmp_path: Path) -> BrokerProcess:
    set_password(str(tmp_path / "users"), "ann", b"secret", create=True, method="SCRAM-SHA-256")
    return start_broker(f'passwords = "{tmp_path}/users"\n')


def test_32_auth_repeats_the_method(scram_broker: BrokerProcess) -> None:
    # [MQTT5-4.12.0-5] [MQTT5-4.12.0-2]
    method = "SCRAM-SHA-256"
    with Client5(scram_broker.address) as client:
        came = raw_auth.log_in(client, ScramClient(method, "ann", "secret"), method, "t32")
        assert (came.type, came.reason, came.method) == (CONNACK, 0, method)
        came = raw_auth.authenticate_again(client, ScramClient(method, "ann", "secret"), method)
        assert (came.type, came.reason, came.method) == (15, 0, method)
        client.ping()


def test_32_a_failed_second_authentication_is_a_disconnect(scram_broker: BrokerProcess) -> None:
    # [MQTT5-4.12.1-2]
    method = "SCRAM-SHA-256"
    with Client5(scram_broker.address) as client:
        raw_auth.log_in(client, ScramClient(method, "ann", "secret"), method, "t32")
        came = raw_auth.authenticate_again(client, ScramClient(method, "ann", "wrong"), method)
        assert (came.type, came.reason) == (DISCONNECT, NOT_AUTHORIZED)
        assert client.closed() == b""
    for again in (
        raw_auth.auth(AGAIN, "SCRAM-SHA-512", b"x"),  # [MQTT5-4.12.1-1]: another method
        raw_auth.auth(CONTINUE, method, b"x"),  # out of turn
    ):
        with Client5(scram_broker.address) as client:
            raw_auth.log_in(client, ScramClient(method, "ann", "secret"), method, "t32")
            client.send(again)
            assert client.told().type == DISCONNECT


def test_32_an_unknown_method_and_a_wrong_password(scram_broker: BrokerProcess) -> None:
    # [MQTT5-4.12.0-1] [MQTT5-4.12.0-4] [MQTT5-4.12.0-6]
    with Client5(scram_broker.address) as client:
        client.send(raw_auth.connect5("t32", "GS2-KRB5", b"x"))
        assert client.told()[:2] == (CONNACK, 0x8C)
    method = "SCRAM-SHA-256"
    for user, password in (("ann", "wrong"), ("nobody", "secret")):
        with Client5(scram_broker.address) as client:
            came = raw_auth.log_in(client, ScramClient(method, user, password), method, "t32")
            assert (came.type, came.reason) == (CONNACK, BAD_PASSWORD)
            assert client.closed() == b""
    with Client5.open(scram_broker.address, "t32", username="ann", password=b"secret") as client:
        assert P.AUTH_METHOD not in client.connack.properties
        client.give("t32", b"x")
