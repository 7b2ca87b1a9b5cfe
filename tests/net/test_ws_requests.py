"""Requests that no browser sends: whatever comes, it is answered or refused, and is no bug of ours."""

from __future__ import annotations

import random

import pytest

from broker.net.ws import MAX_REASON
from tests.net.test_ws import MQTT, RULES, UPGRADE, Side, request

BYTES = (b"\x00", b"\x01", b"\t", b"\x0b", b"\x1b[2J", b"\x7f", b"\x80", b"\xa0", b"\xff", b"\xc3\xa4", b"\xed\xb3\xbf")
WHOLE = request(*UPGRADE, MQTT, "Origin: https://app.example", "X: y")


#: What a request gets that is none: websockets 16 says 400 where 17 says more exactly what is wrong.
BAD = {400, 405, 426, 505}


def answers(data: bytes) -> int:
    """The status that this gets (0: it waits for more)."""
    side = Side(RULES._replace(path="/mqtt", origins=("https://app.example",)))
    side.layer.receive(data, 1.0)
    answer = b"".join(side.wire.sent)
    status = int(answer.split()[1]) if answer else 0
    if status not in (0, 101):
        assert (len(side.refusals), len(side.speaker.losses), side.wire.closed) == (1, 1, [True])
        assert side.refusals[0].isprintable()
        assert 10 < len(side.refusals[0]) <= MAX_REASON
    return status


@pytest.mark.parametrize("byte", BYTES, ids=repr)
@pytest.mark.parametrize(
    "form",
    [
        b"GET /mqtt%s HTTP/1.1\r\n\r\n",
        b"GE%sT /mqtt HTTP/1.1\r\n\r\n",
        b"GET /mqtt HTTP/1.1%s\r\n\r\n",
        b"GET /mqtt HTTP/1.1\r\nA%s: b\r\n\r\n",
        b"GET /mqtt HTTP/1.1\r\nA: b%s\r\n\r\n",
        b"GET /mqtt HTTP/1.1\r\n%sA: b\r\n\r\n",
        b"GET /mqtt HTTP/1.1\r\n%s\r\n\r\n",
    ],
    ids=repr,
)
def test_a_byte_in_a_bare_request(form: bytes, byte: bytes) -> None:
    assert answers(form % byte) in BAD | {404}


@pytest.mark.parametrize("byte", BYTES, ids=repr)
@pytest.mark.parametrize(
    "name", ["Host", "Connection", "Upgrade", "Sec-WebSocket-Key", "Sec-WebSocket-Version", "Sec-WebSocket-Protocol",
             "Sec-WebSocket-Extensions", "Origin", "Cookie", "User-Agent", "X-Forwarded-For", "Authorization"],
)  # fmt: skip
def test_a_byte_in_a_header(name: str, byte: bytes) -> None:
    lines = WHOLE[:-4].split(b"\r\n")
    mine = [line for line in lines if line.lower().startswith(name.lower().encode() + b":")] or [name.encode() + b": x"]
    others = [line for line in lines if line not in mine]
    for changed in (mine[0] + byte, mine[0][: len(name) + 1] + byte + mine[0][len(name) + 1 :]):
        for more in ([changed], [mine[0], changed], [changed, mine[0]]):
            answers(b"\r\n".join([*others, *more]) + b"\r\n\r\n")


