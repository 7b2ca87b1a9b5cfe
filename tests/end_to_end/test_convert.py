"""A mosquitto.conf that was converted lets in whom Mosquitto lets in: both brokers run, and the same clients try."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from broker.auth.passwords import set_password
from tests.broker_process import StartBroker, eventually, run_command_line
from tests.certificates import Authority, Issued
from tests.raw_client import Address, Closed, RawClient, connack, connect

MOSQUITTO = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin:/opt/homebrew/sbin") or "mosquitto"


class Place(NamedTuple):
    """Where a test's files are. Its certificates: a root, and `middle` below it, which has issued the others."""

    directory: Path
    root: Authority
    middle: Authority
    server: Issued
    ann: Issued
    stranger: Issued

    def trusting(self, client: Issued | None = None) -> ssl.SSLContext:
        """A client that knows the root, and nothing else."""
        return self.root.trusting(client)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    root = Authority(tmp_path, "root")
    middle = Authority(tmp_path, "middle", root)
    (tmp_path / "ca.pem").write_bytes(middle.certificate.read_bytes() + root.certificate.read_bytes())
    (tmp_path / "other").mkdir()
    stranger = Authority(tmp_path / "other", "other").issue("stranger")
    set_password(str(tmp_path / "users"), "ann", b"secret", create=True, iterations=1000)
    (tmp_path / "empty").touch()
    return Place(tmp_path, root, middle, middle.issue("server", server=True), middle.issue("ann"), stranger)


def free_ports() -> list[int]:
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]
        return [sock.getsockname()[1] for sock in socks]


def listens(address: Address | Path) -> bool:
    with socket.socket(socket.AF_UNIX if isinstance(address, Path) else socket.AF_INET) as sock:
        return sock.connect_ex(str(address) if isinstance(address, Path) else address) == 0


