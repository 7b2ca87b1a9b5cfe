"""WebSocket: the layer between a client's transport and what speaks over it. For the transport it is the client, and
for the client it is the transport. Needs the extra `selectmq[websocket]`.

Owns: the HTTP request and its answer, ping, the closing handshake, and the limits of all that; the sans-IO core of
`websockets` knows the protocol, and `ws_frames` cuts what comes. Must not know: MQTT. What clients send in frames is to
it one stream of bytes.

    SHAKING_HANDS --101--> OPEN --we close--> CLOSING --the client's close, or a few seconds--> CLOSED
                  --4xx---------------------------------the client closes, breaks a rule, is lost--> CLOSED

(One whose address a proxy has told may be WAITING for its turn before the 101.)

Each unit that the client's side produces (an MQTT packet) goes out as a frame of its own, though it need not by the
specification: there are clients that read the first packet of a frame, and the rest when they hear more. Its header
goes in front of it, and nothing is copied.
"""

from __future__ import annotations

import logging
import struct
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import NamedTuple, Protocol

from websockets.frames import CloseCode
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from . import origins
from .forwarded import client_of
from .proxy import Trusted
from .transport import Below, Client
from .ws_frames import Frames

SHAKING_HANDS, WAITING, OPEN, CLOSING, CLOSED = range(5)

#: Bytes of an HTTP request: browsers send all cookies of the host.
MAX_REQUEST = 32_768
#: Bytes of a frame from a client that has not been answered yet: nobody knows it.
MAX_FIRST_FRAME = 524_288
#: Characters that are said of why it is refused.
MAX_REASON = 400
#: Frames after which others have their turn: a flood is served in slices. A frame takes some microseconds, and what is
#: in it takes more. In a turn that takes long already, the slices are smaller.
SLICE = 128
SMALL_SLICE = 16
#: Bytes in which there are few frames.
FEW = 256
#: Bytes that may wait here without being counted.
LITTLE = 4_096
#: Seconds that a client gets to answer our close.
LINGER = 3.0

#: The core would tell of every connection.
_SILENT = logging.Logger("websockets", logging.CRITICAL + 1)


class Scheduler(Protocol):
    def soon(self, function: Callable[[], None]) -> None:
        """Call `function` in the next turn."""

    def in_turn(self, function: Callable[[], None]) -> None:
        """Call `function` when all who have waited longer had their turn."""

    @property
    def late(self) -> bool:
        """Does this turn take long already?"""


class Top(Client, Protocol):
    """Who is at the other end of a WebSocket."""

    def kept_below(self, size: int) -> None:
        """So many bytes have come for it, and cannot be passed on yet: all, not more than the last time."""


class Rules(NamedTuple):
    """Who may come in."""

    subprotocols: tuple[str, ...]  #: the first of them that the client offers is taken
    path: str | None  #: None: any
    origins: tuple[str, ...]  #: of pages in browsers that may come in (see .origins); "*" is any
    secure: bool  #: is TLS below?
    max_frame: int
    unit_size: Callable[[bytes], int]  #: how long the unit is that these bytes begin, or are
    forwarders: Trusted | None  #: whose X-Forwarded-For is believed; None: this connection's is not
    #: What it is that begins with these bytes, and is no HTTP; "" if that is not known.
    stranger: Callable[[bytes], str] = lambda data: ""


