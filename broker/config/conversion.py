"""What a mosquitto.conf means here: the same as a file of ours, and a remark for each line that it cannot say.

Owns: how each option of Mosquitto's is translated. Must not know: the format of a mosquitto.conf (`mosquitto`), nor
who asks.

Where something cannot be said, the rule is: never more open than Mosquitto was. A listener that would be is `shut`: it
serves this machine alone, and nobody anonymous, until somebody has read why.
"""

import os
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from . import mosquitto
from .conversion_block import Block, Remark
from .kinds import is_loopback
from .mosquitto import Conf, Line, Listener, NotMosquitto
from .options import OPTIONS

#: All addresses of this machine.
_ANY = "::"
#: A packet's Topic Name, Packet Identifier and header, beside the payload that `message_size_limit` counts.
_BESIDE_PAYLOAD = 65_535 + 2 + 2 + 5

_UNITS = {"s": 1, "h": 3600, "d": 86400, "w": 7 * 86400, "m": 30 * 86400, "y": 365 * 86400}

#: Versions of MQTT, by how Mosquitto calls them.
_VERSIONS = {"3": "3.1", "4": "3.1.1", "5": "5.0"}

#: What in a client's certificate is its user name; the first counts.
_NAMED_BY_CERTIFICATE = {"use_identity_as_username": "cn", "use_subject_as_username": "subject"}

#: Plugins of Mosquitto 2.1 that do what is built in here, and the option of each that names the file.
_BUILT_IN = {
    "password_file": ("passwords", "plugin_opt_password_file"),
    "acl_file": ("acl", "plugin_opt_acl_file"),
    "persist_sqlite": ("data", "plugin_opt_db_file"),
}


class Access(NamedTuple):
    """Who may connect."""

    passwords: Line | None = None
    acl: Line | None = None
    anonymous: bool | None = None
    plugin: Line | None = None  #: one that decides it, and that there is no counterpart for


def convert(conf: Conf, directory: str) -> list[Block]:
    """The blocks of our file. `directory`: where Mosquitto was started, from which its relative paths go.

    Raises NotMosquitto.
    """
    general = Block("", conf.general, directory)
    plugins = _plugins(general)
    access = _access(general, plugins, Access())
    for name, line in (("passwords", access.passwords), ("acl", access.acl)):
        if line is not None:
            general.set_path(name, line)
    _storage(general)
    _limits(general)
    _log(general)
    local = not any(line.name in ("port", "bind_address") for listener in conf.listeners for line in listener.lines)
    local = local and all(listener.line is None for listener in conf.listeners)
    blocks = [_listener(listener, access, plugins, local, directory) for listener in conf.listeners or [Listener(None)]]
    general.end()
    _defaults(general)
    return [general, *blocks]


# The broker ----------------------------------------------------------------------------------------------------------


def _storage(block: Block) -> None:
    persistence = block.flag("persistence", "retained_persistence")
    place = block.take("persistence_location")
    file = block.take("persistence_file")
    if "data" in block.settings:  # of a plugin
        return
    if not persistence:
        if persistence is False:
            block.settings["memory"] = True
        else:
            block.note("Mosquitto stores nothing where persistence is not set; here 'memory = true' does that")
        for line in (place, file):
            if line is not None:
                block.remark(line, "it has no meaning without persistence true", needless=True)
        return
    folder = block.text(place) if place is not None else os.path.dirname(file.value) if file is not None else ""
    _data(block, folder, place or file)


def _data(block: Block, folder: str, line: Line | None) -> None:
    path = block.absolute(folder)
    if os.path.basename(path) == "mosquitto":  # it belongs to Mosquitto's user
        path = os.path.join(os.path.dirname(path), "selectmq")
    block.settings["data"] = path
    block.remark(line, "what Mosquitto has stored is not read, and stays where it is: sessions begin anew")


def _limits(block: Block) -> None:
    for theirs, ours in (
        ("max_inflight_messages", "max_inflight"),
        ("max_queued_messages", "max_queued_messages"),
        ("max_queued_bytes", "max_queued_bytes"),
    ):
        block.set_limit(ours, theirs, unlimited=lambda number: number <= 0)
    for name in ("max_keepalive", "sys_interval"):
        block.set_limit(name, name)
    if block.flag("retain_available") is False:
        block.settings["retain_available"] = False
    _packet_size(block)
    _expiry(block)
    prefix = block.take("clientid_prefixes")
    if prefix is not None:
        block.settings["client_id_prefixes"] = (block.text(prefix),)
    inflight, line = block.number("max_inflight_bytes")
    if line is not None and inflight > 0:
        block.lost(line)


