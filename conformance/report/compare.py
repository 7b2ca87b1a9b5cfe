"""`python3 -m conformance compare a.json b.json ...`: the matrix of brokers by statement.

Owns: reading JSON reports, and the matrix as text, as HTML, and by chapter as Markdown. Must not know: how a report
came about.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby
from pathlib import Path

from ..statements import CHAPTERS, FILES, Statement, load
from ..verdicts import Verdict
from .page import cell, legend, page
from .result import counted

#: What the text shows for each verdict.
LETTERS = {
    Verdict.PASS: "P",
    Verdict.FAIL: "F",
    Verdict.WARN: "W",
    Verdict.NOT_APPLICABLE: "n",
    Verdict.INCONCLUSIVE: "?",
    Verdict.ERROR: "E",
    Verdict.NOT_TESTED: ".",
}


class ReportError(Exception):
    """A file is no JSON report of this runner, or does not go with the others: one line that says which and why."""


@dataclass(frozen=True, slots=True)
class Report:
    """As much of a JSON report as the matrix needs. `verdicts` is by statement."""

    name: str
    mqtt: str
    certified: bool
    verdicts: dict[str, Verdict]


def read(paths: Sequence[str]) -> list[Report]:
    """The reports, each with a name of its own. ReportError if they cannot be compared."""
    reports: list[Report] = []
    for path in paths:
        report = _read_one(path)
        taken = {other.name for other in reports}
        name, number = report.name, 1
        while name in taken:
            number += 1
            name = f"{report.name} ({number})"
        reports.append(Report(name, report.mqtt, report.certified, report.verdicts))
    versions = {report.mqtt for report in reports}
    if len(versions) > 1:
        raise ReportError(
            f"the reports are of different versions of MQTT ({', '.join(sorted(versions))}): compare those of one"
        )
    return reports


def _read_one(path: str) -> Report:
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ReportError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError:
        raise ReportError(f"{path}: is not JSON: give reports that were written with --json") from None
    try:
        verdicts = {str(entry["id"]): Verdict(entry["verdict"]) for entry in data["statements"]}
        report = Report(str(data["target"]), str(data["mqtt"]), bool(data["certified"]), verdicts)
    except (KeyError, TypeError, ValueError) as error:
        raise ReportError(f"{path}: is no report of this runner ({error!r}): give one written with --json") from None
    if report.mqtt not in FILES:
        raise ReportError(f"{path}: is a report on MQTT {report.mqtt}, which this runner does not know")
    return report


def verdict_in(report: Report, statement: Statement) -> Verdict:
    return report.verdicts.get(statement.id, Verdict.NOT_TESTED)


def render_text(reports: Sequence[Report]) -> str:
    """The matrix for a terminal. Statements on which the brokers differ are marked with an asterisk."""
    shown = [f"{chr(ord('A') + number % 26)}  {report.name}: {_stand(report)}" for number, report in enumerate(reports)]
    columns = " ".join(chr(ord("A") + number % 26) for number in range(len(reports)))
    shown += ["", f"{'':<27}{columns}"]
    for chapter, group in groupby(load(reports[0].mqtt), key=lambda statement: statement.chapter):
        shown.append(f"{chapter} {CHAPTERS.get(chapter, '')}".rstrip())
        for statement in group:
            verdicts = [verdict_in(report, statement) for report in reports]
            letters = " ".join(LETTERS[verdict] for verdict in verdicts)
            mark = "*" if len(set(verdicts)) > 1 else " "
            shown.append(f"{mark} {statement.id:<24} {letters}  {statement.summary}")
    shown += ["", "  ".join(f"{letter} {verdict}" for verdict, letter in LETTERS.items())]
    return "\n".join(shown) + "\n"


def render_html(reports: Sequence[Report]) -> str:
    """The matrix as one HTML page."""
    head = "".join(f'<th class="broker">{escape(report.name)}</th>' for report in reports)
    rows = [f"<tr><th></th><th></th>{head}</tr>"]
    for chapter, group in groupby(load(reports[0].mqtt), key=lambda statement: statement.chapter):
        title = f"{chapter} {CHAPTERS.get(chapter, '')}"
        rows.append(f'<tr><th colspan="{len(reports) + 2}">{escape(title)}</th></tr>')
        for statement in group:
            verdicts = [verdict_in(report, statement) for report in reports]
            cells = "".join(
                f'<td class="cell-in">{cell(verdict, f"{report.name}: {verdict}")}</td>'
                for report, verdict in zip(reports, verdicts, strict=True)
            )
            differs = ' class="differs"' if len(set(verdicts)) > 1 else ""
            words = f'<td class="id">{escape(statement.id)}</td><td>{escape(statement.summary)}</td>'
            rows.append(f"<tr{differs}>{words}{cells}</tr>")
    names = ", ".join(report.name for report in reports)
    body = f"""<h1>{escape(names)}</h1>
<p class="stand">MQTT {escape(reports[0].mqtt)}: brokers by statement</p>
{_stands(reports)}
{legend()}
<p class="quiet">Rows with a tint are statements on which the brokers differ.</p>
<div class="wide"><table>{"".join(rows)}</table></div>"""
    return page(f"MQTT {reports[0].mqtt}: {names}", body)


def render_markdown(reports: Sequence[Report]) -> str:
    """A table of how many statements of each chapter came to which verdict, with what its letters mean."""
    rows = [["MQTT " + reports[0].mqtt, *(report.name for report in reports)]]
    rows.append(["---"] * len(rows[0]))
    rows.append(["", *("**certified**" if report.certified else "not certified" for report in reports)])
    for chapter, group in groupby(load(reports[0].mqtt), key=lambda statement: statement.chapter):
        statements = list(group)
        cells = [_in_short([verdict_in(report, one) for one in statements]) for report in reports]
        if any(cells):
            rows.append([f"{chapter} {CHAPTERS.get(chapter, '')}".rstrip(), *cells])
    rows.append(["all", *(_in_short(list(report.verdicts.values())) for report in reports)])
    shown = {letter: verdict for verdict, letter in LETTERS.items() if verdict is not Verdict.NOT_TESTED}
    letters = ", ".join(f"{letter} {verdict}" for letter, verdict in shown.items())
    table = "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |\n" for row in rows)
    return f"{table}\nStatements: {letters}.\n"


def _in_short(verdicts: Sequence[Verdict]) -> str:
    counts = [(verdicts.count(verdict), letter, verdict) for verdict, letter in LETTERS.items()]
    return " ".join(
        f"**{count} {letter}**" if verdict is Verdict.FAIL else f"{count} {letter}"
        for count, letter, verdict in counts
        if count and verdict is not Verdict.NOT_TESTED
    )


def _stands(reports: Sequence[Report]) -> str:
    rows = []
    for report in reports:
        stand, tone = ("certified", "pass") if report.certified else ("not certified", "fail")
        rows.append(
            f'<tr><th>{escape(report.name)}</th><td class="ink {tone}">{stand}</td>'
            f'<td class="quiet">{_counts(report)}</td></tr>'
        )
    return f'<div class="wide"><table>{"".join(rows)}</table></div>'


def _stand(report: Report) -> str:
    return f"{'certified' if report.certified else 'not certified'} ({_counts(report)})"


def _counts(report: Report) -> str:
    return counted(report.verdicts.values(), LETTERS)
