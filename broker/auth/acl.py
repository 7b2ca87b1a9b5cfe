"""The ACL file: which topics a client may publish, receive and subscribe to.

Owns: the file format, which is mosquitto's (https://mosquitto.org/man/mosquitto-conf-5.html, `acl_file`), and the
answers. Must not know: sessions, packets, and what happens to what is refused.

    topic [read|write|readwrite|deny] <filter>      for anonymous clients, until the first `user` line
    user <name>                                     from here on, `topic` lines are for this user
    pattern [read|write|readwrite|deny] <filter>    for all clients; %u is the user name, %c the Client Identifier

What no line grants is refused, and what any `deny` covers is refused, whatever grants it. The order of lines matters
for nothing else. `#` and `+` mean what they mean in a subscription, so that topics which begin with `$` need a line
which begins with `$`, too [MQTT-4.7.2-1].

Three things are stricter here than in mosquitto 2.0, where a client could get more than its line was meant to grant:

- A `pattern deny` also overrules what a user's own `topic` lines grant.
- A name gets nothing from a `pattern` that it is put into, if it contains `+`, `#` or `/`, is empty, or would make a
  pattern begin with `$`: clients choose their Client Identifiers, and would choose how far the pattern reaches. A
  `pattern deny` denies all names' topics to a client whose name contains `+` or `#`.
- A subscription of which no message could ever be delivered is refused.
"""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ..wire import topics
from . import errors
from .errors import FileError as FileError

#: How many answers are remembered for each direction: for what all connections of a user share, and for what is one
#: client's own, because of a %c. Longer topics are not remembered, so that a user can make it grow to 70 KB at most
#: (measured with CPython 3.11), and a client of its own to 9 KB.
SHARED_ANSWERS = 256
OWN_ANSWERS = 32
LONGEST_REMEMBERED = 200

#: How many users' rules are kept ready; who comes back after as many others is compiled again.
READY_USERS = 1024

_KEYWORDS = ("topic", "pattern", "user")
_ACCESSES = ("read", "write", "readwrite", "deny")
_PLACEHOLDER = re.compile(r"%[uc]")
_WILDCARD = re.compile(r"[+#]")
_WIDENING = re.compile(r"[+#/]")


class _Rule(NamedTuple):
    access: str  #: one of _ACCESSES
    topic_filter: str


class Acl:
    """An ACL file as it was when it was read. To follow a change of the file, read it into a new object.

    For one thread at a time, `Rights` included: they remember answers.
    """

    def __init__(self, users: dict[str | None, list[_Rule]], patterns: list[_Rule]) -> None:
        self._users = users  # None: anonymous clients
        self._patterns = [rule for rule in patterns if "%c" not in rule.topic_filter]
        self._client_patterns = [rule for rule in patterns if "%c" in rule.topic_filter]
        self._names_matter = any("%u" in rule.topic_filter for rule in self._patterns)
        self._ready: dict[str | None, Rights] = {}

    @classmethod
    def read(cls, path: str) -> "Acl":
        """Parse the file. Raises FileError for whatever cannot be read or understood: no line is ever skipped.

        An empty file is fine, and allows nothing.
        """
        users: dict[str | None, list[_Rule]] = {}
        patterns: list[_Rule] = []
        user: str | None = None
        for number, line in enumerate(errors.read_lines(path), 1):
            text = line.strip(errors.BLANKS)
            if not text or text.startswith("#"):
                continue
            keyword, _, rest = text.partition(" ")
            rest = rest.strip(errors.BLANKS)
            try:
                if keyword == "user":
                    user = _user_name(rest)
                    users.setdefault(user, [])
                elif keyword == "topic":
                    users.setdefault(user, []).append(_rule(keyword, rest))
                elif keyword == "pattern":
                    patterns.append(_rule(keyword, rest))
                else:
                    near = errors.nearest(keyword, _KEYWORDS) or ";"
                    known = "a line begins with topic, pattern or user and a space, or with #"
                    raise ValueError(f"unknown keyword {errors.shown(keyword)}{near} {known}")
            except ValueError as error:
                raise FileError(path, number, str(error)) from None
        return cls(users, patterns)

    def rights(self, username: str | None, client_id: str) -> "Rights":
        """What a client may do; `username` is None for an anonymous one. Takes microseconds for each rule it has."""
        # Users of whom the file knows nothing, not even through a %u, are all the same one; "" is never in the file.
        key = username if username is None or username in self._users or self._names_matter else ""
        shared = self._ready.get(key)
        if shared is None:
            rules = [(rule.access, rule.topic_filter.encode()) for rule in self._users.get(key, ())]
            rules += _expand(self._patterns, username, client_id)
            publish, receive = (_Direction(rules, access, SHARED_ANSWERS) for access in ("write", "read"))
            shared = Rights(publish, receive)
            if len(self._ready) >= READY_USERS:
                del self._ready[next(iter(self._ready))]  # the oldest
            self._ready[key] = shared
        own = _expand(self._client_patterns, username, client_id)
        if not own:
            return shared
        return Rights(
            _Direction(own, "write", OWN_ANSWERS, shared=shared._publish),
            _Direction(own, "read", OWN_ANSWERS, shared=shared._receive),
        )


