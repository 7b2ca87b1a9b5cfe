"""The table of options: every option's name, kind, range, default, help, flag, and whether a reload may change it.

The table is written as the fields of two dataclasses. `ListenerConfig` holds what every listener may have for itself:
in the file it stands at the top level, as the default for all listeners, and in each `[[listeners]]`. `Config` holds
what the broker has once. Defaults, flags, `--help` and the table in docs/configuration.md follow: a new option is one
new field.

This module owns the table and what follows from it alone. It must not know where a value comes from (a file, a flag, a
keyword argument: that is `loading`), nor any other part of the broker.
"""

import re
from argparse import ArgumentParser, BooleanOptionalAction
from collections.abc import Iterable, Mapping
from dataclasses import Field, dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from .kinds import (
    NOTATION,
    Address,
    Boolean,
    Choice,
    Choices,
    ChoiceTable,
    Duration,
    Integer,
    Kind,
    Mode,
    Origins,
    Path,
    Patterns,
    Peers,
    Size,
    SocketPath,
    Text,
    Texts,
    UrlPath,
    is_loopback,
)


@dataclass(frozen=True, slots=True)
class Option:
    """One row of the table. `default` is None where the option may be unset; `unset` says what holds then."""

    kind: Kind
    default: Any
    help: str
    has_flag: bool
    short_flag: str | None
    reload: bool
    unset: str
    name: str = ""
    per_listener: bool = False

    @property
    def flag(self) -> str | None:
        """The long flag, such as "--max-inflight"."""
        return "--" + self.name.replace("_", "-") if self.has_flag else None

    @property
    def default_text(self) -> str:
        """The default as a flag takes it, or what holds if it is not set."""
        if isinstance(self.default, tuple | Mapping) and not self.default:
            return "none"
        return self.unset if self.default is None else self.kind.text(self.default)

    @property
    def flags(self) -> tuple[str, ...]:
        """All flags that argparse is to know; for a Boolean it adds the one with `--no-`."""
        return tuple(flag for flag in (self.short_flag, self.flag) if flag)


def option(
    default: Any,
    kind: Kind,
    help: str,
    *,
    flag: bool = False,
    short: str | None = None,
    reload: bool = False,
    unset: str = "none",
) -> dict[str, Option]:
    """The metadata of a field; `_table` adds the name and the scope."""
    return {"option": Option(kind, default, help, flag, short, reload, unset)}


def _table(rows: Iterable[Field[Any]], *, per_listener: bool) -> Mapping[str, Option]:
    return {
        row.name: replace(row.metadata["option"], name=row.name, per_listener=per_listener)
        for row in rows
        if "option" in row.metadata
    }


# The table -----------------------------------------------------------------------------------------------------------
# The constructors have no defaults: `loading.load` alone makes these objects, so whoever holds one holds a checked one.

_MANY = 1_000_000_000
_KIB, _MIB, _GIB, _TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40
_DAY = 86400
_STRATEGIES = ("round-robin", "sticky", "hash-topic", "hash-publisher", "least-queued")

