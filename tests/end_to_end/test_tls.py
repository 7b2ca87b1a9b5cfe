"""TLS as clients meet it: paho-mqtt, mosquitto_pub and mosquitto_sub, Python's own ssl; certificates of users; what is
refused and how that is told; reload."""

from __future__ import annotations

import contextlib
import datetime
import os
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.x509.oid import NameOID

from broker.auth.passwords import set_password
from tests.broker_process import BrokerProcess, StartBroker, eventually, run_command_line
from tests.certificates import DAY, Authority, Issued
from tests.end_to_end.paho_client import Paho
from tests.raw_client import (
    DISCONNECT,
    Closed,
    RawClient,
    Will,
    connack,
    connect,
    puback,
    pubcomp,
    publish,
    pubrec,
    pubrel,
    suback,
    subscribe,
)

VERSIONS = pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
FAILED = "TLS handshake failed"


class Pki:
    """An authority, with a certificate for the broker."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.authority = Authority(directory)
        self.server = self.authority.issue("server", server=True)
        (directory / "other").mkdir()
        self.other = Authority(directory / "other", "other")  # whom nobody trusts

    def context(self, client: Issued | None = None, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
        """A client's, that trusts the authority."""
        context = self.authority.trusting(client)
        if version is not None:
            context.minimum_version = context.maximum_version = version
        return context

    @property
    def mutual(self) -> str:
        """Options of a listener that knows its users by their certificates."""
        return f'{self.server.toml}client_ca = "{self.authority.certificate}"\ncertificate_user = "cn"\n'


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return Pki(tmp_path)


