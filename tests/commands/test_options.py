"""The options command: everything in a terminal of 80 columns, one option in full, a hint for a slip."""

import tomllib

import pytest

from broker.commands import table
from broker.config.options import OPTIONS
from tests.broker_process import run_command_line

PROG = "selectmq options"


@pytest.fixture(autouse=True)
def eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def options(*argv: str) -> int:
    return table.run("options", list(argv), "selectmq")


def test_all_options_are_shown_in_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    assert options() == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if len(line) > 80] == []
    named = [line[2:].split()[0] for line in lines if line[:2] in ("  ", "* ") and line[2:3] not in ("", " ")]
    assert named == list(OPTIONS)


def test_a_narrow_terminal_is_not_overrun(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    assert options() == 0
    longest = max(len(word) for row in OPTIONS.values() for word in row.help.split())
    assert max(map(len, capsys.readouterr().out.splitlines())) <= max(50, 24 + longest)


def test_what_a_reload_takes_over_is_marked(capsys: pytest.CaptureFixture[str]) -> None:
    options()
    lines = capsys.readouterr().out.splitlines()
    marked = {line[2:].split()[0] for line in lines if line.startswith("* ")}
    assert marked == {name for name, row in OPTIONS.items() if row.reload}


@pytest.mark.parametrize("name", OPTIONS)
def test_one_option_in_full(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert options(name) == 0
    text = capsys.readouterr().out
    row = OPTIONS[name]
    lines = text.splitlines()
    facts = {line[2:15].strip(): line[15:] for line in lines if line.startswith("  ") and line[2] != " "}
    assert lines[0].startswith(f"{name}: ")
    assert [line for line in lines if len(line) > 80] == []
    # What it says of the file and of the flag can be pasted.
    (value,) = tomllib.loads(facts["in the file"]).values()
    row.kind.read(value)
    assert facts["as a flag"].startswith(row.flags[0] if row.flags else "none")
    assert ("reload" in facts["a change"]) is row.reload


def test_a_flag_s_spelling_is_understood(capsys: pytest.CaptureFixture[str]) -> None:
    assert options("max-inflight") == 0
    assert capsys.readouterr().out == (
        "max_inflight: messages of QoS 1 and 2 in flight to a client\n"
        "  allowed      an integer from 1 to 65535\n"
        "  default      100\n"
        "  in the file  max_inflight = 100\n"
        "  as a flag    --max-inflight N\n"
        "  place        the top level\n"
        "  a change     takes effect at a reload (SIGHUP)\n"
    )


def test_listeners_are_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert options("listeners") == 0
    assert "[[listeners]]" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("max_inflght", "there is no option 'max_inflght'; did you mean 'max_inflight'?"),
        ("inflight", "there is no option 'inflight'; did you mean 'max_inflight'?"),
        ("acl_file", "there is no option 'acl_file', a name of Mosquitto's; here it is 'acl'"),
    ],
)
def test_a_near_miss(name: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert (options(name), capsys.readouterr()) == (2, ("", f"{PROG}: {said}\n"))


def test_every_option_is_in_the_help_of_the_broker() -> None:
    """As a flag, or by name."""
    text = run_command_line("--help").stdout
    assert [name for name, row in OPTIONS.items() if (row.flag or name) not in text] == []
