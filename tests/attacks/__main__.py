"""python -m tests.attacks [--only NAME] [--scale S] [--json FILE] [--markdown]: every attack, each against a broker of
its own.

Prints a line for each: the innocent client's round trips in milliseconds, also without what the machine is to blame for
("own", which is what counts); the broker's memory and disk at the most and after the end. Exit code 1 if one of them
cost more than it may. A quiet machine gives the better figures.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from tests.attacks import attacker
from tests.attacks.ground import ATTACKS
from tests.attacks.measure import HEADER, MARKDOWN, run


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.attacks", description="every attack, each against a broker of its own"
    )
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="a part of an attack's name")
    parser.add_argument("--scale", type=float, default=1.0, help="1: as described; 0.1: a tenth of it")
    parser.add_argument("--json", metavar="FILE", help="write the figures there")
    parser.add_argument("--list", action="store_true", help="say what each attack does")
    parser.add_argument("--markdown", action="store_true", help="print the figures as a table for a document")
    options = parser.parse_args()
    assert attacker.main is not None  # it has filled the table
    names = [name for name in ATTACKS if not options.only or any(part in name for part in options.only)]
    names = [name for name in names if name in options.only] or names  # a whole name is that one alone
    if options.list:
        print("\n".join(f"{name:45} {ATTACKS[name].what}" for name in names))
        return 0
    print(MARKDOWN if options.markdown else HEADER, flush=True)
    results = []
    failed = []
    for name in names:
        try:
            with tempfile.TemporaryDirectory() as directory:
                result = run(name, Path(directory), options.scale)
        except Exception as error:  # the others are wanted all the same
            failed.append(name)
            print(f"{name:45} could not be carried out: {error!r}", flush=True)
            continue
        results.append(result)
        print(result.markdown() if options.markdown else result.line(), flush=True)
    if options.json:
        Path(options.json).write_text(json.dumps([result._asdict() for result in results], indent=1))
    return int(bool(failed) or any(result.faults for result in results))


if __name__ == "__main__":
    sys.exit(main())
