"""The pytest plugin, in a pytest of its own."""

from __future__ import annotations

import pytest

from tests.broker_process import ROOT

pytest_plugins = ["pytester"]

CLIENT = """
    import socket

    def connect(broker):
        client = socket.create_connection((broker.host, broker.port), 10)
        client.sendall(b"\\x10\\x0c\\x00\\x04MQTT\\x04\\x02\\x00\\x00\\x00\\x00")
        assert client.recv(4) == b"\\x20\\x02\\x00\\x00"
        return client
"""


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """With this plugin only, whether the project is installed or not."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return pytester


def passed(run: pytest.Pytester, source: str, count: int) -> pytest.RunResult:
    run.makepyfile(CLIENT + source)
    result = run.runpytest_subprocess("-p", "broker.pytest_plugin", "-W", "error")
    result.assert_outcomes(passed=count)
    return result


def test_a_test_gets_a_running_broker_of_its_own(run: pytest.Pytester) -> None:
    source = """
    import threading
    ports = []

    def test_one(mqtt_broker):
        assert mqtt_broker.host == "127.0.0.1"
        ports.append(mqtt_broker.port)
        connect(mqtt_broker).close()

    def test_two(mqtt_broker):
        connect(mqtt_broker).close()

    def test_it_is_gone_after_its_test():
        assert [thread.name for thread in threading.enumerate()] == ["MainThread"]
        try:
            socket.create_connection(("127.0.0.1", ports[0])).close()
        except ConnectionRefusedError:
            pass
        else:
            raise AssertionError("somebody listens still")
    """
    passed(run, source, 3)


def test_the_factory_takes_options_and_makes_several(run: pytest.Pytester) -> None:
    source = """
    import pytest

    def test_several(mqtt_broker_factory, mqtt_broker):
        one, two = mqtt_broker_factory(max_connections=1), mqtt_broker_factory()
        assert len({one.port, two.port, mqtt_broker.port}) == 3
        with connect(one), connect(two), connect(two), connect(mqtt_broker):
            full = socket.create_connection((one.host, one.port), 10)
            full.sendall(b"\\x10\\x0c\\x00\\x04MQTT\\x04\\x02\\x00\\x00\\x00\\x00")
            assert full.recv(4) == b"\\x20\\x02\\x00\\x03"
            full.close()

    def test_data(mqtt_broker_factory, tmp_path):
        mqtt_broker_factory(data=str(tmp_path / "data"))
        assert (tmp_path / "data").is_dir()

    def test_wrong_options(mqtt_broker_factory):
        with pytest.raises(ValueError, match="^max_inflght=: unknown keyword argument; did you mean 'max_inflight'?"):
            mqtt_broker_factory(max_inflght=1)
    """
    passed(run, source, 3)


def test_a_failing_test_leaves_no_broker_behind(run: pytest.Pytester) -> None:
    source = """
    import threading

    def test_fails(mqtt_broker):
        raise AssertionError("on purpose")

    def test_nothing_is_left():
        assert [thread.name for thread in threading.enumerate()] == ["MainThread"]
    """
    run.makepyfile(CLIENT + source)
    result = run.runpytest_subprocess("-p", "broker.pytest_plugin", "-W", "error")
    result.assert_outcomes(passed=1, failed=1)


def test_the_fixtures_say_what_they_are(run: pytest.Pytester) -> None:
    result = run.runpytest_subprocess("-p", "broker.pytest_plugin", "--fixtures")
    result.stdout.fnmatch_lines(
        [
            "*mqtt_broker_factory*",
            "*Make MQTT brokers with options*",
            "*A running MQTT broker, in memory*",
        ]
    )
