"""Attacks on the time of others: connections that come, go, drip, and say too much.

Owns: those attacks. Must not know: how they are measured.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time

from tests.attacks.ground import Allowed, Ground, attack, of_a_crowd
from tests.attacks.on_memory import TLS, certificate, trusting
from tests.attacks.on_time import BOTH, frame, plain, pump, web_sockets
from tests.raw_client import PINGREQ, Closed, RawClient, Will, connect, packet, publish, subscribe, text


def from_threads(ground: Ground, count: int, seconds: float, once: object) -> None:
    """Call it again and again from so many threads; connections may fail."""

    def run() -> None:
        for _ in ground.ticks(seconds):
            with contextlib.suppress(OSError, Closed, AssertionError):
                once()  # type: ignore[operator]

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@attack()
def connects_with_large_fields(ground: Ground) -> None:
    """CONNECTs of 327 KB, each of which is accepted, from eight threads; each leaves without a word"""
    large = connect("c" * 65_535, username="u" * 65_535, password=b"p" * 65_535, will=Will("t" * 65_535, b"x" * 65_535))

    def once() -> None:
        with RawClient(ground.address) as client:
            client.send(large)
            client.next()

    from_threads(ground, 8, 4, once)


@attack()
def connects_that_are_refused(ground: Ground) -> None:
    """CONNECTs that are refused or malformed, from eight threads: each is told, and logged"""
    wrong = [
        connect(clean=False),
        connect(level=9),
        connect(name=b"HTTP"),
        packet(0x10, b"\0\4MQTT"),
        b"\x16\3\1\0\5xx",
    ]

    def once() -> None:
        for data in wrong:
            with RawClient(ground.address) as client:
                client.send(data)
                client.closed(5)

    from_threads(ground, 8, 4, once)


@attack(of_a_crowd(5000))
def five_thousand_that_drip(ground: Ground) -> None:
    """5,000 connected clients send a packet byte by byte, one byte each in turn"""
    clients = [ground.client() for _ in range(ground.count(5000, 200))]
    data = publish("drip/x", b"x" * 100) + PINGREQ
    for tick in ground.ticks(6):
        for client in clients:
            client.send(data[tick % len(data) :][:1])


@attack(of_a_crowd(4000))
def thousands_that_leave_at_once(ground: Ground) -> None:
    """4,000 clients with ten subscriptions each are reset within the same millisecond, twice"""
    for _ in range(2):
        clients = [ground.client() for _ in range(ground.count(4000, 200))]
        for number, client in enumerate(clients):
            client.send(subscribe(*((f"{number}/{n}/+", 0) for n in range(10))))
            client.next()
        for client in clients:
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        for client in clients:
            client.socket.close()
        time.sleep(1)


@attack(durable=True)
def persistent_ones_that_leave_at_once(ground: Ground) -> None:
    """3,000 persistent clients are reset within the same millisecond, and come back"""
    for _ in range(2):
        clients = []
        for number in range(ground.count(3000, 200)):
            client = RawClient(ground.address)
            client.send(connect(f"p{number}", clean=False))
            client.next()
            clients.append(client)
        for client in clients:
            client.reset()
        time.sleep(1)


@attack()
def connections_that_are_reset(ground: Ground) -> None:
    """connections that are opened and reset at once, from eight threads"""

    def once() -> None:
        RawClient(ground.address).reset()

    from_threads(ground, 8, 4, once)


# --- over TLS ---


@attack(toml=TLS, prepare=certificate)
def tiny_records(ground: Ground) -> None:
    """20 clients over TLS send PINGREQs, one byte in each record"""
    context = trusting(ground)
    clients = [RawClient.connected(ground.addresses[1], f"t{number}", tls=context) for number in range(20)]

    def run(part: list[RawClient]) -> None:
        for _ in ground.ticks(4):
            for client in part:
                client.send(b"\xc0")
                client.send(b"\0")

    threads = [threading.Thread(target=run, args=(clients[number::4],)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@attack(Allowed(), toml=TLS, prepare=certificate)
def handshakes_that_are_finished(ground: Ground) -> None:
    """TLS handshakes to their end, again and again, from eight threads"""
    context = trusting(ground)

    def once() -> None:
        RawClient.connected(ground.addresses[1], tls=context).close()

    from_threads(ground, 8, 4, once)


# --- over WebSocket ---


@attack(toml=BOTH)
def web_socket_pings(ground: Ground) -> None:
    """20 clients over WebSocket send pings of 125 bytes, and read no pong"""
    web_sockets(ground, 20, frame(b"x" * 125, 0x89) * 2000, 4)


@attack(toml=BOTH)
def web_socket_frames_of_one_byte(ground: Ground) -> None:
    """20 clients over WebSocket, whose frames carry one byte of a PUBLISH each"""
    data = publish("web/x", b"y" * 50)
    web_sockets(ground, 20, b"".join(frame(data[n : n + 1]) for n in range(len(data))) * 100, 4)


@attack(toml=BOTH)
def web_socket_requests(ground: Ground) -> None:
    """requests for a WebSocket with 30 KB of headers, from eight threads, that come in 40 pieces"""
    request = (
        b"GET /mqtt HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Protocol: mqtt\r\n"
    )
    request += b"".join(b"X-%d: y\r\n" % number for number in range(120)) + b"Cookie: " + b"c" * 8000 + b"\r\n\r\n"

    def once() -> None:
        with RawClient(ground.addresses[1]) as client:
            for start in range(0, len(request), 250):
                client.send(request[start : start + 250])
            client.socket.recv(1000)

    from_threads(ground, 8, 4, once)


# --- behind a proxy ---

PROXY = '[[listeners]]\nport = 0\n[[listeners]]\nport = 0\nproxy_protocol = ["127.0.0.1"]\nallow_anonymous = true\n'


@attack(toml=PROXY)
def proxy_headers_that_drip(ground: Ground) -> None:
    """200 connections from a proxy, whose headers of 16 KB come byte by byte"""
    body = b"\x0a\0\0\1\x0a\0\0\2\0\1\0\2" + b"\x04" + struct.pack("!H", 16_000) + b"x" * 16_000
    header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11" + struct.pack("!H", len(body)) + body
    sockets = [socket.create_connection(ground.addresses[1]) for _ in range(ground.count(200, 20))]
    for each in sockets:
        each.sendall(header[:12_000])
    for tick in ground.ticks(5):
        for each in sockets:
            with contextlib.suppress(OSError):
                each.sendall(header[12_000 + tick : 12_001 + tick])


@attack(of_a_crowd(2000))
def thousands_of_pings(ground: Ground) -> None:
    """2,000 clients, each of which sends 50 PINGREQs at a time"""
    pump(ground, plain([ground.client() for _ in range(ground.count(2000, 100))]), PINGREQ * 50, 5)


@attack()
def filters_that_are_malformed_at_their_end(ground: Ground) -> None:
    """SUBSCRIBEs of 16 MB whose last filter is malformed: each closes its connection, and there is another one"""
    one = text("/".join("abcdefgh")) + b"\0"
    data = packet(0x82, b"\0\1" + one * ground.count(60_000) + text("a#") + b"\0")
    for _ in ground.ticks(4):
        client = ground.client()
        with contextlib.suppress(OSError):
            client.send(data)
            client.closed(30)
