"""Reading `$SYS` as any client can.

Owns: the subscription, and the waiting for a value. Must not know: what the values mean.
"""

from __future__ import annotations

import time

from tests.raw_client import DEADLINE, PINGREQ, PINGRESP, Address, RawClient, parse_publish

PREFIX = "$SYS/broker/"


def sys_values(address: Address) -> dict[str, str]:
    """All that is there now, by name without the prefix."""
    with RawClient.connected(address).subscribe((f"{PREFIX}#", 0)) as client:
        client.send(PINGREQ)
        values = {}
        while (data := client.next()) != PINGRESP:
            message = parse_publish(data)
            values[message.topic.removeprefix(PREFIX)] = message.payload.decode()
        return values


def wait_for_sys(address: Address, name: str, value: object) -> None:
    """Wait until it has this value."""
    seen = []
    end = time.monotonic() + DEADLINE
    with RawClient.connected(address).subscribe((PREFIX + name, 0)) as client:
        while not seen or seen[-1] != str(value):
            left = end - time.monotonic()
            try:
                seen.append(client.message(max(left, 0.01)).payload.decode())
            except TimeoutError:
                raise AssertionError(f"{name} did not become {value}, but {seen}") from None
