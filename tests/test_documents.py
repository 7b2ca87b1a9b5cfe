"""The README and the pages behind it say what is true: what can be derived from the code is compared with it.

tests/end_to_end/test_documents.py runs their commands.
"""

import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import pytest

from broker.commands.table import COMMANDS
from broker.config.options import OPTIONS, markdown_table
from conformance import profiles
from conformance.profiles import ENDPOINT
from conformance.target import ROLES
from tests.broker_process import ROOT

README = ROOT / "README.md"
PAGES = sorted(
    [README, *ROOT.glob("broker/**/*.md"), *ROOT.glob("conformance/**/*.md")], key=lambda page: page.relative_to(ROOT)
)

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def anchors(page: Path) -> set[str]:
    """Those that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.+)$", without_code(page.read_text()), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)


def links(page: Path) -> list[str]:
    return re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text()))


@every_page
def test_every_link_leads_somewhere(page: Path) -> None:
    lost = []
    for link in links(page):
        path, _, anchor = unquote(link).partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            lost.append(link)
    assert lost == []


def test_the_readme_leads_to_every_page() -> None:
    """But to drafts, whose names begin with _."""
    linked = {(ROOT / link.partition("#")[0]).resolve() for link in links(README)}
    assert {page.relative_to(ROOT) for page in PAGES if page not in {README, *linked}} == set()


def test_the_readme_is_short() -> None:
    """A screen and a half, the list of pages included."""
    assert len(README.read_text().splitlines()) <= 165


def test_the_readme_s_figures_are_those_of_the_page() -> None:
    table = README.read_text().split("## How fast")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (.+?) \| ([\d.]+) µs \| ([\d.]+) µs \| (\S+) \|$", table, re.M)
    assert len(rows) == 5
    page = (ROOT / "broker/docs/performance.md").read_text()
    for what, mosquitto, selectmq, ratio in rows:
        assert re.search(
            rf"^\| {re.escape(what)} \(µs/\w+\) \| {mosquitto} \| {selectmq} \| {re.escape(ratio)} \|", page, re.M
        ), what


def test_the_table_of_options_is_the_code_s_own() -> None:
    """On a failure: python -c 'from broker.commands.table import COMMANDS
    from broker.config.options import markdown_table; print(markdown_table())'."""
    begin, end = "markdown_table() -->\n", "<!-- end of options -->"
    page = (ROOT / "broker/docs/configuration.md").read_text()
    assert page.split(begin)[1].split(end)[0] == markdown_table()


def test_the_page_installs_the_unit_as_the_unit_says() -> None:
    unit = (ROOT / "broker/docs/selectmq.service").read_text()
    commands = re.findall(r"^#   (.+)$", unit, re.M)
    page = (ROOT / "broker/docs/operation.md").read_text()
    assert re.findall(r"```sh\n(.*?)```", page.split("## systemd")[1], re.S)[0].splitlines() == commands


def test_every_limit_is_explained() -> None:
    explained = set(re.findall(r"`(\w+)`", (ROOT / "broker/docs/limits.md").read_text()))
    limits = {name for name in OPTIONS if name.startswith("max_")}
    assert limits - explained == set()


def test_every_endpoint_of_a_profile_is_explained() -> None:
    page = (ROOT / "conformance/docs/profiles.md").read_text().split("## Endpoints")[1]
    assert re.findall(r"^\| `(\w+)` \|", page, re.M) == list(ROLES)
    assert set(ENDPOINT) - set(re.findall(r"`(\w+)(?: = true)?`", page)) == set()


def test_the_profiles_shown_are_right() -> None:
    shown = re.findall(r"```toml\n(.*?)```", (ROOT / "conformance/docs/profiles.md").read_text(), re.S)
    assert [profiles.parse(text, "shown").name for text in shown] == ["my broker", "mosquitto"]


def test_the_house_is_shown_as_it_is() -> None:
    """Every module has its place on the page about the code, and none is shown that is not there."""
    rooms = (ROOT / "broker/README.md").read_text().split("## The rooms")[1].split("\n## ")[0]
    shown = set()
    for part in re.split(r"^### ", rooms, flags=re.M)[1:]:
        folder = part.split("`")[1] if re.match(r"`\w+/`:", part) else ""
        for line in part.splitlines():
            inner = "commands/" if line.startswith("| `commands/`") else folder
            shown |= {inner + name for name in re.findall(r"`([\w/]+\.py)`", line)}
    modules = {str(path.relative_to(ROOT / "broker")) for path in (ROOT / "broker").rglob("*.py")}
    there = {name for name in modules if not name.endswith("__init__.py")}
    assert (set(), set()) == (there - shown, shown - there)


@cache
def known_flags() -> set[str]:
    """All that our commands take."""
    commands = (["broker"], *(["broker", command] for command in COMMANDS), ["conformance"], ["conformance", "compare"])
    shown = [
        subprocess.run([sys.executable, "-m", *command, "--help"], cwd=ROOT, capture_output=True, text=True, check=True)
        for command in commands
    ]
    return set(re.findall(r"--[a-z][a-z-]+", "".join(run.stdout for run in shown)))


@every_page
def test_every_flag_that_it_names_exists(page: Path) -> None:
    """Those in commands of ours, and those in the text."""
    text = page.read_text().split("<!-- options:")[0]
    ours = [line for line in text.splitlines() if re.match(r"(echo .* \| )?(selectmq|python3 -m (br|conf))\S* ", line)]
    quoted = re.findall(r"`(--[a-z][a-z-]+)[^`]*`", without_code(text))
    named = {*re.findall(r"(?<![\w-])--[a-z][a-z-]+", "\n".join(ours)), *quoted}
    assert named - known_flags() == set()
