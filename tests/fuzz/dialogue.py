"""Bytes as a dialogue: what several clients do, one after the other, rightly and wrongly.

Owns: the language in which a fuzzer's input is read, so that nearly any bytes are a dialogue that gets somewhere. Must
not know: the broker, or how a dialogue is played.

Each step is one byte that says what, one that says who and whether the broker may think afterwards, and what it takes
more. A connection that has said nothing begins with a CONNECT of its own, unless the step says bytes that are no packet
of the language; a CONNECT says which version of MQTT is spoken. `mutate` changes the packet that comes next.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import NamedTuple, TypeVar

from tests.fuzz import dialogue5
from tests.vectors import (
    DISCONNECT,
    PINGREQ,
    PUBACK,
    PUBCOMP,
    PUBREC,
    PUBREL,
    VECTORS,
    connect,
    connect_3_1,
    number,
    packet,
    publish,
    string,
    subscribe,
    unsubscribe,
)
from tests.vectors5 import VECTORS5, connect5

T = TypeVar("T")

SLOTS = 4
MOST_STEPS = 120

TOPICS = (b"a", b"a/b", b"b", b"a/b/c", b"/", b"$SYS/x", b"a/c", b"a/b/c/d/e/f/g")
FILTERS = (b"#", b"+", b"a/#", b"a/+", b"a", b"+/b", b"$SYS/#", b"b", b"+/+/#", b"a/b/#", b"/", b"a/b/c/d/e/f/g")
NAMES = (b"a", b"b", b"c", b"", b"a", b"b", b"d", "é".encode())
PAYLOADS = (b"", b"x", b"\0\xff", b"p" * 300, b"q" * 5_000)
USERS = (None, None, None, b"u")
SECONDS = (0.0005, 0.5, 1.1, 8.0, 16.0, 120.0)
RAW = tuple(row.data for row in VECTORS if len(row.data) <= 70_000)
RAW_5 = tuple(row.data for row in VECTORS5 if len(row.data) <= 70_000)

#: What a step can do, by its first byte. Those who come often stand here often.
ACTS = (
    "publish", "publish", "publish", "publish", "subscribe", "subscribe", "unsubscribe", "answer", "answer", "answer",
    "acknowledge", "acknowledge", "connect", "connect", "ping", "disconnect", "drop", "redial", "raw", "bytes",
    "mutate", "mutate", "mutate", "wait", "stuck", "going", "hold", "let go", "break", "mend", "crash", "slow doorman",
    "decide", "rights", "expire", "again", "authenticate",
)  # fmt: skip


class Step(NamedTuple):
    act: str
    slot: int = 0
    data: bytes = b""
    number: int = 0
    rests: bool = True  #: does everything come to rest afterwards? Else the next step falls into the same turn


class _Reader:
    """Takes numbers off the front; zeros when nothing is left."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._pos = 0

    @property
    def over(self) -> bool:
        return self._pos >= len(self._data)

    def byte(self) -> int:
        self._pos += 1
        return self._data[self._pos - 1] if self._pos <= len(self._data) else 0

    def pick(self, choices: tuple[T, ...]) -> T:
        return choices[self.byte() % len(choices)]

    def take(self, count: int) -> bytes:
        self._pos += count
        return self._data[self._pos - count : self._pos]


def steps(data: bytes) -> Iterator[Step]:
    """The dialogue that these bytes are."""
    reader = _Reader(data)
    fresh = [True] * SLOTS
    five = [False] * SLOTS
    mutation = None
    last = PINGREQ
    for _ in range(MOST_STEPS):
        if reader.over:
            return
        act = reader.pick(ACTS)
        who = reader.byte()
        slot = who % SLOTS
        rests = who < 128
        if act == "mutate":
            mutation = reader.byte(), reader.byte(), reader.byte()
            continue
        if fresh[slot]:
            five[slot] = bool(who & 32)
        spoken: bytes | None
        if act == "connect":
            spoken, five[slot] = _connect(reader)
        else:
            spoken = _packet(act, reader, last, five[slot])
        if spoken is None:
            if act in ("drop", "redial"):
                fresh[slot] = True
            amount = reader.byte() if act in ("answer", "decide", "rights", "crash") else 0
            yield Step(act, slot, b"", reader.byte() % len(SECONDS) if act == "wait" else amount, rests)
            continue
        last = spoken
        if mutation is not None:
            spoken, mutation = _mutated(spoken, *mutation), None
        if fresh[slot] and act not in ("connect", "raw", "bytes", "again"):
            clean = who & 64
            greeting = dialogue5.greeting(NAMES[slot], bool(clean), who >> 2) if five[slot] else None
            yield Step("send", slot, greeting or connect(NAMES[slot], flags=clean >> 5), 0, rests)
        fresh[slot] = act == "disconnect"
        yield Step("send", slot, spoken, 0, rests)


