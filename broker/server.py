"""The composition root: builds a broker out of its parts, starts it, reloads it, ends it.

Owns: who is connected to whom, and the order of start and end. It is the one file that knows every part; none knows
it but the command line and the embedded Broker.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
import time
from collections import deque
from collections.abc import Callable
from dataclasses import fields
from typing import TYPE_CHECKING, NamedTuple

from broker import config as configuration
from broker import logs
from broker.auth.acl import Acl
from broker.auth.checks import Checks
from broker.auth.errors import FileError
from broker.auth.gatekeeper import Gatekeeper, Policy, Stays
from broker.auth.passwords import Passwords
from broker.core.connection import CLOSED, Connection
from broker.core.exchange import Exchange
from broker.core.journal import Journal
from broker.core.limits import Limits
from broker.core.ports import Log, Rights, Store, StoreError
from broker.core.session import Session
from broker.core.sys_topics import SysTopics
from broker.core.timers import Timer, Timers
from broker.net.listener import Listener, ListenError, listen, listen_unix, peer_name
from broker.net.loop import Loop
from broker.net.proxy import Introduction, Source, Trusted
from broker.net.tls import Handshakes, Tls, TlsError, TlsLayer, read_tls
from broker.net.transport import Transport
from broker.net.workers import Workers
from broker.notify import watchdog_interval
from broker.option_kinds import UNIX
from broker.options import Config, ListenerConfig
from broker.storage.memory import MemoryStore
from broker.storage.sqlite import DataError, SqliteStore
from broker.version import __version__
from broker.wire.encoder import packet_size

if TYPE_CHECKING:
    from broker.net.ws import WebSocket

#: Seconds that clients get to take what is unsent, and the store to write, before the broker ends without.
GRACE = 5.0
#: Connections above a listener's limit that are kept for as long as it takes to tell them so.
OVERLOAD = 64
#: What clients may call MQTT over WebSocket: the name that counts [MQTT-6.0.0-4], and that of clients older than 3.1.1.
SUBPROTOCOLS = ("mqtt", "mqttv3.1")
#: Frames of a WebSocket may be as large as the largest packet, but several small ones must fit into one.
LEAST_MAX_FRAME = 65_536
#: Seconds between two looks for sessions that have expired.
EXPIRY_CHECK = 10.0
#: Addresses remembered for max_connect_rate within one second, and for what was said about them.
MAX_ADDRESSES = 100_000
#: Authors of retained messages whose rights are remembered.
MAX_AUTHORS = 1000
#: Seconds after which the same is said again about the same address.
SILENCE = 60.0


class StartError(Exception):
    """The broker cannot start. str() is one line that says what to do."""


class Server:
    """A broker: bound and ready when constructed, at work while `run` runs."""

    def __init__(
        self,
        config: Config,
        log: Log,
        reread: configuration.Reload | None = None,
        notify: Callable[..., object] = lambda *lines: None,
    ) -> None:
        """Bind all listeners and open the store. Raises StartError, and leaves nothing open then.

        `reread` gives the configuration for a reload; without it, only the files that it names are read again.
        `notify` hears such lines as "READY=1" (broker.notify).
        """
        self.config = config
        self._notify = notify
        self._reread = reread or (lambda: self.config)
        self.log = log
        self.timers = Timers()
        self.timers.now = time.monotonic()
        self.loop = Loop(self.timers, self._bug)
        self._workers = Workers(self.loop, config.workers, "selectmq-worker")
        self._lane = Workers(self.loop, 1, "selectmq-store")
        self.checks = Checks(self._workers.submit, config.workers)
        self.handshakes = Handshakes(self.loop)
        self._ports: list[_Port] = []
        # What the authors of retained messages may do on each listener, until a reload.
        self._authors: dict[tuple[str | None, str], list[Rights | None]] = {}
        self._requests: deque[str] = deque()
        self._deadline: float | None = None  # of the end, once it has begun
        self._draining = False
        store: Store | None = None
        try:
            rules = [read_rules(listener) for listener in config.listeners]
            store = MemoryStore() if config.data is None else SqliteStore(config.data)
            self._store = store
            snapshot = store.load()
            journal = Journal(store, self._lane, self.timers, log)
            self.exchange = Exchange(journal, self.timers, Limits(), log, self.loop, time.time, _unguessable)
            self.exchange.may_publish = self._may_publish
            self.exchange.proves_names = lambda: any(port.gatekeeper.proves_names for port in self._ports)
            self._apply_limits()
            for listener, rule in zip(config.listeners, rules, strict=True):
                self._ports.append(_Port(self, listener, rule))
            self.exchange.restore(snapshot, self._absent_rights)
        except (FileError, DataError, StoreError, ListenError) as error:
            self._close_all(store)
            raise StartError(str(error)) from None
        except BaseException:
            self._close_all(store)
            raise
        self._sys = SysTopics(self.exchange, __version__, self.timers.now)
        self.loop.before_sleep = self._before_sleep
        self.timers.after(0.0, self._publish_sys)
        self.timers.after(EXPIRY_CHECK, self._expire)

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Host and port of each listener, in the order of the configuration; of a Unix socket its path, and 0."""
        return [port.listener.address for port in self._ports]

    @property
    def _status(self) -> str:
        return "STATUS=listening on " + ", ".join(str(port.listener) for port in self._ports)

    @property
    def full(self) -> bool:
        """Are there as many connections as the loop can wait for? One more would be the end of all of them."""
        capacity = self.loop.capacity
        return capacity is not None and sum(port.held for port in self._ports) >= capacity

    # --- at work ---

    def run(self) -> None:
        """Serve until `stop`. Frees everything before it returns."""
        for port in self._ports:
            self.log.info("listening", address=str(port.listener))
        kept = len(self.exchange.sessions)
        self.log.info(
            "started", version=__version__, data=self.config.data or "memory", sessions=kept,
            retained=self.exchange.retained.count,
        )  # fmt: skip
        self._notify("READY=1", self._status)
        interval = watchdog_interval()
        if interval is not None:
            self.timers.after(0.0, lambda now: (self._notify("WATCHDOG=1"), now + interval)[1])
        try:
            self.loop.run()
        finally:
            self._close_all(self._store)
            self.log.info("ended")

    def request(self, what: str) -> None:
        """Ask for "reload", "stop" or "abort". From any thread, and from signal handlers."""
        self._requests.append(what)
        self.loop.wake()

    def _before_sleep(self) -> None:
        while self._requests:
            self._obey(self._requests.popleft())
        exchange = self.exchange
        exchange.pump()  # may ask the journal for more
        exchange.journal.end_of_turn()
        exchange.pump()  # for what followed from that
        while exchange.dirty:
            dirty, exchange.dirty = exchange.dirty, set()
            for connection in dirty:
                connection.flush()
        exchange.end_of_turn()
        if self._deadline is not None:
            self._go_on_ending()

    def _obey(self, what: str) -> None:
        if what == "reload":
            self.reload()
        elif what == "abort" or self._deadline is not None:
            self.loop.stop()
        else:
            self._begin_ending()

    def _bug(self, error: BaseException) -> None:
        self.exchange.stats.bugs += 1
        self.log.exception("bug: the broker goes on without what it wanted to do", error)

    def _publish_sys(self, now: float) -> float | None:
        interval = self.config.sys_interval
        if not interval:
            return now + 10.0  # a reload may switch it on
        self.exchange.stats.bytes_sent = self.loop.bytes_sent
        self._sys.publish(now)
        return now + interval

    def _expire(self, now: float) -> float | None:
        self.exchange.expire()
        return now + EXPIRY_CHECK

    # --- configuration ---

    def _apply_limits(self) -> None:
        limits = self.exchange.limits
        for row in fields(Limits):
            setattr(limits, row.name, getattr(self.config, row.name))

    def reload(self) -> None:
        """Take over what the configuration now says, as far as that is possible; if it is wrong, keep the old one."""
        self._notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            wanted = self._reread()
            config = self.config.reloaded(wanted)
            rules = [read_rules(listener) for listener in config.listeners]
        except (configuration.ConfigError, FileError) as error:
            self.log.error("reload failed: everything stays as it was", reason=str(error))
            self._notify("READY=1", "STATUS=the last reload failed: see the log")
            return
        changes = self.config.changes(wanted)
        if config.log_level != self.config.log_level:
            logs.set_level(config.log_level)
        self.config = config
        for port, listener, rule in zip(self._ports, config.listeners, rules, strict=True):
            port.replace(listener, rule)
        self._authors.clear()
        self._apply_limits()
        self.exchange.rights_changed(self._rights)
        for port in self._ports:
            port.close_unwelcome()
        for change in changes:
            if change.reloadable:
                self.log.info("changed", option=str(change))
            else:
                self.log.warning("this change needs a restart", option=str(change))
        self.log.info("reloaded")
        self._notify("READY=1", self._status)

    def _rights(self, session: Session) -> Rights | None:
        if session.connection is None:
            return self._absent_rights(session.proven_name, session.client_id)
        return session.connection.current_rights()

    def _absent_rights(self, username: str | None, client_id: str) -> Rights | None:
        """The rights by which messages are queued for a client that is away, if it has the same on all listeners. If
        not, everything is queued; it is judged again when the client comes for it."""
        if len({(port.config.acl, port.gatekeeper.proves_names) for port in self._ports}) > 1:
            return None
        return self._ports[0].gatekeeper.rights(username, client_id)

    def _may_publish(self, username: str | None, client_id: str, topic: bytes) -> bool:
        """Does any listener let this client publish to the topic, though it may not be there now?"""
        author = username, client_id
        known = self._authors.get(author)
        if known is None:
            if len(self._authors) >= MAX_AUTHORS:
                self._authors.clear()
            known = self._authors[author] = [port.gatekeeper.rights(username, client_id) for port in self._ports]
        return any(rights is None or rights.may_publish(topic) for rights in known)

    # --- the end ---

    def _begin_ending(self) -> None:
        """Take nothing more in, and give clients the time to take what is on its way to them."""
        self._notify("STOPPING=1")
        self.log.info("ending", clients=self.exchange.connected)
        self.exchange.closing = True
        self._draining = True
        self._deadline = time.monotonic() + GRACE
        for port in self._ports:
            for connection in port.connections.values():
                connection.quiesce()
        self.timers.after(GRACE, lambda now: None)  # wakes the loop

    def _go_on_ending(self) -> None:
        assert self._deadline is not None
        late = time.monotonic() >= self._deadline
        if self._draining:
            waits = self.exchange.journal.idle is False or any(
                transport.unsent for port in self._ports for transport in port.connections
            )
            if waits and not late:
                return
            self._draining = False
            self._deadline = time.monotonic() + GRACE
            self.timers.after(GRACE, lambda now: None)
            connections = [connection for port in self._ports for connection in port.connections.values()]
            for connection in connections:
                self.exchange.publish_will(connection)  # before anybody is gone who should get it
            for connection in connections:
                if connection.state != CLOSED:
                    connection.close("the broker is shutting down")
            self.exchange.journal.end_of_turn()
        if self.exchange.journal.idle:
            self.loop.stop()
        elif late:
            self.log.error("ending without the store: what was not acknowledged is lost")
            self.loop.stop()

    def _close_all(self, store: Store | None) -> None:
        for port in self._ports:
            port.close()
        self._workers.close()
        self._lane.close()
        if store is not None:
            store.close()
        self.loop.close()


