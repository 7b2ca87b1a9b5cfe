"""Configuration: from a TOML file, flags or keyword arguments to one checked `Config`.

Later sources win: default, top level of the file, its `[[listeners]]`, then the flags or the keyword arguments.

    config = load(args.config, from_args(args))                       # python -m broker; --check does no more than this
    config = load(None, from_keywords({"port": 0, "memory": True}))   # an embedded Broker(port=0, memory=True)
    new = load(args.config, from_args(args))                          # SIGHUP: read again what was read at the start,
    changes, config = config.changes(new), config.reloaded(new)       # and take over what can change while running

This module owns reading, merging and the rules between options; every mistake of a user is a `ConfigError` of one line.
It must not know any part of the broker: whether a password file is well-formed or an address is free shows later.
"""

import os
import re
import tomllib
from argparse import Namespace
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any, NamedTuple, NoReturn

from ..addresses import collide
from ..os_reasons import reason
from .kinds import UNIX, Boolean, Patterns, Refused, Texts, brief, canonical
from .mistakes import ConfigError, Mistakes
from .mosquitto_names import MOSQUITTO, answer
from .options import (
    GLOBAL_OPTIONS,
    LISTENER_OPTIONS,
    OPTIONS,
    Change,
    Config,
    ListenerConfig,
    Option,
    add_flags,
    markdown_table,
)
from .sources import File, Keywords, Source
from .toml_lines import Key, key_lines
from .unknown import about_flag, about_key, about_mosquitto_conf, about_word, meant_by, plain

__all__ = [
    "Change",
    "Config",
    "ConfigError",
    "ListenerConfig",
    "Mistakes",
    "Overrides",
    "add_flags",
    "from_args",
    "from_keywords",
    "load",
    "markdown_table",
    "unknown_flag",
]

_LARGEST_FILE = 4 << 20  # bytes; nobody writes more by hand, and /dev/zero never ends

# Options that without another would do nothing, though somebody may rely on them.
_NEEDS = {
    "key": "certificate",
    "certificate_chain": "certificate",
    "client_ca": "certificate",
    "client_certificates": "client_ca",
    "client_crl": "client_ca",
    "certificate_user": "client_ca",
    "unix_mode": "unix",
    "websocket_forwarded_for": "websocket",
}
#: What says where a listener listens.
_PLACE = {"bind", "port", "unix"}
#: What decides whether a listener is open to the network without anything that says who is who.
_WHO_MAY_CONNECT = {
    "bind", "unix", "passwords", "allow_anonymous", "certificate_user", "client_certificates", "client_ca",
    "proxy_protocol", "websocket_forwarded_for",
}  # fmt: skip


class Setting(NamedTuple):
    """A checked value, and where it was set as the beginning of a message: "FILE:3: 'port'", "--port:" or "port=:"."""

    value: Any
    where: str
    #: What was set cannot be used; the default is in its place, and nothing must be concluded from it.
    wrong: bool = False


Settings = Mapping[str, Setting]


class Block(NamedTuple):
    """What was set for one listener, and the place of it: "FILE:7" or "listeners[0]="."""

    settings: Settings
    place: str


@dataclass(frozen=True, slots=True)
class Overrides:
    """What flags or keyword arguments set, checked each by itself."""

    settings: Settings = field(default_factory=dict)
    listeners: tuple[Block, ...] = ()


class Draft(NamedTuple):
    """A configuration with all that is wrong with it."""

    config: Config | None  #: with defaults in place of what is wrong; None: there is too little of it
    unsure: tuple[frozenset[str], ...]  #: the names of those defaults, for each listener
    mistakes: Mistakes


_NO_OVERRIDES = Overrides()

#: Reads the configuration again. Raises ConfigError.
Reload = Callable[[], Config]


# The public functions ------------------------------------------------------------------------------------------------


def load(path: str | os.PathLike[str] | None = None, overrides: Overrides = _NO_OVERRIDES) -> Config:
    """The configuration of the file at `path` (None: without a file) under `overrides`. Raises ConfigError.

    Flags and keyword arguments win over the file, in each of its listeners. Listeners given as a keyword argument
    replace those of the file, and take the other keyword arguments as their defaults. The error knows all mistakes.
    """
    draft = examine(path, overrides)
    draft.mistakes.tell()
    assert draft.config is not None
    return draft.config


