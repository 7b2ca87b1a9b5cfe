"""A real mosquitto (Debian's 2.0.11 is what these tests were written against), reached through a Unix socket."""

import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

#: Starts a broker with these lines of configuration, and gives the path of its socket.
StartMosquitto = Callable[[str], str]


@pytest.fixture
def start_mosquitto() -> Iterator[StartMosquitto]:
    processes: list[subprocess.Popen[str]] = []
    with tempfile.TemporaryDirectory(prefix="mq") as directory:  # a socket's path may have some 100 characters only

        def start(configuration: str) -> str:
            socket = f"{directory}/{len(processes)}"
            config = Path(f"{socket}.conf")
            # `user root`: started as root, it would become a user who may not read a test's files.
            config.write_text(f"user root\nlistener 0 {socket}\n{configuration}\n")
            process = subprocess.Popen(["mosquitto", "-c", str(config)], stderr=subprocess.PIPE, text=True)
            processes.append(process)
            assert process.stderr is not None
            said = []
            for line in process.stderr:
                said.append(line)
                if line.rstrip().endswith(" running"):
                    return socket
            raise AssertionError("mosquitto did not start:\n" + "".join(said))

        yield start
        for process in processes:
            process.terminate()
            process.communicate()
