"""How long ago something was, though the broker was stopped meanwhile, or the system's clock was wrong.

Owns: the broker's own time, and what is known of the time in which it did not run. Must not know: the clocks, which are
arguments, and what is dated by it.

What has a deadline that outlives the process is dated in seconds of the broker's own time. While a run lasts, that goes
by the monotonic clock, so that nobody who sets the system's clock moves it. The next run goes on where this one ended.
How long the broker was stopped in between is kept beside it, as a pause: it is all that the system's clock is asked
for, and it can be put right later, as no date has it in it.

    run 1 ----------|  run 2 ------|  run 3 ---->      the broker's own time
                pause 1         pause 2

A system's clock that is wrong at a start must not end what waits. It can be early (a machine without a battery for it):
then the pause counts as nothing. Or late: then everything that is older than the run has GRACE, and when the clock is
set back within that time, the pause is shortened by as much. A pause is never made longer afterwards: nobody can tell a
clock that was put right from one that was put wrong, and to live too long harms less than to end too early.

In a machine that sleeps (suspend), the monotonic clock of Linux and macOS stands still, and so does the broker's time:
no client could have come in that time. For this clock, waking up looks as if the system's clock were set ahead.
"""

from .ports import ClockRecord

#: What is older than the present run ends no earlier than this after its beginning (seconds).
GRACE = 3600.0
#: Seconds by which the system's clock must have gone another way for somebody to have set it.
STEP = 1.0
#: Pauses that are told apart.
MAX_PAUSES = 64
#: A date behind this one comes from a damaged file, or from a clock that is no help: some 3,000 years from now.
FAR = 1e11

# Between the end of a run and the beginning of the next, so that a date belongs to one of them.
_MOMENT = 0.001


class Clock:
    """`now` is always the monotonic clock's time, and a date one of the broker's own time."""

    def __init__(self, now: float, wall: float) -> None:
        """It begins now: at seconds since the epoch, as good a number as any."""
        self._began = now
        self._first_date = wall
        self._offset = wall - now
        self._wall_ahead_at_start = self._wall_ahead = wall - now
        self._given: list[tuple[float, float]] = []  # as the pauses would be if the clock was right at the start
        self._pauses: list[tuple[float, float]] = []  # when, and how long

    def resume(self, record: ClockRecord | None, newest: float | None) -> None:
        """Go on from an earlier run, which has left this record; `newest` is the last date that it has left, if any."""
        if record is not None and not (abs(record.at) < FAR and abs(record.wall) < FAR):
            record = None
        if newest is not None and (record is None or newest > record.at):
            # The run went on after it was recorded, with no step of the system's clock, which would have been recorded.
            record = (
                ClockRecord(newest, newest, ())
                if record is None
                else ClockRecord(newest, record.wall + newest - record.at, record.pauses)
            )
        if record is None:
            return
        self._first_date = record.at + _MOMENT
        self._offset = self._first_date - self._began
        stopped = self._began + self._wall_ahead_at_start - record.wall
        earlier = _shortened(record.pauses, -stopped)  # it was found to be later than it is now
        self._given = [*earlier, (record.at, max(0.0, stopped))]
        while len(self._given) > MAX_PAUSES:
            (at, first), (_, second) = self._given[:2]
            self._given[:2] = [(at, first + second)]
        self._pauses = self._given

    def record(self, now: float) -> ClockRecord:
        """What the next run has to know: to be stored at the beginning, at the end, and whenever `look` saw a step."""
        return ClockRecord(self.date(now), now + self._wall_ahead, tuple(self._pauses))

    def look(self, now: float, wall: float) -> float:
        """Compare the clocks, which were read together. By how many seconds somebody has set the system's clock since
        the last look; 0 if nobody has."""
        step = wall - now - self._wall_ahead
        self._wall_ahead = wall - now
        self._pauses = _shortened(self._given, self._wall_ahead_at_start - self._wall_ahead)
        return step if abs(step) >= STEP else 0.0

    def date(self, now: float) -> float:
        """The broker's own time."""
        return now + self._offset

    def lasting(self, now: float) -> float:
        """The same with all pauses: for what is known by its end alone, and not by its beginning."""
        return self.date(now) + sum(length for _, length in self._pauses)

    def elapsed(self, date: float, now: float) -> float:
        """Seconds that have passed since then, pauses included."""
        return self.date(now) - date + sum(length for at, length in self._pauses if at >= date)

    def remaining(self, date: float, period: float, now: float) -> float:
        """Seconds until what began then and lasts for `period` is over; 0 or less if it is."""
        left = period - self.elapsed(date, now)
        if date < self._first_date:
            left = max(left, min(period, GRACE) - (now - self._began))
        return left


def _shortened(
    pauses: "list[tuple[float, float]] | tuple[tuple[float, float], ...]", by: float
) -> list[tuple[float, float]]:
    """The pauses, with so many seconds less in all: the last ones were measured with a clock that was that late."""
    left = list(pauses)
    for index in range(len(left) - 1, -1, -1):
        if by <= 0:
            break
        at, length = left[index]
        left[index] = at, max(0.0, length - by)
        by -= length
    return left
