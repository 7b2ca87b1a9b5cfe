"""Our own broker, as whoever installs both would judge it: certified with every endpoint, and each WARN is explained.

The explanations are the deviations of `conformance/profiles/selectmq.toml`.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from conformance import profiles
from conformance.session import Session

#: The runs against whole brokers, one after the other.
pytestmark = pytest.mark.xdist_group("certification")

#: Long: the machine may be busy with all the other tests.
DEADLINE = 300


def test_selectmq_is_certified(suite: Session, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    done = subprocess.run(
        [sys.executable, "-m", "conformance", "--profile", "selectmq", "--json", str(report)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(report.read_text())
    assert result["certified"] is True
    assert [test["id"] for test in result["tests"]] == [job.id for job in suite.jobs]
    judged = {test["id"]: test["verdict"] for test in result["tests"]}
    assert {identity: verdict for identity, verdict in judged.items() if verdict not in ("PASS", "WARN")} == {}
    warned = {name for test in result["tests"] if test["verdict"] == "WARN" for name in test["statements"]}
    assert set(profiles.load("selectmq").deviations) == warned
