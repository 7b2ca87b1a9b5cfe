"""What a publisher sends again and again, encoded before the start, and how its receiver finds the time in it.

Owns: which packets a publisher has, where in them the time of sending is written and read.
Must not know: connections, frames of a WebSocket, what is measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from packets import CORRELATION_DATA, RESPONSE_TOPIC, TOPIC_ALIAS, Mqtt, binary, text

STAMP_SIZE = 8  # bytes: perf_counter_ns() when it was sent


@dataclass(frozen=True)
class Messages:
    """PUBLISH packets of one size, sent in turn, and one as a subscriber gets it."""

    packets: Sequence[bytes]
    qos: int
    stamp_before_end: int  # how far before the packet's end the time stands
    received: bytes  # its content does not count, but its size and its first byte do
    received_stamp_before_end: int
    id_at: int = 0  # where the Packet Identifier stands in what is received
    opening: bytes = b""  # sent once, before all others, to nobody


def plain(mqtt: Mqtt, topics: Sequence[str], qos: int, payload: int, window: int) -> Messages:
    """
    topics: all of the same length, published to in turn
    payload: bytes, 8 or more; the time stands at its beginning
    window: the most messages ever under way. A Packet Identifier is free again after twice as many messages.
    """
    slots = max(2 * window, len(topics))
    packets = [
        mqtt.publish(topics[slot % len(topics)], bytes(payload), qos, slot % 65535 + 1, mqtt.user_properties(slot))
        for slot in range(slots)
    ]
    properties = mqtt.section(mqtt.user_properties(0))
    id_at = len(packets[0]) - payload - len(properties) - 2
    return Messages(packets, qos, payload, packets[0], payload, id_at)


def aliased(mqtt: Mqtt, topic: str, payload: int, window: int) -> Messages:
    """QoS 0, and the topic stands for an alias once, in the first packet. The subscriber gets it without an alias."""
    alias = bytes((TOPIC_ALIAS,)) + (1).to_bytes(2, "big")
    short = mqtt.publish("", bytes(payload), 0, 0, alias)
    received = mqtt.publish(topic, bytes(payload), 0, 0)
    opening = mqtt.publish(topic, bytes(payload), 0, 0, alias)
    return Messages([short] * 2 * window, 0, payload, received, payload, opening=opening)


def requests(mqtt: Mqtt, topic: str, response_topic: str, payload: int, window: int) -> Messages:
    """QoS 0 with a Response Topic; the Correlation Data is the time of sending, and comes back in the response."""
    asked = bytes((RESPONSE_TOPIC,)) + text(response_topic) + correlation(bytes(STAMP_SIZE))
    packet = mqtt.publish(topic, bytes(payload), 0, 0, asked)
    return Messages(
        [packet] * 2 * window,
        0,
        payload + STAMP_SIZE,
        response(mqtt, response_topic, payload),
        payload + STAMP_SIZE,
    )


def response(mqtt: Mqtt, topic: str, payload: int) -> bytes:
    return mqtt.publish(topic, bytes(payload), 0, 0, correlation(bytes(STAMP_SIZE)))


def correlation(data: bytes) -> bytes:
    return bytes((CORRELATION_DATA,)) + binary(data)
