"""Unix sockets: whose file may be taken, who may connect, what is left, who the peers are."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from broker.net import unix_socket
from broker.net.endpoints import ListenError
from broker.net.listener import Listener, listen_unix
from tests.broker_process import ROOT, eventually
from tests.net.running_loop import RunningLoop


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Short enough, however deep the directory of the test is."""
    monkeypatch.chdir(tmp_path)
    return "s" if len(str(tmp_path)) > 90 else str(tmp_path / "s")


def connect(path: str) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    try:
        client.connect(path)
    except OSError:
        client.close()
        raise
    return client


def mode_of(path: str) -> int:
    return stat.S_IMODE(os.lstat(path).st_mode)


def leave_a_dead_one(path: str) -> None:
    """As a broker that was killed."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
        dead.listen()


def why_not(path: str) -> str:
    with pytest.raises(ListenError) as raised:
        listen_unix(path, 0o600)
    start = f"cannot listen on unix:{path}: "
    assert str(raised.value).startswith(start)
    return str(raised.value).removeprefix(start)


# --- the file ---


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666, 0o777])
@pytest.mark.parametrize("mask", [0o000, 0o077])
def test_it_has_the_permissions_that_were_asked_for_whatever_the_mask(path: str, mode: int, mask: int) -> None:
    before = os.umask(mask)
    try:
        with listen_unix(path, mode) as server:
            assert mode_of(path) == mode
            assert not server.getblocking()
            connect(path).close()
    finally:
        os.umask(before)


def test_nobody_can_connect_before_the_permissions_are_set(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[type[OSError]] = []
    chmod = os.chmod

    def try_first(name: str, mode: int) -> None:
        with contextlib.suppress(ConnectionRefusedError):
            connect(name).close()
            raise AssertionError("it listens already")
        tried.append(ConnectionRefusedError)
        chmod(name, mode)

    monkeypatch.setattr(os, "chmod", try_first)
    listen_unix(path, 0o600).close()
    assert tried == [ConnectionRefusedError]


def test_that_of_a_dead_broker_is_replaced(path: str) -> None:
    leave_a_dead_one(path)
    with pytest.raises(ConnectionRefusedError):
        connect(path)
    with listen_unix(path, 0o600):
        connect(path).close()


def test_that_of_a_living_one_stays(path: str) -> None:
    with listen_unix(path, 0o600) as server:
        in_use = "it is in use; stop the program that listens there, or choose another path with --unix"
        assert why_not(path) == in_use
        clients = []
        with contextlib.suppress(BlockingIOError):  # even if its queue is full
            for _ in range(5000):
                client = socket.socket(socket.AF_UNIX)
                clients.append(client)
                client.setblocking(False)
                client.connect(path)
        assert why_not(path) == in_use
        for client in clients:
            client.close()
        server.setblocking(True)
        server.accept()[0].close()


def test_a_socket_of_another_kind_that_is_in_use_stays(path: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(path)
        assert why_not(path).startswith("it is in use")
        assert os.path.exists(path)


@pytest.mark.parametrize("kind", ["file", "empty file", "directory", "pipe", "link to a file", "link to nothing"])
def test_what_is_no_socket_stays(kind: str, path: str) -> None:
    if kind == "directory":
        os.mkdir(path)
    elif kind == "pipe":
        os.mkfifo(path)
    elif "link" in kind:
        if kind == "link to a file":
            Path("target").write_text("precious")
        os.symlink("target", path)
    else:
        Path(path).write_text("precious" if kind == "file" else "")
    before = os.lstat(path)
    assert why_not(path) == "there is a file that is no socket; remove it, or choose another path with --unix"
    assert os.lstat(path) == before


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    advice = f"there is no directory {tmp_path}/no; create it, or choose another path with --unix"
    assert why_not(f"{tmp_path}/no/s") == advice
    (tmp_path / "file").write_text("")
    assert why_not(f"{tmp_path}/file/s").startswith(f"there is no directory {tmp_path}/file;")


def test_a_path_that_is_too_long_for_the_system() -> None:
    assert why_not("/tmp/" + "x" * 200) == "AF_UNIX path too long; choose a shorter one with --unix"


class Forbidden(socket.socket):
    """As for a user who may not write to the directory: these tests may run as root, who may."""

    def bind(self, address: object) -> None:
        raise PermissionError(13, "Permission denied")


def test_a_directory_that_may_not_be_written(path: str) -> None:
    with pytest.raises(unix_socket.Impossible) as raised:
        unix_socket.listen(path, 0o600, Forbidden)
    assert str(raised.value) == (
        f"permission denied; this user must be allowed to write to {os.path.dirname(path)}, and to a socket that is"
        " there"
    )


def test_a_system_without_unix_sockets(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unix_socket, "_FAMILY", None)
    assert why_not(path) == "Python has no Unix sockets on this system; use bind and port instead"


def test_what_could_not_listen_leaves_nothing(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, mode: int) -> None:
        raise OSError(5, "the disk failed (input/output error); choose another path with --unix")

    before = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(os, "chmod", refuse)
    assert why_not(path) == "the disk failed (input/output error); choose another path with --unix"
    assert (os.path.lexists(path), len(os.listdir("/proc/self/fd"))) == (False, before)


def test_a_directory_that_stays_locked(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unix_socket, "PATIENCE", 0.05)
    directory = os.open(os.path.dirname(path) or ".", os.O_RDONLY)
    fcntl.flock(directory, fcntl.LOCK_EX)
    assert why_not(path) == "another program has locked the directory; choose another with --unix"
    os.close(directory)
    listen_unix(path, 0o600).close()


def test_of_many_that_start_at_once_beside_a_dead_one_exactly_one_gets_it(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from broker.net.listener import listen_unix, ListenError\n"
        "print('ready', flush=True)\n"
        "sys.stdin.readline()\n"
        "try:\n"
        "    listening = listen_unix('s', 0o600)\n"
        "except ListenError as error:\n"
        "    print(error, flush=True)\n"
        "else:\n"
        "    print('listens', flush=True)\n"
        "sys.stdin.readline()\n"
    )
    here = os.getcwd()
    os.chdir(tmp_path)
    try:
        leave_a_dead_one("s")
        with contextlib.ExitStack() as stack:
            starters = [
                stack.enter_context(
                    subprocess.Popen(
                        [sys.executable, "-c", script], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                    )
                )
                for _ in range(6)
            ]  # fmt: skip

            def say(starter: subprocess.Popen[str]) -> None:
                assert starter.stdin is not None
                starter.stdin.write("\n")
                starter.stdin.flush()

            def hear(starter: subprocess.Popen[str]) -> str:
                assert starter.stdout is not None
                return starter.stdout.readline()

            assert {hear(starter) for starter in starters} == {"ready\n"}
            for starter in starters:
                say(starter)
            told = [hear(starter) for starter in starters]
            assert (told.count("listens\n"), sum("it is in use" in one for one in told)) == (1, 5)
            connect("s").close()
            for starter in starters:
                say(starter)
    finally:
        os.chdir(here)


# --- accepting ---


class Door:
    """A listener of a running loop."""

    def __init__(self, running: RunningLoop, path: str) -> None:
        self.running = running
        self.accepted: list[tuple[socket.socket, str, str]] = []
        self.listener = running.call(
            lambda: Listener(running.loop, listen_unix(path, 0o600), self._accept, self._starved, self._later)
        )

    def _accept(self, sock: socket.socket, host: str, peer: str) -> None:
        self.accepted.append((sock, host, peer))

    def _starved(self, why: str) -> bool:
        raise AssertionError(why)

    def _later(self, seconds: float, function: Callable[[], None]) -> None:
        raise AssertionError(seconds)

    def close(self) -> None:
        self.running.call(self.listener.close)
        for sock, _, _ in self.accepted:
            sock.close()


def test_peers_are_known_by_user_and_process(running: RunningLoop, path: str) -> None:
    door = Door(running, path)
    with connect(path), connect(path):
        eventually(lambda: len(door.accepted) == 2, "both are accepted")
    for sock, host, peer in door.accepted:
        assert (host, peer) == (f"unix:uid-{os.getuid()}", f"unix:uid-{os.getuid()}:pid-{os.getpid()}")
        assert not sock.getblocking()
    assert (door.listener.address, str(door.listener)) == ((path, 0), f"unix:{path}")
    door.close()


def test_peers_on_a_system_that_does_not_tell_who_they_are(
    running: RunningLoop, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unix_socket, "_PEER_CREDENTIALS", None)
    door = Door(running, path)
    with connect(path):
        eventually(lambda: len(door.accepted) == 1, "it is accepted")
    assert door.accepted[0][1:] == ("unix", "unix:?")
    door.close()


def test_closing_removes_the_file(running: RunningLoop, path: str) -> None:
    door = Door(running, path)
    assert os.path.exists(path)
    door.close()
    door.close()
    assert not os.path.lexists(path)


def test_closing_leaves_what_has_taken_the_place_of_the_file(running: RunningLoop, path: str) -> None:
    door = Door(running, path)
    os.rename(path, path + ".old")
    with listen_unix(path, 0o600):
        door.close()
        connect(path).close()
    os.unlink(path + ".old")


def test_closing_where_the_file_is_gone_is_harmless(running: RunningLoop, path: str) -> None:
    door = Door(running, path)
    os.unlink(path)
    door.close()


def test_a_lock_that_is_held_for_a_moment_is_waited_for(path: str) -> None:
    directory = os.open(os.path.dirname(path) or ".", os.O_RDONLY)
    fcntl.flock(directory, fcntl.LOCK_EX)
    threading.Timer(0.05, lambda: os.close(directory)).start()
    listen_unix(path, 0o600).close()
