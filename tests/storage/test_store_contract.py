"""What core.ports.Store promises, for every store: in memory, on disk, and read back through a reopened file."""

from __future__ import annotations

from itertools import product

import pytest

from broker.core.ports import ClockRecord
from broker.storage.packing import LARGE, LARGE_RETAINED, SEGMENT_COUNT, SEGMENT_SIZE, SEGMENT_SPAN
from tests.storage.store_tools import (
    ALL,
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
)


def places(messages: list[Queued]) -> list[int]:
    return [message.seq for message in messages]


def test_a_new_store_is_empty(box: Box) -> None:
    assert box.reread().load() == ([], [], None, {})
    assert box.reread().fetch(1, 0, ALL, NO_LIMIT) == []


def test_the_last_record_of_the_clock_is_kept(box: Box) -> None:
    for clock in (ClockRecord(5.5, 1.7e9, ()), ClockRecord(1.7e9 + 0.125, 0.5, ((5.5, 0.0), (7.0, 1e9 + 0.25)))):
        box.store.commit(batch(clock=clock))
        box.store.commit(batch(sessions=[session(1)]))  # says nothing of it
        assert box.reread().load().clock == clock


def test_an_empty_batch_changes_nothing(box: Box) -> None:
    box.store.commit(batch(sessions=[session(1)], queues=[changes(1, numbered([0]))]))
    before = box.reread().load()
    box.store.commit(batch())
    assert box.reread().load() == before


# --- sessions ---


def test_all_fields_of_a_session_are_kept(box: Box) -> None:
    names = ["a", "Ä€\U0001f989", "e\u0301", "\ufeff\uffff\x01\x7f", "\U0010ffff" * 16_000]
    usernames = [None, "", "user", "Ünï\U0001f511"]
    times = [(None, None), (0.0, 0), (1_800_000_000.123456, 1 << 40)]
    listeners = [None, "[::1]:1883", "unix:/run/\u20ac"]
    records = [
        session(
            id,
            f"{name}{id}",
            username=username,
            disconnected_at=away,
            sent_to=sent_to,
            listener=listener,
            origin=f"::{id}",
        )
        for id, (name, username, (away, sent_to), listener) in enumerate(product(names, usernames, times, listeners), 1)
    ]
    box.store.commit(batch(sessions=records))
    assert kept_sessions(box.reread().load()) == {record.id: Kept(record, {}, {}, ()) for record in records}
    assert numbers(box.reread(), 7) == Numbers(0, 0, 0)


def test_client_ids_that_look_alike_are_different_clients(box: Box) -> None:
    """[MQTT-1.5.3-3] [MQTT-4.7.3-4]: nothing is normalised, nor is case ignored."""
    names = ["a", "A", "é", "e\u0301", "a ", "\ufeffa"]
    box.store.commit(batch(sessions=[session(id, name) for id, name in enumerate(names, 1)]))
    assert [kept.record.client_id for _, kept in sorted(kept_sessions(box.reread().load()).items())] == names


def test_a_session_saved_again_keeps_all_that_belongs_to_it(box: Box) -> None:
    box.store.commit(
        batch(
            sessions=[session(1, "a", username="u", sent_to=0)],
            subscriptions={(1, b"x"): 1},
            received={1: held(5)},
            queues=[changes(1, numbered([0, 1]), released=(0,))],
        )
    )
    later = session(1, "a", username="v", disconnected_at=5.5, sent_to=2)
    box.store.commit(batch(sessions=[later]))
    assert kept_sessions(box.reread().load()) == {1: Kept(later, {b"x": 1}, held(5), (0,))}
    assert fetch_all(box.reread(), 1) == as_queued(numbered([0, 1]))


# --- subscriptions ---


