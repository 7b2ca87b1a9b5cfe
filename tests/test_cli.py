"""The command line: a mistake is one line and exit code 2, signals do what they say, systemd hears of it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from broker import __version__, admission
from broker.auth.passwords import set_password
from broker.cli import main
from tests.broker_process import (
    RELOAD_FAILED,
    BrokerProcess,
    StartBroker,
    child,
    environment,
    eventually,
    run_command_line,
)
from tests.raw_client import (
    RawClient,
    Will,
    connack,
    connect,
    puback,
    publish,
    suback,
    subscribe,
)
from tests.unprivileged import run_unprivileged


@pytest.fixture
def start_broker(tmp_path: Path) -> Iterator[StartBroker]:
    brokers: list[BrokerProcess] = []

    def start(
        toml: str = "", *flags: str, data: Path | None = None, environ: Mapping[str, str] | None = None
    ) -> BrokerProcess:
        broker = BrokerProcess(tmp_path, toml, *flags, data=data, environ=environ)
        brokers.append(broker)
        return broker

    yield start
    for broker in brokers:
        broker.stop()


def deaf_client(broker: BrokerProcess) -> RawClient:
    """A client for which more is under way than the system takes: its broker cannot end at once."""
    deaf = RawClient.connected(broker.address, receive_buffer=4096).subscribe(("to/the/deaf", 0))
    with RawClient.connected(broker.address) as client:
        for _ in range(80):
            client.send(publish("to/the/deaf", b"x" * 100_000))
        client.ping()
    return deaf


# --- what it prints, and exit code 0 ---


def test_help_names_every_flag() -> None:
    done = run_command_line("--help")
    assert (done.returncode, done.stderr) == (0, "")
    for flag in ("--config", "--check", "--version", "--port", "--memory", "--max-inflight", "--no-allow-anonymous"):
        assert flag in done.stdout


def test_version() -> None:
    done = run_command_line("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"selectmq {__version__}\n", "")


def test_check_of_a_good_configuration(tmp_path: Path) -> None:
    passwords, acl, config = tmp_path / "passwords", tmp_path / "acl", tmp_path / "broker.toml"
    set_password(str(passwords), "ann", b"secret", create=True, iterations=1)
    acl.write_text("user ann\ntopic readwrite #\n")
    config.write_text(f'passwords = "{passwords}"\nacl = "acl"\n[[listeners]]\nport = 1\n[[listeners]]\nport = 2\n')
    config.write_text(f"max_connections = 100\nmemory = true\n{config.read_text()}")
    done = run_command_line("--check", "-c", str(config))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "configuration is fine: 127.0.0.1:1, 127.0.0.1:2\n"


# --- mistakes: one line on standard error, exit code 2 ---

FILES = {
    "unknown.toml": "max_inflght = 5\n",
    "value.toml": "port = 'abc'\n",
    "syntax.toml": "port = = 1\n",
    "open.toml": "bind = '0.0.0.0'\n",
    "mosquitto.toml": "listener 1883\nallow_anonymous true\n",
    "no-passwords.toml": "passwords = 'none'\n",
    "bad-passwords.toml": "passwords = 'bad-passwords'\n",
    "bad-passwords": "# a comment\nann:plain\n",
    "bad-acl.toml": "acl = 'bad-acl'\n",
    "bad-acl": "topic readwrite a\ntopik write b\n",
}
MISTAKES = [
    pytest.param(["-c", "unknown.toml"], "unknown.toml:1: unknown key 'max_inflght'; did you mean 'max_inflight'?"),
    pytest.param(["-c", "value.toml"], "value.toml:1: 'port' must be an integer from 0 to 65535, not 'abc'"),
    pytest.param(["-c", "syntax.toml"], "syntax.toml:1: is not valid TOML: "),
    pytest.param(["-c", "open.toml"], "open.toml:1: 'bind' opens 0.0.0.0:1883 to the network: set passwords"),
    pytest.param(["-c", "mosquitto.toml"], "it looks like a mosquitto.conf: `python3 -m broker convert FILE`"),
    pytest.param(["-c", "none.toml"], "none.toml: there is no such file"),
    pytest.param(["-c", "."], ".: is a directory; name the configuration file in it"),
    pytest.param(["-c", "no-passwords.toml"], "none: there is no such file: create it, or correct its name"),
    pytest.param(["-c", "bad-passwords.toml"], "bad-passwords:2: "),
    pytest.param(["-c", "bad-acl.toml"], "bad-acl:2: unknown keyword 'topik'; did you mean 'topic'?"),
    pytest.param(["--passwords", "none"], "none: there is no such file: create it, or correct its name"),
    pytest.param(["--acl", "."], ": this is a directory: name a file"),
    pytest.param(["--bind", "0.0.0.0"], "--bind: opens 0.0.0.0:1883 to the network: set passwords"),
    pytest.param(["--port", "65536"], "--port: must be an integer from 0 to 65535, not 65536"),
    pytest.param(["--max-inflight", "0"], "--max-inflight: must be an integer from 1 to 65535, not 0"),
    pytest.param(["--max-inflght", "5"], "--max-inflght: unknown flag; did you mean '--max-inflight'?"),
    pytest.param(["--chek"], "--chek: unknown flag; did you mean '--check'?"),
    pytest.param(["--max-conn", "5"], "--max-conn: unknown flag"),
    pytest.param(["--deny-users", "x"], "--deny-users: has no flag; set 'deny_users' in the configuration file"),
    pytest.param(["--port"], "argument -p/--port: expected one argument; --help shows all flags"),
    pytest.param(["-c"], "argument -c/--config: expected one argument; --help shows all flags"),
    pytest.param(["--memory=yes"], "ignored explicit argument 'yes'; --help shows all flags"),
    pytest.param(["mosquitto.conf"], "mosquitto.conf: "),
    pytest.param(["--memory", "--data", "x"], "--memory: stores nothing, so it cannot go with data"),
]


@pytest.mark.parametrize(("arguments", "text"), MISTAKES)
@pytest.mark.parametrize("check", [True, False], ids=["check", "start"])
def test_a_mistake_is_told_in_one_line(
    arguments: list[str],
    text: str,
    check: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, content in FILES.items():
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(0o600)  # hashes that others can read are told, too
    monkeypatch.chdir(tmp_path)
    if not check and any("passwords" in part or "acl" in part for part in arguments):
        # These files are read by the start itself: in a process of its own, were it to succeed.
        done = run_in(tmp_path, *arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert one_line(done.stderr, text)
        return
    assert main([*arguments, "--check"] if check else arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert one_line(captured.err, text)


def run_in(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "broker", "-p", "0", "--memory", *arguments],
        capture_output=True, text=True, timeout=60, env=environment(), cwd=directory,
    )  # fmt: skip


def one_line(said: str, text: str) -> bool:
    assert said.count("\n") == 1, said
    assert said.startswith("python3 -m broker: "), said
    assert text in said, said
    return True


def test_a_start_tells_all_mistakes(tmp_path: Path) -> None:
    (tmp_path / "b.toml").write_text("max_inflght = 5\nport = 'abc'\n")
    done = run_in(tmp_path, "-c", "b.toml", "--max-retained", "1")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "python3 -m broker: b.toml:1: unknown key 'max_inflght'; did you mean 'max_inflight'?\n"
        "python3 -m broker: b.toml:2: 'port' must be an integer from 0 to 65535, not 'abc'\n"
    )


def test_an_unknown_flag_in_a_real_process() -> None:
    done = run_command_line("--prot", "1883")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "python3 -m broker: --prot: unknown flag; did you mean '--port'?\n"


def test_a_taken_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run_command_line("--memory", "-p", str(port))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"python3 -m broker: cannot listen on 127.0.0.1:{port}: the port is taken; stop the program that holds it, or"
        " choose another with --port\n"
    )


def test_a_port_that_needs_privileges() -> None:
    done = run_unprivileged(
        "import sys; from broker.cli import main\n",
        "sys.exit(main(['--memory', '-p', str(PRIVILEGED_PORT)]))",
    )
    assert (done.returncode, done.stdout) == (2, "")
    lines = [line for line in done.stderr.splitlines() if " WARNING fewer connections " not in line]
    assert len(lines) == 1, done.stderr
    assert re.fullmatch(
        r"python3 -m broker: cannot listen on 127\.0\.0\.1:\d+: permission denied; ports below 1024 need privileges,"
        r" choose another with --port",
        lines[0],
    )


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("192.0.2.1", "cannot listen on 192.0.2.1:0: this machine has no such address; choose another with --bind"),
        ("a..b", "cannot listen on a..b:0: no such address ("),
        ("no-such-host.invalid", "cannot listen on no-such-host.invalid:0: no such address ("),
    ],
)
def test_an_address_that_is_not_there(address: str, text: str) -> None:
    done = run_command_line("--memory", "-p", "0", "--bind", address, "--allow-anonymous")
    assert (done.returncode, done.stdout) == (2, "")
    assert one_line(done.stderr, text)


# --- the end ---


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_well_on_a_signal(number: int, start_broker: StartBroker, tmp_path: Path) -> None:
    broker = start_broker(data=tmp_path / "data")
    clients = [RawClient.connected(broker.address, f"c{i}", clean=i % 2 == 0) for i in range(4)]
    broker.signal(number)
    assert broker.wait() == 0
    for client in clients:
        assert client.closed() == b""
    assert broker.lines[-1].startswith('{"time": ')
    assert [json.loads(line)["event"] for line in broker.lines[-6:]] == [
        "ending", *["client disconnected"] * 4, "ended",
    ]  # fmt: skip


def test_the_wills_of_connected_clients_are_delivered_at_the_end(start_broker: StartBroker, tmp_path: Path) -> None:
    broker = start_broker(data=tmp_path / "data")
    early = RawClient.connected(broker.address, "early").subscribe(("w/#", 1))
    dying = [RawClient.connected(broker.address, f"d{i}", will=Will(f"w/{i}", b"gone", i, i == 1)) for i in range(3)]
    late = RawClient.connected(broker.address, "late").subscribe(("w/#", 0))
    stored = RawClient.connected(broker.address, "stored", clean=False).subscribe(("w/#", 2))
    broker.signal(signal.SIGTERM)
    for client in (early, late):
        assert sorted(client.message()[:2] for _ in range(3)) == [(f"w/{i}", b"gone") for i in range(3)]
        assert client.closed() == b""
    assert broker.wait() == 0
    for client in (*dying, stored):
        client.close()
    # What a persistent session has not acknowledged is still there after a start, as is what was to be retained.
    broker.start()
    with RawClient.connected(broker.address, "stored", clean=False, present=True) as stored:
        assert sorted(stored.message().topic for _ in range(2)) == ["w/1", "w/2"]
    with RawClient.connected(broker.address) as client:
        client.send(subscribe(("w/#", 0)))
        client.expect(suback(0))
        assert client.message()[:4] == ("w/1", b"gone", 0, True)


def test_what_is_unsent_at_the_end_still_reaches_a_client_that_reads(start_broker: StartBroker) -> None:
    broker = start_broker()
    slow = RawClient.connected(broker.address, receive_buffer=4096).subscribe(("t", 0))
    with RawClient.connected(broker.address) as client:
        for i in range(9):
            client.send(publish("t", b"%d" % i * 100_000))
        client.ping()
        broker.signal(signal.SIGTERM)
        broker.wait_for("ending")
        assert [slow.message().payload[:1] for _ in range(9)] == [b"%d" % i for i in range(9)]
        assert slow.closed() == b""
    assert broker.wait() == 0


def test_while_it_ends_new_clients_are_told_so_and_a_second_signal_ends_it_at_once(start_broker: StartBroker) -> None:
    broker = start_broker()
    deaf = deaf_client(broker)
    start = time.monotonic()
    broker.signal(signal.SIGTERM)
    broker.wait_for("ending")
    for clean in (True, False):
        with RawClient(broker.address) as client:
            client.send(connect("late", clean=clean))
            assert client.closed() == connack(3)
    assert broker.process.poll() is None
    broker.signal(signal.SIGINT)
    assert broker.wait() == 0
    assert time.monotonic() - start < 4.0  # it would have waited 5 s for the deaf client
    deaf.close()


def test_nothing_more_is_taken_from_clients_while_it_ends(start_broker: StartBroker) -> None:
    broker = start_broker()
    deaf = deaf_client(broker)
    with RawClient.connected(broker.address) as client:
        client.subscribe(("t", 0))
        broker.signal(signal.SIGTERM)
        broker.wait_for("ending")
        client.send(publish("t", b"too late", 1))
        with RawClient(broker.address) as late:  # who came after that is answered after that
            late.send(connect("late"))
            assert late.closed() == connack(3)
        broker.signal(signal.SIGTERM)
        assert client.closed() == b""
    assert broker.wait() == 0
    deaf.close()


def test_what_was_acknowledged_before_the_end_is_there_after_it(start_broker: StartBroker, tmp_path: Path) -> None:
    broker = start_broker(data=tmp_path / "data")
    with RawClient.connected(broker.address, "away", clean=False) as away:
        away.subscribe(("t", 1))
    with RawClient.connected(broker.address, "author") as author:
        for i in range(1, 101):
            author.send(publish("t", b"%d" % i, 1, packet_id=i))
        author.expect(*(puback(i) for i in range(1, 101)))
        broker.restart()
    with RawClient.connected(broker.address, "away", clean=False, present=True) as away:
        for i in range(1, 101):
            message = away.message()
            assert message.payload == b"%d" % i
            away.send(puback(message.packet_id))


# --- SIGHUP ---


class Files:
    """A password file and an access control list in their directory."""

    def __init__(self, directory: Path) -> None:
        self.passwords = directory / "passwords"
        self.acl = directory / "acl"
        self.toml = f'passwords = "{self.passwords}"\nacl = "{self.acl}"\n'
        self.set_users(ann="one", bob="two", eve="three")
        self.acl.write_text("pattern readwrite #\n")

    def set_users(self, **users: str) -> None:
        if not self.passwords.exists():
            self.passwords.touch()
        for user, password in users.items():
            set_password(str(self.passwords), user, password.encode(), create=True, iterations=1)

    def remove_user(self, user: str) -> None:
        lines = self.passwords.read_text().splitlines(keepends=True)
        self.passwords.write_text("".join(line for line in lines if not line.startswith(f"{user}:")))


def test_a_reload_takes_over_the_password_file_and_closes_who_is_no_longer_in_it(
    start_broker: StartBroker, tmp_path: Path
) -> None:
    files = Files(tmp_path)
    broker = start_broker(files.toml)
    ann, bob, eve = (
        RawClient.connected(broker.address, user, username=user, password=password, will=Will(f"gone/{user}"))
        for user, password in (("ann", b"one"), ("bob", b"two"), ("eve", b"three"))
    )
    ann.subscribe(("gone/+", 0))
    files.set_users(bob="another", dan="four")
    files.remove_user("eve")
    broker.reload()
    for client, user in ((bob, "bob"), (eve, "eve")):
        assert client.closed() == b""
        broker.wait_for("client disconnected", client=user, reason="no longer authorised to connect")
    assert sorted(ann.message().topic for _ in range(2)) == ["gone/bob", "gone/eve"]
    ann.ping()
    for user, password, code in (("bob", b"two", 4), ("bob", b"another", 0), ("dan", b"four", 0), ("eve", b"three", 4)):
        with RawClient(broker.address) as client:
            client.send(connect(f"new {user}", username=user, password=password))
            client.expect(connack(code))
    ann.close()


def test_a_reload_takes_over_the_access_control_list(start_broker: StartBroker, tmp_path: Path) -> None:
    files = Files(tmp_path)
    broker = start_broker(files.toml)
    ann = RawClient.connected(broker.address, "ann", username="ann", password=b"one")
    bob = RawClient.connected(broker.address, "bob", username="bob", password=b"two")
    ann.subscribe(("a", 0), ("b", 1))
    bob.send(publish("a", b"before"))
    assert ann.message().payload == b"before"
    # ann loses the right to a, bob that to publish to b.
    files.acl.write_text("user ann\ntopic readwrite b\nuser bob\ntopic write a\n")
    broker.reload()
    bob.send(publish("a", b"unheard") + publish("b", b"not allowed", 1, packet_id=5))
    bob.expect(puback(5))
    ann.send(publish("b", b"after"))
    assert ann.message().payload == b"after"
    ann.ping()
    ann.send(subscribe(("a", 0), ("b", 0), packet_id=9))
    ann.expect(suback(0x80, 0, packet_id=9))
    bob.ping()
    ann.close()
    bob.close()


def test_a_will_is_judged_by_the_rights_of_its_end(start_broker: StartBroker, tmp_path: Path) -> None:
    files = Files(tmp_path)
    broker = start_broker(files.toml)
    ann = RawClient.connected(broker.address, "ann", username="ann", password=b"one")
    ann.subscribe(("w/#", 0))
    eve = RawClient.connected(broker.address, "eve", username="eve", password=b"three", will=Will("w/eve"))
    bob = RawClient.connected(broker.address, "bob", username="bob", password=b"two", will=Will("w/bob"))
    files.acl.write_text("user ann\ntopic read #\nuser bob\ntopic write w/bob\n")
    files.remove_user("eve")
    broker.reload()
    assert eve.closed() == b""
    bob.reset()
    assert ann.message().topic == "w/bob"
    ann.ping()
    broker.wait_for("will refused: not authorised", client="eve")
    ann.close()


def test_a_reload_takes_over_limits(start_broker: StartBroker) -> None:
    broker = start_broker("max_topic_levels = 3\n")
    with RawClient.connected(broker.address, "first") as first:
        first.send(subscribe(("a/b/c", 0), ("a/b/c/d", 0)))
        first.expect(suback(0, 0x80))
        broker.reload("max_topic_levels = 4\nmax_connections = 1\n")
        first.send(subscribe(("a/b/c", 0), ("a/b/c/d", 0)))
        first.expect(suback(0, 0))
        with RawClient(broker.address) as second:
            second.send(connect("second"))
            assert second.closed() == connack(3)
        assert {event["option"] for event in broker.events("changed")} == {
            "max_topic_levels: 3 -> 4", f"max_connections of listener {broker.address[0]}:0: 10000 -> 1",
        }  # fmt: skip


def test_a_reload_tells_what_needs_a_restart(start_broker: StartBroker) -> None:
    broker = start_broker()
    broker.reload("workers = 8\n")
    assert [event["option"] for event in broker.events("this change needs a restart")] == ["workers: 4 -> 8"]


@pytest.mark.parametrize(
    ("break_it", "reason"),
    [
        pytest.param(
            lambda broker, files: broker.write_config(files.toml + "max_inflght = 5\n"),
            r".*broker\.toml:7: unknown key 'max_inflght'; did you mean 'max_inflight'\?",
            id="configuration",
        ),
        pytest.param(
            lambda broker, files: broker.config.unlink(), r".*broker\.toml: there is no such file", id="missing"
        ),
        pytest.param(
            lambda broker, files: files.passwords.write_text("ann:one\n"), r".*passwords:1: .*", id="passwords"
        ),
        pytest.param(
            lambda broker, files: files.passwords.unlink(), r".*passwords: there is no such file: .*", id="no-passwords"
        ),
        pytest.param(
            lambda broker, files: files.acl.write_text("topic allow x\n"), r".*acl:1: unknown access .*", id="acl"
        ),
    ],
)
def test_a_bad_reload_keeps_everything_as_it_was_and_says_so(
    break_it: Callable[[BrokerProcess, Files], object], reason: str, start_broker: StartBroker, tmp_path: Path
) -> None:
    files = Files(tmp_path)
    files.acl.write_text("user ann\ntopic readwrite a\n")
    broker = start_broker(files.toml + "max_connections = 2\n")
    with RawClient.connected(broker.address, "ann", username="ann", password=b"one") as ann:
        break_it(broker, files)
        broker.reload()
        ann.send(subscribe(("a", 0), ("b", 0)))
        ann.expect(suback(0, 0x80))
        with RawClient(broker.address) as client:
            client.send(connect("ann", username="ann", password=b"wrong"))
            assert client.closed() == connack(4)
        RawClient.connected(broker.address, "bob", username="bob", password=b"two").close()
        ann.ping()
    (event,) = broker.wait_for(RELOAD_FAILED)
    assert event["level"] == "error"
    assert re.fullmatch(reason, event["reason"])
    assert broker.events("changed") == []


# --- systemd ---


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(10)
        yield sock


def heard(systemd: socket.socket) -> list[str]:
    return systemd.recv(1000).decode().split("\n")


def test_systemd_hears_of_start_reload_and_end(
    systemd: socket.socket, start_broker: StartBroker, tmp_path: Path
) -> None:
    broker = start_broker(environ={"NOTIFY_SOCKET": str(tmp_path / "notify")})
    assert heard(systemd) == ["READY=1", f"STATUS=listening on 127.0.0.1:{broker.address[1]}"]

    before = time.monotonic_ns() // 1000
    broker.reload("max_inflight = 5\n")
    reloading, when = heard(systemd)
    assert reloading == "RELOADING=1"
    name, _, value = when.partition("=")
    assert name == "MONOTONIC_USEC"
    assert before <= int(value) <= time.monotonic_ns() // 1000
    assert heard(systemd) == ["READY=1", f"STATUS=listening on 127.0.0.1:{broker.address[1]}"]

    broker.reload("nonsense\n")
    assert heard(systemd)[0] == "RELOADING=1"
    assert heard(systemd) == ["READY=1", "STATUS=the last reload failed: see the log"]

    broker.stop()
    assert heard(systemd) == ["STOPPING=1"]
    systemd.setblocking(False)
    with pytest.raises(BlockingIOError):
        systemd.recv(1000)


def test_the_status_after_a_failed_reload_does_not_outlive_a_good_one(
    systemd: socket.socket, start_broker: StartBroker, tmp_path: Path
) -> None:
    broker = start_broker(environ={"NOTIFY_SOCKET": str(tmp_path / "notify")})
    broker.reload("nonsense\n")
    broker.reload("")
    came = [heard(systemd) for _ in range(5)]
    assert came[2][1] == "STATUS=the last reload failed: see the log"
    assert came[4] == ["READY=1", f"STATUS=listening on 127.0.0.1:{broker.address[1]}"]


def test_the_watchdog_gets_signs_of_life(systemd: socket.socket, start_broker: StartBroker, tmp_path: Path) -> None:
    start_broker(environ={"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"})
    assert heard(systemd)[0] == "READY=1"
    start = time.monotonic()
    for _ in range(4):
        assert heard(systemd) == ["WATCHDOG=1"]
    assert time.monotonic() - start >= 0.25  # every 0.1 s, the first at once


def test_a_reload_takes_over_the_level_of_the_log(
    systemd: socket.socket, start_broker: StartBroker, tmp_path: Path
) -> None:
    broker = start_broker(environ={"NOTIFY_SOCKET": str(tmp_path / "notify")})
    assert heard(systemd)[0] == "READY=1"

    def change(toml: str) -> None:
        broker.write_config(toml)
        broker.signal(signal.SIGHUP)
        assert heard(systemd)[0] == "RELOADING=1"
        assert heard(systemd)[0] == "READY=1"

    RawClient.connected(broker.address, "first").close()
    broker.wait_for("client disconnected", client="first")
    change("log_level = 'warning'\n")
    RawClient.connected(broker.address, "second").disconnect()
    change("log_level = 'info'\n")
    RawClient.connected(broker.address, "third").close()
    broker.wait_for("client connected", client="third")
    assert [event["client"] for event in broker.events("client connected")] == ["first", "third"]


# --- the log ---


EVIL = 'a\n2026-01-01 00:00:00.000 INFO client connected client=root\r\x1b[2K"} =\u2028'


def talk(address: tuple[str, int]) -> None:
    """Bring evil names into the log: Client Identifier, user name, topic, all refused and all accepted ones."""
    with RawClient.connected(address, EVIL, username=EVIL) as client:
        client.send(subscribe((f"deep/{EVIL}/x/y/z", 0)))
        client.expect(suback(0x80))
        client.send(publish(f"$SYS/{EVIL}", b"x", 1))
        client.expect(puback(1))
    with RawClient.connected(address, f"2{EVIL}", will=Will(f"$SYS/{EVIL}")) as client:
        client.reset()
    with RawClient(address) as client:
        client.send(connect(EVIL, username=EVIL, name=f"MQ{EVIL}".encode()))
        assert client.closed() == b""
    with RawClient(address) as client:
        client.send(connect("x" * 99 + EVIL, username=EVIL))
        assert client.closed() == connack(2)


LIMITS = "max_topic_levels = 4\nmax_client_id = 98\n"


def test_text_lines_cannot_be_forged(tmp_path: Path) -> None:
    config = tmp_path / "broker.toml"
    config.write_text(f"port = 0\nmemory = true\n{LIMITS}")
    with child("-m", "broker", "-c", str(config)) as (process, log):
        first = log.readline()
        found = re.search(r" listening address=127\.0\.0\.1:(\d+)\n", first)
        assert found is not None, first
        talk(("127.0.0.1", int(found[1])))
        process.terminate()
        rest = log.read()
    assert process.returncode == 0
    lines = (first + rest).split("\n")
    assert lines.pop() == ""
    for line in lines:
        assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d (INFO|WARNING) \w", line), line
        assert line.isascii()
        assert line.isprintable()
    assert len([line for line in lines if line[30:].startswith("INFO client connected ")]) == 2
    for event in ("publish refused", "will refused", "subscription refused", "client refused"):
        assert [line for line in lines if event in line[30:60] and "\\n2026-01-01" in line], event


def test_json_lines_parse(start_broker: StartBroker) -> None:
    broker = start_broker(LIMITS)
    talk(broker.address)
    broker.stop()
    rows = [json.loads(line) for line in broker.lines]
    assert all(list(row)[:3] == ["time", "level", "event"] for row in rows)
    assert EVIL in {row.get("client") for row in rows if row["event"] == "client connected"}
    assert {row.get("user") for row in rows if row["event"] == "client refused"} == {EVIL}


def test_a_log_that_nobody_reads_any_more_ends_nothing(tmp_path: Path) -> None:
    with child("-m", "broker", "-p", "0", "--memory") as (process, log):
        found = re.search(r"127\.0\.0\.1:(\d+)", log.readline())
        assert found is not None
        log.close()  # as `| head -1` would
        for _ in range(3):
            with RawClient.connected(("127.0.0.1", int(found[1]))) as client:
                client.ping()
        process.terminate()
    assert process.returncode == 0


def test_few_descriptors_are_told_at_the_start(tmp_path: Path) -> None:
    script = (
        "import resource, sys\n"
        "from broker.cli import main\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    with child("-c", script, "-p", "0", "--memory") as (process, log):
        line = log.readline()
        log.readline()
        process.terminate()
        log.read()
    assert line.endswith(
        " WARNING fewer connections than max_connections are possible: raise the limit (ulimit -n) limit=64\n"
    )


def test_the_soft_limit_of_descriptors_is_raised() -> None:
    script = (
        "import resource, sys\n"
        "from broker.cli import main\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    with child("-c", script, "-p", "0", "--memory", "--max-connections", "500") as (process, log):
        assert " INFO listening " in log.readline()
        limits = Path(f"/proc/{process.pid}/limits").read_text()
        process.terminate()
        log.read()
    found = re.search(r"^Max open files\s+(\d+)", limits, re.M)
    assert found is not None
    assert int(found[1]) == 500 + 128 + admission.limit(500)


def test_signals_are_heard_while_nothing_else_happens(start_broker: StartBroker) -> None:
    broker = start_broker("sys_interval = 0\n")
    # It sleeps: its processor time stands still.
    eventually(lambda: "S" in Path(f"/proc/{broker.pid}/stat").read_text().rpartition(")")[2].split()[0], "sleeping")
    os.kill(broker.pid, signal.SIGTERM)
    assert broker.wait() == 0
