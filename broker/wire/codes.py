"""The numbers of MQTT 3.1 and 3.1.1, and the one error that bad bytes raise.

Owns: names for what stands on the wire. Must not know: connections, sessions, sockets, time.
"""

from enum import IntEnum

CONNECT = 1
CONNACK = 2
PUBLISH = 3
PUBACK = 4
PUBREC = 5
PUBREL = 6
PUBCOMP = 7
SUBSCRIBE = 8
SUBACK = 9
UNSUBSCRIBE = 10
UNSUBACK = 11
PINGREQ = 12
PINGRESP = 13
DISCONNECT = 14

#: Names for people, by packet type (MQTT 3.1.1, table 2.1).
PACKET_NAMES = (
    "reserved packet 0", "CONNECT", "CONNACK", "PUBLISH", "PUBACK", "PUBREC", "PUBREL", "PUBCOMP",
    "SUBSCRIBE", "SUBACK", "UNSUBSCRIBE", "UNSUBACK", "PINGREQ", "PINGRESP", "DISCONNECT", "reserved packet 15",
)  # fmt: skip

MQTT_3_1 = 3
MQTT_3_1_1 = 4

#: The largest value of the Remaining Length field (MQTT 3.1.1, table 2.4).
MAX_REMAINING_LENGTH = 268_435_455

#: SUBACK's return code for a subscription that is refused [MQTT-3.9.3-2].
SUBSCRIBE_FAILURE = 0x80


class ReturnCode(IntEnum):
    """The CONNACK return codes (MQTT 3.1.1, table 3.1)."""

    ACCEPTED = 0
    UNACCEPTABLE_PROTOCOL_VERSION = 1
    IDENTIFIER_REJECTED = 2
    SERVER_UNAVAILABLE = 3
    BAD_USER_NAME_OR_PASSWORD = 4
    NOT_AUTHORIZED = 5


class ProtocolError(Exception):
    """The client broke a rule: its connection ends, as an abnormal one [MQTT-4.8.0-1].

    `code` is the return code of the CONNACK that is owed before the close, and None where the close is all
    the answer [MQTT-3.1.4-1]. `why` is for the log: it names the rule, never the client's data at length.
    """

    def __init__(self, why: str, code: ReturnCode | None = None) -> None:
        super().__init__(why)
        self.why = why
        self.code = code
