"""The broker behind HAProxy (Debian's), which passes on MQTT and TLS with both versions of the PROXY protocol."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import ssl
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from broker.auth.passwords import set_password
from tests.broker_process import BrokerProcess, eventually
from tests.certificates import Authority
from tests.end_to_end.paho_client import Paho
from tests.raw_client import Address, RawClient, connack, connect

#: How the README has it; `check` looks every 50 ms here, so that the log would be full of it.
CONFIG = """
global
    stats socket {directory}/admin.sock
defaults
    mode tcp
    timeout connect 5s
    timeout client 1m
    timeout server 1m
    default-server inter 50ms
listen v1
    bind fd@{v1}
    server broker 127.0.0.1:{mqtt} send-proxy check
listen v2
    bind fd@{v2}
    server broker 127.0.0.1:{mqtt} send-proxy-v2 check proxy-v2-options unique-id,crc32c
listen tls
    bind fd@{tls}
    server broker 127.0.0.1:{mqtts} send-proxy-v2 check
listen unix
    bind fd@{unix}
    server broker unix@{directory}/mq.sock send-proxy-v2 check
"""
NAMES = ("v1", "v2", "tls", "unix")


class Site(NamedTuple):
    """A broker with a proxy in front of it."""

    broker: BrokerProcess
    front: dict[str, Address]  #: where clients connect
    context: ssl.SSLContext
    directory: Path

    def up(self) -> list[str]:
        """The proxy's opinion of its servers."""
        with socket.socket(socket.AF_UNIX) as admin, contextlib.suppress(OSError):
            admin.connect(f"{self.directory}/admin.sock")
            admin.sendall(b"show stat\n")
            with admin.makefile() as answer:
                rows = [line.split(",") for line in answer]
            return [row[17] for row in rows if row[1:2] == ["broker"]]
        return []


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    haproxy = shutil.which("haproxy", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    assert haproxy is not None, "python tests/install_debian.py haproxy=haproxy"
    directory = tmp_path_factory.mktemp("haproxy")
    authority = Authority(directory)
    set_password(str(directory / "users"), "ann", b"one", create=True, iterations=1)
    with contextlib.ExitStack() as stack:
        short = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mq")))
        listener = f'\n[[listeners]]\npasswords = "{directory}/users"\n'
        broker = BrokerProcess(
            directory,
            'log_level = "debug"\n'
            f'{listener}proxy_protocol = ["127.0.0.1"]\n'
            f'{listener}proxy_protocol = ["127.0.0.0/8"]\n{authority.issue("server", server=True).toml}'
            f'{listener}unix = "{short}/mq.sock"\nproxy_protocol = ["unix"]\n',
        )
        stack.callback(broker.stop)
        sockets = {name: stack.enter_context(socket.create_server(("127.0.0.1", 0))) for name in NAMES}
        places = {
            "directory": short,
            "mqtt": broker.addresses[0][1],
            "mqtts": broker.addresses[1][1],
            **{name: sock.fileno() for name, sock in sockets.items()},
        }
        (directory / "haproxy.cfg").write_text(CONFIG.format_map(places))
        proxy = subprocess.Popen(
            [haproxy, "-db", "-f", str(directory / "haproxy.cfg")],
            pass_fds=[sock.fileno() for sock in sockets.values()],
            stderr=stack.enter_context((directory / "haproxy.log").open("w")),
        )
        stack.callback(proxy.wait)
        stack.callback(proxy.kill)
        context = authority.trusting()
        site = Site(broker, {name: sock.getsockname() for name, sock in sockets.items()}, context, short)
        eventually(
            lambda: site.up() == ["UP"] * len(NAMES),
            (directory / "haproxy.log").read_text() or "the proxy has found all its servers",
        )
        yield site


def connect_as_ann(client_id: str, password: bytes = b"one") -> bytes:
    return connect(client_id, username="ann", password=password)


@pytest.mark.parametrize("name", NAMES)
def test_the_log_has_the_address_of_the_client_and_not_of_the_proxy(name: str, site: Site) -> None:
    client = RawClient(site.front[name], source="127.0.0.77")
    if name == "tls":
        client.socket = site.context.wrap_socket(client.socket, server_hostname="127.0.0.1")
    host, port = client.socket.getsockname()
    with client:
        client.send(connect_as_ann(f"c-{name}"))
        client.expect(connack())
        client.ping()
        site.broker.wait_for("client connected", client=f"c-{name}", address=f"{host}:{port}")


@pytest.mark.parametrize("name", NAMES)
def test_messages_pass_in_both_directions(name: str, site: Site) -> None:
    tls = site.context if name == "tls" else None
    large = os.urandom(2_000_000)
    with (
        Paho(site.front[name], f"a-{name}", username="ann", password="one", tls=tls) as author,
        Paho(site.front["v2"], f"r-{name}", username="ann", password="one") as reader,
    ):
        reader.subscribe((f"t/{name}", 2))
        author.publish(f"t/{name}", large, 2)
        assert reader.message().payload == large


def test_who_is_refused_is_told_by_its_own_address(site: Site) -> None:
    client = RawClient(site.front["v2"], source="127.0.0.78")
    host, port = client.socket.getsockname()
    with client:
        client.send(connect_as_ann("guesser", b"wrong"))
        client.expect(connack(4))
    site.broker.wait_for("client refused", client="guesser", address=f"{host}:{port}")


def test_that_the_proxy_checks_the_broker_is_not_in_the_log(site: Site) -> None:
    """It does so every 50 ms."""
    quiet = {"listening", "started", "client connected", "client disconnected", "client refused",
             "fewer connections than max_connections are possible: raise the limit (ulimit -n)"}  # fmt: skip
    assert site.up() == ["UP"] * len(NAMES)
    events = {json.loads(line)["event"] for line in site.broker.lines}
    assert {event for event in events if not event.startswith(("received ", "sent "))} <= quiet
