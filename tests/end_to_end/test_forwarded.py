"""WebSocket behind a proxy for HTTP that tells whose connections it passes on (X-Forwarded-For): who is believed, and
what the client's address is then good for."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from broker.auth.passwords import set_password
from tests.broker_process import BrokerProcess, StartBroker
from tests.raw_client import connack, connect
from tests.websocket_client import WebSocketClient

TRUSTING = 'websocket = true\nwebsocket_forwarded_for = ["127.0.0.1", "10.0.0.0/8"]\nallow_anonymous = true\n'


def come(broker: BrokerProcess, client_id: str, *values: str, source: str = "") -> WebSocketClient:
    """Connect through a proxy that sends these headers."""
    headers = [("X-Forwarded-For", value) for value in values]
    client = WebSocketClient(broker.address, source=source, headers=headers)
    client.send(connect(client_id))
    client.expect(connack())
    return client


@pytest.mark.parametrize(
    ("values", "address"),
    [
        (["203.0.113.7"], "203.0.113.7"),
        (["198.51.100.1, 203.0.113.7, 10.0.0.9"], "203.0.113.7"),
        (["198.51.100.1", "203.0.113.7:4711"], "203.0.113.7"),
        (["2001:db8::7"], "[2001:db8::7]"),
    ],
)
def test_the_log_has_the_client_s_own_address(values: list[str], address: str, start_broker: StartBroker) -> None:
    broker = start_broker(TRUSTING)
    client = come(broker, "c", *values)
    [event] = broker.wait_for("client connected", client="c")
    assert event["address"] == address
    client.disconnect()
    [event] = broker.wait_for("client disconnected", client="c")
    assert event["address"] == address


@pytest.mark.parametrize("source", ["127.0.0.2", "127.0.0.1"])
def test_others_may_connect_and_say_what_they_like(source: str, start_broker: StartBroker) -> None:
    trusting = TRUSTING if source == "127.0.0.2" else "websocket = true\n"
    broker = start_broker(trusting)
    come(broker, "c", "203.0.113.7", source=source).disconnect()
    [event] = broker.wait_for("client connected", client="c")
    assert event["address"].startswith(f"{source}:")


def test_without_the_header_it_is_the_proxy(start_broker: StartBroker) -> None:
    broker = start_broker(TRUSTING)
    come(broker, "c").disconnect()
    [event] = broker.wait_for("client connected", client="c")
    assert event["address"].startswith("127.0.0.1:")


def test_the_rate_is_that_of_each_client_and_the_proxy_has_none(start_broker: StartBroker) -> None:
    broker = start_broker(TRUSTING + 'connect_timeout = "2s"\n', "--max-connect-rate", "4")
    start = time.monotonic()
    for number in range(40):
        come(broker, f"c{number}", f"203.0.113.{number}").close()
    assert time.monotonic() - start < 5  # as one address they would take nine seconds
    # In IPv6 it is one place. It waits, and connect_timeout does not go on meanwhile.
    start = time.monotonic()
    for number in range(16):
        come(broker, f"v6-{number}", f"2001:db8::{number}").close()
    assert time.monotonic() - start > 2.5
    assert broker.events("connection closed before it was accepted") == []


def test_a_password_is_checked_in_the_turn_of_the_client_s_address(start_broker: StartBroker, tmp_path: Path) -> None:
    set_password(str(tmp_path / "users"), "ann", b"secret", create=True, iterations=100_000)
    broker = start_broker(f'{TRUSTING}passwords = "{tmp_path}/users"\nworkers = 1\n')
    flood = []
    for number in range(60):
        client = WebSocketClient(broker.address, headers=[("X-Forwarded-For", "203.0.113.66")])
        client.send(connect(f"c{number}", username="ann", password=b"wrong %d" % number))
        flood.append(client)
    ann = WebSocketClient(broker.address, headers=[("X-Forwarded-For", "203.0.113.7")])
    ann.send(connect("ann", username="ann", password=b"secret"))
    ann.expect(connack())
    before = len(broker.events("client refused", code=4))
    print(f"{before} of 60 before ann")
    assert before < 40
    for client in [ann, *flood]:
        client.close()


def test_a_reload_changes_who_is_believed(start_broker: StartBroker) -> None:
    broker = start_broker(TRUSTING)
    broker.reload(TRUSTING.replace('"127.0.0.1", ', ""))
    come(broker, "c", "203.0.113.7").disconnect()
    [event] = broker.wait_for("client connected", client="c")
    assert event["address"].startswith("127.0.0.1:")


def test_many_headers_long_ones_and_nonsense(start_broker: StartBroker) -> None:
    broker = start_broker(TRUSTING)
    come(broker, "many", *["10.0.0.1"] * 100, "203.0.113.7").disconnect()
    [event] = broker.wait_for("client connected", client="many")
    assert event["address"] == "203.0.113.7"
    come(broker, "long", ",".join(["203.0.113.7", *["10.0.0.1"] * 700])).disconnect()
    [event] = broker.wait_for("client connected", client="long")
    assert event["address"] == "203.0.113.7"
    for number, nonsense in enumerate(["unknown", "_x", "203.0.113", "a" * 5000, ";--"]):
        come(broker, f"n{number}", nonsense).disconnect()
        [event] = broker.wait_for("client connected", client=f"n{number}")
        assert event["address"].startswith("127.0.0.1:"), os.linesep.join(broker.lines)
