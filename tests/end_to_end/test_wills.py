"""A will is published at every end that is not a DISCONNECT, and at none that is."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.broker_process import BrokerProcess, StartBroker
from tests.end_to_end.paho_client import Paho
from tests.raw_client import (
    DISCONNECT,
    Address,
    RawClient,
    Will,
    connack,
    connect,
    packet,
    puback,
    publish,
    subscribe,
)
from tests.vectors import string
from tests.vectors5 import connect5, four, section, user

Reader = RawClient


def by_fin(client: RawClient, broker: BrokerProcess) -> None:
    client.close()


def by_rst(client: RawClient, broker: BrokerProcess) -> None:
    client.reset()


def by_a_protocol_error(client: RawClient, broker: BrokerProcess) -> None:
    client.send(publish("no/#/topic", b"x"))
    assert client.closed() == b""


def by_a_reserved_packet_type(client: RawClient, broker: BrokerProcess) -> None:
    client.send(b"\xf0\x00")
    assert client.closed() == b""


def by_too_large_a_packet(client: RawClient, broker: BrokerProcess) -> None:
    client.send(b"\x30\xff\xff\xff\x7f")
    assert client.closed() == b""


def by_a_disconnect_with_wrong_flags(client: RawClient, broker: BrokerProcess) -> None:
    # [MQTT-3.14.1-1]: it is a protocol error, and no DISCONNECT.
    client.send(b"\xe1\x00")
    assert client.closed() == b""


def by_a_second_connect(client: RawClient, broker: BrokerProcess) -> None:
    client.send(connect("again"))
    assert client.closed() == b""


def by_a_takeover(client: RawClient, broker: BrokerProcess) -> None:
    with RawClient.connected(broker.address, "dying") as successor:
        assert client.closed() == b""
        successor.disconnect()


def by_its_keep_alive(client: RawClient, broker: BrokerProcess) -> None:
    assert client.closed() == b""


ENDS = [by_fin, by_rst, by_a_protocol_error, by_a_reserved_packet_type, by_too_large_a_packet,
        by_a_disconnect_with_wrong_flags, by_a_second_connect, by_a_takeover, by_its_keep_alive]  # fmt: skip


@pytest.fixture
def reader(address: Address) -> Iterator[Reader]:
    with RawClient.connected(address, "reader").subscribe(("wills/#", 2), ("end", 0)) as reader:
        yield reader


def nothing_else(reader: Reader) -> None:
    reader.send(publish("end"))
    reader.expect(publish("end"))
    reader.close()


@pytest.mark.parametrize("end", ENDS)
def test_the_will_is_published_once_at(
    end: Callable[[RawClient, BrokerProcess], None], reader: Reader, shared_broker: BrokerProcess
) -> None:
    # [MQTT-3.1.2-8]
    topic = f"wills/{end.__name__}"
    keep_alive = 1 if end is by_its_keep_alive else 0
    client = RawClient.connected(
        shared_broker.address, "dying", keep_alive=keep_alive, will=Will(topic, b"gone", 0, False)
    )
    end(client, shared_broker)
    assert reader.message() == (topic, b"gone", 0, False, False, 0)
    nothing_else(reader)


def test_the_will_is_published_at_the_end_of_the_broker(start_broker: StartBroker) -> None:
    broker = start_broker()
    reader = RawClient.connected(broker.address, "reader").subscribe(("wills", 0))
    with RawClient.connected(broker.address, "dying", will=Will("wills", b"gone")):
        broker.signal(signal.SIGTERM)
        assert reader.closed() == publish("wills", b"gone")
        assert broker.wait() == 0


def test_the_wills_of_all_who_were_connected_are_published_after_kill_9(
    start_broker: StartBroker, tmp_path: Path
) -> None:
    """[MQTT-3.1.2-8] Of those with a clean session, too; of none that has said goodbye; and once."""
    broker = start_broker(data=tmp_path / "data")
    with RawClient.connected(broker.address, "reader", clean=False) as reader:
        reader.subscribe(("wills/#", 2))
        for name in ("left", "again"):
            with RawClient.connected(broker.address, name, will=Will(f"wills/{name}", b"never", 2)) as client:
                client.disconnect()
        dying = [
            RawClient.connected(broker.address, f"dying {clean} {qos}", clean=clean, will=will)
            for clean in (True, False)
            for qos in (1, 2)
            for will in [Will(f"wills/{clean}/{qos}", b"gone", qos, True)]
        ]
        again = RawClient.connected(broker.address, "again", clean=True, will=Will("wills/again", b"gone", 1))
        broker.kill()
        for client in (again, *dying):
            client.close()
    broker.start()
    broker.kill()
    broker.start()
    with RawClient.connected(broker.address, "reader", clean=False, present=True) as reader:
        assert [reader.message() for _ in range(5)] == [
            ("wills/True/1", b"gone", 1, False, False, 1),
            ("wills/True/2", b"gone", 2, False, False, 2),
            ("wills/False/1", b"gone", 1, False, False, 3),
            ("wills/False/2", b"gone", 2, False, False, 4),
            ("wills/again", b"gone", 1, False, False, 5),
        ]
        reader.ping()
    with RawClient.connected(broker.address, "late").subscribe(("wills/#", 0)) as late:
        assert sorted(late.message()[:4] for _ in range(4)) == [
            (f"wills/{clean}/{qos}", b"gone", 0, True) for clean in (False, True) for qos in (1, 2)
        ]


def come5(broker: BrokerProcess, client_id: str, topic: str, delay: int, *, present: bool = False) -> RawClient:
    """A client of MQTT 5.0 with a session of an hour, and a will that is delayed by so many seconds."""
    will = section(b"\x18" + four(delay), user(b"why", b"gone")) + string(topic.encode()) + string(b"gone")
    client = RawClient(broker.address)
    client.send(connect5(client_id.encode(), b"\x11" + four(3600), flags=0x0C, keep_alive=0, will=will))
    answer = client.next()
    assert (answer[0], answer[2], answer[3]) == (0x20, present, 0)
    return client


def test_a_delay_goes_on_after_kill_9_unless_the_client_is_back(start_broker: StartBroker, tmp_path: Path) -> None:
    """[MQTT5-3.1.2-8] [MQTT5-3.1.3-9]"""
    broker = start_broker(data=tmp_path / "data")
    reader = RawClient.connected(broker.address, "reader", clean=False).subscribe(("wills/#", 1))
    left = [come5(broker, name, f"wills/{name}", 2) for name in ("back", "gone", "away")]
    left[2].close()
    broker.wait_for("client disconnected", client="away")
    broker.kill()
    for client in (reader, *left):
        client.close()
    broker.start()
    with (
        come5(broker, "back", "wills/later", 3600, present=True),
        RawClient.connected(broker.address, "reader", clean=False, present=True) as reader,
    ):
        messages = sorted(reader.message()[:3] for _ in range(2))
        assert messages == [("wills/away", b"gone", 1), ("wills/gone", b"gone", 1)]
        reader.ping()


def test_a_will_after_kill_9_goes_by_the_rules_that_hold_then(start_broker: StartBroker, tmp_path: Path) -> None:
    rules = tmp_path / "acl"
    rules.write_text("topic readwrite #\n")
    broker = start_broker(f'acl = "{rules}"\n', data=tmp_path / "data")
    with (
        RawClient.connected(broker.address, "reader", clean=False).subscribe(("#", 1)),
        RawClient.connected(broker.address, "dying", will=Will("wills/secret", b"x", 1)),
        RawClient.connected(broker.address, "other", will=Will("wills/open", b"x", 1)),
    ):
        broker.kill()
    rules.write_text("topic readwrite #\ntopic deny wills/secret\n")
    broker.start()
    with RawClient.connected(broker.address, "reader", clean=False, present=True) as reader:
        assert reader.message()[:3] == ("wills/open", b"x", 1)
    broker.wait_for("will refused: not authorised", client="dying")


@pytest.mark.parametrize("behind", [b"", b"\xff\xff", publish("x", b"y")], ids=["alone", "rubbish-behind", "more"])
def test_after_disconnect_there_is_no_will(behind: bytes, reader: Reader, address: Address) -> None:
    # [MQTT-3.14.4-3]
    client = RawClient.connected(address, "leaving", will=Will("wills/never", b"gone"))
    client.send(DISCONNECT + behind)
    client.closed()
    nothing_else(reader)


def test_a_disconnect_right_behind_the_connect_counts(reader: Reader, address: Address) -> None:
    with RawClient(address) as client:
        client.send(connect("brief", will=Will("wills/never")) + DISCONNECT)
        assert client.closed() == connack()
    nothing_else(reader)


def test_paho_that_disconnects_has_no_will_and_one_that_is_cut_off_has(reader: Reader, address: Address) -> None:
    with Paho(address, "well", will=Will("wills/well")):
        pass
    Paho(address, "cut", will=Will("wills/cut", b"off")).drop()
    assert reader.message()[:2] == ("wills/cut", b"off")
    nothing_else(reader)


def test_a_refused_client_has_no_will(reader: Reader, address: Address) -> None:
    with RawClient(address) as client:
        client.send(connect("", clean=False, will=Will("wills/never")))
        assert client.closed() == connack(2)
    with RawClient(address) as client:
        client.send(connect("cut", will=Will("wills/never"))[:-1])
    nothing_else(reader)


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("retain", [False, True])
def test_a_will_has_its_qos_and_may_be_retained(qos: int, retain: bool, reader: Reader, address: Address) -> None:
    # [MQTT-3.1.2-16] [MQTT-3.1.2-17]
    topic = f"wills/{qos}/{retain}"
    client = RawClient.connected(address, "dying", will=Will(topic, b"gone", qos, retain))
    client.close()
    assert reader.message()[:4] == (topic, b"gone", qos, False)
    with RawClient.connected(address, "late").subscribe((topic, 2), ("end", 0)) as late:
        if retain:
            assert late.message()[:4] == (topic, b"gone", qos, True)
        nothing_else(late)
        late.close()
    if retain:
        with RawClient.connected(address, "cleaner") as cleaner:
            cleaner.send(publish(topic, b"", 1, retain=True))
            cleaner.expect(puback(1))


def test_an_empty_will_removes_the_retained_message(address: Address) -> None:
    with RawClient.connected(address, "author") as author:
        author.send(publish("wills/removed", b"kept", 1, retain=True))
        author.next()
    client = RawClient.connected(address, "dying", will=Will("wills/removed", b"", 0, True))
    with RawClient.connected(address, "reader") as reader:
        reader.subscribe(("wills/removed", 0))
        assert reader.message().payload == b"kept"
        client.close()
        assert reader.message()[:4] == ("wills/removed", b"", 0, False)
    with RawClient.connected(address, "late").subscribe(("wills/removed", 0), ("end", 0)) as late:
        nothing_else(late)


def test_a_session_that_is_taken_over_gets_the_will_of_its_own_earlier_connection(address: Address) -> None:
    first = RawClient.connected(address, "self", clean=False, will=Will("wills/self", b"first", 1))
    with first.subscribe(("wills/self", 1)), RawClient.connected(address, "self", clean=False, present=True) as second:
        assert second.message()[:3] == ("wills/self", b"first", 1)


def test_a_will_waits_for_a_session_that_is_away(start_broker: StartBroker, tmp_path: Path) -> None:
    broker = start_broker(data=tmp_path / "data")
    with RawClient.connected(broker.address, "away", clean=False) as away:
        away.subscribe(("wills", 1))
        away.disconnect()
    RawClient.connected(broker.address, "dying", will=Will("wills", b"gone", 1)).close()
    broker.wait_for("client disconnected", client="dying")
    broker.restart()
    with RawClient.connected(broker.address, "away", clean=False, present=True) as away:
        assert away.message()[:3] == ("wills", b"gone", 1)


def test_a_will_to_the_brokers_own_topics_goes_nowhere(shared_broker: BrokerProcess) -> None:
    address = shared_broker.address
    with RawClient.connected(address, "reader").subscribe(("$SYS/forged/#", 0), ("end", 0)) as reader:
        RawClient.connected(address, "forger", will=Will("$SYS/forged/version", b"mine", 0, True)).close()
        shared_broker.wait_for("will refused: not authorised", client="forger")
        nothing_else(reader)
    with RawClient.connected(address, "late").subscribe(("$SYS/forged/#", 0), ("end", 0)) as late:
        nothing_else(late)


def test_a_will_as_large_as_it_can_be(address: Address) -> None:
    topic, payload = "wills/" + "t" * 65_529, b"p" * 65_535
    with RawClient.connected(address, "reader") as reader:
        reader.send(subscribe((topic, 0)))
        reader.next()
        RawClient.connected(address, "x" * 60_000, will=Will(topic, payload)).close()
        assert reader.next() == packet(0x30, len(topic).to_bytes(2, "big") + topic.encode() + payload)
