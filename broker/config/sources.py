"""Where options are read from, and how a place there is named: "b.toml:3: 'port'", "port=:".

Owns: the beginnings of messages. Must not know: what options there are, and what is said behind.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from .toml_lines import Key


class Source(Protocol):
    """Where options are read from. A key is a path such as ("listeners", 0, "port")."""

    @property
    def base(self) -> str:
        """The directory that relative paths start from; "" is the working directory."""

    @property
    def is_file(self) -> bool: ...

    def place(self, key: Key) -> str:
        """The beginning of a message about the place of `key`."""

    def where(self, key: Key) -> str:
        """The beginning of a message about the value of `key`."""

    def unknown(self, key: Key) -> str:
        """The beginning of a message about a key that should not be there."""


@dataclass(frozen=True, slots=True)
class File:
    path: str
    base: str
    lines: Mapping[Key, int]
    is_file = True

    def place(self, key: Key) -> str:
        while key and key not in self.lines:
            key = key[:-1]
        return f"{self.path}:{self.lines[key]}" if key else self.path

    def where(self, key: Key) -> str:
        return f"{self.place(key)}: '{self._name(key)}'"

    def unknown(self, key: Key) -> str:
        return f"{self.place(key)}: unknown key '{self._name(key)}'"

    @staticmethod
    def _name(key: Key) -> str:
        return ".".join(str(part) for part in (key[2:] if key[0] == "listeners" and len(key) > 2 else key))


class Keywords:
    base = ""
    is_file = False

    def place(self, key: Key) -> str:
        return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in key)[1:] + "="

    def where(self, key: Key) -> str:
        return f"{self.place(key)}:"

    def unknown(self, key: Key) -> str:
        return f"{self.place(key)}: unknown keyword argument"
