"""Profiles: TOML files that tell the runner what it cannot find out about a broker.

Owns: their format, and reading them into a `target.Broker`. Must not know: tests, MQTT, how a broker is started.

Everything in a profile is optional:

    name = "mosquitto"                    # how reports call the broker; else the file's name
    jobs = 1                              # how many tests run at a time, where the usual number would blur the verdicts

    [run]                                 # the runner starts this broker by itself, and ends it
    command = ["mosquitto", "-c", "{{dir}}/mosquitto.conf"]
    ready = "started"                     # what the broker writes when it is up; else it must take connections
    programs = ["mosquitto_passwd"]       # what must be installed beside the command
    install = "apt-get install mosquitto" # what a person is told if something is not
    ports = ["main", "limited"]           # free ports, each to be used as {{port.NAME}}
    prepare = [["mosquitto_passwd", "-b", "-c", "{{dir}}/passwords", "alice", "secret"]]
    [run.files]                           # written into {{dir}} before anything is run
    "mosquitto.conf" = "listener {{port.main}} 127.0.0.1"

    [commands]                            # instead of [run]: a broker that somebody else runs
    start = ["systemctl", "start", "broker"]    # also stop, kill, restart

    [endpoints.main]                      # see target.ROLES for the others
    url = "mqtt://127.0.0.1:{{port.main}}"

    [deviations]                          # what its makers know to differ: shown beside the verdict, changes nothing
    "MQTT-3.1.2-8" = "wills of clients that are taken over are not sent, see issue 12"

`{{dir}}` is a directory of this run, `{{python}}` the interpreter that the runner uses, `{{selectmq}}` the
name of this distribution's own broker for its `-m`.
"""

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from importlib import resources
from pathlib import Path
from typing import Any

from ..target import ROLES, Broker, Commands, Endpoint, Launch, TargetError, parse_url

TOP = {"name": str, "about": str, "jobs": int, "run": dict, "commands": dict, "endpoints": dict, "deviations": dict}
RUN = {"command": list, "ports": list, "prepare": list, "files": dict, "ready": str, "programs": list, "install": str}
COMMANDS = {"start": list, "stop": list, "kill": list, "restart": list}
ENDPOINT = {
    "url": str,
    "username": str,
    "password": str,
    "ca_file": str,
    "insecure": bool,
    "cert_file": str,
    "key_file": str,
    "publish_forbidden": str,
    "subscribe_forbidden": str,
    "limit": int,
    "refused_client_id": str,
}

#: Keys of an endpoint whose values are files: relative ones are beside the profile.
FILES = ("ca_file", "cert_file", "key_file")

#: What an endpoint of that role must say beside its address, or its tests could not run.
REQUIRED = {
    "authenticated": ("username", "password"),
    "acl": ("publish_forbidden",),
    "limited": ("limit",),
    "identifiers": ("refused_client_id",),
}

KINDS = {str: "a text", bool: "true or false", int: "a whole number", list: "a list", dict: "a table"}

_PLACE = re.compile(r"\{\{\s*([^{}]*?)\s*\}\}")


class ProfileError(TargetError):
    """The profile cannot be used: which one, where in it, and what to do, in one line."""


