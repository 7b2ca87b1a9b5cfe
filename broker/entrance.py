"""A listener of the configuration with its clients.

Owns: the sockets that it listens on, who is let in (room, proxies, certificates), what becomes of its connections at a
reload, and how its files are read. Must not know: MQTT, how a connection comes to be one (arrival), other listeners.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from .admission import Places
from .arrival import Arrival, Grounds
from .auth.acl import Acl
from .auth.checks import Checks
from .auth.errors import FileError
from .auth.gatekeeper import Gatekeeper, Policy, Stays
from .auth.passwords import Passwords
from .config.options import ListenerConfig
from .core import reasons
from .core.connection import Connection
from .net.certificates import TlsError
from .net.endpoints import Endpoint
from .net.listener import Listener, listen_on, listen_unix
from .net.proxy import Trusted
from .net.tls import Tls, TlsLayer, read_tls
from .net.transport import Transport
from .wire.codes import VERSION_NAMES, ReasonCode

if TYPE_CHECKING:
    from .net.ws import WebSocket

#: Connections that are looked at in a turn after a reload.
JUDGED = 200


class StartError(Exception):
    """The broker cannot start. str() is one line that says what to do."""


class Surroundings(Grounds, Protocol):
    """What all listeners share."""

    checks: Checks

    @property
    def full(self) -> bool:
        """Can the system not wait for more connections?"""
        ...

    def make_room(self) -> bool:
        """Close a connection that has sent no CONNECT, on any listener. False: there is none."""
        ...


class Rules(NamedTuple):
    """What a listener's files say."""

    policy: Policy
    tls: Tls | None


