"""Listening: what is said when it is not possible, and that it goes on when descriptors have run out."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from broker.net.endpoints import ListenError, resolve
from broker.net.listener import BATCH, Listener, listen_on
from tests.broker_process import child
from tests.net.running_loop import DEADLINE, RunningLoop
from tests.unprivileged import run_unprivileged

Accepted = list[tuple[socket.socket, str, str]]


def listen(bind: str, port: int) -> socket.socket:
    """The one socket of an address."""
    (sock,) = listen_on(resolve(bind, port))
    return sock


class Door:
    """A listener of a running loop, and what it told."""

    def __init__(self, running: RunningLoop, bind: str = "127.0.0.1") -> None:
        self.running = running
        self.accepted: Accepted = []
        self.starved: list[str] = []
        self.pauses: list[tuple[float, Callable[[], None]]] = []
        self.on_accept: Callable[[], None] = lambda: None
        self.on_starved: Callable[[], bool] = lambda: False
        self.listener = running.call(
            lambda: Listener(running.loop, listen(bind, 0), self._accept, self._starved, self._later)
        )
        self.address = running.call(lambda: self.listener.address)

    def _accept(self, sock: socket.socket, host: str, peer: str) -> None:
        self.accepted.append((sock, host, peer))
        self.on_accept()

    def _starved(self, why: str) -> bool:
        self.starved.append(why)
        return self.on_starved()

    def _later(self, seconds: float, function: Callable[[], None]) -> None:
        self.pauses.append((seconds, function))

    def until(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + DEADLINE
        while not condition():
            assert time.monotonic() < end
            time.sleep(0.001)

    def close(self) -> None:
        self.running.call(self.listener.close)
        for sock, _, _ in self.accepted:
            sock.close()


# --- where it listens ---


def test_port_0_takes_a_free_port_and_tells_which() -> None:
    with listen("127.0.0.1", 0) as one, listen("127.0.0.1", 0) as other:
        assert one.getsockname()[0] == "127.0.0.1"
        assert 0 < one.getsockname()[1] != other.getsockname()[1] > 0
        assert not one.getblocking()


def test_a_taken_port_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(ListenError) as raised:
            listen("127.0.0.1", port)
    assert str(raised.value) == (
        f"cannot listen on 127.0.0.1:{port}: the port is in use; stop the program that uses it, or choose another"
        " with --port"
    )


def test_a_port_whose_old_connections_linger_can_be_taken_again() -> None:
    server = listen("127.0.0.1", 0)
    address = server.getsockname()
    client = socket.create_connection(address)
    server.setblocking(True)
    accepted, _ = server.accept()
    accepted.close()  # the server's side closes first: TIME_WAIT stays with its port
    assert client.recv(1) == b""
    client.close()
    server.close()
    listen("127.0.0.1", address[1]).close()


@pytest.mark.parametrize("name", ["no-such-host.invalid", "a..b", "x" * 64 + ".example", "999.1.2.3"])
def test_a_name_that_does_not_resolve_is_told(name: str) -> None:
    with pytest.raises(ListenError, match=f"^cannot listen on {re.escape(name)}:1883: no such address \\([^\n]+\\)$"):
        listen(name, 1883)


def test_an_address_of_another_machine_is_told() -> None:
    with pytest.raises(ListenError) as raised:
        listen("192.0.2.1", 1883)  # RFC 5737: an example, and nobody's
    assert str(raised.value) == (
        "cannot listen on 192.0.2.1:1883: this machine has no such address; choose another with --bind"
    )


def test_a_port_that_needs_privileges_is_told() -> None:
    done = run_unprivileged(
        "from broker.net.endpoints import ListenError, resolve\nfrom broker.net.listener import listen_on",
        "try:\n    listen_on(resolve('127.0.0.1', PRIVILEGED_PORT))\nexcept ListenError as error:\n    print(error)",
    )
    assert re.fullmatch(
        r"cannot listen on 127\.0\.0\.1:\d+: permission denied; ports below 1024 need privileges, choose another with"
        r" --port\n",
        done.stdout,
    ), done


def test_ipv6_is_listened_on_and_written_in_brackets() -> None:
    with listen("::1", 0) as server:
        port = server.getsockname()[1]
        with pytest.raises(ListenError, match=rf"^cannot listen on \[::1\]:{port}: the port is in use"):
            listen("::1", port)


def test_the_ipv6_wildcard_hears_ipv4_too() -> None:
    with listen("::", 0) as server, socket.create_connection(("127.0.0.1", server.getsockname()[1])):
        pass


def test_a_socket_that_could_not_be_bound_is_closed() -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(ListenError):
        listen("192.0.2.1", 0)
    assert len(os.listdir("/proc/self/fd")) == before


# --- names with several addresses ---


def known_names(monkeypatch: pytest.MonkeyPatch, **names: list[str]) -> None:
    """Names that the system resolves to these addresses, in this order."""
    real = socket.getaddrinfo

    def getaddrinfo(host: str, *arguments: Any, **options: Any) -> list[Any]:
        return [found for address in names.get(host, [host]) for found in real(address, *arguments, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


@contextlib.contextmanager
def listening(bind: str, port: int = 0) -> Iterator[list[tuple[str, int]]]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(sock) for sock in listen_on(resolve(bind, port))]
        yield [sock.getsockname()[:2] for sock in sockets]


def test_a_name_is_listened_on_at_all_its_addresses_on_one_port(monkeypatch: pytest.MonkeyPatch) -> None:
    known_names(monkeypatch, both=["::1", "127.0.0.1", "127.0.0.2", "::1"])
    for _ in range(20):
        with listening("both") as places:
            assert [host for host, _ in places] == ["127.0.0.1", "127.0.0.2", "::1"]
            ((port),) = {port for _, port in places}
            for place in places:
                socket.create_connection(place).close()
        with listening("both", port) as places:
            assert {one for _, one in places} == {port}


def test_a_port_that_is_free_in_ipv4_and_taken_in_ipv6_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    known_names(monkeypatch, both=["127.0.0.1", "::1"])
    real = socket.socket.bind
    refused: list[int] = []

    def bind(self: socket.socket, address: tuple[Any, ...]) -> None:
        if address[0] == "::1" and len(refused) < 3:
            refused.append(address[1])
            raise OSError(errno.EADDRINUSE, "")
        real(self, address)

    monkeypatch.setattr("broker.net.listener._ListeningSocket.bind", bind, raising=False)
    before = len(os.listdir("/proc/self/fd"))
    with listening("both") as places:
        assert {port for _, port in places}.isdisjoint(refused)
        assert (len(places), len(refused)) == (2, 3)
    assert len(os.listdir("/proc/self/fd")) == before


def test_an_address_of_a_name_that_is_taken_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    known_names(monkeypatch, both=["127.0.0.1", "::1"])
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
        port = server.getsockname()[1]
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(ListenError, match=rf"^cannot listen on \[::1\]:{port}: the port is in use"):
            listen_on(resolve("both", port))
        assert len(os.listdir("/proc/self/fd")) == before


def test_an_address_of_a_name_that_this_machine_does_not_have_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """In containers, `localhost` often has an address in IPv6 that is switched off."""
    known_names(monkeypatch, partly=["192.0.2.1", "127.0.0.1"], elsewhere=["192.0.2.1"])
    with listening("partly") as places:
        assert [host for host, _ in places] == ["127.0.0.1"]
    with pytest.raises(ListenError, match=r"^cannot listen on 192\.0\.2\.1:5: this machine has no such address"):
        listen_on(resolve("elsewhere", 5))


def test_localhost_that_is_not_this_machine_alone_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without passwords it is open to all, as nobody else could reach it."""
    known_names(monkeypatch, localhost=["127.0.0.1", "192.0.2.1"])
    with pytest.raises(ListenError) as raised:
        resolve("localhost", 1883)
    assert str(raised.value) == (
        "cannot listen on localhost:1883: it is 192.0.2.1 here, which others may reach; correct the hosts file, or give"
        " the address with --bind"
    )


