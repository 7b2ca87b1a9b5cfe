"""The kinds of values that options take: how each is read, checked and written.

This module owns the spelling of integers, sizes, durations, paths, addresses and lists, and what is said about a wrong
one. It must not know which options there are (`options`), nor where a value comes from (`loading`).
"""

import ipaddress
import json
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

NOTATION = (
    "SIZE is a number of bytes, or has a unit: B, kB, MB, GB, TB (1000), KiB, MiB, GiB, TiB (1024). "
    "DURATION is a number of seconds, or has a unit: s, m, h, d."
)

#: In a list of peers: all that reach the listener's Unix socket.
UNIX = "unix"


class Refused(Exception):
    """A value that an option does not take.

    `why` continues a sentence that begins with the option's name: "must be an integer from 1 to 64, not 0". `within`
    names the keys below the option that lead to the value at fault, where the option is a table.
    """

    def __init__(self, why: str, *within: str) -> None:
        super().__init__(why)
        self.why = why
        self.within = within


def brief(value: object) -> str:
    """`value` for a message of one line: short, and spelled as in TOML where that is easy."""
    match value:
        case bool():
            return str(value).lower()
        case int() if abs(value) >= 10**20:
            return "a number of more than 20 digits"  # str() itself gives up on an integer of over 4300 digits
        case str():
            return repr(value) if len(value) <= 60 else repr(value[:57] + "...")
        case Mapping():
            return "a table"
        case list() | tuple() | set() | frozenset():
            return "a list"
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _toml_string(text: str) -> str:
    # JSON's escapes are all TOML's, too; but TOML wants DEL escaped as well, and no surrogates.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f").encode("utf-8", "backslashreplace").decode()


class Kind(ABC):
    """Which values an option takes, and how they are written."""

    metavar: ClassVar[str]
    notation: ClassVar[str] = ""  # how a value may be written, where that is not plain; ends an error message
    bare: ClassVar[str | None] = None  # a regular expression: what in TOML stands without quotes

    @property
    @abstractmethod
    def example(self) -> str:
        """A value as it stands in the file, where there is no default to show."""

    @property
    @abstractmethod
    def values(self) -> str:
        """What is allowed, as it goes on after "must be": "an integer from 1 to 64"."""

    @abstractmethod
    def read(self, value: object) -> Any:
        """The typed value of a TOML or Python value; raises `Refused`."""

    def parse(self, text: str) -> Any:
        """The typed value of a flag's text; raises `Refused`."""
        return self.read(text)

    def resolve(self, value: Any, base: str) -> Any:
        """`value` made independent of `base`, the directory that relative paths start from; raises `Refused`."""
        return value

    def text(self, value: Any) -> str:
        """`value` as a flag takes it, in the shortest spelling."""
        return str(value)

    def toml(self, value: Any) -> str:
        """`value` as the file takes it."""
        text = self.text(value)
        return text if self.bare is not None and re.fullmatch(self.bare, text) else _toml_string(text)

    def refused(self, value: object, hint: str = "") -> Refused:
        if isinstance(value, str) and self.bare is not None and re.fullmatch(self.bare, value):
            hint = "; write it without quotes"
        return Refused(f"must be {self.values}{self.notation}, not {brief(value)}{hint}")


