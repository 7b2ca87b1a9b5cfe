"""All sessions: how they are opened, taken over, left, and end.

Owns: which sessions there are, and what the store and the limits must know of each. Must not know: packets, who may
connect, how messages travel.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

from ..wire.codes import ReasonCode
from ..wire.packets import Connect
from .endings import Endings
from .expiry import Expiry
from .feeding import Feeding
from .identifiers import Identifiers, Unreleased
from .journal import Journal
from .looking_back import Client
from .memory import CONNECTION, SESSION, Memory
from .ports import GIVEN_CLIENT_ID, OF_A_CLIENT, Rights, SessionRecord, SessionSnapshot
from .quotas import Quotas
from .router import Router
from .session import Discard, Session
from .shares import Shares
from .stats import Stats
from .stored_queue import StoredQueue
from .subscriptions import Subscriptions
from .turn import Turn
from .wills import Wills
from .wills import size as size_of_will

#: Units of work that it takes to find out about the rights of a session.
JUDGING = 5


class Arriving(Client, Protocol):
    """A connection that is to have a session."""

    session: Session | None


class Opened(NamedTuple):
    """What a CONNECT has led to."""

    present: bool  #: was it there before?
    durable: bool  #: must the CONNACK wait for the store?


class Sessions(dict[str, Session]):
    """By Client Identifier. It reads like a dict; what changes it are its methods."""

    def __init__(
        self,
        subscriptions: Subscriptions,
        shares: Shares,
        endings: Endings,
        wills: Wills,
        expiry: Expiry,
        feeding: Feeding,
        router: Router,
        journal: Journal,
        quotas: Quotas,
        memory: Memory,
        stats: Stats,
        turn: Turn,
        unguessable: Callable[[], str],
    ) -> None:
        """`unguessable` gives a short text, each time another one."""
        super().__init__()
        self._subscriptions = subscriptions
        self._shares = shares
        self._endings = endings
        self._wills = wills
        self._feeding = feeding
        self._router = router
        self._journal = journal
        self._quotas = quotas
        self._memory = memory.clients
        self._stats = stats
        self._turn = turn
        self._unguessable = unguessable
        self._expiry = expiry
        expiry.end = self._expire
        #: Is there still a listener on which a client can prove a user name?
        self.proves_names: Callable[[], bool] = lambda: True
        self.connected = 0
        self.unreleased = Unreleased(memory.clients)
        self._store_ids = itertools.count(1)
        shares.new_id = lambda: next(self._store_ids)
        # Client Identifiers of persistent sessions that have ended, and that the store has not forgotten yet: how many.
        self._leaving: dict[str, int] = {}

    def restore(self, snapshots: list[SessionSnapshot], rights: Callable[[Session], Rights | None]) -> None:
        """Begin with what the store holds. `rights` of a session that is away."""
        newest = 0
        for stored in snapshots:
            newest = max(newest, stored.record.id)
        self._store_ids = itertools.count(newest + 1)
        for stored in snapshots:
            if stored.record.kind == OF_A_CLIENT:
                self._restore(stored, rights)
        for session in [session for session in self.values() if not session.lasts]:
            self.discard(session)  # its client was connected when the broker was killed

    def _restore(self, stored: SessionSnapshot, rights: Callable[[Session], Rights | None]) -> None:
        record = stored.record
        session = Session(record.client_id, record.id, self._turn.away)
        session.username = session.proven_name = record.username
        session.origin = record.origin
        self._quotas.enter(session)
        session.listener = record.listener
        session.expiry = record.expiry
        session.version = record.version
        session.rights = rights(session)
        self._subscriptions.speak(session)
        # A session that was connected when the broker died has been away since the restart at the latest.
        date = record.disconnected_at
        session.disconnected_at = self._expiry.now() if date is None else date
        self._expiry.left(session)
        session.received = Identifiers(self.unreleased, stored.received) if stored.received else None
        self[record.client_id] = session
        self._memory.size += SESSION + len(record.client_id)
        for topic_filter, options in stored.subscriptions.items():
            self._subscriptions.enter(session, topic_filter, options)
        if stored.next_seq:
            queue = session.queue or self._subscriptions.make_queue(session)
            assert isinstance(queue, StoredQueue)
            queue.restore(stored, record.sent_to)
        if record.sent_to is None or record.sent_to > stored.next_seq:
            # What is not in the store will be new: settled places are given again.
            away = record._replace(disconnected_at=session.disconnected_at, sent_to=stored.next_seq)
            self._journal.save_session(away)

    # --- a client comes ---

    def owner(self, client_id: str) -> str | None:
        """The user who has proved to be the one that the session of this identifier belongs to, if there is such a
        session. Others may not just end it, take it over, or get what waits in it."""
        session = self.get(client_id)
        return session.proven_name if session is not None and self.proves_names() else None

    def no_room(self, connection: Client, connect: Connect) -> str:
        """Why the session that this CONNECT asks for cannot be made, "" if it can, or is there."""
        if self._memory.full(CONNECTION + SESSION + len(connect.client_id) + _connect_size(connect)):
            return "there is no memory for more clients (max_memory)"
        if connect.will is not None and self._wills.full(connect.will):
            return "there is no memory for more wills (max_memory)"
        if connect.clean_session and not connect.session_expiry:
            return ""  # the commonest
        session = self.get(connect.client_id)
        if not self.stores(connect) or (session is not None and session.store_id):
            return ""
        return self._quotas.refusal(connection.proven_name(connect.username), connection.origin)

    def stores(self, connect: Connect) -> bool:
        """Is the session that this CONNECT leads to a stored one?"""
        if self._expiry.granted(connect) != 0:
            return True
        session = self.get(connect.client_id)
        return session is not None and session.store_id != 0 and session.lasts and not connect.clean_session

    def new_client_id(self) -> str:
        """An identifier for a client that has none [MQTT-3.1.3-6]."""
        while True:
            # Who could guess it could take the client over.
            client_id = GIVEN_CLIENT_ID + self._unguessable()
            if client_id not in self:
                return client_id

    def open(self, connection: Arriving, connect: Connect) -> Opened:
        """The client may connect: give it its session."""
        client_id = connect.client_id
        session = self.get(client_id)
        if session is not None and session.connection is not None:
            # [MQTT-3.1.4-2] The older connection ends, and not by its own will.
            why = f"taken over by a new connection from {connection.peer}"
            session.connection.close(why, reason=ReasonCode.SESSION_TAKEN_OVER)  # [MQTT5-3.1.4-3]
            session = self.get(client_id)
        if connect.clean_session and session is not None:
            self.discard(session)  # [MQTT-3.1.2-6] [MQTT5-3.1.2-4]
            session = None
        present = session is not None
        proven_name = connection.proven_name(connect.username)
        expiry = self._expiry.granted(connect)
        if session is None:
            session = self._new(connection, client_id, proven_name, expiry)
        else:
            if session.will:
                self._wills.forget(session)  # it was delayed [MQTT5-3.1.3-9]
            self._quotas.rename(session, proven_name)
        session.connection = connection
        session.disconnected_at = None
        session.expiry = expiry
        if session.subscriptions and (session.rights is not None or connection.rights is not None):
            self._router.forget_routes()
        session.username = connect.username
        session.rights = connection.rights
        session.listener = connection.listener
        session.version = connect.version
        session.bridge = connect.bridge
        # The CONNACK says that there is a session, or that there is none any more.
        durable = session.store_id != 0 or client_id in self._leaving
        if session.store_id:
            self._journal.save_session(_record(session))
        if connect.will is not None:
            stored = self._wills.keep(session, connect.will, connection.peer)
            # While the store fails, who wants nothing else of it may come in all the same.
            durable = durable or (stored and not self._journal.failed)
        connection.session = session
        self._subscriptions.speak(session)
        connection.size = CONNECTION + len(connect.username or "")
        self._memory.size += connection.size
        self.connected += 1
        self._stats.connections += 1
        self._stats.maximum = max(self._stats.maximum, self.connected)
        return Opened(present, durable)

    def _new(self, connection: Client, client_id: str, proven_name: str | None, expiry: float | None) -> Session:
        store_id = 0 if expiry == 0 else next(self._store_ids)
        session = self[client_id] = Session(client_id, store_id, self._turn.away)
        self._memory.size += SESSION + len(client_id)
        session.proven_name = proven_name
        if store_id:
            session.origin = connection.origin
            self._quotas.enter(session)
        return session

    def attach(self, session: Session) -> None:
        """The client has its CONNACK: from here on it gets messages."""
        connection = session.connection
        assert connection is not None
        session.sink = Discard() if connection.congested else connection.out
        if session.queue is not None:
            session.queue.attach()
            if connection.congested:
                session.queue.congest()
        self._shares.came(session)

    # --- a client goes ---

    def leave(self, session: Session, connection: Client, normal: bool) -> None:
        """The connection has ended; `normal`: by a DISCONNECT, so that its will is forgotten [MQTT-3.14.4-3]
        [MQTT5-3.14.4-3]."""
        self.connected -= 1
        self._memory.size -= connection.size
        session.connection = None
        session.sink = self._turn.away
        self._shares.gone(session)
        if session.queue is not None:
            session.queue.detach()
        if normal and session.will:
            self._wills.forget(session)
        if session.expiry == 0:
            self.discard(session)
            return
        session.disconnected_at = self._expiry.now()
        self._expiry.left(session)
        self._journal.save_session(_record(session))
        if session.feeding:
            self._feeding.soon(session)  # it may have waited for the client to read
        if session.will:
            self._wills.gone(session, self._expiry.period(session))

    def discard(self, session: Session) -> None:
        """End the session, and all that belongs to it. Retained messages stay [MQTT-3.1.2-7]."""
        if session.queue is not None:
            session.queue.discard()
        self._endings.remove(session)
        session.feeding = None
        if session.received is not None:
            session.received.drop()
        if self.get(session.client_id) is session:
            del self[session.client_id]
            self._memory.size -= SESSION + len(session.client_id)
        if session.store_id:
            self._expiry.forget(session)
            self._quotas.leave(session)
            self._journal.forget_session(session.store_id)
            self._leaving[session.client_id] = self._leaving.get(session.client_id, 0) + 1
            self._journal.when_stored(self._has_left, session.client_id)
        if session.will:
            self._wills.gone(session, 0.0)  # whatever its delay [MQTT5-3.1.2-8]

    def _has_left(self, client_id: str) -> None:
        self._leaving[client_id] -= 1
        if not self._leaving[client_id]:
            del self._leaving[client_id]

    def _expire(self, session: Session) -> None:
        """It was away for too long."""
        self._stats.expired += 1
        self.discard(session)

    # --- rights ---

    def rights_changed(self, rights: Callable[[Session], Rights | None]) -> Iterator[None]:
        """The access control list is another one: at the end, all is judged by it. It yields where others should have
        their turn."""
        turn = self._turn
        turn.begin()
        for session in sorted(self.values(), key=lambda session: session.connection is None):
            session.rights = rights(session)
            if session.connection is not None:
                session.connection.rights = session.rights
            turn.account.spent += JUDGING
            if turn.over:
                self._router.forget_routes()
                yield
                turn.begin()
        self._router.forget_routes()
        self._shares.rights_changed()


def _connect_size(connect: Connect) -> int:
    """Bytes of what is kept of a CONNECT."""
    size = len(connect.username or "")
    return size if connect.will is None else size + size_of_will(connect.will)


def _record(session: Session) -> SessionRecord:
    queue = session.queue
    connected = session.connection is not None
    return SessionRecord(
        session.store_id,
        session.client_id,
        session.proven_name,
        session.disconnected_at,
        None if connected else (queue.sent_to if queue is not None else 0),
        session.listener,
        session.origin,
        session.expiry,
        session.version,
    )
