"""The table of statement, test and fault has no gap without a written reason."""

import dataclasses
from pathlib import Path

from conformance import statements
from conformance.session import Session
from conformance.statements import Statement
from tests.conformance import table
from tests.conformance.faulty.faults import FAULTS, ODDITIES


def test_every_statement_has_tests_and_faults_or_a_reason(suite: Session) -> None:
    rows = table.rows(suite.jobs)
    assert [row.statement.id for row in rows] == [statement.id for statement in statements.load()]
    assert [(row.statement.id, row.gap) for row in rows if row.gap] == []


def test_every_fault_breaks_what_the_catalogue_has(suite: Session) -> None:
    judged = {name for job in suite.jobs for name in job.statements}
    assert {name for broken in (FAULTS | ODDITIES).values() for name in broken} - judged == set()


def test_gaps_are_told() -> None:
    must = Statement("1/a", "", "1", "server", "yes", "A rule.")
    should = dataclasses.replace(must, level="SHOULD")
    unseen = dataclasses.replace(must, observable="no", why="nobody sees it")
    rows = {
        "no test": table.Row(must, (), (), ()),
        "no fault": table.Row(must, ("t",), (), ("odd",)),
        "nothing for a SHOULD": table.Row(should, ("t",), (), ()),
        "oddity": table.Row(should, ("t",), (), ("odd",)),
        "unseen": table.Row(unseen, (), (), ()),
        "whole": table.Row(must, ("t",), ("f",), ()),
    }
    assert {name: row.gap for name, row in rows.items()} == {
        "no test": "no test",
        "no fault": "no fault",
        "nothing for a SHOULD": "no fault",
        "oddity": "",
        "unseen": "",
        "whole": "",
    }


def test_markdown(suite: Session) -> None:
    shown = table.markdown(table.rows(suite.jobs)).splitlines()
    (line,) = [line for line in shown if line.startswith("| MQTT-3.1.4-2 |")]
    assert "`test_3_01_connect.py::test_many_logins_leave_the_last (1)`" in line
    assert line.endswith("<br>nobody is evicted<br>the newcomer is turned away |")
    assert (
        "| MQTT-3.1.2-23 | An otherwise idle client pings within its keep alive interval. | none: it binds"
        in "\n".join(shown)
    )
    assert {line.count(" | ") for line in shown[2:-2]} == {3}


def test_the_page_counts_right(suite: Session) -> None:
    page = " ".join((Path(__file__).parents[2] / "conformance/README.md").read_text(encoding="utf-8").split())
    judged = {name for job in suite.jobs for name in job.statements}
    assert f"It judges the {len(judged)} of MQTT 3.1.1's statements" in page
    assert f"a broker with {len(FAULTS)} switchable faults" in page
