"""A client made of bytes: sends what it is given, and keeps a transcript.

Owns: `Raw`, the blocking byte-level client, and the exceptions for an answer that does not come.
Must not know: what a test expects (that is `expect`), pytest.

Whatever a test sends through `send` is judged by the test itself. The helpers `connect`, `subscribe`, `publish`, `ping`
and `next_message` are for bringing about the situation that a test is about: when the broker does not answer them as
it should, the test is INCONCLUSIVE, and the test of *that* rule is the one that fails.
"""

import contextlib
import time
from collections import deque
from collections.abc import Callable
from typing import NoReturn

from websockets.frames import Opcode

from . import packets
from .packets import Connack, Packet, Publish, Suback, Text, Will
from .streams import WebSocketStream
from .target import Endpoint
from .transcript import HAPPENED, RECEIVED, SENT, Transcript
from .verdicts import Inconclusive


class NoAnswer(Inconclusive):
    """What a client waited for did not come. A test that judges the answer catches this through `expect`."""


class Silence(NoAnswer):
    """Nothing came within the time allowed, and the connection is still open."""


class Closed(NoAnswer):
    """The broker has closed the connection."""


class Unreadable(NoAnswer):
    """The broker sent bytes that are no MQTT packet."""


class Raw:
    """One connection to the broker, driven by bytes. Not for use by two threads at a time.

    `patience` is how long, in seconds, an answer is waited for. `on_sent` is told each complete packet that was sent.
    A PUBLISH to a topic that `is_foreign` belongs to another test: it stands in the timeline and is passed over.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        name: str,
        transcript: Transcript,
        patience: float,
        on_sent: Callable[[Packet], None] = lambda packet: None,
        is_foreign: Callable[[str], bool] = lambda topic: False,
    ) -> None:
        self.name = name
        self.endpoint = endpoint
        self.patience = patience
        self.closed = ""  # how the connection ended: "FIN" or "RST" by the broker, "us" by this client
        self.closed_at = 0.0
        self.last_sent_at = 0.0
        self.received_anything = False
        self._transcript = transcript
        self._on_sent = on_sent
        self._is_foreign = is_foreign
        self._sent = packets.Decoder()
        self._received = packets.Decoder()
        self._unread: deque[Packet] = deque()
        self._next_packet_id = 0
        try:
            self._stream = endpoint.open(patience)
        except OSError as error:
            raise NoAnswer(f"{name}: no connection to {endpoint.url}: {error.strerror or error}") from None
        self._note(f"connected to {endpoint.url}")

    # Bytes

    def send(self, *data: bytes) -> None:
        """Sends bytes in one write. That the broker has closed is no error here: the next read tells it."""
        joined = b"".join(data)
        found = self._sent.feed(joined)
        if not found:
            meaning = packets.size(joined)
        else:
            meaning = "; ".join(map(str, found)) + " and a part of the next" * bool(self._sent.pending)
        self._transcript.add(self.name, SENT, meaning, joined)
        for packet in found:
            self._on_sent(packet)
        try:
            self._stream.send(joined, self.patience)
        except TimeoutError:
            raise Silence(f"{self.name}: the broker did not take {len(joined)} bytes in {self.patience:g} s") from None
        except OSError as error:
            self._note(f"could not be sent: {error.strerror or error}")
        self.last_sent_at = time.monotonic()

    def next(self, within: float | None = None) -> Packet:
        """The next packet from the broker. Raises Silence after `within` seconds, Closed, or Unreadable."""
        deadline = time.monotonic() + (self.patience if within is None else within)
        while not self._unread:
            self._receive(deadline)
        return self._unread.popleft()

    def take(
        self, kind: int, where: Callable[[Packet], bool] = lambda packet: True, within: float | None = None
    ) -> Packet:
        """The next packet of that type for which `where` holds; others stay to be read. Raises as `next` does."""
        deadline = time.monotonic() + (self.patience if within is None else within)
        return self._take(kind, lambda packet: not self._foreign(packet) and where(packet), deadline)

    @property
    def unread(self) -> list[Packet]:
        """The packets that have come and were not taken."""
        return list(self._unread)

    def finish_sending(self) -> None:
        """Sends FIN, and can still receive: what the broker sees of a client that ends without DISCONNECT."""
        self._note("FIN sent, without DISCONNECT")
        self._stream.finish_sending()

    def reset(self) -> None:
        """Ends the connection with RST, as a crash or a broken network does."""
        self._note("RST sent")
        self._stream.reset()
        self.close()

    def close(self) -> None:
        """Closes the socket, without DISCONNECT. Harmless if it is closed already."""
        if not self.closed:
            self.closed, self.closed_at = "us", time.monotonic()
            self._note("closed by the client")
        self._stream.close()

    def abort(self) -> None:
        """Makes another thread's wait on this connection end at once."""
        self._stream.abort()

    # WebSocket

    @property
    def websocket(self) -> WebSocketStream:
        """The WebSocket under this client, for tests of its frames."""
        assert isinstance(self._stream, WebSocketStream), f"{self.endpoint.url} is no WebSocket"
        return self._stream

    def send_frame(self, data: bytes, opcode: Opcode = Opcode.BINARY, *, fin: bool = True) -> None:
        """Sends one WebSocket frame, whatever it holds. What it leaves behind on the broker is not cleaned up."""
        self._transcript.add(self.name, SENT, f"{opcode.name} frame, FIN={fin:d}", data)
        try:
            self.websocket.send_frame(data, self.patience, opcode, fin=fin)
        except OSError as error:
            self._note(f"could not be sent: {error.strerror or error}")
        self.last_sent_at = time.monotonic()

    # Situations

    def connect(
        self,
        client_id: Text,
        *,
        clean: bool = True,
        keep_alive: int = 60,
        will: Will | None = None,
        username: Text | None = None,
        password: Text | None = None,
    ) -> Connack:
        """CONNECT, and the CONNACK that accepts it. Uses the endpoint's credentials unless others are given."""
        if username is None and password is None:
            username, password = self.endpoint.username, self.endpoint.password
        self.send(
            packets.connect(
                client_id, clean=clean, keep_alive=keep_alive, will=will, username=username, password=password
            )
        )
        answer = self.take(packets.CONNACK)
        if not isinstance(answer, Connack) or answer.code != 0:
            raise NoAnswer(f"{self.name}: an ordinary CONNECT was answered with {answer}")
        return answer

    def subscribe(self, topic_filter: Text, qos: int = 0) -> int:
        """SUBSCRIBE to one filter; the QoS that was granted. Messages may already have come before the answer."""
        packet_id = self.new_packet_id()
        self.send(packets.subscribe(packet_id, (topic_filter, qos)))
        answer = self._acknowledged(packets.SUBACK, packet_id)
        if not isinstance(answer, Suback) or len(answer.codes) != 1 or answer.codes[0] > 2:
            raise NoAnswer(f"{self.name}: an ordinary SUBSCRIBE was answered with {answer}")
        return answer.codes[0]

    def unsubscribe(self, topic_filter: Text) -> None:
        """UNSUBSCRIBE from one filter, acknowledged."""
        packet_id = self.new_packet_id()
        self.send(packets.unsubscribe(packet_id, topic_filter))
        self._acknowledged(packets.UNSUBACK, packet_id)

    def publish(self, topic: Text, payload: bytes, qos: int = 0, *, retain: bool = False) -> None:
        """PUBLISH, with all of its handshake. With QoS 0 nothing says that the broker has got it: see `ping`."""
        packet_id = self.new_packet_id() if qos else None
        self.send(packets.publish(topic, payload, qos=qos, packet_id=packet_id, retain=retain))
        if packet_id is None:
            return
        if qos == 1:
            self._acknowledged(packets.PUBACK, packet_id)
            return
        self._acknowledged(packets.PUBREC, packet_id)
        self.send(packets.pubrel(packet_id))
        self._acknowledged(packets.PUBCOMP, packet_id)

    def ping(self) -> None:
        """PINGREQ and PINGRESP: everything that was sent before has been read by the broker."""
        self.send(packets.pingreq())
        self.take(packets.PINGRESP)

    def next_message(self, within: float | None = None) -> Publish:
        """The next PUBLISH, acknowledged as its QoS demands."""
        deadline = time.monotonic() + (self.patience if within is None else within)
        while True:
            message = self._take(packets.PUBLISH, lambda packet: True, deadline)
            assert isinstance(message, Publish)
            if message.packet_id is not None and message.qos == 1:
                self.send(packets.puback(message.packet_id))
            elif message.packet_id is not None and message.qos == 2:
                self.send(packets.pubrec(message.packet_id))
                self._acknowledged(packets.PUBREL, message.packet_id)
                self.send(packets.pubcomp(message.packet_id))
            if not self._foreign(message):
                return message

    def disconnect(self) -> None:
        """DISCONNECT, and the end of the connection as the broker sees it."""
        self.send(packets.disconnect())
        self.finish_sending()
        self.wait_closed()
        self.close()

    def wait_closed(self, within: float | None = None) -> str:
        """Waits until the broker closes: "FIN" or "RST". Packets that come before can still be read. Raises Silence."""
        deadline = time.monotonic() + (self.patience if within is None else within)
        while not self.closed:
            with contextlib.suppress(Closed, Unreadable):
                self._receive(deadline)
        return self.closed

    def new_packet_id(self) -> int:
        """A Packet Identifier that this client has not used."""
        self._next_packet_id = self._next_packet_id % 65535 + 1
        return self._next_packet_id

    # The inside

    def _take(self, kind: int, where: Callable[[Packet], bool], deadline: float) -> Packet:
        passed = 0
        while True:
            while passed < len(self._unread):
                packet = self._unread[passed]
                if packet.kind == kind and where(packet):
                    del self._unread[passed]
                    return packet
                passed += 1
            self._receive(deadline)

    def _foreign(self, packet: Packet) -> bool:
        return isinstance(packet, Publish) and self._is_foreign(packet.topic)

    def _acknowledged(self, kind: int, packet_id: int) -> Packet:
        return self.take(kind, lambda packet: getattr(packet, "packet_id", None) == packet_id)

    def _receive(self, deadline: float) -> None:
        if self.closed:
            raise Closed(f"{self.name}: the connection is closed ({self.closed})")
        if self._received.broken:
            self._drain(deadline)
            return
        data = self._read(deadline)
        self.received_anything = True
        found = self._received.feed(data)
        if not found:
            self._transcript.add(self.name, RECEIVED, f"{packets.size(data)}, no complete packet yet", data)
        for packet in found:
            self._transcript.add(self.name, RECEIVED, str(packet), packet.wire)
        self._unread.extend(found)
        if self._received.broken:
            raise Unreadable(f"{self.name}: the broker sent bytes that are no packet: {self._received.broken}")

    def _drain(self, deadline: float) -> None:
        data = self._read(deadline)
        self._transcript.add(self.name, RECEIVED, f"{packets.size(data)} that cannot be read as packets", data)

    def _read(self, deadline: float) -> bytes:
        try:
            data = self._stream.receive(max(deadline - time.monotonic(), 0.001))
        except TimeoutError:
            raise Silence(f"{self.name}: nothing came from the broker in time, and the connection is open") from None
        except OSError as error:
            self._ended("RST", error.strerror or str(error))
        if not data:
            self._ended("FIN", "")
        return data

    def _ended(self, how: str, why: str) -> NoReturn:
        self.closed, self.closed_at = how, time.monotonic()
        left = self._received.pending
        rest = f", after {packets.size(left)} of a packet" if left and not self._received.broken else ""
        self._note(f"closed by the broker ({how}){rest}" + f": {why}" * bool(why))
        raise Closed(f"{self.name}: the broker closed the connection ({how})")

    def _note(self, text: str) -> None:
        self._transcript.add(self.name, HAPPENED, text)
