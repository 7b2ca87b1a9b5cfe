"""A part of our file that a mosquitto.conf becomes: its settings, and what is to be said about lines of the other.

Owns: taking lines, reading their values, the range of each of our options, and the text of such a part. Must not know:
what any option of Mosquitto's means.
"""

import os
import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from . import mosquitto
from .kinds import Duration, Integer, Refused, Size
from .mosquitto import Line
from .mosquitto_names import mosquitto as counterpart
from .options import OPTIONS


class Remark(NamedTuple):
    """What is to be said about lines of a mosquitto.conf; without any it is about what stands nowhere in it."""

    lines: tuple[Line, ...]
    text: str
    needless: bool  #: nothing is lost

    @property
    def path(self) -> str | None:
        return self.lines[0].path if self.lines else None

    def __str__(self) -> str:
        """In one line, without any value: some are passwords."""
        if not self.lines:
            return _printable(self.text)
        first = self.lines[0]
        numbers = [str(first.number), *(str(line.number) for line in self.lines[1:])]
        names = dict.fromkeys(line.name for line in self.lines)
        return _printable(f"{first.path}:{', '.join(numbers)}: {', '.join(names)}: {self.text}")


class Block:
    """What is said of the broker, or of one listener. Each line is taken once; `end` says what became of the rest."""

    def __init__(self, title: str, lines: Iterable[Line], directory: str) -> None:
        self.title = title
        self.directory = directory
        self.settings: dict[str, Any] = {}
        self.remarks: list[Remark] = []
        self.is_shut = False
        self.last: Line | None = None  #: the line that was taken last
        self._lines = list(lines)

    # --- taking lines ---

    def take(self, *names: str) -> Line | None:
        """The line with one of these names. Where there are several, the last one counts."""
        found = [line for line in self._lines if line.name in names]
        self._lines = [line for line in self._lines if line.name not in names]
        for line in found[:-1]:
            self.remark(line, f"line {found[-1].number} says it again, and counts")
        self.last = found[-1] if found else None
        return self.last

    def take_all(self, *names: str, prefixes: tuple[str, ...] = ()) -> list[Line]:
        found = [line for line in self._lines if line.name in names or line.name.startswith(prefixes or ("\0",))]
        self._lines = [line for line in self._lines if line not in found]
        return found

    def flag(self, *names: str) -> bool | None:
        line = self.take(*names)
        if line is None:
            return None
        if line.word not in ("true", "1", "false", "0"):
            self.wrong(line, "must be true or false")
            return None
        return line.word in ("true", "1")

    def number(self, name: str) -> tuple[int, Line | None]:
        line = self.take(name)
        if line is None:
            return 0, None
        if not re.fullmatch("-?[0-9]{1,18}", line.word):
            self.wrong(line, "must be a number")
            return 0, None
        return int(line.word), line

    def text(self, line: Line) -> str:
        """The whole rest of the line, as Mosquitto takes it; but nobody means a comment to be part of a name."""
        value, mark, _ = line.value.partition(" #")
        if mark:
            self.remark(line, "what stands behind # is left out; Mosquitto takes it for a part of the value")
        return value.rstrip()

    def absolute(self, path: str) -> str:
        return os.path.abspath(os.path.join(self.directory, path))

    # --- settings ---

    def set_path(self, option: str, line: Line) -> None:
        path = self.text(line)
        self.settings[option] = self.absolute(path)
        if not os.path.isabs(path):
            text = f"a relative path, taken from {self.directory}: Mosquitto's working directory"
            self.remark(line, text, needless=True)

    def set_limit(self, option: str, name: str, unlimited: Callable[[int], bool] = lambda number: False) -> None:
        """Translate a number, of which those that mean "no limit" become the largest one."""
        number, line = self.number(name)
        if line is None:
            return
        if unlimited(number):
            self.settings[option] = self.highest(option)
            self.remark(line, f"there is always a limit here: the largest one is taken, {self.settings[option]}")
        else:
            self.set(option, number, line)

    @staticmethod
    def highest(option: str) -> float:
        kind = OPTIONS[option].kind
        assert isinstance(kind, (Integer, Size, Duration))
        return kind.high

    def set(self, option: str, value: Any, line: Line | None) -> None:
        """Set what the option takes: where it does not take this value, the nearest."""
        kind = OPTIONS[option].kind
        if isinstance(kind, (Integer, Size, Duration)) and not kind.low <= value <= kind.high:
            value = min(max(value, kind.low), kind.high)
            self.remark(line, f"{option} must be {kind.values}: the nearest is taken")
        try:
            self.settings[option] = kind.read(value)
        except Refused as refused:
            self.remark(line, f"{option} {refused.why}")

    # --- remarks ---

    def remark(self, line: Line | None, text: str, *, needless: bool = False) -> None:
        lines = () if line is None else (line,)
        before = self.remarks[-1] if self.remarks else None
        if line is not None and before is not None and before.text == text and before.path == line.path:
            self.remarks[-1] = before._replace(lines=(*before.lines, line))
            return
        self.remarks.append(Remark(lines, text, needless))

    def note(self, text: str) -> None:
        """What is to be known though no line says it."""
        self.remarks.append(Remark((), text, needless=True))

    def wrong(self, line: Line, why: str) -> None:
        """A value that Mosquitto does not take either."""
        self.remark(line, f"left out, it {why}")

    def lost(self, line: Line) -> None:
        """There is no counterpart: say what there is."""
        found = counterpart(line.name)
        if found is None:
            self.remark(line, f"Mosquitto has no such option{mosquitto.nearest(line.name)}")
        elif (line.name, line.word) in _CONTRARY:
            self.remark(line, f"that is not possible here: {found.remark}")
        elif found.options:
            self.remark(line, f"left out: {found.advice}")
        else:
            self.remark(line, found.advice, needless=found.needless)

    def shut(self, line: Line | None, why: str | None) -> None:
        """Let nobody in from outside until somebody has seen to it. `why` None: that there is no counterpart."""
        self.is_shut = True
        if why is None and line is not None:
            found = counterpart(line.name)
            why = found.advice if found is not None else ""
        self.remark(line, f"shut off, this listener serves this machine alone: {why}")

    def give_up(self, line: Line, why: str) -> None:
        """Leave it out, with all that is said of it."""
        self.settings.clear()
        self.remark(line, why)
        for each in self._lines:
            self.remark(each, why)
        self._lines.clear()

    def end(self) -> None:
        for line in self._lines:
            if not _says_nothing(line):
                self.lost(line)
        self._lines.clear()

    # --- the text ---

    def in_order(self) -> list[Remark]:
        return sorted(self.remarks, key=lambda remark: (not remark.lines, remark.lines[:1]))

    def toml(self) -> str:
        lines = [self.title] if self.title else []
        lines += [f"# {remark}" for remark in self.in_order()]
        lines += [f"{name} = {OPTIONS[name].kind.toml(value)}" for name, value in self.settings.items()]
        return "\n".join(lines) + "\n" if lines else ""


