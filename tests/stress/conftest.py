"""These tests take minutes, thousands of descriptors and much processor time: they run only if SELECTMQ_STRESS is set,
as `tox -e stress` does.

    SELECTMQ_STRESS=1 python -m pytest tests/stress -s
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.broker_process import BrokerProcess

collect_ignore_glob = [] if os.environ.get("SELECTMQ_STRESS") else ["test_*.py"]


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[BrokerProcess]:
    """A broker with room for all of it."""
    broker = BrokerProcess(tmp_path, 'max_connections = 15000\nconnect_timeout = "10m"\nmax_subscriptions = 1000000\n')
    yield broker
    broker.stop()
