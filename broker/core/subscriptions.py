"""SUBSCRIBE and UNSUBSCRIBE.

Owns: what a subscription may be, and what entering or removing one leads to. Must not know: how topics are matched, how
retained messages are sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..wire import encoder, encoder5
from ..wire.codes import MQTT_5, SUBSCRIBE_FAILURE
from . import bridges, queues
from .account import BRANCHES
from .denials import Denials
from .feeding import Feeding
from .journal import Journal
from .limits import Limits
from .memory import Memory
from .queue import Queue, Shared
from .retained import Retained
from .router import Router, weight
from .session import Session
from .subscription import IDENTIFIERS, QOS, SHARED
from .turn import Turn

#: Units of work that a Topic Filter is, and bytes of it that are a unit more.
SUBSCRIBING = 10
LETTERS = 32
#: Bytes that the subscriptions of a session may take: so many for each that it may have, and room for a long one. As
#: they are counted, a deep one takes far more than its length; so a client cannot have thousands of those.
SUBSCRIPTION_SIZE = 4096
LONG_SUBSCRIPTION = 1 << 17

DENIED = "subscription refused: not authorised"


class Subscriptions:
    def __init__(
        self,
        router: Router,
        retained: Retained,
        feeding: Feeding,
        queues: Shared,
        journal: Journal,
        limits: Limits,
        memory: Memory,
        turn: Turn,
        denials: Denials,
    ) -> None:
        self._router = router
        self._retained = retained
        self._feeding = feeding
        self._queues = queues
        self._journal = journal
        self._limits = limits
        self._memory = memory.subscriptions
        self._turn = turn
        self._denials = denials

    def subscribe(
        self, session: Session, packet_id: int, wanted: Iterable[tuple[bytes, int] | None], identifier: int = 0
    ) -> Iterator[None]:
        """SUBSCRIBE: enter each filter as if it had come alone [MQTT-3.8.4-4], answer once, send what is retained.

        It yields wherever its client has used up its share, and None in `wanted` is such a place, too."""
        connection = session.connection
        assert connection is not None
        codes: list[int] = []
        granted: list[tuple[bytes, int]] = []
        more = (bridges.OPTIONS if session.bridge else 0) | identifier << IDENTIFIERS
        turn = self._turn
        for one in wanted:
            if turn.over:
                yield
            if one is None:
                continue
            topic_filter, qos = one
            turn.account.spent += SUBSCRIBING + len(topic_filter) // LETTERS
            refusal = self._refusal(session, topic_filter)
            if refusal is not None:
                tell = self._denials.denied if refusal == DENIED else self._denials.refused
                tell(refusal, connection.peer, session, topic_filter)
                codes.append(SUBSCRIBE_FAILURE)
                continue
            self.enter(session, topic_filter, qos | more)
            if session.store_id:
                self._journal.subscription(session.store_id, topic_filter, qos | more)
            codes.append(qos & QOS)
            granted.append((topic_filter, qos | more))
        make = encoder5.suback if session.version == MQTT_5 else encoder.suback
        connection.acknowledge(make(packet_id, codes), session.store_id != 0)  # [MQTT-3.8.4-1]
        if granted and self._retained.count:
            self._feeding.owe(session, granted)

    def _refusal(self, session: Session, topic_filter: bytes) -> str | None:
        limits = self._limits
        held = session.subscriptions
        if len(topic_filter) > limits.max_topic_length or topic_filter.count(b"/") >= limits.max_topic_levels:
            return "subscription refused: the filter is longer or deeper than the limit"
        if topic_filter.startswith(SHARED):
            return "subscription refused: this broker has no shared subscriptions ($share/..., $queue/...)"
        if held is None or topic_filter not in held:
            room = LONG_SUBSCRIPTION + SUBSCRIPTION_SIZE * limits.max_subscriptions
            more = weight(topic_filter)
            if held is not None and (len(held) >= limits.max_subscriptions or session.subscribed + more > room):
                return "subscription refused: the session has as many as it may"
            if self._memory.full(more):
                return "subscription refused: there is no memory for more (max_memory)"
        rights = session.rights
        if rights is not None:
            before = rights.effort
            allowed = rights.may_subscribe(topic_filter)
            self._turn.account.spent += (rights.effort - before) // BRANCHES
            if not allowed:
                return DENIED
        return None

    def enter(self, session: Session, topic_filter: bytes, options: int) -> None:
        """The session has this subscription from now on."""
        if session.subscriptions is None:
            session.subscriptions = {}
        if topic_filter not in session.subscriptions:
            size = weight(topic_filter)
            session.subscribed += size
            self._memory.size += size
        session.subscriptions[topic_filter] = options
        if options & QOS and session.queue is None:
            self.make_queue(session)
        self._router.subscribe(session, topic_filter, options)

    def make_queue(self, session: Session) -> Queue:
        """The session has been granted more than QoS 0: give it its queue."""
        queue = session.queue = queues.make(self._queues, session)
        connection = session.connection
        if connection is not None:
            queue.attach()
            if connection.congested:
                queue.congest()
        return queue

    def speak(self, session: Session) -> None:
        """The session has another client, or none yet: it gets its messages in the version of MQTT that it speaks."""
        if queues.speak(self._queues, session) and session.subscriptions:
            self._router.forget_routes()

    def unsubscribe(self, session: Session, packet_id: int, filters: Iterable[bytes | None]) -> Iterator[None]:
        """UNSUBSCRIBE: what was queued is still delivered [MQTT-3.10.4-3]. It yields as `subscribe` does."""
        connection = session.connection
        assert connection is not None
        held = session.subscriptions
        turn = self._turn
        for topic_filter in filters:
            if turn.over:
                yield
            if topic_filter is None:
                continue
            turn.account.spent += SUBSCRIBING + len(topic_filter) // LETTERS
            if held is not None and held.pop(topic_filter, None) is not None:
                size = weight(topic_filter)
                session.subscribed -= size
                self._memory.size -= size
                self._router.unsubscribe(session, topic_filter)
                if session.store_id:
                    self._journal.subscription(session.store_id, topic_filter, None)
                if session.feeding:
                    session.feeding.pop(topic_filter, None)  # [MQTT-3.10.4-2]
        answer = encoder5.unsuback(packet_id, [0]) if session.version == MQTT_5 else encoder.unsuback(packet_id)
        connection.acknowledge(answer, session.store_id != 0)  # [MQTT-3.10.4-5]
