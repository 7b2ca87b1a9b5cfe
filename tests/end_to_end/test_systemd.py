"""The unit for systemd: systemd accepts it, its commands install it, and what it starts does as systemd is told.

systemd itself does not run here. It is imitated: the user, the directories, the socket that it listens on.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.broker_process import ROOT, environment
from tests.raw_client import DEADLINE, RawClient

UNIT = ROOT / "broker" / "docs" / "selectmq.service"
#: Whom the service runs as, and the group that may read its files: nobody has these numbers.
USER, GROUP = 54_321, 54_322


def _is_anybodys(program: str) -> bool:
    """Whether any user may run it, and it is Python 3.11 or later."""
    path = Path(program).resolve()
    if not path.exists() or not all(part.stat().st_mode & 0o001 for part in (path, *path.parents)):
        return False
    return subprocess.run([path, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]).returncode == 0


#: The tests' own may stand in a home directory.
_INTERPRETERS = (getattr(sys, "_base_executable", sys.executable), "/usr/local/bin/python3", "/usr/bin/python3")
INTERPRETER = next(filter(_is_anybodys, _INTERPRETERS), sys.executable)
#: May it run as another user?
ANOTHER = os.geteuid() == 0 and _is_anybodys(INTERPRETER)


def settings() -> dict[str, list[str]]:
    """What the unit says, by name."""
    found: dict[str, list[str]] = {}
    for line in UNIT.read_text().splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


def commands() -> list[str]:
    """Those that install it."""
    return [line.removeprefix("#   ") for line in UNIT.read_text().splitlines() if line.startswith("#   ")]


class Machine(NamedTuple):
    """A directory in the place of /, which others than its owner may read."""

    root: Path
    group: int
    port: int

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        """A command of the unit's, as root gives it."""
        here = self.translated(command).replace("selectmq-config", str(self.group)).replace(
            'passwords =', f'port = {self.port}\\npasswords ='
        )  # fmt: skip
        return subprocess.run(
            ["bash", "-ec", here], cwd=ROOT, input="secret\n", capture_output=True, text=True, umask=0o022,
            env=environment({"PATH": f"{self.root}/bin:{os.environ['PATH']}"}),
        )  # fmt: skip

    def translated(self, text: str) -> str:
        for directory in ("/opt", "/etc", "/var", "/run"):
            text = text.replace(f"{directory}/", f"{self.root}{directory}/")
        return text


@pytest.fixture
def machine() -> Iterator[Machine]:
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        root.chmod(0o755)
        for made in ("bin", "opt/selectmq/bin", "etc/systemd/system", "var/lib/selectmq", "run"):
            (root / made).mkdir(parents=True)
        shutil.copytree(
            ROOT / "broker", root / "opt/selectmq/lib/selectmq", ignore=shutil.ignore_patterns("__pycache__")
        )
        program = root / "opt/selectmq/bin/selectmq"
        program.write_text(f'#!/bin/sh\nPYTHONPATH={root}/opt/selectmq/lib exec {INTERPRETER} -B -m selectmq "$@"\n')
        for name in ("groupadd", "systemctl"):
            (root / "bin" / name).write_text("#!/bin/sh\nexit 0\n")
            (root / "bin" / name).chmod(0o755)
        program.chmod(0o755)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        yield Machine(root, GROUP if os.geteuid() == 0 else os.getegid(), port)


# --- what systemd says ---


def test_systemd_accepts_it(tmp_path: Path) -> None:
    """All but the program, which is not installed here."""
    program = settings()["ExecStart"][0].split()[0]
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace(f"ExecStart={program}", "ExecStart=/bin/true"))
    run = subprocess.run(["systemd-analyze", "verify", str(copy)], capture_output=True, text=True)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


def test_systemd_would_find_a_mistake(tmp_path: Path) -> None:
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace("ProtectHome=yes", "ProtectHom=yes"))
    run = subprocess.run(["systemd-analyze", "verify", str(copy)], capture_output=True, text=True)
    assert "'ProtectHom'" in run.stderr
    assert run.returncode != 0


