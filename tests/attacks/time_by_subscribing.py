"""Attacks on the time of others: subscriptions, and what a publish has to do because of them.

Owns: those attacks. Must not know: how they are measured.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from pathlib import Path

from tests.attacks.ground import Allowed, Ground, attack, of_a_crowd, unheard_of
from tests.attacks.on_time import plain, pump, subscribe_all
from tests.raw_client import Closed, RawClient, Will, connect, publish, subscribe, text, unsubscribe
from tests.raw_client import packet as any_packet


@attack()
def ten_thousand_filters_that_go_again(ground: Ground) -> None:
    """a clean session with 10,000 deep filters ends, comes back and subscribes again, without end"""
    count = ground.count(10_000, 1000)
    filters = [f"{number}/" + "/".join("abcdefgh") + "/+" for number in range(count)]
    for _ in ground.ticks(6):
        client = ground.client("again")
        subscribe_all(client, filters)
        client.reset()


@attack(Allowed(disk=None), durable=True)
def persistent_filters_that_go_again(ground: Ground) -> None:
    """the same with a persistent session, which a clean one then ends"""
    count = ground.count(10_000, 1000)
    filters = [f"{number}/" + "/".join("abcdefgh") + "/+" for number in range(count)]
    for _ in ground.ticks(6):
        client = RawClient(ground.address)
        client.send(connect("again", clean=False))
        client.next()
        subscribe_all(client, filters)
        client.close()
        ground.client("again").close()


@attack()
def unsubscribes_of_65536_filters(ground: Ground) -> None:
    """10,000 filters, and UNSUBSCRIBEs of 65,536 filters, of which the client has some"""
    client = ground.client()
    names = [f"{number}/a/+" for number in range(ground.count(65_536))]
    data = any_packet(0xA2, b"\0\1" + b"".join(map(text, names)))
    for _ in range(3):
        subscribe_all(client, names[: ground.count(10_000)])
        client.send(data)
        client.next(60)


@attack()
def wildcards_of_many_clients(ground: Ground) -> None:
    """16 clients with 4,096 filters each, all of which match each of ever new topics"""
    depth = 16 if ground.scale >= 1 else 11
    filters = ["/".join((*levels, "#")) for levels in itertools.product("a+", repeat=depth)]
    share = len(filters) // 16
    clients = [ground.client() for _ in range(16)]
    for number, client in enumerate(clients):
        subscribe_all(client, filters[number * share : (number + 1) * share])
    topics = b"".join(publish(unheard_of(number, depth + 1)) for number in range(5000))
    pump(ground, plain([ground.client()]), topics, 5)


@attack(of_a_crowd(1000))
def a_thousand_clients_with_everything(ground: Ground) -> None:
    """1,000 clients that subscribed to #, and two that publish to ever new topics"""
    readers = [ground.client() for _ in range(ground.count(1000, 50))]
    for reader in readers:
        reader.subscribe(("evil/#", 0))
    reading = threading.Thread(target=pump, args=(ground, plain(readers), b"", 5))
    reading.start()
    topics = b"".join(publish(f"evil/{number}") for number in range(20_000))
    pump(ground, plain([ground.client(), ground.client()]), topics, 4)
    reading.join()


def patterns_for_all(directory: Path) -> None:
    lines = "".join(f"pattern read +/+/x{number}/%c/#\n" for number in range(200))
    (directory / "acl").write_text(lines + "topic readwrite innocent/#\ntopic readwrite evil/#\n")


@attack(of_a_crowd(1000), toml='acl = "{directory}/acl"\n', prepare=patterns_for_all)
def a_thousand_clients_with_rights(ground: Ground) -> None:
    """with an ACL of 200 patterns with %c: 1,000 readers of one branch, and publishes to ever new topics in it"""
    readers = [ground.client(f"reader-{number}") for number in range(ground.count(1000, 50))]
    for reader in readers:
        reader.subscribe(("evil/#", 0))
    reading = threading.Thread(target=pump, args=(ground, plain(readers), b"", 5))
    reading.start()
    topics = b"".join(publish(f"evil/y/x7/{number}/a/b/c") for number in range(20_000))
    pump(ground, plain([ground.client()]), topics, 4)
    reading.join()


def patterns_that_branch(directory: Path) -> None:
    """`{a,+}^12` as grants: a filter or topic goes down all of them."""
    lines = "".join(f"topic readwrite {'/'.join(levels)}/x\n" for levels in itertools.product("a+", repeat=12))
    (directory / "acl").write_text(lines + "topic readwrite innocent/#\n")


@attack(toml='acl = "{directory}/acl"\n', prepare=patterns_that_branch)
def an_acl_that_branches(ground: Ground) -> None:
    """with an ACL of 4,096 grants {a,+}^12/x: PUBLISH to ever new topics that go down all of them"""
    topics = b"".join(publish(unheard_of(number, 13)) for number in range(20_000))
    pump(ground, plain([ground.client()]), topics, 4)


@attack(toml='acl = "{directory}/acl"\n', prepare=patterns_that_branch)
def filters_in_an_acl_that_branches(ground: Ground) -> None:
    """with that ACL: SUBSCRIBEs of filters that go down all of its grants"""
    client = ground.client()
    for start in range(0, ground.count(3000), 1000):
        client.send(subscribe(*((f"{'a/' * 12}y{start + number}", 0) for number in range(1000))))
        client.next(100)