# The longest Remaining Length is 268,435,455 bytes [MQTT 3.1.1, 2.2.3], after a fixed header of 5.
_LARGEST_PACKET = 268_435_460


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerConfig:
    """The options of one listener. Paths are absolute, sizes bytes, durations seconds."""

    # fmt: off
    bind: str = field(metadata=option("127.0.0.1", Address(), "address to listen on", flag=True))
    port: int = field(metadata=option(
        1883, Integer(0, 65535), "TCP port to listen on; 0 takes any free one", flag=True, short="-p"))
    unix: str | None = field(metadata=option(
        None, SocketPath(), "Unix socket to listen on, instead of bind and port", flag=True))
    unix_mode: str = field(metadata=option(
        "0600", Mode(), "permissions of the Unix socket; whoever may write to it may connect", flag=True))
    proxy_protocol: tuple[str, ...] = field(metadata=option(
        (), Peers(), "trusted proxies: every connection must come from one of them, and begin with a PROXY "
        "protocol header (version 1 or 2)", reload=True))
    passwords: str | None = field(metadata=option(
        None, Path(), "password file; without one no password is checked", flag=True, reload=True))
    certificate: str | None = field(metadata=option(
        None, Path(), "PEM file with the certificate and its intermediate certificates; with it, the listener speaks "
        "TLS", flag=True, reload=True, unset="no TLS"))
    certificate_chain: str | None = field(metadata=option(
        None, Path(), "PEM file or directory with the intermediate certificates, if the file of `certificate` has none",
        flag=True, reload=True))
    key: str | None = field(metadata=option(
        None, Path(), "PEM file of the private key", flag=True, reload=True, unset="in the file of the certificate"))
    client_ca: str | None = field(metadata=option(
        None, Path(), "PEM file or directory with the authorities that issue client certificates; with it, the broker "
        "asks clients for a certificate", flag=True, reload=True))
    client_certificates: Literal["required", "optional"] = field(metadata=option(
        "required", Choice(("required", "optional")), "whether clients must show a certificate", flag=True,
        reload=True))
    client_crl: str | None = field(metadata=option(
        None, Path(), "PEM file with the revocation lists of client_ca", flag=True, reload=True))
    certificate_user: Literal["cn", "subject"] | None = field(metadata=option(
        None, Choice(("cn", "subject")), "the part of a client's certificate that is its user name, instead of the one "
        "in CONNECT",
        flag=True, reload=True))
    acl: str | None = field(metadata=option(
        None, Path(), "access control file: who may publish and subscribe to what", flag=True, reload=True))
    allow_anonymous: bool = field(metadata=option(
        None, Boolean(), "admit clients without a user name; must be set to listen beyond loopback without passwords",
        flag=True, reload=True,
        unset="true on a loopback address or a Unix socket without passwords, certificate_user, proxy_protocol and "
        "websocket_forwarded_for, else false"))
    deny_users: tuple[str, ...] = field(metadata=option(
        (), Texts(), "user names that may not connect (return code 5)", reload=True))
    client_ids: Mapping[str, tuple[str, ...]] = field(metadata=option(
        MappingProxyType({}), Patterns(),
        'which ClientIds a user may have (else return code 5): in a pattern, "*" stands for any characters and "%u" '
        'for the user\'s name; the user "*" is every user who is not named', reload=True))
    client_id_prefixes: tuple[str, ...] = field(metadata=option(
        (), Texts(), "a ClientId that is not empty must begin with one of these (else return code 2)", reload=True))
    allow_user_change: bool = field(metadata=option(
        False, Boolean(), "let users take over sessions of other users by connecting with the same ClientId (else "
        "return code 5)", flag=True, reload=True))
    # A ClientId of 23 bytes must be accepted [MQTT-3.1.3-5].
    max_client_id: int = field(metadata=option(
        65535, Integer(23, 65535), "longest ClientId in characters (else return code 2)", flag=True, reload=True))
    connect_timeout: float = field(metadata=option(
        10.0, Duration(0.1, 3600), "time that a new connection has for a complete CONNECT", flag=True, reload=True))
    max_keepalive: float = field(metadata=option(
        0.0, Duration(0, 65535), "longest keep alive that a client may have; 0 is no limit", flag=True,
        reload=True))
    max_connections: int = field(metadata=option(
        10_000, Integer(1, _MANY), "clients that are connected at the same time", flag=True, reload=True))
    protocols: tuple[str, ...] = field(metadata=option(
        ("3.1", "3.1.1", "5.0"), Choices(("3.1", "3.1.1", "5.0")), "versions of MQTT that clients may speak (else "
        "return code 1; in MQTT 5.0 reason code 0x84)", reload=True))
    max_packet_size: int = field(metadata=option(
        16 * _MIB, Size(_KIB, _LARGEST_PACKET), "largest packet that a client may send", flag=True, reload=True))
    websocket: bool = field(metadata=option(
        False, Boolean(), "speak MQTT over WebSocket; needs: pip install 'selectmq[websocket]'", flag=True))
    websocket_path: str | None = field(metadata=option(
        None, UrlPath(), "URL path that clients must use, such as /mqtt", flag=True, reload=True, unset="any"))
    websocket_origins: tuple[str, ...] = field(metadata=option(
        (), Origins(), 'web pages that may connect besides those of this host: "https://example.com", or "*" '
        "for any", reload=True))
    websocket_forwarded_for: tuple[str, ...] = field(metadata=option(
        (), Peers(), "trusted proxies: in X-Forwarded-For, the last address that is not one of them is the client's, "
        "for limits and the log", reload=True))
    # fmt: on
    where: str = field(default="", compare=False, repr=False)  #: in which line of the file it stands

    @property
    def address(self) -> str:
        """bind and port as "127.0.0.1:1883" or "[::1]:1883"; of a Unix socket "unix:/run/selectmq.sock"."""
        if self.unix is not None:
            return f"unix:{self.unix}"
        return f"[{self.bind}]:{self.port}" if ":" in self.bind else f"{self.bind}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the listener: 127.0.0.0/8, ::1, "localhost" or a Unix socket.

        Not if it is for proxies: their clients come from anywhere.
        """
        proxies = self.proxy_protocol or self.websocket_forwarded_for
        return not proxies and (self.unix is not None or is_loopback(self.bind))

    @property
    def place(self) -> tuple[str | None, str, int]:
        """Where it listens: what no reload changes."""
        return self.unix, self.bind, self.port


class Change(NamedTuple):
    """One difference between two configurations. `listener` is its address; "" for an option of the whole broker."""

    name: str
    old: object
    new: object
    reloadable: bool
    listener: str = ""

    def fields(self) -> dict[str, str | None]:
        """For the log."""
        kind = OPTIONS[self.name].kind if self.name in OPTIONS else Texts()
        old, new = ("none" if value is None else _shown(value, kind) for value in (self.old, self.new))
        return {"option": self.name, "listener": self.listener or None, "old": old, "new": new}


def _shown(value: object, kind: Kind) -> str:
    return value if isinstance(value, str) else kind.toml(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The options of the broker. Paths are absolute, sizes bytes, durations seconds; `data` is None with `memory`."""

    listeners: tuple[ListenerConfig, ...]

    # fmt: off
    data: str | None = field(metadata=option(
        None, Path(), "directory for everything that is stored", flag=True,
        unset="selectmq in $XDG_STATE_HOME or in ~/.local/state; on Windows in %LOCALAPPDATA%"))
    memory: bool = field(metadata=option(
        False, Boolean(), "store nothing on disk, so that a restart forgets everything; cannot be combined "
        "with data", flag=True))
    session_expiry: float = field(metadata=option(
        30.0 * _DAY, Duration(0, 36500 * _DAY), "time after which the session of an absent client is deleted, with all "
        "messages that wait in it; 0 means never", flag=True, reload=True))
    sys_interval: float = field(metadata=option(
        10.0, Duration(0, _DAY), "time between two publications of $SYS; 0 turns $SYS off", flag=True, reload=True))
    log_level: Literal["error", "warning", "info", "debug"] = field(metadata=option(
        "info", Choice(("error", "warning", "info", "debug")), "the least important messages that are logged",
        flag=True, reload=True))
    log_format: Literal["text", "json"] = field(metadata=option(
        "text", Choice(("text", "json")), "format of the log", flag=True))
    workers: int = field(metadata=option(
        4, Integer(1, 64), "worker threads for passwords and everything else that blocks", flag=True))

    max_topic_levels: int = field(metadata=option(
        200, Integer(1, 65536), "most levels of a Topic Name or Topic Filter", flag=True, reload=True))
    max_topic_length: int = field(metadata=option(
        65535, Size(1, 65535), "longest Topic Name or Topic Filter in bytes", flag=True, reload=True))
    max_subscriptions: int = field(metadata=option(
        10_000, Integer(1, _MANY), "subscriptions of a session", flag=True, reload=True))
    max_inflight: int = field(metadata=option(
        100, Integer(1, 65535), "messages of QoS 1 and 2 in flight to a client", flag=True, reload=True))
    max_queued_messages: int = field(metadata=option(
        1_000_000, Integer(1, _MANY), "messages waiting in a session", flag=True, reload=True))
    max_queued_bytes: int = field(metadata=option(
        _GIB, Size(_KIB, _TIB), "bytes waiting in a session", flag=True, reload=True))
    max_memory_queue: int = field(metadata=option(
        1000, Integer(1, _MANY), "waiting messages of a session that are kept in memory; a persistent session keeps "
        "the rest on disk, a session with CleanSession = 1 drops them", flag=True, reload=True))
    max_unsent: int = field(metadata=option(
        _MIB, Size(_KIB, _TIB), "bytes that wait for a client behind the packet under way; above it, messages of QoS 0 "
        "for it are dropped", flag=True, reload=True))
    max_sessions: int = field(metadata=option(
        50_000, Integer(1, _MANY), "sessions with CleanSession = 0 (in MQTT 5.0 with a Session Expiry Interval above "
        "0), whether their clients are connected or not; above it, a new one gets return code 3", flag=True,
        reload=True))
    max_sessions_per_user: int = field(metadata=option(
        10_000, Integer(0, _MANY), "of these, the sessions of one user whose name was checked; 0 is no limit",
        flag=True, reload=True))
    max_sessions_per_address: int = field(metadata=option(
        10_000, Integer(0, _MANY), "of these, the sessions made from one address (in IPv6: a /64 network), loopback "
        "addresses excepted; 0 is no limit", flag=True, reload=True))
    max_store: int = field(metadata=option(
        2 * _GIB, Size(_MIB, _TIB), "bytes of everything that is stored, on disk or (with memory = true) in memory; "
        "above it, messages for sessions are dropped, and new sessions get return code 3", flag=True, reload=True))
    max_retained: int = field(metadata=option(
        100_000, Integer(1, _MANY), "retained messages", flag=True, reload=True))
    max_retained_bytes: int = field(metadata=option(
        256 * _MIB, Size(_KIB, _TIB), "bytes of all retained messages", flag=True, reload=True))
    max_memory: int | None = field(metadata=option(
        None, Size(16 * _MIB, _TIB), "bytes of memory for all that clients make the broker hold; each kind of it has a "
        "share", flag=True, reload=True, unset="half of the memory of the machine, or of the cgroup"))
    max_connect_rate: int = field(metadata=option(
        0, Integer(0, _MANY), "connections per second from an address (in IPv6: a /64 network); further ones wait for "
        "their turn; 0 is no limit", flag=True, reload=True))
    max_session_expiry: float | None = field(metadata=option(
        None, Duration(0, 36500 * _DAY), "longest time that a client of MQTT 5.0 may ask for as its Session Expiry "
        "Interval; 0 is no limit", flag=True, reload=True, unset="that of session_expiry"))
    receive_maximum: int = field(metadata=option(
        65535, Integer(1, 65535), "messages of QoS 1 and 2 that a client of MQTT 5.0 may have in flight to the broker",
        flag=True, reload=True))
    max_topic_alias: int = field(metadata=option(
        10, Integer(0, 65535), "Topic Aliases that a client of MQTT 5.0 may use", flag=True, reload=True))
    max_qos: int = field(metadata=option(
        2, Integer(0, 2), "highest QoS of messages from clients, and of subscriptions; whoever sends more is "
        "disconnected", flag=True, reload=True))
    retain_available: bool = field(metadata=option(
        True, Boolean(), "let clients publish retained messages; if not, a client of MQTT 5.0 that does is "
        "disconnected, and what one of MQTT 3.1.1 sends is delivered, but not retained", flag=True, reload=True))
    wildcard_available: bool = field(metadata=option(
        True, Boolean(), "let clients subscribe with + and #", flag=True, reload=True))
    shared_available: bool = field(metadata=option(
        True, Boolean(), "let clients share subscriptions ($share/...)", flag=True, reload=True))
    shared_strategy: str = field(metadata=option(
        "round-robin", Choice(_STRATEGIES), "how the members of a shared subscription take turns", flag=True,
        reload=True))
    shared_strategies: Mapping[str, str] = field(metadata=option(
        MappingProxyType({}), ChoiceTable("group", _STRATEGIES), "the same for groups of these names", reload=True))
    response_information: str = field(metadata=option(
        "", Text(), "what clients of MQTT 5.0 that ask for it are told to begin their Response Topics with: %c stands "
        "for the ClientId, and %u for the user name", flag=True, reload=True))
    server_reference: str = field(metadata=option(
        "", Text(), "another broker (host or host:port), which clients of MQTT 5.0 are told of when this one ends",
        flag=True, reload=True))
    moved: Literal["no", "for now", "for good"] = field(metadata=option(
        "no", Choice(("no", "for now", "for good")), "whether clients are to use server_reference instead of this "
        "broker: all are disconnected and refused (return code 3; in MQTT 5.0 reason code 0x9C or 0x9D)", flag=True,
        reload=True))
    # fmt: on

    def changes(self, new: "Config") -> list[Change]:
        """What differs in `new`.

        Listeners are compared if they have the same place; the others show as one change of "listeners".
        """
        found = [
            Change(name, getattr(self, name), getattr(new, name), row.reload)
            for name, row in GLOBAL_OPTIONS.items()
            if getattr(self, name) != getattr(new, name)
        ]
        pairs, added = _pairs(self.listeners, new.listeners)
        for listener, successor in pairs:
            if successor is not None:
                found += [
                    Change(name, getattr(listener, name), getattr(successor, name), row.reload, listener.address)
                    for name, row in LISTENER_OPTIONS.items()
                    if getattr(listener, name) != getattr(successor, name)
                ]
        removed = tuple(listener.address for listener, successor in pairs if successor is None)
        if removed or added:
            found.append(Change("listeners", removed, tuple(listener.address for listener in added), False))
        return found

    def reloaded(self, new: "Config") -> "Config":
        """This configuration with all that a reload may take over from `new`.

        A listener takes values only from one with the same place (`unix`, or `bind` and `port`): what is safe on
        a loopback address (anonymous clients, no passwords) must never reach a listener that still stands open to the
        network.
        """
        pairs, _ = _pairs(self.listeners, new.listeners)
        listeners = tuple(
            listener if successor is None else replace(listener, **_reloadable(LISTENER_OPTIONS, successor))
            for listener, successor in pairs
        )
        return replace(self, listeners=listeners, **_reloadable(GLOBAL_OPTIONS, new))

    def toml(self) -> str:
        """This configuration as a file that says everything explicitly; `loading.load` of it gives an equal one."""
        blocks = [_toml_lines(GLOBAL_OPTIONS, self)]
        blocks += [["[[listeners]]", *_toml_lines(LISTENER_OPTIONS, listener)] for listener in self.listeners]
        return "\n\n".join("\n".join(lines) for lines in blocks) + "\n"


