"""A broker on a Unix socket: paho-mqtt, mosquitto_pub and mosquitto_sub, TLS; who may come; the file's life."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker import Broker, pytest_plugin
from broker.auth.passwords import set_password
from broker.pytest_plugin import BrokerFactory
from tests.broker_process import StartBroker, child, run_command_line
from tests.certificates import Authority
from tests.end_to_end.paho_client import PROTOCOLS, Paho
from tests.raw_client import RawClient, connack, connect


@pytest.fixture
def path() -> Iterator[Path]:
    """Short, as the path of a Unix socket must be."""
    with tempfile.TemporaryDirectory(prefix="mq") as directory:
        yield Path(directory) / "mq.sock"


@pytest.mark.parametrize("version", PROTOCOLS)
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_paho(version: str, qos: int, path: Path, start_broker: StartBroker) -> None:
    start_broker(f'[[listeners]]\nunix = "{path}"\n')
    large = os.urandom(3_000_000)
    with Paho(path, "author", version=version) as author, Paho(path, "reader", version=version) as reader:
        reader.subscribe(("t", qos))
        for payload in (b"", b"small", large):
            author.publish("t", payload, qos)
            message = reader.message()
            assert (message.topic, message.qos) == ("t", qos)
            assert message.payload == payload


def test_mosquitto_s_clients_and_those_of_another_listener(path: Path, start_broker: StartBroker) -> None:
    broker = start_broker(f'[[listeners]]\n[[listeners]]\nunix = "{path}"\n')
    assert broker.wait_for("listening", 2)[1]["address"] == f"unix:{path}"
    publish = ["mosquitto_pub", "--unix", str(path), "-q", "1"]
    subprocess.run([*publish, "-t", "t/0", "-r", "-m", "subscribed"], check=True, timeout=30)
    command = ["mosquitto_sub", "--unix", str(path), "-i", "sub", "-t", "t/#", "-q", "1", "-C", "3", "-W", "20", "-v"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as subscriber:
        assert subscriber.stdout is not None
        assert subscriber.stdout.readline() == "t/0 subscribed\n"
        subprocess.run([*publish, "-t", "t/1", "-m", "over Unix"], check=True, timeout=30)
        with Paho(broker.address) as client:
            client.publish("t/2", b"over TCP", 1)
        assert subscriber.stdout.read() == "t/1 over Unix\nt/2 over TCP\n"
    [event] = broker.wait_for("client connected", client="sub")
    assert event["address"] == f"unix:uid-{os.getuid()}:pid-{subscriber.pid}"


def test_tls_works_there_too(path: Path, tmp_path: Path, start_broker: StartBroker) -> None:
    authority = Authority(tmp_path)
    server = authority.issue("server", server=True)
    start_broker(f'[[listeners]]\nunix = "{path}"\n{server.toml}')
    context = authority.trusting()
    with RawClient.connected(path, "c", tls=context) as client:
        client.ping()


def test_the_file_from_start_to_end(path: Path, start_broker: StartBroker) -> None:
    broker = start_broker(f'[[listeners]]\nunix = "{path}"\n')
    assert (stat.S_IMODE(path.lstat().st_mode), stat.S_ISSOCK(path.lstat().st_mode)) == (0o600, True)
    broker.kill()
    assert path.exists()  # nobody could remove it
    broker.start()
    client = RawClient.connected(path)
    broker.signal(signal.SIGTERM)
    client.closed()
    assert broker.wait() == 0
    assert not path.exists()


def test_the_mode_is_an_option(path: Path, start_broker: StartBroker) -> None:
    start_broker(f'[[listeners]]\nunix = "{path}"\nunix_mode = "0660"\n')
    assert stat.S_IMODE(path.lstat().st_mode) == 0o660


def test_a_second_broker_is_refused_and_harms_nothing(path: Path, start_broker: StartBroker) -> None:
    start_broker(f'[[listeners]]\nunix = "{path}"\n')
    second = run_command_line("--memory", "--unix", str(path))
    advice = "it is in use; stop the program that listens there, or choose another path with --unix"
    assert (second.returncode, second.stderr) == (2, f"python3 -m broker: cannot listen on unix:{path}: {advice}\n")
    RawClient.connected(path).disconnect()


def test_an_ordinary_file_is_never_removed(path: Path) -> None:
    path.write_text("precious")
    done = run_command_line("--memory", "--unix", str(path))
    assert done.returncode == 2
    assert done.stderr.endswith(": there is a file that is no socket; remove it, or choose another path with --unix\n")
    assert path.read_text() == "precious"


def test_a_start_that_fails_later_leaves_no_file(path: Path, tmp_path: Path) -> None:
    config = tmp_path / "b.toml"
    config.write_text(f'memory = true\n[[listeners]]\nunix = "{path}"\n[[listeners]]\nbind = "192.0.2.1"\n'
                      "allow_anonymous = true\n")  # fmt: skip
    done = run_command_line("-c", str(config))
    assert (done.returncode, path.exists()) == (2, False)
    assert "this machine has no such address" in done.stderr


def test_the_flags_and_the_check(path: Path) -> None:
    done = run_command_line("--check", "--unix", str(path), "--unix-mode", "0660")
    assert (done.returncode, done.stdout) == (0, f"configuration is fine: unix:{path}\n")
    assert not path.exists()
    done = run_command_line("--check", "--unx", str(path))
    assert (done.returncode, done.stderr) == (2, "python3 -m broker: --unx: unknown flag; did you mean '--unix'?\n")
    with child("-m", "broker", "--memory", "--unix", str(path)) as (process, log):
        while "started" not in log.readline():
            pass
        RawClient.connected(path).disconnect()
        process.terminate()
        log.read()
    assert process.returncode == 0


def test_clients_are_anonymous_as_on_a_loopback_address_unless_there_are_passwords(
    path: Path, tmp_path: Path, start_broker: StartBroker
) -> None:
    set_password(str(tmp_path / "users"), "ann", b"one", create=True, iterations=1)
    broker = start_broker(f'[[listeners]]\nunix = "{path}"\npasswords = "{tmp_path}/users"\n')
    with RawClient(path) as client:
        client.send(connect("c"))
        client.expect(connack(5))
        client.closed()
    [event] = broker.wait_for("client refused", client="c")
    assert event["address"] == f"unix:uid-{os.getuid()}:pid-{os.getpid()}"
    RawClient.connected(path, "c", username="ann", password=b"one").disconnect()


def test_the_rate_limit_counts_each_user(path: Path, start_broker: StartBroker) -> None:
    broker = start_broker(f'[[listeners]]\nunix = "{path}"\n', "--max-connect-rate", "20")
    crowd = [RawClient(path) for _ in range(300)]
    broker.wait_for(
        "connection refused", address=f"unix:uid-{os.getuid()}", reason="too many attempts from this address"
    )
    for client in crowd:
        client.close()


def test_embedded(path: Path) -> None:
    with Broker(unix=path) as broker:
        assert (broker.host, broker.port, broker.addresses) == (str(path), 0, [(str(path), 0)])
        RawClient.connected(path).disconnect()
    assert not path.exists()


factory = pytest_plugin.mqtt_broker_factory


def test_the_fixture_of_the_plugin(path: Path, factory: BrokerFactory) -> None:
    broker = factory(unix=path)
    assert broker.host == str(path)
    RawClient.connected(path).disconnect()


def test_the_fixture_of_the_plugin_gives_a_free_port_to_listeners_without_one(
    path: Path, factory: BrokerFactory
) -> None:
    broker = factory(listeners=[{"unix": str(path)}, {}])
    assert broker.addresses[0] == (str(path), 0)
    RawClient.connected(broker.addresses[1]).disconnect()
    RawClient.connected(factory(listeners=[{"port": 0}]).addresses[0]).disconnect()
