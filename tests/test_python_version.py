"""Who starts this with an older Python is told so in one line, whatever that Python cannot read."""

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from broker import python_version

ROOT = Path(__file__).resolve().parent.parent
#: What an older Python reads before it is told.
READ_FIRST = ("broker/__init__.py", "broker/python_version.py", "broker/program.py", "broker/version.py",
              "conformance/__main__.py", "conformance/__init__.py", "conformance/program.py")  # fmt: skip


def older_pythons() -> dict[str, str]:
    """Those on this machine: version, path."""
    names = [f"python3.{minor}" for minor in range(6, 11)]
    paths = [path for name in names if (path := shutil.which(name))]
    paths += map(str, Path("~/.pyenv/versions").expanduser().glob("3.*/bin/python3"))
    found = {}
    for path in paths:
        done = subprocess.run([path, "-c", "import sys; print(*sys.version_info[:2])"], capture_output=True, text=True)
        if done.returncode == 0:
            major, minor = map(int, done.stdout.split())
            if (3, 6) <= (major, minor) < python_version.OLDEST:
                found[f"{major}.{minor}"] = path
    return found


OLDER = older_pythons()


@pytest.mark.parametrize("file", READ_FIRST)
@pytest.mark.parametrize("minor", [7, 8, 9, 10])
def test_an_older_python_can_read_what_tells_it(file: str, minor: int) -> None:
    ast.parse((ROOT / file).read_text(), feature_version=(3, minor))


def test_nothing_else_is_imported_before_the_check() -> None:
    imported = []
    for node in ast.parse((ROOT / "broker/__init__.py").read_text()).body:
        if ast.unparse(node) == "python_version.check()":
            break
        if isinstance(node, ast.Import | ast.ImportFrom):
            imported.append(ast.unparse(node))
    assert imported == [
        "from typing import TYPE_CHECKING", "from . import python_version", "from .version import __version__",
    ]  # fmt: skip
    others = [
        ast.unparse(node)
        for file in ("broker/python_version.py", "broker/program.py", "broker/version.py")
        for node in ast.walk(ast.parse((ROOT / file).read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    assert set(others) == {"import os", "import sys", "from . import program"}


@pytest.mark.parametrize(("major", "minor"), [(2, 7), (3, 6), (3, 8), (3, 10)])
@pytest.mark.parametrize(
    ("called", "name"),
    [("-m", "python3 -m broker"), ("/usr/bin/selectmq", "selectmq"), ("C:\\x\\selectmq.exe", "")],
)
def test_a_command_ends_with_one_line(
    called: str, name: str, major: int, minor: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [called if name else "selectmq.exe"])
    with pytest.raises(SystemExit) as caught:
        python_version.check(major, minor)
    line = f"{name or 'selectmq'}: needs Python 3.11 or later; this is Python {major}.{minor} ({sys.executable})\n"
    assert (caught.value.code, capsys.readouterr()) == (2, ("", line))


def test_a_program_that_imports_it_gets_an_import_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/home/ann/program.py"])
    with pytest.raises(ImportError, match=r"^selectmq needs Python 3\.11 or later; this is Python 3\.10 "):
        python_version.check(3, 10)


@pytest.mark.parametrize(("major", "minor"), [(3, 11), (3, 14), (4, 0)])
def test_a_python_that_is_new_enough_is_not_spoken_of(major: int, minor: int) -> None:
    assert python_version.fault(major, minor) == ""


def test_what_is_said_is_what_setup_cfg_demands() -> None:
    demanded = re.search(r"^python_requires = >=(\d+)\.(\d+)$", (ROOT / "setup.cfg").read_text(), re.M)
    assert demanded is not None
    assert tuple(map(int, demanded.groups())) == python_version.OLDEST


@pytest.mark.parametrize("package", ["broker", "conformance"])
def test_the_older_pythons_of_this_machine(package: str) -> None:
    """However many there are: what they would be told is tested above."""
    for version, path in OLDER.items():
        done = subprocess.run([path, "-m", package, "--version"], capture_output=True, text=True, cwd=ROOT)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
        assert done.stderr.startswith(f"python3 -m {package}: needs Python 3.11 or later; this is Python {version}")
    for version, path in OLDER.items():
        script = "try:\n    import broker\nexcept ImportError as error:\n    print(error)"
        done = subprocess.run([path, "-c", script], capture_output=True, text=True, cwd=ROOT)
        assert done.stdout.startswith(f"selectmq needs Python 3.11 or later; this is Python {version} ")
