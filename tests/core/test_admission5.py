"""CONNECT and CONNACK of MQTT 5.0: what broker and client tell each other, and each refusal by its reason code."""

from __future__ import annotations

from typing import Any

import pytest

from broker.wire.codes import ReasonCode, ReturnCode
from tests.core.harness import World, brackets
from tests.core.harness5 import Client5, Packet5, dial5, join5, properties
from tests.vectors import connect, string
from tests.vectors5 import connect5, section

NEVER = 0xFFFFFFFF
#: What the harness takes, and says.
LARGEST = 1 << 20


@pytest.fixture
def world() -> World:
    return World()


def knock(world: World, data: bytes) -> Packet5:
    """The answer to this CONNECT."""
    client = dial5(world)
    client.send(data)
    answer = client.answer()
    assert answer.name == "CONNACK"
    assert client.closed == (answer.reason != 0)
    return answer


def told(world: World, client_id: bytes = b"c", flags: int = 0x02, keep_alive: int = 60, **said: Any) -> dict[str, Any]:
    """What a CONNACK tells to a client that says this."""
    answer = knock(world, connect5(client_id, *properties(**said), flags=flags, keep_alive=keep_alive))
    assert answer.reason == 0
    return dict(answer.properties)


def with_will(qos: int = 0, retain: bool = False, topic: bytes = b"w") -> bytes:
    return connect5(flags=0x06 | qos << 3 | retain << 5, will=section() + string(topic) + string(b"gone"))


# --- what is told ------------------------------------------------------------------------------------------------


def test_what_could_be_assumed_is_not_told(world: World) -> None:
    """Trap 34: Maximum QoS is never 2 [MQTT5-3.2.2-9]."""
    assert told(world) == {"largest": LARGEST}
    brackets(world)


def test_what_the_broker_does_not_have_is_told(world: World) -> None:
    """[MQTT5-3.2.2-9]"""
    limits = world.limits
    limits.max_qos, limits.receive_maximum, limits.max_topic_alias = 1, 20, 7
    limits.retain_available = limits.wildcard_available = limits.shared_available = False
    assert told(world) == {
        "largest": LARGEST,
        "maximum_qos": 1,
        "receive_maximum": 20,
        "alias_maximum": 7,
        "retain_available": 0,
        "wildcard": 0,
        "shared": 0,
    }


def test_a_client_of_mqtt_3_1_1_hears_nothing_of_it(world: World) -> None:
    world.limits.max_qos = 1
    client = world.dial().send(connect())
    assert bytes(client.transport.taken) == b"\x20\x02\0\0"


@pytest.mark.parametrize(
    ("most", "asked", "granted"),
    [(0.0, 60, None), (0.0, NEVER, None), (60.0, 60, None), (60.0, 61, 60), (60.0, NEVER, 60), (60.0, None, None)],
)
def test_a_session_expiry_that_is_cut_is_told(
    world: World, most: float, asked: int | None, granted: int | None
) -> None:
    """Trap 6: 3.2.2.3.2; of one that is never to end, too."""
    world.limits.max_session_expiry = most
    answer = told(world) if asked is None else told(world, session_expiry=asked)
    assert answer.get("session_expiry") == granted


@pytest.mark.parametrize("flags", [0x00, 0x02])
def test_a_client_without_an_identifier_is_told_the_one_that_it_got(world: World, flags: int) -> None:
    """Trap 28: with Clean Start 0, too [MQTT5-3.1.3-6] [MQTT5-3.1.3-7] [MQTT5-3.2.2-16]."""
    assert told(world, b"", flags, session_expiry=60)["assigned"] == "auto-1"
    assert world.session("auto-1").connection is not None
    assert "assigned" not in told(world, b"mine", flags)
    brackets(world)


