"""SUBSCRIBE and UNSUBSCRIBE (sections 3.8 to 3.11).

Owns: what they do to a session, and their answers. Must not know: connections' beginning and end.
"""

import unicodedata

from conformance import packets
from conformance.packets import Subscribe, Unsubscribe
from tests.conformance.faulty.messages import Messages
from tests.conformance.faulty.state import FORBIDDEN, Connection, Session, Violation
from tests.conformance.faulty.topics import decoded, matches, valid_filter, well_formed


class Subscriptions(Messages):
    """The broker as far as it knows who wants what."""

    def _subscribe(self, connection: Connection, session: Session, packet: Subscribe) -> None:
        zero = packet.packet_id == 0 and not self.has("identifier 0 is taken")
        if zero or not (packet.filters or self.has("subscribe needs no filter")):
            raise Violation("no filter, or Packet Identifier 0")
        codes: list[int] = []
        wanted: list[tuple[str, int]] = []
        first_qos = 0
        for raw_filter, requested in packet.filters:
            code = self._requested(requested)
            if not self._is_filter(raw_filter):
                if self.has("wrong filters are not answered"):
                    return
                raise Violation("filter")
            name = decoded(raw_filter)
            code = self._granted(connection, name, code)
            codes.append(code)
            if code > 2:
                if self.has("a refused filter ends the list"):
                    break
                continue
            first_qos = first_qos if len(codes) > 1 else code
            if len(codes) > 1 and self.has("only the first filter counts"):
                continue
            if name == FORBIDDEN and connection.role == "acl":
                continue
            if self._brings_retained(session, name, len(codes)):
                wanted.append((name, code))
            self._add(session, name, first_qos if self.has("all filters have the first QoS") else code)
        self._send_suback(connection, session, packet, codes)
        for name, code in wanted:
            self._send_retained(session, name, code)
            if self.has("one retained message is sent"):
                break

    def _requested(self, requested: int) -> int:
        """The QoS that a requested QoS means, or the code that refuses it."""
        if requested == 3 and self.has("requested QoS 3 is 2"):
            return 2
        if requested == 3 and self.has("requested QoS 3 is refused"):
            return packets.SUBSCRIBE_FAILURE
        if requested > 2 and self.has("requested QoS is not checked"):
            return min(requested & 3, 2)
        if requested & 3 != 3 and self.has("reserved bits of the requested QoS are ignored"):
            return requested & 3
        if requested > 2:
            raise Violation("requested QoS")
        return requested

    def _is_filter(self, raw_filter: bytes) -> bool:
        if valid_filter(raw_filter) or self.has("filters are not checked"):
            return True
        if not raw_filter:
            return self.has("empty filters are taken")
        return well_formed(raw_filter) and self.has("wrong wildcards are letters")

    def _granted(self, connection: Connection, name: str, code: int) -> int:
        """The return code for a filter."""
        forbidden = connection.role == "acl" and name == FORBIDDEN
        wildcards = "+" in name or "#" in name
        if forbidden and self.has("forbidden filters are granted"):
            return code
        if (forbidden and self.has("forbidden filters are dropped")) or (
            wildcards and self.has("wildcards are dropped")
        ):
            raise Violation("filter")
        refused = [
            forbidden,
            wildcards and self.has("wildcards are refused"),
            name == "/" and self.has("a slash is no filter"),
            len(name.encode("utf-8", "surrogateescape")) > 200 and self.has("long topics are refused"),
            name.count("/") > 40 and self.has("deep topics are refused"),
        ]
        if not any(refused):
            return code
        return 0x87 if self.has("refusals have code 0x87") else packets.SUBSCRIBE_FAILURE

    def _brings_retained(self, session: Session, name: str, number: int) -> bool:
        known = name in session.subscriptions
        return not (
            (known and self.has("known filters bring no retained messages"))
            or (name in session.resumed and self.has("resumed filters bring no retained messages"))
            or (number > 1 and self.has("retained messages for the first filter only"))
        )

    def _add(self, session: Session, name: str, qos: int) -> None:
        if name in session.subscriptions:
            session.copies[name] = session.copies.get(name, 1) + self.has("subscriptions pile up")
            session.deaf = self.has("known filters bring a break")
            if self.has("first subscription stays"):
                return
        session.subscriptions[name] = qos
        self._old_subscriptions.setdefault(session.client_id, {})[name] = qos

    def _send_suback(self, connection: Connection, session: Session, packet: Subscribe, codes: list[int]) -> None:
        if self.has("no suback"):
            return
        if connection.previous == packets.SUBSCRIBE and self.has("one suback for several subscribes"):
            return
        packet_id = self._answer_id(packet.packet_id)
        under_way = packet_id in (message.packet_id for message in session.outgoing)
        if under_way and self.has("packet ids of both directions are one"):
            packet_id += 1
        if self.has("suback codes are sorted"):
            codes.sort()
        if self.has("suback codes are turned around"):
            codes.reverse()
        if self.has("refusals come last"):
            codes.sort(key=lambda code: code > 2)
        if self.has("suback says QoS 2"):
            codes = [2] * len(codes)
        if self.has("suback codes have a bit more"):
            codes = [code | 4 for code in codes]
        if self.has("suback has one code"):
            codes = codes[:1]
        if self.has("suback is empty"):
            codes = []
        for part in [[code] for code in codes] if self.has("a suback for each filter") else [codes]:
            self._answer(connection, packets.SUBACK, packet_id, part)

    def _answer_id(self, packet_id: int) -> int:
        if self.has("suback and unsuback have another packet id"):
            return packet_id % 65535 + 1
        return packet_id & 0xFF if self.has("suback and unsuback have half a packet id") else packet_id

    def _unsubscribe(self, connection: Connection, session: Session, packet: Unsubscribe) -> None:
        zero = packet.packet_id == 0 and not self.has("identifier 0 is taken")
        if zero or not (packet.filters or self.has("unsubscribe needs no filter")):
            raise Violation("no filter, or Packet Identifier 0")
        for raw_filter in packet.filters:
            empty = not raw_filter and self.has("empty filters can be unsubscribed")
            if not empty and not valid_filter(raw_filter) and not self.has("filters are not checked"):
                raise Violation("filter")
        names = [decoded(raw_filter) for raw_filter in packet.filters]
        if self.has("only the first filter is unsubscribed"):
            names = names[:1]
        removed = 0
        for name in names:
            for one in list(self._sessions.values()) if self.has("unsubscribe concerns everybody") else [session]:
                removed += self._remove(one, name)
        if removed and self.has("unsubscribe removes every subscription"):
            session.subscriptions = {}
        if self.has("no unsuback") or (not removed and self.has("unsuback for known filters only")):
            return
        for _ in packet.filters if self.has("an unsuback for each filter") else [None]:
            self._answer(connection, packets.UNSUBACK, self._answer_id(packet.packet_id))

    def _remove(self, session: Session, name: str) -> int:
        """Removes a subscription: how many were removed."""
        if self.has("unsubscribe does nothing"):
            return 0
        if self.has("unsubscribe drops what is under way"):
            session.outgoing = [one for one in session.outgoing if not self._matches(name, one.topic)]
        removed = [known for known in session.subscriptions if self._is_same(name, known)]
        for known in removed:
            session.unsubscribed[known] = session.subscriptions.pop(known)
            session.copies.pop(known, None)
        return len(removed)

    def _is_same(self, name: str, known: str) -> bool:
        """Whether an unsubscribed filter is that of a subscription."""
        if self.has("unsubscribed wildcards match") and matches(name, known):
            return True
        if self.has("unsubscribed filters ignore case"):
            return name.lower() == known.lower()
        if self.has("unsubscribed filters are normalised"):
            return unicodedata.normalize("NFC", name).strip(" /") == known.strip(" /")
        if self.has("unsubscribed filters begin alike"):
            return known.startswith(name)
        if self.has("U+FEFF does not count in unsubscribed filters"):
            return name.replace("\ufeff", "") == known.replace("\ufeff", "")
        return name == known
