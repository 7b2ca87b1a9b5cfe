"""3.14 DISCONNECT: the orderly end of a connection."""

import pytest

from .. import expect, packets
from ..marks import needs, verifies
from ..packets import Will
from ..raw import NoAnswer, Silence
from ..trial import Trial
from ..verdicts import Failure, Inconclusive

both_sessions = pytest.mark.parametrize("clean", [True, False], ids=["clean", "persistent"])


# 3.14.1 Fixed header


@verifies("MQTT-3.14.1-1")
@pytest.mark.parametrize("flags", range(1, 16), ids="{:04b}".format)
def test_header_flags(trial: Trial, flags: int) -> None:
    """A DISCONNECT whose header flags are not zero is none: the client is disconnected, and its will published."""
    topic = trial.topic()
    watcher = trial.subscriber(topic, 1, name="watcher")
    raw = trial.raw()
    raw.connect(trial.client_id(), will=Will(topic, b"gone", 1))
    raw.send(packets.disconnect(flags=flags))
    expect.closed(raw, after="a DISCONNECT with wrong header flags")
    try:
        expect.message(watcher, topic=topic, payload=b"gone")
    except Failure:
        require_wills(trial)
        raise


def require_wills(trial: Trial) -> None:
    """Ends the test if the broker does not publish a will after another packet with wrong header flags, either: then
    its absence does not say what the broker took the packet for."""
    topic = trial.topic("other")
    watcher = trial.subscriber(topic, 1, name="other watcher")
    raw = trial.raw("other")
    raw.connect(trial.client_id(), will=Will(topic, b"gone", 1))
    raw.send(packets.pingreq(flags=0b1111))
    try:
        raw.wait_closed()
    except Silence:
        raise Inconclusive("no will was published, but wrong header flags of a PINGREQ do not end it, either") from None
    try:
        watcher.next_message()
    except NoAnswer:
        raise Inconclusive("the broker publishes no will after a PINGREQ with wrong header flags, either") from None


# 3.14.4 Response


@verifies("MQTT-3.14.4-3")
@both_sessions
@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("retain", [False, True], ids=["not retained", "retained"])
def test_will_is_discarded(trial: Trial, retain: bool, qos: int, clean: bool) -> None:
    """After DISCONNECT a will is not published, whatever kind of will it is."""
    topic = trial.topic()
    watcher = trial.subscriber(topic, 1, name="watcher")
    raw = trial.raw()
    raw.connect(trial.client_id(), clean=clean, will=Will(topic, b"not to be seen", qos, retain))
    raw.disconnect()
    expect.silence(watcher, trial.client("control"), topic, 1, about="the will of a client that sent DISCONNECT")


@verifies("MQTT-3.14.4-3")
def test_will_of_a_paho_client_is_discarded(trial: Trial) -> None:
    """After DISCONNECT of an ordinary client its will is not published."""
    topic = trial.topic()
    watcher = trial.subscriber(topic, 1, name="watcher")
    # No second login may follow at once: a broker may see that before the DISCONNECT, and would be right to publish.
    trial.client(will=Will(topic, b"not to be seen", 1)).disconnect()
    expect.silence(watcher, trial.client("control"), topic, 1, about="the will of a client that sent DISCONNECT")


@verifies("MQTT-3.14.4-3")
@needs("retained")
def test_retained_will_is_discarded(trial: Trial) -> None:
    """After DISCONNECT a will with the retain flag is no retained message, and replaces none."""
    fresh, taken = trial.topic("fresh"), trial.topic("taken")
    publisher = trial.client("publisher")
    publisher.publish(taken, b"kept", 1, retain=True)
    for topic in (fresh, taken):
        raw = trial.raw()
        raw.connect(trial.client_id(), will=Will(topic, b"not to be seen", 1, retain=True))
        raw.disconnect()
    later = trial.client("later")
    later.subscribe(taken, 1)
    expect.message(later, topic=taken, payload=b"kept")
    later.subscribe(fresh, 1)
    expect.silence(later, publisher, fresh, 1, about="a retained will of a client that sent DISCONNECT")


@verifies("MQTT-3.14.4-3")
def test_will_is_discarded_by_a_broker_that_closes(trial: Trial) -> None:
    """After DISCONNECT a will is not published, even if the client leaves it to the broker to close."""
    topic = trial.topic()
    watcher = trial.subscriber(topic, 1, name="watcher")
    raw = trial.raw()
    raw.connect(trial.client_id(), will=Will(topic, b"not to be seen", 1))
    raw.send(packets.disconnect())
    try:
        raw.wait_closed()
    except Silence:
        raw.disconnect()
    expect.silence(watcher, trial.client("control"), topic, 1, about="the will of a client that sent DISCONNECT")


@verifies("MQTT-3.14.4-3")
def test_disconnect_right_behind_other_packets(trial: Trial) -> None:
    """After DISCONNECT a will is not published, even if it came in one segment with all that the client had to say."""
    topic = trial.topic()
    watcher = trial.subscriber(topic, 1, name="watcher")
    will = Will(topic, b"not to be seen", 1)
    for _ in range(5):  # a broker that minds FIN more than what came before does not do so each time
        raw = trial.raw()
        raw.send(
            trial.connect_packet(trial.client_id(), will=will),
            packets.publish(topic, b"all that was to say", qos=1, packet_id=1),
            packets.disconnect(),
        )
        raw.finish_sending()
        raw.wait_closed()
    control = trial.client("control")
    about = "the will of a client that sent DISCONNECT"
    expect.silence(
        watcher, control, topic, 1, about=about, besides=lambda publish: publish.payload == b"all that was to say"
    )


@verifies("MQTT-3.14.4-3")
def test_disconnect_concerns_its_own_connection(trial: Trial) -> None:
    """DISCONNECT removes the will of its own connection only: another client's is published."""
    topic = trial.topic()
    watcher = trial.subscriber(topic, 1, name="watcher")
    dying, leaving = trial.raw("dying"), trial.raw("leaving")
    dying.connect(trial.client_id(), will=Will(topic, b"gone", 1))
    leaving.connect(trial.client_id(), will=Will(topic, b"not to be seen", 1))
    leaving.disconnect()
    dying.close()
    expect.message(watcher, topic=topic, payload=b"gone")


@verifies("3.14.4/close")
@both_sessions
@pytest.mark.parametrize("subscribed", [False, True], ids=["idle", "subscribed"])
def test_disconnect_is_followed_by_the_end(trial: Trial, subscribed: bool, clean: bool) -> None:
    """After DISCONNECT the broker closes the connection, if the client does not."""
    raw = trial.raw()
    raw.connect(trial.client_id(), clean=clean)
    if subscribed:
        raw.subscribe(trial.topic(), 1)
    raw.send(packets.disconnect())
    try:
        raw.wait_closed()
    except Silence:
        trial.warn(f"the connection is open {raw.patience:g} s after DISCONNECT; the broker should close it")
