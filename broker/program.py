"""What this program is called where it runs, so that each message and `--help` shows a command that can be typed.

Owns: that name. Must not know: what the program does. `python_version` says which Python must be able to read this.
"""

import os
import sys

COMMAND = "selectmq"


def name() -> str:
    """`selectmq` if the installed command was called, `python3 selectmq.pyz` from an archive, and else
    `python3 -m PACKAGE`: `broker` in a clone, `selectmq` where it is installed."""
    called = _called()
    if _is_command(called):
        return COMMAND
    if _is_archive(called):
        return f"python3 {called}"
    return f"python3 -m {__name__.partition('.')[0]}"


def is_running() -> bool:
    """Whether the process was started to be this program, and does not only import it."""
    called = _called()
    # "-m" stands there as long as Python looks for the module to run, and imports its package for that.
    return called == "-m" or _is_command(called) or _is_archive(called)


def _called() -> str:
    return sys.argv[0] if sys.argv else ""


def _is_command(called: str) -> bool:
    stem, extension = os.path.splitext(os.path.basename(called))
    return stem == COMMAND and extension in ("", ".exe")


def _is_archive(called: str) -> bool:
    """An archive is run as a file, and is what this module comes from."""
    return bool(called) and os.path.isfile(called) and os.path.abspath(__file__).startswith(
        os.path.abspath(called) + os.sep
    )  # fmt: skip