@contextlib.contextmanager
def mosquitto(conf: Path, addresses: list[Address | Path]) -> Iterator[None]:
    with subprocess.Popen(
        [MOSQUITTO, "-c", str(conf)], cwd=conf.parent, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            for address in addresses:
                eventually(
                    lambda where=address: listens(where) or process.poll() is not None,  # type: ignore[misc]
                    f"Mosquitto listens on {address}",
                )
            assert process.poll() is None, process.stdout and process.stdout.read()
            yield
        finally:
            process.kill()


class Visitor(NamedTuple):
    username: str | None = None
    password: bytes | None = None
    client_id: str = "visitor"
    tls: bool = False
    certificate: str = ""  #: a field of Place


VISITORS = {
    "anonymous": Visitor(),
    "ann": Visitor("ann", b"secret"),
    "wrong password": Visitor("ann", b"guess"),
    "unknown": Visitor("bob", b"secret"),
    "name alone": Visitor("ann"),
    "other ClientId": Visitor("ann", b"secret", client_id="other"),
    "TLS": Visitor(tls=True),
    "TLS, ann": Visitor("ann", b"secret", tls=True),
    "TLS, certificate of ann": Visitor(tls=True, certificate="ann"),
    "TLS, certificate and password of ann": Visitor("ann", b"secret", tls=True, certificate="ann"),
    "TLS, certificate of a stranger": Visitor("ann", b"secret", tls=True, certificate="stranger"),
}


def guests(place: Place, address: Address | Path) -> set[str]:
    """Who is let in."""
    return {name for name, visitor in VISITORS.items() if is_let_in(place, address, visitor)}


def is_let_in(place: Place, address: Address | Path, visitor: Visitor) -> bool:
    tls = place.trusting(getattr(place, visitor.certificate, None)) if visitor.tls else None
    try:
        with RawClient(address, tls=tls) as client:
            client.send(connect(visitor.client_id, username=visitor.username, password=visitor.password))
            return client.next() == connack()
    except (ssl.SSLError, Closed, ConnectionError):
        return False


BY_NAME = {"ann", "other ClientId"}
EVERYBODY = BY_NAME | {"anonymous", "wrong password", "unknown", "name alone"}
WITH_TLS = {name for name in VISITORS if name.startswith("TLS")}

SERVER = "certfile server.crt\nkeyfile server.key\n"

CASES = {
    "a listener alone": ("listener {0} 127.0.0.1", [set()]),
    "anonymous": ("listener {0} 127.0.0.1\nallow_anonymous true", [EVERYBODY]),
    "passwords": ("listener {0} 127.0.0.1\npassword_file users", [BY_NAME]),
    "passwords before the listener": ("password_file users\nlistener {0} 127.0.0.1", [BY_NAME]),
    "passwords, and anonymous": (
        "listener {0} 127.0.0.1\npassword_file users\nallow_anonymous true",
        [BY_NAME | {"anonymous"}],
    ),
    "nobody in the file": ("listener {0} 127.0.0.1\npassword_file empty", [set()]),
    "as in 1.x": ("bind_address 127.0.0.1\nport {0}\npassword_file users", [BY_NAME]),
    "as in 1.x, without a word on who may": ("port {0}", [set()]),
    "all addresses": ("listener {0}\nallow_anonymous true", [EVERYBODY]),
    "spaces, 1 for true, CRLF, a comment behind a word": (
        "   listener   {0}   127.0.0.1   \r\n\r\n# x\r\nallow_anonymous 1 # really\r\n",
        [EVERYBODY],
    ),
    "two listeners, one rule": (
        "listener {0} 127.0.0.1\nlistener {1} 127.0.0.1\npassword_file users",
        [BY_NAME, BY_NAME],
    ),
    "two listeners, each its own": (
        "per_listener_settings true\nlistener {0} 127.0.0.1\npassword_file users\n"
        "listener {1} 127.0.0.1\nallow_anonymous true",
        [BY_NAME, EVERYBODY],
    ),
    "each its own, the first without any": (
        "per_listener_settings true\nlistener {0} 127.0.0.1\nlistener {1} 127.0.0.1\npassword_file users",
        [set(), BY_NAME],
    ),
    "the default listener, and another": (
        # Mosquitto 2.0 forgets its default for the default listener; 2.1 does not.
        "per_listener_settings true\nport {0}\npassword_file users\nallow_anonymous false\n"
        "listener {1} 127.0.0.1\nallow_anonymous true",
        [BY_NAME, EVERYBODY],
    ),
    "included": ("include_dir conf.d", [BY_NAME]),
    "prefix": ("listener {0} 127.0.0.1\npassword_file users\nclientid_prefixes vis", [{"ann"}]),
    "TLS": (
        f"listener {{0}} 127.0.0.1\n{SERVER}cafile ca.pem\nallow_anonymous true",
        [WITH_TLS],
    ),
    "TLS without cafile": (f"listener {{0}} 127.0.0.1\n{SERVER}allow_anonymous true", [set()]),
    "TLS and passwords": (
        f"listener {{0}} 127.0.0.1\n{SERVER}cafile ca.pem\npassword_file users",
        [{"TLS, ann", "TLS, certificate and password of ann", "TLS, certificate of a stranger"}],
    ),
    "certificates and passwords": (
        f"listener {{0}} 127.0.0.1\n{SERVER}cafile ca.pem\nrequire_certificate true\npassword_file users",
        [{"TLS, certificate and password of ann"}],
    ),
    "certificates name users": (
        f"listener {{0}} 127.0.0.1\n{SERVER}cafile ca.pem\nrequire_certificate true\nuse_identity_as_username true",
        [{"TLS, certificate of ann", "TLS, certificate and password of ann"}],
    ),
    "subjects name users": (
        f"listener {{0}} 127.0.0.1\n{SERVER}cafile ca.pem\nrequire_certificate true\nuse_subject_as_username true",
        [{"TLS, certificate of ann", "TLS, certificate and password of ann"}],
    ),
    "TLS beside plain": (
        f"password_file users\nlistener {{0}} 127.0.0.1\nlistener {{1}} 127.0.0.1\n{SERVER}cafile ca.pem",
        [BY_NAME, {"TLS, ann", "TLS, certificate and password of ann", "TLS, certificate of a stranger"}],
    ),
    "a Unix socket": ("listener 0 {dir}/mq.sock\npassword_file users", [BY_NAME]),
}  # fmt: skip


def write(place: Place, text: str, ports: list[int]) -> tuple[Path, list[Address | Path]]:
    """The files of a case, and where it listens."""
    (place.directory / "conf.d").mkdir()
    (place.directory / "conf.d" / "a.conf").write_text(f"listener {ports[0]} 127.0.0.1\npassword_file users\n")
    conf = place.directory / "mosquitto.conf"
    # As root, Mosquitto becomes a user who may not read the test's files.
    conf.write_bytes(("user root\n" + text.format(*ports, dir=place.directory)).encode())
    if "{dir}" in text:
        return conf, [place.directory / "mq.sock"]
    return conf, [("127.0.0.1", port) for port in ports[: 2 if "{1}" in text else 1]]


def converted(conf: Path) -> str:
    done = run_command_line("convert", "--directory", str(conf.parent), str(conf))
    assert done.returncode == 0, done.stderr
    toml = conf.with_name("converted.toml")
    toml.write_text(done.stdout)
    checked = run_command_line("-c", str(toml), "--check")
    errors = [line for line in checked.stderr.splitlines() if ": warning: " not in line]
    assert (checked.returncode, errors) == (0, []), done.stdout
    return done.stdout


@pytest.mark.parametrize("case", CASES)
def test_the_same_clients_are_let_in(case: str, place: Place, start_broker: StartBroker) -> None:
    text, expected = CASES[case]
    conf, addresses = write(place, text, free_ports())
    with mosquitto(conf, addresses):
        assert [guests(place, address) for address in addresses] == expected
    start_broker(converted(conf))
    assert [guests(place, address) for address in addresses] == expected
