"""Whose password is checked next: nobody keeps a whole broker from letting others in.

Owns: who waits for a check, by the address they come from. Must not know: passwords, connections, threads.

A check costs a worker thread a tenth of a second or more, and whoever reaches the broker can ask for one. So addresses
take turns, and each has half of the threads at the most. Who asks the same as another shares that one's check: a
thousand devices with one password cost one check. Who leaves is asked for no more.

Honest clients wait, however many there are behind one address. What is limited is the memory that they hold: an address
may hold as much as is still free for all others, which is half of it if it is alone. More are told to come back later.

Nothing is made slower by failures: who shares an address with a guesser would pay for that, and what a guess costs is
decided by the number of iterations in the password file.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from typing import Any

from ..addresses import origin_of

Job = Callable[[], Any]
Done = Callable[[Any, Exception | None], None]

#: Bytes that all who wait may hold together.
MEMORY = 64 << 20
#: What each holds besides what it says: its connection.
OVERHEAD = 4096
#: Answers given in one turn. Each lets a client in, which takes a part of a millisecond.
ANSWERS = 32


class Question:
    """One client's question. `cancel`: it does not want to know any more."""

    __slots__ = ("_checks", "check", "done", "origin", "size")

    def __init__(self, checks: Checks, origin: str, done: Done, size: int) -> None:
        self._checks = checks
        self.origin = origin
        self.done: Done | None = done  #: None: it is over
        self.size = size
        self.check: _Check | None = None

    def cancel(self) -> None:
        if self.done is not None:
            self.done = None
            self._checks.forget(self)


class _Check:
    """What is computed once for all who ask it."""

    __slots__ = ("job", "key", "origin", "questions")

    def __init__(self, origin: str, key: Hashable, job: Job) -> None:
        self.origin = origin
        self.key = key
        self.job = job
        self.questions: dict[Question, None] = {}  # in their order

    def add(self, question: Question) -> None:
        question.check = self
        self.questions[question] = None


class Checks:
    """Lets checks run elsewhere, a few at a time. For the loop's thread."""

    def __init__(
        self,
        submit: Callable[[Job, Done], None],
        at_once: int,
        soon: Callable[[Callable[[], None]], None],
        memory: int = MEMORY,
    ) -> None:
        """`submit` runs a job elsewhere and calls back with its result or its exception; `at_once` of them run.
        `soon` calls in the next turn."""
        self._submit = submit
        self._at_once = at_once
        self._share = max(1, at_once // 2)
        self._soon = soon
        self._free = memory
        self._held: dict[str, int] = {}  # bytes by origin; none is 0
        # By origin, in the order of their turns, and by what is asked; no queue is empty.
        self._waiting: dict[str, dict[Hashable, _Check]] = {}
        self._running: dict[Hashable, _Check] = {}
        self._threads: dict[str, int] = {}  # that work for an origin; none is 0
        self._answers: deque[tuple[Question, Any, Exception | None]] = deque()
        self._answering = False  # is the next turn to give more of them?

    def submit(self, key: Hashable, job: Job, done: Done, peer: str, size: int = 0) -> Question | None:
        """Run `job` when it is the turn of who asks for it, `peer` (its address and port), and call `done`.

        Jobs with the same key have the same result. `size`: bytes that are held meanwhile. None: too much is held.
        """
        origin = origin_of(peer)
        size += OVERHEAD
        held = self._held.get(origin, 0)
        if held + size > self._free - size:
            return None
        self._free -= size
        self._held[origin] = held + size
        question = Question(self, origin, done, size)
        running = self._running.get(key)
        if running is not None:
            running.add(question)
            return question
        queue = self._waiting.setdefault(origin, {})
        if key not in queue:
            queue[key] = _Check(origin, key, job)
        queue[key].add(question)
        self._start()
        return question

    def forget(self, question: Question) -> None:
        """It was cancelled: if it was the last to ask this, nobody computes it."""
        self._release(question)
        check = question.check
        if check is None:
            return  # its answer is there, and will not be given
        check.questions.pop(question)
        queue = self._waiting.get(check.origin)
        if not check.questions and queue is not None and queue.get(check.key) is check:
            del queue[check.key]
            if not queue:
                del self._waiting[check.origin]

    def _release(self, question: Question) -> None:
        self._free += question.size
        self._held[question.origin] -= question.size
        if not self._held[question.origin]:
            del self._held[question.origin]

    def _start(self) -> None:
        """Run what may run now."""
        while len(self._running) < self._at_once:
            origin = next((one for one in self._waiting if self._threads.get(one, 0) < self._share), None)
            if origin is None:
                return
            queue = self._waiting.pop(origin)
            check = queue.pop(next(iter(queue)))
            if queue:
                self._waiting[origin] = queue  # behind all others
            same = self._running.get(check.key)
            if same is None:
                self._run(check)
            else:  # another place has asked it first
                for question in check.questions:
                    same.add(question)

    def _run(self, check: _Check) -> None:
        origin = check.origin
        self._running[check.key] = check
        self._threads[origin] = self._threads.get(origin, 0) + 1

        def finished(result: Any, error: Exception | None) -> None:
            del self._running[check.key]
            self._threads[origin] -= 1
            if not self._threads[origin]:
                del self._threads[origin]
            for question in check.questions:
                question.check = None
                self._answers.append((question, result, error))
            self._start()
            if not self._answering:
                self._answer()

        self._submit(check.job, finished)

    def _answer(self) -> None:
        answers = self._answers
        self._answering = False
        try:
            for _ in range(min(ANSWERS, len(answers))):
                question, result, error = answers.popleft()
                done, question.done = question.done, None
                if done is not None:
                    self._release(question)
                    done(result, error)
        finally:
            if answers:
                self._answering = True
                self._soon(self._answer)
