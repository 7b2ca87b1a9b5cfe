"""The decoder with MQTT 5.0, against the table of tests.vectors5: whole, and in any pieces."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.wire import properties
from broker.wire.codes import MAX_REMAINING_LENGTH, MQTT_3_1, MQTT_3_1_1, MQTT_5, ProtocolError
from broker.wire.decoder import Decoder
from broker.wire.packets import Filters, Packet
from broker.wire.topics import check_topic_name
from tests.vectors import NOT_UTF_8, PINGREQ, UTF_8, WITH_NUL, connect, connect_3_1, length, packet, string
from tests.vectors5 import VECTORS5, Vector5, connect5, publish5, subscribe5, user
from tests.wire.streams import CUTS, split, streams

NO_LIMIT = MAX_REMAINING_LENGTH + 5
SMALL = [row for row in VECTORS5 if len(row.data) <= 600]
GOOD = [row for row in VECTORS5 if row.packets is not None and not row.is_connect]

#: Packets, and what came behind them: None, or the error's reason code, level and text.
Outcome = tuple[list[Packet], tuple[int, int, str] | None]


def decode(pieces: Iterable[bytes], version: int = MQTT_5, *, limit: int = 1_000, max_size: int = NO_LIMIT) -> Outcome:
    decoder = Decoder(max_size, version)
    packets: list[Packet] = []
    for piece in pieces:
        decoder.feed(piece)
        try:
            while some := decoder.decode(limit):
                assert len(some) <= limit
                packets += map(read, some)
        except ProtocolError as error:
            return packets, (error.reason, error.level, error.why)
    return packets, None


def read(one: Packet) -> Packet:
    """A long SUBSCRIBE is read by whoever works on it: then it is as a short one is."""
    if len(one) >= 3 and isinstance(one[2], Filters):
        return (*one[:2], list(one[2]), *one[3:])  # type: ignore[call-overload]  # what is iterated are its kinds
    return one


def version_of(row: Vector5) -> int:
    """A CONNECT comes while nothing is agreed."""
    return MQTT_3_1_1 if row.is_connect else MQTT_5


def expected(row: Vector5) -> tuple[list[Packet], int | None]:
    return list(row.packets or ()), row.reason


def seen(outcome: Outcome) -> tuple[list[Packet], int | None]:
    packets, error = outcome
    return packets, None if error is None else error[0]


def pieces_of(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


# --- the table ---------------------------------------------------------------------------------------------------


def test_the_table_holds_both_kinds() -> None:
    assert (len(GOOD) > 300, len(VECTORS5) - len(GOOD) > 3_000) == (True, True)


def test_whole() -> None:
    wrong = [
        (row.name, seen(outcome), outcome[1])
        for row in VECTORS5
        if seen(outcome := decode([row.data], version_of(row))) != expected(row)
    ]
    assert wrong == []


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64])
def test_in_pieces(size: int) -> None:
    wrong = [
        (row.name, outcome)
        for row in SMALL
        if seen(outcome := decode(pieces_of(row.data, size), version_of(row))) != expected(row)
    ]
    assert wrong == []


@pytest.mark.parametrize("size", [4_095, 65_536])
def test_long_ones_in_pieces(size: int) -> None:
    long = [row for row in VECTORS5 if len(row.data) > 600]
    wrong = [row.name for row in long if seen(decode(pieces_of(row.data, size), version_of(row))) != expected(row)]
    assert (len(long) > 40, wrong) == (True, [])


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_one_behind_the_other(limit: int) -> None:
    good = [row for row in GOOD if row.packets and len(row.data) < 400]
    stream = b"".join(row.data for row in good)
    packets = [one for row in good for one in row.packets or ()]
    assert decode([stream], limit=limit) == (packets, None)
    assert decode(pieces_of(stream, 1_000), limit=limit) == (packets, None)


def test_an_error_comes_behind_the_packets_before_it_and_ends_the_stream() -> None:
    before = publish5(b"a", b"1") + publish5(b"b", b"2", user(b"n", b"v"), qos=1, packet_id=1) + PINGREQ
    wrong = []
    for row in VECTORS5:
        if row.packets is None and not row.is_connect and len(row.data) < 1_000:
            packets, error = decode([before + row.data + PINGREQ * 20])
            if (len(packets), error is not None and error[0]) != (3, row.reason):
                wrong.append(row.name)
    assert wrong == []


# --- CONNECT -----------------------------------------------------------------------------------------------------


def test_a_connect_that_is_malformed_says_that_it_was_of_5_0() -> None:
    """So that it can be answered in its own way; one of 3.1.1 is not."""
    levels = {row.name: error[1] for row in VECTORS5 if row.is_connect and (error := decode([row.data], 4)[1])}
    without = [name for name, level in levels.items() if level != 5]
    assert (len(levels) > 100, without) == (True, [])
    assert decode([connect(flags=0x03)], 4)[1] == (0x81, 0, "CONNECT with the reserved flag set")


@pytest.mark.parametrize(
    ("versions", "data", "reason", "why"),
    [
        ({3, 4}, connect5(), 0x84, "protocol level 5 (MQTT 5.0); supported are 4 (MQTT 3.1.1) and 3 (MQTT 3.1)"),
        ({5}, connect(), 0x84, "protocol level 4 (MQTT 3.1.1); supported is 5 (MQTT 5.0)"),
        ({5}, connect_3_1(), 0x84, "protocol level 3 (MQTT 3.1); supported is 5 (MQTT 5.0)"),
        ({3, 4, 5}, connect(level=6), 0x84,
         "protocol level 6; supported are 5 (MQTT 5.0), 4 (MQTT 3.1.1) and 3 (MQTT 3.1)"),
        ({3, 4, 5}, connect(name=b"MQIsdp", level=5), 0x84,
         "protocol level 5 (MQTT 5.0); supported are 5 (MQTT 5.0), 4 (MQTT 3.1.1) and 3 (MQTT 3.1)"),
    ],
)  # fmt: skip
def test_a_version_that_is_not_served_is_refused(versions: set[int], data: bytes, reason: int, why: str) -> None:
    """[MQTT-3.1.2-2] of each version; the code is that of 3.1.1."""
    decoder = Decoder(NO_LIMIT, versions=frozenset(versions))
    decoder.feed(data)
    with pytest.raises(ProtocolError) as raised:
        decoder.decode(1)
    error = raised.value
    level = data[2 + 2 + data[3]]
    assert (error.code, error.reason, error.level, error.why) == (1, reason, level, f"CONNECT with {why}")


@pytest.mark.parametrize("versions", [{3}, {4}, {3, 4, 5}])
def test_a_version_that_is_served_is_taken(versions: set[int]) -> None:
    for version, data in ((MQTT_3_1, connect_3_1()), (MQTT_3_1_1, connect()), (MQTT_5, connect5())):
        if version in versions:
            decoder = Decoder(NO_LIMIT, versions=frozenset(versions))
            decoder.feed(data)
            assert decoder.decode(1)[0][1].version == version


def test_a_second_connect_is_read_as_well() -> None:
    """It is the connection that forbids it [MQTT-3.1.0-2]."""
    assert decode([connect5()])[0][0][1].version == MQTT_5
    assert decode([b"\x11" + connect5()[1:]])[1] == (0x81, 0, "CONNECT with header flags 0001")


def test_an_auth_is_no_packet_of_3_1_1() -> None:
    assert decode([packet(0xF0)], 4)[1] == (0x81, 0, "AUTH, which only MQTT 5.0 has")


# --- texts are left as they are ----------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [pytest.param(text, id=label) for label, text in UTF_8.items()])
def test_no_text_is_changed(text: bytes) -> None:
    """[MQTT-1.5.4-3]"""
    topic = text if len(text) < 65_535 else b"t"
    data = publish5(topic, b"", b"\x03" + string(text), user(text, text))
    [(_, got, frame, _, _, told)], error = decode([data])
    assert (got, frame, error) == (topic, data, None)
    assert told.kept == b"\x03" + string(text) + user(text, text)


@pytest.mark.parametrize("topic", [*NOT_UTF_8.values(), *WITH_NUL.values(), b"", b"a/#", b"+"])
def test_the_topic_is_left_to_who_looks_it_up(topic: bytes) -> None:
    """[MQTT-3.3.2-1] [MQTT-3.3.2-2]"""
    if topic:
        assert decode([publish5(topic)])[1] is None
    with pytest.raises(ProtocolError) as raised:
        check_topic_name(topic)
    assert raised.value.reason == (0x90 if topic in (b"", b"a/#", b"+") else 0x81)


# --- any bytes, in any pieces ------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=120, derandomize=True)
@given(
    st.one_of(st.binary(max_size=60), streams(SMALL)),
    CUTS,
    st.sampled_from((MQTT_5, MQTT_3_1_1)),
    st.integers(1, 4),
    st.sampled_from((NO_LIMIT, 200, 130)),
)
def test_pieces_make_no_difference(data: bytes, cuts: list[int], version: int, limit: int, max_size: int) -> None:
    whole = decode([data], version, max_size=max_size)
    assert decode(split(data, cuts), version, limit=limit, max_size=max_size) == whole
    assert decode(pieces_of(data, 1), version, max_size=max_size) == whole


@pytest.mark.parametrize("row", [row for row in GOOD if row.data[:1] in (b"\x30", b"\x32", b"\x34")][::7],
                         ids=lambda row: row.name)  # fmt: skip
def test_sections_are_the_same_whether_they_are_known_or_not(row: Vector5) -> None:
    properties.known.clear()
    first = decode([row.data])
    assert (seen(first), decode([row.data])) == (expected(row), first)


# --- limits and cost ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [131, 1_000, 20_000])
def test_a_packet_as_large_as_the_limit_passes_and_a_byte_more_does_not(limit: int) -> None:
    header = 1 + len(length(limit)) + 4
    at_limit = publish5(b"t", b"x" * (limit - header))
    assert len(at_limit) == limit
    assert decode([at_limit], max_size=limit) == ([(0x30, b"t", at_limit, header, 0, None)], None)
    over = publish5(b"t", b"x" * (limit - header + 1))
    refused = (0x95, 0, f"a packet of {limit + 1} bytes, over the limit of {limit} (max_packet_size)")
    assert decode([over], max_size=limit) == ([], refused)
    assert decode(pieces_of(over, 1), max_size=limit) == ([], refused)


@pytest.mark.parametrize("first", [0x30, 0x35, 0x10, 0x40, 0x82, 0xA2, 0xE0, 0xF0])
def test_a_header_that_announces_256_mib_allocates_nothing(first: int) -> None:
    decoder = Decoder(NO_LIMIT, MQTT_5)
    tracemalloc.start()
    try:
        for piece in (bytes((first, 0xFF, 0xFF, 0xFF, 0x7F)), b"\0\1t", b"\xff\xff\xff\x7f\x26\xff\xff"):
            decoder.feed(piece)
            assert decoder.decode(10) == []
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10_000


def test_what_is_remembered_of_sections_is_bounded() -> None:
    for i in range(properties.MAX_KNOWN * 2 + 10):
        decode([publish5(b"t", b"", user(b"n", b"%d" % i))])
        assert len(properties.known) <= properties.MAX_KNOWN
    properties.known.clear()
    decode([publish5(b"t", b"", user(b"n" * properties.MAX_KNOWN_SIZE, b""))])
    decode([publish5(b"t", b"", b"\x01\x02")])
    assert properties.known == {}


def test_large_properties_cost_their_bytes_a_few_times() -> None:
    """The frame, the section, and what is kept of it."""
    pair = user(b"n" * 65_535, b"v" * 65_535)
    data = publish5(b"t", b"", b"\x23\0\1", *([pair] * 16))
    decoder = Decoder(NO_LIMIT, MQTT_5)
    decoder.feed(data)
    tracemalloc.start()
    try:
        [(_, _, _, _, _, told)] = decoder.decode(1)
        now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert told.kept == pair * 16
    assert (now < 2.1 * len(data), peak < 3.2 * len(data)) == (True, True)


def test_a_long_subscribe_is_read_when_it_is_worked_on() -> None:
    wanted = [(b"f%d" % i, 0x2A) for i in range(2_000)]
    decoder = Decoder(NO_LIMIT, MQTT_5)
    decoder.feed(subscribe5(1, *wanted, properties=b"\2\x0b\7") + subscribe5(2, *wanted, (b"x", 0x40)))
    (_, _, first, identifier), (_, _, second, _) = decoder.decode(2)
    assert (isinstance(first, Filters), list(first), identifier) == (True, wanted, 7)
    with pytest.raises(ProtocolError, match="reserved bits") as raised:
        list(second)
    assert raised.value.reason == 0x81
