"""What the broker knows of its clients: sessions, connections, messages under way.

Owns: the records, and the names of what the endpoints are for. Must not know: what a packet does.
"""

import contextlib
import socket
import time
from dataclasses import dataclass, field

from conformance.packets import Decoder, Will
from tests.conformance.faulty.websocket import WebSocket

USERNAME, PASSWORD = "alice", "open sesame"
REFUSED_CLIENT_ID = "refused"
FORBIDDEN = "forbidden/topic"
LIMIT = 2

#: What the broker says of itself.
SYS_TOPIC = "$SYS/broker/version"


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
    resumed: set[str] = field(default_factory=set)
    copies: dict[str, int] = field(default_factory=dict)
    deaf: bool = False
    logins: int = 0
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
        self.previous = 0  # the type of the packet before this one in the same segment

    def send(self, data: bytes) -> None:
        with contextlib.suppress(OSError):
            self.sock.sendall(data)

    def close(self) -> None:
        self.open = False
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
