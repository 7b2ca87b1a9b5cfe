"""The JSON report: an interface, so its keys stay. Reading it back is for `compare`.

{"target", "mqtt", "started", "seconds", "certified",
 "statements": [{"id", "verdict", "tests": [...]}],
 "tests": [{"id", "verdict", "statements", "seconds", "reason"}]}
"""

import json
from typing import Any

from .result import RunResult


def plain(run: RunResult) -> dict[str, Any]:
    """The report as plain values."""
    return {
        "target": run.target,
        "mqtt": run.mqtt,
        "started": run.started,
        "seconds": round(run.seconds, 3),
        "certified": run.certified,
        "statements": [
            {
                "id": result.statement.id,
                "verdict": str(result.verdict),
                "tests": [test.id for test in result.tests],
            }
            for result in run.statements
        ],
        "tests": [
            {
                "id": test.id,
                "verdict": str(test.verdict),
                "statements": list(test.statements),
                "seconds": round(test.seconds, 3),
                "reason": test.reason,
            }
            for test in run.tests
        ],
    }


def render(run: RunResult) -> str:
    """The report's text."""
    return json.dumps(plain(run), indent=1, ensure_ascii=False) + "\n"
