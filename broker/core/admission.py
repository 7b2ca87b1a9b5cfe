"""CONNECT: who may come in, and CONNACK.

Owns: the order of the questions that decide it, and each refusal. Must not know: how passwords are checked, what a
session is made of.
"""

from __future__ import annotations

from typing import Any

from ..wire import encoder, strangers
from ..wire.codes import (
    CONNECT,
    MQTT_3_1,
    MQTT_3_1_1,
    MQTT_5,
    PACKET_NAMES,
    VERSION_NAMES,
    ProtocolError,
    ReasonCode,
    ReturnCode,
)
from ..wire.packets import Connect, Packet
from . import admission5, handlers, handlers5
from .connection import Connection
from .intake import ADMISSION, ADMITTING, BEHIND, CONNECTING, Dialect
from .ports import Verdict
from .reasons import OF_RETURN_CODES

NO_ROOM = "as many clients as the listener takes are connected (max_connections)"

#: What is done with a client that has been accepted, by the version that it speaks.
DIALECTS = {MQTT_3_1: handlers.DIALECT, MQTT_3_1_1: handlers.DIALECT, MQTT_5: handlers5.DIALECT}


def on_connect(connection: Connection, packet: Packet) -> None:
    connect: Connect = packet[1]
    exchange = connection.exchange
    exchange.stats.other_received += 1
    if connect.will is not None:
        exchange.router.check(connect.will.topic)
    identity = connection.identity
    if identity is not None:
        connect = connect._replace(username=identity, password=None)  # what it says itself does not count
    connection.state = ADMITTING
    room = connection.place.heard()
    if exchange.closing:
        _refuse(connection, ReturnCode.SERVER_UNAVAILABLE, "shutting down", connect)
    elif not room:
        _refuse(connection, ReturnCode.SERVER_UNAVAILABLE, NO_ROOM, connect)
    elif not connect.client_id and not connect.clean_session and connect.version != MQTT_5:
        # [MQTT-3.1.3-8]
        why = "empty Client Identifier with CleanSession = 0"
        _refuse(connection, ReturnCode.IDENTIFIER_REJECTED, why, connect)
    elif not connect.client_id and connect.version == MQTT_3_1:
        _refuse(connection, ReturnCode.IDENTIFIER_REJECTED, "empty Client Identifier in MQTT 3.1", connect)
    else:

        def decided(verdict: Verdict) -> None:
            _admitted(connection, connect, verdict)

        answer = connection.gatekeeper.admit(connect, connection.peer, decided, identity is not None)
        if isinstance(answer, Verdict):
            _admitted(connection, connect, answer)
        else:
            connection.give_up = answer
    if connection.state == ADMITTING:
        connection.await_admission()


def _admitted(connection: Connection, connect: Connect, verdict: Verdict) -> None:
    if connection.state != ADMITTING:
        return  # it left meanwhile
    connection.give_up = None
    exchange = connection.exchange
    gatekeeper = connection.gatekeeper
    refusal = _refusal(connection, connect, verdict)
    if refusal is not None:
        _refuse(connection, *refusal, connect)
        return
    asked = connect
    if not connect.client_id:
        connect = connect._replace(client_id=exchange.sessions.new_client_id())  # [MQTT5-3.1.3-6]
    limit = gatekeeper.max_keepalive
    patience = connect.keep_alive * 1.5  # [MQTT-3.1.2-24] [MQTT5-3.1.2-22]
    if limit and not 0 < connect.keep_alive <= limit:
        patience = limit * 1.5
        connect = connect._replace(keep_alive=max(1, int(limit)))
    connection.admit(connect.version, patience)
    told: dict[int, Any] = {}
    if connect.version == MQTT_5:
        admission5.take_note(connection, connect)
        told = admission5.announcements(connection, asked, connect)
    connection.rights = gatekeeper.rights(connect.username, connect.client_id)
    opened = exchange.sessions.open(connection, connect)

    def accept(present: bool) -> None:
        _accept(connection, asked, present, told)

    if opened.durable:
        exchange.journal.when_stored(accept, opened.present)  # what the CONNACK promises must be true
    else:
        accept(opened.present)
    _tell(connection, asked)


def _tell(connection: Connection, connect: Connect) -> None:
    unchecked = connect.username is not None and not connection.gatekeeper.proves_names
    note = {"note": "user name not checked"} if unchecked else {}
    connection.exchange.complaints.coming(
        "client connected",
        connection.peer,
        client=connection.client_id,
        address=connection.peer,
        user=connect.username,
        **note,
        clean=connect.clean_session,
        keep_alive=connect.keep_alive,
        version=VERSION_NAMES[connect.version] + (", bridge" if connect.bridge else ""),
    )


