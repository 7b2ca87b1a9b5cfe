"""An MQTT 3.1.1 broker that is right, unless it is told to be wrong: the suite is on trial with it.

Owns: `FaultyBroker` and the names of its faults (`FAULTS`). It is simple and slow, a thread per connection and one lock
for everything, so that one can see that it is right. It uses the suite's own codec, and nothing of `broker`.

How to add a fault: a line in `FAULTS` with the statements that it breaks, and the one place below where the broker
asks `self.has("the fault")`. `test_suite_on_trial.py` does the rest.
"""

import contextlib
import itertools
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from conformance import packets
from conformance.packets import (
    Acknowledgement,
    Connect,
    Decoder,
    Packet,
    Publish,
    Subscribe,
    Unsubscribe,
    Will,
)
from conformance.target import Broker, Endpoint

USERNAME, PASSWORD = "alice", "open sesame"
REFUSED_CLIENT_ID = "refused"
FORBIDDEN = "forbidden/topic"
LIMIT = 2

#: What the broker says of itself.
SYS_TOPIC = "$SYS/broker/version"

#: The statements that a malformed CONNECT breaks, one way or another.
MALFORMED_CONNECT = (
    *("MQTT-3.1.2-9", "MQTT-3.1.2-11", "MQTT-3.1.2-13", "MQTT-3.1.2-14", "MQTT-3.1.2-15", "MQTT-3.1.2-18"),
    *("MQTT-3.1.2-19", "MQTT-3.1.2-20", "MQTT-3.1.2-21", "MQTT-3.1.2-22", "MQTT-3.1.3-3", "MQTT-3.1.4-1"),
)

