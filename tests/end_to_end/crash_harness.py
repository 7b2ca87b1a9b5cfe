"""Clients that hold a broker to its word while it is killed again and again.

Owns: strict clients of raw bytes that keep their state across connections as the specification asks, the record of
every acknowledgement at the moment it arrived, and the rules that all of it is judged by. Must not know: broker.

Everything runs in one thread around one selector, so that a record is never ahead of or behind what arrived.
"""

from __future__ import annotations

import contextlib
import random
import selectors
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from tests.raw_client import (
    DEADLINE,
    DISCONNECT,
    PINGRESP,
    Address,
    connect,
    parse_publish,
    puback,
    pubcomp,
    publish,
    pubrec,
    pubrel,
    subscribe,
    unsubscribe,
)

#: Payloads of these sizes: the last ones are kept apart from the others in the store.
SIZES = (0, 0, 0, 10, 10, 100, 100, 1000, 5000, 16_384, 40_000)


#: Moments at which a broker can be struck, and how often one of them may pass before.
MOMENTS = {
    "CONNACK": 30, "SUBACK": 20, "UNSUBACK": 10, "PUBACK": 200, "PUBREC": 200, "PUBCOMP": 200, "retained": 20,
    "PUBLISH 1": 500, "PUBLISH 2": 300, "PUBREL": 200,
}  # fmt: skip

WAYS_TO_LEAVE = ("DISCONNECT", "close", "reset")


class Violation(AssertionError):
    """The broker broke a rule, or its word."""


class Key(NamedTuple):
    """One message of one publisher."""

    publisher: str
    number: int


