"""Configuration: the table of options, files, flags, keyword arguments, reload, and every error message literally."""

import os
import re
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker.config.kinds import Boolean, is_loopback
from broker.config.loading import (
    Change,
    Config,
    ConfigError,
    Overrides,
    add_flags,
    default_data,
    from_args,
    from_keywords,
    load,
    markdown_table,
    unknown_flag,
)
from broker.config.options import GLOBAL_OPTIONS, LISTENER_OPTIONS, OPTIONS
from broker.config.sources import File

DEFAULTS_OF_A_LISTENER = {
    "bind": "127.0.0.1",
    "port": 1883,
    "unix": None,
    "unix_mode": "0600",
    "proxy_protocol": (),
    "passwords": None,
    "certificate": None,
    "certificate_chain": None,
    "key": None,
    "client_ca": None,
    "client_certificates": "required",
    "client_crl": None,
    "certificate_user": None,
    "acl": None,
    "allow_anonymous": True,
    "deny_users": (),
    "client_ids": {},
    "client_id_prefixes": (),
    "allow_user_change": False,
    "max_client_id": 65535,
    "connect_timeout": 10.0,
    "max_keepalive": 0.0,
    "max_connections": 10_000,
    "protocols": ("3.1", "3.1.1", "5.0"),
    "max_packet_size": 16 * 1024 * 1024,
    "websocket": False,
    "websocket_path": None,
    "websocket_origins": (),
    "websocket_forwarded_for": (),
}
DEFAULTS_OF_THE_BROKER = {
    "data": "/state/selectmq",
    "memory": False,
    "session_expiry": 30 * 86400.0,
    "sys_interval": 10.0,
    "log_level": "info",
    "log_format": "text",
    "workers": 4,
    "max_topic_levels": 200,
    "max_topic_length": 65535,
    "max_subscriptions": 10_000,
    "max_inflight": 100,
    "max_queued_messages": 1_000_000,
    "max_queued_bytes": 1024 * 1024 * 1024,
    "max_memory_queue": 1000,
    "max_unsent": 1024 * 1024,
    "max_sessions": 50_000,
    "max_sessions_per_user": 10_000,
    "max_sessions_per_address": 10_000,
    "max_store": 2 << 30,
    "max_retained": 100_000,
    "max_retained_bytes": 256 * 1024 * 1024,
    "max_memory": None,
    "max_connect_rate": 0,
    "max_session_expiry": None,
    "receive_maximum": 65535,
    "max_topic_alias": 10,
    "max_qos": 2,
    "retain_available": True,
    "wildcard_available": True,
    "shared_available": True,
    "shared_strategy": "round-robin",
    "shared_strategies": {},
    "response_information": "",
    "server_reference": "",
    "moved": "no",
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of each test, with homes that are known."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    monkeypatch.setenv("HOME", "/home/ann")
    return tmp_path


def from_text(text: str, *flags: str, **keywords: object) -> Config:
    """The configuration of a file b.toml with `text`, under flags or keyword arguments."""
    Path("b.toml").write_text(text, encoding="utf-8")
    return load("b.toml", from_keywords(keywords) if keywords else parsed(*flags))


def parsed(*flags: str) -> Any:
    parser = ArgumentParser(allow_abbrev=False)
    add_flags(parser)
    return from_args(parser.parse_args(flags))


def error(text: str, *flags: str, **keywords: object) -> str:
    with pytest.raises(ConfigError) as caught:
        from_text(text, *flags, **keywords)
    return str(caught.value)


def error_of_flags(*flags: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(None, parsed(*flags))
    return str(caught.value)


def error_of_keywords(**keywords: object) -> str:
    with pytest.raises(ConfigError) as caught:
        load(None, from_keywords(keywords))
    return str(caught.value)


def keywords(**values: object) -> Config:
    return load(None, from_keywords(values))


# Defaults ------------------------------------------------------------------------------------------------------------


def test_defaults_without_a_file() -> None:
    config = load()
    assert {name: getattr(config, name) for name in GLOBAL_OPTIONS} == DEFAULTS_OF_THE_BROKER
    assert [{name: getattr(one, name) for name in LISTENER_OPTIONS} for one in config.listeners] == [
        DEFAULTS_OF_A_LISTENER
    ]


def test_defaults_of_an_empty_file() -> None:
    assert from_text("") == load()
    assert from_text("# port = 1\n\n") == load()


def test_every_default_has_the_type_and_the_range_of_its_option() -> None:
    defaults = {name: row.default for name, row in OPTIONS.items() if row.default is not None}
    assert {name: OPTIONS[name].kind.read(value) for name, value in defaults.items()} == defaults
    assert [name for name, row in OPTIONS.items() if row.default is None] == [
        "unix", "passwords", "certificate", "certificate_chain", "key", "client_ca", "client_crl", "certificate_user",
        "acl", "allow_anonymous", "websocket_path", "data", "max_memory",
        "max_session_expiry",
    ]  # fmt: skip


def test_which_options_a_listener_has() -> None:
    assert list(LISTENER_OPTIONS) == list(DEFAULTS_OF_A_LISTENER)
    assert list(GLOBAL_OPTIONS) == list(DEFAULTS_OF_THE_BROKER)
    assert {name for name, row in OPTIONS.items() if row.per_listener} == set(DEFAULTS_OF_A_LISTENER)


def test_which_options_have_no_flag() -> None:
    assert {name for name, row in OPTIONS.items() if not row.has_flag} == {
        "proxy_protocol", "deny_users", "client_ids", "client_id_prefixes", "websocket_origins",
        "websocket_forwarded_for", "protocols", "shared_strategies",
    }  # fmt: skip


def test_which_options_a_reload_does_not_change() -> None:
    fixed = {name for name, row in OPTIONS.items() if not row.reload}
    assert fixed == {"bind", "port", "unix", "unix_mode", "websocket", "data", "memory", "log_format", "workers"}


def test_default_data_follows_the_xdg_directories(monkeypatch: pytest.MonkeyPatch) -> None:
    assert default_data({"XDG_STATE_HOME": "/var/ann"}, windows=False) == "/var/ann/selectmq"
    assert default_data({}, windows=False) == "/home/ann/.local/state/selectmq"
    assert default_data({"XDG_STATE_HOME": "relative"}, windows=False) == "/home/ann/.local/state/selectmq"
    assert default_data({"LOCALAPPDATA": "C:\\Local"}, windows=True) == "C:\\Local\\selectmq"
    monkeypatch.setenv("HOME", "C:\\Users\\ann")
    assert default_data({}, windows=True) == "C:\\Users\\ann\\AppData\\Local\\selectmq"


def test_default_data_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "nowhere")
    with pytest.raises(ConfigError) as caught:
        default_data({}, windows=False)
    assert str(caught.value) == (
        "data: has no default without a home directory: set data (--data PATH) or memory (--memory)"
    )


# Values --------------------------------------------------------------------------------------------------------------


def test_every_option_in_a_file() -> None:
    config = from_text("""
        bind = "::1"
        port = 8883
        proxy_protocol = ["10.0.0.0/8", "::1", "0:0::1"]
        passwords = "users"
        certificate = "cert.pem"
        certificate_chain = "chain.pem"
        key = "key.pem"
        client_ca = "ca.pem"
        client_certificates = "optional"
        client_crl = "crl.pem"
        certificate_user = "subject"
        acl = "rights"
        allow_anonymous = true
        deny_users = ["eve", "mallory", "eve"]
        client_id_prefixes = ["dev-", "app-"]
        allow_user_change = true
        max_client_id = 64
        connect_timeout = 0.5
        max_keepalive = "1h"
        max_connections = 7
        max_packet_size = "64 KiB"
        websocket = true
        websocket_path = "/mqtt"
        websocket_origins = ["HTTPS://App.example.com:443", "null", "https://app.example.com"]
        websocket_forwarded_for = ["::1", "10.0.0.0/8"]
        data = "store"
        memory = false
        session_expiry = "7d"
        sys_interval = 0
        log_level = "debug"
        log_format = "json"
        workers = 64
        max_topic_levels = 9
        max_topic_length = 1024
        max_subscriptions = 10
        max_inflight = 11
        max_queued_messages = 12
        max_queued_bytes = "10MB"
        max_memory_queue = 13
        max_unsent = 100000
        max_sessions = 15
        max_sessions_per_user = 16
        max_sessions_per_address = 0
        max_store = "20 MiB"
        max_retained = 14
        max_retained_bytes = "2 gib"
        max_memory = "128 MiB"
        max_connect_rate = 15
        protocols = ["5.0", "3.1.1", "5.0"]
        max_session_expiry = "2 h"
        receive_maximum = 20
        max_topic_alias = 0
        max_qos = 1
        retain_available = false
        wildcard_available = false
        shared_available = false
        shared_strategy = "hash-topic"
        shared_strategies = { "workers" = "least-queued", "a group" = "sticky" }
        response_information = "replies/%c/"
        server_reference = "other.example:1883"
        moved = "for now"
        [client_ids]
        ann = ["%u-*", "ann"]
        "*" = ["guest-*"]
        """)
    here = os.getcwd()
    assert {name: getattr(config, name) for name in GLOBAL_OPTIONS} == {
        "data": f"{here}/store",
        "memory": False,
        "session_expiry": 604800.0,
        "sys_interval": 0.0,
        "log_level": "debug",
        "log_format": "json",
        "workers": 64,
        "max_topic_levels": 9,
        "max_topic_length": 1024,
        "max_subscriptions": 10,
        "max_inflight": 11,
        "max_queued_messages": 12,
        "max_queued_bytes": 10_000_000,
        "max_memory_queue": 13,
        "max_unsent": 100_000,
        "max_sessions": 15,
        "max_sessions_per_user": 16,
        "max_sessions_per_address": 0,
        "max_store": 20 << 20,
        "max_retained": 14,
        "max_retained_bytes": 2_147_483_648,
        "max_memory": 128 << 20,
        "max_connect_rate": 15,
        "max_session_expiry": 7200.0,
        "receive_maximum": 20,
        "max_topic_alias": 0,
        "max_qos": 1,
        "retain_available": False,
        "wildcard_available": False,
        "shared_available": False,
        "shared_strategy": "hash-topic",
        "shared_strategies": {"workers": "least-queued", "a group": "sticky"},
        "response_information": "replies/%c/",
        "server_reference": "other.example:1883",
        "moved": "for now",
    }
    assert [{name: getattr(one, name) for name in LISTENER_OPTIONS} for one in config.listeners] == [
        {
            "bind": "::1",
            "port": 8883,
            "unix": None,
            "unix_mode": "0600",
            "proxy_protocol": ("10.0.0.0/8", "::1"),
            "passwords": f"{here}/users",
            "certificate": f"{here}/cert.pem",
            "certificate_chain": f"{here}/chain.pem",
            "key": f"{here}/key.pem",
            "client_ca": f"{here}/ca.pem",
            "client_certificates": "optional",
            "client_crl": f"{here}/crl.pem",
            "certificate_user": "subject",
            "acl": f"{here}/rights",
            "allow_anonymous": True,
            "deny_users": ("eve", "mallory"),
            "client_ids": {"ann": ("%u-*", "ann"), "*": ("guest-*",)},
            "client_id_prefixes": ("dev-", "app-"),
            "allow_user_change": True,
            "max_client_id": 64,
            "connect_timeout": 0.5,
            "max_keepalive": 3600.0,
            "max_connections": 7,
            "protocols": ("3.1.1", "5.0"),
            "max_packet_size": 65536,
            "websocket": True,
            "websocket_path": "/mqtt",
            "websocket_origins": ("https://app.example.com", "null"),
            "websocket_forwarded_for": ("::1", "10.0.0.0/8"),
        }
    ]


def test_every_flag() -> None:
    config = load(None, parsed(
        "--bind", "0.0.0.0", "-p", "0", "--passwords", "users", "--certificate", "cert.pem", "--key",
        "key.pem", "--client-ca", "ca.pem", "--certificate-user", "cn", "--acl", "rights", "--no-allow-anonymous",
        "--connect-timeout", "90", "--max-connections", "7", "--max-packet-size", "1 MiB", "--websocket",
        "--data", "store", "--no-memory", "--session-expiry", "1.5h", "--sys-interval", "0.25", "--log-level", "error",
        "--log-format", "json", "--max-subscriptions", "10", "--max-inflight", "11", "--max-queued-messages", "12",
        "--max-queued-bytes", "10MB", "--max-memory-queue", "13", "--max-unsent", "100000", "--max-retained", "14",
        "--max-connect-rate", "15", "--client-certificates", "optional", "--client-crl", "crl", "--max-client-id", "23",
        "--max-keepalive", "2m", "--workers", "5", "--max-topic-levels", "15", "--max-topic-length", "1 KiB",
        "--certificate-chain", "chain", "--max-retained-bytes", "1MB", "--websocket-path", "/mqtt",
        "--max-sessions", "16", "--allow-user-change",
        "--max-sessions-per-user", "17", "--max-sessions-per-address", "18", "--max-store", "1 GiB",
        "--max-memory", "64 MiB", "--max-session-expiry", "2h", "--receive-maximum", "20", "--max-topic-alias", "0",
        "--max-qos", "1", "--no-retain-available", "--no-wildcard-available", "--no-shared-available",
        "--shared-strategy", "sticky",
        "--response-information", "replies/%c/", "--server-reference", "other.example:1883", "--moved", "for now",
    ))  # fmt: skip
    here = os.getcwd()
    flagged = [name for name, row in OPTIONS.items() if row.has_flag]
    assert {name: getattr(config.listeners[0] if name in LISTENER_OPTIONS else config, name) for name in flagged} == {
        "bind": "0.0.0.0",
        "port": 0,
        "unix": None,
        "unix_mode": "0600",
        "passwords": f"{here}/users",
        "certificate": f"{here}/cert.pem",
        "certificate_chain": f"{here}/chain",
        "key": f"{here}/key.pem",
        "client_ca": f"{here}/ca.pem",
        "client_certificates": "optional",
        "client_crl": f"{here}/crl",
        "certificate_user": "cn",
        "acl": f"{here}/rights",
        "allow_anonymous": False,
        "allow_user_change": True,
        "max_client_id": 23,
        "max_keepalive": 120.0,
        "websocket_path": "/mqtt",
        "workers": 5,
        "max_topic_levels": 15,
        "max_topic_length": 1024,
        "max_retained_bytes": 1_000_000,
        "max_memory": 64 << 20,
        "max_sessions": 16,
        "max_sessions_per_user": 17,
        "max_sessions_per_address": 18,
        "max_store": 1 << 30,
        "connect_timeout": 90.0,
        "max_connections": 7,
        "max_packet_size": 1_048_576,
        "websocket": True,
        "data": f"{here}/store",
        "memory": False,
        "session_expiry": 5400.0,
        "sys_interval": 0.25,
        "log_level": "error",
        "log_format": "json",
        "max_subscriptions": 10,
        "max_inflight": 11,
        "max_queued_messages": 12,
        "max_queued_bytes": 10_000_000,
        "max_memory_queue": 13,
        "max_unsent": 100_000,
        "max_retained": 14,
        "max_connect_rate": 15,
        "max_session_expiry": 7200.0,
        "receive_maximum": 20,
        "max_topic_alias": 0,
        "max_qos": 1,
        "retain_available": False,
        "wildcard_available": False,
        "shared_available": False,
        "shared_strategy": "sticky",
        "response_information": "replies/%c/",
        "server_reference": "other.example:1883",
        "moved": "for now",
    }


def test_a_namespace_may_hold_more_than_the_flags_of_options() -> None:
    assert from_args(Namespace(config="b.toml", check=True, deny_users="x")) == Overrides()
    assert load(None, from_args(Namespace())) == load()


def test_every_option_is_a_keyword_argument() -> None:
    values = DEFAULTS_OF_A_LISTENER | DEFAULTS_OF_THE_BROKER
    assert keywords(**values) == load()


def test_keyword_arguments() -> None:
    config = keywords(port=0, memory=True, max_inflight=5, max_packet_size="64 KiB", deny_users={"eve"}, data=None)
    listener = config.listeners[0]
    assert (listener.port, listener.max_packet_size, listener.deny_users) == (0, 65536, ("eve",))
    assert (config.memory, config.data, config.max_inflight) == (True, None, 5)


def test_none_as_a_keyword_argument_is_as_good_as_not_given() -> None:
    assert keywords(**dict.fromkeys(OPTIONS)) == load()
    assert keywords(listeners=None) == load()


@pytest.mark.parametrize(
    ("spelled", "size"),
    [
        ("1024", 1024), ('"1024B"', 1024), ('"2kB"', 2000), ('"2 kb"', 2000), ('"2KiB"', 2048), ('"2 kib"', 2048),
        ('"3MB"', 3_000_000), ('"3 MiB"', 3_145_728), ('"1 GB"', 1_000_000_000), ('"1TB"', 1_000_000_000_000),
        ('"1 TiB"', 1_099_511_627_776), ("0x400", 1024), ("10_000", 10_000),
    ],
)  # fmt: skip
def test_spellings_of_a_size(spelled: str, size: int) -> None:
    assert from_text(f"max_unsent = {spelled}").max_unsent == size


@pytest.mark.parametrize(
    ("spelled", "seconds"),
    [
        ("0", 0.0), ("90", 90.0), ("0.5", 0.5), ('"90s"', 90.0), ('"15m"', 900.0), ('"2h"', 7200.0), ('"7d"', 604800.0),
        ('"1.5 h"', 5400.0), ('"0.25s"', 0.25),
    ],
)  # fmt: skip
def test_spellings_of_a_duration(spelled: str, seconds: float) -> None:
    assert from_text(f"session_expiry = {spelled}").session_expiry == seconds


@pytest.mark.parametrize("bind", ["127.0.0.1", "127.9.9.9", "::1", "0:0::1", "localhost", "LocalHost"])
def test_loopback(bind: str) -> None:
    assert is_loopback(bind) is True
    assert keywords(bind=bind).listeners[0].is_loopback is True


@pytest.mark.parametrize(
    "bind", ["0.0.0.0", "::", "128.0.0.1", "::ffff:127.0.0.1", "::1%1", "localhost.example", "example", "localhost."]
)
def test_not_loopback(bind: str) -> None:
    assert is_loopback(bind) is False
    assert keywords(bind=bind, allow_anonymous=True).listeners[0].is_loopback is False


def test_address() -> None:
    assert keywords(port=0).listeners[0].address == "127.0.0.1:0"
    assert keywords(bind="::1").listeners[0].address == "[::1]:1883"


def test_a_configuration_cannot_be_changed() -> None:
    config = from_text('[client_ids]\nann = ["a"]')
    with pytest.raises(AttributeError):
        config.max_inflight = 1  # type: ignore[misc]
    with pytest.raises(TypeError):
        config.listeners[0].client_ids["eve"] = ("*",)  # type: ignore[index]


# Paths ---------------------------------------------------------------------------------------------------------------


def test_paths_in_a_file_start_from_its_directory(folder: Path) -> None:
    (folder / "etc" / "mq").mkdir(parents=True)
    (folder / "etc" / "mq" / "b.toml").write_text('passwords = "users"\nacl = "../acl"\ndata = "/abs/data"')
    config = load("etc/mq/b.toml")
    assert config.listeners[0].passwords == f"{folder}/etc/mq/users"
    assert config.listeners[0].acl == f"{folder}/etc/acl"
    assert config.data == "/abs/data"


def test_paths_of_listeners_and_home_directories() -> None:
    config = from_text('data = "~/mq"\n[[listeners]]\npasswords = "users"\nacl = "~/acl"')
    assert config.data == "/home/ann/mq"
    assert config.listeners[0].passwords == f"{os.getcwd()}/users"
    assert config.listeners[0].acl == "/home/ann/acl"


def test_paths_of_flags_and_keywords_start_from_the_working_directory(folder: Path) -> None:
    (folder / "etc").mkdir()
    (folder / "etc" / "b.toml").write_text('passwords = "users"')
    assert load("etc/b.toml", parsed("--passwords", "mine")).listeners[0].passwords == f"{folder}/mine"
    assert load("etc/b.toml", parsed("--passwords", "~/mine")).listeners[0].passwords == "/home/ann/mine"
    assert keywords(data=Path("here")).data == f"{folder}/here"
    assert keywords(acl="~/acl").listeners[0].acl == "/home/ann/acl"


def test_the_configuration_file_itself_may_be_in_the_home_directory(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(folder))
    (folder / "b.toml").write_text("workers = 9")
    assert load("~/b.toml").workers == 9
    assert load(folder / "b.toml").workers == 9


def test_a_home_directory_that_is_not_there() -> None:
    assert error('data = "~nobody-here/mq"') == (
        "b.toml:1: 'data' must be a path, not '~nobody-here/mq': there is no such home directory; "
        "write './~nobody-here/mq' if '~' is in a name"
    )
    assert from_text('data = "./~nobody-here/mq"').data == f"{os.getcwd()}/~nobody-here/mq"


def test_a_working_directory_that_is_gone(folder: Path) -> None:
    (folder / "b.toml").write_text('data = "d"')
    (folder / "gone").mkdir()
    os.chdir(folder / "gone")
    (folder / "gone").rmdir()
    assert error_of_flags("--data", "d") == "--data: must be an absolute path: the working directory is gone"
    assert load(None, parsed("--data", "/d")).data == "/d"
    assert load(folder / "b.toml").data == f"{folder}/d"


# Precedence ----------------------------------------------------------------------------------------------------------


def test_a_flag_wins_over_the_top_level_and_every_listener() -> None:
    text = "max_inflight = 5\nmax_connections = 6\n[[listeners]]\nmax_connections = 7\n[[listeners]]\nport = 1884"
    config = from_text(text)
    assert (config.max_inflight, [one.max_connections for one in config.listeners]) == (5, [7, 6])
    config = from_text(text, "--max-inflight", "8", "--max-connections", "9")
    assert (config.max_inflight, [one.max_connections for one in config.listeners]) == (8, [9, 9])


def test_a_flag_that_equals_the_default_still_wins() -> None:
    assert from_text("max_inflight = 5", "--max-inflight", "100").max_inflight == 100
    assert from_text("memory = true", "--no-memory").data == "/state/selectmq"


def test_keyword_arguments_win_over_the_file() -> None:
    config = from_text("max_inflight = 5\nport = 1", port=0)
    assert (config.max_inflight, config.listeners[0].port) == (5, 0)


def test_listeners_take_the_top_level_as_their_default() -> None:
    config = from_text("""
        bind = "::1"
        port = 2000
        deny_users = ["eve"]
        [[listeners]]
        [[listeners]]
        port = 2001
        deny_users = []
        [[listeners]]
        bind = "127.0.0.1"
        """)
    assert [(one.address, one.deny_users) for one in config.listeners] == [
        ("[::1]:2000", ("eve",)),
        ("[::1]:2001", ()),
        ("127.0.0.1:2000", ("eve",)),
    ]


def test_a_flag_for_the_address_of_a_single_listener() -> None:
    text = '[[listeners]]\nbind = "::1"\nport = 5'
    assert from_text(text, "-p", "6").listeners[0].address == "[::1]:6"
    assert from_text(text, "--bind", "127.0.0.2").listeners[0].address == "127.0.0.2:5"


def test_a_flag_for_the_address_of_several_listeners() -> None:
    text = "[[listeners]]\nport = 5\n[[listeners]]\nport = 6"
    assert error(text, "-p", "7") == "--port: is for one listener, but b.toml has 2: set 'port' in each of them"
    assert error(text, "--bind", "::1") == "--bind: is for one listener, but b.toml has 2: set 'bind' in each of them"
    assert error(text, port=7) == "port=: is for one listener, but b.toml has 2: set 'port' in each of them"


# Where to listen: an address, or a Unix socket


def test_a_unix_socket_in_each_source() -> None:
    here = os.getcwd()
    places = [
        from_text('unix = "s"\nunix_mode = "0660"'),
        from_text('[[listeners]]\nunix = "s"\nunix_mode = "660"'),
        load(None, parsed("--unix", "s", "--unix-mode", "660")),
        keywords(unix=Path("s"), unix_mode="0660"),
        keywords(listeners=[{"unix": "s", "unix_mode": "0660"}]),
    ]
    for config in places:
        [listener] = config.listeners
        assert (listener.unix, listener.unix_mode, listener.address) == (f"{here}/s", "0660", f"unix:{here}/s")
        assert listener.is_loopback


@pytest.mark.parametrize("address", ['bind = "::1"', "port = 5", 'bind = "::1"\nport = 5'])
def test_a_unix_socket_has_no_address(address: str) -> None:
    name = address[:4]
    hint = "cannot be combined with unix: leave one of them out, or give each its own [[listeners]]"
    assert error(f'unix = "s"\n{address}') == f"b.toml:2: '{name}' {hint}"
    assert error(f'[[listeners]]\nunix = "s"\n{address}') == f"b.toml:3: '{name}' {hint}"
    assert error_of_flags("--unix", "s", "-p", "5") == f"--port: {hint}"
    assert error_of_keywords(unix="s", bind="::1") == f"bind=: {hint}"


def test_where_to_listen_is_one_thing_of_which_the_stronger_source_decides() -> None:
    here = os.getcwd()
    mixed = 'bind = "127.0.0.2"\nport = 5\n[[listeners]]\n[[listeners]]\nunix = "s"\nunix_mode = "0666"'
    assert [one.address for one in from_text(mixed).listeners] == ["127.0.0.2:5", f"unix:{here}/s"]
    text = 'unix = "s"\nunix_mode = "0666"'
    assert from_text(text, "-p", "5").listeners[0].place == (None, "127.0.0.1", 5)
    assert from_text(text, "--unix", "t").listeners[0].place == (f"{here}/t", "127.0.0.1", 1883)
    assert from_text(text, "--unix", "t").listeners[0].unix_mode == "0666"
    assert from_text("port = 5", "--unix", "t").listeners[0].address == f"unix:{here}/t"
    assert from_text("[[listeners]]\nport = 5", "--unix", "t").listeners[0].address == f"unix:{here}/t"
    assert error("[[listeners]]\n[[listeners]]\nport = 5", "--unix", "t") == (
        "--unix: is for one listener, but b.toml has 2: set 'unix' in each of them"
    )


def test_a_unix_socket_survives_the_round_trip_and_is_told_apart() -> None:
    here = os.getcwd()
    config = from_text('[[listeners]]\n[[listeners]]\nunix = "s"\nunix_mode = "0660"\n[[listeners]]\nunix = "t"')
    Path("again.toml").write_text(config.toml(), encoding="utf-8")
    assert load("again.toml") == config
    new = from_text('[[listeners]]\nunix = "t"\ndeny_users = ["eve"]\n[[listeners]]\n[[listeners]]\nunix = "u"')
    assert [tuple(change.fields().values()) for change in config.changes(new)] == [
        ("deny_users", f"unix:{here}/t", "[]", '["eve"]'),
        ("listeners", None, f'["unix:{here}/s"]', f'["unix:{here}/u"]'),
    ]
    assert [one.deny_users for one in config.reloaded(new).listeners] == [(), (), ("eve",)]
    twice = '[[listeners]]\nunix = "s"\n[[listeners]]\nunix = "./s"'
    assert error(twice) == f"b.toml:3: second listener on unix:{here}/s, beside b.toml:1: give it another path"


def test_the_mode_of_a_unix_socket_has_no_meaning_without_one() -> None:
    why = "has no meaning without unix: set that too, or leave it out"
    assert error('unix_mode = "0660"') == f"b.toml:1: 'unix_mode' {why}"
    assert error_of_flags("--unix-mode", "0660") == f"--unix-mode: {why}"


def test_somebody_must_be_able_to_come_through_a_proxy() -> None:
    secret = 'passwords = "p"\nproxy_protocol = '
    assert error(f'unix = "s"\n{secret}["127.0.0.1"]') == (
        "b.toml:3: 'proxy_protocol' must contain \"unix\": clients of a Unix socket have no address"
    )
    assert error(f'{secret}["unix"]') == (
        "b.toml:2: 'proxy_protocol' must contain an address: \"unix\" has no meaning without unix"
    )
    both = from_text(f'{secret}["10.0.0.1", "unix"]\n[[listeners]]\n[[listeners]]\nunix = "s"')
    assert [one.proxy_protocol for one in both.listeners] == [("10.0.0.1", "unix")] * 2


def test_a_listener_for_proxies_is_not_for_this_machine_alone() -> None:
    for place in ({"bind": "127.0.0.1"}, {"unix": "s"}):
        [listener] = keywords(**place, proxy_protocol=["127.0.0.1", "unix"], passwords="p").listeners
        assert not listener.is_loopback


def test_listeners_as_a_keyword_argument() -> None:
    config = from_text(
        "max_connections = 3\n[[listeners]]\nport = 5\n[[listeners]]\nport = 6",
        listeners=[{"port": 0}, {"port": 0, "deny_users": ["ann"]}],
        deny_users=["eve"],
        bind="::1",
    )
    assert [(one.address, one.deny_users, one.max_connections) for one in config.listeners] == [
        ("[::1]:0", ("eve",), 3),
        ("[::1]:0", ("ann",), 3),
    ]


# Anonymous clients ---------------------------------------------------------------------------------------------------

TLS = 'certificate = "c"\n'
OPEN = (
    "to the network: say who may connect, with passwords for a password file (--passwords PATH), "
    "certificate_user for client certificates (--certificate-user cn), "
    "or allow_anonymous = true for everybody (--allow-anonymous)"
)


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("", True),
        ("allow_anonymous = false", False),
        ('passwords = "p"', False),
        ('passwords = "p"\nallow_anonymous = true', True),
        ('bind = "0.0.0.0"\npasswords = "p"', False),
        ('bind = "0.0.0.0"\nallow_anonymous = true', True),
        ('bind = "0.0.0.0"\npasswords = "p"\nallow_anonymous = true', True),
        (TLS, True),
        (f'{TLS}client_ca = "a"', True),
        (f'{TLS}client_ca = "a"\ncertificate_user = "cn"', False),
        (f'{TLS}client_ca = "a"\ncertificate_user = "cn"\nclient_certificates = "optional"', False),
        (f'{TLS}client_ca = "a"\ncertificate_user = "cn"\nallow_anonymous = true', True),
        (f'{TLS}client_ca = "a"\ncertificate_user = "cn"\nbind = "0.0.0.0"', False),
        ('unix = "s"', True),
        ('unix = "s"\nunix_mode = "0666"', True),  # all who are on this machine, as on a loopback address
        ('unix = "s"\npasswords = "p"', False),
        ('unix = "s"\nallow_anonymous = false', False),
        # Behind a proxy they come from anywhere:
        ('proxy_protocol = ["127.0.0.1"]\nallow_anonymous = true', True),
        ('proxy_protocol = ["127.0.0.1"]\npasswords = "p"', False),
        ('unix = "s"\nproxy_protocol = ["unix"]\npasswords = "p"', False),
    ],
)
def test_whether_anonymous_clients_are_admitted(text: str, allowed: bool) -> None:
    assert from_text(text).listeners[0].allow_anonymous is allowed


