"""The bodies of CONNECT, SUBSCRIBE and UNSUBSCRIBE as records. (Their rules are in the table of tests.vectors.)"""

import pytest

from broker.wire.codes import MQTT_3_1, MQTT_3_1_1, PACKET_NAMES, ProtocolError, ReturnCode
from broker.wire.packets import (
    MAX_FILTERS,
    Connect,
    Will,
    check_topic_name,
    parse_connect,
    parse_subscribe,
    parse_unsubscribe,
)
from tests.vectors import VECTORS, connect, connect_3_1, string, subscribe, unsubscribe


def test_a_connect_has_its_fields_by_name() -> None:
    rest = string(b"w") + string(b"gone") + string(b"me") + string(b"secret")
    data = b"??" + connect(b"id", flags=0xEC, keep_alive=10, rest=rest)[2:] + b"??"
    parsed = parse_connect(data, 2, len(data) - 2)
    assert parsed == Connect(
        version=MQTT_3_1_1,
        client_id="id",
        clean_session=False,
        keep_alive=10,
        will=Will(topic=b"w", payload=b"gone", qos=1, retain=True),
        username="me",
        password=b"secret",
    )


def test_the_bytes_outside_of_the_body_are_not_read() -> None:
    """What follows in the same block is another packet's, however well it would fit."""
    body = connect(flags=0x82)[2:]  # its user name is missing
    data = body + string(b"u")
    with pytest.raises(ProtocolError, match="the packet ends before its user name"):
        parse_connect(data, 0, len(body))
    body = subscribe(1, (b"a", 0))[4:-1]  # its QoS is missing
    with pytest.raises(ProtocolError, match="SUBSCRIBE ends before the QoS of a Topic Filter"):
        parse_subscribe(body + b"\0", 0, len(body))
    body = unsubscribe(1, b"abc")[4:]
    with pytest.raises(ProtocolError, match="the packet ends inside its Topic Filter"):
        parse_unsubscribe(body, 0, len(body) - 1)


def test_versions_go_by_name_and_level_together() -> None:
    versions = [
        parse_connect(data, 2, len(data)).version for data in (connect(keep_alive=1), connect_3_1(keep_alive=1))
    ]
    assert versions == [MQTT_3_1_1, MQTT_3_1]
    for data in (connect(level=3), connect(name=b"MQIsdp", level=4)):
        with pytest.raises(ProtocolError) as error:
            parse_connect(data, 2, len(data))
        assert error.value.code is ReturnCode.UNACCEPTABLE_PROTOCOL_VERSION


def test_the_text_of_an_error_names_the_rule_and_never_the_client_s_data() -> None:
    secret = b"S3CR3T"
    bad = [
        connect(secret + b"\xff"),
        connect(flags=0x06, rest=string(secret + b"#") + string(secret)),
        connect(flags=0x82, rest=string(secret + b"\0")),
        connect(flags=0xC2, rest=string(b"u") + string(secret)[:-1]),
        connect(name=secret),
    ]
    for data in bad:
        with pytest.raises(ProtocolError) as error:
            parse_connect(data, 2, len(data))
        assert secret.decode() not in str(error.value)
        assert str(error.value) == error.value.why != ""


def test_no_packet_has_more_filters_than_the_limit() -> None:
    """Each filter of a few bytes becomes an object."""
    subscribing, unsubscribing = (string(b"a") + b"\0") * MAX_FILTERS, string(b"a") * MAX_FILTERS
    assert len(list(parse_subscribe(subscribing, 0, len(subscribing)))) == MAX_FILTERS
    assert len(list(parse_unsubscribe(unsubscribing, 0, len(unsubscribing)))) == MAX_FILTERS
    for parse, data in ((parse_subscribe, subscribing), (parse_unsubscribe, unsubscribing)):
        # Behind the limit nothing is looked at: the rest may be as long and as wrong as it likes.
        data += data[: len(data) // MAX_FILTERS] + b"\xff" * 9
        with pytest.raises(ProtocolError, match=f"SUBSCRIBE with more than {MAX_FILTERS} Topic Filters"):
            list(parse(data, 0, len(data)))


@pytest.mark.parametrize("topic", [row.packets[0][1] for row in VECTORS if row.name.startswith("PUBLISH: topic: ")
                                   and row.packets and row.malformed])  # fmt: skip
def test_a_topic_name_that_may_not_be_published_to_is_refused(topic: bytes) -> None:
    """[MQTT-3.3.2-1] [MQTT-3.3.2-2] [MQTT-4.7.3-1] [MQTT-1.5.3-1] [MQTT-1.5.3-2]"""
    with pytest.raises(ProtocolError) as error:
        check_topic_name(topic)
    assert error.value.code is None


def test_a_topic_name_is_taken_as_it_is() -> None:
    for row in VECTORS:
        if row.name.startswith("PUBLISH: topic: ") and row.packets and not row.malformed:
            check_topic_name(row.packets[0][1])


def test_each_packet_type_has_a_name() -> None:
    assert (len(PACKET_NAMES), PACKET_NAMES[3], PACKET_NAMES[14]) == (16, "PUBLISH", "DISCONNECT")
