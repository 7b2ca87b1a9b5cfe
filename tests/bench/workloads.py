"""The kinds of workload.

Owns: what each kind does, and what is read from the broker before and after it.
Must not know: which rows there are, how a broker is started, how results are combined over rounds and shown.
"""

from __future__ import annotations

import contextlib
import itertools
import secrets
import time
from dataclasses import dataclass
from typing import Protocol

import clients
import messages
from generator import Lane, Loop
from messages import Messages
from peers import Requester, Responder, Sink, Source
from targets import Broker
from transports import Client, GeneratorError


@dataclass(frozen=True)
class Plan:
    """How long and how large. The defaults are the full run."""

    seconds: float = 2.5  # measured per round, after a tenth of it as warm-up
    connections: int = 10_000
    backlog: int = 1_000_000
    subscriptions: int = 100_000
    descriptors: int = 65_536  # how many this process and the broker may each have


@dataclass(frozen=True)
class Figures:
    """What one round of one workload gave. Where the broker's process is unknown, what is read from it is None."""

    part: str  # empty, or which part of the workload this is
    unit: str  # of `cost`: the figure by which brokers are compared, lower is better
    cost: float | None
    seconds: float
    rate: float | None  # messages delivered (connections made, messages stored) per second
    broker_busy: float | None  # share of its core, 1 is all of it
    generator_busy: float
    p50: float | None  # milliseconds
    p99: float | None
    memory: float | None  # MiB resident at the end, with all connections open
    notes: dict[str, float]


class Meter:
    """The broker's and the generator's CPU time from its creation on."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.cpu = broker.cpu_seconds()
        self.own_cpu = time.process_time()
        self.start = time.perf_counter()

    def figures(
        self,
        count: int,
        latencies: list[int],
        unit: str = "us/message",
        part: str = "",
        cost: float | None = None,
        notes: dict[str, float] | None = None,
    ) -> Figures:
        """
        count: of what the rate and the cost are per one
        latencies: nanoseconds, sorted
        cost: instead of CPU microseconds per one
        """
        seconds = time.perf_counter() - self.start
        own_cpu = time.process_time() - self.own_cpu
        cpu = self.broker.cpu_seconds()
        used = None if cpu is None or self.cpu is None else cpu - self.cpu
        memory = self.broker.memory()
        if cost is None and used is not None and count:
            cost = used / count * 1e6
        return Figures(
            part=part,
            unit=unit,
            cost=cost,
            seconds=seconds,
            rate=count / seconds if count else None,
            broker_busy=None if used is None else used / seconds,
            generator_busy=own_cpu / seconds,
            p50=percentile(latencies, 0.50),
            p99=percentile(latencies, 0.99),
            memory=None if memory is None else memory / 2**20,
            notes=notes or {},
        )


def percentile(ordered: list[int], share: float) -> float | None:
    """Milliseconds from sorted nanoseconds; None without a sample."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] / 1e6 if ordered else None


class Kind(Protocol):
    def run(self, broker: Broker, plan: Plan) -> list[Figures]:
        """One round against a fresh broker.

        Raises GeneratorError when not every published message was delivered once, or the broker went away.
        """
        ...


class TooFewDescriptors(GeneratorError):
    """Not the broker's fault."""


def need_descriptors(connections: int, plan: Plan) -> None:
    if plan.descriptors < connections + 200:
        raise TooFewDescriptors(
            f"needs {connections + 200:,} file descriptors, the limit is {plan.descriptors:,}: raise it with "
            f"`ulimit -n {connections + 200}` (as root, or in limits.conf), or give a lower --connections"
        )