class WebSocket:
    """A WebSocket on a transport. `out` is filled by the client's side; `flush` sends it."""

    __slots__ = (
        "_answered", "_backlog", "_core", "_forwarded", "_frames", "_held", "_kept", "_later", "_refused", "_rules",
        "_scheduler", "_state", "_transport", "client", "max_unsent", "out", "peer",
    )  # fmt: skip

    def __init__(
        self,
        transport: Below,
        rules: Rules,
        scheduler: Scheduler,
        later: Callable[[float, Callable[[], None]], None],
        refused: Callable[[str], None],
        forwarded: Callable[[str, Callable[[], None]], None],
    ) -> None:
        """`later(seconds, function)` calls back; `refused` hears why somebody does not get in; `forwarded` hears whose
        address a proxy tells, and calls what it gets as soon as that client may come in."""
        self._transport = transport
        self._rules = rules
        self._scheduler = scheduler
        self._later = later
        self._refused = refused
        self._forwarded = forwarded
        # Messages may come in any number of fragments, as they are passed on one by one; and without extensions there
        # is no compression, so nothing is larger than it came.
        limit = min(MAX_FIRST_FRAME, rules.max_frame)
        self._core = ServerProtocol(
            subprotocols=[Subprotocol(name) for name in rules.subprotocols], max_size=(None, limit), logger=_SILENT
        )
        self._frames = Frames(self._core, limit)
        self._state = SHAKING_HANDS
        self._backlog = b""  # the request as far as it has come; later, frames that must wait
        self._held = False  # does the client's side want nothing now?
        self._kept = 0  # bytes that the client's side knows to be held here
        self._answered = False  # has it sent anything?
        self.client: Top | None = None
        self.out: list[bytes] = []
        self.peer = transport.peer
        self.max_unsent = transport.max_unsent
        transport.client = self

    @property
    def identity(self) -> str | None:
        """Who the other end has proved to be: that is for those below to know."""
        return self._transport.identity

    # --- the transport calls ---

    def receive(self, data: bytes, now: float) -> None:
        if self._backlog:
            data = self._backlog + data
        if self._state == SHAKING_HANDS:
            self._backlog = data
            self._shake_hands()
            data = self._backlog
        if self._state in (OPEN, CLOSING):
            self._unpack(data, now)
        else:
            self._backlog = data
        if self._backlog or self._frames.left or self._kept:
            self._tell_kept()

    def _tell_kept(self) -> None:
        """Tell the client's side what waits here, if it is worth it: it counts as its own."""
        kept = len(self._backlog) + self._frames.held
        if kept < LITTLE:
            kept = 0
        elif self._state == CLOSING:
            self._end("")  # it goes on with a large frame, for which nobody waits
        elif self._state == CLOSED:
            self._forget()
        if kept != self._kept and self.client is not None:
            self._kept = kept
            self.client.kept_below(kept)

    def congest(self, waiting: int) -> None:
        if self.client is not None:
            self.client.congest(waiting)

    def relieve(self) -> None:
        if self.client is not None:
            self.client.relieve()

    def progress(self, now: float) -> None:
        # Who has no answer yet takes our pongs at the most: no sign that there will ever be more than pings.
        if self.client is not None and self._answered:
            self.client.progress(now)

    def lost(self, why: str) -> None:
        self._state = CLOSED
        self._tell_lost(why)
        self._forget()

    # --- the client's side calls ---

    def flush(self) -> None:
        """Send what is in `out`. Where a unit begins, a new buffer does, with all that tells its size."""
        out = self.out
        if out and self._state == OPEN:
            if not self._answered:
                self._answered = True
                self._core.max_fragment_size = self._frames.limit = self._rules.max_frame
            below = self._transport.out
            unit_size = self._rules.unit_size
            left = 0
            for data in out:
                if not data:
                    continue  # the payload of an empty message
                if not left:
                    left = unit_size(data)
                    below.append(header(left))
                below.append(data)
                left -= len(data)
            out.clear()
            self._transport.flush()

    def close(self, gently: bool = True) -> None:
        """Send what is in `out` and a close frame as far as the system takes it at once, and close."""
        transport = self._transport
        self.flush()
        if self._state == OPEN and self._core.eof_sent:
            # What is sent with our answer to the client's close is too much for the client's side.
            self.client = None
            self._held = False
            self._wind_up()
        elif self._state == OPEN and not transport.unsent and self._frames.held < LITTLE:
            self._core.send_close(CloseCode.NORMAL_CLOSURE)
            self._send()
            self._linger()
        elif self._state in (SHAKING_HANDS, WAITING, OPEN):
            self._state = CLOSED
            self.client = None
            transport.close(gently)
            self._forget()

    def pause_reading(self) -> None:
        self._held = True
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._held = False
        if self._backlog:
            self._scheduler.soon(self._go_on)
        else:
            self._transport.resume_reading()

    # --- the request ---

    def _shake_hands(self) -> None:
        core = self._core
        rules = self._rules
        stranger = rules.stranger(self._backlog)
        if stranger or not self._backlog[:1].isalpha():
            # No word of HTTP's: a client that says at once what should be in frames, or TLS.
            why = stranger or "what came is not HTTP: clients must use WebSocket (ws://) here"
            self._refuse(HTTPStatus.BAD_REQUEST, why)
            return
        end = self._backlog.find(b"\r\n\r\n")
        if (len(self._backlog) if end < 0 else end) > MAX_REQUEST:
            why = f"the HTTP request has more than {MAX_REQUEST} bytes"
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, why)
            return
        if end < 0:
            return
        try:
            core.receive_data(self._backlog[: end + 4])
            self._backlog = self._backlog[end + 4 :]
            events = core.events_received()
            if not events:
                self._refuse(HTTPStatus.BAD_REQUEST, _chain(core.handshake_exc))
                return
            request = events[0]
            assert isinstance(request, Request)
            path = request.path.partition("?")[0]
            if rules.path is not None and path != rules.path:
                self._refuse(HTTPStatus.NOT_FOUND, f"the path is {path[:100]!r}, not {rules.path!r} (websocket_path)")
                return
            response = core.accept(request)
        except ValueError as error:
            # It quotes in its answer what it cannot encode (websockets 16.0: bytes above 127).
            self._refuse(HTTPStatus.BAD_REQUEST, f"the HTTP request cannot be read: {error}")
            return
        if response.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
            why = _chain(core.handshake_exc)
            if response.status_code == HTTPStatus.UPGRADE_REQUIRED:  # a page is asked for
                why = f"this is HTTP without WebSocket: clients must use WebSocket (ws://) on this listener ({why})"
            self._refuse(response.status_code, why, response.serialize())
            return
        why = origins.refusal(request.headers, rules.origins, rules.secure)
        if why:
            self._refuse(HTTPStatus.FORBIDDEN, why)
            return
        host = None
        if rules.forwarders is not None:
            host = client_of(request.headers.get_all("X-Forwarded-For"), rules.forwarders)
        if host is None:
            self._open(response)
            return
        self._state = WAITING
        self.peer = f"[{host}]" if ":" in host else host  # the port is not told

        def go_on() -> None:
            if self._state == WAITING:
                self._open(response)
                self._scheduler.soon(self._go_on)  # what has come behind the request

        self._forwarded(host, go_on)

    def _open(self, response: Response) -> None:
        self._core.send_response(response)
        self._state = OPEN
        self._send()

    def _refuse(self, status: int, why: str, response: bytes = b"") -> None:
        # It may quote what was sent.
        why = "".join(each if each.isprintable() else repr(each)[1:-1] for each in why[:MAX_REASON])[:MAX_REASON]
        self._transport.out.append(response or self._core.reject(status, f"{why}\n").serialize())
        self._refused(why)
        self._end(f"WebSocket refused: {why}")

    # --- frames ---

    def _unpack(self, data: bytes, now: float) -> None:
        """Pass on what is in the frames that have come. Where they begin and end means nothing [MQTT-6.0.0-2]."""
        core = self._core
        frames = self._frames
        data, self._backlog = frames.behind_rest(data), b""
        position = count = 0
        size = len(data)
        slice = SMALL_SLICE if size > FEW and self._scheduler.late else SLICE
        while position < size and self._state != CLOSED:
            if self._held:
                self._backlog = data[position:]  # until `resume_reading`
                return
            if count >= slice:
                self._backlog = data[position:]
                self._transport.pause_reading()
                self._scheduler.in_turn(self._go_on)
                return
            payloads, position, taken = frames.take(data, position, slice - count)
            count += taken
            if payloads:
                payload = payloads[0] if len(payloads) == 1 else b"".join(payloads)
                if payload and self.client is not None:
                    self.client.receive(payload, now)
            elif core.eof_sent:
                self._wind_up()
            elif core.writes:
                self._send()
        if not count:
            self.progress(now)  # a part of a large frame: slow, but not silent

    def _go_on(self) -> None:
        """Unpack what others were given a turn before, or what had to wait."""
        if self._held or self._state == CLOSED:
            return
        try:
            if self._backlog:
                self._unpack(self._backlog, time.monotonic())
        except Exception:
            self._end("a bug in the broker")  # as in Transport.ready
            raise
        self._tell_kept()
        if not self._backlog and not self._held:
            self._transport.resume_reading()

    def _send(self) -> None:
        """Send what the core has produced."""
        produced = self._core.data_to_send()
        if self._state != CLOSING:  # pongs for one who may never read them, and nobody would hold back
            self._transport.out += filter(None, produced)
            self._transport.flush()

    # --- the end ---

    def _wind_up(self) -> None:
        """The core is through: it has the client's close, or the client has broken a rule."""
        core = self._core
        if self._state == CLOSED:
            return
        if self._state == OPEN:
            self.flush()
            self._send()
        if core.close_rcvd is not None:
            self._end(f"WebSocket closed by the client, code {core.close_rcvd.code}")
        elif self._state == OPEN:
            client = self.client
            self._linger()
            why = f"WebSocket error: {core.close_sent}"
            if not self._answered:
                self._refused(why)  # for the client's side it has not begun
            if client is not None:
                client.lost(why)

    def _linger(self) -> None:
        """Our close has gone. Closing the connection before the client has closed its side would reset it if more is on
        the way, and our last words would be lost. [RFC 6455, 7.1.1]"""
        self._state = CLOSING
        self.client = None
        self.out.clear()
        self._later(LINGER, self._give_up)
        self.resume_reading()

    def _give_up(self) -> None:
        if self._state == CLOSING:
            self._end("")

    def _end(self, why: str) -> None:
        self._state = CLOSED
        self._tell_lost(why)
        self._transport.close()
        self._forget()

    def _forget(self) -> None:
        self._backlog = b""
        self._frames.forget()

    def _tell_lost(self, why: str) -> None:
        client, self.client = self.client, None
        if client is not None:
            client.lost(why)


_SHORT = [bytes((0x82, size)) for size in range(126)]


def header(size: int) -> bytes:
    """What stands in front of a binary frame of so many bytes, whole and not masked."""
    if size < 126:
        return _SHORT[size]
    if size < 65_536:
        return struct.pack("!BBH", 0x82, 126, size)
    return struct.pack("!BBQ", 0x82, 127, size)


def _chain(error: BaseException | None) -> str:
    """What is wrong, with what is behind it."""
    said = []
    while error is not None:
        said.append(str(error))
        error = error.__cause__
    return "; ".join(said)[:300]
