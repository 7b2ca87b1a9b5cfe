"""The check command: everything in one run, errors and warnings apart, and nothing is other than before."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from broker.auth.passwords import set_password
from broker.cli import main
from broker.net.listener import listen_unix
from broker.storage.place import FILE_NAME
from broker.storage.sqlite import SqliteStore
from tests.broker_process import BrokerProcess, run_command_line
from tests.certificates import DAY, Authority, Issued
from tests.raw_client import RawClient

PROG = "python3 -m broker"


class Checked:
    """What `check` says of a configuration."""

    def __init__(self, code: int, out: str, err: str, directory: Path) -> None:
        self.code = code
        self.out = out
        lines = [line.replace(f"{directory}/", "") for line in err.splitlines()]
        assert [line for line in lines if not line.startswith(f"{PROG} check: ")] == []
        said = [line.removeprefix(f"{PROG} check: ") for line in lines]
        self.warnings = [line.removeprefix("warning: ") for line in said if line.startswith("warning: ")]
        self.errors = [line for line in said if not line.startswith("warning: ")]
        assert code == (2 if self.errors else 0)


Check = Callable[..., Checked]


@pytest.fixture
def check(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Check:
    """Check a file with this text in a directory of its own, with few connections and, by default, nothing on disk."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))

    def run(text: str, *flags: str, head: str = "memory = true\nmax_connections = 10\n") -> Checked:
        (tmp_path / "b.toml").write_text(head + text)
        code = main(["check", "-c", "b.toml", *flags])
        captured = capsys.readouterr()
        return Checked(code, captured.out, captured.err, tmp_path)

    return run


def users(path: Path, *names: str) -> None:
    path.touch(mode=0o600)
    for name in names:
        set_password(str(path), name, b"secret", create=True, iterations=1)


def test_a_configuration_without_a_fault(check: Check, tmp_path: Path) -> None:
    users(tmp_path / "users", "ann", "bob")
    (tmp_path / "acl").write_text("user ann\ntopic readwrite #\npattern read of/%u\npattern write from/%c\n")
    found = check("port = 0\npasswords = 'users'\nacl = 'acl'\ndeny_users = ['bob']\n")
    assert (found.errors, found.warnings, found.out) == ([], [], "configuration is fine: 127.0.0.1:0\n")


def test_the_flag_says_the_same_as_the_command(tmp_path: Path) -> None:
    flags = ("--port", "0", "--memory", "--passwords", str(tmp_path / "none"), "--max-connections", "5")
    by_flag, by_command = run_command_line("--check", *flags), run_command_line("check", *flags)
    assert by_flag.returncode == by_command.returncode == 2
    assert by_command.stderr == by_flag.stderr.replace(f"{PROG}: ", f"{PROG} check: ")
    assert by_flag.stderr == f"{PROG}: {tmp_path}/none: there is no such file: create it, or correct its name\n"


def test_everything_in_one_run(check: Check, tmp_path: Path) -> None:
    (tmp_path / "users").write_text("al:plain\nbob\n")
    (tmp_path / "acl").write_text("topik a\nuser\n")
    (tmp_path / "file").touch()
    found = check(
        "max_inflght = 1\nworkers = 99\ndata = 'file'\npasswords = 'users'\nacl = 'acl'\n"
        "[[listeners]]\nunix = 'none/socket'\n[[listeners]]\nport = 'x'\nkey = 'k'\n[[listeners]]\nport = 0\n"
        "certificate = 'cert'\n",
        "--max-retained", "none",
        head="",
    )  # fmt: skip
    assert [line.split(": ")[0] for line in found.errors] == [
        "--max-retained", "b.toml:1", "b.toml:2", "b.toml:9", "b.toml:10", "data directory file cannot be used",
        "cannot listen on unix:none/socket", "users:1", "users:2", "cert", "acl:1", "acl:2",
    ]  # fmt: skip


def test_all_unknown_flags(check: Check) -> None:
    found = check("port = 0\n", "--prot", "5", "--chek", "stray")
    assert found.errors == [
        "--prot: unknown flag; did you mean '--port'?",
        "--chek: unknown flag; did you mean '--check'?",
    ]


# --- addresses ---


def test_a_port_that_is_taken(check: Check) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        found = check(f"port = {port}\n")
    why = "the port is in use; stop the program that uses it, or choose another with --port"
    assert found.errors == [f"cannot listen on 127.0.0.1:{port}: {why}"]


