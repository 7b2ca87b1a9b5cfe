"""An MQTT 3.1.1 broker that is right, unless it is told to be wrong: the suite is on trial with it.

Owns: `FaultyBroker`, its sockets and threads. It is simple and slow, a thread per connection and one lock for
everything, so that one can see that it is right. It uses the suite's own codec, and nothing of `broker`.

How to add a fault: a line in `faults.py` with the statements that it breaks, and the one place in a file beside it
where the broker asks `self.has("the fault")`. `test_suite_on_trial.py` does the rest.
"""

import contextlib
import dataclasses
import functools
import socket
import ssl
import time
from types import TracebackType
from typing import Self

from conformance import packets
from conformance.packets import Connect, Decoder, Packet, Publish, Subscribe, Unsubscribe
from conformance.target import Broker, Endpoint
from tests.conformance.faulty.connecting import Connecting
from tests.conformance.faulty.incoming import Incoming
from tests.conformance.faulty.state import (
    FORBIDDEN,
    LIMIT,
    PASSWORD,
    REFUSED_CLIENT_ID,
    USERNAME,
    Connection,
    Violation,
)
from tests.conformance.faulty.websocket import HANDSHAKE_SECONDS, Refused, WebSocket
from tests.conformance.scripted_server import CERTIFICATE

#: What the endpoints speak that are not plain MQTT.
SCHEMES = {"tls": "mqtts", "websocket": "ws"}


class Restartable(Broker):
    """What a trial needs to know of the broker: it can be told to restart, and keeps its ports."""

    def __init__(self, faulty: "FaultyBroker") -> None:
        super().__init__("faulty", lambda values: faulty.endpoints())
        self._faulty = faulty

    def can(self, command: str) -> bool:
        return command == "restart"

    def restart(self) -> None:
        self._faulty.restart()


