"""The suite under pytest's own command line."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from conformance.target import Endpoint
from tests.conformance.faulty.broker import FaultyBroker

ROOT = Path(__file__).parents[2]


@pytest.fixture
def right() -> Iterator[Endpoint]:
    with FaultyBroker() as broker, broker.broker:
        yield broker.broker.main


def run_pytest(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """pytest with this plugin and no others, whether the distribution is installed or not."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "conformance", "-q", *arguments],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_suite_runs_under_pytest_beside_other_tests(right: Endpoint, tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text("def test_mine(tmp_path):\n    pass\n")
    report = tmp_path / "report.json"
    arguments = ("--mqtt-target", right.url, "--mqtt-select", "MQTT-3.1.4-2", "--mqtt-json", str(report))
    done = run_pytest(tmp_path, "--pyargs", "conformance.suite", "test_mine.py", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "7 passed" in done.stdout
    assert f"PASSED: {right.url}, for what was selected" in done.stdout
    assert json.loads(report.read_text())["statements"][0]["id"] == "MQTT-3.1.4-2"


def test_failure_under_pytest(tmp_path: Path) -> None:
    with FaultyBroker("nobody is evicted") as broker, broker.broker:
        url = broker.broker.main.url
        arguments = ("--mqtt-target", url, "-k", "test_many_logins_leave_the_last", "--mqtt-patience", "0.5")
        done = run_pytest(tmp_path, "--pyargs", "conformance.suite", *arguments)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "FAIL: expected the broker closes the connection after another login under its ClientId" in done.stdout
    assert "1 failed" in done.stdout


def test_xdist_runs_it_too(right: Endpoint, tmp_path: Path) -> None:
    arguments = ("--mqtt-target", right.url, "--mqtt-select", "MQTT-3.1.4-2", "-p", "xdist.plugin", "-n", "1")
    done = run_pytest(tmp_path, "--pyargs", "conformance.suite", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 passed" in done.stdout
    assert "PASSED:" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        ((), 4, "conformance.suite needs a broker: give --mqtt-target mqtt://host:port"),
        (("--mqtt-target", "http://a"), 4, "'http://a' is no target: the scheme 'http' is not known"),
        (("--mqtt-target", "mqtt://127.0.0.1:1"), 2, "no connection to mqtt://127.0.0.1:1: Connection refused"),
    ],
)
def test_mistake(arguments: tuple[str, ...], code: int, expected: str, tmp_path: Path) -> None:
    done = run_pytest(tmp_path, "--pyargs", "conformance.suite", *arguments)
    assert done.returncode == code, done.stdout + done.stderr
    assert expected in done.stdout + done.stderr


def test_without_the_suite_the_plugin_does_nothing(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text("def test_mine():\n    pass\n")
    done = run_pytest(tmp_path, "--strict-markers", "-W", "error")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout
