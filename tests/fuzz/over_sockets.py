"""A dialogue played on a real broker, over real sockets: what the core's fakes could hide.

Owns: the broker process, and what can be seen of it from outside. Must not know: the broker's insides.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import tempfile
from pathlib import Path

from tests.broker_process import BrokerProcess
from tests.end_to_end.sys_topics import wait_for_sys
from tests.fuzz import dialogue
from tests.fuzz.dialogue import SLOTS, Step
from tests.raw_client import DEADLINE, RawClient, connack, puback, publish
from tests.vectors import connect

seeds = dialogue.seeds

#: Dialogues between two looks for sessions that nobody should hold any more.
RARELY = 50
HERS = "the witness's own topic"


class Played:
    """The broker of this process, which plays all dialogues, with somebody who keeps to the rules."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="selectmq-fuzz-"))
        self.broker = BrokerProcess(
            self.directory,
            'sys_interval = "1s"\nmax_packet_size = "100KiB"\nmax_topic_levels = 20\nmax_unsent = "64KiB"\n'
            "max_retained = 20\nmax_topic_alias = 3\nreceive_maximum = 20\n",
            data=self.directory / "data",
        )
        self.witness = RawClient.connected(self.broker.address, "the witness, whom no dialogue knows")
        self.witness.subscribe((HERS, 1))
        self.served = 0
        self.count = 0

    def close(self) -> None:
        self.witness.close()
        self.broker.kill()
        shutil.rmtree(self.directory)


_played: list[Played] = []


def check(data: bytes) -> None:
    """Raise if the broker does what it must not."""
    if not _played:
        _played.append(Played())
    played = _played[0]
    play = Play(played)
    try:
        for step in dialogue.steps(data):
            play.step(step)
    finally:
        play.end()
    _the_witness_is_served(played)
    bugs = [line for line in played.broker.lines if '"event": "bug' in line or '"not JSON"' in line]
    assert bugs == [], bugs
    assert played.broker.process.poll() is None
    played.count += 1
    if played.count % RARELY == 1:
        _nobody_is_kept(played)


def close() -> None:
    """End the broker."""
    while _played:
        _played.pop().close()


def _the_witness_is_served(played: Played) -> None:
    witness = played.witness
    played.served = played.served % 65_535 + 1
    payload = b"to herself %d" % played.served
    witness.send(publish(HERS, payload, 1, packet_id=7))
    came = [witness.next(), witness.next()]
    assert sorted(came, key=lambda one: one[0]) == [publish(HERS, payload, 1, packet_id=played.served), puback(7)]
    witness.send(puback(played.served))


def _nobody_is_kept(played: Played) -> None:
    """Each name comes with CleanSession = 1 and leaves: then the witness is the only one of whom anything is known."""
    address = played.broker.address
    for name in {name for name in dialogue.NAMES if name} | _other_names(played):
        with RawClient(address) as client:
            client.send(connect(name))
            client.expect(connack())
            client.disconnect()
    wait_for_sys(address, "clients/total", 2)  # who looks is one
    wait_for_sys(address, "subscriptions/count", 2)
    wait_for_sys(address, "errors/bugs", 0)


def _other_names(played: Played) -> set[bytes]:
    """Mutation makes names of its own, and the broker gives some. With MQTT 5.0, a clean start is no clean end."""
    names = {event["client"].encode() for event in played.broker.events("client connected")}
    return names - {b"the witness, whom no dialogue knows"}


class Play:
    """One dialogue."""

    def __init__(self, played: Played) -> None:
        self._address = played.broker.address
        self._sockets: list[socket.socket | None] = [None] * SLOTS

    def step(self, step: Step) -> None:
        """What clients can do; what happens to the broker itself is left out."""
        if step.act == "send":
            self._send(step.slot, step.data)
        elif step.act == "answer":
            self._read(step.slot)
        elif step.act in ("drop", "redial"):
            self._drop(step.slot)

    def _send(self, slot: int, data: bytes) -> None:
        sock = self._sockets[slot]
        if sock is None:
            sock = self._sockets[slot] = socket.create_connection(self._address, DEADLINE)
        try:
            sock.setblocking(False)
            sock.send(data)  # as much of it as fits: who does not read may be stuck
        except BlockingIOError:
            pass
        except OSError:
            self._drop(slot)

    def _read(self, slot: int) -> None:
        sock = self._sockets[slot]
        if sock is None:
            return
        try:
            sock.setblocking(False)
            if not sock.recv(1 << 16):
                self._drop(slot)
        except BlockingIOError:
            pass
        except OSError:
            self._drop(slot)

    def _drop(self, slot: int) -> None:
        sock, self._sockets[slot] = self._sockets[slot], None
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.close()

    def end(self) -> None:
        for slot in range(SLOTS):
            self._drop(slot)
