"""The layer of TLS: bytes pass whole in both directions however they are cut, handshakes have their turn, and every way
in which the connection can end is told once. And whom a certificate names."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from broker.config.kinds import Choice
from broker.config.options import OPTIONS
from broker.net import tls as tls_module
from broker.net.tls import AHEAD, RECORDS, STEPS, TURN, Handshakes, Tls, TlsLayer, common_name, read_tls, subject
from tests.certificates import Authority
from tests.flood import client_hello
from tests.key_updates import logging_secrets, send_raw, updater
from tests.net.running_loop import RunningLoop, eventually_set
from tests.net.test_transport import MAX_UNSENT, Pair, noise

PEER = "192.0.2.1:1000"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def server_side(authority: Authority) -> Tls:
    issued = authority.issue("server", server=True)
    return read_tls(str(issued.certificate), str(issued.key))


class TlsPair(Pair):
    """A transport with a layer of TLS in a running loop, and TLS at the other end."""

    def __init__(self, running: RunningLoop, tls: Tls, authority: Authority) -> None:
        super().__init__(running)
        self.context = authority.trusting()
        self.established: list[TlsLayer] = []
        self.failures: list[str | None] = []
        self.handshakes = Handshakes(running.loop)
        self.layer = running.call(
            lambda: TlsLayer(running.loop, self.transport, tls, self.handshakes, self._established, self._failed)
        )

    def _established(self, layer: TlsLayer) -> None:
        self.established.append(layer)
        layer.client = self.client

    def _failed(self, layer: TlsLayer, why: str | None) -> None:
        self.failures.append(why)

    def shake_hands(self) -> None:
        self.peer = self.context.wrap_socket(self.peer, server_hostname="127.0.0.1")
        self.until(lambda: self.established == [self.layer])

    def flush(self, *frames: bytes) -> None:
        def put_out() -> None:
            self.layer.out.extend(frames)
            self.layer.flush()

        self.running.call(put_out)

    def close(self) -> None:
        self.running.call(self.layer.close)
        self.peer.close()


@pytest.fixture
def strange(running: RunningLoop, server_side: Tls, authority: Authority) -> Iterator[TlsPair]:
    """Before the handshake."""
    pair = TlsPair(running, server_side, authority)
    yield pair
    pair.close()
    assert pair.closed == [pair.transport]


@pytest.fixture
def pair(strange: TlsPair) -> TlsPair:
    strange.shake_hands()
    return strange


# --- bytes ---


def test_bytes_arrive_whole_and_in_order_in_both_directions(pair: TlsPair) -> None:
    there, back = noise(3_000_000), noise(2_000_000, 1)
    sender = threading.Thread(target=pair.peer.sendall, args=(there,))
    sender.start()
    pair.until(lambda: sum(map(len, pair.client.received)) == len(there))
    sender.join()
    assert b"".join(pair.client.received) == there
    pair.flush(b"", back[:5], b"", back[5:])
    assert pair.layer.out == []
    assert pair.layer.unsent > 1_000_000
    pair.flush(b"more")
    assert pair.read(len(back) + 4) == back + b"more"
    pair.until(lambda: pair.layer.unsent == 0)


def test_key_updates_are_served_in_many_turns(
    strange: TlsPair, running: RunningLoop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenSSL reads on until it has something for us: a block full of them would take a third of a second."""
    monkeypatch.setattr(tls_module, "TURN", 0.0)
    logging_secrets(strange.context, tmp_path / "secrets")
    strange.shake_hands()
    assert isinstance(strange.peer, ssl.SSLSocket)
    updates = updater(strange.peer, tmp_path / "secrets")
    turns = running.turns
    for number in range(3):
        send_raw(strange.peer, b"".join(updates.update() for _ in range(1000)) + updates.data(b"behind %d" % number))
    strange.until(lambda: b"".join(strange.client.received) == b"behind 0behind 1behind 2")
    assert running.turns - turns > 3000 / RECORDS / 2
    strange.flush(b"answer")
    assert strange.read(6) == b"answer"


def test_what_comes_in_many_turns_waits_while_the_client_s_side_holds_back(
    pair: TlsPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls_module, "TURN", 0.0)
    pair.client.on_receive = lambda data: pair.layer.pause_reading()
    said = b"".join(b"%03d" % number for number in range(200))
    for start in range(0, len(said), 3):
        pair.peer.sendall(said[start : start + 3])

    def all_is_here() -> bool:
        received = len(pair.client.received)
        pair.layer.resume_reading()
        assert len(pair.client.received) == received  # not before the next turn
        return b"".join(pair.client.received) == said

    pair.until(all_is_here)
    assert len(pair.client.received) >= 200 / RECORDS


