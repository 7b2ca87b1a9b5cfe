"""What waits to be taken: the bytes in their order, large frames by reference, and how much of it counts."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from broker.net.unsent import LARGE, Backlog, Unsent, together

LIMIT = 1_000_000
SIZES = st.sampled_from([0, 1, 10, 500, LARGE - 1, LARGE, LARGE + 1, 3 * LARGE])


def frames(sizes: list[int]) -> list[bytes]:
    """Frames of these sizes, no two of them alike."""
    return [bytes((number * 7 + size) % 251 for _ in range(size)) for number, size in enumerate(sizes)]


@settings(deadline=None)
@given(st.lists(st.one_of(st.lists(SIZES, min_size=1, max_size=5), st.integers(0, 30_000)), max_size=20))
def test_what_is_taken_is_what_was_added(steps: list[list[int] | int]) -> None:
    unsent = Unsent(LIMIT, Backlog())
    added: list[bytes] = []
    taken = 0
    for step in steps:
        if isinstance(step, list):
            some = frames(step)
            unsent.add(some)
            added += some
        else:
            size = min(step, unsent.size)
            unsent.take(size)
            taken += size
        left = b"".join(added)[taken:]
        assert b"".join(unsent.first(1_000)) == left
        assert unsent.size == len(left)
        assert unsent.waiting == expected_waiting(added, taken)


def expected_waiting(added: list[bytes], taken: int) -> int:
    """All that is left, but for what is left of the first large frame that is not all gone."""
    end = 0
    total = sum(map(len, added)) - taken
    for frame in added:
        begin, end = end, end + len(frame)
        if len(frame) >= LARGE and end > taken:
            return total - (end - max(begin, taken))
    return total


def test_a_large_frame_is_the_same_object_for_all_who_wait_for_it() -> None:
    payload = b"x" * LARGE
    waiting = [Unsent(LIMIT, Backlog()) for _ in range(3)]
    for each in waiting:
        each.add([b"head", b"id", payload, b"tail"])
    assert [each.first(9)[1] is payload for each in waiting] == [True] * 3
    assert [list(map(bytes, each.first(9))) for each in waiting] == [[b"headid", payload, b"tail"]] * 3


def test_small_frames_are_copied_together() -> None:
    assert together([b"a"] * 1_000) == [b"a" * 1_000]
    assert together([b""]) == [b""]
    assert together([b"", b"x" * LARGE, b"", b"a", b"b"]) == [b"x" * LARGE, b"ab"]


def test_a_frame_of_a_low_limit_counts_as_a_large_one() -> None:
    unsent = Unsent(100, Backlog())
    unsent.add([b"x" * 100, b"y" * 99])
    assert (unsent.size, unsent.waiting) == (199, 99)


def test_all_that_waits_is_counted_as_it_is_held() -> None:
    """A large frame once, however many wait for it, and until the last byte of it is taken."""
    backlog = Backlog()
    first, second = (Unsent(LIMIT, backlog) for _ in range(2))
    large = b"x" * LARGE
    first.add([large, b"small"])
    second.add([large])
    assert (backlog.size, backlog.holders) == (LARGE + 5, 2)
    first.take(LARGE - 1)
    assert backlog.size == LARGE + 5
    first.take(3)
    assert backlog.size == LARGE + 5  # the second still has the large one, and of the small ones a part is left
    second.drop()
    assert backlog.size == 5
    first.take(3)
    first.drop()
    assert (backlog.size, backlog.holders) == (0, 0)


def test_from_half_of_the_limit_on_each_gets_an_equal_part() -> None:
    backlog = Backlog()
    backlog.limit = 1000
    waiting = [Unsent(LIMIT, backlog) for _ in range(4)]
    waiting[0].add([b"x" * 500])
    assert backlog.part == 1000
    waiting[1].add([b"x"])
    assert backlog.part == 250
