"""An application message, and the bytes in which it goes out.

Owns: the layouts of one message, each built at most once however many clients receive it. Must not know: the clients.
"""

from __future__ import annotations

from .encoder import publish_head
from .encoder5 import publish_head as publish_head_5
from .encoder5 import section
from .properties import MESSAGE_EXPIRY_INTERVAL


class Message:
    """One application message as it will be delivered.

    `qos` is the one it was published with; who receives it at a lower one takes the layout of that QoS. `retain` is
    the flag as delivered: set only where a retained message answers a new subscription [MQTT-3.3.1-8] [MQTT-3.3.1-9].
    `kept` are its properties, encoded, without its expiry and its topic's alias; Subscription Identifiers may stand in
    front of them, where it is made for one receiver. `expires` is the date at which it is no longer to be delivered.
    `body_id` belongs to the store: where it keeps a payload that is shared between queues, 0 if it does not.

    A layout of MQTT 5.0 is asked for with `left`, the seconds until then, None for a message that does not expire.
    """

    __slots__ = (
        "_five", "_frame", "_head1", "_head2", "body_id", "expires", "holders", "kept", "payload", "qos", "retain",
        "size", "topic",
    )  # fmt: skip

    def __init__(
        self,
        topic: bytes,
        payload: bytes,
        qos: int,
        retain: bool = False,
        head1: bytes | None = None,
        kept: bytes = b"",
        expires: float | None = None,
    ) -> None:
        """`head1`: what `head(1)` would build, if it is known already."""
        self.topic = topic
        self.payload = payload
        self.qos = qos
        self.retain = retain
        self.kept = kept
        self.expires = expires
        #: What it counts for against limits in bytes.
        self.size = len(topic) + len(payload) + len(kept) if kept else len(topic) + len(payload)
        self.body_id = 0
        self.holders = 0  #: in how many queues it waits in memory
        self._frame: bytes | None = None
        self._head1 = head1
        self._head2: bytes | None = None
        # The layouts of MQTT 5.0, or while no other is needed the one that `bare_head5` gives at its own QoS.
        self._five: _Layouts5 | bytes | None = None

    # --- MQTT 3.1.1 ---

    def frame(self) -> bytes:
        """The whole PUBLISH at QoS 0."""
        frame = self._frame
        if frame is None:
            frame = publish_head(0x31 if self.retain else 0x30, self.topic, len(self.payload)) + self.payload
            if not self.retain:  # a retained message lives long, and would be in memory twice
                self._frame = frame
        return frame

    def head(self, qos: int) -> bytes:
        """The PUBLISH at QoS 1 or 2 up to its Packet Identifier, behind which the payload follows. DUP is 0."""
        head = self._head1 if qos == 1 else self._head2
        if head is None:
            first = (0x32 if qos == 1 else 0x34) | self.retain
            head = publish_head(first, self.topic, len(self.payload))
            if qos == 1:
                self._head1 = head
            else:
                self._head2 = head
        return head

    def repeated_head(self, qos: int) -> bytes:
        """The same with DUP set, for what is sent again [MQTT-3.3.1-1]."""
        head = self.head(qos)
        return b"%c%b" % (head[0] | 8, head[1:])

    # --- MQTT 5.0 ---

    def frame5(self, left: int | None) -> bytes:
        """The whole PUBLISH at QoS 0."""
        five = self._five
        if not isinstance(five, _Layouts5):
            five = self._layouts5()
        elif five.frame is not None and five.left == left:
            return five.frame
        tail = b"\0" if left is None and not self.kept else self.tail5(left)
        head = publish_head_5(0x31 if self.retain else 0x30, self.topic, len(tail), len(self.payload))
        frame = head + tail + self.payload
        if not self.retain:
            five.frame = frame
        return frame

    def give_head5(self, head: bytes) -> None:
        """What `bare_head5` would build is known already, at the QoS that it was published with."""
        self._five = head

    def bare_head5(self, qos: int) -> bytes | None:
        """`head5(qos, None)` of a message that has no properties and does not expire; None if this is not such a one.
        A Property Length of 0 follows behind the Packet Identifier."""
        five = self._five
        if five.__class__ is bytes and qos == self.qos:
            return five
        if self.kept or self.expires is not None:
            return None
        if five is not None or qos != self.qos:
            return self.head5(qos, None)
        first = (0x32 if qos == 1 else 0x34) | self.retain
        head = self._five = publish_head_5(first, self.topic, 1, len(self.payload))
        return head

    def _layouts5(self) -> _Layouts5:
        five = _Layouts5()
        if isinstance(self._five, bytes):
            if self.qos == 1:
                five.head1 = self._five
            else:
                five.head2 = self._five
        self._five = five
        return five

    def head5(self, qos: int, left: int | None) -> bytes:
        """The PUBLISH at QoS 1 or 2 up to its Packet Identifier, behind which `tail5(left)` and the payload follow. It
        is the same whatever is left, unless that is None. DUP is 0."""
        five = self._five
        if not isinstance(five, _Layouts5):
            five = self._layouts5()
        head = five.head1 if qos == 1 else five.head2
        if head is None:
            first = (0x32 if qos == 1 else 0x34) | self.retain
            head = publish_head_5(first, self.topic, len(self.tail5(left)), len(self.payload))
            if qos == 1:
                five.head1 = head
            else:
                five.head2 = head
        return head

    def repeated_head5(self, qos: int, left: int | None) -> bytes:
        """The same with DUP set, for what is sent again [MQTT5-3.3.1-1]."""
        head = self.head5(qos, left)
        return b"%c%b" % (head[0] | 8, head[1:])

    def tail5(self, left: int | None) -> bytes:
        """The properties, with their Property Length."""
        if left is None and not self.kept:
            return b"\0"  # [MQTT5-2.2.2-1]
        five = self._five
        if not isinstance(five, _Layouts5):
            five = self._layouts5()
        if five.tail is not None and five.left == left:
            return five.tail
        expiry = b"" if left is None else b"%c%b" % (MESSAGE_EXPIRY_INTERVAL, left.to_bytes(4, "big"))
        tail = section(expiry + self.kept)  # [MQTT5-3.3.2-6]
        if not self.retain:
            five.tail = tail
            five.left = left
            five.frame = None
        return tail


class CameWith5(Message):
    """A message of QoS 1 as it came in MQTT 5.0, with properties, which does not expire: what it came with goes out
    again. Each takes a moment, so it is set behind the constructor, which is not made longer for it."""

    __slots__ = ("came", "told")

    came: bytes  #: what `head5(1, None)` would build
    told: bytes  #: what `tail5(None)` would build

    def bare_head5(self, qos: int) -> bytes | None:
        return None

    def head5(self, qos: int, left: int | None) -> bytes:
        return self.came if qos == 1 else super().head5(qos, left)

    def tail5(self, left: int | None) -> bytes:
        return self.told


class _Layouts5:
    """The layouts of MQTT 5.0, for a message that goes to somebody who speaks it. One is made for each such message:
    so without what would have to be set at once."""

    frame: bytes | None = None
    head1: bytes | None = None
    head2: bytes | None = None
    left: int | None = None  # what `tail` and `frame` say
    tail: bytes | None = None
