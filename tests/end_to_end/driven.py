"""Clients of libraries that live elsewhere, driven by questions and answers in JSON: MQTT.js in Node or in a page,
aiomqtt, gmqtt. What answers is in drivers/.

Owns: questions and their answers, the process that answers on its standard output, a client whose calls are questions.
Must not know: any broker.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from tests import install_clients
from tests.raw_client import Publish, Will

#: Seconds until an answer must have come. The first one waits until the driver has started.
PATIENCE = 60.0


#: Properties of MQTT 5.0 in questions and answers, with the names of MQTT.js, such as {"contentType": "text"}. User
#: properties are lists by their names; a subscription identifier that comes is a list, too.
Properties = dict[str, Any]


class DriverError(Exception):
    """The library raised this."""


class Driver:
    """Asks, and waits for the answer."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._answers: dict[int, dict[str, Any]] = {}
        self._changed = threading.Condition()
        self._gone = False

    def send(self, question: dict[str, Any]) -> None:
        """Hand it to whatever answers."""
        raise NotImplementedError

    def answered(self, answer: dict[str, Any]) -> None:
        """An answer has come."""
        with self._changed:
            self._answers[answer["number"]] = answer
            self._changed.notify_all()

    def gone(self) -> None:
        """No answer will come any more."""
        with self._changed:
            self._gone = True
            self._changed.notify_all()

    def tell(self, do: str, **arguments: object) -> None:
        """Do not wait for the answer."""
        self.send({"number": next(self._numbers), "do": do, **arguments})

    def ask(self, do: str, **arguments: object) -> Any:
        """The answer. An error there is a DriverError here."""
        number = next(self._numbers)
        self.send({"number": number, "do": do, **arguments})
        with self._changed:
            self._changed.wait_for(lambda: number in self._answers or self._gone, PATIENCE)
            assert number in self._answers, f"no answer to {do} {arguments}" + ": the driver has ended" * self._gone
            answer = self._answers.pop(number)
        if "error" in answer:
            raise DriverError(f"{do} {arguments}: {answer['error']}")
        return answer["answer"]

    def kill(self) -> None:
        """kill -9, so that its clients can say nothing more."""
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


class ProcessDriver(Driver):
    """A program that reads questions from its standard input, and ends with that."""

    def __init__(self, command: Sequence[str], environ: Mapping[str, str]) -> None:
        super().__init__()
        install_clients.require()
        program = shutil.which(command[0])
        assert program is not None, f"{command[0]} is missing: install it (Debian: sudo apt-get install nodejs)"
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **environ}
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.answered(json.loads(line))
        self.gone()

    def send(self, question: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()

    def kill(self) -> None:
        self._process.kill()
        self.close()

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise
        finally:
            self._reader.join(PATIENCE)
            self._process.stdout.close()


def node_driver() -> Driver:
    """MQTT.js in Node."""
    return ProcessDriver(
        ["node", str(install_clients.DRIVERS / "node.js")], {"NODE_PATH": str(install_clients.NODE_MODULES)}
    )


def python_driver(library: str) -> Driver:
    """aiomqtt or gmqtt."""
    return ProcessDriver(
        [sys.executable, str(install_clients.DRIVERS / "python_clients.py"), library],
        {"PYTHONPATH": str(install_clients.PYTHON)},
    )


class Client:
    """A connected client in a driver, with calls as those of tests.end_to_end.paho_client; `with` disconnects it."""

    def __init__(
        self,
        driver: Driver,
        url: str,
        client_id: str,
        *,
        version: str = "3.1.1",
        clean: bool = True,
        will: Will | None = None,
        ca: str | None = None,
        properties: Properties | None = None,
        will_properties: Properties | None = None,
    ) -> None:
        """Properties are for version 5."""
        self._driver = driver
        self._id = client_id
        testament = None if will is None else {**will._asdict(), "payload": will.payload.decode()}
        if testament is not None and will_properties is not None:
            testament["properties"] = will_properties
        answer = driver.ask(
            "connect", client=client_id, url=url, version=version, clean=clean, ca=ca, will=testament,
            properties=properties,
        )  # fmt: skip
        self.code: int = answer["code"]
        self.present: bool | None = answer["present"]  #: None: the library does not tell
        self.properties: Properties = {}  #: of the message that was read last

    def subscribe(self, topic_filter: str, qos: int, properties: Properties | None = None) -> list[int]:
        """The return codes."""
        answer: list[int] = self._driver.ask(
            "subscribe", client=self._id, filter=topic_filter, qos=qos, properties=properties
        )
        return answer

    def unsubscribe(self, topic_filter: str) -> None:
        self._driver.ask("unsubscribe", client=self._id, filter=topic_filter)

    def publish(
        self, topic: str, payload: str = "", qos: int = 0, retain: bool = False, properties: Properties | None = None
    ) -> None:
        """Publish, and wait until it is acknowledged."""
        self._driver.ask(
            "publish", client=self._id, topic=topic, payload=payload, qos=qos, retain=retain, properties=properties
        )

    def message(self) -> Publish:
        """The next message."""
        answer = self._driver.ask("message", client=self._id)
        self.properties = answer.pop("properties")
        return Publish(**{**answer, "payload": answer["payload"].encode()})

    def nothing_else(self, topic: str) -> None:
        """No message is on its way: one that is published to `topic`, which is subscribed to, is the next to come."""
        self.publish(topic, "the end")
        assert self.message()[:2] == (topic, b"the end")

    def close(self) -> None:
        self._driver.ask("disconnect", client=self._id)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # After a failure the driver may not answer any more; its end ends its clients.
        if error is None:
            self.close()
