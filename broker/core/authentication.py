"""Enhanced authentication: the AUTH packets of a client that comes in, or is in (MQTT 5.0, section 4.12).

Owns: whose turn it is to say something, and what may be said. Must not know: methods and what they compute
(ports.Gatekeeper), what follows from the outcome.
"""

from __future__ import annotations

from collections.abc import Callable

from ..wire import encoder5, properties
from ..wire.codes import ProtocolError, ReasonCode, ReturnCode
from ..wire.packets import Packet
from .connection import Connection
from .intake import CLOSED, Spent
from .ports import Challenge, Dialogue, Failed, Proved

AGAIN = "re-authentication failed"

#: Units of work that a step takes, and bytes of what the client says that are a unit more: names are made comparable.
STEP = 100
LETTERS = 2


class Authentication:
    """One client's. Implements looking_back.Authenticating."""

    __slots__ = ("deciding", "dialogue", "done", "method")

    def __init__(self, method: str, dialogue: Dialogue, done: Callable[[Proved | Failed], None]) -> None:
        """`done` hears how it has ended."""
        self.method = method
        self.dialogue: Dialogue | None = dialogue  #: the one that is under way
        self.done = done
        self.deciding = False  #: is it the broker's turn?

    @property
    def asks(self) -> bool:
        """Has the client been asked something, and not answered?"""
        return self.dialogue is not None and not self.deciding

    def go_on(self, connection: Connection, data: bytes) -> None:
        """The client has said this."""
        dialogue = self.dialogue
        assert dialogue is not None

        def decided(outcome: Challenge | Proved | Failed) -> None:
            if connection.state == CLOSED or self.dialogue is not dialogue:
                return
            connection.give_up = None
            self.deciding = False
            if isinstance(outcome, Challenge):
                answer(connection, self.method, ReasonCode.CONTINUE_AUTHENTICATION, outcome.data)
                connection.hear()
            else:
                self.dialogue = None
                done, self.done = self.done, _over  # it may hold much
                done(outcome)

        connection.turn.account.spent += STEP + len(data) // LETTERS
        self.deciding = True
        reply = dialogue.step(data, decided)
        if isinstance(reply, tuple):
            decided(reply)
        else:
            connection.give_up = reply


def _over(outcome: Proved | Failed) -> None: ...


def told(method: str, data: bytes) -> dict[int, object]:
    """The properties of a packet of this authentication [MQTT5-4.12.0-5]."""
    found: dict[int, object] = {properties.AUTHENTICATION_METHOD: method}
    if data:
        found[properties.AUTHENTICATION_DATA] = data
    return found


def answer(connection: Connection, method: str, reason: ReasonCode, data: bytes) -> None:
    """Send an AUTH."""
    packet = encoder5.auth(reason, properties.encode(told(method, data)))
    if connection.largest and len(packet) > connection.largest:
        connection.close("it takes no packet as large as its AUTH (Maximum Packet Size)")
        return
    connection.out.append(packet)
    connection.exchange.stats.other_sent += 1
    connection.turn.dirty.add(connection)


def continued(connection: Connection, packet: Packet) -> Authentication:
    """The client has sent an AUTH: it must be one that was asked for. It is that of this authentication."""
    _, reason, method, _ = packet
    connection.exchange.stats.other_received += 1
    authentication = connection.authentication
    if authentication is None:
        # [MQTT5-4.12.0-7]
        raise _wrong("AUTH after a CONNECT without an Authentication Method")
    if method != authentication.method:
        raise _wrong("AUTH with another Authentication Method than CONNECT")  # [MQTT5-4.12.0-5] [MQTT5-4.12.1-1]
    if reason == ReasonCode.CONTINUE_AUTHENTICATION and not authentication.asks:
        raise _wrong("AUTH that nothing had asked for")
    assert isinstance(authentication, Authentication)
    return authentication


def on_auth(connection: Connection, packet: Packet) -> None:
    """AUTH of a client that is in: it authenticates itself again, and goes on with other things meanwhile."""
    authentication = continued(connection, packet)
    session = connection.session
    assert session is not None
    method = authentication.method
    if packet[1] == ReasonCode.RE_AUTHENTICATE:
        if authentication.deciding:
            raise _wrong("AUTH before the last one was answered")
        dialogue = connection.gatekeeper.begin(method, None, session.username, connection.peer)
        if dialogue is None:  # a reload has taken it away
            connection.close(f"{AGAIN}: no user has this method any more", reason=ReasonCode.NOT_AUTHORIZED)
            return
        authentication.dialogue = dialogue

        def done(outcome: Proved | Failed) -> None:
            if isinstance(outcome, Proved):
                answer(connection, method, ReasonCode.SUCCESS, outcome.data)
            else:
                busy = outcome.code == ReturnCode.SERVER_UNAVAILABLE
                reason = ReasonCode.SERVER_BUSY if busy else ReasonCode.NOT_AUTHORIZED
                connection.close(f"{AGAIN}: {outcome.why}", reason=reason)  # [MQTT5-4.12.1-2]

        authentication.done = done
    authentication.go_on(connection, packet[3])
    if connection.turn.over:
        raise Spent


def _wrong(why: str) -> ProtocolError:
    return ProtocolError(why, reason=ReasonCode.PROTOCOL_ERROR)
