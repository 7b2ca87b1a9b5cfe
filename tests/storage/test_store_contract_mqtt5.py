"""What core.ports.Store promises of all that MQTT 5.0 adds, and of wills, for every store."""

from __future__ import annotations

from itertools import pairwise, product
from math import inf

import pytest

from broker.core.ports import OF_A_GROUP
from broker.storage.packing import BLOCK_SIZE, LARGE, LARGE_KEPT, LARGE_RETAINED, SEGMENT_COUNT
from broker.wire.message import Message
from tests.raw_client import text
from tests.storage.store_tools import (
    NO_LIMIT,
    Box,
    Kept,
    KeptRetained,
    Numbers,
    Queued,
    as_queued,
    batch,
    changes,
    delivery,
    fetch_all,
    held,
    kept_retained,
    kept_sessions,
    numbered,
    numbers,
    queued,
    retained,
    session,
    will,
)

#: A date as those of core/clock.py, with all the digits that a float has.
DATE = 1_800_000_000.123456

#: None, short ones, and what is long enough to stand behind a payload or to stand alone: Content Types.
PROPERTIES = [b"", b"\x01\x01", b"\x03\x00\x01t", *(b"\x03" + text("t" * size) for size in (LARGE_KEPT, LARGE))]
DATES = [None, 0.0, -1.5, DATE, 1e11]


# --- sessions and subscriptions ---


def test_what_a_session_has_of_mqtt_5_is_kept_and_changes(box: Box) -> None:
    expiries = [None, 0.0, 1.0, 0.5, 4_294_967_294.0, inf]
    records = [
        session(id, expiry=expiry, version=version)
        for id, (expiry, version) in enumerate(product(expiries, (3, 4, 5)), 1)
    ]
    box.store.commit(batch(sessions=records))
    assert kept_sessions(box.reread().load()) == {record.id: Kept(record, {}, {}, ()) for record in records}
    others = [old._replace(expiry=new.expiry, version=new.version) for old, new in pairwise(records)]
    box.store.commit(batch(sessions=others))
    found = kept_sessions(box.reread().load())
    assert [found[record.id].record for record in records] == [*others, records[-1]]


def test_a_client_may_be_called_like_a_group(box: Box) -> None:
    name = "$share/\u20ac/a/#"
    records = [session(1, name), session(2, name, kind=OF_A_GROUP), session(3, "$share/g/+", kind=OF_A_GROUP)]
    box.store.commit(batch(sessions=records, queues=[changes(id, numbered([id])) for id in (1, 2, 3)]))
    box.store.commit(batch(sessions=[record._replace(sent_to=9) for record in records]))
    store = box.reread()
    assert kept_sessions(store.load()) == {
        record.id: Kept(record._replace(sent_to=9), {}, {}, ()) for record in records
    }
    assert [[message.seq for message in fetch_all(store, id)] for id in (1, 2, 3)] == [[1], [2], [3]]
    box.store.commit(batch(forgotten=[1]))
    assert list(kept_sessions(box.reread().load())) == [2, 3]


def test_subscriptions_keep_their_options_and_identifier(box: Box) -> None:
    """[MQTT5-3.3.4-3]: the largest identifier has 28 bits."""
    kept = {
        b"f/%d/%d" % (options, identifier): options | identifier << 8
        for options in (0, 1, 2, 1 | 4, 2 | 8, 0x10, 0x2E)
        for identifier in (0, 1, 127, 268_435_455)
    }
    box.store.commit(batch(sessions=[session(1)], subscriptions={(1, name): value for name, value in kept.items()}))
    assert kept_sessions(box.reread().load())[1].subscriptions == kept
    box.store.commit(batch(subscriptions={(1, b"f/0/0"): 5 << 8, (1, b"f/1/1"): 1}))
    changed = {**kept, b"f/0/0": 5 << 8, b"f/1/1": 1}
    assert kept_sessions(box.reread().load())[1].subscriptions == changed


# --- messages in queues ---


