"""Who gets a message: Topic Filters, their holders, and the answer per topic, remembered.

Owns: the subscriptions by filter, and the routes made from them. Must not know: sessions, connections, queues.

Filters without a wildcard stand in one dict, those with a wildcard in a tree (filter_tree). What was matched is
remembered per topic until a subscription or a right changes, which is what makes a publish cheap.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from weakref import WeakValueDictionary

from ..wire.codes import ProtocolError, ReasonCode
from ..wire.packets import check_topic_name
from .account import BRANCHES, DELIVERIES, Account
from .filter_tree import STEP, FilterTree
from .limits import Limits
from .looking_back import Holder
from .route import Route
from .subscription import IDENTIFIERS, together

#: How many topics are remembered at the most, beside one for each subscription: some megabytes.
MAX_ROUTES = 10_000
#: How many holders may stand in what is remembered, each as often as it does.
MAX_TARGETS = 1_000_000
#: Holders in a route that may be that of many topics: it has to be looked up by all of them.
MOST_SHARED = 8
#: Bytes of the longest topic that is remembered: anybody can publish to as many as they like.
LONGEST_REMEMBERED = 500
#: Units of work that it takes to ask for the rights of one holder.
ASKED = 6
#: Filters with wildcards above which a match may take so long that it is done in steps.
MANY_WILDCARDS = 1_000
#: A match that others' subscriptions get in the way of begins again so often.
AGAIN = 3
#: Units of work that a route takes to be made, with whatever has to be done anew for a topic.
FINDING = 6
#: Letters of a topic that are a unit more, as it is checked, and levels, as it is cut.
LETTERS = 512
LEVELS = 16
#: Bytes of memory that a subscription takes, beside its filter, and a level of a filter with wildcards: measured in
#: CPython 3.11 with filters that share no level.
SUBSCRIPTION = 320
LEVEL = 250


class Router:
    """Subscriptions, and the routes that follow from them."""

    def __init__(self, limits: Limits, account: Account | None = None) -> None:
        self._limits = limits
        self._account = account or Account()
        self._exact: dict[bytes, dict[Holder, int]] = {}
        self._tree = FilterTree(self._account)
        self._routes: dict[bytes, Route] = {}
        # Most topics go where others go. Each key holds what its route does: (holder, options), and if it is reserved.
        self._shared: WeakValueDictionary[tuple[object, ...], Route] = WeakValueDictionary()
        self._targets = 0  # holders in the routes, or a little more
        self._changes = 0  # of subscriptions with wildcards, ever
        self.count = 0  #: subscriptions in all
        self.wildcards = 0  #: those with wildcards
        # What `route_in_steps` has found in the tree: a topic, what had changed by then, who gets it.
        self._ahead: tuple[bytes, int, dict[Holder, int]] | None = None
        #: `known(topic)` is the route if it is remembered; such a topic is known to be a valid Topic Name.
        self.known = self._routes.get

    def subscribe(self, holder: Holder, topic_filter: bytes, options: int) -> bool:
        """Enter a subscription, or replace the one with the same filter [MQTT-3.8.4-3]. True if it is new.
        `options`: see broker.core.subscription."""
        if b"+" in topic_filter or b"#" in topic_filter:
            holders = self._tree.place(topic_filter)
            self.wildcards += holder not in holders
            self._changes += 1
            self.forget_routes()
        else:
            holders = self._exact.setdefault(topic_filter, {})
            self._routes.pop(topic_filter, None)
        new = holder not in holders
        holders[holder] = options
        self.count += new
        return new

    def unsubscribe(self, holder: Holder, topic_filter: bytes) -> bool:
        """Remove the subscription with exactly this filter [MQTT-3.10.4-1]. False if there is none."""
        if b"+" in topic_filter or b"#" in topic_filter:
            removed = self._tree.remove(holder, topic_filter)
            if removed:
                self.wildcards -= 1
                self._changes += 1
                self.forget_routes()
        else:
            holders = self._exact.get(topic_filter)
            removed = holders is not None and holders.pop(holder, None) is not None
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
        self._account.spent += FINDING + topic.count(b"/") // LEVELS + len(topic) // LETTERS
        return self._remembered(topic, self._permitted(topic, self._match(topic)))

    def route_in_steps(self, topic: bytes) -> Iterator[None]:
        """Find the route of a topic as `route` does, and yield wherever others should have their turn, so that the next
        `route` finds it fast. Where filters change meanwhile, it begins again."""
        if topic not in self._exact:
            self.check(topic)
        for _ in range(AGAIN):
            changes = self._changes
            found: list[dict[Holder, int]] = []
            for _ in self._tree.match(topic, found):
                yield
                if self._changes != changes:
                    break
            else:
                targets: dict[Holder, int] = {}
                for start in range(0, len(found), STEP):
                    _add(targets, found[start : start + STEP])
                    self._account.spent += STEP // BRANCHES
                    yield
                    if self._changes != changes:
                        break
                else:
                    self._ahead = topic, changes, targets
                    return

    def _remembered(self, topic: bytes, targets: dict[Holder, int]) -> Route:
        reserved = topic.startswith(b"$SYS") and topic[4:5] in (b"", b"/")
        if len(topic) > LONGEST_REMEMBERED:
            return Route(targets, reserved)
        if len(self._routes) >= MAX_ROUTES + self.count or self._targets + len(targets) > MAX_TARGETS:
            self.forget_routes()
        route = self._routes[topic] = self._made(targets, reserved)
        return route

    def _made(self, targets: dict[Holder, int], reserved: bool) -> Route:
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
                f"a Topic Name of {len(topic)} bytes, over the limit of {limits.max_topic_length} (max_topic_length)",
                reason=ReasonCode.TOPIC_NAME_INVALID,
            )
        if topic.count(b"/") >= limits.max_topic_levels:
            why = f"a Topic Name of more than {limits.max_topic_levels} levels (max_topic_levels)"
            raise ProtocolError(why, reason=ReasonCode.TOPIC_NAME_INVALID)

    def _match(self, topic: bytes) -> dict[Holder, int]:
        """The holders of filters that match, each with its options: who subscribed twice gets one message."""
        found: list[dict[Holder, int]] = []
        exact = self._exact.get(topic)
        if exact is not None:
            found.append(exact)
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead[:2] == (topic, self._changes):
            found.append(ahead[2])
        elif not self._tree.empty:
            for _ in self._tree.match(topic, found):
                pass
        if not found:
            return {}
        self._account.spent += sum(map(len, found)) // DELIVERIES
        return found[0] if len(found) == 1 else _each_once(found)

    def _permitted(self, topic: bytes, targets: dict[Holder, int]) -> dict[Holder, int]:
        """Those of them that have the right to receive it."""
        for holder in targets:
            if holder.rights is not None:
                break
        else:
            return targets
        self._account.spent += ASKED * len(targets)
        return {
            holder: options
            for holder, options in targets.items()
            if holder.rights is None or holder.rights.may_receive(topic)
        }


def weight(topic_filter: bytes) -> int:
    """Bytes that a filter may take here."""
    size = len(topic_filter)
    if b"+" in topic_filter or b"#" in topic_filter:
        # The names of the levels are texts of their own.
        return SUBSCRIPTION + 2 * size + LEVEL * (1 + topic_filter.count(b"/"))
    return SUBSCRIPTION + size


def _each_once(found: list[dict[Holder, int]]) -> dict[Holder, int]:
    targets = dict(found[0])
    _add(targets, found[1:])
    return targets


def _add(targets: dict[Holder, int], found: Sequence[dict[Holder, int]]) -> None:
    for holders in found:
        for holder, options in holders.items():
            held = targets.get(holder)
            if held is None:
                targets[holder] = options
            elif held != options or options >> IDENTIFIERS:
                targets[holder] = together(held, options)
