"""A session's way out at QoS 1 and 2: window, identifiers, order, what is sent again, what stands in the store only."""

from __future__ import annotations

import pytest

from broker.core.journal import FETCH_SIZE
from broker.core.lending import IDENTIFIERS
from broker.core.limits import Limits
from broker.core.ports import Batch, Delivery, QueueChanges, SessionRecord
from broker.core.queue import MAX_MEMORY, Queue
from broker.core.stored_queue import StoredQueue
from broker.storage.memory import MemoryStore
from broker.wire.message import Message
from tests.core.harness import Client, Forbidden, Sent, World, brackets, published
from tests.vectors import DISCONNECT, PUBACK, number, packet

KINDS = pytest.mark.parametrize("clean", [True, False], ids=["clean", "persistent"])


def subscriber(world: World, qos: int = 2, *, clean: bool = False, client_id: str = "sub") -> Client:
    client = world.join(client_id, clean=clean)
    client.subscribe(("t", qos))
    assert client.take() == [("SUBACK", 1, [qos])]
    return client


def send(publisher: Client, count: int, qos: int = 1, *, first: int = 0) -> None:
    """Publish m0, m1, ... to `t`, each acknowledged to the end."""
    for n in range(first, first + count):
        publisher.publish("t", f"m{n}", qos, n + 1)
        if qos == 2:
            assert publisher.take() == [("PUBREC", n + 1)]
            publisher.pubrel(n + 1)
        assert publisher.take() == [({0: "", 1: "PUBACK", 2: "PUBCOMP"}[qos], n + 1)][: qos > 0]


def drain(client: Client) -> list[Sent]:
    """Acknowledge everything until nothing comes any more; all that came."""
    came: list[Sent] = []
    while batch := client.take():
        came += batch
        for one in batch:
            if one[0] == "PUBLISH" and one[3] == 1:
                client.puback(one[4])
            elif one[0] == "PUBLISH" and one[3] == 2:
                client.pubrec(one[4])
            elif one[0] == "PUBREL":
                client.pubcomp(one[1])
    return came


def publishes(packets: list[Sent]) -> list[str]:
    return [one[2] for one in packets if one[0] == "PUBLISH"]


def names(count: int, first: int = 0) -> list[str]:
    return [f"m{n}" for n in range(first, first + count)]


def queue_of(world: World, client_id: str = "sub") -> Queue:
    queue = world.session(client_id).queue
    assert isinstance(queue, Queue)
    return queue


def assert_empty(world: World, client_id: str = "sub") -> None:
    queue = queue_of(world, client_id)
    assert (queue.count, queue.size) == (0, 0)
    brackets(world)
    if isinstance(queue, StoredQueue):
        assert world.store.fetch(queue.session_id, 0, 9, 1_000) == []


# --- window and identifiers --------------------------------------------------------------------------------------


@KINDS
@pytest.mark.parametrize("qos", [1, 2])
def test_no_more_is_in_flight_than_the_window(clean: bool, qos: int) -> None:
    world = World(limits=Limits(max_inflight=3))
    client = subscriber(world, clean=clean)
    send(world.join("pub"), 5, qos)
    assert client.take() == [published("t", f"m{n}", qos, n + 1) for n in range(3)]
    if qos == 1:
        client.puback(2)
    else:
        client.pubrec(2)
        assert client.take() == [("PUBREL", 2)]  # the window is still full [MQTT-4.3.3-1]
        client.pubcomp(2)
    assert client.take() == [published("t", "m3", qos, 4)]
    (client.puback if qos == 1 else client.pubrec)(1, 3, 4)
    came = drain(client)
    assert publishes(came) == ["m4"]
    assert_empty(world)


@KINDS
def test_identifiers_count_up_and_are_never_0(clean: bool) -> None:
    """[MQTT-2.3.1-1] [MQTT-2.3.1-4]"""
    world = World()
    client = subscriber(world, 1, clean=clean)
    publisher = world.join("pub")
    send(publisher, 3)
    assert [one[4] for one in client.take()] == [1, 2, 3]
    client.puback(1, 2, 3)
    send(publisher, 2, first=3)
    assert [one[4] for one in client.take()] == [4, 5]


def deliver_and_acknowledge(world: World, client: Client, count: int) -> None:
    """Let this many messages through quickly."""
    queue = queue_of(world)
    message = Message(b"t", b"", 1)
    for _ in range(count):
        before = queue.next_seq
        queue.deliver(message, 1)
        queue.puback(before % IDENTIFIERS + 1)
    world.settle()
    client.transport.taken.clear()


@KINDS
def test_identifiers_begin_again_after_65535(clean: bool) -> None:
    world = World()
    client = subscriber(world, 1, clean=clean)
    deliver_and_acknowledge(world, client, 65_533)
    send(world.join("pub"), 4)
    assert client.take() == [
        published("t", "m0", 1, 65_534),
        published("t", "m1", 1, 65_535),
        published("t", "m2", 1, 1),
        published("t", "m3", 1, 2),
    ]
    client.puback(65_534, 65_535, 1, 2)
    assert_empty(world)


