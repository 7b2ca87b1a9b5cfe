"""Other brokers that connect as clients, and say so: Mosquitto sets the highest bit of the protocol level for that.

Owns: what they may do besides, and what they get with each subscription. Must not know: how their messages travel.
"""

from __future__ import annotations

from .route import Route
from .session import Session
from .subscription import NO_LOCAL, RETAIN_AS_PUBLISHED

#: A message must not come back to the broker that it came from, and is retained there if it is here.
OPTIONS = NO_LOCAL | RETAIN_AS_PUBLISHED


def state_topic(client_id: str) -> bytes:
    """Where a bridge tells whether it is there: "1", and as its will "0"."""
    return f"$SYS/broker/connection/{client_id}/state".encode()


def may_publish(session: Session, topic: bytes, route: Route) -> bool:
    """May the client publish to this topic? Of the broker's own ones, a bridge has the one that tells its state."""
    if route.reserved and not (session.bridge and topic == state_topic(session.client_id)):
        return False
    return session.rights is None or session.rights.may_publish(topic)
