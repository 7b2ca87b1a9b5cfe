"""A persistent session's way out at QoS 1 and 2: a queue that is in the store, of which memory holds a window.

Owns: how messages come into it and go out. Must not know: subscriptions, other sessions, what is loaded from the store
and when (loading).
"""

from __future__ import annotations

from ..wire.encoder import pubrel
from ..wire.message import Message
from .lending import AWAITS_PUBACK, AWAITS_PUBCOMP, IDENTIFIERS, InFlight
from .loading import Loading
from .message_expiry import is_over
from .queue import AWAY, DELIVERY, MAX_MEMORY
from .waiting import Waiting


class StoredQueue(Loading):
    """What a persistent session is to receive at QoS 1 and 2."""

    __slots__ = ()

    @property
    def sent_to(self) -> int:
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
            self._keep_at_hand(seq, message, qos)

    def _keep_at_hand(self, seq: int, message: Message, qos: int) -> None:
        """It cannot be sent now: keep it in memory as well, if there is room."""
        waiting = self._waiting
        memory = self._shared.memory.queues
        if waiting is None:
            waiting = self._waiting = Waiting(memory)
        if len(waiting) < self._limits.max_memory_queue and (
            not waiting or (self.size < MAX_MEMORY and not memory.full(message.size))
        ):
            waiting.put((seq, message, qos))
            self._loaded = seq + 1

    def _send_now(self, message: Message) -> None:
        super()._send_now(message)
        self._sent_to = self._loaded = self.next_seq  # its place is taken, and holds nothing

    @property
    def _loaded_to(self) -> int:
        return self._loaded

    # --- the client comes and goes ---

    def attach(self) -> None:
        """The client is there: send again what was in flight, then what waits."""
        self._congested = False
        if self._count:
            self._repeat_to = self.sent_to
            self._loaded = AWAY
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
        self._loaded = AWAY
        self._inflight = {}
        if self._waiting is not None:
            self._waiting.clear()
            self._waiting = None

    def relieve(self) -> None:
        self._congested = False
        self._open = self._loaded != AWAY
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
            self._repaid(packet_id, awaits)
            return
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
        elif self._after or self._session.feeding:
            self._drained()

    def _knows_all_sent(self) -> bool:
        if self._loaded == AWAY or self._loaded < self._repeat_to:
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
        elif self._after or self._session.feeding:
            self._drained()

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
            self._send(waiting)
        if self._loaded < self.next_seq:
            if not self._fetching and (not waiting or len(waiting) < self._refill_below):
                self._fetch(self._loaded)
        elif not waiting:
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
            if message.expires is not None and self._is_over(seq, message):
                waiting.take()
                self._settle_unsent(seq, message)
                continue
            if qos == 2 and seq >= self._stored_to:
                break
            inflight[packet_id] = (message.size, qos, seq)
            head = message.repeated_head(qos) if seq < self._repeat_to else message.head(qos)
            extend((head, packet_id.to_bytes(2, "big"), message.payload))
            turn.sent += 1
            waiting.take()
            if seq >= self._sent_to:
                self._sent_to = seq + 1
        turn.dirty.add(connection)

    def _is_over(self, seq: int, message: Message) -> bool:
        """Has it expired? Not if it may have been sent before: what has begun goes on [MQTT5-4.3.3-7]
        [MQTT5-4.3.3-13] [MQTT5-4.4.0-1]."""
        return seq >= self._repeat_to and is_over(message, self._shared.now())

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
        self._settle_unsent(seq, message)

    def _settle_unsent(self, seq: int, message: Message) -> None:
        """It is not sent, and is over."""
        self._count -= 1
        self.size -= message.size
        if self._other_ids:
            self._other_ids.pop(seq, None)
        if self._added.pop(seq, None) is None:
            self._settled.append(seq)
            self._journal.touched.add(self)
