"""What a client of MQTT 5.0 is told that it may not do, what becomes of it if it does, and why it is disconnected; and
what one of MQTT 3.1.1 gets of it."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from broker.auth.passwords import delete_user, set_password
from tests import raw_client
from tests.broker_process import StartBroker
from tests.raw_client import RawClient
from tests.raw_client_5 import (
    CONNACK,
    DISCONNECT,
    PUBACK,
    SUBACK,
    Client5,
    P,
    Properties,
    Will5,
    ack,
    connect,
    publish,
    section,
    subscribe,
)

NOT_AUTHORIZED, SHUTTING_DOWN, ADMINISTRATIVE, RETAIN, NO_SHARED, NO_WILDCARDS = 0x87, 0x8B, 0x98, 0x9A, 0x9E, 0xA2
ANOTHER_SERVER, MOVED, VERSION = 0x9C, 0x9D, 0x84

STAYS: Properties = {P.SESSION_EXPIRY: 100}


def test_without_retained_messages(start_broker: StartBroker) -> None:
    # [MQTT5-3.2.2-13] [MQTT5-3.2.2-14]
    broker = start_broker("retain_available = false\n")
    with Client5.open(broker.address) as reader, RawClient.connected(broker.address) as old:
        reader.ask(("r", 1))
        with Client5.open(broker.address) as client:
            assert client.connack.properties[P.RETAIN_AVAILABLE] == 0
            client.send(publish("r", b"x", 1, retain=True))
            assert client.told()[:2] == (DISCONNECT, RETAIN)
        with Client5(broker.address) as client:
            client.send(connect("will", will=Will5("r", retain=True)))
            assert client.told()[:2] == (CONNACK, RETAIN)
        old.send(raw_client.publish("r", b"old", 1, retain=True))
        old.expect(raw_client.puback(1))
        assert reader.take().payload == b"old"
    with Client5.open(broker.address) as late:
        late.ask(("r", 1))
        late.ping()


def test_without_wildcards_and_shared_subscriptions(start_broker: StartBroker) -> None:
    broker = start_broker("wildcard_available = false\nshared_available = false\n")
    with Client5.open(broker.address) as client:
        assert client.connack.properties[P.WILDCARD_AVAILABLE] == 0
        assert client.connack.properties[P.SHARED_AVAILABLE] == 0
        client.send(subscribe(("a/+", 0), ("#", 1), ("$share/g/a", 0), ("a", 1)))
        came = client.came()
        assert came[:1] == (SUBACK,)
        assert came.reasons == (NO_WILDCARDS, NO_WILDCARDS, NO_SHARED, 1)
        client.ping()
    with RawClient.connected(broker.address) as old:
        old.send(raw_client.subscribe(("a/+", 0), ("$share/g/a", 0), ("a", 1)))
        old.expect(raw_client.suback(0x80, 0x80, 1))


def test_by_default_nothing_is_lacking(start_broker: StartBroker) -> None:
    with Client5.open(start_broker().address) as client:
        for name in (
            P.RETAIN_AVAILABLE, P.WILDCARD_AVAILABLE, P.SUBSCRIPTION_IDS_AVAILABLE, P.SHARED_AVAILABLE,
            P.RESPONSE_INFORMATION, P.SERVER_REFERENCE, P.AUTH_METHOD, P.AUTH_DATA,
        ):  # fmt: skip
            assert client.connack.properties.get(name, 1) == 1


def test_the_versions_that_a_listener_takes(start_broker: StartBroker) -> None:
    # [MQTT5-3.1.2-2]
    broker = start_broker('[[listeners]]\nprotocols = ["3.1.1"]\n[[listeners]]\nprotocols = ["5.0"]\n')
    RawClient.connected(broker.addresses[0]).close()
    with Client5(broker.addresses[0]) as client:
        client.send(connect("five"))
        assert client.told()[:2] == (CONNACK, VERSION)
    Client5.open(broker.addresses[1]).close()
    with RawClient(broker.addresses[1]) as old:
        old.send(raw_client.connect("four"))
        assert old.closed() == raw_client.connack(1)


def test_a_version_that_is_none(start_broker: StartBroker) -> None:
    # [MQTT5-3.1.2-2]
    broker = start_broker()
    with Client5(broker.address) as client:
        client.send(connect("six").replace(b"MQTT\5", b"MQTT\6"))
        came = client.closed()
        assert came in (b"", raw_client.connack(1), b"\x20\x03\0\x84\0")


def test_response_information_for_who_asks(start_broker: StartBroker) -> None:
    # [MQTT5-3.1.2-28]
    broker = start_broker('response_information = "answers/%c"\n')
    for asked in (0, 1):
        with Client5.open(broker.address, "rr", {P.RESPONSE_INFORMATION_ASKED: asked}) as client:
            told = client.connack.properties.get(P.RESPONSE_INFORMATION)
            assert told == ("answers/rr" if asked else None)


# --- why connections end ---


def test_the_end_of_the_broker(start_broker: StartBroker) -> None:
    broker = start_broker()
    with Client5.open(broker.address, "five", STAYS) as client, RawClient.connected(broker.address) as old:
        broker.signal(signal.SIGTERM)
        assert client.told()[:2] == (DISCONNECT, SHUTTING_DOWN)
        assert old.closed() == b""
    assert broker.wait() == 0


def test_the_end_of_a_broker_that_has_a_deputy(start_broker: StartBroker) -> None:
    broker = start_broker('server_reference = "other:1883"\n')
    with Client5.open(broker.address) as client:
        broker.signal(signal.SIGTERM)
        came = client.told()
        assert (came.type, came.reason) == (DISCONNECT, ANOTHER_SERVER)
        assert came.properties[P.SERVER_REFERENCE] == "other:1883"
    assert broker.wait() == 0


@pytest.mark.parametrize(("moved", "reason"), [("for now", ANOTHER_SERVER), ("for good", MOVED)])
def test_a_broker_that_has_moved(moved: str, reason: int, start_broker: StartBroker) -> None:
    broker = start_broker('server_reference = "other:1883"\n')
    with Client5.open(broker.address) as client:
        broker.reload(f'server_reference = "other:1883"\nmoved = "{moved}"\n')
        came = client.told()
        assert (came.type, came.reason) == (DISCONNECT, reason)
        assert came.properties[P.SERVER_REFERENCE] == "other:1883"
    with Client5(broker.address) as client:
        client.send(connect("late"))
        came = client.told()
        assert (came.type, came.reason) == (CONNACK, reason)
        assert came.properties[P.SERVER_REFERENCE] == "other:1883"
    with RawClient(broker.address) as old:
        old.send(raw_client.connect("late"))
        assert old.closed() == raw_client.connack(3)


def test_a_user_who_was_removed(start_broker: StartBroker, tmp_path: Path) -> None:
    users = str(tmp_path / "users")
    for user in ("ann", "bob"):
        set_password(users, user, b"secret", create=True, iterations=1)
    broker = start_broker(f'passwords = "{users}"\n')
    with (
        Client5.open(broker.address, username="ann", password=b"secret") as ann,
        Client5.open(broker.address, username="bob", password=b"secret") as bob,
    ):
        delete_user(users, "ann")
        broker.reload()
        came = ann.told()
        assert came.type == DISCONNECT
        assert came.reason in (NOT_AUTHORIZED, ADMINISTRATIVE)
        bob.ping()
    with Client5(broker.address) as client:
        client.send(connect("late", username="ann", password=b"secret"))
        came = client.told()
        assert (came.type, came.reason) == (CONNACK, 0x86)


def test_rights_as_reason_codes(start_broker: StartBroker, tmp_path: Path) -> None:
    (tmp_path / "acl").write_text("topic readwrite mine/#\ntopic read theirs/#\n")
    broker = start_broker(f'acl = "{tmp_path}/acl"\n')
    with Client5.open(broker.address) as client:
        client.ask(("mine/#", 1))
        client.send(subscribe(("other/x", 1), ("$share/g/other/x", 1), ("mine/y", 1)))
        assert client.came().reasons == (NOT_AUTHORIZED, NOT_AUTHORIZED, 1)
        assert client.give("theirs/x") == NOT_AUTHORIZED
        assert client.give("theirs/x", b"", 2) == NOT_AUTHORIZED
        client.send(publish("theirs/x"))
        client.ping()
        # A Response Topic gives nobody a right that he has not.
        client.send(publish("mine/x", b"q", 1, {P.RESPONSE_TOPIC: "theirs/x"}))
        came = [client.came(), client.came()]
        assert {each.type for each in came} == {PUBACK, 3}
        (asked,) = [each for each in came if each.type == 3]
        client.send(ack(PUBACK, asked.packet_id))
        assert client.give(asked.properties[P.RESPONSE_TOPIC], b"answer") == NOT_AUTHORIZED


def test_a_shared_subscription_gives_nobody_a_right(start_broker: StartBroker, tmp_path: Path) -> None:
    """Rights that are taken away are taken from a member of a group, too: the others get what it would have got."""
    acl = tmp_path / "acl"
    acl.write_text("topic readwrite t/#\n")
    users = tmp_path / "users"
    for user in ("ann", "bob"):
        set_password(str(users), user, b"secret", create=True, iterations=1)
    acl.write_text("user ann\ntopic readwrite t/#\nuser bob\ntopic readwrite t/#\n")
    broker = start_broker(f'passwords = "{users}"\nacl = "{acl}"\n')
    with (
        Client5.open(broker.address, "a", username="ann", password=b"secret") as ann,
        Client5.open(broker.address, "b", username="bob", password=b"secret") as bob,
    ):
        for client in (ann, bob):
            client.ask(("$share/g/t/x", 1))
        acl.write_text("user ann\ntopic write t/#\nuser bob\ntopic readwrite t/#\n")
        broker.reload()
        for number in range(6):
            assert ann.give("t/x", b"%d" % number) == 0
        assert [bob.take().payload for _ in range(6)] == [b"%d" % number for number in range(6)]
        ann.ping()


def test_a_will_is_not_published_by_who_may_not_any_more(start_broker: StartBroker, tmp_path: Path) -> None:
    acl = tmp_path / "acl"
    acl.write_text("topic readwrite t/#\n")
    broker = start_broker(f'acl = "{acl}"\n')
    with Client5.open(broker.address, "heir") as heir:
        heir.ask(("t/#", 1))
        will = Will5("t/will", b"x", 1, False, {P.WILL_DELAY: 2})
        Client5.open(broker.address, "gone", STAYS, will=will).close()
        acl.write_text("topic read t/#\n")
        broker.reload()
        broker.wait_for("will refused: not authorised", client="gone")
        heir.ping()


# --- AUTH where there is none ---


def test_a_method_that_nobody_knows(start_broker: StartBroker) -> None:
    # [MQTT5-4.12.0-1]
    broker = start_broker()
    with Client5(broker.address) as client:
        client.send(connect("auth", {P.AUTH_METHOD: "KERBEROS", P.AUTH_DATA: b"x"}))
        assert client.told()[:2] == (CONNACK, 0x8C)
    with Client5(broker.address) as client:
        client.send(raw_client.packet(0xF0, b"\x18" + section({P.AUTH_METHOD: "KERBEROS"})))
        assert client.closed() == b""  # [MQTT5-3.1.0-1]