def test_a_listener_open_to_the_network_is_refused() -> None:
    assert error('\nbind = "0.0.0.0"') == f"b.toml:2: 'bind' opens 0.0.0.0:1883 {OPEN}"
    assert error('bind = "::"\nallow_anonymous = false') == f"b.toml:1: 'bind' opens [::]:1883 {OPEN}"
    assert error('[[listeners]]\n[[listeners]]\nport = 5\nbind = "mq.lan"') == f"b.toml:4: 'bind' opens mq.lan:5 {OPEN}"
    assert error("port = 7", "--bind", "0.0.0.0") == f"--bind: opens 0.0.0.0:7 {OPEN}"
    assert error_of_keywords(bind="0.0.0.0") == f"bind=: opens 0.0.0.0:1883 {OPEN}"
    proxied = 'proxy_protocol = ["127.0.0.1", "unix"]'
    assert error(proxied) == f"b.toml:1: 'proxy_protocol' opens 127.0.0.1:1883 {OPEN}"
    here = os.getcwd()
    assert error(f'{proxied}\nunix = "s"') == f"b.toml:1: 'proxy_protocol' opens unix:{here}/s {OPEN}"


@pytest.mark.parametrize(
    "text",
    [
        TLS,
        f'{TLS}client_ca = "a"',
        f'{TLS}client_ca = "a"\nclient_crl = "r"',
        # Who has no certificate could be anybody:
        f'{TLS}client_ca = "a"\nclient_certificates = "optional"\ncertificate_user = "cn"',
    ],
)
def test_tls_alone_opens_nothing(text: str) -> None:
    assert error(f'bind = "0.0.0.0"\n{text}') == f"b.toml:1: 'bind' opens 0.0.0.0:1883 {OPEN}"


