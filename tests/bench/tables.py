"""How results are shown: as text, and as the Markdown tables of the documents.

Owns: columns, lines, the number of digits.
Must not know: how anything was measured, how figures are compared.
"""

from __future__ import annotations

import statistics
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

from brokers import OLD, OURS
from packets import V311, Mqtt
from report import Part, Ratio, Report, cost, median
from workloads import Figures


def number(value: float | None) -> str:
    """Three digits, or all before the point."""
    if value is None:
        return "-"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


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


def one_line(figures: Figures) -> str:
    """A round, for the progress."""
    part = f"{figures.part}: " if figures.part else ""
    rate = "" if figures.rate is None else f", {number(figures.rate)}/s"
    return f"{part}{number(figures.cost)} {figures.unit}{rate}"


def notes(rounds: list[Figures]) -> Iterator[tuple[str, float | None]]:
    for what in rounds[0].notes:
        yield what, median(rounds, lambda f, what=what: f.notes.get(what))  # type: ignore[misc]


def write(path: str, content: str) -> None:
    """To a file, or with "-" to standard output."""
    if path == "-":
        sys.stdout.write(content)
    else:
        Path(path).write_text(content, encoding="utf-8")


# Text


def text(report: Report) -> str:
    lines = [textwrap.fill(line, 119, subsequent_indent="  ") for line in report.facts()] + [""]
    for part in report.parts():
        lines.append(report.titled(part))
        lines += [_text_line(report, name, part) for name in part.rounds]
    for (row, mqtt, name), reason in report.failures.items():
        lines.append(f"{row} in MQTT {mqtt} on {name} FAILED: {reason}")
    if beyond := report.beyond_the_aims():
        lines += ["", f"{OURS} costs more than the aims say:", *(f"  {line}" for line in beyond)]
    return "\n".join(lines)


def _text_line(report: Report, name: str, part: Part) -> str:
    rounds = part.rounds[name]
    cells = [
        f"  {name:<14} {spread(rounds, lambda f: f.cost):>25} {part.unit:<14}",
        f"{number(median(rounds, lambda f: f.rate)):>9}/s",
        f"busy {percent(rounds, lambda f: f.broker_busy):>4} gen {percent(rounds, lambda f: f.generator_busy):>4}",
        f"p50 {number(median(rounds, lambda f: f.p50)):>6} p99 {number(median(rounds, lambda f: f.p99)):>6} ms",
        f"{number(median(rounds, lambda f: f.memory)):>6} MiB",
    ]
    if (found := report.reference_to(name, part)) is not None:
        cells.append(f"ratio {found.value:.2f}")
    if (found := report.to_311(name, part)) is not None:
        cells.append(f"of 3.1.1 {with_range(found)}")
    if name == OURS:
        if len(report.others()) > 1 and (found := report.to_best(part)) is not None:
            cells.append(f"of the best {found.value:.2f} ({found.what})")
        if (found := report.to_old(part)) is not None:
            cells.append(f"of old {with_range(found)}")
    return "  ".join(cells) + "".join(f"\n{'':16}{number(value)} {what}" for what, value in notes(rounds))


def with_range(found: Ratio) -> str:
    value = f"{found.value:.2f}"
    return value if found.least == found.most else f"{value} ({found.least:.2f} to {found.most:.2f})"


# Markdown


