"""A mosquitto.conf(5) as lines, each with the listener it belongs to.

Owns: the file's format as Mosquitto 2.0 and 2.1 read it: comments, `include_dir`, the listener that is open for
options that stand before any. Must not know: what a line means here (that is `conversion`).

Two things are read that Mosquitto itself refuses, as people write them and mean only one thing: spaces before a
comment, and a tab behind a name.
"""

import difflib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from ..os_reasons import reason
from .mosquitto_names import MOSQUITTO, mosquitto

_LARGEST_FILE = 4 << 20  # bytes, as for our own

#: Options that hold for one listener, and make Mosquitto open one on port 1883 where they stand before any.
_OF_A_LISTENER = {
    "accept_protocol_versions", "bind_address", "bind_interface", "cafile", "capath", "certfile", "ciphers",
    "ciphers_tls1.3", "crlfile", "dhparamfile", "disable_client_cert_date_checks", "enable_proxy_protocol", "http_dir",
    "keyfile", "listener_allow_anonymous", "listener_auto_id_prefix", "max_connections", "max_qos", "max_topic_alias",
    "max_topic_alias_broker", "maximum_qos", "mount_point", "plugin_use", "port", "protocol",
    "proxy_protocol_v2_require_tls", "psk_hint", "require_certificate", "socket_domain", "tls_engine",
    "tls_engine_kpass_sha1", "tls_keyform", "tls_version", "use_identity_as_username", "use_subject_as_username",
    "use_username_as_clientid", "websockets_origin",
}  # fmt: skip

#: Those that hold for all listeners, or with `per_listener_settings true` for one.
_OF_EITHER = {
    "acl_file", "allow_anonymous", "allow_zero_length_clientid", "auth_plugin", "auto_id_prefix", "password_file",
    "plugin", "psk_file",
}  # fmt: skip

#: They begin a plugin, whose `plugin_opt_*` follow.
PLUGINS = ("auth_plugin", "global_plugin", "plugin", "plugin_load", "plugin_use")


class NotMosquitto(Exception):
    """What cannot be read as a mosquitto.conf. str() is one line that says where, and what to do."""


class Line(NamedTuple):
    """One option of the file."""

    path: str
    number: int
    name: str
    value: str  #: all that stands behind the name, without the spaces around it

    @property
    def place(self) -> str:
        return f"{self.path}:{self.number}"

    @property
    def word(self) -> str:
        """The value of an option that takes one word: Mosquitto reads no further."""
        return self.value.split(maxsplit=1)[0] if self.value else ""


@dataclass(slots=True)
class Listener:
    """What is said of one listener. `line` opened it; None: options that stand before any listener did."""

    line: Line | None
    lines: list[Line] = field(default_factory=list)


@dataclass(slots=True)
class Conf:
    """A whole mosquitto.conf with the files that it includes."""

    path: str
    general: list[Line] = field(default_factory=list)
    listeners: list[Listener] = field(default_factory=list)

    def lines(self) -> Iterator[Line]:
        yield from self.general
        for listener in self.listeners:
            if listener.line is not None:
                yield listener.line
            yield from listener.lines


def read(path: str, directory: str) -> Conf:
    """The file, with those of its `include_dir`; `directory` is where Mosquitto was started. Raises NotMosquitto."""
    return _Reader(path, directory).conf