@pytest.fixture(scope="module")
def shared_pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def tls_broker(shared_pki: Pki, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    """Two listeners: the first with TLS, the second without."""
    toml = f"[[listeners]]\n{shared_pki.server.toml}\n[[listeners]]\n"
    broker = BrokerProcess(tmp_path_factory.mktemp("tls"), toml)
    yield broker
    broker.stop()


def refused(broker: BrokerProcess, context: ssl.SSLContext) -> None:
    """The handshake fails: at once, or (TLS 1.3) with the first answer that is waited for."""

    def greet() -> None:
        with RawClient(broker.address, tls=context) as client:
            client.send(connect("x"))
            client.next()

    with pytest.raises((ssl.SSLError, Closed, ConnectionError)):
        greet()


class Refused(Exception):
    """The broker closed instead of sending CONNACK."""


def talk(broker: BrokerProcess, context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> ssl.SSLSession:
    """Connect, resuming a session of TLS if one is given. Returns the session of this connection."""
    raw = socket.create_connection(broker.address)
    with context.wrap_socket(raw, server_hostname="127.0.0.1", session=session) as client:
        client.settimeout(15)
        client.sendall(connect("c"))
        if client.recv(4) != connack():
            raise Refused
        assert client.session_reused is (session is not None)
        assert client.session is not None
        return client.session


# --- exchange ---


@VERSIONS
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_paho(version: ssl.TLSVersion, qos: int, tls_broker: BrokerProcess, shared_pki: Pki) -> None:
    context = shared_pki.context(version=version)
    topic = f"paho/{version}/{qos}"
    large = os.urandom(3_000_000)
    with (
        Paho(tls_broker.address, f"w{topic}", tls=context) as author,
        Paho(tls_broker.address, f"r{topic}", tls=context) as reader,
    ):
        reader.subscribe((topic, qos))
        for payload in (b"", b"small", large):
            author.publish(topic, payload, qos)
            message = reader.message()
            assert (message.topic, message.qos) == (topic, qos)
            assert message.payload == payload
        sock = reader.client.socket()
        assert isinstance(sock, ssl.SSLSocket)
        assert sock.version() == {"TLSv1_2": "TLSv1.2", "TLSv1_3": "TLSv1.3"}[version.name]


@pytest.mark.parametrize("tls_version", ["tlsv1.2", "tlsv1.3"])
def test_mosquittos_tools(tls_version: str, pki: Pki, start_broker: StartBroker) -> None:
    broker = start_broker(pki.mutual)
    ann = pki.authority.issue("ann")
    host, port = broker.address
    common = [
        "-h", host, "-p", str(port), "--tls-version", tls_version, "--cafile", str(pki.authority.certificate),
        "--cert", str(ann.certificate), "--key", str(ann.key), "-t", "tools", "-q", "2",
    ]  # fmt: skip
    with subprocess.Popen(["mosquitto_sub", *common, "-C", "1", "-W", "20"], stdout=subprocess.PIPE) as reader:
        broker.wait_for("client connected", user="ann")
        payload = b"x" * 200_000
        # Retained: the subscription may come later than this.
        subprocess.run(["mosquitto_pub", *common, "-r", "-s"], input=payload, check=True, timeout=30)
        output, _ = reader.communicate(timeout=30)
    assert (reader.returncode, output) == (0, payload + b"\n")


@VERSIONS
def test_small_packets_in_one_record_and_one_packet_in_many(
    version: ssl.TLSVersion, tls_broker: BrokerProcess, shared_pki: Pki
) -> None:
    with RawClient.connected(tls_broker.address, tls=shared_pki.context(version=version)) as client:
        client.subscribe((f"raw/{version}", 0))
        frame = publish(f"raw/{version}", b"payload", 1)
        for byte in frame:
            client.send(bytes((byte,)))
        client.send(frame * 500)
        came = [client.next() for _ in range(1002)]
        assert came.count(puback(1)) == 501
        client.ping()


def test_a_slow_reader_gets_everything_and_holds_up_nobody(tls_broker: BrokerProcess, shared_pki: Pki) -> None:
    context = shared_pki.context()
    with (
        RawClient.connected(tls_broker.address, "slow", receive_buffer=4096, tls=context) as slow,
        RawClient.connected(tls_broker.address, "author", tls=context) as author,
    ):
        slow.subscribe(("flood", 1))
        payloads = [os.urandom(100_000) for _ in range(60)]
        for i, payload in enumerate(payloads, 1):
            author.send(publish("flood", payload, 1, packet_id=i))
            author.expect(puback(i))
        tls_broker.wait_for("client reads too slowly: QoS 0 messages for it are dropped until it has caught up")
        author.ping()
        for payload in payloads:
            message = slow.message()
            assert message.payload == payload
            slow.send(puback(message.packet_id))


def test_a_session_moves_between_listeners(tls_broker: BrokerProcess, shared_pki: Pki) -> None:
    # [MQTT-3.1.4-2]
    with_tls, without = tls_broker.addresses
    context = shared_pki.context()
    with RawClient.connected(without, "mover", clean=False) as plain:
        plain.subscribe(("moved", 1))
        with RawClient.connected(with_tls, "mover", clean=False, present=True, tls=context) as secret:
            assert plain.closed() == b""
            secret.send(publish("moved", b"1", 0))
            assert secret.message().payload == b"1"
            with RawClient.connected(without, "mover", clean=False, present=True) as again:
                assert secret.closed() == b""
                again.ping()


def test_a_lost_connection_publishes_the_will_and_a_disconnect_does_not(
    tls_broker: BrokerProcess, shared_pki: Pki
) -> None:
    context = shared_pki.context()
    with RawClient.connected(tls_broker.address, tls=context) as reader:
        reader.subscribe(("wills/#", 0))
        RawClient.connected(tls_broker.address, tls=context, will=Will("wills/no")).disconnect()
        lost = RawClient.connected(tls_broker.address, tls=context, will=Will("wills/yes"))
        assert isinstance(lost.socket, ssl.SSLSocket)
        with contextlib.suppress(OSError):
            lost.socket.unwrap()  # close_notify
        lost.close()
        assert reader.message().topic == "wills/yes"
        RawClient.connected(tls_broker.address, tls=context, will=Will("wills/reset")).reset()
        assert reader.message().topic == "wills/reset"


@pytest.mark.parametrize("qos_0", [1, 2000], ids=["few", "many"])
def test_all_in_one_piece_with_the_farewell(qos_0: int, pki: Pki, start_broker: StartBroker) -> None:
    """The client says all that it has to say, and close_notify, while a worker still checks its password."""
    passwords = pki.directory / "passwords"
    set_password(str(passwords), "ann", b"secret", create=True)
    set_password(str(passwords), "bob", b"secret", create=False)
    broker = start_broker(f'{pki.server.toml}passwords = "{passwords}"\n')
    reader = RawClient.connected(
        broker.address, tls=pki.context(), username="ann", password=b"secret", client_id="reader"
    )
    with reader:
        reader.subscribe(("#", 0))
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = pki.context().wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
        with socket.create_connection(broker.address, 15) as plain:
            while True:
                try:
                    client.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    plain.sendall(outgoing.read())
                    incoming.write(plain.recv(65536))
            words = connect("all", username="bob", password=b"secret", will=Will("will"))
            words += b"".join(publish(f"t/{number}", b"x" * 20) for number in range(qos_0))
            client.write(words + DISCONNECT)
            with contextlib.suppress(ssl.SSLWantReadError):
                client.unwrap()
            plain.sendall(outgoing.read())
            topics = [reader.message().topic for _ in range(qos_0)]
            assert topics == [f"t/{number}" for number in range(qos_0)]
            broker.wait_for("client disconnected", client="all", reason="DISCONNECT")
            reader.ping()  # and no will


def test_the_broker_says_farewell(tls_broker: BrokerProcess, shared_pki: Pki) -> None:
    """close_notify: the client can tell that nothing was cut off."""
    raw = socket.create_connection(tls_broker.address)
    with shared_pki.context().wrap_socket(raw, server_hostname="127.0.0.1", suppress_ragged_eofs=False) as client:
        client.settimeout(15)
        client.sendall(connect("farewell") + b"\xe0\x00")
        assert client.recv(4) == connack()
        assert client.recv(1) == b""


# --- who does not speak TLS, or does where there is none ---


def test_a_client_without_tls_on_a_listener_with_it(pki: Pki, start_broker: StartBroker) -> None:
    broker = start_broker(pki.server.toml)
    for _ in range(3):
        with RawClient(broker.address) as client:
            client.send(connect("plain"))
            assert client.closed() == b""
    reason = "this is MQTT without TLS: clients must use TLS (mqtts://) on this listener"
    eventually(lambda: len(broker.events(FAILED, reason=reason)) == 1, "it was logged")
    assert broker.events(FAILED, reason=reason)[0]["address"] == "127.0.0.1"


def test_a_client_with_tls_on_a_listener_without(tls_broker: BrokerProcess, shared_pki: Pki) -> None:
    with pytest.raises((ssl.SSLError, ConnectionError)):
        RawClient(tls_broker.addresses[1], tls=shared_pki.context())
    tls_broker.wait_for(
        "connection closed before it was accepted",
        reason="this is TLS: use TLS at both ends, or at neither; this listener has no certificate",
    )


def test_an_older_tls_is_refused(pki: Pki, start_broker: StartBroker) -> None:
    broker = start_broker(pki.server.toml)
    context = pki.context()
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match=r"TLSv1 is deprecated"):
        context.minimum_version = ssl.TLSVersion.TLSv1
    with pytest.warns(DeprecationWarning, match=r"TLSv1_1 is deprecated"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    refused(broker, context)
    broker.wait_for(FAILED, reason="the client speaks no TLS 1.2 or later")


def test_garbage_that_begins_like_tls(pki: Pki, start_broker: StartBroker) -> None:
    broker = start_broker(pki.server.toml)
    with contextlib.closing(socket.create_connection(broker.address)) as client:
        client.settimeout(15)
        client.sendall(b"\x16")
    broker.wait_for(FAILED, reason="the client left during the TLS handshake")
    for garbage in (b"\x16" + os.urandom(2000), b"\x16\x03\x01\xff\xff" + b"\0" * 70_000, b"\x16\x03\x03\0\0" * 99):
        with RawClient(broker.address) as client:
            with contextlib.suppress(ConnectionError):
                client.send(garbage)
            client.closed()
    RawClient.connected(broker.address, tls=pki.context()).disconnect()


def test_200_half_handshakes_hold_up_nobody_and_end_in_time(pki: Pki, start_broker: StartBroker) -> None:
    broker = start_broker(f'connect_timeout = "3s"\n{pki.server.toml}')
    context = pki.context()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    half = context.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
    with pytest.raises(ssl.SSLWantReadError):
        half.do_handshake()
    hello = outgoing.read()
    silent = [socket.create_connection(broker.address) for _ in range(200)]
    begun = time.monotonic()
    for i, sock in enumerate(silent):
        sock.sendall(hello[: i % len(hello)])  # nothing, a part, all but a little
    with RawClient.connected(broker.address, tls=context) as client:
        client.subscribe(("meanwhile", 0))
        client.send(publish("meanwhile", b"served"))
        assert client.message().payload == b"served"
    assert time.monotonic() - begun < 3
    for sock in silent:
        sock.settimeout(15)
        with contextlib.suppress(ConnectionError):
            while sock.recv(4096):
                pass
        sock.close()
    (event,) = broker.wait_for(FAILED, reason="it was not complete within connect_timeout")
    assert event["address"] == "127.0.0.1"


# --- certificates of clients ---


@VERSIONS
def test_the_common_name_is_the_user(version: ssl.TLSVersion, pki: Pki, start_broker: StartBroker) -> None:
    acl = pki.directory / "acl"
    acl.write_text("user ann\ntopic readwrite ann/#\npattern read home/%u\n")
    broker = start_broker(f'{pki.mutual}acl = "{acl}"\ndeny_users = ["eve"]\nclient_ids = {{ann = ["%u-*"]}}')
    context = pki.context(pki.authority.issue("ann"), version)
    # What it says itself in CONNECT does not count.
    with RawClient.connected(broker.address, "ann-1", username="root", password=b"x", tls=context) as ann:
        ann.send(subscribe(("ann/x", 0), ("root/x", 0), ("home/ann", 0), ("home/root", 0)))
        ann.expect(suback(0, 0x80, 0, 0x80))
    broker.wait_for("client connected", client="ann-1", user="ann")
    for name, client_id in (("ann", "bob-1"), ("eve", "e")):
        with RawClient(broker.address, tls=pki.context(pki.authority.issue(name), version)) as client:
            client.send(connect(client_id))
            client.expect(connack(5))


def test_the_subject_is_the_user(pki: Pki, start_broker: StartBroker) -> None:
    attributes = [
        (NameOID.COUNTRY_NAME, "AT"),
        (NameOID.ORGANIZATION_NAME, 'Some, "Org" + #1; <x>'),
        (NameOID.COMMON_NAME, "#ann lee "),
    ]
    ann = pki.authority.issue("ann", attributes)
    broker = start_broker(pki.mutual.replace('"cn"', '"subject"'))
    RawClient.connected(broker.address, "c", tls=pki.context(ann)).disconnect()
    command = ["openssl", "x509", "-in", str(ann.certificate), "-noout", "-subject", "-nameopt", "RFC2253"]
    subject = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip("\n")
    (event,) = broker.wait_for("client connected")
    assert f"subject={event['user']}" == subject


@pytest.mark.parametrize("names", [[], ["ann", "root"], ["a\nb"]], ids=["none", "two", "control-character"])
def test_a_certificate_that_names_no_user(names: list[str], pki: Pki, start_broker: StartBroker) -> None:
    attributes = [(NameOID.COUNTRY_NAME, "AT"), *((NameOID.COMMON_NAME, name) for name in names)]
    broker = start_broker(f"{pki.mutual}allow_anonymous = true")
    with RawClient(broker.address, tls=pki.context(pki.authority.issue("it", attributes))) as client:
        client.send(connect("c", username="root", password=b"x"))
        client.expect(connack(5))


@VERSIONS
@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ("none", "the client has no certificate"),
        ("expired", "client certificate refused: certificate has expired"),
        ("not yet", "client certificate refused: certificate is not yet valid"),
        ("other", "client certificate refused: unable to get local issuer certificate"),
        ("for servers", "client certificate refused: unsuitable certificate purpose"),
        ("revoked", "client certificate refused: certificate revoked"),
    ],
)
def test_a_certificate_that_is_refused(
    case: str, reason: str, version: ssl.TLSVersion, pki: Pki, start_broker: StartBroker
) -> None:
    authority = pki.authority
    match case:
        case "none":
            client = None
        case "expired":
            client = authority.issue("ann", valid=(-2 * DAY, -DAY))
        case "not yet":
            client = authority.issue("ann", valid=(DAY, 2 * DAY))
        case "other":
            client = pki.other.issue("ann")
        case "for servers":
            client = authority.issue("ann", server=True)
        case _:
            client = authority.issue("ann")
    crl = authority.revoke(client) if case == "revoked" and client else authority.revoke()
    broker = start_broker(f'{pki.mutual}client_crl = "{crl}"\nallow_anonymous = true')
    for _ in range(3):
        refused(broker, pki.context(client, version))
    with RawClient.connected(broker.address, "bob", tls=pki.context(authority.issue("bob"), version)) as bob:
        bob.ping()
    assert [(event["address"], event["reason"]) for event in broker.events(FAILED)] == [("127.0.0.1", reason)]
    assert broker.events("client connected", user="ann") == []


