"""What this program is called where it runs, so that each message shows a command that can be typed.

Owns: that name, and that of the broker beside it. Must not know: what the program does.
"""

import os
import sys

COMMAND = "selectmq-conformance"

#: The package that this is: `conformance` in a clone, `selectmq_conformance` where it is installed.
PACKAGE = __name__.partition(".")[0]

#: The broker of the same distribution, for `python3 -m`: a profile may start it.
BROKER = "broker" if PACKAGE == "conformance" else "selectmq"


def name() -> str:
    """`selectmq-conformance` if the installed command was called, else `python3 -m PACKAGE`."""
    stem, extension = os.path.splitext(os.path.basename(sys.argv[0] if sys.argv else ""))
    return COMMAND if stem == COMMAND and extension in ("", ".exe") else f"python3 -m {PACKAGE}"