@dataclass(frozen=True)
class Flow:
    """Closed loop: publishers send only while fewer than `window` messages are under way in all."""

    publishers: int
    subscribers: int
    window: int
    paired: bool = False  # each publisher has a subscriber and a topic of its own, and its share of the window
    qos: int = 0
    payload: int = 64  # bytes
    burst: int = 1  # messages that a publisher sends at once, when many share one window
    persistent: bool = False  # the subscribers have CleanSession = 0
    shared: bool = False  # the subscribers are one group: each message goes to one of them
    aliased: bool = False  # the publisher sends an alias instead of the topic

    def run(self, broker: Broker, plan: Plan) -> list[Figures]:
        token = secrets.token_hex(4)
        sink_ids = [f"{token}s{number}" for number in range(self.subscribers)]
        with contextlib.ExitStack() as stack:
            sinks = clients.open_clients(stack, broker.endpoint, sink_ids, clean=not self.persistent)
            source_ids = [f"{token}p{number}" for number in range(self.publishers)]
            sources = clients.open_clients(stack, broker.endpoint, source_ids)
            lane_count = self.publishers if self.paired else 1
            lanes = [
                self._lane(f"bench/{token}/{number:04d}", sources[number::lane_count], sinks[number::lane_count])
                for number in range(lane_count)
            ]
            loop = stack.enter_context(Loop(lanes))
            figures = measured(broker, plan, loop)
            if self.shared:
                busiest = max(sink.received for sink in loop.sinks) * len(loop.sinks) / loop.delivered()
                figures.notes["times the fair share went to the busiest member"] = busiest
            loop.check_nothing_follows()
        if self.persistent:
            clients.forget_sessions(broker.endpoint, sink_ids)
        return [figures]

    def _lane(self, topic: str, publishers: list[Client], subscribers: list[Client]) -> Lane:
        window = self.window // self.publishers if self.paired else self.window
        stream = self._stream(publishers[0], topic, window)
        if stream.opening:  # before there is a subscriber
            clients.send_before_the_run(publishers[0], stream.opening)
        for client in subscribers:
            clients.subscribe(client, [f"$share/bench/{topic}" if self.shared else topic], self.qos)
        return Lane(
            [Source(client, stream, window) for client in publishers],
            [Sink(client, stream) for client in subscribers],
            window,
            self.burst,
            self.shared,
        )

    def _stream(self, publisher: Client, topic: str, window: int) -> Messages:
        mqtt = publisher.endpoint.mqtt
        if not self.aliased:
            return messages.plain(mqtt, [topic], self.qos, self.payload, window)
        if not publisher.accepted.topic_alias_maximum:
            raise GeneratorError("the broker takes no topic alias (Topic Alias Maximum 0)")
        return messages.aliased(mqtt, topic, self.payload, window)


def measured(broker: Broker, plan: Plan, loop: Loop, unit: str = "us/message", part: str = "") -> Figures:
    """A closed loop, warmed up and measured."""
    loop.run(plan.seconds / 10)
    loop.latencies()
    delivered = loop.delivered()
    meter = Meter(broker)
    loop.run(plan.seconds)
    return meter.figures(loop.delivered() - delivered, loop.latencies(), unit, part)


@dataclass(frozen=True)
class Requests:
    """One client asks, another answers on the topic that the request names; the cost is of both messages."""

    window: int
    payload: int = 64  # bytes, of the request and of the response

    def run(self, broker: Broker, plan: Plan) -> list[Figures]:
        token = secrets.token_hex(4)
        topic, response_topic = f"bench/{token}/ask", f"bench/{token}/answer"
        with contextlib.ExitStack() as stack:
            asking, answering = clients.open_clients(stack, broker.endpoint, [f"{token}a", f"{token}b"])
            clients.subscribe(asking, [response_topic], 0)
            clients.subscribe(answering, [topic], 0)
            stream = messages.requests(broker.endpoint.mqtt, topic, response_topic, self.payload, self.window)
            requester = Requester(asking, stream, self.window)
            responder = Responder(answering, stream.packets[0], self.payload)
            loop = stack.enter_context(Loop([Lane([requester], [requester.sink], self.window)], [responder]))
            figures = measured(broker, plan, loop, "us/request")
            loop.check_nothing_follows()
            return [figures]


@dataclass(frozen=True)
class Connects:
    """Closed loop of connections that do nothing: the cost is of one connect with its disconnect."""

    window: int

    def run(self, broker: Broker, plan: Plan) -> list[Figures]:
        token = secrets.token_hex(4)
        client_ids = (f"{token}c{number}" for number in itertools.count())
        clients.connect_and_disconnect(broker.endpoint, client_ids, plan.seconds / 10, self.window)
        meter = Meter(broker)
        latencies = clients.connect_and_disconnect(broker.endpoint, client_ids, plan.seconds, self.window)
        return [meter.figures(len(latencies), sorted(latencies), unit="us/connect")]


@dataclass(frozen=True)
class Idle:
    """Connections that only stay; the cost is the growth of the resident memory, divided by them."""

    def run(self, broker: Broker, plan: Plan) -> list[Figures]:
        need_descriptors(plan.connections, plan)
        token = secrets.token_hex(4)
        with contextlib.ExitStack() as stack:
            clients.open_clients(stack, broker.endpoint, [f"{token}w{number}" for number in range(100)])
            before = broker.memory()
            client_ids = [f"{token}i{number}" for number in range(plan.connections)]
            start = time.perf_counter()
            clients.open_clients(stack, broker.endpoint, client_ids)
            connect_rate = plan.connections / (time.perf_counter() - start)
            after = broker.memory()
            each = None if before is None or after is None else (after - before) / plan.connections / 1024
            meter = Meter(broker)
            time.sleep(plan.seconds)
            return [
                meter.figures(
                    0, [], unit="KiB/connection", cost=each, notes={"connections made per second": connect_rate}
                )
            ]


