"""What several subscriptions of one session come to for a topic that all of them match."""

from __future__ import annotations

import itertools

import pytest

from broker.core.subscription import NO_LOCAL, QOS, RETAIN_AS_PUBLISHED, together

ALL = [qos | more for qos in (0, 1, 2) for more in (0, NO_LOCAL, RETAIN_AS_PUBLISHED, NO_LOCAL | RETAIN_AS_PUBLISHED)]


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (0, 2, 2),
        (1, 1, 1),
        (1 | NO_LOCAL, 0, 1),  # it has asked for its own messages, too
        (1 | NO_LOCAL, 2 | NO_LOCAL, 2 | NO_LOCAL),
        (0 | RETAIN_AS_PUBLISHED, 1, 1 | RETAIN_AS_PUBLISHED),
        (0 | RETAIN_AS_PUBLISHED, 1 | NO_LOCAL, 1 | RETAIN_AS_PUBLISHED),
    ],
)
def test_nothing_is_withheld_that_one_of_them_alone_would_give(one: int, other: int, expected: int) -> None:
    assert (together(one, other), together(other, one)) == (expected, expected)


def test_their_order_and_number_mean_nothing() -> None:
    for one, other, third in itertools.product(ALL, repeat=3):
        assert together(one, one) == one
        assert together(together(one, other), third) == together(one, together(other, third))
        assert together(one, other) & QOS == max(one & QOS, other & QOS)
