"""A reload: what is read elsewhere, how often, and that nobody waits for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from broker.reload import Reload


class Program:
    """Whatever is reloaded: `read` numbers what it reads, and is run when the test says so."""

    def __init__(self, steps: int = 1) -> None:
        self.steps = steps
        self.jobs: list[tuple[Callable[[], int], Callable[[int, Exception | None], None]]] = []
        self.calls: list[Callable[[], None]] = []
        self.reads = 0
        self.taken: list[int] = []
        self.failures: list[Exception] = []
        self.fault: Exception | None = None
        self.reload = Reload[int](
            lambda job, done: self.jobs.append((job, done)),
            self.read,
            self.take,
            self.failures.append,
            self.calls.append,
        )

    def read(self) -> int:
        self.reads += 1
        if self.fault is not None:
            raise self.fault
        return self.reads

    def take(self, read: int) -> Iterator[None]:
        for _ in range(self.steps - 1):
            yield
        self.taken.append(read)

    def work(self) -> None:
        """A worker has time."""
        job, done = self.jobs.pop(0)
        try:
            result = job()
        except Exception as error:
            done(0, error)
        else:
            done(result, None)

    def turn(self) -> None:
        calls, self.calls[:] = list(self.calls), []
        for call in calls:
            call()


def test_nothing_is_read_on_the_loop_s_thread() -> None:
    program = Program()
    program.reload.request()
    assert program.reads == 0
    program.work()
    assert program.taken == [1]


def test_what_is_asked_for_meanwhile_becomes_one_more() -> None:
    program = Program()
    for _ in range(300):
        program.reload.request()
    program.work()
    assert (program.taken, len(program.jobs)) == ([1], 1)
    program.work()
    assert (program.taken, program.jobs) == ([1, 2], [])


def test_taking_over_is_spread_over_turns() -> None:
    program = Program(steps=3)
    program.reload.request()
    program.work()
    assert program.taken == []
    program.reload.request()
    program.turn()
    assert (program.taken, program.jobs) == ([], [])
    program.turn()
    assert (program.taken, len(program.jobs)) == ([1], 1)


def test_a_reload_that_fails_is_told_and_the_next_one_works() -> None:
    program = Program()
    program.fault = ValueError("line 3")
    program.reload.request()
    program.work()
    assert [str(error) for error in program.failures] == ["line 3"]
    program.fault = None
    program.reload.request()
    program.work()
    assert program.taken == [2]
