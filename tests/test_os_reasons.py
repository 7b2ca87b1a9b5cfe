"""What the system refuses is told in words that say what it is, the same wherever it is met."""

import errno
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from broker import os_reasons
from broker.cli import main
from broker.net import unix_socket
from broker.storage.sqlite import DataError, SqliteStore
from tests.small_disk import can_mount, small_disk


def error(name: str) -> OSError:
    number = getattr(errno, name)
    return OSError(number, os.strerror(number))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("EROFS", "the file system is read-only"),
        ("EACCES", "permission denied"),
        ("ENOSPC", "the disk is full"),
        ("EDQUOT", "the disk quota of this user is used up"),
        ("ELOOP", "symbolic links lead in a circle"),
        ("ENAMETOOLONG", "the name is too long"),
        ("ENOTDIR", "something on the way there is a file, not a directory"),
        ("EMFILE", "this process has too many files open; raise the limit (ulimit -n)"),
        ("EPIPE", os.strerror(errno.EPIPE)),
    ],
)
def test_each_reason_has_its_words(name: str, words: str) -> None:
    assert os_reasons.reason(error(name)) == words


def test_what_is_no_matter_of_the_system_speaks_for_itself() -> None:
    assert os_reasons.reason(ValueError("embedded null byte")) == "embedded null byte"
    assert os_reasons.reason(OSError("AF_UNIX path too long")) == "AF_UNIX path too long"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ENOENT", "there is no such file: create it, or correct its name"),
        ("EISDIR", "this is a directory: name a file"),
        ("EACCES", "it may not be read: give the user that runs this process read permission"),
        ("ELOOP", "it cannot be read: symbolic links lead in a circle"),
    ],
)
def test_a_file_to_be_read(name: str, words: str) -> None:
    assert os_reasons.reading(error(name)) == words


PLACES: dict[str, Callable[[str], list[str]]] = {
    "configuration": lambda path: ["-c", path],
    "passwords": lambda path: ["--passwords", path],
    "acl": lambda path: ["--acl", path],
    "certificate": lambda path: ["--certificate", path],
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda directory: os.symlink("loop", directory / "loop"), "symbolic links lead in a circle"),
        (lambda directory: (directory / "loop").mkdir(), "a directory"),
    ],
    ids=["circle", "directory"],
)
def test_every_file_that_is_read(
    place: str, make: Callable[[Path], object], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path)
    assert main(["--check", "--memory", "-p", "0", *PLACES[place](str(tmp_path / "loop"))]) == 2
    assert re.match(rf".*{re.escape(str(tmp_path))}/loop: .*{words}", capsys.readouterr().err)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("name", "words"),
    [("x" * 300, "the name is too long"), ("file/below", "something on the way there is a file, not a directory")],
    ids=["long", "file"],
)
def test_every_name_that_cannot_be(
    place: str, name: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert main(["--check", "--memory", "-p", "0", *PLACES[place](str(tmp_path / name))]) == 2
    assert words in capsys.readouterr().err


def refusal(directory: str) -> str:
    with pytest.raises(DataError) as caught:
        SqliteStore(directory).close()
    return str(caught.value)


@pytest.fixture
def read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory with a store on a file system that is read-only; where none can be mounted, as Python sees one."""
    if can_mount():
        with small_disk(4 << 20) as disk:
            SqliteStore(str(disk / "there")).close()
            os.system(f"mount -o remount,ro {disk}")
            yield disk
            return
    SqliteStore(str(tmp_path / "there")).close()
    real = os.statvfs(tmp_path)
    fields = list(real)
    fields[8] |= os.ST_RDONLY
    monkeypatch.setattr(os, "statvfs", lambda path: os.statvfs_result(fields))
    monkeypatch.setattr(os, "access", lambda *_, **__: False)

    def refuse(*_: object, **__: object) -> None:
        raise error("EROFS")

    for name in ("mkdir", "open", "makedirs"):
        monkeypatch.setattr(os, name, refuse)
    yield tmp_path


def test_a_read_only_file_system_is_called_so(read_only: Path) -> None:
    said = [refusal(str(read_only / name)) for name in ("there", "new")]
    why = "cannot be used: the file system is read-only (--data names another)"
    assert said == [f"data directory {read_only}/{name} {why}" for name in ("there", "new")]


def test_a_unix_socket_on_a_read_only_file_system() -> None:
    told = unix_socket.advice(error("EROFS"), "/run/selectmq.sock")
    assert told == "the file system is read-only; choose another path with --unix"