@dataclass(frozen=True)
class Clocked:
    """Open loop: every connection publishes once a second, whatever the broker does; one subscriber gets all."""

    def run(self, broker: Broker, plan: Plan) -> list[Figures]:
        need_descriptors(plan.connections, plan)
        token = secrets.token_hex(4)
        with contextlib.ExitStack() as stack:
            (subscriber,) = clients.open_clients(stack, broker.endpoint, [f"{token}s"])
            clients.subscribe(subscriber, [f"bench/{token}/+"], 0)
            publishers = clients.open_clients(
                stack, broker.endpoint, [f"{token}p{number}" for number in range(plan.connections)]
            )
            mqtt = broker.endpoint.mqtt
            streams = [
                messages.plain(mqtt, [f"bench/{token}/{number:06d}"], 0, 64, 1) for number in range(plan.connections)
            ]
            sources = [Source(client, stream, 1) for client, stream in zip(publishers, streams, strict=True)]
            loop = stack.enter_context(Loop([Lane(sources, [Sink(subscriber, streams[0])], plan.connections)]))
            loop.run_clocked(plan.seconds / 2.5)
            loop.latencies()
            delivered = loop.delivered()
            meter = Meter(broker)
            late = loop.run_clocked(plan.seconds * 4)
            figures = meter.figures(
                loop.delivered() - delivered, loop.latencies(), notes={"ms late at worst, the generator": late * 1000}
            )
            loop.check_nothing_follows()
            return [figures]


@dataclass(frozen=True)
class Backlog:
    """QoS 1 messages for a persistent Session whose client is away; then it returns and takes them all."""

    window: int

    def run(self, broker: Broker, plan: Plan) -> list[Figures]:
        token, count = secrets.token_hex(4), plan.backlog
        topic = f"bench/{token}"
        with contextlib.ExitStack() as stack:
            (absent,) = clients.open_clients(stack, broker.endpoint, [f"{token}s"], clean=False)
            clients.subscribe(absent, [topic], 1)
            clients.leave(absent)
            (publisher,) = clients.open_clients(stack, broker.endpoint, [f"{token}p"])
            stream = messages.plain(broker.endpoint.mqtt, [topic], 1, 64, self.window)
            source = Source(publisher, stream, self.window)
            before = broker.memory()
            with Loop([Lane([source], [], self.window)]) as loop:
                meter = Meter(broker)
                loop.run(messages=count)
                stored = meter.figures(count, [], part="stored")
            if before is not None and stored.memory is not None:
                stored.notes["MiB more with the backlog"] = stored.memory - before / 2**20
            meter = Meter(broker)
            (returned,) = clients.open_clients(stack, broker.endpoint, [f"{token}s"], clean=False)
            sink = Sink(returned, stream)
            lane = Lane([], [sink], count)
            lane.sent = count
            with Loop([lane]) as loop:
                loop.run_drain(count)
                drained = meter.figures(sink.received, [], part="drained")
                loop.check_nothing_follows()
        clients.forget_sessions(broker.endpoint, [f"{token}s"])
        return [stored, drained]


@dataclass(frozen=True)
class Subscriptions:
    """Each message matches exactly one of many subscriptions; beside the same with a hundred of them."""

    connections: int
    window: int
    few: int = 100

    def run(self, broker: Broker, plan: Plan) -> list[Figures]:
        few = self._measure(broker, plan, self.few)
        many = self._measure(broker, plan, plan.subscriptions)
        if few.cost and many.cost:
            many.notes[f"times the cost of {self.few} subscriptions"] = many.cost / few.cost
        return [few, many]

    def _measure(self, broker: Broker, plan: Plan, count: int) -> Figures:
        token = secrets.token_hex(4)
        topics, filters = [], []
        for number in range(count):
            topics.append(f"{token}/{number:06d}/a/b")
            # One in a hundred holds a wildcard: at the end, in the middle and at the beginning in turn.
            wild = (f"{token}/{number:06d}/#", f"{token}/{number:06d}/+/b", f"+/{number:06d}/a/b")
            filters.append(topics[-1] if number % 100 else wild[number // 100 % 3])
        # Neighbours in the order of publishing belong to different connections and branches.
        topics = [topics[number * 7919 % count] for number in range(count)]
        with contextlib.ExitStack() as stack:
            client_ids = [f"{token}s{number}" for number in range(self.connections)]
            subscribers = clients.open_clients(stack, broker.endpoint, client_ids)
            (publisher,) = clients.open_clients(stack, broker.endpoint, [f"{token}p"])
            stream = messages.plain(broker.endpoint.mqtt, topics, 0, 64, self.window)
            source = Source(publisher, stream, self.window)
            for number, client in enumerate(subscribers):
                clients.subscribe(client, filters[number :: self.connections], 0)
            sinks = [Sink(client, stream) for client in subscribers]
            loop = stack.enter_context(Loop([Lane([source], sinks, self.window, spread=True)]))
            figures = measured(broker, plan, loop, part=f"{count:,} subscriptions")
            loop.check_nothing_follows()
            return figures
