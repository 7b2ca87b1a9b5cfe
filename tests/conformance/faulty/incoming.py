"""What a connected client sends (sections 2.2, 3.3 to 3.7, 3.12, 3.14).

Owns: which packet does what, PUBLISH and its acknowledgements, PINGREQ, DISCONNECT. Must not know: CONNECT, sockets.
"""

from conformance import packets
from conformance.packets import Acknowledgement, Packet, Publish, Subscribe, Unsubscribe
from tests.conformance.faulty.ends import Ends
from tests.conformance.faulty.state import FORBIDDEN, Connection, Session, Violation
from tests.conformance.faulty.subscriptions import Subscriptions
from tests.conformance.faulty.topics import well_formed


class Incoming(Subscriptions, Ends):
    """The broker as far as it does what connected clients ask for."""

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
            self._ping(connection, session)
        elif packet.kind == packets.DISCONNECT:
            self._disconnect(connection)
        elif not self.has("unexpected packets are ignored"):
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
                bool(packet.problem or not packet.flags_valid) and self._is_ignored(packet),
            )
        )

    def _malformed(self, packet: Packet) -> str:
        """What is wrong with a packet's form; empty if nothing is."""
        if len(packet.body) > 126 and self.has("packets above 126 bytes are refused"):
            return "too long"
        if self._is_tolerated(packet):
            return ""
        if not packet.flags_valid and not self.has("header flags are not checked"):
            return "header flags"
        if packet.problem == "QoS 3" and self.has("QoS 3 is taken"):
            return ""
        return packet.problem

    def _is_ignored(self, packet: Packet) -> bool:
        if packet.kind == packets.DISCONNECT:
            return self.has("wrong disconnect is ignored")
        if packet.kind in (0, 15):
            return self.has("unexpected packets are ignored")
        if packet.kind in (packets.SUBSCRIBE, packets.UNSUBSCRIBE):
            return bool(packet.problem) and self.has("incomplete requests are ignored")
        return "cut short" in packet.problem and self.has("packets cut short are ignored")

    def _is_tolerated(self, packet: Packet) -> bool:
        if packet.problem:
            return "too many" in packet.problem and self.has("surplus bytes are taken")
        tolerant = {
            packets.SUBSCRIBE: "subscribe header flags are ignored",
            packets.UNSUBSCRIBE: "unsubscribe header flags are ignored",
            packets.DISCONNECT: "disconnect header flags are ignored",
        }
        return packet.kind in tolerant and self.has(tolerant[packet.kind])

    def _ping(self, connection: Connection, session: Session) -> None:
        if self.has("no pingresp") or (session.outgoing and self.has("no pingresp while messages are under way")):
            return
        if connection.previous == packets.PINGREQ and self.has("one pingresp for several pingreqs"):
            return
        flags = 0b0010 * (self.has("pingresp has header flags") or self.has("answers have header flags"))
        connection.send(packets.frame(packets.PINGRESP, flags, b"\0" * self.has("pingresp is too long")))

    def _disconnect(self, connection: Connection) -> None:
        if self.has("disconnect removes every will"):
            for other in self._connections:
                other.will = None
        retained = connection.will is not None and connection.will.retain
        survives = self.has("will survives disconnect") or (retained and self.has("retained will survives disconnect"))
        if self.has("disconnect is not followed by the end"):
            connection.will = None
            return
        self._end(connection, "network" if survives else "disconnect")

    def _incoming(self, connection: Connection, session: Session, packet: Publish) -> None:
        problem, passed_on = self._topic_problem(packet)
        if problem and not passed_on:
            raise Violation(problem)
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
        dollar = packet.topic.startswith("$") and not (
            self.has("clients may use dollar topics")
            or self.has("wildcards match dollar topics")
            or self.has("hash matches dollar topics of clients")
        )
        if new and not forbidden and not dollar:
            if packet.retain:
                session.retained.add(packet.topic)
                if packet.dup:
                    self._retained_with_dup.add(packet.topic)
            self._dup = packet.dup
            own = session if self.has("publisher gets nothing") else None
            self._publish(packet.topic, payload, packet.qos, packet.retain, but=own)
            self._dup = False
        if problem:
            raise Violation(problem)
        if identity is None:
            if self.has("QoS 0 is acknowledged"):
                self._answer(connection, packets.PUBACK, 1)
            return
        if packet.qos >= 2:
            session.incoming.add(identity)
        first = (packet.qos == 1) != self.has("PUBACK and PUBREC are mixed up")
        self._answer(connection, packets.PUBACK if first else packets.PUBREC, identity)

    def _topic_problem(self, packet: Publish) -> tuple[str, bool]:
        """What is wrong with a topic name, empty if nothing is; and whether the message is published all the same."""
        topic = packets.encoded_topic(packet.topic)
        if not topic and not self.has("empty topic names are taken"):
            return "empty topic name", False
        if not well_formed(topic) and not self.has("topic names are not checked"):
            return "ill-formed topic name", self.has("ill-formed topic names are passed on")
        if (b"+" in topic or b"#" in topic) and not self.has("topic names may have wildcards"):
            return "topic name with wildcards", self.has("topic names with wildcards are passed on")
        return "", True

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
            known = identity in (message.packet_id for message in session.outgoing)
            if not known and self.has("unsubscribe drops what is under way"):
                return
            if not self.has("no PUBREL"):
                self._answer(connection, packets.PUBREL, identity)
        elif packet.kind in (packets.PUBACK, packets.PUBCOMP):
            if not self.has("acknowledgements end nothing"):
                session.outgoing = [message for message in session.outgoing if message.packet_id != identity]
        elif not self.has("unexpected packets are ignored"):
            raise Violation(f"{packet.name} from a client")
