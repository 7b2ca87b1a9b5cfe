"""Shared subscriptions: which groups there are, and who is in which.

Owns: groups from their first member to their last, what they count for, and how they begin after a start. Must not
know: SUBSCRIBE, who may subscribe, which member gets a message (group).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain, islice

from .group import Group, Member
from .limits import Limits
from .ports import OF_A_GROUP, Scheduler, SessionRecord, SessionSnapshot
from .queue import Shared
from .router import Router, weight
from .session import Session
from .subscription import QOS, shared
from .turn import Turn

#: Bytes of memory that a group takes, and a member of it, beside the texts: measured in CPython 3.11.
GROUP = 2_200
MEMBER = 300
#: How often its name is in memory.
NAMES = 2
#: Groups that a client enters or leaves at once, when it comes or goes.
FEW = 100
#: Units of work that it takes to enter one, or to leave it.
ENTERING = 2


class Shares:
    def __init__(self, router: Router, queues: Shared, limits: Limits, turn: Turn, scheduler: Scheduler) -> None:
        self._router = router
        self._queues = queues
        self._limits = limits
        self._memory = queues.memory.subscriptions
        self._turn = turn
        self._scheduler = scheduler
        #: Gives the key of a group in the store, which no session has or had.
        self.new_id: Callable[[], int]
        self._groups: dict[bytes, Group] = {}
        self._of: dict[Session, dict[bytes, Member]] = {}  # by Topic Filter as it was subscribed to

    def __len__(self) -> int:
        """How many groups there are."""
        return len(self._groups)

    # --- members come and go ---

    def refusal(self, session: Session, topic_filter: bytes) -> str:
        """Why there is no room for this subscription, "" if there is. It must be well made."""
        found = shared(topic_filter)
        assert found is not None
        group = self._groups.get(found[0])
        if group is not None and session in group.members and topic_filter not in self._of[session]:
            return "it is in this group already, which has two names ($queue/FILTER and $share/$queue/FILTER)"
        if session.store_id and (group is None or not group.store_id):
            return self._queues.quotas.refusal(session.proven_name, session.origin)
        return ""

    @staticmethod
    def weight(topic_filter: bytes) -> int:
        """Bytes that a member, and the group if it is its first, may take besides what a subscription does."""
        return MEMBER + GROUP + weight(topic_filter) + NAMES * len(topic_filter)

    def join(self, session: Session, topic_filter: bytes, options: int) -> None:
        """The session is a member from now on, or has other options. Its queue must be there."""
        found = shared(topic_filter)
        assert found is not None
        name, behind = found
        group = self._groups.get(name)
        new = group is None
        if group is None:
            group = self._groups[name] = self._made(name, behind)
        before = group.options, group.store_id
        mine = self._of.setdefault(session, {})
        member = mine.get(topic_filter)
        if member is not None:
            group.granted[member.options & QOS] -= 1
            member.options = options
        else:
            member = mine[topic_filter] = group.members[session] = Member(group, session, options)
            self._memory.size += MEMBER
        group.granted[options & QOS] += 1
        if session.store_id and not group.store_id:
            self._store(group, session)
        if new or before != (group.options, group.store_id):
            self._router.subscribe(group, group.topic_filter, group.options)
        if session.connection is not None:
            group.enter(member)

    def _made(self, name: bytes, behind: bytes) -> Group:
        group = Group(self._queues, self._scheduler.in_turn, name.decode(), behind)
        group.strategy = self._strategy(group)
        self._memory.size += _size(group)
        return group

    def _store(self, group: Group, session: Session) -> None:
        """Its first member with a persistent session has come: what waits in it is stored from now on."""
        group.proven_name = session.proven_name
        group.origin = session.origin
        group.store_as(self.new_id())
        self._queues.quotas.enter(group)
        record = SessionRecord(
            group.store_id, group.name, group.proven_name, None, None, origin=group.origin, kind=OF_A_GROUP
        )
        self._queues.journal.save_session(record)

    def leave(self, session: Session, topic_filter: bytes) -> None:
        """The session is no member any more. What is in flight to it, it may still acknowledge."""
        mine = self._of.get(session)
        member = mine.pop(topic_filter, None) if mine is not None else None
        if member is None:
            return
        if not mine:
            del self._of[session]
        self._memory.size -= MEMBER
        group = member.group
        before = group.options
        group.granted[member.options & QOS] -= 1
        if group.members.get(session) is member:
            del group.members[session]
        group.leave(member)
        if not group.members:
            self._end(group)
        elif before != group.options:
            self._router.subscribe(group, group.topic_filter, group.options)

    def _end(self, group: Group) -> None:
        del self._groups[group.name.encode()]
        self._memory.size -= _size(group)
        self._router.unsubscribe(group, group.topic_filter)
        if group.store_id:
            self._queues.quotas.leave(group)
        group.end()

    # --- clients come and go ---

    def came(self, session: Session) -> None:
        """The client of this session is there, and can be sent something."""
        self._look(session, self._came)

    def gone(self, session: Session) -> None:
        """It is not any more: what it has not acknowledged goes to others. Call it before its queue is detached."""
        if session.queue is not None:
            for lender, place in reversed(session.queue.give_back()):
                lender.back(place)
        self._look(session, self._gone)

    def _look(self, session: Session, each: Callable[[Session, Iterator[Member]], None]) -> None:
        mine = self._of.get(session)
        if mine is not None:
            each(session, iter(list(mine.values())))

    def _came(self, session: Session, members: Iterator[Member]) -> None:
        for member in islice(members, FEW):
            self._turn.account.spent += ENTERING
            member.group.enter(member)
        self._go_on(session, members, self._came)

    def _gone(self, session: Session, members: Iterator[Member]) -> None:
        for member in islice(members, FEW):
            if session.connection is not None:
                return  # it is back, and enters all of them again
            self._turn.account.spent += ENTERING
            member.group.leave(member)
        self._go_on(session, members, self._gone)

    def _go_on(
        self, session: Session, members: Iterator[Member], each: Callable[[Session, Iterator[Member]], None]
    ) -> None:
        for first in members:
            self._scheduler.in_turn(partial(each, session, chain([first], members)))
            return

    # --- start, reload ---

    def restore(self, snapshots: Iterable[SessionSnapshot]) -> None:
        """Begin with the groups that the store holds: before the sessions of their members."""
        for stored in snapshots:
            name = stored.record.client_id.encode()
            found = shared(name)
            assert found is not None  # the store has looked
            group = self._groups[name] = self._made(*found)
            group.proven_name = stored.record.username
            group.origin = stored.record.origin
            group.store_id = stored.record.id
            group.waits.restore(stored)
            self._queues.quotas.enter(group)
            self._router.subscribe(group, group.topic_filter, group.options)

    def restored(self) -> None:
        """All sessions are there: groups that were those of clients without a persistent session have ended."""
        for group in list(self._groups.values()):
            if not group.members:
                self._end(group)

    def limits_changed(self) -> None:
        for group in self._groups.values():
            group.strategy = self._strategy(group)

    def rights_changed(self) -> None:
        """What nobody had the right to get may have somebody now."""
        for group in self._groups.values():
            if group.waits.waiting:
                group.pump_soon()

    def _strategy(self, group: Group) -> str:
        name = group.name.split("/", 2)[1]
        return self._limits.shared_strategies.get(name, self._limits.shared_strategy)


def _size(group: Group) -> int:
    return GROUP + weight(group.topic_filter) + NAMES * len(group.name)
