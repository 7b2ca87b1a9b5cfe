"""What is installed: two packages and two commands, in a project that has a `broker.py` and a `conformance` itself.

Everything here runs in processes of its own, from a virtual environment that holds the distribution as a wheel, or as
an editable install of a copy of this folder. Both are built without a network by the setuptools that is here.
"""

from __future__ import annotations

import configparser
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import pytest

from broker import __version__
from tests.broker_process import ROOT
from tests.conformance.faulty.broker import FaultyBroker

pytestmark = pytest.mark.xdist_group("installed")  # what they share is built once

#: What setuptools must be to make a wheel by itself. An older one is replaced by one from the network.
BUILDS_ALONE = (70, 1)


class Installed(NamedTuple):
    """A virtual environment with the distribution, and whatever this Python has beside it."""

    directory: Path

    @property
    def python(self) -> str:
        return str(self.directory / "bin" / "python")

    def command(self, name: str) -> str:
        return str(self.directory / "bin" / name)

    @property
    def site_packages(self) -> Path:
        (found,) = (self.directory / "lib").glob("python*/site-packages")
        return found


def clean_environment() -> dict[str, str]:
    """Nothing in it tells Python or pytest where to find this folder."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PYTEST", "COV_"))}


def run(directory: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=300, env=clean_environment())


def ran(directory: Path, *command: str) -> str:
    """Runs it; it must end well. What it printed."""
    done = run(directory, *command)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def pip(*arguments: str) -> None:
    alone = tuple(map(int, version("setuptools").split(".")[:2])) >= BUILDS_ALONE
    offline = ("--no-build-isolation", "--no-index") if alone else ()
    ran(ROOT, sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments, "--no-deps", *offline)


# --- what is built -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this folder, as setuptools writes into what it builds."""
    copy = tmp_path_factory.mktemp("source") / "selectmq"
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("broker", "conformance"):
        shutil.copytree(ROOT / name, copy / name, ignore=ignored)
    for path in ROOT.iterdir():
        if path.is_file() and path.name != ".git":
            shutil.copy(path, copy)
    (copy / "tests").mkdir()
    shutil.copy(__file__, copy / "tests")
    return copy


@pytest.fixture(scope="session")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("wheel")
    pip("wheel", str(source), "--wheel-dir", str(directory))
    (found,) = directory.iterdir()
    return found


def test_a_wheel_of_the_sdist_is_the_same(source: Path, wheel: Path, tmp_path: Path) -> None:
    build = "import setuptools.build_meta, sys; setuptools.build_meta.build_sdist(sys.argv[1])"
    ran(source, sys.executable, "-c", build, str(tmp_path))
    (sdist,) = tmp_path.glob("*.tar.gz")
    pip("wheel", str(sdist), "--wheel-dir", str(tmp_path / "wheel"))
    (again,) = (tmp_path / "wheel").iterdir()
    assert contents(wheel) == contents(again)
    assert wheel.name == again.name == f"selectmq-{__version__}-py3-none-any.whl"