def test_a_record_that_comes_byte_by_byte(running: RunningLoop, strange: TlsPair) -> None:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = strange.context.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
    while True:
        with contextlib.suppress(ssl.SSLWantReadError):
            client.do_handshake()
            break
        for byte in outgoing.read():
            strange.peer.sendall(bytes((byte,)))
        incoming.write(strange.peer.recv(1 << 16))
    client.write(b"behind the handshake")
    for byte in outgoing.read():
        strange.peer.sendall(bytes((byte,)))
    strange.until(lambda: b"".join(strange.client.received) == b"behind the handshake")
    assert len(strange.established) == 1


def test_many_records_in_one_block_are_handed_on_as_one(pair: TlsPair) -> None:
    pair.running.call(pair.layer.pause_reading)
    for i in range(50):
        pair.peer.sendall(b"%02d" % i)
    pair.running.next_turn()
    assert pair.client.received == []
    pair.running.call(pair.layer.resume_reading)
    pair.until(lambda: sum(map(len, pair.client.received)) == 100)
    assert b"".join(pair.client.received) == b"".join(b"%02d" % i for i in range(50))
    assert len(pair.client.received) < 5


def test_a_client_that_does_not_read_is_told_of_and_so_is_its_progress(pair: TlsPair) -> None:
    pair.flush(*[noise(1_000)] * 2_000)
    pair.until(lambda: pair.client.congested != [])
    assert pair.client.congested[0] > MAX_UNSENT
    assert pair.read(2_000_000) == noise(1_000) * 2_000
    pair.until(lambda: pair.client.relieved > 0)
    assert pair.client.progressed > 0


def test_what_waits_behind_one_large_frame_is_counted_in_records_too(pair: TlsPair) -> None:
    large, small = noise(2_000_000), [noise(1_000, 1)] * 90
    pair.flush(b"head", large, *small[:45])
    pair.flush(*small[45:])
    assert pair.layer.unsent > MAX_UNSENT
    assert pair.client.congested == []
    pair.flush(*small)
    assert MAX_UNSENT < pair.client.congested[0] < 2 * MAX_UNSENT
    data = b"".join([b"head", large, *small, *small])
    assert pair.read(len(data)) == data
    pair.until(lambda: pair.client.relieved > 0)


