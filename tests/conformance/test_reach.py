"""The first contact: for each way in which it fails, the one line that says what to do."""

import socket

import pytest

from conformance.reach import reach
from conformance.target import Endpoint, TargetError, parse_url
from tests.conformance.faulty.broker import FaultyBroker
from tests.conformance.scripted_server import Script, answer, answer_and_close, serving

#: How long an answer is waited for that does not come, in seconds.
PATIENCE = 0.5

#: The same for one that comes: a busy machine changes nothing.
AMPLE_PATIENCE = 10.0


def why_not(endpoint: Endpoint, patience: float = AMPLE_PATIENCE) -> str:
    with pytest.raises(TargetError) as caught:
        reach(endpoint, patience)
    return str(caught.value)


def test_broker_that_can_be_judged() -> None:
    with FaultyBroker() as broker, broker.broker:
        reach(broker.broker.main, AMPLE_PATIENCE)


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"mqtt://127.0.0.1:{listener.getsockname()[1]}"
    assert why_not(parse_url(url)) == (
        f"no connection to {url}: Connection refused; "
        "start a broker there, or name another: python3 -m conformance HOST:PORT"
    )


def test_unknown_host() -> None:
    found = why_not(parse_url("mqtt://no-such-host.invalid"))
    assert found.startswith("there is no host 'no-such-host.invalid' (")
    assert found.endswith("): check how its name is spelt")


HTTP_ERROR = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize("script", [answer(HTTP_ERROR), answer_and_close(HTTP_ERROR)], ids=["stays", "closes"])
def test_web_server(script: Script) -> None:
    with serving(script, connections=2) as endpoint:
        assert why_not(endpoint, PATIENCE) == (
            f"{endpoint.url} is a web server: if it speaks MQTT over WebSocket, "
            f"name it as ws://127.0.0.1:{endpoint.port}/PATH"
        )


def test_silent_server() -> None:
    with serving(answer(), connections=2) as endpoint:
        assert why_not(endpoint, PATIENCE) == (
            f"{endpoint.url} does not answer an MQTT 3.1.1 CONNECT "
            "(nothing came from the broker in time, and the connection is open): is that an MQTT port?"
        )


def test_server_that_closes() -> None:
    with serving(answer_and_close(b""), connections=2) as endpoint:
        assert why_not(endpoint) == (
            f"{endpoint.url} does not answer an MQTT 3.1.1 CONNECT (the broker closed the connection (FIN)): "
            "is that an MQTT port?"
        )


def test_answer_is_no_connack() -> None:
    with serving(answer(b"\xd0\x00"), connections=2) as endpoint:
        assert why_not(endpoint) == (
            f"{endpoint.url} answers an MQTT 3.1.1 CONNECT with PINGRESP: is that an MQTT broker?"
        )


def test_refusal() -> None:
    with serving(answer(b"\x20\x02\x00\x03"), connections=2) as endpoint:
        assert why_not(endpoint).startswith(f"{endpoint.url} refuses an ordinary MQTT 3.1.1 CONNECT (CONNACK code 3")


@pytest.mark.parametrize(("user", "words"), [("", "wants credentials"), ("a:b@", "does not take these credentials")])
def test_credentials(user: str, words: str) -> None:
    with FaultyBroker() as broker, broker.broker:
        endpoint = broker.broker.endpoints["authenticated"]
        found = why_not(parse_url(f"mqtt://{user}127.0.0.1:{endpoint.port}"))
    assert found.startswith(f"{endpoint.url} {words} (CONNACK code ")
    assert found.endswith("): give --username NAME, and the password when asked (username and password in a profile)")


def test_web_server_that_knows_no_websocket() -> None:
    with serving(answer_and_close(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")) as endpoint:
        target = parse_url(f"ws://127.0.0.1:{endpoint.port}/x")
        assert why_not(target) == (
            f"{target.url} does not speak MQTT over WebSocket (the WebSocket handshake failed: "
            "server rejected WebSocket connection: HTTP 200): is '/x' the right path?"
        )


def test_websocket_that_never_answers() -> None:
    with serving(answer()) as endpoint:
        target = parse_url(f"ws://127.0.0.1:{endpoint.port}")
        assert why_not(target, PATIENCE) == (
            f"{target.url} does not answer in time: is something listening there, and is it for ws://?"
        )
