"""Listeners for proxies, with headers of our own making: who is believed, what counts as the client's address, what is
beneath (TLS, WebSocket, a Unix socket), what is refused. test_haproxy.py has the real proxy."""

from __future__ import annotations

import json
import os
import socket
import ssl
import tempfile
import time
from pathlib import Path

import pytest
from websockets.client import ClientProtocol
from websockets.frames import Frame
from websockets.typing import Origin, Subprotocol
from websockets.uri import parse_uri

from broker.auth.passwords import set_password
from tests.broker_process import StartBroker, run_command_line
from tests.certificates import Authority
from tests.end_to_end.sys_topics import wait_for_sys
from tests.net.test_proxy import SIGNATURE, inet, tlv, v2
from tests.raw_client import PINGREQ, PINGRESP, Closed, RawClient, connack, connect

TRUSTING = '[[listeners]]\nproxy_protocol = ["127.0.0.1"]\nallow_anonymous = true\n'
UNHEARD = "connection refused"
REFUSED = "PROXY header refused"


def header(host: str = "203.0.113.7", port: int = 4711, version: int = 2) -> bytes:
    if version == 1:
        return f"PROXY TCP4 {host} 127.0.0.1 {port} 1883\r\n".encode()
    return v2(0x21, 0x11, inet(host, port) + tlv(5, b"some identifier"))


def closed_unheard(client: RawClient) -> bool:
    try:
        return client.closed() == b""
    finally:
        client.close()


# --- the address ---


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("separate", [True, False])
def test_the_log_has_the_client_s_own_address(version: int, separate: bool, start_broker: StartBroker) -> None:
    broker = start_broker(TRUSTING)
    with RawClient(broker.address) as client:
        pieces = [header(version=version), connect("c")]
        for piece in pieces if separate else [b"".join(pieces)]:
            client.send(piece)
        client.expect(connack())
        client.ping()
        broker.wait_for("client connected", client="c", address="203.0.113.7:4711")
    broker.wait_for("client disconnected", client="c", address="203.0.113.7:4711")


def test_a_header_may_come_byte_by_byte(start_broker: StartBroker) -> None:
    broker = start_broker(TRUSTING)
    with RawClient(broker.address) as client:
        for byte in v2(0x21, 0x21, inet("2001:db8::7", 4711, "::1")) + connect("c"):
            client.send(bytes((byte,)))
        client.expect(connack())
    broker.wait_for("client connected", client="c", address="[2001:db8::7]:4711")


def test_the_rate_is_that_of_each_client_and_the_proxy_has_none(start_broker: StartBroker) -> None:
    broker = start_broker(TRUSTING, "--max-connect-rate", "4")
    crowd = [RawClient(broker.address) for _ in range(60)]
    for number, client in enumerate(crowd):  # three of each: far more than four of the proxy's
        client.send(header(f"10.0.0.{number % 20}") + connect(f"c{number}"))
    for client in crowd:
        client.expect(connack())
        client.close()
    assert broker.events(UNHEARD) == []
    # One that has more waits, and what it has said already is not lost. (After four, and four in each second.)
    eager = [RawClient(broker.address) for _ in range(12)]
    for client in eager:
        client.send(header("203.0.113.65") + connect(""))
    start = time.monotonic()
    for client in eager:
        client.expect(connack())
        client.close()
    assert time.monotonic() - start > 1.5
    greedy = [RawClient(broker.address) for _ in range(60)]
    for client in greedy:
        client.send(header("203.0.113.66"))
    broker.wait_for(UNHEARD, address="203.0.113.66", reason="too many attempts from this address")
    for client in greedy:
        client.close()
    assert broker.events(UNHEARD, address="127.0.0.1") == []


def test_the_limit_of_connections_holds(start_broker: StartBroker) -> None:
    broker = start_broker(f"{TRUSTING}max_connections = 1\n")
    with RawClient(broker.address) as first:
        first.send(header() + connect("first"))
        first.expect(connack())
        second = RawClient(broker.address)
        second.send(header() + connect("second"))
        second.expect(connack(3))
        second.closed()


