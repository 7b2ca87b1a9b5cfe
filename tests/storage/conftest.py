"""The stores that every test of the contract runs against, and a place where commits cost little."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.storage.store_tools import Box, MemoryBox, ReopenedSqliteBox, SqliteBox


@pytest.fixture
def fast_path() -> Iterator[Path]:
    """A directory in memory, where there is one: a commit waits for the disk, which is not what is tested."""
    memory = "/dev/shm"
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as directory:
        yield Path(directory)


@pytest.fixture(params=["memory", "sqlite", "sqlite-reopened"])
def box(request: pytest.FixtureRequest, fast_path: Path) -> Iterator[Box]:
    made: Box
    if request.param == "memory":
        made = MemoryBox()
    elif request.param == "sqlite":
        made = SqliteBox(fast_path / "data")
    else:
        made = ReopenedSqliteBox(fast_path / "data")
    yield made
    made.close()
