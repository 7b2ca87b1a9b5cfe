"""One session's way out at QoS 1 and 2: the messages that wait for it or are in flight.

Owns: places in the queue and the Packet Identifiers that follow from them, the in-flight window, what is in memory
and what only in the store. Must not know: subscriptions, other sessions, how bytes travel.

Each message gets the next place (`seq`), and a place decides its Packet Identifier: `seq % 65535 + 1`. So sending
writes nothing to the store, and what is sent again after a restart has its old identifier [MQTT-4.4.0-1].

Places, from the oldest to the newest:

    settled | in flight | waiting, in memory | in the store only | next_seq
                        ^sent_to             ^_loaded

The queue of a session that is away is in the store only: memory holds a few numbers of it. A session with
CleanSession = 1 has nothing in the store: when its memory is full, messages are dropped.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from broker.core.ports import Delivery, QueueChanges, QueuedMessage, SessionSnapshot
from broker.wire.codes import ProtocolError
from broker.wire.encoder import pubrel
from broker.wire.message import Message

if TYPE_CHECKING:
    from broker.core.exchange import Exchange
    from broker.core.session import Session

#: How many Packet Identifiers there are [MQTT-2.3.1-1].
IDENTIFIERS = 65_535

# Stands for a message that was released by PUBREL and waits for PUBCOMP: nothing of it is needed any more.
_RELEASED: Delivery = (Message(b"", b"", 2), 0)
# No place: nothing of the queue is in memory.
_AWAY = -1


class Queue:
    """What a session is to receive at QoS 1 and 2."""

    __slots__ = (
        "_added", "_congested", "_dropped", "_exchange", "_fetching", "_inflight", "_loaded", "_open", "_released",
        "_released_changed", "_repeat_to", "_session", "_settled", "_stored_to", "_taken_to", "_waiting", "count",
        "next_seq", "sent_to", "session_id", "size",
    )  # fmt: skip

    def __init__(self, exchange: Exchange, session: Session) -> None:
        self._exchange = exchange
        self._session = session
        self.session_id = session.store_id  #: 0 for a session with CleanSession = 1
        self.next_seq = 0  #: the next place
        self.sent_to: int | None = 0  #: every place below was sent at least once; None after a crash: not known
        self.count = 0  #: messages waiting or in flight
        self.size = 0  #: their bytes
        self._loaded = _AWAY if session.store_id else 0  # every place below is in memory, in flight or settled
        self._repeat_to = 0  # places below were sent over an earlier connection: DUP
        self._open = False  # may a message be sent now?
        self._congested = False
        self._fetching = False
        self._dropped = 0  # messages that did not fit, since it was last told
        self._inflight: dict[int, Delivery] = {}  # by Packet Identifier
        self._waiting: deque[QueuedMessage] | None = None
        # Places that wait for PUBCOMP, in the order of their PUBRECs [MQTT-4.6.0-4]. Only for persistent sessions.
        self._released: dict[int, None] = {}
        # What the journal has not taken yet:
        self._added: dict[int, Delivery] = {}
        self._settled: list[int] = []
        self._released_changed = False
        self._taken_to = 0
        self._stored_to = 0  # every place below is in the store, or settled

    def restore(self, stored: SessionSnapshot, sent_to: int | None) -> None:
        """Take over what the store knows of this queue after a start."""
        self.next_seq = self._stored_to = stored.next_seq
        self.count = stored.next_seq - stored.first_seq
        self.size = stored.queued_bytes
        self.sent_to = sent_to if self.count else self.next_seq
        self._released = dict.fromkeys(stored.released)

    # --- messages come in ---

    def deliver(self, message: Message, qos: int) -> bool:
        """Send the client this message at this QoS, now or when its turn comes. False if it was dropped."""
        exchange = self._exchange
        limits = exchange.limits
        seq = self.next_seq
        size = message.size
        stored = self.session_id != 0
        if stored:
            if self.count >= limits.max_queued_messages or self.size + size > limits.max_queued_bytes:
                return self._drop()
            delivery = (message, qos)
            self._added[seq] = delivery
            journal = exchange.journal
            journal.touched.add(self)
            journal.gathered += size
        else:
            delivery = (message, qos)
        if self._loaded == seq:
            waiting = self._waiting
            inflight = self._inflight
            packet_id = seq % IDENTIFIERS + 1
            if (
                self._open
                and not waiting
                # To a persistent session QoS 2 goes only once it is stored: after a crash its publisher would send it
                # again, and the client could not tell that it had it before [MQTT-4.3.3-1].
                and (qos == 1 or not stored)
                and len(inflight) < limits.max_inflight
                and packet_id not in inflight
            ):
                inflight[packet_id] = delivery
                self.sent_to = self._loaded = seq + 1
                connection = self._session.connection
                assert connection is not None
                connection.out += (message.head(qos), packet_id.to_bytes(2, "big"), message.payload)
                exchange.dirty.add(connection)
                exchange.sent += 1
            else:
                if waiting is None:
                    waiting = self._waiting = deque()
                if len(waiting) < limits.max_memory_queue and (stored or self.size + size <= limits.max_queued_bytes):
                    waiting.append(QueuedMessage(seq, message, qos))
                    self._loaded = seq + 1
                elif not stored:
                    return self._drop()
        self.next_seq = seq + 1
        self.count += 1
        self.size += size
        return True

    def _drop(self) -> bool:
        exchange = self._exchange
        exchange.stats.dropped += 1
        if not self._dropped:
            exchange.log.warning(
                "queue full: messages for this client are dropped",
                client=self._session.client_id,
                queued=self.count,
                bytes=self.size,
            )
        self._dropped += 1
        return False

    # --- the client comes and goes ---

    def attach(self) -> None:
        """The client is there: send again what was in flight, then what waits."""
        self._congested = False
        if self.session_id and self.count:
            self._loaded = _AWAY
            self._fetch(0)
        else:
            self.sent_to = self._repeat_to = self._loaded = self.next_seq
            self._open = True

    def detach(self) -> None:
        """The client is away: keep nothing in memory that is in the store."""
        self._open = False
        self._fetching = False
        self._loaded = _AWAY
        self._inflight = {}
        self._waiting = None

    def congest(self) -> None:
        """The client reads too slowly: send nothing for now."""
        self._congested = True
        self._open = False

    def relieve(self) -> None:
        """It has caught up."""
        self._congested = False
        self._open = self._loaded != _AWAY
        self.pump()

    @property
    def has_room(self) -> bool:
        """May more be queued at once without holding much in memory?"""
        return self._open and not self._waiting

    # --- acknowledgements ---

    def puback(self, packet_id: int) -> None:
        delivery = self._inflight.pop(packet_id, None)
        if delivery is None:
            return
        if delivery[1] != 1:
            raise ProtocolError("PUBACK for a message of QoS 2")
        self._settle(packet_id, delivery[0].size)

    def pubrec(self, packet_id: int) -> None:
        """Release the message: of a persistent session, once it is stored that the client has it."""
        connection = self._session.connection
        assert connection is not None
        delivery = self._inflight.get(packet_id)
        durable = False
        if delivery is None:
            if self._loaded == _AWAY or self.sent_to is None or self._loaded < self.sent_to:
                return  # its message may still be in the store: it will be sent again, and answered again
        elif delivery is not _RELEASED:
            if delivery[1] != 2:
                raise ProtocolError("PUBREC for a message of QoS 1")
            self._inflight[packet_id] = _RELEASED
            self.size -= delivery[0].size
            if self.session_id:
                durable = True
                self._released[self._place_of(packet_id)] = None
                self._released_changed = True
                self._exchange.journal.touched.add(self)
        # A PUBREC that fits nothing is answered too: the client could not finish otherwise.
        connection.acknowledge(pubrel(packet_id), durable)

    def pubcomp(self, packet_id: int) -> None:
        delivery = self._inflight.get(packet_id)
        if delivery is None:
            return
        if delivery is not _RELEASED:
            raise ProtocolError("PUBCOMP for a message that was not released")
        del self._inflight[packet_id]
        self._settle(packet_id, 0)

    def _settle(self, packet_id: int, size: int) -> None:
        self.count -= 1
        self.size -= size
        if self.session_id:
            seq = self._place_of(packet_id)
            if self._added.pop(seq, None) is None:
                self._settled.append(seq)
                if seq in self._released:
                    del self._released[seq]
                    self._released_changed = True
                self._exchange.journal.touched.add(self)
        if self._waiting or self._loaded < self.next_seq:
            self.pump()
        else:
            if self._dropped:
                self._exchange.log.warning("queue empty again", client=self._session.client_id, dropped=self._dropped)
                self._dropped = 0
            if self._session.feeding:
                self._exchange.feed_soon(self._session)

    def _place_of(self, packet_id: int) -> int:
        """The newest place that was sent under this identifier."""
        assert self.sent_to is not None
        newest = self.sent_to - 1
        return newest - (newest - (packet_id - 1)) % IDENTIFIERS

    # --- sending ---

    def pump(self) -> None:
        """Send what the in-flight window lets through, and load more when little is left in memory."""
        if not self._open:
            return
        assert self.sent_to is not None
        exchange = self._exchange
        limits = exchange.limits
        waiting = self._waiting
        if waiting:
            inflight = self._inflight
            connection = self._session.connection
            assert connection is not None
            out = connection.out
            while waiting and len(inflight) < limits.max_inflight:
                seq, message, qos = waiting[0]
                packet_id = seq % IDENTIFIERS + 1
                if packet_id in inflight:
                    break  # [MQTT-2.3.1-4]
                if seq in self._released:
                    inflight[packet_id] = _RELEASED
                    out.append(pubrel(packet_id))
                elif qos == 2 and self.session_id and seq >= self._stored_to:
                    break
                else:
                    inflight[packet_id] = (message, qos)
                    head = message.repeated_head(qos) if seq < self._repeat_to else message.head(qos)
                    out += (head, packet_id.to_bytes(2, "big"), message.payload)
                    exchange.sent += 1
                waiting.popleft()
                if seq >= self.sent_to:
                    self.sent_to = seq + 1
            exchange.dirty.add(connection)
        if self._loaded < self.next_seq and not self._fetching:
            if not waiting or len(waiting) < limits.max_memory_queue // 2:
                self._fetch(self._loaded)
        elif self._session.feeding and not waiting:
            exchange.feed_soon(self._session)

    # --- the store ---

    def _fetch(self, start: int) -> None:
        limits = self._exchange.limits
        self._fetching = True
        # The first load should reach all that was in flight, as the client may acknowledge any of it.
        self._exchange.journal.fetch(self, start, max(limits.max_memory_queue, limits.max_inflight))

    def fetched(self, messages: list[QueuedMessage], upto: int) -> None:
        """The next messages have come from the store, which knew all places below `upto`. None: there were no more."""
        if not self._fetching:
            return  # the client left meanwhile
        self._fetching = False
        waiting = self._waiting
        if waiting is None:
            waiting = self._waiting = deque()
        first_load = self._loaded == _AWAY
        self._loaded = messages[-1].seq + 1 if messages else upto
        released = self._released
        if first_load:
            if self.sent_to is None:
                # After a crash: as many as the window holds may have been sent.
                inflight = messages[: self._exchange.limits.max_inflight]
                self.sent_to = inflight[-1].seq + 1 if inflight else upto
            self._repeat_to = self.sent_to
            self._open = not self._congested
            # PUBRELs first, in the order of their PUBRECs [MQTT-4.6.0-4]; then messages in theirs [MQTT-4.6.0-1].
            order = {seq: place - len(released) for place, seq in enumerate(released)}
            messages.sort(key=lambda message: order.get(message.seq, message.seq))
        rights = self._session.rights
        for queued in messages:
            if rights is None or queued.seq in released or rights.may_receive(queued.message.topic):
                waiting.append(queued)
            else:  # the right was taken away since it was queued
                self.count -= 1
                self.size -= queued.message.size
                self._settled.append(queued.seq)
                self._exchange.journal.touched.add(self)
        if self._loaded == upto:
            # What has come since then is still at hand: go on from memory as far as it reaches.
            limit = self._exchange.limits.max_memory_queue
            while self._loaded < self.next_seq and len(waiting) < limit:
                message, qos = self._added[self._loaded]
                waiting.append(QueuedMessage(self._loaded, message, qos))
                self._loaded += 1
            if self._loaded == self.next_seq:
                # All is in memory: what was an estimate after a start can be told exactly.
                self.count = len(self._inflight) + len(waiting)
                self.size = sum(message.size for message, _ in self._inflight.values())
                self.size += sum(message.size for _, message, _ in waiting)
        self.pump()

    @property
    def changed(self) -> bool:
        return bool(self._added or self._settled or self._released_changed)

    def take_changes(self) -> QueueChanges:
        """Hand over what changed since the last time."""
        released = tuple(self._released) if self._released_changed else None
        changes = QueueChanges(self.session_id, self._added, self._settled, released)
        self._added = {}
        self._settled = []
        self._released_changed = False
        self._taken_to = self.next_seq
        return changes

    def stored(self) -> None:
        """What was handed over is stored."""
        self._stored_to = self._taken_to
        if self._waiting:
            self.pump()
