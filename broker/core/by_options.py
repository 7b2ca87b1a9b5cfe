"""Delivery where a subscription asks for more than a QoS: slower than the usual way, which it leaves as it is.

Owns: who gets such a message, and in which layout. Must not know: who asks for what, and why.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..wire.message import Message
from .subscription import NO_LOCAL, QOS, RETAIN_AS_PUBLISHED

if TYPE_CHECKING:
    from .exchange import Exchange
    from .session import Session


def deliver(
    exchange: Exchange, message: Message, retain: bool, targets: Mapping[Session, int], author: Session | None
) -> None:
    """Hand a message to these sessions, each by its options. `retain`: was it published to be retained?"""
    retained = Message(message.topic, message.payload, message.qos, retain=True) if retain else message
    for session, options in targets.items():
        if options & NO_LOCAL and session is author:
            continue
        one = retained if options & RETAIN_AS_PUBLISHED else message
        qos = min(one.qos, options & QOS)
        if qos == 0:
            session.sink.append(one.frame())
            exchange.sent += 1
            if session.connection is not None:
                exchange.dirty.add(session.connection)
        else:
            session.queue.deliver(one, qos)  # type: ignore[union-attr]  # a grant above 0 comes with a queue
            exchange.queued += 1
