"""Tells of every packet of a client, at debug.

Owns: the two layers through which a connection's packets go while somebody wants to see them, and only then: without
them, nothing is slower. Must not know: what packets mean, how the lines look (broker.wire.describe).

    transport --bytes--> connection --> TracedDecoder --packets--> handlers
    transport <--flush-- TracedTransport <------------- out
"""

from __future__ import annotations

from collections.abc import Callable

from ..wire.decoder import Decoder
from ..wire.describe import describe_received, describe_sent
from ..wire.packets import Packet
from .connection import Connection
from .ports import Log, Transport

#: Says who the client is: by its identifier, or where it has none yet by its address.
Who = Callable[[], dict[str, object]]


def watch(connection: Connection, log: Log) -> None:
    """Tell of the connection's packets from now on, if `log` wants them, else no more."""

    def who() -> dict[str, object]:
        client_id = connection.client_id
        return {"address": connection.peer} if client_id is None else {"client": client_id}

    def layers(decoder: Decoder, transport: Transport) -> tuple[Decoder, Transport]:
        if isinstance(transport, TracedTransport) is log.debugging:
            return decoder, transport
        if isinstance(transport, TracedTransport):
            transport = transport.below
        if not log.debugging:
            return decoder.become(Decoder(decoder.max_size)), transport
        traced = decoder.become(TracedDecoder(decoder.max_size, log, who))
        return traced, TracedTransport(transport, log, who, lambda: traced.version)

    connection.put_around(layers)


class TracedDecoder(Decoder):
    """A decoder that tells what it yields."""

    __slots__ = ("_log", "_who")

    def __init__(self, max_size: int, log: Log, who: Who) -> None:
        super().__init__(max_size)
        self._log = log
        self._who = who

    def decode(self, limit: int) -> list[Packet]:
        packets = super().decode(limit)
        if packets:
            who = self._who()
            for packet in packets:
                event, fields = describe_received(packet)
                self._log.debug(event, **{**who, **fields})
        return packets


class TracedTransport:
    """Implements core.ports.Transport on another one, and tells what is handed to it."""

    def __init__(self, below: Transport, log: Log, who: Who, version: Callable[[], int]) -> None:
        """`version` gives the protocol level that is spoken."""
        self.below = below
        self._log = log
        self._who = who
        self._version = version
        self.out = below.out
        self.peer = below.peer

    @property
    def identity(self) -> str | None:
        return self.below.identity

    def flush(self) -> None:
        self._tell()
        self.below.flush()

    def close(self, gently: bool = True) -> None:
        self._tell()
        self.below.close(gently)

    def pause_reading(self) -> None:
        self.below.pause_reading()

    def resume_reading(self) -> None:
        self.below.resume_reading()

    def _tell(self) -> None:
        if not self.out:
            return
        who = self._who()
        for event, fields in describe_sent(b"".join(self.out), self._version()):
            self._log.debug(event, **{**who, **fields})
