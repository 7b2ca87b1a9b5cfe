"""What the broker on trial can do, found out by asking it: observed first, declared second.

Owns: the names that `@needs` may give (`NEEDS`), and the probes. Must not know: tests, verdicts of statements.

A probe is no judgement. It finds out which of the things that the specification leaves to a broker this one does, so
that tests of those things run or are NOT APPLICABLE, and says how that was seen.
"""

import concurrent.futures
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from . import packets, reach
from .packets import Connack
from .raw import NoAnswer, Raw
from .target import ROLES, Broker, Endpoint
from .transcript import Transcript
from .verdicts import Inconclusive, NotApplicable

#: What is found out by a probe. Where a broker lacks one, tests that need it are NOT APPLICABLE.
CAPABILITIES = {
    "empty-client-id": "an empty ClientId with CleanSession = 1 is accepted [MQTT-3.1.3-6]",
    "keep-alive-0": "a keep alive of 0 is accepted",
    "qos-1": "a subscription with QoS 1 is granted",
    "qos-2": "a subscription with QoS 2 is granted",
    "wildcards": "Topic Filters with wildcards are granted [MQTT-3.8.3-2]",
    "retained": "a retained message is there for a later subscriber (for tests that only use it: the lack is a FAIL)",
    "sys-topics": "something is published below $SYS",
    "dollar-topics": "clients can exchange messages through topics that begin with a dollar sign",
    "level-3": "MQTT 3.1 is spoken too",
    "level-5": "MQTT 5.0 is spoken too",
}

#: What only a profile can give. Where it is missing, tests that need it are INCONCLUSIVE.
COMMANDS = {name: f"the broker can be told to {name}" for name in ("start", "stop", "kill", "restart")}

#: All names that `@needs` may give.
NEEDS = CAPABILITIES | {role: f"an endpoint {what}" for role, what in ROLES.items() if role != "main"} | COMMANDS


@dataclass(frozen=True, slots=True)
class Capability:
    """Whether the broker can do it, and how that was seen."""

    present: bool
    seen: str


def require(name: str, broker: Broker, found: dict[str, Capability]) -> None:
    """Ends the test if the broker lacks what it needs: NotApplicable or Inconclusive, with the reason."""
    if name in CAPABILITIES:
        if not found[name].present:
            raise NotApplicable(f"the broker lacks {name}: {found[name].seen}")
    elif name in ROLES:
        if name not in broker.endpoints:
            raise Inconclusive(f"the profile names no endpoint {ROLES[name]}: it would need [endpoints.{name}]")
    elif not broker.can(name):
        raise Inconclusive(f"the broker cannot be told to {name}: the profile would need {name} under [commands]")


def require_granted(name: str, asked: int, granted: int) -> None:
    """Ends the test if the subscription of `name` was granted with another QoS: a lower one is the broker's right."""
    if granted < asked:
        raise NotApplicable(f"{name} asked for QoS {asked} and was granted {granted}, which is permitted")
    if granted > asked:
        raise Inconclusive(f"{name} asked for QoS {asked} and was granted {granted}")


def probe(broker: Broker, patience: float) -> dict[str, Capability]:
    """Every capability of `CAPABILITIES`. TargetError, with what to do, if the broker cannot be judged at all."""
    reach.reach(broker.main, patience)
    prober = _Prober(broker.main, patience)
    probes: dict[str, Callable[[], Capability]] = {
        "empty-client-id": lambda: prober.accepts("an empty ClientId", client_id=""),
        "keep-alive-0": lambda: prober.accepts("a keep alive of 0", keep_alive=0),
        "qos-1": lambda: prober.grants(prober.topic("qos-1"), 1),
        "qos-2": lambda: prober.grants(prober.topic("qos-2"), 2),
        "wildcards": lambda: prober.grants(prober.topic("wildcards/+/#"), 0),
        "retained": prober.retained,
        "sys-topics": prober.sys_topics,
        "dollar-topics": prober.dollar_topics,
        "level-3": lambda: prober.accepts("MQTT 3.1", name="MQIsdp", level=3),
        "level-5": prober.level_5,
    }
    with concurrent.futures.ThreadPoolExecutor(len(probes)) as pool:
        running = {name: pool.submit(_never_raises, run) for name, run in probes.items()}
    return {name: future.result() for name, future in running.items()}


