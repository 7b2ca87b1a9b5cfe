"""How the arguments of every command are parsed: a mistake is one line on standard error and exit code 2.

Owns: that parser. Must not know: any command.
"""

import argparse
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """Tells a mistake in one line, and not below the list of all flags. Abbreviated flags are mistakes, too."""

    def __init__(self, prog: str, description: str, epilog: str | None = None) -> None:
        super().__init__(prog=prog, description=description, epilog=epilog, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; --help shows how to use it\n")
