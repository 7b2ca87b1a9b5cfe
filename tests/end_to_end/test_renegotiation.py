"""Renegotiation, with which a client of TLS 1.2 could ask for one handshake after the other: it is refused."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

from tests.attacks.on_memory import TLS, certificate
from tests.broker_process import BrokerProcess
from tests.raw_client import RawClient


def test_who_asks_for_a_renegotiation_does_not_get_it(tmp_path: Path) -> None:
    certificate(tmp_path)
    broker = BrokerProcess(tmp_path, TLS.replace("{directory}", str(tmp_path)))
    host, port = broker.addresses[1]
    command = [
        "openssl",
        "s_client",
        "-connect",
        f"{host}:{port}",
        "-tls1_2",
        "-CAfile",
        str(tmp_path / "authority.pem"),
    ]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as client:
        assert client.stdin is not None
        assert client.stdout is not None
        said = ""
        while "Extended master secret" not in said:  # the end of what it says of the connection
            line = client.stdout.readline()
            assert line, said
            said += line
        client.stdin.write("R\n")  # a command of its own, if it comes alone
        client.stdin.flush()
        said, _ = client.communicate(timeout=30)
    assert "RENEGOTIATING" in said
    assert "no renegotiation" in said
    assert client.returncode != 0
    context = ssl.create_default_context(cafile=tmp_path / "authority.pem")
    with RawClient.connected((host, port), tls=context) as other:
        other.ping()
    broker.stop()
