"""The layer for WebSocket: whatever the cutting into frames and pieces, the same bytes; and every limit."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from broker.net.proxy import Trusted
from broker.net.transport import Client
from broker.net.ws import MAX_FIRST_FRAME, MAX_REQUEST, Rules, WebSocket, header

RULES = Rules(("mqtt", "mqttv3.1"), None, (), False, 1_000_000, len, None)


class Wire:
    """What is below: notes what is sent, and calls back when told to."""

    def __init__(self) -> None:
        self.client: Client | None = None
        self.out: list[bytes] = []
        self.peer = "the peer"
        self.identity: str | None = "ann"
        self.unsent = 0
        self.max_unsent = 100_000
        self.sent: list[bytes] = []  # one for each flush
        self.closed: list[bool] = []
        self.reading = True

    def flush(self) -> None:
        if self.out:
            self.sent.append(b"".join(self.out))
            self.out.clear()

    def close(self, gently: bool = True) -> None:
        self.flush()
        self.closed.append(gently)

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


class Speaker:
    """The client's side: notes what it is told."""

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self.losses: list[str] = []
        self.progressed = 0
        self.congested: list[int] = []
        self.kept: list[int] = []
        self.on_receive: Callable[[bytes], None] = lambda data: None

    def receive(self, data: bytes, now: float) -> None:
        self.received.append(data)
        self.on_receive(data)

    def congest(self, unsent: int) -> None:
        self.congested.append(unsent)

    def relieve(self) -> None: ...

    def progress(self, now: float) -> None:
        self.progressed += 1

    def kept_below(self, size: int) -> None:
        self.kept.append(size)

    def lost(self, why: str) -> None:
        self.losses.append(why)


class Side:
    """The layer between a wire and a speaker, and the core of a client at the wire's other end."""

    def __init__(self, rules: Rules = RULES) -> None:
        self.wire = Wire()
        self.calls: list[Callable[[], None]] = []
        self.timers: list[Callable[[], None]] = []
        self.refusals: list[str] = []
        self.forwarded: list[tuple[str, Callable[[], None]]] = []
        self.layer = WebSocket(
            self.wire,
            rules,
            self,
            lambda seconds, call: self.timers.append(call),
            self.refusals.append,
            lambda host, go_on: self.forwarded.append((host, go_on)),
        )
        self.speaker = self.layer.client = Speaker()
        self.core = ClientProtocol(parse_uri("ws://host/mqtt"), subprotocols=[Subprotocol("mqtt")], max_size=None)

    late = False

    def in_turn(self, function: Callable[[], None]) -> None:
        self.soon(function)

    def soon(self, function: Callable[[], None]) -> None:
        self.calls.append(function)

    def turn(self) -> None:
        calls, self.calls = self.calls, []
        for call in calls:
            call()

    def opened(self) -> Side:
        self.core.send_request(self.core.connect())
        self.send()
        response, *frames = self.answers()
        assert (isinstance(response, Response), frames) == (True, [])
        assert self.core.handshake_exc is None
        return self

    def send(self) -> None:
        """Everything that the client's core has produced, in one piece."""
        self.layer.receive(b"".join(self.core.data_to_send()), 1.0)

    def answers(self) -> list[object]:
        """What the client has been sent."""
        for data in self.wire.sent:
            self.core.receive_data(data)
        self.wire.sent.clear()
        return list(self.core.events_received())

    def say(self, *data: bytes) -> None:
        """Send from above, in one flush."""
        self.layer.out.extend(data)
        self.layer.flush()

    @property
    def stream(self) -> bytes:
        return b"".join(self.speaker.received)


@pytest.fixture
def side() -> Side:
    return Side().opened()


def frames_of(answers: list[object]) -> list[Frame]:
    return [one for one in answers if isinstance(one, Frame)]


def request(*lines: str, first: str = "GET /mqtt HTTP/1.1") -> bytes:
    return "\r\n".join((first, "Host: host", *lines, "", "")).encode()


UPGRADE = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version: 13",
)
MQTT = "Sec-WebSocket-Protocol: mqtt"


# --- bytes ---


@settings(deadline=None)
@given(data=st.data())
def test_any_cutting_into_frames_and_pieces_gives_the_same_bytes(data: st.DataObject) -> None:
    # [MQTT-6.0.0-2]
    side = Side()
    core = side.core
    core.send_request(core.connect())
    before = b"".join(core.data_to_send())
    at = data.draw(st.integers(1, len(before)))
    side.layer.receive(before[:at], 1.0)
    side.layer.receive(before[at:], 1.0)
    side.answers()
    said = b""
    for fragments in data.draw(st.lists(st.lists(st.binary(max_size=300), min_size=1, max_size=4), max_size=8)):
        for i, part in enumerate(fragments):
            last = i == len(fragments) - 1
            core.send_continuation(part, last) if i else core.send_binary(part, last)
            said += part
            if data.draw(st.booleans()):
                core.send_ping(b"between")
    sent = b"".join(core.data_to_send())
    while sent:
        size = data.draw(st.integers(1, len(sent)))
        side.layer.receive(sent[:size], 1.0)
        sent = sent[size:]
    assert (side.stream, side.speaker.losses) == (said, [])