@dataclass
class Sent:
    """A message as its publisher knows it."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    times: int = 0  #: handed to a socket
    acknowledged: bool = False  #: PUBACK or PUBREC has come: the broker has taken it over


@dataclass
class Figures:
    """What happened, for people."""

    rounds: int = 0
    kills: int = 0
    published: int = 0
    resent: int = 0
    acknowledged: int = 0
    delivered: int = 0
    duplicates: int = 0  #: of QoS 1
    connections: int = 0
    subscriptions: int = 0  #: looked at after a start, whose state was known for sure

    def __str__(self) -> str:
        return (
            f"{self.rounds} rounds, {self.kills} kills, {self.connections} connections; published {self.published}, "
            f"sent again {self.resent}, acknowledged {self.acknowledged}, delivered {self.delivered}, "
            f"of these again at QoS 1 {self.duplicates}; subscriptions looked at {self.subscriptions}"
        )


class Link:
    """One connection: bytes out, packets in."""

    def __init__(self, address: Address) -> None:
        self.socket = socket.create_connection(address, DEADLINE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.out = bytearray()
        self.closed = False
        self._data = bytearray()

    def flush(self) -> None:
        with contextlib.suppress(BlockingIOError):
            try:
                while self.out:
                    del self.out[: self.socket.send(self.out)]
            except ConnectionError:
                self.out.clear()  # what has arrived before is still to be read

    def receive(self) -> Iterator[bytes]:
        """The whole packets that have arrived."""
        try:
            while data := self.socket.recv(1 << 18):
                self._data += data
            self.closed = True
        except BlockingIOError:
            pass
        except ConnectionError:
            self.closed = True
        pos = 0
        while size := _whole(self._data, pos):
            yield bytes(self._data[pos : pos + size])
            pos += size
        del self._data[:pos]


def _whole(data: bytearray, pos: int) -> int:
    """The size of the packet at `pos`, 0 if it is not whole."""
    length = 0
    for i, byte in enumerate(data[pos + 1 : pos + 5]):
        length |= (byte & 127) << 7 * i
        if byte < 128:
            return 2 + i + length if len(data) - pos >= 2 + i + length else 0
    return 0


class Client:
    """One client. What it knows of its session outlives its connections."""

    clean = False

    def __init__(self, world: World, client_id: str) -> None:
        self.world = world
        self.client_id = client_id
        self.link: Link | None = None
        self.accepted = False  #: has the CONNACK come?
        self._session: bool | None = False  # has the broker a session of ours? None: that was never answered
        self._before: bool | None = False
        world.clients.append(self)

    def connect(self) -> None:
        """Begin to connect, unless that has been done."""
        if self.link is not None:
            return
        self.link = Link(self.world.address)
        self.world.selector.register(self.link.socket, selectors.EVENT_READ, self)
        self.world.figures.connections += 1
        self._before = self._session
        if self.clean:
            self._session = False if self._session is False else None
        else:
            self._session = True if self._session is True else None
        self.send(self.greeting())

    def greeting(self) -> bytes:
        return connect(self.client_id, clean=self.clean)

    def send(self, data: bytes) -> None:
        assert self.link is not None
        self.link.out += data

    def leave(self, how: str) -> None:
        """End the connection: "DISCONNECT", "close" or "reset"."""
        if self.link is None:
            return
        if how == "DISCONNECT" and self.accepted:
            self.send(DISCONNECT)
            self.link.flush()
        elif how == "reset":
            self.link.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._lost()

    def ready(self) -> None:
        """Something has arrived."""
        link = self.link
        assert link is not None
        for packet in link.receive():
            if self.accepted:
                self.on_packet(packet)
            else:
                self._on_connack(packet)
            if self.link is not link:
                return
        if link.closed:
            self._lost()

    def _lost(self) -> None:
        assert self.link is not None
        self.world.selector.unregister(self.link.socket)
        self.link.socket.close()
        self.link = None
        self.accepted = False
        self.on_lost()

    def _on_connack(self, packet: bytes) -> None:
        """[MQTT-3.2.2-1] [MQTT-3.2.2-2] [MQTT-3.2.2-3]: Session Present is what was promised before."""
        self.check(packet[:2] == b"\x20\x02", f"{packet[:20]!r} instead of CONNACK")
        present, code = packet[2] == 1, packet[3]
        if code == 3 and self.world.ending:
            return  # and the end of the connection follows
        self.check(code == 0, f"refused with code {code}")
        if self.clean or self._before is not None:
            expected = not self.clean and self._before is True
            self.check(present == expected, f"Session Present {present} instead of {expected}")
        self._session = not self.clean
        self.accepted = True
        self.world.saw("CONNACK")
        self.on_accepted(present)

    def check(self, fine: bool, what: str) -> None:
        if not fine:
            raise Violation(f"{self.client_id}: {what}")

    def on_accepted(self, present: bool) -> None:
        """The CONNACK has come."""

    def on_packet(self, packet: bytes) -> None:
        raise Violation(f"{self.client_id}: unexpected {packet[:20]!r}")

    def on_lost(self) -> None:
        """The connection has ended."""

    def work(self) -> None:
        """Called in every step of the world."""


class Publisher(Client):
    """Publishes at QoS 1 and 2, and sends again what was not acknowledged when it is back."""

    def __init__(self, world: World, client_id: str, *, window: int, topics: int = 3) -> None:
        super().__init__(world, client_id)
        self.window = window
        self.topics = topics
        self.stopped = False
        self.outstanding: dict[int, tuple[Key, bool]] = {}  #: by identifier: what, and has PUBREC come? In their order
        self._next_id = 0
        self._number = 0

    def work(self) -> None:
        while self.accepted and not self.stopped and len(self.outstanding) < self.window:
            self._publish_next()

    def next_message(self) -> Sent:
        """What to publish next."""
        chance = self.world.chance
        head = b"%s %d " % (self.client_id.encode(), self._number)
        payload = head + b"." * chance.choice(SIZES)
        return Sent(f"crash/{self.client_id}/{chance.randrange(self.topics)}", payload, chance.choice((1, 2)), False)

    def _publish_next(self) -> None:
        while True:
            self._next_id = self._next_id % 65_535 + 1
            if self._next_id not in self.outstanding:
                break
        key = Key(self.client_id, self._number)
        self.world.sent[key] = self.next_message()
        self._number += 1
        self.outstanding[self._next_id] = (key, False)
        self.world.figures.published += 1
        self._send(self._next_id, key, dup=False)

    def _send(self, packet_id: int, key: Key, *, dup: bool) -> None:
        sent = self.world.sent[key]
        sent.times += 1
        self.send(publish(sent.topic, sent.payload, sent.qos, packet_id=packet_id, retain=sent.retain, dup=dup))

    def on_accepted(self, present: bool) -> None:
        """[MQTT-4.4.0-1]: what was not acknowledged goes out again, with its identifier, in the old order."""
        for packet_id, (key, received) in self.outstanding.items():
            self.world.figures.resent += 1
            if received:
                self.send(pubrel(packet_id))
            else:
                self._send(packet_id, key, dup=True)

    def on_packet(self, packet: bytes) -> None:
        kind, size, packet_id = struct.unpack("!BBH", packet)
        self.check(size == 2 and packet_id in self.outstanding, f"{packet!r} acknowledges nothing")
        key, received = self.outstanding[packet_id]
        sent = self.world.sent[key]
        if kind == 0x40:
            self.check(sent.qos == 1, f"PUBACK for {key}, which has QoS 2")
            self._acknowledged(key, "PUBACK")
            del self.outstanding[packet_id]
        elif kind == 0x50:
            self.check(sent.qos == 2, f"PUBREC for {key}, which has QoS 1")
            self._acknowledged(key, "PUBREC")
            self.outstanding[packet_id] = (key, True)
            self.send(pubrel(packet_id))
        else:
            self.check(kind == 0x70 and received, f"{packet!r} for {key}, which was not released")
            del self.outstanding[packet_id]
            self.world.saw("PUBCOMP")

    def _acknowledged(self, key: Key, kind: str) -> None:
        sent = self.world.sent[key]
        self.world.saw("retained" if sent.retain else kind)
        if not sent.acknowledged:
            sent.acknowledged = True
            self.world.figures.acknowledged += 1


class FleetingPublisher(Publisher):
    """Publishes with CleanSession = 1: what was not acknowledged is given up with the connection."""

    clean = True

    def on_lost(self) -> None:
        self.outstanding.clear()


class Keeper(Publisher):
    """Publishes retained messages, and now and then removes one."""

    def next_message(self) -> Sent:
        chance = self.world.chance
        payload = b"" if chance.random() < 0.2 else b"%d" % self._number + b"." * chance.choice(SIZES)
        # One QoS for a topic: order is promised by topic and QoS, and a QoS 1 message that is sent again after a crash
        # may rightly take the place of one of QoS 2 that came behind it.
        number = chance.randrange(self.topics)
        return Sent(f"retained/{self.client_id}/{number}", payload, 1 + number % 2, True)

    def check_retained(self, found: dict[str, bytes]) -> None:
        """Each topic's message is the newest that was acknowledged, or one that was sent after it."""
        possible: dict[str, list[bytes]] = {}
        for number in range(self._number):
            sent = self.world.sent[Key(self.client_id, number)]
            if sent.acknowledged:
                possible[sent.topic] = [sent.payload]
            else:
                possible.setdefault(sent.topic, [b""]).append(sent.payload)
        for topic, payloads in possible.items():
            value = found.pop(topic, b"")
            self.check(value in payloads, f"{topic} holds {value[:20]!r} instead of {[p[:20] for p in payloads]}")


