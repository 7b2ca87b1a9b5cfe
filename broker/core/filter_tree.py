"""Topic Filters with wildcards, in a tree by level.

Owns: the tree, and whose filters a topic matches. Must not know: sessions, routes.

A match visits only the branches that the topic can reach; so it does not matter how many others there are.
"""

from __future__ import annotations

from collections.abc import Iterator

from .account import BRANCHES, Account
from .looking_back import Holder

#: Branches of a step, where a match takes so long that it is done in steps.
STEP = 2_000


class Node:
    """One level of the tree of filters with wildcards."""

    __slots__ = ("children", "here", "rest")

    def __init__(self) -> None:
        self.children: dict[bytes, Node] = {}  # by level; `+` is one of them
        self.here: dict[Holder, int] | None = None  # filters that end here
        self.rest: dict[Holder, int] | None = None  # filters that go on with `#`


class FilterTree:
    """Who holds which filter, with the options of each."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self.root = Node()

    @property
    def empty(self) -> bool:
        return not self.root.children and self.root.rest is None

    def place(self, topic_filter: bytes) -> dict[Holder, int]:
        """Where the holders of a filter with wildcards are kept; made if need be."""
        node = self.root
        for level in topic_filter.split(b"/"):
            if level == b"#":
                if node.rest is None:
                    node.rest = {}
                return node.rest
            child = node.children.get(level)
            if child is None:
                child = node.children[level] = Node()
            node = child
        if node.here is None:
            node.here = {}
        return node.here

    def match(self, topic: bytes, found: list[dict[Holder, int]]) -> Iterator[None]:
        """Find the holders of filters with wildcards. It yields after many branches."""
        nodes = [self.root]
        looked = 0
        # A filter that begins with a wildcard has no part in topics that begin with `$` [MQTT-4.7.2-1].
        wildcard = not topic.startswith(b"$")
        for level in topic.split(b"/"):
            below: list[Node] = []
            for number, node in enumerate(nodes, 1):
                if number % STEP == 0:
                    self._account.spent += STEP // BRANCHES
                    looked -= STEP
                    yield
                if wildcard and node.rest is not None:
                    found.append(node.rest)
                child = node.children.get(level)
                if child is not None:
                    below.append(child)
                if wildcard:
                    child = node.children.get(b"+")
                    if child is not None:
                        below.append(child)
            looked += len(below)
            if not below:
                break
            nodes = below
            wildcard = True
        self._account.spent += max(0, looked) // BRANCHES
        if not below:
            return
        for node in nodes:
            if node.here is not None:
                found.append(node.here)
            if node.rest is not None:  # `sport/#` matches `sport` too
                found.append(node.rest)

    def remove(self, holder: Holder, topic_filter: bytes) -> bool:
        levels = topic_filter.split(b"/")
        rest = levels[-1] == b"#"
        if rest:
            levels.pop()
        node = self.root
        path: list[tuple[Node, bytes]] = []
        for level in levels:
            child = node.children.get(level)
            if child is None:
                return False
            path.append((node, level))
            node = child
        holders = node.rest if rest else node.here
        if holders is None or holders.pop(holder, None) is None:
            return False
        if not holders:
            if rest:
                node.rest = None
            else:
                node.here = None
        # Branches that nobody needs any more go, from the leaf upwards.
        while path and not node.children and node.here is None and node.rest is None:
            node, level = path.pop()
            del node.children[level]
        return True