def _never_raises(run: Callable[[], Capability]) -> Capability:
    try:
        return run()
    except NoAnswer as error:
        return Capability(False, str(error))


class _Prober:
    #: How long a first message below $SYS is waited for: brokers publish there as retained messages.
    SYS_SECONDS = 1.5

    def __init__(self, endpoint: Endpoint, patience: float) -> None:
        self._endpoint = endpoint
        self._patience = patience
        self._prefix = f"conformance-{secrets.token_hex(4)}"

    def topic(self, name: str) -> str:
        return f"{self._prefix}/{name}"

    def client_id(self) -> str:
        return "probe" + secrets.token_hex(6)

    def raw(self) -> Raw:
        return Raw(self._endpoint, "probe", Transcript(), self._patience)

    def connect(self, client_id: str | None = None, **fields: Any) -> bytes:
        return packets.connect(
            self.client_id() if client_id is None else client_id,
            username=self._endpoint.username,
            password=self._endpoint.password,
            **fields,
        )

    def connected(self) -> Raw:
        raw = self.raw()
        raw.connect(self.client_id())
        return raw

    def accepts(self, what: str, **fields: Any) -> Capability:
        raw = self.raw()
        try:
            raw.send(self.connect(**fields))
            answer = raw.next()
        except NoAnswer as error:
            return Capability(False, f"{what} was answered with nothing: {error}")
        finally:
            raw.close()
        accepted = isinstance(answer, Connack) and answer.code == 0
        return Capability(accepted, f"{what} was answered with {answer}")

    def grants(self, topic_filter: str, qos: int) -> Capability:
        raw = self.connected()
        try:
            raw.send(packets.subscribe(1, (topic_filter, qos)))
            answer = raw.take(packets.SUBACK)
        finally:
            raw.close()
        granted = getattr(answer, "codes", ()) == (qos,)
        return Capability(granted, f"a SUBSCRIBE with QoS {qos} was answered with {answer}")

    def retained(self) -> Capability:
        topic = self.topic("retained")
        publisher, subscriber = self.connected(), self.connected()
        try:
            publisher.publish(topic, b"kept", 1, retain=True)
            subscriber.subscribe(topic)
            publisher.publish(topic, b"control", 1)
            first = subscriber.next_message()
            publisher.publish(topic, b"", 1, retain=True)
        finally:
            publisher.close()
            subscriber.close()
        return Capability(first.payload == b"kept", f"a new subscriber first got {first}")

    def sys_topics(self) -> Capability:
        raw = self.connected()
        try:
            raw.subscribe("$SYS/#")
            message = raw.next_message(self.SYS_SECONDS)
        finally:
            raw.close()
        return Capability(True, f"{message.topic} was published")

    def dollar_topics(self) -> Capability:
        topic, control = f"${self._prefix}/topic", self.topic("control")
        publisher, subscriber = self.connected(), self.connected()
        try:
            subscriber.subscribe(control, 1)
            subscriber.subscribe(topic, 1)
            publisher.publish(topic, b"through", 1)
            publisher.publish(control, b"control", 1)
            first = subscriber.next_message()
        finally:
            publisher.close()
            subscriber.close()
        return Capability(
            first.topic == topic, f"of a message to {topic} and one to {control}, this came first: {first}"
        )

    def level_5(self) -> Capability:
        credentials = [text for text in (self._endpoint.username, self._endpoint.password) if text is not None]
        flags = 0b10 | (self._endpoint.username is not None) << 7 | (self._endpoint.password is not None) << 6
        body = packets.string("MQTT") + bytes([5, flags, 0, 60, 0]) + packets.string(self.client_id())
        body += b"".join(map(packets.string, credentials))
        raw = self.raw()
        try:
            raw.send(packets.frame(packets.CONNECT, 0, body))
            answer = raw.next()
        except NoAnswer as error:
            return Capability(False, f"MQTT 5.0 was answered with nothing: {error}")
        finally:
            raw.close()
        accepted = answer.kind == packets.CONNACK and answer.body[1:2] == b"\0"
        return Capability(accepted, f"MQTT 5.0 was answered with CONNACK {answer.body.hex(' ')}")
