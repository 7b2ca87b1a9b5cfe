"""What the packets of a client lead to that is connected, and speaks MQTT 5.0: those that differ from MQTT 3.1.1.

Owns: the meaning of these packets. Must not know: PUBLISH (publish5), CONNECT (admission), when a client's packets are
looked at (intake).
"""

from __future__ import annotations

from ..wire import encoder, encoder5
from ..wire.codes import (
    AUTH,
    DISCONNECT,
    FAILURE,
    PINGREQ,
    PUBACK,
    PUBCOMP,
    PUBLISH,
    PUBREC,
    PUBREL,
    SUBSCRIBE,
    UNSUBSCRIBE,
    ProtocolError,
    ReasonCode,
)
from ..wire.packets import Packet
from .authentication import on_auth
from .connection import Connection
from .handlers import on_pingreq, on_puback, on_pubcomp, on_subscribe, on_unsubscribe
from .intake import Dialect, Finished
from .publish5 import on_publish

_PUBREL, _PUBCOMP = 0x62, 0x70


def on_pubrec(connection: Connection, packet: Packet) -> None:
    connection.turn.acknowledgements += 1
    _, packet_id, reason = packet
    queue = connection.session.queue  # type: ignore[union-attr]  # a connected client has a session
    if queue is not None and queue.has_sent(packet_id):
        if reason < FAILURE:
            queue.pubrec(packet_id)
        else:
            queue.refused(packet_id)  # [MQTT5-4.3.3-4] [MQTT5-4.4.0-2]
    elif reason < FAILURE:
        # 3.6.2.1
        connection.acknowledge(encoder5.ack(_PUBREL, packet_id, ReasonCode.PACKET_IDENTIFIER_NOT_FOUND), False)


def on_pubrel(connection: Connection, packet: Packet) -> None:
    connection.turn.acknowledgements += 1
    session = connection.session
    assert session is not None
    packet_id = packet[1]
    received = session.received
    if received is None or packet_id not in received:
        # 3.7.2.1
        connection.acknowledge(encoder5.ack(_PUBCOMP, packet_id, ReasonCode.PACKET_IDENTIFIER_NOT_FOUND), False)
        return
    received.remove(packet_id)
    if session.store_id:
        # Were it forgotten after the PUBCOMP, the next message with this identifier would be taken for this one.
        connection.exchange.journal.received(session)
    connection.acknowledge(encoder.pubcomp(packet_id), session.store_id != 0)  # [MQTT5-4.3.3-11]


def on_disconnect(connection: Connection, packet: Packet) -> None:
    """Unless it is a normal one, the will is published: 0x04 asks for that, and the others say what went wrong."""
    _, reason, expiry = packet
    connection.exchange.stats.other_received += 1
    session = connection.session
    assert session is not None
    if expiry is not None:
        _change_expiry(connection, expiry)
    why = "DISCONNECT" if reason == ReasonCode.SUCCESS else f"DISCONNECT with reason code {reason:#04x}"
    raise Finished(why, normal=reason == ReasonCode.SUCCESS)  # [MQTT5-3.14.4-3]


def _change_expiry(connection: Connection, seconds: int) -> None:
    """The client says how long its session is kept once it has gone."""
    session = connection.session
    assert session is not None
    if seconds and not session.expiry:
        # 3.14.2.2.2
        why = "DISCONNECT with a Session Expiry Interval, after a CONNECT without one"
        raise ProtocolError(why, reason=ReasonCode.PROTOCOL_ERROR)
    session.expiry = connection.exchange.limits.granted_expiry(seconds)


def _not_again(connection: Connection, packet: Packet) -> None:
    raise ProtocolError("a second CONNECT", reason=ReasonCode.PROTOCOL_ERROR)  # [MQTT5-3.1.0-2]


def _violated(connection: Connection, error: ProtocolError) -> None:
    connection.close(f"protocol error: {error.why}", reason=error.reason)  # [MQTT5-4.13.1-1]


DIALECT = Dialect.of(
    {
        PUBLISH: on_publish,
        AUTH: on_auth,
        PUBACK: on_puback,
        PUBREC: on_pubrec,
        PUBREL: on_pubrel,
        PUBCOMP: on_pubcomp,
        SUBSCRIBE: on_subscribe,
        UNSUBSCRIBE: on_unsubscribe,
        PINGREQ: on_pingreq,
        DISCONNECT: on_disconnect,
    },
    _not_again,
    _violated,
)
