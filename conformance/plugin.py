"""The door for pytest: `pytest -p selectmq_conformance --pyargs selectmq_conformance.suite --mqtt-target URL`.

Owns: the options and the marks. Must not know: how tests are run (that is `session`). It is loaded only where it is
asked for with -p, and imports nothing before the options call for it.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .marks import MARKS
from .suite import DIRECTORY

if TYPE_CHECKING:
    from .session import Session

NAME = "selectmq-conformance-session"
#: The package of the tests: `conformance.suite` in a clone.
SUITE = f"{__package__}.suite"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("selectmq_conformance", f"MQTT conformance ({SUITE})")
    group.addoption("--mqtt-target", metavar="URL", help="the broker to test: mqtt://host:port or mqtts://host:port")
    group.addoption("--mqtt-profile", metavar="FILE|NAME", help="how to start and use the broker: a file or a name")
    group.addoption("--mqtt-select", metavar="WHAT", action="append", help="a section, a statement or a test's name")
    group.addoption("--mqtt-patience", metavar="SECONDS", type=float, help="how long to wait for an answer")
    group.addoption("--mqtt-jobs", metavar="N", type=int, help="how many tests run at once")
    group.addoption("--mqtt-strict", action="store_true", help="count WARN as FAIL")
    group.addoption("--mqtt-json", metavar="FILE", help="write the JSON report")
    group.addoption("--mqtt-html", metavar="FILE", help="write the HTML report")


def pytest_configure(config: pytest.Config) -> None:
    for line in MARKS.values():
        config.addinivalue_line("markers", line)
    if config.pluginmanager.has_plugin(NAME):
        return  # `python3 -m conformance` has brought its own
    if config.option.mqtt_target or config.option.mqtt_profile:
        from .cli import session_of

        config.pluginmanager.register(session_of(config), NAME)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.pluginmanager.has_plugin(NAME) or config.option.collectonly:
        return
    if any(DIRECTORY in item.path.parents for item in items):
        raise pytest.UsageError(f"{SUITE} needs a broker: give --mqtt-target mqtt://host:port")


def pytest_collect_directory(path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Take the folders of this package for mere folders: pytest would load them by a name of its own, which is that of
    the folder, and may be the name of something of the user's."""
    if path not in (DIRECTORY, DIRECTORY.parent):
        return None
    found: pytest.Dir = pytest.Dir.from_parent(parent, path=path)
    return found


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """Load a test of the suite as a part of this package, whatever its folder is called.

    pytest would name it after the folder, which is `conformance` also where `pip install -e` calls the package
    selectmq_conformance: the suite would then raise the verdicts of a second copy, which nobody here knows.
    """
    if module_path.parent != DIRECTORY:
        return None
    module: pytest.Module = pytest.Module.from_parent(parent, path=module_path)
    module.obj = importlib.import_module(f"{SUITE}.{module_path.stem}")
    return module


@pytest.fixture
def trial() -> None:
    """A test's dealings with the broker, a trial.Trial: the session gives it to the test, not pytest."""


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    session: Session | None = config.pluginmanager.get_plugin(NAME)
    if session is None or session.result is None:
        return
    from .cli import write_reports
    from .report import terminal

    write_reports(session.result, {"json": config.option.mqtt_json, "html": config.option.mqtt_html})
    terminalreporter.section("MQTT conformance")
    for line in terminal.summary(session.result):
        terminalreporter.write_line(line)
