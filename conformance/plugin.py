"""The door for pytest: `pytest --pyargs conformance.suite --target mqtt://host:port`.

Owns: the options and the marks. Must not know: how tests are run (that is `session`). pytest loads this module in
every one of its runs, so it imports nothing before the options call for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from conformance.marks import MARKS

if TYPE_CHECKING:
    from conformance.session import Session

NAME = "conformance-session"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("conformance", "MQTT conformance (conformance.suite)")
    group.addoption("--target", metavar="URL", help="the broker on trial: mqtt://host:port or mqtts://host:port")
    group.addoption("--target-profile", metavar="FILE|NAME", help="what the runner cannot find out about the broker")
    group.addoption("--target-select", metavar="WHAT", action="append", help="a section, a statement or a test's name")
    group.addoption("--target-patience", metavar="SECONDS", type=float, help="how long an answer is waited for")
    group.addoption("--target-jobs", metavar="N", type=int, help="how many tests run at a time")
    group.addoption("--target-strict", action="store_true", help="let WARN count as FAIL")
    group.addoption("--target-json", metavar="FILE", help="write the JSON report")
    group.addoption("--target-html", metavar="FILE", help="write the HTML report")


def pytest_configure(config: pytest.Config) -> None:
    for line in MARKS.values():
        config.addinivalue_line("markers", line)
    if config.pluginmanager.has_plugin(NAME):
        return  # `python -m conformance` has brought its own
    if config.option.target or config.option.target_profile:
        from conformance.cli import session_of

        config.pluginmanager.register(session_of(config), NAME)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.pluginmanager.has_plugin(NAME) or config.option.collectonly:
        return
    if any("conformance/suite/" in item.path.as_posix() for item in items):
        raise pytest.UsageError("conformance.suite needs a broker: give --target mqtt://host:port")


@pytest.fixture
def trial() -> None:
    """A test's dealings with the broker, a conformance.trial.Trial: the session gives it to the test, not pytest."""


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    session: Session | None = config.pluginmanager.get_plugin(NAME)
    if session is None or session.result is None:
        return
    from conformance.cli import write_reports
    from conformance.report import terminal

    write_reports(session.result, {"json": config.option.target_json, "html": config.option.target_html})
    terminalreporter.section("MQTT conformance")
    for line in terminal.summary(session.result):
        terminalreporter.write_line(line)
