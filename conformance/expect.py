"""What a test demands of the broker: each function returns what came, or fails the test with what was expected.

Owns: the expectations, and their words. Must not know: pytest, profiles, how a verdict is shown.

A function raises `Failure` when the broker breaks the rule. When the rule cannot be judged, because something else did
not work, it raises `Inconclusive`.
"""

import secrets
import time
from collections.abc import Callable, Collection
from typing import Any, Protocol

from . import packets
from .packets import Connack, Packet, Publish
from .raw import Closed, NoAnswer, Raw, Silence
from .verdicts import Failure, Inconclusive

#: How many of many messages that are missing are named.
SHOWN = 5


class Receiver(Protocol):
    """Whoever has a subscription: `raw.Raw` or `clients.Client`."""

    name: str
    patience: float

    def next_message(self, within: float | None = None) -> Publish: ...


class Publisher(Protocol):
    """Whoever can publish: `raw.Raw` or `clients.Client`."""

    def publish(self, topic: str, payload: bytes, qos: int = 0, *, retain: bool = False) -> None: ...


def that(condition: bool, expected: str, actual: str) -> None:
    """Fails with these words unless the condition holds."""
    if not condition:
        raise Failure(expected, actual)


def equal(actual: object, expected: object, what: str) -> None:
    """Fails unless both are equal; `what` names the value, such as "the granted QoS"."""
    if actual != expected:
        raise Failure(f"{what}: {expected!r}", f"{actual!r}")


def connack(raw: Raw, code: int | Collection[int] = 0, *, session_present: bool | None = None) -> Connack:
    """A CONNACK comes with that code (or one of those codes), and with that Session Present flag.

    Neither the rest of its form is judged nor whether it is the first packet: those are rules of their own.
    """
    wanted = _codes(code)
    expected = f"CONNACK with {_names(wanted)}"
    if session_present is not None:
        expected += f" and SessionPresent={session_present:d}"
    try:
        found = _take_connack(raw)
    except Silence:
        raise Failure(expected, f"none came in {raw.patience:g} s, and the connection is open{_seen(raw)}") from None
    except NoAnswer as error:
        raise Failure(expected, f"{error}{_seen(raw)}") from None
    if len(found.body) < 2 or found.code not in wanted:
        raise Failure(expected, str(found))
    if session_present is not None and found.session_present != session_present:
        raise Failure(expected, str(found))
    return found


def refused(raw: Raw, code: int | Collection[int]) -> Connack:
    """A CONNACK with that code (or one of those codes) comes first, and then the broker closes."""
    packet = connack(raw, code)
    closed(raw, after="the refusal")
    return packet


def not_accepted(raw: Raw) -> Connack | None:
    """The CONNECT is not accepted and the broker closes: the CONNACK that refused it, None if there was none."""
    expected = "the broker closes the connection without accepting it"
    try:
        found = _take_connack(raw)
    except Closed:
        return None
    except NoAnswer as error:
        raise Failure(expected, f"{error}{_seen(raw)}") from None
    if found.code == 0:
        raise Failure(expected, str(found))
    closed(raw, after="the refusal")
    return found


def accepted_or_refused(raw: Raw, code: int) -> Connack | None:
    """The CONNECT is accepted, or refused with that code and the connection closed; None if it is closed at once."""
    try:
        found = _take_connack(raw)
    except Closed:
        return None
    except NoAnswer as error:
        raise Failure("CONNACK, or the end of the connection", f"{error}{_seen(raw)}") from None
    if len(found.body) < 2 or found.code not in (0, code):
        raise Failure(f"CONNACK with code 0 or {code}", str(found))
    if found.code:
        closed(raw, after="the refusal")
    return found


def closed(raw: Raw, *, after: str = "that", within: float | None = None) -> float:
    """The broker closes the connection, by FIN or RST: how many seconds after the last packet was sent.

    What the broker sends before it closes is not judged, and can still be read.
    """
    try:
        raw.wait_closed(within)
    except Silence:
        waited = time.monotonic() - raw.last_sent_at
        raise Failure(
            f"the broker closes the connection after {after}",
            f"the connection is open {waited:.1f} s later{_seen(raw)}",
        ) from None
    return raw.closed_at - raw.last_sent_at


def dropped(raw: Raw, *, after: str = "that") -> float:
    """The broker closes the connection and sends nothing before: how many seconds after the last packet was sent."""
    seconds = closed(raw, after=after)
    try:
        packet = raw.next()
    except Closed:
        return seconds
    raise Failure(f"the broker closes the connection after {after} and sends nothing before", str(packet))


