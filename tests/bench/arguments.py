"""The command line.

Owns: the flags, their help, what is wrong with them.
Must not know: how anything is measured.
"""

from __future__ import annotations

import argparse
import difflib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import transports
from brokers import OURS, PEERS_VARIABLE
from packets import V5, V5_PROPERTIES, V5_VARIED, V311, Mqtt
from rows import WORKLOADS, Workload
from targets import TargetError
from workloads import Plan

QUICK = Plan(seconds=0.7, backlog=100_000)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python tests/bench",
        description="Measures brokers under the same load, in turns: CPU time per message, rate, latency, memory.",
        epilog="rows: " + ", ".join(workload.name for workload in WORKLOADS),
    )
    _add_what(made)
    _add_how_much(made)
    made.add_argument("--json", metavar="FILE", help="write every figure of every round; - is standard output")
    made.add_argument("--markdown", metavar="FILE", help="write the tables for the documents; - is standard output")
    return made


def _add_what(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        "--target",
        action="append",
        default=[],
        metavar="mosquitto|selectmq|flashmq|HOST:PORT",
        help="broker to measure; repeatable (default: mosquitto, every peer that is found, and selectmq)",
    )
    made.add_argument(
        "--peer",
        action="append",
        default=[],
        metavar="NAME=PROGRAM",
        help="measure this mosquitto or FlashMQ, too, under this name; repeatable. "
        f"{PEERS_VARIABLE} holds such pairs with {os.pathsep} between them; flashmq is also looked for in PATH",
    )
    made.add_argument(
        "--against",
        metavar="CHECKOUT",
        help=f"measure the {OURS} of another checkout, too, as 'old', for example one that `git worktree add` made",
    )
    made.add_argument("--only", action="append", metavar="ROW", help="measure only this row; repeatable")
    made.add_argument(
        "--mqtt",
        choices=("3.1.1", "5.0", "both"),
        default="3.1.1",
        help="measure every row in this version (default: %(default)s)",
    )
    made.add_argument(
        "--properties",
        nargs="?",
        choices=("constant", "varied"),
        const="constant",
        help="in 5.0, measure also with a content type and a user property in each message; "
        "varied: each message has another value",
    )


def _add_how_much(made: argparse.ArgumentParser) -> None:
    full = Plan()
    made.add_argument(
        "--quick",
        action="store_true",
        help=f"one round of {QUICK.seconds} s per row, a backlog of {QUICK.backlog:,}: "
        "under two minutes for two brokers in one version",
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


def positive(kind: type[int] | type[float]) -> Callable[[str], float]:
    def convert(text: str) -> float:
        value = kind(text)
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"must be above 0, not {text}")
        return value

    convert.__name__ = "number"
    return convert


def plan(given: argparse.Namespace, descriptors: int) -> Plan:
    base = QUICK if given.quick else Plan()
    return Plan(
        seconds=given.seconds or base.seconds,
        connections=given.connections or base.connections,
        backlog=given.backlog or base.backlog,
        subscriptions=given.subscriptions or base.subscriptions,
        descriptors=descriptors,
    )


def rounds(given: argparse.Namespace) -> int:
    return given.rounds or (1 if given.quick else 3)


def versions(given: argparse.Namespace) -> list[Mqtt]:
    """Raises TargetError."""
    chosen = {"3.1.1": [V311], "5.0": [V5], "both": [V311, V5]}[given.mqtt]
    if given.properties:
        if V5 not in chosen:
            raise TargetError("--properties: MQTT 3.1.1 has none; give --mqtt 5.0 or --mqtt both, too")
        chosen.append(V5_VARIED if given.properties == "varied" else V5_PROPERTIES)
    return chosen


def select(names: Sequence[str] | None, chosen: Sequence[Mqtt]) -> list[Workload]:
    """The rows of `--only`, in the table's order. Raises TargetError for a name that is none."""
    known = [workload.name for workload in WORKLOADS]
    for name in names or []:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}?" if near else "rows are " + ", ".join(known)
            raise TargetError(f"--only {name}: no such row; {hint}")
        if not any(workload.in_version(mqtt) for workload in WORKLOADS if workload.name == name for mqtt in chosen):
            raise TargetError(f"--only {name}: a row of MQTT 5.0 alone; give --mqtt 5.0, too")
    return [workload for workload in WORKLOADS if not names or workload.name in names]


def check_writable(path: str | None) -> None:
    """Before ten minutes of measuring, not after. Raises TargetError."""
    if path is None or path == "-":
        return
    folder = Path(path).resolve().parent
    if Path(path).is_dir() or not os.access(path if Path(path).exists() else folder, os.W_OK):
        raise TargetError(f"{path}: cannot be written; name a file in a folder that exists and is writable")
