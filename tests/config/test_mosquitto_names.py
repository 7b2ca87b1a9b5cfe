"""Every name of Mosquitto's gets an answer that names options which there are."""

import pytest

from broker.config.loading import ConfigError, from_keywords, unknown_flag
from broker.config.mosquitto_names import MOSQUITTO, answer, mosquitto
from broker.config.options import OPTIONS

#: What src/conf.c of Mosquitto 2.1 knows, and the manual of 2.0.11.
KNOWN_TO_MOSQUITTO = [
    "accept_protocol_versions", "acl_file", "address", "addresses", "allow_anonymous", "allow_duplicate_messages",
    "allow_zero_length_clientid", "auth_opt_", "auth_plugin", "auth_plugin_deny_special_chars", "auto_id_prefix",
    "autosave_interval", "autosave_on_changes", "bind_address", "bind_interface", "bridge_alpn",
    "bridge_attempt_unsubscribe", "bridge_bind_address", "bridge_cafile", "bridge_capath", "bridge_certfile",
    "bridge_ciphers", "bridge_ciphers_tls1.3", "bridge_identity", "bridge_insecure", "bridge_keyfile",
    "bridge_max_packet_size", "bridge_max_topic_alias", "bridge_outgoing_retain", "bridge_protocol_version",
    "bridge_psk", "bridge_receive_maximum", "bridge_reload_type", "bridge_require_ocsp",
    "bridge_session_expiry_interval", "bridge_tcp_keepalive", "bridge_tcp_user_timeout", "bridge_tls_use_os_certs",
    "bridge_tls_version", "cafile", "capath", "certfile", "check_retain_source", "ciphers", "ciphers_tls1.3",
    "cleansession", "clientid", "clientid_prefixes", "connection", "connection_messages", "crlfile", "dhparamfile",
    "disable_client_cert_date_checks", "enable_control_api", "enable_proxy_protocol", "global_max_clients",
    "global_max_connections", "global_plugin", "http_dir", "idle_timeout", "include_dir", "keepalive_interval",
    "keyfile", "listener", "listener_allow_anonymous", "listener_auto_id_prefix", "local_cleansession",
    "local_clientid", "local_password", "local_username", "log_dest", "log_facility", "log_timestamp",
    "log_timestamp_format", "log_type", "max_connections", "max_inflight_bytes", "max_inflight_messages",
    "max_keepalive", "max_packet_size", "max_qos", "max_queued_bytes", "max_queued_messages", "max_topic_alias",
    "max_topic_alias_broker", "maximum_qos", "memory_limit", "message_size_limit", "mount_point",
    "notification_topic", "notifications", "notifications_local_only", "packet_buffer_size", "password",
    "password_file", "per_listener_settings", "persistence", "persistence_file", "persistence_location",
    "persistent_client_expiration", "pid_file", "plugin", "plugin_load", "plugin_opt_", "plugin_use", "port",
    "protocol", "proxy_protocol_v2_require_tls", "psk_file", "psk_hint", "queue_qos0_messages", "remote_clientid",
    "remote_password", "remote_username", "require_certificate", "restart_timeout", "retain_available",
    "retain_expiry_interval", "retained_persistence", "retry_interval", "round_robin", "set_tcp_nodelay",
    "socket_domain", "start_type", "sys_interval", "threshold", "tls_engine", "tls_engine_kpass_sha1",
    "tls_keyform", "tls_version", "topic", "try_private", "upgrade_outgoing_qos", "use_identity_as_username",
    "use_subject_as_username", "use_username_as_clientid", "user", "username", "websockets_headers_size",
    "websockets_log_level", "websockets_origin",
]  # fmt: skip


def error_of_key(name: str) -> str:
    with pytest.raises(ConfigError) as caught:
        from_keywords({name: "x"})
    return str(caught.value)


@pytest.mark.parametrize("name", MOSQUITTO)
def test_the_options_that_take_its_place_exist(name: str) -> None:
    assert [option for option in MOSQUITTO[name].options if option not in {*OPTIONS, "listeners"}] == []


@pytest.mark.parametrize("name", MOSQUITTO)
def test_a_name_without_an_option_says_why(name: str) -> None:
    counterpart = MOSQUITTO[name]
    assert bool(counterpart.options or counterpart.remark)
    assert not (counterpart.options and counterpart.needless)
    assert not counterpart.advice.endswith(".")


def test_no_option_of_ours_is_taken_for_another_one() -> None:
    shared = {name: MOSQUITTO[name].options for name in OPTIONS if name in MOSQUITTO}
    assert shared == {name: (name,) for name in shared}


@pytest.mark.parametrize("name", KNOWN_TO_MOSQUITTO)
def test_every_name_of_mosquitto_has_a_counterpart(name: str) -> None:
    assert mosquitto(name) is not None


@pytest.mark.parametrize("name", ["bridge_cafile", "plugin_opt_db_file", "auth_opt_x"])
def test_families_of_names(name: str) -> None:
    assert answer(name) is not None


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("host", "; here it is 'bind'"),
        ("user", ", a name of Mosquitto's; there is none here: it runs as the user who starts it; with systemd that is "
         "User="),
        ("pid_file", ", a name of Mosquitto's; there is none here: systemd knows the process; a shell gives its "
         "id in $!"),
        ("log_dest", ", a name of Mosquitto's; there is none here: the log goes to standard error: systemd keeps it, "
         "and 2>FILE puts it into a file"),
        ("allow_zero_length_clientid", ", a name of Mosquitto's; there is none here: an empty ClientId is always "
         "accepted of a client that asks for a clean session, as MQTT 3.1.1 wants it"),
        ("message_size_limit", ", a name of Mosquitto's; here it is 'max_packet_size', which counts the topic and the "
         "header, too"),
        ("pasword_file", "; 'password_file' is a name of Mosquitto's; here it is 'passwords'"),
        ("Log-Dest", ", a name of Mosquitto's; there is none here: the log goes to standard error: systemd keeps it, "
         "and 2>FILE puts it into a file"),
        ("queue_size", "; did you mean 'max_packet_size' or 'max_memory_queue'?"),
        ("retained", "; did you mean 'max_retained'?"),
    ],
)  # fmt: skip
def test_a_key_gets_its_answer(name: str, said: str) -> None:
    assert error_of_key(name) == f"{name}=: unknown keyword argument{said}"


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--host", "here it is 'bind'"),
        ("--verbose", "here it is 'log_level', 'debug'"),
        ("-v", "here it is 'log_level', 'debug'"),
        ("-d", "there is none here: it stays in the foreground; let systemd start it, or put & behind the command"),
        ("--test-config", "there is none here: the command 'check' does it"),
        ("--max-inflight-messages=5", "a name of Mosquitto's; here it is 'max_inflight', from 1 to 65535"),
    ],
)
def test_a_flag_gets_its_answer(flag: str, said: str) -> None:
    assert str(unknown_flag(flag)).partition("unknown flag")[2].lstrip(",; ") == said