#: Each fault, and the statements that a broker with it breaks.
FAULTS: dict[str, tuple[str, ...]] = {
    # 3.1 The first packet, and only the first
    "first packet may be anything": ("MQTT-3.1.0-1", "MQTT-4.8.0-1"),
    "second connect is ignored": ("MQTT-3.1.0-2", "MQTT-4.8.0-1"),
    "second connect is answered": ("MQTT-3.1.0-2", "MQTT-4.8.0-1"),
    # 3.1.2 Variable header
    "any protocol name": ("MQTT-3.1.2-1",),
    "unknown level is accepted": ("MQTT-3.1.2-2",),
    "unknown level is dropped": ("MQTT-3.1.2-2",),
    "reserved connect flag is ignored": ("MQTT-3.1.2-3", "MQTT-3.1.4-1"),
    "sessions are not kept": ("MQTT-3.1.2-4", "MQTT-3.1.2-5", "MQTT-3.1.4-3", "MQTT-3.2.2-2"),
    "persistent clients are refused": ("MQTT-3.1.2-4",),
    "unsubscribed filters return": ("MQTT-3.1.2-4",),
    "nothing waits": ("MQTT-3.1.2-5",),
    "only the first message waits": ("MQTT-3.1.2-5",),
    "clean session keeps subscriptions": ("MQTT-3.1.2-6", "MQTT-3.1.4-3"),
    "clean session keeps messages": ("MQTT-3.1.2-6", "MQTT-3.1.4-3"),
    "clean session keeps incoming identifiers": ("MQTT-3.1.2-6",),
    "clean session outlives its connection": ("MQTT-3.1.2-6", "MQTT-3.2.2-3"),
    "subscriptions belong to client ids": ("MQTT-3.1.2-6", "MQTT-3.1.4-3"),
    "retained messages die with their session": ("MQTT-3.1.2-7",),
    "no will": ("MQTT-3.1.2-8",),
    "no will at takeover": ("MQTT-3.1.2-8",),
    "no will after a violation": ("MQTT-3.1.2-8",),
    "no will after a keep alive timeout": ("MQTT-3.1.2-8",),
    "will payload is cut": ("MQTT-3.1.2-8",),
    "no will for its own client": ("MQTT-3.1.2-8",),
    "will has QoS 0": ("3.1.2.6/will-qos",),
    "will has QoS 2": ("3.1.2.6/will-qos",),
    "will ignores the granted QoS": ("3.1.2.6/will-qos",),
    "will is never forgotten": ("MQTT-3.1.2-10", "MQTT-3.1.2-12"),
    "end of every connection is published": ("MQTT-3.1.2-10", "MQTT-3.1.2-12"),
    "will of a refused client is published": ("MQTT-3.1.2-12",),
    "will is always retained": ("MQTT-3.1.2-16",),
    "will is never retained": ("MQTT-3.1.2-17",),
    "will bits are not checked": ("MQTT-3.1.2-11", "MQTT-3.1.2-13", "MQTT-3.1.2-15", "MQTT-3.1.4-1"),
    "will QoS 3 is taken": ("MQTT-3.1.2-14", "MQTT-3.1.4-1"),
    "surplus bytes are ignored": ("MQTT-3.1.2-11", "MQTT-3.1.2-18", "MQTT-3.1.2-20", "MQTT-3.1.4-1"),
    "missing fields are taken as empty": (
        *("MQTT-3.1.2-9", "MQTT-3.1.2-19", "MQTT-3.1.2-21", "MQTT-3.1.3-3", "MQTT-3.1.4-1", "MQTT-4.8.0-1"),
    ),
    "password needs no user name": ("MQTT-3.1.2-22", "MQTT-3.1.4-1"),
    "no keep alive": ("MQTT-3.1.2-24",),
    "keep alive counts what is received": ("MQTT-3.1.2-24",),
    # 3.1.3 Payload
    "client ids ignore case": ("MQTT-3.1.3-2", "MQTT-3.1.4-2"),
    "client ids are cut after 23 bytes": ("MQTT-3.1.3-2",),
    "strings are not checked": ("MQTT-3.1.3-4", "MQTT-3.1.3-10", "MQTT-3.1.3-11"),
    "client ids of 23 bytes are refused": ("MQTT-3.1.3-5", "MQTT-3.1.4-4"),
    "client ids begin with a letter": ("MQTT-3.1.3-5", "MQTT-3.1.4-4"),
    "unusual client ids are refused with code 5": ("MQTT-3.1.3-9",),
    "empty client ids are one client": ("MQTT-3.1.3-6",),
    "empty client ids share their subscriptions": ("MQTT-3.1.3-6",),
    "empty client id may keep its session": ("MQTT-3.1.3-7", "MQTT-3.1.3-8", "MQTT-3.1.3-9"),
    "empty client id is dropped": ("MQTT-3.1.3-7", "MQTT-3.1.3-8", "MQTT-3.1.3-9"),
    "client ids are refused with code 5": ("MQTT-3.1.3-7", "MQTT-3.1.3-8", "MQTT-3.1.3-9"),
    "wildcards in a will topic": ("MQTT-4.7.1-1",),
    "empty will topic": ("MQTT-4.7.3-1",),
    # 3.1.4 Response
    "malformed connect is answered": MALFORMED_CONNECT,
    "malformed connect is ignored": (*MALFORMED_CONNECT, "MQTT-4.8.0-1"),
    "connect header flags are ignored": ("MQTT-3.1.4-1",),
    "nobody is evicted": ("MQTT-3.1.4-2",),
    "the newcomer is turned away": ("MQTT-3.1.4-2",),
    "takeover loses the session": ("MQTT-3.1.4-3", "MQTT-3.1.2-4", "MQTT-3.2.2-2"),
    "wills are refused": ("MQTT-3.1.4-4",),
    "keep alives other than 60 are refused": ("MQTT-3.1.4-4",),
    "known users are refused": ("MQTT-3.1.4-4",),
    "connect must come whole": ("MQTT-3.1.4-4",),
    "early packets are lost": ("3.1.4/early-packets",),
    "packets behind a refusal are processed": ("MQTT-3.1.4-5",),
    "answers behind a refusal": ("MQTT-3.1.4-5",),
    "wrong password is not disconnected": ("3.1.4/refused-closes",),
    # 3.2 CONNACK
    "connack comes second": ("MQTT-3.2.0-1",),
    "answers before connack": ("MQTT-3.2.0-1",),
    "stored messages before connack": ("MQTT-3.2.0-1",),
    "session is always present": ("MQTT-3.2.2-1", "MQTT-3.2.2-3", "MQTT-3.2.2-4"),
    "session is never present": ("MQTT-3.2.2-2",),
    "empty session is not present": ("MQTT-3.2.2-2",),
    "discarded session is present": ("MQTT-3.2.2-1",),
    "session is present in a refusal": ("MQTT-3.2.2-4",),
    "stored session is present in a refusal": ("MQTT-3.2.2-4",),
    "refusal leaves the connection open": ("MQTT-3.2.2-5", "3.1.4/refused-closes"),
    "connack is too long": ("3.2.1/length",),
    "connack has reserved bits": ("3.2.2.1/reserved-bits",),
    "connack has header flags": ("MQTT-2.2.2-1",),
    "connack has a reserved code": ("3.2.2.3/reserved-codes",),
    # 6 WebSocket
    "text frames are sent": ("MQTT-6.0.0-1",),
    "text frames are taken": ("MQTT-6.0.0-1",),
    "text frames are ignored": ("MQTT-6.0.0-1",),
    "a frame is a packet": ("MQTT-6.0.0-2",),
    "a frame begins with a packet": ("MQTT-6.0.0-2",),
    "fragments are lost": ("MQTT-6.0.0-2",),
    "frames are cut after 120 bytes": ("MQTT-6.0.0-2",),
    "no subprotocol is selected": ("MQTT-6.0.0-4",),
    "the first subprotocol is selected": ("MQTT-6.0.0-4",),
    "any subprotocol is selected": ("MQTT-6.0.0-4",),
}


