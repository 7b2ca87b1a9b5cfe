"""Brokers that the runner starts by itself: how `[run]` is obeyed, and that nothing of them is left behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from conformance import profiles
from conformance.target import TargetError
from tests.broker_process import environment, eventually

#: A "broker" that starts a helper, takes connections and keeps them; its first arguments say what is odd about it.
BROKER = """
import os, socket, subprocess, sys, time
port, oddity = int(sys.argv[1]), sys.argv[2]
helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
with open("{{dir}}/../helper-of-{{port.main}}", "w") as file:
    file.write(str(helper.pid))
if oddity == "does not start":
    sys.exit("no good")
if oddity == "is stubborn":
    import signal
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
kept = []
with socket.create_server(("127.0.0.1", port)) as listener:
    print("taking connections", flush=True)
    while True:
        kept.append(listener.accept()[0])
        if oddity == "dies" and len(kept) > 1:
            os._exit(3)
        if oddity == "is ready late":
            time.sleep(0.5)
            print("serving", flush=True)
"""


def profile(directory: Path, oddity: str = "none", more: str = "") -> str:
    """The text of a profile whose broker leaves a helper's process id in `directory`."""
    script = BROKER.replace("{{dir}}/../", f"{directory}/")
    return f"""
name = "odd"
[run]
command = ["{{{{python}}}}", "{{{{dir}}}}/odd.py", "{{{{port.main}}}}", "{oddity}"]
{more}
[run.files]
"odd.py" = '''{script}'''
[endpoints.main]
url = "mqtt://127.0.0.1:{{{{port.main}}}}"
"""


def helper(directory: Path) -> int:
    """The process that the broker has started."""
    (file,) = directory.glob("helper-of-*")
    return int(file.read_text())


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A process that has ended, and for which nobody has waited, is there in name only.
    return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text() if Path("/proc/self").exists() else True


def is_gone(pid: int) -> bool:
    try:
        return not is_there(pid)
    except FileNotFoundError:
        return True


def test_what_the_broker_has_started_ends_with_it(tmp_path: Path) -> None:
    with profiles.parse(profile(tmp_path), "odd.toml"):
        pid = helper(tmp_path)
        assert is_there(pid)
    eventually(lambda: is_gone(pid), "the helper has ended")


def test_broker_that_does_not_start_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(TargetError) as caught, profiles.parse(profile(tmp_path, "does not start"), "odd.toml"):
        pass
    assert str(caught.value) == "odd did not start: the broker ended by itself with exit status 1: no good"
    pid = helper(tmp_path)
    eventually(lambda: is_gone(pid), "the helper has ended")


def test_broker_that_dies_leaves_nothing(tmp_path: Path) -> None:
    file = tmp_path / "odd.toml"
    file.write_text(profile(tmp_path, "dies"))
    done = run("--profile", str(file), "--patience", "0.5")
    assert done.returncode == 2, done.stdout
    pid = helper(tmp_path)
    eventually(lambda: is_gone(pid), "the helper has ended")


def test_broker_that_does_not_listen_to_sigterm_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("conformance.target.STOP_SECONDS", 0.2)
    with profiles.parse(profile(tmp_path, "is stubborn"), "odd.toml") as broker:
        pid = helper(tmp_path)
        broker.stop()
        eventually(lambda: is_gone(pid), "the helper has ended")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_runner_leaves_nothing(tmp_path: Path, how: signal.Signals) -> None:
    file = tmp_path / "odd.toml"
    file.write_text(profile(tmp_path, "takes connections and is silent"))
    with subprocess.Popen(
        [sys.executable, "-m", "conformance", "--profile", str(file), "--patience", "60"],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env=environment({"TMPDIR": str(tmp_path)}),
    ) as process:
        eventually(lambda: bool(list(tmp_path.glob("helper-of-*"))), "the broker was started", 60)
        eventually(lambda: bool((tmp_path / next(tmp_path.glob("helper-of-*"))).read_text()), "its helper is known")
        process.send_signal(how)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert errors.splitlines()[-1] == "python3 -m conformance: interrupted: nothing is certified"
    pid = helper(tmp_path)
    eventually(lambda: is_gone(pid), "the helper has ended")
    assert list(tmp_path.glob("selectmq-conformance-*")) == []


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "conformance", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env=environment(),
    )


# What [run] says


def test_ready_is_waited_for(tmp_path: Path) -> None:
    text = profile(tmp_path, "is ready late", 'ready = "serving"')
    with profiles.parse(text, "odd.toml") as broker:
        assert "serving\n" in broker._log.read_text()
        broker.restart()
        assert broker._log.read_text().count("serving\n") == 2


def test_ready_that_never_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("conformance.target.START_SECONDS", 1.0)
    text = profile(tmp_path, "none", 'ready = "never"')
    with pytest.raises(TargetError) as caught, profiles.parse(text, "odd.toml"):
        pass
    assert str(caught.value) == "odd is not ready after 1 s: taking connections"


@pytest.mark.parametrize("where", ["command", "programs"])
def test_program_that_is_not_installed(where: str) -> None:
    rest = '["{{python}}"]\nprograms = ["no-such-program"]' if where == "programs" else '["no-such-program"]'
    text = f"""
    [run]
    command = {rest}
    install = "apt-get install such-a-program"
    [endpoints.main]
    url = "mqtt://127.0.0.1:{{{{port.main}}}}"
    """
    with pytest.raises(TargetError) as caught, profiles.parse(text, "odd.toml"):
        pass
    assert str(caught.value) == (
        "the program 'no-such-program' is not installed, or not in PATH: apt-get install such-a-program"
    )


@pytest.mark.parametrize("name", profiles.names())
def test_profiles_say_how_to_install_what_they_need(name: str) -> None:
    launch = profiles.load(name)._launch
    assert launch is not None
    assert launch.install.startswith(("apt-get install ", "pip install "))
