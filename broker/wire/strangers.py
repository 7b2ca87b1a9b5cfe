"""What came instead of the protocol that a listener speaks, and what to do about it.

Owns: how other protocols begin, and what people are told then. Must not know: listeners, how the right protocol is
read.
"""

_METHODS = b"GET POST PUT HEAD OPTIONS DELETE PATCH TRACE CONNECT PRI"
#: How connections begin.
_BEGINNINGS = (
    (b"\x16\x03", "TLS"),
    (b"PROXY ", "PROXY"),
    (b"\r\n\r\n\0\r\nQUIT\n", "PROXY"),
    (b"SSH-", "SSH"),
    (b"AMQP", "AMQP"),
    *((method + b" ", "HTTP") for method in _METHODS.split()),
)
# A Remaining Length stands before these.
_MQTT_NAMES = (b"\0\4MQTT", b"\0\6MQIsdp")

#: By what a listener speaks, and by what came.
_ADVICE = {
    "MQTT": {
        "HTTP": "browsers need a listener with websocket = true",
        "TLS": "use TLS at both ends, or at neither; this listener has no certificate",
    },
    "TLS": {
        "MQTT": "clients must use TLS (mqtts://) on this listener",
        "HTTP": "clients must use TLS (https://, wss://) on this listener",
    },
    "HTTP": {
        "MQTT": "clients must use WebSocket (ws://) on this listener, or another one without websocket = true",
        "TLS": "use wss:// with a certificate for this listener, or ws:// and none",
    },
}
_ELSEWHERE = {
    "PROXY": "name the proxy in proxy_protocol of this listener, or turn the header off in the proxy",
    "SSH": "that is another service",
    "AMQP": "that is another protocol",
}
_NAMES = {"PROXY": "a header of the PROXY protocol"}
_WITHOUT = {("TLS", "MQTT"): " without TLS", ("TLS", "HTTP"): " without TLS", ("HTTP", "MQTT"): " without WebSocket"}


def explain(data: bytes, wanted: str) -> str:
    """What a connection is that begins like this, and what to do; "" if nobody knows. `wanted`: what the listener
    speaks, "MQTT", "TLS" or "HTTP" (of which WebSocket is made)."""
    found = recognise(data)
    if not found or found == wanted:
        return ""
    advice = _ADVICE[wanted].get(found) or _ELSEWHERE[found]
    return f"this is {_NAMES.get(found, found)}{_WITHOUT.get((wanted, found), '')}: {advice}"


def recognise(data: bytes) -> str:
    """The name of a protocol, "" if it is none that is known. Two bytes are enough."""
    if data[:1] == b"\x10" and any(name.startswith(_behind_length(data)[: len(name)]) for name in _MQTT_NAMES):
        return "MQTT"
    if len(data) < 2:
        return ""
    return next((name for begin, name in _BEGINNINGS if begin.startswith(data[: len(begin)])), "")


def _behind_length(data: bytes) -> bytes:
    """What follows the fixed header of an MQTT packet."""
    position = 1
    while position < min(len(data), 5) and data[position] & 128:
        position += 1
    return data[position + 1 :]
