"""The filters of an ACL as a tree, so that a decision does not depend on how many lines the file has.

Owns: the tree, and how the names of a client are put into its patterns. Must not know: the format of the file, who has
which tree (acl).

A tree holds the filters that grant, or those that deny. Each filter stands there once for all clients: a level of a
pattern that holds %u or %c is a branch of its own, and what it stands for is found out when a client comes by. So
nothing is made for a client that connects, and nothing is made anew for all of them when the file is read again.
"""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ..wire import topics
from ..wire.topics import Levels

#: What a filter grants, as bits. A filter that denies has both.
READ, WRITE = 1, 2

#: Nodes that a pattern with a name in it counts for: the name is put in.
TEMPLATE = 8

PLACEHOLDER = re.compile(r"%[uc]")
_WILDCARD = re.compile(r"[+#]")
_WIDENING = re.compile(r"[+#/]")


class Names(NamedTuple):
    """What a client is called."""

    username: str | None  #: None: it is anonymous
    client_id: str

    def put_into(self, template: str) -> str | None:
        """The level of a pattern with the names in it; None if it needs a user name, and there is none.

        All placeholders are replaced in one go: a user called "%c" does not become the Client Identifier.
        """
        if self.username is None and "%u" in template:
            return None
        return PLACEHOLDER.sub(lambda found: str(self.username) if found[0] == "%u" else self.client_id, template)

    def suit(self, template: str) -> bool:
        """Whether they may stand in a pattern that grants: none of those that it uses may reach further than a level
        that somebody has spelt out."""
        used = [
            name for placeholder, name in (("%u", self.username), ("%c", self.client_id)) if placeholder in template
        ]
        return not any(not name or _WIDENING.search(name) for name in used)


class _Node:
    """What may follow after some levels."""

    __slots__ = ("below", "end", "plus", "rest", "templates")

    def __init__(self) -> None:
        self.below: dict[bytes, _Node] = {}  # by level
        self.plus: _Node | None = None
        self.templates: dict[str, _Node] | None = None  # by level: those with names in them
        self.end = 0  # bits of the filter that ends here
        self.rest = 0  # bits of the filter that goes on with `#`


