"""What MQTT is for, with programs for the command line: Mosquitto's mosquitto_pub, mosquitto_sub and mosquitto_rr, and
Paho C's paho_c_pub and paho_c_sub. (Mosquitto's with certificates are in test_tls.py.)"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from itertools import islice
from typing import IO

import pytest

from tests.broker_process import BrokerProcess
from tests.certificates import Authority
from tests.end_to_end.paho_client import Paho
from tests.raw_client import Address, RawClient, suback, subscribe
from tests.raw_client_5 import Client5, P

EVERY_QOS = [0, 1, 2]
MOSQUITTOS_VERSIONS = pytest.mark.parametrize("version", ["mqttv31", "mqttv311", "mqttv5"])

#: Seconds until a program must have ended.
PATIENCE = 60.0

#: The Debian packages that bring the programs.
PACKAGES = {"mosquitto": "mosquitto-clients", "paho": "paho.mqtt.c-examples"}


@pytest.fixture(autouse=True, scope="module")
def programs() -> None:
    for program in ("mosquitto_pub", "mosquitto_sub", "mosquitto_rr", "paho_c_pub", "paho_c_sub"):
        package = PACKAGES[program.partition("_")[0]]
        there = shutil.which(program) is not None
        assert there, f"{program} is missing: install it (Debian: sudo apt-get install {package})"


@pytest.fixture(scope="module")
def broker(every_transport: BrokerProcess) -> BrokerProcess:
    return every_transport


@pytest.fixture
def address(broker: BrokerProcess) -> Address:
    return broker.address


@contextlib.contextmanager
def running(command: list[str]) -> Iterator[tuple[subprocess.Popen[str], IO[str]]]:
    """A program and its output. It is killed at the end, or if that does not come."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        timer = threading.Timer(PATIENCE, process.kill)
        timer.start()
        try:
            assert process.stdout is not None
            yield process, process.stdout
        finally:
            timer.cancel()
            process.kill()


def mosquitto(program: str, address: Address, *arguments: str) -> list[str]:
    return [f"mosquitto_{program}", "-h", address[0], "-p", str(address[1]), *arguments]