#: What a broker may do, but few do, or should not: these statements get a WARN.
ODDITIES: dict[str, tuple[str, ...]] = {
    "will is late": ("3.1.2.5/prompt-will",),
    "keep alive 0 is 1": ("3.1.2.10/keep-alive-zero",),
    "long keep alives are cut short": ("3.1.2.10/keep-alive-zero",),
    "keep alive runs from connect": ("MQTT-3.1.2-24",),
    "every byte keeps alive": ("MQTT-3.1.2-24",),
    "malformed strings are refused with code 2": ("MQTT-3.1.3-4", "MQTT-3.1.3-10", "MQTT-3.1.3-11"),
    "failed login evicts": ("3.1.4/evict-after-checks",),
    "refusals are silent": ("3.2.2.3/refusal-code",),
    "refusals have code 3": ("3.2.2.3/refusal-code",),
}

#: How long the broker waits for a WebSocket handshake, in seconds.
HANDSHAKE_SECONDS = 10.0

#: How much too late the will is with "will is late", in seconds.
LATE = 1.0


class Violation(Exception):
    """The client broke a rule: its connection ends."""


@dataclass
class Outgoing:
    """A QoS 1 or 2 message on its way to a client."""

    packet_id: int
    topic: str
    payload: bytes
    qos: int
    retain: bool
    state: str = "queued"  # then sent, and with QoS 2 released


@dataclass
class Session:
    client_id: bytes
    clean: bool
    subscriptions: dict[str, int] = field(default_factory=dict)
    outgoing: list[Outgoing] = field(default_factory=list)
    incoming: set[int] = field(default_factory=set)
    retained: set[str] = field(default_factory=set)
    unsubscribed: dict[str, int] = field(default_factory=dict)
    connection: "Connection | None" = None
    next_id: int = 0

    def new_id(self) -> int:
        used = {message.packet_id for message in self.outgoing}
        while True:
            self.next_id = self.next_id % 65535 + 1
            if self.next_id not in used:
                return self.next_id


class WebSocket:
    """Looks like a socket, and carries its bytes in WebSocket frames. `has` knows the broker's faults."""

    def __init__(self, sock: socket.socket, has: Callable[[str], bool]) -> None:
        self._sock = sock
        self._has = has
        # `websockets` makes a method of the function that it is given.
        self._protocol = ServerProtocol(select_subprotocol=lambda protocol, offered: self._select(offered))
        while self._protocol.state is State.CONNECTING and not self._protocol.handshake_exc:
            data = sock.recv(65536)
            if not data:
                raise Violation("no handshake")
            self._protocol.receive_data(data)
            for event in self._protocol.events_received():
                if isinstance(event, Request):
                    self._protocol.send_response(self._protocol.accept(event))
            self._flush()
        if self._protocol.state is not State.OPEN:
            raise Violation("the handshake was refused")

    def _select(self, offered: Sequence[Subprotocol]) -> Subprotocol | None:
        if self._has("any subprotocol is selected") and "mqtt" not in offered:
            return offered[0]
        if self._has("the first subprotocol is selected"):
            return offered[0]
        return Subprotocol("mqtt") if "mqtt" in offered and not self._has("no subprotocol is selected") else None

    def recv(self, size: int) -> bytes:
        while True:
            data = self._sock.recv(size)
            if not data:
                return b""
            self._protocol.receive_data(data)
            events = self._protocol.events_received()
            self._flush()
            if self._protocol.state is not State.OPEN:
                return b""
            found = b"".join(self._payload(event) for event in events if isinstance(event, Frame))
            if found:
                return found

    def _payload(self, frame: Frame) -> bytes:
        data = bytes(frame.data)
        if frame.opcode is Opcode.TEXT and self._has("text frames are ignored"):
            return b""
        if frame.opcode is Opcode.TEXT and not self._has("text frames are taken"):
            self._protocol.fail(1003)
            self._flush()
            raise Violation("a text frame")
        if frame.opcode is Opcode.CONT and self._has("fragments are lost"):
            return b""
        if frame.opcode not in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            return b""
        if self._has("a frame is a packet"):
            return data[: packet_size(data)] if packet_size(data) <= len(data) else b""
        if self._has("a frame begins with a packet") and not packets.decode_all(data):
            return b""
        return data[:120] if self._has("frames are cut after 120 bytes") else data

    def sendall(self, data: bytes) -> None:
        if self._has("text frames are sent") and data.isascii():
            self._protocol.send_text(data)
        else:
            self._protocol.send_binary(data)
        self._flush()

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self._sock.sendall(data)

    def settimeout(self, seconds: float | None) -> None:
        self._sock.settimeout(seconds)

    def shutdown(self, how: int) -> None:
        self._sock.shutdown(how)

    def close(self) -> None:
        self._sock.close()


