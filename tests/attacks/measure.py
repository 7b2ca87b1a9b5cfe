"""One attack, and what it costs others: an innocent client's round trips, the broker's memory and disk.

Owns: the measuring, and the judgement. Must not know: what the attacks do.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.attacks.ground import ATTACKS, MIB, Allowed, Attack
from tests.broker_process import ROOT, BrokerProcess, environment
from tests.raw_client import RawClient, connect, publish

#: Seconds between two round trips of the innocent client.
PAUSE = 0.005
#: Seconds after which the broker must have given back what it needed for the attack.
AFTER = 5.0
#: The same, where nobody asks what it keeps.
SOON = 1.0
#: What a machine with 512 MiB has by default.
SMALL = 'max_memory = "256 MiB"\n'
#: An attack that does not end by itself is ended.
PATIENCE = 240.0


def _kept_waiting(pid: int) -> float:
    """Seconds that a process's first thread wanted to run, and the system had no processor for it. 0 if it does not
    say. (The broker's loop is its first thread.)"""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    except OSError:
        return 0.0


class Result(NamedTuple):
    """Seconds, bytes.

    `own_p99` and `own_longest` are what the broker answers for: round trips without the time in which it or the
    measuring client was ready and others had the processors. On a quiet machine they differ little from `p99` and
    `longest`; on a busy one only they can be judged.
    """

    attack: str
    rounds: int
    p50: float
    p99: float
    longest: float
    own_p99: float
    own_longest: float
    memory: int  #: most, above what there was before
    kept: int  #: above what there was before, some seconds after the end
    disk: int  #: most
    disk_kept: int
    cpu: float  #: of the broker
    faults: list[str]  #: what is not allowed, and what is broken
    broken: list[str]  #: what is wrong whatever it costs: bugs, an attack that did not end

    def line(self) -> str:
        """For a table of figures."""
        return (
            f"{self.attack:45} {self.p50 * 1e3:8.2f} {self.p99 * 1e3:8.1f} {self.longest * 1e3:8.0f}"
            f" {self.own_p99 * 1e3:8.1f} {self.own_longest * 1e3:8.0f} ms"
            f" {self.memory / MIB:7.0f} {self.kept / MIB:7.0f} {self.disk / MIB:7.0f} {self.disk_kept / MIB:7.0f} MiB"
            f" {self.cpu:6.1f} s  {'; '.join(self.faults) or 'ok'}"
        )

    def markdown(self) -> str:
        """A row of a table in a document."""
        return (
            f"| {ATTACKS[self.attack].what} | {self.p50 * 1e3:.1f} | {self.own_p99 * 1e3:.1f} |"
            f" {self.own_longest * 1e3:.0f} | {max(0, self.memory) / MIB:.0f} | {self.disk / MIB:.0f} |"
        )


MARKDOWN = "| What is sent | p50 ms | p99 ms | longest ms | memory MiB | disk MiB |\n|---|---|---|---|---|---|"

HEADER = (
    f"{'attack':45} {'p50':>8} {'p99':>8} {'longest':>8} {'own p99':>8} {'longest':>8}"
    f"    {'memory':>7} {'kept':>7} {'disk':>7} {'kept':>7}     "
    f"{'cpu':>6}"
)


class _Watch:
    """Looks at the broker's memory and disk again and again."""

    def __init__(self, broker: BrokerProcess, data: Path | None) -> None:
        self._broker = broker
        self._data = data
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.before = broker.rss()
        self.memory = self.disk = 0

    def _run(self) -> None:
        while not self._over.wait(0.05):
            with contextlib.suppress(OSError):
                self.memory = max(self.memory, self._broker.rss() - self.before)
                self.disk = max(self.disk, self.size())

    def size(self) -> int:
        """Of the data directory."""
        if self._data is None or not self._data.exists():
            return 0
        total = 0
        for path in self._data.iterdir():
            with contextlib.suppress(FileNotFoundError):
                total += path.stat().st_size
        return total

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()


class Innocent:
    """A client that does what clients do, and notes how long it takes each time."""

    def __init__(self, broker: BrokerProcess, attack: Attack) -> None:
        self._address = broker.address
        self._source = attack.source
        self._connects = attack.innocent == "connects"
        self._client = self._connected() if not self._connects else None
        self._pids = (broker.pid, os.getpid())
        self.times: list[float] = []
        self.own: list[float] = []  #: see Result
        self.failures = 0

    def _connected(self) -> RawClient:
        client = RawClient(self._address, source=self._source)
        client.send(connect("innocent"))
        client.expect(b"\x20\x02\0\0")
        return client

    def once(self) -> None:
        waited = sum(map(_kept_waiting, self._pids))
        start = time.perf_counter()
        if self._client is not None:
            self._client.send(publish("innocent/ping", b"x"))
            self._client.next(60)
        else:
            try:
                self._connected().close()
            except (OSError, AssertionError):
                self.failures += 1
        took = time.perf_counter() - start
        self.times.append(took)
        self.own.append(max(0.0, took - (sum(map(_kept_waiting, self._pids)) - waited)))

    def subscribe(self) -> None:
        if self._client is not None:
            self._client.subscribe(("innocent/ping", 0))

    def close(self) -> None:
        if self._client is not None:
            self._client.close()


@contextlib.contextmanager
def _first_in_line() -> Iterator[None]:
    """The measuring client does not wait for a processor behind the attacker. Needs root; without, it may wait."""
    before = os.getpriority(os.PRIO_PROCESS, 0)
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, -15)
    yield
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, before)


