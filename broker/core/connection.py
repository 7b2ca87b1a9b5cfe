"""One client's connection, as the rest of the broker sees it.

Owns: its answers and their order, what happens when it reads slowly, keep alive, and its end. Must not know: sockets,
threads, other clients, what its packets lead to (admission, handlers).

    CONNECTING --CONNECT--> ADMITTING --accepted--> CONNECTED --DISCONNECT, error, takeover--> CLOSED
                                      --refused---> CLOSED

While ADMITTING (a worker checks the password, or the store commits), nothing is decoded: what the client sent behind
its CONNECT waits, in order. Until it has sent something, it is listened to, so that one that leaves is noticed at once.
"""

from __future__ import annotations

from ..wire import encoder5, properties
from ..wire.codes import MQTT_5, VERSIONS, ReasonCode
from .aliases import Inward
from .exchange import Exchange
from .intake import ADMISSION, BEHIND, CLOSED, CONNECTED, CONNECTING, HELD, STORE, UNSENT, Dialect, Intake
from .looking_back import Authenticating, Outward
from .ports import Gatekeeper, GiveUp, Place, Rights, Transport
from .reasons import reason_string, with_reason_string
from .session import Discard, Session
from .timers import Timer
from .unanswered import ANY_NUMBER, Unanswered

#: The largest CONNECT that is taken: the five fields of MQTT 3.1.1, five more that are properties in MQTT 5.0, and
#: 64 KiB for everything else. No client gets more before it is known.
MAX_CONNECT = 10 * 65_537 + 65_536
#: Acknowledgements that may wait for the store before the client's next packets do.
MAX_HELD = 10_000
#: Bytes of answers that a client may leave unread, above what it has not read anyway, before its next packets wait.
MAX_OWED = 65_536

NOT_ACCEPTED = "connection closed before it was accepted"


