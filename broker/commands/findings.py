"""What `check` has found: one thing that is wrong, and whether a start would fail because of it.

Owns: that pair. Must not know: who finds.
"""

from typing import NamedTuple


class Finding(NamedTuple):
    text: str  #: one line: where, what, and what to do
    is_error: bool


def error(text: str) -> Finding:
    return Finding(text, True)


def warning(text: str) -> Finding:
    return Finding(text, False)
