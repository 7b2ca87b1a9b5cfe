"""Wills: what is published when a client has gone without a DISCONNECT.

Owns: the wills that are still to be published. Must not know: why a client has gone.
"""

from __future__ import annotations

from collections import deque

from ..wire.codes import ProtocolError
from ..wire.packets import Will
from . import bridges
from .denials import Denials
from .ports import Scheduler
from .pressure import Pressure
from .publishing import Publishing
from .router import Router
from .session import Session
from .turn import Turn


class Wills:
    """The will of a client that is connected stands in its session."""

    def __init__(
        self,
        publishing: Publishing,
        router: Router,
        turn: Turn,
        pressure: Pressure,
        denials: Denials,
        scheduler: Scheduler,
    ) -> None:
        self._publishing = publishing
        self._router = router
        self._turn = turn
        self._pressure = pressure
        self._denials = denials
        self._scheduler = scheduler
        self._due: deque[tuple[Session, Will, str]] = deque()

    def gone(self, session: Session, peer: str) -> None:
        """The client at `peer` has gone: publish its will, if it has left one."""
        will, session.will = session.will, None  # [MQTT-3.1.2-10]
        if will is None:
            return
        if self._due or self._turn.crowded:
            # Many clients have gone at once: their wills are published one after the other, others in between.
            if not self._due:
                self._scheduler.in_turn(self._go_on)
            self._due.append((session, will, peer))
        else:
            self._publish(session, will, peer)

    def publish_now(self, session: Session) -> None:
        """Publish the will of a client that is about to be closed with all others, so that they still get it."""
        will, session.will = session.will, None
        if will is not None and session.connection is not None:
            self._publish(session, will, session.connection.peer)

    def _go_on(self) -> None:
        self._turn.begin()
        while self._due and not self._turn.over:
            self._publish(*self._due.popleft())
        if self._due:
            self._scheduler.in_turn(self._go_on)

    def _publish(self, session: Session, will: Will, peer: str) -> None:
        try:
            route = self._router.known(will.topic) or self._router.route(will.topic)
        except ProtocolError as error:  # a limit was lowered since it was accepted
            self._denials.refused(f"will refused: {error.why}", peer, session, will.topic)
            return
        if not bridges.may_publish(session, will.topic, route):
            self._denials.denied("will refused: not authorised", peer, session, will.topic)
        else:
            self._publishing.publish(will.topic, will.payload, will.qos, will.retain, session)  # [MQTT-3.1.2-8]
            self._pressure.queue = None  # nobody is there who could be held back