def _packet(act: str, reader: _Reader, last: bytes, five: bool) -> bytes | None:
    """What is said; None if the step is something else."""
    if five:
        spoken = dialogue5.said(act, reader, TOPICS, FILTERS, PAYLOADS)
        if spoken is not None:
            return spoken
    if act == "publish":
        topic = reader.pick(TOPICS)
        bits = reader.byte()
        payload = PAYLOADS[(bits >> 4) % len(PAYLOADS)]
        qos = min(bits & 3, 2)
        packet_id = 1 + reader.byte() % 8 if qos else 0
        return publish(topic, payload, qos=qos, packet_id=packet_id, dup=bool(qos and bits & 4), retain=bool(bits & 8))
    if act == "subscribe":
        count = 1 + reader.byte() % 3
        wanted = [(reader.pick(FILTERS + dialogue5.SHARED), reader.byte() % 3) for _ in range(count)]
        return subscribe(1 + reader.byte(), *wanted)
    if act == "unsubscribe":
        return unsubscribe(1 + reader.byte(), reader.pick(FILTERS + dialogue5.SHARED))
    if act == "acknowledge":
        return packet(reader.pick((PUBACK, PUBREC, PUBREL, PUBCOMP)), number(1 + reader.byte() % 12))
    if act in ("ping", "authenticate"):
        return PINGREQ
    if act == "disconnect":
        return DISCONNECT
    if act == "raw":
        raw = RAW_5 if five else RAW
        return raw[(reader.byte() << 8 | reader.byte()) % len(raw)]
    if act == "bytes":
        return reader.take(reader.byte() % 32)
    return last if act == "again" else None


def _connect(reader: _Reader) -> tuple[bytes, bool]:
    """A CONNECT, and is it of MQTT 5.0?"""
    bits = reader.byte()
    five = bool(bits & 1)
    name = reader.pick(NAMES)
    flags = bits & 2
    will = rest = b""
    if bits & 4:
        flags |= 4 | (bits >> 3 & 3) % 3 << 3 | bits & 32
        topic, payload = reader.pick(TOPICS), reader.pick(PAYLOADS)
        will = dialogue5.will(reader, topic, payload) if five else string(topic) + string(payload)
    user = reader.pick(USERS)
    if user is not None:
        flags |= 0x80
        rest += string(user)
    keep_alive = 10 if bits & 64 else 0
    if five:
        properties = reader.pick(dialogue5.CONNECTED)
        return connect5(name, properties, flags=flags, keep_alive=keep_alive, will=will, rest=rest), True
    make = connect_3_1 if bits & 128 else connect
    return make(name, flags=flags, keep_alive=keep_alive, rest=will + rest), False


def _mutated(data: bytes, how: int, where: int, value: int) -> bytes:
    """One change. Most keep the Remaining Length right, as a packet that is cut wrongly ends all at once."""
    if not data:
        return data
    at = where % len(data)
    kind = how % 8
    if kind == 0:
        return data[:at] + bytes((value,)) + data[at + 1 :]
    if kind == 1:
        return data[:at]
    if kind == 2:
        return data[:at] + bytes((value,)) + data[at:]
    if kind == 3:
        return data + data
    if len(data) > 128 or len(data) < 4:
        return data[:at] + bytes((data[at] ^ 1 << value % 8,)) + data[at + 1 :]
    at = max(2, at)
    if kind == 4:
        return packet(data[0], data[2:at] + bytes((value,)) + data[at:])
    if kind == 5:
        return packet(data[0], data[2:at] + data[at + 1 :])
    if kind == 6:
        return packet(data[0], data[2:at])
    return packet(value, data[2:])


def seeds() -> list[bytes]:
    """Dialogues to begin with: some written, most at random, each of them repeatable."""
    random = Random(20)
    places = {act: i for i, act in enumerate(ACTS)}

    def say(act: str, slot: int, *more: int) -> bytes:
        return bytes((places[act], slot, *more))

    both = say("subscribe", 0, 0, 1, 0, 1) + say("subscribe", 1, 0, 1, 2, 2)
    found = [
        both + say("publish", 2, 1, 0x12, 1) + say("answer", 1, 3) + say("acknowledge", 2, 2, 0) + say("answer", 1, 3),
        both + say("hold", 0) + say("publish", 2, 1, 0x11, 1) + say("crash", 0, 0) + say("connect", 1, 0, 1, 0),
        both + say("break", 0) + say("publish", 2, 1, 0x11, 1) + say("wait", 0, 2) + say("mend", 0) + say("wait", 0, 2),
        say("connect", 0, 3, 0, 0, 4) + say("connect", 2, 3, 1, 0, 4) + both + say("publish", 2, 1, 0x11, 3, 1) * 3,
        say("connect", 1, 1, 1, 0, 15)
        + say("subscribe", 1, 0, 12, 2, 2, 2)
        + say("connect", 0, 1, 0, 0, 6)
        + say("subscribe", 0, 0, 12, 1, 1, 0)
        + say("publish", 2, 1, 0x12, 1) * 4
        + say("drop", 0)
        + say("answer", 1, 3),
        say("connect", 0, 0x2D, 0, 0, 1, 2, 2, 0, 4) + both + say("drop", 0) + say("wait", 0, 3) + say("crash", 0, 0),
        say("connect", 0, 3, 0, 0, 9) + say("authenticate", 0, 0) + both + say("authenticate", 0, 2),
        both + say("stuck", 1) + say("publish", 2, 1, 0x42, 1) * 9 + say("going", 1) + say("answer", 1, 9),
        say("connect", 0, 0x2E, 0, 0, 1, 0) + both + say("drop", 0) + say("connect", 1, 0, 0, 0) + say("drop", 1),
    ]
    for act in places:
        found.append(both + say(act, random.randrange(256), *random.randbytes(4)) + say("publish", 2, 1, 0x11, 1))
    found += [random.randbytes(random.choice((20, 60, 200, 400))) for _ in range(200)]
    return found