def _packet_size(block: Block) -> None:
    whole, line = block.number("max_packet_size")
    payload, payload_line = block.number("message_size_limit")
    sizes = [(whole, line)] if line is not None and whole > 0 else []
    if payload_line is not None and payload > 0:
        sizes.append((payload + _BESIDE_PAYLOAD, payload_line))
        why = "it counts the payload, and max_packet_size all of it; a larger one ends the connection"
        block.remark(payload_line, why)
    if sizes:
        block.set("max_packet_size", *min(sizes))
    elif line is not None or payload_line is not None:
        block.settings["max_packet_size"] = block.highest("max_packet_size")  # what MQTT allows


def _expiry(block: Block) -> None:
    line = block.take("persistent_client_expiration")
    if line is None:
        return
    number, unit = line.word[:-1], line.word[-1:]
    if number.isascii() and number.isdigit() and int(number) > 0 and unit in _UNITS:
        block.set("session_expiry", float(int(number) * _UNITS[unit]), line)
    else:
        block.wrong(line, "must be a number with h, d, w, m or y, such as 14d")


def _log(block: Block) -> None:
    words = {line.word for line in block.take_all("log_type")}
    level = None
    if words & {"all", "debug", "subscribe", "unsubscribe", "internal"}:
        level = "debug"
    elif words:
        ranks = (("info", {"information", "notice"}), ("warning", {"warning"}))
        level = next((level for level, known in ranks if words & known), "error")
    messages = block.take("connection_messages")
    if messages is not None and messages.word in ("false", "0") and level in (None, "info", "debug"):
        level = "warning"
        block.remark(messages, "log_level = 'warning' leaves out who connects, and all else that is in order")
    for line in block.take_all("log_dest"):
        if line.word == "none":
            level = "error"
        elif line.word not in ("stderr", "stdout"):
            block.lost(line)
    if level is not None:
        block.settings["log_level"] = level


def _defaults(block: Block) -> None:
    """What differs though nobody has said anything."""
    theirs = {"max_inflight": "20", "max_queued_messages": "1000", "max_packet_size": "2.0: no limit, 2.1: 2000000"}
    said = [
        f"{name} = {OPTIONS[name].kind.toml(OPTIONS[name].default)} ({default})"
        for name, default in theirs.items()
        if name not in block.settings
    ]
    if said:
        block.note(f"not set, and other than Mosquitto's defaults (in brackets): {', '.join(said)}")


# Who may connect -----------------------------------------------------------------------------------------------------


def _plugins(block: Block) -> Mapping[str, Access]:
    """What the plugins of a block give it, by the names they were loaded under; "": those of the block itself."""
    found: dict[str, Access] = {}
    lines = block.take_all(*mosquitto.PLUGINS[:-1], prefixes=("auth_opt_", "plugin_opt_"))
    while lines:
        line = lines.pop(0)
        options = []
        while lines and lines[0].name.startswith(("auth_opt_", "plugin_opt_")):
            options.append(lines.pop(0))
        name = line.word if line.name == "plugin_load" else ""
        kind = next((kind for kind in _BUILT_IN if f"mosquitto_{kind}." in os.path.basename(line.value)), None)
        access = found.get(name, Access())
        ours, option = _BUILT_IN.get(kind or "", ("", ""))
        file = next((each for each in options if each.name == option), None)
        if kind == "persist_sqlite":
            _data(block, os.path.dirname(file.value) if file is not None else "", line)
        elif kind is not None and file is not None:
            found[name] = access._replace(passwords=file) if ours == "passwords" else access._replace(acl=file)
        else:
            for each in (line, *options):
                block.lost(each)
            if "sparkplug" not in line.value:
                found[name] = access._replace(plugin=line)
    return found


