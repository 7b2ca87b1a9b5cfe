"""Messages that are in flight to a client, and belong to a shared subscription until it acknowledges them.

Owns: which of a client's messages are lent to it, and who waits until it has room for more. Must not know: who else is
in the group, how the group keeps them.

Such a message takes a place in the client's window, and a Packet Identifier of it, but is not in the client's queue:
when its connection ends, the group has it still. What is sent at QoS 2 is the member's, as it has to be brought to an
end with this one, whatever happens [MQTT5-4.8.2-4] [MQTT5-4.8.2-5]. It may have to be stored first, though: if the
connection ends before it is sent, the group gets it back.
"""

from __future__ import annotations

from ..wire.codes import ProtocolError, ReasonCode
from ..wire.message import Message
from .limits import Limits
from .looking_back import Asking, Lender
from .session import Session
from .waiting import Waiting

#: How many Packet Identifiers there are [MQTT-2.3.1-1].
IDENTIFIERS = 65_535

# A message in flight: its size in bytes, what it waits for: PUBACK (1), PUBREC (2) or PUBCOMP (3), and its place. The
# message itself is not needed any more: what has to be sent again comes from the store. One that is lent waits for a
# PUBACK, too.
InFlight = tuple[int, int, int]
AWAITS_PUBACK, AWAITS_PUBREC, AWAITS_PUBCOMP, AWAITS_LOAN = 1, 2, 3, 4
_LENT: InFlight = (0, AWAITS_LOAN, 0)


class Lending:
    """A part of a Queue."""

    __slots__ = ("_after", "_unsent", "asked", "lent")

    _open: bool
    _after: bool  # is there something to do when nothing waits any more?
    # By place: what was entrusted to it, whose that was, and as what. Some of it has been sent meanwhile.
    _unsent: dict[int, tuple[Lender, Message, Message]]
    _inflight: dict[int, InFlight]
    _waiting: Waiting | None
    _limits: Limits
    _session: Session
    next_seq: int
    asked: list[Asking] | None  #: who wants to know when it is ready
    lent: dict[int, tuple[Lender, int]] | None  #: by Packet Identifier: whose it is, and its place there

    def _send_now(self, message: Message) -> None:
        """Send it at QoS 1 as the next message. Only if it is `ready`."""
        raise NotImplementedError

    def deliver(self, message: Message, qos: int) -> None:
        raise NotImplementedError

    def _drained(self) -> None:
        raise NotImplementedError

    def _pump_soon(self) -> None:
        raise NotImplementedError

    def _settle_unsent(self, seq: int, message: Message) -> None:
        raise NotImplementedError

    @property
    def _loaded_to(self) -> int:
        """What stands at this place, and all behind it, is in the store only."""
        return self.next_seq

    @property
    def pending(self) -> int:
        """Messages in flight, or in memory to be sent."""
        return len(self._inflight) + (len(self._waiting) if self._waiting is not None else 0)

    def ready(self, qos: int) -> bool:
        """Would a message of a group at this QoS go out at once?"""
        if not self._open or (qos == 1 and self._waiting) or self._loaded_to != self.next_seq:
            return False
        connection = self._session.connection
        window = self._limits.max_inflight
        if connection is not None and connection.receive_maximum < window:
            window = connection.receive_maximum  # [MQTT5-3.3.4-9]
        return self.pending < window  # those of QoS 2 may have to be stored before

    def lend(self, message: Message, lender: Lender, place: int) -> None:
        """Send a message at QoS 1 that stays its lender's until it is acknowledged. Only if it is `ready`."""
        before = self.next_seq
        self._send_now(message)
        if self.next_seq == before:  # it was too large for the client after all [MQTT5-3.1.2-25]
            lender.settled(place)
            return
        packet_id = (self.next_seq - 1) % IDENTIFIERS + 1
        self._inflight[packet_id] = _LENT
        if self.lent is None:
            self.lent = {}
        self.lent[packet_id] = lender, place

    def entrust(self, message: Message, lender: Lender, original: Message) -> None:
        """Send a message at QoS 2, which is the client's when it is sent. `original`: as the group has it."""
        seq = self.next_seq
        self.deliver(message, 2)
        waiting = self._waiting
        if self.next_seq == seq or not (self._loaded_to <= seq or (waiting and waiting[-1][0] == seq)):
            return
        if len(self._unsent) > 2 * self.pending:
            unsent = {queued[0] for queued in waiting or ()}
            self._unsent = {seq: kept for seq, kept in self._unsent.items() if seq in unsent or self._loaded_to <= seq}
        self._unsent[seq] = lender, original, message

    def give_back(self) -> list[tuple[Lender, int]]:
        """The client is gone: what is lent to it, in the order in which it was sent."""
        if self._unsent:
            waiting = {queued[0] for queued in self._waiting or ()}
            for seq, (lender, original, message) in self._unsent.items():
                if seq in waiting or self._loaded_to <= seq:
                    self._settle_unsent(seq, message)
                    lender.again(original, 2)
            self._unsent = {}
        lent, self.lent = self.lent, None
        self.asked = None
        if lent is None:
            return []
        for packet_id in lent:
            del self._inflight[packet_id]
        return list(lent.values())

    def ask(self, asking: Asking) -> None:
        """Tell this one, once, when it is ready for messages of groups."""
        if self.asked is None:
            self.asked = []
        self.asked.append(asking)
        self._after = True

    def _answer(self) -> None:
        """Nothing waits: is there room for those who asked?"""
        if self.asked is not None and self.ready(1):
            asked, self.asked = self.asked, None
            for asking in asked:
                asking.has_room()
        self._after = self.asked is not None

    def _repaid(self, packet_id: int, awaits: int) -> None:
        """A PUBACK for something else than a message of its own at QoS 1."""
        if awaits != AWAITS_LOAN:
            raise ProtocolError("PUBACK for a message of QoS 2", reason=ReasonCode.PROTOCOL_ERROR)
        assert self.lent is not None
        lender, place = self.lent.pop(packet_id)
        lender.settled(place)
        if self._waiting:
            self._pump_soon()
        elif self._after or self._session.feeding:
            self._drained()
