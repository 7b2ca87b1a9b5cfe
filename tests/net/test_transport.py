"""One client's socket: everything arrives in order and whole however little the system takes at a time, and every way
in which the connection can end is told once."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from broker.net import transport as transport_module
from broker.net.transport import BIG_BLOCK, BLOCK, VECTOR, Transport
from broker.net.unsent import LARGE
from tests.net.running_loop import DEADLINE, RunningLoop

MAX_UNSENT = 100_000


class Recorder:
    """The client's side of a transport: notes what it is told."""

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self.congested: list[int] = []
        self.relieved = 0
        self.progressed = 0
        self.losses: list[str] = []
        self.on_receive: Callable[[bytes], None] = lambda data: None

    def receive(self, data: bytes, now: float) -> None:
        self.received.append(data)
        self.on_receive(data)

    def congest(self, waiting: int) -> None:
        self.congested.append(waiting)

    def relieve(self) -> None:
        self.relieved += 1

    def progress(self, now: float) -> None:
        self.progressed += 1

    def lost(self, why: str) -> None:
        self.losses.append(why)


class Valve(socket.socket):
    """A socket that takes nothing while it is `shut`. (A real one that is full may take a little more at any time.)"""

    shut = False

    def send(self, data: Any, flags: int = 0) -> int:
        if self.shut:
            raise BlockingIOError
        return super().send(data, flags)

    def sendmsg(self, buffers: Any, *arguments: Any) -> int:
        if self.shut:
            raise BlockingIOError
        return super().sendmsg(buffers, *arguments)