@dataclass(frozen=True, slots=True)
class Integer(Kind):
    """An int from `low` to `high`."""

    low: int
    high: int
    metavar = "N"
    bare = "-?[0-9]{1,30}"

    @property
    def example(self) -> str:
        return str(self.low)

    @property
    def values(self) -> str:
        return f"an integer from {self.low} to {self.high}"

    def read(self, value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not self.low <= value <= self.high:
            raise self.refused(value)
        return int(value)

    def parse(self, text: str) -> int:
        # int() alone would take " 1_000 " and the digits of other scripts as well.
        return self.read(int(text) if re.fullmatch(self.bare, text) else text)


@dataclass(frozen=True, slots=True)
class Boolean(Kind):
    """A bool; as a flag it is `--name` or `--no-name`."""

    metavar = ""
    bare = "true|false"

    @property
    def example(self) -> str:
        return "true"

    @property
    def values(self) -> str:
        return "true or false"

    def read(self, value: object) -> bool:
        if not isinstance(value, bool):
            raise self.refused(value)
        return value

    def text(self, value: bool) -> str:
        return "true" if value else "false"


def _in_units(number: float, units: dict[str, int], gap: str) -> str:
    """`number` in the largest of `units` (in rising order) that gives a whole number; without a unit if none does."""
    for unit, worth in reversed(units.items()):
        if number and number % worth == 0:
            return f"{number // worth:.0f}{gap}{unit}"
    return str(number) if number else "0"


@dataclass(frozen=True, slots=True)
class Size(Kind):
    """An int of bytes from `low` to `high`."""

    low: int
    high: int
    metavar = "SIZE"
    notation = ' (a number of bytes, or a text such as "64 KiB", "1 MiB", "10MB")'
    bare = "-?[0-9]{1,30}"
    binary: ClassVar[dict[str, int]] = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
    decimal: ClassVar[dict[str, int]] = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}

    @property
    def example(self) -> str:
        return self.toml(self.low)

    @property
    def values(self) -> str:
        return f"a size from {self.text(self.low)} to {self.text(self.high)}"

    def read(self, value: object) -> int:
        number = value
        if isinstance(value, str) and (match := re.fullmatch("([0-9]{1,30}) ?([A-Za-z]+)", value)):
            worth = {unit.lower(): worth for unit, worth in (self.binary | self.decimal).items()}
            number = int(match[1]) * worth.get(match[2].lower(), -1)
        if not isinstance(number, int) or isinstance(number, bool) or not self.low <= number <= self.high:
            raise self.refused(value)
        return int(number)

    def parse(self, text: str) -> int:
        return self.read(int(text) if re.fullmatch(self.bare, text) else text)

    def text(self, value: int) -> str:
        return _in_units(value, self.binary, " ")


@dataclass(frozen=True, slots=True)
class Duration(Kind):
    """A float of seconds from `low` to `high`."""

    low: float
    high: float
    metavar = "DURATION"
    notation = ' (a number of seconds, or a text such as "90s", "15m", "2h", "7d")'
    bare = r"-?[0-9]{1,30}(\.[0-9]{1,30})?(e-?[0-9]{1,2})?"
    units: ClassVar[dict[str, int]] = {"s": 1, "m": 60, "h": 3600, "d": 86400}

    @property
    def example(self) -> str:
        return self.toml(self.low)

    @property
    def values(self) -> str:
        return f"a duration from {self.text(self.low)} to {self.text(self.high)}"

    def read(self, value: object) -> float:
        number = value
        if isinstance(value, str) and (match := re.fullmatch(r"([0-9]{1,30}(?:\.[0-9]{1,30})?) ?([smhd])", value)):
            number = float(match[1]) * self.units[match[2]]
        # `low <= number` is false for TOML's nan, `number <= high` for its inf.
        if not isinstance(number, (int, float)) or isinstance(number, bool) or not self.low <= number <= self.high:
            raise self.refused(value)
        return float(number)

    def parse(self, text: str) -> float:
        return self.read(float(text) if re.fullmatch(self.bare, text) else text)

    def text(self, value: float) -> str:
        text = _in_units(value, self.units, "")
        return f"{text}s" if re.fullmatch(r"[0-9]+\.[0-9]+", text) else text


@dataclass(frozen=True, slots=True)
class Choice(Kind):
    """One of a few words."""

    words: tuple[str, ...]
    metavar = "WORD"

    @property
    def example(self) -> str:
        return _toml_string(self.words[0])

    @property
    def values(self) -> str:
        return "one of " + ", ".join(map(repr, self.words))

    def read(self, value: object) -> str:
        if not isinstance(value, str) or value not in self.words:
            raise self.refused(value)
        return value


@dataclass(frozen=True, slots=True)
class Text(Kind):
    """Any text that MQTT can carry, and a terminal can show; it may be empty."""

    metavar = "TEXT"

    @property
    def example(self) -> str:
        return '"TEXT"'

    @property
    def values(self) -> str:
        return "a text"

    def read(self, value: object) -> str:
        if not isinstance(value, str):
            raise self.refused(value)
        if not value.isprintable() and value:
            raise Refused("must be a text of printable characters")
        return value


