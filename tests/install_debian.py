"""Installs the Debian packages that tests run against, where this machine lacks them and we may.

    python tests/install_debian.py PROGRAM=PACKAGE ...

Does nothing where the programs are there. Where it cannot install, it says what to install, and fails: a test that
needs a program and does not find it must not pass as skipped.
"""

import os
import shutil
import subprocess
import sys


def main(wanted: list[str]) -> int:
    missing = [pair.partition("=")[2] for pair in wanted if _find(pair.partition("=")[0]) is None]
    if not missing:
        return 0
    command = ["apt-get", "install", "--yes", "--no-install-recommends", *missing]
    if shutil.which("apt-get") is None:
        print(f"tests need {', '.join(missing)}: install what your system calls them", file=sys.stderr)
        return 1
    prefix = [] if os.geteuid() == 0 else ["sudo", "--non-interactive"]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for step in (["apt-get", "update"], command):
        try:
            result = subprocess.run([*prefix, *step], env=environment, capture_output=True, text=True)
        except OSError as error:
            print(f"tests need {', '.join(missing)}: {error}; run: sudo {' '.join(command)}", file=sys.stderr)
            return 1
        if result.returncode and step is command:
            print(f"{result.stderr}\ntests need {', '.join(missing)}; run: sudo {' '.join(command)}", file=sys.stderr)
            return 1
    return 0


def _find(program: str) -> str | None:
    return shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
