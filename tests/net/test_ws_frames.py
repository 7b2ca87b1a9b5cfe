"""Frames from a client: whoever cuts them, the same comes of them as from the core of `websockets` alone."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from websockets.frames import Close, CloseCode, Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.utils import apply_mask

from broker.net import ws_frames
from broker.net.ws_frames import PIECE, SMALL, Frames

LIMIT = 300
MASK = b"\x5a\xc3\x17\x8e"


class Core(ServerProtocol):
    """Notes what it is given."""

    def __init__(self, limit: int = LIMIT) -> None:
        super().__init__(state=State.OPEN, max_size=(None, limit))
        self.given: list[bytes] = []

    def receive_data(self, data: bytes | bytearray) -> None:
        self.given.append(bytes(data))
        super().receive_data(data)


class Outcome(NamedTuple):
    """What has come of a stream."""

    payload: bytes
    frames: int
    answers: bytes
    close_received: Close | None
    close_sent: Close | None
    ended: bool


def outcome(core: ServerProtocol, payload: bytes, count: int) -> Outcome:
    answers = b"".join(core.data_to_send())
    return Outcome(payload, count, answers, core.close_rcvd, core.close_sent, core.eof_sent)


def by_the_core_alone(stream: bytes) -> Outcome:
    """Byte by byte, so that nothing is looked at before what comes first has had its consequences."""
    core = Core()
    payload, count = b"", 0
    for byte in stream:
        core.receive_data(bytes((byte,)))
        for frame in core.events_received():
            assert isinstance(frame, Frame)
            count += 1
            if frame.opcode in (Opcode.BINARY, Opcode.CONT):
                payload += frame.data
            elif frame.opcode is Opcode.TEXT:
                core.fail(CloseCode.UNSUPPORTED_DATA, "only binary frames are taken")
    return outcome(core, payload, count)


def take_all(cut: Frames, data: bytes, most: int = 1000) -> tuple[bytes, int]:
    """Payload, and number of frames."""
    data = cut.behind_rest(data)
    position = count = 0
    payload = b""
    while position < len(data):
        payloads, after, taken = cut.take(data, position, most)
        assert after > position
        assert taken <= most
        position, count = after, count + taken
        payload += b"".join(payloads)
    return payload, count


def by_both(pieces: list[bytes], most: int) -> Outcome:
    core = Core()
    cut = Frames(core, LIMIT)
    payload, count = b"", 0
    for piece in pieces:
        data, taken = take_all(cut, piece, most)
        payload, count = payload + data, count + taken
    return outcome(core, payload, count)


def frame(
    payload: bytes, first: int = 0x82, mask: bytes | None = MASK, width: int = 0, size: int | None = None
) -> bytes:
    """A frame, right or wrong. `width`: bytes of its length, if more than it needs; `size`: what it announces."""
    size = len(payload) if size is None else size
    bit = 0 if mask is None else 0x80
    width = max(width, 0 if size < 126 else 2 if size < 65_536 else 8)
    length = bytes((bit | size,)) if not width else bytes((bit | (126 if width == 2 else 127),))
    masked = payload if mask is None else mask + apply_mask(payload, mask)
    return bytes((first,)) + length + (size.to_bytes(width, "big") if width else b"") + masked


payloads = st.one_of(st.binary(max_size=20), st.integers(120, LIMIT + 2).map(lambda size: b"p" * size))
masks = st.binary(min_size=4, max_size=4)
common = st.builds(frame, payloads, mask=masks, width=st.sampled_from([0, 0, 0, 2, 8]))
first_bytes = st.sampled_from([0x02, 0x02, 0x00, 0x00, 0x80, 0x80, 0x82, 0x89, 0x89, 0x8A])
rare = st.builds(frame, st.binary(max_size=125), first_bytes, masks)
last = st.one_of(
    st.builds(
        frame, st.binary(max_size=130), st.integers(0, 255), masks
    ),  # reserved bits and opcodes, text, long pings
    st.builds(frame, st.binary(max_size=20), st.sampled_from([0x82, 0x89]), st.none()),  # not masked
    st.builds(frame, st.just(b""), first_bytes, masks, st.just(8), st.integers(0, (1 << 64) - 1)),  # too large
    st.builds(
        frame, st.sampled_from([b"", b"\x03\xe8", b"\x03\xe9bye", b"\x03", b"\x03\xe8\xff"]), st.just(0x88), masks
    ),
)
streams = st.lists(st.one_of(common, common, common, rare, rare, last), max_size=12).map(b"".join)


@settings(deadline=None, max_examples=400)
@given(stream=streams, data=st.data())
@example(stream=frame(b"x" * (LIMIT + 1)) + frame(b"behind"), data=None)
@example(stream=frame(b"a", 0x02) + frame(b"b", 0x82), data=None)  # within a fragmented message
@example(stream=frame(b"a", 0x02) + frame(b"ping", 0x89) + frame(b"b", 0x80) + frame(b"c"), data=None)
@example(stream=frame(b"a", 0x02) + frame(b"\x03\xe8", 0x88) + frame(b"c"), data=None)
@example(stream=b"\x82\x7e", data=None)
def test_any_stream_in_any_pieces(stream: bytes, data: st.DataObject | None) -> None:
    pieces = [stream]
    most = 1000
    if data is not None:
        stream = stream[: data.draw(st.integers(0, len(stream)))] if data.draw(st.booleans()) else stream
        cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
        pieces = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
        most = data.draw(st.sampled_from([1, 2, 1000]))
    expected = by_the_core_alone(stream)
    assert by_both(pieces, most) == expected
    assert by_both([bytes((byte,)) for byte in stream], 1) == expected


# --- who cuts what ---


def test_common_frames_pass_the_core_by_wherever_the_pieces_end() -> None:
    core = Core(100_000)
    cut = Frames(core, 100_000)
    stream = b"".join(frame(bytes([size % 256]) * size) for size in (0, 1, 125, 126, 1000, SMALL - 8)) * 3
    for size in (1, 7, 1000, len(stream)):
        taken = b""
        for start in range(0, len(stream), size):
            taken += take_all(cut, stream[start : start + size])[0]
        assert len(taken) == 3 * (1 + 125 + 126 + 1000 + SMALL - 8)
    assert core.given == []
    assert cut.held == 0


def test_between_frames_of_the_core_common_ones_pass_it_by() -> None:
    core = Core()
    cut = Frames(core, LIMIT)
    ping, one, two = frame(b"", 0x89), frame(b"1", 0x02), frame(b"2", 0x80)
    assert take_all(cut, frame(b"a") + ping + frame(b"b") + one + ping + two + frame(b"c")) == (b"ab12c", 7)
    assert core.given == [ping, one, ping, two]


def test_a_large_frame_is_the_core_s_as_it_comes_and_nothing_else_is() -> None:
    core = Core(1 << 20)
    cut = Frames(core, 1 << 20)
    large = frame(bytes(500_000))
    assert take_all(cut, large[:100]) == (b"", 0)
    assert (core.given, cut.held) == ([large[:100]], 86)
    assert take_all(cut, large[100:] + frame(b"behind")) == (bytes(500_000) + b"behind", 2)
    assert core.given == [large[:100], large[100:]]
    assert cut.held == 0


def test_one_that_is_here_as_a_whole_is_common_whatever_its_size() -> None:
    core = Core(1 << 20)
    assert take_all(Frames(core, 1 << 20), frame(b"x" * 200_000)) == (b"x" * 200_000, 1)
    assert core.given == []


def test_it_takes_a_piece_at_a_time_and_no_more_frames_than_it_may() -> None:
    cut = Frames(Core(), LIMIT)
    data = frame(b"x" * 100) * 200
    payloads, position, count = cut.take(data, 0, 1000)
    assert (len(payloads), position) == (count, count * 106)
    assert PIECE <= position < PIECE + 106
    assert cut.take(data, position, 3)[1:] == (position + 3 * 106, 3)


def test_the_limit_may_be_raised() -> None:
    core = Core()
    cut = Frames(core, LIMIT)
    core.max_fragment_size = cut.limit = 2 * LIMIT
    assert take_all(cut, frame(b"x" * 2 * LIMIT))[1] == 1
    take_all(cut, frame(b"x" * (2 * LIMIT + 1)))
    assert core.close_sent is not None
    assert core.close_sent.code == 1009


@pytest.mark.parametrize("start", [b"\x82\x05", b"\x83\x85", b"\x83\xfe"])
def test_what_cannot_become_right_is_not_waited_for(start: bytes) -> None:
    core = Core()
    take_all(Frames(core, LIMIT), start)
    assert core.close_sent is not None
    assert core.close_sent.code == 1002


def test_without_the_library_s_c_code_it_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ws_frames, "apply_mask", apply_mask)
    assert take_all(Frames(Core(), LIMIT), frame(b"") + frame(b"abcde") + frame(b"x" * LIMIT)) == (
        b"abcde" + b"x" * LIMIT,
        3,
    )


def test_what_is_over_is_forgotten() -> None:
    core = Core(1 << 20)
    cut = Frames(core, 1 << 20)
    take_all(cut, frame(bytes(500_000))[:400_000])
    cut.forget()
    assert cut.held == 0
    cut = Frames(Core(), LIMIT)
    take_all(cut, frame(b"abc")[:8])
    assert cut.held == 8
    cut.forget()
    assert cut.held == 0
