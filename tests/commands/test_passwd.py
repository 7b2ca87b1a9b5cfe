"""The passwd command: what it asks, what it says, its exit codes."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from broker.auth import passwords
from broker.auth.passwords import Passwords
from broker.commands import table
from tests.password_lines import pbkdf2_line, written

PROG = "selectmq passwd"


def passwd(argv: list[str]) -> int:
    return table.run("passwd", argv, "selectmq")


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "users")


CHEAP = ["--iterations", "1"]
SEEN = "warning: --batch shows the password in the process list and in the shell's history; --stdin does not\n"


def type_in(monkeypatch: pytest.MonkeyPatch, *answers: str | BaseException) -> list[str]:
    """Let the questions for a password be answered so; the list collects the questions."""
    left, asked = list(answers), []

    def answer(prompt: str) -> str:
        asked.append(prompt)
        reply = left.pop(0)
        if isinstance(reply, BaseException):
            raise reply
        return reply

    monkeypatch.setattr("getpass.getpass", answer)
    return asked


def feed(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def test_batch_adds_then_changes_and_warns(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    codes = [passwd([path, "bob", "--batch", pw, *CHEAP]) for pw in ("one", "z\u00fc\udcff")]
    assert codes == [0, 0]
    out, err = capsys.readouterr()
    assert out == f"{path}: added user 'bob'\n{path}: changed the password of user 'bob'\n"
    assert err == SEEN * 2
    assert Passwords.read(path).check("bob", "z\u00fc".encode() + b"\xff") is True


def test_a_path_that_is_not_text_is_shown_escaped(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = passwd([path + "\udcff", "bob", "--batch", "x", *CHEAP])
    assert (code, capsys.readouterr().out) == (0, f"{path}\\udcff: added user 'bob'\n")


@pytest.mark.parametrize("data", [b"one", b"one\n", b"one\r\n"])
def test_stdin_is_one_line(path: str, monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    feed(monkeypatch, data)
    assert passwd([path, "bob", "--stdin", *CHEAP]) == 0
    assert Passwords.read(path).check("bob", b"one") is True


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "PATH: the password is empty: choose one"),
        (b"\n", "PATH: the password is empty: choose one"),
        (b"one\ntwo\n", "standard input has more than one line: give the password on one"),
        (b"x" * 100_000, "PATH: the password has 65538 bytes: choose one of at most 65535"),
    ],
)
def test_stdin_refused(
    path: str, data: bytes, why: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    feed(monkeypatch, data)
    code = passwd([path, "bob", "--stdin", *CHEAP])
    expected = f"{PROG}: {why}\n".replace("PATH", path)
    assert (code, capsys.readouterr(), os.path.exists(path)) == (1, ("", expected), False)


def test_stdin_closed(path: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    code = passwd([path, "bob", "--stdin"])
    why = "standard input is closed: give the password on it"
    assert (code, capsys.readouterr().err) == (1, f"{PROG}: {why}\n")


def test_it_asks_twice(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = type_in(monkeypatch, "z\u00fc", "z\u00fc")
    assert passwd([path, "bob", *CHEAP]) == 0
    assert asked == ["New password for bob: ", "Once more, for bob: "]
    assert Passwords.read(path).check("bob", "z\u00fc".encode()) is True


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        (("one", "two"), f"{PROG}: the two passwords differ: nothing was changed, try again\n"),
        ((KeyboardInterrupt(),), f"\n{PROG}: stopped\n"),
        (("one", EOFError()), f"\n{PROG}: stopped\n"),
    ],
)
def test_questions_without_an_answer(
    path: str,
    answers: tuple[str | BaseException, ...],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    type_in(monkeypatch, *answers)
    code = passwd([path, "bob"])
    assert (code, capsys.readouterr(), os.path.exists(path)) == (1, ("", said), False)


def test_a_bad_name_is_refused_before_a_question(
    path: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = type_in(monkeypatch)
    code = passwd([path, "a:b"])
    why = "the user name 'a:b' contains ':', which ends a name in this file: choose one without"
    assert (code, asked, capsys.readouterr()) == (1, [], ("", f"{PROG}: {path}: {why}\n"))


def test_delete(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    written(path, pbkdf2_line("bob", b"x") + pbkdf2_line("al", b"x"))
    codes = [passwd([path, user, "--delete"]) for user in ("bob", "bbo", "all")]
    faults = ("there is no user 'bbo'", "there is no user 'all'; did you mean 'al'?")
    assert codes == [0, 1, 1]
    said = "".join(f"{PROG}: {path}: {fault}\n" for fault in faults)
    assert capsys.readouterr() == (f"{path}: deleted user 'bob'\n", said)
    assert Path(path).read_text() == pbkdf2_line("al", b"x")


def test_it_says_when_the_rest_of_the_file_is_no_good(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    written(path, "# users\nal:plain\n" + pbkdf2_line("eve", b"x"))
    code = passwd([path, "bob", "--batch", "x", *CHEAP])
    why = "this is no $7$, $6$, $argon2id$ or SCRAM hash; if it is a plain password: set the password of 'al' with the "
    why += "passwd command"
    warning = f"{PROG}: warning: the broker will not accept this file yet: {path}:2: {why}\n"
    assert (code, capsys.readouterr().err) == (0, SEEN + warning)


@pytest.mark.parametrize("text", ['{"a":1}\n', "a:b\n"])
def test_what_may_be_another_file_gets_no_new_user(path: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = passwd([written(path, text), "bob", "--batch", "x", *CHEAP])
    why = (
        "no line of this file has a hash, so it may be none of passwords, and nothing was changed; if it is one, first"
    )
    said = f"{SEEN}{PROG}: {path}: {why} set the password of a user who is in it\n"
    assert (code, capsys.readouterr().err, Path(path).read_text()) == (1, said, text)


# --- SCRAM ---

FEW = ["--iterations", "4096"]


@pytest.mark.parametrize(
    ("digest", "method"),
    [
        ("sha-256", "SCRAM-SHA-256"),
        ("sha-512", "SCRAM-SHA-512"),
        ("SHA-512", "SCRAM-SHA-512"),
        ("SCRAM-SHA-256", "SCRAM-SHA-256"),
    ],
)
def test_a_password_for_scram(
    path: str, digest: str, method: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    feed(monkeypatch, b"secret\n")
    code = passwd([path, "bob", "--scram", digest, "--stdin", *FEW])
    known = Passwords.read(path)
    assert (code, capsys.readouterr()) == (0, (f"{path}: added user 'bob'\n", ""))
    assert (known.check("bob", b"secret"), list(known.methods)) == (True, [method])


def test_a_name_that_scram_writes_otherwise_is_refused_before_a_question(
    path: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = type_in(monkeypatch)
    code = passwd([path, "\u2168", "--scram", "sha-256"])
    why = "SCRAM writes the user name '\\u2168' as 'IX': choose that"
    assert (code, asked, capsys.readouterr().err) == (1, [], f"{PROG}: {path}: {why}\n")


def test_who_loses_scram_by_a_new_password_is_told(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    changes = (["--scram", "sha-256", *FEW], ["--scram", "sha-256", *FEW], ["--scram", "sha-512", *FEW], CHEAP, CHEAP)
    said = []
    for change in changes:
        assert passwd([path, "bob", "--batch", "x", *change]) == 0
        said.append(capsys.readouterr().err.removeprefix(SEEN))

    def warning(method: str, flag: str) -> str:
        again = f"if that is a mistake, run this again with --scram {flag}"
        return f"{PROG}: warning: 'bob' cannot log in with {method} any more; {again}\n"

    lost = [warning("SCRAM-SHA-256", "sha-256"), warning("SCRAM-SHA-512", "sha-512")]
    assert said == ["", "", *lost, ""]


@pytest.mark.parametrize(
    ("argv", "what"),
    [
        (["f", "u", "--scram", "sha-1"], "argument --scram: 'sha-1' is neither sha-256 nor sha-512"),
        (["--scram", "f", "u"], "argument --scram: 'f' is neither sha-256 nor sha-512"),
        (["f", "u", "--scram"], "argument --scram: expected one argument"),
        ([], "the following arguments are required: FILE, USER"),
        (["f"], "the following arguments are required: USER"),
        (["f", "u", "more"], "unrecognized arguments: more"),
        (["f", "u", "--batch"], "argument --batch: expected one argument"),
        (["f", "u", "--batch", "x", "--stdin"], "argument --stdin: not allowed with argument --batch"),
        (["f", "u", "--delete", "--stdin"], "argument --stdin: not allowed with argument --delete"),
        (["f", "u", "--iterations", "x"], "argument --iterations: invalid int value: 'x'"),
        (
            ["-c", "f", "u"],
            "-c: a flag of mosquitto_passwd; it is not needed here: a missing file is created, and an "
            "existing one is never emptied",
        ),
        (["-b", "f", "u", "x"], "-b: a flag of mosquitto_passwd; here it is --batch PASSWORD, or better --stdin"),
        (["-D", "f", "u"], "-D: a flag of mosquitto_passwd; here it is --delete"),
        (["f", "u", "--del"], "unrecognized arguments: --del"),
    ],
)
def test_wrong_arguments(argv: list[str], what: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = passwd(argv)
    assert (code, capsys.readouterr().err) == (2, f"{PROG}: {what}; --help shows how to use it\n")


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    code = passwd(["--help"])
    assert (code, capsys.readouterr().out.split("\n", 1)[0][: 7 + len(PROG)]) == (0, f"usage: {PROG}")


# --- as a process ------------------------------------------------------------------------------------------------

COMMAND = "import sys; from broker.commands import table; sys.exit(table.run('passwd', sys.argv[1:], 'selectmq'))"
ROOT = str(Path(passwords.__file__).parents[2])


def test_on_a_terminal_nothing_typed_is_shown(path: str) -> None:
    master, slave = os.openpty()
    # The first terminal that the leader of a new session opens becomes its /dev/tty, where getpass asks.
    code = "import os; os.open(os.ttyname(0), os.O_RDWR); " + COMMAND
    argv = [sys.executable, "-c", code, path, "bob", *CHEAP]
    process = subprocess.Popen(argv, stdin=slave, stdout=slave, stderr=slave, start_new_session=True, cwd=ROOT)
    os.close(slave)
    try:
        seen = b""
        for prompt in (b"New password for bob: ", b"Once more, for bob: "):
            while not seen.endswith(prompt):
                seen += os.read(master, 1000)  # at the prompt, the echo is off already
            os.write(master, b"s3cret\n")
        while b"added" not in seen or not seen.endswith(b"\n"):
            seen += os.read(master, 1000)
        assert process.wait(timeout=20) == 0
    finally:
        process.kill()
        process.wait()
        os.close(master)
    assert seen.decode() == f"New password for bob: \r\nOnce more, for bob: \r\n{path}: added user 'bob'\r\n"
    assert Passwords.read(path).check("bob", b"s3cret") is True


def test_without_a_terminal_it_does_not_ask(path: str) -> None:
    argv, nothing = [sys.executable, "-c", COMMAND, path, "bob"], subprocess.DEVNULL
    done = subprocess.run(argv, stdin=nothing, capture_output=True, start_new_session=True, cwd=ROOT, text=True)
    why = "there is no terminal to ask for the password on: use --stdin"
    assert (done.returncode, done.stderr, os.path.exists(path)) == (1, f"{PROG}: {why}\n", False)
