"""What clients of MQTT 5.0 are told by a broker that ends, is reloaded, or is asked for what it does not have."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.auth.passwords import set_password
from broker.core.ports import GIVEN_CLIENT_ID
from tests.broker_process import BrokerProcess, StartBroker
from tests.core.harness5 import Packet5, properties, read_packets5
from tests.raw_client import PINGREQ, PINGRESP, RawClient, connack, connect
from tests.vectors import string
from tests.vectors5 import connect5, publish5

ELSEWHERE = "other.example:1883"


def enter(
    broker: BrokerProcess, client_id: str = "c", *, username: str = "", **said: object
) -> tuple[RawClient, Packet5]:
    """A client of MQTT 5.0, and its CONNACK."""
    client = RawClient(broker.address)
    flags, rest = (0xC2, string(username.encode()) + string(b"secret")) if username else (0x02, b"")
    client.send(connect5(client_id.encode(), *properties(**said), flags=flags, rest=rest))
    [answer] = read_packets5(client.next())
    assert answer.name == "CONNACK"
    return client, answer


def end(client: RawClient) -> Packet5:
    """The DISCONNECT with which the broker closes."""
    [said] = read_packets5(client.closed())
    assert said.name == "DISCONNECT"
    return said


def test_a_client_is_told_what_is_so(start_broker: StartBroker) -> None:
    broker = start_broker(
        'max_session_expiry = "1h"\nmax_keepalive = 30\nreceive_maximum = 50\nmax_qos = 1\nmax_packet_size = "64 KiB"\n'
        "retain_available = false\nwildcard_available = false\nshared_available = false\n"
        'response_information = "replies/%c/"\n'
    )
    client, answer = enter(broker, "", session_expiry=0xFFFFFFFF)
    with client:
        assert answer.properties.pop("assigned").startswith(GIVEN_CLIENT_ID)  # type: ignore[attr-defined]
        assert answer.properties == {
            "session_expiry": 3600, "keep_alive": 30, "receive_maximum": 50, "maximum_qos": 1, "largest": 65536,
            "alias_maximum": 10, "retain_available": 0, "wildcard": 0, "shared": 0,
        }  # fmt: skip
    [line] = broker.wait_for("client connected")
    assert line["version"] == "5.0"


def test_by_default_there_is_little_to_tell(start_broker: StartBroker) -> None:
    """A session lasts no longer than one of MQTT 3.1.1 that nobody comes back to."""
    client, answer = enter(start_broker(""), session_expiry=0xFFFFFFFF)
    with client:
        assert answer.properties == {"session_expiry": 30 * 86400, "largest": 16 << 20, "alias_maximum": 10}


@pytest.mark.parametrize(("elsewhere", "reason"), [("", 0x8B), (ELSEWHERE, 0x9C)])
def test_a_broker_that_ends_says_so(start_broker: StartBroker, elsewhere: str, reason: int) -> None:
    broker = start_broker(f'server_reference = "{elsewhere}"\n')
    five, _ = enter(broker)
    with five, RawClient.connected(broker.address, "old") as old:
        broker.stop()
        said = end(five)
        assert (said.reason, said.properties.get("reference", "")) == (reason, elsewhere)
        assert old.closed() == b""


@pytest.mark.parametrize(("moved", "reason"), [("for now", 0x9C), ("for good", 0x9D)])
def test_a_broker_that_has_moved(start_broker: StartBroker, moved: str, reason: int) -> None:
    """By a reload: who is there has to go, and nobody may come; until it is back."""
    broker = start_broker("")
    five, _ = enter(broker)
    with five, RawClient.connected(broker.address, "old") as old:
        broker.reload(f'server_reference = "{ELSEWHERE}"\nmoved = "{moved}"\n')
        said = end(five)
        assert (said.reason, said.properties["reference"]) == (reason, ELSEWHERE)
        assert old.closed() == b""
    late, answer = enter(broker)
    with late:
        assert (answer.reason, answer.properties["reference"]) == (reason, ELSEWHERE)
        assert late.closed() == b""
    with RawClient(broker.address) as late:
        late.send(connect("old"))
        assert late.closed() == connack(3)
    broker.reload("")
    again, answer = enter(broker)
    assert answer.reason == 0
    again.close()


def test_who_may_not_stay_is_told(start_broker: StartBroker, tmp_path: Path) -> None:
    passwords = tmp_path / "passwords"
    for user in ("ann", "bob"):
        set_password(str(passwords), user, b"secret", create=True, iterations=1)
    broker = start_broker(f'passwords = "{passwords}"\n')
    ann, _ = enter(broker, "a", username="ann")
    bob, _ = enter(broker, "b", username="bob")
    with ann, bob:
        broker.reload(f'passwords = "{passwords}"\ndeny_users = ["ann"]\n')
        said = end(ann)
        assert (said.reason, said.properties) == (0x87, {"reason_string": "not authorised"})
        bob.send(PINGREQ)
        bob.expect(PINGRESP)


def test_a_version_that_is_not_taken_any_more(start_broker: StartBroker) -> None:
    broker = start_broker("")
    five, _ = enter(broker)
    with five, RawClient.connected(broker.address, "old") as old:
        broker.reload('protocols = ["3.1.1"]\n')
        assert end(five).reason == 0x98
        old.ping()
        broker.reload('protocols = ["5.0"]\n')
        assert old.closed() == b""
    again, answer = enter(broker)
    again.close()
    assert answer.reason == 0


@pytest.mark.parametrize(
    ("option", "data", "reason"),
    [
        ("max_topic_alias = 2", publish5(b"t", b"x", b"\x23\0\3"), 0x94),
        ("max_qos = 1", publish5(b"t", b"x", qos=2, packet_id=1), 0x9B),
        ("retain_available = false", publish5(b"t", b"x", retain=True), 0x9A),
        ('max_packet_size = "1 KiB"', publish5(b"t", b"x" * 1024), 0x95),
        ("max_topic_levels = 2", publish5(b"a/b/c", b"x"), 0x90),
    ],
)
def test_what_a_client_was_told_not_to_send(start_broker: StartBroker, option: str, data: bytes, reason: int) -> None:
    broker = start_broker(option + "\n")
    client, _ = enter(broker)
    with client, RawClient.connected(broker.address, "old") as old:
        client.send(data)
        said = end(client)
        assert (said.reason, "protocol error: " in said.properties["reason_string"]) == (reason, True)
        old.ping()


def test_one_client_takes_over_from_another(start_broker: StartBroker) -> None:
    """[MQTT5-3.1.4-3]"""
    broker = start_broker("")
    first, _ = enter(broker)
    second, _ = enter(broker)
    with first, second:
        assert end(first).reason == 0x8E
        second.ping()


def test_packets_are_traced_in_their_version(start_broker: StartBroker) -> None:
    """Those of a refusal, too."""
    broker = start_broker('log_level = "debug"\nmax_connections = 1\n')
    client, _ = enter(broker)
    with client:
        late, _ = enter(broker, "d")
        late.close()
        assert [line["reason"] for line in broker.wait_for("sent CONNACK", 2)] == ["0x00", "0x97"]
