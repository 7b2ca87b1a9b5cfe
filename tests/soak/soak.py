"""The same load for a long time, and what is left of it: `python -m tests.soak`.

Owns: the broker process, the figures, and how far they may be from what they were after the warm-up. Must not know:
what the clients do.

    SELECTMQ_SOAK_SECONDS   how long (default 1800); a fifth of it, ten minutes at most, is the warm-up
    SELECTMQ_SOAK_SEED      of the clients' choices (default 1)
"""

from __future__ import annotations

import signal
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from tests.broker_process import BrokerProcess
from tests.end_to_end.sys_topics import PREFIX
from tests.raw_client import parse_publish, subscribe
from tests.soak.actors import Crowd, Patient

MIB = 1 << 20
PROGRESS = 5.0  # seconds between two lines


AT_REST = ("clients/total", "subscriptions/count", "store/messages/count", "retained messages/count")


class Bound(NamedTuple):
    """How much more a figure may be in the end than it was after the warm-up."""

    name: str
    more: int
    unit: str = ""


BOUNDS = (
    Bound("memory", 12 * MIB, "MiB"),
    Bound("descriptors", 0),
    Bound("threads", 0),
    Bound("sessions", 0),
    Bound("subscriptions", 0),
    Bound("retained", 3),  # $SYS topics that came to be meanwhile
    Bound("stored messages", 0),
    Bound("database", 8 * MIB, "MiB"),
    Bound("WAL", 8 * MIB, "MiB"),
    Bound("bugs", 0),
)


class Soak:
    """A broker with its data in this directory."""

    def __init__(self, directory: Path, seed: int) -> None:
        self._data = directory / "data"
        options = 'sys_interval = "1s"\nconnect_timeout = "60m"\nmax_unsent = "256KiB"\n'
        self.broker = BrokerProcess(directory, options, data=self._data)
        # Its start was told; millions of clients need not be.
        self.broker.write_config(options + 'log_level = "error"\n')
        self.broker.signal(signal.SIGHUP)
        self._seed = seed
        self._crowds = 0
        self._rounds = 0

    def load(self, seconds: float) -> None:
        """All kinds of clients at once, for so long; then none."""
        self._crowds += 1
        crowd = Crowd(self.broker.address, self._seed * 1_000 + self._crowds * 100)

        def wait() -> None:
            start = told = time.monotonic()
            while time.monotonic() - start < seconds and not crowd.failed:
                time.sleep(0.1)
                if time.monotonic() - told >= PROGRESS:
                    told = time.monotonic()
                    self._tell(told - start, seconds, self._rounds + crowd.rounds)

        crowd.run(wait)
        self._rounds += crowd.rounds

    def _tell(self, passed: float, seconds: float, rounds: int) -> None:
        figures = self._outside()
        print(
            f"{passed:.0f} of {seconds:.0f} s: {rounds} rounds, {figures['memory'] / MIB:.1f} MiB,"
            f" {figures['descriptors']} descriptors, {figures['threads']} threads,"
            f" {figures['database'] / MIB:.1f} + {figures['WAL'] / MIB:.1f} MiB on disk",
            flush=True,
        )

    def _outside(self) -> dict[str, int]:
        process = Path(f"/proc/{self.broker.pid}")
        wal = sum(size for path, size in self._sizes() if path.name.endswith("-wal"))
        return {
            "memory": self.broker.rss(),
            "descriptors": len(list((process / "fd").iterdir())),
            "threads": len(list((process / "task").iterdir())),
            "database": sum(size for _, size in self._sizes()) - wal,
            "WAL": wal,
        }

    def _sizes(self) -> list[tuple[Path, int]]:
        return [(path, path.stat().st_size) for path in self._data.iterdir()]

    def figures(self) -> dict[str, int]:
        """What there is when nobody is there but who looks."""
        values: dict[str, str] = {}
        with Patient(self.broker.address) as watcher:
            watcher.greet("watcher").send(subscribe(("$SYS/#", 0)))
            seconds = 0
            # What has changed comes every second; twice without a change of these, it is at rest.
            while seconds < 3 or values["clients/total"] != "1":
                one = watcher.take()
                if one[0] >> 4 == 3:
                    message = parse_publish(one)
                    name = message.topic.removeprefix(PREFIX)
                    seconds = 0 if name in AT_REST else seconds + (name == "uptime")
                    values[name] = message.payload.decode()
            outside = self._outside()
        return outside | {
            "sessions": int(values["clients/total"]) - 1,
            "subscriptions": int(values["subscriptions/count"]) - 1,
            "retained": int(values["retained messages/count"]),
            "stored messages": int(values["store/messages/count"]) - int(values["retained messages/count"]),
            "bugs": int(values["errors/bugs"]),
        }


def compare(before: dict[str, int], after: dict[str, int]) -> tuple[str, list[str]]:
    """The table, and what is over its bound."""
    lines = [f"{'':16} {'after warm-up':>14} {'in the end':>14} {'may grow by':>14}"]
    over = []
    for bound in BOUNDS:
        grown = after[bound.name] - before[bound.name]
        wrong = grown > bound.more
        lines.append(
            f"{bound.name:16}"
            + "".join(
                f" {_show(value, bound.unit):>14}" for value in (before[bound.name], after[bound.name], bound.more)
            )
            + ("  OVER" if wrong else "")
        )
        if wrong:
            over.append(f"{bound.name} grew by {_show(grown, bound.unit)}")
    return "\n".join(lines), over


def _show(value: int, unit: str) -> str:
    return f"{value / MIB:.1f} {unit}" if unit else str(value)


def soak(seconds: float, seed: int) -> list[str]:
    """Print the table; what is over its bound."""
    with tempfile.TemporaryDirectory(prefix="selectmq-soak-") as directory:
        run = Soak(Path(directory), seed)
        try:
            run.load(min(seconds / 5, 600))
            before = run.figures()
            run.load(seconds - min(seconds / 5, 600))
            after = run.figures()
        except BaseException:
            print("".join(run.broker.lines[-20:]))
            run.broker.kill()
            raise
        run.broker.stop()
    table, over = compare(before, after)
    print(table, flush=True)
    return over
