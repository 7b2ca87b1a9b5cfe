"""What a mosquitto.conf becomes: each option's value, what is said about what has no counterpart, and that nothing is
more open than it was."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from broker.config.conversion import convert, remarks
from broker.config.loading import Config, load
from broker.config.mosquitto import NotMosquitto, read
from broker.config.mosquitto_names import MOSQUITTO

OPEN = "listener 1883 0.0.0.0\nallow_anonymous true\n"


class Converted:
    def __init__(self, directory: Path, text: str) -> None:
        (directory / "mosquitto.conf").write_text(text)
        conf = read(str(directory / "mosquitto.conf"), str(directory))
        blocks = convert(conf, str(directory))
        self.toml = "\n".join(block.toml() for block in blocks)
        self.prefix = f"{directory}/mosquitto.conf:"
        told = [remark for remark in remarks(blocks) if not remark.needless]
        self.remarks = [str(remark).removeprefix(self.prefix) for remark in told]
        self.lost = {line.number for remark in told for line in remark.lines}
        (directory / "selectmq.toml").write_text(self.toml)
        self.config: Config = load(directory / "selectmq.toml")
        self.settings: dict[str, Any] = tomllib.loads(self.toml)
        self.listeners: list[dict[str, Any]] = self.settings.pop("listeners")


# --- values ---

MAX = 1_000_000_000


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("max_inflight_messages 1", {"max_inflight": 1}),
        ("max_inflight_messages 0", {"max_inflight": 65535}),
        ("max_queued_messages 500", {"max_queued_messages": 500}),
        ("max_queued_messages 0", {"max_queued_messages": MAX}),
        ("max_queued_bytes 65536", {"max_queued_bytes": "64 KiB"}),
        ("max_queued_bytes 0", {"max_queued_bytes": "1 TiB"}),
        ("max_queued_bytes 5", {"max_queued_bytes": "1 KiB"}),
        ("max_packet_size 2048", {"max_packet_size": "2 KiB"}),
        ("max_packet_size 20", {"max_packet_size": "1 KiB"}),
        ("max_packet_size 0", {"max_packet_size": 268435460}),
        ("max_packet_size 999999999", {"max_packet_size": 268435460}),
        ("message_size_limit 100", {"max_packet_size": 100 + 65544}),
        ("message_size_limit 0", {"max_packet_size": 268435460}),
        ("message_size_limit 100\nmax_packet_size 70000", {"max_packet_size": 100 + 65544}),
        ("message_size_limit 99999\nmax_packet_size 2048", {"max_packet_size": "2 KiB"}),
        ("max_keepalive 300", {"max_keepalive": "5m"}),
        ("max_keepalive 65535", {"max_keepalive": "65535s"}),
        ("sys_interval 60", {"sys_interval": "1m"}),
        ("sys_interval 0", {"sys_interval": 0}),
        ("sys_interval 100000", {"sys_interval": "1d"}),
        ("persistent_client_expiration 12h", {"session_expiry": "12h"}),
        ("persistent_client_expiration 14d", {"session_expiry": "14d"}),
        ("persistent_client_expiration 2w", {"session_expiry": "14d"}),
        ("persistent_client_expiration 2m", {"session_expiry": "60d"}),
        ("persistent_client_expiration 1y", {"session_expiry": "365d"}),
        ("persistent_client_expiration 200y", {"session_expiry": "36500d"}),
        ("persistence false", {"memory": True}),
        ("persistence 1", {"data": "/cwd"}),
        ("persistence true\npersistence_location /var/lib/mosquitto/", {"data": "/var/lib/selectmq"}),
        ("persistence true\npersistence_location /srv/mqtt", {"data": "/srv/mqtt"}),
        ("persistence true\npersistence_location store", {"data": "/cwd/store"}),
        ("persistence true\npersistence_file sub/mosquitto.db", {"data": "/cwd/sub"}),
        ("plugin /usr/lib/mosquitto_persist_sqlite.so\nplugin_opt_db_file /var/lib/m/x.db", {"data": "/var/lib/m"}),
        ("password_file /etc/mosquitto/passwd", {"passwords": "/etc/mosquitto/passwd"}),
        ("password_file with a space", {"passwords": "/cwd/with a space"}),
        ("acl_file acl", {"acl": "/cwd/acl"}),
        ("acl_file ~/acl", {"acl": "/cwd/~/acl"}),
        ("clientid_prefixes dev-", {"client_id_prefixes": ["dev-"]}),
        ("log_type all", {"log_level": "debug"}),
        ("log_type debug", {"log_level": "debug"}),
        ("log_type error\nlog_type warning\nlog_type notice\nlog_type information", {"log_level": "info"}),
        ("log_type error\nlog_type warning", {"log_level": "warning"}),
        ("log_type error", {"log_level": "error"}),
        ("log_type none", {"log_level": "error"}),
        ("log_dest none", {"log_level": "error"}),
        ("connection_messages false", {"log_level": "warning"}),
        ("connection_messages true", {}),
    ],
)
def test_values_of_the_broker(line: str, expected: dict[str, Any], tmp_path: Path) -> None:
    done = Converted(tmp_path, OPEN + line)
    said = {
        name: value.replace(str(tmp_path), "/cwd") if isinstance(value, str) else value
        for name, value in done.settings.items()
    }
    assert said == expected


TLS = "certfile /s.crt\nkeyfile /s.key\n"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("max_connections 50", {"max_connections": 50}),
        ("max_connections -1", {"max_connections": MAX}),
        ("protocol mqtt", {}),
        ("protocol websockets", {"websocket": True, "websocket_origins": ["*"]}),
        (
            "protocol websockets\nwebsockets_origin https://a.example\nwebsockets_origin https://b.example",
            {"websocket": True, "websocket_origins": ["https://a.example", "https://b.example"]},
        ),
        (TLS, {"certificate": "/s.crt", "key": "/s.key"}),
        (f"{TLS}cafile /ca.pem", {"certificate": "/s.crt", "key": "/s.key", "certificate_chain": "/ca.pem"}),
        (f"{TLS}capath /ca", {"certificate": "/s.crt", "key": "/s.key", "certificate_chain": "/ca"}),
        (
            f"{TLS}cafile /ca.pem\nrequire_certificate true\ncrlfile /crl.pem",
            {"certificate": "/s.crt", "key": "/s.key", "client_ca": "/ca.pem", "client_crl": "/crl.pem"},
        ),
        (
            f"{TLS}capath /ca\nrequire_certificate true\nuse_identity_as_username true\nuse_subject_as_username true",
            {"certificate": "/s.crt", "key": "/s.key", "client_ca": "/ca", "certificate_user": "cn"},
        ),
        (
            f"{TLS}cafile /ca.pem\nrequire_certificate true\nuse_subject_as_username 1",
            {"certificate": "/s.crt", "key": "/s.key", "client_ca": "/ca.pem", "certificate_user": "subject"},
        ),
        ("enable_proxy_protocol 2", {"proxy_protocol": ["127.0.0.1", "::1"]}),
    ],
)  # fmt: skip
def test_values_of_a_listener(lines: str, expected: dict[str, Any], tmp_path: Path) -> None:
    done = Converted(tmp_path, f"{OPEN}{lines}")
    assert done.listeners == [{"bind": "0.0.0.0", "port": 1883, **expected, "allow_anonymous": True}]


@pytest.mark.parametrize(
    ("lines", "bind", "port"),
    [
        ("", "localhost", 1883),
        ("listener 1884", "::", 1884),
        ("listener 1884 # the usual", "::", 1884),
        ("listener 1884 192.0.2.1", "192.0.2.1", 1884),
        ("listener 1884 mq.example", "mq.example", 1884),
        ("listener 1884\nsocket_domain ipv4", "0.0.0.0", 1884),
        ("listener 1884\nsocket_domain ipv6", "::", 1884),
        ("port 1885", "::", 1885),
        ("bind_address 192.0.2.1", "192.0.2.1", 1883),
        ("bind_address localhost\nport 1886", "localhost", 1886),
        ("listener 1884\nbind_interface lo", "127.0.0.1", 1884),
        ("max_connections 5", "localhost", 1883),
    ],
)
def test_addresses(lines: str, bind: str, port: int, tmp_path: Path) -> None:
    done = Converted(tmp_path, f"{lines}\nallow_anonymous true")
    assert [(each["bind"], each["port"]) for each in done.listeners] == [(bind, port)]


def test_a_unix_socket_is_as_open_as_mosquitto_s(tmp_path: Path) -> None:
    done = Converted(tmp_path, "listener 0 run/mq.sock\nallow_anonymous true")
    assert done.listeners == [{"unix": f"{tmp_path}/run/mq.sock", "unix_mode": "0660", "allow_anonymous": True}]


def test_the_plugins_of_mosquitto_2_1(tmp_path: Path) -> None:
    """Its manual tells who has per_listener_settings to write it so."""
    done = Converted(
        tmp_path,
        "plugin_load users /usr/lib/mosquitto_password_file.so\nplugin_opt_password_file /users\n"
        "plugin_load acl /usr/lib/mosquitto_acl_file.so\nplugin_opt_acl_file /acl\n"
        "listener 1883\nplugin_use users\nplugin_use acl\n"
        "listener 1884\nlistener_allow_anonymous true\n",
    )
    assert done.listeners == [
        {"bind": "::", "port": 1883, "passwords": "/users", "acl": "/acl", "allow_anonymous": False},
        {"bind": "::", "port": 1884, "allow_anonymous": True},
    ]
    everywhere = Converted(
        tmp_path, "listener 1883\nglobal_plugin mosquitto_password_file.so\nplugin_opt_password_file /users"
    )
    assert everywhere.settings == {"passwords": "/users"}


# --- never more open ---

#: A listener of which something would be lost that keeps people out.
SHUT = {
    "nobody may": "listener 1883",
    "a plugin says who": "listener 1883\nplugin /usr/lib/mosquitto_dynamic_security.so\nplugin_opt_config_file x",
    "a plugin of 1.x": "auth_plugin /x.so\nauth_opt_db y\nlistener 1883",
    "a plugin says it of anonymous ones": "listener 1883\nallow_anonymous true\nplugin /x.so",
    "a plugin of this listener": "plugin_load x /x.so\nlistener 1883\nallow_anonymous true\nplugin_use x",
    "an interface": f"{OPEN}bind_interface eth1",
    "pre-shared keys": f"{OPEN}psk_hint x",
    "an engine": f"{OPEN}{TLS}tls_engine x",
    "a key in an engine": f"{OPEN}{TLS}tls_keyform engine",
    "a part of all topics": f"{OPEN}mount_point tenant/",
    "certificates of nobody": f"{OPEN}{TLS}require_certificate true",
    "users by certificates that nobody shows": f"{OPEN}{TLS}cafile /ca.pem\nuse_identity_as_username true",
    "another protocol": f"{OPEN}protocol mqttsn",
}


@pytest.mark.parametrize("case", SHUT)
def test_a_listener_that_would_be_too_open_is_shut(case: str, tmp_path: Path) -> None:
    done = Converted(tmp_path, SHUT[case])
    assert [(each["bind"], each["allow_anonymous"]) for each in done.listeners] == [("127.0.0.1", False)]
    assert any("shut off" in remark for remark in done.remarks)
    assert done.config.listeners[0].is_loopback


def test_what_is_no_mqtt_is_left_out(tmp_path: Path) -> None:
    """As in the image of Mosquitto 2.1."""
    done = Converted(tmp_path, f"{OPEN}listener 9883\nprotocol http_api\nhttp_dir /usr/share/mosquitto/dashboard\n")
    assert [each["port"] for each in done.listeners] == [1883]
    assert done.lost == {3, 5}


def test_who_needs_a_user_name_for_a_client_id_is_not_anonymous(tmp_path: Path) -> None:
    done = Converted(tmp_path, f"{OPEN}password_file /users\nuse_username_as_clientid true")
    assert done.listeners == [{"bind": "0.0.0.0", "port": 1883, "client_ids": {"*": ["%u"]}, "allow_anonymous": False}]


# --- what is said ---


def test_every_line_without_a_counterpart_has_its_number(tmp_path: Path) -> None:
    done = Converted(
        tmp_path,
        "pid_file /run/mosquitto.pid\n"
        "user mosquitto\n"
        "listener 1883\n"
        "password_file /users\n"
        "log_dest syslog\n"
        "log_dest file /var/log/mosquitto.log\n"
        "max_topic_alias_broker 5\n"
        "connection home\naddress mq.example\nremote_password hunter2\ntopic # both\n"
        "retain_avialable false\n",
    )
    assert done.lost == {1, 2, 5, 6, 7, 8, 9, 10, 11, 12}
    assert done.remarks == [
        "1: pid_file: there is none here: systemd knows the process; a shell gives its id in $!",
        "2: user: there is none here: it runs as the user who starts it; with systemd that is User=",
        "5, 6: log_dest: there is none here: the log goes to standard error: systemd keeps it, and 2>FILE puts it into "
        "a file",
        "8, 9, 10, 11: connection, address, remote_password, topic: there is none here: this broker opens no bridge; "
        "configure it on the other broker, which may connect to this one",
        "12: retain_avialable: Mosquitto has no such option; did you mean retain_available?",
        "7: max_topic_alias_broker: there is none here: a client gets as many Topic Aliases as it takes, up to a "
        "number of ours",
    ]
    assert "hunter2" not in done.toml


@pytest.mark.parametrize(
    "line",
    [
        "autosave_interval 1800", "set_tcp_nodelay true", "allow_zero_length_clientid true", "max_qos 2",
        "queue_qos0_messages false", "retain_available true", "upgrade_outgoing_qos false", "memory_limit 0",
        "max_inflight_bytes 0", "connection_messages true", "log_dest stderr", "check_retain_source true",
        "per_listener_settings false", "log_timestamp true", "tls_version tlsv1.2", "protocol mqtt",
    ],
)  # fmt: skip
def test_nothing_is_lost_by_what_is_so_anyway(line: str, tmp_path: Path) -> None:
    assert Converted(tmp_path, OPEN + line).lost == set()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("max_queued_messages 0", "there is always a limit here: the largest one is taken, 1000000000"),
        ("max_packet_size 20", "max_packet_size must be a size from 1 KiB to 268435460: the nearest is taken"),
        ("max_queued_messages many", "left out, it must be a number"),
        ("persistence perhaps", "left out, it must be true or false"),
        ("persistent_client_expiration 14", "left out, it must be a number with h, d, w, m or y, such as 14d"),
        ("acl_file acl # mine", "what stands behind # is left out; Mosquitto takes it for a part of the value"),
        (
            "check_retain_source false",
            "that is not possible here: a retained message is delivered only while its author may still publish it",
        ),
        ("listener 1884 0.0.0.0\ntls_version tlsv1.3", "TLS 1.2 and 1.3 are spoken, whatever it says"),
        ("require_certificate true", "it has no meaning without certfile"),
        ("crlfile /crl", "it has no meaning without certfile"),
        (f"{TLS}crlfile /crl", "it has no meaning without require_certificate true"),
        ("acl_file /acl", "no user name is checked without passwords, so that lines below 'user' hold for nobody"),
    ],
)  # fmt: skip
def test_values_that_cannot_be_taken_as_they_are(line: str, said: str, tmp_path: Path) -> None:
    done = Converted(tmp_path, OPEN + line)
    assert said in [remark.split(": ", 2)[2] for remark in done.remarks]


def test_what_is_set_twice(tmp_path: Path) -> None:
    done = Converted(tmp_path, f"{OPEN}max_keepalive 5\nmax_keepalive 6")
    assert (done.settings, done.remarks) == (
        {"max_keepalive": "6s"}, ["3: max_keepalive: line 4 says it again, and counts"],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("listener mqtt", ":1: the port must be a number up to 65535, not 'mqtt'"),
        ("listener 99999", ":1: the port must be a number up to 65535, not '99999'"),
        ("listener", ":1: listener has no value, with which Mosquitto does not start: give it one"),
        ("acl_file # none", ":1: acl_file has no value, with which Mosquitto does not start: give it one"),
        ("listener 0", ":1: port 0 needs the path of a Unix socket behind it"),
        ("port x", ":1: the port must be a number up to 65535, not 'x'"),
    ],
)
def test_a_port_that_is_none(line: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(NotMosquitto) as caught:
        Converted(tmp_path, line)
    assert str(caught.value) == f"{tmp_path}/mosquitto.conf{why}"


FULL = f"listener 8883\n{TLS}cafile /ca\nrequire_certificate true\nprotocol websockets\npassword_file /u\n"
VALUES = ["true", "false", "0", "1", "-1", "99999999999999999999", "a b # c", 'x"\\\x1b\u2028', "/"]


@pytest.mark.parametrize("name", [*MOSQUITTO, "auth_opt_x", "plugin_opt_x", "bridge_x"])
def test_whatever_stands_there_it_is_a_configuration_or_an_error(name: str, tmp_path: Path) -> None:
    """Before a listener that is as full as can be, and in it."""
    (tmp_path / "empty").mkdir()
    for value in VALUES:
        line = "include_dir empty\n" if name == "include_dir" else f"{name} {value}\n"
        for text in (f"{line}{FULL}", f"per_listener_settings true\n{FULL}{line}"):
            if name in ("listener", "port") and value != "1":
                with pytest.raises(NotMosquitto):
                    Converted(tmp_path, text)
                continue
            done = Converted(tmp_path, text)
            assert "\x1b" not in done.toml
            exposed = [each for each in done.config.listeners if not each.is_loopback and each.allow_anonymous]
            assert exposed == [] or name in ("listener_allow_anonymous", "allow_anonymous")


@pytest.mark.parametrize(
    ("line", "versions"), [("3,4", ("3.1", "3.1.1")), ("5, 4", ("3.1.1", "5.0")), ("3,4,5", ("3.1", "3.1.1", "5.0"))]
)
def test_versions_of_mqtt(line: str, versions: tuple[str, ...], tmp_path: Path) -> None:
    done = Converted(tmp_path, f"listener 1883\naccept_protocol_versions {line}\n")
    assert [one.protocols for one in done.config.listeners] == [versions]


def test_a_version_that_there_is_not(tmp_path: Path) -> None:
    done = Converted(tmp_path, "listener 1883\naccept_protocol_versions 4,6\n")
    assert [remark for remark in done.remarks if remark.startswith("2: ")] == [
        "2: accept_protocol_versions: left out, it must be some of 3, 4 and 5, with commas between"
    ]


def test_nothing_is_retained(tmp_path: Path) -> None:
    assert Converted(tmp_path, "listener 1883\nretain_available false\n").config.retain_available is False
