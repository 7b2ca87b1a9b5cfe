"""What signals do to the program, from its first moment on; and that they are left alone elsewhere."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker import signals
from broker.auth.passwords import set_password
from tests.broker_process import ROOT, BrokerProcess, environment, eventually
from tests.raw_client import RawClient

#: As `sitecustomize`: sends the process a signal when it begins to load `broker.cli`, which is as early as can be.
EARLY_SIGNAL = """
import os, signal, sys

class Sender:
    def find_spec(name, path=None, target=None):
        if name == "broker.cli":
            os.kill(os.getpid(), getattr(signal, os.environ["EARLY_SIGNAL"]))

sys.meta_path.insert(0, Sender)
"""


@pytest.fixture
def early(tmp_path: Path) -> dict[str, str]:
    """The environment of a process that gets the signal of its variable EARLY_SIGNAL while it loads."""
    directory = tmp_path / "early"
    directory.mkdir()
    (directory / "sitecustomize.py").write_text(EARLY_SIGNAL)
    return {"PYTHONPATH": os.pathsep.join((str(directory), str(ROOT)))}


@contextlib.contextmanager
def ended(broker: BrokerProcess) -> Iterator[BrokerProcess]:
    """It runs, and is stopped at the end."""
    try:
        yield broker
    finally:
        broker.stop()


# --- while it runs ---


@pytest.mark.parametrize("name", ["SIGUSR1", "SIGUSR2"])
def test_a_signal_without_a_meaning_is_told_and_ends_nothing(name: str, tmp_path: Path) -> None:
    with ended(BrokerProcess(tmp_path)) as broker, RawClient.connected(broker.address) as client:
        broker.signal(getattr(signal, name))
        broker.wait_for("signal ignored: SIGHUP reloads, SIGTERM ends the broker", signal=name, level="info")
        client.ping()


# --- during the start ---


def test_a_reload_that_is_asked_for_while_it_loads_comes_after_the_start(early: dict[str, str], tmp_path: Path) -> None:
    with ended(BrokerProcess(tmp_path, environ={**early, "EARLY_SIGNAL": "SIGHUP"})) as broker:
        broker.wait_for("reloaded")
        assert [event["event"] for event in broker.events_so_far()] == ["listening", "started", "reloaded"]


def test_an_end_that_is_asked_for_while_it_loads_is_a_good_end(early: dict[str, str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "broker", "-p", "0", "--data", str(tmp_path / "data")],
        capture_output=True, text=True, timeout=60, env=environment({**early, "EARLY_SIGNAL": "SIGTERM"}),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [line.split(" INFO ")[1].split(" ")[0] for line in done.stderr.splitlines()] == [
        "listening", "started", "ending", "ended",
    ]  # fmt: skip
    assert os.listdir(tmp_path / "data") == ["selectmq.db"]  # and nothing half done


@pytest.fixture
def starting(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A broker that cannot go on with its start before its password file is written: that is a FIFO."""
    fifo = tmp_path / "passwords"
    os.mkfifo(fifo, 0o600)
    with subprocess.Popen(
        [sys.executable, "-m", "broker", "-p", "0", "--memory", "--passwords", str(fifo)],
        stderr=subprocess.PIPE, text=True, env=environment(),
    ) as process:  # fmt: skip
        try:
            yield process, fifo
        finally:
            process.kill()


def test_an_end_that_is_asked_for_before_it_serves_is_a_good_end(
    starting: tuple[subprocess.Popen[str], Path], tmp_path: Path
) -> None:
    process, fifo = starting
    users = tmp_path / "users"
    set_password(str(users), "ann", b"secret", create=True, iterations=1)
    with fifo.open("w") as passwords:  # returns when the broker has opened it, too
        process.send_signal(signal.SIGTERM)
        passwords.write(users.read_text())
    assert process.wait(60) == 0
    assert process.stderr is not None
    assert process.stderr.read().splitlines()[-1].endswith(" INFO ended")


def test_who_cannot_wait_for_the_start_asks_again(starting: tuple[subprocess.Popen[str], Path]) -> None:
    process, fifo = starting

    def over() -> bool:
        # More than twice, as one that comes just before a system call is heard after it.
        process.send_signal(signal.SIGTERM)
        return process.poll() is not None

    with fifo.open("w"):
        eventually(over, "the end")
    assert process.returncode == -signal.SIGTERM


# --- commands that do not serve ---


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGUSR1"])
def test_other_commands_end_by_a_signal_as_any_program(name: str, early: dict[str, str], tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "broker", "passwd", "-c", str(tmp_path / "passwords"), "ann"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=environment({**early, "EARLY_SIGNAL": name}),
    ) as process:  # fmt: skip
        assert process.wait(60) == -getattr(signal, name)
    assert not (tmp_path / "passwords").exists()


def test_a_mistake_is_told_also_to_who_has_sent_a_signal(early: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "broker", "--port", "none"],
        capture_output=True, text=True, timeout=60, env=environment({**early, "EARLY_SIGNAL": "SIGTERM"}),
    )  # fmt: skip
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)


# --- in a process that has other things to do ---


def test_the_handlers_are_those_of_before_when_it_is_over() -> None:
    asked: list[tuple[str, str]] = []
    before = {number: signal.getsignal(number) for number in signals.MEANINGS}
    with signals.obeyed(lambda what, which: asked.append((what, which))):
        assert all(signal.getsignal(number) != handler for number, handler in before.items())
        for name in ("SIGTERM", "SIGHUP", "SIGUSR1", "SIGINT"):
            signal.raise_signal(getattr(signal, name))
    assert before == {number: signal.getsignal(number) for number in signals.MEANINGS}
    assert asked == [("stop", "SIGTERM"), ("reload", "SIGHUP"), ("ignore", "SIGUSR1"), ("stop", "SIGINT")]


def test_outside_of_the_main_thread_signals_are_left_alone() -> None:
    before = {number: signal.getsignal(number) for number in signals.MEANINGS}
    during: list[dict[int, object]] = []

    def run() -> None:
        with signals.obeyed(lambda what, which: None):
            during.append({number: signal.getsignal(number) for number in signals.MEANINGS})

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert during == [before]
    assert before == {number: signal.getsignal(number) for number in signals.MEANINGS}
