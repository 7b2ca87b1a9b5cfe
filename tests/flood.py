"""A flood of connections, as a program of its own: `python -m tests.flood HOST PORT --rate 2000 --count 4000`.

Owns: opening many connections from one address at an even rate, and what becomes of each. Must not know: the broker.
It prints one line of JSON: how many got which CONNACK, how many were reset or closed, and how long the slowest took.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import selectors
import socket
import ssl
import time
from collections import Counter

from tests.raw_client import connect


def client_hello() -> bytes:
    """What a client of TLS says first."""
    out = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).wrap_bio(ssl.MemoryBIO(), out, server_hostname="x").do_handshake()
    return out.read()


class Flood:
    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.selector = selectors.DefaultSelector()
        self.results: Counter[str] = Counter()
        self.begun: dict[socket.socket, float] = {}
        self.slowest = 0.0
        self.kept: list[socket.socket] = []
        self.number = 0

    def first_words(self) -> bytes:
        match self.arguments.say:
            case "connect":
                return connect(f"flood-{self.arguments.source}-{self.number}")
            case "password":
                return connect(f"flood-{self.number}", username="ann", password=b"wrong %d" % self.number)
            case "hello":
                return client_hello()
        return b""

    def open(self) -> None:
        self.number += 1
        sock = socket.socket()
        sock.setblocking(False)
        if self.arguments.source:
            sock.setsockopt(socket.IPPROTO_IP, getattr(socket, "IP_BIND_ADDRESS_NO_PORT", 24), 1)
            sock.bind((self.arguments.source, 0))
        self.begun[sock] = time.monotonic()
        sock.connect_ex((self.arguments.host, self.arguments.port))
        self.selector.register(sock, selectors.EVENT_WRITE)

    def ready(self, sock: socket.socket, events: int) -> None:
        try:
            if events & selectors.EVENT_WRITE:
                error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if error:
                    raise OSError(error, "")
                sock.sendall(self.first_words())
                self.selector.modify(sock, selectors.EVENT_READ)
                return
            data = sock.recv(4096)
        except OSError:
            self.end(sock, "reset")
            return
        if not data:
            self.end(sock, "closed")
        elif self.arguments.say == "hello":
            self.end(sock, "answered")
        else:
            self.end(sock, f"code {data[3]}")

    def end(self, sock: socket.socket, result: str) -> None:
        self.results[result] += 1
        self.slowest = max(self.slowest, time.monotonic() - self.begun.pop(sock))
        self.selector.unregister(sock)
        if self.arguments.keep and result.startswith("code"):
            self.kept.append(sock)
        else:
            sock.close()

    def run(self) -> None:
        arguments = self.arguments
        start = time.monotonic()
        end = start + arguments.seconds
        while (now := time.monotonic()) < end and (self.number < arguments.count or self.begun):
            due = min(arguments.count, int((now - start) * arguments.rate))
            for _ in range(min(64, due - self.number)):
                self.open()
            for key, events in self.selector.select(0.001):
                self.ready(key.fileobj, events)  # type: ignore[arg-type]  # sockets only
            if arguments.hasty:
                for sock in [sock for sock, begun in self.begun.items() if now - begun > 0.05]:
                    self.end(sock, "left")
        took = time.monotonic() - start
        self.results["open"] = len(self.begun)
        print(json.dumps({"opened": self.number, "seconds": took, "slowest": self.slowest, **self.results}))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("--source", default="")
    parser.add_argument("--rate", type=int, default=2000)
    parser.add_argument("--count", type=int, default=4000)
    parser.add_argument("--seconds", type=float, default=60.0, help="the end in any case")
    parser.add_argument("--say", choices=("nothing", "connect", "password", "hello"), default="connect")
    parser.add_argument("--keep", action="store_true", help="stay connected")
    parser.add_argument("--hasty", action="store_true", help="leave before there can be an answer")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    Flood(parser.parse_args()).run()


if __name__ == "__main__":
    main()
