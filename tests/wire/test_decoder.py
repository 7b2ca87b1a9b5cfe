"""The decoder, against the table of tests.vectors: whole, in any pieces, and without paying for what is announced."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterable
from typing import Any, SupportsIndex

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.wire.codes import MAX_REMAINING_LENGTH, MQTT_3_1, MQTT_3_1_1, ProtocolError
from broker.wire.decoder import Decoder
from broker.wire.packets import Connect, Filters, Packet
from tests.vectors import (
    DISCONNECT,
    MALFORMED,
    PINGREQ,
    PUBACK,
    VALID,
    VECTORS,
    Vector,
    connect,
    length,
    number,
    packet,
    publish,
    string,
    subscribe,
)
from tests.wire.streams import CUTS, split, streams

#: Larger than any packet can be.
NO_LIMIT = MAX_REMAINING_LENGTH + 5
SMALL = [row for row in VECTORS if len(row.data) <= 3_000]
LONG = [row for row in VECTORS if 3_000 < len(row.data) <= 300_000]
HUGE = [row for row in VECTORS if len(row.data) > 300_000]

#: Packets, and what came behind them: None, or the error's code and text.
Outcome = tuple[list[Packet], tuple[int | None, str] | None]


def decode(
    pieces: Iterable[bytes], version: int = MQTT_3_1_1, *, limit: int = 1_000, max_size: int = NO_LIMIT
) -> Outcome:
    """What a decoder makes of a stream that comes in these pieces, as the connection asks it: after each."""
    decoder = Decoder(max_size, version, versions=frozenset({MQTT_3_1, MQTT_3_1_1}))
    packets: list[Packet] = []
    for piece in pieces:
        decoder.feed(piece)
        try:
            while some := decoder.decode(limit):
                assert len(some) <= limit
                packets += map(read, some)
        except ProtocolError as error:
            return packets, (error.code, error.why)
    return packets, None


def read(packet: Packet) -> Packet:
    """A long SUBSCRIBE or UNSUBSCRIBE is read by whoever works on it: then it is as a short one is."""
    if len(packet) == 3 and isinstance(packet[2], Filters):
        return (*packet[:2], list(packet[2]))  # type: ignore[call-overload]  # what is iterated are its two kinds
    return packet


def expected(vector: Vector) -> tuple[list[Packet], bool, int | None]:
    """Packets, whether an error follows, its code."""
    if vector.packets is None:
        return [], True, vector.code
    return list(vector.packets), False, None


def seen(outcome: Outcome) -> tuple[list[Packet], bool, int | None]:
    packets, error = outcome
    return packets, error is not None, error[0] if error is not None else None


def pieces_of(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


# --- the table ---------------------------------------------------------------------------------------------------


def test_the_table_names_each_case_once_and_holds_both_kinds() -> None:
    names = [row.name for row in VECTORS]
    assert sorted(names) == sorted(set(names))
    assert [row for row in VECTORS if row.packets is None and not row.malformed] == []
    assert [row for row in VECTORS if row.code is not None and row.packets is not None] == []
    assert (len(VALID) > 500, len(MALFORMED) > 1_400) == (True, True)


def test_whole() -> None:
    wrong = [
        (row.name, seen(outcome))
        for row in VECTORS
        if seen(outcome := decode([row.data], row.version)) != expected(row)
    ]
    assert wrong == []


def test_byte_by_byte() -> None:
    wrong = [row.name for row in SMALL if seen(decode(pieces_of(row.data, 1), row.version)) != expected(row)]
    assert wrong == []


def test_in_pieces_of_any_one_size() -> None:
    wrong = [
        (row.name, size)
        for row in SMALL
        for size in (2, 3, 5, 7, 64)
        if seen(decode(pieces_of(row.data, size), row.version)) != expected(row)
    ]
    assert wrong == []


def test_cut_in_two_at_every_place() -> None:
    wrong = [
        (row.name, at)
        for row in SMALL
        if len(row.data) < 40
        for at in range(len(row.data) + 1)
        if seen(decode([row.data[:at], row.data[at:]], row.version)) != expected(row)
    ]
    assert wrong == []


def test_long_ones_in_pieces_of_any_one_size() -> None:
    wrong = [
        (row.name, size)
        for row in LONG
        for size in (100, 4_095, 4_096, 4_097, 65_536)
        if seen(decode(pieces_of(row.data, size), row.version)) != expected(row)
    ]
    assert (len(LONG) > 20, wrong) == (True, [])


@pytest.mark.parametrize("vector", [pytest.param(row, id=row.name) for row in HUGE])
def test_huge_ones_in_pieces(vector: Vector) -> None:
    for size in (4_096, 65_536):
        assert seen(decode(pieces_of(vector.data, size), vector.version)) == expected(vector)


@pytest.mark.parametrize("limit", [1, 2, 3, 5])
def test_the_limit_of_packets_at_a_time_changes_nothing_but_that(limit: int) -> None:
    good = [row for row in VALID if row.version == MQTT_3_1_1 and row.packets and len(row.data) < 100]
    stream = b"".join(row.data for row in good)
    packets = [one for row in good for one in row.packets or ()]
    assert decode([stream], limit=limit) == (packets, None)
    assert decode(pieces_of(stream, 4_000), limit=limit) == (packets, None)


@pytest.mark.parametrize("version", [MQTT_3_1_1, MQTT_3_1])
def test_an_error_comes_behind_the_packets_before_it_and_ends_the_stream(version: int) -> None:
    """Nothing of what stands before a bad packet is lost, nothing of what stands behind it is seen [MQTT-4.8.0-1]."""
    before = publish(b"a", b"1") + publish(b"b", b"2", qos=1, packet_id=1) + PINGREQ
    before_it, _ = decode([before], version)
    wrong = []
    for row in MALFORMED:
        if row.packets is None and row.version == version and len(row.data) < 1_000:
            packets, error = decode([before + row.data + PINGREQ * 20], version)
            if (packets, error is not None and error[0]) != (before_it, row.code):
                wrong.append(row.name)
    assert (len(before_it), wrong) == (3, [])


def test_after_an_error_nothing_more_is_decoded() -> None:
    decoder = Decoder(NO_LIMIT)
    decoder.feed(b"\x00\x00")
    with pytest.raises(ProtocolError, match="reserved packet 0") as first:
        decoder.decode(1)
    assert decoder.buffered == 0
    decoder.feed(PINGREQ)
    with pytest.raises(ProtocolError) as second:
        decoder.decode(1)
    assert second.value is first.value


# --- any bytes, in any pieces ------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=300, derandomize=True)
@given(
    st.one_of(st.binary(max_size=60), streams(SMALL)),
    CUTS,
    st.sampled_from((MQTT_3_1_1, MQTT_3_1)),
    st.integers(1, 4),
    st.sampled_from((NO_LIMIT, 200, 130)),
)
def test_pieces_make_no_difference(data: bytes, cuts: list[int], version: int, limit: int, max_size: int) -> None:
    """The same packets, or the same one ProtocolError behind the same packets; no other exception (it would be let
    through here)."""
    whole = decode([data], version, max_size=max_size)
    assert decode(split(data, cuts), version, limit=limit, max_size=max_size) == whole
    assert decode(pieces_of(data, 1), version, max_size=max_size) == whole


PAYLOADS = st.integers(0, 30_000).map(lambda size: b"x" * size)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(st.lists(PAYLOADS, min_size=1, max_size=4), st.lists(st.integers(0, 120_000), max_size=12), st.integers(1, 3))
def test_pieces_make_no_difference_to_long_packets(payloads: list[bytes], cuts: list[int], limit: int) -> None:
    sent = [publish(b"t", payload, qos=1, packet_id=i + 1) for i, payload in enumerate(payloads)]
    packets = [
        (0x32, b"t", data, len(data) - len(payload), i + 1)
        for i, (data, payload) in enumerate(zip(sent, payloads, strict=True))
    ]
    assert decode(split(b"".join(sent), cuts), limit=limit) == (packets, None)


@settings(deadline=None, max_examples=100, derandomize=True)
@given(
    st.text("a/é€😀", min_size=1, max_size=20).map(str.encode),
    st.binary(max_size=200),
    st.integers(0, 2),
    st.integers(1, 65_535),
    st.booleans(),
    st.booleans(),
)
def test_a_publish_comes_out_as_it_was(
    topic: bytes, payload: bytes, qos: int, packet_id: int, dup: bool, retain: bool
) -> None:
    data = publish(topic, payload, qos=qos, packet_id=packet_id, dup=dup and qos > 0, retain=retain)
    [(first, got_topic, frame, payload_at, got_id)], error = decode([data])
    assert (first, got_topic, frame, frame[payload_at:], got_id, error) == (
        data[0], topic, data, payload, packet_id if qos else 0, None,
    )  # fmt: skip


# --- limits and cost ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [131, 1_000, 20_000])
def test_a_packet_as_large_as_the_limit_passes_and_a_byte_more_does_not(limit: int) -> None:
    header = 2 + len(length(limit)) - 1 + 3
    at_limit = publish(b"t", b"x" * (limit - header))
    assert len(at_limit) == limit
    assert decode([at_limit], max_size=limit) == ([(0x30, b"t", at_limit, header, 0)], None)
    over = publish(b"t", b"x" * (limit - header + 1))
    refused: Outcome = ([], (None, f"a packet of {limit + 1} bytes, over the limit of {limit} (max_packet_size)"))
    assert decode([over], max_size=limit) == refused
    assert decode(pieces_of(over, 1), max_size=limit) == refused


def test_the_limit_speaks_as_soon_as_the_header_is_there() -> None:
    assert decode([b"\x30\x80", b"\x01"], max_size=130) == (
        [],
        (None, "a packet of 131 bytes, over the limit of 130 (max_packet_size)"),
    )
    assert decode([b"\x30\xff\xff\xff", b"\x7f"], max_size=NO_LIMIT - 1) == (
        [],
        (None, "a packet of 268435460 bytes, over the limit of 268435459 (max_packet_size)"),
    )


def test_a_new_limit_and_a_new_version_hold_from_the_next_packet_on() -> None:
    decoder = Decoder(200)
    old_pubrel = packet(0x6A, number(1))  # DUP: MQTT 3.1 only
    decoder.feed(PINGREQ + publish(b"t", b"x" * 500) + old_pubrel)
    assert decoder.decode(1) == [(0xC0,)]
    decoder.max_size = 1_000
    decoder.version = MQTT_3_1
    [(_, topic, _, _, _), pubrel] = decoder.decode(10)
    assert (topic, pubrel) == (b"t", (0x6A, 1))


def test_buffered_tells_what_has_come_and_is_not_decoded() -> None:
    decoder = Decoder(NO_LIMIT)
    assert decoder.buffered == 0
    decoder.feed(PINGREQ + PINGREQ + b"\x30")
    assert decoder.buffered == 5
    decoder.decode(1)
    assert decoder.buffered == 3
    decoder.decode(9)
    assert decoder.buffered == 1
    decoder.feed(length(100_000) + b"x" * 50_000)
    decoder.decode(9)
    assert decoder.buffered == 50_004
    decoder.feed(b"x" * 49_999)
    assert decoder.buffered == 100_003
    decoder.feed(b"x" + DISCONNECT)
    assert decoder.buffered == 100_006


@pytest.mark.parametrize("first", [0x30, 0x32, 0x35, 0x10, 0x82, 0xA2])
def test_a_header_that_announces_256_mib_allocates_nothing(first: int) -> None:
    decoder = Decoder(NO_LIMIT)
    header = bytes((first, 0xFF, 0xFF, 0xFF, 0x7F))
    tracemalloc.start()
    try:
        for piece in (header, b"\0\x01", b"t"):
            decoder.feed(piece)
            assert decoder.decode(10) == []
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert decoder.buffered == 8
    assert peak < 10_000


class Counted(bytes):
    """Bytes that count how many are copied when they are sliced, or put together with others by `+`."""

    copied = 0

    def __add__(self, other: Any) -> Counted:
        return self._made(bytes(self) + bytes(other))

    def __radd__(self, other: Any) -> Counted:
        return self._made(bytes(other) + bytes(self))

    def __getitem__(self, key: SupportsIndex | slice) -> Any:
        got = bytes(self)[key]
        return self._made(got) if isinstance(got, bytes) else got

    def _made(self, data: bytes) -> Counted:
        Counted.copied += len(data)
        return Counted(data)


def copied_by(size: int, pieces: int) -> int:
    """Bytes copied, the last join and the frame aside, when a PUBLISH of this size comes in pieces of this size."""
    data = publish(b"t", b"x" * size)
    Counted.copied = 0
    decoder = Decoder(NO_LIMIT)
    packets = []
    for at in range(0, len(data), pieces):
        decoder.feed(Counted(data[at : at + pieces]))
        packets += decoder.decode(1)
    assert [len(one[2]) for one in packets] == [len(data)]
    return Counted.copied


@pytest.mark.parametrize(("size", "pieces"), [(1 << 16, 1), (1 << 20, 32), (1 << 20, 5_000)])
def test_a_long_packet_in_small_pieces_is_not_copied_from_its_beginning_each_time(size: int, pieces: int) -> None:
    """A piece costs the same however much there is already: twice as long is twice as dear, not four times."""
    quarter, half, whole = (copied_by(part, pieces) for part in (size // 4, size // 2, size))
    assert quarter <= half <= whole
    assert whole < 2.3 * half + 10_000
    # The dearest is where pieces are put together until they are some kilobytes.
    assert whole <= size // pieces * 4_096


def test_a_packet_that_comes_byte_by_byte_takes_the_memory_of_its_bytes() -> None:
    data = publish(b"t", b"x" * (1 << 17))
    decoder = Decoder(NO_LIMIT)
    packets = []
    tracemalloc.start()
    try:
        for at in range(len(data) - 1):
            decoder.feed(data[at : at + 1])
            packets += decoder.decode(1)
        now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (packets, decoder.buffered) == ([], len(data) - 1)
    # Were each byte kept as an object, there would be more than thirty times the data.
    assert now < 1.2 * len(data)
    assert peak < 1.3 * len(data)
    decoder.feed(data[-1:])
    assert decoder.decode(1) == [(0x30, b"t", data, len(data) - (1 << 17), 0)]


def test_many_packets_in_one_block_are_trimmed_once() -> None:
    """A block of packets costs its bytes once for the frames, and not once per packet for the rest."""
    count = 2_000
    block = Counted(publish(b"t", b"x" * 20) * count)
    Counted.copied = 0
    decoder = Decoder(NO_LIMIT)
    decoder.feed(block)
    got = 0
    while packets := decoder.decode(256):
        got += len(packets)
    assert (got, Counted.copied <= 2 * len(block)) == (count, True)


def test_connect_waits_for_all_of_it() -> None:
    data = connect(b"c", flags=0x82, rest=string(b"u"))
    decoder = Decoder(NO_LIMIT)
    for at in range(len(data) - 1):
        decoder.feed(data[at : at + 1])
        assert decoder.decode(1) == []
    decoder.feed(data[-1:] + subscribe(1, (b"a", 0)) + packet(PUBACK, number(1)))
    assert decoder.decode(1) == [(0x10, Connect(4, "c", True, 60, None, "u", None))]
    assert decoder.decode(5) == [(0x82, 1, [(b"a", 0)]), (0x40, 1)]
