"""A RawClient that speaks over a WebSocket: bytes go out in binary frames, and come back without them.

Owns: the client's side of the handshake and of the frames (the sans-IO core of `websockets`). Must not know: broker.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Sequence

from websockets.client import ClientProtocol
from websockets.frames import Close, Frame, Opcode
from websockets.http11 import Response
from websockets.typing import Origin, Subprotocol
from websockets.uri import parse_uri

from tests.raw_client import Address, RawClient


class Refused(Exception):
    """The handshake failed."""

    def __init__(self, response: Response | None) -> None:
        super().__init__(response and (response.status_code, bytes(response.body)))
        self.status = None if response is None else response.status_code
        self.body = "" if response is None else bytes(response.body).decode()


class Frames(socket.socket):
    """A connected socket of which `sendall` and `recv` mean what is in binary frames."""

    def __init__(self, plain: socket.socket, core: ClientProtocol) -> None:
        super().__init__(plain.family, plain.type, plain.proto, plain.detach())
        self.core = core
        self.frames: list[Frame] = []  #: all that came
        self._data = b""

    def write(self, send: Callable[[], None]) -> None:
        """Send what `send` makes the core produce."""
        send()
        self._write()

    def _write(self) -> None:
        for data in self.core.data_to_send():
            if data:
                super().sendall(data)

    def sendall(self, data: bytes, flags: int = 0) -> None:  # type: ignore[override]
        self.write(lambda: self.core.send_binary(data))

    def recv(self, size: int, flags: int = 0) -> bytes:
        while not self._data:
            data = super().recv(1 << 16)
            if not data:
                return b""
            self.core.receive_data(data)
            self._write()  # pongs, and the answer to a close
            for frame in self.core.events_received():
                assert isinstance(frame, Frame)
                self.frames.append(frame)
                if frame.opcode is Opcode.BINARY:
                    self._data += frame.data
        data, self._data = self._data[:size], self._data[size:]
        return data


class WebSocketClient(RawClient):
    """A connection to a broker, over a WebSocket."""

    socket: Frames

    def __init__(
        self,
        address: Address,
        path: str = "/mqtt",
        *,
        subprotocols: Sequence[str] = ("mqtt",),
        origin: str | None = None,
        receive_buffer: int | None = None,
        tls: ssl.SSLContext | None = None,
        source: str = "",
        headers: Sequence[tuple[str, str]] = (),
    ) -> None:
        """Raises Refused. `tls` is not for WebSockets here: paho-mqtt speaks wss://."""
        assert tls is None
        super().__init__(address, receive_buffer=receive_buffer, source=source)
        core = ClientProtocol(
            parse_uri(f"ws://{address[0]}:{address[1]}{path}"),
            origin=None if origin is None else Origin(origin),
            subprotocols=[Subprotocol(name) for name in subprotocols] or None,
            max_size=None,
        )
        request = core.connect()
        for name, value in headers:
            request.headers[name] = value  # once more, if it is there already
        core.send_request(request)
        plain = self.socket
        plain.sendall(b"".join(core.data_to_send()))
        while not (events := core.events_received()):
            data = plain.recv(1 << 16)
            core.receive_data(data) if data else core.receive_eof()
            if core.handshake_exc is not None:
                response = getattr(core.handshake_exc, "response", None)
                plain.close()
                raise Refused(response)
        assert isinstance(events[0], Response)
        self.socket = Frames(plain, core)

    @property
    def core(self) -> ClientProtocol:
        return self.socket.core

    @property
    def close_code(self) -> Close | None:
        """What the broker's close frame said."""
        return self.core.close_rcvd
