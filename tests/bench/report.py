"""Results over all rounds, and how they are shown: text, JSON, Markdown.

Owns: medians, spreads, ratios, tables, the description of the machine.
Must not know: how anything was measured.
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
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from targets import Target
from workloads import Figures, Plan, Workload

REFERENCE = "mosquitto"  # whose cost stands above the line of every ratio


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


@dataclass
class Report:
    """All that a run has found. `rounds` is by workload, then target: one list of parts per round."""

    plan: Plan
    targets: list[Target]
    workloads: list[Workload]
    cores: str
    storage: str
    arguments: list[str]
    rounds: dict[tuple[str, str], list[list[Figures]]] = field(default_factory=dict)
    failures: dict[tuple[str, str], str] = field(default_factory=dict)
    machine: str = field(default_factory=machine)
    date: str = field(default_factory=lambda: datetime.date.today().isoformat())

    def __post_init__(self) -> None:
        self.versions = {target.name: target.version() for target in self.targets}

    def add(self, workload: Workload, target: Target, parts: list[Figures]) -> None:
        self.rounds.setdefault((workload.name, target.name), []).append(parts)

    def fail(self, workload: Workload, target: Target, reason: str) -> None:
        self.failures[workload.name, target.name] = reason

    @property
    def command(self) -> str:
        return shlex.join(["python", "tests/bench", *self.arguments])

    def parts(self, workload: Workload) -> Iterator[tuple[str, dict[str, list[Figures]]]]:
        """Each part of a workload: its title, and by target the figures of every round; failed targets are absent."""
        by_part: dict[str, dict[str, list[Figures]]] = {}
        for target in self.targets:
            if (workload.name, target.name) in self.failures:
                continue
            for parts in self.rounds.get((workload.name, target.name), []):
                for figures in parts:
                    by_part.setdefault(figures.part, {}).setdefault(target.name, []).append(figures)
        title = workload.title_for(self.plan)
        for part, by_target in by_part.items():
            yield f"{title}: {part}" if part else title, by_target

    def facts(self) -> list[str]:
        """What a reader has to know to judge the figures, a line each."""
        lines = [
            f"{self.date}, {self.machine}.",
            f"{self.cores}.",
            *(f"{target.name} {self.versions[target.name]}: {target.settings()}." for target in self.targets),
            "Cost: CPU time (user and system, all threads) of the broker per delivered message; per stored message for "
            "a backlog; per connect with disconnect; resident memory per idle connection. Medians of the rounds, with "
            "least and most. Latency: from send to receipt in the generator; with 1000 messages under way it is mostly "
            "the queue. busy: share of a core. The side near 100 % was the limit of the rate; when neither was, "
            "waiting or other load on the machine was.",
            f"Durable rows store on {self.storage}.",
        ]
        names = [target.name for target in self.targets]
        if "mosquitto" in names and "selectmq" in names:
            lines.append(
                "In the durable rows the two do not do the same: mosquitto writes at intervals and at exit, "
                "so a kill loses what it acknowledged; selectmq commits to disk before it acknowledges."
            )
        if self.compared():
            lines.append(f"ratio: cost of {REFERENCE} divided by the broker's own; above 1, the broker is cheaper.")
        return lines

    def compared(self) -> list[str]:
        """The targets that have a ratio."""
        names = [target.name for target in self.targets]
        return [name for name in names if name != REFERENCE] if REFERENCE in names else []

    # Text

    def text(self) -> str:
        lines = [textwrap.fill(line, 119, subsequent_indent="  ") for line in self.facts()] + [""]
        for workload in self.workloads:
            for title, by_target in self.parts(workload):
                lines.append(title)
                lines += [self._text_line(name, rounds, by_target) for name, rounds in by_target.items()]
        for (row, name), reason in self.failures.items():
            lines.append(f"{row} on {name} FAILED: {reason}")
        return "\n".join(lines)

    def _text_line(self, name: str, rounds: list[Figures], by_target: dict[str, list[Figures]]) -> str:
        cells = [
            f"  {name:<12} {spread(rounds, lambda f: f.cost):>25} {rounds[0].unit:<14}",
            f"{number(median(rounds, lambda f: f.rate)):>9}/s",
            f"busy {percent(rounds, lambda f: f.broker_busy):>4} gen {percent(rounds, lambda f: f.generator_busy):>4}",
            f"p50 {number(median(rounds, lambda f: f.p50)):>6} p99 {number(median(rounds, lambda f: f.p99)):>6} ms",
            f"{number(median(rounds, lambda f: f.memory)):>6} MiB",
        ]
        if (ratio := self.ratio(name, by_target)) is not None:
            cells.append(f"ratio {ratio:.2f}")
        notes = "".join(f"\n{'':16}{number(value)} {what}" for what, value in self._notes(rounds))
        return "  ".join(cells) + notes

    @staticmethod
    def _notes(rounds: list[Figures]) -> Iterator[tuple[str, float | None]]:
        for what in rounds[0].notes:
            yield what, median(rounds, lambda f, what=what: f.notes.get(what))  # type: ignore[misc]

    def ratio(self, name: str, by_target: dict[str, list[Figures]]) -> float | None:
        if name == REFERENCE or REFERENCE not in by_target:
            return None
        ours = median(by_target[name], lambda f: f.cost)
        theirs = median(by_target[REFERENCE], lambda f: f.cost)
        return theirs / ours if ours and theirs else None

    # JSON

    def json(self) -> str:
        return (
            json.dumps(
                {
                    "command": self.command,
                    "date": self.date,
                    "machine": self.machine,
                    "cores": self.cores,
                    "storage": self.storage,
                    "versions": self.versions,
                    "plan": dataclasses.asdict(self.plan),
                    "rows": [
                        {
                            "name": workload.name,
                            "title": title,
                            "unit": next(iter(by_target.values()))[0].unit,
                            "rounds": {
                                name: [dataclasses.asdict(f) for f in rounds] for name, rounds in by_target.items()
                            },
                            "ratio": {
                                name: self.ratio(name, by_target) for name in self.compared() if name in by_target
                            },
                        }
                        for workload in self.workloads
                        for title, by_target in self.parts(workload)
                    ],
                    "failures": [
                        {"name": name, "target": target, "reason": reason}
                        for (name, target), reason in self.failures.items()
                    ],
                },
                indent=1,
            )
            + "\n"
        )

    # Markdown

    def markdown(self) -> str:
        """The table for those who want to know, and below it, folded, all that was found for those who doubt it."""
        names = [target.name for target in self.targets]
        ratios = [f"{name}: ratio" for name in self.compared()]
        heads = ["cost of", *names, *ratios, *(f"{name}: per second (busy)" for name in names)]
        more = ["workload", *(f"{name}: cost" for name in names), *(f"{name}: p50 / p99 ms" for name in names)]
        lines, details = [_row(heads), _aligned(heads)], [_row(more), _aligned(more)]
        for workload in self.workloads:
            for title, by_target in self.parts(workload):
                unit = next(iter(by_target.values()))[0].unit.replace("us", "µs")
                rounds = [by_target.get(name, []) for name in names]
                cells = [f"{title} ({unit})", *(number(median(one, lambda f: f.cost)) for one in rounds)]
                for name in self.compared():
                    ratio = self.ratio(name, by_target) if name in by_target else None
                    cells.append("-" if ratio is None else f"**{ratio:.2f}**")
                lines.append(_row([*cells, *(_rate(one) for one in rounds)]))
                details.append(
                    _row(
                        [title, *(spread(one, lambda f: f.cost) for one in rounds), *(_latency(one) for one in rounds)]
                    )
                )
        for (name, target_name), reason in self.failures.items():
            lines.append(_row([f"{name} on {target_name}", f"FAILED: {reason}", *[""] * (len(heads) - 2)]))
        remarks = [
            f"{title}, {name}: {number(value)} {what}."
            for workload in self.workloads
            for title, by_target in self.parts(workload)
            for name, rounds in by_target.items()
            for what, value in self._notes(rounds)
        ]
        notes = [f"- {line}" for line in [f"Made by `{self.command}`.", *self.facts(), *remarks]]
        folded = ["<details><summary>Spread, latency, versions, settings</summary>", "", *details, "", *notes, ""]
        return "\n".join([*lines, "", *folded, "</details>"]) + "\n"


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _aligned(heads: list[str]) -> str:
    return "|---|" + "---:|" * (len(heads) - 1)


def _rate(rounds: list[Figures]) -> str:
    rate = median(rounds, lambda f: f.rate)
    busy = percent(rounds, lambda f: f.broker_busy)
    return "-" if rate is None else number(rate) if busy == "-" else f"{number(rate)} ({busy})"


def _latency(rounds: list[Figures]) -> str:
    p50, p99 = median(rounds, lambda f: f.p50), median(rounds, lambda f: f.p99)
    return "-" if p50 is None else f"{number(p50)} / {number(p99)}"


def one_line(figures: Figures) -> str:
    """A round, for the progress."""
    part = f"{figures.part}: " if figures.part else ""
    rate = "" if figures.rate is None else f", {number(figures.rate)}/s"
    return f"{part}{number(figures.cost)} {figures.unit}{rate}"


def median(rounds: list[Figures], get: Callable[[Figures], float | None]) -> float | None:
    values = [value for figures in rounds if (value := get(figures)) is not None]
    return statistics.median(values) if values else None


def spread(rounds: list[Figures], get: Callable[[Figures], float | None]) -> str:
    """Median, and with several rounds the least and the most."""
    values = [value for figures in rounds if (value := get(figures)) is not None]
    if not values:
        return "-"
    middle = number(statistics.median(values))
    return middle if len(values) == 1 else f"{middle} ({number(min(values))} to {number(max(values))})"


def percent(rounds: list[Figures], get: Callable[[Figures], float | None]) -> str:
    value = median(rounds, get)
    return "-" if value is None else f"{value:.0%}"


def number(value: float | None) -> str:
    """Three digits, or all before the point."""
    if value is None:
        return "-"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def write(path: str, content: str) -> None:
    """To a file, or with "-" to standard output."""
    if path == "-":
        sys.stdout.write(content)
    else:
        Path(path).write_text(content, encoding="utf-8")
