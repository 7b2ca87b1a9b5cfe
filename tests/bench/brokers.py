"""The brokers that can be measured: how each is found and configured.

Owns: their programs, their configuration files, which of them a run measures.
Must not know: MQTT, the workloads, how results are shown.

All brokers get the same limits: so many messages in flight per client, and queues without a limit (or far above what
any workload reaches), so that no broker wins by dropping.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from targets import (
    ROOT,
    STARTS_WITHIN,
    Broker,
    Cores,
    Needs,
    Target,
    TargetError,
    child,
    free_port,
    make_certificate,
)
from transports import Endpoint, Transport

IN_FLIGHT = 1000  # messages in flight per client
OURS, OLD, REFERENCE = "selectmq", "old", "mosquitto"  # REFERENCE: whose cost stands above the line of every ratio
PEERS_VARIABLE = "SELECTMQ_BENCH_PEERS"


def find_program(name: str) -> str | None:
    # Debian keeps brokers where only root's PATH leads.
    path = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin"))
    return shutil.which(name, path=path)


class Program:
    """A broker that is installed."""

    def __init__(self, name: str, program: str, version: str) -> None:
        self.name = name
        self.program = program
        self._version = version

    def version(self) -> str:
        return self._version


class Mosquitto(Program):
    def settings(self) -> str:
        return (
            f"set_tcp_nodelay true, max_inflight_messages {IN_FLIGHT}, max_queued_messages 0 (no limit), no log; "
            "durable rows: persistence true, which writes every 30 minutes and at exit (autosave_interval)"
        )

    def lacks(self, needs: Needs) -> str:
        return ""

    @contextlib.contextmanager
    def start(self, cores: Cores, needs: Needs) -> Iterator[Broker]:
        port = free_port()
        with tempfile.TemporaryDirectory(prefix="bench-") as name:
            folder = Path(name)
            lines = [
                f"listener {port} 127.0.0.1",
                "allow_anonymous true",
                "set_tcp_nodelay true",
                f"max_inflight_messages {IN_FLIGHT}",
                "max_queued_messages 0",
                "max_queued_bytes 0",
                "log_dest none",
                f"persistence {str(needs.durable).lower()}",
                f"persistence_location {folder}/",
            ]
            if sys.platform != "win32" and os.geteuid() == 0:
                lines.append("user root")  # otherwise it changes to a user who may not write here
            if needs.transport is Transport.TLS:
                certificate, key = make_certificate(folder)
                lines += [f"certfile {certificate}", f"keyfile {key}"]
            elif needs.transport is Transport.WEBSOCKET:
                # 2.0.11 does not start without a listener of the other kind, too.
                port = free_port()
                lines += [f"listener {port} 127.0.0.1", "protocol websockets"]
            (folder / "mosquitto.conf").write_text("\n".join(lines) + "\n")
            command = [self.program, "-c", str(folder / "mosquitto.conf")]
            endpoint = Endpoint("127.0.0.1", port, needs.transport, needs.mqtt)
            with child(cores, self.name, command, endpoint, folder) as broker:
                yield broker


class FlashMQ(Program):
    MOST_QUEUED = 65535  # messages; its option takes no more

    def settings(self) -> str:
        return (
            f"one thread for connections (thread_count 1), max_qos_msg_pending_per_client {self.MOST_QUEUED}, "
            "client_max_write_buffer_size 64 MiB, log_level none; durable rows: storage_dir, which is written about "
            "once an hour and at exit (save_state_interval)"
        )

    def lacks(self, needs: Needs) -> str:
        if needs.queued > self.MOST_QUEUED:
            return f"keeps at most {self.MOST_QUEUED:,} messages for a client"
        return ""

    @contextlib.contextmanager
    def start(self, cores: Cores, needs: Needs) -> Iterator[Broker]:
        port = free_port()
        with tempfile.TemporaryDirectory(prefix="bench-") as name:
            folder = Path(name)
            listener = [
                f"port {port}",
                f"protocol {'websockets' if needs.transport is Transport.WEBSOCKET else 'mqtt'}",
                "inet_protocol ip4",
                "inet4_bind_address 127.0.0.1",
                "tcp_nodelay true",
            ]
            if needs.transport is Transport.TLS:
                certificate, key = make_certificate(folder)
                listener += [f"fullchain {certificate}", f"privkey {key}"]
            lines = [
                "allow_anonymous true",
                "log_level none",
                "thread_count 1",
                "rlimit_nofile 65536",
                f"max_qos_msg_pending_per_client {self.MOST_QUEUED}",
                "max_qos_bytes_pending_per_client 1000000000",
                f"client_max_write_buffer_size {64 << 20}",
                *(["storage_dir " + str(folder)] if needs.durable else []),
                "listen {",
                *listener,
                "}",
            ]
            (folder / "flashmq.conf").write_text("\n".join(lines) + "\n")
            command = [self.program, "-c", str(folder / "flashmq.conf")]
            endpoint = Endpoint("127.0.0.1", port, needs.transport, needs.mqtt)
            with child(cores, self.name, command, endpoint, folder) as broker:
                yield broker


class Selectmq:
    """The broker of a checkout, run by this interpreter."""

    def __init__(self, name: str, checkout: Path) -> None:
        self.name = name
        self.checkout = checkout

    def version(self) -> str:
        command = [sys.executable, "-m", "broker", "--version"]
        answer = subprocess.run(command, cwd=self.checkout, capture_output=True, text=True, check=False)
        if answer.returncode:
            last = (answer.stderr.strip().splitlines() or [f"exit code {answer.returncode}"])[-1]
            raise TargetError(f"`{sys.executable} -m broker --version` fails in {self.checkout}: {last}")
        where = "" if self.checkout == ROOT else f", from {self.checkout}"
        return f"{answer.stdout.strip().removeprefix('selectmq ')} on Python {sys.version.split()[0]}{where}"

    def settings(self) -> str:
        return (
            f"max_inflight {IN_FLIGHT}, limits of connections and queues far above the workloads, no limit of the "
            "connection rate, log_level error; durable rows: on disk before it acknowledges (without --memory)"
        )

    def lacks(self, needs: Needs) -> str:
        return ""

    @contextlib.contextmanager
    def start(self, cores: Cores, needs: Needs) -> Iterator[Broker]:
        port = free_port()
        with tempfile.TemporaryDirectory(prefix="bench-") as name:
            folder = Path(name)
            listener = f'[[listeners]]\nport = {port}\nbind = "127.0.0.1"\n'
            if needs.transport is Transport.TLS:
                certificate, key = make_certificate(folder)
                listener += f'certificate = "{certificate}"\nkey = "{key}"\n'
            elif needs.transport is Transport.WEBSOCKET:
                listener += "websocket = true\n"
            (folder / "selectmq.toml").write_text(
                'log_level = "error"\n'
                f"max_inflight = {IN_FLIGHT}\n"
                "max_connections = 20000\n"
                "max_connect_rate = 0\n"
                "max_subscriptions = 200000\n"
                "max_queued_messages = 10000000\n"
                'max_queued_bytes = "16 GiB"\n'
                'max_unsent = "64 MiB"\n' + listener
            )
            command = [sys.executable, "-m", "broker", "-c", str(folder / "selectmq.toml")]
            command += ["--data", str(folder / "data")] if needs.durable else ["--memory"]
            endpoint = Endpoint("127.0.0.1", port, needs.transport, needs.mqtt)
            with child(cores, self.name, command, endpoint, folder, self.checkout) as broker:
                yield broker


class Running:
    """A broker that somebody else runs: rates and latencies only, and with whatever limits it has."""

    def __init__(self, host: str, port: int) -> None:
        self.name = f"{host}:{port}"
        self.host = host
        self.port = port

    def version(self) -> str:
        return "(not started by this run)"

    def settings(self) -> str:
        return "as it was found: its limits, its persistence; CPU and memory are not known"

    def lacks(self, needs: Needs) -> str:
        return "" if needs.transport is Transport.TCP else "is reached over TCP only, as one port is all that is known"

    @contextlib.contextmanager
    def start(self, cores: Cores, needs: Needs) -> Iterator[Broker]:
        try:
            address = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)[0][4]
            socket.create_connection((self.host, self.port), timeout=STARTS_WITHIN).close()
        except OSError as error:
            raise TargetError(f"no broker answers at {self.name}: {error}") from None
        yield Broker(Endpoint(str(address[0]), self.port, needs.transport, needs.mqtt))


# Which of them.


def peer(name: str, program: str) -> Target:
    """The broker that this program is, by what it says of itself. Raises TargetError."""
    if name in (OURS, OLD) or not re.fullmatch(r"[\w.-]+", name):
        raise TargetError(f"{name}={program}: give another name than {name!r}, of letters, digits, dots and hyphens")
    said = ""
    for flag in ("-h", "-V"):  # mosquitto, FlashMQ
        try:
            done = subprocess.run([program, flag], capture_output=True, text=True, timeout=10, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise TargetError(f"{name}={program}: cannot be run: {error}") from None
        said += done.stdout
        if found := re.search(r"^mosquitto version (\S+)", said, re.M):
            return Mosquitto(name, program, found[1])
        if found := re.search(r"^FlashMQ Version (\S+)", said, re.M):
            return FlashMQ(name, program, found[1])
    raise TargetError(f"{name}={program}: this program says neither that it is mosquitto nor that it is FlashMQ")


def found_peers(asked: Sequence[str]) -> dict[str, Target]:
    """Brokers to compare with, by name: from `--peer`, from the environment, from PATH. The first of a name counts."""
    peers: dict[str, Target] = {}
    for text in [*asked, *filter(None, os.environ.get(PEERS_VARIABLE, "").split(os.pathsep))]:
        name, equals, program = text.partition("=")
        if not equals:
            raise TargetError(f"{text}: give NAME=PROGRAM, for example flashmq=/usr/bin/flashmq")
        if name not in peers:
            peers[name] = peer(name, program)
    for name in (REFERENCE, "flashmq"):
        if name not in peers and (there := find_program(name)) is not None:
            peers[name] = peer(name, there)
    return peers


def checkout(path: str) -> Selectmq:
    """Raises TargetError."""
    folder = Path(path).resolve()
    if not (folder / "broker" / "__main__.py").exists():
        raise TargetError(f"--against {path}: not a checkout of selectmq: it has no broker/__main__.py")
    return Selectmq(OLD, folder)


def choose(names: Sequence[str], asked_peers: Sequence[str], against: str | None) -> list[Target]:
    """The brokers of a run: those named, and all that were asked for. Raises TargetError."""
    peers = found_peers(asked_peers)
    if not names:
        if REFERENCE not in peers:
            raise TargetError(_missing(REFERENCE))
        names = [REFERENCE, *(name for name in peers if name != REFERENCE), OURS]
    else:
        names = [*names, *(text.partition("=")[0] for text in asked_peers)]
    chosen: list[Target] = [parse(name, peers) for name in dict.fromkeys(names)]
    if against is not None:
        chosen.append(checkout(against))
    return chosen


def parse(text: str, peers: dict[str, Target]) -> Target:
    """The target that a `--target` names. Raises TargetError."""
    if text in peers:
        return peers[text]
    if text == OURS:
        return Selectmq(OURS, ROOT)
    if text == REFERENCE:
        raise TargetError(_missing(text))
    host, colon, port = text.rpartition(":")
    if colon and host and port.isdecimal() and 0 < int(port) < 65536:
        return Running(host.strip("[]"), int(port))
    known = ", ".join([REFERENCE, *(name for name in peers if name != REFERENCE), OURS])
    raise TargetError(f"--target {text}: not a broker this bench knows; give {known} or HOST:PORT")


def _missing(name: str) -> str:
    return f"{name} is not installed: install it (Debian: apt install {name}), or measure without it: --target {OURS}"
