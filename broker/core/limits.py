"""The limits that hold for all clients of a broker.

Owns: their names and meanings as the core uses them (defaults, ranges and help are in the table of options). Mutable,
as a reload changes them in place.
"""

from dataclasses import dataclass


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
    max_session_expiry: float = 0.0
    max_sessions: int = 50_000
    max_sessions_per_user: int = 0
    max_sessions_per_address: int = 0
    max_store: int = 2 << 30
    max_memory: int = 1 << 30
