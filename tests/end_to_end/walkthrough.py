"""Does what a page of the documents tells its reader to do, and compares what comes with what the page shows.

    python -m tests.end_to_end.walkthrough README.md

A page is read from top to bottom, where `selectmq` is installed: a README in the clone (a scratch directory that looks
like one), any other page in a directory of the reader's own:

- ```sh is pasted into a shell. It must succeed.
- ```text is what the block before it prints; `...` stands for anything.
- ```python is run, ```toml is loaded as a configuration file. But a block whose first line is a comment with a file's
  name, such as `# hello.py`, is only saved under that name, for a command below it.

A comment just above a block says what else there is to know:

- `<!-- test: keeps running -->`: the reader leaves it running in its terminal. It ends as by Ctrl-C before the next
  such block, and at the end of the page. It is ready when it prints "started", or WORD:
  `<!-- test: keeps running, ready when it prints WORD -->`. With `keeps running too`, what runs already goes on.
- `<!-- test: types WORD WORD -->`: typed at the block's prompts, each with Enter.
- `<!-- test: not run: WHY -->`

The pages use the ports that brokers use, so the walk takes a network of its own (Linux gives one to root, and to others
where they may have a user namespace). Where there is none to be had, walks take turns.

Owns: reading a page, running its blocks. Must not know: which pages there are (test_documents.py).
"""

from __future__ import annotations

import codecs
import contextlib
import ctypes
import fcntl
import os
import pty
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from broker.config import loading
from tests.broker_process import ROOT

#: How long a block may take, or what keeps running may take to be ready.
PATIENCE = 180.0
#: Where a shell tells in which directory its block ends, so that the next goes on there.
HERE = ".here"
PROGRAMS = ("sh", "python")
LANGUAGES = (*PROGRAMS, "toml", "text", "conf", "html")
DIRECTIVE = re.compile(
    r"keeps running(?P<too> too)?(, ready when it prints (?P<ready>.+))?|types (?P<typed>.+)|not run: (?P<why>.+)"
)


class Fault(Exception):
    """The page is wrong: where, and how."""


class Block(NamedTuple):
    """A fenced block of a page."""

    where: str  #: page:line
    language: str
    text: str
    directive: str = ""

    @property
    def file(self) -> str | None:
        """Under which name the reader saves it."""
        found = re.match(r"(?:#|//|<!--) ([\w.-]+\.\w+)(?: -->)?\n", self.text)
        return found[1] if found and self.language not in ("sh", "text") else None

    @property
    def told(self) -> re.Match[str] | None:
        found = DIRECTIVE.fullmatch(self.directive)
        if self.directive and not found:
            raise Fault(f"{self.where}: no such directive: {self.directive}")
        return found

    @property
    def why_not(self) -> str | None:
        """Why it is not run."""
        return self.told["why"] if self.told else None


def blocks(page: Path) -> list[Block]:
    """All blocks of a page, in its order."""
    found = []
    lines = iter(enumerate(page.read_text().splitlines(), 1))
    directive = ""
    for number, line in lines:
        comment = re.fullmatch(r"<!-- test: (.+) -->", line)
        if comment:
            directive = comment[1]
        elif line.startswith("```"):
            inner = []
            for _, text in lines:
                if text == "```":
                    break
                inner.append(f"{text}\n")
            found.append(Block(f"{page.name}:{number}", line[3:], "".join(inner), directive))
            directive = ""
        elif line:
            directive = ""
    return found


# --- the reader's machine ------------------------------------------------------------------------------------------


def own_network() -> bool:
    """Leave the machine's network for an empty one; whether we may."""
    libc = ctypes.CDLL(None, use_errno=True)
    new_user, new_network = 0x10000000, 0x40000000
    user, group = os.geteuid(), os.getegid()
    if getattr(libc, "unshare", None) is None:
        return False
    if libc.unshare(new_network):
        if libc.unshare(new_user | new_network):
            return False
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    up, set_flags = 0x1, 0x8914
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, set_flags, struct.pack("16sh", b"lo", up))
    return True


