"""Sessions, subscriptions, delivery, retained messages and wills, as clients see them."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.core.authors import AUTHOR
from broker.core.exchange import Exchange
from broker.core.feeding import FEED_SIZE, FEED_SLICE
from broker.core.limits import Limits
from broker.core.router import Router, weight
from broker.storage.sqlite import SqliteStore
from broker.wire.codes import ReturnCode
from tests.core.harness import Client, FakeTransport, Forbidden, Sent, World, brackets, published
from tests.vectors import PINGREQ, connect, number, packet, publish, subscribe, unsubscribe


@pytest.fixture
def world() -> World:
    return World()


def listener(world: World, *filters: str, qos: int = 2) -> Client:
    """A clean client that hears of these."""
    client = world.join("listener")
    client.subscribe(*((name, qos) for name in filters or ("#",))).take()
    return client


# --- sessions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", ["nothing", "clean", "persistent, away", "persistent, connected"])
@pytest.mark.parametrize("clean", [True, False], ids=["now clean", "now persistent"])
def test_clean_session_decides_what_becomes_of_the_session(world: World, before: str, clean: bool) -> None:
    """[MQTT-3.1.2-4] [MQTT-3.1.2-6] [MQTT-3.2.2-1] [MQTT-3.2.2-2] [MQTT-3.2.2-3]"""
    publisher = world.join("pub")
    if before != "nothing":
        old = world.join("c", clean=before == "clean")
        old.subscribe(("t", 1)).take()
        if before == "persistent, away":
            old.disconnect()
        publisher.publish("t", "earlier", 1, 1).take()
        old.take()
    resumed = before.startswith("persistent") and not clean
    client = world.join("c", clean=clean, expect=("CONNACK", int(resumed), 0))
    earlier = published("t", "earlier", 1, 1, "dup" if before.endswith("connected") else "")
    assert client.take() == ([earlier] if resumed else [])
    publisher.publish("t", "later", 1, 1)
    assert [one[2] for one in client.take()] == (["later"] if resumed else [])
    client.disconnect()
    assert ("c" in world.exchange.sessions) is not clean
    stored = [one.record.client_id for one in world.store.load().sessions]
    assert stored == ([] if clean else ["c"])
    brackets(world)


def test_a_clean_session_ends_with_its_connection(world: World) -> None:
    client = world.join("c")
    client.subscribe(("a", 0), ("b/#", 1), ("+", 2))
    assert world.exchange.router.count == 3
    client.drop()
    assert (world.exchange.router.count, world.exchange.sessions, world.exchange.sessions.connected) == (0, {}, 0)
    brackets(world)


def test_a_session_does_not_end_before_its_connection(world: World) -> None:
    """[MQTT-4.1.0-2]"""
    world.limits.session_expiry = 10.0
    world.exchange.limits_changed()
    world.join("c", clean=False)
    world.advance(1_000.0)
    assert list(world.exchange.sessions) == ["c"]


def test_mqtt_3_1_has_no_session_present_flag(world: World) -> None:
    world.join("c", clean=False).disconnect()
    world.join("c", clean=False, version=3, expect=("CONNACK", 0, 0))


def test_clients_without_an_identifier_get_one_each(world: World) -> None:
    """[MQTT-3.1.3-6]"""
    first, second = world.join(""), world.join("")
    assert not first.closed
    names = {first.connection.client_id, second.connection.client_id}
    assert (len(names), names == set(world.exchange.sessions)) == (2, True)


def test_an_identifier_that_the_broker_gives_is_nobody_else_s(world: World) -> None:
    one = world.join("")
    name = one.connection.client_id
    assert name is not None
    one.disconnect()
    expected = name[:-1] + str(int(name[-1]) + 1)  # the one that is next in line
    world.join(expected, clean=False)
    assert world.join("").connection.client_id not in (expected, name)


def test_client_identifiers_are_compared_as_they_are(world: World) -> None:
    """[MQTT-3.1.3-2] [MQTT-4.7.3-4]"""
    clients = [world.join(name) for name in ("caf\u00e9", "cafe\u0301", "CAF\u00c9", " caf\u00e9")]
    assert [client.closed for client in clients] == [False] * 4


# --- takeover ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("old_clean", [True, False])
@pytest.mark.parametrize("new_clean", [True, False])
def test_a_second_connection_with_the_same_identifier_takes_over(
    world: World, old_clean: bool, new_clean: bool
) -> None:
    """[MQTT-3.1.4-2]"""
    old = world.join("c", clean=old_clean)
    new = world.join("c", clean=new_clean)
    assert (old.closed, new.closed, world.exchange.sessions.connected) == (True, False, 1)
    assert world.session("c").connection is new.connection
    old.drop()  # and its end is no news any more
    assert world.session("c").connection is new.connection
    new.ping()
    assert new.take() == [("PINGRESP",)]
    brackets(world)


def test_what_was_on_its_way_to_the_first_connection_is_sent_to_the_second(world: World) -> None:
    old = world.join("c", clean=False)
    old.subscribe(("t", 1)).take()
    world.join("pub").publish("t", "m", 1, 1)
    new = world.join("c", clean=False, expect=("CONNACK", 1, 0))
    assert new.take() == [published("t", "m", 1, 1, "dup")]


def test_a_third_takes_over_before_the_second_was_accepted(world: World) -> None:
    first = world.join("c", clean=False)
    world.lane.held = True
    second = world.dial().connect("c", clean=False)
    third = world.dial().connect("c", clean=False)
    world.lane.held = False
    world.settle()
    assert [client.closed for client in (first, second, third)] == [True, True, False]
    assert (second.take(), third.take()) == ([], [("CONNACK", 1, 0)])
    assert (world.exchange.sessions.connected, world.session("c").connection) == (1, third.connection)
    brackets(world)


def test_a_clean_connection_takes_over_one_that_waits_for_the_store(world: World) -> None:
    world.lane.held = True
    first = world.dial().connect("c", clean=False)
    second = world.dial().connect("c", clean=True)
    world.lane.held = False
    world.settle()
    assert (first.closed, first.take(), second.take()) == (True, [], [("CONNACK", 0, 0)])
    assert [one.record.client_id for one in world.store.load().sessions] == []
    brackets(world)


def test_who_is_refused_takes_nothing_over(world: World) -> None:
    client = world.join("c", clean=False)
    client.subscribe(("t", 0)).take()
    world.gatekeeper.code = ReturnCode.BAD_USER_NAME_OR_PASSWORD
    intruder = world.dial().connect("c")
    assert (intruder.take(), intruder.closed, client.closed) == ([("CONNACK", 0, 4)], True, False)
    world.gatekeeper.code = ReturnCode.ACCEPTED
    world.join("pub").publish("t", "still there")
    assert client.payloads() == ["still there"]


# --- wills -------------------------------------------------------------------------------------------------------

WILL = ("will/c", "gone", 1, False)


def violate(client: Client) -> None:
    client.send(b"\x00\x00")


def fall_silent(client: Client) -> None:
    client.world.advance(1_000.0)


def be_taken_over(client: Client) -> None:
    client.world.join("c")


def break_off(client: Client) -> None:
    client.drop()


def shut_down(client: Client) -> None:
    client.world.exchange.wills.close_down(False)
    client.connection.close("the broker is shutting down")
    client.world.settle()


def be_half_a_disconnect(client: Client) -> None:
    client.send(b"\xe1\x00")  # [MQTT-3.14.1-1]


def send_too_much(client: Client) -> None:
    client.send(b"\x30\xff\xff\xff\x7f")


@pytest.mark.parametrize(
    "end", [violate, fall_silent, be_taken_over, break_off, shut_down, be_half_a_disconnect, send_too_much]
)
def test_a_will_is_published_once_at_every_end_but_disconnect(world: World, end: object) -> None:
    """[MQTT-3.1.2-8] [MQTT-3.1.2-10]"""
    other = listener(world, "will/#")
    client = world.join("c", keep_alive=10, will=WILL)
    assert callable(end)
    end(client)
    assert client.closed
    assert other.take() == [published("will/c", "gone", 1, 1)]
    client.drop()
    world.advance(1_000.0)
    assert other.take() == []
    brackets(world)


def test_a_will_is_forgotten_upon_disconnect(world: World) -> None:
    """[MQTT-3.14.4-3] [MQTT-3.1.2-10]; what stands behind the DISCONNECT is not looked at."""
    other = listener(world)
    client = world.join("c", will=WILL)
    client.send(b"\xe0\x00" + b"\x00\x00")
    assert (client.closed, other.take(), world.exchange.stats.protocol_errors) == (True, [], 0)


def test_without_a_will_nothing_is_published(world: World) -> None:
    """[MQTT-3.1.2-12]"""
    other = listener(world)
    world.join("c").drop()
    assert other.take() == []


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("retain", [False, True])
def test_a_will_is_a_message_with_its_own_qos_and_retain(world: World, qos: int, retain: bool) -> None:
    """[MQTT-3.1.2-16] [MQTT-3.1.2-17]"""
    other = listener(world)
    world.join("c", will=("w", "gone", qos, retain)).drop()
    assert other.take() == [published("w", "gone", qos, min(qos, 1))]
    late = world.join("late")
    late.subscribe(("w", 2))
    assert late.take()[1:] == ([published("w", "gone", qos, min(qos, 1), "retain")] if retain else [])


def test_an_empty_retained_will_erases(world: World) -> None:
    world.join("pub").publish("w", "old", retain=True)
    world.join("c", will=("w", "", 0, True)).drop()
    assert world.exchange.retained.count == 0


def test_a_will_reaches_the_session_whose_connection_it_was(world: World) -> None:
    client = world.join("c", clean=False, will=WILL)
    client.subscribe(("will/#", 1))
    client.drop()
    assert world.join("c", clean=False).take() == [published("will/c", "gone", 1, 1)]


def test_a_new_connection_has_no_will_but_its_own(world: World) -> None:
    other = listener(world)
    world.join("c", clean=False, will=WILL).disconnect()
    world.join("c", clean=False).drop()
    assert other.take() == []


def test_the_will_of_who_was_refused_is_not_published(world: World) -> None:
    other = listener(world)
    world.gatekeeper.code = ReturnCode.NOT_AUTHORIZED
    world.dial().connect("c", will=WILL)
    assert other.take() == []


@pytest.mark.parametrize("topic", ["will/+", "#", ""])
def test_a_will_that_could_not_be_published_is_refused_at_once(world: World, topic: str) -> None:
    client = world.dial().connect("c", will=(topic, "x", 0, False))
    assert (client.closed, client.take()) == (True, [])


def test_a_will_beyond_the_limits_of_topics_is_refused_at_once() -> None:
    world = World(limits=Limits(max_topic_levels=2))
    client = world.dial().connect("c", will=("a/b/c", "x", 0, False))
    assert (client.closed, client.take()) == (True, [])


def test_a_will_that_a_lowered_limit_forbids_ends_the_connection_as_any_other(world: World) -> None:
    other = listener(world)
    client = world.join("c", will=("a/b/c", "x", 0, False))
    world.limits.max_topic_levels = 2
    client.drop()
    assert (client.closed, world.exchange.sessions.connected, other.take()) == (True, 1, [])
    brackets(world)


@pytest.mark.parametrize("topic", ["secret", "$SYS/broker/version"])
def test_a_will_is_published_only_where_its_client_may_publish(world: World, topic: str) -> None:
    other = listener(world, "#", "$SYS/#")
    world.gatekeeper.granted["u"] = Forbidden(publish=[b"secret"])
    world.join("c", username="u", will=(topic, "x", 1, True)).drop()
    assert (other.take(), world.exchange.retained.count, world.exchange.stats.denied) == ([], 0, 1)
    assert world.log.fields("will refused: not authorised")[0]["topic"] == topic.encode()


def test_no_connack_says_that_a_session_is_gone_before_that_is_stored(world: World) -> None:
    """Not the second one either, whose client takes over before the first has its answer. [MQTT-3.1.2-6]"""
    world.join("c", clean=False).disconnect()
    world.lane.held = True
    first = world.dial().connect("c", clean=True)
    second = world.dial().connect("c", clean=True)
    world.settle()
    assert (first.take(), second.take()) == ([], [])
    world.lane.held = False
    world.settle()
    assert (first.take(), second.take()) == ([], [("CONNACK", 0, 0)])
    second.disconnect()
    assert world.dial().connect("c", clean=True).take() == [("CONNACK", 0, 0)]


def test_a_will_waits_for_nothing_and_is_stored(world: World) -> None:
    world.join("sub", clean=False).subscribe(("will/c", 1)).disconnect()
    world.join("c", will=WILL).drop()
    world = world.crash()
    assert [one[2] for one in world.join("sub", clean=False).take()] == ["gone"]


# --- delivery ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize("granted", [0, 1, 2])
@pytest.mark.parametrize("sent", [0, 1, 2])
def test_a_message_is_delivered_at_the_lower_qos(world: World, sent: int, granted: int, clean: bool) -> None:
    """[MQTT-3.8.4-6] [MQTT-4.5.0-1]"""
    client = world.join("sub", clean=clean)
    client.subscribe(("a/+", granted), packet_id=7)
    assert client.take() == [("SUBACK", 7, [granted])]
    publisher = world.join("pub")
    publisher.publish("a/b", "hello", sent, 9)
    qos = min(sent, granted)
    assert client.take() == [published("a/b", "hello", qos, min(qos, 1))]
    assert publisher.take() == [("PUBACK", 9), ("PUBREC", 9)][sent - 1 : sent]  # [MQTT-3.3.4-1]
    brackets(world)


def test_one_message_comes_once_with_the_highest_qos_that_matches(world: World) -> None:
    """[MQTT-3.3.5-1]"""
    client = world.join("sub")
    client.subscribe(("a/b", 0), ("a/+", 2), ("#", 1)).take()
    world.join("pub").publish("a/b", "x", 2, 1)
    assert client.take() == [published("a/b", "x", 2, 1)]


def test_a_message_goes_to_clients_of_every_kind_at_once(world: World) -> None:
    clients = {}
    for clean in (True, False):
        for qos in (0, 1, 2):
            clients[clean, qos] = world.join(f"{clean}{qos}", clean=clean)
            clients[clean, qos].subscribe(("t", qos)).take()
    for sent in (0, 1, 2):
        world.join("pub").publish("t", f"at {sent}", sent, 1)
        for (_, granted), client in clients.items():
            [one] = client.take()
            assert (one[2], one[3]) == (f"at {sent}", min(sent, granted))
    brackets(world)


def test_a_publisher_gets_its_own_message_if_it_subscribed(world: World) -> None:
    client = world.join("c")
    client.subscribe(("t", 0)).take()
    client.publish("t", "echo", 1, 5)
    assert client.take() == [published("t", "echo"), ("PUBACK", 5)]


def test_incoming_dup_and_retain_flags_are_not_passed_on(world: World) -> None:
    """[MQTT-3.3.1-3] [MQTT-3.3.1-9]"""
    client = world.join("sub")
    client.subscribe(("t", 2)).take()
    publisher = world.join("pub")
    publisher.publish("t", "1", 1, 1, dup=True, retain=True).publish("t", "2", 2, 2, dup=True)
    publisher.publish("t", "3", 0, retain=True)
    assert [one[5] for one in client.take()] == ["", "", ""]


def test_the_bytes_of_topic_and_payload_are_passed_on_as_they_are(world: World) -> None:
    """[MQTT-1.5.3-3] [MQTT-4.7.3-4]"""
    client = world.join("sub")
    client.subscribe(("#", 1)).take()
    publisher = world.join("pub")
    topic = "\ufeff a/é\u0301/😀//"
    for qos in (0, 1, 2):
        publisher.send(publish(topic.encode(), bytes(range(256)), qos=qos, packet_id=1))
    sent = bytes(client.transport.taken)
    assert sent.count(topic.encode()) == sent.count(bytes(range(256))) == 3


def test_a_remaining_length_longer_than_need_be_is_not_passed_on(world: World) -> None:
    client = world.join("sub")
    client.subscribe(("t", 1)).take()
    publisher = world.join("pub")
    publisher.send(b"\x30\x84\x80\x00\x00\x01tx" + b"\x32\x86\x00\x00\x01t\x00\x07y")
    assert bytes(client.transport.taken) == b"\x30\x04\x00\x01tx" + b"\x32\x06\x00\x01t\x00\x01y"


@pytest.mark.parametrize("topic", ["", "a/+", "#"])
def test_a_topic_that_nobody_may_publish_to_ends_the_connection(world: World, topic: str) -> None:
    """[MQTT-3.3.2-2] [MQTT-4.7.3-1] [MQTT-4.7.1-1]"""
    other = listener(world)
    client = world.join("pub")
    client.publish(topic, "x", 1, 1)
    assert (client.closed, client.take(), other.take()) == (True, [], [])


def test_what_the_limits_of_topics_forbid_ends_the_connection() -> None:
    world = World(limits=Limits(max_topic_levels=2, max_topic_length=5))
    for topic, closed in (("a/b", False), ("a/b/c", True), ("123456", True)):
        client = world.join("pub")
        client.publish(topic)
        assert client.closed is closed


def test_qos_0_for_who_is_away_is_not_kept(world: World) -> None:
    client = world.join("sub", clean=False)
    client.subscribe(("t", 2)).disconnect()
    publisher = world.join("pub")
    publisher.publish("t", "lost", 0)
    publisher.publish("t", "kept", 1, 1)
    assert world.join("sub", clean=False).payloads() == ["kept"]


def test_messages_are_counted() -> None:
    world = World()
    away = world.join("away", clean=False)
    away.subscribe(("t", 0), ("t/1", 1)).disconnect()
    client = world.join("sub")
    client.subscribe(("#", 1)).take()
    world.join("pub").publish("t", "x").publish("t/1", "y", 1, 1).ping()
    stats = world.exchange.stats
    # Received: three CONNECTs, two SUBSCRIBEs, a DISCONNECT, two PUBLISHes, a PINGREQ.
    assert (stats.messages_received, stats.other_received, stats.publish_sent) == (9, 7, 2)
    # Sent: three CONNACKs, two SUBACKs, a PUBACK, a PINGRESP.
    assert (stats.other_sent, stats.connections, stats.maximum, stats.dropped) == (7, 3, 2, 0)
    assert stats.bytes_received == sum(
        map(len, (connect(b"away", keep_alive=0), subscribe(1, (b"t", 0), (b"t/1", 1)), b"\xe0\x00",
                  connect(b"sub", keep_alive=0), subscribe(1, (b"#", 1)), connect(b"pub", keep_alive=0),
                  publish(b"t", b"x"), publish(b"t/1", b"y", qos=1, packet_id=1), PINGREQ))
    )  # fmt: skip


# --- QoS 2 comes in ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clean", [True, False])
def test_qos_2_is_delivered_once_until_it_is_released(world: World, clean: bool) -> None:
    """[MQTT-4.3.3-2]"""
    other = listener(world, "t")
    client = world.join("pub", clean=clean)
    client.publish("t", "a", 2, 5).publish("t", "a", 2, 5, dup=True)
    assert (client.take(), other.payloads()) == ([("PUBREC", 5), ("PUBREC", 5)], ["a"])
    client.pubrel(5)
    client.pubrel(5)
    assert client.take() == [("PUBCOMP", 5), ("PUBCOMP", 5)]
    client.publish("t", "b", 2, 5)  # the identifier is a new message's now
    assert other.payloads() == ["b"]
    brackets(world)


@pytest.mark.parametrize("how", ["drop", "disconnect", "crash"])
def test_qos_2_of_a_persistent_session_is_delivered_once_over_connections_and_crashes(how: str) -> None:
    world = World()
    world.join("sub", clean=False).subscribe(("t", 2)).disconnect()
    client = world.join("pub", clean=False)
    client.publish("t", "a", 2, 5).take()
    if how == "crash":
        world = world.crash()
    else:
        getattr(client, how)()
    client = world.join("pub", clean=False, expect=("CONNACK", 1, 0))
    client.publish("t", "a", 2, 5, dup=True)
    client.pubrel(5)
    assert client.take() == [("PUBREC", 5), ("PUBCOMP", 5)]
    client.publish("t", "b", 2, 5)
    assert world.join("sub", clean=False).payloads() == ["a", "b"]


def test_a_clean_session_forgets_which_identifiers_it_has_seen(world: World) -> None:
    """[MQTT-3.1.2-6]"""
    other = listener(world, "t")
    world.join("pub").publish("t", "a", 2, 5).drop()
    world.join("pub").publish("t", "b", 2, 5)
    assert other.payloads() == ["a", "b"]


def test_qos_1_is_delivered_as_often_as_it_comes(world: World) -> None:
    """[MQTT-4.3.2-2]"""
    other = listener(world, "t")
    client = world.join("pub")
    client.publish("t", "a", 1, 5).publish("t", "a", 1, 5, dup=True)
    assert (client.take(), other.payloads()) == ([("PUBACK", 5), ("PUBACK", 5)], ["a", "a"])


# --- subscriptions -----------------------------------------------------------------------------------------------


def test_several_filters_are_answered_together_in_their_order(world: World) -> None:
    """[MQTT-3.8.4-1] [MQTT-3.8.4-2] [MQTT-3.8.4-4] [MQTT-3.8.4-5] [MQTT-3.9.3-1]"""
    world.gatekeeper.granted["u"] = Forbidden(subscribe=[b"secret/#"])
    client = world.join("c", username="u")
    client.subscribe(("a", 2), ("secret/#", 1), ("b", 0), ("a", 1), packet_id=77)
    assert client.take() == [("SUBACK", 77, [2, 0x80, 0, 1])]
    assert world.session("c").subscriptions == {b"a": 1, b"b": 0}


def test_a_session_holds_so_many_subscriptions() -> None:
    world = World(limits=Limits(max_subscriptions=2))
    client = world.join("c", clean=False)
    client.subscribe(("a", 0), ("b", 1), ("c", 2), ("a", 2))
    assert client.take() == [("SUBACK", 1, [0, 1, 0x80, 2])]
    client.unsubscribe("a").subscribe(("c", 1))
    assert client.take() == [("UNSUBACK", 1), ("SUBACK", 1, [1])]
    assert [one.subscriptions for one in world.store.load().sessions] == [{b"b": 1, b"c": 1}]
    assert world.log.events("warning") == ["subscription refused: the session has as many as it may"]


def test_deep_filters_count_by_what_they_take() -> None:
    """A level of two bytes takes a hundred times that in the tree, and as many steps for each message."""
    world = World(limits=Limits(max_subscriptions=100))
    client = world.join("c")
    tail = "+/" * 190 + "+"

    def held() -> int:
        wanted = [(f"{n}/{tail}", 0) for n in range(100)]
        [[_, _, codes]] = client.subscribe(*wanted).take()
        return [code == 0 for code in codes].index(False)

    deep = held()
    assert 10 < deep == held() < 20  # the same ones again change nothing
    assert client.subscribe(("another", 0), ("deep/" + tail, 0)).take() == [("SUBACK", 1, [0, 0x80])]
    client.unsubscribe(*(f"{n}/{tail}" for n in range(deep))).take()
    assert weight(b"another") == world.session("c").subscribed == world.exchange.memory.subscriptions.size
    assert held() == deep
    # What everybody has is far from it: a hundred filters of ten levels.
    other = world.join("other").subscribe(*((f"{n}/+/c/d/e/f/g/h/i/#", 0) for n in range(100)))
    assert other.take() == [("SUBACK", 1, [0] * 100)]


def test_a_filter_beyond_the_limits_is_refused_and_the_connection_stays() -> None:
    world = World(limits=Limits(max_topic_levels=3, max_topic_length=10))
    client = world.join("c")
    client.subscribe(("a/b/c", 0), ("a/b/c/#", 0), ("x" * 11, 0))
    assert (client.take(), client.closed) == ([("SUBACK", 1, [0, 0x80, 0x80])], False)


def test_a_refusal_is_logged_once_for_each_client(world: World) -> None:
    world.gatekeeper.granted["u"] = Forbidden(subscribe=[b"a"], publish=[b"a"])
    for name in ("one", "two"):
        client = world.join(name, username="u")
        for _ in range(3):
            client.subscribe(("a", 0)).publish("a", "x")
    refusals = [line for line in world.log.lines if "not authorised" in line[1]]
    assert refusals == [
        ("info", f"{what} refused: not authorised", {"client": name, "user": "u", "topic": b"a"})
        for name in ("one", "two")
        for what in ("subscription", "publish")
    ]
    assert world.exchange.stats.denied == 12


def test_another_topic_that_is_refused_is_told_too(world: World) -> None:
    world.gatekeeper.granted["u"] = Forbidden(publish=[b"a", b"b"])
    world.join("c", username="u").publish("a", "x").publish("b", "x").publish("a", "x")
    assert [fields["topic"] for fields in world.log.fields("publish refused: not authorised")] == [b"a", b"b"]


def test_unsubscribing_is_answered_whether_anything_was_removed_or_not(world: World) -> None:
    """[MQTT-3.10.4-4] [MQTT-3.10.4-5] [MQTT-3.10.4-6] [MQTT-3.10.4-1]"""
    client = world.join("c")
    client.subscribe(("a/+", 0), ("b", 0)).take()
    client.unsubscribe("a/b", "#", packet_id=2).unsubscribe("a/+", "never", packet_id=3)
    assert client.take() == [("UNSUBACK", 2), ("UNSUBACK", 3)]
    assert world.session("c").subscriptions == {b"b": 0}


@pytest.mark.parametrize("clean", [True, False])
def test_after_unsubscribing_nothing_new_comes_and_what_is_under_way_is_finished(clean: bool) -> None:
    """[MQTT-3.10.4-2] [MQTT-3.10.4-3]"""
    world = World(limits=Limits(max_inflight=1))
    client = world.join("c", clean=clean)
    client.subscribe(("t", 2)).take()
    publisher = world.join("pub")
    publisher.publish("t", "sent", 2, 1).publish("t", "queued", 1, 2)
    client.unsubscribe("t")
    publisher.publish("t", "new", 1, 3).publish("t", "new", 0)
    assert client.take() == [published("t", "sent", 2, 1), ("UNSUBACK", 1)]
    client.pubrec(1).pubcomp(1)
    assert client.take() == [("PUBREL", 1), published("t", "queued", 1, 2)]
    client.puback(2)
    assert client.take() == []
    brackets(world)


def test_a_subscription_may_be_given_a_higher_and_a_lower_qos(world: World) -> None:
    """[MQTT-3.8.4-3]"""
    client = world.join("c")
    publisher = world.join("pub")
    seen = []
    for qos in (0, 2, 1, 0):
        client.subscribe(("t", qos)).take()
        publisher.publish("t", "x", 2, 1).pubrel(1)
        seen += [one[3] for one in client.take()]
    assert (seen, world.exchange.router.count) == ([0, 2, 1, 0], 1)


# --- retained messages -------------------------------------------------------------------------------------------


def retained(client: Client) -> list[Sent]:
    """What came behind one SUBACK."""
    first, *rest = client.take()
    assert first[0] == "SUBACK"
    return rest


@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize("granted", [0, 1, 2])
@pytest.mark.parametrize("kept", [0, 1, 2])
def test_a_new_subscription_gets_the_retained_message(world: World, kept: int, granted: int, clean: bool) -> None:
    """[MQTT-3.3.1-5] [MQTT-3.3.1-6] [MQTT-3.3.1-8]; behind the SUBACK."""
    world.join("pub").publish("a/b", "kept", kept, 1, retain=True).publish("a/c", "not kept", kept, 2)
    client = world.join("sub", clean=clean)
    client.subscribe(("a/#", granted))
    qos = min(kept, granted)
    assert retained(client) == [published("a/b", "kept", qos, min(qos, 1), "retain")]
    client.subscribe(("a/#", granted))  # [MQTT-3.8.4-3]
    [one] = retained(client)
    assert (one[2], one[5]) == ("kept", "retain")
    brackets(world)


def test_the_newest_retained_message_stands_and_an_empty_one_erases_it(world: World) -> None:
    """[MQTT-3.3.1-7] [MQTT-3.3.1-10] [MQTT-3.3.1-11] [MQTT-3.3.1-12]"""
    publisher = world.join("pub")
    client = world.join("sub")
    for payload, flag, expected in (
        ("one", True, ["one"]),
        ("two", True, ["two"]),
        ("not kept", False, ["two"]),
        ("", False, ["two"]),
        ("", True, []),
        ("", True, []),
    ):
        publisher.publish("t", payload, retain=flag)
        client.subscribe(("t", 0))
        assert [one[2] for one in retained(client)] == expected
        client.unsubscribe("t").take()


def test_an_empty_retained_message_is_delivered_as_any_other(world: World) -> None:
    client = world.join("sub")
    client.subscribe(("t", 1)).take()
    world.join("pub").publish("t", "", 1, 1, retain=True)
    assert client.take() == [published("t", "", 1, 1)]


def test_retained_messages_outlive_the_session_that_published_them(world: World) -> None:
    """[MQTT-3.1.2-7]"""
    world.join("pub").publish("t", "kept", retain=True).disconnect()
    client = world.join("sub")
    client.subscribe(("t", 0))
    assert [one[2] for one in retained(client)] == ["kept"]


def test_each_filter_of_a_subscribe_gets_its_retained_messages(world: World) -> None:
    """[MQTT-3.8.4-4]: as if each had come alone, in their order."""
    publisher = world.join("pub")
    for topic in ("a/1", "a/2", "b/1"):
        publisher.publish(topic, topic, 1, 1, retain=True)
    client = world.join("sub")
    client.subscribe(("b/#", 1), ("a/+", 0), ("a/1", 1))
    assert [(one[2], one[3]) for one in retained(client)] == [("b/1", 1), ("a/1", 0), ("a/2", 0), ("a/1", 1)]


@pytest.mark.parametrize("version", [3, 4])
@pytest.mark.parametrize("clean", [False, True])
def test_shared_subscriptions_are_refused_where_they_are_not_available(version: int, clean: bool) -> None:
    """In MQTT 3.1.1 these filters are names like others, but nobody means them so."""
    world = World(limits=Limits(shared_available=False))
    client = world.join("c", version=version, clean=clean)
    client.subscribe(("$share/group/t", 1), ("t", 1), ("$queue/t", 2), ("$share/", 0), ("$share/group", 0))
    assert client.take() == [("SUBACK", 1, [0x80, 1, 0x80, 0x80, 0x80])]
    [fields] = world.log.fields("subscription refused: this broker allows no shared subscriptions (shared_available)")
    assert (fields["client"], fields["topic"]) == ("c", b"$share/group/t")
    assert world.session("c").subscriptions == {b"t": 1}
    client.unsubscribe("$share/group/t", packet_id=2)
    assert client.take() == [("UNSUBACK", 2)]
    brackets(world)


@pytest.mark.parametrize(
    "name", ["$share", "$shared/t", "$queue", "$queues/t", "$SHARE/g/t", "share/g/t", "/$share/g", "$"]
)
def test_what_only_looks_like_one_is_a_name_as_any_other(world: World, name: str) -> None:
    client = world.join("c")
    client.subscribe((name, 1)).take()
    client.publish(name, "x", 1, 1)
    assert client.take() == [published(name, "x", 1, 1), ("PUBACK", 1)]


def test_a_refused_filter_gets_no_retained_messages(world: World) -> None:
    world.join("pub").publish("a", "x", retain=True)
    world.gatekeeper.granted["u"] = Forbidden(subscribe=[b"#"])
    client = world.join("sub", username="u")
    client.subscribe(("#", 0))
    assert client.take() == [("SUBACK", 1, [0x80])]


def test_retained_messages_that_the_client_may_not_receive_are_left_out(world: World) -> None:
    publisher = world.join("pub")
    for topic in ("a", "secret", "z"):
        publisher.publish(topic, topic, retain=True)
    world.gatekeeper.granted["u"] = Forbidden(receive=[b"secret"])
    client = world.join("sub", username="u")
    client.subscribe(("#", 0))
    assert [one[2] for one in retained(client)] == ["a", "z"]


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("clean", [True, False])
def test_many_retained_messages_come_in_slices_and_all_of_them(clean: bool, qos: int) -> None:
    world = World(limits=Limits(max_inflight=10, max_memory_queue=50))
    count = FEED_SLICE * 3 + 10
    for n in range(count):
        world.join("pub").feed(publish(b"r/%d" % n, b"%d" % n, qos=qos, packet_id=1, retain=True))
    world.settle()
    client = world.join("sub", clean=clean)
    client.feed(subscribe(1, (b"r/#", 2)))
    most, turns = 0, 0
    came = []
    while True:
        world.turn()
        turns += 1
        if world.lane.jobs:
            world.lane.step()
        batch = [one for one in client.take() if one[0] != "SUBACK"]
        most = max(most, len(batch))
        came += [one[2] for one in batch if one[0] == "PUBLISH"]
        for one in batch:
            if one[0] == "PUBLISH" and qos:
                client.feed(packet(0x40 if qos == 1 else 0x50, number(one[4])))
            elif one[0] == "PUBREL":
                client.feed(packet(0x70, number(one[1])))
        if not batch and not world._soon and not world.lane.jobs:
            before = world.turns
            world.settle()
            if world.turns == before + 1 and not client.transport.taken:
                break
    assert sorted(map(int, came)) == list(range(count))
    # In the turn in which it subscribed, a client may get two.
    assert (most <= FEED_SLICE * 2, turns > 3) == (True, True)
    assert world.exchange.stats.dropped == 0
    brackets(world)


def test_a_slice_counts_what_is_left_out_too(world: World) -> None:
    """Else a client without rights could hold up all others."""
    publisher = world.join("pub")
    count = FEED_SLICE * 4
    for n in range(count):
        publisher.feed(publish(b"r/%d" % n, b"x", retain=True))
    world.settle()
    world.gatekeeper.granted["u"] = Forbidden(receive=[b"r/%d" % n for n in range(count)])
    client = world.join("sub", username="u")
    before = world.turns
    client.subscribe(("r/#", 0))
    assert (retained(client), world.turns - before >= 4) == ([], True)


def test_a_search_that_finds_nothing_leaves_others_their_turns(world: World) -> None:
    publisher = world.join("pub")
    for n in range(2_000):
        publisher.feed(publish(b"r/%d/x" % n, b"x", retain=True))
    world.settle()
    client = world.join("sub")
    before = world.turns
    client.subscribe(("r/+/y", 0), ("+/+/z", 0))
    assert (retained(client), world.turns - before > 10) == ([], True)


def test_who_subscribes_again_and_again_gets_no_more_in_a_turn(world: World) -> None:
    """Each SUBSCRIBE is a few bytes, and asks for all that is retained."""
    publisher = world.join("pub")
    for n in range(3):
        publisher.publish(f"t/{n}", "x" * (FEED_SIZE // 4), retain=True)
    client = world.join("c")
    client.feed(subscribe(7, (b"t/#", 0)) * 50)
    assert sum(map(len, client.transport.out)) < 2 * FEED_SIZE
    world.settle()
    came = client.take()
    assert [one for one in came if one[0] == "SUBACK"] == [("SUBACK", 7, [0])] * 50
    last = max(place for place, one in enumerate(came) if one[0] == "SUBACK")
    # After the last SUBACK, it has got all of them once more [MQTT-3.8.4-3].
    assert sorted(one[1] for one in came[last + 1 :]) == ["t/0", "t/1", "t/2"]
    assert len(came) < 60


def test_several_clients_at_once_get_one_slice_each_in_a_turn(world: World) -> None:
    publisher = world.join("pub")
    for n in range(FEED_SLICE * 4):
        publisher.publish(f"t/{n}", "x", retain=True)
    clients = [world.join(f"c{n}") for n in range(4)]
    for client in clients:
        client.feed(subscribe(1, (b"t/#", 0)))
    world.turn()
    for _ in range(2):
        before = [len(client.transport.taken) for client in clients]
        world.turn()
        sizes = [len(client.transport.taken) - old for client, old in zip(clients, before, strict=True)]
        assert all(0 < size <= FEED_SLICE * len(b"\x31\x08\0\x06t/1000x") for size in sizes)
    world.settle()


def test_what_is_still_to_come_does_not_grow_by_asking_again(world: World) -> None:
    publisher = world.join("pub")
    for n in range(FEED_SLICE * 2):
        publisher.publish(f"t/{n}", "x", retain=True)
    client = world.join("c")
    for _ in range(100):
        client.feed(subscribe(1, (b"t/#", 0), (b"t/+", 0), (b"#", 0)))
    assert len(world.session("c").feeding or ()) == 3
    client.unsubscribe("t/+", "#")
    client.take()
    assert world.session("c").feeding is None


def test_others_are_served_between_the_slices(world: World) -> None:
    publisher = world.join("pub")
    for n in range(FEED_SLICE * 3):
        publisher.feed(publish(b"r/%d" % n, b"x", retain=True))
    world.settle()
    client, other = world.join("sub"), world.join("other")
    client.feed(subscribe(1, (b"r/#", 0)))
    world.turn()  # with the slice that was left for later in it
    first = len(retained(client))
    other.feed(PINGREQ)
    world.turn()
    assert (other.take(), FEED_SLICE <= first <= FEED_SLICE * 2) == ([("PINGRESP",)], True)
    world.settle()
    assert len(client.take()) == FEED_SLICE * 3 - first


def test_unsubscribing_ends_the_retained_messages_that_are_still_to_come(world: World) -> None:
    """[MQTT-3.10.4-2]"""
    publisher = world.join("pub")
    for n in range(FEED_SLICE * 4):
        publisher.feed(publish(b"r/%d" % n, b"x", retain=True))
    for n in range(FEED_SLICE * 2):
        publisher.feed(publish(b"s/%d" % n, b"x", retain=True))
    world.settle()
    client = world.join("sub")
    client.feed(subscribe(1, (b"r/#", 0)), subscribe(2, (b"s/#", 0)), unsubscribe(3, b"r/#"))
    world.settle()
    came = client.take()
    behind = came[came.index(("UNSUBACK", 3)) + 1 :]
    assert {one[1][0] for one in behind} == {"s"}
    assert len([one for one in came if one[0] == "PUBLISH" and one[1][0] == "s"]) == FEED_SLICE * 2


def test_a_client_that_does_not_read_gets_its_retained_messages_when_it_does(world: World) -> None:
    publisher = world.join("pub")
    for n in range(FEED_SLICE * 2):
        publisher.feed(publish(b"r/%d" % n, b"x", retain=True))
    world.settle()
    client = world.join("sub", clean=False)
    world.lane.held = True
    client.subscribe(("r/#", 0))
    client.get_stuck()
    world.lane.held = False
    world.settle()
    client.get_going()
    assert len(retained(client)) == FEED_SLICE * 2
    assert world.exchange.stats.dropped == 0


def test_a_client_that_leaves_in_the_middle_of_its_retained_messages_does_no_harm(world: World) -> None:
    publisher = world.join("pub")
    for n in range(FEED_SLICE * 3):
        publisher.feed(publish(b"r/%d" % n, b"x", retain=True))
    world.settle()
    client = world.join("sub")
    client.feed(subscribe(1, (b"r/#", 0)))
    world.turn()
    client.connection.lost("gone")
    world.settle()
    assert "sub" not in world.exchange.sessions
    brackets(world)


@pytest.mark.parametrize("stuck", [False, True])
def test_a_persistent_session_is_owed_its_retained_messages_though_it_left(world: World, stuck: bool) -> None:
    """[MQTT-3.3.1-6]: its subscription was acknowledged."""
    publisher = world.join("pub")
    count = FEED_SLICE * 3
    for n in range(count):
        publisher.feed(publish(b"r/%d" % n, b"%d" % n, qos=1, packet_id=1, retain=True))
    world.settle()
    client = world.join("sub", clean=False)
    client.feed(subscribe(1, (b"r/#", 1)))
    world.turn()
    if stuck:
        client.get_stuck()
        world.turn()
    while world.lane.jobs and not client.take():
        world.lane.step()
        world.turn()
    client.drop()
    client = world.join("sub", clean=False)
    came: list[Sent] = []
    while batch := client.take():
        came += batch
        client.puback(*(one[4] for one in batch))
    assert sorted({int(one[2]) for one in came}) == list(range(count))
    assert {one[5] for one in came} <= {"retain", "dup retain"}


def test_so_many_retained_messages_are_kept() -> None:
    world = World(limits=Limits(max_retained=2))
    client = listener(world)
    publisher = world.join("pub")
    for topic in ("a", "b", "c", "d"):
        publisher.publish(topic, topic, retain=True)
    assert client.payloads() == ["a", "b", "c", "d"]  # they are delivered all the same
    publisher.publish("b", "newer", retain=True)
    late = world.join("late")
    late.subscribe(("#", 0))
    assert [one[2] for one in retained(late)] == ["a", "newer"]
    assert world.exchange.stats.dropped == 2
    assert world.log.events("warning") == ["no room for more retained messages: this one is delivered, but not kept"]
    publisher.publish("a", "", retain=True).publish("c", "now", retain=True)
    later = world.join("later")
    later.subscribe(("#", 0))
    assert [one[2] for one in retained(later)] == ["newer", "now"]


def test_retained_messages_take_so_many_bytes_and_an_old_value_does_not_stand_in_for_one_too_large() -> None:
    author = AUTHOR + len("pub" + "127.0.0.1:1883")
    world = World(limits=Limits(max_retained_bytes=author + 20))
    publisher = world.join("pub")
    publisher.publish("a", "x" * 9, 1, 1, retain=True).publish("b", "x" * 5, 1, 2, retain=True)
    publisher.publish("b", "x" * 10, 1, 3, retain=True)
    assert (world.exchange.retained.count, world.exchange.retained.size) == (1, 10)
    assert [one.message.topic for one in world.store.load().retained] == [b"a"]
    publisher.publish("b", "x" * 9, 1, 4, retain=True)
    assert (world.exchange.retained.count, world.exchange.retained.size) == (2, 20)
    assert publisher.take() == [("PUBACK", n) for n in (1, 2, 3, 4)]


def test_deep_retained_topics_count_by_what_they_take() -> None:
    """A level of two bytes takes a hundred times that in the tree."""
    world = World(limits=Limits(max_retained_bytes=1_000_000))
    publisher = world.join("pub")
    for n in range(100):
        publisher.publish(f"{n}" + "/a" * 190, "x", retain=True)
    assert 20 < world.exchange.retained.count < 30
    assert 900_000 < world.exchange.retained.memory < 1_100_000
    for n in range(100):
        publisher.publish(f"{n}" + "/a" * 190, "", retain=True)
    assert (world.exchange.retained.count, world.exchange.retained.memory) == (0, 0)


# --- rights ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("topic", ["secret", "$SYS/broker/version", "$SYS"])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_forbidden_publish_is_acknowledged_and_goes_nowhere(world: World, topic: str, qos: int) -> None:
    """[MQTT-3.3.5-2]"""
    client = listener(world, "#", "$SYS/#")
    world.gatekeeper.granted["u"] = Forbidden(publish=[b"secret"])
    publisher = world.join("pub", username="u")
    publisher.publish(topic, "x", qos, 5, retain=True)
    answers = [("PUBACK", 5), ("PUBREC", 5)][qos - 1 : qos]
    assert (publisher.take(), publisher.closed, client.take()) == (answers, False, [])
    assert (world.exchange.retained.count, world.exchange.stats.denied) == (0, 1)
    publisher.pubrel(5)
    assert publisher.take() == [("PUBCOMP", 5)]


def test_a_client_does_not_get_what_it_may_not_receive(world: World) -> None:
    world.gatekeeper.granted["u"] = Forbidden(receive=[b"secret"])
    client = world.join("sub", username="u")
    client.subscribe(("#", 1), ("secret", 2)).take()
    world.join("pub").publish("secret", "x", 1, 1).publish("open", "y", 1, 2)
    assert client.payloads() == ["y"]


def test_rights_are_those_of_the_identifier_that_the_client_was_given(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(world.gatekeeper, "rights", lambda username, client_id: asked.append(client_id))
    client = world.join("")
    assert asked == [client.connection.client_id]


def test_changed_rights_hold_from_now_on(world: World) -> None:
    world.gatekeeper.granted["u"] = Forbidden()
    client = world.join("c", username="u")
    client.subscribe(("t", 0)).take()
    other = listener(world, "t")
    client.publish("t", "allowed")
    assert (client.payloads(), other.payloads()) == (["allowed"], ["allowed"])
    world.gatekeeper.granted["u"] = Forbidden(publish=[b"t"], receive=[b"t"], subscribe=[b"t"])
    list(world.exchange.sessions.rights_changed(lambda session: world.gatekeeper.granted.get(session.username)))
    client.publish("t", "forbidden")
    world.join("pub").publish("t", "forbidden to it")
    client.subscribe(("t", 0))
    assert (client.take(), other.payloads()) == ([("SUBACK", 1, [0x80])], ["forbidden to it"])


def test_rights_go_with_the_user_of_the_present_connection(world: World) -> None:
    world.gatekeeper.allow_user_change = True
    world.gatekeeper.granted["low"] = Forbidden(receive=[b"t"])
    client = world.join("c", clean=False, username="high")
    client.subscribe(("t", 0)).take()
    publisher = world.join("pub")
    publisher.publish("t", "1")
    assert client.payloads() == ["1"]
    client = world.join("c", clean=False, username="low")
    publisher.publish("t", "2")
    assert client.payloads() == []
    client = world.join("c", clean=False, username="high")
    publisher.publish("t", "3")
    assert client.payloads() == ["3"]


# --- whose a session is ---

REFUSED = ("CONNACK", 0, 5)


@pytest.mark.parametrize("clean", [False, True])
@pytest.mark.parametrize("crashed", [False, True])
def test_nobody_anonymous_gets_or_ends_the_session_of_a_user(clean: bool, crashed: bool) -> None:
    world = World()
    client = world.join("c", clean=False, username="u").subscribe(("t", 1))
    if crashed:
        world = world.crash()
    stranger = world.dial()
    stranger.connect("c", clean=clean)
    assert (stranger.take(), stranger.closed) == ([REFUSED], True)
    if not crashed:
        assert not client.closed
        client.drop()
    [refused] = world.log.fields("client refused")
    assert (refused["client"], refused["code"]) == ("c", 5)
    world.join("pub").publish("t", "kept", 1, 1)
    client = world.join("c", clean=False, username="u", expect=("CONNACK", 1, 0))
    assert client.payloads() == ["kept"]


def test_nobody_anonymous_takes_over_the_connection_of_a_user_without_a_lasting_session(world: World) -> None:
    client = world.join("c", username="u")
    stranger = world.dial()
    stranger.connect("c")
    assert (stranger.take(), client.closed) == ([REFUSED], False)
    client.disconnect()
    world.join("c")  # nothing of the user's is left


@pytest.mark.parametrize("version", [3, 4])
@pytest.mark.parametrize("mine", [False, True])
@pytest.mark.parametrize("yours", [False, True])
@pytest.mark.parametrize("there", [False, True])
def test_a_user_gets_and_ends_no_session_of_another(version: int, mine: bool, yours: bool, there: bool) -> None:
    """`mine`, `yours`: CleanSession of the owner and of the other; `there`: is the owner connected?"""
    world = World()
    watcher = world.join("watcher").subscribe(("gone", 0))
    owner = world.join("c", clean=mine, username="u", will=("gone", "bye", 0, False)).subscribe(("t", 1))
    watcher.take()
    owner.take()
    if not there:
        owner.drop()
        assert watcher.payloads() == ["bye"]
    world.join("pub").publish("t", "waiting", 1, 1)
    other = world.dial()
    other.connect("c", clean=yours, username="v", version=version)
    if mine and not there:
        assert other.take()[0] == ("CONNACK", 0, 0)  # nothing of the owner's is left
        return
    assert (other.take(), other.closed, watcher.payloads()) == ([REFUSED], True, [])
    [refused] = world.log.fields("client refused")
    assert (refused["client"], refused["user"], refused["code"], refused["reason"]) == (
        "c", "v", 5, "the session with this Client Identifier belongs to the user 'u' (allow_user_change)",
    )  # fmt: skip
    if not there:
        owner = world.join("c", clean=False, username="u", expect=("CONNACK", 1, 0))
    assert (owner.closed, owner.payloads()) == (False, ["waiting"])
    owner.drop()
    assert watcher.payloads() == (["bye"] if there else [])


@pytest.mark.parametrize("name", ["U", "u ", "ü", "u\u0308", ""])
def test_a_user_is_the_one_whose_name_has_the_same_characters(name: str, world: World) -> None:
    owner = world.join("c", clean=False, username="u\u0308" if name == "ü" else "ü" if name == "u\u0308" else "u")
    other = world.dial()
    other.connect("c", clean=False, username=name)
    assert (other.take(), owner.closed) == ([REFUSED], False)


def test_a_user_takes_over_from_who_is_anonymous_and_where_it_is_allowed_from_another(world: World) -> None:
    first = world.join("c", clean=False)
    second = world.join("c", clean=False, username="u", expect=("CONNACK", 1, 0))
    world.gatekeeper.allow_user_change = True
    third = world.join("c", clean=False, username="v", expect=("CONNACK", 1, 0))
    anonymous = world.dial()
    anonymous.connect("c", clean=False)
    assert (first.closed, second.closed, third.closed, anonymous.take()) == (True, True, False, [REFUSED])
    world.gatekeeper.allow_user_change = False
    former = world.dial()
    former.connect("c", clean=False, username="u")
    assert former.take() == [REFUSED]  # it is the new user's


@pytest.mark.parametrize("crashed", [False, True])
def test_a_name_that_nobody_checked_makes_no_session_a_user_s(crashed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    monkeypatch.setattr(world.gatekeeper, "proven_name", lambda username: None)
    world.join("c", clean=False, username="u").drop()
    if crashed:
        world = world.crash()
    world.join("c", clean=False, expect=("CONNACK", 1, 0))


def test_where_names_are_not_checked_any_more_sessions_are_open_to_all_again(world: World) -> None:
    world.join("c", clean=False, username="u").drop()
    world.exchange.sessions.proves_names = lambda: False
    world.join("c", clean=False, expect=("CONNACK", 1, 0))


def test_a_retained_message_is_delivered_while_its_author_may_publish_it(world: World) -> None:
    world.join("author", username="u").publish("t", "by a user", 1, 1, retain=True)
    world.join("anonymous").publish("t2", "by nobody", 1, 1, retain=True)
    world.gatekeeper.granted["u"] = Forbidden(publish=[b"t"])
    assert payloads_of_a_new_reader(world) == ["by nobody"]
    world = world.crash()  # the author is known after a restart
    assert payloads_of_a_new_reader(world) == ["by nobody"]
    world.gatekeeper.granted["u"] = Forbidden()
    assert payloads_of_a_new_reader(world) == ["by a user", "by nobody"]
    world.gatekeeper.granted[None] = Forbidden(publish=[b"t2"])
    assert payloads_of_a_new_reader(world) == ["by a user"]


def test_the_right_of_a_name_that_nobody_checked_does_not_keep_a_retained_message(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world.gatekeeper, "proven_name", lambda username: None)
    world.join("author", username="u").publish("t", "x", 1, 1, retain=True)
    world.gatekeeper.granted[None] = Forbidden(publish=[b"t"])
    assert payloads_of_a_new_reader(world) == []


def test_the_broker_s_own_retained_messages_need_no_right(world: World) -> None:
    world.gatekeeper.granted[None] = Forbidden(publish=[b"$SYS/broker/uptime"])
    world.exchange.publish(b"$SYS/broker/uptime", b"1", 0, True, None)
    client = world.join("reader", username="r")
    client.subscribe(("$SYS/#", 0))
    assert [one[2] for one in retained(client)] == ["1"]


def payloads_of_a_new_reader(world: World) -> list[str]:
    client = world.join("reader", username="r")
    client.subscribe(("#", 0))
    return sorted(one[2] for one in retained(client))


# --- expiry ------------------------------------------------------------------------------------------------------


def test_a_session_that_is_away_for_too_long_ends() -> None:
    world = World(limits=Limits(session_expiry=100.0))
    for name in ("stays", "goes", "connected"):
        world.join(name, clean=False).subscribe(("t", 1)).take()
    for client in world.clients[:2]:
        client.drop()
    world.join("pub").publish("t", "x", 1, 1)
    world.advance(60.0)
    world.join("stays", clean=False).take()
    world.clients[-1].drop()
    world.advance(60.0)
    assert sorted(world.exchange.sessions) == ["connected", "pub", "stays"]
    assert sorted(one.record.client_id for one in world.store.load().sessions) == ["connected", "stays"]
    assert (world.exchange.stats.expired, world.exchange.router.count) == (1, 2)
    world.join("goes", clean=False, expect=("CONNACK", 0, 0))
    brackets(world)


def test_without_a_limit_no_session_ends(world: World) -> None:
    world.join("c", clean=False).drop()
    world.advance(1e9)
    assert list(world.exchange.sessions) == ["c"]


def test_after_a_crash_a_session_that_was_connected_is_away_since_then() -> None:
    world = World(limits=Limits(session_expiry=100.0))
    world.join("c", clean=False)
    world.advance(500.0)
    world = world.crash()
    assert list(world.exchange.sessions) == ["c"]
    world.advance(101.0)
    assert list(world.exchange.sessions) == []


# --- restart -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["ended", "crashed"])
def test_everything_that_was_acknowledged_is_there_after_a_restart(tmp_path: Path, how: str) -> None:
    """[MQTT-4.1.0-1]"""
    store = SqliteStore(str(tmp_path))
    world = World(store)
    publisher = world.join("pub", clean=False)
    present = world.join("present", clean=False)
    present.subscribe(("t/+", 2), ("gone", 1)).unsubscribe("gone").take()
    world.join("absent", clean=False).subscribe(("t/1", 1), ("t/2", 2)).disconnect()
    world.join("passing").subscribe(("t/#", 2)).take()
    publisher.publish("t/1", "one", 1, 1).publish("t/2", "two", 2, 2).publish("t/3", "three", 2, 3, retain=True)
    publisher.pubrel(3)
    assert [one[2] for one in present.take()] == ["one", "two", "three"]
    present.pubrec(2).puback(1).take()
    publisher.publish("r", "kept", 0, retain=True)
    large = "x" * 50_000
    publisher.publish("t/1", large, 1, 4)
    present.take()
    if how == "ended":
        for client in world.clients:
            if not client.closed:
                client.connection.close("the broker is shutting down")
        world.settle()
    store.close()
    world = World(SqliteStore(str(tmp_path))).restore()
    assert sorted(world.exchange.sessions) == ["absent", "present", "pub"]
    assert world.exchange.router.count == 3
    publisher = world.join("pub", clean=False, expect=("CONNACK", 1, 0))
    publisher.publish("t/2", "two", 2, 2, dup=True)  # its PUBREC came: it was stored
    publisher.publish("t/3", "four", 2, 3)  # its identifier was free again
    present = world.join("present", clean=False, expect=("CONNACK", 1, 0))
    assert present.take() == [
        ("PUBREL", 2),
        published("t/3", "three", 2, 3, "dup"),
        published("t/1", large, 1, 4, "dup"),
        published("t/3", "four", 2, 5),
    ]
    absent = world.join("absent", clean=False, expect=("CONNACK", 1, 0))
    assert [(one[2], one[5]) for one in absent.take()] == [("one", ""), ("two", ""), (large, "")]
    late = world.join("late")
    late.subscribe(("#", 0))
    assert [one[2] for one in retained(late)] == ["three", "kept"]
    brackets(world)
    world.store.close()


def test_a_session_made_after_a_restart_does_not_share_its_key_with_an_older_one() -> None:
    world = World()
    for name in ("a", "b", "c"):
        world.join(name, clean=False).subscribe((name, 1)).drop()
    world.join("b", clean=True).disconnect()
    world = world.crash()
    world.join("d", clean=False).subscribe(("d", 1)).drop()
    ids = [session.store_id for session in world.exchange.sessions.values()]
    assert len(set(ids)) == 3
    world = world.crash()
    assert {name: set(session.subscriptions or ()) for name, session in world.exchange.sessions.items()} == {
        "a": {b"a"},
        "c": {b"c"},
        "d": {b"d"},
    }


def test_the_rights_of_who_is_away_hold_after_a_restart() -> None:
    world = World()
    world.join("c", clean=False, username="u").subscribe(("t", 1), ("open", 1)).drop()
    world.gatekeeper.granted["u"] = Forbidden(receive=[b"t"])
    world = world.crash()
    world.join("pub").publish("t", "x", 1, 1).publish("open", "y", 1, 2)
    queue = world.session("c").queue
    assert queue is not None
    assert queue.count == 1


def test_the_broker_s_own_messages_are_not_stored(world: World) -> None:
    world.exchange.publish(b"$SYS/broker/uptime", b"1", 0, True, None)
    world.settle()
    client = world.join("c")
    client.subscribe(("$SYS/#", 0))
    assert [one[2] for one in retained(client)] == ["1"]
    assert (world.store.load().retained, world.lane.submitted) == ([], 0)


def test_nothing_is_left_of_many_clients_that_came_and_went(world: World) -> None:
    for i in range(50):
        client = world.join(f"c{i}", keep_alive=60)
        client.subscribe((f"t/{i}/+", 1), (f"t/{i}", 2)).publish(f"t/{i}", "x", 2, 1)
        (client.drop if i % 2 else client.disconnect)()
    exchange = world.exchange
    assert isinstance(exchange, Exchange)
    assert isinstance(exchange.router, Router)
    assert (exchange.sessions, exchange.sessions.connected, exchange.router.count) == ({}, 0, 0)
    assert (len(world.timers), world.lane.submitted) == (0, 0)
    assert all(isinstance(client.transport, FakeTransport) and client.closed for client in world.clients)
    brackets(world)
