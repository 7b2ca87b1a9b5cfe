"""Publishing: a message to all who subscribed, and to be retained if asked.

Owns: what becomes of one message. Must not know: who may publish what, how messages wait or are retained, packets.
(The commonest publishes take a quicker way: see handlers.)
"""

from __future__ import annotations

from ..wire.message import Message
from . import by_options
from .account import COPIED
from .retaining import Retaining
from .route import Route
from .router import Router
from .session import Session
from .turn import Turn

#: Units of work that it takes to retain a message, or to forget one.
RETAINING = 6


class Publishing:
    def __init__(self, router: Router, turn: Turn, retaining: Retaining) -> None:
        self._router = router
        self._turn = turn
        self._retaining = retaining

    def publish(
        self,
        topic: bytes,
        payload: bytes,
        qos: int,
        retain: bool,
        author: Session | None,
        kept: bytes = b"",
        expires: float | None = None,
    ) -> bool:
        """Deliver a message to all who subscribed [MQTT-4.5.0-1], and retain it if asked. True if any of that must be
        stored before it may be acknowledged.

        `author`: the session that published it, None for the broker itself.
        """
        route = self._router.known(topic) or self._router.route(topic)
        message = Message(topic, payload, qos, kept=kept, expires=expires)
        durable = False
        if retain:
            self._turn.account.spent += RETAINING
            durable = self._retaining.retain(topic, payload, qos, author)
        if route.options is not None:
            by_options.deliver(self._turn, message, retain, route.options, author)
        elif route.size:
            self._deliver(message, route)
        return (durable or route.durable) and qos > 0

    def _deliver(self, message: Message, route: Route) -> None:
        """Hand a message to the targets of a route, each at the QoS that it was granted at most [MQTT-3.8.4-6]."""
        turn = self._turn
        turn.account.spent += route.size * len(message.payload) // COPIED
        qos = message.qos
        at_most_once = route.targets if qos == 0 else route.granted0
        if at_most_once:
            frame = message.frame()
            turn.mark(route)
            for target in at_most_once:
                target.sink.append(frame)
            turn.sent += len(at_most_once)
            if qos == 0:
                return
        turn.queued += route.size
        for target in route.granted1:
            target.queue.deliver(message, 1)  # type: ignore[union-attr]  # a grant above 0 comes with a queue
        for target in route.granted2:
            target.queue.deliver(message, qos)  # type: ignore[union-attr]