class Subscriber(Client):
    """A persistent session that takes `crash/#`.

    `presence`: "present" is always there, "visits" comes and goes, "absent" comes when all is over. A `lazy` one
    acknowledges late.
    """

    def __init__(self, world: World, client_id: str, qos: int, presence: str, *, lazy: bool = False) -> None:
        super().__init__(world, client_id)
        self.qos = qos
        self.presence = presence
        self.lazy = lazy
        self.subscribed = False  #: has the SUBACK come?
        self.delivered: Counter[Key] = Counter()
        self._held: dict[int, Key] = {}  # QoS 2 identifiers that were not released [MQTT-4.3.3-2]
        self._ids: dict[Key, int] = {}  # identifiers of messages of QoS 2
        self._fresh: Counter[Key] = Counter()  # arrivals without DUP
        self._newest: dict[tuple[str, str, int], int] = {}  # by publisher, topic and QoS
        self._answers: list[bytes] = []

    def on_accepted(self, present: bool) -> None:
        self._answers.clear()
        if not self.subscribed:
            self.send(subscribe(("crash/#", self.qos)))

    def on_packet(self, packet: bytes) -> None:
        kind = packet[0] >> 4
        if kind == 3:
            self._on_publish(packet)
        elif kind == 9:
            self.check(packet == struct.pack("!BBHB", 0x90, 3, 1, self.qos), f"SUBACK {packet!r}")
            self.subscribed = True
        else:
            self.check(packet[:2] == b"\x62\x02", f"unexpected {packet[:20]!r}")
            (packet_id,) = struct.unpack("!H", packet[2:])
            self._held.pop(packet_id, None)
            self.world.saw("PUBREL")
            self._answers.append(pubcomp(packet_id))

    def _on_publish(self, packet: bytes) -> None:
        found = parse_publish(packet)
        self.world.saw(f"PUBLISH {found.qos}")
        publisher, number, _ = found.payload.split(b" ", 2)
        key = Key(publisher.decode(), int(number))
        sent = self.world.sent.get(key)
        if sent is None:
            raise Violation(f"{self.client_id}: {key} was never published")
        same = (found.topic, found.payload, found.retain) == (sent.topic, sent.payload, False)
        self.check(same, f"{key} was changed: {packet[:80]!r}")
        self.check(found.qos == min(sent.qos, self.qos), f"{key} came at QoS {found.qos}")
        if not found.dup:
            self._fresh[key] += 1
            # [MQTT-3.3.1-1]: what is new to the broker is what it was sent anew, and at QoS 2 only once
            most = sent.times if found.qos == 1 else 1
            self.check(self._fresh[key] <= most, f"{key} was delivered again without DUP: {packet[:80]!r}")
        if found.qos == 1:
            self._answers.append(puback(found.packet_id))
            self._deliver(key, sent)
            return
        self._answers.append(pubrec(found.packet_id))
        # [MQTT-4.4.0-1]
        old = self._ids.setdefault(key, found.packet_id)
        self.check(found.packet_id == old, f"{key} came with identifier {found.packet_id} after {old}")
        held = self._held.get(found.packet_id)
        # [MQTT-2.3.1-4]
        self.check(held in (None, key), f"{key} came with the identifier of {held}, which was not released")
        if held is None:
            self._held[found.packet_id] = key
            self._deliver(key, sent)

    def _deliver(self, key: Key, sent: Sent) -> None:
        self.delivered[key] += 1
        self.world.figures.delivered += 1
        if self.delivered[key] > 1:
            self.check(min(sent.qos, self.qos) == 1, f"{key} was delivered again at QoS 2")  # [MQTT-4.3.3-2]
            self.world.figures.duplicates += 1
            return
        # [MQTT-4.6.0-6]: in order, by publisher, topic and QoS
        stream = (key.publisher, sent.topic, sent.qos)
        newest = self._newest.get(stream, -1)
        self.check(key.number > newest, f"{key} came first after {newest} of the same topic")
        self._newest[stream] = key.number

    def work(self) -> None:
        if self.accepted and self._answers and not (self.lazy and self.world.chance.random() < 0.7):
            self.send(b"".join(self._answers))
            self._answers.clear()

    def missing(self) -> list[Key]:
        """What the broker has taken over, and this client did not get."""
        return [
            key
            for key, sent in self.world.sent.items()
            if sent.acknowledged and not sent.retain and key not in self.delivered
        ]

    @property
    def idle(self) -> bool:
        """Has it nothing more to say?"""
        return not (self._answers or self._held)


