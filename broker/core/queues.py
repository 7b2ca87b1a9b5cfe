"""Which queue a session has: by whether it is stored, and by the version of MQTT that its client speaks.

Owns: this choice. Must not know: what queues do.
"""

from __future__ import annotations

from ..wire.codes import MQTT_5
from .looking_back import FIVE, SPECIAL, THREE
from .outgoing import Outgoing
from .queue import Queue, Shared
from .queue5 import Queue5, StoredQueue5
from .session import Session
from .stored_queue import StoredQueue


def _kind(session: Session) -> type[Queue]:
    if session.version == MQTT_5:
        return StoredQueue5 if session.store_id else Queue5
    return StoredQueue if session.store_id else Queue


def make(shared: Shared, session: Session) -> Queue:
    return _kind(session)(shared, session)


def speak(shared: Shared, session: Session) -> bool:
    """The session has another client, which speaks `session.version`: it gets its messages accordingly. True if it gets
    them in another way than the one before, so that whoever has it in a list must look again."""
    client = session.connection
    layout = FIVE if session.version == MQTT_5 else THREE
    if layout == FIVE and client is not None and (client.largest or client.alias_maximum):
        layout = SPECIAL
        client.outward = Outgoing(client, shared.complaints, shared.stats)
    changed = layout != session.layout
    session.layout = layout
    if session.queue is not None:
        # The same queue, with all that others know of it, in another language.
        session.queue.__class__ = _kind(session)
    return changed