def examine(path: str | os.PathLike[str] | None = None, overrides: Overrides = _NO_OVERRIDES) -> Draft:
    """As `load`, but it goes on after a mistake, and raises none."""
    mistakes = Mistakes()
    with mistakes:
        top, blocks = _read_file(os.path.expanduser(path), mistakes) if path is not None else ({}, ())
        parts = _parts(path, top, blocks, overrides, mistakes)
        listeners = tuple(replace(_listener(settings, mistakes), where=place) for settings, place in parts)
        unsure = tuple(_wrong(settings) for settings, _ in parts)
        with mistakes:
            # Those of which it is known where they listen.
            _check_distinct(one for one, names in zip(listeners, unsure, strict=True) if not names & _PLACE)
        memory, data = False, None
        with mistakes:
            memory, data = _storage(top, overrides.settings)
        values = _values(GLOBAL_OPTIONS, {**top, **overrides.settings}) | {"memory": memory, "data": data}
        everywhere = _wrong({**top, **overrides.settings})
        if values["moved"] != "no" and not values["server_reference"] and "server_reference" not in everywhere:
            where = {**top, **overrides.settings}["moved"].where
            mistakes.append(ConfigError(f"{where} has no meaning without server_reference: set that too"))
        return Draft(Config(listeners=listeners, **values), tuple(one | everywhere for one in unsure), mistakes)
    return Draft(None, (), mistakes)


def _parts(
    path: str | os.PathLike[str] | None,
    top: Settings,
    blocks: tuple[Block, ...],
    overrides: Overrides,
    mistakes: Mistakes,
) -> list[tuple[Settings, str]]:
    """What is set for each listener, and its place."""
    given = overrides.settings
    if overrides.listeners:
        parts = [(_merged(mistakes, top, given, block.settings), block.place) for block in overrides.listeners]
        with mistakes:
            _check_used(given, parts)
        return parts
    if blocks:
        for name in ("bind", "port", "unix"):
            if name in given and len(blocks) > 1:
                where = given[name].where
                with mistakes:
                    raise ConfigError(
                        f"{where} is for one listener, but {path} has {len(blocks)}: set '{name}' in each of them"
                    )
                given = {other: setting for other, setting in given.items() if other != name}
        with mistakes:
            _check_used(top, [(_merged(Mistakes(), top, block.settings), block.place) for block in blocks])
        return [(_merged(mistakes, top, block.settings, given), block.place) for block in blocks]
    return [(_merged(mistakes, top, given), "")]


def from_args(namespace: Namespace) -> Overrides:
    """What was given as flags that `add_flags` has added. Raises ConfigError."""
    mistakes = Mistakes()
    overrides = examine_args(namespace, mistakes)
    mistakes.tell()
    return overrides


def examine_args(namespace: Namespace, mistakes: Mistakes) -> Overrides:
    """As `from_args`, but it goes on after a mistake, and raises none."""
    settings = {}
    for name, row in OPTIONS.items():
        text = getattr(namespace, name, None) if row.has_flag else None
        if text is not None:
            no = "no-" if isinstance(row.kind, Boolean) and text is False else ""
            where = f"--{no}{name.replace('_', '-')}:"
            settings[name] = Setting(row.default, where, wrong=True)
            with mistakes:
                settings[name] = Setting(_read_flag(row, text, where), where)
    return Overrides(settings)


def from_keywords(keywords: Mapping[str, object]) -> Overrides:
    """What was given as keyword arguments, named like the options; None is as good as not given. Raises ConfigError.

    `listeners` is a sequence of mappings, each with the options of one listener.
    """
    mistakes = Mistakes()
    overrides = Overrides(*_read_top(keywords, Keywords(), mistakes))
    mistakes.tell()
    return overrides


def unknown_flag(flag: str, others: Iterable[str] = (), commands: Iterable[str] = ()) -> ConfigError:
    """The error for an argument that argparse does not know; `others` are flags that are not options ("--check"),
    `commands` what might have been meant by a word."""
    return ConfigError(about_flag(flag, others) if flag.startswith("-") else about_word(flag, commands))