def _refusal(connection: Connection, connect: Connect, verdict: Verdict) -> tuple[ReturnCode, str] | None:
    """Why it may not come in, now that it is known who it is."""
    exchange = connection.exchange
    if verdict.code != ReturnCode.ACCEPTED:
        return verdict.code, verdict.why
    if exchange.closing:
        return ReturnCode.SERVER_UNAVAILABLE, "shutting down"
    owner = exchange.sessions.owner(connect.client_id)
    if owner is not None and not connection.gatekeeper.may_take_over(owner, connect.username):
        why = f"the session with this Client Identifier belongs to the user {owner!r} (allow_user_change)"
        return ReturnCode.NOT_AUTHORIZED, why
    if exchange.journal.failed and exchange.sessions.stores(connect):
        return ReturnCode.SERVER_UNAVAILABLE, "the store does not work at the moment"
    full = exchange.sessions.no_room(connection, connect) or ("" if connection.place.take() else NO_ROOM)
    return (ReturnCode.SERVER_UNAVAILABLE, full) if full else None


def _accept(connection: Connection, asked: Connect, session_present: bool, told: dict[int, Any]) -> None:
    """Send the CONNACK. It is the first packet that the client gets [MQTT-3.2.0-1] [MQTT5-3.2.0-1]."""
    session = connection.session
    if connection.state != ADMITTING or session is None:
        return  # it left meanwhile, or was taken over
    exchange = connection.exchange
    if session.version == MQTT_5:
        connack = admission5.accepted(connection, session, asked, session_present, told)
        if not connack:
            connection.close("it takes no packet as large as its CONNACK (Maximum Packet Size)")
            return
    else:
        # The reserved byte of MQTT 3.1 stays 0. [MQTT-3.1.4-4] [MQTT-3.2.2-2]
        connack = encoder.connack(ReturnCode.ACCEPTED, session_present and session.version != MQTT_3_1)
    connection.out.append(connack)
    exchange.stats.other_sent += 1
    exchange.turn.dirty.add(connection)
    connection.begin(DIALECTS[session.version])
    exchange.sessions.attach(session)
    connection.resume(ADMISSION | BEHIND)


def _refuse(
    connection: Connection, code: ReturnCode, why: str, connect: Connect | None = None, reason: ReasonCode | None = None
) -> None:
    """`reason` is the code in MQTT 5.0, if there is a better one than what the return code stands for. `connect` is
    None if it could not be read: then a `reason` says that it is one of MQTT 5.0."""
    exchange = connection.exchange
    if (reason is not None) if connect is None else connect.version == MQTT_5:
        reason = OF_RETURN_CODES[code] if reason is None else reason
        connack = admission5.refused(reason, why, connect, exchange.limits.server_reference)
    else:
        reason = None
        connack = encoder.connack(code, False)
    if connack:
        connection.out.append(connack)
        exchange.stats.other_sent += 1
    exchange.stats.refused += 1
    client_id, username = (connect.client_id, connect.username) if connect is not None else (None, None)
    # Whose fault it is, if it is not everybody's at this address.
    at_fault = {ReturnCode.IDENTIFIER_REJECTED: client_id, ReturnCode.SERVER_UNAVAILABLE: None}.get(code, username)
    number = int(code) if reason is None else f"{reason:#04x}"
    exchange.complaints.warning(
        "client refused", connection.peer, why, at_fault,
        client=client_id, address=connection.peer, user=username, code=number, reason=why,
    )  # fmt: skip
    connection.end()  # [MQTT-3.2.2-5] [MQTT-3.1.4-5] [MQTT5-3.2.2-7]


def _not_yet(connection: Connection, packet: Packet) -> None:
    raise ProtocolError(f"{PACKET_NAMES[packet[0] >> 4]} before CONNECT")  # [MQTT-3.1.0-1]


def _violated(connection: Connection, error: ProtocolError) -> None:
    if connection.state == CONNECTING and error.level == MQTT_5 and error.code is None:
        _refuse(connection, ReturnCode.SERVER_UNAVAILABLE, error.why, reason=error.reason)  # [MQTT5-3.1.4-2]
    elif error.code is not None and connection.state == CONNECTING:
        reason = error.reason if error.level == MQTT_5 else None
        _refuse(connection, error.code, error.why, reason=reason)
    else:
        stranger = strangers.explain(connection.offending, "MQTT") if connection.state == CONNECTING else ""
        connection.close(stranger or f"protocol error: {error.why}")  # [MQTT-4.8.0-1] [MQTT-3.1.4-1]


#: What is done with a client that has not said who it is.
FIRST = Dialect.of({CONNECT: on_connect}, _not_yet, _violated)
