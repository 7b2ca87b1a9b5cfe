"""Retained messages for new subscriptions, in slices.

Owns: which sessions are owed retained messages, and how much of them a session gets in a turn. Must not know: who may
subscribe, how retained messages are kept.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from ..wire.codes import MQTT_5
from . import by_options
from .journal import Journal
from .message_expiry import is_over
from .ports import RetainedRecord, Scheduler
from .pressure import Pressure
from .retained import Retained
from .route import identifying
from .session import Session
from .subscription import NO_LOCAL, QOS
from .turn import Turn

#: Units of work that it takes to hand over a retained message to one client.
FEEDING = 4
#: Retained messages that a client gets per turn for its new subscriptions.
FEED_SLICE = 256
#: Bytes of them after which the rest waits: until they are sent, nobody can tell whether the client reads.
FEED_SIZE = 1 << 18
_FEED_STEP = FEED_SIZE // FEED_SLICE


class Feeding:
    def __init__(
        self,
        retained: Retained,
        turn: Turn,
        journal: Journal,
        pressure: Pressure,
        scheduler: Scheduler,
        now: Callable[[], float],
    ) -> None:
        """`now` gives the date."""
        self._retained = retained
        self._turn = turn
        self._journal = journal
        self._pressure = pressure
        self._scheduler = scheduler
        self._now = now
        #: May the author of this retained message still publish it?
        self.may_publish: Callable[[RetainedRecord], bool] = lambda record: True
        self._hungry: set[Session] = set()  # sessions whose retained messages go on when it is their turn
        self._fed: dict[Session, int] = {}  # bytes of them that sessions were given in this turn

    def owe(self, session: Session, granted: list[tuple[bytes, int]]) -> None:
        """These filters, with their options, were subscribed to: send what is retained, behind the SUBACK."""
        if session.feeding is None:
            session.feeding = OrderedDict()
        for topic_filter, options in granted:
            # Who asks again before all has come gets all of it again [MQTT-3.8.4-3], but not as often as it asked:
            # what is still to come would grow without end.
            session.feeding.pop(topic_filter, None)
            session.feeding[topic_filter] = self._retained.matching(topic_filter), options
        if session.store_id:
            self._journal.when_stored(self._later, session)
        else:
            self._feed(session)

    def soon(self, session: Session) -> None:
        """The session has room for more of its retained messages."""
        if session not in self._hungry:
            self._hungry.add(session)
            self._scheduler.in_turn(lambda: self._in_turn(session))

    def end_of_turn(self) -> None:
        if self._fed:
            self._fed.clear()

    def _when_room(self, session: Session) -> None:
        """So much has gathered for the store that this session's have to wait, as publishers do."""
        if session not in self._hungry:
            self._hungry.add(session)
            self._journal.when_room(lambda: self._scheduler.in_turn(lambda: self._in_turn(session)))

    def _later(self, session: Session) -> None:
        if session.feeding:
            self._feed(session)

    def _in_turn(self, session: Session) -> None:
        self._hungry.remove(session)
        if session.feeding:
            self._turn.begin()
            self._feed(session)

    def _feed(self, session: Session) -> None:
        """Send a slice of the retained messages that a new subscription is owed [MQTT-3.3.1-6]."""
        feeding = session.feeding
        connection = session.connection  # None: it has left, but the queue of a persistent session is owed them
        assert feeding is not None
        if connection is not None and connection.congested:
            return  # it calls when it has room
        if session.store_id and self._journal.full:
            self._when_room(session)
            return
        room = FEED_SIZE - self._fed.get(session, 0)
        if room <= 0:
            self.soon(session)
            return
        turn = self._turn
        now = self._now()
        while feeding:
            if turn.over:
                self.soon(session)
                break
            topic_filter, (records, options) = next(iter(feeding.items()))
            named = identifying(options) if session.version == MQTT_5 else b""
            for record in records:
                turn.account.spent += 1
                if record is None:  # many topics were looked at: others have their turn first
                    room = 0
                    break
                message = record.message
                if not self._may_be_fed(record, session, options, now):
                    room -= _FEED_STEP
                    if room <= 0:
                        break
                    continue
                turn.account.spent += FEEDING
                message = by_options.retained(message, named)
                qos = min(message.qos, options & QOS)
                if qos == 0:
                    by_options.send_at_most_once(turn, now, message, session)
                elif session.queue is not None:
                    session.queue.deliver(message, qos)
                room -= max(message.size, _FEED_STEP)
                if room <= 0 or turn.over or (qos and session.queue and not session.queue.has_room):
                    break
            else:
                del feeding[topic_filter]
                continue
            if room <= 0 or turn.over:
                self.soon(session)
            break  # else the queue calls when it has room
        else:
            session.feeding = None
        self._fed[session] = FEED_SIZE - room
        self._pressure.queue = None  # it is the broker that goes slowly here

    def _may_be_fed(self, record: RetainedRecord, session: Session, options: int, now: float) -> bool:
        """Not if it has expired. Rights are asked for at delivery: the reader's, and whether the author still may
        publish there. What may not be delivered stays, as the right may come back."""
        topic = record.message.topic
        if session.rights is not None and not session.rights.may_receive(topic):
            return False
        if is_over(record.message, now):
            return False
        if options & NO_LOCAL and record.client_id == session.client_id:
            return False
        return not record.client_id or self.may_publish(record)