@dataclass(frozen=True, slots=True)
class Path(Kind):
    """A path of a file or directory; absolute once it is resolved."""

    metavar = "PATH"

    @property
    def example(self) -> str:
        return '"PATH"'

    @property
    def values(self) -> str:
        return "a path"

    def read(self, value: object) -> str:
        path = os.fspath(value) if isinstance(value, os.PathLike) else value
        if not isinstance(path, str) or not path or "\0" in path:
            raise self.refused(path)
        return path

    def resolve(self, value: str, base: str) -> str:
        path = os.path.expanduser(value)
        if path.startswith("~"):
            raise self.refused(value, f": there is no such home directory; write {'./' + value!r} if '~' is in a name")
        return os.path.abspath(os.path.join(base, path))


@dataclass(frozen=True, slots=True)
class SocketPath(Path):
    """The path of a Unix socket."""

    longest: ClassVar[int] = 107  # bytes, on Linux; where there are fewer, the system says so

    def resolve(self, value: str, base: str) -> str:
        path = Path.resolve(self, value, base)  # super() does not know a class with slots
        if len(os.fsencode(path)) > self.longest:
            raise Refused(f"must be a path of at most {self.longest} bytes for a Unix socket, not {brief(path)}")
        return path


@dataclass(frozen=True, slots=True)
class Mode(Kind):
    """The permissions of a file: a text of four octal digits. A number could be meant otherwise: 660 is not 0o660."""

    metavar = "MODE"

    @property
    def example(self) -> str:
        return '"0660"'

    @property
    def values(self) -> str:
        return 'a file mode in octal, such as "0660"'

    def read(self, value: object) -> str:
        if not isinstance(value, str) or not re.fullmatch("0?[0-7]{3}", value):
            raise self.refused(value, "; write it as a text" if isinstance(value, int) else "")
        return value.rjust(4, "0")


@dataclass(frozen=True, slots=True)
class Address(Kind):
    """An IP address or a host name to listen on."""

    metavar = "ADDRESS"

    @property
    def example(self) -> str:
        return '"0.0.0.0"'

    @property
    def values(self) -> str:
        return "an IP address or a host name"

    def read(self, value: object) -> str:
        if not isinstance(value, str):
            raise self.refused(value)
        if value in ("", "*"):
            raise self.refused(value, "; all addresses are '0.0.0.0' (IPv4) or '::' (IPv6)")
        if is_ip(value):
            return value
        if (bracketed := re.fullmatch(r"\[(.*)\]", value)) and is_ip(bracketed[1]):
            raise self.refused(value, f"; write it without brackets: {bracketed[1]!r}")
        if with_port := re.fullmatch(r"\[?([^:/\[\]]+|[0-9A-Fa-f:.]+)\]?:([0-9]{1,5})", value):
            raise self.refused(value, f"; write {with_port[1]!r}, and the port {with_port[2]} as 'port'")
        if re.search(r"[\s:/\[\]*%]", value) or not value.isprintable() or re.fullmatch("[0-9.]+", value):
            raise self.refused(value)
        return value


@dataclass(frozen=True, slots=True)
class Texts(Kind):
    """A list of texts, none of them empty: a tuple without repetitions, in the order given."""

    metavar = "LIST"

    @property
    def example(self) -> str:
        return '["TEXT", "TEXT"]'

    @property
    def values(self) -> str:
        return "a list of texts, none of them empty"

    def read(self, value: object) -> tuple[str, ...]:
        if not isinstance(value, (list, tuple, set, frozenset)):
            raise self.refused(value, f"; write [{_toml_string(value)}]" if isinstance(value, str) and value else "")
        for item in value:
            if not isinstance(item, str) or not item:
                raise Refused(f"must be {self.values}, and one of them is {brief(item)}")
        return tuple(dict.fromkeys(value))

    def toml(self, value: Iterable[str]) -> str:
        return "[" + ", ".join(map(_toml_string, value)) + "]"


