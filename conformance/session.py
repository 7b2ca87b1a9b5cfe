"""A run of the suite under pytest: which tests it is made of, and what came out of each.

Owns: `Session`, a pytest plugin. Must not know: how tests run side by side, command lines, how a result is shown.

pytest collects the tests, and its reports carry the results. Everything of pytest happens in the main thread, because
its fixtures are not made for threads. So a test of the suite has no fixture but `trial`, which is no fixture at all:
a pool of threads calls the test functions with a `Trial` each.
"""

import contextlib
import difflib
import time
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Literal

import pytest

from . import capabilities, statements
from .capabilities import Capability
from .job import Job, SuiteError, selects
from .report.result import RunResult, TestResult, judge
from .side_by_side import PATIENCE, SideBySide
from .suite import DIRECTORY
from .target import Broker, TargetError
from .verdicts import Verdict

MQTT = "3.1.1"

_RESULT = pytest.StashKey[TestResult]()

_OUTCOMES: Mapping[Verdict, Literal["passed", "failed", "skipped"]] = {
    Verdict.PASS: "passed",
    Verdict.WARN: "passed",
    Verdict.FAIL: "failed",
    Verdict.ERROR: "failed",
    Verdict.NOT_APPLICABLE: "skipped",
    Verdict.INCONCLUSIVE: "skipped",
}


_PHASES: tuple[Literal["setup", "call", "teardown"], ...] = ("setup", "call", "teardown")


