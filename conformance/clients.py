"""Well-behaved clients: paho-mqtt, with waits that have a condition and a deadline.

Owns: `Client`. Must not know: what a test expects (that is `expect`), pytest, raw bytes.

Like the helpers of `raw.Raw`, everything here brings about a situation: when the broker does not play its part, the
test is INCONCLUSIVE. paho-mqtt keeps its bytes to itself, so the timeline shows what paho logs.
"""

import contextlib
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode

from . import packets
from .packets import Packet, Publish, Will
from .raw import Closed, NoAnswer, Silence
from .target import Endpoint
from .transcript import HAPPENED, RECEIVED, SENT, Transcript


class Client:
    """A paho-mqtt client of MQTT 3.1.1 with a thread of its own; it never connects again by itself.

    `patience` is how long, in seconds, anything is waited for. `on_sent` is told what leaves something behind on a
    broker: CONNECT and PUBLISH. A message to a topic that `is_foreign` belongs to another test, and is passed over.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        name: str,
        client_id: str,
        transcript: Transcript,
        patience: float,
        *,
        clean: bool = True,
        keep_alive: int = 60,
        will: Will | None = None,
        on_sent: Callable[[Packet], None] = lambda packet: None,
        is_foreign: Callable[[str], bool] = lambda topic: False,
    ) -> None:
        self.name = name
        self.endpoint = endpoint
        self.client_id = client_id
        self.patience = patience
        self._keep_alive = keep_alive
        self._connect = packets.connect(client_id, clean=clean, will=will)
        self._on_sent = on_sent
        self._is_foreign = is_foreign
        self._transcript = transcript
        self._changed = threading.Condition()
        self._messages: deque[Publish] = deque()
        self._granted: dict[int, list[int]] = {}
        self._unsubscribed: set[int] = set()
        self._published: set[int] = set()
        self._connack: Any = None
        self.session_present = False
        self._ended = False
        self._paho = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            clean_session=clean,
            protocol=paho.MQTTv311,
            reconnect_on_failure=False,
            manual_ack=True,
            transport="websockets" if endpoint.websocket else "tcp",
        )
        if will is not None:
            topic = packets.encoded(will.topic).decode()
            self._paho.will_set(topic, will.payload, will.qos, will.retain)
        if endpoint.username is not None:
            self._paho.username_pw_set(endpoint.username, endpoint.password)
        if endpoint.websocket:
            self._paho.ws_set_options(endpoint.path or "/")
        if endpoint.tls:
            self._paho.tls_set_context(endpoint.tls_context())
        self._paho.on_connect = self._on_connect
        self._paho.on_disconnect = self._on_disconnect
        self._paho.on_message = self._on_message
        self._paho.on_subscribe = self._on_subscribe
        self._paho.on_unsubscribe = self._on_unsubscribe
        self._paho.on_publish = self._on_publish
        self._paho.on_log = self._on_log

    def connect(self) -> None:
        """CONNECT, and the CONNACK that accepts it; `session_present` is what it said."""
        self._tell(self._connect)
        try:
            self._paho.connect(self.endpoint.host, self.endpoint.port, self._keep_alive)
        except OSError as error:
            raise NoAnswer(f"{self.name}: no connection to {self.endpoint.url}: {error.strerror or error}") from None
        self._paho.loop_start()
        self._wait(lambda: self._connack is not None, "CONNACK")
        if self._connack.is_failure:
            raise NoAnswer(f"{self.name}: an ordinary CONNECT was refused: {self._connack}")

    def subscribe(self, topic_filter: str, qos: int = 0) -> int:
        """SUBSCRIBE to one filter; the QoS that was granted."""
        result, mid = self._paho.subscribe(topic_filter, qos)
        self._require(result, "SUBSCRIBE")
        assert mid is not None
        self._wait(lambda: mid in self._granted, "SUBACK")
        codes = self._granted[mid]
        if len(codes) != 1 or codes[0] > 2:
            raise NoAnswer(f"{self.name}: an ordinary SUBSCRIBE was answered with the codes {codes}")
        return codes[0]

    def unsubscribe(self, topic_filter: str) -> None:
        """UNSUBSCRIBE from one filter, acknowledged."""
        result, mid = self._paho.unsubscribe(topic_filter)
        self._require(result, "UNSUBSCRIBE")
        self._wait(lambda: mid in self._unsubscribed, "UNSUBACK")

    def publish(self, topic: str, payload: bytes, qos: int = 0, *, retain: bool = False) -> None:
        """PUBLISH, with all of its handshake. With QoS 0 nothing says that the broker has got it."""
        self._tell(packets.publish(topic, payload, qos=qos, packet_id=qos or None, retain=retain))
        info = self._paho.publish(topic, payload, qos, retain)
        self._require(info.rc, "PUBLISH")
        self._wait(lambda: info.mid in self._published, f"the acknowledgement of a PUBLISH with QoS {qos}")
        self._published.discard(info.mid)  # identifiers are used again

    def next_message(self, within: float | None = None) -> Publish:
        """The next message that came, acknowledged now. Raises Silence after `within` seconds, or Closed."""
        deadline = time.monotonic() + (self.patience if within is None else within)
        while True:
            message = self._next_message(deadline)
            if not self._is_foreign(message.topic):
                return message

    def _next_message(self, deadline: float) -> Publish:
        self._wait(lambda: bool(self._messages), "a message", deadline - time.monotonic())
        message = self._messages.popleft()
        # By hand, because paho would acknowledge only after it has told us: a test that then disconnects may be faster,
        # and the broker would be right to send the message again.
        if message.packet_id is not None:
            self._paho.ack(message.packet_id, message.qos)
        return message

    def disconnect(self) -> None:
        """DISCONNECT, and the end of the connection."""
        self._paho.disconnect()
        self.close()

    def drop(self) -> None:
        """Ends the connection without DISCONNECT."""
        self.abort()
        self.close()

    def abort(self) -> None:
        """Breaks the connection off; also makes another thread's wait on this client end."""
        connection = self._paho.socket()
        if connection is None:
            return
        # A duplicate, because paho's own socket of a WebSocket cannot be shut down.
        with contextlib.suppress(OSError, ValueError), socket.socket(fileno=os.dup(connection.fileno())) as duplicate:
            duplicate.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Waits until the client's thread has ended, with DISCONNECT if it is still connected."""
        if self._paho.is_connected():
            self._paho.disconnect()
        self._paho.loop_stop()
        # Or paho would keep two sockets until the garbage collector comes by, and it cannot use more than 1024.
        with contextlib.suppress(ValueError):  # paho-mqtt 2.1 fails here, but only after it has closed them
            self._paho.reinitialise()

    def wait_closed(self, within: float | None = None) -> None:
        """Waits until the broker has closed the connection. Raises Silence."""
        self._wait(lambda: self._ended, "", within, even_closed=True)

    def _wait(
        self, condition: Callable[[], bool], what: str, within: float | None = None, *, even_closed: bool = False
    ) -> None:
        deadline = time.monotonic() + (self.patience if within is None else within)
        with self._changed:
            while not condition():
                if self._ended and not even_closed:
                    raise Closed(f"{self.name}: the connection ended before {what} came")
                left = deadline - time.monotonic()
                if left <= 0:
                    raise Silence(f"{self.name}: {what or 'the end of the connection'} did not come in time")
                self._changed.wait(left)

    def _tell(self, packet: bytes) -> None:
        """Tells `on_sent` of a packet as paho sends it, but for the Packet Identifier."""
        for found in packets.decode_all(packet):
            self._on_sent(found)

    def _require(self, result: int, what: str) -> None:
        if result != paho.MQTT_ERR_SUCCESS:
            raise Closed(f"{self.name}: {what} could not be sent: {paho.error_string(MQTTErrorCode(result))}")

    # paho-mqtt calls these in the client's own thread. Their types are paho's business.

    def _on_connect(self, client: Any, userdata: Any, flags: Any, code: Any, properties: Any) -> None:
        with self._changed:
            self._connack = code
            self.session_present = flags.session_present
            self._changed.notify_all()

    def _on_disconnect(self, client: Any, userdata: Any, flags: Any, code: Any, properties: Any) -> None:
        self._transcript.add(self.name, HAPPENED, f"connection ended: {code}")
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _on_message(self, client: Any, userdata: Any, message: paho.MQTTMessage) -> None:
        publish = Publish(
            packets.PUBLISH,
            message.dup << 3 | message.qos << 1 | message.retain,
            b"",
            topic=message.topic,
            packet_id=message.mid if message.qos else None,
            payload=bytes(message.payload),
        )
        with self._changed:
            self._messages.append(publish)
            self._changed.notify_all()

    def _on_subscribe(self, client: Any, userdata: Any, mid: int, codes: Any, properties: Any) -> None:
        with self._changed:
            self._granted[mid] = [code.value for code in codes]
            self._changed.notify_all()

    def _on_unsubscribe(self, client: Any, userdata: Any, mid: int, codes: Any, properties: Any) -> None:
        with self._changed:
            self._unsubscribed.add(mid)
            self._changed.notify_all()

    def _on_publish(self, client: Any, userdata: Any, mid: int, code: Any, properties: Any) -> None:
        with self._changed:
            self._published.add(mid)
            self._changed.notify_all()

    def _on_log(self, client: Any, userdata: Any, level: int, text: str) -> None:
        first, _, rest = text.partition(" ")
        direction = {"Sending": SENT, "Received": RECEIVED}.get(first, HAPPENED)
        self._transcript.add(self.name, direction, text if direction == HAPPENED else f"{rest} (paho)")