def _pairs(
    old: Iterable[ListenerConfig], new: Iterable[ListenerConfig]
) -> tuple[list[tuple[ListenerConfig, ListenerConfig | None]], list[ListenerConfig]]:
    """Each old listener with its successor, and the new ones that succeed none. Several on port 0 pair up in order."""
    added = list(new)
    pairs: list[tuple[ListenerConfig, ListenerConfig | None]] = []
    for listener in old:
        index = next((i for i, other in enumerate(added) if other.place == listener.place), None)
        pairs.append((listener, None if index is None else added.pop(index)))
    return pairs, added


def _reloadable(table: Mapping[str, Option], source: object) -> dict[str, Any]:
    return {name: getattr(source, name) for name, row in table.items() if row.reload}


def _toml_lines(table: Mapping[str, Option], source: object) -> list[str]:
    values = ((name, row, getattr(source, name)) for name, row in table.items())
    # A Unix socket has no address.
    absent = ("bind", "port") if getattr(source, "unix", None) is not None else ("unix_mode",)
    return [
        f"{name} = {row.kind.toml(value)}" for name, row, value in values if value is not None and name not in absent
    ]


LISTENER_OPTIONS = _table(fields(ListenerConfig), per_listener=True)
GLOBAL_OPTIONS = _table(fields(Config), per_listener=False)
OPTIONS: Mapping[str, Option] = {**LISTENER_OPTIONS, **GLOBAL_OPTIONS}


