"""SUBSCRIBE and UNSUBSCRIBE.

Owns: what a subscription may be, and what entering or removing one leads to. Must not know: how topics are matched, how
retained messages are sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ..wire import encoder, encoder5
from ..wire.codes import MQTT_5, SUBSCRIBE_FAILURE, ReasonCode
from . import bridges, queues
from .account import BRANCHES
from .denials import Denials
from .feeding import Feeding
from .journal import Journal
from .limits import Limits
from .looking_back import Client
from .memory import Memory
from .queue import Queue, Shared
from .reasons import with_reason_string
from .retained import Retained
from .router import Router, weight
from .session import Session
from .shares import Shares
from .subscription import IDENTIFIERS, QOS, RETAIN_HANDLING, SEND, SEND_IF_NEW, SHARED, shared
from .turn import Turn

#: Units of work that a Topic Filter is, and bytes of it that are a unit more.
SUBSCRIBING = 10
LETTERS = 32
#: Bytes that the subscriptions of a session may take: so many for each that it may have, and room for a long one. As
#: they are counted, a deep one takes far more than its length; so a client cannot have thousands of those.
SUBSCRIPTION_SIZE = 4096
LONG_SUBSCRIPTION = 1 << 17


class Refusal(NamedTuple):
    """Why a subscription is refused: for the log, and for a client of MQTT 5.0."""

    why: str
    reason: ReasonCode


DENIED = Refusal("subscription refused: not authorised", ReasonCode.NOT_AUTHORIZED)
TOO_LONG = Refusal(
    "subscription refused: the filter is longer or deeper than the limit", ReasonCode.TOPIC_FILTER_INVALID
)
NO_WILDCARDS = Refusal(
    "subscription refused: this broker allows no wildcards (wildcard_available)",
    ReasonCode.WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED,
)
NO_SHARED = Refusal(
    "subscription refused: this broker allows no shared subscriptions (shared_available)",
    ReasonCode.SHARED_SUBSCRIPTIONS_NOT_SUPPORTED,
)
NO_GROUP = Refusal("subscription refused: a shared subscription is $share/NAME/FILTER", ReasonCode.TOPIC_FILTER_INVALID)
AS_MANY = Refusal("subscription refused: the session has as many as it may", ReasonCode.QUOTA_EXCEEDED)
NO_MEMORY = Refusal("subscription refused: there is no memory for more (max_memory)", ReasonCode.QUOTA_EXCEEDED)


class Subscriptions:
    def __init__(
        self,
        router: Router,
        shares: Shares,
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
        self._shares = shares
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
        """SUBSCRIBE: enter each filter as if it had come alone [MQTT-3.8.4-4] [MQTT5-3.8.4-5], answer once, send what
        is retained. `wanted`: the filters with their options; `identifier`: the Subscription Identifier, 0 is none.

        It yields wherever its client has used up its share, and None in `wanted` is such a place, too."""
        connection = session.connection
        assert connection is not None
        codes: list[int] = []
        why = ""
        owed: list[tuple[bytes, int]] = []
        more = (bridges.OPTIONS if session.bridge else 0) | identifier << IDENTIFIERS
        turn = self._turn
        for one in wanted:
            if turn.over:
                yield
            if one is None:
                continue
            topic_filter, asked = one
            turn.account.spent += SUBSCRIBING + len(topic_filter) // LETTERS
            refusal = self._refusal(session, topic_filter)
            if refusal is not None:
                tell = self._denials.denied if refusal == DENIED else self._denials.refused
                tell(refusal.why, connection.peer, session, topic_filter)
                codes.append(refusal.reason if session.version == MQTT_5 else SUBSCRIBE_FAILURE)
                why = why or refusal.why
                continue
            qos = min(asked & QOS, self._limits.max_qos)  # [MQTT5-3.2.2-10]
            options = asked & ~(RETAIN_HANDLING | QOS) | qos | more
            if topic_filter.startswith(SHARED):
                pass  # nothing that is retained
            elif _wants_retained(asked, session, topic_filter):
                owed.append((topic_filter, options))
            self.enter(session, topic_filter, options)
            if session.store_id:
                self._journal.subscription(session.store_id, topic_filter, options)
            codes.append(qos)
        answer = (
            _suback5(connection, packet_id, codes, why)
            if session.version == MQTT_5
            else encoder.suback(packet_id, codes)
        )
        connection.acknowledge(answer, session.store_id != 0)  # [MQTT-3.8.4-1] [MQTT5-3.8.4-1]
        if owed and self._retained.count:
            self._feeding.owe(session, owed)

    def _refusal(self, session: Session, topic_filter: bytes) -> Refusal | None:
        limits = self._limits
        is_shared = topic_filter.startswith(SHARED)
        asked_for = topic_filter
        if is_shared:
            if not limits.shared_available:
                return NO_SHARED
            group = shared(topic_filter)
            if group is None:
                return NO_GROUP
            asked_for = group[1]
        if len(asked_for) > limits.max_topic_length or asked_for.count(b"/") >= limits.max_topic_levels:
            return TOO_LONG
        if not limits.wildcard_available and (b"+" in asked_for or b"#" in asked_for):
            return NO_WILDCARDS
        rights = session.rights
        if rights is not None:
            before = rights.effort
            allowed = rights.may_subscribe(asked_for)
            self._turn.account.spent += (rights.effort - before) // BRANCHES
            if not allowed:
                return DENIED
        held = session.subscriptions
        if held is None or topic_filter not in held:
            return self._full(session, topic_filter, is_shared)
        return None

    def _full(self, session: Session, topic_filter: bytes, is_shared: bool) -> Refusal | None:
        """Why there is no room for one more subscription."""
        limits = self._limits
        held = session.subscriptions
        room = LONG_SUBSCRIPTION + SUBSCRIPTION_SIZE * limits.max_subscriptions
        more = weight(topic_filter)
        if held is not None and (len(held) >= limits.max_subscriptions or session.subscribed + more > room):
            return AS_MANY
        if self._memory.full(more + (self._shares.weight(topic_filter) if is_shared else 0)):
            return NO_MEMORY
        if is_shared:
            why = self._shares.refusal(session, topic_filter)
            if why:
                return Refusal(f"subscription refused: {why}", ReasonCode.QUOTA_EXCEEDED)
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
        is_shared = topic_filter.startswith(SHARED)
        if (options & QOS or is_shared) and session.queue is None:
            self.make_queue(session)
        if is_shared:
            self._shares.join(session, topic_filter, options)
        else:
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
        """UNSUBSCRIBE: what was queued is still delivered [MQTT-3.10.4-3] [MQTT5-3.10.4-3]. It yields as `subscribe`
        does."""
        connection = session.connection
        assert connection is not None
        held = session.subscriptions
        codes: list[int] = []
        turn = self._turn
        for topic_filter in filters:
            if turn.over:
                yield
            if topic_filter is None:
                continue
            turn.account.spent += SUBSCRIBING + len(topic_filter) // LETTERS
            if held is None or held.pop(topic_filter, None) is None:
                codes.append(ReasonCode.NO_SUBSCRIPTION_EXISTED)
                continue
            codes.append(ReasonCode.SUCCESS)
            size = weight(topic_filter)
            session.subscribed -= size
            self._memory.size -= size
            if topic_filter.startswith(SHARED):
                self._shares.leave(session, topic_filter)
            else:
                self._router.unsubscribe(session, topic_filter)
            if session.store_id:
                self._journal.subscription(session.store_id, topic_filter, None)
            if session.feeding:
                session.feeding.pop(topic_filter, None)  # [MQTT-3.10.4-2]
        five = session.version == MQTT_5
        answer = encoder5.unsuback(packet_id, codes) if five else encoder.unsuback(packet_id)
        connection.acknowledge(answer, session.store_id != 0)  # [MQTT-3.10.4-5] [MQTT5-3.10.4-4] [MQTT5-3.11.3-1]


def _suback5(connection: Client, packet_id: int, codes: list[int], why: str) -> bytes:
    """`why` the first of those was refused that are refused, "" if none was."""
    text = why if connection.problem_information else ""  # [MQTT5-3.1.2-29]
    return with_reason_string(
        lambda more: encoder5.suback(packet_id, codes, more), b"", text, connection.largest
    )  # [MQTT5-3.9.2-1]


def _wants_retained(options: int, session: Session, topic_filter: bytes) -> bool:
    """Does a subscription with these options, which is to be entered, get what is retained?"""
    handling = options & RETAIN_HANDLING
    if handling == SEND_IF_NEW:
        return session.subscriptions is None or topic_filter not in session.subscriptions  # [MQTT5-3.3.1-10]
    return handling == SEND  # [MQTT5-3.3.1-9] [MQTT5-3.3.1-11]
