"""CONNECT and CONNACK over a real socket: every return code, slow and broken clients, keep alive."""

from __future__ import annotations

import base64
import socket
import threading
import time
from pathlib import Path

import pytest

from broker.auth.passwords import set_password
from tests.broker_process import BrokerProcess, StartBroker
from tests.end_to_end.paho_client import Paho
from tests.raw_client import (
    DISCONNECT,
    PINGREQ,
    PINGRESP,
    Address,
    RawClient,
    Will,
    connack,
    connect,
    packet,
    puback,
    publish,
    suback,
    subscribe,
    text,
)


def answer(address: Address, data: bytes) -> bytes:
    """What comes back until the broker closes."""
    with RawClient(address) as client:
        client.send(data)
        return client.closed()


# --- the return codes, each by configuration ---


@pytest.mark.parametrize("version", ["3.1", "3.1.1"])
def test_code_0(version: str, address: Address) -> None:
    with Paho(address, f"code 0 {version}", version=version) as client:
        assert (client.code, client.present) == (0, False)


@pytest.mark.parametrize(("name", "level"), [(b"MQTT", 0), (b"MQTT", 3), (b"MQTT", 6), (b"MQTT", 255), (b"MQIsdp", 4)])
def test_code_1_for_an_unknown_level(name: bytes, level: int, address: Address) -> None:
    # [MQTT-3.1.2-2]
    assert answer(address, connect("c", name=name, level=level)) == connack(1)


def test_code_1_though_a_later_version_lays_its_connect_out_differently(address: Address) -> None:
    assert answer(
        address, packet(0x10, text("MQTT") + b"\x06\x02\x00\x3c" + b"\x05\x11\xff\xff\xff\xff\0\1c")
    ) == connack(1)


def test_versions_that_a_listener_does_not_take(start_broker: StartBroker) -> None:
    """Each is told so in the words of its version [MQTT-3.1.2-2] [MQTT5-3.1.2-2]."""
    broker = start_broker('protocols = ["3.1.1"]\n')
    RawClient.connected(broker.address, "c").close()
    assert answer(broker.address, connect("c", name=b"MQIsdp", level=3)) == connack(1)
    five = packet(0x10, text("MQTT") + b"\x05\x02\x00\x3c\0\0\1c")
    assert answer(broker.address, five)[2:4] == b"\0\x84"


def test_code_2_for_an_empty_identifier_with_a_session_to_keep(address: Address) -> None:
    assert answer(address, connect("", clean=False)) == connack(2)  # [MQTT-3.1.3-8]


def test_code_2_for_an_empty_identifier_in_mqtt_31(address: Address) -> None:
    assert answer(address, connect("", name=b"MQIsdp", level=3)) == connack(2)


def test_code_2_by_max_client_id(start_broker: StartBroker) -> None:
    broker = start_broker("max_client_id = 23\n")
    assert answer(broker.address, connect("x" * 24)) == connack(2)
    RawClient.connected(broker.address, "ü" * 23).close()


def test_code_2_by_client_id_prefixes(start_broker: StartBroker) -> None:
    broker = start_broker('client_id_prefixes = ["sensor-", "app-"]\n')
    assert answer(broker.address, connect("intruder")) == connack(2)
    RawClient.connected(broker.address, "app-1").close()
    RawClient.connected(broker.address, "").close()


def test_code_3_by_max_connections(start_broker: StartBroker) -> None:
    broker = start_broker("max_connections = 2\n")
    with RawClient.connected(broker.address, "one") as one, RawClient.connected(broker.address, "two"):
        assert answer(broker.address, connect("three")) == connack(3)
        assert answer(broker.address, connect("one")) == connack(3)  # and takes nobody's place
        one.ping()
        one.disconnect()
        RawClient.connected(broker.address, "three").close()


