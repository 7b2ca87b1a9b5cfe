"""What the HTML pages share: one file each, without scripts and without anything from elsewhere."""

from html import escape
from string import Template

from ..verdicts import Verdict

#: The CSS class of each verdict. A colour never stands alone: the word, or its sign, is always with it.
CLASSES = {
    Verdict.PASS: "pass",
    Verdict.FAIL: "fail",
    Verdict.WARN: "warn",
    Verdict.NOT_APPLICABLE: "none",
    Verdict.INCONCLUSIVE: "open",
    Verdict.ERROR: "error",
    Verdict.NOT_TESTED: "none",
}

SIGNS = {
    Verdict.PASS: "&#10003;",
    Verdict.FAIL: "&#10007;",
    Verdict.WARN: "!",
    Verdict.NOT_APPLICABLE: "&ndash;",
    Verdict.INCONCLUSIVE: "?",
    Verdict.ERROR: "E",
    Verdict.NOT_TESTED: "&middot;",
}

MEANINGS = {
    Verdict.PASS: "kept",
    Verdict.FAIL: "a MUST is broken",
    Verdict.WARN: "a SHOULD is not followed, or few brokers do this",
    Verdict.INCONCLUSIVE: "could not be provoked here",
    Verdict.NOT_APPLICABLE: "the broker lacks an optional capability",
    Verdict.ERROR: "the runner's own fault",
    Verdict.NOT_TESTED: "no test judges it",
}

_PAGE = Template("""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
:root { color-scheme: light dark; --ink: #1c2024; --quiet: #60676e; --paper: #fff; --line: #dfe3e6; --panel: #f6f7f8;
  --pass: #1a7f4b; --fail: #c62f2f; --warn: #a86a00; --open: #6a4fb3; --error: #8c1d5f; --none: #8a9299; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8eaec; --quiet: #9aa2a9; --paper: #15181b; --line: #2d3338;
  --panel: #1c2024; --pass: #4cc38a; --fail: #ff7b72; --warn: #e5a73b; --open: #a78bfa; --error: #f472b6;
  --none: #7a838b; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 5rem; max-width: 68rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { margin: 0; font-size: 1.1rem; font-weight: 500; color: var(--quiet); }
h2 { margin: 3rem 0 .75rem; font-size: 1.2rem; }
h3 { margin: 2rem 0 .5rem; font-size: 1rem; }
a { color: inherit; }
code, pre, .id { font: .85em/1.5 ui-monospace, "SFMono-Regular", Consolas, monospace; }
.quiet, .id { color: var(--quiet); }
.stand { margin: .25rem 0 .5rem; font-size: 2.4rem; font-weight: 700; letter-spacing: -.02em; }
.pass { --c: var(--pass); } .fail { --c: var(--fail); } .warn { --c: var(--warn); } .open { --c: var(--open); }
.error { --c: var(--error); } .none { --c: var(--none); }
.ink { color: var(--c); }
.badge { display: inline-block; min-width: 4.2em; padding: .05em .5em; border: 1px solid var(--c); border-radius: 4px;
  color: var(--c); font-size: .75rem; font-weight: 600; text-align: center; white-space: nowrap; }
.map { display: grid; grid-template-columns: auto auto 1fr; gap: .35rem 1rem; align-items: center; }
.cells { display: flex; flex-wrap: wrap; gap: 3px; }
.cell { display: inline-block; width: 1.5rem; height: 1.5rem; border-radius: 4px; background: var(--c);
  color: var(--paper); font-size: .8rem; font-weight: 700; line-height: 1.5rem; text-align: center;
  text-decoration: none; }
.cell.none { background: none; border: 1px solid var(--line); color: var(--none); line-height: 1.4rem; }
.cell:hover, .cell:focus { outline: 2px solid var(--ink); }
.legend { display: flex; flex-wrap: wrap; gap: .4rem 1.25rem; margin: 1rem 0 0; font-size: .85rem;
  color: var(--quiet); }
.legend .cell { width: 1.1rem; height: 1.1rem; line-height: 1.1rem; margin-right: .3rem; }
details { border-top: 1px solid var(--line); }
details > summary { display: grid; grid-template-columns: 7.5rem 13rem 1fr auto; gap: .75rem; align-items: baseline;
  padding: .45rem .25rem; cursor: pointer; list-style: none; }
details > summary::-webkit-details-marker { display: none; }
details > summary:hover { background: var(--panel); }
details[open] > summary { font-weight: 600; }
:target { outline: 2px solid var(--open); }
details > p { margin: .2rem 0 .6rem 1rem; }
.cases span { display: inline-block; margin-right: .6em; overflow-wrap: anywhere; }
.test { margin: 0 0 .75rem 1rem; padding: .6rem .9rem; border-left: 3px solid var(--c); background: var(--panel); }
.test p { margin: .2rem 0; }
.test dl { display: grid; grid-template-columns: auto 1fr; gap: .15rem .9rem; margin: .4rem 0; }
.test dt { color: var(--quiet); } .test dd { margin: 0; overflow-wrap: anywhere; }
pre { margin: .5rem 0; padding: .6rem .8rem; overflow-x: auto; border: 1px solid var(--line); border-radius: 4px;
  background: var(--paper); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; }
th, td { padding: .3rem .75rem .3rem 0; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
td.cell-in, th.broker { padding-right: 0; text-align: center; }
th.broker { padding: .3rem .4rem; font-size: .85rem; overflow-wrap: break-word; }
td.cell-in { min-width: 4rem; } td.id { white-space: nowrap; }
tr.differs { background: var(--panel); }
@media (max-width: 40rem) { body { padding: 1.25rem .9rem 3rem; }
  details > summary { grid-template-columns: auto 1fr auto; gap: .2rem .6rem; }
  details > summary > :nth-child(3) { grid-area: 2 / 1 / auto / -1; }
  .test { margin-left: 0; } .test .id { overflow-wrap: anywhere; }
  .map { grid-template-columns: auto 1fr; gap: .2rem .75rem; }
  .map .cells { grid-column: 1 / -1; margin-bottom: .5rem; } }
@media print { details > summary { break-inside: avoid; } body { max-width: none; } }
</style>
$body
</html>
""")


def page(title: str, body: str) -> str:
    """A whole page around `body`, which is HTML."""
    return _PAGE.substitute(title=escape(title), body=body)


def badge(verdict: Verdict) -> str:
    """A verdict as a word in its colour."""
    return f'<span class="badge {CLASSES[verdict]}">{verdict}</span>'


def cell(verdict: Verdict, tip: str, link: str = "") -> str:
    """A verdict as a coloured square with its sign."""
    words = escape(tip, quote=True)
    tag, target = ("a", f' href="#{escape(link, quote=True)}"') if link else ("span", "")
    return f'<{tag} class="cell {CLASSES[verdict]}"{target} title="{words}">{SIGNS[verdict]}</{tag}>'


def legend() -> str:
    """What the colours and signs mean."""
    parts = (f"<span>{cell(verdict, '')}{verdict}: {escape(words)}</span>" for verdict, words in MEANINGS.items())
    return f'<div class="legend">{"".join(parts)}</div>'
