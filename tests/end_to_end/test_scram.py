"""SCRAM, as MQTT 5.0 clients meet it: raw bytes, and paho-mqtt with the AUTH that it lacks."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.auth.passwords import delete_user, set_password
from tests.broker_process import BrokerProcess, StartBroker
from tests.end_to_end.scram_paho import ScramPaho
from tests.raw_auth import AGAIN, CONTINUE, Answer, answer, auth, authenticate_again, connect5, log_in
from tests.raw_client import RawClient, connack, connect
from tests.scram_client import ScramClient

SHA_256, SHA_512 = "SCRAM-SHA-256", "SCRAM-SHA-512"
USERS = (("ann", SHA_256), ("large", SHA_512), ("J\u00f6rg, =", SHA_256), ("bob", None), ("mallory", SHA_256))


@pytest.fixture
def broker(start_broker: StartBroker, tmp_path: Path) -> BrokerProcess:
    passwords, acl = tmp_path / "passwords", tmp_path / "acl"
    for user, method in USERS:
        rounds = 4096 if method else 1
        set_password(str(passwords), user, b"secret", create=True, iterations=rounds, method=method)
    acl.write_text("user ann\ntopic readwrite #\n")
    return start_broker(f'passwords = "{passwords}"\nacl = "{acl}"\ndeny_users = ["mallory"]\n', data=tmp_path / "data")


def scram(user: str = "ann", password: str = "secret", method: str = SHA_256) -> ScramClient:
    return ScramClient(method, user, password)


@pytest.mark.parametrize(("user", "method"), [(user, method) for user, method in USERS[:3] if method])
def test_who_knows_the_password_is_in(broker: BrokerProcess, user: str, method: str) -> None:
    """[MQTT5-4.12.0-2] [MQTT5-4.12.0-5]"""
    with RawClient(broker.address) as client:
        end = log_in(client, scram(user, method=method), method, "c")
        assert (end.type, end.reason, end.method) == (2, 0, method)
        client.ping()


@pytest.mark.parametrize("version", [4, 5])
def test_the_same_user_may_give_the_password(broker: BrokerProcess, version: int) -> None:
    with RawClient(broker.address) as client:
        if version == 4:
            client.send(connect("c", username="ann", password=b"secret"))
            client.expect(connack())
        else:  # [MQTT5-4.12.0-6]
            client.send(connect5("c", username="ann", password=b"secret"))
            end = answer(client)
            assert (end.type, end.reason, end.method, end.data) == (2, 0, "", b"")


@pytest.mark.parametrize("user", ["ann", "nobody", "bob", "large"])
def test_a_wrong_password_and_an_unknown_user_look_the_same(broker: BrokerProcess, user: str) -> None:
    """[MQTT5-4.12.0-4]"""
    with RawClient(broker.address) as client:
        end = log_in(client, scram(user, "wrong"), SHA_256, "c")
        told = "the user name or the password is wrong"
        assert end._replace(method="", data=b"") == Answer(2, 0x86, "", b"", told)
        assert client.closed() == b""


def test_a_denied_user(broker: BrokerProcess) -> None:
    with RawClient(broker.address) as client:
        end = log_in(client, scram("mallory"), SHA_256, "c")
        assert (end.type, end.reason) == (2, 0x87)


@pytest.mark.parametrize("method", ["PLAIN", "SCRAM-SHA-1", "scram-sha-256", ""])
def test_another_method(broker: BrokerProcess, method: str) -> None:
    """[MQTT5-4.12.0-1]"""
    with RawClient(broker.address) as client:
        client.send(connect5("c", method, b"n,,n=ann,r=abcdefgh"))
        end = answer(client)
        assert (end.type, end.reason) == (2, 0x8C)
        assert client.closed() == b""


def test_nonsense(broker: BrokerProcess) -> None:
    with RawClient(broker.address) as client:
        client.send(connect5("c", SHA_256, b"nonsense"))
        end = answer(client)
        assert (end.type, end.reason) == (2, 0x87)


def test_a_user_name_in_connect_must_be_the_same(broker: BrokerProcess) -> None:
    for username, reason in (("ann", 0), ("bob", 0x87)):
        with RawClient(broker.address) as client:
            assert log_in(client, scram(), SHA_256, "c", username).reason == reason


def test_the_first_message_may_come_in_an_auth(broker: BrokerProcess) -> None:
    with RawClient(broker.address) as client:
        client.send(connect5("c", SHA_256))
        asked = answer(client)
        assert (asked.type, asked.reason, asked.method, asked.data) == (15, CONTINUE, SHA_256, b"")
        mine = scram()
        client.send(auth(CONTINUE, SHA_256, mine.first()))
        client.send(auth(CONTINUE, SHA_256, mine.final(answer(client).data)))
        end = answer(client)
        mine.check(end.data)
        assert (end.type, end.reason) == (2, 0)


def test_again(broker: BrokerProcess) -> None:
    with RawClient(broker.address) as client:
        log_in(client, scram(), SHA_256, "c")
        for _ in range(2):
            end = authenticate_again(client, scram(), SHA_256)
            assert (end.type, end.reason, end.method) == (15, 0, SHA_256)
        client.ping()


@pytest.mark.parametrize(
    ("mine", "method", "reasons"),
    [
        (scram(password="wrong"), SHA_256, {0x87}),
        (scram("J\u00f6rg, ="), SHA_256, {0x87}),
        (scram("large", method=SHA_512), SHA_512, {0x82, 0x8C}),  # [MQTT5-4.12.1-1]
    ],
    ids=["wrong", "another-user", "another-method"],
)
def test_again_in_vain(broker: BrokerProcess, mine: ScramClient, method: str, reasons: set[int]) -> None:
    """[MQTT5-4.12.1-2]"""
    with RawClient(broker.address) as client:
        log_in(client, scram(), SHA_256, "c")
        end = authenticate_again(client, mine, method)
        assert (end.type, end.reason in reasons) == (14, True)
        assert client.closed() == b""


def test_without_a_method_there_is_no_auth(broker: BrokerProcess) -> None:
    """[MQTT5-4.12.0-7]"""
    with RawClient(broker.address) as client:
        client.send(connect5("c", username="ann", password=b"secret"))
        assert answer(client).reason == 0
        client.send(auth(AGAIN, SHA_256, scram().first()))
        end = answer(client)
        assert (end.type, end.reason) == (14, 0x82)


def test_nothing_else_before_the_connack(broker: BrokerProcess) -> None:
    """[MQTT5-3.1.2-30]"""
    with RawClient(broker.address) as client:
        client.send(connect5("c", SHA_256, scram().first()))
        assert answer(client).type == 15
        client.send(b"\xc0\x00")
        assert not client.closed().endswith(b"\xd0\x00")


def test_a_reload_that_removes_the_user_ends_its_connection(broker: BrokerProcess, tmp_path: Path) -> None:
    with RawClient(broker.address) as client:
        log_in(client, scram(), SHA_256, "c")
        delete_user(str(tmp_path / "passwords"), "ann")
        broker.reload()
        end = answer(client)
        assert (end.type, end.reason) == (14, 0x87)


def test_the_rights_are_the_users(broker: BrokerProcess) -> None:
    """Whom SCRAM has proved: the CONNECT names nobody."""
    with ScramPaho(broker.address, "p", SHA_256, "ann", "secret") as client:
        client.subscribe("a/b")
        client.publish("a/b", b"hi")
        assert client.next() == ("a/b", b"hi")
