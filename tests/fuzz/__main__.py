"""`python -m tests.fuzz [TARGET...]` fuzzes; `python -m tests.fuzz replay TARGET FILE` plays one input again.

Owns: the targets' budgets, their worker processes, progress, and the exit code: 0 nothing found, 1 something found
(the input is saved, and how to play it again is said), 2 it could not run.

    SELECTMQ_FUZZ_INPUTS      inputs for the decoder                              (default 200000)
    SELECTMQ_FUZZ_SECONDS     processor seconds of dialogues in process           (default 60)
    SELECTMQ_FUZZ_SOCKETS     dialogues over sockets                              (default 2000)
    SELECTMQ_FUZZ_PROCESSES   workers at a time                                   (default 2)
    SELECTMQ_FUZZ_SEED        makes runs without atheris repeatable               (default: the time)
    SELECTMQ_FUZZ_CORPUS      directory that keeps what led to new places         (default: a temporary one)
    SELECTMQ_FUZZ_FINDINGS    directory for findings                              (default fuzz-findings)
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import NoReturn

from tests.broker_process import ROOT, environment
from tests.fuzz.worker import FOUND, TARGETS

PROGRESS = 5.0  # seconds between two lines


def number(name: str, default: int) -> int:
    """An environment variable."""
    text = os.environ.get(name, str(default))
    if not text.isdecimal():
        stop(f"{name} is {text!r}: it must be a whole number, such as {default}")
    return int(text)


def stop(why: str) -> NoReturn:
    print(why, file=sys.stderr)
    raise SystemExit(2)


class Process:
    """A worker, with what it reported last."""

    def __init__(self, arguments: list[str]) -> None:
        self.inputs = 0
        self.seconds = 0.0
        self.finding: str | None = None
        self.terminated = False
        self._popen = subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz.worker", *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment(),
        )  # fmt: skip
        self._errors: list[str] = []
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._read, self._read_errors)]
        for thread in self._threads:
            thread.start()

    def _read(self) -> None:
        assert self._popen.stdout is not None
        for line in self._popen.stdout:
            if line.startswith('{"inputs"'):
                report = json.loads(line)
                self.inputs, self.seconds, self.finding = report["inputs"], report["seconds"], report["finding"]

    def _read_errors(self) -> None:
        assert self._popen.stderr is not None
        for line in self._popen.stderr:
            self._errors = [*self._errors[-200:], line]

    @property
    def running(self) -> bool:
        return self._popen.poll() is None

    def terminate(self) -> None:
        self.terminated = True
        self._popen.terminate()

    def end(self) -> tuple[int, str]:
        """The exit code and the last lines of standard error."""
        code = self._popen.wait()
        for thread in self._threads:
            thread.join()
        return code, "".join(self._errors)


def fuzz(target: str, *, inputs: int = 0, seconds: int = 0, processes: int, findings: Path) -> bool:
    """Run a target until its budget is spent. False if something was found."""
    if not inputs and not seconds:
        return True
    kept = os.environ.get("SELECTMQ_FUZZ_CORPUS")
    seed = number("SELECTMQ_FUZZ_SEED", time.time_ns() // 1_000_000)
    with contextlib.ExitStack() as stack:
        base = Path(kept) if kept else Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="selectmq-fuzz-")))
        corpus = base / target
        _write_seeds(target, corpus)
        workers = [
            Process(
                [
                    target, f"--seed={seed % (1 << 31) + i}", f"--corpus={corpus}", f"--findings={findings.absolute()}",
                    f"--inputs={-(-inputs // processes)}", f"--seconds={seconds / processes}",
                ]
            )
            for i in range(processes)
        ]  # fmt: skip
        try:
            told = time.monotonic()
            while any(worker.running for worker in workers):
                time.sleep(0.1)
                if time.monotonic() - told >= PROGRESS:
                    told = time.monotonic()
                    _tell(target, workers)
                if any(not worker.running and worker.end()[0] for worker in workers):
                    break
        finally:
            for worker in workers:
                if worker.running:
                    worker.terminate()
        ends = [worker.end() for worker in workers]
    _tell(target, workers)
    well = True
    for worker, (code, errors) in zip(workers, ends, strict=True):
        if worker.finding is not None:
            well = False
            print(errors, file=sys.stderr)
            print(f"FOUND: {worker.finding}\nagain: python -m tests.fuzz replay {target} {worker.finding}", flush=True)
        elif code and not worker.terminated:
            well = False
            print(f"{errors}\nFOUND: a worker ended with code {code}; see {findings}/{target}-*", flush=True)
    return well


def _write_seeds(target: str, corpus: Path) -> None:
    for name in ("seeds", "found"):
        (corpus / name).mkdir(parents=True, exist_ok=True)
    for seed in importlib.import_module(TARGETS[target]).seeds():
        (corpus / "seeds" / hashlib.sha1(seed).hexdigest()).write_bytes(seed)


def _tell(target: str, workers: list[Process]) -> None:
    inputs = sum(worker.inputs for worker in workers)
    seconds = sum(worker.seconds for worker in workers)
    print(f"{target}: {inputs} inputs, {seconds:.0f} s of processor time", flush=True)


def replay(target: str, path: Path) -> None:
    """The traceback, if it still fails."""
    module = importlib.import_module(TARGETS[target])
    try:
        module.check(path.read_bytes())
    finally:
        if hasattr(module, "close"):
            module.close()
    print("nothing wrong with this input")


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["replay"]:
        if len(arguments) != 3 or arguments[1] not in TARGETS:
            stop(f"replay wants a target ({', '.join(TARGETS)}) and a file")
        replay(arguments[1], Path(arguments[2]))
        return 0
    chosen = arguments or ["decoder", "dialogues", "sockets"]
    for name in chosen:
        if name not in TARGETS:
            stop(f"no target {name!r}: there are {', '.join(TARGETS)}")
    processes = max(1, number("SELECTMQ_FUZZ_PROCESSES", 2))
    findings = Path(os.environ.get("SELECTMQ_FUZZ_FINDINGS", "fuzz-findings"))
    budgets = {
        "decoder": {"inputs": number("SELECTMQ_FUZZ_INPUTS", 200_000)},
        "dialogues": {"seconds": number("SELECTMQ_FUZZ_SECONDS", 60)},
        "sockets": {"inputs": number("SELECTMQ_FUZZ_SOCKETS", 2_000)},
        "planted": {"inputs": 1_000_000},
    }
    well = [fuzz(name, **budgets[name], processes=processes, findings=findings) for name in chosen]
    return 0 if all(well) else FOUND


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
