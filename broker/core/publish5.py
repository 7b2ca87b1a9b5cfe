"""What a PUBLISH of MQTT 5.0 leads to.

Owns: Topic Aliases of clients, what they may publish by the limits, what they are answered, and the quick ways of the
commonest PUBLISHes. Must not know: who gets a message, and how.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..wire.codes import FAILURE, ProtocolError, ReasonCode
from ..wire.encoder5 import ack
from ..wire.message import CameWith5, Message
from ..wire.packets import Packet, Published
from .account import COPIED
from .aliases import Inward
from .connection import Connection
from .handlers import SLOWLY, may_publish
from .identifiers import Identifiers
from .intake import Spent
from .reasons import with_reason_string
from .router import MANY_WILDCARDS
from .session import Session
from .unanswered import ANY_NUMBER, Unanswered

_PUBACK, _PUBREC = 0x40, 0x50
_SUCCESS, _NO_MATCHING_SUBSCRIBERS, _NOT_AUTHORIZED = 0x00, 0x10, 0x87


def on_publish(connection: Connection, packet: Packet) -> None:
    first, topic, frame, payload_at, packet_id, said = packet
    if said is not None and said.alias:
        topic = _meant(connection, topic, said.alias)
    route = connection.known(topic)
    if route is None:
        if connection.exchange.router.wildcards > MANY_WILDCARDS:
            connection.work_on(_find_and_publish(connection, packet, topic))
        else:
            _publish(connection, packet, topic)
        return
    turn = connection.turn
    rights = connection.rights
    as_it_came = (said is None or said.forwardable) and (rights is None or rights.may_surely_publish(topic))
    if first == 0x30 and as_it_came and route.plain5:
        # QoS 0, not to be retained: the frame goes on as it came, once for all who get it.
        if route.size:
            turn.sent += route.size
            if route.marked != turn.number:
                turn.mark(route)
            for target in route.targets:
                target.sink.append(frame)
        return
    if first == 0x30 and as_it_came and route.crowd5:
        turn.sent += route.size
        turn.mark(route)
        for target in route.targets:
            target.sink.append(frame)
        turn.account.spent += route.size * len(frame) // COPIED
        if turn.over:
            raise Spent
        return
    if first == 0x32 and as_it_came and route.plain5 and route.size and not route.fives0 and _unlimited(connection):
        # QoS 1 to subscribers of QoS 1 and more: the head goes on as it came.
        message = _as_it_came(topic, frame, payload_at, said)
        for target in route.targets:
            target.queue.deliver(message, 1)  # type: ignore[union-attr]  # a grant above 0 comes with a queue
        turn.queued += route.size
        acknowledgement = b"\x40\x02" + packet_id.to_bytes(2, "big")  # [MQTT5-4.3.2-4]
        if route.durable or connection.held:
            connection.acknowledge(acknowledgement, route.durable)
        else:
            connection.out.append(acknowledgement)
            turn.acknowledged += 1
            turn.dirty.add(connection)
        return
    _publish(connection, packet, topic)


def _as_it_came(topic: bytes, frame: bytes, payload_at: int, said: Published | None) -> Message:
    """A message of QoS 1, of which all that the publisher sent can go out again."""
    if said is None:
        bare = Message(topic, frame[payload_at:], 1)
        bare.give_head5(frame[: payload_at - 3])
        return bare
    size = len(said.kept)
    if size > 127:
        return Message(topic, frame[payload_at:], 1, False, None, said.kept)
    message = CameWith5(topic, frame[payload_at:], 1, False, None, said.kept)
    at = payload_at - size - 1
    message.came = frame[: at - 2]
    message.told = frame[at:payload_at]
    return message


def _unlimited(connection: Connection) -> bool:
    """May it have as many messages of QoS 1 in flight as it likes?"""
    return connection.receive_limit == ANY_NUMBER and connection.exchange.limits.max_qos > 0


def _meant(connection: Connection, topic: bytes, alias: int) -> bytes:
    """The topic of a PUBLISH with a Topic Alias, which is set if it comes with a topic [MQTT5-3.3.2-12]."""
    inward = connection.inward
    if inward is None:
        inward = connection.inward = Inward(connection.alias_limit)
    inward.check(alias)
    if not topic:
        return inward.topic(alias)
    exchange = connection.exchange
    if connection.known(topic) is None:
        exchange.router.check(topic)
    more = inward.set(alias, topic)
    if more:
        memory = exchange.memory.clients
        if more > 0 and memory.full(more):
            raise ProtocolError(
                "there is no memory for more Topic Aliases (max_memory)", reason=ReasonCode.QUOTA_EXCEEDED
            )
        memory.size += more
        connection.size += more
    return topic


def _find_and_publish(connection: Connection, packet: Packet, topic: bytes) -> Iterator[None]:
    """A PUBLISH of which it may take long to find out who gets it."""
    for _ in connection.exchange.router.route_in_steps(topic):
        if connection.turn.over:
            yield
    _publish(connection, packet, topic)


def _publish(connection: Connection, packet: Packet, topic: bytes) -> None:
    """A PUBLISH that does not go the quick way. Raises Spent when it is done, if it was too much."""
    first, _, frame, payload_at, packet_id, said = packet
    exchange = connection.exchange
    connection.turn.account.spent += SLOWLY
    session = connection.session
    assert session is not None
    qos = (first >> 1) & 3
    retain = bool(first & 1)
    limits = exchange.limits
    if qos > limits.max_qos or retain or connection.receive_limit != ANY_NUMBER:
        _check(connection, qos, retain, packet_id)
    route = connection.known(topic) or exchange.router.route(topic)
    reason = _SUCCESS
    durable = False
    if not may_publish(connection, topic, route):
        # It goes nowhere. At QoS 0 there is no answer to say so.
        exchange.denials.denied("publish refused: not authorised", connection.peer, session, topic)
        reason = _NOT_AUTHORIZED
    elif qos == 2 and session.received is not None and packet_id in session.received:
        # [MQTT5-4.3.3-10] Known already: answered again, after whatever it waits for, and not delivered again.
        durable = session.store_id != 0
    else:
        if qos == 2 and (session.received is None or not session.received.add(packet_id)):
            _note(connection, session, packet_id)
        if said is None:
            durable = exchange.publish(topic, frame[payload_at:], qos, retain, session)
        else:
            expires = None if said.expiry is None else exchange.expiry.lasting() + said.expiry
            durable = exchange.publish(topic, frame[payload_at:], qos, retain, session, said.kept, expires)
        if qos == 2 and session.store_id:
            durable = True
            exchange.journal.received(session)
        if not route.size:  # sessions whose clients are away are subscribers, and groups are
            reason = _NO_MATCHING_SUBSCRIBERS
    if qos:
        # [MQTT5-4.3.2-4] [MQTT5-4.3.3-8]
        if reason == _NOT_AUTHORIZED:
            answer = _refusal(connection, _PUBACK if qos == 1 else _PUBREC, packet_id)
        elif reason:
            answer = ack(_PUBACK if qos == 1 else _PUBREC, packet_id, reason)
        else:
            answer = (b"\x40\x02" if qos == 1 else b"\x50\x02") + packet_id.to_bytes(2, "big")
        connection.acknowledge(answer, durable)
        if connection.unanswered is not None:
            _answered(connection, connection.unanswered, qos, packet_id, reason)
    elif retain and exchange.journal.full:
        connection.wait_for_store()  # nobody waits for what is retained at QoS 0, but it is stored
    if connection.turn.over:
        raise Spent


def _refusal(connection: Connection, first: int, packet_id: int) -> bytes:
    """The answer to a message that its client may not publish."""
    text = "not authorised to publish to this topic" if connection.problem_information else ""  # [MQTT5-3.1.2-29]
    return with_reason_string(
        lambda more: ack(first, packet_id, _NOT_AUTHORIZED, more), b"", text, connection.largest
    )  # [MQTT5-3.4.2-2] [MQTT5-3.5.2-2]


def _check(connection: Connection, qos: int, retain: bool, packet_id: int) -> None:
    """Raise ProtocolError if the CONNACK has told the client not to send this."""
    limits = connection.exchange.limits
    if qos > limits.max_qos:
        # [MQTT5-3.2.2-11]
        raise ProtocolError(
            f"PUBLISH with QoS {qos}; at most {limits.max_qos} (max_qos)", reason=ReasonCode.QOS_NOT_SUPPORTED
        )
    if retain and not limits.retain_available:
        # [MQTT5-3.2.2-14]
        raise ProtocolError("PUBLISH with RETAIN (retain_available)", reason=ReasonCode.RETAIN_NOT_SUPPORTED)
    if qos and connection.receive_limit != ANY_NUMBER:
        if connection.unanswered is None:
            connection.unanswered = Unanswered(connection.receive_limit)
        session = connection.session
        assert session is not None
        connection.unanswered.take(packet_id, qos, session.received)  # [MQTT5-3.3.4-7]


def _note(connection: Connection, session: Session, packet_id: int) -> None:
    """The client has sent a message of QoS 2 with this identifier [MQTT5-4.3.3-10]: the first one, or there is no room
    for one more."""
    if session.received is None:
        session.received = Identifiers(connection.exchange.sessions.unreleased)
    if not session.received.add(packet_id):
        connection.close(
            "it holds too many Packet Identifiers of QoS 2 messages that it has not released",
            reason=ReasonCode.QUOTA_EXCEEDED,
        )
        raise Spent


def _answered(connection: Connection, unanswered: Unanswered, qos: int, packet_id: int, reason: int) -> None:
    """The answer to a PUBLISH is on its way. At QoS 2 it is but the first one, if it is not an error."""
    if qos == 2 and reason < FAILURE:
        return
    if connection.held:
        connection.exchange.journal.when_stored(unanswered.done, packet_id)
    else:
        unanswered.done(packet_id)
