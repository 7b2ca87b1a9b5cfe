"""PUBLISH of MQTT 5.0: from and to clients of each version, at each QoS, with properties and reason codes."""

from __future__ import annotations

import itertools

import pytest

from tests.core.harness import Client, World, brackets
from tests.core.harness5 import Client5, join5

MIXED = {
    "format": 1,
    "content_type": "text/plain",
    "response_topic": "answers/1",
    "correlation": "c-1",
    "user": [("a", "1"), ("a", "2"), ("b", "")],
}


@pytest.fixture
def world() -> World:
    return World()


def received(client: Client) -> list[tuple[str, str, int]]:
    """Topic, payload and QoS of what came, each message answered to its end."""
    if isinstance(client, Client5):
        return [(one.topic, one.payload, one.qos) for one in client.messages()]
    found = []
    while packets := client.take():
        for one in packets:
            if one[0] == "PUBLISH":
                found.append((one[1], one[2], one[3]))
                if one[3] == 1:
                    client.puback(one[4])
                elif one[3] == 2:
                    client.pubrec(one[4])
            elif one[0] == "PUBREL":
                client.pubcomp(one[1])
    return found


def someone(world: World, version: int, name: str, clean: bool, *wanted: tuple[str, int]) -> Client:
    if version == 5:
        client = join5(world, name, clean=clean)
        return client.ask(*wanted) if wanted else client
    old = world.join(name, clean=clean)
    if wanted:
        old.subscribe(*wanted).take()
    return old


@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize(("writer", "reader"), [(5, 5), (5, 4), (4, 5)])
@pytest.mark.parametrize(("qos", "granted"), list(itertools.product((0, 1, 2), repeat=2)))
def test_a_message_goes_from_any_version_to_any(
    world: World, writer: int, reader: int, qos: int, granted: int, clean: bool
) -> None:
    """[MQTT5-3.8.4-8] [MQTT5-4.3.1-1] [MQTT5-4.3.2-1] [MQTT5-4.3.3-1]"""
    one = someone(world, reader, "reader", clean, ("a/+", granted))
    by = someone(world, writer, "writer", clean)
    for index in range(3):
        if isinstance(by, Client5):
            by.publish5("a/b", f"m{index}", qos, index + 1)
        else:
            by.publish("a/b", f"m{index}", qos, index + 1)
        if qos == 2:
            by.pubrel(index + 1)
    assert received(one) == [("a/b", f"m{index}", min(qos, granted)) for index in range(3)]
    answers = [(a.name, a.packet_id) for a in by.get()] if isinstance(by, Client5) else [a[:2] for a in by.take()]
    names: list[list[str]] = [[], ["PUBACK"], ["PUBREC", "PUBCOMP"]]
    assert answers == [(name, index + 1) for index in range(3) for name in names[qos]]
    brackets(world)
