"""The log: one line an event, whatever the values of its fields are."""

from __future__ import annotations

import io
import json
import logging
import pickle
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker import logs
from broker.logs import MAX_VALUE, EventLog, JsonFormatter, TextFormatter

TEXT_LINE = re.compile(
    r'(?P<time>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d) (?P<level>[A-Z]+) (?P<event>[^="]+?)'
    r'(?P<fields>(?: [a-z_]+=(?:"(?:[^"\\]|\\.)*"|[^\s"\\]+))*)'
)
FIELD = re.compile(r' ([a-z_]+)=("(?:[^"\\]|\\.)*"|[^\s"\\]+)')

# Names from the network: any text, NUL included; and topics, which are bytes.
NAMES = st.text(max_size=60) | st.binary(max_size=60)


def written(formatter: logging.Formatter, act: Callable[[EventLog], None]) -> str:
    """What `act` logs, as it would stand in the file."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    logger = logging.Logger("of a test", logging.DEBUG)
    logger.addHandler(handler)
    act(EventLog(logger))
    return stream.getvalue()


def shown(value: str | bytes) -> str:
    """How a value is written: as text."""
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value


# --- text ---


@pytest.mark.parametrize(
    ("zone", "offset"), [("UTC0", "+00:00"), ("CET-1", "+01:00"), ("NST3:30", "-03:30"), ("IST-5:30", "+05:30")]
)
def test_a_text_line_says_in_which_zone_its_time_is(zone: str, offset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        row = TEXT_LINE.fullmatch(written(TextFormatter(), lambda log: log.info("event"))[:-1])
        assert row is not None
        assert row["time"].endswith(offset)
        assert abs(datetime.fromisoformat(row["time"]).timestamp() - time.time()) < 60
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_text_line_has_time_level_event_and_fields() -> None:
    line = written(TextFormatter(), lambda log: log.info("client connected", client="a", address="127.0.0.1:50"))
    when = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d"
    assert re.fullmatch(when + r" INFO client connected client=a address=127\.0\.0\.1:50\n", line)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("plain-1.2:3/x", "plain-1.2:3/x"),
        ("", '""'),
        ("two words", '"two words"'),
        ("a=b", '"a=b"'),
        ('say "hi"', '"say \\"hi\\""'),
        ("back\\slash", '"back\\\\slash"'),
        ("new\nline", '"new\\nline"'),
        ("new\r\nline", '"new\\r\\nline"'),
        ("\x1b[31mred", '"\\u001b[31mred"'),
        ("line\u2028separator", '"line\\u2028separator"'),
        ("ümlaut", '"\\u00fcmlaut"'),
        ("\u202etfel-ot-thgir", '"\\u202etfel-ot-thgir"'),
        ("\x9b31mred", '"\\u009b31mred"'),
        ("\x7f", '"\\u007f"'),
        (b"topic/1", "topic/1"),
        (b"\xff\n", '"\\\\xff\\n"'),
        (17, "17"),
        (True, "True"),
        (1.5, "1.5"),
    ],
)
def test_a_value_is_quoted_if_it_could_be_taken_for_something_else(value: object, text: str) -> None:
    line = written(TextFormatter(), lambda log: log.info("event", name=value))
    assert line.endswith(f" INFO event name={text}\n")


def test_a_field_without_a_value_is_left_out_of_text() -> None:
    assert written(TextFormatter(), lambda log: log.info("event", a=None, b=1)).endswith(" INFO event b=1\n")


@given(client=NAMES, topic=NAMES)
def test_no_name_can_forge_a_text_line_or_a_field(client: str | bytes, topic: str | bytes) -> None:
    line = written(TextFormatter(), lambda log: log.warning("publish refused", client=client, topic=topic))
    assert line.endswith("\n")
    assert line[:-1].isascii()
    assert line[:-1].isprintable()
    found = TEXT_LINE.fullmatch(line[:-1])
    assert found is not None
    assert (found["level"], found["event"]) == ("WARNING", "publish refused")
    fields = [(name, json.loads(text) if text[0] == '"' else text) for name, text in FIELD.findall(found["fields"])]
    assert fields == [("client", shown(client)), ("topic", shown(topic))]


# --- JSON ---


def test_a_json_line_has_time_level_event_and_fields() -> None:
    line = written(JsonFormatter(), lambda log: log.info("client connected", client="a", clean=True, n=3, user=None))
    row = json.loads(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", row.pop("time"))
    assert row == {"level": "info", "event": "client connected", "client": "a", "clean": True, "n": 3, "user": None}


@given(client=NAMES, topic=NAMES)
def test_every_json_line_parses_to_what_was_logged(client: str | bytes, topic: str | bytes) -> None:
    line = written(JsonFormatter(), lambda log: log.error("event", client=client, topic=topic))
    assert line.endswith("\n")
    assert line[:-1].isascii()
    assert line[:-1].isprintable()
    row = json.loads(line)
    del row["time"]
    assert row == {"level": "error", "event": "event", "client": shown(client), "topic": shown(topic)}


# --- both ---


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
def test_long_values_are_cut(formatter: logging.Formatter) -> None:
    line = written(formatter, lambda log: log.info("event", topic=b"x" * 65_535))
    assert "x" * MAX_VALUE + "..." in line
    assert "x" * (MAX_VALUE + 1) not in line
    assert len(line) < MAX_VALUE + 150


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
def test_percent_signs_stay_as_they_are(formatter: logging.Formatter) -> None:
    line = written(formatter, lambda log: log.info("100 %s sure", name="%d"))
    assert "100 %s sure" in line
    assert "%d" in line


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_each_level_has_its_name(level: str) -> None:
    row = json.loads(written(JsonFormatter(), lambda log: getattr(log, level)("event")))
    assert row["level"] == level


def fail(text: str) -> ValueError:
    try:
        raise ValueError(text)
    except ValueError as error:
        return error


def test_a_bug_is_logged_with_its_traceback_as_json() -> None:
    row = json.loads(written(JsonFormatter(), lambda log: log.exception("bug", fail("because"), client="a")))
    assert (row["level"], row["event"], row["client"]) == ("error", "bug", "a")
    assert row["error"] == "ValueError('because')"
    assert row["traceback"].startswith("Traceback (most recent call last):\n")
    assert row["traceback"].endswith("\nValueError: because")


def test_a_bug_is_logged_with_its_traceback_as_text() -> None:
    first, *rest = written(TextFormatter(), lambda log: log.exception("bug", fail("because"), client="a")).splitlines()
    assert first.endswith(" ERROR bug error=\"ValueError('because')\" client=a") or first.endswith(
        " ERROR bug error=ValueError('because') client=a"
    )
    assert rest[0].strip() == "Traceback (most recent call last):"
    assert rest[-1].strip() == "ValueError: because"


def test_an_exceptions_text_cannot_forge_a_line() -> None:
    forged = "\n2026-01-01 00:00:00.000 INFO client connected client=root\r2026\x1b[2K\u20282026"
    text = written(TextFormatter(), lambda log: log.exception("bug", fail(forged)))
    first, *rest = text.splitlines()
    assert re.match(r"\d{4}-", first)
    assert [line for line in rest if not line.startswith("    ")] == []
    assert "\x1b" not in text


# --- where the log goes ---


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    """The broker's logger, whatever a test that fails leaves."""
    logger = logging.getLogger(logs.NAME)
    before = logger.level, logger.handlers, logger.propagate
    yield
    logger.setLevel(before[0])
    _, logger.handlers, logger.propagate = before


