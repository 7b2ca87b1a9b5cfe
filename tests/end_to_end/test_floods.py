"""Floods of connections from one address: honest ones are all served, and others are hardly held up by any.

The innocent client's round trips are printed: `pytest -s`.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from broker.auth.passwords import set_password
from broker.server import FEW
from tests.broker_process import ROOT, StartBroker, environment
from tests.certificates import Authority
from tests.raw_client import PINGREQ, PINGRESP, Address, RawClient, connack, connect, publish

Report = dict[str, Any]


@contextmanager
def flood(address: Address, *options: str) -> Iterator[Callable[[], Report]]:
    """A flood that runs meanwhile; call what it gives for its report at its end."""
    command = [sys.executable, "-m", "tests.flood", address[0], str(address[1]), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment()) as process:
        try:
            yield lambda: json.loads(process.communicate(timeout=120)[0])
        finally:
            process.kill()


def round_trips(client: RawClient, seconds: float) -> str:
    took = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        start = time.monotonic()
        client.send(PINGREQ)
        client.expect(PINGRESP)
        took.append((time.monotonic() - start) * 1000)
        time.sleep(0.002)
    took.sort()
    assert took[len(took) // 2] < 500  # any machine, however busy; a broker that is held up takes seconds
    return (
        f"median {statistics.median(took):.1f} ms, p99 {took[len(took) * 99 // 100]:.1f} ms, longest {took[-1]:.1f} ms"
    )


def test_by_default_two_thousand_connects_a_second_from_one_address_are_all_served(start_broker: StartBroker) -> None:
    broker = start_broker()
    with (
        RawClient.connected(broker.address, "innocent") as innocent,
        flood(broker.address, "--count", "4000", "--keep") as here,
        flood(broker.address, "--count", "2000", "--rate", "500", "--source", "127.0.0.2") as there,
    ):
        print(round_trips(innocent, 2.0))
        reports = [here(), there()]
    print(*reports, sep="\n")
    assert [(report["code 0"], report["open"]) for report in reports] == [(4000, 0), (2000, 0)]
    assert [report.get("reset", 0) + report.get("closed", 0) for report in reports] == [0, 0]
    assert broker.events("connection refused") == []


def test_a_herd_that_opens_all_before_it_says_anything_is_served(start_broker: StartBroker) -> None:
    """As some load generators do: all sockets first."""
    broker = start_broker("max_connections = 3000\n")
    crowd = [RawClient(broker.address) for _ in range(900)]
    for i, client in enumerate(crowd):
        client.send(connect(f"c{i}"))
    for client in crowd:
        client.expect(connack())
        client.close()


@pytest.mark.parametrize("options", [[], ["--hasty"]], ids=["that stay", "that leave"])
def test_silent_connections_without_end_keep_nobody_out(options: list[str], start_broker: StartBroker) -> None:
    broker = start_broker("max_connections = 1000\n")
    with (
        RawClient.connected(broker.address, "innocent") as innocent,
        flood(
            broker.address, "--say", "nothing", "--source", "127.0.0.2", "--count", "6000", "--seconds", "6", *options
        ) as report,
    ):
        trips = round_trips(innocent, 2.0)
        start = time.monotonic()
        for n in range(100):
            RawClient.connected(broker.address, f"c{n}").disconnect()
        took = time.monotonic() - start
        print(f"{trips}; {took * 10:.1f} ms for each of 100 that connect; {report()}")
        innocent.ping()
    assert took < 20
    assert broker.events("client refused") == []


def test_a_crowd_gets_what_is_published_to_all_of_it(start_broker: StartBroker) -> None:
    """There are more of them than are served in any case within one turn."""
    broker = start_broker()
    with contextlib.ExitStack() as stack:
        crowd = [stack.enter_context(RawClient.connected(broker.address, f"c{number}")) for number in range(4 * FEW)]
        for client in crowd:
            client.subscribe(("t", 0))
        author = stack.enter_context(RawClient.connected(broker.address, "author"))
        for payload in (b"one", b"two"):
            author.send(publish("t", payload))
            for client in crowd:
                client.expect(publish("t", payload))


def test_mosquitto_s_tools_beside_a_flood(start_broker: StartBroker) -> None:
    broker = start_broker()
    host, port = broker.address
    to = ["-h", host, "-p", str(port), "-t", "t", "-q", "1"]
    with subprocess.Popen(
        ["mosquitto_sub", *to, "-i", "reader", "-C", "20", "-W", "60"], stdout=subprocess.PIPE
    ) as reader:
        broker.wait_for("client connected", client="reader")
        subprocess.run(["mosquitto_pub", *to, "-m", "subscribed", "-r"], timeout=60, check=True)
        with flood(broker.address, "--rate", "1500", "--count", "4000"):
            for _ in range(19):
                subprocess.run(["mosquitto_pub", *to, "-m", "x"], timeout=60, check=True)
        assert reader.stdout is not None
        assert reader.stdout.read() == b"subscribed\n" + b"x\n" * 19


def test_wrong_passwords_of_clients_that_leave_cost_nobody_else_his_turn(
    start_broker: StartBroker, tmp_path: Path
) -> None:
    set_password(str(tmp_path / "users"), "ann", b"secret", create=True, iterations=50_000)
    broker = start_broker(f'passwords = "{tmp_path}/users"\n')
    with flood(
        broker.address, "--say", "password", "--hasty", "--source", "127.0.0.2", "--rate", "500", "--count", "2000"
    ) as report:
        start = time.monotonic()
        with RawClient(broker.address) as ann:
            ann.send(connect("ann", username="ann", password=b"secret"))
            ann.expect(connack())
            print(f"{time.monotonic() - start:.2f} s to be admitted; {round_trips(ann, 2.0)}")
        print(report())
    start = time.monotonic()
    with RawClient(broker.address, source="127.0.0.2") as bob:  # who comes from there after them waits for nobody
        bob.send(connect("bob", username="ann", password=b"other"))
        bob.expect(connack(4))
    assert time.monotonic() - start < 5


def test_tls_handshakes_without_end_from_one_address_keep_nobody_else_out(
    start_broker: StartBroker, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    dear = authority.issue("server", server=True, rsa_bits=4096)
    broker = start_broker(f"[[listeners]]\n[[listeners]]\n{dear.toml}")
    plain, secure = broker.addresses
    with (
        RawClient.connected(plain, "innocent") as innocent,
        flood(secure, "--say", "hello", "--source", "127.0.0.2", "--rate", "700", "--count", "2800") as report,
    ):
        print(round_trips(innocent, 1.5))
        start = time.monotonic()
        for n in range(5):
            RawClient.connected(secure, f"c{n}", tls=authority.trusting()).disconnect()
        print(f"{(time.monotonic() - start) / 5 * 1000:.0f} ms for each of five that come by TLS")
        assert time.monotonic() - start < 20
        print(report())
