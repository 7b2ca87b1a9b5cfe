"""The normative statements of MQTT, as data: what a broker is judged by.

Owns: the catalogues (`mqtt-3.1.1.tsv`, `mqtt-5.0.tsv`), our additions (`*-unlabelled.tsv`: rules that the
specification states without a label), and the records that they are read into. Must not know: tests, brokers, reports.

A catalogue's columns are separated by tabs:

| column | meaning |
|---|---|
| id | how the project spells the statement, `MQTT-3.1.2-7`; `section/name` for a rule without a label |
| printed_label | how the specification spells it (it has misprints); empty for a rule without a label |
| section | the section that it stands in |
| binds | `server`, `client` or `both` |
| observable | whether a black-box test can see it: `yes`, `no`, or `config`: only with what the profile names |
| summary | the rule in our words |
| note | `key=value` pairs, separated by `; ` (see `Statement`) |
"""

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources

COLUMNS = ("id", "printed_label", "section", "binds", "observable", "summary", "note")
BINDS = ("server", "client", "both")
OBSERVABLE = ("yes", "no", "config")
LEVELS = ("MUST", "SHOULD", "MAY")
NOTE_KEYS = ("anchor", "reaction", "needs", "why", "hint", "level")

#: Each version's files, in the order in which they are read.
FILES = {
    "3.1.1": ("mqtt-3.1.1.tsv", "mqtt-3.1.1-unlabelled.tsv"),
    "5.0": ("mqtt-5.0.tsv",),
}

#: What the chapters of the specification are about, for people.
CHAPTERS = {
    "1.5": "Strings",
    "2.2": "Fixed header",
    "2.3": "Packet Identifier",
    "3.1": "CONNECT",
    "3.2": "CONNACK",
    "3.3": "PUBLISH",
    "3.4": "PUBACK",
    "3.5": "PUBREC",
    "3.6": "PUBREL",
    "3.7": "PUBCOMP",
    "3.8": "SUBSCRIBE",
    "3.9": "SUBACK",
    "3.10": "UNSUBSCRIBE",
    "3.11": "UNSUBACK",
    "3.12": "PINGREQ",
    "3.13": "PINGRESP",
    "3.14": "DISCONNECT",
    "4.1": "Session state",
    "4.3": "Quality of Service",
    "4.4": "Sending again",
    "4.5": "Accepting messages",
    "4.6": "Order",
    "4.7": "Topics",
    "4.8": "Errors",
    "6": "WebSocket",
    "7": "Conformance",
    "7.1": "Conformance targets",
}


class CatalogueError(Exception):
    """A catalogue file is damaged: file, line and what is wrong."""


@dataclass(frozen=True, slots=True)
class Statement:
    """One normative statement.

    `anchor` and `reaction` name the statement under which a broker's reaction to a violation is judged; `needs` says
    what a broker must have so that it can be seen; `why` says why it cannot be; `level` is MUST unless noted.
    """

    id: str
    printed_label: str
    section: str
    binds: str
    observable: str
    summary: str
    anchor: str = ""
    reaction: str = ""
    needs: str = ""
    why: str = ""
    hint: str = ""
    level: str = "MUST"

    @property
    def labelled(self) -> bool:
        return bool(self.printed_label)

    @property
    def chapter(self) -> str:
        """The section's first two numbers, `3.1` of `3.1.2.5`: a file of the suite covers one."""
        return ".".join(self.section.split(".")[:2])

    @property
    def testable(self) -> bool:
        return self.observable != "no"

    @property
    def reason_untested(self) -> str:
        """Why no test can judge this statement; empty if one can."""
        if self.testable:
            return ""
        if self.why:
            return self.why
        return "it binds the client: nothing that a broker does shows whether it is kept"


def section_key(section: str) -> tuple[int, ...]:
    """Sections in the order of the book: 3.2 before 3.10."""
    return tuple(int(number) for number in section.split("."))


