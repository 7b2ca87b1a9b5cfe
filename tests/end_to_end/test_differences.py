"""What "Moving from Mosquitto" says differs is tried with both brokers: Debian's Mosquitto, and ours."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from broker.auth.passwords import set_password
from tests.broker_process import BrokerProcess
from tests.certificates import Authority
from tests.password_lines import pbkdf2_line, scram_line
from tests.raw_client import (
    DEADLINE,
    PINGREQ,
    PINGRESP,
    Address,
    Closed,
    RawClient,
    Will,
    connack,
    connect,
    parse_publish,
    puback,
    publish,
    suback,
    subscribe,
)
from tests.raw_client_5 import CONNACK, DISCONNECT, NEVER, NO_LOCAL, PUBACK, PUBLISH, SUBACK, Client5, P, parse
from tests.raw_client_5 import connect as connect5
from tests.raw_client_5 import publish as publish5
from tests.raw_client_5 import subscribe as subscribe5

ACL = """\
topic read seen/#
user alice
topic readwrite secret/#
pattern deny alice/%u/#
topic readwrite alice/#
pattern readwrite of/%c/#
"""


class Site(NamedTuple):
    """A broker with five listeners."""

    anybody: Address
    users: Address  #: anonymous clients too
    rights: Address
    unchecked: Address  #: rights, but no passwords
    certificates: Address  #: asked for, but not required


class Sites(NamedTuple):
    mosquitto: Site
    ours: Site
    context: ssl.SSLContext  #: of a client that shows no certificate if it is not asked for one

    @property
    def both(self) -> tuple[Site, Site]:
        return self.mosquitto, self.ours


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in sockets]


@contextlib.contextmanager
def mosquitto(directory: Path, authority: Authority) -> Iterator[Site]:
    server = authority.issue("mosquitto", server=True)
    ports = free_ports(5)
    options = (
        "allow_anonymous true",
        f"allow_anonymous true\npassword_file {directory}/users",
        f"allow_anonymous true\nacl_file {directory}/acl\npassword_file {directory}/users",
        f"allow_anonymous true\nacl_file {directory}/acl",
        f"certfile {server.certificate}\nkeyfile {server.key}\ncafile {authority.certificate}\n"
        "use_identity_as_username true\nrequire_certificate false\nallow_anonymous false",
    )
    listeners = "".join(f"listener {port} 127.0.0.1\n{some}\n" for port, some in zip(ports, options, strict=True))
    (directory / "mosquitto.conf").write_text(f"per_listener_settings true\nuser root\n{listeners}")
    with running(["mosquitto", "-c", str(directory / "mosquitto.conf")], ports[-1]):
        yield Site(*(("127.0.0.1", port) for port in ports))


@contextlib.contextmanager
def running(command: list[str], port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A broker, once it listens on the port."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            end = time.monotonic() + DEADLINE
            while True:  # it has no other way to say that it is ready
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                except ConnectionRefusedError:
                    assert (process.poll(), time.monotonic() < end) == (None, True)
                    time.sleep(0.01)
            yield process
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def sites(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sites]:
    directory = tmp_path_factory.mktemp("sites")
    directory.chmod(0o755)
    for user in ("alice", "bob"):
        set_password(str(directory / "users"), user, b"secret", create=True, iterations=101)
    with open(directory / "users", "a") as users:
        users.write(pbkdf2_line("empty", b"", iterations=101) + scram_line("sam", b"secret"))
    (directory / "acl").write_text(ACL)
    toml = "".join(
        f"[[listeners]]\n{options}\n"
        for options in (
            "",
            f'allow_anonymous = true\npasswords = "{directory}/users"',
            f'allow_anonymous = true\npasswords = "{directory}/users"\nacl = "{directory}/acl"',
            f'allow_anonymous = true\nacl = "{directory}/acl"',
            f'{authority.issue("ours", server=True).toml}client_ca = "{authority.certificate}"\n'
            'certificate_user = "cn"\nclient_certificates = "optional"',
        )
    )
    broker = BrokerProcess(directory, toml)
    context = ssl.create_default_context(cafile=str(authority.certificate))
    with mosquitto(directory, authority) as theirs:
        yield Sites(theirs, Site(*broker.addresses), context)
    broker.stop()


def answer(address: Address, *packets: bytes, tls: ssl.SSLContext | None = None) -> bytes:
    """The last thing that comes after these packets, one by one; nothing if the connection is closed."""
    with RawClient(address, tls=tls) as client:
        came = b""
        for data in packets:
            client.send(data)
            try:
                came = client.next()
            except Closed:
                return b""
        return came


def test_wrong_password(sites: Sites) -> None:
    wrong = connect("x", username="alice", password=b"wrong")
    assert [answer(site.users, wrong) for site in sites.both] == [connack(5), connack(4)]


def test_unknown_user(sites: Sites) -> None:
    assert [answer(site.users, connect("x", username="bob", password=b"")) for site in sites.both] == [
        connack(5), connack(4),
    ]  # fmt: skip


def test_the_hash_of_an_empty_password(sites: Sites) -> None:
    empty, none = connect("x", username="empty", password=b""), connect("x", username="empty")
    assert [answer(site.users, empty) for site in sites.both] == [connack(5), connack(0)]
    assert [answer(site.users, none) for site in sites.both] == [connack(5), connack(4)]


def test_user_with_scram(sites: Sites) -> None:
    """A line that Mosquitto does not know, and leaves out."""
    login = connect("x", username="sam", password=b"secret")
    assert [answer(site.users, login) for site in sites.both] == [connack(5), connack(0)]


def test_missing_client_certificate(sites: Sites) -> None:
    answers = [answer(site.certificates, connect("x"), tls=sites.context) for site in sites.both]
    assert answers == [connack(4), connack(5)]


def test_optional_client_certificate(sites: Sites, authority: Authority) -> None:
    """Only ours asks for it."""
    ann = authority.issue("ann")
    context = ssl.create_default_context(cafile=str(authority.certificate))
    context.load_cert_chain(ann.certificate, ann.key)
    assert [answer(site.certificates, connect("x"), tls=context) for site in sites.both] == [connack(4), connack(0)]


def test_session_of_a_user(sites: Sites) -> None:
    answers = []
    for site in sites.both:
        with RawClient.connected(site.users, "hers", username="alice", password=b"secret", clean=False):
            for login in (
                connect("hers", clean=False),
                connect("hers", clean=False, username="bob", password=b"secret"),
            ):
                answers.append(answer(site.users, login))
    assert answers == [connack(0, True)] * 2 + [connack(5)] * 2


@pytest.mark.parametrize(("clean", "theirs"), [(True, ["will/of/dev"]), (False, [])])
def test_will_at_a_takeover(sites: Sites, clean: bool, theirs: list[str]) -> None:
    assert [wills_at_a_takeover(site.anybody, clean) for site in sites.both] == [theirs, ["will/of/dev"]]


def wills_at_a_takeover(address: Address, clean: bool) -> list[str]:
    with (
        RawClient.connected(address, "watcher").subscribe(("will/#", 0)) as watcher,
        RawClient.connected(address, "dev", clean=clean, will=Will("will/of/dev")),
        RawClient.connected(address, "dev", clean=clean, present=not clean),
    ):
        watcher.send(publish("will/end"))
        topics = []
        while (topic := watcher.message().topic) != "will/end":
            topics.append(topic)
        return topics


def test_will_of_a_broker_that_is_killed(tmp_path: Path) -> None:
    """Ours knows it when it starts again."""
    tmp_path.chmod(0o777)
    (port,) = free_ports(1)
    (tmp_path / "mosquitto.conf").write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\nuser root\npersistence true\n"
        f"persistence_location {tmp_path}/\nautosave_interval 1\nautosave_on_changes true\n"
    )
    theirs, ours = (
        ["mosquitto", "-c", str(tmp_path / "mosquitto.conf")],
        BrokerProcess(tmp_path, data=tmp_path / "data"),
    )
    will = Will("will/killed", retain=True)
    came = []
    with running(theirs, port) as process, RawClient.connected(("127.0.0.1", port), "x", clean=False, will=will):
        process.kill()
        process.wait()
    with running(theirs, port):
        came.append(answer(("127.0.0.1", port), connect("y"), subscribe(("will/#", 0)) + PINGREQ, b""))
    with RawClient.connected(ours.address, "x", clean=False, will=will):
        ours.kill()
    ours.start()
    came.append(answer(ours.address, connect("y"), subscribe(("will/#", 0)) + PINGREQ, b""))
    ours.stop()
    assert came[0] == PINGRESP
    assert parse_publish(came[1]).topic == "will/killed"


CONTROL = "k\x01"


def test_control_characters(sites: Sites) -> None:
    cases = (
        (connect("x"), publish(CONTROL, b"", 1)),
        (connect("x"), subscribe((CONTROL, 0))),
        (connect(CONTROL),),
        (connect("x", username=CONTROL),),
        (connect("x", will=Will(CONTROL)),),
    )
    assert [answer(sites.mosquitto.anybody, *case) for case in cases] == [b""] * 5
    fine = [puback(1), suback(0), connack(), connack(), connack()]
    assert [answer(sites.ours.anybody, *case) for case in cases] == fine


def test_order_of_retained_messages(sites: Sites) -> None:
    """All of them come, in whatever order."""
    topics = ["r/c", "r/a", "r/b/z", "r/b", "r/0", "r/a/1"]
    orders = []
    for site in sites.both:
        with (
            RawClient.connected(site.anybody, "keeper") as keeper,
            RawClient.connected(site.anybody, "reader") as reader,
        ):
            for topic in topics:
                keeper.send(publish(topic, b"x", retain=True))
            keeper.ping()
            reader.subscribe(("r/#", 0))
            orders.append([reader.message().topic for _ in topics])
    assert [sorted(order) for order in orders] == [sorted(topics)] * 2
    assert orders[0] != orders[1]


@pytest.mark.parametrize(("wanted", "theirs", "ours"), [("secret/x", 0, 0x80), ("seen/x", 0, 0), ("#", 0, 0)], ids=str)
def test_subscription_that_could_never_get_anything(sites: Sites, wanted: str, theirs: int, ours: int) -> None:
    answers = [answer(site.rights, connect("x"), subscribe((wanted, 0))) for site in sites.both]
    assert answers == [suback(theirs), suback(ours)]


@pytest.mark.parametrize("filter_", ["$share/group/jobs", "$queue/jobs"])
def test_shared_subscription(sites: Sites, filter_: str) -> None:
    """Its only member is away: in Mosquitto the message stays with it, in ours whoever comes first gets it. A group
    without a name is one in ours alone."""
    shares = filter_.startswith("$share")
    came = []
    for site in sites.both:
        away = f"away{shares}"
        with RawClient.connected(site.anybody, away, clean=False) as client:
            client.subscribe((filter_, 1))
        with RawClient.connected(site.anybody, "author") as author:
            author.send(publish("jobs", b"hi", 1))
            author.expect(puback(1))
            with RawClient.connected(site.anybody, "other") as other:
                other.subscribe((filter_, 1))
                if site is sites.ours:
                    came.append(other.message().payload)  # soon, but maybe not in the turn of the SUBACK
                else:
                    other.ping()  # nothing came before its answer
                    came.append(b"")
        RawClient.connected(site.anybody, away).close()  # its session ends
    assert came == [b"", b"hi"]


def test_pattern_deny(sites: Sites) -> None:
    """Over a user's own `topic readwrite`: in Mosquitto the client gets its message, in ours it cannot subscribe."""
    with RawClient.connected(sites.mosquitto.rights, "m", username="alice", password=b"secret") as client:
        client.subscribe(("alice/alice/x", 0))
        client.send(publish("alice/alice/x", b"hi"))
        assert client.message().payload == b"hi"
    login = connect("o", username="alice", password=b"secret")
    assert answer(sites.ours.rights, login, subscribe(("alice/alice/x", 0))) == suback(0x80)


