"""The connections of a run: publishers, subscribers, and the two ends of requests with responses.

Owns: what is sent and acknowledged on each, the count of what arrived, the latency samples.
Must not know: which broker it talks to, how many messages may be under way, what is measured.

A client library would cost more per message than a fast broker does. Here a publisher cuts blocks out of a ring of
frames that were encoded before the start, and a subscriber counts a block by the fixed size of its frames: what happens
per message is stamping the time and, every 17th message, reading it back.
"""

from __future__ import annotations

import contextlib
import selectors
import ssl
import struct
import time
from typing import TYPE_CHECKING

import messages
from messages import STAMP_SIZE, Messages
from packets import (
    CORRELATION_DATA,
    DISCONNECT,
    PUBACK,
    PUBCOMP,
    PUBREC,
    PUBREL,
    RESPONSE_TOPIC,
    find_properties,
    read_variable,
)
from transports import Client, GeneratorError, Transport, Unframer

if TYPE_CHECKING:
    from generator import Lane

SAMPLE_EVERY = 17  # prime, so that the samples do not fall into step with the blocks
STAMP = struct.Struct(">Q")
CLOSED = "the broker closed a connection during the run"


class Peer:
    """A connection that takes part in a run. Writes never block: what the kernel does not take waits in `out`."""

    def __init__(self, client: Client, receive_size: int = 65536) -> None:
        client.sock.setblocking(False)
        self.client = client
        self.sock = client.sock
        self.receive_size = receive_size
        self.out = bytearray()
        self.tail = b""
        self.unframer: Unframer | None = None
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
            raise unexpected(self.tail) if self.tail[:1] == DISCONNECT[:1] else GeneratorError(CLOSED)
        if self.unframer is not None:
            data = self.unframer.feed(data)
        return self.tail + data

    def _more_records(self, size: int) -> bytes:
        """TLS gives one record at a time, TCP all that has come: a broker's way of cutting must make no difference."""
        assert isinstance(self.sock, ssl.SSLSocket)
        records = []
        with contextlib.suppress(ssl.SSLWantReadError):
            # Of a record that is begun, no selector tells that there is more of it.
            while (size > 0 or self.sock.pending()) and (record := self.sock.recv(max(size, 16384))):
                records.append(record)
                size -= len(record)
        return b"".join(records)

    def on_readable(self) -> None:
        raise NotImplementedError


def unexpected(data: bytes, offset: int = 0) -> GeneratorError:
    found = data[offset : offset + 24]
    if len(found) > 2 and found[:1] == DISCONNECT[:1] and found[1]:
        return GeneratorError(f"the broker sent a DISCONNECT with reason 0x{found[2]:02X}")
    return GeneratorError(f"the broker sent something unexpected: {found.hex(' ')} ...")


class Source(Peer):
    """A publisher. `completed` counts PUBACK (QoS 1) or PUBCOMP (QoS 2); at QoS 0 nothing comes back.

    Over a WebSocket it can only do QoS 0: what it reads are packets without frames.
    """

    def __init__(self, client: Client, stream: Messages, window: int) -> None:
        """window: the most messages that this publisher ever has under way"""
        super().__init__(client)
        granted = client.accepted.receive_maximum
        if stream.qos and granted < window:
            raise GeneratorError(f"the broker's Receive Maximum is {granted:,}; this row sends {window:,} at once")
        self.qos = stream.qos
        self.slots = len(stream.packets)
        frames = [client.transport.framed(packet) for packet in stream.packets]
        self.size = len(frames[0])
        self.ring = bytearray().join(frames)
        if len(self.ring) != self.size * self.slots:
            raise ValueError("topics must all have the same length")
        self.view = memoryview(self.ring)
        self.stamp_at = self.size - stream.stamp_before_end
        self.mask = client.transport.mask_at(len(stream.packets[0]) - stream.stamp_before_end)
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
        if self.qos == 0 and data:
            raise unexpected(data)
        done = self._count_pubacks(data) if self.qos == 1 else self._answer_short(data)
        self.tail = data[done + self._walk(data, done) :]

    def _count_pubacks(self, data: bytes) -> int:
        """All at once, if they are as brokers send them: of one size, which in 5.0 may be 4 bytes or more.

        Returns how many bytes were read: none, if there is something else among them.
        """
        if len(data) < 4:
            return 0
        step = 2 + data[1]
        count = len(data) // step
        whole = step * count
        alike = data[0:whole:step] == bytes((PUBACK,)) * count and data[1:whole:step] == data[1:2] * count
        if not alike or (step > 4 and max(data[4:whole:step], default=0) >= 0x80):
            return 0
        self.completed += count
        return whole

    def _answer_short(self, data: bytes) -> int:
        """QoS 2, if all are of 4 bytes. Returns how many bytes were read: none, if there is something else."""
        whole = len(data) // 4 * 4
        kinds = data[0:whole:4]
        if data[1:whole:4] != b"\x02" * len(kinds) or kinds.strip(bytes((PUBREC, PUBCOMP))):
            return 0
        released = bytearray()
        for offset, kind in zip(range(0, whole, 4), kinds, strict=True):
            if kind == PUBREC:
                released += b"\x62\x02" + data[offset + 2 : offset + 4]
            else:
                self.completed += 1
        if released:
            self.write(released)
        return whole

    def _walk(self, data: bytes, start: int) -> int:
        """One by one, from `start` on; returns how many bytes were read."""
        offset, released, size = start, bytearray(), len(data)
        done = PUBACK if self.qos == 1 else PUBCOMP
        while offset + 4 <= size:
            kind, length = data[offset], data[offset + 1]
            if length != 2:
                if offset + 2 + length > size:
                    break
                if length < 2 or data[offset + 4] >= 0x80:
                    raise unexpected(data, offset)
            if kind == PUBREC and self.qos == 2:
                released += b"\x62\x02" + data[offset + 2 : offset + 4]
            elif kind == done:
                self.completed += 1
            else:
                raise unexpected(data, offset)
            offset += 2 + length
        if released:
            self.write(released)
        return offset - start


