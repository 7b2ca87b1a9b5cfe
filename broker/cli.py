"""The command line: `python3 -m broker`, or `selectmq`.

Owns: arguments, exit codes, what the program does to its own process. Must not know: how a broker works.

Exit codes: 0 ended as asked; 1 ended by a bug; 2 could not start (one line on standard error says what to do).
"""

import argparse
import contextlib
import gc
import sys
from collections.abc import Sequence
from typing import NoReturn

from . import admission, logs, notify, program, signals, streams
from .commands import check, table
from .config import loading
from .config.options import OPTIONS, Config, add_flags
from .entrance import StartError
from .server import Server
from .version import __version__

#: How long one thread may keep the others from running, in seconds. By default it is 5 ms, for which the store's thread
#: waits again and again while the loop is busy: beside a spinning thread, inserting 1,000 rows took 161 ms with 5 ms
#: and 81 ms with this.
SWITCH_INTERVAL = 0.0005


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `python3 -m broker ARGUMENTS`, and return its exit code."""
    argv = list(sys.argv[1:] if arguments is None else arguments)
    if argv and argv[0] in table.COMMANDS:
        signals.release()
        return table.run(argv[0], argv[1:], program.name())
    parser = _parser()
    try:
        given, unknown = parser.parse_known_args(argv)
        if given.check:
            signals.release()
            return check.report(given, unknown, parser.prog)
        if unknown:
            raise loading.unknown_flag(unknown[0], ("--config", "--check", "--version", "--help"), table.COMMANDS)
        overrides = loading.from_args(given)
        settings = loading.load(given.config, overrides)
    except loading.ConfigError as error:
        for one in error.all:
            print(f"{parser.prog}: {one}", file=sys.stderr)
        return 2
    return _serve(parser.prog, settings, lambda: loading.load(given.config, overrides))


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """A mistake is told in one line, as all others are, and not below the list of all flags."""
        raise loading.ConfigError(f"{message}; --help shows all flags")


class _Formatter(argparse.HelpFormatter):
    """Leaves the list of commands as it is."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        head, _, rest = text.partition("\n\n")
        return super()._fill_text(head, width, indent) + (f"\n\n{rest}" if rest else "")


def run() -> int:
    """`main` as a program of its own."""
    streams.open_missing()
    sys.stdout, written = streams.tolerate(sys.stdout)
    sys.stderr, _ = streams.tolerate(sys.stderr)
    try:
        code = main()
    except SystemExit as end:  # --help, --version
        code = end.code if isinstance(end.code, int) else 0
    if code == 0 and written.failure is not None:
        print(f"{program.name()}: cannot write to standard output: {written.failure.strerror}", file=sys.stderr)
        return 1
    return code


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=program.name(),
        usage="%(prog)s [flags]\n       %(prog)s COMMAND ...",
        description="A broker for MQTT 5.0, 3.1.1 and 3.1. Without arguments it listens on 127.0.0.1:1883.\n\n"
        + table.overview(program.name()),
        epilog=f"These options have no flag, and can only be set in FILE: {_without_flag()}. "
        f"`{program.name()} options` explains all options.",
        formatter_class=_Formatter,
        allow_abbrev=False,
    )
    parser.add_argument("-c", "--config", metavar="FILE", help="read options from this TOML file")
    parser.add_argument("--check", action="store_true", help="check the configuration and its files, and exit")
    parser.add_argument("--version", action="version", version=f"selectmq {__version__}")
    add_flags(parser)
    return parser


def _without_flag() -> str:
    return ", ".join(name for name, row in OPTIONS.items() if not row.has_flag)


def _serve(prog: str, settings: Config, reread: loading.Reload) -> int:
    end_log = logs.configure(settings.log_level, settings.log_format)
    try:
        _run_server(settings, reread)
    except StartError as error:
        end_log()
        print(f"{prog}: {error}", file=sys.stderr)
        return 2
    finally:
        end_log()
    return 0


def _run_server(settings: Config, reread: loading.Reload) -> None:
    log = logs.EventLog()
    _raise_descriptor_limit(settings, log)
    sys.setswitchinterval(SWITCH_INTERVAL)
    server = Server(settings, log, reread, notify.notify)
    _tune_collector()
    with signals.obeyed(server.request):
        server.run()


def _tune_collector() -> None:
    """The collector of cycles stops all else while it looks at what is young, a microsecond for each object: some
    thousand at a time are enough. It does not look at what has grown old: that is as much as there are sessions and
    messages, and nothing that lives long is let go in a cycle (a test watches that)."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(3_000, 4, 1_000_000_000)


def _raise_descriptor_limit(settings: Config, log: logs.EventLog) -> None:
    """Each connection needs a descriptor: take as many as the system allows."""
    try:
        import resource
    except ImportError:
        return  # Windows has no such limit
    wanted = sum(listener.max_connections for listener in settings.listeners) + 128
    more = wanted + sum(admission.limit(listener.max_connections) for listener in settings.listeners)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = more if hard == resource.RLIM_INFINITY else min(more, hard)
    if soft != resource.RLIM_INFINITY and soft < enough:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (enough, hard))
            soft = enough
    if soft != resource.RLIM_INFINITY and soft < wanted:
        log.warning("fewer connections than max_connections are possible: raise the limit (ulimit -n)", limit=soft)
