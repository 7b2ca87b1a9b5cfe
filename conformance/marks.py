"""The marks that a test of the suite carries: which statements it judges, and what it needs.

Owns: `verifies`, `needs`, `waits`, `alone`. Must not know: how they are acted on (that is `plugin` and `trial`).
"""

import pytest

#: What each mark is for; `plugin` registers them with pytest.
MARKS = {
    "verifies": "verifies(*ids): the statements that the test judges",
    "needs": "needs(*names): capabilities, endpoints or commands without which the test cannot run",
    "waits": "waits(seconds): about how long the test must wait, so that the longest can begin first",
    "alone": "alone: the test disturbs others, so it runs when all the rest has ended",
}


def verifies(*statement_ids: str) -> pytest.MarkDecorator:
    """The statements of the catalogue that this test judges, such as `@verifies("MQTT-3.1.0-2")`. At least one."""
    return pytest.mark.verifies(*statement_ids)


def needs(*names: str) -> pytest.MarkDecorator:
    """What the test cannot do without, such as `@needs("empty-client-id")`; the names are in `capabilities.NEEDS`.

    A capability that the broker was seen to lack makes the test NOT APPLICABLE; an endpoint or a command that the
    profile does not name makes it INCONCLUSIVE.
    """
    return pytest.mark.needs(*names)


def waits(seconds: float) -> pytest.MarkDecorator:
    """About how many seconds the test must wait for the broker's clock. The longest waiters are started first."""
    return pytest.mark.waits(seconds)


#: The test disturbs others (restarts the broker, fills its connection limit): it runs when all the rest has ended.
alone: pytest.MarkDecorator = pytest.mark.alone
