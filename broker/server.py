"""The composition root: builds a broker out of its parts, starts it, reloads it, ends it.

Owns: who is connected to whom, and the order of start and end. It is the one file that knows every part; none knows
it but the command line and the embedded Broker.
"""

from __future__ import annotations

import os
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from selectors import BaseSelector

from . import file_rights, logs, machine
from .addresses import origin_of
from .admission import Pace
from .auth.checks import Checks
from .auth.errors import FileError
from .config import loading
from .config.options import Config, ListenerConfig
from .core import reasons
from .core.clock import Clock
from .core.exchange import Exchange
from .core.intake import CLOSED
from .core.journal import Journal
from .core.limits import Limits
from .core.looking_back import Client
from .core.ports import Log, RetainedRecord, Rights, Store, StoreError
from .core.session import Session
from .core.sys_topics import SysTopics
from .core.tidying import Tidying
from .core.timers import Timers
from .core.trace import watch
from .endpoints import lay_out
from .entrance import Entrance, Rules, StartError, read_rules
from .net.endpoints import Endpoint, ListenError
from .net.fairness import Fairness
from .net.loop import Loop
from .net.tls import Handshakes
from .net.workers import Workers
from .notify import watchdog_interval
from .reload import Reload
from .storage.memory import MemoryStore
from .storage.sqlite import DataError, SqliteStore
from .version import __version__
from .wire.codes import ReasonCode

#: Seconds after which a connection without CONNECT may be closed when the system has no room for more. An honest client
#: that is slow may take longer, but then others need the room.
LONG_SILENT = 1.0
#: Seconds that clients get to take what is unsent before the broker ends without.
GRACE = 5.0
#: Seconds that the store gets to write what clients have been promised.
STORE_GRACE = 5.0
#: Bytes of memory for what clients make the broker hold, if the machine has even less.
LEAST_MEMORY = 32 << 20
#: Seconds between two looks whether somebody has set the system's clock, and for complaints that were left out of the
#: log.
CLOCK_CHECK = 10.0
#: Authors of retained messages whose rights are remembered.
MAX_AUTHORS = 1000
#: Clients to whom all is sent within one turn that they are owed; and seconds of a turn for more than that.
FEW = 64
FLUSHING = 0.004