@pytest.mark.parametrize("size", [1, 125, 126, 65_535, 65_536, 200_000])
def test_each_unit_is_one_binary_frame(size: int) -> None:
    """However many buffers it is in, and all of them are sent at once."""
    side = Side(RULES._replace(unit_size=lambda data: size)).opened()
    half = size // 2
    units = [(b"a" * half, b"b" * (size - half)), (b"c" * size,)]
    side.say(*(data for unit in units for data in (*unit, b"")))
    assert len(side.wire.sent) == 1
    frames = frames_of(side.answers())
    assert [(frame.opcode, frame.fin, bytes(frame.data)) for frame in frames] == [
        (Opcode.BINARY, True, b"".join(unit)) for unit in units
    ]


def test_a_flush_of_nothing_sends_nothing(side: Side) -> None:
    side.layer.flush()
    assert side.wire.sent == []


def test_the_header_of_the_largest_frame_is_ten_bytes() -> None:
    assert [len(header(size)) for size in (125, 126, 65_535, 65_536)] == [2, 4, 4, 10]


def test_a_ping_is_answered_and_not_passed_on(side: Side) -> None:
    side.core.send_ping(b"are you there")
    side.send()
    assert [(one.opcode, bytes(one.data)) for one in frames_of(side.answers())] == [(Opcode.PONG, b"are you there")]
    assert side.speaker.received == []


def test_what_comes_with_the_request_is_not_lost() -> None:
    side = Side()
    side.core.send_request(side.core.connect())
    before = b"".join(side.core.data_to_send())
    side.layer.receive(before + b"\x82\x83\x00\x00\x00\x00abc", 1.0)
    assert side.speaker.received == [b"abc"]


# --- the end ---


def test_a_text_frame_ends_it_with_1003_after_what_came_before(side: Side) -> None:
    # [MQTT-6.0.0-1]
    side.core.send_binary(b"before")
    side.core.send_text(b"text")
    side.core.send_binary(b"behind")
    side.send()
    side.answers()
    assert side.speaker.received == [b"before"]
    assert len(side.speaker.losses) == 1
    assert side.core.close_rcvd is not None
    assert side.core.close_rcvd.code == 1003


def test_whom_a_trusted_proxy_names_may_come_in_when_its_owner_says_so() -> None:
    side = Side(RULES._replace(forwarders=Trusted(["10.0.0.0/8"])))
    side.layer.receive(request(*UPGRADE, MQTT, "X-Forwarded-For: 1.2.3.4", "x-forwarded-for: 203.0.113.7"), 1.0)
    ((host, go_on),) = side.forwarded
    assert (host, side.wire.sent, side.speaker.received) == ("203.0.113.7", [], [])
    side.layer.receive(frame_from_client(b"early"), 1.0)  # whoever keeps it waiting should have stopped reading
    assert side.speaker.received == []
    go_on()
    assert b"".join(side.wire.sent).startswith(b"HTTP/1.1 101 ")
    side.turn()
    assert side.stream == b"early"
    side.layer.receive(frame_from_client(b" and more"), 1.0)
    assert side.stream == b"early and more"


def test_one_that_left_before_its_turn_does_not_come_in() -> None:
    side = Side(RULES._replace(forwarders=Trusted(["10.0.0.0/8"])))
    side.layer.receive(request(*UPGRADE, MQTT, "X-Forwarded-For: 203.0.113.7"), 1.0)
    side.layer.close()
    side.forwarded[0][1]()
    side.turn()
    assert (side.wire.sent, side.wire.closed) == ([], [True])


@pytest.mark.parametrize("header", ["X-Forwarded-For: unknown", "X-Forwarded-For:", "Forwarded: for=203.0.113.7"])
def test_a_proxy_that_names_nobody_is_the_client_itself(header: str) -> None:
    side = Side(RULES._replace(forwarders=Trusted(["10.0.0.0/8"])))
    side.layer.receive(request(*UPGRADE, MQTT, header), 1.0)
    assert side.forwarded == []
    assert b"".join(side.wire.sent).startswith(b"HTTP/1.1 101 ")


def test_the_header_of_others_means_nothing() -> None:
    side = Side()
    side.layer.receive(request(*UPGRADE, MQTT, "X-Forwarded-For: 203.0.113.7"), 1.0)
    assert (side.forwarded, side.layer.peer) == ([], side.wire.peer)


