"""Topic Aliases of one connection: numbers that stand for topics, in each direction for itself [MQTT5-3.3.2-7].

Owns: which number stands for which topic. Must not know: packets, who may publish what.
"""

from __future__ import annotations

from ..wire.codes import ProtocolError, ReasonCode

#: Bytes of memory that an alias takes besides its topic.
ALIAS = 150
#: Topics of fewer bytes are not worth one: it takes three bytes itself.
WORTH = 4
#: Aliases that are used towards a client, whatever it offers.
MOST = 256


class Inward:
    """Those that a client sets."""

    __slots__ = ("_topics", "maximum", "size")

    def __init__(self, maximum: int) -> None:
        self.maximum = maximum
        self._topics: dict[int, bytes] = {}
        self.size = 0  #: bytes of memory that they take

    def check(self, alias: int) -> None:
        """Raise ProtocolError if the client was not told that it may use this one [MQTT5-3.2.2-17] [MQTT5-3.3.2-9]."""
        if alias > self.maximum:
            raise ProtocolError(
                f"Topic Alias {alias}, above the maximum of {self.maximum} (max_topic_alias)",
                reason=ReasonCode.TOPIC_ALIAS_INVALID,
            )

    def topic(self, alias: int) -> bytes:
        """What it stands for."""
        topic = self._topics.get(alias)
        if topic is None:
            raise ProtocolError(f"Topic Alias {alias} was not set on this connection", reason=ReasonCode.PROTOCOL_ERROR)
        return topic

    def set(self, alias: int, topic: bytes) -> int:
        """It stands for this topic from now on. Gives the bytes of memory that this takes more, or less."""
        before = self._topics.get(alias)
        if before == topic:
            return 0
        more = len(topic) - len(before) if before is not None else ALIAS + len(topic)
        self._topics[alias] = topic
        self.size += more
        return more


class Outward:
    """Those that the broker sets: for the topics that a client gets most often.

    While there are free ones, each topic gets one. Then a topic that has none takes the place of one that is not used,
    which is found as with a clock's hand: each topic that comes without an alias moves it on by one place, and takes a
    use from the topic there. So a topic that is more than one in `maximum` of all keeps its alias, however many others
    come.
    """

    __slots__ = ("_alias", "_hand", "_maximum", "_topics", "_uses")

    def __init__(self, maximum: int) -> None:
        self._maximum = min(maximum, MOST)  # [MQTT5-3.1.2-26] [MQTT5-3.1.2-27]
        self._alias: dict[bytes, int] = {}  # by topic
        self._topics: list[bytes] = []  # by alias, which begin at 1
        self._uses: list[int] = []
        self._hand = 0

    def known(self, topic: bytes) -> int:
        """The alias that the client knows of this topic; 0: none."""
        alias = self._alias.get(topic, 0)
        if alias:
            self._uses[alias - 1] += 1
        return alias

    def free(self, topic: bytes) -> int:
        """The alias that this topic may get, as it has none; 0: none. It has it with `set`."""
        if len(topic) < WORTH:
            return 0
        if len(self._topics) < self._maximum:
            return len(self._topics) + 1
        place = self._hand
        self._hand = (place + 1) % self._maximum
        if self._uses[place]:
            self._uses[place] -= 1
            return 0
        return place + 1

    def set(self, alias: int, topic: bytes) -> None:
        """The packet that tells the client so is on its way [MQTT5-4.4.0-1]."""
        place = alias - 1
        if place == len(self._topics):
            self._topics.append(topic)
            self._uses.append(0)
        else:
            del self._alias[self._topics[place]]
            self._topics[place] = topic
            self._uses[place] = 0
        self._alias[topic] = alias