class Entrance:
    """One listener and its clients.

    A connection comes in through `_accepted`, and is an Arrival until it has a Connection. (It may not have sent its
    CONNECT then: `places` knows.)
    """

    def __init__(
        self,
        server: Surroundings,
        config: ListenerConfig,
        rules: Rules,
        name: str,
        endpoints: Sequence[Endpoint],
    ) -> None:
        """`name`: see core.ports.Gatekeeper; `endpoints`: where it listens, empty for a Unix socket."""
        self.server = server
        self.config = config
        self.gatekeeper = Gatekeeper(rules.policy, server.checks, name)
        self.places = Places(config.max_connections)
        self.connections: dict[Transport, Connection] = {}
        self.tls = rules.tls
        self.websocket = load_websocket(config) if config.websocket else None
        self.forwarders = Trusted(config.websocket_forwarded_for)
        self._proxies = Trusted(config.proxy_protocol)
        self._arriving: dict[Transport, Arrival] = {}
        self._taken_by_proxies = False
        self._stays: Stays = lambda username, client_id, proved=False: True
        sockets = [listen_unix(config.unix, int(config.unix_mode, 8))] if config.unix else listen_on(endpoints)
        self._listeners = [Listener(server.loop, sock, self._accepted, self._starved, self.later) for sock in sockets]

    @property
    def held(self) -> int:
        """How many connections there are."""
        return len(self.connections) + len(self._arriving)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the first socket (of an address in IPv4, if there is one)."""
        return self._listeners[0].address

    @property
    def places_in_words(self) -> list[str]:
        """All addresses that it listens on."""
        return [str(listener) for listener in self._listeners]

    def unsent(self) -> Iterator[tuple[int, Connection]]:
        """How many bytes wait for each client for which any do."""
        for transport, connection in self.connections.items():
            layer = transport.client
            size = layer.unsent if isinstance(layer, TlsLayer) else transport.unsent
            if size:
                yield size, connection

    def replace(self, config: ListenerConfig, rules: Rules) -> None:
        """Go by another configuration. Who is connected keeps the TLS that there is."""
        self._taken_by_proxies = bool(config.proxy_protocol and not self.config.proxy_protocol)
        self.config = config
        self.tls = rules.tls
        self._proxies = Trusted(config.proxy_protocol)
        self.forwarders = Trusted(config.websocket_forwarded_for)
        self.places.max_clients = config.max_connections
        self._stays = self.gatekeeper.replace(rules.policy)

    def close_unwelcome(self) -> Iterator[None]:
        """After `replace`: close the connections of who may not connect any more. It yields where others should have
        their turn."""
        for number, (transport, connection) in enumerate(list(self.connections.items()), 1):
            if number % JUDGED == 0:
                yield
            layer = transport.client
            transport.max_unsent = self.server.exchange.limits.max_unsent
            if isinstance(layer, TlsLayer):
                layer.max_unsent = transport.max_unsent
            session = connection.session
            missing = self.missing(layer, self._taken_by_proxies)
            spoken = VERSION_NAMES[connection.version]
            if session is not None and spoken not in self.config.protocols:
                missing = f"this listener does not take MQTT {spoken} any more (protocols)"
            elsewhere = reasons.elsewhere(self.server.exchange.limits, False)
            if missing:
                connection.close(missing, reason=ReasonCode.ADMINISTRATIVE_ACTION)
            elif session is not None and elsewhere is not None:
                connection.close(reasons.MOVED, reason=elsewhere)
            elif session is not None:
                proved = isinstance(layer, TlsLayer) and layer.identity is not None
                if not self._stays(session.username, session.client_id, proved):
                    connection.close("no longer authorised to connect", reason=ReasonCode.NOT_AUTHORIZED)

    def missing(self, layer: object, direct: bool) -> str:
        """What the listener now asks for and a connection does not have, that came before a reload. `layer`: what it
        has made of its transport; `direct`: no proxy has introduced it."""
        tls = layer if isinstance(layer, TlsLayer) else None
        if direct and self.config.proxy_protocol:
            return "this listener is now only for the proxies in proxy_protocol"
        if self.tls is not None and tls is None:
            return "this listener now expects TLS"
        certified = self.config.client_ca is not None and self.config.client_certificates == "required"
        if certified and not (tls is not None and tls.certified):
            return "this listener now expects a certificate"
        return ""

    def _accepted(self, sock: socket.socket, host: str, peer: str) -> None:
        """`host`: whom limits and the log take for one; `peer`: the one connection."""
        server = self.server
        server.exchange.stats.sockets += 1
        why = ""
        if self.config.proxy_protocol and host not in self._proxies:
            why = "this listener is only for the proxies in proxy_protocol"
        elif server.full and not server.make_room():
            why = "this system cannot wait for more connections"
        if why:
            sock.close()
            self.turn_away(host, why)
            return
        transport = Transport(server.loop, sock, peer, server.exchange.limits.max_unsent, self._closed)
        arrival = self._arriving[transport] = Arrival(self, transport, host)
        arrival.begin()

    # --- what an Arrival asks for ---

    def welcome(self, transport: Transport, connection: Connection) -> None:
        del self._arriving[transport]
        self.connections[transport] = connection

    def turn_away(self, host: str, why: str) -> None:
        self.failed("connection refused", host, why)

    def failed(self, event: str, host: str, why: str) -> None:
        self.server.exchange.stats.refused += 1
        self.tell_once(event, host, why)

    def later(self, seconds: float, function: Callable[[], None]) -> None:
        def call(now: float) -> None:
            function()

        self.server.timers.after(seconds, call)

    def tell_once(self, event: str, host: str, why: str) -> None:
        """Log it, but not for each of many connections."""
        self.server.exchange.complaints.warning(event, host, why, address=host, reason=why)

    def _closed(self, transport: Transport) -> None:
        connection = self.connections.pop(transport, None)
        if connection is not None:
            connection.place.leave()
        elif transport in self._arriving:
            self._arriving.pop(transport).left()

    def _starved(self, why: str) -> bool:
        """Descriptors have run out. True: there are some again."""
        if self.server.make_room():
            return True
        self.server.exchange.complaints.error(why, "", connections=len(self.connections))
        return False

    def close(self) -> None:
        for listener in self._listeners:
            listener.close()
        for transport in [*self.connections, *self._arriving]:
            with contextlib.suppress(OSError):
                transport.close()


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
