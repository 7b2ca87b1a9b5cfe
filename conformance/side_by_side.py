"""Many tests at a time against one broker, and what becomes of them when that broker ends by itself.

Owns: `SideBySide`: how many run, how long each may take, second attempts, starting a dead broker anew and finding the
test that kills it. Must not know: pytest, command lines, how a result is shown.

The tests mostly wait for the broker, so many of them fit onto one core. Tests marked `alone` run at the end, one after
the other.
"""

import concurrent.futures
import contextlib
import dataclasses
import queue
import threading
import time
from collections.abc import Callable, Sequence

from .capabilities import Capability
from .job import Job, execute
from .raw import NoAnswer
from .report.result import TestResult
from .target import Broker
from .trial import Trial
from .verdicts import Failure, Verdict

#: How many tests run at a time, unless the arguments or the profile say something else.
JOBS = 32

#: A test that is still running after so many seconds mostly waits for what does not come: another begins beside it.
SETTLED_SECONDS = 0.5

#: So many may be running then, all in all: more, and paho-mqtt might need more than the 1024 sockets that it can use.
CROWD = 64

#: How many of them may log in with a password: checking one is meant to take time, and they would queue up.
LOGINS = 4

#: How long an answer of the broker is waited for, in seconds. Long, because a busy machine must not make a FAIL.
PATIENCE = 10.0

#: No test may take longer than this and four times the patience, in seconds: then it is ended with ERROR.
TEST_SECONDS = 60.0

#: How often a broker that the runner has started may end by itself before the run is given up.
DEATHS = 10


