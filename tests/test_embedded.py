"""The broker inside of a program: quick to start, clean to stop, as many as one likes."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import selectors
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker import Broker, StartError, server
from broker.auth.passwords import set_password
from broker.config.loading import ConfigError
from broker.net import polling
from broker.pytest_plugin import BrokerFactory
from tests.broker_process import environment, eventually
from tests.raw_client import RawClient, Will, connack, connect, puback, publish, suback, subscribe

START_TIME = """
import json, socket, time
from broker import Broker

start = time.perf_counter()
with Broker(port=0) as broker:
    started = time.perf_counter()
    client = socket.create_connection((broker.host, broker.port))
    client.sendall(b"\\x10\\x0c\\x00\\x04MQTT\\x04\\x02\\x00\\x00\\x00\\x00")
    assert client.recv(4) == b"\\x20\\x02\\x00\\x00"
    connected = time.perf_counter()
    client.close()
stopped = time.perf_counter()
print(json.dumps([started - start, connected - start, stopped - connected]))
"""


def address(broker: Broker) -> tuple[str, int]:
    return broker.host, broker.port


def left_over() -> tuple[set[str], list[str]]:
    """Threads and open descriptors of this process."""
    return {thread.name for thread in threading.enumerate()}, sorted(os.listdir("/proc/self/fd"))


@pytest.fixture
def factory() -> Iterator[BrokerFactory]:
    with contextlib.ExitStack() as brokers:
        yield lambda **options: brokers.enter_context(Broker(**{"port": 0, **options}))


# --- start and stop ---


def test_it_starts_serves_and_stops_in_well_under_100_ms() -> None:
    times: list[list[float]] = []
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", START_TIME], capture_output=True, text=True, timeout=60, env=environment()
        )
        assert done.stderr == ""
        times.append(json.loads(done.stdout))
    started, connected, stopped = (min(column) for column in zip(*times, strict=True))
    print(
        f"started after {started * 1e3:.1f} ms, first CONNACK after {connected * 1e3:.1f} ms, stop {stopped * 1e3:.1f}"
    )
    assert connected < 0.1
    assert stopped < 0.1


def test_clients_can_connect_as_soon_as_start_returns() -> None:
    for _ in range(10):
        with Broker(port=0) as broker, RawClient.connected(address(broker)) as client:
            client.ping()


def test_port_0_takes_a_free_port_of_loopback() -> None:
    with Broker(port=0) as broker:
        assert broker.host == "127.0.0.1"
        assert broker.port > 0
        assert broker.addresses == [("127.0.0.1", broker.port)]


def test_it_leaves_no_thread_and_no_descriptor_behind(tmp_path: Path) -> None:
    before = left_over()
    for data in (None, str(tmp_path / "data")):
        with Broker(port=0, data=data) as broker:
            assert left_over() != before
            # Work for the lane of the store, and a client that is there at the end:
            client = RawClient.connected(address(broker), "client", clean=False).subscribe(("a", 1))
            client.send(publish("a", b"x", 1, retain=True))
        client.close()
        assert left_over() == before


def test_with_everything_in_memory_it_writes_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "XDG_STATE_HOME", "TMPDIR"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with Broker(port=0) as broker, RawClient.connected(address(broker), "client", clean=False) as client:
        client.subscribe(("a", 1))
        client.send(publish("a", b"x", 1, retain=True))
        assert client.message().payload == b"x"
    assert list(tmp_path.iterdir()) == []


def test_data_leaves_one_whole_file_behind(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with Broker(port=0, data=str(data)) as broker:
        RawClient.connected(address(broker), "client", clean=False).disconnect()
    assert len(list(data.iterdir())) == 1


def test_stop_may_be_called_twice_and_before_start() -> None:
    broker = Broker(port=0)
    broker.stop()
    broker.start()
    broker.stop()
    broker.stop()


def test_it_can_be_started_again() -> None:
    broker = Broker(port=0)
    for _ in range(3):
        with broker, RawClient.connected(address(broker), "client", clean=False) as client:
            client.ping()  # and Session Present was 0 each time: in memory, nothing outlives the stop


def test_started_twice_it_says_so() -> None:
    with Broker(port=0) as broker:
        with pytest.raises(RuntimeError, match=r"^the broker runs already$"):
            broker.start()
        RawClient.connected(address(broker)).close()


def test_while_it_does_not_run_it_has_no_port() -> None:
    broker = Broker(port=0)
    why = r"^the broker does not run: use it in a `with` block, or call start\(\)$"
    with pytest.raises(RuntimeError, match=why):
        _ = broker.port
    with broker:
        assert broker.port
    with pytest.raises(RuntimeError, match=why):
        _ = broker.host
    with pytest.raises(RuntimeError, match=why):
        broker.reload()


def test_an_exception_in_its_block_stops_it() -> None:
    before = left_over()
    with pytest.raises(ZeroDivisionError), Broker(port=0):
        raise ZeroDivisionError
    assert left_over() == before


def test_several_at_once_know_nothing_of_each_other(factory: BrokerFactory) -> None:
    brokers = [factory() for _ in range(5)]
    clients = [RawClient.connected(address(broker), "same").subscribe(("t", 0)) for broker in brokers]
    for i, client in enumerate(clients):
        client.send(publish("t", b"%d" % i))
    for i, client in enumerate(clients):
        assert client.message().payload == b"%d" % i
        client.ping()
        client.close()


def test_stop_publishes_the_wills_of_all_to_all(factory: BrokerFactory) -> None:
    # Whoever was there first, and whoever has a will themselves.
    broker = factory()
    clients = [
        RawClient.connected(address(broker), f"c{i}", will=Will("wills", b"%d" % i)).subscribe(("wills", 0))
        for i in range(5)
    ]
    broker.stop()
    for client in clients:
        came = client.closed()
        assert sorted(came) == sorted(b"".join(publish("wills", b"%d" % i) for i in range(5)))


# --- other selectors; Windows has nothing but select ---


@pytest.mark.parametrize("selector", [selectors.PollSelector, selectors.SelectSelector, selectors.EpollSelector])
def test_it_works_with_any_selector(
    factory: BrokerFactory, selector: type[selectors.BaseSelector], tmp_path: Path
) -> None:
    broker = factory(data=str(tmp_path / "data"), selector=selector)
    with RawClient.connected(address(broker), "client", clean=False).subscribe(("t", 1)) as client:
        for i in range(1, 101):
            client.send(publish("t", b"%d" % i * 10_000, 1, packet_id=i))
            assert {client.next()[0] for _ in range(2)} == {0x32, 0x40}
            client.send(puback(i))
        client.disconnect()


def test_more_clients_than_select_can_wait_for_harm_nobody(
    factory: BrokerFactory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(selectors, "DefaultSelector", selectors.SelectSelector)
    monkeypatch.setattr(polling, "SELECT_CAPACITY", 10)
    broker = factory()
    crowd = [RawClient.connected(address(broker)) for _ in range(10)]
    for _ in range(3):
        with RawClient(address(broker)) as one_more:
            assert one_more.closed() == b""
    for client in crowd:
        client.ping()
    crowd.pop().disconnect()
    with RawClient.connected(address(broker)) as late:
        late.ping()
    for client in crowd:
        client.close()
    (record,) = [message for message in caplog.messages if message.startswith("connection refused ")]
    why = "this system cannot wait for more connections"
    assert record == f'connection refused address=127.0.0.1 reason="{why}"'


# --- options ---


def test_options_take_effect(factory: BrokerFactory) -> None:
    broker = factory(max_connections=1)
    with RawClient.connected(address(broker)), RawClient(address(broker)) as other:
        other.send(connect())
        assert other.closed() == connack(3)


def test_several_listeners(factory: BrokerFactory, tmp_path: Path) -> None:
    passwords = tmp_path / "passwords"
    set_password(str(passwords), "ann", b"secret", create=True, iterations=1)
    broker = factory(listeners=[{}, {"passwords": str(passwords)}])
    open_address, closed_address = broker.addresses
    RawClient.connected(open_address).close()
    RawClient.connected(closed_address, username="ann", password=b"secret").close()
    with RawClient(closed_address) as client:
        client.send(connect())
        assert client.closed() == connack(5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_inflght": 5}, "max_inflght=: unknown keyword argument; did you mean 'max_inflight'?"),
        ({"port": "abc"}, "port=: must be an integer from 0 to 65535, not 'abc'"),
        ({"bind": "0.0.0.0"}, None),
        ({"memory": True, "data": "/tmp/x"}, None),
        ({"config_file": "/nowhere/broker.toml"}, "/nowhere/broker.toml: there is no such file"),
    ],
)
def test_wrong_options_are_told_before_anything_starts(options: dict[str, object], message: str | None) -> None:
    before = left_over()
    with pytest.raises(ConfigError) as raised:
        Broker(**options)  # type: ignore[arg-type]
    assert isinstance(raised.value, ValueError)
    assert "\n" not in str(raised.value)
    assert message is None or str(raised.value) == message
    assert left_over() == before


def test_a_file_of_options_under_keywords(tmp_path: Path) -> None:
    path = tmp_path / "broker.toml"
    path.write_text("port = 1\nmemory = true\nmax_connections = 1\n")
    with Broker(config_file=str(path), port=0) as broker, RawClient.connected(address(broker)):
        assert broker.port != 1
        with RawClient(address(broker)) as other:
            other.send(connect())
            assert other.closed() == connack(3)


def test_a_taken_port_is_told_and_leaves_nothing_open(tmp_path: Path) -> None:
    before = left_over()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        broker = Broker(listeners=[{"port": 0}, {"port": port}], data=str(tmp_path / "data"))
        for _ in range(2):
            with pytest.raises(StartError, match=f"^cannot listen on 127.0.0.1:{port}: the port is in use; "):
                broker.start()
    assert left_over() == before
    with broker:  # the port is free now, and the data is not held by the attempts before
        assert broker.addresses[1] == ("127.0.0.1", port)


def test_a_missing_password_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "none"
    with pytest.raises(StartError, match=f"^{path}: there is no such file: create it, or correct its name$"):
        Broker(port=0, passwords=str(path)).start()


# --- data ---


def test_data_outlives_the_broker(tmp_path: Path) -> None:
    options: dict[str, object] = {"port": 0, "data": str(tmp_path / "data")}
    with Broker(**options) as broker, RawClient.connected(address(broker), "away", clean=False) as client:  # type: ignore[arg-type]
        client.subscribe(("a/#", 1))
        client.disconnect()
        with RawClient.connected(address(broker)) as other:
            other.send(publish("a/b", b"kept for the session", 1))
            other.send(publish("r", b"retained", 1, packet_id=2, retain=True))
            other.expect(b"\x40\x02\0\1", b"\x40\x02\0\2")
    with Broker(**options) as broker:  # type: ignore[arg-type]
        with RawClient.connected(address(broker), "away", clean=False, present=True) as client:
            message = client.message()
            assert (message.topic, message.payload, message.qos) == ("a/b", b"kept for the session", 1)
        with RawClient.connected(address(broker)) as other:
            other.send(subscribe(("r", 1)))
            other.expect(suback(1))
            message = other.message()
            assert (message.payload, message.retain) == (b"retained", True)


def test_two_at_once_cannot_share_their_data(tmp_path: Path) -> None:
    data = str(tmp_path / "data")
    with Broker(port=0, data=data) as broker:
        with pytest.raises(StartError, match="is in use by another broker; stop that one, or choose another directory"):
            Broker(port=0, data=data).start()
        RawClient.connected(address(broker), "client", clean=False).close()


def test_the_session_of_an_absent_client_expires(
    factory: BrokerFactory, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = str(tmp_path / "data")
    with Broker(port=0, data=data) as broker:
        for name in ("absent", "present"):
            RawClient.connected(address(broker), name, clean=False).disconnect()
    with caplog.at_level(logging.INFO, "selectmq"):
        broker = factory(data=data, session_expiry=1.0)  # the time that the broker was stopped counts
        with RawClient.connected(address(broker), "present", clean=False, present=True) as present:
            eventually(lambda: "session expired client=absent" in caplog.messages, "the session's end")
            present.ping()
            present.disconnect()
        RawClient.connected(address(broker), "absent", clean=False).disconnect()
    assert len([message for message in caplog.messages if message.startswith("session expired")]) == 1


# --- reload ---


def test_reload_reads_the_files_again(factory: BrokerFactory, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    acl = tmp_path / "acl"
    acl.write_text("topic readwrite #\n")
    broker = factory(acl=str(acl))
    with RawClient.connected(address(broker)) as client, caplog.at_level(logging.INFO, "selectmq"):
        client.send(subscribe(("a", 0)))
        client.expect(suback(0))
        acl.write_text("")
        broker.reload()
        eventually(lambda: "reloaded" in caplog.messages, "the reload")
        client.send(subscribe(("a", 0), packet_id=2))
        client.expect(suback(0x80, packet_id=2))


def test_it_logs_to_the_logger_of_its_name_and_nowhere_else(
    factory: BrokerFactory, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.INFO, "selectmq"):
        broker = factory()
        RawClient.connected(address(broker), "client").disconnect()
        broker.stop()
    assert {record.name for record in caplog.records} == {"selectmq"}
    assert [record.__dict__["event"] for record in caplog.records] == [
        "listening", "started", "client connected", "client disconnected", "ending", "ended",
    ]  # fmt: skip
    assert capfd.readouterr() == ("", "")


def test_the_program_can_look_at_the_packets_of_who_is_connected(
    factory: BrokerFactory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(server, "CLOCK_CHECK", 0.02)
    broker = factory()
    with RawClient.connected(address(broker), "client") as client:

        def shown() -> bool:
            client.ping()
            return "received PINGREQ client=client" in caplog.messages

        assert not shown()
        with caplog.at_level(logging.DEBUG, "selectmq"):
            eventually(shown, "its packets are shown")


def test_options_of_the_log_hold_while_it_runs_and_no_longer(capfd: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("selectmq")
    before = (logger.level, logger.handlers, logger.propagate)
    with Broker(port=0, log_level="warning"):
        assert (logging.WARNING, *before[1:]) == (logger.level, logger.handlers, logger.propagate)
    assert before == (logger.level, logger.handlers, logger.propagate)
    with Broker(port=0, log_format="json"):
        pass
    assert before == (logger.level, logger.handlers, logger.propagate)
    assert json.loads(capfd.readouterr().err.splitlines()[-1])["event"] == "ended"