@pytest.mark.parametrize(
    ("text", "name", "needed"),
    [
        ('key = "k"', "key", "certificate"),
        ('client_ca = "a"', "client_ca", "certificate"),
        ('certificate_chain = "a"', "certificate_chain", "certificate"),
        (f'{TLS}client_crl = "r"', "client_crl", "client_ca"),
        (f'{TLS}certificate_user = "cn"', "certificate_user", "client_ca"),
        (f'{TLS}client_certificates = "optional"', "client_certificates", "client_ca"),
    ],
)
def test_an_option_that_would_do_nothing(text: str, name: str, needed: str) -> None:
    line = text.count("\n") + 1
    assert error(text) == f"b.toml:{line}: '{name}' has no meaning without {needed}: set that too, or leave it out"


def test_each_listener_is_judged_by_itself() -> None:
    text = '[[listeners]]\nbind = "0.0.0.0"\npasswords = "p"\n[[listeners]]\nbind = "0.0.0.0"\nport = 1884'
    assert error(text) == f"b.toml:5: 'bind' opens 0.0.0.0:1884 {OPEN}"


UNUSED = "is not used, because each listener sets its own: leave it out, or add a listener for"


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ('bind = "0.0.0.0"\n[[listeners]]\nbind = "::1"', "1: 'bind'"),
        ("\nport = 1883\n[[listeners]]\nport = 1884\n[[listeners]]\nport = 1885", "2: 'port'"),
        ('port = 1883\n[[listeners]]\nport = 1884\n[[listeners]]\nunix = "s"', "1: 'port'"),
        ('unix = "s"\n[[listeners]]\nport = 1884\n[[listeners]]\nunix = "t"', "1: 'unix'"),
    ],
)
def test_an_address_in_front_of_the_listeners_that_none_of_them_uses_is_told(text: str, where: str) -> None:
    """Mosquitto makes a listener of its own of it, so somebody expects one."""
    assert error(text) == f"b.toml:{where} {UNUSED} it"


