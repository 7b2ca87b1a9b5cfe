"""Standard output and error that are closed, full or without a reader: no traceback, and the right exit code."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from broker import __version__
from tests.broker_process import environment, eventually
from tests.raw_client import DEADLINE, RawClient

VERSION, MISTAKE, CHECK = ("--version",), ("--prot", "1"), ("--check",)
PASSWD = ("passwd", "no-such-directory/passwords", "ann", "--batch", "x")


def shell(arguments: tuple[str, ...], redirections: str) -> subprocess.CompletedProcess[str]:
    """`python3 -m broker ARGUMENTS REDIRECTIONS`, as a shell does that."""
    return subprocess.run(
        ["sh", "-c", f'exec "$@" {redirections}', "sh", sys.executable, "-m", "broker", *arguments],
        capture_output=True, text=True, timeout=60, env=environment(),
    )  # fmt: skip


@pytest.mark.parametrize("redirections", ["2>&-", ">&-", "<&-", ">&- 2>&-", "<&- >&- 2>&-", "2>/dev/full"])
@pytest.mark.parametrize(("arguments", "code"), [(VERSION, 0), (CHECK, 0), (("--help",), 0), (MISTAKE, 2), (PASSWD, 1)])
def test_what_cannot_be_told_changes_no_exit_code(arguments: tuple[str, ...], code: int, redirections: str) -> None:
    done = shell(arguments, redirections)
    assert (done.returncode, "Traceback" in done.stderr) == (code, False)
    if "2>" not in redirections and code == 0:
        assert done.stderr == ""
    if ">&-" not in redirections.replace("2>&-", "") and arguments == VERSION:
        assert done.stdout == f"selectmq {__version__}\n"


def test_a_mistake_is_never_told_on_standard_output() -> None:
    assert shell(MISTAKE, "2>&-").stdout == ""


@pytest.mark.parametrize("arguments", [VERSION, CHECK, ("--help",)])
def test_a_full_disk_is_told(arguments: tuple[str, ...]) -> None:
    """Who redirects the output relies on the file."""
    done = shell(arguments, ">/dev/full")
    assert done.returncode == 1
    assert done.stderr == "python3 -m broker: cannot write to standard output: No space left on device\n"


def test_a_reader_that_has_read_enough_is_no_mistake() -> None:
    """As `| head -1`, and without a buffer, as in most containers."""
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "broker", "--help"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(),
    ) as process:  # fmt: skip
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
    assert process.returncode == 0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
    return port


def ready(port: int) -> bool:
    with socket.socket() as sock:
        if sock.connect_ex(("127.0.0.1", port)):
            return False
    RawClient.connected(("127.0.0.1", port)).disconnect()
    return True


@pytest.mark.parametrize("redirections", ["2>&-", "<&- >&- 2>&-", "2>/dev/full"])
def test_a_broker_without_standard_error_serves_and_ends_well(redirections: str, tmp_path: Path) -> None:
    port = free_port()
    data = tmp_path / "data"
    command = f'exec "$@" {redirections}'
    process = subprocess.Popen(
        ["sh", "-c", command, "sh", sys.executable, "-m", "broker", "-p", str(port), "--data", str(data)],
        env=environment(),
    )
    try:
        eventually(lambda: ready(port), "it serves")
        # No file and no socket of the broker's is where a library would print to.
        for number in range(3):
            target = os.readlink(f"/proc/{process.pid}/fd/{number}")
            assert not re.search(r"socket|data|epoll", target), target
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE) == 0
    finally:
        process.kill()
        process.wait()
