"""How long a message may still be delivered: its Message Expiry Interval, less the time that it has waited.

Owns: how a date becomes seconds. Must not know: where messages wait.

A message has a date at which it expires (wire.message), as `Clock.lasting` gives it. What is delivered in the turn in
which it was published has not waited: with an interval of 0 it goes to those who can have it at once, and to nobody
else.
"""

from __future__ import annotations

from math import ceil

from ..wire.message import Message

#: Seconds that do not matter: dates are so large that a float cannot tell less than a microsecond.
EXACT = 0.001


def is_over(message: Message, now: float) -> bool:
    """Must it not be delivered any more [MQTT5-3.3.2-5]? `now` is a date."""
    return message.expires is not None and message.expires - now <= EXACT


def seconds_left(message: Message, now: float) -> int | None:
    """What a client is told: the interval as it was received, less the whole seconds that it waited [MQTT5-3.3.2-6].
    None: it does not expire."""
    if message.expires is None:
        return None
    return max(0, ceil(message.expires - now - EXACT))