# --- who is believed ---


def test_others_are_refused_whatever_they_say_and_told_once(start_broker: StartBroker) -> None:
    broker = start_broker(f'[[listeners]]\n{TRUSTING}bind = "0.0.0.0"\n', "--sys-interval", "0.1")
    plain, proxied = broker.addresses[0], ("127.0.0.1", broker.addresses[1][1])
    for _ in range(3):
        assert closed_unheard(RawClient(proxied, source="127.0.0.2"))
    [event] = broker.wait_for(UNHEARD)
    assert (event["address"], event["reason"]) == (
        "127.0.0.2",
        "this listener is only for the proxies in proxy_protocol",
    )
    with RawClient(proxied) as client:  # and the proxy is served on
        client.send(header() + connect("c"))
        client.expect(connack())
    wait_for_sys(plain, "clients/refused", 3)


def test_without_proxy_protocol_a_header_is_no_header(start_broker: StartBroker) -> None:
    broker = start_broker('connect_timeout = "0.5s"\n')  # the second one looks like the beginning of a packet
    with RawClient(broker.address) as client:
        client.send(header() + connect("c"))
        assert closed_unheard(client)
    with RawClient(broker.address) as client:
        client.send(header(version=1) + connect("c"))
        assert closed_unheard(client)
    why = (
        "this is a header of the PROXY protocol: name the proxy in proxy_protocol of this listener, or turn the header"
    )
    (event,) = broker.wait_for("connection closed before it was accepted")
    assert event["reason"] == f"{why} off in the proxy"


def test_a_reload_changes_who_is_believed(start_broker: StartBroker) -> None:
    broker = start_broker(TRUSTING)
    broker.reload(TRUSTING.replace("127.0.0.1", "127.0.0.2"))
    (event,) = broker.events("option changed", option="proxy_protocol", listener="127.0.0.1:0")
    assert (event["old"], event["new"]) == ('["127.0.0.1"]', '["127.0.0.2"]')
    assert closed_unheard(RawClient(broker.address))
    with RawClient(broker.address, source="127.0.0.2") as client:
        client.send(header() + connect("c"))
        client.expect(connack())
    broker.reload("[[listeners]]\n")
    RawClient.connected(broker.address, "c").disconnect()


def test_a_reload_that_makes_it_a_listener_for_proxies_closes_all_others(start_broker: StartBroker) -> None:
    broker = start_broker("[[listeners]]\nallow_anonymous = true\n")
    with RawClient.connected(broker.address, "direct") as direct:
        broker.reload(TRUSTING)
        direct.closed()
    broker.wait_for(
        "client disconnected", client="direct", reason="this listener is now only for the proxies in proxy_protocol"
    )
    with RawClient(broker.address) as client:
        client.send(header() + connect("proxied"))
        client.expect(connack())
        broker.reload(TRUSTING.replace('"127.0.0.1"', '"127.0.0.1", "10.0.0.0/8"'))
        client.ping()


def test_a_handshake_that_a_reload_overtakes(tmp_path: Path, start_broker: StartBroker) -> None:
    authority = Authority(tmp_path)
    tls = authority.issue("server", server=True).toml
    broker = start_broker(f"[[listeners]]\n{tls}allow_anonymous = true\n")
    with socket.create_connection(broker.address, 15) as late:
        context = authority.trusting()
        RawClient.connected(broker.address, tls=context).disconnect()
        broker.reload(f"{TRUSTING}{tls}")  # while `late` has been accepted, and not said a word
        with context.wrap_socket(late, server_hostname="127.0.0.1") as client:
            client.sendall(connect("late"))
            assert client.recv(4) == b""
    broker.wait_for(UNHEARD, reason="this listener is now only for the proxies in proxy_protocol")


