"""`$SYS`: Mosquitto's names, and numbers that are true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from broker import __version__
from tests.broker_process import BrokerProcess, StartBroker
from tests.end_to_end.sys_topics import sys_values, wait_for_count, wait_for_sys
from tests.raw_client import PINGREQ, PINGRESP, RawClient, connack, connect, parse_publish, puback, publish

# mosquitto(8), "broker status".
NAMES = [
    "version", "uptime",
    "clients/total", "clients/connected", "clients/active", "clients/disconnected", "clients/inactive",
    "clients/maximum", "clients/expired",
    "messages/received", "messages/sent", "messages/stored",
    "publish/messages/received", "publish/messages/sent", "publish/messages/dropped",
    "store/messages/count", "store/messages/bytes", "retained messages/count", "subscriptions/count",
    "shared_subscriptions/count",
    "bytes/received", "bytes/sent",
    *(f"load/{what}/{minutes}min"
      for what in ("connections", "sockets", "bytes/received", "bytes/sent", "messages/received", "messages/sent",
                   "publish/received", "publish/sent", "publish/dropped")
      for minutes in (1, 5, 15)),
]  # fmt: skip


@pytest.fixture
def broker(start_broker: StartBroker, tmp_path: Path) -> BrokerProcess:
    return start_broker("sys_interval = 0.05\n", data=tmp_path / "data")


def test_mosquittos_names_are_there_from_the_start(start_broker: StartBroker) -> None:
    values = sys_values(start_broker().address)  # with the interval of 10 s
    assert [name for name in NAMES if name not in values] == []


def test_version_and_uptime(broker: BrokerProcess) -> None:
    values = sys_values(broker.address)
    assert values["version"] == f"selectmq version {__version__}"
    assert re.fullmatch(r"\d+ seconds", values["uptime"])
    wait_for_count(broker.address, "uptime", 1)


def test_clients(broker: BrokerProcess) -> None:
    address = broker.address
    with RawClient.connected(address, "one"), RawClient.connected(address, "two", clean=False) as two:
        wait_for_sys(address, "clients/connected", 3)  # and the one that asks
        wait_for_sys(address, "clients/total", 3)
        two.disconnect()
        wait_for_sys(address, "clients/disconnected", 1)
    wait_for_sys(address, "clients/connected", 1)
    values = sys_values(address)
    assert values["clients/active"] == values["clients/connected"]
    assert values["clients/inactive"] == values["clients/disconnected"] == "1"
    assert int(values["clients/maximum"]) == 3


def test_messages_and_bytes(broker: BrokerProcess) -> None:
    address = broker.address
    with RawClient.connected(address, "client") as client:
        client.subscribe(("t", 1))
        wait_for_sys(address, "clients/connected", 2)
        before = {name: float(value) for name, value in settled(broker).items() if re.fullmatch(r"[\d.]+", value)}
        for i in range(1, 101):
            client.send(publish("t", b"x" * 1000, 1, packet_id=i))
            assert {client.next()[0] for _ in range(2)} == {0x32, 0x40}
            client.send(puback(i))
        after = {name: float(value) for name, value in settled(broker).items() if re.fullmatch(r"[\d.]+", value)}
    grown = {name: after[name] - before[name] for name in after}
    # 100 PUBLISH and 100 PUBACK each way; and what the readers of $SYS cost, which is more packets sent.
    assert grown["publish/messages/received"] == 100
    assert 200 <= grown["messages/received"] < 230
    assert grown["publish/messages/sent"] >= 100
    assert grown["messages/sent"] >= 200
    sizes = 100 * (len(publish("t", b"x" * 1000, 1)) + 4)
    assert sizes <= grown["bytes/received"] < sizes + 3000
    assert sizes <= grown["bytes/sent"] < sizes + 100_000
    for name in ("publish/received", "publish/sent", "messages/received", "messages/sent"):
        assert after[f"load/{name}/1min"] > 10
    for name in ("bytes/received", "bytes/sent"):
        assert after[f"load/{name}/1min"] > 10_000
    for minutes, other in ((1, 5), (5, 15)):
        assert after[f"load/publish/received/{minutes}min"] > after[f"load/publish/received/{other}min"] > 0
    assert after["publish/messages/dropped"] == 0


def settled(broker: BrokerProcess) -> dict[str, str]:
    """The numbers after all that has happened up to now was counted: what is retained later is published with it."""
    wait_for_count(broker.address, "uptime", int(sys_values(broker.address)["uptime"].split()[0]) + 1)
    return sys_values(broker.address)


def test_subscriptions_retained_and_stored(broker: BrokerProcess) -> None:
    address = broker.address
    with RawClient.connected(address, "client", clean=False) as client:
        client.subscribe(("t", 1), ("u/+", 0), ("v/#", 2))
        wait_for_sys(address, "subscriptions/count", 4)  # and the one that asks
        kept = int(sys_values(address)["retained messages/count"])
        client.send(publish("r/1", b"x" * 100, 1, retain=True) + publish("r/2", b"x", retain=True) + PINGREQ)
        assert {client.next(), client.next()} == {puback(1), PINGRESP}
        wait_for_sys(address, "retained messages/count", kept + 2)
        client.disconnect()
    with RawClient.connected(address, "author") as author:
        for i in range(1, 6):
            author.send(publish("t", b"x" * 1000, 1, packet_id=i))
        author.expect(*(puback(i) for i in range(1, 6)))
    wait_for_sys(address, "messages/stored", kept + 2 + 5)
    values = sys_values(address)
    assert values["store/messages/count"] == values["messages/stored"]
    assert int(values["store/messages/bytes"]) >= 5 * 1001 + 103
    assert int(values["store/commits"]) > 0


def test_each_figure_stands_beside_its_limit(start_broker: StartBroker, tmp_path: Path) -> None:
    limits = {"max_sessions": 7, "max_store": 3 << 20, "max_retained": 1_000, "max_retained_bytes": 65_536}
    lines = [f"{name} = {value}\n" for name, value in limits.items()]
    address = start_broker("sys_interval = 0.05\n" + "".join(lines), data=tmp_path / "data").address
    with RawClient.connected(address, "stays", clean=False), RawClient.connected(address, "goes"):
        wait_for_sys(address, "sessions/count", 1)
    values = sys_values(address)
    figures = ("sessions/count", "store/bytes", "retained messages/count", "retained messages/bytes")
    assert [int(values[f"{name}/limit"]) for name in figures] == list(limits.values())
    assert all(0 < int(values[name]) < int(values[f"{name}/limit"]) for name in figures)


def test_connections_are_counted(broker: BrokerProcess) -> None:
    address = broker.address
    with RawClient(address) as client:
        client.send(connect("", clean=False))
        assert client.closed() == connack(2)
    wait_for_sys(address, "clients/refused", 1)
    with RawClient.connected(address, "bad") as client:
        client.send(b"\xf0\x00")
        assert client.closed() == b""
    wait_for_sys(address, "errors/protocol", 1)
    values = sys_values(address)
    assert values["errors/bugs"] == "0"
    assert float(values["load/connections/1min"]) > 0
    assert float(values["load/sockets/1min"]) >= float(values["load/connections/1min"])


def test_clients_cannot_publish_to_it(broker: BrokerProcess) -> None:
    address = broker.address
    with RawClient.connected(address, "forger") as forger:
        forger.subscribe(("$SYS/broker/version", 0))
        assert forger.message().payload.startswith(b"selectmq")
        forger.send(publish("$SYS/broker/version", b"mine", 1, retain=True) + publish("$SYS/broker/version", b"mine"))
        forger.expect(puback(1))  # [MQTT-3.3.5-2]
        forger.ping()
    assert sys_values(address)["version"].startswith("selectmq")
    broker.wait_for("publish refused: not authorised", client="forger")
    wait_for_sys(address, "publish/messages/denied", 2)


def test_an_interval_of_zero_is_no_sys(start_broker: StartBroker) -> None:
    assert sys_values(start_broker("sys_interval = 0\n").address) == {}


def test_it_outlives_no_restart(broker: BrokerProcess) -> None:
    wait_for_count(broker.address, "uptime", 0)
    broker.write_config("sys_interval = 0\n")
    broker.restart()
    assert sys_values(broker.address) == {}


def test_it_is_published_whatever_the_limits_for_clients_are(start_broker: StartBroker) -> None:
    broker = start_broker("max_topic_levels = 2\nmax_topic_length = 10\nmax_retained = 1\nmax_retained_bytes = 1024\n")
    with RawClient.connected(broker.address).subscribe(("$SYS/#", 0)) as client:
        client.send(PINGREQ)
        topics = set()
        while (data := client.next()) != PINGRESP:
            topics.add(parse_publish(data).topic.removeprefix("$SYS/broker/"))
    assert set(NAMES) <= topics


def test_groups_that_share_a_subscription_are_counted(broker: BrokerProcess) -> None:
    """Each once, however many members it has."""
    with (
        RawClient.connected(broker.address, "a").subscribe(("$share/g/t", 0), ("$share/h/t", 1)),
        RawClient.connected(broker.address, "b").subscribe(("$share/g/t", 0)),
    ):
        wait_for_sys(broker.address, "shared_subscriptions/count", 2)
    wait_for_sys(broker.address, "shared_subscriptions/count", 0)
