"""The byte-level client, against a server that does what it is told."""

import dataclasses
import socket

import pytest

from conformance import packets
from conformance.packets import Packet
from conformance.raw import Closed, NoAnswer, Raw, Silence, Unreadable
from conformance.target import Endpoint
from conformance.transcript import Transcript
from tests.conformance.scripted_server import DEADLINE, answer, answer_and_close, reset, serving


def client(endpoint: Endpoint) -> Raw:
    return Raw(endpoint, "client", Transcript(), DEADLINE)


def events(raw: Raw) -> list[tuple[str, str]]:
    return [(event.direction, event.text) for event in raw._transcript.events()]


def test_packets_come_one_by_one() -> None:
    with serving(answer(packets.pingresp() + packets.puback(7) + b"\x40", b"\x02\x00\x08")) as endpoint:
        raw = client(endpoint)
        raw.send(packets.pingreq())
        assert [str(raw.next()) for _ in range(3)] == ["PINGRESP", "PUBACK id=7", "PUBACK id=8"]
        raw.close()


def test_take_leaves_the_others() -> None:
    with serving(answer(packets.publish("a", b"x") + packets.puback(1) + packets.puback(2))) as endpoint:
        raw = client(endpoint)
        raw.send(b"x")
        assert str(raw.take(packets.PUBACK, lambda packet: packet.body == b"\0\2")) == "PUBACK id=2"
        assert [str(packet) for packet in raw.unread] == ['PUBLISH "a" QoS 0 "x"', "PUBACK id=1"]
        assert str(raw.next()) == 'PUBLISH "a" QoS 0 "x"'
        raw.close()


@pytest.mark.parametrize(("script", "how"), [(answer_and_close(b""), "FIN"), (reset, "RST")])
def test_both_ways_of_closing(script: object, how: str) -> None:
    with serving(script) as endpoint:  # type: ignore[arg-type]
        raw = client(endpoint)
        raw.send(packets.pingreq())
        assert raw.wait_closed() == how
        assert raw.closed_at >= raw.last_sent_at
        with pytest.raises(Closed, match=rf"client: the connection is closed \({how}\)"):
            raw.next()
        raw.close()


def test_what_came_before_the_end_can_be_read() -> None:
    with serving(answer_and_close(packets.connack(5))) as endpoint:
        raw = client(endpoint)
        raw.send(packets.connect("a"))
        assert raw.wait_closed() == "FIN"
        assert str(raw.next()) == "CONNACK code 5 (not authorized) SessionPresent=0"
        raw.close()


def test_silence_is_no_end() -> None:
    with serving(answer()) as endpoint:
        raw = client(endpoint)
        raw.send(b"x")
        with pytest.raises(Silence):
            raw.next(0.01)
        with pytest.raises(Silence):
            raw.wait_closed(0.01)
        assert raw.closed == ""
        raw.close()


def test_bytes_that_are_no_packet() -> None:
    with serving(answer_and_close(b"\x20\xff\xff\xff\xff\xff")) as endpoint:
        raw = client(endpoint)
        raw.send(b"x")
        with pytest.raises(Unreadable, match="the Remaining Length has more than four bytes"):
            raw.next()
        assert raw.wait_closed() == "FIN"
        raw.close()


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        endpoint = Endpoint("main", "mqtt", "127.0.0.1", listener.getsockname()[1])
    with pytest.raises(NoAnswer, match=f"client: no connection to {endpoint.url}: Connection refused"):
        client(endpoint)


def test_transcript() -> None:
    def script(connection: socket.socket) -> None:
        left = 9
        while left:
            left -= len(connection.recv(left))
        connection.sendall(b"\x40\x02\x00")

    with serving(script) as endpoint:
        raw = client(endpoint)
        raw.send(packets.pingreq() + packets.puback(1) + b"\x30")
        raw.send(b"\x03\x00")
        raw.wait_closed()
        raw.close()
        assert events(raw) == [
            ("--", f"connected to {endpoint.url}"),
            ("->", "PINGREQ; PUBACK id=1 and a part of the next"),
            ("->", "2 bytes"),
            ("<-", "3 bytes, no complete packet yet"),
            ("--", "closed by the broker (FIN), after 3 bytes of a packet"),
        ]
        assert [event.data for event in raw._transcript.events()][1:3] == ["c0 00 40 02 00 01 30", "03 00"]


