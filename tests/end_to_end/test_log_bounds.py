"""Whatever the clients of one address do, the log gets so many lines a second, of a limited length."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from broker.auth.passwords import set_password
from broker.core.complaints import COMINGS_PER_SECOND, LINES_PER_SECOND
from tests.broker_process import StartBroker
from tests.raw_client import Address, RawClient, Will, connack, connect, publish, subscribe

LONG = "ü" * 30_000
LOGIN = {"username": "ann", "password": b"ann"}
#: The longest line: four values of 200 characters, each of which takes six, and the rest.
LONGEST = 8_000


def come_and_go(address: Address, number: int) -> None:
    with RawClient(address) as client:
        client.send(connect(f"{number}{LONG}", **LOGIN))  # type: ignore[arg-type]
        client.expect(connack())


def take_over(address: Address, number: int) -> None:
    with RawClient(address) as client:
        client.send(connect("the same", **LOGIN))  # type: ignore[arg-type]
        client.expect(connack())
        with RawClient(address) as again:
            again.send(connect("the same", **LOGIN))  # type: ignore[arg-type]
            again.expect(connack())
            client.closed()


def be_refused(address: Address, number: int) -> None:
    for packet in (
        connect(f"c{number}", username=f"user {number}{LONG}", password=b"wrong"),
        connect(f"c{number}"),
        connect("", clean=False, **LOGIN),  # type: ignore[arg-type]
        connect(f"c{number}", level=9),
        connect(f"c{number}\0"),
        b"GET /%d HTTP/1.1\r\n\r\n" % number,
        b"\xff\xff\xff\xff\xff%d" % number,
    ):
        with RawClient(address) as client:
            client.send(packet)
            client.closed()


def do_what_is_denied(address: Address, number: int) -> None:
    with RawClient(address) as client:
        client.send(connect("denied", will=Will(f"will/{number}{LONG}"), **LOGIN))  # type: ignore[arg-type]
        client.expect(connack())
        for each in range(50):
            client.send(publish(f"no/{number}/{each}") + subscribe((f"no/{number}/{each}/#", 1)))
            client.next()
        client.send(subscribe(("x/" * 300, 1), ("$share/g/x", 0)))
        client.next()
        client.send(b"\x00\x00")
        client.closed()


@pytest.mark.parametrize("act", [come_and_go, take_over, be_refused, do_what_is_denied])
def test_lines_a_second(act: Callable[[Address, int], None], start_broker: StartBroker, tmp_path: Path) -> None:
    set_password(str(tmp_path / "users"), "ann", b"ann", create=True, iterations=1)
    (tmp_path / "acl").write_text("user ann\ntopic yes\n")
    broker = start_broker(f'passwords = "{tmp_path}/users"\nacl = "{tmp_path}/acl"\n')
    before = len(broker.lines)
    begin = time.monotonic()
    for number in itertools.count():
        act(broker.address, number)
        seconds = time.monotonic() - begin
        if seconds > 2.0:
            break
    broker.stop()
    lines = broker.lines[before:]
    print(f"{act.__name__}: {number} times in {seconds:.1f} s, {len(lines)} lines, {sum(map(len, lines))} bytes")
    # A second of the broker's may begin at any time; the counts of what was left out, and the end, come behind.
    assert len(lines) <= (seconds + 2) * (COMINGS_PER_SECOND + 2 * LINES_PER_SECOND) + 20
    assert max(map(len, lines)) < LONGEST