@pytest.fixture
def passwords(tmp_path: Path) -> str:
    path = tmp_path / "passwords"
    for user in ("ann", "bob", "eve"):
        set_password(str(path), user, b"secret of " + user.encode(), create=True, iterations=100)
    return f'passwords = "{path}"\n'


def test_codes_4_and_5_by_passwords(start_broker: StartBroker, passwords: str) -> None:
    address = start_broker(passwords).address
    assert answer(address, connect("c")) == connack(5)
    assert answer(address, connect("c", username="ann")) == connack(4)
    assert answer(address, connect("c", username="ann", password=b"")) == connack(4)
    assert answer(address, connect("c", username="ann", password=b"secret of bob")) == connack(4)
    assert answer(address, connect("c", username="nobody", password=b"secret of ann")) == connack(4)
    assert answer(address, connect("c", username="", password=b"secret of ann")) == connack(4)
    for _ in range(2):  # the second time from memory
        RawClient.connected(address, "c", username="ann", password=b"secret of ann").close()
    with Paho(address, "paho", username="bob", password="secret of bob") as client:
        assert client.code == 0
    with Paho(address, "paho", username="bob", password="wrong") as client:
        assert client.code != 0


def test_passwords_and_anonymous_clients_side_by_side(start_broker: StartBroker, passwords: str) -> None:
    address = start_broker(passwords + "allow_anonymous = true\n").address
    RawClient.connected(address, "c").close()
    RawClient.connected(address, "c", username="ann", password=b"secret of ann").close()
    assert answer(address, connect("c", username="ann", password=b"wrong")) == connack(4)


def test_code_5_by_allow_anonymous(start_broker: StartBroker) -> None:
    address = start_broker("allow_anonymous = false\n").address
    assert answer(address, connect("c")) == connack(5)
    assert answer(address, connect("c", username="ann", password=b"who knows")) == connack(5)


def test_code_5_by_deny_users_and_client_ids(start_broker: StartBroker, passwords: str) -> None:
    address = start_broker(
        passwords + 'deny_users = ["eve"]\nclient_ids = { ann = ["sensor-*", "%u"], "*" = ["%u-*"] }\n'
    ).address
    secrets = {user: b"secret of " + user.encode() for user in ("ann", "bob", "eve")}
    for user, client_id, code in (
        ("eve", "eve-1", 5),
        ("ann", "sensor-7", 0),
        ("ann", "ann", 0),
        ("ann", "ann-1", 5),
        ("bob", "bob-1", 0),
        ("bob", "ann", 5),
        ("bob", "", 5),
    ):
        with RawClient(address) as client:
            client.send(connect(client_id, username=user, password=secrets[user]))
            client.expect(connack(code))
    assert answer(address, connect("eve-1", username="eve", password=b"wrong")) == connack(4)


def test_who_fails_to_authenticate_changes_nothing(start_broker: StartBroker, passwords: str) -> None:
    # It ends no session, and closes no other client's connection.
    address = start_broker(passwords + 'deny_users = ["eve"]\n').address
    with RawClient.connected(address, "victim", clean=False, username="ann", password=b"secret of ann") as victim:
        victim.subscribe(("t", 1))
        for bad in (
            connect("victim", clean=True),
            connect("victim", clean=True, username="ann", password=b"wrong"),
            connect("victim", clean=True, username="eve", password=b"secret of eve", will=Will("t")),
        ):
            assert answer(address, bad) in (connack(4), connack(5))
        victim.ping()
        victim.disconnect()
    with RawClient.connected(
        address, "victim", clean=False, present=True, username="ann", password=b"secret of ann"
    ) as victim:
        victim.ping()


