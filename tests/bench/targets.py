"""The brokers that can be measured: how each is started, stopped and asked what it has used.

Owns: processes, configuration files, the two cores, CPU time and memory as the operating system reports them.
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
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from transports import Endpoint, Transport

ROOT = Path(__file__).resolve().parents[2]
IN_FLIGHT = 1000  # messages in flight per client, on every broker that is started here
STARTS_WITHIN = STOPS_WITHIN = 30.0  # seconds


class TargetError(Exception):
    """A broker cannot be started or reached; str() says what to do."""


class Cores:
    """The broker gets the first core that this process may use, the generator the second, if the system can pin."""

    def __init__(self) -> None:
        allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        self.broker: int | None = None
        self.generator: int | None = None
        if len(allowed) >= 2:
            self.broker, self.generator = allowed[:2]
        if self.broker is not None:
            self.text = f"broker pinned to core {self.broker}, generator to core {self.generator}"
        elif allowed:
            self.text = "one core only: broker and generator share it, so rates and latencies are not comparable"
        else:
            self.text = "this system cannot pin a process to a core: rates and latencies vary more than they should"

    def pin_generator(self) -> None:
        if self.generator is not None:
            os.sched_setaffinity(0, {self.generator})

    @contextlib.contextmanager
    def for_broker(self) -> Iterator[None]:
        """A child started in here inherits the broker's core, and so do all of its threads."""
        if self.broker is None:
            yield
            return
        os.sched_setaffinity(0, {self.broker})
        try:
            yield
        finally:
            self.pin_generator()


class Broker:
    """A running broker. `process` is None for one that was not started here: then CPU and memory are unknown."""

    def __init__(
        self, endpoint: Endpoint, process: subprocess.Popen[bytes] | None = None, log: Path | None = None
    ) -> None:
        self.endpoint = endpoint
        self.process = process
        self.log = log

    def cpu_seconds(self) -> float | None:
        """User and system time of the process with all of its threads, the finished ones included."""
        if self.process is None or sys.platform != "linux":
            return None
        # The clock of another process, as clock_getcpuclockid(3) computes it: nanoseconds, where /proc/PID/stat has
        # hundredths of a second.
        try:
            return time.clock_gettime((~self.process.pid << 3) | 2)
        except OSError as error:
            raise TargetError(f"the broker's CPU time cannot be read: {error}{self.last_words()}") from None

    def memory(self) -> int | None:
        """Resident bytes (Rss) now."""
        if self.process is None or sys.platform != "linux":
            return None
        for name in ("smaps_rollup", "status"):  # the first is exact, the second is there on every kernel
            with contextlib.suppress(OSError):
                content = Path(f"/proc/{self.process.pid}/{name}").read_text()
                if found := re.search(r"^(?:Rss|VmRSS):\s+(\d+) kB", content, re.M):
                    return int(found[1]) * 1024
        return None

    def last_words(self) -> str:
        """How the process ended and the end of what it printed, as the tail of an error message; or nothing."""
        if self.process is None or self.log is None:
            return ""
        code = self.process.poll()
        state = "" if code is None else f"; it ended with {code}"
        lines = self.log.read_text(errors="replace").strip().splitlines()[-3:]
        return state + ("; it said: " + " | ".join(lines) if lines else "")


