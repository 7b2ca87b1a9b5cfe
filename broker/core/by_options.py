"""Delivery to those who get a message in a way of their own: slower than the usual way, which it leaves as it is.

Owns: who gets such a message, and in which form. Must not know: who asks for what, and why.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..wire.codes import MQTT_5
from ..wire.message import Message
from .looking_back import GROUP, SPECIAL, Group, Holder
from .message_expiry import seconds_left
from .route import Special
from .subscription import NO_LOCAL, QOS, RETAIN_AS_PUBLISHED
from .turn import Turn

#: Units of work that it takes to hand a message to one of them.
SPECIALLY = 8

#: A message as one or more get it: is it marked as retained, and which subscriptions does it name?
_Forms = dict[tuple[bool, bytes], Message]


def deliver(
    turn: Turn, now: float, message: Message, retain: bool, targets: Sequence[Special], author: Holder | None
) -> None:
    """Hand a message to these holders, each by its options. `now` is a date; `retain`: was it published to be retained?
    Where the bytes are the same for several, they are made once."""
    forms: _Forms = {(False, b""): message}
    turn.account.spent += SPECIALLY * len(targets)
    for one in targets:
        if one.holder.layout == GROUP:
            group: Group = one.holder  # type: ignore[assignment]
            group.share(message, one.options, author, retain)
        else:
            _hand(turn, now, forms, retain, one, author)


def hand(turn: Turn, now: float, message: Message, retain: bool, one: Special, author: Holder | None) -> None:
    """The same for one of them, which is not a group."""
    _hand(turn, now, {(False, b""): message}, retain, one, author)


def _hand(turn: Turn, now: float, forms: _Forms, retain: bool, one: Special, author: Holder | None) -> None:
    target, options, identifiers = one
    if options & NO_LOCAL and target is author:
        return  # [MQTT5-3.8.3-3]
    # [MQTT5-3.3.1-12] [MQTT5-3.3.1-13]
    form = (retain and options & RETAIN_AS_PUBLISHED != 0, identifiers if target.version == MQTT_5 else b"")
    message = forms.get(form)
    if message is None:
        message = forms[form] = copy_for(forms[False, b""], *form)
    qos = min(message.qos, options & QOS)  # [MQTT5-3.8.4-8]
    if qos:
        target.queue.deliver(message, qos)  # type: ignore[union-attr]  # a grant above 0 comes with a queue
        turn.queued += 1
    else:
        send_at_most_once(turn, now, message, target)


def copy_for(message: Message, retain: bool, identifiers: bytes) -> Message:
    """The message with this RETAIN flag, and these Subscription Identifiers [MQTT5-3.3.4-3] [MQTT5-3.3.4-4]."""
    kept = identifiers + message.kept
    return Message(message.topic, message.payload, message.qos, retain, None, kept, message.expires)


def retained(message: Message, identifiers: bytes) -> Message:
    """A retained message for a subscription that has just been made."""
    return copy_for(message, True, identifiers) if identifiers else message


def send_at_most_once(turn: Turn, now: float, message: Message, target: Holder) -> None:
    """At QoS 0."""
    connection = target.connection
    if target.version != MQTT_5:
        frame = message.frame()
    elif target.layout != SPECIAL or connection is None or connection.outward is None:
        frame = message.frame5(seconds_left(message, now))
    elif target.sink is not connection.out:
        frame = b""  # it goes nowhere, and so sets no alias [MQTT5-4.4.0-1]
    else:
        laid = connection.outward.frame(message, seconds_left(message, now))
        if laid is None:
            return
        frame = laid
    target.sink.append(frame)
    turn.sent += 1
    if connection is not None:
        turn.dirty.add(connection)
