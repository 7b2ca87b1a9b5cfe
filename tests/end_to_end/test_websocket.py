"""MQTT over WebSocket, with a real broker: paho-mqtt, and frames that a test makes itself."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.broker_process import ROOT, BrokerProcess, StartBroker, environment
from tests.certificates import Authority
from tests.end_to_end.paho_client import Paho
from tests.raw_client import (
    DISCONNECT,
    PINGREQ,
    PINGRESP,
    RawClient,
    Will,
    connack,
    connect,
    publish,
    suback,
    subscribe,
)
from tests.websocket_client import Refused, WebSocketClient


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    broker = BrokerProcess(tmp_path_factory.mktemp("websocket"), "websocket = true")
    yield broker
    broker.stop()


@pytest.mark.parametrize("version", ["3.1", "3.1.1"])
@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("size", [10, 300, 300_000])
def test_paho(version: str, qos: int, size: int, shared: BrokerProcess) -> None:
    topic = f"paho/{version}/{qos}/{size}"
    payload = os.urandom(size)
    with (
        Paho(shared.address, f"p{topic}", version=version, transport="websockets") as author,
        Paho(shared.address, f"s{topic}", version=version, transport="websockets") as reader,
    ):
        reader.subscribe((topic, 2))
        author.publish(topic, payload, qos)
        assert reader.message()[:3] == (topic, payload, qos)
        reader.nothing_else(topic)


def test_paho_over_tls_as_the_user_of_its_certificate(tmp_path: Path, start_broker: StartBroker) -> None:
    authority = Authority(tmp_path)
    acl = tmp_path / "acl"
    acl.write_text("user ann\ntopic readwrite secure/#\n")
    broker = start_broker(
        f'websocket = true\n{authority.issue("server", server=True).toml}client_ca = "{authority.certificate}"\n'
        f'certificate_user = "cn"\nacl = "{acl}"\n'
    )

    def context(name: str) -> ssl.SSLContext:
        return authority.trusting(authority.issue(name))

    payload = os.urandom(300_000)
    with Paho(broker.address, "a", username="eve", transport="websockets", tls=context("ann")) as ann:
        broker.wait_for("client connected", user="ann")
        ann.subscribe(("secure/#", 2))
        with Paho(broker.address, "b", username="ann", transport="websockets", tls=context("bob")) as bob:
            broker.wait_for("client connected", user="bob")
            bob.publish("secure/x", b"not bob's", 1)
            for qos in (0, 1, 2):
                ann.publish("secure/x", payload, qos)
                assert ann.message()[:3] == ("secure/x", payload, qos)
            ann.nothing_else("secure/x")


def test_the_will_of_a_client_that_breaks_off(shared: BrokerProcess) -> None:
    with WebSocketClient.connected(shared.address, "heir") as heir:
        heir.subscribe(("will/paho", 0))
        Paho(shared.address, "testator", transport="websockets", will=Will("will/paho", b"gone")).drop()
        assert heir.message()[:2] == ("will/paho", b"gone")


def test_packets_across_and_within_frames(shared: BrokerProcess) -> None:
    # [MQTT-6.0.0-2]
    dialogue = connect("cut") + subscribe(("cut", 0)) + publish("cut", b"payload") + PINGREQ
    answers = [connack(), suback(0), publish("cut", b"payload"), PINGRESP]
    with WebSocketClient(shared.address) as whole:
        whole.send(dialogue)
        whole.expect(*answers)
    with WebSocketClient(shared.address) as bytewise:
        for i in range(len(dialogue)):
            bytewise.send(dialogue[i : i + 1])
        bytewise.expect(*answers)


def test_a_text_frame_closes_with_1003(shared: BrokerProcess) -> None:
    # [MQTT-6.0.0-1]
    with WebSocketClient.connected(shared.address, "text") as client:
        client.socket.write(lambda: client.core.send_text(b"text"))
        client.closed()
        assert client.close_code is not None
        assert client.close_code.code == 1003


def test_disconnect_ends_with_a_closing_handshake(shared: BrokerProcess) -> None:
    client = WebSocketClient.connected(shared.address, "polite")
    client.disconnect()
    assert client.close_code is not None
    assert client.close_code.code == 1000


def in_one_piece(client: WebSocketClient, data: bytes) -> None:
    """Send it with the frame that closes, as MQTT.js does with DISCONNECT, and wait for the broker's close."""
    client.core.send_binary(data)
    client.core.send_close(1000)
    socket.socket.sendall(client.socket, b"".join(client.core.data_to_send()))
    client.closed()
    assert client.close_code is not None
    assert client.close_code.code == 1000


