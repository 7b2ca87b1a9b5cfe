"""Layers that tell of every packet, while somebody wants to hear it."""

from __future__ import annotations

import pytest

from broker.core.trace import TracedDecoder, TracedTransport, watch
from tests.core.harness import FakeTransport, World

PACKETS = ("received", "sent")


def packets(world: World) -> list[tuple[str, dict[str, object]]]:
    return [
        (event, fields) for level, event, fields in world.log.lines if event.startswith(PACKETS) and level == "debug"
    ]


@pytest.fixture
def world() -> World:
    world = World()
    world.log.debugging = True
    return world


def test_each_packet_is_told_with_its_client_in_both_directions(world: World) -> None:
    client = world.dial()
    watch(client.connection, world.log)
    client.connect("c")
    client.subscribe(("t", 1)).publish("t", "x", 1, 5, retain=True)
    assert packets(world) == [
        ("received CONNECT", {"address": "192.0.2.1:1000", "client": "c", "version": "3.1.1", "clean": True,
                              "keep_alive": 0}),
        ("sent CONNACK", {"client": "c", "code": 0, "session_present": False}),
        ("received SUBSCRIBE", {"client": "c", "packet_id": 1, "filters": b"t:1"}),
        ("sent SUBACK", {"client": "c", "packet_id": 1, "codes": b"1"}),
        ("received PUBLISH", {"client": "c", "packet_id": 5, "topic": b"t", "qos": 1, "retain": True,
                              "payload_size": 1}),
        ("sent PUBLISH", {"client": "c", "packet_id": 1, "topic": b"t", "qos": 1, "payload_size": 1}),
        ("sent PUBACK", {"client": "c", "packet_id": 5}),
    ]  # fmt: skip


def test_a_refusal_is_told_too(world: World) -> None:
    world.gatekeeper.code = 5  # type: ignore[assignment]
    client = world.dial()
    watch(client.connection, world.log)
    client.connect("c")
    assert packets(world)[1] == ("sent CONNACK", {"address": "192.0.2.1:1000", "code": 5, "session_present": False})


def test_it_can_be_switched_on_and_off_in_the_midst_of_a_packet(world: World) -> None:
    client = world.join("c")
    whole = b"\x30\x81\x01\x00\x01t" + bytes(126)
    client.send(whole[:50])
    watch(client.connection, world.log)
    client.send(whole[50:] + whole[:100])
    world.log.debugging = False
    watch(client.connection, world.log)
    client.send(whole[100:] + whole)
    assert [event for event, _ in packets(world)] == ["received PUBLISH"]
    assert (world.exchange.stats.messages_received, client.closed) == (1 + 3, False)


def test_a_malformed_packet_ends_the_connection_as_ever(world: World) -> None:
    client = world.join("c")
    watch(client.connection, world.log)
    client.send(b"\xc0\x00\x00\x00")
    assert client.closed
    assert packets(world)[0] == ("received PINGREQ", {"client": "c"})
    assert "protocol error" in str(world.log.fields("client disconnected")[0]["reason"])


def test_watching_twice_is_watching_once(world: World) -> None:
    client = world.join("c")
    for _ in range(3):
        watch(client.connection, world.log)
    client.send(b"\xc0\x00")
    assert [event for event, _ in packets(world)] == ["received PINGREQ", "sent PINGRESP"]


def test_when_nobody_wants_it_nothing_is_in_the_way(world: World) -> None:
    """No layer, and so no cost."""
    client = world.join("c")
    connection = client.connection
    before = type(connection._decoder), type(connection._transport)
    watch(connection, world.log)
    assert (type(connection._decoder), type(connection._transport)) == (TracedDecoder, TracedTransport)
    world.log.debugging = False
    watch(connection, world.log)
    assert (type(connection._decoder), type(connection._transport)) == before
    assert isinstance(connection._transport, FakeTransport)


def test_pauses_go_through(world: World) -> None:
    """A client that is watched is held back as any other."""
    world.gatekeeper.slow = True
    client = world.dial()
    watch(client.connection, world.log)
    client.connect("c")
    client.send(b"\xc0\x00")
    assert not client.is_read()
    world.gatekeeper.pending.pop()(world.gatekeeper.code)
    world.settle()
    assert client.is_read()
    assert client.take() == [("CONNACK", 0, 0), ("PINGRESP",)]