@KINDS
def test_an_identifier_in_flight_is_not_given_to_another_message(clean: bool) -> None:
    """[MQTT-2.3.1-4]: once round, the next message gets another one, and nobody waits for the oldest."""
    world = World()
    client = subscriber(world, 1, clean=clean)
    publisher = world.join("pub")
    send(publisher, 1)
    assert client.take() == [published("t", "m0", 1, 1)]
    deliver_and_acknowledge(world, client, 65_534)
    send(publisher, 2, first=1)
    # That of the place before, where a place decides; else the next one.
    second, third = (2, 3) if clean else (65_535, 2)
    assert client.take() == [published("t", "m1", 1, second), published("t", "m2", 1, third)]
    client.puback(third, 1, second)
    assert_empty(world)


@pytest.mark.parametrize(("clean", "qos"), [(True, 1), (False, 1), (False, 2)])
def test_one_that_is_never_acknowledged_stops_nothing(clean: bool, qos: int) -> None:
    """Round the identifiers, at QoS 1 three times, with the first message in flight all the time."""
    world = World()
    client = subscriber(world, qos, clean=clean)
    send(world.join("pub"), 1, qos)
    assert client.take() == [published("t", "m0", qos, 1)]
    queue = queue_of(world)
    message = Message(b"t", b"", qos)
    last = 0
    for _ in range(200_000 if qos == 1 else 66_000):
        queue.deliver(message, qos)
        if qos == 2:
            world.settle()
            [(_, _, _, _, last, _)] = client.take()
            client.pubrec(last)
            client.pubcomp(last).take()
        else:
            last = int.from_bytes(client.connection.out[-2], "big")
            client.connection.out.clear()
            queue.puback(last)
        assert last != 1
    world.settle()
    assert (queue.count, world.exchange.stats.dropped) == (1, 0)
    if not clean:
        client.drop()
        again = world.join("sub", clean=False)
        assert again.take() == [published("t", "m0", qos, 1, "dup")]  # [MQTT-4.4.0-1]


def test_a_backlog_of_more_than_all_identifiers_goes_out_though_the_first_is_not_acknowledged() -> None:
    count = 66_000
    world = World()
    client = subscriber(world, 1)
    client.disconnect()
    queue = queue_of(world)
    for n in range(count):
        queue.deliver(Message(b"t", b"m%d" % n, 1), 1)
        if n % 1000 == 0:
            world.settle()
    world.settle()
    client = world.join("sub", clean=False)
    payloads, ids = [], []
    while packets := client.take():
        payloads += [packet[2] for packet in packets]
        ids += [packet[4] for packet in packets]
        client.puback(*(packet[4] for packet in packets if packet[2] != "m0"))
    assert payloads == names(count)  # in their order
    assert (ids[65_534], ids[65_535] in ids[65_400:65_535], ids[65_536], ids.count(1)) == (65_535, True, 2, 1)
    client.puback(1)
    assert_empty(world)


def test_an_identifier_that_was_given_instead_is_kept_for_the_next_connection() -> None:
    world = World()
    client = subscriber(world, 1)
    publisher = world.join("pub")
    send(publisher, 1)
    deliver_and_acknowledge(world, client, 65_534)
    send(publisher, 2, first=1)
    client.take()
    client.drop()
    again = world.join("sub", clean=False)
    expected = [("m0", 1), ("m1", 65_535), ("m2", 2)]
    assert again.take() == [published("t", name, 1, packet_id, "dup") for name, packet_id in expected]
    again.puback(1, 65_535, 2)
    assert_empty(world)


def stored_at(
    places: dict[int, tuple[str, int]], *, sent_to: int | None, released: tuple[int, ...] = ()
) -> MemoryStore:
    """A store with the session "sub", away, with these messages (payload, QoS) in its queue."""
    store = MemoryStore()
    added: dict[int, Delivery] = {
        seq: (Message(b"t", payload.encode(), qos), qos) for seq, (payload, qos) in places.items()
    }
    store.commit(
        Batch(
            [],
            {1: SessionRecord(1, "sub", None, 1.0, sent_to)},
            {(1, b"t"): 2},
            {},
            [QueueChanges(1, added, [], released)],
            {},
        )
    )
    return store


def test_identifiers_go_on_beyond_the_wrap_after_a_restart() -> None:
    world = World(stored_at({65_533: ("a", 1), 65_534: ("b", 1), 65_535: ("c", 2)}, sent_to=65_535)).restore()
    client = world.join("sub", clean=False, expect=("CONNACK", 1, 0))
    assert client.take() == [
        published("t", "a", 1, 65_534, "dup"),
        published("t", "b", 1, 65_535, "dup"),
        published("t", "c", 2, 1),
    ]
    send(world.join("pub"), 1)
    assert client.take() == [published("t", "m0", 1, 2)]
    client.puback(65_534, 65_535, 2)
    client.pubrec(1)
    drain(client)
    assert_empty(world)


# --- order -------------------------------------------------------------------------------------------------------


@KINDS
@pytest.mark.parametrize("window", [1, 3, 100])
def test_messages_are_sent_in_the_order_in_which_they_came(clean: bool, window: int) -> None:
    """[MQTT-4.6.0-5] [MQTT-4.6.0-6]"""
    world = World(limits=Limits(max_inflight=window))
    client = subscriber(world, clean=clean)
    publisher = world.join("pub")
    for n in range(40):
        publisher.publish("t", f"m{n}", 1 + n % 2, n + 1)
    assert publishes(drain(client)) == names(40)
    assert_empty(world)


