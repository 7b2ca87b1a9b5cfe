"""One connection: which packet is allowed when, what ends it, how long it may be silent, when it is not read from."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.core import account
from broker.core.account import DELIVERIES, LEAST, SHARE, SLICE, TURN
from broker.core.connection import MAX_CONNECT, MAX_OWED
from broker.core.intake import ADMITTING, CLOSED, CONNECTED, CONNECTING, PROGRESS
from broker.core.limits import Limits
from broker.core.session import Session
from broker.wire.codes import ReturnCode
from tests.core.harness import Client, Sent, World, brackets, published
from tests.vectors import (
    DISCONNECT,
    MALFORMED,
    PINGREQ,
    PUBACK,
    PUBCOMP,
    PUBREC,
    PUBREL,
    VALID,
    Vector,
    connect,
    connect_3_1,
    number,
    over_socket,
    packet,
    publish,
    string,
    subscribe,
    unsubscribe,
)

#: What a client of MQTT 5.0 is told where that is not taken.
UNSUPPORTED = 0x84


@pytest.fixture
def world() -> World:
    return World()


#: One of each packet that a client may send, with what a connected client gets for it.
PACKETS: dict[str, tuple[bytes, list[Sent]]] = {
    "CONNECT": (connect(b"other"), []),
    "PUBLISH 0": (publish(b"t", b"x"), []),
    "PUBLISH 1": (publish(b"t", b"x", qos=1, packet_id=5), [("PUBACK", 5)]),
    "PUBLISH 2": (publish(b"t", b"x", qos=2, packet_id=5), [("PUBREC", 5)]),
    "PUBACK": (packet(PUBACK, number(5)), []),
    "PUBREC": (packet(PUBREC, number(5)), [("PUBREL", 5)]),
    "PUBREL": (packet(PUBREL, number(5)), [("PUBCOMP", 5)]),
    "PUBCOMP": (packet(PUBCOMP, number(5)), []),
    "SUBSCRIBE": (subscribe(5, (b"t", 1)), [("SUBACK", 5, [1])]),
    "UNSUBSCRIBE": (unsubscribe(5, b"t"), [("UNSUBACK", 5)]),
    "PINGREQ": (PINGREQ, [("PINGRESP",)]),
    "DISCONNECT": (DISCONNECT, []),
}
EACH = pytest.mark.parametrize("name", PACKETS)


# --- the table of states -----------------------------------------------------------------------------------------


@EACH
def test_before_connect_everything_else_ends_the_connection(world: World, name: str) -> None:
    """[MQTT-3.1.0-1]"""
    client = world.dial()
    assert client.connection.state == CONNECTING
    client.send(PACKETS[name][0])
    if name == "CONNECT":
        assert (client.take(), client.closed) == ([("CONNACK", 0, 0)], False)
    else:
        reason = f"protocol error: {name.split()[0]} before CONNECT"
        assert (client.take(), client.closed) == ([], True)
        assert world.log.fields("connection closed before it was accepted")[-1]["reason"] == reason
        assert (world.exchange.stats.protocol_errors, world.exchange.stats.refused) == (1, 1)
    brackets(world)


@EACH
def test_while_it_is_decided_nothing_is_looked_at(world: World, name: str) -> None:
    """[MQTT-3.2.0-1]: whatever comes, it waits."""
    world.gatekeeper.slow = True
    client = world.dial().connect("c")
    assert (client.connection.state, client.is_read()) == (ADMITTING, True)
    data, answer = PACKETS[name]
    client.send(data)
    assert (client.take(), client.closed, client.connection.state) == ([], False, ADMITTING)
    assert not client.is_read()  # so that it can leave no sooner than that was looked at
    world.gatekeeper.pending.pop()(ReturnCode.ACCEPTED)
    world.settle()
    assert client.take() == [("CONNACK", 0, 0), *answer]
    assert client.closed is (name in ("CONNECT", "DISCONNECT"))
    brackets(world)


def test_one_that_leaves_while_it_is_decided_is_forgotten_at_once(world: World) -> None:
    world.gatekeeper.slow = True
    client = world.dial().connect("c")
    client.drop()
    assert (client.closed, world.exchange.sessions) == (True, {})
    assert len(world.log.fields("connection closed before it was accepted")) == 1
    world.gatekeeper.pending.pop()(ReturnCode.ACCEPTED)
    world.settle()
    assert (world.exchange.sessions, world.exchange.stats.connections, client.take()) == ({}, 0, [])


def test_what_came_in_one_block_with_connect_waits_and_so_does_the_end(world: World) -> None:
    reader = world.join("reader").subscribe(("t", 0))
    reader.take()
    world.gatekeeper.slow = True
    hasty = world.dial()
    hasty.send(connect(b"hasty") + publish(b"t", b"x") + DISCONNECT)
    assert (hasty.is_read(), hasty.connection.state) == (False, ADMITTING)
    world.gatekeeper.pending.pop()(ReturnCode.ACCEPTED)
    world.settle()
    assert reader.payloads() == ["x"]
    assert hasty.closed


@EACH
def test_while_connected_everything_but_connect_is_taken(world: World, name: str) -> None:
    """[MQTT-3.1.0-2] [MQTT-3.12.4-1]"""
    client = world.join("c")
    assert client.connection.state == CONNECTED
    data, answer = PACKETS[name]
    client.send(data)
    assert client.take() == answer
    assert client.closed is (name in ("CONNECT", "DISCONNECT"))
    assert world.exchange.stats.protocol_errors == int(name == "CONNECT")
    brackets(world)


@EACH
def test_when_it_is_closed_nothing_is_taken(world: World, name: str) -> None:
    for client in (world.dial().send(PINGREQ), world.join("c").disconnect(), world.join("c").drop()):
        assert client.connection.state == CLOSED
        received = world.exchange.stats.bytes_received
        client.send(PACKETS[name][0])
        assert (client.take(), world.exchange.stats.bytes_received) == ([], received)
    brackets(world)


# --- the table of bytes ------------------------------------------------------------------------------------------


def test_everything_malformed_ends_its_connection_and_no_other() -> None:
    """[MQTT-4.8.0-1] [MQTT-3.1.4-1] [MQTT-3.1.2-2]; in one block and byte by byte."""
    world = World()
    world.versions = frozenset({3, 4})
    witness = world.join("witness")
    witness.subscribe(("#", 0)).take()
    wrong = []
    for vector in MALFORMED:
        for bytewise in (False, True):
            client = world.dial(max_packet_size=1 << 28)
            before, answer = over_socket(vector)
            client.send(before)
            taken = bytes(client.transport.taken)
            client.transport.taken.clear()
            if bytewise and len(vector.data) < 100:
                for at in range(len(vector.data)):
                    client.feed(vector.data[at : at + 1])
                world.settle()
            else:
                client.send(vector.data)
            owed = UNSUPPORTED if vector.asks_for_5 else vector.code
            code = [("CONNACK", 0, owed)] if owed is not None else []
            came = [one[:3] for one in client.take()]
            if (taken, client.closed, came) != (answer, True, code):
                wrong.append(vector.name)
    assert wrong == []
    witness.ping()
    assert (witness.take(), world.exchange.sessions.connected) == ([("PINGRESP",)], 1)
    assert world.exchange.stats.protocol_errors == 2 * len(MALFORMED)
    brackets(world)


def test_nothing_valid_ends_its_connection() -> None:
    world = World()
    wrong = []
    for vector in VALID:
        client = world.dial(max_packet_size=1 << 29)
        before, _ = over_socket(vector)
        client.send(before, vector.data)
        empty_id = any(
            row[0] >> 4 == 1 and row[1][1] == "" and (not row[1][2] or row[1][0] == 3) for row in vector.packets or ()
        )
        expected = any(row[0] >> 4 == 14 for row in vector.packets or ()) or empty_id
        if client.closed is not expected:
            wrong.append(vector.name)
        client.drop()
    assert (wrong, world.exchange.stats.protocol_errors) == ([], 0)
    brackets(world)


SHORT = [row for row in (*VALID, *MALFORMED) if len(row.data) < 200]
#: Valid ones more often, else no connection would last.
SOMETHING = st.one_of(st.sampled_from([row for row in SHORT if not row.malformed]), st.sampled_from(SHORT))


@settings(deadline=None, max_examples=150, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 2), SOMETHING), max_size=40))
def test_whatever_clients_send_there_is_no_bug(steps: list[tuple[int, Vector]]) -> None:
    """Three clients, persistent ones among them, send any packets at all; who is cut off comes again."""
    world = World(limits=Limits(max_inflight=2, max_memory_queue=3))
    clients: dict[int, Client] = {}
    for which, vector in steps:
        client = clients.get(which)
        if client is None or client.closed:
            client = clients[which] = world.join(f"c{which}", clean=which == 0)
            client.subscribe(("#", 2), ("$x", 1))
        client.send(vector.data)
        client.take()
        brackets(world)
    for client in clients.values():
        client.drop()
    brackets(world)
    brackets(world.crash())


# --- CONNECT -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (connect(b"", flags=0), 2),  # [MQTT-3.1.3-8]
        (connect_3_1(b""), 2),  # not in MQTT 3.1, whatever its CleanSession
        (connect(level=6), 1),  # [MQTT-3.1.2-2]
    ],
)
def test_refusals_that_need_nobody_s_decision(world: World, data: bytes, code: int) -> None:
    """[MQTT-3.2.2-4] [MQTT-3.2.2-5]"""
    client = world.dial().send(data)
    assert (client.take(), client.closed, world.gatekeeper.asked) == ([("CONNACK", 0, code)], True, [])
    assert world.exchange.stats.refused == 1
    brackets(world)


@pytest.mark.parametrize("slow", [False, True])
@pytest.mark.parametrize("code", [2, 3, 4, 5])
def test_who_is_refused_is_told_the_code_and_changes_nothing(world: World, code: int, slow: bool) -> None:
    """[MQTT-3.1.3-9] [MQTT-3.2.2-4] [MQTT-3.2.2-5]"""
    world.join("c", clean=False).subscribe(("t", 1)).disconnect()
    world.gatekeeper.slow = slow
    world.gatekeeper.code = ReturnCode(code)
    client = world.dial().connect("c", clean=True)
    if slow:
        assert (client.take(), client.closed) == ([], False)
        world.gatekeeper.pending.pop()(ReturnCode(code))
        world.settle()
    assert (client.take(), client.closed) == ([("CONNACK", 0, code)], True)
    assert world.session("c").subscriptions == {b"t": 1}
    [fields] = world.log.fields("client refused")
    assert (fields["client"], fields["code"]) == ("c", code)
    brackets(world)


def test_a_decision_that_comes_when_the_client_has_left_is_dropped(world: World) -> None:
    world.gatekeeper.slow = True
    client = world.dial().connect("c")
    client.drop()
    assert [connect.client_id for connect in world.gatekeeper.given_up] == ["c"]
    world.gatekeeper.pending.pop()(ReturnCode.ACCEPTED)
    world.settle()
    assert (client.take(), world.exchange.sessions, world.exchange.sessions.connected) == ([], {}, 0)
    brackets(world)


def test_one_client_too_many_is_told_so(world: World) -> None:
    world.room = 1
    world.dial().connect("one")
    client = world.dial().connect("c")
    assert (client.take(), client.closed) == ([("CONNACK", 0, 3)], True)
    assert [connect.client_id for connect in world.gatekeeper.asked] == ["one"]  # nobody's password is checked in vain


def test_who_is_admitted_when_others_have_taken_the_last_room_is_told_so(world: World) -> None:
    world.room = 1
    world.gatekeeper.slow = True
    clients = [world.dial().connect(name) for name in ("one", "two")]
    for decided in world.gatekeeper.pending:
        decided(ReturnCode.ACCEPTED)
    world.settle()
    assert [client.take() for client in clients] == [[("CONNACK", 0, 0)], [("CONNACK", 0, 3)]]
    assert list(world.exchange.sessions) == ["one"]


@pytest.mark.parametrize("slow", [False, True])
def test_a_broker_that_ends_takes_no_new_clients(world: World, slow: bool) -> None:
    world.gatekeeper.slow = slow
    client = world.dial()
    if slow:
        client.connect("c")
    world.exchange.closing = True
    if slow:
        world.gatekeeper.pending.pop()(ReturnCode.ACCEPTED)
        world.settle()
    else:
        client.connect("c")
    assert (client.take(), client.closed) == ([("CONNACK", 0, 3)], True)


def test_a_broker_that_ends_reads_nothing_more_from_who_is_connected(world: World) -> None:
    client, unknown = world.join("c"), world.dial()
    client.subscribe(("t", 0)).take()
    for one in (client, unknown):
        one.connection.quiesce()
    client.send(PINGREQ)
    world.exchange.publish(b"t", b"the last", 0, False, None)
    world.settle()
    assert (client.is_read(), unknown.is_read(), client.payloads()) == (False, True, ["the last"])


# --- what is pipelined behind CONNECT ----------------------------------------------------------------------------

BEHIND = subscribe(1, (b"t", 1)) + publish(b"t", b"x", qos=1, packet_id=2) + PINGREQ


@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize("slow", [True, False])
def test_what_stands_behind_a_connect_is_done_once_it_is_accepted(world: World, clean: bool, slow: bool) -> None:
    """[MQTT-3.1.4-5] [MQTT-3.2.0-1]: in its order, behind the CONNACK."""
    world.gatekeeper.slow = slow
    client = world.dial().connect("c", clean=clean, behind=BEHIND)
    if slow:
        assert client.take() == []
        world.gatekeeper.pending.pop()(ReturnCode.ACCEPTED)
        world.settle()
    first, *rest = client.take()
    assert first == ("CONNACK", 0, 0)
    assert sorted(rest, key=str) == [("PINGRESP",), ("PUBACK", 2), published("t", "x", 1, 1), ("SUBACK", 1, [1])]
    answers = [one for one in rest if one[0] in ("SUBACK", "PUBACK")]
    assert answers == [("SUBACK", 1, [1]), ("PUBACK", 2)]
    assert client.is_read()
    brackets(world)


@pytest.mark.parametrize("slow", [True, False])
def test_what_stands_behind_a_refused_connect_is_never_looked_at(world: World, slow: bool) -> None:
    """[MQTT-3.1.4-5]"""
    witness = world.join("witness")
    witness.subscribe(("#", 0)).take()
    world.gatekeeper.slow, world.gatekeeper.code = slow, ReturnCode.NOT_AUTHORIZED
    client = world.dial().connect("c", behind=BEHIND)
    if slow:
        client.send(BEHIND)
        world.gatekeeper.pending.pop()(ReturnCode.NOT_AUTHORIZED)
        world.settle()
    assert (client.take(), client.closed, witness.take()) == ([("CONNACK", 0, 5)], True, [])
    assert (world.exchange.stats.protocol_errors, world.exchange.router.count) == (0, 1)
    brackets(world)


def test_a_client_may_say_all_at_once_and_leave(world: World) -> None:
    witness = world.join("witness")
    witness.subscribe(("t", 2)).take()
    client = world.dial().connect("c", will=("w", "x", 0, False), behind=publish(b"t", b"hello") + DISCONNECT)
    assert (client.take(), client.closed, witness.payloads()) == ([("CONNACK", 0, 0)], True, ["hello"])
    events = [(event, fields.get("client")) for _, event, fields in world.log.lines if fields.get("client") == "c"]
    assert events == [("client connected", "c"), ("client disconnected", "c")]
    brackets(world)


def test_what_stands_behind_a_connect_is_read_in_its_version(world: World) -> None:
    """MQTT 3.1 sends a PUBREL again with DUP, 3.1.1 must not."""
    again = packet(0x6A, number(1))
    assert world.dial().connect("old", version=3, behind=again).take() == [("CONNACK", 0, 0), ("PUBCOMP", 1)]
    newer = world.dial().connect("new", version=4, behind=again)
    assert (newer.take(), newer.closed) == ([("CONNACK", 0, 0)], True)


def test_garbage_behind_a_connect_ends_the_connection_after_its_connack(world: World) -> None:
    client = world.dial().connect("c", behind=b"\x00\x00")
    assert (client.take(), client.closed) == ([("CONNACK", 0, 0)], True)


# --- sizes -------------------------------------------------------------------------------------------------------


def test_a_connect_may_be_as_large_as_its_fields_allow(world: World) -> None:
    rest = string(b"f" * 65_535) * 4
    largest = connect(b"c" * 65_535, flags=0xC6, keep_alive=0, rest=rest)
    assert len(largest) <= MAX_CONNECT
    assert world.dial(max_packet_size=1 << 28).send(largest).take() == [("CONNACK", 0, 0)]


def test_who_is_not_known_yet_may_send_no_more_than_a_connect(world: World) -> None:
    client = world.dial(max_packet_size=1 << 28)
    client.send(b"\x10" + b"\xff\xff\xff\x7f")
    assert (client.closed, client.take()) == (True, [])
    assert client.connection._decoder.buffered == 0


@pytest.mark.parametrize(("extra", "closed"), [(0, False), (1, True)])
def test_a_packet_may_be_as_large_as_the_listener_takes(world: World, extra: int, closed: bool) -> None:
    client = world.dial(max_packet_size=2_000).connect("c")
    client.send(publish(b"t", b"x" * (2_000 - 6 + extra)))
    assert client.closed is closed


# --- silence -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep_alive", [1, 10, 65_535])
def test_a_client_may_be_silent_for_one_and_a_half_keep_alives(world: World, keep_alive: int) -> None:
    """[MQTT-3.1.2-24]"""
    client = world.join("c", keep_alive=keep_alive)
    world.advance(keep_alive * 1.5 - 0.1)
    alive = not client.closed
    world.advance(0.2)
    assert (alive, client.closed) == (True, True)
    assert world.log.fields("client disconnected")[-1]["reason"] == f"keep alive: silent for {keep_alive * 1.5:.1f} s"
    brackets(world)


@pytest.mark.parametrize("sign", [PINGREQ, publish(b"t", b"x"), packet(PUBACK, number(3)), subscribe(1, (b"t", 0))])
def test_whatever_it_sends_is_a_sign_of_life(world: World, sign: bytes) -> None:
    client = world.join("c", keep_alive=10)
    world.advance(14.0)
    client.send(sign)
    world.advance(14.0)
    alive = not client.closed
    world.advance(2.0)
    assert (alive, client.closed) == (True, True)


def test_a_packet_that_drips_in_is_no_sign_of_life(world: World) -> None:
    client = world.join("c", keep_alive=10)
    for byte in publish(b"t", b"x" * 100)[:16]:
        client.send(bytes((byte,)))
        world.advance(1.0)
    assert client.closed


def test_a_large_packet_may_take_its_time(world: World) -> None:
    client = world.join("c", keep_alive=10).subscribe(("t", 0))
    client.take()
    payload = b"x" * (20 * PROGRESS)
    sent = publish(b"t", payload)
    for at in range(0, len(sent), PROGRESS):
        client.send(sent[at : at + PROGRESS])
        world.advance(9.0)
    assert ([payload.decode()], False) == (client.payloads(), client.closed)


def test_what_it_receives_is_no_sign_of_life(world: World) -> None:
    client = world.join("c", keep_alive=10)
    client.subscribe(("t", 0)).take()
    world.advance(10.0)
    world.join("pub").publish("t", "x")
    world.advance(6.0)
    assert (client.payloads(), client.closed) == (["x"], True)


def test_a_keep_alive_of_0_allows_any_silence(world: World) -> None:
    client = world.join("c", keep_alive=0)
    world.advance(1e7)
    assert (client.closed, len(world.timers)) == (False, 0)


@pytest.mark.parametrize(("keep_alive", "closed_after"), [(0, 30.0), (65_535, 30.0), (20, 30.0), (10, 15.0)])
def test_the_listener_may_limit_the_keep_alive(world: World, keep_alive: int, closed_after: float) -> None:
    world.gatekeeper.max_keepalive = 20.0
    client = world.join("c", keep_alive=keep_alive)
    world.advance(closed_after - 0.1)
    alive = not client.closed
    world.advance(0.2)
    assert (alive, client.closed) == (True, True)


def test_a_client_has_so_long_to_say_connect(world: World) -> None:
    client = world.dial(connect_timeout=5.0)
    world.advance(4.9)
    client.feed(b"\x10")
    world.advance(0.2)  # and a byte now and then does not make it longer
    assert (client.closed, client.take()) == (True, [])
    assert (
        world.log.fields("connection closed before it was accepted")[-1]["reason"]
        == "no CONNECT within connect_timeout"
    )
    brackets(world)


def test_a_connect_that_trickles_in_is_taken_if_it_is_in_time(world: World) -> None:
    client = world.dial(connect_timeout=5.0)
    data = connect(b"c", keep_alive=100)
    for at in range(len(data)):
        client.send(data[at : at + 1])
        world.advance(4.5 / len(data))
    assert client.take() == [("CONNACK", 0, 0)]
    world.advance(100.0)
    assert not client.closed


@pytest.mark.parametrize("waits_for", ["a worker", "the store"])
def test_who_said_connect_is_not_cut_off_because_the_broker_takes_long(world: World, waits_for: str) -> None:
    world.gatekeeper.slow = waits_for == "a worker"
    world.lane.held = waits_for == "the store"
    client = world.dial(connect_timeout=5.0).connect("c", clean=False, keep_alive=10)
    world.advance(60.0)
    assert (client.closed, client.take()) == (False, [])
    world.lane.held = False
    for decided in world.gatekeeper.pending:
        decided(ReturnCode.ACCEPTED)
    world.settle()
    assert client.take() == [("CONNACK", 0, 0)]
    world.advance(14.0)  # and its keep alive begins with the CONNACK
    alive = not client.closed
    world.advance(2.0)
    assert (alive, client.closed) == (True, True)
    brackets(world)


def test_while_the_broker_does_not_read_its_silence_does_not_count(world: World) -> None:
    """The store has failed, and its acknowledgements wait: how should it be heard?"""
    world.join("sub", clean=False).subscribe(("t", 1)).drop()
    client = world.join("pub", keep_alive=10)
    world.lane.held = True
    for _ in range(30):
        client.feed(publish(b"t", b"", qos=1, packet_id=1) * 500)
    world.turn()
    assert not client.is_read()
    world.advance(1_000.0)
    assert not client.closed
    world.lane.held = False
    world.settle()
    assert client.is_read()
    world.advance(14.0)
    alive = not client.closed
    world.advance(20.0)
    assert (alive, client.closed) == (True, True)
    brackets(world)


def test_a_timer_goes_with_its_connection(world: World) -> None:
    for client in (world.join("a", keep_alive=10), world.join("b", keep_alive=20), world.dial()):
        client.drop()
    assert len(world.timers) == 0


# --- not reading -------------------------------------------------------------------------------------------------


def test_a_client_that_takes_nothing_loses_qos_0(world: World) -> None:
    client = world.join("c")
    client.subscribe(("t", 0)).take()
    publisher = world.join("pub")
    client.get_stuck()
    client.connection.congest(1)  # to be told again changes nothing
    for n in range(5):
        publisher.publish("t", f"m{n}")
    assert len(client.transport.unsent) == 0
    client.get_going()
    client.connection.relieve()
    publisher.publish("t", "now")
    assert client.payloads() == ["now"]
    stats = world.exchange.stats
    assert (stats.dropped, stats.publish_sent) == (5, 1)
    [fields] = world.log.fields("client reads too slowly: QoS 0 messages for it are dropped until it has caught up")
    assert fields["client"] == "c"
    client.get_stuck().get_going()
    assert len(world.log.events("warning")) == 1  # told once
    brackets(world)


def test_a_client_that_does_not_read_while_it_publishes_what_it_subscribed_to_is_heard(world: World) -> None:
    """Many a simple client is like that: were it not read from, it could never get to its reading."""
    client = world.join("c", keep_alive=10)
    client.subscribe(("t", 0)).take()
    witness = world.join("witness")
    witness.subscribe(("t", 0)).take()
    client.get_stuck()
    for _ in range(20):
        for _ in range(100):
            client.publish("t", "x" * 1000)
        world.advance(10.0)
    assert (client.closed, client.is_read(), len(client.transport.unsent)) == (False, True, 0)
    assert len(witness.take()) == 2000
    client.get_going().publish("t", "now")
    assert client.payloads() == ["now"]
    brackets(world)


@pytest.mark.parametrize("clean", [False, True])
def test_who_does_not_read_before_its_connect_is_held_back_from_then_on(world: World, clean: bool) -> None:
    """A WebSocket's pongs may be unsent by then."""
    if not clean:
        world.join("c", clean=False).subscribe(("t", 1), ("u", 0)).drop()
    client = world.dial().get_stuck()
    client.connect("c", clean=clean)
    if clean:
        client.subscribe(("t", 1), ("u", 0))
    before = len(client.transport.unsent)
    world.join("pub").publish("t", "1", 1, 1).publish("u", "dropped")
    assert len(client.transport.unsent) == before
    client.get_going()
    assert [one[2] for one in client.take() if one[0] == "PUBLISH"] == ["1"]
    world.clients[-1].publish("u", "2")
    assert client.payloads() == ["2"]
    assert world.exchange.stats.dropped == 1
    brackets(world)