def test_an_address_in_front_of_the_listeners_is_the_default_of_those_without() -> None:
    config = from_text(
        'bind = "::1"\nport = 1900\n[[listeners]]\n[[listeners]]\nport = 1901\n[[listeners]]\nunix = "s"'
    )
    assert [listener.address for listener in config.listeners[:2]] == ["[::1]:1900", "[::1]:1901"]
    # A flag is above both, and for one listener only; what it covers need not be left out.
    assert from_text("port = 1900\n[[listeners]]", "--port", "5").listeners[0].port == 5


def test_an_address_beside_listeners_as_keyword_arguments() -> None:
    assert error_of_keywords(port=5, listeners=[{"port": 6}]) == f"port=: {UNUSED} it"
    assert [one.port for one in keywords(port=5, listeners=[{"port": 6}, {}]).listeners] == [6, 5]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ('bind = "0.0.0.0"', 'bind = "127.0.0.1"'),
        ('bind = "127.0.0.1"', 'bind = "0.0.0.0"'),
        ('bind = "::"', 'bind = "::1"'),
        ('bind = "::1"', 'bind = "0::"'),
        ('bind = "127.0.0.1"', 'bind = "::ffff:127.0.0.1"'),
    ],
)
def test_listeners_that_collide_are_told_with_their_lines(one: str, other: str) -> None:
    text = f"allow_anonymous = true\n[[listeners]]\n{one}\n\n[[listeners]]\n{other}"
    first, second = (line.split('"')[1] for line in (one, other))
    first, second = (f"[{host}]" if ":" in host else host for host in (first, second))
    assert error(text) == (
        f"b.toml:5: the listener on {second}:1883 collides with that on {first}:1883 of b.toml:2: give it another port"
    )


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ('bind = "0.0.0.0"', 'bind = "::"'),
        ('bind = "10.0.0.1"', 'bind = "::"'),
        ('bind = "0.0.0.0"', 'bind = "::1"'),
        ('bind = "127.0.0.1"', 'bind = "127.0.0.2"'),
        ('bind = "0.0.0.0"', 'bind = "127.0.0.1"\nport = 1884'),
        ('bind = "0.0.0.0"\nport = 0', 'bind = "127.0.0.1"\nport = 0'),
        ('bind = "0.0.0.0"', 'unix = "s"'),
    ],
)
def test_listeners_that_do_not_collide(one: str, other: str) -> None:
    assert len(from_text(f"allow_anonymous = true\n[[listeners]]\n{one}\n[[listeners]]\n{other}").listeners) == 2


def test_a_listener_for_proxies_of_websocket_is_open_to_the_network() -> None:
    """Whoever comes through them is not on this machine."""
    text = '[[listeners]]\nwebsocket = true\nwebsocket_forwarded_for = ["127.0.0.1"]'
    assert error(text).startswith(
        "b.toml:3: 'websocket_forwarded_for' opens 127.0.0.1:1883 to the network: say who may connect"
    )
    assert not from_text(f"{text}\nallow_anonymous = true").listeners[0].is_loopback


def test_proxies_of_websocket_need_websocket() -> None:
    assert error('websocket_forwarded_for = ["127.0.0.1"]') == (
        "b.toml:1: 'websocket_forwarded_for' has no meaning without websocket: set that too, or leave it out"
    )


# memory and data -----------------------------------------------------------------------------------------------------


def test_memory_excludes_data_of_the_same_source() -> None:
    assert error('data = "d"\nmemory = true') == (
        "b.toml:2: 'memory' stores nothing, so it cannot be combined with data: leave one of them out"
    )
    assert error_of_flags("--memory", "--data", "d") == (
        "--memory: stores nothing, so it cannot be combined with data: leave one of them out"
    )
    assert error_of_keywords(memory=True, data="d") == (
        "memory=: stores nothing, so it cannot be combined with data: leave one of them out"
    )


def test_the_stronger_source_decides_between_memory_and_data() -> None:
    config = from_text('data = "/d"', "--memory")
    assert (config.memory, config.data) == (True, None)
    config = from_text("memory = true", "--data", "/d")
    assert (config.memory, config.data) == (False, "/d")
    config = from_text('data = "/d"\nmemory = true', "--no-memory")
    assert (config.memory, config.data) == (False, "/d")


def test_no_home_directory_is_needed_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "nowhere")
    monkeypatch.delenv("XDG_STATE_HOME")
    assert keywords(memory=True).data is None
    assert keywords(data="/d").data == "/d"


# Wrong values --------------------------------------------------------------------------------------------------------

