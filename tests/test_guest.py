"""An embedded broker is a guest: it changes nothing in the program around it, and leaves nothing when it ends."""

from __future__ import annotations

import itertools
import json
import locale
import logging
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import pytest

from broker import Broker, StartError
from tests.broker_process import environment, eventually
from tests.raw_client import RawClient, Will, publish


def address(broker: Broker) -> tuple[str, int]:
    return broker.host, broker.port


def deaf_client(broker: Broker) -> RawClient:
    """A client for which more is under way than the system takes, and that does not read."""
    deaf = RawClient.connected(address(broker), receive_buffer=4096).subscribe(("to/the/deaf", 0))
    with RawClient.connected(address(broker)) as client:
        for _ in range(80):
            client.send(publish("to/the/deaf", b"x" * 100_000))
        client.ping()
    return deaf


def run_script(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """In a Python of its own, where each warning is an error."""
    return subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-W", "ignore:This process:DeprecationWarning", "-c", script,
         *arguments],
        capture_output=True, text=True, timeout=60, env=environment(),
    )  # fmt: skip


# --- the process ---


def process_settings() -> dict[str, object]:
    """What belongs to the program."""
    import gc

    mask = os.umask(0)
    os.umask(mask)
    root = logging.getLogger()
    return {
        "signals": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "wake-up": signal.set_wakeup_fd(-1),
        "switch interval": sys.getswitchinterval(),
        "collector": (gc.isenabled(), gc.get_threshold(), gc.get_freeze_count()),
        "umask": mask,
        "directory": os.getcwd(),
        "environment": dict(os.environ),
        "locale": locale.setlocale(locale.LC_ALL),
        "limits": resource.getrlimit(resource.RLIMIT_NOFILE),
        "timeout": socket.getdefaulttimeout(),
        "hooks": (sys.excepthook, sys.unraisablehook, threading.excepthook),
        "warnings": list(warnings.filters),
        "log": (root.level, list(root.handlers), logging.raiseExceptions, *log_of_the_program()),
        "path": list(sys.path),
        "stack": (sys.getrecursionlimit(), threading.stack_size()),
    }  # fmt: skip


def test_it_changes_nothing_of_the_process(tmp_path: Path) -> None:
    before = process_settings()
    with Broker(port=0, data=str(tmp_path / "data")) as broker, RawClient.connected(address(broker)) as client:
        client.ping()
        during = process_settings()
    assert (during, process_settings()) == (before, before)


def test_a_timeout_that_the_program_sets_for_all_sockets_does_no_harm() -> None:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(0.02)
    try:
        with Broker(port=0) as broker, RawClient.connected(address(broker)) as client:
            client.subscribe(("t", 0))
            quiet = threading.Event()
            quiet.wait(0.1)  # several times the timeout, in which nothing happens
            client.send(publish("t", b"x" * 1_000_000))
            assert len(client.message().payload) == 1_000_000
    finally:
        socket.setdefaulttimeout(before)


@pytest.mark.parametrize("which", ["stdout", "stderr", "stdin"])
def test_it_needs_no_standard_stream(which: str) -> None:
    script = f"""
import sys
from broker import Broker
sys.{which} = None
with Broker(port=0, log_format="text", log_level="debug") as broker:
    assert broker.port
"""
    assert run_script(script).returncode == 0


def test_no_warning_from_start_to_end(tmp_path: Path) -> None:
    script = """
import sys
from broker import Broker
from tests.raw_client import RawClient, publish
with Broker(port=0, data=sys.argv[1]) as broker:
    with RawClient.connected((broker.host, broker.port), "a", clean=False) as client:
        client.subscribe(("t", 1))
        client.send(publish("t", b"x", 1))
        client.message()
"""
    done = run_script(script, str(tmp_path / "data"))
    assert (done.returncode, done.stderr) == (0, "")


# --- the log ---


def log_of_the_program() -> tuple[int, list[logging.Handler], bool]:
    logger = logging.getLogger("selectmq")
    return logger.level, list(logger.handlers), logger.propagate


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_the_log_is_given_back_in_whatever_order_brokers_end(
    order: tuple[int, ...], capfd: pytest.CaptureFixture[str]
) -> None:
    before = log_of_the_program()
    brokers = [
        Broker(port=0, log_format="json", log_level="debug"),
        Broker(port=0, log_format="text", log_level="error"),
        Broker(port=0, log_level="warning"),
    ]
    for broker in brokers:
        broker.start()
    assert logging.getLogger("selectmq").level == logging.DEBUG  # who wants the most lines gets them
    assert len(logging.getLogger("selectmq").handlers) == len(before[1]) + 1
    capfd.readouterr()
    for number in order:
        assert log_of_the_program() != before
        brokers[number].stop()
    assert before == log_of_the_program()


