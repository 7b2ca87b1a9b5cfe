"""How a message gets to its subscribers (sections 3.3, 4.3, 4.4, 4.6, 4.7).

Owns: what all parts of the broker share (its faults, sessions, retained messages), retaining, matching, delivery.
Must not know: what a client sends.
"""

import functools
import itertools
import posixpath
import threading
import time
import unicodedata
from collections.abc import Iterable

from conformance import packets
from conformance.packets import Will
from tests.conformance.faulty.faults import FAULTS, ODDITIES
from tests.conformance.faulty.state import SYS_TOPIC, Connection, Outgoing, Session
from tests.conformance.faulty.topics import first_letters, letters, matches


class Messages:
    """The broker as far as it sends messages."""

    def __init__(self, *faults: str) -> None:
        unknown = set(faults) - set(FAULTS) - set(ODDITIES)
        assert not unknown, f"no such fault: {unknown}"
        self.faults = frozenset(faults)
        self._lock = threading.RLock()
        self._sessions: dict[bytes, Session] = {}
        self._retained: dict[str, tuple[bytes, int]] = {SYS_TOPIC: (b"faulty", 0)}
        self._dup = False  # of the message that is being delivered
        self._retained_with_dup: set[str] = set()
        self._old_wills: dict[bytes, Will] = {}
        self._shared: dict[str, int] = {}
        self._old_subscriptions: dict[bytes, dict[str, int]] = {}
        self._connections: set[Connection] = set()
        self._threads: list[threading.Thread] = []
        self._numbers = itertools.count()
        self._matches = functools.lru_cache(10_000)(self._find_whether_it_matches)  # half of what it does

    def has(self, fault: str) -> bool:
        assert fault in FAULTS or fault in ODDITIES, fault
        return fault in self.faults

    def _answer(self, connection: Connection | None, kind: int, packet_id: int, codes: Iterable[int] = ()) -> None:
        if connection is None:
            return
        if f"{packets.NAMES[kind]} has the wrong identifier" in self.faults:
            packet_id ^= 1
        flags = packets.FLAGS[kind] ^ 0b0010 * self.has("answers have header flags")
        if kind in (packets.SUBACK, packets.UNSUBACK):
            flags |= self.has(f"{packets.NAMES[kind].lower()} has header flags")
        surplus = kind <= packets.PUBCOMP and self.has("acknowledgements are too long")
        if kind == packets.UNSUBACK and self.has("unsuback is too long"):
            surplus = True
        packet = packets.frame(kind, flags, packet_id.to_bytes(2, "big") + bytes(codes) + b"\0" * surplus)
        if kind == packets.PUBREL and self.has("PUBRELs change places"):
            connection.held.append(packet)
            if len(connection.held) == 2:
                connection.send(b"".join(reversed(connection.held)))
                connection.held.clear()
        else:
            connection.send(packet)

    def _publish(
        self, topic: str, payload: bytes, qos: int, retain: bool, *, but: Session | None = None, upgrade: bool = False
    ) -> None:
        self._retain(topic, payload, qos, retain)
        if not payload and self.has("empty payloads are dropped"):
            return
        if retain and not payload and self.has("empty messages are not delivered"):
            return
        flag = retain and self.has("RETAIN is propagated")
        for session in list(self._sessions.values()):
            subscriptions = session.subscriptions
            if session.connection is None and self.has("unsubscribed filters wait"):
                subscriptions = subscriptions | session.unsubscribed
            matching = [name for name in subscriptions if self._matches(name, topic)]
            if not matching or session is but:
                continue
            if session.deaf:
                session.deaf = False
                continue
            granted = [subscriptions[name] for name in matching]
            most = min(granted) if self.has("the lowest QoS counts") else max(granted)
            delivered = 2 if upgrade else min(qos, most)
            if self.has("messages have their own QoS"):
                delivered = qos
            if self.has("messages have the granted QoS"):
                delivered = most
            for _ in range(max(session.copies.get(name, 1) for name in matching)):
                self._deliver(session, topic, payload, delivered, flag)
            if self.has("one subscriber gets it"):
                return

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

    def _find_whether_it_matches(self, topic_filter: str, topic: str) -> bool:
        if self.has("topics ignore case"):
            topic_filter, topic = topic_filter.lower(), topic.lower()
        if self.has("topics are normalised"):
            topic_filter, topic = unicodedata.normalize("NFKC", topic_filter), unicodedata.normalize("NFKC", topic)
        if self.has("topics are paths"):
            topic_filter, topic = posixpath.normpath(topic_filter), posixpath.normpath(topic)
        if self.has("topics are trimmed"):
            topic_filter, topic = topic_filter.strip(" /"), topic.strip(" /")
        if self.has("only letters of a topic count"):
            topic_filter, topic = letters(topic_filter), letters(topic)
        if self.has("only the first letters of levels count"):
            topic_filter, topic = first_letters(topic_filter), first_letters(topic)
        return matches(topic_filter, topic, self.has)

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
        if self.has("subscribers are not served"):
            return
        if len(session.outgoing) >= 20 and self.has("more than 20 messages are dropped"):
            return
        if self.has("long payloads are cut"):
            payload = payload[:65535]
        if self.has("topic names are delivered in lower case"):
            topic = topic.lower()
        if self.has("odd characters are replaced"):
            topic = "".join(char if char.isprintable() else "?" for char in topic)
        if self.has("payloads end before a NUL"):
            payload = payload.split(b"\0")[0]
        if self.has("messages have another QoS"):
            qos = (qos + 1) % 3
        if session.connection is None and self.has("stored messages have QoS 1"):
            qos = min(qos, 1)
        if session.connection is None:
            if self.has("nothing waits") or (self.has("only the first message waits") and session.outgoing):
                return
        elif self.has("keep alive counts what is received"):
            session.connection.last_packet = time.monotonic()
        if qos == 0:
            if session.connection:
                packet_id = 1 if self.has("QoS 0 has an identifier") else None
                dup = self.has("QoS 0 has DUP")
                session.connection.send(
                    packets.publish(packets.encoded_topic(topic), payload, packet_id=packet_id, retain=retain, dup=dup)
                )
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
                packets.encoded_topic(message.topic),
                message.payload,
                qos=message.qos,
                packet_id=message.packet_id,
                retain=message.retain,
                dup=message.dup or (message.state == "sent" and not self.has("redelivery has no DUP")),
            )
        )
        message.state = "sent"

    def _send_retained(self, session: Session, topic_filter: str, granted: int) -> None:
        for topic, (payload, published) in list(self._retained.items()):
            if self._matches(topic_filter, topic):
                self._dup = topic in self._retained_with_dup
                if self.has("retained messages are cut"):
                    payload = payload[:100] if len(payload) > 1 else b""
                flag = not self.has("retained messages come without RETAIN")
                upgraded = self.has("retained messages have the granted QoS")
                self._deliver(session, topic, payload, granted if upgraded else min(published, granted), flag)
                self._dup = False
                if self.has("retained messages are sent once"):
                    del self._retained[topic]
                if self.has("one retained message is sent"):
                    return
