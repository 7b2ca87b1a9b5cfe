"""The tables of "MQTT 5.0" (broker/docs/mqtt5.md): what a client gets in 5.0, and what one gets in 3.1.1."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from broker.auth.passwords import set_password
from tests.broker_process import StartBroker
from tests.raw_client import Address, Closed, RawClient, Will, connack, puback, suback
from tests.raw_client import connect as connect3
from tests.raw_client import publish as publish3
from tests.raw_client import subscribe as subscribe3
from tests.raw_client import unsubscribe as unsubscribe3
from tests.raw_client_5 import (
    CONNACK,
    DISCONNECT,
    PUBACK,
    SUBACK,
    UNSUBACK,
    Client5,
    P,
    Will5,
    connect,
    parse,
    publish,
    subscribe,
    unsubscribe,
)

ENDS = b""  #: the connection, without a word
Packets = Sequence[bytes]

#: By line of the second table: the configuration; what clients of each version send, and what comes of it.
TOLD: dict[str, tuple[str, Packets, tuple[int, int], Packets, bytes]] = {
    "max_qos, PUBLISH": (
        "max_qos = 1", (connect(), publish("x", b"", 2)), (DISCONNECT, 0x9B), (connect3("x"), publish3("x", b"", 2)),
        ENDS,
    ),
    "max_qos, will": (
        "max_qos = 1", (connect(will=Will5("x", qos=2)),), (CONNACK, 0x9B), (connect3("x", will=Will("x", qos=2)),),
        connack(),
    ),
    "max_qos, SUBSCRIBE": (
        "max_qos = 1", (connect(), subscribe(("x", 2))), (SUBACK, 1), (connect3("x"), subscribe3(("x", 2))), suback(1),
    ),
    "retain_available, PUBLISH": (
        "retain_available = false", (connect(), publish("x", b"", 1, retain=True)), (DISCONNECT, 0x9A),
        (connect3("x"), publish3("x", b"", 1, retain=True)), puback(1),
    ),
    "retain_available, will": (
        "retain_available = false", (connect(will=Will5("x", retain=True)),), (CONNACK, 0x9A),
        (connect3("x", will=Will("x", retain=True)),), connack(),
    ),
    "wildcard_available": (
        "wildcard_available = false", (connect(), subscribe(("x/#", 0))), (SUBACK, 0xA2),
        (connect3("x"), subscribe3(("x/#", 0))), suback(0x80),
    ),
    "shared_available": (
        "shared_available = false", (connect(), subscribe(("$share/g/x", 0))), (SUBACK, 0x9E),
        (connect3("x"), subscribe3(("$share/g/x", 0))), suback(0x80),
    ),
    "receive_maximum": (
        "receive_maximum = 1", (connect(), publish("x", b"", 2), publish("x", b"", 2, packet_id=2)), (DISCONNECT, 0x93),
        (connect3("x"), publish3("x", b"", 2), publish3("x", b"", 2, packet_id=2)), b"\x50\x02\x00\x02",
    ),
    "max_topic_alias": (
        "max_topic_alias = 3", (connect(), publish("x", b"", 1, {P.ALIAS: 4})), (DISCONNECT, 0x94),
        (connect3("x"), publish3("x", b"", 1)), puback(1),
    ),
    "max_packet_size": (
        "max_packet_size = 1024", (connect(), publish("x", b"x" * 1024)), (DISCONNECT, 0x95),
        (connect3("x"), publish3("x", b"x" * 1024)), ENDS,
    ),
    "protocols, without 5.0": ('protocols = ["3.1.1"]', (connect(),), (CONNACK, 0x84), (connect3("x"),), connack()),
    "protocols, 5.0 alone": ('protocols = ["5.0"]', (connect(),), (CONNACK, 0), (connect3("x"),), connack(1)),
    # --- "Reasons" ---
    "wrong password": (
        'passwords = "{users}"', (connect(username="alice", password=b"x"),), (CONNACK, 0x86),
        (connect3("x", username="alice", password=b"x"),), connack(4),
    ),
    "may not connect": (
        'passwords = "{users}"\ndeny_users = ["alice"]', (connect(username="alice", password=b"secret"),),
        (CONNACK, 0x87), (connect3("x", username="alice", password=b"secret"),), connack(5),
    ),
    "nor anonymously": ('passwords = "{users}"', (connect(),), (CONNACK, 0x87), (connect3("x"),), connack(5)),
    "wrong prefix": (
        'client_id_prefixes = ["a-"]', (connect("b"),), (CONNACK, 0x85), (connect3("b"),), connack(2),
    ),
    "max_sessions": (
        "max_sessions = 1", (connect("a", {P.SESSION_EXPIRY: 9}), connect("b", {P.SESSION_EXPIRY: 9})), (CONNACK, 0x97),
        (connect3("c", clean=False), connect3("d", clean=False)), connack(3),
    ),
    "unknown method": (
        'passwords = "{users}"', (connect("x", {P.AUTH_METHOD: "GS2-KRB5"}),), (CONNACK, 0x8C),
        (connect3("x", username="alice", password=b"secret"),), connack(),
    ),
    "subscription that it may not have": (
        'acl = "{acl}"', (connect(), subscribe(("no", 0))), (SUBACK, 0x87), (connect3("x"), subscribe3(("no", 0))),
        suback(0x80),
    ),
    "max_subscriptions": (
        "max_subscriptions = 1", (connect(), subscribe(("x", 0)), subscribe(("y", 0))), (SUBACK, 0x97),
        (connect3("x"), subscribe3(("x", 0)), subscribe3(("y", 0))), suback(0x80),
    ),
    "filter that is too deep": (
        "max_topic_levels = 1", (connect(), subscribe(("x/y", 0))), (SUBACK, 0x8F),
        (connect3("x"), subscribe3(("x/y", 0))), suback(0x80),
    ),
    "UNSUBSCRIBE from nothing": (
        "", (connect(), unsubscribe("x")), (UNSUBACK, 0x11), (connect3("x"), unsubscribe3("x")), b"\xb0\x02\x00\x01",
    ),
    "message that it may not publish": (
        'acl = "{acl}"', (connect(), publish("no", b"", 1)), (PUBACK, 0x87), (connect3("x"), publish3("no", b"", 1)),
        puback(1),
    ),
    "message without a subscription": (
        "", (connect(), publish("x", b"", 1)), (PUBACK, 0x10), (connect3("x"), publish3("x", b"", 1)), puback(1),
    ),
    "protocol error": (
        "", (connect(), connect()), (DISCONNECT, 0x82), (connect3("x"), connect3("x")), ENDS,
    ),
    "malformed": (
        "", (connect(), b"\x36\x00"), (DISCONNECT, 0x81), (connect3("x"), b"\x36\x00"), ENDS,
    ),
    "moved": (
        'server_reference = "other"\nmoved = "for now"', (connect(),), (CONNACK, 0x9C), (connect3("x"),), connack(3),
    ),
    "moved for good": (
        'server_reference = "other"\nmoved = "for good"', (connect(),), (CONNACK, 0x9D), (connect3("x"),), connack(3),
    ),
}  # fmt: skip


def last(address: Address, packets: Packets) -> bytes:
    """The last of the answers to these packets, each of which gets one. A second CONNECT of another client is sent by
    another client."""
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(RawClient(address))
        came = b""
        for number, data in enumerate(packets):
            if number and data[0] == 0x10 and data != packets[0]:
                client = stack.enter_context(RawClient(address))
            client.send(data)
            try:
                came = client.next()
            except Closed:
                return ENDS
        return came


@pytest.mark.parametrize("line", TOLD)
def test_what_clients_get(line: str, start_broker: StartBroker, tmp_path: Path) -> None:
    toml, fives, told, threes, answer = TOLD[line]
    users, acl = tmp_path / "users", tmp_path / "acl"
    set_password(str(users), "alice", b"secret", create=True, iterations=101)
    acl.write_text("topic yes\n")
    address = start_broker(toml.format(users=users, acl=acl)).address
    assert parse(last(address, fives))[:2] == told
    assert last(address, threes) == answer


@pytest.mark.parametrize(("reference", "reason"), [("", 0x8B), ('server_reference = "other"', 0x9C)])
def test_the_broker_ends(reference: str, reason: int, start_broker: StartBroker) -> None:
    broker = start_broker(reference)
    with Client5.open(broker.address) as five, RawClient.connected(broker.address, "three") as three:
        broker.stop()
        told = five.told()
        assert (told.type, told.reason) == (DISCONNECT, reason)
        assert told.properties.get(P.SERVER_REFERENCE) == ("other" if reference else None)
        assert three.closed() == b""


def test_a_client_that_may_not_connect_any_more(start_broker: StartBroker, tmp_path: Path) -> None:
    users = tmp_path / "users"
    set_password(str(users), "alice", b"secret", create=True, iterations=101)
    toml = f'passwords = "{users}"\n'
    broker = start_broker(toml)
    with Client5.open(broker.address, username="alice", password=b"secret") as five:
        broker.write_config(f'{toml}deny_users = ["alice"]\n')
        broker.process.send_signal(signal.SIGHUP)
        assert five.told()[:2] == (DISCONNECT, 0x87)


def test_clients_are_sent_to_another_broker(start_broker: StartBroker) -> None:
    broker = start_broker()
    with Client5.open(broker.address) as five, RawClient.connected(broker.address, "three") as three:
        broker.write_config('server_reference = "other.example:1883"\nmoved = "for good"\n')
        broker.process.send_signal(signal.SIGHUP)
        told = five.told()
        assert (told[:2], told.properties[P.SERVER_REFERENCE]) == ((DISCONNECT, 0x9D), "other.example:1883")
        assert three.closed() == b""


# --- "What clients of MQTT 3.1.1 notice" ---


def test_a_session_goes_on_in_another_version(start_broker: StartBroker) -> None:
    """What waits keeps its properties, and the end of the session is that of the new version."""
    broker = start_broker("session_expiry = 1000\nmax_session_expiry = 2000\n")
    kept = {P.CONTENT_TYPE: "text/plain", P.USER: [("room", "hall")]}
    with RawClient.connected(broker.address, "x", clean=False) as three:
        three.subscribe(("x", 1))
    with Client5.open(broker.address, "author") as author:
        author.give("x", b"1", 1, kept)
        author.give("x", b"2", 1, kept)
        with Client5.open(broker.address, "x", {P.SESSION_EXPIRY: 3000}, clean=False, present=True) as five:
            assert five.connack.properties[P.SESSION_EXPIRY] == 2000
            came = five.get()
            assert (came.payload, came.properties) == (b"1", kept)
        with RawClient.connected(broker.address, "x", clean=False, present=True) as three:
            assert [three.message().payload for _ in range(2)] == [b"1", b"2"]


def test_what_has_expired_reaches_nobody(start_broker: StartBroker) -> None:
    broker = start_broker()
    with RawClient.connected(broker.address, "x", clean=False) as three:
        three.subscribe(("x", 1))
    with Client5.open(broker.address, "author") as author, Client5.open(broker.address, "there") as there:
        there.ask(("x", 0))
        author.give("x", b"late", 1, {P.MESSAGE_EXPIRY: 0})
        assert there.get().payload == b"late"  # it was there at once
        author.give("x", b"in time", 1, {P.MESSAGE_EXPIRY: 1000})
    with RawClient.connected(broker.address, "x", clean=False, present=True) as three:
        assert three.message().payload == b"in time"


def test_sentences_are_left_to_those_who_want_them(start_broker: StartBroker, tmp_path: Path) -> None:
    (tmp_path / "acl").write_text("topic yes\n")
    address = start_broker(f'acl = "{tmp_path}/acl"\n').address
    for properties, are_told in (({}, True), ({P.PROBLEM_INFORMATION: 0}, False), ({P.MAXIMUM_PACKET_SIZE: 30}, False)):
        with Client5.open(address, "x", properties) as client:
            client.send(publish("no", b"", 1))
            assert (P.REASON_STRING in client.want(PUBACK, 0x87).properties) is are_told
            client.send(connect("x"))
            assert (P.REASON_STRING in client.told().properties) is are_told


def test_response_information(start_broker: StartBroker, tmp_path: Path) -> None:
    (tmp_path / "acl").write_text("pattern readwrite answers/%c/#\n")
    broker = start_broker(f'response_information = "answers/%c/"\nacl = "{tmp_path}/acl"\n')
    with Client5.open(broker.address, "one", {P.RESPONSE_INFORMATION_ASKED: 1}) as one:
        assert one.connack.properties[P.RESPONSE_INFORMATION] == "answers/one/"
        one.ask(("answers/one/#", 0))
    with Client5.open(broker.address, "two") as two:
        assert P.RESPONSE_INFORMATION not in two.connack.properties
        two.send(subscribe(("answers/one/#", 0)))
        assert two.came().reason == 0x87
