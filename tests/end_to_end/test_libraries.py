"""What MQTT is for, with libraries that programs use: MQTT.js in Node and in Chromium, aiomqtt, gmqtt; over TCP, TLS
and WebSocket. (paho-mqtt is in test_clients.py, test_tls.py and test_websocket.py.)"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple, Protocol

import pytest

from tests.broker_process import BrokerProcess
from tests.certificates import Authority
from tests.end_to_end.browser import Browser
from tests.end_to_end.driven import Client, Driver, node_driver, python_driver
from tests.raw_client import RawClient, Will

#: One broker, browser and process of each library for all: `pytest -n 2 --dist loadgroup`.
pytestmark = pytest.mark.xdist_group("libraries")

EVERY_QOS = [0, 1, 2]

DRIVERS: dict[str, Callable[[], Driver]] = {
    "node": node_driver,
    "chromium": lambda: Browser().first,
    "aiomqtt": partial(python_driver, "aiomqtt"),
    "gmqtt": partial(python_driver, "gmqtt"),
}


class Kind(NamedTuple):
    """A library as it connects."""

    library: str
    scheme: str
    version: str

    def __str__(self) -> str:
        return "-".join(self)


KINDS = [
    *(Kind("node", scheme, version) for scheme in ("mqtt", "mqtts", "ws", "wss") for version in ("3.1", "3.1.1")),
    *(Kind("chromium", scheme, version) for scheme in ("ws", "wss") for version in ("3.1", "3.1.1")),
    *(Kind("aiomqtt", scheme, version) for scheme in ("mqtt", "mqtts", "ws", "wss") for version in ("3.1", "3.1.1")),
    # gmqtt has neither WebSocket nor MQTT 3.1.
    Kind("gmqtt", "mqtt", "3.1.1"),
    Kind("gmqtt", "mqtts", "3.1.1"),
]


class Connect(Protocol):
    """Connects a client of the test's kind, in the driver that all tests share or in another."""

    def __call__(
        self, client_id: str, *, clean: bool = True, will: Will | None = None, driver: Driver | None = None
    ) -> Client: ...


@pytest.fixture(scope="module")
def broker(every_transport: BrokerProcess) -> BrokerProcess:
    return every_transport


@pytest.fixture(scope="module")
def drivers() -> Iterator[Callable[[str], Driver]]:
    """The driver of each library, started with its first test."""
    with contextlib.ExitStack() as stack:
        started: dict[str, Driver] = {}

        def of(library: str) -> Driver:
            if library not in started:
                started[library] = DRIVERS[library]()
                stack.callback(started[library].close)
            return started[library]

        yield of


@pytest.fixture(params=KINDS, ids=str)
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found


@pytest.fixture
def connect(kind: Kind, drivers: Callable[[str], Driver], broker: BrokerProcess, authority: Authority) -> Connect:
    host, port = broker.addresses[["mqtt", "mqtts", "ws", "wss"].index(kind.scheme)]
    # A page cannot bring authorities: its browser has been told to trust anybody.
    secure = kind.scheme in ("mqtts", "wss") and kind.library != "chromium"
    ca = authority.certificate.read_text() if secure else None

    def connect(
        client_id: str, *, clean: bool = True, will: Will | None = None, driver: Driver | None = None
    ) -> Client:
        return Client(
            driver or drivers(kind.library), f"{kind.scheme}://{host}:{port}/mqtt", f"{kind}/{client_id}",
            version=kind.version, clean=clean, will=will, ca=ca,
        )  # fmt: skip

    return connect


def test_messages_at_every_qos(kind: Kind, connect: Connect) -> None:
    topic = f"{kind}/every"
    with connect("author") as author, connect("reader") as reader:
        assert (author.code, author.present) in [(0, False), (0, None)]
        for granted in EVERY_QOS:
            assert reader.subscribe(topic, granted) == [granted]
            for qos in EVERY_QOS:
                for payload in ("", "grüße", "x" * 300_000 if qos == granted else "x"):
                    author.publish(topic, payload, qos)
                    message = reader.message()
                    assert message[:4] == (topic, payload.encode(), min(qos, granted), False)
        reader.nothing_else(topic)
        reader.subscribe(f"{topic}/+", 0)
        reader.unsubscribe(topic)
        author.publish(topic, "nobody's", 1)
        author.publish(f"{topic}/still", "x", 1)
        assert reader.message()[:3] == (f"{topic}/still", b"x", 0)


def test_a_retained_message(kind: Kind, connect: Connect) -> None:
    topic = f"{kind}/retained"
    with connect("author") as author:
        for qos in EVERY_QOS:
            author.publish(f"{topic}/{qos}", f"kept at {qos}", qos, retain=True)
        with connect("reader") as reader:
            reader.subscribe(f"{topic}/+", 2)
            came = {reader.message()[:4] for _ in EVERY_QOS}
            assert came == {(f"{topic}/{qos}", f"kept at {qos}".encode(), qos, True) for qos in EVERY_QOS}
            author.publish(f"{topic}/1", "", 1, retain=True)
            assert reader.message()[:4] == (f"{topic}/1", b"", 1, False)
        with connect("late") as late:
            late.subscribe(f"{topic}/1", 1)
            late.nothing_else(f"{topic}/1")


def test_what_waited_for_a_persistent_session(kind: Kind, connect: Connect) -> None:
    topic = f"{kind}/waiting"
    # In MQTT 3.1 there is no Session Present.
    present = {"aiomqtt": None}.get(kind.library, kind.version == "3.1.1")
    with connect("sleeper", clean=False) as sleeper:
        assert sleeper.present in (False, None)
        assert sleeper.subscribe(topic, 2) == [2]
    with connect("author") as author:
        for qos in EVERY_QOS:
            author.publish(topic, f"at {qos}", qos)
    with connect("sleeper", clean=False) as sleeper:
        assert sleeper.present == present
        assert [sleeper.message()[:3] for _ in range(2)] == [(topic, b"at 1", 1), (topic, b"at 2", 2)]
        sleeper.nothing_else(topic)
    with connect("sleeper") as sleeper:  # CleanSession = 1 forgets it
        assert sleeper.present in (False, None)
        sleeper.subscribe(f"{topic}/other", 0)
        sleeper.publish(topic, "nobody's", 1)
        sleeper.nothing_else(f"{topic}/other")


# Chromium's: test_browser.py
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.library != "chromium"], ids=str, indirect=True)
def test_the_will_of_a_program_that_is_killed(kind: Kind, connect: Connect, broker: BrokerProcess) -> None:
    topic = f"{kind}/will"
    will = Will(topic, b"gone", 1, True)
    with RawClient.connected(broker.address) as heir:
        heir.subscribe((topic, 2))
        driver = DRIVERS[kind.library]()
        try:
            connect("polite", will=will, driver=driver).close()
            connect("testator", will=will, driver=driver)
            heir.ping()  # who says DISCONNECT leaves no will
            driver.kill()
            assert heir.message()[:3] == (topic, b"gone", 1)
        finally:
            driver.close()
    with RawClient.connected(broker.address) as late:
        late.subscribe((topic, 0))
        assert late.message()[:4] == (topic, b"gone", 0, True)
