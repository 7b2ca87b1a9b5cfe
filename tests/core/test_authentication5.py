"""AUTH (MQTT 5.0, section 4.12): who may say what when, and what follows from how it ends."""

from __future__ import annotations

from typing import Any

import pytest

from broker.core.authentication import Authentication
from broker.core.ports import Challenge, Failed, Outcome, Proved
from broker.wire.codes import ReasonCode, ReturnCode
from tests.core.harness import World, brackets
from tests.core.harness5 import Client5, dial5, properties
from tests.vectors import string
from tests.vectors5 import auth5, connect5, disconnect5, publish5

METHOD = "SCRAM-SHA-256"
CONTINUE, AGAIN = 0x18, 0x19
PROVED = Proved("ann", b"v=right")
FAILED = Failed(ReturnCode.BAD_USER_NAME_OR_PASSWORD, "wrong password", "ann")


@pytest.fixture
def world() -> World:
    return World()


def login(data: str = "", *, username: str | None = None, method: str = METHOD, **said: Any) -> bytes:
    """A CONNECT with a method."""
    if data:
        said["data"] = data
    flags, rest = (0x82, string(username.encode())) if username is not None else (0x02, b"")
    return connect5(b"c", *properties(method=method, **said), flags=flags, keep_alive=0, rest=rest)


def auth(data: str = "", reason: int = CONTINUE, method: str = METHOD) -> bytes:
    return auth5(reason, *properties(method=method, **({"data": data} if data else {})))


def begin(world: World, *outcomes: Outcome, slow: bool = False, data: str = "first", **options: Any) -> Client5:
    """A client that has sent its CONNECT."""
    world.gatekeeper.outcomes += outcomes
    world.gatekeeper.slow = slow
    client = dial5(world)
    client.send(login(data, **options))
    return client


def enter(world: World, **options: Any) -> Client5:
    """A client that is in."""
    client = begin(world, PROVED, **options)
    answer = client.answer()
    assert (answer.name, answer.reason) == ("CONNACK", 0)
    return client


# --- a client that comes in --------------------------------------------------------------------------------------


@pytest.mark.parametrize("slow", [False, True])
def test_in_two_steps(world: World, slow: bool) -> None:
    """Trap 32: each packet has the method [MQTT5-4.12.0-2] [MQTT5-4.12.0-5]."""
    client = begin(world, Challenge(b"salt"), PROVED, slow=slow)

    def decided() -> None:
        if slow:
            assert client.get() == []
            world.gatekeeper.steps.pop(0)()
            world.settle()

    decided()
    answer = client.answer()
    assert (answer.name, answer.reason, answer.properties) == ("AUTH", CONTINUE, {"method": METHOD, "data": "salt"})
    client.send(auth("proof"))
    decided()
    answer = client.answer()
    assert (answer.name, answer.reason) == ("CONNACK", 0)
    assert (answer.properties["method"], answer.properties["data"]) == (METHOD, "v=right")
    assert world.gatekeeper.told == [("c", None, b"first"), ("c", None, b"proof")]
    assert (world.session("c").username, world.session("c").proven_name) == ("ann", "ann")
    assert world.gatekeeper.asked == []
    brackets(world)


def test_what_stands_behind_waits(world: World) -> None:
    """A client may send its answer in one block with others, when it is in."""
    client = begin(world, Challenge(b"salt"), PROVED)
    client.get()
    client.send(auth("proof") + publish5(b"t", b"x", qos=1, packet_id=5))
    assert [one.name for one in client.get()] == ["CONNACK", "PUBACK"]


def test_the_session_of_others_is_not_to_be_had(world: World) -> None:
    """Who the client is, is known at the end only."""
    world.join("c", clean=False, username="bob").drop()
    client = begin(world, PROVED)
    assert (client.answer().reason, client.closed) == (ReasonCode.NOT_AUTHORIZED, True)


@pytest.mark.parametrize(("code", "reason"), [(2, 0x85), (3, 0x89), (4, 0x86), (5, 0x87)])
@pytest.mark.parametrize("slow", [False, True])
def test_a_failure(world: World, slow: bool, code: int, reason: int) -> None:
    """[MQTT5-4.12.0-4]: the client hears no more than the code."""
    client = begin(world, Challenge(b"salt"), Failed(ReturnCode(code), "no such user", "ann"))
    client.get()
    world.gatekeeper.slow = slow
    client.send(auth("proof"))
    if slow:
        world.gatekeeper.steps.pop()()
        world.settle()
    answer = client.answer()
    assert (answer.name, answer.reason, client.closed) == ("CONNACK", reason, True)
    [line] = world.log.fields("client refused")
    assert (line["user"], line["reason"]) == ("ann", "no such user")
    if code in (4, 5):
        assert "no such user" not in answer.properties["reason_string"]
    brackets(world)


def test_an_unknown_method(world: World) -> None:
    """[MQTT5-4.12.0-1]"""
    client = begin(world, method="KERBEROS")
    assert (client.answer()[:2], client.closed) == (("CONNACK", ReasonCode.BAD_AUTHENTICATION_METHOD), True)


@pytest.mark.parametrize(
    "data",
    [
        publish5(b"t", b"x"),  # [MQTT5-3.1.2-30]
        login(),
        auth("proof", AGAIN),
        auth("proof", method="SCRAM-SHA-512"),  # [MQTT5-4.12.0-5]
    ],
)
def test_what_may_not_be_said_before_connack(world: World, data: bytes) -> None:
    """[MQTT5-3.1.2-30]"""
    client = begin(world, Challenge(b"salt"))
    client.get()
    client.send(data)
    assert (client.answer()[:2], client.closed) == (("CONNACK", ReasonCode.PROTOCOL_ERROR), True)
    assert "c" not in world.exchange.sessions
    brackets(world)


