"""Topic Names and Topic Filters: which are valid, and which match.

Owns: the rules of MQTT 3.1.1, section 4.7. Must not know: who subscribes, who may, and how subscriptions are stored.

Everything compares bytes, so nothing is ever normalised [MQTT-4.7.3-4], and every function here takes time linear in
the bytes it is given: no filter and no topic of a hostile client costs more than its length.
"""

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
