"""selectmq.pyz, the broker as one file: built, run by an interpreter that has nothing else, and always the same."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from broker.auth.passwords import Passwords
from tests import build_zipapp
from tests.raw_client import RawClient, puback, publish
from tests.test_python_version import OLDER
from tests.websocket_client import WebSocketClient

ROOT = Path(__file__).resolve().parent.parent
#: No site-packages, no environment, and nothing from the directory that it runs in.
BARE = (sys.executable, "-S", "-E", "-I")


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("zipapp") / "selectmq.pyz"
    subprocess.run([sys.executable, str(ROOT / "tests" / "build_zipapp.py"), str(path)], check=True)
    return path


def run(archive: Path, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*BARE, archive.name, *arguments],
        capture_output=True, text=True, timeout=60, cwd=archive.parent, input=stdin, env={"PATH": os.environ["PATH"]},
    )  # fmt: skip


@contextmanager
def broker(*command: str) -> Iterator[tuple[str, int]]:
    """The address of a broker that runs, and ends well."""
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            line = process.stderr.readline()
            found = re.search(r" listening address=127\.0\.0\.1:(\d+)", line)
            assert found is not None, line
            yield "127.0.0.1", int(found[1])
        finally:
            process.terminate()
            process.stderr.read()
    assert process.returncode == 0


def test_it_is_a_broker(archive: Path, tmp_path: Path) -> None:
    with (
        broker(*BARE, str(archive), "-p", "0", "--data", str(tmp_path / "data")) as address,
        RawClient.connected(address, "ann", clean=False) as client,
    ):
        client.subscribe(("t", 1))
        client.send(publish("t", b"stored", 1, packet_id=7))
        assert {client.next(), client.next()} == {puback(7), publish("t", b"stored", 1, packet_id=1)}
    assert (tmp_path / "data" / "selectmq.db").stat().st_size > 0


def test_it_is_a_command_of_its_own(archive: Path) -> None:
    done = subprocess.run([str(archive), "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()[0], done.stderr) == (0, "selectmq", "")


def test_its_commands_work(archive: Path) -> None:
    done = run(archive, "passwd", "users", "ann", "--stdin", "--iterations", "1", stdin="secret\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, "users: added user 'ann'\n", "")
    assert Passwords.read(str(archive.parent / "users")).check("ann", b"secret") is True
    assert run(archive, "options", "port").stdout.startswith("port: TCP port to listen on")
    checked = run(archive, "--check", "--memory", "-p", "0", "--passwords", "users")
    assert (checked.returncode, checked.stderr) == (0, "")


def test_it_names_the_command_that_can_be_typed(archive: Path) -> None:
    assert run(archive, "--help").stdout.startswith("usage: python3 selectmq.pyz [flags]\n")
    done = run(archive, "--prot", "1")
    assert (done.returncode, done.stderr) == (2, "python3 selectmq.pyz: --prot: unknown flag; did you mean '--port'?\n")


def test_it_takes_the_extra_for_websocket_where_it_is_installed(archive: Path) -> None:
    done = run(archive, "--memory", "-p", "0", "--websocket")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "websocket = true: run pip install 'selectmq[websocket]'" in done.stderr
    command = (sys.executable, str(archive), "--memory", "-p", "0", "--websocket")
    with broker(*command) as address, WebSocketClient.connected(address) as client:
        client.ping()


def test_the_same_sources_give_the_same_bytes(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though copied, at another time, with other permissions, and beside what Python has compiled."""
    for name in ("broker", "LICENSE"):
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile)(ROOT / name, tmp_path / name)
    for path in (tmp_path / "broker").rglob("*.py"):
        os.utime(path, (1_000_000_000, 1_000_000_000))
        path.chmod(0o600)
    monkeypatch.setattr(build_zipapp, "ROOT", tmp_path)
    build_zipapp.build(tmp_path / "again.pyz")
    assert (tmp_path / "again.pyz").read_bytes() == archive.read_bytes()


def test_what_is_in_it(archive: Path) -> None:
    with zipfile.ZipFile(archive) as packed:
        names = packed.namelist()
    modules = {f"selectmq/{path.relative_to(ROOT / 'broker').as_posix()}" for path in (ROOT / "broker").rglob("*.py")}
    assert set(names) == modules | {"LICENSE", "__main__.py", "selectmq/py.typed"}
    assert names == sorted(names)


def test_tox_builds_it() -> None:
    section = (ROOT / "tox.ini").read_text().partition("[testenv:zipapp]")[2].partition("\n[")[0]
    assert "python tests/build_zipapp.py" in section
    assert build_zipapp.INTERPRETER == "/usr/bin/env python3"


def test_under_any_name(archive: Path) -> None:
    renamed = archive.parent / "mybroker"
    shutil.copyfile(archive, renamed)
    done = run(renamed, "options", "--help")
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "usage: python3 mybroker options [-h] [NAME ...]")


def test_an_older_python_is_told_what_it_lacks(archive: Path) -> None:
    """However many of those there are on this machine: tests/test_python_version.py has what they are told."""
    for version, path in OLDER.items():
        done = subprocess.run([path, archive.name], capture_output=True, text=True, cwd=archive.parent)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert done.stderr.startswith(f"python3 selectmq.pyz: needs Python 3.11 or later; this is Python {version}")
