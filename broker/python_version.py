"""Who starts this with a Python that is too old is told so in one line, before that Python trips over the rest.

Owns: which Python is the oldest. Must not know: anything that needs it: Python 3.6 can read and run this file, as well
as `program.py` and the package's `__init__.py` down to the check.
"""

import sys

from . import program

OLDEST = (3, 11)


def fault(major: int, minor: int) -> str:
    """What is wrong with this version of Python; "" if nothing is."""
    if (major, minor) >= OLDEST:
        return ""
    return f"needs Python {OLDEST[0]}.{OLDEST[1]} or later; this is Python {major}.{minor} ({sys.executable})"


def check(major: int = sys.version_info[0], minor: int = sys.version_info[1]) -> None:
    """End the command with exit code 2 if Python is too old; where we are only imported, raise ImportError."""
    why = fault(major, minor)
    if why and program.is_running():
        print(f"{program.name()}: {why}", file=sys.stderr)
        raise SystemExit(2)
    if why:
        raise ImportError(f"selectmq {why}")
