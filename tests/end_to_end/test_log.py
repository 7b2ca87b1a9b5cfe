"""The log of a real process, for who reads it: a pipe that nobody reads, every packet at debug, what is told of clients
at fault, and how addresses are written."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path

import pytest

from broker.auth.passwords import set_password
from broker.log_thread import MAX_LINES
from tests.broker_process import BrokerProcess, StartBroker, environment, eventually
from tests.certificates import Authority
from tests.end_to_end.paho_client import Paho
from tests.raw_client import (
    DEADLINE,
    DISCONNECT,
    PINGREQ,
    RawClient,
    connack,
    connect,
    puback,
    publish,
    subscribe,
)

REFUSED = "client refused"
NOT_ACCEPTED = "connection closed before it was accepted"
MORE = "left out: more of the same"


# --- a log that nobody reads ---


class Unread:
    """A broker whose standard error is a pipe that nobody reads."""

    def __init__(self, *flags: str) -> None:
        self.reading, writing = os.pipe()
        with socket.create_server(("127.0.0.1", 0)) as sock:
            self.address = "127.0.0.1", sock.getsockname()[1]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "broker", "--memory", "-p", str(self.address[1]), "--max-connect-rate", "0", *flags],
            stderr=writing, env=environment(),
        )  # fmt: skip
        os.close(writing)
        eventually(self.listens, "it listens")

    def listens(self) -> bool:
        with socket.socket() as sock:
            return sock.connect_ex(self.address) == 0

    def read(self) -> str:
        """All that it has to say, until its end."""
        with open(self.reading, encoding="utf-8") as pipe:
            return pipe.read()

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


def test_a_log_that_nobody_reads_stops_nobody(tmp_path: Path) -> None:
    broker = Unread()
    try:
        for number in range(1500):  # 287 filled the pipe
            with RawClient.connected(broker.address, f"c{number}") as client:
                client.send(DISCONNECT)
        with RawClient.connected(broker.address, "c") as client:
            client.ping()
        start = time.monotonic()
        broker.process.send_signal(signal.SIGTERM)
        assert broker.process.wait(DEADLINE) == 0
        assert time.monotonic() - start < 10.0
    finally:
        broker.end()
    assert " INFO client connected client=c0 " in broker.read()


def test_the_lines_that_were_dropped_are_counted_in_the_log(tmp_path: Path) -> None:
    broker = Unread("--log-level", "debug", "--log-format", "text")
    count = MAX_LINES * 4  # as many can be under way to the pipe as wait
    try:
        with RawClient.connected(broker.address, "c") as client:
            client.send(publish("t", b"x") * count)
            client.ping()
            with (tmp_path / "log").open("w") as file:
                reader = subprocess.Popen(["cat"], stdin=broker.reading, stdout=file)
            client.ping()
            broker.process.send_signal(signal.SIGTERM)
            assert broker.process.wait(DEADLINE) == 0
            assert reader.wait(DEADLINE) == 0
    finally:
        broker.end()
        os.close(broker.reading)
    lines = (tmp_path / "log").read_text().splitlines()
    dropped = [line for line in lines if "lines of the log were dropped: nobody reads it fast enough lines=" in line]
    told = len([line for line in lines if " received PUBLISH " in line])
    missing = sum(int(line.rpartition("=")[2]) for line in dropped)
    assert dropped
    assert count - told <= missing <= count - told + 50  # PINGREQ, and what else there was
    assert lines[-1].endswith(" INFO ended")


# --- every packet, at debug ---


def packets(broker: BrokerProcess, client: str) -> list[str]:
    events = [row for row in broker.events_so_far() if row["event"].startswith(("received ", "sent "))]
    return [row["event"] for row in events if row.get("client") == client]


def test_at_debug_each_packet_of_a_real_client_is_a_line(start_broker: StartBroker) -> None:
    broker = start_broker("", "--log-level", "debug")
    with (
        Paho(broker.address, "reader") as reader,
        Paho(broker.address, "author", username="ann", password="s3cret") as author,
    ):
        reader.subscribe(("t/#", 2))
        author.publish("t/1", b"s3cret", 2, retain=True)
        assert reader.message().payload == b"s3cret"
        broker.wait_for("received PUBCOMP", client="reader")
    for client_id in ("author", "reader"):
        broker.wait_for("received DISCONNECT", client=client_id)
    assert packets(broker, "author") == [
        "received CONNECT", "sent CONNACK", "received PUBLISH", "sent PUBREC", "received PUBREL", "sent PUBCOMP",
        "received DISCONNECT",
    ]  # fmt: skip
    assert packets(broker, "reader") == [
        "received CONNECT", "sent CONNACK", "received SUBSCRIBE", "sent SUBACK", "sent PUBLISH", "received PUBREC",
        "sent PUBREL", "received PUBCOMP", "received DISCONNECT",
    ]  # fmt: skip
    [got] = broker.events("received PUBLISH")
    told = {name: got[name] for name in ("level", "client", "topic", "qos", "retain", "payload_size")}
    assert told == {"level": "debug", "client": "author", "topic": "t/1", "qos": 2, "retain": True, "payload_size": 6}
    assert got["packet_id"] == broker.events("sent PUBREC")[0]["packet_id"]
    assert broker.events("received SUBSCRIBE")[0]["filters"] == "t/#:2"
    assert [line for line in broker.lines if "s3cret" in line] == []


def test_at_info_there_are_no_packets(start_broker: StartBroker) -> None:
    broker = start_broker()
    with RawClient.connected(broker.address, "c") as client:
        client.ping()
    assert packets(broker, "c") == []


def test_a_reload_switches_it_on_and_off_for_who_is_connected(start_broker: StartBroker) -> None:
    broker = start_broker()
    with RawClient.connected(broker.address, "c") as client:
        client.ping()
        broker.reload('log_level = "debug"\n')
        client.subscribe(("t", 0))
        broker.reload('log_level = "info"\n')
        client.ping()
        broker.reload('log_level = "debug"\n')
        client.ping()
    broker.stop()
    assert packets(broker, "c") == [
        "received SUBSCRIBE", "sent SUBACK", "received PINGREQ", "sent PINGRESP",
    ]  # fmt: skip


def test_it_shows_packets_whatever_carries_them(authority: Authority, start_broker: StartBroker) -> None:
    tls = authority.issue("server", server=True).toml
    toml = "".join(f"[[listeners]]\n{options}" for options in ("", tls, "websocket = true\n"))
    broker = start_broker(f'log_level = "debug"\n{toml}')
    clients = (
        Paho(broker.addresses[1], "c1", tls=authority.trusting()),
        Paho(broker.addresses[2], "c2", transport="websockets"),
    )
    for index, one in enumerate(clients, 1):
        with one as client:
            client.subscribe(("t", 0))
        broker.wait_for("received DISCONNECT", client=f"c{index}")
        assert packets(broker, f"c{index}")[:4] == [
            "received CONNECT", "sent CONNACK", "received SUBSCRIBE", "sent SUBACK",
        ]  # fmt: skip


# --- what is told of clients at fault ---


def test_each_refusal_is_told_once_a_minute_with_its_reason(start_broker: StartBroker, tmp_path: Path) -> None:
    passwords = tmp_path / "passwords"
    set_password(str(passwords), "ann", b"secret", create=True, iterations=1)
    broker = start_broker(f'passwords = "{passwords}"\n')
    causes = [
        (connect("a"), 5, "no user name was given, and allow_anonymous is false"),
        (connect("b", username="ann", password=b"wrong"), 4, "wrong password"),
        (connect("b", username="eve", password=b"wrong"), 4, "there is no such user in the password file"),
        (connect("b", level=6), 1,
         "CONNECT with protocol level 6; supported are 5 (MQTT 5.0), 4 (MQTT 3.1.1) and 3 (MQTT 3.1)"),
    ]  # fmt: skip
    for _ in range(50):
        for data, code, _ in causes:
            with RawClient(broker.address) as client:
                client.send(data)
                assert client.closed() == connack(code)
    broker.stop()
    assert [(row["code"], row["reason"]) for row in broker.events(REFUSED)] == [cause[1:] for cause in causes]
    assert [(row["what"], row["reason"], row["times"]) for row in broker.events(MORE)] == [
        (REFUSED, reason, 49) for _, _, reason in causes
    ]


def test_a_client_that_finds_ever_new_names_gets_so_many_lines(start_broker: StartBroker, tmp_path: Path) -> None:
    passwords = tmp_path / "passwords"
    set_password(str(passwords), "ann", b"secret", create=True, iterations=1)
    broker = start_broker(f'passwords = "{passwords}"\n')
    start = time.monotonic()
    for number in range(300):
        with RawClient(broker.address) as client:
            client.send(connect(f"c{number}", username=f"u{number}", password=b"x"))
            assert client.closed() == connack(4)
    seconds = int(time.monotonic() - start) + 2
    broker.stop()
    told = len(broker.events(REFUSED))
    assert 10 <= told <= 10 * seconds
    [left_out] = broker.events("left out: too many different complaints about one address")
    assert (left_out["address"], left_out["times"]) == ("127.0.0.1", 300 - told)


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_health_checks_are_not_in_the_log(how: str, authority: Authority, start_broker: StartBroker) -> None:
    """A load balancer opens a connection every other second, and closes it without a word."""
    tls = authority.issue("server", server=True).toml
    layers = ("", tls, "websocket = true\n", f"websocket = true\n{tls}")
    toml = "".join(f"[[listeners]]\n{options}" for options in layers)
    broker = start_broker(toml, "--sys-interval", "0.1")
    for address in broker.addresses * 5:
        client = RawClient(address)
        if how == "rst":
            client.reset()
        else:
            client.socket.shutdown(socket.SHUT_WR)
            assert client.closed() == b""
    RawClient.connected(broker.address, "last").disconnect()
    broker.stop()
    quiet = {"listening", "started", "client connected", "client disconnected", "ending", "ended"}
    assert {row["event"] for row in broker.events_so_far()} - quiet <= {
        "fewer connections than max_connections are possible: raise the limit (ulimit -n)"
    }


def test_at_debug_health_checks_are_seen(start_broker: StartBroker) -> None:
    broker = start_broker('log_level = "debug"')
    RawClient(broker.address).close()
    (row,) = broker.wait_for(NOT_ACCEPTED)
    assert (row["level"], row["reason"]) == ("debug", "nothing was sent; closed by the client without DISCONNECT")


def test_who_begins_and_says_no_more_is_told(start_broker: StartBroker) -> None:
    broker = start_broker()
    with RawClient(broker.address) as client:
        client.send(connect("c")[:5])
    broker.wait_for(NOT_ACCEPTED, level="info", reason="closed by the client without DISCONNECT")


def tls_hello() -> bytes:
    outgoing = ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


GET, POST = (f"{word} / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: x\r\n\r\n".encode() for word in ("GET", "POST"))


@pytest.mark.parametrize(
    ("listener", "data", "event", "reason"),
    [
        ("mqtt", GET, NOT_ACCEPTED, "this is HTTP: browsers need a listener with websocket = true"),
        ("mqtt", POST, NOT_ACCEPTED, "this is HTTP: browsers need a listener with websocket = true"),
        ("mqtt", b"TLS", NOT_ACCEPTED,
         "this is TLS: use TLS at both ends, or at neither; this listener has no certificate"),
        ("tls", connect("c"), "TLS handshake failed",
         "this is MQTT without TLS: clients must use TLS (mqtts://) on this listener"),
        ("tls", GET, "TLS handshake failed",
         "this is HTTP without TLS: clients must use TLS (https://, wss://) on this listener"),
        ("ws", connect("c"), "WebSocket refused",
         "this is MQTT without WebSocket: clients must use WebSocket (ws://) on this listener, or another one without"
         " websocket = true"),
        ("ws", b"TLS", "WebSocket refused",
         "this is TLS: use wss:// with a certificate for this listener, or ws:// and none"),
        ("wss", GET, "TLS handshake failed",
         "this is HTTP without TLS: clients must use TLS (https://, wss://) on this listener"),
    ],
)  # fmt: skip
def test_another_protocol_is_called_what_it_is(
    listener: str, data: bytes, event: str, reason: str, every_transport: BrokerProcess
) -> None:
    address = every_transport.addresses[("mqtt", "tls", "ws", "wss").index(listener)]
    with RawClient(address) as client:
        client.send(tls_hello() if data == b"TLS" else data)
        client.closed()
    assert every_transport.wait_for(event, reason=reason)[0]["address"].startswith("127.0.0.1")


def test_a_user_name_that_nobody_has_checked_is_called_so(start_broker: StartBroker) -> None:
    broker = start_broker("[[listeners]]\n[[listeners]]\nallow_anonymous = false\n")
    RawClient.connected(broker.addresses[0], "a", username="ann", password=b"x").disconnect()
    RawClient.connected(broker.addresses[0], "b").disconnect()
    with RawClient(broker.addresses[1]) as client:
        client.send(connect("c", username="ann", password=b"x"))
        assert client.closed() == connack(5)
    broker.stop()
    notes = {row["client"]: row.get("note") for row in broker.events("client connected")}
    assert notes == {"a": "user name not checked", "b": None}
    [refusal] = broker.events(REFUSED)
    assert refusal["reason"] == (
        "user name not checked, as this listener has no password file, and allow_anonymous is false"
    )


def test_denials_are_told_with_client_user_and_topic(start_broker: StartBroker, tmp_path: Path) -> None:
    acl = tmp_path / "acl"
    acl.write_text("topic readwrite open\n")
    broker = start_broker(f'acl = "{acl}"\n')
    with RawClient.connected(broker.address, "c", username="ann") as client:
        for _ in range(100):
            client.send(publish("closed", b"x", 1) + subscribe(("other", 0)))
            client.expect(puback(1), b"\x90\x03\x00\x01\x80")
    broker.stop()
    for what, topic in (("publish", "closed"), ("subscription", "other")):
        [row] = broker.events(f"{what} refused: not authorised")
        assert (row["level"], row["client"], row["user"], row["topic"]) == ("info", "c", "ann", topic)
        [more] = broker.events(MORE, what=f"{what} refused: not authorised")
        assert (more["level"], more["times"], more["topic"]) == ("info", 99, topic)


# --- addresses, and who it is ---


def test_it_says_which_process_it_is(start_broker: StartBroker) -> None:
    broker = start_broker()
    assert broker.events("started")[0]["pid"] == broker.pid


def connected(address: tuple[str, int], client_id: str) -> None:
    with socket.create_connection(address, DEADLINE) as sock:
        sock.sendall(connect(client_id) + PINGREQ + DISCONNECT)
        while sock.recv(100):
            pass


def test_an_address_of_ipv6_stands_in_brackets(start_broker: StartBroker) -> None:
    broker = start_broker('bind = "::1"\n')
    [row] = broker.events("listening")
    assert row["address"] == f"[::1]:{broker.address[1]}"
    connected(("::1", broker.address[1]), "c")
    [row] = broker.wait_for("client connected", client="c")
    assert str(row["address"]).startswith("[::1]:")


def test_a_client_over_ipv4_is_one_of_ipv4_on_a_listener_for_both(start_broker: StartBroker) -> None:
    broker = start_broker('bind = "::"\nallow_anonymous = true\nproxy_protocol = ["127.0.0.1"]\n')
    [row] = broker.events("listening")
    assert row["address"] == f"[::]:{broker.address[1]}"
    with RawClient(("127.0.0.1", broker.address[1]), source="127.0.0.2") as client:
        assert client.closed() == b""
    broker.wait_for("connection refused", address="127.0.0.2")
    with RawClient(("127.0.0.1", broker.address[1])) as client:
        client.send(b"PROXY UNKNOWN\r\n" + connect("proxied"))
        client.expect(connack())
    [row] = broker.wait_for("client connected", client="proxied")
    assert str(row["address"]).startswith("127.0.0.1:")