#: Values with which an option asks for what is so anyway: Mosquitto's defaults, where ours do the same.
_AS_IT_IS = {
    ("allow_zero_length_clientid", "true"), ("check_retain_source", "true"),
    ("disable_client_cert_date_checks", "false"), ("enable_control_api", "false"), ("log_timestamp", "true"),
    ("connection_messages", "true"), ("max_qos", "2"), ("maximum_qos", "2"), ("memory_limit", "0"),
    ("queue_qos0_messages", "false"), ("retain_available", "true"), ("set_tcp_nodelay", "true"),
    ("upgrade_outgoing_qos", "false"), ("proxy_protocol_v2_require_tls", "false"), ("retain_expiry_interval", "0"),
    ("global_max_clients", "-1"), ("global_max_connections", "-1"), ("max_topic_alias", "10"),
    ("max_topic_alias_broker", "0"), ("allow_duplicate_messages", "false"), ("per_listener_settings", "false"),
}  # fmt: skip

#: Values with which an option asks for the opposite of what is so anyway.
_CONTRARY = {("check_retain_source", "false"), ("allow_duplicate_messages", "true"), ("log_timestamp", "false")}


def _says_nothing(line: Line) -> bool:
    word = {"1": "true", "0": "false"}.get(line.word, line.word)
    return {(line.name, line.word), (line.name, word)} & _AS_IT_IS != set()


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
