"""An MQTT 3.1.1 broker that is right, unless it is told to be wrong: the suite is on trial with it.

Owns: `FaultyBroker` and the names of its faults (`FAULTS`). It is simple and slow, a thread per connection and one lock
for everything, so that one can see that it is right. It uses the suite's own codec, and nothing of `broker`.

How to add a fault: a line in `FAULTS` with the statements that it breaks, and the one place below where the broker
asks `self.has("the fault")`. `test_suite_on_trial.py` does the rest.
"""

import contextlib
import dataclasses
import itertools
import posixpath
import secrets
import socket
import threading
import time
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from conformance import packets
from conformance.packets import (
    Acknowledgement,
    Connect,
    Decoder,
    Packet,
    Publish,
    Subscribe,
    Unsubscribe,
    Will,
)
from conformance.target import Broker, Endpoint

USERNAME, PASSWORD = "alice", "open sesame"
REFUSED_CLIENT_ID = "refused"
FORBIDDEN = "forbidden/topic"
LIMIT = 2

#: What the broker says of itself.
SYS_TOPIC = "$SYS/broker/version"

#: The statements that a malformed CONNECT breaks, one way or another.
MALFORMED_CONNECT = (
    *("MQTT-3.1.2-9", "MQTT-3.1.2-11", "MQTT-3.1.2-13", "MQTT-3.1.2-14", "MQTT-3.1.2-15", "MQTT-3.1.2-18"),
    *("MQTT-3.1.2-19", "MQTT-3.1.2-20", "MQTT-3.1.2-21", "MQTT-3.1.2-22", "MQTT-3.1.3-3", "MQTT-3.1.4-1"),
)

#: The statements of acknowledgements that are nothing but a Packet Identifier.
ACKNOWLEDGEMENTS = ("3.4.1/length", "3.5.1/length", "3.6.1/length", "3.7.1/length")

