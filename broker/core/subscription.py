"""What a subscription asks for besides its Topic Filter, in one number; and which filters are not served.

Owns: the bits of that number, and what several of one session come to. Must not know: sessions, messages, the network.

The lowest bits are those of MQTT 5.0's Subscription Options; above them stands the Subscription Identifier. A client of
MQTT 3.1 and 3.1.1 can ask for a QoS alone, and its number is just that; what a bridge gets besides, it gets with each
of its subscriptions.
"""

from ..wire.topics import split_share

QOS = 3
#: What the session itself publishes does not come back to it.
NO_LOCAL = 4
#: Messages come with the RETAIN flag that they were published with, so that they can be retained elsewhere too.
RETAIN_AS_PUBLISHED = 8
#: What retained messages a subscription gets when it is made: it is of no account for those that come later.
RETAIN_HANDLING = 0x30
SEND, SEND_IF_NEW = 0x00, 0x10
#: Where the Subscription Identifiers begin: those of several subscriptions stand one above the other.
IDENTIFIERS = 8
#: Bits of each: the largest is 268,435,455 (MQTT 5.0, 3.8.2.1.2).
WIDTH = 28

#: How the filters begin of subscriptions that several clients share: `$share/NAME/FILTER`, and `$queue/FILTER`, which
#: other brokers have for a group without a name.
SHARED = (SHARE, QUEUE) = (b"$share/", b"$queue/")
#: The name of that group.
NAMELESS = b"$queue"


def shared(topic_filter: bytes) -> tuple[bytes, bytes] | None:
    """The whole name of the group and the Topic Filter behind it, if it is a shared subscription, and well made."""
    if topic_filter.startswith(QUEUE):
        behind = topic_filter[len(QUEUE) :]
        return (b"%b%b/%b" % (SHARE, NAMELESS, behind), behind) if behind else None
    parts = split_share(topic_filter)
    return (topic_filter, parts[1]) if parts is not None else None


def together(one: int, other: int) -> int:
    """What a session gets of a topic that two of its filters match: the higher QoS [MQTT-3.3.5-1] [MQTT5-3.3.4-2],
    nothing is withheld from it that one of them alone would give, and one copy names them both [MQTT5-3.3.4-4]."""
    both = max(one & QOS, other & QOS) | (one & other & NO_LOCAL) | ((one | other) & RETAIN_AS_PUBLISHED)
    first, second = one >> IDENTIFIERS, other >> IDENTIFIERS
    if first or second:
        both |= (first | second << -(-first.bit_length() // WIDTH) * WIDTH) << IDENTIFIERS
    return both


def identifiers(options: int) -> list[int]:
    """The Subscription Identifiers that stand in it."""
    rest = options >> IDENTIFIERS
    found = []
    while rest:
        found.append(rest & (1 << WIDTH) - 1)
        rest >>= WIDTH
    return found
