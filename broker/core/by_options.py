"""Delivery where a subscription asks for more than a QoS: slower than the usual way, which it leaves as it is.

Owns: who gets such a message, and in which layout. Must not know: who asks for what, and why.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..wire.message import Message
from .looking_back import Holder
from .subscription import NO_LOCAL, QOS, RETAIN_AS_PUBLISHED
from .turn import Turn


def deliver(turn: Turn, message: Message, retain: bool, targets: Mapping[Holder, int], author: Holder | None) -> None:
    """Hand a message to these sessions, each by its options. `retain`: was it published to be retained?"""
    retained = Message(message.topic, message.payload, message.qos, retain=True) if retain else message
    for target, options in targets.items():
        if options & NO_LOCAL and target is author:
            continue
        one = retained if options & RETAIN_AS_PUBLISHED else message
        qos = min(one.qos, options & QOS)
        if qos == 0:
            target.sink.append(one.frame())
            turn.sent += 1
            if target.connection is not None:
                turn.dirty.add(target.connection)
        else:
            target.queue.deliver(one, qos)  # type: ignore[union-attr]  # a grant above 0 comes with a queue
            turn.queued += 1