def names() -> list[str]:
    """The profiles that come with the runner."""
    files = resources.files(__name__).iterdir()
    return sorted(file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml"))


def load(name_or_file: str, main: Endpoint | None = None) -> Broker:
    """The broker that a profile describes: a name of `names()`, or the path of a TOML file.

    `main`, if given, is the address that the user named: it stands for the profile's `[endpoints.main]`.
    """
    if name_or_file in names():
        text = resources.files(__name__).joinpath(f"{name_or_file}.toml").read_text(encoding="utf-8")
        return parse(text, name_or_file, main=main)
    path = Path(name_or_file).expanduser()
    if path.suffix != ".toml" and not path.exists():
        raise ProfileError(
            f"there is no profile {name_or_file!r}{_near(name_or_file, names())}: "
            f"give one of {', '.join(names())}, or the path of a TOML file"
        )
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ProfileError(f"profile {name_or_file}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ProfileError(f"profile {name_or_file}: is not UTF-8 text") from None
    return parse(text, name_or_file, base=path.resolve().parent, main=main)


def parse(text: str, where: str, *, base: Path | None = None, main: Endpoint | None = None) -> Broker:
    """The broker that a profile's text describes. `where` is for errors; relative paths are taken from `base`."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ProfileError(f"profile {where}: is not TOML: {error}") from None
    return _Parser(where, base).broker(data, main)


def fill(text: str, values: Mapping[str, str]) -> str:
    """`text` with every `{{name}}` replaced. KeyError if a name has no value."""
    return _PLACE.sub(lambda match: values[match[1]], text)


def _near(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""


class _Parser:
    def __init__(self, where: str, base: Path | None) -> None:
        self._where = where
        self._base = base
        self._places = {"python", "selectmq", "dir"}

    def broker(self, data: Mapping[str, Any], main: Endpoint | None) -> Broker:
        self._check(data, TOP, "")
        launch = self._launch(data["run"]) if "run" in data else None
        if launch and main:
            raise self._error("[run]", "it starts a broker by itself: leave the target out, or take [run] out")
        if launch and "commands" in data:
            raise self._error("[commands]", "is of no use beside [run]: take one of them out")
        if launch is None:
            self._places.discard("dir")
        self._check_places(data, "")
        endpoints = self._endpoints(data.get("endpoints", {}))
        if launch and "main" not in endpoints:
            raise self._error("[endpoints.main]", "is missing: a broker that the runner starts needs an address")
        commands = self._commands(data.get("commands", {}))
        deviations = data.get("deviations", {})
        for statement_id, words in deviations.items():
            if not isinstance(words, str):
                raise self._error(f"[deviations] {statement_id!r}", "must be a text")

        def find_endpoints(values: Mapping[str, str]) -> dict[str, Endpoint]:
            found = {role: self._endpoint(role, table, values) for role, table in endpoints.items()}
            declared = found.get("main")
            if main:
                found["main"] = _with_what_is_declared(main, declared)
            elif declared is None:
                found["main"] = parse_url("mqtt://127.0.0.1:1883")
            return found

        if launch is None:
            find_endpoints({"python": ""})  # so that a mistake is told before anything is started
        name = data.get("name") or Path(self._where).stem
        jobs = data.get("jobs")
        if jobs is not None and jobs < 1:
            raise self._error("'jobs'", "must be 1 or more")
        return Broker(
            name, find_endpoints, launch=launch, commands=commands, deviations=deviations, jobs=jobs, fill=fill
        )

    def _launch(self, table: Mapping[str, Any]) -> Launch:
        self._check(table, RUN, "[run] ")
        command = self._words(table.get("command"), "[run] command")
        ports = self._words(table.get("ports", ["main"]), "[run] ports")
        self._places |= {f"port.{name}" for name in ports}
        files = table.get("files", {})
        for name, text in files.items():
            if not isinstance(text, str):
                raise self._error(f"[run.files] {name!r}", "must be a text")
        steps = table.get("prepare", [])
        prepare = tuple(self._words(step, f"[run] prepare, command {number}") for number, step in enumerate(steps, 1))
        programs = self._words(table["programs"], "[run] programs") if "programs" in table else ()
        return Launch(command, ports, files, prepare, table.get("ready", ""), programs, table.get("install", ""))

    def _commands(self, table: Mapping[str, Any]) -> Commands:
        self._check(table, COMMANDS, "[commands] ")
        return Commands(**{name: self._words(words, f"[commands] {name}") for name, words in table.items()})

    def _endpoints(self, tables: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
        for role, table in tables.items():
            place = f"[endpoints.{role}]"
            if role not in ROLES:
                raise self._error(place, f"is no known endpoint{_near(role, ROLES)}: there are {', '.join(ROLES)}")
            if not isinstance(table, dict):
                raise self._error(place, "must be a table")
            self._check(table, ENDPOINT, f"{place} ")
            for key in ("url", *REQUIRED.get(role, ())):
                if key not in table:
                    raise self._error(place, f"lacks {key!r}: it is the endpoint {ROLES[role]}")
        return tables

    def _endpoint(self, role: str, table: Mapping[str, Any], values: Mapping[str, str]) -> Endpoint:
        place = f"[endpoints.{role}] url"
        filled: dict[str, Any] = {
            key: fill(value, values) if isinstance(value, str) else value for key, value in table.items()
        }
        try:
            address = parse_url(filled.pop("url"), role)
        except TargetError as error:
            raise self._error(place, str(error)) from None
        for key in FILES:
            if self._base and key in filled:
                filled[key] = str(self._base / filled[key])
        return replace(address, **filled)

    def _words(self, value: object, place: str) -> tuple[str, ...]:
        if not isinstance(value, list) or not value or not all(isinstance(word, str) and word for word in value):
            raise self._error(place, 'must be a list of texts, such as ["program", "argument"]')
        return tuple(value)

    def _check(self, table: Mapping[str, Any], shape: Mapping[str, type], place: str) -> None:
        for key, value in table.items():
            if key not in shape:
                known = ", ".join(shape)
                raise self._error(f"{place}{key!r}", f"is not known{_near(key, shape)}: there are {known}")
            if type(value) is not shape[key]:
                raise self._error(f"{place}{key!r}", f"must be {KINDS[shape[key]]}")

    def _check_places(self, value: object, place: str) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                self._check_places(inner, f"{place} {key}".strip())
        elif isinstance(value, list):
            for inner in value:
                self._check_places(inner, place)
        elif isinstance(value, str):
            for name in _PLACE.findall(value):
                if name not in self._places:
                    known = ", ".join(sorted(self._places))
                    raise self._error(place, f"has {{{{{name}}}}}, which is not known: there are {known}")

    def _error(self, place: str, what: str) -> ProfileError:
        return ProfileError(f"profile {self._where}: {place} {what}")


def _with_what_is_declared(main: Endpoint, declared: Endpoint | None) -> Endpoint:
    """The address that the user named; what he left open is as the profile says."""
    if declared is None:
        return main
    given = {one.name: getattr(main, one.name) for one in fields(main)}
    named = {name: value for name, value in given.items() if value is not None and value is not False}
    if main.username is not None:
        named["password"] = main.password
    return replace(declared, **named)