class Rights:
    """What one client may do. Topics and filters are valid ones."""

    __slots__ = ("_publish", "_receive")

    def __init__(self, publish: "_Direction", receive: "_Direction") -> None:
        self._publish = publish
        self._receive = receive

    def may_publish(self, topic: bytes) -> bool:
        """Whether the client may publish to the topic, its will included."""
        return self._publish.answer(topic) is True

    def may_receive(self, topic: bytes) -> bool:
        """Whether a message of this topic may be delivered to the client."""
        return self._receive.answer(topic) is True

    def may_subscribe(self, topic_filter: bytes) -> bool:
        """Whether the filter matches at least one topic that `may_receive` allows; so each delivery must ask that."""
        if b"+" not in topic_filter and b"#" not in topic_filter:
            return self.may_receive(topic_filter)
        wanted = topics.split_filter(topic_filter)
        denied = list(self._receive.denied())
        for granted in self._receive.granted():
            common = topics.intersect(wanted, granted)
            if common is not None and not topics.is_covered(common, denied):
                return True
        return False


class _Direction:
    """The rules of one direction, publishing or receiving, and the answers that they gave lately."""

    __slots__ = ("_answers", "_denied", "_denied_filters", "_granted", "_granted_filters", "_limit", "_shared")

    def __init__(
        self, rules: Iterable[tuple[str, bytes]], access: str, limit: int, *, shared: "_Direction | None" = None
    ) -> None:
        """`access` is "read" or "write", `limit` a number of answers, and `shared` holds more rules, of all clients."""
        granted = [topic_filter for allowed, topic_filter in rules if allowed in (access, "readwrite")]
        denied = [topic_filter for allowed, topic_filter in rules if allowed == "deny"]
        self._granted, self._granted_filters = _compile(granted)
        self._denied, self._denied_filters = _compile(denied)
        self._shared = shared
        self._limit = limit
        self._answers: dict[bytes, bool | None] = {}

    def answer(self, topic: bytes) -> bool | None:
        """True: granted; False: denied; None: no rule speaks of it."""
        try:
            return self._answers[topic]
        except KeyError:
            pass
        answer = self._decide(topic)
        if len(topic) <= LONGEST_REMEMBERED:
            if len(self._answers) >= self._limit:
                self._answers.clear()
            self._answers[topic] = answer
        return answer

    def granted(self) -> Iterable[topics.Levels]:
        """Every filter that grants something."""
        yield from map(topics.split_filter, self._granted)
        yield from self._granted_filters
        if self._shared is not None:
            yield from self._shared.granted()

    def denied(self) -> Iterable[topics.Levels]:
        """Every filter that denies something."""
        yield from map(topics.split_filter, self._denied)
        yield from self._denied_filters
        if self._shared is not None:
            yield from self._shared.denied()

    def _decide(self, topic: bytes) -> bool | None:
        shared = self._shared.answer(topic) if self._shared is not None else None
        if shared is False or topic in self._denied:
            return False
        levels = tuple(topic.split(b"/"))
        if _any_match(self._denied_filters, levels):
            return False
        if shared or topic in self._granted or _any_match(self._granted_filters, levels):
            return True
        return None