def test_subscriptions_are_added_changed_and_removed(box: Box) -> None:
    box.store.commit(
        batch(
            sessions=[session(1), session(2)],
            subscriptions={(1, b"a"): 0, (1, b"b/+/#"): 1, (1, b"A"): 2, (2, b"a"): 2, (2, "\u20ac/#".encode()): 1},
        )
    )
    box.store.commit(batch(subscriptions={(1, b"a"): 2, (1, b"b/+/#"): None, (2, b"none"): None, (2, b"new"): 0}))
    kept = kept_sessions(box.reread().load())
    assert kept[1].subscriptions == {b"a": 2, b"A": 2}
    assert kept[2].subscriptions == {b"a": 2, "\u20ac/#".encode(): 1, b"new": 0}


def test_the_longest_filter_is_kept(box: Box) -> None:
    longest = b"/" * 65_534 + b"#"
    box.store.commit(batch(sessions=[session(1)], subscriptions={(1, longest): 1}))
    assert kept_sessions(box.reread().load())[1].subscriptions == {longest: 1}


# --- identifiers at QoS 2 ---


def test_received_identifiers_change_bucket_by_bucket(box: Box) -> None:
    def kept(id: int) -> dict[int, int]:
        return kept_sessions(box.reread().load())[id].received

    box.store.commit(batch(sessions=[session(1), session(2)], received={1: held(65_535, 1, 256), 2: held(1, 9)}))
    box.store.commit(batch(received={1: held(2, 65_534, 65_535)}))
    assert (kept(1), kept(2)) == (held(2, 256, 65_534, 65_535), held(1, 9))
    box.store.commit(batch(received={1: {0: 0, 8: 0, 77: 0}}))
    assert (kept(1), kept(2)) == (held(65_534, 65_535), held(1, 9))
    box.store.commit(batch(received={1: {2047: 0}, 2: {}}))
    assert (kept(1), kept(2)) == ({}, held(1, 9))


def test_every_identifier_can_be_received_at_once(box: Box) -> None:
    everything = held(*range(1, 65_536))
    box.store.commit(batch(sessions=[session(1)], received={1: everything}))
    assert kept_sessions(box.reread().load())[1].received == everything


def test_released_places_keep_the_order_of_their_pubrecs(box: Box) -> None:
    """[MQTT-4.6.0-4]"""
    box.store.commit(batch(sessions=[session(1)], queues=[changes(1, numbered(range(4)), released=(3, 0, 1 << 40))]))
    assert kept_sessions(box.reread().load())[1].released == (3, 0, 1 << 40)
    box.store.commit(batch(queues=[changes(1, settled=[0])]))
    assert kept_sessions(box.reread().load())[1].released == (3, 0, 1 << 40), "None leaves them as they were"
    box.store.commit(batch(queues=[changes(1, released=(2,))]))
    assert kept_sessions(box.reread().load())[1].released == (2,)
    box.store.commit(batch(queues=[changes(1, released=())]))
    assert kept_sessions(box.reread().load())[1].released == ()


# --- queues ---


def test_all_fields_of_a_queued_message_are_kept(box: Box) -> None:
    added = {
        0: delivery(b"a", b"payload", 1),
        1: delivery("\u20ac/\U0001f989".encode(), bytes(range(256)) * 2, 2),
        2: delivery(b"/", b"", 1, retain=True),
        3: delivery(b"t" * 65_535, b"\0" * 70, 2, retain=True),
    }
    box.store.commit(batch(sessions=[session(1)], queues=[changes(1, added)]))
    assert fetch_all(box.reread(), 1) == [
        Queued(0, 1, b"a", b"payload", False),
        Queued(1, 2, "\u20ac/\U0001f989".encode(), bytes(range(256)) * 2, False),
        Queued(2, 1, b"/", b"", True),
        Queued(3, 2, b"t" * 65_535, b"\0" * 70, True),
    ]


def test_a_queue_keeps_the_qos_of_the_delivery_and_not_of_the_publish(box: Box) -> None:
    """[MQTT-3.8.4-6]: one message goes to two sessions, each at what it was granted."""
    message, _ = delivery(b"t", b"x", 2)
    box.store.commit(
        batch(sessions=[session(1), session(2)], queues=[changes(1, {0: (message, 1)}), changes(2, {0: (message, 2)})])
    )
    assert [fetch_all(box.reread(), id)[0].qos for id in (1, 2)] == [1, 2]


