"""Publishing: a message to all who subscribed, and to be retained if asked.

Owns: what becomes of one message. Must not know: who may publish what, how messages wait or are retained, packets.
(The commonest publishes take a quicker way: see handlers.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..wire.message import Message
from . import by_options
from .account import COPIED
from .looking_back import Holder
from .message_expiry import seconds_left
from .retaining import Retaining
from .route import Route
from .router import Router
from .session import Session
from .turn import Turn

#: Units of work that it takes to retain a message, or to forget one.
RETAINING = 8
#: Levels of its topic that are a unit more.
LEVELS = 3


class Publishing:
    def __init__(self, router: Router, turn: Turn, retaining: Retaining, now: Callable[[], float]) -> None:
        """`now` gives the date."""
        self._router = router
        self._turn = turn
        self._retaining = retaining
        self._now = now

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

        `author`: the session that published it, None for the broker itself. `kept` and `expires`: see wire.message.
        """
        route = self._router.known(topic) or self._router.route(topic)
        message = Message(topic, payload, qos, False, None, kept, expires)
        durable = False
        if retain:
            self._turn.account.spent += RETAINING + topic.count(b"/") // LEVELS
            durable = self._retaining.retain(message, author)
        if route.size:
            self._deliver(message, route, retain, author)
        return (durable or route.durable) and qos > 0

    def _deliver(self, message: Message, route: Route, retain: bool, author: Session | None) -> None:
        """Hand a message to the targets of a route, each at the QoS that it was granted at most [MQTT-3.8.4-6]."""
        turn = self._turn
        turn.account.spent += route.size * (len(message.payload) + len(message.kept)) // COPIED
        qos = message.qos
        threes, fives = (route.threes, route.fives) if qos == 0 else (route.granted0, route.fives0)
        if threes or fives:
            turn.mark(route)
            self._at_most_once(message, threes, fives)
        if qos:
            turn.queued += len(route.granted1) + len(route.granted2)
            for target in route.granted1:
                target.queue.deliver(message, 1)  # type: ignore[union-attr]  # a grant above 0 comes with a queue
            for target in route.granted2:
                target.queue.deliver(message, qos)  # type: ignore[union-attr]
        if route.special:
            by_options.deliver(turn, self._now(), message, retain, route.special, author)

    def _at_most_once(self, message: Message, threes: Sequence[Holder], fives: Sequence[Holder]) -> None:
        if threes:
            frame = message.frame()
            for target in threes:
                target.sink.append(frame)
        if fives:
            frame = message.frame5(None if message.expires is None else seconds_left(message, self._now()))
            for target in fives:
                target.sink.append(frame)
        self._turn.sent += len(threes) + len(fives)