ORIGINS = 'a list of origins such as "https://example.com", or "*" for any'
SIZE = '(a number of bytes, or a text such as "64 KiB", "1 MiB", "10MB")'
HOST = "must be an IP address or a host name"
MODE = 'must be a file mode in octal, such as "0660"'
PEERS = 'must be a list of IP addresses and networks such as "10.0.0.0/8", or "unix" for a Unix socket'
STRATEGY = "one of 'round-robin', 'sticky', 'hash-topic', 'hash-publisher', 'least-queued'"
LIST = "must be a list of texts, none of them empty"
PORT = "must be an integer from 0 to 65535"
TIME = '(a number of seconds, or a text such as "90s", "15m", "2h", "7d")'


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('port = "abc"', f"'port' {PORT}, not 'abc'"),
        ('port = "1883"', f"'port' {PORT}, not '1883'; write it without quotes"),
        ("port = true", f"'port' {PORT}, not true"),
        ("port = 1883.0", f"'port' {PORT}, not 1883.0"),
        ("port = -1", f"'port' {PORT}, not -1"),
        ("port = 65536", f"'port' {PORT}, not 65536"),
        ("port = [1883]", f"'port' {PORT}, not a list"),
        ("port = {a = 1}", f"'port' {PORT}, not a table"),
        ("port = 1979-05-27", f"'port' {PORT}, not 1979-05-27"),
        ("port = 0x" + "f" * 5000, f"'port' {PORT}, not a number of more than 20 digits"),
        ("workers = 0", "'workers' must be an integer from 1 to 64, not 0"),
        ("workers = 65", "'workers' must be an integer from 1 to 64, not 65"),
        ("max_client_id = 22", "'max_client_id' must be an integer from 23 to 65535, not 22"),
        ("max_client_id = 65536", "'max_client_id' must be an integer from 23 to 65535, not 65536"),
        ("max_connections = 0", "'max_connections' must be an integer from 1 to 1000000000, not 0"),
        ("max_topic_levels = 65537", "'max_topic_levels' must be an integer from 1 to 65536, not 65537"),
        ("max_inflight = 0", "'max_inflight' must be an integer from 1 to 65535, not 0"),
        ("max_inflight = 65536", "'max_inflight' must be an integer from 1 to 65535, not 65536"),
        ("max_subscriptions = 0", "'max_subscriptions' must be an integer from 1 to 1000000000, not 0"),
        ("max_queued_messages = 0", "'max_queued_messages' must be an integer from 1 to 1000000000, not 0"),
        ("max_memory_queue = 0", "'max_memory_queue' must be an integer from 1 to 1000000000, not 0"),
        ("max_retained = 0", "'max_retained' must be an integer from 1 to 1000000000, not 0"),
        ("max_connect_rate = -1", "'max_connect_rate' must be an integer from 0 to 1000000000, not -1"),
        ("max_packet_size = 1023", f"'max_packet_size' must be a size from 1 KiB to 268435460 {SIZE}, not 1023"),
        (
            "max_packet_size = 268435461",
            f"'max_packet_size' must be a size from 1 KiB to 268435460 {SIZE}, not 268435461",
        ),
        ("websocket_path = 5", "'websocket_path' must be the path of a URL, not 5"),
        (
            'websocket_path = "mqtt"',
            "'websocket_path' must be the path of a URL, not 'mqtt'; did you mean '/mqtt'?",
        ),
        (
            'websocket_path = "ws://host:80/mqtt"',
            "'websocket_path' must be the path of a URL, not 'ws://host:80/mqtt'; did you mean '/mqtt'?",
        ),
        ('websocket_path = "/mqtt?x=1"', "'websocket_path' must be the path of a URL, not '/mqtt?x=1'"),
        ('websocket_path = ""', "'websocket_path' must be the path of a URL, not ''; did you mean '/'?"),
        (
            'websocket_origins = "https://example.com"',
            f"'websocket_origins' must be {ORIGINS}, not 'https://example.com'; write [\"https://example.com\"]",
        ),
        (
            'websocket_origins = ["example.com"]',
            f"'websocket_origins' must be {ORIGINS}, and one of them is 'example.com'",
        ),
        ("websocket_origins = [7]", f"'websocket_origins' must be {ORIGINS}, and one of them is 7"),
        (
            'websocket_origins = ["http://example.com:80/page"]',
            "'websocket_origins' has 'http://example.com:80/page', but an origin is no more than 'http://example.com'",
        ),
        ('max_packet_size = "1 GiB"', f"'max_packet_size' must be a size from 1 KiB to 268435460 {SIZE}, not '1 GiB'"),
        ("max_topic_length = 0", f"'max_topic_length' must be a size from 1 to 65535 {SIZE}, not 0"),
        ("max_topic_length = true", f"'max_topic_length' must be a size from 1 to 65535 {SIZE}, not true"),
        ("max_queued_bytes = true", f"'max_queued_bytes' must be a size from 1 KiB to 1 TiB {SIZE}, not true"),
        ("max_unsent = 2048.0", f"'max_unsent' must be a size from 1 KiB to 1 TiB {SIZE}, not 2048.0"),
        ('max_unsent = "64k"', f"'max_unsent' must be a size from 1 KiB to 1 TiB {SIZE}, not '64k'"),
        ('max_unsent = "1.5 MiB"', f"'max_unsent' must be a size from 1 KiB to 1 TiB {SIZE}, not '1.5 MiB'"),
        (
            'max_unsent = "65536"',
            f"'max_unsent' must be a size from 1 KiB to 1 TiB {SIZE}, not '65536'; write it without quotes",
        ),
        ("max_retained_bytes = []", f"'max_retained_bytes' must be a size from 1 KiB to 1 TiB {SIZE}, not a list"),
        ("connect_timeout = 0", f"'connect_timeout' must be a duration from 0.1s to 1h {TIME}, not 0"),
        ('connect_timeout = "61m"', f"'connect_timeout' must be a duration from 0.1s to 1h {TIME}, not '61m'"),
        ("max_keepalive = 65536", f"'max_keepalive' must be a duration from 0 to 65535s {TIME}, not 65536"),
        ("session_expiry = -0.5", f"'session_expiry' must be a duration from 0 to 36500d {TIME}, not -0.5"),
        ("session_expiry = nan", f"'session_expiry' must be a duration from 0 to 36500d {TIME}, not nan"),
        ("session_expiry = inf", f"'session_expiry' must be a duration from 0 to 36500d {TIME}, not inf"),
        ("session_expiry = true", f"'session_expiry' must be a duration from 0 to 36500d {TIME}, not true"),
        ('session_expiry = "7 days"', f"'session_expiry' must be a duration from 0 to 36500d {TIME}, not '7 days'"),
        (
            'sys_interval = "10"',
            f"'sys_interval' must be a duration from 0 to 1d {TIME}, not '10'; write it without quotes",
        ),
        ('allow_anonymous = "yes"', "'allow_anonymous' must be true or false, not 'yes'"),
        ('memory = "true"', "'memory' must be true or false, not 'true'; write it without quotes"),
        ("memory = 1", "'memory' must be true or false, not 1"),
        ('log_level = "warn"', "'log_level' must be one of 'error', 'warning', 'info', 'debug', not 'warn'"),
        ("log_level = 3", "'log_level' must be one of 'error', 'warning', 'info', 'debug', not 3"),
        ('log_format = "JSON"', "'log_format' must be one of 'text', 'json', not 'JSON'"),
        ('passwords = ""', "'passwords' must be a path, not ''"),
        ("acl = false", "'acl' must be a path, not false"),
        (r'data = "a\u0000b"', r"'data' must be a path, not 'a\x00b'"),
        ("bind = 1883", f"'bind' {HOST}, not 1883"),
        (
            'bind = ""',
            f"'bind' {HOST}, not ''; all addresses are '0.0.0.0' (IPv4) or '::' (IPv6)",
        ),
        (
            'bind = "*"',
            f"'bind' {HOST}, not '*'; all addresses are '0.0.0.0' (IPv4) or '::' (IPv6)",
        ),
        ('bind = "[::1]"', f"'bind' {HOST}, not '[::1]'; write it without brackets: '::1'"),
        (
            'bind = "127.0.0.1:1883"',
            f"'bind' {HOST}, not '127.0.0.1:1883'; "
            "write '127.0.0.1', and the port 1883 as 'port'",
        ),
        (
            'bind = "[::1]:1883"',
            f"'bind' {HOST}, not '[::1]:1883'; write '::1', and the port 1883 as 'port'",
        ),
        ('bind = "mqtt://host"', f"'bind' {HOST}, not 'mqtt://host'"),
        ('bind = "300.0.0.1"', f"'bind' {HOST}, not '300.0.0.1'"),
        ('bind = "a b"', f"'bind' {HOST}, not 'a b'"),
        ('unix = ""', "'unix' must be a path, not ''"),
        ('unix_mode = "0888"', f"'unix_mode' {MODE}, not '0888'"),
        ('unix_mode = "1777"', f"'unix_mode' {MODE}, not '1777'"),
        ("unix_mode = 660", f"'unix_mode' {MODE}, not 660; write it as a text"),
        ("unix_mode = 0o660", f"'unix_mode' {MODE}, not 432; write it as a text"),
        ('proxy_protocol = "::1"', f"'proxy_protocol' {PEERS}, not '::1'; write [\"::1\"]"),
        ('proxy_protocol = ["lb.lan"]', f"'proxy_protocol' {PEERS}, and one of them is 'lb.lan'"),
        ("proxy_protocol = [1]", f"'proxy_protocol' {PEERS}, and one of them is 1"),
        ('proxy_protocol = ["10.0.0.1:1883"]', f"'proxy_protocol' {PEERS}, and one of them is '10.0.0.1:1883'"),
        ('proxy_protocol = ["fe80::1%lo"]', f"'proxy_protocol' {PEERS}, and one of them is 'fe80::1%lo'"),
        ('proxy_protocol = ["10.0.0.0/33"]', f"'proxy_protocol' {PEERS}, and one of them is '10.0.0.0/33'"),
        (
            'proxy_protocol = ["*"]',
            f"'proxy_protocol' {PEERS}, and one of them is '*'; all addresses are '0.0.0.0/0' and '::/0'",
        ),
        (
            'proxy_protocol = ["localhost"]',
            f"'proxy_protocol' {PEERS}, and one of them is 'localhost'; write '127.0.0.1' or '::1'",
        ),
        (
            'proxy_protocol = ["10.0.0.1/8"]',
            "'proxy_protocol' has '10.0.0.1/8', but the network is '10.0.0.0/8', and the address '10.0.0.1'",
        ),
        (
            'proxy_protocol = ["::ffff:10.0.0.1"]',
            "'proxy_protocol' has '::ffff:10.0.0.1': write it as IPv4",
        ),
        ('deny_users = "eve"', f"'deny_users' {LIST}, not 'eve'; write [\"eve\"]"),
        ("deny_users = 5", f"'deny_users' {LIST}, not 5"),
        ('deny_users = ["a", 5]', f"'deny_users' {LIST}, and one of them is 5"),
        ('client_id_prefixes = [""]', f"'client_id_prefixes' {LIST}, and one of them is ''"),
        ('shared_strategy = "random"', f"'shared_strategy' must be {STRATEGY}, not 'random'"),
        (
            'shared_strategies = "sticky"',
            f"'shared_strategies' must be a table of group = {STRATEGY}, not 'sticky'",
        ),
        ('shared_strategies.g = "hash"', f"'shared_strategies.g' must be {STRATEGY}, not 'hash'"),
        (
            'shared_strategies = {"$share/g" = "sticky"}',
            f"'shared_strategies' must be a table of group = {STRATEGY}, and one of the names is '$share/g'",
        ),
        ('client_ids = ["a"]', "'client_ids' must be a table of user name = list of ClientId patterns, not a list"),
        (
            'client_ids = {"" = ["a"]}',
            "'client_ids' must be a table of user name = list of ClientId patterns, and one of the names is ''",
        ),
        (
            'client_ids.ann = "ann-*"',
            f"'client_ids.ann' {LIST}, not 'ann-*'; write [\"ann-*\"]",
        ),
        (
            "client_ids.ann = []",
            "'client_ids.ann' must have a pattern; to refuse the user altogether use 'deny_users'",
        ),
        (
            'client_ids.ann = ["%c"]',
            "'client_ids.ann' has '%c', but '%' stands only in '%u', the user's name",
        ),
    ],
)  # fmt: skip
def test_a_wrong_value_in_a_file(line: str, message: str) -> None:
    assert error(f"\n\n{line}\n") == f"b.toml:3: {message}"


