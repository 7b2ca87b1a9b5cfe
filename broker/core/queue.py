"""One session's way out at QoS 1 and 2: the messages that wait for it or are in flight.

Owns: places in the queue and the Packet Identifiers that follow from them, the in-flight window. Must not know:
subscriptions, other sessions, how bytes travel.

Each message gets the next place (`seq`), and a place decides its Packet Identifier: `seq % 65535 + 1`. So sending
writes nothing to the store, and what is sent again after a restart has its old identifier [MQTT-4.4.0-1]. The one
exception is a place whose identifier is still in flight: a client has acknowledged 65,534 later messages, and not this
one. It gets another identifier, and keeps it as long as this process lives.

The Queue of a session with CleanSession = 1 lives and ends with its connection, all in memory. That of a persistent
session is a StoredQueue (stored_queue).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from ..wire.codes import ProtocolError, ReasonCode
from ..wire.encoder import pubrel
from ..wire.message import Message
from .complaints import Complaints
from .feeding import Feeding
from .journal import Journal
from .lending import AWAITS_PUBACK, AWAITS_PUBCOMP, AWAITS_PUBREC, IDENTIFIERS, InFlight, Lending
from .limits import Limits
from .looking_back import Asking, Client, Filling, Lender
from .memory import Memory
from .message_expiry import is_over
from .pressure import Pressure
from .quotas import Quotas
from .session import Session
from .stats import Stats
from .turn import Turn
from .waiting import Waiting

#: Bytes of a session's messages above which what comes stays in the store only, or is dropped if there is none.
MAX_MEMORY = 4 << 20
#: Bytes of memory that a message takes until it is stored, besides its own.
DELIVERY = 200
#: No place: nothing of a queue is in memory.
AWAY = -1

SENT: tuple[InFlight, ...] = ((0, 0, 0), (0, AWAITS_PUBACK, 0), (0, AWAITS_PUBREC, 0))


@dataclass(frozen=True, slots=True)
class Shared:
    """What all queues work with."""

    turn: Turn
    limits: Limits
    journal: Journal
    quotas: Quotas
    memory: Memory
    pressure: Pressure
    feeding: Feeding
    complaints: Complaints
    stats: Stats
    now: Callable[[], float]  #: the date


class InMemory(Filling, Protocol):
    """A queue of which all that waits is in memory."""

    size: int  #: bytes of what waits
    fills_up: bool  #: does it hold publishers back?


def may_wait(shared: Shared, queue: InMemory, more: int, waiting: Waiting, holds_back: bool) -> bool:
    """May so many bytes more wait? From half of what may wait on, publishers are held back, if the queue `holds_back`;
    as long as they are, a little more than that may come: what was on its way."""
    limits = shared.limits
    size = queue.size + more
    memory = shared.memory
    if size > limits.max_queued_bytes or (waiting and size > memory.most_in_queue) or memory.queues.full(more):
        return False
    count = 2 * len(waiting)
    if count < limits.max_memory_queue and size * 2 <= MAX_MEMORY:
        return True
    queue.fills_up = holds_back
    held = holds_back and shared.pressure.fills_up(queue)
    if held:
        shared.turn.account.until = 0  # who publishes it has had enough of this turn
    return held or not waiting or (count < 2 * limits.max_memory_queue and size <= MAX_MEMORY)


def has_caught_up(limits: Limits, size: int, waiting: Waiting) -> bool:
    """Need such a queue hold back publishers no more?"""
    return len(waiting) * 4 < limits.max_memory_queue and size * 4 <= MAX_MEMORY


class Queue(Lending):
    """What a session with CleanSession = 1 is to receive at QoS 1 and 2."""

    __slots__ = (
        "_congested", "_dropped", "_inflight", "_limits", "_open", "_pumped", "_session", "_shared", "_turn",
        "_waiting", "fills_up", "next_seq", "size",
    )  # fmt: skip

    def __init__(self, shared: Shared, session: Session) -> None:
        self._shared = shared
        self._turn = shared.turn
        self._limits = shared.limits
        self._session = session
        self.next_seq = 0  #: the next place
        self.size = 0  #: bytes of what waits
        self._open = False  # may a message be sent now?
        self._congested = False
        self._pumped = False  # is it noted for pumping in this turn?
        self._dropped = 0  # messages that did not fit, since it was last told
        self._unsent = {}
        self._after = False  # is somebody to be told when nothing waits?
        self.asked: list[Asking] | None = None  #: who wants to know when it is ready
        self.lent: dict[int, tuple[Lender, int]] | None = (
            None  #: by Packet Identifier: whose it is, and its place there
        )
        self.fills_up = False  #: does it hold publishers back?
        self._inflight: dict[int, InFlight] = {}  # by Packet Identifier
        self._waiting: Waiting | None = None

    @property
    def count(self) -> int:
        """Messages waiting or in flight."""
        return len(self._inflight) + (len(self._waiting) if self._waiting is not None else 0)

    @property
    def sent_to(self) -> int:
        """The first place that was never sent (see SessionRecord)."""
        return 0

    @property
    def has_room(self) -> bool:
        """May more be queued at once without holding much in memory?"""
        return self._open and not self._waiting

    # --- messages come in ---

    def deliver(self, message: Message, qos: int) -> None:
        """Send the client this message at this QoS, now or when its turn comes; drop it if the queue is full."""
        turn = self._turn
        limits = self._limits
        seq = self.next_seq
        waiting = self._waiting
        inflight = self._inflight
        if self._open and not waiting and len(inflight) < limits.max_inflight:
            packet_id = seq % IDENTIFIERS + 1
            while packet_id in inflight:  # [MQTT-2.3.1-4]
                seq += 1
                packet_id = seq % IDENTIFIERS + 1
            self.next_seq = seq + 1
            inflight[packet_id] = SENT[qos]
            connection = self._session.connection
            connection.out.extend((message.head(qos), packet_id.to_bytes(2, "big"), message.payload))  # type: ignore[union-attr]
            turn.dirty.add(connection)  # type: ignore[arg-type]  # open: there is a connection
            turn.sent += 1
        else:
            self._wait(message, qos)

    def _wait(self, message: Message, qos: int) -> None:
        """It cannot be sent now."""
        waiting = self._waiting
        if waiting is None:
            waiting = self._waiting = Waiting(self._shared.memory.queues)
        if not self._may_wait(message.size, waiting) and not self._makes_room(message.size, waiting):
            self._drop()
            return
        waiting.put((0, message, qos))  # it has its place when it is sent
        self.size += message.size

    def _send_now(self, message: Message) -> None:
        Queue.deliver(self, message, 1)

    def _may_wait(self, more: int, waiting: Waiting) -> bool:
        return may_wait(self._shared, self, more, waiting, self._session.connection is not None)

    def _makes_room(self, more: int, waiting: Waiting) -> bool:
        """May they wait, if what has waited longest and has expired is dropped?"""
        now = self._shared.now()
        if not waiting or not is_over(waiting[0][1], now):
            return False
        while waiting and is_over(waiting[0][1], now):
            self.size -= waiting.take()[1].size
        return self._may_wait(more, waiting)

    @property
    def progress(self) -> object:
        """See core.pressure."""
        connection = self._session.connection
        return self.next_seq, connection.taken_at if connection is not None else None

    @property
    def owner(self) -> Client | None:
        return self._session.connection

    def _catch_up(self) -> None:
        """Does it still hold publishers back?"""
        if not self._waiting or has_caught_up(self._limits, self.size, self._waiting):
            self.fills_up = False
            self._shared.pressure.caught_up(self)

    def discard(self) -> None:
        """The session has ended."""
        if self._waiting is not None:
            self._waiting.clear()
        self._shared.pressure.caught_up(self)

    def _drop(self) -> None:
        self._shared.stats.dropped += 1
        if not self._dropped:
            self._shared.complaints.warning(
                "queue full: messages for this client are dropped",
                "",
                self._session.client_id,
                client=self._session.client_id,
                queued=self.count,
                bytes=self.size,
            )
        self._dropped += 1
        self._after = True

    # --- the client comes and goes ---

    def attach(self) -> None:
        """The client is there."""
        self._congested = False
        self._open = True

    def detach(self) -> None:
        """The client is away."""
        self._open = False

    def congest(self) -> None:
        """The client reads too slowly: send nothing for now."""
        self._congested = True
        self._open = False

    def relieve(self) -> None:
        """It has caught up."""
        self._congested = False
        self._open = True
        self.pump()
        if self._after and not self._waiting:
            self._drained()

    # --- acknowledgements ---

    def puback(self, packet_id: int) -> None:
        sent = self._inflight.pop(packet_id, None)
        if sent is None:
            return
        if sent[1] != AWAITS_PUBACK:
            self._repaid(packet_id, sent[1])
            return
        self._settle(sent)

    def pubrec(self, packet_id: int) -> None:
        """The client has the message: release it. A PUBREC that fits nothing is answered too, as the client could not
        finish otherwise."""
        sent = self._inflight.get(packet_id)
        durable = False
        if sent is None:
            if not self._knows_all_sent():
                return  # its message is still in the store: it will be sent again, and answered again
        elif sent[1] != AWAITS_PUBCOMP:
            if sent[1] != AWAITS_PUBREC:
                raise ProtocolError("PUBREC for a message of QoS 1", reason=ReasonCode.PROTOCOL_ERROR)
            self._inflight[packet_id] = (sent[0], AWAITS_PUBCOMP, sent[2])
            durable = self._release(sent[2])
        connection = self._session.connection
        assert connection is not None
        connection.acknowledge(pubrel(packet_id), durable)

    def pubcomp(self, packet_id: int) -> None:
        sent = self._inflight.get(packet_id)
        if sent is None:
            return
        if sent[1] != AWAITS_PUBCOMP:
            raise ProtocolError("PUBCOMP for a message that was not released", reason=ReasonCode.PROTOCOL_ERROR)
        del self._inflight[packet_id]
        self._settle(sent)

    def refused(self, packet_id: int) -> None:
        """The client does not take this message of QoS 2: nothing is released, and all is over [MQTT5-4.3.3-4]."""
        sent = self._inflight.get(packet_id)
        if sent is None:
            return
        if sent[1] != AWAITS_PUBREC:
            raise ProtocolError(
                "PUBREC with an error for a message that is not of QoS 2, or was released",
                reason=ReasonCode.PROTOCOL_ERROR,
            )
        del self._inflight[packet_id]
        self._settle(sent)

    def has_sent(self, packet_id: int) -> bool:
        """May the client have a message with this identifier?"""
        return packet_id in self._inflight or not self._knows_all_sent()

    def _knows_all_sent(self) -> bool:
        return True

    def _release(self, seq: int) -> bool:
        """Note that the client has this message. True if that has to be stored before it may be told so."""
        return False

    def _settle(self, sent: InFlight) -> None:
        """The exchange of this message is over."""
        if self._waiting:
            self._pump_soon()
        elif self._after or self._session.feeding:
            self._drained()

    def _drained(self) -> None:
        """Nothing waits any more."""
        if self._dropped:
            client_id = self._session.client_id
            self._shared.complaints.warning("queue empty again", "", client_id, client=client_id, dropped=self._dropped)
            self._dropped = 0
        self._answer()
        if self._session.feeding:
            self._shared.feeding.soon(self._session)

    # --- sending ---

    def _pump_soon(self) -> None:
        """Once for all acknowledgements of this turn."""
        if not self._pumped:
            self._pumped = True
            self._turn.thirsty.append(self)

    def pump(self) -> None:
        """Send what the in-flight window lets through."""
        self._pumped = False
        waiting = self._waiting
        if not waiting or not self._open:
            return
        self._send(waiting)
        if self.fills_up:
            self._catch_up()
        if not waiting:
            self._drained()

    def _send(self, waiting: Waiting) -> None:
        turn = self._turn
        inflight = self._inflight
        window = self._limits.max_inflight
        rights = self._session.rights
        connection = self._session.connection
        assert connection is not None
        extend = connection.out.extend
        while waiting and len(inflight) < window:
            _, message, qos = waiting.take()
            self.size -= message.size
            if rights is not None and not rights.may_receive(message.topic):
                continue  # the right was taken away since it was queued
            if message.expires is not None and is_over(message, self._shared.now()):
                continue  # [MQTT5-3.3.2-5]
            seq = self.next_seq
            packet_id = seq % IDENTIFIERS + 1
            while packet_id in inflight:  # [MQTT-2.3.1-4]
                seq += 1
                packet_id = seq % IDENTIFIERS + 1
            self.next_seq = seq + 1
            inflight[packet_id] = SENT[qos]
            extend((message.head(qos), packet_id.to_bytes(2, "big"), message.payload))
            turn.sent += 1
        turn.dirty.add(connection)
