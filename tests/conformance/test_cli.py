"""The command line: exit codes, and the one line that says what to do."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from conformance import cli
from conformance.target import SHAPE, Endpoint
from tests.conformance.faulty.broker import FaultyBroker

ROOT = Path(__file__).parents[2]

#: A test that takes no time against a broker that does as it must.
QUICK = "MQTT-3.1.4-2"


@pytest.fixture
def right() -> Iterator[Endpoint]:
    with FaultyBroker() as broker, broker.broker:
        yield broker.broker.main


def complaint(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on standard error that ends a run with exit code 2."""
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith("python3 -m conformance: ")
    return line.removeprefix("python3 -m conformance: ")


BAD_ARGUMENTS = {
    ("--wrong",): "unrecognized arguments: --wrong; --help shows the arguments",
    ("--patience", "0"): "argument --patience: 0 is not a number above 0; --help shows the arguments",
    ("--patience", "long"): "argument --patience: invalid _positive value: 'long'; --help shows the arguments",
    ("--jobs", "0"): "argument --jobs: 0 is not a whole number from 1; --help shows the arguments",
    ("a", "b"): "unrecognized arguments: b; --help shows the arguments",
    ("http://a",): (f"'http://a' is no target: the scheme 'http' is not known; give it as {SHAPE}"),
    ("--profile", "mosquitto", "mqtt://a"): (
        "profile mosquitto: [run] it starts a broker by itself: leave the target out, or take [run] out"
    ),
    ("--json", "/"): "--json /: is a directory: name a file",
    ("--html", "/none/x.html"): "--html /none/x.html: there is no directory '/none'",
    ("--list", "--select", "ghost"): (
        "--select ghost matches no test: give a section (3.1), a statement (MQTT-3.1.2-8) or a part of a test's name; "
        "--list shows them"
    ),
    ("--list", "--select", "3.1", "--select", "test_many_login_leave_the_last"): (
        "--select test_many_login_leave_the_last matches no test; did you mean test_many_logins_leave_the_last?: "
        "give a section (3.1), a statement (MQTT-3.1.2-8) or a part of a test's name; --list shows them"
    ),
    ("--list", "--select", "mqtt-3.1.4.22"): (
        "--select mqtt-3.1.4.22 matches no test; did you mean MQTT-3.1.4-2?: "
        "give a section (3.1), a statement (MQTT-3.1.2-8) or a part of a test's name; --list shows them"
    ),
    ("--list", "--select", "3.1.2-23"): (
        "--select 3.1.2-23 matches no test: MQTT-3.1.2-23 is not tested, because it binds the client: "
        "nothing that a broker does shows whether it is kept"
    ),
    ("--profile", "selectmqq"): (
        "there is no profile 'selectmqq'; did you mean 'selectmq'?: "
        "give one of aedes, amqtt, mosquitto, nats-server, rabbitmq, selectmq, or the path of a TOML file"
    ),
    ("compare",): "the following arguments are required: FILE; --help shows the arguments",
    ("compare", "/none.json"): "/none.json: cannot be read: No such file or directory",
}


