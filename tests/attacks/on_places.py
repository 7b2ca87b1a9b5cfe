"""Attacks on places: one client takes what others need to get in.

Owns: those attacks. Must not know: how they are measured.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time

from tests.attacks.ground import MIB, Allowed, Ground, attack
from tests.attacks.on_memory import LOGIN, TLS, certificate, passwords
from tests.raw_client import RawClient, connect

#: A connect may wait for its turn.
CONNECT = Allowed(longest=1.0, p99=0.2)


@attack(CONNECT, toml="max_connections = 500\n", source="127.0.0.2", innocent="connects")
def connections_that_say_nothing(ground: Ground) -> None:
    """one address takes as many connections as it can, says nothing on them, and takes new ones when they are closed"""
    held: list[socket.socket] = []
    for number in ground.ticks(6):
        with contextlib.suppress(OSError):
            held.append(socket.create_connection(ground.address, 1))
        if len(held) > 3000:
            held.pop(0).close()
        if number % 50 == 0:
            time.sleep(0.002)


@attack(Allowed(longest=2.0, p99=1.0), toml=LOGIN, prepare=passwords, source="127.0.0.2", innocent="connects")
def wrong_passwords_from_one_address(ground: Ground) -> None:
    """one address sends wrong passwords as fast as it can"""

    def run(thread: int) -> None:
        for number in ground.ticks(5):
            with contextlib.suppress(OSError, TimeoutError):
                client = RawClient(ground.address)
                client.send(connect(f"{thread}-{number}", username="alice", password=b"wrong %d" % number))
                client.next(2)
                client.close()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@attack(Allowed(memory=100 * MIB), toml=TLS, prepare=certificate, source="127.0.0.2")
def handshakes_from_one_address(ground: Ground) -> None:
    """one address begins TLS handshakes, as many as it can, and finishes none"""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    outgoing = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing).do_handshake()
    hello = outgoing.read()
    held: list[socket.socket] = []
    for _ in ground.ticks(5):
        with contextlib.suppress(OSError):
            client = socket.create_connection(ground.addresses[1], 1)
            client.sendall(hello)
            held.append(client)
        if len(held) > 500:
            held.pop(0).close()