def mosquitto_pub(address: Address, *arguments: str) -> None:
    done = subprocess.run(mosquitto("pub", address, *arguments), capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# --- Mosquitto's ---


@MOSQUITTOS_VERSIONS
@pytest.mark.parametrize("qos", EVERY_QOS)
def test_mosquittos_tools(version: str, qos: int, address: Address) -> None:
    topic = f"tools/{version}/{qos}"
    mosquitto_pub(address, "-V", version, "-t", topic, "-r", "-m", "subscribed", "-i", "author")
    with subprocess.Popen(
        mosquitto("sub", address, "-V", version, "-t", topic, "-q", str(qos), "-C", "4", "-W", "60",
                  "-F", "%t %q %r %p", "-i", "reader"),
        stdout=subprocess.PIPE, text=True,
    ) as reader:  # fmt: skip
        assert reader.stdout is not None
        assert reader.stdout.readline() == f"{topic} 0 1 subscribed\n"
        for payload in ("one", "two", "three"):
            mosquitto_pub(address, "-V", version, "-t", topic, "-q", str(qos), "-m", payload, "-i", "author")
        output, _ = reader.communicate(timeout=PATIENCE)
    assert reader.returncode == 0
    assert output.splitlines() == [f"{topic} {qos} 0 {payload}" for payload in ("one", "two", "three")]


def test_mosquittos_tools_with_retained_messages(address: Address) -> None:
    mosquitto_pub(address, "-t", "tools/retained", "-q", "1", "-r", "-m", "kept")
    done = subprocess.run(
        mosquitto("sub", address, "-t", "tools/retained", "-q", "1", "-C", "1", "-W", "60", "-F", "%t %q %r %p"),
        capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "tools/retained 1 1 kept\n")


def test_mosquitto_pub_sends_lines(address: Address) -> None:
    with RawClient.connected(address) as reader:
        reader.send(subscribe(("tools/lines", 2)))
        reader.expect(suback(2))
        subprocess.run(
            mosquitto("pub", address, "-t", "tools/lines", "-l"),
            input="a\nb\nc\n", text=True, check=True, timeout=PATIENCE,
        )  # fmt: skip
        assert [reader.message().payload for _ in range(3)] == [b"a", b"b", b"c"]


@MOSQUITTOS_VERSIONS
def test_mosquittos_tools_over_tls(version: str, broker: BrokerProcess, authority: Authority) -> None:
    topic = f"tools/tls/{version}"
    common = ["-V", version, "--cafile", str(authority.certificate), "-t", topic]
    for qos in EVERY_QOS:
        mosquitto_pub(broker.addresses[1], *common, "-q", str(qos), "-m", f"at {qos}", "-r")
        done = subprocess.run(
            mosquitto("sub", broker.addresses[1], *common, "-q", "2", "-C", "1", "-W", "60", "-F", "%q %r %p"),
            capture_output=True, text=True, timeout=PATIENCE,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (0, f"{qos} 1 at {qos}\n")


@MOSQUITTOS_VERSIONS
def test_what_waited_for_a_persistent_session_of_mosquitto_sub(version: str, address: Address) -> None:
    topic = f"tools/waiting/{version}"
    sub = mosquitto("sub", address, "-V", version, "-c", "-i", "sleeper", "-t", topic, "-q", "2", "-W", "60")
    subprocess.run([*sub, "-E"], check=True, timeout=PATIENCE)
    for qos in EVERY_QOS:
        mosquitto_pub(address, "-t", topic, "-q", str(qos), "-m", f"at {qos}")
    done = subprocess.run([*sub, "-C", "2", "-F", "%q %p"], capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stdout) == (0, "1 at 1\n2 at 2\n")


@MOSQUITTOS_VERSIONS
def test_the_will_of_mosquitto_sub(version: str, broker: BrokerProcess) -> None:
    topic = f"tools/will/{version}"
    will = ["--will-topic", topic, "--will-payload", "gone", "--will-qos", "2"]
    with Paho(broker.address) as heir:
        heir.subscribe((topic, 2))
        command = mosquitto("sub", broker.address, "-d", "-V", version, "-i", topic, "-t", "nothing", *will)
        with running(["stdbuf", "-oL", *command]) as (process, output):
            assert any("received CONNACK (0)" in line for line in output)
            process.kill()
            assert heir.message()[:3] == (topic, b"gone", 2)


@MOSQUITTOS_VERSIONS
@pytest.mark.parametrize("secure", [False, True], ids=["tcp", "tls"])
@pytest.mark.parametrize("qos", EVERY_QOS)
def test_mosquitto_rr(version: str, secure: bool, qos: int, broker: BrokerProcess, authority: Authority) -> None:
    topic = f"tools/rr/{version}/{secure}/{qos}"
    more = ["--cafile", str(authority.certificate)] if secure else []
    with Paho(broker.address) as server:
        server.subscribe((f"{topic}/request", 2))
        command = mosquitto(
            "rr", broker.addresses[secure], "-V", version, "-t", f"{topic}/request", "-e", f"{topic}/response",
            "-q", str(qos), "-m", "question", "-W", "60", "-F", "%q %p", *more,
        )  # fmt: skip
        with running(command) as (process, output):
            assert server.message()[:3] == (f"{topic}/request", b"question", qos)
            server.publish(f"{topic}/response", b"answer", 2)
            assert output.read() == f"{qos} answer\n"
            assert process.wait(PATIENCE) == 0


def test_properties_and_mosquittos_tools(address: Address) -> None:
    properties = {P.CONTENT_TYPE: "text/plain", P.PAYLOAD_FORMAT: 1, P.USER: [("a", "1"), ("a", "2")]}
    command = mosquitto(
        "sub", address, "-V", "mqttv5", "-t", "tools/properties/+", "-q", "1", "-C", "2", "-W", "60",
        "-F", "%t %C %E %P %R %D %S %p", "-D", "subscribe", "subscription-identifier", "300", "-v",
    )  # fmt: skip
    with Client5.open(address) as raw:
        raw.ask(("tools/properties/+", 1))
        common = ["-V", "mqttv5", "-q", "1", "-D", "publish", "content-type", "text/plain"]
        common += ["-D", "publish", "payload-format-indicator", "1"]
        for value in ("1", "2"):
            common += ["-D", "publish", "user-property", "a", value]
        mosquitto_pub(address, *common, "-t", "tools/properties/kept", "-m", "kept", "-r",
                      "-D", "publish", "message-expiry-interval", "1000")  # fmt: skip
        assert raw.get().properties.pop(P.MESSAGE_EXPIRY) in (999, 1000)
        with running(command) as (process, output):
            assert output.readline().startswith("tools/properties/kept text/plain ")
            common += ["-D", "publish", "response-topic", "answers", "-D", "publish", "correlation-data", "c7"]
            mosquitto_pub(address, *common, "-t", "tools/properties/live", "-m", "live")
            more = {P.RESPONSE_TOPIC: "answers", P.CORRELATION_DATA: b"c7"}
            assert raw.get().properties == {**properties, **more}
            assert output.readline() == "tools/properties/live text/plain  a:1 a:2 answers c7 300 live\n"
            assert process.wait(PATIENCE) == 0


def test_a_will_with_a_delay_of_mosquitto_sub(broker: BrokerProcess) -> None:
    with Client5.open(broker.address) as heir:
        heir.ask(("tools/late", 1))
        command = mosquitto(
            "sub", broker.address, "-d", "-V", "mqttv5", "-i", "tools late", "-t", "nothing", "-c", "-x", "60",
            "--will-topic", "tools/late", "--will-payload", "gone", "--will-qos", "1",
            "-D", "will", "will-delay-interval", "1", "-D", "will", "content-type", "text",
        )  # fmt: skip
        with running(["stdbuf", "-oL", *command]) as (process, output):
            assert any("received CONNACK (0)" in line for line in output)
            process.kill()
            process.wait()
        since = time.monotonic()
        came = heir.take()
        assert (came.topic, came.payload, came.properties) == ("tools/late", b"gone", {P.CONTENT_TYPE: "text"})
        assert time.monotonic() - since > 0.5


def test_a_group_of_mosquitto_sub(address: Address) -> None:
    command = mosquitto("sub", address, "-V", "mqttv5", "-t", "$share/tools/tools/group", "-q", "1", "-d")
    with (
        running(["stdbuf", "-oL", *command]) as (_, one),
        running(["stdbuf", "-oL", *command]) as (_, two),
        Client5.open(address) as author,
    ):
        for output in (one, two):
            assert any("Subscribed" in line for line in output)
        for number in range(6):
            author.give("tools/group", b"message %d" % number)
        author.give("tools/group", b"end")
        author.give("tools/group", b"end")
        came = []
        for output in (one, two):
            for line in output:
                if line == "end\n":
                    break
                came.extend([line] if line.startswith("message ") else [])
        assert sorted(came) == [f"message {number}\n" for number in range(6)]


def test_mosquitto_rr_with_a_response_topic(address: Address) -> None:
    """Its request says where the response goes, and what belongs to it."""
    command = mosquitto(
        "rr", address, "-V", "mqttv5", "-t", "tools/rr5/request", "-e", "tools/rr5/response", "-q", "1",
        "-m", "question", "-W", "60", "-F", "%q %C %D %p", "-D", "publish", "correlation-data", "c7",
    )  # fmt: skip
    with Client5.open(address) as server:
        server.ask(("tools/rr5/request", 1))
        with running(command) as (process, output):
            asked = server.take()
            assert asked.payload == b"question"
            assert asked.properties == {P.RESPONSE_TOPIC: "tools/rr5/response", P.CORRELATION_DATA: b"c7"}
            told = {P.CORRELATION_DATA: asked.properties[P.CORRELATION_DATA], P.CONTENT_TYPE: "text"}
            server.give(asked.properties[P.RESPONSE_TOPIC], b"answer", 1, told)
            assert output.read() == "1 text c7 answer\n"
            assert process.wait(PATIENCE) == 0


# --- Paho C ---


def paho_c(program: str, scheme: str, version: str, broker: BrokerProcess, authority: Authority) -> list[str]:
    host, port = broker.addresses[["tcp", "ssl", "ws", "wss"].index(scheme)]
    path = "/mqtt" if scheme.startswith("ws") else ""
    trust = ["--cafile", str(authority.certificate)] if scheme in ("ssl", "wss") else []
    return [f"paho_c_{program}", "-c", f"{scheme}://{host}:{port}{path}", "-V", version, *trust]


PAHO_CS_VERSIONS = pytest.mark.parametrize("version", ["31", "311", "5"])


@PAHO_CS_VERSIONS
@pytest.mark.parametrize("scheme", ["tcp", "ssl", "ws", "wss"])
def test_paho_c(scheme: str, version: str, broker: BrokerProcess, authority: Authority) -> None:
    topic = f"paho_c/{scheme}/{version}"
    with Paho(broker.address) as other:
        other.subscribe((f"{topic}/#", 2))
        # Side by side: each waits a good part of a second for nothing.
        with contextlib.ExitStack() as stack:
            authors = []
            for qos in EVERY_QOS:
                command = paho_c("pub", scheme, version, broker, authority)
                command += ["-t", f"{topic}/{qos}", "-q", str(qos), "-m", f"at {qos}", "-i", f"{topic}/{qos}"]
                authors.append(stack.enter_context(running(command)))
            for process, output in authors:
                assert (output.read(), process.wait(PATIENCE)) == ("", 0)
        assert {other.message()[:3] for _ in EVERY_QOS} == {
            (f"{topic}/{qos}", f"at {qos}".encode(), qos) for qos in EVERY_QOS
        }
        other.unsubscribe(f"{topic}/#")
        other.subscribe((f"{topic}/will", 2))
        command = paho_c("sub", scheme, version, broker, authority)
        command += ["-t", f"{topic}/live", "-q", "2", "-i", topic]
        command += ["--will-topic", f"{topic}/will", "--will-payload", "gone", "--will-qos", "1"]
        with running(command) as (process, output):
            # It says nothing before its first message: knock until it answers.
            answered = threading.Event()

            def listen() -> None:
                output.readline()
                answered.set()

            first = threading.Thread(target=listen)
            first.start()
            while not answered.wait(0.3):
                other.publish(f"{topic}/live", b"knock")
            first.join()
            for qos in EVERY_QOS:
                other.publish(f"{topic}/live", f"live at {qos}".encode(), qos)
                assert next(line for line in output if line != "knock\n") == f"live at {qos}\n"
            process.kill()
            assert other.message()[:3] == (f"{topic}/will", b"gone", 1)


# (Of several packets in one WebSocket frame, Paho C 1.3 would read the first, and the others when it hears more.)
@PAHO_CS_VERSIONS
@pytest.mark.parametrize("scheme", ["tcp", "ssl", "ws"])
def test_retained_messages_for_paho_c(scheme: str, version: str, broker: BrokerProcess, authority: Authority) -> None:
    topic = f"paho_c/retained/{scheme}/{version}"
    with running([*paho_c("pub", scheme, version, broker, authority), "-t", f"{topic}/0", "-m", "at 0", "-r"]) as (
        process,
        _,
    ):
        assert process.wait(PATIENCE) == 0
    with Paho(broker.address) as other:
        for qos in (1, 2):
            other.publish(f"{topic}/{qos}", f"at {qos}".encode(), qos, retain=True)
    command = [*paho_c("sub", scheme, version, broker, authority), "-t", f"{topic}/+", "-q", "2", "-i", topic]
    with running(command) as (_, output):
        lines = (line for line in output if line[0].isdigit())  # the others tell what it does
        assert sorted(islice(lines, 3)) == [f"4 {topic}/{qos}\tat {qos}\n" for qos in EVERY_QOS]


def test_properties_of_paho_c(broker: BrokerProcess, authority: Authority) -> None:
    with Client5.open(broker.address) as raw:
        raw.ask(("paho_c/properties", 1))
        command = paho_c("pub", "tcp", "5", broker, authority)
        command += ["-t", "paho_c/properties", "-q", "1", "-m", "x", "-i", "paho_c/properties"]
        command += ["--message-expiry", "100", "--user-property", "a", "b"]
        with running(command) as (process, output):
            assert (output.read(), process.wait(PATIENCE)) == ("", 0)
        came = raw.get()
        assert came.properties.pop(P.MESSAGE_EXPIRY) in (99, 100)
        assert came.properties == {P.USER: [("a", "b")]}
