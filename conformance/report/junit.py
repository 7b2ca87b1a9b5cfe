"""The JUnit report: what continuous integration servers read.

A FAIL is a failure, an ERROR an error; NOT APPLICABLE and INCONCLUSIVE are skipped. A WARN passes, unless the run is
strict.
"""

import re
from xml.etree import ElementTree

from ..verdicts import Verdict
from .result import RunResult, TestResult
from .timeline import lines

# XML 1.0 has no way to write these characters.
_UNWRITABLE = re.compile(r"[^\t\n\r\x20-\uD7FF\uE000-\uFFFD\U00010000-\U0010FFFF]")


def render(run: RunResult) -> str:
    """The report's text: one suite with one case per test."""
    failed = [test for test in run.tests if _failed(run, test)]
    errors = run.count(Verdict.ERROR)
    skipped = run.count(Verdict.NOT_APPLICABLE) + run.count(Verdict.INCONCLUSIVE)
    root = ElementTree.Element("testsuites")
    suite = ElementTree.SubElement(
        root,
        "testsuite",
        name=f"MQTT {run.mqtt} conformance of {run.target}",
        tests=str(len(run.tests)),
        failures=str(len(failed)),
        errors=str(errors),
        skipped=str(skipped),
        time=f"{run.seconds:.3f}",
        timestamp=run.started,
    )
    for test in run.tests:
        _case(suite, run, test)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _case(suite: ElementTree.Element, run: RunResult, test: TestResult) -> None:
    module, _, name = test.id.partition("::")
    case = ElementTree.SubElement(
        suite, "testcase", classname=module.removesuffix(".py"), name=_clean(name), time=f"{test.seconds:.3f}"
    )
    if _failed(run, test):
        detail = "\n".join([*lines(test.timeline), "", run.rerun(test)])
        message = f"[{', '.join(test.statements)}] {test.reason}"
        ElementTree.SubElement(case, "failure", message=_clean(message), type=str(test.verdict)).text = _clean(detail)
    elif test.verdict is Verdict.ERROR:
        ElementTree.SubElement(case, "error", message=_clean(test.reason)).text = _clean(test.actual)
    elif test.verdict in (Verdict.NOT_APPLICABLE, Verdict.INCONCLUSIVE):
        ElementTree.SubElement(case, "skipped", message=_clean(f"{test.verdict}: {test.reason}"))
    elif test.verdict is Verdict.WARN:
        ElementTree.SubElement(case, "system-out").text = _clean(f"WARN: {test.reason}")


def _failed(run: RunResult, test: TestResult) -> bool:
    return test.verdict is Verdict.FAIL or (run.strict and test.verdict is Verdict.WARN)


def _clean(text: str) -> str:
    return _UNWRITABLE.sub("?", text)
