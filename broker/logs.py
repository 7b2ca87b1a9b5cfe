"""The log: one line an event, for people or for machines.

Owns: the format of a line, and that no name from the network can forge one. Must not know: which events there are.

An event is a constant text; what varies are its fields. As text: `2026-01-31 12:00:00.123+01:00 INFO client connected
client=a address=127.0.0.1:5000`; as JSON: one object with `time`, `level`, `event` and the fields. For a program around
the broker they are ordinary records: the message is the event with its fields, `record.event` and `record.fields` have
them apart.
"""

import json
import logging
import sys
import time
from collections.abc import Callable, Mapping
from datetime import datetime

from .log_thread import LogThread, writer

NAME = "selectmq"

#: Longer values are cut: a topic may have 64 KiB.
MAX_VALUE = 200

# What may stand in a value without quotes. One with anything else (blank, quote, control character) is quoted.
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.:/,+#$%@()[]*<>~&;!?'")


class EventLog:
    """Implements core.ports.Log on the standard library's logging."""

    def __init__(self, logger: logging.Logger | None = None) -> None:
        self._logger = logger or logging.getLogger(NAME)

    @property
    def debugging(self) -> bool:
        return self._logger.isEnabledFor(logging.DEBUG)

    def debug(self, event: str, **fields: object) -> None:
        self._emit(logging.DEBUG, event, fields)

    def info(self, event: str, **fields: object) -> None:
        self._emit(logging.INFO, event, fields)

    def warning(self, event: str, **fields: object) -> None:
        self._emit(logging.WARNING, event, fields)

    def error(self, event: str, **fields: object) -> None:
        self._emit(logging.ERROR, event, fields)

    def exception(self, event: str, error: BaseException, **fields: object) -> None:
        if self._logger.isEnabledFor(logging.ERROR):
            self._log(logging.ERROR, event, {"error": repr(error), **fields}, 3, error)

    def _emit(self, level: int, event: str, fields: Mapping[str, object]) -> None:
        if self._logger.isEnabledFor(level):
            self._log(level, event, fields, 4)

    def _log(
        self, level: int, event: str, fields: Mapping[str, object], above: int, error: BaseException | None = None
    ) -> None:
        """`above`: so many calls above the logger's is the one that the record names as its place."""
        self._logger.log(
            level, _Message(event, fields), exc_info=error, extra={"event": event, "fields": fields}, stacklevel=above
        )


class _Message:
    """An event with its fields as one line, made when it is asked for."""

    __slots__ = ("_event", "_fields")

    def __init__(self, event: str, fields: Mapping[str, object]) -> None:
        self._event = event
        self._fields = fields

    def __str__(self) -> str:
        parts = [self._event]
        for name, value in self._fields.items():
            if value is not None:
                parts.append(f"{name}={_quoted(_text(value))}")
        return " ".join(parts)


class TextFormatter(logging.Formatter):
    """Lines for people."""

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created).astimezone().isoformat(" ", "milliseconds")
        line = f"{when} {record.levelname} {record.getMessage()}"
        if record.exc_info:
            # Set in, so that no text of an exception can pass for a line of its own.
            for part in self.formatException(record.exc_info).splitlines():
                line += "\n    " + "".join(c if c.isprintable() else ascii(c)[1:-1] for c in part)
        return line


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        out: dict[str, object] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": getattr(record, "event", None) or record.getMessage(),
        }
        for name, value in getattr(record, "fields", {}).items():
            out[name] = value if value is None or isinstance(value, bool | int | float) else _text(value)
        if record.exc_info:
            out["traceback"] = self.formatException(record.exc_info)
        return json.dumps(out, ensure_ascii=True)


def configure(level: str, kind: str) -> Callable[[], None]:
    """Send the log to standard error: `level` as the option log_level, `kind` "text" or "json". What is returned ends
    that: all is written then, as far as somebody reads it."""
    logger = logging.getLogger(NAME)
    before = logger.level, logger.handlers, logger.propagate
    handler = stderr_handler(kind)
    logger.handlers = [handler]
    logger.propagate = False
    set_level(level)

    def end() -> None:
        logger.setLevel(before[0])
        _, logger.handlers, logger.propagate = before
        handler.close()

    return end


def stderr_handler(kind: str) -> logging.Handler:
    """Writes to standard error, in a thread of its own, until it is closed."""
    handler = LogThread(writer(sys.stderr), _warning)
    handler.setFormatter(JsonFormatter() if kind == "json" else TextFormatter())
    return handler


def _warning(event: str, **fields: object) -> logging.LogRecord:
    """As EventLog.warning makes it."""
    row = {"name": NAME, "levelno": logging.WARNING, "levelname": "WARNING", "event": event, "fields": fields}
    return logging.makeLogRecord({**row, "msg": _Message(event, fields)})


def set_level(level: str) -> None:
    logging.getLogger(NAME).setLevel(level.upper())


def _text(value: object) -> str:
    text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
    return text if len(text) <= MAX_VALUE else text[:MAX_VALUE] + "..."


def _quoted(text: str) -> str:
    """As it is, or as a JSON string if it could be taken for something else."""
    return text if text and _PLAIN.issuperset(text) else json.dumps(text, ensure_ascii=True)
