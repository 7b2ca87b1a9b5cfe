"""What is said about a name that is no option: a key of the file, a keyword argument, a flag, a word.

Owns: the search for what was meant. Must not know: where a name was found, nor what an option does.
"""

import difflib
from collections.abc import Container, Iterable

from .. import program
from . import mosquitto_names
from .kinds import Boolean
from .options import OPTIONS

#: Words that stand in so many names that they tell nothing.
_COMMON = {"max", "client", "user", "file", "no"}


def plain(name: str) -> str:
    """A name as the file spells it: flags have - for _."""
    return name.lower().replace("-", "_")


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """The names that may have been meant, the nearest first: three at the most.

    Spelled nearly so; and if there is none, those that share a word.
    """
    names = list(known)
    if near := difflib.get_close_matches(name, names, 1, 0.7):
        return near
    words = set(name.split("_")) - _COMMON
    return [other for other in names if words & set(other.split("_"))][:3]


def meant_by(name: str) -> list[str]:
    """The options that somebody may have meant who wrote this."""
    counterpart = mosquitto_names.counterpart(plain(name))
    return [*counterpart.options] if counterpart else nearest(plain(name), OPTIONS)


def about_key(name: str, known: Iterable[str], *, top_level: Container[str] = ()) -> str:
    """What to say behind "unknown key NAME"; `known` are the names that may be meant, and those of them that could not
    stand in its place belong at the `top_level`."""
    word = plain(name)
    known = list(known)
    if word not in known and (answer := mosquitto_names.answer(word)):
        return f"{', ' if answer.startswith('a name of') else '; '}{answer}"
    if near := nearest(word, known):
        return f"; did you mean {_alternatives(near)}{' at the top level' if near[0] in top_level else ''}?"
    if similar := difflib.get_close_matches(word, mosquitto_names.MOSQUITTO, 1, 0.8):
        counterpart = mosquitto_names.MOSQUITTO[similar[0]]
        return f"; '{similar[0]}' is a name of Mosquitto's; {counterpart.advice}"
    return f"; `{program.name()} options` lists all options"


def about_mosquitto_conf() -> str:
    """What to say behind a mistake in a file that is a mosquitto.conf."""
    return f"; it looks like a mosquitto.conf: `{program.name()} convert FILE` translates it"


#: Flags of mosquitto(8), and the names that have answers.
_SHORT = {"-d": "daemon", "-v": "verbose", "-t": "test_config"}


def about_flag(flag: str, others: Iterable[str] = ()) -> str:
    """The whole message about a flag that there is not; `others` are flags that are not options ("--check")."""
    word = flag.partition("=")[0]
    name = _SHORT.get(word) or plain(word.lstrip("-"))
    if name in OPTIONS and not OPTIONS[name].has_flag:
        return f"{word}: has no flag; set '{name}' in the configuration file"
    flags = [row.flag for row in OPTIONS.values() if row.flag is not None] + list(others)
    flags += [f"--no-{row.flag[2:]}" for row in OPTIONS.values() if row.flag and isinstance(row.kind, Boolean)]
    known = {plain(flag.lstrip("-")): flag for flag in flags}
    if len(name) > 1 and (answer := mosquitto_names.answer(name)):
        return f"{word}: unknown flag{', ' if answer.startswith('a name of') else '; '}{answer}"
    near = nearest(name, known)
    if near:
        return f"{word}: unknown flag; did you mean {_alternatives(known[one] for one in near)}?"
    return f"{word}: unknown flag; --help shows all flags, and `{program.name()} options` all options"


def about_word(word: str, commands: Iterable[str]) -> str:
    """The whole message about an argument that is no flag."""
    commands = list(commands)
    if word in commands:
        return f"{word}: a command comes first, before all flags"
    if meant := difflib.get_close_matches(word, commands, 1, 0.7):
        return f"{word}: unknown command; did you mean '{meant[0]}'?"
    return f"{word}: unexpected argument; a configuration file is given as -c FILE"


def _alternatives(names: Iterable[str]) -> str:
    return " or ".join(f"'{name}'" for name in names)
