"""What other users of this machine could do to the broker's files is told."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from broker.config import loading
from broker.file_rights import remarks
from broker.storage.place import FILE_NAME
from tests.broker_process import BrokerProcess

STRANGER = 54_321


def told(toml: str, directory: Path) -> list[str]:
    path = directory / "selectmq.toml"
    path.write_text(toml)
    return [line.replace(f"{directory}/", "") for line in remarks(loading.load(str(path)))]


class Place(NamedTuple):
    toml: str
    make: Callable[[Path], object]
    mode: int
    remark: str  #: "" is none


def made(name: str) -> Callable[[Path], object]:
    return lambda directory: (directory / name).mkdir()


def written(name: str) -> Callable[[Path], object]:
    return lambda directory: (directory / name).write_text("x")


DATA, USERS, ACL, KEY = 'data = "d"', 'passwords = "d"', 'acl = "d"', 'certificate = "c"\nkey = "d"'
SOCKET = 'unix = "d/s"'
IN = "can write to this directory, and so replace"


@pytest.mark.parametrize(
    "place",
    [
        Place(DATA, made("d"), 0o700, ""),
        Place(DATA, made("d"), 0o755, ""),  # the file in it is for its owner alone
        Place(DATA, made("d"), 0o775, ""),  # a group of one's own
        Place(DATA, made("d"), 0o777, f"every user of this machine {IN} everything that is stored"),
        Place(DATA, made("d"), 0o1777, f"every user of this machine {IN} everything that is stored"),
        Place(SOCKET, made("d"), 0o755, ""),
        Place(SOCKET, made("d"), 0o777, f"every user of this machine {IN} the Unix socket"),
        Place(SOCKET, made("d"), 0o1777, ""),  # as /tmp is
        Place(USERS, written("d"), 0o600, ""),
        Place(USERS, written("d"), 0o640, ""),
        Place(USERS, written("d"), 0o644, "every user of this machine can read the hashes of all passwords"),
        Place(USERS, written("d"), 0o666, "every user of this machine can change the hashes of all passwords"),
        Place(KEY, written("d"), 0o604, "every user of this machine can read the private key"),
        Place(ACL, written("d"), 0o644, ""),
        Place(ACL, written("d"), 0o646, "every user of this machine can change who may publish and subscribe to what"),
    ],
    ids=lambda place: f"{place.toml.split()[0]}-{place.mode:o}",
)
def test_permissions(place: Place, tmp_path: Path) -> None:
    place.make(tmp_path)
    (tmp_path / "d").chmod(place.mode)
    lines = told(place.toml if place.toml == DATA else f"memory = true\n{place.toml}", tmp_path)
    assert [line.partition(": take")[0] for line in lines] == ([f"d: {place.remark}"] if place.remark else [])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_owners_and_groups(tmp_path: Path) -> None:
    data = tmp_path / "d"
    data.mkdir(0o755)
    (data / FILE_NAME).touch()
    assert told(DATA, tmp_path) == []
    os.chown(data / FILE_NAME, STRANGER, -1)
    owner = f"it belongs to another user (uid {STRANGER}), who can change everything that is stored"
    assert told(DATA, tmp_path) == [f"d/{FILE_NAME}: {owner}"]
    os.chown(data, STRANGER, STRANGER)
    data.chmod(0o770)
    assert told(DATA, tmp_path) == [
        f"d: {owner}",
        f"d: another group (gid {STRANGER}) {IN} everything that is stored: take that away (chmod go-w)",
        f"d/{FILE_NAME}: {owner}",
    ]


def test_what_is_not_there_is_told_by_others(tmp_path: Path) -> None:
    assert told(f"{DATA}\n{USERS}", tmp_path) == []


def test_the_start_tells_it(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    data.chmod(0o777)
    broker = BrokerProcess(tmp_path, "", data=data)
    try:
        (event,) = broker.wait_for("other users of this machine may interfere")
    finally:
        broker.stop()
    assert (event["level"], event["reason"]) == (
        "warning", f"{data}: every user of this machine {IN} everything that is stored: take that away (chmod go-w)",
    )  # fmt: skip
