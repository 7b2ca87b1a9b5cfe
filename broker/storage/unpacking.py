"""How messages are read from the rows of a queue (see packing).

Owns: which messages a segment stands for. Must not know: SQL, files.
"""

from collections.abc import Iterator
from struct import error as StructError

from ..wire.message import Message
from .bodies import Body
from .layout import EXTRAS, HEAD, OWN, QOS, RECORD, RETAIN, RUN, Malformed, read_extras, read_head


def unpack(data: bytes, body: Body | None) -> Iterator[tuple[int, int, Message]]:
    """The messages of a segment: (place relative to its first, QoS, message). `body`: what it refers to. Raises
    Malformed."""
    read = RECORD.unpack_from  # not read_head: it is done for each message
    end = len(data)
    at = 0
    try:
        while at < end:
            offset, flags, topic_size, payload_size = read(data, at)
            qos = flags & QOS
            if not 0 < qos < 3:
                raise Malformed("a message has a wrong QoS")
            if flags & RUN:
                at += HEAD
                for place, message in _run(body, payload_size, offset, topic_size):
                    yield place, min(qos, message.qos), message
                continue
            topic_at = at + HEAD
            payload_at = topic_at + topic_size
            at = payload_at + payload_size
            if at > end:
                raise Malformed("a message is cut off")
            payload = data[payload_at:at] if body is None or flags & OWN else body.data
            kept = b""
            expires = None
            if flags & EXTRAS:
                kept, behind, expires, at = read_extras(data, at, flags)
                if behind:
                    payload, kept = _apart(body, behind)
            topic = data[topic_at:payload_at]
            yield offset, qos, Message(topic, payload, qos, bool(flags & RETAIN), None, kept, expires)
    except StructError:
        raise Malformed("a message is cut off") from None
    if not end:
        raise Malformed("a message is cut off")


def _run(body: Body | None, at: int, offset: int, count: int) -> Iterator[tuple[int, Message]]:
    """So many messages from there on in a block, with their places."""
    if body is None:
        raise Malformed("the messages that it refers to are missing")
    for place in range(offset, offset + count):
        unpacked = body.unpacked.get(at)
        if unpacked is None:
            unpacked = body.unpacked[at] = _in_block(body.data, at)
        message, at = unpacked
        yield place, message


def _in_block(block: bytes, at: int) -> tuple[Message, int]:
    """The message that begins there, and where it ends."""
    _, flags, topic_size, payload_size = read_head(block, at)
    topic_at = at + HEAD
    payload_at = topic_at + topic_size
    end = payload_at + payload_size
    qos = flags & QOS
    if end > len(block) or not 0 < qos < 3:
        raise Malformed("a message is cut off")
    topic, payload, retain = block[topic_at:payload_at], block[payload_at:end], bool(flags & RETAIN)
    if flags & EXTRAS:
        kept, _, expires, end = read_extras(block, end, flags)
        return Message(topic, payload, qos, retain, None, kept, expires), end
    return Message(topic, payload, qos, retain), end


def _apart(body: Body | None, behind: int) -> tuple[bytes, bytes]:
    """The payload, and the properties that stand behind it."""
    if body is None or behind > len(body.data):
        raise Malformed("the properties of a message are missing")
    if body.apart is None or len(body.apart[1]) != behind:
        body.apart = body.data[:-behind], body.data[-behind:]
    return body.apart