def test_without_a_certificate_where_one_is_optional(pki: Pki, start_broker: StartBroker) -> None:
    passwords = pki.directory / "passwords"
    set_password(str(passwords), "bob", b"secret", create=True, iterations=1)
    optional = f'{pki.mutual}client_certificates = "optional"\n'
    broker = start_broker(f'{optional}passwords = "{passwords}"')
    RawClient.connected(broker.address, tls=pki.context(pki.authority.issue("ann"))).disconnect()
    RawClient.connected(broker.address, username="bob", password=b"secret", tls=pki.context()).disconnect()
    for username, password, code in (("bob", b"wrong", 4), ("ann", b"", 4), (None, None, 5)):
        with RawClient(broker.address, tls=pki.context()) as client:
            client.send(connect("c", username=username, password=password))
            client.expect(connack(code))
    refused(broker, pki.context(pki.other.issue("ann")))
    broker.reload(f"{optional}allow_anonymous = true")
    # Without passwords a name that is no certificate's proves nothing, and must not pass for one that is.
    for username, code in (("ann", 5), (None, 0)):
        with RawClient(broker.address, tls=pki.context()) as client:
            client.send(connect("c", username=username))
            client.expect(connack(code))


def test_the_certificate_as_one_more_lock_before_the_password(pki: Pki, start_broker: StartBroker) -> None:
    passwords = pki.directory / "passwords"
    set_password(str(passwords), "bob", b"secret", create=True, iterations=1)
    toml = f'{pki.server.toml}client_ca = "{pki.authority.certificate}"\npasswords = "{passwords}"'
    broker = start_broker(toml)
    context = pki.context(pki.authority.issue("ann"))
    RawClient.connected(broker.address, username="bob", password=b"secret", tls=context).disconnect()
    with RawClient(broker.address, tls=context) as client:
        client.send(connect("c", username="bob", password=b"wrong"))
        client.expect(connack(4))
    refused(broker, pki.context())


