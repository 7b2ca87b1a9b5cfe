"""How listeners go together: which addresses each has, and what collides."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.config.loading import from_keywords, load
from broker.config.options import ListenerConfig
from broker.embedded import Broker, StartError
from broker.endpoints import lay_out
from broker.net.endpoints import ListenError
from tests.net.test_listener import known_names
from tests.raw_client import RawClient


@pytest.fixture(autouse=True)
def _names(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patched:
        known_names(patched, both=["127.0.0.1", "::1"], localhost=["::1", "127.0.0.1"])
        yield


def listeners(*places: dict[str, object]) -> tuple[ListenerConfig, ...]:
    options = {"memory": True, "allow_anonymous": True, "listeners": list(places)}
    return load(None, from_keywords(options)).listeners


def collision(*places: dict[str, object]) -> str:
    with pytest.raises(ListenError) as caught:
        lay_out(listeners(*places))
    return str(caught.value)


@pytest.mark.parametrize(
    ("one", "other", "endpoint"),
    [
        ("localhost", "127.0.0.1", "127.0.0.1:1883"),
        ("localhost", "::1", "[::1]:1883"),
        ("127.0.0.1", "localhost", "127.0.0.1:1883"),
        ("localhost", "both", "127.0.0.1:1883"),
        ("localhost", "0.0.0.0", "0.0.0.0:1883"),
        ("::", "localhost", "[::1]:1883"),
    ],
)
def test_what_names_lead_to_collides(one: str, other: str, endpoint: str) -> None:
    first, second = (f"[{host}]" if ":" in host else host for host in (one, other))
    assert collision({"bind": one}, {"bind": other}) == (
        f"listeners[1]=: the listener on {second}:1883 collides with that on {first}:1883 of listeners[0]=: both would"
        f" listen on {endpoint}; give one of them another port"
    )


def test_a_socket_by_two_paths_collides(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    one, other = tmp_path / "real" / "s", tmp_path / "link" / "s"
    assert collision({"unix": str(one)}, {"unix": str(other)}) == (
        f"listeners[1]=: the listener on unix:{other} collides with that on unix:{one} of listeners[0]=: unix:{one} and"
        f" unix:{other} are one file; give one of them another path"
    )
    assert lay_out(listeners({"unix": str(one)}, {"unix": str(tmp_path / "s")})) == [[], []]
    missing = tmp_path / "missing"
    assert lay_out(listeners({"unix": str(missing / "s")}, {"unix": str(missing / "t")})) == [[], []]


@pytest.mark.parametrize(
    ("others", "alone"),
    [
        ([], False),
        (["0.0.0.0"], True),
        (["127.0.0.1"], True),
        ([("0.0.0.0", 1884)], False),
        ([("::1", 1884)], False),
    ],
)
@pytest.mark.parametrize("wildcard", ["::", "0::0"])
def test_the_ipv6_wildcard_is_for_ipv4_too_unless_somebody_else_is(
    wildcard: str, others: list[str | tuple[str, int]], alone: bool
) -> None:
    places = [(one, 1883) if isinstance(one, str) else one for one in others]
    for turned in (False, True):
        wanted = [(wildcard, 1883), *places]
        laid = lay_out(listeners(*({"bind": bind, "port": port} for bind, port in wanted[:: -1 if turned else 1])))
        assert [endpoint.alone for found in laid for endpoint in found if endpoint.host == "::"] == [alone]


def test_another_address_of_ipv6_is_for_ipv6_alone() -> None:
    assert [endpoint.alone for (endpoint,) in lay_out(listeners({"bind": "::1"}, {"bind": "::", "port": 0}))] == [
        True,
        False,
    ]


@pytest.mark.parametrize("order", [("0.0.0.0", "::"), ("::", "0.0.0.0"), ("::", "127.0.0.1")])
def test_ipv4_and_all_of_ipv6_on_one_port(order: tuple[str, str]) -> None:
    port = free_port()
    with Broker(allow_anonymous=True, listeners=[{"bind": bind, "port": port} for bind in order]) as broker:
        assert broker.addresses == [(bind, port) for bind in order]
        for host in ("127.0.0.1", "::1"):
            RawClient.connected((host, port)).disconnect()


def test_the_ipv6_wildcard_alone_serves_both() -> None:
    with Broker(allow_anonymous=True, bind="::", port=0) as broker:
        for host in ("127.0.0.1", "::1"):
            RawClient.connected((host, broker.port)).disconnect()


def test_an_embedded_broker_on_a_name_has_one_port_on_all_addresses() -> None:
    with Broker(bind="localhost", port=0) as broker:
        assert broker.addresses == [("127.0.0.1", broker.port)]
        for host in ("127.0.0.1", "::1"):
            RawClient.connected((host, broker.port)).disconnect()


def test_what_collides_does_not_start_and_leaves_nothing_open() -> None:
    port = free_port()
    with pytest.raises(StartError, match=r"collides with that on localhost:\d+ of listeners\[0\]="):
        Broker(listeners=[{"bind": "localhost", "port": port}, {"bind": "127.0.0.1", "port": port}]).start()
    with socket.create_server(("127.0.0.1", port)):
        pass


def free_port() -> int:
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as server:
        return int(server.getsockname()[1])