#: Each fault, and the statements that a broker with it breaks.
FAULTS: dict[str, tuple[str, ...]] = {
    # 1.5 Strings
    "topic names are not checked": ("MQTT-1.5.3-1", "MQTT-1.5.3-2", "MQTT-3.3.2-1", "MQTT-4.7.3-2"),
    "filters are not checked": (
        *("MQTT-1.5.3-1", "MQTT-1.5.3-2", "MQTT-3.8.3-1", "MQTT-3.10.3-1", "MQTT-4.7.1-2", "MQTT-4.7.1-3"),
        *("MQTT-4.7.3-1", "MQTT-4.7.3-2"),
    ),
    "ill-formed topic names are passed on": ("MQTT-1.5.3-1",),
    "U+FEFF is removed": ("MQTT-1.5.3-3",),
    "U+FEFF is removed from the beginning": ("MQTT-1.5.3-3",),
    "U+FEFF does not count in unsubscribed filters": ("MQTT-1.5.3-3",),
    # 2.2 Fixed header
    "reserved packet types are ignored": ("2.2.1/reserved-types",),
    "answers have header flags": ("MQTT-2.2.2-1", "MQTT-3.6.1-1"),
    "header flags are not checked": ("MQTT-2.2.2-2", "MQTT-3.6.1-1"),
    "packets with wrong header flags are dropped": ("MQTT-2.2.2-2", "MQTT-3.6.1-1"),
    "packets above 126 bytes are refused": ("2.2.3/length",),
    "padded lengths are ignored": ("2.2.3/length",),
    "five length bytes are ignored": ("2.2.3/four-bytes",),
    # 2.3 Packet Identifier
    "identifier 0 is taken": ("MQTT-2.3.1-1",),
    "identifiers begin with 0": ("MQTT-2.3.1-1",),
    "all identifiers are 1": ("MQTT-2.3.1-4", "MQTT-4.3.2-1", "MQTT-4.3.3-1"),
    "identifiers are free after PUBREC": ("MQTT-2.3.1-4",),
    "identifiers in use are forgotten": ("MQTT-2.3.1-4",),
    "QoS 0 has an identifier": ("MQTT-2.3.1-5",),
    "QoS 0 is read with an identifier": ("MQTT-2.3.1-5",),
    "PUBACK has the wrong identifier": ("MQTT-2.3.1-6", "MQTT-4.3.2-2"),
    "PUBREC has the wrong identifier": ("MQTT-2.3.1-6", "MQTT-4.3.3-2"),
    "PUBREL has the wrong identifier": ("MQTT-2.3.1-6", "MQTT-4.3.3-1"),
    "PUBCOMP has the wrong identifier": ("3.7.2/identifier", "MQTT-4.3.3-2"),
    "SUBACK has the wrong identifier": ("MQTT-2.3.1-7",),
    "UNSUBACK has the wrong identifier": ("MQTT-2.3.1-7",),
    "identifiers are shared by both directions": ("2.3.1/independent",),
    # 3.1 The first packet, and only the first
    "first packet may be anything": ("MQTT-3.1.0-1", "MQTT-4.8.0-1"),
    "second connect is ignored": ("MQTT-3.1.0-2", "MQTT-4.8.0-1"),
    "second connect is answered": ("MQTT-3.1.0-2", "MQTT-4.8.0-1"),
    # 3.1.2 Variable header
    "any protocol name": ("MQTT-3.1.2-1",),
    "unknown level is accepted": ("MQTT-3.1.2-2",),
    "unknown level is dropped": ("MQTT-3.1.2-2",),
    "reserved connect flag is ignored": ("MQTT-3.1.2-3", "MQTT-3.1.4-1"),
    "sessions are not kept": ("MQTT-3.1.2-4", "MQTT-3.1.2-5", "MQTT-3.1.4-3", "MQTT-3.2.2-2", "MQTT-4.1.0-1"),
    "persistent clients are refused": ("MQTT-3.1.2-4",),
    "unsubscribed filters return": ("MQTT-3.1.2-4",),
    "nothing waits": ("MQTT-3.1.2-5", "MQTT-4.5.0-1"),
    "only the first message waits": ("MQTT-3.1.2-5",),
    "clean session keeps subscriptions": ("MQTT-3.1.2-6", "MQTT-3.1.4-3"),
    "clean session keeps messages": ("MQTT-3.1.2-6", "MQTT-3.1.4-3"),
    "clean session keeps incoming identifiers": ("MQTT-3.1.2-6",),
    "clean session outlives its connection": ("MQTT-3.1.2-6", "MQTT-3.2.2-3"),
    "subscriptions belong to client ids": ("MQTT-3.1.2-6", "MQTT-3.1.4-3"),
    "retained messages die with their session": ("MQTT-3.1.2-7",),
    "no will": ("MQTT-3.1.2-8",),
    "no will at takeover": ("MQTT-3.1.2-8",),
    "no will after a violation": ("MQTT-3.1.2-8",),
    "no will after a keep alive timeout": ("MQTT-3.1.2-8",),
    "will payload is cut": ("MQTT-3.1.2-8",),
    "no will for its own client": ("MQTT-3.1.2-8",),
    "will has QoS 0": ("3.1.2.6/will-qos",),
    "will has QoS 2": ("3.1.2.6/will-qos",),
    "will ignores the granted QoS": ("3.1.2.6/will-qos",),
    "will is never forgotten": ("MQTT-3.1.2-10", "MQTT-3.1.2-12"),
    "end of every connection is published": ("MQTT-3.1.2-10", "MQTT-3.1.2-12"),
    "will of a refused client is published": ("MQTT-3.1.2-12",),
    "will is always retained": ("MQTT-3.1.2-16",),
    "will is never retained": ("MQTT-3.1.2-17",),
    "will bits are not checked": ("MQTT-3.1.2-11", "MQTT-3.1.2-13", "MQTT-3.1.2-15", "MQTT-3.1.4-1"),
    "will QoS 3 is taken": ("MQTT-3.1.2-14", "MQTT-3.1.4-1"),
    "surplus bytes are ignored": ("MQTT-3.1.2-11", "MQTT-3.1.2-18", "MQTT-3.1.2-20", "MQTT-3.1.4-1"),
    "missing fields are taken as empty": (
        *("MQTT-3.1.2-9", "MQTT-3.1.2-19", "MQTT-3.1.2-21", "MQTT-3.1.3-3", "MQTT-3.1.4-1", "MQTT-4.8.0-1"),
    ),
    "password needs no user name": ("MQTT-3.1.2-22", "MQTT-3.1.4-1"),
    "no keep alive": ("MQTT-3.1.2-24",),
    "keep alive counts what is received": ("MQTT-3.1.2-24",),
    # 3.1.3 Payload
    "client ids ignore case": ("MQTT-3.1.3-2", "MQTT-3.1.4-2"),
    "client ids are cut after 23 bytes": ("MQTT-3.1.3-2",),
    "strings are not checked": ("MQTT-3.1.3-4", "MQTT-3.1.3-10", "MQTT-3.1.3-11"),
    "client ids of 23 bytes are refused": ("MQTT-3.1.3-5", "MQTT-3.1.4-4"),
    "client ids begin with a letter": ("MQTT-3.1.3-5", "MQTT-3.1.4-4"),
    "unusual client ids are refused with code 5": ("MQTT-3.1.3-9",),
    "empty client ids are one client": ("MQTT-3.1.3-6",),
    "empty client ids share their subscriptions": ("MQTT-3.1.3-6",),
    "empty client id may keep its session": ("MQTT-3.1.3-7", "MQTT-3.1.3-8", "MQTT-3.1.3-9"),
    "empty client id is dropped": ("MQTT-3.1.3-7", "MQTT-3.1.3-8", "MQTT-3.1.3-9"),
    "client ids are refused with code 5": ("MQTT-3.1.3-7", "MQTT-3.1.3-8", "MQTT-3.1.3-9"),
    "wildcards in a will topic": ("MQTT-4.7.1-1",),
    "empty will topic": ("MQTT-4.7.3-1",),
    # 3.1.4 Response
    "malformed connect is answered": MALFORMED_CONNECT,
    "malformed connect is ignored": (*MALFORMED_CONNECT, "MQTT-4.8.0-1"),
    "connect header flags are ignored": ("MQTT-3.1.4-1", "MQTT-2.2.2-2"),
    "nobody is evicted": ("MQTT-3.1.4-2",),
    "the newcomer is turned away": ("MQTT-3.1.4-2",),
    "takeover loses the session": ("MQTT-3.1.4-3", "MQTT-3.1.2-4", "MQTT-3.2.2-2"),
    "wills are refused": ("MQTT-3.1.4-4",),
    "keep alives other than 60 are refused": ("MQTT-3.1.4-4",),
    "known users are refused": ("MQTT-3.1.4-4",),
    "connect must come whole": ("MQTT-3.1.4-4",),
    "early packets are lost": ("3.1.4/early-packets",),
    "packets behind a refusal are processed": ("MQTT-3.1.4-5",),
    "answers behind a refusal": ("MQTT-3.1.4-5",),
    "wrong password is not disconnected": ("3.1.4/refused-closes",),
    # 3.2 CONNACK
    "connack comes second": ("MQTT-3.2.0-1",),
    "answers before connack": ("MQTT-3.2.0-1",),
    "stored messages before connack": ("MQTT-3.2.0-1",),
    "session is always present": ("MQTT-3.2.2-1", "MQTT-3.2.2-3", "MQTT-3.2.2-4"),
    "session is never present": ("MQTT-3.2.2-2",),
    "empty session is not present": ("MQTT-3.2.2-2",),
    "discarded session is present": ("MQTT-3.2.2-1",),
    "session is present in a refusal": ("MQTT-3.2.2-4",),
    "stored session is present in a refusal": ("MQTT-3.2.2-4",),
    "refusal leaves the connection open": ("MQTT-3.2.2-5", "3.1.4/refused-closes"),
    "connack is too long": ("3.2.1/length",),
    "connack has reserved bits": ("3.2.2.1/reserved-bits",),
    "connack has header flags": ("MQTT-2.2.2-1",),
    "connack has a reserved code": ("3.2.2.3/reserved-codes",),
    # 3.3 PUBLISH
    "redelivery has no DUP": ("MQTT-3.3.1-1", "MQTT-4.4.0-1"),
    "QoS 0 has DUP": ("MQTT-3.3.1-2", "MQTT-4.3.1-1"),
    "DUP is propagated": ("MQTT-3.3.1-3",),
    "stored messages have DUP": ("MQTT-3.3.1-3",),
    "QoS 3 is taken": ("MQTT-3.3.1-4",),
    "nothing is retained": ("MQTT-3.3.1-5", "MQTT-3.3.1-6", "MQTT-3.3.1-8"),
    "retained messages have QoS 0": ("MQTT-3.3.1-5",),
    "retained messages are cut": ("MQTT-3.3.1-5",),
    "retained messages are sent once": ("MQTT-3.3.1-5", "MQTT-3.3.1-6"),
    "retained messages are not replaced": ("MQTT-3.3.1-6", "MQTT-3.3.1-7"),
    "one retained message is sent": ("MQTT-3.3.1-6",),
    "QoS 0 discards nothing": ("MQTT-3.3.1-7",),
    "retained messages come without RETAIN": ("MQTT-3.3.1-8",),
    "RETAIN is propagated": ("MQTT-3.3.1-9", "MQTT-3.3.1-10"),
    "empty messages remove nothing": ("MQTT-3.3.1-10",),
    "empty messages are not delivered": ("MQTT-3.3.1-10",),
    "empty messages are retained": ("MQTT-3.3.1-11",),
    "everything is retained": ("MQTT-3.3.1-12",),
    "all empty messages remove": ("MQTT-3.3.1-12",),
    "malformed packets are ignored": ("MQTT-3.3.2-1", *ACKNOWLEDGEMENTS),
    "topics are changed": ("MQTT-3.3.2-1", "MQTT-3.3.2-3"),
    "PUBACK and PUBREC are mixed up": ("MQTT-3.3.4-1",),
    "QoS 0 is acknowledged": ("MQTT-3.3.4-1",),
    "the lowest QoS counts": ("MQTT-3.3.5-1",),
    "forbidden messages are not acknowledged": ("MQTT-3.3.5-2",),
    # 3.4 to 3.7 Acknowledgements
    "acknowledgements are too long": ACKNOWLEDGEMENTS,
    # 3.8 SUBSCRIBE
    "subscribe header flags are ignored": ("MQTT-3.8.1-1",),
    "wildcards are letters": ("MQTT-3.8.3-2", "4.7.1.2/multi-level", "4.7.1.3/single-level"),
    "subscribe needs no filter": ("MQTT-3.8.3-3",),
    "incomplete requests are ignored": ("MQTT-4.8.0-1",),
    "requested QoS 3 is 2": ("MQTT-3.8.3-4",),
    "requested QoS 3 is refused": ("MQTT-3.8.3-4",),
    "reserved bits of the requested QoS are ignored": ("MQTT-3.8.3-4",),
    "requested QoS is not checked": ("MQTT-3.8.3-4",),
    "no suback": ("MQTT-3.8.4-1", "MQTT-3.8.4-4", "MQTT-3.8.4-5"),
    "one suback for several subscribes": ("MQTT-3.8.4-1", "MQTT-3.8.4-2"),
    "suback and unsuback have another packet id": ("MQTT-3.8.4-2", "MQTT-3.10.4-4", "MQTT-2.3.1-7"),
    "suback and unsuback have half a packet id": ("MQTT-3.8.4-2", "MQTT-3.10.4-4", "MQTT-2.3.1-7"),
    "packet ids of both directions are one": ("MQTT-3.8.4-2", "MQTT-2.3.1-7"),
    "subscriptions pile up": ("MQTT-3.8.4-3",),
    "first subscription stays": ("MQTT-3.8.4-3",),
    "known filters bring no retained messages": ("MQTT-3.8.4-3",),
    "resumed filters bring no retained messages": ("MQTT-3.8.4-3",),
    "known filters bring a break": ("MQTT-3.8.4-3",),
    "only the first filter counts": ("MQTT-3.8.4-4",),
    "a suback for each filter": ("MQTT-3.8.4-4", "MQTT-3.8.4-5"),
    "a refused filter ends the list": ("MQTT-3.8.4-4", "MQTT-3.8.4-5"),
    "all filters have the first QoS": ("MQTT-3.8.4-4",),
    "retained messages for the first filter only": ("MQTT-3.8.4-4",),
    "suback has one code": ("MQTT-3.8.4-4", "MQTT-3.8.4-5", "MQTT-3.9.3-1"),
    "suback says QoS 2": ("MQTT-3.8.4-5", "MQTT-3.9.3-1"),
    "suback is empty": ("MQTT-3.8.4-5",),
    "messages have their own QoS": ("MQTT-3.8.4-6",),
    "messages have the granted QoS": ("MQTT-3.8.4-6",),
    "messages have another QoS": ("MQTT-3.8.4-6",),
    "retained messages have the granted QoS": ("MQTT-3.8.4-6",),
    "stored messages have QoS 1": ("MQTT-3.8.4-6",),
    # 3.9 SUBACK
    "suback codes are sorted": ("MQTT-3.9.3-1",),
    "suback codes are turned around": ("MQTT-3.9.3-1",),
    "refusals come last": ("MQTT-3.9.3-1", "MQTT-3.8.4-5"),
    "suback codes have a bit more": ("MQTT-3.9.3-2",),
    "refusals have code 0x87": ("MQTT-3.9.3-2",),
    "suback has header flags": ("MQTT-2.2.2-1",),
    # 3.10 UNSUBSCRIBE
    "unsubscribe header flags are ignored": ("MQTT-3.10.1-1",),
    "unsubscribe needs no filter": ("MQTT-3.10.3-2",),
    "unsubscribed wildcards match": ("MQTT-3.10.4-1",),
    "unsubscribed filters ignore case": ("MQTT-3.10.4-1",),
    "unsubscribed filters are normalised": ("MQTT-3.10.4-1",),
    "unsubscribed filters begin alike": ("MQTT-3.10.4-1",),
    "unsubscribe concerns everybody": ("MQTT-3.10.4-1",),
    "unsubscribe does nothing": ("MQTT-3.10.4-1", "MQTT-3.10.4-2", "MQTT-3.10.4-6"),
    "unsubscribed filters wait": ("MQTT-3.10.4-2",),
    "unsubscribe drops what is under way": ("MQTT-3.10.4-3",),
    "unsubscribed messages are not released again": ("MQTT-3.10.4-3",),
    "no unsuback": ("MQTT-3.10.4-4", "MQTT-3.10.4-5", "MQTT-3.10.4-6"),
    "unsuback for known filters only": ("MQTT-3.10.4-5",),
    "an unsuback for each filter": ("MQTT-3.10.4-6",),
    "only the first filter is unsubscribed": ("MQTT-3.10.4-6",),
    # 3.11 to 3.13
    "unsuback is too long": ("3.11.1/length",),
    "unsuback has header flags": ("MQTT-2.2.2-1",),
    "no pingresp": ("MQTT-3.12.4-1",),
    "one pingresp for several pingreqs": ("MQTT-3.12.4-1",),
    "no pingresp while messages are under way": ("MQTT-3.12.4-1",),
    "pingresp is too long": ("3.13.1/length",),
    "pingresp has header flags": ("MQTT-2.2.2-1",),
    # 3.14 DISCONNECT
    "disconnect header flags are ignored": ("MQTT-3.14.1-1",),
    "wrong disconnect is ignored": ("MQTT-3.14.1-1",),
    "will survives disconnect": ("MQTT-3.14.4-3", "MQTT-3.1.2-10"),
    "retained will survives disconnect": ("MQTT-3.14.4-3",),
    "disconnect removes every will": ("MQTT-3.14.4-3",),
    # 4.1 State
    "restart loses messages": ("MQTT-4.1.0-1",),
    "restart loses incoming identifiers": ("MQTT-4.1.0-1",),
    "violation ends the session": ("MQTT-4.1.0-1",),
    "third login loses messages": ("MQTT-4.1.0-1",),
    "unsubscribe removes every subscription": ("MQTT-4.1.0-1",),
    "old connection ends the new session": ("MQTT-4.1.0-2",),
    "end of a session ends others": ("MQTT-4.1.0-2",),
    "failed login ends the session": ("MQTT-4.1.0-2",),
    # 4.3 Quality of Service
    "QoS 0 is sent again": ("4.3.1/once",),
    "some messages are lost": ("4.3/end-to-end",),
    "acknowledgements end nothing": ("4.3.2/done", "4.3.3/done", "MQTT-4.4.0-1"),
    "known identifiers are not new": ("MQTT-4.3.2-2",),
    "no PUBREL": ("MQTT-4.3.3-1",),
    "PUBLISH is sent again after PUBREL": ("MQTT-4.3.3-1",),
    "duplicates are delivered": ("MQTT-4.3.3-2",),
    "duplicates are not acknowledged": ("MQTT-4.3.3-2",),
    "completed identifiers are not new": ("MQTT-4.3.3-2",),
    "incoming identifiers are forgotten": ("MQTT-4.3.3-2",),
    "unknown identifiers are not completed": ("MQTT-4.3.3-2",),
    # 4.4 Sending again
    "nothing is sent again": ("MQTT-4.4.0-1", "MQTT-4.3.2-1", "MQTT-4.3.3-1"),
    "sent again under new identifiers": ("MQTT-4.4.0-1", "MQTT-4.3.2-1", "MQTT-4.3.3-1"),
    "PUBREL is not sent again": ("MQTT-4.4.0-1", "MQTT-4.3.3-1"),
    # 4.5 Receipt
    "publisher gets nothing": ("MQTT-4.5.0-1",),
    "one subscriber gets it": ("MQTT-4.5.0-1",),
    "long payloads are cut": ("MQTT-4.5.0-1", "MQTT-7.1.1-1"),
    "empty payloads are dropped": ("MQTT-4.5.0-1",),
    "payloads end before a NUL": ("MQTT-4.5.0-1",),
    "more than 20 messages are dropped": ("MQTT-4.5.0-1",),
    # 4.6 Order
    "sent again in reverse": ("MQTT-4.6.0-1", "MQTT-4.6.0-4", "MQTT-4.6.0-6"),
    "PUBRELs change places": ("MQTT-4.6.0-4", "MQTT-4.6.0-6"),
    "messages change places": ("MQTT-4.6.0-5", "MQTT-4.6.0-6"),
    # 4.7 Topics
    "topic names may have wildcards": ("MQTT-4.7.1-1", "MQTT-3.3.2-2"),
    "topic names with wildcards are passed on": ("MQTT-4.7.1-1", "MQTT-3.3.2-2"),
    "wrong wildcards are letters": ("MQTT-4.7.1-2", "MQTT-4.7.1-3"),
    "wrong filters are not answered": ("MQTT-4.7.1-2", "MQTT-4.7.1-3", "MQTT-4.7.3-1"),
    "hash matches no parent": ("4.7.1.2/multi-level",),
    "hash matches one level": ("4.7.1.2/multi-level",),
    "hash matches siblings": ("4.7.1.2/multi-level",),
    "plus matches no empty level": ("4.7.1.3/single-level",),
    "plus matches more levels": ("4.7.1.3/single-level",),
    "plus matches the parent": ("4.7.1.3/single-level",),
    "wildcards match dollar topics": ("MQTT-4.7.2-1",),
    "hash matches dollar topics of clients": ("MQTT-4.7.2-1",),
    "dollar topics have no plus": ("4.7.1.3/single-level",),
    "empty topic names are taken": ("MQTT-4.7.3-1",),
    "empty filters are taken": ("MQTT-4.7.3-1",),
    "topics ignore case": ("MQTT-4.7.3-4",),
    "topics are normalised": ("MQTT-4.7.3-4",),
    "topics are paths": ("MQTT-4.7.3-4",),
    "topics are trimmed": ("MQTT-4.7.3-4",),
    "only letters of a topic count": ("MQTT-4.7.3-4",),
    "only the first letters of levels count": ("MQTT-4.7.3-4",),
    "odd characters are replaced": ("MQTT-4.7.3-4",),
    "topic names are delivered in lower case": ("MQTT-4.7.3-4",),
    "a slash is no filter": ("4.7.3/slash",),
    # 4.8 Errors
    "unexpected packets are ignored": ("MQTT-4.8.0-1",),
    "packets cut short are ignored": ("MQTT-4.8.0-1",),
    "long Remaining Length is waited for": ("MQTT-4.8.0-1",),
    "violation ends every connection": ("MQTT-4.8.0-1",),
    # 6 WebSocket
    "text frames are sent": ("MQTT-6.0.0-1",),
    "text frames are taken": ("MQTT-6.0.0-1",),
    "text frames are ignored": ("MQTT-6.0.0-1",),
    "a frame is a packet": ("MQTT-6.0.0-2",),
    "a frame begins with a packet": ("MQTT-6.0.0-2",),
    "fragments are lost": ("MQTT-6.0.0-2",),
    "frames are cut after 120 bytes": ("MQTT-6.0.0-2",),
    "no subprotocol is selected": ("MQTT-6.0.0-4",),
    "the first subprotocol is selected": ("MQTT-6.0.0-4",),
    "any subprotocol is selected": ("MQTT-6.0.0-4",),
    # 7 Targets
    "packets must come whole": ("MQTT-7.1.1-1",),
    "one packet at a time": ("MQTT-7.1.1-1",),
    "subscribers are not served": ("MQTT-7.1.1-1", "MQTT-4.5.0-1"),
}