def test_many_passwords_at_once_hold_up_nobody_who_is_there(start_broker: StartBroker, tmp_path: Path) -> None:
    path = tmp_path / "passwords"
    set_password(str(path), "ann", b"secret", create=True, iterations=60_000)
    address = start_broker(f'passwords = "{path}"\nallow_anonymous = true\n').address
    with RawClient.connected(address, "there") as there:
        crowd = [RawClient(address) for _ in range(8)]
        for i, client in enumerate(crowd):
            client.send(connect(f"c{i}", username="ann", password=b"wrong %d" % i))
        served = 0
        slowest = 0.0
        answered = threading.Event()

        def wait_for_all() -> None:
            for client in crowd:
                client.expect(connack(4))
            answered.set()

        waiting = threading.Thread(target=wait_for_all)
        waiting.start()
        while not answered.is_set():
            start = time.monotonic()
            there.ping()
            slowest = max(slowest, time.monotonic() - start)
            served += 1
        waiting.join()
        print(f"{served} pings served while 8 passwords were checked, the slowest in {slowest * 1e3:.0f} ms")
        assert served > 10
        for client in crowd:
            client.close()


def test_one_that_leaves_while_its_password_is_checked_is_noticed_at_once(
    start_broker: StartBroker, tmp_path: Path
) -> None:
    path = tmp_path / "passwords"
    salt, digest = base64.b64encode(bytes(12)).decode(), base64.b64encode(bytes(64)).decode()
    path.write_text(f"ann:$7$10000000${salt}${digest}\n")  # a check of several seconds
    broker = start_broker(f'passwords = "{path}"\n')
    for leave in (RawClient.close, RawClient.reset):
        client = RawClient(broker.address)
        client.send(connect("c", username="ann", password=b"secret"))
        leave(client)
    # Had it been noticed after the check, this would be a client that was refused.
    broker.wait_for("connection closed before it was accepted", 2)
    assert broker.events("client refused") == []
    broker.kill()


# --- an empty Client Identifier ---


def test_an_empty_identifier_gets_one_of_its_own(address: Address) -> None:
    # [MQTT-3.1.3-6] [MQTT-3.1.3-7]
    clients = [RawClient.connected(address, "") for _ in range(5)]
    for client in clients:
        client.ping()
        client.close()


# --- what breaks the format: closed without a CONNACK ---


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(connect("c", flags=1), id="reserved-flag"),  # [MQTT-3.1.2-3]
        pytest.param(connect("c", name=b"HTTP"), id="protocol-name"),  # [MQTT-3.1.2-1]
        pytest.param(connect("c", name=b"mqtt"), id="protocol-name-in-small-letters"),
        pytest.param(connect("c", name=b""), id="no-protocol-name"),
        pytest.param(connect("c", flags=0x18 | 4), id="will-qos-3-without-its-fields"),
        pytest.param(connect("c", flags=0x08), id="will-qos-without-a-will"),
        pytest.param(connect("c", flags=0x20), id="will-retain-without-a-will"),
        pytest.param(connect("c", flags=0x40), id="password-without-a-user"),
        pytest.param(connect("c", will=Will("a/#")), id="wildcard-in-the-wills-topic"),
        pytest.param(connect("c", will=Will("")), id="empty-will-topic"),
        pytest.param(connect("c\0"), id="nul"),
        pytest.param(packet(0x10, connect("c")[2:] + b"x"), id="bytes-behind-the-last-field"),
        pytest.param(PINGREQ, id="pingreq-first"),  # [MQTT-3.1.0-1]
        pytest.param(publish("t", b"x") + connect("c"), id="publish-first"),
        pytest.param(DISCONNECT, id="disconnect-first"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", id="http"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", id="tls"),
        pytest.param(b"\x10\xff\xff\xff\xff\x7f", id="length-of-five-bytes"),
        pytest.param(b"\x10\xff\xff\xff\x7f", id="connect-of-256-mib"),
    ],
)
def test_what_is_no_connect_is_closed_in_silence(data: bytes, address: Address) -> None:
    # [MQTT-3.1.4-1] [MQTT-4.8.0-1]
    assert answer(address, data) == b""


def test_a_second_connect_closes(address: Address) -> None:
    # [MQTT-3.1.0-2]
    with RawClient.connected(address, "second") as client:
        client.send(connect("second"))
        assert client.closed() == b""


