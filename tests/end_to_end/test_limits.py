"""Every limit of the table of options: what happens at it, that it is counted in $SYS, and that the log tells it once a
client. (connect_timeout, max_keepalive and max_client_id are in test_connecting, session_expiry in test_embedded.)
"""

from __future__ import annotations

import re
import tempfile
import threading
import time
from pathlib import Path

import pytest

from broker.admission import LEAST
from broker.auth.passwords import set_password
from tests.broker_process import BrokerProcess, StartBroker, child, eventually
from tests.end_to_end.sys_topics import sys_values, wait_for_count, wait_for_sys
from tests.raw_client import (
    PINGREQ,
    PINGRESP,
    RawClient,
    Will,
    connack,
    connect,
    packet,
    parse_publish,
    puback,
    pubcomp,
    publish,
    pubrec,
    pubrel,
    suback,
    subscribe,
    text,
)

OFTEN = "sys_interval = 0.05\n"


def absent(broker: BrokerProcess, client_id: str, qos: int = 1) -> None:
    """A persistent session that subscribed to "t" and went away."""
    with RawClient.connected(broker.address, client_id, clean=False) as client:
        client.subscribe(("t", qos))
        client.disconnect()


def publish_all(author: RawClient, count: int, payload: bytes = b"", topic: str = "t", first: int = 1) -> None:
    """QoS 1, each acknowledged."""
    for start in range(first, first + count, 500):
        ids = range(start, min(start + 500, first + count))
        author.send(b"".join(publish(topic, payload or b"%d" % i, 1, packet_id=i) for i in ids))
        author.expect(*(puback(i) for i in ids))


# --- connections ---


def test_max_connections(start_broker: StartBroker) -> None:
    broker = start_broker(OFTEN + "max_connections = 3\n")
    with RawClient.connected(broker.address, "one"), RawClient.connected(broker.address, "two"):
        for _ in range(4):
            with RawClient.connected(broker.address, "three"), RawClient(broker.address) as fourth:
                fourth.send(connect("four"))
                assert fourth.closed() == connack(3)
        wait_for_sys(broker.address, "clients/refused", 4)
    (refusal,) = broker.wait_for("client refused", code=3)
    assert refusal["reason"] == "as many clients as the listener takes are connected (max_connections)"
    assert (refusal["client"], refusal["level"]) == ("four", "warning")
    broker.stop()
    (left_out,) = broker.events("left out: more of the same")
    assert (left_out["what"], left_out["code"], left_out["times"]) == ("client refused", 3, 3)


def test_connections_that_say_nothing_take_no_place_of_a_client_and_make_room_for_each_other(
    start_broker: StartBroker,
) -> None:
    broker = start_broker(OFTEN + "max_connections = 3\n")
    crowd = [RawClient(broker.address) for _ in range(LEAST + 30)]
    assert [client.closed() for client in crowd[:30]] == [b""] * 30  # the eldest
    assert [is_closed(client) for client in crowd[30:]] == [False] * LEAST
    # From the same address, and from another one.
    with (
        RawClient.connected(broker.address, "same") as same,
        RawClient(broker.address, source="127.0.0.2") as other,
    ):
        other.send(connect("other"))
        other.expect(connack())
        same.ping()
        wait_for_sys(broker.address, "clients/refused", 31)
    for client in crowd:
        client.close()


