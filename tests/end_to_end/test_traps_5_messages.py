"""What brokers of MQTT 5.0 get wrong, as a client sees it: messages, their properties, aliases and expiry.

The numbers are those of one list for all four files test_traps_5_*.py, so that a report can name them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.broker_process import StartBroker
from tests.raw_client import Address
from tests.raw_client_5 import (
    AS_PUBLISHED,
    CONNACK,
    DISCONNECT,
    NEVER,
    NOT_AT_ALL,
    ONLY_IF_NEW,
    PUBACK,
    PUBCOMP,
    PUBLISH,
    PUBREC,
    PUBREL,
    Came,
    Client5,
    P,
    Properties,
    Will5,
    ack,
    connect,
    disconnect,
    publish,
    subscribe,
)

STAYS: Properties = {P.SESSION_EXPIRY: 100}

MALFORMED, PROTOCOL_ERROR, NO_SUBSCRIBERS, TOPIC_INVALID, ALIAS_INVALID = 0x81, 0x82, 0x10, 0x90, 0x94


class Topics:
    """Topic Names of what comes over one connection, by its aliases."""

    def __init__(self, maximum: int) -> None:
        self._maximum = maximum
        self._known: dict[int, str] = {}
        self.used = 0  #: by how many messages

    def of(self, came: Came) -> str:
        alias = came.properties.get(P.ALIAS)
        if alias is None:
            assert came.topic, f"neither topic nor alias: {came}"
            return came.topic
        assert 0 < alias <= self._maximum, came
        self.used += not came.topic
        if came.topic:
            self._known[alias] = came.topic
        assert alias in self._known, f"this connection has not heard of the alias: {came}"
        return self._known[alias]


def reader(address: Address, topic_filter: str, options: int = 2) -> Client5:
    client = Client5.open(address)
    client.ask((topic_filter, options))
    return client


# --- topic aliases ---


def test_01_the_map_of_aliases_ends_with_the_connection(address: Address) -> None:
    # [MQTT5-3.3.2-7]
    with reader(address, "t01") as other, Client5.open(address, "t01", STAYS) as old:
        assert old.connack.properties.get(P.ALIAS_MAXIMUM, 0) > 0
        old.give("t01", b"by name", 1, {P.ALIAS: 1})
        old.give("", b"by alias", 1, {P.ALIAS: 1})
        assert [other.take()[6:8] for _ in range(2)] == [("t01", b"by name"), ("t01", b"by alias")]
        with Client5.open(address, "t01", STAYS, clean=False, present=True) as new:
            new.send(publish("", b"stale", 1, {P.ALIAS: 1}))
            assert new.told()[:2] == (DISCONNECT, PROTOCOL_ERROR)
        other.ping()


def test_01_the_brokers_own_map_ends_with_the_connection_too(address: Address) -> None:
    # [MQTT5-3.3.2-7]
    properties = {P.SESSION_EXPIRY: 100, P.ALIAS_MAXIMUM: 5}
    with Client5.open(address) as author:
        for present in (False, True):
            topics = Topics(5)
            with Client5.open(address, "t01 reader", properties, clean=False, present=present) as client:
                client.ask(("t01/+", 1))
                for number in range(40):
                    author.give(f"t01/{number % 3}")
                    assert topics.of(client.take()) == f"t01/{number % 3}"
                client.close()
            assert topics.used, "an alias saves nothing if it is never used"


@pytest.mark.parametrize("maximum", [0, 2])
def test_02_no_alias_of_a_publisher_reaches_a_subscriber(maximum: int, address: Address) -> None:
    # [MQTT5-3.1.2-26] [MQTT5-3.1.2-27] [MQTT5-3.3.2-11]
    topics = Topics(maximum)
    properties: Properties = {P.ALIAS_MAXIMUM: maximum} if maximum else b""
    with Client5.open(address, "", properties) as client, Client5.open(address) as author:
        client.ask((f"t02/{maximum}/+", 1))
        for _ in range(3):
            for alias in range(1, min(10, author.connack.properties[P.ALIAS_MAXIMUM])):
                author.give(f"t02/{maximum}/{alias}", b"x", 1, {P.ALIAS: alias})
                came = client.take()
                assert topics.of(came) == f"t02/{maximum}/{alias}"
                assert maximum or P.ALIAS not in came.properties


def test_02_an_alias_in_a_will_is_an_error(address: Address) -> None:
    with Client5(address) as client:
        client.send(connect("t02", will=Will5("t02/will", properties={P.ALIAS: 1})))
        came = client.told()
        assert came.type == CONNACK
        assert came.reason in (MALFORMED, PROTOCOL_ERROR)


@pytest.mark.parametrize(
    ("topic", "above", "reason"),
    [("t03", None, ALIAS_INVALID), ("t03", 1, ALIAS_INVALID), ("", 0, PROTOCOL_ERROR)],
    ids=["0", "above the maximum", "unknown"],
)
def test_03_aliases_that_are_errors(topic: str, above: int | None, reason: int, address: Address) -> None:
    # [MQTT5-3.3.2-8]
    with Client5.open(address) as client:
        maximum = client.connack.properties[P.ALIAS_MAXIMUM]
        client.send(publish(topic, b"x", 1, {P.ALIAS: 0 if above is None else maximum + above}))
        assert client.told()[:2] == (DISCONNECT, reason)


def test_03_the_highest_alias_is_none(address: Address) -> None:
    # [MQTT5-3.3.2-12]
    with reader(address, "t03/+") as other, Client5.open(address) as client:
        highest = client.connack.properties[P.ALIAS_MAXIMUM]
        for topic, name in (("t03/a", "t03/a"), ("", "t03/a"), ("t03/b", "t03/b"), ("", "t03/b")):
            client.give(topic, b"x", 1, {P.ALIAS: highest})
            assert other.take().topic == name


def test_04_what_is_sent_again_carries_its_topic(address: Address) -> None:
    # [MQTT5-4.4.0-1]
    properties = {P.SESSION_EXPIRY: 100, P.ALIAS_MAXIMUM: 5, P.RECEIVE_MAXIMUM: 2}
    with Client5.open(address) as author:
        with Client5.open(address, "t04/worth an alias", properties) as client:
            client.ask(("t04/worth an alias", 1))
            topics = Topics(5)
            for number in range(20):
                author.give("t04/worth an alias", b"settled %d" % number)
                assert topics.of(client.take()) == "t04/worth an alias"
            assert topics.used
            for number in range(4):
                author.give("t04/worth an alias", b"%d" % number)
            assert [topics.of(client.get()) for _ in range(2)] == ["t04/worth an alias"] * 2
        topics = Topics(5)
        with Client5.open(address, "t04/worth an alias", properties, clean=False, present=True) as client:
            for number in range(4):
                came = client.take()
                assert (topics.of(came), came.payload, came.dup) == ("t04/worth an alias", b"%d" % number, number < 2)


def test_04_an_alias_of_a_packet_that_was_not_sent_is_not_set(address: Address) -> None:
    properties = {P.ALIAS_MAXIMUM: 5, P.MAXIMUM_PACKET_SIZE: 100}
    with Client5.open(address, "", properties) as client, Client5.open(address) as author:
        client.ask(("t04/+", 1))
        topics = Topics(5)
        for number in range(30):
            author.give(f"t04/{number % 3}", b"x" * 200)  # too large for the client
            author.give(f"t04/{number % 3}", b"y")
            assert topics.of(client.take()) == f"t04/{number % 3}"


def test_04_a_message_that_waits_does_not_set_an_alias_for_one_that_overtakes_it(address: Address) -> None:
    properties = {P.ALIAS_MAXIMUM: 5, P.RECEIVE_MAXIMUM: 1}
    with Client5.open(address, "", properties) as client, Client5.open(address) as author:
        client.ask(("t04/over/+", 1))
        topics = Topics(5)
        for qos in (1, 1, 0, 0):
            author.give(f"t04/over/{qos}", b"x", qos)
        author.give("t04/over/last", b"x", 1)
        came = [topics.of(client.take()) for _ in range(5)]
        assert sorted(came) == [f"t04/over/{last}" for last in ("0", "0", "1", "1", "last")]


# --- expiry of messages ---


def test_14_an_expiry_that_has_not_waited_is_as_it_was(address: Address) -> None:
    with reader(address, "t14/+") as client, Client5.open(address) as author:
        for qos in (0, 1, 2):
            author.give("t14/live", b"x", qos, {P.MESSAGE_EXPIRY: 100})
            assert client.take().properties[P.MESSAGE_EXPIRY] in (99, 100)
            author.give("t14/without", b"x", qos)
            assert P.MESSAGE_EXPIRY not in client.take().properties


def test_14_expiry_is_forwarded_less_the_time_waited(start_broker: StartBroker, tmp_path: Path) -> None:
    # [MQTT5-3.3.2-6]
    broker = start_broker(data=tmp_path / "data")
    with Client5.open(broker.address, "t14", STAYS) as client:
        client.ask(("t14/queued", 2))
        client.disconnect()
    with Client5.open(broker.address) as author:
        author.give("t14/queued", b"x", 1, {P.MESSAGE_EXPIRY: 100})
        author.give("t14/retained", b"x", 1, {P.MESSAGE_EXPIRY: 100}, retain=True)
        author.give("t14/short", b"x", 1, {P.MESSAGE_EXPIRY: 2}, retain=True)
    since = time.monotonic()
    time.sleep(1.2)
    with Client5.open(broker.address, "t14", STAYS, clean=False, present=True) as client:
        client.send(subscribe(("t14/retained", 1)))
        came = [client.came() for _ in range(3)]
        left = {each.topic: each.properties[P.MESSAGE_EXPIRY] for each in came if each.type == PUBLISH}
        assert left.keys() == {"t14/queued", "t14/retained"}
        waited = time.monotonic() - since
        assert all(100 - waited - 1 <= seconds <= 99 for seconds in left.values()), (left, waited)
    # It goes on while the broker is down.
    broker.stop()
    time.sleep(1.0)
    broker.start()
    with reader(broker.address, "t14/+") as client:
        again = client.take()
        assert again.topic == "t14/retained"
        assert 100 - (time.monotonic() - since) - 1 <= again.properties[P.MESSAGE_EXPIRY] <= 98
        client.ping()


def test_15_what_has_expired_is_not_delivered(address: Address) -> None:
    # [MQTT5-3.3.2-5]
    with Client5.open(address) as author:
        with Client5.open(address, "t15", STAYS) as client:
            client.ask(("t15/#", 2))
            client.disconnect()
        slow = Client5.open(address, "t15 slow", {P.RECEIVE_MAXIMUM: 1})
        slow.ask(("t15/#", 1))
        for retain in (False, True):
            author.give(f"t15/{retain}", b"lost", 1, {P.MESSAGE_EXPIRY: 1}, retain=retain)
            author.give(f"t15/{retain}", b"lost", 2, {P.MESSAGE_EXPIRY: 1}, retain=retain)
        author.give("t15/last", b"kept", 1)
        first = slow.get()  # it has been sent: it may be acknowledged late
        time.sleep(2.2)
        with Client5.open(address, "t15", STAYS, clean=False, present=True) as client:
            assert client.take().payload == b"kept"
            client.ping()
        slow.send(ack(PUBACK, first.packet_id))
        assert slow.take().payload == b"kept"
        with reader(address, "t15/#") as late:
            late.ping()
        slow.close()


def test_15_retained_messages_that_have_expired_are_swept(start_broker: StartBroker) -> None:
    broker = start_broker("sys_interval = 1\n")
    with Client5.open(broker.address) as author, reader(broker.address, "$SYS/broker/retained messages/count") as watch:

        def count_is(wanted: Callable[[int], bool]) -> int:
            while not wanted(found := int(watch.take().payload)):
                pass
            return found

        for number in range(50):
            author.give(f"t15/{number}", b"x", 1, {P.MESSAGE_EXPIRY: 3}, retain=True)
        most = count_is(lambda count: count >= 50)  # the broker's own are among them
        count_is(lambda count: count <= most - 50)


def test_16_expiry_does_not_end_a_delivery_that_has_begun(address: Address) -> None:
    # [MQTT5-4.3.3-7] [MQTT5-4.3.3-13]
    with Client5.open(address) as author:
        with Client5.open(address, "t16", STAYS) as client:
            client.ask(("t16", 2))
            for _ in range(2):
                author.give("t16", b"x", 2, {P.MESSAGE_EXPIRY: 1})
            sent, received = client.get(), client.get()
            client.send(ack(PUBREC, received.packet_id))
            assert client.want(PUBREL).packet_id == received.packet_id
        time.sleep(2.2)
        with Client5.open(address, "t16", STAYS, clean=False, present=True) as client:
            for _ in range(2):
                came = client.came()
                if came.type == PUBREL:
                    assert came.packet_id == received.packet_id
                    client.send(ack(PUBCOMP, came.packet_id))
                else:
                    assert (came.type, came.packet_id, came.dup) == (PUBLISH, sent.packet_id, True)
                    client.send(ack(PUBREC, came.packet_id))
            assert client.want(PUBREL).packet_id == sent.packet_id
            client.send(ack(PUBCOMP, sent.packet_id))
            client.ping()


def test_16_expiry_does_not_end_an_exchange_of_the_publishers(address: Address) -> None:
    # [MQTT5-4.3.3-13]
    with Client5.open(address) as author:
        author.send(publish("t16/in", b"x", 2, {P.MESSAGE_EXPIRY: 1}, packet_id=7))
        assert author.came()[:3] in ((PUBREC, 0, 7), (PUBREC, NO_SUBSCRIBERS, 7))
        time.sleep(1.5)
        author.send(ack(PUBREL, 7))
        assert author.want(PUBCOMP).packet_id == 7


# --- Subscription Identifiers ---


def test_17_one_copy_lists_all_identifiers_of_its_receiver(address: Address) -> None:
    # [MQTT5-3.3.4-4]
    with reader(address, "t17/#") as none, Client5.open(address) as client, Client5.open(address) as other:
        other.ask(("t17/#", 2), properties={P.SUBSCRIPTION_ID: 9})
        client.ask(("t17/a", 0), properties={P.SUBSCRIPTION_ID: 300})
        client.ask(("t17/+", 2), properties={P.SUBSCRIPTION_ID: 2})
        client.ask(("t17/#", 1))
        with Client5.open(address) as author:
            for qos in (0, 1, 2):
                author.give("t17/a", b"x", qos)
                came = client.take()
                assert (came.qos, sorted(came.properties[P.SUBSCRIPTION_ID])) == (qos, [2, 300])
                assert other.take().properties == {P.SUBSCRIPTION_ID: [9]}
                assert none.take().properties == {}
        client.ping()


def test_18_identifiers_of_what_is_retained_shared_or_has_waited(start_broker: StartBroker, tmp_path: Path) -> None:
    # [MQTT5-3.3.4-3]
    broker = start_broker(data=tmp_path / "data")
    with Client5.open(broker.address) as author:
        author.give("t18/retained", b"x", 1, retain=True)
        with Client5.open(broker.address, "t18", STAYS) as client:
            client.ask(("t18/retained", 1), properties={P.SUBSCRIPTION_ID: 1})
            assert client.take().properties == {P.SUBSCRIPTION_ID: [1]}
            client.ask(("$share/g/t18/shared", 1), properties={P.SUBSCRIPTION_ID: 128})
            author.give("t18/shared")
            assert client.take().properties == {P.SUBSCRIPTION_ID: [128]}
            client.ask(("t18/waiting", 1), properties={P.SUBSCRIPTION_ID: 268_435_455})
            client.disconnect()
        author.give("t18/waiting", b"x", 1, {P.CONTENT_TYPE: "a"})
        for again in range(2):
            with Client5.open(broker.address, "t18", STAYS, clean=False, present=True) as client:
                came = client.get()
                assert came.properties == {P.SUBSCRIPTION_ID: [268_435_455], P.CONTENT_TYPE: "a"}
                if again:
                    client.send(ack(PUBACK, came.packet_id))
                    client.ping()
            if not again:
                broker.restart()


def test_18_subscribing_again_replaces_or_removes_the_identifier(address: Address) -> None:
    with Client5.open(address) as client:
        for properties in ({P.SUBSCRIPTION_ID: 5}, {P.SUBSCRIPTION_ID: 6}, {}, {P.SUBSCRIPTION_ID: 7}):
            client.ask(("t18/again", 0), properties=properties)
            client.send(publish("t18/again"))
            wanted = {name: [value] for name, value in properties.items()}
            assert client.get().properties == wanted


def test_18_an_identifier_of_0_is_an_error(address: Address) -> None:
    with Client5.open(address) as client:
        client.send(subscribe(("t18", 0), properties=b"\x0b\0"))
        assert client.told()[:2] == (DISCONNECT, PROTOCOL_ERROR)


def test_19_a_publish_of_a_client_has_no_identifier(address: Address) -> None:
    # [MQTT5-3.3.4-6]
    with reader(address, "t19") as other, Client5.open(address) as client:
        client.send(publish("t19", b"x", 0, {P.SUBSCRIPTION_ID: [1]}))
        assert client.told()[:2] == (DISCONNECT, PROTOCOL_ERROR)
        other.ping()


# --- who there is ---


@pytest.mark.parametrize("qos", [1, 2])
def test_29_nobody_is_there_only_if_nobody_is_there(qos: int, address: Address) -> None:
    with Client5.open(address) as author:
        assert author.give(f"t29/{qos}/nobody", b"x", qos) == NO_SUBSCRIBERS
        with Client5.open(address, f"t29/{qos}", STAYS) as client:
            client.ask((f"t29/{qos}/absent", 1))
            client.ask((f"$share/t29/t29/{qos}/shared", 1))
            client.disconnect()
        assert author.give(f"t29/{qos}/absent", b"x", qos) == 0
        assert author.give(f"t29/{qos}/shared", b"x", qos) == 0
        assert author.give(f"t29/{qos}/retained", b"x", qos, retain=True) in (0, NO_SUBSCRIBERS)
        assert author.give("t29/end", b"x", qos) == NO_SUBSCRIBERS
        Client5.open(address, f"t29/{qos}").close()
        assert author.give(f"t29/{qos}/absent", b"x", qos) == NO_SUBSCRIBERS


# --- properties on their way ---


def test_properties_arrive_as_they_were(address: Address) -> None:
    # [MQTT5-3.3.2-4] [MQTT5-3.3.2-15] [MQTT5-3.3.2-16] [MQTT5-3.3.2-17] [MQTT5-3.3.2-18] [MQTT5-3.3.2-20]
    properties = {
        P.PAYLOAD_FORMAT: 1,
        P.CONTENT_TYPE: "text/ü",
        P.RESPONSE_TOPIC: "answers/here",
        P.CORRELATION_DATA: b"\0\xff binary",
        P.USER: [("b", "1"), ("a", "2"), ("b", "1"), ("", "")],
    }
    with reader(address, "properties") as client, Client5.open(address) as author:
        for qos in (0, 1, 2):
            author.give("properties", "grün".encode(), qos, properties)
            came = client.take()
            assert (came.payload, came.properties) == ("grün".encode(), properties)


@pytest.mark.parametrize("topic", ["t33/+", "t33/#", "#"])
def test_33_a_response_topic_has_no_wildcard(topic: str, address: Address) -> None:
    # [MQTT5-3.3.2-14]
    errors = (MALFORMED, PROTOCOL_ERROR, TOPIC_INVALID)
    with Client5.open(address) as client:
        client.send(publish("t33", b"x", 1, {P.RESPONSE_TOPIC: topic}))
        came = client.told()
        assert came.type == DISCONNECT
        assert came.reason in errors
    with Client5(address) as client:
        client.send(connect("t33", will=Will5("t33", properties={P.RESPONSE_TOPIC: topic})))
        came = client.told()
        assert came.type == CONNACK
        assert came.reason in errors


# --- retained messages ---


def test_36_when_retained_messages_are_sent(address: Address) -> None:
    # [MQTT5-3.3.1-9] [MQTT5-3.3.1-10] [MQTT5-3.3.1-11]
    with Client5.open(address) as author:
        author.give("t36/a", b"kept", 1, retain=True)
    with Client5.open(address, "t36", STAYS) as client:
        for handling, comes in (
            (NOT_AT_ALL, False), (0, True), (0, True), (ONLY_IF_NEW, False), (NOT_AT_ALL, False), (0, True),
        ):  # fmt: skip
            client.ask(("t36/a", 1 | handling))
            if comes:
                came = client.take()
                assert (came.payload, came.retain) == (b"kept", True)
            client.ping()
        client.ask(("t36/+", 1 | ONLY_IF_NEW))
        assert client.take().payload == b"kept"
        client.ping()
        client.disconnect()
    with Client5.open(address, "t36", STAYS, clean=False, present=True) as client:
        client.ping()  # a session that goes on is not owed it again
        client.ask(("t36/a", 1 | ONLY_IF_NEW))
        client.ping()


def test_37_what_is_retained_says_so_at_subscribe_and_live_where_asked_for(address: Address) -> None:
    # [MQTT5-3.3.1-12] [MQTT5-3.3.1-13]
    with Client5.open(address) as author:
        for options in (0, AS_PUBLISHED):
            author.give("t37", b"kept", 1, retain=True)
            with Client5.open(address) as client:
                client.ask(("t37", 1 | options))
                assert client.take().retain
                for retain in (True, False):
                    author.give("t37", b"live", 1, retain=retain)
                    assert client.take().retain == (retain and bool(options))


def test_a_session_that_never_ends_is_one(address: Address) -> None:
    with Client5.open(address, "never", {P.SESSION_EXPIRY: NEVER}) as client:
        client.send(disconnect())
    Client5.open(address, "never", clean=False, present=True).close()