def markdown(report: Report) -> str:
    """The tables for those who want to know, and below them, folded, all that was found for those who doubt it."""
    lines: list[str] = []
    for mqtt in report.versions:
        if len(report.versions) > 1:
            lines += [f"### MQTT {mqtt.name}", ""]
        lines += [*_costs(report, mqtt), ""]
    if V311 in report.versions and len(report.versions) > 1:
        lines += ["### MQTT 5.0 beside 3.1.1", "", *_versions(report), ""]
    lines += ["<details><summary>Spread, latency, versions, settings</summary>", ""]
    for mqtt in report.versions:
        if len(report.versions) > 1:
            lines += [f"MQTT {mqtt.name}:", ""]
        if _wide(report):
            lines += [*_rates(report, mqtt), ""]
        lines += [*_details(report, mqtt), ""]
    remarks = [
        f"{report.titled(part)}, {name}: {number(value)} {what}."
        for part in report.parts()
        for name, rounds in part.rounds.items()
        for what, value in notes(rounds)
    ]
    lines += [f"- {line}" for line in [f"Made by `{report.command}`.", *report.facts(), *remarks]]
    return "\n".join([*lines, "", "</details>"]) + "\n"


def _costs(report: Report, mqtt: Mqtt) -> list[str]:
    names = report.names
    compared = [OURS] if OURS in report.compared() else report.compared()
    best = OURS in names and len(report.others()) > 1
    old = OURS in names and OLD in names
    rated = [] if _wide(report) else names
    heads = ["cost of", *names, *(f"{name}: ratio" for name in compared)]
    heads += [f"{OURS}: of the best"] * best + [f"{OURS}: of old"] * old
    heads += [f"{name}: per second (busy)" for name in rated]
    lines = [_row(heads), _aligned(heads)]
    for part in report.parts(mqtt):
        cells = [f"{part.title} ({part.unit.replace('us', 'µs')})"]
        cells += [number(cost(part.rounds.get(name, []))) for name in names]
        cells += [_bold(report.reference_to(name, part)) for name in compared]
        cells += [_bold(report.to_best(part))] * best + [_bold(report.to_old(part))] * old
        lines.append(_row([*cells, *(_rate(part.rounds.get(name, [])) for name in rated)]))
    for (row, version, name), reason in report.failures.items():
        if version == mqtt.name:
            lines.append(_row([f"{row} on {name}", f"FAILED: {reason}", *[""] * (len(heads) - 2)]))
    return lines


def _wide(report: Report) -> bool:
    """Whether the rates need a table of their own."""
    return len(report.names) > 2


def _rates(report: Report, mqtt: Mqtt) -> list[str]:
    heads = ["workload", *(f"{name}: per second (busy)" for name in report.names)]
    lines = [_row(heads), _aligned(heads)]
    for part in report.parts(mqtt):
        lines.append(_row([part.title, *(_rate(part.rounds.get(name, [])) for name in report.names)]))
    return lines


def _versions(report: Report) -> list[str]:
    """By broker, the cost in each version of 5.0 divided by that in 3.1.1."""
    newer = [mqtt for mqtt in report.versions if mqtt != V311]
    heads = ["cost divided by that in 3.1.1", *(f"{name}: {mqtt.name}" for name in report.names for mqtt in newer)]
    by_title: dict[str, dict[tuple[str, str], Ratio]] = {}
    for part in report.parts():
        for name in report.names:
            if (found := report.to_311(name, part)) is not None:
                by_title.setdefault(part.title, {})[name, part.mqtt.name] = found
    lines = [_row(heads), _aligned(heads)]
    for title, found_ratios in by_title.items():
        ratios = [found_ratios.get((name, mqtt.name)) for name in report.names for mqtt in newer]
        lines.append(_row([title, *("-" if one is None else f"{one.value:.2f}" for one in ratios)]))
    return lines


def _details(report: Report, mqtt: Mqtt) -> list[str]:
    names = report.names
    heads = ["workload", *(f"{name}: cost" for name in names), *(f"{name}: p50 / p99 ms" for name in names)]
    lines = [_row(heads), _aligned(heads)]
    for part in report.parts(mqtt):
        rounds = [part.rounds.get(name, []) for name in names]
        costs = (spread(one, lambda f: f.cost) for one in rounds)
        lines.append(_row([part.title, *costs, *(_latency(one) for one in rounds)]))
    return lines


def _bold(found: Ratio | None) -> str:
    return "-" if found is None else f"**{found.value:.2f}**"


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