def test_the_program_logs_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    end = logs.configure("info", "text")
    EventLog().info("hello", name="x")
    end()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.endswith(" INFO hello name=x\n")


def test_configuring_again_replaces_what_was(capsys: pytest.CaptureFixture[str]) -> None:
    end_first = logs.configure("info", "text")
    end = logs.configure("error", "json")
    EventLog().info("unheard")
    EventLog().error("heard")
    end()
    end_first()
    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line)["event"] == "heard"


@pytest.mark.parametrize(
    ("level", "heard"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_the_level_decides_what_is_heard(level: str, heard: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    end = logs.configure("info", "json")
    logs.set_level(level)
    log = EventLog()
    assert log.debugging is (level == "debug")
    for name in ("debug", "info", "warning", "error"):
        getattr(log, name)(name)
    end()
    assert [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()] == heard


def test_the_logger_is_as_it_was_in_the_end() -> None:
    logger = logging.getLogger(logs.NAME)
    before = (logger.level, logger.handlers, logger.propagate)
    threads = threading.active_count()
    end = logs.configure("debug", "json")
    assert threading.active_count() == threads + 1
    end()
    assert (logger.level, logger.handlers, logger.propagate) == before
    assert threading.active_count() == threads


def test_a_program_around_the_broker_gets_events_as_ordinary_records(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logs.NAME):
        EventLog().info("client refused", client="a b", code=5, user=None)
    (record,) = caplog.records
    assert (record.name, record.getMessage()) == ("selectmq", 'client refused client="a b" code=5')
    assert record.__dict__["event"] == "client refused"
    assert (record.filename, record.funcName) == ("test_logs.py", sys._getframe().f_code.co_name)
    assert record.__dict__["fields"] == {"client": "a b", "code": 5, "user": None}


def test_a_program_around_the_broker_gets_bugs_with_their_traceback(caplog: pytest.LogCaptureFixture) -> None:
    EventLog().exception("bug", fail("because"), client="a")
    assert caplog.messages == ["bug error=ValueError('because') client=a"]
    assert caplog.records[0].filename == "test_logs.py"
    assert "ValueError: because" in caplog.text


def test_a_record_can_go_to_another_process() -> None:
    """As with logging.handlers.QueueHandler."""
    logger = logging.Logger("of a test")
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign, assignment]
    logger.addHandler(handler)
    EventLog(logger).info("event", name="x")
    assert pickle.loads(pickle.dumps(records[0])).getMessage() == "event name=x"


def test_a_bug_below_the_level_is_not_written() -> None:
    stream = io.StringIO()
    logger = logging.Logger("of a test", logging.CRITICAL)
    logger.addHandler(logging.StreamHandler(stream))
    EventLog(logger).exception("bug", fail("because"))
    assert stream.getvalue() == ""
    assert sys.exc_info() == (None, None, None)