def test_properties_and_expiry_of_queued_messages_are_kept(box: Box) -> None:
    added = {
        seq: delivery(b"t/%d" % seq, b"payload" * repeats, 1 + seq % 2, retain=retain, kept=kept, expires=expires)
        for seq, (kept, expires, repeats, retain) in enumerate(
            product(PROPERTIES, DATES, (0, 1, LARGE_RETAINED, LARGE), (False, True))
        )
    }
    box.store.commit(batch(sessions=[session(1)], queues=[changes(1, added)]))
    assert fetch_all(box.reread(), 1) == as_queued(added)
    size = sum(message.size for message, _ in added.values())
    assert numbers(box.reread(), 1) == Numbers(0, len(added), size)
    box.store.commit(batch(queues=[changes(1, settled=range(0, len(added), 3))]))
    assert fetch_all(box.reread(), 1) == as_queued({seq: added[seq] for seq in added if seq % 3})


@pytest.mark.parametrize("size", [1, LARGE_KEPT - 1, LARGE_KEPT, LARGE - 1, LARGE, 1 << 20])
@pytest.mark.parametrize("retain", [False, True])
def test_properties_of_every_size_stand_between_others(box: Box, size: int, retain: bool) -> None:
    kept = (bytes(i * 7 & 255 for i in range(251)) * (size // 251 + 1))[:size]
    added = {
        0: delivery(b"a", b"before"),
        1: delivery(b"big", b"x" * 100, 2, retain=retain, kept=kept),
        2: delivery(b"big", b"x" * LARGE, 2, retain=retain, kept=kept, expires=DATE),
        3: delivery(b"c", b"after", expires=DATE),
        4: delivery(b"d", b"last"),
    }
    box.store.commit(batch(sessions=[session(1), session(2)], queues=[changes(1, added)]))
    assert fetch_all(box.reread(), 1) == as_queued(added)
    box.store.commit(batch(queues=[changes(2, added), changes(1, {seq + 5: added[seq] for seq in added})]))
    assert fetch_all(box.reread(), 2) == as_queued(added)
    assert fetch_all(box.reread(), 1) == as_queued({**added, **{seq + 5: added[seq] for seq in added}})


@pytest.mark.parametrize("count", [SEGMENT_COUNT, SEGMENT_COUNT + 1, 2 * SEGMENT_COUNT + 1])
def test_as_many_messages_with_properties_as_are_split_into_segments(box: Box, count: int) -> None:
    added = {seq: delivery(b"t", b"%d" % seq, kept=b"\x01\x01" * (seq % 2), expires=DATE) for seq in range(count)}
    box.store.commit(batch(sessions=[session(1)], queues=[changes(1, added)]))
    assert fetch_all(box.reread(), 1) == as_queued(added)


def test_what_several_queues_get_keeps_its_properties(box: Box) -> None:
    """Also where one gets it with an identifier of its own in front of them, as a copy."""
    common = {
        seq: delivery(b"t", b"%d" % seq, 2, kept=PROPERTIES[seq % 4], expires=DATES[seq % 5]) for seq in range(300)
    }
    copies = {
        seq: (Message(message.topic, message.payload, 2, False, None, b"\x0b\x05" + message.kept, message.expires), 1)
        for seq, (message, _) in common.items()
    }
    big = {seq: delivery(b"big", b"x" * LARGE, 2, kept=kept, expires=DATE) for seq, kept in enumerate(PROPERTIES)}
    queues = {1: common, 2: common, 3: copies, 4: {seq: common[seq] for seq in (1, 5, 6)}, 5: big, 6: big}
    assert sum(message.size for message, _ in common.values()) < BLOCK_SIZE * 2
    box.store.commit(
        batch(sessions=[session(id) for id in queues], queues=[changes(id, added) for id, added in queues.items()])
    )
    assert {id: fetch_all(box.reread(), id) for id in queues} == {id: as_queued(queues[id]) for id in queues}
    for id, added in queues.items():
        assert numbers(box.reread(), id).queued_bytes == sum(message.size for message, _ in added.values())


def test_copies_of_a_large_message_each_keep_their_own_properties(box: Box) -> None:
    """They share the payload, and are settled one by one, in commits of their own."""
    payload = b"x" * LARGE
    kept = [b"", b"\x0b\x01", b"\x0b\x02" + b"&\x00\x01a\x00\x01b" * 100, b"\x0b\x03"]
    messages = [Message(b"big", payload, 1, False, None, one, DATE) for one in kept]
    ids = range(1, 9)
    box.store.commit(
        batch(sessions=[session(id) for id in ids], queues=[changes(id, {0: (messages[id % 4], 1)}) for id in ids])
    )
    expected = {id: [Queued(0, 1, b"big", payload, False, kept[id % 4], DATE)] for id in ids}
    for id in (1, 5, 4, 2, 6, 3):
        assert {id: fetch_all(box.reread(), id) for id in expected} == expected
        box.store.commit(batch(queues=[changes(id, settled=[0])]))
        del expected[id]
    box.store.commit(batch(queues=[changes(1, {1: (messages[2], 1)}), changes(2, {1: (messages[1], 1)})]))
    expected |= {id: [Queued(1, 1, b"big", payload, False, kept[number], DATE)] for id, number in ((1, 2), (2, 1))}
    assert {id: fetch_all(box.reread(), id) for id in expected} == expected


def test_a_retained_message_with_properties_is_queued_again_and_again(box: Box) -> None:
    messages = [
        delivery(b"r/%d" % number, b"x" * size, 1, retain=True, kept=kept, expires=DATE)
        for number, (size, kept) in enumerate(product((10, LARGE_RETAINED), PROPERTIES))
    ]
    box.store.commit(batch(sessions=[session(1), session(2)]))
    for start in range(0, 30, 10):
        box.store.commit(batch(queues=[changes(1, dict(enumerate(messages, start)))]))
    box.store.commit(batch(queues=[changes(1, settled=range(20)), changes(2, dict(enumerate(messages)))]))
    assert fetch_all(box.reread(), 1) == as_queued(dict(enumerate(messages, 20)))
    assert fetch_all(box.reread(), 2) == as_queued(dict(enumerate(messages)))


def test_fetch_counts_properties(box: Box) -> None:
    added = {seq: delivery(b"t", b"x" * 9, kept=b"p" * 90) for seq in range(10)}
    box.store.commit(batch(sessions=[session(1)], queues=[changes(1, added)]))
    store = box.reread()
    for size, expected in ((1, 1), (100, 1), (101, 2), (500, 5), (NO_LIMIT, 10)):
        assert len(queued(store.fetch(1, 0, 100, size))) == expected


# --- retained messages ---


def test_properties_and_expiry_of_retained_messages_are_kept_and_change(box: Box) -> None:
    records = {
        b"r/%d" % number: retained(b"r/%d" % number, b"x" * number, 1, "u", "c", kept=kept, expires=expires)
        for number, (kept, expires) in enumerate(product(PROPERTIES, DATES))
    }
    box.store.commit(batch(retained=records))
    expected = {
        topic: KeptRetained(message.payload, 1, True, "u", "c", None, message.kept, message.expires)
        for topic, (message, *_) in records.items()
    }
    assert kept_retained(box.reread().load()) == expected
    changed = {
        b"r/2": retained(b"r/2", b"plain", 0, "u", "c"),
        b"r/0": retained(b"r/0", b"now", 2, "u", "c", kept=b"\x01\x01", expires=DATE),
        b"r/24": None,
    }
    box.store.commit(batch(retained=changed))
    expected[b"r/2"] = KeptRetained(b"plain", 0, True, "u", "c")
    expected[b"r/0"] = KeptRetained(b"now", 2, True, "u", "c", None, b"\x01\x01", DATE)
    del expected[b"r/24"]
    assert kept_retained(box.reread().load()) == expected


# --- wills ---


def test_all_fields_of_a_will_are_kept(box: Box) -> None:
    wills = {
        id: will(
            f"c{id}" * (1 + id % 3 * 1000),
            "\u20ac/\U0001f989".encode(),
            bytes(range(256)) * (id % 4),
            username=username,
            listener=listener,
            qos=id % 3,
            retain=bool(id % 2),
            kept=kept,
            message_expiry=(None, 0, 1, 0xFFFFFFFF)[id % 4],
            delay=(0, 1, 0xFFFFFFFF)[id % 3],
            due=due,
        )
        for id, (username, listener, kept, due) in enumerate(
            product((None, "", "\U0001f511"), (None, "unix:/\u20ac"), PROPERTIES, (None, 0.0, DATE)), 1
        )
    }
    wills[1 << 40] = will("", b"t" * 65_535, b"x" * 65_535)
    box.store.commit(batch(wills=wills))
    found = box.reread().load().wills
    assert dict(found) == wills
    assert {type(one.retain) for one in found.values()} == {bool}


def test_wills_are_added_changed_and_removed(box: Box) -> None:
    box.store.commit(batch(wills={1: will("a"), 2: will("b"), 3: will("a", b"another")}))
    box.store.commit(batch(wills={1: will("a", due=DATE), 2: None, 4: will("d"), 9: None}))
    expected = {1: will("a", due=DATE), 3: will("a", b"another"), 4: will("d")}
    assert dict(box.reread().load().wills) == expected
    box.store.commit(batch(sessions=[session(1)]))  # says nothing of them
    assert dict(box.reread().load().wills) == expected
    box.store.commit(batch(wills=dict.fromkeys(range(10))))
    assert dict(box.reread().load().wills) == {}


def test_a_will_outlives_a_session_of_the_same_client(box: Box) -> None:
    """Whether it is published when the session ends, the core decides: it is an entry of its own."""
    box.store.commit(batch(sessions=[session(1, "c")], wills={1: will("c")}))
    box.store.commit(batch(forgotten=[1]))
    assert dict(box.reread().load().wills) == {1: will("c")}


def test_a_will_that_is_published_goes_in_the_commit_that_stores_its_message(box: Box) -> None:
    box.store.commit(batch(sessions=[session(1)], wills={1: will(), 2: will()}, subscriptions={(1, b"will"): 1}))
    published = delivery(b"will", b"gone", expires=DATE)
    box.store.commit(
        batch(
            wills={1: None},
            queues=[changes(1, {0: published})],
            retained={b"will": retained(b"will", b"gone", expires=DATE)},
        )
    )
    snapshot = box.reread().load()
    assert dict(snapshot.wills) == {2: will()}
    assert kept_retained(snapshot) == {b"will": KeptRetained(b"gone", 0, True, None, "", None, b"", DATE)}
    assert kept_sessions(snapshot) == {1: Kept(session(1), {b"will": 1}, held(), ())}
    assert fetch_all(box.reread(), 1) == as_queued({0: published})


# --- what is counted ---


def test_what_is_held_counts(box: Box) -> None:
    """Of properties and wills, as of payloads: what they take is seen, and is given back."""
    store = box.store
    before = store.size
    store.commit(batch(sessions=[session(1)], queues=[changes(1, {0: delivery(kept=b"p" * 100_000)})]))
    assert store.size > before + 95_000
    store.commit(batch(retained={b"r": retained(b"r", b"", kept=b"p" * 100_000)}))
    assert store.size > before + 190_000
    store.commit(batch(wills={1: will(payload=b"x" * 50_000, kept=b"p" * 50_000)}))
    assert store.size > before + 285_000
    store.commit(batch(wills={1: will(payload=b"y" * 50_000, kept=b"p" * 50_000)}))
    assert store.size < before + 350_000
    store.commit(batch(forgotten=[1], retained={b"r": None}, wills={1: None}))
    assert store.size < before + 20_000
