"""The ground on which an attack takes place: what it needs, what it is given, and how it is written.

Owns: the table of attacks. Must not know: what they do, or how they are measured.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from tests.raw_client import Address, RawClient

MIB = 1 << 20


class Ground(NamedTuple):
    """What an attacker knows."""

    addresses: list[Address]  #: of the broker's listeners
    pid: int
    directory: Path  #: what `prepare` has written is here
    scale: float  #: 1: as described; less: the same with less, for a quick look

    @property
    def address(self) -> Address:
        return self.addresses[0]

    def count(self, wanted: int, least: int = 1) -> int:
        """So many, at this scale."""
        return max(least, int(wanted * self.scale))

    def client(self, client_id: str = "", **options: object) -> RawClient:
        return RawClient.connected(self.address, client_id, **options)  # type: ignore[arg-type]

    def ticks(self, seconds: float) -> Iterator[int]:
        """Numbers from 0 on, until so many seconds are over (at this scale)."""
        end = time.monotonic() + seconds * self.scale
        number = 0
        while time.monotonic() < end:
            yield number
            number += 1


class Allowed(NamedTuple):
    """What the attack may cost. None: it is not about that, so it is printed and not judged."""

    longest: float | None = 0.1  #: seconds of an innocent client's longest round trip
    p99: float | None = 0.02
    memory: int | None = None  #: bytes of the broker's memory above what it had
    disk: int | None = None  #: bytes of its data directory
    kept: int | None = None  #: bytes of memory that it still has some time after


def of_a_crowd(clients: int, memory: int | None = None, kept: int | None = None) -> Allowed:
    """What it may cost if so many clients want something at the same moment: work for all of them has to be done, each
    has its turn, and the innocent client may be one among them. A client in a crowd has 60 us on the average, and when
    all of them come or go at once, 400 us."""
    return Allowed(max(0.1, clients * 0.0004), max(0.02, clients * 0.00006), memory=memory, kept=kept)


class Attack(NamedTuple):
    name: str
    what: str  #: one line: what the attacker sends
    run: Callable[[Ground], None]  #: in a process of its own
    allowed: Allowed
    toml: str  #: the broker's configuration, beside what every test has; `{directory}` is that of `prepare`
    prepare: Callable[[Path], None] | None  #: writes the files that the configuration names
    durable: bool  #: on disk, not in memory
    source: str  #: the address that the innocent client comes from
    innocent: str  #: "round trips", or "connects": what the innocent client does


ATTACKS: dict[str, Attack] = {}


def attack(
    allowed: Allowed = Allowed(),  # noqa: B008  # it is immutable
    *,
    toml: str = "",
    prepare: Callable[[Path], None] | None = None,
    durable: bool = False,
    source: str = "127.0.0.1",
    innocent: str = "round trips",
) -> Callable[[Callable[[Ground], None]], Callable[[Ground], None]]:
    """Enters a function into the table: its name is the attack's, and its docstring says what is sent."""

    def enter(run: Callable[[Ground], None]) -> Callable[[Ground], None]:
        name = run.__name__
        what = (run.__doc__ or "").strip().splitlines()[0]
        ATTACKS[name] = Attack(name, what, run, allowed, toml, prepare, durable, source, innocent)
        return run

    return enter


def unheard_of(number: int, levels: int = 14) -> str:
    """A topic that nobody has published to, which `{a,+}^13/#` matches in 8,192 ways."""
    return "/".join(["a"] * (levels - 1) + [f"{number}-{random.randrange(1 << 30)}"])
