"""Who gets a place on a listener, and when: shared out by address, so that nobody takes what is there for all.

Owns: the places before CONNECT, those of clients, and how often an address may come. Must not know: sockets, MQTT,
what a connection is made of.

Whoever connects has a place among those who arrive until its CONNECT is there. These places are apart from those of
clients: connections that say nothing take none of theirs. An address has no fixed share of them, but no more than
twice what is still free: alone it has two thirds, which is as many as there may be clients. Who comes beyond that takes
the place of the one from its own address that has been silent for the longest. So a rush of honest clients is served
whole, and a flood of silent connections turns out itself.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from math import inf

#: A listener for fewer clients has places before CONNECT as if it were for so many.
LEAST = 1024
#: Of those who have been silent for the longest, how many are looked at to find the address that has most places.
CANDIDATES = 16
#: Seconds that somebody waits at the most who comes too often.
PATIENCE = 10.0
#: Addresses that are remembered for how often they come.
MAX_ADDRESSES = 100_000

_SILENT = "its place was needed, and it had sent no CONNECT"

_ARRIVING, _HEARD, _CLIENT, _GONE = range(4)


class Place:
    """That of one connection."""

    __slots__ = ("_give_up", "_places", "_stage", "origin", "since")

    def __init__(self, places: Places, origin: str, give_up: Callable[[str], None], since: float) -> None:
        self._places = places
        self._give_up: Callable[[str], None] | None = give_up
        self._stage = _ARRIVING
        self.origin = origin
        self.since = since

    def move(self, origin: str) -> None:
        """It is known now where it really comes from (a proxy has told)."""
        if self._stage == _ARRIVING and origin != self.origin:
            self._places.depart(self)
            self.origin = origin
            self._places.enrol(self)

    def heard(self) -> bool:
        """See core.ports.Place."""
        if self._stage == _ARRIVING:
            self._places.depart(self)
            self._stage = _HEARD
            self._give_up = None
        return self._places.clients < self._places.max_clients

    def take(self) -> bool:
        """See core.ports.Place."""
        if self._stage != _HEARD or self._places.clients >= self._places.max_clients:
            return False
        self._stage = _CLIENT
        self._places.clients += 1
        return True

    def leave(self) -> None:
        """Its connection is closed."""
        if self._stage == _ARRIVING:
            self._places.depart(self)
        elif self._stage == _CLIENT:
            self._places.clients -= 1
        self._stage = _GONE
        self._give_up = None

    def turn_out(self) -> None:
        give_up = self._give_up
        if give_up is not None:
            give_up(_SILENT)
        self.leave()


class Places:
    """Those of one listener; or of anything else of which there is not enough for all who have only arrived."""

    def __init__(self, max_clients: int, least: int = LEAST) -> None:
        self.max_clients = max_clients
        self._least = least
        self.clients = 0
        self._arriving: dict[Place, None] = {}  # in their order
        self._by_origin: dict[str, dict[Place, None]] = {}  # none is empty

    @property
    def arriving(self) -> int:
        return len(self._arriving)

    def arrive(self, origin: str, give_up: Callable[[str], None], now: float = 0.0) -> Place:
        """A place for one more. `give_up` has to close its connection, should it be turned out."""
        place = Place(self, origin, give_up, now)
        self.enrol(place)
        return place

    def enrol(self, place: Place) -> None:
        mine = self._by_origin.get(place.origin)
        free = limit(self.max_clients, self._least) - len(self._arriving)
        if mine is not None and len(mine) >= 2 * free:
            next(iter(mine)).turn_out()
        elif free <= 0:
            self.make_room()
        self._arriving[place] = None
        self._by_origin.setdefault(place.origin, {})[place] = None

    def depart(self, place: Place) -> None:
        del self._arriving[place]
        mine = self._by_origin[place.origin]
        del mine[place]
        if not mine:
            del self._by_origin[place.origin]

    def make_room(self, since: float = inf) -> bool:
        """Turn one out that has said nothing and came at this time, or earlier. False: there is none."""
        eldest = [place for place in islice(self._arriving, CANDIDATES) if place.since <= since]
        if not eldest:
            return False
        max(eldest, key=lambda place: len(self._by_origin[place.origin])).turn_out()
        return True


def limit(max_clients: int, least: int = LEAST) -> int:
    """Places before CONNECT: an address alone may have as many as there may be clients, and half as many are left."""
    return max(max_clients, least) * 3 // 2


class Pace:
    """How often addresses may come."""

    def __init__(self) -> None:
        self._next: dict[str, float] = {}  # by origin: when it would come if it came evenly

    def delay(self, origin: str, now: float, rate: int) -> float | None:
        """Seconds that one more has to wait, so that not more than `rate` a second come from there, in each of the
        seconds after the first. None: too many wait already."""
        even = max(self._next.get(origin, 0.0), now)
        wait = even - now - 1.0 + 1.0 / rate
        if wait > PATIENCE:
            return None
        if len(self._next) >= MAX_ADDRESSES:
            self._next = {one: due for one, due in self._next.items() if due > now}
            if len(self._next) >= MAX_ADDRESSES:
                self._next.clear()
        self._next[origin] = even + 1.0 / rate
        return wait if wait > 0.001 else 0.0
