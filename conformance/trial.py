"""What a test of the suite gets: clients, names that are its own, and a way to say more than pass or fail.

Owns: `Trial`, and the clean-up after a test. Must not know: pytest, statements, reports.
"""

import contextlib
import secrets
import string
import threading

from . import capabilities, packets
from .capabilities import Capability
from .clients import Client
from .packets import Connect, Packet, Publish, Text, Will
from .raw import NoAnswer, Raw
from .target import Broker, Endpoint
from .transcript import HAPPENED, Transcript

#: The characters that every broker must accept in a ClientId [MQTT-3.1.3-5].
CLIENT_ID_CHARACTERS = string.digits + string.ascii_letters

#: How often it is tried to remove a retained message: what stays behind would be delivered to tests that come later.
CLEAN_UPS = 3

#: What the topics of all tests begin with.
PREFIX = "conformance-"


class Trial:
    """One test's dealings with the broker. Safe on a shared broker: topics and ClientIds are this test's own, and
    what it has stored there (sessions, retained messages) is removed when it ends.

    `patience`: how long, in seconds, an answer is waited for. `transcript`: what went over the wire so far.
    `warnings`: what was said to `warn`; `notes`: what was said to `note`. `aborted`: whether it was ended from outside.
    `cut_off`: whether it came to its end because a connection ended on which something else was awaited.
    """

    def __init__(self, broker: Broker, found: dict[str, Capability], patience: float) -> None:
        self.broker = broker
        self.patience = patience
        self.transcript = Transcript()
        self.warnings: list[str] = []
        self.notes: list[str] = []
        self.aborted = False
        self.cut_off = False
        self._found = found
        self._prefix = f"{PREFIX}{secrets.token_hex(6)}"
        self._clients: list[Raw | Client] = []
        self._names: dict[str, int] = {}
        self._sessions: set[tuple[str, bytes]] = set()
        self._retained: set[tuple[str, bytes]] = set()
        self._lock = threading.Lock()

    # What is this test's own

    def topic(self, name: str = "topic") -> str:
        """A topic, or a Topic Filter, that no other test uses: `name` below a prefix of this test's own."""
        return f"{self._prefix}/{name}"

    @staticmethod
    def client_id(length: int = 20) -> str:
        """A random ClientId, of characters that every broker must accept."""
        return "".join(secrets.choice(CLIENT_ID_CHARACTERS) for _ in range(length))

    # Clients

    def raw(self, name: str = "client", endpoint: str = "main") -> Raw:
        """A TCP connection on which nothing has been sent. `name` stands in the timeline."""
        where = self._endpoint_for_a_client(endpoint)
        client = Raw(
            where,
            self._unique(name),
            self.transcript,
            self.patience,
            lambda packet: self._sent(where, packet),
            self._is_foreign,
        )
        self._clients.append(client)
        self._end_if_aborted(client)
        return client

    def connect_packet(
        self,
        client_id: Text = "",
        *,
        endpoint: str = "main",
        clean: bool = True,
        keep_alive: int = 60,
        will: Will | None = None,
        level: int = 4,
        name: Text = "MQTT",
        toggle: int = 0,
        header_flags: int = 0,
        extra: bytes = b"",
    ) -> bytes:
        """A CONNECT with the credentials that the endpoint wants, so that nothing is wrong with it but what the test
        makes wrong: by the last three arguments, see `packets.connect`."""
        where = self.endpoint(endpoint)
        return packets.connect(
            client_id,
            clean=clean,
            keep_alive=keep_alive,
            will=will,
            username=where.username,
            password=where.password,
            level=level,
            name=name,
            toggle=toggle,
            header_flags=header_flags,
            extra=extra,
        )

    def connected(self, name: str = "client", endpoint: str = "main") -> Raw:
        """A byte-level client, connected with CleanSession = 1 and a random ClientId."""
        raw = self.raw(name, endpoint)
        raw.connect(self.client_id())
        return raw

    def client(
        self,
        name: str = "client",
        endpoint: str = "main",
        *,
        client_id: str | None = None,
        clean: bool = True,
        keep_alive: int = 60,
        will: Will | None = None,
    ) -> Client:
        """A paho-mqtt client, connected. Random ClientId unless one is given."""
        where = self._endpoint_for_a_client(endpoint)
        identity = self.client_id() if client_id is None else client_id
        client = Client(
            where,
            self._unique(name),
            identity,
            self.transcript,
            self.patience,
            clean=clean,
            keep_alive=keep_alive,
            will=will,
            on_sent=lambda packet: self._sent(where, packet),
            is_foreign=self._is_foreign,
        )
        self._clients.append(client)
        client.connect()
        self._end_if_aborted(client)
        return client

    def subscriber(
        self, topic_filter: str, qos: int = 0, *, name: str = "subscriber", endpoint: str = "main"
    ) -> Client:
        """A paho-mqtt client with one subscription. Ends the test if not that QoS is granted."""
        client = self.client(name, endpoint)
        capabilities.require_granted(client.name, qos, client.subscribe(topic_filter, qos))
        return client

    # The broker

    def endpoint(self, role: str) -> Endpoint:
        """An endpoint of the profile. Inconclusive if it does not name one of that role."""
        if role != "main":
            self.require(role)
        return self.broker.endpoints[role]

    def require(self, name: str) -> None:
        """Ends the test with NOT APPLICABLE or INCONCLUSIVE if the broker lacks it: a name of `capabilities.NEEDS`."""
        capabilities.require(name, self.broker, self._found)

    def has(self, name: str) -> bool:
        """Whether the broker was seen to have a capability of `capabilities.CAPABILITIES`."""
        return self._found[name].present

    @property
    def highest_qos(self) -> int:
        """The highest QoS that the broker was seen to grant."""
        return max((qos for qos in (1, 2) if self.has(f"qos-{qos}")), default=0)

    # Words

    def warn(self, text: str) -> None:
        """A SHOULD is not followed, or the broker does what it may but few do: at best the test ends with WARN."""
        self.warnings.append(text)
        self.transcript.add("test", HAPPENED, f"warning: {text}")

    def note(self, text: str) -> None:
        """Something worth knowing, such as a measured time. It stands in the report and changes nothing."""
        self.notes.append(text)

    # The end

    def abort(self) -> None:
        """Makes the test end at once, from another thread."""
        self.aborted = True
        for client in list(self._clients):
            client.abort()

    def clean_up(self) -> None:
        """Closes what is open, and removes what the test has stored on the broker. Raises nothing."""
        self.transcript.add("test", HAPPENED, "ended; what follows is clean-up")
        for client in self._clients:
            with contextlib.suppress(NoAnswer):
                if isinstance(client, Raw) and client.last_sent_at and not client.closed:
                    client.send(packets.disconnect())  # or the will of a test that is over would be published
                client.close()
        for role, client_id in self._sessions:
            with contextlib.suppress(NoAnswer):
                self._forget_session(role, client_id)
        for role in {role for role, _ in self._retained}:
            for _ in range(CLEAN_UPS):
                with contextlib.suppress(NoAnswer):
                    self._forget_retained(role, [topic for where, topic in self._retained if where == role])
                    break

    def _end_if_aborted(self, client: Raw | Client) -> None:
        # `abort` does not know a client that was just being made.
        if self.aborted:
            client.abort()

    def _endpoint_for_a_client(self, role: str) -> Endpoint:
        if self.aborted:
            raise NoAnswer("the test was ended from outside")
        return self.endpoint(role)

    def _forget_session(self, role: str, client_id: bytes) -> None:
        raw = Raw(self.broker.endpoints[role], "clean-up", Transcript(), self.patience)
        with contextlib.closing(raw):
            raw.connect(client_id)
            raw.disconnect()

    def _forget_retained(self, role: str, topics: list[bytes]) -> None:
        raw = Raw(self.broker.endpoints[role], "clean-up", Transcript(), self.patience)
        with contextlib.closing(raw):
            raw.connect(self.client_id())
            for topic in topics:
                raw.publish(topic, b"", 1, retain=True)
            raw.disconnect()

    def _sent(self, endpoint: Endpoint, packet: Packet) -> None:
        """Remembers what a packet may leave behind on the broker."""
        if packet.problem or not packet.flags_valid:
            return
        with self._lock:
            if isinstance(packet, Connect):
                if not packet.clean and packet.client_id:
                    self._sessions.add((endpoint.role, packet.client_id))
                if packet.will and packet.will.retain:
                    self._retained.add((endpoint.role, packets.encoded(packet.will.topic)))
            elif isinstance(packet, Publish) and packet.retain:
                self._retained.add((endpoint.role, packets.encoded_topic(packet.topic)))

    def _is_foreign(self, topic: str) -> bool:
        """Whether a topic is another test's. Some brokers deliver messages to clients that have not subscribed to them:
        one test says so, and the others can do without."""
        return topic.startswith(PREFIX) and not topic.startswith(self._prefix)

    def _unique(self, name: str) -> str:
        with self._lock:
            count = self._names[name] = self._names.get(name, 0) + 1
        return name if count == 1 else f"{name} {count}"
