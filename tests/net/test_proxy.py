"""The header of the PROXY protocol: every form, every flaw, any bytes in any pieces; who is believed; the stage before
a client."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from ipaddress import ip_address

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from broker.net.proxy import MAX_V1, MAX_V2, Header, Introduction, ProxyError, Source, Trusted, parse
from broker.net.transport import Transport
from tests.broker_process import eventually
from tests.net.running_loop import RunningLoop

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def v2(command: int, family: int, body: bytes, size: int | None = None) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(body) if size is None else size) + body


def inet(source: str, port: int, destination: str = "192.0.2.9") -> bytes:
    return ip_address(source).packed + ip_address(destination).packed + struct.pack("!HH", port, 1883)


def tlv(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


HERE = Source("203.0.113.7", 4711)
HERE_6 = Source("2001:db8::7", 4711)
V1 = b"PROXY TCP4 203.0.113.7 192.0.2.9 4711 1883\r\n"
V2 = v2(0x21, 0x11, inet("203.0.113.7", 4711))

WHOLE: dict[str, tuple[bytes, Source | None]] = {
    "v1 IPv4": (V1, HERE),
    "v1 IPv6": (b"PROXY TCP6 2001:db8::7 2001:db8::9 4711 1883\r\n", HERE_6),
    "v1 longest IPv6": (
        b"PROXY TCP6 " + b" ".join([b"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"] * 2) + b" 65535 65535\r\n",
        Source("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 65535),
    ),
    "v1 IPv4 in IPv6": (b"PROXY TCP6 ::ffff:203.0.113.7 ::ffff:192.0.2.9 4711 1883\r\n", HERE),
    "v1 least port": (b"PROXY TCP4 203.0.113.7 192.0.2.9 0 1883\r\n", Source("203.0.113.7", 0)),
    "v1 unknown": (b"PROXY UNKNOWN\r\n", None),
    "v1 unknown and more": (b"PROXY UNKNOWN ffff::1 what \xff ever\r\n", None),
    "v1 unknown, longest": (b"PROXY UNKNOWN " + b"x" * (MAX_V1 - 16) + b"\r\n", None),
    "v2 IPv4": (V2, HERE),
    "v2 IPv6": (v2(0x21, 0x21, inet("2001:db8::7", 4711, "2001:db8::9")), HERE_6),
    "v2 IPv4 in IPv6": (v2(0x21, 0x21, inet("::ffff:203.0.113.7", 4711, "::1")), HERE),
    "v2 with more": (v2(0x21, 0x11, inet("203.0.113.7", 4711) + tlv(5, b"id") + tlv(0x20, bytes(200))), HERE),
    "v2 with much more": (v2(0x21, 0x11, inet("203.0.113.7", 4711).ljust(MAX_V2, b"x")), HERE),
    "v2 local": (v2(0x20, 0, b""), None),
    "v2 local with addresses": (v2(0x20, 0x11, inet("203.0.113.7", 4711)), None),
    "v2 local with what means nothing": (v2(0x20, 0xFF, b"???"), None),
    "v2 unspecified": (v2(0x21, 0, b"abc"), None),
    "v2 Unix": (v2(0x21, 0x31, b"/run/a".ljust(108, b"\0") * 2), None),
}

NONE: dict[str, tuple[bytes, str]] = {
    "MQTT": (b"\x10\x0c\0\4MQTT\4\2\0\0\0\0", "no header of the PROXY protocol came first"),
    "TLS": (b"\x16\x03\x01\x02\0", "no header of the PROXY protocol came first"),
    "HTTP": (b"GET /mqtt HTTP/1.1\r\n", "no header of the PROXY protocol came first"),
    "almost v1": (b"PROXX TCP4", "no header of the PROXY protocol came first"),
    "v1 in lower case": (b"proxy TCP4", "no header of the PROXY protocol came first"),
    "almost v2": (SIGNATURE[:-1] + b"X", "no header of the PROXY protocol came first"),
    "v1 too long": (b"PROXY UNKNOWN " + b"x" * (MAX_V1 - 15) + b"\r\n", "with more than 107 bytes"),
    "v1 without end": (b"PROXY TCP4 " + b"1" * 200, "with more than 107 bytes"),
    "v1 of nothing": (b"PROXY \r\n", "neither TCP4, TCP6 nor UNKNOWN"),
    "v1 UDP": (b"PROXY UDP4 203.0.113.7 192.0.2.9 4711 1883\r\n", "neither TCP4, TCP6 nor UNKNOWN"),
    "v1 almost unknown": (b"PROXY UNKNOWNS\r\n", "neither TCP4, TCP6 nor UNKNOWN"),
    "v1 no words": (b"PROXY TCP4\r\n", "0 words after TCP4"),
    "v1 a word less": (b"PROXY TCP4 203.0.113.7 192.0.2.9 4711\r\n", "3 words after TCP4"),
    "v1 a word more": (b"PROXY TCP4 203.0.113.7 192.0.2.9 4711 1883 x\r\n", "5 words after TCP4"),
    "v1 two blanks": (b"PROXY TCP4  203.0.113.7 192.0.2.9 4711 1883\r\n", "5 words after TCP4"),
    "v1 IPv6 as IPv4": (b"PROXY TCP4 ::1 ::1 4711 1883\r\n", "an address that is none of TCP4"),
    "v1 IPv4 as IPv6": (b"PROXY TCP6 203.0.113.7 192.0.2.9 4711 1883\r\n", "an address that is none of TCP6"),
    "v1 wrong destination": (b"PROXY TCP4 203.0.113.7 192.0.2 4711 1883\r\n", "an address that is none of TCP4"),
    "v1 a name": (b"PROXY TCP4 localhost 192.0.2.9 4711 1883\r\n", "an address that is none of TCP4"),
    "v1 leading zero": (b"PROXY TCP4 203.0.113.07 192.0.2.9 4711 1883\r\n", "an address that is none of TCP4"),
    "v1 scope": (b"PROXY TCP6 fe80::1%lo ::1 4711 1883\r\n", "a port or an address that is none"),
    "v1 port too high": (b"PROXY TCP4 203.0.113.7 192.0.2.9 65536 1883\r\n", "a port or an address that is none"),
    "v1 port with zero": (b"PROXY TCP4 203.0.113.7 192.0.2.9 04711 1883\r\n", "a port or an address that is none"),
    "v1 port with sign": (b"PROXY TCP4 203.0.113.7 192.0.2.9 +471 1883\r\n", "a port or an address that is none"),
    "v1 wrong second port": (b"PROXY TCP4 203.0.113.7 192.0.2.9 4711 x\r\n", "a port or an address that is none"),
    "v1 not ASCII": (b"PROXY TCP4 203.0.113.7 192.0.2.9 4711 188\xd9\xa3\r\n", "that is not ASCII"),
    "v1 line feed alone": (V1.replace(b"\r\n", b"\n") + b"x" * 80, "with more than 107 bytes"),
    "version 1 in binary": (v2(0x11, 0x11, inet("203.0.113.7", 4711)), "version 1 with command 1"),
    "version 3": (v2(0x31, 0x11, inet("203.0.113.7", 4711)), "version 3 with command 1"),
    "v2 unknown command": (v2(0x22, 0x11, inet("203.0.113.7", 4711)), "version 2 with command 2"),
    "v2 UDP": (v2(0x21, 0x12, inet("203.0.113.7", 4711)), "protocol 0x12: only streams are known"),
    "v2 Unix datagrams": (v2(0x21, 0x32, bytes(216)), "protocol 0x32: only streams are known"),
    "v2 unknown family": (v2(0x21, 0x41, bytes(216)), "protocol 0x41: only streams are known"),
    "v2 family without protocol": (v2(0x21, 0x10, bytes(12)), "protocol 0x10: only streams are known"),
    "v2 too short for IPv4": (v2(0x21, 0x11, bytes(11)), "too short for its addresses"),
    "v2 too short for IPv6": (v2(0x21, 0x21, bytes(35)), "too short for its addresses"),
    "v2 too short for Unix": (v2(0x21, 0x31, bytes(215)), "too short for its addresses"),
    "v2 too long": (v2(0x21, 0x11, b"", MAX_V2 + 1), "over the limit of 16384"),
    "v2 local too long": (v2(0x20, 0, b"", 65535), "over the limit of 16384"),
}


@pytest.mark.parametrize("behind", [b"", b"\x10\x0c\0\4MQTT", V1, V2], ids=["nothing", "MQTT", "v1", "v2"])
@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_header(name: str, behind: bytes) -> None:
    data, source = WHOLE[name]
    assert parse(data + behind) == Header(len(data), source)


@pytest.mark.parametrize("name", WHOLE)
def test_a_header_is_whole_with_its_last_byte(name: str) -> None:
    data, _ = WHOLE[name]
    cuts = {*range(120), *range(len(data) - 20, len(data))} & {*range(len(data))}
    assert [parse(data[:cut]) for cut in sorted(cuts)] == [None] * len(cuts)


@pytest.mark.parametrize("name", NONE)
def test_what_is_no_header(name: str) -> None:
    data, why = NONE[name]
    with pytest.raises(ProxyError) as raised:
        parse(data)
    assert why in str(raised.value)


def outcome(pieces: list[bytes]) -> Header | str | None:
    """What becomes of bytes that come in these pieces: one header, one error, or neither up to now."""
    data = b""
    for piece in pieces:
        data += piece
        try:
            header = parse(data)
        except ProxyError as error:
            return str(error)
        if header is not None:
            return header
    return None


HEADERS = st.sampled_from([data for data, _ in (*WHOLE.values(), *NONE.values())])


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A header with some bytes that are others, are missing, or are too many."""
    data = bytearray(draw(HEADERS)[:400])
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 2))] = draw(st.binary(max_size=3))
    return bytes(data) + draw(st.binary(max_size=150))


