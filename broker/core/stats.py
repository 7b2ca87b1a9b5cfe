"""Counters since the start.

Owns: the numbers. Must not know: how they are published (sys_topics) or logged.
"""

from dataclasses import dataclass


@dataclass(slots=True)
class Stats:
    """Messages are MQTT packets of any type; publishes are application messages."""

    bytes_received: int = 0
    bytes_sent: int = 0
    messages_received: int = 0
    other_received: int = 0  #: of these, how many were not PUBLISH
    publish_sent: int = 0
    other_sent: int = 0
    dropped: int = 0  #: messages that a client should have got, but did not because of a limit
    denied: int = 0  #: publishes, subscriptions and wills refused for lack of rights, subscriptions also by a limit
    sockets: int = 0  #: connections accepted by listeners
    connections: int = 0  #: CONNECTs accepted
    refused: int = 0  #: CONNECTs refused, and connections closed before one
    protocol_errors: int = 0
    bugs: int = 0  #: unexpected exceptions
    expired: int = 0  #: sessions that were away for too long
    maximum: int = 0  #: most clients connected at a time
