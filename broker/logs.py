"""The log: one line an event, for people or for machines.

Owns: the format of a line, and that no name from the network can forge one. Must not know: which events there are.

An event is a constant text; what varies are its fields. As text: `2026-01-31 12:00:00.123 INFO client connected
client=a address=127.0.0.1:5000`; as JSON: one object with `time`, `level`, `event` and the fields.
"""

import json
import logging
import sys
import time
from collections.abc import Mapping

NAME = "selectmq"

#: Longer values are cut: a topic may have 64 KiB.
MAX_VALUE = 200

# What may stand in a value without quotes. One with anything else (blank, quote, control character) is quoted.
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.:/,+#$%@()[]*<>~&;!?'")


class EventLog:
    """Implements core.ports.Log on the standard library's logging."""

    def __init__(self, logger: logging.Logger | None = None) -> None:
        self._logger = logger or logging.getLogger(NAME)

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
            self._logger.error(event, exc_info=error, extra={"fields": {"error": repr(error), **fields}})

    def _emit(self, level: int, event: str, fields: Mapping[str, object]) -> None:
        if self._logger.isEnabledFor(level):
            self._logger.log(level, event, extra={"fields": fields})


class TextFormatter(logging.Formatter):
    """Lines for people."""

    def format(self, record: logging.LogRecord) -> str:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
        parts = [f"{when}.{int(record.msecs):03d} {record.levelname} {record.getMessage()}"]
        for name, value in getattr(record, "fields", {}).items():
            if value is not None:
                parts.append(f"{name}={_quoted(_text(value))}")
        line = " ".join(parts)
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
            "event": record.getMessage(),
        }
        for name, value in getattr(record, "fields", {}).items():
            out[name] = value if value is None or isinstance(value, bool | int | float) else _text(value)
        if record.exc_info:
            out["traceback"] = self.formatException(record.exc_info)
        return json.dumps(out, ensure_ascii=True)


def configure(level: str, kind: str) -> None:
    """Send the log to standard error: `level` as the option log_level, `kind` "text" or "json"."""
    logger = logging.getLogger(NAME)
    logger.handlers = [stderr_handler(kind)]
    logger.propagate = False
    set_level(level)


def stderr_handler(kind: str) -> logging.Handler:
    """Writes to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if kind == "json" else TextFormatter())
    return handler


def set_level(level: str) -> None:
    logging.getLogger(NAME).setLevel(level.upper())


def _text(value: object) -> str:
    text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
    return text if len(text) <= MAX_VALUE else text[:MAX_VALUE] + "..."


def _quoted(text: str) -> str:
    """As it is, or as a JSON string if it could be taken for something else."""
    return text if text and _PLAIN.issuperset(text) else json.dumps(text, ensure_ascii=True)
