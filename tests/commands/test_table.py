"""The commands besides serving: `selectmq --help` names them, each has help, and a slip gets a hint."""

import pytest

from broker.cli import main
from broker.commands.table import COMMANDS


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    out = capsys.readouterr().out
    lines = out[out.index("commands:\n") :].split("\n\n")[0].splitlines()
    assert (caught.value.code, [line.split()[0] for line in lines[1:]]) == (0, list(COMMANDS))
    assert [line for line in lines if len(line) > 80] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = main([name, "--help"])
    out, err = capsys.readouterr()
    assert (code, err) == (0, "")
    assert out.startswith(f"usage: python3 -m broker {name} ")


@pytest.mark.parametrize("name", COMMANDS)
def test_a_wrong_argument_of_a_command_is_one_line(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = main([name, "--no-such-flag"])
    out, err = capsys.readouterr()
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"python3 -m broker {name}: ")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["pasword", "f", "ann"], "pasword: unknown command; did you mean 'passwd'?"),
        (["--memory", "passwd"], "passwd: a command comes first, before all flags"),
        (["broker.toml"], "broker.toml: unexpected argument; a configuration file is given as -c FILE"),
    ],
)
def test_a_word_that_is_no_command(argv: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert (main(argv), capsys.readouterr().err) == (2, f"python3 -m broker: {said}\n")