def test_a_client_may_leave_in_the_middle(world: World) -> None:
    client = begin(world, Challenge(b"salt"))
    client.get()
    client.send(disconnect5(0))
    assert (client.get(), client.closed) == ([], True)
    late = begin(world, PROVED, slow=True)
    late.drop()
    assert world.gatekeeper.given_up_steps == [b"first"]
    world.gatekeeper.steps.pop()()
    world.settle()
    assert (late.get(), len(world.exchange.sessions)) == ([], 0)
    brackets(world)


def test_a_client_that_does_not_answer(world: World) -> None:
    """The time for CONNECT is that for all of it."""
    client = begin(world, Challenge(b"salt"))
    client.get()
    world.advance(9)
    assert client.transport.closed == 0
    world.advance(2)
    assert client.transport.closed > 0
    assert world.log.fields("connection closed before it was accepted")[0]["reason"] == (
        "no answer to the AUTH within connect_timeout"
    )


def test_an_auth_that_the_client_does_not_take(world: World) -> None:
    """[MQTT5-3.1.2-24]"""
    client = begin(world, Challenge(b"s" * 100), largest=60)
    assert (client.get(), client.closed) == ([], True)


# --- again -------------------------------------------------------------------------------------------------------


def test_a_client_authenticates_itself_again(world: World) -> None:
    """As the user that it is; and it goes on meanwhile [MQTT5-4.12.1-1]."""
    client = enter(world)
    world.gatekeeper.told.clear()
    world.gatekeeper.outcomes += [Challenge(b"salt"), PROVED]
    client.send(auth("first", AGAIN))
    answer = client.answer()
    assert (answer.name, answer.reason, answer.properties) == ("AUTH", CONTINUE, {"method": METHOD, "data": "salt"})
    client.publish5("t", "x", 1, 5)
    assert client.answer().name == "PUBACK"
    client.send(auth("proof"))
    answer = client.answer()
    assert (answer.name, answer.reason, answer.properties) == ("AUTH", 0, {"method": METHOD, "data": "v=right"})
    assert world.gatekeeper.told == [(None, "ann", b"first"), (None, "ann", b"proof")]
    brackets(world)


@pytest.mark.parametrize("slow", [False, True])
def test_a_second_time_that_fails_ends_the_connection(world: World, slow: bool) -> None:
    """Trap 32: by a DISCONNECT, never a second CONNACK [MQTT5-4.12.1-2]."""
    client = enter(world)
    world.gatekeeper.outcomes.append(FAILED)
    world.gatekeeper.slow = slow
    client.send(auth("first", AGAIN))
    if slow:
        client.ping()
        assert client.answer().name == "PINGRESP"
        world.gatekeeper.steps.pop()()
        world.settle()
    answer = client.answer()
    assert (answer.name, answer.reason, client.closed) == ("DISCONNECT", ReasonCode.NOT_AUTHORIZED, True)
    assert answer.properties == {"reason_string": "not authorised"}
    brackets(world)


@pytest.mark.parametrize(
    "data",
    [
        auth("first", AGAIN, "SCRAM-SHA-512"),  # [MQTT5-4.12.1-1]
        auth("proof"),  # nothing was asked
    ],
)
def test_what_may_not_be_said_by_who_is_in(world: World, data: bytes) -> None:
    client = enter(world)
    client.send(data)
    assert (client.answer()[:2], client.closed) == (("DISCONNECT", ReasonCode.PROTOCOL_ERROR), True)


def test_one_at_a_time(world: World) -> None:
    client = enter(world)
    world.gatekeeper.outcomes.append(PROVED)
    world.gatekeeper.slow = True
    client.send(auth("first", AGAIN))
    client.send(auth("first", AGAIN))
    assert (client.answer()[:2], client.closed) == (("DISCONNECT", ReasonCode.PROTOCOL_ERROR), True)
    assert world.gatekeeper.given_up_steps == [b"first"]


def test_many_in_one_block_take_several_turns(world: World) -> None:
    """It may take a millisecond to make a name comparable: others have their turn meanwhile."""
    client = enter(world)
    world.gatekeeper.outcomes += [Challenge(b"salt")] * 100
    client.feed(auth("x" * 4000, AGAIN) * 100)
    assert 0 < len(world.gatekeeper.told) < 10
    world.settle()
    assert [one.reason for one in client.get()] == [CONTINUE] * 100
    brackets(world)


def test_what_the_connect_held_is_not_kept(world: World) -> None:
    """What hears of the outcome holds the CONNECT, with its will."""
    client = enter(world)
    begun = client.connection.authentication
    assert isinstance(begun, Authentication)
    assert (begun.dialogue, begun.done.__closure__) == (None, None)


def test_without_a_method_there_is_no_auth(world: World) -> None:
    """[MQTT5-4.12.0-6] [MQTT5-4.12.0-7]"""
    client = dial5(world)
    client.send(connect5())
    assert "method" not in client.answer().properties
    client.send(auth("first", AGAIN))
    assert (client.answer()[:2], client.closed) == (("DISCONNECT", ReasonCode.PROTOCOL_ERROR), True)
