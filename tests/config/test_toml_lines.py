"""On which line of a TOML text each key stands: by hand, and in generated documents."""

import tomllib
from collections.abc import Mapping

from hypothesis import given, settings
from hypothesis import strategies as st

from broker.config.toml_lines import Key, key_lines


def test_lines_of_keys() -> None:
    text = "\n".join([
        "# port = 1",
        '"port" = 2',
        'text = """',
        'port = 4 \\" [[listeners]]',
        '""\\""""',
        "'quoted key'.b = 1 # a = 3",
        'a . "b c" . d = [ # [',
        '  1, {x = 2, y.z = "]"}, # ,',
        "  [ '#', 'it',",
        "  ],",
        "]",
        "[[listeners]] # first",
        "port = 12",
        "[ listeners . client_ids ]",
        'ann = ["a"]',
        "[[listeners]]",
        "port = 1979-05-27 07:32:00",
        '  [listeners."sub"]',
        "  x = \'\'\'",
        "port = 20\'\'\'\'",
        "  [[listeners.deep]]",
        "  [[listeners.deep]]",
        "  z = {}",
        "[last]",
    ])  # fmt: skip
    lines = key_lines(text)
    assert lines == {
        ("port",): 2,
        ("text",): 3,
        ("quoted key",): 6,
        ("quoted key", "b"): 6,
        ("a",): 7,
        ("a", "b c"): 7,
        ("a", "b c", "d"): 7,
        ("a", "b c", "d", 0): 8,
        ("a", "b c", "d", 1): 8,
        ("a", "b c", "d", 1, "x"): 8,
        ("a", "b c", "d", 1, "y"): 8,
        ("a", "b c", "d", 1, "y", "z"): 8,
        ("a", "b c", "d", 2): 9,
        ("a", "b c", "d", 2, 0): 9,
        ("a", "b c", "d", 2, 1): 9,
        ("listeners",): 12,
        ("listeners", 0): 12,
        ("listeners", 0, "port"): 13,
        ("listeners", 0, "client_ids"): 14,
        ("listeners", 0, "client_ids", "ann"): 15,
        ("listeners", 0, "client_ids", "ann", 0): 15,
        ("listeners", 1): 16,
        ("listeners", 1, "port"): 17,
        ("listeners", 1, "sub"): 18,
        ("listeners", 1, "sub", "x"): 19,
        ("listeners", 1, "deep"): 21,
        ("listeners", 1, "deep", 0): 21,
        ("listeners", 1, "deep", 1): 22,
        ("listeners", 1, "deep", 1, "z"): 23,
        ("last",): 24,
    }
    assert set(lines) == paths(tomllib.loads(text))


def paths(value: object, path: Key = ()) -> set[Key]:
    """All keys and items of a parsed document."""
    found = {path} if path else set()
    if isinstance(value, Mapping):
        for name, inner in value.items():
            found |= paths(inner, (*path, name))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            found |= paths(inner, (*path, index))
    return found


def quoted(name: str) -> st.SearchStrategy[str]:
    return st.sampled_from([name, f'"{name}"', f"'{name}'", f' "\\u006b{name[1:]}"\t'])


SCALARS = st.sampled_from(
    ["1", "-1.5e3", "true", "nan", "1979-05-27 07:32:00", "07:32:00", '""', "''", '"a#]},\\"="', "'#[{\\'", '"\\\\"',
     '"""x\nk1 = 2\n\\""" ""\n"""', '"""""x"""""', '""""""', "'''\n[k]\n''x'''''", "''''''", '"""\\\n  k = 1"""']
)  # fmt: skip
BREAKS = st.sampled_from(["", " ", "\n", " # ]\n", "\n\n\t# k = [\n"])


@st.composite
def arrays(draw: st.DrawFn, inner: st.SearchStrategy[str]) -> str:
    items = draw(st.lists(inner, max_size=3))
    text = "[" + draw(BREAKS)
    for index, item in enumerate(items):
        comma = "," if index < len(items) - 1 or draw(st.booleans()) else ""
        text += item + draw(BREAKS) + comma + draw(BREAKS)
    return text + "]"


def inline_tables(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(inner, max_size=3).map(
        lambda items: "{ " + ", ".join(f"k{index}.x = {item}" for index, item in enumerate(items)) + " }"
    )


VALUES = st.recursive(SCALARS, lambda inner: st.one_of(arrays(inner), inline_tables(inner)), max_leaves=6)


@st.composite
def documents(draw: st.DrawFn) -> tuple[str, dict[Key, int]]:
    """A TOML text, and the lines of its statements as known from its making."""
    text = draw(st.sampled_from(["", "\n", "# k = 1\n\n"]))
    expected: dict[Key, int] = {}
    table: Key = ()
    tables = 0
    for index in range(draw(st.integers(0, 6))):
        name = f"k{index}"
        line = text.count("\n") + 1
        kind = draw(st.sampled_from(["pair", "pair", "dotted", "table", "array", "below"]))
        spelled = draw(quoted(name))
        if kind == "below" and tables:
            text += f"[arr. {spelled} ]"
            table = ("arr", tables - 1, name)
            expected[table] = line
        elif kind == "array":
            text += "[[ arr ]] # [x]"
            table = ("arr", tables)
            tables += 1
            expected[table] = line
        elif kind == "table":
            text += f"[{spelled}]"
            table = (name,)
            expected[table] = line
        elif kind == "dotted":
            text += f"  {spelled}.b . 'c d'= {draw(VALUES)}"
            expected[(*table, name)] = expected[(*table, name, "b")] = expected[(*table, name, "b", "c d")] = line
        else:
            text += f"{spelled} ={draw(VALUES)}  # k9 = 1"
            expected[(*table, name)] = line
        text += draw(st.sampled_from(["\n", "\n\n", "\n# [[arr]]\n"]))
    return text, expected


def test_what_is_not_toml_is_left_out() -> None:
    assert key_lines('a = 1\n"\\1" = 2\nb = 3') == {("a",): 1}
    assert key_lines("a = 1\nb 2\nc = 3") == {("a",): 1, ("b",): 2}


@settings(max_examples=300, deadline=None)
@given(documents())
def test_lines_of_keys_in_any_document(document: tuple[str, dict[Key, int]]) -> None:
    text, expected = document
    lines = key_lines(text)
    assert set(lines) == paths(tomllib.loads(text))
    assert {key: lines[key] for key in expected} == expected


@given(st.text(alphabet="k=[]{}\"'#., \n\\1", max_size=40))
def test_any_text_ends_without_an_exception(text: str) -> None:
    lines = key_lines(text)
    assert all(1 <= line <= text.count("\n") + 1 for line in lines.values())
    try:
        parsed_text = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    assert set(lines) == paths(parsed_text)
