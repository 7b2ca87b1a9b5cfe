"""The report for a terminal: progress while the tests run, then what stands against the broker, then the verdict."""

import os
import sys
import textwrap
import time
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import TextIO

from ..statements import CHAPTERS, Catalogue
from ..verdicts import SEVERITY, Verdict
from .result import RunResult, StatementResult, TestResult, counted
from .timeline import lines

#: How the summary counts, from good to bad.
ORDER = (*reversed(SEVERITY[:-2]), Verdict.NOT_APPLICABLE, Verdict.NOT_TESTED)

WIDTH = 120


class OutputError(Exception):
    """Standard output takes nothing more, such as a file on a full disk."""


class Progress:
    """Shows how far the run is: one line that changes on a terminal, else a line now and then."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._live = stream.isatty()
        self._total = 0
        self._done = 0
        self._bad: dict[Verdict, int] = {}
        self._shown_at = 0.0
        self._width = 0

    def begin(self, total: int) -> None:
        self._total = total
        self._show(f"0 of {total} tests")

    def step(self, result: TestResult) -> None:
        self._done += 1
        if result.verdict is not Verdict.PASS:
            self._bad[result.verdict] = self._bad.get(result.verdict, 0) + 1
        if result.verdict in (Verdict.FAIL, Verdict.ERROR):
            self._clear()
            self._stream.write(f"{result.verdict}  {result.id}\n")
        now = time.monotonic()
        if self._done == self._total or now - self._shown_at > (0.1 if self._live else 5.0):
            self._shown_at = now
            counts = "".join(f", {count} {verdict}" for verdict, count in self._bad.items())
            self._show(f"{self._done} of {self._total} tests{counts}")

    def end(self) -> None:
        self._clear()
        self._stream.flush()

    def _show(self, text: str) -> None:
        if self._live:
            self._clear()
            self._stream.write(text)
            self._width = len(text)
        else:
            self._stream.write(f"{text}\n")
        self._stream.flush()

    def _clear(self) -> None:
        if self._live and self._width:
            self._stream.write("\r" + " " * self._width + "\r")
            self._width = 0


def summary(run: RunResult) -> list[str]:
    """The whole report, as lines."""
    return [
        *_chapters(run.statements),
        *_failures(run),
        *_remarks(run),
        *_verdict(run),
    ]


def listing(
    catalogue: Catalogue, tests: Iterable[tuple[str, Sequence[str]]], *, only_tested: bool = False
) -> list[str]:
    """What `--list` shows: every statement with its tests. `tests` are pairs of a test's id and its statements.

    `only_tested` leaves out statements without a test.
    """
    by_statement: dict[str, list[str]] = {}
    for identity, statement_ids in tests:
        for statement_id in statement_ids:
            by_statement.setdefault(statement_id, []).append(identity)
    shown = []
    listed = [statement for statement in catalogue if not only_tested or statement.id in by_statement]
    for chapter, group in groupby(listed, key=lambda statement: statement.chapter):
        shown += ["", f"{chapter}  {CHAPTERS.get(chapter, '')}".rstrip()]
        for statement in group:
            found = by_statement.get(statement.id, [])
            shown.append(f"  {statement.id}  {statement.summary}")
            shown += [f"      {identity}" for identity in found]
            if not found:
                shown.append(f"      NOT TESTED: {statement.reason_untested or 'the suite has no test for it yet'}")
    return shown[1:]


def _chapters(results: Sequence[StatementResult]) -> list[str]:
    shown = ["Statements by section"]
    for chapter, group in groupby(results, key=lambda result: result.statement.chapter):
        members = list(group)
        counts = [(verdict, sum(result.verdict is verdict for result in members)) for verdict in ORDER]
        words = ", ".join(f"{count} {verdict}" for verdict, count in counts if count)
        shown.append(f"  {chapter:<5}{CHAPTERS.get(chapter, ''):<20}{words}")
    return shown


def _failures(run: RunResult) -> list[str]:
    shown: list[str] = []
    summaries = {result.statement.id: result for result in run.statements}
    for verdict in (Verdict.ERROR, Verdict.FAIL):
        for test in run.tests:
            if test.verdict is verdict:
                shown += ["", f"{verdict}  {test.id}", *_wrapped("      ", test.title)]
                for identity in test.statements:
                    if identity in summaries:
                        shown += _statement(summaries[identity])
                shown += _what_came(test)
                shown += [f"      {line}" for line in lines(test.timeline)]
                shown.append(f"  again: {run.rerun(test)}")
    return shown


def _statement(result: StatementResult) -> list[str]:
    shown = _wrapped("  ", f"[{result.statement.id}] {result.statement.summary}")
    if result.deviation:
        shown += _wrapped("    ", f"known deviation: {result.deviation}")
    return shown


def _what_came(test: TestResult) -> list[str]:
    if test.verdict is Verdict.ERROR:
        return [*_wrapped("  ", test.reason), *(f"      {line}" for line in test.actual.splitlines())]
    if test.expected:
        return [*_wrapped("  expected ", test.expected), *_wrapped("  actual   ", test.actual)]
    return _wrapped("  ", test.reason)


def _remarks(run: RunResult) -> list[str]:
    shown: list[str] = []
    deviations = {result.statement.id: result.deviation for result in run.statements}
    for verdict in (Verdict.WARN, Verdict.INCONCLUSIVE, Verdict.NOT_APPLICABLE):
        reasons: dict[str, list[TestResult]] = {}
        for test in run.tests:
            if test.verdict is verdict:
                reasons.setdefault(test.reason, []).append(test)
        if reasons:
            shown += ["", str(verdict)]
        for reason, tests in reasons.items():
            shown += _wrapped("  ", reason)
            known = {deviations.get(identity, "") for test in tests for identity in test.statements} - {""}
            shown += [line for words in sorted(known) for line in _wrapped("    ", f"known deviation: {words}")]
            shown += [f"      {test.id}" for test in tests]
    return shown


def _verdict(run: RunResult) -> list[str]:
    counts = counted((test.verdict for test in run.tests), ORDER)
    shown = ["", f"{len(run.tests)} tests in {run.seconds:.1f} s: {counts}"]
    shown += [f"The run itself: {problem}" for problem in run.problems]
    if run.certified:
        kept = sum(result.shown for result in run.statements)
        shown.append(f"CERTIFIED: {run.target} keeps MQTT {run.mqtt}: {kept} statements pass.")
    elif run.passed:
        shown.append(f"PASSED: {run.target}, for what was selected; a certificate takes the whole run.")
    else:
        shown.append(f"NOT CERTIFIED: {run.target} against MQTT {run.mqtt}.")
        for result in run.obstacles:
            if result.verdict is Verdict.NOT_TESTED:
                continue
            shown += _wrapped("  ", f"{result.verdict}  [{result.statement.id}] {result.statement.summary}")
        untested = sum(result.verdict is Verdict.NOT_TESTED for result in run.obstacles)
        if untested:
            shown.append(f"  {untested} statements were not tested")
        if run.strict and run.count(Verdict.WARN):
            shown.append(f"  {run.count(Verdict.WARN)} WARN, which --strict counts as FAIL")
    return shown


def _wrapped(lead: str, text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=lead, subsequent_indent=" " * len(lead)) or [lead.rstrip()]


def write(run: RunResult) -> None:
    """Writes the whole report to standard output."""
    say("\n".join(summary(run)) + "\n")


def say(text: str) -> None:
    """Writes to standard output. A reader that has read enough (`| head`) is no fault. Raises OutputError."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        _discard()
    except OSError as error:
        _discard()
        raise OutputError(f"cannot write to standard output: {error.strerror}") from None


def _discard() -> None:
    """What is left in the buffer would fail again at the end of the interpreter."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