@pytest.mark.parametrize(
    ("limit", "asked", "kept"), [(0, 60, None), (0, 0, None), (50, 50, None), (50, 51, 50), (50, 0, 50)]
)
def test_another_keep_alive_than_asked_for_is_told(world: World, limit: int, asked: int, kept: int | None) -> None:
    """Trap 35: where it differs; else the client's holds [MQTT5-3.2.2-21] [MQTT5-3.2.2-22]."""
    world.gatekeeper.max_keepalive = float(limit)
    client = dial5(world)
    client.send(connect5(keep_alive=asked))
    assert client.answer().properties.get("keep_alive") == kept
    holds = (kept or asked) * 1.5
    if not holds:
        world.advance(100_000)
        assert not client.closed
        return
    world.advance(holds - 1)
    assert not client.closed
    world.advance(2)
    assert client.answer()[:2] == ("DISCONNECT", ReasonCode.KEEP_ALIVE_TIMEOUT)


@pytest.mark.parametrize(
    ("pattern", "client_id", "said"),
    [
        ("replies/%c/", b"c", "replies/c/"),
        ("%u/%c", b"c", "ann/c"),
        ("fixed", b"c", "fixed"),
        ("replies/%c/", b"a/b", None),
        ("replies/%c/", b"#", None),
        ("replies/", b"#", "replies/"),
        ("%c", b"%u", "%u"),
        ("", b"c", None),
    ],
)
def test_response_information_where_it_is_asked_for(
    world: World, pattern: str, client_id: bytes, said: str | None
) -> None:
    """[MQTT5-3.1.2-28]; nothing that makes a topic of somebody else, or a filter."""
    world.limits.response_information = pattern
    ann = {"flags": 0x82, "rest": string(b"ann")}
    asked = knock(world, connect5(client_id, b"\x19\1", **ann))  # type: ignore[arg-type]
    assert asked.properties.get("response_information") == said
    for unasked in (b"\x19\0", b""):
        answer = knock(world, connect5(client_id, unasked, **ann))  # type: ignore[arg-type]
        assert "response_information" not in answer.properties


def test_response_information_with_a_user_name_needs_one(world: World) -> None:
    world.limits.response_information = "%u/%c"
    assert "response_information" not in knock(world, connect5(b"c", b"\x19\1")).properties


def test_a_password_without_a_user_name_is_legal(world: World) -> None:
    """Trap 40: 3.1.2.9."""
    assert knock(world, connect5(flags=0x42, rest=string(b"secret"))).reason == 0
    assert (world.gatekeeper.asked[0].username, world.gatekeeper.asked[0].password) == (None, b"secret")


def test_whether_a_session_was_there_is_told(world: World) -> None:
    """[MQTT5-3.2.2-2] [MQTT5-3.2.2-3] [MQTT5-3.1.2-4]"""
    asked = connect5(b"c", *properties(session_expiry=60), flags=0)
    assert [knock(world, asked).present for _ in range(2)] == [0, 1]
    assert knock(world, connect5(b"c")).present == 0


# --- refusals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "reason", "words"),
    [
        (2, 0x85, "the gatekeeper of a test says so"),
        (3, 0x89, "the gatekeeper of a test says so"),
        (4, 0x86, "the user name or the password is wrong"),
        (5, 0x87, "not authorised"),
    ],
)
def test_what_the_gatekeeper_refuses(world: World, code: int, reason: int, words: str) -> None:
    """The log says more than the client hears: it could find out who the users are [MQTT5-3.2.2-6]."""
    world.gatekeeper.code = ReturnCode(code)
    answer = knock(world, connect5())
    assert (answer.reason, answer.present, dict(answer.properties)) == (reason, 0, {"reason_string": words})
    [line] = world.log.fields("client refused")
    assert (line["code"], line["reason"]) == (f"{reason:#04x}", "the gatekeeper of a test says so")
    brackets(world)


def test_words_only_for_who_wants_them(world: World) -> None:
    """Trap 30 [MQTT5-3.1.2-29]."""
    world.gatekeeper.code = ReturnCode.NOT_AUTHORIZED
    assert knock(world, connect5(b"c", b"\x17\0")).properties == {}


def test_words_only_where_they_fit(world: World) -> None:
    """[MQTT5-3.2.2-19] [MQTT5-3.1.2-24]"""
    world.gatekeeper.code = ReturnCode.NOT_AUTHORIZED
    whole = knock(world, connect5())
    assert knock(world, connect5(b"c", *properties(largest=whole.size))) == whole
    assert knock(world, connect5(b"c", *properties(largest=whole.size - 1))).properties == {}
    client = dial5(world)
    client.send(connect5(b"c", *properties(largest=4)))
    assert (client.get(), client.closed) == ([], True)


