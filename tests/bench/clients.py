"""Connections before and after a run: made, subscribed, ended; and as a workload of their own.

Owns: CONNECT, SUBSCRIBE and DISCONNECT with their answers, many side by side.
Must not know: which broker it talks to, what is measured about it, what is published.
"""

from __future__ import annotations

import contextlib
import selectors
import time
from collections.abc import Iterator, Sequence

import transports
from packets import DISCONNECT, OTHER_VERSION, PINGREQ, PINGRESP, read_connack, read_suback, refusal
from transports import Client, Endpoint, GeneratorError

SETUP_BATCH = 50  # handshakes under way at once: below any broker's listen backlog
CONNACK_SIZE = 4  # bytes, at least


def open_clients(
    stack: contextlib.ExitStack, endpoint: Endpoint, client_ids: Sequence[str], clean: bool = True
) -> list[Client]:
    """One connection per Client Identifier, each accepted by the broker; `stack` closes them."""
    opened: list[Client] = []
    for start in range(0, len(client_ids), SETUP_BATCH):
        identifiers = client_ids[start : start + SETUP_BATCH]
        batch = [stack.enter_context(Client(endpoint)) for _ in identifiers]
        for client, client_id in zip(batch, identifiers, strict=True):
            client.open()
            client.send(endpoint.mqtt.connect(client_id, clean))
        for number, client in enumerate(batch, start):
            answer = client.receive(CONNACK_SIZE)
            accepted = read_connack(endpoint.mqtt, answer)
            if accepted is None:
                raise GeneratorError(f"connection {number + 1:,} of {len(client_ids):,} was refused: {answer.hex()}")
            client.accepted = accepted
        opened += batch
    return opened


def subscribe(client: Client, filters: Sequence[str], qos: int) -> None:
    for start in range(0, len(filters), 100):
        batch = filters[start : start + 100]
        client.send(client.endpoint.mqtt.subscribe(1 + start // 100, batch, qos))
        answer = client.receive(4 + len(batch))
        if read_suback(answer, len(batch)) != bytes((qos,)) * len(batch):
            raise GeneratorError(f"SUBSCRIBE was not granted as asked: {answer.hex()}")


def send_before_the_run(client: Client, packet: bytes) -> None:
    """Returns when the broker has served it."""
    client.send(packet + PINGREQ)
    answer = client.receive(2)
    if answer != PINGRESP:
        raise GeneratorError(f"{answer.hex()} instead of PINGRESP")


def leave(client: Client) -> None:
    """DISCONNECT, and wait until the broker has closed: then it has also seen it."""
    with contextlib.suppress(ConnectionError):
        client.send(DISCONNECT)
        while client.sock.recv(65536):
            pass
    client.close()


def forget_sessions(endpoint: Endpoint, client_ids: Sequence[str]) -> None:
    """End persistent Sessions by connecting with CleanSession = 1."""
    with contextlib.ExitStack() as stack:
        for client in open_clients(stack, endpoint, client_ids, clean=True):
            leave(client)


def speaks(endpoint: Endpoint) -> bool:
    """Whether the broker knows this version. Raises GeneratorError: there is none, or it refuses for another reason."""
    with Client(endpoint) as client:
        client.open()
        client.send(endpoint.mqtt.connect("bench-version"))
        try:
            answer = client.receive(CONNACK_SIZE)
        except (ConnectionError, GeneratorError):
            return False
        reason = refusal(answer)
        if reason == OTHER_VERSION:
            return False
        if reason:
            raise GeneratorError(f"the broker refuses a connection in MQTT {endpoint.mqtt.name}, reason 0x{reason:02X}")
        client.send(DISCONNECT)
        return True


def connect_and_disconnect(endpoint: Endpoint, client_ids: Iterator[str], seconds: float, window: int) -> list[int]:
    """Closed loop of whole connections: TCP (and TLS), CONNECT, CONNACK, DISCONNECT, until the broker has closed.

    Returns the nanoseconds from connect() to CONNACK of each; `window` of them are under way at a time.
    """
    latencies: list[int] = []
    deadline = time.monotonic() + seconds
    connecting: dict[Client, int] = {}  # -> when it began
    leaving: set[Client] = set()
    with selectors.DefaultSelector() as selector:

        def start() -> None:
            now = time.perf_counter_ns()
            client = Client(endpoint)
            connecting[client] = now
            client.open()
            client.send(endpoint.mqtt.connect(next(client_ids)))
            selector.register(client.sock, selectors.EVENT_READ, client)

        try:
            for _ in range(window):
                start()
            while connecting or leaving:
                ready = selector.select(transports.STALLED_AFTER)
                if not ready:
                    waited = f"{transports.STALLED_AFTER:g} s"
                    raise GeneratorError(f"no CONNACK, or no close after DISCONNECT, for {waited}")
                for key, _ in ready:
                    client: Client = key.data
                    if client in connecting:
                        answer = client.receive(CONNACK_SIZE)
                        if read_connack(endpoint.mqtt, answer) is None:
                            raise GeneratorError(f"refused after {len(latencies):,} connections: {answer.hex()}")
                        latencies.append(time.perf_counter_ns() - connecting.pop(client))
                        leaving.add(client)
                        client.send(DISCONNECT)
                    elif client.sock.recv(1):
                        raise GeneratorError("the broker answered a DISCONNECT")
                    else:
                        leaving.remove(client)
                        selector.unregister(client.sock)
                        client.close()
                        if time.monotonic() < deadline:
                            start()
        except ConnectionError as error:
            raise GeneratorError(f"a connection broke after {len(latencies):,}: {error}") from None
        finally:
            for client in (*connecting, *leaving):
                client.close()
    return latencies
