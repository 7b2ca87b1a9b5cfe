"""What a test of the suite gets: clients, names of its own, and a clean-up that leaves nothing behind."""

from collections.abc import Callable, Iterator

import pytest

from conformance import capabilities
from conformance.capabilities import CAPABILITIES, Capability
from conformance.packets import Will
from conformance.raw import Closed
from conformance.target import Broker, parse_url, single
from conformance.trial import Trial
from conformance.verdicts import Inconclusive, NotApplicable
from tests.conformance.faulty.broker import FaultyBroker
from tests.conformance.faulty.state import SYS_TOPIC

DEADLINE = 10.0


@pytest.fixture
def broker() -> Iterator[FaultyBroker]:
    with FaultyBroker() as broker, broker.broker:
        yield broker


StartTrial = Callable[[Broker], Trial]


@pytest.fixture
def a_trial() -> Iterator[StartTrial]:
    """Makes trials, and cleans up after them once more, in case that the test has failed."""
    trials: list[Trial] = []

    def start(broker: Broker) -> Trial:
        trials.append(Trial(broker, dict.fromkeys(CAPABILITIES, Capability(True, "assumed")), DEADLINE))
        return trials[-1]

    yield start
    for trial in trials:
        trial.clean_up()


def test_names_are_its_own(a_trial: StartTrial) -> None:
    first, second = a_trial(single(parse_url("host"))), a_trial(single(parse_url("host")))
    assert first.topic("a/b").endswith("/a/b")
    assert first.topic() != second.topic()
    assert first.client_id() != first.client_id()
    assert len(first.client_id(23)) == 23


def test_clients_have_different_names(broker: FaultyBroker, a_trial: StartTrial) -> None:
    trial = a_trial(broker.broker)
    assert [trial.raw().name, trial.raw().name, trial.raw("other").name] == ["client", "client 2", "other"]
    trial.clean_up()


def test_nothing_is_left_behind(broker: FaultyBroker, a_trial: StartTrial) -> None:
    trial = a_trial(broker.broker)
    topic = trial.topic()
    raw = trial.raw()
    raw.connect("persistent", clean=False, will=Will(trial.topic("will"), b"gone", 1, True))
    raw.subscribe(topic, 1)
    raw.publish(topic, b"kept", 1, retain=True)
    paho = trial.client(client_id="persistent too", clean=False)
    paho.publish(trial.topic("other"), b"kept", 0, retain=True)
    paho.publish(trial.topic("other"), b"kept", 1, retain=True)
    raw.reset()
    again = trial.raw()
    again.connect("persistent", clean=False, will=Will(trial.topic("will"), b"gone", 1, True))
    assert len(broker._retained) == 4
    assert len(broker._sessions) == 2
    trial.clean_up()
    assert list(broker._retained) == [SYS_TOPIC]
    assert [session.client_id for session in broker._sessions.values() if not session.clean] == []


def test_clean_up_does_not_mind_a_broker_that_is_gone(a_trial: StartTrial) -> None:
    with FaultyBroker() as broker, broker.broker:
        trial = a_trial(broker.broker)
        trial.raw().connect("persistent", clean=False)
        trial.client().publish(trial.topic(), b"kept", 1, retain=True)
    trial.clean_up()
    assert trial.transcript.events()[-1].text


def test_wills_of_a_test_that_is_over_are_not_published(broker: FaultyBroker, a_trial: StartTrial) -> None:
    trial, watching = a_trial(broker.broker), a_trial(broker.broker)
    topic = watching.topic()
    watcher = watching.subscriber(topic, 1)
    trial.raw().connect(trial.client_id(), will=Will(topic, b"gone", 1))
    trial.clean_up()
    watching.client("control").publish(topic, b"control", 1)
    assert watcher.next_message().payload == b"control"
    watching.clean_up()


def test_paho_acknowledges_before_it_disconnects(broker: FaultyBroker, a_trial: StartTrial) -> None:
    trial = a_trial(broker.broker)
    client = trial.client(clean=False)
    client.subscribe(trial.topic(), 2)
    publisher = trial.client("publisher")
    for qos in (1, 2):
        publisher.publish(trial.topic(), b"message", qos)
        assert client.next_message().qos == qos
    client.disconnect()
    again = trial.client("again", client_id=client.client_id, clean=False)
    publisher.publish(trial.topic(), b"control", 1)
    assert again.next_message().payload == b"control"
    trial.clean_up()


def test_paho_sees_the_end_of_its_connection(broker: FaultyBroker, a_trial: StartTrial) -> None:
    trial = a_trial(broker.broker)
    client = trial.client()
    trial.client("second login", client_id=client.client_id)
    client.wait_closed()
    with pytest.raises(Closed):
        client.next_message()
    trial.clean_up()


def test_timeline_has_every_client(broker: FaultyBroker, a_trial: StartTrial) -> None:
    trial = a_trial(broker.broker)
    trial.subscriber(trial.topic())
    raw = trial.connected("raw")
    raw.ping()
    lines = [(event.who, event.direction, event.text.split(" ")[0]) for event in trial.transcript.events()]
    assert lines[-6:] == [
        ("subscriber", "<-", "SUBACK"),
        ("raw", "--", "connected"),
        ("raw", "->", "CONNECT"),
        ("raw", "<-", "CONNACK"),
        ("raw", "->", "PINGREQ"),
        ("raw", "<-", "PINGRESP"),
    ]
    trial.clean_up()


def test_subscriber_wants_its_qos(broker: FaultyBroker, a_trial: StartTrial) -> None:
    trial = a_trial(broker.broker)
    with pytest.raises(Inconclusive):
        trial.subscriber("forbidden/topic", 1, endpoint="acl")
    trial.clean_up()


def test_what_is_missing() -> None:
    broker = single(parse_url("host"))
    with broker:
        trial = Trial(broker, {"qos-2": Capability(False, "SUBACK said so")}, DEADLINE)
        with pytest.raises(NotApplicable, match=r"^the broker lacks qos-2: SUBACK said so$"):
            trial.require("qos-2")
        with pytest.raises(Inconclusive, match=r"it would need \[endpoints\.limited\]$"):
            trial.raw(endpoint="limited")
        with pytest.raises(Inconclusive, match=r"the profile would need restart under \[commands\]$"):
            trial.require("restart")


def test_every_need_is_explained() -> None:
    assert set(capabilities.NEEDS) >= {"qos-2", "empty-client-id", "authenticated", "limited", "restart"}
    assert all(capabilities.NEEDS.values())


def test_probes_find_what_a_right_broker_can_do(broker: FaultyBroker) -> None:
    found = capabilities.probe(broker.broker, DEADLINE)
    lacking = {name: capability.seen for name, capability in found.items() if not capability.present}
    assert list(lacking) == ["dollar-topics", "level-3", "level-5"]
    assert lacking["level-3"] == "MQTT 3.1 was answered with nothing: probe: the broker closed the connection (FIN)"


def test_credentials_of_the_target_are_used(broker: FaultyBroker, a_trial: StartTrial) -> None:
    with single(broker.broker.endpoints["authenticated"]) as authenticated:
        authenticated.endpoints = {"main": broker.broker.endpoints["authenticated"]}
        assert capabilities.probe(authenticated, DEADLINE)["qos-2"].present
        trial = a_trial(authenticated)
        trial.connected().ping()
        trial.client().publish(trial.topic(), b"x", 1)
        trial.clean_up()
