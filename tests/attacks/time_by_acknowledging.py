"""Attacks on the time of others: floods of packets with identifiers, and of messages that wait for somebody.

Owns: those attacks. Must not know: how they are measured.
"""

from __future__ import annotations

import contextlib
import threading

from tests.attacks.ground import Allowed, Ground, attack, of_a_crowd
from tests.attacks.on_time import plain, pump
from tests.raw_client import PINGREQ, RawClient, connect, puback, pubcomp, publish, pubrec, pubrel


def numbers(count: int = 60_000) -> range:
    return range(1, count + 1)


@attack()
def qos_2_floods(ground: Ground) -> None:
    """five clients publish at QoS 2 to each other, with all identifiers, and release them"""
    clients = [ground.client() for _ in range(5)]
    for client in clients:
        client.subscribe(("two", 2))
    data = b"".join(publish("two", b"x", 2, packet_id=n) + pubrel(n) for n in numbers(10_000))
    pump(ground, plain(clients), data, 4)


@attack(durable=True)
def persistent_qos_2_floods(ground: Ground) -> None:
    """five persistent clients publish at QoS 2 to each other, and release"""
    clients = [ground.client(f"p{number}", clean=False) for number in range(5)]
    for client in clients:
        client.subscribe(("two", 2))
    data = b"".join(publish("two", b"x", 2, packet_id=n) + pubrel(n) for n in numbers(10_000))
    pump(ground, plain(clients), data, 4)


@attack(durable=True)
def releases_of_nothing(ground: Ground) -> None:
    """20 persistent clients send PUBREL, PUBREC, PUBCOMP and PUBACK for what there never was"""
    clients = [ground.client(f"p{number}", clean=False) for number in range(20)]
    for client in clients:
        client.subscribe(("two", 2))
    data = b"".join(pubrel(n) + pubrec(n) + pubcomp(n) + puback(n) for n in numbers(10_000))
    pump(ground, plain(clients), data, 4)


@attack(of_a_crowd(1000), durable=True)
def a_thousand_that_publish_at_qos_1(ground: Ground) -> None:
    """1,000 clients, each of which has 100 QoS 1 messages under way to a persistent session"""
    reader = ground.client("reader", clean=False)
    reader.subscribe(("one", 1))
    clients = [ground.client() for _ in range(ground.count(1000, 50))]
    pump(ground, plain([reader, *clients]), b"".join(publish("one", b"x", 1, packet_id=n) for n in numbers(100)), 5)


@attack(Allowed(memory=None), durable=True)
def a_backlog_that_is_sent_again(ground: Ground) -> None:
    """a persistent session with 50,000 waiting messages: its client connects, reads a little, and leaves"""
    sleeper = ground.client("sleeper", clean=False)
    sleeper.subscribe(("backlog", 1))
    sleeper.disconnect()
    sender = ground.client()
    for _ in range(ground.count(50)):
        sender.send(b"".join(publish("backlog", b"x" * 50, 1, packet_id=n) for n in numbers(1000)))
        for _ in range(1000):
            sender.next(60)
    for _ in ground.ticks(4):
        client = RawClient(ground.address, receive_buffer=4096)
        client.send(connect("sleeper", clean=False))
        client.next()
        client.next()
        client.reset()


@attack()
def hundreds_that_acknowledge_at_once(ground: Ground) -> None:
    """500 QoS 1 readers of one flood, which acknowledge 100 messages at a time"""
    readers = [ground.client() for _ in range(ground.count(500, 50))]
    for reader in readers:
        reader.subscribe(("flood", 1))
    data = b"".join(puback(n) for n in numbers(65_535)) + PINGREQ
    reading = threading.Thread(target=pump, args=(ground, plain(readers), data, 5))
    reading.start()
    pump(ground, plain([ground.client()]), publish("flood", b"x", 0) + publish("flood", b"x", 1), 4)
    reading.join()


#: Bytes that came in pieces are put together in one step: for 16 MiB, that is 10 to 40 ms.
@attack(Allowed(p99=0.06))
def whole_packets_of_16_mib(ground: Ground) -> None:
    """ten clients publish packets of 16 MiB to ten that subscribed to them"""
    readers = [ground.client() for _ in range(10)]
    for reader in readers:
        reader.subscribe(("big", 0))
    senders = [ground.client() for _ in range(10)]
    reading = threading.Thread(target=pump, args=(ground, plain(readers), b"", 5))
    reading.start()
    pump(ground, plain(senders), publish("big", b"x" * ((16 << 20) - 20)), 4)
    reading.join()


@attack()
def a_large_packet_byte_by_byte(ground: Ground) -> None:
    """50 clients have sent 200 KB of a packet, and send the rest of it byte by byte"""
    clients = [ground.client() for _ in range(50)]
    for client in clients:
        client.send(publish("x", b"y" * 1_000_000)[:200_000])
    sockets = plain(clients)
    for each in sockets:
        each.setblocking(False)
    for _ in ground.ticks(4):
        for each in sockets:
            with contextlib.suppress(BlockingIOError):
                each.send(b"y")