def test_each_line_is_written_once_in_the_form_that_was_named_last(capfd: pytest.CaptureFixture[str]) -> None:
    with Broker(port=0, log_format="text", log_level="info"):
        with Broker(port=0, log_format="json", log_level="info"), Broker(port=0):
            pass
        inner = [json.loads(line)["event"] for line in capfd.readouterr().err.splitlines() if line.startswith("{")]
    outer = capfd.readouterr().err.splitlines()
    assert sorted(inner[-6:]) == ["ended", "ended", "ending", "ending", "listening", "started"]
    assert [line.split(" INFO ")[1].split()[0] for line in outer] == ["ending", "ended"]


def test_what_the_program_does_to_the_log_meanwhile_stays() -> None:
    logger = logging.getLogger("selectmq")
    level, handler = logger.level, logging.NullHandler()
    try:
        with Broker(port=0, log_format="json", log_level="warning"):
            logger.setLevel(logging.CRITICAL)
            logger.addHandler(handler)
        assert logger.level == logging.CRITICAL
        assert handler in logger.handlers
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)


def test_a_start_that_fails_gives_the_log_back() -> None:
    before = log_of_the_program()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        broker = Broker(port=taken.getsockname()[1], log_level="debug", log_format="json")
        with pytest.raises(StartError):
            broker.start()
    assert before == log_of_the_program()


# --- threads ---


