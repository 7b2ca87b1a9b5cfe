"""CONNECT and CONNACK (sections 3.1 and 3.2): who may come in, and with which session.

Owns: the way from the first packet to a connected client. Must not know: what that client sends then.
"""

import secrets

from conformance import packets
from conformance.packets import Connect, Packet, Publish
from tests.conformance.faulty.ends import Ends
from tests.conformance.faulty.state import LIMIT, PASSWORD, REFUSED_CLIENT_ID, USERNAME, Connection, Session, Violation
from tests.conformance.faulty.topics import well_formed


class Connecting(Ends):
    """The broker as far as it lets clients in. With `login`, it takes only those that give user name and password."""

    def __init__(self, *faults: str, login: bool = False) -> None:
        super().__init__(*faults)
        self._login = login

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
            if self.has("failed login ends the session"):
                self._sessions.pop(packet.client_id, None)
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
        session.resumed = set(session.subscriptions)
        session.logins += 1
        if session.logins > 2 and self.has("third login loses messages"):
            session.outgoing = []
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
        if self.has("whoever connects gets what is retained"):
            for topic in {name for other in self._sessions.values() for name in other.subscriptions}:
                self._send_retained(session, topic, 0)
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
            session.connection.send(packets.publish(packets.encoded_topic(topic), payload))  # type: ignore[union-attr]
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
            wanted = any(self._matches(name, message.topic) for name in session.subscriptions)
            if not wanted and message.state == "released" and self.has("unsubscribed messages are not released again"):
                continue
            if self.has("sent again under new identifiers"):
                message.packet_id = session.new_id()
            if message.state == "released" and self.has("PUBLISH is sent again after PUBREL"):
                self._answer(session.connection, packets.PUBREL, message.packet_id)
                message.state = "sent"
            self._transmit(session, message)