class Target(Protocol):
    name: str

    def version(self) -> str: ...

    def settings(self) -> str:
        """One line: what was set that a reader has to know to compare."""
        ...

    def can(self, transport: Transport) -> bool:
        """Whether the bench can reach it this way."""
        ...

    def start(self, cores: Cores, durable: bool, transport: Transport) -> contextlib.AbstractContextManager[Broker]:
        """A fresh broker without any state. durable: Sessions and their messages outlive the process."""
        ...


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for this machine, and its key: of the kind that most sites have now (P-256)."""
    certificate, key = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-subj", "/CN=localhost", "-keyout", str(key), "-out", str(certificate)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise TargetError("the rows with TLS need the program openssl (Debian: apt install openssl)") from None
    if done.returncode:
        raise TargetError(f"openssl makes no certificate: {done.stderr.strip()}")
    return certificate, key


@contextlib.contextmanager
def child(cores: Cores, name: str, command: list[str], endpoint: Endpoint, folder: Path) -> Iterator[Broker]:
    log = folder / "output"
    with log.open("wb") as output, cores.for_broker():
        process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    broker = Broker(endpoint, process, log)
    try:
        deadline = time.monotonic() + STARTS_WITHIN
        while True:
            if process.poll() is not None:
                raise TargetError(f"{name} does not start{broker.last_words()}")
            try:
                socket.create_connection((endpoint.host, endpoint.port), timeout=1).close()
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise TargetError(f"{name} does not accept connections{broker.last_words()}") from None
                time.sleep(0.01)
        yield broker
    finally:
        process.terminate()
        try:
            process.wait(STOPS_WITHIN)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Mosquitto:
    name = "mosquitto"

    def __init__(self) -> None:
        # Debian keeps it where only root's PATH leads.
        path = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin"))
        program = shutil.which("mosquitto", path=path)
        if program is None:
            raise TargetError(
                "mosquitto is not installed: install it (Debian: apt install mosquitto), "
                "or measure without it: --target selectmq"
            )
        self.program = program

    def version(self) -> str:
        output = subprocess.run([self.program, "-h"], capture_output=True, text=True, check=False).stdout
        return output.partition("\n")[0].removeprefix("mosquitto version ").strip()

    def settings(self) -> str:
        return (
            f"set_tcp_nodelay true, max_inflight_messages {IN_FLIGHT}, max_queued_messages 0 (no limit), no log; "
            "durable rows: persistence true, which writes every 30 minutes and at exit (autosave_interval)"
        )

    def can(self, transport: Transport) -> bool:
        return True

    @contextlib.contextmanager
    def start(self, cores: Cores, durable: bool, transport: Transport) -> Iterator[Broker]:
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
                f"persistence {str(durable).lower()}",
                f"persistence_location {folder}/",
            ]
            if sys.platform != "win32" and os.geteuid() == 0:
                lines.append("user root")  # otherwise it changes to a user who may not write here
            if transport is Transport.TLS:
                certificate, key = make_certificate(folder)
                lines += [f"certfile {certificate}", f"keyfile {key}"]
            elif transport is Transport.WEBSOCKET:
                # 2.0.11 does not start without a listener of the other kind, too.
                port = free_port()
                lines += [f"listener {port} 127.0.0.1", "protocol websockets"]
            (folder / "mosquitto.conf").write_text("\n".join(lines) + "\n")
            command = [self.program, "-c", str(folder / "mosquitto.conf")]
            with child(cores, self.name, command, Endpoint("127.0.0.1", port, transport), folder) as broker:
                yield broker


class Selectmq:
    """The broker of this checkout, run by this interpreter."""

    name = "selectmq"

    def version(self) -> str:
        answer = subprocess.run(
            [sys.executable, "-m", "broker", "--version"], cwd=ROOT, capture_output=True, text=True, check=False
        )
        if answer.returncode:
            last = (answer.stderr.strip().splitlines() or [f"exit code {answer.returncode}"])[-1]
            raise TargetError(f"`{sys.executable} -m broker --version` fails in {ROOT}: {last}")
        return f"{answer.stdout.strip().removeprefix('selectmq ')} on Python {sys.version.split()[0]}"

    def settings(self) -> str:
        return (
            f"max_inflight {IN_FLIGHT}, limits of connections and queues far above the workloads, no limit of the "
            "connection rate, log_level error; durable rows: on disk before it acknowledges (without --memory)"
        )

    def can(self, transport: Transport) -> bool:
        return True

    @contextlib.contextmanager
    def start(self, cores: Cores, durable: bool, transport: Transport) -> Iterator[Broker]:
        port = free_port()
        with tempfile.TemporaryDirectory(prefix="bench-") as name:
            folder = Path(name)
            listener = f'[[listeners]]\nport = {port}\nbind = "127.0.0.1"\n'
            if transport is Transport.TLS:
                certificate, key = make_certificate(folder)
                listener += f'certificate = "{certificate}"\nkey = "{key}"\n'
            elif transport is Transport.WEBSOCKET:
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
            command += ["--data", str(folder / "data")] if durable else ["--memory"]
            with child(cores, self.name, command, Endpoint("127.0.0.1", port, transport), folder) as broker:
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

    def can(self, transport: Transport) -> bool:
        return transport is Transport.TCP  # one port is all that is known

    @contextlib.contextmanager
    def start(self, cores: Cores, durable: bool, transport: Transport) -> Iterator[Broker]:
        try:
            address = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)[0][4]
            socket.create_connection((self.host, self.port), timeout=STARTS_WITHIN).close()
        except OSError as error:
            raise TargetError(f"no broker answers at {self.name}: {error}") from None
        yield Broker(Endpoint(str(address[0]), self.port))


def parse(text: str) -> Target:
    """The target that a `--target` names. Raises TargetError."""
    if text == Mosquitto.name:
        return Mosquitto()
    if text == Selectmq.name:
        return Selectmq()
    host, colon, port = text.rpartition(":")
    if colon and host and port.isdecimal() and 0 < int(port) < 65536:
        return Running(host.strip("[]"), int(port))
    raise TargetError(f"--target {text}: not a broker this bench knows; give mosquitto, selectmq or HOST:PORT")


def raise_descriptor_limit() -> int:
    """Up to 65,536 descriptors, as far as this user may; the brokers inherit the limit. Returns it."""
    if sys.platform == "win32":
        return 65536  # no such limit there
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for limit in (65536, min(hard, 65536)):
        if soft != resource.RLIM_INFINITY and soft < limit:
            with contextlib.suppress(OSError, ValueError):
                resource.setrlimit(resource.RLIMIT_NOFILE, (limit, max(limit, hard)))
                return limit
    return 65536 if soft == resource.RLIM_INFINITY else soft


def filesystem_of_data() -> str:
    """The type of the file system where the durable rows store: on tmpfs they would prove nothing."""
    folder = Path(tempfile.gettempdir()).resolve()
    best, kind = "", "unknown"
    with contextlib.suppress(OSError):
        for line in Path("/proc/mounts").read_text().splitlines():
            _, point, found = line.split()[:3]
            if len(point) > len(best) and folder.is_relative_to(point):
                best, kind = point, found
    return f"{kind} ({folder})"