def _access(block: Block, plugins: Mapping[str, Access], above: Access) -> Access:
    """What a block says of who may connect, over what is said `above` it."""
    found = [plugins.get("", Access())]
    for use in block.take_all("plugin_use"):
        found.append(plugins.get(use.word, Access(plugin=use)))
    for access in found:
        above = above._replace(
            passwords=access.passwords or above.passwords,
            acl=access.acl or above.acl,
            plugin=access.plugin or above.plugin,
        )
    anonymous = block.flag("allow_anonymous", "listener_allow_anonymous")
    return Access(
        passwords=block.take("password_file") or above.passwords,
        acl=block.take("acl_file") or above.acl,
        anonymous=above.anonymous if anonymous is None else anonymous,
        plugin=above.plugin,
    )


# Listeners -----------------------------------------------------------------------------------------------------------


def _listener(listener: Listener, general: Access, plugins: Mapping[str, Access], local: bool, directory: str) -> Block:
    block = Block("[[listeners]]", listener.lines, directory)
    access = _access(block, {**plugins, "": Access(), **_plugins(block)}, general)
    protocol = block.take("protocol")
    if protocol is not None and protocol.word == "http_api":
        block.title = ""
        block.give_up(listener.line or protocol, "what speaks no MQTT is left out")
        return block
    _address(block, listener, local)
    _tls(block)
    for name, line, old in (("passwords", access.passwords, general.passwords), ("acl", access.acl, general.acl)):
        if line is not None and line is not old:
            block.set_path(name, line)
    if protocol is not None and protocol.word == "websockets":
        _websocket(block, protocol)
    elif protocol is not None and protocol.word != "mqtt":
        block.shut(protocol, "there is no such protocol")
    if (line := block.take("enable_proxy_protocol")) is not None:
        block.settings["proxy_protocol"] = ("unix",) if "unix" in block.settings else ("127.0.0.1", "::1")
        block.remark(line, "write the addresses of your proxies into proxy_protocol: nobody else can connect there")
    block.set_limit("max_connections", "max_connections", unlimited=lambda number: number <= 0)
    _versions(block)
    if (line := block.take("mount_point")) is not None:
        block.shut(
            line, "nothing is put before topics, so that its clients would see all: first keep them apart by an acl"
        )
    _entry(block, listener, access, local)
    block.end()
    return block


def _versions(block: Block) -> None:
    line = block.take("accept_protocol_versions")
    if line is None:
        return
    words = [word.strip() for word in line.value.split(",")]
    if all(word in _VERSIONS for word in words):
        block.settings["protocols"] = tuple(name for number, name in _VERSIONS.items() if number in words)
    else:
        block.wrong(line, "must be some of 3, 4 and 5, with commas between")


def _address(block: Block, listener: Listener, local: bool) -> None:
    domain, interface = block.take("socket_domain"), block.take("bind_interface")
    everywhere = "0.0.0.0" if domain is not None and domain.word == "ipv4" else _ANY
    if listener.line is not None:
        words = [*listener.line.value.split(), "#"]
        number, host = words[0], words[1].partition("#")[0]
        source: Line | None = listener.line
    else:
        port, bind = block.take("port"), block.take("bind_address")
        number = "1883" if port is None else port.word
        host = "" if bind is None else block.text(bind)
        source = port or bind or next(iter(listener.lines), None)
    if not number.isascii() or not number.isdigit() or int(number) > 65535:
        raise NotMosquitto(f"{source.place if source else ''}: the port must be a number up to 65535, not {number!r}")
    if int(number) == 0:
        if not host:
            raise NotMosquitto(f"{source.place if source else ''}: port 0 needs the path of a Unix socket behind it")
        block.settings["unix"] = block.absolute(host)
        block.settings["unix_mode"] = "0660"  # as Mosquitto makes it
        return
    block.set("bind", host or ("localhost" if local else everywhere), source)
    if block.settings.get("bind") == _ANY and domain is not None:
        block.remark(domain, "'::' is all of IPv4, too, unless another listener has that port in IPv4")
    elif block.settings.get("bind") == _ANY and not host:
        block.remark(
            source, "'::' is all of IPv6 and IPv4; without IPv6 on this machine write '0.0.0.0'", needless=True
        )
    block.set("port", int(number), source)
    if local:
        block.note("no line names a listener: Mosquitto 2 then serves this machine alone, and 1.6 all the network")
    if interface is not None and interface.word != "lo":
        block.shut(interface, f"write the address of {interface.word} into bind")
    elif interface is not None:
        block.set("bind", "127.0.0.1", interface)


