"""The queues of sessions whose client speaks MQTT 5.0: they send as it wants it, and are otherwise the same.

Owns: the client's Receive Maximum, and what it is sent. Must not know: how many messages may wait, what the store has.

Deliveries are written out once for each kind of queue and version, as this is what the broker does all day.
"""

from __future__ import annotations

from ..wire.message import Message
from .lending import AWAITS_PUBACK, IDENTIFIERS
from .looking_back import Client
from .message_expiry import is_over, seconds_left
from .queue import DELIVERY, SENT, Queue
from .stored_queue import StoredQueue
from .waiting import Waiting


def pieces(
    connection: Client, message: Message, qos: int, packet_id: int, left: int | None, again: bool
) -> tuple[bytes, ...] | None:
    """The PUBLISH as this client gets it; None: it is too large for it [MQTT5-3.1.2-25]."""
    if connection.outward is not None:
        return connection.outward.pieces(message, qos, packet_id, left, again)
    head = message.repeated_head5(qos, left) if again else message.head5(qos, left)
    return head, packet_id.to_bytes(2, "big"), message.tail5(left), message.payload


class Queue5(Queue):
    """That of a session that ends with its connection."""

    __slots__ = ()

    def deliver(self, message: Message, qos: int) -> None:
        connection = self._session.connection
        inflight = self._inflight
        count = len(inflight)
        if (
            not self._open or self._waiting or count >= self._limits.max_inflight or count >= connection.receive_maximum  # type: ignore[union-attr]  # [MQTT5-3.3.4-9]
        ):
            self._wait(message, qos)
            return
        seq = self.next_seq
        packet_id = seq % IDENTIFIERS + 1
        while packet_id in inflight:  # [MQTT5-2.2.1-4]
            seq += 1
            packet_id = seq % IDENTIFIERS + 1
        assert connection is not None
        head = message.bare_head5(qos) if connection.outward is None else None
        if head is not None:
            # The Packet Identifier, and a Property Length of 0.
            connection.out.extend((head, (packet_id << 8).to_bytes(3, "big"), message.payload))
        else:
            left = None if message.expires is None else seconds_left(message, self._shared.now())
            laid = pieces(connection, message, qos, packet_id, left, False)
            if laid is None:
                return
            connection.out.extend(laid)
        self.next_seq = seq + 1
        inflight[packet_id] = SENT[qos]
        turn = self._turn
        turn.dirty.add(connection)
        turn.sent += 1

    def _send_now(self, message: Message) -> None:
        Queue5.deliver(self, message, 1)

    def _send(self, waiting: Waiting) -> None:
        turn = self._turn
        inflight = self._inflight
        rights = self._session.rights
        connection = self._session.connection
        assert connection is not None
        window = min(self._limits.max_inflight, connection.receive_maximum)
        now = self._shared.now()
        while waiting and len(inflight) < window:
            _, message, qos = waiting.take()
            self.size -= message.size
            if rights is not None and not rights.may_receive(message.topic):
                continue  # the right was taken away since it was queued
            if is_over(message, now):
                continue  # [MQTT5-3.3.2-5]
            seq = self.next_seq
            packet_id = seq % IDENTIFIERS + 1
            while packet_id in inflight:  # [MQTT5-2.2.1-4]
                seq += 1
                packet_id = seq % IDENTIFIERS + 1
            laid = pieces(connection, message, qos, packet_id, seconds_left(message, now), False)
            if laid is None:
                continue
            self.next_seq = seq + 1
            inflight[packet_id] = SENT[qos]
            connection.out.extend(laid)
            turn.sent += 1
        turn.dirty.add(connection)


class StoredQueue5(StoredQueue):
    """That of a session that outlives its connections."""

    __slots__ = ()

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
        connection = self._session.connection
        if (
            not self._open
            or waiting
            or qos != 1  # as in StoredQueue
            or len(inflight) >= limits.max_inflight
            or len(inflight) >= connection.receive_maximum  # type: ignore[union-attr]  # [MQTT5-3.3.4-9]
        ):
            self._keep_at_hand(seq, message, qos)
            return
        packet_id = seq % IDENTIFIERS + 1
        if packet_id in inflight:
            packet_id = self._other_id(seq)
        self._sent_to = self._loaded = seq + 1
        assert connection is not None
        head = message.bare_head5(1) if connection.outward is None else None
        if head is not None:
            connection.out.extend((head, (packet_id << 8).to_bytes(3, "big"), message.payload))
        else:
            left = None if message.expires is None else seconds_left(message, self._shared.now())
            laid = pieces(connection, message, 1, packet_id, left, False)
            if laid is None:
                self._settle_unsent(seq, message)
                return
            connection.out.extend(laid)
        inflight[packet_id] = (size, AWAITS_PUBACK, seq)
        journal.hopeful = True
        turn.dirty.add(connection)
        turn.sent += 1

    def _send_now(self, message: Message) -> None:
        Queue5.deliver(self, message, 1)  # type: ignore[arg-type]  # what it uses is the same
        self._sent_to = self._loaded = self.next_seq

    def _send(self, waiting: Waiting) -> None:
        inflight = self._inflight
        rights = self._session.rights
        connection = self._session.connection
        assert connection is not None
        window = min(self._limits.max_inflight, connection.receive_maximum)
        now = self._shared.now()
        while waiting and len(inflight) < window:
            seq, message, qos = waiting[0]
            again = seq < self._repeat_to
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
            packet_id = self._id_of(seq)
            if packet_id in inflight:
                packet_id = self._other_id(seq)
            laid = pieces(connection, message, qos, packet_id, seconds_left(message, now), again)
            waiting.take()
            if laid is None:
                self._withhold(seq, message, qos)
                continue
            inflight[packet_id] = (message.size, qos, seq)
            connection.out.extend(laid)
            self._turn.sent += 1
            if seq >= self._sent_to:
                self._sent_to = seq + 1
        self._turn.dirty.add(connection)
