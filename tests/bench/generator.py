"""The load generator: its own small MQTT 3.1.1 encoder and decoder, and one selector.

Owns: the bytes on the wire, how many messages are under way, the count of what arrived, the latency samples.
Must not know: which broker it talks to, what is measured about it. It imports nothing of `broker` or `conformance`.

A client library would cost more per message than a fast broker does. Here a publisher cuts blocks out of a ring of
frames that were encoded before the start, and a subscriber counts a block by the fixed size of its frames: what happens
per message is stamping the time and, every 17th message, reading it back.
"""

from __future__ import annotations

import contextlib
import math
import selectors
import ssl
import struct
import time
from collections.abc import Iterator, Sequence

import transports
from transports import Client, Endpoint, GeneratorError, Transport

SAMPLE_EVERY = 17  # prime, so that the samples do not fall into step with the blocks
STAMP = struct.Struct(">Q")  # the payload's first eight bytes: perf_counter_ns() when it was sent
SETUP_BATCH = 50  # handshakes under way at once: below any broker's listen backlog

CONNECT, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP = 0x10, 0x20, 0x30, 0x40, 0x50, 0x62, 0x70
SUBSCRIBE, SUBACK = 0x82, 0x90
PINGREQ, PINGRESP, DISCONNECT = b"\xc0\x00", b"\xd0\x00", b"\xe0\x00"


def text(value: str) -> bytes:
    raw = value.encode()
    return len(raw).to_bytes(2, "big") + raw


def packet(first_byte: int, body: bytes) -> bytes:
    length, digits = len(body), bytearray()
    while True:
        length, digit = divmod(length, 128)
        digits.append(digit | 0x80 if length else digit)
        if not length:
            return bytes((first_byte,)) + bytes(digits) + body


def connect_packet(client_id: str, clean: bool = True, keep_alive: int = 120) -> bytes:
    flags = 0x02 if clean else 0x00
    return packet(CONNECT, text("MQTT") + bytes((4, flags)) + keep_alive.to_bytes(2, "big") + text(client_id))


def subscribe_packet(packet_id: int, filters: Sequence[str], qos: int) -> bytes:
    body = b"".join(text(topic_filter) + bytes((qos,)) for topic_filter in filters)
    return packet(SUBSCRIBE, packet_id.to_bytes(2, "big") + body)


def publish_packet(topic: str, payload: bytes, qos: int, packet_id: int) -> bytes:
    identifier = packet_id.to_bytes(2, "big") if qos else b""
    return packet(PUBLISH | qos << 1, text(topic) + identifier + payload)


# Setting up: blocking, and pipelined over a batch of connections.


def open_clients(
    stack: contextlib.ExitStack, endpoint: Endpoint, client_ids: Sequence[str], clean: bool = True
) -> list[Client]:
    """One connection per Client Identifier, each accepted by the broker; `stack` closes them."""
    opened: list[Client] = []
    for start in range(0, len(client_ids), SETUP_BATCH):
        identifiers = client_ids[start : start + SETUP_BATCH]
        batch = [stack.enter_context(Client(endpoint)) for _ in identifiers]
        for client, client_id in zip(batch, identifiers, strict=True):
            client.open()
            client.send(connect_packet(client_id, clean))
        for number, client in enumerate(batch, start):
            answer = client.receive(4)
            if answer[0] != CONNACK or answer[3] != 0:
                raise GeneratorError(f"connection {number + 1:,} of {len(client_ids):,} was refused: {answer.hex()}")
        opened += batch
    return opened


