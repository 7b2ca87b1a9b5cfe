"""Sessions whose clients change their version: messages, properties and exchanges of QoS 2 go on."""

from __future__ import annotations

from typing import Any

import pytest

from tests.core.harness import Client, World, brackets
from tests.core.harness5 import Client5, join5

TOLD: dict[str, Any] = {
    "content_type": "a/b",
    "user": [("k", "v"), ("k", "w")],
    "format": 1,
    "response_topic": "r",
    "correlation": "c",
}


@pytest.fixture
def world() -> World:
    return World()


def resume(world: World, version: int) -> Client:
    return join5(world, "c", clean=False) if version == 5 else world.join("c", clean=False)


def got(client: Client) -> list[tuple[str, str, int, str]]:
    """Name, payload, identifier and flags of all that came."""
    if isinstance(client, Client5):
        return [(one.name, one.payload, one.packet_id, one.flags) for one in client.get()]
    return [(one[0], *((one[2], one[4], one[5]) if one[0] == "PUBLISH" else ("", one[1], ""))) for one in client.take()]


@pytest.mark.parametrize("qos", [1, 2])
def test_properties_wait_for_whoever_can_read_them(world: World, qos: int) -> None:
    """Trap 38: they are cut for a client of MQTT 3.1.1 when it is sent the message, and not before."""
    world.limits.max_inflight = 1
    join5(world, "c", clean=False).ask(("t", qos)).bye()
    writer = join5(world, "writer")
    for index in (1, 2, 3):
        writer.publish5("t", str(index), qos, index, **TOLD)
    old = resume(world, 4)
    [(_, payload, packet_id, _)] = got(old)
    assert payload == "1"
    old.drop()
    new = resume(world, 5)
    assert isinstance(new, Client5)
    messages = new.messages()
    assert [(one.payload, one.flags) for one in messages] == [("1", "dup"), ("2", ""), ("3", "")]
    assert messages[0].packet_id == packet_id
    assert [one.properties for one in messages] == [TOLD] * 3
    brackets(world)


@pytest.mark.parametrize(("before", "after"), [(4, 5), (5, 4)])
def test_an_exchange_of_qos_2_goes_on(world: World, before: int, after: int) -> None:
    """Trap 38, to the client: PUBLISH again before its PUBREC, PUBREL again behind it."""
    client = resume(world, before)
    client.ask(("t", 2)) if isinstance(client, Client5) else client.subscribe(("t", 2)).take()
    writer = world.join("writer")
    writer.publish("t", "1", 2, 1).publish("t", "2", 2, 2)
    [(_, _, first, _), (_, _, second, _)] = got(client)
    client.pubrec(first)
    assert got(client) == [("PUBREL", "", first, "")]
    client.drop()
    client = resume(world, after)
    assert got(client) == [("PUBREL", "", first, ""), ("PUBLISH", "2", second, "dup")]
    client.pubcomp(first).pubrec(second)
    client.drop()
    client = resume(world, before)
    assert got(client) == [("PUBREL", "", second, "")]
    client.pubcomp(second)
    assert world.session("c").queue.count == 0  # type: ignore[union-attr]
    brackets(world)


@pytest.mark.parametrize(("before", "after"), [(4, 5), (5, 4)])
def test_a_message_of_qos_2_from_the_client_is_delivered_once(world: World, before: int, after: int) -> None:
    """Trap 38, from the client [MQTT5-4.3.3-10]."""
    reader = world.join("reader")
    reader.subscribe(("t", 0)).take()
    for version in (before, after):
        client = resume(world, version)
        if isinstance(client, Client5):
            client.publish5("t", "x", 2, 5, dup=version == after)
        else:
            client.publish("t", "x", 2, 5, dup=version == after)
        assert [one[0] for one in got(client)] == ["PUBREC"]
        client.drop()
    assert reader.payloads() == ["x"]


@pytest.mark.parametrize("clean", [True, False])
def test_who_comes_back_with_another_version_gets_what_it_can_read(world: World, clean: bool) -> None:
    """Routes are made anew, with any number of readers."""
    writers = [world.join("w4"), join5(world, "w5")]
    others = [join5(world, "o5").ask(("t", 1)), world.join("o4")]
    others[1].subscribe(("t", 1)).take()
    client = resume(world, 5)
    assert isinstance(client, Client5)
    client.ask(("t", 1), ("z", 0))
    number = 0
    for version in (5, 4, 5, 4):
        for writer in writers:
            number += 1
            if isinstance(writer, Client5):
                writer.publish5("t", f"m{number}", 1, number).publish5("z", f"m{number}")
            else:
                writer.publish("t", f"m{number}", 1, number).publish("z", f"m{number}")
            found = got(client)
            assert [one[1] for one in found] == [f"m{number}"] * 2
            client.puback(*(one[2] for one in found if one[2]))
        client.disconnect() if not isinstance(client, Client5) else client.bye(session_expiry=3600)
        client = resume(world, 4 if version == 5 else 5)
    brackets(world)
