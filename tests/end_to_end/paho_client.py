"""A paho-mqtt client whose calls wait for their answer.

Owns: the threads and the waiting. Must not know: any broker.
"""

from __future__ import annotations

import contextlib
import queue
import socket
import ssl
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tests.raw_client import DEADLINE, Address, Publish, Will

PROTOCOLS = {
    "3.1": MQTTProtocolVersion.MQTTv31,
    "3.1.1": MQTTProtocolVersion.MQTTv311,
    "5": MQTTProtocolVersion.MQTTv5,
}


def properties_of(packet: int, **values: object) -> Properties:
    """As paho takes them: with its names, such as UserProperty=[("a", "b")]."""
    properties = Properties(packet)  # type: ignore[no-untyped-call]
    for name, value in values.items():
        setattr(properties, name, value)
    return properties


def let_go(client: paho.Client) -> None:
    """End the thread of a client that is disconnected, and close what paho would keep until the garbage collector comes
    by, in the midst of another test: two sockets."""
    client.loop_stop()
    with contextlib.suppress(ValueError):  # paho-mqtt 2.1 fails here, but only after it has closed them
        client.reinitialise()


class Paho:
    """A connected client; `with` disconnects it."""

    def __init__(
        self,
        address: Address | Path,
        client_id: str = "",
        *,
        version: str = "3.1.1",
        clean: bool = True,
        will: Will | None = None,
        username: str | None = None,
        password: str | None = None,
        transport: Literal["tcp", "websockets"] = "tcp",
        tls: ssl.SSLContext | None = None,
        properties: Properties | None = None,
        will_properties: Properties | None = None,
    ) -> None:
        """Connect (to a Unix socket, if `address` is its path), and wait for the CONNACK: `code` and `present` tell
        what it said. In version 5 a session that is not `clean` stays for a while, unless `properties` say how long."""
        self._messages: queue.Queue[tuple[Publish, dict[str, Any]]] = queue.Queue()
        self._answers: dict[int, list[int]] = {}
        self._changed = threading.Condition()
        self._connected = threading.Event()
        self._reading = threading.Event()
        self._reading.set()
        self.disconnected = threading.Event()
        self.code = -1
        self.present = False
        self.properties: dict[str, Any] = {}  #: of the message that was read last
        self.told: dict[str, Any] = {}  #: properties of the CONNACK
        client = self.client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id, clean_session=None if version == "5" else clean,
            protocol=PROTOCOLS[version], reconnect_on_failure=False,
            transport="unix" if isinstance(address, Path) else transport,
        )  # fmt: skip
        client.on_connect = self._on_connect
        client.on_message = self._on_message
        client.on_subscribe = self._on_subscribe
        client.on_unsubscribe = self._on_unsubscribe
        client.on_disconnect = self._on_disconnect
        if will is not None:
            client.will_set(will.topic, will.payload, will.qos, will.retain, will_properties)
        if username is not None:
            client.username_pw_set(username, password)
        if tls is not None:
            client.tls_set_context(tls)
        host, port = (str(address), 1883) if isinstance(address, Path) else address
        if version != "5":
            client.connect(host, port)
        else:
            if properties is None and not clean:
                properties = properties_of(PacketTypes.CONNECT, SessionExpiryInterval=100)
            client.connect(host, port, clean_start=clean, properties=properties)
        client.loop_start()
        assert self._connected.wait(DEADLINE)

    # What paho calls, on its thread:

    def _on_connect(self, client: paho.Client, data: Any, flags: Any, code: Any, properties: Any) -> None:
        self.code = 0 if code == "Success" else code.value
        self.present = flags.session_present
        self.told = properties.json() if properties is not None else {}
        self._connected.set()

    def _on_message(self, client: paho.Client, data: Any, message: paho.MQTTMessage) -> None:
        self._reading.wait(DEADLINE)
        came = Publish(
            message.topic, bytes(message.payload), message.qos, message.retain, bool(message.dup), message.mid
        )  # fmt: skip
        properties = message.properties
        self._messages.put((came, {} if properties is None else vars(properties)))

    def _on_subscribe(self, client: paho.Client, data: Any, mid: int, codes: list[Any], properties: Any) -> None:
        self._answer(mid, [code.value for code in codes])

    def _on_unsubscribe(self, client: paho.Client, data: Any, mid: int, codes: Any, properties: Any) -> None:
        self._answer(mid, [])

    def _on_disconnect(self, client: paho.Client, data: Any, flags: Any, code: Any, properties: Any) -> None:
        self._connected.set()
        self.disconnected.set()

    def _answer(self, mid: int, codes: list[int]) -> None:
        with self._changed:
            self._answers[mid] = codes
            self._changed.notify_all()

    def _wait(self, mid: int | None) -> list[int]:
        assert mid is not None
        with self._changed:
            assert self._changed.wait_for(lambda: mid in self._answers, DEADLINE)
            return self._answers.pop(mid)

    # What a test calls:

    def subscribe(self, *wanted: tuple[str, int]) -> list[int]:
        """The return codes."""
        return self._wait(self.client.subscribe(list(wanted))[1])

    def unsubscribe(self, *filters: str) -> None:
        self._wait(self.client.unsubscribe(list(filters))[1])

    def publish(
        self, topic: str, payload: bytes = b"", qos: int = 0, retain: bool = False, **properties: object
    ) -> None:
        """Publish, and wait until it is acknowledged."""
        more = properties_of(PacketTypes.PUBLISH, **properties) if properties else None
        info = self.client.publish(topic, payload, qos, retain, more)
        info.wait_for_publish(DEADLINE)
        assert info.is_published()

    def message(self) -> Publish:
        """The next message."""
        message, self.properties = self._messages.get(timeout=DEADLINE)
        return message

    def messages(self, count: int) -> list[Publish]:
        return [self.message() for _ in range(count)]

    def nothing_else(self, topic: str) -> None:
        """No message is on its way: one that is published to `topic`, which is subscribed to, is the next to come."""
        self.publish(topic, b"the end")
        assert self.message()[:2] == (topic, b"the end")

    def stop_reading(self) -> None:
        """Read no further than the next message, until `read_on`."""
        self._reading.clear()

    def read_on(self) -> None:
        self._reading.set()

    def drop(self) -> None:
        """End the connection without DISCONNECT."""
        sock = self.client.socket()
        sock = getattr(sock, "_socket", sock)  # of paho's wrapper for WebSocket
        assert isinstance(sock, socket.socket)
        sock.shutdown(socket.SHUT_RDWR)
        assert self.disconnected.wait(DEADLINE)
        let_go(self.client)

    def close(self) -> None:
        self.client.disconnect()
        let_go(self.client)

    def __enter__(self) -> Paho:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
