"""Workers: the order of a lane, who gets results and exceptions, the end."""

from __future__ import annotations

import sys
import threading

import pytest

from broker.net.workers import Workers
from tests.net.running_loop import DEADLINE, RunningLoop

Results = list[tuple[object, Exception | None]]


class Notes:
    """What `done` was called with, and on which thread."""

    def __init__(self, expected: int) -> None:
        self.results: Results = []
        self.threads: set[int] = set()
        self._expected = expected
        self._complete = threading.Event()

    def __call__(self, result: object, error: Exception | None) -> None:
        self.results.append((result, error))
        self.threads.add(threading.get_ident())
        if len(self.results) == self._expected:
            self._complete.set()

    def wait(self) -> Results:
        assert self._complete.wait(DEADLINE), self.results
        return self.results


def test_the_result_comes_back_on_the_loops_thread(running: RunningLoop) -> None:
    workers = Workers(running.loop, 2, "test")
    notes = Notes(1)
    workers.submit(lambda: threading.current_thread().name, notes)
    ((name, error),) = notes.wait()
    assert str(name).startswith("test")
    assert error is None
    assert notes.threads == {running.thread.ident}
    workers.close()


def test_an_exception_comes_back_in_place_of_a_result(running: RunningLoop) -> None:
    workers = Workers(running.loop, 1, "test")
    notes = Notes(2)
    problem = ValueError("of the job")

    def fail() -> object:
        raise problem

    workers.submit(fail, notes)
    workers.submit(lambda: "the next job", notes)
    assert notes.wait() == [(None, problem), ("the next job", None)]
    workers.close()


def test_a_lane_runs_jobs_one_after_the_other_in_order(running: RunningLoop) -> None:
    lane = Workers(running.loop, 1, "lane")
    notes = Notes(200)
    at_work: list[int] = []
    overlaps: list[int] = []

    def job(i: int) -> int:
        at_work.append(i)
        if len(at_work) > 1:
            overlaps.append(i)
        at_work.remove(i)
        return i

    for i in range(200):
        lane.submit(lambda i=i: job(i), notes)  # type: ignore[misc]
    assert notes.wait() == [(i, None) for i in range(200)]
    assert overlaps == []
    lane.close()


def test_as_many_jobs_as_there_are_threads_run_at_the_same_time(running: RunningLoop) -> None:
    workers = Workers(running.loop, 4, "test")
    notes = Notes(4)
    together = threading.Barrier(4)
    for _ in range(4):
        workers.submit(lambda: together.wait(DEADLINE) >= 0, notes)
    assert notes.wait() == [(True, None)] * 4
    workers.close()


def test_an_exception_of_the_callback_is_the_loops_and_ends_nothing(running: RunningLoop) -> None:
    workers = Workers(running.loop, 1, "test")
    problem = ValueError("of the callback")

    def fail(result: object, error: Exception | None) -> None:
        raise problem

    notes = Notes(1)
    workers.submit(lambda: 1, fail)
    workers.submit(lambda: 2, notes)
    assert notes.wait() == [(2, None)]
    assert running.failures == [problem]
    running.failures.clear()
    workers.close()


def test_no_thread_is_started_before_there_is_a_job(running: RunningLoop) -> None:
    before = threading.active_count()
    workers = Workers(running.loop, 8, "test")
    assert threading.active_count() == before
    workers.close()


def test_close_finishes_what_was_submitted_and_ends_the_threads(running: RunningLoop) -> None:
    before = threading.active_count()
    workers = Workers(running.loop, 2, "test")
    notes = Notes(50)
    for i in range(50):
        workers.submit(lambda i=i: i, notes)  # type: ignore[misc]
    workers.close()
    assert threading.active_count() == before
    assert sorted(result for result, _ in notes.wait() if isinstance(result, int)) == list(range(50))


def test_a_job_that_wants_to_end_its_thread_ends_nothing(running: RunningLoop) -> None:
    lane = Workers(running.loop, 1, "lane")
    notes = Notes(2)
    lane.submit(sys.exit, notes)
    lane.submit(lambda: "the next job", notes)
    (_, error), following = notes.wait()
    assert repr(error) == "RuntimeError('a job ended by SystemExit()')"
    assert following == ("the next job", None)
    lane.close()


def test_without_a_thread_a_job_fails_and_with_one_it_waits(
    running: RunningLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with_one = Workers(running.loop, 2, "test")
    with_one.start()
    without = Workers(running.loop, 2, "test")
    monkeypatch.setattr(threading.Thread, "start", fail)
    notes = Notes(3)
    without.submit(lambda: 0, notes)
    for i in (1, 2):
        with_one.submit(lambda i=i: i, notes)  # type: ignore[misc]
    results = notes.wait()
    assert sorted(str(result) for result, _ in results) == ["1", "2", "None"]
    assert [str(error) for _, error in results if error is not None] == ["can't start new thread"]
    with_one.close()
    without.close()


def test_a_result_after_the_loop_has_ended_is_nobodys(running: RunningLoop) -> None:
    workers = Workers(running.loop, 1, "test")
    go = threading.Event()
    notes = Notes(1)
    workers.submit(lambda: go.wait(DEADLINE), notes)
    running.stop()
    go.set()
    workers.close()
    assert notes.results == []
