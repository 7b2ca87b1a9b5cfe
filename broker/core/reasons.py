"""Why something ended, as a client of MQTT 5.0 is told: reason codes and Reason Strings.

Owns: which code stands for a return code of MQTT 3.1.1, which words a client hears, and that a packet is no larger than
the client takes. Must not know: what has happened, connections, the log.

The log says all; a client hears nothing that it could not know: not who has taken its session, nor whether a user
exists.
"""

from __future__ import annotations

from collections.abc import Callable

from ..wire import properties
from ..wire.codes import ReasonCode, ReturnCode
from .limits import Limits

#: What a refusal is called in MQTT 5.0, where nothing more is known of it.
OF_RETURN_CODES = {
    ReturnCode.ACCEPTED: ReasonCode.SUCCESS,
    ReturnCode.UNACCEPTABLE_PROTOCOL_VERSION: ReasonCode.UNSUPPORTED_PROTOCOL_VERSION,
    ReturnCode.IDENTIFIER_REJECTED: ReasonCode.CLIENT_IDENTIFIER_NOT_VALID,
    ReturnCode.SERVER_UNAVAILABLE: ReasonCode.SERVER_UNAVAILABLE,
    ReturnCode.BAD_USER_NAME_OR_PASSWORD: ReasonCode.BAD_USER_NAME_OR_PASSWORD,
    ReturnCode.NOT_AUTHORIZED: ReasonCode.NOT_AUTHORIZED,
}

#: What is told of these, whatever the log says.
_TOLD = {
    ReasonCode.BAD_USER_NAME_OR_PASSWORD: "the user name or the password is wrong",
    ReasonCode.NOT_AUTHORIZED: "not authorised",
    ReasonCode.BANNED: "this user may not connect",
    ReasonCode.SESSION_TAKEN_OVER: "another client has connected with this Client Identifier",
    ReasonCode.IMPLEMENTATION_SPECIFIC_ERROR: "an error in the broker",
}

#: Why clients are sent to another broker.
MOVED = "clients are to use another broker (moved)"

#: Characters of a Reason String: it is a sentence.
LONGEST = 500


def elsewhere(limits: Limits, ends: bool) -> ReasonCode | None:
    """Why clients are to go to another broker; None: they may stay. `ends`: this one is about to end."""
    if limits.moved == "for good":
        return ReasonCode.SERVER_MOVED
    if limits.moved == "for now" or (ends and limits.server_reference):
        return ReasonCode.USE_ANOTHER_SERVER
    return None


def reason_string(reason: ReasonCode, why: str) -> str:
    return _TOLD.get(reason, why)[:LONGEST].replace("\0", "")


def with_reason_string(build: Callable[[bytes], bytes], section: bytes, text: str, largest: int) -> bytes:
    """The packet that `build` makes of its properties: these, and the text as its Reason String, if the client takes so
    large a packet. "" is no text; `largest` 0 is any size."""
    if text:
        packet = build(section + properties.encode({properties.REASON_STRING: text}))
        if not largest or len(packet) <= largest:
            return packet
    return build(section)
