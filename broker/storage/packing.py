"""How messages are packed into the rows of a queue (read from them in unpacking).

Owns: which messages stand in a segment and in a block. Must not know: SQL, files.

A segment holds what one commit adds to one queue, one record behind the other. What several queues get in the same
commit is packed into blocks, and their segments refer to it: a record then stands for a run of messages that follow
each other both in the queue and in the block. A segment refers to one block at the most. A large payload stands
alone, and so does that of a retained message, which may be queued again at any time. Properties stand with the message,
or behind its payload where they are long and that stands alone.

A session that takes little of a block copies that little: else it would keep all of the block for as long as it is
away.
"""

from collections.abc import Iterable, Iterator
from operator import itemgetter
from typing import NamedTuple, TypeAlias

from ..core.ports import Delivery
from ..wire.message import Message
from .layout import HEAD, OWN, QOS, RECORD, RETAIN, RUN, extras

#: Payloads of this size stand alone, once for all queues; of retained messages, smaller ones do.
LARGE = 16_384
LARGE_RETAINED = 512
#: Properties of this size stand behind a payload that stands alone, so that they too are stored once.
LARGE_KEPT = 512
#: Messages, bytes and places in one segment at the most: so much is read again when it was half sent.
SEGMENT_COUNT = 1_000
SEGMENT_SIZE = 1 << 18
SEGMENT_SPAN = 1 << 16
#: Bytes in a block at the most, when another message is packed into it.
BLOCK_SIZE = 1 << 16
#: The part of a block that a queue must get, to refer to it.
BLOCK_SHARE = 8
#: A segment with fewer messages goes on when the block changes, and takes copies of what is no larger than this.
FEW = 16
SMALL = 256

_LONGEST_RUN = 0xFFFF

_MESSAGE = itemgetter(0)  # of a Delivery
_pack_head = RECORD.pack


class Block:
    """Messages that several queues hold."""

    __slots__ = ("id", "parts", "size")

    def __init__(self) -> None:
        self.id = 0  #: belongs to the store: where it keeps it, 0 if it does not
        self.parts: list[bytes] = []
        self.size = 0

    def append(self, message: Message) -> None:
        topic = message.topic
        payload = message.payload
        flags = message.qos | RETAIN if message.retain else message.qos
        if message.kept or message.expires is not None:
            special, rest = extras(message)
            self.parts += (_pack_head(0, flags | special, len(topic), len(payload)), topic, payload, rest)
            self.size += HEAD + len(topic) + len(payload) + len(rest)
        else:
            self.parts += (_pack_head(0, flags, len(topic), len(payload)), topic, payload)
            self.size += HEAD + message.size


class Segment(NamedTuple):
    first: int  #: places of its first and last message
    last: int
    messages: int  #: how many
    size: int  #: bytes of them
    data: bytes
    body: Block | Message | None  #: what it refers to: a block, or the message that stands alone (see `body_of`)


#: Where a message stands: the block, its beginning and end in it.
_Place: TypeAlias = tuple[Block, int, int]


class Packer:
    """Packs what one commit adds to queues."""

    def __init__(self, queues: list[dict[int, Delivery]]) -> None:
        self._places = _share(queues) if len(queues) > 1 else {}
        # The queue before, as the next one often gets the same: what, from where on, and its segments.
        self._before: tuple[list[Delivery], int, list[Segment]] = [], 0, []

    def segments(self, added: dict[int, Delivery]) -> Iterable[Segment]:
        """Those of one of the queues."""
        places = self._places
        if not places:
            return _pack_own(added)
        first = next(iter(added))
        if next(reversed(added)) - first + 1 != len(added):
            return self._pack(added)
        values = list(added.values())
        before, start, segments = self._before
        if values == before:
            by = first - start
            return [segment._replace(first=segment.first + by, last=segment.last + by) for segment in segments]
        segments = list(self._pack(added))
        self._before = values, first, segments
        return segments

    def _pack(self, added: dict[int, Delivery]) -> Iterator[Segment]:
        blocks = _worth_referring(added, self._places)
        return _pack_mixed(added, self._places, blocks) if blocks else _pack_own(added)


def _stands_alone(message: Message) -> bool:
    size = len(message.payload) + len(message.kept)
    return size >= LARGE or (message.retain and size >= LARGE_RETAINED)


def body_of(message: Message) -> bytes:
    """What is stored of a message that stands alone, besides its segment."""
    return message.payload + message.kept if _kept_behind(message) else message.payload


def _kept_behind(message: Message) -> bool:
    return len(message.kept) >= LARGE_KEPT


def _share(queues: list[dict[int, Delivery]]) -> dict[Message, _Place]:
    """Pack what is in more than one of these queues into blocks."""
    different: set[Message] = set()
    for added in queues:
        different.update(map(_MESSAGE, added.values()))
    if len(different) == sum(map(len, queues)):
        return {}  # as where each subscriber has topics of its own
    # The order of the longest is that of most.
    longest_first = sorted((list(added.values()) for added in queues), key=len, reverse=True)
    seen: set[Message] = set()
    shared: set[Message] = set()
    before: list[Delivery] = []
    messages: set[Message] = set()
    for values in longest_first:
        if values == before:
            shared |= messages
            continue
        before = values
        messages = {message for message, _ in values}
        if not seen.isdisjoint(messages):
            shared |= seen & messages
        seen |= messages
    places: dict[Message, _Place] = {}
    block = Block()
    for values in longest_first:
        if not shared:
            break
        for message, _ in values:
            if message not in shared:
                continue
            shared.remove(message)
            if _stands_alone(message):
                continue
            if block.size >= BLOCK_SIZE:
                block = Block()
            start = block.size
            block.append(message)
            places[message] = block, start, block.size
    return places