def test_a_wrong_value_in_a_listener() -> None:
    assert error('[[listeners]]\nport = 1\n[[listeners]]\nport = "x"') == (f"b.toml:4: 'port' {PORT}, not 'x'")
    assert error("[[listeners]]\n[listeners.client_ids]\nann = 5") == (f"b.toml:3: 'client_ids.ann' {LIST}, not 5")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["-p", "abc"], f"--port: {PORT}, not 'abc'"),
        (["--port", "1_883"], f"--port: {PORT}, not '1_883'"),
        (["--port", "٣"], f"--port: {PORT}, not '٣'"),
        (["--port", "-1"], f"--port: {PORT}, not -1"),
        (["--port", "70000"], f"--port: {PORT}, not 70000"),
        (["--port", "9" * 30], f"--port: {PORT}, not a number of more than 20 digits"),
        (["--max-packet-size", "big"], f"--max-packet-size: must be a size from 1 KiB to 268435460 {SIZE}, not 'big'"),
        (["--max-unsent", "12"], f"--max-unsent: must be a size from 1 KiB to 1 TiB {SIZE}, not 12"),
        (["--sys-interval", "soon"], f"--sys-interval: must be a duration from 0 to 1d {TIME}, not 'soon'"),
        (["--sys-interval", "2d"], f"--sys-interval: must be a duration from 0 to 1d {TIME}, not '2d'"),
        (["--log-level", "warn"], "--log-level: must be one of 'error', 'warning', 'info', 'debug', not 'warn'"),
        (["--data", ""], "--data: must be a path, not ''"),
        (["--bind", "*"], f"--bind: {HOST}, not '*'; "
         "all addresses are '0.0.0.0' (IPv4) or '::' (IPv6)"),
    ],
)  # fmt: skip
def test_a_wrong_flag(flags: list[str], message: str) -> None:
    assert error_of_flags(*flags) == message


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"port": "1883"}, f"port=: {PORT}, not '1883'; write it without quotes"),
        ({"port": True}, f"port=: {PORT}, not true"),
        ({"max_inflght": 5}, "max_inflght=: unknown keyword argument; did you mean 'max_inflight'?"),
        ({"acl_file": "p"}, "acl_file=: unknown keyword argument, a name of Mosquitto's; here it is 'acl'"),
        ({"data": b"d"}, "data=: must be a path, not b'd'"),
        ({"client_ids": {"ann": "a"}}, f"client_ids.ann=: {LIST}, not 'a'; write [\"a\"]"),
        ({"listeners": [{"port": "x"}]}, f"listeners[0].port=: {PORT}, not 'x'"),
        ({"listeners": [{"workers": 2}]}, "listeners[0].workers=: belongs at the top level, not in a listener"),
        ({"listeners": []}, "listeners=: is empty: leave it out to have one listener, on 'bind' and 'port'"),
        ({"listeners": {"port": 1}}, "listeners=: must be a list of mappings, not a table"),
        ({"listeners": [1883]}, "listeners=: must be a list of mappings, and one of them is 1883"),
        (
            {"listeners": [{"port": 5}, {"port": 5}]},
            "listeners[1]=: second listener on 127.0.0.1:5, beside listeners[0]=: give it another port",
        ),
    ],
)  # fmt: skip
def test_a_wrong_keyword_argument(values: dict[str, object], message: str) -> None:
    assert error_of_keywords(**values) == message


# Unknown keys --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("max_inflght = 5", "'max_inflght'; did you mean 'max_inflight'?"),
        ("max-inflight = 5", "'max-inflight'; did you mean 'max_inflight'?"),
        ("Port = 5", "'Port'; did you mean 'port'?"),
        ("listeners_ = 5", "'listeners_'; did you mean 'listeners'?"),
        ("zzz = 5", "'zzz'; `python3 -m broker options` lists all options"),
        ('"a b" = 5', "'a b'; `python3 -m broker options` lists all options"),
        (r'"a\nb" = 5', r"'a\nb'; `python3 -m broker options` lists all options"),
        ("limits.max_inflight = 5", "'limits': options stand at the top level, not in a table of their own"),
        ("[broker]\nport = 5", "'broker': options stand at the top level, not in a table of their own"),
    ],
)  # fmt: skip
def test_an_unknown_key(line: str, message: str) -> None:
    assert error(f"# port = 1\n{line}\n") == f"b.toml:2: unknown key {message}"


@pytest.mark.parametrize(
    ("line", "advice"),
    [
        ("listener = 1883", "here it is 'listeners', a [[listeners]] table with 'bind' and 'port', or with 'unix'"),
        (
            "[[listener]]\nport = 5",
            "here it is 'listeners', a [[listeners]] table with 'bind' and 'port', or with 'unix'",
        ),
        ("enable_proxy_protocol = 2", "here it is 'proxy_protocol', a list of the proxies"),
        ('password_file = "p"', "here it is 'passwords'"),
        ('acl_file = "p"', "here it is 'acl'"),
        ('persistence_location = "p"', "here it is 'data', a directory"),
        ('persistence_file = "p"', "here it is 'data', the directory of the file"),
        ("persistence = true", "here it is 'memory', which is true where persistence is false"),
        ("max_inflight_messages = 5", "here it is 'max_inflight', from 1 to 65535"),
        ('persistent_client_expiration = "1d"', "here it is 'session_expiry', in which m is minutes"),
        ('log_type = "all"', "here it is 'log_level', one of error, warning, info, debug"),
        ("autosave_interval = 5", "it is not needed here, because what is acknowledged is stored already"),
        ("autosave_on_changes = true", "it is not needed here, because what is acknowledged is stored already"),
        ('protocol = "websockets"', "here it is 'websocket', true for the protocol websockets"),
        ('websockets_origin = "https://example.com"', "here it is 'websocket_origins', a list"),
        ("message_size_limit = 5", "here it is 'max_packet_size', which counts the topic and the header, too"),
        ('bind_address = "::1"', "here it is 'bind'"),
        ('clientid_prefixes = "a"', "here it is 'client_id_prefixes', a list"),
        (
            "per_listener_settings = true",
            "it is not needed here, because each [[listeners]] table has settings of its own",
        ),
        ('certfile = "c"', "here it is 'certificate'"),
        ('keyfile = "k"', "here it is 'key'"),
        ('cafile = "c"', "here it is 'client_ca', or 'certificate_chain' where clients need no certificate"),
        ('capath = "c"', "here it is 'client_ca', or 'certificate_chain' where clients need no certificate"),
        ('crlfile = "c"', "here it is 'client_crl'"),
        (
            "require_certificate = false",
            "here it is 'client_certificates', 'required' (the default with 'client_ca') or 'optional'",
        ),
        ("use_identity_as_username = true", "here it is 'certificate_user', 'cn'"),
        ("use_subject_as_username = true", "here it is 'certificate_user', 'subject'"),
        ('tls_version = "tlsv1.3"', "it is not needed here, because TLS 1.2 and later are spoken, and nothing older"),
        ("set_tcp_nodelay = true", "it is not needed here, because TCP_NODELAY is always on"),
    ],
)
def test_a_name_of_mosquitto(line: str, advice: str) -> None:
    name = line.strip("[]").replace("]]", " ").split()[0]
    assert error(line) == f"b.toml:1: unknown key '{name}', a name of Mosquitto's; {advice}"


@pytest.mark.parametrize(
    "text",
    [
        "max_queued_messages = 5", "max_queued_bytes = 5000", "max_connections = 5", "max_packet_size = 5000",
        "sys_interval = 5", "max_keepalive = 5",
    ],
)  # fmt: skip
def test_names_shared_with_mosquitto_are_ours(text: str) -> None:
    name, value = text.split(" = ")
    config = from_text(text)
    assert getattr(config if name in GLOBAL_OPTIONS else config.listeners[0], name) == int(value)


def test_an_unknown_key_in_a_listener() -> None:
    assert error("[[listeners]]\nprot = 5") == "b.toml:2: unknown key 'prot'; did you mean 'port'?"
    assert error("[[listeners]]\nworker = 5") == (
        "b.toml:2: unknown key 'worker'; did you mean 'workers' at the top level?"
    )
    assert error('[[listeners]]\nacl_file = "a"') == (
        "b.toml:2: unknown key 'acl_file', a name of Mosquitto's; here it is 'acl'"
    )


def test_an_option_of_the_broker_in_a_listener() -> None:
    assert error("[[listeners]]\nport = 5\nmax_inflight = 9") == (
        "b.toml:3: 'max_inflight' belongs at the top level, not in a listener: move it above the first [[listeners]]"
    )


