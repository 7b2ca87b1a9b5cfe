"""A persistent session's way out at QoS 1 and 2: a queue that is in the store, of which memory holds a window.

Owns: what of it is in memory and what only in the store, and the changes that the store must have. Must not know:
subscriptions, other sessions, how the store keeps messages.

While the client is there, memory holds a window:

    settled | in flight | waiting, in memory | in the store only | next_seq
                        ^_sent_to            ^_loaded

While it is away, nothing is in memory but what the store does not have yet.
"""

from __future__ import annotations

from ..wire.codes import ProtocolError, ReasonCode
from ..wire.encoder import pubrel
from ..wire.message import Message
from .ports import Delivery, QueueChanges, QueuedMessage, SessionSnapshot
from .queue import AWAITS_PUBACK, AWAITS_PUBCOMP, IDENTIFIERS, MAX_MEMORY, InFlight, Queue, Shared
from .session import Session
from .waiting import Waiting

#: Bytes of memory that a message takes until it is stored, besides its own.
DELIVERY = 200

# No place: nothing of the queue is in memory.
_AWAY = -1


class StoredQueue(Queue):
    """What a persistent session is to receive at QoS 1 and 2. It has attributes of its own:

    `session_id`: its session's key in the store. `size` is that of all its messages, here.
    """

    __slots__ = (
        "_added", "_count", "_early", "_fetching", "_journal", "_loaded", "_other_ids", "_quotas", "_refill_below",
        "_released", "_released_changed", "_repeat_to", "_sent_to", "_settled", "_stored_to", "_taken_to", "session_id",
    )  # fmt: skip

    def __init__(self, shared: Shared, session: Session) -> None:
        super().__init__(shared, session)
        self._journal = shared.journal
        self._quotas = shared.quotas
        self.session_id = session.store_id
        self._count = 0
        self._loaded = _AWAY  # every place below is in memory, in flight or settled
        self._sent_to = 0  # behind the newest place that this process has sent
        self._repeat_to = 0  # places below may have been sent over an earlier connection: DUP
        self._fetching = False
        self._refill_below = shared.limits.max_memory_queue // 2  # so few waiting in memory: load more
        # Places that wait for PUBCOMP, in the order of their PUBRECs [MQTT-4.6.0-4].
        self._released: dict[int, None] = {}
        # Packet Identifiers of places whose own one was in flight.
        self._other_ids: dict[int, int] = {}
        # Places that were settled before they came into memory.
        self._early: set[int] = set()
        # What the journal has not taken yet:
        self._added: dict[int, Delivery] = {}
        self._settled: list[int] = []
        self._released_changed = False
        self._taken_to = 0
        self._stored_to = 0  # every place below is in the store, or settled

    @property
    def count(self) -> int:
        """Messages in the queue. After a start it may be a little more than there are."""
        return self._count

    def restore(self, stored: SessionSnapshot, sent_to: int | None) -> None:
        """Take over what the store knows of this queue after a start."""
        self.next_seq = self._stored_to = stored.next_seq
        self._count = stored.next_seq - stored.first_seq
        self.size = stored.queued_bytes
        self._sent_to = stored.first_seq
        # After a crash (None) any of them may have been sent: not a window only, but one behind what the client had
        # acknowledged, which may not have been stored. The newest places may be settled and forgotten: then they are
        # given again.
        self._repeat_to = self.next_seq if sent_to is None else min(sent_to, self.next_seq)
        self._released = dict.fromkeys(stored.released)

    @property
    def sent_to(self) -> int:
        """The first place that was never sent (see SessionRecord)."""
        return max(self._sent_to, self._repeat_to)

    @property
    def has_room(self) -> bool:
        return True  # in the store

    # --- messages come in ---

    def deliver(self, message: Message, qos: int) -> None:
        limits = self._limits
        seq = self.next_seq
        size = message.size
        if self._count >= limits.max_queued_messages or self.size + size > self._quotas.queue_bytes:
            self._drop()
            return
        turn = self._turn
        delivery = turn.delivery
        if delivery[0] is not message or delivery[1] != qos:
            delivery = turn.delivery = message, qos  # one for all queues
        self._added[seq] = delivery
        journal = self._journal
        journal.touched.add(self)
        journal.gathered += size + DELIVERY
        self.next_seq = seq + 1
        self._count += 1
        self.size += size
        if self._loaded != seq:
            return  # it has its turn after what is in the store already
        waiting = self._waiting
        inflight = self._inflight
        packet_id = seq % IDENTIFIERS + 1
        if (
            self._open
            and not waiting
            # QoS 2 goes out once it is stored: after a crash its publisher would send it again, and the client could
            # not tell that it had it before [MQTT-4.3.3-1].
            and qos == 1
            and len(inflight) < limits.max_inflight
        ):
            if packet_id in inflight:
                packet_id = self._other_id(seq)
            inflight[packet_id] = (size, AWAITS_PUBACK, seq)
            journal.hopeful = True
            self._sent_to = self._loaded = seq + 1
            connection = self._session.connection
            assert connection is not None
            connection.out.extend((message.head(1), packet_id.to_bytes(2, "big"), message.payload))
            turn.dirty.add(connection)
            turn.sent += 1
        else:
            memory = self._shared.memory.queues
            if waiting is None:
                waiting = self._waiting = Waiting(memory)
            if len(waiting) < limits.max_memory_queue and (
                not waiting or (self.size < MAX_MEMORY and not memory.full(size))
            ):
                waiting.put((seq, message, qos))
                self._loaded = seq + 1

    # --- the client comes and goes ---

    def attach(self) -> None:
        """The client is there: send again what was in flight, then what waits."""
        self._congested = False
        if self._count:
            self._repeat_to = self.sent_to
            self._loaded = _AWAY
            self._release_again()
            self._fetch(0)
        else:
            self._sent_to = self._repeat_to = self._loaded = self.next_seq
            self._open = True

    def _release_again(self) -> None:
        """PUBRELs need nothing from the store, and go before all else, in the order of their PUBRECs [MQTT-4.6.0-4]."""
        connection = self._session.connection
        assert connection is not None
        for seq in self._released:
            packet_id = self._id_of(seq)
            self._inflight[packet_id] = (0, AWAITS_PUBCOMP, seq)  # its size is told when it is loaded
            connection.out.append(pubrel(packet_id))
            self._sent_to = max(self._sent_to, seq + 1)
        if self._released:
            self._turn.dirty.add(connection)

    def detach(self) -> None:
        """The client is away: keep nothing in memory that is in the store."""
        self._open = False
        self._early.clear()
        if self._fetching:
            self._fetching = False
            self._journal.forget_fetch(self)
        self._loaded = _AWAY
        self._inflight = {}
        if self._waiting is not None:
            self._waiting.clear()
            self._waiting = None

    def relieve(self) -> None:
        self._congested = False
        self._open = self._loaded != _AWAY
        self.pump()

    def discard(self) -> None:
        super().discard()
        self._journal.touched.discard(self)

    # --- acknowledgements ---

    def puback(self, packet_id: int) -> None:
        sent = self._inflight.pop(packet_id, None)
        if sent is None:
            return
        size, awaits, seq = sent
        if awaits != AWAITS_PUBACK:
            raise ProtocolError("PUBACK for a message of QoS 2", reason=ReasonCode.PROTOCOL_ERROR)
        self._count -= 1
        self.size -= size
        if self._other_ids:
            self._other_ids.pop(seq, None)
        if self._added and self._added.pop(seq, None) is not None:
            pass  # it was never written, and need not be
        else:
            if not self._settled:
                self._journal.touched.add(self)
            self._settled.append(seq)
        if self._waiting or self._loaded < self.next_seq:
            if not self._pumped:
                self._pump_soon()
        elif self._dropped or self._session.feeding:
            self._drained()

    def _knows_all_sent(self) -> bool:
        if self._loaded == _AWAY or self._loaded < self._repeat_to:
            return False
        return not self._waiting or self._waiting[0][0] >= self._repeat_to

    def _release(self, seq: int) -> bool:
        self._released[seq] = None
        self._released_changed = True
        self._journal.touched.add(self)
        return True

    def _settle(self, sent: InFlight) -> None:
        """A message of QoS 2: it was stored before it was sent."""
        size, _, seq = sent
        self._count -= 1
        self.size -= size
        self._other_ids.pop(seq, None)
        if self._loaded <= seq:
            self._early.add(seq)
        self._settled.append(seq)
        if seq in self._released:
            del self._released[seq]
            self._released_changed = True
        self._journal.touched.add(self)
        if self._waiting or self._loaded < self.next_seq:
            self._pump_soon()
        elif self._dropped or self._session.feeding:
            self._drained()

    def _id_of(self, seq: int) -> int:
        return self._other_ids.get(seq) or seq % IDENTIFIERS + 1

    def _other_id(self, seq: int) -> int:
        """An identifier for a place whose own one is in flight [MQTT-2.3.1-4]: one of those that were used last, and
        that no other place will need soon."""
        packet_id = self._other_ids.get(seq, 0)
        before = seq
        while not packet_id or packet_id in self._inflight:
            before -= 1
            packet_id = before % IDENTIFIERS + 1
        self._other_ids[seq] = packet_id
        return packet_id

    # --- sending ---

    def pump(self) -> None:
        """Send what the in-flight window lets through, and load more when little is left in memory."""
        self._pumped = False
        if not self._open:
            return
        waiting = self._waiting
        if waiting:
            turn = self._turn
            inflight = self._inflight
            window = self._limits.max_inflight
            rights = self._session.rights
            connection = self._session.connection
            assert connection is not None
            extend = connection.out.extend
            while waiting and len(inflight) < window:
                seq, message, qos = waiting[0]
                packet_id = seq % IDENTIFIERS + 1
                if packet_id in inflight or self._other_ids:
                    packet_id = self._other_ids.get(seq, packet_id)
                    if packet_id in inflight:
                        packet_id = self._other_id(seq)
                if rights is not None and not rights.may_receive(message.topic):
                    waiting.take()
                    self._withhold(seq, message, qos)
                    continue
                elif qos == 2 and seq >= self._stored_to:
                    break
                else:
                    inflight[packet_id] = (message.size, qos, seq)
                    head = message.repeated_head(qos) if seq < self._repeat_to else message.head(qos)
                    extend((head, packet_id.to_bytes(2, "big"), message.payload))
                    turn.sent += 1
                waiting.take()
                if seq >= self._sent_to:
                    self._sent_to = seq + 1
            turn.dirty.add(connection)
        if self._loaded < self.next_seq:
            if not self._fetching and (not waiting or len(waiting) < self._refill_below):
                self._fetch(self._loaded)
        elif not waiting:
            self._drained()

    def _withhold(self, seq: int, message: Message, qos: int) -> None:
        """The right to receive this message was taken away since it was queued: it is not sent (again)."""
        connection = self._session.connection
        assert connection is not None
        if qos == 2 and seq < self._repeat_to:
            # The client may have it, and wait for a PUBREL before it takes another message with this identifier. If it
            # has not, it answers all the same.
            packet_id = self._id_of(seq)
            self._inflight[packet_id] = (message.size, AWAITS_PUBCOMP, seq)
            self._sent_to = max(self._sent_to, seq + 1)
            connection.acknowledge(pubrel(packet_id), self._release(seq))
            return
        self._count -= 1
        self.size -= message.size
        if self._added.pop(seq, None) is None:
            self._settled.append(seq)
            self._journal.touched.add(self)

    # --- the store ---

    def _fetch(self, start: int) -> None:
        limits = self._limits
        self._fetching = True
        # The first load should reach all that was in flight, as the client may acknowledge any of it.
        self._journal.fetch(self, start, max(limits.max_memory_queue, limits.max_inflight))

    def fetched(self, messages: list[QueuedMessage], upto: int) -> None:
        """The next messages have come from the store, which knew all places below `upto`. None: there were no more."""
        if not self._fetching:
            return  # the client left meanwhile
        self._fetching = False
        waiting = self._waiting
        if waiting is None:
            waiting = self._waiting = Waiting(self._shared.memory.queues)
        first_load = self._loaded == _AWAY
        self._loaded = messages[-1][0] + 1 if messages else upto
        released = self._released
        if first_load:
            self._open = not self._congested
        for queued in messages:
            seq, message, _ = queued
            if seq in released:  # on its way already
                self._inflight[self._id_of(seq)] = (message.size, AWAITS_PUBCOMP, seq)
            elif seq in self._early:
                self._early.remove(seq)
                self.size -= message.size
            else:
                waiting.put(queued)
        if self._loaded == upto:
            # What has come since then is still at hand: go on from memory as far as it reaches.
            limit = self._limits.max_memory_queue
            while self._loaded < self.next_seq and len(waiting) < limit:
                message, qos = self._added[self._loaded]
                waiting.put((self._loaded, message, qos))
                self._loaded += 1
            if self._loaded == self.next_seq:
                # All is in memory: what was an estimate after a start can be told exactly.
                self._count = len(self._inflight) + len(waiting)
                self.size = sum(size for size, _, _ in self._inflight.values())
                self.size += sum(message.size for _, message, _ in waiting)
        # Large messages are loaded a few at a time: half of them shall be gone before more come.
        self._refill_below = min(len(waiting), self._limits.max_memory_queue) // 2
        self.pump()

    @property
    def fetching(self) -> bool:
        """Does it wait for messages from the store?"""
        return self._fetching

    @property
    def client_id(self) -> str:
        return self._session.client_id

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
            self._pump_soon()