@pytest.mark.parametrize("name", ["selectmq-store_0", "selectmq"])
def test_a_system_without_more_threads_is_told_and_nothing_is_left(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = threading.enumerate(), sorted(os.listdir("/proc/self/fd")), log_of_the_program()
    start = threading.Thread.start

    def fail(thread: threading.Thread) -> None:
        if thread.name == name:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", fail)
    with pytest.raises(StartError, match=r"^this system has no more threads: can't start new thread$"):
        Broker(port=0, log_level="error").start()
    assert before == (threading.enumerate(), sorted(os.listdir("/proc/self/fd")), log_of_the_program())


# --- stop ---


def test_stop_gives_a_client_that_does_not_read_about_a_second() -> None:
    """It is often in the thread that stops the broker."""
    broker = Broker(port=0).start()
    deaf = deaf_client(broker)
    start = time.monotonic()
    broker.stop()
    assert 0.9 < time.monotonic() - start < 4.5
    deaf.close()


def test_a_client_that_does_not_read_takes_no_time_from_the_store(caplog: pytest.LogCaptureFixture) -> None:
    """The store has its own time to write what clients were promised, which begins when theirs is over."""
    broker = Broker(port=0).start()
    deaf = deaf_client(broker)
    broker.stop(timeout=0.1)
    deaf.close()
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_stop_takes_another_timeout() -> None:
    took = []
    for timeout in (0.0, -1.0, 0.4):
        broker = Broker(port=0).start()
        deaf = deaf_client(broker)
        start = time.monotonic()
        broker.stop(timeout=timeout)
        took.append(time.monotonic() - start)
        deaf.close()
    assert took[0] < 0.9
    assert took[1] < 0.9
    assert took[2] > 0.39


def test_a_second_stop_waits_for_the_first_and_cuts_nothing_short() -> None:
    broker = Broker(port=0).start()
    deaf = deaf_client(broker)
    start = time.monotonic()
    threads = [threading.Thread(target=broker.stop, args=(0.5,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - start > 0.49
    deaf.close()


def stopped_by_its_log(broker: Broker) -> logging.Handler:
    """A handler that stops the broker when a client connects: it is called on the broker's own thread."""

    class Stopper(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.__dict__["event"] == "client connected":
                broker.stop()

    return Stopper()


def test_stop_on_its_own_thread_does_not_wait_and_another_does() -> None:
    broker = Broker(port=0, log_level="info")
    logger, handler = logging.getLogger("selectmq"), stopped_by_its_log(broker)
    logger.addHandler(handler)
    try:
        for _ in range(2):  # the second start cleans up after the first
            broker.start()
            with RawClient.connected(address(broker)) as client:
                assert client.closed() == b""
            eventually(lambda: "selectmq" not in {thread.name for thread in threading.enumerate()}, "its end")
        broker.stop()
    finally:
        logger.removeHandler(handler)


def test_stop_in_a_signal_handler_during_stop() -> None:
    broker = Broker(port=0).start()
    deaf = deaf_client(broker)
    called: list[bool] = []

    def handle(number: int, frame: object) -> None:
        broker.stop()
        called.append(True)

    before = signal.signal(signal.SIGALRM, handle)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        broker.stop(timeout=0.5)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert called == [True]
    deaf.close()


FORGETFUL = """
import signal, sys
from broker import Broker
from tests.raw_client import RawClient
broker = Broker(listeners=[{"port": 0}, {"unix": sys.argv[2]}], data=sys.argv[1], log_level="info", log_format="text")
broker.start()
print(broker.port, flush=True)
sys.stdin.readline()
if sys.argv[3] == "error":
    raise SystemExit(3)
"""


@pytest.mark.parametrize(("how", "code"), [("end", 0), ("error", 3)])
def test_a_program_that_ends_without_stop_ends_it(how: str, code: int, tmp_path: Path) -> None:
    data, path = tmp_path / "data", tmp_path / "socket"
    with subprocess.Popen(
        [sys.executable, "-X", "dev", "-W", "error", "-c", FORGETFUL, str(data), str(path), how],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(),
    ) as process:  # fmt: skip
        assert process.stdout is not None
        where = ("127.0.0.1", int(process.stdout.readline()))
        watcher = RawClient.connected(where, "watcher", clean=False).subscribe(("wills", 1))
        other = RawClient.connected(where, will=Will("wills", b"gone", 1))
        _, log = process.communicate("end\n", timeout=60)
    assert process.returncode == code
    # In an orderly way: the will went out, and nobody was cut off; what nobody has acknowledged yet is stored.
    assert watcher.message().payload == b"gone"
    assert watcher.closed() == b""
    assert other.closed() == b""
    assert log.splitlines()[-1].endswith(" INFO ended")
    assert "Traceback" not in log
    assert not path.exists()
    assert os.listdir(data) == ["selectmq.db"]
    with Broker(port=0, data=str(data)) as broker:
        again = RawClient.connected(address(broker), "watcher", clean=False, present=True)
        assert again.message().payload == b"gone"
        again.disconnect()


# --- fork ---

#: What a child does with the broker that it has inherited a copy of.
FORKED: dict[str, str] = {
    "exits": "sys.exit(0)",
    "stops it": "broker.stop(); sys.exit(0)",
    "forgets it": "del broker; gc.collect(); sys.exit(0)",
    "has its own": """
with Broker(port=0, memory=True) as own:
    RawClient.connected((own.host, own.port)).close()
try:
    broker.port
except RuntimeError:
    sys.exit(0)
""",
    "starts it again": """
broker._config = own_config
with broker:
    RawClient.connected((broker.host, broker.port)).close()
sys.exit(0)
""",
}

FORK = """
import gc, os, signal, socket, sys
from broker import Broker
from tests.raw_client import RawClient, publish, puback

own_config = Broker(port=0)._config
broker = Broker(port=0, data=sys.argv[1]).start()
address = broker.host, broker.port
RawClient.connected(address, "c", clean=False).subscribe(("t", 1)).disconnect()
client = RawClient.connected(address)

def say(number):
    client.send(publish("t", b"%d" % number, 1, packet_id=number))
    client.expect(puback(number))

say(1)
child = os.fork()
if child == 0:
    CHILD
_, status = os.waitpid(child, 0)
assert status == 0, status
say(2)
client.ping()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("does", FORKED)
def test_a_forked_process_does_not_disturb_it(does: str, tmp_path: Path) -> None:
    child = FORKED[does].strip().replace("\n", "\n    ")
    done = run_script(FORK.replace("CHILD", child), str(tmp_path / "data"))
    assert done.returncode == -signal.SIGKILL, done.stderr
    # Nor has it touched what the broker keeps on disk.
    with Broker(port=0, data=str(tmp_path / "data")) as broker:
        client = RawClient.connected(address(broker), "c", clean=False, present=True)
        assert [client.message().payload for _ in range(2)] == [b"1", b"2"]
        client.disconnect()


HELD = """
import os, socket, sys
from broker import Broker
from tests.raw_client import RawClient

options = {"unix": sys.argv[2]} if sys.argv[3] == "unix" else {}
broker = Broker(data=sys.argv[1], **({"port": 0} if not options else options)).start()
port = broker.port
address = broker.host, port
if not options:
    clients = [RawClient.connected(address, str(number)) for number in range(3)]
reading, writing = os.pipe()
child = os.fork()
if child == 0:
    os.close(writing)
    os.read(reading, 1)  # until the parent has ended
    os._exit(0)
if not options:
    clients[0].disconnect()  # waits for the broker's end of the connection
    RawClient.connected(address, "1").close()  # takes over
    assert clients[1].closed() == b""
broker.stop()
if not options:
    assert clients[2].closed() == b""
    try:
        socket.create_connection(address)
    except ConnectionRefusedError:
        pass
    else:
        raise AssertionError("somebody listens still")
    options = {"port": port}
with Broker(data=sys.argv[1], **options) as again:
    assert again.port == port
"""


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_a_forked_process_keeps_nothing_open(kind: str, tmp_path: Path) -> None:
    """It has a copy of each descriptor."""
    done = run_script(HELD, str(tmp_path / "data"), str(tmp_path / "socket"), kind)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_pool_of_forked_processes_beside_it(tmp_path: Path) -> None:
    script = """
import multiprocessing, sys
from broker import Broker
from tests.raw_client import RawClient

def work(port):
    RawClient.connected(("127.0.0.1", port)).disconnect()
    return True

if __name__ == "__main__":
    with Broker(port=0, data=sys.argv[1]) as broker:
        with multiprocessing.get_context("fork").Pool(2) as pool:
            assert pool.map(work, [broker.port] * 20) == [True] * 20
            pool.close()
            pool.join()
        RawClient.connected((broker.host, broker.port)).close()
"""
    done = run_script(script, str(tmp_path / "data"))
    assert (done.returncode, done.stderr) == (0, "")