class SideBySide:
    """Executes tests against a broker that is there. `remarks` holds what was odd about the broker meanwhile."""

    def __init__(
        self, broker: Broker, found: dict[str, Capability], *, patience: float = PATIENCE, workers: int | None = None
    ) -> None:
        """
        found: what the broker can do
        workers: how many tests run at a time, else what the broker's profile says, else `JOBS`
        """
        self.workers = workers or broker.jobs or JOBS
        self.remarks: list[str] = []
        self._broker = broker
        self._found = found
        self._patience = patience
        self._on_result: Callable[[TestResult], None] = lambda result: None
        self._running: dict[Trial, float] = {}
        self._rooms = threading.Semaphore(self.workers)
        self._in_a_room: set[Trial] = set()
        self._stopping = False
        self._logins = threading.Semaphore(LOGINS)
        self._lock = threading.Lock()

    def run(self, jobs: Sequence[Job], on_result: Callable[[TestResult], None]) -> None:
        """Executes all of them. `on_result` is called in this thread; what it raises ends the run."""
        self._on_result = on_result
        together = sorted((job for job in jobs if not job.alone), key=lambda job: -job.waits)
        alone = [job for job in jobs if job.alone]
        with concurrent.futures.ThreadPoolExecutor(
            max(self.workers, CROWD), thread_name_prefix="selectmq-conformance"
        ) as pool:
            try:
                suspects = self._run_together(pool, together)
                # Once more side by side, as the one that was to blame may be done; what is left then, one by one.
                for job in [*self._run_together(pool, suspects), *alone]:
                    self._run_by_itself(pool, job)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                with self._lock:
                    self._stopping = True
                self._abort(older_than=0.0)
                raise

    def execute(self, job: Job) -> TestResult:
        """The result of one test. Safe to call from several threads.

        Some brokers end a connection for what other clients do, or because it comes too soon after another one: a test
        whose connection was cut off gets a second attempt. But what it saw at the first one is not forgotten.
        """
        with self._logins if "authenticated" in job.needs else contextlib.nullcontext():
            trial = Trial(self._broker, self._found, self._patience)
            result = self._try(job, trial)
            if not trial.cut_off or trial.aborted:
                return result
            again = Trial(self._broker, self._found, self._patience)
            again.note(f"the second attempt; of the first one came: {result.reason}")
            second = self._try(job, again)
            if result.verdict is not Verdict.FAIL or second.verdict in (Verdict.FAIL, Verdict.ERROR):
                return second
            if second.verdict in (Verdict.PASS, Verdict.WARN):
                reason = "; ".join(filter(None, (f"kept only at the second attempt: {result.reason}", second.reason)))
                return dataclasses.replace(result, verdict=Verdict.WARN, reason=reason, notes=second.notes)
            note = f"there was a second attempt, which came to nothing: {second.reason}"
            return dataclasses.replace(result, notes=(*result.notes, note))

    # How many at a time, and for how long

    def _run(self, pool: concurrent.futures.ThreadPoolExecutor, jobs: Sequence[Job]) -> list[tuple[Job, bool]]:
        """Runs these tests side by side. Returns those of which the broker's own end leaves no result, each with
        whether it had begun."""
        running = {pool.submit(self._execute_while_alive, job): job for job in jobs}
        # Not by futures.wait: it takes the locks of all of them again and again, in Python. An interrupt between such a
        # lock and the line that gives it back would leave their threads waiting for ever.
        finished: queue.SimpleQueue[concurrent.futures.Future[TestResult | bool]] = queue.SimpleQueue()
        for future in running:
            future.add_done_callback(finished.put)
        lost: list[tuple[Job, bool]] = []
        while running:
            try:
                done = finished.get(timeout=0.25)
            except queue.Empty:
                done = None
            self._abort(older_than=TEST_SECONDS + 4 * self._patience)
            self.make_room()
            if self._broker.died and self.goes_on:
                self._abort(older_than=0.0)
            if done is not None:
                job, result = running.pop(done), done.result()
                if isinstance(result, bool):
                    lost.append((job, result))
                else:
                    self._on_result(result)
        return lost

    def _try(self, job: Job, trial: Trial) -> TestResult:
        self._rooms.acquire()
        with self._lock:
            self._running[trial] = time.monotonic()
            self._in_a_room.add(trial)
            if self._stopping:
                trial.abort()
        try:
            return execute(job, trial)
        finally:
            with self._lock:
                del self._running[trial]
            self._leave_room(trial)

    def make_room(self) -> None:
        """Lets others begin beside those that mostly wait. To be called now and then."""
        for trial in self._older_than(SETTLED_SECONDS):
            self._leave_room(trial)

    def _leave_room(self, trial: Trial) -> None:
        with self._lock:
            if trial not in self._in_a_room:
                return
            self._in_a_room.remove(trial)
        self._rooms.release()

    def _abort(self, older_than: float) -> None:
        for trial in self._older_than(older_than):
            trial.abort()

    def _older_than(self, seconds: float) -> list[Trial]:
        with self._lock:
            began_before = time.monotonic() - seconds
            return [trial for trial, began in self._running.items() if began < began_before]

    # A broker that ends by itself

    @property
    def goes_on(self) -> bool:
        """Whether a broker that ends by itself is started once more."""
        return len(self.remarks) < DEATHS

    def _run_together(self, pool: concurrent.futures.ThreadPoolExecutor, jobs: Sequence[Job]) -> list[Job]:
        """Runs these tests. When the broker ends by itself, it is started anew for those that had not begun yet.
        Returns those that have no result, because it ended while they ran."""
        suspects: list[Job] = []
        while jobs:
            lost = self._run(pool, jobs)
            suspects += [job for job, began in lost if began]
            jobs = [job for job, began in lost if not began]
            if lost:
                names = ", ".join(job.id for job, began in lost if began)
                self._begin_anew(f" while these tests ran: {names}" if names else "")
        return suspects

    def _run_by_itself(self, pool: concurrent.futures.ThreadPoolExecutor, job: Job) -> None:
        """Runs this test and no other. It fails if the broker ends twice: once may be due to what was before."""
        for _ in range(2):
            if not self._run(pool, [job]):
                return
            died = self._begin_anew(f" while {job.id} ran alone")
        failure = Failure("the broker goes on running", died)
        verdict = (Verdict.FAIL, 0.0, str(failure), failure.expected, failure.actual)
        self._on_result(TestResult(job.id, job.title, job.statements, *verdict))

    def _begin_anew(self, when: str) -> str:
        """Starts a broker that has ended by itself once more, without what it has kept. What the report says of it."""
        self.remarks.append(self._broker.died + when)
        if self.goes_on:
            self._broker.begin_anew()
        return self.remarks[-1]

    def _execute_while_alive(self, job: Job) -> TestResult | bool:
        """The result of one test; whether it had begun, if the broker has ended by itself and will begin anew."""
        if self._broker.died and self.goes_on:
            return False
        result = self.execute(job)
        return True if self._has_died() and self.goes_on else result

    def _has_died(self) -> bool:
        """Whether the broker that the runner started has ended by itself. One that is just ending shows it by serving
        nobody any more: that is asked where nothing else runs."""
        with self._lock:
            busy = bool(self._running)
        if not self._broker.private or busy:
            return bool(self._broker.died)
        probe = Trial(self._broker, self._found, self._patience)
        try:
            probe.connected("probe")
        except NoAnswer:
            return self._broker.has_died()
        finally:
            probe.clean_up()
        return False
