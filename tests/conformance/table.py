"""The table of statement, test and fault, as Markdown: what judges each statement, and what proves that it can.

    python -m tests.conformance.table > table.md

Owns: the rows and how they are shown. Must not know: how a test or a fault works. That every fault is found by a test
of each statement that its row names is what `test_suite_on_trial.py` shows by running them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from conformance import cli, statements
from conformance.job import Job
from conformance.statements import Statement
from tests.conformance.faulty.faults import FAULTS, ODDITIES


@dataclass(frozen=True, slots=True)
class Row:
    """A statement, the tests that judge it, and the faults and oddities of which they must tell."""

    statement: Statement
    tests: tuple[str, ...]
    faults: tuple[str, ...]
    oddities: tuple[str, ...]

    @property
    def gap(self) -> str:
        """What the row lacks without a written reason; empty if it lacks nothing."""
        if not self.tests:
            return "" if self.statement.reason_untested else "no test"
        if not self.faults and (self.statement.level == "MUST" or not self.oddities):
            return "no fault"
        return ""


def rows(jobs: Sequence[Job]) -> list[Row]:
    """A row for each statement of the catalogue, in the order of the specification."""
    tests: dict[str, dict[str, int]] = {}
    for job in jobs:
        function = job.id.split("[")[0]
        for name in job.statements:
            tests.setdefault(name, {}).setdefault(function, 0)
            tests[name][function] += 1
    return [
        Row(
            statement,
            tuple(f"{name} ({count})" for name, count in tests.get(statement.id, {}).items()),
            tuple(fault for fault, broken in FAULTS.items() if statement.id in broken),
            tuple(oddity for oddity, broken in ODDITIES.items() if statement.id in broken),
        )
        for statement in statements.load()
    ]


def markdown(given: Sequence[Row]) -> str:
    """The table. After a test stands how many cases it has; a reason stands where there is no test."""
    shown = ["| statement | rule | tests (cases) | faults that they find |", "|---|---|---|---|"]
    for row in given:
        level = "" if row.statement.level == "MUST" else f" ({row.statement.level})"
        tests = "<br>".join(f"`{test}`" for test in row.tests) or f"none: {row.statement.reason_untested}"
        faults = [*row.faults, *(f"{oddity} (WARN)" for oddity in row.oddities)]
        cells = (f"{row.statement.id}{level}", row.statement.summary, tests, "<br>".join(faults))
        shown.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    judged = sum(bool(row.tests) for row in given)
    shown += ["", f"{len(given)} statements, {judged} of them judged; {len(FAULTS)} faults, {len(ODDITIES)} oddities."]
    return "\n".join(shown)


if __name__ == "__main__":
    print(markdown(rows(cli.collect().jobs)))
