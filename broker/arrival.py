"""A connection on its way in: from the socket that was accepted to the Connection that speaks MQTT.

Owns: the layers of one connection (PROXY header, TLS, WebSocket) in their order, and whose address counts. Must not
know: MQTT but for Connection, which is the top of the layers; other connections, but through the Hall.

    PROXY header -> its turn, if it comes too often -> TLS handshake -> Connection (above WebSocket, if there is one)

Until the Connection is there, an Arrival sees to it that nobody takes longer than connect_timeout. Waiting for its turn
is not its own doing, and does not count.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Protocol

from .addresses import origin_of
from .admission import Pace, Place, Places
from .auth.gatekeeper import Gatekeeper
from .config.options import Config, ListenerConfig
from .core import admission
from .core.connection import Connection
from .core.exchange import Exchange
from .core.ports import Log
from .core.timers import Timer, Timers
from .core.trace import watch
from .net.listener import peer_name
from .net.loop import Loop
from .net.proxy import Introduction, Source, Trusted
from .net.tls import Handshakes, Tls, TlsLayer
from .net.transport import Transport
from .wire import strangers
from .wire.codes import VERSION_NAMES
from .wire.encoder import packet_size

if TYPE_CHECKING:
    from .net.ws import WebSocket

#: What clients may call MQTT over WebSocket: the name that counts [MQTT-6.0.0-4], and that of clients older than 3.1.1.
SUBPROTOCOLS = ("mqtt", "mqttv3.1")
#: Frames of a WebSocket may be as large as the largest packet, but several small ones must fit into one.
LEAST_MAX_FRAME = 65_536


class Grounds(Protocol):
    """What all listeners share."""

    config: Config
    log: Log
    loop: Loop
    timers: Timers
    exchange: Exchange
    handshakes: Handshakes
    pace: Pace


class Hall(Protocol):
    """The listener."""

    config: ListenerConfig
    gatekeeper: Gatekeeper
    places: Places
    connections: dict[Transport, Connection]
    tls: Tls | None
    forwarders: Trusted
    websocket: type[WebSocket] | None

    @property
    def server(self) -> Grounds: ...
    def missing(self, layer: object, direct: bool) -> str:
        """What the listener asks for and a connection does not have; "" if nothing."""

    def welcome(self, transport: Transport, connection: Connection) -> None:
        """It is a client's."""

    def turn_away(self, host: str, why: str) -> None:
        """It is closed, and nobody has heard it."""

    def failed(self, event: str, host: str, why: str) -> None:
        """It is closed, as it did not do what it had to."""

    def tell_once(self, event: str, host: str, why: str) -> None: ...
    def later(self, seconds: float, function: Callable[[], None]) -> None: ...


