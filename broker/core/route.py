"""The answer to a topic: who gets what is published to it.

Owns: those who get it, sorted by how they get it and what they were granted, so that a publish has nothing to ask of
them. Must not know: filters, how it was found out, how a message is delivered.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..wire.properties import SUBSCRIPTION_IDENTIFIER, encode
from .looking_back import FIVE, THREE, Holder
from .subscription import IDENTIFIERS, QOS, RETAIN_HANDLING, identifiers

#: Deliveries of one message that cost no more than the packet itself.
FEW = 32


class Special(NamedTuple):
    """One who gets a message in a way of its own."""

    holder: Holder
    options: int  #: see broker.core.subscription
    identifiers: bytes  #: the properties that name the subscriptions


def identifying(options: int) -> bytes:
    """The properties that name the subscriptions."""
    return encode({SUBSCRIPTION_IDENTIFIER: identifiers(options)}) if options >> IDENTIFIERS else b""


class Route:
    """The holders that get what is published to a topic. Who speaks MQTT 3.1.1 or 5.0 and asks for nothing but a QoS
    gets what many get; all others are `special`. The former are sorted by the QoS that they were granted.

    `plain`, `plain5`: any client that has the right may publish to the topic, and all speak this version and are not
    special.
    """

    __slots__ = (
        "__weakref__",
        "crowd",
        "crowd5",
        "durable",
        "fives",
        "fives0",
        "granted0",
        "granted1",
        "granted2",
        "marked",
        "plain",
        "plain5",
        "reserved",
        "size",
        "special",
        "targets",
        "threes",
    )

    def __init__(self, targets: dict[Holder, int], reserved: bool) -> None:
        self.targets = list(targets)
        self.size = len(targets)
        #: Those who speak MQTT 3.1.1, and 5.0.
        self.threes: Sequence[Holder] = ()
        self.fives: Sequence[Holder] = ()
        #: Of these, who gets QoS 0; and of both, who gets QoS 1 and 2.
        self.granted0: Sequence[Holder] = ()
        self.fives0: Sequence[Holder] = ()
        self.granted1: Sequence[Holder] = ()
        self.granted2: Sequence[Holder] = ()
        self.special: Sequence[Special] = ()
        #: Is any of those that get QoS 1 or 2 persistent, so that the publisher's acknowledgement waits for the store?
        self.durable = False
        different = set(targets.values())
        if max(different, default=0) > QOS or any(target.layout != THREE for target in self.targets):
            targets = self._sort(targets)
        else:
            self.threes = self.targets
        for qos in {options & QOS for options in different}:
            granted = [target for target in targets if targets[target] & QOS == qos]
            if qos == 0:
                self.granted0 = granted
                continue
            if qos == 1:
                self.granted1 = granted
            else:
                self.granted2 = granted
            self.durable = self.durable or any(target.store_id for target in granted)
        if len(self.threes) < self.size:
            self.granted0, self.fives0 = _by_layout(self.granted0)
        #: Is it the broker's own topic, to which no client may publish?
        self.reserved = reserved
        #: May what is published to it take the quick way, on which nothing is charged but the packet?
        few = not reserved and self.size <= FEW
        self.plain = few and len(self.threes) == self.size
        self.plain5 = few and len(self.fives) == self.size
        #: The same, but that there are so many that their deliveries are charged at once?
        many = not reserved and self.size > FEW
        self.crowd = many and len(self.threes) == self.size
        self.crowd5 = many and len(self.fives) == self.size
        #: The turn in which its connections were last noted for flushing.
        self.marked = -1

    def _sort(self, targets: dict[Holder, int]) -> dict[Holder, int]:
        """Find those who are special. Gives the others."""
        plain: dict[Holder, int] = {}
        special = []
        for target, asked in targets.items():
            options = asked & ~RETAIN_HANDLING
            if options <= QOS and (target.layout == THREE or target.layout == FIVE):
                plain[target] = options
                continue
            special.append(Special(target, options, identifying(options)))
            if options & QOS and target.store_id:
                self.durable = True
        self.special = special
        self.threes, self.fives = _by_layout(plain)
        return plain


def _by_layout(targets: Sequence[Holder] | dict[Holder, int]) -> tuple[list[Holder], list[Holder]]:
    threes = [target for target in targets if target.layout == THREE]
    return threes, [target for target in targets if target.layout == FIVE]
