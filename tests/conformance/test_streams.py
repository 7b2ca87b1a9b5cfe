"""The bytes under MQTT: TCP, TLS, and WebSocket frames, against servers that do as a test says."""

import contextlib
import socket
import ssl
from collections.abc import Callable, Iterator

import pytest
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol

from conformance.streams import Stream, WebSocketStream, selected
from conformance.target import Endpoint
from tests.conformance.scripted_server import DEADLINE, Script, reset, serving

Talk = Callable[[socket.socket, ServerProtocol], None]


def flush(connection: socket.socket, protocol: ServerProtocol) -> None:
    for data in protocol.data_to_send():
        if data:
            connection.sendall(data)


def accepting(talk: Talk, subprotocol: str | None = "mqtt") -> Script:
    """Accepts the handshake, and leaves the rest to `talk`."""

    def script(connection: socket.socket) -> None:
        protocol = ServerProtocol()
        while True:
            protocol.receive_data(connection.recv(65536))
            for event in protocol.events_received():
                if isinstance(event, Request):
                    response = protocol.accept(event)
                    if subprotocol is not None:
                        response.headers["Sec-WebSocket-Protocol"] = subprotocol
                    protocol.send_response(response)
                    flush(connection, protocol)
                    talk(connection, protocol)
                    return

    return script


@contextlib.contextmanager
def websocket(talk: Talk) -> Iterator[WebSocketStream]:
    with serving(accepting(talk)) as endpoint:
        connection = socket.create_connection((endpoint.host, endpoint.port), DEADLINE)
        stream = WebSocketStream(connection, f"ws://{endpoint.host}:{endpoint.port}/mqtt", DEADLINE)
        with contextlib.closing(stream):
            yield stream


def next_frames(connection: socket.socket, protocol: ServerProtocol) -> list[Frame]:
    while True:
        protocol.receive_data(connection.recv(65536))
        found = [event for event in protocol.events_received() if isinstance(event, Frame)]
        if found:
            return found


# TCP and TLS


def echo(connection: socket.socket) -> None:
    while data := connection.recv(65536):
        connection.sendall(data)


def opened(endpoint: Endpoint) -> Stream:
    return endpoint.open(DEADLINE)


@pytest.mark.parametrize("tls", [False, True], ids=["tcp", "tls"])
def test_bytes_both_ways(tls: bool) -> None:
    data = bytes(range(256)) * 1000
    with serving(echo, tls=tls) as endpoint, contextlib.closing(opened(endpoint)) as stream:
        stream.send(data, DEADLINE)
        received = b""
        while len(received) < len(data):
            received += stream.receive(DEADLINE)
    assert data == received


@pytest.mark.parametrize("tls", [False, True], ids=["tcp", "tls"])
def test_end_of_the_broker_is_no_bytes(tls: bool) -> None:
    with serving(lambda connection: None, tls=tls) as endpoint, contextlib.closing(opened(endpoint)) as stream:
        assert stream.receive(DEADLINE) == b""


def test_fin_can_still_receive() -> None:
    def last_words(connection: socket.socket) -> None:
        while connection.recv(65536):
            pass
        connection.sendall(b"last words")

    with serving(last_words) as endpoint, contextlib.closing(opened(endpoint)) as stream:
        stream.finish_sending()
        assert stream.receive(DEADLINE) == b"last words"


def test_fin_under_tls() -> None:
    seen: list[bytes] = []

    with (
        serving(lambda connection: seen.append(connection.recv(65536)), tls=True) as endpoint,
        contextlib.closing(opened(endpoint)) as stream,
    ):
        stream.finish_sending()
        with contextlib.suppress(ssl.SSLError):  # the alert with which the other side may complain
            assert stream.receive(DEADLINE) == b""
    assert seen == [b""]


def test_rst_of_the_broker_is_an_error() -> None:
    with serving(reset) as endpoint, contextlib.closing(opened(endpoint)) as stream:
        stream.send(b"x", DEADLINE)
        with pytest.raises(ConnectionResetError):
            stream.receive(DEADLINE)


def test_rst_of_ours() -> None:
    seen: list[str] = []

    def watch(connection: socket.socket) -> None:
        try:
            seen.append(repr(connection.recv(65536)))
        except ConnectionResetError:
            seen.append("RST")

    with serving(watch) as endpoint:
        opened(endpoint).reset()
    assert seen == ["RST"]


