"""What MQTT is for, with paho-mqtt (3.1, 3.1.1 and 5.0). (Other libraries are in test_libraries.py, programs in
test_command_lines.py.)"""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from paho.mqtt.packettypes import PacketTypes

from tests.end_to_end.paho_client import Paho, properties_of
from tests.raw_client import Address, RawClient, Will, publish

VERSIONS = pytest.mark.parametrize("version", ["3.1", "3.1.1", "5"])
EVERY_QOS = [0, 1, 2]


@VERSIONS
@pytest.mark.parametrize("published", EVERY_QOS)
@pytest.mark.parametrize("granted", EVERY_QOS)
def test_a_message_arrives_at_the_lower_of_the_two_qos(
    version: str, published: int, granted: int, address: Address
) -> None:
    # [MQTT-3.8.4-6]
    topic = f"qos/{version}/{published}/{granted}"
    with (
        Paho(address, version=version, client_id=f"p{topic}") as author,
        Paho(address, version=version, client_id=f"s{topic}") as reader,
    ):
        assert reader.subscribe((topic, granted)) == [granted]
        author.publish(topic, b"payload", published)
        message = reader.message()
        assert message[:5] == (topic, b"payload", min(published, granted), False, False)
        reader.nothing_else(topic)


@VERSIONS
@pytest.mark.parametrize("qos", EVERY_QOS)
def test_retained_messages(version: str, qos: int, address: Address) -> None:
    topic = f"retained/{version}/{qos}"
    with Paho(address, version=version, client_id="author" + topic) as author:
        author.subscribe((topic, 2))
        author.publish(topic, b"old", qos, retain=True)
        author.publish(topic, b"new", qos, retain=True)
        # To whom subscribed before, it is a message as any other [MQTT-3.3.1-9].
        assert [(m.payload, m.retain) for m in author.messages(2)] == [(b"old", False), (b"new", False)]
        for granted in EVERY_QOS:
            with Paho(address, version=version, client_id=f"reader{granted}{topic}") as reader:
                reader.subscribe((topic, granted))
                # [MQTT-3.3.1-6] [MQTT-3.3.1-8]
                assert reader.message()[:4] == (topic, b"new", min(qos, granted), True)
        author.publish(topic, b"", qos, retain=True)  # [MQTT-3.3.1-10]
        assert author.message()[:4] == (topic, b"", qos, False)
        with Paho(address, version=version, client_id="late" + topic) as reader:
            reader.subscribe((topic, qos))
            reader.nothing_else(topic)


def test_a_message_that_is_not_to_be_retained_leaves_the_retained_one(address: Address) -> None:
    # [MQTT-3.3.1-12]
    with Paho(address) as author, Paho(address) as reader:
        author.publish("keep", b"kept", 1, retain=True)
        author.publish("keep", b"passing", 1)
        author.publish("keep", b"", 1)
        reader.subscribe(("keep", 1))
        assert reader.message()[:4] == ("keep", b"kept", 1, True)
        reader.nothing_else("keep")


def test_subscribing_again_brings_the_retained_message_again(address: Address) -> None:
    # [MQTT-3.8.4-3]
    with Paho(address) as client:
        client.publish("again/x", b"kept", 1, retain=True)
        for _ in range(3):
            client.subscribe(("again/+", 1))
            assert client.message()[:4] == ("again/x", b"kept", 1, True)
        client.nothing_else("again/y")


WILDCARDS = [
    # MQTT 3.1.1, section 4.7.1.
    ("sport/tennis/player1/#", ["sport/tennis/player1", "sport/tennis/player1/ranking", "sport/tennis/player1/a/b"]),
    ("sport/#", ["sport", "sport/", "sport/tennis", "sport/tennis/player1", "sport/tennis/player1/ranking",
                 "sport/tennis/player1/a/b", "sport/tennis/player2"]),
    ("sport/tennis/+", ["sport/tennis/player1", "sport/tennis/player2"]),
    ("sport/+", ["sport/", "sport/tennis"]),
    ("+/+", ["/finance", "sport/", "sport/tennis"]),
    ("/+", ["/finance"]),
    ("+", ["sport"]),
    ("sport", ["sport"]),
    ("+/tennis/+", ["sport/tennis/player1", "sport/tennis/player2"]),
    ("+/tennis/#", ["sport/tennis", "sport/tennis/player1", "sport/tennis/player1/ranking",
                    "sport/tennis/player1/a/b", "sport/tennis/player2"]),
    ("#", ["/finance", "sport", "sport/", "sport/tennis", "sport/tennis/player1", "sport/tennis/player1/ranking",
           "sport/tennis/player1/a/b", "sport/tennis/player2"]),
]  # fmt: skip


