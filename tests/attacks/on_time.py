"""Attacks on the time of others: what one client sends costs the broker more than it costs the client.

Owns: those attacks. Must not know: how they are measured.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import selectors
import signal
import socket
import threading
import time
from pathlib import Path

from broker.core.ports import Batch, SessionRecord
from broker.storage.sqlite import SqliteStore
from tests.attacks.ground import Allowed, Ground, attack, of_a_crowd, unheard_of
from tests.raw_client import PINGREQ, RawClient, Will, connect, packet, publish, subscribe, text, unsubscribe
from tests.websocket_client import WebSocketClient

#: Grants that have nothing to do with what an attacker asks for.
GRANTS = "".join(f"topic readwrite site/{number}/+/state\n" for number in range(200)) + "topic readwrite innocent/#\n"


def pump(ground: Ground, sockets: list[socket.socket], data: bytes, seconds: float) -> None:
    """Send this over each of them, again and again, as fast as the broker takes it; read what comes, and forget it."""
    left = dict.fromkeys(sockets, memoryview(data))
    with selectors.DefaultSelector() as selector:
        for each in sockets:
            each.setblocking(False)
            selector.register(each, selectors.EVENT_READ | (selectors.EVENT_WRITE if data else 0))
        for _ in ground.ticks(seconds):
            for key, events in selector.select(0.1):
                plain = key.fileobj
                assert isinstance(plain, socket.socket)
                try:
                    if events & selectors.EVENT_READ and not socket.socket.recv(plain, 1 << 18):
                        raise ConnectionResetError
                    if events & selectors.EVENT_WRITE:
                        left[plain] = left[plain][socket.socket.send(plain, left[plain]) :] or memoryview(data)
                except BlockingIOError:
                    continue
                except ConnectionError:
                    selector.unregister(plain)


def plain(clients: list[RawClient]) -> list[socket.socket]:
    return [client.socket for client in clients]


def subscribe_all(client: RawClient, filters: list[str], at_a_time: int = 1000) -> None:
    for start in range(0, len(filters), at_a_time):
        client.send(subscribe(*((each, 0) for each in filters[start : start + at_a_time])))
        client.next()


@attack()
def many_wildcards(ground: Ground) -> None:
    """8,192 filters {a,+}^13/#, then PUBLISH to ever new topics, each of which all of them match"""
    client = ground.client()
    depth = 13 if ground.scale >= 1 else 10
    subscribe_all(client, ["/".join((*levels, "#")) for levels in itertools.product("a+", repeat=depth)])
    topics = b"".join(publish(unheard_of(number, depth + 1)) for number in range(20_000))
    pump(ground, plain([ground.client()]), topics, 4)


def two_hundred_grants(directory: Path) -> None:
    (directory / "acl").write_text(GRANTS)


@attack(toml='acl = "{directory}/acl"\n', prepare=two_hundred_grants)
def filters_that_the_acl_refuses(ground: Ground) -> None:
    """with an ACL of 200 grants: SUBSCRIBEs of 65,536 filters that none of them covers"""
    client = ground.client()
    filters = b"".join(text(f"+/x{number}/+") + b"\0" for number in range(ground.count(65_536)))
    data = packet(0x82, b"\0\1" + filters)
    for _ in range(3):
        client.send(data)
        client.next(60)


@attack(toml='acl = "{directory}/acl"\n', prepare=two_hundred_grants)
def topics_that_the_acl_refuses(ground: Ground) -> None:
    """with an ACL of 200 grants: a flood of PUBLISH to ever new topics"""
    topics = b"".join(publish(f"{number}/{number % 7}/x/y") for number in range(200_000))
    pump(ground, plain([ground.client()]), topics, 4)


@attack()
def one_deep_filter_again_and_again(ground: Ground) -> None:
    """40,000 times one filter of 200 levels, in one SUBSCRIBE of 16 MB"""
    client = ground.client()
    one = text("/".join(["a"] * 199 + ["#"])) + b"\0"
    client.send(packet(0x82, b"\0\1" + one * ground.count(40_000)))
    client.next(60)


@attack()
def long_filters(ground: Ground) -> None:
    """250 filters of 64 KB, in one SUBSCRIBE"""
    client = ground.client()
    filters = (text(f"a/+/{'c' * 65_000}{number}") + b"\0" for number in range(ground.count(250)))
    client.send(packet(0x82, b"\0\1" + b"".join(filters)))
    client.next(60)


@attack()
def retained_that_nothing_matches(ground: Ground) -> None:
    """500 retained messages, three SUBSCRIBEs of 10,000 filters +/N that match none of them"""
    client = ground.client()
    client.send(b"".join(publish(f"t{number}/a", b"x", retain=True) for number in range(500)))
    client.ping()
    for start in range(3):
        wanted = [(f"+/{number}", 0) for number in range(start * 3000, start * 3000 + ground.count(10_000))]
        client.send(subscribe(*wanted))
        client.next(60)
    client.ping()


@attack()
def pings(ground: Ground) -> None:
    """20 clients that send nothing but PINGREQ, as fast as they can"""
    pump(ground, plain([ground.client() for _ in range(20)]), PINGREQ * 50_000, 4)


