"""The loads of tests/end_to_end/test_hostile.py with large numbers; their figures are printed.

The limits of memory are the same as there: what is bounded does not grow with the numbers.
"""

import pytest

from tests.broker_process import BrokerProcess
from tests.end_to_end import loads


def test_ten_thousand_silent_connections(broker: BrokerProcess) -> None:
    loads.silent_crowd(broker, 10_000)


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_client_that_never_reads(qos: int, broker: BrokerProcess) -> None:
    loads.deaf_reader(broker, qos, count=500_000, size=1000)


def test_a_client_that_publishes_faster_than_anyone_reads(broker: BrokerProcess) -> None:
    loads.flood(broker, readers=20, count=2_000_000, size=1000)


def test_a_million_topics(broker: BrokerProcess) -> None:
    loads.many_topics(broker, count=1_000_000, length=30)


def test_many_long_topics(broker: BrokerProcess) -> None:
    loads.many_topics(broker, count=50_000, length=60_000)


def test_a_hundred_thousand_subscriptions_of_one_client(broker: BrokerProcess) -> None:
    loads.many_subscriptions(broker, count=100_000, length=100)


def test_clients_that_come_and_go(broker: BrokerProcess) -> None:
    loads.reconnecting(broker, count=50_000)


def test_a_client_that_never_reads_the_retained_messages_it_asked_for(broker: BrokerProcess) -> None:
    loads.retained_for_the_deaf(broker, count=2_400, size=100_000)
