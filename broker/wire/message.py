"""An application message, and the bytes in which it goes out.

Owns: the layouts of one message, each built at most once however many clients receive it. Must not know: the clients.
"""

from .encoder import publish_head


class Message:
    """One application message as it will be delivered.

    `qos` is the one it was published with; who receives it at a lower one takes the layout of that QoS. `retain` is
    the flag as delivered: set only where a retained message answers a new subscription [MQTT-3.3.1-8] [MQTT-3.3.1-9].
    `kept` are the MQTT 5.0 properties that belong to it, encoded, without their length in front. `body_id` belongs to
    the store: where it keeps a payload that is shared between queues, 0 if it does not.
    """

    __slots__ = (
        "_frame",
        "_head1",
        "_head2",
        "body_id",
        "expires",
        "holders",
        "kept",
        "payload",
        "qos",
        "retain",
        "size",
        "topic",
    )

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
        self.expires = expires  #: when it is no longer delivered: a date as those of sessions; None: never
        #: What it counts for against limits in bytes.
        self.size = len(topic) + len(payload) + len(kept) if kept else len(topic) + len(payload)
        self.body_id = 0
        self.holders = 0  #: in how many queues it waits in memory
        self._frame: bytes | None = None
        self._head1 = head1
        self._head2: bytes | None = None

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