def test_sent_packets_are_told() -> None:
    sent: list[Packet] = []
    with serving(answer()) as endpoint:
        raw = Raw(endpoint, "client", Transcript(), DEADLINE, sent.append)
        for byte in packets.publish("a", b"x", retain=True):
            raw.send(bytes([byte]))
        raw.close()
    assert [str(packet) for packet in sent] == ['PUBLISH "a" QoS 0 RETAIN "x"']


@pytest.mark.parametrize(
    "reply", [packets.connack(5), packets.connack(0)[:3], b""], ids=["refused", "cut short", "nothing"]
)
def test_connect_that_does_not_succeed_is_inconclusive(reply: bytes) -> None:
    with serving(answer_and_close(reply)) as endpoint:
        raw = client(endpoint)
        with pytest.raises(NoAnswer):
            raw.connect("a")
        raw.close()


def test_messages_are_acknowledged() -> None:
    received = bytearray()

    def script(connection: socket.socket) -> None:
        connection.sendall(packets.publish("a", b"1", qos=1, packet_id=5))
        connection.sendall(packets.publish("a", b"2", qos=2, packet_id=6) + packets.pubrel(6))
        while data := connection.recv(100):
            received.extend(data)

    with serving(script) as endpoint:
        raw = client(endpoint)
        assert [raw.next_message().payload for _ in range(2)] == [b"1", b"2"]
        raw.close()
    assert [str(packet) for packet in packets.decode_all(bytes(received))] == [
        "PUBACK id=5",
        "PUBREC id=6",
        "PUBCOMP id=6",
    ]


def test_messages_of_other_tests_are_passed_over() -> None:
    received = bytearray()

    def script(connection: socket.socket) -> None:
        connection.sendall(packets.publish("theirs", b"1", qos=1, packet_id=5) + packets.publish("ours", b"2"))
        connection.sendall(packets.publish("theirs", b"3") + packets.publish("ours", b"4"))
        while data := connection.recv(100):
            received.extend(data)

    with serving(script) as endpoint:
        raw = Raw(endpoint, "client", Transcript(), DEADLINE, is_foreign=lambda topic: topic == "theirs")
        assert raw.next_message().payload == b"2"
        assert str(raw.take(packets.PUBLISH)) == 'PUBLISH "ours" QoS 0 "4"'
        raw.close()
    assert [str(packet) for packet in packets.decode_all(bytes(received))] == ["PUBACK id=5"]


def test_closing_twice_is_harmless() -> None:
    with serving(answer()) as endpoint:
        raw = client(endpoint)
        raw.reset()
        raw.close()
        assert raw.closed == "us"


def test_tls() -> None:
    def script(connection: socket.socket) -> None:
        assert connection.recv(100) == packets.pingreq()
        connection.sendall(packets.pingresp())
        assert connection.recv(100) == b""

    with serving(script, tls=True) as endpoint:
        raw = client(endpoint)
        raw.ping()
        raw.finish_sending()
        assert raw.wait_closed() in ("FIN", "RST")
        assert raw.unread == []
        raw.close()


def test_certificate_that_is_not_trusted() -> None:
    with serving(answer(), tls=True) as endpoint:
        untrusted = dataclasses.replace(endpoint, ca_file=None)
        with pytest.raises(NoAnswer, match="certificate verify failed"):
            client(untrusted)


def test_certificate_that_need_not_be_trusted() -> None:
    with serving(answer(packets.pingresp()), tls=True) as endpoint:
        raw = client(dataclasses.replace(endpoint, ca_file=None, insecure=True))
        raw.ping()
        raw.close()