def test_a_session_that_is_resumed_keeps_its_user_until_the_certificate_expires(
    pki: Pki, start_broker: StartBroker
) -> None:
    broker = start_broker(pki.mutual)
    now = datetime.timedelta(seconds=0)
    lifetime = datetime.timedelta(seconds=4)
    context = pki.context(pki.authority.issue("ann", valid=(now, lifetime)), ssl.TLSVersion.TLSv1_3)
    end = time.time() + 4

    session = talk(broker, context, talk(broker, context))
    eventually(lambda: time.time() > end + 1, "the certificate has expired")
    with pytest.raises((OSError, Refused)):
        talk(broker, context, session)
    broker.wait_for(FAILED, reason="client certificate refused: certificate has expired")
    assert len(broker.events("client connected", user="ann")) == 2


# --- reload ---


def serial(broker: BrokerProcess, context: ssl.SSLContext) -> int:
    """Of the certificate that the broker shows."""
    with RawClient(broker.address, tls=context) as client:
        assert isinstance(client.socket, ssl.SSLSocket)
        certificate = client.socket.getpeercert()
        assert certificate is not None
        return int(str(certificate["serialNumber"]), 16)


def test_a_new_certificate_drops_nobody(pki: Pki, start_broker: StartBroker) -> None:
    broker = start_broker(pki.server.toml)
    context = pki.context()
    old = pki.server.serial
    assert serial(broker, context) == old
    stop = threading.Event()
    passed = 0

    def traffic(client: RawClient) -> None:
        nonlocal passed
        while not stop.is_set():
            payload = os.urandom(50_000)
            client.send(publish("t", payload, 2))
            assert {client.next(), client.next()} == {publish("t", payload), pubrec(1)}
            client.send(pubrel(1))
            client.expect(pubcomp(1))
            passed += 1

    half = socket.create_connection(broker.address)  # its handshake is under way
    with RawClient.connected(broker.address, tls=context) as client:
        client.subscribe(("t", 0))
        thread = threading.Thread(target=traffic, args=(client,))
        thread.start()
        try:
            renewed = pki.authority.issue("server", server=True)  # the same files
            assert renewed.serial != old
            broker.reload()
            assert serial(broker, context) == renewed.serial
            before = passed
            eventually(lambda: passed > before + 5, "the connection goes on")
        finally:
            stop.set()
            thread.join()
        client.ping()
        with context.wrap_socket(half, server_hostname="127.0.0.1") as late:
            late.sendall(connect("late"))
            assert late.recv(4) == connack()
    assert broker.events("client disconnected", reason="no longer authorised to connect") == []


