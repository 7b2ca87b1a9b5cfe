"""Every packet as a line for people: what it is about, and neither payloads nor passwords."""

from __future__ import annotations

import pytest

from broker.wire import encoder
from broker.wire.decoder import Decoder
from broker.wire.describe import MAX_SHOWN, Fields, describe_received, describe_sent
from tests.raw_client import (
    DISCONNECT,
    PINGREQ,
    Will,
    connect,
    puback,
    pubcomp,
    publish,
    pubrec,
    pubrel,
    subscribe,
    unsubscribe,
)
from tests.vectors import VECTORS

RECEIVED: list[tuple[bytes, str, Fields]] = [
    (
        connect("c", keep_alive=60),
        "received CONNECT",
        {"client": "c", "version": "3.1.1", "clean": True, "keep_alive": 60},
    ),
    (
        connect("c", clean=False, username="ann", password=b"secret", will=Will("w", b"secret", 1, True)),
        "received CONNECT",
        {
            "client": "c", "version": "3.1.1", "clean": False, "keep_alive": 0, "user": "ann", "password": "given",
            "will_topic": b"w", "will_qos": 1, "will_retain": True, "will_payload_size": 6,
        },
    ),
    (connect("c", name=b"MQIsdp", level=3), "received CONNECT",
     {"client": "c", "version": "3.1", "clean": True, "keep_alive": 0}),
    (publish("a/b", b"secret"), "received PUBLISH", {"topic": b"a/b", "qos": 0, "payload_size": 6}),
    (publish("a/b", b"secret", 1, packet_id=7, retain=True, dup=True), "received PUBLISH",
     {"packet_id": 7, "topic": b"a/b", "qos": 1, "dup": True, "retain": True, "payload_size": 6}),
    (publish("a/b", b"x" * 300, 2, packet_id=7), "received PUBLISH",
     {"packet_id": 7, "topic": b"a/b", "qos": 2, "payload_size": 300}),
    (puback(7), "received PUBACK", {"packet_id": 7}),
    (pubrec(7), "received PUBREC", {"packet_id": 7}),
    (pubrel(7), "received PUBREL", {"packet_id": 7}),
    (pubcomp(7), "received PUBCOMP", {"packet_id": 7}),
    (subscribe(("a/b", 0), ("c/#", 2), packet_id=7), "received SUBSCRIBE",
     {"packet_id": 7, "filters": b"a/b:0, c/#:2"}),
    (unsubscribe("a/b", "c/#", packet_id=7), "received UNSUBSCRIBE", {"packet_id": 7, "filters": b"a/b, c/#"}),
    (PINGREQ, "received PINGREQ", {}),
    (DISCONNECT, "received DISCONNECT", {}),
]  # fmt: skip

SENT: list[tuple[bytes, str, Fields]] = [
    (encoder.connack(0, True), "sent CONNACK", {"code": 0, "session_present": True}),  # type: ignore[arg-type]
    (encoder.connack(5, False), "sent CONNACK", {"code": 5, "session_present": False}),  # type: ignore[arg-type]
    (publish("a/b", b"secret"), "sent PUBLISH", {"topic": b"a/b", "qos": 0, "payload_size": 6}),
    (publish("a/b", b"x" * 20_000, 1, packet_id=7, retain=True, dup=True), "sent PUBLISH",
     {"packet_id": 7, "topic": b"a/b", "qos": 1, "dup": True, "retain": True, "payload_size": 20_000}),
    (encoder.puback(7), "sent PUBACK", {"packet_id": 7}),
    (encoder.pubrec(7), "sent PUBREC", {"packet_id": 7}),
    (encoder.pubrel(7), "sent PUBREL", {"packet_id": 7}),
    (encoder.pubcomp(7), "sent PUBCOMP", {"packet_id": 7}),
    (encoder.suback(7, [0, 128]), "sent SUBACK", {"packet_id": 7, "codes": b"0, 128"}),
    (encoder.unsuback(7), "sent UNSUBACK", {"packet_id": 7}),
    (encoder.PINGRESP, "sent PINGRESP", {}),
]  # fmt: skip


@pytest.mark.parametrize(("data", "event", "fields"), RECEIVED)
def test_what_is_received(data: bytes, event: str, fields: Fields) -> None:
    decoder = Decoder(1 << 20)
    decoder.feed(data)
    (packet,) = decoder.decode(10)
    assert describe_received(packet) == (event, fields)


@pytest.mark.parametrize(("data", "event", "fields"), SENT)
def test_what_is_sent(data: bytes, event: str, fields: Fields) -> None:
    assert list(describe_sent(data)) == [(event, fields)]


def test_several_packets_are_sent_together() -> None:
    data = b"".join(one[0] for one in SENT)
    assert list(describe_sent(data)) == [one[1:] for one in SENT]


@pytest.mark.parametrize("count", [MAX_SHOWN + 1, 1000])  # a long packet is read only when it is worked on
def test_of_many_filters_some_are_shown(count: int) -> None:
    decoder = Decoder(1 << 20)
    decoder.feed(subscribe(*((f"t/{n}", 0) for n in range(count))) + unsubscribe(*(f"t/{n}" for n in range(count))))
    wanted, unwanted = decoder.decode(2)
    for packet, end in ((wanted, b", t/19:0, ..."), (unwanted, b", t/19, ...")):
        filters = describe_received(packet)[1]["filters"]
        assert isinstance(filters, bytes)
        assert filters.endswith(end)
        assert filters.count(b",") == MAX_SHOWN
    ((_, fields),) = describe_sent(encoder.suback(1, [0] * count))
    assert fields["codes"] == b", ".join([b"0"] * MAX_SHOWN) + b", ..."


def test_a_long_packet_that_is_malformed_is_shown_as_far_as_it_can_be_read() -> None:
    decoder = Decoder(1 << 20)
    decoder.feed(subscribe(("t", 0), ("a/#/b", 0), *((f"t/{n}", 0) for n in range(1000))))
    (packet,) = decoder.decode(1)
    assert describe_received(packet)[1]["filters"] == b"t:0"


def test_a_bridge_is_called_so() -> None:
    decoder = Decoder(1 << 20)
    decoder.feed(connect("c", level=0x84))
    (packet,) = decoder.decode(1)
    assert describe_received(packet)[1]["bridge"] is True


def test_whatever_can_come_can_be_described() -> None:
    count = 0
    for vector in VECTORS:
        decoder = Decoder(1 << 29, vector.version)
        decoder.feed(vector.data)
        try:
            packets = decoder.decode(1000)
        except Exception:
            continue
        for packet in packets:
            event, _ = describe_received(packet)
            assert event.startswith("received ")
            count += 1
    assert count > 100