class Server:
    """A broker: bound and ready when constructed, at work while `run` runs."""

    def __init__(
        self,
        config: Config,
        log: Log,
        reread: loading.Reload | None = None,
        notify: Callable[..., object] = lambda *lines: None,
        set_level: Callable[[str], None] = logs.set_level,
        wall: Callable[[], float] = time.time,
        selector: BaseSelector | None = None,
    ) -> None:
        """Bind all listeners and open the store. Raises StartError, and leaves nothing open then.

        `reread` gives the configuration for a reload; without it, only the files that it names are read again.
        `notify` hears such lines as "READY=1" (broker.notify). `set_level` gets the level of the log at a reload.
        `wall` is the system's clock. `selector` waits for all sockets (None: the best that there is).
        """
        self.config = config
        self._notify = notify
        self._set_level = set_level
        self._reread = reread or (lambda: self.config)
        self.log = log
        self.timers = Timers()
        self.timers.now = time.monotonic()
        self._wall = wall
        self.loop = Loop(self.timers, self._bug, selector)
        self._workers = Workers(self.loop, config.workers, "selectmq-worker")
        self._lane = Workers(self.loop, 1, "selectmq-store")
        self.checks = Checks(self._workers.submit, config.workers, self.loop.soon)
        self.handshakes = Handshakes(self.loop)
        self.pace = Pace()
        self._entrances: list[Entrance] = []
        self._packets_shown = log.debugging
        # What the authors of retained messages may do, until a reload.
        self._authors: dict[tuple[str | None, str, str | None], list[Rights | None]] = {}
        self._requests: deque[tuple[str, str]] = deque()
        self._reload = Reload(
            self._workers.submit, self._read_again, self._take_over, self._reload_failed, self.loop.in_turn
        )
        self.grace = GRACE
        self._deadline: float | None = None  # of the end, once it has begun
        self._draining = False
        self._open()
        self._flushing: Fairness[Client] = Fairness(FLUSHING)
        self.loop.before_sleep = self._before_sleep
        self.loop.crowd = self.exchange.account.share_out
        self.loop.no_memory = self._no_memory
        self.timers.after(0.0, self._publish_sys)
        self.timers.after(CLOCK_CHECK, self._look_at_the_clock)

    def _open(self) -> None:
        """All that can fail."""
        config = self.config
        store: Store | None = None
        try:
            self._start_lane()
            endpoints = lay_out(config.listeners)
            rules = [read_rules(listener) for listener in config.listeners]
            store = MemoryStore() if config.data is None else SqliteStore(config.data)
            self._store = store
            snapshot = store.load()
            journal = Journal(store, self._lane, self.timers, self.log)
            clock = Clock(self.timers.now, self._wall())
            self.exchange = Exchange(journal, self.timers, Limits(), self.log, self.loop, clock, _unguessable)
            self.exchange.complaints.origin = origin_of
            self.exchange.feeding.may_publish = self._may_publish
            self.exchange.sessions.proves_names = self._proves_names
            self._apply_limits()
            self._listen(rules, endpoints)
            self.exchange.restore(snapshot, self._rights)
        except (FileError, DataError, StoreError, ListenError) as error:
            self._close_all(store)
            raise StartError(str(error)) from None
        except BaseException:
            self._close_all(store)
            raise
        self._sys = SysTopics(self.exchange, __version__, self.timers.now)
        self._tidying = Tidying(store, journal, self._lane, self.timers, self.log)

    def _listen(self, rules: list[Rules], endpoints: list[list[Endpoint]]) -> None:
        """A port that is free is chosen last: it must not be one that another listener wants."""
        listeners = self.config.listeners
        rows = list(zip(listeners, rules, names(listeners), endpoints, strict=True))
        order = sorted(range(len(rows)), key=lambda index: listeners[index].port == 0)
        for index in order:
            self._entrances.append(Entrance(self, *rows[index]))
        self._entrances = [self._entrances[order.index(index)] for index in range(len(rows))]

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Host and port of each listener, in the order of the configuration; of a Unix socket its path, and 0. A name
        may have several addresses: it is one in IPv4, if there is one; the port is the same."""
        return [entrance.address for entrance in self._entrances]

    @property
    def _places(self) -> list[str]:
        return [place for entrance in self._entrances for place in entrance.places_in_words]

    @property
    def _status(self) -> str:
        return "STATUS=listening on " + ", ".join(self._places)

    @property
    def full(self) -> bool:
        """Are there as many connections as the loop can wait for? One more would be the end of all of them."""
        capacity = self.loop.capacity
        return capacity is not None and sum(entrance.held for entrance in self._entrances) >= capacity

    def _start_lane(self) -> None:
        """Now, and not when it is needed: a program that is about to end starts no threads, and still has to store."""
        try:
            self._lane.start()
        except RuntimeError as error:
            raise StartError(f"this system has no more threads: {error}") from None

    def make_room(self) -> bool:
        """Close a connection that has long sent no CONNECT, where there are most of them. False: there is none."""
        crowded = max((entrance.places for entrance in self._entrances), key=lambda places: places.arriving)
        return crowded.make_room(self.timers.now - LONG_SILENT)

    # --- at work ---

    def run(self) -> None:
        """Serve until `stop`. Frees everything before it returns."""
        for remark in file_rights.remarks(self.config):
            self.log.warning("other users of this machine may interfere", reason=remark)
        for place in self._places:
            self.log.info("listening", address=place)
        kept = len(self.exchange.sessions)
        self.log.info(
            "started", version=__version__, pid=os.getpid(), data=self.config.data or "memory", sessions=kept,
            retained=self.exchange.retained.count,
        )  # fmt: skip
        self._notify("READY=1", self._status)
        interval = watchdog_interval()
        if interval is not None:
            self.timers.after(0.0, lambda now: (self._notify("WATCHDOG=1"), now + interval)[1])
        try:
            self.loop.run()
        finally:
            self.close()
            self.exchange.complaints.finish()
            self.log.info("ended")

    def request(self, what: str, signal: str = "") -> None:
        """Ask for "reload" or "stop" ("stop" again: at once), or tell of a `signal` that is there to "ignore". From
        any thread, and from signal handlers."""
        self._requests.append((what, signal))
        self.loop.wake()

    def _before_sleep(self) -> bool:
        """The end of a turn. Is more to be sent than there was time for?"""
        while self._requests:
            self._obey(*self._requests.popleft())
        exchange = self.exchange
        turn = exchange.turn
        turn.pump()  # may ask the journal for more
        exchange.journal.end_of_turn()
        turn.pump()  # for what followed from that
        more = self._flush()
        if self.loop.backlog.size > self.loop.backlog.limit:
            self._close_slowest()
        exchange.end_of_turn()
        if self._deadline is not None:
            self._go_on_ending()
        return more

    def _flush(self) -> bool:
        """Send what has been produced: all of it for few clients, and for many as far as there is time."""
        turn = self.exchange.turn
        flushing = self._flushing
        if flushing.left or len(turn.dirty) > FEW:
            dirty, turn.dirty = turn.dirty, set()
            least_first = sorted(dirty, key=_owed)
            flushing.serve(dict.fromkeys((*flushing.left, *least_first)), _flush_one, self.timers.now)
            return bool(flushing.left or turn.dirty)
        flushing.rest(self.timers.now)
        while turn.dirty:
            dirty, turn.dirty = turn.dirty, set()
            for connection in dirty:
                connection.flush()
        return False

    def _obey(self, what: str, signal: str) -> None:
        if what == "reload":
            self._notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
            self._reload.request()
        elif what == "ignore":
            self.log.info("signal ignored: SIGHUP reloads, SIGTERM ends the broker", signal=signal)
        elif self._deadline is not None:
            self.loop.stop()
        else:
            self._begin_ending()

    def _close_slowest(self) -> None:
        """Too much waits for clients that read slowly, though no more is produced for them: close who reads least."""
        part = self.exchange.memory.unsent
        backlog = self.loop.backlog
        part.size = backlog.size
        part.full()
        clients = [one for entrance in self._entrances for one in entrance.unsent()]
        for _, connection in sorted(clients, key=lambda one: one[0], reverse=True):
            if backlog.size <= backlog.limit - backlog.limit // 8:
                break
            why = "too much waits for clients that do not read (max_memory), and most for this one"
            connection.close(why, gently=False, reason=ReasonCode.QUOTA_EXCEEDED)

    def _no_memory(self) -> bool:
        """The system gives no more: end who holds most, and tell it now and then."""
        event = "the system gives no more memory: connections are closed; a lower max_memory would prevent that"
        self.exchange.complaints.error(event, "", max_memory=self.exchange.limits.max_memory)
        return self.exchange.incoming.shed()

    def _bug(self, error: BaseException) -> None:
        if isinstance(error, MemoryError):
            self._no_memory()
            return
        self.exchange.stats.bugs += 1
        self.exchange.complaints.bug("bug: the broker goes on without what it wanted to do", error, "")

    def _publish_sys(self, now: float) -> float | None:
        interval = self.config.sys_interval
        if not interval:
            return now + 10.0  # a reload may switch it on
        self.exchange.stats.bytes_sent = self.loop.bytes_sent
        self.exchange.memory.unsent.size = self.loop.backlog.size
        self.exchange.memory.retained.size = self.exchange.retained.held
        self._sys.publish(now)
        return now + interval

    def _look_at_the_clock(self, now: float) -> float | None:
        self.exchange.expiry.look(time.monotonic(), self._wall())  # `now` may be long ago, if this turn was a long one
        self.exchange.complaints.sweep(now)
        self._show_packets()  # a program around the broker may have set another level
        return now + CLOCK_CHECK

    def _show_packets(self) -> None:
        """Tell of each packet of who is connected, or no more, when the level of the log has become another one."""
        if self._packets_shown != self.log.debugging:
            self._packets_shown = self.log.debugging
            for entrance in self._entrances:
                for connection in entrance.connections.values():
                    watch(connection, self.log)

    # --- configuration ---

    def _apply_limits(self) -> None:
        limits = self.exchange.limits
        for row in fields(Limits):
            setattr(limits, row.name, getattr(self.config, row.name))
        if self.config.max_memory is None:
            limits.max_memory = max(LEAST_MEMORY, machine.memory() // 2)
        if self.config.max_session_expiry is None:
            limits.max_session_expiry = self.config.session_expiry
        self.exchange.limits_changed()
        self.loop.backlog.limit = self.exchange.memory.unsent.limit

    def _read_again(self) -> tuple[Config, Config, list[Rules]]:
        """On a worker's thread: what the configuration now says, what of it can be taken over, and what its files say.
        Raises ConfigError or FileError."""
        wanted = self._reread()
        config = self.config.reloaded(wanted)
        return wanted, config, [read_rules(listener) for listener in config.listeners]

    def _reload_failed(self, error: Exception) -> None:
        if not isinstance(error, loading.ConfigError | FileError):
            self._bug(error)
        self.log.error("reload failed: everything stays as it was", reason=str(error))
        self._notify("READY=1", "STATUS=the last reload failed: see the log")

    def _take_over(self, read: tuple[Config, Config, list[Rules]]) -> Iterator[None]:
        """Go by another configuration, as far as that is possible."""
        wanted, config, rules = read
        changes = self.config.changes(wanted)
        if config.log_level != self.config.log_level:
            self._set_level(config.log_level)
        self._show_packets()
        self.config = config
        for entrance, listener, rule in zip(self._entrances, config.listeners, rules, strict=True):
            entrance.replace(listener, rule)
        self._authors.clear()
        self._apply_limits()
        yield from self.exchange.sessions.rights_changed(self._rights)
        for entrance in self._entrances:
            yield from entrance.close_unwelcome()
        for change in changes:
            if change.reloadable:
                self.log.info("option changed", **change.fields())
            else:
                self.log.warning("option not changed: this needs a restart", **change.fields())
        self.log.info("reloaded")
        self._notify("READY=1", self._status)

    def _rights(self, session: Session) -> Rights | None:
        """What a client may do; one that is away, by the rules of the listener that it came in through.

        If that one is not known, or there is none by its name any more, all listeners must have the same rules. Where
        they have not, everything is queued; it is judged when the client comes for it.
        """
        if session.connection is not None:
            return session.connection.current_rights()
        judges = [entrance for entrance in self._entrances if entrance.gatekeeper.listener == session.listener]
        if not judges and len({(one.config.acl, one.gatekeeper.proves_names) for one in self._entrances}) > 1:
            return None
        return (judges or self._entrances)[0].gatekeeper.rights(session.proven_name, session.client_id)

    def _may_publish(self, record: RetainedRecord) -> bool:
        """May the author of a retained message still publish it, by the rules of the listener that it came in through?

        If there is none by its name any more, by those of each listener; if an older version did not note it, by those
        of any.
        """
        author = record.username, record.client_id, record.listener
        known = self._authors.get(author)
        if known is None:
            if len(self._authors) >= MAX_AUTHORS:
                self._authors.clear()
            judges = [entrance for entrance in self._entrances if entrance.gatekeeper.listener == record.listener]
            known = self._authors[author] = [
                entrance.gatekeeper.rights(record.username, record.client_id) for entrance in judges or self._entrances
            ]
        topic = record.message.topic
        allowed = (rights is None or rights.may_publish(topic) for rights in known)
        return any(allowed) if record.listener is None else all(allowed)

    def _proves_names(self) -> bool:
        """Is there a listener on which a client can prove a user name?"""
        return any(entrance.gatekeeper.proves_names for entrance in self._entrances)

    # --- the end ---

    def _begin_ending(self) -> None:
        """Take nothing more in, and give clients the time to take what is on its way to them."""
        self._notify("STOPPING=1")
        self.log.info("ending", clients=self.exchange.sessions.connected)
        self.exchange.closing = True
        self._draining = True
        self._deadline = time.monotonic() + self.grace
        for entrance in self._entrances:
            for connection in entrance.connections.values():
                connection.quiesce()
        self.timers.at(self._deadline, lambda now: None)  # wakes the loop

    def _go_on_ending(self) -> None:
        assert self._deadline is not None
        late = time.monotonic() >= self._deadline
        if self._draining:
            waits = self.exchange.journal.idle is False or any(
                transport.unsent for entrance in self._entrances for transport in entrance.connections
            )
            if waits and not late:
                return
            self._draining = late = False
            self._deadline = time.monotonic() + STORE_GRACE
            self.timers.at(self._deadline, lambda now: None)
            connections = [connection for entrance in self._entrances for connection in entrance.connections.values()]
            self.exchange.wills.close_down(self.config.data is None)
            farewell = reasons.elsewhere(self.exchange.limits, True) or ReasonCode.SERVER_SHUTTING_DOWN
            for connection in connections:
                if connection.state != CLOSED:
                    connection.close("the broker is shutting down", reason=farewell)
            self.exchange.expiry.stop()
            self.exchange.journal.end_of_turn()
        if self.exchange.journal.idle:
            self.loop.stop()
        elif late:
            self.log.error("ending without the store: what was not acknowledged is lost")
            self.loop.stop()

    def close(self) -> None:
        """Free everything. `run` does so by itself."""
        self._close_all(self._store)

    def _close_all(self, store: Store | None) -> None:
        for entrance in self._entrances:
            entrance.close()
        self._workers.close()
        self._lane.close()
        if store is not None:
            store.close()
        self.loop.close()


def names(listeners: Sequence[ListenerConfig]) -> list[str]:
    """A name for each listener that it has after a restart, too, also if they stand in another order: its address as
    configured. Those on port 0 of the same address are numbered."""
    found: list[str] = []
    for listener in listeners:
        name = listener.address
        number = 2
        while name in found:
            name = f"{listener.address} ({number})"
            number += 1
        found.append(name)
    return found


def _owed(client: Client) -> int:
    """About how much it is to be sent: who gets little does not wait for those who get much."""
    out = client.out
    return (len(out) << 10) + len(out[-1]) if out else 0


def _flush_one(client: Client) -> None:
    client.flush()


def _unguessable() -> str:
    return secrets.token_hex(8)