def test_a_reload_with_a_bad_certificate_keeps_the_old_one(pki: Pki, start_broker: StartBroker) -> None:
    broker = start_broker(pki.server.toml)
    context = pki.context()
    key = pki.server.key.read_bytes()
    certificate = pki.server.certificate.read_bytes()
    stranger = pki.other.issue("stranger", server=True)
    with RawClient.connected(broker.address, tls=context) as client:
        for path, data, why in [
            (pki.server.key, stranger.key.read_bytes(), "this is not the key of the certificate"),
            (pki.server.key, None, "there is no such file"),
            (pki.server.certificate, b"nonsense", "there is no certificate in it"),
            (pki.server.certificate, certificate[:200], "cannot be used"),
        ]:
            before = path.read_bytes()
            path.unlink()
            if data is not None:
                path.write_bytes(data)
            failures = len(broker.events("reload failed: everything stays as it was"))
            broker.reload()
            event = broker.wait_for("reload failed: everything stays as it was", failures + 1)[-1]
            assert event["level"] == "error"
            assert event["reason"].startswith(str(path))
            assert why in event["reason"]
            assert serial(broker, context) == pki.server.serial
            path.write_bytes(before)
        client.ping()
    assert (pki.server.key.read_bytes(), pki.server.certificate.read_bytes()) == (key, certificate)
    broker.reload()
    assert len(broker.events("reloaded")) == 1