class Tree:
    """Filters that grant, or filters that deny."""

    __slots__ = ("_denying", "_root", "effort", "empty")

    def __init__(self, *, denying: bool) -> None:
        self._denying = denying
        self._root = _Node()
        self.empty = True
        self.effort = 0  #: nodes that were looked at, ever

    def add(self, topic_filter: str, bits: int, *, pattern: bool) -> None:
        """Enter a valid filter; in a `pattern`, %u and %c stand for names."""
        self.empty = False
        node = self._root
        for level in topics.split_filter(topic_filter.encode()):
            if level == b"#":
                node.rest |= bits
                return
            if level == b"+":
                below = node.plus = node.plus or _Node()
            elif pattern and PLACEHOLDER.search(text := level.decode()):
                if node.templates is None:
                    node.templates = {}
                below = node.templates.setdefault(text, _Node())
            else:
                below = node.below.setdefault(level, _Node())
            node = below
        node.end |= bits

    def bits(self, topic: Levels, names: Names) -> int:
        """What the filters that match a topic say together. A b"+" in place of a level is a name that no filter
        spells."""
        found = looked = 0
        depth = len(topic)
        waiting = [(self._root, 0)]
        while waiting:
            node, at = waiting.pop()
            looked += 1
            found |= node.rest
            if at == depth:
                found |= node.end
                continue
            level = topic[at]
            below = node.below.get(level)
            if below is not None:
                waiting.append((below, at + 1))
            if node.plus is not None and (at or not level.startswith(b"$")):  # [MQTT-4.7.2-1]
                waiting.append((node.plus, at + 1))
            if node.templates is not None:
                for filled, below in self._filled(node, at, names):
                    end = at + len(filled)
                    if topic[at:end] == filled or filled == (b"+",):
                        waiting.append((below, end))
        self.effort += looked
        return found

    def covered(self, parent: Levels, names: Names) -> tuple[set[int], int | None]:
        """Of the topics that begin with `parent` and go on with names that no filter spells: at which numbers of
        levels they match, and from which number on they all do (None: from none)."""
        depths: set[int] = set()
        deepest: int | None = None
        waiting = [(self._root, 0)]
        while waiting:
            node, at = waiting.pop()
            if node.rest and (deepest is None or at < deepest):
                deepest = at
            if at >= len(parent):
                if node.end:
                    depths.add(at)
                if node.plus is not None:
                    waiting.append((node.plus, at + 1))
            else:
                level = parent[at]
                below = node.below.get(level)
                if below is not None:
                    waiting.append((below, at + 1))
                if node.plus is not None and (at or not level.startswith(b"$")):
                    waiting.append((node.plus, at + 1))
            for filled, below in self._filled(node, at, names):
                end = at + len(filled)
                if filled == (b"+",) or (end <= len(parent) and parent[at:end] == filled):
                    waiting.append((below, end))
        return depths, deepest

    def common(self, wanted: Levels, bit: int, names: Names) -> Iterator[Levels]:
        """What each filter with this bit has in common with the filter `wanted`, which is as `topics.split_filter`
        gives it."""
        depth = len(wanted)
        deep = wanted[-1] == b"#"
        waiting: list[tuple[_Node, int, _Path]] = [(self._root, 0, None)]
        while waiting:
            node, at, path = waiting.pop()
            self.effort += 1
            in_rest = deep and at >= depth - 1
            if node.rest & bit:
                yield (*_levels(path), *(wanted[at:] if at < depth else (b"#",) * deep))
            if node.end & bit and (in_rest or at == depth):
                yield _levels(path)
            if in_rest or (at < depth and wanted[at] == b"+"):
                steps = self._steps(node, at, names)
            elif at < depth:
                steps = self._meeting(node, at, wanted[at], names)
            else:
                continue
            waiting += [(below, at + 1, (path, level)) for level, below in steps]

    def _steps(self, node: _Node, at: int, names: Names) -> Iterator[tuple[bytes, _Node]]:
        """All branches, for a wildcard: the first level of none of them may begin with `$` [MQTT-4.7.2-1]."""
        for level, below in node.below.items():
            if at or not level.startswith(b"$"):
                yield level, below
        for filled, below in self._filled(node, at, names):
            if at or not filled[0].startswith(b"$"):
                yield filled[0], below
        if node.plus is not None:
            yield b"+", node.plus

    def _meeting(self, node: _Node, at: int, level: bytes, names: Names) -> Iterator[tuple[bytes, _Node]]:
        """The branches that one level of a topic can take."""
        below = node.below.get(level)
        if below is not None:
            yield level, below
        for filled, below in self._filled(node, at, names):
            if filled == (level,):
                yield level, below
        if node.plus is not None and (at or not level.startswith(b"$")):
            yield level, node.plus

    def _filled(self, node: _Node, at: int, names: Names) -> Iterator[tuple[Levels, _Node]]:
        """The branches with names in them: the levels that they stand for, which are (b"+",) where it is any."""
        self.effort += len(node.templates or ()) * TEMPLATE
        for template, below in (node.templates or {}).items():
            text = names.put_into(template)
            if text is None:
                continue
            if self._denying:
                # No topic contains a wildcard [MQTT-4.7.1-1], so there is no text to deny: rather deny any name.
                yield ((b"+",) if _WILDCARD.search(text) else tuple(text.encode().split(b"/"))), below
            elif names.suit(template) and (at or not text.startswith("$") or template.startswith("$")):
                yield (text.encode(),), below


#: The levels that led to a node: those before the last one, and the last one.
_Path = tuple["_Path", bytes] | None


def _levels(path: _Path) -> Levels:
    levels = []
    while path is not None:
        path, level = path
        levels.append(level)
    return tuple(reversed(levels))


def is_covered(topic_filter: Levels, trees: Sequence[Tree], names: Names) -> bool:
    """Whether each topic that the filter matches is matched by at least one filter of the trees.

    Exact, though the topics are endless: a '+' stands for endlessly many names, of which the trees can spell only some.
    A name that none of them spells decides for all, and b"+" itself can play it, since no level of a tree equals it.
    So the filter comes down to one topic or, where it ends in '#', to one per number of levels.
    """
    if topic_filter[-1] != b"#":
        return any(tree.bits(topic_filter, names) for tree in trees)
    parent = topic_filter[:-1]
    depths: set[int] = set()
    deepest: int | None = None
    for tree in trees:
        some, all_from = tree.covered(parent, names)
        depths |= some
        if all_from is not None and (deepest is None or all_from < deepest):
            deepest = all_from
    return deepest is not None and all(depth in depths for depth in range(len(parent), deepest))
