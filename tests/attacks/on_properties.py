"""Attacks with what MQTT 5.0 brings: properties, aliases, flow control, expiry, shared groups, AUTH.

Owns: those attacks. Must not know: how they are measured.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path

from broker.auth.passwords import set_password
from tests import raw_auth
from tests.attacks.ground import MIB, Allowed, Ground, attack, of_a_crowd
from tests.attacks.on_time import plain, pump
from tests.raw_client import PINGREQ, Closed, RawClient, packet, text
from tests.raw_client_5 import (
    CONNACK,
    PUBLISH,
    PUBREC,
    Client5,
    P,
    Properties,
    Will5,
    ack,
    connect,
    one_property,
    publish,
    section,
    subscribe,
)
from tests.scram_client import ScramClient

#: What the broker may take on a machine with 512 MiB, under whatever attack.
MEMORY = 200 * MIB

STAYS: Properties = {P.SESSION_EXPIRY: 1000}

#: A user property of seven bytes.
SHORT = one_property(P.USER, ("a", "b"))


def opened(ground: Ground, client_id: str = "", properties: Properties = b"", **options: object) -> Client5:
    return Client5.open(ground.address, client_id, properties, **options)  # type: ignore[arg-type]


# --- sections of properties ---


@attack(Allowed(memory=MEMORY))
def thousands_of_user_properties(ground: Ground) -> None:
    """PUBLISH with 4,000 user properties each, to 20 subscribers"""
    readers = [opened(ground) for _ in range(20)]
    for reader in readers:
        reader.ask(("users", 0))
    data = publish("users", b"x", 0, SHORT * ground.count(4000, 400)) * 10
    pump(ground, plain([opened(ground), *readers]), data, 4)


#: 14 MB that came in pieces are put together in one step.
@attack(Allowed(p99=0.06, memory=MEMORY))
def user_properties_without_end(ground: Ground) -> None:
    """packets of 14 MB that are user properties alone: each closes its connection, and there is another one"""
    properties = SHORT * ground.count(2_000_000)
    whole = [
        publish("users", b"x", 0, properties),
        subscribe(("users", 0), properties=properties),
        packet(0xE0, b"\0" + section(properties)),
    ]
    for tick in ground.ticks(5):
        client = opened(ground)
        with contextlib.suppress(OSError):
            client.send(whole[tick % len(whole)])
            client.closed(30)
    for _ in ground.ticks(2):
        stranger = RawClient(ground.address)
        with contextlib.suppress(OSError):
            stranger.send(connect("users", properties))
            stranger.closed(30)


@attack(Allowed(memory=MEMORY))
def ever_new_sections(ground: Ground) -> None:
    """PUBLISH whose properties are never the same: a user property of 60 bytes, and one of 60 KB in between"""
    many = b"".join(
        publish("new", b"x", 0, {P.USER: [("trace", f"{number}-{os.urandom(24).hex()}")]})
        for number in range(ground.count(50_000, 5000))
    )
    long = b"".join(publish("new", b"x", 0, {P.USER: [("trace", os.urandom(30_000).hex())]}) for _ in range(100))
    reader = opened(ground)
    reader.ask(("new", 0))
    pump(ground, plain([opened(ground), reader]), many + long, 5)


@attack()
def sections_that_are_wrong_at_their_end(ground: Ground) -> None:
    """PUBLISH with 4,000 user properties, of which the last is not UTF-8: each closes its connection"""
    data = publish("wrong", b"x", 0, SHORT * 4000 + b"\x26" + text(b"\xff") + text("x"))
    for _ in ground.ticks(4):
        client = opened(ground)
        with contextlib.suppress(OSError):
            client.send(data)
            client.closed(30)


@attack(Allowed(memory=MEMORY, kept=60 * MIB), durable=True)
def properties_that_wait(ground: Ground) -> None:
    """messages of one byte with 60 KB of properties for 100 sessions that are away"""
    for number in range(ground.count(100, 10)):
        client = opened(ground, f"away-{number}", STAYS)
        client.ask(("heavy", 1))
        client.disconnect()
    properties = {P.USER: [("x" * 100, "y" * 200)] * 200}
    data = b"".join(publish("heavy", b"x", 1, properties, packet_id=number) for number in range(1, 41))
    sender = opened(ground)
    for _ in range(ground.count(40)):
        sender.send(data)
        for _ in range(40):
            sender.next(60)


@attack(Allowed(memory=MEMORY))
def retained_properties(ground: Ground) -> None:
    """100,000 retained messages of one byte with 2 KB of properties, which never match again"""
    sender = opened(ground)
    for start in range(0, ground.count(100_000, 1000), 100):
        sender.send(
            b"".join(
                publish(f"kept/{start + n}", b"x", 0, {P.USER: [("a", f"{start + n:06d}" * 333)]}, retain=True)
                for n in range(100)
            )
        )
    with contextlib.suppress(OSError, Closed):
        sender.send(PINGREQ)
        sender.next(100)


# --- aliases ---


@attack(Allowed(memory=MEMORY, kept=50 * MIB))
def aliases_of_long_topics(ground: Ground) -> None:
    """500 clients set every alias that they may to a topic of 60 KB"""
    clients = [opened(ground) for _ in range(ground.count(500, 20))]
    for number, client in enumerate(clients):
        for alias in range(1, client.connack.properties.get(P.ALIAS_MAXIMUM, 0) + 1):
            topic = f"{number}/{alias}/".ljust(60_000, "x")
            client.send(publish(topic, b"", 0, {P.ALIAS: alias}))
        client.send(PINGREQ)
    for client in clients:
        client.next(60)
    time.sleep(1)
    for client in clients:
        client.reset()


@attack()
def aliases_that_change(ground: Ground) -> None:
    """an alias is set to ever new topics, of which each is used once by the alias alone"""
    data = b"".join(
        publish(f"alias/{number}", b"x", 0, {P.ALIAS: number % 5 + 1}) + publish("", b"y", 0, {P.ALIAS: number % 5 + 1})
        for number in range(ground.count(40_000, 4000))
    )
    pump(ground, plain([opened(ground) for _ in range(3)]), data, 4)


@attack(of_a_crowd(500, memory=MEMORY))
def aliases_for_subscribers(ground: Ground) -> None:
    """500 subscribers that take 65,535 aliases each, and ever new topics"""
    readers = [opened(ground, "", {P.ALIAS_MAXIMUM: 65_535}) for _ in range(ground.count(500, 20))]
    for reader in readers:
        reader.ask(("ever/#", 0))
    reading = threading.Thread(target=pump, args=(ground, plain(list(readers)), b"", 6))
    reading.start()
    topics = b"".join(publish(f"ever/{number}/" + "x" * 200, b"x") for number in range(20_000))
    pump(ground, plain([opened(ground)]), topics, 5)
    reading.join()


# --- flow control ---


@attack(Allowed(memory=MEMORY, kept=50 * MIB))
def receive_maximum_of_1_in_a_group(ground: Ground) -> None:
    """99 members of a shared group that take one message each and never acknowledge it, beside one that works"""
    members = [opened(ground, "", {P.RECEIVE_MAXIMUM: 1}) for _ in range(ground.count(99, 9))]
    for member in members:
        member.ask(("$share/starved/work", 1))
    worker = opened(ground)
    worker.ask(("$share/starved/work", 1))
    done = 0

    def work() -> None:
        nonlocal done
        while done < wanted:
            done += worker.take(60).type == PUBLISH

    count = ground.count(20_000, 1000)
    wanted = count - len(members)
    working = threading.Thread(target=work)
    working.start()
    sender = opened(ground)
    for start in range(0, count, 20):
        sender.send(b"".join(publish("work", b"%d" % (start + n), 1, packet_id=n + 1) for n in range(20)))
        for _ in range(20):
            sender.next(60)
    working.join(60)
    assert done == wanted, f"one that works got {done} of {wanted}"


@attack(Allowed(memory=MEMORY))
def quotas_that_are_never_given_back(ground: Ground) -> None:
    """300 clients publish at QoS 2 as much as they may, and release nothing, again and again"""
    for tick in ground.ticks(5):
        clients = [opened(ground, f"{tick}-{n}", STAYS) for n in range(ground.count(300, 20))]
        for client in clients:
            most = min(client.connack.properties.get(P.RECEIVE_MAXIMUM, 65_535), 1000)
            client.send(b"".join(publish("quota", b"x" * 100, 2, packet_id=n + 1) for n in range(most)))
        for client in clients:
            with contextlib.suppress(OSError, Closed):
                while client.came(30).type == PUBREC:
                    client.send(PINGREQ)
            client.reset()


@attack(of_a_crowd(1000, memory=MEMORY))
def packets_that_are_too_large_for_all(ground: Ground) -> None:
    """1,000 subscribers that take 100 bytes, and a flood of messages of 200 bytes at QoS 1"""
    readers = [opened(ground, "", {P.MAXIMUM_PACKET_SIZE: 100}) for _ in range(ground.count(1000, 50))]
    for reader in readers:
        reader.send(subscribe(("large", 1)))
        reader.next()
    data = b"".join(publish("large", b"x" * 200, 1, packet_id=n) for n in range(1, 51))
    pump(ground, plain([opened(ground), *readers]), data, 4)


# --- what happens all at once ---


@attack(Allowed(memory=MEMORY, kept=60 * MIB), durable=True)
def sessions_with_an_expiry_of_their_own_that_end_at_once(ground: Ground) -> None:
    """5,000 sessions with 20 subscriptions each expire in the same second"""
    count = ground.count(5000, 200)
    start = time.monotonic()
    wanted = subscribe(*((f"{n}/+/x", 1) for n in range(20)))
    clients = []
    for number in range(count):
        left = max(1, int(20 * ground.scale + 3 - (time.monotonic() - start)))
        client = Client5(ground.address)
        client.send(connect(f"expiring-{number}", {P.SESSION_EXPIRY: left}) + wanted)
        clients.append(client)
        if len(clients) == 100:
            for each in clients:
                each.next(60)
                each.next(60)
                each.close()
            clients.clear()
    time.sleep(max(0.0, 20 * ground.scale + 6 - (time.monotonic() - start)))


@attack(Allowed(memory=MEMORY))
def messages_that_expire_at_once(ground: Ground) -> None:
    """50,000 retained and 50,000 waiting messages expire in the same second, and are asked for then"""
    away = opened(ground, "away", STAYS)
    away.ask(("late/#", 1))
    away.disconnect()
    sender = opened(ground)
    count = ground.count(50_000, 2000)
    start = time.monotonic()
    most = 15 * ground.scale + 3
    for number in range(0, count, 50):
        left = max(1, int(most - (time.monotonic() - start)))
        sender.send(
            b"".join(
                publish(f"late/{number + n}", b"x", 1, {P.MESSAGE_EXPIRY: left}, packet_id=n + 1, retain=True)
                for n in range(50)
            )
        )
        for _ in range(50):
            sender.next(60)
    time.sleep(max(0.0, most - 0.5 - (time.monotonic() - start)))
    back = opened(ground, "away", STAYS, clean=False, present=True)
    pump(ground, plain([back, opened(ground)]), subscribe(("late/+", 0)), 3)


@attack(Allowed(memory=MEMORY, kept=60 * MIB), durable=True)
def wills_that_are_due_at_once(ground: Ground) -> None:
    """3,000 wills with a delay, of 1,000 bytes, go to 100 subscribers in the same second"""
    readers = [opened(ground) for _ in range(ground.count(100, 10))]
    for reader in readers:
        reader.ask(("due/#", 0))
    start = time.monotonic()
    most = 12 * ground.scale + 3
    clients = []
    for number in range(ground.count(3000, 100)):
        left = max(1, int(most - (time.monotonic() - start)))
        will = Will5(f"due/{number}", b"x" * 1000, 1, False, {P.WILL_DELAY: left})
        client = Client5(ground.address)
        client.send(connect(f"due-{number}", STAYS, will=will))
        clients.append(client)
        if len(clients) == 100:
            for each in clients:
                each.next(60)
                each.reset()
            clients.clear()
    pump(ground, plain(list(readers)), b"", max(1.0, most + 2 - (time.monotonic() - start)) / ground.scale)


@attack(Allowed(memory=MEMORY), durable=True)
def wills_that_are_held_back(ground: Ground) -> None:
    """50 clients with delayed wills of 60 KB come back and are cut off again, without end"""
    will = Will5("held", b"x" * 60_000, 1, True, {P.WILL_DELAY: 1000, P.USER: [("a", "b" * 1000)]})

    def run(number: int) -> None:
        for _ in ground.ticks(4):
            client = RawClient(ground.address)
            client.send(connect(f"held-{number}", STAYS, clean=False, will=will))
            client.next(60)
            client.reset()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(ground.count(50, 5))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


# --- subscriptions ---


@attack(Allowed(memory=MEMORY))
def thousands_of_identifiers(ground: Ground) -> None:
    """a client with 5,000 filters that all match, each with its own identifier"""
    client = opened(ground)
    for number in range(ground.count(5000, 500)):
        topic_filter = "/".join("+" if number >> bit & 1 else "a" for bit in range(13))
        client.send(subscribe((topic_filter, 0), properties={P.SUBSCRIPTION_ID: number + 1}))
        client.next(60)
    data = publish("/".join("a" * 13), b"x") * 20
    pump(ground, plain([opened(ground), client]), data, 4)


@attack(Allowed(memory=MEMORY, kept=60 * MIB), durable=True)
def thousands_of_groups(ground: Ground) -> None:
    """a persistent client makes 9,000 groups of one filter; each message waits for all of them"""
    client = opened(ground, "groups", STAYS)
    count = ground.count(9000, 500)
    for start in range(0, count, 500):
        client.send(subscribe(*((f"$share/{start + n}/many", 1) for n in range(500))))
        client.next(60)
    client.disconnect()
    sender = opened(ground)
    for _ in ground.ticks(5):
        sender.send(publish("many", b"x" * 1000, 1))
        sender.next(60)
    for tick in ground.ticks(3):  # the members come and go
        back = opened(ground, "groups", STAYS, clean=False, present=True)
        if tick % 2:
            back.close()
        else:
            back.reset()


@attack(of_a_crowd(1000))
def members_that_come_and_go(ground: Ground) -> None:
    """1,000 clients join one group and leave it again, while it is published to"""
    clients = [opened(ground) for _ in range(ground.count(1000, 50))]
    joins = subscribe(("$share/busy/busy", 1)) + packet(0xA2, b"\0\1\0" + text("$share/busy/busy"))
    publishing = threading.Thread(target=pump, args=(ground, plain([opened(ground)]), publish("busy", b"x") * 100, 4))
    publishing.start()
    pump(ground, plain(list(clients)), joins, 4)
    publishing.join()


# --- AUTH ---


def users(directory: Path) -> None:
    set_password(str(directory / "users"), "ann", b"secret", create=True, method="SCRAM-SHA-256")


SCRAM = '[[listeners]]\npasswords = "{directory}/users"\nallow_anonymous = true\n'


def many(ground: Ground, count: int, once: object) -> None:
    def run() -> None:
        for _ in ground.ticks(4):
            with contextlib.suppress(OSError, Closed, AssertionError):
                once()  # type: ignore[operator]

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@attack(toml=SCRAM, prepare=users)
def scram_logins_that_fail(ground: Ground) -> None:
    """SCRAM logins with a wrong proof, and of users that are none, from eight threads"""

    def once() -> None:
        method = "SCRAM-SHA-256"
        for user in ("ann", f"nobody-{time.monotonic()}"):
            with RawClient(ground.address) as client:
                client.send(raw_auth.connect5("", method, ScramClient(method, user, "x").first()))
                challenge = raw_auth.answer(client)
                nonce = challenge.data.split(b",")[0]
                client.send(raw_auth.auth(raw_auth.CONTINUE, method, b"c=biws," + nonce + b",p=" + b"A" * 43 + b"="))
                client.closed()

    many(ground, 8, once)


@attack(toml=SCRAM, prepare=users)
def scram_logins_that_stop_halfway(ground: Ground) -> None:
    """SCRAM logins that begin and never go on: 2,000 at a time"""
    method = "SCRAM-SHA-256"
    for _ in ground.ticks(4):
        waiting = []
        for _ in range(ground.count(2000, 50)):
            client = RawClient(ground.address)
            client.send(raw_auth.connect5("", method, ScramClient(method, "ann", "x").first()))
            waiting.append(client)
        for client in waiting:
            client.reset()


@attack(toml=SCRAM, prepare=users)
def authentication_again_and_again(ground: Ground) -> None:
    """20 clients that are logged in begin a second authentication over and over, with AUTHs of 60 KB behind it"""
    method = "SCRAM-SHA-256"

    def once() -> None:
        with Client5(ground.address) as client:
            answer = raw_auth.log_in(client, ScramClient(method, "ann", "secret"), method)
            assert answer.type == CONNACK
            first = raw_auth.auth(raw_auth.AGAIN, method, ScramClient(method, "ann", "secret").first())
            client.send(first * 50 + raw_auth.auth(raw_auth.CONTINUE, method, b"x" * 60_000) * 5)
            client.closed()

    many(ground, 20, once)


@attack()
def auth_of_unknown_methods(ground: Ground) -> None:
    """CONNECTs with ever new methods and 60 KB of data, from eight threads"""

    def once() -> None:
        with RawClient(ground.address) as client:
            client.send(raw_auth.connect5("", os.urandom(20_000).hex(), b"x" * 60_000))
            client.closed()

    many(ground, 8, once)


# --- acknowledgements ---


@attack()
def acknowledgements_with_strings(ground: Ground) -> None:
    """20 clients send acknowledgements of nothing, with reason strings of 60 KB and user properties"""
    more = {P.REASON_STRING: "x" * 60_000, P.USER: [("a", "b")] * 500}
    data = b"".join(ack(kind, n, 0x80 if kind != 6 else 0x92, more) for n in range(1, 20) for kind in (4, 5, 6, 7))
    pump(ground, plain([opened(ground) for _ in range(20)]), data, 4)