def in_section(section: str, wanted: str) -> bool:
    """Whether `section` is `wanted` or lies within it: 3.1.2.5 is in 3.1, 3.10 is not."""
    return section == wanted or section.startswith(f"{wanted}.")


class Catalogue:
    """All statements of one version of MQTT, in the order of the specification."""

    def __init__(self, version: str, statements: list[Statement]) -> None:
        self.version = version
        self.statements = tuple(statements)
        self._by_id = {statement.id: statement for statement in statements}

    def __iter__(self) -> Iterator[Statement]:
        return iter(self.statements)

    def __len__(self) -> int:
        return len(self.statements)

    def __contains__(self, statement_id: object) -> bool:
        return statement_id in self._by_id

    def __getitem__(self, statement_id: str) -> Statement:
        """The statement of that id. KeyError, with the nearest right ids in its text, if there is none."""
        try:
            return self._by_id[statement_id]
        except KeyError:
            near = difflib.get_close_matches(statement_id, self._by_id, n=3, cutoff=0.6)
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            raise KeyError(f"no statement {statement_id!r} in MQTT {self.version}{hint}") from None

    def find(self, text: str) -> Statement | None:
        """The statement that a person means: `MQTT-3.1.2-8`, `mqtt-3.1.2-8`, `[3.1.2-8]` or a printed label."""
        wanted = text.strip().strip("[]").lower()
        for statement in self.statements:
            names = {statement.id.lower(), statement.printed_label.lower()} - {""}
            if wanted in names or f"mqtt-{wanted}" in names:
                return statement
        return None


@cache
def load(version: str = "3.1.1") -> Catalogue:
    """The catalogue of that version of MQTT. CatalogueError if a file of it is damaged."""
    statements: list[Statement] = []
    for name in FILES[version]:
        text = resources.files(__name__).joinpath(name).read_text(encoding="utf-8")
        statements.extend(parse(text, name))
    seen: set[str] = set()
    for statement in statements:
        if statement.id in seen:
            raise CatalogueError(f"MQTT {version}: {statement.id} is there twice")
        seen.add(statement.id)
    statements.sort(key=lambda statement: (section_key(statement.section), not statement.labelled))
    return Catalogue(version, statements)


def parse(text: str, name: str) -> list[Statement]:
    """The records of a catalogue's text; `name` is the file's, for errors."""
    lines = text.splitlines()
    if not lines or tuple(lines[0].split("\t")) != COLUMNS:
        raise CatalogueError(f"{name}:1: the first line must name the columns {', '.join(COLUMNS)}")
    return [_parse_line(line, f"{name}:{number}") for number, line in enumerate(lines[1:], 2) if line]


def _parse_line(line: str, where: str) -> Statement:
    cells = line.split("\t")
    if len(cells) != len(COLUMNS):
        raise CatalogueError(f"{where}: {len(cells)} columns, must be {len(COLUMNS)}")
    identity, printed_label, section, binds, observable, summary, note = cells
    if binds not in BINDS:
        raise CatalogueError(f"{where}: binds is {binds!r}, must be one of {', '.join(BINDS)}")
    if observable not in OBSERVABLE:
        raise CatalogueError(f"{where}: observable is {observable!r}, must be one of {', '.join(OBSERVABLE)}")
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)*", section):
        raise CatalogueError(f"{where}: section is {section!r}, must be numbers with dots between")
    notes: dict[str, str] = {}
    for pair in filter(None, re.split("; (?=[a-z]+=)", note)):
        key, _, value = pair.partition("=")
        if key not in NOTE_KEYS or not value:
            raise CatalogueError(f"{where}: note {pair!r} must be key=value with a key of {', '.join(NOTE_KEYS)}")
        notes[key] = value
    if notes.get("level", "MUST") not in LEVELS:
        raise CatalogueError(f"{where}: level is {notes['level']!r}, must be one of {', '.join(LEVELS)}")
    return Statement(identity, printed_label, section, binds, observable, summary, **notes)
