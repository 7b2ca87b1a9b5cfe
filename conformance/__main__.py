"""`python3 -m conformance`, and the command `selectmq-conformance`."""

import sys

from . import program

if sys.version_info < (3, 11):  # noqa: UP036
    # In a clone nothing else looks. The first module that is missing would be named as one to install.
    sys.stderr.write(f"{program.name()}: needs Python 3.11 or later; this is Python {sys.version.split()[0]}\n")
    sys.exit(2)

try:
    from .cli import main
except ModuleNotFoundError as error:
    if str(error.name).partition(".")[0] == program.PACKAGE:
        raise
    sys.stderr.write(
        f"{program.name()}: the module {error.name} is not installed: run pip install 'selectmq[conformance]', or "
        "in a clone pip install '.[conformance]'\n"
    )
    sys.exit(2)

if __name__ == "__main__":
    sys.exit(main())
