"""A publisher is held back while a client with CleanSession = 1 catches up: before messages are dropped, never for
ever."""

from __future__ import annotations

from broker.core.limits import Limits
from broker.core.pressure import CREDIT, EARNED, STALLED, STRETCH, Pressure
from broker.core.timers import Timers
from tests.core.harness import Client, World

LARGE = "x" * 200_000


def flood(publisher: Client, count: int, first: int = 1) -> None:
    """Publish large messages: those behind the first wait in the network while the broker does not read."""
    for number in range(first, first + count):
        publisher.publish("t", LARGE, 1, number)


def subscribed(world: World) -> Client:
    client = world.join("sub")
    client.subscribe(("t", 1)).take()
    return client


def test_a_client_that_reads_slowly_gets_all_that_was_acknowledged() -> None:
    """50 messages of 200 KB, each acknowledged half a second after it came."""
    world = World(limits=Limits(max_inflight=1))
    client = subscribed(world)
    publisher = world.join("pub")
    sent = received = acknowledged = 0
    most = 0
    for _ in range(200):
        while sent < 50 and publisher.is_read():
            sent += 1
            flood(publisher, 1, sent)
        acknowledged += len(publisher.take())
        for packet in client.take():
            received += 1
            client.puback(packet[4])
        queue = world.session("sub").queue
        assert queue is not None
        most = max(most, queue.size)
        world.advance(0.5)
    assert (sent, acknowledged, received, world.exchange.stats.dropped) == (50, 50, 50, 0)
    assert most < 4 << 20
    assert world.exchange.pressure.held == 0
    assert world.exchange.memory.queues.size == 0


def test_a_client_that_takes_nothing_holds_nobody_back_for_long() -> None:
    world = World(limits=Limits(max_inflight=1, max_memory_queue=10))
    client = subscribed(world)
    publisher = world.join("pub")
    for number in range(1, 8):
        publisher.publish("t", "x", 1, number)
    assert not publisher.is_read()
    world.advance(STALLED + 1)
    assert publisher.is_read()
    publisher.take()
    for number in range(8, 31):
        publisher.publish("t", "x", 1, number)
    assert publisher.take() == [("PUBACK", number) for number in range(8, 31)]
    assert world.exchange.stats.dropped == 30 - 1 - 10
    assert "queue full: messages for this client are dropped" in world.log.events("warning")
    client.drop()
    assert (world.exchange.memory.queues.size, world.exchange.pressure.held) == (0, 0)


def test_the_end_of_the_slow_client_lets_publishers_go() -> None:
    world = World(limits=Limits(max_inflight=1, max_memory_queue=10))
    client = subscribed(world)
    publisher = world.join("pub")
    for number in range(1, 8):
        publisher.publish("t", "x", 1, number)
    assert not publisher.is_read()
    client.drop()
    assert publisher.is_read()


def test_one_who_publishes_to_itself_is_not_held_back() -> None:
    """Nobody else could acknowledge what fills its queue up."""
    world = World(limits=Limits(max_inflight=1, max_memory_queue=10))
    client = subscribed(world)
    for number in range(1, 31):
        client.publish("t", "x", 1, number)
        assert client.is_read()


def test_the_ping_of_one_who_is_held_back_is_answered_in_time() -> None:
    """Its client would take the broker for dead else."""
    world = World(limits=Limits(max_inflight=1, max_memory_queue=1000))
    slow = subscribed(world)
    publisher = world.join("pub", keep_alive=4)
    for number in range(1, 600):
        publisher.publish("t", "x", 1, number)
        if not publisher.is_read():
            break
    publisher.take()
    assert not publisher.is_read()
    publisher.ping()
    for _ in range(5):
        world.advance(0.5)
        for packet in slow.take():
            slow.puback(packet[4])  # it goes on, slowly
    assert ("PINGRESP",) in publisher.take()
    assert not publisher.closed


class Slow:
    """A queue whose client takes a little all the time, and never catches up."""

    owner = None

    def __init__(self, timers: Timers) -> None:
        self._timers = timers

    @property
    def progress(self) -> object:
        return self._timers.now


class Publishing:
    longest_hold = float("inf")

    def __init__(self) -> None:
        self.held = False

    def hold_back(self) -> None:
        self.held = True

    def let_go(self) -> None:
        self.held = False


def test_no_number_of_slow_clients_holds_a_publisher_back_for_ever() -> None:
    timers = Timers()
    pressure = Pressure(timers)
    queues = [Slow(timers) for _ in range(10)]
    publisher = Publishing()
    waited, longest, stretch = 0.0, 0.0, 0.0
    for step in range(10_000):
        timers.run(step * 0.1)
        stretch = stretch + 0.1 if publisher.held else 0.0
        longest = max(longest, stretch)
        waited += 0.1 * publisher.held
        if not publisher.held:
            assert pressure.fills_up(queues[step % 10])
            pressure.hold(publisher)
    assert longest <= STRETCH + 0.5
    assert CREDIT < waited < CREDIT + EARNED * 1000 * 1.2
    pressure.forget(publisher)
    assert pressure.held == 0
