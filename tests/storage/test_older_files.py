"""Files that brokers of each older format wrote (see make_older_file): all that was stored in them is there."""

from __future__ import annotations

import gzip
import sqlite3
from pathlib import Path

import pytest

from broker.storage.examine import examine
from broker.storage.place import FILE_NAME
from broker.storage.schema import MIGRATIONS
from tests.broker_process import BrokerProcess
from tests.raw_client import PINGREQ, PINGRESP, RawClient, parse_publish, publish, pubrec, pubrel
from tests.storage.make_older_file import ADDRESS, RETAINED, UNRELEASED, WAITING, qos_of
from tests.storage.store_tools import (
    Kept,
    KeptRetained,
    Queued,
    fetch_all,
    held,
    kept_retained,
    kept_sessions,
    numbers,
    opened,
    session,
)

FILES = {version: Path(__file__).parent / "older" / f"format-{version}.db.gz" for version in MIGRATIONS}

EACH = pytest.mark.parametrize("version", FILES)


def put(version: int, directory: Path) -> Path:
    directory.mkdir(exist_ok=True)
    path = directory / FILE_NAME
    path.write_bytes(gzip.decompress(FILES[version].read_bytes()))
    return directory


def test_there_is_a_file_of_each_older_format_and_it_is_small() -> None:
    assert sorted(path.name for path in FILES[1].parent.iterdir()) == sorted(path.name for path in FILES.values())
    assert max(path.stat().st_size for path in FILES.values()) < 4_000


@EACH
def test_the_file_has_that_format_and_the_tool_that_looks_finds_nothing_wrong(fast_path: Path, version: int) -> None:
    path = put(version, fast_path) / FILE_NAME
    before = path.read_bytes()
    assert examine(str(fast_path)) == ("", 0, False)
    assert path.read_bytes() == before
    db = sqlite3.connect(path)
    assert db.execute("PRAGMA user_version").fetchone() == (version,)
    db.close()


@EACH
def test_all_that_was_stored_is_there_also_after_a_second_start(fast_path: Path, version: int) -> None:
    put(version, fast_path)
    listener = None if version == 1 else "{}:{}".format(*ADDRESS)  # format 1 did not know it
    waiting = [
        Queued(seq, qos_of(seq + 1), topic.encode(), payload, False)
        for seq, (topic, payload) in enumerate(WAITING.items())
    ]
    for _ in range(2):
        store = opened(fast_path)
        snapshot = store.load()
        found = kept_sessions(snapshot)
        records = {
            id: session(id, name, disconnected_at=found[id].record.disconnected_at, sent_to=sent_to, listener=listener)
            for id, (name, sent_to) in enumerate((("both-1", 0), ("both-2", 9), ("half", 2), ("author", 0)), 1)
        }
        assert [record.disconnected_at is not None for record in records.values()] == [True] * 4
        both = {b"both/#": 2, b"other/+": 0}
        assert found == {
            1: Kept(records[1], both, {}, ()),
            2: Kept(records[2], both, {}, ()),
            3: Kept(records[3], {b"half/#": 2}, {}, (0,)),
            4: Kept(records[4], {}, held(UNRELEASED), ()),
        }
        assert kept_retained(snapshot) == {
            topic.encode(): KeptRetained(payload, 1, True, None, "author", listener)
            for topic, payload in RETAINED.items()
        }
        assert snapshot.wills == {}
        assert fetch_all(store, 1) == waiting
        assert fetch_all(store, 2) == [message for message in waiting if message.seq in (2, 5, 6, 7, 8)]
        assert fetch_all(store, 3) == [
            Queued(0, 2, b"half/1", b"released", False), Queued(1, 1, b"half/2", b"not acknowledged", False)
        ]  # fmt: skip
        assert numbers(store, 1) == (0, 9, sum(len(message.topic + message.payload) for message in waiting))
        store.close()


@EACH
def test_a_broker_goes_on_where_the_older_one_ended(tmp_path: Path, version: int) -> None:
    data = put(version, tmp_path / "data")
    process = BrokerProcess(tmp_path, "session_expiry = 0\n", data=data)
    try:
        with RawClient.connected(process.address, "both-1", clean=False, present=True) as client:
            came = [client.message() for _ in WAITING]
            assert [(m.topic, m.payload, m.dup) for m in came] == [(*message, False) for message in WAITING.items()]
        with RawClient.connected(process.address, "both-2", clean=False, present=True) as client:
            assert {(m.topic, m.dup) for m in (client.message() for _ in range(5))} == {
                (topic, True) for place, topic in enumerate(WAITING) if place in (2, 5, 6, 7, 8)
            }
        with RawClient.connected(process.address, "half", clean=False, present=True) as client:
            packets = [client.next(), client.next()]
            (released,) = (packet for packet in packets if packet[0] == 0x62)
            (message,) = (parse_publish(packet) for packet in packets if packet[0] != 0x62)
            assert (message.topic, message.dup) == ("half/2", True)
            assert released == pubrel(message.packet_id - 1)
        with RawClient.connected(process.address, "author", clean=False, present=True) as client:
            # It is known, and not published again [MQTT-4.3.3-2].
            client.send(publish("half/1", b"released", 2, packet_id=UNRELEASED))
            client.expect(pubrec(UNRELEASED))
        with RawClient.connected(process.address) as client:
            client.subscribe(("#", 1)).send(PINGREQ)
            found = {}
            while (packet := client.next()) != PINGRESP:
                one = parse_publish(packet)
                found[one.topic] = one.payload
            assert found == RETAINED
    finally:
        process.stop()
