"""The access control list, as clients meet it."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.auth.passwords import delete_user, set_password
from tests.broker_process import BrokerProcess, StartBroker
from tests.end_to_end.paho_client import Paho
from tests.raw_client import (
    RawClient,
    Will,
    connack,
    connect,
    puback,
    pubcomp,
    publish,
    pubrec,
    pubrel,
    suback,
    subscribe,
)

ACL = """
# Anonymous clients:
topic read public/#

user ann
topic readwrite shared/#
topic deny shared/secret
topic read $SYS/broker/publish/messages/denied
topic readwrite end

user bob
topic write shared/#
topic write public/#
topic readwrite end

pattern readwrite home/%u/#
pattern read client/%c/in
pattern write client/%c/out
"""


@pytest.fixture
def broker(start_broker: StartBroker, tmp_path: Path) -> BrokerProcess:
    passwords, acl = tmp_path / "passwords", tmp_path / "acl"
    for user in ("ann", "bob", "root"):
        set_password(str(passwords), user, user.encode(), create=True, iterations=1)
    acl.write_text(ACL + "\nuser root\ntopic readwrite #\n")
    return start_broker(
        f'passwords = "{passwords}"\nacl = "{acl}"\nallow_anonymous = true\nsys_interval = 0.05\n',
        data=tmp_path / "data",
    )


def client(broker: BrokerProcess, user: str | None, client_id: str = "", will: Will | None = None) -> RawClient:
    password = user.encode() if user is not None else None
    return RawClient.connected(broker.address, client_id, username=user, password=password, will=will)


def test_a_publish_that_is_not_allowed_is_acknowledged_and_goes_nowhere(broker: BrokerProcess) -> None:
    # [MQTT-3.3.5-2]
    with client(broker, "root", "reader") as reader, client(broker, "ann", "author") as author:
        reader.subscribe(("#", 2))
        author.send(publish("public/x", b"0") + publish("shared/secret", b"1", 1, packet_id=7))
        author.expect(puback(7))
        author.send(publish("public/x", b"2", 2, packet_id=8, retain=True))
        author.expect(pubrec(8))
        author.send(pubrel(8))
        author.expect(pubcomp(8))
        author.send(publish("shared/x", b"allowed"))
        while (message := reader.message()).topic.startswith("$"):
            pass
        assert message[:2] == ("shared/x", b"allowed")
        wait_until_denied(broker, 3)
    # Once for a client and a topic, not for a packet.
    events = broker.wait_for("publish refused: not authorised", 2)
    assert [(event["level"], event["client"], event["user"], event["topic"]) for event in events] == [
        ("info", "author", "ann", topic) for topic in ("public/x", "shared/secret")
    ]


def wait_until_denied(broker: BrokerProcess, denied: int) -> None:
    """What may be read of $SYS by whom it is granted."""
    with client(broker, "ann") as reader:
        reader.subscribe(("$SYS/broker/publish/messages/denied", 0))
        while reader.message().payload != b"%d" % denied:
            pass


def test_a_subscription_that_is_not_allowed_gets_a_failure_and_the_others_are_granted(broker: BrokerProcess) -> None:
    # [MQTT-3.9.3-2]
    with client(broker, "bob", "bob") as bob:
        bob.send(subscribe(("shared/#", 2), ("end", 1), ("$SYS/#", 0), ("home/ann/x", 0), ("home/bob/x", 2)))
        bob.expect(suback(0x80, 1, 0x80, 0x80, 2))
    with client(broker, None, "nobody") as nobody:
        nobody.send(subscribe(("#", 0), ("public/+", 0), ("shared/x", 0), ("home/#", 0)))
        nobody.expect(suback(0, 0, 0x80, 0x80))
    events = broker.wait_for("subscription refused: not authorised", 5)
    assert [(event["client"], event["topic"]) for event in events] == [
        ("bob", "shared/#"), ("bob", "$SYS/#"), ("bob", "home/ann/x"), ("nobody", "shared/x"), ("nobody", "home/#"),
    ]  # fmt: skip
    with Paho(broker.address, "paho", username="bob", password="bob") as paho:
        assert paho.subscribe(("shared/#", 2), ("end", 1)) == [0x80, 1]


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_of_what_a_wildcard_matches_only_the_allowed_is_delivered(qos: int, broker: BrokerProcess) -> None:
    with client(broker, "ann") as ann, client(broker, "root") as root:
        ann.subscribe(("#", qos), ("shared/+", qos))
        topics = ["public/x", "shared/secret", "shared/x", "home/bob/x", "home/ann/x", "other", "end"]
        for i, topic in enumerate(topics, 1):
            root.send(publish(topic, b"x", qos, packet_id=i))
        assert [ann.message().topic for _ in range(3)] == ["shared/x", "home/ann/x", "end"]
        if qos == 0:
            ann.ping()


def test_of_retained_messages_only_the_allowed_are_delivered(broker: BrokerProcess) -> None:
    with client(broker, "root") as root:
        for i, topic in enumerate(("public/x", "shared/secret", "shared/x", "home/ann/x", "home/bob/x"), 1):
            root.send(publish(topic, b"kept", 1, packet_id=i, retain=True))
            root.expect(puback(i))
    with client(broker, "ann") as ann:
        ann.subscribe(("#", 0))
        assert {ann.message().topic for _ in range(2)} == {"shared/x", "home/ann/x"}
        ann.ping()
    with client(broker, None) as nobody:
        nobody.subscribe(("+/+", 0))
        assert nobody.message()[:4] == ("public/x", b"kept", 0, True)
        nobody.ping()


def test_patterns_grant_each_client_its_own(broker: BrokerProcess) -> None:
    with client(broker, "ann", "one") as one, client(broker, "ann", "two") as two:
        for who, name in ((one, "one"), (two, "two")):
            who.send(subscribe((f"client/{name}/in", 0), ("client/one/out", 0)))
            who.expect(suback(0, 0x80))
        with client(broker, "root") as root:
            root.send(publish("client/one/in", b"1") + publish("client/two/in", b"2"))
        assert one.message().payload == b"1"
        assert two.message().payload == b"2"


@pytest.mark.parametrize("evil", ["+", "#", "one/in/..", "a/b"])
def test_a_name_with_wildcards_widens_no_pattern(evil: str, broker: BrokerProcess) -> None:
    with client(broker, "ann", evil) as ann:
        ann.send(subscribe(("client/one/in", 0), ("client/+/in", 0), ("client/#", 0)))
        ann.expect(suback(0x80, 0x80, 0x80))


def test_a_name_that_nobody_checked_gives_no_rights(broker: BrokerProcess, start_broker: StartBroker) -> None:
    # A listener without a password file believes no user name.
    lines = broker.config.read_text().splitlines()
    acl = next(line for line in lines if line.startswith("acl"))
    open_broker = start_broker(acl + "\n")
    with RawClient.connected(open_broker.address, "c", username="root", password=b"whatever") as forger:
        forger.send(subscribe(("shared/x", 0), ("public/x", 0)))
        forger.expect(suback(0x80, 0))


def test_a_will_that_is_not_allowed_goes_nowhere(broker: BrokerProcess) -> None:
    with client(broker, "root") as reader:
        reader.subscribe(("public/#", 0), ("shared/#", 0))
        client(broker, "ann", "a1", Will("public/x", b"no", 0, True)).close()
        broker.wait_for("will refused: not authorised", client="a1", user="ann", topic="public/x")
        client(broker, "bob", "b1", Will("public/x", b"yes")).close()
        assert reader.message()[:2] == ("public/x", b"yes")
        reader.ping()


def test_what_was_queued_is_judged_again_when_its_client_comes_for_it(broker: BrokerProcess) -> None:
    address = broker.address
    with RawClient.connected(address, "sleeper", clean=False, username="ann", password=b"ann") as ann:
        ann.subscribe(("shared/+", 1))
        ann.disconnect()
    with client(broker, "root") as root:
        for i, topic in enumerate(("shared/a", "shared/b", "shared/c"), 1):
            root.send(publish(topic, b"x", 1, packet_id=i))
            root.expect(puback(i))
    acl = Path(next(line for line in broker.config.read_text().splitlines() if line.startswith("acl"))[7:-1])
    acl.write_text(ACL.replace("shared/secret", "shared/b"))
    broker.reload()
    with RawClient.connected(address, "sleeper", clean=False, present=True, username="ann", password=b"ann") as ann:
        for topic in ("shared/a", "shared/c"):
            message = ann.message()
            assert message.topic == topic
            ann.send(puback(message.packet_id))
        ann.ping()


def test_sys_must_be_granted(broker: BrokerProcess) -> None:
    with client(broker, "root") as root:
        root.send(subscribe(("$SYS/#", 0)))
        root.expect(suback(0x80))  # '#' does not match it [MQTT-4.7.2-1]
    with client(broker, "ann") as ann:
        ann.send(subscribe(("$SYS/broker/publish/messages/denied", 0), ("$SYS/broker/version", 0)))
        ann.expect(suback(0, 0x80))


TWO_LISTENERS = """
[[listeners]]
port = 0
passwords = "{0}/one"
{1}
[[listeners]]
port = 0
passwords = "{0}/two"
"""


def test_a_session_stays_the_user_s_on_all_listeners_and_when_the_user_is_gone(
    start_broker: StartBroker, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        for user in ("ann", "bob"):
            set_password(str(tmp_path / name), user, user.encode(), create=True, iterations=1)
    broker = start_broker(TWO_LISTENERS.format(tmp_path, ""), data=tmp_path / "data")

    def dial(number: int, user: str, code: int = 0, present: bool = True) -> RawClient:
        client = RawClient(broker.addresses[number])
        client.send(connect("c", clean=False, username=user, password=user.encode()))
        client.expect(connack(code, present))
        return client

    with dial(0, "ann", present=False) as ann:
        ann.subscribe(("t", 1))
        for number in (0, 1):
            with dial(number, "bob", code=5, present=False):
                pass
        ann.ping()
    with dial(1, "ann"):  # the same name is the same user
        pass
    for name in ("one", "two"):
        delete_user(str(tmp_path / name), "ann")
    broker.restart()
    with dial(0, "bob", code=5, present=False):
        pass
    [refused] = broker.wait_for("client refused")
    assert (refused["user"], refused["reason"]) == (
        "bob", "the session with this Client Identifier belongs to the user 'ann' (allow_user_change)",
    )  # fmt: skip
    broker.reload(TWO_LISTENERS.format(tmp_path, "allow_user_change = true"))
    with dial(1, "bob", code=5, present=False):
        pass
    with dial(0, "bob"):
        pass
    with dial(1, "bob"):  # it is bob's
        pass


def test_what_is_queued_after_a_restart_counts_for_the_listener_that_knows_the_user(
    start_broker: StartBroker, tmp_path: Path
) -> None:
    """Without passwords, the first listener takes every user for anonymous; a restart must not judge by that one."""
    passwords, acl = tmp_path / "passwords", tmp_path / "acl"
    set_password(str(passwords), "ann", b"ann", create=True, iterations=1)
    acl.write_text("topic write shared/#\nuser ann\ntopic read shared/#\n")
    broker = start_broker(
        f'acl = "{acl}"\n[[listeners]]\nport = 0\n[[listeners]]\nport = 0\npasswords = "{passwords}"\n',
        data=tmp_path / "data",
    )
    with RawClient.connected(broker.addresses[1], "a", clean=False, username="ann", password=b"ann") as ann:
        ann.subscribe(("shared/#", 1))
        ann.disconnect()
    broker.restart()
    with RawClient.connected(broker.addresses[0]) as anonymous:
        anonymous.send(publish("shared/x", b"1", 1, packet_id=1))
        anonymous.expect(puback(1))
    with RawClient.connected(
        broker.addresses[1], "a", clean=False, present=True, username="ann", password=b"ann"
    ) as ann:
        assert ann.message()[:2] == ("shared/x", b"1")