def test_user_name_that_nobody_has_checked(sites: Sites) -> None:
    """In Mosquitto it has the user's rights, in ours those of an anonymous client."""
    came = []
    for site in sites.both:
        with RawClient(site.unchecked) as client:
            client.send(connect("x", username="alice"))
            client.expect(connack())
            client.send(subscribe(("secret/x", 0)))
            client.next()
            client.send(publish("secret/x", b"hi"))
            client.send(PINGREQ)
            came.append(client.next() != PINGRESP)
    assert came == [True, False]


@pytest.mark.parametrize(
    ("client_id", "theirs", "ours"),
    [("plain", b"hi", b"hi"), ("a/b", b"hi", None), ("a+b", None, None), ("a#b", None, None)],
)
def test_name_in_a_pattern(sites: Sites, client_id: str, theirs: bytes | None, ours: bytes | None) -> None:
    """What comes of a message to the topic that `pattern readwrite of/%c/#` seems to grant."""
    came: list[bytes | None] = []
    for site in sites.both:
        with RawClient.connected(site.rights, client_id) as client:
            client.send(subscribe((f"of/{client_id.translate({43: 45, 35: 45})}/#", 0)))
            client.next()
            client.send(publish(f"of/{client_id.translate({43: 45, 35: 45})}/x", b"hi"))
            client.send(PINGREQ)
            data = client.next()
            came.append(None if data == PINGRESP else parse_publish(data).payload)
    assert came == [theirs, ours]


