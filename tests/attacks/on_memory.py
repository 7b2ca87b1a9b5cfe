"""Attacks on memory and disk: what the broker holds for a client costs more than is counted.

Owns: those attacks. Must not know: how they are measured.
"""

from __future__ import annotations

import contextlib
import ssl
import struct
import time
from pathlib import Path

from broker.auth.passwords import set_password
from tests.attacks.ground import MIB, Allowed, Ground, attack, of_a_crowd
from tests.certificates import Authority
from tests.raw_client import RawClient, Will, connect, puback, publish, pubrel, suback, subscribe

#: What the broker may take on a machine with 512 MiB, under whatever attack.
MEMORY = 200 * MIB
DISK = 400 * MIB


def send_all(client: RawClient, data: bytes, patience: float = 30.0) -> None:
    """All of it, or as much as the broker takes before it ends the connection or takes nothing for so long."""
    client.socket.settimeout(patience)
    with contextlib.suppress(TimeoutError, ConnectionError):
        client.socket.sendall(data)


def deaf(ground: Ground, count: int, topic_filter: str, qos: int, **options: object) -> list[RawClient]:
    """Clients that subscribe, and read nothing from then on."""
    clients = [ground.client(f"deaf-{number}", receive_buffer=4096, **options) for number in range(count)]
    for client in clients:
        client.subscribe((topic_filter, qos))
    return clients


def absent(ground: Ground, count: int, topic_filter: str) -> None:
    """Persistent sessions whose clients are away."""
    for number in range(count):
        client = ground.client(f"absent-{number}", clean=False)
        client.send(subscribe((topic_filter, 1)))
        while client.next() != suback(1):
            pass  # what the innocent client publishes matches, too
        client.disconnect()


@attack(Allowed(memory=MEMORY, kept=50 * MIB))
def large_for_readers_that_do_not_read(ground: Ground) -> None:
    """16 MiB at QoS 1 to 60 readers that do not read"""
    readers = deaf(ground, ground.count(60, 6), "big", 1)
    sender = ground.client()
    for number in range(16):
        send_all(sender, publish("big", b"x" * MIB, 1, packet_id=number + 1), 5)
    time.sleep(2)
    for reader in readers:
        reader.close()


def certificate(directory: Path) -> None:
    Authority(directory).issue("server", server=True)


TLS = (
    "[[listeners]]\nport = 0\n[[listeners]]\nport = 0\n"
    'certificate = "{directory}/server.crt"\nkey = "{directory}/server.key"\n'
)


def trusting(ground: Ground) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=ground.directory / "authority.pem")


@attack(Allowed(memory=MEMORY, kept=50 * MIB), toml=TLS, prepare=certificate)
def large_over_tls_for_readers_that_do_not_read(ground: Ground) -> None:
    """16 MiB at QoS 0 to 60 readers over TLS that do not read"""
    context = trusting(ground)
    readers = []
    for number in range(ground.count(60, 6)):
        reader = RawClient.connected(ground.addresses[1], f"deaf-{number}", receive_buffer=4096, tls=context)
        readers.append(reader.subscribe(("big", 0)))
    sender = ground.client()
    for _ in range(16):
        send_all(sender, publish("big", b"x" * MIB), 5)
    time.sleep(2)
    for reader in readers:
        reader.close()


@attack(Allowed(memory=MEMORY, kept=100 * MIB))
def everything_retained_for_the_deaf(ground: Ground) -> None:
    """90,000 small retained messages, 200 clients that subscribe to # and do not read"""
    sender = ground.client()
    for start in range(0, ground.count(90_000), 1000):
        sender.send(b"".join(publish(f"r/{start + number}", b"x", retain=True) for number in range(1000)))
        sender.ping()
    readers = [ground.client(receive_buffer=4096) for _ in range(ground.count(200, 20))]
    for reader in readers:
        reader.send(subscribe(("#", 0)))
    time.sleep(5 * ground.scale)
    for reader in readers:
        reader.close()