def frame(payload: bytes, first: int = 0x82) -> bytes:
    """A WebSocket frame as a client sends it, masked with zeros."""
    size = len(payload)
    if size < 126:
        head = bytes((first, 0x80 | size))
    elif size < 65_536:
        head = bytes((first, 0xFE)) + size.to_bytes(2, "big")
    else:
        head = bytes((first, 0xFF)) + size.to_bytes(8, "big")
    return head + b"\0\0\0\0" + payload


def web_sockets(ground: Ground, count: int, data: bytes, seconds: float) -> None:
    """So many clients that send this over a WebSocket, behind their CONNECT."""
    clients: list[RawClient] = []
    for _ in range(count):
        client = WebSocketClient(ground.addresses[1])
        client.send(connect())
        client.next()
        clients.append(client)
    pump(ground, plain(clients), data, seconds)


BOTH = "[[listeners]]\nport = 0\n[[listeners]]\nport = 0\nwebsocket = true\n"


@attack(toml=BOTH)
def pings_in_web_socket_frames(ground: Ground) -> None:
    """20 clients over WebSocket, with 60,000 PINGREQs in each frame"""
    web_sockets(ground, 20, frame(PINGREQ * 60_000), 4)


@attack(toml=BOTH)
def fragments_of_nothing(ground: Ground) -> None:
    """20 clients over WebSocket, whose frames are fragments of 0 bytes and of 1 byte"""
    fragments = b"".join(
        frame(b"", 0x02) + frame(b"", 0x00) * 50 + frame(b"\xc0", 0x00) + frame(b"\0", 0x80) for _ in range(200)
    )
    web_sockets(ground, 20, fragments, 4)


@attack()
def three_publishers_to_a_thousand(ground: Ground) -> None:
    """three publishers that flood a topic with 1,000 subscribers"""
    readers = [ground.client() for _ in range(ground.count(1000, 100))]
    for reader in readers:
        reader.subscribe(("everybody", 0))
    reading = threading.Thread(target=pump, args=(ground, plain(readers), b"", 5))
    reading.start()
    pump(ground, plain([ground.client() for _ in range(3)]), publish("everybody", b"x" * 20) * 1000, 4)
    reading.join()


@attack(of_a_crowd(550))
def wills_all_at_once(ground: Ground) -> None:
    """250 wills of 64 KB, all at once, to 300 readers that do not read"""
    readers = [ground.client(receive_buffer=4096) for _ in range(ground.count(300, 30))]
    for reader in readers:
        reader.subscribe(("will", 0))
    dying = [ground.client(will=Will("will", b"x" * 65_000)) for _ in range(ground.count(250, 25))]
    for client in dying:
        client.reset()
    time.sleep(3 * ground.scale)


def sleepers(directory: Path, count: int = 200_000) -> None:
    """Sessions that all expire some seconds from now."""
    store = SqliteStore(str(directory / "data"))
    away = time.time() - 60
    sessions = {number: SessionRecord(number, f"sleeper-{number}", None, away, 0) for number in range(1, count + 1)}
    store.commit(Batch([], sessions, {(number, b"sleep/%d" % number): 1 for number in sessions}, {}, [], {}))
    store.close()


@attack(toml='session_expiry = "65s"\nmax_sessions = 1000000\nmax_memory = "4 GiB"\n', prepare=sleepers, durable=True)
def sessions_that_expire_at_once(ground: Ground) -> None:
    """200,000 sessions that expire within the same second"""
    time.sleep(15)


def many_patterns(directory: Path) -> None:
    lines = "".join(f"pattern readwrite devices/%c/{number}\n" for number in range(3000))
    (directory / "acl").write_text(lines + "topic readwrite innocent/#\n")


@attack(toml='acl = "{directory}/acl"\n', prepare=many_patterns)
def an_acl_that_is_read_again(ground: Ground) -> None:
    """an ACL of 3,000 patterns with %c is reloaded while 800 clients are connected"""
    clients = [ground.client(f"device-{number}") for number in range(ground.count(800, 50))]
    for client in clients:
        client.ping()
    for _ in range(5):
        os.kill(ground.pid, signal.SIGHUP)
        time.sleep(0.5)


@attack(toml='acl = "{directory}/acl"\n', prepare=many_patterns)
def three_hundred_hangups(ground: Ground) -> None:
    """300 SIGHUPs, one after the other, with an ACL of 3,000 lines"""
    for _ in range(ground.count(300)):
        os.kill(ground.pid, signal.SIGHUP)
        time.sleep(0.005)
    time.sleep(2)


@attack(Allowed(longest=0.1))
def clients_that_come_and_go(ground: Ground) -> None:
    """connect, disconnect, again, from eight threads"""

    def run() -> None:
        for _ in ground.ticks(4):
            with contextlib.suppress(OSError):
                client = RawClient(ground.address)
                client.send(connect())
                client.next()
                client.close()

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@attack()
def subscriptions_that_come_and_go(ground: Ground) -> None:
    """a wildcard is subscribed to and unsubscribed from without end, so that no route is remembered"""
    pump(ground, plain([ground.client()]), (subscribe(("a/+", 0)) + unsubscribe("a/+")) * 500, 4)