def alive(raw: Raw, *, after: str = "that") -> None:
    """The connection is open and served: a PINGREQ is answered."""
    expected = f"the connection stays open after {after}"
    raw.send(packets.pingreq())
    try:
        raw.take(packets.PINGRESP)
    except Silence:
        raise Failure(f"{expected}, and PINGREQ is answered", f"no PINGRESP in {raw.patience:g} s") from None
    except NoAnswer as error:
        raise Failure(expected, str(error)) from None


def packet(raw: Raw, kind: int, *, within: float | None = None, **fields: object) -> Packet:
    """The next packet of that type comes, is well formed, and has these fields, such as `codes=(1,)`.

    Packets of other types may come before it, and stay to be read.
    """
    shown = " ".join(f"{name}={value!r}" for name, value in fields.items())
    expected = f"{packets.NAMES[kind]} {shown}".rstrip()
    try:
        found = raw.take(kind, within=within)
    except Silence:
        waited = raw.patience if within is None else within
        raise Failure(expected, f"nothing of that kind in {waited:g} s{_seen(raw)}") from None
    except NoAnswer as error:
        raise Failure(expected, f"{error}{_seen(raw)}") from None
    if found.problem or any(getattr(found, name) != value for name, value in fields.items()):
        raise Failure(expected, str(found))
    return found


def message(receiver: Receiver, *, within: float | None = None, **fields: Any) -> Publish:
    """The next message that the receiver gets has these fields: any of topic, payload, qos, retain, dup."""
    shown = " ".join(f"{name}={value!r}" for name, value in fields.items())
    expected = f"{receiver.name} receives PUBLISH {shown}".rstrip()
    try:
        found = receiver.next_message(within)
    except Silence:
        waited = receiver.patience if within is None else within
        raise Failure(expected, f"no message in {waited:g} s") from None
    except NoAnswer as error:
        raise Failure(expected, str(error)) from None
    if found.problem or any(getattr(found, name) != value for name, value in fields.items()):
        raise Failure(expected, str(found))
    return found


def messages(receiver: Receiver, payloads: Collection[bytes]) -> list[Publish]:
    """Messages with all of these payloads come, in any order; all that came up to the last of them is returned."""
    missing = set(payloads)
    found: list[Publish] = []
    while missing:
        try:
            publish = receiver.next_message()
        except NoAnswer as error:
            shown = ", ".join(packets.shown_payload(payload) for payload in sorted(missing)[:SHOWN])
            if len(missing) > SHOWN:
                shown += f" and {len(missing) - SHOWN} more"
            raise Failure(
                f"{receiver.name} receives {len(set(payloads))} messages",
                f"{len(found)} came, but not {shown}: {error}",
            ) from None
        found.append(publish)
        missing.discard(publish.payload)
    return found


def silence(
    receiver: Receiver,
    control: Publisher,
    topic: str,
    qos: int = 0,
    *,
    about: str,
    besides: Callable[[Publish], bool] = lambda publish: False,
) -> list[Publish]:
    """No message reaches the receiver, or none but those for which `besides` holds; these are returned.

    The proof is a control message: published now by `control` to `topic` at that QoS, so that it comes through the same
    subscription, behind whatever was on its way. `about` says what must not come, for people.
    """
    found = until_control(receiver, control, topic, qos)
    for publish in found:
        if not besides(publish):
            raise Failure(f"{receiver.name} receives no message: {about}", str(publish))
    return found


def until_control(receiver: Receiver, control: Publisher, topic: str, qos: int = 0) -> list[Publish]:
    """Publishes a control message, and returns the messages that the receiver gets before it."""
    payload = b"control " + secrets.token_hex(8).encode()
    control.publish(topic, payload, qos)
    found: list[Publish] = []
    while True:
        try:
            publish = receiver.next_message()
        except NoAnswer as error:
            raise Inconclusive(
                f"silence could not be proved, because the control message is missing: {error}"
            ) from None
        if publish.payload == payload:
            return found
        found.append(publish)


def _take_connack(raw: Raw) -> Connack:
    found = raw.take(packets.CONNACK)
    assert isinstance(found, Connack)
    return found


def _codes(code: int | Collection[int]) -> list[int]:
    return [code] if isinstance(code, int) else sorted(code)


def _names(codes: list[int]) -> str:
    return "code " + " or ".join(f"{code} ({packets.RETURN_CODES[code]})" for code in codes)


def _seen(raw: Raw) -> str:
    waiting = raw.unread
    return f"; the broker sent {', '.join(packet.name for packet in waiting)}" if waiting else ""