# --- slow ones ---


def test_silence_is_closed_after_connect_timeout(start_broker: StartBroker) -> None:
    broker = start_broker("connect_timeout = 0.3\n")
    start = time.monotonic()
    with RawClient(broker.address) as client:
        assert client.closed() == b""
    assert 0.3 <= time.monotonic() - start < 3
    broker.wait_for("connection closed before it was accepted", reason="no CONNECT within connect_timeout")


def test_a_connect_that_trickles_in_has_no_more_time_than_any_other(start_broker: StartBroker) -> None:
    broker = start_broker("connect_timeout = 0.4\n")
    data = connect("x" * 200)
    start = time.monotonic()
    sent = 0
    with RawClient(broker.address) as client:
        client.socket.settimeout(0.02)
        while sent < len(data) - 1:
            try:
                client.socket.sendall(data[sent : sent + 1])
                sent += 1
                assert client.socket.recv(1) == b"", "an answer to half a CONNECT"
                break
            except TimeoutError:
                pass
            except ConnectionError:
                break
        took = time.monotonic() - start
    assert sent < len(data) - 1
    assert 0.4 <= took < 3


def test_a_connect_in_single_bytes_is_accepted_in_time(address: Address) -> None:
    with RawClient(address) as client:
        for byte in connect("trickle", will=Will("w", b"x")):
            client.send(bytes((byte,)))
        client.expect(connack())
        client.ping()


def test_after_the_connect_the_timeout_is_over(start_broker: StartBroker) -> None:
    broker = start_broker("connect_timeout = 0.1\n")
    with RawClient.connected(broker.address) as client:
        with RawClient(broker.address) as silent:  # the timeout of one who comes later has passed
            assert silent.closed() == b""
        client.ping()


# --- packets right behind the CONNECT ---


def test_packets_behind_an_accepted_connect_are_served_in_order(address: Address) -> None:
    with RawClient(address) as client:
        client.send(
            connect("eager") + subscribe(("eager", 0)) + publish("eager", b"x") + PINGREQ + publish("eager", b"y")
        )
        client.expect(connack(), suback(0), publish("eager", b"x"), PINGRESP, publish("eager", b"y"))


def test_packets_behind_a_connect_that_waits_for_its_password_are_served_in_order(
    start_broker: StartBroker, passwords: str, tmp_path: Path
) -> None:
    broker = start_broker(passwords, data=tmp_path / "data")
    for _ in range(2):
        with RawClient(broker.address) as client:
            client.send(
                connect("eager", clean=False, username="ann", password=b"secret of ann")
                + subscribe(("eager", 1))
                + publish("eager", b"x")
                + PINGREQ
            )
            first = client.next()
            assert first[:2] + first[3:] == connack()[:2] + b"\0"
            came = [client.next() for _ in range(3)]
            assert came.index(PINGRESP) >= 0
            assert suback(1) in came
            assert publish("eager", b"x") in came
            client.disconnect()


@pytest.mark.parametrize("more", [0, 200_000], ids=["a-few", "more-than-a-block"])
def test_packets_behind_a_refused_connect_do_nothing(more: int, start_broker: StartBroker, passwords: str) -> None:
    # [MQTT-3.1.4-5]
    broker = start_broker(passwords)
    with RawClient.connected(broker.address, "reader", username="ann", password=b"secret of ann") as reader:
        reader.subscribe(("#", 0))
        with RawClient(broker.address) as client:
            try:
                client.send(
                    connect("c", username="bob", password=b"wrong")
                    + publish("t", b"from a stranger", retain=True)
                    + publish("t", b"x" * more)
                    + subscribe(("#", 0))
                )
            except ConnectionError:
                assert more
            came = client.closed()
            assert came == connack(4) or (more and came == b"")
        reader.send(publish("own", b"x"))
        reader.expect(publish("own", b"x"))
        reader.send(subscribe(("t", 0), packet_id=2))
        reader.expect(suback(0, packet_id=2))
        reader.ping()