def run(name: str, directory: Path, scale: float = 1.0) -> Result:
    """Carry out one attack against a broker of its own."""
    attack = ATTACKS[name]
    directory.mkdir(parents=True, exist_ok=True)
    if attack.prepare is not None:
        attack.prepare(directory)
    data = directory / "data" if attack.durable else None
    toml = attack.toml.replace("{directory}", str(directory))
    broker = BrokerProcess(directory, toml if "max_memory" in toml else SMALL + toml, data=data)
    try:
        return _measured(broker, attack, directory, data, scale)
    finally:
        broker.kill()


def _measured(broker: BrokerProcess, attack: Attack, directory: Path, data: Path | None, scale: float) -> Result:
    innocent = Innocent(broker, attack)
    innocent.subscribe()
    for _ in range(20):
        innocent.once()
    innocent.times.clear()
    innocent.own.clear()
    command = [sys.executable, "-m", "tests.attacks.attacker", attack.name, str(directory), str(scale)]
    places = [f"{host}:{port}" for host, port in broker.addresses]
    died = ""
    with _Watch(broker, data) as watch, _first_in_line():
        cpu = broker.cpu()
        with subprocess.Popen([*command, str(broker.pid), *places], cwd=ROOT, env=environment()) as attacker:
            end = time.monotonic() + PATIENCE
            try:
                while attacker.poll() is None:
                    innocent.once()
                    if time.monotonic() > end:
                        attacker.kill()
                        died = f"the attack had not ended after {PATIENCE:.0f} s"
                    time.sleep(PAUSE)
            except BaseException:
                attacker.kill()
                raise
        cpu = broker.cpu() - cpu
        if attacker.returncode and not died:
            died = f"the attacker ended with exit code {attacker.returncode}"
        settled = time.monotonic() + (SOON if attack.allowed.kept is None else AFTER)
        while time.monotonic() < settled:
            innocent.once()
            time.sleep(PAUSE)
        kept, disk_kept = broker.rss() - watch.before, watch.size()
    innocent.close()
    times, own = sorted(innocent.times), sorted(innocent.own)
    rare = int(len(times) * 0.99)
    result = Result(
        attack.name, len(times), times[len(times) // 2], times[rare], times[-1], own[rare], own[-1], watch.memory, kept,
        watch.disk, disk_kept, cpu, [], [died] if died else [],
    )  # fmt: skip
    result.broken.extend(line.strip()[:200] for line in broker.lines if '"event": "bug' in line)
    result.faults.extend(result.broken + judged(result, attack.allowed, innocent.failures))
    return result


def judged(result: Result, allowed: Allowed, failures: int) -> list[str]:
    """What the attack may not cost. `failures`: connects of the innocent client."""
    faults = [f"{failures} connects of the innocent client failed"] if failures else []
    for what, value, limit, unit in (
        ("the longest round trip took", result.own_longest, allowed.longest, 0.001),
        ("of the round trips one in 100 took", result.own_p99, allowed.p99, 0.001),
        ("memory grew by", result.memory, allowed.memory, MIB),
        ("of memory it kept", result.kept, allowed.kept, MIB),
        ("on disk it took", result.disk, allowed.disk, MIB),
    ):
        if limit is not None and value > limit:
            shown = "ms" if unit == 0.001 else "MiB"
            faults.append(f"{what} {value / unit:.0f} {shown}, allowed are {limit / unit:.0f}")
    return faults
