"""A listener of the configuration with its clients: what lies between a socket that was accepted and a Connection.

Owns: who is let in (room, rates, proxies, certificates), the layers of each connection (PROXY header, TLS, WebSocket),
what becomes of it all at a reload, and how a listener's files are read. Must not know: MQTT but for Connection, which
is the top of the layers; other listeners.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple, Protocol

from .auth.acl import Acl
from .auth.checks import Checks
from .auth.errors import FileError
from .auth.gatekeeper import Gatekeeper, Policy, Stays
from .auth.passwords import Passwords
from .config.kinds import UNIX
from .config.options import Config, ListenerConfig
from .core.connection import Connection
from .core.exchange import Exchange
from .core.ports import Log
from .core.timers import Timer, Timers
from .core.trace import watch
from .net.certificates import TlsError
from .net.listener import Listener, listen, listen_unix, peer_name
from .net.loop import Loop
from .net.proxy import Introduction, Source, Trusted
from .net.tls import Handshakes, Tls, TlsLayer, read_tls
from .net.transport import Transport
from .wire import strangers
from .wire.encoder import packet_size

if TYPE_CHECKING:
    from .net.ws import WebSocket

#: Connections that are looked at in a turn after a reload.
JUDGED = 200
#: Connections above a listener's limit that are kept for as long as it takes to tell them so.
OVERLOAD = 64
#: What clients may call MQTT over WebSocket: the name that counts [MQTT-6.0.0-4], and that of clients older than 3.1.1.
SUBPROTOCOLS = ("mqtt", "mqttv3.1")
#: Frames of a WebSocket may be as large as the largest packet, but several small ones must fit into one.
LEAST_MAX_FRAME = 65_536
#: Addresses remembered for max_connect_rate within one second.
MAX_ADDRESSES = 100_000


class StartError(Exception):
    """The broker cannot start. str() is one line that says what to do."""


class Surroundings(Protocol):
    """What all listeners share."""

    config: Config
    log: Log
    loop: Loop
    timers: Timers
    exchange: Exchange
    checks: Checks
    handshakes: Handshakes

    @property
    def full(self) -> bool:
        """Can the system not wait for more connections?"""
        ...


class Rules(NamedTuple):
    """What a listener's files say."""

    policy: Policy
    tls: Tls | None


