"""The retained message of each topic, and which of them a new subscription gets.

Owns: a tree of topics by level, and its limits. Must not know: who subscribed, how the messages are delivered or
stored.
"""

from collections.abc import Callable, Iterator

from .account import BRANCHES, Account
from .authors import Author, Authors
from .ports import RetainedRecord
from .slow_reading import SlowReading

#: Bytes of memory that a branch takes, with its first topic.
BRANCH = 200
#: Bytes of memory that a message takes, beside its topic and payload: measured in CPython 3.11.
MESSAGE = 500
#: Topics that are looked at before whoever reads may have a pause, whether they matched or not.
LOOK = 512

# A branch of the tree: what stands under each level. A leaf is the record itself, as most topics have none below them;
# where a topic has a message and others below it, its message stands under _SELF, which no level can be called.
_SELF = b"/"
# None: a name that was removed while somebody reads the branch (slow_reading).
_Branch = dict[bytes, "_Branch | RetainedRecord | None"]


class Retained:
    """The retained messages by topic."""

    def __init__(self, account: Account | None = None) -> None:
        self._account = account or Account()
        self._tree: _Branch = {}
        self._reading = SlowReading()
        self.count = 0
        self.size = 0  #: bytes of their topics and payloads
        self._branches = 0  # below the first
        self.authors = Authors()
        #: Told of each record whose message expires.
        self.enter_perishable: Callable[[RetainedRecord], None] = lambda record: None

    @property
    def memory(self) -> int:
        """Bytes that they take, roughly: a deep topic costs far more than its length."""
        return self.size + BRANCH * self._branches + self.authors.size

    @property
    def held(self) -> int:
        """The same, with what each message takes beside."""
        return self.memory + MESSAGE * self.count

    def get(self, topic: bytes) -> RetainedRecord | None:
        found: _Branch | RetainedRecord | None = self._tree
        for level in topic.split(b"/"):
            if not isinstance(found, dict):
                return None
            found = found.get(level)
        return found.get(_SELF) if isinstance(found, dict) else found  # type: ignore[return-value]

    def set(self, record: RetainedRecord) -> RetainedRecord:
        """Keep this message in place of the topic's older one [MQTT-3.3.1-7]. Gives the record that is kept."""
        message = record.message
        # First: it may be that of the older one.
        author = self.authors.enter(Author(record.username, record.client_id, record.listener))
        self.remove(message.topic)
        record = RetainedRecord(message, *author)
        levels = record.message.topic.split(b"/")
        last = levels.pop()
        branch = self._tree
        for level in levels:
            below = branch.get(level)
            if not isinstance(below, dict):
                below = branch[level] = {} if below is None else {_SELF: below}
                self._branches += 1
            branch = below
        at_last = branch.get(last)
        if isinstance(at_last, dict):
            at_last[_SELF] = record
        else:
            branch[last] = record
        self.count += 1
        self.size += record.message.size
        if message.expires is not None:
            self.enter_perishable(record)
        return record

    def remove(self, topic: bytes) -> bool:
        """Forget the topic's message [MQTT-3.3.1-10]. False if there was none."""
        path: list[tuple[_Branch, bytes]] = []
        found: _Branch | RetainedRecord | None = self._tree
        for level in topic.split(b"/"):
            if not isinstance(found, dict):
                return False
            path.append((found, level))
            found = found.get(level)
        if isinstance(found, dict):
            path.append((found, _SELF))
            found = found.get(_SELF)
        if found is None:
            return False
        assert isinstance(found, RetainedRecord)
        self.count -= 1
        self.size -= found.message.size
        self.authors.leave(Author(found.username, found.client_id, found.listener))
        self._unlink(path)
        return True

    def _unlink(self, path: list[tuple[_Branch, bytes]]) -> None:
        """Remove the last name of a path, and the branches that nobody needs any more."""
        while path:
            branch, level = path.pop()
            if not self._reading.remove(branch, level) or branch or not path:
                break
            self._branches -= 1

    def _prune(self, above: list[tuple[_Branch, bytes]]) -> None:
        """A branch was empty when it was read to its end: `above` is the way to it."""
        if above and above[-1][0].get(above[-1][1]) == {}:
            self._branches -= 1
            self._unlink(above)

    def matching(self, topic_filter: bytes) -> Iterator[RetainedRecord | None]:
        """The messages whose topics match, and None now and then, when many were looked at; all that is looked at is
        charged. Others may be set and removed while it is consumed slowly; it then yields what is there when it comes
        by."""
        levels = topic_filter.split(b"/")
        last = len(levels) - 1
        # A stack of our own: topics may be deeper than Python likes to recurse.
        above: list[tuple[_Branch, bytes]] = []  # the way to the branch that is looked at
        stack = [self._names(self._tree, levels[0], above)]
        looked = 0
        while stack:
            looked += 1
            if looked == LOOK:
                self._account.spent += LOOK // BRANCHES
                looked = 0
                yield None
            step = next(stack[-1], None)
            if step is None:
                stack.pop()
                if above:
                    above.pop()
                continue
            branch, name = step
            depth = len(stack) - 1
            everything = depth >= last and levels[last] == b"#"
            found = branch.get(name)
            if isinstance(found, dict):
                if everything or depth < last:
                    above.append(step)
                    stack.append(self._names(found, levels[min(depth + 1, last)], above))
                elif isinstance(own := found.get(_SELF), RetainedRecord):
                    yield own
            elif found is not None and (everything or depth == last or levels[depth + 1 :] == [b"#"]):
                yield found  # `sport/#` matches `sport` too
        self._account.spent += 1 + looked // BRANCHES

    def _names(
        self, branch: _Branch, level: bytes, above: list[tuple[_Branch, bytes]]
    ) -> Iterator[tuple[_Branch, bytes]]:
        """Where to look in a branch for what a level of a filter matches."""
        if level not in (b"#", b"+"):
            return iter([(branch, level)])
        return self._all_names(branch, level, list(above))

    def _all_names(
        self, branch: _Branch, level: bytes, above: list[tuple[_Branch, bytes]]
    ) -> Iterator[tuple[_Branch, bytes]]:
        for name in self._reading.keys(branch, lambda: self._prune(above)):
            if level == b"+" and name == _SELF:
                continue
            if not above and name.startswith(b"$"):
                continue  # [MQTT-4.7.2-1]
            yield branch, name
