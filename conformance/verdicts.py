"""What can come out of a test, and what follows from it for a statement and for the broker.

Owns: the verdicts, their order, the exceptions by which a test reaches one, and the rule of certification.
Must not know: pytest, sockets, reports.
"""

from collections.abc import Iterable
from enum import StrEnum


class Verdict(StrEnum):
    """The verdicts, spelt as in reports."""

    PASS = "PASS"
    FAIL = "FAIL"  # a MUST is broken
    WARN = "WARN"  # a SHOULD is not followed, or the broker is allowed to do it but few do
    NOT_APPLICABLE = "NOT APPLICABLE"  # the broker lacks an optional capability
    INCONCLUSIVE = "INCONCLUSIVE"  # this could not be provoked here
    ERROR = "ERROR"  # the runner's own fault
    NOT_TESTED = "NOT TESTED"  # of a statement only: no test covers it


#: From worst to best: of a statement's tests, the worst one stands. A test that does not apply says nothing about
#: those that do, so it ranks below PASS.
SEVERITY = (
    Verdict.ERROR,
    Verdict.FAIL,
    Verdict.WARN,
    Verdict.INCONCLUSIVE,
    Verdict.PASS,
    Verdict.NOT_APPLICABLE,
    Verdict.NOT_TESTED,
)


class Failure(AssertionError):
    """A MUST is broken: what was expected, and what came. Ends the test with FAIL."""

    def __init__(self, expected: str, actual: str) -> None:
        super().__init__(f"expected {expected}; actually {actual}")
        self.expected = expected
        self.actual = actual


class NotApplicable(Exception):
    """The broker lacks an optional capability: which, and how that was seen. Ends the test with NOT APPLICABLE."""


class Inconclusive(Exception):
    """The situation that the test judges could not be provoked: why, and what the profile would need."""


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The verdict that stands for a statement, given those of its tests; NOT TESTED if there is none."""
    return min(verdicts, key=SEVERITY.index, default=Verdict.NOT_TESTED)


def shown(verdicts: Iterable[Verdict]) -> bool:
    """Whether at least one test saw the statement kept. A statement of which nothing could be judged is not shown."""
    return any(verdict in (Verdict.PASS, Verdict.WARN) for verdict in verdicts)
