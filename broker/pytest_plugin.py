"""pytest fixtures: a real MQTT broker for a test, on a free port and in memory.

pytest finds them once selectmq is installed; in a clone, `-p broker.pytest_plugin` loads them.

    def test_my_client(mqtt_broker):
        my_client.connect(mqtt_broker.host, mqtt_broker.port)

`mqtt_broker` is a running `selectmq.Broker` with the default options. `mqtt_broker_factory` makes one with options, and
as many as a test wants:

    def test_a_full_broker(mqtt_broker_factory):
        broker = mqtt_broker_factory(max_connections=1)

Both are stopped when the test ends, and nothing of them is left: no thread, no file, no open port. A fixture of a wider
scope is three lines of one's own, around `with Broker(port=0) as broker: yield broker`.

Owns: the fixtures. Must not know: how a broker works. It is the one part of the package that imports something outside
of the standard library, which is pytest. It loads the broker only for a test that asks for one: each pytest on the
machine loads this module, most of them for nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from .embedded import Broker


class BrokerFactory(Protocol):
    """What the fixture `mqtt_broker_factory` is: for annotations."""

    def __call__(self, **options: object) -> Broker:
        """A running broker with these options, named as in the configuration file; on a free port unless one is given.

        Raises ConfigError (a ValueError) for wrong options, and selectmq.StartError if it cannot start.
        """


def _needs_port(options: Mapping[str, Any]) -> bool:
    """Not if each listener says itself where it listens: then a port for all is a mistake."""
    listeners = options.get("listeners") or [options]
    return any(listener.get("port") is None and listener.get("unix") is None for listener in listeners)


@pytest.fixture
def mqtt_broker_factory() -> Iterator[BrokerFactory]:
    """Make MQTT brokers with options: `mqtt_broker_factory(max_connections=1)`. They end with the test."""
    from .embedded import Broker

    with ExitStack() as brokers:

        def make(**options: object) -> Broker:
            if _needs_port(options):
                options = {"port": 0, **options}
            return brokers.enter_context(Broker(**options))  # type: ignore[arg-type]

        yield make


@pytest.fixture
def mqtt_broker(mqtt_broker_factory: BrokerFactory) -> Broker:
    """A running MQTT broker, in memory: clients connect to `mqtt_broker.host` and `mqtt_broker.port`."""
    return mqtt_broker_factory()