def test_who_takes_no_connack_at_all_is_not_let_in(world: World) -> None:
    """[MQTT5-3.1.2-24]"""
    client = dial5(world)
    client.send(connect5(b"c", *properties(largest=9)))
    assert (client.get(), client.closed, "c" in world.exchange.sessions) == ([], True, False)
    assert dial5(world).send(connect5(b"c", *properties(largest=10))).closed is False
    brackets(world)


def test_response_information_gives_way(world: World) -> None:
    world.limits.response_information = "x" * 100
    assert told(world, largest=50)["largest"] == LARGEST


@pytest.mark.parametrize("version", [4, 5])
def test_no_room(world: World, version: int) -> None:
    world.room = 0
    if version == 4:
        assert world.dial().send(connect()).take() == [("CONNACK", 0, 3)]
    else:
        assert knock(world, connect5()).reason == ReasonCode.QUOTA_EXCEEDED


def test_no_room_for_a_session(world: World) -> None:
    world.limits.max_sessions = 0
    answer = knock(world, connect5(b"c", *properties(session_expiry=60)))
    assert answer.reason == ReasonCode.QUOTA_EXCEEDED
    assert "max_sessions" in answer.properties["reason_string"]
    assert told(world) == {"largest": LARGEST}


def test_a_broker_that_ends_takes_nobody(world: World) -> None:
    """3.2.2.3.16: nobody is told of another broker where there is none."""
    world.exchange.closing = True
    assert knock(world, connect5())[:2] == ("CONNACK", ReasonCode.SERVER_UNAVAILABLE)
    world.limits.server_reference = "other.example:1883"
    answer = knock(world, connect5())
    assert (answer.reason, answer.properties["reference"]) == (ReasonCode.USE_ANOTHER_SERVER, "other.example:1883")
    assert world.dial().send(connect()).take() == [("CONNACK", 0, 3)]


@pytest.mark.parametrize(("moved", "reason"), [("for now", 0x9C), ("for good", 0x9D)])
def test_a_broker_that_has_moved_takes_nobody(world: World, moved: str, reason: int) -> None:
    world.limits.moved, world.limits.server_reference = moved, "other.example"
    answer = knock(world, connect5(b"c", b"\x17\0"))
    assert (answer.reason, dict(answer.properties)) == (reason, {"reference": "other.example"})
    assert world.dial().send(connect()).take() == [("CONNACK", 0, 3)]
    assert world.gatekeeper.asked == []


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (with_will(qos=2), 0x9B),  # [MQTT5-3.2.2-12]
        (with_will(retain=True), 0x9A),  # [MQTT5-3.2.2-13]
        (with_will(qos=1), 0),
    ],
)
def test_a_will_that_the_broker_does_not_have(world: World, data: bytes, reason: int) -> None:
    world.limits.max_qos, world.limits.retain_available = 1, False
    assert knock(world, data).reason == reason


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (connect5(b"c", b"\x11\0\0\0\1", b"\x11\0\0\0\1"), 0x82),  # twice
        (connect5(b"c", b"\x21\0\0"), 0x82),  # Receive Maximum 0
        (connect5(b"c", b"\x27\0\0\0\0"), 0x82),  # Maximum Packet Size 0
        (connect5(b"c", b"\x16" + string(b"x")), 0x82),  # Authentication Data alone
        (connect5(b"c", b"\x23\0\1"), 0x81),  # a Topic Alias
        (connect5(flags=0x03), 0x81),  # [MQTT5-3.1.2-3]
        (connect5(rest=b"x"), 0x81),
        (with_will(topic=b"a/#"), 0x90),
        (with_will(topic=b"a/" * 300), 0x90),
    ],
)
def test_what_is_wrong_with_a_connect(world: World, data: bytes, reason: int) -> None:
    """Trap 31: [MQTT5-2.2.2-2] [MQTT5-3.1.4-1] [MQTT5-4.13.1-1]; the answer comes in the words of MQTT 5.0."""
    answer = knock(world, data)
    assert (answer.reason, bool(answer.properties["reason_string"])) == (reason, True)
    assert world.exchange.stats.protocol_errors == 1
    brackets(world)


