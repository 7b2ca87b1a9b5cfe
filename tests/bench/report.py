"""Results over all rounds: medians, ratios, and what is beyond the aims.

Owns: which figures belong together, how they are compared, the JSON, the description of the machine.
Must not know: how anything was measured, how tables look.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import platform
import re
import shlex
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from brokers import OLD, OURS, REFERENCE
from packets import V311, Mqtt
from rows import Workload
from targets import Target
from workloads import Figures, Plan

# What our broker's cost, divided by another cost, is to be at most.
AIM_OF_BEST, AIM_OF_OLD, AIM_OF_311, AIM_OF_311_PROPERTIES = 1.0, 1.03, 1.10, 1.5


def machine() -> str:
    """Processor, cores, system, Python and the load before the run, in one line."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists() and (found := re.search(r"^model name\s*: (.+)$", cpuinfo.read_text(), re.M)):
        model = found[1]
    load = f", load average {os.getloadavg()[0]:.1f} at the start" if hasattr(os, "getloadavg") else ""
    return (
        f"{model}, {os.cpu_count()} cores, {platform.system()} {platform.release()}, "
        f"generator on Python {platform.python_version()}{load}"
    )


def median(rounds: Sequence[Figures], get: Callable[[Figures], float | None]) -> float | None:
    values = [value for figures in rounds if (value := get(figures)) is not None]
    return statistics.median(values) if values else None


def cost(rounds: Sequence[Figures]) -> float | None:
    return median(rounds, lambda figures: figures.cost)


@dataclass(frozen=True)
class Part:
    """A row, or a part of one, in one version of MQTT: by target the figures of every round."""

    workload: Workload
    mqtt: Mqtt
    title: str
    rounds: dict[str, list[Figures]]

    @property
    def unit(self) -> str:
        return next(iter(self.rounds.values()))[0].unit


@dataclass(frozen=True)
class Ratio:
    """One cost divided by another: of the medians, and the least and the most among the rounds, pair by pair."""

    value: float
    least: float
    most: float
    what: str = ""  # what it was divided by, where that is not clear


def ratio(over: Sequence[Figures], under: Sequence[Figures], what: str = "") -> Ratio | None:
    above, below = cost(over), cost(under)
    if not above or not below:
        return None
    pairs = [one.cost / two.cost for one, two in zip(over, under, strict=False) if one.cost and two.cost]
    return Ratio(above / below, min(pairs), max(pairs), what)


