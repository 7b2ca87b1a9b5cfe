"""One process that fuzzes one target until its share is done: `python -m tests.fuzz.worker TARGET ...`.

Owns: the loop around a target, guided by coverage where there is atheris, and what it reports. Must not know: what the
target checks.

It writes a line of JSON to standard output now and then, and one at its end. A finding ends it with exit code 1 and
the input in `--findings`. All budgets are counts or processor time, so that it may be stopped (SIGSTOP) for any time.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, NoReturn

from tests.fuzz.mutation import mutated

#: Target -> the module with its `check` and `seeds`.
TARGETS = {
    "decoder": "tests.fuzz.decoding",
    "dialogues": "tests.fuzz.in_process",
    "sockets": "tests.fuzz.over_sockets",
    "planted": "tests.fuzz.planted",
}
#: The longest input in bytes.
LONGEST = {"decoder": 200}
ELSE_LONGEST = 600
#: Seconds of wall clock for one input: the process may be stopped meanwhile. (0 would end it at the first tick.)
NO_TIMEOUT = 1_000_000
#: Inputs between two looks at the clock.
OFTEN = 16
#: Seconds between two reports.
REPORT = 2.0

FOUND = 1

_at_end: list[Callable[[], None]] = []


class Worker:
    """Counts inputs, ends in time, and keeps a finding."""

    def __init__(self, target: str, check: Callable[[bytes], None], options: argparse.Namespace) -> None:
        self._target = target
        self._check = check
        self._inputs: int = options.inputs
        self._seconds: float = options.seconds
        self._findings: Path = options.findings
        self._done = 0
        self._reported = 0.0

    def __call__(self, data: bytes) -> None:
        try:
            self._check(data)
        except Exception as error:
            self._found(data, error)
        self._done += 1
        if self._done % OFTEN == 0 or self._done == self._inputs:
            self._look_at_the_clock()

    def _look_at_the_clock(self) -> None:
        used = time.process_time()
        over = 0 < self._inputs <= self._done or 0 < self._seconds <= used
        if over or used - self._reported > REPORT:
            self._reported = used
            self._report(over)
        if over:
            _end(0)

    def _report(self, over: bool, finding: str | None = None) -> None:
        line = {"inputs": self._done, "seconds": time.process_time(), "over": over, "finding": finding}
        print(json.dumps(line), flush=True)

    def _found(self, data: bytes, error: Exception) -> None:
        path = self._findings / f"{self._target}-{hashlib.sha1(data).hexdigest()[:12]}"
        path.write_bytes(data)
        traceback.print_exception(error)
        self._report(True, str(path))
        _end(FOUND)


def _end(code: int) -> NoReturn:
    """At once: atheris never returns, and would take an exception for a finding."""
    for close in _at_end:
        close()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--inputs", type=int, default=0, help="end after so many")
    parser.add_argument("--seconds", type=float, default=0.0, help="end after so much processor time")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--corpus", type=Path, required=True, help="inputs that led to new places, shared by workers")
    parser.add_argument("--findings", type=Path, required=True)
    options = parser.parse_args()
    options.findings.mkdir(parents=True, exist_ok=True)
    if options.target == "sockets":  # what it covers is in another process
        _without_a_guide(options)
    try:
        import atheris  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ImportError:
        _without_a_guide(options)
    else:
        _guided(atheris, options)


def _guided(atheris: Any, options: argparse.Namespace) -> None:
    with atheris.instrument_imports(include=["broker"]):
        target = importlib.import_module(TARGETS[options.target])
    seeds = options.corpus / "seeds"
    arguments = [
        sys.argv[0],
        f"-seed={options.seed}",
        f"-max_len={LONGEST.get(options.target, ELSE_LONGEST)}",
        f"-timeout={NO_TIMEOUT}",
        "-rss_limit_mb=2048",
        "-verbosity=0",
        "-print_final_stats=0",
        f"-artifact_prefix={options.findings}/{options.target}-",
        str(options.corpus / "found"),
        str(seeds),
    ]
    atheris.Setup(arguments, Worker(options.target, target.check, options))
    atheris.Fuzz()


def _without_a_guide(options: argparse.Namespace) -> NoReturn:
    target = importlib.import_module(TARGETS[options.target])
    if hasattr(target, "close"):
        _at_end.append(target.close)
    signal.signal(signal.SIGTERM, lambda number, frame: _end(0))
    worker = Worker(options.target, target.check, options)
    random = Random(options.seed)
    seeds: list[bytes] = target.seeds()
    while True:
        worker(mutated(random, seeds, LONGEST.get(options.target, ELSE_LONGEST)))


if __name__ == "__main__":
    main()
