"""python tests/bench: how much a broker costs per message, beside another one in the same run.

Owns: the arguments, the order of the rounds (the brokers in turns), the progress, the exit code.

Exit code 0: every row was measured. 1: a row FAILED (messages lost or doubled, a broker that went away, too few file
descriptors). 2: wrong arguments, or a broker that cannot be started at all.
"""

from __future__ import annotations

import argparse
import difflib
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import report
import targets
import transports
from targets import Cores, TargetError
from transports import GeneratorError
from workloads import WORKLOADS, Plan, Workload

QUICK = Plan(seconds=0.7, backlog=100_000)


def parser() -> argparse.ArgumentParser:
    full = Plan()
    made = argparse.ArgumentParser(
        prog="python tests/bench",
        description="Measures brokers under the same load, in turns: CPU time per message, rate, latency, memory.",
        epilog="rows: " + ", ".join(workload.name for workload in WORKLOADS),
    )
    made.add_argument(
        "--target",
        action="append",
        metavar="mosquitto|selectmq|HOST:PORT",
        help="broker to measure; repeatable (default: mosquitto and selectmq)",
    )
    made.add_argument("--only", action="append", metavar="ROW", help="measure only this row; repeatable")
    made.add_argument(
        "--quick",
        action="store_true",
        help=f"one round of {QUICK.seconds} s per row, a backlog of {QUICK.backlog:,}: under two minutes",
    )
    made.add_argument("--rounds", type=positive(int), metavar="N", help="rounds per row and broker (default: 3)")
    made.add_argument("--seconds", type=positive(float), metavar="S", help=f"per round (default: {full.seconds})")
    for name in ("connections", "backlog", "subscriptions"):
        made.add_argument(
            f"--{name}",
            type=positive(int),
            metavar="N",
            help=f"size of the rows with many (default: {getattr(full, name):,})",
        )
    made.add_argument(
        "--patience",
        type=positive(float),
        metavar="S",
        default=transports.STALLED_AFTER,
        help="a row fails when the broker sends nothing for so many seconds (default: %(default)g)",
    )
    made.add_argument("--json", metavar="FILE", help="write every figure of every round; - is standard output")
    made.add_argument("--markdown", metavar="FILE", help="write the table for the README; - is standard output")
    return made


def positive(kind: type[int] | type[float]) -> Callable[[str], float]:
    def convert(text: str) -> float:
        value = kind(text)
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"must be above 0, not {text}")
        return value

    convert.__name__ = "number"
    return convert


def select(names: Sequence[str] | None) -> list[Workload]:
    """The rows of `--only`, in the table's order. Raises TargetError for a name that is none."""
    known = [workload.name for workload in WORKLOADS]
    for name in names or []:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}?" if near else "rows are " + ", ".join(known)
            raise TargetError(f"--only {name}: no such row; {hint}")
    return [workload for workload in WORKLOADS if not names or workload.name in names]


def check_writable(path: str | None) -> None:
    """Before ten minutes of measuring, not after. Raises TargetError."""
    if path is None or path == "-":
        return
    folder = Path(path).resolve().parent
    if Path(path).is_dir() or not os.access(path if Path(path).exists() else folder, os.W_OK):
        raise TargetError(f"{path}: cannot be written; name a file in a folder that exists and is writable")


def measure(made: report.Report, cores: Cores, rounds: int) -> None:
    """All rows: each with the brokers in turns, A B A B A B. A broker that fails a row has no further round in it."""
    done, total = 0, len(made.workloads) * rounds * len(made.targets)
    for workload in made.workloads:
        for number in range(1, rounds + 1):
            for target in made.targets:
                done += 1
                if (workload.name, target.name) in made.failures or not target.can(workload.transport):
                    continue
                progress(f"[{done:>3}/{total}] {workload.name:<14} {target.name:<10} round {number}/{rounds}  ", end="")
                try:
                    with target.start(cores, workload.durable, workload.transport) as broker:
                        parts = workload.run(broker, made.plan)
                except (GeneratorError, TargetError) as error:
                    made.fail(workload, target, str(error))
                    progress(f"FAILED: {error}")
                else:
                    made.add(workload, target, parts)
                    progress("; ".join(report.one_line(figures) for figures in parts))


def progress(text: str, end: str = "\n") -> None:
    print(text, end=end, file=sys.stderr, flush=True)


def main(arguments: list[str]) -> int:
    given = parser().parse_args(arguments)
    base = QUICK if given.quick else Plan()
    plan = Plan(
        seconds=given.seconds or base.seconds,
        connections=given.connections or base.connections,
        backlog=given.backlog or base.backlog,
        subscriptions=given.subscriptions or base.subscriptions,
        descriptors=targets.raise_descriptor_limit(),
    )
    transports.STALLED_AFTER = given.patience
    cores = Cores()
    try:
        names = dict.fromkeys(given.target or ["mosquitto", "selectmq"])  # each once, in their order
        chosen = [targets.parse(name) for name in names]
        for path in (given.json, given.markdown):
            check_writable(path)
        made = report.Report(plan, chosen, select(given.only), cores.text, targets.filesystem_of_data(), arguments)
    except TargetError as error:
        progress(f"bench: {error}")
        return 2
    cores.pin_generator()
    progress(cores.text)
    start = time.monotonic()
    measure(made, cores, given.rounds or (1 if given.quick else 3))
    progress(f"took {time.monotonic() - start:.0f} s")
    if "-" not in (given.json, given.markdown):
        print(made.text())
    if given.json:
        report.write(given.json, made.json())
    if given.markdown:
        report.write(given.markdown, made.markdown())
    return 1 if made.failures else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # else the brokers would outlive this process
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        progress("\nbench: interrupted; the brokers that it had started are stopped")
        sys.exit(130)