class Entrance:
    """One listener and its clients.

    A connection comes in through `_accepted`; that of a proxy is then among the `_arriving` until its header has said
    who it is. `_enter` looks whether there is room for it; with TLS it is among the `_arriving` until its handshake is
    done; `_welcome` makes it a client.
    """

    def __init__(self, server: Surroundings, config: ListenerConfig, rules: Rules, name: str) -> None:
        """`name`: see core.ports.Gatekeeper."""
        self.config = config
        self.gatekeeper = Gatekeeper(rules.policy, server.checks, name)
        self.connections: dict[Transport, Connection] = {}
        self._tls = rules.tls
        self._proxies = trusted(config)
        self._arriving: dict[Transport, Timer] = {}
        self._server = server
        self._second = 0
        self._attempts: dict[str, int] = {}
        self._taken_by_proxies = False
        self._websocket = load_websocket(config) if config.websocket else None
        self._stays: Stays = lambda username, client_id, proved=False: True
        if config.unix is None:
            sock = listen(config.bind, config.port)
        else:
            sock = listen_unix(config.unix, int(config.unix_mode, 8))
        self.listener = Listener(server.loop, sock, self._accepted, self._starved, self._later)

    @property
    def held(self) -> int:
        """How many connections there are."""
        return len(self.connections) + len(self._arriving)

    def replace(self, config: ListenerConfig, rules: Rules) -> None:
        """Go by another configuration. Who is connected keeps the TLS that there is."""
        self._taken_by_proxies = bool(config.proxy_protocol and not self.config.proxy_protocol)
        self.config = config
        self._tls = rules.tls
        self._proxies = trusted(config)
        self._stays = self.gatekeeper.replace(rules.policy)

    def close_unwelcome(self) -> Iterator[None]:
        """After `replace`: close the connections of who may not connect any more. It yields where others should have
        their turn."""
        for number, (transport, connection) in enumerate(list(self.connections.items()), 1):
            if number % JUDGED == 0:
                yield
            layer = transport.client
            transport.max_unsent = self._server.exchange.limits.max_unsent
            if isinstance(layer, TlsLayer):
                layer.max_unsent = transport.max_unsent
            session = connection.session
            missing = self._missing(layer, self._taken_by_proxies)
            if missing:
                connection.close(missing)
            elif session is not None:
                proved = isinstance(layer, TlsLayer) and layer.identity is not None
                if not self._stays(session.username, session.client_id, proved):
                    connection.close("no longer authorised to connect")

    def _missing(self, layer: object, direct: bool) -> str:
        """What the listener now asks for and a connection does not have, that came before a reload. `layer`: what it
        has made of its transport; `direct`: no proxy has introduced it."""
        tls = layer if isinstance(layer, TlsLayer) else None
        if direct and self.config.proxy_protocol:
            return "this listener is now for the proxies of proxy_protocol"
        if self._tls is not None and tls is None:
            return "this listener now expects TLS"
        certified = self.config.client_ca is not None and self.config.client_certificates == "required"
        if certified and not (tls is not None and tls.certified):
            return "this listener now expects a certificate"
        return ""

    def _accepted(self, sock: socket.socket, host: str, peer: str) -> None:
        """`host`: whom limits and the log take for one; `peer`: the one connection."""
        server = self._server
        server.exchange.stats.sockets += 1
        since = server.timers.now
        if self.config.proxy_protocol:
            self._introduce(sock, host, peer, since)
            return
        why = self._no_room(host)
        if why:
            sock.close()
            self._turn_away(host, why)
            return
        self._enter(self._transport(sock, peer), host, since)

    def _introduce(self, sock: socket.socket, host: str, peer: str, since: float) -> None:
        """It is a proxy's: wait for the header that says whose it is."""
        server = self._server
        if self.config.unix is None and host not in self._proxies:
            sock.close()
            self._turn_away(host, "this listener is for the proxies of proxy_protocol")
            return
        why = self._no_room(None)
        if why:
            sock.close()
            self._turn_away(host, why)
            return
        transport = self._transport(sock, peer)

        def introduced(source: Source | None) -> None:
            self._arriving.pop(transport).cancel()
            client = host if source is None else source.host
            if source is not None:
                transport.peer = peer_name(*source)
            why = self._no_room(client)
            if why:
                transport.close(gently=False)
                self._turn_away(client, why)
            else:
                self._enter(transport, client, since)

        def failed(why: str | None) -> None:
            if why is not None:
                server.exchange.stats.refused += 1
                self._tell_once("PROXY header refused", host, why)

        introduction = Introduction(transport, introduced, failed)
        self._arriving[transport] = server.timers.at(
            since + self.config.connect_timeout, lambda now: introduction.expire()
        )

    def _no_room(self, host: str | None) -> str:
        """Why one more connection is not possible, "" if it is. None: who it is for is not known yet."""
        held = self.held
        limit = self.config.max_connections
        rate = self._server.config.max_connect_rate
        too_often = rate and host is not None and self._too_often(host, rate)
        if self._server.full:
            return "this system cannot wait for more connections"
        if held >= limit + OVERLOAD:
            return "too many clients are connected"
        return "too many attempts from this address" if too_often else ""

    def _turn_away(self, host: str, why: str) -> None:
        self._server.exchange.stats.refused += 1
        self._tell_once("connections closed unheard", host, why)

    def _transport(self, sock: socket.socket, peer: str) -> Transport:
        server = self._server
        return Transport(server.loop, sock, peer, server.exchange.limits.max_unsent, self._closed)

    def _enter(self, transport: Transport, host: str, since: float) -> None:
        """There is room for it. `since`: when it came."""
        if self._tls is None:
            self._welcome(transport, transport, host, since)
            return

        direct = not self.config.proxy_protocol

        def established(layer: TlsLayer) -> None:
            self._arriving.pop(transport).cancel()
            missing = self._missing(layer, direct)
            if missing:
                layer.close()
                self._turn_away(host, missing)
            else:
                self._welcome(transport, layer, host, since)

        def failed(layer: TlsLayer, why: str | None) -> None:
            if why is not None:
                server.exchange.stats.refused += 1
                self._tell_once("TLS handshake failed", host, why)

        server = self._server
        layer = TlsLayer(
            server.loop, transport, self._tls, server.handshakes, established, failed,
            lambda data: strangers.explain(data, "TLS"),
        )  # fmt: skip
        self._arriving[transport] = server.timers.at(
            since + self.config.connect_timeout, lambda now: layer.abort("it was not done in time")
        )

    def _welcome(self, transport: Transport, below: Transport | TlsLayer, host: str, since: float) -> None:
        """Make it a client, which sees the bytes that `below`, and WebSocket, have made of those of `transport`."""
        top = below if self._websocket is None else self._over_websocket(self._websocket, below, host)
        connection = Connection(
            self._server.exchange,
            self.gatekeeper,
            top,
            since,
            self.config.connect_timeout,
            self.config.max_packet_size,
        )
        connection.overload = self.held >= self.config.max_connections
        if self._server.log.debugging:
            watch(connection, self._server.log)
        top.client = connection
        self.connections[transport] = connection

    def _over_websocket(self, layer: type[WebSocket], below: Transport | TlsLayer, host: str) -> WebSocket:
        from .net import ws

        config = self.config
        rules = ws.Rules(
            SUBPROTOCOLS,
            config.websocket_path,
            config.websocket_origins,
            isinstance(below, TlsLayer),
            max(config.max_packet_size, LEAST_MAX_FRAME),
            packet_size,
            lambda data: strangers.explain(data, "HTTP"),
        )
        return layer(
            below,
            rules,
            self._server.loop,
            self._later,
            lambda why: self._tell_once("WebSocket refused", host, why),
        )

    def _tell_once(self, event: str, host: str, why: str) -> None:
        """Log it, but not for each of many connections."""
        self._server.exchange.complaints.warning(event, host, why, address=host, reason=why)

    def _too_often(self, host: str, rate: int) -> bool:
        second = int(self._server.timers.now)
        if second != self._second or len(self._attempts) >= MAX_ADDRESSES:
            self._second = second
            self._attempts.clear()
        attempts = self._attempts[host] = self._attempts.get(host, 0) + 1
        return attempts > rate

    def _closed(self, transport: Transport) -> None:
        if self.connections.pop(transport, None) is None and transport in self._arriving:
            self._arriving.pop(transport).cancel()

    def _starved(self, why: str) -> None:
        self._server.exchange.complaints.error(why, "", connections=len(self.connections))

    def _later(self, seconds: float, function: Callable[[], None]) -> None:
        def call(now: float) -> None:
            function()

        self._server.timers.after(seconds, call)

    def close(self) -> None:
        self.listener.close()
        for transport in [*self.connections, *self._arriving]:
            with contextlib.suppress(OSError):
                transport.close()