def test_disconnect_and_close_in_one_piece(shared: BrokerProcess) -> None:
    with WebSocketClient.connected(shared.address, "heir3") as heir:
        heir.subscribe(("one piece/#", 0))
        client = WebSocketClient.connected(shared.address, "brief", will=Will("one piece/will"))
        in_one_piece(client, publish("one piece", b"x") + DISCONNECT)
        assert heir.message()[:2] == ("one piece", b"x")
        heir.ping()
    (event,) = shared.wait_for("client disconnected", client="brief")
    assert event["reason"] == "DISCONNECT"


def test_a_whole_connection_in_one_piece(tmp_path: Path, start_broker: StartBroker) -> None:
    """The store answers later than the close comes."""
    broker = start_broker("websocket = true", data=tmp_path / "data")
    with WebSocketClient.connected(broker.address, "heir") as heir:
        heir.subscribe(("whole/#", 0))
        will = Will("whole/will")
        client = WebSocketClient(broker.address)
        in_one_piece(client, connect("all", clean=False, will=will) + publish("whole", b"x", 1) + DISCONNECT)
        assert heir.message()[:2] == ("whole", b"x")
        heir.ping()
    (event,) = broker.wait_for("client disconnected", client="all")
    assert event["reason"] == "DISCONNECT"


def test_a_close_without_disconnect_publishes_the_will(shared: BrokerProcess) -> None:
    with WebSocketClient.connected(shared.address, "heir2") as heir:
        heir.subscribe(("will/close", 0))
        client = WebSocketClient.connected(shared.address, "closer", will=Will("will/close"))
        client.socket.write(lambda: client.core.send_close(1000))
        client.closed()
        assert heir.message()[:2] == ("will/close", b"will")


def test_http_and_plain_mqtt_get_an_answer_and_are_logged_once(start_broker: StartBroker) -> None:
    broker = start_broker("websocket = true\nwebsocket_path = '/mqtt'")
    host, port = broker.address
    for path, status in (("/mqtt", 426), ("/other", 404), ("/mqtt", 426), ("/other", 404)):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"http://{host}:{port}{path}")
        caught.value.close()
        assert caught.value.code == status
    with pytest.raises(Refused) as refused:
        WebSocketClient(broker.address, origin="https://evil.example")
    assert refused.value.status == 403
    assert "websocket_origins" in refused.value.body
    with RawClient(broker.address) as plain:
        plain.send(connect("plain"))
        assert plain.closed().startswith(b"HTTP/1.1 400 ")
    WebSocketClient.connected(broker.address, "fine").disconnect()
    assert [event["reason"] for event in broker.wait_for("WebSocket refused", 4)] == [
        "this is HTTP without WebSocket: clients must use WebSocket (ws://) on this listener"
        " (invalid Connection header: close)",
        "the path is '/other', not '/mqtt' (websocket_path)",
        "web pages of https://evil.example may not connect; if they should, add it:"
        ' websocket_origins = ["https://evil.example"]',
        "this is MQTT without WebSocket: clients must use WebSocket (ws://) on this listener, or another one without"
        " websocket = true",
    ]
    assert broker.events("connection closed before it was accepted") == []


def test_path_and_origins_can_be_reloaded(start_broker: StartBroker) -> None:
    broker = start_broker("websocket = true\nwebsocket_path = '/old'")
    with pytest.raises(Refused):
        WebSocketClient(broker.address, "/new", origin="https://app.example")
    broker.write_config("websocket = true\nwebsocket_path = '/new'\nwebsocket_origins = ['https://app.example']")
    broker.reload()
    WebSocketClient(broker.address, "/new", origin="https://app.example").close()


def test_a_slow_request_is_ended_by_connect_timeout(start_broker: StartBroker) -> None:
    broker = start_broker('websocket = true\nconnect_timeout = "0.3s"')
    with RawClient(broker.address) as client:
        client.send(b"GET /mqtt HTTP/1.1\r\nHost: ")
        assert client.closed() == b""
    silent = WebSocketClient(broker.address)
    silent.socket.write(lambda: silent.core.send_ping(b"a ping is no CONNECT"))
    silent.closed()


def test_a_frame_above_the_limit_closes_with_1009(start_broker: StartBroker) -> None:
    broker = start_broker('websocket = true\nmax_packet_size = "100 KiB"')
    with WebSocketClient.connected(broker.address, "large") as client:
        client.send(publish("t", bytes(99_000)))
        client.ping()
        client.send(publish("t", bytes(110_000)))
        client.closed()
        assert client.close_code is not None
        assert client.close_code.code == 1009


def test_without_the_extra_the_start_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "websockets.py").write_text("raise ImportError('not installed')")
    path = os.pathsep.join((str(tmp_path), str(ROOT)))
    done = subprocess.run(
        [sys.executable, "-m", "broker", "--port", "0", "--memory", "--websocket"],
        capture_output=True, text=True, timeout=60, env=environment({"PYTHONPATH": path}),
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert "pip install 'selectmq[websocket]'" in done.stderr