# What is derived from the table --------------------------------------------------------------------------------------


def add_flags(parser: ArgumentParser) -> None:
    """Add a flag for every option that has one, as a group of its own.

    The values stay texts (None if not given; bool for a Boolean): `loading.from_args` reads them, so that a mistake in
    a flag is told in the same way as one in a file.
    """
    group = parser.add_argument_group(
        "options of the broker", f"Each can also be set in FILE, with _ instead of -. {NOTATION}"
    )
    for row in OPTIONS.values():
        text = f"{row.help} (default: {row.default_text})".replace("%", "%%")
        if isinstance(row.kind, Boolean):
            group.add_argument(*row.flags, dest=row.name, action=BooleanOptionalAction, default=None, help=text)
        elif row.has_flag:
            metavar = "|".join(row.kind.words) if isinstance(row.kind, Choice) else row.kind.metavar
            group.add_argument(*row.flags, dest=row.name, metavar=metavar, default=None, help=text)


def markdown_table() -> str:
    """The table of options in broker/docs/configuration.md: one row each, the default as the file takes it. Flags are
    left out, as their names follow from those of the options: a page has no room for one column more."""
    lines = [
        "| Option | Meaning | Default | Allowed | Listener | Reload |",
        "|---|---|---|---|---|---|",
    ]
    for row in OPTIONS.values():
        default = row.unset if row.default is None else f"`{row.kind.toml(row.default)}`"
        cells = [
            f"`{row.name}`", row.help, default, row.kind.values,
            "yes" if row.per_listener else "", "yes" if row.reload else "",
        ]  # fmt: skip
        lines.append("| " + " | ".join(re.sub(r"[|*]", r"\\\g<0>", cell) for cell in cells) + " |")
    return "\n".join(lines) + "\n"
