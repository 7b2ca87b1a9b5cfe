"""`$argon2id$` hashes (RFC 9106), as mosquitto_passwd 2.1 writes them: read and computed, never written.

Owns: that format, and what one may cost. Must not know: users, and files. It takes the extra `selectmq[argon2]`.
"""

import base64
import re
from typing import NamedTuple

#: A check must not take a worker for seconds, nor all memory: those that Mosquitto writes take 46 MiB for 0.05 s.
MAX_MEMORY = 1 << 20  # KiB
MAX_PASSES = 64
MAX_LANES = 64

_FORM = re.compile(
    r"\$argon2id\$v=(16|19)\$m=([0-9]{1,10}),t=([0-9]{1,10}),p=([0-9]{1,10})\$([A-Za-z0-9+/]+)\$([A-Za-z0-9+/]+)"
)


class Missing(Exception):
    """The extra is not installed."""


class Costs(NamedTuple):
    """What one hash costs, with the rest that it depends on besides password and salt."""

    version: int
    memory: int  #: KiB
    passes: int
    lanes: int
    length: int  #: of the hash, in bytes


def parse(text: str) -> tuple[Costs, bytes, bytes]:
    """Costs, salt and hash. Raises ValueError with what is wrong, and Missing."""
    match = _FORM.fullmatch(text)
    if match is None:
        raise ValueError("a $argon2id$ hash is $argon2id$v=19$m=KIB,t=PASSES,p=LANES$SALT$HASH")
    version, memory, passes, lanes = map(int, match.groups()[:4])
    salt, digest = _decode(match[5], "salt"), _decode(match[6], "hash")
    limits = (("m", memory, 8 * lanes, MAX_MEMORY), ("t", passes, 1, MAX_PASSES), ("p", lanes, 1, MAX_LANES))
    for name, value, low, high in limits:
        if not low <= value <= high:
            raise ValueError(f"{name} must be from {low} to {high}, not {value}")
    if len(salt) < 8:
        raise ValueError(f"the salt has {len(salt)} bytes: at least 8 are needed")
    if not 16 <= len(digest) <= 512:
        raise ValueError(f"the hash has {len(digest)} bytes: from 16 to 512 are read")
    try:
        import argon2  # noqa: F401
    except ImportError as error:
        raise Missing(str(error)) from None
    return Costs(version, memory, passes, lanes, len(digest)), salt, digest


def compute(password: bytes, salt: bytes, costs: Costs) -> bytes:
    """The hash. Blocks for its time."""
    from argon2.low_level import Type, hash_secret_raw

    return hash_secret_raw(
        password, salt, costs.passes, costs.memory, costs.lanes, costs.length, Type.ID, version=costs.version
    )


def _decode(field: str, what: str) -> bytes:
    """Base64 without its padding."""
    try:
        return base64.b64decode(field + "=" * (-len(field) % 4), validate=True)
    except ValueError:
        raise ValueError(f"the {what} is not valid base64") from None
