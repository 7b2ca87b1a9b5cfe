"""The messages of QoS 1 and 2 that a client has in flight towards the broker, where it was told how many it may have.

Owns: their number, for one connection [MQTT5-4.9.0-1]. Must not know: packets, sessions.
"""

from __future__ import annotations

from ..wire.codes import ProtocolError, ReasonCode
from .identifiers import Identifiers

#: A Receive Maximum that is none: there are no more Packet Identifiers (MQTT 5.0, 3.1.2.11.3).
ANY_NUMBER = 65_535


class Unanswered:
    __slots__ = ("_flying", "_maximum")

    def __init__(self, maximum: int) -> None:
        self._maximum = maximum
        self._flying: dict[int, bool] = {}  # by Packet Identifier: is it of QoS 2?

    def take(self, packet_id: int, qos: int, unreleased: Identifiers | None) -> None:
        """The client has sent one. `unreleased`: the identifiers of QoS 2 messages that it has not released."""
        flying = self._flying
        if packet_id not in flying and len(flying) >= self._maximum:
            for one in [
                one for one, twice in flying.items() if twice and (unreleased is None or one not in unreleased)
            ]:
                del flying[one]
            if len(flying) >= self._maximum:
                raise ProtocolError(
                    f"more than {self._maximum} messages of QoS 1 and 2 in flight (receive_maximum)",
                    reason=ReasonCode.RECEIVE_MAXIMUM_EXCEEDED,
                )
        flying[packet_id] = qos == 2

    def done(self, packet_id: int) -> None:
        """It is answered, so that there is nothing more to say about it."""
        self._flying.pop(packet_id, None)