def test_an_address_of_ipv4_within_ipv6_is_one_of_ipv4() -> None:
    with listening("::ffff:127.0.0.1") as places:
        assert [host for host, _ in places] == ["127.0.0.1"]


# --- accepting ---


def test_connections_are_accepted_without_blocking_and_without_delay(running: RunningLoop) -> None:
    door = Door(running)
    with socket.create_connection(door.address) as client:
        door.until(lambda: len(door.accepted) == 1)
        sock, host, peer = door.accepted[0]
        assert (host, peer) == ("127.0.0.1", f"127.0.0.1:{client.getsockname()[1]}")
        assert not sock.getblocking()
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) != 0
    door.close()


def test_a_peer_in_ipv6_is_written_in_brackets(running: RunningLoop) -> None:
    door = Door(running, "::1")
    with socket.create_connection(door.address) as client:
        door.until(lambda: len(door.accepted) == 1)
        assert door.accepted[0][1:] == ("::1", f"[::1]:{client.getsockname()[1]}")
    door.close()


def test_connections_that_inherit_no_options_get_them(running: RunningLoop) -> None:
    door = Door(running)
    door.listener._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)
    with contextlib.ExitStack() as clients:
        for _ in range(2):
            clients.enter_context(socket.create_connection(door.address))
        door.until(lambda: len(door.accepted) == 2)
        delays = [sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) for sock, _, _ in door.accepted]
        assert delays == [1, 1]
    door.close()