@attack(Allowed(memory=MEMORY, disk=DISK), durable=True)
def empty_messages_for_the_absent(ground: Ground) -> None:
    """a flood of empty messages to 300 absent sessions"""
    absent(ground, ground.count(300, 30), "#")
    sender = ground.client()
    for number in ground.ticks(10):
        packets = [publish("e", b"", 1, packet_id=number * 500 % 65_000 + i + 1) for i in range(500)]
        send_all(sender, b"".join(packets), 5)


@attack(Allowed(memory=MEMORY, disk=DISK), durable=True)
def small_messages_for_the_absent(ground: Ground) -> None:
    """2 MiB of messages of 20 bytes to 300 absent sessions that subscribed to #"""
    absent(ground, ground.count(300, 30), "#")
    sender = ground.client()
    for start in range(0, ground.count(100_000), 1000):
        packets = [
            publish("small", b"x" * 15, 1, packet_id=number % 65_535 + 1) for number in range(start, start + 1000)
        ]
        send_all(sender, b"".join(packets), 5)
    sender.send(publish("end", b"", 1, packet_id=65_535))
    with contextlib.suppress(TimeoutError):
        while sender.next(30) != puback(65_535):
            pass


@attack(Allowed(memory=MEMORY, disk=DISK), durable=True)
def retained_under_a_long_client_id(ground: Ground) -> None:
    """5,000 retained messages of one byte, by a client whose Client Identifier has 64 KB"""
    client = ground.client("c" * 65_000)
    for number in range(ground.count(5000)):
        client.send(publish(f"r/{number}", b"x", 1, packet_id=number + 1, retain=True))
        client.next()


@attack(Allowed(memory=MEMORY, disk=DISK), durable=True)
def the_same_retained_again_and_again(ground: Ground) -> None:
    """20 MiB retained, and 10 persistent clients that say SUBSCRIBE # again and again, without reading"""
    sender = ground.client()
    for number in range(ground.count(2000)):
        sender.send(publish(f"r/{number}", b"x" * 10_000, 1, packet_id=number + 1, retain=True))
        sender.next()
    clients = [ground.client(f"again-{number}", clean=False, receive_buffer=4096) for number in range(10)]
    for _ in ground.ticks(20):
        for client in clients:
            send_all(client, subscribe(("#", 1)), 0.1)
        time.sleep(0.5)


@attack(Allowed(memory=MEMORY, disk=DISK), durable=True)
def sessions_under_random_names(ground: Ground) -> None:
    """persistent sessions under ever new Client Identifiers, each with a subscription, for ten seconds"""
    for number in ground.ticks(10):
        with contextlib.suppress(AssertionError, ConnectionError):
            client = ground.client(f"random-{number}", clean=False)
            client.send(subscribe(("#", 1)))
            client.close()
    ground.client("flood").send(b"".join(publish("x", b"y" * 1000, 1, packet_id=i + 1) for i in range(20)))
    time.sleep(2)


@attack(Allowed(memory=MEMORY, disk=DISK), durable=True)
def identifiers_that_are_never_released(ground: Ground) -> None:
    """40 persistent clients hold 65,500 QoS 2 identifiers each, and renew one at a time"""
    clients = [ground.client(f"holder-{number}", clean=False) for number in range(ground.count(40, 4))]
    for client in clients:
        send_all(client, b"".join(publish("h", b"", 2, packet_id=i) for i in range(1, ground.count(65_500))), 10)
    for number in ground.ticks(5):
        for client in clients:
            send_all(client, pubrel(number + 1) + publish("h", b"", 2, packet_id=number + 1), 1)


@attack(Allowed(memory=MEMORY))
def deep_subscriptions(ground: Ground) -> None:
    """20 clients with 10,000 subscriptions of 15 levels each"""
    clients = [ground.client() for _ in range(ground.count(20, 2))]
    for number, client in enumerate(clients):
        for start in range(0, 10_000, 1000):
            filters = [(f"{number}/{start + i}/" + "/".join("abcdefghijkl") + "/+", 0) for i in range(1000)]
            client.send(subscribe(*filters))
            client.next(30)


