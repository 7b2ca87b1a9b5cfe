"""Any bytes for the decoder: what must hold of it, whatever comes.

Owns: the meaning of a fuzzer's input as a stream, a version, limits and cuts, and what is checked of them. Must not
know: where inputs come from.

An input is `options, cuts, cut..., stream`: two bytes, so many bytes that say where to cut, and what the client sends.
With MQTT 5.0, two bits of the second byte say whether the stream is what a client sends, or only the properties of one
of its packets, put into a packet that is right but for them: so their lengths always fit, and it is they that vary.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from itertools import pairwise

from broker.wire import properties
from broker.wire import stream as module
from broker.wire.codes import (
    AUTH,
    CONNECT,
    DISCONNECT,
    MAX_REMAINING_LENGTH,
    MQTT_3_1,
    MQTT_3_1_1,
    MQTT_5,
    PACKET_NAMES,
    PINGREQ,
    PUBACK,
    PUBCOMP,
    PUBLISH,
    SUBSCRIBE,
    UNSUBSCRIBE,
    ProtocolError,
)
from broker.wire.decoder import Decoder
from broker.wire.packets import Packet
from broker.wire.properties import Published
from tests.vectors import VECTORS, length
from tests.vectors5 import IN_PLACE, VALUES, VECTORS5, section

#: Larger than any packet can be, and the smallest that the decoder measures.
MAX_SIZES = (MAX_REMAINING_LENGTH + 5, 1_000, 200, 130)
#: From how many bytes on the pieces of a packet are collected: the decoder's own, and so few that short streams get
#: there.
SMALLS = (module._SMALL, 16)
#: Bytes that an empty object takes, with some room.
OVERHEAD = 120

#: Packets, and what came behind them: None, or the error's code, reason and text.
Outcome = tuple[list[Packet], tuple[int | None, int, str] | None]
#: Where properties may stand.
PLACES = tuple(IN_PLACE)
KINDS = {name: properties.WILL if name == "will" else PACKET_NAMES.index(name) for name in PLACES}
#: Of each packet in MQTT 5.0.
FIELDS_5 = {
    CONNECT: 2,
    PUBLISH: 6,
    **dict.fromkeys(range(PUBACK, PUBCOMP + 1), 3),
    SUBSCRIBE: 4,
    UNSUBSCRIBE: 3,
    PINGREQ: 1,
    DISCONNECT: 3,
    AUTH: 4,
}


def seeds() -> list[bytes]:
    """Inputs to begin with: every vector, and some streams of many packets."""
    short = [row for row in VECTORS if len(row.data) <= 400]
    found = [bytes((row.version == MQTT_3_1, 1, len(row.data) // 2)) + row.data for row in short]
    good = [row.data for row in short if not row.malformed and row.packets and len(row.data) < 60]
    found += [bytes((i & 0x3F, 3, 7, 20, 90)) + b"".join(good[i : i + 6]) for i in range(0, len(good), 6)]
    return found + _seeds_5()


def _seeds_5() -> list[bytes]:
    # A CONNECT comes while another version is set.
    short = [row for row in VECTORS5 if len(row.data) <= 180]
    found = [bytes((0, 0 if row.is_connect else 8)) + row.data for row in short]
    good = [row.data for row in short if row.packets and len(row.data) < 60 and not row.is_connect]
    found += [bytes((i & 0x3E, 8 + 3, 7, 20, 90)) + b"".join(good[i : i + 6]) for i in range(0, len(good), 6)]
    each = [bytes((identifier,)) + value for identifier, value in VALUES.items()]
    for place in range(len(PLACES)):
        found += [bytes((place, 24)) + one for one in each]
        found += [bytes((place, 24)) + b"".join(each[i : i + 3] + each[24:25]) for i in range(len(each))]
    return found


def check(data: bytes) -> None:
    """Raise if the decoder does what it must not."""
    if len(data) < 2:
        return
    options = data[0]
    version = MQTT_5 if data[1] & 8 else MQTT_3_1 if options & 1 else MQTT_3_1_1
    if data[1] & 24 == 24:
        _check_properties(PLACES[options % len(PLACES)], data[2:])
        return
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
    decoder = Decoder(max_size, version)
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
            return packets, (error.code, error.reason, error.why)
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
    if version == MQTT_5:
        assert len(packet) == FIELDS_5[first >> 4], f"{len(packet)} fields"
    if first >> 4 != PUBLISH:
        return
    _, topic, frame, payload_at, packet_id, *published = packet
    header = frame[:1] + length(len(frame) - 1 - _length_bytes(frame))
    assert frame.startswith(header), f"the frame's length is not its length: {frame[:8]!r}"
    middle = packet_id.to_bytes(2, "big") if first & 6 else b""
    before = header + len(topic).to_bytes(2, "big") + topic + middle
    assert frame.startswith(before)
    if version == MQTT_5:
        _check_published(frame[len(before) : payload_at], *published)
        assert topic or published[0].alias
    else:
        assert len(before) == payload_at
    assert bool(packet_id) == bool(first & 6)
    assert outcome([frame], version, max_size, 2) == ([packet], None)


def _check_published(raw: bytes, published: Published | None) -> None:
    """Properties, with their length, as they came, and what is made of them: the careful reader finds the same."""
    said, end = properties.parse(raw, 0, len(raw), PUBLISH)
    assert end == len(raw)
    if published is None:
        assert raw == b"\0"
        return
    alias, expiry, kept, forwardable = published
    assert (alias, expiry) == (said.pop(properties.TOPIC_ALIAS, 0), said.pop(properties.MESSAGE_EXPIRY_INTERVAL, None))
    assert forwardable == (not alias and expiry is None)
    behind, _ = properties.parse(section(kept), 0, len(section(kept)), PUBLISH)
    assert behind == said
    if forwardable:
        assert section(kept) == raw


def _check_properties(place: str, raw: bytes) -> None:
    """Whatever the properties are, they are read, or there is an error that a client can be told."""
    version = MQTT_3_1_1 if place in ("CONNECT", "will") else MQTT_5
    packet = IN_PLACE[place](section(raw))
    whole = outcome([packet], version, MAX_SIZES[0], 2)
    packets, error = whole
    assert len(packets) + (error is not None) == 1, f"{whole} of one packet"
    if error is not None:
        assert error[1] in (0x81, 0x82, 0x94), f"the reason is {error[1]:#x}"
    else:
        _check_packet(packets[0], MQTT_5, MAX_SIZES[0])
    half = len(packet) // 2
    assert outcome([packet[:half], packet[half:]], version, MAX_SIZES[0], 2) == whole
    _check_writer(place, raw)


def _check_writer(place: str, raw: bytes) -> None:
    """What can be read can be written, and read again."""
    kind = KINDS[place]
    try:
        said, _ = properties.parse(section(raw), 0, len(section(raw)), kind)
    except ProtocolError:
        return
    written = section(properties.encode(said))
    assert properties.parse(written, 0, len(written), kind) == (said, len(written))
    assert len(written) == len(section(raw))


def _length_bytes(frame: bytes) -> int:
    return next(i for i, byte in enumerate(frame[1:5], 1) if byte < 128)