class Pair:
    """A transport of a running loop, and the socket at its other end."""

    def __init__(self, running: RunningLoop) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)  # inherited
            self.peer = socket.socket()
            self.peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
            self.peer.connect(server.getsockname())
            accepted, _ = server.accept()
        self.sock = Valve(fileno=accepted.detach())
        self.sock.setblocking(False)
        self.peer.settimeout(DEADLINE)
        self.running = running
        self.client = Recorder()
        self.closed: list[Transport] = []
        self.transport = running.call(
            lambda: Transport(running.loop, self.sock, "the peer", MAX_UNSENT, self.closed.append)
        )
        self.transport.client = self.client

    def flush(self, *frames: bytes) -> None:
        def put_out() -> None:
            self.transport.out.extend(frames)
            self.transport.flush()

        self.running.call(put_out)

    def read(self, size: int) -> bytes:
        """So many bytes, at the other end."""
        data = bytearray()
        while len(data) < size:
            more = self.peer.recv(size - len(data))
            if not more:
                break
            data += more
        return bytes(data)

    def read_all(self) -> bytes:
        """What comes at the other end until it is closed."""
        data = bytearray()
        with contextlib.suppress(ConnectionError):
            while more := self.peer.recv(1 << 16):
                data += more
        return bytes(data)

    def reset(self) -> None:
        """The other end ends the connection by a RST."""
        self.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.peer.close()

    def until(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + DEADLINE
        while not self.running.call(condition):
            assert time.monotonic() < end
            time.sleep(0.001)

    def close(self) -> None:
        self.running.call(self.transport.close)
        self.peer.close()


@pytest.fixture
def pair(running: RunningLoop) -> Iterator[Pair]:
    pair = Pair(running)
    yield pair
    pair.close()
    assert pair.closed == [pair.transport]


@pytest.fixture(params=[True, False], ids=["sendmsg", "send-only"])
def any_send(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With and without sendmsg, which Windows does not have."""
    monkeypatch.setattr(transport_module, "_HAS_SENDMSG", request.param)


def noise(size: int, seed: int = 0) -> bytes:
    """Bytes of which no part can be taken for another."""
    return b"".join(struct.pack("!II", seed, i) for i in range(size // 8 + 1))[:size]


# --- reading ---


def test_what_comes_is_handed_on_in_blocks(pair: Pair) -> None:
    data = noise(3 * BLOCK + 17)
    sender = threading.Thread(target=pair.peer.sendall, args=(data,))
    sender.start()
    pair.until(lambda: sum(map(len, pair.client.received)) == len(data))
    sender.join()
    assert b"".join(pair.client.received) == data
    assert max(map(len, pair.client.received)) <= BIG_BLOCK


def test_nothing_is_read_while_paused_and_all_of_it_afterwards(pair: Pair) -> None:
    pair.running.call(pair.transport.pause_reading)
    pair.peer.sendall(b"while paused")
    pair.flush(b"still written")
    assert pair.read(13) == b"still written"
    pair.running.next_turn()
    assert pair.client.received == []
    pair.running.call(pair.transport.resume_reading)
    pair.until(lambda: pair.client.received == [b"while paused"])


def test_pausing_in_the_middle_of_unsent_bytes_keeps_them_going(pair: Pair) -> None:
    data = noise(500_000)
    pair.flush(data)
    pair.running.call(pair.transport.pause_reading)
    pair.peer.sendall(b"x")
    assert pair.read(len(data)) == data
    pair.running.next_turn()
    assert pair.client.received == []
    pair.running.call(pair.transport.resume_reading)
    pair.until(lambda: pair.client.received == [b"x"])


# --- sending ---


@pytest.mark.usefixtures("any_send")
@pytest.mark.parametrize(
    "frames",
    [
        pytest.param([b"one"], id="one"),
        pytest.param([b"one", b"two", b"three", b"four"], id="some"),
        pytest.param([struct.pack("!I", i) for i in range(20_000)], id="many-small"),
        pytest.param([b"head", b"id", noise(LARGE)], id="a-large-payload"),
        pytest.param([b"head", b"id", noise(3_000_000)], id="a-huge-payload"),
        pytest.param([noise(LARGE)], id="large-alone"),
        pytest.param([b"head", b"id", noise(LARGE - 1)], id="just-not-large"),
        pytest.param([b"h", b"id", noise(200_000), b"h2", b"id", noise(200_000, 2)], id="two-large"),
    ],
)
def test_frames_arrive_whole_and_in_order(pair: Pair, frames: list[bytes]) -> None:
    data = b"".join(frames)
    pair.flush(*frames)
    assert pair.transport.out == []
    assert pair.read(len(data)) == data
    pair.until(lambda: pair.transport.unsent == 0)


def test_flushing_nothing_sends_nothing(pair: Pair) -> None:
    pair.flush()
    pair.flush(b"x")
    assert pair.read(1) == b"x"


@pytest.mark.usefixtures("any_send")
def test_what_is_flushed_while_earlier_bytes_are_unsent_goes_behind_them(pair: Pair) -> None:
    first = noise(400_000)
    later = [struct.pack("!II", 7, i) * 3 for i in range(VECTOR * 3)]
    pair.flush(first)
    assert pair.transport.unsent > 0
    for frame in later:  # more buffers than one system call takes
        pair.flush(frame)
    data = first + b"".join(later)
    assert pair.read(len(data)) == data
    pair.until(lambda: pair.transport.unsent == 0)
    pair.flush(b"and the usual way again")
    assert pair.read(23) == b"and the usual way again"


@pytest.mark.usefixtures("any_send")
@pytest.mark.parametrize("frames", [[b"one"], [b"one", b"two"], [b"h", b"id", noise(LARGE)]], ids=["1", "2", "large"])
def test_nothing_is_lost_when_the_system_takes_nothing_at_all(pair: Pair, frames: list[bytes]) -> None:
    pair.sock.shut = True
    pair.flush(*frames)
    data = b"".join(frames)
    assert pair.transport.unsent == len(data)
    pair.sock.shut = False
    assert pair.read(len(data)) == data


def test_bytes_are_counted_while_they_are_unsent(pair: Pair) -> None:
    pair.flush(noise(300_000))
    unsent = pair.transport.unsent
    assert 0 < unsent < 300_000
    pair.flush(b"x" * 1000)
    assert pair.transport.unsent == unsent + 1000
    pair.read(301_000)
    pair.until(lambda: pair.transport.unsent == 0)


# --- a client that does not read ---


def test_one_large_frame_is_never_too_much_and_what_waits_behind_it_is_counted(pair: Pair) -> None:
    pair.flush(noise(1_000_000))
    assert pair.transport.unsent > MAX_UNSENT
    half = b"x" * (MAX_UNSENT // 2)
    pair.flush(half)
    pair.flush(half)
    assert pair.client.congested == []
    pair.flush(b"y")
    assert pair.client.congested == [MAX_UNSENT + 1]
    pair.flush(b"z")  # told again, with what there is now
    assert pair.client.congested == [MAX_UNSENT + 1, MAX_UNSENT + 2]
    assert pair.read(1_000_000 + MAX_UNSENT + 2)[-2:] == b"yz"
    pair.until(lambda: pair.client.relieved > 0)
    assert pair.client.progressed >= 1


@pytest.mark.parametrize("together", [True, False])
def test_a_large_frame_behind_small_ones_does_not_count_but_a_second_one_does(pair: Pair, together: bool) -> None:
    pair.sock.shut = True
    frames = [b"small", b"head", b"id", noise(500_000)]
    for flushed in [frames] if together else [[frame] for frame in frames]:
        pair.flush(*flushed)
    assert pair.client.congested == []
    pair.flush(noise(500_000))
    assert pair.client.congested == [500_011]
    pair.sock.shut = False
    pair.read(11 + 500_000)
    pair.until(lambda: pair.client.relieved > 0)
    pair.flush(b"x" * MAX_UNSENT)  # now it is the second that does not count
    assert pair.client.congested == [500_011]
    pair.read(500_000 + MAX_UNSENT)


def test_small_frames_count_however_many_are_sent_together(pair: Pair) -> None:
    pair.sock.shut = True
    frames = [b"x" * 1000] * (MAX_UNSENT // 1000 + 1)
    pair.flush(*frames)
    assert pair.client.congested == [MAX_UNSENT + 1000]


def test_the_client_is_relieved_when_half_of_the_limit_waits(pair: Pair) -> None:
    pair.sock.shut = True
    pair.flush(*[b"x" * 1000] * (2 * MAX_UNSENT // 1000))
    seen: list[int] = []
    pair.client.relieve = lambda: seen.append(pair.transport.unsent)  # type: ignore[method-assign]
    pair.sock.shut = False
    pair.read(2 * MAX_UNSENT)
    pair.until(lambda: seen[-1:] == [0])
    assert 0 < seen[0] <= MAX_UNSENT // 2


def test_up_to_the_limit_nobody_is_told(pair: Pair) -> None:
    pair.sock.shut = True
    pair.flush(*[b"x" * 1000] * (MAX_UNSENT // 1000))
    assert pair.client.congested == []
    pair.flush(b"y")
    assert pair.client.congested == [MAX_UNSENT + 1]


def test_a_client_that_takes_nothing_makes_no_progress(pair: Pair) -> None:
    pair.flush(noise(1_000_000))
    for _ in range(5):
        pair.running.next_turn()
    settled = pair.client.progressed
    for _ in range(5):
        pair.running.next_turn()
    assert pair.client.progressed == settled


# --- the end ---


def test_fin_is_told_once_and_closes(pair: Pair) -> None:
    pair.peer.close()
    pair.until(lambda: pair.closed == [pair.transport])
    assert pair.client.losses == ["closed by the client without DISCONNECT"]


def test_rst_is_told_once_and_closes(pair: Pair) -> None:
    pair.reset()
    pair.until(lambda: pair.closed == [pair.transport])
    assert pair.client.losses == ["network error: Connection reset by peer"]


def test_what_came_before_a_fin_is_handed_on_first(pair: Pair) -> None:
    pair.peer.sendall(b"last words")
    pair.peer.close()
    pair.until(lambda: pair.closed == [pair.transport])
    assert b"".join(pair.client.received) == b"last words"
    assert len(pair.client.losses) == 1


def test_a_loss_found_by_flush_is_told_in_the_next_turn(pair: Pair) -> None:
    told_within: list[int] = []

    def flush_into_the_void() -> None:
        pair.reset()
        for _ in range(2):  # the first send may only fetch the news
            pair.transport.out.append(b"x")
            pair.transport.flush()
        told_within.append(len(pair.client.losses))

    pair.running.call(flush_into_the_void)
    pair.until(lambda: pair.closed == [pair.transport])
    assert told_within == [0]
    assert len(pair.client.losses) == 1
    assert pair.client.losses[0].startswith("network error: ")


def test_a_reset_while_bytes_are_unsent_is_told_once(pair: Pair) -> None:
    pair.flush(noise(1_000_000))
    pair.reset()
    pair.until(lambda: pair.closed == [pair.transport])
    assert len(pair.client.losses) == 1
    assert pair.transport.unsent == 0


def test_close_sends_what_is_in_out(pair: Pair) -> None:
    def close() -> None:
        pair.transport.out += [b"good", b"bye"]
        pair.transport.close()

    pair.running.call(close)
    assert pair.read_all() == b"goodbye"
    assert pair.client.losses == []


def test_the_last_words_arrive_though_the_client_had_sent_more(pair: Pair) -> None:
    # To close a socket with unread bytes resets the connection: the client might lose what was sent to it.
    def close() -> None:
        pair.peer.sendall(noise(10_000))
        pair.transport.out.append(b"refused")
        pair.transport.close()

    pair.running.call(close)
    assert pair.read(7) == b"refused"
    assert pair.peer.recv(1) == b""  # and no ConnectionResetError


def test_close_with_unsent_bytes_ends_at_once(pair: Pair) -> None:
    data = noise(1_000_000)
    pair.flush(data)
    pair.running.call(pair.transport.close)
    came = pair.read_all()
    assert len(came) < len(data)
    assert data.startswith(came)


def test_closing_twice_is_closing_once(pair: Pair) -> None:
    pair.running.call(pair.transport.close)
    pair.running.call(pair.transport.close)
    assert pair.closed == [pair.transport]


def test_a_closed_transport_ignores_flush_pause_and_resume(pair: Pair) -> None:
    pair.running.call(pair.transport.close)
    pair.flush(b"x")
    pair.running.call(pair.transport.pause_reading)
    pair.running.call(pair.transport.resume_reading)
    assert pair.read_all() == b""


def test_a_client_that_closes_another_one_in_the_same_turn_harms_nobody(running: RunningLoop) -> None:
    one, other = Pair(running), Pair(running)

    def close_both(data: bytes) -> None:
        one.transport.close()
        other.transport.close()

    one.client.on_receive = other.client.on_receive = close_both

    def send_both() -> None:  # within one turn, so that both are ready in the next
        one.peer.sendall(b"x")
        other.peer.sendall(b"x")

    running.call(send_both)
    one.until(lambda: one.closed == [one.transport] and other.closed == [other.transport])
    assert len(one.client.received) + len(other.client.received) == 1
    one.close()
    other.close()


def test_no_descriptor_is_left(running: RunningLoop) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for end in (Pair.reset, lambda pair: pair.peer.close(), Pair.close):
        pair = Pair(running)
        end(pair)
        pair.until(lambda pair=pair: pair.closed == [pair.transport])  # type: ignore[misc]
        pair.peer.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_bug_above_ends_that_connection_and_is_told_once(pair: Pair) -> None:
    """Else the same bytes would bring it about again in each turn."""

    def broken(data: bytes) -> None:
        raise ZeroDivisionError("a bug")

    pair.client.on_receive = broken
    pair.peer.sendall(b"something")
    pair.until(lambda: pair.client.losses == ["a bug in the broker"])
    assert pair.peer.recv(1) == b""
    [error] = pair.running.failures
    assert isinstance(error, ZeroDivisionError)
    pair.running.failures.clear()