class FaultyBroker(Connecting, Incoming):
    """The broker, listening on free ports of the loopback while it is entered. `broker` is what a trial needs.

    With `login`, every endpoint takes only clients that give the user name and the password."""

    def __init__(self, *faults: str, login: bool = False) -> None:
        super().__init__(*faults, login=login)
        self.broker = Restartable(self)
        self._listeners: dict[str, socket.socket] = {}
        self._stopping = False

    def again(self) -> "FaultyBroker":
        """Another one with the same faults."""
        return FaultyBroker(*self.faults, login=self._login)

    def __enter__(self) -> Self:
        for role in ("main", "authenticated", "limited", "identifiers", "acl", "tls", "websocket"):
            self._listeners[role] = socket.create_server(("127.0.0.1", 0), backlog=256)
            self._start(self._accept, role)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping = True
        for listener in self._listeners.values():
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        with self._lock:
            for connection in self._connections:
                connection.close()
        for thread in self._threads:
            thread.join()

    def restart(self) -> None:
        """What a stop and a start would do, as its clients see it."""
        with self._lock:
            for connection in list(self._connections):
                self._end(connection, "restart")
            for session in self._sessions.values():
                if self.has("restart loses messages"):
                    session.outgoing = []
                if self.has("restart loses incoming identifiers"):
                    session.incoming = set()
            if self.has("restart ends every session"):
                self._sessions = {}
            if self.has("restart loses retained messages"):
                self._retained = {}

    def endpoints(self) -> dict[str, Endpoint]:
        extra: dict[str, dict[str, str | int]] = {
            "authenticated": {"username": USERNAME, "password": PASSWORD},
            "limited": {"limit": LIMIT},
            "identifiers": {"refused_client_id": REFUSED_CLIENT_ID},
            "acl": {"publish_forbidden": FORBIDDEN, "subscribe_forbidden": FORBIDDEN},
            "tls": {"ca_file": CERTIFICATE},
        }
        if self._login:
            for role in self._listeners:
                extra.setdefault(role, {}).update(username=USERNAME, password=PASSWORD)
        return {
            role: Endpoint(role, scheme(role), "127.0.0.1", listener.getsockname()[1], **extra.get(role, {}))  # type: ignore[arg-type]
            for role, listener in self._listeners.items()
        }

    # Connections

    def _accept(self, role: str) -> None:
        while not self._stopping:
            try:
                sock, _ = self._listeners[role].accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._start(self._serve_socket, sock, role)

    def _serve_socket(self, sock: socket.socket, role: str) -> None:
        if role not in SCHEMES:
            self._serve(Connection(sock, role))
            return
        sock.settimeout(HANDSHAKE_SECONDS)
        try:
            wrapped = WebSocket(sock, self.has) if role == "websocket" else tls().wrap_socket(sock, server_side=True)
        except (OSError, Refused):
            sock.close()
            return
        self._serve(Connection(wrapped, role))

    def _serve(self, connection: Connection) -> None:
        with self._lock:
            self._connections.add(connection)
            if self._stopping:
                connection.close()
        why = "network"
        try:
            while connection.open:
                data = self._receive(connection)
                if not data:
                    break
                self._take(connection, data)
        except (Violation, Refused):
            why = "violation"
            if self.has("violation ends every connection"):
                with self._lock:
                    for other in list(self._connections):
                        self._end(other, why)
        except TimeoutError:
            why = "keep alive"
        except OSError:
            pass
        with self._lock:
            self._end(connection, why)
        connection.sock.close()

    def _receive(self, connection: Connection) -> bytes:
        if connection.keep_alive and not self.has("no keep alive"):
            left = connection.last_packet + 1.5 * connection.keep_alive - time.monotonic()
            if left <= 0:
                raise TimeoutError
            connection.sock.settimeout(left)
            try:
                return connection.sock.recv(65536)
            except TimeoutError:
                return self._receive(connection)
        connection.sock.settimeout(None)
        return connection.sock.recv(65536)

    def _take(self, connection: Connection, data: bytes) -> None:
        found = connection.decoder.feed(data)
        if self.has("every byte keeps alive"):
            connection.last_packet = time.monotonic()
        if connection.decoder.broken:
            if self.has("malformed connect is ignored") or self.has("five length bytes are ignored"):
                connection.decoder = Decoder()
                return
            if self.has("long Remaining Length is waited for"):
                return
            raise Violation(connection.decoder.broken)
        if connection.decoder.pending and self.has("packets must come whole"):
            connection.decoder = Decoder()
        if not found and connection.session is None and self.has("connect must come whole"):
            raise Violation("CONNECT in pieces")
        connection.previous = 0
        for number, packet in enumerate(found):
            if number and self.has("one packet at a time"):
                continue
            if number and self.has("early packets are lost") and found[0].kind == packets.CONNECT:
                continue
            with self._lock:
                if connection.open:
                    if not self.has("keep alive runs from connect"):
                        connection.last_packet = time.monotonic()
                    self._handle(connection, packet)
                    connection.previous = packet.kind
        left_open = self.has("refusal leaves the connection open") or self.has("wrong password is not disconnected")
        if connection.refused and not left_open:
            raise Violation("refused")

    def _handle(self, connection: Connection, packet: Packet) -> None:
        self._remove_feff(packet)
        if connection.session is not None:
            self._handle_connected(connection, connection.session, packet)
        elif isinstance(packet, Connect):
            self._connect(connection, packet)
        elif connection.refused:
            self._handle_refused(connection, packet)
        elif self.has("answers before connack"):
            connection.send(packets.pingresp())
            raise Violation("a packet before CONNECT")
        elif self.has("first packet may be anything"):
            if isinstance(packet, Publish):
                self._publish(packet.topic, packet.payload, packet.qos, False)
        elif not (packet.kind == packets.CONNECT and self.has("malformed connect is ignored")):
            raise Violation("the first packet is not CONNECT")

    def _remove_feff(self, packet: Packet) -> None:
        def without(text: str) -> str:
            if self.has("U+FEFF is removed"):
                return text.replace("\ufeff", "")
            return text.removeprefix("\ufeff") if self.has("U+FEFF is removed from the beginning") else text

        def without_bytes(data: bytes) -> bytes:
            return without(data.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")

        if isinstance(packet, Publish):
            packet.topic = without(packet.topic)
        elif isinstance(packet, Subscribe):
            packet.filters = [(without_bytes(topic_filter), qos) for topic_filter, qos in packet.filters]
        elif isinstance(packet, Unsubscribe):
            packet.filters = [without_bytes(topic_filter) for topic_filter in packet.filters]
        elif isinstance(packet, Connect):
            packet.client_id = without_bytes(packet.client_id)
            if packet.will:
                packet.will = dataclasses.replace(packet.will, topic=without_bytes(packets.encoded(packet.will.topic)))


def scheme(role: str) -> str:
    return SCHEMES.get(role, "mqtt")


@functools.cache
def tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    return context
