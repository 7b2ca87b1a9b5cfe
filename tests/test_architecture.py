"""The rooms of the house: which may know which, and that the broker stands on the standard library alone.

A packet walks down through the rooms once and never back; this is what keeps it so. The imports are read, not run,
those within functions and those for type checkers included.

The two folders have two names: `broker` and `conformance` in a clone, `selectmq` and `selectmq_conformance` where they
are installed, since those two are names that a user may give to modules of his own. So all imports within them are
relative, and nothing in them spells its own name. The tests import `broker` and `conformance`, and only those: then
they run in a clone where nothing is installed, and mypy, coverage and a debugger show the file that one edits. What is
installed is tried from outside, by processes of its own (tests/test_installed.py); pytest is told not to load it
(`-p no:selectmq` in setup.cfg), or there would be two copies of each class in one test.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent

#: Standard library modules with which state could reach out of the room.
NOT_PURE = {
    "asyncio", "concurrent", "ctypes", "datetime", "io", "logging", "multiprocessing", "os", "pathlib", "queue",
    "random", "secrets", "select", "selectors", "shutil", "signal", "socket", "socketserver", "sqlite3", "ssl",
    "subprocess", "sys", "tempfile", "threading", "time", "uuid", "warnings",
}  # fmt: skip
#: All that the core may use: no clock, no chance, nothing from outside.
PURE = {
    "__future__", "abc", "collections", "dataclasses", "enum", "functools", "heapq", "itertools", "math",
    "typing", "weakref", "zlib",
}  # fmt: skip


FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


class Room(NamedTuple):
    """A package or module of the broker: what else of the broker it may import, and what of the standard library."""

    knows: tuple[str, ...]
    only: set[str] | None = None  #: nothing but these
    never: frozenset[str] = frozenset()
    extra: frozenset[str] = frozenset()  #: from outside of the standard library


#: The house. A module belongs to the entry with the longest name that fits.
ROOMS = {
    "broker.wire": Room((), never=frozenset(NOT_PURE)),
    "broker.core": Room(("broker.wire",), only=PURE),
    "broker.os_reasons": Room((), only={"errno", "os"}),
    "broker.storage": Room(("broker.core.ports", "broker.os_reasons", "broker.wire")),
    "broker.addresses": Room((), only={"ipaddress"}),
    "broker.auth": Room(("broker.addresses", "broker.core.ports", "broker.os_reasons", "broker.wire")),
    "broker.auth.argon2id": Room((), extra=frozenset({"argon2"})),
    "broker.net": Room(("broker.addresses", "broker.admission", "broker.os_reasons")),
    "broker.net.ws": Room(("broker.addresses", "broker.admission", "broker.net"), extra=frozenset({"websockets"})),
    "broker.net.ws_frames": Room((), extra=frozenset({"websockets"})),
    "broker.version": Room(()),
    "broker.logs": Room(("broker.log_thread",)),
    "broker.log_thread": Room(()),
    "broker.streams": Room(()),
    "broker.file_rights": Room(("broker.config.options", "broker.storage.place")),
    "broker.machine": Room(()),
    "broker.notify": Room(()),
    "broker.reload": Room(()),
    "broker.program": Room(()),
    "broker.signals": Room(()),
    "broker.lent_log": Room(("broker.logs",)),
    "broker.python_version": Room(("broker.program",)),
    "broker.config": Room(()),
    "broker.config.kinds": Room(()),
    "broker.config.toml_lines": Room(()),
    "broker.config.options": Room(("broker.config.kinds",)),
    "broker.config.mistakes": Room(()),
    "broker.config.sources": Room(("broker.config.toml_lines",)),
    "broker.config.mosquitto_names": Room(()),
    "broker.config.unknown": Room(("broker.config", "broker.program")),
    # A mosquitto.conf as a configuration of ours.
    "broker.config.mosquitto": Room(("broker.config.mosquitto_names", "broker.os_reasons")),
    "broker.config.conversion_block": Room(
        ("broker.config.kinds", "broker.config.mosquitto", "broker.config.mosquitto_names", "broker.config.options")
    ),
    "broker.config.conversion": Room(
        (
            "broker.config.conversion_block",
            "broker.config.kinds",
            "broker.config.mosquitto",
            "broker.config.options",
        )
    ),
    "broker.config.loading": Room(("broker.addresses", "broker.config", "broker.os_reasons")),
    # What a listener is made of, up to the client's Connection.
    "broker.admission": Room((), only=PURE),
    "broker.endpoints": Room(("broker.addresses", "broker.config", "broker.net.endpoints")),
    "broker.arrival": Room(
        (
            "broker.addresses",
            "broker.admission",
            "broker.auth.gatekeeper",
            "broker.config",
            "broker.core",
            "broker.net",
            "broker.wire",
        )
    ),
    "broker.entrance": Room(
        (
            "broker.admission",
            "broker.arrival",
            "broker.auth",
            "broker.config",
            "broker.core",
            "broker.net",
            "broker.wire.codes",
        )
    ),
    # The composition root is the one file that knows every part.
    "broker.server": Room(
        (
            "broker.addresses",
            "broker.admission",
            "broker.auth",
            "broker.config",
            "broker.core",
            "broker.endpoints",
            "broker.entrance",
            "broker.file_rights",
            "broker.logs",
            "broker.machine",
            "broker.net",
            "broker.notify",
            "broker.reload",
            "broker.storage",
            "broker.version",
            "broker.wire.codes",
        )
    ),
    # The commands besides serving. Each may ask the rooms it is about; none starts a broker.
    "broker.commands": Room(
        (
            "broker.auth",
            "broker.config",
            "broker.endpoints",
            "broker.entrance",
            "broker.file_rights",
            "broker.net",
            "broker.program",
            "broker.storage",
        )
    ),
    # Around it: how it is started.
    "broker.cli": Room(
        (
            "broker.admission",
            "broker.auth.errors",
            "broker.commands.check",
            "broker.commands.table",
            "broker.config",
            "broker.entrance",
            "broker.logs",
            "broker.notify",
            "broker.program",
            "broker.server",
            "broker.signals",
            "broker.streams",
            "broker.version",
        )
    ),
    "broker.__main__": Room(("broker.cli", "broker.signals")),
    "broker.embedded": Room(("broker.config", "broker.entrance", "broker.lent_log", "broker.logs", "broker.server")),
    "broker.pytest_plugin": Room(("broker.embedded",), extra=frozenset({"pytest"})),
    "broker": Room(("broker.embedded", "broker.python_version", "broker.version")),
}


#: The core from below. A module imports only what stands in lines above its own; what it has to know of those below
#: it sees through a Protocol of core.looking_back.
ORDER = (
    # Contracts.
    ("ports",),
    ("looking_back",),
    # Plain things.
    ("account", "authors", "limits", "slow_reading", "stats", "subscription", "timers"),
    ("aliases", "memory", "message_expiry"),
    ("clock", "complaints", "filter_tree", "identifiers", "pressure", "reasons", "retained", "route"),
    ("unanswered",),
    # What is held for clients.
    ("incoming", "outgoing", "router", "session", "waiting"),
    ("bridges", "denials", "journal", "lending", "quotas", "turn"),
    # Messages.
    ("by_options", "expiry", "perishing", "retaining", "tidying"),
    ("feeding",),
    ("publishing", "queue"),
    ("group_queue", "loading", "strategies", "wills"),
    ("group", "stored_queue"),
    ("queue5", "shares"),
    ("endings", "queues"),
    # Subscriptions and sessions, and all of it together.
    ("subscriptions",),
    ("sessions",),
    ("exchange",),
    # Clients that are connected.
    ("intake", "sys_topics"),
    ("connection",),
    ("admission5", "authentication", "handlers", "trace"),
    ("publish5",),
    ("handlers5",),
    ("admission",),
)
HEIGHT = {f"broker.core.{module}": height for height, layer in enumerate(ORDER) for module in layer}

#: Lines that a function may have, without its docstring; and a file of the core.
LONGEST_FUNCTION = 60
LONGEST_FILE = 400


class Import(NamedTuple):
    module: str  #: who imports
    name: str  #: what: the most exact module that is meant
    line: int
    runs: bool  #: when the module is loaded: neither within a function nor for type checkers only

    def __str__(self) -> str:
        return f"{self.module}:{self.line} imports {self.name}"


@cache
def modules(package: str) -> dict[str, Path]:
    found = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def imports(package: str) -> tuple[Import, ...]:
    return tuple(one for module, path in modules(package).items() for one in read(module, path.read_text(), package))


def read(module: str, source: str, package: str) -> Iterator[Import]:
    """All imports of a module."""
    known = modules(package)

    def walk(node: ast.AST, runs: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                for alias in child.names:
                    yield Import(module, alias.name, child.lineno, runs)
            elif isinstance(child, ast.ImportFrom):
                base = child.module or ""
                if child.level:
                    above = (module if known[module].name == "__init__.py" else module.rpartition(".")[0]).split(".")
                    base = ".".join(filter(None, [*above[: len(above) - child.level + 1], base]))
                for alias in child.names:
                    exact = f"{base}.{alias.name}"
                    yield Import(module, exact if exact in known else base, child.lineno, runs)
            elif isinstance(child, FUNCTIONS) or is_for_type_checkers(child):
                yield from walk(child, False)
            else:
                yield from walk(child, runs)

    yield from walk(ast.parse(source), True)


def is_for_type_checkers(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def room_of(module: str) -> str:
    if module == "broker":
        return module
    fitting = [room for room in ROOMS if room != "broker" and within(module, room)]
    assert fitting, f"{module} stands in no room: enter it in ROOMS"
    return max(fitting, key=len)


def violations(found: Iterator[Import] | tuple[Import, ...]) -> list[str]:
    wrong = []
    for one in found:
        name = room_of(one.module)
        room = ROOMS[name]
        top = one.name.partition(".")[0]
        if top == "broker":
            fine = (name != "broker" and within(one.name, name)) or any(within(one.name, ok) for ok in room.knows)
        elif top in sys.stdlib_module_names:
            fine = top not in room.never and (room.only is None or top in room.only)
        else:
            fine = top in room.extra
        if not fine:
            wrong.append(str(one))
    return wrong


# --- the broker --------------------------------------------------------------------------------------------------


def test_every_module_of_the_broker_keeps_to_its_room() -> None:
    assert violations(imports("broker")) == []


def test_every_room_is_there() -> None:
    empty = [room for room in ROOMS if not any(within(module, room) for module in modules("broker"))]
    assert empty == []


def test_packages_hold_nothing_but_their_docstring() -> None:
    """Else importing one module of a room would bring in others."""
    full = [
        module
        for module, path in modules("broker").items()
        if path.name == "__init__.py" and module != "broker" and len(ast.parse(path.read_text()).body) != 1
    ]
    assert full == []


@pytest.mark.parametrize(
    ("module", "source", "wrong"),
    [
        ("broker.wire.codes", "import socket", True),
        ("broker.wire.codes", "from time import monotonic", True),
        ("broker.wire.codes", "import concurrent.futures", True),
        ("broker.wire.codes", "from broker.core import ports", True),
        ("broker.wire.codes", "from broker.wire import topics", False),
        ("broker.wire.codes", "from . import topics", False),
        ("broker.wire.codes", "from ..core.ports import Store", True),
        ("broker.wire.codes", "import struct", False),
        ("broker.core.timers", "import time", True),
        ("broker.core.timers", "def f():\n    import time", True),
        ("broker.core.timers", "if TYPE_CHECKING:\n    from broker.net.loop import Loop", True),
        ("broker.core.timers", "from collections.abc import Callable", False),
        ("broker.core.timers", "from broker.wire import encoder", False),
        ("broker.core.timers", "from ..wire import encoder", False),
        ("broker.core.timers", "from broker.storage.memory import MemoryStore", True),
        ("broker.storage.memory", "from broker.core.ports import Batch", False),
        ("broker.storage.memory", "from broker.core import ports", False),
        ("broker.storage.memory", "from broker.core import queue", True),
        ("broker.storage.memory", "import redis", True),
        ("broker.auth.acl", "from broker.core.session import Session", True),
        ("broker.auth.acl", "from broker import server", True),
        ("broker.net.loop", "from broker.wire import codes", True),
        ("broker.net.loop", "import ssl", False),
        ("broker.net.loop", "import websockets", True),
        ("broker.net.ws", "from websockets.server import ServerProtocol", False),
        ("broker.net.ws", "from broker.net.transport import Client", False),
        ("broker.net.ws", "from broker.wire import codes", True),
        ("broker.server", "from websockets.server import ServerProtocol", True),
        ("broker.server", "from broker.net.loop import Loop", False),
        ("broker.server", "from broker.cli import main", True),
        ("broker.pytest_plugin", "import pytest", False),
        ("broker.server", "import pytest", True),
        ("broker", "from broker.server import Server", True),
    ],
)
def test_the_reader_of_imports_sees_what_is_wrong(module: str, source: str, wrong: bool) -> None:
    assert bool(violations(read(module, source, "broker"))) is wrong


def upwards(found: Iterable[Import]) -> list[str]:
    """Imports within the core that do not go down."""
    return [
        str(one)
        for one in found
        if one.module in HEIGHT and within(one.name, "broker.core") and not HEIGHT[one.name] < HEIGHT[one.module]
    ]


def test_imports_within_the_core_run_one_way() -> None:
    """Those for type checkers, too."""
    assert upwards(imports("broker")) == []


def test_each_module_of_the_core_has_its_place_in_the_order() -> None:
    core = [module for module in modules("broker") if module.startswith("broker.core.")]
    assert sorted(module for layer in ORDER for module in layer) == sorted(one.rpartition(".")[2] for one in core)


@pytest.mark.parametrize(
    ("module", "source", "wrong"),
    [
        ("broker.core.queue", "from .exchange import Exchange", True),
        ("broker.core.queue", "from . import exchange", True),
        ("broker.core.queue", "if TYPE_CHECKING:\n    from .connection import Connection", True),
        ("broker.core.queue", "def f():\n    from .stored_queue import StoredQueue", True),
        ("broker.core.queue", "from .publishing import Publishing", True),
        ("broker.core.queue", "from .session import Session", False),
        ("broker.core.queue", "from .looking_back import Client", False),
        ("broker.core.queue", "from ..wire.message import Message", False),
        ("broker.server", "from .core.exchange import Exchange", False),
    ],
)
def test_an_import_upwards_is_found(module: str, source: str, wrong: bool) -> None:
    assert bool(upwards(read(module, source, "broker"))) is wrong


def test_nothing_of_a_protocol_is_called_but_on_who_implements_it() -> None:
    """`Client.flush(one)` would pass all checks, and do nothing."""
    protocols = {
        node.name
        for path in modules("broker").values()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef) and any(ast.unparse(base).startswith("Protocol") for base in node.bases)
    }
    assert {"Client", "Store"} <= protocols
    called = [
        f"{module}:{node.lineno} {ast.unparse(node)}"
        for module, path in modules("broker").items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in protocols
    ]
    assert called == []


def functions(package: str) -> Iterator[tuple[str, int]]:
    """All of them, and how many lines they have besides their docstring."""
    for module, path in modules(package).items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                first = node.body[0]
                said = ast.get_docstring(node) is not None
                docstring = (first.end_lineno or 0) - first.lineno + 1 if said else 0
                yield f"{module}.{node.name}", (node.end_lineno or 0) - node.lineno + 1 - docstring


@pytest.mark.parametrize("package", ["broker", "conformance"])
def test_no_function_is_longer_than_one_can_take_in(package: str) -> None:
    lengths = list(functions(package))
    assert len(lengths) > 500
    assert [one for one in lengths if one[1] > LONGEST_FUNCTION] == []


def test_no_file_of_the_core_needs_a_table_of_contents() -> None:
    lengths = {module: len(path.read_text().splitlines()) for module, path in modules("broker").items()}
    assert [one for one in lengths.items() if within(one[0], "broker.core") and one[1] > LONGEST_FILE] == []


def cycles(edges: dict[str, set[str]]) -> list[list[str]]:
    """Modules that import each other in a ring."""
    found = []
    done: set[str] = set()

    def visit(module: str, path: list[str]) -> None:
        if module in path:
            found.append([*path[path.index(module) :], module])
        elif module not in done:
            for other in sorted(edges.get(module, ())):
                visit(other, [*path, module])
            done.add(module)

    for module in sorted(edges):
        visit(module, [])
    return found


@pytest.mark.parametrize("package", ["broker", "conformance"])
def test_no_modules_import_each_other_when_they_are_loaded(package: str) -> None:
    edges: dict[str, set[str]] = {module: set() for module in modules(package)}
    for one in imports(package):
        # A module is loaded through the packages it stands in; the root is left out, as it is loaded before all.
        if one.runs and one.name in edges and one.name not in (one.module, package):
            edges[one.module].add(one.name)
    assert cycles(edges) == []


def test_a_ring_is_found() -> None:
    assert cycles({"a": {"b"}, "b": {"c", "d"}, "c": {"b"}, "d": set()}) == [["b", "c", "b"]]


def loaded_by(statement: str) -> set[str]:
    """Modules that a fresh interpreter has loaded after this, those it begins with aside; without site-packages."""
    script = f"""
