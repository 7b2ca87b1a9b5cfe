"""4.1 Storing state: what a session holds, and how long."""

from collections.abc import Callable

import pytest

from .. import expect, packets
from ..marks import alone, needs, verifies
from ..packets import Connack, Publish
from ..raw import Raw
from ..trial import Trial
from ..verdicts import Inconclusive


def by_malformed_packet(raw: Raw) -> None:
    raw.send(packets.frame(packets.SUBSCRIBE, 0, b"\0\1\0\1x\0"))
    raw.wait_closed()


def by_second_connect(raw: Raw) -> None:
    raw.send(packets.connect("second"))
    raw.wait_closed()


#: Ways in which a connection ends.
ENDS: dict[str, Callable[[Raw], None]] = {
    "disconnect": Raw.disconnect,
    "fin": Raw.close,
    "rst": Raw.reset,
    "malformed packet": by_malformed_packet,
    "second connect": by_second_connect,
}
every_end = pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
both_sessions = pytest.mark.parametrize("clean", [True, False], ids=["clean", "persistent"])


class Kept:
    """A persistent session with something of everything that a session holds, and the proof that it is all there."""

    def __init__(self, trial: Trial) -> None:
        self.trial = trial
        self.client_id = trial.client_id()
        self.topic = trial.topic("subscribed")
        self.removed = trial.topic("removed")
        self.received = trial.topic("received")
        self.sent = 0
        self.released = 0

    def begin(self) -> Raw:
        """The client, connected: one message unacknowledged, one released and not completed, one half received."""
        self.watcher = self.trial.client("watcher", clean=False)
        self.watcher.subscribe(self.received, 2)
        self.watcher.disconnect()
        raw = self.trial.raw("before")
        raw.connect(self.client_id, clean=False)
        for topic in (self.removed, self.topic):
            if raw.subscribe(topic, 2) != 2:
                raise Inconclusive("a subscription with QoS 2 was not granted")
        raw.unsubscribe(self.removed)
        publisher = self.trial.client("publisher")
        publisher.publish(self.topic, b"to be released", 2)
        self.released = self._packet_id(raw)
        raw.send(packets.pubrec(self.released))
        raw.take(packets.PUBREL)
        publisher.publish(self.topic, b"sent", 1)
        self.sent = self._packet_id(raw)
        raw.send(packets.publish(self.received, b"half received", qos=2, packet_id=77))
        raw.take(packets.PUBREC)
        return raw

    def meanwhile(self) -> None:
        """Messages that must wait, and one that must not."""
        publisher = self.trial.client("meanwhile")
        publisher.publish(self.removed, b"not wanted", 2)
        for qos in (1, 2):
            publisher.publish(self.topic, f"waiting {qos}".encode(), qos)
        publisher.disconnect()

    def resume(self) -> tuple[Raw, bool]:
        """The client again, and whether the broker says that the session was there."""
        raw = self.trial.raw("again")
        answer: Connack = raw.connect(self.client_id, clean=False)
        return raw, answer.session_present

    def judge(self, raw: Raw) -> None:
        """Everything is there."""
        expect.packet(raw, packets.PUBREL, packet_id=self.released)
        raw.send(packets.pubcomp(self.released))
        expect.packet(raw, packets.PUBLISH, packet_id=self.sent, payload=b"sent")
        raw.send(packets.puback(self.sent))
        found = expect.messages(raw, [b"waiting 1", b"waiting 2"])
        expect.that(
            b"not wanted" not in [one.payload for one in found], "no message for the removed filter", "one came"
        )
        raw.send(packets.publish(self.received, b"half received", qos=2, packet_id=77, dup=True))
        raw.take(packets.PUBREC)
        raw.send(packets.pubrel(77))
        raw.take(packets.PUBCOMP)
        watcher = self.trial.client("watcher", client_id=self.watcher.client_id, clean=False)
        passed_on = expect.until_control(watcher, self.trial.client("control"), self.received, 2)
        expect.equal([one.payload for one in passed_on], [b"half received"], "what was passed on of a QoS 2 message")

    @staticmethod
    def _packet_id(raw: Raw) -> int:
        message = raw.take(packets.PUBLISH)
        assert isinstance(message, Publish)
        if message.packet_id is None:
            raise Inconclusive(f"a message with QoS 1 or 2 came as {message}")
        return message.packet_id


@verifies("MQTT-4.1.0-1")
@needs("qos-2")
@every_end
def test_state_outlives_the_connection(trial: Trial, end: Callable[[Raw], None]) -> None:
    """A session holds its subscriptions, and all messages that wait or are under way, until its client returns."""
    kept = Kept(trial)
    end(kept.begin())
    kept.meanwhile()
    raw, _ = kept.resume()
    kept.judge(raw)


@verifies("MQTT-4.1.0-1")
@needs("qos-2")
def test_state_outlives_many_connections(trial: Trial) -> None:
    """A session holds what is in it, however often its client comes and goes meanwhile."""
    kept = Kept(trial)
    kept.begin().close()
    kept.meanwhile()
    for _ in range(5):
        raw, _ = kept.resume()
        expect.packet(raw, packets.PUBREL, packet_id=kept.released)
        raw.reset()
    kept.judge(kept.resume()[0])