#: What a broker may do, but few do, or should not: these statements get a WARN.
ODDITIES: dict[str, tuple[str, ...]] = {
    "will is late": ("3.1.2.5/prompt-will",),
    "keep alive 0 is 1": ("3.1.2.10/keep-alive-zero",),
    "long keep alives are cut short": ("3.1.2.10/keep-alive-zero",),
    "keep alive runs from connect": ("MQTT-3.1.2-24",),
    "every byte keeps alive": ("MQTT-3.1.2-24",),
    "malformed strings are refused with code 2": ("MQTT-3.1.3-4", "MQTT-3.1.3-10", "MQTT-3.1.3-11"),
    "failed login evicts": ("3.1.4/evict-after-checks",),
    "refusals are silent": ("3.2.2.3/refusal-code",),
    "refusals have code 3": ("3.2.2.3/refusal-code",),
    "QoS 0 is not retained": ("3.3.1.3/qos-0-retained",),
    # 3.8 to 4.8
    "wildcards are refused": ("3.8.3/wildcards",),
    "wildcards are dropped": ("3.8.3/wildcards",),
    "forbidden filters are granted": ("MQTT-3.8.4-5",),
    "forbidden filters are dropped": ("MQTT-3.8.4-5",),
    "disconnect is not followed by the end": ("3.14.4/close",),
    "restart ends every session": ("MQTT-4.1.0-1",),
    "restart loses retained messages": ("4.1/retained-kept",),
    "whoever connects gets what is retained": ("MQTT-4.5.0-1",),
    "clients may use dollar topics": ("4.7.2/exchange",),
    "empty filters can be unsubscribed": ("MQTT-4.7.3-1",),
    "long topics are refused": ("4.7.3/length",),
    "deep topics are refused": ("4.7.3/levels",),
    "surplus bytes are taken": ("MQTT-4.8.0-1",),
}

#: How long the broker waits for a WebSocket handshake, in seconds.
HANDSHAKE_SECONDS = 10.0

#: How much too late the will is with "will is late", in seconds.
LATE = 2.5


class Violation(Exception):
    """The client broke a rule: its connection ends."""


@dataclass
class Outgoing:
    """A QoS 1 or 2 message on its way to a client."""

    packet_id: int
    topic: str
    payload: bytes
    qos: int
    retain: bool
    state: str = "queued"  # then sent, and with QoS 2 released
    dup: bool = False


@dataclass
class Session:
    client_id: bytes
    clean: bool
    subscriptions: dict[str, int] = field(default_factory=dict)
    outgoing: list[Outgoing] = field(default_factory=list)
    incoming: set[int] = field(default_factory=set)
    retained: set[str] = field(default_factory=set)
    unsubscribed: dict[str, int] = field(default_factory=dict)
    resumed: set[str] = field(default_factory=set)
    copies: dict[str, int] = field(default_factory=dict)
    deaf: bool = False
    logins: int = 0
    known: set[int] = field(default_factory=set)
    delivered: list[tuple[str, bytes]] = field(default_factory=list)
    waiting: list[tuple[str, bytes, int, bool]] = field(default_factory=list)
    count: int = 0
    connection: "Connection | None" = None
    next_id: int = 0

    def new_id(self) -> int:
        used = {message.packet_id for message in self.outgoing}
        while True:
            self.next_id = self.next_id % 65535 + 1
            if self.next_id not in used:
                return self.next_id


