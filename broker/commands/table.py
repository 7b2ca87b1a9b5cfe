"""The table of commands: each one's name, the line about it in `selectmq --help`, and the function that runs it.

A new command is a module in this room with a function `run(argv, prog)`, and a row here. `argv` are the arguments
behind the command's name, `prog` is what the user typed up to it ("selectmq passwd"); what comes back is the exit code.

Owns: which commands there are, and how one is called. Must not know: what they do.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from . import check, convert, options, passwd


class Command(NamedTuple):
    summary: str  #: one line, without a full stop
    run: Callable[[list[str], str], int]


COMMANDS: Mapping[str, Command] = {
    "check": Command("list all mistakes in a configuration and its files", check.run),
    "convert": Command("print a mosquitto.conf as a configuration file for this broker", convert.run),
    "options": Command("show all options, or one of them in full", options.run),
    "passwd": Command("add, change and delete the users of a password file", passwd.run),
}


def run(name: str, argv: list[str], program: str) -> int:
    """Run a command, and return its exit code. `program` is what the user typed before the command's name."""
    try:
        return COMMANDS[name].run(argv, f"{program} {name}")
    except SystemExit as stop:  # argparse has shown the help (0), or has told the user what is wrong (2)
        return stop.code if isinstance(stop.code, int) else 0


def overview(program: str) -> str:
    """The commands for `--help`, one a line."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(["commands:", *lines, "", f"`{program} COMMAND --help` shows how to use a command."])
