"""What brokers of MQTT 5.0 get wrong, as a client sees it: shared subscriptions.

The numbers are those of one list for all four files test_traps_5_*.py, so that a report can name them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import raw_client
from tests.broker_process import StartBroker
from tests.raw_client import Address, RawClient
from tests.raw_client_5 import (
    DISCONNECT,
    NO_LOCAL,
    PINGRESP,
    PUBACK,
    PUBCOMP,
    PUBREC,
    PUBREL,
    Came,
    Client5,
    P,
    Properties,
    ack,
    disconnect,
    subscribe,
    unsubscribe,
)

PROTOCOL_ERROR = 0x82

STAYS: Properties = {P.SESSION_EXPIRY: 100}


def read(client: Client5) -> list[Came]:
    """Every message that has come up to now, not acknowledged."""
    client.send(raw_client.PINGREQ)
    came: list[Came] = []
    while (one := client.came()).type != PINGRESP:
        came.append(one)
    return came


def all_of(client: Client5) -> list[Came]:
    """Every message that has come up to now, acknowledged (at QoS 0 or 1)."""
    came: list[Came] = []
    while more := read(client):
        client.send(b"".join(ack(PUBACK, one.packet_id) for one in more if one.qos))
        came += more
    return came


def member(topic_filter: str, number: int) -> str:
    """Its Client Identifier."""
    return f"{topic_filter} {number}".replace("/", " ").replace("+", " ").replace("$", "")


@contextlib.contextmanager
def members(address: Address, topic_filter: str, count: int, properties: Properties = b"") -> Iterator[list[Client5]]:
    with contextlib.ExitStack() as stack:
        clients = [
            stack.enter_context(Client5.open(address, member(topic_filter, n), properties)) for n in range(count)
        ]
        for client in clients:
            client.ask((topic_filter, 2))
        yield clients


def test_each_message_goes_to_one_member_of_each_group(address: Address) -> None:
    with (
        members(address, "$share/one/each/+", 3) as one,
        members(address, "$share/two/each/+", 2) as two,
        Client5.open(address) as author,
    ):
        for number in range(60):
            author.give(f"each/{number}", b"x", number % 2)
        for group in (one, two):
            came = [all_of(client) for client in group]
            assert sorted(each.topic for part in came for each in part) == sorted(f"each/{n}" for n in range(60))
            assert all(came), "each member has some"


def test_an_unsubscribe_with_the_whole_filter_ends_it(address: Address) -> None:
    with members(address, "$share/g/end", 2) as (first, second), Client5.open(address) as author:
        first.send(unsubscribe("end") + unsubscribe("$share/other/end") + unsubscribe("$share/g/end"))
        assert [first.came().reason for _ in range(3)] == [0x11, 0x11, 0]
        for _ in range(6):
            author.give("end")
        assert len(all_of(second)) == 6
        first.ping()
        second.send(unsubscribe("$share/g/end"))
        second.came()
        assert author.give("end") == 0x10


def test_20_a_shared_subscription_has_no_no_local(address: Address) -> None:
    # [MQTT5-3.8.3-4]
    with Client5.open(address) as client:
        client.send(subscribe(("$share/t20/t20", NO_LOCAL)))
        assert client.told()[:2] == (DISCONNECT, PROTOCOL_ERROR)


def test_21_who_is_away_is_passed_over(address: Address) -> None:
    # [MQTT5-4.5.0-1]
    with members(address, "$share/t21/t21", 3, STAYS) as clients, Client5.open(address) as author:
        clients[0].disconnect()
        clients[1].close()
        with Client5.open(address, member("$share/t21/t21", 1), STAYS, clean=False, present=True) as again:
            again.disconnect()  # now the end of its first connection has been seen
        for number in range(20):
            author.give("t21", b"%d" % number)
        assert [each.payload for each in all_of(clients[2])] == [b"%d" % number for number in range(20)]


@pytest.mark.parametrize("how", ["", "stop", "kill"])
def test_21_what_comes_while_all_are_away_is_kept_for_the_group(
    how: str, start_broker: StartBroker, tmp_path: Path
) -> None:
    # [MQTT5-4.5.0-1]
    broker = start_broker(data=tmp_path / "data")
    with members(broker.address, "$share/t21/t21", 2, STAYS) as clients:
        for client in clients:
            client.disconnect()
    with Client5.open(broker.address) as author:
        for number in range(20):
            assert author.give("t21", b"%d" % number, 1, {P.CONTENT_TYPE: "kept"}) == 0
    if how:
        getattr(broker, how)()
        broker.start()
    came: list[Came] = []
    with Client5.open(broker.address, member("$share/t21/t21", 1), STAYS, clean=False, present=True) as one:
        while len(came) < 20:
            came.append(one.take())
        one.ping()
    with Client5.open(broker.address, member("$share/t21/t21", 0), STAYS, clean=False, present=True) as other:
        other.ping()
    assert [each.payload for each in came] == [b"%d" % number for number in range(20)]
    assert all(each.properties == {P.CONTENT_TYPE: "kept"} for each in came)


def test_21_at_the_end_of_a_member_what_it_had_not_acknowledged_goes_to_another(address: Address) -> None:
    with members(address, "$share/t21/ending", 2) as (one, other), Client5.open(address) as author:
        for number in range(10):
            author.give("ending", b"%d" % number)
        assert read(one), "it has some"
        one.send(disconnect())
        wanted = {b"%d" % number for number in range(10)}
        have: set[bytes] = set()
        while have != wanted:
            have.add(other.take().payload)
        other.ping()


def test_22_a_shared_subscription_gets_no_retained_messages(address: Address) -> None:
    with Client5.open(address) as author, Client5.open(address) as client:
        author.give("t22", b"kept", 1, retain=True)
        client.ask(("$share/t22/t22", 1))
        client.ask(("$share/t22/t22", 1))
        client.ping()
        author.give("t22", b"live", 1, retain=True)
        came = client.take()
        assert (came.payload, came.retain) == (b"live", False)


def test_23_a_shared_subscription_and_one_of_its_own_are_two_copies(address: Address) -> None:
    with Client5.open(address) as client, Client5.open(address) as author:
        client.ask(("$share/t23/t23", 0), properties={P.SUBSCRIPTION_ID: 1})
        client.ask(("t23", 1), properties={P.SUBSCRIPTION_ID: 2})
        for _ in range(3):
            author.give("t23")
            came = [client.take(), client.take()]
            assert sorted((each.qos, each.properties[P.SUBSCRIPTION_ID]) for each in came) == [(0, [1]), (1, [2])]
        client.ping()


@pytest.mark.parametrize("qos", [1, 2])
def test_24_a_shared_message_that_is_refused_is_dropped(qos: int, address: Address) -> None:
    # [MQTT5-4.8.2-6] [MQTT5-4.4.0-2]
    topic = f"t24/{qos}"
    with members(address, f"$share/t24/{topic}", 2) as clients, Client5.open(address) as author:
        refused = 0
        for number in range(8):
            author.give(topic, b"%d" % number, qos)
            for client in clients:
                for came in read(client):
                    assert (came.payload, came.dup) == (b"%d" % number, False)
                    client.send(ack(PUBACK if qos == 1 else PUBREC, came.packet_id, 0x87))
                    refused += 1
        assert refused == 8
        for client in clients:
            client.ping()


def test_the_qos_is_that_of_the_member(address: Address) -> None:
    # [MQTT5-4.8.2-3]
    with Client5.open(address) as author, Client5.open(address) as low, Client5.open(address) as high:
        low.ask(("$share/q/q", 0))
        high.ask(("$share/q/q", 2))
        for _ in range(6):
            author.give("q", b"x", 2)
        came = all_of(low)
        assert [each.qos for each in came] == [0] * len(came)
        assert [each.qos for each in read(high)] == [2] * (6 - len(came))


def test_a_delivery_of_qos_2_is_finished_with_its_member(address: Address) -> None:
    # [MQTT5-4.8.2-4] [MQTT5-4.8.2-5]
    with members(address, "$share/finish/finish", 2, STAYS) as clients, Client5.open(address) as author:
        author.give("finish", b"x", 2)
        (index,) = [n for n, client in enumerate(clients) if read(client)]
        mine, other = clients[index], clients[1 - index]
        mine.close()
        name = member("$share/finish/finish", index)
        other.ping()
        with Client5.open(address, name, STAYS, clean=False, present=True) as again:
            came = again.get()
            assert (came.payload, came.dup) == (b"x", True)
            again.send(ack(PUBREC, came.packet_id))
            again.want(PUBREL)
            again.send(ack(PUBCOMP, came.packet_id))
            other.ping()
            author.give("finish", b"y", 2)
            for client in (again, other):
                read(client)
        with Client5.open(address, name):
            pass
        other.ping()  # the session that it was sent to has ended: nobody else gets it


def test_clients_of_311_share_too(address: Address) -> None:
    with RawClient.connected(address) as old, Client5.open(address) as new, Client5.open(address) as author:
        old.subscribe(("$share/both/both", 1))
        new.ask(("$share/both/both", 1))
        for _ in range(10):
            author.give("both", b"x", 1, {P.CONTENT_TYPE: "a"})
        theirs = all_of(new)
        assert all(each.properties == {P.CONTENT_TYPE: "a"} for each in theirs)
        assert 0 < len(theirs) < 10
        for _ in range(10 - len(theirs)):
            assert old.message()[:2] == ("both", b"x")
        old.ping()


@pytest.mark.parametrize("strategy", ["sticky", "hash-topic", "hash-publisher"])
def test_41_strategies_that_keep_the_order_of_a_topic(strategy: str, start_broker: StartBroker) -> None:
    broker = start_broker(f'shared_strategy = "{strategy}"\n')
    with members(broker.address, "$share/t41/t41/+", 3) as clients, Client5.open(broker.address) as author:
        for number in range(60):
            author.give(f"t41/{number % 6}", b"%02d" % number)
        came = [all_of(client) for client in clients]
        assert sorted(each.payload for part in came for each in part) == [b"%02d" % n for n in range(60)]
        if strategy != "hash-topic":
            assert sorted(map(len, came)) == [0, 0, 60]
        for part in came:
            assert [each.payload for each in part] == sorted(each.payload for each in part)
        owners = [{each.topic for each in part} for part in came]
        assert sum(map(len, owners)) == len(set().union(*owners)), "one member has all of a topic"


def test_41_by_turns_each_member_has_as_many(address: Address) -> None:
    with members(address, "$share/t41/turns", 4) as clients, Client5.open(address) as author:
        for _ in range(40):
            author.give("turns")
        assert [len(all_of(client)) for client in clients] == [10] * 4