def frame_from_client(data: bytes) -> bytes:
    core = Side().opened().core
    core.send_binary(data)
    return b"".join(core.data_to_send())


def test_the_client_s_close_is_answered_and_told(side: Side) -> None:
    side.core.send_close(1001)
    side.send()
    side.answers()
    assert side.speaker.losses == ["WebSocket closed by the client, code 1001"]
    assert side.core.close_rcvd is not None
    assert (side.core.close_rcvd.code, side.wire.closed) == (1001, [True])


def test_a_close_that_comes_with_what_makes_us_close(side: Side) -> None:
    def last_word(data: bytes) -> None:
        side.layer.out.append(b"answer")
        side.layer.close(gently=False)

    side.speaker.on_receive = last_word
    side.core.send_binary(b"DISCONNECT")
    side.core.send_close(1000)
    side.send()
    assert [bytes(frame.data) for frame in frames_of(side.answers())[:1]] == [b"answer"]
    assert side.core.close_rcvd is not None
    assert (side.core.close_rcvd.code, side.wire.closed, side.speaker.losses) == (1000, [True], [])


def test_an_error_behind_what_makes_us_close(side: Side) -> None:
    side.speaker.on_receive = lambda data: side.layer.close()
    side.core.send_binary(b"DISCONNECT")
    side.core.send_text(b"text")
    side.send()
    side.answers()
    assert side.core.close_rcvd is not None
    assert (side.core.close_rcvd.code, side.wire.closed, side.speaker.losses) == (1000, [], [])
    side.timers[0]()
    assert side.wire.closed == [True]


def test_a_close_waits_until_what_came_before_is_through(side: Side) -> None:
    side.speaker.on_receive = lambda data: side.layer.pause_reading()
    side.core.send_binary(b"PUBLISH, DISCONNECT")
    side.core.send_close(1000)
    side.send()
    assert (side.speaker.losses, side.wire.closed, side.wire.reading) == ([], [], False)
    side.say(b"PUBACK")
    side.layer.resume_reading()
    side.turn()
    assert [bytes(frame.data) for frame in frames_of(side.answers())[:1]] == [b"PUBACK"]
    assert (side.speaker.losses, side.wire.closed) == (["WebSocket closed by the client, code 1000"], [True])


def test_our_close_while_theirs_waits(side: Side) -> None:
    side.speaker.on_receive = lambda data: side.layer.pause_reading()
    side.core.send_binary(b"PUBLISH, DISCONNECT")
    side.core.send_close(1000)
    side.send()
    side.layer.resume_reading()
    side.layer.close(gently=False)  # at the DISCONNECT
    side.turn()
    assert (side.speaker.losses, side.wire.closed) == ([], [True])


def test_our_close_waits_for_the_client_s(side: Side) -> None:
    side.layer.out.append(b"last words")
    side.layer.close()
    assert bytes(frames_of(side.answers())[0].data) == b"last words"
    assert side.wire.closed == []
    side.send()
    assert side.wire.closed == [True]
    assert side.speaker.losses == []
    side.timers[0]()
    assert side.wire.closed == [True]


def test_our_close_waits_a_few_seconds_at_the_most(side: Side) -> None:
    side.layer.close()
    side.core.send_ping(b"not answered any more")
    side.send()
    assert (len(side.timers), side.wire.closed) == (1, [])
    side.timers[0]()
    assert side.wire.closed == [True]
    assert len(frames_of(side.answers())) == 1


def test_who_does_not_read_is_closed_at_once(side: Side) -> None:
    side.wire.unsent = 1
    side.layer.close(gently=False)
    assert (side.wire.closed, side.timers) == ([False], [])


def test_a_lost_connection_is_told_once(side: Side) -> None:
    side.layer.lost("network error")
    side.layer.close(gently=False)
    assert (side.speaker.losses, side.wire.closed) == (["network error"], [])


# --- limits ---


def test_a_frame_before_the_first_answer_is_bounded(side: Side) -> None:
    side.core.send_binary(bytes(MAX_FIRST_FRAME + 1))
    side.layer.receive(b"".join(side.core.data_to_send())[:14], 1.0)  # its header is enough
    side.answers()
    assert side.core.close_rcvd is not None
    assert (side.core.close_rcvd.code, len(side.speaker.losses)) == (1009, 1)


@pytest.mark.parametrize(("size", "taken"), [(RULES.max_frame, True), (RULES.max_frame + 1, False)])
def test_a_frame_after_it_has_the_listener_s_limit(side: Side, size: int, taken: bool) -> None:
    side.say(b"an answer")
    side.answers()
    side.core.send_binary(bytes(size))
    side.send()
    while side.calls:
        side.turn()
    assert (len(side.stream), len(side.speaker.losses)) == ((size, 0) if taken else (0, 1))