def test_room_is_told_also_if_the_system_takes_all_in_a_later_turn(
    pair: TlsPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then there is no event of the socket that would tell it."""
    monkeypatch.setattr(tls_module, "AHEAD", 1_000)
    monkeypatch.setattr(tls_module, "GO", 1_000)
    pair.layer.max_unsent = 1_000
    pair.flush(*[b"x" * 1_000] * 8)  # the system has room for far more
    assert len(pair.client.congested) == 1
    pair.until(lambda: pair.client.relieved > 0)
    assert pair.running.call(lambda: pair.layer.unsent) == 0


def test_what_the_system_does_not_take_is_not_encrypted_ahead(pair: TlsPair) -> None:
    """A payload that many do not read stands in memory once, and not once for each of them as records."""
    payload = noise(3_000_000)
    pair.flush(b"head", payload)
    waiting = pair.layer._plain
    assert waiting is not None
    [first] = waiting.first(1)
    assert isinstance(first, memoryview)
    assert first.obj is payload
    assert pair.transport.unsent < 2 * AHEAD
    assert pair.read(3_000_004) == b"head" + payload
    pair.until(lambda: pair.layer.unsent == 0)


# --- the end ---


def test_a_farewell_is_a_loss(pair: TlsPair) -> None:
    assert isinstance(pair.peer, ssl.SSLSocket)
    pair.peer.sendall(b"last words")
    with contextlib.suppress(OSError):
        pair.peer.unwrap()
    pair.until(lambda: pair.client.losses == ["closed by the client without DISCONNECT"])
    assert b"".join(pair.client.received) == b"last words"


def test_a_farewell_waits_for_what_came_before_it(pair: TlsPair, running: RunningLoop) -> None:
    """The client's side wants nothing more for a while: what it has been given may hold a DISCONNECT."""
    pair.client.on_receive = lambda data: pair.layer.pause_reading()
    running.call(pair.transport.pause_reading)  # so that both come in one block
    assert isinstance(pair.peer, ssl.SSLSocket)
    pair.peer.sendall(b"last words")
    pair.peer.settimeout(0.1)
    with contextlib.suppress(OSError):
        pair.peer.unwrap()
    running.call(pair.transport.resume_reading)
    pair.until(lambda: pair.client.received != [])
    assert (pair.client.received, pair.client.losses) == ([b"last words"], [])
    running.call(pair.layer.resume_reading)
    pair.until(lambda: pair.client.losses == ["closed by the client without DISCONNECT"])


def test_an_end_without_a_farewell_is_a_loss(pair: TlsPair) -> None:
    pair.peer.shutdown(socket.SHUT_WR)
    pair.until(lambda: pair.client.losses == ["closed by the client without DISCONNECT"])


def test_what_cannot_be_decrypted_ends_the_connection(pair: TlsPair) -> None:
    assert isinstance(pair.peer, ssl.SSLSocket)
    with socket.socket(fileno=pair.peer.detach()) as plain:
        plain.sendall(b"\x17\x03\x03\x00\x20" + b"\0" * 32)
        pair.until(lambda: len(pair.client.losses) == 1)
    assert pair.client.losses[0].startswith("TLS error: ")


def test_what_is_produced_last_arrives_with_a_farewell(pair: TlsPair) -> None:
    def end() -> None:
        pair.layer.out.append(b"CONNACK 5")
        pair.layer.close()
        pair.layer.close()

    pair.running.call(end)
    pair.peer.suppress_ragged_eofs = False  # type: ignore[attr-defined]  # an SSLSocket
    assert pair.peer.recv(100) == b"CONNACK 5"
    assert pair.peer.recv(100) == b""
    assert pair.client.losses == []


def test_closed_by_what_it_receives(pair: TlsPair) -> None:
    pair.client.on_receive = lambda data: pair.layer.close()
    pair.peer.sendall(b"DISCONNECT")
    assert pair.read_all() == b""
    assert (pair.client.received, pair.client.losses) == ([b"DISCONNECT"], [])


# --- handshakes ---


def test_an_abort_is_told_and_after_the_handshake_there_is_nothing_to_abort(
    strange: TlsPair, running: RunningLoop, server_side: Tls, authority: Authority
) -> None:
    running.call(lambda: strange.layer.abort("too late"))
    running.call(lambda: strange.layer.abort("again"))
    assert strange.failures == ["too late"]
    assert strange.read_all() == b""
    other = TlsPair(running, server_side, authority)
    other.shake_hands()
    running.call(lambda: other.layer.abort("too late"))
    other.flush(b"x")
    assert (other.read(1), other.failures) == (b"x", [])
    other.close()


def test_closed_during_the_handshake_nothing_is_told(strange: TlsPair, running: RunningLoop) -> None:
    def close_before_its_turn() -> None:
        strange.layer.receive(b"\x16\x03\x01", 0.0)
        strange.layer.close()

    running.call(close_before_its_turn)
    running.next_turn()
    assert (strange.established, strange.failures, running.failures) == ([], [], [])


def test_an_address_has_so_many_handshakes_under_way_and_the_eldest_has_to_go(
    running: RunningLoop, server_side: Tls, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each takes some 100 KB. Those that wait for their first turn take little."""
    monkeypatch.setattr(tls_module, "BEGUN", 4)
    handshakes = Handshakes(running.loop)
    pairs = []
    for _ in range(6):
        pair = TlsPair(running, server_side, authority)
        pair.layer._handshakes = handshakes
        pair.peer.sendall(client_hello())
        assert pair.peer.recv(1) == b"\x16"  # it has begun
        pairs.append(pair)
    assert [len(pair.failures) for pair in pairs] == [1, 1, 0, 0, 0, 0]
    for pair in pairs:
        pair.close()
    assert handshakes.begun.arriving == 0


def test_only_some_handshakes_are_done_in_a_turn(running: RunningLoop) -> None:
    turns: list[int] = []
    handshakes = Handshakes(running.loop)

    def step() -> None:
        turns.append(running.turns)

    def rush() -> None:
        for _ in range(3 * STEPS + 1):
            handshakes.add(step, PEER)

    running.call(rush)
    while len(turns) < 3 * STEPS + 1:
        running.next_turn()
    assert [turns.count(turn) for turn in sorted(set(turns))] == [STEPS, STEPS, STEPS, 1]


def test_a_handshake_that_asks_for_its_next_turn_has_one(running: RunningLoop) -> None:
    """Also if nobody else waits then: it is asked for while its own turn goes on."""
    handshakes = Handshakes(running.loop)
    turns: list[int] = []
    over = threading.Event()

    def step() -> None:
        turns.append(len(turns))
        if len(turns) < 100:
            handshakes.add(step, "192.0.2.1:1000")
        else:
            over.set()

    running.call(lambda: handshakes.add(step, "192.0.2.1:1000"))
    eventually_set(over)
    running.next_turn()
    assert turns == list(range(100))
    assert running.failures == []


def test_addresses_take_turns_at_handshakes(running: RunningLoop) -> None:
    done: list[str] = []
    handshakes = Handshakes(running.loop)

    def rush() -> None:
        for n in range(3):
            for peer in (PEER, PEER.replace(":1000", ":2000"), "[2001:db8::1]:1", "[2001:db8::2:1]:1"):
                handshakes.add(partial(done.append, f"{peer} {n}"), peer)
        handshakes.add(partial(done.append, "late"), "192.0.2.9:1")

    running.call(rush)
    while len(done) < 13:
        running.next_turn()
    assert done.index("late") == 2
    assert [step.startswith("[") for step in done[:7]] == [False, True, False, False, True, False, True]


def test_steps_that_take_long_are_fewer_in_a_turn(running: RunningLoop) -> None:
    turns: list[int] = []
    handshakes = Handshakes(running.loop)

    def step() -> None:
        turns.append(running.turns)
        time.sleep(TURN)  # what OpenSSL does with RSA 4096

    def rush() -> None:
        for _ in range(3):
            handshakes.add(step, PEER)

    running.call(rush)
    while len(turns) < 3:
        running.next_turn()
    assert len(set(turns)) == 3


def test_a_bug_in_one_handshake_leaves_the_others_their_turn(running: RunningLoop) -> None:
    done: list[int] = []
    handshakes = Handshakes(running.loop)

    def bug() -> None:
        raise ValueError("bug")

    def rush() -> None:
        handshakes.add(bug, PEER)
        handshakes.add(lambda: done.append(1), PEER)

    running.call(rush)
    running.next_turn()
    running.next_turn()
    assert (done, [str(error) for error in running.failures]) == ([1], ["bug"])
    running.failures.clear()


# --- whom a certificate names ---


def decoded(*parts: tuple[str, str]) -> dict[str, Any]:
    return {"subject": tuple((part,) for part in parts)}


@pytest.mark.parametrize(
    ("certificate", "name"),
    [
        (decoded(("countryName", "AT"), ("commonName", "ann")), "ann"),
        (decoded(("countryName", "AT")), ""),
        (decoded(("commonName", "ann"), ("commonName", "root")), ""),
        ({"subject": ((("commonName", "ann"), ("commonName", "root")),)}, ""),
        ({}, ""),
    ],
)
def test_common_name(certificate: dict[str, Any], name: str) -> None:
    assert common_name(certificate) == name


@pytest.mark.parametrize(
    ("certificate", "name"),
    [
        (decoded(("countryName", "AT"), ("organizationName", "O"), ("commonName", "ann")), "CN=ann,O=O,C=AT"),
        (decoded(("commonName", "ann,O=Other")), "CN=ann\\,O=Other"),
        (decoded(("commonName", '#a+b"c\\d<e>f;# ')), 'CN=\\#a\\+b\\"c\\\\d\\<e\\>f\\;#\\ '),
        (decoded(("commonName", " ")), "CN=\\ "),
        (decoded(("commonName", "Zoë"), ("emailAddress", "z@x")), "emailAddress=z@x,CN=Zoë"),
        ({"subject": ((("commonName", "ann"), ("userId", "7")),)}, "CN=ann+UID=7"),
        ({}, ""),
    ],
)
def test_subject(certificate: dict[str, Any], name: str) -> None:
    assert subject(certificate) == name


def test_every_identity_of_the_options_is_there() -> None:
    kind = OPTIONS["certificate_user"].kind
    assert isinstance(kind, Choice)
    assert kind.words == tuple(tls_module.IDENTITIES)


def test_a_context_takes_nothing_older_than_tls_1_2(server_side: Tls) -> None:
    assert server_side.context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert server_side.context.options & ssl.OP_NO_RENEGOTIATION
