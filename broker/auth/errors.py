"""The one error that a password file or an ACL file raises, and the reading whose every failure says where.

Owns: how such a file is read and how its faults are told. Must not know: what its lines mean.
"""

import codecs
import difflib
from collections.abc import Iterable, Sequence

from .. import os_reasons

#: What stands around words and is not part of them. Not str.strip()'s set, which has spaces beyond ASCII.
BLANKS = " \t\r\v\f\n"


class FileError(Exception):
    """A file that cannot be used. `str()` is one line, `path:line: why`, and says what to do.

    `line` counts from 1 and is None where the fault is not one line's. A password never appears in `why`. `others` are
    the further faults of the same file.
    """

    def __init__(self, path: str, line: int | None, why: str) -> None:
        super().__init__(path, line, why)
        self.path = path
        self.line = line
        self.why = why
        self.others: tuple[FileError, ...] = ()

    @property
    def all(self) -> "tuple[FileError, ...]":
        return self, *self.others

    def __str__(self) -> str:
        where = self.path if self.line is None else f"{self.path}:{self.line}"
        return f"{where}: {self.why}"


def tell(faults: Sequence[FileError]) -> None:
    """Raise the first, which knows the others, if there is any."""
    if faults:
        faults[0].others = tuple(faults[1:])
        raise faults[0]


def read_bytes(path: str) -> bytes:
    """The whole file. Raises FileError with the reason and the remedy."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise FileError(path, None, os_reasons.reading(error)) from None


def read_lines(path: str) -> list[str]:
    """The file's lines without their ends, of UTF-8 text. Raises FileError."""
    data = read_bytes(path)
    if data.startswith(codecs.BOM_UTF8):
        # It would silently become part of the first line's first word.
        raise FileError(path, 1, "it begins with a byte-order mark: save the file as UTF-8 without one")
    lines = []
    # At "\n" only: str.splitlines() would also cut at characters that may stand in a name.
    for number, line in enumerate(data.split(b"\n"), 1):
        try:
            lines.append(line.decode())
        except UnicodeDecodeError:
            raise FileError(path, number, "this line is not valid UTF-8: save the file as UTF-8") from None
    return lines


def is_printable_name(name: str) -> bool:
    """Whether a name has no control character: one could not be told apart from another in a file or a log."""
    return not any(c < " " or "\x7f" <= c < "\xa0" for c in name)


def shown(text: str) -> str:
    """A word from a file or a command line for an error message: quoted, escaped, and cut when it is long."""
    return repr(text if len(text) <= 60 else text[:57] + "...")


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'a' or 'b'?`, and nothing where no known word is near."""
    near = difflib.get_close_matches(word, list(known), n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(shown(name) for name in near)}?" if near else ""
