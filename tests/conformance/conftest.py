"""The suite, collected once."""

import pytest

from conformance import cli
from conformance.session import Session


@pytest.fixture(scope="session")
def suite() -> Session:
    """A session that has collected all tests of the suite, and runs none."""
    return cli.collect()