def trusted(config: ListenerConfig) -> Trusted:
    """The proxies that a listener is for. Who reaches a Unix socket is one of them."""
    return Trusted(network for network in config.proxy_protocol if network != UNIX)


def load_websocket(listener: ListenerConfig) -> type[WebSocket]:
    """The layer for WebSocket; it comes with an extra. Raises StartError."""
    try:
        from .net.ws import WebSocket
    except ImportError as error:
        raise StartError(
            f"listener {listener.address} has websocket = true: run pip install 'selectmq[websocket]' ({error})"
        ) from None
    return WebSocket


def read_rules(listener: ListenerConfig) -> Rules:
    """What a listener's configuration and files say of its clients. Raises FileError."""
    tls = None
    if listener.certificate is not None:
        try:
            tls = read_tls(
                listener.certificate,
                listener.key,
                listener.client_ca,
                listener.client_crl,
                listener.certificate_chain,
                listener.client_certificates == "optional",
                listener.certificate_user,
            )
        except TlsError as error:
            raise FileError(error.path, None, error.why) from None
    policy = Policy(
        passwords=None if listener.passwords is None else Passwords.read(listener.passwords),
        acl=None if listener.acl is None else Acl.read(listener.acl),
        allow_anonymous=listener.allow_anonymous,
        proof=listener.certificate_user,
        deny_users=listener.deny_users,
        client_ids=listener.client_ids,
        client_id_prefixes=listener.client_id_prefixes,
        max_client_id=listener.max_client_id,
        max_keepalive=listener.max_keepalive,
        allow_user_change=listener.allow_user_change,
    )
    return Rules(policy, tls)
