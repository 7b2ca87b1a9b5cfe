"""The reports of a run: each shows the same model."""

import json
from html.parser import HTMLParser
from io import StringIO
from xml.etree import ElementTree

import pytest

from conformance import statements
from conformance.capabilities import Capability
from conformance.report import html_report, json_report, junit, terminal
from conformance.report.result import RunResult, TestResult, judge
from conformance.report.timeline import lines
from conformance.transcript import Event
from conformance.verdicts import Verdict

TIMELINE = (
    Event(0.0, "client", "--", "connected to mqtt://host:1", "", 0),
    Event(0.0123, "client", "->", "PINGREQ", "c0 00", 2),
    Event(1.5, "b", "<-", 'PUBLISH "<a>" QoS 0', " ".join(["aa"] * 96), 500),
)

TESTS = (
    TestResult("test_1.py::test_kept", "It is kept.", ("MQTT-3.12.4-1",), Verdict.PASS, 0.1, notes=("took 1.5 times",)),
    TestResult(
        "test_1.py::test_broken[a <b>]",
        "It & that are kept.",
        ("MQTT-3.12.4-1", "MQTT-3.1.2-8"),
        Verdict.FAIL,
        0.25,
        'expected "<x>"; actually nothing\0',
        'expected "<x>"',
        "nothing\0",
        (),
        TIMELINE,
    ),
    TestResult("test_1.py::test_odd", "It is odd.", ("MQTT-3.1.2-24",), Verdict.WARN, 0.1, "it is odd"),
    TestResult("test_1.py::test_lacking", "It is there.", ("MQTT-3.1.3-6",), Verdict.NOT_APPLICABLE, 0.1, "it lacks"),
    TestResult("test_1.py::test_open", "It is open.", ("MQTT-3.3.5-2",), Verdict.INCONCLUSIVE, 0.1, "no endpoint"),
    TestResult(
        "test_1.py::test_ours",
        "It runs.",
        ("MQTT-3.1.4-1",),
        Verdict.ERROR,
        0.1,
        "the runner failed",
        "",
        "Traceback: x",
    ),
)

DEVIATIONS = {"MQTT-3.1.2-8": "known & so on", "MQTT-3.1.2-24": "known, and odd"}


def a_run(*tests: TestResult, strict: bool = False) -> RunResult:
    given = tests or TESTS
    return RunResult(
        target="a <broker>",
        mqtt="3.1.1",
        started="2026-01-02T03:04:05+00:00",
        seconds=12.3456,
        tests=given,
        statements=judge(statements.load(), given, deviations=DEVIATIONS),
        strict=strict,
        capabilities={"qos-2": Capability(True, "SUBACK <2>")},
        problems=("the broker ended by itself",),
        arguments=("mqtt://host:1",),
    )


def test_timeline() -> None:
    assert lines(TIMELINE) == [
        "   0.000  client  -- connected to mqtt://host:1",
        "   0.012  client  -> PINGREQ  | c0 00",
        '   1.500  b       <- PUBLISH "<a>" QoS 0  | ' + " ".join(["aa"] * 24) + " ... (500 bytes)",
    ]


def test_json_is_the_interface() -> None:
    report = json.loads(json_report.render(a_run()))
    assert list(report) == ["target", "mqtt", "started", "seconds", "certified", "statements", "tests"]
    assert {key: report[key] for key in ("target", "mqtt", "started", "seconds", "certified")} == {
        "target": "a <broker>",
        "mqtt": "3.1.1",
        "started": "2026-01-02T03:04:05+00:00",
        "seconds": 12.346,
        "certified": False,
    }
    by_id = {entry["id"]: entry for entry in report["statements"]}
    assert len(by_id) == len(statements.load())
    assert by_id["MQTT-3.12.4-1"] == {
        "id": "MQTT-3.12.4-1",
        "verdict": "FAIL",
        "tests": ["test_1.py::test_kept", "test_1.py::test_broken[a <b>]"],
    }
    assert by_id["MQTT-3.1.2-23"] == {"id": "MQTT-3.1.2-23", "verdict": "NOT TESTED", "tests": []}
    assert report["tests"][3] == {
        "id": "test_1.py::test_lacking",
        "verdict": "NOT APPLICABLE",
        "statements": ["MQTT-3.1.3-6"],
        "seconds": 0.1,
        "reason": "it lacks",
    }


def test_junit() -> None:
    suite = ElementTree.fromstring(junit.render(a_run()))[0]
    assert {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")} == {
        "tests": "6",
        "failures": "1",
        "errors": "1",
        "skipped": "2",
    }
    outcome = {case.get("name"): [child.tag for child in case] for case in suite}
    assert outcome == {
        "test_kept": [],
        "test_broken[a <b>]": ["failure"],
        "test_odd": ["system-out"],
        "test_lacking": ["skipped"],
        "test_open": ["skipped"],
        "test_ours": ["error"],
    }
    failure = suite[1][0]
    assert failure.get("message") == '[MQTT-3.12.4-1, MQTT-3.1.2-8] expected "<x>"; actually nothing?'
    assert failure.text is not None
    assert failure.text.splitlines()[-1] == (
        "python3 -m conformance mqtt://host:1 --select 'test_1.py::test_broken[a <b>]'"
    )