@attack()
def many_children(ground: Ground) -> None:
    """90,000 retained topics below one level, 20 clients that subscribe to +/x and # again and again"""
    sender = ground.client()
    for start in range(0, ground.count(90_000), 1000):
        sender.send(b"".join(publish(f"{start + number}/y", b"x", retain=True) for number in range(1000)))
        sender.ping()
    pump(ground, plain([ground.client() for _ in range(20)]), subscribe(("+/x", 0), ("+/+/z", 0)) * 10, 5)


@attack()
def retained_that_come_and_go_while_read(ground: Ground) -> None:
    """90,000 retained, ten slow readers of all of them, while a client removes and sets them in turns"""
    sender = ground.client()
    count = ground.count(90_000)
    for start in range(0, count, 1000):
        sender.send(b"".join(publish(f"r/{start + number}", b"x", retain=True) for number in range(1000)))
        sender.ping()
    readers = [ground.client(receive_buffer=4096) for _ in range(10)]
    for reader in readers:
        reader.send(subscribe(("#", 0)))
    changes = b"".join(
        publish(f"r/{n}", b"", retain=True) + publish(f"r/{n}", b"x", retain=True) for n in range(0, count, 3)
    )
    gone = b"".join(publish(f"r/{n}", b"", retain=True) for n in range(count))
    pump(ground, plain([ground.client()]), changes + gone, 5)
    for reader in readers:
        reader.close()


@attack()
def retained_in_turns_for_wildcards(ground: Ground) -> None:
    """a retained message is set and cleared in turns, under 500 wildcard subscribers"""
    readers = [ground.client() for _ in range(ground.count(500, 50))]
    for reader in readers:
        reader.subscribe(("evil/+", 0))
    reading = threading.Thread(target=pump, args=(ground, plain(readers), b"", 5))
    reading.start()
    data = b"".join(publish(f"evil/{n}", b"x" * (n % 2), retain=True) for n in range(1000))
    pump(ground, plain([ground.client()]), data, 4)
    reading.join()


@attack()
def deep_topics(ground: Ground) -> None:
    """PUBLISH to ever new topics of 200 levels, retained and not, and of 64 KB"""
    deep = b"".join(publish("a/" * 198 + f"b/{n}", b"x", retain=n % 2 == 0) for n in range(2000))
    long = b"".join(publish(f"{n}" + "c" * 65_000, b"", retain=n % 2 == 0) for n in range(50))
    levels = b"".join(publish("/" * 199 + "d" * n) for n in range(2000))
    watcher = ground.client()
    watcher.subscribe(*(("+/" * number + "z", 0) for number in range(1, 190)))
    pump(ground, plain([ground.client() for _ in range(3)]), deep + long + levels, 4)


@attack()
def topics_that_are_not_utf8(ground: Ground) -> None:
    """clients whose topics of 64 KB are wrong in their last byte: each is closed, and there is another one"""
    data = any_packet(0x30, text(b"\xc3\xa4" * 32_000 + b"\xff"))
    for _ in ground.ticks(4):
        client = ground.client()
        with contextlib.suppress(OSError):
            client.send(data * 3)
            client.close()


@attack(of_a_crowd(1000), toml="sys_interval = 1\n")
def the_brokers_own_topics_for_a_thousand(ground: Ground) -> None:
    """1,000 clients that subscribed to $SYS/#, which is published every second"""
    readers = [ground.client() for _ in range(ground.count(1000, 50))]
    for reader in readers:
        reader.send(subscribe(("$SYS/#", 1)))
    pump(ground, plain(readers), b"", 5)


@attack(durable=True)
def two_that_take_over_from_each_other(ground: Ground) -> None:
    """two connections under one Client Identifier with 10,000 subscriptions take over from each other"""
    client = RawClient(ground.address)
    client.send(connect("same", clean=False))
    client.next()
    subscribe_all(client, [f"{number}/+" for number in range(ground.count(10_000))])

    def run(clean: bool) -> None:
        for _ in ground.ticks(5):
            with contextlib.suppress(OSError, Closed):
                other = RawClient(ground.address)
                other.send(connect("same", clean=clean))
                other.next()

    threads = [threading.Thread(target=run, args=(clean,)) for clean in (False, False, False, True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@attack(of_a_crowd(3000))
def wills_for_thousands(ground: Ground) -> None:
    """100 clients whose wills go to 3,000 subscribers are reset at the same time, again and again"""
    readers = [ground.client() for _ in range(ground.count(3000, 100))]
    for reader in readers:
        reader.subscribe(("will/#", 0))
    reading = threading.Thread(target=pump, args=(ground, plain(readers), b"", 6))
    reading.start()
    for _ in ground.ticks(4):
        dying = [ground.client(will=Will(f"will/{n}", b"x" * 100)) for n in range(ground.count(100, 10))]
        for client in dying:
            client.reset()
    reading.join()


@attack(of_a_crowd(1000))
def a_thousand_that_do_a_little(ground: Ground) -> None:
    """1,000 clients, each of which subscribes to 50 filters and publishes to new topics, at its leisure"""
    clients = [ground.client() for _ in range(ground.count(1000, 50))]
    wanted = subscribe(*((f"+/{n}/a/+", 0) for n in range(50))) + unsubscribe(*(f"+/{n}/a/+" for n in range(50)))
    for tick in ground.ticks(6):
        for number, client in enumerate(clients):
            client.send(wanted + b"".join(publish(f"{tick}/{number}/{n}") for n in range(10)))
        for client in clients:
            client.next()
        time.sleep(0.05)