class Connection:
    """One client's connection: its socket, and what is known of the client."""

    def __init__(self, sock: socket.socket | WebSocket, role: str) -> None:
        self.sock = sock
        self.role = role
        self.decoder = Decoder()
        self.session: Session | None = None
        self.will: Will | None = None
        self.keep_alive = 0
        self.last_packet = time.monotonic()
        self.open = True
        self.refused = False
        self.held: list[bytes] = []

    def send(self, data: bytes) -> None:
        with contextlib.suppress(OSError):
            self.sock.sendall(data)

    def close(self) -> None:
        self.open = False
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)


class FaultyBroker:
    """The broker, listening on free ports of the loopback while it is entered. `broker` is what a trial needs.

    With `login`, every endpoint takes only clients that give the user name and the password."""

    def __init__(self, *faults: str, login: bool = False) -> None:
        unknown = set(faults) - set(FAULTS) - set(ODDITIES)
        assert not unknown, f"no such fault: {unknown}"
        self.faults = frozenset(faults)
        self._login = login
        self.broker = Broker("faulty", lambda values: self._endpoints())
        self._lock = threading.RLock()
        self._sessions: dict[bytes, Session] = {}
        self._retained: dict[str, tuple[bytes, int]] = {SYS_TOPIC: (b"faulty", 0)}
        self._old_wills: dict[bytes, Will] = {}
        self._shared: dict[str, int] = {}
        self._old_subscriptions: dict[bytes, dict[str, int]] = {}
        self._connections: set[Connection] = set()
        self._listeners: dict[str, socket.socket] = {}
        self._threads: list[threading.Thread] = []
        self._numbers = itertools.count()
        self._stopping = False

    def has(self, fault: str) -> bool:
        assert fault in FAULTS or fault in ODDITIES, fault
        return fault in self.faults

    def __enter__(self) -> Self:
        for role in ("main", "authenticated", "limited", "identifiers", "acl", "websocket"):
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

    def _endpoints(self) -> dict[str, Endpoint]:
        extra: dict[str, dict[str, str | int]] = {
            "authenticated": {"username": USERNAME, "password": PASSWORD},
            "limited": {"limit": LIMIT},
            "identifiers": {"refused_client_id": REFUSED_CLIENT_ID},
            "acl": {"publish_forbidden": FORBIDDEN, "subscribe_forbidden": FORBIDDEN},
        }
        if self._login:
            for role in self._listeners:
                extra.setdefault(role, {}).update(username=USERNAME, password=PASSWORD)
        return {
            role: Endpoint(role, scheme(role), "127.0.0.1", listener.getsockname()[1], **extra.get(role, {}))  # type: ignore[arg-type]
            for role, listener in self._listeners.items()
        }

    # Connections

    def _start(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self, role: str) -> None:
        while not self._stopping:
            try:
                sock, _ = self._listeners[role].accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._start(self._serve_socket, sock, role)

    def _serve_socket(self, sock: socket.socket, role: str) -> None:
        if role != "websocket":
            self._serve(Connection(sock, role))
            return
        sock.settimeout(HANDSHAKE_SECONDS)
        try:
            wrapped = WebSocket(sock, self.has)
        except (OSError, Violation):
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
        except Violation:
            why = "violation"
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
            if self.has("malformed connect is ignored"):
                connection.decoder = Decoder()
                return
            raise Violation(connection.decoder.broken)
        if not found and connection.session is None and self.has("connect must come whole"):
            raise Violation("CONNECT in pieces")
        for number, packet in enumerate(found):
            if number and self.has("early packets are lost") and found[0].kind == packets.CONNECT:
                continue
            with self._lock:
                if connection.open:
                    if not self.has("keep alive runs from connect"):
                        connection.last_packet = time.monotonic()
                    self._handle(connection, packet)
        left_open = self.has("refusal leaves the connection open") or self.has("wrong password is not disconnected")
        if connection.refused and not left_open:
            raise Violation("refused")

    def _end(self, connection: Connection, why: str) -> None:
        """The connection is over, whoever ended it."""
        if connection not in self._connections:
            return
        self._connections.discard(connection)
        connection.close()
        session = connection.session
        if session is None or session.connection is not connection:
            return
        session.connection = None
        self._send_will(connection, session, why)
        ended = session.clean and not self.has("clean session outlives its connection")
        if ended or self.has("sessions are not kept"):
            self._forget(session)

    def _send_will(self, connection: Connection, session: Session, why: str) -> None:
        will = connection.will
        missed = {"violation": "no will after a violation", "takeover": "no will at takeover"}
        missed["keep alive"] = "no will after a keep alive timeout"
        if will is None and why != "disconnect" and self.has("will is never forgotten"):
            will = self._old_wills.get(session.client_id)
        if self.has("end of every connection is published") and why != "disconnect":
            for name in {name for other in self._sessions.values() for name in other.subscriptions}:
                self._publish(name.replace("#", "ended"), b"ended", 1, False)
        connection.will = None
        if will is None or why == "disconnect" or self.has("no will") or (why in missed and self.has(missed[why])):
            return
        payload = will.payload[:100] if self.has("will payload is cut") else will.payload
        retain = (will.retain or self.has("will is always retained")) and not self.has("will is never retained")
        topic = packets.encoded(will.topic).decode("utf-8", "surrogateescape")
        qos = 0 if self.has("will has QoS 0") else 2 if self.has("will has QoS 2") else will.qos
        own = session if self.has("no will for its own client") else None
        if self.has("will is late"):
            self._start(self._publish_later, topic, payload, qos, retain)
            return
        self._publish(topic, payload, qos, retain, but=own, upgrade=self.has("will ignores the granted QoS"))

    def _publish_later(self, topic: str, payload: bytes, qos: int, retain: bool) -> None:
        time.sleep(LATE)
        with self._lock:
            self._publish(topic, payload, qos, retain)

    def _forget(self, session: Session) -> None:
        if self._sessions.get(session.client_id) is session:
            del self._sessions[session.client_id]
        if self.has("retained messages die with their session"):
            for topic in session.retained:
                self._retained.pop(topic, None)

    # CONNECT

    def _handle(self, connection: Connection, packet: Packet) -> None:
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

    def _handle_refused(self, connection: Connection, packet: Packet) -> None:
        if isinstance(packet, Publish) and self.has("packets behind a refusal are processed"):
            self._publish(packet.topic, packet.payload, packet.qos, packet.retain)
        if self.has("answers behind a refusal"):
            connection.send(packets.pingresp())

    def _connect(self, connection: Connection, packet: Connect) -> None:
        if packet.problem and self.has("malformed connect is ignored"):
            return
        if packet.protocol_name != b"MQTT" and not self.has("any protocol name"):
            raise Violation("unknown protocol name")
        if packet.level != 4 and len(packet.body) > 6:
            if self.has("unknown level is dropped"):
                raise Violation("unknown level")
            if not self.has("unknown level is accepted"):
                self._refuse(connection, packet, 1)
                return
            packet.client_id = secrets.token_bytes(8)
            packet.problem = ""
        problem = self._problem(packet)
        if problem:
            if self.has("malformed connect is ignored"):
                return
            string_refused = "string" in problem and self.has("malformed strings are refused with code 2")
            if string_refused or self.has("malformed connect is answered"):
                connection.send(packets.connack(2))
            self._raise_refused(connection, Violation(problem))
            return
        if not self._admit(connection, packet):
            return
        if not packet.client_id:
            unique = f"empty-{next(self._numbers)}"
            packet.client_id = b"empty" if self.has("empty client ids are one client") else unique.encode()
        self._begin(connection, packet)

    def _problem(self, packet: Connect) -> str:
        """What is wrong with a CONNECT of level 4; empty if nothing is."""
        problem = packet.problem
        if "too many" in problem and self.has("surplus bytes are ignored"):
            problem = ""
        if "cut short" in problem and self.has("missing fields are taken as empty"):
            packet.client_id = packet.client_id or secrets.token_bytes(8)
            packet.will = None
            return ""
        if problem:
            return problem
        if packet.flags and not self.has("connect header flags are ignored"):
            return "header flags"
        flags = packet.connect_flags
        if flags & 1 and not self.has("reserved connect flag is ignored"):
            return "reserved flag"
        if not flags & 0b100 and flags & 0b111000 and not self.has("will bits are not checked"):
            return "will bits without a will"
        if packet.will and packet.will.qos == 3 and not self.has("will QoS 3 is taken"):
            return "will QoS 3"
        if packet.password is not None and packet.username is None and not self.has("password needs no user name"):
            return "password without user name"
        strings = [packet.client_id, packet.username or b"", packets.encoded(packet.will.topic) if packet.will else b""]
        if not all(map(well_formed, strings)) and not self.has("strings are not checked"):
            return "ill-formed string"
        if packet.will:
            topic = packets.encoded(packet.will.topic)
            if (b"+" in topic or b"#" in topic) and not self.has("wildcards in a will topic"):
                return "wildcards in the will topic"
            if not topic and not self.has("empty will topic"):
                return "empty will topic"
        return ""

    def _admit(self, connection: Connection, packet: Connect) -> bool:
        """Whether the client may come in; else it has been refused."""
        if not packet.client_id and not packet.clean and not self.has("empty client id may keep its session"):
            if self.has("empty client id is dropped"):
                raise Violation("empty ClientId")
            self._refuse(connection, packet, 5 if self.has("client ids are refused with code 5") else 2)
            return False
        size = len(packet.client_id)
        too_long = size == 23 and self.has("client ids of 23 bytes are refused")
        digit = packet.client_id[:1].isdigit() and self.has("client ids begin with a letter")
        refused = connection.role == "identifiers" and packet.client_id == REFUSED_CLIENT_ID.encode()
        unusual = (size > 23 or not packet.client_id.isalnum()) and self.has(
            "unusual client ids are refused with code 5"
        )
        if unusual or too_long or digit or refused:
            wrong = unusual or self.has("client ids are refused with code 5")
            self._refuse(connection, packet, 5 if wrong else 2)
            return False
        if connection.role == "authenticated" or self._login:
            given = (packet.username, packet.password)
            if given != (USERNAME.encode(), PASSWORD.encode()):
                live = self._sessions.get(packet.client_id)
                if live and live.connection and self.has("failed login evicts"):
                    self._end(live.connection, "takeover")
                if self.has("wrong password is not disconnected"):
                    connection.refused = True
                    return False
                self._refuse(connection, packet, 5 if packet.username is None else 4)
                return False
        if connection.role == "limited":
            others = [one for one in self._connections if one.role == "limited" and one.session is not None]
            if len(others) >= LIMIT:
                self._refuse(connection, packet, 3)
                return False
        unwanted = [
            bool(packet.will) and self.has("wills are refused"),
            packet.keep_alive != 60 and self.has("keep alives other than 60 are refused"),
            packet.username is not None and self.has("known users are refused"),
            not packet.clean and self.has("persistent clients are refused"),
        ]
        if any(unwanted):
            self._refuse(connection, packet, 3)
        return not any(unwanted)

    def _refuse(self, connection: Connection, packet: Connect, code: int) -> None:
        present = self.has("session is always present") or self.has("session is present in a refusal")
        if self.has("stored session is present in a refusal"):
            present = packet.client_id in self._sessions
        if packet.will and self.has("will of a refused client is published"):
            topic = packets.encoded(packet.will.topic).decode()
            self._publish(topic, packet.will.payload, packet.will.qos, False)
        if self.has("refusals have code 3"):
            code = 3 if code != 3 else 5
        if not self.has("refusals are silent"):
            self._send_connack(connection, code, present)
        if self.has("refusal leaves the connection open"):
            connection.refused = True
            return
        self._raise_refused(connection, Violation(f"refused with code {code}"))

    def _raise_refused(self, connection: Connection, violation: Violation) -> None:
        if self.has("packets behind a refusal are processed") or self.has("answers behind a refusal"):
            connection.refused = True  # until what has come with the CONNECT is processed
            return
        raise violation

    def _begin(self, connection: Connection, packet: Connect) -> None:
        client_id = packet.client_id
        if self.has("client ids ignore case"):
            client_id = client_id.lower()
        if self.has("client ids are cut after 23 bytes"):
            client_id = client_id[:23]
        old = self._sessions.get(client_id)
        if old and old.connection and self.has("the newcomer is turned away"):
            raise Violation("the ClientId is in use")
        if old and old.connection and not self.has("nobody is evicted"):
            self._end(old.connection, "takeover")
            if self.has("takeover loses the session") and client_id in self._sessions:
                del self._sessions[client_id]
        old = self._sessions.get(client_id)
        if old and (packet.clean or old.clean) and not self.has("clean session outlives its connection"):
            self._forget(old)
        session, present = self._session(client_id, packet.clean, old)
        connection.session = session
        if self.has("unsubscribed filters return"):
            session.subscriptions |= session.unsubscribed
        session.connection = connection
        connection.keep_alive = packet.keep_alive or int(self.has("keep alive 0 is 1"))
        if packet.keep_alive > 32767 and self.has("long keep alives are cut short"):
            connection.keep_alive = 1
        connection.will = packet.will
        if packet.will:
            self._old_wills[client_id] = packet.will
        if self.has("discarded session is present") and old and not old.clean:
            present = True
        if self.has("connack comes second"):
            connection.send(packets.pingresp())
        if self.has("stored messages before connack"):
            self._resume(session)
        self._send_connack(connection, 0, present)
        if not self.has("stored messages before connack"):
            self._resume(session)

    def _session(self, client_id: bytes, clean: bool, old: Session | None) -> tuple[Session, bool]:
        """The session of an accepted client, and whether CONNACK says that it was there."""
        kept = self._sessions.get(client_id)
        present = kept is not None and not clean
        session = kept if kept is not None and not clean else Session(client_id, clean)
        if old and clean and not old.clean:
            if self.has("clean session keeps subscriptions"):
                session.subscriptions = dict(old.subscriptions)
            if self.has("clean session keeps messages"):
                session.outgoing = list(old.outgoing)
            if self.has("clean session keeps incoming identifiers"):
                session.incoming = set(old.incoming)
        if self.has("subscriptions belong to client ids"):
            session.subscriptions |= self._old_subscriptions.get(client_id, {})
        if client_id.startswith(b"empty-") and self.has("empty client ids share their subscriptions"):
            session.subscriptions = self._shared
        session.clean = clean
        self._sessions[client_id] = session
        if self.has("session is always present"):
            present = True
        if self.has("session is never present"):
            present = False
        if self.has("empty session is not present") and not session.subscriptions:
            present = False
        return session, present

    def _send_connack(self, connection: Connection, code: int, present: bool) -> None:
        flags = int(present) | 0x80 * self.has("connack has reserved bits")
        if code and self.has("connack has a reserved code"):
            code = 6
        body = bytes([flags, code]) + b"\0" * self.has("connack is too long")
        connection.send(packets.frame(packets.CONNACK, int(self.has("connack has header flags")), body))

    def _resume(self, session: Session) -> None:
        for message in session.outgoing:
            self._transmit(session, message)

    # Everything else

    def _handle_connected(self, connection: Connection, session: Session, packet: Packet) -> None:
        if packet.kind == packets.CONNECT:
            if self.has("second connect is ignored"):
                return
            if self.has("second connect is answered"):
                connection.send(packets.connack())
                return
            raise Violation("second CONNECT")
        if packet.problem or not packet.flags_valid:
            raise Violation(packet.problem or "header flags")
        if isinstance(packet, Publish):
            self._incoming(connection, session, packet)
        elif isinstance(packet, Subscribe):
            self._subscribe(connection, session, packet)
        elif isinstance(packet, Unsubscribe):
            self._unsubscribe(connection, session, packet)
        elif isinstance(packet, Acknowledgement):
            self._acknowledged(connection, session, packet)
        elif packet.kind == packets.PINGREQ:
            connection.send(packets.pingresp())
        elif packet.kind == packets.DISCONNECT:
            self._end(connection, "disconnect")
        else:
            raise Violation(f"{packet.name} from a client")

    def _incoming(self, connection: Connection, session: Session, packet: Publish) -> None:
        topic = packets.encoded_topic(packet.topic)
        if not topic or not well_formed(topic) or b"+" in topic or b"#" in topic or packet.packet_id == 0:
            raise Violation("topic or Packet Identifier")
        new = packet.qos < 2 or packet.packet_id not in session.incoming
        if new and not (connection.role == "acl" and packet.topic == FORBIDDEN):
            if packet.retain:
                session.retained.add(packet.topic)
            self._publish(packet.topic, packet.payload, packet.qos, packet.retain)
        if packet.packet_id is not None and packet.qos == 1:
            connection.send(packets.puback(packet.packet_id))
        elif packet.packet_id is not None:
            session.incoming.add(packet.packet_id)
            connection.send(packets.pubrec(packet.packet_id))

    def _acknowledged(self, connection: Connection, session: Session, packet: Acknowledgement) -> None:
        identity = packet.packet_id
        if packet.kind == packets.PUBREL:
            session.incoming.discard(identity)
            connection.send(packets.pubcomp(identity))
        elif packet.kind == packets.PUBREC:
            for message in session.outgoing:
                if message.packet_id == identity and message.qos == 2:
                    message.state = "released"
            connection.send(packets.pubrel(identity))
        elif packet.kind in (packets.PUBACK, packets.PUBCOMP):
            session.outgoing = [message for message in session.outgoing if message.packet_id != identity]
        else:
            raise Violation(f"{packet.name} from a client")

    def _subscribe(self, connection: Connection, session: Session, packet: Subscribe) -> None:
        if not packet.filters or packet.packet_id == 0:
            raise Violation("no filter, or Packet Identifier 0")
        codes = []
        for raw_filter, qos in packet.filters:
            if qos > 2 or not valid_filter(raw_filter):
                raise Violation("filter or QoS")
            if connection.role == "acl" and raw_filter == FORBIDDEN.encode():
                codes.append(packets.SUBSCRIBE_FAILURE)
                continue
            codes.append(qos)
            session.subscriptions[raw_filter.decode()] = qos
            self._old_subscriptions.setdefault(session.client_id, {})[raw_filter.decode()] = qos
        connection.send(packets.suback(packet.packet_id, *codes))
        for (raw_filter, _), code in zip(packet.filters, codes, strict=True):
            if code <= 2:
                for topic, (payload, published) in list(self._retained.items()):
                    if matches(raw_filter.decode(), topic):
                        self._deliver(session, topic, payload, min(published, code), True)

    def _unsubscribe(self, connection: Connection, session: Session, packet: Unsubscribe) -> None:
        if not packet.filters or packet.packet_id == 0 or not all(map(valid_filter, packet.filters)):
            raise Violation("filter, or Packet Identifier 0")
        for topic_filter in packet.filters:
            session.unsubscribed[topic_filter.decode()] = session.subscriptions.pop(topic_filter.decode(), 0)
        connection.send(packets.unsuback(packet.packet_id))

    def _publish(
        self, topic: str, payload: bytes, qos: int, retain: bool, *, but: Session | None = None, upgrade: bool = False
    ) -> None:
        if retain and payload:
            self._retained[topic] = (payload, qos)
        elif retain:
            self._retained.pop(topic, None)
        for session in list(self._sessions.values()):
            granted = [qos for name, qos in session.subscriptions.items() if matches(name, topic)]
            if granted and session is not but:
                self._deliver(session, topic, payload, 2 if upgrade else min(qos, max(granted)), False)

    def _deliver(self, session: Session, topic: str, payload: bytes, qos: int, retain: bool) -> None:
        if session.connection is None:
            if self.has("nothing waits") or (self.has("only the first message waits") and session.outgoing):
                return
        elif self.has("keep alive counts what is received"):
            session.connection.last_packet = time.monotonic()
        if qos == 0:
            if session.connection:
                session.connection.send(packets.publish(topic, payload, retain=retain))
            return
        message = Outgoing(session.new_id(), topic, payload, qos, retain)
        session.outgoing.append(message)
        self._transmit(session, message)

    def _transmit(self, session: Session, message: Outgoing) -> None:
        if session.connection is None:
            return
        if message.state == "released":
            session.connection.send(packets.pubrel(message.packet_id))
            return
        session.connection.send(
            packets.publish(
                message.topic,
                message.payload,
                qos=message.qos,
                packet_id=message.packet_id,
                retain=message.retain,
                dup=message.state == "sent",
            )
        )
        message.state = "sent"