@pytest.mark.parametrize("size", [0, 1, LARGE - 1, LARGE, LARGE + 1, SEGMENT_SIZE, 1 << 20])
def test_payloads_of_every_size_stand_between_others(box: Box, size: int) -> None:
    payload = bytes(i * 7 & 255 for i in range(251)) * (size // 251 + 1)
    added = {0: delivery(b"a", b"before"), 1: delivery(b"big", payload[:size], 2), 2: delivery(b"c", b"after")}
    box.store.commit(batch(sessions=[session(1)], queues=[changes(1, added)]))
    assert fetch_all(box.reread(), 1) == as_queued(added)
    assert numbers(box.reread(), 1) == Numbers(0, 3, len(b"abeforebigcafter") + size)


def test_what_is_added_later_stands_behind(box: Box) -> None:
    box.store.commit(batch(sessions=[session(1)], queues=[changes(1, numbered([0, 1]))]))
    box.store.commit(batch(queues=[changes(1, numbered([2]))]))
    box.reread()
    box.store.commit(batch(queues=[changes(1, numbered(range(3, 6)))]))
    assert fetch_all(box.reread(), 1) == as_queued(numbered(range(6)))
    size = sum(message.size for message, _ in numbered(range(6)).values())
    assert numbers(box.reread(), 1) == Numbers(0, 6, size)


def test_queues_of_different_sessions_do_not_mix(box: Box) -> None:
    box.store.commit(
        batch(
            sessions=[session(1), session(2), session(3)],
            queues=[changes(1, {0: delivery(b"one")}), changes(2, {0: delivery(b"two"), 1: delivery(b"two")})],
        )
    )
    box.store.commit(batch(queues=[changes(2, settled=[0])]))
    store = box.reread()
    assert [[m.topic for m in fetch_all(store, id)] for id in (1, 2, 3)] == [[b"one"], [b"two"], []]


def test_places_may_have_gaps(box: Box) -> None:
    """What was acknowledged before it had to be written is never written."""
    added = numbered([0, 2, 3, 9, SEGMENT_SPAN + 8, SEGMENT_SPAN + 9, 3 * SEGMENT_SPAN, 1 << 33, (1 << 33) + 1])
    box.store.commit(batch(sessions=[session(1)], queues=[changes(1, added)]))
    assert fetch_all(box.reread(), 1) == as_queued(added)
    assert numbers(box.reread(), 1)[:2] == (0, (1 << 33) + 2)
    for seq in sorted(added):
        assert places(queued(box.reread().fetch(1, seq, 1, NO_LIMIT))) == [seq]
    box.store.commit(batch(queues=[changes(1, settled=[3, 3 * SEGMENT_SPAN, 1 << 33])]))
    for seq in (3, 3 * SEGMENT_SPAN, 1 << 33):
        del added[seq]
    assert fetch_all(box.reread(), 1) == as_queued(added)


@pytest.mark.parametrize("count", [SEGMENT_COUNT - 1, SEGMENT_COUNT, SEGMENT_COUNT + 1, 2 * SEGMENT_COUNT + 1])
def test_as_many_messages_as_are_split_into_segments(box: Box, count: int) -> None:
    added = numbered(range(10, 10 + count))
    box.store.commit(batch(sessions=[session(1)], queues=[changes(1, added)]))
    assert fetch_all(box.reread(), 1) == as_queued(added)
    size = sum(message.size for message, _ in added.values())
    assert numbers(box.reread(), 1) == Numbers(10, 10 + count, size)


def test_as_many_bytes_as_are_split_into_segments(box: Box) -> None:
    added = numbered(range(3 * SEGMENT_SIZE // (LARGE - 100)), LARGE - 100)
    box.store.commit(batch(sessions=[session(1)], queues=[changes(1, added)]))
    assert fetch_all(box.reread(), 1) == as_queued(added)


# --- settling ---


@pytest.mark.parametrize(
    "settled",
    [[0], [9], [4], [9, 0], [5, 3, 4], [0, 1, 2, 3], [4, 5, 6, 7], [8, 9], [3, 4], [3, 4, 5, 6, 7, 8], [*range(10)]],
)
@pytest.mark.parametrize("together", [True, False])
def test_settled_messages_are_gone_and_the_others_stay(box: Box, settled: list[int], together: bool) -> None:
    """Three segments: 0-3, 4-7, 8-9. What is settled goes in one commit, or in one each."""
    box.store.commit(batch(sessions=[session(1)], queues=[changes(1, numbered(range(4)))]))
    box.store.commit(batch(queues=[changes(1, numbered(range(4, 8)))]))
    box.store.commit(batch(queues=[changes(1, numbered(range(8, 10)))]))
    for part in [settled] if together else [[seq] for seq in settled]:
        box.store.commit(batch(queues=[changes(1, settled=part)]))
    left = [seq for seq in range(10) if seq not in settled]
    assert fetch_all(box.reread(), 1) == as_queued(numbered(left))


def test_a_queue_that_is_wholly_settled_is_empty(box: Box) -> None:
    box.store.commit(batch(sessions=[session(1)], queues=[changes(1, numbered(range(5, 8)))]))
    box.store.commit(batch(queues=[changes(1, settled=[7, 5, 6])]))
    assert fetch_all(box.reread(), 1) == []
    first, following, size = numbers(box.reread(), 1)
    assert (first, size) == (following, 0)


def test_a_queue_goes_on_after_it_was_empty(box: Box) -> None:
    box.store.commit(batch(sessions=[session(1)], queues=[changes(1, numbered(range(3)))]))
    box.store.commit(batch(queues=[changes(1, settled=[0, 1, 2])]))
    box.store.commit(batch(queues=[changes(1, numbered([3, 4]))]))
    assert fetch_all(box.reread(), 1) == as_queued(numbered([3, 4]))
    assert numbers(box.reread(), 1) == Numbers(3, 5, sum(m.size for m, _ in numbered([3, 4]).values()))


def test_a_commit_settles_old_messages_and_adds_new_ones(box: Box) -> None:
    box.store.commit(batch(sessions=[session(1)], queues=[changes(1, numbered(range(3)))]))
    box.store.commit(batch(queues=[changes(1, numbered([3, 4, 5]), settled=[0, 1, 2])]))
    assert fetch_all(box.reread(), 1) == as_queued(numbered([3, 4, 5]))
    box.store.commit(batch(queues=[changes(1, numbered([6]), settled=[4, 6])]))
    assert fetch_all(box.reread(), 1) == as_queued(numbered([3, 5]))


def test_settling_what_is_not_there_harms_nothing(box: Box) -> None:
    box.store.commit(batch(sessions=[session(1)], queues=[changes(1, numbered([5, 6, 9]))]))
    box.store.commit(batch(queues=[changes(1, settled=[0, 4, 10, 1 << 40]), changes(2, settled=[5])]))
    assert fetch_all(box.reread(), 1) == as_queued(numbered([5, 6, 9]))


def test_the_next_place_is_never_one_that_is_taken(box: Box) -> None:
    """The newest messages are settled first: the next place is behind all that is left."""
    box.store.commit(batch(sessions=[session(1)], queues=[changes(1, numbered(range(4)))]))
    box.store.commit(batch(queues=[changes(1, numbered(range(4, 6)))]))
    box.store.commit(batch(queues=[changes(1, settled=[5, 4, 3])]))
    _, following, _ = numbers(box.reread(), 1)
    assert following in (3, 4)
    box.store.commit(batch(queues=[changes(1, numbered([following]))]))
    assert fetch_all(box.reread(), 1) == as_queued(numbered([0, 1, 2, following]))


def test_the_size_of_a_queue_is_never_less_than_what_is_in_it(box: Box) -> None:
    added = numbered(range(30), 50)
    box.store.commit(batch(sessions=[session(1)], queues=[changes(1, {s: added[s] for s in range(10)})]))
    box.store.commit(batch(queues=[changes(1, {s: added[s] for s in range(10, 30)})]))
    sizes = []
    for seq in range(30):
        box.store.commit(batch(queues=[changes(1, settled=[seq])]))
        del added[seq]
        first, following, size = numbers(box.reread(), 1)
        sizes.append(size)
        assert size >= sum(message.size for message, _ in added.values())
        assert following - first >= len(added)
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] == 0


# --- large payloads ---


def test_a_large_payload_reaches_every_queue_that_it_was_put_into(box: Box) -> None:
    message, _ = delivery(b"big", bytes(range(256)) * (LARGE // 256), 2)
    box.store.commit(
        batch(
            sessions=[session(id) for id in (1, 2, 3)],
            queues=[changes(id, {0: (message, 1), 1: delivery(b"small")}) for id in (1, 2, 3)],
        )
    )
    expected = [Queued(0, 1, b"big", message.payload, False), Queued(1, 1, b"small", b"", False)]
    assert [fetch_all(box.reread(), id) for id in (1, 2, 3)] == [expected] * 3
    box.store.commit(batch(forgotten=[2], queues=[changes(1, settled=[0])]))
    assert [fetch_all(box.reread(), id) for id in (1, 2, 3)] == [expected[1:], [], expected]


def test_a_large_payload_can_be_queued_again_after_all_have_had_it(box: Box) -> None:
    """As a retained message is: the same object goes into queues again and again."""
    message, _ = delivery(b"big", b"x" * LARGE, 1, retain=True)
    other, _ = delivery(b"other", b"y" * LARGE, 1)
    box.store.commit(batch(sessions=[session(1), session(2)], queues=[changes(1, {0: (message, 1)})]))
    box.store.commit(batch(queues=[changes(1, settled=[0])]))
    box.store.commit(batch(queues=[changes(1, {1: (other, 1)}), changes(2, {0: (message, 1)})]))
    store = box.reread()
    assert [m.payload[:1] for m in fetch_all(store, 1) + fetch_all(store, 2)] == [b"y", b"x"]


def test_a_large_payload_moves_from_one_queue_to_another_in_one_commit(box: Box) -> None:
    message, _ = delivery(b"big", b"x" * LARGE, 1)
    box.store.commit(batch(sessions=[session(1), session(2)], queues=[changes(1, {0: (message, 1)})]))
    box.store.commit(batch(queues=[changes(1, settled=[0]), changes(2, {0: (message, 1)})]))
    store = box.reread()
    assert (places(fetch_all(store, 1)), fetch_all(store, 2)) == ([], [Queued(0, 1, b"big", b"x" * LARGE, False)])


def test_large_payloads_of_different_times_are_not_confused(box: Box) -> None:
    box.store.commit(batch(sessions=[session(1)], queues=[changes(1, {0: delivery(b"t", b"1" * LARGE)})]))
    box.reread()
    box.store.commit(batch(queues=[changes(1, {1: delivery(b"t", b"2" * LARGE)})]))
    assert [message.payload[:1] for message in fetch_all(box.reread(), 1)] == [b"1", b"2"]


def test_large_payloads_are_not_confused_after_a_second_load(box: Box) -> None:
    """One that the store kept before is queued again after others were stored and the store was loaded anew."""
    first, _ = delivery(b"first", b"1" * LARGE, 1)
    second, _ = delivery(b"second", b"2" * LARGE, 1)
    box.store.commit(batch(sessions=[session(1), session(2)], queues=[changes(1, {0: (first, 1)})]))
    box.store.commit(batch(queues=[changes(1, settled=[0])]))
    box.store.load()
    box.store.commit(batch(queues=[changes(1, {1: (second, 1)}), changes(2, {0: (first, 1)})]))
    assert [m.payload[:1] for id in (1, 2) for m in fetch_all(box.store, id)] == [b"2", b"1"]


# --- what several queues get at a time ---


def test_what_several_queues_get_reaches_each_in_its_own_order_and_qos(box: Box) -> None:
    common = numbered(range(3000), 30)
    big, _ = delivery(b"big", b"x" * LARGE, 2)
    kept = {
        1: common,
        2: {seq: (message, 1 + seq // 7 % 2) for seq, (message, _) in common.items()},
        3: {5 + seq // 3: common[seq] for seq in range(0, 3000, 3)},
        4: {seq: common[2999 - seq] if seq % 5 else delivery(b"own", b"%d" % seq) for seq in range(900)},
        5: {0: common[17], 1: (big, 1), 2: common[18], 3: common[19], 4: common[17]},
        6: {0: (big, 2), SEGMENT_SPAN + 3: common[2000], 2 * SEGMENT_SPAN + 9: common[2001]},
        7: {0: delivery(b"own", b"alone")},
    }
    box.store.commit(
        batch(sessions=[session(id) for id in kept], queues=[changes(id, added) for id, added in kept.items()])
    )
    assert {id: fetch_all(box.reread(), id) for id in kept} == {id: as_queued(added) for id, added in kept.items()}
    for id in kept:
        size = sum(message.size for message, _ in kept[id].values())
        assert numbers(box.reread(), id) == Numbers(min(kept[id]), max(kept[id]) + 1, size)


def test_what_several_queues_got_is_settled_and_forgotten_by_each_alone(box: Box) -> None:
    common = numbered(range(10))
    box.store.commit(
        batch(sessions=[session(id) for id in (1, 2, 3)], queues=[changes(id, common) for id in (1, 2, 3)])
    )
    box.store.commit(batch(forgotten=[3], queues=[changes(1, settled=[0, 4, 9]), changes(2, settled=range(9))]))
    assert [places(fetch_all(box.reread(), id)) for id in (1, 2, 3)] == [[1, 2, 3, 5, 6, 7, 8], [9], []]
    box.store.commit(batch(queues=[changes(1, settled=[1, 2, 3, 5, 6, 7, 8])]))
    assert [places(fetch_all(box.reread(), id)) for id in (1, 2, 3)] == [[], [9], []]


def test_a_retained_message_is_queued_again_and_again(box: Box) -> None:
    """The same object, in commits of their own, and in one that settles it elsewhere."""
    small, _ = delivery(b"s", b"x" * 100, 1, retain=True)
    middle, _ = delivery(b"m", b"y" * LARGE_RETAINED, 1, retain=True)
    box.store.commit(batch(sessions=[session(1), session(2)]))
    for seq in (0, 2, 4):
        box.store.commit(batch(queues=[changes(1, {seq: (small, 1), seq + 1: (middle, 1)})]))
    box.store.commit(batch(queues=[changes(1, settled=range(6)), changes(2, {0: (middle, 1), 1: (small, 1)})]))
    expected = [Queued(0, 1, b"m", middle.payload, True), Queued(1, 1, b"s", small.payload, True)]
    assert [fetch_all(box.reread(), id) for id in (1, 2)] == [[], expected]


# --- fetching ---


@pytest.fixture
def long(box: Box) -> Box:
    """Places 100-199 in ten segments, every third settled, each message of 10 bytes."""
    box.store.commit(batch(sessions=[session(1)]))
    for first in range(100, 200, 10):
        added = {seq: delivery(b"topic", b"%05d" % seq) for seq in range(first, first + 10)}
        box.store.commit(batch(queues=[changes(1, added)]))
    box.store.commit(batch(queues=[changes(1, settled=range(102, 200, 3))]))
    return box


def test_fetch_begins_at_its_place_and_ends_at_its_count(long: Box) -> None:
    left = [seq for seq in range(100, 200) if seq % 3]
    store = long.reread()
    for start, count in product([0, 99, 100, 101, 102, 109, 110, 155, 197, 198, 199], [1, 2, 7, 50, 1000]):
        expected = [seq for seq in left if seq >= start][:count]
        assert places(queued(store.fetch(1, start, count, NO_LIMIT))) == expected


def test_fetch_ends_once_it_has_its_size_but_gives_at_least_one(long: Box) -> None:
    left = [seq for seq in range(100, 200) if seq % 3]
    store = long.reread()
    for size, count in [(0, 1), (1, 1), (10, 1), (11, 2), (20, 2), (25, 3), (1000, 67)]:
        assert places(queued(store.fetch(1, 0, ALL, size))) == left[:count]


def test_fetch_beyond_the_end_gives_nothing(long: Box) -> None:
    assert long.reread().fetch(1, 200, ALL, NO_LIMIT) == []


def test_fetch_where_all_that_follows_is_settled_gives_nothing(long: Box) -> None:
    long.store.commit(batch(queues=[changes(1, settled=[196, 197, 199])]))
    assert long.reread().fetch(1, 196, ALL, NO_LIMIT) == []


def test_fetch_of_a_session_that_is_not_there_gives_nothing(long: Box) -> None:
    assert long.reread().fetch(2, 0, ALL, NO_LIMIT) == []


def test_fetch_gives_one_message_however_large(box: Box) -> None:
    added = {0: delivery(b"t", b"x" * (1 << 20)), 1: delivery(b"t", b"y")}
    box.store.commit(batch(sessions=[session(1)], queues=[changes(1, added)]))
    assert places(queued(box.reread().fetch(1, 0, 10, 100))) == [0]


def test_a_queue_can_be_fetched_piece_by_piece_while_it_is_settled(box: Box) -> None:
    added = numbered(range(2500), 20)
    box.store.commit(batch(sessions=[session(1)], queues=[changes(1, added)]))
    got: list[Queued] = []
    start = 0
    while part := queued(box.reread().fetch(1, start, 300, 5000)):
        assert len(part) <= 300
        got += part
        start = part[-1].seq + 1
        box.store.commit(batch(queues=[changes(1, settled=places(part))]))
    assert got == as_queued(added)
    assert fetch_all(box.reread(), 1) == []


# --- forgotten sessions ---


def test_nothing_of_a_forgotten_session_remains(box: Box) -> None:
    box.store.commit(
        batch(
            sessions=[session(1), session(2)],
            subscriptions={(1, b"x"): 1, (2, b"x"): 2},
            received={1: held(1), 2: held(2)},
            queues=[changes(id, numbered(range(3)), released=(0,)) for id in (1, 2)],
        )
    )
    box.store.commit(batch(queues=[changes(1, settled=[1])]))
    box.store.commit(batch(forgotten=[1]))
    assert kept_sessions(box.reread().load()) == {2: Kept(session(2), {b"x": 2}, held(2), (0,))}
    assert (fetch_all(box.reread(), 1), places(fetch_all(box.reread(), 2))) == ([], [0, 1, 2])


def test_forgotten_wins_over_whatever_else_the_batch_says(box: Box) -> None:
    box.store.commit(batch(sessions=[session(1)], queues=[changes(1, numbered([0]))]))
    box.store.commit(
        batch(
            forgotten=[1, 2, 3],
            sessions=[session(1, sent_to=1), session(2), session(4)],
            subscriptions={(1, b"x"): 1, (2, b"x"): 1, (4, b"x"): 1, (1, b"y"): None},
            received={1: held(1), 2: held(1), 4: held(1)},
            queues=[changes(id, numbered([1]), settled=[0], released=(1,)) for id in (1, 2, 4)],
        )
    )
    assert kept_sessions(box.reread().load()) == {4: Kept(session(4), {b"x": 1}, held(1), (1,))}
    store = box.reread()
    assert [places(fetch_all(store, id)) for id in (1, 2, 3, 4)] == [[], [], [], [1]]


def test_a_session_can_be_made_again_in_the_same_commit(box: Box) -> None:
    """A CONNECT with CleanSession = 1 and then one with 0, within a turn: same ClientId, another id."""
    box.store.commit(
        batch(sessions=[session(1, "a")], subscriptions={(1, b"old"): 1}, queues=[changes(1, numbered(range(3)))])
    )
    box.store.commit(
        batch(
            forgotten=[1],
            sessions=[session(2, "a")],
            subscriptions={(2, b"new"): 2},
            queues=[changes(2, numbered([0]))],
        )
    )
    assert kept_sessions(box.reread().load()) == {2: Kept(session(2, "a"), {b"new": 2}, {}, ())}
    assert fetch_all(box.reread(), 2) == as_queued(numbered([0]))
    assert numbers(box.reread(), 2) == Numbers(0, 1, numbered([0])[0][0].size)


def test_a_forgotten_session_can_be_forgotten_again(box: Box) -> None:
    box.store.commit(batch(sessions=[session(1)]))
    box.store.commit(batch(forgotten=[1, 1]))
    box.store.commit(batch(forgotten=[1]))
    assert kept_sessions(box.reread().load()) == {}


# --- retained messages ---


def test_retained_messages_are_added_replaced_and_removed(box: Box) -> None:
    box.store.commit(
        batch(
            retained={
                b"a": retained(b"a", b"1", 0, None, "c1"),
                b"A": retained(b"A", b"\0\xff", 2, "user", "\u20ac", "127.0.0.1:1883"),
                b"b": retained(b"b", b"2", 1, "", ""),
            }
        )
    )
    box.store.commit(
        batch(retained={b"a": retained(b"a", b"3", 1, "other", "c2"), b"b": None, b"none": None, b"c": None})
    )
    assert kept_retained(box.reread().load()) == {
        b"a": KeptRetained(b"3", 1, True, "other", "c2"),
        b"A": KeptRetained(b"\0\xff", 2, True, "user", "\u20ac", "127.0.0.1:1883"),
    }


def test_retained_messages_of_every_size_are_kept(box: Box) -> None:
    records = {
        topic: retained(topic, payload, 1, None, "c")
        for topic, payload in [(b"t" * 65_535, b"x"), (b"large", b"y" * (1 << 20)), (b"/", bytes(range(256)))]
    }
    box.store.commit(batch(retained=records))
    assert {topic: kept.payload for topic, kept in kept_retained(box.reread().load()).items()} == {
        topic: record.message.payload for topic, record in records.items()
    }


def test_retained_messages_keep_their_authors_when_others_change(box: Box) -> None:
    """Each author of some messages, that are replaced one by one."""
    authors = [(None, "a", None), ("u", "a", None), (None, "a", "l"), ("", "a", None), (None, "b" * 65_535, None)]
    now = {}
    for step in range(25):
        topics = {b"t%d" % (step * 7 % 10): authors[step % 5], b"t%d" % (step % 3): authors[step * 3 % 5]}
        now.update(topics)
        box.store.commit(batch(retained={topic: retained(topic, b"x", 1, *author) for topic, author in topics.items()}))
        assert {
            topic: (kept.username, kept.client_id, kept.listener)
            for topic, kept in kept_retained(box.reread().load()).items()
        } == now
    box.store.commit(batch(retained=dict.fromkeys(now)))
    assert kept_retained(box.reread().load()) == {}


def test_retained_messages_outlive_their_author(box: Box) -> None:
    """[MQTT-3.1.2-7]"""
    box.store.commit(batch(sessions=[session(1, "a")], retained={b"t": retained(b"t", b"x", 1, None, "a")}))
    box.store.commit(batch(forgotten=[1]))
    assert list(kept_retained(box.reread().load())) == [b"t"]


# --- everything at once ---


def test_one_commit_writes_all_of_its_parts(box: Box) -> None:
    record = session(3, "c", username="u", disconnected_at=1.5, sent_to=4)
    box.store.commit(batch(sessions=[session(1), session(2)], retained={b"gone": retained(b"gone", b"x")}))
    box.store.commit(
        batch(
            forgotten=[1],
            sessions=[record],
            subscriptions={(3, b"f"): 1, (2, b"g"): 2},
            received={3: held(8)},
            queues=[changes(3, numbered([4, 5]), released=(4,)), changes(2, numbered([0]))],
            retained={b"gone": None, b"t": retained(b"t", b"y", 2, "u", "c")},
        )
    )
    snapshot = box.reread().load()
    assert kept_sessions(snapshot) == {
        2: Kept(session(2), {b"g": 2}, {}, ()),
        3: Kept(record, {b"f": 1}, held(8), (4,)),
    }
    assert kept_retained(snapshot) == {b"t": KeptRetained(b"y", 2, True, "u", "c")}
    store = box.reread()
    assert [places(fetch_all(store, id)) for id in (1, 2, 3)] == [[], [0], [4, 5]]
