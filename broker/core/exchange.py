"""Where messages change hands: sessions, subscriptions, publishing, delivery.

Owns: all sessions, the router, the retained messages, and what an accepted packet does to them. Must not know: bytes
of packets, sockets, what kind of store there is.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from ..wire.codes import SUBSCRIBE_FAILURE, ProtocolError
from ..wire.encoder import suback, unsuback
from ..wire.message import Message
from ..wire.packets import Connect
from . import bridges, by_options
from .account import BRANCHES, COPIED, DELIVERIES, TURN, Account
from .authors import NOBODY, Author
from .clock import Clock
from .complaints import Complaints
from .endings import Endings
from .expiry import Expiry
from .identifiers import Identifiers, Unreleased
from .incoming import Incoming
from .journal import Journal
from .limits import Limits
from .memory import CONNECTION, SESSION, Memory
from .ports import GIVEN_CLIENT_ID, Delivery, Log, RetainedRecord, Rights, Scheduler, SessionRecord, Snapshot
from .pressure import Pressure
from .queue import Queue, StoredQueue
from .quotas import Quotas
from .retained import MESSAGE as RETAINED
from .retained import Retained
from .router import Route, Router, weight
from .session import Discard, Session
from .stats import Stats
from .subscription import NO_LOCAL, QOS, SHARED
from .timers import Timers

if TYPE_CHECKING:
    from .connection import Connection

#: Units of work that a Topic Filter is, and bytes of it that are a unit more.
SUBSCRIBING = 6
LETTERS = 32
#: Units of work that it takes to find out about the rights of a session.
JUDGING = 5
#: Units of work that it takes to retain a message, or to forget one.
RETAINING = 6
#: Units of work that it takes to hand over a retained message to one client.
FEEDING = 4
#: Retained messages that a client gets per turn for its new subscriptions.
FEED_SLICE = 256
#: Bytes of them after which the rest waits: until they are sent, nobody can tell whether the client reads.
FEED_SIZE = 1 << 18
_FEED_STEP = FEED_SIZE // FEED_SLICE
#: Bytes that the subscriptions of a session may take: so many for each that it may have, and room for a long one. As
#: they are counted, a deep one takes far more than its length; so a client cannot have thousands of those.
SUBSCRIPTION_SIZE = 4096
LONG_SUBSCRIPTION = 1 << 17


SUBSCRIPTION_DENIED = "subscription refused: not authorised"


def connect_size(connect: Connect) -> int:
    """Bytes of what is kept of a CONNECT, as long as the client is there."""
    will = connect.will
    size = len(connect.username or "")
    return size if will is None else size + len(will.topic) + len(will.payload)


class Exchange:
    """The heart of the broker. Everything runs on the loop's thread.

    Connections append to their out lists and stand in `dirty`; whoever drives the exchange sends what they hold, and
    then calls `end_of_turn`.
    """

    def __init__(
        self,
        journal: Journal,
        timers: Timers,
        limits: Limits,
        log: Log,
        scheduler: Scheduler,
        clock: Clock,
        unguessable: Callable[[], str],
    ) -> None:
        """`clock` dates what outlives the process; `unguessable` gives a short text, each time another one."""
        self.journal = journal
        self.timers = timers
        self.limits = limits
        self.log = log
        self.complaints = Complaints(log, timers)
        self.scheduler = scheduler
        self.quotas = Quotas(limits, log)
        self.memory = Memory(limits, log)
        self.pressure = Pressure(timers)
        self.incoming = Incoming(self.memory.incoming, scheduler.soon)
        self._weighed = -1  # what was stored when it was looked at last
        self.expiry = Expiry(clock, timers, limits, journal, scheduler, log, self._expire)
        #: May the author of this retained message still publish it?
        self.may_publish: Callable[[RetainedRecord], bool] = lambda record: True
        #: Is there still a listener on which a client can prove a user name?
        self.proves_names: Callable[[], bool] = lambda: True
        self.stats = Stats()
        self.sessions: dict[str, Session] = {}
        self.account = Account()
        self.endings = Endings(self)
        self.router = Router(limits, self.account)
        self.retained = Retained(self.account)
        self.unreleased = Unreleased()
        self.connected = 0
        self.dirty: set[Connection] = set()
        self.turn = 0
        self.sent = 0  #: publishes handed to out lists in this turn
        self.queued = 0  #: publishes handed to queues in this turn
        self.acknowledged = 0  #: acknowledgements sent in this turn
        self.acknowledgements = 0  #: acknowledgements received in this turn
        self.delivery: Delivery = Message(b"", b"", 0), 0  #: what was handed to a persistent session last
        self.thirsty: list[Queue] = []  #: queues that may send more, once this turn's packets are all seen
        self.closing = False  #: shutting down: no new clients
        self.away = Discard()  #: takes the QoS 0 messages of sessions without a connection
        self._store_ids = itertools.count(1)
        self._unguessable = unguessable
        # Client Identifiers of persistent sessions that have ended, and that the store has not forgotten yet: how many.
        self._leaving: dict[str, int] = {}
        self._wills: deque[tuple[Connection, Session]] = deque()  # of clients that have gone, to be published
        self._hungry: set[Session] = set()  # sessions whose retained messages go on when it is their turn
        self._fed: dict[Session, int] = {}  # bytes of them that sessions were given in this turn

    def restore(self, snapshot: Snapshot, rights: Callable[[Session], Rights | None]) -> None:
        """Begin with what the store holds. `rights` of a session that is away."""
        newest = 0
        dates = (stored.record.disconnected_at for stored in snapshot.sessions)
        self.expiry.start(snapshot.clock, [date for date in dates if date is not None])
        for stored in snapshot.sessions:
            record = stored.record
            newest = max(newest, record.id)
            session = Session(record.client_id, record.id, self.away)
            session.username = session.proven_name = record.username
            session.origin = record.origin
            self.quotas.enter(session)
            session.listener = record.listener
            session.rights = rights(session)
            # A session that was connected when the broker died has been away since the restart at the latest.
            date = record.disconnected_at
            session.disconnected_at = self.expiry.now() if date is None else date
            self.expiry.left(session)
            session.received = Identifiers(self.unreleased, stored.received) if stored.received else None
            self.sessions[record.client_id] = session
            self.memory.clients.size += SESSION + len(record.client_id)
            for topic_filter, options in stored.subscriptions.items():
                self._enter(session, topic_filter, options)
            if stored.next_seq:
                queue = session.queue or self._make_queue(session)
                assert isinstance(queue, StoredQueue)
                queue.restore(stored, record.sent_to)
            if record.sent_to is None or record.sent_to > stored.next_seq:
                # What is not in the store will be new: settled places are given again.
                away = record._replace(disconnected_at=session.disconnected_at, sent_to=stored.next_seq)
                self.journal.save_session(away)
        self._store_ids = itertools.count(newest + 1)
        for retained in snapshot.retained:
            self.retained.set(retained)

    # --- sessions ---

    def owner(self, client_id: str) -> str | None:
        """The user who has proved to be the one that the session of this identifier belongs to, if there is such a
        session. Others may not just end it, take it over, or get what waits in it."""
        session = self.sessions.get(client_id)
        return session.proven_name if session is not None and self.proves_names() else None

    def no_room(self, connection: Connection, connect: Connect) -> str:
        """Why the session that this CONNECT asks for cannot be made, "" if it can, or is there."""
        if self.memory.clients.full(CONNECTION + SESSION + len(connect.client_id) + connect_size(connect)):
            return "there is no memory for more clients (max_memory)"
        session = self.sessions.get(connect.client_id)
        if connect.clean_session or (session is not None and session.store_id):
            return ""
        return self.quotas.refusal(connection.proven_name(connect.username), connection.origin)

    def open(self, connection: Connection, connect: Connect, rights: Rights | None) -> None:
        """The client may connect: give it its session, and tell it so when what that promises is stored."""
        client_id = connect.client_id
        session = self.sessions.get(client_id)
        if session is not None and session.connection is not None:
            # [MQTT-3.1.4-2] The older connection ends, and not by its own will.
            session.connection.close(f"taken over by a new connection from {connection.peer}")
            session = self.sessions.get(client_id)
        if connect.clean_session and session is not None:
            self.discard(session)  # [MQTT-3.1.2-6]
            session = None
        present = session is not None
        proven_name = connection.proven_name(connect.username)
        # The CONNACK says that there is a session, or that there is none any more.
        durable = not connect.clean_session or client_id in self._leaving
        if session is None:
            store_id = 0 if connect.clean_session else next(self._store_ids)
            session = self.sessions[client_id] = Session(client_id, store_id, self.away)
            self.memory.clients.size += SESSION + len(client_id)
            session.proven_name = proven_name
            if store_id:
                session.origin = connection.origin
                self.quotas.enter(session)
        elif session.proven_name != proven_name:
            self.quotas.rename(session, proven_name)
        session.connection = connection
        session.disconnected_at = None
        if session.subscriptions and (session.rights is not None or rights is not None):
            self.router.forget_routes()
        session.username = connect.username
        session.rights = rights
        session.listener = connection.listener
        session.bridge = connect.bridge
        connection.session = session
        connection.size = CONNECTION + connect_size(connect)
        self.memory.clients.size += connection.size
        self.connected += 1
        self.stats.connections += 1
        self.stats.maximum = max(self.stats.maximum, self.connected)
        if durable:
            if session.store_id:
                self.journal.save_session(self._record(session))
            self.journal.when_stored(connection.accept, present)
        else:
            connection.accept(present)

    def attach(self, session: Session) -> None:
        """The client has its CONNACK: from here on it gets messages."""
        connection = session.connection
        assert connection is not None
        session.sink = Discard() if connection.congested else connection.out
        if session.queue is not None:
            session.queue.attach()
            if connection.congested:
                session.queue.congest()

    def close(self, connection: Connection, normal: bool) -> None:
        """The connection has ended; `normal`: by a DISCONNECT, so that its will is forgotten [MQTT-3.14.4-3]."""
        session = connection.session
        if session is None:
            return
        connection.session = None
        self.connected -= 1
        self.memory.clients.size -= connection.size
        session.connection = None
        session.sink = self.away
        if session.queue is not None:
            session.queue.detach()
        if session.store_id:
            session.disconnected_at = self.expiry.now()
            self.expiry.left(session)
            self.journal.save_session(self._record(session))
            if session.feeding:
                self.feed_soon(session)  # it may have waited for the client to read
        else:
            self.discard(session)
        if normal:
            connection.will = None
        elif connection.will is not None:
            if self._wills or self.crowded:
                # Many clients have gone at once: their wills are published one after the other, others in between.
                if not self._wills:
                    self.scheduler.in_turn(self._publish_wills)
                self._wills.append((connection, session))
            else:
                self._publish_will(connection, session)

    def _publish_wills(self) -> None:
        self.begin()
        while self._wills and not self.over:
            self._publish_will(*self._wills.popleft())
        if self._wills:
            self.scheduler.in_turn(self._publish_wills)

    def publish_will(self, connection: Connection) -> None:
        """Publish the will of a client that is about to be closed with all others, so that they still get it."""
        if connection.session is not None:
            self._publish_will(connection, connection.session)

    def _publish_will(self, connection: Connection, session: Session) -> None:
        will, connection.will = connection.will, None  # [MQTT-3.1.2-10]
        if will is None:
            return
        try:
            route = self.router.known(will.topic) or self.router.route(will.topic)
        except ProtocolError as error:  # a limit was lowered since it was accepted
            self.refused(f"will refused: {error.why}", connection.peer, session, will.topic)
            return
        if not bridges.may_publish(session, will.topic, route):
            self.denied("will refused: not authorised", connection.peer, session, will.topic)
        else:
            self.publish(will.topic, will.payload, will.qos, will.retain, session)  # [MQTT-3.1.2-8]
            self.pressure.queue = None  # nobody is there who could be held back

    def discard(self, session: Session) -> None:
        """End the session, and all that belongs to it. Retained messages stay [MQTT-3.1.2-7]."""
        queue = session.queue
        if queue is not None:
            queue.discard()
        self.endings.remove(session)
        session.feeding = None
        if session.received is not None:
            session.received.drop()
        if self.sessions.get(session.client_id) is session:
            del self.sessions[session.client_id]
            self.memory.clients.size -= SESSION + len(session.client_id)
        if session.store_id:
            self.expiry.forget(session)
            self.quotas.leave(session)
            self.journal.forget_session(session.store_id)
            if isinstance(queue, StoredQueue):
                self.journal.touched.discard(queue)
            self._leaving[session.client_id] = self._leaving.get(session.client_id, 0) + 1
            self.journal.when_stored(self._has_left, session.client_id)

    def _has_left(self, client_id: str) -> None:
        self._leaving[client_id] -= 1
        if not self._leaving[client_id]:
            del self._leaving[client_id]

    def _expire(self, session: Session) -> None:
        """It was away for too long."""
        self.stats.expired += 1
        self.discard(session)

    def limits_changed(self) -> None:
        """The limits are other ones: what goes by them beforehand does so by these."""
        self.expiry.limits_changed(list(self.sessions.values()))
        self.quotas.weigh(self.journal.stored)
        self.memory.limits_changed()

    def _record(self, session: Session) -> SessionRecord:
        queue = session.queue
        connected = session.connection is not None
        return SessionRecord(
            session.store_id,
            session.client_id,
            session.proven_name,
            session.disconnected_at,
            None if connected else (queue.sent_to if isinstance(queue, StoredQueue) else 0),
            session.listener,
            session.origin,
        )

    def new_client_id(self) -> str:
        """An identifier for a client that has none [MQTT-3.1.3-6]."""
        while True:
            # Who could guess it could take the client over.
            client_id = GIVEN_CLIENT_ID + self._unguessable()
            if client_id not in self.sessions:
                return client_id

    # --- subscriptions ---

    def subscribe(
        self, connection: Connection, packet_id: int, wanted: Iterable[tuple[bytes, int] | None]
    ) -> Iterator[None]:
        """SUBSCRIBE: enter each filter as if it had come alone [MQTT-3.8.4-4], answer once, send what is retained.

        It yields wherever its client has used up its share, and None in `wanted` is such a place, too."""
        session = connection.session
        assert session is not None
        codes: list[int] = []
        granted: list[tuple[bytes, int]] = []
        more = bridges.OPTIONS if session.bridge else 0
        for one in wanted:
            if self.over:
                yield
            if one is None:
                continue
            topic_filter, qos = one
            self.account.spent += SUBSCRIBING + len(topic_filter) // LETTERS
            refusal = self._refusal(session, topic_filter)
            if refusal is not None:
                tell = self.denied if refusal == SUBSCRIPTION_DENIED else self.refused
                tell(refusal, connection.peer, session, topic_filter)
                codes.append(SUBSCRIBE_FAILURE)
                continue
            self._enter(session, topic_filter, qos | more)
            if session.store_id:
                self.journal.subscription(session.store_id, topic_filter, qos | more)
            codes.append(qos)
            granted.append(one)
        connection.acknowledge(suback(packet_id, codes), session.store_id != 0)  # [MQTT-3.8.4-1]
        if granted and self.retained.count:
            if session.feeding is None:
                session.feeding = OrderedDict()
            for topic_filter, qos in granted:
                # Who asks again before all has come gets all of it again [MQTT-3.8.4-3], but not as often as it asked:
                # what is still to come would grow without end.
                session.feeding.pop(topic_filter, None)
                session.feeding[topic_filter] = self.retained.matching(topic_filter), qos | more
            if session.store_id:
                self.journal.when_stored(self._feed_later, session)  # behind the SUBACK
            else:
                self._feed(session)

    def _refusal(self, session: Session, topic_filter: bytes) -> str | None:
        limits = self.limits
        held = session.subscriptions
        if len(topic_filter) > limits.max_topic_length or topic_filter.count(b"/") >= limits.max_topic_levels:
            return "subscription refused: the filter is longer or deeper than the limit"
        if topic_filter.startswith(SHARED):
            return "subscription refused: this broker has no shared subscriptions ($share/..., $queue/...)"
        if held is None or topic_filter not in held:
            room = LONG_SUBSCRIPTION + SUBSCRIPTION_SIZE * limits.max_subscriptions
            more = weight(topic_filter)
            if held is not None and (len(held) >= limits.max_subscriptions or session.subscribed + more > room):
                return "subscription refused: the session has as many as it may"
            if self.memory.subscriptions.full(more):
                return "subscription refused: there is no memory for more (max_memory)"
        rights = session.rights
        if rights is not None:
            before = rights.effort
            allowed = rights.may_subscribe(topic_filter)
            self.account.spent += (rights.effort - before) // BRANCHES
            if not allowed:
                return SUBSCRIPTION_DENIED
        return None

    def _enter(self, session: Session, topic_filter: bytes, options: int) -> None:
        if session.subscriptions is None:
            session.subscriptions = {}
        if topic_filter not in session.subscriptions:
            size = weight(topic_filter)
            session.subscribed += size
            self.memory.subscriptions.size += size
        session.subscriptions[topic_filter] = options
        if options & QOS and session.queue is None:
            self._make_queue(session)
        self.router.subscribe(session, topic_filter, options)

    def _make_queue(self, session: Session) -> Queue:
        queue = session.queue = StoredQueue(self, session) if session.store_id else Queue(self, session)
        connection = session.connection
        if connection is not None:
            queue.attach()
            if connection.congested:
                queue.congest()
        return queue

    def unsubscribe(self, connection: Connection, packet_id: int, filters: Iterable[bytes | None]) -> Iterator[None]:
        """UNSUBSCRIBE: what was queued is still delivered [MQTT-3.10.4-3]. It yields as `subscribe` does."""
        session = connection.session
        assert session is not None
        held = session.subscriptions
        for topic_filter in filters:
            if self.over:
                yield
            if topic_filter is None:
                continue
            self.account.spent += SUBSCRIBING + len(topic_filter) // LETTERS
            if held is not None and held.pop(topic_filter, None) is not None:
                size = weight(topic_filter)
                session.subscribed -= size
                self.memory.subscriptions.size -= size
                self.router.unsubscribe(session, topic_filter)
                if session.store_id:
                    self.journal.subscription(session.store_id, topic_filter, None)
                if session.feeding:
                    session.feeding.pop(topic_filter, None)  # [MQTT-3.10.4-2]
        connection.acknowledge(unsuback(packet_id), session.store_id != 0)  # [MQTT-3.10.4-5]

    # --- retained messages for new subscriptions, in slices ---

    def feed_soon(self, session: Session) -> None:
        """The session has room for more of its retained messages."""
        if session not in self._hungry:
            self._hungry.add(session)
            self.scheduler.in_turn(lambda: self._feed_hungry(session))

    def _feed_when_room(self, session: Session) -> None:
        """So much has gathered for the store that this session's have to wait, as publishers do."""
        if session not in self._hungry:
            self._hungry.add(session)
            self.journal.when_room(lambda: self.scheduler.in_turn(lambda: self._feed_hungry(session)))

    def _feed_later(self, session: Session) -> None:
        if session.feeding:
            self._feed(session)

    def _feed_hungry(self, session: Session) -> None:
        self._hungry.remove(session)
        if session.feeding:
            self.begin()
            self._feed(session)

    def _feed(self, session: Session) -> None:
        """Send a slice of the retained messages that a new subscription is owed [MQTT-3.3.1-6]."""
        feeding = session.feeding
        connection = session.connection  # None: it has left, but the queue of a persistent session is owed them
        assert feeding is not None
        if connection is not None and connection.congested:
            return  # it calls when it has room
        if session.store_id and self.journal.full:
            self._feed_when_room(session)
            return
        room = FEED_SIZE - self._fed.get(session, 0)
        if room <= 0:
            self.feed_soon(session)
            return
        while feeding:
            if self.over:
                self.feed_soon(session)
                break
            topic_filter, (records, options) = next(iter(feeding.items()))
            for record in records:
                self.account.spent += 1
                if record is None:  # many topics were looked at: others have their turn first
                    room = 0
                    break
                message = record.message
                if not self._may_be_fed(record, session, options):
                    room -= _FEED_STEP
                    if room <= 0:
                        break
                    continue
                self.account.spent += FEEDING
                qos = min(message.qos, options & QOS)
                if qos == 0:
                    session.sink.append(message.frame())
                    self.sent += 1
                    if connection is not None:
                        self.dirty.add(connection)
                elif session.queue is not None:
                    session.queue.deliver(message, qos)
                room -= max(message.size, _FEED_STEP)
                if room <= 0 or self.over or (qos and session.queue and not session.queue.has_room):
                    break
            else:
                del feeding[topic_filter]
                continue
            if room <= 0 or self.over:
                self.feed_soon(session)
            break  # else the queue calls when it has room
        else:
            session.feeding = None
        self._fed[session] = FEED_SIZE - room
        self.pressure.queue = None  # it is the broker that goes slowly here

    def _may_be_fed(self, record: RetainedRecord, session: Session, options: int) -> bool:
        """Rights are asked for at delivery: the reader's, and whether the author still may publish there. What may not
        be delivered stays, as the right may come back."""
        topic = record.message.topic
        if session.rights is not None and not session.rights.may_receive(topic):
            return False
        if options & NO_LOCAL and record.client_id == session.client_id:
            return False
        return not record.client_id or self.may_publish(record)

    # --- publishing ---

    def publish(self, topic: bytes, payload: bytes, qos: int, retain: bool, author: Session | None) -> bool:
        """Deliver a message to all who subscribed [MQTT-4.5.0-1], and retain it if asked. True if any of that must be
        stored before it may be acknowledged.

        `author`: the session that published it, None for the broker itself.
        """
        route = self.router.known(topic) or self.router.route(topic)
        message = Message(topic, payload, qos)
        durable = False
        if retain:
            self.account.spent += RETAINING
            durable = self._retain(topic, payload, qos, author)
        if route.options is not None:
            by_options.deliver(self, message, retain, route.options, author)
        elif route.size:
            self.deliver(message, route)
        return (durable or route.durable) and qos > 0

    def deliver(self, message: Message, route: Route) -> None:
        """Hand a message to the sessions of a route, each at the QoS that it was granted at most [MQTT-3.8.4-6]."""
        self.account.spent += route.size * len(message.payload) // COPIED
        qos = message.qos
        at_most_once = route.sessions if qos == 0 else route.granted0
        if at_most_once:
            frame = message.frame()
            self.mark(route)
            for session in at_most_once:
                session.sink.append(frame)
            self.sent += len(at_most_once)
            if qos == 0:
                return
        self.queued += route.size
        for session in route.granted1:
            session.queue.deliver(message, 1)  # type: ignore[union-attr]  # a grant above 0 comes with a queue
        for session in route.granted2:
            session.queue.deliver(message, qos)  # type: ignore[union-attr]

    def mark(self, route: Route) -> None:
        """Note that the connections of a route have something to send: once a turn is enough."""
        if route.marked != self.turn:
            route.marked = self.turn
            for session in route.sessions:
                if session.connection is not None:
                    self.dirty.add(session.connection)

    def _retain(self, topic: bytes, payload: bytes, qos: int, author: Session | None) -> bool:
        """Keep the message for later subscribers [MQTT-3.3.1-5]. True if the store has to know."""
        retained = self.retained
        # The broker's own topics are made anew after a start, also by the bridges that tell their state.
        stored = author is not None and not topic.startswith(b"$SYS/")
        if not payload:
            if retained.remove(topic) and stored:  # [MQTT-3.3.1-10] [MQTT-3.3.1-11]
                self.journal.retain(topic, None)
            return stored  # where there is none, its removal may still wait to be stored
        old = retained.get(topic)
        limits = self.limits
        by = Author(author.proven_name, author.client_id, author.listener) if author is not None else NOBODY
        added = len(topic) + len(payload) - (old.message.size if old is not None else 0) + retained.authors.cost(by)
        memory = self.memory.retained
        memory.size = retained.held
        full = (
            (old is None and retained.count >= limits.max_retained)
            or retained.memory + added > limits.max_retained_bytes
            or (author is not None and memory.full(added + (RETAINED if old is None else 0)))
        )
        if full and author is not None:
            self.stats.dropped += 1
            self.complaints.warning(
                "no room for more retained messages: this one is delivered, but not kept",
                "",
                topic=topic,
                retained=retained.count,
                bytes=retained.size,
            )
            if old is None:
                return False
            retained.remove(topic)  # an old value would be wrong from now on
            if stored:
                self.journal.retain(topic, None)
            return stored
        record = retained.set(RetainedRecord(Message(topic, payload, qos, retain=True), *by))
        if stored:
            self.journal.retain(topic, record)
        return stored

    def denied(self, event: str, peer: str, session: Session, topic: bytes) -> None:
        """The client at `peer` wanted what it may not."""
        self.stats.denied += 1
        client_id = session.client_id
        self.complaints.info(event, peer, client_id, topic, client=client_id, user=session.username, topic=topic)

    def refused(self, event: str, peer: str, session: Session, topic: bytes) -> None:
        """The client at `peer` wanted what is beyond a limit."""
        self.stats.denied += 1
        client_id = session.client_id
        self.complaints.warning(event, peer, client_id, client=client_id, user=session.username, topic=topic)

    # --- rights ---

    def rights_changed(self, rights: Callable[[Session], Rights | None]) -> Iterator[None]:
        """The access control list is another one: at the end, all is judged by it. It yields where others should have
        their turn."""
        self.begin()
        for session in sorted(self.sessions.values(), key=lambda session: session.connection is None):
            session.rights = rights(session)
            if session.connection is not None:
                session.connection.rights = session.rights
            self.account.spent += JUDGING
            if self.over:
                self.router.forget_routes()
                yield
                self.begin()
        self.router.forget_routes()

    # --- the turn ---

    @property
    def _delivered(self) -> int:
        """What was delivered in this turn, in units of work."""
        return self.sent // DELIVERIES + self.queued

    def begin(self) -> None:
        """Somebody is served: their share of the turn begins (see account)."""
        self.account.begin(self._delivered)

    @property
    def crowded(self) -> bool:
        """Has so much been done in this turn that what can wait should?"""
        return self.account.spent + self._delivered >= TURN

    @property
    def over(self) -> bool:
        """Has who is served used up their share?"""
        return self.account.spent + self._delivered >= self.account.until

    def pump(self) -> None:
        """Let the queues send for which something has changed in this turn."""
        while self.thirsty:
            thirsty, self.thirsty = self.thirsty, []
            for queue in thirsty:
                queue.pump()

    def end_of_turn(self) -> None:
        """Count, and start the next turn."""
        if self._fed:
            self._fed.clear()
        if self.journal.stored != self._weighed:
            self._weighed = self.journal.stored
            self.quotas.weigh(self._weighed)
        if self.sent or self.queued or self.acknowledged or self.acknowledgements:
            stats = self.stats
            stats.publish_sent += self.sent - self.away.count
            stats.other_sent += self.acknowledged
            stats.other_received += self.acknowledgements
            self.away.count = self.sent = self.queued = self.acknowledged = self.acknowledgements = 0
        self.account.end_of_turn()
        self.turn += 1
