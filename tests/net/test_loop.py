"""The event loop: posts, wake-ups, turns, timers; and that no exception ends it."""

from __future__ import annotations

import os
import socket
import threading
import time

import pytest

from broker.net.loop import FEW
from broker.net.polling import READ, WRITE
from tests.net.conftest import SELECTORS
from tests.net.running_loop import DEADLINE, RunningLoop, eventually_set

#: With whatever selector.
pytestmark = [
    pytest.mark.parametrize("running", SELECTORS, indirect=True),
    pytest.mark.usefixtures("running"),
]


class Reader:
    """Reads what comes, and notes it."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.came = b""
        self.seen = threading.Event()

    def ready(self, events: int, now: float) -> None:
        self.came += self.sock.recv(100)
        self.seen.set()


class Broken:
    """Raises whenever its socket is ready."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def ready(self, events: int, now: float) -> None:
        self.sock.recv(100)
        raise ZeroDivisionError("in a handler")


def test_what_is_posted_from_many_threads_is_called_once_each_in_each_threads_order(running: RunningLoop) -> None:
    called: list[tuple[int, int, int]] = []

    def post_many(name: int) -> None:
        for i in range(1000):
            running.loop.post(lambda i=i: called.append((name, i, threading.get_ident())))

    threads = [threading.Thread(target=post_many, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    running.next_turn()
    assert {ident for _, _, ident in called} == {running.thread.ident}
    for name in range(8):
        assert [i for who, i, _ in called if who == name] == list(range(1000))


def test_arguments_are_handed_over(running: RunningLoop) -> None:
    came: list[tuple[object, ...]] = []
    running.loop.post(lambda *args: came.append(args), 1, "two", None)
    running.next_turn()
    assert came == [(1, "two", None)]


def test_only_the_first_of_many_posts_wakes_the_loop() -> None:
    running = RunningLoop(start=False)
    done: list[int] = []
    for i in range(1000):
        running.loop.post(done.append, i)
    assert running.loop.wakes == 1
    running.thread.start()
    running.next_turn()
    assert done == list(range(1000))
    running.stop()


def test_a_post_after_the_queue_was_emptied_wakes_the_loop_again(running: RunningLoop) -> None:
    for _ in range(100):  # each of these would hang without its wake-up
        running.call(lambda: None)
    assert running.loop.wakes == 100


def test_a_call_soon_waits_for_the_next_turn(running: RunningLoop) -> None:
    turns: list[int] = []

    def again() -> None:
        turns.append(running.turns)
        if len(turns) < 3:
            running.loop.soon(again)

    running.call(lambda: running.loop.soon(again))
    running.next_turn()
    running.next_turn()
    running.next_turn()
    assert turns == [turns[0], turns[0] + 1, turns[0] + 2]


def test_calls_soon_that_never_end_starve_neither_sockets_nor_timers_nor_posts(running: RunningLoop) -> None:
    here, there = socket.socketpair()
    reader = Reader(here)
    over = threading.Event()
    due = threading.Event()

    def forever() -> None:
        if not over.is_set():
            running.loop.soon(forever)

    def set_due(now: float) -> None:
        due.set()

    running.call(lambda: running.loop.soon(forever))
    running.call(lambda: running.loop.register(here, READ, reader))
    there.send(b"x")
    eventually_set(reader.seen)
    running.call(lambda: running.timers.after(0.001, set_due))
    eventually_set(due)
    over.set()
    running.call(lambda: running.loop.unregister(here))
    here.close()
    there.close()


def test_a_timer_is_called_once_it_is_due_and_not_before(running: RunningLoop) -> None:
    came: list[float] = []
    seen = threading.Event()

    def note(now: float) -> None:
        came.append(now)
        seen.set()

    start = time.monotonic()
    running.call(lambda: running.timers.at(start + 0.05, note))
    eventually_set(seen)
    assert came[0] >= start + 0.05
    assert time.monotonic() >= start + 0.05


def test_an_earlier_timer_set_while_the_loop_sleeps_is_in_time(running: RunningLoop) -> None:
    seen = threading.Event()

    def late(now: float) -> None:
        raise AssertionError("not in this test's time")

    def note(now: float) -> None:
        seen.set()

    timer = running.call(lambda: running.timers.after(DEADLINE * 10, late))
    running.call(lambda: running.timers.after(0.001, note))
    eventually_set(seen)
    running.call(timer.cancel)


def test_the_time_that_handlers_get_is_that_of_the_turn(running: RunningLoop) -> None:
    here, there = socket.socketpair()
    times: list[tuple[float, float]] = []
    seen = threading.Event()

    class Clock:
        def ready(self, events: int, now: float) -> None:
            here.recv(10)
            times.append((now, running.timers.now))
            seen.set()

    before = time.monotonic()
    running.call(lambda: running.loop.register(here, READ, Clock()))
    there.send(b"x")
    eventually_set(seen)
    ((now, of_timers),) = times
    assert now == of_timers
    assert before <= now <= time.monotonic()
    running.call(lambda: running.loop.unregister(here))
    here.close()
    there.close()


def test_the_loop_survives_exceptions_of_all_its_callbacks(running: RunningLoop) -> None:
    here, there = socket.socketpair()

    def fail(now: float = 0.0) -> None:
        raise ZeroDivisionError("in a callback")

    running.call(lambda: running.loop.register(here, READ, Broken(here)))
    there.send(b"x")
    running.next_turn()
    running.call(lambda: running.loop.unregister(here))
    running.loop.post(fail)
    running.call(lambda: running.loop.soon(fail))
    running.call(lambda: running.timers.after(0.0, fail))
    running.next_turn()
    running.next_turn()

    def fail_once() -> None:
        running.loop.before_sleep = lambda: None
        fail()

    def set_hook() -> None:
        running.loop.before_sleep = fail_once

    running.call(set_hook)
    running.next_turn()
    assert [type(error) for error in running.failures] == [ZeroDivisionError] * 5
    running.failures.clear()
    here.close()
    there.close()


def test_a_failing_callback_keeps_nobody_elses_call_away(running: RunningLoop) -> None:
    done: list[str] = []

    def fail(now: float = 0.0) -> None:
        raise ZeroDivisionError

    def note_timer(now: float) -> None:
        done.append("timer")

    def prepare() -> None:
        running.loop.post(fail)
        running.loop.post(done.append, "post")
        running.loop.soon(fail)
        running.loop.soon(lambda: done.append("soon"))
        running.timers.at(0.0, fail)
        running.timers.at(0.1, note_timer)  # long past as well

    running.call(prepare)
    running.next_turn()
    running.next_turn()
    assert sorted(done) == ["post", "soon", "timer"]
    assert len(running.failures) == 3
    running.failures.clear()


def test_of_many_ready_sockets_all_are_served_over_several_turns(running: RunningLoop) -> None:
    served: list[socket.socket] = []
    turns: list[int] = []

    class One:
        def __init__(self, sock: socket.socket) -> None:
            self.sock = sock

        def ready(self, events: int, now: float) -> None:
            self.sock.recv(10)
            served.append(self.sock)
            end = time.thread_time() + 0.001
            while time.thread_time() < end:
                pass  # it is work

    def note() -> None:
        if served and (not turns or turns[-1] < len(served)):
            turns.append(len(served))
            if len(served) == len(pairs):
                over.set()

    over = threading.Event()
    pairs = [socket.socketpair() for _ in range(100)]
    for _, there in pairs:
        there.send(b"x")

    def register() -> None:
        running.loop.before_sleep = note
        for here, _ in pairs:
            running.loop.register(here, READ, One(here))

    running.call(register)
    eventually_set(over)
    assert {here for here, _ in pairs} == set(served)
    assert len(turns) >= 8

    def unregister() -> None:
        for here, _ in pairs:
            running.loop.unregister(here)

    running.call(unregister)
    for here, there in pairs:
        here.close()
        there.close()


def test_what_is_waited_for_can_be_changed(running: RunningLoop) -> None:
    here, there = socket.socketpair()
    seen: list[int] = []

    class Watcher:
        def ready(self, events: int, now: float) -> None:
            seen.append(events)
            running.loop.modify(here, READ, self)

    running.call(lambda: running.loop.register(here, READ | WRITE, Watcher()))
    running.next_turn()
    assert seen == [WRITE]
    running.call(lambda: running.loop.unregister(here))
    there.send(b"x")
    running.next_turn()
    assert seen == [WRITE]
    here.close()
    there.close()


def test_the_wake_descriptor_wakes_it(running: RunningLoop) -> None:
    turns = running.turns
    os.write(running.loop.wake_descriptor, b"\0")
    end = time.monotonic() + DEADLINE
    while running.turns == turns:
        assert time.monotonic() < end


def test_more_wake_ups_than_the_socket_pair_holds_do_not_block() -> None:
    running = RunningLoop(start=False)
    for _ in range(100_000):
        running.loop.wake()
    running.thread.start()
    running.next_turn()
    running.stop()


def test_stop_is_heard_from_another_thread_while_it_sleeps(running: RunningLoop) -> None:
    running.call(lambda: None)
    running.loop.stop()
    running.thread.join(DEADLINE)
    assert not running.thread.is_alive()


def test_stop_ends_it_after_the_present_turn(running: RunningLoop) -> None:
    done: list[str] = []

    def stop() -> None:
        running.loop.stop()
        running.loop.soon(lambda: done.append("soon"))
        running.loop.before_sleep = lambda: done.append("sent")

    running.loop.post(stop)
    running.thread.join(DEADLINE)
    assert done == ["soon", "sent"]


def test_close_frees_its_descriptors_and_waking_it_later_is_harmless() -> None:
    before = len(os.listdir("/proc/self/fd"))
    running = RunningLoop()
    assert len(os.listdir("/proc/self/fd")) > before
    running.stop()
    assert len(os.listdir("/proc/self/fd")) == before
    running.loop.wake()
    running.loop.post(lambda: None)
    running.loop.stop()


def test_in_a_crowd_each_hears_once_of_all_its_events(running: RunningLoop) -> None:
    class Counter:
        def __init__(self, sock: socket.socket) -> None:
            self.sock = sock
            self.told: list[int] = []

        def ready(self, events: int, now: float) -> None:
            self.told.append(events)
            running.loop.unregister(self.sock)

    pairs = [socket.socketpair() for _ in range(FEW + 1)]
    for _, there in pairs:
        there.send(b"x")
    counters = [Counter(here) for here, _ in pairs]

    def register() -> None:
        for counter in counters:
            running.loop.register(counter.sock, READ | WRITE, counter)

    running.call(register)
    end = time.monotonic() + DEADLINE
    while not all(counter.told for counter in counters):
        running.next_turn()
        assert time.monotonic() < end
    assert {tuple(counter.told) for counter in counters} == {(READ | WRITE,)}
    for here, there in pairs:
        here.close()
        there.close()
