"""paho-mqtt with SCRAM. It can send the properties of enhanced authentication in CONNECT and read those of CONNACK, but
takes an AUTH packet for an error, and has no call that sends one: that is added here.

Owns: AUTH for paho. Must not know: any broker.
"""

from __future__ import annotations

import queue
from types import TracebackType
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MessageType, MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tests.end_to_end.paho_client import let_go
from tests.raw_auth import CONTINUE, auth, parse
from tests.raw_client import DEADLINE, Address, packet
from tests.scram_client import ScramClient


class _Client(paho.Client):
    scram: ScramClient
    method: str

    def _packet_handle(self) -> MQTTErrorCode:
        if self._in_packet["command"] & 0xF0 != MessageType.AUTH:
            return super()._packet_handle()
        challenge = parse(packet(0xF0, bytes(self._in_packet["packet"])))
        assert (challenge.reason, challenge.method) == (CONTINUE, self.method)
        raw = auth(CONTINUE, self.method, self.scram.final(challenge.data))
        return self._packet_queue(MessageType.AUTH, bytearray(raw), 0, 0)


class ScramPaho:
    """A connected client; `with` disconnects it."""

    def __init__(self, address: Address, client_id: str, method: str, username: str, password: str) -> None:
        client = self.client = _Client(CallbackAPIVersion.VERSION2, client_id, protocol=paho.MQTTv5)
        client.scram, client.method = ScramClient(method, username, password), method
        self._came: queue.Queue[Any] = queue.Queue()
        client.on_connect = lambda _client, _data, _flags, code, properties: self._came.put((code, properties))
        client.on_subscribe = lambda _client, _data, _id, codes, _properties: self._came.put(codes)
        client.on_message = lambda _client, _data, message: self._came.put((message.topic, message.payload))
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.AuthenticationMethod = method
        properties.AuthenticationData = client.scram.first()
        client.connect(*address, properties=properties)
        client.loop_start()
        code, told = self.next()
        assert (code.value, told.AuthenticationMethod) == (0, method)
        client.scram.check(told.AuthenticationData)

    def next(self) -> Any:
        return self._came.get(timeout=DEADLINE)

    def subscribe(self, topic: str) -> None:
        self.client.subscribe(topic)
        assert [code.value for code in self.next()] == [0]

    def publish(self, topic: str, payload: bytes) -> None:
        self.client.publish(topic, payload)

    def __enter__(self) -> ScramPaho:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.client.disconnect()
        let_go(self.client)
