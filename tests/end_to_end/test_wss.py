"""wss://: WebSocket over TLS, as paho-mqtt speaks it. What each does alone is in test_websocket.py and test_tls.py."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

from broker.auth.passwords import set_password
from tests.broker_process import BrokerProcess, StartBroker
from tests.certificates import Authority
from tests.end_to_end.paho_client import Paho
from tests.raw_client import DEADLINE


def listener(authority: Authority, name: str = "server") -> str:
    return "websocket = true\n" + authority.issue(name, server=True).toml


def serial(broker: BrokerProcess) -> str:
    return ssl.get_server_certificate(broker.address)


def test_a_slow_reader_gets_everything_and_holds_up_nobody(tmp_path: Path, start_broker: StartBroker) -> None:
    authority = Authority(tmp_path)
    broker = start_broker(listener(authority))
    tls = authority.trusting()
    with (
        Paho(broker.address, "slow", clean=False, transport="websockets", tls=tls) as slow,
        Paho(broker.address, "author", transport="websockets", tls=tls) as author,
    ):
        slow.subscribe(("flood", 1))
        author.subscribe(("others", 1))
        slow.stop_reading()
        payloads = [os.urandom(200_000) for _ in range(100)]
        for payload in payloads:
            author.publish("flood", payload, 1)
        broker.wait_for("client reads too slowly: QoS 0 messages for it are dropped until it has caught up")
        author.publish("others", b"served", 1)
        assert author.message().payload == b"served"
        slow.read_on()
        assert [slow.message().payload for _ in payloads] == payloads


def test_a_new_certificate_drops_nobody(tmp_path: Path, start_broker: StartBroker) -> None:
    authority = Authority(tmp_path)
    broker = start_broker(listener(authority))
    tls = authority.trusting()
    old = serial(broker)
    with Paho(broker.address, "stays", transport="websockets", tls=tls) as stays:
        stays.subscribe(("#", 1))
        broker.reload(listener(authority, "renewed"))
        assert serial(broker) != old
        with Paho(broker.address, "new", transport="websockets", tls=tls) as new:
            new.publish("t", b"x", 1)
        assert stays.message().payload == b"x"
    broker.wait_for("client disconnected", client="stays", reason="DISCONNECT")


def test_a_certificate_or_a_password(tmp_path: Path, start_broker: StartBroker) -> None:
    authority = Authority(tmp_path)
    passwords = str(tmp_path / "passwords")
    set_password(passwords, "bob", b"secret", create=True)
    broker = start_broker(
        f'{listener(authority)}client_ca = "{authority.certificate}"\nclient_certificates = "optional"\n'
        f'certificate_user = "cn"\npasswords = "{passwords}"\n'
    )
    with Paho(broker.address, "a", transport="websockets", tls=authority.trusting(authority.issue("ann"))) as ann:
        broker.wait_for("client connected", client="a", user="ann")
        ann.subscribe(("#", 1))
        with Paho(
            broker.address, "b", username="bob", password="secret", transport="websockets", tls=authority.trusting()
        ) as bob:
            broker.wait_for("client connected", client="b", user="bob")
            bob.publish("t", b"from bob", 1)
            assert ann.message().payload == b"from bob"
    nobody = Paho(broker.address, "c", transport="websockets", tls=authority.trusting())
    assert nobody.code == 135  # paho-mqtt shows return code 5 as MQTT 5.0's "not authorized"
    assert nobody.disconnected.wait(DEADLINE)
    nobody.close()
