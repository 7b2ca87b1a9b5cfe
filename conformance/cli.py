"""The command line: `python3 -m conformance [TARGET] [--profile FILE|NAME] ...`.

Owns: the arguments, the exit codes, and how pytest is called. Must not know: MQTT, how a test is executed.

Exit codes: 0 certified; 1 not certified; 2 the broker could not be judged, with one line that says what to do.
"""

import argparse
import contextlib
import getpass
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest

from . import plugin, profiles, program
from .report import compare, html_report, json_report, junit, terminal
from .report.result import RunResult
from .session import Session
from .side_by_side import JOBS, PATIENCE
from .suite import DIRECTORY
from .target import SHAPE, Broker, Endpoint, TargetError, parse_url, single

DEFAULT_TARGET = "mqtt://127.0.0.1:1883"

#: Where a password may stand. Not among the arguments: every user of the machine could read it there.
PASSWORD_VARIABLE = "SELECTMQ_CONFORMANCE_PASSWORD"

CERTIFIED, NOT_CERTIFIED, NOT_JUDGED = 0, 1, 2

#: The formats that a run can be written in: option, function, what it is for.
REPORTS = {
    "html": (html_report.render, "write the HTML report, one file for people"),
    "json": (json_report.render, "write the JSON report, an interface for other programs"),
    "junit": (junit.render, "write the JUnit report, for continuous integration"),
}

#: pytest without what it would show, keep, or take from the user's own configuration.
PYTEST_ARGUMENTS = (
    *("-c", os.devnull, "--rootdir", str(DIRECTORY), "--capture", "no"),
    *("-p", "no:terminal", "-p", "no:cacheprovider", "-p", "no:warnings"),
    *("-p", "no:threadexception", "-p", "no:unraisableexception"),
)


class UsageError(Exception):
    """The arguments cannot be used: one line that says what to do."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; --help shows the arguments")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; the exit code."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        with _terminated_as_interrupted():
            return _main(given)
    except (UsageError, TargetError, compare.ReportError, terminal.OutputError) as error:
        print(f"{program.name()}: {error}", file=sys.stderr)
        return NOT_JUDGED
    except KeyboardInterrupt:
        print(f"{program.name()}: interrupted: nothing is certified", file=sys.stderr)
        return NOT_JUDGED


def _main(given: list[str]) -> int:
    if given[:1] == ["compare"]:
        return _compare(given[1:])
    options = parser().parse_args(given)
    for name in REPORTS:
        _check_writable(name, getattr(options, name))
    return _list(options) if options.list else _run(options)


@contextlib.contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Lets SIGTERM, and a terminal that is closed (SIGHUP, unless nohup has it ignored), end the runner as Ctrl-C does,
    so that the broker that it has started ends with it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def parser() -> argparse.ArgumentParser:
    """The arguments of a run."""
    built = _Parser(
        prog=program.name(),
        description="Tests an MQTT broker against the normative statements of MQTT 3.1.1.",
        epilog="Exit code: 0 certified, 1 not certified, 2 could not be judged. "
        f"`{program.name()} compare A.json B.json ...` shows several JSON reports side by side.",
        allow_abbrev=False,
    )
    add = built.add_argument
    add("target", nargs="?", metavar="TARGET", help=f"{SHAPE} (default {DEFAULT_TARGET})")
    add(
        "--profile",
        metavar="FILE|NAME",
        help=f"how to start and use the broker: a TOML file, or one of {', '.join(profiles.names())}",
    )
    add("--username", metavar="NAME", help=f"log in; the password is in {PASSWORD_VARIABLE}, or the runner asks for it")
    add("--cafile", metavar="FILE", help="trust certificates of this CA (PEM) instead of the system's")
    add("--insecure", action="store_true", help="accept any certificate")
    add("--cert", metavar="FILE", help="show this certificate (PEM)")
    add("--key", metavar="FILE", help="the private key of --cert, unless it is in the same file")
    add("--list", action="store_true", help="show the statements and their tests; needs no broker")
    add("--select", metavar="WHAT", action="append", default=[], help="a section (3.1), a statement, or a test's name")
    add("--strict", action="store_true", help="count WARN as FAIL")
    for name, (_, words) in REPORTS.items():
        add(f"--{name}", metavar="FILE", help=words)
    add(
        "--patience",
        metavar="SECONDS",
        type=_positive,
        default=PATIENCE,
        help=f"how long to wait for an answer (default {PATIENCE:g})",
    )
    add(
        "--jobs",
        metavar="N",
        type=_count,
        help=f"how many tests run at once, besides those that only wait (default {JOBS})",
    )
    return built


def collect(select: Sequence[str] = ()) -> Session:
    """The suite as it stands, or what is selected of it: a session that has `jobs`, and has run none of them."""
    session = Session(single(parse_url(DEFAULT_TARGET)), select=select, collect_only=True)
    call_pytest(session)
    if session.problem:
        raise UsageError(session.problem)
    return session


def session_of(config: pytest.Config) -> Session:
    """The session that pytest's own command line asks for, when the suite runs as a plugin."""
    option = config.option
    try:
        target = parse_url(option.mqtt_target) if option.mqtt_target else None
        broker = _broker(target, option.mqtt_profile)
    except TargetError as error:
        raise pytest.UsageError(str(error)) from None
    return Session(
        broker,
        select=option.mqtt_select or (),
        patience=option.mqtt_patience or PATIENCE,
        workers=option.mqtt_jobs,
        strict=option.mqtt_strict,
        arguments=_arguments(target, option.mqtt_profile),
    )