import sys
before = set(sys.modules)
sys.path.insert(0, {str(ROOT)!r})
{statement}
print(*sorted(set(sys.modules) - before))
"""
    run = subprocess.run([sys.executable, "-S", "-E", "-s", "-c", script], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


@pytest.mark.parametrize(
    "statement", ["from broker import Broker", "import broker.cli, broker.server, broker.__main__"]
)
def test_a_fresh_interpreter_loads_the_standard_library_only(statement: str) -> None:
    loaded = loaded_by(statement)
    assert "broker.server" in loaded
    assert {name for name in loaded if name.partition(".")[0] not in {*sys.stdlib_module_names, "broker"}} == set()


@pytest.mark.parametrize("statement", ["import broker", "import broker.__main__"])
def test_what_every_pytest_and_the_program_load_first_is_little(statement: str) -> None:
    """pytest loads the package for its plugin, whether a test wants a broker or not; the program must have its signal
    handlers before it loads the rest."""
    ours = {name for name in loaded_by(statement) if name.partition(".")[0] == "broker"}
    small = {"broker.version", "broker.program", "broker.python_version", "broker.signals"}
    assert ours <= {"broker", "broker.__main__"} | small


def test_each_module_can_be_loaded_first() -> None:
    """Whatever the order, nothing is missing."""
    names = sorted(module for module in modules("broker") if not ROOMS[room_of(module)].extra)
    assert "broker.core.queue" in names
    loaded_by(f"""