class Collector(Client):
    """Subscribes and unsubscribes all the time, and knows which of it was acknowledged."""

    def __init__(self, world: World, client_id: str, filters: int) -> None:
        super().__init__(world, client_id)
        self.stopped = False
        self.possible: dict[str, set[int | None]] = {f"extra/{i}": {None} for i in range(filters)}  #: granted QoS
        self.collected: Counter[tuple[str, bytes, int]] = Counter()  #: by topic, payload and QoS
        self.pongs = 0
        self._asked: dict[int, tuple[str, int | None]] = {}
        self._next_id = 0

    def work(self) -> None:
        while self.accepted and not self.stopped and len(self._asked) < 10:
            self._next_id = self._next_id % 65_535 + 1
            topic = self.world.chance.choice(list(self.possible))
            qos = self.world.chance.choice((None, 0, 1, 2))
            self.possible[topic].add(qos)
            self._asked[self._next_id] = (topic, qos)
            if qos is None:
                self.send(unsubscribe(topic, packet_id=self._next_id))
            else:
                self.send(subscribe((topic, qos), packet_id=self._next_id))

    def on_lost(self) -> None:
        self._asked.clear()  # what was before and what was asked remain possible

    def on_packet(self, packet: bytes) -> None:
        kind = packet[0] >> 4
        if packet == PINGRESP:
            self.pongs += 1
        elif kind == 3:
            found = parse_publish(packet)
            self.collected[found.topic, found.payload, found.qos] += 1
            if found.qos:
                self.send(puback(found.packet_id) if found.qos == 1 else pubrec(found.packet_id))
        elif kind == 6:
            self.send(pubcomp(*struct.unpack("!H", packet[2:])))
        else:
            (packet_id,) = struct.unpack("!H", packet[2:4])
            topic, qos = self._asked.pop(packet_id)
            self.world.saw("UNSUBACK" if qos is None else "SUBACK")
            if qos is None:
                expected = struct.pack("!BBH", 0xB0, 2, packet_id)
            else:
                expected = struct.pack("!BBHB", 0x90, 3, packet_id, qos)
            self.check(packet == expected, f"{packet!r} instead of {expected!r}")
            self.possible[topic] = {qos} | {later for where, later in self._asked.values() if where == topic}

    def check_collected(self, probe: bytes) -> int:
        """Each topic's probe came at the QoS that was granted last, or not at all where nothing was.

        How many topics had but one possible answer?
        """
        sure = 0
        for topic, possible in self.possible.items():
            came = [
                (qos, count) for (where, what, qos), count in self.collected.items() if (where, what) == (topic, probe)
            ]
            if came:
                self.check(
                    came[0][0] in possible and came[0][1] == len(came) == 1, f"{topic} came at {came}: {possible}"
                )
            else:
                self.check(None in possible, f"{topic} did not come: {possible}")
            sure += len(possible) == 1
        return sure


