"""Every packet as a line for people: what it is about, and neither payloads nor passwords."""

from __future__ import annotations

import pytest

from broker.wire import encoder, encoder5
from broker.wire.codes import ProtocolError
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
from tests.vectors import VECTORS, string
from tests.vectors5 import (
    VECTORS5,
    ack5,
    auth5,
    connect5,
    disconnect5,
    four,
    publish5,
    section,
    subscribe5,
    unsubscribe5,
    user,
)

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


# --- MQTT 5.0 ----------------------------------------------------------------------------------------------------

METHOD = b"\x15" + string(b"SCRAM-SHA-256")
STRING = b"\x1f" + string(b"because")

RECEIVED_5: list[tuple[bytes, str, Fields]] = [
    (connect5(b"c"), "received CONNECT", {"client": "c", "version": "5.0", "clean": True, "keep_alive": 60}),
    (
        connect5(
            b"c", b"\x11" + four(10), b"\x21\0\5", b"\x17\0", METHOD, b"\x16" + string(b"secret"),
            user(b"a", b"secret"),
            flags=0x46, will=section(b"\x18" + four(5), b"\x02" + four(6)) + string(b"w") + string(b"secret"),
            rest=string(b"secret"),
        ),
        "received CONNECT",
        {
            "client": "c", "version": "5.0", "clean": True, "keep_alive": 60, "password": "given", "will_topic": b"w",
            "will_qos": 0, "will_retain": False, "will_payload_size": 6, "will_delay": 5, "will_expiry": 6,
            "receive_maximum": 5, "session_expiry": 10, "request_problem": False, "auth_method": "SCRAM-SHA-256",
            "user_properties": 1,
        },
    ),
    (publish5(b"a/b", b"secret"), "received PUBLISH", {"topic": b"a/b", "qos": 0, "payload_size": 6}),
    (
        publish5(
            b"", b"secret", b"\x23\0\7", b"\x02" + four(60), b"\x03" + string(b"text"), b"\x09" + string(b"secret"),
            user(b"a", b"secret"), user(b"b", b"secret"), qos=1, packet_id=7,
        ),
        "received PUBLISH",
        {
            "packet_id": 7, "topic": b"", "qos": 1, "payload_size": 6, "topic_alias": 7, "message_expiry_interval": 60,
            "content_type": "text", "correlation_data_size": 6, "user_properties": 2,
        },
    ),
    (ack5(0x40, 7, 0x10), "received PUBACK", {"packet_id": 7, "reason": "0x10"}),
    (puback(7), "received PUBACK", {"packet_id": 7, "reason": "0x00"}),
    (subscribe5(7, (b"a", 0), (b"b", 0x2E), properties=section(b"\x0b\x05")), "received SUBSCRIBE",
     {"packet_id": 7, "subscription_identifier": 5,
      "filters": b"a:0, b:2 no-local retain-as-published retain-handling=2"}),
    (unsubscribe5(7, b"a", b"b"), "received UNSUBSCRIBE", {"packet_id": 7, "filters": b"a, b"}),
    (PINGREQ, "received PINGREQ", {}),
    (DISCONNECT, "received DISCONNECT", {"reason": "0x00"}),
    (disconnect5(4, b"\x11" + four(0)), "received DISCONNECT", {"reason": "0x04", "session_expiry": 0}),
    (auth5(0x18, METHOD, b"\x16" + string(b"secret")), "received AUTH",
     {"reason": "0x18", "method": "SCRAM-SHA-256", "data_size": 6}),
]  # fmt: skip

SENT_5: list[tuple[bytes, str, Fields]] = [
    (encoder5.connack(0, True, b"\x21\0\x0a" + b"\x16" + string(b"secret")), "sent CONNACK",
     {"reason": "0x00", "session_present": True, "receive_maximum": 10, "authentication_data_size": 6}),
    (encoder5.connack(0x87, False), "sent CONNACK", {"reason": "0x87", "session_present": False}),
    (publish5(b"a/b", b"secret"), "sent PUBLISH", {"topic": b"a/b", "qos": 0, "payload_size": 6}),
    (publish5(b"a/b", b"x" * 20_000, b"\x0b\1\x0b\2", b"\x02" + four(5), qos=1, packet_id=7, retain=True, dup=True),
     "sent PUBLISH",
     {"packet_id": 7, "topic": b"a/b", "qos": 1, "dup": True, "retain": True, "payload_size": 20_000,
      "subscription_identifier": b"1, 2", "message_expiry_interval": 5}),
    (encoder5.ack(0x40, 7), "sent PUBACK", {"packet_id": 7, "reason": "0x00"}),
    (encoder5.ack(0x50, 7, 0x97), "sent PUBREC", {"packet_id": 7, "reason": "0x97"}),
    (encoder5.ack(0x62, 7, 0x92, STRING), "sent PUBREL",
     {"packet_id": 7, "reason": "0x92", "reason_string": "because"}),
    (encoder5.suback(7, [0, 0x87]), "sent SUBACK", {"packet_id": 7, "reasons": b"0, 135"}),
    (encoder5.unsuback(7, [17], STRING), "sent UNSUBACK",
     {"packet_id": 7, "reasons": b"17", "reason_string": "because"}),
    (encoder.PINGRESP, "sent PINGRESP", {}),
    (encoder5.disconnect(), "sent DISCONNECT", {"reason": "0x00"}),
    (encoder5.disconnect(0x9D, b"\x1c" + string(b"other")), "sent DISCONNECT",
     {"reason": "0x9d", "server_reference": "other"}),
    (encoder5.auth(0x18, METHOD), "sent AUTH", {"reason": "0x18", "authentication_method": "SCRAM-SHA-256"}),
]  # fmt: skip


@pytest.mark.parametrize(("data", "event", "fields"), RECEIVED_5)
def test_what_is_received_in_5_0(data: bytes, event: str, fields: Fields) -> None:
    decoder = Decoder(1 << 20, 5)
    decoder.feed(data)
    (packet,) = decoder.decode(10)
    described = describe_received(packet)
    assert described == (event, fields)
    assert "secret" not in str(described)


def test_what_is_sent_in_5_0() -> None:
    assert [list(describe_sent(data, 5)) for data, *_ in SENT_5] == [[one[1:]] for one in map(tuple, SENT_5)]
    assert list(describe_sent(b"".join(one[0] for one in SENT_5), 5)) == [one[1:] for one in SENT_5]


def test_whatever_can_come_in_5_0_can_be_described() -> None:
    count = 0
    for vector in VECTORS5:
        decoder = Decoder(1 << 29, 5)
        decoder.feed(vector.data)
        try:
            packets = decoder.decode(1000)
        except ProtocolError:
            continue
        for packet in packets:
            event, _ = describe_received(packet)
            assert event.startswith("received ")
            count += 1
    assert count > 300
