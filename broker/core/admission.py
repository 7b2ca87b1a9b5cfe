"""CONNECT: who may come in, and CONNACK.

Owns: the order of the questions that decide it, and each refusal. Must not know: how passwords are checked, what a
session is made of.
"""

from __future__ import annotations

from ..wire import encoder, strangers
from ..wire.codes import CONNECT, MQTT_3_1, MQTT_3_1_1, PACKET_NAMES, ProtocolError, ReturnCode
from ..wire.packets import Connect, Packet
from . import handlers
from .connection import Connection
from .intake import ADMISSION, ADMITTING, BEHIND, CONNECTING, Dialogue
from .ports import Verdict

NO_ROOM = "as many clients as the listener takes are connected (max_connections)"

#: What is done with a client that has been accepted, by the version that it speaks.
DIALOGUES = {MQTT_3_1: handlers.DIALOGUE, MQTT_3_1_1: handlers.DIALOGUE}


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
    elif not connect.client_id and not connect.clean_session:
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
    if not connect.client_id:
        connect = connect._replace(client_id=exchange.sessions.new_client_id())
    patience = connect.keep_alive * 1.5  # [MQTT-3.1.2-24]
    limit = gatekeeper.max_keepalive * 1.5
    connection.admit(connect.version, limit if limit and not 0 < patience <= limit else patience)
    connection.rights = gatekeeper.rights(connect.username, connect.client_id)
    opened = exchange.sessions.open(connection, connect)
    if opened.durable:
        # What the CONNACK promises must be true.
        exchange.journal.when_stored(lambda present: _accept(connection, present), opened.present)
    else:
        _accept(connection, opened.present)
    unchecked = connect.username is not None and not gatekeeper.proves_names
    note = {"note": "user name not checked"} if unchecked else {}
    exchange.complaints.coming(
        "client connected",
        connection.peer,
        client=connection.client_id,
        address=connection.peer,
        user=connect.username,
        **note,
        clean=connect.clean_session,
        keep_alive=connect.keep_alive,
        version=("3.1" if connect.version == MQTT_3_1 else "3.1.1") + (", bridge" if connect.bridge else ""),
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


def _accept(connection: Connection, session_present: bool) -> None:
    """Send the CONNACK. It is the first packet that the client gets [MQTT-3.2.0-1]."""
    session = connection.session
    if connection.state != ADMITTING or session is None:
        return  # it left meanwhile, or was taken over
    exchange = connection.exchange
    # The reserved byte of MQTT 3.1 stays 0.
    present = session_present and session.version != MQTT_3_1
    connection.out.append(encoder.connack(ReturnCode.ACCEPTED, present))  # [MQTT-3.1.4-4] [MQTT-3.2.2-2]
    exchange.stats.other_sent += 1
    exchange.turn.dirty.add(connection)
    connection.begin(DIALOGUES[session.version])
    exchange.sessions.attach(session)
    connection.resume(ADMISSION | BEHIND)


def _refuse(connection: Connection, code: ReturnCode, why: str, connect: Connect | None = None) -> None:
    exchange = connection.exchange
    connection.out.append(encoder.connack(code, False))
    exchange.stats.other_sent += 1
    exchange.stats.refused += 1
    client_id, username = (connect.client_id, connect.username) if connect is not None else (None, None)
    # Whose fault it is, if it is not everybody's at this address.
    at_fault = {ReturnCode.IDENTIFIER_REJECTED: client_id, ReturnCode.SERVER_UNAVAILABLE: None}.get(code, username)
    exchange.complaints.warning(
        "client refused", connection.peer, why, at_fault,
        client=client_id, address=connection.peer, user=username, code=int(code), reason=why,
    )  # fmt: skip
    connection.end()  # [MQTT-3.2.2-5] [MQTT-3.1.4-5]


def _not_yet(connection: Connection, packet: Packet) -> None:
    raise ProtocolError(f"{PACKET_NAMES[packet[0] >> 4]} before CONNECT")  # [MQTT-3.1.0-1]


def _violated(connection: Connection, error: ProtocolError) -> None:
    if error.code is not None and connection.state == CONNECTING:
        _refuse(connection, error.code, error.why)
    else:
        stranger = strangers.explain(connection.offending, "MQTT") if connection.state == CONNECTING else ""
        connection.close(stranger or f"protocol error: {error.why}")  # [MQTT-4.8.0-1] [MQTT-3.1.4-1]


#: What is done with a client that has not said who it is.
FIRST = Dialogue.of({CONNECT: on_connect}, _not_yet, _violated)
