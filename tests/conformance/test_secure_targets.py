"""Targets over TLS and WebSocket, with certificates and logins, from the command line alone: against our broker."""

import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from conformance import cli
from tests.broker_process import BrokerProcess, environment, run_command_line
from tests.certificates import Authority, Issued

#: Tests with paho-mqtt, with bytes, and of what lies below: a few of each.
SELECT = ("--select", "MQTT-3.1.4-2", "--select", "test_7_01_targets.py", "--select", "test_6_00_websocket.py")

PASSWORD = "open sesame"


class Secure(NamedTuple):
    """A broker that listens over TLS and WebSocket, knows a user, and on some listeners wants certificates."""

    ports: dict[str, int]
    ca: str
    client: Issued
    stranger: str


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    directory = tmp_path_factory.mktemp("secure")
    authority = Authority(directory)
    stranger = Authority(directory, "stranger")
    server = authority.issue("server", server=True).toml
    passwords = directory / "passwords"
    run_command_line("passwd", "--batch", PASSWORD, "--iterations", "101", str(passwords), "alice")
    listeners = {
        "mqtts": server,
        "wss": f'{server}websocket = true\nwebsocket_path = "/mqtt"',
        "ws": "websocket = true",
        "certificates": f'{server}client_ca = "{authority.certificate}"',
        "login": f'{server}passwords = "{passwords}"',
    }
    text = "\n".join(f"[[listeners]]\nport = 0\n{listener}" for listener in listeners.values())
    broker = BrokerProcess(directory, text)
    ports = dict(zip(listeners, (port for _, port in broker.addresses), strict=True))
    yield Secure(ports, str(authority.certificate), authority.issue("client"), str(stranger.certificate))
    broker.stop()


def complaint(capsys: pytest.CaptureFixture[str]) -> str:
    *_, line = capsys.readouterr().err.splitlines()
    return line.removeprefix("python3 -m conformance: ")


