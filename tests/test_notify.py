"""sd_notify, on a real datagram socket."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.notify import notify, watchdog_interval


@pytest.fixture
def listening(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """systemd's side of the socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(10)
        sock.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield sock


def test_lines_go_out_in_one_datagram(listening: socket.socket) -> None:
    assert notify("READY=1", "STATUS=listening") is True
    assert listening.recv(1000) == b"READY=1\nSTATUS=listening"


def test_a_name_that_begins_with_at_is_an_abstract_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"selectmq-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(10)
        sock.bind(f"\0{name}")
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
        assert notify("STOPPING=1") is True
        assert sock.recv(1000) == b"STOPPING=1"


def test_without_systemd_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert notify("READY=1") is False


@pytest.mark.parametrize("name", ["/nowhere/at/all", "/" + "x" * 300, "relative", "@" + "y" * 300])
def test_a_socket_on_which_nobody_listens_is_no_error(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", name)
    assert notify("READY=1") is False


def test_a_socket_whose_owner_has_gone_is_no_error(listening: socket.socket) -> None:
    listening.close()
    assert notify("READY=1") is False


@pytest.mark.parametrize(
    ("limit", "process", "expected"),
    [
        pytest.param("3000000", None, 1.5, id="half-of-what-is-tolerated"),
        pytest.param("3000000", str(os.getpid()), 1.5, id="meant-for-this-process"),
        pytest.param("3000000", str(os.getpid() + 1), None, id="meant-for-another-process"),
        pytest.param(None, None, None, id="not-asked-for"),
        pytest.param("", None, None, id="empty"),
        pytest.param("0", None, None, id="zero"),
        pytest.param("-5", None, None, id="negative"),
        pytest.param("soon", None, None, id="no-number"),
        pytest.param("3000000", "me", None, id="no-process"),
    ],
)
def test_the_watchdogs_interval(
    limit: str | None, process: str | None, expected: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("WATCHDOG_USEC", limit), ("WATCHDOG_PID", process)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    assert watchdog_interval() == expected
