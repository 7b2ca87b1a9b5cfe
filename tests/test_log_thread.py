"""The thread that writes the log: who logs never waits, nothing changes places, and what is dropped is told."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import threading
from collections.abc import Callable, Iterator

import pytest

from broker import log_thread
from broker.log_thread import MAX_LINES, LogThread, writer
from broker.logs import EventLog, JsonFormatter, _warning
from tests.broker_process import eventually
from tests.raw_client import DEADLINE

DROPPED = "lines of the log were dropped: nobody reads it fast enough"
UNWRITTEN = "lines of the log could not be written"


class Reader:
    """Takes what is written, when it wants to."""

    def __init__(self) -> None:
        self.reads = threading.Event()
        self.waits = threading.Event()
        self.text = ""
        self.broken = False

    def write(self, text: str) -> None:
        self.waits.set()
        assert self.reads.wait(DEADLINE)
        if self.broken:
            raise BrokenPipeError
        self.text += text

    @property
    def rows(self) -> list[tuple[str, object]]:
        rows = [json.loads(line) for line in self.text.splitlines()]
        return [(row["event"], row.get("lines")) for row in rows]


@pytest.fixture
def reader() -> Iterator[Reader]:
    reader = Reader()
    yield reader
    reader.reads.set()


@contextlib.contextmanager
def logging_to(write: Callable[[str], None]) -> Iterator[tuple[EventLog, LogThread]]:
    handler = LogThread(write, _warning)
    handler.setFormatter(JsonFormatter())
    logger = logging.Logger("of a test", logging.DEBUG)
    logger.addHandler(handler)
    yield EventLog(logger), handler
    handler.close()


def test_lines_are_written_in_their_order(reader: Reader) -> None:
    reader.reads.set()
    with logging_to(reader.write) as (log, _):
        for number in range(1000):
            log.info(f"event {number}")
    assert reader.rows == [(f"event {number}", None) for number in range(1000)]


def test_a_line_is_written_without_a_second_one(reader: Reader) -> None:
    reader.reads.set()
    with logging_to(reader.write) as (log, _):
        log.info("one")
        eventually(lambda: reader.text != "", "it is written")


def test_who_logs_does_not_wait_and_what_is_dropped_is_told_where_it_is_missing(reader: Reader) -> None:
    with logging_to(reader.write) as (log, _):
        log.info("first")
        assert reader.waits.wait(DEADLINE)  # with the first line: from here on, they pile up
        for number in range(MAX_LINES + 5):
            log.info(f"event {number}")
        reader.reads.set()
        eventually(lambda: DROPPED in reader.text, "all of it is written")
        log.info("last")
    kept = [(f"event {number}", None) for number in range(MAX_LINES)]
    assert reader.rows == [("first", None), *kept, (DROPPED, 5), ("last", None)]


def test_the_size_of_what_waits_has_a_limit_too(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_thread, "MAX_SIZE", 10_000)
    with logging_to(reader.write) as (log, _):
        log.info("first")
        assert reader.waits.wait(DEADLINE)
        for _ in range(1000):
            log.info("event", value="x" * 150)
        reader.reads.set()
    assert 10_000 < len(reader.text) < 11_000
    [(_, dropped)] = [row for row in reader.rows if row[0] == DROPPED]
    assert len(reader.rows) - 2 + int(str(dropped)) == 1000


def test_a_reader_that_is_gone_harms_nobody_and_one_that_comes_back_is_told(reader: Reader) -> None:
    reader.broken = True
    reader.reads.set()
    with logging_to(reader.write) as (log, handler):
        for _ in range(3):
            log.info("lost")
        eventually(lambda: reader.waits.is_set() and not handler._lines, "it was tried")
        reader.reads.clear()
        reader.broken = False
        reader.reads.set()
        log.info("heard")
    assert reader.rows[-1] == ("heard", None)
    assert reader.rows[0] in [(UNWRITTEN, number) for number in (1, 2, 3)]


def test_the_end_waits_for_a_reader_only_so_long(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_thread, "LAST", 0.05)
    with logging_to(reader.write) as (log, handler):
        log.info("one")
        assert reader.waits.wait(DEADLINE)
        handler.close()
        handler.close()  # the standard library does it once more at exit
        log.info("after the end")
    assert reader.text == ""


def test_a_line_that_cannot_be_made_is_no_end(reader: Reader, capsys: pytest.CaptureFixture[str]) -> None:
    class Unprintable:
        def __str__(self) -> str:
            raise RuntimeError("no text")

    reader.reads.set()
    with logging_to(reader.write) as (log, _):
        log.info("bad", value=Unprintable())
        log.info("good")
    assert reader.rows == [("good", None)]
    assert "no text" in capsys.readouterr().err


# --- where it is written ---


def test_a_stream_in_memory() -> None:
    stream = io.StringIO()
    writer(stream)("text\n")
    assert stream.getvalue() == "text\n"


def test_no_stream_at_all() -> None:
    writer(None)("text\n")


@pytest.mark.parametrize("blocking", [True, False])
def test_all_of_a_long_text_goes_through_a_pipe(blocking: bool) -> None:
    """Some programs leave their standard error without blocking to whom they start."""
    reading, writing = os.pipe()
    os.set_blocking(writing, blocking)
    text = "0123456789" * 100_000
    with open(writing, "w", encoding="utf-8") as stream:
        thread = threading.Thread(target=writer(stream), args=(text,))
        thread.start()
        came = b""
        while len(came) < len(text):
            came += os.read(reading, 65_536)
        thread.join(DEADLINE)
    os.close(reading)
    assert came.decode() == text


def test_what_the_encoding_lacks_is_written_in_another_way() -> None:
    reading, writing = os.pipe()
    with open(reading, "rb") as source:
        with open(writing, "w", encoding="ascii") as stream:
            writer(stream)("ümlaut\n")
        assert source.read() == b"\\xfcmlaut\n"


def test_a_pipe_without_a_reader_is_an_error_for_the_caller() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w", encoding="utf-8") as stream, pytest.raises(BrokenPipeError):
        writer(stream)("text\n")
