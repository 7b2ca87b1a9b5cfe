"""CONNACK of MQTT 5.0: what broker and client tell each other of what they take.

Owns: what a client is told, and when that is left unsaid. Must not know: who may come in (admission).
"""

from __future__ import annotations

from typing import Any

from ..wire import encoder5, properties
from ..wire.codes import ReasonCode
from ..wire.packets import Connect
from .connection import Connection
from .limits import NEVER
from .reasons import reason_string, with_reason_string
from .session import Session
from .unanswered import ANY_NUMBER

#: The largest packet that there can be: who takes this takes any.
ANY_SIZE = 268_435_460


def take_note(connection: Connection, connect: Connect) -> None:
    """What the client takes, and what it will be told that the broker takes."""
    limits = connection.exchange.limits
    connection.receive_maximum = connect.receive_maximum
    connection.largest = connect.max_packet_size
    connection.alias_maximum = connect.topic_alias_maximum
    connection.problem_information = connect.request_problem
    connection.receive_limit = limits.receive_maximum
    connection.alias_limit = limits.max_topic_alias


def announcements(connection: Connection, asked: Connect, connect: Connect) -> dict[int, Any]:
    """What the CONNACK says, but for the session: only what the client could not assume. `asked` is what it sent,
    `connect` what has become of it."""
    limits = connection.exchange.limits
    told: dict[int, Any] = {}
    if connection.receive_limit != ANY_NUMBER:
        told[properties.RECEIVE_MAXIMUM] = connection.receive_limit
    if limits.max_qos < 2:
        told[properties.MAXIMUM_QOS] = limits.max_qos  # [MQTT5-3.2.2-9]
    if not limits.retain_available:
        told[properties.RETAIN_AVAILABLE] = 0
    if connection.max_packet_size < ANY_SIZE:
        told[properties.MAXIMUM_PACKET_SIZE] = connection.max_packet_size
    if connect.client_id != asked.client_id:
        told[properties.ASSIGNED_CLIENT_IDENTIFIER] = connect.client_id  # [MQTT5-3.2.2-16] [MQTT5-3.1.3-7]
    if connection.alias_limit:
        told[properties.TOPIC_ALIAS_MAXIMUM] = connection.alias_limit
    if not limits.wildcard_available:
        told[properties.WILDCARD_SUBSCRIPTION_AVAILABLE] = 0
    if not limits.shared_available:
        told[properties.SHARED_SUBSCRIPTION_AVAILABLE] = 0
    if connect.keep_alive != asked.keep_alive:
        told[properties.SERVER_KEEP_ALIVE] = connect.keep_alive  # [MQTT5-3.2.2-21]
    if asked.request_response:  # [MQTT5-3.1.2-28]
        information = response_information(limits.response_information, connect)
        if information:
            told[properties.RESPONSE_INFORMATION] = information
    return told


def response_information(pattern: str, connect: Connect) -> str:
    """What the client begins its Response Topics with: %c is its Client Identifier, %u its user name. "" if that makes
    no topic."""
    username = connect.username
    if "%u" in pattern and not username:
        return ""
    found = pattern.replace("%c", "\0").replace("%u", username or "").replace("\0", connect.client_id)
    levels = (("%c", connect.client_id), ("%u", username or ""))
    if any(mark in pattern and not set("+#/").isdisjoint(name) for mark, name in levels):
        return ""
    return found


def accepted(connection: Connection, session: Session, asked: Connect, present: bool, told: dict[int, Any]) -> bytes:
    """The CONNACK; b"" if the client does not take so large a packet."""
    granted = session.expiry
    if granted is not None and granted != expiry_of(asked.session_expiry):
        # What is so, if it is not what was asked for (3.2.2.3.2).
        told = {properties.SESSION_EXPIRY_INTERVAL: NEVER if granted == float("inf") else int(granted), **told}
    packet = encoder5.connack(ReasonCode.SUCCESS, present, properties.encode(told))
    if connection.largest and len(packet) > connection.largest:
        # Of what is told, this alone changes nothing.
        told.pop(properties.RESPONSE_INFORMATION, None)
        packet = encoder5.connack(ReasonCode.SUCCESS, present, properties.encode(told))
    return _if_taken(packet, connection.largest)  # [MQTT5-3.1.2-24]


def refused(connection: Connection, reason: ReasonCode, why: str) -> bytes:
    """The CONNACK of a refusal; b"" if the client does not take so large a packet."""
    section = b""
    if reason in (ReasonCode.USE_ANOTHER_SERVER, ReasonCode.SERVER_MOVED):
        section = properties.encode({properties.SERVER_REFERENCE: connection.exchange.limits.server_reference})
    text = reason_string(reason, why) if connection.problem_information else ""
    packet = with_reason_string(
        lambda more: encoder5.connack(reason, False, more), section, text, connection.largest
    )  # [MQTT5-3.2.2-19]
    return _if_taken(packet, connection.largest)


def expiry_of(seconds: int) -> float:
    """A Session Expiry Interval as a number of seconds."""
    return float("inf") if seconds == NEVER else float(seconds)


def _if_taken(packet: bytes, largest: int) -> bytes:
    return packet if not largest or len(packet) <= largest else b""
