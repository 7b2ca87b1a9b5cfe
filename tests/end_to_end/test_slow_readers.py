"""Clients that read slowly, or not at all for a while: what they get, and that they are not taken for dead."""

from __future__ import annotations

import pytest

from tests.broker_process import BrokerProcess
from tests.certificates import Authority
from tests.raw_client import PINGREQ, PINGRESP, RawClient, connack, connect, parse_publish, publish
from tests.websocket_client import WebSocketClient

TRANSPORTS = ["tcp", "tls", "websocket"]
LARGE = b"large" * (8 * 1024 * 1024 // 5)


@pytest.fixture(params=TRANSPORTS)
def client(request: pytest.FixtureRequest, every_transport: BrokerProcess, authority: Authority) -> RawClient:
    """Not connected yet: a client of each transport, for which the system takes in little."""
    address = every_transport.addresses[TRANSPORTS.index(request.param)]
    if request.param == "websocket":
        return WebSocketClient(address, receive_buffer=4096)
    return RawClient(address, receive_buffer=4096, tls=authority.trusting() if request.param == "tls" else None)


def connected(client: RawClient, keep_alive: int = 0) -> RawClient:
    client.send(connect(keep_alive=keep_alive))
    client.expect(connack())
    return client


@pytest.mark.parametrize("qos", [0, 1])
def test_one_large_message_costs_no_small_one_behind_it(
    client: RawClient, every_transport: BrokerProcess, qos: int, request: pytest.FixtureRequest
) -> None:
    topic = request.node.name
    with connected(client), RawClient.connected(every_transport.address) as author:
        client.subscribe((topic, qos))
        author.send(publish(topic, LARGE, qos) + PINGREQ)
        while author.next() != PINGRESP:  # it is on its way: what follows comes in another turn
            pass
        for i in range(100):
            author.send(publish(topic, b"%d" % i))
        author.ping()
        assert client.message().payload == LARGE
        assert [client.message().payload for _ in range(100)] == [b"%d" % i for i in range(100)]


def test_large_messages_for_who_does_not_read_take_no_memory_without_end(every_transport: BrokerProcess) -> None:
    topic = "memory"
    with (
        RawClient.connected(every_transport.address, receive_buffer=4096) as client,
        RawClient.connected(every_transport.address) as author,
    ):
        client.subscribe((topic, 0))
        author.send(publish(topic, LARGE) * 2)
        author.ping()
        before = every_transport.rss()
        for _ in range(10):
            author.send(publish(topic, LARGE))
        author.ping()
        assert every_transport.rss() < before + 3 * len(LARGE)
        # The one under way and the one behind it: more would not be held.
        came = 0
        client.send(PINGREQ)
        while (data := client.next()) != PINGRESP:
            assert parse_publish(data).payload == LARGE
            came += 1
        assert 2 <= came <= 3


def test_a_client_that_does_not_read_while_it_publishes_to_itself_gets_to_its_reading(
    client: RawClient, request: pytest.FixtureRequest
) -> None:
    """It sends far more than all buffers hold before it reads, for longer than its keep alive."""
    topic = request.node.name
    with connected(client, keep_alive=2):
        client.subscribe((topic, 0))
        block = publish(topic, b"x" * 1000) * 100
        for _ in range(300):
            client.send(block)
        client.send(PINGREQ)
        came = 0
        while client.next() != PINGRESP:
            came += 1
        assert 0 < came < 30_000
        client.send(publish(topic, b"now"))
        assert client.message().payload == b"now"