def test_a_unix_socket(check: Check, tmp_path: Path) -> None:
    found = check("unix = 'none/s'\n")
    (why,) = found.errors
    assert why.startswith("cannot listen on unix:none/s: there is no directory ")
    sock = listen_unix(str(tmp_path / "s"), 0o600)
    assert check("unix = 's'\n").errors != []
    sock.close()
    assert check("unix = 's'\n").errors == []


def test_an_address_of_another_machine(check: Check) -> None:
    found = check("bind = '192.0.2.1'\nallow_anonymous = true\n")
    assert found.errors == [
        "cannot listen on 192.0.2.1:1883: this machine has no such address; choose another with --bind"
    ]


def test_websocket_without_its_extra(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "broker.net.ws", None)
    (why,) = check("port = 0\nwebsocket = true\n").errors
    assert why.startswith("listener 127.0.0.1:0 has websocket = true: run pip install 'selectmq[websocket]'")


# --- data ---


def test_a_data_directory(check: Check, tmp_path: Path) -> None:
    assert check("port = 0\ndata = 'new/below'\n", head="").errors == []
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").touch()
    (why,) = check("port = 0\ndata = 'file/below'\n", head="").errors
    assert why.startswith("data directory file/below cannot be used: it is not a directory")
    SqliteStore(str(tmp_path / "data")).close()
    (tmp_path / "data" / FILE_NAME).write_bytes(b"SQLite format 3\0" + b"x" * 5000)
    (why,) = check("port = 0\ndata = 'data'\n", head="").errors
    assert why.startswith("data/selectmq.db is damaged (")


def test_a_broker_that_runs_is_told_and_notices_nothing(check: Check, tmp_path: Path) -> None:
    directory = tmp_path / "broker"
    directory.mkdir()
    broker = BrokerProcess(directory, data=tmp_path / "data")
    try:
        port = broker.address[1]
        events = len(broker.lines)
        found = check(f"port = {port}\ndata = 'data'\nmax_connections = 10\n", head="")
        with RawClient.connected(broker.address) as client:
            client.ping()
        broker.wait_for("client connected")
        assert len([line for line in broker.lines if "127.0.0.1" in line]) <= events + 2  # that one client's
        assert found.errors == []
        assert found.warnings == [
            f"data/selectmq.db is in use by a broker that runs (process {broker.pid}): it can reload this "
            "configuration, but a second broker cannot start with it",
            f"127.0.0.1:{port} is in use, as is the data directory: most likely by the same broker",
        ]
        assert found.out == f"configuration is usable: 127.0.0.1:{port}\n"
    finally:
        broker.stop()


def test_nothing_is_changed(check: Check, tmp_path: Path) -> None:
    users(tmp_path / "users", "ann")
    SqliteStore(str(tmp_path / "data")).close()
    before = {path: (path.stat().st_mtime_ns, path.stat().st_atime_ns > 0) for path in tmp_path.rglob("*")}
    check("unix = 's'\npasswords = 'users'\ndata = 'data'\nmax_connections = 10\n", head="")
    after = {path: (path.stat().st_mtime_ns, True) for path in tmp_path.rglob("*") if path.name != "b.toml"}
    assert after == before


# --- users and rights ---

UNCHECKED = "without passwords or certificate_user, no user name is checked, and every client is anonymous"


def test_rights_of_users_whom_nobody_checks(check: Check, tmp_path: Path) -> None:
    (tmp_path / "acl").write_text(
        "topic read #\nuser ann\ntopic write a\ntopic write b\npattern read of/%u\nuser ann\n"
    )
    found = check("port = 0\nacl = 'acl'\n")
    assert found.warnings == [
        f"acl:2: nobody gets the rights of user 'ann': {UNCHECKED}",
        f"acl:5: %u matches nobody: {UNCHECKED}",
    ]


def test_a_pattern_without_a_name(check: Check, tmp_path: Path) -> None:
    (tmp_path / "acl").write_text("pattern readwrite #\npattern read a/%c\n")
    found = check("port = 0\nacl = 'acl'\n")
    assert found.warnings == ["acl:1: this pattern has neither %c nor %u, so it gives every client the same rights"]


def test_users_who_are_in_no_password_file(check: Check, tmp_path: Path) -> None:
    users(tmp_path / "users", "ann", "robert")
    (tmp_path / "acl").write_text("topic read #\nuser ann\ntopic write a\nuser rober\ntopic write b\nuser eve\n")
    found = check(
        "port = 0\nacl = 'acl'\npasswords = 'users'\ndeny_users = ['eve', 'roberto']\n"
        "client_ids = {'*' = ['x'], an = ['y']}\n"
    )
    assert found.warnings == [
        "client_ids: user 'an' is not in the password file users; did you mean 'ann'?",
        "deny_users: user 'roberto' is not in the password file users; did you mean 'robert'?",
        "acl:1: this line, above the first 'user', is for anonymous clients, which may not connect to 127.0.0.1:0",
        "acl:4: user 'rober' is not in the password file users; did you mean 'robert'?",
        "acl:6: user 'eve' is not in the password file users",
    ]