class WebSocket:
    """Looks like a socket, and carries its bytes in WebSocket frames. `has` knows the broker's faults."""

    def __init__(self, sock: socket.socket, has: Callable[[str], bool]) -> None:
        self._sock = sock
        self._has = has
        # `websockets` makes a method of the function that it is given.
        self._protocol = ServerProtocol(select_subprotocol=lambda protocol, offered: self._select(offered))
        while self._protocol.state is State.CONNECTING and not self._protocol.handshake_exc:
            data = sock.recv(65536)
            if not data:
                raise Violation("no handshake")
            self._protocol.receive_data(data)
            for event in self._protocol.events_received():
                if isinstance(event, Request):
                    self._protocol.send_response(self._protocol.accept(event))
            self._flush()
        if self._protocol.state is not State.OPEN:
            raise Violation("the handshake was refused")

    def _select(self, offered: Sequence[Subprotocol]) -> Subprotocol | None:
        if self._has("any subprotocol is selected") and "mqtt" not in offered:
            return offered[0]
        if self._has("the first subprotocol is selected"):
            return offered[0]
        return Subprotocol("mqtt") if "mqtt" in offered and not self._has("no subprotocol is selected") else None

    def recv(self, size: int) -> bytes:
        while True:
            data = self._sock.recv(size)
            if not data:
                return b""
            self._protocol.receive_data(data)
            events = self._protocol.events_received()
            self._flush()
            if self._protocol.state is not State.OPEN:
                return b""
            found = b"".join(self._payload(event) for event in events if isinstance(event, Frame))
            if found:
                return found

    def _payload(self, frame: Frame) -> bytes:
        data = bytes(frame.data)
        if frame.opcode is Opcode.TEXT and self._has("text frames are ignored"):
            return b""
        if frame.opcode is Opcode.TEXT and not self._has("text frames are taken"):
            self._protocol.fail(1003)
            self._flush()
            raise Violation("a text frame")
        if frame.opcode is Opcode.CONT and self._has("fragments are lost"):
            return b""
        if frame.opcode not in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            return b""
        if self._has("a frame is a packet"):
            return data[: packet_size(data)] if packet_size(data) <= len(data) else b""
        if self._has("a frame begins with a packet") and not packets.decode_all(data):
            return b""
        return data[:120] if self._has("frames are cut after 120 bytes") else data

    def sendall(self, data: bytes) -> None:
        if self._has("text frames are sent") and data.isascii():
            self._protocol.send_text(data)
        else:
            self._protocol.send_binary(data)
        self._flush()

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self._sock.sendall(data)

    def settimeout(self, seconds: float | None) -> None:
        self._sock.settimeout(seconds)

    def shutdown(self, how: int) -> None:
        self._sock.shutdown(how)

    def close(self) -> None:
        self._sock.close()


class Connection:
    """One client's connection: its socket, and what is known of the client."""

    def __init__(self, sock: socket.socket | WebSocket, role: str) -> None:
        self.sock = sock
        self.role = role
        self.decoder = Decoder()
        self.session: Session | None = None
        self.will: Will | None = None
        self.keep_alive = 0
        self.last_packet = time.monotonic()
        self.open = True
        self.refused = False
        self.held: list[bytes] = []
        self.previous = 0  # the type of the packet before this one in the same segment

    def send(self, data: bytes) -> None:
        with contextlib.suppress(OSError):
            self.sock.sendall(data)

    def close(self) -> None:
        self.open = False
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)


class Restartable(Broker):
    """What a trial needs to know of the broker: it can be told to restart, and keeps its ports."""

    def __init__(self, faulty: "FaultyBroker") -> None:
        super().__init__("faulty", lambda values: faulty.endpoints())
        self._faulty = faulty

    def can(self, command: str) -> bool:
        return command == "restart"

    def restart(self) -> None:
        self._faulty.restart()