def test_systemd_finds_little_that_the_service_could_do_besides() -> None:
    """Of 10.0, at which all is open."""
    command = ["systemd-analyze", "security", "--offline=yes", "--no-pager", "--threshold=20", str(UNIT)]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout


def test_it_needs_no_systemd_that_debian_12_does_not_have() -> None:
    assert settings()["Type"] == ["notify"]
    assert settings()["ExecReload"] == ["/bin/kill -HUP $MAINPID"]
    assert settings()["WantedBy"] == ["multi-user.target"]


# --- what it says of the program ---


@contextlib.contextmanager
def started(machine: Machine) -> Iterator[tuple[subprocess.Popen[str], socket.socket]]:
    """As systemd starts it, and what systemd hears."""
    said = settings()
    state = machine.root / "var/lib" / said["StateDirectory"][0]
    state.chmod(int(said["StateDirectoryMode"][0], 8))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.settimeout(DEADLINE)
        listening.bind(str(machine.root / "run/notify"))
        (machine.root / "run/notify").chmod(0o777)
        name, _, value = said["Environment"][0].partition("=")
        environ = {
            name: value.replace("%S", f"{machine.root}/var/lib"),
            "NOTIFY_SOCKET": str(machine.root / "run/notify"),
            "WATCHDOG_USEC": "200000",
            "PATH": "/usr/local/bin:/usr/bin:/bin",
        }
        identity = {}
        if ANOTHER:
            os.chown(state, USER, USER)
            identity = {"user": USER, "group": USER, "extra_groups": [machine.group]}
        with subprocess.Popen(
            machine.translated(said["ExecStart"][0]).split(), env=environ, cwd="/", stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True, umask=int(said["UMask"][0], 8), **identity,
        ) as process:  # type: ignore[call-overload]  # fmt: skip
            try:
                yield process, listening
            except TimeoutError:
                process.kill()
                assert process.stderr is not None
                raise AssertionError(process.stderr.read()) from None
            finally:
                process.kill()


def heard(listening: socket.socket, word: str) -> str:
    """The next line that begins so."""
    while True:
        lines = listening.recv(1000).decode().splitlines()
        if found := [line for line in lines if line.startswith(word)]:
            return found[0]


def test_its_commands_install_a_broker_that_runs_and_reloads(machine: Machine) -> None:
    for command in commands():
        if "venv" in command or "pip install" in command:
            continue  # the fixture has done it
        done = machine.run(command.replace("users.txt alice", "users.txt alice --stdin"))
        assert done.returncode == 0, (command, done.stderr)
    users = machine.root / "etc/selectmq/users.txt"
    assert (stat.S_IMODE(users.stat().st_mode), users.stat().st_gid) == (0o640, machine.group)
    assert stat.S_IMODE(users.parent.stat().st_mode) & 0o777 == 0o750

    with started(machine) as (process, listening):
        heard(listening, "READY=1")
        heard(listening, "WATCHDOG=1")
        address = ("127.0.0.1", machine.port)
        RawClient.connected(address, "alice", username="alice", password=b"secret").close()
        assert (machine.root / "var/lib/selectmq/selectmq.db").stat().st_mode & 0o077 == 0

        assert machine.run("/opt/selectmq/bin/selectmq passwd /etc/selectmq/users.txt bob --stdin").returncode == 0
        reload = ["bash", "-ec", settings()["ExecReload"][0]]
        subprocess.run(reload, env={"MAINPID": str(process.pid)}, check=True)
        heard(listening, "RELOADING=1")
        heard(listening, "READY=1")
        RawClient.connected(address, "bob", username="bob", password=b"secret").close()

        process.send_signal(signal.SIGTERM)
        heard(listening, "STOPPING=1")
        assert process.wait(DEADLINE) == 0


def test_others_cannot_read_its_files(machine: Machine) -> None:
    for command in commands()[3:6]:
        machine.run(command.replace("users.txt alice", "users.txt alice --stdin"))
    for path in (machine.root / "etc/selectmq", machine.root / "etc/selectmq/users.txt"):
        assert path.stat().st_mode & 0o007 == 0
        assert path.stat().st_gid == machine.group
