"""The HTML report: one file that a person likes to read.

The verdict at the top, a map of the specification, then every statement with its tests, and every failure with what was
expected, what came, and the bytes both ways.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from html import escape
from itertools import groupby

from ..statements import CHAPTERS
from ..verdicts import SEVERITY, Verdict
from .page import CLASSES, badge, cell, legend, page
from .result import RunResult, StatementResult, TestResult, counted
from .timeline import lines

OPENED = (Verdict.FAIL, Verdict.ERROR)
WITH_TIMELINE = (Verdict.FAIL, Verdict.ERROR, Verdict.WARN, Verdict.INCONCLUSIVE)


def render(run: RunResult) -> str:
    """The whole page."""
    parts = [_head(run), _obstacles(run), _map(run), _chapters(run), _capabilities(run)]
    return page(f"{run.target}: MQTT {run.mqtt} conformance", "\n".join(filter(None, parts)))


def _head(run: RunResult) -> str:
    if run.certified:
        stand, tone = "Certified", "pass"
    elif run.passed:
        stand, tone = "Passed what was selected", "pass"
    else:
        stand, tone = "Not certified", "fail"
    statements = counted((result.verdict for result in run.statements), CLASSES)
    tests = counted((test.verdict for test in run.tests), CLASSES)
    remarks = "".join(f'<p class="ink error">{escape(problem)}</p>' for problem in run.problems)
    selection = f"; only {escape(run.selection)} was selected" if run.selection else ""
    return f"""<header>
<h1>{escape(run.target)} against MQTT {escape(run.mqtt)}</h1>
<p class="stand ink {tone}">{stand}</p>
<p>{len(run.statements)} statements: {statements}.<br>{len(run.tests)} tests: {tests}.</p>
<p class="quiet">{escape(_began(run.started))}; took {run.seconds:.1f} s{selection}.</p>
{remarks}</header>"""


def _obstacles(run: RunResult) -> str:
    if not run.obstacles:
        return ""
    untested = [result for result in run.obstacles if result.verdict is Verdict.NOT_TESTED]
    rows = [
        f'<li>{badge(result.verdict)} <a href="#{escape(result.statement.id)}">{escape(result.statement.id)}</a> '
        f"{escape(result.statement.summary)}</li>"
        for result in run.obstacles
        if result.verdict is not Verdict.NOT_TESTED
    ]
    if untested:
        rows.append(f"<li>{badge(Verdict.NOT_TESTED)} {len(untested)} statements were not tested in this run</li>")
    return f"<h2>What stands in the way</h2>\n<ul>{''.join(rows)}</ul>"


def _map(run: RunResult) -> str:
    rows = []
    for chapter, group in _by_chapter(run.statements):
        cells = "".join(
            cell(
                result.verdict,
                f"{result.statement.id}: {result.verdict}. {result.statement.summary}",
                result.statement.id,
            )
            for result in group
        )
        rows.append(
            f'<a class="id" href="#section-{chapter}">{chapter}</a>'
            f'<span class="name">{escape(CHAPTERS.get(chapter, ""))}</span><div class="cells">{cells}</div>'
        )
    return f'<h2>Map</h2>\n<div class="map">{"".join(rows)}</div>\n{legend()}'


def _chapters(run: RunResult) -> str:
    parts = ["<h2>Statements</h2>"]
    for chapter, group in _by_chapter(run.statements):
        parts.append(f'<h3 id="section-{chapter}">{chapter} {escape(CHAPTERS.get(chapter, ""))}</h3>')
        parts += [_statement(run, result) for result in group]
    return "\n".join(parts)


def _statement(run: RunResult, result: StatementResult) -> str:
    statement = result.statement
    opened = " open" if result.verdict in OPENED else ""
    count = f"{len(result.tests)} test{'s' * (len(result.tests) != 1)}" if result.tests else ""
    remarks = []
    if not result.tests:
        remarks.append(escape(result.reason))
    if statement.level != "MUST":
        remarks.append(f"The specification says {statement.level} here.")
    if result.deviation:
        remarks.append(f"Known deviation: {escape(result.deviation)}")
    words = "".join(f'<p class="quiet">{remark}</p>' for remark in remarks)
    worst_first = sorted(result.tests, key=lambda test: SEVERITY.index(test.verdict))
    plain = [test for test in worst_first if test.verdict is Verdict.PASS and not test.notes]
    told = [test for test in worst_first if test not in plain]
    groups = groupby(plain, key=lambda test: (test.function, test.title))
    tests = "".join(_test(run, test) for test in told) + "".join(_cases(run, list(group)) for _, group in groups)
    return f"""<details id="{escape(statement.id)}"{opened}>
<summary>{badge(result.verdict)}<span class="id">{escape(statement.id)}</span><span>{escape(statement.summary)}</span>\
<span class="quiet">{count}</span></summary>
{words}{tests}</details>"""


def _test(run: RunResult, test: TestResult) -> str:
    rows = []
    if test.expected:
        rows += [("expected", test.expected), ("actual", test.actual)]
    elif test.reason:
        rows.append(("because", test.reason))
    rows += [("note", note) for note in test.notes]
    facts = "".join(f"<dt>{name}</dt><dd>{escape(words)}</dd>" for name, words in rows)
    facts = f"<dl>{facts}</dl>" if facts else ""
    extra = ""
    if test.verdict is Verdict.ERROR:
        extra += f"<pre>{escape(test.actual)}</pre>"
    if test.verdict in WITH_TIMELINE and test.timeline:
        extra += f"<pre>{escape(chr(10).join(lines(test.timeline)))}</pre>"
        extra += f'<p class="quiet">Again: <code>{escape(run.rerun(test))}</code></p>'
    return f"""<div class="test {CLASSES[test.verdict]}">
<p>{badge(test.verdict)} {escape(test.title)} <span class="quiet">{test.seconds:.3f} s</span></p>
<p class="id">{escape(test.id)}</p>{facts}{extra}</div>
"""


def _cases(run: RunResult, tests: Sequence[TestResult]) -> str:
    """Tests of one function that passed, of which there is nothing else to tell: a line for all of them."""
    if len(tests) == 1:
        return _test(run, tests[0])
    seconds = sorted(test.seconds for test in tests)
    names = " ".join(f"<span>{escape(test.id.removeprefix(test.function))}</span>" for test in tests)
    return f"""<div class="test pass">
<p>{badge(Verdict.PASS)} {escape(tests[0].title)} \
<span class="quiet">{len(tests)} cases, {seconds[0]:.3f} to {seconds[-1]:.3f} s</span></p>
<p class="id">{escape(tests[0].function)}</p><p class="id cases">{names}</p></div>
"""


def _began(started: str) -> str:
    """A time as a person writes it; what is none stays as it is."""
    try:
        return f"{datetime.fromisoformat(started):%d %B %Y, %H:%M:%S %Z}".lstrip("0").rstrip()
    except ValueError:
        return started


def _capabilities(run: RunResult) -> str:
    if not run.capabilities:
        return ""
    rows = "".join(
        f"<tr><td><code>{escape(name)}</code></td><td>{'yes' if found.present else 'no'}</td>"
        f'<td class="quiet">{escape(found.seen)}</td></tr>'
        for name, found in run.capabilities.items()
    )
    return f"<h2>What the broker was seen to do</h2>\n<table>{rows}</table>"


def _by_chapter(results: Iterable[StatementResult]) -> list[tuple[str, list[StatementResult]]]:
    return [(chapter, list(group)) for chapter, group in groupby(results, key=lambda result: result.statement.chapter)]