class Rules(NamedTuple):
    """What a listener's files say."""

    policy: Policy
    tls: Tls | None


class _Port:
    """A listener with its clients.

    A connection comes in through `_accepted`; that of a proxy is then among the `_arriving` until its header has said
    who it is. `_enter` looks whether there is room for it; with TLS it is among the `_arriving` until its handshake is
    done; `_welcome` makes it a client.
    """

    def __init__(self, server: Server, config: ListenerConfig, rules: Rules) -> None:
        self.config = config
        self.gatekeeper = Gatekeeper(rules.policy, server.checks)
        self.connections: dict[Transport, Connection] = {}
        self._tls = rules.tls
        self._proxies = trusted(config)
        self._arriving: dict[Transport, Timer] = {}
        self._server = server
        self._second = 0
        self._attempts: dict[str, int] = {}
        self._told: set[tuple[str, str]] = set()
        self._silent_until = 0.0
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

    def close_unwelcome(self) -> None:
        """After `replace`: close the connections of who may not connect any more."""
        for transport, connection in list(self.connections.items()):
            layer = transport.client
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

        def failed(layer: TlsLayer, why: str) -> None:
            server.exchange.stats.refused += 1
            self._tell_once("TLS handshake failed", host, why)

        server = self._server
        layer = TlsLayer(server.loop, transport, self._tls, server.handshakes, established, failed)
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
        top.client = connection
        self.connections[transport] = connection

    def _over_websocket(self, layer: type[WebSocket], below: Transport | TlsLayer, host: str) -> WebSocket:
        from broker.net import ws

        config = self.config
        rules = ws.Rules(
            SUBPROTOCOLS,
            config.websocket_path,
            config.websocket_origins,
            config.is_loopback and config.unix is None,  # no page reaches a Unix socket but through a proxy
            max(config.max_packet_size, LEAST_MAX_FRAME),
            packet_size,
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
        now = self._server.timers.now
        if now >= self._silent_until or len(self._told) >= MAX_ADDRESSES:
            self._told.clear()
            self._silent_until = now + SILENCE
        if (event, host) not in self._told:
            self._told.add((event, host))
            self._server.log.warning(event, address=host, reason=why)

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
        self._server.log.error(why, connections=len(self.connections))

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


def _unguessable() -> str:
    return secrets.token_hex(8)


def load_websocket(listener: ListenerConfig) -> type[WebSocket]:
    """The layer for WebSocket; it comes with an extra. Raises StartError."""
    try:
        from broker.net.ws import WebSocket
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
    )
    return Rules(policy, tls)
