"""The broker on trial: where it listens, and how it is started and stopped.

Owns: `Endpoint` (an address with what a profile says about it), `Broker` (all endpoints and commands, and the process,
if the runner starts it). Must not know: tests, what a broker can do (that is `capabilities`), MQTT.
"""

import contextlib
import functools
import os
import random
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import unquote, urlsplit

from . import program
from .streams import Stream, WebSocketStream

#: Schemes of a target and the port that each has unless one is given.
PORTS = {"mqtt": 1883, "mqtts": 8883, "ws": 80, "wss": 443}

#: How a target is given.
SHAPE = "mqtt://host:port, mqtts://host:port, ws://host:port/path or wss://host:port/path"

#: What an endpoint of a profile may be for, and which values it may carry beside its address.
ROLES: Mapping[str, str] = {
    "main": "where any client may do anything: all ordinary tests use it",
    "authenticated": "where only `username` with `password` may connect",
    "acl": "where `username` may not publish to `publish_forbidden`, and may not subscribe to `subscribe_forbidden`",
    "limited": "where at most `limit` clients may be connected at a time",
    "identifiers": "where the ClientId `refused_client_id` is not accepted",
    "tls": "MQTT over TLS",
    "websocket": "MQTT over WebSocket",
}

#: Directories where daemons live, although a user's PATH may lack them.
DAEMON_DIRECTORIES = ("/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin")

#: Long, because some brokers take their time, and a busy machine takes more.
START_SECONDS = 60.0
STOP_SECONDS = 30.0


#: How the line begins by which a program in Go, Rust or Node.js says why it ends.
_WHY = re.compile(r"panic: |fatal error: |thread .* panicked|\w*Error\b.*: ")