# --- MQTT 5.0 ---


def answer5(address: Address, *packets: bytes) -> tuple[int, int]:
    """Type and reason code of the last thing that comes; of nothing, (0, 0)."""
    came = answer(address, *packets)
    return parse(came)[:2] if came else (0, 0)


def both5(sites: Sites, *packets: bytes) -> list[tuple[int, int]]:
    return [answer5(site.anybody, *packets) for site in sites.both]


def test_5_wrong_password(sites: Sites) -> None:
    wrong = connect5("x", username="alice", password=b"wrong")
    assert [answer5(site.users, wrong) for site in sites.both] == [(CONNACK, 0x87), (CONNACK, 0x86)]


def test_5_what_clients_are_told(sites: Sites) -> None:
    told = []
    for site in sites.both:
        with Client5.open(site.anybody, "told", {P.SESSION_EXPIRY: NEVER}) as client:
            told.append(client.connack.properties)
    assert told == [
        {P.ALIAS_MAXIMUM: 10, P.RECEIVE_MAXIMUM: 20, P.SERVER_KEEP_ALIVE: 65535},
        {P.ALIAS_MAXIMUM: 10, P.MAXIMUM_PACKET_SIZE: 16 << 20, P.SESSION_EXPIRY: 30 * 86400},
    ]


