"""The chain of a server's certificate: what its own file lacks is completed, and nobody is trusted because of it."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from pathlib import Path

import pytest

from tests.broker_process import BrokerProcess, StartBroker, run_command_line
from tests.certificates import Authority, Issued
from tests.end_to_end.paho_client import Paho
from tests.raw_client import Closed, RawClient, connack, connect


class Pki:
    """A root, an authority below it and another below that, which has issued the certificate of the broker."""

    def __init__(self, directory: Path) -> None:
        self.root = Authority(directory, "root")
        self.upper = Authority(directory, "upper", self.root)
        self.lower = Authority(directory, "lower", self.upper)
        self.server = self.lower.issue("server", server=True)
        self.between = directory / "between.pem"
        self.between.write_bytes(self.upper.certificate.read_bytes() + self.lower.certificate.read_bytes())
        self.all = directory / "all.pem"
        self.all.write_bytes(self.between.read_bytes() + self.root.certificate.read_bytes())


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return Pki(tmp_path)


def sent(broker: BrokerProcess) -> int:
    """How many certificates the broker sends, as OpenSSL's own client sees it."""
    host, port = broker.address
    shown = subprocess.run(
        ["openssl", "s_client", "-connect", f"{host}:{port}", "-showcerts"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    return shown.stdout.count("BEGIN CERTIFICATE")


def enters(broker: BrokerProcess, context: ssl.SSLContext) -> bool:
    try:
        with RawClient(broker.address, tls=context) as client:
            client.send(connect("x"))
            return client.next() == connack()
    except (ssl.SSLError, Closed, ConnectionError):
        return False


def test_without_what_is_between_a_client_that_knows_the_root_refuses(pki: Pki, start_broker: StartBroker) -> None:
    broker = start_broker(pki.server.toml)
    assert (enters(broker, pki.root.trusting()), sent(broker)) == (False, 1)


@pytest.mark.parametrize("file", ["between", "all"])
def test_certificate_chain(file: str, pki: Pki, start_broker: StartBroker) -> None:
    """The root is not sent: who does not have it does not trust it either."""
    broker = start_broker(f'{pki.server.toml}certificate_chain = "{getattr(pki, file)}"\n')
    assert (enters(broker, pki.root.trusting()), sent(broker)) == (True, 3)
    with Paho(broker.address, "paho", tls=pki.root.trusting()) as client:
        assert client.code == 0


def test_of_many_certificates_those_that_are_needed_are_sent(
    pki: Pki, tmp_path: Path, start_broker: StartBroker
) -> None:
    many = tmp_path / "many.pem"
    others = [Authority(tmp_path, f"other{number}", pki.root) for number in range(5)]
    many.write_bytes(b"".join(each.certificate.read_bytes() for each in others) + pki.all.read_bytes())
    broker = start_broker(f'{pki.server.toml}certificate_chain = "{many}"\n')
    assert (enters(broker, pki.root.trusting()), sent(broker)) == (True, 3)


def test_a_file_that_is_complete_stays_as_it_is(pki: Pki, tmp_path: Path, start_broker: StartBroker) -> None:
    whole = tmp_path / "whole.pem"
    whole.write_bytes(pki.server.certificate.read_bytes() + pki.between.read_bytes())
    files = f'certificate = "{whole}"\nkey = "{pki.server.key}"\n'
    for more in ("", f'certificate_chain = "{pki.all}"\n'):
        broker = start_broker(files + more)
        assert (enters(broker, pki.root.trusting()), sent(broker)) == (True, 3)


@pytest.fixture
def folder(pki: Pki, tmp_path: Path) -> Path:
    """A directory with the three authorities, the broker's certificate and key, and what is no certificate at all."""
    made = tmp_path / "folder"
    made.mkdir()
    for file in (pki.root.certificate, pki.upper.certificate, pki.server.key):
        shutil.copy(file, made)
    shutil.copy(pki.lower.certificate, made / "lower.crt")
    (made / "README").write_text("-----BEGIN CERTIFICATE-----")
    (made / "empty.pem").touch()
    return made


def test_certificate_chain_of_a_directory(pki: Pki, folder: Path, start_broker: StartBroker) -> None:
    broker = start_broker(f'{pki.server.toml}certificate_chain = "{folder}"\n')
    assert (enters(broker, pki.root.trusting()), sent(broker)) == (True, 3)


# --- clients with certificates ---


@pytest.mark.parametrize("authorities", ["all", "folder"])
def test_client_ca_completes_it_too(authorities: str, pki: Pki, folder: Path, start_broker: StartBroker) -> None:
    path = pki.all if authorities == "all" else folder
    broker = start_broker(f'{pki.server.toml}client_ca = "{path}"\ncertificate_user = "cn"\n')
    ann = pki.lower.issue("ann")
    assert enters(broker, pki.root.trusting(ann))
    assert not enters(broker, pki.root.trusting())
    assert sent(broker) >= 3


def test_who_completes_the_chain_is_not_trusted_because_of_it(
    pki: Pki, tmp_path: Path, start_broker: StartBroker
) -> None:
    """A public authority issues the broker's certificate, an own one those of the clients."""
    own = Authority(tmp_path, "own")
    ann, stranger = own.issue("ann"), pki.lower.issue("stranger")
    chained = Issued(tmp_path / "chained.crt", stranger.key, stranger.serial)  # who shows all that is between as well
    chained.certificate.write_bytes(stranger.certificate.read_bytes() + pki.all.read_bytes())
    broker = start_broker(
        f'{pki.server.toml}certificate_chain = "{pki.all}"\nclient_ca = "{own.certificate}"\ncertificate_user = "cn"\n'
    )
    entered = {
        name: enters(broker, pki.root.trusting(client))
        for name, client in {"ann": ann, "stranger": stranger, "chained": chained, "nobody": None}.items()
    }
    assert entered == {"ann": True, "stranger": False, "chained": False, "nobody": False}
    assert sent(broker) == 3


def test_what_is_no_chain(pki: Pki, tmp_path: Path) -> None:
    empty = tmp_path / "nothing"
    empty.mkdir()
    cases = [
        (f'{pki.server.toml}certificate_chain = "{tmp_path}/none"', f"{tmp_path}/none: there is no such file: "
         "create it, or correct its name"),
        (f'{pki.server.toml}certificate_chain = "{pki.server.key}"', f"{pki.server.key}: cannot be used as "
         "certificates of authorities: no certificate or crl found"),
        (f'{pki.server.toml}certificate_chain = "{empty}"', f"{empty}: there is no certificate of an authority (CA) "
         "in this directory, in files *.pem or *.crt"),
        (f'{pki.server.toml}client_ca = "{empty}"', f"{empty}: there is no certificate of an authority (CA) "
         "in this directory, in files *.pem or *.crt"),
    ]  # fmt: skip
    config = tmp_path / "c.toml"
    for toml, message in cases:
        config.write_text(f"port = 0\nmemory = true\n{toml}")
        done = run_command_line("-c", str(config), "--check")
        assert done.returncode == 2
        assert f": {message}\n" in done.stderr
