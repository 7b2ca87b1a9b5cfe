"""What the broker knows of one Client Identifier.

Owns: the session's state (MQTT 3.1.1, section 4.1). Must not know: how a connection comes to be, or how messages are
routed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from ..wire.codes import MQTT_3_1_1
from .identifiers import Identifiers
from .looking_back import THREE, Client, Outgoing, Sink
from .ports import RetainedRecord, Rights


class Discard:
    """Takes frames that nobody gets, and counts them."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0

    def append(self, frame: bytes, /) -> None:
        self.count += 1


class Session:
    """The state of one client. What is seldom needed is made on demand: most clients are idle ones."""

    __slots__ = (
        "bridge",
        "client_id",
        "connection",
        "disconnected_at",
        "expiry",
        "feeding",
        "layout",
        "listener",
        "origin",
        "proven_name",
        "queue",
        "received",
        "rights",
        "sink",
        "store_id",
        "subscribed",
        "subscriptions",
        "username",
        "version",
        "will",
    )

    def __init__(self, client_id: str, store_id: int, sink: Sink) -> None:
        self.client_id = client_id
        self.store_id = store_id  #: its key in the store; 0: it is not stored, and ends with its connection
        self.connection: Client | None = None
        self.origin = ""  #: the place that it was made from (see core.ports.Gatekeeper.origin)
        self.disconnected_at: float | None = None  #: a date of core.clock
        self.username: str | None = None
        self.proven_name: str | None = None  #: the user name, if it was checked
        self.rights: Rights | None = None
        self.listener: str | None = None  #: the one that it last connected to, whose rights are its; None: not known
        self.will = 0  #: which one is published when its client has gone (see wills); 0: none
        #: Seconds that it lasts without its client, inf: for ever; None: as the options say (Limits.session_expiry).
        self.expiry: float | None = None
        self.version = MQTT_3_1_1  #: the protocol level of its client, now or last
        self.layout = THREE  #: how its client gets messages, now or last (looking_back)
        self.bridge = False  #: is its client a broker, too?
        self.sink = sink  #: where frames of QoS 0 go
        self.subscriptions: dict[bytes, int] | None = None  #: Topic Filter -> options
        self.subscribed = 0  #: what they take, as router.weight counts
        self.queue: Outgoing | None = None  #: its way out at QoS 1 and 2; made with the first subscription above QoS 0
        self.received: Identifiers | None = None  #: of QoS 2 messages that it has not released [MQTT-4.3.3-2]
        #: Retained messages on their way to it: by Topic Filter, the messages and the options.
        self.feeding: OrderedDict[bytes, tuple[Iterator[RetainedRecord | None], int]] | None = None

    @property
    def lasts(self) -> bool:
        """Does it go on when its client has gone? [MQTT5-3.1.2-23]"""
        return self.expiry is None or self.expiry > 0