@pytest.mark.parametrize(("arguments", "expected"), BAD_ARGUMENTS.items(), ids=map(" ".join, BAD_ARGUMENTS))
def test_bad_arguments(arguments: tuple[str, ...], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(arguments) == 2
    assert complaint(capsys) == expected


def test_selection_that_matches_nothing_needs_no_broker(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--select", "ghost"]) == 2
    assert complaint(capsys).startswith("--select ghost matches no test")


def test_pass(right: Endpoint, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([right.url, "--select", QUICK]) == 0
    shown = capsys.readouterr()
    assert (
        shown.out.splitlines()[-1] == f"PASSED: {right.url}, for what was selected; a certificate takes the whole run."
    )
    assert shown.err.splitlines()[0] == "0 of 6 tests"


def test_fail(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    reports = {name: str(tmp_path / f"report.{name}") for name in cli.REPORTS}
    with FaultyBroker("nobody is evicted") as broker, broker.broker:
        url = broker.broker.main.url
        arguments = [url, "--select", QUICK, "--patience", "0.5"]
        assert cli.main([*arguments, *(word for name, path in reports.items() for word in (f"--{name}", path))]) == 1
    shown = capsys.readouterr().out
    assert f"NOT CERTIFIED: {url} against MQTT 3.1.1.\n" in shown
    assert "  [MQTT-3.1.4-2] A second login with a live client id evicts the first connection.\n" in shown
    assert (
        f"  again: python3 -m conformance {url} --select test_3_01_connect.py::test_many_logins_leave_the_last\n"
        in shown
    )
    report = json.loads(Path(reports["json"]).read_text())
    assert [entry["verdict"] for entry in report["statements"]] == ["FAIL"]
    assert report["certified"] is False
    assert {name: Path(path).read_text()[:5] for name, path in reports.items()} == {
        "html": "<!doc",
        "json": '{\n "t',
        "junit": "<?xml",
    }


@pytest.mark.parametrize(("strict", "code"), [((), 0), (("--strict",), 1)])
def test_strict(strict: tuple[str, ...], code: int, capsys: pytest.CaptureFixture[str]) -> None:
    with FaultyBroker("malformed strings are refused with code 2") as broker, broker.broker:
        assert cli.main([broker.broker.main.url, "--select", "MQTT-3.1.3-4", *strict]) == code


def test_list_needs_no_broker(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--list"]) == 0
    shown = capsys.readouterr().out.splitlines()
    at = shown.index("  MQTT-3.1.4-2  A second login with a live client id evicts the first connection.")
    assert shown[at + 1].startswith("      test_3_01_connect.py::test_second_login_evicts_the_first[")
    at = shown.index("  MQTT-3.1.2-23  An otherwise idle client pings within its keep alive interval.")
    assert shown[at + 1] == (
        "      NOT TESTED: it binds the client: nothing that a broker does shows whether it is kept"
    )


def test_list_of_a_selection(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--list", "--select", "test_many_logins"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "3.1  CONNECT",
        "  MQTT-3.1.4-2  A second login with a live client id evicts the first connection.",
        "      test_3_01_connect.py::test_many_logins_leave_the_last",
    ]


def test_password_stays_out_of_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with FaultyBroker("nobody is evicted") as broker, broker.broker:
        endpoint = broker.broker.endpoints["authenticated"]
        target = f"mqtt://alice:open%20sesame@127.0.0.1:{endpoint.port}"
        assert cli.main([target, "--select", QUICK, "--patience", "0.5", "--html", f"{tmp_path}/x.html"]) == 1
    shown = capsys.readouterr().out
    assert f"again: python3 -m conformance {endpoint.url} --username alice --select" in shown
    assert "sesame" not in shown + (tmp_path / "x.html").read_text()


def test_compare(right: Endpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([right.url, "--select", QUICK, "--json", f"{tmp_path}/a.json"]) == 0
    capsys.readouterr()
    files = ["--html", f"{tmp_path}/x.html", "--markdown", f"{tmp_path}/x.md"]
    assert cli.main(["compare", f"{tmp_path}/a.json", f"{tmp_path}/a.json", *files]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[1] == f"B  {right.url} (2): not certified (1 PASS)"
    assert (tmp_path / "x.html").read_text().startswith("<!doctype html>")
    assert (tmp_path / "x.md").read_text().startswith("| MQTT 3.1.1 | ")


def environment() -> dict[str, str]:
    # What the user has set up for his own tests must not reach the runner.
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_ADDOPTS": "--no-such-option"}


def test_module(right: Endpoint, tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --no-such-option\n")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "conformance", right.url, "--select", QUICK],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout.splitlines()[-1][:7]) == (0, "PASSED:"), done.stderr


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupt(tmp_path: Path, how: signal.Signals) -> None:
    report = tmp_path / "report.json"
    arguments = ("--select", "MQTT-3.1.2-24", "--select", QUICK, "--json", str(report))
    with (
        FaultyBroker("no keep alive", "nobody is evicted") as broker,
        broker.broker,
        subprocess.Popen(
            [sys.executable, "-m", "conformance", broker.broker.main.url, *arguments, "--patience", "5"],
            cwd=tmp_path,
            env=environment(),
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        assert process.stderr is not None
        while not process.stderr.readline().startswith("FAIL  "):
            pass
        process.send_signal(how)
        try:
            shown, errors = process.communicate(timeout=30)
        finally:
            process.kill()  # if it is still there
    assert process.returncode == 2
    assert errors.splitlines()[-1] == "python3 -m conformance: interrupted: nothing is certified"
    # What was run until then is not lost.
    done = len(json.loads(report.read_text())["tests"])
    assert re.search(rf"^The run itself: it was interrupted after {done} of \d+ tests$", shown, re.MULTILINE)
    assert "FAIL  test_3_01_connect.py::" in shown


def test_interrupt_before_anything_is_judged(tmp_path: Path) -> None:
    with (
        FaultyBroker("no keep alive") as broker,
        broker.broker,
        subprocess.Popen(
            [sys.executable, "-m", "conformance", broker.broker.main.url, "--select", "MQTT-3.1.2-24"],
            cwd=tmp_path,
            env=environment(),
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        assert process.stderr is not None
        assert process.stderr.readline().startswith("0 of ")
        process.send_signal(signal.SIGINT)
        shown, errors = process.communicate(timeout=30)
    assert (process.returncode, shown) == (2, "")
    assert errors.splitlines()[-1] == "python3 -m conformance: interrupted: nothing is certified"


#: Accepts every CONNECT, ends the connection after anything else, and ends itself after the PINGREQ of a stranger.
MORTAL = r"""
import os, socket, sys, threading

def serve(connection):
    with connection:
        while data := connection.recv(65536):
            if data[:1] == b"\xc0":
                os.write(2, b"panic: not a CONNECT\ncall stack\n")
                os._exit(3)
            if data[:1] != b"\x10":
                return
            connection.sendall(b"\x20\x02\x00\x00")

with socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=100) as listener:
    while True:
        threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""


def test_broker_that_one_test_ends(tmp_path: Path) -> None:
    profile = tmp_path / "mortal.toml"
    profile.write_text(
        f"""
        [run]
        command = ["{{{{python}}}}", "{{{{dir}}}}/mortal.py", "{{{{port.main}}}}"]
        [run.files]
        "mortal.py" = '''{MORTAL}'''
        [endpoints.main]
        url = "mqtt://127.0.0.1:{{{{port.main}}}}"
        """
    )
    report = tmp_path / "report.json"
    select = ["--select", "test_first_packet_is_not_connect", "--jobs", "1"]
    assert cli.main(["--profile", str(profile), *select, "--json", str(report)]) == 1
    tests = {test["id"].partition("[")[2]: test for test in json.loads(report.read_text())["tests"]}
    assert {name: "FAIL" if name == "pingreq]" else "PASS" for name in tests} == {
        name: test["verdict"] for name, test in tests.items()
    }
    assert tests["pingreq]"]["reason"] == (
        "expected the broker goes on running; actually the broker ended by itself with exit status 3: "
        "panic: not a CONNECT while test_3_01_connect.py::test_first_packet_is_not_connect[pingreq] ran alone"
    )


def test_without_the_extra_it_says_what_to_install() -> None:
    done = subprocess.run(
        [sys.executable, "-S", "-m", "conformance", "--list"],  # -S: nothing is installed
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(
        r"python3 -m conformance: the module \w+ is not installed: run pip install 'selectmq\[conformance\]', or in a"
        r" clone pip install '\.\[conformance\]'\n",
        done.stderr,
    ), done.stderr


def listing(redirection: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", f'"$@" {redirection}', "sh", sys.executable, "-m", "conformance", "--list"],
        capture_output=True, text=True, timeout=60, cwd=ROOT,
    )  # fmt: skip


def test_a_reader_that_has_read_enough_is_no_fault() -> None:
    done = listing("| head -1")
    assert (done.stdout.count("\n"), done.stderr) == (1, "")


def test_a_full_disk_is_told() -> None:
    done = listing(">/dev/full")
    assert done.returncode == cli.NOT_JUDGED
    assert done.stderr == "python3 -m conformance: cannot write to standard output: No space left on device\n"