class Sink(Peer):
    """A subscriber of messages that all have one size.

    `received` counts PUBLISH packets; `completed` the same, but at QoS 2 those whose PUBREL came too.
    """

    def __init__(self, client: Client, stream: Messages) -> None:
        super().__init__(client)
        self.qos = stream.qos
        self.first_byte = stream.received[0]
        self.header = client.transport.around_received(len(stream.received))
        self.size = len(self.header) + len(stream.received)
        self.stamp_at = self.size - stream.received_stamp_before_end
        self.id_at = len(self.header) + stream.id_at
        self.receive_size = max(65536, 4 * self.size)
        self.received = 0
        self.completed = 0
        self.latencies: list[int] = []  # nanoseconds
        self.until_sample = 0  # messages before the next sample

    def on_readable(self) -> None:
        data = self.receive()
        now = time.perf_counter_ns()
        if self.header and not self._each_in_its_frame(data):
            data = self._remove_frames(data)
        if self.qos == 2:
            self._walk(data, now)
            return
        size = self.size
        count = len(data) // size
        whole = size * count
        kinds = data[len(self.header) : whole : size]
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
            packet_id = self.id_at
            acks = bytearray(b"\x40\x02\x00\x00" * count)
            acks[2::4] = data[packet_id:whole:size]
            acks[3::4] = data[packet_id + 1 : whole : size]
            self.write(acks)
        self.received += count
        self.completed += count
        self.tail = data[whole:]

    def _each_in_its_frame(self, data: bytes) -> bool:
        """Whether each packet stands in a WebSocket frame of its own, as most brokers send them."""
        columns = (data[offset :: self.size] for offset in range(len(self.header)))
        return all(column.strip(bytes((byte,))) == b"" for column, byte in zip(columns, self.header, strict=True))

    def _remove_frames(self, data: bytes) -> bytes:
        """From now on, take the frames of this connection apart, as they hold more packets or less."""
        self.unframer = Unframer()
        self.size -= len(self.header)
        self.stamp_at -= len(self.header)
        self.id_at -= len(self.header)
        self.header = b""
        return self.unframer.feed(data)

    def _walk(self, data: bytes, now: int) -> None:
        """QoS 2: PUBLISH and PUBREL come mixed, in two sizes."""
        offset, replies = 0, bytearray()
        while len(data) >= offset + 4:
            kind = data[offset]
            step = self.size if kind == self.first_byte else 2 + data[offset + 1]
            if offset + step > len(data):
                break
            if kind == self.first_byte:
                identifier = offset + self.id_at
                replies += b"\x50\x02" + data[identifier : identifier + 2]
                if self.received % SAMPLE_EVERY == 0:
                    self.latencies.append(now - STAMP.unpack_from(data, offset + self.stamp_at)[0])
                self.received += 1
            elif kind == PUBREL and step >= 4 and (step == 4 or data[offset + 4] < 0x80):
                replies += b"\x70\x02" + data[offset + 2 : offset + 4]
                self.completed += 1
            else:
                raise unexpected(data, offset)
            offset += step
        if replies:
            self.write(replies)
        self.tail = data[offset:]


class Requester(Source):
    """Publishes requests, and receives the responses on the same connection, as `sink`."""

    def __init__(self, client: Client, stream: Messages, window: int) -> None:
        super().__init__(client, stream, window)
        self.sink = Sink(client, stream)

    def on_readable(self) -> None:
        self.sink.on_readable()


class Responder(Peer):
    """Answers each request on its Response Topic, with its Correlation Data."""

    def __init__(self, client: Client, request: bytes, payload: int) -> None:
        """
        request: one as it is sent; a broker may have its properties in another order
        payload: bytes of the response
        """
        super().__init__(client)
        self.size = len(request)
        self.first_byte = request[0]
        self.payload = payload
        self.response = b""  # known from the first request on, and where in each the Correlation Data is
        self.copied_from = 0
        self.copied_to = 0

    def _learn(self, first: bytes) -> None:
        _, topic_at = read_variable(first, 1)
        found = find_properties(first, topic_at + 2 + int.from_bytes(first[topic_at : topic_at + 2], "big"))
        start, end = found[RESPONSE_TOPIC]
        self.response = messages.response(self.client.endpoint.mqtt, first[start:end].decode(), self.payload)
        self.copied_from = found[CORRELATION_DATA][0]
        self.copied_to = len(self.response) - self.payload - STAMP_SIZE

    def on_readable(self) -> None:
        data = self.receive()
        count = len(data) // self.size
        whole = count * self.size
        if data[0 : whole : self.size] != bytes((self.first_byte,)) * count:
            raise unexpected(data)
        if count:
            if not self.response:
                self._learn(data[: self.size])
            answers, step = bytearray(self.response * count), len(self.response)
            for offset in range(STAMP_SIZE):
                answers[self.copied_to + offset :: step] = data[self.copied_from + offset : whole : self.size]
            self.write(answers)
        self.tail = data[whole:]