def subscribe(client: Client, filters: Sequence[str], qos: int) -> None:
    for start in range(0, len(filters), 100):
        batch = filters[start : start + 100]
        client.send(subscribe_packet(1 + start // 100, batch, qos))
        answer = client.receive(4 + len(batch))
        if answer[0] != SUBACK or answer[4:] != bytes((qos,)) * len(batch):
            raise GeneratorError(f"SUBSCRIBE was not granted as asked: {answer.hex()}")


def leave(client: Client) -> None:
    """DISCONNECT, and wait until the broker has closed: then it has also seen it."""
    with contextlib.suppress(ConnectionError):
        client.send(DISCONNECT)
        while client.sock.recv(65536):
            pass
    client.close()


def forget_sessions(endpoint: Endpoint, client_ids: Sequence[str]) -> None:
    """End persistent Sessions by connecting with CleanSession = 1."""
    with contextlib.ExitStack() as stack:
        for client in open_clients(stack, endpoint, client_ids, clean=True):
            leave(client)


# Running.


class Peer:
    """A connection that takes part in a run. Writes never block: what the kernel does not take waits in `out`."""

    def __init__(self, client: Client, receive_size: int = 65536) -> None:
        client.sock.setblocking(False)
        self.client = client
        self.sock = client.sock
        self.receive_size = receive_size
        self.out = bytearray()
        self.tail = b""
        self.lane: Lane | None = None
        self.selector: selectors.BaseSelector | None = None

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self.out:
            self.out += data
            return
        try:
            taken = self.sock.send(data)
        except (BlockingIOError, ssl.SSLWantWriteError):
            taken = 0
        if taken < len(data):
            self.out += data[taken:]
            self._listen(selectors.EVENT_READ | selectors.EVENT_WRITE)

    def on_writable(self) -> None:
        with contextlib.suppress(BlockingIOError, ssl.SSLWantWriteError):
            del self.out[: self.sock.send(self.out)]
        if not self.out:
            self._listen(selectors.EVENT_READ)

    def _listen(self, events: int) -> None:
        assert self.selector is not None, "a peer is added to a Loop before it writes"
        self.selector.modify(self.sock, events, self)

    def receive(self) -> bytes:
        """What came, after the rest of the block before; empty when the wake-up was for nothing."""
        try:
            data = self.sock.recv(self.receive_size)
        except (BlockingIOError, ssl.SSLWantReadError):
            return b""
        if self.client.transport is Transport.TLS:
            data += self._more_records(self.receive_size - len(data))
        if not data:
            raise GeneratorError("the broker closed a connection during the run")
        return self.tail + data

    def _more_records(self, size: int) -> bytes:
        """TLS gives one record at a time, TCP all that has come: a broker's way of cutting must make no difference."""
        records = []
        with contextlib.suppress(ssl.SSLWantReadError):
            while size > 0 and (record := self.sock.recv(size)):
                records.append(record)
                size -= len(record)
        return b"".join(records)

    def on_readable(self) -> None:
        raise NotImplementedError


def unexpected(data: bytes, offset: int = 0) -> GeneratorError:
    return GeneratorError(f"the broker sent something unexpected: {data[offset : offset + 24].hex(' ')} ...")


class Source(Peer):
    """A publisher. `completed` counts PUBACK (QoS 1) or PUBCOMP (QoS 2); at QoS 0 nothing comes back.

    Over a WebSocket it can only do QoS 0: what it reads are packets without frames.
    """

    def __init__(self, client: Client, topics: Sequence[str], qos: int, payload: int, window: int) -> None:
        """
        topics: all of the same length, published to in turn
        payload: bytes, 8 or more
        window: the most messages ever under way. A Packet Identifier is free again after twice as many messages.
        """
        super().__init__(client)
        self.qos = qos
        self.slots = max(2 * window, len(topics))
        packets = [
            publish_packet(topics[slot % len(topics)], bytes(payload), qos, slot % 65535 + 1)
            for slot in range(self.slots)
        ]
        self.packet = packets[0]
        frames = [client.transport.framed(packet) for packet in packets]
        self.size = len(frames[0])
        self.ring = bytearray().join(frames)
        if len(self.ring) != self.size * self.slots:
            raise ValueError("topics must all have the same length")
        self.view = memoryview(self.ring)
        self.stamp_at = self.size - payload
        self.mask = client.transport.mask_at(len(self.packet) - payload)
        self.sent = 0
        self.completed = 0

    def send(self, count: int) -> None:
        stamp, ring, now = STAMP.pack_into, self.ring, time.perf_counter_ns() ^ self.mask
        while count:
            slot = self.sent % self.slots
            part = min(count, self.slots - slot)
            start, end = slot * self.size, (slot + part) * self.size
            for offset in range(start + self.stamp_at, end, self.size):
                stamp(ring, offset, now)
            self.write(self.view[start:end])
            self.sent += part
            count -= part

    def on_readable(self) -> None:
        data = self.receive()
        count = len(data) // 4
        whole = 4 * count
        kinds = data[0:whole:4]
        if data[1:whole:4] != b"\x02" * count:
            raise unexpected(data)
        if self.qos == 1 and kinds == bytes((PUBACK,)) * count:
            self.completed += count
        elif self.qos == 2:
            released = bytearray()
            for offset, kind in zip(range(0, whole, 4), kinds, strict=True):
                if kind == PUBREC:
                    released += b"\x62\x02" + data[offset + 2 : offset + 4]
                elif kind == PUBCOMP:
                    self.completed += 1
                else:
                    raise unexpected(data, offset)
            if released:
                self.write(released)
        elif data:
            raise unexpected(data)
        self.tail = data[whole:]


class Sink(Peer):
    """A subscriber of messages that all have the layout of `like`.

    `received` counts PUBLISH packets; `completed` the same, but at QoS 2 those whose PUBREL came too.
    """

    def __init__(self, client: Client, like: Source) -> None:
        super().__init__(client, max(65536, 4 * like.size))
        frame = client.transport.around_received(len(like.packet)) + like.packet
        self.qos = like.qos
        self.size = len(frame)
        self.stamp_at = self.size - (like.size - like.stamp_at)
        self.first_byte = frame[0]
        self.received = 0
        self.completed = 0
        self.latencies: list[int] = []  # nanoseconds
        self.until_sample = 0  # messages before the next sample

    def on_readable(self) -> None:
        data = self.receive()
        now = time.perf_counter_ns()
        if self.qos == 2:
            self._walk(data, now)
            return
        size = self.size
        count = len(data) // size
        whole = size * count
        kinds = data[0:whole:size]
        if kinds != bytes((self.first_byte,)) * count:
            wrong = len(kinds) - len(kinds.lstrip(bytes((self.first_byte,))))
            raise unexpected(data, wrong * size)
        if self.until_sample >= count:
            self.until_sample -= count
        else:
            for offset in range(self.until_sample * size + self.stamp_at, whole, SAMPLE_EVERY * size):
                self.latencies.append(now - STAMP.unpack_from(data, offset)[0])
            self.until_sample = -(count - self.until_sample) % SAMPLE_EVERY
        if self.qos and count:
            packet_id = self.stamp_at - 2
            acks = bytearray(b"\x40\x02\x00\x00" * count)
            acks[2::4] = data[packet_id:whole:size]
            acks[3::4] = data[packet_id + 1 : whole : size]
            self.write(acks)
        self.received += count
        self.completed += count
        self.tail = data[whole:]

    def _walk(self, data: bytes, now: int) -> None:
        """QoS 2: PUBLISH and PUBREL come mixed, in two sizes."""
        offset, replies = 0, bytearray()
        while offset < len(data):
            kind = data[offset]
            step = self.size if kind == self.first_byte else 4
            if offset + step > len(data):
                break
            if kind == self.first_byte:
                body = offset + self.stamp_at
                replies += b"\x50\x02" + data[body - 2 : body]
                if self.received % SAMPLE_EVERY == 0:
                    self.latencies.append(now - STAMP.unpack_from(data, body)[0])
                self.received += 1
            elif kind == PUBREL:
                replies += b"\x70\x02" + data[offset + 2 : offset + 4]
                self.completed += 1
            else:
                raise unexpected(data, offset)
            offset += step
        if replies:
            self.write(replies)
        self.tail = data[offset:]


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

    def __init__(self, lanes: Sequence[Lane]) -> None:
        self.lanes = lanes
        self.sources = [source for lane in lanes for source in lane.sources]
        self.sinks = [sink for lane in lanes for sink in lane.sinks]
        self._selector = selectors.DefaultSelector()
        for peer in (*self.sources, *self.sinks):
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
                answer = sink.client.receive(2, sink.tail)
                if answer != PINGRESP:
                    raise GeneratorError(f"more came than was published: {answer.hex()} instead of PINGRESP")


def connect_and_disconnect(endpoint: Endpoint, client_ids: Iterator[str], seconds: float, window: int) -> list[int]:
    """Closed loop of whole connections: TCP (and TLS), CONNECT, CONNACK, DISCONNECT, until the broker has closed.

    Returns the nanoseconds from connect() to CONNACK of each; `window` of them are under way at a time.
    """
    latencies: list[int] = []
    deadline = time.monotonic() + seconds
    connecting: dict[Client, int] = {}  # -> when it began
    leaving: set[Client] = set()
    with selectors.DefaultSelector() as selector:

        def start() -> None:
            now = time.perf_counter_ns()
            client = Client(endpoint)
            connecting[client] = now
            client.open()
            client.send(connect_packet(next(client_ids)))
            selector.register(client.sock, selectors.EVENT_READ, client)

        try:
            for _ in range(window):
                start()
            while connecting or leaving:
                ready = selector.select(transports.STALLED_AFTER)
                if not ready:
                    waited = f"{transports.STALLED_AFTER:g} s"
                    raise GeneratorError(f"no CONNACK, or no close after DISCONNECT, for {waited}")
                for key, _ in ready:
                    client: Client = key.data
                    if client in connecting:
                        answer = client.receive(4)
                        if answer != b"\x20\x02\x00\x00":
                            raise GeneratorError(f"refused after {len(latencies):,} connections: {answer.hex()}")
                        latencies.append(time.perf_counter_ns() - connecting.pop(client))
                        leaving.add(client)
                        client.send(DISCONNECT)
                    elif client.sock.recv(1):
                        raise GeneratorError("the broker answered a DISCONNECT")
                    else:
                        leaving.remove(client)
                        selector.unregister(client.sock)
                        client.close()
                        if time.monotonic() < deadline:
                            start()
        except ConnectionError as error:
            raise GeneratorError(f"a connection broke after {len(latencies):,}: {error}") from None
        finally:
            for client in (*connecting, *leaving):
                client.close()
    return latencies