@settings(max_examples=1000, deadline=None)
@given(st.one_of(st.binary(max_size=200), damaged()), st.data())
def test_any_bytes_in_any_pieces_have_one_outcome(data: bytes, draw: st.DataObject) -> None:
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(data)), max_size=8)))
    pieces = [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    whole, bytewise, cut = outcome([data]), outcome([bytes((byte,)) for byte in data]), outcome(pieces)
    if isinstance(whole, Header):
        assert 0 < whole.size <= len(data)
        assert (bytewise, cut) == (whole, whole)
        assert whole.source is None or ip_address(whole.source.host).version in (4, 6)
    else:
        assert (bytewise, cut) == (whole, whole)
    if whole is None:
        assert len(data) < 16 + MAX_V2  # what is kept meanwhile is bounded


@settings(max_examples=200, deadline=None)
@given(st.ip_addresses(), st.integers(0, 65535))
@example(ip_address("::ffff:1.2.3.4"), 1)
def test_every_address_comes_through_both_versions(address: object, port: int) -> None:
    found = ip_address(str(address))
    plain = str(getattr(found, "ipv4_mapped", None) or found)
    other = "192.0.2.9" if found.version == 4 else "::9"
    line = f"PROXY TCP{found.version} {found} {other} {port} 1883\r\n".encode()
    block = v2(0x21, 0x11 if found.version == 4 else 0x21, inet(str(found), port, other))
    assert parse(line) == Header(len(line), Source(plain, port))
    assert parse(block) == Header(len(block), Source(plain, port))


@pytest.mark.parametrize(
    ("host", "trusted"),
    [
        ("127.0.0.1", True), ("::ffff:127.0.0.1", True), ("127.0.0.2", False),
        ("10.0.0.0", True), ("10.255.255.255", True), ("::ffff:10.1.1.1", True), ("11.0.0.0", False),
        ("2001:db8::1", True), ("2001:db9::1", False), ("fe80::1%eth0", True), ("::1", False),
        ("unix", False), ("unix:uid-0", False), ("", False), ("localhost", False),
    ],
)  # fmt: skip
def test_who_is_believed(host: str, trusted: bool) -> None:
    assert (host in Trusted(["127.0.0.1", "10.0.0.0/8", "2001:db8::/32", "fe80::/10"])) is trusted
    assert host not in Trusted([])


# --- the stage before a client ---

PROXY = "[::ffff:192.0.2.5]:50000"  # as a listener for both IPv4 and IPv6 names it


class Arrival:
    """A connection that waits for its header, on a running loop; and the other end of it."""

    def __init__(self, running: RunningLoop) -> None:
        self.running = running
        self.introduced: list[Source | None] = []
        self.failed: list[str | None] = []
        self.received = b""
        self.lost_because: list[str] = []
        self.refuse = False
        self.keep_waiting = False
        self.far, near = socket.socketpair()
        near.setblocking(False)

        def make() -> tuple[Transport, Introduction]:
            transport = Transport(running.loop, near, PROXY, 1 << 20, lambda transport: None)
            return transport, Introduction(transport, self._introduced, self.failed.append)

        self.transport, self.introduction = running.call(make)

    def _introduced(self, source: Source | None) -> None:
        self.introduced.append(source)
        if self.refuse:
            self.transport.close(gently=False)
        else:
            self.transport.client = self
            if not self.keep_waiting:
                self.introduction.hand_over(1.0)

    def send(self, data: bytes) -> None:
        self.far.sendall(data)
        self.running.next_turn()

    # As the next client:

    def receive(self, data: bytes, now: float) -> None:
        self.received += data

    def lost(self, why: str) -> None:
        self.lost_because.append(why)

    def congest(self, unsent: int) -> None: ...
    def relieve(self) -> None: ...
    def progress(self, now: float) -> None: ...

    def close(self) -> None:
        self.running.call(lambda: self.transport.close(gently=False))
        self.far.close()


@pytest.fixture
def arrival(running: RunningLoop) -> Iterator[Arrival]:
    arrival = Arrival(running)
    yield arrival
    arrival.close()


@pytest.mark.parametrize("header", [V1, V2], ids=["v1", "v2"])
@pytest.mark.parametrize("cut", [1, 6, 15, -1, None])
def test_what_follows_the_header_goes_to_the_next_client(header: bytes, cut: int | None, arrival: Arrival) -> None:
    if cut is not None:
        arrival.send(header[:cut])
        assert arrival.introduced == []
    arrival.send((header if cut is None else header[cut:]) + b"CONNECT")
    assert (arrival.introduced, arrival.received) == ([HERE], b"CONNECT")
    arrival.send(b" and more")
    assert (arrival.received, arrival.failed) == (b"CONNECT and more", [])
    arrival.far.close()
    eventually(lambda: len(arrival.lost_because) == 1, "the next client hears of the end")
    assert arrival.failed == []


def test_a_client_is_introduced_before_it_says_anything(arrival: Arrival) -> None:
    arrival.send(V2)
    assert (arrival.introduced, arrival.received) == ([HERE], b"")


def test_the_owner_may_let_it_wait(arrival: Arrival, running: RunningLoop) -> None:
    arrival.keep_waiting = True
    arrival.send(V2 + b"CONNECT")
    assert (arrival.introduced, arrival.received) == ([HERE], b"")
    running.call(lambda: arrival.introduction.hand_over(1.0))
    arrival.send(b" and more")
    assert (arrival.received, arrival.failed) == (b"CONNECT and more", [])


def test_the_owner_may_refuse(arrival: Arrival) -> None:
    arrival.refuse = True
    arrival.send(V2 + b"CONNECT")
    assert (arrival.introduced, arrival.received, arrival.failed) == ([HERE], b"", [])
    assert arrival.far.recv(1) == b""


def test_what_is_no_header_is_closed_unheard(arrival: Arrival) -> None:
    arrival.send(b"PROXY TCP4 x\r\nmore")
    assert arrival.failed == ["a header of version 1 with 1 words after TCP4, not 4"]
    assert arrival.introduced == []
    assert arrival.far.recv(1) == b""


#: What a proxy sends that has nobody behind it. HAProxy's check names the proxy's own end in version 1.
OWN = [v2(0x20, 0, b""), b"PROXY UNKNOWN\r\n", b"PROXY TCP4 192.0.2.5 192.0.2.9 50000 1883\r\n"]


@pytest.mark.parametrize("data", [b"", *OWN], ids=["nothing", "v2", "v1", "v1 with its own address"])
def test_a_proxy_that_only_looks_whether_somebody_listens_is_no_client(data: bytes, arrival: Arrival) -> None:
    if data:
        arrival.send(data)
    arrival.far.close()
    eventually(lambda: arrival.failed == [None], "the end is noticed")
    assert arrival.introduced == []


@pytest.mark.parametrize("data", OWN, ids=["v2", "v1", "v1 with its own address"])
def test_a_proxy_that_speaks_for_itself_is_a_client_from_where_it_is(data: bytes, arrival: Arrival) -> None:
    arrival.send(data)
    assert arrival.introduced == []
    arrival.send(b"CONNECT")
    assert (arrival.introduced, arrival.received) == ([None], b"CONNECT")


def test_a_proxy_that_leaves_within_its_header_is_told(arrival: Arrival) -> None:
    arrival.send(V2[:20])
    arrival.far.close()
    eventually(lambda: arrival.failed == ["the proxy left before its header was whole"], "the end is noticed")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "nothing came within connect_timeout"),
        (v2(0x20, 0, b""), "nothing came within connect_timeout"),
        (V2[:20], "its header was not complete within connect_timeout"),
    ],
)
def test_one_that_takes_too_long_is_ended(data: bytes, why: str, arrival: Arrival, running: RunningLoop) -> None:
    if data:
        arrival.send(data)
    running.call(arrival.introduction.expire)
    assert (arrival.failed, arrival.introduced) == ([why], [])
    assert arrival.far.recv(1) == b""