class Connection(Intake):
    """The broker's side of one network connection. All of it runs on the loop's thread."""

    __slots__ = (
        "_max_packet_size", "_most_waiting", "_patience", "_timer", "alias_limit", "alias_maximum", "authentication",
        "congested",
        "gatekeeper", "give_up", "held", "inward", "largest", "out", "outward", "place", "problem_information",
        "receive_limit", "receive_maximum", "rights", "session", "size", "taken_at", "unanswered",
    )  # fmt: skip

    def __init__(
        self,
        exchange: Exchange,
        gatekeeper: Gatekeeper,
        transport: Transport,
        now: float,
        connect_timeout: float,
        max_packet_size: int,
        place: Place,
        first: Dialect,
        versions: frozenset[int] = VERSIONS,
    ) -> None:
        """`first`: what is done with a client that has not said who it is (admission). `versions`: of MQTT, that it
        may speak."""
        super().__init__(exchange, transport, now, min(MAX_CONNECT, max_packet_size), first, versions)
        self._max_packet_size = max_packet_size
        self._most_waiting = 0  # bytes above which a congested client is not read from
        self._patience = connect_timeout  # seconds of silence that end the connection; 0: any
        self._timer: Timer | None = exchange.timers.at(now + connect_timeout, self._check_alive)
        self.gatekeeper = gatekeeper
        self.give_up: GiveUp | None = None  #: while others decide whether it may come in, or stay
        self.authentication: Authenticating | None = None  #: by AUTH, if its CONNECT has asked for that
        self.out = transport.out
        self.session: Session | None = None
        self.taken_at = now  #: when it took something of what was unsent
        self.size = 0  #: bytes that it takes, as core.memory counts
        self.rights: Rights | None = None
        self.congested = False  #: is more unsent than the limit?
        self.held = 0  #: acknowledgements that wait for the store
        self.place = place
        # What a client of MQTT 5.0 has said that it takes.
        self.receive_maximum = ANY_NUMBER  #: messages of QoS 1 and 2 in flight
        self.largest = 0  #: bytes of a packet; 0: any
        self.alias_maximum = 0  #: Topic Aliases
        self.problem_information = True  #: Reason Strings
        # What it was told that the broker takes.
        self.receive_limit = ANY_NUMBER
        self.alias_limit = 0
        self.outward: Outward | None = None  #: how messages are laid out for it, if not as for all
        self.inward: Inward | None = None  #: the Topic Aliases that it has set
        self.unanswered: Unanswered | None = None  #: what it has in flight, if that is limited

    # --- who it is ---

    @property
    def identity(self) -> str | None:
        """See Transport."""
        return self._transport.identity

    @property
    def offending(self) -> bytes:
        """How the packet begins that is malformed."""
        return self._decoder.offending

    @property
    def version(self) -> int:
        """The protocol level that it speaks."""
        return self._decoder.version

    @property
    def max_packet_size(self) -> int:
        """Bytes of the largest packet that is taken from it."""
        return self._max_packet_size

    @property
    def client_id(self) -> str | None:
        return self.session.client_id if self.session is not None else None

    def current_rights(self) -> Rights | None:
        """What the client may do by the listener's present policy."""
        session = self.session
        assert session is not None
        return self.gatekeeper.rights(session.username, session.client_id)

    @property
    def listener(self) -> str:
        """Where it came in (see Gatekeeper)."""
        return self.gatekeeper.listener

    def proven_name(self, username: str | None) -> str | None:
        """The user name, if the listener has checked it."""
        return self.gatekeeper.proven_name(username)

    @property
    def origin(self) -> str:
        """The place that it comes from, for limits that hold for each place."""
        return self.gatekeeper.origin(self.peer)

    def speak(self, version: int) -> None:
        """From its next packet on, it speaks this version."""
        self._decoder.version = version

    def listen(self, dialect: Dialect) -> None:
        """From its next packet on, this is done with what it sends."""
        self.handlers, self._violated = dialect

    def hear(self) -> None:
        """It is its turn: go on with what it sends, if that had to wait for others to decide."""
        self.resume(ADMISSION | BEHIND)

    def admit(self, version: int, patience: float) -> None:
        """It may come in, speaks this version, and may be silent for so many seconds (0: for any time)."""
        self.speak(version)
        self._decoder.max_size = self._max_packet_size
        self._patience = patience

    def begin(self, dialect: Dialect) -> None:
        """It is a client from now on."""
        self.state = CONNECTED
        self.listen(dialect)
        self._last_heard = self.exchange.timers.now
        self._set_timer()

    # --- answers ---

    def acknowledge(self, acknowledgement: bytes, durable: bool) -> None:
        """Send this; if it is `durable`, once all that happened up to now is stored. The order is kept."""
        if durable or self.held:
            journal = self.exchange.journal
            self.held += 1
            journal.when_stored(self._release, acknowledgement)
            if self.held > MAX_HELD:
                self.pause(HELD)
            if journal.full and not self._paused & STORE:
                self.wait_for_store()
        else:
            turn = self.turn
            self.out.append(acknowledgement)
            turn.acknowledged += 1
            turn.dirty.add(self)

    def _release(self, acknowledgement: bytes) -> None:
        self.held -= 1
        if self.state == CLOSED:
            return
        turn = self.turn
        self.out.append(acknowledgement)
        turn.acknowledged += 1
        turn.dirty.add(self)
        if self._paused & HELD and self.held < MAX_HELD // 2:
            self.resume(HELD)

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
                self.pause(UNSENT)
            return
        self.congested = True
        self._most_waiting = waiting + MAX_OWED
        session = self.session
        if session is not None:
            session.sink = Discard()
            if session.queue is not None:
                session.queue.congest()
            self.exchange.complaints.warning(
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
                self.exchange.feeding.soon(session)
        self.resume(UNSENT)

    def _count_discarded(self, session: Session) -> None:
        if isinstance(session.sink, Discard):
            # They were counted as sent when they were handed over.
            self.exchange.stats.dropped += session.sink.count
            self.exchange.stats.publish_sent -= session.sink.count

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

    def close(self, why: str, normal: bool = False, gently: bool = True, reason: ReasonCode | None = None) -> None:
        """End the connection. Unless it is `normal`, the will is published. `gently`: see Transport.close. A client of
        MQTT 5.0 is told the `reason`, if there is one."""
        if self.state == CLOSED:
            return
        if reason is not None and self.state == CONNECTED and self.version == MQTT_5:
            self._say_why(reason, why)  # [MQTT5-4.13.2-1] [MQTT5-3.14.0-1]
        before = self.state
        session = self.session
        complaints = self.exchange.complaints
        if before == CONNECTED or session is not None:
            complaints.coming("client disconnected", self.peer, client=self.client_id, address=self.peer, reason=why)
        else:
            self.exchange.stats.refused += 1
            complaints.info(NOT_ACCEPTED, self.peer, why, address=self.peer, reason=why)
        if session is not None and self.congested:
            self._count_discarded(session)
        self.state = CLOSED
        self.session = None
        try:
            if session is not None:
                self.exchange.sessions.leave(session, self, normal)
        finally:
            self.end(gently)

    def _say_why(self, reason: ReasonCode, why: str) -> None:
        """DISCONNECT, with words if the client wants them and takes so large a packet."""
        section = b""
        if reason in (ReasonCode.USE_ANOTHER_SERVER, ReasonCode.SERVER_MOVED):
            section = properties.encode({properties.SERVER_REFERENCE: self.exchange.limits.server_reference})
        text = reason_string(reason, why) if self.problem_information else ""
        packet = with_reason_string(lambda more: encoder5.disconnect(reason, more), section, text, self.largest)
        if not self.largest or len(packet) <= self.largest:  # [MQTT5-3.14.2-3] [MQTT5-3.1.2-24]
            self.out.append(packet)
            self.exchange.stats.other_sent += 1

    def _left_without_a_word(self, why: str) -> None:
        """A load balancer looks like this, every other second, whether somebody listens."""
        self.exchange.log.debug(NOT_ACCEPTED, address=self.peer, reason=f"nothing was sent; {why}")
        self.end(gently=False)

    def end(self, gently: bool = True) -> None:
        """Let go of all that it holds. It has no session (any more)."""
        self._drop()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.give_up is not None:
            self.give_up()
            self.give_up = None
        self._transport.close(gently)

    # --- keep alive ---

    @property
    def longest_hold(self) -> float:
        return self._patience / 3 or float("inf")  # half of its keep alive

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
            self._timer = self.exchange.timers.at(due, self._check_alive)

    def _check_alive(self, now: float) -> float | None:
        if self.state == CLOSED or not self._patience:
            self._timer = None
            return None
        if self._paused & ~UNSENT:
            return now + self._patience  # it is the broker that does not listen
        due = self._last_heard + self._patience
        if due > now:
            return due
        heard_until = self.exchange.scheduler.heard_until
        if due > heard_until:
            return now + due - heard_until  # what it has sent may be waiting: many send at the same time
        silent = f"{now - self._last_heard:.1f} s"
        if self.state != CONNECTED:
            missing = "CONNECT" if self.state == CONNECTING else "answer to the AUTH"
            self.close(f"no {missing} within connect_timeout")
        elif self._paused:
            # Not read from, because it does not read: were it there, it would.
            why = f"keep alive: for {silent} it has taken nothing of what it is owed"
            self.close(why, reason=ReasonCode.KEEP_ALIVE_TIMEOUT)
        else:
            self.close(f"keep alive: silent for {silent}", reason=ReasonCode.KEEP_ALIVE_TIMEOUT)
        return None
