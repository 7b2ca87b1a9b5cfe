"""Clients of MQTT 5.0 for tests that are about sessions and wills.

Owns: how such a client comes and goes, by the doors that the core has for it. Beside that, it speaks MQTT 3.1.1: what
it gets is for other tests.
"""

from __future__ import annotations

from broker.core import handlers
from broker.core.connection import Connection
from broker.core.intake import ADMITTING, CLOSED, CONNECTED
from broker.wire.codes import MQTT_5
from broker.wire.packets import Connect, Will
from tests.core.harness import Client, World

NORMAL, WITH_WILL = 0x00, 0x04  #: reasons of a DISCONNECT
NEVER = 0xFFFFFFFF

WILL = Will(b"will/c", b"gone", 1, False)


def will5(
    topic: str = "will/c",
    payload: str = "gone",
    qos: int = 1,
    retain: bool = False,
    *,
    delay: int = 0,
    expiry: int | None = None,
    kept: bytes = b"",
) -> Will:
    return Will(topic.encode(), payload.encode(), qos, retain, delay, expiry, kept)


class Client5(Client):
    present: bool | None = None  #: what the CONNACK said; None: it has none yet

    def leave(self, reason: int = NORMAL, expiry: int | None = None) -> None:
        """Send a DISCONNECT."""
        connection = self.connection
        session = connection.session
        assert session is not None
        connection.state = CLOSED
        connection.session = None
        if expiry is not None:
            session.expiry = self.world.limits.granted_expiry(expiry)
        self.world.exchange.sessions.leave(session, connection, reason == NORMAL)
        connection.end()
        self.world.settle()


def dial5(
    world: World,
    client_id: str = "c",
    *,
    clean: bool = True,
    expiry: int = 0,
    will: Will | None = None,
    username: str | None = None,
) -> Client5:
    """A client that has sent its CONNECT."""
    client = Client5(world, 10.0, 1 << 20)
    connection: Connection = client.connection
    connect = Connect(MQTT_5, client_id, clean, 0, will, username, None, session_expiry=expiry)
    connection.state = ADMITTING
    connection.admit(4, 0)
    connection.rights = world.gatekeeper.rights(username, client_id)
    opened = world.exchange.sessions.open(connection, connect)

    def accept(present: bool) -> None:
        if connection.session is not None:
            client.present = present
            connection.begin(handlers.DIALECT)
            world.exchange.sessions.attach(connection.session)

    if opened.durable:
        world.journal.when_stored(accept, opened.present)
    else:
        accept(opened.present)
    world.settle()
    return client


def join5(
    world: World,
    client_id: str = "c",
    *,
    clean: bool = True,
    expiry: int = 0,
    will: Will | None = None,
    username: str | None = None,
    present: bool | None = None,
) -> Client5:
    """A client that was accepted. `present`: what it must have been told of its session."""
    client = dial5(world, client_id, clean=clean, expiry=expiry, will=will, username=username)
    assert client.connection.state == CONNECTED
    assert present in (None, client.present)
    return client
