"""What the log says about clients at fault: each thing once a minute, however often it happens.

Owns: which complaint is told, which is only counted, and when the count is told. Must not know: which complaints there
are, who reads the log.

A complaint is the same as another if it comes from the same place (an address; in IPv6 a network), has the same event
and the same cause. The first is told at once, and so is one with another cause. Those of the next minute are counted;
the count is told when the minute is over, or before the next line of this kind. However many causes a client finds, its
place gets so many lines a second; and what is remembered has a limit for all together. What belongs to no place counts
as one.

That clients come and go is no complaint, and told each time; but a client can do that as often as it likes, so that has
a limit of its own for each place and second.
"""

from __future__ import annotations

from collections.abc import Callable

from .ports import Log
from .timers import Timers

#: Seconds after which the same is told again.
SILENCE = 60.0
#: Lines of one place in a second.
LINES_PER_SECOND = 10
#: Lines about the comings and goings of one place in a second: those of a large site are still told one by one.
COMINGS_PER_SECOND = 100
#: Complaints that are remembered.
MAX_REMEMBERED = 5_000
#: Longer values are remembered cut: a topic may have 64 KiB.
MAX_VALUE = 200

MORE = "left out: more of the same"
TOO_MANY = "left out: too many different complaints about one address"
TOO_BUSY = "left out: clients of one address come and go too often"
OVERFLOW = "left out: too many different complaints"


class _Told:
    """A complaint that was told, and how often it has come up since."""

    __slots__ = ("count", "event", "fields", "level", "until")

    def __init__(self, level: str, event: str, fields: dict[str, object], until: float) -> None:
        self.level = level
        self.event = event
        self.fields = fields
        self.until = until
        self.count = 0


class Complaints:
    """A log for what clients can cause at will. For the loop's thread."""

    def __init__(self, log: Log, timers: Timers) -> None:
        self._log = log
        self._timers = timers
        #: What is one place, though it may have many addresses and ports: from "address:port".
        self.origin: Callable[[str], str] = lambda peer: peer.rpartition(":")[0]
        # In the order in which their minutes end.
        self._told: dict[tuple[object, ...], _Told] = {}
        self._second = 0
        self._lines: dict[str, int] = {}  # told in this second, by place
        self._comings: dict[str, int] = {}  # the same
        self._unremembered = 0

    def info(self, event: str, peer: str, *cause: object, **fields: object) -> None:
        """Tell it at this level. `peer` is the client's address and port, "" if it is nobody's; `cause`: what makes it
        another complaint."""
        if self._is_new("info", event, peer, cause, fields):
            self._log.info(event, **fields)

    def warning(self, event: str, peer: str, *cause: object, **fields: object) -> None:
        if self._is_new("warning", event, peer, cause, fields):
            self._log.warning(event, **fields)

    def error(self, event: str, peer: str, *cause: object, **fields: object) -> None:
        if self._is_new("error", event, peer, cause, fields):
            self._log.error(event, **fields)

    def coming(self, event: str, peer: str, **fields: object) -> None:
        """A client comes or goes: tell it at info, with no minute of silence."""
        now = self._timers.now
        origin = self.origin(peer)
        if self._has_room(self._comings, origin, COMINGS_PER_SECOND, now):
            self._log.info(event, **fields)
        else:
            self._count_crowd("info", TOO_BUSY, origin, now + SILENCE)

    def bug(self, event: str, error: BaseException, peer: str, **fields: object) -> None:
        """With the traceback. The cause is the line that raised it."""
        if self._is_new("error", event, peer, (type(error).__name__, *_place(error)), fields):
            self._log.exception(event, error, **fields)

    def _is_new(self, level: str, event: str, peer: str, cause: tuple[object, ...], fields: dict[str, object]) -> bool:
        now = self._timers.now
        origin = self.origin(peer) if peer else ""
        key = (event, origin, *map(_short, cause))
        told = self._told.get(key)
        if told is not None:
            if now < told.until:
                told.count += 1
                return False
            self._forget(key, told)
        if len(self._told) >= MAX_REMEMBERED:
            self._forget_old(now)
            if len(self._told) >= MAX_REMEMBERED:
                self._unremembered += 1
                return False
        until = now + SILENCE
        if not self._has_room(self._lines, origin, LINES_PER_SECOND, now):
            self._count_crowd(level, TOO_MANY, origin, until)
            return False
        kept = {name: _short(value) for name, value in fields.items()}
        self._told[key] = _Told(level, MORE, {"what": event, **kept}, until)
        return True

    def _count_crowd(self, level: str, event: str, origin: str, until: float) -> None:
        """One line more of this place is left out."""
        crowd = self._told.get((event, origin))
        if crowd is None:
            if not origin or len(self._told) >= MAX_REMEMBERED:
                self._unremembered += 1
                return
            crowd = self._told[(event, origin)] = _Told(level, event, {"address": origin}, until)
        crowd.count += 1

    def _has_room(self, lines: dict[str, int], origin: str, most: int, now: float) -> bool:
        """May this place get one more of these lines in this second?"""
        second = int(now)
        if second != self._second or len(lines) >= MAX_REMEMBERED:
            self._second = second
            self._lines.clear()
            self._comings.clear()
        count = lines[origin] = lines.get(origin, 0) + 1
        return count <= most

    def sweep(self, now: float) -> None:
        """Tell what was left out in the minutes that are over. To be called now and then."""
        self._forget_old(now)
        if self._unremembered:
            self._log.warning(OVERFLOW, times=self._unremembered)
            self._unremembered = 0

    def finish(self) -> None:
        """Tell all that was left out: nothing comes any more."""
        self.sweep(float("inf"))

    def _forget_old(self, now: float) -> None:
        while self._told:
            key, told = next(iter(self._told.items()))
            if now < told.until:
                break
            self._forget(key, told)

    def _forget(self, key: tuple[object, ...], told: _Told) -> None:
        del self._told[key]
        if told.count:
            tell = {"info": self._log.info, "warning": self._log.warning, "error": self._log.error}[told.level]
            tell(told.event, **told.fields, times=told.count)


def _short(value: object) -> object:
    return value[:MAX_VALUE] if isinstance(value, str | bytes) else value


def _place(error: BaseException) -> tuple[str, int]:
    """File and line of the innermost call."""
    traceback = error.__traceback__
    if traceback is None:
        return "", 0
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    return traceback.tb_frame.f_code.co_filename, traceback.tb_lineno
