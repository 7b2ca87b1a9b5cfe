"""Attacks on TLS itself: what costs OpenSSL more than it costs the client.

Owns: those attacks. Must not know: how they are measured.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading

from tests.attacks.ground import Ground, attack
from tests.attacks.on_memory import TLS, certificate, trusting
from tests.key_updates import logging_secrets, send_raw, updater
from tests.raw_client import DISCONNECT, RawClient


@attack(toml=TLS, prepare=certificate)
def key_updates(ground: Ground) -> None:
    """8 clients over TLS 1.3 that send 20,000 KeyUpdates each, and want one in return for each"""
    secrets = ground.directory / "secrets"
    context = logging_secrets(trusting(ground), secrets)
    floods = []
    for number in range(8):
        client = RawClient.connected(ground.addresses[1], f"updates-{number}", tls=context)
        assert isinstance(client.socket, ssl.SSLSocket)
        updates = updater(client.socket, secrets)
        updates.skip(1)  # the CONNECT
        flood = b"".join(updates.update() for _ in range(ground.count(20_000)))
        floods.append((client.socket, flood + updates.data(DISCONNECT)))

    def send(connection: ssl.SSLSocket, data: bytes) -> None:
        with contextlib.suppress(OSError):
            send_raw(connection, data)

    def read(connection: ssl.SSLSocket) -> None:
        with contextlib.suppress(OSError):
            while socket.socket.recv(connection, 65_536):
                pass

    threads = [threading.Thread(target=send, args=flood) for flood in floods]
    threads += [threading.Thread(target=read, args=(connection,)) for connection, _ in floods]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()  # a reader ends when the broker has come to the DISCONNECT