# --- keep alive ---


def silence(address: Address, keep_alive: int) -> float:
    """Seconds from a client's last packet, which is its CONNECT, until it is closed."""
    start = time.monotonic()
    with RawClient.connected(address, keep_alive=keep_alive) as client:
        assert client.closed() == b""
        return time.monotonic() - start


def test_a_silent_client_is_closed_after_one_and_a_half_times_its_keep_alive(address: Address) -> None:
    # [MQTT-3.1.2-24]
    with RawClient.connected(address, "patient", keep_alive=0) as patient:
        assert 1.5 <= silence(address, 1) < 2.5
        patient.ping()  # a keep alive of 0 is none


def test_max_keepalive_holds_for_who_asks_for_more_or_for_none(start_broker: StartBroker) -> None:
    broker = start_broker("max_keepalive = 0.5\n")
    with RawClient.connected(broker.address, "more", keep_alive=1000) as more:
        assert 0.75 <= silence(broker.address, 0) < 2
        assert more.closed(timeout=1.0) == b""


def test_any_packet_keeps_a_client_alive(start_broker: StartBroker) -> None:
    broker = start_broker("max_keepalive = 0.6\n")  # 0.9 s of silence
    kept = [PINGREQ, publish("t", b"x", 1), subscribe(("t", 0)), puback(7)]
    clients = [RawClient.connected(broker.address, f"alive{i}", keep_alive=1) for i in range(len(kept))]
    silent = RawClient.connected(broker.address, "silent", keep_alive=1)
    end = time.monotonic() + 1.2
    while time.monotonic() < end:
        for client, data in zip(clients, kept, strict=True):
            client.send(data)
        time.sleep(0.1)  # not to wait for anything: it is the pace of these clients
    assert silent.closed(timeout=0.1) == b""
    for client in clients:
        client.send(PINGREQ)
        while client.next() != PINGRESP:
            pass
        client.close()


def test_what_is_sent_to_a_client_does_not_keep_it_alive(start_broker: StartBroker) -> None:
    broker = start_broker("max_keepalive = 0.4\n")
    with RawClient.connected(broker.address, "listener") as listener, Paho(broker.address) as author:
        start = time.monotonic()
        listener.subscribe(("t", 0))
        over = threading.Event()

        def talk() -> None:
            while not over.wait(0.05):
                author.publish("t", b"x")

        talking = threading.Thread(target=talk)
        talking.start()
        listener.closed()
        took = time.monotonic() - start
        over.set()
        talking.join()
    assert 0.6 <= took < 3
    broker.wait_for("client disconnected", client="listener")


# --- the network connection ---


def test_half_closed_by_its_client_a_connection_is_closed(shared_broker: BrokerProcess) -> None:
    with RawClient.connected(shared_broker.address, "half") as client:
        client.socket.shutdown(socket.SHUT_WR)
        assert client.closed() == b""
    shared_broker.wait_for("client disconnected", client="half", reason="closed by the client without DISCONNECT")


def test_what_comes_with_a_disconnect_is_served_and_what_comes_behind_it_is_not(address: Address) -> None:
    with RawClient.connected(address, "reader of words") as reader:
        reader.subscribe(("words", 0))
        with RawClient.connected(address, "talker") as client:
            client.send(publish("words", b"last") + DISCONNECT + publish("words", b"too late"))
            assert client.closed() == b""
        assert reader.message().payload == b"last"
        reader.ping()


def test_a_connect_cut_short_is_harmless(shared_broker: BrokerProcess) -> None:
    data = connect("cut", will=Will("t"))
    for size in range(len(data)):
        with RawClient(shared_broker.address) as client:
            client.send(data[:size])
    with RawClient.connected(shared_broker.address, "whole") as client:
        client.ping()
