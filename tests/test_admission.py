"""Places: who gets one, who has to leave for whom; and how often an address may come."""

from __future__ import annotations

import pytest

from broker.admission import LEAST, MAX_ADDRESSES, PATIENCE, Pace, Place, Places, limit

HERE, THERE = "192.0.2.1", "192.0.2.2"


class Listener:
    """Places, and who was turned out."""

    def __init__(self, max_clients: int = 10) -> None:
        self.places = Places(max_clients)
        self.out: list[str] = []

    def come(self, name: str, origin: str = HERE) -> Place:
        def give_up(why: str) -> None:
            self.out.append(name)
            place.leave()  # its connection is closed, which tells

        place = self.places.arrive(origin, give_up)
        return place

    def crowd(self, count: int, origin: str = HERE) -> list[Place]:
        return [self.come(f"{origin} {n}", origin) for n in range(count)]


def test_an_address_alone_has_as_many_places_as_there_may_be_clients() -> None:
    for clients, alone in ((10, LEAST), (10_000, 10_000)):
        listener = Listener(clients)
        listener.crowd(alone)
        assert listener.out == []
        listener.come("one more")
        assert listener.out == [f"{HERE} 0"]
        assert listener.places.arriving == alone


def test_a_flood_of_silent_connections_turns_out_itself_and_nobody_else() -> None:
    listener = Listener()
    honest = listener.come("honest", THERE)
    listener.crowd(5 * LEAST)
    other = listener.crowd(20, "2001:0db8:0000:0000")
    listener.crowd(5 * LEAST)
    assert {name.split()[0] for name in listener.out} == {HERE}
    assert honest.heard()
    assert all(place.heard() for place in other)


def test_who_has_sent_its_connect_is_turned_out_no_more() -> None:
    listener = Listener()
    places = listener.crowd(LEAST)
    assert all(place.heard() for place in places[:10])
    listener.crowd(10)
    assert listener.out == []
    listener.crowd(1)
    assert listener.out == [f"{HERE} 10"]


def test_many_addresses_with_one_place_each_turn_out_the_eldest() -> None:
    listener = Listener()
    total = limit(10)
    for n in range(total):
        listener.come(f"{n}", f"origin {n}")
    assert listener.out == []
    listener.come("new", "another origin")
    assert listener.out == ["0"]
    assert listener.places.arriving == total


def test_when_all_is_taken_the_address_with_most_places_has_to_leave_one() -> None:
    listener = Listener()
    listener.come("eldest", THERE)
    listener.crowd(3)
    assert listener.places.make_room()
    assert listener.out == [f"{HERE} 0"]


def test_who_has_only_just_come_is_not_turned_out_for_want_of_descriptors() -> None:
    places = Places(10)
    out: list[str] = []
    for n in range(3):
        places.arrive(HERE, out.append, now=100.0 + n)
    assert [places.make_room(101.5) for _ in range(3)] == [True, True, False]
    assert (len(out), places.arriving) == (2, 1)


def test_without_arrivals_there_is_no_room_to_make() -> None:
    listener = Listener()
    assert listener.come("c").heard()
    assert listener.places.make_room() is False


def test_places_of_clients_are_apart_from_those_before_connect() -> None:
    listener = Listener(max_clients=2)
    silent = listener.crowd(100)
    clients = [listener.come(f"client {n}") for n in range(3)]
    assert [client.heard() for client in clients] == [True, True, True]
    assert [client.take() for client in clients] == [True, True, False]
    assert silent[0].heard() is False  # full: no password need be checked
    clients[0].leave()
    assert silent[0].take() is True
    assert listener.places.clients == 2


def test_a_place_is_freed_once() -> None:
    listener = Listener(max_clients=2)
    client = listener.come("client")
    assert (client.heard(), client.take()) == (True, True)
    client.leave()
    client.leave()
    silent = listener.come("silent")
    silent.leave()
    silent.leave()
    assert silent.take() is False
    assert (listener.places.clients, listener.places.arriving, listener.places._by_origin) == (0, 0, {})


def test_behind_a_proxy_the_place_counts_for_whom_the_proxy_names() -> None:
    listener = Listener()
    for n in range(5 * LEAST):
        listener.come(f"{n}", "proxy").move(HERE)
    others = [listener.come(f"other {n}", "proxy") for n in range(10)]
    for place in others:
        place.move(THERE)
    assert all(place.heard() for place in others)
    assert {name for name in listener.out if name.startswith("other")} == set()
    assert set(listener.places._by_origin) == {HERE}


def test_a_place_that_is_gone_does_not_move() -> None:
    listener = Listener()
    place = listener.come("c")
    place.leave()
    place.move(THERE)
    assert listener.places.arriving == 0


# --- pace ---


def test_so_many_a_second_come_at_once_and_the_rest_one_by_one() -> None:
    pace = Pace()
    waits = [pace.delay(HERE, 100.0, 20) for _ in range(24)]
    assert waits == [0.0] * 20 + [pytest.approx(0.05), pytest.approx(0.1), pytest.approx(0.15), pytest.approx(0.2)]
    assert pace.delay(THERE, 100.0, 20) == 0.0
    assert pace.delay(HERE, 103.0, 20) == 0.0


def test_nobody_waits_for_longer_than_anybody_is_patient() -> None:
    pace = Pace()
    waits = [pace.delay(HERE, 100.0, 20) for _ in range(1000)]
    assert waits.count(None) == 1000 - 20 - 20 * PATIENCE
    assert max(wait for wait in waits if wait is not None) == pytest.approx(PATIENCE)
    assert pace.delay(HERE, 101.0, 20) is not None


def test_who_keeps_to_the_rate_never_waits() -> None:
    pace = Pace()
    assert [pace.delay(HERE, 100.0 + n / 20, 20) for n in range(1000)] == [0.0] * 1000


def test_so_many_addresses_are_remembered_and_those_that_wait_before_others() -> None:
    pace = Pace()
    for _ in range(2):
        pace.delay(HERE, 100.0, 1)
    for n in range(MAX_ADDRESSES - 1):
        pace.delay(f"{n}", 101.5, 1_000_000)
    pace.delay("late", 101.6, 1)
    assert len(pace._next) == 2
    assert pace.delay(HERE, 101.6, 1) == pytest.approx(0.4)