def _compile(filters: Iterable[bytes]) -> tuple[frozenset[bytes], tuple[topics.Levels, ...]]:
    """Filters without wildcards, which a look-up finds, and the others cut into levels. Each of them once."""
    different = dict.fromkeys(filters)
    wild = [topic_filter for topic_filter in different if b"+" in topic_filter or b"#" in topic_filter]
    return frozenset(different).difference(wild), tuple(map(topics.split_filter, wild))


def _any_match(filters: Iterable[topics.Levels], topic: topics.Levels) -> bool:
    return any(topics.levels_match(topic_filter, topic) for topic_filter in filters)


def _expand(patterns: Sequence[_Rule], username: str | None, client_id: str) -> list[tuple[str, bytes]]:
    """The patterns with this client's names in them: (access, filter). Those that its names do not suit are left out.

    Every placeholder is replaced in one go: a user called "%c" does not become the Client Identifier.
    """
    rules = []
    for access, text in patterns:
        used = [name for placeholder, name in (("%u", username), ("%c", client_id)) if placeholder in text]
        if None in used:
            continue  # an anonymous client has no %u
        if access == "deny":
            topic_filter = _put_into_deny(text, username or "", client_id)
        else:
            topic_filter = _put_in(text, username or "", client_id)
            if any(not name or _WIDENING.search(name) for name in used if name is not None):
                continue
            if topic_filter.startswith("$") and not text.startswith("$"):
                continue
        rules.append((access, topic_filter.encode()))
    return rules


def _put_in(text: str, username: str, client_id: str) -> str:
    return _PLACEHOLDER.sub(lambda found: username if found[0] == "%u" else client_id, text)


def _put_into_deny(text: str, username: str, client_id: str) -> str:
    """A `pattern deny` with the names in it, never denying less than the same text would as a plain topic."""
    levels = []
    for level in text.split("/"):
        replaced = _put_in(level, username, client_id)
        # No topic contains a wildcard [MQTT-4.7.1-1], so there is no text to deny: rather deny it for every name.
        levels.append("+" if replaced != level and _WILDCARD.search(replaced) else replaced)
    return "/".join(levels)


def _user_name(text: str) -> str:
    if not text:
        raise ValueError("user without a name: write user <name>")
    if not errors.is_printable_name(text):
        raise ValueError(f"the user name {errors.shown(text)} contains a control character: leave it out")
    return text


def _rule(keyword: str, text: str) -> _Rule:
    """The rule after `topic` or `pattern`. Raises ValueError that says what to do."""
    if not text or text in _ACCESSES:
        # mosquitto takes the second for a filter, and so `topic deny` for a grant.
        hint = f"; for the filter {text!r} itself: {keyword} readwrite {text}" if text else ""
        raise ValueError(f"{keyword} without a filter: write {keyword} [read|write|readwrite|deny] <filter>{hint}")
    access, space, topic_filter = text.partition(" ")
    if not space:
        access, topic_filter = "readwrite", text
    elif access not in _ACCESSES:
        near = errors.nearest(access, _ACCESSES) or ";"
        known = f"access is read, write, readwrite or deny; for a filter with a space: {keyword} readwrite {text}"
        raise ValueError(f"unknown access {errors.shown(access)}{near} {known}")
    topic_filter = topic_filter.strip(errors.BLANKS)
    fault = topics.filter_fault(topic_filter.encode())
    if fault is not None:
        raise ValueError(f"{errors.shown(topic_filter)} is not a valid filter: {fault}")
    if not errors.is_printable_name(topic_filter):
        raise ValueError(f"the filter {errors.shown(topic_filter)} contains a control character: put spaces for tabs")
    return _Rule(access, topic_filter)
