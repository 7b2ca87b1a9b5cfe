"""The broker as a real process, `python3 -m broker`, with its log read as it is written.

Owns: the process, its configuration file, its log. Must not know: MQTT, or anything of the broker but its command line
and its log.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Protocol

from tests.raw_client import DEADLINE, Address

ROOT = Path(__file__).parents[1]

Event = dict[str, Any]


def eventually(condition: Callable[[], bool], what: str, timeout: float = DEADLINE) -> None:
    """Wait until it is true, and fail if that takes too long."""
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, f"not within {timeout} s: {what}"
        time.sleep(0.002)


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """For a child: finds the broker, and no systemd of ours."""
    kept = {name: value for name, value in os.environ.items() if name not in ("NOTIFY_SOCKET", "WATCHDOG_USEC")}
    path = os.pathsep.join(filter(None, (str(ROOT), kept.get("PYTHONPATH"))))
    return {**kept, "PYTHONPATH": path, **(more or {})}


def run_command_line(*arguments: str, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
    """`python3 -m broker ARGUMENTS` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "broker", *arguments],
        capture_output=True, text=True, timeout=timeout, env=environment(),
    )  # fmt: skip


@contextlib.contextmanager
def child(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], IO[str]]]:
    """`python ARGUMENTS` and its standard error; killed if the test fails meanwhile, and waited for in any case."""
    with subprocess.Popen(
        [sys.executable, *arguments], stderr=subprocess.PIPE, text=True, env=environment()
    ) as process:
        assert process.stderr is not None
        try:
            yield process, process.stderr
        except BaseException:
            process.kill()
            raise


class BrokerProcess:
    """A broker that runs; its log is JSON, and read by a thread of ours."""

    def __init__(
        self,
        directory: Path,
        toml: str = "",
        *flags: str,
        data: Path | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        """Start it on a free port with this text as its configuration file, and wait until it serves."""
        self.config = directory / "broker.toml"
        self._flags = flags
        self._data = data
        self._environ = environ
        self._killed = False
        self.write_config(toml)
        self.start()

    def write_config(self, toml: str) -> None:
        """Write the configuration file, for the next start or reload."""
        storage = "memory = true" if self._data is None else f"data = {json.dumps(str(self._data))}"
        port = "port = 0" if self._needs_port(f"{storage}\n{toml}") else ""
        self.config.write_text(f'{port}\nlog_format = "json"\nmax_connect_rate = 0\n{storage}\n{toml}')

    @staticmethod
    def _needs_port(toml: str) -> bool:
        """Not if each listener has its own place: then one for all is a mistake."""
        try:
            listeners = tomllib.loads(toml).get("listeners", [{}])
        except tomllib.TOMLDecodeError:
            return True  # what the test is about
        return any(not listener.keys() & {"port", "unix"} for listener in listeners)

    def start(self) -> None:
        """Start it again."""
        self._killed = False
        self._lines: list[str] = []
        self._events: list[Event] = []
        self._changed = threading.Condition()
        self._ended = False
        self.process = subprocess.Popen(
            [sys.executable, "-m", "broker", "-c", str(self.config), *self._flags],
            stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment(self._environ),
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            self.wait_for("started")
        except BaseException:
            self.kill()
            raise
        addresses = [re.fullmatch(r"\[?(.*?)\]?:(\d+)", event["address"]) for event in self.events("listening")]
        self.addresses: list[Address] = [(found[1], int(found[2])) for found in addresses if found is not None]

    @property
    def address(self) -> Address:
        return self.addresses[0]

    @property
    def pid(self) -> int:
        return self.process.pid

    # --- the log ---

    def _read(self) -> None:
        assert self.process.stderr is not None
        for raw in self.process.stderr:
            line = raw.decode()
            with self._changed:
                self._lines.append(line)
                try:
                    self._events.append(json.loads(line))
                except ValueError:
                    self._events.append({"event": "not JSON", "line": line})
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    @property
    def lines(self) -> list[str]:
        with self._changed:
            return list(self._lines)

    def events_so_far(self) -> list[Event]:
        """All that was logged up to now."""
        with self._changed:
            return list(self._events)

    def events(self, event: str, **fields: object) -> list[Event]:
        """What was logged with this text and these fields up to now."""
        with self._changed:
            return [row for row in self._events if _fits(row, event, fields)]

    def wait_for(self, event: str, count: int = 1, **fields: object) -> list[Event]:
        """Wait until it was logged that often."""
        end = time.monotonic() + DEADLINE
        with self._changed:
            while True:
                found = [row for row in self._events if _fits(row, event, fields)]
                if len(found) >= count:
                    return found
                left = end - time.monotonic()
                lines = "".join(self._lines)
                why = f"{event!r} {fields} was not logged {count} times, but:\n{lines}"
                assert left > 0, why
                assert not self._ended, why
                self._changed.wait(left)

    # --- the process ---

    def rss(self) -> int:
        """Resident bytes."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(r"^VmRSS:\s+(\d+) kB", status, re.M)
        assert found is not None, status
        return int(found[1]) * 1024

    def cpu(self) -> float:
        """Seconds of processor time that it has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def reload(self, toml: str | None = None) -> None:
        """SIGHUP, with another configuration; returns when it has taken effect or was refused."""
        if toml is not None:
            self.write_config(toml)
        before = len(self.events("reloaded")) + len(self.events(RELOAD_FAILED))
        self.signal(signal.SIGHUP)
        eventually(
            lambda: len(self.events("reloaded")) + len(self.events(RELOAD_FAILED)) > before, "the broker has reloaded"
        )

    def wait(self, timeout: float = DEADLINE) -> int:
        """Wait for its end; the exit code."""
        code = self.process.wait(timeout)
        self._reader.join(timeout)
        assert self.process.stderr is not None
        self.process.stderr.close()
        return code

    def stop(self) -> None:
        """End it by SIGTERM if it runs. It must end well, and must have found no bug."""
        if self._killed:
            return
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        try:
            code = self.wait()
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        bugs = [line for line in self.lines if '"event": "bug' in line or '"not JSON"' in line]
        assert (code, bugs) == (0, []), "".join(self.lines)

    def kill(self) -> None:
        """kill -9."""
        self._killed = True
        self.process.kill()
        self.wait()

    def restart(self) -> None:
        """Stop, and start again on the same data."""
        self.stop()
        self.start()


class StartBroker(Protocol):
    """The fixture `start_broker`: as BrokerProcess, in a directory of its own."""

    def __call__(
        self, toml: str = "", *flags: str, data: Path | None = None, environ: Mapping[str, str] | None = None
    ) -> BrokerProcess: ...


RELOAD_FAILED = "reload failed: everything stays as it was"


def _fits(row: Event, event: str, fields: Mapping[str, object]) -> bool:
    return row["event"] == event and all(row.get(name) == value for name, value in fields.items())
