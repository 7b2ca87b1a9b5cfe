"""Clients of MQTT 5.0 for tests that are about sessions and wills.

Owns: their CONNECT, with a will and a Session Expiry Interval, and what its answer says of the session. Must not know:
the core.
"""

from __future__ import annotations

from typing import NamedTuple

from tests.core import harness5
from tests.core.harness import World
from tests.core.harness5 import Packet5
from tests.vectors import string
from tests.vectors5 import connect5, four, section

NORMAL, WITH_WILL = 0x00, 0x04  #: reasons of a DISCONNECT
NEVER = 0xFFFFFFFF


class Left(NamedTuple):
    """A will, as a client has it."""

    topic: str
    payload: str
    qos: int
    retain: bool
    delay: int  #: seconds; 0: not said
    expiry: int | None
    kept: bytes  #: its other properties, encoded

    @property
    def flags(self) -> int:
        return 0x04 | self.qos << 3 | self.retain << 5

    @property
    def fields(self) -> bytes:
        delay = [b"\x18" + four(self.delay)] if self.delay else []
        expiry = [b"\x02" + four(self.expiry)] if self.expiry is not None else []
        properties = section(*delay, self.kept, *expiry)
        return properties + string(self.topic.encode()) + string(self.payload.encode())


def will5(
    topic: str = "will/c",
    payload: str = "gone",
    qos: int = 1,
    retain: bool = False,
    *,
    delay: int = 0,
    expiry: int | None = None,
    kept: bytes = b"",
) -> Left:
    return Left(topic, payload, qos, retain, delay, expiry, kept)


class Client5(harness5.Client5):
    connack: Packet5 | None = None

    @property
    def present(self) -> bool | None:
        """What the CONNACK said of the session; None: it has not come yet."""
        if self.connack is None:
            packets = self.get()
            if not packets:
                return None
            self.connack, self._found = packets[0], packets[1:]
            assert (self.connack.name, self.connack.reason) == ("CONNACK", 0)
        return bool(self.connack.present)

    def leave(self, reason: int = NORMAL, expiry: int | None = None) -> None:
        """Send a DISCONNECT."""
        if expiry is None:
            self.bye(reason)
        else:
            self.bye(reason, session_expiry=expiry)


def dial5(
    world: World,
    client_id: str = "c",
    *,
    clean: bool = True,
    expiry: int | None = None,
    will: Left | None = None,
    username: str | None = None,
) -> Client5:
    """A client that has sent its CONNECT. `expiry`: of its session; None: not said."""
    client = Client5(world)
    flags = 0x02 if clean else 0
    rest = b""
    if username is not None:
        flags |= 0x80
        rest = string(username.encode())
    said = [b"\x11" + four(expiry)] if expiry is not None else []
    left = b""
    if will is not None:
        flags |= will.flags
        left = will.fields
    client.send(connect5(client_id.encode(), *said, flags=flags, keep_alive=0, will=left, rest=rest))
    return client


def join5(
    world: World,
    client_id: str = "c",
    *,
    clean: bool = True,
    expiry: int | None = None,
    will: Left | None = None,
    username: str | None = None,
    present: bool | None = None,
) -> Client5:
    """A client that was accepted. `present`: what it must have been told of its session."""
    client = dial5(world, client_id, clean=clean, expiry=expiry, will=will, username=username)
    told = client.present
    assert told is not None
    assert present in (None, told)
    return client
