"""A Mosquitto that is connected to our broker by a bridge: each message reaches the other side once, with its QoS and
its RETAIN flag, and none comes back."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.broker_process import BrokerProcess, StartBroker, eventually
from tests.end_to_end.paho_client import Paho
from tests.raw_client import Address, Publish

NAME = "remote-id"
TWO_WAYS = "topic # both 2\n"
STATE = f"$SYS/broker/connection/{NAME}/state"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class Mosquitto:
    """A Mosquitto with a bridge to a port of this machine."""

    def __init__(self, directory: Path, port: int, more: str) -> None:
        program = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/sbin")
        assert program, "mosquitto is missing: install it (Debian: sudo apt-get install mosquitto)"
        directory.mkdir()
        self.address: Address = ("127.0.0.1", free_port())
        self._log = directory / "log"
        config = directory / "mosquitto.conf"
        config.write_text(
            f"listener {self.address[1]} 127.0.0.1\nallow_anonymous true\nuser root\n"
            f"persistence true\npersistence_location {directory}/\nautosave_interval 1\nautosave_on_changes true\n"
            f"log_dest file {self._log}\nlog_type all\n"
            f"connection ours\naddress 127.0.0.1:{port}\nremote_clientid {NAME}\nrestart_timeout 1\n{more}"
        )
        self._command = [program, "-c", str(config)]
        self.start()

    def start(self) -> None:
        self._log.unlink(missing_ok=True)
        self.process = subprocess.Popen(self._command, stderr=subprocess.DEVNULL)
        eventually(self.listens, "Mosquitto listens")

    def listens(self) -> bool:
        assert self.process.poll() is None, self.log
        try:
            socket.create_connection(self.address).close()
        except OSError:
            return False
        return True

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def stop(self) -> None:
        """By SIGTERM, so that it stores what it has."""
        self.process.terminate()
        self.process.wait(10)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def wait_until_bridged(self) -> None:
        """Its bridge is connected and has subscribed."""
        eventually(lambda: "Received SUBACK" in self.log, "the bridge has its SUBACK")

    def forget_log(self) -> None:
        """What follows is a new connection's."""
        self._log.write_text("")  # it is written by appending


class Sides:
    """Ours and theirs, and the bridge between them."""

    def __init__(self, start_broker: StartBroker, directory: Path, more: str) -> None:
        port = free_port()
        toml = f"sys_interval = 0.05\n[[listeners]]\nport = {port}\n"
        self.ours: BrokerProcess = start_broker(toml, data=directory / "data")
        self.theirs = Mosquitto(directory / "mosquitto", port, more)

    def join(self, side: str, name: str, clean: bool = True) -> Paho:
        address = self.ours.address if side == "ours" else self.theirs.address
        return Paho(address, name, clean=clean)


@pytest.fixture
def sides(start_broker: StartBroker, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Sides]:
    sides = Sides(start_broker, tmp_path, getattr(request, "param", TWO_WAYS))
    try:
        sides.theirs.wait_until_bridged()
        yield sides
    finally:
        sides.theirs.kill()


def plain(messages: list[Publish]) -> list[tuple[str, bytes, int, bool]]:
    return [(one.topic, one.payload, one.qos, one.retain) for one in messages]


def nothing_else(ours: Paho, theirs: Paho) -> None:
    """Nothing else is on its way to them: what is published now on either side is the next to come on both."""
    for author, reader, name in ((ours, theirs, "end/ours"), (theirs, ours, "end/theirs")):
        author.nothing_else(name)
        assert reader.message()[:2] == (name, b"the end")


@pytest.mark.parametrize("sides", [TWO_WAYS, f"{TWO_WAYS}bridge_protocol_version mqttv31\n"], indirect=True)
@pytest.mark.parametrize("retain", [False, True])
def test_each_message_reaches_the_other_side_once_and_as_it_was(sides: Sides, retain: bool) -> None:
    (event,) = sides.ours.wait_for("client connected", client=NAME)
    assert event["version"] in ("3.1.1, bridge", "3.1, bridge")
    with sides.join("ours", "ours") as ours, sides.join("theirs", "theirs") as theirs:
        ours.subscribe(("#", 2))
        theirs.subscribe(("#", 2))
        for qos in (0, 1, 2):
            for author, name in ((ours, "from ours"), (theirs, "from theirs")):
                author.publish(f"{name}/{qos}", b"x", qos, retain)
                for reader in (ours, theirs):
                    assert plain([reader.message()]) == [(f"{name}/{qos}", b"x", qos, False)]
        nothing_else(ours, theirs)
    expected = [(f"from {side}/{qos}", b"x", qos, True) for side in ("ours", "theirs") for qos in (0, 1, 2)]
    for side in ("ours", "theirs"):
        with sides.join(side, "late") as late:
            late.subscribe(("from ours/#", 2), ("from theirs/#", 2), (f"late/{side}", 0))
            if retain:
                assert sorted(plain(late.messages(6))) == expected
            late.nothing_else(f"late/{side}")


@pytest.mark.parametrize("away", ["ours", "theirs"])
def test_what_is_published_while_one_side_is_away_reaches_it_once(sides: Sides, away: str) -> None:
    stays = "theirs" if away == "ours" else "ours"
    with sides.join("ours", "reader", clean=False) as reader:
        reader.subscribe(("t", 2), ("end/+", 2))
    with sides.join("theirs", "reader", clean=False) as reader, sides.join("theirs", "author") as author:
        reader.subscribe(("#", 2))
        author.publish("of theirs", b"x", 1, retain=True)  # it does not come back, when the bridge subscribes again
        assert reader.message().topic == "of theirs"
        reader.nothing_else("end")
    (sides.ours if away == "ours" else sides.theirs).stop()
    with sides.join(stays, "author") as author:
        for i in range(20):
            author.publish("t", b"%d" % i, 1 + i % 2)
    sides.theirs.forget_log()
    (sides.ours if away == "ours" else sides.theirs).start()
    sides.theirs.wait_until_bridged()
    expected = [("t", b"%d" % i, 1 + i % 2, False) for i in range(20)]
    with sides.join("ours", "reader", clean=False) as ours, sides.join("theirs", "reader", clean=False) as theirs:
        assert sorted(plain(ours.messages(20))) == sorted(expected)
        assert sorted(plain(theirs.messages(20))) == sorted(expected)
        nothing_else(ours, theirs)


def test_a_bridge_tells_its_state(sides: Sides) -> None:
    with sides.join("ours", "watcher") as watcher:
        watcher.subscribe(("$SYS/broker/connection/#", 1))
        assert plain([watcher.message()]) == [(STATE, b"1", 1, True)]
        sides.theirs.kill()
        assert plain([watcher.message()]) == [(STATE, b"0", 1, False)]
        sides.theirs.start()
        assert plain([watcher.message()]) == [(STATE, b"1", 1, False)]
    assert sides.ours.events("publish refused: not authorised") == []


@pytest.mark.parametrize("sides", [f"{TWO_WAYS}try_private false\n"], indirect=True)
def test_a_bridge_that_does_not_say_so_is_a_client_as_any_other(sides: Sides) -> None:
    (event,) = sides.ours.wait_for("client connected", client=NAME)
    assert event["version"] == "3.1.1"
    with sides.join("ours", "ours") as ours, sides.join("theirs", "theirs") as theirs:
        ours.subscribe(("#", 2))
        theirs.publish("t", b"x", 1)
        assert plain([ours.message()]) == [("t", b"x", 1, False)]
        theirs.subscribe(("#", 2))
        ours.publish("u", b"y", 1)
        while theirs.message()[:2] != ("u", b"y"):
            pass
