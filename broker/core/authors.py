"""Who published what is retained: each of them stands once, however many messages are theirs.

Owns: their names, and what those take. Must not know: the messages.
"""

from typing import NamedTuple

#: Bytes of memory that an author takes besides the names.
AUTHOR = 300


class Author(NamedTuple):
    """As in ports.RetainedRecord."""

    username: str | None
    client_id: str
    listener: str | None

    @property
    def size(self) -> int:
        return AUTHOR + sum(len(name) for name in self if name)


#: The broker itself.
NOBODY = Author(None, "", None)


class Authors:
    def __init__(self) -> None:
        self._held: dict[Author, tuple[Author, int]] = {}  # and of how many messages
        self.size = 0  #: bytes that they take

    def cost(self, author: Author) -> int:
        """Bytes that one more message of theirs takes for its author."""
        return 0 if author in self._held else author.size

    def enter(self, author: Author) -> Author:
        """There is one more message of theirs. Gives the author to name there: the one that stands already."""
        held, count = self._held.get(author, (author, 0))
        if not count:
            self.size += author.size
        self._held[held] = held, count + 1
        return held

    def leave(self, author: Author) -> None:
        """There is one less."""
        held, count = self._held[author]
        if count > 1:
            self._held[held] = held, count - 1
        else:
            del self._held[held]
            self.size -= held.size
