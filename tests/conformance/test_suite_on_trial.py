"""The suite itself is on trial: it passes a broker that keeps MQTT 3.1.1, and finds each fault of one that does not.

Every fault is a broker of its own, and the tests of the statements that it breaks run against it. All of that is
mostly waiting, so many run side by side.
"""

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from conformance import capabilities
from conformance.capabilities import Capability
from conformance.job import Job, execute
from conformance.report.result import TestResult
from conformance.session import Session
from conformance.trial import Trial
from conformance.verdicts import Verdict, worst
from tests.conformance.faulty.broker import FaultyBroker
from tests.conformance.faulty.faults import FAULTS, ODDITIES

#: All of this in one process, or each would put every broker on trial: `pytest -n 2 --dist loadgroup`.
pytestmark = pytest.mark.xdist_group("suite on trial")

#: How long a test waits for the answer of a broker that may not give it, in seconds.
PATIENCE = 1.5

#: The same for an oddity: nothing stays away, and only the late will waits longer than half of this.
ODD_PATIENCE = 4.0

#: How long one waits for an answer that does come: so long that a busy machine changes nothing.
AMPLE_PATIENCE = 10.0

#: How many tests run at a time, against a few brokers: paho-mqtt cannot use more than 1024 file descriptors.
TESTS = 80

#: What stands for the broker without a fault.
RIGHT = "no fault"

#: What stands for the same, where every client must log in.
LOGIN = "no fault, with a login"

Outcomes = dict[str, list[Future[TestResult]]]


class OnTrial:
    """A broker that is there from the first of its tests to the last. A test that disturbs others gets its own."""

    def __init__(self, broker: FaultyBroker, tests: int, found: dict[str, Capability], patience: float) -> None:
        self._broker = broker
        self._found = found
        self._patience = patience
        self._left = tests
        self._entered = contextlib.ExitStack()
        self._lock = threading.Lock()

    def execute(self, job: Job) -> TestResult:
        if job.alone:
            with self._broker.again() as broker, broker.broker:
                return execute(job, Trial(broker.broker, self._found, self._patience))
        with self._lock:
            if not self._broker.broker.endpoints:
                self._entered.enter_context(self._broker)
                self._entered.enter_context(self._broker.broker)
        try:
            return execute(job, Trial(self._broker.broker, self._found, self._patience))
        finally:
            with self._lock:
                self._left -= 1
                if not self._left:
                    self._entered.close()


@pytest.fixture(scope="module")
def found() -> dict[str, Capability]:
    """What a broker without a fault can do."""
    with FaultyBroker() as broker, broker.broker:
        return capabilities.probe(broker.broker, AMPLE_PATIENCE)


@pytest.fixture(scope="module")
def outcomes(suite: Session, found: dict[str, Capability]) -> Iterator[Outcomes]:
    """For each fault, the results of the tests of those statements that it breaks; for `RIGHT`, of all tests."""
    with ThreadPoolExecutor(TESTS) as pool:

        def submit(jobs: list[Job], broker: FaultyBroker, patience: float) -> list[Future[TestResult]]:
            jobs.sort(key=lambda job: (-job.waits, job.alone))
            on_trial = OnTrial(broker, sum(not job.alone for job in jobs), found, patience)
            return [pool.submit(on_trial.execute, job) for job in jobs]

        submitted = {RIGHT: submit(list(suite.jobs), FaultyBroker(), AMPLE_PATIENCE)}
        submitted[LOGIN] = submit(list(suite.jobs), FaultyBroker(login=True), AMPLE_PATIENCE)
        for fault, broken in (FAULTS | ODDITIES).items():
            jobs = [job for job in suite.jobs if set(job.statements) & set(broken)]
            submitted[fault] = submit(jobs, FaultyBroker(fault), PATIENCE if fault in FAULTS else ODD_PATIENCE)
        yield submitted


def verdict_of(statement_id: str, results: list[TestResult]) -> Verdict:
    return worst(result.verdict for result in results if statement_id in result.statements)


def patiently(fault: str, results: list[TestResult], suite: Session, found: dict[str, Capability]) -> list[TestResult]:
    """The same results, but for those without a verdict: on a busy machine, what was to come before the fault may have
    come too late."""
    job_of = {job.id: job for job in suite.jobs}
    again = []
    for result in results:
        if result.verdict is Verdict.INCONCLUSIVE:
            with FaultyBroker(fault) as broker, broker.broker:
                result = execute(job_of[result.id], Trial(broker.broker, found, AMPLE_PATIENCE))
        again.append(result)
    return again


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_found(fault: str, outcomes: Outcomes, suite: Session, found: dict[str, Capability]) -> None:
    results = [future.result() for future in outcomes[fault]]
    verdicts = {statement_id: verdict_of(statement_id, results) for statement_id in FAULTS[fault]}
    if Verdict.INCONCLUSIVE in verdicts.values():
        results = patiently(fault, results, suite, found)
        verdicts = {statement_id: verdict_of(statement_id, results) for statement_id in FAULTS[fault]}
    assert verdicts == dict.fromkeys(FAULTS[fault], Verdict.FAIL), [
        (result.id, result.reason) for result in results if result.verdict is not Verdict.PASS
    ]


@pytest.mark.parametrize("oddity", ODDITIES)
def test_oddity_is_warned_of(oddity: str, outcomes: Outcomes) -> None:
    results = [future.result() for future in outcomes[oddity]]
    verdicts = {statement_id: verdict_of(statement_id, results) for statement_id in ODDITIES[oddity]}
    assert verdicts == dict.fromkeys(ODDITIES[oddity], Verdict.WARN), [
        (result.id, result.reason) for result in results if result.verdict is not Verdict.PASS
    ]


def test_every_test_can_fail(suite: Session, outcomes: Outcomes, found: dict[str, Capability]) -> None:
    bad = (Verdict.FAIL, Verdict.WARN)
    results = {fault: [future.result() for future in futures] for fault, futures in outcomes.items()}
    seen = {result.id for came in results.values() for result in came if result.verdict in bad}
    unseen = {job.id for job in suite.jobs} - seen
    for fault in FAULTS:
        undecided = [result for result in results[fault] if result.id in unseen]
        unseen -= {result.id for result in patiently(fault, undecided, suite, found) if result.verdict in bad}
    assert sorted(unseen) == []


def test_nothing_is_the_runners_fault(outcomes: Outcomes) -> None:
    results = [future.result() for futures in outcomes.values() for future in futures]
    assert [(result.id, result.actual) for result in results if result.verdict is Verdict.ERROR] == []


@pytest.mark.parametrize("right", [RIGHT, LOGIN])
def test_right_broker_passes(right: str, outcomes: Outcomes) -> None:
    results = [future.result() for future in outcomes[right]]
    assert [(result.id, result.reason) for result in results if result.verdict is not Verdict.PASS] == []
