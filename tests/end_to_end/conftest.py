"""Brokers as real processes, each ended after its test; every one must end well and log no bug."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.broker_process import BrokerProcess, StartBroker
from tests.certificates import Authority
from tests.raw_client import Address


@pytest.fixture
def start_broker(tmp_path: Path) -> Iterator[StartBroker]:
    """Starts brokers of the test's own."""
    brokers: list[BrokerProcess] = []

    def start(
        toml: str = "", *flags: str, data: Path | None = None, environ: Mapping[str, str] | None = None
    ) -> BrokerProcess:
        directory = tmp_path / f"broker{len(brokers)}"
        directory.mkdir()
        broker = BrokerProcess(directory, toml, *flags, data=data, environ=environ)
        brokers.append(broker)
        return broker

    yield start
    for broker in brokers:
        broker.stop()


@pytest.fixture(scope="module")
def shared_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    """A broker with the default options for all tests of a module: names of clients and topics must be a test's own."""
    broker = BrokerProcess(tmp_path_factory.mktemp("shared"))
    yield broker
    broker.stop()


@pytest.fixture
def address(shared_broker: BrokerProcess) -> Address:
    """Where the shared broker listens."""
    return shared_broker.address


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """It has issued the certificate of `every_transport`."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def every_transport(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    """A broker that listens with TCP, TLS, WebSocket, and WebSocket over TLS, in this order."""
    tls = authority.issue("server", server=True).toml
    listeners = ("", tls, "websocket = true\n", f"websocket = true\n{tls}")
    toml = "".join(f"[[listeners]]\n{options}" for options in listeners)
    broker = BrokerProcess(tmp_path_factory.mktemp("transports"), toml)
    yield broker
    broker.stop()
