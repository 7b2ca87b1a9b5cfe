"""Whether an address could be listened on: the answer of a start, and nobody notices the question."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from broker.net import probe
from broker.net.endpoints import ListenError
from broker.net.listener import listen_unix
from tests.net.test_listener import known_names, listen


def start_fault(bind: str, port: int) -> str:
    with pytest.raises(ListenError) as caught:
        listen(bind, port)
    return str(caught.value)


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        fault = probe.tcp("127.0.0.1", port)
        assert fault == (start_fault("127.0.0.1", port), True)
        taken.setblocking(False)
        with pytest.raises(BlockingIOError):
            taken.accept()
    assert probe.tcp("127.0.0.1", port) is None


def test_a_free_port_stays_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    assert [probe.tcp("127.0.0.1", port) for _ in range(3)] == [None] * 3
    listen("127.0.0.1", port).close()


@pytest.mark.parametrize("bind", ["192.0.2.1", "a..b", "no-such-host.invalid"])
def test_an_address_that_is_not_there(bind: str) -> None:
    assert probe.tcp(bind, 0) == (start_fault(bind, 0), False)


def test_all_addresses_of_a_name_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    known_names(monkeypatch, both=["127.0.0.1", "::1"], partly=["192.0.2.1", "127.0.0.1"])
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as taken:
        port = taken.getsockname()[1]
        fault = probe.tcp("both", port)
        assert fault is not None
        begins = f"cannot listen on [::1]:{port}: the port is in use"
        assert (fault.why.startswith(begins), fault.in_use) == (True, True)
    assert probe.tcp("both", port) is None
    assert probe.tcp("partly", port) is None


def test_a_unix_socket_that_is_listened_on(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    assert probe.unix(path) is None
    sock = listen_unix(path, 0o600)
    fault = probe.unix(path)
    assert fault is not None
    assert fault.in_use
    assert fault.why.startswith(f"cannot listen on unix:{path}: it is in use; stop the program that listens there")
    with pytest.raises(BlockingIOError):
        sock.accept()  # nobody has connected
    sock.close()
    assert probe.unix(path) is None  # the file is there, and nobody listens
    assert os.path.exists(path)


@pytest.mark.parametrize("name", ["none/s", "file/s", "file"])
def test_a_unix_socket_that_cannot_be_made(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    path = str(tmp_path / name)
    with pytest.raises(ListenError) as caught:
        listen_unix(path, 0o600)
    assert probe.unix(path) == (str(caught.value), False)


def test_a_directory_that_may_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    fault = probe.unix(str(tmp_path / "s"))
    assert fault is not None
    assert f"permission denied; this user must be allowed to write to {tmp_path}" in fault.why
