"""What a connection on its way in leaves behind: nothing. How it comes in is in end_to_end (proxies, TLS and so on)."""

from __future__ import annotations

import contextlib
import gc
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.arrival import Arrival
from broker.core.connection import Connection
from broker.embedded import Broker
from broker.net.proxy import Introduction
from broker.net.tls import TlsLayer
from broker.net.ws import WebSocket
from tests.broker_process import eventually
from tests.certificates import Authority
from tests.flood import client_hello
from tests.net.test_proxy import inet, v2
from tests.raw_client import RawClient, connect
from tests.websocket_client import WebSocketClient

LAYERS = (Arrival, Connection, Introduction, TlsLayer, WebSocket)


@pytest.fixture
def _no_collector() -> Iterator[None]:
    """What is then freed is freed at once, and not when the collector finds it, which in a broker is rarely."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def there_is_nothing_left() -> bool:
    """But for what the loop called last, and what hangs on it: three have been there."""
    left = Counter(type(one) for one in gc.get_objects() if isinstance(one, LAYERS))
    return max(left.values(), default=0) <= 1


@pytest.mark.usefixtures("_no_collector")
@pytest.mark.parametrize("first", [b"", client_hello(), b"\x16\x03\x01\x00\x05nonsense", b"GET / HTTP/1.1\r\n\r\n"])
def test_of_a_handshake_that_fails(first: bytes, tmp_path: Path) -> None:
    issued = Authority(tmp_path).issue("server", server=True)
    with Broker(port=0, certificate=str(issued.certificate), key=str(issued.key)) as broker:
        for _ in range(3):
            with RawClient(("127.0.0.1", broker.port)) as client:
                client.send(first)
        eventually(there_is_nothing_left, "all of it is free")


@pytest.mark.usefixtures("_no_collector")
@pytest.mark.parametrize("data", [b"", v2(0x21, 0x11, inet("203.0.113.7", 1)), b"nonsense"])
@pytest.mark.parametrize("rest", [b"", connect("c"), b"nonsense"])
@pytest.mark.parametrize("rate", [0, 1])
def test_of_one_from_a_proxy(data: bytes, rest: bytes, rate: int) -> None:
    with Broker(port=0, proxy_protocol=["127.0.0.1"], allow_anonymous=True, max_connect_rate=rate) as broker:
        for _ in range(3):
            with RawClient(("127.0.0.1", broker.port)) as client:
                client.send(data + rest)
        eventually(there_is_nothing_left, "all of it is free")


@pytest.mark.usefixtures("_no_collector")
def test_of_one_that_is_turned_out() -> None:
    with Broker(port=0, max_connections=1) as broker:
        for _ in range(3):
            with contextlib.ExitStack() as stack:
                for _ in range(1030):
                    stack.enter_context(RawClient(("127.0.0.1", broker.port)))
        eventually(there_is_nothing_left, "all of it is free")


@pytest.mark.usefixtures("_no_collector")
@pytest.mark.parametrize("rate", [0, 1])
@pytest.mark.parametrize("forwarded", ["127.0.0.1", "10.0.0.1"])
def test_of_one_over_websocket(rate: int, forwarded: str) -> None:
    with Broker(
        port=0, websocket=True, websocket_forwarded_for=[forwarded], allow_anonymous=True, max_connect_rate=rate
    ) as broker:
        for last in (connect("c"), b"nonsense", b""):
            headers = [("X-Forwarded-For", "203.0.113.7")]
            with WebSocketClient(("127.0.0.1", broker.port), headers=headers) as client:
                client.send(last)
        eventually(there_is_nothing_left, "all of it is free")
