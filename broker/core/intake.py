"""What a client sends, from bytes to the handlers of its packets: when it is looked at, and when it has to wait.

Owns: the client's share of the turn, pausing, and the one place where an error that a packet causes is caught. Must not
know: what packets mean, how a connection begins and ends.

    bytes --decoder--> packets --handlers[type]--> what it leads to

A packet may be worked on over several turns; those behind it wait. While it is paused, nothing is decoded, and but
during admission nothing is read.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

from ..wire.codes import ProtocolError, ReasonCode
from ..wire.decoder import Decoder
from ..wire.packets import Packet
from .exchange import Exchange
from .ports import Transport

CONNECTING, ADMITTING, CONNECTED, CLOSED = range(4)

#: Bytes of a packet that is not whole yet which count as a sign of life: a large one may take its time, but must go on.
PROGRESS = 1024

# Why it is paused: bits.
TURN, ADMISSION, UNSENT, HELD, STORE, ENDING, BEHIND, FULL = 1, 2, 4, 8, 16, 32, 64, 128


class Spent(Exception):
    """The client has used up its share of the turn: what is left of its packets waits for its next one."""


class Finished(Exception):
    """The client said DISCONNECT: what follows in the same block of bytes is not looked at."""

    def __init__(self, why: str = "DISCONNECT", normal: bool = True) -> None:
        """`normal`: its will is not wanted any more."""
        super().__init__(why)
        self.why = why
        self.normal = normal


#: Gets the Connection and the packet.
Handler: TypeAlias = Callable[[Any, Packet], None]


class Dialect(NamedTuple):
    """What the broker does with what a client says, at a stage of the connection and in a version of MQTT."""

    handlers: Sequence[Handler]  #: by packet type. (The decoder lets through only what a client may send.)
    violated: Callable[[Any, ProtocolError], None]  #: the client has broken the protocol: end its connection

    @classmethod
    def of(
        cls, handlers: dict[int, Handler], default: Handler, violated: Callable[[Any, ProtocolError], None]
    ) -> Dialect:
        return cls([handlers.get(kind, default) for kind in range(16)], violated)


class Intake(ABC):
    """The lower part of a Connection."""

    __slots__ = (
        "_below", "_decoder", "_dripped", "_last_heard", "_left", "_parked", "_paused", "_transport", "_violated",
        "_watched", "_work", "exchange", "handlers", "known", "state", "turn",
    )  # fmt: skip

    def __init__(
        self,
        exchange: Exchange,
        transport: Transport,
        now: float,
        max_size: int,
        first: Dialect,
        versions: frozenset[int],
    ) -> None:
        self.exchange = exchange
        self.turn = exchange.turn
        self.known = exchange.router.known
        self.state = CONNECTING
        self._transport = transport
        self._decoder = Decoder(max_size, holder=self, versions=versions)
        self.handlers, self._violated = first
        self._left: Iterator[Packet] | None = None  # packets that are decoded, and wait for its next turn
        self._work: Iterator[None] | None = None  # a packet that is worked on over several turns
        self._paused = 0
        self._parked = 0  # bytes that wait while nothing is decoded
        self._below = 0  # bytes that a layer below holds, as what they are in is not whole
        self._watched = False  # is there something to look after when the present bytes are through?
        self._last_heard = now
        self._dripped = 0  # bytes since then, none of which completed a packet

    @abstractmethod
    def close(self, why: str, normal: bool = False, gently: bool = True, reason: ReasonCode | None = None) -> None:
        """End the connection."""

    @property
    def peer(self) -> str:
        return self._transport.peer

    @property
    @abstractmethod
    def origin(self) -> str: ...
    @property
    @abstractmethod
    def longest_hold(self) -> float: ...
    @property
    @abstractmethod
    def client_id(self) -> str | None: ...

    def put_around(self, layers: Callable[[Decoder, Transport], tuple[Decoder, Transport]]) -> None:
        """Let others stand in for the decoder and the transport, who see all that comes and goes (trace)."""
        self._decoder, self._transport = layers(self._decoder, self._transport)

    # --- bytes come in ---

    def receive(self, data: bytes, now: float) -> None:
        """Take what the client sent."""
        if self.state == CLOSED:
            return
        self.exchange.stats.bytes_received += len(data)
        try:
            self._decoder.feed(data)
        except MemoryError:
            self._no_memory()
            return
        self._process()
        if self._last_heard != now and self.state == CONNECTED:
            self._dripped += len(data)
            if self._dripped >= PROGRESS:
                self._dripped = 0
                self._last_heard = now
        if self._watched:
            self._look_after()

    def _look_after(self) -> None:
        self._watched = self.state == ADMITTING
        if self.state == ADMITTING and self._decoder.buffered:
            # What came behind CONNECT has its turn even if the client leaves then: that is noticed afterwards.
            self.pause(BEHIND)
        if self._paused & ~ADMISSION:
            self._watched = True
            self._park(self._decoder.block)  # a layer below may go on a little
        self.exchange.incoming.relieve()

    # --- what is held of packets that are not whole ---

    def hold(self, change: int) -> None:
        """The decoder holds so many bytes more, or less."""
        self._watched = True
        self.exchange.incoming.change(self, change)

    def kept_below(self, size: int) -> None:
        """A layer below holds so many bytes in all."""
        if self.state != CLOSED:
            self._watched = True
            self.exchange.incoming.change(self, size - self._below)
            self._below = size

    def _park(self, size: int) -> None:
        """So many bytes wait, as nothing is decoded."""
        if size != self._parked and self.state != CLOSED:
            self.exchange.incoming.change(self, size - self._parked)
            self._parked = size

    @property
    def wanted(self) -> int:
        """See core.incoming."""
        return self._decoder.announced + self._parked + self._below

    def _drop(self) -> None:
        """Nobody wants any more what has come."""
        self.state = CLOSED
        self.exchange.pressure.forget(self)
        self._decoder.drop()
        if self._parked or self._below:
            self.exchange.incoming.change(self, -self._parked - self._below)
            self._parked = self._below = 0

    # --- packets ---

    def _process(self) -> None:
        """Go on with what the client has sent, as far as its share of the turn reaches."""
        if self._paused or self.state == CLOSED:
            return
        exchange = self.exchange
        turn = self.turn
        account = turn.account
        turn.begin()
        decoder = self._decoder
        stats = exchange.stats
        pending = self._left or iter(())
        try:
            if self._work is not None:
                self._go_on()
            handlers = self.handlers
            for packet in pending:
                handlers[packet[0] >> 4](self, packet)
            while self.state != CLOSED and not self._paused:
                if turn.over:
                    raise Spent
                handlers = self.handlers
                slice = account.slice if self.state == CONNECTED else 1
                packets = decoder.decode(slice)
                if packets:
                    stats.messages_received += len(packets)
                    account.spent += len(packets) + decoder.effort
                    if self.state == CONNECTED:
                        self._last_heard = exchange.timers.now  # [MQTT-3.1.2-24]
                pending = iter(packets)
                for packet in pending:
                    handlers[packet[0] >> 4](self, packet)
                if len(packets) < slice and decoder.error is None and not decoder.effort:
                    break  # the next one is not whole yet
            self._left = None
        except Spent:
            self._left = pending
            if self.state != CLOSED:
                self.pause(TURN)
                exchange.scheduler.in_turn(self._next_turn)
        except Finished as finished:
            self.close(finished.why, normal=finished.normal, gently=False)
        except ProtocolError as error:
            stats.protocol_errors += 1
            if self.state != CLOSED:
                self._violated(self, error)
            error.__traceback__ = None  # the decoder keeps the error, which would keep all that is on the stack
        except MemoryError:
            self._no_memory()
        except Exception as error:
            stats.bugs += 1
            exchange.complaints.bug("bug: it closes this client's connection", error, self.peer, client=self.client_id)
            self.close("a bug in the broker", reason=ReasonCode.IMPLEMENTATION_SPECIFIC_ERROR)
        if exchange.pressure.queue is not None:
            exchange.pressure.hold(self)

    def _no_memory(self) -> None:
        """It ends the client that caused it."""
        self._decoder.drop()  # what it holds may be what there is no room for
        self._left = self._work = None
        self.close("no memory is left for what this client sends", reason=ReasonCode.QUOTA_EXCEEDED)

    def _next_turn(self) -> None:
        self.resume(TURN)

    def work_on(self, work: Iterator[None]) -> None:
        """Do it, over as many turns as it takes: it yields where the client's share is used up."""
        self._work = work
        self._go_on()

    def _go_on(self) -> None:
        assert self._work is not None
        for _ in self._work:
            raise Spent
        self._work = None

    # --- pausing ---

    def pause(self, reason: int) -> None:
        if not self._paused & ~ADMISSION:
            self._transport.pause_reading()
            self._park(self._decoder.block)
            self._watched = True
        self._paused |= reason

    def resume(self, reason: int) -> None:
        ended = self._paused & reason
        if not ended:
            return
        self._paused &= ~reason
        if not self._paused and self.state != CLOSED:
            self._park(0)
            # The time in which nothing was read is not the client's silence.
            self._last_heard = max(self._last_heard, self.exchange.timers.now)
            if ended != ADMISSION:
                self._transport.resume_reading()
            self._process()

    def await_admission(self) -> None:
        """Decode nothing until `resume(ADMISSION)`, but go on reading: so it is noticed when the client leaves."""
        self._paused |= ADMISSION
        self._watched = True

    def hold_back(self) -> None:
        """See core.pressure: a queue fills up with what it publishes."""
        self.pause(FULL)

    def let_go(self) -> None:
        self.exchange.scheduler.in_turn(self._go_on_publishing)

    def _go_on_publishing(self) -> None:
        self.resume(FULL)

    def wait_for_store(self) -> None:
        """So much has gathered that this client has to wait until it is being written."""
        self.pause(STORE)
        self.exchange.journal.when_room(self._store_has_room)

    def _store_has_room(self) -> None:
        self.resume(STORE)

    def quiesce(self) -> None:
        """The broker ends: take nothing more from a client that is connected."""
        if self.state == CONNECTED:
            self.pause(ENDING)