def test_who_is_revoked_cannot_come_again_not_even_by_resuming(pki: Pki, start_broker: StartBroker) -> None:
    crl = pki.authority.revoke()
    broker = start_broker(f'{pki.mutual}client_crl = "{crl}"')
    ann = pki.authority.issue("ann")
    context = pki.context(ann)
    raw = socket.create_connection(broker.address)
    with context.wrap_socket(raw, server_hostname="127.0.0.1") as client:
        client.settimeout(15)
        client.sendall(connect("c"))
        assert client.recv(4) == connack()
        session = client.session
        pki.authority.revoke(ann)
        broker.reload()
        client.sendall(b"\xc0\x00")
        assert client.recv(2) == b"\xd0\x00"  # a reload drops nobody
    with pytest.raises((OSError, Refused)):
        talk(broker, context, session)
    broker.wait_for(FAILED, reason="client certificate refused: certificate revoked")


def test_a_reload_closes_who_does_not_meet_what_is_now_asked_for(pki: Pki, start_broker: StartBroker) -> None:
    broker = start_broker()
    plain = RawClient.connected(broker.address, "plain")
    broker.reload(pki.server.toml)
    assert plain.closed() == b""
    broker.wait_for("client disconnected", client="plain", reason="this listener now expects TLS")
    nobody = RawClient.connected(broker.address, "nobody", tls=pki.context())
    ann = RawClient.connected(broker.address, "ann", tls=pki.context())
    broker.reload(f'{pki.server.toml}client_ca = "{pki.authority.certificate}"\n')
    assert (nobody.closed(), ann.closed()) == (b"", b"")
    broker.wait_for("client disconnected", client="nobody", reason="this listener now expects a certificate")
    context = pki.context(pki.authority.issue("ann"))
    ann = RawClient.connected(broker.address, "ann", tls=context)
    broker.reload(f'{pki.mutual}deny_users = ["eve"]\n')
    assert ann.closed() == b""  # nobody knew who it is
    ann = RawClient.connected(broker.address, "ann", tls=context)
    eve = RawClient.connected(broker.address, "eve", tls=pki.context(pki.authority.issue("bob")))
    broker.reload(f'{pki.mutual}deny_users = ["bob"]\n')
    assert eve.closed() == b""
    ann.ping()
    ann.close()