@dataclass(frozen=True, slots=True)
class Choices(Kind):
    """Some of a few words: a tuple without repetitions, in the order of `words`."""

    words: tuple[str, ...]
    metavar = "LIST"

    @property
    def example(self) -> str:
        return f"[{_toml_string(self.words[-1])}]"

    @property
    def values(self) -> str:
        return "a list of one or more of " + ", ".join(map(repr, self.words))

    def read(self, value: object) -> tuple[str, ...]:
        if not isinstance(value, (list, tuple, set, frozenset)):
            raise self.refused(value, f"; write [{_toml_string(value)}]" if value in self.words else "")
        for item in value:
            if item not in self.words:
                raise Refused(f"must be {self.values}, and one of them is {brief(item)}")
        if not value:
            raise Refused(f"must be {self.values}, and it is empty")
        return tuple(word for word in self.words if word in value)

    def toml(self, value: Iterable[str]) -> str:
        return "[" + ", ".join(map(_toml_string, value)) + "]"


@dataclass(frozen=True, slots=True)
class Peers(Kind):
    """Who connects: IP addresses, networks, or UNIX for all that reach a Unix socket. A tuple without repetitions."""

    metavar = "LIST"

    @property
    def example(self) -> str:
        return '["10.0.0.0/8"]'

    @property
    def values(self) -> str:
        return f'a list of IP addresses and networks such as "10.0.0.0/8", or "{UNIX}" for a Unix socket'

    def read(self, value: object) -> tuple[str, ...]:
        if not isinstance(value, (list, tuple, set, frozenset)):
            raise self.refused(value, f"; write [{_toml_string(value)}]" if isinstance(value, str) and value else "")
        return tuple(dict.fromkeys(map(self._peer, value)))

    def _peer(self, value: object) -> str:
        if value == UNIX:
            return UNIX
        refused = Refused(f"must be {self.values}, and one of them is {brief(value)}{self._hint(value)}")
        if not isinstance(value, str) or "%" in value:
            raise refused
        try:
            network = ipaddress.ip_network(value, strict=False)
        except ValueError:
            raise refused from None
        if isinstance(network, ipaddress.IPv6Network) and network.network_address.ipv4_mapped is not None:
            raise Refused(f"has {brief(value)}: write it as IPv4")
        given = ipaddress.ip_address(value.partition("/")[0])
        if given != network.network_address:
            raise Refused(f"has {brief(value)}, but the network is {str(network)!r}, and the address {str(given)!r}")
        return str(given if network.prefixlen == network.max_prefixlen else network)

    @staticmethod
    def _hint(value: object) -> str:
        if value == "*":
            return "; all addresses are '0.0.0.0/0' and '::/0'"
        return "; write '127.0.0.1' or '::1'" if value == "localhost" else ""

    def toml(self, value: Iterable[str]) -> str:
        return Texts().toml(value)


@dataclass(frozen=True, slots=True)
class UrlPath(Kind):
    """The path of a URL, such as "/mqtt"."""

    metavar = "PATH"

    @property
    def example(self) -> str:
        return '"/mqtt"'

    @property
    def values(self) -> str:
        return "the path of a URL"

    def read(self, value: object) -> str:
        if not isinstance(value, str) or not re.fullmatch("/[!-~]*", value) or re.search("[?#]", value):
            hint = ""
            if isinstance(value, str):
                path = re.sub(r"^(wss?://[^/]*|(?!/))/?", "/", value, count=1)
                hint = f"; did you mean {brief(path)}?" if re.fullmatch("/[^?# ]*", path) and path != value else ""
            raise self.refused(value, hint)
        return value


