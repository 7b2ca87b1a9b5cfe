"""The benchmark keeps working: every row, very small, against a real broker; and it notices a broker that errs."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

BENCH = Path(__file__).parent
ROOT = BENCH.parents[1]
TARGET = "mosquitto"
ROWS = [
    "one-to-one", "pairs", "fan-in", "fan-out-100", "fan-out-1000", "large", "qos1", "qos2",
    "durable", "backlog", "subscriptions", "shared-qos0", "shared-qos1", "aliases", "requests", "connects",
    "tls", "tls-pairs", "tls-fan-out", "tls-connects", "ws", "ws-pairs", "ws-fan-out", "idle", "clocked",
]  # fmt: skip


ONLY_5 = {"aliases", "requests"}  # rows in MQTT 5.0 alone


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(BENCH), *arguments], capture_output=True, text=True, timeout=300)


def test_every_row_is_measured_in_every_version(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    done = bench(
        "--target", TARGET, "--mqtt", "both", "--rounds", "1", "--seconds", "0.1",
        "--connections", "200", "--backlog", "2000", "--subscriptions", "2000", "--json", str(path), "--markdown", "-",
    )  # fmt: skip
    assert (done.returncode, done.stderr.count("FAILED")) == (0, 0), done.stderr
    result = json.loads(path.read_text())
    measured = {
        version: list(dict.fromkeys(row["name"] for row in result["rows"] if row["mqtt"] == version))
        for version in ("3.1.1", "5.0")
    }
    assert measured == {"3.1.1": [row for row in ROWS if row not in ONLY_5], "5.0": ROWS}
    units = {row["name"]: row["unit"] for row in result["rows"]}
    assert (units.pop("connects"), units.pop("tls-connects")) == ("us/connect", "us/connect")
    assert (units.pop("idle"), units.pop("requests")) == ("KiB/connection", "us/request")
    assert set(units.values()) == {"us/message"}
    for row in result["rows"]:
        (figures,) = row["rounds"][TARGET]
        assert figures["cost"] > 0 or row["name"] == "idle", row
        assert 1 < figures["memory"] < 1000, row
        compared = row["mqtt"] != "3.1.1" and row["name"] not in ONLY_5 and row["name"] != "idle"
        assert (row["of_311"][TARGET] is not None) or not compared, row
    tables = [part.partition("\n\n")[2].partition("\n\n")[0] for part in done.stdout.split("### ")[1:]]
    rows = {version: sum(row["mqtt"] == version for row in result["rows"]) for version in measured}
    assert [len(table.splitlines()) for table in tables[:2]] == [2 + count for count in rows.values()]
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1, table


def test_messages_with_properties_are_measured_where_there_are_messages() -> None:
    done = bench(
        "--target", TARGET, "--mqtt", "5.0", "--properties", "--only", "one-to-one", "--only", "qos2", "--only",
        "connects", "--rounds", "1", "--seconds", "0.1", "--connections", "200", "--json", "-",
    )  # fmt: skip
    assert (done.returncode, done.stderr.count("FAILED")) == (0, 0), done.stderr
    measured = [(row["name"], row["mqtt"]) for row in json.loads(done.stdout)["rows"]]
    both = [(name, version) for name in ("one-to-one", "qos2") for version in ("5.0", "5.0 with properties")]
    assert sorted(measured) == sorted([*both, ("connects", "5.0")])


def test_our_broker_stands_beside_another_checkout_and_peers() -> None:
    program = shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    done = bench(
        "--target", "selectmq", "--peer", f"peer={program}", "--against", str(ROOT), "--only", "one-to-one",
        "--rounds", "2", "--seconds", "0.1", "--json", "-",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)["rows"]
    costs = {name: sorted(figures["cost"] for figures in rounds) for name, rounds in row["rounds"].items()}
    assert list(costs) == ["selectmq", "peer", "old"]
    middle = {name: sum(both) / 2 for name, both in costs.items()}
    assert row["of_best"]["what"] == "peer"
    assert row["of_best"]["value"] == pytest.approx(middle["selectmq"] / middle["peer"])
    assert row["of_old"]["value"] == pytest.approx(middle["selectmq"] / middle["old"])
    assert row["of_old"]["least"] <= row["of_old"]["most"]


class ErringBroker:
    """Just enough of a broker for one publisher and one subscriber at QoS 0; it errs once, at the 100th message."""

    def __init__(self, fault: str) -> None:
        self.fault = fault
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.server.getsockname()[1]
        self.subscriber: socket.socket | None = None
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self.server.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        data, forwarded = b"", 0
        with sock:
            while True:
                try:
                    part = sock.recv(65536)
                    if not part:
                        return
                    data += part
                    while len(data) > 1 and len(data) >= 2 + data[1]:
                        frame, data = data[: 2 + data[1]], data[2 + data[1] :]
                        if frame[0] == 0x10:
                            sock.sendall(b"\x20\x02\x00\x00")
                        elif frame[0] == 0x82:
                            self.subscriber = sock
                            sock.sendall(b"\x90\x03" + frame[2:4] + b"\x00")
                        elif frame[0] == 0xC0:
                            sock.sendall(b"\xd0\x00")
                        elif self.subscriber is not None:
                            forwarded += 1
                            self._forward(frame, self.subscriber, forwarded == 100)
                except OSError:
                    return

    def _forward(self, frame: bytes, subscriber: socket.socket, err: bool) -> None:
        if not err or self.fault == "none":
            subscriber.sendall(frame)
        elif self.fault == "double":
            subscriber.sendall(frame + frame)
        elif self.fault == "corrupt":
            subscriber.sendall(b"\x00" + frame[1:])
        elif self.fault == "close":
            self.subscriber = None
            subscriber.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def erring(request: pytest.FixtureRequest) -> Iterator[ErringBroker]:
    broker = ErringBroker(request.param)
    yield broker
    broker.server.close()


@pytest.mark.parametrize(
    ("erring", "code", "expected"),
    [
        ("none", 0, "us/message"),
        ("lose", 1, "FAILED: nothing came for 0.5 s (published "),
        ("double", 1, "FAILED: more came than was published"),
        ("corrupt", 1, "FAILED: the broker sent something unexpected: 00 "),
        ("close", 1, "FAILED: the broker closed a connection during the run (published "),
    ],
    indirect=["erring"],
)
def test_a_broker_that_errs_fails_the_row(erring: ErringBroker, code: int, expected: str) -> None:
    target = f"127.0.0.1:{erring.port}"
    done = bench("--target", target, "--only", "one-to-one", "--rounds", "1", "--seconds", "0.1", "--patience", "0.5")
    assert (done.returncode, expected in done.stdout) == (code, True), done.stdout + done.stderr


class AnyAcknowledgement:
    """Just enough of an MQTT 5.0 broker for QoS 1 and 2, whose acknowledgements have all the forms that 5.0 allows."""

    FORMS = (b"\x02%b", b"\x02%b", b"\x03%b\x00", b"\x04%b\x10\x00", b"\x08%b\x00\x04\x1f\x00\x01x")
    ANSWERS: ClassVar = {0x32: 0x40, 0x34: 0x50, 0x62: 0x70, 0x50: 0x62}

    def __init__(self, receive_maximum: int = 1000) -> None:
        properties = b"\x21" + receive_maximum.to_bytes(2, "big") + b"\x12\x00\x01x\x26\x00\x01a\x00\x01b\x0b\xff\x01"
        self.connack = bytes((0x20, 3 + len(properties), 0, 0, len(properties))) + properties
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.server.getsockname()[1]
        self.subscribers: dict[bytes, socket.socket] = {}
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self.server.accept()
                threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        data, number = b"", 0
        with sock, contextlib.suppress(OSError):
            while part := sock.recv(65536):
                data += part
                while len(data) > 1 and len(data) >= 2 + data[1]:
                    frame, data = data[: 2 + data[1]], data[2 + data[1] :]
                    if frame[0] == 0x10:
                        sock.sendall(self.connack)
                    elif frame[0] == 0x82:
                        self.subscribers[frame[7:-1]] = sock
                        sock.sendall(b"\x90\x07" + frame[2:4] + b"\x03\x1f\x00\x00" + frame[-1:])
                    elif frame[0] == 0xC0:
                        sock.sendall(b"\xd0\x00")
                    elif answer := self.ANSWERS.get(frame[0]):
                        id_at = 2
                        if frame[0] < 0x40:
                            id_at = 4 + frame[3]
                            self.subscribers[frame[4:id_at]].sendall(frame)
                        number += 1
                        form = self.FORMS[number // 7 % len(self.FORMS)] % frame[id_at : id_at + 2]
                        sock.sendall(bytes((answer,)) + form)


@pytest.mark.parametrize("row", ["qos1", "qos2"])
def test_acknowledgements_of_every_form_are_understood(row: str) -> None:
    broker = AnyAcknowledgement()
    target = f"127.0.0.1:{broker.port}"
    done = bench("--target", target, "--mqtt", "5.0", "--only", row, "--rounds", "1", "--seconds", "0.1")
    broker.server.close()
    assert (done.returncode, "us/message" in done.stdout) == (0, True), done.stdout + done.stderr


def test_a_receive_maximum_below_the_row_s_window_is_named() -> None:
    broker = AnyAcknowledgement(receive_maximum=7)
    target = f"127.0.0.1:{broker.port}"
    done = bench("--target", target, "--mqtt", "5.0", "--only", "qos1", "--rounds", "1", "--seconds", "0.1")
    broker.server.close()
    expected = "FAILED: the broker's Receive Maximum is 7; this row sends 20 at once"
    assert (done.returncode, expected in done.stdout) == (1, True), done.stdout + done.stderr


@pytest.mark.parametrize("erring", ["none"], indirect=True)
def test_a_broker_without_5_0_is_named_in_a_line_and_its_rows_are_left_out(erring: ErringBroker) -> None:
    target = f"127.0.0.1:{erring.port}"
    line = f"bench: {target} does not speak MQTT 5.0: its rows in this version are left out.\n"
    arguments = ("--target", target, "--only", "one-to-one", "--rounds", "1", "--seconds", "0.1", "--json", "-")
    done = bench(*arguments, "--mqtt", "both", "--properties")
    assert (done.returncode, done.stderr.count(line)) == (0, 1), done.stderr
    assert [row["mqtt"] for row in json.loads(done.stdout)["rows"]] == ["3.1.1"]
    done = bench(*arguments, "--mqtt", "5.0")
    assert done.returncode == 2
    assert done.stderr.endswith(line + "bench: nothing is left to measure\n")


def test_websocket_frames_are_taken_apart_however_packets_stand_in_them() -> None:
    """FlashMQ sends many packets in a frame, others one in each; a block ends anywhere."""
    code = r"""
