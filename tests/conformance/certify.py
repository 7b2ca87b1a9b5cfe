"""Runs the whole suite against the same brokers again and again: every run must come to the same verdicts.

    python -m tests.conformance.certify [--runs 20] [PROFILE ...]

Owns: the comparison of runs. Must not know: how a run is made (it calls the command line, as a user would).

Exit code 0: all runs of each broker were identical, test by test, and none took longer than a minute.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

#: A healthy broker and an idle machine: the runner promises no more than this, in seconds.
PROMISED = 60.0

#: After so many seconds, a run is given up.
DEADLINE = 600


@dataclass(frozen=True, slots=True)
class Run:
    """What one run came to."""

    code: int
    seconds: float
    verdicts: Mapping[str, str]
    reasons: Mapping[str, str]


def run(profile: str) -> Run:
    """One run, as a user would start it."""
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory, "report.json")
        command = [sys.executable, "-m", "conformance", "--profile", profile, "--json", str(report)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            try:
                shown, _ = process.communicate(timeout=DEADLINE)
            except subprocess.TimeoutExpired:
                process.terminate()  # gently, and so does a Ctrl-C, which it gets as we do: it has a broker to end
                raise
        if process.returncode not in (0, 1):
            raise SystemExit(shown)
        result = json.loads(report.read_text(encoding="utf-8"))
    tests = result["tests"]
    return Run(
        process.returncode,
        result["seconds"],
        {test["id"]: test["verdict"] for test in tests},
        {test["id"]: test["reason"] for test in tests},
    )


def differences(runs: Sequence[Run]) -> list[str]:
    """The tests that did not come to the same verdict in every run, each with how often which came, and why."""
    shown = []
    for identity in sorted({identity for one in runs for identity in one.verdicts}):
        numbers: dict[str, list[int]] = {}
        for number, one in enumerate(runs, 1):
            numbers.setdefault(one.verdicts.get(identity, "not run"), []).append(number)
        if len(numbers) > 1:
            shown.append(identity)
            for verdict, found in numbers.items():
                reason = runs[found[0] - 1].reasons.get(identity, "")
                shown.append(f"    {verdict} in run {', '.join(map(str, found))}: {reason}".rstrip(": "))
    return shown


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Runs the suite again and again: all runs must be identical.")
    parser.add_argument("profiles", nargs="*", metavar="PROFILE", default=["mosquitto", "selectmq"])
    parser.add_argument("--runs", type=int, default=20, help="how many runs against each broker, default 20")
    options = parser.parse_args(arguments)
    good = True
    for profile in options.profiles:
        runs: list[Run] = []
        for number in range(1, options.runs + 1):
            runs.append(run(profile))
            counts: dict[str, int] = {}
            for verdict in runs[-1].verdicts.values():
                counts[verdict] = counts.get(verdict, 0) + 1
            words = ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items()))
            same = "" if runs[-1].verdicts == runs[0].verdicts else "  DIFFERS FROM RUN 1"
            print(f"{profile} {number} of {options.runs}: {runs[-1].seconds:.1f} s, {words}{same}", flush=True)
        different = differences(runs)
        slowest = max(one.seconds for one in runs)
        print("\n".join(different or [f"{profile}: {len(runs)} identical runs, the longest took {slowest:.1f} s"]))
        if slowest > PROMISED:
            print(f"{profile}: a run took {slowest:.1f} s: more than {PROMISED:g} s")
        good = good and not different and slowest <= PROMISED
    return 0 if good else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("interrupted")