def test_5_subscription_that_could_never_get_anything(sites: Sites) -> None:
    answers = [answer5(site.rights, connect5("x"), subscribe5(("secret/x", 0))) for site in sites.both]
    assert answers == [(SUBACK, 0), (SUBACK, 0x87)]


def test_5_takeover(sites: Sites) -> None:
    last = []
    for site in sites.both:
        with Client5.open(site.anybody, "twice") as client, Client5.open(site.anybody, "twice"):
            data = client.closed()
            last.append(parse(data)[:2] if data else None)
    assert last == [None, (DISCONNECT, 0x8E)]


def test_5_keep_alive(sites: Sites) -> None:
    last = []
    for site in sites.both:
        with Client5.open(site.anybody, "silent", keep_alive=1) as client:
            data = client.closed()
            last.append(parse(data)[:2] if data else None)
    assert last == [None, (DISCONNECT, 0x8D)]


def test_5_subscription_identifiers(sites: Sites) -> None:
    """Of subscriptions that overlap."""
    came = []
    for site in sites.both:
        with Client5.open(site.anybody) as client:
            for number, wanted in enumerate(("over/#", "over/+"), 1):
                client.ask((wanted, 0), properties={P.SUBSCRIPTION_ID: number})
            client.send(publish5("over/lap") + PINGREQ)
            copies = []
            while (packet := client.came()).type == PUBLISH:
                copies.append(sorted(packet.properties[P.SUBSCRIPTION_ID]))
            came.append(sorted(copies))
    assert came == [[[1], [2]], [[1, 2]]]


def test_5_topic_aliases(sites: Sites) -> None:
    """For a client that takes them."""
    came = []
    for site in sites.both:
        with Client5.open(site.anybody, properties={P.ALIAS_MAXIMUM: 5}) as client:
            client.ask(("long/topic", 0))
            client.send(publish5("long/topic") * 2)
            came.append([client.get().topic for _ in range(2)])
    assert came == [["long/topic", "long/topic"], ["long/topic", ""]]


def test_5_reason_strings(sites: Sites) -> None:
    strings = []
    for site in sites.both:
        with Client5(site.users) as client:
            client.send(connect5("x", username="alice", password=b"wrong"))
            strings.append(client.came().properties.get(P.REASON_STRING))
    assert strings == [None, "the user name or the password is wrong"]


def test_5_strictness(sites: Sites) -> None:
    hello = connect5("x")
    many = publish5("x", b"", 1, {P.USER: [("", "")] * 4097})
    answers = {
        "Response Topic with a wildcard": both5(sites, hello, publish5("x", b"", 1, {P.RESPONSE_TOPIC: "a/#"})),
        "No Local in a group": both5(sites, hello, subscribe5(("$share/g/x", NO_LOCAL))),
        "group without a filter": both5(sites, hello, subscribe5(("$share/g", 0))),
        "4,097 User Properties": both5(sites, hello, many),
        "wildcard in a Topic Name": both5(sites, hello, publish5("a/#", b"", 1)),
        "second CONNECT": both5(sites, hello, hello),
        "alias of 0": both5(sites, hello, publish5("x", b"", 1, {P.ALIAS: 0})),
        "CONNECT with a property twice": both5(sites, connect5("x", b"\x11\0\0\0\1" * 2)),
    }
    assert answers == {
        "Response Topic with a wildcard": [(PUBACK, 0x10), (DISCONNECT, 0x82)],
        "No Local in a group": [(SUBACK, 0), (DISCONNECT, 0x82)],
        "group without a filter": [(SUBACK, 0), (DISCONNECT, 0x8F)],
        "4,097 User Properties": [(PUBACK, 0x10), (DISCONNECT, 0x97)],
        "wildcard in a Topic Name": [(DISCONNECT, 0x82), (DISCONNECT, 0x90)],
        "second CONNECT": [(0, 0), (DISCONNECT, 0x82)],
        "alias of 0": [(DISCONNECT, 0x81), (DISCONNECT, 0x94)],
        "CONNECT with a property twice": [(0, 0), (CONNACK, 0x82)],
    }