def passwords(directory: Path) -> None:
    """One user, hashed as expensively as usual."""
    set_password(str(directory / "passwords"), "alice", b"secret", create=True)


LOGIN = 'passwords = "{directory}/passwords"\nallow_anonymous = true\n'


@attack(Allowed(memory=MEMORY, kept=50 * MIB), toml=LOGIN, prepare=passwords)
def wrong_passwords_that_leave(ground: Ground) -> None:
    """1,792 CONNECTs with wrong passwords and a will of 64 KB, each of which leaves at once"""
    for number in range(ground.count(1792)):
        with contextlib.suppress(OSError):
            client = RawClient(ground.address, source=f"127.0.{number % 7 + 1}.2")
            client.send(connect(f"w{number}", username="alice", password=b"x" * 60_000 + struct.pack("!I", number)))
            client.close()
    time.sleep(3)


@attack(Allowed(memory=MEMORY, kept=50 * MIB))
def packets_that_are_never_whole(ground: Ground) -> None:
    """60 clients with a packet of 16 MiB each, of which the last byte never comes"""
    clients = [ground.client() for _ in range(ground.count(60, 6))]
    whole = publish("x", b"y" * (16 * MIB - 20))[:-1]
    for client in clients:
        send_all(client, whole, 5)
    time.sleep(1)
    for client in clients:
        client.close()


BOTH = "[[listeners]]\nport = 0\n[[listeners]]\nport = 0\nwebsocket = true\n"


@attack(Allowed(memory=MEMORY, kept=50 * MIB), toml=BOTH)
def large_packets_over_websocket_that_are_never_whole(ground: Ground) -> None:
    """60 WebSockets with a frame of 15 MiB each, of which the last byte never comes"""
    clients = []
    frame = struct.pack("!BBQ4s", 0x82, 0xFF, 15 * MIB, b"\0\0\0\0") + b"y" * (15 * MIB - 1)
    for _ in range(ground.count(60, 6)):
        client = RawClient(ground.addresses[1])
        client.send(
            b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
            b"Sec-WebSocket-Protocol: mqtt\r\n\r\n"
        )
        client.send(struct.pack("!BB4s", 0x82, 0x80 | len(connect("")), b"\0\0\0\0") + connect(""))
        received = b""
        while b"\x20\x02\0\0" not in received:  # from then on, frames may be large
            received += client.socket.recv(4096)
        send_all(client, frame, 5)
        clients.append(client)
    time.sleep(1)
    for client in clients:
        client.close()


@attack(of_a_crowd(2000, memory=MEMORY, kept=50 * MIB))
def a_block_kept_by_one_byte(ground: Ground) -> None:
    """2,000 clients that send 256 KiB of PINGREQs and the first byte of another packet, again and again"""
    clients = [ground.client() for _ in range(ground.count(2000, 100))]
    block = b"\xc0\0" * 131_071 + b"\x30"
    for client in clients:
        send_all(client, block, 5)
    time.sleep(2)
    for client in clients:
        client.close()


@attack(Allowed(memory=MEMORY, kept=50 * MIB))
def wills_of_64_kilobytes(ground: Ground) -> None:
    """3,000 clients with a will of 64 KB each"""
    clients = []
    for number in range(ground.count(3000, 100)):
        client = RawClient(ground.address)
        with contextlib.suppress(OSError):
            client.send(connect(f"w{number}", will=Will("w", b"x" * 65_000)))
        clients.append(client)
    time.sleep(2)
    for client in clients:
        client.close()


@attack(Allowed(memory=MEMORY, kept=50 * MIB))
def small_messages_for_readers_that_do_not_read(ground: Ground) -> None:
    """small messages of QoS 0 and QoS 1 to 400 readers that do not read"""
    readers = deaf(ground, ground.count(400, 20), "small", 1)
    sender = ground.client()
    for number in ground.ticks(8):
        packets = [publish("small", b"x" * 200, number % 2, packet_id=i + 1) for i in range(500)]
        send_all(sender, b"".join(packets), 20)
    for reader in readers:
        reader.close()