class Session:
    """The pytest plugin of one run. `result` is there when pytest has ended.

    `problem` holds what made the run impossible, in one line, and is empty when nothing did: no broker, a selection
    that matches nothing. With `collect_only` no broker is needed, and `jobs` holds what was found.
    """

    def __init__(
        self,
        broker: Broker,
        *,
        select: Sequence[str] = (),
        patience: float = PATIENCE,
        workers: int | None = None,
        strict: bool = False,
        arguments: Sequence[str] = (),
        collect_only: bool = False,
        on_begin: Callable[[int], None] = lambda total: None,
        on_result: Callable[[TestResult], None] = lambda result: None,
    ) -> None:
        self.broker = broker
        self.catalogue = statements.load(MQTT)
        self.problem = ""
        self.jobs: list[Job] = []
        self.result: RunResult | None = None
        self._select = tuple(select)
        self._patience = patience
        self._workers = workers
        self._strict = strict
        self._arguments = tuple(arguments)
        self._collect_only = collect_only
        self._on_begin = on_begin
        self._on_result = on_result
        self._found: dict[str, Capability] = {}
        self._job_of: dict[str, Job] = {}
        self._results: dict[str, TestResult] = {}
        self._runner: SideBySide | None = None
        self._remarks: list[str] = []
        self._entered = contextlib.ExitStack()
        self._started = datetime.now(UTC)
        self._began = time.monotonic()

    # What pytest calls

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Turns the suite's tests into jobs, and leaves out those that are not selected."""
        kept: list[pytest.Item] = []
        functions: set[str] = set()
        unmatched = set(self._select)
        for item in items:
            if not is_ours(item):
                kept.append(item)
                continue
            assert isinstance(item, pytest.Function)
            try:
                job = Job.of(item, self.catalogue)
            except SuiteError as error:
                self.problem = f"the suite is not as it must be: {error}"
                continue
            functions.add(item.originalname)
            matched = {text for text in self._select if selects(text, job, self.catalogue)}
            unmatched -= matched
            if matched or not self._select:
                kept.append(item)
                self._job_of[item.nodeid] = job
                self.jobs.append(job)
        left_out = [item for item in items if item not in kept]
        if left_out:
            config.hook.pytest_deselected(items=left_out)
            items[:] = kept
        for text in self._select:
            if text in unmatched and not self.problem:
                self.problem = f"--select {text} matches no test{self._instead(text, functions)}"

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.problem = f"the suite cannot be read: {report.nodeid}: {str(report.longrepr).strip().splitlines()[-1]}"

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, object, object]:
        """Runs the suite's tests side by side; any others are left to pytest."""
        if session.config.option.collectonly or hasattr(session.config, "workerinput"):
            return (yield)
        if self.problem:
            pytest.exit(self.problem, returncode=2)
        if self._collect_only:
            session.items = []
            return (yield)
        ours = [item for item in session.items if item.nodeid in self._job_of]
        others = [item for item in session.items if item.nodeid not in self._job_of]
        try:
            runner = self._enter()
        except TargetError as error:
            self.problem = str(error)
            pytest.exit(self.problem, returncode=2)
        item_of = {self._job_of[item.nodeid].id: item for item in ours}

        def on_result(result: TestResult) -> None:
            self._log(item_of[result.id], result)
            if session.shouldfail:
                raise session.Failed(session.shouldfail)
            if session.shouldstop:
                raise session.Interrupted(session.shouldstop)

        self._on_begin(len(ours))
        runner.run([self._job_of[item.nodeid] for item in ours], on_result)
        session.items = others
        # pytest's own loop takes what has failed before it begins for errors of the collection.
        failed, session.testsfailed = session.testsfailed, 0
        try:
            return (yield)
        finally:
            session.items = ours + others
            session.testsfailed += failed

    @pytest.hookimpl(tryfirst=True)
    def pytest_pyfunc_call(self, pyfuncitem: pytest.Function) -> bool | None:
        """Executes one test where pytest, or pytest-xdist, runs them one after the other."""
        job = self._job_of.get(pyfuncitem.nodeid)
        if job is None:
            return None
        try:
            runner = self._enter()
        except TargetError as error:
            pytest.exit(str(error), returncode=2)
        pyfuncitem.stash[_RESULT] = runner.execute(job)
        return True

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        if call.when == "call" and _RESULT in item.stash:
            self._dress(report, item.stash[_RESULT])
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        plain = getattr(report, "selectmq_conformance", None)
        if plain is not None:
            self._results[report.nodeid] = TestResult.from_plain(plain)
            self._on_result(self._results[report.nodeid])

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        if self._results:
            if self._runner:
                self._remarks += self._runner.remarks
                if self.broker.died and self._runner.goes_on:
                    self._remarks.append(self.broker.died)
            if exitstatus == pytest.ExitCode.INTERRUPTED:
                self._remarks.append(f"it was interrupted after {len(self._results)} of {len(self.jobs)} tests")
            self.result = self._sum_up()
        self._entered.close()

    # The inside

    def _instead(self, text: str, functions: Collection[str]) -> str:
        """What to say of a selection that matches nothing: why, or the nearest right thing."""
        statement = self.catalogue.find(text)
        if statement is not None:
            return f": {statement.id} is not tested, because {statement.reason_untested}"
        sections = {one.section for one in self.catalogue} | {one.chapter for one in self.catalogue}
        known = {name.lower(): name for name in (*functions, *sections, *(one.id for one in self.catalogue))}
        near = difflib.get_close_matches(text.lower(), known, n=1)
        hint = f"; did you mean {known[near[0]]}?" if near else ""
        kinds = "a section (3.1), a statement (MQTT-3.1.2-8) or a part of a test's name"
        return f"{hint}: give {kinds}; --list shows them"

    def _enter(self) -> SideBySide:
        """Starts the broker, if it is to be started, and finds out what it can do. Once per session."""
        if self._runner is None:
            self._entered.enter_context(self.broker)
            self._found = capabilities.probe(self.broker, self._patience)
            self._runner = SideBySide(self.broker, self._found, patience=self._patience, workers=self._workers)
        return self._runner

    def _log(self, item: pytest.Item, result: TestResult) -> None:
        """Tells pytest of a test that has ended, in the order of calls that its reporters know."""
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        for when in _PHASES:
            report = pytest.TestReport(
                item.nodeid,
                item.location,
                dict.fromkeys(item.keywords, 1),
                "passed",
                None,
                when,
                duration=result.seconds if when == "call" else 0.0,
            )
            if when == "call":
                self._dress(report, result)
            item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)

    def _dress(self, report: pytest.TestReport, result: TestResult) -> None:
        failed = self._strict and result.verdict is Verdict.WARN
        report.outcome = "failed" if failed else _OUTCOMES[result.verdict]
        words = f"{result.verdict}: {result.reason}"
        if report.outcome == "skipped":
            path, line, _ = report.location
            report.longrepr = (path, line or 0, words)
        elif report.outcome == "failed":
            report.longrepr = words if result.verdict is not Verdict.ERROR else f"{words}\n{result.actual}"
        report.selectmq_conformance = result.to_plain()  # type: ignore[attr-defined]

    def _sum_up(self) -> RunResult:
        order = {job.id: number for number, job in enumerate(self.jobs)}
        selection = " ".join(self._select) or ("" if len(self._results) == len(self.jobs) else "part of the suite")
        tests = sorted(self._results.values(), key=lambda test: order.get(test.id, len(order)))
        return RunResult(
            target=self.broker.name,
            mqtt=MQTT,
            started=self._started.isoformat(timespec="seconds"),
            seconds=round(time.monotonic() - self._began, 3),
            tests=tuple(tests),
            statements=judge(self.catalogue, tests, deviations=self.broker.deviations, only_tested=bool(selection)),
            selection=selection,
            strict=self._strict,
            capabilities=self._found,
            problems=tuple(self._remarks),
            arguments=self._arguments,
        )


def is_ours(item: pytest.Item) -> bool:
    """Whether a collected test is one of the suite."""
    return DIRECTORY in item.path.parents