class FaultyBroker:
    """The broker, listening on free ports of the loopback while it is entered. `broker` is what a trial needs.

    With `login`, every endpoint takes only clients that give the user name and the password."""

    def __init__(self, *faults: str, login: bool = False) -> None:
        unknown = set(faults) - set(FAULTS) - set(ODDITIES)
        assert not unknown, f"no such fault: {unknown}"
        self.faults = frozenset(faults)
        self._login = login
        self.broker = Restartable(self)
        self._lock = threading.RLock()
        self._sessions: dict[bytes, Session] = {}
        self._retained: dict[str, tuple[bytes, int]] = {SYS_TOPIC: (b"faulty", 0)}
        self._dup = False  # of the message that is being delivered
        self._retained_with_dup: set[str] = set()
        self._old_wills: dict[bytes, Will] = {}
        self._shared: dict[str, int] = {}
        self._old_subscriptions: dict[bytes, dict[str, int]] = {}
        self._connections: set[Connection] = set()
        self._listeners: dict[str, socket.socket] = {}
        self._threads: list[threading.Thread] = []
        self._numbers = itertools.count()
        self._stopping = False

    def again(self) -> "FaultyBroker":
        """Another one with the same faults."""
        return FaultyBroker(*self.faults, login=self._login)

    def has(self, fault: str) -> bool:
        assert fault in FAULTS or fault in ODDITIES, fault
        return fault in self.faults

    def __enter__(self) -> Self:
        for role in ("main", "authenticated", "limited", "identifiers", "acl", "websocket"):
            self._listeners[role] = socket.create_server(("127.0.0.1", 0), backlog=256)
            self._start(self._accept, role)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping = True
        for listener in self._listeners.values():
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        with self._lock:
            for connection in self._connections:
                connection.close()
        for thread in self._threads:
            thread.join()

    def restart(self) -> None:
        """What a stop and a start would do, as its clients see it."""
        with self._lock:
            for connection in list(self._connections):
                self._end(connection, "restart")
            for session in self._sessions.values():
                if self.has("restart loses messages"):
                    session.outgoing = []
                if self.has("restart loses incoming identifiers"):
                    session.incoming = set()
            if self.has("restart ends every session"):
                self._sessions = {}
            if self.has("restart loses retained messages"):
                self._retained = {}

    def endpoints(self) -> dict[str, Endpoint]:
        extra: dict[str, dict[str, str | int]] = {
            "authenticated": {"username": USERNAME, "password": PASSWORD},
            "limited": {"limit": LIMIT},
            "identifiers": {"refused_client_id": REFUSED_CLIENT_ID},
            "acl": {"publish_forbidden": FORBIDDEN, "subscribe_forbidden": FORBIDDEN},
        }
        if self._login:
            for role in self._listeners:
                extra.setdefault(role, {}).update(username=USERNAME, password=PASSWORD)
        return {
            role: Endpoint(role, scheme(role), "127.0.0.1", listener.getsockname()[1], **extra.get(role, {}))  # type: ignore[arg-type]
            for role, listener in self._listeners.items()
        }

    # Connections

    def _start(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self, role: str) -> None:
        while not self._stopping:
            try:
                sock, _ = self._listeners[role].accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._start(self._serve_socket, sock, role)

    def _serve_socket(self, sock: socket.socket, role: str) -> None:
        if role != "websocket":
            self._serve(Connection(sock, role))
            return
        sock.settimeout(HANDSHAKE_SECONDS)
        try:
            wrapped = WebSocket(sock, self.has)
        except (OSError, Violation):
            sock.close()
            return
        self._serve(Connection(wrapped, role))

    def _serve(self, connection: Connection) -> None:
        with self._lock:
            self._connections.add(connection)
            if self._stopping:
                connection.close()
        why = "network"
        try:
            while connection.open:
                data = self._receive(connection)
                if not data:
                    break
                self._take(connection, data)
        except Violation:
            why = "violation"
            if self.has("violation ends every connection"):
                with self._lock:
                    for other in list(self._connections):
                        self._end(other, why)
        except TimeoutError:
            why = "keep alive"
        except OSError:
            pass
        with self._lock:
            self._end(connection, why)
        connection.sock.close()

    def _receive(self, connection: Connection) -> bytes:
        if connection.keep_alive and not self.has("no keep alive"):
            left = connection.last_packet + 1.5 * connection.keep_alive - time.monotonic()
            if left <= 0:
                raise TimeoutError
            connection.sock.settimeout(left)
            try:
                return connection.sock.recv(65536)
            except TimeoutError:
                return self._receive(connection)
        connection.sock.settimeout(None)
        return connection.sock.recv(65536)

    def _take(self, connection: Connection, data: bytes) -> None:
        found = connection.decoder.feed(data)
        if self.has("every byte keeps alive"):
            connection.last_packet = time.monotonic()
        if connection.decoder.broken:
            if self.has("malformed connect is ignored") or self.has("five length bytes are ignored"):
                connection.decoder = Decoder()
                return
            if self.has("long Remaining Length is waited for"):
                return
            raise Violation(connection.decoder.broken)
        if connection.decoder.pending and self.has("packets must come whole"):
            connection.decoder = Decoder()
        if not found and connection.session is None and self.has("connect must come whole"):
            raise Violation("CONNECT in pieces")
        connection.previous = 0
        for number, packet in enumerate(found):
            if number and self.has("one packet at a time"):
                continue
            if number and self.has("early packets are lost") and found[0].kind == packets.CONNECT:
                continue
            with self._lock:
                if connection.open:
                    if not self.has("keep alive runs from connect"):
                        connection.last_packet = time.monotonic()
                    self._handle(connection, packet)
                    connection.previous = packet.kind
        left_open = self.has("refusal leaves the connection open") or self.has("wrong password is not disconnected")
        if connection.refused and not left_open:
            raise Violation("refused")

    def _end(self, connection: Connection, why: str) -> None:
        """The connection is over, whoever ended it."""
        if connection not in self._connections:
            if connection.session and self.has("old connection ends the new session"):
                self._sessions.pop(connection.session.client_id, None)
            return
        self._connections.discard(connection)
        connection.close()
        session = connection.session
        if session is None or session.connection is not connection:
            return
        session.connection = None
        self._send_will(connection, session, why)
        ended = session.clean and not self.has("clean session outlives its connection")
        if why == "violation" and self.has("violation ends the session"):
            ended = True
        if ended or self.has("sessions are not kept"):
            self._forget(session)

    def _send_will(self, connection: Connection, session: Session, why: str) -> None:
        will = connection.will
        missed = {"violation": "no will after a violation", "takeover": "no will at takeover"}
        missed["keep alive"] = "no will after a keep alive timeout"
        if will is None and why != "disconnect" and self.has("will is never forgotten"):
            will = self._old_wills.get(session.client_id)
        if self.has("end of every connection is published") and why != "disconnect":
            for name in {name for other in self._sessions.values() for name in other.subscriptions}:
                self._publish(name.replace("#", "ended"), b"ended", 1, False)
        connection.will = None
        if will is None or why == "disconnect" or self.has("no will") or (why in missed and self.has(missed[why])):
            return
        payload = will.payload[:100] if self.has("will payload is cut") else will.payload
        retain = (will.retain or self.has("will is always retained")) and not self.has("will is never retained")
        topic = packets.encoded(will.topic).decode("utf-8", "surrogateescape")
        qos = 0 if self.has("will has QoS 0") else 2 if self.has("will has QoS 2") else will.qos
        own = session if self.has("no will for its own client") else None
        if self.has("will is late"):
            self._start(self._publish_later, topic, payload, qos, retain)
            return
        self._publish(topic, payload, qos, retain, but=own, upgrade=self.has("will ignores the granted QoS"))

    def _publish_later(self, topic: str, payload: bytes, qos: int, retain: bool) -> None:
        time.sleep(LATE)
        with self._lock:
            self._publish(topic, payload, qos, retain)

    def _forget(self, session: Session) -> None:
        if self._sessions.get(session.client_id) is session:
            del self._sessions[session.client_id]
        if self.has("retained messages die with their session"):
            for topic in session.retained:
                self._retained.pop(topic, None)
        if self.has("end of a session ends others"):
            for other, name in itertools.product(self._sessions.values(), session.subscriptions):
                other.subscriptions.pop(name, None)

    # CONNECT

    def _handle(self, connection: Connection, packet: Packet) -> None:
        self._remove_feff(packet)
        if connection.session is not None:
            self._handle_connected(connection, connection.session, packet)
        elif isinstance(packet, Connect):
            self._connect(connection, packet)
        elif connection.refused:
            self._handle_refused(connection, packet)
        elif self.has("answers before connack"):
            connection.send(packets.pingresp())
            raise Violation("a packet before CONNECT")
        elif self.has("first packet may be anything"):
            if isinstance(packet, Publish):
                self._publish(packet.topic, packet.payload, packet.qos, False)
        elif not (packet.kind == packets.CONNECT and self.has("malformed connect is ignored")):
            raise Violation("the first packet is not CONNECT")

    def _remove_feff(self, packet: Packet) -> None:
        def without(text: str) -> str:
            if self.has("U+FEFF is removed"):
                return text.replace("\ufeff", "")
            return text.removeprefix("\ufeff") if self.has("U+FEFF is removed from the beginning") else text

        def without_bytes(data: bytes) -> bytes:
            return without(data.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")

        if isinstance(packet, Publish):
            packet.topic = without(packet.topic)
        elif isinstance(packet, Subscribe):
            packet.filters = [(without_bytes(topic_filter), qos) for topic_filter, qos in packet.filters]
        elif isinstance(packet, Unsubscribe):
            packet.filters = [without_bytes(topic_filter) for topic_filter in packet.filters]
        elif isinstance(packet, Connect):
            packet.client_id = without_bytes(packet.client_id)
            if packet.will:
                packet.will = dataclasses.replace(packet.will, topic=without_bytes(packets.encoded(packet.will.topic)))

    def _handle_refused(self, connection: Connection, packet: Packet) -> None:
        if isinstance(packet, Publish) and self.has("packets behind a refusal are processed"):
            self._publish(packet.topic, packet.payload, packet.qos, packet.retain)
        if self.has("answers behind a refusal"):
            connection.send(packets.pingresp())

    def _connect(self, connection: Connection, packet: Connect) -> None:
        if packet.problem and self.has("malformed connect is ignored"):
            return
        if packet.protocol_name != b"MQTT" and not self.has("any protocol name"):
            raise Violation("unknown protocol name")
        if packet.level != 4 and len(packet.body) > 6:
            if self.has("unknown level is dropped"):
                raise Violation("unknown level")
            if not self.has("unknown level is accepted"):
                self._refuse(connection, packet, 1)
                return
            packet.client_id = secrets.token_bytes(8)
            packet.problem = ""
        problem = self._problem(packet)
        if problem:
            if self.has("malformed connect is ignored"):
                return
            if self.has("failed login ends the session"):
                self._sessions.pop(packet.client_id, None)
            string_refused = "string" in problem and self.has("malformed strings are refused with code 2")
            if string_refused or self.has("malformed connect is answered"):
                connection.send(packets.connack(2))
            self._raise_refused(connection, Violation(problem))
            return
        if not self._admit(connection, packet):
            return
        if not packet.client_id:
            unique = f"empty-{next(self._numbers)}"
            packet.client_id = b"empty" if self.has("empty client ids are one client") else unique.encode()
        self._begin(connection, packet)

    def _problem(self, packet: Connect) -> str:
        """What is wrong with a CONNECT of level 4; empty if nothing is."""
        problem = packet.problem
        if "too many" in problem and self.has("surplus bytes are ignored"):
            problem = ""
        if "cut short" in problem and self.has("missing fields are taken as empty"):
            packet.client_id = packet.client_id or secrets.token_bytes(8)
            packet.will = None
            return ""
        if problem:
            return problem
        if packet.flags and not self.has("connect header flags are ignored"):
            return "header flags"
        flags = packet.connect_flags
        if flags & 1 and not self.has("reserved connect flag is ignored"):
            return "reserved flag"
        if not flags & 0b100 and flags & 0b111000 and not self.has("will bits are not checked"):
            return "will bits without a will"
        if packet.will and packet.will.qos == 3 and not self.has("will QoS 3 is taken"):
            return "will QoS 3"
        if packet.password is not None and packet.username is None and not self.has("password needs no user name"):
            return "password without user name"
        strings = [packet.client_id, packet.username or b"", packets.encoded(packet.will.topic) if packet.will else b""]
        if not all(map(well_formed, strings)) and not self.has("strings are not checked"):
            return "ill-formed string"
        if packet.will:
            topic = packets.encoded(packet.will.topic)
            if (b"+" in topic or b"#" in topic) and not self.has("wildcards in a will topic"):
                return "wildcards in the will topic"
            if not topic and not self.has("empty will topic"):
                return "empty will topic"
        return ""

    def _admit(self, connection: Connection, packet: Connect) -> bool:
        """Whether the client may come in; else it has been refused."""
        if not packet.client_id and not packet.clean and not self.has("empty client id may keep its session"):
            if self.has("empty client id is dropped"):
                raise Violation("empty ClientId")
            self._refuse(connection, packet, 5 if self.has("client ids are refused with code 5") else 2)
            return False
        size = len(packet.client_id)
        too_long = size == 23 and self.has("client ids of 23 bytes are refused")
        digit = packet.client_id[:1].isdigit() and self.has("client ids begin with a letter")
        refused = connection.role == "identifiers" and packet.client_id == REFUSED_CLIENT_ID.encode()
        unusual = (size > 23 or not packet.client_id.isalnum()) and self.has(
            "unusual client ids are refused with code 5"
        )
        if unusual or too_long or digit or refused:
            wrong = unusual or self.has("client ids are refused with code 5")
            self._refuse(connection, packet, 5 if wrong else 2)
            return False
        if connection.role == "authenticated" or self._login:
            given = (packet.username, packet.password)
            if given != (USERNAME.encode(), PASSWORD.encode()):
                live = self._sessions.get(packet.client_id)
                if live and live.connection and self.has("failed login evicts"):
                    self._end(live.connection, "takeover")
                if self.has("wrong password is not disconnected"):
                    connection.refused = True
                    return False
                self._refuse(connection, packet, 5 if packet.username is None else 4)
                return False
        if connection.role == "limited":
            others = [one for one in self._connections if one.role == "limited" and one.session is not None]
            if len(others) >= LIMIT:
                self._refuse(connection, packet, 3)
                return False
        unwanted = [
            bool(packet.will) and self.has("wills are refused"),
            packet.keep_alive != 60 and self.has("keep alives other than 60 are refused"),
            packet.username is not None and self.has("known users are refused"),
            not packet.clean and self.has("persistent clients are refused"),
        ]
        if any(unwanted):
            self._refuse(connection, packet, 3)
        return not any(unwanted)

    def _refuse(self, connection: Connection, packet: Connect, code: int) -> None:
        present = self.has("session is always present") or self.has("session is present in a refusal")
        if self.has("stored session is present in a refusal"):
            present = packet.client_id in self._sessions
        if packet.will and self.has("will of a refused client is published"):
            topic = packets.encoded(packet.will.topic).decode()
            self._publish(topic, packet.will.payload, packet.will.qos, False)
        if self.has("refusals have code 3"):
            code = 3 if code != 3 else 5
        if not self.has("refusals are silent"):
            self._send_connack(connection, code, present)
        if self.has("refusal leaves the connection open"):
            connection.refused = True
            return
        self._raise_refused(connection, Violation(f"refused with code {code}"))

    def _raise_refused(self, connection: Connection, violation: Violation) -> None:
        if self.has("packets behind a refusal are processed") or self.has("answers behind a refusal"):
            connection.refused = True  # until what has come with the CONNECT is processed
            return
        raise violation

    def _begin(self, connection: Connection, packet: Connect) -> None:
        client_id = packet.client_id
        if self.has("client ids ignore case"):
            client_id = client_id.lower()
        if self.has("client ids are cut after 23 bytes"):
            client_id = client_id[:23]
        old = self._sessions.get(client_id)
        if old and old.connection and self.has("the newcomer is turned away"):
            raise Violation("the ClientId is in use")
        if old and old.connection and not self.has("nobody is evicted"):
            self._end(old.connection, "takeover")
            if self.has("takeover loses the session") and client_id in self._sessions:
                del self._sessions[client_id]
        old = self._sessions.get(client_id)
        if old and (packet.clean or old.clean) and not self.has("clean session outlives its connection"):
            self._forget(old)
        session, present = self._session(client_id, packet.clean, old)
        connection.session = session
        session.resumed = set(session.subscriptions)
        session.logins += 1
        if session.logins > 2 and self.has("third login loses messages"):
            session.outgoing = []
        if self.has("unsubscribed filters return"):
            session.subscriptions |= session.unsubscribed
        session.connection = connection
        connection.keep_alive = packet.keep_alive or int(self.has("keep alive 0 is 1"))
        if packet.keep_alive > 32767 and self.has("long keep alives are cut short"):
            connection.keep_alive = 1
        connection.will = packet.will
        if packet.will:
            self._old_wills[client_id] = packet.will
        if self.has("discarded session is present") and old and not old.clean:
            present = True
        if self.has("connack comes second"):
            connection.send(packets.pingresp())
        if self.has("stored messages before connack"):
            self._resume(session)
        self._send_connack(connection, 0, present)
        if self.has("whoever connects gets what is retained"):
            for topic in {name for other in self._sessions.values() for name in other.subscriptions}:
                self._send_retained(session, topic, 0)
        if not self.has("stored messages before connack"):
            self._resume(session)

    def _session(self, client_id: bytes, clean: bool, old: Session | None) -> tuple[Session, bool]:
        """The session of an accepted client, and whether CONNACK says that it was there."""
        kept = self._sessions.get(client_id)
        present = kept is not None and not clean
        session = kept if kept is not None and not clean else Session(client_id, clean)
        if old and clean and not old.clean:
            if self.has("clean session keeps subscriptions"):
                session.subscriptions = dict(old.subscriptions)
            if self.has("clean session keeps messages"):
                session.outgoing = list(old.outgoing)
            if self.has("clean session keeps incoming identifiers"):
                session.incoming = set(old.incoming)
        if self.has("subscriptions belong to client ids"):
            session.subscriptions |= self._old_subscriptions.get(client_id, {})
        if client_id.startswith(b"empty-") and self.has("empty client ids share their subscriptions"):
            session.subscriptions = self._shared
        session.clean = clean
        self._sessions[client_id] = session
        if self.has("session is always present"):
            present = True
        if self.has("session is never present"):
            present = False
        if self.has("empty session is not present") and not session.subscriptions:
            present = False
        return session, present

    def _send_connack(self, connection: Connection, code: int, present: bool) -> None:
        flags = int(present) | 0x80 * self.has("connack has reserved bits")
        if code and self.has("connack has a reserved code"):
            code = 6
        body = bytes([flags, code]) + b"\0" * self.has("connack is too long")
        connection.send(packets.frame(packets.CONNACK, int(self.has("connack has header flags")), body))

    def _resume(self, session: Session) -> None:
        for topic, payload in session.delivered if session.connection else []:
            session.connection.send(packets.publish(packets.encoded_topic(topic), payload))  # type: ignore[union-attr]
        if self.has("incoming identifiers are forgotten"):
            session.incoming.clear()
        if self.has("nothing is sent again"):
            session.outgoing = [message for message in session.outgoing if message.state == "queued"]
        if self.has("PUBREL is not sent again"):
            session.outgoing = [message for message in session.outgoing if message.state != "released"]
        if self.has("identifiers in use are forgotten"):
            session.next_id = 0
        step = -1 if self.has("sent again in reverse") else 1
        for message in session.outgoing[::step]:
            wanted = any(self._matches(name, message.topic) for name in session.subscriptions)
            if not wanted and message.state == "released" and self.has("unsubscribed messages are not released again"):
                continue
            if self.has("sent again under new identifiers"):
                message.packet_id = session.new_id()
            if message.state == "released" and self.has("PUBLISH is sent again after PUBREL"):
                self._answer(session.connection, packets.PUBREL, message.packet_id)
                message.state = "sent"
            self._transmit(session, message)

    # Everything else

    def _handle_connected(self, connection: Connection, session: Session, packet: Packet) -> None:
        if packet.kind == packets.CONNECT:
            if self.has("second connect is ignored"):
                return
            if self.has("second connect is answered"):
                connection.send(packets.connack())
                return
            raise Violation("second CONNECT")
        if self._ignored(packet):
            return
        problem = self._malformed(packet)
        if problem:
            raise Violation(problem)
        if isinstance(packet, Publish):
            self._incoming(connection, session, packet)
        elif isinstance(packet, Subscribe):
            self._subscribe(connection, session, packet)
        elif isinstance(packet, Unsubscribe):
            self._unsubscribe(connection, session, packet)
        elif isinstance(packet, Acknowledgement):
            self._acknowledged(connection, session, packet)
        elif packet.kind == packets.PINGREQ:
            self._ping(connection, session)
        elif packet.kind == packets.DISCONNECT:
            self._disconnect(connection)
        elif not self.has("unexpected packets are ignored"):
            raise Violation(f"{packet.name} from a client")

    def _ignored(self, packet: Packet) -> bool:
        """Whether a fault makes the broker pass over the packet."""
        padded = packet.wire[1:] != packets.remaining_length(len(packet.body)) + packet.body
        return any(
            (
                packet.kind in (0, 15) and self.has("reserved packet types are ignored"),
                not packet.flags_valid and self.has("packets with wrong header flags are dropped"),
                bool(packet.problem) and self.has("malformed packets are ignored"),
                padded and self.has("padded lengths are ignored"),
                bool(packet.problem or not packet.flags_valid) and self._is_ignored(packet),
            )
        )

    def _malformed(self, packet: Packet) -> str:
        """What is wrong with a packet's form; empty if nothing is."""
        if len(packet.body) > 126 and self.has("packets above 126 bytes are refused"):
            return "too long"
        if self._is_tolerated(packet):
            return ""
        if not packet.flags_valid and not self.has("header flags are not checked"):
            return "header flags"
        if packet.problem == "QoS 3" and self.has("QoS 3 is taken"):
            return ""
        return packet.problem

    def _is_ignored(self, packet: Packet) -> bool:
        if packet.kind == packets.DISCONNECT:
            return self.has("wrong disconnect is ignored")
        if packet.kind in (0, 15):
            return self.has("unexpected packets are ignored")
        if packet.kind in (packets.SUBSCRIBE, packets.UNSUBSCRIBE):
            return bool(packet.problem) and self.has("incomplete requests are ignored")
        return "cut short" in packet.problem and self.has("packets cut short are ignored")

    def _is_tolerated(self, packet: Packet) -> bool:
        if packet.problem:
            return "too many" in packet.problem and self.has("surplus bytes are taken")
        tolerant = {
            packets.SUBSCRIBE: "subscribe header flags are ignored",
            packets.UNSUBSCRIBE: "unsubscribe header flags are ignored",
            packets.DISCONNECT: "disconnect header flags are ignored",
        }
        return packet.kind in tolerant and self.has(tolerant[packet.kind])

    def _ping(self, connection: Connection, session: Session) -> None:
        if self.has("no pingresp") or (session.outgoing and self.has("no pingresp while messages are under way")):
            return
        if connection.previous == packets.PINGREQ and self.has("one pingresp for several pingreqs"):
            return
        flags = 0b0010 * (self.has("pingresp has header flags") or self.has("answers have header flags"))
        connection.send(packets.frame(packets.PINGRESP, flags, b"\0" * self.has("pingresp is too long")))

    def _disconnect(self, connection: Connection) -> None:
        if self.has("disconnect removes every will"):
            for other in self._connections:
                other.will = None
        retained = connection.will is not None and connection.will.retain
        survives = self.has("will survives disconnect") or (retained and self.has("retained will survives disconnect"))
        if self.has("disconnect is not followed by the end"):
            connection.will = None
            return
        self._end(connection, "network" if survives else "disconnect")

    def _answer(self, connection: Connection | None, kind: int, packet_id: int, codes: Iterable[int] = ()) -> None:
        if connection is None:
            return
        if f"{packets.NAMES[kind]} has the wrong identifier" in self.faults:
            packet_id ^= 1
        flags = packets.FLAGS[kind] ^ 0b0010 * self.has("answers have header flags")
        if kind in (packets.SUBACK, packets.UNSUBACK):
            flags |= self.has(f"{packets.NAMES[kind].lower()} has header flags")
        surplus = kind <= packets.PUBCOMP and self.has("acknowledgements are too long")
        if kind == packets.UNSUBACK and self.has("unsuback is too long"):
            surplus = True
        packet = packets.frame(kind, flags, packet_id.to_bytes(2, "big") + bytes(codes) + b"\0" * surplus)
        if kind == packets.PUBREL and self.has("PUBRELs change places"):
            connection.held.append(packet)
            if len(connection.held) == 2:
                connection.send(b"".join(reversed(connection.held)))
                connection.held.clear()
        else:
            connection.send(packet)

    def _incoming(self, connection: Connection, session: Session, packet: Publish) -> None:
        problem, passed_on = self._topic_problem(packet)
        if problem and not passed_on:
            raise Violation(problem)
        if packet.packet_id == 0 and not self.has("identifier 0 is taken"):
            raise Violation("Packet Identifier 0")
        identity, payload = packet.packet_id, packet.payload
        used = {message.packet_id for message in session.outgoing}
        if identity in used and self.has("identifiers are shared by both directions"):
            return
        if identity is None and self.has("QoS 0 is read with an identifier"):
            payload = payload[2:]
        again = packet.qos >= 2 and identity in session.incoming
        if again and self.has("duplicates are not acknowledged"):
            return
        new = not again or self.has("duplicates are delivered")
        if packet.qos == 1 and self.has("known identifiers are not new") and identity is not None:
            new = identity not in session.known
            session.known.add(identity)
        forbidden = connection.role == "acl" and packet.topic == FORBIDDEN
        if forbidden and self.has("forbidden messages are not acknowledged"):
            return
        dollar = packet.topic.startswith("$") and not (
            self.has("clients may use dollar topics")
            or self.has("wildcards match dollar topics")
            or self.has("hash matches dollar topics of clients")
        )
        if new and not forbidden and not dollar:
            if packet.retain:
                session.retained.add(packet.topic)
                if packet.dup:
                    self._retained_with_dup.add(packet.topic)
            self._dup = packet.dup
            own = session if self.has("publisher gets nothing") else None
            self._publish(packet.topic, payload, packet.qos, packet.retain, but=own)
            self._dup = False
        if problem:
            raise Violation(problem)
        if identity is None:
            if self.has("QoS 0 is acknowledged"):
                self._answer(connection, packets.PUBACK, 1)
            return
        if packet.qos >= 2:
            session.incoming.add(identity)
        first = (packet.qos == 1) != self.has("PUBACK and PUBREC are mixed up")
        self._answer(connection, packets.PUBACK if first else packets.PUBREC, identity)

    def _topic_problem(self, packet: Publish) -> tuple[str, bool]:
        """What is wrong with a topic name, empty if nothing is; and whether the message is published all the same."""
        topic = packets.encoded_topic(packet.topic)
        if not topic and not self.has("empty topic names are taken"):
            return "empty topic name", False
        if not well_formed(topic) and not self.has("topic names are not checked"):
            return "ill-formed topic name", self.has("ill-formed topic names are passed on")
        if (b"+" in topic or b"#" in topic) and not self.has("topic names may have wildcards"):
            return "topic name with wildcards", self.has("topic names with wildcards are passed on")
        return "", True

    def _acknowledged(self, connection: Connection, session: Session, packet: Acknowledgement) -> None:
        identity = packet.packet_id
        if packet.kind == packets.PUBREL:
            if identity not in session.incoming and self.has("unknown identifiers are not completed"):
                return
            if not self.has("completed identifiers are not new"):
                session.incoming.discard(identity)
            self._answer(connection, packets.PUBCOMP, identity)
        elif packet.kind == packets.PUBREC:
            for message in session.outgoing:
                if message.packet_id == identity and message.qos == 2:
                    message.state = "released"
            known = identity in (message.packet_id for message in session.outgoing)
            if not known and self.has("unsubscribe drops what is under way"):
                return
            if not self.has("no PUBREL"):
                self._answer(connection, packets.PUBREL, identity)
        elif packet.kind in (packets.PUBACK, packets.PUBCOMP):
            if not self.has("acknowledgements end nothing"):
                session.outgoing = [message for message in session.outgoing if message.packet_id != identity]
        elif not self.has("unexpected packets are ignored"):
            raise Violation(f"{packet.name} from a client")

    # SUBSCRIBE and UNSUBSCRIBE

    def _subscribe(self, connection: Connection, session: Session, packet: Subscribe) -> None:
        zero = packet.packet_id == 0 and not self.has("identifier 0 is taken")
        if zero or not (packet.filters or self.has("subscribe needs no filter")):
            raise Violation("no filter, or Packet Identifier 0")
        codes: list[int] = []
        wanted: list[tuple[str, int]] = []
        first_qos = 0
        for raw_filter, requested in packet.filters:
            code = self._requested(requested)
            if not self._is_filter(raw_filter):
                if self.has("wrong filters are not answered"):
                    return
                raise Violation("filter")
            name = decoded(raw_filter)
            code = self._granted(connection, name, code)
            codes.append(code)
            if code > 2:
                if self.has("a refused filter ends the list"):
                    break
                continue
            first_qos = first_qos if len(codes) > 1 else code
            if len(codes) > 1 and self.has("only the first filter counts"):
                continue
            if name == FORBIDDEN and connection.role == "acl":
                continue
            if self._brings_retained(session, name, len(codes)):
                wanted.append((name, code))
            self._add(session, name, first_qos if self.has("all filters have the first QoS") else code)
        self._send_suback(connection, session, packet, codes)
        for name, code in wanted:
            self._send_retained(session, name, code)
            if self.has("one retained message is sent"):
                break

    def _send_retained(self, session: Session, topic_filter: str, granted: int) -> None:
        for topic, (payload, published) in list(self._retained.items()):
            if self._matches(topic_filter, topic):
                self._dup = topic in self._retained_with_dup
                if self.has("retained messages are cut"):
                    payload = payload[:100] if len(payload) > 1 else b""
                flag = not self.has("retained messages come without RETAIN")
                upgraded = self.has("retained messages have the granted QoS")
                self._deliver(session, topic, payload, granted if upgraded else min(published, granted), flag)
                self._dup = False
                if self.has("retained messages are sent once"):
                    del self._retained[topic]
                if self.has("one retained message is sent"):
                    return

    def _requested(self, requested: int) -> int:
        """The QoS that a requested QoS means, or the code that refuses it."""
        if requested == 3 and self.has("requested QoS 3 is 2"):
            return 2
        if requested == 3 and self.has("requested QoS 3 is refused"):
            return packets.SUBSCRIBE_FAILURE
        if requested > 2 and self.has("requested QoS is not checked"):
            return min(requested & 3, 2)
        if requested & 3 != 3 and self.has("reserved bits of the requested QoS are ignored"):
            return requested & 3
        if requested > 2:
            raise Violation("requested QoS")
        return requested

    def _is_filter(self, raw_filter: bytes) -> bool:
        if valid_filter(raw_filter) or self.has("filters are not checked"):
            return True
        if not raw_filter:
            return self.has("empty filters are taken")
        return well_formed(raw_filter) and self.has("wrong wildcards are letters")

    def _granted(self, connection: Connection, name: str, code: int) -> int:
        """The return code for a filter."""
        forbidden = connection.role == "acl" and name == FORBIDDEN
        wildcards = "+" in name or "#" in name
        if forbidden and self.has("forbidden filters are granted"):
            return code
        if (forbidden and self.has("forbidden filters are dropped")) or (
            wildcards and self.has("wildcards are dropped")
        ):
            raise Violation("filter")
        refused = [
            forbidden,
            wildcards and self.has("wildcards are refused"),
            name == "/" and self.has("a slash is no filter"),
            len(name.encode("utf-8", "surrogateescape")) > 200 and self.has("long topics are refused"),
            name.count("/") > 40 and self.has("deep topics are refused"),
        ]
        if not any(refused):
            return code
        return 0x87 if self.has("refusals have code 0x87") else packets.SUBSCRIBE_FAILURE

    def _brings_retained(self, session: Session, name: str, number: int) -> bool:
        known = name in session.subscriptions
        return not (
            (known and self.has("known filters bring no retained messages"))
            or (name in session.resumed and self.has("resumed filters bring no retained messages"))
            or (number > 1 and self.has("retained messages for the first filter only"))
        )

    def _add(self, session: Session, name: str, qos: int) -> None:
        if name in session.subscriptions:
            session.copies[name] = session.copies.get(name, 1) + self.has("subscriptions pile up")
            session.deaf = self.has("known filters bring a break")
            if self.has("first subscription stays"):
                return
        session.subscriptions[name] = qos
        self._old_subscriptions.setdefault(session.client_id, {})[name] = qos

    def _send_suback(self, connection: Connection, session: Session, packet: Subscribe, codes: list[int]) -> None:
        if self.has("no suback"):
            return
        if connection.previous == packets.SUBSCRIBE and self.has("one suback for several subscribes"):
            return
        packet_id = self._answer_id(packet.packet_id)
        under_way = packet_id in (message.packet_id for message in session.outgoing)
        if under_way and self.has("packet ids of both directions are one"):
            packet_id += 1
        if self.has("suback codes are sorted"):
            codes.sort()
        if self.has("suback codes are turned around"):
            codes.reverse()
        if self.has("refusals come last"):
            codes.sort(key=lambda code: code > 2)
        if self.has("suback says QoS 2"):
            codes = [2] * len(codes)
        if self.has("suback codes have a bit more"):
            codes = [code | 4 for code in codes]
        if self.has("suback has one code"):
            codes = codes[:1]
        if self.has("suback is empty"):
            codes = []
        for part in [[code] for code in codes] if self.has("a suback for each filter") else [codes]:
            self._answer(connection, packets.SUBACK, packet_id, part)

    def _answer_id(self, packet_id: int) -> int:
        if self.has("suback and unsuback have another packet id"):
            return packet_id % 65535 + 1
        return packet_id & 0xFF if self.has("suback and unsuback have half a packet id") else packet_id

    def _unsubscribe(self, connection: Connection, session: Session, packet: Unsubscribe) -> None:
        zero = packet.packet_id == 0 and not self.has("identifier 0 is taken")
        if zero or not (packet.filters or self.has("unsubscribe needs no filter")):
            raise Violation("no filter, or Packet Identifier 0")
        for raw_filter in packet.filters:
            empty = not raw_filter and self.has("empty filters can be unsubscribed")
            if not empty and not valid_filter(raw_filter) and not self.has("filters are not checked"):
                raise Violation("filter")
        names = [decoded(raw_filter) for raw_filter in packet.filters]
        if self.has("only the first filter is unsubscribed"):
            names = names[:1]
        removed = 0
        for name in names:
            for one in list(self._sessions.values()) if self.has("unsubscribe concerns everybody") else [session]:
                removed += self._remove(one, name)
        if removed and self.has("unsubscribe removes every subscription"):
            session.subscriptions = {}
        if self.has("no unsuback") or (not removed and self.has("unsuback for known filters only")):
            return
        for _ in packet.filters if self.has("an unsuback for each filter") else [None]:
            self._answer(connection, packets.UNSUBACK, self._answer_id(packet.packet_id))

    def _remove(self, session: Session, name: str) -> int:
        """Removes a subscription: how many were removed."""
        if self.has("unsubscribe does nothing"):
            return 0
        if self.has("unsubscribe drops what is under way"):
            session.outgoing = [one for one in session.outgoing if not self._matches(name, one.topic)]
        removed = [known for known in session.subscriptions if self._is_same(name, known)]
        for known in removed:
            session.unsubscribed[known] = session.subscriptions.pop(known)
            session.copies.pop(known, None)
        return len(removed)

    def _is_same(self, name: str, known: str) -> bool:
        """Whether an unsubscribed filter is that of a subscription."""
        if self.has("unsubscribed wildcards match") and matches(name, known):
            return True
        if self.has("unsubscribed filters ignore case"):
            return name.lower() == known.lower()
        if self.has("unsubscribed filters are normalised"):
            return unicodedata.normalize("NFC", name).strip(" /") == known.strip(" /")
        if self.has("unsubscribed filters begin alike"):
            return known.startswith(name)
        if self.has("U+FEFF does not count in unsubscribed filters"):
            return name.replace("\ufeff", "") == known.replace("\ufeff", "")
        return name == known

    # Messages

    def _publish(
        self, topic: str, payload: bytes, qos: int, retain: bool, *, but: Session | None = None, upgrade: bool = False
    ) -> None:
        self._retain(topic, payload, qos, retain)
        if not payload and self.has("empty payloads are dropped"):
            return
        if retain and not payload and self.has("empty messages are not delivered"):
            return
        flag = retain and self.has("RETAIN is propagated")
        for session in list(self._sessions.values()):
            subscriptions = session.subscriptions
            if session.connection is None and self.has("unsubscribed filters wait"):
                subscriptions = subscriptions | session.unsubscribed
            matching = [name for name in subscriptions if self._matches(name, topic)]
            if not matching or session is but:
                continue
            if session.deaf:
                session.deaf = False
                continue
            granted = [subscriptions[name] for name in matching]
            most = min(granted) if self.has("the lowest QoS counts") else max(granted)
            delivered = 2 if upgrade else min(qos, most)
            if self.has("messages have their own QoS"):
                delivered = qos
            if self.has("messages have the granted QoS"):
                delivered = most
            for _ in range(max(session.copies.get(name, 1) for name in matching)):
                self._deliver(session, topic, payload, delivered, flag)
            if self.has("one subscriber gets it"):
                return

    def _retain(self, topic: str, payload: bytes, qos: int, retain: bool) -> None:
        if not payload and (retain or self.has("all empty messages remove")):
            if self.has("empty messages are retained"):
                self._retained[topic] = (payload, qos)
            elif not self.has("empty messages remove nothing"):
                self._retained.pop(topic, None)
            return
        if not (retain or self.has("everything is retained")) or self.has("nothing is retained"):
            return
        if topic in self._retained and self.has("retained messages are not replaced"):
            return
        if qos == 0 and self.has("QoS 0 discards nothing"):
            return
        if qos == 0 and self.has("QoS 0 is not retained"):
            self._retained.pop(topic, None)
            return
        self._retained[topic] = (payload, 0 if self.has("retained messages have QoS 0") else qos)

    def _matches(self, topic_filter: str, topic: str) -> bool:
        if self.has("topics ignore case"):
            topic_filter, topic = topic_filter.lower(), topic.lower()
        if self.has("topics are normalised"):
            topic_filter, topic = unicodedata.normalize("NFKC", topic_filter), unicodedata.normalize("NFKC", topic)
        if self.has("topics are paths"):
            topic_filter, topic = posixpath.normpath(topic_filter), posixpath.normpath(topic)
        if self.has("topics are trimmed"):
            topic_filter, topic = topic_filter.strip(" /"), topic.strip(" /")
        if self.has("only letters of a topic count"):
            topic_filter, topic = letters(topic_filter), letters(topic)
        if self.has("only the first letters of levels count"):
            topic_filter, topic = first_letters(topic_filter), first_letters(topic)
        return matches(topic_filter, topic, self.has)

    def _deliver(self, session: Session, topic: str, payload: bytes, qos: int, retain: bool) -> None:
        session.count += 1
        if session.count % 7 == 0 and self.has("some messages are lost"):
            return
        if self.has("topics are changed"):
            topic += "x"
        if not self.has("messages change places"):
            self._deliver_now(session, topic, payload, qos, retain)
            return
        session.waiting.append((topic, payload, qos, retain))
        if len(session.waiting) == 5:
            for waiting in reversed(session.waiting):
                self._deliver_now(session, *waiting)
            session.waiting.clear()

    def _deliver_now(self, session: Session, topic: str, payload: bytes, qos: int, retain: bool) -> None:
        if self.has("subscribers are not served"):
            return
        if len(session.outgoing) >= 20 and self.has("more than 20 messages are dropped"):
            return
        if self.has("long payloads are cut"):
            payload = payload[:65535]
        if self.has("topic names are delivered in lower case"):
            topic = topic.lower()
        if self.has("odd characters are replaced"):
            topic = "".join(char if char.isprintable() else "?" for char in topic)
        if self.has("payloads end before a NUL"):
            payload = payload.split(b"\0")[0]
        if self.has("messages have another QoS"):
            qos = (qos + 1) % 3
        if session.connection is None and self.has("stored messages have QoS 1"):
            qos = min(qos, 1)
        if session.connection is None:
            if self.has("nothing waits") or (self.has("only the first message waits") and session.outgoing):
                return
        elif self.has("keep alive counts what is received"):
            session.connection.last_packet = time.monotonic()
        if qos == 0:
            if session.connection:
                packet_id = 1 if self.has("QoS 0 has an identifier") else None
                dup = self.has("QoS 0 has DUP")
                session.connection.send(
                    packets.publish(packets.encoded_topic(topic), payload, packet_id=packet_id, retain=retain, dup=dup)
                )
                if self.has("QoS 0 is sent again"):
                    session.delivered.append((topic, payload))
            return
        message = Outgoing(self._new_id(session), topic, payload, qos, retain)
        message.dup = self._dup and self.has("DUP is propagated")
        if session.connection is None and self.has("stored messages have DUP"):
            message.dup = True
        session.outgoing.append(message)
        self._transmit(session, message)

    def _new_id(self, session: Session) -> int:
        if self.has("all identifiers are 1"):
            return 1
        if self.has("identifiers begin with 0") or self.has("identifiers in use are forgotten"):
            session.next_id += 1
            return session.next_id - self.has("identifiers begin with 0")
        if self.has("identifiers are free after PUBREC"):
            used = {message.packet_id for message in session.outgoing if message.state != "released"}
            return next(number for number in range(1, 65536) if number not in used)
        return session.new_id()

    def _transmit(self, session: Session, message: Outgoing) -> None:
        if session.connection is None:
            return
        if message.state == "released":
            self._answer(session.connection, packets.PUBREL, message.packet_id)
            return
        session.connection.send(
            packets.publish(
                packets.encoded_topic(message.topic),
                message.payload,
                qos=message.qos,
                packet_id=message.packet_id,
                retain=message.retain,
                dup=message.dup or (message.state == "sent" and not self.has("redelivery has no DUP")),
            )
        )
        message.state = "sent"


def scheme(role: str) -> str:
    return "ws" if role == "websocket" else "mqtt"


def packet_size(data: bytes) -> int:
    """How long the packet is that these bytes begin with; more than there are if they are too few to say."""
    length = 0
    for position, byte in enumerate(data[1:5]):
        length |= (byte & 127) << 7 * position
        if byte < 128:
            return 2 + position + length
    return len(data) + 1


def well_formed(data: bytes) -> bool:
    """Whether a string may stand in a packet [MQTT-1.5.3-1] [MQTT-1.5.3-2]."""
    try:
        return "\0" not in data.decode()
    except UnicodeDecodeError:
        return False


def valid_filter(data: bytes) -> bool:
    """Whether it is a Topic Filter [MQTT-4.7.1-2] [MQTT-4.7.1-3] [MQTT-4.7.3-1]."""
    if not data or not well_formed(data):
        return False
    levels = data.decode().split("/")
    alone: Iterable[bool] = (len(level) == 1 for level in levels if "+" in level or "#" in level)
    return all(alone) and "#" not in levels[:-1]


def decoded(data: bytes) -> str:
    """A string of the wire, from which `packets.encoded_topic` makes the same bytes again."""
    return data.decode("utf-8", "surrogateescape")


def letters(topic: str) -> str:
    """A topic without what is no letter, digit or wildcard of ASCII."""
    return "".join(char for char in topic if char in "/+#-" or (char.isascii() and char.isalnum()))


def first_letters(topic: str) -> str:
    """A topic of which only the first level is whole."""
    first, *others = topic.split("/")
    return "/".join([first, *(level[:1] for level in others)])


def matches(topic_filter: str, topic: str, has: Callable[[str], bool] = lambda fault: False) -> bool:
    """Whether a filter takes a topic (section 4.7), unless `has` tells of a fault."""
    wanted, given = topic_filter.split("/"), topic.split("/")
    if has("wildcards are letters"):
        return wanted == given
    if topic.startswith("$"):
        of_clients = wanted[0] == "#" and has("hash matches dollar topics of clients")
        if wanted[0] in ("+", "#") and not of_clients and not has("wildcards match dollar topics"):
            return False
        if wanted[0] not in ("+", "#") and "+" in wanted and has("dollar topics have no plus"):
            return False
    if topic_filter.endswith("/#") and topic.startswith(topic_filter[:-2]) and has("hash matches siblings"):
        return True
    for position, level in enumerate(wanted):
        left = given[position:]
        if level == "#":
            too_far = (not left and has("hash matches no parent")) or (len(left) > 1 and has("hash matches one level"))
            return not too_far
        if level != "+" and level not in left[:1]:
            return False
        last = position == len(wanted) - 1
        if level == "+" and last and left and has("plus matches more levels"):
            return True
        if not left:
            return last and has("plus matches the parent")
        if level == "+" and not left[0] and has("plus matches no empty level"):
            return False
    return len(wanted) == len(given)
