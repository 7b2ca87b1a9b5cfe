"""The result of a run: the model that every report shows.

Owns: `TestResult`, `StatementResult`, `RunResult`, the rule of certification, and how verdicts are counted in words.
Must not know: how a report looks.
"""

import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from .. import program
from ..capabilities import Capability
from ..statements import Catalogue, Statement
from ..transcript import Event
from ..verdicts import Verdict, shown, worst


def counted(verdicts: Iterable[Verdict], order: Iterable[Verdict]) -> str:
    """How many there are of each, as far as there are any, in this order: "12 PASS, 1 FAIL"."""
    counts = Counter(verdicts)
    return ", ".join(f"{counts[verdict]} {verdict}" for verdict in order if counts[verdict])


@dataclass(frozen=True, slots=True)
class TestResult:
    """What came out of one test.

    `id` is what `--select` takes, `title` the test's docstring, `seconds` how long it took. `reason` says in one line
    why the verdict is not PASS. For a FAIL, `expected` and `actual` say it in two. `timeline` is what went over the
    wire.
    """

    __test__ = False  # or pytest takes the class for a test

    id: str
    title: str
    statements: tuple[str, ...]
    verdict: Verdict
    seconds: float
    reason: str = ""
    expected: str = ""
    actual: str = ""
    notes: tuple[str, ...] = ()
    timeline: tuple[Event, ...] = ()

    @property
    def function(self) -> str:
        """The id without the case: tests of one function differ in their parameters alone."""
        return self.id.partition("[")[0]

    def to_plain(self) -> dict[str, Any]:
        """The same as plain values, such as pass through JSON."""
        plain: dict[str, Any] = {name: getattr(self, name) for name in self.__slots__}
        plain["verdict"] = str(self.verdict)
        plain["statements"] = list(self.statements)
        plain["notes"] = list(self.notes)
        plain["timeline"] = [[getattr(event, name) for name in Event.__slots__] for event in self.timeline]
        return plain

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Self:
        """The inverse of `to_plain`."""
        values = dict(plain)
        values["verdict"] = Verdict(values["verdict"])
        values["statements"] = tuple(values["statements"])
        values["notes"] = tuple(values["notes"])
        values["timeline"] = tuple(Event(*event) for event in values["timeline"])
        return cls(**values)


@dataclass(frozen=True, slots=True)
class StatementResult:
    """What is known of one statement after the run: the worst of its tests' verdicts, or why there is none."""

    statement: Statement
    verdict: Verdict
    tests: tuple[TestResult, ...]
    reason: str = ""
    deviation: str = ""  # what the profile says about it

    @property
    def shown(self) -> bool:
        """Whether at least one test saw it kept."""
        return shown(test.verdict for test in self.tests)

    @property
    def certifiable(self) -> bool:
        """Whether a certificate may be given as far as this statement goes.

        A MUST that any broker can be judged by must have been seen kept, or not apply: that it was not tested, or
        could not be provoked, is no proof. What only a profile can show (`config`) may stay open, and so may a SHOULD.
        """
        if self.verdict in (Verdict.ERROR, Verdict.FAIL):
            return False
        if self.verdict is Verdict.NOT_TESTED:
            return not self.statement.testable or self.statement.level != "MUST"
        if self.verdict is Verdict.INCONCLUSIVE and not self.shown:
            return self.statement.observable == "config" or self.statement.level != "MUST"
        return True


@dataclass(frozen=True, slots=True)
class RunResult:
    """A whole run. `started` is in UTC, ISO 8601; `selection` is empty when all tests ran.

    `arguments` are those of the command line that name the broker, for the command that runs one test again.
    """

    target: str
    mqtt: str
    started: str
    seconds: float
    tests: tuple[TestResult, ...]
    statements: tuple[StatementResult, ...]
    selection: str = ""
    strict: bool = False
    capabilities: Mapping[str, Capability] = field(default_factory=dict)
    problems: tuple[str, ...] = ()  # what the runner has to say about the run itself
    arguments: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether nothing that was run stands against the broker: exit code 0."""
        if not self.tests or self.problems:
            return False
        if any(test.verdict is Verdict.ERROR for test in self.tests):
            return False
        if self.strict and any(test.verdict is Verdict.WARN for test in self.tests):
            return False
        return all(result.certifiable for result in self.statements)

    @property
    def certified(self) -> bool:
        """Every applicable MUST passes, no ERROR; and all of it was run."""
        return self.passed and not self.selection

    @property
    def obstacles(self) -> tuple[StatementResult, ...]:
        """The statements that stand in the way of a certificate."""
        return tuple(result for result in self.statements if not result.certifiable)

    def count(self, verdict: Verdict) -> int:
        """How many tests ended with that verdict."""
        return sum(test.verdict is verdict for test in self.tests)

    def rerun(self, test: TestResult) -> str:
        """The command that runs one test again."""
        return f"{program.name()} {shlex.join([*self.arguments, '--select', test.id])}"


def judge(
    catalogue: Catalogue,
    tests: Sequence[TestResult],
    *,
    deviations: Mapping[str, str] | None = None,
    only_tested: bool = False,
) -> tuple[StatementResult, ...]:
    """The verdict of every statement, from those of its tests. `only_tested` leaves out statements without a test."""
    by_statement: dict[str, list[TestResult]] = {}
    for test in tests:
        for identity in test.statements:
            by_statement.setdefault(identity, []).append(test)
    results = []
    for statement in catalogue:
        found = tuple(by_statement.get(statement.id, ()))
        if only_tested and not found:
            continue
        verdict = worst(test.verdict for test in found)
        results.append(
            StatementResult(
                statement, verdict, found, _reason(statement, verdict, found), (deviations or {}).get(statement.id, "")
            )
        )
    return tuple(results)


def _reason(statement: Statement, verdict: Verdict, tests: Sequence[TestResult]) -> str:
    if not tests:
        return statement.reason_untested or "the suite has no test for it yet"
    return next((test.reason for test in tests if test.verdict is verdict and test.reason), "")
