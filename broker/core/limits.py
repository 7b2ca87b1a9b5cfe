"""The limits that hold for all clients of a broker, and what it offers them.

Owns: their names and meanings as the core uses them (defaults, ranges and help are in the table of options). Mutable,
as a reload changes them in place.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

#: A Session Expiry Interval that has no end (MQTT 5.0, 3.1.2.11.2).
NEVER = 0xFFFF_FFFF


@dataclass(slots=True)
class Limits:
    """Counts are messages, levels or subscriptions; sizes are bytes; times are seconds."""

    max_topic_levels: int = 200
    max_topic_length: int = 65_535
    max_subscriptions: int = 10_000
    max_inflight: int = 100
    max_queued_messages: int = 1_000_000
    max_queued_bytes: int = 1 << 30
    max_memory_queue: int = 1_000
    max_unsent: int = 1 << 20
    max_retained: int = 100_000
    max_retained_bytes: int = 256 << 20
    session_expiry: float = 0.0
    max_sessions: int = 50_000
    max_sessions_per_user: int = 0
    max_sessions_per_address: int = 0
    max_store: int = 2 << 30
    max_memory: int = 1 << 30
    # What clients of MQTT 5.0 are told. It holds for those of 3.1.1, too, as far as it can.
    max_session_expiry: float = 0.0  #: of MQTT 5.0; 0: any
    receive_maximum: int = 65_535  #: messages of QoS 1 and 2 that a client may have in flight
    max_topic_alias: int = 0
    max_qos: int = 2
    retain_available: bool = True
    wildcard_available: bool = True
    shared_available: bool = True
    shared_strategy: str = "round-robin"
    shared_strategies: Mapping[str, str] = field(default_factory=dict)  #: by group, where it is another one
    response_information: str = ""  #: %c is the Client Identifier, %u the user name; "": none
    server_reference: str = ""  #: where clients find another broker; "": nowhere
    moved: str = "no"  #: are they to go there: "no", "for now" or "for good"

    def granted_expiry(self, asked: int) -> float:
        """For how many seconds a session is kept whose client asks for this Session Expiry Interval; inf: for ever.
        They are whole ones, as the client is told them."""
        seconds = float("inf") if asked == NEVER else float(asked)
        return min(seconds, max(1.0, self.max_session_expiry // 1)) if self.max_session_expiry else seconds
