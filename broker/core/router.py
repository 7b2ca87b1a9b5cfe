"""Who gets a message: Topic Filters, the sessions behind them, and the answer per topic, remembered.

Owns: the subscriptions by filter, and the routes made from them. Must not know: connections, queues, the network.

Filters without a wildcard stand in one dict. Those with a wildcard stand in a tree by level, in which a match visits
only the branches that the topic can reach; so it does not matter how many others there are. What was matched is
remembered per topic until a subscription or a right changes, which is what makes a publish cheap.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from ..wire.codes import ProtocolError
from ..wire.packets import check_topic_name
from .account import BRANCHES, DELIVERIES, Account
from .limits import Limits
from .subscription import QOS, together

if TYPE_CHECKING:
    from .session import Session

#: How many topics are remembered at the most, beside one for each subscription: some megabytes.
MAX_ROUTES = 10_000
#: How many sessions may stand in what is remembered, each as often as it does.
MAX_TARGETS = 1_000_000
#: Sessions in a route that may be that of many topics: it has to be looked up by all of them.
MOST_SHARED = 8
#: Deliveries of one message that cost no more than the packet itself.
FEW = 32
#: Bytes of the longest topic that is remembered: anybody can publish to as many as they like.
LONGEST_REMEMBERED = 500
#: Units of work that it takes to ask for the rights of one session.
ASKED = 6
#: Filters with wildcards above which a match may take so long that it is done in steps; and branches of a step.
MANY_WILDCARDS = 1_000
STEP = 2_000
#: A match that others' subscriptions get in the way of begins again so often.
AGAIN = 3
#: Units of work that a route takes to be made, with whatever has to be done anew for a topic.
FINDING = 6
#: Letters of a topic that are a unit more: it is checked, and cut into levels.
LETTERS = 32
#: Bytes of memory that a subscription takes, beside its filter, and a level of a filter with wildcards: measured in
#: CPython 3.11 with filters that share no level.
SUBSCRIPTION = 320
LEVEL = 250


class Route:
    """The sessions that get what is published to a topic, sorted by the QoS that they were granted.

    `plain`: any client that has the right may publish to the topic, and a QoS is all that the subscriptions ask for.
    """

    __slots__ = (
        "__weakref__",
        "crowd",
        "durable",
        "granted0",
        "granted1",
        "granted2",
        "marked",
        "options",
        "plain",
        "reserved",
        "sessions",
        "size",
    )  # fmt: skip

    def __init__(self, targets: dict[Session, int], reserved: bool) -> None:
        self.sessions = list(targets)
        self.size = len(targets)
        self.granted0: Sequence[Session] = ()
        self.granted1: Sequence[Session] = ()
        self.granted2: Sequence[Session] = ()
        #: Is any of those that get QoS 1 or 2 persistent, so that the publisher's acknowledgement waits for the store?
        self.durable = False
        #: What each subscription asks for, if any asks for more than a QoS.
        self.options: Mapping[Session, int] | None = None
        different = set(targets.values())
        for qos in {options & QOS for options in different}:
            granted = [session for session in self.sessions if targets[session] & QOS == qos]
            if qos == 0:
                self.granted0 = granted
                continue
            if qos == 1:
                self.granted1 = granted
            else:
                self.granted2 = granted
            self.durable = self.durable or any(session.store_id for session in granted)
        #: Is it the broker's own topic, to which no client may publish?
        self.reserved = reserved
        if max(different, default=0) > QOS:
            self.options = dict(targets)
        #: May what is published to it take the quick way, on which nothing is charged but the packet?
        self.plain = not reserved and self.options is None and self.size <= FEW
        #: The same, but that there are so many that their deliveries are charged at once?
        self.crowd = not reserved and self.options is None and self.size > FEW
        #: The turn in which its connections were last noted for flushing.
        self.marked = -1


class _Node:
    """One level of the tree of filters with wildcards."""

    __slots__ = ("children", "here", "rest")

    def __init__(self) -> None:
        self.children: dict[bytes, _Node] = {}  # by level; `+` is one of them
        self.here: dict[Session, int] | None = None  # filters that end here
        self.rest: dict[Session, int] | None = None  # filters that go on with `#`


class Router:
    """Subscriptions, and the routes that follow from them."""

    def __init__(self, limits: Limits, account: Account | None = None) -> None:
        self._limits = limits
        self._account = account or Account()
        self._exact: dict[bytes, dict[Session, int]] = {}
        self._tree = _Node()
        self._routes: dict[bytes, Route] = {}
        # Most topics go where others go. Each key holds what its route does: (session, options), and if it is reserved.
        self._shared: WeakValueDictionary[tuple[object, ...], Route] = WeakValueDictionary()
        self._targets = 0  # sessions in the routes, or a little more
        self._changes = 0  # of subscriptions with wildcards, ever
        self.count = 0  #: subscriptions in all
        self.wildcards = 0  #: those with wildcards
        # What `route_in_steps` has found in the tree: a topic, what had changed by then, who gets it.
        self._ahead: tuple[bytes, int, dict[Session, int]] | None = None
        #: `known(topic)` is the route if it is remembered; such a topic is known to be a valid Topic Name.
        self.known = self._routes.get

    def subscribe(self, session: Session, topic_filter: bytes, options: int) -> bool:
        """Enter a subscription, or replace the one with the same filter [MQTT-3.8.4-3]. True if it is new.
        `options`: see broker.core.subscription."""
        if b"+" in topic_filter or b"#" in topic_filter:
            holders = self._place(topic_filter)
            self.wildcards += session not in holders
            self._changes += 1
            self.forget_routes()
        else:
            holders = self._exact.setdefault(topic_filter, {})
            self._routes.pop(topic_filter, None)
        new = session not in holders
        holders[session] = options
        self.count += new
        return new

    def unsubscribe(self, session: Session, topic_filter: bytes) -> bool:
        """Remove the subscription with exactly this filter [MQTT-3.10.4-1]. False if there is none."""
        if b"+" in topic_filter or b"#" in topic_filter:
            removed = self._remove(session, topic_filter)
            if removed:
                self.wildcards -= 1
                self._changes += 1
                self.forget_routes()
        else:
            holders = self._exact.get(topic_filter)
            removed = holders is not None and holders.pop(session, None) is not None
            if removed and not holders:
                del self._exact[topic_filter]
            self._routes.pop(topic_filter, None)
        self.count -= removed
        return removed

    def forget_routes(self) -> None:
        """Wildcards or rights have changed: ask again."""
        self._routes.clear()
        self._targets = 0

    def route(self, topic: bytes) -> Route:
        """The route of a topic that is not remembered. Raises ProtocolError if nobody can publish to it."""
        if topic not in self._exact:  # a filter without wildcards is a Topic Name within the limits
            self.check(topic)
        self._account.spent += FINDING + len(topic) // LETTERS
        return self._remembered(topic, self._permitted(topic, self._match(topic)))

    def route_in_steps(self, topic: bytes) -> Iterator[None]:
        """Find the route of a topic as `route` does, and yield wherever others should have their turn, so that the next
        `route` finds it fast. Where filters change meanwhile, it begins again."""
        if topic not in self._exact:
            self.check(topic)
        for _ in range(AGAIN):
            changes = self._changes
            found: list[dict[Session, int]] = []
            for _ in self._match_tree(topic, found):
                yield
                if self._changes != changes:
                    break
            else:
                targets: dict[Session, int] = {}
                for start in range(0, len(found), STEP):
                    _add(targets, found[start : start + STEP])
                    self._account.spent += STEP // BRANCHES
                    yield
                    if self._changes != changes:
                        break
                else:
                    self._ahead = topic, changes, targets
                    return

    def _remembered(self, topic: bytes, targets: dict[Session, int]) -> Route:
        reserved = topic.startswith(b"$SYS") and topic[4:5] in (b"", b"/")
        if len(topic) > LONGEST_REMEMBERED:
            return Route(targets, reserved)
        if len(self._routes) >= MAX_ROUTES + self.count or self._targets + len(targets) > MAX_TARGETS:
            self.forget_routes()
        route = self._routes[topic] = self._made(targets, reserved)
        return route

    def _made(self, targets: dict[Session, int], reserved: bool) -> Route:
        """A route to be remembered: that of another topic, if it is the same."""
        if len(targets) > MOST_SHARED:
            self._targets += len(targets)
            return Route(targets, reserved)
        key = (reserved, *targets.items())
        route = self._shared.get(key)
        if route is None:
            self._targets += len(targets)
            route = self._shared[key] = Route(targets, reserved)
        return route

    def check(self, topic: bytes) -> None:
        """Raise ProtocolError unless `topic` is a Topic Name within the limits."""
        check_topic_name(topic)
        if topic.startswith(b"$SYS/"):
            return  # the broker's own, to which no client may publish: limits for clients are none of theirs
        limits = self._limits
        if len(topic) > limits.max_topic_length:
            raise ProtocolError(
                f"a Topic Name of {len(topic)} bytes, over the limit of {limits.max_topic_length} (max_topic_length)"
            )
        if topic.count(b"/") >= limits.max_topic_levels:
            raise ProtocolError(f"a Topic Name of more than {limits.max_topic_levels} levels (max_topic_levels)")

    def _match(self, topic: bytes) -> dict[Session, int]:
        """The sessions with a filter that matches, each with its options: who subscribed twice gets one message."""
        found: list[dict[Session, int]] = []
        exact = self._exact.get(topic)
        if exact is not None:
            found.append(exact)
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead[:2] == (topic, self._changes):
            found.append(ahead[2])
        elif self._tree.children or self._tree.rest:
            for _ in self._match_tree(topic, found):
                pass
        if not found:
            return {}
        self._account.spent += sum(map(len, found)) // DELIVERIES
        return found[0] if len(found) == 1 else _each_once(found)

    def _permitted(self, topic: bytes, targets: dict[Session, int]) -> dict[Session, int]:
        """Those of them that have the right to receive it."""
        for session in targets:
            if session.rights is not None:
                break
        else:
            return targets
        self._account.spent += ASKED * len(targets)
        return {
            session: options
            for session, options in targets.items()
            if session.rights is None or session.rights.may_receive(topic)
        }

    def _match_tree(self, topic: bytes, found: list[dict[Session, int]]) -> Iterator[None]:
        """Find the holders of filters with wildcards. It yields after many branches."""
        nodes = [self._tree]
        looked = 0
        # A filter that begins with a wildcard has no part in topics that begin with `$` [MQTT-4.7.2-1].
        wildcard = not topic.startswith(b"$")
        for level in topic.split(b"/"):
            below: list[_Node] = []
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

    def _place(self, topic_filter: bytes) -> dict[Session, int]:
        """Where the holders of a filter with wildcards are kept; made if need be."""
        node = self._tree
        for level in topic_filter.split(b"/"):
            if level == b"#":
                if node.rest is None:
                    node.rest = {}
                return node.rest
            child = node.children.get(level)
            if child is None:
                child = node.children[level] = _Node()
            node = child
        if node.here is None:
            node.here = {}
        return node.here

    def _remove(self, session: Session, topic_filter: bytes) -> bool:
        levels = topic_filter.split(b"/")
        rest = levels[-1] == b"#"
        if rest:
            levels.pop()
        node = self._tree
        path: list[tuple[_Node, bytes]] = []
        for level in levels:
            child = node.children.get(level)
            if child is None:
                return False
            path.append((node, level))
            node = child
        holders = node.rest if rest else node.here
        if holders is None or holders.pop(session, None) is None:
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


def weight(topic_filter: bytes) -> int:
    """Bytes that a filter may take here."""
    size = len(topic_filter)
    if b"+" in topic_filter or b"#" in topic_filter:
        # The names of the levels are texts of their own.
        return SUBSCRIPTION + 2 * size + LEVEL * (1 + topic_filter.count(b"/"))
    return SUBSCRIPTION + size


def _each_once(found: list[dict[Session, int]]) -> dict[Session, int]:
    targets = dict(found[0])
    _add(targets, found[1:])
    return targets


def _add(targets: dict[Session, int], found: Sequence[dict[Session, int]]) -> None:
    for holders in found:
        for session, options in holders.items():
            held = targets.get(session)
            if held is None:
                targets[session] = options
            elif held != options:
                targets[session] = together(held, options)
