"""`selectmq convert`: what goes to which stream, exit codes, and real files of Mosquitto's."""

from __future__ import annotations

import os
import re
import shutil
import tomllib
from pathlib import Path

import pytest

from broker.auth.acl import Acl
from broker.auth.passwords import Passwords
from broker.cli import main
from broker.config.loading import load

#: Debian's, as they come with the package.
ETC = Path("/etc/mosquitto")


def converted(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[str, str]:
    code = main(["convert", *arguments])
    out, err = capsys.readouterr()
    assert code == 0, err
    return out, err


def test_the_file_goes_to_standard_output_and_what_is_lost_to_standard_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    conf = tmp_path / "mosquitto.conf"
    conf.write_text("# mine\nper_listener_settings true\nlistener 1883\npassword_file passwd\nuser mosquitto\n")
    out, err = converted(capsys, "--directory", str(tmp_path), str(conf))
    assert out == (
        f"# From {conf}, by `python3 -m broker convert`; to check it: python3 -m broker -c FILE --check\n"
        "\n"
        f"# {conf}:2: per_listener_settings: it is not needed here, because each [[listeners]] table has settings of "
        "its own\n"
        f"# {conf}:5: user: there is none here: it runs as the user who starts it; with systemd that is User=\n"
        "# Mosquitto stores nothing where persistence is not set; here 'memory = true' does that\n"
        "# not set, and other than Mosquitto's defaults (in brackets): max_inflight = 100 (20), max_queued_messages = "
        '1000000 (1000), max_packet_size = "16 MiB" (2.0: no limit, 2.1: 2000000)\n'
        "\n"
        "[[listeners]]\n"
        f"# {conf}:3: listener: '::' is all of IPv6 and IPv4; without IPv6 on this machine write '0.0.0.0'\n"
        f"# {conf}:4: password_file: a relative path, taken from {tmp_path}: Mosquitto's working directory\n"
        "# allow_anonymous is not set, and so false in Mosquitto 2 (in 1.6 it was true without passwords)\n"
        'bind = "::"\n'
        "port = 1883\n"
        f'passwords = "{tmp_path}/passwd"\n'
        "allow_anonymous = false\n"
    )
    assert err == (
        f"{conf}:5: user: there is none here: it runs as the user who starts it; with systemd that is User=\n"
        "python3 -m broker convert: 4 options, 1 with a remark: see the comments in what was printed\n"
    )


def test_what_it_prints_is_fit_to_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    conf = tmp_path / "mosquitto.conf"
    conf.write_text("listener 0 mq.sock\nallow_anonymous true\n")
    (tmp_path / "c.toml").write_text(converted(capsys, "--directory", str(tmp_path), str(conf))[0])
    assert main(["-c", str(tmp_path / "c.toml"), "--check"]) == 0
    assert f"unix:{tmp_path}/mq.sock" in capsys.readouterr().out


def test_relative_paths_go_from_where_it_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "m.conf").write_text("listener 1\npassword_file passwd\n")
    assert f'passwords = "{os.getcwd()}/passwd"' in converted(capsys, "etc/m.conf")[0]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('port = 1883\nbind = "::"\n', "m.conf:1: this is no mosquitto.conf but TOML or INI: 'port'"),
        ("hello\n", "m.conf:1: this is no mosquitto.conf: Mosquitto has no option 'hello'"),
        ("listener 1x\n", "m.conf:1: the port must be a number up to 65535, not '1x'"),
        ("\x1b[2J x\n", "m.conf:1: this is no mosquitto.conf: Mosquitto has no option '\\x1b[2J'"),
        (None, "m.conf: there is no such file: correct its name"),
    ],
)
def test_what_cannot_be_converted(
    text: str | None, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    if text is not None:
        (tmp_path / "m.conf").write_text(text)
    code = main(["convert", "m.conf"])
    assert (code, *capsys.readouterr()) == (2, "", f"python3 -m broker convert: {why}\n")


# --- files that come with Mosquitto ---


def test_debian_s_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = tmp_path / "etc"
    shutil.copytree(ETC, copy)
    main_file = copy / "mosquitto.conf"
    main_file.write_text(main_file.read_text().replace(str(ETC), str(copy)))
    (copy / "conf.d" / "local.conf").write_text(f"listener 1883\npassword_file {copy}/pwfile.example\n")
    out, err = converted(capsys, str(main_file))
    (tmp_path / "c.toml").write_text(out)
    config = load(tmp_path / "c.toml")
    assert config.data == "/var/lib/selectmq"
    assert config.listeners[0].passwords == f"{copy}/pwfile.example"
    assert re.findall(r"^\S+:\d+: (\w+)", err, re.M) == ["pid_file", "persistence_location", "log_dest"]


#: What the commented examples of Mosquitto 2.0 and 2.1 show: each option with its default.
DEFAULTS = """\
per_listener_settings false
allow_zero_length_clientid true
auto_id_prefix auto-
check_retain_source true
max_inflight_bytes 0
max_inflight_messages 20
max_keepalive 65535
max_packet_size 0
max_queued_bytes 0
max_qos 2
max_queued_messages 1000
memory_limit 0
message_size_limit 0
queue_qos0_messages false
retain_available true
set_tcp_nodelay false
sys_interval 10
upgrade_outgoing_qos false
user mosquitto
listener 1883
max_connections -1
protocol mqtt
require_certificate false
use_identity_as_username false
autosave_interval 1800
autosave_on_changes false
persistence false
persistence_file mosquitto.db
log_dest stderr
log_type error
log_type warning
log_type notice
log_type information
connection_messages true
log_timestamp true
websockets_log_level 0
allow_anonymous false
global_max_clients -1
global_max_connections -1
disable_client_cert_date_checks false
enable_control_api false
"""


def test_of_mosquitto_s_defaults_little_is_lost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    conf = tmp_path / "mosquitto.conf"
    conf.write_text(DEFAULTS)
    out, err = converted(capsys, str(conf))
    settings = tomllib.loads(out)
    assert (settings["max_inflight"], settings["max_queued_messages"], settings["memory"]) == (20, 1000, True)
    assert re.findall(r"^\S+:\d+: (\w+)", err, re.M) == [
        "auto_id_prefix", "max_queued_bytes", "user", "websockets_log_level", "listener", "max_connections",
    ]  # fmt: skip


def test_mosquitto_s_examples_of_users_and_rights() -> None:
    Passwords.read(str(ETC / "pwfile.example"))
    rights = Acl.read(str(ETC / "aclfile.example")).rights("roger", "client")
    assert (rights.may_publish(b"foo/bar"), rights.may_publish(b"foo/baz")) == (True, False)
    assert rights.may_publish(b"$SYS/broker/connection/client/state")