def _worth_referring(added: dict[int, Delivery], places: dict[Message, _Place]) -> set[Block]:
    """The blocks of which this queue gets enough."""
    taken: dict[Block, int] = {}
    for message, _ in added.values():
        place = places.get(message)
        if place is not None:
            block, start, end = place
            taken[block] = taken.get(block, 0) + end - start
    return {block for block, size in taken.items() if size * BLOCK_SHARE >= block.size}


def _pack_own(added: dict[int, Delivery]) -> Iterator[Segment]:
    """The segments of a queue that refers to no block. Nearly all that is stored goes this way: it is written for
    speed."""
    pack = _pack_head
    most, most_bytes, may_stand_alone = SEGMENT_COUNT, SEGMENT_SIZE, LARGE_RETAINED
    parts: list[bytes] = []
    append = parts.append
    first = last = end = size = 0
    soon = 0  # the place from which on the segment may be full; 0: there is none yet
    for seq, (message, flags) in added.items():
        topic = message.topic
        payload = message.payload
        length = len(payload)
        retain = message.retain
        alone = length >= may_stand_alone and (length >= LARGE or retain)
        if message.kept or message.expires is not None:
            alone = _stands_alone(message)
            special, rest = extras(message)
            flags |= special
            payload += rest
        elif retain:
            flags |= RETAIN
        if alone or seq >= soon or size >= most_bytes:
            count = 0
            if parts:
                count = len(parts) // 3
                if alone or count >= most or size >= most_bytes or seq >= end:
                    yield Segment(first, last, count, size, b"".join(parts), None)
                    parts = []
                    append = parts.append
                    count = size = soon = 0
            if alone:
                yield _alone(seq, message, flags & QOS)
                continue
            if count:
                soon = min(end, seq + most - count)
            else:
                first = seq
                end = seq + SEGMENT_SPAN
                soon = seq + most
        append(pack(seq - first, flags, len(topic), length))
        append(topic)
        append(payload)
        last = seq
        size += message.size
    if parts:
        yield Segment(first, last, len(parts) // 3, size, b"".join(parts), None)


def _alone(seq: int, message: Message, qos: int) -> Segment:
    flags, rest = extras(message, behind=_kept_behind(message))
    head = _pack_head(0, qos | flags, len(message.topic), 0)
    return Segment(seq, seq, 1, message.size, head + message.topic + rest, message)


def _pack_mixed(added: dict[int, Delivery], places: dict[Message, _Place], blocks: set[Block]) -> Iterator[Segment]:
    """The segments of a queue that refers to these blocks."""
    segment = _Mixed()
    for seq, (message, qos) in added.items():
        alone = _stands_alone(message)
        place = places.get(message)
        caps = (1 if qos == 1 <= message.qos else 0) | (2 if qos == message.qos else 0)
        if place is not None and (place[0] not in blocks or not caps):
            place = None
        other = place is not None and segment.block is not None and place[0] is not segment.block
        if other and segment.count < FEW and message.size <= SMALL:
            place = None
            other = False
        if segment.count and (
            alone
            or other
            or segment.count >= SEGMENT_COUNT
            or segment.size >= SEGMENT_SIZE
            or seq - segment.first >= SEGMENT_SPAN
        ):
            yield segment.finished()
            segment = _Mixed()
        if alone:
            yield _alone(seq, message, qos)
        elif place is not None:
            segment.refer(seq, message, caps, place)
        else:
            segment.copy(seq, message, qos)
    if segment.count:
        yield segment.finished()


class _Mixed:
    """A segment that is being packed."""

    __slots__ = ("_caps", "_length", "_parts", "_run", "_start", "_stop", "block", "count", "first", "last", "size")

    def __init__(self) -> None:
        self.first = self.last = self.count = self.size = 0
        self.block: Block | None = None
        self._parts: list[bytes] = []
        # The run under way: its place, its beginning and end in the block, how many, and the caps that fit all of them.
        self._run = self._start = self._stop = self._length = self._caps = 0

    def refer(self, seq: int, message: Message, caps: int, place: _Place) -> None:
        """It stands in the block. `caps`: at which of 1 and 2 as the most its QoS is right."""
        self.block, start, end = place
        follows = self._stop == start and self.last + 1 == seq and self._length < _LONGEST_RUN
        if self._length and follows and self._caps & caps:
            self._length += 1
            self._caps &= caps
        else:
            self._end_run()
            self._run = seq - self.first if self.count else 0
            self._start = start
            self._length = 1
            self._caps = caps
        self._stop = end
        self._count(seq, message.size)

    def copy(self, seq: int, message: Message, qos: int) -> None:
        """It stands here."""
        self._end_run()
        self._count(seq, message.size)
        flags, rest = extras(message)
        head = _pack_head(seq - self.first, qos | OWN | flags, len(message.topic), len(message.payload))
        self._parts += (head, message.topic, message.payload, rest)

    def finished(self) -> Segment:
        self._end_run()
        return Segment(self.first, self.last, self.count, self.size, b"".join(self._parts), self.block)

    def _count(self, seq: int, size: int) -> None:
        if not self.count:
            self.first = seq
        self.last = seq
        self.count += 1
        self.size += size

    def _end_run(self) -> None:
        if self._length:
            most = 2 if self._caps & 2 else 1
            self._parts.append(_pack_head(self._run, RUN | most, self._length, self._start))
            self._length = 0