def test_a_message_may_have_fragments_without_end(side: Side) -> None:
    side.say(b"an answer")
    for i in range(30):
        part = bytes(100_000)
        side.core.send_continuation(part, False) if i else side.core.send_binary(part, False)
        side.send()
    assert (len(side.stream), side.speaker.losses) == (3_000_000, [])


def test_compressed_frames_are_refused(side: Side) -> None:
    side.layer.receive(b"\xc2\x81\x00\x00\x00\x00x", 1.0)
    side.answers()
    assert side.core.close_rcvd is not None
    assert side.core.close_rcvd.code == 1002


def test_a_flood_of_pings_is_served_in_slices(side: Side) -> None:
    for _ in range(20_000):
        side.core.send_ping(b"")
    side.send()
    turns = 1
    while side.calls:
        assert side.wire.reading is False
        side.turn()
        turns += 1
    assert turns > 5
    assert side.wire.reading is True
    assert len(frames_of(side.answers())) == 20_000


def test_nothing_is_unpacked_while_the_client_s_side_holds_back(side: Side) -> None:
    side.speaker.on_receive = lambda data: side.layer.pause_reading()
    for _ in range(3):
        side.core.send_binary(b"x" * 10_000)
    side.send()
    assert (len(side.speaker.received), side.wire.reading) == (1, False)
    for count in (2, 3):
        side.layer.resume_reading()
        side.turn()
        assert len(side.speaker.received) == count
    side.layer.resume_reading()
    side.turn()
    assert (side.stream, side.wire.reading) == (b"x" * 30_000, True)


def test_a_part_of_a_frame_is_a_sign_of_life_once_there_was_an_answer(side: Side) -> None:
    side.core.send_binary(bytes(1000))
    data = b"".join(side.core.data_to_send())
    side.layer.receive(data[:100], 1.0)
    assert side.speaker.progressed == 0
    side.say(b"an answer")
    side.layer.receive(data[100:200], 1.0)
    assert side.speaker.progressed == 1
    side.core.send_ping(b"")
    side.layer.receive(data[200:] + b"".join(side.core.data_to_send()), 1.0)
    assert side.speaker.progressed == 1


def test_congestion_is_passed_on(side: Side) -> None:
    side.layer.congest(7)
    assert side.speaker.congested == [7]


# --- the request ---


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00", 400),
        (b"\x16\x03\x01\x02\x00", 400),
        (b"rubbish\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * MAX_REQUEST, 431),
        (request(*(f"X-{i}: x" for i in range(200))), 400),
        (request(), 426),
        (request(*UPGRADE), 400),
        (request(*UPGRADE, "Sec-WebSocket-Protocol: amqp"), 400),
        (request(*UPGRADE[:3], "Sec-WebSocket-Version: 8", MQTT), 400),
        (request(*UPGRADE, MQTT, first="GET /other HTTP/1.1"), 404),
        (request(*UPGRADE, MQTT, "Origin: https://evil.example"), 403),
        (request(*UPGRADE, MQTT, "Origin: https://host", "Origin: https://evil.example"), 400),
    ],
)
def test_what_is_refused(data: bytes, status: int) -> None:
    side = Side(RULES._replace(path="/mqtt"))
    side.layer.receive(data, 1.0)
    (answer,) = side.wire.sent
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert (len(side.refusals), len(side.speaker.losses), side.wire.closed) == (1, 1, [True])


@pytest.mark.parametrize(
    ("offered", "selected"),
    [("mqtt", "mqtt"), ("mqttv3.1", "mqttv3.1"), ("mqttv3.1, mqtt", "mqtt"), ("other, mqtt", "mqtt")],
)
def test_the_subprotocol(offered: str, selected: str) -> None:
    # [MQTT-6.0.0-4]
    side = Side()
    side.layer.receive(request(*UPGRADE, f"Sec-WebSocket-Protocol: {offered}"), 1.0)
    (answer,) = side.wire.sent
    assert answer.startswith(b"HTTP/1.1 101 ")
    assert f"Sec-WebSocket-Protocol: {selected}\r\n".encode() in answer


def test_no_compression_is_agreed_on() -> None:
    side = Side()
    side.layer.receive(request(*UPGRADE, MQTT, "Sec-WebSocket-Extensions: permessage-deflate"), 1.0)
    assert b"Extensions" not in side.wire.sent[0]


@pytest.mark.parametrize("path", ["/mqtt", "/mqtt?token=1"])
def test_the_path_counts_without_its_query(path: str) -> None:
    side = Side(RULES._replace(path="/mqtt"))
    side.layer.receive(request(*UPGRADE, MQTT, first=f"GET {path} HTTP/1.1"), 1.0)
    assert side.refusals == []
