"""That a run which differs from another is told."""

from tests.conformance.certify import Run, differences


def a_run(**verdicts: str) -> Run:
    return Run(0, 1.0, verdicts, {name: f"why {verdict}" for name, verdict in verdicts.items() if verdict != "PASS"})


def test_identical_runs() -> None:
    assert differences([a_run(a="PASS", b="FAIL"), a_run(a="PASS", b="FAIL")]) == []


def test_runs_that_differ() -> None:
    runs = [a_run(a="PASS", b="PASS"), a_run(a="PASS", b="FAIL"), a_run(a="PASS", b="PASS"), a_run(a="PASS")]
    assert differences(runs) == [
        "b",
        "    PASS in run 1, 3",
        "    FAIL in run 2: why FAIL",
        "    not run in run 4",
    ]
