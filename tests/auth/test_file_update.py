"""A file gets its new content whole, wherever it stands: in place of another, mounted, linked, or in a locked room."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from broker.auth import file_update
from broker.auth.errors import FileError
from broker.auth.passwords import Passwords, set_password
from tests.broker_process import environment
from tests.small_disk import can_mount


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "users"
    file.write_text("old\n")
    return file


def update(path: Path | str, data: bytes = b"new\n") -> None:
    with file_update.changing(str(path)) as real_path:
        file_update.write(real_path, data)


def refuse(number: int) -> Callable[..., None]:
    def call(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return call


def identity(path: Path) -> tuple[int, int]:
    return path.stat().st_dev, path.stat().st_ino


def test_a_new_file_takes_the_place_of_the_old_one(path: Path) -> None:
    before = identity(path)
    with path.open() as reader:
        update(path)
        assert reader.read() == "old\n"  # who has it open sees the whole old one
    assert (path.read_text(), identity(path) != before) == ("new\n", True)


@contextmanager
def mounted(path: Path) -> Iterator[None]:
    subprocess.run(["mount", "--bind", str(path), str(path)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


@contextmanager
def as_if_mounted(path: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", refuse(errno.EBUSY))
        yield


@pytest.mark.parametrize("mount", [as_if_mounted, *([mounted] if can_mount() else [])])
@pytest.mark.parametrize("data", [b"", b"n", b"much longer than what was there\n"])
def test_a_mounted_file_is_written_itself(path: Path, mount: Callable[[Path], Iterator[None]], data: bytes) -> None:
    path.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(path, 1, 2)
    before = path.stat()
    with mount(path):  # type: ignore[attr-defined]
        update(path, data)
        after = path.stat()
        assert path.read_bytes() == data
        assert (after.st_ino, after.st_mode, after.st_uid, after.st_gid) == (
            before.st_ino, before.st_mode, before.st_uid, before.st_gid,
        )  # fmt: skip
    assert os.listdir(path.parent) == ["users"]


def test_the_passwd_command_s_function_changes_a_mounted_file(tmp_path: Path) -> None:
    path = tmp_path / "users"
    set_password(str(path), "ann", b"one", create=True, iterations=1)
    mount = mounted if can_mount() else as_if_mounted
    with mount(path):
        set_password(str(path), "ann", b"two", create=True, iterations=1)
        set_password(str(path), "bob", b"three", create=True, iterations=1)
    known = Passwords.read(str(path))
    assert [known.check(*pair) for pair in (("ann", b"two"), ("bob", b"three"), ("ann", b"one"))] == [True, True, False]


def test_what_fails_half_way_is_put_back(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fsync
    calls = []

    def fail_once(handle: int) -> None:
        calls.append(handle)
        if len(calls) == 2:  # the first is that of the new file
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "replace", refuse(errno.EBUSY))
    monkeypatch.setattr(os, "fsync", fail_once)
    with pytest.raises(FileError) as caught:
        update(path, b"new and longer\n")
    assert str(caught.value) == f"{path}: it cannot be written: the disk is full"
    assert (path.read_text(), os.listdir(path.parent)) == ("old\n", ["users"])


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_failure_leaves_the_old_file_and_no_other(path: Path, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "replace", refuse(number))
    with pytest.raises(FileError, match="it cannot be written: the disk "):
        update(path)
    assert (path.read_text(), os.listdir(path.parent)) == ("old\n", ["users"])


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_a_file_in_a_directory_that_may_not_be_written(
    path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.mkstemp", refuse(number))
    update(path)
    assert path.read_text() == "new\n"
    with pytest.raises(FileError, match=r"users\.new: it cannot be written: "):
        update(f"{path}.new")


def test_a_file_whose_owner_would_change_is_written_itself(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = os.stat(path)
    before = identity(path)
    real = os.stat

    def another_owner(name: str | Path, **options: bool) -> os.stat_result:
        found = real(name, **options)
        if str(name) == str(path):
            return found
        fields = list(found)
        fields[4] += 1
        return os.stat_result(fields)

    monkeypatch.setattr(os, "stat", another_owner)
    monkeypatch.setattr(os, "chown", refuse(errno.EPERM))
    update(path)
    assert (path.read_text(), identity(path), os.listdir(path.parent)) == ("new\n", before, ["users"])
    monkeypatch.setattr("builtins.open", refuse(errno.EACCES))
    with pytest.raises(FileError) as caught:
        file_update._write_itself(str(path), b"", file_update._NotReplaceable("it belongs to user 5 and group 6"))
    monkeypatch.undo()
    assert (
        caught.value.why
        == "it belongs to user 5 and group 6: run this as the user whom the file belongs to, or as root"
    )
    assert owner.st_uid == os.stat(path).st_uid


def test_links_are_followed_and_stay(path: Path, tmp_path: Path) -> None:
    path.chmod(0o604)
    (tmp_path / "first").symlink_to("second")
    (tmp_path / "second").symlink_to(path)
    update(tmp_path / "first")
    assert (os.readlink(tmp_path / "first"), os.readlink(tmp_path / "second")) == ("second", str(path))
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == ("new\n", 0o604)


def test_what_is_no_file_is_left_alone(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("/dev/null", tmp_path / "pipe"):
        with pytest.raises(FileError) as caught:
            update(name)
        assert str(caught.value) == f"{name}: this is no ordinary file: name one that is, or a new one"
    for name in (tmp_path, "/"):
        with pytest.raises(FileError, match="this is a directory: name a file"):
            update(name)
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_extended_attributes_stay(path: Path) -> None:
    try:
        os.setxattr(path, "user.note", b"mine")
    except OSError:  # not on every file system: then there is nothing to keep
        update(path)
        assert os.listxattr(path) == []
        return
    update(path)
    assert os.getxattr(path, "user.note") == b"mine"


CHANGES = """
import sys
from broker.auth.passwords import set_password
for number in range(20):
    set_password(sys.argv[1], f"{sys.argv[2]}-{number}", b"x", create=True, iterations=1)
"""


@pytest.mark.parametrize("itself", [False, True], ids=["replaced", "written"])
def test_changes_of_several_processes_lose_none(tmp_path: Path, itself: bool) -> None:
    path = tmp_path / "users"
    path.touch()
    script = CHANGES
    if itself:
        script = f"import os\ndef busy(*_):\n    raise OSError({errno.EBUSY}, 'busy')\nos.replace = busy\n" + CHANGES
    command = [sys.executable, "-c", script, str(path)]
    processes = [subprocess.Popen([*command, str(number)], env=environment()) for number in range(4)]
    assert [process.wait(timeout=60) for process in processes] == [0] * 4
    names = {line.partition(":")[0] for line in path.read_text().splitlines()}
    assert names == {f"{process}-{number}" for process in range(4) for number in range(20)}
