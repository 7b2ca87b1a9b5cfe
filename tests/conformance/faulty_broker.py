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

#: The statements of acknowledgements that are nothing but a Packet Identifier.
ACKNOWLEDGEMENTS = ("3.4.1/length", "3.5.1/length", "3.6.1/length", "3.7.1/length")

#: Each fault, and the statements that a broker with it breaks.
FAULTS: dict[str, tuple[str, ...]] = {
    # 2.2 Fixed header
    "reserved packet types are ignored": ("2.2.1/reserved-types",),
    "answers have header flags": ("MQTT-2.2.2-1", "MQTT-3.6.1-1"),
    "header flags are not checked": ("MQTT-2.2.2-2", "MQTT-3.6.1-1"),
    "packets with wrong header flags are dropped": ("MQTT-2.2.2-2", "MQTT-3.6.1-1"),
    "packets above 126 bytes are refused": ("2.2.3/length",),
    "padded lengths are ignored": ("2.2.3/length",),
    "five length bytes are ignored": ("2.2.3/four-bytes",),
    # 2.3 Packet Identifier
    "identifier 0 is taken": ("MQTT-2.3.1-1",),
    "identifiers begin with 0": ("MQTT-2.3.1-1",),
    "all identifiers are 1": ("MQTT-2.3.1-4", "MQTT-4.3.2-1", "MQTT-4.3.3-1"),
    "identifiers are free after PUBREC": ("MQTT-2.3.1-4",),
    "identifiers in use are forgotten": ("MQTT-2.3.1-4",),
    "QoS 0 has an identifier": ("MQTT-2.3.1-5",),
    "QoS 0 is read with an identifier": ("MQTT-2.3.1-5",),
    "PUBACK has the wrong identifier": ("MQTT-2.3.1-6", "MQTT-4.3.2-2"),
    "PUBREC has the wrong identifier": ("MQTT-2.3.1-6", "MQTT-4.3.3-2"),
    "PUBREL has the wrong identifier": ("MQTT-2.3.1-6", "MQTT-4.3.3-1"),
    "PUBCOMP has the wrong identifier": ("3.7.2/identifier", "MQTT-4.3.3-2"),
    "SUBACK has the wrong identifier": ("MQTT-2.3.1-7",),
    "UNSUBACK has the wrong identifier": ("MQTT-2.3.1-7",),
    "identifiers are shared by both directions": ("2.3.1/independent",),
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
    "connect header flags are ignored": ("MQTT-3.1.4-1", "MQTT-2.2.2-2"),
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
    # 3.3 PUBLISH
    "redelivery has no DUP": ("MQTT-3.3.1-1", "MQTT-4.4.0-1"),
    "QoS 0 has DUP": ("MQTT-3.3.1-2", "MQTT-4.3.1-1"),
    "DUP is propagated": ("MQTT-3.3.1-3",),
    "stored messages have DUP": ("MQTT-3.3.1-3",),
    "QoS 3 is taken": ("MQTT-3.3.1-4",),
    "nothing is retained": ("MQTT-3.3.1-5", "MQTT-3.3.1-6", "MQTT-3.3.1-8"),
    "retained messages have QoS 0": ("MQTT-3.3.1-5",),
    "retained messages are cut": ("MQTT-3.3.1-5",),
    "retained messages are sent once": ("MQTT-3.3.1-5", "MQTT-3.3.1-6"),
    "retained messages are not replaced": ("MQTT-3.3.1-6", "MQTT-3.3.1-7"),
    "one retained message is sent": ("MQTT-3.3.1-6",),
    "QoS 0 discards nothing": ("MQTT-3.3.1-7",),
    "retained messages come without RETAIN": ("MQTT-3.3.1-8",),
    "RETAIN is propagated": ("MQTT-3.3.1-9", "MQTT-3.3.1-10"),
    "empty messages remove nothing": ("MQTT-3.3.1-10",),
    "empty messages are not delivered": ("MQTT-3.3.1-10",),
    "empty messages are retained": ("MQTT-3.3.1-11",),
    "everything is retained": ("MQTT-3.3.1-12",),
    "all empty messages remove": ("MQTT-3.3.1-12",),
    "malformed packets are ignored": ("MQTT-3.3.2-1", *ACKNOWLEDGEMENTS),
    "topics are not checked": ("MQTT-3.3.2-1",),
    "topics are changed": ("MQTT-3.3.2-1", "MQTT-3.3.2-3"),
    "wildcards in a topic": ("MQTT-3.3.2-2",),
    "PUBACK and PUBREC are mixed up": ("MQTT-3.3.4-1",),
    "QoS 0 is acknowledged": ("MQTT-3.3.4-1",),
    "the lowest QoS counts": ("MQTT-3.3.5-1",),
    "forbidden messages are not acknowledged": ("MQTT-3.3.5-2",),
    # 3.4 to 3.7 Acknowledgements
    "acknowledgements are too long": ACKNOWLEDGEMENTS,
    # 4.3 Quality of Service
    "QoS 0 is sent again": ("4.3.1/once",),
    "some messages are lost": ("4.3/end-to-end",),
    "acknowledgements end nothing": ("4.3.2/done", "4.3.3/done", "MQTT-4.4.0-1"),
    "known identifiers are not new": ("MQTT-4.3.2-2",),
    "no PUBREL": ("MQTT-4.3.3-1",),
    "PUBLISH is sent again after PUBREL": ("MQTT-4.3.3-1",),
    "duplicates are delivered": ("MQTT-4.3.3-2",),
    "duplicates are not acknowledged": ("MQTT-4.3.3-2",),
    "completed identifiers are not new": ("MQTT-4.3.3-2",),
    "incoming identifiers are forgotten": ("MQTT-4.3.3-2",),
    "unknown identifiers are not completed": ("MQTT-4.3.3-2",),
    # 4.4 Sending again
    "nothing is sent again": ("MQTT-4.4.0-1", "MQTT-4.3.2-1", "MQTT-4.3.3-1"),
    "sent again under new identifiers": ("MQTT-4.4.0-1", "MQTT-4.3.2-1", "MQTT-4.3.3-1"),
    "PUBREL is not sent again": ("MQTT-4.4.0-1", "MQTT-4.3.3-1"),
    # 4.6 Order
    "sent again in reverse": ("MQTT-4.6.0-1", "MQTT-4.6.0-4", "MQTT-4.6.0-6"),
    "PUBRELs change places": ("MQTT-4.6.0-4", "MQTT-4.6.0-6"),
    "messages change places": ("MQTT-4.6.0-5", "MQTT-4.6.0-6"),
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
    "QoS 0 is not retained": ("3.3.1.3/qos-0-retained",),
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
    dup: bool = False


@dataclass
class Session:
    client_id: bytes
    clean: bool
    subscriptions: dict[str, int] = field(default_factory=dict)
    outgoing: list[Outgoing] = field(default_factory=list)
    incoming: set[int] = field(default_factory=set)
    retained: set[str] = field(default_factory=set)
    unsubscribed: dict[str, int] = field(default_factory=dict)
    known: set[int] = field(default_factory=set)
    delivered: list[tuple[str, bytes]] = field(default_factory=list)
    waiting: list[tuple[str, bytes, int, bool]] = field(default_factory=list)
    count: int = 0
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
        self._dup = False  # of the message that is being delivered
        self._retained_with_dup: set[str] = set()
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
            if self.has("malformed connect is ignored") or self.has("five length bytes are ignored"):
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
        for topic, payload in session.delivered if session.connection else []:
            session.connection.send(packets.publish(topic, payload))  # type: ignore[union-attr]
        if self.has("incoming identifiers are forgotten"):
            session.incoming.clear()
        if self.has("nothing is sent again"):
            session.outgoing = [message for message in session.outgoing if message.state == "queued"]
        if self.has("PUBREL is not sent again"):
            session.outgoing = [message for message in session.outgoing if message.state != "released"]
        if self.has("identifiers in use are forgotten"):
            session.next_id = 0
        step = -1 if self.has("sent again in reverse") else 1
        for message in session.outgoing[::step]:
            if self.has("sent again under new identifiers"):
                message.packet_id = session.new_id()
            if message.state == "released" and self.has("PUBLISH is sent again after PUBREL"):
                self._answer(session.connection, packets.PUBREL, message.packet_id)
                message.state = "sent"
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
        if self._ignored(packet):
            return
        problem = self._malformed(packet)
        if problem:
            raise Violation(problem)
        if isinstance(packet, Publish):
            self._incoming(connection, session, packet)
        elif isinstance(packet, Subscribe):
            self._subscribe(connection, session, packet)
        elif isinstance(packet, Unsubscribe):
            self._unsubscribe(connection, session, packet)
        elif isinstance(packet, Acknowledgement):
            self._acknowledged(connection, session, packet)
        elif packet.kind == packets.PINGREQ:
            connection.send(packets.frame(packets.PINGRESP, 0b0010 * self.has("answers have header flags")))
        elif packet.kind == packets.DISCONNECT:
            self._end(connection, "disconnect")
        else:
            raise Violation(f"{packet.name} from a client")

    def _ignored(self, packet: Packet) -> bool:
        """Whether a fault makes the broker pass over the packet."""
        padded = packet.wire[1:] != packets.remaining_length(len(packet.body)) + packet.body
        return any(
            (
                packet.kind in (0, 15) and self.has("reserved packet types are ignored"),
                not packet.flags_valid and self.has("packets with wrong header flags are dropped"),
                bool(packet.problem) and self.has("malformed packets are ignored"),
                padded and self.has("padded lengths are ignored"),
            )
        )

    def _malformed(self, packet: Packet) -> str:
        """What is wrong with a packet's form; empty if nothing is."""
        if not packet.flags_valid and not self.has("header flags are not checked"):
            return "header flags"
        if len(packet.body) > 126 and self.has("packets above 126 bytes are refused"):
            return "too long"
        if packet.problem == "QoS 3" and self.has("QoS 3 is taken"):
            return ""
        return packet.problem

    def _answer(self, connection: Connection | None, kind: int, packet_id: int, codes: Iterable[int] = ()) -> None:
        if connection is None:
            return
        if f"{packets.NAMES[kind]} has the wrong identifier" in self.faults:
            packet_id ^= 1
        flags = packets.FLAGS[kind] ^ 0b0010 * self.has("answers have header flags")
        surplus = kind <= packets.PUBCOMP and self.has("acknowledgements are too long")
        packet = packets.frame(kind, flags, packet_id.to_bytes(2, "big") + bytes(codes) + b"\0" * surplus)
        if kind == packets.PUBREL and self.has("PUBRELs change places"):
            connection.held.append(packet)
            if len(connection.held) == 2:
                connection.send(b"".join(reversed(connection.held)))
                connection.held.clear()
        else:
            connection.send(packet)

    def _incoming(self, connection: Connection, session: Session, packet: Publish) -> None:
        topic = packets.encoded_topic(packet.topic)
        if not topic or (not well_formed(topic) and not self.has("topics are not checked")):
            raise Violation("topic")
        if (b"+" in topic or b"#" in topic) and not self.has("wildcards in a topic"):
            raise Violation("wildcards in the topic")
        if packet.packet_id == 0 and not self.has("identifier 0 is taken"):
            raise Violation("Packet Identifier 0")
        identity, payload = packet.packet_id, packet.payload
        used = {message.packet_id for message in session.outgoing}
        if identity in used and self.has("identifiers are shared by both directions"):
            return
        if identity is None and self.has("QoS 0 is read with an identifier"):
            payload = payload[2:]
        again = packet.qos >= 2 and identity in session.incoming
        if again and self.has("duplicates are not acknowledged"):
            return
        new = not again or self.has("duplicates are delivered")
        if packet.qos == 1 and self.has("known identifiers are not new") and identity is not None:
            new = identity not in session.known
            session.known.add(identity)
        forbidden = connection.role == "acl" and packet.topic == FORBIDDEN
        if forbidden and self.has("forbidden messages are not acknowledged"):
            return
        if new and not forbidden:
            if packet.retain:
                session.retained.add(packet.topic)
                if packet.dup:
                    self._retained_with_dup.add(packet.topic)
            self._dup = packet.dup
            self._publish(packet.topic, payload, packet.qos, packet.retain)
            self._dup = False
        if identity is None:
            if self.has("QoS 0 is acknowledged"):
                self._answer(connection, packets.PUBACK, 1)
            return
        if packet.qos >= 2:
            session.incoming.add(identity)
        first = (packet.qos == 1) != self.has("PUBACK and PUBREC are mixed up")
        self._answer(connection, packets.PUBACK if first else packets.PUBREC, identity)

    def _acknowledged(self, connection: Connection, session: Session, packet: Acknowledgement) -> None:
        identity = packet.packet_id
        if packet.kind == packets.PUBREL:
            if identity not in session.incoming and self.has("unknown identifiers are not completed"):
                return
            if not self.has("completed identifiers are not new"):
                session.incoming.discard(identity)
            self._answer(connection, packets.PUBCOMP, identity)
        elif packet.kind == packets.PUBREC:
            for message in session.outgoing:
                if message.packet_id == identity and message.qos == 2:
                    message.state = "released"
            if not self.has("no PUBREL"):
                self._answer(connection, packets.PUBREL, identity)
        elif packet.kind in (packets.PUBACK, packets.PUBCOMP):
            if not self.has("acknowledgements end nothing"):
                session.outgoing = [message for message in session.outgoing if message.packet_id != identity]
        else:
            raise Violation(f"{packet.name} from a client")

    def _subscribe(self, connection: Connection, session: Session, packet: Subscribe) -> None:
        if not packet.filters or (packet.packet_id == 0 and not self.has("identifier 0 is taken")):
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
        self._answer(connection, packets.SUBACK, packet.packet_id, codes)
        for (raw_filter, _), code in zip(packet.filters, codes, strict=True):
            if code <= 2:
                self._send_retained(session, raw_filter.decode(), code)
            if self.has("one retained message is sent"):
                break

    def _send_retained(self, session: Session, topic_filter: str, granted: int) -> None:
        for topic, (payload, published) in list(self._retained.items()):
            if matches(topic_filter, topic):
                self._dup = topic in self._retained_with_dup
                if self.has("retained messages are cut"):
                    payload = payload[:100] if len(payload) > 1 else b""
                flag = not self.has("retained messages come without RETAIN")
                self._deliver(session, topic, payload, min(published, granted), flag)
                self._dup = False
                if self.has("retained messages are sent once"):
                    del self._retained[topic]
                if self.has("one retained message is sent"):
                    return

    def _unsubscribe(self, connection: Connection, session: Session, packet: Unsubscribe) -> None:
        zero = packet.packet_id == 0 and not self.has("identifier 0 is taken")
        if not packet.filters or zero or not all(map(valid_filter, packet.filters)):
            raise Violation("filter, or Packet Identifier 0")
        for topic_filter in packet.filters:
            session.unsubscribed[topic_filter.decode()] = session.subscriptions.pop(topic_filter.decode(), 0)
        self._answer(connection, packets.UNSUBACK, packet.packet_id)

    def _publish(
        self, topic: str, payload: bytes, qos: int, retain: bool, *, but: Session | None = None, upgrade: bool = False
    ) -> None:
        self._retain(topic, payload, qos, retain)
        if retain and not payload and self.has("empty messages are not delivered"):
            return
        flag = retain and self.has("RETAIN is propagated")
        for session in list(self._sessions.values()):
            granted = [qos for name, qos in session.subscriptions.items() if matches(name, topic)]
            if granted and session is not but:
                held = min(granted) if self.has("the lowest QoS counts") else max(granted)
                self._deliver(session, topic, payload, 2 if upgrade else min(qos, held), flag)

    def _retain(self, topic: str, payload: bytes, qos: int, retain: bool) -> None:
        if not payload and (retain or self.has("all empty messages remove")):
            if self.has("empty messages are retained"):
                self._retained[topic] = (payload, qos)
            elif not self.has("empty messages remove nothing"):
                self._retained.pop(topic, None)
            return
        if not (retain or self.has("everything is retained")) or self.has("nothing is retained"):
            return
        if topic in self._retained and self.has("retained messages are not replaced"):
            return
        if qos == 0 and self.has("QoS 0 discards nothing"):
            return
        if qos == 0 and self.has("QoS 0 is not retained"):
            self._retained.pop(topic, None)
            return
        self._retained[topic] = (payload, 0 if self.has("retained messages have QoS 0") else qos)

    def _deliver(self, session: Session, topic: str, payload: bytes, qos: int, retain: bool) -> None:
        session.count += 1
        if session.count % 7 == 0 and self.has("some messages are lost"):
            return
        if self.has("topics are changed"):
            topic += "x"
        if not self.has("messages change places"):
            self._deliver_now(session, topic, payload, qos, retain)
            return
        session.waiting.append((topic, payload, qos, retain))
        if len(session.waiting) == 5:
            for waiting in reversed(session.waiting):
                self._deliver_now(session, *waiting)
            session.waiting.clear()

    def _deliver_now(self, session: Session, topic: str, payload: bytes, qos: int, retain: bool) -> None:
        if session.connection is None:
            if self.has("nothing waits") or (self.has("only the first message waits") and session.outgoing):
                return
        elif self.has("keep alive counts what is received"):
            session.connection.last_packet = time.monotonic()
        if qos == 0:
            if session.connection:
                packet_id = 1 if self.has("QoS 0 has an identifier") else None
                dup = self.has("QoS 0 has DUP")
                session.connection.send(packets.publish(topic, payload, packet_id=packet_id, retain=retain, dup=dup))
                if self.has("QoS 0 is sent again"):
                    session.delivered.append((topic, payload))
            return
        message = Outgoing(self._new_id(session), topic, payload, qos, retain)
        message.dup = self._dup and self.has("DUP is propagated")
        if session.connection is None and self.has("stored messages have DUP"):
            message.dup = True
        session.outgoing.append(message)
        self._transmit(session, message)

    def _new_id(self, session: Session) -> int:
        if self.has("all identifiers are 1"):
            return 1
        if self.has("identifiers begin with 0") or self.has("identifiers in use are forgotten"):
            session.next_id += 1
            return session.next_id - self.has("identifiers begin with 0")
        if self.has("identifiers are free after PUBREC"):
            used = {message.packet_id for message in session.outgoing if message.state != "released"}
            return next(number for number in range(1, 65536) if number not in used)
        return session.new_id()

    def _transmit(self, session: Session, message: Outgoing) -> None:
        if session.connection is None:
            return
        if message.state == "released":
            self._answer(session.connection, packets.PUBREL, message.packet_id)
            return
        session.connection.send(
            packets.publish(
                message.topic,
                message.payload,
                qos=message.qos,
                packet_id=message.packet_id,
                retain=message.retain,
                dup=message.dup or (message.state == "sent" and not self.has("redelivery has no DUP")),
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
