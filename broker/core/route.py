"""The answer to a topic: who gets what is published to it.

Owns: those who get it, sorted by what they were granted, so that a publish has nothing to ask of them. Must not know:
filters, how it was found out, how a message is delivered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .looking_back import Holder
from .subscription import QOS

#: Deliveries of one message that cost no more than the packet itself.
FEW = 32


class Route:
    """The holders that get what is published to a topic, sorted by the QoS that they were granted.

    `plain`: any client that has the right may publish to the topic, and a QoS is all that the subscriptions ask for.
    """

    __slots__ = (
        "__weakref__",
        "crowd",
        "durable",
        "granted0",
        "granted1",
        "granted2",
        "marked",
        "options",
        "plain",
        "reserved",
        "size",
        "targets",
    )

    def __init__(self, targets: dict[Holder, int], reserved: bool) -> None:
        self.targets = list(targets)
        self.size = len(targets)
        self.granted0: Sequence[Holder] = ()
        self.granted1: Sequence[Holder] = ()
        self.granted2: Sequence[Holder] = ()
        #: Is any of those that get QoS 1 or 2 persistent, so that the publisher's acknowledgement waits for the store?
        self.durable = False
        #: What each subscription asks for, if any asks for more than a QoS.
        self.options: Mapping[Holder, int] | None = None
        different = set(targets.values())
        for qos in {options & QOS for options in different}:
            granted = [target for target in self.targets if targets[target] & QOS == qos]
            if qos == 0:
                self.granted0 = granted
                continue
            if qos == 1:
                self.granted1 = granted
            else:
                self.granted2 = granted
            self.durable = self.durable or any(target.store_id for target in granted)
        #: Is it the broker's own topic, to which no client may publish?
        self.reserved = reserved
        if max(different, default=0) > QOS:
            self.options = dict(targets)
        #: May what is published to it take the quick way, on which nothing is charged but the packet?
        self.plain = not reserved and self.options is None and self.size <= FEW
        #: The same, but that there are so many that their deliveries are charged at once?
        self.crowd = not reserved and self.options is None and self.size > FEW
        #: The turn in which its connections were last noted for flushing.
        self.marked = -1
