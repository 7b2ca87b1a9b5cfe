"""A server that does what a test tells it: for trying the suite's own clients and expectations."""

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from conformance.target import Endpoint

#: How long anything may take that does not depend on a time by itself, in seconds.
DEADLINE = 10.0

Script = Callable[[socket.socket], None]


#: A certificate for the loopback, valid for a century, with its key: of use for nothing but tests.
CERTIFICATE = str(Path(__file__).with_name("localhost.pem"))


@contextlib.contextmanager
def serving(script: Script, *, tls: bool = False, connections: int = 1) -> Iterator[Endpoint]:
    """Runs `script` with the first connections, one after the other, in a thread; each is closed after it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_serve, args=(listener, script, tls, connections))
        thread.start()
        port = listener.getsockname()[1]
        yield Endpoint("main", "mqtts" if tls else "mqtt", "127.0.0.1", port, ca_file=CERTIFICATE if tls else None)
        thread.join(DEADLINE)
        assert not thread.is_alive()


def _serve(listener: socket.socket, script: Script, tls: bool, connections: int) -> None:
    for _ in range(connections):
        connection, _ = listener.accept()
        connection.settimeout(DEADLINE)
        _serve_one(connection, script, tls)


def _serve_one(connection: socket.socket, script: Script, tls: bool) -> None:
    with contextlib.suppress(OSError), connection:
        if not tls:
            script(connection)
            return
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(CERTIFICATE)
        with context.wrap_socket(connection, server_side=True) as wrapped:
            script(wrapped)


def answer(*replies: bytes) -> Script:
    """Waits for something, then sends each of the replies in a segment of its own, and stays until the client goes."""

    def script(connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.recv(65536)
        for reply in replies:
            connection.sendall(reply)
        while connection.recv(65536):
            pass

    return script


def answer_and_close(reply: bytes) -> Script:
    """Waits for something, sends the reply and closes with FIN: what the client sends meanwhile is read, or the system
    would close with RST."""

    def script(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(reply)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass

    return script


def reset(connection: socket.socket) -> None:
    """Waits for something, and closes with RST."""
    connection.recv(65536)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