@dataclass(frozen=True, slots=True)
class Origins(Kind):
    """Origins of web pages, as browsers write them: a tuple without repetitions."""

    metavar = "LIST"

    @property
    def example(self) -> str:
        return '["https://example.com"]'

    @property
    def values(self) -> str:
        return 'a list of origins such as "https://example.com", or "*" for any'

    def read(self, value: object) -> tuple[str, ...]:
        if not isinstance(value, (list, tuple, set, frozenset)):
            raise self.refused(value, f"; write [{_toml_string(value)}]" if isinstance(value, str) and value else "")
        return tuple(dict.fromkeys(map(self._origin, value)))

    def _origin(self, value: object) -> str:
        if value in ("*", "null"):  # null: pages from files, and in frames that are locked in
            return str(value)
        form = r"([a-z][a-z0-9+.-]*)://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?"
        match = re.match(form, value.lower()) if isinstance(value, str) else None
        if match is None:
            raise Refused(f"must be {self.values}, and one of them is {brief(value)}")
        standard = match.group(1, 3) in (("http", ":80"), ("https", ":443"))  # browsers leave it out
        origin = match[0].removesuffix(match[3]) if standard else match[0]
        if match[0] != str(value).lower():
            raise Refused(f"has {brief(value)}, but an origin is no more than {origin!r}")
        return origin

    def toml(self, value: Iterable[str]) -> str:
        return Texts().toml(value)


@dataclass(frozen=True, slots=True)
class Patterns(Kind):
    """A table from a user's name (or "*") to ClientId patterns, in which `%u` and `*` have a meaning."""

    metavar = "TABLE"

    @property
    def example(self) -> str:
        return '{ "USER" = ["PATTERN"] }'

    @property
    def values(self) -> str:
        return "a table of user name = list of ClientId patterns"

    def read(self, value: object) -> Mapping[str, tuple[str, ...]]:
        if not isinstance(value, Mapping):
            raise self.refused(value)
        return MappingProxyType({user: self._patterns(user, patterns) for user, patterns in value.items()})

    def _patterns(self, user: object, value: object) -> tuple[str, ...]:
        if not isinstance(user, str) or not user:
            raise Refused(f"must be {self.values}, and one of the names is {brief(user)}")
        try:
            patterns = Texts().read(value)
        except Refused as refused:
            raise Refused(refused.why, user) from None
        if not patterns:
            raise Refused("must have a pattern; to refuse the user altogether use 'deny_users'", user)
        for pattern in patterns:
            if re.search("%(?!u)", pattern):
                raise Refused(f"has {brief(pattern)}, but '%' stands only in '%u', the user's name", user)
        return patterns

    def toml(self, value: Mapping[str, Iterable[str]]) -> str:
        pairs = (f"{_toml_string(user)} = {Texts().toml(patterns)}" for user, patterns in value.items())
        return "{" + ", ".join(pairs) + "}"


@dataclass(frozen=True, slots=True)
class ChoiceTable(Kind):
    """A table from names to one of a few words each."""

    what: str  #: what the names are of
    words: tuple[str, ...]
    metavar = "TABLE"

    @property
    def example(self) -> str:
        return f'{{ "NAME" = "{self.words[0]}" }}'

    @property
    def values(self) -> str:
        return f"a table of {self.what} = one of " + ", ".join(map(repr, self.words))

    def read(self, value: object) -> Mapping[str, str]:
        if not isinstance(value, Mapping):
            raise self.refused(value)
        for name, word in value.items():
            if not isinstance(name, str) or not name or set(name) & set("/+#"):
                raise Refused(f"must be {self.values}, and one of the names is {brief(name)}")
            try:
                Choice(self.words).read(word)
            except Refused as refused:
                raise Refused(refused.why, name) from None
        return MappingProxyType(dict(value))

    def toml(self, value: Mapping[str, str]) -> str:
        return "{" + ", ".join(f"{_toml_string(name)} = {_toml_string(word)}" for name, word in value.items()) + "}"


def is_ip(address: str) -> bool:
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return False
    return True


def canonical(bind: str) -> str:
    """One spelling for all spellings of an address or name."""
    return str(ipaddress.ip_address(bind)) if is_ip(bind) else bind.lower()


def is_loopback(bind: str) -> bool:
    """Whether `bind` is in 127.0.0.0/8, is ::1 or "localhost". Any other name counts as open to the network."""
    if not is_ip(bind):
        return bind.lower() == "localhost"
    address = ipaddress.ip_address(bind)
    # Not is_loopback of `ipaddress`: whether it takes ::ffff:127.0.0.1 in depends on the version of Python.
    return address in ipaddress.ip_network("127.0.0.0/8") or address == ipaddress.ip_address("::1")
