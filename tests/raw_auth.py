"""Enhanced authentication in raw bytes (MQTT 5.0, section 4.12): CONNECT with a method, AUTH, and what answers them.

Owns: those packets, and the steps of a SCRAM login. Must not know: broker; SCRAM's messages (scram_client).
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from tests.raw_client import RawClient, packet, text
from tests.scram_client import ScramClient

CONTINUE, AGAIN = 0x18, 0x19
METHOD, DATA = 21, 22

_BYTE, _TWO, _FOUR, _VARIABLE, _TEXT, _PAIR = range(6)
_KINDS = {
    **dict.fromkeys((1, 23, 25, 36, 37, 40, 41, 42), _BYTE),
    **dict.fromkeys((19, 33, 34, 35), _TWO),
    **dict.fromkeys((2, 17, 24, 39), _FOUR),
    **dict.fromkeys((3, 8, 9, 18, 21, 22, 26, 28, 31), _TEXT),
    11: _VARIABLE,
    38: _PAIR,
}


class Answer(NamedTuple):
    """A CONNACK, AUTH or DISCONNECT. Missing properties are empty."""

    type: int  #: 2, 15, 14
    reason: int
    method: str
    data: bytes
    text: str  #: Reason String


def connect5(
    client_id: str = "",
    method: str | None = None,
    data: bytes | None = None,
    *,
    username: str | None = None,
    password: bytes | None = None,
    clean: bool = True,
) -> bytes:
    flags = (2 if clean else 0) | (128 if username is not None else 0) | (64 if password is not None else 0)
    body = text("MQTT") + bytes((5, flags, 0, 0)) + _properties(method, data) + text(client_id)
    body += b"".join(text(field) for field in (username, password) if field is not None)
    return packet(0x10, body)


def auth(reason: int = CONTINUE, method: str | None = None, data: bytes | None = None) -> bytes:
    return packet(0xF0, bytes((reason,)) + _properties(method, data))


def parse(raw: bytes) -> Answer:
    """A whole packet as it came."""
    kind = raw[0] >> 4
    assert kind in (2, 14, 15), f"CONNACK, AUTH or DISCONNECT expected, got {raw[:60]!r}"
    _, pos = _length(raw, 1)
    body = raw[pos:]
    if kind == 2:
        body = body[1:]  # the acknowledge flags
    reason = body[0] if body else 0
    found = _read(body[1:]) if len(body) > 1 else {}
    return Answer(kind, reason, found.get(METHOD, b"").decode(), found.get(DATA, b""), found.get(31, b"").decode())


def answer(client: RawClient) -> Answer:
    """The next packet, which is one of those."""
    return parse(client.next())


def log_in(
    client: RawClient, scram: ScramClient, method: str, client_id: str = "", username: str | None = None
) -> Answer:
    """From CONNECT to the answer, which is a CONNACK unless something is wrong."""
    client.send(connect5(client_id, method, scram.first(), username=username))
    return _finish(client, scram, method)


def authenticate_again(client: RawClient, scram: ScramClient, method: str) -> Answer:
    """From AUTH to the answer, which is an AUTH unless something is wrong. No other packet may come meanwhile."""
    client.send(auth(AGAIN, method, scram.first()))
    return _finish(client, scram, method)


def _finish(client: RawClient, scram: ScramClient, method: str) -> Answer:
    challenge = answer(client)
    if (challenge.type, challenge.reason) != (15, CONTINUE):
        return challenge
    assert challenge.method == method
    client.send(auth(CONTINUE, method, scram.final(challenge.data)))
    end = answer(client)
    if end.reason == 0:
        assert end.method == method
        scram.check(end.data)
    return end


def _properties(method: str | None, data: bytes | None) -> bytes:
    found = b"" if method is None else bytes((METHOD,)) + text(method)
    found += b"" if data is None else bytes((DATA,)) + text(data)
    return packet(0, found)[1:]


def _length(data: bytes, pos: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[pos]
        value |= (byte & 127) << shift
        pos, shift = pos + 1, shift + 7
        if byte < 128:
            return value, pos


def _read(data: bytes) -> dict[int, bytes]:
    """Properties, with their length in front: texts and binary data only."""
    size, pos = _length(data, 0)
    end = pos + size
    found = {}
    while pos < end:
        name, pos = data[pos], pos + 1
        kind = _KINDS[name]
        if kind in (_BYTE, _TWO, _FOUR):
            pos += {_BYTE: 1, _TWO: 2, _FOUR: 4}[kind]
        elif kind == _VARIABLE:
            _, pos = _length(data, pos)
        else:
            for _ in range(2 if kind == _PAIR else 1):
                (length,) = struct.unpack_from("!H", data, pos)
                found[name] = data[pos + 2 : pos + 2 + length]
                pos += 2 + length
    assert pos == end
    return found