class Wiper(Client):
    """Its session is made and ended in turns: Session Present must follow."""

    def work(self) -> None:
        if self.accepted:
            self.leave(self.world.chance.choice(WAYS_TO_LEAVE))

    def on_lost(self) -> None:
        self.clean = self.world.chance.random() < 0.5


ClientT = TypeVar("ClientT", bound=Client)


@dataclass
class World:
    """All clients of one broker, the chance that they share, and what was published."""

    seed: int
    address: Address = ("", 0)
    clients: list[Client] = field(default_factory=list)
    sent: dict[Key, Sent] = field(default_factory=dict)
    figures: Figures = field(default_factory=Figures)
    ending: bool = False  #: was the broker asked to end?
    strike: Callable[[], object] | None = None  #: called once, at the chosen moment
    moment: str = ""
    passes: int = 0

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self.selector = selectors.DefaultSelector()

    def of_kind(self, kind: type[ClientT]) -> list[ClientT]:
        return [client for client in self.clients if isinstance(client, kind)]

    def saw(self, moment: str) -> None:
        """One of the MOMENTS: this packet has come, and nothing was done since."""
        if self.strike is not None and moment == self.moment:
            self.passes -= 1
            if self.passes < 0:
                strike, self.strike = self.strike, None
                strike()

    def strike_at_a_random_moment(self, strike: Callable[[], object]) -> None:
        self.moment = self.chance.choice(list(MOMENTS))
        self.passes = self.chance.randrange(MOMENTS[self.moment])
        self.strike = strike

    def step(self, timeout: float = 0.005) -> None:
        """Let every client do what there is to do."""
        for client in self.clients:
            client.work()
        waiting = False
        for client in self.clients:
            if client.link is not None and client.link.out:
                client.link.flush()
                waiting = waiting or bool(client.link is not None and client.link.out)
        for key, _ in self.selector.select(0.001 if waiting else timeout):
            client = key.data
            if client.link is not None and client.link.socket is key.fileobj:
                client.ready()

    def until(self, condition: Callable[[], bool], what: str, timeout: float = 60.0) -> None:
        """Go on until it is true."""
        end = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > end:
                raise Violation(f"not within {timeout} s: {what}")
            self.step()

    def hear_out(self) -> None:
        """The broker is dead: read what it had sent before, to the end of every connection. Some lose it instead."""
        for client in self.clients:
            if self.chance.random() < 0.4:
                client.leave("reset")
        self.until(self._silent, "all connections have ended")

    def _silent(self) -> bool:
        for client in self.clients:
            if client.link is not None:
                client.link.out.clear()
                client.ready()
        return all(client.link is None for client in self.clients)

    def close(self) -> None:
        for client in self.clients:
            if client.link is not None:
                client.link.socket.close()
        self.selector.close()
