"""One client's connection: which packet is allowed when, and what it leads to.

Owns: the states of a connection, keep alive, pausing, and the one place where a ProtocolError becomes an answer. Must
not know: sockets, threads, other clients.

    CONNECTING --CONNECT--> ADMITTING --accepted--> CONNECTED --DISCONNECT, error, takeover--> CLOSED
                                      --refused---> CLOSED

While ADMITTING (a worker checks the password, or the store commits), nothing is decoded: what the client sent behind
its CONNECT waits, in order. Until it has sent something, it is listened to, so that one that leaves is noticed at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

from ..wire import encoder, strangers
from ..wire.codes import (
    CONNECT,
    DISCONNECT,
    MQTT_3_1,
    MQTT_3_1_1,
    PACKET_NAMES,
    PINGREQ,
    PUBACK,
    PUBCOMP,
    PUBLISH,
    PUBREC,
    PUBREL,
    SUBSCRIBE,
    UNSUBSCRIBE,
    ProtocolError,
    ReturnCode,
)
from ..wire.decoder import Decoder
from ..wire.message import Message
from ..wire.packets import Connect, Packet, Will
from . import bridges
from .account import BRANCHES, COPIED
from .identifiers import Identifiers
from .ports import Gatekeeper, GiveUp, Place, Rights, Transport, Verdict
from .router import MANY_WILDCARDS, Route
from .session import Discard, Session
from .timers import Timer

if TYPE_CHECKING:
    from .exchange import Exchange

CONNECTING, ADMITTING, CONNECTED, CLOSED = range(4)

_T = TypeVar("_T")

#: The largest CONNECT that can be: its five fields, its fixed part, its header. No client gets more before it is known.
MAX_CONNECT = 5 * 65_537 + 12 + 5
#: Bytes of a packet that is not whole yet which count as a sign of life: a large one may take its time, but must go on.
PROGRESS = 1024
#: Acknowledgements that may wait for the store before the client's next packets do.
MAX_HELD = 10_000
#: Bytes of answers that a client may leave unread, above what it has not read anyway, before its next packets wait.
MAX_OWED = 65_536

#: Units of work that it takes to read a Topic Filter, and that a PUBLISH takes which does not go the quick way.
READING = 3
SLOWLY = 3

#: The versions of MQTT that are served.
SERVED = frozenset({MQTT_3_1, MQTT_3_1_1})

NOT_ACCEPTED = "connection closed before it was accepted"

# Why nothing is decoded, and but for _ADMISSION nothing read: bits.
_TURN, _ADMISSION, _UNSENT, _HELD, _STORE, _ENDING, _BEHIND, _FULL = 1, 2, 4, 8, 16, 32, 64, 128


class _Spent(Exception):
    """The client has used up its share of the turn: what is left of its packets waits for its next one."""


class _Finished(Exception):
    """The client said DISCONNECT: what follows in the same block of bytes is not looked at."""


class Connection:
    """The broker's side of one network connection. All of it runs on the loop's thread."""

    __slots__ = (
        "_below",
        "_decoder",
        "_dripped",
        "_exchange",
        "_gatekeeper",
        "_give_up",
        "_held",
        "_last_heard",
        "_left",
        "_max_packet_size",
        "_most_waiting",
        "_parked",
        "_patience",
        "_paused",
        "_timer",
        "_transport",
        "_watched",
        "_work",
        "congested",
        "out",
        "place",
        "rights",
        "session",
        "size",
        "state",
        "taken_at",
        "will",
    )

    def __init__(
        self,
        exchange: Exchange,
        gatekeeper: Gatekeeper,
        transport: Transport,
        now: float,
        connect_timeout: float,
        max_packet_size: int,
        place: Place,
    ) -> None:
        self._exchange = exchange
        self._gatekeeper = gatekeeper
        self._transport = transport
        self._decoder = Decoder(min(MAX_CONNECT, max_packet_size), holder=self, versions=SERVED)
        self._max_packet_size = max_packet_size
        self._give_up: GiveUp | None = None  # while others decide whether it may come in
        self._left: Iterator[Packet] | None = None  # packets that are decoded, and wait for its next turn
        self._work: Iterator[None] | None = None  # a packet that is worked on over several turns
        self._held = 0  # acknowledgements that wait for the store
        self._paused = 0
        self._parked = 0  # bytes that wait while nothing is decoded
        self._below = 0  # bytes that a layer below holds, as what they are in is not whole
        self._watched = False  # is there something to look after when the present bytes are through?
        self._most_waiting = 0  # bytes above which a congested client is not read from
        self._last_heard = now
        self._dripped = 0  # bytes since then, none of which completed a packet
        self._patience = connect_timeout  # seconds of silence that end the connection; 0: any
        self._timer: Timer | None = exchange.timers.at(now + connect_timeout, self._check_alive)
        self.out = transport.out
        self.state = CONNECTING
        self.session: Session | None = None
        self.taken_at = now  #: when it took something of what was unsent
        self.size = 0  #: bytes that it takes, as core.memory counts
        self.rights: Rights | None = None
        self.will: Will | None = None
        self.congested = False  #: is more unsent than the limit?
        self.place = place

    @property
    def peer(self) -> str:
        return self._transport.peer

    @property
    def client_id(self) -> str | None:
        return self.session.client_id if self.session is not None else None

    def current_rights(self) -> Rights | None:
        """What the client may do by the listener's present policy."""
        session = self.session
        assert session is not None
        return self._gatekeeper.rights(session.username, session.client_id)

    @property
    def listener(self) -> str:
        """Where it came in (see Gatekeeper)."""
        return self._gatekeeper.listener

    def proven_name(self, username: str | None) -> str | None:
        """The user name, if the listener has checked it."""
        return self._gatekeeper.proven_name(username)

    @property
    def origin(self) -> str:
        """The place that it comes from, for limits that hold for each place."""
        return self._gatekeeper.origin(self.peer)

    def put_around(self, layers: Callable[[Decoder, Transport], tuple[Decoder, Transport]]) -> None:
        """Let others stand in for the decoder and the transport, who see all that comes and goes (trace)."""
        self._decoder, self._transport = layers(self._decoder, self._transport)

    # --- bytes come in ---

    def receive(self, data: bytes, now: float) -> None:
        """Take what the client sent."""
        if self.state == CLOSED:
            return
        self._exchange.stats.bytes_received += len(data)
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
            self._pause(_BEHIND)
        if self._paused & ~_ADMISSION:
            self._watched = True
            self._park(self._decoder.block)  # a layer below may go on a little
        self._exchange.incoming.relieve()

    # --- what is held of packets that are not whole ---

    def hold(self, change: int) -> None:
        """The decoder holds so many bytes more, or less."""
        self._watched = True
        self._exchange.incoming.change(self, change)

    def kept_below(self, size: int) -> None:
        """A layer below holds so many bytes in all."""
        if self.state != CLOSED:
            self._watched = True
            self._exchange.incoming.change(self, size - self._below)
            self._below = size

    def _park(self, size: int) -> None:
        """So many bytes wait, as nothing is decoded."""
        if size != self._parked and self.state != CLOSED:
            self._exchange.incoming.change(self, size - self._parked)
            self._parked = size

    @property
    def wanted(self) -> int:
        """See core.incoming."""
        return self._decoder.announced + self._parked + self._below

    def _process(self) -> None:
        """Go on with what the client has sent, as far as its share of the turn reaches."""
        if self._paused or self.state == CLOSED:
            return
        exchange = self._exchange
        account = exchange.account
        exchange.begin()
        decoder = self._decoder
        stats = exchange.stats
        pending = self._left or iter(())
        try:
            if self._work is not None:
                self._go_on()
            for packet in pending:
                _CONNECTED[packet[0] >> 4](self, packet)
            while self.state != CLOSED and not self._paused:
                if exchange.over:
                    raise _Spent
                handlers = _HANDLERS[self.state]
                slice = account.slice if self.state == CONNECTED else 1
                packets = decoder.decode(slice)
                if packets:
                    stats.messages_received += len(packets)
                    account.spent += len(packets)
                    if self.state == CONNECTED:
                        self._last_heard = exchange.timers.now  # [MQTT-3.1.2-24]
                pending = iter(packets)
                for packet in pending:
                    handlers[packet[0] >> 4](self, packet)
                if len(packets) < slice and decoder.error is None:
                    break  # the next one is not whole yet
            self._left = None
        except _Spent:
            self._left = pending
            if self.state != CLOSED:
                self._pause(_TURN)
                exchange.scheduler.in_turn(self._next_turn)
        except _Finished:
            self.close("DISCONNECT", normal=True, gently=False)
        except ProtocolError as error:
            stats.protocol_errors += 1
            if self.state != CLOSED:
                self._violation(error)
            error.__traceback__ = None  # the decoder keeps the error, which would keep all that is on the stack
        except MemoryError:
            self._no_memory()
        except Exception as error:
            stats.bugs += 1
            exchange.complaints.bug("bug: it closes this client's connection", error, self.peer, client=self.client_id)
            self.close("a bug in the broker")
        if exchange.pressure.queue is not None:
            exchange.pressure.hold(self)

    def _no_memory(self) -> None:
        """It ends the client that caused it."""
        self._decoder.drop()  # what it holds may be what there is no room for
        self._left = self._work = None
        self.close("no memory is left for what this client sends")

    def _violation(self, error: ProtocolError) -> None:
        if error.code is not None and self.state == CONNECTING:
            self._refuse(error.code, error.why)
        else:
            stranger = strangers.explain(self._decoder.offending, "MQTT") if self.state == CONNECTING else ""
            self.close(stranger or f"protocol error: {error.why}")  # [MQTT-4.8.0-1] [MQTT-3.1.4-1]

    def _next_turn(self) -> None:
        self._resume(_TURN)

    def _work_on(self, work: Iterator[None]) -> None:
        """Do it, over as many turns as it takes: it yields where the client's share is used up."""
        self._work = work
        self._go_on()

    def _go_on(self) -> None:
        assert self._work is not None
        for _ in self._work:
            raise _Spent
        self._work = None

    # --- pausing ---

    def _pause(self, reason: int) -> None:
        if not self._paused & ~_ADMISSION:
            self._transport.pause_reading()
            self._park(self._decoder.block)
            self._watched = True
        self._paused |= reason

    def _resume(self, reason: int) -> None:
        ended = self._paused & reason
        if not ended:
            return
        self._paused &= ~reason
        if not self._paused and self.state != CLOSED:
            self._park(0)
            # The time in which nothing was read is not the client's silence.
            self._last_heard = max(self._last_heard, self._exchange.timers.now)
            if ended != _ADMISSION:
                self._transport.resume_reading()
            self._process()

    def hold_back(self) -> None:
        """See core.pressure: a queue fills up with what it publishes."""
        self._pause(_FULL)

    def let_go(self) -> None:
        self._exchange.scheduler.in_turn(self._go_on_publishing)

    def _go_on_publishing(self) -> None:
        self._resume(_FULL)

    @property
    def longest_hold(self) -> float:
        return self._patience / 3 or float("inf")  # half of its keep alive

    def quiesce(self) -> None:
        """The broker ends: take nothing more from a client that is connected."""
        if self.state == CONNECTED:
            self._pause(_ENDING)

    # --- connecting ---

    def _on_connect(self, packet: Packet) -> None:
        connect: Connect = packet[1]
        self._exchange.stats.other_received += 1
        if connect.will is not None:
            self._exchange.router.check(connect.will.topic)
        identity = self._transport.identity
        if identity is not None:
            connect = connect._replace(username=identity, password=None)  # what it says itself does not count
        self.state = ADMITTING
        room = self.place.heard()
        self._watched = True
        if self._exchange.closing:
            self._refuse(ReturnCode.SERVER_UNAVAILABLE, "shutting down", connect)
        elif not room:
            self._refuse(ReturnCode.SERVER_UNAVAILABLE, _NO_ROOM, connect)
        elif not connect.client_id and not connect.clean_session:
            # [MQTT-3.1.3-8]
            self._refuse(ReturnCode.IDENTIFIER_REJECTED, "empty Client Identifier with CleanSession = 0", connect)
        elif not connect.client_id and connect.version == MQTT_3_1:
            self._refuse(ReturnCode.IDENTIFIER_REJECTED, "empty Client Identifier in MQTT 3.1", connect)
        else:

            def decided(verdict: Verdict) -> None:
                self._admitted(connect, verdict)

            answer = self._gatekeeper.admit(connect, self.peer, decided, identity is not None)
            if isinstance(answer, Verdict):
                self._admitted(connect, answer)
            else:
                self._give_up = answer
        if self.state == ADMITTING:
            self._paused |= _ADMISSION

    def _admitted(self, connect: Connect, verdict: Verdict) -> None:
        if self.state != ADMITTING:
            return  # it left meanwhile
        self._give_up = None
        exchange = self._exchange
        if verdict.code != ReturnCode.ACCEPTED:
            self._refuse(verdict.code, verdict.why, connect)
            return
        if exchange.closing:
            self._refuse(ReturnCode.SERVER_UNAVAILABLE, "shutting down", connect)
            return
        owner = exchange.owner(connect.client_id)
        if owner is not None and not self._gatekeeper.may_take_over(owner, connect.username):
            why = f"the session with this Client Identifier belongs to the user {owner!r} (allow_user_change)"
            self._refuse(ReturnCode.NOT_AUTHORIZED, why, connect)
            return
        if exchange.journal.failed and not connect.clean_session:
            self._refuse(ReturnCode.SERVER_UNAVAILABLE, "the store does not work at the moment", connect)
            return
        full = exchange.no_room(self, connect) or ("" if self.place.take() else _NO_ROOM)
        if full:
            self._refuse(ReturnCode.SERVER_UNAVAILABLE, full, connect)
            return
        if not connect.client_id:
            connect = connect._replace(client_id=exchange.new_client_id())
        self._decoder.version = connect.version
        self._decoder.max_size = self._max_packet_size
        self.will = connect.will
        self._patience = connect.keep_alive * 1.5  # [MQTT-3.1.2-24]
        limit = self._gatekeeper.max_keepalive * 1.5
        if limit and not 0 < self._patience <= limit:
            self._patience = limit
        self.rights = self._gatekeeper.rights(connect.username, connect.client_id)
        exchange.open(self, connect, self.rights)
        unchecked = connect.username is not None and not self._gatekeeper.proves_names
        note = {"note": "user name not checked"} if unchecked else {}
        exchange.complaints.coming(
            "client connected",
            self.peer,
            client=self.client_id,
            address=self.peer,
            user=connect.username,
            **note,
            clean=connect.clean_session,
            keep_alive=connect.keep_alive,
            version=("3.1" if connect.version == MQTT_3_1 else "3.1.1") + (", bridge" if connect.bridge else ""),
        )

    def accept(self, session_present: bool) -> None:
        """What the CONNACK promises is true: send it. It is the first packet that the client gets [MQTT-3.2.0-1]."""
        session = self.session
        if self.state != ADMITTING or session is None:
            return  # it left meanwhile, or was taken over
        exchange = self._exchange
        self.state = CONNECTED
        # The reserved byte of MQTT 3.1 stays 0.
        present = session_present and self._decoder.version != MQTT_3_1
        self.out.append(encoder.connack(ReturnCode.ACCEPTED, present))  # [MQTT-3.1.4-4] [MQTT-3.2.2-2]
        exchange.stats.other_sent += 1
        exchange.dirty.add(self)
        self._last_heard = exchange.timers.now
        self._set_timer()
        exchange.attach(session)
        self._resume(_ADMISSION | _BEHIND)

    def _refuse(self, code: ReturnCode, why: str, connect: Connect | None = None) -> None:
        self.out.append(encoder.connack(code, False))
        self._exchange.stats.other_sent += 1
        self._exchange.stats.refused += 1
        client_id, username = (connect.client_id, connect.username) if connect is not None else (None, None)
        # Whose fault it is, if it is not everybody's at this address.
        at_fault = {ReturnCode.IDENTIFIER_REJECTED: client_id, ReturnCode.SERVER_UNAVAILABLE: None}.get(code, username)
        self._exchange.complaints.warning(
            "client refused", self.peer, why, at_fault,
            client=client_id, address=self.peer, user=username, code=int(code), reason=why,
        )  # fmt: skip
        self._end()  # [MQTT-3.2.2-5] [MQTT-3.1.4-5]

    # --- packets of a connected client ---

    def _on_publish(self, packet: Packet) -> None:
        first, topic, frame, payload_at, _ = packet
        exchange = self._exchange
        route = exchange.router.known(topic)
        if route is None:
            if exchange.router.wildcards > MANY_WILDCARDS:
                self._work_on(self._find_and_publish(packet))
            else:
                self._publish(packet)
            return
        rights = self.rights
        quick = route.plain and (rights is None or rights.may_surely_publish(topic))
        if first == 0x30 and quick:
            # QoS 0, not to be retained: the frame goes on as it came, once for all who get it.
            if route.size:
                exchange.sent += route.size
                if route.marked != exchange.turn:
                    exchange.mark(route)
                for target in route.sessions:
                    target.sink.append(frame)
            return
        if first == 0x30 and route.crowd and (rights is None or rights.may_surely_publish(topic)):
            exchange.sent += route.size
            exchange.mark(route)
            for target in route.sessions:
                target.sink.append(frame)
            exchange.account.spent += route.size * len(frame) // COPIED
            if exchange.over:
                raise _Spent
            return
        if first == 0x32 and quick and not route.granted0:
            # QoS 1 to subscribers of QoS 1 and more: the head goes on as it came.
            message = Message(topic, frame[payload_at:], 1, False, frame[: payload_at - 2])
            for target in route.sessions:
                target.queue.deliver(message, 1)  # type: ignore[union-attr]  # a grant above 0 comes with a queue
            exchange.queued += route.size
            acknowledgement = b"\x40\x02" + frame[payload_at - 2 : payload_at]  # [MQTT-3.3.4-1]
            if route.durable or self._held:
                self.acknowledge(acknowledgement, route.durable)
            else:
                self.out.append(acknowledgement)
                exchange.acknowledged += 1
                exchange.dirty.add(self)
            return
        self._publish(packet)

    def _find_and_publish(self, packet: Packet) -> Iterator[None]:
        """A PUBLISH of which it may take long to find out who gets it."""
        for _ in self._exchange.router.route_in_steps(packet[1]):
            if self._exchange.over:
                yield
        self._publish(packet)

    def _publish(self, packet: Packet) -> None:
        """A PUBLISH that does not go the quick way. Raises _Spent when it is done, if it was too much."""
        first, topic, frame, payload_at, packet_id = packet
        exchange = self._exchange
        exchange.account.spent += SLOWLY
        session = self.session
        assert session is not None
        route = exchange.router.known(topic) or exchange.router.route(topic)
        allowed = self._may_publish(topic, route)
        qos = (first >> 1) & 3
        durable = False
        if not allowed:
            # [MQTT-3.3.5-2] It is acknowledged as any other, and goes nowhere.
            exchange.denied("publish refused: not authorised", self.peer, session, topic)
        elif qos < 2:
            durable = exchange.publish(topic, frame[payload_at:], qos, bool(first & 1), session)
        else:
            received = session.received
            if received is None:
                received = session.received = Identifiers(exchange.unreleased)
            if packet_id in received:
                # [MQTT-4.3.3-2] Known already: answered again, after whatever it waits for, and not delivered again.
                durable = session.store_id != 0
            else:
                if not received.add(packet_id):
                    self.close("it holds too many Packet Identifiers of QoS 2 messages that it has not released")
                    raise _Spent
                durable = exchange.publish(topic, frame[payload_at:], qos, bool(first & 1), session)
                if session.store_id:
                    durable = True
                    exchange.journal.received(session)
        if qos:
            self.acknowledge(
                (b"\x40\x02" if qos == 1 else b"\x50\x02") + packet_id.to_bytes(2, "big"), durable
            )  # [MQTT-3.3.4-1]
        elif first & 1 and exchange.journal.full:
            self._wait_for_store()  # nobody waits for what is retained at QoS 0, but it is stored
        if exchange.over:
            raise _Spent

    def _may_publish(self, topic: bytes, route: Route) -> bool:
        """As bridges.may_publish. What it takes to find out is charged."""
        session = self.session
        assert session is not None
        rights = session.rights
        if rights is None:
            return bridges.may_publish(session, topic, route)
        before = rights.effort
        allowed = bridges.may_publish(session, topic, route)
        self._exchange.account.spent += (rights.effort - before) // BRANCHES
        return allowed

    def _wait_for_store(self) -> None:
        """So much has gathered that this client has to wait until it is being written."""
        self._pause(_STORE)
        self._exchange.journal.when_room(self._store_has_room)

    def _store_has_room(self) -> None:
        self._resume(_STORE)

    def _on_puback(self, packet: Packet) -> None:
        self._exchange.acknowledgements += 1
        queue = self.session.queue  # type: ignore[union-attr]  # a connected client has a session
        if queue is not None:
            queue.puback(packet[1])

    def _on_pubrec(self, packet: Packet) -> None:
        self._exchange.acknowledgements += 1
        queue = self.session.queue  # type: ignore[union-attr]
        if queue is not None:
            queue.pubrec(packet[1])
        else:
            self.acknowledge(encoder.pubrel(packet[1]), False)

    def _on_pubrel(self, packet: Packet) -> None:
        self._exchange.acknowledgements += 1
        session = self.session
        assert session is not None
        packet_id = packet[1]
        durable = False
        if session.received is not None and packet_id in session.received:
            session.received.remove(packet_id)
            if session.store_id:
                # Were it forgotten after the PUBCOMP, the next message with this identifier would be taken for this
                # one.
                self._exchange.journal.received(session)
                durable = True
        self.acknowledge(encoder.pubcomp(packet_id), durable)

    def _on_pubcomp(self, packet: Packet) -> None:
        self._exchange.acknowledgements += 1
        queue = self.session.queue  # type: ignore[union-attr]
        if queue is not None:
            queue.pubcomp(packet[1])

    def _on_subscribe(self, packet: Packet) -> None:
        self._exchange.stats.other_received += 1
        self._work_on(self._exchange.subscribe(self, packet[1], self._read(packet[2])))

    def _on_unsubscribe(self, packet: Packet) -> None:
        self._exchange.stats.other_received += 1
        self._work_on(self._exchange.unsubscribe(self, packet[1], self._read(packet[2])))

    def _read(self, filters: Iterable[_T]) -> Iterator[_T | None]:
        """The Topic Filters of a packet; None where the client's share of the turn is used up. A long list is read to
        its end before the first filter comes: where it is malformed, nothing of it is done."""
        if not isinstance(filters, list):
            account = self._exchange.account
            read = []
            for one in filters:
                read.append(one)
                account.spent += READING
                if self._exchange.over:
                    yield None
            filters = read
        yield from filters

    def _on_pingreq(self, packet: Packet) -> None:
        self._exchange.stats.other_received += 1
        self._exchange.stats.other_sent += 1
        self.out.append(encoder.PINGRESP)  # [MQTT-3.12.4-1]
        self._exchange.dirty.add(self)

    def _on_disconnect(self, packet: Packet) -> None:
        self._exchange.stats.other_received += 1
        raise _Finished

    def _not_yet(self, packet: Packet) -> None:
        raise ProtocolError(f"{PACKET_NAMES[packet[0] >> 4]} before CONNECT")  # [MQTT-3.1.0-1]

    def _not_again(self, packet: Packet) -> None:
        raise ProtocolError("a second CONNECT")  # [MQTT-3.1.0-2]

    # --- answers ---

    def acknowledge(self, acknowledgement: bytes, durable: bool) -> None:
        """Send this; if it is `durable`, once all that happened up to now is stored. The order is kept."""
        exchange = self._exchange
        if durable or self._held:
            self._held += 1
            exchange.journal.when_stored(self._release, acknowledgement)
            if self._held > MAX_HELD:
                self._pause(_HELD)
            if exchange.journal.full and not self._paused & _STORE:
                self._wait_for_store()
        else:
            self.out.append(acknowledgement)
            exchange.acknowledged += 1
            exchange.dirty.add(self)

    def _release(self, acknowledgement: bytes) -> None:
        self._held -= 1
        if self.state == CLOSED:
            return
        self.out.append(acknowledgement)
        self._exchange.acknowledged += 1
        self._exchange.dirty.add(self)
        if self._paused & _HELD and self._held < MAX_HELD // 2:
            self._resume(_HELD)

    def flush(self) -> None:
        """Send what has been produced."""
        self._transport.flush()

    # --- the transport tells ---

    def congest(self, waiting: int) -> None:
        """More waits than the limit: drop QoS 0, keep QoS 1 and 2 in the queue.

        What it sends is read all the same: it may well be one that reads nothing while it sends. But all that is still
        produced for it now are answers, so from some growth on it gets none before it has read.
        """
        if self.state == CLOSED:
            return
        if self.congested:
            if waiting > self._most_waiting:
                self._pause(_UNSENT)
            return
        self.congested = True
        self._most_waiting = waiting + MAX_OWED
        session = self.session
        if session is not None:
            session.sink = Discard()
            if session.queue is not None:
                session.queue.congest()
            self._exchange.complaints.warning(
                "client reads too slowly: QoS 0 messages for it are dropped until it has caught up",
                self.peer,
                session.client_id,
                client=session.client_id,
                address=self.peer,
                unsent=waiting,
            )

    def relieve(self) -> None:
        """The client has taken most of what waited."""
        if not self.congested or self.state == CLOSED:
            return
        self.congested = False
        session = self.session
        if session is not None:
            self._count_discarded(session)
            session.sink = self.out
            if session.queue is not None:
                session.queue.relieve()
            if session.feeding:
                self._exchange.feed_soon(session)
        self._resume(_UNSENT)

    def _count_discarded(self, session: Session) -> None:
        if isinstance(session.sink, Discard):
            # They were counted as sent when they were handed over.
            self._exchange.stats.dropped += session.sink.count
            self._exchange.stats.publish_sent -= session.sink.count

    def progress(self, now: float) -> None:
        """The client took some of what was unsent: while it has not enough of that, it is its sign of life."""
        self._last_heard = self.taken_at = now

    def lost(self, why: str) -> None:
        """The network connection has ended."""
        if self.state == CONNECTING and not self._decoder.buffered:
            self._left_without_a_word(why)
        else:
            self.close(why, gently=False)

    # --- the end ---

    def close(self, why: str, normal: bool = False, gently: bool = True) -> None:
        """End the connection. Unless it is `normal`, the will is published. `gently`: see Transport.close."""
        if self.state == CLOSED:
            return
        before = self.state
        session = self.session
        complaints = self._exchange.complaints
        if before == CONNECTED or session is not None:
            complaints.coming("client disconnected", self.peer, client=self.client_id, address=self.peer, reason=why)
        else:
            self._exchange.stats.refused += 1
            complaints.info(NOT_ACCEPTED, self.peer, why, address=self.peer, reason=why)
        if session is not None and self.congested:
            self._count_discarded(session)
        self.state = CLOSED
        try:
            self._exchange.close(self, normal)
        finally:
            self._end(gently)

    def _left_without_a_word(self, why: str) -> None:
        """A load balancer looks like this, every other second, whether somebody listens."""
        self._exchange.log.debug(NOT_ACCEPTED, address=self.peer, reason=f"nothing was sent; {why}")
        self._end(gently=False)

    def _end(self, gently: bool = True) -> None:
        self.state = CLOSED
        self._exchange.pressure.forget(self)
        self._decoder.drop()
        if self._parked or self._below:
            self._exchange.incoming.change(self, -self._parked - self._below)
            self._parked = self._below = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._give_up is not None:
            self._give_up()
            self._give_up = None
        self._transport.close(gently)

    def _set_timer(self) -> None:
        """From now on it is the keep alive that counts."""
        timer = self._timer
        due = self._last_heard + self._patience
        if timer is not None:
            if not self._patience or due >= timer.due:
                return  # that one will look again
            timer.cancel()
            self._timer = None
        if self._patience:
            self._timer = self._exchange.timers.at(due, self._check_alive)

    def _check_alive(self, now: float) -> float | None:
        if self.state == CLOSED or not self._patience:
            self._timer = None
            return None
        if self._paused & ~_UNSENT:
            return now + self._patience  # it is the broker that does not listen
        due = self._last_heard + self._patience
        if due > now:
            return due
        heard_until = self._exchange.scheduler.heard_until
        if due > heard_until:
            return now + due - heard_until  # what it has sent may be waiting: many send at the same time
        silent = f"{now - self._last_heard:.1f} s"
        if self.state != CONNECTED:
            self.close("no CONNECT within connect_timeout")
        elif self._paused:
            # Not read from, because it does not read: were it there, it would.
            self.close(f"keep alive: for {silent} it has taken nothing of what it is owed")
        else:
            self.close(f"keep alive: silent for {silent}")
        return None


_Handler = Callable[[Connection, Packet], None]


def _table(default: _Handler, handlers: dict[int, _Handler]) -> list[_Handler]:
    return [handlers.get(kind, default) for kind in range(16)]


# What each state does with each packet type. (The decoder lets through only what a client may send.)
_HANDLERS: dict[int, list[_Handler]] = {
    CONNECTING: _table(Connection._not_yet, {CONNECT: Connection._on_connect}),
    CONNECTED: _table(
        Connection._not_again,
        {
            PUBLISH: Connection._on_publish,
            PUBACK: Connection._on_puback,
            PUBREC: Connection._on_pubrec,
            PUBREL: Connection._on_pubrel,
            PUBCOMP: Connection._on_pubcomp,
            SUBSCRIBE: Connection._on_subscribe,
            UNSUBSCRIBE: Connection._on_unsubscribe,
            PINGREQ: Connection._on_pingreq,
            DISCONNECT: Connection._on_disconnect,
        },
    ),
}

_CONNECTED = _HANDLERS[CONNECTED]
_NO_ROOM = "as many clients as the listener takes are connected (max_connections)"