import importlib
for name in {names!r}:
    for other in [other for other in sys.modules if other.partition(".")[0] == "broker"]:
        del sys.modules[other]
    importlib.import_module(name)
""")


# --- the two products --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("package", "other"), [("conformance", "broker"), ("broker", "conformance")])
def test_the_two_products_share_nothing(package: str, other: str) -> None:
    """One misreading must not pass both."""
    assert len(imports(package)) > 50
    assert [str(one) for one in imports(package) if one.name.partition(".")[0] == other] == []


@pytest.mark.parametrize("package", ["broker", "conformance"])
def test_a_package_does_not_import_itself_by_name(package: str) -> None:
    """Where it is installed, it has another one."""
    absolute = [
        f"{module}:{node.lineno}"
        for module, path in modules(package).items()
        for node in ast.walk(ast.parse(path.read_text()))
        if (isinstance(node, ast.ImportFrom) and not node.level and within(node.module or "", package))
        or (isinstance(node, ast.Import) and any(within(alias.name, package) for alias in node.names))
    ]
    assert absolute == []


def test_the_tests_import_the_folders_and_not_what_is_installed() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in (ROOT / "tests").rglob("*.py")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if re.match(r"(from|import) selectmq", line)
    ]
    assert found == []


#: Imports the tests of the suite: pytest has found them, and a folder can be read as well as a name.
COMPUTES = {"conformance.plugin"}


@pytest.mark.parametrize("package", ["broker", "conformance"])
def test_nothing_is_imported_by_a_name_that_is_computed(package: str) -> None:
    """It could not be read here."""
    hidden = [
        f"{module}:{node.lineno}"
        for module, path in modules(package).items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func).rpartition(".")[2] in ("__import__", "import_module")
        and not (node.args and isinstance(node.args[0], ast.Constant))
        and module not in COMPUTES
    ]
    assert hidden == []


# --- statements --------------------------------------------------------------------------------------------------


def statements_named(sign: str) -> list[tuple[str, str]]:
    """Where a label stands that begins with this sign, and the rest of it."""
    return [
        (f"{path.relative_to(ROOT)}:{number}", label)
        for path in (ROOT / "broker").rglob("*.py")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        for label in re.findall(rf"\b{sign}-([\w.-]*\d)", line)
    ]


@pytest.mark.parametrize(("sign", "version"), [("MQTT", "3.1.1"), ("MQTT5", "5.0")])
def test_every_statement_that_the_code_names_is_in_the_catalogue(sign: str, version: str) -> None:
    """A label with a slip of the pen would send the reader nowhere. The same label may mean another thing in the other
    version."""
    catalogue = (ROOT / "conformance" / "statements" / f"mqtt-{version}.tsv").read_text().splitlines()
    known = {line.split("\t")[0] for line in catalogue[1:]}
    named = statements_named(sign)
    assert (len(known) > 100, len(named) > 50) == (True, True)
    assert [one for one in named if f"MQTT-{one[1]}" not in known] == []


def test_every_statement_that_is_named_stands_in_brackets() -> None:
    """So that it can be searched for."""
    loose = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in (ROOT / "broker").rglob("*.py")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if re.search(r"(?<!\[)\bMQTT5?-\d", line)
    ]
    assert loose == []
