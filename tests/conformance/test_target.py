"""Addresses, and brokers that the runner starts and stops."""

import socket
import sys
from pathlib import Path

import pytest

from conformance import profiles
from conformance.target import SHAPE, Broker, Endpoint, TargetError, find_program, free_ports, parse_url

URLS = {
    "mqtt://host:1884": Endpoint("main", "mqtt", "host", 1884),
    "mqtt://host": Endpoint("main", "mqtt", "host", 1883),
    "mqtts://host": Endpoint("main", "mqtts", "host", 8883),
    "host:1884": Endpoint("main", "mqtt", "host", 1884),
    "host": Endpoint("main", "mqtt", "host", 1883),
    "mqtt://host/": Endpoint("main", "mqtt", "host", 1883),
    "mqtt://[::1]:1884": Endpoint("main", "mqtt", "::1", 1884),
    "ws://host": Endpoint("main", "ws", "host", 80),
    "wss://host:8084/mqtt?x=1": Endpoint("main", "wss", "host", 8084, "/mqtt?x=1"),
    "mqtt://alice:open%20sesame@host": Endpoint("main", "mqtt", "host", 1883, username="alice", password="open sesame"),
}


@pytest.mark.parametrize(("url", "expected"), URLS.items())
def test_parse_url(url: str, expected: Endpoint) -> None:
    assert parse_url(url) == expected


NO_URLS = {
    "http://host": "the scheme 'http' is not known",
    "mqtt://": "it names no host",
    "mqtt://host:port": "Port could not be cast to integer value as 'port'",
    "mqtt://host:70000": "Port out of range 0-65535",
    "mqtt://host/path": "nothing may follow the port",
    "ws://host/path#part": "nothing may follow the path",
}


@pytest.mark.parametrize(("url", "why"), NO_URLS.items())
def test_no_url(url: str, why: str) -> None:
    with pytest.raises(TargetError) as caught:
        parse_url(url)
    assert str(caught.value) == f"{url!r} is no target: {why}; give it as {SHAPE}"


@pytest.mark.parametrize("url", ["mqtt://host:1884", "mqtts://[::1]:8883", "ws://host:8080/mqtt"])
def test_url_of_an_endpoint(url: str) -> None:
    assert parse_url(url).url == url


@pytest.mark.parametrize(("host", "expected"), [("127.0.0.1", True), ("localhost", True), ("10.0.0.1", False)])
def test_loopback(host: str, expected: bool) -> None:
    assert parse_url(host).loopback == expected


def test_free_ports_are_different() -> None:
    ports = free_ports(["a", "b", "c"])
    assert list(ports) == ["a", "b", "c"]
    assert len(set(ports.values())) == 3


#: A "broker" that takes connections, writes down its starts, and ends when it is told to.
LISTEN = """
import socket, sys
port, journal = int(sys.argv[1]), open(sys.argv[2], "a")
journal.write("started ")
journal.close()
with socket.create_server(("127.0.0.1", port)) as listener:
    while True:
        listener.accept()[0].close()
"""


def listening(script: str = LISTEN) -> Broker:
    text = f"""
    [run]
    command = ["{{{{python}}}}", "{{{{dir}}}}/sub/listen.py", "{{{{port.main}}}}", "{{{{dir}}}}/journal"]
    [run.files]
    "sub/listen.py" = '''{script}'''
    [endpoints.main]
    url = "mqtt://127.0.0.1:{{{{port.main}}}}"
    """
    return profiles.parse(text, "listening.toml")


def is_up(broker: Broker) -> bool:
    try:
        socket.create_connection((broker.main.host, broker.main.port), 5).close()
    except ConnectionRefusedError:
        return False
    return True


def directory(broker: Broker) -> Path:
    return Path(broker._values["dir"])


def test_broker_is_started_and_ended() -> None:
    with listening() as broker:
        assert is_up(broker)
        assert (broker.private, broker.died) == (True, "")
        place = directory(broker)
        assert sorted(path.name for path in place.iterdir()) == ["broker.log", "journal", "sub"]
    assert not is_up(broker)
    assert not place.exists()


def test_broker_is_restarted_with_its_data() -> None:
    with listening() as broker:
        broker.restart()
        assert is_up(broker)
        broker.kill()
        assert not is_up(broker)
        broker.start()
        assert (directory(broker) / "journal").read_text() == "started started started "


def test_broker_that_ends_at_once() -> None:
    with pytest.raises(TargetError) as caught, listening("print('first'); raise SystemExit('no good')"):
        pass
    assert str(caught.value) == "listening did not start: the broker ended by itself with exit status 1: no good"


def test_broker_that_dies() -> None:
    with listening(
        "import os\n" + LISTEN.replace("listener.accept()[0].close()", "listener.accept(); os._exit(3)")
    ) as broker:
        assert broker._process is not None
        broker._process.wait(10)
        assert broker.died == "the broker ended by itself with exit status 3"


def test_program_that_is_not_there() -> None:
    with pytest.raises(TargetError) as caught:
        find_program("no-such-program")
    assert str(caught.value) == (
        "the program 'no-such-program' is not installed, or not in PATH: install it, or give another profile"
    )


def test_preparation_that_fails() -> None:
    text = """
    [run]
    command = ["{{python}}"]
    prepare = [["{{python}}", "-c", "raise SystemExit('no good')"]]
    [endpoints.main]
    url = "mqtt://127.0.0.1:{{port.main}}"
    """
    with pytest.raises(TargetError) as caught, profiles.parse(text, "x.toml"):
        pass
    assert str(caught.value) == (
        f"the profile's command `{sys.executable} -c raise SystemExit('no good')` ended with status 1: no good"
    )


def test_commands_of_a_broker_that_somebody_else_runs(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        touch = f'["{sys.executable}", "-c", "open(r\'{tmp_path}/restarted\', \'w\')"]'
        text = f'[commands]\nrestart = {touch}\n[endpoints.main]\nurl = "mqtt://127.0.0.1:{port}"'
        with profiles.parse(text, "x.toml") as broker:
            assert not (tmp_path / "restarted").exists()
            broker.restart()
            assert (tmp_path / "restarted").exists()
            assert not broker.private