def last(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out.splitlines()[-1]


def test_mqtts(secure: Secure, capsys: pytest.CaptureFixture[str]) -> None:
    target = f"mqtts://localhost:{secure.ports['mqtts']}"
    assert cli.main([target, "--cafile", secure.ca, *SELECT]) == 0
    assert last(capsys) == f"PASSED: {target}, for what was selected; a certificate takes the whole run."


def test_websocket_tests_run_where_the_target_is_one(secure: Secure, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([f"ws://localhost:{secure.ports['ws']}", *SELECT]) == 0
    assert "[endpoints.websocket]" not in capsys.readouterr().out


def test_wss(secure: Secure, capsys: pytest.CaptureFixture[str]) -> None:
    target = f"wss://127.0.0.1:{secure.ports['wss']}/mqtt"
    assert cli.main([target, "--cafile", secure.ca, *SELECT]) == 0
    assert "INCONCLUSIVE" not in capsys.readouterr().out


def test_client_certificate(secure: Secure) -> None:
    cert, key = map(str, secure.client[:2])
    target = f"mqtts://localhost:{secure.ports['certificates']}"
    assert cli.main([target, "--cafile", secure.ca, "--cert", cert, "--key", key, *SELECT]) == 0


def test_client_certificate_with_its_key_in_one_file(secure: Secure, tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    both.write_bytes(secure.client.key.read_bytes() + secure.client.certificate.read_bytes())
    target = f"mqtts://localhost:{secure.ports['certificates']}"
    assert cli.main([target, "--insecure", "--cert", str(both), *SELECT]) == 0


def test_no_client_certificate(secure: Secure, capsys: pytest.CaptureFixture[str]) -> None:
    target = f"mqtts://localhost:{secure.ports['certificates']}"
    assert cli.main([target, "--cafile", secure.ca]) == 2
    assert complaint(capsys) == (
        f"{target} wants a client's certificate: give --cert FILE and --key FILE (cert_file, key_file)"
    )


UNTRUSTED = "name its CA with --cafile FILE (ca_file in a profile), or accept any certificate with --insecure"


def test_wrong_ca(secure: Secure, capsys: pytest.CaptureFixture[str]) -> None:
    target = f"mqtts://localhost:{secure.ports['mqtts']}"
    assert cli.main([target, "--cafile", secure.stranger]) == 2
    shown = complaint(capsys)
    assert shown.startswith(f"{target} has a certificate that is not trusted here (")
    assert shown.endswith(f"): {UNTRUSTED}")


def test_wrong_host_name(secure: Secure, capsys: pytest.CaptureFixture[str]) -> None:
    target = f"mqtts://127.0.0.2:{secure.ports['mqtts']}"
    assert cli.main([target, "--cafile", secure.ca]) == 2
    # The broker listens on 127.0.0.1 alone, unless the system is generous.
    shown = complaint(capsys)
    assert shown.endswith((UNTRUSTED, "python3 -m conformance HOST:PORT"))


def test_tls_where_there_is_none(secure: Secure, capsys: pytest.CaptureFixture[str]) -> None:
    target = f"mqtts://localhost:{secure.ports['ws']}"
    assert cli.main([target]) == 2
    assert complaint(capsys).endswith("is that its TLS port? mqtt:// and ws:// go without TLS")


def test_wrong_path(secure: Secure, capsys: pytest.CaptureFixture[str]) -> None:
    for path, advice in (("/other", "is '/other' the right path?"), ("", "name its path, as in {}/mqtt")):
        target = f"wss://localhost:{secure.ports['wss']}{path}"
        assert cli.main([target, "--cafile", secure.ca]) == 2
        assert complaint(capsys) == (
            f"{target} does not speak MQTT over WebSocket (the WebSocket handshake failed: "
            f"server rejected WebSocket connection: HTTP 404): {advice.format(target)}"
        )


# Passwords


def test_password_from_the_environment(
    secure: Secure, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SELECTMQ_CONFORMANCE_PASSWORD", PASSWORD)
    target = f"mqtts://localhost:{secure.ports['login']}"
    arguments = [target, "--cafile", secure.ca, "--username", "alice"]
    assert cli.main([*arguments, *SELECT]) == 0
    monkeypatch.setenv("SELECTMQ_CONFORMANCE_PASSWORD", "wrong")
    assert cli.main(arguments) == 2
    assert "does not take these credentials" in complaint(capsys)


def test_password_from_a_prompt(secure: Secure) -> None:
    target = f"mqtts://localhost:{secure.ports['login']}"
    ours, theirs = pty.openpty()
    arguments = ["-m", "conformance", target, "--cafile", secure.ca, "--username", "alice", "--select", "MQTT-3.1.4-2"]
    with subprocess.Popen(
        [sys.executable, *arguments],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,  # so that there is no other terminal to ask on
        env=environment(),
    ) as process:
        try:
            assert process.stderr is not None
            prompt = process.stderr.read(len("Password of alice: "))
            os.write(ours, f"{PASSWORD}\n".encode())  # what is typed before that is thrown away
            shown, errors = process.communicate(timeout=60)
        except BaseException:
            process.kill()
            raise
    os.close(ours)
    os.close(theirs)
    assert process.returncode == 0, errors
    assert prompt == b"Password of alice: "
    assert PASSWORD.encode() not in shown + errors


def test_no_password(secure: Secure, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("SELECTMQ_CONFORMANCE_PASSWORD", raising=False)
    with open(os.devnull, encoding="utf-8") as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        assert cli.main(["mqtts://localhost:1", "--username", "alice"]) == 2
    assert complaint(capsys) == (
        "--username alice: put the password into the environment variable SELECTMQ_CONFORMANCE_PASSWORD"
    )


# Files


def test_files_that_are_of_no_use(secure: Secure, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "text.pem"
    text.write_text("no certificate")
    cert, key = map(str, secure.client[:2])
    target = "mqtts://localhost:1"
    none = f"{tmp_path}/none.pem"
    belongs = "must hold the private key that belongs to it, in PEM format and not encrypted"
    for arguments, expected in {
        ("--cafile", none): f"the CA file {none} cannot be read: No such file or directory",
        ("--cafile", str(text)): f"the CA file {text} holds no certificate in PEM format",
        ("--cert", none): f"the certificate file {none} cannot be read: No such file or directory",
        ("--cert", cert, "--key", none): f"the key file {none} cannot be read: No such file or directory",
        ("--cert", cert, "--key", str(text)): f"the certificate {cert} cannot be used: {text} {belongs}",
        ("--cert", cert): f"the certificate {cert} cannot be used: {cert} {belongs}",
        ("--key", key): "--key belongs to a certificate: give --cert FILE, too",
    }.items():
        assert cli.main([target, *arguments]) == 2
        assert complaint(capsys) == expected


def test_encrypted_key_is_not_asked_for_its_password(secure: Secure, tmp_path: Path) -> None:
    encrypted = tmp_path / "encrypted.key"
    subprocess.run(
        ["openssl", "ec", "-aes128", "-passout", "pass:x", "-in", secure.client.key, "-out", encrypted],
        check=True,
        capture_output=True,
    )
    arguments = ("mqtts://localhost:1", "--cert", str(secure.client.certificate), "--key", str(encrypted))
    done = subprocess.run(
        [sys.executable, "-m", "conformance", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=environment(),
    )
    assert done.returncode == 2
    assert done.stderr.endswith(
        f"{encrypted} must hold the private key that belongs to it, in PEM format and not encrypted\n"
    )


MISFITS = {
    ("mqtt://a", "--cafile", "x"): "--cafile is for TLS, and mqtt://a:1883 is without: name it as mqtts:// or wss://",
    ("ws://a/x", "--insecure"): "--insecure is for TLS, and ws://a:80/x is without: name it as mqtts:// or wss://",
    ("--profile", "mosquitto", "--username", "x"): (
        "--username is about a TARGET: name it, or write that into [endpoints.main] of the profile"
    ),
    ("mqtt://bob:x@a", "--username", "alice"): "--username and the target name a user each: leave one of them out",
}


@pytest.mark.parametrize(("arguments", "expected"), MISFITS.items(), ids=map(" ".join, MISFITS))
def test_what_does_not_fit(arguments: tuple[str, ...], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(arguments) == 2
    assert complaint(capsys) == expected


def test_command_that_runs_a_test_again_has_all_but_the_password() -> None:
    options = cli.parser().parse_args(["mqtts://alice:secret@host", "--insecure"])
    target = cli._target(options)
    assert cli._arguments(target, None) == ["mqtts://host:8883", "--username", "alice", "--insecure"]
