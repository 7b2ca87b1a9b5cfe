"""The benchmark keeps working: every row, very small, against a real broker; and it notices a broker that errs."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

BENCH = Path(__file__).parent
TARGET = "mosquitto"
ROWS = [
    "one-to-one", "pairs", "fan-in", "fan-out-100", "fan-out-1000", "large", "qos1", "qos2",
    "durable", "backlog", "subscriptions", "connects",
    "tls", "tls-pairs", "tls-fan-out", "tls-connects", "ws", "ws-pairs", "ws-fan-out", "idle", "clocked",
]  # fmt: skip


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(BENCH), *arguments], capture_output=True, text=True, timeout=100)


def test_every_row_is_measured(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    done = bench(
        "--target", TARGET, "--rounds", "1", "--seconds", "0.1", "--connections", "200", "--backlog", "2000",
        "--subscriptions", "2000", "--json", str(path), "--markdown", "-",
    )  # fmt: skip
    assert (done.returncode, done.stderr.count("FAILED")) == (0, 0), done.stderr
    result = json.loads(path.read_text())
    assert list(dict.fromkeys(row["name"] for row in result["rows"])) == ROWS
    units = {row["name"]: row["unit"] for row in result["rows"]}
    assert (units.pop("connects"), units.pop("tls-connects")) == ("us/connect", "us/connect")
    assert units.pop("idle") == "KiB/connection"
    assert set(units.values()) == {"us/message"}
    for row in result["rows"]:
        (figures,) = row["rounds"][TARGET]
        assert figures["cost"] > 0 or row["name"] == "idle", row
        assert 1 < figures["memory"] < 1000, row
    table = done.stdout.partition("\n\n")[0].splitlines()
    assert len(table) == 2 + len(result["rows"])
    assert {line.count("|") for line in table} == {table[0].count("|")}


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


def test_a_mistake_in_the_arguments_says_what_is_right() -> None:
    assert bench("--only", "fan-inn").stderr == "bench: --only fan-inn: no such row; did you mean fan-in?\n"
    assert bench("--target", "mosquitto", "--json", "/nowhere/x").stderr == (
        "bench: /nowhere/x: cannot be written; name a file in a folder that exists and is writable\n"
    )
    assert bench("--target", "nats").stderr == (
        "bench: --target nats: not a broker this bench knows; give mosquitto, selectmq or HOST:PORT\n"
    )