@pytest.mark.parametrize("name", ["Host", "Connection", "Upgrade", "Sec-WebSocket-Key", "Origin"])
def test_a_header_that_comes_twice(name: str) -> None:
    lines = WHOLE[:-4].split(b"\r\n")
    (mine,) = (line for line in lines if line.lower().startswith(name.lower().encode() + b":"))
    status = answers(b"\r\n".join([*lines, mine]) + b"\r\n\r\n")
    assert status in ({101} if name == "Connection" else BAD | {403})


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (request(*UPGRADE, MQTT, first="GET /mqtt HTTP/1.0"), 400),
        (request(*UPGRADE, MQTT, first="GET /mqtt HTTP/2.0"), 400),
        (request(*UPGRADE, MQTT, first="GET http://h/mqtt HTTP/1.1"), 404),
        (request(*UPGRADE, MQTT, first="GET //h/mqtt HTTP/1.1"), 404),
        (request(*UPGRADE, MQTT, first="GET * HTTP/1.1"), 404),
        (request(*UPGRADE, MQTT, first="POST /mqtt HTTP/1.1"), 400),
        (request(*UPGRADE, MQTT, first="CONNECT /mqtt HTTP/1.1"), 400),
        (request(*UPGRADE, MQTT, first="GET /mqtt"), 400),
        (request(*UPGRADE, MQTT, first="GET  /mqtt HTTP/1.1"), 400),
        (request(*UPGRADE, MQTT, "Transfer-Encoding: chunked"), 400),
        (request(*UPGRADE, MQTT, "Content-Length: 5"), 400),
        (request(*UPGRADE, MQTT, "Content-Length: -5"), 400),
        (request(*UPGRADE, MQTT, "Content-Length: " + "9" * 5000), 400),
        (request(*UPGRADE, MQTT, "Content-Length: 0"), 101),
        (request(*UPGRADE, MQTT, "A: b\r\n folded"), 400),
        (request(*UPGRADE, MQTT, "A : b"), 400),
        (request(*UPGRADE, MQTT, "A"), 400),
        (request(*UPGRADE, MQTT, *("A: b",) * 200), 400),
        (request(*UPGRADE, MQTT, "A: " + "b" * 9000), 400),
        (request(*UPGRADE, MQTT, "A: " + "b" * 40_000), 431),
        (request(*UPGRADE, MQTT, "A" * 9000 + ": b"), 400),
        (b"GET /mqtt HTTP/1.1\n\n", 0),
        (b"G" * 40_000, 431),
    ],
    ids=lambda value: repr(value[:40]) if isinstance(value, bytes) else "",
)
def test_requests_of_other_kinds(data: bytes, status: int) -> None:
    assert answers(data) in (BAD if status == 400 else {status})


@pytest.mark.parametrize("seed", range(20))
def test_any_request(seed: int) -> None:
    """Nothing that comes is a bug: `answers` would raise it."""
    draw = random.Random(seed)
    for _ in range(50):
        data = bytearray(WHOLE)
        for _ in range(draw.randint(1, 4)):
            at = draw.randrange(len(data))
            piece = draw.choice([*BYTES, b"\r\n", b"\n", b"\r", b":", b" ", b",", b'"', b";", b"=", b"%"])
            data[at : at + draw.choice([0, 1, 1, 5])] = piece * draw.choice([1, 1, 1, 300])
        answers(bytes(data))


@pytest.mark.parametrize("seed", range(20))
def test_any_frames(seed: int) -> None:
    """Whatever comes as frames is taken, or ends the WebSocket, and is no bug."""
    draw = random.Random(seed)
    for _ in range(20):
        side = Side().opened()
        for _ in range(draw.randint(1, 8)):
            size = draw.choice([0, 1, 2, 125, 126, 127, 200])
            length = draw.choice(
                [bytes((128 | size,)) if size < 128 else b"\xfe\x00" + bytes((size,)), draw.randbytes(1)]
            )
            frame = (
                bytes((draw.choice([0x82, 0x02, 0x80, 0x00, 0x81, 0x88, 0x89, 0x8A, draw.randrange(256)]),)) + length
            )
            frame += draw.randbytes(draw.choice([4 + size, draw.randint(0, 20)]))
            for at in range(0, len(frame), 64):
                side.layer.receive(frame[at : at + 64], 1.0)
            side.turn()
            if draw.random() < 0.1:
                side.layer.close()
        for call in side.timers:
            call()
        side.layer.lost("the end")
        assert len(side.speaker.losses) <= 1
