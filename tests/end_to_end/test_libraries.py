"""What MQTT is for, with libraries that programs use: MQTT.js in Node and in Chromium, aiomqtt, gmqtt; over TCP, TLS
and WebSocket. (paho-mqtt is in test_clients.py, test_tls.py and test_websocket.py.)"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple, Protocol

import pytest

from tests.broker_process import BrokerProcess
from tests.certificates import Authority
from tests.end_to_end.browser import Browser
from tests.end_to_end.driven import Client, Driver, Properties, node_driver, python_driver
from tests.raw_client import RawClient, Will
from tests.raw_client_5 import Client5, P

#: One broker, browser and process of each library for all: `pytest -n 2 --dist loadgroup`.
pytestmark = pytest.mark.xdist_group("libraries")

EVERY_QOS = [0, 1, 2]

STAYS: Properties = {"sessionExpiryInterval": 100}

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


def _kinds(library: str, schemes: tuple[str, ...], versions: tuple[str, ...]) -> list[Kind]:
    """Each way in each version; but MQTT 3.1, which is as 3.1.1 for a library, only by the first."""
    return [
        Kind(library, scheme, version)
        for scheme in schemes
        for version in versions
        if version != "3.1" or scheme == schemes[0]
    ]


KINDS = [
    *_kinds("node", ("mqtt", "mqtts", "ws", "wss"), ("3.1", "3.1.1", "5")),
    *_kinds("chromium", ("ws", "wss"), ("3.1", "3.1.1", "5")),
    *_kinds("aiomqtt", ("mqtt", "mqtts", "ws", "wss"), ("3.1", "3.1.1", "5")),
    *_kinds("gmqtt", ("mqtt", "mqtts"), ("3.1.1", "5")),  # it has neither WebSocket nor MQTT 3.1
]

#: Each library once, for what MQTT 5.0 alone has.
OF_5 = pytest.mark.parametrize(
    "kind", [Kind(name, "ws" if name == "chromium" else "mqtt", "5") for name in DRIVERS], ids=str, indirect=True
)


class Connect(Protocol):
    """Connects a client of the test's kind, in the driver that all tests share or in another."""

    def __call__(
        self,
        client_id: str,
        *,
        clean: bool = True,
        will: Will | None = None,
        driver: Driver | None = None,
        properties: Properties | None = None,
        will_properties: Properties | None = None,
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
        client_id: str,
        *,
        clean: bool = True,
        will: Will | None = None,
        driver: Driver | None = None,
        properties: Properties | None = None,
        will_properties: Properties | None = None,
    ) -> Client:
        if kind.version == "5" and not clean and properties is None:
            properties = STAYS
        return Client(
            driver or drivers(kind.library), f"{kind.scheme}://{host}:{port}/mqtt", f"{kind}/{client_id}",
            version=kind.version, clean=clean, will=will, ca=ca,
            properties=properties, will_properties=will_properties,
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
    present = {"aiomqtt": None}.get(kind.library, kind.version != "3.1")
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


# --- of MQTT 5.0 alone ---

PROPERTIES: Properties = {
    "payloadFormatIndicator": True,
    "contentType": "text/grün",
    "responseTopic": "answers/here",
    "correlationData": "asked at 12",
    "userProperties": {"colour": ["green"], "size": ["1", "2"]},
}


@OF_5
def test_properties_go_to_a_library_and_come_from_it(kind: Kind, connect: Connect, broker: BrokerProcess) -> None:
    topic = f"{kind}/properties"
    with connect("both") as client, Client5.open(broker.address) as raw:
        client.subscribe(topic, 2, {"subscriptionIdentifier": 300})
        raw.ask((topic, 2))
        for qos in EVERY_QOS:
            client.publish(topic, "x", qos, properties=PROPERTIES)
            came = raw.take()
            assert came.properties.pop(P.USER).count(("size", "2")) == 1
            assert came.properties == {
                P.PAYLOAD_FORMAT: 1,
                P.CONTENT_TYPE: "text/grün",
                P.RESPONSE_TOPIC: "answers/here",
                P.CORRELATION_DATA: b"asked at 12",
            }
            assert client.message()[:3] == (topic, b"x", qos)
            assert client.properties.pop("payloadFormatIndicator") in (True, 1)
            assert client.properties == {
                **{name: value for name, value in PROPERTIES.items() if name != "payloadFormatIndicator"},
                "subscriptionIdentifier": [300],
            }


@OF_5
def test_a_message_that_has_waited_has_less_time_left(kind: Kind, connect: Connect) -> None:
    topic = f"{kind}/expiry"
    with connect("sleeper", clean=False) as sleeper:
        sleeper.subscribe(topic, 1)
    with connect("author") as author:
        for seconds in (1, 100):
            author.publish(topic, f"for {seconds} s", 1, properties={"messageExpiryInterval": seconds})
    time.sleep(2.2)
    with connect("sleeper", clean=False) as sleeper:
        assert sleeper.message()[:2] == (topic, b"for 100 s")
        assert 50 < sleeper.properties["messageExpiryInterval"] < 100


@OF_5
def test_a_session_that_expires(kind: Kind, connect: Connect) -> None:
    topic = f"{kind}/expiring"
    for seconds, stays in ((1, False), (100, True)):
        with connect("expiring", clean=False, properties={"sessionExpiryInterval": seconds}) as client:
            client.subscribe(topic, 1)
        time.sleep(2.2)
        with connect("expiring", clean=False, properties={"sessionExpiryInterval": 0}) as client:
            assert client.present in (None, stays)
            client.publish(topic, "x", 1)
            if stays:
                assert client.message()[:2] == (topic, b"x")
            client.subscribe(f"{topic}/end", 0)
            client.nothing_else(f"{topic}/end")


@OF_5
def test_a_shared_subscription(kind: Kind, connect: Connect) -> None:
    topic = f"{kind}/shared"
    with connect("author") as author, connect("one") as one, connect("two") as two:
        for member in (one, two):
            assert member.subscribe(f"$share/group/{topic}", 1) == [1]
            member.subscribe(f"{topic}/end", 0)
        for number in range(6):
            author.publish(topic, f"{number}", 1)
        came = [member.message().payload for member in (one, two) for _ in range(3)]
        assert sorted(came) == [b"%d" % number for number in range(6)]
        for member in (one, two):
            member.nothing_else(f"{topic}/end")
            break  # the other one has read that, too


@OF_5
def test_a_request_and_its_response(kind: Kind, connect: Connect) -> None:
    topic = f"{kind}/rr"
    with connect("server") as server, connect("client") as client:
        server.subscribe(f"{topic}/requests", 1)
        client.subscribe(f"{topic}/responses", 1)
        asked = {"responseTopic": f"{topic}/responses", "correlationData": "number 7"}
        client.publish(f"{topic}/requests", "what time is it", 1, properties=asked)
        assert server.message().payload == b"what time is it"
        where = server.properties["responseTopic"]
        server.publish(where, "late", 1, properties={"correlationData": server.properties["correlationData"]})
        assert client.message()[:2] == (f"{topic}/responses", b"late")
        assert client.properties == {"correlationData": "number 7"}


@OF_5
def test_topic_aliases_of_a_library(kind: Kind, connect: Connect, broker: BrokerProcess) -> None:
    topic = f"{kind}/alias"
    with connect("author") as author, Client5.open(broker.address) as raw:
        raw.ask((topic, 1))
        for name in (topic, ""):
            author.publish(name, "x", 1, properties={"topicAlias": 1})
            came = raw.take()
            assert (came.topic, came.payload, came.properties) == (topic, b"x", {})


# (aiomqtt knows no aliases of the broker's.)
@pytest.mark.parametrize(
    "kind", [Kind("node", "mqtt", "5"), Kind("chromium", "ws", "5"), Kind("gmqtt", "mqtt", "5")], ids=str, indirect=True
)
def test_topic_aliases_for_a_library(kind: Kind, connect: Connect) -> None:
    topic = f"{kind}/alias"
    with connect("author") as author, connect("reader", properties={"topicAliasMaximum": 3}) as reader:
        reader.subscribe(f"{topic}/+", 1)
        for number in range(40):
            author.publish(f"{topic}/{number % 4}", f"{number}", number % 2)
            assert reader.message()[:2] == (f"{topic}/{number % 4}", b"%d" % number)


@pytest.mark.parametrize(
    "kind", [Kind(name, "mqtt", "5") for name in DRIVERS if name != "chromium"], ids=str, indirect=True
)
def test_a_will_with_a_delay(kind: Kind, connect: Connect, broker: BrokerProcess) -> None:
    topic = f"{kind}/late will"
    properties: Properties = {"willDelayInterval": 1, "contentType": "text", "userProperties": {"a": ["b"]}}
    with Client5.open(broker.address) as heir:
        heir.ask((topic, 1))
        driver = DRIVERS[kind.library]()
        try:
            connect("testator", clean=False, will=Will(topic, b"gone", 1), will_properties=properties, driver=driver)
            driver.kill()
            since = time.monotonic()
            came = heir.take()
            assert (came.topic, came.payload) == (topic, b"gone")
            assert came.properties == {P.CONTENT_TYPE: "text", P.USER: [("a", "b")]}
            assert time.monotonic() - since > 0.5
        finally:
            driver.close()