class TargetError(Exception):
    """The broker cannot be reached or started, or its description is wrong: one line that says what to do."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address of the broker, and what the profile says about it."""

    role: str
    scheme: str
    host: str
    port: int
    path: str = ""
    username: str | None = None
    password: str | None = None
    ca_file: str | None = None
    insecure: bool = False
    cert_file: str | None = None
    key_file: str | None = None
    publish_forbidden: str | None = None
    subscribe_forbidden: str | None = None
    limit: int | None = None
    refused_client_id: str | None = None

    @property
    def url(self) -> str:
        """The address without credentials."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.path}"

    @property
    def tls(self) -> bool:
        return self.scheme in ("mqtts", "wss")

    @property
    def websocket(self) -> bool:
        return self.scheme in ("ws", "wss")

    @property
    def loopback(self) -> bool:
        return self.host == "localhost" or self.host == "::1" or self.host.startswith("127.")

    def open(self, timeout: float) -> Stream:
        """A new connection. OSError if there is none to be had within `timeout` seconds."""
        connection = self.connect(timeout)
        return WebSocketStream(connection, self.url, timeout) if self.websocket else Stream(connection)

    def connect(self, timeout: float) -> socket.socket:
        """The same as far as TLS: below WebSocket, if that is spoken there."""
        connection = socket.create_connection((self.host, self.port), timeout)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if not self.tls:
            return connection
        try:
            return self.tls_context().wrap_socket(connection, server_hostname=self.host)
        except BaseException:
            connection.close()
            raise

    def tls_context(self) -> ssl.SSLContext:
        """OSError if a file of it cannot be used."""
        return _tls_context(self.ca_file, self.insecure, self.cert_file, self.key_file)

    def check_files(self) -> None:
        """TargetError if a file for TLS cannot be used: which, and why."""
        for path, what in ((self.ca_file, "CA"), (self.cert_file, "certificate"), (self.key_file, "key")):
            if path:
                _check_readable(path, what)
        if self.ca_file:
            try:
                ssl.create_default_context(cafile=self.ca_file)
            except ssl.SSLError:
                raise TargetError(f"the CA file {self.ca_file} holds no certificate in PEM format") from None
        try:
            self.tls_context()
        except ssl.SSLError:
            key = self.key_file or self.cert_file
            remedy = f"{key} must hold the private key that belongs to it, in PEM format and not encrypted"
            raise TargetError(f"the certificate {self.cert_file} cannot be used: {remedy}") from None


def _check_readable(path: str, what: str) -> None:
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        raise TargetError(f"the {what} file {path} cannot be read: {error.strerror}") from None


@functools.cache
def _tls_context(ca_file: str | None, insecure: bool, cert_file: str | None, key_file: str | None) -> ssl.SSLContext:
    # One for all connections: reading the authorities of a system takes longer than most tests.
    context = ssl.create_default_context(cafile=ca_file)
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if cert_file:
        # An empty password, or OpenSSL would ask on the terminal for that of an encrypted key.
        context.load_cert_chain(cert_file, key_file, password="")
    return context


def parse_url(url: str, role: str = "main") -> Endpoint:
    """The endpoint that a URL names: `mqtt://[user:password@]host[:port]`. TargetError if it is not one."""
    text = url if "://" in url else f"mqtt://{url}"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise TargetError(f"{url!r} is no target: {error}; give it as {SHAPE}") from None
    if parts.scheme not in PORTS:
        raise TargetError(f"{url!r} is no target: the scheme {parts.scheme!r} is not known; give it as {SHAPE}")
    if not parts.hostname:
        raise TargetError(f"{url!r} is no target: it names no host; give it as {SHAPE}")
    websocket = parts.scheme in ("ws", "wss")
    if not websocket and (parts.path.strip("/") or parts.query or parts.fragment):
        raise TargetError(f"{url!r} is no target: nothing may follow the port; give it as {SHAPE}")
    if parts.fragment:
        raise TargetError(f"{url!r} is no target: nothing may follow the path; give it as {SHAPE}")
    return Endpoint(
        role=role,
        scheme=parts.scheme,
        host=parts.hostname,
        port=PORTS[parts.scheme] if port is None else port,
        path=parts.path + f"?{parts.query}" * bool(parts.query) if websocket else "",
        username=None if parts.username is None else unquote(parts.username),
        password=None if parts.password is None else unquote(parts.password),
    )


#: Below the ports that systems give to outgoing connections: one of those might take a broker's port while it restarts.
OWN_PORTS = range(20000, 32768)


def free_ports(names: Sequence[str]) -> dict[str, int]:
    """A port for each name, none of which was in use a moment ago."""
    found: dict[str, int] = {}
    candidates = iter(random.sample(OWN_PORTS, len(OWN_PORTS)))
    with contextlib.ExitStack() as stack:
        for name in names:
            for port in candidates:
                with contextlib.suppress(OSError):
                    stack.enter_context(socket.create_server(("127.0.0.1", port)))
                    found[name] = port
                    break
            else:
                raise TargetError(f"no port from {OWN_PORTS.start} to {OWN_PORTS.stop - 1} is free on 127.0.0.1")
    return found


@dataclass(frozen=True, slots=True)
class Launch:
    """How the runner starts a broker by itself, in a directory and on ports of its own. Texts are templates."""

    command: tuple[str, ...]
    ports: tuple[str, ...]
    files: Mapping[str, str] = field(default_factory=dict)
    prepare: tuple[tuple[str, ...], ...] = ()
    ready: str = ""  # what the broker writes when it is up; else that it takes connections is enough
    programs: tuple[str, ...] = ()  # what must be installed beside the command
    install: str = ""  # how a person gets them


@dataclass(frozen=True, slots=True)
class Commands:
    """How a broker that somebody else runs is started and ended: command lines, as lists."""

    start: tuple[str, ...] = ()
    stop: tuple[str, ...] = ()
    kill: tuple[str, ...] = ()
    restart: tuple[str, ...] = ()


class Broker:
    """A broker on trial. As a context manager it starts the process, if there is one to start, and ends it.

    `endpoints` holds what the profile names, by role; `main` is always among them. `jobs` is how many tests at a time
    it should be tried with, if that matters.
    """

    def __init__(
        self,
        name: str,
        endpoints: Callable[[Mapping[str, str]], dict[str, Endpoint]],
        *,
        launch: Launch | None = None,
        commands: Commands = Commands(),
        deviations: Mapping[str, str] | None = None,
        jobs: int | None = None,
        fill: Callable[[str, Mapping[str, str]], str] = lambda text, values: text,
    ) -> None:
        self.name = name
        self.endpoints: dict[str, Endpoint] = {}
        self.deviations = dict(deviations or {})
        self.jobs = jobs
        self._find_endpoints = endpoints
        self._launch = launch
        self._commands = commands
        self._fill = fill
        self._values: dict[str, str] = {"python": sys.executable, "selectmq": program.BROKER}
        self._directory: tempfile.TemporaryDirectory[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._log_read = 0  # how long the log was when the broker was started last

    @property
    def main(self) -> Endpoint:
        return self.endpoints["main"]

    @property
    def private(self) -> bool:
        """Whether the runner started it, so that nobody else can be using it."""
        return self._launch is not None

    def can(self, command: str) -> bool:
        """Whether the broker can be told to `start`, `stop`, `kill` or `restart`."""
        if self._launch:
            return True
        if command == "restart" and self._commands.start and (self._commands.stop or self._commands.kill):
            return True
        return bool(getattr(self._commands, command))

    def __enter__(self) -> Self:
        try:
            if self._launch:
                self._prepare(self._launch)
            self.endpoints = _with_transports_of_main(self._find_endpoints(self._values))
            if self._launch:
                self.start()
            for endpoint in self.endpoints.values():
                endpoint.check_files()
        except BaseException:
            self._clean_up()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._clean_up()

    def start(self) -> None:
        """Starts the broker and waits until every endpoint takes connections. TargetError if it does not."""
        if self._launch:
            command = [self._fill(part, self._values) for part in self._launch.command]
            command[0] = find_program(command[0], self._launch.install)
            self._log_read = self._log.stat().st_size if self._log.exists() else 0
            with self._log.open("ab") as log:
                # In a session of its own, so that what it has started can be ended with it.
                self._process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
                )
        elif self._commands.start:
            self._run(self._commands.start)
        self._wait_until_up()

    def stop(self) -> None:
        """Ends the broker in the orderly way, and waits until it is gone."""
        if self._process:
            self._end(subprocess.Popen.terminate)
        else:
            self._run(self._commands.stop or self._commands.kill)
            self._wait_until_down()

    def kill(self) -> None:
        """Ends the broker without a warning, as a crash would."""
        if self._process:
            self._end(_kill)
        else:
            self._run(self._commands.kill or self._commands.stop)
            self._wait_until_down()

    def restart(self) -> None:
        """Stops the broker in the orderly way and starts it again, with its data."""
        if not self._launch and self._commands.restart:
            self._run(self._commands.restart)
            self._wait_until_up()
        else:
            self.stop()
            self.start()

    def begin_anew(self) -> None:
        """Starts the broker that the runner started once more, in another directory: nothing is left of the first."""
        self._clean_up()
        self.__enter__()

    @property
    def died(self) -> str:
        """How the process that the runner started has ended by itself; empty while it runs."""
        if self._process is None or self._process.poll() is None:
            return ""
        return f"the broker ended by itself with exit status {self._process.returncode}{self._last_words()}"

    def has_died(self) -> bool:
        """Whether `died` says something, or will in a moment: a process that is ending takes no connection any more."""
        if self._process and not self.died:
            try:
                socket.create_connection((self.main.host, self.main.port), 1).close()
            except ConnectionRefusedError:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(STOP_SECONDS)
            except OSError:
                pass
        return bool(self.died)

    @property
    def _log(self) -> Path:
        return Path(self._values["dir"], "broker.log")

    def _prepare(self, launch: Launch) -> None:
        # Any user may enter the directory: some brokers give up their rights when they have started.
        for name in (*launch.programs, launch.command[0]):
            if "{{" not in name:
                find_program(name, launch.install)
        self._directory = tempfile.TemporaryDirectory(prefix="selectmq-conformance-", ignore_cleanup_errors=True)
        Path(self._directory.name).chmod(0o755)
        self._values["dir"] = self._directory.name
        for name, port in free_ports(launch.ports).items():
            self._values[f"port.{name}"] = str(port)
        for name, text in launch.files.items():
            path = Path(self._directory.name, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(self._fill(text, self._values), encoding="utf-8")
        for command in launch.prepare:
            self._run([self._fill(part, self._values) for part in command])

    def _run(self, command: Sequence[str]) -> None:
        line = " ".join(command)
        try:
            done = subprocess.run(
                [find_program(command[0]), *command[1:]],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=START_SECONDS,
                check=False,
            )
        except OSError as error:
            raise TargetError(f"the profile's command `{line}` cannot be run: {error.strerror}") from None
        except subprocess.TimeoutExpired:
            raise TargetError(f"the profile's command `{line}` has not ended after {START_SECONDS:g} s") from None
        if done.returncode:
            words = done.stdout.decode(errors="replace").split("\n")[0]
            raise TargetError(f"the profile's command `{line}` ended with status {done.returncode}: {words}")

    def _wait_until_up(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        for endpoint in self.endpoints.values():
            while True:
                if self.died:
                    raise TargetError(f"{self.name} did not start: {self.died}")
                try:
                    socket.create_connection((endpoint.host, endpoint.port), 1).close()
                    break
                except OSError as error:
                    if time.monotonic() > deadline:
                        words = self._last_words() or f": {error.strerror or error}"
                        raise TargetError(
                            f"{self.name} takes no connection at {endpoint.url} after {START_SECONDS:g} s{words}"
                        ) from None
                    time.sleep(0.02)

        while not self._ready():
            if self.died:
                raise TargetError(f"{self.name} did not start: {self.died}")
            if time.monotonic() > deadline:
                raise TargetError(f"{self.name} is not ready after {START_SECONDS:g} s{self._last_words()}")
            time.sleep(0.02)

    def _ready(self) -> bool:
        if not self._launch or not self._launch.ready:
            return True
        return self._launch.ready.encode() in self._log.read_bytes()[self._log_read :]

    def _wait_until_down(self) -> None:
        deadline = time.monotonic() + STOP_SECONDS
        while True:
            try:
                socket.create_connection((self.main.host, self.main.port), 1).close()
            except OSError:
                return
            if time.monotonic() > deadline:
                raise TargetError(f"{self.name} still takes connections {STOP_SECONDS:g} s after it was told to end")
            time.sleep(0.02)

    def _end(self, how: Callable[[subprocess.Popen[bytes]], None]) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        try:
            how(process)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)
        finally:  # also after a second Ctrl-C
            _kill(process)
            process.wait()

    def _last_words(self) -> str:
        if not self._directory or not self._log.exists():
            return ""
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        why = [line for line in lines if _WHY.match(line)]  # some brokers let their call stack follow
        return f": {(why or lines)[-1].strip()}" if lines else ""

    def _clean_up(self) -> None:
        self._end(subprocess.Popen.terminate)
        if self._directory:
            self._directory.cleanup()
            self._directory = None


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kills the process, if it is still there, and all that it has started and left behind."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()


def find_program(name: str, install: str = "") -> str:
    """The path of a program. TargetError if it is not installed; `install` is what a person can do then."""
    beside_python = str(Path(sys.executable).parent)
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), beside_python, *DAEMON_DIRECTORIES])
    found = shutil.which(name, path=path)
    if not found:
        remedy = install or "install it, or give another profile"
        raise TargetError(f"the program {name!r} is not installed, or not in PATH: {remedy}")
    return found


def _with_transports_of_main(endpoints: dict[str, Endpoint]) -> dict[str, Endpoint]:
    """Where `main` speaks TLS or WebSocket, it is that endpoint too, unless there is one of its own."""
    main = endpoints["main"]
    spoken = {"tls": main.tls, "websocket": main.websocket}
    return {role: replace(main, role=role) for role, given in spoken.items() if given} | endpoints


def single(endpoint: Endpoint) -> Broker:
    """A broker of which nothing but one address is known."""
    return Broker(endpoint.url, lambda values: {"main": endpoint})