@pytest.mark.parametrize(("topic_filter", "topics"), WILDCARDS, ids=[row[0] for row in WILDCARDS])
def test_wildcards(topic_filter: str, topics: list[str], address: Address) -> None:
    with Paho(address) as author, Paho(address) as reader:
        reader.subscribe((topic_filter, 0), ("$end", 0))
        for topic in WILDCARDS[-1][1]:
            author.publish(topic, b"of the wildcards")
        author.publish("$end")
        came: list[str] = []
        while (message := reader.message()).topic != "$end":
            if message.payload == b"of the wildcards":  # and not what other tests retain
                came.append(message.topic)
        assert came == topics


def test_filters_that_begin_with_a_wildcard_do_not_match_dollar_topics(address: Address) -> None:
    # [MQTT-4.7.2-1]
    with Paho(address) as author, Paho(address) as all_of_it, Paho(address) as dollar:
        all_of_it.subscribe(("#", 0), ("+/dollar", 0))
        dollar.subscribe(("$own/#", 0))
        author.publish("$own/dollar", b"x")
        assert dollar.message()[:2] == ("$own/dollar", b"x")
        author.publish("plain/dollar", b"y")
        while (message := all_of_it.message()).topic != "plain/dollar":
            assert not message.topic.startswith("$")


def test_who_subscribed_in_several_ways_gets_a_message_once_at_the_highest_qos(address: Address) -> None:
    # [MQTT-3.3.5-1]
    with Paho(address) as client:
        assert client.subscribe(("over/lap", 0), ("over/+", 2), ("over/#", 1)) == [0, 2, 1]
        client.publish("over/lap", b"x", 2)
        assert client.message()[:3] == ("over/lap", b"x", 2)
        client.unsubscribe("over/+")
        client.publish("over/lap", b"y", 2)
        assert client.message()[:3] == ("over/lap", b"y", 1)
        client.nothing_else("over/lap")


def test_after_unsubscribe_nothing_comes(address: Address) -> None:
    # [MQTT-3.10.4-2]
    with Paho(address) as client:
        client.subscribe(("un/a", 0), ("un/b", 1), ("un/c", 0))
        client.unsubscribe("un/b", "un/never", "un/c")
        client.publish("un/b", b"x", 1)
        client.publish("un/c", b"x", 1)
        client.nothing_else("un/a")