@contextlib.contextmanager
def network() -> Iterator[None]:
    """A network where all ports are free."""
    if sys.platform == "linux" and own_network():
        yield
        return
    with open(Path(tempfile.gettempdir(), "selectmq-documents.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def furnish(directory: Path) -> dict[str, str]:
    """Make a directory look like a clone, beside an environment where it is installed; that environment."""
    clone, own, site, programs, home = (directory / name for name in ("clone", "own", "site", "bin", "home"))
    for made in (clone, own, site, programs, home):
        made.mkdir()
    for part in ("broker", "conformance", "tests", "setup.cfg", "tox.ini"):
        (clone / part).symlink_to(ROOT / part)
    for folder, package in (("broker", "selectmq"), ("conformance", "selectmq_conformance")):
        (site / package).symlink_to(ROOT / folder)
    info = site / "selectmq-0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: selectmq\nVersion: 0\n")
    (info / "entry_points.txt").write_text("[pytest11]\nselectmq = selectmq.pytest_plugin\n")
    scripts = {
        "python3": f'#!/bin/sh\nexec "{sys.executable}" "$@"\n',
        "pytest": f'#!/bin/sh\nexec "{sys.executable}" -m pytest "$@"\n',
        "selectmq": f"#!{sys.executable}\nimport sys\nfrom selectmq.cli import run\nsys.exit(run())\n",
        "selectmq-conformance": f"#!{sys.executable}\nimport sys\n"
        "from selectmq_conformance.__main__ import main\nsys.exit(main())\n",
    }
    for name, text in scripts.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "COV", "XDG"))}
    return {
        **{name: value for name, value in kept.items() if name not in ("NOTIFY_SOCKET", "WATCHDOG_USEC")},
        "PATH": f"{programs}:{kept.get('PATH', '')}:/usr/sbin:/usr/local/sbin",
        "PYTHONPATH": str(site),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": str(home),
    }


# --- a walk through a page -----------------------------------------------------------------------------------------


