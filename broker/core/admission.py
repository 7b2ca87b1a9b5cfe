"""CONNECT: who may come in, and CONNACK.

Owns: the order of the questions that decide it, and each refusal. Must not know: how passwords are checked, what a
session is made of.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ..wire import encoder, strangers
from ..wire.codes import (
    AUTH,
    CONNECT,
    DISCONNECT,
    MQTT_3_1,
    MQTT_3_1_1,
    MQTT_5,
    PACKET_NAMES,
    VERSION_NAMES,
    ProtocolError,
    ReasonCode,
    ReturnCode,
)
from ..wire.packets import Connect, Packet, Will
from . import admission5, authentication, handlers, handlers5, reasons
from .connection import Connection
from .intake import ADMISSION, ADMITTING, BEHIND, CONNECTING, Dialect
from .limits import Limits
from .ports import Failed, Proved, Verdict
from .reasons import OF_RETURN_CODES

NO_ROOM = "as many clients as the listener takes are connected (max_connections)"
SHUTTING_DOWN = "shutting down"
ACCEPTED = Verdict(ReturnCode.ACCEPTED)
#: Those who decide say this where too many passwords wait to be checked.
_BUSY = {ReturnCode.SERVER_UNAVAILABLE: ReasonCode.SERVER_BUSY}

#: How a CONNECT of MQTT 5.0 begins, behind its fixed header.
_CONNECT_5 = b"\0\4MQTT\5"

#: What is done with a client that has been accepted, by the version that it speaks.
DIALECTS = {MQTT_3_1: handlers.DIALECT, MQTT_3_1_1: handlers.DIALECT, MQTT_5: handlers5.DIALECT}


class _Refusal(NamedTuple):
    code: ReturnCode
    why: str
    reason: ReasonCode | None = None  #: in MQTT 5.0, if there is a better one than what the return code stands for


def on_connect(connection: Connection, packet: Packet) -> None:
    connect: Connect = packet[1]
    exchange = connection.exchange
    exchange.stats.other_received += 1
    if connect.will is not None:
        try:
            exchange.router.check(connect.will.topic)
        except ProtocolError as error:
            error.level = connect.version
            raise
    if connect.version == MQTT_5:
        admission5.take_note(connection, connect)
    identity = connection.identity
    if identity is not None:
        connect = connect._replace(username=identity, password=None)  # what it says itself does not count
    connection.state = ADMITTING
    refusal = _at_once(connection, connect, connection.place.heard())
    if refusal is not None:
        _refuse(connection, refusal, connect)
    elif connect.auth_method is not None:
        _authenticate(connection, connect, connect.auth_method)
    else:

        def decided(verdict: Verdict) -> None:
            _admitted(connection, connect, verdict)

        answer = connection.gatekeeper.admit(connect, connection.peer, decided, identity is not None)
        if isinstance(answer, Verdict):
            _admitted(connection, connect, answer)
        else:
            connection.give_up = answer
    _wait(connection)


def _at_once(connection: Connection, connect: Connect, room: bool) -> _Refusal | None:
    """Why it may not come in, whoever it is."""
    exchange = connection.exchange
    elsewhere = reasons.elsewhere(exchange.limits, exchange.closing)
    if elsewhere is not None or exchange.closing:
        return _Refusal(ReturnCode.SERVER_UNAVAILABLE, SHUTTING_DOWN if exchange.closing else reasons.MOVED, elsewhere)
    if not room:
        return _Refusal(ReturnCode.SERVER_UNAVAILABLE, NO_ROOM, ReasonCode.QUOTA_EXCEEDED)
    if not connect.client_id and connect.version == MQTT_3_1:
        return _Refusal(ReturnCode.IDENTIFIER_REJECTED, "empty Client Identifier in MQTT 3.1")
    if not connect.client_id and not connect.clean_session and connect.version != MQTT_5:
        # [MQTT-3.1.3-8]
        return _Refusal(ReturnCode.IDENTIFIER_REJECTED, "empty Client Identifier with CleanSession = 0")
    if connect.will is not None and connect.version == MQTT_5:
        return _of_its_will(exchange.limits, connect.will)
    return None


def _of_its_will(limits: Limits, will: Will) -> _Refusal | None:
    if will.qos > limits.max_qos:
        # [MQTT5-3.2.2-12]
        why = f"a will with QoS {will.qos}; at most {limits.max_qos} (max_qos)"
        return _Refusal(ReturnCode.NOT_AUTHORIZED, why, ReasonCode.QOS_NOT_SUPPORTED)
    if will.retain and not limits.retain_available:
        # [MQTT5-3.2.2-13]
        why = "a will with RETAIN (retain_available)"
        return _Refusal(ReturnCode.NOT_AUTHORIZED, why, ReasonCode.RETAIN_NOT_SUPPORTED)
    return None


def _wait(connection: Connection) -> None:
    """While others decide whether it may come in, nothing is decoded; but it is the client's turn where it was asked
    something."""
    authentication = connection.authentication
    if connection.state == ADMITTING and not (authentication is not None and authentication.asks):
        connection.await_admission()


# --- enhanced authentication ---


def _authenticate(connection: Connection, connect: Connect, method: str) -> None:
    dialogue = connection.gatekeeper.begin(method, connect.client_id, connect.username, connection.peer)
    if dialogue is None:
        # [MQTT5-4.12.0-1]
        why = f"there is no user here for the authentication method {method[:100]!r}"
        _refuse(connection, _Refusal(ReturnCode.NOT_AUTHORIZED, why, ReasonCode.BAD_AUTHENTICATION_METHOD), connect)
        return

    def done(outcome: Proved | Failed) -> None:
        if isinstance(outcome, Failed):
            who = connect._replace(username=outcome.username)
            _refuse(connection, _Refusal(outcome.code, outcome.why, _BUSY.get(outcome.code)), who)
        else:
            proved = connect._replace(username=outcome.username, password=None)
            _admitted(connection, proved, ACCEPTED, authentication.told(method, outcome.data))

    connection.speak(connect.version)
    connection.authentication = begun = authentication.Authentication(method, dialogue, done)
    connection.listen(AUTHENTICATING)
    begun.go_on(connection, connect.auth_data)


def _on_auth(connection: Connection, packet: Packet) -> None:
    begun = authentication.continued(connection, packet)
    if packet[1] != ReasonCode.CONTINUE_AUTHENTICATION:
        raise ProtocolError("re-authentication before CONNACK", reason=ReasonCode.PROTOCOL_ERROR)
    begun.go_on(connection, packet[3])
    _wait(connection)


def _on_disconnect(connection: Connection, packet: Packet) -> None:
    connection.exchange.stats.other_received += 1
    connection.close("DISCONNECT before CONNACK")


def _not_now(connection: Connection, packet: Packet) -> None:
    # [MQTT5-3.1.2-30]
    raise ProtocolError(f"{PACKET_NAMES[packet[0] >> 4]} before CONNACK", reason=ReasonCode.PROTOCOL_ERROR)


def _spoilt(connection: Connection, error: ProtocolError) -> None:
    _refuse(connection, _Refusal(ReturnCode.SERVER_UNAVAILABLE, f"protocol error: {error.why}", error.reason))


# --- the answer ---


def _admitted(
    connection: Connection, connect: Connect, verdict: Verdict, proof: Mapping[int, object] | None = None
) -> None:
    """`proof`: the properties of the CONNACK that end its authentication."""
    if connection.state != ADMITTING:
        return  # it left meanwhile
    connection.give_up = None
    exchange = connection.exchange
    gatekeeper = connection.gatekeeper
    refusal = _refusal(connection, connect, verdict)
    if refusal is not None:
        _refuse(connection, refusal, connect)
        return
    asked = connect
    if not connect.client_id:
        connect = connect._replace(client_id=exchange.sessions.new_client_id())  # [MQTT5-3.1.3-6]
    limit = gatekeeper.max_keepalive
    patience = connect.keep_alive * 1.5  # [MQTT-3.1.2-24] [MQTT5-3.1.2-22]
    if limit and not 0 < connect.keep_alive <= limit:
        connect = connect._replace(keep_alive=max(1, int(limit)))
        patience = (max(limit, connect.keep_alive) if connect.version == MQTT_5 else limit) * 1.5
    connection.admit(connect.version, patience)
    told: dict[int, Any] = {}
    if connect.version == MQTT_5:
        told = {**admission5.announcements(connection, asked, connect), **(proof or {})}
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


def _refusal(connection: Connection, connect: Connect, verdict: Verdict) -> _Refusal | None:
    """Why it may not come in, now that it is known who it is."""
    exchange = connection.exchange
    if verdict.code != ReturnCode.ACCEPTED:
        return _Refusal(verdict.code, verdict.why, _BUSY.get(verdict.code))
    if exchange.closing:
        elsewhere = reasons.elsewhere(exchange.limits, True)
        return _Refusal(ReturnCode.SERVER_UNAVAILABLE, SHUTTING_DOWN, elsewhere)
    owner = exchange.sessions.owner(connect.client_id)
    if owner is not None and not connection.gatekeeper.may_take_over(owner, connect.username):
        why = f"the session with this Client Identifier belongs to the user {owner!r} (allow_user_change)"
        return _Refusal(ReturnCode.NOT_AUTHORIZED, why)
    if exchange.journal.failed and exchange.sessions.stores(connect):
        return _Refusal(ReturnCode.SERVER_UNAVAILABLE, "the store does not work at the moment")
    full = exchange.sessions.no_room(connection, connect) or ("" if connection.place.take() else NO_ROOM)
    return _Refusal(ReturnCode.SERVER_UNAVAILABLE, full, ReasonCode.QUOTA_EXCEEDED) if full else None


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
    limited = exchange.limits.max_qos < 2 and session.version != MQTT_5
    connection.begin(handlers.LIMITED if limited else DIALECTS[session.version])
    exchange.sessions.attach(session)
    connection.resume(ADMISSION | BEHIND)


def _refuse(connection: Connection, refusal: _Refusal, connect: Connect | None = None) -> None:
    """`connect` is None if it could not be read: then a reason says that it is one of MQTT 5.0."""
    exchange = connection.exchange
    code, why, reason = refusal
    if (reason is not None) if connect is None else connect.version == MQTT_5:
        reason = OF_RETURN_CODES[code] if reason is None else reason
        connection.speak(MQTT_5)
        connack = admission5.refused(connection, reason, why)
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
    if connection.state != CONNECTING:
        connection.close(f"protocol error: {error.why}")
        return
    begins = connection.offending
    if error.level == MQTT_5 or (error.reason == ReasonCode.PACKET_TOO_LARGE and _CONNECT_5 in begins):
        # [MQTT5-3.1.4-1] [MQTT5-4.13.1-1]
        _refuse(connection, _Refusal(error.code or ReturnCode.SERVER_UNAVAILABLE, error.why, error.reason))
    elif error.code is not None:
        _refuse(connection, _Refusal(error.code, error.why))
    else:
        stranger = strangers.explain(begins, "MQTT")
        connection.close(stranger or f"protocol error: {error.why}")  # [MQTT-4.8.0-1] [MQTT-3.1.4-1]


#: What is done with a client that has not said who it is.
FIRST = Dialect.of({CONNECT: on_connect}, _not_yet, _violated)

#: What is done with a client that is asked to prove who it is.
AUTHENTICATING = Dialect.of({AUTH: _on_auth, DISCONNECT: _on_disconnect}, _not_now, _spoilt)
