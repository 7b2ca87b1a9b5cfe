"""`python3 -m broker`, and the installed command `selectmq`."""

import sys

from . import signals


def main() -> int:
    signals.hold()  # before what takes time, which begins with the imports
    from .cli import run

    return run()


if __name__ == "__main__":
    sys.exit(main())
