"""Pages with MQTT.js in a real browser, a headless Chromium: which may connect, and what becomes of their wills. (What
they do while they are connected is in test_libraries.py.)"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.broker_process import BrokerProcess, StartBroker
from tests.end_to_end.browser import Browser, Page
from tests.end_to_end.driven import Client, DriverError
from tests.raw_client import Will, publish
from tests.websocket_client import WebSocketClient

#: One browser for all: `pytest -n 2 --dist loadgroup`.
pytestmark = pytest.mark.xdist_group("browser")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    browser = Browser()
    yield browser
    browser.close()


def url(broker: BrokerProcess) -> str:
    return f"ws://127.0.0.1:{broker.address[1]}/mqtt"


def exchanges(page: Page, broker: BrokerProcess, client_id: str) -> bool:
    """Can the page connect? Then messages go to it, and come from it."""
    connections = len(broker.events("client connected"))
    try:
        client = Client(page, url(broker), client_id)
    except DriverError:
        assert connections == len(broker.events("client connected"))
        return False
    with client, WebSocketClient.connected(broker.address) as other:
        client.subscribe("to/page", 1)
        other.subscribe(("from/page", 0)).send(publish("to/page", b"hello"))
        assert client.message()[:2] == ("to/page", b"hello")
        client.publish("from/page", "good day", 2)
        assert other.message()[:2] == ("from/page", b"good day")
    return True


def test_pages_that_may_connect_if_none_are_listed(browser: Browser, start_broker: StartBroker) -> None:
    """Those of this machine."""
    broker = start_broker("websocket = true")
    assert exchanges(browser.first, broker, "first")
    stranger = browser.open("evil.test")
    assert not exchanges(stranger, broker, "stranger")
    (event,) = broker.wait_for("WebSocket refused")
    assert f'websocket_origins = ["http://evil.test:{browser.port}"]' in event["reason"]
    stranger.tell("close")


def test_a_name_that_was_led_here(browser: Browser, start_broker: StartBroker) -> None:
    """DNS rebinding: for the browser, page and broker are one host. Not on a loopback listener alone."""
    for options in ("", 'bind = "0.0.0.0"\nallow_anonymous = true\n'):
        broker = start_broker(options + "websocket = true")
        page = browser.open("evil.test")
        with pytest.raises(DriverError):
            Client(page, f"ws://evil.test:{broker.address[1]}/mqtt", "page")
        (event,) = broker.wait_for("WebSocket refused")
        assert "DNS rebinding" in event["reason"]
        page.tell("close")


def test_pages_that_are_listed(browser: Browser, start_broker: StartBroker) -> None:
    listed = f'websocket = true\nwebsocket_origins = ["http://app.test:{browser.port}"]'
    broker = start_broker(listed)
    app, stranger = browser.open("app.test"), browser.open("evil.test")
    assert not exchanges(stranger, broker, "stranger")
    assert exchanges(app, broker, "app")
    broker.reload(listed.replace("app.test", "other.test"))
    assert not exchanges(app, broker, "app")
    broker.reload('websocket = true\nwebsocket_origins = ["*"]')
    assert exchanges(app, broker, "app")
    assert exchanges(stranger, broker, "stranger")
    app.tell("close")
    stranger.tell("close")


def test_the_path(browser: Browser, start_broker: StartBroker) -> None:
    broker = start_broker('websocket = true\nwebsocket_path = "/elsewhere"')
    assert not exchanges(browser.first, broker, "first")
    broker.reload('websocket = true\nwebsocket_path = "/mqtt"')
    assert exchanges(browser.first, broker, "first")


@pytest.mark.parametrize("how", ["close", "leave"])
def test_the_will_of_a_tab_that_is_closed_and_of_a_page_that_is_left(
    how: str, browser: Browser, start_broker: StartBroker
) -> None:
    broker = start_broker("websocket = true")
    tab = browser.open()
    with WebSocketClient.connected(broker.address) as heir:
        heir.subscribe(("will", 2))
        Client(tab, url(broker), "polite", will=Will("will", b"none", 1)).close()
        Client(tab, url(broker), "testator", will=Will("will", b"gone", 1))
        tab.tell(how)
        assert heir.message()[:3] == ("will", b"gone", 1)
    tab.tell("close")


def test_the_will_of_a_browser_that_is_killed(start_broker: StartBroker) -> None:
    broker = start_broker("websocket = true")
    browser = Browser()
    try:
        with WebSocketClient.connected(broker.address) as heir:
            heir.subscribe(("will", 2))
            Client(browser.first, url(broker), "testator", will=Will("will", b"gone", 2, True))
            heir.ping()
            browser.kill()
            assert heir.message()[:3] == ("will", b"gone", 2)
    finally:
        browser.close()
