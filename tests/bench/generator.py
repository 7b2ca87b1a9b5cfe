"""The load: one selector over all connections of a run, and how many messages are under way on them.

Owns: the windows, the order of the publishers, the end of a run, the proof that nothing was lost or doubled.
Must not know: the bytes on the wire, which broker it talks to, what is measured about it.
"""

from __future__ import annotations

import contextlib
import math
import selectors
import time
from collections.abc import Iterator, Sequence

import transports
from packets import PINGREQ, PINGRESP
from peers import Peer, Sink, Source
from transports import GeneratorError


class Lane:
    """Publishers and subscribers that share one window."""

    def __init__(
        self, sources: Sequence[Source], sinks: Sequence[Sink], window: int, burst: int = 1, spread: bool = False
    ) -> None:
        """
        window: the most messages under way
        burst: how many messages one of several sources sends when its turn comes
        spread: each message goes to one of the sinks, not to all of them
        """
        self.sources = sources
        self.sinks = sinks
        self.window = window
        self.burst = burst
        self.spread = spread
        self.sent = 0
        self.limit: float = math.inf
        self._turn = 0
        self._slowest = 0
        self._delivered_to_all = 0
        for peer in (*sources, *sinks):
            peer.lane = self

    def expected(self) -> int:
        """Deliveries that follow from what was sent."""
        return self.sent if self.spread else self.sent * len(self.sinks)

    def under_way(self) -> int:
        """Messages that not every sink has, or (QoS > 0) that the broker has not acknowledged."""
        done = self.sent
        if self.spread:
            done = sum([sink.completed for sink in self.sinks])
        elif self.sinks:
            if self.sinks[self._slowest].completed != self._delivered_to_all:
                # The last of the slowest, so that a broker that serves its subscribers in order leads here once.
                self._slowest = min(range(len(self.sinks) - 1, -1, -1), key=lambda i: self.sinks[i].completed)
                self._delivered_to_all = self.sinks[self._slowest].completed
            done = self._delivered_to_all
        if self.sources[0].qos:
            done = min(done, sum([source.completed for source in self.sources]))
        return self.sent - done

    def pump(self) -> None:
        room = int(min(self.window - self.under_way(), self.limit - self.sent))
        while room >= self.burst:
            count = room if len(self.sources) == 1 else self.burst
            self.sources[self._turn].send(count)
            self._turn = (self._turn + 1) % len(self.sources)
            self.sent += count
            room -= count


class Loop:
    """One selector over all peers of a run. Use as a context manager."""

    def __init__(self, lanes: Sequence[Lane], others: Sequence[Peer] = ()) -> None:
        """others: peers that belong to no lane"""
        self.lanes = lanes
        self.sources = [source for lane in lanes for source in lane.sources]
        self.sinks = [sink for lane in lanes for sink in lane.sinks]
        self._selector = selectors.DefaultSelector()
        # A connection that publishes and receives is the source's.
        connections: dict[object, Peer] = {peer.sock: peer for peer in (*self.sinks, *self.sources, *others)}
        for peer in connections.values():
            peer.selector = self._selector
            self._selector.register(peer.sock, selectors.EVENT_READ, peer)
        self._heard = time.monotonic()

    def __enter__(self) -> Loop:
        return self

    def __exit__(self, *_: object) -> None:
        self._selector.close()

    def expected(self) -> int:
        return sum(lane.expected() for lane in self.lanes)

    def delivered(self) -> int:
        return sum(sink.received for sink in self.sinks)

    def latencies(self) -> list[int]:
        """Nanoseconds, sorted; and forgotten, so that the next phase begins anew."""
        samples = sorted(sample for sink in self.sinks for sample in sink.latencies)
        for sink in self.sinks:
            sink.latencies.clear()
        return samples

    def turn(self, timeout: float = 1.0) -> set[Lane]:
        """Serve all that is ready; returns the lanes whose peers received something."""
        touched: set[Lane] = set()
        ready = self._selector.select(timeout)
        for key, events in ready:
            peer: Peer = key.data
            if events & selectors.EVENT_READ:
                peer.on_readable()
                if peer.lane is not None:
                    touched.add(peer.lane)
            if events & selectors.EVENT_WRITE:
                peer.on_writable()
        now = time.monotonic()
        if ready:
            self._heard = now
        elif now - self._heard > transports.STALLED_AFTER:
            raise GeneratorError(f"nothing came for {transports.STALLED_AFTER:g} s")
        return touched

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        """A failure in here says how far the run had come."""
        self._heard = time.monotonic()
        try:
            yield
        except (ConnectionError, GeneratorError) as error:
            reason = f"a connection broke: {error}" if isinstance(error, ConnectionError) else str(error)
            published = sum(lane.sent for lane in self.lanes)
            counts = f"published {published:,}, expected {self.expected():,}, delivered {self.delivered():,}"
            raise GeneratorError(f"{reason} ({counts})") from None

    def run(self, seconds: float = math.inf, messages: float = math.inf) -> None:
        """Closed loop for so long, or so many messages per lane; returns when nothing is under way any more."""
        deadline = time.monotonic() + seconds
        with self._counted():
            for lane in self.lanes:
                lane.limit = lane.sent + messages
                lane.pump()
            while time.monotonic() < deadline and any(lane.sent < lane.limit for lane in self.lanes):
                for lane in self.turn():
                    lane.pump()
            while any(lane.under_way() > 0 for lane in self.lanes):
                self.turn()

    def run_clocked(self, seconds: float) -> float:
        """Open loop: each source publishes once a second, evenly spread; returns when all has arrived.

        Returns how late the generator was at worst, in seconds: its own fault, not the broker's.
        """
        rate, lane = len(self.sources), self.lanes[0]
        total, sent, latest = int(rate * seconds), 0, 0.0
        start = time.monotonic()
        with self._counted():
            while lane.under_way() > 0 or sent < total:
                now = time.monotonic()
                due = min(total, int((now - start) * rate) + 1)
                if sent < due:
                    latest = max(latest, now - start - sent / rate)
                for number in range(sent, due):
                    self.sources[number % rate].send(1)
                lane.sent += due - sent
                sent = due
                self.turn(max(0.0, start + sent / rate - time.monotonic()) if sent < total else 1.0)
        return latest

    def run_drain(self, messages: int) -> None:
        """Receive only, until the sinks have so many messages in all."""
        with self._counted():
            while self.delivered() < messages:
                self.turn()

    def check_nothing_follows(self) -> None:
        """After a run, which ends when all has arrived: prove that there is no more. A PINGRESP must come next."""
        with self._counted():
            if self.delivered() != self.expected():
                raise GeneratorError("more came than was published")
            for sink in self.sinks:
                sink.sock.settimeout(transports.STALLED_AFTER)
                sink.sock.sendall(sink.out)
                sink.client.send(PINGREQ)
            for sink in self.sinks:
                answer = sink.tail or sink.client.receive(2)
                if answer != PINGRESP:
                    raise GeneratorError(f"more came than was published: {answer.hex()} instead of PINGRESP")
