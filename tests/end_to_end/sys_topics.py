"""Reading `$SYS` as any client can.

Owns: the subscription, and the waiting for a value. Must not know: what the values mean.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from tests.raw_client import DEADLINE, PINGREQ, PINGRESP, Address, RawClient, parse_publish

PREFIX = "$SYS/broker/"
FILTER = "$SYS/#"  # within all limits of filters


def sys_values(address: Address) -> dict[str, str]:
    """All that is there now, by name without the prefix."""
    with RawClient.connected(address).subscribe((FILTER, 0)) as client:
        client.send(PINGREQ)
        values = {}
        while (data := client.next()) != PINGRESP:
            message = parse_publish(data)
            values[message.topic.removeprefix(PREFIX)] = message.payload.decode()
        return values


def wait_for_sys(address: Address, name: str, value: object) -> None:
    """Wait until it has this value."""
    _wait(address, name, str(value), lambda seen: seen == str(value))


def wait_for_count(address: Address, name: str, least: int) -> None:
    """Wait until it has at least this value: it is told once per `sys_interval`. (Uptime has a unit.)"""
    _wait(address, name, f"at least {least}", lambda seen: int(seen.split()[0]) >= least)


def _wait(address: Address, name: str, what: str, condition: Callable[[str], bool]) -> None:
    seen: list[str] = []
    end = time.monotonic() + DEADLINE
    with RawClient.connected(address).subscribe((FILTER, 0)) as client:
        while not seen or not condition(seen[-1]):
            message = client.message(max(end - time.monotonic(), 0.01))
            if message.topic == PREFIX + name:
                seen.append(message.payload.decode())
            assert time.monotonic() < end, f"{name} did not become {what}, but {seen}"
