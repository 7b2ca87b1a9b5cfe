"""What the runner may import: the standard library, pytest, paho-mqtt, websockets, itself; nothing of the broker."""

import ast
import sys
from pathlib import Path

import conformance

HOUSE = Path(conformance.__file__).parent
ALLOWED = {"", "pytest", "paho", "websockets"}


def imported(file: Path) -> set[str]:
    """What a file imports from; "" stands for the runner itself, as its own imports are relative."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add("" if node.level else node.module or "")
    return {name.split(".")[0] for name in names}


def test_imports() -> None:
    files = sorted(HOUSE.rglob("*.py"))
    assert len(files) > 20
    strangers = {
        str(file.relative_to(HOUSE)): sorted(imported(file) - ALLOWED - sys.stdlib_module_names) for file in files
    }
    assert {file: names for file, names in strangers.items() if names} == {}


def test_plugin_is_light() -> None:
    """Who loads it has not asked for a run yet."""
    assert imported(HOUSE / "plugin.py") == {"__future__", "importlib", "pathlib", "typing", "pytest", ""}
    light = ast.parse((HOUSE / "plugin.py").read_text(encoding="utf-8")).body
    modules = ["." * node.level + (node.module or "") for node in light if isinstance(node, ast.ImportFrom)]
    assert modules == ["__future__", "pathlib", "typing", ".marks", ".suite"]