# --- headers that are none ---


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (connect("c"), "no header of the PROXY protocol came first; does the proxy send one (send-proxy-v2)?"),
        (b"\x16\x03\x01\0", "no header of the PROXY protocol came first; does the proxy send one (send-proxy-v2)?"),
        (b"PROXY TCP4 x y 1 2\r\n" + connect("c"), "a header of version 1 with an address that is none of TCP4"),
        (v2(0x21, 0x11, b"", 65535), "a header of version 2 with 65535 bytes, over the limit of 16384"),
    ],
)
def test_the_trusted_proxy_must_send_a_header(data: bytes, why: str, start_broker: StartBroker) -> None:
    broker = start_broker(TRUSTING)
    for _ in range(2):
        with RawClient(broker.address) as client:
            client.send(data)
            assert closed_unheard(client)
    assert [event["reason"] for event in broker.wait_for(REFUSED, address="127.0.0.1")] == [why]


@pytest.mark.parametrize("beginning", [b"", SIGNATURE, b"PROXY TCP4 203.0.113.7"], ids=["nothing", "v2", "v1"])
def test_connect_timeout_covers_the_header(beginning: bytes, start_broker: StartBroker) -> None:
    broker = start_broker(f"{TRUSTING}connect_timeout = 0.3\n")
    with RawClient(broker.address) as client:
        client.send(beginning)
        assert closed_unheard(client)
    why = "its header was not complete within connect_timeout" if beginning else "nothing came within connect_timeout"
    broker.wait_for(REFUSED, address="127.0.0.1", reason=why)


def test_connect_timeout_covers_header_and_connect_together(start_broker: StartBroker) -> None:
    broker = start_broker(f"{TRUSTING}connect_timeout = 0.3\n")
    with RawClient(broker.address) as client:
        client.send(header())
        assert closed_unheard(client)
    broker.wait_for(
        "connection closed before it was accepted",
        address="203.0.113.7:4711",
        reason="no CONNECT within connect_timeout",
    )


# --- the proxy's own connections ---


@pytest.mark.parametrize("own", [b"", b"PROXY UNKNOWN\r\n", v2(0x20, 0, b"")], ids=["nothing", "v1", "v2"])
def test_a_check_of_the_proxy_s_is_neither_logged_nor_counted(own: bytes, start_broker: StartBroker) -> None:
    broker = start_broker(f"[[listeners]]\n{TRUSTING}", "--sys-interval", "0.1")
    plain, proxied = broker.addresses
    lines = len(broker.lines)
    for leave in (RawClient.close, RawClient.reset):
        client = RawClient(proxied)
        client.send(own)
        leave(client)
    with RawClient(proxied) as client:  # what comes behind a check is a client, from where it really is
        client.send((own or v2(0x20, 0, b"")) + connect("own"))
        client.expect(connack())
    broker.wait_for("client disconnected")
    assert [json.loads(line)["event"] for line in broker.lines[lines:]] == ["client connected", "client disconnected"]
    [event] = broker.events("client connected", client="own")
    assert event["address"].startswith("127.0.0.1:")
    with RawClient(proxied) as client:
        client.send(b"no header")
        assert closed_unheard(client)
    wait_for_sys(plain, "clients/refused", 1)


# --- beneath TLS, WebSocket, a Unix socket ---


def shake(client: RawClient, context: ssl.SSLContext) -> None:
    client.socket = context.wrap_socket(client.socket, server_hostname="127.0.0.1")


def test_the_header_comes_before_the_handshake(tmp_path: Path, start_broker: StartBroker) -> None:
    authority = Authority(tmp_path)
    broker = start_broker(TRUSTING + authority.issue("server", server=True).toml)
    context = authority.trusting()
    with RawClient(broker.address) as client:
        client.send(header())
        shake(client, context)
        client.send(connect("c"))
        client.expect(connack())
        client.ping()
    broker.wait_for("client connected", client="c", address="203.0.113.7:4711")
    with RawClient(broker.address) as client:
        client.send(header("203.0.113.8") + connect("c"))
        assert closed_unheard(client)
    broker.wait_for("TLS handshake failed", address="203.0.113.8")


