"""Any bytes for the decoder: what must hold of it, whatever comes.

Owns: the meaning of a fuzzer's input as a stream, a version, limits and cuts, and what is checked of them. Must not
know: where inputs come from.

An input is `options, cuts, cut..., stream`: two bytes, so many bytes that say where to cut, and what the client sends.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from itertools import pairwise

from broker.wire import decoder as module
from broker.wire.codes import MAX_REMAINING_LENGTH, MQTT_3_1, MQTT_3_1_1, PUBLISH, ProtocolError
from broker.wire.decoder import Decoder
from broker.wire.packets import Packet
from tests.vectors import VECTORS, length

#: Larger than any packet can be, and the smallest that the decoder measures.
MAX_SIZES = (MAX_REMAINING_LENGTH + 5, 1_000, 200, 130)
#: From how many bytes on the pieces of a packet are collected: the decoder's own, and so few that short streams get
#: there.
SMALLS = (module._SMALL, 16)
#: Bytes that an empty object takes, with some room.
OVERHEAD = 120

#: Packets, and what came behind them: None, or the error's code and text.
Outcome = tuple[list[Packet], tuple[int | None, str] | None]


def seeds() -> list[bytes]:
    """Inputs to begin with: every vector, and some streams of many packets."""
    short = [row for row in VECTORS if len(row.data) <= 400]
    found = [bytes((row.version == MQTT_3_1, 1, len(row.data) // 2)) + row.data for row in short]
    good = [row.data for row in short if not row.malformed and row.packets and len(row.data) < 60]
    found += [bytes((i & 0x3F, 3, 7, 20, 90)) + b"".join(good[i : i + 6]) for i in range(0, len(good), 6)]
    return found


def check(data: bytes) -> None:
    """Raise if the decoder does what it must not."""
    if len(data) < 2:
        return
    options = data[0]
    version = MQTT_3_1 if options & 1 else MQTT_3_1_1
    max_size = MAX_SIZES[options >> 1 & 3]
    small = SMALLS[options >> 3 & 1]
    limit = 1 + (options >> 4 & 3)
    count = data[1] & 7
    cuts, stream = data[2 : 2 + count], data[2 + count :]
    module._SMALL = SMALLS[0]
    whole = outcome([stream], version, max_size, 1_000)
    for one in whole[0]:
        _check_packet(one, version, max_size)
    module._SMALL = small
    try:
        places = [0, *sorted({cut * len(stream) // 256 for cut in cuts}), len(stream)]
        in_pieces = outcome([stream[a:b] for a, b in pairwise(places)], version, max_size, limit)
        assert whole == in_pieces, f"cut at {places}: {in_pieces}, not {whole}"
        if options >> 6 == 0:  # dear: not always
            singly = outcome([stream[at : at + 1] for at in range(len(stream))], version, max_size, limit)
            assert whole == singly, f"byte by byte: {singly}, not {whole}"
    finally:
        module._SMALL = SMALLS[0]


def outcome(pieces: Iterable[bytes], version: int, max_size: int, limit: int) -> Outcome:
    """What the decoder makes of a stream that comes in these pieces."""
    decoder = Decoder(max_size, version, versions=frozenset({MQTT_3_1, MQTT_3_1_1}))
    packets: list[Packet] = []
    fed = 0
    for piece in pieces:
        decoder.feed(piece)
        fed += len(piece)
        try:
            while some := decoder.decode(limit):
                assert len(some) <= limit, "more packets than were asked for"
                packets += some
        except ProtocolError as error:
            _check_end(decoder, error)
            return packets, (error.code, error.why)
        _check_memory(decoder, fed)
    return packets, None


def _check_memory(decoder: Decoder, fed: int) -> None:
    """Memory grows only with what arrived."""
    chunks = decoder._chunks or []
    assert decoder.buffered <= fed, "more is kept than has come"
    held = sys.getsizeof(decoder._data) + sum(map(sys.getsizeof, chunks))
    assert held <= fed + OVERHEAD * (1 + len(chunks)), f"{held} bytes are held for {fed} that came"
    # Two that stand side by side are together at least _SMALL.
    assert len(chunks) <= 2 + 2 * fed // module._SMALL, f"{len(chunks)} pieces for {fed} bytes"


def _check_end(decoder: Decoder, error: ProtocolError) -> None:
    """Behind an error comes nothing but the same error, and nothing is kept."""
    assert decoder.buffered == 0, "something is kept behind an error"
    decoder.feed(b"\xc0\x00")
    again: ProtocolError | None = None
    try:
        decoder.decode(1)
    except ProtocolError as raised:
        again = raised
    assert again is error, f"behind an error comes {again!r}"


def _check_packet(packet: Packet, version: int, max_size: int) -> None:
    """What is passed on of a PUBLISH is itself a PUBLISH, and the same one."""
    first = packet[0]
    assert 0 < first < 256
    if first >> 4 != PUBLISH:
        return
    _, topic, frame, payload_at, packet_id = packet
    header = frame[:1] + length(len(frame) - 1 - _length_bytes(frame))
    assert frame.startswith(header), f"the frame's length is not its length: {frame[:8]!r}"
    middle = packet_id.to_bytes(2, "big") if first & 6 else b""
    assert frame[len(header) : payload_at] == len(topic).to_bytes(2, "big") + topic + middle
    assert bool(packet_id) == bool(first & 6)
    assert outcome([frame], version, max_size, 2) == ([packet], None)


def _length_bytes(frame: bytes) -> int:
    return next(i for i, byte in enumerate(frame[1:5], 1) if byte < 128)
