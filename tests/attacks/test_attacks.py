"""The quick part of the attacks: one of each kind, small, on whatever machine; `tox -e attacks` is the whole."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import pytest

from tests.attacks import attacker
from tests.attacks.ground import ATTACKS, MIB, Allowed
from tests.attacks.measure import Innocent, Result, judged, run
from tests.broker_process import BrokerProcess

#: Seconds that a round trip may take of the broker's own time: far more than on a quiet machine, far less than what
#: each of these once cost.
QUICK = Allowed(longest=0.5, p99=0.2)
SCALE = 0.1
#: Fewer round trips than that say nothing.
LEAST = 20

KINDS = [
    "many_wildcards",
    "wildcards_of_many_clients",
    "topics_that_the_acl_refuses",
    "one_deep_filter_again_and_again",
    "retained_that_nothing_matches",
    "pings",
    "fragments_of_nothing",
    "wills_all_at_once",
    "qos_2_floods",
    "a_thousand_that_publish_at_qos_1",
    "connects_that_are_refused",
    "proxy_headers_that_drip",
    "ever_new_sections",
]


@pytest.mark.parametrize("name", KINDS)
def test_others_are_served_meanwhile(name: str, tmp_path: Path) -> None:
    result = run(name, tmp_path, SCALE)
    print(result.line())
    faults = judged(result, QUICK, 0)
    assert faults + result.broken == []
    assert result.rounds >= LEAST, "inconclusive: the innocent client hardly got to measure anything"


def test_each_attack_says_what_it_does() -> None:
    assert attacker.main is not None  # it has filled the table
    assert len(ATTACKS) > 60
    assert [name for name, attack in ATTACKS.items() if not attack.what] == []
    assert [name for name in KINDS if name not in ATTACKS] == []


def test_what_is_above_its_limit_is_told() -> None:
    """And what the machine is to blame for is not: `longest` alone may be anything."""
    cheap = Result("x", 100, 0.001, 9.0, 9.0, 0.01, 0.09, MIB, MIB, MIB, 0, 1.0, [], [])
    dear = cheap._replace(own_p99=0.03, own_longest=0.2, memory=3 * MIB, kept=3 * MIB, disk=3 * MIB)
    allowed = Allowed(memory=2 * MIB, kept=2 * MIB, disk=2 * MIB)
    assert judged(cheap, allowed, 0) == []
    assert judged(dear, allowed, 2) == [
        "2 connects of the innocent client failed",
        "the longest round trip took 200 ms, allowed are 100",
        "of the round trips one in 100 took 30 ms, allowed are 20",
        "memory grew by 3 MiB, allowed are 2",
        "of memory it kept 3 MiB, allowed are 2",
        "on disk it took 3 MiB, allowed are 2",
    ]


def test_a_broker_that_stands_still_is_to_blame_itself(tmp_path: Path) -> None:
    """Else a busy machine would excuse everything."""
    broker = BrokerProcess(tmp_path)
    innocent = Innocent(broker, ATTACKS["pings"])
    innocent.subscribe()
    broker.signal(signal.SIGSTOP)
    timer = threading.Timer(0.3, broker.signal, [signal.SIGCONT])
    timer.start()
    innocent.once()
    timer.join()
    innocent.close()
    broker.stop()
    assert innocent.own[-1] > 0.25