def test_qos_2_goes_out_to_a_persistent_session_only_once_it_is_stored() -> None:
    """[MQTT-4.3.3-1]: what follows at QoS 1 waits behind it."""
    world = World()
    client = subscriber(world)
    publisher = world.join("pub")
    world.lane.held = True
    publisher.publish("t", "one", 1, 1).publish("t", "two", 2, 2).publish("t", "three", 1, 3)
    assert client.take() == [published("t", "one", 1, 1)]
    client.puback(1)  # which makes room, and lets the queue go on
    assert client.take() == []
    world.lane.held = False
    world.settle()
    assert client.take() == [published("t", "two", 2, 2), published("t", "three", 1, 3)]


def test_qos_2_to_a_clean_session_waits_for_nothing() -> None:
    world = World()
    client = subscriber(world, clean=True)
    world.lane.held = True
    world.join("pub").publish("t", "m", 2, 9)
    assert (client.take(), world.lane.submitted) == ([published("t", "m", 2, 1)], 0)


# --- acknowledgements that do not fit ----------------------------------------------------------------------------


@KINDS
def test_an_unknown_puback_or_pubcomp_is_passed_over_and_an_unknown_pubrec_is_answered(clean: bool) -> None:
    """A client that lost count could not finish otherwise."""
    world = World()
    client = subscriber(world, clean=clean)
    client.puback(7).pubcomp(7)
    assert client.take() == []
    client.pubrec(7)
    assert client.take() == [("PUBREL", 7)]
    client.pubcomp(7)
    assert (client.take(), client.closed) == ([], False)
    assert_empty(world)


@KINDS
@pytest.mark.parametrize(
    ("qos", "wrong", "why"),
    [
        (1, "pubrec", "PUBREC for a message of QoS 1"),
        (1, "pubcomp", "PUBCOMP for a message that was not released"),
        (2, "puback", "PUBACK for a message of QoS 2"),
        (2, "pubcomp", "PUBCOMP for a message that was not released"),
    ],
)
def test_an_acknowledgement_of_the_wrong_kind_ends_the_connection(clean: bool, qos: int, wrong: str, why: str) -> None:
    """[MQTT-4.8.0-1]"""
    world = World()
    client = subscriber(world, clean=clean)
    send(world.join("pub"), 1, qos)
    assert client.take() == [published("t", "m0", qos, 1)]
    getattr(client, wrong)(1)
    assert client.closed
    assert world.log.fields("client disconnected")[-1]["reason"] == f"protocol error: {why}"
    if not clean:
        client = world.join("sub", clean=False)
        assert client.take() == [published("t", "m0", qos, 1, "dup")]
    brackets(world)


def test_a_wrong_kind_for_a_message_that_was_released_ends_the_connection_too() -> None:
    world = World()
    client = subscriber(world)
    send(world.join("pub"), 1, 2)
    client.pubrec(1).take()
    client.puback(1)
    assert client.closed


@KINDS
def test_a_repeated_pubrec_is_answered_again_and_counts_once(clean: bool) -> None:
    world = World()
    client = subscriber(world, clean=clean)
    send(world.join("pub"), 1, 2)
    client.take()
    client.pubrec(1).pubrec(1)
    assert client.take() == [("PUBREL", 1), ("PUBREL", 1)]
    client.pubcomp(1)
    assert_empty(world)


def test_a_pubrel_to_a_persistent_session_waits_until_the_pubrec_is_stored() -> None:
    """Else a crash would send a message again that the client has released."""
    world = World()
    client = subscriber(world)
    send(world.join("pub"), 1, 2)
    client.take()
    world.lane.held = True
    client.pubrec(1)
    assert client.take() == []
    world.lane.held = False
    world.settle()
    assert client.take() == [("PUBREL", 1)]


# --- sent again --------------------------------------------------------------------------------------------------


def test_what_was_not_acknowledged_is_sent_again_with_dup_and_its_old_identifier() -> None:
    """[MQTT-4.4.0-1] [MQTT-3.3.1-1] [MQTT-4.6.0-1]; what was never sent is not marked."""
    world = World(limits=Limits(max_inflight=4))
    client = subscriber(world)
    send(world.join("pub"), 6)
    assert publishes(client.take()) == names(4)
    client.puback(2)
    assert publishes(client.take()) == ["m4"]
    client.drop()
    client = world.join("sub", clean=False, expect=("CONNACK", 1, 0))
    assert client.take() == [
        published("t", "m0", 1, 1, "dup"),
        published("t", "m2", 1, 3, "dup"),
        published("t", "m3", 1, 4, "dup"),
        published("t", "m4", 1, 5, "dup"),
    ]
    client.puback(1)
    assert client.take() == [published("t", "m5", 1, 6)]
    drain(client.puback(3, 4, 5, 6))
    assert_empty(world)


def test_what_came_while_the_client_was_away_is_sent_without_dup() -> None:
    """[MQTT-3.3.1-3] [MQTT-3.1.2-5]"""
    world = World()
    client = subscriber(world)
    client.disconnect()
    send(world.join("pub"), 2)
    client = world.join("sub", clean=False, expect=("CONNACK", 1, 0))
    assert client.take() == [published("t", "m0", 1, 1), published("t", "m1", 1, 2)]