def _run(options: argparse.Namespace) -> int:
    target = _target(options)
    broker = _broker(target, options.profile)
    progress = terminal.Progress(sys.stderr)
    session = Session(
        broker,
        select=options.select,
        patience=options.patience,
        workers=options.jobs,
        strict=options.strict,
        arguments=_arguments(target, options.profile),
        on_begin=progress.begin,
        on_result=progress.step,
    )
    interrupted = False
    try:
        call_pytest(session)
    except KeyboardInterrupt:
        interrupted = True  # what was run until then is reported
    progress.end()
    if session.problem:
        raise UsageError(session.problem)
    run = session.result
    if run is not None:
        terminal.write(run)
        write_reports(run, {name: getattr(options, name) for name in REPORTS})
    if run is None or interrupted:
        raise KeyboardInterrupt
    return CERTIFIED if run.passed else NOT_CERTIFIED


def _list(options: argparse.Namespace) -> int:
    session = collect(options.select)
    tests = [(job.id, job.statements) for job in session.jobs]
    terminal.say("\n".join(terminal.listing(session.catalogue, tests, only_tested=bool(options.select))) + "\n")
    return 0


def _compare(given: Sequence[str]) -> int:
    built = _Parser(
        prog=f"{program.name()} compare", description="Shows JSON reports side by side.", allow_abbrev=False
    )
    built.add_argument("reports", nargs="+", metavar="FILE", help="a report that was written with --json")
    built.add_argument("--html", metavar="FILE", help="also write the matrix as an HTML page")
    built.add_argument("--markdown", metavar="FILE", help="also write a summary by chapter as a Markdown table")
    options = built.parse_args(given)
    _check_writable("html", options.html)
    _check_writable("markdown", options.markdown)
    reports = compare.read(options.reports)
    terminal.say(compare.render_text(reports))
    if options.html:
        Path(options.html).write_text(compare.render_html(reports), encoding="utf-8")
    if options.markdown:
        Path(options.markdown).write_text(compare.render_markdown(reports), encoding="utf-8")
    return 0


