"""How a message becomes bytes for a client that does not get what all get: it takes no packet of any size, or Topic
Aliases.

Owns: the layout of such a PUBLISH, and whether it fits. Must not know: which messages a client gets, and when.
"""

from __future__ import annotations

from ..wire.encoder5 import publish_head, section
from ..wire.message import Message
from ..wire.properties import MESSAGE_EXPIRY_INTERVAL, TOPIC_ALIAS
from .aliases import Outward as Aliases
from .complaints import Complaints
from .looking_back import Client
from .stats import Stats


class Outgoing:
    """Implements looking_back.Outward."""

    __slots__ = ("_aliases", "_client", "_complaints", "_largest", "_stats", "_told")

    def __init__(self, client: Client, complaints: Complaints, stats: Stats) -> None:
        self._client = client
        self._complaints = complaints
        self._stats = stats
        self._largest = client.largest
        self._aliases = Aliases(client.alias_maximum) if client.alias_maximum else None
        self._told = False

    def frame(self, message: Message, left: int | None) -> bytes | None:
        laid = self._laid(message, 0, b"", left, False)
        return b"".join(laid) if laid is not None else None

    def pieces(
        self, message: Message, qos: int, packet_id: int, left: int | None, again: bool
    ) -> tuple[bytes, ...] | None:
        return self._laid(message, qos, packet_id.to_bytes(2, "big"), left, again)

    def _laid(
        self, message: Message, qos: int, packet_id: bytes, left: int | None, again: bool
    ) -> tuple[bytes, ...] | None:
        topic, payload = message.topic, message.payload
        first = 0x30 | qos << 1 | message.retain | again << 3
        aliases = self._aliases
        alias = aliases.known(topic) if aliases is not None else 0
        properties = _properties(message, left)
        if alias:
            properties = _with_alias(alias, properties)
            topic = b""
        elif aliases is not None and (alias := aliases.free(topic)):
            laid = self._fitting(first, topic, packet_id, _with_alias(alias, properties), payload)
            if laid is not None:
                aliases.set(alias, topic)
                return laid
        laid = self._fitting(first, topic, packet_id, properties, payload)
        if laid is None:
            self._too_large(message)
        return laid

    def _fitting(
        self, first: int, topic: bytes, packet_id: bytes, properties: bytes, payload: bytes
    ) -> tuple[bytes, ...] | None:
        """The packet, unless it is too large [MQTT5-3.1.2-24]."""
        tail = section(properties)
        head = publish_head(first, topic, len(tail), len(payload))
        if self._largest and len(head) + len(packet_id) + len(tail) + len(payload) > self._largest:
            return None
        return head, packet_id, tail, payload

    def _too_large(self, message: Message) -> None:
        """It is as if it had been delivered [MQTT5-3.1.2-25]."""
        self._stats.dropped += 1
        if self._told:
            return
        self._told = True
        client = self._client
        self._complaints.warning(
            "messages are larger than this client takes (Maximum Packet Size): it does not get them",
            client.peer,
            address=client.peer,
            largest=self._largest,
            topic=message.topic,
            bytes=message.size,
        )


def _properties(message: Message, left: int | None) -> bytes:
    if left is None:
        return message.kept
    return b"%c%b%b" % (MESSAGE_EXPIRY_INTERVAL, left.to_bytes(4, "big"), message.kept)


def _with_alias(alias: int, properties: bytes) -> bytes:
    return b"%c%b%b" % (TOPIC_ALIAS, alias.to_bytes(2, "big"), properties)
