"""The shape of every packet that the decoder yields.

Owns: the names of what packets are made of. Must not know: how packets are cut out of a stream (decoder), what they do
(core).

A packet is a tuple that begins with the first byte of its fixed header (type and flags). There is no object per
PUBLISH, because creating one costs more than all the rest of its decoding:

    PUBLISH                        (first, topic, frame, payload_at, packet_id)     packet_id is 0 at QoS 0
    PUBACK PUBREC PUBREL PUBCOMP   (first, packet_id)
    SUBSCRIBE                      (first, packet_id, [(filter, qos), ...])         a long one: Subscriptions
    UNSUBSCRIBE                    (first, packet_id, [filter, ...])                a long one: Unsubscriptions
    CONNECT                        (first, Connect)
    PINGREQ DISCONNECT             (first,)

In MQTT 5.0, where these differ:

    PUBLISH                        (first, topic, frame, payload_at, packet_id, published)
    PUBACK PUBREC PUBREL PUBCOMP   (first, packet_id, reason)
    SUBSCRIBE                      (first, packet_id, [(filter, options), ...], identifier)
    DISCONNECT                     (first, reason, session_expiry)
    AUTH                           (first, reason, method, data)

`published` is None where there are no properties, else Published. The topic is empty where a Topic Alias stands for it.
A reason is an int. `options` is the byte as sent, with no mistake in it; `identifier` is 0 if there is none.
`session_expiry` is None if it is not said. An AUTH always has a method.

`frame` is the whole packet as it came, and `frame[payload_at:]` its payload: at QoS 0 the frame goes out again
as it is. A topic is bytes; whether it is a valid Topic Name is checked by whoever looks it up first.
"""

from typing import Any, TypeAlias

from .connect import Connect, Will, parse_connect
from .filters import (
    LONG,
    MAX_FILTERS,
    Filters,
    Subscriptions,
    Unsubscriptions,
    parse_subscribe,
    parse_subscribe_5,
    parse_unsubscribe,
)
from .properties import Published
from .topics import check_topic_name

Packet: TypeAlias = tuple[Any, ...]

__all__ = [
    "LONG",
    "MAX_FILTERS",
    "Connect",
    "Filters",
    "Packet",
    "Published",
    "Subscriptions",
    "Unsubscriptions",
    "Will",
    "check_topic_name",
    "parse_connect",
    "parse_subscribe",
    "parse_subscribe_5",
    "parse_unsubscribe",
]
