"""Other protocols are called what they are, however little of them has come."""

from __future__ import annotations

import pytest

from broker.wire.codes import ProtocolError
from broker.wire.decoder import Decoder
from broker.wire.strangers import explain, recognise
from tests.raw_client import connect

#: The beginnings of real connections.
BEGINNINGS = {
    "GET": (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP"),
    "POST": (b"POST /mqtt HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", "HTTP"),
    "PUT": (b"PUT /a HTTP/1.1\r\n\r\n", "HTTP"),
    "HEAD": (b"HEAD / HTTP/1.0\r\n\r\n", "HTTP"),
    "OPTIONS": (b"OPTIONS * HTTP/1.1\r\n\r\n", "HTTP"),
    "DELETE": (b"DELETE /a HTTP/1.1\r\n\r\n", "HTTP"),
    "PATCH": (b"PATCH /a HTTP/1.1\r\n\r\n", "HTTP"),
    "TRACE": (b"TRACE / HTTP/1.1\r\n\r\n", "HTTP"),
    "CONNECT": (b"CONNECT example.com:443 HTTP/1.1\r\n\r\n", "HTTP"),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP"),
    "TLS 1.2": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "TLS"),
    "PROXY 1": (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", "PROXY"),
    "PROXY 2": (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c", "PROXY"),
    "SSH": (b"SSH-2.0-OpenSSH_9.2\r\n", "SSH"),
    "AMQP": (b"AMQP\0\0\x09\x01", "AMQP"),
    "MQTT": (connect("c"), "MQTT"),
    "MQTT 3.1": (connect("c", name=b"MQIsdp", level=3), "MQTT"),
    "a long CONNECT": (connect("c" * 300), "MQTT"),
    "words": (b"hello there", ""),
    "zeros": (bytes(20), ""),
    "nothing": (b"", ""),
}
EACH = pytest.mark.parametrize(("data", "name"), BEGINNINGS.values(), ids=BEGINNINGS)


@EACH
def test_each_is_recognised(data: bytes, name: str) -> None:
    assert recognise(data) == name
    assert recognise(data[:32]) == name


@EACH
def test_what_is_the_right_protocol_is_none_of_the_others(data: bytes, name: str) -> None:
    for wanted in ("MQTT", "TLS", "HTTP"):
        said = explain(data, wanted)
        assert bool(said) is (name not in ("", wanted))
        assert said == "" or said.startswith("this is ")


@EACH
def test_the_decoder_keeps_enough_of_it_however_it_comes(data: bytes, name: str) -> None:
    """What begins with P is like PUBREC."""
    for piece in (1, 2, 3, 100):
        if piece < 3 and name == "HTTP" and data.startswith(b"PRI"):
            continue  # of PRI and PROXY, two bytes are the same
        decoder = Decoder(1 << 20)
        error = None
        for i in range(0, len(data), piece):
            decoder.feed(data[i : i + piece])
            try:
                decoder.decode(1)
            except ProtocolError as raised:
                error = raised
                break
        if name == "":
            continue
        assert (error is None) is (name == "MQTT")
        assert recognise(decoder.offending) == ("" if name == "MQTT" else name)


def test_it_says_what_to_do() -> None:
    assert explain(b"GET / HTTP/1.1", "MQTT") == "this is HTTP: browsers need a listener with websocket = true"
    assert explain(b"\x16\x03\x01", "MQTT") == (
        "this is TLS: use TLS at both ends, or at neither; this listener has no certificate"
    )
    assert explain(connect(), "TLS") == "this is MQTT without TLS: clients must use TLS (mqtts://) on this listener"
    assert explain(connect(), "HTTP") == (
        "this is MQTT without WebSocket: clients must use WebSocket (ws://) on this listener, or another one without"
        " websocket = true"
    )
    assert explain(b"\x16\x03\x01", "HTTP") == (
        "this is TLS: use wss:// with a certificate for this listener, or ws:// and none"
    )
