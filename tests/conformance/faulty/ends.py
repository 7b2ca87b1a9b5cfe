"""How a connection ends, and what that does to the will and the session (sections 3.1.2.5, 3.14, 4.1).

Owns: the end, whoever brings it about. Must not know: sockets' reading, packets.
"""

import itertools
import threading
import time

from conformance import packets
from tests.conformance.faulty.messages import Messages
from tests.conformance.faulty.state import Connection, Session

#: How much too late the will is with "will is late", in seconds.
LATE = 2.5


class Ends(Messages):
    """The broker as far as it lets clients go."""

    def _start(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _end(self, connection: Connection, why: str) -> None:
        """The connection is over, whoever ended it."""
        if connection not in self._connections:
            if connection.session and self.has("old connection ends the new session"):
                self._sessions.pop(connection.session.client_id, None)
            return
        self._connections.discard(connection)
        connection.close()
        session = connection.session
        if session is None or session.connection is not connection:
            return
        session.connection = None
        self._send_will(connection, session, why)
        ended = session.clean and not self.has("clean session outlives its connection")
        if why == "violation" and self.has("violation ends the session"):
            ended = True
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
        if self.has("end of a session ends others"):
            for other, name in itertools.product(self._sessions.values(), session.subscriptions):
                other.subscriptions.pop(name, None)
