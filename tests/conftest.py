"""What every test may use: the fixtures of the pytest plugins, from this clone and not from what is installed."""

from __future__ import annotations

import pytest

from conformance.marks import MARKS

pytest_plugins = ["broker.pytest_plugin"]


def pytest_configure(config: pytest.Config) -> None:
    """The marks of the conformance suite, whose tests some of ours collect."""
    for line in MARKS.values():
        config.addinivalue_line("markers", line)
