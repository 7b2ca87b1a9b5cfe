"""`python3 -m conformance`, and the command `selectmq-conformance`."""

import sys

from . import program

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
