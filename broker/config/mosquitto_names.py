"""Every name in a mosquitto.conf, and what stands for it here: our options, or why there is none.

Two readers: an unknown key or flag gets its answer from here, and `selectmq convert` its remarks.

Owns: that table. Must not know: which options there are (a test compares), and how a value is translated.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple


class Counterpart(NamedTuple):
    """What stands here for a name of Mosquitto's."""

    #: Our options that take its place, the main one first; none: there is none.
    options: tuple[str, ...]
    #: With options, what else to know about the value, "" for nothing. Without, why there is none, and what to do.
    remark: str
    #: What it asks for is so here in any case: who leaves the line out misses nothing.
    needless: bool = False

    @property
    def advice(self) -> str:
        """The answer as the end of a sentence: "here it is 'acl'"."""
        if self.needless:
            return f"it is not needed here, because {self.remark}"
        if not self.options:
            return f"there is none here: {self.remark}"
        names = " and ".join(f"'{name}'" for name in self.options)
        return f"here it is {names}" + (f", {self.remark}" if self.remark else "")


def _is(*options: str, remark: str = "") -> Counterpart:
    return Counterpart(options, remark)


def _none(why: str) -> Counterpart:
    return Counterpart((), why)


def _needless(because: str) -> Counterpart:
    return Counterpart((), because, True)


_PLUGIN = _none("there are no plugins; users stand in the file of 'passwords', and their rights in that of 'acl'")
_BRIDGE = _none("this broker opens no bridge; configure it on the other broker, which may connect to this one")
_STORED = _needless("what is acknowledged is stored already")
_PSK = _none("there are no pre-shared keys; give the listener a 'certificate', and clients one of 'client_ca'")
_ENGINE = _none("keys are read from PEM files; name one with 'key'")
_GENERATED = _none("who connects with an empty ClientId gets one that nobody can guess")
_SYSLOG = _none("the log goes to standard error: systemd keeps it, and 2>FILE puts it into a file")
_TIMESTAMP = _needless("each line of the log begins with the time")

