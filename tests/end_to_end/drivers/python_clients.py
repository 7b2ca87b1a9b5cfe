"""aiomqtt and gmqtt, driven by questions on standard input: as mqttjs.js drives MQTT.js, with the same questions.

    python python_clients.py aiomqtt|gmqtt

A process of its own, because the package gmqtt brings a top-level `tests`, which would hide ours: nothing of ours is
imported here.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import ssl
import sys
from collections.abc import Callable
from typing import Any, ClassVar, Protocol
from urllib.parse import SplitResult, urlsplit

Message = dict[str, Any]
Will = dict[str, Any]
Properties = dict[str, Any]  #: in the names of MQTT.js, see tests/end_to_end/driven.py


class Client(Protocol):
    """A connected client of a library."""

    async def connect(
        self, url: SplitResult, version: str, tls: ssl.SSLContext | None, properties: Properties | None
    ) -> dict[str, Any]: ...
    async def subscribe(self, topic_filter: str, qos: int, properties: Properties | None) -> list[int]: ...
    async def unsubscribe(self, topic_filter: str) -> None: ...
    async def publish(
        self, topic: str, payload: str, qos: int, retain: bool, properties: Properties | None
    ) -> None: ...
    async def message(self) -> Message: ...
    async def disconnect(self) -> None: ...


class Aiomqtt:
    def __init__(self, client_id: str, clean: bool, will: Will | None) -> None:
        import aiomqtt

        self._library = aiomqtt
        self._client_id = client_id
        self._clean = clean
        properties = None if will is None else self._taken("WILLMESSAGE", will.pop("properties", None))
        self._will = None if will is None else aiomqtt.Will(**will, properties=properties)

    @staticmethod
    def _taken(packet: str, properties: Properties | None) -> Any:
        from paho.mqtt.packettypes import PacketTypes
        from paho.mqtt.properties import Properties as Taken

        if properties is None:
            return None
        taken = Taken(getattr(PacketTypes, packet))  # type: ignore[no-untyped-call]
        for name, value in properties.items():
            if name == "userProperties":
                taken.UserProperty = [(key, each) for key, values in value.items() for each in values]
            else:
                setattr(taken, name[0].upper() + name[1:], value.encode() if name == "correlationData" else value)
        return taken

    @staticmethod
    def _given(properties: Any) -> Properties:
        found: Properties = {}
        for name, value in ({} if properties is None else vars(properties)).items():
            if name == "UserProperty":
                pairs: dict[str, list[str]] = {}
                for key, each in value:
                    pairs.setdefault(key, []).append(each)
                found["userProperties"] = pairs
            elif name not in ("packetType", "types", "names", "properties"):
                found[name[0].lower() + name[1:]] = value.decode() if name == "CorrelationData" else value
        return found

    async def connect(
        self, url: SplitResult, version: str, tls: ssl.SSLContext | None, properties: Properties | None
    ) -> dict[str, Any]:
        assert url.hostname is not None
        assert url.port is not None
        versions = self._library.ProtocolVersion
        if version == "5":
            how = {"clean_start": self._clean, "properties": self._taken("CONNECT", properties)}
        else:
            how = {"clean_session": self._clean}
        self._client = self._library.Client(
            url.hostname, url.port, identifier=self._client_id, will=self._will, **how,
            protocol={"3.1": versions.V31, "3.1.1": versions.V311, "5": versions.V5}[version],
            transport="websockets" if url.scheme.startswith("ws") else "tcp", tls_context=tls,
        )  # fmt: skip
        await self._client.__aenter__()
        self._messages = aiter(self._client.messages)
        return {"code": 0, "present": None}  # it does not tell

    async def subscribe(self, topic_filter: str, qos: int, properties: Properties | None) -> list[int]:
        codes = await self._client.subscribe(topic_filter, qos, properties=self._taken("SUBSCRIBE", properties))
        return [code if isinstance(code, int) else code.value for code in codes]

    async def unsubscribe(self, topic_filter: str) -> None:
        await self._client.unsubscribe(topic_filter)

    async def publish(self, topic: str, payload: str, qos: int, retain: bool, properties: Properties | None) -> None:
        await self._client.publish(topic, payload, qos, retain, self._taken("PUBLISH", properties))

    async def message(self) -> Message:
        message = await anext(self._messages)
        assert isinstance(message.payload, bytes)
        return {
            "topic": str(message.topic), "payload": message.payload.decode(), "qos": message.qos,
            "retain": bool(message.retain), "dup": False, "properties": self._given(message.properties),
        }  # fmt: skip

    async def disconnect(self) -> None:
        await self._client.__aexit__(None, None, None)


class Gmqtt:
    def __init__(self, client_id: str, clean: bool, will: Will | None) -> None:
        import gmqtt  # type: ignore[import-not-found]  # tests/install_clients.py puts it where nobody else looks

        self._library = gmqtt
        self._client_id = client_id
        self._clean = clean
        self._will = will
        self._present: asyncio.Future[bool] = asyncio.Future()
        self._messages: asyncio.Queue[Message] = asyncio.Queue()
        self._answers: dict[int, asyncio.Future[list[int]]] = {}

    #: Where its names are not those of MQTT.js in another spelling.
    _NAMES: ClassVar = {"userProperties": "user_property", "payloadFormatIndicator": "payload_format_id"}

    def _taken(self, properties: Properties | None) -> dict[str, Any]:
        taken = {}
        for name, value in (properties or {}).items():
            if name == "userProperties":
                value = [(key, each) for key, values in value.items() for each in values]
            elif name == "correlationData":
                value = value.encode()
            elif name == "payloadFormatIndicator":
                value = int(value)
            taken[self._NAMES.get(name) or re.sub("([A-Z])", r"_\1", name).lower()] = value
        return taken

    def _given(self, properties: dict[str, Any]) -> Properties:
        """All values come as lists."""
        found: Properties = {}
        names = {ours: name for name, ours in self._NAMES.items()}
        for name, values in properties.items():
            if name in ("retain", "dup"):
                continue
            key = names.get(name) or re.sub("_(.)", lambda match: match[1].upper(), name)
            if name == "user_property":
                pairs: dict[str, list[str]] = {}
                for first, second in values:
                    pairs.setdefault(first, []).append(second)
                found[key] = pairs
            elif name == "subscription_identifier":
                found[key] = values
            else:
                found[key] = values[0].decode() if isinstance(values[0], bytes) else values[0]
        return found

    def _make(self, properties: Properties | None) -> None:
        will = None
        if self._will is not None:
            more = self._taken(self._will.pop("properties", None))
            will = self._library.Message(**self._will, **more)
        self._client = client = self._library.Client(
            self._client_id, clean_session=self._clean, will_message=will, **self._taken(properties)
        )
        client.set_config({"reconnect_retries": 0})
        client.on_connect = lambda client, flags, code, properties: self._present.set_result(bool(flags))
        client.on_message = self._on_message
        client.on_subscribe = lambda client, mid, codes, properties: self._answers[mid].set_result(list(codes))
        client.on_unsubscribe = lambda client, mid, codes: self._answers[mid].set_result([])

    def _on_message(self, client: Any, topic: str, payload: bytes, qos: int, properties: dict[str, Any]) -> int:
        self._messages.put_nowait(
            {"topic": topic, "payload": payload.decode(), "qos": qos,
             "retain": bool(properties["retain"]), "dup": bool(properties["dup"]),
             "properties": self._given(properties)}
        )  # fmt: skip
        return 0

    async def connect(
        self, url: SplitResult, version: str, tls: ssl.SSLContext | None, properties: Properties | None
    ) -> dict[str, Any]:
        self._make(properties)
        await self._client.connect(url.hostname, url.port, ssl=tls or False, version={"3.1.1": 4, "5": 5}[version])
        return {"code": 0, "present": await self._present}

    async def _answer(self, mid: int) -> list[int]:
        self._answers[mid] = asyncio.Future()
        return await self._answers[mid]

    async def subscribe(self, topic_filter: str, qos: int, properties: Properties | None) -> list[int]:
        return await self._answer(self._client.subscribe(topic_filter, qos, **self._taken(properties)))

    async def unsubscribe(self, topic_filter: str) -> None:
        await self._answer(self._client.unsubscribe(topic_filter))

    async def publish(self, topic: str, payload: str, qos: int, retain: bool, properties: Properties | None) -> None:
        self._client.publish(topic, payload, qos, retain, **self._taken(properties))
        await self._client._persistent_storage.wait_empty()

    async def message(self) -> Message:
        return await self._messages.get()

    async def disconnect(self) -> None:
        await self._client.disconnect()


async def main(library: Callable[[str, bool, Will | None], Client]) -> None:
    clients: dict[str, Client] = {}

    async def perform(do: str, client: str, **rest: Any) -> object:
        if do == "connect":
            ca = rest["ca"]
            tls = None if ca is None else ssl.create_default_context(cadata=ca)
            clients[client] = library(client, rest["clean"], rest["will"])
            return await clients[client].connect(urlsplit(rest["url"]), rest["version"], tls, rest["properties"])
        if do == "subscribe":
            return await clients[client].subscribe(rest["filter"], rest["qos"], rest["properties"])
        if do == "unsubscribe":
            rest = {"topic_filter": rest["filter"]}
        return await getattr(clients[client], do)(**rest)

    async def answer(number: int, **question: Any) -> None:
        try:
            found = {"answer": await perform(**question)}
        except Exception as error:
            found = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps({"number": number, **found}), flush=True)

    tasks = set()
    while line := await asyncio.to_thread(sys.stdin.readline):
        task = asyncio.create_task(answer(**json.loads(line)))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    for task in tasks:
        task.cancel()


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        asyncio.run(main(Aiomqtt if sys.argv[1] == "aiomqtt" else Gmqtt))
