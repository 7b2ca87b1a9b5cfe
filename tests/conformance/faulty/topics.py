"""Topic Names and Topic Filters (section 4.7), and what is a string at all (section 1.5).

Owns: which are valid, and which filter takes which name, with the faults of that. Must not know: sessions, packets.
"""

from collections.abc import Callable, Iterable


def well_formed(data: bytes) -> bool:
    """Whether a string may stand in a packet [MQTT-1.5.3-1] [MQTT-1.5.3-2]."""
    try:
        return "\0" not in data.decode()
    except UnicodeDecodeError:
        return False


def valid_filter(data: bytes) -> bool:
    """Whether it is a Topic Filter [MQTT-4.7.1-2] [MQTT-4.7.1-3] [MQTT-4.7.3-1]."""
    if not data or not well_formed(data):
        return False
    levels = data.decode().split("/")
    alone: Iterable[bool] = (len(level) == 1 for level in levels if "+" in level or "#" in level)
    return all(alone) and "#" not in levels[:-1]


def decoded(data: bytes) -> str:
    """A string of the wire, from which `packets.encoded_topic` makes the same bytes again."""
    return data.decode("utf-8", "surrogateescape")


def letters(topic: str) -> str:
    """A topic without what is no letter, digit or wildcard of ASCII."""
    return "".join(char for char in topic if char in "/+#-" or (char.isascii() and char.isalnum()))


def first_letters(topic: str) -> str:
    """A topic of which only the first level is whole."""
    first, *others = topic.split("/")
    return "/".join([first, *(level[:1] for level in others)])


def matches(topic_filter: str, topic: str, has: Callable[[str], bool] = lambda fault: False) -> bool:
    """Whether a filter takes a topic (section 4.7), unless `has` tells of a fault."""
    wanted, given = topic_filter.split("/"), topic.split("/")
    if has("wildcards are letters"):
        return wanted == given
    if topic.startswith("$"):
        of_clients = wanted[0] == "#" and has("hash matches dollar topics of clients")
        if wanted[0] in ("+", "#") and not of_clients and not has("wildcards match dollar topics"):
            return False
        if wanted[0] not in ("+", "#") and "+" in wanted and has("dollar topics have no plus"):
            return False
    if topic_filter.endswith("/#") and topic.startswith(topic_filter[:-2]) and has("hash matches siblings"):
        return True
    for position, level in enumerate(wanted):
        left = len(given) - position
        if level == "#":
            too_far = (left <= 0 and has("hash matches no parent")) or (left > 1 and has("hash matches one level"))
            return not too_far
        if level != "+" and (left <= 0 or level != given[position]):
            return False
        last = position == len(wanted) - 1
        if level == "+" and last and left > 0 and has("plus matches more levels"):
            return True
        if left <= 0:
            return last and has("plus matches the parent")
        if level == "+" and not given[position] and has("plus matches no empty level"):
            return False
    return len(wanted) == len(given)
