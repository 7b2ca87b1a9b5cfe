"""One test of the suite: what it is, which selection means it, and how it is executed to its verdict.

Owns: `Job`, `execute`, `selects`. Must not know: other tests, which of them run at the same time, how results look.
"""

import inspect
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from . import capabilities, statements
from .raw import Closed
from .report.result import TestResult
from .statements import Catalogue
from .trial import Trial
from .verdicts import Failure, Inconclusive, NotApplicable, Verdict


class SuiteError(Exception):
    """A test of the suite is not written as it must be: which, and what to do."""


@dataclass(frozen=True, slots=True)
class Job:
    """A test as it is executed: one call of a function."""

    id: str
    title: str
    function: Callable[..., None]
    arguments: Mapping[str, Any]
    statements: tuple[str, ...]
    needs: tuple[str, ...] = ()
    waits: float = 0.0
    alone: bool = False

    @classmethod
    def of(cls, item: pytest.Function, catalogue: Catalogue) -> "Job":
        """The job that a collected test is. SuiteError if it breaks a rule of the suite."""
        identity = f"{item.path.name}::{item.name}"
        arguments = dict(item.callspec.params) if hasattr(item, "callspec") else {}
        parameters = set(inspect.signature(item.function).parameters)
        if parameters != {"trial", *arguments}:
            raise SuiteError(f"{identity}: must take `trial` and its parameters, and no fixtures")
        verified = tuple(word for mark in item.iter_markers("verifies") for word in mark.args)
        if not verified:
            raise SuiteError(f"{identity}: names no statement: mark it with @verifies(...)")
        for statement_id in verified:
            try:
                catalogue[statement_id]
            except KeyError as error:
                raise SuiteError(f"{identity}: {error.args[0]}") from None
        needs = tuple(word for mark in item.iter_markers("needs") for word in mark.args)
        for name in needs:
            if name not in capabilities.NEEDS:
                raise SuiteError(f"{identity}: @needs({name!r}): there are {', '.join(capabilities.NEEDS)}")
        doc = inspect.getdoc(item.function)
        if not doc:
            raise SuiteError(f"{identity}: has no docstring: say in one line what the broker must do")
        return cls(
            id=identity,
            title=doc.splitlines()[0],
            function=item.function,
            arguments=arguments,
            statements=verified,
            needs=needs,
            waits=max((mark.args[0] for mark in item.iter_markers("waits")), default=0.0),
            alone=item.get_closest_marker("alone") is not None,
        )


def execute(job: Job, trial: Trial) -> TestResult:
    """Runs one test to its end, clean-up included. Raises nothing: an exception of ours is an ERROR."""
    began = time.monotonic()
    verdict, reason, expected, actual = _verdict(job, trial)
    seconds = time.monotonic() - began
    if trial.aborted:
        verdict, reason, expected, actual = Verdict.ERROR, f"the test was ended after {seconds:.0f} s", "", ""
    timeline = tuple(trial.transcript.events())
    try:
        trial.clean_up()
    except Exception as error:
        verdict, reason, actual = Verdict.ERROR, f"clean-up failed: {error!r}", traceback.format_exc()
    return TestResult(
        job.id,
        job.title,
        job.statements,
        verdict,
        round(seconds, 6),
        reason,
        expected,
        actual,
        tuple(trial.notes),
        timeline,
    )


def _verdict(job: Job, trial: Trial) -> tuple[Verdict, str, str, str]:
    try:
        for name in job.needs:
            trial.require(name)
        job.function(trial=trial, **job.arguments)
    except Failure as failure:
        trial.cut_off = _cut_off(failure)
        return Verdict.FAIL, str(failure), failure.expected, failure.actual
    except NotApplicable as error:
        return Verdict.NOT_APPLICABLE, str(error), "", ""
    except Inconclusive as error:
        trial.cut_off = _cut_off(error)
        return Verdict.INCONCLUSIVE, str(error), "", ""
    except Exception as error:
        if isinstance(error, AssertionError) and _raised_in_suite(error):
            return Verdict.FAIL, f"the test's assertion does not hold: {error}", "", str(error)
        return Verdict.ERROR, f"the runner failed: {error!r}", "", traceback.format_exc()
    if trial.warnings:
        return Verdict.WARN, "; ".join(trial.warnings), "", ""
    return Verdict.PASS, "", "", ""


def _cut_off(error: BaseException) -> bool:
    """Whether it comes of a connection that ended while something else was awaited."""
    return isinstance(error, Closed) or isinstance(error.__context__, Closed)


def _raised_in_suite(error: BaseException) -> bool:
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and Path(frames[-1].filename).name.startswith("test_")


def selects(text: str, job: Job, catalogue: Catalogue) -> bool:
    """Whether `--select text` means this test: by a section, a statement, or a part of the test's name."""
    statement = catalogue.find(text)
    if statement is not None:
        return statement.id in job.statements
    if text[:1].isdigit():
        return any(statements.in_section(catalogue[name].section, text.rstrip(".")) for name in job.statements)
    return text in job.id