#: The names of mosquitto.conf(5) 2.1, and those that only older or newer versions have. A name that we share is there,
#: too.
MOSQUITTO: Mapping[str, Counterpart] = {
    # listeners
    "listener": _is("listeners", remark="a [[listeners]] table with 'bind' and 'port', or with 'unix'"),
    "port": _is("port"),
    "bind_address": _is("bind"),
    "bind_interface": _is("bind", remark="an address of that interface"),
    "socket_domain": _is("bind", remark="an IPv4 or an IPv6 address"),
    "protocol": _is("websocket", remark="true for the protocol websockets"),
    "max_connections": _is("max_connections", remark="which is never without a limit"),
    "global_max_connections": _is("max_connections", remark="which counts for each listener"),
    "global_max_clients": _is("max_connections", remark="which counts the connections of each listener"),
    "per_listener_settings": _needless("each [[listeners]] table has settings of its own"),
    "set_tcp_nodelay": _needless("TCP_NODELAY is always on"),
    "enable_proxy_protocol": _is("proxy_protocol", remark="a list of the proxies"),
    "proxy_protocol_v2_require_tls": _none("what the proxy accepts is the proxy's to decide"),
    "mount_point": _none("nothing is put before topics; lines such as 'pattern readwrite site/#' in a listener's 'acl' "
                         "keep its clients to their own"),
    "http_dir": _none("no files are served; let a web server do that, beside it or in front of it"),
    "websockets_origin": _is("websocket_origins", remark="a list"),
    "websockets_headers_size": _needless("the head of a request may be as long as any client makes it"),
    "websockets_log_level": _is("log_level", remark="for the whole log"),
    "packet_buffer_size": _needless("buffers grow and shrink with what comes"),
    "accept_protocol_versions": _is("protocols", remark="a list of versions such as '5.0'"),
    # who may connect
    "allow_anonymous": _is("allow_anonymous"),
    "listener_allow_anonymous": _is("allow_anonymous", remark="in the listener's [[listeners]] table"),
    "password_file": _is("passwords"),
    "acl_file": _is("acl"),
    "clientid_prefixes": _is("client_id_prefixes", remark="a list"),
    "use_username_as_clientid": _is("client_ids", remark='with "*" = ["%u"] a user\'s ClientId must be the name'),
    "allow_zero_length_clientid": _none("an empty ClientId is always accepted of a client that asks for a clean "
                                        "session, as MQTT 3.1.1 wants it"),
    "auto_id_prefix": _GENERATED,
    "listener_auto_id_prefix": _GENERATED,
    "auth_plugin": _PLUGIN,
    "auth_plugin_deny_special_chars": _needless("a name with '+' or '#' in it never widens a pattern of the ACL"),
    "plugin": _PLUGIN,
    "global_plugin": _PLUGIN,
    "plugin_load": _PLUGIN,
    "plugin_use": _PLUGIN,
    "psk_file": _PSK,
    "psk_hint": _PSK,
    # TLS
    "certfile": _is("certificate"),
    "keyfile": _is("key"),
    "cafile": _is("client_ca", remark="or 'certificate_chain' where clients need no certificate"),
    "capath": _is("client_ca", remark="or 'certificate_chain' where clients need no certificate"),
    "crlfile": _is("client_crl"),
    "require_certificate": _is("client_certificates", remark="'required' (the default with 'client_ca') or 'optional'"),
    "use_identity_as_username": _is("certificate_user", remark="'cn'"),
    "use_subject_as_username": _is("certificate_user", remark="'subject'"),
    "tls_version": _needless("TLS 1.2 and later are spoken, and nothing older"),
    "ciphers": _none("OpenSSL's own choice for TLS 1.2 is used; change it in openssl.cnf"),
    "ciphers_tls1.3": _none("OpenSSL's own choice for TLS 1.3 is used; change it in openssl.cnf"),
    "dhparamfile": _needless("keys are agreed on by elliptic curves"),
    "disable_client_cert_date_checks": _none("a client's certificate that has expired is always refused"),
    "tls_engine": _ENGINE,
    "tls_engine_kpass_sha1": _ENGINE,
    "tls_keyform": _ENGINE,
    # sessions and messages
    "max_inflight_messages": _is("max_inflight", remark="from 1 to 65535"),
    "max_inflight_bytes": _is("max_inflight", remark="which counts messages; 'max_unsent' counts bytes"),
    "max_queued_messages": _is("max_queued_messages", remark="which is never without a limit"),
    "max_queued_bytes": _is("max_queued_bytes", remark="which is never without a limit"),
    "queue_qos0_messages": _none("messages of QoS 0 are not kept for absent clients; publish with QoS 1"),
    "max_packet_size": _is("max_packet_size"),
    "message_size_limit": _is("max_packet_size", remark="which counts the topic and the header, too"),
    "max_keepalive": _is("max_keepalive"),
    "max_qos": _is("max_qos", remark="for all listeners"),
    "maximum_qos": _is("max_qos", remark="for all listeners"),
    "max_topic_alias": _is("max_topic_alias", remark="for all listeners"),
    "max_topic_alias_broker": _none("a client gets as many Topic Aliases as it takes, up to a number of ours"),
    "persistent_client_expiration": _is("session_expiry", remark="in which m is minutes"),
    "retain_available": _is("retain_available"),
    "retain_expiry_interval": _none("a retained message expires if its publisher says so (MQTT 5.0); 'max_retained' "
                                    "limits how many there are"),
    "check_retain_source": _needless("a retained message is delivered only while its author may still publish it"),
    "retry_interval": _needless("nothing is sent twice on one connection, as MQTT 3.1.1 wants it"),
    "upgrade_outgoing_qos": _none("MQTT 3.1.1 forbids it; subscribe with the QoS that is published"),
    "allow_duplicate_messages": _needless("overlapping subscriptions of a client bring each message once"),
    "memory_limit": _none("'max_memory' limits what clients make the broker hold, not the whole process; for that, use "
                          "systemd's MemoryMax="),
    # what is stored
    "persistence": _is("memory", remark="which is true where persistence is false"),
    "retained_persistence": _is("memory", remark="which is true where it is false"),
    "persistence_location": _is("data", remark="a directory"),
    "persistence_file": _is("data", remark="the directory of the file"),
    "autosave_interval": _STORED,
    "autosave_on_changes": _STORED,
    # the process
    "user": _none("it runs as the user who starts it; with systemd that is User="),
    "pid_file": _none("systemd knows the process; a shell gives its id in $!"),
    "log_dest": _SYSLOG,
    "log_facility": _SYSLOG,
    "log_type": _is("log_level", remark="one of error, warning, info, debug"),
    "connection_messages": _is("log_level", remark="'warning' leaves out who connects"),
    "log_timestamp": _TIMESTAMP,
    "log_timestamp_format": _TIMESTAMP,
    "sys_interval": _is("sys_interval"),
    "include_dir": _none("the configuration is one file"),
    "enable_control_api": _none("a reload (SIGHUP) reads the files of users and rights again"),
    # bridges: what is not named here begins with bridge_
    **dict.fromkeys(
        (
            "address", "addresses", "cleansession", "clientid", "connection", "idle_timeout", "keepalive_interval",
            "local_cleansession", "local_clientid", "local_password", "local_username", "notification_topic",
            "notifications", "notifications_local_only", "password", "remote_clientid", "remote_password",
            "remote_username", "restart_timeout", "round_robin", "start_type", "threshold", "topic", "try_private",
            "username",
        ),
        _BRIDGE,
    ),
}  # fmt: skip

_FAMILIES = {"auth_opt_": _PLUGIN, "plugin_opt_": _PLUGIN, "bridge_": _BRIDGE}

_IN_A_FILE = _none("users stand in the file of 'passwords', which the passwd command writes")

#: Names that people try though Mosquitto's file has no such, or means a bridge by it.
_TRIED: Mapping[str, Counterpart] = {
    "host": _is("bind"),
    "hostname": _is("bind"),
    "address": _is("bind"),
    "interface": _is("bind", remark="an address of that interface"),
    "password": _IN_A_FILE,
    "username": _IN_A_FILE,
    "users": _IN_A_FILE,
    "tls": _is("certificate", "key"),
    "ssl": _is("certificate", "key"),
    "cert": _is("certificate"),
    "ca": _is("client_ca"),
    "websockets": _is("websocket"),
    "verbose": _is("log_level", remark="'debug'"),
    "daemon": _none("it stays in the foreground; let systemd start it, or put & behind the command"),
    "log_file": _SYSLOG,
    "test_config": _none("the command 'check' does it"),
}


def mosquitto(name: str) -> Counterpart | None:
    """What stands for a name in a mosquitto.conf; None: Mosquitto knows no such name."""
    family = re.match("|".join(_FAMILIES), name)
    return MOSQUITTO.get(name) or (_FAMILIES[family[0]] if family else None)


def counterpart(name: str) -> Counterpart | None:
    """What stands for a name that is none of ours; None if nobody is known to have it."""
    return _TRIED.get(name) or mosquitto(name)


def answer(name: str) -> str | None:
    """What to say about a key or flag that is none of ours; None if nobody is known to have it.

    `name` is in lower case, with _ for -.
    """
    if tried := _TRIED.get(name):
        return tried.advice
    counterpart = mosquitto(name)
    return counterpart and f"a name of Mosquitto's; {counterpart.advice}"