def test_header_and_client_hello_in_one_segment(tmp_path: Path, start_broker: StartBroker) -> None:
    authority = Authority(tmp_path)
    broker = start_broker(TRUSTING + authority.issue("server", server=True).toml)
    context = authority.trusting()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    with RawClient(broker.address) as client:
        client.send(header() + outgoing.read())
        while True:
            incoming.write(client.socket.recv(1 << 16))
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                pass
        tls.write(connect("c"))
        client.send(outgoing.read())
        broker.wait_for("client connected", client="c", address="203.0.113.7:4711")


def test_websocket_behind_a_header(start_broker: StartBroker) -> None:
    """A page's origin is compared with the host that it connects to, as the proxy is not the one who looks at it. That
    has shown the certificate, so that the listener needs none."""
    broker = start_broker(f"{TRUSTING}websocket = true\n")
    core = ClientProtocol(
        parse_uri("ws://mq.example/mqtt"),
        origin=Origin("https://mq.example"), subprotocols=[Subprotocol("mqtt")],
    )  # fmt: skip
    core.send_request(core.connect())
    with RawClient(broker.address) as client:
        client.send(header() + b"".join(core.data_to_send()))
        while not core.events_received():
            core.receive_data(client.socket.recv(1 << 16))
            assert core.handshake_exc is None
        core.send_binary(connect("c") + PINGREQ)
        client.send(b"".join(core.data_to_send()))
        came = b""
        while came != connack() + PINGRESP:
            core.receive_data(client.socket.recv(1 << 16))
            came += b"".join(bytes(frame.data) for frame in core.events_received() if isinstance(frame, Frame))
    broker.wait_for("client connected", client="c", address="203.0.113.7:4711")


def test_a_proxy_on_a_unix_socket(start_broker: StartBroker) -> None:
    with tempfile.TemporaryDirectory(prefix="mq") as directory:
        path = Path(directory) / "s"
        broker = start_broker(f'[[listeners]]\nunix = "{path}"\nproxy_protocol = ["unix"]\nallow_anonymous = true\n')
        with RawClient(path) as client:
            client.send(header() + connect("c"))
            client.expect(connack())
        broker.wait_for("client connected", client="c", address="203.0.113.7:4711")
        with RawClient(path) as client:
            client.send(connect("c"))
            assert closed_unheard(client)
        broker.wait_for(REFUSED, address=f"unix:uid-{os.getuid()}")
        with RawClient(path) as client:
            client.send(v2(0x20, 0, b"") + connect("own"))
            client.expect(connack())
        broker.wait_for("client connected", client="own", address=f"unix:uid-{os.getuid()}:pid-{os.getpid()}")


def test_a_check_of_passwords_takes_turns_by_the_client_s_address(tmp_path: Path, start_broker: StartBroker) -> None:
    set_password(str(tmp_path / "users"), "ann", b"one", create=True, iterations=1)
    broker = start_broker(f'[[listeners]]\nproxy_protocol = ["127.0.0.1"]\npasswords = "{tmp_path}/users"\n')
    with RawClient(broker.address) as client:
        client.send(header() + connect("c", username="ann", password=b"two"))
        client.expect(connack(4))
    broker.wait_for("client refused", client="c", address="203.0.113.7:4711", user="ann")
    with RawClient(broker.address) as client:
        client.send(header() + connect("c"))
        client.expect(connack(5))


def test_clients_behind_a_proxy_are_not_anonymous_by_default(tmp_path: Path) -> None:
    config = tmp_path / "b.toml"
    config.write_text('memory = true\nproxy_protocol = ["127.0.0.1"]\n')
    done = run_command_line("-c", str(config))
    assert done.returncode == 2
    assert "b.toml:2: 'proxy_protocol' opens 127.0.0.1:1883 to the network: say who may connect" in done.stderr


def test_the_end_of_the_broker_does_not_wait_for_headers(start_broker: StartBroker) -> None:
    broker = start_broker(TRUSTING)
    with RawClient(broker.address) as client, socket.create_connection(broker.address):
        client.send(SIGNATURE)
        client.send(b"\x21")
        broker.stop()
        with pytest.raises(Closed):
            client.next()
