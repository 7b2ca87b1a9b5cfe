"""A run of the suite under pytest: which tests, side by side, and what came out of each.

Owns: `Session`, a pytest plugin, and how one test is executed. Must not know: command lines, how a result is shown.

pytest collects the tests, and its reports carry the results. Everything of pytest happens in the main thread, because
its fixtures are not made for threads. So a test of the suite has no fixture but `trial`, which is no fixture at all:
a pool of threads calls the test functions with a `Trial` each. The tests mostly wait for the broker, so many of them
fit onto one core. Tests marked `alone` run at the end, one after the other.
"""

import concurrent.futures
import contextlib
import difflib
import inspect
import threading
import time
import traceback
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import pytest

from conformance import capabilities, statements
from conformance.capabilities import Capability
from conformance.raw import Closed, NoAnswer
from conformance.report.result import RunResult, TestResult, judge
from conformance.statements import Catalogue
from conformance.target import Broker, TargetError
from conformance.trial import Trial
from conformance.verdicts import Failure, Inconclusive, NotApplicable, Verdict

SUITE = Path(__file__).parent / "suite"

MQTT = "3.1.1"

#: How many tests run at a time, unless the arguments or the profile say something else.
JOBS = 32

#: A test that is still running after so many seconds mostly waits for what does not come: another begins beside it.
SETTLED_SECONDS = 0.5

#: So many may be running then, all in all: more, and paho-mqtt might need more than the 1024 sockets that it can use.
CROWD = 64

#: How many of them may log in with a password: checking one is meant to take time, and they would queue up.
LOGINS = 4

#: How long an answer of the broker is waited for, in seconds. Long, because a busy machine must not make a FAIL.
PATIENCE = 10.0

#: No test may take longer than this and four times the patience, in seconds: then it is ended with ERROR.
TEST_SECONDS = 60.0

