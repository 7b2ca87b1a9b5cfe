"""Nothing that has lived long is let go in a cycle: the program's collector does not look at what is old (cli.py), so
it would stay in memory for ever."""

from __future__ import annotations

import collections
import gc
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from broker import Broker
from tests.certificates import Authority
from tests.raw_client import DISCONNECT, PINGREQ, PINGRESP, RawClient, Will, connect, publish, subscribe
from tests.websocket_client import WebSocketClient


@pytest.fixture
def collector() -> Iterator[Callable[[], dict[str, int]]]:
    """Tells which objects of cycles it finds, by type; nothing is collected by itself meanwhile."""

    def found() -> dict[str, int]:
        gc.collect()
        names = collections.Counter(f"{type(one).__module__}.{type(one).__qualname__}" for one in gc.garbage)
        gc.garbage.clear()
        return {name: count for name, count in names.items() if name.startswith(("broker", "websockets"))}

    gc.collect()
    gc.disable()
    yield found
    gc.set_debug(0)
    gc.garbage.clear()
    gc.enable()


def work(client: RawClient, client_id: str, clean: bool) -> None:
    """What clients do."""
    client.send(connect(client_id, clean=clean, will=Will("wills", b"gone")))
    assert client.next()[:2] == b"\x20\x02"
    client.send(subscribe(("t/+", 1), ("t/2", 2), ("q/#", 0)))
    client.send(publish("t/1", b"x", 1, packet_id=1) + publish("q/1", b"x") + PINGREQ)
    while client.next() != PINGRESP:
        pass


def end(client: RawClient, way: int) -> None:
    if way == 0:
        client.send(DISCONNECT)
    elif way == 1:
        client.send(b"\xf0\x00")  # malformed
    client.close()


@pytest.mark.parametrize("clean", [True, False], ids=["clean", "persistent"])
def test_connections_go_without_the_collector(
    clean: bool, tmp_path: Path, collector: Callable[[], dict[str, int]]
) -> None:
    authority = Authority(tmp_path)
    authority.issue("server", server=True)
    config = tmp_path / "broker.toml"
    config.write_text(
        f'data = "{tmp_path}/data"\n[[listeners]]\nport = 0\n'
        f'[[listeners]]\nport = 0\ncertificate = "{tmp_path}/server.crt"\nkey = "{tmp_path}/server.key"\n'
        "[[listeners]]\nport = 0\nwebsocket = true\n"
    )
    context = ssl.create_default_context(cafile=tmp_path / "authority.pem")
    with Broker(config_file=str(config)) as broker:
        plain, tls, websocket = broker.addresses

        def once() -> None:
            for way in range(3):
                for kind, client in (
                    ("plain", RawClient(plain)),
                    ("tls", RawClient(tls, tls=context)),
                    ("ws", WebSocketClient(websocket)),
                ):
                    work(client, f"{kind}-{way}", clean)
                    end(client, way)

        once()
        collector()
        gc.set_debug(gc.DEBUG_SAVEALL)
        for _ in range(3):
            once()
        # The broker has seen the end of all of them when the last one is gone: a new client under its name is served.
        with WebSocketClient(websocket) as last:
            work(last, "ws-2", clean)
            assert collector() == {}
