"""Topic Names and Topic Filters: which are valid, and which match.

Owns: the rules of MQTT 3.1.1, section 4.7, which MQTT 5.0 has too, and the form of Shared Subscriptions (MQTT 5.0,
section 4.8.2). Must not know: who subscribes, who may, and how subscriptions are stored.

Everything compares bytes, so nothing is ever normalised [MQTT-4.7.3-4], and every function here takes time linear in
the bytes it is given: no filter and no topic of a hostile client costs more than its length.
"""

from .codes import ProtocolError, ReasonCode

#: What a Shared Subscription's filter begins with.
SHARE = b"$share/"

#: A topic or a filter cut at its separators. For filters: as `split_filter` gives it.
Levels = tuple[bytes, ...]

#: The longest string that the two length bytes in front of it can announce [MQTT-4.7.3-3].
MAX_BYTES = 65_535


def is_valid_topic(topic: bytes) -> bool:
    """Whether a PUBLISH or a will may carry this Topic Name (MQTT 3.1.1, sections 1.5.3 and 4.7)."""
    return b"+" not in topic and b"#" not in topic and _text_fault(topic) is None  # [MQTT-4.7.1-1]


def is_valid_filter(topic_filter: bytes) -> bool:
    """Whether a SUBSCRIBE or an UNSUBSCRIBE may carry this Topic Filter (MQTT 3.1.1, sections 1.5.3 and 4.7)."""
    return filter_fault(topic_filter) is None


def filter_fault(topic_filter: bytes) -> str | None:
    """What is wrong with a Topic Filter, as half a sentence for people; None if it is valid."""
    fault = _text_fault(topic_filter)
    if fault is not None:
        return fault
    if b"#" in topic_filter and (b"#" in topic_filter[:-1] or topic_filter[-2:] not in (b"#", b"/#")):
        return "'#' must stand alone, as the last level"  # [MQTT-4.7.1-2]
    if b"+" in topic_filter and any(b"+" in level and level != b"+" for level in topic_filter.split(b"/")):
        return "'+' must stand alone in its level"  # [MQTT-4.7.1-3]
    return None


def split_share(topic_filter: bytes) -> tuple[bytes, bytes] | None:
    """The ShareName, and the Topic Filter behind it, of a Shared Subscription's filter; None if it is not well made, or
    an ordinary one."""
    if not topic_filter.startswith(SHARE):
        return None
    name, slash, behind = topic_filter[len(SHARE) :].partition(b"/")
    if not name or not slash or not behind or b"+" in name or b"#" in name:
        return None  # [MQTT5-4.8.2-1] [MQTT5-4.8.2-2]
    return name, behind


def check_topic_name(topic: bytes) -> None:
    """Raise ProtocolError unless `topic` is a Topic Name that may be published to."""
    if not is_valid_topic(topic):
        # [MQTT-3.3.2-1] [MQTT-3.3.2-2] [MQTT-4.7.1-1] [MQTT-4.7.3-1] [MQTT-4.7.3-2]
        # [MQTT5-3.3.2-1] [MQTT5-3.3.2-2] [MQTT5-4.7.0-1] [MQTT5-4.7.3-1] [MQTT5-4.7.3-2]
        raise ProtocolError(
            "a Topic Name that is empty, not UTF-8, or holds a wildcard or NUL",
            reason=_reason(topic, ReasonCode.TOPIC_NAME_INVALID),
        )


def check_topic_filter(topic_filter: bytes) -> None:
    """Raise ProtocolError unless it is a Topic Filter that may be subscribed to."""
    if not is_valid_filter(topic_filter):
        # [MQTT-3.8.3-1] [MQTT-3.10.3-1] [MQTT-4.7.1-2] [MQTT-4.7.1-3] [MQTT-4.7.3-1] [MQTT-4.7.3-2]
        # [MQTT5-3.8.3-1] [MQTT5-3.10.3-1] [MQTT5-4.7.1-1] [MQTT5-4.7.1-2] [MQTT5-4.7.3-1] [MQTT5-4.7.3-2]
        raise ProtocolError(
            "a Topic Filter that is empty, not UTF-8, holds NUL or a misplaced wildcard",
            reason=_reason(topic_filter, ReasonCode.TOPIC_FILTER_INVALID),
        )


def check_shared_filter(topic_filter: bytes) -> None:
    """Raise ProtocolError unless it names a group and a Topic Filter."""
    if split_share(topic_filter) is None:
        raise ProtocolError(
            "a Shared Subscription that is not $share/NAME/FILTER", reason=ReasonCode.TOPIC_FILTER_INVALID
        )  # [MQTT5-4.8.2-1] [MQTT5-4.8.2-2]


def _reason(text: bytes, else_reason: ReasonCode) -> ReasonCode:
    """What is wrong with a name or filter: its bytes, or what they say."""
    try:
        text.decode()
    except UnicodeDecodeError:
        return ReasonCode.MALFORMED_PACKET  # [MQTT5-1.5.4-1]
    return ReasonCode.MALFORMED_PACKET if b"\0" in text else else_reason  # [MQTT5-1.5.4-2]


def matches(topic_filter: bytes, topic: bytes) -> bool:
    """Whether a valid Topic Filter matches a valid Topic Name (MQTT 3.1.1, section 4.7)."""
    wanted, levels = topic_filter.split(b"/"), topic.split(b"/")
    if topic.startswith(b"$") and wanted[0] in (b"+", b"#"):
        return False  # [MQTT-4.7.2-1]
    depth = len(levels)
    for i, level in enumerate(wanted):
        if level == b"#":
            return True  # at i == depth too: it stands for the parent level as well (section 4.7.1.2)
        if i == depth or (level != levels[i] and level != b"+"):
            return False
    return len(wanted) == depth


def split_filter(topic_filter: bytes) -> Levels:
    """A valid Topic Filter cut into its levels, with '#' spelt '+/#' and '/#' spelt '/+/#'.

    No topic is empty [MQTT-4.7.3-1], so both spellings match the same topics; but with the longer one, what stands
    before a '#' is always a topic or a filter in its own right, and who compares filters needs no special case.
    """
    levels = tuple(topic_filter.split(b"/"))
    if levels in ((b"#",), (b"", b"#")):
        return (*levels[:-1], b"+", b"#")
    return levels


def _text_fault(text: bytes) -> str | None:
    if not text:
        return "it is empty"  # [MQTT-4.7.3-1]
    if len(text) > MAX_BYTES:
        return f"it is longer than {MAX_BYTES} bytes"  # [MQTT-4.7.3-3]
    if b"\0" in text:
        return "it contains a NUL character"  # [MQTT-4.7.3-2]
    try:
        text.decode()
    except UnicodeDecodeError:
        return "it is not valid UTF-8"  # [MQTT-1.5.3-1]
    return None