@dataclass
class Report:
    """All that a run has found. `rounds` is by row, version and target: one list of parts per round."""

    plan: Plan
    targets: list[Target]
    workloads: list[Workload]
    versions: list[Mqtt]
    cores: str
    storage: str
    arguments: list[str]
    rounds: dict[tuple[str, str, str], list[list[Figures]]] = field(default_factory=dict)
    failures: dict[tuple[str, str, str], str] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)  # a sentence each
    machine: str = field(default_factory=machine)
    date: str = field(default_factory=lambda: datetime.date.today().isoformat())

    def __post_init__(self) -> None:
        self.software = {target.name: target.version() for target in self.targets}

    def add(self, workload: Workload, mqtt: Mqtt, target: Target, parts: list[Figures]) -> None:
        self.rounds.setdefault((workload.name, mqtt.name, target.name), []).append(parts)

    def fail(self, workload: Workload, mqtt: Mqtt, target: Target, reason: str) -> None:
        self.failures[workload.name, mqtt.name, target.name] = reason

    def failed(self, workload: Workload, mqtt: Mqtt, target: Target) -> bool:
        return (workload.name, mqtt.name, target.name) in self.failures

    @property
    def names(self) -> list[str]:
        return [target.name for target in self.targets]

    def levels(self) -> dict[int, Mqtt]:
        """By protocol level, the first version that has it."""
        return {mqtt.level: mqtt for mqtt in reversed(self.versions)}

    @property
    def command(self) -> str:
        return shlex.join(["python", "tests/bench", *self.arguments])

    def parts(self, mqtt: Mqtt | None = None) -> Iterator[Part]:
        """In the table's order; targets that failed a row are absent from it."""
        for workload in self.workloads:
            for version in self.versions if mqtt is None else [mqtt]:
                yield from self._parts_of(workload, version)

    def _parts_of(self, workload: Workload, mqtt: Mqtt) -> Iterator[Part]:
        by_part: dict[str, dict[str, list[Figures]]] = {}
        for target in self.targets:
            if self.failed(workload, mqtt, target):
                continue
            for parts in self.rounds.get((workload.name, mqtt.name, target.name), []):
                for figures in parts:
                    by_part.setdefault(figures.part, {}).setdefault(target.name, []).append(figures)
        title = workload.title_for(self.plan)
        for part, rounds in by_part.items():
            yield Part(workload, mqtt, f"{title}: {part}" if part else title, rounds)

    def titled(self, part: Part) -> str:
        """Its title with the version, where there are several."""
        return part.title if len(self.versions) == 1 else f"MQTT {part.mqtt.name}: {part.title}"

    # Comparing

    def compared(self) -> list[str]:
        """The targets that have a ratio to the reference."""
        return [name for name in self.names if name != REFERENCE] if REFERENCE in self.names else []

    def others(self) -> list[str]:
        """The brokers that are not ours."""
        return [name for name in self.names if name not in (OURS, OLD)]

    @staticmethod
    def reference_to(name: str, part: Part) -> Ratio | None:
        """The reference's cost divided by this one's: above 1, this one is cheaper."""
        return None if name == REFERENCE else ratio(part.rounds.get(REFERENCE, []), part.rounds.get(name, []))

    def to_best(self, part: Part) -> Ratio | None:
        """Our cost divided by the least of the others."""
        costs = {name: one for name in self.others() if (one := cost(part.rounds.get(name, [])))}
        if not costs:
            return None
        best = min(costs, key=lambda name: costs[name])
        return ratio(part.rounds.get(OURS, []), part.rounds[best], best)

    @staticmethod
    def to_old(part: Part) -> Ratio | None:
        """Our cost divided by that of the other checkout."""
        return ratio(part.rounds.get(OURS, []), part.rounds.get(OLD, []))

    def to_311(self, name: str, part: Part) -> Ratio | None:
        """A broker's cost in 5.0 divided by its own in 3.1.1."""
        if part.mqtt == V311 or V311 not in self.versions:
            return None
        for other in self._parts_of(part.workload, V311):
            if other.title == part.title:
                return ratio(part.rounds.get(name, []), other.rounds.get(name, []))
        return None

    def beyond_the_aims(self) -> list[str]:
        """A line for each cost of ours that is higher than it is to be."""
        lines = []
        for part in self.parts():
            aim_of_311 = AIM_OF_311_PROPERTIES if part.mqtt.properties else AIM_OF_311
            for found, aim, what in (
                (self.to_best(part), AIM_OF_BEST, "of {what}'s cost"),
                (self.to_old(part), AIM_OF_OLD, "of the old cost"),
                (self.to_311(OURS, part), aim_of_311, "of the cost in 3.1.1"),
            ):
                if found is not None and round(found.value, 2) > aim:
                    lines.append(
                        f"{self.titled(part)}: {found.value:.2f} {what.format(what=found.what)} (aim: {aim:g})"
                    )
        return lines

    def facts(self) -> list[str]:
        """What a reader has to know to judge the figures, a line each."""
        lines = [
            f"{self.date}, {self.machine}.",
            f"{self.cores}.",
            *(f"{target.name} {self.software[target.name]}: {target.settings()}." for target in self.targets),
            *self.left_out,
            "Cost: CPU time (user and system, all threads) of the broker per delivered message; per request with its "
            "response; per stored message for a backlog; per connect with disconnect; resident memory per idle "
            "connection. Medians of the rounds, with least and most. Latency: from send to receipt in the generator; "
            "with 1000 messages under way it is mostly the queue. busy: share of a core. The side near 100 % was the "
            "limit of the rate; when neither was, waiting or other load on the machine was.",
            f"Durable rows store on {self.storage}.",
        ]
        if any(version.properties for version in self.versions):
            lines.append(
                "With properties: each message has a content type and a user property; with varied ones, the value of "
                "the user property differs from message to message."
            )
        if OURS in self.names and self.others():
            lines.append(
                "In the durable rows the brokers do not do the same: the others write at intervals and at exit, "
                "so a kill loses what they acknowledged; selectmq commits to disk before it acknowledges."
            )
        if self.compared():
            lines.append(f"ratio: cost of {REFERENCE} divided by the broker's own; above 1, the broker is cheaper.")
        if OURS in self.names and len(self.others()) > 1:
            lines.append(f"of the best: cost of {OURS} divided by the least cost of the others; below 1 is cheaper.")
        if OLD in self.names:
            lines.append(f"of old: cost of {OURS} divided by its cost in the other checkout.")
        if V311 in self.versions and len(self.versions) > 1:
            lines.append("of 3.1.1: a broker's cost in MQTT 5.0 divided by its own in 3.1.1.")
        return lines

    # JSON

    def json(self) -> str:
        content = {
            "command": self.command,
            "date": self.date,
            "machine": self.machine,
            "cores": self.cores,
            "storage": self.storage,
            "versions": self.software,
            "plan": dataclasses.asdict(self.plan),
            "rows": [self._json_row(part) for part in self.parts()],
            "left_out": self.left_out,
            "failures": [
                {"name": name, "mqtt": mqtt, "target": target, "reason": reason}
                for (name, mqtt, target), reason in self.failures.items()
            ],
            "beyond_the_aims": self.beyond_the_aims(),
        }
        return json.dumps(content, indent=1) + "\n"

    def _json_row(self, part: Part) -> dict[str, object]:
        def shown(found: Ratio | None) -> dict[str, object] | None:
            return None if found is None else dataclasses.asdict(found)

        compared = {name: self.reference_to(name, part) for name in self.compared() if name in part.rounds}
        return {
            "name": part.workload.name,
            "mqtt": part.mqtt.name,
            "title": part.title,
            "unit": part.unit,
            "rounds": {name: [dataclasses.asdict(f) for f in rounds] for name, rounds in part.rounds.items()},
            "ratio": {name: None if found is None else found.value for name, found in compared.items()},
            "of_best": shown(self.to_best(part)),
            "of_old": shown(self.to_old(part)),
            "of_311": {name: shown(self.to_311(name, part)) for name in part.rounds},
        }
