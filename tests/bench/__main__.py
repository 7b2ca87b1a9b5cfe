"""python tests/bench: how much a broker costs per message, beside others in the same run.

Owns: the order of the rounds (the brokers in turns), the progress, the exit code.

Exit code 0: every row was measured that the brokers can do. 1: a row FAILED (messages lost or doubled, a broker that
went away, too few file descriptors). 2: wrong arguments, or a broker that cannot be started at all.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import arguments
import brokers
import clients
import report
import tables
import targets
import transports
from packets import Mqtt
from rows import Workload
from targets import Cores, Needs, Target, TargetError
from transports import GeneratorError


@dataclass(frozen=True)
class Turn:
    """One round of a row, in one version, on one broker."""

    workload: Workload
    mqtt: Mqtt
    target: Target
    number: int


def speaks(mqtt: Mqtt, target: Target, cores: Cores) -> bool:
    """Raises TargetError: the broker does not start, or cannot be reached."""
    if mqtt.level < 5:
        return True  # every broker does; and if not, its rows fail with what it answered
    try:
        with target.start(cores, Needs(mqtt)) as broker:
            return clients.speaks(broker.endpoint)
    except GeneratorError as error:
        raise TargetError(f"{target.name}: {error}") from None


def leave_out(made: report.Report, cores: Cores) -> set[tuple[str, str, str]]:
    """What cannot be measured, by row, version and broker; why, in the report, a sentence each."""
    out: set[tuple[str, str, str]] = set()
    sentences: dict[str, None] = {}  # each once, in order
    for target in made.targets:
        silent = {level for level, mqtt in made.levels().items() if not speaks(mqtt, target, cores)}
        for level in silent:
            version = made.levels()[level].name
            sentences[f"{target.name} does not speak MQTT {version}: its rows in this version are left out."] = None
        for mqtt in made.versions:
            for workload in made.workloads:
                lack = target.lacks(workload.needs(made.plan, mqtt))
                if mqtt.level in silent or lack:
                    out.add((workload.name, mqtt.name, target.name))
                if lack:
                    sentences[f"{target.name}, row {workload.name}: left out, as this broker {lack}."] = None
    made.left_out = list(sentences)
    return out


def turns(made: report.Report, rounds: int, out: set[tuple[str, str, str]]) -> Iterator[Turn]:
    """All rows: each with the brokers and versions in turns, forth and back: A B, B A, A B."""
    for workload in made.workloads:
        pairs = [(mqtt, target) for mqtt in made.versions for target in made.targets if workload.in_version(mqtt)]
        pairs = [(mqtt, target) for mqtt, target in pairs if (workload.name, mqtt.name, target.name) not in out]
        for number in range(1, rounds + 1):
            for mqtt, target in pairs if number % 2 else reversed(pairs):
                yield Turn(workload, mqtt, target, number)


def measure(made: report.Report, cores: Cores, planned: list[Turn], rounds: int) -> None:
    """A broker that fails a row in a version has no further round in it."""
    for done, turn in enumerate(planned, 1):
        workload, mqtt, target = turn.workload, turn.mqtt, turn.target
        if made.failed(workload, mqtt, target):
            continue
        version = f"{mqtt.name} " if len(made.versions) > 1 else ""
        place = f"{workload.name:<14} {version}{target.name:<10} round {turn.number}/{rounds}"
        progress(f"[{done:>3}/{len(planned)}] {place}  ", end="")
        try:
            with target.start(cores, workload.needs(made.plan, mqtt)) as broker:
                parts = workload.run(broker, made.plan)
        except (GeneratorError, TargetError) as error:
            made.fail(workload, mqtt, target, str(error))
            progress(f"FAILED: {error}")
        else:
            made.add(workload, mqtt, target, parts)
            progress("; ".join(tables.one_line(figures) for figures in parts))


def progress(text: str, end: str = "\n") -> None:
    print(text, end=end, file=sys.stderr, flush=True)


def main(words: list[str]) -> int:
    given = arguments.parser().parse_args(words)
    plan = arguments.plan(given, targets.raise_descriptor_limit())
    rounds = arguments.rounds(given)
    transports.STALLED_AFTER = given.patience
    cores = Cores()
    try:
        versions = arguments.versions(given)
        chosen = brokers.choose(given.target, given.peer, given.against)
        for path in (given.json, given.markdown):
            arguments.check_writable(path)
        workloads = arguments.select(given.only, versions)
        made = report.Report(plan, chosen, workloads, versions, cores.text, targets.filesystem_of_data(), words)
        cores.pin_generator()
        progress(cores.text)
        planned = list(turns(made, rounds, leave_out(made, cores)))
        for sentence in made.left_out:
            progress(f"bench: {sentence}")
        if not planned:
            raise TargetError("nothing is left to measure")
    except TargetError as error:
        progress(f"bench: {error}")
        return 2
    start = time.monotonic()
    measure(made, cores, planned, rounds)
    progress(f"took {time.monotonic() - start:.0f} s")
    if "-" not in (given.json, given.markdown):
        print(tables.text(made))
    if given.json:
        tables.write(given.json, made.json())
    if given.markdown:
        tables.write(given.markdown, tables.markdown(made))
    return 1 if made.failures else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # else the brokers would outlive this process
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        progress("\nbench: interrupted; the brokers that it had started are stopped")
        sys.exit(130)
