"""The numbers of MQTT 3.1, 3.1.1 and 5.0, and the one error that bad bytes raise.

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
AUTH = 15  # of MQTT 5.0 only

#: Names for people, by packet type (MQTT 5.0, table 2-1).
PACKET_NAMES = (
    "reserved packet 0", "CONNECT", "CONNACK", "PUBLISH", "PUBACK", "PUBREC", "PUBREL", "PUBCOMP",
    "SUBSCRIBE", "SUBACK", "UNSUBSCRIBE", "UNSUBACK", "PINGREQ", "PINGRESP", "DISCONNECT", "AUTH",
)  # fmt: skip

MQTT_3_1 = 3
MQTT_3_1_1 = 4
MQTT_5 = 5

#: Every version that this broker can read.
VERSIONS = frozenset({MQTT_3_1, MQTT_3_1_1, MQTT_5})

#: Names for people, by protocol level.
VERSION_NAMES = {MQTT_3_1: "3.1", MQTT_3_1_1: "3.1.1", MQTT_5: "5.0"}

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


#: The first reason code that tells of a failure.
FAILURE = 0x80


class ReasonCode(IntEnum):
    """How something ended (MQTT 5.0, table 2-6): 0x80 and above are failures.

    Zero has three names there: Success, Normal disconnection, Granted QoS 0.
    """

    SUCCESS = 0x00
    GRANTED_QOS_1 = 0x01
    GRANTED_QOS_2 = 0x02
    DISCONNECT_WITH_WILL_MESSAGE = 0x04
    NO_MATCHING_SUBSCRIBERS = 0x10
    NO_SUBSCRIPTION_EXISTED = 0x11
    CONTINUE_AUTHENTICATION = 0x18
    RE_AUTHENTICATE = 0x19
    UNSPECIFIED_ERROR = 0x80
    MALFORMED_PACKET = 0x81
    PROTOCOL_ERROR = 0x82
    IMPLEMENTATION_SPECIFIC_ERROR = 0x83
    UNSUPPORTED_PROTOCOL_VERSION = 0x84
    CLIENT_IDENTIFIER_NOT_VALID = 0x85
    BAD_USER_NAME_OR_PASSWORD = 0x86
    NOT_AUTHORIZED = 0x87
    SERVER_UNAVAILABLE = 0x88
    SERVER_BUSY = 0x89
    BANNED = 0x8A
    SERVER_SHUTTING_DOWN = 0x8B
    BAD_AUTHENTICATION_METHOD = 0x8C
    KEEP_ALIVE_TIMEOUT = 0x8D
    SESSION_TAKEN_OVER = 0x8E
    TOPIC_FILTER_INVALID = 0x8F
    TOPIC_NAME_INVALID = 0x90
    PACKET_IDENTIFIER_IN_USE = 0x91
    PACKET_IDENTIFIER_NOT_FOUND = 0x92
    RECEIVE_MAXIMUM_EXCEEDED = 0x93
    TOPIC_ALIAS_INVALID = 0x94
    PACKET_TOO_LARGE = 0x95
    MESSAGE_RATE_TOO_HIGH = 0x96
    QUOTA_EXCEEDED = 0x97
    ADMINISTRATIVE_ACTION = 0x98
    PAYLOAD_FORMAT_INVALID = 0x99
    RETAIN_NOT_SUPPORTED = 0x9A
    QOS_NOT_SUPPORTED = 0x9B
    USE_ANOTHER_SERVER = 0x9C
    SERVER_MOVED = 0x9D
    SHARED_SUBSCRIPTIONS_NOT_SUPPORTED = 0x9E
    CONNECTION_RATE_EXCEEDED = 0x9F
    MAXIMUM_CONNECT_TIME = 0xA0
    SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED = 0xA1
    WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED = 0xA2


class ProtocolError(Exception):
    """The client broke a rule: its connection ends, as an abnormal one [MQTT-4.8.0-1] [MQTT5-4.13.1-1].

    `why` is for the log, and for the Reason String: it names the rule, never the client's data at length.
    `code` is the return code of the CONNACK that a client of MQTT 3.1.1 is owed before the close, and None where the
    close is all the answer [MQTT-3.1.4-1]. `reason` is what a client of MQTT 5.0 is told. `level` is the protocol level
    of the CONNECT that is at fault, and 0 where that is not known, or it is another packet.
    """

    def __init__(
        self, why: str, code: ReturnCode | None = None, reason: ReasonCode = ReasonCode.MALFORMED_PACKET
    ) -> None:
        super().__init__(why)
        self.why = why
        self.code = code
        self.reason = reason
        self.level = 0
