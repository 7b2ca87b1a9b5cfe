"""On which line of a TOML text each key stands.

`tomllib` knows the line of a syntax error only, but whoever wrote a wrong value wants to know where it is.

This module owns that one scan. It relies on `tomllib` having accepted the text, checks nothing itself, and must not
know which keys there may be.
"""

import re
import tomllib
from bisect import bisect_right
from contextlib import suppress

Key = tuple[str | int, ...]

_BLANK = re.compile(r"(?:[ \t\r\n]|\#[^\n]*)*+")
_SPACE = re.compile(r"[ \t]*+")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]++")
# A multi-line string may end in one or two quotes of its own before the three that close it.
_STRING = re.compile(
    r'''"""(?:[^"\\]|\\.|"{1,2}(?!"))*+"{3,5}|\'\'\'(?:[^']|'{1,2}(?!'))*+'{3,5}|"(?:[^"\\\n]|\\.)*+"|'[^'\n]*+\'''',
    re.DOTALL,
)
_SCALAR = re.compile(r"[^,\]}#\n]++")


def key_lines(text: str) -> dict[Key, int]:
    """The line (from 1) of every key, table and item of an array: {("listeners", 0, "port"): 7, ...}.

    `text` is TOML that `tomllib.loads` accepts. What the scan could not follow is missing, never guessed.
    """
    scan = _Scan(text)
    with suppress(_Lost):
        scan.document()
    return scan.lines


class _Lost(Exception):
    """The text is not what this scan takes TOML to be."""


class _Scan:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.lines: dict[Key, int] = {}
        self._breaks = [match.start() for match in re.finditer("\n", text)]
        self._tables: dict[Key, int] = {}  # how many tables each array of tables has so far

    def document(self) -> None:
        table: Key = ()
        self._skip(_BLANK)
        while self.at < len(self.text):
            start = self.at
            if self._take("[["):
                table = self._table(self._dotted_key(), start, array=True)
                self._expect("]]")
            elif self._take("["):
                table = self._table(self._dotted_key(), start, array=False)
                self._expect("]")
            else:
                self._pair(table)
            self._skip(_BLANK)

    def _table(self, names: list[str], start: int, *, array: bool) -> Key:
        path: Key = ()
        for depth, name in enumerate(names, 1):
            path += (name,)
            self._found(path, start)
            if array and depth == len(names):
                self._tables[path] = self._tables.get(path, 0) + 1
            if path in self._tables:  # the name of an array of tables means the last of them
                path += (self._tables[path] - 1,)
                self._found(path, start)
        return path

    def _pair(self, path: Key) -> None:
        start = self.at
        for name in self._dotted_key():
            path += (name,)
            self._found(path, start)
        self._expect("=")
        self._skip(_SPACE)
        self._value(path)

    def _value(self, path: Key) -> None:
        if self._take("["):
            self._skip(_BLANK)
            index = 0
            while not self._take("]"):
                self._found((*path, index), self.at)
                self._value((*path, index))
                index += 1
                self._separator("]")
        elif self._take("{"):
            self._skip(_BLANK)
            while not self._take("}"):
                self._pair(path)
                self._separator("}")
        elif self.text.startswith(("'", '"'), self.at):
            self._match(_STRING)
        else:
            self._match(_SCALAR)

    def _separator(self, end: str) -> None:
        self._skip(_BLANK)
        if not self.text.startswith(end, self.at):
            self._expect(",")
            self._skip(_BLANK)

    def _dotted_key(self) -> list[str]:
        names = [self._name()]
        while self._take("."):
            names.append(self._name())
        return names

    def _name(self) -> str:
        self._skip(_SPACE)
        if self.text.startswith(("'", '"'), self.at):
            name = self._unquoted(self._match(_STRING))
        else:
            name = self._match(_BARE_KEY)
        self._skip(_SPACE)
        return name

    @staticmethod
    def _unquoted(text: str) -> str:
        try:
            return str(tomllib.loads("name = " + text)["name"])
        except tomllib.TOMLDecodeError:
            raise _Lost from None

    def _found(self, path: Key, position: int) -> None:
        self.lines.setdefault(path, bisect_right(self._breaks, position) + 1)

    def _skip(self, pattern: re.Pattern[str]) -> None:
        self._match(pattern)

    def _match(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self.text, self.at)
        if match is None:
            raise _Lost
        self.at = match.end()
        return match[0]

    def _take(self, mark: str) -> bool:
        if not self.text.startswith(mark, self.at):
            return False
        self.at += len(mark)
        return True

    def _expect(self, mark: str) -> None:
        if not self._take(mark):
            raise _Lost