def contents(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return sorted(archive.namelist())


def test_the_wheel_holds_the_two_folders_and_nothing_else(wheel: Path) -> None:
    packed = {name for name in contents(wheel) if ".dist-info/" not in name}
    wanted = set()
    for folder, package in (("broker", "selectmq"), ("conformance", "selectmq_conformance")):
        for path in (ROOT / folder).rglob("*"):
            inside = path.relative_to(ROOT / folder)
            document = path.suffix == ".md" or "docs" in inside.parts
            if path.is_file() and "__pycache__" not in inside.parts and not document:
                wanted.add(f"{package}/{inside.as_posix()}")
    assert packed == wanted
    assert {name.split("/")[0] for name in contents(wheel)} == {
        "selectmq", "selectmq_conformance", f"selectmq-{__version__}.dist-info",
    }  # fmt: skip


def test_the_list_of_packages_is_that_of_the_folders() -> None:
    """Or a new room would be missing where it is installed, and only there."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    folders = {}
    for line in config["options"]["package_dir"].split("\n")[1:]:
        package, _, folder = line.partition(" = ")
        folders[folder] = package
    found = [
        ".".join((folders[folder], *path.relative_to(ROOT / folder).parts[:-1]))
        for folder in folders
        for path in (ROOT / folder).rglob("__init__.py")
    ]
    assert sorted(found) == sorted(config["options"]["packages"].split())


# --- where it is installed ---------------------------------------------------------------------------------------


@pytest.fixture(scope="session", params=["wheel", "editable"])
def installed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The distribution in a virtual environment that borrows the other packages of this one."""
    one = Installed(tmp_path_factory.mktemp("environment"))
    ran(ROOT, sys.executable, "-m", "venv", "--without-pip", str(one.directory))
    (one.site_packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    what = (str(request.getfixturevalue("wheel")),)
    if request.param == "editable":
        what = ("--editable", str(request.getfixturevalue("source")))  # type: ignore[assignment]
    pip("--python", one.python, "install", "--ignore-installed", *what)  # whatever this Python has of us stays
    return one


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with modules that are called as our folders are, and a conftest with such options and fixtures."""
    files = {
        "broker.py": "OWN = True\n",
        "conformance/__init__.py": "OWN = True\n",
        "conformance/cli.py": "OWN = True\n",
        "target.py": "OWN = True\n",
        "tests/__init__.py": "",
        "tests/broker_process.py": "OWN = True\n",
        "conftest.py": """
            import sys
            import pytest

            def pytest_addoption(parser):
                for name in ("target", "profile", "select", "patience", "jobs", "json", "html"):
                    parser.addoption(f"--{name}", default="own")

            @pytest.fixture
            def trial():
                return "own"

            @pytest.fixture
            def broker():
                return "own"

            def pytest_configure(config):
                config.addinivalue_line("markers", "needs(what): own")

            def pytest_unconfigure(config):
                loaded = {name for name in sys.modules if name.startswith("selectmq")}
                print("loaded", sorted(loaded))
            """,
        "tests/test_own.py": """
            import socket

            import broker as own_broker, conformance, conformance.cli, target
            from tests import broker_process
            import pytest

            def connect(one):
                with socket.create_connection((one.host, one.port), 10) as client:
                    client.sendall(b"\\x10\\x0c\\x00\\x04MQTT\\x04\\x02\\x00\\x00\\x00\\x00")
                    assert client.recv(4) == b"\\x20\\x02\\x00\\x00"

            @pytest.mark.needs("nothing")
            def test_all_is_my_own(trial, broker, request):
                modules = own_broker, conformance, conformance.cli, target, broker_process
                assert all(module.OWN for module in modules)
                assert (trial, broker, request.config.getoption("--target")) == ("own", "own", "there")

            def test_the_fixtures(mqtt_broker, mqtt_broker_factory):
                connect(mqtt_broker)
                connect(mqtt_broker_factory(max_connections=1))

            def test_embedded():
                from selectmq import Broker
                with Broker(port=0) as one:
                    connect(one)
            """,
    }
    for name, text in files.items():
        path = tmp_path / "project" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(line.removeprefix(" " * 12) for line in text.split("\n")))
    return tmp_path / "project"


@contextmanager
def serving(directory: Path, *command: str) -> Iterator[str]:
    """The broker as a program that runs, started by this command: its URL. It must end well."""
    with subprocess.Popen(
        [*command, "-p", "0", "--memory"], cwd=directory, stderr=subprocess.PIPE, text=True, env=clean_environment()
    ) as process:
        assert process.stderr is not None
        try:
            line = process.stderr.readline()
            found = re.search(r" listening address=127\.0\.0\.1:(\d+)", line)
            assert found is not None, line
            yield f"mqtt://127.0.0.1:{found[1]}"
            process.send_signal(signal.SIGTERM)
            log = process.stderr.read()
            assert (process.wait(60), log.splitlines()[-1].split(" ")[-1]) == (0, "ended"), log
        finally:
            process.kill()


def test_nothing_else_is_installed(installed: Installed) -> None:
    there = {path.name for path in installed.site_packages.iterdir()} - {"borrowed.pth", "__pycache__"}
    ours = f"selectmq-{__version__}.dist-info"
    allowed = {"selectmq", "selectmq_conformance"}, {name for name in there if name.startswith("__editable__")}
    assert there - {ours} in allowed
    commands = {path.name for path in (installed.directory / "bin").iterdir()}
    assert {name for name in commands if not re.match(r"python|[Aa]ctivate", name)} == {
        "selectmq", "selectmq-conformance",
    }  # fmt: skip


# --- pytest ---


def test_a_project_of_the_same_names_has_its_own_and_our_fixtures(installed: Installed, project: Path) -> None:
    shown = ran(
        project, installed.python, "-m", "pytest", "-v", "-s", "-W", "error", "--strict-markers", "--target", "there"
    )
    assert "3 passed" in shown


def test_a_pytest_that_does_not_need_us_loads_nothing_and_shows_two_fixtures(
    installed: Installed, project: Path
) -> None:
    shown = ran(project, installed.python, "-m", "pytest", "-s", "-W", "error", "-k", "test_all", "--target", "there")
    light = ["selectmq", *(f"selectmq.{name}" for name in ("program", "pytest_plugin", "python_version", "version"))]
    assert f"loaded {light}" in shown
    (project / "conftest.py").unlink()
    shown = ran(project, installed.python, "-m", "pytest", "--help")
    assert "mqtt" not in shown.lower()
    shown = ran(project, installed.python, "-m", "pytest", "--markers")
    assert [name for name in ("verifies", "needs", "waits", "alone") if f"@pytest.mark.{name}" in shown] == []
    shown = ran(project, installed.python, "-m", "pytest", "--fixtures", "tests")
    assert re.findall(r"^(?:mqtt\w+|trial)\b", shown, re.M) == ["mqtt_broker_factory", "mqtt_broker"]


def test_a_program_that_has_loaded_us_may_start_pytest(installed: Installed, project: Path) -> None:
    script = """
import sys, pytest, selectmq, selectmq.embedded, selectmq_conformance
sys.exit(pytest.main(["-W", "error", "--target", "there"]))
"""
    assert "3 passed" in ran(project, installed.python, "-c", script)


def test_coverage_of_a_project_is_not_upset(installed: Installed, project: Path) -> None:
    ran(
        project, installed.python, "-W", "error", "-m", "coverage", "run", "--source=.", "-m", "pytest", "--target",
        "there", "-W", "error",
    )  # fmt: skip
    assert "selectmq" not in ran(project, installed.python, "-m", "coverage", "report")


# --- the broker ---


def test_the_broker_as_a_program(installed: Installed, project: Path) -> None:
    for command in ((installed.command("selectmq"),), (installed.python, "-m", "selectmq")):
        assert ran(project, *command, "--version") == f"selectmq {__version__}\n"
        with serving(project, *command):
            pass
    for command, name in (
        ((installed.command("selectmq"),), "selectmq"),
        ((installed.python, "-m", "selectmq"), "python3 -m selectmq"),
    ):
        assert ran(project, *command, "--help").startswith(f"usage: {name} [flags]\n")
        done = run(project, *command, "--prot", "1")
        assert (done.returncode, done.stderr.startswith(f"{name}: ")) == (2, True), done.stderr


# --- the runner ---


def test_the_runner_judges_a_broker_that_runs(installed: Installed, project: Path) -> None:
    with serving(project, installed.command("selectmq")) as url:
        for command in ((installed.command("selectmq-conformance"),), (installed.python, "-m", "selectmq_conformance")):
            assert f"PASSED: {url}, for what was selected" in ran(project, *command, url, "--select", "3.12")


def test_the_runner_starts_the_broker_of_its_distribution(installed: Installed, project: Path) -> None:
    shown = ran(
        project, installed.command("selectmq-conformance"), "--profile", "selectmq", "--select", "3.12",
        "--json", "report.json",
    )  # fmt: skip
    assert "PASSED: selectmq, for what was selected" in shown
    assert json.loads((project / "report.json").read_text())["target"] == "selectmq"
    assert sorted(path.name for path in project.iterdir() if path.name not in {"__pycache__", "report.json"}) == [
        "broker.py", "conformance", "conftest.py", "target.py", "tests",
    ]  # fmt: skip


def test_a_failure_comes_with_the_command_that_shows_it_again(installed: Installed, project: Path) -> None:
    selected = "test_3_01_connect.py::test_many_logins_leave_the_last"
    with FaultyBroker("nobody is evicted") as broker, broker.broker:
        arguments = (broker.broker.main.url, "--select", selected)
        for name, command in (
            ("selectmq-conformance", (installed.command("selectmq-conformance"),)),
            ("python3 -m selectmq_conformance", (installed.python, "-m", "selectmq_conformance")),
        ):
            done = run(project, *command, *arguments, "--patience", "0.5", "--html", "report.html")
            assert done.returncode == 1, done.stdout + done.stderr
            again = " ".join((name, *arguments))
            assert f"  again: {again}\n" in done.stdout
            assert again in (project / "report.html").read_text()


@pytest.mark.parametrize("jobs", [(), ("-n", "1")], ids=["alone", "xdist"])
def test_the_suite_beside_the_project_s_own_tests(jobs: tuple[str, ...], installed: Installed, project: Path) -> None:
    """A `conformance`, an option `--target` and a fixture `trial` of the project do not matter to it."""
    with serving(project, installed.command("selectmq")) as url:
        shown = ran(
            project, installed.python, "-m", "pytest", "-p", "selectmq_conformance", "-W", "error", *jobs,
            "--pyargs", "selectmq_conformance.suite", "tests", "--target", "there",
            "--mqtt-target", url, "--mqtt-select", "3.12", "--mqtt-json", "report.json",
        )  # fmt: skip
    assert f"PASSED: {url}, for what was selected" in shown
    count = len(json.loads((project / "report.json").read_text())["tests"])
    assert f" {count + 3} passed" in shown  # none of the project's three is taken for one of the suite