class _Reader:
    def __init__(self, path: str, directory: str) -> None:
        self.conf = Conf(path)
        self._directory = directory
        self._default = Listener(None)
        self._each = False  # per_listener_settings
        lines = list(_lines(path))
        _check(lines)
        self._take(lines, main=True)
        if any(line.name not in ("acl_file", "allow_anonymous", "tls_version") for line in self._default.lines):
            self.conf.listeners.insert(0, self._default)
        else:  # Mosquitto makes nothing of them
            self.conf.general += self._default.lines

    def _take(self, lines: list[Line], *, main: bool) -> None:
        listener = self._default  # each file begins anew with it
        plugin: list[Line] = self.conf.general
        for line in lines:
            if line.name == "include_dir" and main:
                self._include(line)
            elif line.name == "listener":
                listener = Listener(line)
                self.conf.listeners.append(listener)
            elif line.name in ("port", "bind_address"):
                listener = self._default
                listener.lines.append(line)
            elif line.name.startswith(("auth_opt_", "plugin_opt_")):
                plugin.append(line)
            else:
                of_listener = line.name in _OF_A_LISTENER or (self._each and line.name in _OF_EITHER)
                place = listener.lines if of_listener else self.conf.general
                place.append(line)
                if line.name in PLUGINS:
                    plugin = place
                elif line.name == "per_listener_settings":
                    self._each = self._each or line.word in ("true", "1")

    def _include(self, line: Line) -> None:
        folder = os.path.join(self._directory, line.value)
        try:
            names = [name for name in os.listdir(folder) if name.endswith(".conf") and name != ".conf"]
        except OSError as error:
            why = reason(error)
            raise NotMosquitto(f"{line.place}: include_dir {line.value!r} cannot be read: {why}") from None
        # A before a, before B: as Mosquitto loads them.
        for name in sorted(names, key=lambda name: [(letter.upper(), letter) for letter in name]):
            path = os.path.join(line.value, name)
            lines = list(_lines(path, self._directory))
            _check(lines)
            self._take(lines, main=False)


def _lines(path: str, directory: str = "") -> Iterator[Line]:
    """The options of one file. Raises NotMosquitto."""
    for number, text in enumerate(_text(path, os.path.join(directory, path)).split("\n"), 1):
        text = text.strip(" \t\r")
        if text and not text.startswith("#"):
            name, *value = text.split(maxsplit=1)
            yield Line(path, number, name, value[0] if value else "")


def _text(path: str, place: str) -> str:
    try:
        with open(place, "rb") as file:
            data = file.read(_LARGEST_FILE + 1)
    except FileNotFoundError:
        raise NotMosquitto(f"{path}: there is no such file: correct its name") from None
    except IsADirectoryError:
        raise NotMosquitto(f"{path}: is a directory: name the mosquitto.conf in it") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise NotMosquitto(f"{path}: cannot be read: {reason(error)}") from None
    if len(data) > _LARGEST_FILE:
        raise NotMosquitto(f"{path}: is larger than 4 MiB: is it a mosquitto.conf?")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = data.count(b"\n", 0, error.start) + 1
        raise NotMosquitto(f"{path}:{number}: is not UTF-8, which Mosquitto wants too: save it as UTF-8") from None


def _check(lines: list[Line]) -> None:
    """Is it a mosquitto.conf? Not if Mosquitto knows fewer than half of the names in it. Raises NotMosquitto."""
    for line in lines:
        if line.value.startswith("=") or "=" in line.name or line.name.startswith("["):
            raise NotMosquitto(f"{line.place}: this is no mosquitto.conf but TOML or INI: {_brief(line)!r}")
        known = mosquitto(line.name)
        # In a bridge's `topic # both` it is the value.
        if known is not None and (not line.value or (known.options and line.value.startswith("#"))):
            why = "has no value, with which Mosquitto does not start: give it one"
            raise NotMosquitto(f"{line.place}: {line.name} {why}")
    unknown = [line for line in lines if mosquitto(line.name) is None]
    if 2 * len(unknown) > len(lines):
        first = unknown[0]
        raise NotMosquitto(f"{first.place}: this is no mosquitto.conf: Mosquitto has no option {_brief(first)!r}")


def _brief(line: Line) -> str:
    """Its name; no more than that if it is a line of a password file."""
    name = line.name.partition(":")[0]
    return name if len(name) <= 40 else name[:37] + "..."


def nearest(name: str) -> str:
    """The end of a sentence about a name that Mosquitto does not know."""
    near = difflib.get_close_matches(name, MOSQUITTO, 1, 0.7)
    return f"; did you mean {near[0]}?" if near else ""