# Reading -------------------------------------------------------------------------------------------------------------


def _read_file(path: str, mistakes: Mistakes) -> tuple[Settings, tuple[Block, ...]]:
    try:
        with open(path, "rb") as file:
            data = file.read(_LARGEST_FILE + 1)
        base = os.path.dirname(os.path.abspath(path))
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file") from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: is a directory; name the configuration file in it") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise ConfigError(f"{path}: cannot be read: {reason(error)}") from None
    if len(data) > _LARGEST_FILE:
        raise ConfigError(f"{path}: is larger than 4 MiB; is it a configuration file?")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: is not UTF-8 (byte 0x{data[error.start]:02x}); save it as UTF-8") from None
    document = _parse(path, text)
    return _read_top(document, File(path, base, key_lines(text)), mistakes)


def _parse(path: str, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ConfigError(f"{path}: is not valid TOML: arrays or tables are nested too deep") from None
    except ValueError as error:  # tomllib.TOMLDecodeError, and what int() raises for thousands of digits
        why, line, column = str(error), "", ""
        if at := re.fullmatch(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", why, re.DOTALL):
            why = at[1]
            line = f":{at[2] or len(text.splitlines()) or 1}"
            column = f" (column {at[3]})" if at[3] else ""
        if why == "Cannot overwrite a value":
            why = "a key is set twice"
        hint = ""
        if _looks_like_mosquitto_conf(text):
            hint = f"; {about_mosquitto_conf(path)}"
        raise ConfigError(f"{path}{line}: is not valid TOML: {why}{column}{hint}") from None


def _looks_like_mosquitto_conf(text: str) -> bool:
    words = {*MOSQUITTO, *OPTIONS}
    return any(word in words for word in re.findall(r"^[ \t]*([a-z_]+)[ \t]+[^\s=.]", text, re.MULTILINE))


def _read_top(
    table: Mapping[str, object], source: Source, mistakes: Mistakes
) -> tuple[dict[str, Setting], tuple[Block, ...]]:
    listeners = table.get("listeners")
    rest = {name: value for name, value in table.items() if name != "listeners"}
    settings = _read_table(rest, OPTIONS, source, (), mistakes)
    return settings, () if listeners is None else _read_listeners(listeners, source, mistakes)


def _read_listeners(value: object, source: Source, mistakes: Mistakes) -> tuple[Block, ...]:
    where = source.where(("listeners",))
    form = "[[listeners]] tables" if source.is_file else "a list of mappings"
    if isinstance(value, Mapping) and source.is_file:
        raise ConfigError(f"{where} must be {form}: write [[listeners]], in two pairs of brackets, above each listener")
    if not isinstance(value, (list, tuple)):
        raise ConfigError(f"{where} must be {form}, not {brief(value)}")
    if not value:
        raise ConfigError(f"{where} is empty: leave it out to have one listener, on 'bind' and 'port'")
    blocks = []
    for index, table in enumerate(value):
        key = ("listeners", index)
        if not isinstance(table, Mapping):
            raise ConfigError(f"{where} must be {form}, and one of them is {brief(table)}")
        blocks.append(Block(_read_table(table, LISTENER_OPTIONS, source, key, mistakes), source.place(key)))
    return tuple(blocks)


def _read_table(
    table: Mapping[str, object],
    options: Mapping[str, Option],
    source: Source,
    parent: Key,
    mistakes: Mistakes,
) -> dict[str, Setting]:
    settings = {}
    for name, value in table.items():
        if name not in options:
            with mistakes:
                _raise_unknown(name, value, source, parent)
            for meant in meant_by(str(name)):  # that it is set, though not to what, is known
                if meant in options and meant not in table:
                    settings[meant] = Setting(options[meant].default, source.where((*parent, str(name))), wrong=True)
        elif value is not None:  # only a keyword argument can be None
            settings[name] = Setting(options[name].default, source.where((*parent, name)), wrong=True)
            with mistakes:
                settings[name] = _read_option(options[name], value, source, (*parent, name))
    return settings


def _read_flag(row: Option, text: Any, where: str) -> Any:
    try:
        value = row.kind.read(text) if isinstance(row.kind, Boolean) else row.kind.parse(text)
        return _resolved(row, value, "", where)
    except Refused as refused:
        raise ConfigError(f"{where} {refused.why}") from None


def _read_option(row: Option, value: object, source: Source, key: Key) -> Setting:
    where = source.where(key)
    try:
        checked = row.kind.read(value)
        resolved = _resolved(row, checked, source.base, where)
    except Refused as refused:
        hint = ""
        if source.is_file and refused.within and refused.within[0] in OPTIONS:
            hint = f"; to set the option {refused.within[0]}, move it above [{row.name}]"
        raise ConfigError(f"{source.where((*key, *refused.within))} {refused.why}{hint}") from None
    if isinstance(row.kind, Patterns) and source.is_file:
        # A list below [client_ids] that was meant as an option would pass for a user, and silently deny nothing.
        for user in checked:
            if user in OPTIONS and isinstance(OPTIONS[user].kind, Texts):
                inner = source.where((*key, user))
                raise ConfigError(f"{inner} would be a user's name; to set the option, move it above [{row.name}]")
    return Setting(resolved, where)


def _resolved(row: Option, value: Any, base: str, where: str) -> Any:
    try:
        return row.kind.resolve(value, base)
    except OSError:
        raise ConfigError(f"{where} must be an absolute path: the working directory is gone") from None


def _raise_unknown(name: object, value: object, source: Source, parent: Key) -> NoReturn:
    text = str(name)
    key = (*parent, text)
    if parent and text in GLOBAL_OPTIONS:
        move = ": move it above the first [[listeners]]" if source.is_file else ""
        raise ConfigError(f"{source.where(key)} belongs at the top level, not in a listener{move}")
    unknown = source.unknown(key)
    is_section = isinstance(value, Mapping) and any(plain(str(inner)) in OPTIONS for inner in value)
    if is_section and answer(plain(text)) is None:
        raise ConfigError(f"{unknown}: options stand at the top level, not in a table of their own")
    if parent:
        raise ConfigError(unknown + about_key(text, OPTIONS, top_level=GLOBAL_OPTIONS))
    raise ConfigError(unknown + about_key(text, [*OPTIONS, "listeners"]))


# Rules between options -----------------------------------------------------------------------------------------------


def _values(options: Mapping[str, Option], settings: Settings) -> dict[str, Any]:
    return {name: settings[name].value if name in settings else row.default for name, row in options.items()}


def _wrong(settings: Settings) -> frozenset[str]:
    return frozenset(name for name, setting in settings.items() if setting.wrong)


def _merged(mistakes: Mistakes, *sources: Settings) -> Settings:
    """All settings, the later sources above the earlier ones. Where to listen is one thing: a source that names a Unix
    socket puts an address of an earlier one out of force, and the other way round."""
    merged: dict[str, Setting] = {}
    for source in sources:
        addresses = [source[name] for name in ("bind", "port") if name in source]
        if addresses and "unix" in source:
            error = ConfigError(
                f"{addresses[0].where} cannot be combined with unix: leave one of them out, or give each its own "
                "[[listeners]]"
            )
            if str(error) not in map(str, mistakes):  # what stands at the top level is merged for each listener
                mistakes.append(error)
        if addresses:
            gone: tuple[str, ...] = ("unix", "unix_mode")
        else:
            gone = ("bind", "port") if "unix" in source else ()
        merged = {name: setting for name, setting in merged.items() if name not in gone} | dict(source)
    return merged


def _listener(settings: Settings, mistakes: Mistakes) -> ListenerConfig:
    values = _values(LISTENER_OPTIONS, settings)
    unsure = _wrong(settings)
    for name, needed in _NEEDS.items():
        if values[name] != LISTENER_OPTIONS[name].default and not values[needed] and needed not in unsure:
            why = f"{settings[name].where} has no meaning without {needed}: set that too, or leave it out"
            mistakes.append(ConfigError(why))
    for name in ("proxy_protocol", "websocket_forwarded_for"):
        if not unsure & {name, "unix"}:
            with mistakes:
                _check_proxies(settings.get(name), values["unix"])
    if not unsure & _WHO_MAY_CONNECT:
        with mistakes:
            _check_open(settings, values)
    local = ListenerConfig(**values).is_loopback
    if values["allow_anonymous"] is None:
        values["allow_anonymous"] = local and values["passwords"] is None and values["certificate_user"] is None
    return ListenerConfig(**values)


def _check_open(settings: Settings, values: Mapping[str, Any]) -> None:
    """Nobody opens a listener to the network by mistake."""
    local = ListenerConfig(**values).is_loopback
    proved = values["certificate_user"] is not None and values["client_certificates"] == "required"
    if values["passwords"] is None and values["allow_anonymous"] is not True and not proved and not local:
        address = ListenerConfig(**values).address
        proxies = [name for name in ("proxy_protocol", "websocket_forwarded_for") if values[name]]
        opener = settings[[*proxies, "bind"][0]]
        raise ConfigError(
            f"{opener.where} opens {address} to the network: say who may connect, with passwords for a password file "
            "(--passwords PATH), certificate_user for client certificates (--certificate-user cn), or "
            "allow_anonymous = true for everybody (--allow-anonymous)"
        )


def _check_proxies(proxies: Setting | None, unix: str | None) -> None:
    """Somebody who can connect must be among them: else all were refused."""
    if proxies is None or not proxies.value:
        return
    if unix is not None and UNIX not in proxies.value:
        raise ConfigError(f'{proxies.where} must contain "{UNIX}": clients of a Unix socket have no address')
    if unix is None and set(proxies.value) == {UNIX}:
        raise ConfigError(f'{proxies.where} must contain an address: "{UNIX}" has no meaning without unix')


def _check_used(defaults: Settings, parts: Iterable[tuple[Settings, str]]) -> None:
    """In front of the listeners, bind, port and unix are what those have who say nothing else. If none does, somebody
    expects one more listener (as Mosquitto makes one), and there is none."""
    for name in ("port", "bind", "unix"):
        setting = defaults.get(name)
        if setting is None or setting.wrong:
            continue
        says = [settings.get(name) for settings, _ in parts]
        if not any(one is setting or (one is not None and one.wrong) for one in says):
            raise ConfigError(
                f"{setting.where} is not used, because each listener sets its own: leave it out, or add a listener for "
                "it"
            )


def _check_distinct(listeners: Iterable[ListenerConfig]) -> None:
    """As far as it can be told without the system: what names and links lead to, it looks up at the start."""
    for one, other in combinations(listeners, 2):
        unix = one.unix is not None
        if one.port != other.port or (one.port == 0 and not unix) or unix != (other.unix is not None):
            continue
        if one.unix == other.unix if unix else canonical(one.bind) == canonical(other.bind):
            why = f"second listener on {other.address}, beside {one.where}"
        elif not unix and collide(one.bind, other.bind):
            why = f"the listener on {other.address} collides with that on {one.address} of {one.where}"
        else:
            continue
        raise ConfigError(f"{other.where}: {why}: give it another {'path' if unix else 'port'}")


def _storage(top: Settings, given: Settings) -> tuple[bool, str | None]:
    """`memory` and `data`: the stronger source decides, and within one they exclude each other."""
    memory = None
    for settings in (given, top):
        memory, data = memory or settings.get("memory"), settings.get("data")
        if memory is not None and memory.value:
            if data is not None:
                raise ConfigError(
                    f"{memory.where} stores nothing, so it cannot be combined with data: leave one of them out"
                )
            return True, None
        if data is not None:
            return False, data.value
    return False, default_data(os.environ, windows=os.name == "nt")


def default_data(environ: Mapping[str, str], *, windows: bool) -> str:
    """The directory for `data` if nobody names one (XDG Base Directory Specification). Raises ConfigError."""
    if windows:
        return (environ.get("LOCALAPPDATA") or os.path.expanduser("~") + "\\AppData\\Local") + "\\selectmq"
    state = environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(state):  # the specification: a relative path is to be ignored
        state = os.path.join(os.path.expanduser("~"), ".local", "state")
    if not os.path.isabs(state):
        raise ConfigError("data: has no default without a home directory: set data (--data PATH) or memory (--memory)")
    return os.path.join(state, "selectmq")