def test_an_option_that_landed_in_client_ids() -> None:
    assert error('[client_ids]\nann = ["a"]\nmax_inflight = 9') == (
        f"b.toml:3: 'client_ids.max_inflight' {LIST}, not 9; to set the option max_inflight, move it above [client_ids]"
    )
    # Without this error nobody would be denied.
    assert error('[client_ids]\nann = ["a"]\ndeny_users = ["eve"]') == (
        "b.toml:3: 'client_ids.deny_users' would be a user's name; to set the option, move it above [client_ids]"
    )
    assert keywords(client_ids={"deny_users": ["a"]}).listeners[0].client_ids == {"deny_users": ("a",)}
    assert from_text('[client_ids]\nport = ["a"]').listeners[0].client_ids == {"port": ("a",)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("listeners = []", "1: 'listeners' is empty: leave it out to have one listener, on 'bind' and 'port'"),
        ("\nlisteners = 5", "2: 'listeners' must be [[listeners]] tables, not 5"),
        ("listeners = [5]", "1: 'listeners' must be [[listeners]] tables, and one of them is 5"),
        (
            "\n[listeners]\nport = 5",
            "2: 'listeners' must be [[listeners]] tables: "
            "write [[listeners]], in two pairs of brackets, above each listener",
        ),
        (
            "[[listeners]]\nport = 5\n\n[[listeners]]\nport = 5",
            "4: second listener on 127.0.0.1:5, beside b.toml:1: give it another port",
        ),
        (
            'listeners = [\n{bind = "::1"},\n{bind = "0::1"}]',
            "3: second listener on [0::1]:1883, beside b.toml:2: give it another port",
        ),
        (
            'listeners = [{bind = "localhost"}, {bind = "LOCALHOST"}]',
            "1: second listener on LOCALHOST:1883, beside b.toml:1: give it another port",
        ),
        (
            "port = 9\n[[listeners]]\n[[listeners]]",
            "3: second listener on 127.0.0.1:9, beside b.toml:2: give it another port",
        ),
    ],
)
def test_wrong_listeners(text: str, message: str) -> None:
    assert error(text) == f"b.toml:{message}"


def test_port_0_may_repeat() -> None:
    config = from_text("port = 0\n[[listeners]]\n[[listeners]]")
    assert [one.address for one in config.listeners] == ["127.0.0.1:0", "127.0.0.1:0"]


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--max-inflght", "--max-inflght: unknown flag; did you mean '--max-inflight'?"),
        ("--max_inflight=5", "--max_inflight: unknown flag; did you mean '--max-inflight'?"),
        ("--no-memry", "--no-memry: unknown flag; did you mean '--no-memory'?"),
        ("--chek", "--chek: unknown flag; did you mean '--check'?"),
        ("--deny-users=x", "--deny-users: has no flag; set 'deny_users' in the configuration file"),
        ("--password-file", "--password-file: unknown flag, a name of Mosquitto's; here it is 'passwords'"),
        ("--zzz", "--zzz: unknown flag; --help shows all flags, and `python3 -m broker options` all options"),
        ("my.toml", "my.toml: unexpected argument; a configuration file is given as -c FILE"),
        ("-x", "-x: unknown flag; --help shows all flags, and `python3 -m broker options` all options"),
    ],
)
def test_an_unknown_flag(flag: str, message: str) -> None:
    assert str(unknown_flag(flag, ["--check"])) == message


def test_the_place_of_a_key_whose_line_is_not_known() -> None:
    file = File("b.toml", "/etc", {("listeners",): 3})
    assert file.where(("listeners", 0, "port")) == "b.toml:3: 'port'"
    assert file.where(("port",)) == "b.toml: 'port'"


# Files that cannot be read -------------------------------------------------------------------------------------------


def failure(path: str | Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load(path)
    return str(caught.value)


def test_a_file_that_is_not_there() -> None:
    assert failure("none.toml") == "none.toml: there is no such file"


def test_a_directory() -> None:
    Path("etc").mkdir()
    assert failure("etc") == "etc: is a directory; name the configuration file in it"
    Path("b.toml").touch()
    assert failure("b.toml/x") == "b.toml/x: cannot be read: something on the way there is a file, not a directory"


def test_an_unreadable_file() -> None:
    Path("loop.toml").symlink_to("loop.toml")
    assert failure("loop.toml") == "loop.toml: cannot be read: symbolic links lead in a circle"
    assert failure("a\0b") == r"a\x00b: cannot be read: embedded null byte"


def test_a_file_without_permission(monkeypatch: pytest.MonkeyPatch) -> None:
    # Permissions do not stop root, so the refusal itself is made.
    def refuse(path: str, mode: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr("builtins.open", refuse)
    assert failure("b.toml") == "b.toml: cannot be read: permission denied"


def test_a_file_that_is_not_utf_8() -> None:
    Path("b.toml").write_bytes(b'port = 1\ndata = "\xe9"')
    assert failure("b.toml") == "b.toml:2: is not UTF-8 (byte 0xe9); save it as UTF-8"


def test_a_file_that_never_ends() -> None:
    assert failure("/dev/zero") == "/dev/zero: is larger than 4 MiB; is it a configuration file?"


def test_a_byte_order_mark_and_windows_line_ends() -> None:
    Path("b.toml").write_bytes(b"\xef\xbb\xbfworkers = 7\r\nmax_inflight = 9\r\n")
    assert (load("b.toml").workers, load("b.toml").max_inflight) == (7, 9)
    Path("b.toml").write_bytes(b"\r\n\r\nworkers = 77\r\n")
    assert failure("b.toml") == "b.toml:3: 'workers' must be an integer from 1 to 64, not 77"


def test_a_message_stays_on_one_line() -> None:
    Path("a\nb.toml").write_text("port = 'x'")
    assert failure("a\nb.toml") == rf"a\nb.toml:1: 'port' {PORT}, not 'x'"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("port = 1\nport = 2\n", ":2: is not valid TOML: a key is set twice (column 9)"),
        ("port = 1\nport = 2", ":2: is not valid TOML: a key is set twice"),
        ("port = 1\ndata = /var/x\n", ":2: is not valid TOML: Invalid value (column 8)"),
        ("port: 1", ":1: is not valid TOML: Expected '=' after a key in a key/value pair (column 5)"),
        ("deny_users = [\n1", ":2: is not valid TOML: Unclosed array"),
        ("x = " + "[" * 5000, ": is not valid TOML: arrays or tables are nested too deep"),
        (
            "listener 1883\n",
            ":1: is not valid TOML: Expected '=' after a key in a key/value pair (column 10)"
            "; it looks like a mosquitto.conf: convert it with `python3 -m broker convert b.toml`",
        ),
        (
            "# my broker\npid_file /run/mosquitto/mosquitto.pid\n\npersistence true\nlog_dest stdout\n",
            ":2: is not valid TOML: Expected '=' after a key in a key/value pair (column 10)"
            "; it looks like a mosquitto.conf: convert it with `python3 -m broker convert b.toml`",
        ),
    ],
)
def test_a_file_that_is_not_toml(text: str, message: str) -> None:
    assert error(text) == f"b.toml{message}"


def test_a_number_of_thousands_of_digits() -> None:
    assert error("port = " + "9" * 5000).startswith("b.toml: is not valid TOML: Exceeds the limit (4300 digits)")


def test_a_unix_socket_whose_path_is_too_long() -> None:
    assert from_text(f'unix = "/{"x" * 106}"').listeners[0].unix == "/" + "x" * 106
    for path in ("/" + "x" * 107, "/" + "é" * 54):
        start = "b.toml:1: 'unix' must be a path of at most 107 bytes for a Unix socket, not '/"
        assert error(f'unix = "{path}"').startswith(start)


ODD_VALUES = st.sampled_from(
    ['"0660"', '["127.0.0.1", "unix"]', '["unix"]',
     "0", "-1", "1", "5000", "65536", "1" * 25, "0x" + "f" * 5000, "0.5", "1e300", "nan", "-inf", "true", "2020-01-01",
     '""', '"5"', '"5 kB"', '"1h"', '"9999999999999d"', '"::"', r'"a\u0000\n"', "[]", "[[]]", '["x", "y"]', "[1]", "{}",
     '{x = ["y"]}', "{port = 1}", "[{}]", "[{port = 0}, {bind = '::1'}]", '[{bind = "a"}]', '"~x/y"', "'''\n\n'''"]
)  # fmt: skip


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from([*OPTIONS, "listeners", "listener", r'"a\tb"', "x.y"]), ODD_VALUES, max_size=4))
def test_any_file_gives_a_configuration_or_an_error_of_one_line(pairs: dict[str, str]) -> None:
    text = "".join(f"{name} = {value}\n" for name, value in pairs.items())
    outcome = config_or_error(text)
    if isinstance(outcome, Config):
        assert from_text(outcome.toml()) == outcome
    else:
        match = re.fullmatch("b[.]toml:([0-9]+): .+", outcome)
        assert match is not None
        assert 1 <= int(match[1]) <= text.count("\n")
        assert outcome.isprintable() is True


def config_or_error(text: str) -> Config | str:
    try:
        return from_text(text)
    except ConfigError as error:
        return str(error)


# Reload --------------------------------------------------------------------------------------------------------------


def test_no_changes() -> None:
    assert load().changes(load()) == []


def test_changes_of_the_broker() -> None:
    old, new = keywords(), keywords(max_inflight=5, workers=8, data="/d")
    assert old.changes(new) == [
        Change("data", "/state/selectmq", "/d", False),
        Change("workers", 4, 8, False),
        Change("max_inflight", 100, 5, True),
    ]
    assert [change.fields() for change in old.changes(new)] == [
        {"option": "data", "listener": None, "old": "/state/selectmq", "new": "/d"},
        {"option": "workers", "listener": None, "old": "4", "new": "8"},
        {"option": "max_inflight", "listener": None, "old": "100", "new": "5"},
    ]


def test_changes_of_a_listener() -> None:
    old = from_text("[[listeners]]\nport = 5\n[[listeners]]\nport = 6")
    new = from_text('[[listeners]]\nport = 6\npasswords = "/p"\n[[listeners]]\nport = 5')
    assert old.changes(new) == [
        Change("passwords", None, "/p", True, "127.0.0.1:6"),
        Change("allow_anonymous", True, False, True, "127.0.0.1:6"),
    ]
    assert [change.fields() for change in old.changes(new)] == [
        {"option": "passwords", "listener": "127.0.0.1:6", "old": "none", "new": "/p"},
        {"option": "allow_anonymous", "listener": "127.0.0.1:6", "old": "true", "new": "false"},
    ]