def test_a_rush_is_accepted_in_batches_so_that_others_have_their_turn(running: RunningLoop) -> None:
    door = Door(running)
    turns: list[int] = []
    door.on_accept = lambda: turns.append(running.turns)
    clients: list[socket.socket] = []

    def rush() -> None:  # within one turn
        clients.extend(socket.create_connection(door.address) for _ in range(BATCH + 10))

    running.call(rush)
    door.until(lambda: len(door.accepted) == BATCH + 10)
    assert max(turns.count(turn) for turn in set(turns)) == BATCH
    for client in clients:
        client.close()
    door.close()


def test_a_client_that_left_before_it_was_accepted_is_harmless(running: RunningLoop) -> None:
    door = Door(running)

    def come_and_go() -> None:
        for _ in range(5):
            client = socket.create_connection(door.address)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            client.close()

    running.call(come_and_go)
    with socket.create_connection(door.address):
        door.until(lambda: len(door.accepted) == 6)
    door.close()


def test_after_close_nobody_is_accepted_and_closing_again_is_harmless(running: RunningLoop) -> None:
    door = Door(running)
    door.close()
    door.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(door.address)


# --- descriptors run out ---


def test_when_descriptors_run_out_it_pauses_and_then_accepts_who_waited(running: RunningLoop) -> None:
    door = Door(running)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    client = socket.socket()

    def starve() -> None:
        client.connect(door.address)
        resource.setrlimit(resource.RLIMIT_NOFILE, (1, before[1]))  # what is open stays open

    try:
        running.call(starve)
        door.until(lambda: len(door.pauses) == 1)
        running.next_turn()
        running.next_turn()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert door.starved == [
        "no more connections for now: this process has too many files open; raise the limit (ulimit -n)"
    ]
    assert door.accepted == []
    ((seconds, resume),) = door.pauses
    assert 0 < seconds <= 1
    running.call(resume)
    door.until(lambda: len(door.accepted) == 1)
    client.close()
    door.close()


def test_when_somebody_else_can_go_it_accepts_on_at_once(running: RunningLoop) -> None:
    door = Door(running)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    client = socket.socket()

    def make_room() -> bool:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        return True

    def starve() -> None:
        client.connect(door.address)
        resource.setrlimit(resource.RLIMIT_NOFILE, (1, before[1]))

    door.on_starved = make_room
    try:
        running.call(starve)
        door.until(lambda: len(door.accepted) == 1)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert (len(door.starved), door.pauses) == (1, [])
    client.close()
    door.close()


def test_a_listener_closed_during_its_pause_stays_closed(running: RunningLoop) -> None:
    door = Door(running)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    client = socket.socket()

    def starve() -> None:
        client.connect(door.address)
        resource.setrlimit(resource.RLIMIT_NOFILE, (1, before[1]))

    try:
        running.call(starve)
        door.until(lambda: len(door.pauses) == 1)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    running.call(door.listener.close)
    running.call(door.pauses[0][1])
    running.next_turn()
    assert door.accepted == []
    client.close()


def test_a_broker_with_few_descriptors_keeps_serving_and_accepts_again() -> None:
    script = (
        "import resource, sys\n"
        "from broker.cli import main\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))\n"
        "sys.exit(main(['-p', '0', '--memory', '--max-connect-rate', '0']))\n"
    )
    with child("-c", script) as (process, log):
        lines: list[str] = []

        def wait_for(text: str) -> str:
            end = threading.Timer(DEADLINE, process.kill)  # which ends the log
            end.start()
            try:
                for line in log:
                    lines.append(line)
                    if text in line:
                        return line
            finally:
                end.cancel()
            raise AssertionError(f"{text!r} was not logged, but: {lines}")

        wait_for("fewer connections than max_connections are possible")
        found = re.search(r"address=127\.0\.0\.1:(\d+)", wait_for("listening"))
        assert found is not None
        address = ("127.0.0.1", int(found[1]))
        first = connected(address)
        crowd = []
        for _ in range(60):  # the system accepts for the broker; and who says nothing would make room
            crowd.append(socket.create_connection(address))
            crowd[-1].sendall(b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00")
        line = wait_for("no more connections for now")
        assert "this process has too many files open; raise the limit (ulimit -n)" in line
        drain = threading.Thread(target=lambda: lines.extend(log))
        drain.start()
        ping(first)  # it serves on
        for client in crowd:
            client.close()
        late = connected(address)
        ping(late)
        ping(first)
        first.close()
        late.close()
        process.terminate()
        drain.join()
    assert process.returncode == 0
    assert not [line for line in lines if "bug" in line or "Traceback" in line]


def connected(address: tuple[str, int]) -> socket.socket:
    client = socket.create_connection(address, DEADLINE)
    client.sendall(b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00")
    assert client.recv(4) == b"\x20\x02\x00\x00"
    return client


def ping(client: socket.socket) -> None:
    client.sendall(b"\xc0\x00")
    assert client.recv(2) == b"\xd0\x00"
