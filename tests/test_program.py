"""What the program is called where it runs: a command that can be typed."""

import subprocess
import sys
from pathlib import Path

import pytest

from broker import program
from tests.broker_process import environment

#: As pip writes it for the entry point in setup.cfg.
SCRIPT = "import sys\nfrom broker.__main__ import main\nsys.exit(main())\n"


@pytest.mark.parametrize(
    ("called", "name"),
    [
        ("/usr/local/bin/selectmq", "selectmq"),
        ("selectmq.exe", "selectmq"),
        ("/work/broker/__main__.py", "python3 -m broker"),
        ("-m", "python3 -m broker"),
        ("/usr/bin/pytest", "python3 -m broker"),
        ("", "python3 -m broker"),
        ("selectmq.pyz", "python3 -m broker"),  # a file of that name, but not the one that this is in
    ],
)
def test_the_name(called: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [called])
    assert program.name() == name


def test_without_arguments_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [])
    assert program.name() == "python3 -m broker"


@pytest.mark.parametrize("arguments", [["--help"], ["passwd", "--help"], ["options", "--help"], ["check", "--help"]])
def test_the_installed_command_names_itself(arguments: list[str], tmp_path: Path) -> None:
    script = tmp_path / "selectmq"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, str(script), *arguments], capture_output=True, text=True, env=environment(), timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(" ".join(["usage: selectmq", *arguments[:-1], "["]))
    assert "python3 -m" not in done.stdout
