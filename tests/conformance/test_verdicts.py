"""The order of verdicts, and the rule of certification."""

import pytest

from conformance import statements
from conformance.report.result import RunResult, TestResult, judge
from conformance.transcript import Event
from conformance.verdicts import Verdict, shown, worst

PASS, FAIL, WARN, ERROR = Verdict.PASS, Verdict.FAIL, Verdict.WARN, Verdict.ERROR
INCONCLUSIVE, NOT_APPLICABLE, NOT_TESTED = Verdict.INCONCLUSIVE, Verdict.NOT_APPLICABLE, Verdict.NOT_TESTED


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ([], NOT_TESTED),
        ([PASS, PASS], PASS),
        ([PASS, NOT_APPLICABLE], PASS),
        ([NOT_APPLICABLE], NOT_APPLICABLE),
        ([PASS, INCONCLUSIVE], INCONCLUSIVE),
        ([INCONCLUSIVE, WARN, PASS], WARN),
        ([WARN, FAIL, PASS], FAIL),
        ([FAIL, ERROR], ERROR),
    ],
)
def test_worst_stands(verdicts: list[Verdict], expected: Verdict) -> None:
    assert worst(verdicts) == expected


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [([], False), ([INCONCLUSIVE], False), ([NOT_APPLICABLE], False), ([PASS, FAIL], True), ([WARN], True)],
)
def test_shown(verdicts: list[Verdict], expected: bool) -> None:
    assert shown(verdicts) == expected


SERVER, CONFIG, UNOBSERVABLE, SHOULD = "MQTT-3.12.4-1", "MQTT-6.0.0-4", "MQTT-3.1.2-23", "3.2.2.3/refusal-code"


def outcome(statement_id: str, verdict: Verdict) -> TestResult:
    return TestResult(f"test_x.py::test_{verdict.lower()}", "A title.", (statement_id,), verdict, 0.5, "a reason")


def run(*tests: TestResult, selection: str = "", strict: bool = False, problems: tuple[str, ...] = ()) -> RunResult:
    """A run of these tests, on a catalogue of nothing but the statements above."""
    catalogue = statements.load()
    wanted = [statement for statement in catalogue if statement.id in (SERVER, CONFIG, UNOBSERVABLE, SHOULD)]
    judged = judge(statements.Catalogue("3.1.1", wanted), tests)
    return RunResult("x", "3.1.1", "", 1.0, tests, judged, selection, strict, problems=problems)


def certified(server: list[Verdict], config: Verdict = PASS, should: Verdict = PASS) -> bool:
    tests = [outcome(SERVER, verdict) for verdict in server]
    return run(*tests, outcome(CONFIG, config), outcome(SHOULD, should)).certified


@pytest.mark.parametrize(
    ("server", "expected"),
    [
        ([PASS], True),
        ([PASS, WARN], True),
        ([PASS, INCONCLUSIVE], True),
        ([PASS, NOT_APPLICABLE], True),
        ([NOT_APPLICABLE], True),
        ([INCONCLUSIVE], False),
        ([PASS, FAIL], False),
        ([PASS, ERROR], False),
        ([], False),
    ],
)
def test_certificate_takes_every_must(server: list[Verdict], expected: bool) -> None:
    assert certified(server) == expected


@pytest.mark.parametrize(("config", "expected"), [(INCONCLUSIVE, True), (FAIL, False), (ERROR, False)])
def test_certificate_may_leave_open_what_takes_a_profile(config: Verdict, expected: bool) -> None:
    assert certified([PASS], config=config) == expected


@pytest.mark.parametrize(("should", "expected"), [(WARN, True), (INCONCLUSIVE, True), (ERROR, False)])
def test_certificate_may_leave_open_what_should_be(should: Verdict, expected: bool) -> None:
    assert certified([PASS], should=should) == expected


ALL_PASS = (outcome(SERVER, PASS), outcome(CONFIG, PASS), outcome(SHOULD, WARN))


def test_strict_takes_warnings_for_failures() -> None:
    assert run(*ALL_PASS).passed
    assert not run(*ALL_PASS, strict=True).passed


def test_part_of_the_suite_is_no_certificate() -> None:
    part = run(*ALL_PASS, selection="3.1")
    assert (part.passed, part.certified) == (True, False)


def test_trouble_with_the_run_is_no_certificate() -> None:
    assert not run(*ALL_PASS, problems=("the broker ended by itself",)).passed


def test_nothing_run_is_no_certificate() -> None:
    assert not run().passed


def test_obstacles_are_named() -> None:
    result = run(outcome(SERVER, FAIL), outcome(CONFIG, INCONCLUSIVE))
    assert [(one.statement.id, one.verdict, one.reason) for one in result.obstacles] == [(SERVER, FAIL, "a reason")]


def test_reason_of_a_statement_without_a_test() -> None:
    reasons = {one.statement.id: one.reason for one in run().statements}
    assert reasons[SERVER] == "the suite has no test for it yet"
    assert reasons[UNOBSERVABLE] == "it binds the client: nothing that a broker does shows whether it is kept"


def test_deviation_stands_beside_the_verdict() -> None:
    (judged,) = judge(statements.load(), [outcome(SERVER, FAIL)], deviations={SERVER: "known"}, only_tested=True)
    assert (judged.verdict, judged.deviation) == (FAIL, "known")


def test_rerun_is_a_command_for_a_shell() -> None:
    test = TestResult("test_x.py::test_y[a b]", "", (SERVER,), PASS, 0.0)
    result = RunResult("x", "3.1.1", "", 1.0, (test,), (), arguments=("mqtt://host:1", "--profile", "x.toml"))
    assert result.rerun(test) == (
        "python3 -m conformance mqtt://host:1 --profile x.toml --select 'test_x.py::test_y[a b]'"
    )


def test_result_passes_through_plain_values() -> None:
    event = Event(0.5, "client", "->", "PINGREQ", "c0 00", 2)
    result = TestResult("id", "title", (SERVER,), FAIL, 0.5, "reason", "expected", "actual", ("note",), (event,))
    assert TestResult.from_plain(result.to_plain()) == result
