"""How one message is packed into bytes, and what of that is read again.

Owns: the layout of a record. Must not know: which records stand together, and where.
"""

from struct import Struct
from struct import error as StructError

from ..wire.message import Message
from .soundness import LONGEST

# A record: place relative to the segment's first, flags, length of topic, of payload; topic and payload follow.
# Of a run: place of its first, flags, count, where it begins in the block. Its QoS is the most that one of them gets:
# each has in the block the one that it was published with, so that a mixture of QoS 1 and 2 is one run.
RECORD = Struct("<IBHI")
HEAD = RECORD.size
QOS = 3
RETAIN = 4
RUN = 8
OWN = 16  # it has its payload here, although the segment refers to a block
# What follows the payload, or the topic where that stands alone: how long the properties are and the properties
# themselves; the date when it expires. Of properties behind a payload that stands alone, only the length is here.
KEPT = 32
EXPIRES = 64
KEPT_BEHIND = 128
EXTRAS = KEPT | EXPIRES | KEPT_BEHIND
_LENGTH = Struct("<I")
_DATE = Struct("<d")


class Malformed(Exception):
    """This was not packed here. str() says what is wrong."""


def extras(message: Message, behind: bool = False) -> tuple[int, bytes]:
    """The flags of a message, besides its QoS, and what follows its payload. `behind`: its properties stand behind a
    payload that stands alone."""
    kept, expires = message.kept, message.expires
    flags = RETAIN if message.retain else 0
    data = b""
    if kept:
        flags |= KEPT_BEHIND if behind else KEPT
        data = _LENGTH.pack(len(kept)) if behind else _LENGTH.pack(len(kept)) + kept
    if expires is not None:
        flags |= EXPIRES
        data += _DATE.pack(expires)
    return flags, data


def read_extras(data: bytes, at: int, flags: int) -> tuple[bytes, int, float | None, int]:
    """What follows a payload: the properties, or how many bytes of them stand behind one that stands alone; the date
    at which the message expires; and where all of it ends."""
    kept = b""
    behind = 0
    expires: float | None = None
    try:
        if flags & (KEPT | KEPT_BEHIND):
            (size,) = _LENGTH.unpack_from(data, at)
            at += _LENGTH.size
            if flags & KEPT_BEHIND:
                behind = size
            else:
                kept = data[at : at + size]
                at += size
        if flags & EXPIRES:
            (expires,) = _DATE.unpack_from(data, at)
            at += _DATE.size
    except StructError:
        raise Malformed("a message is cut off") from None
    if at > len(data):
        raise Malformed("a message is cut off")
    if expires is not None and not -LONGEST <= expires <= LONGEST:
        raise Malformed("a message expires at a date that is none")
    return kept, behind, expires, at


def read_head(data: bytes, at: int) -> tuple[int, int, int, int]:
    try:
        head: tuple[int, int, int, int] = RECORD.unpack_from(data, at)
    except StructError:
        raise Malformed("a message is cut off") from None
    return head
