"""Two listeners with rules of their own: what came in through one of them is judged by its rules, also after a restart,
when they stand in another order, and when one of them is gone."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from tests.broker_process import BrokerProcess, StartBroker
from tests.raw_client import PINGREQ, PINGRESP, Address, RawClient, Will, parse_publish, puback, publish

LIMITED, OPEN = "127.0.0.1", "127.0.0.2"


def listeners(acl: Path, *binds: str) -> str:
    """The one on LIMITED goes by the file, the one on OPEN allows all."""
    toml = ""
    for bind in binds:
        toml += f'[[listeners]]\nbind = "{bind}"\nport = 0\nallow_anonymous = true\n'
        if bind == LIMITED:
            toml += f'acl = "{acl}"\n'
    return toml


@pytest.fixture
def acl(tmp_path: Path) -> Path:
    path = tmp_path / "acl"
    path.write_text("topic readwrite #\n")
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def broker(start_broker: StartBroker, acl: Path, data: Path) -> BrokerProcess:
    return start_broker(listeners(acl, LIMITED, OPEN), data=data)


def at(broker: BrokerProcess, bind: str) -> Address:
    (address,) = [address for address in broker.addresses if address[0] == bind]
    return address


def retain(broker: BrokerProcess, bind: str, topic: str) -> None:
    with RawClient.connected(at(broker, bind), f"author of {topic}") as author:
        author.send(publish(topic, b"x", 1, retain=True))
        author.expect(puback(1))


def retained(broker: BrokerProcess, bind: str) -> list[str]:
    """The topics of which a new client of this listener gets a retained message."""
    with RawClient.connected(at(broker, bind)).subscribe(("#", 0)) as reader:
        reader.send(PINGREQ)
        topics = []
        while (came := reader.next()) != PINGRESP:
            topics.append(parse_publish(came).topic)
        return sorted(topics)


def test_a_retained_message_needs_the_right_of_its_author_where_it_came_in(broker: BrokerProcess, acl: Path) -> None:
    retain(broker, LIMITED, "kept")
    retain(broker, LIMITED, "lost")
    retain(broker, OPEN, "open")
    with RawClient.connected(at(broker, LIMITED), "dies", will=Will("by will", retain=True)) as dying:
        dying.reset()
    broker.wait_for("client disconnected", client="dies")
    assert retained(broker, OPEN) == ["by will", "kept", "lost", "open"]
    acl.write_text("topic readwrite kept\n")
    broker.reload()
    assert retained(broker, OPEN) == ["kept", "open"]
    assert retained(broker, LIMITED) == ["kept"]  # where its reader has not the right to more
    broker.restart()
    assert retained(broker, OPEN) == ["kept", "open"]
    broker.stop()
    broker.write_config(listeners(acl, OPEN, LIMITED))
    broker.start()
    assert retained(broker, OPEN) == ["kept", "open"]
    acl.write_text("topic readwrite #\n")
    broker.reload()  # what may not be delivered stays, as the right may come back
    assert retained(broker, OPEN) == ["by will", "kept", "lost", "open"]


def test_where_its_listener_is_gone_it_needs_the_right_on_each_of_the_others(
    broker: BrokerProcess, acl: Path, tmp_path: Path
) -> None:
    retain(broker, OPEN, "kept")
    retain(broker, OPEN, "lost")
    broker.stop()
    acl.write_text("topic readwrite kept\n")
    third = f'[[listeners]]\nunix = "{tmp_path / "socket"}"\n'
    broker.write_config(listeners(acl, LIMITED) + third)
    broker.start()
    assert retained(broker, LIMITED) == ["kept"]
    with RawClient.connected(tmp_path / "socket").subscribe(("#", 0)) as reader:
        assert reader.message().topic == "kept"
        reader.ping()
    broker.stop()
    broker.write_config(third)
    broker.start()
    with RawClient.connected(tmp_path / "socket").subscribe(("#", 0)) as reader:
        assert {reader.message().topic, reader.message().topic} == {"kept", "lost"}


def test_where_an_older_version_did_not_note_its_listener_it_needs_the_right_on_any(
    broker: BrokerProcess, acl: Path, data: Path
) -> None:
    retain(broker, LIMITED, "t")
    broker.stop()
    db = sqlite3.connect(data / "selectmq.db")
    db.execute("UPDATE author SET listener = NULL")
    db.commit()
    db.close()
    acl.write_text("topic read #\n")
    broker.start()
    assert retained(broker, OPEN) == ["t"]
    retain(broker, OPEN, "t")  # published again, it is noted
    broker.stop()
    broker.write_config(listeners(acl, LIMITED, OPEN))
    broker.start()
    assert retained(broker, OPEN) == ["t"]


@pytest.mark.parametrize("restarted", [False, True])
def test_what_is_queued_for_a_client_goes_by_the_listener_that_it_came_in_through(
    broker: BrokerProcess, acl: Path, restarted: bool
) -> None:
    acl.write_text("topic readwrite a\ntopic write #\n")
    broker.reload()
    for bind in (LIMITED, OPEN):
        with RawClient.connected(at(broker, bind), f"from {bind}", clean=False) as client:
            client.subscribe(("#", 1))
            client.disconnect()
    if restarted:
        broker.stop()
        broker.write_config(listeners(acl, OPEN, LIMITED))
        broker.start()
    with RawClient.connected(at(broker, OPEN)) as author:
        for number, topic in enumerate("abc", 1):
            author.send(publish(topic, b"", 1, packet_id=number))
            author.expect(puback(number))
    for bind, expected in ((LIMITED, ["a"]), (OPEN, ["a", "b", "c"])):
        # What was not queued is not there, wherever the client comes for it.
        with RawClient.connected(at(broker, OPEN), f"from {bind}", clean=False, present=True) as client:
            assert [client.message().topic for _ in expected] == expected
            client.ping()


def test_listeners_on_free_ports_of_one_address_are_told_apart(start_broker: StartBroker, acl: Path) -> None:
    broker = start_broker(listeners(acl, LIMITED) + '[[listeners]]\nbind = "127.0.0.1"\nport = 0\n')
    limited, free = broker.addresses
    for number, address in enumerate((limited, free), 1):
        with RawClient.connected(address) as author:
            author.send(publish(f"t{number}", b"x", 1, retain=True))
            author.expect(puback(1))
    acl.write_text("topic read #\n")
    broker.reload()
    with RawClient.connected(free).subscribe(("#", 0)) as reader:
        assert reader.message().topic == "t2"
        reader.ping()