def test_changes_of_the_listeners() -> None:
    old = from_text("[[listeners]]\nport = 5\n[[listeners]]\nport = 6")
    new = from_text("[[listeners]]\nport = 7\n[[listeners]]\nport = 6")
    assert old.changes(new) == [Change("listeners", ("127.0.0.1:5",), ("127.0.0.1:7",), False)]
    assert old.changes(new)[0].fields() == {
        "option": "listeners", "listener": None, "old": '["127.0.0.1:5"]', "new": '["127.0.0.1:7"]'
    }  # fmt: skip
    assert old.changes(keywords(port=5)) == [Change("listeners", ("127.0.0.1:6",), (), False)]


def test_reload_takes_over_what_can_change_while_running() -> None:
    running = keywords(memory=True, workers=2, max_inflight=5, deny_users=["eve"])
    new = keywords(data="/d", workers=3, max_inflight=6, deny_users=["bob"])
    config = running.reloaded(new)
    assert (config.memory, config.data, config.workers, config.max_inflight) == (True, None, 2, 6)
    assert config.listeners[0].deny_users == ("bob",)
    assert [change.name for change in config.changes(new)] == ["data", "memory", "workers"]


def test_reload_never_opens_a_listener_that_stays_on_the_network() -> None:
    running = keywords(bind="0.0.0.0", passwords="/p")
    new = keywords(bind="127.0.0.1")
    assert (new.listeners[0].passwords, new.listeners[0].allow_anonymous) == (None, True)
    assert running.reloaded(new).listeners == running.listeners


def test_reload_pairs_listeners_on_port_0_in_order() -> None:
    running = from_text("port = 0\n[[listeners]]\n[[listeners]]\nmax_connections = 2")
    new = from_text("port = 0\n[[listeners]]\nmax_connections = 3\n[[listeners]]\nmax_connections = 4")
    assert [one.max_connections for one in running.reloaded(new).listeners] == [3, 4]


# What is derived from the table --------------------------------------------------------------------------------------


def table_rows() -> list[list[str]]:
    lines = markdown_table().splitlines()
    assert lines[1] == "|---|---|---|---|---|---|"
    return [re.split(r" \| ", line[2:-2]) for line in lines[2:]]


def test_the_markdown_table_has_every_option() -> None:
    assert [row[0] for row in table_rows()] == [f"`{name}`" for name in OPTIONS]
    assert {len(row) for row in table_rows()} == {6}


def test_the_markdown_table_literally() -> None:
    rows = {row[0]: row[1:] for row in table_rows()}
    assert rows["`port`"] == [
        "TCP port to listen on; 0 takes any free one",
        "`1883`",
        "an integer from 0 to 65535",
        "yes",
        "",
    ]
    assert r'in a pattern, "\*" stands for any characters' in rows["`client_ids`"][0]  # else it begins italics
    assert rows["`max_packet_size`"][1:5] == ['`"16 MiB"`', "a size from 1 KiB to 268435460", "yes", "yes"]
    assert rows["`workers`"] == [
        "worker threads for passwords and everything else that blocks",
        "`4`",
        "an integer from 1 to 64",
        "",
        "",
    ]


def test_the_defaults_in_the_markdown_table_are_a_file_with_the_defaults() -> None:
    lines = [f"{row[0].strip('`')} = {row[2].strip('`')}" for row in table_rows() if row[2].startswith("`")]
    assert len(lines) == len(OPTIONS) - 14
    assert from_text("\n".join(lines)) == load()


def test_flags_are_named_like_their_options() -> None:
    """The page that has the table says so, and does not list them."""
    parser = ArgumentParser(add_help=False)
    add_flags(parser)
    left_column = " ".join(re.findall("^  (-.*?)(?:  |$)", parser.format_help(), re.MULTILINE))
    in_help = re.findall(r"(?<!\w)--?[a-z][a-z-]*", left_column)
    named = {f"--{name.replace('_', '-')}" for name, row in OPTIONS.items() if row.has_flag}
    no = {f"--no-{name.replace('_', '-')}" for name, row in OPTIONS.items() if row.default_text in ("true", "false")}
    assert named <= set(in_help)
    assert set(in_help) - named - no == {"-p", "--no-allow-anonymous"}


def test_help_of_the_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    parser = ArgumentParser(add_help=False)
    add_flags(parser)
    text = " ".join(parser.format_help().split())
    assert "--port N TCP port to listen on; 0 takes any free one (default: 1883)" in text
    assert "--max-packet-size SIZE largest packet that a client may send (default: 16 MiB)" in text
    assert "on Windows in %LOCALAPPDATA%)" in text
    assert "--log-level error|warning|info|debug the least important messages that are logged (default: info)" in text


def test_flags_of_the_defaults_give_the_defaults() -> None:
    flags = []
    for row in OPTIONS.values():
        if row.flag is not None and row.default is not None and not isinstance(row.kind, Boolean):
            flags += [row.flag, row.kind.text(row.default)]
    assert len(flags) > 36
    assert load(None, parsed(*flags)) == load()


def test_toml_round_trip() -> None:
    config = from_text(r"""
        max_queued_bytes = "10MB"
        sys_interval = 0.00001
        connect_timeout = 0.125
        deny_users = ["a\"b\\", "\u007f\u00e9", "c\nd"]
        client_ids = {"*" = ["%u-*"], "ann lee" = ["x", "y"]}
        data = "~/\u00e9"
        [[listeners]]
        passwords = "p"
        [[listeners]]
        port = 0
        bind = "::1"
        """)
    Path("again.toml").write_text(config.toml(), encoding="utf-8")
    assert load("again.toml") == config
    assert keywords(memory=True).toml().splitlines()[:2] == ["memory = true", 'session_expiry = "30d"']


# All mistakes at once ------------------------------------------------------------------------------------------------


def all_mistakes(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        from_text(text)
    return [str(error) for error in caught.value.all]


def test_all_mistakes_are_found_at_once() -> None:
    assert all_mistakes(
        "max_inflght = 5\nport = 'x'\nlog_level = 'warn'\n[[listeners]]\nprot = 1\nkey = 'k'\n"
        "[[listeners]]\nbind = '0.0.0.0'\nport = 1\n[[listeners]]\nport = 2\n[[listeners]]\nport = 2\n"
    ) == [
        "b.toml:1: unknown key 'max_inflght'; did you mean 'max_inflight'?",
        "b.toml:2: 'port' must be an integer from 0 to 65535, not 'x'",
        "b.toml:3: 'log_level' must be one of 'error', 'warning', 'info', 'debug', not 'warn'",
        "b.toml:5: unknown key 'prot'; did you mean 'port'?",
        "b.toml:6: 'key' has no meaning without certificate: set that too, or leave it out",
        "b.toml:8: 'bind' opens 0.0.0.0:1 to the network: say who may connect, with passwords for a password file "
        "(--passwords PATH), certificate_user for client certificates (--certificate-user cn), or "
        "allow_anonymous = true for everybody (--allow-anonymous)",
        "b.toml:12: second listener on 127.0.0.1:2, beside b.toml:10: give it another port",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "pasword = 'p'\nbind = '0.0.0.0'",
        "password_file = 'p'\nbind = '0.0.0.0'",
        "passwords = 5\nbind = '0.0.0.0'",
        "bind = 5",
        "certificate = 5\nkey = 'k'",
        "certfile = 'c'\nkey = 'k'",
        "unix = 5\nunix_mode = '0600'",
        "port = 'x'\n[[listeners]]\n[[listeners]]\n",
        "port = 'x'\n[[listeners]]\nport = 5\n",
        "port = 5\n[[listeners]]\nprot = 6\n",
        "unix = 5\nproxy_protocol = ['unix']",
        "memory = 5\ndata = 'd'",
    ],
)
def test_nothing_is_concluded_from_what_is_wrong(text: str) -> None:
    assert len(all_mistakes(text)) == 1


def test_all_wrong_flags_are_found_at_once() -> None:
    parser = ArgumentParser(add_help=False)
    add_flags(parser)
    with pytest.raises(ConfigError) as caught:
        from_args(parser.parse_args(["--port", "x", "--max-inflight", "0", "--memory"]))
    assert [str(error) for error in caught.value.all] == [
        "--port: must be an integer from 0 to 65535, not 'x'",
        "--max-inflight: must be an integer from 1 to 65535, not 0",
    ]


def test_all_wrong_keyword_arguments_are_found_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        keywords(port="x", max_inflight=0)
    assert [str(error) for error in caught.value.all] == [
        "port=: must be an integer from 0 to 65535, not 'x'",
        "max_inflight=: must be an integer from 1 to 65535, not 0",
    ]


# MQTT 5.0 ------------------------------------------------------------------------------------------------------------

VERSIONS = "'protocols' must be a list of one or more of '3.1', '3.1.1', '5.0'"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("protocols = []", f"{VERSIONS}, and it is empty"),
        ('protocols = "5.0"', f"{VERSIONS}, not '5.0'; write [\"5.0\"]"),
        ('protocols = ["5"]', f"{VERSIONS}, and one of them is '5'"),
        ("protocols = [5.0]", f"{VERSIONS}, and one of them is 5.0"),
        ("max_qos = 3", "'max_qos' must be an integer from 0 to 2, not 3"),
        ("receive_maximum = 0", "'receive_maximum' must be an integer from 1 to 65535, not 0"),
        ("response_information = 5", "'response_information' must be a text, not 5"),
        ('server_reference = "a\\nb"', "'server_reference' must be a text of printable characters"),
        ('moved = "for ever"', "'moved' must be one of 'no', 'for now', 'for good', not 'for ever'"),
        ('moved = "for good"', "'moved' has no meaning without server_reference: set that too"),
    ],
)
def test_what_is_wrong_with_options_of_mqtt_5(text: str, why: str) -> None:
    assert error(text) == f"b.toml:1: {why}"


def test_a_listener_may_take_other_versions() -> None:
    config = from_text('protocols = ["5.0"]\n[[listeners]]\nport = 1\n[[listeners]]\nport = 2\nprotocols = ["3.1.1"]')
    assert [one.protocols for one in config.listeners] == [("5.0",), ("3.1.1",)]
