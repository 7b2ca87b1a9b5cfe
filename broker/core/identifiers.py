"""The Packet Identifiers of QoS 2 messages that a client has sent and not released [MQTT-4.3.3-2].

Owns: which they are, what all sessions hold of them, and what of that the store does not have yet. Must not know:
sessions, messages.

They stand as bits, so that a client that holds all 65,535 takes little, and that one of them changes is little to
store.
"""

from .memory import Part
from .ports import BUCKET_SIZE

#: Bytes of memory that a bucket takes.
BUCKET = 100
#: Bytes that all sessions may hold together. Above that, one gets no more than FEW buckets.
MOST = 64 << 20
FEW = 16


class Unreleased:
    """What all sessions hold. It is a part of what clients take."""

    __slots__ = ("_part", "size")

    def __init__(self, part: Part) -> None:
        self._part = part
        self.size = 0  #: bytes of memory, roughly

    def change(self, buckets: int) -> None:
        """So many buckets more, or less."""
        self.size += BUCKET * buckets
        self._part.size += BUCKET * buckets


class Identifiers:
    """Those of one session."""

    __slots__ = ("_all", "_changed", "_masks")

    def __init__(self, all: Unreleased, masks: dict[int, int] | None = None) -> None:
        """`all`: with those of the other sessions; `masks`: what the store has, as `take_changes` gives it."""
        self._all = all
        self._masks = dict(masks or {})  # by bucket: the identifiers in it, as bits
        self._changed: set[int] = set()  # buckets
        all.change(len(self._masks))

    def __contains__(self, packet_id: int) -> bool:
        return self._masks.get(packet_id // BUCKET_SIZE, 0) >> packet_id % BUCKET_SIZE & 1 == 1

    @property
    def count(self) -> int:
        return sum(mask.bit_count() for mask in self._masks.values())

    def add(self, packet_id: int) -> bool:
        """Enter one that is not there. False if there is no room for it: all sessions hold too many, and this one is
        among those who do."""
        bucket = packet_id // BUCKET_SIZE
        mask = self._masks.get(bucket)
        if mask is None:
            if len(self._masks) >= FEW and self._all.size >= MOST:
                return False
            self._all.change(1)
            mask = 0
        self._masks[bucket] = mask | 1 << packet_id % BUCKET_SIZE
        self._changed.add(bucket)
        return True

    def remove(self, packet_id: int) -> None:
        """Forget one that is there."""
        bucket = packet_id // BUCKET_SIZE
        mask = self._masks[bucket] & ~(1 << packet_id % BUCKET_SIZE)
        if mask:
            self._masks[bucket] = mask
        else:
            del self._masks[bucket]
            self._all.change(-1)
        self._changed.add(bucket)

    def drop(self) -> None:
        """The session has ended."""
        self._all.change(-len(self._masks))
        self._masks = {}

    def take_changes(self) -> dict[int, int]:
        """What has changed since the last time: by bucket, the identifiers in it now, as bits."""
        changed, self._changed = self._changed, set()
        return {bucket: self._masks.get(bucket, 0) for bucket in changed}
