"""Runs one attack in this process, so that it does not share the measuring client's interpreter lock.

    python -m tests.attacks.attacker NAME DIRECTORY SCALE PID HOST:PORT...

Owns: this command line. Must not know: how attacks are measured.
"""

import resource
import sys
from pathlib import Path

from tests.attacks import (  # noqa: F401  # they fill the table
    on_memory,
    on_places,
    on_properties,
    on_time,
    on_tls,
    time_by_acknowledging,
    time_by_connecting,
    time_by_subscribing,
)
from tests.attacks.ground import ATTACKS, Ground


def main(arguments: list[str]) -> None:
    name, directory, scale, pid, *places = arguments
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    addresses = [(host, int(port)) for host, _, port in (place.rpartition(":") for place in places)]
    ATTACKS[name].run(Ground(addresses, int(pid), Path(directory), float(scale)))


if __name__ == "__main__":
    main(sys.argv[1:])
