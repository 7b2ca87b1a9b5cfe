"""Clients of MQTT 5.0 for a World: what they send, and what they read of what the broker sends.

Owns: a reader of MQTT 5.0 that shares nothing with the broker's codec. Must not know: the core.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from tests import vectors
from tests.core.harness import Client, World
from tests.vectors import number, packet, string
from tests.vectors5 import connect5, disconnect5, four, publish5, subscribe5, unsubscribe5, user

VERSIONS = frozenset({3, 4, 5})

#: Properties by name: identifier and kind.
NAMES = {
    "format": (0x01, "byte"),
    "expiry": (0x02, "four"),
    "content_type": (0x03, "text"),
    "response_topic": (0x08, "text"),
    "correlation": (0x09, "text"),
    "identifier": (0x0B, "variable"),
    "session_expiry": (0x11, "four"),
    "assigned": (0x12, "text"),
    "keep_alive": (0x13, "two"),
    "method": (0x15, "text"),
    "data": (0x16, "text"),
    "problem": (0x17, "byte"),
    "response_information": (0x1A, "text"),
    "reference": (0x1C, "text"),
    "reason_string": (0x1F, "text"),
    "receive_maximum": (0x21, "two"),
    "alias_maximum": (0x22, "two"),
    "alias": (0x23, "two"),
    "maximum_qos": (0x24, "byte"),
    "retain_available": (0x25, "byte"),
    "user": (0x26, "pair"),
    "largest": (0x27, "four"),
    "wildcard": (0x28, "byte"),
    "identifiers_available": (0x29, "byte"),
    "shared": (0x2A, "byte"),
}
_BY_NUMBER = {identifier: (name, kind) for name, (identifier, kind) in NAMES.items()}
_SIZES = {"byte": 1, "two": 2, "four": 4}


def properties(**values: Any) -> list[bytes]:
    """What stands in a section, in this order. `user` and `identifier` may be lists."""
    found = []
    for name, value in values.items():
        identifier, kind = NAMES[name]
        for one in value if isinstance(value, list) else [value]:
            if kind == "pair":
                found.append(user(one[0].encode(), one[1].encode()))
            elif kind == "text":
                found.append(bytes((identifier,)) + string(one.encode()))
            elif kind == "variable":
                found.append(bytes((identifier,)) + vectors.length(one))
            else:
                found.append(bytes((identifier,)) + one.to_bytes(_SIZES[kind], "big"))
    return found


class Packet5(NamedTuple):
    """A packet that the broker sent: its name, and what it says."""

    name: str
    reason: int = 0
    packet_id: int = 0
    properties: Mapping[str, Any] = MappingProxyType({})
    topic: str = ""
    payload: str = ""
    qos: int = 0
    flags: str = ""  #: "", "dup", "retain" or "dup retain"
    reasons: tuple[int, ...] = ()  #: of SUBACK and UNSUBACK
    present: int = 0
    size: int = 0  #: bytes in all


def _variable(data: bytes, pos: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[pos]
        pos += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, pos


def _properties(data: bytes, pos: int) -> tuple[dict[str, Any], int]:
    size, pos = _variable(data, pos)
    end = pos + size
    found: dict[str, Any] = {}

    def text(at: int) -> tuple[str, int]:
        stop = at + 2 + int.from_bytes(data[at : at + 2], "big")
        return data[at + 2 : stop].decode(), stop

    while pos < end:
        name, kind = _BY_NUMBER[data[pos]]
        pos += 1
        value: Any
        if kind == "pair":
            key, pos = text(pos)
            value, pos = text(pos)
            found.setdefault(name, []).append((key, value))
            continue
        if kind == "text":
            value, pos = text(pos)
        elif kind == "variable":
            value, pos = _variable(data, pos)
            found.setdefault(name, []).append(value)
            continue
        else:
            value = int.from_bytes(data[pos : pos + _SIZES[kind]], "big")
            pos += _SIZES[kind]
        assert name not in found, f"{name} twice"
        found[name] = value
    assert pos == end
    return found, end


def read_packets5(data: bytes) -> list[Packet5]:
    packets = []
    pos = 0
    while pos < len(data):
        start = pos
        first = data[pos]
        size, pos = _variable(data, pos + 1)
        body = data[pos : pos + size]
        assert len(body) == size, "the broker sent a packet that is not whole"
        pos += size
        packets.append(_meaning(first, body, pos - start))
    return packets


def _meaning(first: int, body: bytes, size: int) -> Packet5:
    kind = first >> 4
    if kind == 3:
        qos = first >> 1 & 3
        end = 2 + int.from_bytes(body[:2], "big")
        at = end + 2 if qos else end
        packet_id = int.from_bytes(body[end:at], "big")
        told, at = _properties(body, at)
        flags = " ".join(name for name, bit in (("dup", 8), ("retain", 1)) if first & bit)
        topic, payload = body[2:end].decode(), body[at:].decode()
        return Packet5("PUBLISH", 0, packet_id, told, topic, payload, qos, flags, size=size)
    assert first & 15 == (2 if kind == 6 else 0)
    name = {2: "CONNACK", 4: "PUBACK", 5: "PUBREC", 6: "PUBREL", 7: "PUBCOMP", 9: "SUBACK", 11: "UNSUBACK",
            13: "PINGRESP", 14: "DISCONNECT", 15: "AUTH"}[kind]  # fmt: skip
    if kind == 2:
        told, _ = _properties(body, 2)
        return Packet5(name, body[1], 0, told, present=body[0], size=size)
    if kind in (13, 14, 15):
        told = _properties(body, 1)[0] if len(body) > 1 else {}
        return Packet5(name, body[0] if body else 0, 0, told, size=size)
    packet_id = int.from_bytes(body[:2], "big")
    if kind in (9, 11):
        told, at = _properties(body, 2)
        return Packet5(name, 0, packet_id, told, reasons=tuple(body[at:]), size=size)
    told = _properties(body, 3)[0] if len(body) > 3 else {}
    return Packet5(name, body[2] if len(body) > 2 else 0, packet_id, told, size=size)


class Client5(Client):
    """A client that speaks MQTT 5.0."""

    def __init__(self, world: World) -> None:
        world.versions = VERSIONS
        super().__init__(world, 10.0, 1 << 20)
        self._found: list[Packet5] = []

    # --- what it gets ---

    def get(self) -> list[Packet5]:
        """What has arrived since the last time."""
        data = bytes(self.transport.taken)
        self.transport.taken.clear()
        found, self._found = self._found + read_packets5(data), []
        return found

    def answer(self) -> Packet5:
        """The one packet that has arrived."""
        [one] = self.get()
        return one

    def messages(self) -> list[Packet5]:
        """The PUBLISHes that have arrived, each acknowledged to its end."""
        found = []
        while packets := self.get():
            for one in packets:
                if one.name == "PUBLISH":
                    found.append(one)
                    if one.qos:
                        self.send(packet((0, 0x40, 0x50)[one.qos], number(one.packet_id)))
                elif one.name == "PUBREL":
                    self.send(packet(0x70, number(one.packet_id)))
        return found

    def got(self) -> list[str]:
        """The payloads of what `messages` gives."""
        return [one.payload for one in self.messages()]

    # --- what it does ---

    def publish5(
        self,
        topic: str,
        payload: str = "",
        qos: int = 0,
        packet_id: int = 1,
        *,
        retain: bool = False,
        dup: bool = False,
        **values: Any,
    ) -> Client5:
        wanted = properties(**values)
        self.send(
            publish5(topic.encode(), payload.encode(), *wanted, qos=qos, packet_id=packet_id, retain=retain, dup=dup)
        )
        return self

    def ask(self, *wanted: tuple[str, int], packet_id: int = 1, identifier: int = 0) -> Client5:
        """SUBSCRIBE; the answer is taken."""
        section = b"".join(properties(identifier=identifier)) if identifier else b""
        self.send(
            subscribe5(
                packet_id,
                *((name.encode(), options) for name, options in wanted),
                properties=vectors.length(len(section)) + section,
            )
        )
        answer = self._take("SUBACK", packet_id)
        assert all(reason < 0x80 for reason in answer.reasons)
        return self

    def forget(self, *filters: str, packet_id: int = 1) -> Client5:
        """UNSUBSCRIBE; the answer is taken."""
        self.send(unsubscribe5(packet_id, *(name.encode() for name in filters)))
        self._take("UNSUBACK", packet_id)
        return self

    def _take(self, name: str, packet_id: int) -> Packet5:
        """The answer of this name, from what has arrived."""
        packets = self.get()
        [answer] = [one for one in packets if (one.name, one.packet_id) == (name, packet_id)]
        self._found = [one for one in packets if one is not answer]
        return answer

    def bye(self, reason: int = 0, **values: Any) -> Client5:
        self.send(disconnect5(reason, *properties(**values)))
        return self


def dial5(world: World) -> Client5:
    return Client5(world)


def join5(
    world: World, client_id: str = "c", *, clean: bool = True, username: str | None = None, **values: Any
) -> Client5:
    """A client whose CONNECT was accepted; the answer is taken. A session lasts for an hour if it is not `clean`."""
    client = Client5(world)
    flags = 0x02 if clean else 0
    rest = b""
    if username is not None:
        flags |= 0x80
        rest = string(username.encode())
    if not clean:
        values.setdefault("session_expiry", 3600)
    client.send(connect5(client_id.encode(), *properties(**values), flags=flags, keep_alive=0, rest=rest))
    packets = client.get()
    assert (packets[0].name, packets[0].reason) == ("CONNACK", 0)
    client._found = packets[1:]
    return client


__all__ = ["NAMES", "Client5", "Packet5", "dial5", "four", "join5", "properties", "read_packets5"]
