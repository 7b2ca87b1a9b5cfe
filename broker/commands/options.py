"""The `options` command: every option that there is, or one of them in full.

Owns: how the table of options is laid out for a terminal. Must not know: what an option does.
"""

import shutil
import sys
import textwrap
from collections.abc import Iterable, Mapping

from ..config.kinds import NOTATION, Boolean
from ..config.options import GLOBAL_OPTIONS, LISTENER_OPTIONS, OPTIONS, Option
from ..config.unknown import about_key, plain
from .arguments import Parser

#: Columns: beyond this a line is hard to read.
WIDEST = 100

#: It is no row of the table: what it holds is.
_LISTENERS = """\
listeners: a table [[listeners]] for each listener, if there are several
  in the file  [[listeners]]
               bind = "127.0.0.1"

               [[listeners]]
               bind = "0.0.0.0"
               passwords = "PATH"
  place        below all options of the top level
  a change     takes effect at a restart; for the options in it, see there"""

_AT_RELOAD = {True: "takes effect at a reload (SIGHUP)", False: "takes effect at a restart"}


def run(argv: list[str], prog: str) -> int:
    """The exit code: 0, or 2 if there is no such option."""
    parser = Parser(prog, "Show all options of the broker, or the named ones in full.")
    parser.add_argument("names", metavar="NAME", nargs="*", help="an option, such as max_inflight")
    names = parser.parse_args(argv).names
    width = min(shutil.get_terminal_size().columns, WIDEST)
    if not names:
        print(_overview(width, prog))
        return 0
    unknown = [name for name in names if plain(name) not in OPTIONS and name != "listeners"]
    for name in unknown:
        print(f"{prog}: there is no option {name!r}{about_key(name, OPTIONS)}", file=sys.stderr)
    if unknown:
        return 2
    print("\n\n".join(_LISTENERS if name == "listeners" else _in_full(OPTIONS[plain(name)], width) for name in names))
    return 0


def _overview(width: int, prog: str) -> str:
    lists = ", ".join(name for name, row in OPTIONS.items() if not row.has_flag)
    end = (
        f"-c FILE names the configuration file, which is TOML. {NOTATION} Each option also has a flag, with - instead "
        f"of _; only {lists} have none. A change of an option with a * takes effect at a reload (SIGHUP), of the "
        f"others at a restart. `{prog} NAME` shows an option in full."
    )
    return "\n\n".join(
        [
            _section(
                "Options of a listener (in [[listeners]], or at the top level for all listeners):",
                LISTENER_OPTIONS,
                width,
            ),
            _section("Options of the broker (at the top level of the file):", GLOBAL_OPTIONS, width),
            textwrap.fill(end, width, break_on_hyphens=False),
        ]
    )


def _section(title: str, rows: Mapping[str, Option], width: int) -> str:
    indent = max(map(len, OPTIONS)) + 5
    lines = textwrap.wrap(title, width)
    for name, row in rows.items():
        mark = "*" if row.reload else " "
        lines += _hanging(f"{mark} {name}", f"{row.help} (default: {row.default_text})", indent, width)
    return "\n".join(lines)


def _in_full(row: Option, width: int) -> str:
    facts = [
        ("allowed", row.kind.values + row.kind.notation),
        ("default", row.default_text),
        ("in the file", f"{row.name} = {row.kind.toml(row.default) if row.default else row.kind.example}"),
        ("as a flag", _flag(row)),
        ("place", "the top level; for one listener its [[listeners]]" if row.per_listener else "the top level"),
        ("a change", _AT_RELOAD[row.reload]),
    ]
    lines = textwrap.wrap(f"{row.name}: {row.help}", width, break_on_hyphens=False)
    for what, text in facts:
        lines += _hanging(f"  {what}", text, 15, width)
    return "\n".join(lines)


def _flag(row: Option) -> str:
    if row.flag is None:
        return "none: it can only be set in the file"
    if isinstance(row.kind, Boolean):
        return f"{row.flag}, --no-{row.flag[2:]}"
    return f"{', '.join(row.flags)} {row.kind.metavar}"


def _hanging(head: str, text: str, indent: int, width: int) -> Iterable[str]:
    """`head`, and beside it `text` in as many lines as it takes."""
    return textwrap.wrap(
        text,
        width,
        initial_indent=head.ljust(indent),
        subsequent_indent=" " * indent,
        break_on_hyphens=False,
    )
