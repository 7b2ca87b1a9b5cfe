"""How one test is executed, what a test of the suite must look like, and what --select means."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest

from conformance import expect, profiles, statements
from conformance.capabilities import CAPABILITIES, Capability
from conformance.raw import Closed, NoAnswer, Silence
from conformance.session import Job, Session, SuiteError, execute, selects
from conformance.target import parse_url, single
from conformance.trial import Trial
from conformance.verdicts import Failure, Inconclusive, NotApplicable, Verdict


def executed(function: Callable[..., None], **fields: object) -> tuple[Verdict, str]:
    """The verdict and the reason of a test without a broker."""
    values: dict[str, object] = {"arguments": {}, "statements": ("MQTT-3.12.4-1",), **fields}
    job = Job("test_x.py::test_y", "A title.", function, **values)  # type: ignore[arg-type]
    with single(parse_url("host")) as broker:
        found = dict.fromkeys(CAPABILITIES, Capability(False, "assumed"))
        result = execute(job, Trial(broker, found, 1.0))
    return result.verdict, result.reason


def passes(trial: Trial) -> None:
    trial.note("measured")


def fails(trial: Trial) -> None:
    expect.equal(1, 2, "the number")


def asserts(trial: Trial) -> None:
    number = 1
    assert number == 2


def warns(trial: Trial) -> None:
    trial.warn("odd")
    trial.warn("very odd")


def warns_and_fails(trial: Trial) -> None:
    trial.warn("odd")
    expect.equal(1, 2, "the number")


def does_not_apply(trial: Trial) -> None:
    raise NotApplicable("no such thing")


def cannot_tell(trial: Trial) -> None:
    raise Inconclusive("no such endpoint")


def breaks(trial: Trial) -> None:
    raise ZeroDivisionError("ours")


def is_aborted(trial: Trial) -> None:
    trial.abort()


EXECUTED = {
    passes: (Verdict.PASS, ""),
    fails: (Verdict.FAIL, "expected the number: 2; actually 1"),
    warns: (Verdict.WARN, "odd; very odd"),
    warns_and_fails: (Verdict.FAIL, "expected the number: 2; actually 1"),
    does_not_apply: (Verdict.NOT_APPLICABLE, "no such thing"),
    cannot_tell: (Verdict.INCONCLUSIVE, "no such endpoint"),
    breaks: (Verdict.ERROR, "the runner failed: ZeroDivisionError('ours')"),
    is_aborted: (Verdict.ERROR, "the test was ended after 0 s"),
}


@pytest.mark.parametrize(("function", "expected"), EXECUTED.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_execute(function: Callable[..., None], expected: tuple[Verdict, str]) -> None:
    assert executed(function) == expected


def test_assertion_of_a_test_accuses() -> None:
    verdict, reason = executed(asserts)
    assert verdict is Verdict.FAIL
    assert reason.startswith("the test's assertion does not hold:")


def test_assertion_of_the_runner_does_not_accuse() -> None:
    def test(trial: Trial) -> None:
        exec(compile("assert False, 'ours'", "/elsewhere/raw.py", "exec"))

    assert executed(test) == (Verdict.ERROR, "the runner failed: AssertionError('ours')")


def test_what_is_needed_is_checked_first() -> None:
    assert executed(breaks, needs=("qos-2",)) == (Verdict.NOT_APPLICABLE, "the broker lacks qos-2: assumed")
    assert executed(breaks, needs=("restart",))[0] is Verdict.INCONCLUSIVE


HEAD = """
import pytest
from conformance.marks import alone, needs, verifies, waits
"""

BAD_TESTS = {
    "no statement": ('def test_x(trial):\n    "Doc."', "names no statement: mark it with @verifies(...)"),
    "unknown statement": (
        '@verifies("MQTT-3.12.4-2")\ndef test_x(trial):\n    "Doc."',
        "no statement 'MQTT-3.12.4-2' in MQTT 3.1.1; did you mean ",
    ),
    "fixture": (
        '@verifies("MQTT-3.12.4-1")\ndef test_x(trial, tmp_path):\n    "Doc."',
        "must take `trial` and its parameters, and no fixtures",
    ),
    "no trial": (
        '@verifies("MQTT-3.12.4-1")\ndef test_x():\n    "Doc."',
        "must take `trial` and its parameters, and no fixtures",
    ),
    "unknown need": (
        '@needs("qos-3")\n@verifies("MQTT-3.12.4-1")\ndef test_x(trial):\n    "Doc."',
        "@needs('qos-3'): there are",
    ),
    "no docstring": ('@verifies("MQTT-3.12.4-1")\ndef test_x(trial):\n    pass', "has no docstring"),
}


class Collector:
    def __init__(self) -> None:
        self.items: list[pytest.Function] = []

    def pytest_collection_modifyitems(self, items: list[pytest.Function]) -> None:
        self.items += items


def collected(file: Path) -> list[pytest.Function]:
    collector = Collector()
    arguments = ["--collect-only", "-p", "no:terminal", "-p", "no:cacheprovider", "-c", "/dev/null", str(file)]
    assert pytest.main(arguments, plugins=[collector]) == 0
    return collector.items


@pytest.mark.parametrize(("text", "expected"), BAD_TESTS.values(), ids=BAD_TESTS)
def test_test_that_is_not_as_it_must_be(text: str, expected: str, tmp_path: Path) -> None:
    file = tmp_path / f"test_bad_{abs(hash(text))}.py"
    file.write_text(HEAD + text)
    (item,) = collected(file)
    with pytest.raises(SuiteError) as caught:
        Job.of(item, statements.load())
    assert str(caught.value).startswith(f"{file.name}::test_x: {expected}")


GOOD_TEST = '''
@alone
@waits(3)
@needs("qos-1")
@verifies("MQTT-3.12.4-1", "3.2.1/length")
@pytest.mark.parametrize("a", [pytest.param(1, marks=needs("qos-2"), id="one")])
def test_x(trial, a):
    """The first line.

    Another.
    """
'''


def test_test_becomes_a_job(tmp_path: Path) -> None:
    file = tmp_path / "test_good.py"
    file.write_text(HEAD + GOOD_TEST)
    (item,) = collected(file)
    assert Job.of(item, statements.load()) == Job(
        id="test_good.py::test_x[one]",
        title="The first line.",
        function=item.function,
        arguments={"a": 1},
        statements=("MQTT-3.12.4-1", "3.2.1/length"),
        needs=("qos-1", "qos-2"),
        waits=3,
        alone=True,
    )


def failure_of(error: Exception) -> Failure:
    """What `expect` makes of an answer that does not come."""
    try:
        try:
            raise error
        except NoAnswer:
            raise Failure("x", "y") from None
    except Failure as failure:
        return failure


def attempts(outcomes: list[Exception | None]) -> tuple[Verdict, int, tuple[str, ...]]:
    """The verdict of a test with these outcomes, how often it was tried, and its notes."""
    left = list(outcomes)

    def test(trial: Trial) -> None:
        outcome = left.pop(0)
        if outcome is not None:
            raise outcome

    with single(parse_url("host")) as broker:
        session = Session(broker)
        result = session._execute(Job("test_x.py::test_y", "A title.", test, {}, ("MQTT-3.12.4-1",)))
    return result.verdict, len(outcomes) - len(left), result.notes


def test_connection_that_was_cut_off_gets_a_second_attempt() -> None:
    note = "the second attempt; of the first one came: a client: gone"
    assert attempts([Closed("a client: gone"), None]) == (Verdict.PASS, 2, (note,))
    assert attempts([Closed("a client: gone"), Failure("x", "y")]) == (Verdict.FAIL, 2, (note,))
    assert attempts([Closed("a client: gone"), Closed("a client: gone"), None]) == (Verdict.INCONCLUSIVE, 2, (note,))
    note = "the second attempt; of the first one came: expected x; actually y"
    assert attempts([failure_of(Closed("gone")), None]) == (Verdict.PASS, 2, (note,))
    assert attempts([failure_of(Closed("gone")), failure_of(Closed("gone"))]) == (Verdict.FAIL, 2, (note,))


def test_nothing_else_gets_a_second_attempt() -> None:
    assert attempts([Failure("x", "y"), None]) == (Verdict.FAIL, 1, ())
    assert attempts([failure_of(Silence("nothing")), None]) == (Verdict.FAIL, 1, ())
    assert attempts([Silence("a client: nothing"), None]) == (Verdict.INCONCLUSIVE, 1, ())


class Crowd:
    """Tests that wait for each other, and so end only if they run at the same time."""

    def __init__(self, size: int) -> None:
        self.barrier = threading.Barrier(size, timeout=10.0)

    def test(self, trial: Trial) -> None:
        try:
            self.barrier.wait()
        except threading.BrokenBarrierError:
            raise Inconclusive("the others have not begun") from None


def test_waiting_tests_make_room() -> None:
    crowd = Crowd(4)
    with single(parse_url("host")) as broker, ThreadPoolExecutor(4) as pool:
        session = Session(broker, workers=1)
        job = Job("test_x.py::test_y", "A title.", crowd.test, {}, ("MQTT-3.12.4-1",))
        running = [pool.submit(session._execute, job) for _ in range(4)]
        while not all(future.done() for future in running):
            wait(running, 0.05)
            session._make_room()
    assert [future.result().verdict for future in running] == [Verdict.PASS] * 4


def test_profile_says_how_many_run_at_a_time() -> None:
    broker = profiles.parse("jobs = 3", "x.toml")
    assert Session(broker)._workers == 3
    assert Session(broker, workers=5)._workers == 5


JOB = Job("test_3_10_unsubscribe.py::test_ack[one]", "", passes, {}, ("MQTT-3.10.4-4", "MQTT-3.1.2-8"))

SELECTED = {
    "3.10": True,
    "3.1": True,
    "3.1.2": True,
    "3.1.2.5": True,
    "3.1.2.4": False,
    "3": True,
    "3.": True,
    "4": False,
    "MQTT-3.10.4-4": True,
    "3.10.4-4": True,
    "[MQTT-3.1.2-8]": True,
    "MQTT-3.10.4-5": False,
    "unsubscribe": True,
    "test_ack[one]": True,
    "test_ack[two]": False,
}


@pytest.mark.parametrize(("text", "expected"), SELECTED.items())
def test_select(text: str, expected: bool) -> None:
    assert selects(text, JOB, statements.load()) == expected


def test_titles_say_what_a_broker_must_do(suite: Session) -> None:
    assert [job.id for job in suite.jobs if not job.title.endswith(".")] == []
    assert [job.id for job in suite.jobs if len(job.title) > 120] == []


def test_ids_are_unique(suite: Session) -> None:
    ids = [job.id for job in suite.jobs]
    assert len(set(ids)) == len(ids) > 300