# --- the start ---


def test_files_that_cannot_be_used_stop_the_start_and_the_check(pki: Pki, tmp_path: Path) -> None:
    server, stranger = pki.server, pki.other.issue("stranger", server=True)
    empty, encrypted, both = tmp_path / "empty", tmp_path / "encrypted", tmp_path / "both"
    empty.touch()
    subprocess.run(
        ["openssl", "pkey", "-in", server.key, "-out", encrypted, "-aes256", "-passout", "pass:x"],
        check=True, capture_output=True,
    )  # fmt: skip
    crl = pki.authority.revoke()
    both.write_bytes(crl.read_bytes() + pki.other.certificate.read_bytes())
    for path in (empty, encrypted, server.certificate, server.key, stranger.certificate, stranger.key):
        path.chmod(0o600)  # what others may read is a warning of its own
    ca = f'{server.toml}client_ca = "{pki.authority.certificate}"\n'
    cases = [
        (f'certificate = "{tmp_path}/none"', f"{tmp_path}/none: there is no such file: create it, or correct its name"),
        (f'certificate = "{tmp_path}"', f"{tmp_path}: this is a directory: name a file"),
        (
            f'certificate = "{server.certificate}"',
            f"{server.certificate}: there is no private key in it: name its file with 'key'",
        ),
        (
            f'certificate = "{server.key}"',
            f"{server.key}: there is no certificate in it: it must be a PEM file with -----BEGIN CERTIFICATE",
        ),
        (
            f'certificate = "{server.certificate}"\nkey = "{empty}"',
            f"{empty}: there is no private key in it: it must be a PEM file with -----BEGIN PRIVATE KEY",
        ),
        (
            f'certificate = "{server.certificate}"\nkey = "{stranger.key}"',
            f"{stranger.key}: this is not the key of the certificate {server.certificate}: name the one it was "
            "made with",
        ),
        (
            f'certificate = "{server.certificate}"\nkey = "{encrypted}"',
            f"{encrypted}: the private key is encrypted: decrypt it (openssl pkey -in ... -out ...)",
        ),
        (
            f'{server.toml}client_ca = "{empty}"',
            f"{empty}: cannot be used as certificates of authorities: no certificate or crl found",
        ),
        (
            f'{server.toml}client_ca = "{server.certificate}"',
            f"{server.certificate}: there is no certificate of an authority (CA) in it",
        ),
        (
            f'{ca}client_crl = "{both}"',
            f"{both}: must hold revocation lists in PEM (-----BEGIN X509 CRL), and nothing else",
        ),
        (
            f'{ca}client_crl = "{empty}"',
            f"{empty}: must hold revocation lists in PEM (-----BEGIN X509 CRL), and nothing else",
        ),
    ]
    config = tmp_path / "c.toml"
    for toml, message in cases:
        config.write_text(f"port = 0\nmemory = true\n{toml}")
        done = run_command_line("-c", str(config), "--check")
        assert (done.returncode, done.stderr) == (2, f"python3 -m broker: {message}\n")
    done = run_command_line("-c", str(config))
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