def test_a_connect_that_is_too_large(world: World) -> None:
    """Its beginning says that it is one of MQTT 5.0."""
    client = Client5(world)
    client.connection._decoder.max_size = 1024
    client.send(connect5(b"c" * 2000))
    assert client.answer()[:2] == ("CONNACK", ReasonCode.PACKET_TOO_LARGE)


def test_a_version_that_is_not_taken(world: World) -> None:
    """In the words of the version that was asked for, if that is known [MQTT5-3.1.2-2] [MQTT-3.1.2-2]."""
    five, other = dial5(world), world.dial()
    for client in (five, other):
        client.connection._decoder.versions = frozenset({4})
    five.send(connect5())
    assert five.answer()[:2] == ("CONNACK", ReasonCode.UNSUPPORTED_PROTOCOL_VERSION)
    assert other.send(connect(level=6)).take() == [("CONNACK", 0, 1)]


# --- the session of somebody who is there ------------------------------------------------------------------------


def test_who_is_taken_over_is_told(world: World) -> None:
    """Trap 13: DISCONNECT 0x8E [MQTT5-3.1.4-3]; but not by whom."""
    old = join5(world, "c")
    new = join5(world, "c")
    answer = old.answer()
    assert (answer.name, answer.reason, old.closed, new.closed) == ("DISCONNECT", 0x8E, True, False)
    assert answer.properties == {"reason_string": "another client has connected with this Client Identifier"}
    brackets(world)


def test_one_of_mqtt_3_1_1_is_taken_over_without_a_word(world: World) -> None:
    old = world.join("c")
    join5(world, "c")
    assert (old.take(), old.closed) == ([], True)


def test_what_a_client_says_that_it_takes_is_known(world: World) -> None:
    client = join5(world, "c", receive_maximum=3, largest=1000, alias_maximum=4, problem=0)
    one = client.connection
    assert (one.receive_maximum, one.largest, one.alias_maximum, one.problem_information) == (3, 1000, 4, False)
    old = world.join("d").connection
    assert (old.receive_maximum, old.largest, old.alias_maximum, old.problem_information) == (65_535, 0, 0, True)


def test_the_log_says_which_version_it_is(world: World) -> None:
    join5(world, "c")
    assert [line["version"] for line in world.log.fields("client connected")] == ["5.0"]


# --- what a client of MQTT 3.1.1 gets of it ----------------------------------------------------------------------


def test_a_qos_that_is_not_served(world: World) -> None:
    """[MQTT5-3.2.2-10]: a subscription is granted what there is."""
    world.limits.max_qos = 1
    client = world.join("c")
    assert client.subscribe(("a", 2), ("b", 0)).take() == [("SUBACK", 1, [1, 0])]
    assert client.publish("a", "x", 1, 7).take()[1:] == [("PUBACK", 7)]
    client.publish("a", "x", 2, 8)
    assert (client.take(), client.closed) == ([], True)
    five = join5(world, "five")
    five.ask(("a", 2), ("b", 0))
    five.publish5("a", "x", 2, 8)
    assert (five.answer()[:2], five.closed) == (("DISCONNECT", ReasonCode.QOS_NOT_SUPPORTED), True)
    brackets(world)


def test_nothing_is_retained_where_that_is_not_available(world: World) -> None:
    world.limits.retain_available = False
    client = world.join("c")
    client.subscribe(("a", 0)).take()
    client.publish("a", "x", retain=True)
    assert (client.payloads(), world.exchange.retained.count, client.closed) == (["x"], 0, False)
    assert (
        len(world.log.fields("nothing is retained here (retain_available): this message is delivered, but not kept"))
        == 1
    )
    five = join5(world, "five")
    five.publish5("a", "x", retain=True)
    assert (five.answer()[:2], five.closed) == (("DISCONNECT", ReasonCode.RETAIN_NOT_SUPPORTED), True)
