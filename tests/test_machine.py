"""How much memory there is, as the system says it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from broker import machine
from tests.broker_process import environment

MIB = 1 << 20


def test_the_machine_has_some() -> None:
    assert 64 * MIB < machine.memory() < 1 << 50


@pytest.mark.parametrize(
    ("groups", "limits", "expected"),
    [
        ("0::/\n", {"sys/fs/cgroup/memory.max": "67108864\n"}, 64 * MIB),
        ("0::/a/b\n", {"sys/fs/cgroup/a/memory.max": "67108864\n", "sys/fs/cgroup/a/b/memory.max": "max\n"}, 64 * MIB),
        ("0::/a/b\n", {"sys/fs/cgroup/a/memory.max": "67108864", "sys/fs/cgroup/a/b/memory.max": "1048576"}, MIB),
        ("5:cpu:/x\n3:memory:/x\n", {"sys/fs/cgroup/memory/x/memory.limit_in_bytes": "33554432\n"}, 32 * MIB),
        # In a container: the path is that outside of it, and what is mounted is its own.
        ("3:cpu,memory:/docker/1\n", {"sys/fs/cgroup/memory/memory.limit_in_bytes": "33554432\n"}, 32 * MIB),
        ("3:memory:/\n", {"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}, None),
        ("0::/\n", {"sys/fs/cgroup/memory.max": "max\n"}, None),
        ("0::/gone\n", {}, None),
        ("", {}, None),
    ],
)
def test_that_of_the_cgroup_counts_where_it_is_less(
    groups: str, limits: dict[str, str], expected: int | None, tmp_path: Path
) -> None:
    for name, text in {"proc/self/cgroup": groups, **limits}.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert machine.memory(str(tmp_path)) == (machine.memory(str(tmp_path / "none")) if expected is None else expected)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no resource limits")
def test_that_of_the_shell_counts_where_it_is_less() -> None:
    script = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (300 << 20, 300 << 20))\n"
        "from broker import machine; print(machine.memory('/none'))"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment())
    assert run.stdout == f"{300 << 20}\n"