def _tls(block: Block) -> None:
    version, keyform = block.take("tls_version"), block.take("tls_keyform")
    if version is not None and version.word != "tlsv1.2":
        block.remark(version, "TLS 1.2 and 1.3 are spoken, whatever it says")
    keyform = None if keyform is not None and keyform.word == "pem" else keyform
    kept_out = [line for line in (block.take("psk_hint"), block.take("tls_engine"), keyform) if line is not None]
    for line in kept_out:
        block.shut(line, None)
    certificate = block.take("certfile")
    if kept_out or certificate is None:
        for name in ("keyfile", "cafile", "capath", "crlfile", "require_certificate", *_NAMED_BY_CERTIFICATE):
            found = block.take(name)
            if found is not None and found.word not in ("false", "0"):
                block.remark(found, "it has no meaning without certfile")
        return
    key = block.take("keyfile")
    block.set_path("certificate", certificate)
    if key is not None:
        block.set_path("key", key)
    _clients_certificates(block, certificate)


def _clients_certificates(block: Block, certificate: Line) -> None:
    file, folder, crl = block.take("cafile"), block.take("capath"), block.take("crlfile")
    known = file or folder
    if file is not None and folder is not None:
        block.remark(folder, "one file or directory can be named, and cafile is: copy what is missing into it")
    required = block.flag("require_certificate")
    names = [value for name, value in _NAMED_BY_CERTIFICATE.items() if block.flag(name)]
    if not required:
        _without_certificates(block, certificate, known, crl, bool(names))
    elif known is None:
        block.shut(certificate, "require_certificate lets nobody in without cafile or capath")
    else:
        block.set_path("client_ca", known)
        if crl is not None:
            block.set_path("client_crl", crl)
        if names:
            block.settings["certificate_user"] = names[0]


def _without_certificates(block: Block, certificate: Line, known: Line | None, crl: Line | None, named: bool) -> None:
    """Clients are asked for no certificate: what says which ones are trusted only completes the server's own chain."""
    if known is not None:
        block.set_path("certificate_chain", known)
    if crl is not None:
        block.remark(crl, "it has no meaning without require_certificate true")
    if named:
        block.shut(certificate, "users are to be named by certificates that nobody is asked for: Mosquitto refuses all")


def _websocket(block: Block, protocol: Line) -> None:
    block.settings["websocket"] = True
    block.remark(protocol, "needs the extra: pip install 'selectmq[websocket]'")
    origins = block.take_all("websockets_origin")
    if origins:
        block.set("websocket_origins", tuple(block.text(line) for line in origins), origins[0])
    else:
        block.settings["websocket_origins"] = ("*",)
        block.remark(protocol, "Mosquitto takes browsers from any page; to take them from yours alone, list those")


def _entry(block: Block, listener: Listener, access: Access, local: bool) -> None:
    """Who is let in, once all else is known."""
    settings = block.settings
    proved = "certificate_user" in settings
    named = block.flag("use_username_as_clientid")
    if named:
        settings["client_ids"] = {"*": ("%u",)}
        block.remark(block.last, "a client must have its user name for a ClientId, which Mosquitto puts in its place")
    anonymous = access.anonymous
    if anonymous is None:
        anonymous = local and access.plugin is None
        word = "true" if anonymous else "false"
        block.note(f"allow_anonymous is not set, and so {word} in Mosquitto 2 (in 1.6 it was true without passwords)")
    elif anonymous and (access.plugin is not None or named):
        anonymous = False
        block.remark(None, "allow_anonymous: what its plugin or use_username_as_clientid held back, nothing does here")
    closed = "unix" in settings or is_loopback(str(settings.get("bind", "localhost")))
    closed = closed and "proxy_protocol" not in settings
    if not (access.passwords or anonymous or proved or closed):
        block.shut(listener.line, "nobody could connect; set passwords or allow_anonymous = true, and bind")
    elif anonymous and access.acl is not None and access.passwords is None and not proved:
        block.remark(
            access.acl,
            "no user name is checked without passwords, so that lines below 'user' hold for nobody",
        )
    settings["allow_anonymous"] = anonymous and not block.is_shut
    if block.is_shut and "unix" not in settings:
        settings["bind"] = "127.0.0.1"
        settings.pop("proxy_protocol", None)


def remarks(blocks: Iterable[Block]) -> list[Remark]:
    return [remark for block in blocks for remark in block.in_order()]
