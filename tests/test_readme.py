"""The README says what is true: what can be derived from the code is compared with it."""

import re
from pathlib import Path

from broker.config.options import OPTIONS, markdown_table

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_the_table_of_options_is_the_code_s_own() -> None:
    """On a failure: python -c 'from broker.config.options import markdown_table; print(markdown_table())'."""
    begin, end = "markdown_table() -->\n", "<!-- end of options -->"
    assert README.split(begin)[1].split(end)[0] == markdown_table()


def test_every_limit_is_explained() -> None:
    section = README.split("### What happens at each limit")[1].split("## Operation")[0]
    explained = set(re.findall(r"`(\w+)`", section))
    limits = {name for name in OPTIONS if name.startswith("max_")}
    assert limits - explained == set()


def test_every_flag_that_it_names_exists() -> None:
    others = {"--help", "--check", "--quick", "--only", "--profile"}
    flags = {flag for row in OPTIONS.values() for flag in row.flags}
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", README.split("All options")[0]))
    assert named - flags - others == set()