from transports import Unframer
content = [bytes(range(256)) * size for size in (1, 3, 300)]
content = [b"", b"a", b"b" * 125, b"c" * 126, *content, b"last"]
frames = b""
for part in content:
    long = len(part).to_bytes(2, "big") if 125 < len(part) < 65536 else len(part).to_bytes(8, "big")
    frames += b"\x82" + (bytes((len(part),)) if len(part) < 126 else bytes((126 if len(long) == 2 else 127,)) + long)
    frames += part
for step in (7, 4096, len(frames)):
    unframer = Unframer()
    assert b"".join(unframer.feed(frames[i : i + step]) for i in range(0, len(frames), step)) == b"".join(content), step
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=BENCH, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_mistake_in_the_arguments_says_what_is_right() -> None:
    assert bench("--only", "fan-inn").stderr == "bench: --only fan-inn: no such row; did you mean fan-in?\n"
    assert bench("--target", "mosquitto", "--json", "/nowhere/x").stderr == (
        "bench: /nowhere/x: cannot be written; name a file in a folder that exists and is writable\n"
    )
    assert bench("--target", "nats").stderr == (
        "bench: --target nats: not a broker this bench knows; give mosquitto, selectmq or HOST:PORT\n"
    )
    assert bench("--only", "aliases").stderr == (
        "bench: --only aliases: a row of MQTT 5.0 alone; give --mqtt 5.0, too\n"
    )
    assert bench("--properties").stderr == (
        "bench: --properties: MQTT 3.1.1 has none; give --mqtt 5.0 or --mqtt both, too\n"
    )
    assert bench("--against", str(BENCH)).stderr == (
        f"bench: --against {BENCH}: not a checkout of selectmq: it has no broker/__main__.py\n"
    )
    assert bench("--peer", "flashmq").stderr == (
        "bench: flashmq: give NAME=PROGRAM, for example flashmq=/usr/bin/flashmq\n"
    )
    assert bench("--peer", "peer=/nowhere/x").stderr.startswith("bench: peer=/nowhere/x: cannot be run: ")
    assert bench("--peer", f"peer={shutil.which('true')}").stderr == (
        f"bench: peer={shutil.which('true')}: this program says neither that it is mosquitto nor that it is FlashMQ\n"
    )