class Command:
    """A block that runs in a terminal of its own."""

    def __init__(self, block: Block, directory: Path, environment: dict[str, str]) -> None:
        self.block = block
        program = ["bash", "-e", "-c"] if block.language == "sh" else ["python3", "-c"]
        text = block.text
        if block.language == "sh" and not block.directive.startswith("keeps"):
            text += f'pwd > "$HOME/{HERE}"\n'
        master, slave = pty.openpty()
        self._master = master

        def take_terminal() -> None:
            fcntl.ioctl(slave, termios.TIOCSCTTY, 0)

        # All that a terminal shows, where one types; else a pipe, so that programs behave as in a script.
        output = slave if block.directive.startswith("types") else subprocess.PIPE
        self.process = subprocess.Popen(
            [*program, text], cwd=directory, env=environment, stdin=slave, stdout=output,
            stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=take_terminal,
        )  # fmt: skip
        os.close(slave)
        self._output = ""
        self._changed = threading.Condition()
        source = master if self.process.stdout is None else self.process.stdout.fileno()
        self._reader = threading.Thread(target=self._read, args=(source,), daemon=True)
        self._reader.start()

    def _read(self, source: int) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        with contextlib.suppress(OSError):  # a terminal without programs
            while data := os.read(source, 65536):
                self._add(decoder.decode(data).replace("\r\n", "\n"))

    def _add(self, text: str) -> None:
        with self._changed:
            self._output += text
            self._changed.notify_all()

    @property
    def output(self) -> str:
        with self._changed:
            return self._output

    @property
    def goes_on(self) -> bool:
        """Whether it may print more."""
        return self._reader.is_alive()

    def type(self, words: list[str]) -> None:
        """Each at a prompt of its own."""
        seen = ""
        for word in words:
            self.wait_for(partial(self._asks, seen), "a prompt")
            seen = self.output
            os.write(self._master, f"{word}\n".encode())

    def _asks(self, seen: str) -> bool:
        return self._output != seen and self._output.endswith(": ")

    def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + PATIENCE
        with self._changed:
            while not condition():
                if self.process.poll() is not None or time.monotonic() > end:
                    raise Fault(f"{self.block.where}: {what} did not come, but:\n{self._output}")
                self._changed.wait(0.05)

    def finish(self) -> None:
        """Wait for its end, which must be a good one."""
        try:
            code = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Fault(f"{self.block.where}: has not ended after {PATIENCE:g} s:\n{self.output}") from None
        self._reader.join(5)  # not longer: it may have left something that runs in the background
        if code:
            raise Fault(f"{self.block.where}: ended with {code}:\n{self.output}")

    def interrupt(self) -> None:
        """Ctrl-C."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(20)
        self.kill()

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def fits(shown: str, printed: str) -> bool:
    """Whether a page shows this output; `...` is anything."""
    words = [re.escape(part) for part in shown.strip().split("...")]
    lines = "\n".join(line.rstrip() for line in printed.strip().splitlines())
    return re.fullmatch(".*".join(words), lines, re.S) is not None


class Walk:
    """One reader with one page."""

    def __init__(self, directory: Path) -> None:
        self._environment = furnish(directory)
        self._clone, self._directory = directory / "clone", directory / "own"
        self._running: list[Command] = []

    def through(self, page: Path) -> None:
        """Raises Fault at the first block that is wrong."""
        last: Command | None = None
        if page.name == "README.md":
            self._directory = self._clone
        try:
            for block in blocks(page):
                if block.language not in LANGUAGES:
                    raise Fault(f"{block.where}: ```{block.language} is none of {', '.join(LANGUAGES)}")
                if block.why_not:
                    last = None
                elif block.language == "text":
                    self._compare(last, block)
                elif block.file:
                    (self._directory / block.file).write_text(block.text)
                elif block.language == "toml":
                    self._load(block)
                elif block.language in PROGRAMS:
                    last = self._run(block)
                else:
                    raise Fault(f"{block.where}: is neither saved nor run: begin with a comment that names its file")
        finally:
            for command in self._running:
                command.interrupt()

    def _run(self, block: Block) -> Command:
        told = block.told
        keeps = block.directive.startswith("keeps")
        if keeps and not (told and told["too"]):
            while self._running:
                self._running.pop().interrupt()
        command = Command(block, self._directory, self._environment)
        if keeps:
            self._running.append(command)
            word = (told and told["ready"]) or "started"
            command.wait_for(lambda: word in command._output, repr(word))
            return command
        try:
            if told and told["typed"]:
                command.type(told["typed"].split())
            command.finish()
        finally:
            command.kill()
        here = Path(self._environment["HOME"], HERE)
        if here.exists():
            self._directory = Path(here.read_text().rstrip("\n"))
        return command

    def _compare(self, command: Command | None, block: Block) -> None:
        if command is None:
            return
        end = time.monotonic() + 10
        while not fits(block.text, command.output):
            if time.monotonic() > end or not command.goes_on:
                raise Fault(f"{block.where}: shows\n{block.text}\nbut the block above it prints\n{command.output}")
            time.sleep(0.02)

    def _load(self, block: Block) -> None:
        file = self._directory / "loaded.toml"
        file.write_text(block.text)
        try:
            loading.load(file)
        except loading.ConfigError as error:
            raise Fault(f"{block.where}: {error}") from None


def main(names: list[str]) -> int:
    """Walk through these pages; exit code 0 if all are right."""
    for name in names:
        page = Path(name).resolve()
        with network(), tempfile.TemporaryDirectory() as directory:
            try:
                Walk(Path(directory)).through(page)
            except Fault as fault:
                print(fault, file=sys.stderr)
                return 1
    return 0


if __name__ == "__main__":
    if shutil.which("bash") is None:
        sys.exit("the pages' commands are for bash")
    sys.exit(main(sys.argv[1:]))
