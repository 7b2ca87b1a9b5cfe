"""`python -m broker`."""

import sys

from broker.cli import run

if __name__ == "__main__":
    sys.exit(run())