def scheme(role: str) -> str:
    return "ws" if role == "websocket" else "mqtt"


def packet_size(data: bytes) -> int:
    """How long the packet is that these bytes begin with; more than there are if they are too few to say."""
    length = 0
    for position, byte in enumerate(data[1:5]):
        length |= (byte & 127) << 7 * position
        if byte < 128:
            return 2 + position + length
    return len(data) + 1


def well_formed(data: bytes) -> bool:
    """Whether a string may stand in a packet [MQTT-1.5.3-1] [MQTT-1.5.3-2]."""
    try:
        return "\0" not in data.decode()
    except UnicodeDecodeError:
        return False


def valid_filter(data: bytes) -> bool:
    """Whether it is a Topic Filter [MQTT-4.7.1-2] [MQTT-4.7.1-3] [MQTT-4.7.3-1]."""
    if not data or not well_formed(data):
        return False
    levels = data.decode().split("/")
    alone: Iterable[bool] = (len(level) == 1 for level in levels if "+" in level or "#" in level)
    return all(alone) and "#" not in levels[:-1]


def matches(topic_filter: str, topic: str) -> bool:
    """Whether a filter takes a topic (section 4.7)."""
    wanted, given = topic_filter.split("/"), topic.split("/")
    if wanted[0] in ("+", "#") and topic.startswith("$"):
        return False
    for position, level in enumerate(wanted):
        if level == "#":
            return True
        if position >= len(given) or level not in ("+", given[position]):
            return False
    return len(wanted) == len(given)