def test_junit_of_a_strict_run() -> None:
    suite = ElementTree.fromstring(junit.render(a_run(strict=True)))[0]
    assert suite.get("failures") == "2"
    assert [child.tag for child in suite[2]] == ["failure"]


EXPECTED_END = """
6 tests in 12.3 s: 1 PASS, 1 INCONCLUSIVE, 1 WARN, 1 FAIL, 1 ERROR, 1 NOT APPLICABLE
The run itself: the broker ended by itself
NOT CERTIFIED: a <broker> against MQTT 3.1.1.
""".strip().splitlines()


def test_terminal() -> None:
    shown = terminal.summary(a_run())
    assert shown[0] == "Statements by section"
    assert "  3.12 PINGREQ             1 FAIL" in shown
    at = shown.index("FAIL  test_1.py::test_broken[a <b>]")
    assert shown[at : at + 12] == [
        "FAIL  test_1.py::test_broken[a <b>]",
        "      It & that are kept.",
        "  [MQTT-3.12.4-1] PINGREQ gets a PINGRESP.",
        "  [MQTT-3.1.2-8] A stored will is published when the connection ends without a proper DISCONNECT.",
        "    known deviation: known & so on",
        '  expected expected "<x>"',
        "  actual   nothing\0",
        *(f"      {line}" for line in lines(TIMELINE)),
        "  again: python3 -m conformance mqtt://host:1 --select 'test_1.py::test_broken[a <b>]'",
        "",
    ]
    at = shown.index("  it is odd")
    assert shown[at - 1 : at + 3] == [
        "WARN",
        "  it is odd",
        "    known deviation: known, and odd",
        "      test_1.py::test_odd",
    ]
    at = shown.index(EXPECTED_END[0])
    assert shown[at : at + 3] == EXPECTED_END
    assert shown[-1].endswith("statements were not tested")


ONE = TestResult("test_1.py::test_kept", "It is kept.", ("MQTT-3.12.4-1",), Verdict.PASS, 0.1)


@pytest.mark.parametrize(("selection", "expected"), [("", "CERTIFIED: x keeps"), ("3.12", "PASSED: x, for what was")])
def test_terminal_of_a_run_without_an_obstacle(selection: str, expected: str) -> None:
    judged = judge(statements.load(), [ONE], only_tested=True)
    shown = terminal.summary(RunResult("x", "3.1.1", "", 1.0, (ONE,), judged, selection))
    assert shown[-1].startswith(expected)


def test_progress_on_a_terminal_is_one_line() -> None:
    class Terminal(StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    progress = terminal.Progress(stream)
    progress.begin(2)
    for test in TESTS[:2]:
        progress.step(test)
    progress.end()
    shown = stream.getvalue()
    assert shown.count("\n") == 1
    assert "FAIL  test_1.py::test_broken[a <b>]\n" in shown
    assert "2 of 2 tests, 1 FAIL" in shown


def test_progress_in_a_log_is_a_line_now_and_then() -> None:
    stream = StringIO()
    progress = terminal.Progress(stream)
    progress.begin(6)
    for test in TESTS:
        progress.step(test)
    progress.end()
    shown = stream.getvalue().splitlines()
    assert shown[0] == "0 of 6 tests"
    assert shown[-1] == "6 of 6 tests, 1 FAIL, 1 WARN, 1 NOT APPLICABLE, 1 INCONCLUSIVE, 1 ERROR"
    assert "FAIL  test_1.py::test_broken[a <b>]" in shown


class Outline(HTMLParser):
    """Checks that tags are balanced, and gathers the texts, ids and links."""

    VOID = ("meta", "br", "link", "!doctype")
    OPTIONAL = ("html",)

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""
        self.ids: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID + self.OPTIONAL:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name == "href" and (value or "").startswith("#"):
                self.links.append((value or "")[1:])
            assert name not in ("src", "onclick"), "a report loads and runs nothing"

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.OPTIONAL:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data


def outline(page: str) -> Outline:
    parsed = Outline()
    parsed.feed(page)
    parsed.close()
    assert parsed.open == []
    return parsed


def test_html() -> None:
    page = html_report.render(a_run())
    found = outline(page)
    assert "Not certified" in found.text
    assert "a <broker> against MQTT 3.1.1" in found.text
    kinds = "2 FAIL, 1 WARN, 1 NOT APPLICABLE, 1 INCONCLUSIVE, 1 ERROR, 172 NOT TESTED"
    assert f"178 statements: {kinds}." in found.text
    assert 'expected "<x>"' in found.text
    assert "Known deviation: known & so on" in found.text
    assert "again" in found.text.lower()
    assert "\n".join(lines(TIMELINE)) in found.text
    assert "SUBACK <2>" in found.text
    assert "took 1.5 times" in found.text
    assert len(set(found.ids)) == len(found.ids)
    assert set(found.links) <= set(found.ids)
    assert {statement.id for statement in statements.load()} <= set(found.ids)
    assert "<script" not in page
