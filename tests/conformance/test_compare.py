"""The matrix of brokers by statement."""

import json
from pathlib import Path

import pytest

from conformance import statements
from conformance.report import compare
from conformance.report.compare import ReportError
from tests.conformance.test_reports import outline


def written(directory: Path, name: str, **fields: object) -> str:
    report = {
        "target": name,
        "mqtt": "3.1.1",
        "certified": False,
        "statements": [
            {"id": "MQTT-3.12.4-1", "verdict": "PASS", "tests": []},
            {"id": "MQTT-3.1.2-8", "verdict": "FAIL" if name == "b" else "PASS", "tests": []},
        ],
        **fields,
    }
    path = directory / f"{len(list(directory.iterdir()))}.json"
    path.write_text(json.dumps(report))
    return str(path)


def test_text(tmp_path: Path) -> None:
    reports = compare.read([written(tmp_path, "a", certified=True), written(tmp_path, "b"), written(tmp_path, "a")])
    shown = compare.render_text(reports).splitlines()
    assert shown[:4] == [
        "A  a: certified (2 PASS)",
        "B  b: not certified (1 PASS, 1 FAIL)",
        "C  a (2): not certified (2 PASS)",
        "",
    ]
    assert "  MQTT-3.12.4-1            P P P  PINGREQ gets a PINGRESP." in shown
    assert [line[:33] for line in shown if line.startswith("*")] == ["* MQTT-3.1.2-8             P F P "]
    assert sum("MQTT-" in line for line in shown) == sum(one.labelled for one in statements.load())


def test_html(tmp_path: Path) -> None:
    page = compare.render_html(compare.read([written(tmp_path, "a <b>"), written(tmp_path, "b")]))
    found = outline(page)
    assert "a <b>, b" in found.text
    assert page.count('class="differs"') == 1


def test_markdown(tmp_path: Path) -> None:
    shown = compare.render_markdown(compare.read([written(tmp_path, "a", certified=True), written(tmp_path, "b")]))
    assert shown == (
        "| MQTT 3.1.1 | a | b |\n"
        "| --- | --- | --- |\n"
        "|  | **certified** | not certified |\n"
        "| 3.1 CONNECT | 1 P | **1 F** |\n"
        "| 3.12 PINGREQ | 1 P | 1 P |\n"
        "| all | 2 P | 1 P **1 F** |\n"
        "\nStatements: P PASS, F FAIL, W WARN, n NOT APPLICABLE, ? INCONCLUSIVE, E ERROR.\n"
    )


MISTAKES = {
    "no JSON": ("hello", "is not JSON: give reports that were written with --json"),
    "no report": ("{}", "is no report of this runner (KeyError('statements')): give one written with --json"),
    "unknown verdict": (
        '{"statements": [{"id": "x", "verdict": "FINE"}], "target": "x", "mqtt": "3.1.1", "certified": true}',
        "is no report of this runner (ValueError(\"'FINE' is not a valid Verdict\")): give one written with --json",
    ),
    "unknown version": (
        '{"statements": [], "target": "x", "mqtt": "6.0", "certified": true}',
        "is a report on MQTT 6.0, which this runner does not know",
    ),
}


@pytest.mark.parametrize(("text", "expected"), MISTAKES.values(), ids=MISTAKES)
def test_mistake(text: str, expected: str, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(ReportError) as caught:
        compare.read([str(path)])
    assert str(caught.value) == f"{path}: {expected}"


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ReportError) as caught:
        compare.read([f"{tmp_path}/none.json"])
    assert str(caught.value) == f"{tmp_path}/none.json: cannot be read: No such file or directory"


def test_two_versions(tmp_path: Path) -> None:
    with pytest.raises(ReportError) as caught:
        compare.read([written(tmp_path, "a"), written(tmp_path, "b", mqtt="5.0")])
    assert str(caught.value) == "the reports are of different versions of MQTT (3.1.1, 5.0): compare those of one"