@verifies("MQTT-4.1.0-1")
@needs("qos-2")
@both_sessions
def test_state_is_held_while_connected(trial: Trial, clean: bool) -> None:
    """While its client is connected, a session holds subscriptions and messages through all that goes on meanwhile."""
    topic, other = trial.topic(), trial.topic("other")
    raw = trial.raw()
    raw.connect(trial.client_id(), clean=clean)
    raw.subscribe(topic, 2)
    publisher = trial.client("publisher")
    publisher.publish(topic, b"first", 2)
    first = raw.take(packets.PUBLISH)
    assert isinstance(first, Publish)
    if first.packet_id is None:
        raise Inconclusive(f"a message with QoS 2 came as {first}")
    for number in range(10):
        raw.subscribe(trial.topic(f"{number}"), 1)
        raw.publish(other, b"x", number % 3)
        raw.ping()
        raw.unsubscribe(trial.topic(f"{number}"))
    raw.send(packets.pubrec(first.packet_id))
    expect.packet(raw, packets.PUBREL, packet_id=first.packet_id)
    raw.send(packets.pubcomp(first.packet_id))
    publisher.publish(topic, b"second", 2)
    expect.message(raw, topic=topic, payload=b"second")


@verifies("MQTT-4.1.0-1")
@alone
@needs("restart", "qos-2")
def test_state_outlives_a_restart(trial: Trial) -> None:
    """A broker that resumes a session after it was stopped and started again has all of it."""
    kept = Kept(trial)
    kept.begin().close()
    kept.meanwhile()
    trial.broker.restart()
    raw, present = kept.resume()
    if not present:
        trial.warn(
            "stopping the broker ends every session: permitted as an administrator's doing, but few brokers do it"
        )
        return
    kept.judge(raw)


@verifies("4.1/retained-kept")
@alone
@needs("restart", "retained")
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_retained_message_outlives_a_restart(trial: Trial, qos: int) -> None:
    """A retained message is there until a client deletes it, even if the broker is stopped and started again."""
    topic = trial.topic()
    publisher = trial.connected("publisher")
    publisher.publish(topic, b"kept", qos, retain=True)
    publisher.ping()
    publisher.disconnect()
    trial.broker.restart()
    subscriber = trial.subscriber(topic, 1)
    found = expect.until_control(subscriber, trial.client("control"), topic, 1)
    if [publish.payload for publish in found] != [b"kept"]:
        trial.warn(f"a retained message of QoS {qos} is gone after a restart")


# How long a session lasts


@verifies("MQTT-4.1.0-2")
@pytest.mark.parametrize("first_clean", [True, False], ids=["from clean", "from persistent"])
@both_sessions
def test_session_outlives_the_connection_that_it_replaced(trial: Trial, clean: bool, first_clean: bool) -> None:
    """The end of a connection that was taken over does not end the session of the one that took over."""
    topic = trial.topic()
    publisher = trial.client("publisher")
    for number in range(5):
        client_id = trial.client_id()
        first, second = trial.raw("first"), trial.raw("second")
        first.connect(client_id, clean=first_clean)
        second.connect(client_id, clean=clean)
        second.subscribe(topic, 1)
        first.wait_closed()
        second.ping()
        for payload in (f"a {number}".encode(), f"b {number}".encode()):
            publisher.publish(topic, payload, 1)
            expect.message(second, topic=topic, payload=payload)
        second.disconnect()


@verifies("MQTT-4.1.0-2")
@both_sessions
def test_session_outlives_other_sessions(trial: Trial, clean: bool) -> None:
    """A session lasts while its client is connected, although other sessions end."""
    topic = trial.topic()
    client = trial.client("lasting", clean=clean)
    client.subscribe(topic, 1)
    publisher = trial.client("publisher")
    for number in range(3):
        for other_clean in (True, False):
            other = trial.client("other", clean=other_clean)
            other.subscribe(topic, 1)
            other.disconnect()
            trial.client("the end of the other", client_id=other.client_id).disconnect()
        publisher.publish(topic, f"{number}".encode(), 1)
        expect.message(client, topic=topic, payload=f"{number}".encode())


@verifies("MQTT-4.1.0-2")
@both_sessions
def test_session_outlives_failed_logins(trial: Trial, clean: bool) -> None:
    """A session lasts while its client is connected, although somebody else's CONNECT with its ClientId is refused."""
    client_id, topic = trial.client_id(), trial.topic()
    client = trial.raw("lasting")
    client.connect(client_id, clean=clean)
    client.subscribe(topic, 1)
    for refused in (trial.connect_packet(client_id, level=64), trial.connect_packet(client_id, toggle=1)):
        raw = trial.raw("refused")
        raw.send(refused)
        raw.wait_closed()
    trial.client("publisher").publish(topic, b"still here", 1)
    expect.message(client, topic=topic, payload=b"still here")