@pytest.mark.parametrize("qos", EVERY_QOS)
def test_messages_of_one_topic_keep_their_order(qos: int, address: Address) -> None:
    # [MQTT-4.6.0-6]
    topic = f"order/{qos}"
    with Paho(address) as author, Paho(address) as reader:
        reader.subscribe((topic, qos))
        for i in range(500):
            author.client.publish(topic, b"%d" % i, qos)
        assert [message.payload for message in reader.messages(500)] == [b"%d" % i for i in range(500)]
        reader.nothing_else(topic)


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16_383, 16_384, 70_000, 2_097_152, 10_000_000])
@pytest.mark.parametrize("qos", EVERY_QOS)
def test_payloads_of_any_size_arrive_as_they_were(size: int, qos: int, address: Address) -> None:
    payload = (b"%08x" % size * (size // 8 + 1))[:size]
    topic = f"size/{size}/{qos}"
    with RawClient.connected(address) as reader, Paho(address) as author:
        reader.subscribe((topic, qos))
        author.publish(topic, payload, qos)
        message = reader.message()
        assert (message.topic, message.qos) == (topic, qos)
        assert message.payload == payload


def test_topics_of_any_script_arrive_as_they_were(address: Address) -> None:
    for topic in ("Ünïcödé/日本語/🦆", "with a space", "/", "//", "a/\ufeffb", "\u0001", "t" * 65_535):
        with RawClient.connected(address) as client:
            client.subscribe((topic, 0))
            client.send(publish(topic, b"x"))
            assert client.message()[:2] == (topic, b"x")


def test_many_clients_at_once_get_what_is_theirs(address: Address) -> None:
    readers = [Paho(address) for _ in range(10)]
    for i, reader in enumerate(readers):
        reader.subscribe((f"many/{i}/#", 1), ("many/all", 2))

    def work(i: int) -> None:
        with Paho(address) as author:
            for n in range(20):
                author.publish(f"many/{i}/x", b"%d" % n, n % 3)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with Paho(address) as author:
        author.publish("many/all", b"the end", 2)
    for i, reader in enumerate(readers):
        messages = [*reader.messages(20), reader.message()]
        assert {message.topic for message in messages} == {f"many/{i}/x", "many/all"}
        assert sorted(message.payload for message in messages if message.topic != "many/all") == sorted(
            b"%d" % n for n in range(20)
        )
        reader.close()


def test_many_threads_publish_through_one_client(address: Address) -> None:
    def work(client: Paho, i: int) -> None:
        for n in range(60):
            client.publish(f"threads/{i}/{n % 3}", b"%d" % n, n % 3)

    with Paho(address) as reader, Paho(address) as author:
        reader.subscribe(("threads/#", 2))
        threads = [threading.Thread(target=work, args=(author, i)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        came: dict[str, list[bytes]] = {}
        for message in reader.messages(480):
            assert str(message.qos) == message.topic[-1]
            came.setdefault(message.topic, []).append(message.payload)
        reader.nothing_else("threads/end")
    assert came == {f"threads/{i}/{qos}": [b"%d" % n for n in range(qos, 60, 3)] for i in range(8) for qos in EVERY_QOS}


# --- Session Present, for people ---


@pytest.mark.parametrize("version", ["3.1.1", "5"])
def test_session_present_and_what_waited(version: str, address: Address) -> None:
    # [MQTT-3.2.2-1] [MQTT-3.2.2-2] [MQTT-3.2.2-3]
    with Paho(address, "sleeper", clean=False, version=version) as client:
        assert (client.code, client.present) == (0, False)
        client.subscribe(("sleep/#", 2))
    with Paho(address) as author:
        for qos in EVERY_QOS:
            author.publish(f"sleep/{qos}", b"while away", qos)
    with Paho(address, "sleeper", clean=False, version=version) as client:
        assert (client.code, client.present) == (0, True)
        came = {message.topic: message.qos for message in client.messages(2)}
        assert came == {"sleep/1": 1, "sleep/2": 2}
    with Paho(address, "sleeper", clean=True, version=version) as client:
        assert (client.code, client.present) == (0, False)
    with Paho(address, "sleeper", clean=False, version=version) as client:
        assert (client.code, client.present) == (0, False)
    Paho(address, "sleeper", clean=True, version=version).close()


def test_mqtt_31_clients_get_no_session_present_bit(address: Address) -> None:
    # The byte is reserved in MQTT 3.1.
    for _ in range(2):
        with Paho(address, "old sleeper", version="3.1", clean=False) as client:
            assert (client.code, client.present) == (0, False)


# --- what MQTT 5.0 alone has, with paho-mqtt ---


def test_properties_with_paho(address: Address) -> None:
    properties: dict[str, Any] = {
        "PayloadFormatIndicator": 1,
        "ContentType": "text/grün",
        "ResponseTopic": "answers",
        "CorrelationData": b"\0\1",
        "UserProperty": [("a", "1"), ("b", "2"), ("a", "3")],
    }
    with Paho(address, version="5") as author, Paho(address, version="5") as reader, Paho(address) as old:
        for client in (reader, old):
            client.subscribe(("paho/properties", 2))
        for qos in EVERY_QOS:
            author.publish("paho/properties", b"x", qos, **properties)
            assert reader.message()[:3] == ("paho/properties", b"x", qos)
            assert {name: reader.properties[name] for name in properties} == properties
            assert old.message()[:3] == ("paho/properties", b"x", qos)


def test_what_is_told_to_paho(address: Address) -> None:
    with Paho(address, version="5", clean=False) as client:
        assert client.told["AssignedClientIdentifier"]
        assert client.told["TopicAliasMaximum"] > 0
        assert "MaximumQoS" not in client.told


def test_a_will_with_a_delay_of_paho(address: Address) -> None:
    with Paho(address, version="5") as heir:
        heir.subscribe(("paho/late", 1))
        properties = properties_of(PacketTypes.WILLMESSAGE, WillDelayInterval=1, ContentType="text")
        will = Will("paho/late", b"gone", 1)
        Paho(address, "late", version="5", clean=False, will=will, will_properties=properties).drop()
        since = time.monotonic()
        assert heir.message()[:3] == ("paho/late", b"gone", 1)
        assert time.monotonic() - since > 0.5
        assert heir.properties["ContentType"] == "text"
        assert "WillDelayInterval" not in heir.properties


def test_aliases_of_paho(address: Address) -> None:
    with Paho(address, version="5") as author, Paho(address, version="5") as reader:
        reader.subscribe(("paho/alias", 1))
        for topic in ("paho/alias", "", ""):
            author.publish(topic, b"x", 1, TopicAlias=3)
            assert reader.message()[:3] == ("paho/alias", b"x", 1)
