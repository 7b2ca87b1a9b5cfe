"""Sessions: takeover, Clean Session, what outlives a restart, expiry."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from broker.auth.passwords import set_password
from tests.broker_process import BrokerProcess, StartBroker
from tests.end_to_end.paho_client import Paho
from tests.raw_client import (
    Address,
    RawClient,
    connack,
    connect,
    parse_publish,
    puback,
    pubcomp,
    publish,
    pubrec,
    pubrel,
    suback,
    subscribe,
)

# --- takeover ---


def test_the_older_of_two_connections_with_one_identifier_ends(shared_broker: BrokerProcess) -> None:
    # [MQTT-3.1.4-2]
    with (
        RawClient.connected(shared_broker.address, "twin") as old,
        RawClient.connected(shared_broker.address, "twin") as new,
    ):
        assert old.closed() == b""
        new.ping()
        (event,) = shared_broker.wait_for("client disconnected", client="twin")
        assert event["reason"].startswith("taken over by a new connection from 127.0.0.1:")


def test_a_session_goes_over_to_the_new_connection(address: Address) -> None:
    old = RawClient.connected(address, "heir", clean=False)
    old.subscribe(("heir", 1))
    old.send(publish("heir", b"not acknowledged"))
    old.send(publish("heir", b"in flight", 1, packet_id=3))
    assert old.message().payload == b"not acknowledged"
    in_flight = old.message()
    old.expect(puback(3))
    with RawClient.connected(address, "heir", clean=False, present=True) as new:
        assert old.closed() == b""
        again = new.message()
        assert again == in_flight._replace(dup=True)
        new.send(puback(again.packet_id))
        new.ping()


def test_a_clean_takeover_ends_the_session(address: Address) -> None:
    # [MQTT-3.1.2-6]
    with RawClient.connected(address, "cleaned", clean=False) as old:
        old.subscribe(("cleaned", 1))
        with RawClient.connected(address, "cleaned", clean=True) as new:
            assert old.closed() == b""
            new.send(publish("cleaned", b"x"))
            new.ping()


@pytest.mark.parametrize("clean", [False, True])
def test_nobody_anonymous_gets_or_ends_the_session_of_a_user(
    clean: bool, tmp_path: Path, start_broker: StartBroker
) -> None:
    set_password(str(tmp_path / "users"), "ann", b"one", create=True, iterations=1)
    # On the second listener nobody can prove a name.
    toml = f'[[listeners]]\npasswords = "{tmp_path}/users"\nallow_anonymous = true\n[[listeners]]\n'
    broker = start_broker(toml, data=tmp_path / "data")

    def refused(address: Address, username: str | None = None) -> None:
        with RawClient(address) as stranger:
            stranger.send(connect("c", clean=clean, username=username))
            stranger.expect(connack(5))
            assert stranger.closed() == b""

    with RawClient.connected(broker.address, "c", clean=False, username="ann", password=b"one") as ann:
        ann.subscribe(("t", 1))
        refused(broker.address)
        refused(broker.addresses[1])
        refused(broker.addresses[1], "ann")
        ann.ping()
    broker.restart()
    refused(broker.address)
    refused(broker.addresses[1], "ann")
    with RawClient.connected(broker.address, "other") as other:
        other.send(publish("t", b"kept", 1))
        other.expect(puback(1))
    with RawClient.connected(broker.address, "c", clean=False, present=True, username="ann", password=b"one") as ann:
        assert ann.message().payload == b"kept"
    # Where no listener has passwords any more, nobody could be the one, and it is open as all others.
    broker.write_config("[[listeners]]\n")
    broker.restart()
    RawClient.connected(broker.address, "c", clean=False, present=True).close()


def test_many_takeovers_at_once_leave_one(address: Address) -> None:
    clients: list[RawClient] = []

    def come() -> None:
        for _ in range(10):
            client = RawClient(address)
            client.send(connect("popular", clean=False))
            clients.append(client)

    threads = [threading.Thread(target=come) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with RawClient.connected(address, "popular", clean=False, present=True) as last:
        for client in clients:
            assert client.closed() in (connack(0), connack(0, True), b"")
        last.ping()


# --- Clean Session ---


def test_a_clean_session_ends_with_its_connection(address: Address) -> None:
    with RawClient.connected(address, "guest", clean=True) as client:
        client.subscribe(("guest", 2))
        client.disconnect()
    with RawClient.connected(address, "author") as author:
        author.send(publish("guest", b"x", 1))
        author.expect(puback(1))
    with RawClient.connected(address, "guest", clean=False) as client:
        client.ping()


def test_retained_messages_are_no_part_of_a_session(address: Address) -> None:
    # [MQTT-3.1.2-7]
    with RawClient.connected(address, "giver", clean=False) as client:
        client.send(publish("given", b"kept", 1, retain=True))
        client.expect(puback(1))
        client.disconnect()
    RawClient.connected(address, "giver", clean=True).disconnect()
    with RawClient.connected(address, "taker") as client:
        client.subscribe(("given", 0))
        assert client.message().payload == b"kept"


@pytest.mark.parametrize("qos", [1, 2])
def test_what_was_queued_for_a_subscription_is_delivered_though_it_was_made_for_less(
    qos: int, address: Address
) -> None:
    name = f"granted{qos}"
    with RawClient.connected(address, name, clean=False) as client:
        client.subscribe((name, qos))
        client.disconnect()
    with Paho(address) as author:
        for i in range(3):
            author.publish(name, b"%d" % i, i)
    with RawClient.connected(address, name, clean=False, present=True) as client:
        assert [client.message()[1:3] for _ in range(2)] == [(b"1", 1), (b"2", min(2, qos))]
        client.ping()


# --- across a restart ---


def test_a_session_outlives_a_restart_with_all_that_belongs_to_it(start_broker: StartBroker, tmp_path: Path) -> None:
    broker = start_broker("max_inflight = 4\n", data=tmp_path / "data")
    with RawClient.connected(broker.address, "keeper", clean=False) as client:
        client.subscribe(("k/1", 1), ("k/2", 2), ("k/0", 0))
        author = RawClient.connected(broker.address, "author", clean=False)
        for i, (topic, qos) in enumerate([("k/1", 1), ("k/2", 2), ("k/2", 2), ("k/1", 1), ("k/1", 1), ("k/1", 1)], 1):
            author.send(publish(topic, b"%d" % i, qos, packet_id=i))
        assert {author.next() for _ in range(6)} == {puback(i) for i in (1, 4, 5, 6)} | {pubrec(2), pubrec(3)}
        first = [client.message() for _ in range(4)]
        assert [m.payload for m in first] == [b"1", b"2", b"3", b"4"]
        client.send(pubrec(first[2].packet_id))
        client.expect(pubrel(first[2].packet_id))
        client.send(puback(first[3].packet_id))
        assert client.message().payload == b"5"
        broker.restart()
        author.close()
    with RawClient.connected(broker.address, "keeper", clean=False, present=True) as client:
        came = [client.next() for _ in range(4)]
        # First the PUBREL that is owed, then what was in flight, in its order, again with DUP [MQTT-4.4.0-1].
        assert came[0] == pubrel(first[2].packet_id)
        assert came[1] == publish("k/1", b"1", 1, packet_id=first[0].packet_id, dup=True)
        assert came[2] == publish("k/2", b"2", 2, packet_id=first[1].packet_id, dup=True)
        assert came[3][0] == 0x3A
        assert came[3].endswith(b"5")
        client.send(pubcomp(first[2].packet_id) + puback(first[0].packet_id))
        assert client.message()[:3] == ("k/1", b"6", 1)
        # Its subscriptions are there.
        with Paho(broker.address) as paho:
            paho.publish("k/0", b"at most once")
        assert client.message()[:3] == ("k/0", b"at most once", 0)
    # A QoS 2 message that the broker had before is not taken for a new one, though it is sent again [MQTT-4.3.3-2].
    with (
        RawClient.connected(broker.address, "author", clean=False, present=True) as author,
        Paho(broker.address) as reader,
    ):
        reader.subscribe(("k/2", 2))
        author.send(publish("k/2", b"2", 2, packet_id=2, dup=True))
        author.expect(pubrec(2))
        author.send(pubrel(2) + pubrel(3))
        author.expect(pubcomp(2), pubcomp(3))
        author.send(publish("k/2", b"new", 2, packet_id=2))
        author.expect(pubrec(2))
        assert reader.message().payload == b"new"


def test_retained_messages_outlive_a_restart(start_broker: StartBroker, tmp_path: Path) -> None:
    broker = start_broker(data=tmp_path / "data")
    with Paho(broker.address) as author:
        for i in range(200):
            author.client.publish(f"r/{i}", b"%d" % i, i % 3, retain=True)
        author.publish("r/5", b"", 1, retain=True)
        author.publish("r/6", b"newer", 2, retain=True)
    broker.restart()
    with RawClient.connected(broker.address) as reader:
        reader.subscribe(("r/#", 2))
        kept: dict[str, tuple[bytes, int, bool]] = {}
        while len(kept) < 199:
            data = reader.next()
            if data[0] >> 4 == 6:  # PUBREL
                reader.send(pubcomp(int.from_bytes(data[2:], "big")))
                continue
            message = parse_publish(data)
            kept[message.topic] = message[1:4]
            if message.qos:
                reader.send((puback if message.qos == 1 else pubrec)(message.packet_id))
        expected = {f"r/{i}": (b"%d" % i, i % 3, True) for i in range(200)}
        del expected["r/5"]
        expected["r/6"] = (b"newer", 2, True)
        assert kept == expected


def test_in_memory_nothing_outlives_a_restart(start_broker: StartBroker) -> None:
    broker = start_broker()
    with RawClient.connected(broker.address, "keeper", clean=False) as client:
        client.subscribe(("k", 1))
        client.send(publish("r", b"kept", 1, retain=True))
        client.expect(puback(1))
    broker.restart()
    with RawClient.connected(broker.address, "keeper", clean=False) as client:
        client.subscribe(("r", 1))
        client.ping()


def test_a_long_backlog_comes_in_order_after_a_restart(start_broker: StartBroker, tmp_path: Path) -> None:
    broker = start_broker("max_memory_queue = 50\nmax_inflight = 20\n", data=tmp_path / "data")
    with RawClient.connected(broker.address, "absent", clean=False) as client:
        client.subscribe(("t", 1))
        client.disconnect()
    with RawClient.connected(broker.address, "author") as author:
        author.send(b"".join(publish("t", b"%d" % i, 1, packet_id=i) for i in range(1, 2001)))
        author.expect(*(puback(i) for i in range(1, 2001)))
    broker.restart()
    with RawClient.connected(broker.address, "absent", clean=False, present=True) as client:
        for i in range(1, 2001):
            message = client.message()
            assert message.payload == b"%d" % i
            client.send(puback(message.packet_id))
        client.ping()
    broker.restart()
    with RawClient.connected(broker.address, "absent", clean=False, present=True) as client:
        client.ping()  # nothing is left


# --- acknowledgements that fit nothing ---


def test_acknowledgements_of_nothing_are_harmless(address: Address) -> None:
    with RawClient.connected(address, "confused") as client:
        client.send(puback(1) + pubrec(2) + pubrel(3) + pubcomp(4))
        assert {client.next() for _ in range(2)} == {pubrel(2), pubcomp(3)}
        client.ping()


def test_a_client_that_left_in_the_middle_of_everything_is_harmless(address: Address) -> None:
    steps = [connect("leaver", clean=False), subscribe(("l", 2)), publish("l", b"x", 2), pubrel(1), pubrec(1)]
    whole = b"".join(steps)
    for size in range(0, len(whole), 3):
        with RawClient(address) as client:
            client.send(whole[:size])
    with RawClient.connected(address, "leaver", clean=True) as client:
        client.send(subscribe(("l", 2)))
        client.expect(suback(2))
        client.ping()
