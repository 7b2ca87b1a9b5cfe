"""A look at a data directory from outside: what a start would meet there, and nothing is other than before."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from broker.storage import examine
from broker.storage.place import FILE_NAME
from broker.storage.sqlite import DataError, SqliteStore
from tests.broker_process import environment

HOLD = """
import sys
from broker.storage.sqlite import SqliteStore
store = SqliteStore(sys.argv[1])
print("open", flush=True)
sys.stdin.read()
"""


def state(directory: Path) -> dict[str, tuple[int, float, bytes]]:
    return {
        str(path): (path.stat().st_mode, path.stat().st_mtime, path.read_bytes() if path.is_file() else b"")
        for path in [directory, *directory.rglob("*")]
    }


def fault(directory: Path | str) -> str:
    return examine.examine(str(directory)).fault


def start_fault(directory: Path) -> str:
    try:
        SqliteStore(str(directory)).close()
    except DataError as error:
        return str(error)
    return ""


def test_what_is_not_there_could_be_made_and_is_not(tmp_path: Path) -> None:
    assert examine.examine(str(tmp_path / "a" / "b")) == ("", 0, False)
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_is_closed(tmp_path: Path) -> None:
    SqliteStore(str(tmp_path)).close()
    before = state(tmp_path)
    assert (examine.examine(str(tmp_path)), state(tmp_path)) == (("", 0, False), before)


def test_a_store_that_was_killed_keeps_its_log(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment()
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"open\n"
        process.kill()
    assert (tmp_path / f"{FILE_NAME}-wal").stat().st_size > 0
    before = state(tmp_path)
    assert (examine.examine(str(tmp_path)), state(tmp_path)) == (("", 0, False), before)


def test_a_store_that_is_in_use_names_its_process_and_is_not_disturbed(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment()
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"open\n"
        before = state(tmp_path)
        found = examine.examine(str(tmp_path))
        assert state(tmp_path) == before
        assert "in use by another broker" in start_fault(tmp_path)  # it still has its lock
        process.communicate(b"")
    assert found.holder == process.pid
    assert found.fault == f"{tmp_path}/{FILE_NAME} is in use by a broker that runs (process {process.pid})"
    assert fault(tmp_path) == ""


def damage_head(path: Path) -> None:
    path.write_bytes(b"\0" * 100 + path.read_bytes()[100:])


def damage_middle(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:4096] + b"x" * (len(data) - 4096))


def another_program_s(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE mine (a)")
    db.close()


def a_newer_version_s(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 999")
    db.close()


@pytest.mark.parametrize("spoil", [damage_head, damage_middle, another_program_s, a_newer_version_s])
def test_a_file_that_cannot_be_opened_is_told_as_a_start_would(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    SqliteStore(str(tmp_path)).close()
    spoil(tmp_path / FILE_NAME)
    before = state(tmp_path)
    found = fault(tmp_path)
    assert state(tmp_path) == before
    assert found == start_fault(tmp_path) != ""


def test_a_directory_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "full" / FILE_NAME).mkdir(parents=True)
    for name in ("file", "file/below", "full", "loop", "x" * 300, "new/" + "x" * 300):
        directory = tmp_path / name
        found = fault(directory)
        assert found.startswith(f"data directory {directory} cannot be used: "), name
        assert start_fault(directory) != ""


def test_a_directory_that_may_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    why = "permission denied; check its owner and permissions (--data names another)"
    assert fault(tmp_path) == f"data directory {tmp_path} cannot be used: {why}"
    assert fault(tmp_path / "new") == f"data directory {tmp_path}/new cannot be used: {why}"


def test_a_large_file_is_not_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    SqliteStore(str(tmp_path)).close()
    monkeypatch.setattr(examine, "LARGEST_COPY", 100)
    assert examine.examine(str(tmp_path)) == ("", 0, True)
