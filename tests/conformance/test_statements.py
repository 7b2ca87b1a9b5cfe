"""The catalogues, and that the suite keeps to them."""

from collections import Counter

import pytest

from conformance import statements
from conformance.session import Session
from conformance.statements import COLUMNS, CatalogueError, Statement
from conformance.suite import DIRECTORY

#: Chapters for which the suite has no file yet.
MISSING_FILES: set[str] = set()


def test_labelled_statements_are_counted() -> None:
    labelled = [statement for statement in statements.load("3.1.1") if statement.labelled]
    assert Counter(statement.observable for statement in labelled) == {"yes": 119, "config": 6, "no": 16}
    assert sum(statement.binds == "client" and statement.testable for statement in labelled) == 22


def test_5_0_is_counted() -> None:
    assert len(statements.load("5.0")) == 251


@pytest.mark.parametrize("version", statements.FILES)
def test_references_lead_somewhere(version: str) -> None:
    catalogue = statements.load(version)
    named = {name.split(" ")[0] for one in catalogue for name in (one.anchor, one.reaction) if name}
    assert sorted(name for name in named if name not in catalogue) == []


def test_every_untestable_statement_has_its_reason() -> None:
    untestable = [statement for statement in statements.load() if not statement.testable]
    assert [statement.id for statement in untestable if not statement.reason_untested] == []
    assert statements.load()["MQTT-3.1.2-23"].reason_untested == (
        "it binds the client: nothing that a broker does shows whether it is kept"
    )
    assert statements.load()["MQTT-4.8.0-2"].reason_untested == "cannot be provoked from outside"


def test_statements_stand_in_the_order_of_the_book() -> None:
    chapters = [statement.chapter for statement in statements.load()]
    assert list(dict.fromkeys(chapters)) == sorted(set(chapters), key=statements.section_key)
    assert set(chapters) <= set(statements.CHAPTERS)


FOUND = {
    "MQTT-3.1.2-8": "MQTT-3.1.2-8",
    "mqtt-3.1.2-8": "MQTT-3.1.2-8",
    "[3.1.2-8]": "MQTT-3.1.2-8",
    "MQTT-3.1.2.7": "MQTT-3.1.2-7",
    "MQTT-3-8.3-4": "MQTT-3.8.3-4",
    "3.2.1/length": "3.2.1/length",
    "3.1": None,
    "MQTT-9.9.9-9": None,
}


@pytest.mark.parametrize(("text", "expected"), FOUND.items())
def test_find(text: str, expected: str | None) -> None:
    found = statements.load().find(text)
    assert (found.id if found else None) == expected


def test_unknown_id_has_a_nearest_one() -> None:
    with pytest.raises(KeyError) as caught:
        statements.load()["MQTT-3.1.2-88"]
    assert caught.value.args[0].startswith("no statement 'MQTT-3.1.2-88' in MQTT 3.1.1; did you mean MQTT-3.1.2-8")


@pytest.mark.parametrize(
    ("section", "wanted", "expected"),
    [("3.1", "3.1", True), ("3.1.2.5", "3.1", True), ("3.10", "3.1", False), ("3.1", "3.1.2", False)],
)
def test_in_section(section: str, wanted: str, expected: bool) -> None:
    assert statements.in_section(section, wanted) == expected


HEAD = "\t".join(COLUMNS)
GOOD = "MQTT-1-1\tMQTT-1-1\t1\tserver\tyes\tA rule.\t"
DAMAGED = {
    "no head": (GOOD, "x.tsv:1: the first line must name the columns " + ", ".join(COLUMNS)),
    "columns": (f"{HEAD}\n{GOOD}\tmore", "x.tsv:2: 8 columns, must be 7"),
    "binds": (
        f"{HEAD}\n{GOOD.replace('server', 'all')}",
        "x.tsv:2: binds is 'all', must be one of server, client, both",
    ),
    "observable": (
        f"{HEAD}\n{GOOD}\n{GOOD.replace('yes', 'maybe')}",
        "x.tsv:3: observable is 'maybe', must be one of yes, no, config",
    ),
    "section": (
        f"{HEAD}\nMQTT-1-1\tMQTT-1-1\tone\tserver\tyes\tA rule.\t",
        "x.tsv:2: section is 'one', must be numbers with dots between",
    ),
    "note": (
        f"{HEAD}\n{GOOD}because",
        "x.tsv:2: note 'because' must be key=value with a key of anchor, reaction, needs, why, hint, level",
    ),
    "level": (f"{HEAD}\n{GOOD}level=WILL", "x.tsv:2: level is 'WILL', must be one of MUST, SHOULD, MAY"),
}


@pytest.mark.parametrize(("text", "expected"), DAMAGED.values(), ids=DAMAGED)
def test_damaged_catalogue(text: str, expected: str) -> None:
    with pytest.raises(CatalogueError) as caught:
        statements.parse(text, "x.tsv")
    assert str(caught.value) == expected


def test_notes_may_hold_semicolons() -> None:
    (parsed,) = statements.parse(f"{HEAD}\n{GOOD}needs=this; or that; level=MAY", "x.tsv")
    assert parsed == Statement(
        "MQTT-1-1", "MQTT-1-1", "1", "server", "yes", "A rule.", needs="this; or that", level="MAY"
    )


def chapters_with_a_file() -> set[str]:
    """The chapters whose file the suite has: test_3_01_connect.py is 3.1, test_6_00_websocket.py is 6."""
    numbers = [path.stem.split("_")[1:] for path in DIRECTORY.glob("test_*.py")]
    return {".".join(str(int(word)) for word in words if word.isdigit() and word != "00") for words in numbers}


def test_every_chapter_has_a_file() -> None:
    testable = {statement.chapter for statement in statements.load() if statement.testable}
    assert testable - chapters_with_a_file() == MISSING_FILES


def test_every_statement_of_a_file_has_a_test(suite: Session) -> None:
    tested = {name for job in suite.jobs for name in job.statements}
    chapters = chapters_with_a_file()
    untested = [
        one.id for one in statements.load() if one.testable and one.chapter in chapters and one.id not in tested
    ]
    assert untested == []


def test_no_test_judges_what_cannot_be_seen(suite: Session) -> None:
    catalogue = statements.load()
    named = {name for job in suite.jobs for name in job.statements}
    assert sorted(name for name in named if not catalogue[name].testable) == []
