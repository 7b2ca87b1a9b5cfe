"""aiomqtt and gmqtt, driven by questions on standard input: as mqttjs.js drives MQTT.js, with the same questions.

    python python_clients.py aiomqtt|gmqtt

A process of its own, because the package gmqtt brings a top-level `tests`, which would hide ours: nothing of ours is
imported here.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import sys
from collections.abc import Callable
from typing import Any, Protocol
from urllib.parse import SplitResult, urlsplit

Message = dict[str, Any]
Will = dict[str, Any]


class Client(Protocol):
    """A connected client of a library."""

    async def connect(self, url: SplitResult, version: str, tls: ssl.SSLContext | None) -> dict[str, Any]: ...
    async def subscribe(self, topic_filter: str, qos: int) -> list[int]: ...
    async def unsubscribe(self, topic_filter: str) -> None: ...
    async def publish(self, topic: str, payload: str, qos: int, retain: bool) -> None: ...
    async def message(self) -> Message: ...
    async def disconnect(self) -> None: ...


class Aiomqtt:
    def __init__(self, client_id: str, clean: bool, will: Will | None) -> None:
        import aiomqtt

        self._library = aiomqtt
        self._client_id = client_id
        self._clean = clean
        self._will = None if will is None else aiomqtt.Will(**will)

    async def connect(self, url: SplitResult, version: str, tls: ssl.SSLContext | None) -> dict[str, Any]:
        assert url.hostname is not None
        assert url.port is not None
        self._client = self._library.Client(
            url.hostname, url.port, identifier=self._client_id, clean_session=self._clean, will=self._will,
            protocol=self._library.ProtocolVersion.V31 if version == "3.1" else self._library.ProtocolVersion.V311,
            transport="websockets" if url.scheme.startswith("ws") else "tcp", tls_context=tls,
        )  # fmt: skip
        await self._client.__aenter__()
        self._messages = aiter(self._client.messages)
        return {"code": 0, "present": None}  # it does not tell

    async def subscribe(self, topic_filter: str, qos: int) -> list[int]:
        codes = await self._client.subscribe(topic_filter, qos)
        return [code if isinstance(code, int) else code.value for code in codes]

    async def unsubscribe(self, topic_filter: str) -> None:
        await self._client.unsubscribe(topic_filter)

    async def publish(self, topic: str, payload: str, qos: int, retain: bool) -> None:
        await self._client.publish(topic, payload, qos, retain)

    async def message(self) -> Message:
        message = await anext(self._messages)
        assert isinstance(message.payload, bytes)
        return {
            "topic": str(message.topic), "payload": message.payload.decode(), "qos": message.qos,
            "retain": bool(message.retain), "dup": False,
        }  # fmt: skip

    async def disconnect(self) -> None:
        await self._client.__aexit__(None, None, None)


class Gmqtt:
    def __init__(self, client_id: str, clean: bool, will: Will | None) -> None:
        import gmqtt  # type: ignore[import-not-found]  # tests/install_clients.py puts it where nobody else looks

        self._client = client = gmqtt.Client(
            client_id, clean_session=clean, will_message=None if will is None else gmqtt.Message(**will)
        )
        self._present: asyncio.Future[bool] = asyncio.Future()
        self._messages: asyncio.Queue[Message] = asyncio.Queue()
        self._answers: dict[int, asyncio.Future[list[int]]] = {}
        client.on_connect = lambda client, flags, code, properties: self._present.set_result(bool(flags))
        client.on_message = self._on_message
        client.on_subscribe = lambda client, mid, codes, properties: self._answers[mid].set_result(list(codes))
        client.on_unsubscribe = lambda client, mid, codes: self._answers[mid].set_result([])

    def _on_message(self, client: Any, topic: str, payload: bytes, qos: int, properties: dict[str, Any]) -> int:
        self._messages.put_nowait(
            {"topic": topic, "payload": payload.decode(), "qos": qos,
             "retain": bool(properties["retain"]), "dup": bool(properties["dup"])}
        )  # fmt: skip
        return 0

    async def connect(self, url: SplitResult, version: str, tls: ssl.SSLContext | None) -> dict[str, Any]:
        assert version == "3.1.1"
        await self._client.connect(url.hostname, url.port, ssl=tls or False, version=4)
        return {"code": 0, "present": await self._present}

    async def _answer(self, mid: int) -> list[int]:
        self._answers[mid] = asyncio.Future()
        return await self._answers[mid]

    async def subscribe(self, topic_filter: str, qos: int) -> list[int]:
        return await self._answer(self._client.subscribe(topic_filter, qos))

    async def unsubscribe(self, topic_filter: str) -> None:
        await self._answer(self._client.unsubscribe(topic_filter))

    async def publish(self, topic: str, payload: str, qos: int, retain: bool) -> None:
        self._client.publish(topic, payload, qos, retain)
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
            return await clients[client].connect(urlsplit(rest["url"]), rest["version"], tls)
        if do == "subscribe":
            return await clients[client].subscribe(rest["filter"], rest["qos"])
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