#: How often a broker that the runner has started may end by itself before the run is given up.
DEATHS = 10

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
        self._workers = workers or broker.jobs or JOBS
        self._strict = strict
        self._arguments = tuple(arguments)
        self._collect_only = collect_only
        self._on_begin = on_begin
        self._on_result = on_result
        self._found: dict[str, Capability] = {}
        self._job_of: dict[str, Job] = {}
        self._results: dict[str, TestResult] = {}
        self._remarks: list[str] = []
        self._running: dict[Trial, float] = {}
        self._rooms = threading.Semaphore(self._workers)
        self._in_a_room: set[Trial] = set()
        self._stopping = False
        self._logins = threading.Semaphore(LOGINS)
        self._lock = threading.Lock()
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
            self._enter()
        except TargetError as error:
            self.problem = str(error)
            pytest.exit(self.problem, returncode=2)
        self._run_all(session, ours)
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
            self._enter()
        except TargetError as error:
            pytest.exit(str(error), returncode=2)
        pyfuncitem.stash[_RESULT] = self._execute(job)
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
        plain = getattr(report, "conformance", None)
        if plain is not None:
            self._results[report.nodeid] = TestResult.from_plain(plain)
            self._on_result(self._results[report.nodeid])

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        if self._results:
            if self.broker.died and self._survives:
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

    def _enter(self) -> None:
        """Starts the broker, if it is to be started, and finds out what it can do. Once per session."""
        if self._found:
            return
        self._entered.enter_context(self.broker)
        self._found = capabilities.probe(self.broker, self._patience)

    def _run_all(self, session: pytest.Session, items: Sequence[pytest.Item]) -> None:
        self._on_begin(len(items))
        together = [item for item in items if not self._job_of[item.nodeid].alone]
        alone = [item for item in items if self._job_of[item.nodeid].alone]
        together.sort(key=lambda item: -self._job_of[item.nodeid].waits)
        with concurrent.futures.ThreadPoolExecutor(max(self._workers, CROWD), thread_name_prefix="test") as pool:
            try:
                suspects = self._run_together(session, pool, together)
                # Once more side by side, as the one that was to blame may be done; what is left then, one by one.
                for item in [*self._run_together(session, pool, suspects), *alone]:
                    self._run_by_itself(session, pool, item)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                with self._lock:
                    self._stopping = True
                self._abort(older_than=0.0)
                raise

    def _run_together(
        self, session: pytest.Session, pool: concurrent.futures.ThreadPoolExecutor, items: Sequence[pytest.Item]
    ) -> list[pytest.Item]:
        """Runs these tests. When the broker ends by itself, it is started anew for those that had not begun yet.
        Returns those that have no result, because it ended while they ran."""
        suspects: list[pytest.Item] = []
        while items:
            lost = self._run(session, pool, items)
            suspects += [item for item, began in lost if began]
            items = [item for item, began in lost if not began]
            if lost:
                names = ", ".join(self._job_of[item.nodeid].id for item, began in lost if began)
                self._begin_anew(f" while these tests ran: {names}" if names else "")
        return suspects

    def _run_by_itself(
        self, session: pytest.Session, pool: concurrent.futures.ThreadPoolExecutor, item: pytest.Item
    ) -> None:
        """Runs this test and no other. It fails if the broker ends twice: once may be due to what was before."""
        job = self._job_of[item.nodeid]
        for _ in range(2):
            if not self._run(session, pool, [item]):
                return
            died = self._begin_anew(f" while {job.id} ran alone")
        failure = Failure("the broker goes on running", died)
        verdict = (Verdict.FAIL, 0.0, str(failure), failure.expected, failure.actual)
        self._log(item, TestResult(job.id, job.title, job.statements, *verdict))

    def _begin_anew(self, when: str) -> str:
        """Starts a broker that has ended by itself once more, without what it has kept. What the report says of it."""
        self._remarks.append(self.broker.died + when)
        if self._survives:
            self.broker.begin_anew()
        return self._remarks[-1]

    def _run(
        self, session: pytest.Session, pool: concurrent.futures.ThreadPoolExecutor, items: Sequence[pytest.Item]
    ) -> list[tuple[pytest.Item, bool]]:
        """Runs these tests side by side. Returns those of which the broker's own end leaves no result, each with
        whether it had begun."""
        running = {pool.submit(self._execute_while_alive, self._job_of[item.nodeid]): item for item in items}
        lost: list[tuple[pytest.Item, bool]] = []
        while running:
            done, _ = concurrent.futures.wait(running, 0.25, concurrent.futures.FIRST_COMPLETED)
            self._abort(older_than=TEST_SECONDS + 4 * self._patience)
            self._make_room()
            if self.broker.died and self._survives:
                self._abort(older_than=0.0)
            for future in done:
                item, result = running.pop(future), future.result()
                if isinstance(result, bool):
                    lost.append((item, result))
                else:
                    self._log(item, result)
                if session.shouldfail:
                    raise session.Failed(session.shouldfail)
                if session.shouldstop:
                    raise session.Interrupted(session.shouldstop)
        return lost

    @property
    def _survives(self) -> bool:
        """Whether a broker that ends by itself is started once more."""
        return len(self._remarks) < DEATHS

    def _execute_while_alive(self, job: Job) -> TestResult | bool:
        """The result of one test; whether it had begun, if the broker has ended by itself and will begin anew."""
        if self.broker.died and self._survives:
            return False
        result = self._execute(job)
        return True if self._has_died() and self._survives else result

    def _has_died(self) -> bool:
        """Whether the broker that the runner started has ended by itself. One that is just ending shows it by serving
        nobody any more: that is asked where nothing else runs."""
        with self._lock:
            busy = bool(self._running)
        if not self.broker.private or busy:
            return bool(self.broker.died)
        probe = Trial(self.broker, self._found, self._patience)
        try:
            probe.connected("probe")
        except NoAnswer:
            return self.broker.has_died()
        finally:
            probe.clean_up()
        return False

    def _execute(self, job: Job) -> TestResult:
        with self._logins if "authenticated" in job.needs else contextlib.nullcontext():
            trial = Trial(self.broker, self._found, self._patience)
            result = self._try(job, trial)
            if trial.cut_off and not trial.aborted:
                # Some brokers end a connection for what other clients do, or because it comes too soon after another
                # one. If this is no such thing, it will happen again.
                again = Trial(self.broker, self._found, self._patience)
                again.note(f"the second attempt; of the first one came: {result.reason}")
                result = self._try(job, again)
            return result

    def _try(self, job: Job, trial: Trial) -> TestResult:
        self._rooms.acquire()
        with self._lock:
            self._running[trial] = time.monotonic()
            self._in_a_room.add(trial)
            if self._stopping:
                trial.abort()
        try:
            return execute(job, trial)
        finally:
            with self._lock:
                del self._running[trial]
            self._leave_room(trial)

    def _abort(self, older_than: float) -> None:
        for trial in self._older_than(older_than):
            trial.abort()

    def _make_room(self) -> None:
        for trial in self._older_than(SETTLED_SECONDS):
            self._leave_room(trial)

    def _leave_room(self, trial: Trial) -> None:
        with self._lock:
            if trial not in self._in_a_room:
                return
            self._in_a_room.remove(trial)
        self._rooms.release()

    def _older_than(self, seconds: float) -> list[Trial]:
        with self._lock:
            began_before = time.monotonic() - seconds
            return [trial for trial, began in self._running.items() if began < began_before]

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
        report.conformance = result.to_plain()  # type: ignore[attr-defined]

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
    return SUITE in item.path.parents
