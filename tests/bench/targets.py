"""A broker as it is measured: started, stopped, and asked what it has used.

Owns: processes, the two cores, CPU time and memory as the operating system reports them.
Must not know: which brokers there are, MQTT, the workloads, how results are shown.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from packets import V311, Mqtt
from transports import Endpoint, Transport

ROOT = Path(__file__).resolve().parents[2]
STARTS_WITHIN = STOPS_WITHIN = 30.0  # seconds


class TargetError(Exception):
    """A broker cannot be started or reached; str() says what to do."""


@dataclass(frozen=True)
class Needs:
    """What a row asks of the broker that is started for it."""

    mqtt: Mqtt = V311
    transport: Transport = Transport.TCP
    durable: bool = False  # Sessions and their messages outlive the process
    queued: int = 0  # messages that wait for one client which is away


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

    def lacks(self, needs: Needs) -> str:
        """Why a row cannot be measured with it, so that "this broker ..." is a sentence; empty when it can."""
        ...

    def start(self, cores: Cores, needs: Needs) -> contextlib.AbstractContextManager[Broker]:
        """A fresh broker without any state."""
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
def child(
    cores: Cores, name: str, command: list[str], endpoint: Endpoint, folder: Path, cwd: Path = ROOT
) -> Iterator[Broker]:
    log = folder / "output"
    with log.open("wb") as output, cores.for_broker():
        process = subprocess.Popen(command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
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
