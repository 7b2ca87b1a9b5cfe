"""The `check` command, and `--check`: everything that is wrong with a configuration, told in one run.

Owns: what is looked at, in which order, and how it is told. Must not know: how each thing is found (check_listener and
check_acl for the files of listeners; the store and the network have looks of their own).

An error is what a start would trip over: exit code 2. A warning is what a start would bear, though hardly somebody
means it: exit code 0. Nothing is changed, and a broker that runs notices nothing.
"""

import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from itertools import pairwise

from ..config import loading
from ..config.options import Config, add_flags
from ..endpoints import lay_out
from ..file_rights import remarks
from ..net.endpoints import ListenError
from ..storage import examine
from . import check_acl, check_listener
from .arguments import Parser
from .findings import Finding, error, warning

_DESCRIPTION = (
    "List all mistakes in a configuration and in the files that it names, and say whether the broker could start here "
    "and now. This changes nothing. It takes the same flags as the broker."
)


def run(argv: list[str], prog: str) -> int:
    parser = Parser(prog, _DESCRIPTION)
    parser.usage = "%(prog)s [-h] [-c FILE] [flags of the broker]"
    parser.add_argument("-c", "--config", metavar="FILE", help="read options from this TOML file")
    add_flags(parser)
    given, unknown = parser.parse_known_args(argv)
    return report(given, unknown, prog)


def report(given: Namespace, unknown: Sequence[str], prog: str) -> int:
    """Tell what is wrong with what was given; `unknown` are arguments that no parser knows. The exit code: 0 or 2."""
    mistakes = loading.Mistakes()
    for before, argument in pairwise(["", *unknown]):
        if argument.startswith("-") or not before.startswith("-"):  # else it is the value of an unknown flag
            mistakes.append(loading.unknown_flag(argument, ("--config", "--check", "--version", "--help")))
    overrides = loading.examine_args(given, mistakes)
    draft = loading.examine(given.config, overrides)
    findings = [error(str(mistake)) for mistake in (*mistakes, *draft.mistakes)]
    if draft.config is not None:
        findings += look(draft.config, draft.unsure)
        findings += _rights(draft.config, [finding.text for finding in findings if finding.is_error])
    findings = list(dict.fromkeys(findings))  # listeners may share a file
    for finding in findings:
        print(f"{prog}: {'' if finding.is_error else 'warning: '}{finding.text}", file=sys.stderr)
    if any(finding.is_error for finding in findings):
        return 2
    assert draft.config is not None
    addresses = ", ".join(listener.address for listener in draft.config.listeners)
    print(f"configuration is {'fine' if not findings else 'usable'}: {addresses}")
    return 0


def look(config: Config, unsure: tuple[frozenset[str], ...]) -> Iterator[Finding]:
    """What is wrong beyond the configuration itself. `unsure`: the options of each listener that are not known."""
    everywhere = frozenset.intersection(*unsure)
    runs = False
    if config.data is not None and not everywhere & {"data", "memory"}:
        examined = examine.examine(config.data)
        runs = bool(examined.holder)
        if runs:
            yield warning(
                f"{examined.fault}: it can reload this configuration, but a second broker cannot start with it"
            )
        elif examined.fault:
            yield error(examined.fault)
        elif examined.unread:
            size = examine.LARGEST_COPY >> 20
            yield warning(f"{config.data}: the stored data was not checked, because it is larger than {size} MiB")
    listeners = list(zip(config.listeners, unsure, strict=True))
    try:
        lay_out([listener for listener, names in listeners if not names & {"bind", "port", "unix"}])
    except ListenError as fault:
        yield error(str(fault))
    for listener, names in listeners:
        yield from check_listener.look(listener, names, runs=runs)
    yield from _acls(config, unsure)
    if not everywhere & {"max_connections"}:
        yield from _descriptors(config)


def _rights(config: Config, errors: Sequence[str]) -> Iterator[Finding]:
    """Who else can reach the files: of those that can be used."""
    for remark in remarks(config):
        if not any(text.startswith(remark.partition(": ")[0]) for text in errors):
            yield warning(remark)


def _acls(config: Config, unsure: tuple[frozenset[str], ...]) -> Iterator[Finding]:
    """Listeners share these files, mostly: a line is for somebody if it is on one of them."""
    by_file: dict[str, list[check_acl.Clients]] = {}
    for listener, names in zip(config.listeners, unsure, strict=True):
        if listener.acl is not None and "acl" not in names:
            by_file.setdefault(listener.acl, []).append(check_listener.clients(listener, names))
    for path, listeners in by_file.items():
        yield from check_acl.look(path, listeners)


def _descriptors(config: Config) -> Iterator[Finding]:
    if sys.platform == "win32":
        return  # it has no such limit
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    connections = max(listener.max_connections for listener in config.listeners)
    spare = 128  # what the broker itself opens
    if hard != resource.RLIM_INFINITY and hard < connections + spare:
        yield warning(
            f"max_connections: {connections} connections need more open files than the {hard} that this "
            "user may have: raise the limit (ulimit -Hn, systemd's LimitNOFILE)"
        )