def _target(options: argparse.Namespace) -> Endpoint | None:
    """The address that the arguments name, with all that they say about it; None if they leave it to the profile."""
    tls = {"--cafile": options.cafile, "--insecure": options.insecure, "--cert": options.cert, "--key": options.key}
    given = [flag for flag, value in (tls | {"--username": options.username}).items() if value]
    if not options.target and options.profile:
        if given:
            raise UsageError(
                f"{given[0]} is about a TARGET: name it, or write that into [endpoints.main] of the profile"
            )
        return None
    endpoint = parse_url(options.target or DEFAULT_TARGET)
    if not endpoint.tls and given and given[0] in tls:
        raise UsageError(f"{given[0]} is for TLS, and {endpoint.url} is without: name it as mqtts:// or wss://")
    if options.key and not options.cert:
        raise UsageError("--key belongs to a certificate: give --cert FILE, too")
    if options.username is not None:
        if endpoint.username is not None:
            raise UsageError("--username and the target name a user each: leave one of them out")
        endpoint = replace(endpoint, username=options.username, password=_password(options.username))
    endpoint = replace(
        endpoint, ca_file=options.cafile, insecure=options.insecure, cert_file=options.cert, key_file=options.key
    )
    endpoint.check_files()
    return endpoint


def _password(username: str) -> str:
    found = os.environ.get(PASSWORD_VARIABLE)
    if found is not None:
        return found
    if not sys.stdin.isatty():
        raise UsageError(f"--username {username}: put the password into the environment variable {PASSWORD_VARIABLE}")
    try:
        return getpass.getpass(f"Password of {username}: ")
    except EOFError:
        raise UsageError("no password was given") from None


def _broker(target: Endpoint | None, profile: str | None) -> Broker:
    if profile:
        return profiles.load(profile, target)
    return single(target or parse_url(DEFAULT_TARGET))


def _arguments(target: Endpoint | None, profile: str | None) -> list[str]:
    """The arguments that name the broker, for a command that a person can copy. Passwords are left to him."""
    given = []
    if target:
        given.append(target.url)
        said = {
            "--username": target.username,
            "--cafile": target.ca_file,
            "--cert": target.cert_file,
            "--key": target.key_file,
        }
        given += [word for flag, value in said.items() if value is not None for word in (flag, value)]
        given += ["--insecure"] * target.insecure
    if profile:
        given += ["--profile", profile]
    return given


def call_pytest(session: Session) -> None:
    """Lets pytest collect and run the suite, free of what the user has set up for his own tests."""
    with _clean_environment():
        code = pytest.main([*PYTEST_ARGUMENTS, str(DIRECTORY)], plugins=[plugin, _Named(session)])
    if code == pytest.ExitCode.INTERRUPTED and not session.problem:
        raise KeyboardInterrupt
    if code in (pytest.ExitCode.INTERNAL_ERROR, pytest.ExitCode.USAGE_ERROR) and not session.problem:
        session.problem = f"pytest ended with {code!r}: this is a fault of the runner"


class _Named:
    """Registers the session under the name by which `plugin` knows it."""

    def __init__(self, session: Session) -> None:
        self._session = session

    @pytest.hookimpl(tryfirst=True)
    def pytest_configure(self, config: pytest.Config) -> None:
        config.pluginmanager.register(self._session, plugin.NAME)


@contextlib.contextmanager
def _clean_environment() -> Iterator[None]:
    kept = dict(os.environ)
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    for name in ("PYTEST_ADDOPTS", "PYTEST_PLUGINS"):
        os.environ.pop(name, None)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(kept)


def write_reports(run: RunResult, paths: Mapping[str, str | None]) -> None:
    """Writes the reports that are wanted: `paths` is by the names of `REPORTS`."""
    for name, path in paths.items():
        if path:
            Path(path).write_text(REPORTS[name][0](run), encoding="utf-8")


def _check_writable(name: str, path: str | None) -> None:
    """Says before the run, not after it, that a report has nowhere to go."""
    if path is None:
        return
    file = Path(path)
    if file.is_dir():
        raise UsageError(f"--{name} {path}: is a directory: name a file")
    if not file.parent.is_dir():
        raise UsageError(f"--{name} {path}: there is no directory {str(file.parent)!r}")
    if not os.access(file if file.exists() else file.parent, os.W_OK):
        raise UsageError(f"--{name} {path}: cannot be written: no permission")


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 1")
    return value