def test_a_line_that_is_for_somebody_on_another_listener_is_fine(check: Check, tmp_path: Path) -> None:
    users(tmp_path / "users", "ann")
    (tmp_path / "acl").write_text("topic read #\nuser ann\ntopic write a\npattern read of/%u\nuser eve\ntopic read b\n")
    found = check("acl = 'acl'\n[[listeners]]\nport = 0\n[[listeners]]\nport = 0\npasswords = 'users'\n")
    assert [warning.partition(" ")[0] for warning in found.warnings] == ["acl:5:"]


def test_what_cannot_be_known_is_not_told(check: Check, tmp_path: Path) -> None:
    (tmp_path / "acl").write_text("user eve\ntopic read #\n")
    found = check("port = 0\nacl = 'acl'\npasswords = 5\ndeny_users = ['eve']\n")
    assert (len(found.errors), found.warnings) == (1, [])


def test_a_password_file_that_admits_nobody(check: Check, tmp_path: Path) -> None:
    users(tmp_path / "users")
    assert check("port = 0\npasswords = 'users'\n").warnings == [
        "users: it contains no user, so nobody can connect to 127.0.0.1:0"
    ]


def test_files_that_everybody_can_read(check: Check, tmp_path: Path) -> None:
    users(tmp_path / "users", "ann")
    os.chmod(tmp_path / "users", 0o644)
    assert check("port = 0\npasswords = 'users'\n").warnings == [
        "users: every user of this machine can read the hashes of all passwords: take that away (chmod o-r)"
    ]


def test_a_file_of_several_listeners_is_told_once(check: Check) -> None:
    found = check("acl = 'none'\n[[listeners]]\nport = 0\n[[listeners]]\nport = 0\n")
    assert found.errors == ["none: there is no such file: create it, or correct its name"]


# --- certificates ---


def tls(issued: Issued) -> str:
    os.chmod(issued.key, 0o600)
    return f"port = 0\n{issued.toml}"


def test_a_key_of_another_certificate(check: Check, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    one, other = authority.issue("one", server=True), authority.issue("other", server=True)
    (why,) = check(tls(one._replace(key=other.key))).errors
    assert why.startswith("other.key: this is not the key of the certificate ")


@pytest.mark.parametrize(
    ("valid", "said"),
    [
        ((-3 * DAY, -DAY), "it expired on "),
        ((DAY, 3 * DAY), "it is not valid before "),
        ((-DAY, DAY), "it expires on "),
        ((-DAY, 20 * DAY), ""),
    ],
)
def test_the_times_of_a_certificate(check: Check, tmp_path: Path, valid: tuple[object, object], said: str) -> None:
    issued = Authority(tmp_path).issue("one", server=True, valid=valid)  # type: ignore[arg-type]
    found = check(tls(issued))
    assert found.errors == []
    assert [warning[: len(f"one.crt: {said}")] for warning in found.warnings] == ([f"one.crt: {said}"] if said else [])


def test_authorities_are_looked_at_though_the_certificate_is_wrong(check: Check, tmp_path: Path) -> None:
    found = check("port = 0\ncertificate = 'none'\ncertificate_chain = 'chain'\nclient_ca = 'none too'\n")
    assert [line.partition(":")[0] for line in found.errors] == ["none", "chain", "none too"]


def test_a_list_of_revocations_at_its_end(check: Check, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    issued = authority.issue("one", server=True, valid=(-DAY, 300 * DAY))
    crl = authority.revoke(issued)
    found = check(f"{tls(issued)}client_ca = '{authority.certificate}'\nclient_crl = '{crl}'\n")
    assert found.errors == []
    assert [warning.partition(" on ")[0] for warning in found.warnings] == ["revoked.pem: it expires"]


# --- the system ---


def test_more_connections_than_files(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (256, 1000))
    assert check("port = 0\nmax_connections = 872\n", head="memory = true\n").warnings == []
    found = check("port = 0\nmax_connections = 873\n", head="memory = true\n")
    assert found.warnings == [
        "max_connections: 873 connections need more open files than the 1000 that this user may have: raise the limit "
        "(ulimit -Hn, systemd's LimitNOFILE)"
    ]