def test_pubrels_are_sent_again_first_and_in_the_order_of_their_pubrecs() -> None:
    """[MQTT-4.6.0-4] [MQTT-4.4.0-1]"""
    world = World()
    client = subscriber(world)
    send(world.join("pub"), 5, 2)
    client.take()
    client.pubrec(4, 2, 5)
    assert client.take() == [("PUBREL", 4), ("PUBREL", 2), ("PUBREL", 5)]
    client.pubcomp(2)
    client.drop()
    for again in (world, world.crash()):  # in the running broker, and after a restart
        client = again.join("sub", clean=False)
        assert client.take() == [
            ("PUBREL", 4),
            ("PUBREL", 5),
            published("t", "m0", 2, 1, "dup"),
            published("t", "m2", 2, 3, "dup"),
        ]
        if again is world:
            client.drop()
    drain(client.pubcomp(4, 5).pubrec(1, 3))
    assert_empty(again)


def test_pubrels_do_not_wait_for_the_messages_in_front_of_them() -> None:
    """[MQTT-4.6.0-4] However much is loaded before theirs, the order of the PUBRECs is kept."""
    world = World()
    client = subscriber(world)
    publisher = world.join("pub")
    for n in range(4):
        publisher.publish("t", f"{n}" * (FETCH_SIZE // 2), 2, n + 1).pubrel(n + 1)
    client.take()
    client.pubrec(4, 1, 3)
    client.take()
    client.drop()
    for again in (world, world.crash()):
        client = again.join("sub", clean=False)
        came = client.take()
        assert came[:3] == [("PUBREL", 4), ("PUBREL", 1), ("PUBREL", 3)]
        assert publishes(came[3:]) == ["1" * (FETCH_SIZE // 2)]
        if again is world:
            client.drop()
    drain(client.pubcomp(4, 1, 3).pubrec(2))
    assert_empty(again)


def test_what_is_completed_before_it_is_loaded_is_not_sent_again() -> None:
    world = World()
    client = subscriber(world)
    send(world.join("pub"), 3, 2)
    client.take()
    client.pubrec(1, 2).take()
    client.drop()
    world.lane.held = True
    client = world.dial().connect("sub", clean=False)
    world.lane.step()  # the session is there; now its messages are on their way
    world.settle()
    assert client.take() == [("CONNACK", 1, 0), ("PUBREL", 1), ("PUBREL", 2)]
    client.pubcomp(2)
    world.lane.held = False
    world.settle()
    assert [published("t", "m2", 2, 3, "dup")] == client.take()
    drain(client.pubcomp(1).pubrec(3))
    assert_empty(world)


@pytest.mark.parametrize("crash", [False, True])
def test_a_message_in_flight_whose_right_has_gone_is_released_and_not_sent_again(crash: bool) -> None:
    """Its client may have it, and would take a later message with this identifier for the same."""
    world = World()
    client = world.join("sub", clean=False, username="u")
    client.subscribe(("t", 2)).take()
    send(world.join("pub"), 1, 2)
    assert [published("t", "m0", 2, 1)] == client.take()
    client.drop()
    world.gatekeeper.granted["u"] = Forbidden(receive=[b"t"])
    if crash:
        world = world.crash()
    client = world.join("sub", clean=False, username="u", expect=("CONNACK", 1, 0))
    assert client.take() == [("PUBREL", 1)]
    assert client.pubcomp(1).take() == []
    assert_empty(world)


def test_what_was_released_before_a_restart_counts_until_its_pubcomp_and_no_longer() -> None:
    world = World()
    client = subscriber(world)
    publisher = world.join("pub")
    for n in range(3):
        publisher.publish("t", "hello", 2, 1).pubrel(1)
        [message] = client.take()
        client.pubrec(message[4]).drop()
        client = world.join("sub", clean=False)
        assert client.take() == [("PUBREL", n + 1)]
        assert (queue_of(world).count, queue_of(world).size) == (1, 6)
        client.pubcomp(n + 1)
        assert_empty(world)


def test_pubrec_for_a_message_that_waits_to_be_sent_again_is_not_answered() -> None:
    """It would be sent after its PUBREL, and the client would take it for a new one [MQTT-4.3.3-1]."""
    world = World()
    client = subscriber(world)
    send(world.join("pub"), 3, 2)
    client.take()
    client.drop()
    world.limits.max_inflight = 1
    client = world.join("sub", clean=False)
    assert client.take() == [published("t", "m0", 2, 1, "dup")]
    client.pubrec(3)
    assert client.take() == []
    client.pubrec(1)
    assert client.take() == [("PUBREL", 1)]
    client.pubcomp(1)
    came = drain(client)
    assert came == [
        published("t", "m1", 2, 2, "dup"),
        ("PUBREL", 2),
        published("t", "m2", 2, 3, "dup"),
        ("PUBREL", 3),
    ]
    assert_empty(world)


def test_after_a_crash_what_may_have_been_sent_is_marked_and_what_came_since_is_not() -> None:
    world = World(limits=Limits(max_inflight=3))
    subscriber(world)
    send(world.join("pub"), 5)
    world = world.crash()
    send(world.join("pub"), 1, first=5)
    client = world.join("sub", clean=False, expect=("CONNACK", 1, 0))
    came = drain(client)
    assert came == [published("t", f"m{n}", 1, n + 1, "dup" if n < 5 else "") for n in range(6)]
    assert_empty(world)


def test_after_a_crash_with_one_message_only_that_one_is_marked() -> None:
    world = World()
    subscriber(world)
    send(world.join("pub"), 1)
    world = world.crash()
    send(world.join("pub"), 2, first=1)
    client = world.join("sub", clean=False)
    assert [(one[2], one[5]) for one in client.take()] == [("m0", "dup"), ("m1", ""), ("m2", "")]


def test_places_that_were_given_up_at_a_restart_are_not_taken_for_sent() -> None:
    """The newest messages were sent, acknowledged and forgotten, an older one was not: what comes into their places
    after a restart is new [MQTT-3.3.1-1]."""
    world = World()
    client = subscriber(world)
    send(world.join("pub"), 10)
    client.take()
    client.puback(*(n for n in range(1, 11) if n != 4))
    client.disconnect()
    world = world.crash()
    client = world.join("sub", clean=False)
    assert client.take() == [published("t", "m3", 1, 4, "dup")]
    client.drop()
    send(world.join("pub"), 3, 2)
    client = world.join("sub", clean=False)
    assert [(one[2], one[5]) for one in client.take()] == [("m3", "dup"), ("m0", ""), ("m1", ""), ("m2", "")]
    client.pubrec(99)  # fits nothing: all that was sent is known
    assert client.take() == [("PUBREL", 99)]
    client.puback(4).pubrec(5, 6, 7)
    drain(client)
    assert_empty(world)


# --- the client comes back while the store is busy ---------------------------------------------------------------


def slow_return(world: World, client_id: str) -> Client:
    """The client comes back; its connection is accepted, its messages are not loaded yet."""
    client = world.dial()
    client.connect(client_id, clean=False)
    while not client.take(1):
        world.lane.step()
        world.turn()
    return client


def test_a_load_that_was_asked_for_over_an_older_connection_is_not_taken_for_the_first() -> None:
    """The client acknowledged, so that more is loaded; before that comes, it has left and is back. What it had not
    acknowledged is sent again, first."""
    world = World(limits=Limits(max_inflight=4, max_memory_queue=4))
    subscriber(world).drop()
    send(world.join("pub"), 30)
    client = world.join("sub", clean=False)
    assert publishes(client.take()) == names(4)
    world.lane.held = True
    world.join("other").subscribe(("x", 1)).publish("x", "sets the store to work", 1, 1, retain=True)
    client.puback(1, 2, 3)
    assert publishes(client.take()) == names(3, 4)
    queue = queue_of(world)
    assert isinstance(queue, StoredQueue)
    assert (queue._fetching, len(world.lane.jobs)) == (True, 1)  # the load stands behind another commit
    client.drop()
    client = world.dial()
    client.connect("sub", clean=False)
    world.lane.held = False
    world.settle()
    assert client.take(1) == [("CONNACK", 1, 0)]
    assert publishes(drain(client)) == names(27, 3)
    assert_empty(world)


def test_a_load_of_an_older_connection_that_comes_late_brings_nothing_twice() -> None:
    """With more sessions than are loaded at once, the older and the newer load are far apart."""
    world = World(limits=Limits(max_memory_queue=10, max_inflight=10))
    count = 120
    for i in range(count):
        subscriber(world, 1, client_id=f"c{i}").drop()
    send(world.join("pub"), 40)
    world.lane.held = True
    clients = [world.dial().connect(f"c{i}", clean=False) for i in range(count)]
    while not clients[60].take(1):
        world.lane.step()
        world.turn()
    clients[60].drop()
    client = world.dial()
    client.connect("c60", clean=False)
    came = []
    while world.lane.jobs:
        world.lane.step()
        world.turn()
        batch = client.take()
        came += batch
        client.puback(*(one[4] for one in batch if one[0] == "PUBLISH"))
    world.lane.held = False
    world.settle()
    came += drain(client)
    assert publishes(came) == names(40)


def test_a_load_that_comes_when_the_client_has_left_is_dropped() -> None:
    world = World(limits=Limits(max_inflight=2))
    subscriber(world).drop()
    send(world.join("pub"), 3)
    world.lane.held = True
    client = slow_return(world, "sub")
    client.drop()
    world.lane.held = False
    world.settle()
    queue = queue_of(world)
    assert isinstance(queue, StoredQueue)
    assert (queue._waiting, queue._inflight, queue.count) == (None, {}, 3)
    assert publishes(drain(world.join("sub", clean=False))) == names(3)
    assert_empty(world)


def test_messages_that_come_while_the_queue_is_loaded_follow_behind_it() -> None:
    world = World()
    subscriber(world).drop()
    publisher = world.join("pub")
    send(publisher, 3)
    world.lane.held = True
    client = slow_return(world, "sub")
    publisher.publish("t", "m3", 1, 1).publish("t", "m4", 2, 2)
    assert client.take() == []
    world.lane.held = False
    world.settle()
    assert publishes(drain(client)) == names(5)
    assert_empty(world)


# --- congestion --------------------------------------------------------------------------------------------------


@KINDS
def test_a_client_that_does_not_read_gets_the_rest_when_it_does(clean: bool) -> None:
    world = World()
    client = subscriber(world, clean=clean)
    publisher = world.join("pub")
    client.get_stuck()
    send(publisher, 5)
    assert (client.take(), len(client.transport.unsent)) == ([], 0)
    client.get_going()
    assert publishes(drain(client)) == names(5)
    assert_empty(world)


def test_a_queue_that_is_loaded_while_its_client_is_congested_waits_too() -> None:
    world = World()
    subscriber(world).drop()
    send(world.join("pub"), 3)
    world.lane.held = True
    client = slow_return(world, "sub")
    client.get_stuck()
    world.lane.held = False
    world.settle()
    assert client.transport.unsent == b""
    client.get_going()
    assert publishes(drain(client)) == names(3)
    assert_empty(world)


def test_acknowledgements_of_a_congested_client_count_and_send_nothing() -> None:
    world = World(limits=Limits(max_inflight=2))
    client = subscriber(world, clean=True)
    send(world.join("pub"), 4)
    assert publishes(client.take()) == names(2)
    client.feed(packet(PUBACK, number(1)))  # it was read with what came before
    client.get_stuck()
    world.settle()
    assert (len(client.transport.unsent), queue_of(world).count) == (0, 3)
    client.get_going()
    assert publishes(client.take()) == ["m2"]


def test_a_queue_that_begins_while_its_client_is_congested_waits_too() -> None:
    world = World()
    client = world.join("sub")
    publisher = world.join("pub")
    client.get_stuck()
    assert list(world.exchange.subscriptions.subscribe(world.session("sub"), 1, [(b"t", 1)])) == []
    send(publisher, 1)
    client.get_going()
    assert client.take() == [("SUBACK", 1, [1]), published("t", "m0", 1, 1)]


# --- limits ------------------------------------------------------------------------------------------------------


def test_a_clean_session_holds_so_many_messages_in_memory_and_drops_the_rest() -> None:
    world = World(limits=Limits(max_inflight=2, max_memory_queue=3))
    client = subscriber(world, clean=True)
    publisher = world.join("pub")
    for n in range(10):
        publisher.publish("t", f"m{n}", 1, n + 1)
    world.advance(4.0)  # so long its publisher waits for it
    assert publisher.take() == [("PUBACK", n + 1) for n in range(10)]
    assert (queue_of(world).count, world.exchange.stats.dropped) == (5, 5)
    assert publishes(drain(client)) == names(5)
    assert world.log.events("warning") == [
        "queue full: messages for this client are dropped",
        "queue empty again",
    ]
    assert world.log.fields("queue empty again") == [{"client": "sub", "dropped": 5}]
    world.advance(60.0)
    for n in range(10):  # and it is told again
        publisher.publish("t", f"m{n}", 1, n + 1)
    world.advance(4.0)
    assert len(world.log.events("warning")) == 3
    drain(client)
    assert_empty(world)


@KINDS
def test_a_queue_holds_so_many_bytes(clean: bool) -> None:
    world = World(limits=Limits(max_inflight=1, max_queued_bytes=10))
    client = subscriber(world, 1, clean=clean)
    send(world.join("pub"), 6)  # of 3 bytes each
    # What is in flight to a clean session is with the network, and not counted.
    kept = 4 if clean else 3
    assert (queue_of(world).count, world.exchange.stats.dropped) == (kept, 6 - kept)
    assert publishes(drain(client)) == names(kept)
    assert_empty(world)


def test_a_persistent_session_holds_so_many_messages() -> None:
    world = World(limits=Limits(max_queued_messages=4))
    subscriber(world).drop()
    publisher = world.join("pub")
    send(publisher, 6)
    assert (queue_of(world).count, world.exchange.stats.dropped) == (4, 2)
    client = world.join("sub", clean=False)
    assert publishes(drain(client)) == names(4)
    send(publisher, 1, first=9)
    assert publishes(drain(client)) == ["m9"]
    assert_empty(world)


# --- the backlog is in the store ---------------------------------------------------------------------------------


class WatchedStore(MemoryStore):
    """Tells what it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[tuple[int, int]] = []  # start, messages given

    def fetch(self, session: int, start: int, count: int, size: int) -> list[tuple[int, Message, int]]:
        found = super().fetch(session, start, count, size)
        self.fetched.append((start, len(found)))
        return found


def test_nothing_of_the_queue_of_an_absent_client_stays_in_memory() -> None:
    world = World()
    client = subscriber(world)
    publisher = world.join("pub")
    send(publisher, 5)
    client.drop()
    send(publisher, 50, first=5)
    queue = queue_of(world)
    assert isinstance(queue, StoredQueue)
    assert (queue._waiting, queue._inflight, queue._added, queue._settled) == (None, {}, {}, [])
    assert (queue.count, queue.size) == (55, sum(len(name) + 1 for name in names(55)))


@pytest.mark.parametrize(("memory", "window"), [(1, 1), (2, 1), (7, 3), (10, 100), (3, 10)])
def test_a_long_backlog_is_loaded_piece_by_piece(memory: int, window: int) -> None:
    world = World(WatchedStore(), Limits(max_memory_queue=memory, max_inflight=window))
    subscriber(world).drop()
    send(world.join("pub"), 60)
    store = world.store
    assert isinstance(store, WatchedStore)
    client = world.join("sub", clean=False)
    queue = queue_of(world)
    assert isinstance(queue, StoredQueue)
    came = []
    most = 0
    while batch := client.take():
        came += publishes(batch)
        for one in batch:
            most = max(most, len(queue._waiting or ()))
            client.puback(one[4])
    assert came == names(60)
    assert most <= max(memory, window) + memory
    assert max(given for _, given in store.fetched) <= max(memory, window)
    assert_empty(world)


def test_a_client_that_reads_slowly_makes_its_queue_spill_and_gets_all_of_it() -> None:
    """More comes than memory takes, while the client is there."""
    world = World(WatchedStore(), Limits(max_memory_queue=5, max_inflight=2))
    client = subscriber(world)
    publisher = world.join("pub")
    send(publisher, 40)
    queue = queue_of(world)
    assert isinstance(queue, StoredQueue)
    assert (queue.count, len(queue._waiting or ()), queue._added) == (40, 5, {})
    came = publishes(client.take(1))
    client.puback(1)
    send(publisher, 20, first=40)
    came += publishes(client.take())
    client.puback(*range(2, 4))
    came += publishes(drain(client))
    assert came == names(60)
    assert_empty(world)


def test_large_messages_are_loaded_a_few_at_a_time() -> None:
    """Counting them is not enough: a thousand of the largest would be gigabytes."""
    world = World(limits=Limits(max_inflight=2))
    subscriber(world).drop()
    publisher = world.join("pub")
    for n in range(30):
        publisher.publish("t", f"{n:02}" + "x" * 300_000, 1, 1)
    client = world.join("sub", clean=False)
    queue = queue_of(world)
    assert isinstance(queue, StoredQueue)
    came = []
    most = 0
    while batch := client.take():
        came += [one[2][:2] for one in batch]
        most = max(most, sum(message.size for _, message, _ in queue._waiting or ()))
        client.puback(batch[0][4])
    assert came == [f"{n:02}" for n in range(30)]
    assert 300_000 < most < 3 * FETCH_SIZE


def test_large_messages_to_a_client_that_reads_slowly_stay_in_the_store() -> None:
    world = World(limits=Limits(max_inflight=2))
    client = subscriber(world)
    publisher = world.join("pub")
    for n in range(30):
        publisher.publish("t", f"{n:02}" + "x" * 300_000, 1 + n % 2, 1).pubrel(1)
    queue = queue_of(world)
    assert isinstance(queue, StoredQueue)
    in_memory = sum(message.size for _, message, _ in queue._waiting or ())
    assert (queue.count, MAX_MEMORY - 900_000 < in_memory < MAX_MEMORY) == (30, True)
    assert [name[:2] for name in publishes(drain(client))] == [f"{n:02}" for n in range(30)]
    assert_empty(world)


def test_a_message_larger_than_all_that_is_kept_in_memory_is_sent_all_the_same() -> None:
    world = World()
    client = subscriber(world)
    world.dial(max_packet_size=2 * MAX_MEMORY).connect("pub").publish("t", "x" * (MAX_MEMORY + 1), 2, 1)
    assert [len(name) for name in publishes(drain(client))] == [MAX_MEMORY + 1]
    assert_empty(world)


def test_a_message_settled_in_the_middle_leaves_no_gap_in_what_follows() -> None:
    world = World(limits=Limits(max_inflight=10, max_memory_queue=10))
    client = subscriber(world)
    publisher = world.join("pub")
    send(publisher, 25)
    client.take()
    client.puback(3, 4, 8)
    more = publishes(client.take())
    client.drop()
    client = world.join("sub", clean=False)
    came = publishes(drain(client))
    expected = [name for n, name in enumerate(names(25)) if n not in (2, 3, 7)]
    assert (more, came) == (names(3, 10), expected)
    assert_empty(world)


def test_the_estimate_after_a_restart_becomes_exact_when_all_is_loaded() -> None:
    world = World()
    client = subscriber(world)
    send(world.join("pub"), 10)
    client.take()
    client.puback(2, 3, 4, 5, 6, 7, 8)
    client.drop()
    world = world.crash()
    assert queue_of(world).count >= 3
    client = world.join("sub", clean=False)
    assert publishes(client.take()) == ["m0", "m8", "m9"]
    assert (queue_of(world).count, queue_of(world).size) == (3, 9)
    client.puback(1, 9, 10)
    assert_empty(world)


def test_what_the_client_acknowledges_before_it_is_stored_is_never_written() -> None:
    class Recorder(MemoryStore):
        def __init__(self) -> None:
            super().__init__()
            self.written: list[bytes] = []

        def commit(self, batch: Batch) -> None:
            self.written += [message.payload for one in batch.queues for message, _ in one.added.values()]
            super().commit(batch)

    world = World(Recorder())
    client = subscriber(world)
    publisher = world.join("pub")
    world.lane.held = True
    publisher.publish("x", "sets the store to work", 1, 1, retain=True)
    world.turn()
    publisher.publish("t", "quick", 1, 2)
    [one] = client.take()
    client.puback(one[4])
    world.lane.held = False
    world.settle()
    store = world.store
    assert isinstance(store, Recorder)
    assert publisher.take() == [("PUBACK", 1), ("PUBACK", 2)]
    assert store.written == []
    assert_empty(world)


# --- rights ------------------------------------------------------------------------------------------------------


def test_what_the_client_may_not_receive_any_more_is_not_sent_when_it_is_back() -> None:
    world = World()
    client = world.join("sub", clean=False, username="u")
    client.subscribe(("open", 2), ("secret", 2)).take()
    client.drop()
    publisher = world.join("pub")
    for n, topic in enumerate(("open", "secret", "secret", "open")):
        publisher.publish(topic, f"m{n}", 1 + n % 2, n + 1)
    world.gatekeeper.granted["u"] = Forbidden(receive=[b"secret"])
    client = world.join("sub", clean=False, username="u", expect=("CONNACK", 1, 0))
    assert publishes(drain(client)) == ["m0", "m3"]
    assert_empty(world)
    again = world.crash()  # and it is gone from the store
    assert queue_of(again).count == 0


def test_a_queue_of_nothing_but_forbidden_messages_is_read_to_its_end() -> None:
    world = World(limits=Limits(max_memory_queue=3, max_inflight=3))
    client = world.join("sub", clean=False, username="u")
    client.subscribe(("secret", 1), ("open", 1)).take()
    client.drop()
    publisher = world.join("pub")
    for n in range(20):
        publisher.publish("secret", f"m{n}", 1, n + 1)
    publisher.publish("open", "last", 1, 99)
    world.gatekeeper.granted["u"] = Forbidden(receive=[b"secret"])
    client = world.join("sub", clean=False, username="u")
    assert publishes(drain(client)) == ["last"]
    assert_empty(world)


def test_the_handshake_of_a_message_that_the_client_has_is_finished_whatever_its_rights() -> None:
    world = World()
    client = world.join("sub", clean=False, username="u")
    client.subscribe(("secret", 2)).take()
    world.join("pub").publish("secret", "m", 2, 1)
    client.take()
    client.pubrec(1).take()
    client.drop()
    world.gatekeeper.granted["u"] = Forbidden(receive=[b"secret"])
    client = world.join("sub", clean=False, username="u")
    assert client.take() == [("PUBREL", 1)]
    client.pubcomp(1)
    assert_empty(world)


@KINDS
def test_what_waits_for_a_client_that_is_there_is_judged_when_its_turn_comes(clean: bool) -> None:
    world = World(limits=Limits(max_inflight=1))
    client = world.join("sub", clean=clean, username="u")
    client.subscribe(("open", 1), ("secret", 2)).take()
    publisher = world.join("pub")
    for n, topic in enumerate(("open", "secret", "secret", "open")):
        publisher.publish(topic, f"m{n}", 1 + n % 2, n + 1)
    assert publishes(client.take()) == ["m0"]
    revoke(world, "u", Forbidden(receive=[b"secret"]))
    client.puback(1)
    [last] = client.take()
    assert last[2] == "m3"
    client.puback(last[4])
    assert_empty(world)
    assert queue_of(world).size == 0


@pytest.mark.parametrize("crash", [False, True])
def test_a_qos_2_message_in_flight_is_released_but_not_sent_again_when_its_right_is_gone(crash: bool) -> None:
    """Its client may have it, and would take a later message with the same identifier for it [MQTT-4.3.3-2]."""
    world = World()
    client = world.join("sub", clean=False, username="u")
    client.subscribe(("secret", 2), ("open", 2)).take()
    world.join("pub").publish("secret", "m0", 2, 1).publish("open", "m1", 2, 2)
    assert publishes(client.take()) == ["m0", "m1"]
    client.drop()
    if crash:
        world = world.crash()
    revoke(world, "u", Forbidden(receive=[b"secret"]))
    client = world.join("sub", clean=False, username="u")
    assert sorted(client.take()) == [published("open", "m1", 2, 2, "dup"), ("PUBREL", 1)]
    # Should the broker die before it is answered, it goes on from there, whatever the rights are by then.
    client.drop()
    world = world.crash()
    revoke(world, "u", Forbidden())
    client = world.join("sub", clean=False, username="u")
    assert client.take() == [("PUBREL", 1), published("open", "m1", 2, 2, "dup")]
    client.pubcomp(1).pubrec(2).pubcomp(2)
    assert_empty(world)
    assert queue_of(world.crash()).count == 0


@KINDS
def test_a_handshake_under_way_is_finished_though_the_right_is_gone(clean: bool) -> None:
    world = World()
    client = world.join("sub", clean=clean, username="u")
    client.subscribe(("secret", 2)).take()
    publisher = world.join("pub")
    publisher.publish("secret", "m0", 2, 1)
    client.take()
    revoke(world, "u", Forbidden(receive=[b"secret"]))
    publisher.publish("secret", "m1", 2, 2)
    client.pubrec(1)
    assert client.take() == [("PUBREL", 1)]
    client.pubcomp(1)
    assert_empty(world)


def revoke(world: World, user: str, rights: Forbidden) -> None:
    """Give a user other rights, as a reload does."""
    world.gatekeeper.granted[user] = rights
    list(world.exchange.sessions.rights_changed(lambda session: world.gatekeeper.granted.get(session.username)))


# --- ends --------------------------------------------------------------------------------------------------------


@KINDS
def test_a_client_that_acknowledges_and_leaves_at_once_harms_nobody(clean: bool) -> None:
    """Its queue may be noted for sending when the connection is gone."""
    world = World(limits=Limits(max_inflight=1))
    client = subscriber(world, clean=clean)
    other = subscriber(world, clean=clean, client_id="other")
    send(world.join("pub"), 3)
    assert (publishes(client.take()), publishes(other.take())) == (["m0"], ["m0"])
    client.feed(packet(PUBACK, number(1)) + DISCONNECT)
    other.feed(packet(PUBACK, number(1)))
    world.settle()
    assert (client.closed, publishes(other.take())) == (True, ["m1"])
    brackets(world)
