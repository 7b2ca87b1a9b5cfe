"""What the packets of a client lead to that is connected, and speaks MQTT 3.1 or 3.1.1.

Owns: the meaning of these packets, and the quick ways of the commonest of them. Must not know: CONNECT (admission),
when a client's packets are looked at (intake).

What raises Spent has used up the client's share of the turn.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from ..wire import encoder
from ..wire.codes import (
    DISCONNECT,
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
from ..wire.message import Message
from ..wire.packets import Packet
from . import bridges
from .account import BRANCHES, COPIED
from .connection import Connection
from .identifiers import Identifiers
from .intake import Dialect, Finished, Spent
from .route import Route
from .router import MANY_WILDCARDS

#: Units of work that it takes to read a Topic Filter, and that a PUBLISH takes which does not go the quick way.
READING = 3
SLOWLY = 3

_T = TypeVar("_T")


def on_publish(connection: Connection, packet: Packet) -> None:
    first, topic, frame, payload_at, _ = packet
    route = connection.known(topic)
    if route is None:
        if connection.exchange.router.wildcards > MANY_WILDCARDS:
            connection.work_on(_find_and_publish(connection, packet))
        else:
            _publish(connection, packet)
        return
    turn = connection.turn
    rights = connection.rights
    quick = route.plain and (rights is None or rights.may_surely_publish(topic))
    if first == 0x30 and quick:
        # QoS 0, not to be retained: the frame goes on as it came, once for all who get it.
        if route.size:
            turn.sent += route.size
            if route.marked != turn.number:
                turn.mark(route)
            for target in route.targets:
                target.sink.append(frame)
        return
    if first == 0x30 and route.crowd and (rights is None or rights.may_surely_publish(topic)):
        turn.sent += route.size
        turn.mark(route)
        for target in route.targets:
            target.sink.append(frame)
        turn.account.spent += route.size * len(frame) // COPIED
        if turn.over:
            raise Spent
        return
    if first == 0x32 and quick and not route.granted0:
        # QoS 1 to subscribers of QoS 1 and more: the head goes on as it came.
        message = Message(topic, frame[payload_at:], 1, False, frame[: payload_at - 2])
        for target in route.targets:
            target.queue.deliver(message, 1)  # type: ignore[union-attr]  # a grant above 0 comes with a queue
        turn.queued += route.size
        acknowledgement = b"\x40\x02" + frame[payload_at - 2 : payload_at]  # [MQTT-3.3.4-1]
        if route.durable or connection.held:
            connection.acknowledge(acknowledgement, route.durable)
        else:
            connection.out.append(acknowledgement)
            turn.acknowledged += 1
            turn.dirty.add(connection)
        return
    _publish(connection, packet)


def _on_publish_limited(connection: Connection, packet: Packet) -> None:
    """As on_publish, where not every QoS is served. The client could not know: MQTT 3.1.1 has no word for that."""
    most = connection.exchange.limits.max_qos
    if (packet[0] >> 1) & 3 > most:
        raise ProtocolError(f"PUBLISH with QoS {(packet[0] >> 1) & 3}; at most {most} (max_qos)")
    on_publish(connection, packet)


def _find_and_publish(connection: Connection, packet: Packet) -> Iterator[None]:
    """A PUBLISH of which it may take long to find out who gets it."""
    for _ in connection.exchange.router.route_in_steps(packet[1]):
        if connection.turn.over:
            yield
    _publish(connection, packet)


def _publish(connection: Connection, packet: Packet) -> None:
    """A PUBLISH that does not go the quick way. Raises Spent when it is done, if it was too much."""
    first, topic, frame, payload_at, packet_id = packet
    exchange = connection.exchange
    connection.turn.account.spent += SLOWLY
    session = connection.session
    assert session is not None
    route = connection.known(topic) or exchange.router.route(topic)
    allowed = may_publish(connection, topic, route)
    qos = (first >> 1) & 3
    durable = False
    if not allowed:
        # [MQTT-3.3.5-2] It is acknowledged as any other, and goes nowhere.
        exchange.denials.denied("publish refused: not authorised", connection.peer, session, topic)
    elif qos < 2:
        durable = exchange.publish(topic, frame[payload_at:], qos, bool(first & 1), session)
    else:
        received = session.received
        if received is None:
            received = session.received = Identifiers(exchange.sessions.unreleased)
        if packet_id in received:
            # [MQTT-4.3.3-2] Known already: answered again, after whatever it waits for, and not delivered again.
            durable = session.store_id != 0
        else:
            if not received.add(packet_id):
                why = "it holds too many Packet Identifiers of QoS 2 messages that it has not released"
                connection.close(why, reason=ReasonCode.QUOTA_EXCEEDED)
                raise Spent
            durable = exchange.publish(topic, frame[payload_at:], qos, bool(first & 1), session)
            if session.store_id:
                durable = True
                exchange.journal.received(session)
    if qos:
        connection.acknowledge(
            (b"\x40\x02" if qos == 1 else b"\x50\x02") + packet_id.to_bytes(2, "big"), durable
        )  # [MQTT-3.3.4-1]
    elif first & 1 and exchange.journal.full:
        connection.wait_for_store()  # nobody waits for what is retained at QoS 0, but it is stored
    if connection.turn.over:
        raise Spent


def may_publish(connection: Connection, topic: bytes, route: Route) -> bool:
    """As bridges.may_publish. What it takes to find out is charged."""
    session = connection.session
    assert session is not None
    rights = session.rights
    if rights is None:
        return bridges.may_publish(session, topic, route)
    before = rights.effort
    allowed = bridges.may_publish(session, topic, route)
    connection.turn.account.spent += (rights.effort - before) // BRANCHES
    return allowed


def on_puback(connection: Connection, packet: Packet) -> None:
    connection.turn.acknowledgements += 1
    queue = connection.session.queue  # type: ignore[union-attr]  # a connected client has a session
    if queue is not None:
        queue.puback(packet[1])


def on_pubrec(connection: Connection, packet: Packet) -> None:
    connection.turn.acknowledgements += 1
    queue = connection.session.queue  # type: ignore[union-attr]
    if queue is not None:
        queue.pubrec(packet[1])
    else:
        connection.acknowledge(encoder.pubrel(packet[1]), False)


def on_pubrel(connection: Connection, packet: Packet) -> None:
    connection.turn.acknowledgements += 1
    session = connection.session
    assert session is not None
    packet_id = packet[1]
    durable = False
    if session.received is not None and packet_id in session.received:
        session.received.remove(packet_id)
        if session.store_id:
            # Were it forgotten after the PUBCOMP, the next message with this identifier would be taken for this one.
            connection.exchange.journal.received(session)
            durable = True
    connection.acknowledge(encoder.pubcomp(packet_id), durable)


def on_pubcomp(connection: Connection, packet: Packet) -> None:
    connection.turn.acknowledgements += 1
    queue = connection.session.queue  # type: ignore[union-attr]
    if queue is not None:
        queue.pubcomp(packet[1])


def on_subscribe(connection: Connection, packet: Packet) -> None:
    exchange = connection.exchange
    session = connection.session
    assert session is not None
    exchange.stats.other_received += 1
    connection.work_on(exchange.subscriptions.subscribe(session, packet[1], _read(connection, packet[2]), *packet[3:]))


def on_unsubscribe(connection: Connection, packet: Packet) -> None:
    exchange = connection.exchange
    session = connection.session
    assert session is not None
    exchange.stats.other_received += 1
    connection.work_on(exchange.subscriptions.unsubscribe(session, packet[1], _read(connection, packet[2])))


def _read(connection: Connection, filters: Iterable[_T]) -> Iterator[_T | None]:
    """The Topic Filters of a packet; None where the client's share of the turn is used up. A long list is read to
    its end before the first filter comes: where it is malformed, nothing of it is done."""
    if not isinstance(filters, list):
        account = connection.turn.account
        read = []
        for one in filters:
            read.append(one)
            account.spent += READING
            if connection.turn.over:
                yield None
        filters = read
    yield from filters


def on_pingreq(connection: Connection, packet: Packet) -> None:
    connection.exchange.stats.other_received += 1
    connection.exchange.stats.other_sent += 1
    connection.out.append(encoder.PINGRESP)  # [MQTT-3.12.4-1]
    connection.turn.dirty.add(connection)


def on_disconnect(connection: Connection, packet: Packet) -> None:
    connection.exchange.stats.other_received += 1
    raise Finished


def _not_again(connection: Connection, packet: Packet) -> None:
    raise ProtocolError("a second CONNECT")  # [MQTT-3.1.0-2]


def _violated(connection: Connection, error: ProtocolError) -> None:
    connection.close(f"protocol error: {error.why}")  # [MQTT-4.8.0-1]


DIALECT = Dialect.of(
    {
        PUBLISH: on_publish,
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

#: Where not every QoS is served.
LIMITED = DIALECT._replace(
    handlers=[_on_publish_limited if handler is on_publish else handler for handler in DIALECT.handlers]
)
