"""`python -m conformance`"""

import sys

try:
    from conformance.cli import main
except ModuleNotFoundError as error:
    if str(error.name).partition(".")[0] == "conformance":
        raise
    sys.stderr.write(
        f"python -m conformance: the module {error.name} is not installed: run pip install 'selectmq[conformance]', or "
        "in a clone pip install '.[conformance]'\n"
    )
    sys.exit(2)

if __name__ == "__main__":
    sys.exit(main())
