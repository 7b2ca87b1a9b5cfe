"""What this program is called where it runs, so that each message and `--help` shows a command that can be typed.

Owns: that name. Must not know: what the program does.
"""

import os
import sys

COMMAND = "selectmq"


def name() -> str:
    """`selectmq` if the installed command was called, `python3 selectmq.pyz` from an archive, and else
    `python3 -m PACKAGE`: `broker` in a clone, `selectmq` where it is installed."""
    called = sys.argv[0] if sys.argv else ""
    stem, extension = os.path.splitext(os.path.basename(called))
    if stem == COMMAND and extension in ("", ".exe"):
        return COMMAND
    if extension == ".pyz":
        return f"python3 {called}"
    return f"python3 -m {__name__.partition('.')[0]}"
