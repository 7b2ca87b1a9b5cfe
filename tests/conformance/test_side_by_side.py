"""Second attempts, and how many tests run at a time. (A broker that ends by itself is in test_cli.py.)"""

import threading
from concurrent.futures import ThreadPoolExecutor, wait

from conformance import profiles
from conformance.job import Job
from conformance.raw import Closed, NoAnswer, Silence
from conformance.side_by_side import SideBySide
from conformance.target import parse_url, single
from conformance.trial import Trial
from conformance.verdicts import Failure, Inconclusive, Verdict


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
        result = SideBySide(broker, {}).execute(Job("test_x.py::test_y", "A title.", test, {}, ("MQTT-3.12.4-1",)))
    return result.verdict, len(outcomes) - len(left), result.notes


def test_connection_that_was_cut_off_gets_a_second_attempt() -> None:
    note = "the second attempt; of the first one came: a client: gone"
    assert attempts([Closed("a client: gone"), None]) == (Verdict.PASS, 2, (note,))
    assert attempts([Closed("a client: gone"), Failure("x", "y")]) == (Verdict.FAIL, 2, (note,))
    assert attempts([Closed("a client: gone"), Closed("a client: gone"), None]) == (Verdict.INCONCLUSIVE, 2, (note,))
    note = "the second attempt; of the first one came: expected x; actually y"
    assert attempts([failure_of(Closed("gone")), failure_of(Closed("gone"))]) == (Verdict.FAIL, 2, (note,))


def test_what_is_kept_only_at_the_second_attempt_is_warned_of() -> None:
    note = "the second attempt; of the first one came: expected x; actually y"
    assert attempts([failure_of(Closed("gone")), None]) == (Verdict.WARN, 2, (note,))


def test_what_was_broken_stays_so_if_the_second_attempt_comes_to_nothing() -> None:
    note = "there was a second attempt, which came to nothing: a client: refused"
    assert attempts([failure_of(Closed("gone")), NoAnswer("a client: refused")]) == (Verdict.FAIL, 2, (note,))


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
        runner = SideBySide(broker, {}, workers=1)
        job = Job("test_x.py::test_y", "A title.", crowd.test, {}, ("MQTT-3.12.4-1",))
        running = [pool.submit(runner.execute, job) for _ in range(4)]
        while not all(future.done() for future in running):
            wait(running, 0.05)
            runner.make_room()
    assert [future.result().verdict for future in running] == [Verdict.PASS] * 4


def test_profile_says_how_many_run_at_a_time() -> None:
    broker = profiles.parse("jobs = 3", "x.toml")
    assert SideBySide(broker, {}).workers == 3
    assert SideBySide(broker, {}, workers=5).workers == 5