def test_silence_is_a_timeout() -> None:
    with serving(echo) as endpoint, contextlib.closing(opened(endpoint)) as stream, pytest.raises(TimeoutError):
        stream.receive(0.05)


# WebSocket


def test_frames_carry_the_bytes() -> None:
    kinds: list[Opcode] = []

    def echo_frames(connection: socket.socket, protocol: ServerProtocol) -> None:
        for frame in next_frames(connection, protocol):
            kinds.append(frame.opcode)
            protocol.send_binary(frame.data)
        flush(connection, protocol)

    with websocket(echo_frames) as stream:
        stream.send(b"\xc0\x00", DEADLINE)
        assert stream.receive(DEADLINE) == b"\xc0\x00"
        assert stream.response.headers["Sec-WebSocket-Protocol"] == "mqtt"
        assert stream.receive(DEADLINE) == b""
    assert kinds == [Opcode.BINARY] == stream.opcodes


def test_frames_of_any_kind_are_read_and_their_kind_is_kept() -> None:
    def talk(connection: socket.socket, protocol: ServerProtocol) -> None:
        protocol.send_text(b"te")
        protocol.send_binary(b"fi", fin=False)
        protocol.send_continuation(b"rst", fin=True)
        flush(connection, protocol)

    with websocket(talk) as stream:
        received = b""
        while data := stream.receive(DEADLINE):
            received += data
    assert received == b"tefirst"
    assert stream.opcodes == [Opcode.TEXT, Opcode.BINARY, Opcode.CONT]


def test_ping_is_answered_and_is_no_data() -> None:
    answers: list[Frame] = []

    def talk(connection: socket.socket, protocol: ServerProtocol) -> None:
        protocol.send_ping(b"there?")
        flush(connection, protocol)
        answers.extend(next_frames(connection, protocol))
        protocol.send_binary(b"data")
        flush(connection, protocol)

    with websocket(talk) as stream:
        assert stream.receive(DEADLINE) == b"data"
    assert [(frame.opcode, bytes(frame.data)) for frame in answers] == [(Opcode.PONG, b"there?")]


def test_close_frame_is_the_end_although_tcp_stays() -> None:
    def talk(connection: socket.socket, protocol: ServerProtocol) -> None:
        protocol.send_close(1002)
        flush(connection, protocol)
        while connection.recv(65536):
            pass

    with websocket(talk) as stream:
        assert stream.receive(DEADLINE) == b""
        with pytest.raises(OSError, match="the WebSocket is closed"):
            stream.send(b"x", DEADLINE)


@pytest.mark.parametrize("opcode", [Opcode.BINARY, Opcode.TEXT, Opcode.PING])
def test_frames_of_any_kind_are_sent(opcode: Opcode) -> None:
    frames: list[Frame] = []

    def talk(connection: socket.socket, protocol: ServerProtocol) -> None:
        frames.extend(next_frames(connection, protocol))

    with websocket(talk) as stream:
        stream.send_frame(b"x", DEADLINE, opcode)
        stream.receive(DEADLINE)
    assert [(frame.opcode, bytes(frame.data), frame.fin) for frame in frames] == [(opcode, b"x", True)]


def test_fragments_are_sent() -> None:
    frames: list[Frame] = []

    def talk(connection: socket.socket, protocol: ServerProtocol) -> None:
        while len(frames) < 2:
            frames.extend(next_frames(connection, protocol))

    with websocket(talk) as stream:
        stream.send_frame(b"a", DEADLINE, fin=False)
        stream.send_frame(b"b", DEADLINE, Opcode.CONT)
        stream.receive(DEADLINE)
    assert [(frame.opcode, frame.fin) for frame in frames] == [(Opcode.BINARY, False), (Opcode.CONT, True)]


@pytest.mark.parametrize(("subprotocol", "expected"), [("mqtt", "mqtt"), (None, None)])
def test_selected(subprotocol: str | None, expected: str | None) -> None:
    with serving(accepting(lambda connection, protocol: None, subprotocol)) as endpoint:
        connection = socket.create_connection((endpoint.host, endpoint.port), DEADLINE)
        assert selected(connection, f"ws://{endpoint.host}:{endpoint.port}/", DEADLINE, ["mqtt", "other"]) == expected


def test_refused_handshake_selects_nothing() -> None:
    def refuse(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    with serving(refuse) as endpoint:
        connection = socket.create_connection((endpoint.host, endpoint.port), DEADLINE)
        assert selected(connection, f"ws://{endpoint.host}:{endpoint.port}/", DEADLINE, ["other"]) is None