def test_when_descriptors_run_out_silent_connections_go_on_any_listener() -> None:
    script = (
        "import resource, sys\n"
        "from broker.cli import main\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    with tempfile.TemporaryDirectory() as directory:
        config = Path(directory) / "b.toml"
        config.write_text("memory = true\n[[listeners]]\nport = 0\n[[listeners]]\nport = 0\n")
        with child("-c", script, "-c", str(config)) as (process, log):
            ports: list[int] = []
            while len(ports) < 2:
                ports += [int(port) for port in re.findall(r"listening address=127\.0\.0\.1:(\d+)", log.readline())]
            reader = threading.Thread(target=log.read)
            reader.start()
            silent = [RawClient(("127.0.0.1", ports[0])) for _ in range(200)]
            for n in range(50):  # as many as there are, and at once
                RawClient.connected(("127.0.0.1", ports[1]), f"c{n}").disconnect()
            for client in silent:
                client.close()
            process.terminate()
            reader.join()
        assert process.returncode == 0


def is_closed(client: RawClient) -> bool:
    client.socket.settimeout(0.001)
    try:
        return client.socket.recv(1) == b""
    except TimeoutError:
        return False
    except ConnectionError:
        return True


def test_above_max_connect_rate_clients_wait_for_their_turn(start_broker: StartBroker) -> None:
    """max_connect_rate."""
    broker = start_broker("", "--max-connect-rate", "20")
    start = time.monotonic()
    crowd = [RawClient(broker.address) for _ in range(60)]
    for i, client in enumerate(crowd):
        client.send(connect(f"c{i}"))
    with RawClient(broker.address, source="127.0.0.2") as other:  # another address does not wait
        other.send(connect("other"))
        other.expect(connack())
        assert len(broker.events("client connected")) < 40
    for client in crowd:
        client.expect(connack())
    took = time.monotonic() - start
    print(f"{took:.2f} s for 60 clients, where 20 come at once and then 20 a second")
    assert took > 1.9
    assert broker.events("client refused") + broker.events("connection refused") == []
    for client in crowd:
        client.close()


def test_of_those_above_max_connect_rate_not_more_wait_than_have_a_turn_in_time(start_broker: StartBroker) -> None:
    broker = start_broker(OFTEN, "--max-connect-rate", "1")
    crowd = [RawClient(broker.address) for _ in range(40)]
    broker.wait_for("connection refused", address="127.0.0.1", reason="too many attempts from this address")
    eventually(lambda: sum(is_closed(client) for client in crowd) >= 25, "one at once, and ten who wait")
    assert sum(is_closed(client) for client in crowd) <= 29
    for client in crowd:
        client.close()
    assert len(broker.events("connection refused")) == 1
    with RawClient(broker.address, source="127.0.0.2") as other:
        other.send(connect("other"))
        other.expect(connack())


def test_who_leaves_while_waiting_for_a_turn_is_forgotten(start_broker: StartBroker) -> None:
    broker = start_broker("", "--max-connect-rate", "10")
    for client in [RawClient(broker.address) for _ in range(40)]:
        client.close()
    with RawClient(broker.address) as late:
        late.send(connect("late"))
        late.expect(connack())


# --- packets and topics ---


def test_max_packet_size(start_broker: StartBroker) -> None:
    broker = start_broker(OFTEN + "max_packet_size = 1024\n")
    largest = publish("t", b"x" * (1024 - 3 - 3))
    assert len(largest) == 1024
    with RawClient.connected(broker.address, "reader") as reader:
        reader.subscribe(("t", 0))
        with RawClient.connected(broker.address, "author") as author:
            author.send(largest)
            reader.expect(largest)
            author.send(publish("t", b"x" * (1024 - 3 - 2))[:5])  # told by its header, before it is there
            assert author.closed() == b""
        reader.ping()
    (event,) = broker.wait_for("client disconnected", client="author")
    assert event["reason"] == "protocol error: a packet of 1025 bytes, over the limit of 1024 (max_packet_size)"
    wait_for_sys(broker.address, "errors/protocol", 1)


def test_no_client_may_send_a_large_connect_before_it_is_known(start_broker: StartBroker) -> None:
    broker = start_broker("max_packet_size = '200 MiB'\n")
    with RawClient(broker.address) as client:
        client.send(b"\x10" + b"\xff\xff\xff\x20")
        assert client.closed() == b""
    # At once, and not because nothing more came.
    (event,) = broker.wait_for("connection closed before it was accepted")
    assert event["reason"].startswith("protocol error: a packet of "), event
    topic, rest = "t" * 65_535, b"x" * 65_535
    with RawClient(broker.address) as client:  # the largest that there can be
        client.send(connect("c" * 65_535, username="u" * 65_535, password=rest, will=Will(topic, rest)))
        client.expect(connack())


@pytest.mark.parametrize(
    ("option", "allowed", "refused", "reason"),
    [
        (
            "max_topic_levels = 3\n",
            "a/b/c",
            "a/b/c/d",
            "protocol error: a Topic Name of more than 3 levels (max_topic_levels)",
        ),
        (
            "max_topic_length = 10\n",
            "t" * 10,
            "t" * 11,
            "protocol error: a Topic Name of 11 bytes, over the limit of 10 (max_topic_length)",
        ),
    ],
    ids=["levels", "length"],
)
def test_max_topic(option: str, allowed: str, refused: str, reason: str, start_broker: StartBroker) -> None:
    broker = start_broker(OFTEN + option)
    with RawClient.connected(broker.address, "client") as client:
        client.send(subscribe((allowed, 0), (refused, 0), (refused + "x", 0), (allowed[:-2] + "/+", 0)))
        client.expect(suback(0, 0x80, 0x80, 0))
        client.send(publish(allowed, b"x"))
        client.expect(publish(allowed, b"x"))
        client.send(publish(refused, b"x"))
        assert client.closed() == b""
    (event,) = broker.wait_for("client disconnected", client="client")
    assert event["reason"] == reason
    with RawClient(broker.address) as client:
        client.send(connect("willful", will=Will(refused)))
        assert client.closed() == b""
    refusal = "subscription refused: the filter is longer or deeper than the limit"
    assert len(broker.events(refusal, client="client")) == 1
    wait_for_sys(broker.address, "errors/protocol", 2)
    wait_for_sys(broker.address, "publish/messages/denied", 2)


def test_max_subscriptions(start_broker: StartBroker) -> None:
    broker = start_broker(OFTEN + "max_subscriptions = 3\n")
    with RawClient.connected(broker.address, "client") as client:
        client.send(subscribe(("a", 0), ("b/#", 1), ("c", 2), ("d", 0), ("e", 0), ("a", 1)))
        client.expect(suback(0, 1, 2, 0x80, 0x80, 1))
        client.send(packet(0xA2, b"\0\2" + text("a")))
        client.expect(b"\xb0\x02\0\2")
        client.send(subscribe(("d", 0), ("f", 0)))
        client.expect(suback(0, 0x80))
        with RawClient.connected(broker.address, "other") as other:  # it is a limit of each session
            other.subscribe(("a", 0), ("b", 0), ("c", 0))
    (event,) = broker.wait_for("subscription refused: the session has as many as it may")
    assert (event["level"], event["client"], event["topic"]) == ("warning", "client", "d")
    wait_for_sys(broker.address, "publish/messages/denied", 3)


# --- in flight ---


@pytest.mark.parametrize("clean", [True, False], ids=["clean", "persistent"])
@pytest.mark.parametrize("qos", [1, 2])
def test_max_inflight(clean: bool, qos: int, start_broker: StartBroker, tmp_path: Path) -> None:
    broker = start_broker("max_inflight = 5\n", data=tmp_path / "data")
    with (
        RawClient.connected(broker.address, "reader", clean=clean) as reader,
        RawClient.connected(broker.address, "author") as author,
    ):
        reader.subscribe(("t", qos), ("end", 0))
        for i in range(1, 9):
            author.send(publish("t", b"%d" % i, qos, packet_id=i))
            author.next()
        first = [reader.message() for _ in range(5)]
        assert [message.payload for message in first] == [b"%d" % i for i in range(1, 6)]
        assert len({message.packet_id for message in first}) == 5
        author.send(publish("end"))
        reader.expect(publish("end"))  # nothing else is in flight
        # What is acknowledged makes room, in any order.
        if qos == 1:
            reader.send(puback(first[2].packet_id))
        else:
            reader.send(pubrec(first[2].packet_id))
            reader.expect(pubrel(first[2].packet_id))
            author.send(publish("end"))
            reader.expect(publish("end"))  # a released message is still in flight
            reader.send(pubcomp(first[2].packet_id))
        assert reader.message().payload == b"6"
        author.send(publish("end"))
        reader.expect(publish("end"))


# --- queues ---


def test_max_queued_messages_of_an_absent_session(start_broker: StartBroker, tmp_path: Path) -> None:
    broker = start_broker(OFTEN + "max_queued_messages = 100\n", data=tmp_path / "data")
    absent(broker, "absent")
    with RawClient.connected(broker.address, "author") as author:
        publish_all(author, 130)
    wait_for_sys(broker.address, "publish/messages/dropped", 30)
    (event,) = broker.wait_for("queue full: messages for this client are dropped")
    assert (event["level"], event["client"], event["queued"]) == ("warning", "absent", 100)
    broker.restart()
    with RawClient.connected(broker.address, "absent", clean=False, present=True) as client:
        for i in range(1, 101):
            message = client.message()
            assert message.payload == b"%d" % i  # what came first is kept
            client.send(puback(message.packet_id))
        client.ping()


def test_a_queue_that_has_room_again_takes_messages_again_and_says_so(start_broker: StartBroker) -> None:
    broker = start_broker(OFTEN + "max_queued_messages = 10\nmax_inflight = 5\n")
    with (
        RawClient.connected(broker.address, "reader", clean=False) as reader,
        RawClient.connected(broker.address, "author") as author,
    ):
        reader.subscribe(("t", 1))
        for round in range(2):
            publish_all(author, 15)
            for i in range(1, 11):
                message = reader.message()
                assert message.payload == b"%d" % i
                reader.send(puback(message.packet_id))
            reader.ping()
            wait_for_count(broker.address, "publish/messages/dropped", 5 * (round + 1))
        # Once in a minute.
        for event in ("queue full: messages for this client are dropped", "queue empty again"):
            assert len(broker.events(event, client="reader")) == 1
        broker.wait_for("queue empty again", client="reader", dropped=5)


def test_max_queued_bytes(start_broker: StartBroker, tmp_path: Path) -> None:
    broker = start_broker(OFTEN + 'max_queued_bytes = "10 KiB"\n', data=tmp_path / "data")
    absent(broker, "absent")
    with RawClient.connected(broker.address, "author") as author:
        publish_all(author, 20, b"x" * 999)  # with its topic, 1000 bytes each
    wait_for_sys(broker.address, "publish/messages/dropped", 10)
    with RawClient.connected(broker.address, "absent", clean=False, present=True) as client:
        for _ in range(10):
            client.send(puback(client.message().packet_id))
        client.ping()


def test_max_memory_queue_is_all_that_a_clean_session_has(start_broker: StartBroker) -> None:
    broker = start_broker(OFTEN + "max_memory_queue = 20\nmax_inflight = 5\n")
    with (
        RawClient.connected(broker.address, "reader") as reader,
        RawClient.connected(broker.address, "author") as author,
    ):
        reader.subscribe(("t", 1))
        publish_all(author, 40)
        # What was on its way when the publisher was held back comes, too; it was acknowledged.
        for i in range(1, 41):
            message = reader.message()
            assert message.payload == b"%d" % i
            reader.send(puback(message.packet_id))
        reader.ping()
        # A reader that takes nothing holds nobody back for long, and has no more than that.
        for first in (1, 101):
            for i in range(first, first + 100):
                author.send(publish("t", b"", 1, packet_id=i))
            author.expect(*(puback(i) for i in range(first, first + 100)))
        broker.wait_for("queue full: messages for this client are dropped", client="reader")


def test_a_persistent_session_keeps_on_disk_what_memory_does_not_take(
    start_broker: StartBroker, tmp_path: Path
) -> None:
    broker = start_broker("max_memory_queue = 10\nmax_inflight = 5\n", data=tmp_path / "data")
    with (
        RawClient.connected(broker.address, "reader", clean=False) as reader,
        RawClient.connected(broker.address, "author") as author,
    ):
        reader.subscribe(("t", 1))
        publish_all(author, 300)
        for i in range(1, 301):
            message = reader.message()
            assert message.payload == b"%d" % i
            reader.send(puback(message.packet_id))
        reader.ping()


# --- what is not sent ---


@pytest.mark.parametrize("option", ["max_sessions", "max_sessions_per_user"])
def test_max_sessions(option: str, start_broker: StartBroker, tmp_path: Path) -> None:
    passwords = tmp_path / "passwords"
    set_password(str(passwords), "ann", b"secret", create=True, iterations=1)
    broker = start_broker(f'{OFTEN}{option} = 2\npasswords = "{passwords}"\n', data=tmp_path / "data")

    def code(client_id: str, *, clean: bool = False) -> int:
        with RawClient(broker.address) as client:
            client.send(connect(client_id, clean=clean, username="ann", password=b"secret"))
            answer: int = client.next()[3]
            return answer

    assert [code(name) for name in ("a", "b", "c")] == [0, 0, 3]
    broker.restart()  # they are all there, though nobody is connected
    assert [code("c"), code("c", clean=True), code("b"), code("a", clean=True), code("c")] == [3, 0, 0, 0, 0]
    broker.wait_for("client refused", client="c", code=3)


def test_max_sessions_per_address(start_broker: StartBroker) -> None:
    """Not for this machine, on which a proxy may be; it is a proxy that tells other addresses here."""
    options = 'proxy_protocol = ["127.0.0.1"]\nallow_anonymous = true\nmax_sessions_per_address = 2\n'
    broker = start_broker(options)

    def code(client_id: str, address: str) -> int:
        with RawClient(broker.address) as client:
            client.send(f"PROXY TCP4 {address} 192.0.2.9 1000 1883\r\n".encode() + connect(client_id, clean=False))
            answer: int = client.next()[3]
            return answer

    assert [code(f"a{i}", "192.0.2.1") for i in range(3)] == [0, 0, 3]
    assert [code(f"b{i}", "192.0.2.2") for i in range(3)] == [0, 0, 3]
    assert [code(f"c{i}", "127.0.0.1") for i in range(3)] == [0, 0, 0]


def test_max_store(start_broker: StartBroker, tmp_path: Path) -> None:
    broker = start_broker(OFTEN + 'max_store = "2 MiB"\n', data=tmp_path / "data")
    absent(broker, "away")
    with RawClient.connected(broker.address, "author") as author:
        publish_all(author, 3_000, b"x" * 1_000)
        with RawClient(broker.address) as new:
            new.send(connect("new", clean=False))
            assert new.closed() == connack(3)
    (told,) = broker.wait_for("the store is full: messages for absent clients are dropped, and no new session is made")
    assert (told["max_store"], told["level"]) == (2 << 20, "error")
    wait_for_count(broker.address, "publish/messages/dropped", 1)
    with RawClient.connected(broker.address, "away") as reader:  # CleanSession = 1: what waited is given up
        reader.ping()
    broker.wait_for("the store has room again")
    absent(broker, "new")


def test_max_unsent(start_broker: StartBroker) -> None:
    broker = start_broker(OFTEN + 'max_unsent = "64 KiB"\n')
    slow = RawClient.connected(broker.address, "slow", receive_buffer=4096).subscribe(("t", 0), ("q", 1))
    with RawClient.connected(broker.address, "fast") as fast, RawClient.connected(broker.address, "author") as author:
        fast.subscribe(("t", 0))
        for i in range(200):
            author.send(publish("t", b"%03d" % i * 10_000))
            assert fast.message().payload[:3] == b"%03d" % i  # who reads gets it all
        publish_all(author, 5, topic="q")
        wait_for_something_dropped(broker)
        # The slow one gets the first of them, in order and whole, and none of QoS 1 is lost.
        came = [slow.message() for _ in range(3)]
        while len([message for message in came if message.qos]) < 5:
            message = slow.message()
            came.append(message)
            if message.qos:
                slow.send(puback(message.packet_id))
        numbers = [int(message.payload[:3]) for message in came if not message.qos]
        assert numbers == list(range(len(numbers)))
        assert len(numbers) < 200
        assert [message.payload for message in came if message.qos] == [b"%d" % i for i in range(1, 6)]
        wait_for_sys(broker.address, "publish/messages/dropped", 200 - len(numbers))
        # It has caught up.
        author.send(publish("t", b"again"))
        assert slow.message().payload == b"again"
    slow.close()
    (event,) = broker.wait_for("client reads too slowly: QoS 0 messages for it are dropped until it has caught up")
    assert (event["level"], event["client"]) == ("warning", "slow")
    assert event["unsent"] > 65_536


def wait_for_something_dropped(broker: BrokerProcess) -> None:
    broker.wait_for("client reads too slowly: QoS 0 messages for it are dropped until it has caught up")


# --- retained ---


def retained_topics(broker: BrokerProcess) -> set[str]:
    with RawClient.connected(broker.address).subscribe(("#", 0)) as client:
        client.send(PINGREQ)
        topics = set()
        while (data := client.next()) != PINGRESP:
            topics.add(parse_publish(data).topic)
        return topics


@pytest.mark.parametrize(
    "option", ["max_retained = {}\n", "max_retained_bytes = {}\n"], ids=["max_retained", "max_retained_bytes"]
)
def test_max_retained(option: str, start_broker: StartBroker, tmp_path: Path) -> None:
    # The broker's own topics count, too: they are there first.
    own = sys_values(start_broker(OFTEN).address)
    if "bytes" in option:
        # The limit is reached by the third of 100 KB; the broker's own are some kilobytes.
        limit, payload = 250_000, b"x" * 100_000
    else:
        limit, payload = len(own) + 2, b"x"
    broker = start_broker(OFTEN + option.format(limit), data=tmp_path / "data")
    with (
        RawClient.connected(broker.address, "reader") as reader,
        RawClient.connected(broker.address, "author") as author,
    ):
        reader.subscribe(("r/#", 0))
        for i, topic in enumerate(("r/1", "r/2", "r/3", "r/4"), 1):
            author.send(publish(topic, payload, 1, packet_id=i, retain=True))
            author.expect(puback(i))
            assert reader.message()[:2] == (topic, payload)  # it is delivered, and only not kept
        assert retained_topics(broker) == {"r/1", "r/2"}
        wait_for_sys(broker.address, "publish/messages/dropped", 2)
        assert len(broker.events("no room for more retained messages: this one is delivered, but not kept")) == 1
        # Within the limit, old ones can be replaced and removed.
        author.send(
            publish("r/1", payload[:-1] + b"y", 1, retain=True) + publish("r/2", b"", 1, packet_id=2, retain=True)
        )
        author.expect(puback(1), puback(2))
        author.send(publish("r/3", payload, 1, packet_id=3, retain=True))
        author.expect(puback(3))
        assert retained_topics(broker) == {"r/1", "r/3"}
    broker.restart()
    assert retained_topics(broker) == {"r/1", "r/3"}


def test_an_old_value_that_cannot_be_replaced_goes(start_broker: StartBroker, tmp_path: Path) -> None:
    # It would be wrong from then on.
    broker = start_broker('max_retained_bytes = "100 KiB"\n', data=tmp_path / "data")
    with RawClient.connected(broker.address, "author") as author:
        for i, size in enumerate((10, 200_000), 1):
            author.send(publish("r", b"x" * size, 1, packet_id=i, retain=True))
            author.expect(puback(i))
    assert retained_topics(broker) == set()


# --- memory and disk ---


def test_what_a_limit_refuses_is_told_with_the_names_of_the_table() -> None:
    # Whoever reads such a line finds the option: each has one, and this module tests it.
    from broker.config.options import OPTIONS

    tested = set(re.findall(r"max_\w+", Path(__file__).read_text()))
    elsewhere = {
        name
        for file in ("test_connecting.py", "test_goodbyes5.py")
        for name in re.findall(r"max_\w+", (Path(__file__).parent / file).read_text())
    }
    assert {name for name in OPTIONS if name.startswith("max_")} - tested - elsewhere == set()


def test_max_memory_is_shared_out_and_shown(start_broker: StartBroker) -> None:
    """What happens above each share: tests/core/test_memory.py."""
    broker = start_broker(OFTEN + 'max_memory = "16 MiB"\n')
    with RawClient.connected(broker.address, "client") as client:
        client.subscribe(("a/+", 0))
        wait_for_sys(broker.address, "memory/bytes/limit", 16 << 20)
        held = "memory/subscriptions/bytes"
        eventually(lambda: int(sys_values(broker.address)[held]) > 500, "the subscription is counted")
    values = sys_values(broker.address)
    kinds = ("incoming", "unsent", "queues", "subscriptions", "retained", "clients")
    assert sum(int(values[f"memory/{kind}/bytes/limit"]) for kind in kinds) == 16 << 20