class Arrival:
    """One connection. `begin` starts it. Nothing that outlives it may lead back to it in a ring: what a handshake takes
    is much, and must be free with its end."""

    __slots__ = ("_end", "_hall", "_host", "_place", "_since", "_timer", "_transport")

    def __init__(self, hall: Hall, transport: Transport, host: str) -> None:
        """`host`: whom limits and the log take for one."""
        self._hall = hall
        self._transport = transport
        self._host = host
        self._since = hall.server.timers.now
        self._timer: Timer | None = None
        self._end: Callable[[str], None] | None = None  # how the layer is closed that is at work, with a reason
        self._place: Place = hall.places.arrive(origin_of(host), self._give_up, self._since)

    def begin(self) -> None:
        if self._hall.config.proxy_protocol:
            self._introduce()
        elif self._hall.websocket is not None and self._host in self._hall.forwarders:
            self._enter()  # a proxy's: how often its clients come is counted once they are known
        else:
            self._at_its_turn(self._enter)

    def left(self) -> None:
        """Its transport is closed."""
        self._end = None
        self._stop_timer()
        self._place.leave()

    # --- time ---

    def _within_time(self, expired: Callable[[], None]) -> None:
        self._timer = self._hall.server.timers.at(
            self._since + self._hall.config.connect_timeout, lambda now: expired()
        )

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _at_its_turn(self, go_on: Callable[[], None]) -> None:
        """Go on at once, or later if too many have come from there: nothing is read meanwhile."""
        server = self._hall.server
        now, rate = server.timers.now, server.config.max_connect_rate
        wait = server.pace.delay(self._place.origin, now, rate) if rate else 0.0
        if wait is None:
            self._hall.turn_away(self._host, "too many attempts from this address")
            self._give_up("too many attempts from this address")
        elif not wait:
            go_on()
        else:
            self._transport.pause_reading()
            connection = self._hall.connections.get(self._transport)
            if connection is not None:
                connection.progress(now + wait)
            self._timer = server.timers.after(wait, partial(self._have_turn, go_on))

    def _have_turn(self, go_on: Callable[[], None], now: float) -> None:
        self._timer = None
        self._since = now
        self._transport.resume_reading()
        go_on()

    def _give_up(self, why: str) -> None:
        connection = self._hall.connections.get(self._transport)
        if self._end is not None:
            self._end(why)
        elif connection is not None:
            connection.close(why, gently=False)
        else:
            self._transport.close(gently=False)

    # --- the layers ---

    def _introduce(self) -> None:
        """It is a proxy's: wait for the header that says whose it is."""

        def introduced(source: Source | None) -> None:
            self._stop_timer()
            self._end = None
            introduction = self._transport.client
            assert isinstance(introduction, Introduction)
            if source is not None:
                self._transport.peer = peer_name(*source)
                self._comes_from(source.host)
            self._at_its_turn(partial(self._introduced, introduction))

        def failed(why: str | None) -> None:
            if why is not None:
                self._hall.failed("PROXY header refused", self._host, why)

        introduction = Introduction(self._transport, introduced, failed)
        self._end = introduction.abort
        self._within_time(introduction.expire)

    def _introduced(self, introduction: Introduction) -> None:
        self._enter()
        introduction.hand_over(self._hall.server.timers.now)

    def _comes_from(self, host: str) -> None:
        self._host = host
        self._place.move(origin_of(host))

    def _enter(self) -> None:
        hall = self._hall
        if hall.tls is None:
            self._welcome(self._transport)
            return
        direct = not hall.config.proxy_protocol

        def established(layer: TlsLayer) -> None:
            self._stop_timer()
            self._end = None
            missing = hall.missing(layer, direct)
            if missing:
                layer.close()
                hall.turn_away(self._host, missing)
            else:
                self._welcome(layer)

        def failed(layer: TlsLayer, why: str | None) -> None:
            if why is not None:
                hall.failed("TLS handshake failed", self._host, why)

        server = hall.server
        layer = TlsLayer(
            server.loop, self._transport, hall.tls, server.handshakes, established, failed,
            lambda data: strangers.explain(data, "TLS"),
        )  # fmt: skip
        self._end = layer.abort
        self._within_time(lambda: layer.abort("it was not complete within connect_timeout"))

    def _welcome(self, below: Transport | TlsLayer) -> None:
        """Make it a client, which sees the bytes that `below`, and WebSocket, have made of those of the transport."""
        hall = self._hall
        config = hall.config
        top = below if hall.websocket is None else self._over_websocket(hall.websocket, below)
        connection = Connection(
            hall.server.exchange,
            hall.gatekeeper,
            top,
            self._since,
            config.connect_timeout,
            config.max_packet_size,
            self._place,
            admission.FIRST,
            frozenset(level for level, name in VERSION_NAMES.items() if name in config.protocols),
        )
        if hall.server.log.debugging:
            watch(connection, hall.server.log)
        top.client = connection
        hall.welcome(self._transport, connection)

    def _over_websocket(self, layer: type[WebSocket], below: Transport | TlsLayer) -> WebSocket:
        from .net import ws

        hall = self._hall
        config = hall.config
        rules = ws.Rules(
            SUBPROTOCOLS,
            config.websocket_path,
            config.websocket_origins,
            isinstance(below, TlsLayer),
            max(config.max_packet_size, LEAST_MAX_FRAME),
            packet_size,
            hall.forwarders if self._host in hall.forwarders else None,
            lambda data: strangers.explain(data, "HTTP"),
        )

        def forwarded(host: str, go_on: Callable[[], None]) -> None:
            self._comes_from(host)
            self._at_its_turn(go_on)

        def refused(why: str) -> None:
            hall.tell_once("WebSocket refused", self._host, why)

        return layer(below, rules, hall.server.loop, hall.later, refused, forwarded)
