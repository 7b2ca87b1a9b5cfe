"""The Topic Filters of a SUBSCRIBE or an UNSUBSCRIBE of each version.

Owns: the parsing of these payloads. Must not know: who subscribes, and what is matched.
"""

from __future__ import annotations

from collections.abc import Iterator

from . import topics
from .codes import ProtocolError, ReasonCode
from .fields import field

#: Topic Filters in one packet.
MAX_FILTERS = 65_536
#: Bytes of Topic Filters in one packet that are read at once. Of more, reading is a part of the work on them.
LONG = 256

# The Subscription Options of MQTT 5.0 (section 3.8.3.1): what the bits of the byte mean.
MAXIMUM_QOS = 0x03
NO_LOCAL = 0x04
RETAIN_AS_PUBLISHED = 0x08
RETAIN_HANDLING = 0x30
_RESERVED = 0xC0


class Filters:
    """The payload of a SUBSCRIBE or an UNSUBSCRIBE: iterating reads it, and raises ProtocolError where it is malformed.

    It may be as large as a packet can be, so whoever reads it decides when to pause.
    """

    __slots__ = ("_data", "_end", "_pos")

    name = "UNSUBSCRIBE"

    def __init__(self, data: bytes, pos: int, end: int) -> None:
        self._data = data
        self._pos = pos
        self._end = end

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and isinstance(other, Filters) and self._bytes == other._bytes

    def __hash__(self) -> int:
        return hash(self._bytes)

    @property
    def _bytes(self) -> bytes:
        return self._data[self._pos : self._end]

    def _filters(self, behind: int) -> Iterator[tuple[bytes, int]]:
        """Each Topic Filter, with where it ends; `behind`: bytes that follow each."""
        data, pos, end = self._data, self._pos, self._end
        if pos == end:
            # [MQTT-3.8.3-3] [MQTT-3.10.3-2] [MQTT5-3.8.3-2] [MQTT5-3.10.3-2]
            raise ProtocolError(f"{self.name} without a Topic Filter", reason=ReasonCode.PROTOCOL_ERROR)
        count = 0
        while pos < end:
            topic_filter, pos = field(data, pos, end, "Topic Filter")
            topics.check_topic_filter(topic_filter)
            count += 1
            if count > MAX_FILTERS:
                raise ProtocolError(
                    f"{self.name} with more than {MAX_FILTERS} Topic Filters", reason=ReasonCode.QUOTA_EXCEEDED
                )
            yield topic_filter, pos
            pos += behind


class Unsubscriptions(Filters):
    """Topic Filters in order."""

    __slots__ = ()

    def __iter__(self) -> Iterator[bytes]:
        for topic_filter, _ in self._filters(0):
            yield topic_filter


class Subscriptions(Filters):
    """Topic Filters with the QoS that each asks for, in order; in MQTT 5.0 with the Subscription Options."""

    __slots__ = ()

    name = "SUBSCRIBE"

    def __iter__(self) -> Iterator[tuple[bytes, int]]:
        for topic_filter, pos in self._filters(1):
            if pos >= self._end:
                raise ProtocolError("SUBSCRIBE ends before the QoS of a Topic Filter")
            options = self._data[pos]
            self._check(topic_filter, options)
            yield topic_filter, options

    def _check(self, topic_filter: bytes, qos: int) -> None:
        if qos > 2:
            raise ProtocolError("SUBSCRIBE with a QoS above 2 or reserved bits set")  # [MQTT-3.8.3-4]


class Subscriptions5(Subscriptions):
    """The same in MQTT 5.0."""

    __slots__ = ()

    def _check(self, topic_filter: bytes, options: int) -> None:
        if options & _RESERVED:
            raise ProtocolError("SUBSCRIBE with reserved bits set in its options")  # [MQTT5-3.8.3-5]
        if options & MAXIMUM_QOS == 3:
            raise ProtocolError("SUBSCRIBE with QoS 3", reason=ReasonCode.PROTOCOL_ERROR)  # 3.8.3.1
        if options & RETAIN_HANDLING == RETAIN_HANDLING:
            raise ProtocolError("SUBSCRIBE with Retain Handling 3", reason=ReasonCode.PROTOCOL_ERROR)  # 3.8.3.1
        if topic_filter.startswith(topics.SHARE):
            if options & NO_LOCAL:
                # [MQTT5-3.8.3-4]
                raise ProtocolError("a Shared Subscription with No Local", reason=ReasonCode.PROTOCOL_ERROR)
            topics.check_shared_filter(topic_filter)


def parse_subscribe(data: bytes, pos: int, end: int) -> list[tuple[bytes, int]] | Subscriptions:
    """The payload of a SUBSCRIBE. Raises ProtocolError if it is malformed; a long one does when it is read."""
    if end - pos > LONG:
        return Subscriptions(data[pos:end], 0, end - pos)
    return list(Subscriptions(data, pos, end))


def parse_subscribe_5(data: bytes, pos: int, end: int) -> list[tuple[bytes, int]] | Subscriptions:
    """The same of a SUBSCRIBE of MQTT 5.0: with each filter, its Subscription Options."""
    if end - pos > LONG:
        return Subscriptions5(data[pos:end], 0, end - pos)
    return list(Subscriptions5(data, pos, end))


def parse_unsubscribe(data: bytes, pos: int, end: int) -> list[bytes] | Unsubscriptions:
    """The payload of an UNSUBSCRIBE, likewise. It is the same in each version."""
    if end - pos > LONG:
        return Unsubscriptions(data[pos:end], 0, end - pos)
    return list(Unsubscriptions(data, pos, end))
