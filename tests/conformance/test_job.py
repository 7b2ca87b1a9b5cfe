"""How one test is executed, what a test of the suite must look like, and what --select means."""

from collections.abc import Callable
from pathlib import Path

import pytest

from conformance import expect, statements
from conformance.capabilities import CAPABILITIES, Capability
from conformance.job import Job, SuiteError, execute, selects
from conformance.target import parse_url, single
from conformance.trial import Trial
from conformance.verdicts import Inconclusive, NotApplicable, Verdict


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
