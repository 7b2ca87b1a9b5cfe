"""Clients of all kinds that come and go, for as long as one likes.

Owns: what each kind does in one round, and that nothing of it is left when all are told to leave. Must not know: what
is measured.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from random import Random

from tests.raw_client import (
    DISCONNECT,
    PINGREQ,
    PINGRESP,
    Address,
    Closed,
    RawClient,
    Will,
    connack,
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
from tests.vectors import MALFORMED, over_socket

#: Seconds for an answer. The whole group of processes may be stopped for minutes, so this is no measure of the broker.
PATIENCE = 3_600.0
PERSISTENT = 12
RETAINED = 60


class Patient(RawClient):
    """A client that waits for any time, and answers what is to be answered."""

    def __init__(self, address: Address, *, receive_buffer: int | None = None) -> None:
        super().__init__(address, receive_buffer=receive_buffer)
        self.socket.settimeout(PATIENCE)
        self.ended = 0  #: acknowledgements that end something
        self.came = 0  #: messages
        self.last = ""  #: the topic of the newest

    def __enter__(self) -> Patient:
        return self

    def next(self, timeout: float = PATIENCE) -> bytes:
        return super().next(timeout)

    def greet(self, client_id: str, *, clean: bool = True, will: Will | None = None, answered: bool = True) -> Patient:
        self.send(connect(client_id, clean=clean, will=will))
        if answered:
            came = self.next()
            assert came in (connack(), connack(0, True)), came
        return self

    def take(self) -> bytes:
        """The next packet; what has to be answered is."""
        one = self.next()
        kind = one[0] >> 4
        if kind == 3:
            message = parse_publish(one)
            self.came += 1
            self.last = message.topic
            if message.qos:
                self.send((puback if message.qos == 1 else pubrec)(message.packet_id))
        elif kind == 5:
            self.send(pubrel(int.from_bytes(one[2:4], "big")))
        elif kind == 6:
            self.send(pubcomp(int.from_bytes(one[2:4], "big")))
        elif kind in (4, 7, 9, 11):
            self.ended += 1
        return one

    def until_ended(self, count: int) -> None:
        """So many more SUBACKs, UNSUBACKs, PUBACKs and PUBCOMPs."""
        wanted = self.ended + count
        while self.ended < wanted:
            self.take()

    def until_pong(self) -> None:
        self.send(PINGREQ)
        while self.take() != PINGRESP:
            pass


class Crowd:
    """All the actors, each in a thread of its own."""

    def __init__(self, address: Address, seed: int) -> None:
        self._address = address
        self._over = threading.Event()
        self._failures: list[BaseException] = []
        self.rounds = 0
        kinds: list[Callable[[Random], None]] = [
            self.visitor, self.visitor, self.persistent, self.persistent, self.taken_over, self.retaining, self.dying,
            self.deaf, self.malformed, self.abrupt,
        ]  # fmt: skip
        self._threads = [
            threading.Thread(target=self._act, args=(kind, Random(seed + i)), daemon=True)
            for i, kind in enumerate(kinds)
        ]

    def run(self, wait: Callable[[], None]) -> None:
        """Let them act until `wait` returns; then all have gone, and nothing of them is left."""
        for thread in self._threads:
            thread.start()
        try:
            wait()
        finally:
            self._over.set()
        for thread in self._threads:
            thread.join()
        if self._failures:
            raise self._failures[0]
        self._clean_up()

    @property
    def failed(self) -> bool:
        return bool(self._failures)

    def _act(self, kind: Callable[[Random], None], random: Random) -> None:
        try:
            while not self._over.is_set():
                kind(random)
                self.rounds += 1
        except BaseException as error:
            self._failures.append(error)
            self._over.set()

    def _clean_up(self) -> None:
        for i in range(PERSISTENT):
            with Patient(self._address) as client:
                client.greet(f"persistent {i}").disconnect()
        with Patient(self._address) as client:
            client.greet("cleaner")
            client.send(b"".join(publish(f"retained/{i}", retain=True) for i in range(RETAINED)))
            client.until_pong()
            client.disconnect()

    # --- the kinds ---

    def visitor(self, random: Random) -> None:
        """Subscribes, publishes at every QoS, small and large, gets what there is, and leaves."""
        with Patient(self._address) as client:
            client.greet(f"visitor {random.randrange(1_000_000)}")
            filters = random.sample(["news/#", "news/+/1", "retained/+", "wills/#", "news/2/2"], 2)
            client.send(subscribe(*((one, random.randrange(3)) for one in filters)))
            client.until_ended(1)
            for packet_id in range(1, random.randrange(2, 30)):
                qos = random.randrange(3)
                size = random.choice((0, 10, 200, 200, 5_000)) if random.random() < 0.98 else 300_000
                topic = f"news/{random.randrange(4)}/{random.randrange(3)}"
                client.send(publish(topic, random.randbytes(size), qos, packet_id=packet_id))
                client.until_ended(1 if qos else 0)
            client.send(unsubscribe(filters[0], packet_id=99))
            client.until_ended(1)
            client.until_pong()
            if random.random() < 0.5:
                client.send(DISCONNECT)

    def persistent(self, random: Random) -> None:
        """Comes back to what was queued, takes all or some of it, and leaves; now and then for ever."""
        name = f"persistent {random.randrange(PERSISTENT)}"
        with contextlib.suppress(Closed, ConnectionError), Patient(self._address) as client:  # another may take over
            clean = random.random() < 0.1
            client.greet(name, clean=clean)
            client.send(subscribe((f"for/{name}", 1 + random.randrange(2)), ("news/0/#", random.randrange(3))))
            client.until_ended(1)
            if random.random() < 0.3:
                return  # with all of it unacknowledged
            end = f"for/{name}"
            client.send(publish(end, b"the end", 1, packet_id=1))
            while client.last != end:
                client.take()
            client.until_pong()
        with Patient(self._address) as friend:
            friend.greet("")
            ids = range(1, random.randrange(2, 60))
            friend.send(b"".join(publish(f"for/{name}", random.randbytes(300), 1, packet_id=i) for i in ids))
            friend.until_ended(len(ids))
            friend.disconnect()

    def taken_over(self, random: Random) -> None:
        name = f"twin {random.randrange(3)}"
        with Patient(self._address) as first, Patient(self._address) as second:
            first.greet(name, will=Will("wills/taken over", b"w", 1))
            first.send(subscribe(("news/#", 1)))
            second.greet(name)
            first.closed(PATIENCE)
            second.until_pong()

    def retaining(self, random: Random) -> None:
        with Patient(self._address) as client:
            client.greet("")
            for packet_id in range(1, 20):
                payload = random.randbytes(random.choice((0, 20, 2_000)))
                topic = f"retained/{random.randrange(RETAINED)}"
                client.send(publish(topic, payload, 1, packet_id=packet_id, retain=True))
            client.until_ended(19)

    def dying(self, random: Random) -> None:
        """Leaves a will by breaking off."""
        client = Patient(self._address)
        client.greet(
            f"dying {random.randrange(100)}",
            will=Will(f"wills/{random.randrange(5)}", random.randbytes(50), random.randrange(3)),
        )
        client.reset()

    def deaf(self, random: Random) -> None:
        """Asks for much, and reads none of it."""
        with Patient(self._address, receive_buffer=4_096) as deaf, Patient(self._address) as author:
            deaf.greet("").send(subscribe((f"loud/{id(deaf)}", random.randrange(3))))
            deaf.until_ended(1)
            author.greet("")
            for packet_id in range(1, 60):
                author.send(publish(f"loud/{id(deaf)}", bytes(60_000), 1, packet_id=packet_id))
                author.until_ended(1)

    def malformed(self, random: Random) -> None:
        """What must end a connection does."""
        row = random.choice(MALFORMED)
        before, answer = over_socket(row, b"malformed %d" % random.randrange(100))
        with Patient(self._address) as client:
            if before:
                client.send(before)
                client.expect(answer)
            with contextlib.suppress(ConnectionError):
                client.send(row.data)
            client.closed(PATIENCE)

    def abrupt(self, random: Random) -> None:
        """Breaks off in the middle of anything."""
        client = Patient(self._address)
        whole = connect("abrupt") + subscribe(("news/#", 2)) + publish("news/1/1", bytes(20_000), 2)
        client.send(whole[: random.randrange(len(whole))])
        if random.random() < 0.5:
            client.reset()
        else:
            client.close()