#: What makes a broker answer, by Packet Identifier.
ANSWERED: dict[str, Callable[[int], bytes]] = {
    "PUBACK": lambda packet_id: publish(b"other", b"", qos=1, packet_id=packet_id),
    "PUBREC": lambda packet_id: publish(b"other", b"", qos=2, packet_id=packet_id),
    "PUBREL": lambda packet_id: packet(PUBREC, number(packet_id)),
    "PUBCOMP": lambda packet_id: packet(PUBREL, number(packet_id)),
    "PINGRESP": lambda packet_id: PINGREQ,
    "SUBACK": lambda packet_id: subscribe(packet_id, (b"t", 0)),
    "UNSUBACK": lambda packet_id: unsubscribe(packet_id, b"t"),
}


@pytest.mark.parametrize("answer", list(ANSWERED))
def test_a_client_that_does_not_read_is_owed_only_so_many_answers(world: World, answer: str) -> None:
    client = world.join("c", keep_alive=10)
    client.get_stuck()
    made = ANSWERED[answer]
    sent = 0
    while client.is_read():
        assert sent < 100_000
        client.send(*(made(packet_id) for packet_id in range(1, 1001)))
        sent += 1000
    owed = len(client.transport.unsent)
    assert MAX_OWED < owed <= MAX_OWED + 6 * 1000
    client.feed(PINGREQ)
    world.settle()
    assert len(client.transport.unsent) == owed
    client.get_going()
    assert client.is_read()
    assert client.take()[-1] == ("PINGRESP",)
    brackets(world)


