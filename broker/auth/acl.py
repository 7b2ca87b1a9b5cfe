"""The ACL file: which topics a client may publish, receive and subscribe to.

Owns: the file format, which is mosquitto's (https://mosquitto.org/man/mosquitto-conf-5.html, `acl_file`), and the
answers, with what is remembered of them. Must not know: how filters are searched (rules), sessions, packets, and what
happens to what is refused.

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

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ..wire import topics
from . import errors
from .errors import FileError as FileError
from .rules import READ, WRITE, Names, Tree, is_covered

#: How many answers are remembered for each direction: for what all connections of a user share, and for what is one
#: client's own, because of a %c. Longer topics are not remembered, so that a user can make it grow to 70 KB at most
#: (measured with CPython 3.11), and a client of its own to 9 KB.
SHARED_ANSWERS = 256
OWN_ANSWERS = 32
LONGEST_REMEMBERED = 200

#: How many users' answers are kept; who comes back after as many others is asked for anew.
READY_USERS = 1024

_KEYWORDS = ("topic", "pattern", "user")
_ACCESSES = ("read", "write", "readwrite", "deny")
_BITS = {"read": READ, "write": WRITE, "readwrite": READ | WRITE, "deny": READ | WRITE}
_DENIED = 4


class _Lines:
    """The lines of a user, or the patterns: a tree of those that grant, and one of those that deny."""

    def __init__(self) -> None:
        self.grants = Tree(denying=False)
        self.denials = Tree(denying=True)

    def add(self, access: str, topic_filter: str, *, pattern: bool = False) -> None:
        tree = self.denials if access == "deny" else self.grants
        tree.add(topic_filter, _BITS[access], pattern=pattern)


class Line(NamedTuple):
    """A line that says something. `user`: whom a `user` line names, and whom a `topic` line is for."""

    number: int
    keyword: str
    user: str | None
    access: str
    topic_filter: str


def read_lines(path: str) -> list[Line]:
    """What the file says, line by line. Raises FileError, with the faults of all lines."""
    found: list[Line] = []
    faults: list[FileError] = []
    user: str | None = None
    for number, raw in enumerate(errors.read_lines(path), 1):
        text = raw.strip(errors.BLANKS)
        if not text or text.startswith("#"):
            continue
        keyword, _, rest = text.partition(" ")
        rest = rest.strip(errors.BLANKS)
        try:
            if keyword == "user":
                user = _user_name(rest)
                found.append(Line(number, keyword, user, "", ""))
            elif keyword in ("topic", "pattern"):
                found.append(Line(number, keyword, user if keyword == "topic" else None, *_rule(keyword, rest)))
            else:
                near = errors.nearest(keyword, _KEYWORDS) or ";"
                known = "a line begins with topic, pattern or user and a space, or with #"
                raise ValueError(f"unknown keyword {errors.shown(keyword)}{near} {known}")
        except ValueError as error:
            faults.append(FileError(path, number, str(error)))
    errors.tell(faults)
    return found


class Acl:
    """An ACL file as it was when it was read. To follow a change of the file, read it into a new object.

    For one thread at a time, `Rights` included: they remember answers.
    """

    def __init__(self) -> None:
        self._users: dict[str | None, _Lines] = {}  # None: anonymous clients
        self._patterns = _Lines()  # those without %c: all connections of a user share what they say
        self._client_patterns = _Lines()
        self._names_matter = False  # does a pattern without %c hold %u?
        self._ready: dict[str | None, Rights] = {}

    @classmethod
    def read(cls, path: str) -> "Acl":
        """Parse the file. Raises FileError for whatever cannot be read or understood: no line is ever skipped.

        An empty file is fine, and allows nothing.
        """
        acl = cls()
        for line in read_lines(path):
            if line.keyword == "pattern":
                acl._add_pattern(line.access, line.topic_filter)
                continue
            lines = acl._users.setdefault(line.user, _Lines())
            if line.keyword == "topic":
                lines.add(line.access, line.topic_filter)
        return acl

    def _add_pattern(self, access: str, topic_filter: str) -> None:
        if "%c" in topic_filter:
            self._client_patterns.add(access, topic_filter, pattern=True)
        else:
            self._patterns.add(access, topic_filter, pattern=True)
            self._names_matter = self._names_matter or "%u" in topic_filter

    def rights(self, username: str | None, client_id: str) -> "Rights":
        """What a client may do; `username` is None for an anonymous one. Takes the same time whatever the file says."""
        # Users of whom the file knows nothing, not even through a %u, are all the same one; "" is never in the file.
        key = username if username is None or username in self._users or self._names_matter else ""
        shared = self._ready.get(key)
        if shared is None:
            lines = [self._users[key], self._patterns] if key in self._users else [self._patterns]
            shared = Rights(lines, Names(username, client_id), SHARED_ANSWERS)
            if len(self._ready) >= READY_USERS:
                del self._ready[next(iter(self._ready))]  # the oldest
            self._ready[key] = shared
        own = self._client_patterns
        if own.grants.empty and own.denials.empty:
            return shared
        return Rights([own], Names(username, client_id), OWN_ANSWERS, shared)


class Rights:
    """What one client may do, and the answers that were given lately. Topics and filters are valid ones."""

    __slots__ = ("_answers", "_denials", "_grants", "_limit", "_names", "_shared")

    def __init__(self, lines: Sequence[_Lines], names: Names, limit: int, shared: "Rights | None" = None) -> None:
        """`limit` is a number of answers, and `shared` knows what all connections of the user may do."""
        self._grants = [one.grants for one in lines if not one.grants.empty]
        self._denials = [one.denials for one in lines if not one.denials.empty]
        self._names = names
        self._limit = limit
        self._shared = shared
        self._answers: dict[bytes, int] = {}

    def may_publish(self, topic: bytes) -> bool:
        """Whether the client may publish to the topic, its will included."""
        answer = self._answers.get(topic)
        return (self._decide(topic) if answer is None else answer) & WRITE != 0

    def may_surely_publish(self, topic: bytes) -> bool:
        """Is that known, without looking for it?"""
        return self._answers.get(topic, 0) & WRITE != 0

    def may_receive(self, topic: bytes) -> bool:
        """Whether a message of this topic may be delivered to the client."""
        answer = self._answers.get(topic)
        return (self._decide(topic) if answer is None else answer) & READ != 0

    def may_subscribe(self, topic_filter: bytes) -> bool:
        """Whether the filter matches at least one topic that `may_receive` allows; so each delivery must ask that."""
        if b"+" not in topic_filter and b"#" not in topic_filter:
            return self.may_receive(topic_filter)
        wanted = topics.split_filter(topic_filter)
        return any(not self._is_denied(common) for common in self._readable(wanted))

    @property
    def effort(self) -> int:
        """See core.ports.Rights."""
        own = sum(tree.effort for tree in self._grants) + sum(tree.effort for tree in self._denials)
        return own if self._shared is None else own + self._shared.effort

    def _decide(self, topic: bytes) -> int:
        """READ and WRITE as they are granted; _DENIED if they are denied."""
        answer = self._ask(topic)
        if len(topic) <= LONGEST_REMEMBERED:
            if len(self._answers) >= self._limit:
                self._answers.clear()
            self._answers[topic] = answer
        return answer

    def _ask(self, topic: bytes) -> int:
        answer = 0
        shared = self._shared
        if shared is not None:
            known = shared._answers.get(topic)
            answer = shared._decide(topic) if known is None else known
            if answer & _DENIED:
                return answer
        levels = tuple(topic.split(b"/"))
        names = self._names
        for tree in self._denials:
            if tree.bits(levels, names):
                return _DENIED
        for tree in self._grants:
            answer |= tree.bits(levels, names)
        return answer

    def _readable(self, wanted: topics.Levels) -> Iterator[topics.Levels]:
        """What each filter that lets the client read has in common with the wanted one."""
        for tree in self._grants:
            yield from tree.common(wanted, READ, self._names)
        if self._shared is not None:
            yield from self._shared._readable(wanted)

    def _is_denied(self, topic_filter: topics.Levels) -> bool:
        """Whether nothing is left of a filter by what is denied."""
        denials = self._denials if self._shared is None else self._denials + self._shared._denials
        return is_covered(topic_filter, denials, self._names)


def _user_name(text: str) -> str:
    if not text:
        raise ValueError("user without a name: write user <name>")
    if not errors.is_printable_name(text):
        raise ValueError(f"the user name {errors.shown(text)} contains a control character: leave it out")
    return text


def _rule(keyword: str, text: str) -> tuple[str, str]:
    """The access and the filter after `topic` or `pattern`. Raises ValueError that says what to do."""
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
    return access, topic_filter