def test_what_was_read_before_it_was_owed_too_much_is_done_when_it_gets_going(world: World) -> None:
    client = world.join("c")
    owe(client)
    before = len(client.transport.unsent)
    client.feed(publish(b"t", b"", qos=1, packet_id=7))
    world.settle()
    assert len(client.transport.unsent) == before
    client.get_going()
    assert client.take()[-1] == ("PUBACK", 7)


def owe(client: Client) -> None:
    """Make it a client that takes nothing, and is not read from therefore."""
    client.get_stuck()
    client.send(PINGREQ * (MAX_OWED // 2 + 1))
    assert not client.is_read()


def test_a_client_that_takes_nothing_of_what_it_is_owed_is_gone(world: World) -> None:
    """It is not read from: so its silence cannot tell, but this can."""
    client = world.join("c", keep_alive=10, will=("will", "", 0, False))
    witness = world.join("witness")
    witness.subscribe(("will", 0)).take()
    owe(client)
    world.advance(14.0)
    client.connection.progress(world.now)
    world.advance(14.0)
    alive = not client.closed
    world.advance(2.0)
    assert (alive, client.closed, len(witness.take())) == (True, True, 1)
    [fields] = world.log.fields("client disconnected")
    assert fields["reason"] == "keep alive: for 15.0 s it has taken nothing of what it is owed"
    brackets(world)


def test_a_client_that_is_not_read_from_as_the_broker_ends_is_not_silent(world: World) -> None:
    client = world.join("c", keep_alive=1)
    client.connection.quiesce()
    world.advance(100.0)
    assert not client.closed


def test_a_stuck_client_that_takes_a_little_now_and_then_is_alive(world: World) -> None:
    client = world.join("c", keep_alive=10)
    client.get_stuck()
    for _ in range(5):
        world.advance(14.0)
        client.connection.progress(world.now)
    alive = not client.closed
    world.advance(16.0)
    assert (alive, client.closed) == (True, True)


def test_a_stuck_client_that_leaves_is_counted_right(world: World) -> None:
    client = world.join("c")
    client.subscribe(("t", 0))
    client.get_stuck()
    world.join("pub").publish("t", "1").publish("t", "2")
    client.drop()
    world.settle()
    assert (world.exchange.stats.dropped, world.exchange.stats.publish_sent) == (2, 0)
    client.connection.relieve()
    client.connection.congest(5)
    client.connection.progress(5.0)
    brackets(world)


# --- floods ------------------------------------------------------------------------------------------------------


def test_a_flood_is_served_in_shares(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has used up their share of a turn goes on when others had theirs."""
    monkeypatch.setattr(world.exchange.account, "share", 500)
    clients = [world.join(f"c{i}") for i in range(10)]
    for client in clients:
        client.subscribe(("t", 0)).take()
    publisher, other = world.join("pub"), world.join("other")
    publisher.feed(publish(b"t", b"x") * 2_000)
    assert not publisher.is_read()
    other.feed(PINGREQ)
    world.turn()
    first = [len(client.take()) for client in clients]
    # 256 packets are 256 units, and their 2,560 deliveries another 320.
    assert (first, other.take()) == ([SLICE * 2] * 10, [("PINGRESP",)])
    world.settle()
    assert [len(client.take()) for client in clients] == [2_000 - 2 * SLICE] * 10
    assert publisher.is_read()
    brackets(world)


def test_a_flood_of_queued_messages_counts_too(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(account, "SHARE", 500)
    for i in range(10):
        world.join(f"c{i}", clean=False).subscribe(("t", 1)).drop()
    publisher = world.join("pub")
    publisher.feed(publish(b"t", b"x", qos=1, packet_id=3) * 2_000)
    assert not publisher.is_read()
    world.settle()
    assert publisher.take() == [("PUBACK", 3)] * 2_000
    assert publisher.is_read()
    brackets(world)


def test_a_client_that_leaves_in_the_middle_of_its_flood_does_no_harm(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(account, "SHARE", 100)
    client = world.join("c")
    client.subscribe(("t", 0)).take()
    publisher = world.join("pub")
    publisher.feed(publish(b"t", b"x") * 2_000)
    publisher.drop()
    assert 0 < len(client.take()) < 2_000
    brackets(world)


def test_a_message_to_a_crowd_ends_a_share_between_two_packets(world: World) -> None:
    """The packets behind it wait, and none is lost or comes twice."""
    readers = [world.join(f"c{i}") for i in range(100)]
    for reader in readers:
        reader.subscribe(("t", 0)).take()
    publisher = world.join("pub")
    publisher.feed(b"".join(publish(b"t", b"%d" % each) for each in range(1_000)) + PINGREQ)
    assert not publisher.is_read()
    world.turn()
    assert (publisher.take(), publisher.is_read()) == ([], False)
    shares = len(readers[0].take()) * 100 / DELIVERIES / SHARE
    assert 1 < shares < 2
    world.settle()
    assert readers[99].payloads() == [str(each) for each in range(1_000)]
    assert publisher.take() == [("PINGRESP",)]
    brackets(world)


def test_a_crowd_gets_little_each_and_whoever_comes_last_is_served(world: World) -> None:
    """However many have much to do in a turn, the turn stays short."""
    crowd = [world.join(f"c{i}") for i in range(20)]
    last = world.join("last")
    for client in crowd:
        client.feed(PINGREQ * 10_000)
    last.feed(PINGREQ)
    assert world.exchange.account.spent <= TURN + SHARE + 20 * max(LEAST, SLICE)
    world.turn()
    assert last.take() == [("PINGRESP",)]
    world.settle()
    assert [len(client.take()) for client in crowd] == [10_000] * 20
    brackets(world)


def test_a_long_subscribe_is_worked_on_over_several_turns(world: World) -> None:
    """Others have theirs meanwhile; it is answered once, and what comes behind it waits."""
    client, other = world.join("c"), world.join("other")
    filters = [(b"a/%d/+" % each, each % 2) for each in range(5_000)]
    client.feed(subscribe(7, *filters) + PINGREQ)
    assert (client.is_read(), client.take()) == (False, [])
    other.feed(PINGREQ)
    world.turn()
    assert (other.take(), client.take()) == ([("PINGRESP",)], [])
    turns = world.turns
    world.settle()
    assert world.turns - turns > 3
    assert client.take() == [("SUBACK", 7, [qos for _, qos in filters]), ("PINGRESP",)]
    assert len(world.session("c").subscriptions or ()) == 5_000
    client.feed(unsubscribe(8, *(topic_filter for topic_filter, _ in filters)))
    assert (client.is_read(), client.take()) == (False, [])
    world.settle()
    assert (client.take(), world.session("c").subscriptions) == ([("UNSUBACK", 8)], {})
    brackets(world)


def test_of_a_long_subscribe_that_is_malformed_nothing_is_done(world: World) -> None:
    client = world.join("c", clean=False)
    client.feed(subscribe(7, *((b"a/%d/+" % each, 0) for each in range(5_000)), (b"a/#/b", 0)))
    world.settle()
    assert (client.closed, world.session("c").subscriptions) == (True, None)
    brackets(world)


def test_who_leaves_in_the_middle_of_a_long_subscribe_does_no_harm(world: World) -> None:
    client = world.join("c")
    client.feed(subscribe(7, *((b"a/%d/+" % each, 0) for each in range(5_000))))
    client.drop()
    world.settle()
    assert ("c" in world.exchange.sessions, world.exchange.router.count) == (False, 0)
    brackets(world)


# --- bugs --------------------------------------------------------------------------------------------------------


def test_a_bug_closes_that_client_s_connection_and_is_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    witness = world.join("witness")
    witness.subscribe(("#", 0)).take()
    client = world.join("c", will=("w", "gone", 0, False))

    def broken(*arguments: object) -> None:
        raise ZeroDivisionError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(world.exchange.subscriptions, "subscribe", broken)
        client.subscribe(("t", 0))
    assert (client.closed, witness.payloads(), world.exchange.stats.bugs) == (True, ["gone"], 1)
    [(_, event, fields)] = [line for line in world.log.lines if line[0] == "exception"]
    assert (event, fields["client"], repr(fields["error"])) == (
        "bug: it closes this client's connection", "c", "ZeroDivisionError('a bug')",
    )  # fmt: skip
    witness.ping()
    assert witness.take() == [("PINGRESP",)]


def test_a_bug_while_a_connection_is_closed_leaves_no_socket_open(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = world.join("c", keep_alive=10)

    def broken(*arguments: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(world.exchange.sessions, "discard", broken)
    with pytest.raises(ZeroDivisionError):
        client.connection.close("for a test")
    assert (client.closed, len(world.timers)) == (True, 0)


# --- small things ------------------------------------------------------------------------------------------------


def rights_of(client: Client) -> object:
    return client.connection.current_rights()


def test_current_rights_ask_the_listener_again(world: World) -> None:
    client = world.join("c", username="u")
    before = rights_of(client)
    world.gatekeeper.granted["u"] = rights = object()  # type: ignore[assignment]
    assert (before, rights_of(client)) == (None, rights)


def test_a_refused_client_s_name_is_not_taken_from_a_malformed_connect(world: World) -> None:
    world.dial().send(connect(b"\xff"))
    [fields] = world.log.fields("connection closed before it was accepted")
    assert set(fields) == {"address", "reason"}


@pytest.mark.parametrize("make", [lambda client: client.drop(), lambda client: client.disconnect()])
def test_closing_is_told_once(world: World, make: Callable[[Client], Client]) -> None:
    client = make(world.join("c"))
    client.connection.close("again")
    client.connection.lost("again")
    assert len(world.log.fields("client disconnected")) == 1


def test_many_clients_at_once_keep_their_sessions_apart() -> None:
    world = World(limits=Limits(max_inflight=2))
    clients = [world.join(f"c{i}", clean=bool(i % 2)) for i in range(40)]
    for i, client in enumerate(clients):
        client.subscribe((f"t/{i}", i % 3), ("all", 1)).take()
    publisher = world.join("pub")
    publisher.feed(*(publish(b"t/%d" % i, b"%d" % i, qos=2, packet_id=i + 1) for i in range(40)))
    publisher.publish("all", "all", 1, 50)
    for i, client in enumerate(clients):
        assert sorted(one[2] for one in client.take()) == sorted([str(i), "all"])
        session = world.session(f"c{i}")
        assert isinstance(session, Session)
        assert session.connection is client.connection
    brackets(world)


def test_a_client_whose_packets_need_more_memory_than_there_is_is_ended(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    witness = world.join("witness")
    witness.subscribe(("#", 0)).take()
    client = world.join("c", will=("w", "gone", 0, False))

    def exhausted(*arguments: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(world.exchange.subscriptions, "subscribe", exhausted)
        client.subscribe(("t", 0))
    assert (client.closed, witness.payloads(), world.exchange.stats.bugs) == (True, ["gone"], 0)
    assert [fields["reason"] for fields in world.log.fields("client disconnected")] == [
        "no memory is left for what this client sends"
    ]
    brackets(world)
